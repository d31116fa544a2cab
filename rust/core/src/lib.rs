//! The fan-out engine of fanwire: a channel is a log, a subscriber is a cursor.
//!
//! [`Engine`] is the whole of it. A publication is appended once, as bytes ready for the wire, to the log of its
//! [`channel`]; each [`shard`] is a thread with its own sockets that sends one slice of the log to everyone at the tail.
//! What speaks protocols takes bytes and gives bytes: [`http`], [`ws`], [`protocol`]. [`messages`] is the contract
//! between threads and languages on one page.
//!
//! The crate reads no environment variables, knows no Python and starts no threads but the shards' and, for one of several
//! workers, the one that speaks with the others.
#![deny(unsafe_op_in_unsafe_fn)]
pub mod adopted;
mod alike;
mod backoff;
mod bytes;
pub mod channel;
mod clock;
mod connection_id;
mod engine;
pub mod error;
mod events;
mod failure;
pub mod http;
mod listening;
mod looking;
#[cfg_attr(not(loom), allow(dead_code))]
pub mod mailbox;
pub mod messages;
pub mod node;
mod notify;
mod offers;
mod position;
pub mod protocol;
pub mod routes;
mod session;
pub mod settings;
pub mod shard;
mod siblings;
mod socket;
mod stats;
mod sync;
mod tokens;
pub mod ws;

pub use alike::Alike;
pub use backoff::Backoff;
pub use engine::{
    Adopted, Audience, Broadcasting, Chosen, Engine, Message, NewError, TOLD_OF_LANES, TOLD_TO_APPLICATION,
};
pub use error::{EXHAUSTED, EngineError};
pub use failure::{panic_text, run_to_end};
pub use listening::HeldAddress;
pub use looking::{By, CHANNELS_SHOWN, Lag, Look, Page, Seen, TcpSeen, Why};
pub use offers::{OFFERED_BYTES_MAX, OfferedAnswer, OfferedCall, Terms as OfferTerms};
pub use position::Position;
pub use routes::{Asks, Limits, OwnerId, ROUTES_MAX, Route, RouteError, Transports, Wire};
pub use settings::{ChannelRule, ChannelSettings, HubSettings, PollerKind, Settings, SettingsError, Siblings};
pub use stats::{FELL_BACK, FRACTIONS, Histogram, JOINED, OPENED, Stats};
pub use ws::{CLOSE_CODES, CloseCode};
