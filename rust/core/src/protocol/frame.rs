//! A publication as one frame of a format.
use std::cell::RefCell;

use super::format::{Encoding, Format, Framing};
use super::payload::{MissingEncoding, Payload, Stamp};
use super::signalr::negotiate::Transport;
use super::signalr::publication;
use super::{envelope, raw, sse};
use crate::http::gzip;

/// A record is no larger, but now and then.
const RECORD_BYTES_MAX: usize = 1 << 20;

thread_local! {
    /// What a gzip stream is to have is made here.
    static RECORD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What a format carries of a payload.
#[derive(Clone, Copy)]
enum FrameBody<'a> {
    Text(&'a [u8]),
    Binary(&'a [u8]),
}

/// Longest id of an event: two numbers of 20 digits.
const ID_BYTES_MAX: usize = "id: \n".len() + 41;

/// How many bytes [`write_frame`] appends, at most; 0 where it fails. One pass over the payload, for SSE and envelopes
/// only.
pub fn frame_bytes_max(format: Format, payload: &Payload<'_>, event: Option<&str>, stamp: Option<Stamp<'_>>) -> usize {
    if let Some(within) = format.within_gzip() {
        let bytes = frame_bytes_max(within, payload, event, stamp);
        return if bytes == 0 { 0 } else { gzip::stored_bytes(bytes) };
    }
    if let Payload::Whole(_, bytes) = *payload {
        return publication::records_bytes_max(bytes);
    }
    let id_bytes = if stamp.is_some_and(|stamp| stamp.has_id) { ID_BYTES_MAX } else { 0 };
    let Ok(body) = body_of(format, payload) else { return 0 };
    let (FrameBody::Text(bytes) | FrameBody::Binary(bytes)) = body;
    match (format.framing(), format.transport(), body) {
        (Framing::Bare, Transport::ServerSentEvents, FrameBody::Text(_)) => {
            sse::text_bytes_max(None, event, bytes) + id_bytes
        }
        (Framing::Bare, Transport::ServerSentEvents, FrameBody::Binary(_)) => {
            sse::binary_bytes(None, event, bytes) + id_bytes
        }
        (Framing::Bare, Transport::WebSockets | Transport::LongPolling, _) | (Framing::Edge, ..) => {
            raw::frame_bytes(bytes)
        }
        (Framing::Envelope, ..) => envelope::bytes_max(payload, event, stamp),
        (Framing::Hub(_), ..) => publication::publication_bytes_max(payload, event, bytes.len()),
    }
}

/// Appends `payload` to `out` as one frame of `format`, ready for the wire.
///
/// `event` names it where the format has names: that of [`Format::Sse`] must be [valid](sse::is_valid_event), in a hub
/// protocol it is the target, and [`TARGET`](publication::TARGET) is without one. What is private has no `stamp`. What is
/// not [for](Payload::is_for) the format adds nothing.
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
    if let Some(within) = format.within_gzip() {
        return RECORD.with_borrow_mut(|record| {
            record.clear();
            write_frame(within, payload, event, stamp, record)?;
            if !record.is_empty() {
                gzip::write_stored(out, record);
            }
            if record.capacity() > RECORD_BYTES_MAX {
                *record = Vec::new();
            }
            Ok(())
        });
    }
    if let Payload::Whole(protocol, bytes) = *payload {
        match protocol {
            _ if !payload.is_for(format) => {}
            Some(_) => publication::write_records(format, bytes, out),
            None => out.extend_from_slice(bytes),
        }
        return Ok(());
    }
    let body = body_of(format, payload)?;
    let id = || stamp.and_then(Stamp::id);
    match (format.framing(), format.transport(), body) {
        (Framing::Bare, Transport::ServerSentEvents, FrameBody::Text(text)) => {
            sse::write_text(out, id().as_deref(), event, text);
        }
        (Framing::Bare, Transport::ServerSentEvents, FrameBody::Binary(bytes)) => {
            sse::write_binary(out, id().as_deref(), event, bytes);
        }
        (Framing::Bare, Transport::WebSockets | Transport::LongPolling, FrameBody::Text(text))
        | (Framing::Edge, _, FrameBody::Text(text)) => {
            raw::write_text(out, text);
        }
        (Framing::Bare, Transport::WebSockets | Transport::LongPolling, FrameBody::Binary(bytes))
        | (Framing::Edge, _, FrameBody::Binary(bytes)) => {
            raw::write_binary(out, bytes);
        }
        (Framing::Envelope, ..) => match format.encoding() {
            Encoding::Json | Encoding::HubJson => envelope::write_json(out, payload, event, stamp),
            Encoding::Msgpack | Encoding::HubMsgpack => envelope::write_msgpack(out, payload, event, stamp),
        },
        (Framing::Hub(protocol), ..) => {
            let mut record = Vec::new();
            publication::write_publication(protocol, payload, event, &mut record);
            publication::write_records(format, &record, out);
        }
    }
    Ok(())
}

fn body_of<'a>(format: Format, payload: &Payload<'a>) -> Result<FrameBody<'a>, MissingEncoding> {
    let encoding = format.encoding();
    let encoded = match *payload {
        Payload::Text(text) => return Ok(FrameBody::Text(text.as_bytes())),
        Payload::Binary(bytes) | Payload::Whole(_, bytes) => return Ok(FrameBody::Binary(bytes)),
        Payload::Object(encoded) | Payload::Arguments(encoded) => encoded,
    };
    let bytes = encoded.of(encoding).ok_or(MissingEncoding { format, encoding })?;
    Ok(match encoding {
        Encoding::Json | Encoding::HubJson => FrameBody::Text(bytes),
        Encoding::Msgpack | Encoding::HubMsgpack => FrameBody::Binary(bytes),
    })
}
