//! What a cursor gets of a log: the slices to write, without what is not for it.
use std::sync::Arc;

use smallvec::SmallVec;

use super::keys::Keys;
use super::log::Log;
use super::mark::{Exclusion, FrameKind, FrameMark};
use super::policy::Policy;
use super::segment::Slice;
use super::tags::Tags;
use super::view::View;
use crate::connection_id::ConnectionId;

/// One read gives at most so many slices; the next one goes on.
pub(super) const SLICES_MAX: usize = 32;

/// And comes past so many frames that are not for everyone: each may cut a slice in two for each of its readers.
const EXCLUSIONS_MAX: usize = 1_024;

/// Frames to write: what lies between two cursors, without what has expired or was replaced.
#[derive(Debug, Default)]
pub struct Run {
    /// In order; each holds whole frames. Usually one, at most `SLICES_MAX`.
    pub slices: SmallVec<[Slice; 1]>,
    /// Frames in them.
    pub frames: u64,
    /// Frames left out because their time was over.
    pub expired: u64,
    /// Frames left out because newer ones have replaced them, and of policy `latest` those that are missing.
    pub replaced: u64,
    /// When the oldest of them was published, ns of the engine's clock.
    pub published_ns: u64,
    /// The cursor after them: `to`, or before it where the slices are at their bound.
    pub end: u64,
    /// A cursor before this one is overtaken.
    pub head: u64,
    /// Those of the frames that are not for everyone.
    pub exclusions: Vec<Exclusion>,
    /// By how much the frames would be longer if none were compressed.
    pub saved: i64,
}

impl Run {
    /// Bytes of all slices.
    pub(crate) fn bytes(&self) -> usize {
        self.slices.iter().map(|slice| slice.bytes().len()).sum()
    }

    /// The same, if none of the frames were compressed.
    pub(crate) fn plain_bytes(&self) -> u64 {
        (self.bytes() as u64).saturating_add_signed(self.saved)
    }

    /// Whether the frame that ends here is among those to write.
    pub(crate) fn has(&self, frame_end: u64) -> bool {
        let holds =
            |slice: &Slice| (slice.position() + 1..=slice.position() + slice.bytes().len() as u64).contains(&frame_end);
        self.slices.iter().any(holds)
    }

    /// Takes out what is not for this connection. A frame lies whole in one slice.
    pub(crate) fn exclude(&mut self, id: ConnectionId) {
        let exclusions = std::mem::take(&mut self.exclusions);
        let mut exclusions = exclusions.iter().filter(|exclusion| exclusion.is_of(id)).peekable();
        for slice in std::mem::take(&mut self.slices) {
            let (mut start, end) = (slice.position(), slice.position() + slice.bytes().len() as u64);
            while let Some(exclusion) = exclusions.next_if(|exclusion| exclusion.start < end) {
                if exclusion.start < start {
                    continue; // it was left out already
                }
                if start < exclusion.start {
                    self.slices.push(slice.part(start, exclusion.start));
                }
                start = exclusion.end;
                self.frames = self.frames.saturating_sub(1);
            }
            if start < end {
                self.slices.push(slice.part(start, end));
            }
        }
    }
}

/// Who reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    pub(super) policy: Policy,
    pub(super) keys: &'a Keys,
    /// What of the log it is to get.
    pub(super) view: &'a View,
    /// Skips what is replaced; a reader before the head does so in any case.
    pub(super) conflates: bool,
    /// Skips values whose key has ended since: it has them already, or is not to get them.
    pub(super) is_late: bool,
    /// The frame at the cursor is for it, though it is a snapshot.
    pub(super) is_at_keyframe: bool,
    /// It is an edge, which passes on all that the log has, and skips by itself.
    pub(super) takes_all: bool,
    pub(super) now_ns: u64,
}

/// What becomes of one frame in a read.
#[derive(PartialEq, Eq)]
enum Fate {
    Sent,
    Expired,
    Replaced,
    /// It is for newcomers alone.
    Withheld,
    /// It stands for what is missing.
    Missing,
    /// It is not in the reader's view.
    Unmatched,
}

impl Reader<'_> {
    fn fate<'t>(&self, mark: &FrameMark, tags: impl FnOnce() -> Tags<'t>, is_first: bool) -> Fate {
        match mark {
            _ if mark.kind == FrameKind::Gap => Fate::Missing,
            _ if self.takes_all => Fate::Sent,
            _ if !self.view.is_all() && !self.view.has(mark, tags()) => Fate::Unmatched,
            _ if mark.expires_ns <= self.now_ns => Fate::Expired,
            _ if mark.kind == FrameKind::Snapshot && !(is_first && self.is_at_keyframe) => Fate::Withheld,
            _ if self.conflates && !self.keys.is_newest(mark.key, mark.offset) && mark.kind != FrameKind::Snapshot => {
                Fate::Replaced
            }
            _ if self.is_late && self.keys.is_removed(mark.key, mark.offset) => Fate::Replaced,
            _ => Fate::Sent,
        }
    }
}

