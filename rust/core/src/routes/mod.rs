//! Which path is whose: one table, in which the shards look requests up. It knows no socket, and no bytes of any protocol.
//!
//! Routes come and go while the engine serves. Each change makes a new table; a shard keeps the one that it has, and at
//! each request's head compares a number to see whether there is another. A connection keeps its own route for life.
//!
//! The most exact route answers: a path without placeholders, then SignalR's, then the pattern of which the first
//! segment that differs is a text and no placeholder.
//!
//! `path` reads paths and their placeholders, `route` has what stands in the table, `table` the table.
mod path;
mod route;
mod table;

pub use route::{Asks, Limits, OwnerId, ROUTES_MAX, Route, RouteError, Transports, Wire};
pub(crate) use table::{Found, Placed, Routes, Table};
