//! The SignalR hub protocols, JSON and MessagePack, of both ends: bytes in, messages out, and back.
//!
//! A connection begins with a [`negotiate`] over HTTP, which may be left out. Its stream is cut into records by a
//! [`RecordReceiver`], whatever frames it came in. The first record each way is the [`handshake`], JSON in both
//! protocols; every other one is a [`HubMessage`]. [`sequence`] keeps the books of a stateful reconnect.
//!
//! Arguments, items and results stay raw: the bytes of the message that carried them, never a value. What is accepted
//! and what is written follows ASP.NET Core 10; where we differ, the function says so.
mod canonical;
pub mod handshake;
pub(in crate::protocol) mod hub_protocol;
mod json;
mod message;
pub(in crate::protocol) mod msgpack;
pub mod negotiate;
mod object;
pub(in crate::protocol) mod publication;
mod record;
pub mod sequence;

pub use canonical::canonical;
pub use hub_protocol::{HubProtocol, parse_message, write_message};
pub use message::{CLOSE_ERROR, HubMessage, JSON_DEPTH_MAX, MSGPACK_DEPTH_MAX, MessageError, Outcome};
pub use publication::{TARGET, arguments_of, write_publication, write_records};
pub(crate) use record::record_bytes;
pub use record::{RECORD_BYTES_MAX, RecordError, RecordReceiver};
