//! The load client of fanwire, and the bare loop that is its floor.
//!
//! The client opens many WebSocket connections to one server, subscribes each of them to some channels and checks all
//! that arrives: that nothing is missing, nothing comes twice or out of order, how old each message is, and when the
//! last subscriber has a publication. It runs on one core beside a server on another, so its own cost for each message
//! decides how fast a server it can judge: one big read buffer for all connections, fields at fixed offsets, a clock
//! that is read once for each `read`.
//!
//! The floor is the least that any server must do for the same work: one buffer, sent to every socket. What a server
//! costs above it is the server's own.
//!
//! A mode of its own, `fanwire-load signalr`, is the clients of a SignalR hub: it negotiates, shakes hands, invokes, and
//! counts whole hub messages.
//!
//! Another, `fanwire-load feed`, is clients of a feed that may come compressed: they count bytes as they stand on the wire.
//!
//! Nothing here uses `fanwire-core`: a mistake that both made would hide itself.
//!
//! | module | what it holds |
//! |---|---|
//! | `args` | the options, and the settings that they become |
//! | `draw` | which connection watches which channels, from which address |
//! | `payload` | the fixed-width text that each publication carries |
//! | `connect` | connect, upgrade request, the check of its answer |
//! | `receive` | frames in what was read, and the part of one that a read cut off |
//! | `histogram` | ages, counted |
//! | `check`, `completion` | sequence, totals, latency · when the last subscriber has a publication |
//! | `client` | all connections of one process: the only reader of sockets |
//! | `session` | the loop of one process: commands, ticks, expectations |
//! | `children` | several processes, one report |
//! | `commands`, `report` | lines on stdin · lines on stdout |
//! | `signalr` | the clients of a SignalR hub, or of the raw protocol beside it |
//! | `feed` | the clients of a feed that may come compressed |
//! | [`floor`] | the bare loop |
//! | `sys` | the calls of the operating system; with `floor/ring.rs` the only `unsafe` |

mod args;
mod check;
mod children;
mod client;
mod commands;
mod completion;
mod connect;
mod draw;
mod error;
mod feed;
pub mod floor;
mod histogram;
mod payload;
mod receive;
mod report;
mod session;
mod signalr;
mod sys;

pub use error::LoadError;

use args::{Options, Settings};
use clap::Parser;

/// Runs the load client until its work is done; blocks, reads stdin, writes stdout and stderr.
///
/// `args` begins with the program's name, as [`std::env::args`] does. Where one process may not hold all connections,
/// it starts itself again for each share of them.
///
/// Gives the exit code, 0 where all is well. After `--for` it is 1 when messages were missing, out of order or broken,
/// or nobody connected. It is 2 when the options or the system do not allow the run.
pub fn run(args: impl Iterator<Item = String>) -> i32 {
    let mut args: Vec<String> = args.collect();
    let outcome = match args.get(1).map(String::as_str) {
        Some("signalr") => parse(mode(&mut args)).and_then(|options| told(signalr::run(options))),
        Some("feed") => parse(mode(&mut args)).and_then(|options| told(feed::run(options))),
        _ => parse::<Options>(args).and_then(|options| told(run_with(options))),
    };
    outcome.unwrap_or_else(|exit_code| exit_code)
}

fn run_with(options: Options) -> Result<i32, LoadError> {
    let settings = Settings::try_from(options)?;
    if settings.processes > 1 { children::run(&settings) } else { session::run(settings) }
}

/// The arguments of a mode, whose name becomes part of the program's.
fn mode(args: &mut Vec<String>) -> Vec<String> {
    let mode = args.remove(1);
    args[0].push_str(&format!(" {mode}"));
    std::mem::take(args)
}

/// The options; where they are not understood, or help was asked for, says so and gives the exit code.
fn parse<O: Parser>(args: Vec<String>) -> Result<O, i32> {
    O::try_parse_from(args).map_err(|error| {
        // A closed stdout or stderr leaves nobody to tell.
        let _ = error.print();
        error.exit_code()
    })
}

/// Says what stopped a run.
fn told(outcome: Result<i32, LoadError>) -> Result<i32, i32> {
    outcome.map_err(|error| {
        eprintln!("fanwire-load: {error}");
        2
    })
}
