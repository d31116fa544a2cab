//! Who comes to channels that tell it, and who goes, between two tellings.
//!
//! One client may come and go as often as it likes while the application is slow. So a visit that is over before it was
//! told is forgotten. Nothing is told before the last telling was taken: what waits is bounded by the subscriptions
//! that there are, twice over.
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::channel::Channel;
use crate::messages::{ConnectionId, Presence};

/// How many forgotten places are worth a walk over the list.
const HOLES_MIN: usize = 64;

/// What has yet to be told.
#[derive(Debug, Default)]
pub(super) struct Visits {
    /// In order; a visit that is over leaves a hole.
    notes: Vec<Option<Presence>>,
    /// Where the comings stand that nobody heard of: by channel and connection.
    joined: HashMap<(usize, u64), usize>,
    holes: usize,
    /// What was told last, while it waits to be taken.
    told: Weak<Vec<Presence>>,
}

impl Visits {
    pub(super) fn note(&mut self, channel: &Arc<Channel>, connection: ConnectionId, has_joined: bool) {
        let visit = key_of(channel, connection);
        if has_joined {
            self.joined.insert(visit, self.notes.len());
        } else if let Some(at) = self.joined.remove(&visit) {
            self.notes[at] = None; // nobody heard of it, and nobody has to
            self.holes += 1;
            self.close_holes();
            return;
        }
        self.notes.push(Some(Presence { channel: Arc::clone(channel), connection, has_joined }));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.notes.len() == self.holes
    }

    /// What is to be told now; `None` if that is nothing, or the last telling has not been taken.
    pub(super) fn take(&mut self) -> Option<Arc<Vec<Presence>>> {
        if self.is_empty() || self.told.strong_count() > 0 {
            return None;
        }
        let told: Arc<Vec<Presence>> = Arc::new(std::mem::take(&mut self.notes).into_iter().flatten().collect());
        self.joined = HashMap::new();
        self.holes = 0;
        self.told = Arc::downgrade(&told);
        Some(told)
    }

    fn close_holes(&mut self) {
        if self.holes < HOLES_MIN || self.holes * 2 < self.notes.len() {
            return;
        }
        self.notes.retain(Option::is_some);
        self.holes = 0;
        let joined = self.notes.iter().enumerate().filter_map(|(at, note)| Some((at, note.as_ref()?)));
        let joined = joined.filter(|(_, note)| note.has_joined);
        // Of one that went and came again before anything was told, the coming stands last.
        self.joined = joined.map(|(at, note)| (key_of(&note.channel, note.connection), at)).collect();
    }
}

/// The channel's address stands for it: it lives as long as its note.
fn key_of(channel: &Arc<Channel>, connection: ConnectionId) -> (usize, u64) {
    (Arc::as_ptr(channel).addr(), connection.to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Registry;
    use crate::settings::Settings;

    fn told(visits: &mut Visits) -> Vec<(u32, bool)> {
        let told = visits.take();
        told.iter().flat_map(|told| told.iter()).map(|one| (one.connection.slot(), one.has_joined)).collect()
    }

    #[test]
    fn a_flood_of_visits_is_bounded_and_what_it_comes_to_is_told() {
        let registry = Registry::listed(&Arc::default(), 1);
        let channels: Vec<_> = ["a", "b", "c"]
            .map(|name| registry.obtain(name, &Settings::default(), 0).expect("room"))
            .into_iter()
            .collect();
        let id = |slot| ConnectionId::new(0, 0, 0, slot);
        let mut visits = Visits::default();
        visits.note(&channels[0], id(7), false);
        for _ in 0..100_000 {
            for channel in &channels {
                visits.note(channel, id(1), true);
            }
            for channel in &channels {
                visits.note(channel, id(1), false);
            }
        }
        assert!(visits.notes.capacity() < 1_000, "{}", visits.notes.capacity());
        visits.note(&channels[0], id(2), true);
        assert_eq!(told(&mut visits), [(7, false), (2, true)]);
    }

    #[test]
    fn nothing_is_told_before_the_last_telling_was_taken() {
        let registry = Registry::listed(&Arc::default(), 1);
        let channel = registry.obtain("a", &Settings::default(), 0).expect("room");
        let id = |slot| ConnectionId::new(0, 0, 0, slot);
        let mut visits = Visits::default();
        visits.note(&channel, id(1), true);
        let first = visits.take().expect("somebody came");
        visits.note(&channel, id(1), false);
        visits.note(&channel, id(1), true);
        assert!(visits.take().is_none() && !visits.is_empty());
        drop(first);
        assert_eq!(told(&mut visits), [(1, false), (1, true)], "it went, as was told, and came again");
        assert!(visits.is_empty() && visits.take().is_none());
    }
}
