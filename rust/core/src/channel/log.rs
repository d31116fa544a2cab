//! The append-only log of one channel for one wire format: frames ready for the wire, found by byte position.
//!
//! Positions inside a log are bytes since its begin, so that what a socket has taken is a position. A cursor stands at
//! a frame's first byte. The log never reads a clock and knows nothing of sockets; the channel's lock is around it.
//! Here it grows; `trimming` has what it lets go of, `reading` what a cursor gets, `seeking` where one begins, `coding` how
//! frames of one log are compressed for another.
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use smallvec::SmallVec;

use super::besides::{Besides, Noted};
use super::coded::{Coded, Intake};
use super::compacted::Compacted;
use super::keys::Keys;
use super::mark::{Edge, FrameKind, FrameMark};
use super::segment::{Segment, Sizing};
use super::view::View;
use super::watch::Watch;
use crate::settings::ChannelSettings;

/// The log.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Oldest first, with the bytes written in each. A frame lies in one of them whole.
    pub(super) segments: VecDeque<(Arc<Segment>, usize)>,
    pub(super) frames: VecDeque<FrameMark>,
    /// Where the oldest kept frame begins.
    pub(super) head: Edge,
    /// A cursor from here on has lost nothing, though it stands before the head: only snapshots were in between, which are
    /// for newcomers alone.
    pub(super) whole_from: u64,
    pub(super) tail: u64,
    /// What is known of some of `frames` besides.
    pub(super) noted: Noted,
    /// Kept frames that a read has to look at: 0 lets it work by segments alone.
    pub(super) special: usize,
    /// Where the newest keyframe begins, and its mark; it may have left the log.
    pub(super) keyframe: Option<(u64, FrameMark)>,
    /// Of policy `latest`: what is before the head and not replaced.
    pub(super) compacted: Compacted,
    /// Of policy `latest`: nothing before this is sure to be whole.
    pub(super) lost: Edge,
    /// Behind the newest gap: nobody recovers from before it.
    pub(super) gap: Edge,
    /// Where the channel's life began, if that was behind others: nothing before it is for who comes.
    pub(super) life: Edge,
    /// Ends of frames that the bounds took from laggards, oldest first, and of the last frame before those.
    pub(super) gone: VecDeque<Edge>,
    sizing: Sizing,
    /// Of one whose frames are compressed: how.
    pub(super) coded: Option<Box<Coded>>,
    /// Of one that others are made of, whose frames are compressed: what goes into them.
    pub(super) intake: Option<Box<Intake>>,
    /// Readers of those others may yet come to need what is behind the first place, and their shards have fanned out to the
    /// second.
    pub(super) held: Option<(u64, u64)>,
    pub(super) watches: SmallVec<[Arc<Watch>; 1]>,
}

impl Log {
    /// A log that begins behind the publication of this number.
    pub(super) fn behind(offset: u64) -> Self {
        let head = Edge { position: 0, offset };
        Self { head, lost: head, ..Self::default() }
    }

    /// It is empty yet, and begins behind this number.
    pub(super) fn begin_behind(&mut self, offset: u64) {
        (self.head.offset, self.lost.offset) = (offset, offset);
    }

    pub(super) fn tail(&self) -> u64 {
        self.tail
    }

    /// The number of the last publication.
    pub(super) fn tail_offset(&self) -> u64 {
        self.frames.back().map_or(self.head.offset, |frame| frame.offset)
    }

    /// The number of the oldest publication that is here in any form.
    pub(super) fn oldest_offset(&self) -> u64 {
        let oldest = self.compacted.first().map(|value| value.mark.offset);
        oldest.or(self.frames.front().map(|frame| frame.offset)).unwrap_or(u64::MAX)
    }

    /// Bytes that the slowest shard has yet to fan out.
    pub(super) fn unsent_bytes(&self) -> u64 {
        self.tail - self.fanned_out()
    }

    /// One subscriber of a shard more, on its way there.
    pub(super) fn watch_from(&mut self, shard: usize, view: &View) -> Arc<Watch> {
        let known = self.watches.iter().find(|watch| watch.shard == shard && watch.view == *view).cloned();
        let watch = known.unwrap_or_else(|| {
            let watch = Arc::new(Watch::new(shard, self.tail, view.clone()));
            self.watches.push(Arc::clone(&watch));
            watch
        });
        watch.subscribers.fetch_add(1, Ordering::Relaxed);
        watch.joining.fetch_add(1, Ordering::AcqRel);
        watch
    }

