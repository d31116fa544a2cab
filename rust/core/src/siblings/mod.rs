//! The other workers of one supervisor, as far as SignalR needs them: whose a token is, and what is passed on to its worker.
//!
//! [`signature`] makes tokens that every worker accepts, [`searches`] finds the worker that has one, [`wire`] is what
//! workers say to each other, [`link`] one Unix socket between two, and [`thread`] has them all: a thread that never waits
//! for a shard, as no shard waits for it. Shards leave [`errands`] with
//! [`Siblings`]; it leaves deliveries with them.
mod errands;
mod link;
mod searches;
mod signature;
mod thread;
mod wire;

pub(crate) use errands::{Delivery, Errand, GuestId, Office, Outgoing, Siblings, Sought};
pub(crate) use signature::{is_marked, unmarked};
pub(crate) use thread::Thread;
