//! Where a subscriber begins in a log, and where it goes on when the log no longer holds what it needs.
use super::log::{Log, is_older};
use super::mark::{Edge, FrameKind, FrameMark};
use super::policy::{Mode, Policy};
use crate::settings::ChannelSettings;

impl Log {
    /// Where one goes on that has everything up to publication `offset`; `None` if something behind it is not here.
    pub(super) fn seek_offset(&self, offset: u64, settings: &ChannelSettings, now_ns: u64) -> Option<(Edge, Mode)> {
        if offset < self.gap.offset {
            return None;
        }
        if offset >= self.tail_offset() {
            return (offset == self.tail_offset()).then_some((Edge { position: self.tail, offset }, Mode::Replaying));
        }
        if offset >= self.head.offset {
            let first = self.frames.partition_point(|frame| frame.offset <= offset);
            let is_stale = self.frames.get(first).is_some_and(|frame| is_older(frame, settings.history_age, now_ns));
            if !is_stale {
                return Some((Edge { position: self.start_of(first), offset }, Mode::Replaying));
            }
        }
        if settings.policy == Policy::Latest && offset >= self.lost.offset.max(self.compacted.forgotten()) {
            let compacted = self.compacted.behind(offset).next().map(|value| value.start());
            let position =
                compacted.unwrap_or_else(|| self.start_of(self.frames.partition_point(|frame| frame.offset <= offset)));
            return Some((Edge { position, offset }, Mode::Lagging));
        }
        None
    }

    /// The oldest place where one may begin.
    pub(super) fn seek_oldest(&self, settings: &ChannelSettings, now_ns: u64) -> (Edge, Mode) {
        if settings.policy == Policy::Latest {
            let first = self.compacted.from(self.life.position).next();
            let head = if self.life.position > self.head.position { self.life } else { self.head };
            let position = first.map_or(head.position, |value| value.start());
            let offset = first.map_or(head.offset, |value| value.mark.offset - 1);
            return (Edge { position, offset }, Mode::Lagging);
        }
        let is_over =
            |frame: &FrameMark| frame.end <= self.gap.position || is_older(frame, settings.history_age, now_ns);
        let mut first = self.frames.partition_point(is_over);
        while self.frames.get(first).is_some_and(|frame| frame.kind == FrameKind::Snapshot) {
            first += 1; // it is not for this one, which would be overtaken for its sake
        }
        let position = self.start_of(first);
        (Edge { position, offset: self.offset_before(position) }, Mode::Replaying)
    }

    /// The newest keyframe, if its time is not over: where it begins, and its mark.
    pub(super) fn living_keyframe(&self, now_ns: u64) -> Option<(Edge, FrameMark)> {
        self.newest_keyframe().filter(|(_, mark)| mark.expires_ns > now_ns)
    }

    /// The newest keyframe: where it begins, and its mark.
    pub(super) fn newest_keyframe(&self) -> Option<(Edge, FrameMark)> {
        let (position, mark) = self.keyframe.filter(|(start, _)| *start >= self.head.position)?;
        let before = mark.offset - u64::from(mark.kind == FrameKind::Keyframe);
        Some((Edge { position, offset: before }, mark))
    }

    pub(super) fn start_of(&self, index: usize) -> u64 {
        index.checked_sub(1).map_or(self.head.position, |before| self.frames[before].end)
    }
}
