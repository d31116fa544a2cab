//! Clients of a feed that may come compressed (RFC 7692), for a bench: all of them count messages and bytes as they
//! stand on the wire, some of them inflate and check each message. Connections may come and go all the while.
//!
//! | module | what it holds |
//! |---|---|
//! | `args` | the options, and the settings that they become |
//! | `agreement` | what an answer to an offer of compression says |
//! | `script` | the feed: which message follows which |
//! | `stream` | one connection's stream: frames, and what is in them where that is looked at |
//! | `counts` | what arrived at all clients together |
//! | `crowd` | all connections: the only reader of sockets |
//! | `session` | the loop: commands and reports |

mod agreement;
mod args;
mod counts;
mod crowd;
mod script;
mod session;
mod stream;

pub(crate) use args::Options;

use args::Settings;

use crate::error::LoadError;

/// Runs the clients until stdin ends; gives the exit code.
pub(crate) fn run(options: Options) -> Result<i32, LoadError> {
    session::run(Settings::try_from(options)?)
}
