//! A piece of a log's memory: written once at its end, read by any shard below that.
#![allow(unsafe_code)] // the log's memory: one writer above a mark, readers below it
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::Arc;

/// A quiet log costs little more than its frame: there may be a thousand of them in each of many workers.
pub(super) const SEGMENT_BYTES_MIN: usize = 256;
const SEGMENT_BYTES_MAX: usize = 64 << 10;

/// So many frames in a row have found a segment eight times as large as what is kept: a smaller one follows it.
const TOO_LARGE_MAX: u32 = 64;

/// How large a log's segments are: as what is kept, so that a burst has few of them and leaves none that is large.
#[derive(Debug, Default)]
pub(super) struct Sizing {
    /// Frames in a row that have found far more room than there has to be.
    too_large: u32,
}

impl Sizing {
    /// A frame comes, with which so much is kept: whether the last segment has been far too large for a while.
    pub(super) fn is_too_large(&mut self, last: usize, kept: usize) -> bool {
        let is_larger = last > SEGMENT_BYTES_MIN && last / 8 >= kept;
        self.too_large = if is_larger && self.too_large < TOO_LARGE_MAX { self.too_large + 1 } else { 0 };
        is_larger && self.too_large == 0
    }

    /// The capacity of one that follows one of capacity `last`.
    pub(super) fn next(last: usize, kept: usize) -> usize {
        last.max(kept.next_power_of_two()).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)
    }
}

/// Bytes of a log from position `base` on.
///
/// Invariant: only the log that owns it writes, under its channel's lock, each byte once; a [`Slice`] is made, under
/// the same lock, only of bytes that are written. So a byte that a slice shows never changes while the slice lives.
pub(super) struct Segment {
    /// Position in the log of the first byte.
    base: u64,
    bytes: Box<[UnsafeCell<MaybeUninit<u8>>]>,
}

// SAFETY: by the invariant above no byte is read and written at the same time; the lock orders the write before any
// slice of it.
unsafe impl Sync for Segment {}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Segment({}+{})", self.base, self.bytes.len())
    }
}

impl Segment {
    pub(super) fn new(base: u64, capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity);
        bytes.resize_with(capacity, || UnsafeCell::new(MaybeUninit::uninit()));
        Self { base, bytes: bytes.into_boxed_slice() }
    }

    pub(super) fn base(&self) -> u64 {
        self.base
    }

    pub(super) fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Begins anew at another position; possible only when no slice of it lives, which `&mut` proves.
    pub(super) fn restart(&mut self, base: u64) {
        self.base = base;
    }

    /// Copies `bytes` to index `at`.
    ///
    /// The caller holds the channel's lock and has never made a slice that reaches past `at`.
    pub(super) fn write(&self, at: usize, bytes: &[u8]) {
        let room = &self.bytes[at..at + bytes.len()];
        // SAFETY: `room` is in bounds; by the caller's promise nobody reads these cells, and UnsafeCell lets us write
        // through a shared reference. Source and target are different allocations.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), room.as_ptr().cast_mut().cast::<u8>(), bytes.len()) };
    }
}

/// Some written bytes of a segment, kept alive.
#[derive(Clone, Debug)]
pub struct Slice {
    segment: Arc<Segment>,
    start: usize,
    end: usize,
}

impl Slice {
    /// Bytes `start..end` of the segment, all of which the caller has written.
    pub(super) fn new(segment: &Arc<Segment>, start: usize, end: usize) -> Self {
        assert!(start <= end && end <= segment.capacity());
        Self { segment: Arc::clone(segment), start, end }
    }

    /// Position in the log of the first byte.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.segment.base + self.start as u64
    }

    /// The bytes: whole frames.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let cells = &self.segment.bytes[self.start..self.end];
        // SAFETY: these cells were written before this slice was made and are not written again while it lives.
        unsafe { std::slice::from_raw_parts(cells.as_ptr().cast::<u8>(), cells.len()) }
    }

    /// The part from log position `from` to `to`, both within it.
    #[must_use]
    pub fn part(&self, from: u64, to: u64) -> Self {
        let (start, end) = ((from - self.segment.base) as usize, (to - self.segment.base) as usize);
        assert!(self.start <= start && end <= self.end);
        Self::new(&self.segment, start, end)
    }
}
