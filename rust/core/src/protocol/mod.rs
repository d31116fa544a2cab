//! A publication on each wire, and what clients ask on the raw one.
//!
//! A channel keeps one log for each [`Format`] that a subscriber uses; [`write_frame`] makes what is appended to it.
//! Nothing here knows who is subscribed, and no socket.
pub mod envelope;
pub mod raw;
pub mod signalr;
pub mod sse;

use signalr::HubProtocol;

use crate::position::Position;

pub use raw::{RawError, Request, parse_request, write_reply_error, write_reply_result};

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

/// An object in the encodings that the formats in use need; they are taken as they are, nothing is checked again.
///
/// JSON must be UTF-8. Where SignalR's form is no other, both are the same slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoded<'a> {
    /// JSON text.
    pub json: Option<&'a [u8]>,
    /// MessagePack.
    pub msgpack: Option<&'a [u8]>,
    /// JSON text for SignalR.
    pub hub_json: Option<&'a [u8]>,
    /// MessagePack for SignalR.
    pub hub_msgpack: Option<&'a [u8]>,
}

impl<'a> Encoded<'a> {
    /// An object that SignalR's clients get as everybody else does.
    #[must_use]
    pub const fn alike(json: Option<&'a [u8]>, msgpack: Option<&'a [u8]>) -> Self {
        Self { json, msgpack, hub_json: json, hub_msgpack: msgpack }
    }

    /// The bytes of one encoding.
    #[must_use]
    pub const fn of(self, encoding: Encoding) -> Option<&'a [u8]> {
        match encoding {
            Encoding::Json => self.json,
            Encoding::Msgpack => self.msgpack,
            Encoding::HubJson => self.hub_json,
            Encoding::HubMsgpack => self.hub_msgpack,
        }
    }

    /// Bytes of the longest.
    #[must_use]
    pub fn bytes(self) -> usize {
        Encoding::ALL.into_iter().filter_map(|encoding| self.of(encoding)).map(<[u8]>::len).max().unwrap_or(0)
    }
}

/// What was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Text as it stands.
    Text(&'a str),
    /// Bytes as they stand.
    Binary(&'a [u8]),
    /// An object in the encodings that the formats in use need.
    Object(Encoded<'a>),
    /// As [`Payload::Object`], an array: on a hub protocol each member is an argument of its own.
    Arguments(Encoded<'a>),
}

impl Payload<'_> {
    /// Bits of the formats that it can be written in.
    #[must_use]
    pub fn formats(&self) -> u16 {
        let has = |encoding| match *self {
            Self::Text(_) | Self::Binary(_) => true,
            Self::Object(encoded) | Self::Arguments(encoded) => encoded.of(encoding).is_some(),
        };
        Format::ALL.into_iter().filter(|format| has(format.encoding())).fold(0, |bits, format| bits | format.bit())
    }
}

/// An object came without the encoding that a format needs: the caller's mistake, nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("format {format:?} needs the object as {encoding:?}, which was not given")]
pub struct MissingEncoding {
    /// The format asked for.
    pub format: Format,
    /// What it needs.
    pub encoding: Encoding,
}

/// What a format carries of a payload.
#[derive(Clone, Copy)]
enum Body<'a> {
    Text(&'a [u8]),
    Binary(&'a [u8]),
}

/// Whose publication it is, and which: what some formats tell with it.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    /// The channel's name.
    pub channel: &'a str,
    /// Where the publication stands.
    pub position: Position,
    /// A newcomer may begin with it.
    pub is_keyframe: bool,
    /// An event stream tells the position as the event's id, with which a client that returns is recovered.
    pub has_id: bool,
}

impl Stamp<'_> {
    /// The id of an event, where it has one.
    fn id(self) -> Option<String> {
        self.has_id.then(|| self.position.to_string())
    }
}

/// Longest id of an event: two numbers of 20 digits.
const ID_BYTES_MAX: usize = "id: \n".len() + 41;

/// How many bytes [`write_frame`] appends, at most; 0 where it fails. One pass over the payload, for SSE and envelopes
/// only.
pub fn frame_bytes_max(format: Format, payload: &Payload<'_>, event: Option<&str>, stamp: Option<Stamp<'_>>) -> usize {
    let id_bytes = if stamp.is_some_and(|stamp| stamp.has_id) { ID_BYTES_MAX } else { 0 };
    match (format, body_of(format, payload)) {
        (_, Err(_)) => 0,
        (Format::Raw | Format::RawMsgpack, Ok(Body::Text(bytes) | Body::Binary(bytes))) => raw::frame_bytes(bytes),
        (Format::Sse, Ok(Body::Text(bytes))) => sse::text_bytes_max(None, event, bytes) + id_bytes,
        (Format::Sse, Ok(Body::Binary(bytes))) => sse::binary_bytes(None, event, bytes) + id_bytes,
        (Format::Envelope | Format::EnvelopeMsgpack, Ok(_)) => envelope::bytes_max(payload, event, stamp),
        (_, Ok(Body::Text(bytes) | Body::Binary(bytes))) => signalr::publication_bytes_max(payload, event, bytes.len()),
    }
}

/// Appends `payload` to `out` as one frame of `format`, ready for the wire.
///
/// `event` names it where the format has names: that of [`Format::Sse`] must be [valid](sse::is_valid_event), in a hub
/// protocol it is the target, and [`signalr::TARGET`] is without one. What is private has no `stamp`.
///
/// # Errors
/// [`MissingEncoding`] of an object that lacks what `format` needs; `out` is as before.
pub fn write_frame(
    format: Format,
    payload: &Payload<'_>,
    event: Option<&str>,
    stamp: Option<Stamp<'_>>,
    out: &mut Vec<u8>,
) -> Result<(), MissingEncoding> {
    let body = body_of(format, payload)?;
    if let Some(protocol) = format.hub_protocol() {
        let mut record = Vec::new();
        signalr::write_publication(protocol, payload, event, &mut record);
        signalr::write_records(format, &record, out);
        return Ok(());
    }
    let id = || stamp.and_then(Stamp::id);
    match (format, body) {
        (Format::Sse, Body::Text(text)) => sse::write_text(out, id().as_deref(), event, text),
        (Format::Sse, Body::Binary(bytes)) => sse::write_binary(out, id().as_deref(), event, bytes),
        (Format::Envelope, _) => envelope::write_json(out, payload, event, stamp),
        (Format::EnvelopeMsgpack, _) => envelope::write_msgpack(out, payload, event, stamp),
        (_, Body::Text(text)) => raw::write_text(out, text),
        (_, Body::Binary(bytes)) => raw::write_binary(out, bytes),
    }
    Ok(())
}

fn body_of<'a>(format: Format, payload: &Payload<'a>) -> Result<Body<'a>, MissingEncoding> {
    let encoding = format.encoding();
    let encoded = match *payload {
        Payload::Text(text) => return Ok(Body::Text(text.as_bytes())),
        Payload::Binary(bytes) => return Ok(Body::Binary(bytes)),
        Payload::Object(encoded) | Payload::Arguments(encoded) => encoded,
    };
    let bytes = encoded.of(encoding).ok_or(MissingEncoding { format, encoding })?;
    Ok(match encoding {
        Encoding::Json | Encoding::HubJson => Body::Text(bytes),
        Encoding::Msgpack | Encoding::HubMsgpack => Body::Binary(bytes),
    })
}
