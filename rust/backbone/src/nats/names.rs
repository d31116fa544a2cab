//! What channels and streams are called at a NATS server.
use std::fmt;

use fanwire_core::node::Keep;

use crate::api::{Error, Options};

/// As the server has it: a subject stands in one line of control, which is 4,096 bytes long by default.
const TOKEN_BYTES_MAX: usize = 1_024;
const PREFIX_BYTES_MAX: usize = 128;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// A message that nothing has replaced stays for so many days, or for twice as long as its channel keeps it.
const DAYS: u64 = 7;

/// Channels that one stream can keep: a stream has one number of messages for each subject, and one age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Class {
    /// How many publications a channel keeps.
    pub(crate) messages: u64,
    /// After how many days the server forgets one.
    pub(crate) days: u64,
}

impl Class {
    pub(crate) fn of(keep: Keep) -> Self {
        let days = keep.age_ms.saturating_mul(2).div_ceil(DAY_MS).max(DAYS);
        Self { messages: keep.messages, days }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days == DAYS {
            return write!(f, "{}", self.messages);
        }
        write!(f, "{}-{}d", self.messages, self.days)
    }
}

/// Names subjects and streams, all of which begin with a prefix.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    prefix: String,
}

impl Names {
    pub(crate) fn new(options: &Options) -> Result<Self, Error> {
        let prefix = token(&options.prefix);
        if prefix.is_empty() || prefix.len() > PREFIX_BYTES_MAX {
            let value = format!("{:?}, which is {} bytes long as a subject", options.prefix, prefix.len());
            return Err(Error::Option { option: "prefix", value, expected: "1 to 128 bytes there" });
        }
        Ok(Self { prefix })
    }

    /// Where a channel's publications are published: a stream takes them.
    pub(crate) fn taken(&self, class: Class, channel: &str) -> String {
        format!("{}.in.{class}.{}", self.prefix, token(channel))
    }

    /// Where the stream publishes them again.
    pub(crate) fn given(&self, class: Class, channel: &str) -> String {
        format!("{}.out.{class}.{}", self.prefix, token(channel))
    }

    /// All that streams publish again.
    pub(crate) fn all_given(&self) -> String {
        format!("{}.out.*.*", self.prefix)
    }

    /// Where it is tried out whether a stream is led: no channel is called so.
    pub(crate) fn tried(&self, class: Class) -> String {
        self.taken(class, "_")
    }

    /// All that a stream takes.
    pub(crate) fn all_taken(&self, class: Class) -> String {
        format!("{}.in.{class}.*", self.prefix)
    }

    /// Where the stream publishes it, as a transformation of the subject.
    pub(crate) fn again(&self, class: Class) -> String {
        format!("{}.out.{class}.{{{{wildcard(1)}}}}", self.prefix)
    }

    /// The stream of a class that began at this epoch.
    pub(crate) fn stream(&self, class: Class, epoch: u64) -> String {
        format!("{}-{class}-{epoch:x}", self.prefix)
    }

    /// The stream that says of each class which stream takes it. Its name is one for all, so there is one.
    pub(crate) fn lives(&self) -> String {
        format!("{}-lives", self.prefix)
    }

    /// Where that is said of a class.
    pub(crate) fn life(&self, class: Class) -> String {
        format!("{}.life.{class}", self.prefix)
    }

    /// Where it is said of any.
    pub(crate) fn all_lives(&self) -> String {
        format!("{}.life.*", self.prefix)
    }

    /// The epoch of a stream of ours.
    pub(crate) fn epoch_of(&self, stream: &str) -> Option<u64> {
        let (_, epoch) = stream.strip_prefix(self.prefix.as_str())?.strip_prefix('-')?.rsplit_once('-')?;
        u64::from_str_radix(epoch, 16).ok().filter(|epoch| (1..1 << 53).contains(epoch))
    }

    /// What names one publication with an idempotency key, of a channel.
    pub(crate) fn once(&self, channel: &str, key: &str) -> String {
        format!("{}.{}", token(channel), token(key))
    }

    /// Where a machine is told something, or all are.
    pub(crate) fn told(&self, to: Option<u64>) -> String {
        match to {
            Some(machine) => format!("{}.told.{machine:016x}", self.prefix),
            None => format!("{}.told.all", self.prefix),
        }
    }

