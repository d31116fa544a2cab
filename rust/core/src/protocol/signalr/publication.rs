//! A publication as a hub message, and hub messages on each transport.
use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::hub_protocol::{HubProtocol, write_message};
use super::message::HubMessage;
use super::negotiate::Transport;
use crate::protocol::format::{Encoding, Format};
use crate::protocol::payload::{Encoded, Payload};
use crate::protocol::raw;

/// The target of a publication that names no event, as browsers call the event of a record that names none.
pub const TARGET: &str = "message";

/// What stands around the arguments of an invocation, at most, besides the target.
const ENVELOPE_BYTES: usize = 64;

/// How many bytes [`write_publication`] and [`write_records`] append at most, of a payload of `bytes`.
pub(crate) fn publication_bytes_max(payload: &Payload<'_>, event: Option<&str>, bytes: usize) -> usize {
    let growth = match payload {
        Payload::Text(_) => 6, // each byte as \u00XX
        Payload::Binary(_) | Payload::Whole(..) => 2,
        Payload::Object(_) | Payload::Arguments(_) => 1,
    };
    let lines = if growth == 1 { line_count(payload) * "data: \r\n".len() } else { 0 };
    bytes * growth + lines + event.unwrap_or(TARGET).len() * 6 + ENVELOPE_BYTES
}

fn line_count(payload: &Payload<'_>) -> usize {
    match payload {
        Payload::Object(encoded) | Payload::Arguments(encoded) => {
            encoded.hub_json.map_or(0, |json| memchr::memchr_iter(b'\n', json).count())
        }
        Payload::Text(_) | Payload::Binary(_) | Payload::Whole(..) => 0,
    }
}

/// Appends an invocation of `event`, or of [`TARGET`], with the payload as its argument or arguments.
///
/// Text is a string, bytes are what .NET makes of a `byte[]`: base64 in JSON, bin in MessagePack. An object without the
/// encoding of the protocol is written as null: the caller has looked.
pub fn write_publication(protocol: HubProtocol, payload: &Payload<'_>, event: Option<&str>, out: &mut Vec<u8>) {
    let target = Cow::Borrowed(event.unwrap_or(TARGET));
    let arguments = arguments_of(protocol, payload);
    let invocation = HubMessage::Invocation { id: None, target, arguments: &arguments, stream_ids: Vec::new() };
    write_message(protocol, &invocation, out);
}

/// The raw array of arguments that a payload is in a hub protocol.
pub fn arguments_of<'a>(protocol: HubProtocol, payload: &Payload<'a>) -> Cow<'a, [u8]> {
    match (protocol, *payload) {
        (HubProtocol::Json, Payload::Arguments(Encoded { hub_json: Some(json), .. })) => Cow::Borrowed(json),
        (HubProtocol::MessagePack, Payload::Arguments(Encoded { hub_msgpack: Some(msgpack), .. })) => {
            Cow::Borrowed(msgpack)
        }
        (HubProtocol::Json, payload) => {
            let mut array = vec![b'['];
            match payload {
                Payload::Text(text) => super::object::write_text(&mut array, text),
                Payload::Binary(bytes) | Payload::Whole(_, bytes) => {
                    super::object::write_text(&mut array, &STANDARD.encode(bytes))
                }
                Payload::Object(encoded) | Payload::Arguments(encoded) => {
                    array.extend_from_slice(encoded.hub_json.unwrap_or(b"null"));
                }
            }
            array.push(b']');
            Cow::Owned(array)
        }
        (HubProtocol::MessagePack, payload) => {
            let mut array = vec![0x91];
            match payload {
                Payload::Text(text) => super::msgpack::write_str(&mut array, text),
                Payload::Binary(bytes) | Payload::Whole(_, bytes) => super::msgpack::write_bin(&mut array, bytes),
                Payload::Object(encoded) | Payload::Arguments(encoded) => {
                    array.extend_from_slice(encoded.hub_msgpack.unwrap_or(&[0xc0]));
                }
            }
            Cow::Owned(array)
        }
    }
}

/// How many bytes [`write_records`] appends of `records` at most.
pub(crate) fn records_bytes_max(records: &[u8]) -> usize {
    records.len() + (memchr::memchr_iter(b'\n', records).count() + 2) * "data: \r\n".len() + 10
}

/// Appends whole records as one frame of a hub's format: no client but one takes a part of a record.
///
/// JSON goes into text frames, MessagePack into binary ones, whatever the client sent its own in.
pub fn write_records(format: Format, records: &[u8], out: &mut Vec<u8>) {
    match (format.transport(), format.encoding()) {
        (Transport::ServerSentEvents, _) => write_event(out, records),
        (Transport::LongPolling, _) => out.extend_from_slice(records),
        (Transport::WebSockets, Encoding::Json | Encoding::HubJson) => raw::write_text(out, records),
        (Transport::WebSockets, Encoding::Msgpack | Encoding::HubMsgpack) => raw::write_binary(out, records),
    }
}

/// One event as the reference writes it: lines end with CR and LF, which older .NET clients insist on.
fn write_event(out: &mut Vec<u8>, records: &[u8]) {
    for line in records.split(|&byte| byte == b'\n') {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}
