//! Patterns of channel names: `*` stands for any run of characters, everything else for itself.
use std::fmt;

use crate::error::EngineError;

/// A name with `*` in it, e.g. `odds:*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// Reads a pattern: what is not `*` must obey the rules of a name.
    ///
    /// # Errors
    /// [`EngineError::InvalidChannel`].
    pub fn new(text: &str) -> Result<Self, EngineError> {
        super::check_pattern(text)?;
        Ok(Self(text.into()))
    }

    /// Whether all that it matches begins with this, as it does itself.
    pub(super) fn is_within(&self, prefix: &str) -> bool {
        self.0.starts_with(prefix)
    }

    /// The one name that it matches, where it is no more than that.
    pub(super) fn name(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(&*self.0)
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether `name` is one of them. Linear in the product of the lengths at worst; both are at most 255 bytes.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        let mut star: Option<(usize, usize)> = None; // where the last `*` stood, and what it had eaten up to
        while n < name.len() {
            if p < pattern.len() && pattern[p] == b'*' {
                star = Some((p, n));
                p += 1;
            } else if p < pattern.len() && pattern[p] == name[n] {
                p += 1;
                n += 1;
            } else if let Some((star_at, eaten)) = star {
                star = Some((star_at, eaten + 1));
                p = star_at + 1;
                n = eaten + 1;
            } else {
                return false;
            }
        }
        pattern[p..].iter().all(|&byte| byte == b'*')
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn a_star_stands_for_any_run() {
        let cases = [
            ("odds:*", "odds:7", true),
            ("odds:*", "odds:", true),
            ("odds:*", "goals", false),
            ("*", "x", true),
            ("a*b*c", "a--b--c", true),
            ("a*b*c", "a--c--b", false),
            ("*:1", "a:1:1", true),
            ("goals", "goals", true),
            ("goals", "goals2", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(Pattern::new(pattern).expect("valid").matches(name), expected, "{pattern} {name}");
        }
    }
}
