//! A publication in the form in which a channel keeps it for formats that nobody speaks now: payload and event, once.
//!
//! The bytes lie in a log like frames, and are made frames of a format when its first subscriber comes.
use crate::protocol::signalr::HubProtocol;
use crate::protocol::{Encoded, Payload};

/// A length that is none.
const ABSENT: u32 = u32::MAX;
/// Instead of a length: the form for SignalR is that for others.
const ALIKE: u32 = u32::MAX - 1;

/// Of whole records and frames: what says which, and then they are all of the form.
const WHOLE: [Option<HubProtocol>; 3] = [None, Some(HubProtocol::Json), Some(HubProtocol::MessagePack)];
/// The first of those.
const WHOLE_KIND: u8 = 4;

/// Appends a publication's form.
pub(super) fn write(payload: &Payload<'_>, event: Option<&str>, out: &mut Vec<u8>) {
    let (kind, encoded) = match *payload {
        Payload::Text(text) => (0, Encoded { json: Some(text.as_bytes()), ..Encoded::default() }),
        Payload::Binary(bytes) => (1, Encoded { json: Some(bytes), ..Encoded::default() }),
        Payload::Object(encoded) => (2, encoded),
        Payload::Arguments(encoded) => (3, encoded),
        Payload::Whole(protocol, bytes) => {
            let which = WHOLE.iter().position(|one| *one == protocol).expect("all are there");
            out.push(WHOLE_KIND + which as u8);
            return out.extend_from_slice(bytes);
        }
    };
    out.push(kind);
    for (part, otherwise) in [
        (event.map(str::as_bytes), ABSENT),
        (encoded.json, ABSENT),
        (encoded.msgpack, ABSENT),
        or_alike(encoded.hub_json, encoded.json),
        or_alike(encoded.hub_msgpack, encoded.msgpack),
    ] {
        let part = part.filter(|_| otherwise != ALIKE);
        out.extend_from_slice(&part.map_or(otherwise, |part| part.len() as u32).to_le_bytes());
        out.extend_from_slice(part.unwrap_or_default());
    }
}

/// SignalR's form, and what stands in its place without bytes.
fn or_alike<'a>(hub: Option<&'a [u8]>, plain: Option<&[u8]>) -> (Option<&'a [u8]>, u32) {
    let is_alike = hub.zip(plain).is_some_and(|(hub, plain)| std::ptr::eq(hub, plain));
    (hub, if is_alike { ALIKE } else { ABSENT })
}

/// Reads what [`write`] wrote.
pub(super) fn read(bytes: &[u8]) -> (Payload<'_>, Option<&str>) {
    let (payload, event, _) = read_one(bytes);
    (payload, event)
}

/// As [`read`], the first of several; and what stands behind it.
pub(super) fn read_one(bytes: &[u8]) -> (Payload<'_>, Option<&str>, &[u8]) {
    read_foreign(bytes).expect("as it was written")
}

/// As [`read_one`], of bytes that another process has written: `None` if these are none.
pub(super) fn read_foreign(bytes: &[u8]) -> Option<(Payload<'_>, Option<&str>, &[u8])> {
    let (&kind, mut rest) = bytes.split_first()?;
    if let Some(protocol) = kind.checked_sub(WHOLE_KIND) {
        return Some((Payload::Whole(*WHOLE.get(usize::from(protocol))?, rest), None, &[]));
    }
    let mut part = |alike| {
        let (length, behind) = rest.split_first_chunk()?;
        let length = u32::from_le_bytes(*length);
        let (part, behind) = behind.split_at_checked(if length >= ALIKE { 0 } else { length as usize })?;
        rest = behind;
        Some(match length {
            ABSENT => None,
            ALIKE => alike,
            _ => Some(part),
        })
    };
    let (event, json, msgpack) = (part(None)?, part(None)?, part(None)?);
    let (hub_json, hub_msgpack) = (part(json)?, part(msgpack)?);
    let encoded = Encoded { json, msgpack, hub_json, hub_msgpack };
    let payload = match kind {
        0 => Payload::Text(std::str::from_utf8(json.unwrap_or_default()).ok()?),
        1 => Payload::Binary(json.unwrap_or_default()),
        2 => Payload::Object(encoded),
        3 => Payload::Arguments(encoded),
        _ => return None,
    };
    let event = event.map(std::str::from_utf8).transpose().ok()?;
    Some((payload, event, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_back() {
        let payloads = [
            Payload::Text("täxt"),
            Payload::Text(""),
            Payload::Binary(&[0, 255]),
            Payload::Object(Encoded::alike(Some(b"{}"), None)),
            Payload::Object(Encoded::alike(None, Some(&[0x80]))),
            Payload::Object(Encoded { json: Some(b"\"1\""), hub_json: Some(b"1"), ..Encoded::default() }),
            Payload::Object(Encoded { hub_json: Some(b"1"), hub_msgpack: Some(&[1]), ..Encoded::default() }),
            Payload::Arguments(Encoded::alike(Some(b"[1]"), Some(&[0x91, 1]))),
        ];
        for payload in payloads {
            for event in [None, Some(""), Some("odds")] {
                let mut bytes = Vec::new();
                write(&payload, event, &mut bytes);
                assert_eq!(read(&bytes), (payload, event));
            }
        }
        for protocol in WHOLE {
            let (payload, mut bytes) = (Payload::Whole(protocol, b"{}\x1e"), Vec::new());
            write(&payload, None, &mut bytes);
            assert_eq!(read(&bytes), (payload, None));
        }
    }
}
