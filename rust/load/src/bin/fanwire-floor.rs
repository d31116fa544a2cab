//! `fanwire-floor`: the bare loop as a program. All of it is in the library.

fn main() {
    std::process::exit(fanwire_load::floor::run(std::env::args()));
}