impl Run {
    /// Goes past a frame that is not sent.
    fn pass(&mut self, mark: &FrameMark, fate: &Fate) {
        self.end = mark.end;
        self.expired += u64::from(*fate == Fate::Expired);
        self.replaced += u64::from(*fate == Fate::Replaced);
    }
}

impl Log {
    /// A cursor before this one is overtaken: what it needs is not all here.
    pub(super) fn overtaken_before(&self, policy: Policy) -> u64 {
        if policy == Policy::Latest && self.coded.is_none() { self.lost.position } else { self.whole_from }
    }

    /// Whether the keyframe that began here has left the log.
    pub(super) fn lacks_keyframe(&self, start: u64) -> bool {
        self.mark_at(start).is_none()
    }

    /// What is known of the frame that begins here.
    fn mark_at(&self, start: u64) -> Option<&FrameMark> {
        if start < self.head.position {
            return self.compacted.at(start).map(|value| &value.mark);
        }
        self.frames.get(self.frames_until(start))
    }

    /// Whether one that is to begin with the keyframe here may: it is here, and its time is not over. What is not in its view
    /// it goes past.
    fn has_keyframe_for(&self, reader: &Reader<'_>, start: u64) -> bool {
        let fate = |mark| reader.fate(mark, Tags::default, true);
        self.mark_at(start).is_some_and(|mark| matches!(fate(mark), Fate::Sent | Fate::Unmatched))
    }

    /// How many publications one has lost that goes from here to there, of those in its view. Of what is no longer here nobody
    /// knows whether it was: that counts.
    pub(super) fn lost_between(&self, from: u64, to: u64, view: &View) -> u64 {
        let between = |from: u64, to: u64| self.offset_before(to).saturating_sub(self.offset_before(from));
        if view.is_all() {
            return between(from, to);
        }
        let here = from.max(self.head.position).min(to.max(from));
        let (mut lost, mut before) = (between(from, here), self.offset_before(here));
        let first = self.frames_until(here);
        for mark in self.frames.range(first..).take_while(|frame| frame.end <= to) {
            lost += match mark.kind {
                FrameKind::Gap => mark.offset - before,
                FrameKind::Snapshot => 0,
                _ => u64::from(view.has(mark, self.noted.tags_at(mark.end))),
            };
            before = mark.offset;
        }
        lost
    }

    /// Where the gap ends that begins here, which overtakes a cursor: of policy `latest` that goes past it.
    pub(super) fn gap_at(&self, cursor: u64, policy: Policy) -> Option<u64> {
        if self.special == 0 || policy == Policy::Latest {
            return None;
        }
        self.mark_at(cursor).filter(|mark| mark.kind == FrameKind::Gap).map(|mark| mark.end)
    }

    /// The frames from `cursor` to `to` (both at frames' edges) that this reader gets.
    ///
    /// An overtaken cursor gives an empty run that ends where it began, with `head` beyond it.
    pub(super) fn read(&self, cursor: u64, to: u64, mut reader: Reader<'_>) -> Run {
        let head = self.overtaken_before(reader.policy);
        let mut run = Run { end: cursor, head, published_ns: reader.now_ns, ..Run::default() };
        if cursor < head || cursor >= to {
            return run;
        }
        if let Some(end) = self.gap_at(cursor, reader.policy) {
            run.head = end;
            return run;
        }
        if reader.is_at_keyframe && !self.has_keyframe_for(&reader, cursor) {
            run.head = cursor + 1; // the keyframe that it was to begin with is gone, or nothing to begin with any more
            return run;
        }
        let excluded = self.noted.exclusions.partition_point(|exclusion| exclusion.start < cursor);
        let to = self.noted.exclusions.get(excluded + EXCLUSIONS_MAX).map_or(to, |next| next.start.min(to));
        if cursor < self.head.position {
            if cursor >= self.whole_from {
                run.end = self.head.position.min(to);
            }
            reader.is_at_keyframe = false;
            if run.end < self.head.position {
                reader.conflates = true;
                self.read_compacted(&mut run, to, reader);
            }
            if run.end < self.head.position {
                return run;
            }
        }
        let first = self.frames_until(run.end);
        if run.slices.is_empty()
            && let Some(first) = self.frames.get(first)
        {
            run.published_ns = first.published_ns;
        }
        if self.special == 0 && !reader.conflates && reader.view.is_all() {
            run.end = self.push_slices(&mut run.slices, run.end, to);
            run.frames = (self.frames_until(run.end) - first) as u64;
        } else {
            self.read_one_by_one(&mut run, first, to, reader);
        }
        self.note_exclusions(&mut run, cursor);
        if let Some(coded) = &self.coded {
            run.saved = coded.saved_between(first, self.frames_until(run.end));
        }
        run
    }

