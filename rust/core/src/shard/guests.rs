//! Requests that other workers have passed on: which connections stand for them. They have no socket.
use std::collections::{BTreeMap, HashMap};

use crate::siblings::GuestId;

/// So many may be with one shard: each is a request that a client waits for at another worker.
const GUESTS_MAX: usize = 1 << 18;

/// All of one shard.
#[derive(Debug, Default)]
pub(crate) struct Guests {
    slots: HashMap<GuestId, u32>,
    by_slot: BTreeMap<u32, Guest>,
}

#[derive(Clone, Copy, Debug)]
struct Guest {
    id: GuestId,
    /// The other worker waits for word to send more of the body.
    is_owed: bool,
}

impl Guests {
    /// Whether there is room for one more.
    pub(crate) fn has_room(&self) -> bool {
        self.by_slot.len() < GUESTS_MAX
    }

    pub(crate) fn add(&mut self, id: GuestId, slot: u32) {
        self.slots.insert(id, slot);
        self.by_slot.insert(slot, Guest { id, is_owed: true });
    }

    pub(crate) fn slot_of(&self, id: GuestId) -> Option<u32> {
        self.slots.get(&id).copied()
    }

    /// The guest for which the connection in a slot stands.
    pub(crate) fn at(&self, slot: u32) -> Option<GuestId> {
        self.by_slot.get(&slot).map(|guest| guest.id)
    }

    /// It is answered, or gone.
    pub(crate) fn remove(&mut self, slot: u32) -> Option<GuestId> {
        let id = self.by_slot.remove(&slot)?.id;
        self.slots.remove(&id);
        Some(id)
    }

    /// More of its body has come.
    pub(crate) fn owe(&mut self, slot: u32) {
        if let Some(guest) = self.by_slot.get_mut(&slot) {
            guest.is_owed = true;
        }
    }

    /// What has come of its body was taken: gives who is to be told.
    pub(crate) fn take_owed(&mut self, slot: u32) -> Option<GuestId> {
        let guest = self.by_slot.get_mut(&slot)?;
        std::mem::take(&mut guest.is_owed).then_some(guest.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_found_both_ways_and_owed_one_word_at_a_time() {
        let mut guests = Guests::default();
        let id = GuestId { link: 3, number: 7 };
        guests.add(id, 5);
        assert_eq!((guests.slot_of(id), guests.at(5), guests.at(6)), (Some(5), Some(id), None));
        assert_eq!([guests.take_owed(5), guests.take_owed(5), guests.take_owed(6)], [Some(id), None, None]);
        guests.owe(5);
        assert_eq!(guests.take_owed(5), Some(id));
        assert_eq!([guests.remove(5), guests.remove(5)], [Some(id), None]);
        assert!(guests.slot_of(id).is_none() && guests.has_room());
    }
}
