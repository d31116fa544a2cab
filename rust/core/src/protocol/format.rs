//! The wire formats, and the encodings of objects that they carry.
use super::signalr::hub_protocol::HubProtocol;
use super::signalr::negotiate::Transport;

/// A wire format, which is an encoding, a framing and a transport: publications in it are the same bytes for all who use
/// it, so it has one log in each channel.
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
    /// WebSocket frames of whole publications, for edges: with all that a hub needs to pass them on; objects as JSON.
    Edge = 10,
    /// As [`Format::Edge`], objects as JSON and as MessagePack.
    EdgeMsgpack = 11,
    /// As [`Format::Sse`], in a gzip stream (RFC 1952): each record is a piece of stored blocks.
    SseGzip = 12,
}

impl Format {
    /// How many formats there are.
    pub const COUNT: usize = Self::ALL.len();

    /// All formats, each at the index that is its value.
    pub const ALL: [Self; 13] = [
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
        Self::Edge,
        Self::EdgeMsgpack,
        Self::SseGzip,
    ];

    /// Its place among all of them.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// What it is made of. Each format is made of something else, or is a gzip stream of another.
    const fn parts(self) -> (Encoding, Framing, Transport) {
        use Encoding::{HubJson, HubMsgpack, Json, Msgpack};
        use Transport::{LongPolling, ServerSentEvents, WebSockets};
        match self {
            Self::Raw => (Json, Framing::Bare, WebSockets),
            Self::RawMsgpack => (Msgpack, Framing::Bare, WebSockets),
            Self::Sse | Self::SseGzip => (Json, Framing::Bare, ServerSentEvents),
            Self::HubJson => (HubJson, Framing::Hub(HubProtocol::Json), WebSockets),
            Self::HubMsgpack => (HubMsgpack, Framing::Hub(HubProtocol::MessagePack), WebSockets),
            Self::HubSse => (HubJson, Framing::Hub(HubProtocol::Json), ServerSentEvents),
            Self::HubPollJson => (HubJson, Framing::Hub(HubProtocol::Json), LongPolling),
            Self::HubPollMsgpack => (HubMsgpack, Framing::Hub(HubProtocol::MessagePack), LongPolling),
            Self::Envelope => (Json, Framing::Envelope, WebSockets),
            Self::EnvelopeMsgpack => (Msgpack, Framing::Envelope, WebSockets),
            Self::Edge => (Json, Framing::Edge, WebSockets),
            Self::EdgeMsgpack => (Msgpack, Framing::Edge, WebSockets),
        }
    }

    /// The format of a hub protocol on a transport; `None` where that cannot carry it.
    pub fn of_hub(protocol: HubProtocol, transport: Transport) -> Option<Self> {
        let is_it = |format: &Self| (format.framing(), format.transport()) == (Framing::Hub(protocol), transport);
        Self::ALL.into_iter().find(is_it)
    }

    /// How an object is written in it.
    pub const fn encoding(self) -> Encoding {
        self.parts().0
    }

    /// What stands around a publication.
    pub const fn framing(self) -> Framing {
        self.parts().1
    }

    /// What carries it.
    pub const fn transport(self) -> Transport {
        self.parts().2
    }

    /// The format whose frames its gzip stream has, if it is one.
    pub const fn within_gzip(self) -> Option<Self> {
        match self {
            Self::SseGzip => Some(Self::Sse),
            _ => None,
        }
    }

    /// Whether it is a gzip stream.
    pub const fn is_gzip(self) -> bool {
        self.within_gzip().is_some()
    }

    /// Whether its clients read events as they are: in a hub protocol's events there are records of that.
    pub const fn is_event_stream(self) -> bool {
        matches!(self, Self::Sse | Self::SseGzip)
    }

    /// The hub protocol of SignalR that it carries, if it does.
    pub const fn hub_protocol(self) -> Option<HubProtocol> {
        match self.framing() {
            Framing::Bare | Framing::Envelope | Framing::Edge => None,
            Framing::Hub(protocol) => Some(protocol),
        }
    }
}

/// What stands around a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// Nothing: the publication itself.
    Bare,
    /// An object or map that tells its channel and position.
    Envelope,
    /// All of the publication and of its place; what is private stands bare.
    Edge,
    /// An invocation of this hub protocol of SignalR.
    Hub(HubProtocol),
}

/// A set of formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Formats(u16);

impl Formats {
    /// Those whose bits, at their [`index`](Format::index), are set.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits & ((1 << Format::COUNT) - 1))
    }

    /// A bit for each, at its [`index`](Format::index).
    pub const fn to_bits(self) -> u16 {
        self.0
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this format is one of them.
    pub const fn has(self, format: Format) -> bool {
        self.0 & 1 << format.index() != 0
    }

    /// These and those.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// These without those.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Each of them, in the order of their places.
    pub fn iter(self) -> impl Iterator<Item = Format> {
        Format::ALL.into_iter().filter(move |&format| self.has(format))
    }

    /// The format, where there is exactly one.
    pub fn only(self) -> Option<Format> {
        self.iter().next().filter(|_| self.0.is_power_of_two())
    }
}

impl From<Format> for Formats {
    fn from(format: Format) -> Self {
        Self(1 << format.index())
    }
}

impl FromIterator<Format> for Formats {
    fn from_iter<I: IntoIterator<Item = Format>>(formats: I) -> Self {
        formats.into_iter().fold(Self::default(), |all, format| all.and(format.into()))
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
