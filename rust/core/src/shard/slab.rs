//! The connections of a shard: dense slots with generations, so that a stale id finds nothing.
use crate::messages::{GENERATION_MASK, SLOTS_MAX};

use super::connection::Connection;

/// All connections of one shard.
#[derive(Debug, Default)]
pub(crate) struct Slab {
    slots: Vec<Slot>,
    free: Vec<u32>,
    count: usize,
}

#[derive(Debug)]
struct Slot {
    /// Of the connection in it, or of the next one.
    generation: u32,
    connection: Option<Connection>,
}

impl Slab {
    /// Connections in it.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Slots ever used: every slot number is below.
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Takes a slot for what `make` gives, which learns generation and slot; `None` when 16 million are in use.
    pub(crate) fn insert(&mut self, make: impl FnOnce(u32, u32) -> Connection) -> Option<u32> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < SLOTS_MAX as usize => {
                self.slots.push(Slot { generation: 0, connection: None });
                (self.slots.len() - 1) as u32
            }
            None => return None,
        };
        let entry = &mut self.slots[slot as usize];
        entry.connection = Some(make(entry.generation, slot));
        self.count += 1;
        Some(slot)
    }

    /// Empties a slot; its ids are stale from now on.
    pub(crate) fn remove(&mut self, slot: u32) -> Option<Connection> {
        let entry = &mut self.slots[slot as usize];
        let connection = entry.connection.take()?;
        entry.generation = (entry.generation + 1) & GENERATION_MASK;
        self.free.push(slot);
        self.count -= 1;
        Some(connection)
    }

    pub(crate) fn get(&self, slot: u32) -> Option<&Connection> {
        self.slots.get(slot as usize)?.connection.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut Connection> {
        self.slots.get_mut(slot as usize)?.connection.as_mut()
    }

    /// The connection in a slot that the caller knows to be in use.
    pub(crate) fn at(&mut self, slot: u32) -> &mut Connection {
        self.get_mut(slot).expect("the caller holds a list entry or has just looked it up")
    }

    /// The slot, if `generation` is the one that is in it.
    pub(crate) fn find(&self, slot: u32, generation: u32) -> Option<u32> {
        let entry = self.slots.get(slot as usize)?;
        (entry.generation == generation && entry.connection.is_some()).then_some(slot)
    }

    /// Slots in use.
    pub(crate) fn in_use(&self) -> Vec<u32> {
        (0..).zip(&self.slots).filter(|(_, entry)| entry.connection.is_some()).map(|(slot, _)| slot).collect()
    }
}
