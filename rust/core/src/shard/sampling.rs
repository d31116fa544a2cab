//! How long publications take to reach a feed's subscribers: of each feed one at a time is looked at, from its
//! publication until the last of them has it. Costs a look at the laggards a turn, and nothing a receiver.
use super::clock::Clock;
use super::io::Member;
use super::{Io, Shard};
use crate::stats::FRACTIONS;

/// One publication on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Position of the byte after it.
    end: u64,
    published_ns: u64,
    /// Subscribers when it was first written.
    subscribers: usize,
    /// Which of [`FRACTIONS`] have been reached.
    is_reached: [bool; FRACTIONS.len()],
}

/// When so many of a list had been written to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Marks {
    counts: [usize; FRACTIONS.len()],
    times_ns: [u64; FRACTIONS.len()],
}

impl Marks {
    /// For a feed with so many subscribers.
    pub(super) fn new(subscribers: usize) -> Self {
        let count = |fraction: f64| (fraction * subscribers as f64).ceil() as usize;
        Self { counts: FRACTIONS.map(count), ..Self::default() }
    }

    /// Calls `write` with all of `members`, from the one at `start` on and then those before it, and notes the times.
    pub(super) fn write_from<I>(
        &mut self,
        start: usize,
        members: &[Member],
        (io, clock): (&mut I, Clock),
        mut write: impl FnMut(&mut I, &[Member]),
    ) {
        let mut written = 0;
        for mut part in [&members[start..], &members[..start]] {
            while !part.is_empty() {
                let next = self.counts.iter().filter(|&&count| count > written).min();
                let (now, later) = part.split_at(next.map_or(part.len(), |next| (next - written).min(part.len())));
                write(io, now);
                written += now.len();
                part = later;
                for (count, time_ns) in self.counts.iter().zip(&mut self.times_ns) {
                    if *count == written {
                        *time_ns = clock.now_ns();
                    }
                }
            }
        }
    }
}

impl<I: Io> Shard<I> {
    /// A turn of a feed is over that brought it to `end`: times what it brought to its subscribers.
    pub(super) fn sample(&mut self, feed: u32, end: u64, published_ns: u64, marks: Marks) {
        let now_ns = self.clock.now_ns();
        let target = self.feeds.at(feed);
        let subscribers = target.at_tail.len() + target.lagging.len();
        let is_new = target.sample.is_none();
        let new = Sample { end, published_ns, subscribers, is_reached: [false; FRACTIONS.len()] };
        let mut sample = target.sample.take().unwrap_or(new);
        let behind = self.behind(feed, sample.end);
        for (index, fraction) in FRACTIONS.into_iter().enumerate() {
            let may_miss = sample.subscribers - (fraction * sample.subscribers as f64).ceil() as usize;
            if sample.is_reached[index] || behind > may_miss {
                continue;
            }
            sample.is_reached[index] = true;
            let at_ns = Some(marks.times_ns[index]).filter(|&time_ns| is_new && time_ns > 0).unwrap_or(now_ns);
            self.stats.count_taken(index, at_ns.saturating_sub(sample.published_ns));
        }
        self.feeds.at(feed).sample = Some(sample).filter(|sample| !sample.is_reached.iter().all(|&is| is));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn write(subscribers: usize, members: u32, start: usize) -> (Vec<Vec<u32>>, Marks) {
        let members: Vec<Member> = (0..members).map(|slot| Member { fd: -1, slot, subscription: 0 }).collect();
        let (mut marks, mut parts) = (Marks::new(subscribers), Vec::new());
        marks.write_from(start, &members, (&mut (), Clock::start()), |_, part| {
            parts.push(part.iter().map(|member| member.slot).collect());
        });
        (parts, marks)
    }

    #[test]
    fn everyone_is_written_once_from_the_start_on_with_stops_at_the_fractions() {
        let (parts, marks) = write(10, 10, 7);
        assert_eq!(parts, [vec![7, 8, 9], vec![0, 1], vec![2, 3, 4, 5, 6]]);
        assert!(marks.times_ns.is_sorted() && marks.times_ns[0] > 0);
        assert_eq!(write(10, 10, 0).0, [(0..5).collect::<Vec<u32>>(), (5..10).collect()]);
    }

    #[test]
    fn a_fraction_that_needs_laggards_is_not_reached() {
        let (parts, marks) = write(10, 6, 0);
        assert_eq!(parts, [vec![0, 1, 2, 3, 4], vec![5]]);
        assert!(marks.times_ns[0] > 0 && marks.times_ns[1..] == [0, 0]);
    }

    #[test]
    fn of_nobody_nothing_is_written() {
        assert!(write(3, 0, 0).0.is_empty());
    }
}
