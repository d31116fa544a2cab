//! The number that names a connection everywhere outside its shard.
use std::fmt;

/// Names one connection for the life of an engine: worker, shard, generation and slot in 64 bits.
///
/// It stays the same for the connection's life, whatever wire format that speaks and however often it changes its
/// socket. It never names another one: a slot whose generations are used up is not used again. Prints as `c17@2`:
/// slot 17, generation 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u64);

/// Slots of one shard end here; descriptors of a process end far below.
pub(crate) const SLOTS_MAX: u32 = (1 << 24) - 1;
/// The last connection of a slot has this generation.
pub(crate) const GENERATION_MAX: u32 = (1 << 24) - 1;

impl ConnectionId {
    pub(crate) fn new(worker: u8, shard: u8, generation: u32, slot: u32) -> Self {
        debug_assert!(slot <= SLOTS_MAX && generation <= GENERATION_MAX);
        Self(u64::from(worker) << 56 | u64::from(shard) << 48 | u64::from(generation) << 24 | u64::from(slot))
    }

    /// The number that stands for it outside.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// Reads a number that [`to_bits`](Self::to_bits) gave. Any number is safe: one that names nothing finds nothing.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Whose connection it is: [`Settings::worker`](crate::Settings::worker) of that engine.
    #[must_use]
    pub fn worker(self) -> u8 {
        (self.0 >> 56) as u8
    }

    pub(crate) fn shard(self) -> usize {
        (self.0 >> 48) as usize & 0xFF
    }

    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 24) as u32 & GENERATION_MAX
    }

    pub(crate) fn slot(self) -> u32 {
        self.0 as u32 & SLOTS_MAX
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}@{}", self.slot(), self.generation())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_gives_back_its_parts() {
        for (worker, shard, generation, slot) in [(7, 3, 77, 12_345), (255, 255, GENERATION_MAX, SLOTS_MAX)] {
            let id = ConnectionId::new(worker, shard, generation, slot);
            let parts = (id.worker(), id.shard(), id.generation(), id.slot());
            assert_eq!(parts, (worker, usize::from(shard), generation, slot));
            assert_eq!(ConnectionId::from_bits(id.to_bits()), id);
        }
        assert_eq!(ConnectionId::new(7, 3, 77, 12_345).to_string(), "c12345@77");
    }
}
