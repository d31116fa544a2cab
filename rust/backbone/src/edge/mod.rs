//! The link to an origin: a hub of which this machine is an edge. It orders and keeps, and this machine passes on.
//!
//! One WebSocket to a path of the origin's, as any client has one, with a subprotocol of edges: publications come whole,
//! with their place and that of the one before. What is asked is what clients ask: `subscribe` with `since`, in batches. So
//! the origin's own `authenticate` and `authorize` say what this machine may have.
//!
//! Nothing is published here, and no machine is told anything: machines know each other at the origin alone.
mod connection;
mod following;
mod session;
mod target;

pub(crate) use session::{Plan, Session};
pub(crate) use target::Target;
