//! A publication in the form in which a channel keeps it for formats that nobody speaks now: payload and event, once.
//!
//! The bytes lie in a log like frames, and are made frames of a format when its first subscriber comes.
use crate::protocol::Payload;

/// A length that is none.
const ABSENT: u32 = u32::MAX;

/// Appends a publication's form.
pub(super) fn write(payload: &Payload<'_>, event: Option<&str>, out: &mut Vec<u8>) {
    let (kind, first, second) = match *payload {
        Payload::Text(text) => (0, Some(text.as_bytes()), None),
        Payload::Binary(bytes) => (1, Some(bytes), None),
        Payload::Object { json, msgpack } => (2, json, msgpack),
        Payload::Arguments { json, msgpack } => (3, json, msgpack),
    };
    out.push(kind);
    for part in [event.map(str::as_bytes), first, second] {
        out.extend_from_slice(&part.map_or(ABSENT, |part| part.len() as u32).to_le_bytes());
        out.extend_from_slice(part.unwrap_or_default());
    }
}

/// Reads what [`write`] wrote.
pub(super) fn read(bytes: &[u8]) -> (Payload<'_>, Option<&str>) {
    let (kind, mut rest) = (bytes[0], &bytes[1..]);
    let mut part = || {
        let (length, behind) = rest.split_first_chunk().expect("as it was written");
        let length = u32::from_le_bytes(*length);
        let (part, behind) = behind.split_at(if length == ABSENT { 0 } else { length as usize });
        rest = behind;
        (length != ABSENT).then_some(part)
    };
    let (event, first, second) = (part(), part(), part());
    let text = |bytes| std::str::from_utf8(bytes).expect("it was a str when it was written");
    let payload = match kind {
        0 => Payload::Text(text(first.unwrap_or_default())),
        1 => Payload::Binary(first.unwrap_or_default()),
        2 => Payload::Object { json: first, msgpack: second },
        _ => Payload::Arguments { json: first, msgpack: second },
    };
    (payload, event.map(text))
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
            Payload::Object { json: Some(b"{}"), msgpack: None },
            Payload::Object { json: None, msgpack: Some(&[0x80]) },
            Payload::Arguments { json: Some(b"[1]"), msgpack: Some(&[0x91, 1]) },
        ];
        for payload in payloads {
            for event in [None, Some(""), Some("odds")] {
                let mut bytes = Vec::new();
                write(&payload, event, &mut bytes);
                assert_eq!(read(&bytes), (payload, event));
            }
        }
    }
}
