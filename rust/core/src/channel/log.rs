//! The append-only log of one channel for one wire format: frames ready for the wire, found by byte position.
//!
//! Positions inside a log are bytes since its begin, so that what a socket has taken is a position. A cursor stands at
//! a frame's first byte. The log never reads a clock and knows nothing of sockets; the channel's lock is around it.
use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use super::segment::{Segment, Slice};
use super::watch::Watch;
use crate::connection_id::ConnectionId;
use crate::settings::ChannelBounds;

const SEGMENT_BYTES_MIN: usize = 4 << 10;
const SEGMENT_BYTES_MAX: usize = 64 << 10;

/// One read gives at most so many slices; the next one goes on.
pub(super) const SLICES_MAX: usize = 32;

/// One frame in the index.
#[derive(Clone, Copy, Debug)]
struct FrameMark {
    /// Position of the byte after it.
    end: u64,
    /// When it was published, ns of the engine's clock.
    published_ns: u64,
    /// When it must no longer be sent, ns; `u64::MAX` is never.
    expires_ns: u64,
}

/// A frame that some connections are not to get.
#[derive(Clone, Debug)]
pub struct Exclusion {
    start: u64,
    end: u64,
    /// Those who don't get it.
    pub excluded: Arc<[ConnectionId]>,
}

/// Frames to write: what lies between two cursors, without what has expired.
#[derive(Debug, Default)]
pub struct Run {
    /// In order; each holds whole frames. Usually one, at most `SLICES_MAX`.
    pub slices: SmallVec<[Slice; 1]>,
    /// Frames in them.
    pub frames: u64,
    /// Frames left out because their time was over.
    pub expired: u64,
    /// When the oldest of them was published, ns of the engine's clock.
    pub published_ns: u64,
    /// The cursor after them: `to`, or before it where the slices are at their bound.
    pub end: u64,
    /// Position of the oldest frame that the log still holds: a cursor before it is overtaken.
    pub head: u64,
    /// Those of the frames that are not for everyone.
    pub exclusions: Vec<Exclusion>,
}

impl Run {
    /// Takes out what is not for this connection.
    pub(crate) fn exclude(&mut self, id: ConnectionId) {
        for exclusion in std::mem::take(&mut self.exclusions) {
            if !exclusion.excluded.iter().any(|one| one.is_same(id)) {
                continue;
            }
            self.frames = self.frames.saturating_sub(1);
            let cut = |slice: Slice| {
                let (start, end) = (slice.position(), slice.position() + slice.bytes().len() as u64);
                let before = (start < exclusion.start).then(|| slice.part(start, end.min(exclusion.start)));
                let after = (end > exclusion.end).then(|| slice.part(start.max(exclusion.end), end));
                [before, after].into_iter().flatten()
            };
            self.slices = self.slices.drain(..).flat_map(cut).collect();
        }
    }
}

/// The log.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Oldest first, with the bytes written in each. A frame lies in one of them whole.
    segments: VecDeque<(Arc<Segment>, usize)>,
    frames: VecDeque<FrameMark>,
    /// Where the oldest kept frame begins.
    head: u64,
    tail: u64,
    /// Kept frames that are not for everyone, oldest first.
    exclusions: VecDeque<Exclusion>,
    /// Kept frames that can expire: 0 lets `read` work by segments alone.
    expiring: usize,
    pub(super) watches: SmallVec<[Arc<Watch>; 1]>,
}

impl Log {
    pub(super) fn tail(&self) -> u64 {
        self.tail
    }

    /// Bytes that the slowest shard has yet to fan out.
    pub(super) fn unsent_bytes(&self) -> u64 {
        self.tail - self.fanned_out()
    }

    fn fanned_out(&self) -> u64 {
        self.watches.iter().map(|watch| watch.cursor()).min().unwrap_or(self.tail)
    }

    /// Appends one frame and gives up what nobody needs or the bounds no longer allow.
    pub(super) fn append(&mut self, frame: &[u8], now_ns: u64, expires_ns: u64, bounds: &ChannelBounds) {
        self.trim(bounds);
        self.make_room(frame.len());
        let (segment, filled) = self.segments.back_mut().expect("make_room left a segment with room");
        segment.write(*filled, frame);
        *filled += frame.len();
        self.tail += frame.len() as u64;
        self.expiring += usize::from(expires_ns != u64::MAX);
        self.frames.push_back(FrameMark { end: self.tail, published_ns: now_ns, expires_ns });
    }

    /// The frame that was appended last is not for these.
    pub(super) fn exclude_from_last(&mut self, frame_bytes: usize, excluded: &Arc<[ConnectionId]>) {
        let start = self.tail - frame_bytes as u64;
        self.exclusions.push_back(Exclusion { start, end: self.tail, excluded: Arc::clone(excluded) });
    }