    /// `tell` hears of each shard that watches and does not know yet that it has grown.
    pub(super) fn tell(&self, tell: impl FnMut(&Arc<Watch>)) {
        self.watches.iter().filter(|watch| watch.append(self.tail)).for_each(tell);
    }

    /// The eyes of those whose view has the frame that ends here; of one that is gone, of all.
    pub(super) fn watches_of_frame(&self, end: u64) -> impl Iterator<Item = &Arc<Watch>> {
        let at = self.frames.partition_point(|frame| frame.end < end);
        let mark = self.frames.get(at).filter(|mark| mark.end == end);
        let has = move |watch: &&Arc<Watch>| mark.is_none_or(|mark| watch.view.has(mark, self.noted.tags_at(end)));
        self.watches.iter().filter(has)
    }

    pub(super) fn fanned_out(&self) -> u64 {
        let fanned_out = self.watches.iter().map(|watch| watch.cursor()).min().unwrap_or(self.tail);
        self.held.map_or(fanned_out, |held| held.1.min(fanned_out))
    }

    /// Appends one frame and gives up what nobody needs or the bounds no longer allow.
    ///
    /// Its key has been noted; `replaced` is the offset of the publication that it replaces, or 0.
    pub(super) fn append(
        &mut self,
        frame: &[u8],
        mark: FrameMark,
        replaced: u64,
        settings: &ChannelSettings,
        keys: &Keys,
    ) {
        if replaced != 0 && replaced <= self.head.offset {
            self.compacted.note_replaced(replaced, keys);
        }
        if mark.kind == FrameKind::Removal && self.keyframe.is_some_and(|(_, keyframe)| keyframe.key == mark.key) {
            self.keyframe = None; // nobody begins with what has ended
        }
        self.trim(settings, keys, &mark);
        if mark.is_beginning() {
            self.keyframe = Some((self.tail, mark));
        }
        self.write(frame, mark);
    }

    /// Takes a frame in behind the last one.
    fn write(&mut self, frame: &[u8], mark: FrameMark) {
        self.make_room(frame.len());
        let (segment, filled) = self.segments.back_mut().expect("make_room left a segment with room");
        segment.write(*filled, frame);
        *filled += frame.len();
        self.tail += frame.len() as u64;
        self.special += usize::from(mark.is_special());
        self.frames.push_back(FrameMark { end: self.tail, ..mark });
        if let Some(coded) = &mut self.coded {
            coded.note_frame();
        }
    }

    /// Marks that publications up to this number are missing here, and, of a new life, that nothing before it is for who comes.
    pub(super) fn append_gap(&mut self, mark: FrameMark, is_new_life: bool, settings: &ChannelSettings, keys: &Keys) {
        let mark = FrameMark { kind: FrameKind::Gap, expires_ns: u64::MAX, ..mark };
        self.append(&[0], mark, 0, settings, keys); // of one byte, so that it has a place of its own
        (self.keyframe, self.gap) = (None, Edge { position: self.tail, offset: mark.offset });
        if is_new_life {
            self.life = self.gap;
        }
    }

    /// Takes over a frame that another log has let go of; before anything is appended.
    pub(super) fn append_compacted(&mut self, frame: &[u8], mark: FrameMark, besides: &Besides) {
        let start = self.tail;
        self.tail += frame.len() as u64;
        (self.head.position, self.whole_from) = (self.tail, self.tail);
        self.compacted.push(FrameMark { end: self.tail, ..mark }, start, frame, besides.clone());
    }

    /// As another log had it that let go of it; before any frame.
    pub(super) fn restore_value(&mut self, start: u64, mark: FrameMark, frame: &[u8], besides: Besides) {
        self.compacted.push(mark, start, frame, besides);
    }

    /// Frames begin here, as in another log.
    pub(super) fn begin_at(&mut self, head: Edge, whole_from: u64) {
        (self.head, self.whole_from, self.tail) = (head, whole_from, head.position);
    }

    /// As another log has it, behind the one before: nothing is let go of.
    pub(super) fn restore_frame(&mut self, frame: &[u8], mark: FrameMark, besides: &Besides) {
        self.write(frame, mark);
        self.note_last(frame.len(), besides);
    }

    /// What is to be known of the frame that was appended last.
    pub(super) fn note_last(&mut self, frame_bytes: usize, besides: &Besides) {
        self.noted.note((self.tail - frame_bytes as u64, self.tail), besides);
    }

    /// What is kept: frames, and what is known of them.
    pub(super) fn kept_bytes(&self) -> u64 {
        self.tail - self.head.position + self.noted.bytes()
    }

