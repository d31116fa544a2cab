//! A debug mode: what a compressor makes is decoded at once, as its readers would, and a difference stops the program.
//!
//! A reader of a log with context is promised that the last 2^w bytes that went in are all it has to know. So each message is
//! decoded by an inflater that knows these and nothing else: it is every reader of the log, whenever that came and whatever it
//! read before. It doubles the work. Tests of this crate have it on, a process by the variable `FANWIRE_VERIFY_COMPRESSION`.
use flate2::{Decompress, FlushDecompress, Status};

use crate::http::gzip::{EMPTY_BLOCK, write_stored};
use crate::protocol::Coding;

/// Decodes what one log's compressor makes.
#[derive(Debug)]
pub(super) struct Verifier {
    coding: Coding,
    /// The last bytes that went in, as many as a reader's window holds.
    window: Vec<u8>,
}

impl Verifier {
    /// Of a log that begins.
    pub(super) fn of(coding: Coding) -> Self {
        Self { coding, window: Vec::new() }
    }

    /// What comes next refers to nothing before it.
    pub(super) fn forget(&mut self) {
        self.window.clear();
    }

    /// This is the data of a message that stands for `payload`.
    ///
    /// # Panics
    /// If a reader would get anything else.
    pub(super) fn check(&mut self, payload: &[u8], data: &[u8]) {
        let found = self.decode(data, payload.len());
        let is_same = found.as_deref() == Some(payload);
        assert!(is_same, "{:?}: a message of {} bytes is decoded as {found:?}", self.coding, payload.len());
        if self.coding.is_shared() {
            self.window.extend_from_slice(payload);
            let over = self.window.len().saturating_sub(1 << self.coding.window_bits());
            self.window.drain(..over);
        }
    }

    /// What an inflater makes of it that knows the window and nothing else; `None` where that is no deflate.
    fn decode(&self, data: &[u8], bytes: usize) -> Option<Vec<u8>> {
        let mut stream = Decompress::new_with_window_bits(false, self.coding.window_bits());
        let mut known = Vec::with_capacity(self.window.len() + 1);
        let mut stored = Vec::new();
        write_stored(&mut stored, &self.window);
        inflate(&mut stream, &stored, &mut known)?;
        let mut out = Vec::with_capacity(bytes + 1); // one byte more than may come tells whether too many do
        inflate(&mut stream, &[data, &EMPTY_BLOCK].concat(), &mut out)?;
        Some(out)
    }
}

/// All of `input` has to be read; what is over `out`'s capacity is left.
fn inflate(stream: &mut Decompress, input: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let begin = stream.total_in();
    loop {
        let taken = (stream.total_in() - begin) as usize;
        let status = stream.decompress_vec(&input[taken..], out, FlushDecompress::Sync).ok()?;
        let now = (stream.total_in() - begin) as usize;
        match status {
            Status::StreamEnd => return None, // some clients take that for the end of all
            _ if now == input.len() => return Some(()),
            _ if now == taken => return None,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ws::{Deflater, SharedDeflater};

    const MESSAGES: [&[u8]; 3] = [b"home 1.85, away 2.15", b"home 1.86, away 2.15", b"home 1.85, away 2.15"];

    fn shared(coding: Coding) -> (SharedDeflater, Verifier) {
        (SharedDeflater::new(coding.window_bits()), Verifier::of(coding))
    }

    #[test]
    fn what_is_right_passes_in_every_coding() {
        let mut long = Vec::new();
        for number in 0..9_000_u32 {
            long.extend(number.wrapping_mul(0x9E37_79B9).to_le_bytes());
        }
        for coding in Coding::COMPRESSED {
            let (mut stream, mut verifier) = shared(coding);
            for payload in MESSAGES.into_iter().chain([&long, &long[..700], &long[35_000..]]).chain(MESSAGES) {
                let mut data = Vec::new();
                if coding.is_shared() {
                    stream.deflate(payload, &mut data);
                } else {
                    Deflater::default().deflate(coding.window_bits(), payload, &mut data);
                }
                verifier.check(payload, &data);
            }
        }
    }

    #[test]
    #[should_panic(expected = "Shared12: a message of 20 bytes is decoded as")]
    fn what_refers_to_more_than_its_readers_know_is_seen() {
        let (mut stream, mut verifier) = shared(Coding::Shared12);
        for payload in MESSAGES {
            let mut data = Vec::new();
            stream.deflate(payload, &mut data);
            if payload == MESSAGES[0] {
                verifier.window.clear(); // a reader that came later than it may
            }
            verifier.check(payload, &data);
        }
    }

    #[test]
    #[should_panic(expected = "a message of 20 bytes is decoded as Some(")]
    fn another_text_is_seen() {
        let (mut stream, mut verifier) = shared(Coding::Shared9);
        let mut data = Vec::new();
        stream.deflate(MESSAGES[1], &mut data);
        verifier.check(MESSAGES[0], &data);
    }
}
