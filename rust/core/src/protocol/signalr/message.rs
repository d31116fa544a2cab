//! A message of the hub protocols, and what a record that is none is.
use std::borrow::Cow;

/// How deep a JSON message may nest, its own object included; the reference's bound.
pub const JSON_DEPTH_MAX: usize = 64;

/// How deep a MessagePack argument, item or result may nest; the reference's bound.
pub const MSGPACK_DEPTH_MAX: usize = 500;

/// What a server writes into [`HubMessage::Close`] when the client broke the protocol; with it `allow_reconnect`.
pub const CLOSE_ERROR: &str = "Connection closed with an error.";

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
    /// Whether it counts in the [`sequence`](super::sequence) of its sender.
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