    /// Makes the last segment one with room for `bytes`: the one in use, the same begun anew, or a new one.
    fn make_room(&mut self, bytes: usize) {
        let last = self.segments.back().map_or(0, |(segment, _)| segment.capacity());
        let is_empty = self.head.position == self.tail;
        let kept = (self.tail - self.head.position) as usize + bytes;
        let is_too_large = self.sizing.is_too_large(last, kept);
        if let Some((segment, filled)) = self.segments.back_mut().filter(|_| !is_too_large) {
            if is_empty
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
        if is_empty {
            self.segments.clear();
        }
        if is_too_large {
            self.frames.shrink_to(2 * self.frames.len());
        }
        let capacity = Sizing::next(if is_too_large { 0 } else { last }, kept).max(bytes);
        self.segments.push_back((Arc::new(Segment::new(self.tail, capacity)), 0));
    }

    /// How many kept frames end at this place or before.
    pub(super) fn frames_until(&self, position: u64) -> usize {
        self.frames.partition_point(|frame| frame.end <= position)
    }

    /// Number of the publication before a place: exact while the log remembers it, else of the oldest that it does.
    pub(super) fn offset_before(&self, position: u64) -> u64 {
        if position >= self.whole_from {
            let behind = self.frames_until(position);
            return behind.checked_sub(1).map_or(self.head.offset, |last| self.frames[last].offset);
        }
        let last = self.gone.partition_point(|edge| edge.position <= position).saturating_sub(1);
        self.gone.get(last).map_or(self.head.offset, |edge| edge.offset)
    }
}

pub(super) fn is_older(frame: &FrameMark, age: Duration, now_ns: u64) -> bool {
    u128::from(now_ns.saturating_sub(frame.published_ns)) > age.as_nanos()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::policy::Policy;
    use super::super::reading::{Reader, Run};
    use super::super::segment::SEGMENT_BYTES_MIN;
    use super::super::view::View;
    use super::*;
    use crate::connection_id::ConnectionId;

    fn bounds(backlog_bytes: u64, backlog_frames: usize) -> ChannelSettings {
        ChannelSettings { backlog_bytes, backlog_frames, ..ChannelSettings::default() }
    }

    fn wide() -> ChannelSettings {
        bounds(1 << 20, 1 << 20)
    }

    fn append(log: &mut Log, frame: &[u8], expires_ns: u64, settings: &ChannelSettings) {
        let mark = FrameMark { expires_ns, offset: log.tail_offset() + 1, ..FrameMark::default() };
        log.append(frame, mark, 0, settings, &Keys::default());
    }

    fn reader(policy: Policy, keys: &Keys, conflates: bool, now_ns: u64) -> Reader<'_> {
        let (view, is_late) = (const { &View { filter: None } }, conflates);
        Reader { policy, keys, view, conflates, is_late, is_at_keyframe: false, takes_all: false, now_ns }
    }

    fn read(log: &Log, cursor: u64, to: u64, now_ns: u64) -> Run {
        log.read(cursor, to, reader(Policy::Every, &Keys::default(), false, now_ns))
    }
    fn append_excluding(log: &mut Log, frame: &[u8], excluded: &Arc<[ConnectionId]>, settings: &ChannelSettings) {
        append(log, frame, u64::MAX, settings);
        log.note_last(frame.len(), &not_for(excluded));
    }

    fn not_for(excluded: &Arc<[ConnectionId]>) -> Besides {
        Besides { excluded: Some(Arc::clone(excluded)), tags: None }
    }

    fn text(run: &Run) -> Vec<u8> {
        run.slices.iter().flat_map(|slice| slice.bytes().to_vec()).collect()
    }

    fn watched(log: &mut Log) -> Arc<Watch> {
        let watch = Arc::new(Watch::new(0, log.tail(), View::default()));
        log.watches.push(Arc::clone(&watch));
        watch
    }

