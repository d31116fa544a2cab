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
mod json;
mod msgpack;
pub mod negotiate;
mod object;
mod publication;
mod record;
pub mod sequence;

use std::borrow::Cow;

pub use canonical::canonical;
pub(in crate::protocol) use msgpack::{write_bin, write_str};
pub(crate) use publication::publication_bytes_max;
pub use publication::{TARGET, arguments_of, write_publication, write_records};
pub use record::{RECORD_BYTES_MAX, RecordError, RecordReceiver};

/// How deep a JSON message may nest, its own object included; the reference's bound.
pub const JSON_DEPTH_MAX: usize = 64;

/// How deep a MessagePack argument, item or result may nest; the reference's bound.
pub const MSGPACK_DEPTH_MAX: usize = 500;

/// What a server writes into [`HubMessage::Close`] when the client broke the protocol; with it `allow_reconnect`.
pub const CLOSE_ERROR: &str = "Connection closed with an error.";

/// How hub messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HubProtocol {
    /// JSON texts, each with a record separator (0x1E) behind it.
    Json,
    /// MessagePack arrays, each with its length as a VarInt before it.
    MessagePack,
}

impl HubProtocol {
    /// The newest version of both protocols: that with stateful reconnect.
    pub const VERSION_MAX: i32 = 2;

    /// The name that a handshake carries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::MessagePack => "messagepack",
        }
    }

    /// The protocol of this name, in any case of its letters as the reference has it, or `None`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Json, Self::MessagePack].into_iter().find(|protocol| protocol.name().eq_ignore_ascii_case(name))
    }

    /// Whether it goes into binary frames; clients refuse JSON in them. The handshake's reply goes into the same kind.
    #[must_use]
    pub const fn is_binary(self) -> bool {
        matches!(self, Self::MessagePack)
    }

    /// A record as a [`RecordReceiver`] gives it, with its separator or length again: to be passed on as it came.
    ///
    /// # Panics
    /// A MessagePack record of 4 GiB or more, which its length cannot say.
    #[must_use]
    pub fn whole(self, record: &[u8]) -> Vec<u8> {
        let mut whole = Vec::with_capacity(record.len() + 5);
        match self {
            Self::Json => {
                whole.extend_from_slice(record);
                whole.push(json::SEPARATOR);
            }
            Self::MessagePack => {
                let bytes = u32::try_from(record.len()).expect("a record is bounded far below 4 GiB");
                let (prefix, prefix_bytes) = msgpack::varint(bytes);
                whole.extend_from_slice(&prefix[..prefix_bytes]);
                whole.extend_from_slice(record);
            }
        }
        whole
    }

    /// [`HubMessage::Ping`] as a whole record: one for all connections.
    #[must_use]
    pub const fn ping(self) -> &'static [u8] {
        match self {
            Self::Json => b"{\"type\":6}\x1e",
            Self::MessagePack => b"\x02\x91\x06",
        }
    }
}

/// A message of the hub protocol. Raw bytes are in the protocol that the message came in or goes out in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HubMessage<'a> {
    /// Type 1: calls a method of the other side.
    Invocation {
        /// What the [`Completion`](Self::Completion) is to carry, or `None` if none is wanted; never empty.
        id: Option<Cow<'a, str>>,
        /// The method's name. A server compares it without case, most clients exactly: keep it as it is.
        target: Cow<'a, str>,
        /// An array of the arguments, raw.
        arguments: &'a [u8],
        /// The ids of the streams that the caller will send.
        stream_ids: Vec<Cow<'a, str>>,
    },
    /// Type 2: one item of a stream.
    StreamItem {
        /// Of the invocation or upload.
        id: Cow<'a, str>,
        /// A value, raw.
        item: &'a [u8],
    },
    /// Type 3: the end of an invocation or stream.
    Completion {
        /// Of the invocation or upload.
        id: Cow<'a, str>,
        /// How it ended.
        outcome: Outcome<'a>,
    },
    /// Type 4: calls a method whose results are a stream.
    StreamInvocation {
        /// What items and the completion are to carry.
        id: Cow<'a, str>,
        /// As of an [`Invocation`](Self::Invocation).
        target: Cow<'a, str>,
        /// An array of the arguments, raw.
        arguments: &'a [u8],
        /// The ids of the streams that the caller will send.
        stream_ids: Vec<Cow<'a, str>>,
    },
    /// Type 5: the caller wants no more of this; a completion follows all the same.
    CancelInvocation {
        /// Of the invocation.
        id: Cow<'a, str>,
    },
    /// Type 6: nothing but a sign of life.
    Ping,
    /// Type 7: the last message.
    Close {
        /// Why, if something went wrong.
        error: Option<Cow<'a, str>>,
        /// Whether a client that reconnects by itself may do so.
        allow_reconnect: bool,
    },
    /// Type 8: all trackable messages up to this one have been processed.
    Ack {
        /// Which one.
        sequence_id: i64,
    },
    /// Type 9: after a reconnect, which trackable message comes next.
    Sequence {
        /// Which one.
        sequence_id: i64,
    },
    /// Any other type, which a receiver skips. Never pass one on to a server: a stock one waits on it for ever.
    Unknown {
        /// The type.
        message_type: i32,
    },
}

