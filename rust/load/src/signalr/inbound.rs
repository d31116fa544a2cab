//! One connection's stream from the server: frames, the handshake's answer, hub messages. No sockets.
//!
//! A server may cut one WebSocket message into several frames, but each WebSocket message holds whole hub messages:
//! stock clients in browsers know no others.

use std::mem;

use super::message::{Cut, Message, Reader, cut_separated};
use super::odds::{Faults, Sequence};
use super::protocol::Protocol;
use crate::receive::{CLOSE, FRAME_BYTES_MAX, Front, PING, PONG, front, write_masked};

/// The continuation of a message (RFC 6455 §5.4).
const CONTINUATION: u8 = 0;

/// The answer to a handshake that went well.
const SHAKEN: &[u8] = b"{}";

/// What some bytes brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Messages that are counted, and their bytes, with separators or lengths, without the frames' heads.
    pub(super) counted: u64,
    pub(super) bytes: u64,
    pub(super) frames: u64,
    pub(super) completed: u32,
    /// Completions that carry an error.
    pub(super) errors: u32,
    pub(super) pings: u64,
    /// When publications were published, and what was wrong with them, where they are checked.
    pub(super) times: Vec<u64>,
    pub(super) faults: Faults,
    /// Pongs, and the echo of a close, to send.
    pub(super) answers: Vec<u8>,
    /// Why the connection is over.
    pub(super) end: Option<String>,
}

/// What is kept of a stream between two reads.
pub(super) struct Inbound {
    /// The handshake was answered.
    pub(super) is_shaken: bool,
    /// Where the client is in what it watches; `None` where counting is enough.
    sequence: Option<Sequence>,
    /// The beginning of a frame.
    frame: Vec<u8>,
    /// The beginning of a hub message in a WebSocket message of several frames; raw, all of it so far.
    message: Vec<u8>,
}

impl Inbound {
    /// Of a new connection; the raw protocol shakes no hands. What it watches is checked where there is a `sequence`.
    pub(super) fn new(is_shaken: bool, sequence: Option<Sequence>) -> Self {
        Self { is_shaken, sequence, frame: Vec::new(), message: Vec::new() }
    }

    /// The stream is over, and the client's next one begins where a new one does; it goes on in what it watches.
    pub(super) fn leave(&mut self, is_shaken: bool) {
        self.is_shaken = is_shaken;
        self.frame = Vec::new();
        self.message = Vec::new();
        if let Some(sequence) = &mut self.sequence {
            sequence.leave();
        }
    }

    /// The newest `s` of what it watches.
    pub(super) fn newest(&self) -> Option<u64> {
        self.sequence.as_ref().map(Sequence::newest)
    }

    /// Takes what was read.
    #[inline]
    pub(super) fn take(&mut self, reader: &Reader, bytes: &[u8]) -> Seen {
        let mut seen = Seen::default();
        if self.frame.is_empty() {
            let walked = self.walk(reader, bytes, &mut seen);
            self.frame.extend_from_slice(&bytes[walked..]);
        } else {
            let mut joined = mem::take(&mut self.frame);
            joined.extend_from_slice(bytes);
            let walked = self.walk(reader, &joined, &mut seen);
            self.frame.extend_from_slice(&joined[walked..]);
        }
        seen
    }

    /// Takes the whole frames at the front of `bytes`; gives how many bytes they have.
    #[inline]
    fn walk(&mut self, reader: &Reader, bytes: &[u8], seen: &mut Seen) -> usize {
        let mut walked = 0;
        while seen.end.is_none() {
            match front(&bytes[walked..]) {
                Front::Frame { first, payload, bytes } => {
                    walked += bytes;
                    self.take_frame(reader, first, payload, seen);
                }
                Front::Part { .. } => break,
                Front::Broken => seen.end = Some(format!("a frame is masked, or over {FRAME_BYTES_MAX} bytes")),
            }
        }
        walked
    }

    fn take_frame(&mut self, reader: &Reader, first: u8, payload: &[u8], seen: &mut Seen) {
        let is_final = first & 0x80 != 0;
        let opcode = first & 0x7f;
        if opcode == reader.protocol.opcode() || opcode == CONTINUATION {
            seen.frames += 1;
            return self.take_payload(reader, payload, is_final, seen);
        }
        let is_control_valid = is_final && payload.len() <= 125;
        match opcode {
            PING if is_control_valid => write_masked(&mut seen.answers, PONG, payload),
            PONG if is_control_valid => {}
            CLOSE if is_control_valid => {
                write_masked(&mut seen.answers, CLOSE, payload);
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                seen.end =
                    Some(code.map_or("closed by the server".into(), |code| format!("closed by the server: {code}")));
            }
            _ => seen.end = Some(format!("a frame of {} bytes begins with {first:#04x}", payload.len())),
        }
    }

