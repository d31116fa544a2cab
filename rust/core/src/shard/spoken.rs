//! What each connection of a shard may come to speak: written by the shard, read by any thread without a lock.
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::messages::{ConnectionId, SLOTS_MAX};
use crate::protocol::Formats;

/// Slots in the first chunk; each further one has twice as many.
const FIRST: u64 = 64;
const CHUNKS: usize = (SLOTS_MAX as u64 + 1 + FIRST).ilog2() as usize - FIRST.ilog2() as usize + 1;

/// Formats by slot, each with the generation that they are of: 8 bytes a slot.
#[derive(Debug)]
pub(crate) struct Spoken {
    chunks: [OnceLock<Box<[AtomicU64]>>; CHUNKS],
}

impl Default for Spoken {
    fn default() -> Self {
        Self { chunks: [const { OnceLock::new() }; CHUNKS] }
    }
}

impl Spoken {
    /// From now on this connection may come to speak these. Only its shard says so, before anyone else knows the id.
    pub(crate) fn set(&self, id: ConnectionId, formats: Formats) {
        let (chunk, at) = place_of(id.slot());
        let made = || (0..FIRST << chunk).map(|_| AtomicU64::new(0)).collect();
        let entry = u64::from(id.generation()) << 16 | u64::from(formats.to_bits());
        self.chunks[chunk].get_or_init(made)[at].store(entry, Ordering::Release);
    }

    /// The formats that this connection may come to speak; none of one that is gone.
    pub(crate) fn of(&self, id: ConnectionId) -> Formats {
        let (chunk, at) = place_of(id.slot());
        let entry = self.chunks[chunk].get().map_or(0, |chunk| chunk[at].load(Ordering::Acquire));
        let is_its = entry >> 16 == u64::from(id.generation());
        Formats::from_bits(if is_its { entry as u16 } else { 0 })
    }
}

fn place_of(slot: u32) -> (usize, usize) {
    let place = u64::from(slot) + FIRST;
    let chunk = place.ilog2() - FIRST.ilog2();
    (chunk as usize, (place - (FIRST << chunk)) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Format;

    #[test]
    fn each_slot_has_its_own_place_and_what_is_gone_speaks_nothing() {
        let spoken = Spoken::default();
        let id = |slot, generation| ConnectionId::new(0, 0, generation, slot);
        let both = Formats::from(Format::HubJson).and(Format::HubMsgpack.into());
        assert_eq!(spoken.of(id(SLOTS_MAX, 0)), Formats::default(), "nothing was ever said of it");
        for slot in (0..1_000).chain([SLOTS_MAX / 64]) {
            spoken.set(id(slot, slot % 7), both);
        }
        for slot in (0..1_000).chain([SLOTS_MAX / 64]) {
            assert_eq!(spoken.of(id(slot, slot % 7)), both);
            assert_eq!(spoken.of(id(slot, slot % 7 + 1)), Formats::default());
        }
        spoken.set(id(5, 5), Format::HubMsgpack.into());
        assert_eq!(spoken.of(id(5, 5)).only(), Some(Format::HubMsgpack));
        spoken.set(id(5, 6), Formats::default());
        assert!(spoken.of(id(5, 5)).is_empty() && spoken.of(id(5, 6)).is_empty());
        assert_eq!((place_of(0), place_of(63), place_of(64)), ((0, 0), (0, 63), (1, 0)));
        assert_eq!(place_of(SLOTS_MAX).0, CHUNKS - 1);
    }
}
