//! Several processes as one: who orders the publications of a channel, and the side of those whose clients get them.
//!
//! One process is the *sequencer* ([`Sequencer`]): it gives each publication its position, keeps what the channel keeps,
//! and sends it to each process that wants the channel. Every other one is a *member* ([`Member`]): what it publishes
//! goes there first, and into its own logs when it comes back. So there is one order for all, and a position is the same
//! everywhere. Here are no sockets and no threads: bytes go in, bytes come out. `wire` has the messages.
mod abroad;
#[cfg(test)]
mod abroad_tests;
#[cfg(test)]
mod abroad_views;
#[cfg(test)]
mod abroad_world;
mod agreement;
mod asked;
mod backbone;
mod edging;
mod listening;
mod machines;
mod meeting;
#[cfg(test)]
mod meeting_tests;
mod member;
mod outgoing;
mod placing;
mod plain;
mod sequencer;
mod snapshots;
mod telling;
mod wire;

pub use agreement::agreement;
pub use backbone::{Backbone, Heard, Keep, OnDown, Record};
pub use edging::{EDGE_SUBPROTOCOLS, read_for_edges};
pub use meeting::LETTER_BYTES_MAX;
pub use member::{Member, Sender, Then};
pub use outgoing::{Outgoing, RULES, RULES_KEPT, Recipients, bytes_for_programs, name_for_programs, read_rules};
pub use placing::{Outcome, Placing};
pub use sequencer::{Peers, Sequencer};
pub use wire::VERSION;
pub(crate) use wire::{FromSequencer, Group, Key};
