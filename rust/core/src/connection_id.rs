//! The number that names a connection everywhere outside its shard.
use std::fmt;

use crate::protocol::Format;

/// Names one connection for the life of an engine: shard, wire format, generation and slot in 64 bits.
///
/// The wire format is part of it so that a subscription can be made from any thread without asking the shard.
/// Prints as `c17@2`: slot 17, generation 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u64);

/// Slots of one shard end here; descriptors of a process end far below.
pub(crate) const SLOTS_MAX: u32 = (1 << 24) - 1;
pub(crate) const GENERATION_MASK: u32 = (1 << 28) - 1;

impl ConnectionId {
    pub(crate) fn new(shard: u8, format: Format, generation: u32, slot: u32) -> Self {
        debug_assert!(slot <= SLOTS_MAX && generation <= GENERATION_MASK);
        Self(u64::from(shard) << 56 | u64::from(format as u8) << 52 | u64::from(generation) << 24 | u64::from(slot))
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

    pub(crate) fn shard(self) -> usize {
        (self.0 >> 56) as usize
    }

    /// One number for each connection, whatever its wire format, which may change.
    pub(crate) fn identity(self) -> u64 {
        self.0 & !(0xF << 52)
    }

    /// The wire format that the connection speaks; `None` for a number that no engine gave.
    #[must_use]
    pub fn format(self) -> Option<Format> {
        Format::from_u8((self.0 >> 52 & 0xF) as u8)
    }

    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 24) as u32 & GENERATION_MASK
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
        let id = ConnectionId::new(3, Format::Sse, 77, 12_345);
        assert_eq!((id.shard(), id.format(), id.generation(), id.slot()), (3, Some(Format::Sse), 77, 12_345));
        assert_eq!(ConnectionId::from_bits(id.to_bits()), id);
        assert_eq!(id.to_string(), "c12345@77");
    }
}