    /// However many frames are not for a laggard, one look at them is short, and each comes to it once and in order.
    #[test]
    fn one_read_comes_past_a_bounded_number_of_exclusions() {
        let (mut log, settings) = (Log::default(), wide());
        let _watch = watched(&mut log);
        let id = ConnectionId::from_bits(7);
        let (own, others) = (Arc::from([id]), Arc::from([ConnectionId::from_bits(8)]));
        for turn in 0..5_000_u32 {
            append_excluding(&mut log, b"own", &own, &settings);
            append_excluding(&mut log, &turn.to_be_bytes(), &others, &settings);
        }
        let (mut cursor, mut got, mut frames) = (0, Vec::new(), 0);
        while cursor < log.tail() {
            let mut run = read(&log, cursor, log.tail(), 0);
            assert!(run.end > cursor && run.exclusions.len() <= 1_024, "{}", run.exclusions.len());
            run.exclude(id);
            got.extend(text(&run));
            frames += run.frames;
            cursor = run.end;
        }
        let all: Vec<u8> = (0..5_000_u32).flat_map(u32::to_be_bytes).collect();
        assert!(got == all && frames == 5_000, "{frames}");
    }

    /// Lists of the excluded are kept with the frames, and so they are within the bound; the same one again costs nothing.
    #[test]
    fn lists_of_the_excluded_count_as_backlog() {
        let settings = bounds(100_000, 1 << 20);
        let list = |first: u64| (first..first + 1_000).map(ConnectionId::from_bits).collect::<Arc<[_]>>();
        for (step, kept) in [(0, 1_000), (1, 13)] {
            let mut log = Log::default();
            let _laggard = watched(&mut log);
            for turn in 0..1_000 {
                log.watches[0].advance(log.tail(), 0);
                append_excluding(&mut log, b"x", &list(turn * step), &settings);
            }
            assert_eq!(log.frames.len(), kept);
            let lists: std::collections::HashSet<_> =
                log.noted.exclusions.iter().map(|one| one.excluded.as_ptr()).collect();
            assert_eq!(log.noted.bytes(), lists.len() as u64 * 8_000);
            log.watches[0].advance(log.tail(), log.tail());
            append(&mut log, b"x", u64::MAX, &settings);
            assert_eq!((log.noted.bytes(), log.noted.exclusions.len()), (0, 0));
        }
    }

    /// So they do with the newest values of keys, which stay when the log lets go of them.
    #[test]
    fn lists_of_the_excluded_count_with_the_values_of_keys() {
        let base = bounds(100_000, 1 << 20);
        let settings = ChannelSettings { policy: Policy::Latest, history_frames: 1, ..base };
        let (mut log, mut keys) = (Log::default(), Keys::default());
        for offset in 1..1_000 {
            let (key, replaced) = keys.note(Some(&offset.to_string()), offset);
            let mark = FrameMark { offset, key, expires_ns: u64::MAX, ..FrameMark::default() };
            log.append(b"frame", mark, replaced, &settings, &keys);
            let list = (offset..offset + 1_000).map(ConnectionId::from_bits).collect::<Arc<[_]>>();
            log.note_last(5, &not_for(&list));
        }
        assert_eq!((log.compacted.count(), log.compacted.bytes()), (12, 12 * 8_005));
        assert_eq!(log.noted.bytes(), 8_000 * log.frames.len() as u64);
    }

    /// It stayed as large as its largest burst.
    #[test]
    fn a_quiet_log_begins_its_only_segment_anew_and_takes_no_more_than_it_has_to() {
        let mut log = Log::default();
        let watch = watched(&mut log);
        for burst in [1, 1_000] {
            for _ in 0..burst {
                append(&mut log, &[7; 100], u64::MAX, &wide());
            }
            for _ in 0..10_000 {
                watch.advance(log.tail(), log.tail());
                append(&mut log, &[7; 100], u64::MAX, &wide());
            }
            assert_eq!(log.segments.iter().map(|one| one.0.capacity()).collect::<Vec<_>>(), [SEGMENT_BYTES_MIN]);
            assert!(log.frames.len() == 1 && log.frames.capacity() <= 4);
        }
    }

    /// What newcomers begin with grew with all that had ever come.
    #[test]
    fn a_log_that_is_never_empty_takes_no_more_than_it_has_to() {
        let mut log = Log::default();
        let watch = watched(&mut log);
        for _ in 0..10_000 {
            append(&mut log, &[7; 100], u64::MAX, &wide());
            watch.advance(log.tail() - 100, log.tail() - 100);
        }
        assert!(log.segments.iter().all(|one| one.0.capacity() == SEGMENT_BYTES_MIN) && log.segments.len() <= 2);
    }

    #[test]
    fn a_slice_keeps_its_bytes_while_the_log_goes_on() {
        let mut log = Log::default();
        let watch = watched(&mut log);
        append(&mut log, b"first", u64::MAX, &wide());
        let run = read(&log, 0, 5, 0);
        watch.advance(5, 5);
        for _ in 0..5_000 {
            append(&mut log, b"later", u64::MAX, &wide());
            watch.advance(log.tail(), log.tail());
        }
        assert_eq!(text(&run), b"first");
    }

