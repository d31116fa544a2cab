//! How far single publications have come, for who asks: reported at the end of a turn in which that changed.
use super::{Io, Shard};
use crate::channel::Run;
use crate::messages::{Command, Event, Progress, Track};

/// A publication that somebody asks about.
#[derive(Debug)]
pub(super) struct Tracked {
    track: Track,
    skipped: u64,
    told: Option<Progress>,
}

impl<I: Io> Shard<I> {
    /// Before anything else is fanned out: who goes past the publication in this turn is counted.
    pub(super) fn track_early(&mut self, command: &Command) {
        if let Command::Track(track) = command {
            self.tracked.push(Tracked { track: track.clone(), skipped: 0, told: None });
        }
    }

    pub(super) fn untrack(&mut self, token: u64) {
        self.tracked.retain(|tracked| tracked.track.token != token);
    }

    /// So many of a feed's subscribers went from one place to another, and got no more than is in `run`.
    pub(super) fn note_passed(&mut self, feed: u32, (from, to): (u64, u64), run: Option<&Run>, count: u64) {
        for tracked in &mut self.tracked {
            let end = tracked.track.end;
            let is_it = tracked.track.watch.feed.load(std::sync::atomic::Ordering::Relaxed) == feed;
            if is_it && from < end && end <= to && !run.is_some_and(|run| run.has(end)) {
                tracked.skipped += count;
            }
        }
    }

    /// Tells what has changed in this turn; of who is told that all have it, no more is told.
    pub(super) fn report_tracked(&mut self) {
        for mut tracked in std::mem::take(&mut self.tracked) {
            let feed = tracked.track.watch.feed.load(std::sync::atomic::Ordering::Relaxed);
            let target = self.feeds.get(feed);
            let subscribers = target.map_or(0, |target| target.at_tail.len() + target.lagging.len()) as u64;
            let behind = self.behind(feed, tracked.track.end) as u64;
            let (token, part, skipped) = (tracked.track.token, tracked.track.part, tracked.skipped);
            let progress = Progress { token, part, subscribers, behind, skipped };
            if tracked.told != Some(progress) {
                tracked.told = Some(progress);
                self.common.events.push(self.index, Event::Progress(progress));
            }
            if behind > 0 {
                self.tracked.push(tracked);
            }
        }
    }
}
