//! The connections of a shard: dense slots with generations, so that a stale id finds nothing.
//!
//! A connection may end in the midst of what is done with it: any write may find its socket broken. Whoever goes on with
//! its slot must not come upon another connection there, nor upon none. So a slot is *buried* first. Its ids are stale
//! at once, and [`Slab::get`] gives nothing. [`Slab::at`] gives an empty connection without a socket, where what is
//! written goes nowhere. Only when the turn is over is it free for others. After its 16,777,216th connection it never is
//! again, so that no id ever names another connection. That costs an empty slot for so many connections.
use std::sync::Arc;

use super::connection::Connection;
use super::numbers::Numbers;

/// All connections of one shard.
#[derive(Debug, Default)]
pub(crate) struct Slab {
    slots: Vec<Slot>,
    /// Which of them are free.
    numbers: Arc<Numbers>,
    /// Those whose connections have ended in this turn.
    buried: Vec<u32>,
    count: usize,
}

#[derive(Debug, Default)]
struct Slot {
    /// Of the connection in it, or of the next one.
    generation: u32,
    /// Of one that is buried it is an empty one.
    connection: Option<Connection>,
    is_buried: bool,
}

const _: () = assert!(size_of::<Slot>() <= 176, "every connection has one, whatever it speaks");

impl Slab {
    /// Connections in it.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Slots ever used: every slot number is below.
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// With slots that have these numbers.
    pub(crate) fn new(numbers: Arc<Numbers>) -> Self {
        Self { numbers, ..Self::default() }
    }

    /// Takes a slot for what `make` gives, which learns generation and slot; `None` when 16 million are in use.
    pub(crate) fn insert(&mut self, make: impl FnOnce(u32, u32) -> Connection) -> Option<u32> {
        let (slot, generation) = self.numbers.take()?;
        self.seat(slot, make(generation, slot));
        Some(slot)
    }

    /// Puts a connection into the slot whose number, and generation, it was given before.
    pub(crate) fn seat(&mut self, slot: u32, connection: Connection) {
        let at = slot as usize;
        if at >= self.slots.len() {
            self.slots.resize_with(at + 1, Slot::default);
        }
        let entry = &mut self.slots[at];
        debug_assert!(entry.connection.is_none() && !entry.is_buried, "a slot was given out twice");
        (entry.generation, entry.connection) = (connection.generation, Some(connection));
        self.count += 1;
    }

    /// Takes a connection out; its ids are stale from now on. The slot is buried until [`release`](Self::release).
    pub(crate) fn bury(&mut self, slot: u32) -> Option<Connection> {
        let entry = self.slots.get_mut(slot as usize).filter(|entry| !entry.is_buried)?;
        let stale = entry.generation;
        let ended = entry.connection.replace(Connection::new(None, stale));
        if ended.is_none() {
            entry.connection = None;
            return None;
        }
        entry.generation = stale + 1;
        entry.is_buried = true;
        self.buried.push(slot);
        self.count -= 1;
        ended
    }

    /// The turn is over and nothing names the buried slots any more: they are free. `each` hears of them.
    pub(crate) fn release(&mut self, mut each: impl FnMut(u32)) {
        for slot in self.buried.drain(..) {
            let entry = &mut self.slots[slot as usize];
            let rest = entry.connection.take();
            debug_assert!(rest.is_some_and(|rest| rest.subscriptions.is_empty()), "a dead connection was subscribed");
            entry.is_buried = false;
            self.numbers.give_back(slot, entry.generation);
            each(slot);
        }
    }

    pub(crate) fn get(&self, slot: u32) -> Option<&Connection> {
        self.slots.get(slot as usize).filter(|entry| !entry.is_buried)?.connection.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut Connection> {
        self.slots.get_mut(slot as usize).filter(|entry| !entry.is_buried)?.connection.as_mut()
    }

    /// The connection in a slot that the caller has looked up in this turn: an empty one, if it has ended since.
    pub(crate) fn at(&mut self, slot: u32) -> &mut Connection {
        let entry = self.slots.get_mut(slot as usize).and_then(|entry| entry.connection.as_mut());
        entry.expect("the caller holds a list entry or has looked it up in this turn")
    }

    /// The generation of what [`at`](Self::at) gives.
    pub(crate) fn generation_at(&self, slot: u32) -> u32 {
        let entry = self.slots.get(slot as usize).and_then(|entry| entry.connection.as_ref());
        entry.map_or(0, |connection| connection.generation)
    }

    /// The slot, if `generation` is the one that is in it.
    pub(crate) fn find(&self, slot: u32, generation: u32) -> Option<u32> {
        let entry = self.slots.get(slot as usize).filter(|entry| !entry.is_buried)?;
        (entry.generation == generation && entry.connection.is_some()).then_some(slot)
    }

    /// Slots in use.
    pub(crate) fn in_use(&self) -> Vec<u32> {
        let is_in_use = |entry: &Slot| !entry.is_buried && entry.connection.is_some();
        (0..).zip(&self.slots).filter(|(_, entry)| is_in_use(entry)).map(|(slot, _)| slot).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::GENERATION_MAX;

    /// Whoever goes on with the slot of a connection that has ended comes upon no other one, and does not panic.
    #[test]
    fn a_slot_is_nobodys_until_the_turn_is_over() {
        let mut slab = Slab::default();
        let make = |generation, _| Connection::new(None, generation);
        let slot = slab.insert(make).expect("room");
        let first = slab.at(slot).generation;
        slab.at(slot).pending = 7;
        assert_eq!(slab.bury(slot).map(|ended| ended.pending), Some(7));
        assert!(slab.bury(slot).is_none() && slab.get(slot).is_none() && slab.find(slot, first).is_none());
        assert_eq!((slab.count(), slab.in_use()), (0, vec![]));
        slab.at(slot).transport.outbox.bytes_mut().extend_from_slice(b"to nobody");
        assert_eq!(slab.generation_at(slot), first, "ids that are made of it stay stale");
        let other = slab.insert(make).expect("room");
        assert_ne!(other, slot);
        let mut released = Vec::new();
        slab.release(|slot| released.push(slot));
        assert_eq!(released, [slot]);
        assert_eq!(slab.insert(make), Some(slot));
        assert!(slab.at(slot).transport.outbox.is_empty() && slab.find(slot, first).is_none());
    }

    /// An event of long ago may still name a connection: nobody else is ever called so.
    #[test]
    fn a_slot_whose_generations_are_used_up_is_not_used_again() {
        let mut slab = Slab::default();
        let make = |generation, _| Connection::new(None, generation);
        let slot = slab.insert(make).expect("room");
        slab.slots[slot as usize].generation = GENERATION_MAX - 1;
        slab.slots[slot as usize].connection = Some(make(GENERATION_MAX - 1, slot));
        let end = |slab: &mut Slab| {
            slab.bury(slot).expect("it is there");
            slab.release(|_| {});
        };
        end(&mut slab);
        assert_eq!(slab.insert(make), Some(slot));
        assert_eq!((slab.generation_at(slot), slab.find(slot, GENERATION_MAX)), (GENERATION_MAX, Some(slot)));
        end(&mut slab);
        let other = slab.insert(make).expect("room");
        assert_ne!(other, slot);
        assert_eq!((slab.find(slot, GENERATION_MAX), slab.find(slot, 0), slab.count()), (None, None, 1));
    }
}