    #[inline]
    fn take_payload(&mut self, reader: &Reader, payload: &[u8], is_final: bool, seen: &mut Seen) {
        let joined;
        let mut rest = payload;
        if !self.message.is_empty() {
            self.message.extend_from_slice(payload);
            joined = mem::take(&mut self.message);
            rest = &joined;
        }
        if reader.protocol == Protocol::Raw {
            if is_final {
                seen.counted += 1;
                seen.bytes += rest.len() as u64;
                return;
            }
        } else {
            rest = self.take_messages(reader, rest, seen);
        }
        if is_final && !rest.is_empty() && seen.end.is_none() {
            seen.end = Some(format!("a WebSocket message ends {} bytes into a hub message", rest.len()));
        } else if rest.len() > FRAME_BYTES_MAX {
            seen.end = Some(format!("a message has {} bytes, over {FRAME_BYTES_MAX}", rest.len()));
        }
        self.message.extend_from_slice(rest);
    }

    /// Takes the whole messages at the front; gives the rest.
    #[inline]
    fn take_messages<'a>(&mut self, reader: &Reader, mut rest: &'a [u8], seen: &mut Seen) -> &'a [u8] {
        if !self.is_shaken {
            let Cut::Whole { body, bytes } = cut_separated(rest) else { return rest };
            if body != SHAKEN {
                seen.end = Some(format!("its answer is {:?}", String::from_utf8_lossy(body)));
                return rest;
            }
            self.is_shaken = true;
            rest = &rest[bytes..];
        }
        loop {
            match reader.cut(rest) {
                Cut::Whole { body, bytes } => {
                    let message = reader.read(body);
                    count(message, body, bytes, seen);
                    if let Some(sequence) = &mut self.sequence {
                        check(sequence, message, body, reader, seen);
                    }
                    rest = &rest[bytes..];
                }
                Cut::Part => return rest,
                Cut::Broken => {
                    seen.end = Some("a hub message has a length of more than five bytes".to_owned());
                    return rest;
                }
            }
        }
    }
}

#[inline]
fn check(sequence: &mut Sequence, message: Message, body: &[u8], reader: &Reader, seen: &mut Seen) {
    match message {
        Message::Counted => seen.times.extend(sequence.take(body, &reader.usual, &mut seen.faults)),
        Message::Snapshot => sequence.begin(body, &mut seen.faults),
        _ => {}
    }
}