impl HubMessage<'_> {
    /// Whether it counts in the [`sequence`] of its sender.
    #[must_use]
    pub const fn is_trackable(&self) -> bool {
        matches!(
            self,
            Self::Invocation { .. }
                | Self::StreamItem { .. }
                | Self::Completion { .. }
                | Self::StreamInvocation { .. }
                | Self::CancelInvocation { .. }
        )
    }

    /// What it is on the wire.
    #[must_use]
    pub const fn message_type(&self) -> i32 {
        match self {
            Self::Invocation { .. } => 1,
            Self::StreamItem { .. } => 2,
            Self::Completion { .. } => 3,
            Self::StreamInvocation { .. } => 4,
            Self::CancelInvocation { .. } => 5,
            Self::Ping => 6,
            Self::Close { .. } => 7,
            Self::Ack { .. } => 8,
            Self::Sequence { .. } => 9,
            Self::Unknown { message_type } => *message_type,
        }
    }
}

/// How an invocation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// It failed, with this text.
    Error(Cow<'a, str>),
    /// It ended without a result.
    Void,
    /// It gave a value, raw.
    Result(&'a [u8]),
}

/// A record that is no message: the peer's misdeed. A server answers with [`CLOSE_ERROR`] and ends the connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Text that is not UTF-8: a whole JSON message, or a string in MessagePack. Nothing is replaced silently.
    #[error("{field} is not UTF-8")]
    NotUtf8 {
        /// Which field.
        field: &'static str,
    },
    /// Not JSON.
    #[error("message is not JSON: {reason}")]
    NotJson {
        /// What the JSON parser says, with line and column.
        reason: Box<str>,
    },
    /// Nested above the bound.
    #[error("message nests deeper than {depth_max} levels")]
    TooDeep {
        /// The bound.
        depth_max: usize,
    },
    /// A field that must be there is not; in MessagePack the array is too short.
    #[error("{field} is missing")]
    Missing {
        /// Which field, as JSON names it.
        field: &'static str,
    },
    /// A field that must hold something is an empty string.
    #[error("{field} is empty")]
    Empty {
        /// Which field.
        field: &'static str,
    },
    /// A field has the wrong type.
    #[error("{field}: expected {expected}, got {got}")]
    WrongType {
        /// Which field.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        got: &'static str,
    },
    /// A JSON completion with both.
    #[error("a completion has error or result, got both")]
    ErrorAndResult,
    /// A MessagePack completion of no known kind.
    #[error("result kind is {kind}, expected 1, 2 or 3")]
    UnknownResultKind {
        /// The kind.
        kind: i32,
    },
    /// MessagePack that is cut off, or announces more members than bytes are left.
    #[error("message ends inside {field}")]
    Truncated {
        /// Which field.
        field: &'static str,
    },
    /// Bytes behind the MessagePack array.
    #[error("{bytes} bytes follow the message, expected none")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
}

/// Reads one message; `record` is what a [`RecordReceiver`] gives, without separator or length.
///
/// Headers are checked and dropped. JSON members stand in any order, of one that stands twice the last counts, unknown
/// ones are skipped; `null` is no string. In MessagePack elements beyond the known ones are skipped. An
/// [`Invocation`](HubMessage::Invocation) with an empty id has none.
///
/// Stricter than the reference: anything behind the JSON object, MessagePack with too few elements, bytes behind them
/// or text that is no UTF-8, and malformed arguments (there an error for the caller alone) end the connection. No input
/// makes it recurse.
///
/// # Errors
/// [`MessageError`]: the connection is to be closed.
pub fn parse_message(protocol: HubProtocol, record: &[u8]) -> Result<HubMessage<'_>, MessageError> {
    match protocol {
        HubProtocol::Json => json::parse(record),
        HubProtocol::MessagePack => msgpack::parse(record),
    }
}

/// Appends `message` as a whole record, with separator or length, as ASP.NET Core writes it and all clients read it.
///
/// No headers; JSON members in the order of the reference, text escaped no more than it must be; six elements in
/// MessagePack invocations. Raw bytes are taken as they are: one value of the protocol, an array for arguments.
/// An error that is an empty string is written, where the reference leaves it out. An
/// [`Unknown`](HubMessage::Unknown) is written as its type alone.
///
/// # Panics
/// A MessagePack message of 2 GiB or more, which its length cannot say.
pub fn write_message(protocol: HubProtocol, message: &HubMessage<'_>, out: &mut Vec<u8>) {
    match protocol {
        HubProtocol::Json => json::write(message, out),
        HubProtocol::MessagePack => msgpack::write(message, out),
    }
}