    /// What has left the log for what takes its place counts as replaced, too.
    fn read_compacted(&self, run: &mut Run, to: u64, reader: Reader<'_>) {
        let mut passed = self.offset_before(run.end);
        for value in self.compacted.from(run.end).take_while(|value| value.mark.end <= to) {
            if run.slices.len() >= SLICES_MAX {
                return;
            }
            run.replaced += (value.mark.offset - 1).saturating_sub(passed);
            passed = value.mark.offset;
            match reader.fate(&value.mark, || value.besides.tags(), false) {
                Fate::Sent if self.compacted.is_current(&value.mark, reader.keys) => {
                    if run.slices.is_empty() {
                        run.published_ns = value.mark.published_ns;
                    }
                    if let Some(excluded) = &value.besides.excluded {
                        let (start, end, excluded) = (value.start(), value.mark.end, Arc::clone(excluded));
                        run.exclusions.push(Exclusion { start, end, excluded });
                    }
                    run.slices.push(value.frame.clone());
                    run.frames += 1;
                    run.end = value.mark.end;
                }
                Fate::Sent => run.pass(&value.mark, &Fate::Replaced), // a removal that nobody there lags before
                fate => run.pass(&value.mark, &fate),
            }
        }
        run.end = self.head.position.min(to);
        run.replaced += self.offset_before(run.end).saturating_sub(passed);
        if !reader.view.is_all() {
            run.replaced = 0; // nobody knows any more whether it was for this reader
        }
    }

    fn read_one_by_one(&self, run: &mut Run, first: usize, to: u64, reader: Reader<'_>) {
        let last = self.frames_until(to);
        let mut at = first;
        while run.slices.len() < SLICES_MAX && at < last {
            let fate = |at: usize| {
                let mark = &self.frames[at];
                reader.fate(mark, || self.noted.tags_at(mark.end), at == first)
            };
            let ahead = fate(at);
            if ahead == Fate::Missing {
                if reader.policy != Policy::Latest {
                    break; // who comes there is overtaken
                }
                let before = at.checked_sub(1).map_or(self.head.offset, |before| self.frames[before].offset);
                run.replaced += self.frames[at].offset - before;
            }
            if ahead != Fate::Sent {
                run.pass(&self.frames[at], &ahead);
                at += 1;
                continue;
            }
            let stretch = 1 + (at + 1..last).take_while(|&at| fate(at) == Fate::Sent).count();
            let stretch_end = self.frames[at + stretch - 1].end;
            run.end = self.push_slices(&mut run.slices, run.end, stretch_end);
            let after = self.frames_until(run.end);
            run.frames += (after - at) as u64;
            at = after;
            if run.end < stretch_end {
                break;
            }
        }
    }

    fn note_exclusions(&self, run: &mut Run, cursor: u64) {
        let first = self.noted.exclusions.partition_point(|exclusion| exclusion.start < cursor);
        let until = run.end;
        run.exclusions
            .extend(self.noted.exclusions.range(first..).take_while(|exclusion| exclusion.end <= until).cloned());
    }

    /// Appends the slices of the bytes `from..to` as far as the bound allows; gives where they end.
    pub(super) fn push_slices(&self, slices: &mut SmallVec<[Slice; 1]>, from: u64, to: u64) -> u64 {
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
        if position < self.head.position {
            return self.compacted.frame_end(position);
        }
        self.frames.get(self.frames_until(position)).map(|frame| frame.end)
    }

    /// Where the publication of this number ends, or, once it has left the log, where the log begins.
    pub(super) fn end_of(&self, offset: u64) -> u64 {
        let index = self.frames.partition_point(|frame| frame.offset < offset);
        // A snapshot has the number of the publication before it, and stands behind that.
        let found = self.frames.get(index).filter(|frame| frame.offset == offset && frame.kind != FrameKind::Snapshot);
        found.map_or(self.start_of(index), |frame| frame.end)
    }

    /// How many frames end in `from + 1..=to`, of those that are here.
    pub(super) fn frames_in(&self, from: u64, to: u64) -> u64 {
        (self.frames_until(to) - self.frames_until(from)) as u64
    }
}
