//! Hub messages in a stream of bytes: where each ends, and what it is. Copies nothing.

use memchr::memchr;
use serde::Deserialize;

use super::protocol::{Protocol, SEPARATOR};

/// What stands at the front of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cut<'a> {
    /// A whole message, and its length with the separator or the length in front of it.
    Whole { body: &'a [u8], bytes: usize },
    /// The beginning of one, or nothing.
    Part,
    /// No length that a message may have.
    Broken,
}

/// What a message is to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// An invocation of the first target that is counted: a publication where clients watch matches.
    Counted,
    /// One of another target that is counted.
    AlsoCounted,
    /// One of a target that nobody counts.
    Invocation,
    /// One of the target of snapshots.
    Snapshot,
    Completion {
        is_error: bool,
    },
    Ping,
    Close,
    /// Nothing that a hub says to these clients.
    Broken,
}

/// Cuts and reads the messages of one protocol.
pub(super) struct Reader {
    pub(super) protocol: Protocol,
    target: String,
    /// Others that are counted.
    more: Vec<String>,
    /// The target of snapshots.
    snapshot: Option<String>,
    /// How a message of the first target begins where a hub writes it as all known ones do.
    pub(super) usual: Vec<u8>,
}

/// The members of a JSON message that tell what it is.
#[derive(Deserialize)]
struct Members {
    r#type: u64,
    target: Option<String>,
    error: Option<String>,
}

impl Reader {
    /// For messages in `protocol`; invocations of `target` are counted.
    pub(super) fn new(protocol: Protocol, target: String) -> Self {
        let mut usual = Vec::new();
        match protocol {
            Protocol::MessagePack if target.len() < 32 => {
                usual.extend_from_slice(&[0x96, 1, 0x80, 0xc0, 0xa0 | target.len() as u8]);
                usual.extend_from_slice(target.as_bytes());
            }
            _ => {
                let quoted = serde_json::Value::from(target.as_str());
                usual.extend_from_slice(format!("{{\"type\":1,\"target\":{quoted},").as_bytes());
            }
        }
        Self { protocol, target, more: Vec::new(), snapshot: None, usual }
    }

    /// Counts invocations of `targets`, too.
    pub(super) fn with_more(self, targets: Vec<String>) -> Self {
        Self { more: targets, ..self }
    }

    /// Tells invocations of `target` from other ones.
    pub(super) fn with_snapshots(self, target: String) -> Self {
        Self { snapshot: Some(target), ..self }
    }

