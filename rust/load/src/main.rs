//! `fanwire-load`: the load client as a program. All of it is in the library.

fn main() {
    std::process::exit(fanwire_load::run(std::env::args()));
}
