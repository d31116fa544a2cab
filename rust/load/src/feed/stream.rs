//! One connection's stream: frames, and what is in them where that is looked at. No sockets.

use super::agreement::{Agreement, Inflater};
use super::counts::Counts;
use super::script::Script;
use crate::receive::{CLOSE, Front, PING, PONG, TEXT, front, write_masked};

/// What stands before a message in an object.
const DATA: &[u8] = b"\"data\":";

/// FIN.
const WHOLE: u8 = 0x80;

/// RSV1, which says that a message is compressed (RFC 7692 §6).
const COMPRESSED: u8 = 0x40;

/// The first bytes of the frames that a server of whole texts sends.
const MESSAGE: u8 = WHOLE | TEXT;
const COMPRESSED_MESSAGE: u8 = WHOLE | COMPRESSED | TEXT;
const ITS_PING: u8 = WHOLE | PING;
const ITS_CLOSE: u8 = WHOLE | CLOSE;

/// Looks at each message of one connection.
#[derive(Debug)]
pub(super) struct Checker {
    inflater: Option<Inflater>,
    /// The message that came last.
    last: Option<u32>,
    has_envelopes: bool,
    plain: Vec<u8>,
}

impl Checker {
    /// For a connection on which this was agreed.
    pub(super) fn new(agreement: Option<Agreement>, has_envelopes: bool) -> Self {
        let inflater = agreement.map(Agreement::inflater);
        Self { inflater, last: None, has_envelopes, plain: Vec::new() }
    }

    /// Takes what a frame carries.
    fn take(&mut self, is_compressed: bool, payload: &[u8], script: &Script, counts: &mut Counts) {
        if is_compressed {
            let inflated = self.inflater.as_mut().is_some_and(|one| one.inflate(payload, &mut self.plain));
            if !inflated {
                counts.malformed += 1;
                return;
            }
        } else {
            self.plain.clear();
            self.plain.extend_from_slice(payload);
        }
        let plain = std::mem::take(&mut self.plain);
        if self.has_envelopes {
            plain.split(|&byte| byte == b'\n').for_each(|line| self.object(line, script, counts));
        } else {
            self.message(&plain, script, counts);
        }
        self.plain = plain;
    }

    /// Takes one object, which ends with its member `data`, or has none.
    fn object(&mut self, line: &[u8], script: &Script, counts: &mut Counts) {
        let Some(at) = memchr::memmem::find(line, DATA) else { return };
        match line.strip_suffix(b"}}").and_then(|line| line.get(at + DATA.len()..)) {
            Some(data) => self.message(data, script, counts),
            None => counts.malformed += 1,
        }
    }

    fn message(&mut self, message: &[u8], script: &Script, counts: &mut Counts) {
        let Some(place) = script.place(message) else {
            counts.malformed += 1;
            return;
        };
        counts.checked += 1;
        counts.gaps += self.last.map_or(0, |last| u64::from(script.between(last, place)));
        self.last = Some(place);
    }
}

/// What a walk over read bytes found besides messages.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Walk {
    /// Bytes of whole frames; what follows is the beginning of one.
    pub(super) bytes: usize,
    /// Messages.
    pub(super) messages: u32,
    /// Answers to send: pongs, and the echo of a close.
    pub(super) answers: Vec<u8>,
    /// The server closed, or broke the framing: the connection is over once the answers are sent.
    pub(super) ended: bool,
}

/// Counts all whole frames of `bytes`, and has them looked at where there is somebody to do so.
pub(super) fn walk(
    bytes: &[u8],
    is_newcomer: bool,
    mut checker: Option<&mut Checker>,
    script: &Script,
    counts: &mut Counts,
) -> Walk {
    let mut walk = Walk::default();
    while !walk.ended {
        let (first, payload) = match front(&bytes[walk.bytes..]) {
            Front::Frame { first, payload, bytes } => {
                walk.bytes += bytes;
                (first, payload)
            }
            Front::Part { .. } => break,
            Front::Broken => {
                counts.malformed += 1;
                walk.ended = true;
                break;
            }
        };
        let is_compressed = first & COMPRESSED != 0;
        match first {
            MESSAGE | COMPRESSED_MESSAGE => {
                walk.messages += 1;
                let arrived = counts.of(is_newcomer);
                arrived.messages += 1;
                arrived.compressed += u64::from(is_compressed);
                if let Some(checker) = checker.as_deref_mut() {
                    checker.take(is_compressed, payload, script, counts);
                }
            }
            ITS_PING => write_masked(&mut walk.answers, PONG, payload),
            ITS_CLOSE => {
                write_masked(&mut walk.answers, CLOSE, payload);
                walk.ended = true;
            }
            _ => counts.malformed += 1,
        }
    }
    counts.of(is_newcomer).wire_bytes += walk.bytes as u64;
    walk
}

#[cfg(test)]
mod tests {
    use super::super::agreement::tests::{compressor, deflated};
    use super::*;

    const HEAD: &[u8] = b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12";

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        [&[first, payload.len() as u8], payload].concat()
    }

    fn script() -> Script {
        Script::new(b"one\ntwo\nthree").unwrap()
    }

    #[test]
    fn messages_are_counted_and_looked_at_compressed_or_not() {
        let mut stream = compressor(12);
        let bytes = [
            frame(COMPRESSED_MESSAGE, &deflated(&mut stream, b"two")),
            frame(MESSAGE, b"three"),
            frame(COMPRESSED_MESSAGE, &deflated(&mut stream, b"one")),
            frame(COMPRESSED_MESSAGE, &deflated(&mut stream, b"three")),
        ]
        .concat();
        let (mut counts, script) = (Counts::default(), script());
        let mut checker = Checker::new(Agreement::read(HEAD), false);
        let walk = walk(&bytes, true, Some(&mut checker), &script, &mut counts);
        assert_eq!((walk.messages, walk.bytes), (4, bytes.len()));
        assert_eq!((counts.newcomers.messages, counts.newcomers.compressed, counts.settled.messages), (4, 3, 0));
        assert_eq!((counts.checked, counts.gaps, counts.malformed), (4, 1, 0));
    }

    #[test]
    fn what_is_no_message_of_the_feed_is_malformed() {
        let bytes = [frame(MESSAGE, b"four"), frame(COMPRESSED_MESSAGE, b"\xff\xff"), frame(0x82, b"one")].concat();
        let mut counts = Counts::default();
        let mut checker = Checker::new(Agreement::read(HEAD), false);
        walk(&bytes, false, Some(&mut checker), &script(), &mut counts);
        assert_eq!((counts.malformed, counts.checked), (3, 0));
    }

    #[test]
    fn messages_in_objects_are_found_and_other_objects_passed_over() {
        let text = b"{\"connect\":{}}\n{\"pub\":{\"data\":one}}";
        let mut counts = Counts::default();
        let mut checker = Checker::new(None, true);
        walk(&frame(MESSAGE, text), false, Some(&mut checker), &script(), &mut counts);
        assert_eq!((counts.malformed, counts.checked), (0, 1));
    }

    #[test]
    fn pings_are_answered_and_a_close_ends_all() {
        let bytes = [frame(ITS_PING, b"hi"), frame(ITS_CLOSE, &[3, 232]), frame(MESSAGE, b"one")].concat();
        let mut counts = Counts::default();
        let walk = walk(&bytes, false, None, &script(), &mut counts);
        assert_eq!((walk.answers.len(), walk.ended, counts.received()), (16, true, 0));
    }
}