    /// Looks at the front of `bytes`, which begins where a message begins.
    #[inline]
    pub(super) fn cut<'a>(&self, bytes: &'a [u8]) -> Cut<'a> {
        match self.protocol {
            Protocol::MessagePack => cut_counted(bytes),
            _ => cut_separated(bytes),
        }
    }

    /// What a message is.
    #[inline]
    pub(super) fn read(&self, body: &[u8]) -> Message {
        let is_closed = self.protocol == Protocol::MessagePack || body.ends_with(b"}");
        if is_closed && body.starts_with(&self.usual) {
            return Message::Counted;
        }
        match self.protocol {
            Protocol::MessagePack => self.read_fields(body).unwrap_or(Message::Broken),
            _ => self.read_members(body),
        }
    }

    fn read_members(&self, body: &[u8]) -> Message {
        match serde_json::from_slice(body) {
            Ok(Members { r#type: 1, target: Some(target), .. }) => self.invocation(target.as_bytes()),
            Ok(Members { r#type: 3, error, .. }) => Message::Completion { is_error: error.is_some() },
            Ok(Members { r#type: 6, .. }) => Message::Ping,
            Ok(Members { r#type: 7, .. }) => Message::Close,
            _ => Message::Broken,
        }
    }

    /// Reads `[type, headers, id, …]`; `None` where that is broken.
    fn read_fields(&self, body: &[u8]) -> Option<Message> {
        let (&head, rest) = body.split_first()?;
        let (&kind, mut rest) = rest.split_first()?;
        if head & 0xf0 != 0x90 {
            return None;
        }
        match kind {
            1 | 3 => {
                let (&headers, after) = rest.split_first()?;
                rest = after;
                if headers & 0xf0 != 0x80 {
                    return None;
                }
                for _ in 0..2 * (headers & 0x0f) {
                    take_text(&mut rest)?;
                }
                take_text(&mut rest)?; // the id, or nil
                if kind == 1 {
                    return Some(self.invocation(take_text(&mut rest)?));
                }
                // 1 an error, 2 nothing, 3 a result
                matches!(rest.first()?, 1..=3).then(|| Message::Completion { is_error: rest[0] == 1 })
            }
            6 => Some(Message::Ping),
            7 => Some(Message::Close),
            _ => None,
        }
    }

    /// What an invocation of `target` is.
    fn invocation(&self, target: &[u8]) -> Message {
        let is = |other: &String| other.as_bytes() == target;
        if is(&self.target) {
            Message::Counted
        } else if self.more.iter().any(is) {
            Message::AlsoCounted
        } else if self.snapshot.as_ref().is_some_and(is) {
            Message::Snapshot
        } else {
            Message::Invocation
        }
    }
}

/// A message that ends with [`SEPARATOR`].
#[inline]
pub(super) fn cut_separated(bytes: &[u8]) -> Cut<'_> {
    memchr(SEPARATOR, bytes).map_or(Cut::Part, |end| Cut::Whole { body: &bytes[..end], bytes: end + 1 })
}

/// A message with its length in front: seven bits a byte, the lowest first, five bytes at most.
#[inline]
fn cut_counted(bytes: &[u8]) -> Cut<'_> {
    let mut length = 0_u64;
    for (at, &byte) in bytes.iter().enumerate().take(5) {
        length |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let end = at + 1 + length as usize;
            return bytes.get(at + 1..end).map_or(Cut::Part, |body| Cut::Whole { body, bytes: end });
        }
    }
    if bytes.len() < 5 { Cut::Part } else { Cut::Broken }
}

/// Takes a text, or nil as an empty one, off the front.
fn take_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (&head, rest) = bytes.split_first()?;
    let (length, rest) = match head {
        0xc0 => (0, rest),
        0xa0..=0xbf => (usize::from(head & 0x1f), rest),
        0xd9 => (usize::from(*rest.first()?), &rest[1..]),
        0xda => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), &rest[2..]),
        _ => return None,
    };
    let (text, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reader(protocol: Protocol) -> Reader {
        Reader::new(protocol, "Odds".to_owned())
    }

    #[test]
    fn json_is_read_in_any_order_of_its_members() {
        let reader = reader(Protocol::Json);
        for (body, message) in [
            (r#"{"type":1,"target":"Odds","arguments":[{"s":1}]}"#, Message::Counted),
            (r#"{"arguments":["Odds"],"target":"Odds","type":1}"#, Message::Counted),
            (r#"{"type":1,"target":"OddsToo","arguments":[]}"#, Message::Invocation),
            (r#"{"type":1,"target":"Snapshot","arguments":["\"target\":\"Odds\""]}"#, Message::Invocation),
            (r#"{"type":3,"invocationId":"1","result":3}"#, Message::Completion { is_error: false }),
            (r#"{"type":3,"invocationId":"1","error":"no"}"#, Message::Completion { is_error: true }),
            (r#"{"type":6}"#, Message::Ping),
            (r#"{"type":7,"error":"over"}"#, Message::Close),
            (r#"{"type":1,"target":"Odds","arguments":[{"s":1"#, Message::Broken),
            (r#"{"type":99}"#, Message::Broken),
            ("", Message::Broken),
        ] {
            assert_eq!(reader.read(body.as_bytes()), message, "{body}");
        }
    }

    #[test]
    fn snapshots_are_told_from_other_invocations() {
        let snapshot = br#"{"type":1,"target":"Snapshot","arguments":[]}"#;
        assert_eq!(reader(Protocol::Json).read(snapshot), Message::Invocation);
        assert_eq!(reader(Protocol::Json).with_snapshots("Snapshot".to_owned()).read(snapshot), Message::Snapshot);
    }

    #[test]
    fn several_targets_are_counted_and_told_apart() {
        let reader = reader(Protocol::Json).with_more(vec!["Announcement".to_owned()]);
        for (target, message) in
            [("Odds", Message::Counted), ("Announcement", Message::AlsoCounted), ("Snapshot", Message::Invocation)]
        {
            let body = format!(r#"{{"type":1,"target":"{target}","arguments":[]}}"#);
            assert_eq!(reader.read(body.as_bytes()), message, "{target}");
        }
        let packed = self::reader(Protocol::MessagePack).with_more(vec!["Goal".to_owned()]);
        assert_eq!(packed.read(b"\x96\x01\x80\xc0\xa4Goal\x91\x80\x90"), Message::AlsoCounted);
    }

    #[test]
    fn message_pack_is_read_with_headers_and_long_texts() {
        let reader = reader(Protocol::MessagePack);
        for (body, message) in [
            (&b"\x96\x01\x80\xc0\xa4Odds\x91\x80\x90"[..], Message::Counted),
            (b"\x95\x01\x80\xa11\xd9\x04Odds\x91\x80", Message::Counted),
            (b"\x96\x01\x81\xa1a\xa1b\xc0\xda\x00\x04Odds\x91\x80\x90", Message::Counted),
            (b"\x96\x01\x80\xc0\xa5OddsX\x91\x80\x90", Message::Invocation),
            (b"\x95\x03\x80\xa11\x03\x03", Message::Completion { is_error: false }),
            (b"\x94\x03\x80\xa11\x02", Message::Completion { is_error: false }),
            (b"\x95\x03\x80\xa11\x01\xa2no", Message::Completion { is_error: true }),
            (b"\x91\x06", Message::Ping),
            (b"\x93\x07\xc0\xc2", Message::Close),
            (b"\x94\x03\x80\xa11\x04", Message::Broken),
            (b"\x91\x63", Message::Broken),
            (b"\x80", Message::Broken),
            (b"", Message::Broken),
        ] {
            assert_eq!(reader.read(body), message, "{body:x?}");
        }
    }

    #[test]
    fn length_of_more_than_five_bytes_is_broken() {
        let reader = reader(Protocol::MessagePack);
        assert_eq!(reader.cut(&[0x80; 4]), Cut::Part);
        assert_eq!(reader.cut(&[0x80; 5]), Cut::Broken);
        assert_eq!(reader.cut(&[0xff, 0xff, 0xff, 0xff, 0x7f]), Cut::Part);
        let long = [&[0xc8, 0x01][..], &[7; 200]].concat();
        assert_eq!(reader.cut(&long), Cut::Whole { body: &[7; 200], bytes: 202 });
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            for protocol in [Protocol::Json, Protocol::MessagePack] {
                let reader = reader(protocol);
                reader.read(&bytes);
                if let Cut::Whole { bytes: cut, .. } = reader.cut(&bytes) {
                    prop_assert!(cut <= bytes.len());
                }
            }
        }
    }
}