    /// Lets go of frames that every cursor has passed, and of those that only laggards over the bound still need.
    fn trim(&mut self, bounds: &ChannelBounds) {
        let needed = self.watches.iter().map(|watch| watch.needed()).min().unwrap_or(self.tail);
        let fanned_out = self.fanned_out();
        while let Some(frame) = self.frames.front() {
            let is_over = self.tail - self.head > bounds.backlog_bytes || self.frames.len() >= bounds.backlog_frames;
            if frame.end > needed && !(is_over && frame.end <= fanned_out) {
                break;
            }
            self.head = frame.end;
            self.expiring -= usize::from(frame.expires_ns != u64::MAX);
            self.frames.pop_front();
        }
        while self.exclusions.front().is_some_and(|exclusion| exclusion.end <= self.head) {
            self.exclusions.pop_front();
        }
        while self.segments.len() > 1 && self.segments[1].0.base() <= self.head {
            self.segments.pop_front();
        }
        if self.head == self.tail && self.frames.capacity() > 1_024 {
            self.frames.shrink_to(64);
        }
    }

    /// Makes the last segment one with room for `bytes`: the one in use, the same begun anew, or a new one.
    fn make_room(&mut self, bytes: usize) {
        let last_capacity = self.segments.back().map_or(0, |(segment, _)| segment.capacity());
        if let Some((segment, filled)) = self.segments.back_mut() {
            if self.head == self.tail
                && let Some(alone) = Arc::get_mut(segment)
                && bytes <= alone.capacity()
            {
                alone.restart(self.tail);
                *filled = 0;
                return;
            }
            if segment.capacity() - *filled >= bytes {
                return;
            }
        }
        let capacity = (last_capacity * 2).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX).max(bytes);
        if self.head == self.tail {
            self.segments.clear();
        }
        self.segments.push_back((Arc::new(Segment::new(self.tail, capacity)), 0));
    }

    /// The frames from `cursor` to `to` (both at frames' edges), without those that have expired at `now_ns`.
    ///
    /// A cursor before the head gives an empty run that ends where it began, with `head` beyond it.
    pub(super) fn read(&self, cursor: u64, to: u64, now_ns: u64) -> Run {
        let mut run = Run { end: cursor, head: self.head, published_ns: now_ns, ..Run::default() };
        if cursor < self.head || cursor >= to {
            return run;
        }
        let first = self.frames.partition_point(|frame| frame.end <= cursor);
        run.published_ns = self.frames[first].published_ns;
        if self.expiring == 0 {
            run.end = self.push_slices(&mut run.slices, cursor, to);
            run.frames = (self.frames.partition_point(|frame| frame.end <= run.end) - first) as u64;
            self.note_exclusions(&mut run, cursor);
            return run;
        }
        let last = self.frames.partition_point(|frame| frame.end <= to);
        let is_live = |frame: &FrameMark| frame.expires_ns > now_ns;
        let mut at = first;
        while run.slices.len() < SLICES_MAX {
            while at < last && !is_live(&self.frames[at]) {
                run.end = self.frames[at].end;
                run.expired += 1;
                at += 1;
            }
            let stretch = self.frames.range(at..last).take_while(|frame| is_live(frame)).count();
            if stretch == 0 {
                break;
            }
            let stretch_end = self.frames[at + stretch - 1].end;
            run.end = self.push_slices(&mut run.slices, run.end, stretch_end);
            let after = self.frames.partition_point(|frame| frame.end <= run.end);
            run.frames += (after - at) as u64;
            at = after;
            if run.end < stretch_end {
                break;
            }
        }
        self.note_exclusions(&mut run, cursor);
        run
    }

    fn note_exclusions(&self, run: &mut Run, cursor: u64) {
        let is_in = |exclusion: &&Exclusion| exclusion.start >= cursor && exclusion.end <= run.end;
        run.exclusions = self.exclusions.iter().filter(is_in).cloned().collect();
    }

    /// Appends the slices of the bytes `from..to` as far as the bound allows; gives where they end.
    fn push_slices(&self, slices: &mut SmallVec<[Slice; 1]>, from: u64, to: u64) -> u64 {
        let first = self.segments.partition_point(|(segment, filled)| segment.base() + *filled as u64 <= from);
        let mut end = from;
        for (segment, filled) in self.segments.range(first..) {
            let base = segment.base();
            if base >= to || slices.len() >= SLICES_MAX {
                break;
            }
            end = to.min(base + *filled as u64);
            slices.push(Slice::new(segment, (from.max(base) - base) as usize, (end - base) as usize));
        }
        end
    }

    /// Where the frame ends that holds the byte at `position`, if the log still has it.
    pub(super) fn frame_end(&self, position: u64) -> Option<u64> {
        if position < self.head {
            return None;
        }
        self.frames.get(self.frames.partition_point(|frame| frame.end <= position)).map(|frame| frame.end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: ChannelBounds = ChannelBounds { backlog_bytes: 1 << 20, backlog_frames: 1 << 20 };

    fn text(run: &Run) -> Vec<u8> {
        run.slices.iter().flat_map(|slice| slice.bytes().to_vec()).collect()
    }

    fn watched(log: &mut Log) -> Arc<Watch> {
        let watch = Arc::new(Watch::new(0, log.tail()));
        log.watches.push(Arc::clone(&watch));
        watch
    }

    #[test]
    fn a_quiet_log_begins_its_only_segment_anew() {
        let mut log = Log::default();
        let watch = watched(&mut log);
        for _ in 0..10_000 {
            log.append(&[7; 100], 0, u64::MAX, &BOUNDS);
            watch.advance(log.tail(), log.tail());
        }
        assert_eq!(log.segments.len(), 1);
        assert_eq!(log.segments[0].0.capacity(), SEGMENT_BYTES_MIN);
        assert_eq!(log.frames.len(), 1);
    }

    #[test]
    fn a_slice_keeps_its_bytes_while_the_log_goes_on() {
        let mut log = Log::default();
        let watch = watched(&mut log);
        log.append(b"first", 0, u64::MAX, &BOUNDS);
        let run = log.read(0, 5, 0);
        watch.advance(5, 5);
        for _ in 0..5_000 {
            log.append(b"later", 0, u64::MAX, &BOUNDS);
            watch.advance(log.tail(), log.tail());
        }
        assert_eq!(text(&run), b"first");
    }

    #[test]
    fn the_bound_overtakes_laggards_but_never_what_is_not_fanned_out() {
        let bounds = ChannelBounds { backlog_bytes: 50, backlog_frames: 1_000 };
        let mut log = Log::default();
        let watch = watched(&mut log);
        for _ in 0..20 {
            log.append(&[0; 10], 0, u64::MAX, &bounds);
        }
        assert_eq!((log.head, log.unsent_bytes()), (0, 200));
        watch.advance(200, 0); // fanned out, with a laggard at 0
        log.append(&[0; 10], 0, u64::MAX, &bounds);
        assert!(log.head >= 150 && log.head <= 200, "{}", log.head);
        let run = log.read(0, 200, 0);
        assert!(run.slices.is_empty() && run.head > 0);
    }

    #[test]
    fn what_has_expired_is_left_out() {
        let mut log = Log::default();
        let _watch = watched(&mut log);
        log.append(b"aa", 0, 10, &BOUNDS);
        log.append(b"bb", 0, u64::MAX, &BOUNDS);
        log.append(b"cc", 0, 5, &BOUNDS);
        log.append(b"dd", 0, u64::MAX, &BOUNDS);
        let run = log.read(0, 8, 7);
        assert_eq!(text(&run), b"aabbdd");
        assert_eq!((run.frames, run.expired, run.end), (3, 1, 8));
        assert_eq!(text(&log.read(0, 8, 10)), b"bbdd");
    }

    #[test]
    fn a_frame_end_is_found_from_any_byte_of_it() {
        let mut log = Log::default();
        let _watch = watched(&mut log);
        log.append(b"abc", 0, u64::MAX, &BOUNDS);
        log.append(b"de", 0, u64::MAX, &BOUNDS);
        assert_eq!(
            (0..6).map(|at| log.frame_end(at)).collect::<Vec<_>>(),
            [Some(3), Some(3), Some(3), Some(5), Some(5), None]
        );
    }

    proptest! {
        /// Whatever is appended, read and given up: a read gives exactly the frames of a plain list, or says overtaken.
        #[test]
        fn a_log_is_a_list_of_frames(
            steps in prop::collection::vec((1_usize..9_000, 0_u8..4, any::<u16>()), 1..200),
        ) {
            let bounds = ChannelBounds { backlog_bytes: 60_000, backlog_frames: 40 };
            let mut log = Log::default();
            let watch = watched(&mut log);
            let mut model: Vec<(u64, u8, usize)> = Vec::new(); // start, filling byte, length
            let (mut cursor, mut laggard) = (0, 0);
            for (index, (bytes, action, pick)) in steps.into_iter().enumerate() {
                let fill = index as u8;
                model.push((log.tail(), fill, bytes));
                log.append(&vec![fill; bytes], 0, u64::MAX, &bounds);
                if action == 0 { cursor = log.tail(); }
                if action == 1 { cursor = log.tail(); laggard = cursor; }
                watch.advance(cursor, laggard);
                prop_assert!(log.head <= cursor);
                let from = model[usize::from(pick) % model.len()].0;
                let run = log.read(from, log.tail(), 0);
                if from < log.head {
                    prop_assert!(run.slices.is_empty());
                } else {
                    let expected: Vec<u8> = model.iter().filter(|frame| frame.0 >= from)
                        .flat_map(|frame| std::iter::repeat_n(frame.1, frame.2)).collect();
                    let mut read = text(&run);
                    let (mut frames, mut end) = (run.frames, run.end);
                    while end < log.tail() {
                        let more = log.read(end, log.tail(), 0);
                        read.extend(text(&more));
                        frames += more.frames;
                        end = more.end;
                    }
                    prop_assert_eq!(read, expected);
                    prop_assert_eq!(frames, model.iter().filter(|frame| frame.0 >= from).count() as u64);
                }
            }
        }
    }
}
