//! Frames in what was read from a server (RFC 6455 §5.2), and the part of one that a read cut off.

use crate::check::Batch;

/// The longest frame that is read, header and payload. A longer one ends the connection.
pub(crate) const FRAME_BYTES_MAX: usize = 16 << 20;

/// The opcodes of §5.2 that a server of whole, unfragmented messages sends.
pub(crate) const TEXT: u8 = 1;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// What stands at the front of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Front<'a> {
    /// A whole frame: its first byte (FIN, RSV, opcode), its payload, its length with the header.
    Frame { first: u8, payload: &'a [u8], bytes: usize },
    /// The beginning of a frame that has at least this length.
    Part { bytes_needed: usize },
    /// A frame that no server may send: masked (§5.1), or over [`FRAME_BYTES_MAX`].
    Broken,
}

/// Looks at the front of `bytes`, which begins where a frame begins. Copies nothing.
#[inline]
pub(crate) fn front(bytes: &[u8]) -> Front<'_> {
    let &[first, length, ref rest @ ..] = bytes else { return Front::Part { bytes_needed: 2 } };
    let (header_bytes, payload_bytes) = match length {
        0..=125 => (2, u64::from(length)),
        126 => match rest.first_chunk() {
            Some(length) => (4, u64::from(u16::from_be_bytes(*length))),
            None => return Front::Part { bytes_needed: 4 },
        },
        127 => match rest.first_chunk() {
            Some(length) => (10, u64::from_be_bytes(*length)),
            None => return Front::Part { bytes_needed: 10 },
        },
        _ => return Front::Broken,
    };
    if payload_bytes > (FRAME_BYTES_MAX - header_bytes) as u64 {
        return Front::Broken;
    }
    let frame_bytes = header_bytes + payload_bytes as usize;
    match bytes.get(header_bytes..frame_bytes) {
        Some(payload) => Front::Frame { first, payload, bytes: frame_bytes },
        None => Front::Part { bytes_needed: frame_bytes },
    }
}

/// What a walk over read bytes found besides messages.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Walk {
    /// Bytes of whole frames; what follows is the beginning of one.
    pub(crate) bytes: usize,
    /// Length that the frame after them has at least; 0 if nothing of it is there.
    pub(crate) bytes_needed: usize,
    /// Answers to send: pongs, and the echo of a close.
    pub(crate) answers: Vec<u8>,
    /// The server closed, or broke the framing: the connection is over once the answers are sent.
    pub(crate) ended: bool,
}

/// Counts all whole frames of `bytes` in `batch`.
///
/// A text frame with FIN is a message. Pings are answered, pongs ignored. A close or a broken frame ends the walk. All
/// else is malformed: binary, fragments, reserved bits and opcodes, for no peer of ours has a reason to send them.
#[inline]
pub(crate) fn walk(bytes: &[u8], batch: &mut Batch<'_>) -> Walk {
    const MESSAGE: u8 = 0x80 | TEXT;
    let mut walk = Walk::default();
    loop {
        match front(&bytes[walk.bytes..]) {
            Front::Frame { first: MESSAGE, payload, bytes } => {
                batch.message(payload);
                walk.bytes += bytes;
            }
            Front::Frame { first, payload, bytes } => {
                walk.bytes += bytes;
                other_frame(first, payload, batch, &mut walk);
                if walk.ended {
                    return walk;
                }
            }
            Front::Part { bytes_needed } => {
                walk.bytes_needed = if walk.bytes == bytes.len() { 0 } else { bytes_needed };
                return walk;
            }
            Front::Broken => {
                batch.malformed();
                walk.ended = true;
                return walk;
            }
        }
    }
}

#[cold]
fn other_frame(first: u8, payload: &[u8], batch: &mut Batch<'_>, walk: &mut Walk) {
    let is_control_valid = first & 0xf0 == 0x80 && payload.len() <= 125;
    match first & 0x0f {
        PING if is_control_valid => write_masked(&mut walk.answers, PONG, payload),
        PONG if is_control_valid => {}
        CLOSE if is_control_valid => {
            write_masked(&mut walk.answers, CLOSE, payload);
            walk.ended = true;
        }
        _ => batch.malformed(),
    }
}

