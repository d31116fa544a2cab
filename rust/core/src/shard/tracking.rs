//! How far publications have come: timed for the metrics, and told to who asks, at the end of a turn in which that changed.
use std::sync::Arc;

use super::io::Member;
use super::sampling::{Marks, Sample, Tracked};
use super::{Io, Shard};
use crate::channel::{Run, Watch};
use crate::messages::{Command, Event, Progress, Track};

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
            let (mut subscribers, mut behind) = (0, 0);
            for (feed, end) in self.feeds_of(&tracked.track) {
                let target = self.feeds.get(feed);
                subscribers += target.map_or(0, |target| target.at_tail.len() + target.lagging.len()) as u64;
                behind += self.behind(feed, end) as u64;
            }
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

    /// The feeds of whose subscribers a part tells, each with the publication's end there.
    fn feeds_of(&self, track: &Track) -> Vec<(u32, u64)> {
        let feed_of = |watch: &Watch| watch.feed.load(std::sync::atomic::Ordering::Relaxed);
        let mut all = vec![(feed_of(&track.watch), track.end)];
        let others = if track.is_first { track.of.channel.watches_in(self.index) } else { Vec::new() };
        for watch in others.iter().filter(|watch| watch.view.is_all()) {
            let is_known = track.of.known.iter().any(|known| Arc::ptr_eq(known, watch));
            let feed = feed_of(watch);
            if let Some(target) = self.feeds.get(feed).filter(|target| !is_known && target.log.format == track.format) {
                all.push((feed, track.of.channel.end_of(target.log, track.of.number)));
            }
        }
        all
    }

    /// A turn of a feed is over that brought it to `end`: times what it brought to its subscribers.
    pub(super) fn sample(&mut self, feed: u32, end: u64, published_ns: u64, marks: Marks) {
        let now_ns = self.clock.now_ns();
        let target = self.feeds.at(feed);
        let subscribers = target.at_tail.len() + target.lagging.len();
        let is_new = target.sample.is_none();
        let mut sample = target.sample.take().unwrap_or_else(|| Sample::new(end, published_ns, subscribers));
        let behind = self.behind(feed, sample.end);
        for (index, _) in sample.reach(behind).into_iter().enumerate().filter(|&(_, is_new)| is_new) {
            let at_ns = marks.at_ns(index).filter(|_| is_new).unwrap_or(now_ns);
            self.stats.count_taken(index, at_ns.saturating_sub(sample.published_ns));
        }
        self.feeds.at(feed).sample = Some(sample).filter(|sample| !sample.is_done());
    }

    /// How many of a feed's subscribers have not taken all up to `end`.
    pub(super) fn behind(&mut self, feed: u32, end: u64) -> usize {
        let Some(target) = self.feeds.get(feed) else { return 0 };
        let is_behind = |member: &&Member| {
            let Some(connection) = self.slab.get(member.slot) else { return false };
            let cursor = connection.subscriptions.get(member.subscription as usize).map_or(end, |one| one.cursor);
            cursor < end || (cursor == end && connection.transport.cut.is_some())
        };
        let lagging = target.lagging.iter().filter(is_behind).count();
        if target.cursor < end { lagging + target.at_tail.len() } else { lagging }
    }
}
