//! UTF-8 that comes in pieces (RFC 3629 §4), refused at the first byte that no continuation could make right.
//!
//! RFC 6455 §8.1 lets a server wait for the end of a message; waiting would buffer megabytes of what is already wrong.

/// Text that is not UTF-8 (RFC 3629): too long, a surrogate, above U+10FFFF, or cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("text is not UTF-8")]
pub struct InvalidUtf8;

/// A validator that is fed pieces and remembers only a sequence that is cut between two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utf8Stream {
    /// How many bytes the cut sequence still needs: 0 between characters.
    missing: u8,
    /// The smallest next byte of the cut sequence; above 0x80 only after E0 and F0.
    next_min: u8,
    /// The largest next byte of the cut sequence; below 0xBF only after ED and F4.
    next_max: u8,
}

const _: () = assert!(size_of::<Utf8Stream>() <= 8, "one per connection that receives a cut text");

impl Default for Utf8Stream {
    fn default() -> Self {
        Self::new()
    }
}

impl Utf8Stream {
    /// A validator at the start of a text.
    pub const fn new() -> Self {
        Self { missing: 0, next_min: 0x80, next_max: 0xbf }
    }

    /// Takes the next piece of the text, of any length, cut anywhere.
    ///
    /// # Errors
    /// [`InvalidUtf8`] if no text begins with all that was pushed. The validator must not be used after it.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), InvalidUtf8> {
        let mut rest = bytes;
        while self.missing > 0 {
            let Some((&byte, after)) = rest.split_first() else {
                return Ok(());
            };
            self.step(byte)?;
            rest = after;
        }
        let Err(error) = simdutf8::compat::from_utf8(rest) else {
            return Ok(());
        };
        if error.error_len().is_some() {
            return Err(InvalidUtf8);
        }
        rest[error.valid_up_to()..].iter().try_for_each(|&byte| self.step(byte))
    }

    /// Whether the text may end here: no sequence is cut.
    ///
    /// # Errors
    /// [`InvalidUtf8`] if the last character is incomplete.
    pub const fn finish(&self) -> Result<(), InvalidUtf8> {
        if self.missing == 0 { Ok(()) } else { Err(InvalidUtf8) }
    }

    /// One byte of the grammar of RFC 3629 §4.
    fn step(&mut self, byte: u8) -> Result<(), InvalidUtf8> {
        if self.missing > 0 {
            if !(self.next_min..=self.next_max).contains(&byte) {
                return Err(InvalidUtf8);
            }
            *self = Self { missing: self.missing - 1, ..Self::new() };
            return Ok(());
        }
        let (missing, next_min, next_max) = match byte {
            0x00..=0x7f => (0, 0x80, 0xbf),
            0xc2..=0xdf => (1, 0x80, 0xbf),
            0xe0 => (2, 0xa0, 0xbf),
            0xed => (2, 0x80, 0x9f),
            0xe1..=0xef => (2, 0x80, 0xbf),
            0xf0 => (3, 0x90, 0xbf),
            0xf1..=0xf3 => (3, 0x80, 0xbf),
            0xf4 => (3, 0x80, 0x8f),
            _ => return Err(InvalidUtf8),
        };
        *self = Self { missing, next_min, next_max };
        Ok(())
    }
}
