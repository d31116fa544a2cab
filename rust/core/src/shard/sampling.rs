//! How long publications take to reach a feed's subscribers: of each feed one at a time is looked at, until the last of
//! them has it. Costs a look at the laggards a turn, and nothing a receiver.
use super::io::Member;
use crate::clock::Clock;
use crate::messages::{Progress, Track};
use crate::stats::FRACTIONS;

/// One publication on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Position of the byte after it.
    pub(super) end: u64,
    pub(super) published_ns: u64,
    /// Subscribers when it was first written.
    subscribers: usize,
    /// Which of [`FRACTIONS`] have been reached.
    is_reached: [bool; FRACTIONS.len()],
}

impl Sample {
    pub(super) fn new(end: u64, published_ns: u64, subscribers: usize) -> Self {
        Self { end, published_ns, subscribers, is_reached: [false; FRACTIONS.len()] }
    }

    /// So many have not taken it: gives which fractions of the subscribers have, that had not before.
    pub(super) fn reach(&mut self, behind: usize) -> [bool; FRACTIONS.len()] {
        let before = self.is_reached;
        for (fraction, is_reached) in FRACTIONS.into_iter().zip(&mut self.is_reached) {
            let may_miss = self.subscribers - (fraction * self.subscribers as f64).ceil() as usize;
            *is_reached |= behind <= may_miss;
        }
        std::array::from_fn(|index| self.is_reached[index] && !before[index])
    }

    /// Whether all have it.
    pub(super) fn is_done(&self) -> bool {
        self.is_reached.iter().all(|&is| is)
    }
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

    /// When this fraction of them had been written to, if it was.
    pub(super) fn at_ns(&self, index: usize) -> Option<u64> {
        Some(self.times_ns[index]).filter(|&time_ns| time_ns > 0)
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

/// A publication that somebody asks about.
#[derive(Debug)]
pub(crate) struct Tracked {
    pub(super) track: Track,
    pub(super) skipped: u64,
    pub(super) told: Option<Progress>,
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
