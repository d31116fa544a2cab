//! How the frames of a log are compressed, each made of a frame of one whose are not (RFC 7692 §7.2).
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::mark::{FrameKind, FrameMark};
use crate::protocol::Coding;
use crate::ws::frame::{messages, write_compressed};
use crate::ws::{Deflater, SharedDeflater};

/// A frame below it goes out as it is: little is won.
const BYTES_MIN: usize = if cfg!(test) { 1 } else { 64 };

/// One above it does, too: who publishes, and the shards that would read the channel, wait while it is compressed.
const BYTES_MAX: usize = 128 << 10;

/// After so many bytes it is looked whether compression pays.
const JUDGED_BYTES: u64 = 64 << 10;

/// Where it did not, it is tried again after so many bytes.
const REST_BYTES: u64 = 1 << 20;

/// Compressors with context of this process, at once: 200 to 330 KB each. Beyond it messages are compressed alone.
const COMPRESSORS_MAX: usize = 512;

static COMPRESSORS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Compresses messages alone, for whichever channel.
    static ALONE: RefCell<Deflater> = RefCell::new(Deflater::default());
    /// The data of one message is made here: its length stands before it.
    static DATA: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What goes into the compressed logs of a format, as the log has it that they are made of.
#[derive(Debug, Default)]
pub(super) struct Intake {
    /// Bytes that have gone in, since there are such logs.
    fed: u64,
    /// Since it was looked whether that pays: what went in, and what came out.
    judged: (u64, u64),
    /// It did not: so many bytes go out as they are.
    rest: u64,
}

impl Intake {
    /// Whether a publication goes in, whose frame this is. Then it has been counted.
    pub(super) fn takes(&mut self, frame: &[u8], mark: &FrameMark, is_for_all: bool) -> bool {
        let is_plain = matches!(mark.kind, FrameKind::Snapshot | FrameKind::Gap | FrameKind::Opening);
        if is_plain || !is_for_all || mark.expires_ns != u64::MAX {
            return false;
        }
        if !(BYTES_MIN..=BYTES_MAX).contains(&frame.len()) {
            return false;
        }
        if self.rest > 0 {
            self.rest = self.rest.saturating_sub(frame.len() as u64);
            return false;
        }
        self.fed += messages(frame).map(|(_, payload)| payload.len() as u64).sum::<u64>();
        true
    }

    /// How many bytes have gone in.
    pub(super) fn fed(&self) -> u64 {
        self.fed
    }

    /// So many bytes went in, and so many came out.
    pub(super) fn judge(&mut self, (raw, coded): (u64, u64)) {
        self.judged.0 += raw;
        self.judged.1 += coded;
        if self.judged.0 >= JUDGED_BYTES {
            let (raw, coded) = std::mem::take(&mut self.judged);
            self.rest = if coded * 10 > raw * 9 { REST_BYTES } else { 0 };
        }
    }
}

/// How the frames of a log are compressed.
#[derive(Debug)]
pub(super) struct Coded {
    coding: Coding,
    /// Of one with context.
    stream: Option<SharedDeflater>,
    /// What had gone in, of its format's bytes, when it began.
    begun: u64,
    /// What has gone in by now.
    now: u64,
    /// The same behind each kept frame, and before the first.
    fed: VecDeque<u64>,
    before: u64,
    /// Bytes in and out since that was last told.
    passed: (u64, u64),
}

impl Coded {
    /// `None` where there are too many compressors.
    pub(super) fn begin(coding: Coding, fed: u64) -> Option<Self> {
        if coding.is_shared() && COMPRESSORS.fetch_add(1, Ordering::Relaxed) >= COMPRESSORS_MAX {
            COMPRESSORS.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let stream = coding.is_shared().then(|| SharedDeflater::new(coding.window_bits()));
        Some(Self { coding, stream, begun: fed, now: fed, fed: VecDeque::new(), before: fed, passed: (0, 0) })
    }

    /// Appends what stands here for a frame of the log that this one is made of, `fed` bytes having gone in with it.
    pub(super) fn write(&mut self, frame: &[u8], (is_taken, fed): (bool, u64), out: &mut Vec<u8>) {
        self.now = fed;
        if !is_taken {
            out.extend_from_slice(frame);
            return;
        }
        let before = out.len();
        for (opcode, payload) in messages(frame) {
            DATA.with_borrow_mut(|data| {
                data.clear();
                match &mut self.stream {
                    Some(stream) => stream.deflate(payload, data),
                    None => ALONE.with_borrow_mut(|alone| {
                        alone.deflate(self.coding.window_bits(), payload, data);
                    }),
                }
                write_compressed(out, opcode, data);
                if data.capacity() > 1 << 20 {
                    *data = Vec::new();
                }
            });
        }
        self.passed.0 += frame.len() as u64;
        self.passed.1 += (out.len() - before) as u64;
    }

    /// Its log has one frame more.
    pub(super) fn note_frame(&mut self) {
        self.fed.push_back(self.now);
    }

    /// Bytes in and out since this was last asked.
    pub(super) fn take_passed(&mut self) -> (u64, u64) {
        std::mem::take(&mut self.passed)
    }

    /// What had gone in behind so many kept frames.
    pub(super) fn fed_behind(&self, frames: usize) -> u64 {
        frames.checked_sub(1).and_then(|last| self.fed.get(last)).copied().unwrap_or(self.before)
    }

    /// Whether one may read on here that has got everything from `since` on, up to where `fed` bytes had gone in.
    pub(super) fn may_join(&self, since: u64, fed: u64) -> bool {
        !self.coding.is_shared() || since <= self.begun || fed - since >= 1 << self.coding.window_bits()
    }

    /// Its log has let go of its oldest frame.
    pub(super) fn forget_frame(&mut self) {
        if let Some(fed) = self.fed.pop_front() {
            self.before = fed;
        }
    }
}

impl Drop for Coded {
    fn drop(&mut self) {
        if self.stream.is_some() {
            COMPRESSORS.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
