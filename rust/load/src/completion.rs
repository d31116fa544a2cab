//! When the last subscriber has a publication: one counter for each publication of late, in a ring for each channel.

use hdrhistogram::Histogram;

use crate::histogram::latencies;

/// Counters in all rings together, as far as the lowest length of one ring allows.
const COUNTERS: usize = 1 << 20;

/// The shortest and the longest ring. A publication is forgotten when one that is this much younger arrives.
const RING_MIN: usize = 1 << 8;
const RING_MAX: usize = 1 << 16;

/// Completions that one child process remembers for its parent; what is over it is counted and left off.
const LIST_MAX: usize = 1 << 20;

/// No publication has this number.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Counter {
    sequence: u32,
    arrived: u32,
}

struct Ring {
    /// Open connections of this process that watch the channel.
    subscribers: u32,
    /// Empty until the first message.
    counters: Box<[Counter]>,
}

/// A publication that all subscribers in one process have: channel, sequence, its `ns`, when the last one had it.
pub(crate) type Completed = (u32, u32, u64, u64);

/// The completion of publications, by channel.
pub(crate) struct Completions {
    rings: Vec<Ring>,
    ring_len: usize,
    /// Ages at completion, in nanoseconds.
    pub(crate) histogram: Histogram<u64>,
    /// Forgotten before the last subscriber had them.
    pub(crate) uncompleted: u64,
    /// For the parent, which knows the other processes' subscribers; `None` where there is no parent.
    list: Option<Vec<Completed>>,
}

impl Completions {
    /// For channels 0 to `channels` - 1, nobody subscribed yet. `listing` keeps each completion for a parent.
    pub(crate) fn new(channels: u32, listing: bool) -> Self {
        let ring_len = (COUNTERS / channels.max(1) as usize).next_power_of_two().clamp(RING_MIN, RING_MAX);
        let rings = (0..channels).map(|_| Ring { subscribers: 0, counters: Box::default() });
        Self { rings: rings.collect(), ring_len, histogram: latencies(), uncompleted: 0, list: listing.then(Vec::new) }
    }

    /// A connection that watches `channel` is open.
    pub(crate) fn subscribe(&mut self, channel: u32) {
        self.rings[channel as usize].subscribers += 1;
    }

    /// A connection that watches `channel` is gone: from now on one fewer must have each publication.
    pub(crate) fn unsubscribe(&mut self, channel: u32) {
        self.rings[channel as usize].subscribers -= 1;
    }

    /// How many open connections watch each channel.
    pub(crate) fn subscribers(&self) -> impl Iterator<Item = u32> {
        self.rings.iter().map(|ring| ring.subscribers)
    }

    /// One subscriber has a publication for the first time. `channel` must be one that somebody watches.
    #[inline]
    pub(crate) fn arrived(&mut self, channel: u32, sequence: u32, ns: u64, now: u64) {
        let ring = &mut self.rings[channel as usize];
        let at = sequence as usize & (self.ring_len - 1);
        let Some(counter) = ring.counters.get_mut(at) else {
            ring.counters = vec![Counter { sequence: NONE, arrived: 0 }; self.ring_len].into();
            return self.arrived(channel, sequence, ns, now);
        };
        if counter.sequence != sequence {
            if counter.sequence != NONE {
                if counter.sequence > sequence {
                    return;
                }
                self.uncompleted += u64::from(counter.arrived < ring.subscribers);
            }
            *counter = Counter { sequence, arrived: 0 };
        }
        counter.arrived += 1;
        if counter.arrived == ring.subscribers {
            self.completed(channel, sequence, ns, now);
        }
    }

    fn completed(&mut self, channel: u32, sequence: u32, ns: u64, now: u64) {
        self.histogram.saturating_record(now.saturating_sub(ns));
        if let Some(list) = &mut self.list {
            if list.len() < LIST_MAX {
                list.push((channel, sequence, ns, now));
            } else {
                self.uncompleted += 1;
            }
        }
    }

    /// What was listed since [`reset`](Self::reset).
    pub(crate) fn list(&self) -> &[Completed] {
        self.list.as_deref().unwrap_or_default()
    }

    /// Forgets all publications, not the subscribers.
    pub(crate) fn reset(&mut self) {
        for ring in &mut self.rings {
            ring.counters.fill(Counter { sequence: NONE, arrived: 0 });
        }
        self.histogram.reset();
        self.uncompleted = 0;
        if let Some(list) = &mut self.list {
            list.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publication_completes_when_the_last_subscriber_has_it() {
        let mut completions = Completions::new(2, true);
        (0..3).for_each(|_| completions.subscribe(1));
        completions.arrived(1, 5, 1_000, 2_000);
        completions.arrived(1, 5, 1_000, 3_000);
        assert!(completions.histogram.is_empty());
        completions.arrived(1, 5, 1_000, 9_000);
        assert_eq!(completions.list(), [(1, 5, 1_000, 9_000)]);
        assert!(completions.histogram.max() >= 8_000);
    }

    #[test]
    fn publication_that_the_ring_overtook_is_counted_as_uncompleted() {
        let mut completions = Completions::new(1, false);
        completions.subscribe(0);
        completions.subscribe(0);
        completions.arrived(0, 0, 0, 1);
        completions.arrived(0, RING_MAX as u32, 0, 1);
        completions.arrived(0, 0, 0, 1);
        assert_eq!((completions.uncompleted, completions.histogram.len()), (1, 0));
    }

    #[test]
    fn subscriber_that_left_is_not_waited_for() {
        let mut completions = Completions::new(1, false);
        completions.subscribe(0);
        completions.subscribe(0);
        completions.unsubscribe(0);
        completions.arrived(0, 0, 0, 1);
        assert_eq!(completions.histogram.len(), 1);
    }
}
