//! How a log's frames are compressed, and the name of one of a channel's logs.
use super::format::Format;

/// How the messages of a log are compressed (RFC 7692), so that who reads it needs a window as large.
///
/// Frames of all but [`Coding::Plain`] are read one behind the other, without a gap: an inflater needs each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Coding {
    /// Not at all.
    #[default]
    Plain,
    /// Each by itself, so that anybody may begin with any, in a window of 9 bits.
    Alone9,
    /// The same, 12 bits.
    Alone12,
    /// With what came before as context, by one compressor for all readers, in a window of 9 bits.
    Shared9,
    /// The same, 12 bits.
    Shared12,
    /// The same, 15 bits.
    Shared15,
}

impl Coding {
    /// Those that compress, in the order of their numbers.
    pub const COMPRESSED: [Self; 5] = [Self::Alone9, Self::Alone12, Self::Shared9, Self::Shared12, Self::Shared15];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Alone9 => "alone9",
            Self::Alone12 => "alone12",
            Self::Shared9 => "shared9",
            Self::Shared12 => "shared12",
            Self::Shared15 => "shared15",
        }
    }

    /// Its place in [`COMPRESSED`](Self::COMPRESSED); `None` of the one that does not compress.
    pub fn index(self) -> Option<usize> {
        (self as usize).checked_sub(1)
    }

    /// The codings that an inflater may get, the best first: with a window of so many bits, which may outlive a message.
    pub fn of(window_bits: u8, takes_over: bool) -> &'static [Self] {
        match (window_bits, takes_over) {
            (15.., true) => &[Self::Shared15, Self::Shared12, Self::Alone12],
            (12.., true) => &[Self::Shared12, Self::Alone12],
            (_, true) => &[Self::Shared9, Self::Alone9],
            (12.., false) => &[Self::Alone12],
            (_, false) => &[Self::Alone9],
        }
    }

    /// How far back its messages may refer, as an exponent; 0 of what is not compressed.
    pub fn window_bits(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::Alone9 | Self::Shared9 => 9,
            Self::Alone12 | Self::Shared12 => 12,
            Self::Shared15 => 15,
        }
    }

    /// Whether its messages refer to those before them.
    pub fn is_shared(self) -> bool {
        matches!(self, Self::Shared9 | Self::Shared12 | Self::Shared15)
    }
}

/// One of a channel's logs: a format, and how its frames are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId {
    /// How publications are written.
    pub format: Format,
    /// How that is compressed.
    pub coding: Coding,
}

impl From<Format> for LogId {
    /// The log whose frames are not compressed.
    fn from(format: Format) -> Self {
        Self { format, coding: Coding::Plain }
    }
}
