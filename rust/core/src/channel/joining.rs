//! Who watches a channel: counted in, from where they begin, and out.
use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::compacted::Value;
use super::log::Log;
use super::mark::{Edge, FrameKind, FrameMark};
use super::policy::{Mode, Origin, Policy, Seek, Start};
use super::reading::{Reader, Run};
use super::segment::Slice;
use super::stand::Life;
use super::tags::Tags;
use super::view::View;
use super::watch::Watch;
use super::{Channel, Inner, stored};
use crate::error::EngineError;
use crate::position::Position;
use crate::protocol::{Coding, Format, Formats, Framing, LogId, write_frame};

/// A subscription on its way to its shard: whoever drops it gives it back.
#[derive(Debug)]
pub struct Watched {
    pub(crate) channel: Arc<Channel>,
    pub(crate) log: LogId,
    pub(crate) watch: Arc<Watch>,
    /// Where the log ended when it was asked for: what comes behind it reaches the subscriber in any case.
    pub(crate) cursor: u64,
    /// The same place in the logs of the other formats that the subscriber may come to speak.
    others: Vec<Pin>,
    is_kept: bool,
}

/// A place in the log of one format, at which that is held.
type Pin = (Format, Arc<Watch>, u64);

/// Where the logs of some formats ended at one moment.
pub type Tails = SmallVec<[Tail; 1]>;

/// Where those of one format did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The format.
    pub format: Format,
    /// Where the one ended whose frames are not compressed.
    pub end: u64,
    /// The number of the newest publication: the others ended behind that.
    pub number: u64,
}

impl Watched {
    /// The same place in the log of the format that the subscriber turned out to speak, and in no other one; `None` where
    /// it was not one of those that it might.
    pub(crate) fn in_format(mut self, format: Format) -> Option<Self> {
        let mut others = std::mem::take(&mut self.others);
        if self.log.format != format {
            let found = others.iter_mut().find(|pin| pin.0 == format);
            if let Some(pin) = found {
                let this = (&mut self.log.format, &mut self.watch, &mut self.cursor);
                std::mem::swap(this.0, &mut pin.0);
                std::mem::swap(this.1, &mut pin.1);
                std::mem::swap(this.2, &mut pin.2);
            }
        }
        self.let_go(&others);
        (self.log.format == format).then_some(self)
    }

    fn let_go(&self, pins: &[Pin]) {
        for (format, watch, _) in pins {
            watch.joining.fetch_sub(1, Ordering::AcqRel);
            self.channel.unpin((*format).into(), watch);
        }
    }

    /// The shard has taken note of its cursor and calls [`Channel::unwatch`] in its time.
    pub(crate) fn keep(mut self) {
        self.is_kept = true;
        self.watch.joining.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.let_go(&self.others);
        if !self.is_kept {
            self.watch.joining.fetch_sub(1, Ordering::AcqRel);
            self.channel.unwatch(self.log, &self.watch);
        }
    }
}

/// Where an overtaken cursor goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overtaken {
    /// Nowhere: the policy promised every publication.
    Close,
    /// Here, having lost so many publications.
    Skip(u64, Mode, u64),
}

impl Channel {
    /// Counts a subscriber of `shard` in, from the tail on, in whichever of `formats` it turns out to speak.
    ///
    /// `None` without any: it is gone.
    pub(crate) fn watch(self: &Arc<Self>, formats: Formats, shard: usize) -> Option<Watched> {
        self.watch_in(&mut self.lock(), formats, shard, &View::default())
    }

    /// As [`watch`](Self::watch), what is in this view.
    ///
    /// # Errors
    /// [`EngineError::LimitReached`] where the channel has `filters_max` others.
    pub(crate) fn watch_view(
        self: &Arc<Self>,
        formats: Formats,
        shard: usize,
        view: &View,
    ) -> Result<Option<Watched>, EngineError> {
        let mut inner = self.lock();
        let view = inner.logs.known_view(view, self.settings.filters_max)?;
        Ok(self.watch_in(&mut inner, formats, shard, &view))
    }

    /// Whether one more may watch what is in this view.
    ///
    /// # Errors
    /// [`EngineError::LimitReached`] where the channel has `filters_max` others.
    pub(crate) fn check_view(&self, view: &View) -> Result<(), EngineError> {
        self.lock().logs.known_view(view, self.settings.filters_max).map(|_| ())
    }

