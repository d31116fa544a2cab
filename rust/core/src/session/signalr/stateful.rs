//! The books of a connection that outlives its socket (research: MessageBuffer of ASP.NET Core and of the clients).
//!
//! What the client has not acknowledged is known by the pieces of the logs that carried it, shared with everyone, and by
//! the few private messages. A client of this kind is written to by the slow path alone, because each of its messages
//! has a number. What it has not acknowledged is bounded; beyond that the client lags.
use std::collections::VecDeque;

use crate::channel::Slice;
use crate::protocol::signalr::sequence::{ReceivedSequence, SentSequence, Verdict};
use crate::protocol::signalr::{HubProtocol, record_bytes};
use crate::ws::{Opcode, frame_bytes, payload_bytes, write_header};

/// Unacknowledged bytes beyond which a client gets nothing new: as many as the reference keeps.
pub(crate) const UNACKED_BYTES_MAX: usize = 100_000;
/// Messages of a client after which it gets an ack at once.
const ACK_EVERY: i64 = 32;

/// The books of one connection.
#[derive(Debug, Default)]
pub(crate) struct Stateful {
    sent: SentSequence,
    received: ReceivedSequence,
    /// What is not acknowledged, oldest first.
    unacked: VecDeque<Sent>,
    unacked_bytes: usize,
    /// Messages of the client since the last ack.
    owed: i64,
    /// When they are acknowledged at the latest.
    pub(super) ack_tick: Option<u32>,
}

/// One message, or several of a log.
#[derive(Debug)]
struct Sent {
    /// Number of the last message in it.
    last: i64,
    count: i64,
    frames: Frames,
}

#[derive(Debug)]
enum Frames {
    Private(Box<[u8]>),
    Log(Slice),
}

impl Frames {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Private(bytes) => bytes,
            Self::Log(slice) => slice.bytes(),
        }
    }
}

/// Whether the client gets an ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ack {
    /// At once.
    Now,
    /// Within a second, from now on.
    Soon,
    /// As before, or not at all.
    AsBefore,
}

impl Stateful {
    /// A private message goes out. Gives how many bytes are not acknowledged then.
    pub(crate) fn handle_private(&mut self, frame: &[u8]) -> usize {
        self.note(Frames::Private(frame.into()));
        self.unacked_bytes
    }

    /// So much of a log went out, or will before anything else.
    pub(crate) fn handle_written(&mut self, slices: impl Iterator<Item = Slice>) {
        slices.filter(|slice| !slice.bytes().is_empty()).for_each(|slice| self.note(Frames::Log(slice)));
    }

    /// Whether the client has to acknowledge before it gets more.
    pub(crate) fn awaits_ack(&self) -> bool {
        self.unacked_bytes >= UNACKED_BYTES_MAX
    }

    /// The client says which of its messages comes next; an ack is due then. `None` where that is beyond what came.
    pub(crate) fn handle_sequence(&mut self, sequence_id: i64, due: u32) -> Option<Ack> {
        self.received.handle_sequence(sequence_id).ok()?;
        if !self.received.owes_ack() || self.ack_tick.is_some() {
            return Some(Ack::AsBefore);
        }
        self.ack_tick = Some(due); // it sends again what has come: nothing else would tell it so
        Some(Ack::Soon)
    }

    /// Whether a trackable message of the client is to be dealt with: it has not come before.
    pub(crate) fn handle_message(&mut self) -> bool {
        self.received.handle_message(true) == Verdict::Process
    }

    /// A trackable message is dealt with: it is acknowledged, at `due` at the latest.
    pub(crate) fn owe_ack(&mut self, due: u32) -> Ack {
        self.owed += 1;
        if self.owed >= ACK_EVERY {
            return Ack::Now;
        }
        if self.ack_tick.is_some() {
            return Ack::AsBefore;
        }
        self.ack_tick = Some(due);
        Ack::Soon
    }

    /// The ack to send now, if one is owed.
    pub(crate) fn poll_ack(&mut self) -> Option<i64> {
        (self.owed, self.ack_tick) = (0, None);
        self.received.poll_ack()
    }

    /// The number of the first message that is not acknowledged.
    pub(crate) fn sequence_id(&self) -> i64 {
        self.sent.sequence_id()
    }

    fn note(&mut self, frames: Frames) {
        let count = records_of(frames.bytes()).count() as i64;
        let last = (0..count).map(|_| self.sent.handle_sent()).last();
        if let Some(last) = last {
            self.unacked_bytes += frames.bytes().len();
            self.unacked.push_back(Sent { last, count, frames });
        }
    }

    /// The client has got all up to this number. False where it cannot know that number.
    pub(crate) fn acknowledge(&mut self, sequence_id: i64) -> bool {
        if self.sent.handle_ack(sequence_id).is_err() {
            return false;
        }
        while self.unacked.front().is_some_and(|sent| sent.last <= sequence_id) {
            self.unacked_bytes -= self.unacked.pop_front().map_or(0, |sent| sent.frames.bytes().len());
        }
        true
    }

