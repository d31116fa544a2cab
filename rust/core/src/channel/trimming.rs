//! What a log lets go of: what nobody needs, and what the bounds no longer allow.
use smallvec::SmallVec;

use super::compacted::Compacted;
use super::keys::Keys;
use super::log::{Log, is_older};
use super::mark::{Edge, FrameKind, FrameMark};
use super::policy::Policy;
use super::segment::Slice;
use crate::settings::ChannelSettings;

/// So many frames that laggards lost are remembered, to say how many each has lost.
const GONE_MAX: usize = 4_096;

impl Log {
    /// What the slowest reader needs is behind this place.
    pub(super) fn needed(&self) -> u64 {
        let needed = self.watches.iter().map(|watch| watch.needed()).min().unwrap_or(self.tail);
        self.held.map_or(needed, |held| held.0.min(needed))
    }

    /// Lets go of frames that every cursor has passed, and of those that only laggards over the bound still need. The
    /// history stays, and so does the newest keyframe with what follows it, while that is within the bounds.
    pub(super) fn trim(&mut self, settings: &ChannelSettings, keys: &Keys, next: &FrameMark) {
        let now_ns = next.published_ns;
        let needed = self.needed();
        let fanned_out = self.fanned_out();
        self.compacted.forget_removals(needed, keys); // the oldest first: those that are let go of now are newer
        while let Some(&frame) = self.frames.front() {
            let is_full = self.kept_bytes() > settings.backlog_bytes || self.frames.len() >= settings.backlog_frames;
            let is_over = is_full || is_older(&frame, settings.backlog_age, now_ns);
            let is_needed = frame.end > needed;
            let may_go = !is_needed || (is_over && frame.end <= fanned_out);
            let is_behind_keyframe =
                self.coded.is_none() && self.keyframe.is_some_and(|(start, _)| start <= self.head.position);
            if !may_go || (is_behind_keyframe && !is_full) || self.is_history(&frame, settings, next) {
                break;
            }
            self.let_go(frame, is_needed, settings, keys);
        }
        self.trim_compacted(needed, settings, keys);
        while self.segments.len() > 1 && self.segments[1].0.base() <= self.head.position {
            self.segments.pop_front();
        }
        while self.gone.get(1).is_some_and(|edge| edge.position <= needed) {
            self.gone.pop_front();
        }
        if self.head.position <= needed {
            self.gone.clear();
        }
    }

    /// Whether the oldest frame is kept for who returns, with one more to come.
    fn is_history(&self, oldest: &FrameMark, settings: &ChannelSettings, next: &FrameMark) -> bool {
        // Snapshots count for nothing, as long as they are not the most.
        let publications = next.offset - oldest.offset + 1;
        self.coded.is_none()
            && oldest.kind != FrameKind::Snapshot
            && oldest.end > self.gap.position
            && publications <= settings.history_frames as u64
            && self.frames.len() < 2 * settings.history_frames
            && self.kept_bytes() <= settings.history_bytes
            && !is_older(oldest, settings.history_age, next.published_ns)
    }

    fn let_go(&mut self, oldest: FrameMark, is_needed: bool, settings: &ChannelSettings, keys: &Keys) {
        let edge = Edge { position: oldest.end, offset: oldest.offset };
        let is_current = settings.policy == Policy::Latest
            && self.coded.is_none()
            && !matches!(oldest.kind, FrameKind::Snapshot | FrameKind::Gap)
            && keys.is_newest(oldest.key, oldest.offset);
        let is_removal = oldest.kind == FrameKind::Removal;
        let is_kept = settings.history_frames > 0 && !is_removal && edge.position > self.life.position;
        if is_current && (is_needed || is_kept) {
            let mut frame: SmallVec<[Slice; 1]> = SmallVec::new();
            self.push_slices(&mut frame, self.head.position, oldest.end);
            let besides = self.noted.of(oldest.end);
            self.compacted.push(oldest, frame[0].position(), frame[0].bytes(), besides);
        } else if is_current && is_removal {
            self.compacted.forget_removal(oldest.offset, keys);
        } else if is_current {
            self.lose(edge);
        }
        if is_needed {
            if self.gone.len() >= GONE_MAX {
                self.gone.pop_front();
            }
            if self.gone.back() != Some(&self.head) {
                self.gone.push_back(self.head);
            }
            self.gone.push_back(edge);
        }
        if self.keyframe.is_some_and(|(start, _)| start < edge.position) {
            self.keyframe = None;
        }
        self.noted.let_go(edge.position);
        self.special -= usize::from(oldest.is_special());
        self.head = edge;
        if oldest.kind != FrameKind::Snapshot {
            self.whole_from = edge.position;
        }
        self.frames.pop_front();
        if let Some(coded) = &mut self.coded {
            coded.forget_frame();
        }
    }

    /// A newest of its key is gone that ended here.
    fn lose(&mut self, edge: Edge) {
        if edge.position > self.lost.position {
            self.lost = edge;
        }
    }

    fn trim_compacted(&mut self, needed: u64, settings: &ChannelSettings, keys: &Keys) {
        let is_over = |compacted: &Compacted| {
            compacted.bytes() > settings.backlog_bytes || compacted.count() > settings.backlog_frames
        };
        while let Some(first) = self.compacted.first() {
            let is_for_nobody = settings.history_frames == 0 || first.mark.end <= self.life.position;
            let is_passed = is_for_nobody && first.mark.end <= needed;
            if !is_passed && !is_over(&self.compacted) {
                break;
            }
            if self.compacted.is_current(&first.mark, keys) {
                let edge = Edge { position: first.mark.end, offset: first.mark.offset };
                self.lose(edge);
            }
            self.compacted.pop(keys);
        }
    }
}
