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

/// No position's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("position {text:?}: expected EPOCH-OFFSET, two whole numbers")]
pub struct NoPosition {
    /// What it is.
    pub text: String,
}

impl std::str::FromStr for Position {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Self, NoPosition> {
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        let numbers = text.split_once('-').and_then(|(epoch, offset)| Some((number(epoch)?, number(offset)?)));
        let (epoch, offset) = numbers.ok_or_else(|| NoPosition { text: text.chars().take(80).collect() })?;
        Ok(Self { epoch, offset })
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

    #[test]
    fn its_text_is_read_back_and_other_text_is_not() {
        let position = Position { epoch: u64::MAX, offset: 0 };
        assert_eq!(position.to_string().parse(), Ok(position));
        for text in ["", "1", "-1-2", "1-", "1-+2", "1-2-3", "99999999999999999999-1", "a-b"] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }
}
