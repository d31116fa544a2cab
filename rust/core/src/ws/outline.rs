//! Where frames and messages end in what a server sends: their heads are read, nothing is kept of what they carry.

/// The outline of a stream of frames that comes in any pieces (RFC 6455 §5.2, §5.4).
///
/// It checks nothing: whoever framed these bytes answers for them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outline {
    /// The head of the frame that is under way, as far as it has come.
    head: [u8; 14],
    head_bytes: u8,
    /// Its head is whole, and so much of its payload is to come.
    payload_left: Option<u64>,
    /// A message has begun whose last frame has not ended.
    is_in_message: bool,
    has_closed: bool,
}

const FIN: u8 = 0x80;
const CONTROL: u8 = 0x08;
const CLOSE: u8 = 0x08;
const MASK: u8 = 0x80;

impl Outline {
    /// Whether no frame is under way.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        self.head_bytes == 0
    }

    /// Whether no message is under way.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.is_between_frames() && !self.is_in_message
    }

    /// Whether a Close frame has ended: nothing may follow it (§5.5.1).
    #[must_use]
    pub fn has_closed(&self) -> bool {
        self.has_closed
    }

    /// Whether these are whole messages, none of them a Close frame.
    #[must_use]
    pub fn has_whole_messages(bytes: &[u8]) -> bool {
        let mut outline = Self::default();
        outline.pass(bytes);
        outline.is_between_messages() && !outline.has_closed
    }

    /// Goes past all of these bytes.
    pub fn pass(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            at += self.pass_frame(&bytes[at..]);
        }
    }

    /// Goes to the end of the message that is under way: how many of the bytes that takes, all if it does not end in them.
    pub fn pass_message(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() && !self.is_between_messages() {
            at += self.pass_frame(&bytes[at..]);
        }
        at
    }

    /// Goes to the end of the frame that is under way, or of the next one: how many of the bytes that takes, all if it
    /// does not end in them.
    pub fn pass_frame(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while self.payload_left.is_none() {
            let Some(&byte) = bytes.get(at) else { return at };
            self.head[usize::from(self.head_bytes)] = byte;
            self.head_bytes += 1;
            at += 1;
            self.payload_left = self.payload_bytes();
        }
        let left = self.payload_left.expect("the head is whole");
        let taken = left.min((bytes.len() - at) as u64);
        self.payload_left = Some(left - taken);
        if taken == left {
            self.end_frame();
        }
        at + taken as usize
    }

    /// What the head says, once it is whole.
    fn payload_bytes(&self) -> Option<u64> {
        let head = &self.head[..usize::from(self.head_bytes)];
        let second = *head.get(1)?;
        let length_bytes = match second & !MASK {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask_bytes = if second & MASK == 0 { 0 } else { 4 };
        if head.len() < 2 + length_bytes + mask_bytes {
            return None;
        }
        let length = head[2..2 + length_bytes].iter().fold(0, |length, &byte| length << 8 | u64::from(byte));
        Some(if length_bytes == 0 { u64::from(second & !MASK) } else { length })
    }

    fn end_frame(&mut self) {
        let first = self.head[0];
        if first & CONTROL == 0 {
            self.is_in_message = first & FIN == 0;
        }
        self.has_closed |= first & 0x0F == CLOSE;
        (self.head_bytes, self.payload_left) = (0, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ws::{CloseCode, Opcode, write_close, write_header};

    fn frame(first: u8, payload: usize) -> Vec<u8> {
        let mut frame = Vec::new();
        write_header(&mut frame, Opcode::Text, payload);
        frame[0] = first;
        frame.resize(frame.len() + payload, 0x88); // as the head of a Close frame would begin
        frame
    }

    /// Frames of each length of a head, a message of several with a ping between, however the bytes are cut.
    #[test]
    fn edges_are_found_however_the_bytes_come() {
        let frames = [
            (frame(0x81, 5), true),
            (frame(0x82, 0), true),
            (frame(0x01, 300), false),
            (frame(0x89, 3), false),
            (frame(0x00, 0), false),
            (frame(0x80, 70_000), true),
            (frame(0xC1, 125), true),
        ];
        let all: Vec<u8> = frames.iter().flat_map(|one| one.0.clone()).collect();
        let mut edges = Vec::new();
        let mut at = 0;
        for (frame, ends_message) in &frames {
            at += frame.len();
            edges.push((at, *ends_message));
        }
        for step in [1, 2, 3, 7, 130, 100_000] {
            let (mut outline, mut found, mut at) = (Outline::default(), Vec::new(), 0);
            while at < all.len() {
                let part = &all[at..(at + step).min(all.len())];
                at += outline.pass_frame(part);
                if outline.is_between_frames() {
                    found.push((at, outline.is_between_messages()));
                }
            }
            assert_eq!(found, edges, "in pieces of {step}");
            assert!(!outline.has_closed());
        }
        let mut outline = Outline::default();
        outline.pass(&all[..edges[1].0 + 10]);
        assert!(!outline.is_between_frames());
        assert_eq!(outline.pass_message(&all[edges[1].0 + 10..]), edges[5].0 - edges[1].0 - 10);
        assert!(outline.is_between_messages());
        assert_eq!(outline.pass_message(b"\x81\x05hello"), 0, "none is under way");
    }

    #[test]
    fn a_close_frame_is_seen_when_it_has_ended() {
        let mut close = Vec::new();
        write_close(&mut close, CloseCode::NORMAL, "bye");
        let mut outline = Outline::default();
        outline.pass(&close[..close.len() - 1]);
        assert!(!outline.has_closed() && !outline.is_between_frames());
        outline.pass(&close[close.len() - 1..]);
        assert!(outline.has_closed() && outline.is_between_messages());
        assert!(!Outline::has_whole_messages(&close) && !Outline::has_whole_messages(&frame(0x01, 3)));
        assert!(Outline::has_whole_messages(&[frame(0x81, 200), frame(0x82, 0)].concat()));
        assert!(!Outline::has_whole_messages(&frame(0x81, 200)[..100]));
    }
}
