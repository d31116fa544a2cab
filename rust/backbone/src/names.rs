//! What a channel's keys are called at the server, and in which of its slots they are.
use crate::api::{Error, Options};

/// How many slots a cluster has.
pub(crate) const SLOTS: u16 = 16_384;

/// Names keys and channels: a prefix, what it is, in a cluster a hash tag, and the channel.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    prefix: String,
    /// 0 outside of a cluster.
    partitions: u16,
}

impl Names {
    pub(crate) fn new(options: &Options) -> Result<Self, Error> {
        let prefix = options.prefix.clone();
        if prefix.is_empty() || prefix.len() > 100 || prefix.contains(['{', '}']) {
            let expected = "1 to 100 bytes without braces, which say where a cluster has a key";
            return Err(Error::Option { option: "prefix", value: format!("{prefix:?}"), expected });
        }
        if !(1..=SLOTS).contains(&options.partitions) {
            let value = options.partitions.to_string();
            return Err(Error::Option { option: "partitions", value, expected: "1 to 16384" });
        }
        Ok(Self { prefix, partitions: 0 })
    }

    /// Those in a cluster.
    pub(crate) fn spread(&self, partitions: u16) -> Self {
        Self { partitions, ..self.clone() }
    }

    /// Which partition a channel is in; 0 outside of a cluster.
    pub(crate) fn partition_of(&self, channel: &str) -> u16 {
        if self.partitions == 0 { 0 } else { crc16(channel.as_bytes()) % self.partitions }
    }

    /// The hash with a channel's epoch and offset.
    pub(crate) fn meta(&self, channel: &str) -> String {
        self.name('m', channel)
    }

    /// The stream that keeps its publications.
    pub(crate) fn stream(&self, channel: &str) -> String {
        self.name('s', channel)
    }

    /// Where they are published.
    pub(crate) fn published(&self, channel: &str) -> String {
        self.name('c', channel)
    }

    /// Where it is published what is told to a machine, or to all. In a cluster these are in one slot, so that the server
    /// keeps their order.
    pub(crate) fn told(&self, to: Option<u64>) -> String {
        let whom = to.map_or_else(|| "all".to_owned(), |number| format!("{number:016x}"));
        let tag = if self.partitions == 0 { "" } else { "{0}:" };
        format!("{}:n:{tag}{whom}", self.prefix)
    }

    /// Whether that is such a place.
    pub(crate) fn is_told(&self, published: &str) -> bool {
        published.strip_prefix(self.prefix.as_str()).is_some_and(|rest| rest.starts_with(":n:"))
    }

    /// The names at which channels of a pattern are published, as the server reads patterns.
    pub(crate) fn pattern(&self, pattern: &str) -> String {
        let mut glob = escaped(&self.name('c', ""));
        for part in pattern.split_inclusive('*') {
            let (text, star) = part.strip_suffix('*').map_or((part, ""), |text| (text, "*"));
            glob.push_str(&escaped(text));
            glob.push_str(star);
        }
        glob
    }

    /// Where the position of the first publication with an idempotency key stands.
    pub(crate) fn first(&self, channel: &str, key: &str) -> String {
        format!("{}:{}:{key}", self.name('i', channel), channel.len())
    }

    /// The channel of which this is where it is published.
    pub(crate) fn channel_of<'a>(&self, published: &'a str) -> Option<&'a str> {
        let rest = published.strip_prefix(self.prefix.as_str())?.strip_prefix(":c:")?;
        if self.partitions == 0 { Some(rest) } else { Some(rest.strip_prefix('{')?.split_once("}:")?.1) }
    }

    fn name(&self, what: char, channel: &str) -> String {
        if self.partitions == 0 {
            return format!("{}:{what}:{channel}", self.prefix);
        }
        format!("{}:{what}:{{{}}}:{channel}", self.prefix, self.partition_of(channel))
    }
}

/// A text that stands for itself in a server's pattern.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for one in text.chars() {
        if matches!(one, '*' | '?' | '[' | ']' | '^' | '\\') {
            out.push('\\');
        }
        out.push(one);
    }
    out
}

/// In which slot of a cluster a partition is.
pub(crate) fn slot_of(partition: u16) -> u16 {
    crc16(partition.to_string().as_bytes()) % SLOTS
}

/// CRC-16/XMODEM, by which a cluster of Redis hashes keys, and which ends a key of NATS.
pub(crate) fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |mut crc: u16, &byte| {
        crc ^= u16::from(byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        }
        crc
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_s_names_are_told_apart_and_read_back() {
        let plain = Names::new(&Options::default()).unwrap();
        assert_eq!(plain.meta("odds:7"), "fanwire:m:odds:7");
        assert_eq!(plain.channel_of("fanwire:c:odds:7"), Some("odds:7"));
        assert_eq!(plain.channel_of("other:c:odds:7"), None);
        assert_ne!(plain.first("a", "b:c"), plain.first("a:b", "c"));
        assert_eq!(plain.pattern("codds:*?"), "fanwire:c:codds:*\\?");
        assert_eq!(
            (plain.told(None), plain.told(Some(10))),
            ("fanwire:n:all".into(), "fanwire:n:000000000000000a".into())
        );
        assert!(plain.is_told("fanwire:n:all") && !plain.is_told("fanwire:c:n:all"));
        let spread = plain.spread(128);
        assert_eq!(spread.told(None), "fanwire:n:{0}:all");
        for channel in ["odds:7", "", "{x}:y", "ß}:"] {
            let partition = spread.partition_of(channel);
            assert!(partition < 128);
            assert_eq!(spread.published(channel), format!("fanwire:c:{{{partition}}}:{channel}"));
            assert_eq!(spread.channel_of(&spread.published(channel)), Some(channel));
        }
    }

    #[test]
    fn slots_are_those_of_a_cluster() {
        assert_eq!(crc16(b"123456789"), 0x31c3); // the Redis cluster specification's own example
    }

    #[test]
    fn a_prefix_or_a_number_that_cannot_be_is_named() {
        for prefix in ["", "a{b"] {
            assert!(Names::new(&Options { prefix: prefix.to_owned(), ..Options::default() }).is_err());
        }
        let error = Names::new(&Options { partitions: 0, ..Options::default() }).unwrap_err();
        assert_eq!(error.to_string(), "the backbone's partitions is 0: 1 to 16384");
    }
}
