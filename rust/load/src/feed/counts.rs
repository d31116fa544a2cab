//! What arrived at all clients together.

use serde::Serialize;

/// What arrived at some of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Arrived {
    pub(super) messages: u64,
    /// Those of them that were compressed.
    pub(super) compressed: u64,
    /// Bytes of everything after the answer to the upgrade.
    pub(super) wire_bytes: u64,
}

/// Since counting began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    /// At those who were there when counting began.
    pub(super) settled: Arrived,
    /// At those who came later.
    pub(super) newcomers: Arrived,
    /// Those who came.
    pub(super) came: u64,
    /// Messages that were looked at.
    pub(super) checked: u64,
    /// Messages that were left out before one that was looked at.
    pub(super) gaps: u64,
    /// What cannot be inflated, or is no message of the feed.
    pub(super) malformed: u64,
    /// Connections that ended by themselves.
    pub(super) closed: u64,
}

impl Counts {
    /// Those that a client belongs to.
    pub(super) fn of(&mut self, is_newcomer: bool) -> &mut Arrived {
        if is_newcomer { &mut self.newcomers } else { &mut self.settled }
    }

    /// All messages.
    pub(super) fn received(&self) -> u64 {
        self.settled.messages + self.newcomers.messages
    }
}
