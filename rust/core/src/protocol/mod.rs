//! A publication on each wire, and what clients ask on the raw one.
//!
//! A channel keeps one log for each [`Format`] that a subscriber uses; [`write_frame`] makes what is appended to it.
//! Nothing here knows who is subscribed, and no socket.
pub mod raw;
pub mod signalr;
pub mod sse;

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
}

impl Format {
    /// How many formats there are.
    pub const COUNT: usize = Self::ALL.len();

    /// All formats, each at the index that is its value.
    pub const ALL: [Self; 3] = [Self::Raw, Self::RawMsgpack, Self::Sse];

    /// The format of this value, or `None`.
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Raw),
            1 => Some(Self::RawMsgpack),
            2 => Some(Self::Sse),
            _ => None,
        }
    }

    /// A bit of its own for each format, to make sets in a `u8`.
    pub const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// Which encoding of an object this format carries.
    pub const fn encoding(self) -> Encoding {
        match self {
            Self::Raw | Self::Sse => Encoding::Json,
            Self::RawMsgpack => Encoding::Msgpack,
        }
    }
}

/// How an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// JSON text (RFC 8259).
    Json,
    /// MessagePack.
    Msgpack,
}

/// What was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Text as it stands.
    Text(&'a str),
    /// Bytes as they stand.
    Binary(&'a [u8]),
    /// An object in the encodings that the formats in use need; they are taken as they are, nothing is checked again.
    Object {
        /// JSON text, which must be UTF-8.
        json: Option<&'a [u8]>,
        /// MessagePack.
        msgpack: Option<&'a [u8]>,
    },
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

/// How many bytes [`write_frame`] appends at most; 0 where it fails. One pass over the payload, for SSE only.
pub fn frame_bytes_max(format: Format, payload: &Payload<'_>, event: Option<&str>) -> usize {
    match (format, body_of(format, payload)) {
        (_, Err(_)) => 0,
        (Format::Raw | Format::RawMsgpack, Ok(Body::Text(bytes) | Body::Binary(bytes))) => raw::frame_bytes(bytes),
        (Format::Sse, Ok(Body::Text(bytes))) => sse::text_bytes_max(None, event, bytes),
        (Format::Sse, Ok(Body::Binary(bytes))) => sse::binary_bytes(None, event, bytes),
    }
}

/// Appends `payload` to `out` as one frame of `format`, ready for the wire.
///
/// `event` names it where the format has names ([`Format::Sse`]); it must be [valid](sse::is_valid_event).
///
/// # Errors
/// [`MissingEncoding`] of an object that lacks what `format` needs; `out` is as before.
pub fn write_frame(
    format: Format,
    payload: &Payload<'_>,
    event: Option<&str>,
    out: &mut Vec<u8>,
) -> Result<(), MissingEncoding> {
    match (format, body_of(format, payload)?) {
        (Format::Raw | Format::RawMsgpack, Body::Text(text)) => raw::write_text(out, text),
        (Format::Raw | Format::RawMsgpack, Body::Binary(bytes)) => raw::write_binary(out, bytes),
        (Format::Sse, Body::Text(text)) => sse::write_text(out, None, event, text),
        (Format::Sse, Body::Binary(bytes)) => sse::write_binary(out, None, event, bytes),
    }
    Ok(())
}

fn body_of<'a>(format: Format, payload: &Payload<'a>) -> Result<Body<'a>, MissingEncoding> {
    let encoding = format.encoding();
    let missing = MissingEncoding { format, encoding };
    match (*payload, encoding) {
        (Payload::Text(text), _) => Ok(Body::Text(text.as_bytes())),
        (Payload::Binary(bytes), _) => Ok(Body::Binary(bytes)),
        (Payload::Object { json, .. }, Encoding::Json) => json.map(Body::Text).ok_or(missing),
        (Payload::Object { msgpack, .. }, Encoding::Msgpack) => msgpack.map(Body::Binary).ok_or(missing),
    }
}
