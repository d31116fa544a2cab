//! The feed: which message follows which.

use std::collections::HashMap;

use crate::error::LoadError;

/// The messages that are published over and over, in their order; no two are equal.
#[derive(Debug)]
pub(super) struct Script {
    places: HashMap<Box<[u8]>, u32>,
}

impl Script {
    /// Of a file with a message a line.
    pub(super) fn new(file: &[u8]) -> Result<Self, LoadError> {
        let lines = file.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let mut places = HashMap::new();
        for (place, line) in (0..).zip(lines) {
            if places.insert(line.into(), place).is_some() {
                return Err(LoadError::Conflict { option: "--feed", why: "it has a message twice" });
            }
        }
        if places.is_empty() {
            return Err(LoadError::Conflict { option: "--feed", why: "it has no message" });
        }
        Ok(Self { places })
    }

    /// Which message this is.
    pub(super) fn place(&self, message: &[u8]) -> Option<u32> {
        self.places.get(message).copied()
    }

    /// How many messages lie between one and the other, where the other comes after it; 0 if it follows at once.
    pub(super) fn between(&self, one: u32, other: u32) -> u32 {
        let count = self.places.len() as u32;
        (other + count - one - 1) % count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_follows_the_last() {
        let script = Script::new(b"a\nb\nc\n").unwrap();
        let [a, b, c] = [b"a", b"b", b"c"].map(|message| script.place(message).unwrap());
        assert_eq!((script.between(a, b), script.between(c, a), script.between(a, c)), (0, 0, 1));
        assert_eq!(script.between(a, a), 2, "a whole turn is missing");
        assert_eq!(script.place(b"d"), None);
    }

    #[test]
    fn a_feed_of_nothing_or_of_equal_messages_is_refused() {
        assert!(Script::new(b"\n\n").is_err());
        assert!(Script::new(b"a\nb\na").is_err());
    }
}
