//! The star between workers and their owner: sockets, threads and frames; [`sequence`] and [`join`] put the core's
//! sequencer and members at its ends.
//!
//! One process has a [`Server`]: it listens on a Unix socket, and one thread (`fanwire-owner`) does all that a
//! [`Serving`] wants done. Every other has a [`Link`] to it, whose one thread (`fanwire-link`) runs a [`Linked`] and writes
//! what any thread gives to a [`LinkSender`]. A frame is a length of four bytes, little-endian, and so many bytes.
//!
//! Promises: frames between a link and the server arrive whole, once and in order, each way, as long as one connection
//! lasts; when it breaks, both ends are told, and what was under way is lost. No call but [`Server::stop`] and
//! [`Link::stop`] waits. Everything that waits has a bound, and whoever is over it is told which: [`Bounds`].
//!
//! A fork has none of the threads: what it inherits does nothing there.
mod answer;
mod bell;
mod bounds;
mod connection;
mod error;
mod frame;
mod heard;
mod joining;
mod link;
mod linked;
mod orphans;
mod outbox;
mod outside;
mod owner;
mod peers;
mod place;
mod poller;
mod publisher;
mod sender;
mod sequencing;
mod server;
mod serving;
mod thread;

pub use answer::{Answer, Unplaced};
pub use bounds::Bounds;
pub use error::{SendError, StartError};
pub use fanwire_backbone::{Full, SCRIPT as PUBLISH_SCRIPT};
pub use heard::Told;
pub use joining::{JoinError, join};
pub use link::Link;
pub use linked::Linked;
pub use orphans::adopt_orphans;
pub use outside::Outside;
pub use peers::{Outgoing, Peer};
pub use publisher::{PublishError, Publisher};
pub use sender::LinkSender;
pub use sequencing::sequence;
pub use server::Server;
pub use serving::Serving;
