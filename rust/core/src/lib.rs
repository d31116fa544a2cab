//! The fan-out engine of fanwire: a channel is a log, a subscriber is a cursor.
pub mod http;
pub mod protocol;
pub mod ws;
