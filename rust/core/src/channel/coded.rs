//! How the frames of a log are compressed, each made of a frame of one whose are not (RFC 7692 §7.2).
//!
//! Of a gzip stream nothing stands outside its window. What does not go into the compressors goes out stored, and they forget
//! what came before it: so whoever gets that, and whoever does not, reads on.
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::mark::{FrameKind, FrameMark};
use super::verified::Verifier;
use crate::clock::Clock;
use crate::http::gzip;
use crate::protocol::{Coding, Format, LogId};
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

/// What compressing takes, in all channels of an engine.
#[derive(Debug, Default)]
pub(super) struct Compressing {
    took_ns: AtomicU64,
    /// How often it was found not to pay.
    rests: AtomicU64,
}

impl Compressing {
    /// Since the start.
    pub(super) fn sums(&self) -> (Duration, u64) {
        (Duration::from_nanos(self.took_ns.load(Ordering::Relaxed)), self.rests.load(Ordering::Relaxed))
    }
}

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
    pub(super) fn takes(&mut self, format: Format, frame: &[u8], mark: &FrameMark, is_for_all: bool) -> bool {
        let is_plain = matches!(mark.kind, FrameKind::Snapshot | FrameKind::Gap | FrameKind::Opening);
        if is_plain || !is_for_all || mark.expires_ns != u64::MAX {
            return false;
        }
        let is_small = frame.len() < BYTES_MIN && !format.is_gzip(); // where that would cost what came before
        if is_small || frame.len() > BYTES_MAX {
            return false;
        }
        if self.rest > 0 {
            self.rest = self.rest.saturating_sub(frame.len() as u64);
            return false;
        }
        self.fed += match format.is_gzip() {
            true => gzip::contents(frame).map(|bytes| bytes.len() as u64).sum::<u64>(),
            false => messages(frame).map(|(_, payload)| payload.len() as u64).sum::<u64>(),
        };
        true
    }

    /// How many bytes have gone in.
    pub(super) fn fed(&self) -> u64 {
        self.fed
    }

    /// So many bytes went in, and so many came out.
    pub(super) fn judge(&mut self, (raw, coded): (u64, u64), compressing: &Compressing) {
        self.judged.0 += raw;
        self.judged.1 += coded;
        if self.judged.0 >= JUDGED_BYTES {
            let (raw, coded) = std::mem::take(&mut self.judged);
            if coded * 10 > raw * 9 && self.rest == 0 {
                self.rest = REST_BYTES;
                compressing.rests.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// What has passed a compressed log.
#[derive(Clone, Copy, Debug, Default)]
struct Passed {
    /// Bytes that had gone in, of its format.
    fed: u64,
    /// By how much less came out than went in, heads and what is not compressed included, since it began.
    saved: i64,
}

/// How the frames of a log are compressed.
#[derive(Debug)]
pub(super) struct Coded {
    coding: Coding,
    /// It is a gzip stream.
    is_gzip: bool,
    /// Of one with context.
    stream: Option<SharedDeflater>,
    /// What had gone in, of its format's bytes, when it began, or began anew.
    begun: u64,
    /// By now.
    now: Passed,
    /// The same behind each kept frame, and before the first.
    behind: VecDeque<Passed>,
    before: Passed,
    /// Bytes in and out since that was last told.
    passed: (u64, u64),
    /// In the debug mode.
    verifier: Option<Box<Verifier>>,
}

impl Coded {
    /// `None` where there are too many compressors.
    pub(super) fn begin(LogId { format, coding }: LogId, fed: u64, is_verified: bool) -> Option<Self> {
        if coding.is_shared() && COMPRESSORS.fetch_add(1, Ordering::Relaxed) >= COMPRESSORS_MAX {
            COMPRESSORS.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let stream = coding.is_shared().then(|| SharedDeflater::new(coding.window_bits()));
        let (now, behind, passed) = (Passed { fed, saved: 0 }, VecDeque::new(), (0, 0));
        let verifier = is_verified.then(|| Box::new(Verifier::of(coding)));
        let is_gzip = format.is_gzip();
        Some(Self { coding, is_gzip, stream, begun: fed, now, behind, before: now, passed, verifier })
    }

    /// Appends what stands here for a frame of the log that this one is made of, `fed` bytes having gone in with it.
    pub(super) fn write(
        &mut self,
        frame: &[u8],
        (is_taken, fed): (bool, u64),
        compressing: &Compressing,
        out: &mut Vec<u8>,
    ) {
        self.now.fed = fed;
        if !is_taken {
            out.extend_from_slice(frame);
            if let Some(stream) = self.stream.as_mut().filter(|_| self.is_gzip) {
                stream.forget();
                self.begun = fed;
                if let Some(verifier) = &mut self.verifier {
                    verifier.forget();
                }
            }
            return;
        }
        let (before, begun_ns) = (out.len(), Clock::start().now_ns());
        DATA.with_borrow_mut(|data| {
            if self.is_gzip {
                for bytes in gzip::contents(frame) {
                    self.deflate(bytes, data);
                    out.extend_from_slice(data);
                    out.extend_from_slice(&gzip::EMPTY_BLOCK);
                }
            } else {
                for (opcode, payload) in messages(frame) {
                    self.deflate(payload, data);
                    write_compressed(out, opcode, data);
                }
            }
            if data.capacity() > 1 << 20 {
                *data = Vec::new();
            }
        });
        let (raw, coded) = (frame.len(), out.len() - before);
        self.passed.0 += raw as u64;
        self.passed.1 += coded as u64;
        self.now.saved += raw as i64 - coded as i64;
        compressing.took_ns.fetch_add(Clock::start().now_ns() - begun_ns, Ordering::Relaxed);
    }

    /// Makes the data of one message.
    fn deflate(&mut self, payload: &[u8], data: &mut Vec<u8>) {
        data.clear();
        match &mut self.stream {
            Some(stream) => stream.deflate(payload, data),
            None => ALONE.with_borrow_mut(|alone| alone.deflate(self.coding.window_bits(), payload, data)),
        }
        if let Some(verifier) = &mut self.verifier {
            verifier.check(payload, data);
        }
    }

    /// Its log has one frame more.
    pub(super) fn note_frame(&mut self) {
        self.behind.push_back(self.now);
    }

    /// Bytes in and out since this was last asked.
    pub(super) fn take_passed(&mut self) -> (u64, u64) {
        std::mem::take(&mut self.passed)
    }

    /// What had gone in behind so many kept frames.
    pub(super) fn fed_behind(&self, frames: usize) -> u64 {
        self.passed_behind(frames).fed
    }

    /// By how much less went out than in the log that this one is made of, from behind so many kept frames to behind so many.
    pub(super) fn saved_between(&self, from: usize, to: usize) -> i64 {
        self.passed_behind(to).saved - self.passed_behind(from).saved
    }

    fn passed_behind(&self, frames: usize) -> Passed {
        frames.checked_sub(1).and_then(|last| self.behind.get(last)).copied().unwrap_or(self.before)
    }

    /// Whether one may read on here that has got everything from `since` on, up to where `fed` bytes had gone in.
    pub(super) fn may_join(&self, since: u64, fed: u64) -> bool {
        let has_all = since <= self.begun && self.begun <= fed;
        !self.coding.is_shared() || has_all || fed.saturating_sub(since) >= 1 << self.coding.window_bits()
    }

    /// Its log has let go of its oldest frame.
    pub(super) fn forget_frame(&mut self) {
        if let Some(passed) = self.behind.pop_front() {
            self.before = passed;
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
