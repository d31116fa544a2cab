//! What a channel holds, for the simulation.
use super::Channel;
use super::log::Log;
use crate::protocol::LogId;

impl Channel {
    /// The number of the publication before the oldest one that a format's log holds.
    pub(crate) fn offset_before_head(&self, id: LogId) -> u64 {
        let inner = self.lock();
        inner.logs.of(id).map_or(inner.offset, |log| log.head.offset)
    }

    /// After everyone has read all but the last publication, unless somebody lags: nothing is kept but what was asked for.
    pub(crate) fn check_memory(&self, is_lagging: bool) {
        let settings = self.settings();
        let held = |log: &Log| {
            let is_bare = settings.history_frames == 0 && log.newest_keyframe().is_none() && !is_lagging;
            (is_bare, log.frames.len(), log.compacted.count(), log.compacted.bytes())
        };
        let inner = self.lock();
        let logs = inner.logs.iter().map(|one| one.1).chain(inner.stored.as_deref());
        let all: Vec<_> = logs.map(held).collect();
        drop(inner);
        for (is_bare, frames, count, bytes) in all {
            assert!(!is_bare || (frames <= 1 && count == 0), "{frames} frames are kept");
            let frames_max = settings.backlog_frames.max(2 * settings.history_frames) + 1;
            assert!(frames <= frames_max, "{frames} frames of {frames_max}");
            assert!(count <= settings.backlog_frames, "{count} are kept apart");
            assert!(bytes <= settings.backlog_bytes, "{bytes} bytes are kept apart");
        }
    }

    /// Once everyone has left: no log is left, and no key once it is let go of.
    pub(crate) fn check_left(&self) {
        let mut inner = self.lock();
        inner.keys.sweep(u64::MAX);
        let (is_empty, is_due) = (inner.logs.iter().next().is_none(), inner.keys.is_sweep_due());
        drop(inner);
        assert!(is_empty && !is_due && self.occupancy() == 0);
    }
}
