//! A framework with its socket, and the messages that it frames.
use std::collections::VecDeque;
use std::os::fd::{OwnedFd, RawFd};

use crate::shard::simulated::Luck;

/// Some bytes of a message, and what they end in the midst of.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) bytes: Vec<u8>,
    /// Messages that begin in it.
    pub(super) begins: usize,
    pub(super) is_mid_message: bool,
    pub(super) is_mid_frame: bool,
}

/// One, with its socket.
pub(super) struct Framework {
    /// None once it has closed it.
    pub(super) fd: Option<OwnedFd>,
    pub(super) number: RawFd,
    pub(super) serial: usize,
    /// The adopted connections of its socket that are not over, as indexes of clients: the first is written to.
    pub(super) chain: Vec<usize>,
    /// The newest.
    pub(super) newest: usize,
    /// Messages that it has begun, which have their numbers from this.
    pub(super) messages: usize,
    /// Of the message under way.
    pub(super) parts: VecDeque<Part>,
    /// What its own buffer held when the socket was adopted, and which connection tells of it; none once that is out.
    pub(super) buffered: Option<(usize, Vec<u8>)>,
    /// What was written while the engine lets go.
    pub(super) rest: Vec<Part>,
    /// Its Close frame was written, or nobody writes any more.
    pub(super) is_silent: bool,
    /// The engine broke off.
    pub(super) is_broken: bool,
}

impl Framework {
    /// The number of a message that is about to be written.
    pub(super) fn next_message(&mut self) -> usize {
        self.messages += 1;
        self.messages - 1
    }
}

/// A server's frame.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..126 => bytes.push(short as u8),
        long => bytes.extend([126, (long >> 8) as u8, long as u8]),
    }
    bytes.extend_from_slice(payload);
    bytes
}

/// A message in the parts in which a framework writes it.
pub(super) fn message(number: usize, luck: &mut Luck) -> VecDeque<Part> {
    let filling = if luck.once_in(8) { 200 + luck.below(3_000) } else { luck.below(100) };
    let text = format!("p|{number}|{}", "x".repeat(filling));
    let mut frames = match luck.below(6) {
        0 => vec![frame(0x89, format!("p|{number}|").as_bytes())],
        1 => fragments(text.as_bytes(), luck),
        _ => vec![frame(0x81, text.as_bytes())],
    };
    let mut parts = VecDeque::new();
    let last = frames.len() - 1;
    for (index, bytes) in frames.drain(..).enumerate() {
        let edges = match luck.below(4) {
            0 => vec![luck.below(bytes.len() + 1)],
            1 => vec![if bytes[1] == 126 { 4 } else { 2 }],
            _ => Vec::new(),
        };
        let mut from = 0;
        for to in edges.into_iter().chain([bytes.len()]).filter(|&to| to > 0) {
            if from < to {
                let (is_mid_frame, begins) = (to < bytes.len(), usize::from(parts.is_empty()));
                let is_mid_message = is_mid_frame || index < last;
                parts.push_back(Part { bytes: bytes[from..to].to_vec(), begins, is_mid_message, is_mid_frame });
            }
            from = to;
        }
    }
    parts
}

/// Frames of one message, perhaps with a ping between them.
fn fragments(text: &[u8], luck: &mut Luck) -> Vec<Vec<u8>> {
    let at = luck.below(text.len());
    let mut frames = vec![frame(0x01, &text[..at])];
    if luck.once_in(2) {
        frames.push(frame(0x89, b""));
    }
    if luck.once_in(2) {
        frames.push(frame(0x00, b""));
    }
    frames.push(frame(0x80, &text[at..]));
    frames
}
