//! The backbone's link to Redis, Valkey, NATS or an origin: publications of many machines in one order, with what is kept.
//!
//! A [`Link`] has one thread (`fanwire-backbone`) and two connections to each server: one for commands, one for what is
//! published. One script (`publish.lua`) gives each publication its position, keeps it and publishes it, so all links
//! see one order. It knows no engine, no Python and no sequencer: names and bytes go in, events come out.
//!
//! A URL is `redis://[user:password@]host[:port][/database]`, or `rediss://` with TLS; `valkey://` and `valkeys://` are the
//! same. `redis+sentinel://[user:password@]host[:port],host[:port]/master-name[/database]` asks sentinels for the master;
//! `?sentinel_user=…&sentinel_password=…` is for the sentinels themselves. `redis+cluster://host[:port],host[:port]` names
//! some nodes of a cluster; one that `redis://` names is recognized as such. `rediss+…` and `valkey+…` are to be had, too.
//!
//! `nats://[user:password@|token@]host[:port],host[:port]?credentials=FILE&replicas=3&storage=memory` is NATS with JetStream,
//! and `tls://` the same with TLS; `nats/mod.rs` says how that orders and keeps.
//!
//! `fanwire://[token@]host[:port],host[:port][/path][?query]` is a hub of which this machine is an edge, and `fanwires://` the
//! same with TLS; `edge/mod.rs` says what that can and cannot do.
//!
//! Promises: no position is ever given to two publications, also where a server has lost some; a link that hears nothing
//! for [`Options::silent_max`] says [`Event::Down`]; all that waits is bounded.
mod api;
mod asking;
mod channels;
mod connection;
mod edge;
mod inbox;
mod link;
mod machines;
mod names;
mod nats;
mod record;
mod roots;
mod rounds;
mod running;
mod script;
mod server;
mod session;
mod topology;
mod url;

pub use api::{Error, Event, Full, Options, Refused};
pub use fanwire_core::Position;
pub use fanwire_core::node::{Keep, Record};
pub use link::Link;
pub use script::SCRIPT;
