//! What a shard did in a turn, as one client has it.
use super::list::List;
use crate::messages::Released;
use crate::position::Position;
use crate::shard::simulated::{Seen, Took};

/// What a shard did in a turn, as one client has it.
pub(super) struct Turn<'a> {
    pub(super) lists: &'a [List],
    pub(super) now_ns: u64,
    /// Others published while it wrote.
    pub(super) is_busy: bool,
    pub(super) seen: Option<&'a Seen>,
    pub(super) taken: Vec<u8>,
    pub(super) took: Vec<Took>,
    pub(super) came_short: bool,
    /// Of one that is adopted: why it is given up.
    pub(super) released: Option<&'a Released>,
    /// Of such a one: where its subscriptions have begun.
    pub(super) seats: Vec<(String, Position, Option<bool>)>,
    pub(super) is_half_closed: bool,
    pub(super) is_reset: bool,
    pub(super) close_timeout_ns: u64,
}

impl Turn<'_> {
    /// None, of which nothing is known.
    pub(super) fn empty() -> Self {
        Self {
            lists: &[],
            now_ns: 0,
            is_busy: false,
            seen: None,
            taken: Vec::new(),
            took: Vec::new(),
            came_short: false,
            released: None,
            seats: Vec::new(),
            is_half_closed: false,
            is_reset: false,
            close_timeout_ns: 0,
        }
    }
}