    pub(super) fn watch_in(
        self: &Arc<Self>,
        inner: &mut Inner,
        formats: Formats,
        shard: usize,
        view: &View,
    ) -> Option<Watched> {
        let mut pins = formats.iter().map(|format| self.pin(inner, format, (shard, view)));
        let (format, watch, cursor) = pins.next()?;
        let others = pins.collect();
        Some(self.watched(format.into(), watch, cursor, others))
    }

    /// Counts a subscriber of the channel in, whom the log has counted.
    pub(super) fn watched(self: &Arc<Self>, log: LogId, watch: Arc<Watch>, cursor: u64, others: Vec<Pin>) -> Watched {
        self.subscribers.fetch_add(1, Ordering::Relaxed);
        Watched { channel: Arc::clone(self), log, watch, cursor, others, is_kept: false }
    }

    fn pin(&self, inner: &mut Inner, format: Format, (shard, view): (usize, &View)) -> Pin {
        let bit = Formats::from(format).to_bits();
        if self.common.formats_seen.load(Ordering::Relaxed) & bit == 0 {
            self.common.formats_seen.fetch_or(bit, Ordering::Relaxed);
        }
        // What a view leaves out would be missing in a shared compressor's stream: its log is a plain one.
        if inner.logs.of(format).is_none() {
            let log = self.begin_log(inner, format);
            inner.logs.begin(format.into(), log);
        }
        let log = inner.logs.of_mut(format).expect("made above");
        let (tail, watch) = (log.tail(), log.watch_from(shard, view));
        self.formats.fetch_or(bit, Ordering::Release);
        (format, watch, tail)
    }

