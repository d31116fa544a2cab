//! The wire formats, and the encodings of objects that they carry.
use super::signalr::hub_protocol::HubProtocol;

/// A wire format: publications in it are the same bytes for all who use it, so it has one log in each channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Format {
    /// WebSocket frames of the publications themselves, objects as JSON text.
    Raw = 0,
    /// As [`Format::Raw`], objects as MessagePack in binary frames.
    RawMsgpack = 1,
    /// Server-Sent Events (WHATWG HTML §9.2), objects as JSON, binary as base64.
    Sse = 2,
    /// SignalR's JSON hub protocol in the text frames of a WebSocket.
    HubJson = 3,
    /// SignalR's MessagePack hub protocol in the binary frames of a WebSocket.
    HubMsgpack = 4,
    /// SignalR's JSON hub protocol in Server-Sent Events.
    HubSse = 5,
    /// SignalR's JSON hub protocol bare, for the bodies of long polls.
    HubPollJson = 6,
    /// SignalR's MessagePack hub protocol bare, for the bodies of long polls.
    HubPollMsgpack = 7,
    /// As [`Format::Raw`], each publication in a JSON object that tells its channel and position.
    Envelope = 8,
    /// As [`Format::RawMsgpack`], each publication in a MessagePack map that tells its channel and position.
    EnvelopeMsgpack = 9,
}

impl Format {
    /// How many formats there are.
    pub const COUNT: usize = Self::ALL.len();

    /// All formats, each at the index that is its value.
    pub const ALL: [Self; 10] = [
        Self::Raw,
        Self::RawMsgpack,
        Self::Sse,
        Self::HubJson,
        Self::HubMsgpack,
        Self::HubSse,
        Self::HubPollJson,
        Self::HubPollMsgpack,
        Self::Envelope,
        Self::EnvelopeMsgpack,
    ];

    /// The format of this value, or `None`.
    pub fn from_u8(value: u8) -> Option<Self> {
        Self::ALL.get(usize::from(value)).copied()
    }

    /// A bit of its own for each format, to make sets in a `u16`.
    pub const fn bit(self) -> u16 {
        1 << self as u16
    }

    /// Which encoding of an object this format carries.
    pub const fn encoding(self) -> Encoding {
        match self {
            Self::Raw | Self::Envelope | Self::Sse => Encoding::Json,
            Self::RawMsgpack | Self::EnvelopeMsgpack => Encoding::Msgpack,
            Self::HubJson | Self::HubSse | Self::HubPollJson => Encoding::HubJson,
            Self::HubMsgpack | Self::HubPollMsgpack => Encoding::HubMsgpack,
        }
    }

    /// The hub protocol of SignalR that it carries, if it does.
    pub const fn hub_protocol(self) -> Option<HubProtocol> {
        match self {
            Self::Raw | Self::RawMsgpack | Self::Sse | Self::Envelope | Self::EnvelopeMsgpack => None,
            Self::HubJson | Self::HubSse | Self::HubPollJson => Some(HubProtocol::Json),
            Self::HubMsgpack | Self::HubPollMsgpack => Some(HubProtocol::MessagePack),
        }
    }
}

/// How an object is written. SignalR's clients may want some values in another form than others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// JSON text (RFC 8259).
    Json,
    /// MessagePack.
    Msgpack,
    /// JSON text for SignalR's JSON hub protocol.
    HubJson,
    /// MessagePack for SignalR's MessagePack hub protocol.
    HubMsgpack,
}

impl Encoding {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Json, Self::Msgpack, Self::HubJson, Self::HubMsgpack];

    /// A format that carries it.
    pub const fn format(self) -> Format {
        match self {
            Self::Json => Format::Raw,
            Self::Msgpack => Format::RawMsgpack,
            Self::HubJson => Format::HubJson,
            Self::HubMsgpack => Format::HubMsgpack,
        }
    }
}
