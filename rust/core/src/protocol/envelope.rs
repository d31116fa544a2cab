//! Publications that tell where they stand: for clients of the raw protocol that ask for it (`?envelope=1`).
//!
//! `{"channel":"odds:7","position":[1764,42],"event":"odds","keyframe":true,"data":{…}}`, as JSON text or, with the same
//! keys, as a MessagePack map in a binary frame. `event` and `keyframe` stand only where there are such; what is private
//! has neither `channel` nor `position`. Text is a string; bytes are base64 (RFC 4648 §4) under `base64` instead of
//! `data` in JSON, and bytes in MessagePack.
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::payload::{Payload, Stamp};
use super::raw;
use super::signalr::msgpack::{write_bin, write_str};

/// How many bytes one takes at most, in either form. One pass over a text.
pub(super) fn bytes_max(payload: &Payload<'_>, event: Option<&str>, stamp: Option<Stamp<'_>>) -> usize {
    let data = match *payload {
        Payload::Text(text) => string_bytes_max(text),
        Payload::Binary(bytes) | Payload::Whole(_, bytes) => bytes.len().div_ceil(3) * 4,
        Payload::Object(encoded) | Payload::Arguments(encoded) => encoded.bytes(),
    };
    data + fields_bytes_max(event, stamp)
}

/// Keys, numbers, punctuation and a frame's header: 10 bytes.
const REST_BYTES_MAX: usize = 10 + r#"{"channel":,"position":[,],"event":,"keyframe":true,"base64":""}"#.len() + 2 * 20;

fn fields_bytes_max(event: Option<&str>, stamp: Option<Stamp<'_>>) -> usize {
    REST_BYTES_MAX + event.map_or(0, string_bytes_max) + stamp.map_or(0, |stamp| string_bytes_max(stamp.channel))
}

/// A string's bytes in JSON, and no less in MessagePack: what JSON escapes takes up to six bytes.
fn string_bytes_max(text: &str) -> usize {
    let escaped = text.bytes().filter(|byte| matches!(byte, 0..0x20 | b'"' | b'\\')).count();
    "\"\"".len() + text.len() + 5 * escaped + 3 // MessagePack's marker and size take five
}

/// Appends one in a text frame. An object has its JSON: the caller has looked.
pub(super) fn write_json(out: &mut Vec<u8>, payload: &Payload<'_>, event: Option<&str>, stamp: Option<Stamp<'_>>) {
    let mut text = Vec::with_capacity(bytes_max(payload, event, stamp));
    let string = |text: &mut Vec<u8>, string: &str| {
        serde_json::to_writer(text, string).expect("a string is JSON, and a Vec takes all");
    };
    text.push(b'{');
    if let Some(stamp) = stamp {
        text.extend_from_slice(b"\"channel\":");
        string(&mut text, stamp.channel);
        let position = stamp.position;
        text.extend_from_slice(format!(",\"position\":[{},{}],", position.epoch, position.offset).as_bytes());
    }
    if let Some(event) = event {
        text.extend_from_slice(b"\"event\":");
        string(&mut text, event);
        text.push(b',');
    }
    if stamp.is_some_and(|stamp| stamp.is_keyframe) {
        text.extend_from_slice(b"\"keyframe\":true,");
    }
    match *payload {
        Payload::Binary(bytes) | Payload::Whole(_, bytes) => {
            text.extend_from_slice(b"\"base64\":\"");
            text.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            text.push(b'"');
        }
        Payload::Text(data) => {
            text.extend_from_slice(b"\"data\":");
            string(&mut text, data);
        }
        Payload::Object(encoded) | Payload::Arguments(encoded) => {
            text.extend_from_slice(b"\"data\":");
            text.extend_from_slice(encoded.json.unwrap_or(b"null"));
        }
    }
    text.push(b'}');
    raw::write_text(out, &text);
}

/// Appends one in a binary frame. An object has its MessagePack: the caller has looked.
pub(super) fn write_msgpack(out: &mut Vec<u8>, payload: &Payload<'_>, event: Option<&str>, stamp: Option<Stamp<'_>>) {
    let is_keyframe = stamp.is_some_and(|stamp| stamp.is_keyframe);
    let count = 1 + 2 * u8::from(stamp.is_some()) + u8::from(event.is_some()) + u8::from(is_keyframe);
    let mut map = vec![0x80 | count]; // a map of up to 15
    if let Some(stamp) = stamp {
        write_str(&mut map, "channel");
        write_str(&mut map, stamp.channel);
        write_str(&mut map, "position");
        map.push(0x92); // an array of two
        for number in [stamp.position.epoch, stamp.position.offset] {
            map.push(0xcf); // 64 bits
            map.extend_from_slice(&number.to_be_bytes());
        }
    }
    if let Some(event) = event {
        write_str(&mut map, "event");
        write_str(&mut map, event);
    }
    if is_keyframe {
        write_str(&mut map, "keyframe");
        map.push(0xc3);
    }
    write_str(&mut map, "data");
    match *payload {
        Payload::Binary(bytes) | Payload::Whole(_, bytes) => write_bin(&mut map, bytes),
        Payload::Text(text) => write_str(&mut map, text),
        Payload::Object(encoded) | Payload::Arguments(encoded) => {
            map.extend_from_slice(encoded.msgpack.unwrap_or(&[0xc0]));
        }
    }
    raw::write_binary(out, &map);
}