    /// A log for the first subscriber of a format: with what is stored, framed.
    fn begin_log(&self, inner: &Inner, format: Format) -> Log {
        let stored = inner.stored.as_ref().filter(|_| inner.beginning().is_none());
        let Some(stored) = stored else { return Log::behind(inner.offset) };
        let life = stored.life.position; // what is before it is for nobody who comes
        let head = if life > stored.head.position { stored.life } else { stored.head };
        let mut log = Log::behind(head.offset);
        (log.lost.offset, log.gap.offset) = (stored.lost.offset.max(stored.life.offset), stored.gap.offset);
        let mut frame = Vec::new();
        let names = inner.keys.names();
        let write = |mark: FrameMark, tags: Tags<'_>, form: &Slice, frame: &mut Vec<u8>| {
            let (payload, event) = stored::read(form.bytes());
            frame.clear();
            let key = names.get(&mark.key).copied();
            if self.write_for_edges(format, inner, (&payload, event, key), (&mark, tags), frame) {
                return Ok(());
            }
            write_frame(format, &payload, event, self.stamp(&mark, self.life(inner).position_of(mark.offset)), frame)
        };
        let is_newest = |value: &&Value| stored.compacted.is_current(&value.mark, &inner.keys);
        for value in stored.compacted.from(life).filter(is_newest) {
            match write(value.mark, value.besides.tags(), &value.frame, &mut frame) {
                Ok(()) => log.append_compacted(&frame, value.mark, &value.besides),
                Err(_) => log = Log::behind(value.mark.offset), // it was kept before anyone spoke this encoding
            }
        }
        log.head.offset = head.offset;
        for (mark, form) in frames_of(stored).filter(|(_, form)| form.position() >= life) {
            if mark.kind == FrameKind::Gap {
                log.append_gap(mark, false, &self.settings, &inner.keys);
                continue;
            }
            match write(mark, stored.noted.tags_at(mark.end), &form, &mut frame) {
                Ok(()) => {
                    log.append(&frame, mark, 0, &self.settings, &inner.keys);
                    log.note_last(frame.len(), &stored.noted.of(mark.end));
                }
                Err(_) => log = Log::behind(mark.offset),
            }
        }
        log.compacted.forget_as(&stored.compacted);
        log
    }

    /// Counts a subscriber out. True when it was the shard's last: the shard forgets what it kept for the log.
    pub(crate) fn unwatch(&self, id: impl Into<LogId>, watch: &Arc<Watch>) -> bool {
        self.subscribers.fetch_sub(1, Ordering::Relaxed);
        self.unpin(id.into(), watch)
    }

    fn unpin(&self, id: LogId, watch: &Arc<Watch>) -> bool {
        let mut inner = self.lock();
        if watch.subscribers.fetch_sub(1, Ordering::Relaxed) > 1 {
            return false;
        }
        if let Some(log) = inner.logs.of_mut(id) {
            log.watches.retain(|other| !Arc::ptr_eq(other, watch));
            if log.watches.is_empty() && inner.logs.let_go(id) {
                self.formats.fetch_and(!Formats::from(id.format).to_bits(), Ordering::Release);
            }
        }
        true
    }

    /// Where a subscriber that wants to begin at `origin`, and asked for it when the log ended at `tail`, does begin.
    pub(crate) fn seek(&self, format: Format, origin: Origin, tail: u64, now_ns: u64) -> Seek {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let life = Life::of(self.epoch, inner.life.as_deref());
        let known = origin.since.and_then(|since| life.number_of(since));
        let Some(log) = inner.logs.of(format) else {
            let position = life.position_of(inner.offset);
            let recovered = origin.since.map(|since| since == position);
            return Seek { cursor: tail, mode: Mode::Lagging, position, recovered, asks: false };
        };
        let at = |(edge, mode): (Edge, Mode), recovered, asks| {
            let position = life.position_of(edge.offset);
            Seek { cursor: edge.position, mode, position, recovered, asks }
        };
        let mut recovered = None;
        if origin.since.is_some() {
            if let Some(found) = known.and_then(|number| log.seek_offset(number, &self.settings, now_ns)) {
                return at(found, Some(true), false);
            }
            recovered = Some(false);
        }
        let live = (Edge { position: tail, offset: log.offset_before(tail) }, Mode::Replaying);
        match origin.start.unwrap_or(self.settings.start) {
            Start::Live => at(live, recovered, false),
            Start::History => at(log.seek_oldest(&self.settings, now_ns), recovered, false),
            Start::Keyframe => match (log.living_keyframe(now_ns), self.settings.snapshot_interval) {
                (Some((edge, mark)), interval) if interval.is_none_or(|max| is_fresh(&mark, max, now_ns)) => {
                    at((edge, Mode::AtKeyframe), recovered, false)
                }
                (_, None) => at(live, recovered, false),
                (_, Some(_)) => {
                    let asks = !std::mem::replace(&mut inner.is_snapshot_awaited, true);
                    at((live.0, Mode::AwaitingKeyframe), recovered, asks)
                }
            },
        }
    }

    /// Where a cursor that waits for a keyframe goes on, once there is one, and how many publications pass it by until then.
    pub(crate) fn keyframe_from(
        &self,
        id: impl Into<LogId>,
        view: &View,
        cursor: u64,
        now_ns: u64,
    ) -> Option<(u64, u64)> {
        let inner = self.lock();
        let log = inner.logs.of(id)?;
        let (edge, _) = log.living_keyframe(now_ns)?;
        (edge.position >= cursor).then(|| (edge.position, log.lost_between(cursor, edge.position, view)))
    }

    /// What the policy says of a cursor that was overtaken, while its shard has fanned out up to `tail`.
    ///
    /// It may be one whose keyframe is gone, or its time is over, and nothing else: of policy `latest` that has lost nothing
    /// yet, and in others it waits for the next one.
    pub(crate) fn overtaken(
        &self,
        id: impl Into<LogId>,
        view: &View,
        (cursor, mode): (u64, Mode),
        tail: u64,
        now_ns: u64,
    ) -> Overtaken {
        let inner = self.lock();
        let Some(log) = inner.logs.of(id) else { return Overtaken::Skip(tail, Mode::Lagging, 0) };
        self.overtaken_in(log, view, (cursor, mode), tail, now_ns)
    }

    /// As [`overtaken`](Self::overtaken), in this log of the channel.
    pub(super) fn overtaken_in(
        &self,
        log: &Log,
        view: &View,
        (cursor, mode): (u64, Mode),
        tail: u64,
        now_ns: u64,
    ) -> Overtaken {
        let lost = |to| log.lost_between(cursor, to, view);
        // At one that its shard is yet to come past it would take the place of those at the tail.
        let is_ahead = |edge: &Edge| {
            // One that waits for a keyframe may stand where that begins.
            let begins_there = mode == Mode::AwaitingKeyframe && edge.position == cursor;
            (edge.position > cursor || begins_there) && edge.position < tail
        };
        let keyframe = || log.living_keyframe(now_ns).map(|(edge, _)| edge).filter(is_ahead);
        let at_keyframe = || match keyframe() {
            Some(edge) => Overtaken::Skip(edge.position, Mode::AtKeyframe, lost(edge.position)),
            None => Overtaken::Skip(tail, Mode::AwaitingKeyframe, lost(tail)),
        };
        // It has lost nothing but its keyframe.
        let is_newcomer = mode == Mode::AtKeyframe && cursor >= log.overtaken_before(self.settings.policy);
        match self.settings.policy {
            _ if mode == Mode::AwaitingKeyframe => at_keyframe(),
            Policy::Latest if is_newcomer => match (keyframe(), self.settings.snapshot_interval) {
                (Some(edge), _) => Overtaken::Skip(edge.position, Mode::AtKeyframe, 0),
                (None, Some(_)) => Overtaken::Skip(tail, Mode::AwaitingKeyframe, 0),
                (None, None) => Overtaken::Skip(cursor, Mode::Lagging, 0),
            },
            // The bounds have not taken that from it: its time is over. It waits where it is, so that nothing behind it is lost
            // where there is none to be had.
            _ if is_newcomer && !log.lacks_keyframe(cursor) => match keyframe() {
                Some(edge) => Overtaken::Skip(edge.position, Mode::AtKeyframe, lost(edge.position)),
                None => Overtaken::Skip(cursor, Mode::AwaitingKeyframe, 0),
            },
            Policy::Every | Policy::Latest => Overtaken::Close,
            Policy::Drop if let Some(end) = log.gap_at(cursor, Policy::Drop) => {
                Overtaken::Skip(end, Mode::Lagging, lost(end))
            }
            Policy::Drop => Overtaken::Skip(tail, Mode::Lagging, lost(tail)),
            Policy::Keyframe => at_keyframe(),
        }
    }

    /// Only cursors in this log before this place may be overtaken.
    pub(crate) fn may_be_overtaken_before(&self, id: impl Into<LogId>) -> u64 {
        let inner = self.lock();
        inner.logs.of(id).map_or(0, |log| match self.settings.policy {
            Policy::Latest if log.coded.is_none() => log.lost.position,
            _ => log.head.position.max(log.gap.position),
        })
    }

    /// Whether what a cursor in this log needs is not all here.
    pub(crate) fn is_overtaken(&self, id: impl Into<LogId>, cursor: u64, mode: Mode) -> bool {
        let inner = self.lock();
        let Some(log) = inner.logs.of(id) else { return false };
        let policy = self.settings.policy;
        let is_at_gap = mode != Mode::AwaitingKeyframe && log.gap_at(cursor, policy).is_some();
        is_at_gap || cursor < log.overtaken_before(policy) || (mode == Mode::AtKeyframe && log.lacks_keyframe(cursor))
    }

    /// The eyes of one shard on the logs.
    pub(crate) fn watches_in(&self, shard: usize) -> Vec<Arc<Watch>> {
        let inner = self.lock();
        let watches = inner.logs.iter().flat_map(|(_, log)| &log.watches);
        watches.filter(|watch| watch.shard == shard).cloned().collect()
    }

    /// What a shard keeps for a format's logs, of each view that anybody there watches.
    pub(crate) fn feeds_in(&self, format: Format, shard: usize) -> SmallVec<[u32; 4]> {
        let inner = self.lock();
        let logs = inner.logs.iter().filter(|(id, _)| id.format == format);
        let watches = logs.flat_map(|(_, log)| &log.watches).filter(|watch| watch.shard == shard);
        watches.map(|watch| watch.feed.load(Ordering::Relaxed)).filter(|&feed| feed != u32::MAX).collect()
    }

    /// The number of the publication before this place of a log; `None` where the log no longer holds it.
    pub(crate) fn offset_at(&self, id: impl Into<LogId>, position: u64) -> Option<u64> {
        let inner = self.lock();
        match inner.logs.of(id) {
            Some(log) => (position >= log.whole_from).then(|| log.offset_before(position)),
            None => Some(inner.offset),
        }
    }

    /// The position of that publication; `None` also where it is of a life that is over.
    pub(crate) fn position_at(&self, id: impl Into<LogId>, position: u64) -> Option<Position> {
        let number = self.offset_at(id, position)?;
        let inner = self.lock();
        self.life(&inner).has(number).then(|| self.life(&inner).position_of(number))
    }

    /// Whether publications are missing behind this place of a id's log.
    pub(crate) fn has_gap_at(&self, id: impl Into<LogId>, position: u64) -> bool {
        let inner = self.lock();
        inner.logs.of(id).is_some_and(|log| log.gap_at(position, self.settings.policy).is_some())
    }

    /// Where the logs of these formats end now; of one that nobody speaks, at its begin.
    pub(crate) fn tails(&self, formats: Formats) -> Tails {
        let inner = self.lock();
        let end = |format: Format| inner.logs.of(format).map_or(0, |log| log.tail());
        formats.iter().map(|format| Tail { format, end: end(format), number: inner.offset }).collect()
    }

    /// The same moment in any log of that format.
    pub(crate) fn end_in(&self, id: LogId, tail: &Tail) -> u64 {
        match id.coding {
            Coding::Plain => tail.end,
            _ => self.end_of(id, tail.number),
        }
    }

    /// The tail of a format's log.
    #[cfg(test)]
    pub(crate) fn tail(&self, format: Format) -> u64 {
        self.lock().logs.of(format).map_or(0, |log| log.tail())
    }

    /// What lies from `cursor` to `to`; see [`Run`].
    pub(crate) fn read(
        &self,
        id: impl Into<LogId>,
        view: &View,
        (cursor, to): (u64, u64),
        mode: Mode,
        now_ns: u64,
    ) -> Run {
        let (id, inner) = (id.into(), self.lock());
        let is_whole = id.coding != Coding::Plain; // an inflater needs each
        let policy = self.settings.policy;
        let reader = Reader {
            policy,
            keys: &inner.keys,
            view,
            conflates: mode == Mode::Lagging && policy == Policy::Latest && !is_whole,
            is_late: mode != Mode::Live && !is_whole,
            is_at_keyframe: mode == Mode::AtKeyframe,
            takes_all: id.format.framing() == Framing::Edge,
            now_ns,
        };
        match inner.logs.of(id) {
            Some(log) => log.read(cursor, to, reader),
            None => Run { end: cursor, published_ns: now_ns, ..Run::default() },
        }
    }

    /// How many frames of a run's slices end at `to` or before.
    pub(crate) fn frames_until(&self, id: impl Into<LogId>, slices: &[Slice], to: u64) -> u64 {
        let inner = self.lock();
        let Some(log) = inner.logs.of(id) else { return 0 };
        let count = |slice: &Slice| {
            let (start, end) = (slice.position(), slice.position() + slice.bytes().len() as u64);
            match end.min(to) {
                end if end <= start => 0,
                end => log.frames_in(start, end).max(1), // one that has left the log stands alone in its slice
            }
        };
        slices.iter().map(count).sum()
    }

    /// Where the frame ends that holds the byte at `position`.
    pub(crate) fn frame_end(&self, id: impl Into<LogId>, position: u64) -> Option<u64> {
        self.lock().logs.of(id).and_then(|log| log.frame_end(position))
    }
}

