//! What an answer to an offer of compression says (RFC 7692 §7.1).

use flate2::Decompress;

/// The window of who says nothing about it, as an exponent.
const WINDOW_BITS_MAX: u8 = 15;

/// What was agreed on for the server's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreement {
    window_bits: u8,
    takes_over: bool,
}

impl Agreement {
    /// Of an answer's head; `None` where nothing was agreed on.
    pub(super) fn read(head: &[u8]) -> Option<Self> {
        let head = String::from_utf8_lossy(head);
        let fields = head.split("\r\n").filter_map(|line| line.split_once(':'));
        let (_, value) = { fields }.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-extensions"))?;
        let mut parameters = value.split(';').map(str::trim);
        (parameters.next()? == "permessage-deflate").then_some(())?;
        let mut agreement = Self { window_bits: WINDOW_BITS_MAX, takes_over: true };
        for parameter in parameters {
            match parameter.split_once('=') {
                Some(("server_max_window_bits", bits)) => {
                    agreement.window_bits = bits.trim_matches('"').parse().ok()?
                }
                None if parameter == "server_no_context_takeover" => agreement.takes_over = false,
                _ => {}
            }
        }
        (9..=WINDOW_BITS_MAX).contains(&agreement.window_bits).then_some(agreement)
    }

    /// What inflates the server's messages.
    pub(super) fn inflater(self) -> Inflater {
        Inflater { stream: Decompress::new_with_window_bits(false, self.window_bits), takes_over: self.takes_over }
    }
}

/// Inflates one message after the other.
#[derive(Debug)]
pub(super) struct Inflater {
    stream: Decompress,
    takes_over: bool,
}

/// What a message ends with, and is cut off on the wire (RFC 7692 §7.2.1).
const EMPTY_BLOCK: [u8; 4] = [0, 0, 0xff, 0xff];

/// A message is no longer, or is wrong.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

impl Inflater {
    /// Writes what the data of one message stands for over `out`; whether there is such a thing.
    pub(super) fn inflate(&mut self, data: &[u8], out: &mut Vec<u8>) -> bool {
        out.clear();
        let is_right = [data, &EMPTY_BLOCK].into_iter().all(|piece| self.take(piece, out));
        if !self.takes_over {
            self.stream.reset(false);
        }
        is_right
    }

    fn take(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> bool {
        loop {
            out.reserve(input.len().max(256) * 4);
            let before = self.stream.total_in();
            let status = self.stream.decompress_vec(input, out, flate2::FlushDecompress::Sync);
            input = &input[(self.stream.total_in() - before) as usize..];
            match status {
                Ok(flate2::Status::Ok | flate2::Status::BufError) if out.len() <= MESSAGE_BYTES_MAX => {}
                // The end of a stream is none of a message's, and clients take it for more than that.
                _ => return false,
            }
            if input.is_empty() && out.len() < out.capacity() {
                return true;
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use flate2::{Compress, Compression, FlushCompress};
    use proptest::prelude::*;

    use super::*;

    /// The data of a message that goes on where the one before ended.
    pub(in crate::feed) fn deflated(stream: &mut Compress, message: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(message.len() * 2 + 64);
        stream.compress_vec(message, &mut out, FlushCompress::Sync).unwrap();
        out.truncate(out.len() - EMPTY_BLOCK.len());
        out
    }

    pub(in crate::feed) fn compressor(bits: u8) -> Compress {
        Compress::new_with_window_bits(Compression::default(), false, bits)
    }

    #[test]
    fn answers_are_read() {
        let read = |value: &str| {
            Agreement::read(format!("HTTP/1.1 101 S\r\nSec-WebSocket-Extensions:{value}\r\n\r\n").as_bytes())
        };
        assert_eq!(read(" permessage-deflate"), Some(Agreement { window_bits: 15, takes_over: true }));
        assert_eq!(
            read("permessage-deflate; server_max_window_bits=12; client_no_context_takeover"),
            Some(Agreement { window_bits: 12, takes_over: true })
        );
        assert_eq!(
            read("permessage-deflate;server_no_context_takeover"),
            Some(Agreement { window_bits: 15, takes_over: false })
        );
        assert_eq!(read("permessage-deflate; server_max_window_bits=16"), None);
        assert_eq!(read("x-other"), None);
        assert_eq!(Agreement::read(b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n"), None);
    }

    proptest! {
        #[test]
        fn what_is_deflated_with_context_is_inflated(
            messages in prop::collection::vec(prop::collection::vec(0_u8..4, 0..3_000), 1..8),
            bits in 9_u8..=15,
        ) {
            let mut stream = compressor(bits);
            let mut inflater = Agreement { window_bits: bits, takes_over: true }.inflater();
            let mut out = Vec::new();
            for message in &messages {
                let data = deflated(&mut stream, message);
                prop_assert!(inflater.inflate(&data, &mut out));
                prop_assert_eq!(&out, message);
            }
        }

        #[test]
        fn any_bytes_are_inflated_without_a_panic(data: Vec<u8>) {
            Agreement { window_bits: 9, takes_over: false }.inflater().inflate(&data, &mut Vec::new());
        }
    }
}