#[inline]
fn count(message: Message, body: &[u8], bytes: usize, seen: &mut Seen) {
    match message {
        Message::Counted | Message::AlsoCounted => {
            seen.counted += 1;
            seen.bytes += bytes as u64;
        }
        Message::Invocation | Message::Snapshot => {}
        Message::Completion { is_error } => {
            seen.completed += 1;
            seen.errors += u32::from(is_error);
        }
        Message::Ping => seen.pings += 1,
        Message::Close | Message::Broken => {
            let text = String::from_utf8_lossy(&body[..body.len().min(200)]);
            seen.end = Some(format!("a hub message is {text:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PING_JSON: &[u8] = b"{\"type\":6}\x1e";

    /// An unmasked frame.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            length @ 0..=125 => bytes.push(length as u8),
            length => {
                bytes.push(126);
                bytes.extend((length as u16).to_be_bytes());
            }
        }
        bytes.extend_from_slice(payload);
        bytes
    }

    fn reader(protocol: Protocol) -> Reader {
        Reader::new(protocol, "Odds".to_owned())
    }

    /// An invocation of `target` whose argument is a text of 200 bytes.
    fn invocation(protocol: Protocol, target: &str) -> Vec<u8> {
        let text = "x".repeat(200);
        if protocol == Protocol::Json {
            return format!("{{\"type\":1,\"target\":\"{target}\",\"arguments\":[\"{text}\"]}}\x1e").into_bytes();
        }
        let mut body = vec![0x96, 1, 0x80, 0xc0, 0xa0 | target.len() as u8];
        body.extend_from_slice(target.as_bytes());
        body.extend_from_slice(&[0x91, 0xd9, 200]);
        body.extend_from_slice(text.as_bytes());
        body.push(0x90);
        [&[body.len() as u8 | 0x80, (body.len() >> 7) as u8], &body[..]].concat()
    }

    /// What a connection sees that has shaken hands already.
    fn seen(protocol: Protocol, bytes: &[u8]) -> Seen {
        Inbound::new(true, None).take(&reader(protocol), bytes)
    }

    fn end(protocol: Protocol, bytes: &[u8]) -> String {
        seen(protocol, bytes).end.unwrap()
    }

    #[test]
    fn many_messages_in_a_frame_are_many() {
        for protocol in [Protocol::Json, Protocol::MessagePack] {
            let two = [invocation(protocol, "Odds"), invocation(protocol, "Odds")].concat();
            let payload = [&two[..], &invocation(protocol, "Snapshot")].concat();
            let seen = seen(protocol, &frame(0x80 | protocol.opcode(), &payload));
            assert_eq!((seen.counted, seen.bytes, seen.frames, seen.end), (2, two.len() as u64, 1, None));
        }
    }

    #[test]
    fn raw_messages_are_counted_whole() {
        let bytes = [frame(0x81, b"one"), frame(0x01, b"tw"), frame(0x80, b"o"), frame(0x81, b"")].concat();
        let seen = seen(Protocol::Raw, &bytes);
        assert_eq!((seen.counted, seen.bytes, seen.end), (3, 6, None));
    }

    #[test]
    fn handshake_s_answer_may_share_its_frame_and_an_error_ends_the_connection() {
        let reader = reader(Protocol::MessagePack);
        let mut inbound = Inbound::new(false, None);
        let payload = [b"{}\x1e", &invocation(Protocol::MessagePack, "Odds")[..]].concat();
        let seen = inbound.take(&reader, &frame(0x82, &payload));
        assert_eq!((inbound.is_shaken, seen.counted, seen.end), (true, 1, None));
        let refused = Inbound::new(false, None).take(&reader, &frame(0x82, b"{\"error\":\"no\"}\x1e"));
        assert!(refused.end.unwrap().contains("no"));
    }

    #[test]
    fn completions_and_pings_are_told_apart() {
        let completed =
            b"{\"type\":3,\"invocationId\":\"1\"}\x1e{\"type\":3,\"invocationId\":\"1\",\"error\":\"no\"}\x1e";
        let seen = seen(Protocol::Json, &frame(0x81, &[&completed[..], PING_JSON].concat()));
        assert_eq!((seen.completed, seen.errors, seen.pings), (2, 1, 1));
    }

    #[test]
    fn what_stock_clients_refuse_ends_the_connection_with_its_reason() {
        assert!(end(Protocol::Json, &frame(0x81, b"{\"type\":6}")).contains("10 bytes into a hub message"));
        assert!(end(Protocol::Json, &frame(0x82, PING_JSON)).contains("0x82"));
        assert!(end(Protocol::MessagePack, &frame(0x81, &[2, 0x91, 6])).contains("0x81"));
        assert!(end(Protocol::Json, &frame(0x81, b"{\"type\":7,\"error\":\"over\"}\x1e")).contains("over"));
        assert!(end(Protocol::Json, &frame(0x88, &[3, 232])).contains("1000"));
        assert!(end(Protocol::Json, &frame(0x89, &[0; 126])).contains("126 bytes begins with 0x89"));
        assert!(end(Protocol::Json, &[0x81, 0x80, 0, 0, 0, 0]).contains("masked"));
    }

    #[test]
    fn ping_is_answered_and_close_echoed() {
        let seen = seen(Protocol::Json, &[frame(0x89, b"hi"), frame(0x88, &[3, 232])].concat());
        assert_eq!(seen.answers, [0x8a, 0x82, 0, 0, 0, 0, b'h', b'i', 0x88, 0x82, 0, 0, 0, 0, 3, 232]);
    }

    proptest! {
        #[test]
        fn stream_cut_anywhere_counts_as_the_whole_one(
            is_json: bool,
            messages in prop::collection::vec(1_usize..30, 1..8),
            pieces in prop::collection::vec(1_usize..700, 1..20),
            cuts in prop::collection::vec(1_usize..900, 1..40),
        ) {
            let protocol = if is_json { Protocol::Json } else { Protocol::MessagePack };
            let mut stream = frame(0x80 | protocol.opcode(), b"{}\x1e");
            let mut pieces = pieces.iter().copied().cycle();
            for &count in &messages {
                // One WebSocket message of so many hub messages, in frames of any lengths, with pings between.
                let mut payload = &invocation(protocol, "Odds").repeat(count)[..];
                let mut first = protocol.opcode();
                while !payload.is_empty() {
                    let (piece, rest) = payload.split_at(pieces.next().unwrap_or(1).min(payload.len()));
                    let is_final = if rest.is_empty() { 0x80 } else { 0 };
                    stream.extend(frame(first | is_final, piece));
                    stream.extend(frame(0x89, b""));
                    first = CONTINUATION;
                    payload = rest;
                }
            }
            let (reader, mut inbound) = (reader(protocol), Inbound::new(false, None));
            let (mut at, mut counted, mut bytes) = (0, 0, 0);
            for cut in cuts.iter().copied().cycle() {
                let end = (at + cut).min(stream.len());
                let seen = inbound.take(&reader, &stream[at..end]);
                prop_assert_eq!(seen.end, None);
                counted += seen.counted;
                bytes += seen.bytes;
                at = end;
                if at == stream.len() {
                    break;
                }
            }
            let expected: usize = messages.iter().sum();
            prop_assert_eq!(counted, expected as u64);
            prop_assert_eq!(bytes, (expected * invocation(protocol, "Odds").len()) as u64);
            prop_assert!(inbound.frame.is_empty() && inbound.message.is_empty());
        }

        #[test]
        fn any_bytes_are_taken_without_a_panic(bytes: Vec<u8>) {
            for protocol in [Protocol::Json, Protocol::MessagePack, Protocol::Raw] {
                seen(protocol, &bytes);
            }
        }
    }
}