/// Appends a client's frame, its payload at most 65,535 bytes. Its mask is zero, which masks as any other and needs no
/// random number; the mask guards proxies against chosen bytes, and here there are none.
pub(crate) fn write_masked(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length => {
            debug_assert!(length <= usize::from(u16::MAX));
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Tally, Watch};
    use crate::payload;
    use proptest::prelude::*;

    /// An unmasked frame.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            length @ 0..=125 => bytes.push(length as u8),
            length @ 126..=65_535 => {
                bytes.push(126);
                bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                bytes.push(127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend_from_slice(payload);
        bytes
    }

    fn message(sequence: u64, bytes: usize) -> Vec<u8> {
        let mut payload = Vec::new();
        payload::write(&mut payload, sequence, 0, 5, bytes);
        frame(0x81, &payload)
    }

    fn tally() -> (Tally, [Watch; 1]) {
        let mut tally = Tally::new(1, false);
        tally.completions.subscribe(0);
        (tally, [Watch::new(0)])
    }

    fn walked(bytes: &[u8]) -> (Tally, Walk) {
        let (mut tally, mut watches) = tally();
        let mut batch = Batch::new(&mut tally, &mut watches, 9);
        let walk = walk(bytes, &mut batch);
        batch.end();
        (tally, walk)
    }

    #[test]
    fn ping_is_answered_by_a_masked_pong_with_its_payload() {
        let (_, walk) = walked(&frame(0x89, b"hi"));
        assert_eq!(walk.answers, [0x8a, 0x82, 0, 0, 0, 0, b'h', b'i']);
        assert!(!walk.ended);
    }

    #[test]
    fn close_is_echoed_and_ends_the_walk() {
        let bytes = [frame(0x88, &[3, 232]), message(0, 64)].concat();
        let (tally, walk) = walked(&bytes);
        assert_eq!((walk.answers, walk.ended, tally.received), (vec![0x88, 0x82, 0, 0, 0, 0, 3, 232], true, 0));
    }

    #[test]
    fn fragments_binary_and_reserved_bits_are_malformed_and_do_not_lose_the_framing() {
        for first in [0x01, 0x00, 0x80, 0x82, 0xc1, 0x8b, 0x09] {
            let (tally, walk) = walked(&[frame(first, b"abc"), message(0, 64)].concat());
            assert_eq!((tally.malformed, tally.received, walk.ended), (1, 1, false), "{first:#x}");
        }
    }

    #[test]
    fn masked_or_oversized_frame_ends_the_connection() {
        for bytes in [vec![0x81, 0x80, 0, 0, 0, 0], vec![0x81, 127, 0, 0, 1, 0, 0, 0, 0, 0]] {
            let (tally, walk) = walked(&bytes);
            assert_eq!((tally.malformed, walk.ended), (1, true));
        }
    }

    #[test]
    fn part_of_a_frame_says_how_long_the_frame_is() {
        let bytes = message(0, 200);
        assert_eq!(front(&bytes[..1]), Front::Part { bytes_needed: 2 });
        assert_eq!(front(&bytes[..3]), Front::Part { bytes_needed: 4 });
        assert_eq!(front(&bytes[..4]), Front::Part { bytes_needed: 204 });
    }

    proptest! {
        #[test]
        fn stream_cut_anywhere_counts_as_the_whole_one(
            lengths in prop::collection::vec(prop_oneof![40_usize..300, 65_500_usize..65_600], 1..20),
            cuts in prop::collection::vec(1_usize..9_000, 1..60),
        ) {
            let mut stream = Vec::new();
            for (sequence, &bytes) in lengths.iter().enumerate() {
                stream.extend(message(sequence as u64, bytes));
                if sequence % 3 == 0 {
                    stream.extend(frame(0x89, b"ping"));
                }
            }
            let (mut tally, mut watches) = tally();
            let (mut kept, mut at, mut answers) = (Vec::new(), 0, 0);
            for cut in cuts.iter().copied().cycle() {
                let end = (at + cut).min(stream.len());
                kept.extend_from_slice(&stream[at..end]);
                at = end;
                let mut batch = Batch::new(&mut tally, &mut watches, 9);
                let walk = walk(&kept, &mut batch);
                batch.end();
                prop_assert!(walk.bytes_needed > kept.len() - walk.bytes || walk.bytes == kept.len());
                answers += walk.answers.len();
                kept.drain(..walk.bytes);
                if at == stream.len() {
                    break;
                }
            }
            prop_assert!(kept.is_empty());
            prop_assert_eq!(tally.received, lengths.len() as u64);
            prop_assert_eq!((tally.gaps, tally.reordered, tally.malformed), (0, 0, 0));
            prop_assert_eq!(answers, lengths.len().div_ceil(3) * 10);
        }

        #[test]
        fn any_bytes_are_walked_without_a_panic(bytes: Vec<u8>) {
            let (_, walk) = walked(&bytes);
            prop_assert!(walk.bytes <= bytes.len());
        }
    }
}
