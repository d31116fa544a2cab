//! Which of the two hub protocols, and reading and writing in it.
use super::message::{HubMessage, MessageError};
use super::{json, msgpack};

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

    /// A record as a [`RecordReceiver`](super::RecordReceiver) gives it, with its separator or length again: to be passed on as it came.
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

    /// The same, without separator or length.
    const fn bare_ping(self) -> &'static [u8] {
        match (self, self.ping()) {
            (Self::Json, [bare @ .., _]) | (Self::MessagePack, [_, bare @ ..]) => bare,
            (_, []) => &[],
        }
    }
}

/// Reads one message; `record` is what a [`RecordReceiver`](super::RecordReceiver) gives, without separator or length.
///
/// Headers are checked and dropped. JSON members stand in any order, of one that stands twice the last counts, unknown
/// ones are skipped; `null` is no string. In MessagePack elements beyond the known ones are skipped. An
/// [`Invocation`](HubMessage::Invocation) with an empty id has none.
///
/// Stricter than the reference, it ends the connection for anything behind the JSON object. So it does for MessagePack
/// with too few elements, with bytes behind them, or with text that is no UTF-8. It does for malformed arguments, which
/// are there an error for the caller alone. No input makes it recurse.
///
/// # Errors
/// [`MessageError`]: the connection is to be closed.
pub fn parse_message(protocol: HubProtocol, record: &[u8]) -> Result<HubMessage<'_>, MessageError> {
    if record == protocol.bare_ping() {
        return Ok(HubMessage::Ping); // all that an idle peer sends
    }
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
