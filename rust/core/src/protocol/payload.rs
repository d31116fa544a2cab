//! What is published: a payload, and the place of it that some formats tell.
use super::format::{Encoding, Format, Formats};
use super::signalr::hub_protocol::HubProtocol;
use crate::position::Position;

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
    /// Whole records of a hub protocol, or without one whole frames of [`Format::Raw`], as they came from a backend: for
    /// those who speak that, and nothing to anybody else.
    Whole(Option<HubProtocol>, &'a [u8]),
}

impl Payload<'_> {
    /// How long it is; of an object the longest encoding.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) | Self::Whole(_, bytes) => bytes.len(),
            Self::Object(encoded) | Self::Arguments(encoded) => encoded.bytes(),
        }
    }

    /// The formats that it can be written in.
    #[must_use]
    pub fn formats(&self) -> Formats {
        let has = |encoding| match *self {
            Self::Text(_) | Self::Binary(_) | Self::Whole(..) => true,
            Self::Object(encoded) | Self::Arguments(encoded) => encoded.of(encoding).is_some(),
        };
        Format::ALL.into_iter().filter(|format| has(format.encoding())).collect()
    }

    /// Whether anything of it goes to those who speak a format.
    #[must_use]
    pub fn is_for(&self, format: Format) -> bool {
        match *self {
            Self::Whole(None, _) => format == Format::Raw,
            Self::Whole(protocol, _) => format.hub_protocol() == protocol,
            _ => true,
        }
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
    pub(super) fn id(self) -> Option<String> {
        self.has_id.then(|| self.position.to_string())
    }
}
