//! How far a client has come. No sockets.

/// What it waits for, or that it waits for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Waiting,
    Negotiating,
    Upgrading,
    ShakingHands,
    Subscribing,
    Open,
    /// It was open, and comes back.
    Away,
    /// Open, and not read any more.
    Stalled,
    Over,
}

impl Stage {
    /// What is under way, for a failure's reason.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Waiting | Self::Away => "not begun",
            Self::Negotiating => "negotiate",
            Self::Upgrading => "upgrade",
            Self::ShakingHands => "handshake",
            Self::Subscribing => "subscribe",
            Self::Open | Self::Stalled | Self::Over => "open",
        }
    }
}