    #[test]
    fn the_bound_overtakes_laggards_but_never_what_is_not_fanned_out() {
        let bounds = bounds(50, 1_000);
        let mut log = Log::default();
        let watch = watched(&mut log);
        for _ in 0..20 {
            append(&mut log, &[0; 10], u64::MAX, &bounds);
        }
        assert_eq!((log.head.position, log.unsent_bytes()), (0, 200));
        watch.advance(200, 0); // fanned out, with a laggard at 0
        append(&mut log, &[0; 10], u64::MAX, &bounds);
        assert!(log.head.position >= 150 && log.head.position <= 200, "{}", log.head.position);
        let run = read(&log, 0, 200, 0);
        assert!(run.slices.is_empty() && run.head > 0);
    }

    /// They were kept as long as the oldest value of any key, which may never change.
    #[test]
    fn exclusions_go_with_their_frames() {
        let settings = ChannelSettings { policy: Policy::Latest, history_frames: 1, ..ChannelSettings::default() };
        let (mut log, mut keys) = (Log::default(), Keys::default());
        let excluded: Arc<[ConnectionId]> = Arc::from([ConnectionId::from_bits(1)]);
        for offset in 1..1_000 {
            let (key, replaced) = keys.note(Some(if offset == 1 { "still" } else { "moves" }), offset);
            let mark = FrameMark { offset, key, expires_ns: u64::MAX, ..FrameMark::default() };
            log.append(b"frame", mark, replaced, &settings, &keys);
            log.note_last(5, &not_for(&excluded));
        }
        assert!(log.noted.exclusions.len() <= 2, "{} are kept", log.noted.exclusions.len());
        let reader = reader(Policy::Latest, &keys, true, 0);
        let run = log.read(0, log.tail(), reader);
        assert_eq!((run.frames, run.exclusions.len()), (2, 2), "those of both keys' newest");
    }

    #[test]
    fn what_has_expired_is_left_out() {
        let mut log = Log::default();
        let _watch = watched(&mut log);
        append(&mut log, b"aa", 10, &wide());
        append(&mut log, b"bb", u64::MAX, &wide());
        append(&mut log, b"cc", 5, &wide());
        append(&mut log, b"dd", u64::MAX, &wide());
        let run = read(&log, 0, 8, 7);
        assert_eq!(text(&run), b"aabbdd");
        assert_eq!((run.frames, run.expired, run.end), (3, 1, 8));
        assert_eq!(text(&read(&log, 0, 8, 10)), b"bbdd");
    }

    #[test]
    fn a_frame_end_is_found_from_any_byte_of_it() {
        let mut log = Log::default();
        let _watch = watched(&mut log);
        append(&mut log, b"abc", u64::MAX, &wide());
        append(&mut log, b"de", u64::MAX, &wide());
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
            let bounds = bounds(60_000, 40);
            let mut log = Log::default();
            let watch = watched(&mut log);
            let mut model: Vec<(u64, u8, usize)> = Vec::new(); // start, filling byte, length
            let (mut cursor, mut laggard) = (0, 0);
            for (index, (bytes, action, pick)) in steps.into_iter().enumerate() {
                let fill = index as u8;
                model.push((log.tail(), fill, bytes));
                append(&mut log, &vec![fill; bytes], u64::MAX, &bounds);
                if action == 0 { cursor = log.tail(); }
                if action == 1 { cursor = log.tail(); laggard = cursor; }
                watch.advance(cursor, laggard);
                prop_assert!(log.head.position <= cursor);
                let from = model[usize::from(pick) % model.len()].0;
                let run = read(&log, from, log.tail(), 0);
                if from < log.head.position {
                    prop_assert!(run.slices.is_empty());
                } else {
                    let expected: Vec<u8> = model.iter().filter(|frame| frame.0 >= from)
                        .flat_map(|frame| std::iter::repeat_n(frame.1, frame.2)).collect();
                    let mut bytes_read = text(&run);
                    let (mut frames, mut end) = (run.frames, run.end);
                    while end < log.tail() {
                        let more = read(&log, end, log.tail(), 0);
                        bytes_read.extend(text(&more));
                        frames += more.frames;
                        end = more.end;
                    }
                    prop_assert_eq!(bytes_read, expected);
                    prop_assert_eq!(frames, model.iter().filter(|frame| frame.0 >= from).count() as u64);
                }
            }
        }
    }
}
