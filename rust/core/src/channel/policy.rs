//! What a channel does at its bounds, and where its subscribers begin.

use crate::position::Position;

/// What becomes of a subscriber that lags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// It gets every publication; overtaken by a bound it is closed with 1013.
    #[default]
    Every,
    /// It gets the newest publication of each key, in order; what a newer one has replaced is skipped.
    Latest,
    /// Overtaken it goes on at the newest keyframe, or waits for the next one.
    Keyframe,
    /// Overtaken it goes on at the tail.
    Drop,
}

impl Policy {
    /// All, each at the index that is its value.
    pub const ALL: [Self; 4] = [Self::Every, Self::Latest, Self::Keyframe, Self::Drop];
    /// What the application calls them, in the same order.
    pub const NAMES: [&'static str; 4] = ["every", "latest", "keyframe", "drop"];

    /// What the application calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The one that is called so.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.name() == name)
    }
}

/// Where a subscriber begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With what is published from now on.
    Live,
    /// At the newest keyframe that is kept; live, if there is none.
    #[default]
    Keyframe,
    /// With the oldest publication that is kept; in a channel of [`Policy::Latest`] with the newest of each key.
    History,
}

impl Start {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Live, Self::Keyframe, Self::History];
    /// What the application and clients call them, in the same order.
    pub const NAMES: [&'static str; 3] = ["live", "keyframe", "history"];

    /// What the application and clients call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The one that is called so.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|start| start.name() == name)
    }
}

/// Where one subscriber wants to begin in one channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The last publication that it had: it wants what it missed.
    pub since: Option<Position>,
    /// Where else, or without a position; `None` is the channel's own [`Start`].
    pub start: Option<Start>,
}

/// Where it does begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seek {
    /// The next byte of the log.
    pub(crate) cursor: u64,
    /// How it reads from there.
    pub(crate) mode: Mode,
    /// The publication before the first that it gets.
    pub position: Position,
    /// Whether it gets all that it missed; `None` if it did not ask.
    pub recovered: Option<bool>,
    /// The application is to be asked for a keyframe.
    pub(crate) asks: bool,
}

/// How a cursor reads until it is at the tail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As the channel's policy says.
    #[default]
    Lagging,
    /// Everything, also what is replaced already: it was promised so.
    Replaying,
    /// As `Replaying`, and the frame at the cursor, a keyframe, is for it in any case.
    AtKeyframe,
    /// Nothing before the next keyframe.
    AwaitingKeyframe,
    /// At the tail: everything as it comes. Nobody who lags reads so.
    Live,
}