    /// The channel of which a subject is.
    pub(crate) fn channel_of(subject: &str) -> Option<String> {
        let token = subject.rsplit('.').next()?;
        let mut bytes = Vec::with_capacity(token.len());
        let mut rest = token.as_bytes();
        while let Some((&first, after)) = rest.split_first() {
            (bytes, rest) = match first {
                b'=' => {
                    let digits = std::str::from_utf8(after.get(..2)?).ok()?;
                    bytes.push(u8::from_str_radix(digits, 16).ok()?);
                    (bytes, &after[2..])
                }
                _ => {
                    bytes.push(first);
                    (bytes, after)
                }
            };
        }
        String::from_utf8(bytes).ok()
    }
}

/// Any text as one part of a subject: what is no letter, digit, `-`, `_` or `:` becomes `=` and two hexadecimal digits.
fn token(text: &str) -> String {
    let mut token = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b':') {
            token.push(char::from(byte));
        } else {
            token.push_str(&format!("={byte:02X}"));
        }
    }
    token
}

/// Why a channel has no subject, if so.
pub(crate) fn too_long(channel: &str) -> Option<String> {
    let bytes = token(channel).len();
    (bytes > TOKEN_BYTES_MAX).then(|| {
        format!(
            "the channel's name is {bytes} bytes long as a part of a subject: NATS is given {TOKEN_BYTES_MAX} at most"
        )
    })
}

/// Whether a text fits a pattern, in which `*` is any run of characters.
pub(crate) fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        if let Some(between) = last.replace(part) {
            let Some(at) = rest.find(between) else { return false };
            rest = &rest[at + between.len()..];
        }
    }
    last.map_or(rest.is_empty(), |last| rest.ends_with(last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names() -> Names {
        Names::new(&Options::default()).unwrap()
    }

    #[test]
    fn a_channel_s_subjects_and_streams_are_named_and_read_back() {
        let (names, class) = (names(), Class::of(Keep { messages: 100, age_ms: 300_000 }));
        assert_eq!(names.taken(class, "codds:7"), "fanwire.in.100.codds:7");
        assert_eq!(names.given(class, "ca b.*>"), "fanwire.out.100.ca=20b=2E=2A=3E");
        assert_eq!(names.again(class), "fanwire.out.100.{{wildcard(1)}}");
        let stream = names.stream(class, 0xabc);
        assert_eq!((stream.as_str(), names.epoch_of(&stream)), ("fanwire-100-abc", Some(0xabc)));
        for other in ["ORDERS", "fanwire-100", "fanwire-lives", "fanwire-100-xyz", "other-100-abc", "fanwire-100-0"] {
            assert_eq!(names.epoch_of(other), None, "{other}");
        }
        let long = Class::of(Keep { messages: 5, age_ms: 30 * DAY_MS });
        assert_eq!(names.stream(long, 1), "fanwire-5-60d-1");
        assert_eq!(names.epoch_of("fanwire-5-60d-1"), Some(1));
        assert!(too_long(&"x".repeat(1_024)).is_none() && too_long(&".".repeat(342)).is_some());
        let error = Names::new(&Options { prefix: " ".repeat(50), ..Options::default() }).unwrap_err();
        assert!(error.to_string().contains("150 bytes"), "{error}");
    }

    #[test]
    fn patterns_fit_or_not() {
        for (pattern, text) in
            [("*", ""), ("a*", "a"), ("a*c", "abc"), ("*b*", "abc"), ("a*b*c", "a-b-b-c"), ("a", "a")]
        {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a", "ab"), ("a*c", "ab"), ("*b*", "ac"), ("ab*ba", "aba"), ("", "a")] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn any_channel_is_a_part_of_a_subject(channel in "\\PC{1,40}") {
            let given = names().given(Class { messages: 0, days: 7 }, &channel);
            prop_assert!(given.bytes().all(|byte| byte.is_ascii_graphic()) && given.split('.').count() == 4);
            prop_assert!(!given.contains(['*', '>']));
            prop_assert_eq!(Names::channel_of(&given), Some(channel));
        }
    }
}