/// Counts a subscriber of a shard in to each of these channels, as [`Channel::watch_view`] does.
///
/// # Errors
/// [`EngineError::LimitReached`]: it watches none of them then.
pub(crate) fn watch_all(
    channels: &[Arc<Channel>],
    (formats, shard): (Formats, usize),
    view: &View,
) -> Result<Vec<Watched>, EngineError> {
    channels.iter().filter_map(|channel| channel.watch_view(formats, shard, view).transpose()).collect()
}

/// Frames of a log from its head on, each with its mark.
pub(super) fn frames_of(log: &Log) -> impl Iterator<Item = (FrameMark, Slice)> + '_ {
    let starts = std::iter::once(log.head.position).chain(log.frames.iter().map(|frame| frame.end));
    log.frames.iter().zip(starts).map(|(mark, start)| {
        let mut slices: SmallVec<[Slice; 1]> = SmallVec::new();
        log.push_slices(&mut slices, start, mark.end);
        (*mark, slices.swap_remove(0))
    })
}

/// Whether one may begin at a keyframe instead of asking for another.
fn is_fresh(mark: &FrameMark, age_max: std::time::Duration, now_ns: u64) -> bool {
    mark.kind == FrameKind::Keyframe || u128::from(now_ns.saturating_sub(mark.published_ns)) <= age_max.as_nanos()
}
