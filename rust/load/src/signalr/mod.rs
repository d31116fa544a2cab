//! Clients of a SignalR hub, or of the raw protocol beside it, for a bench: they connect as stock clients do, invoke,
//! ping, and count the invocations of some targets, each client by itself. They may each watch a match, and check what
//! they receive of it.
//!
//! | module | what it holds |
//! |---|---|
//! | `args` | the options, and the settings that they become |
//! | `negotiate` | the request for a connection token, and its answer |
//! | `protocol` | what a client says, in JSON and in MessagePack |
//! | `odds` | a match's publications at one client: each once, in their order |
//! | `message` | hub messages in a stream of bytes |
//! | `inbound` | one connection's stream: frames, the handshake's answer, hub messages |
//! | `counts` | what arrived at all clients together |
//! | `progress` | what there has been since the start, told from time to time |
//! | `returning` | clients that were lost and come back: which of them, and when |
//! | `stage` | how far a client has come |
//! | `crowd` | all connections: the only reader of sockets |
//! | `session` | the loop: commands and reports |

mod args;
mod counts;
mod crowd;
mod inbound;
mod message;
mod negotiate;
mod odds;
mod progress;
mod protocol;
mod returning;
mod session;
mod stage;

use args::{Options, Settings};

use crate::error::LoadError;

/// Runs the clients until stdin ends; gives the exit code.
pub(crate) fn run(options: Options) -> Result<i32, LoadError> {
    session::run(Settings::try_from(options)?)
}