    /// All that is not acknowledged, appended to `out` in whole frames.
    pub(crate) fn replay(&self, out: &mut Vec<u8>) {
        let first = self.sent.sequence_id();
        for sent in &self.unacked {
            let known = (first - (sent.last - sent.count + 1)).max(0) as usize;
            let bytes = sent.frames.bytes();
            let Some(record) = records_of(bytes).nth(known) else { continue };
            if record.is_first {
                out.extend_from_slice(&bytes[record.frame_start..]);
                continue;
            }
            write_header(out, record.opcode, record.frame_end - record.start); // the client has what is before it there
            out.extend_from_slice(&bytes[record.start..]);
        }
    }
}

/// Where a record stands.
struct Record {
    start: usize,
    is_first: bool,
    frame_start: usize,
    frame_end: usize,
    opcode: Opcode,
}

/// The records in frames of a server, each of which holds some: what numbers count.
fn records_of(bytes: &[u8]) -> impl Iterator<Item = Record> {
    let (mut frame_start, mut frame_end, mut at, mut opcode) = (0, 0, 0, Opcode::Text);
    std::iter::from_fn(move || {
        let is_first = at == frame_end;
        if is_first {
            let rest = bytes.get(frame_end..).filter(|rest| !rest.is_empty())?;
            frame_start = frame_end;
            frame_end += frame_bytes(rest);
            at = frame_end - payload_bytes(rest);
            opcode = if rest[0] & 0x0f == Opcode::Binary as u8 { Opcode::Binary } else { Opcode::Text };
        }
        let start = at;
        let protocol = if opcode == Opcode::Binary { HubProtocol::MessagePack } else { HubProtocol::Json };
        at += record_bytes(protocol, &bytes[start..frame_end]);
        Some(Record { start, is_first, frame_start, frame_end, opcode })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text frame of a server with these few bytes.
    fn frame(text: &str) -> Vec<u8> {
        [&[0x81, text.len() as u8], text.as_bytes()].concat()
    }

    #[test]
    fn what_is_not_acknowledged_comes_again_in_order() {
        let mut books = Stateful::default();
        for text in ["a", "bb", "ccc"] {
            books.handle_private(&frame(text));
        }
        assert_eq!(books.sequence_id(), 1);
        assert!(books.acknowledge(1) && !books.acknowledge(9), "nine were not sent");
        let mut again = Vec::new();
        books.replay(&mut again);
        assert_eq!(again, [frame("bb"), frame("ccc")].concat());
        assert!(!books.awaits_ack());
        let unacked = books.handle_private(&[&[0x81, 127][..], &100_000_u64.to_be_bytes(), &[b'x'; 100_000]].concat());
        assert!(books.awaits_ack() && unacked > UNACKED_BYTES_MAX);
    }

    /// What a relay passes on stands in frames of several records, and a client counts records.
    #[test]
    fn records_are_counted_not_frames() {
        let framed = |opcode, records: &[&[u8]]| {
            let mut frame = Vec::new();
            write_header(&mut frame, opcode, records.concat().len());
            [frame, records.concat()].concat()
        };
        let long = [&[0xc8, 1][..], &[0x91; 200]].concat(); // its length takes two bytes
        for (opcode, a, b, c) in [
            (Opcode::Text, &b"a\x1e"[..], &b"bb\x1e"[..], &b"c\x1e"[..]),
            (Opcode::Binary, &[2, 0x91, 7], &long, &[1, 0x90]),
        ] {
            let whole = [framed(opcode, &[a, b, c]), framed(opcode, &[a, b])].concat();
            let mut books = Stateful::default();
            books.handle_private(&whole);
            books.handle_private(&framed(opcode, &[c]));
            assert!(!books.acknowledge(7), "six were sent");
            let rest = [framed(opcode, &[a, b]), framed(opcode, &[c])].concat();
            for (known, again) in [
                (0, [whole.clone(), framed(opcode, &[c])].concat()),
                (1, [framed(opcode, &[b, c]), rest.clone()].concat()),
                (2, [framed(opcode, &[c]), rest.clone()].concat()),
                (3, rest),
                (4, [framed(opcode, &[b]), framed(opcode, &[c])].concat()),
                (5, framed(opcode, &[c])),
                (6, Vec::new()),
            ] {
                let mut out = Vec::new();
                assert!(books.acknowledge(known));
                books.replay(&mut out);
                assert_eq!(out, again, "{known} are known");
            }
        }
    }

    #[test]
    fn a_message_that_comes_again_is_not_dealt_with_and_acks_come_together() {
        let mut books = Stateful::default();
        assert!(books.handle_message());
        assert_eq!((books.owe_ack(70), books.ack_tick), (Ack::Soon, Some(70)));
        assert!(books.handle_message());
        assert_eq!((books.owe_ack(80), books.ack_tick), (Ack::AsBefore, Some(70)));
        assert_eq!((books.poll_ack(), books.poll_ack(), books.ack_tick), (Some(2), None, None));
        assert_eq!(books.handle_sequence(1, 90), Some(Ack::Soon), "it has not heard of the ack");
        assert!(!books.handle_message() && !books.handle_message() && books.handle_message());
        assert_eq!(books.handle_sequence(9, 90), None);
        let mut many = Stateful::default();
        let acks: Vec<Ack> = (0..ACK_EVERY).map(|_| many.owe_ack(1)).collect();
        assert_eq!((acks[0], acks[1], acks[31]), (Ack::Soon, Ack::AsBefore, Ack::Now));
    }
}
