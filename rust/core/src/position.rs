//! A publication's place: which life of a channel's log, and its number in that life.
use std::fmt;

/// Position of a publication: ordered by epoch, then offset. Prints as `epoch-offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Which life of the channel's log, > 0. Grows with each new life, also over restarts (it starts at the clock).
    pub epoch: u64,
    /// Number of the publication in that life, from 1.
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::Position;

    #[test]
    fn a_later_epoch_is_later_whatever_the_offset() {
        let old = Position { epoch: 1, offset: 900 };
        let new = Position { epoch: 2, offset: 1 };
        assert!(old < new);
        assert_eq!(new.to_string(), "2-1");
    }
}
