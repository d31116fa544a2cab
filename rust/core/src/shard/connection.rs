//! What a shard keeps of one connection. Every byte here is paid for each idle client.
use std::os::fd::OwnedFd;
use std::sync::Arc;

use smallvec::SmallVec;

use super::event_ids::EventIds;
use super::transport::Transport;
use crate::channel::{Inflates, Mode};
use crate::clock::NO_TICK;
use crate::messages::ClosedBy;
use crate::protocol::Format;
use crate::routes::Placed;
use crate::session::Session;
use crate::ws::CloseCode;

/// A transport, what is spoken on it, and what it watches.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) transport: Transport,
    pub(crate) session: Session,
    pub(crate) generation: u32,
    /// The tick in which it came.
    pub(crate) since_tick: u32,
    pub(crate) format: Format,
    /// What its client inflates; `None` where nothing was agreed.
    pub(crate) inflates: Option<Inflates>,
    /// The application knows of it and wants to hear of its end.
    pub(crate) is_reported: bool,
    /// The application wants to hear when its private bytes are out.
    pub(crate) wants_drained: bool,
    /// Messages that the application has not dealt with.
    pub(crate) pending: u16,
    /// By which path it came; none before its request has been read.
    pub(crate) route: Option<Arc<Placed>>,
    /// Its subscriptions, in no order.
    pub(crate) subscriptions: SmallVec<[Subscription; 1]>,
    /// The rule that the peer broke, while the application still owes answers to what came before.
    pub(crate) failure: Option<Box<(CloseCode, String)>>,
    /// Why it ends, once that is known.
    pub(crate) ending: Option<Box<Ending>>,
    /// Of an event stream with several channels: where it is in each.
    pub(crate) event_ids: Option<Box<EventIds>>,
}

const _: () = assert!(size_of::<Connection>() <= 168, "120,000 of them are to cost less than 20 MB");

/// Where a connection reads a channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subscription {
    /// The shard's feed.
    pub(crate) feed: u32,
    /// Place in the feed's list: of those at the tail, or of the lagging.
    place: u32,
    /// Next byte to write, at a frame's edge. Counts only while lagging; at the tail it is the feed's.
    pub(crate) cursor: u64,
}

const LAGGING: u32 = 1 << 31;
/// Where the mode of one that lags stands, above the index.
const MODE_SHIFT: u32 = 29;
const INDEX_MASK: u32 = (1 << MODE_SHIFT) - 1;

impl Subscription {
    /// One that lags, at `cursor`, has a mode; one at the tail has none.
    pub(crate) fn new(feed: u32, index: usize, lagging: Option<Mode>, cursor: u64) -> Self {
        let mut subscription = Self { feed, place: 0, cursor };
        subscription.set_place(index, lagging);
        subscription
    }

    pub(crate) fn is_lagging(self) -> bool {
        self.place & LAGGING != 0
    }

    /// How it reads while it lags.
    pub(crate) fn mode(self) -> Mode {
        match self.place >> MODE_SHIFT & 3 {
            0 => Mode::Lagging,
            1 => Mode::Replaying,
            2 => Mode::AtKeyframe,
            _ => Mode::AwaitingKeyframe,
        }
    }

    pub(crate) fn set_mode(&mut self, mode: Mode) {
        self.set_place(self.index(), Some(mode));
    }

    /// Index in the list that it stands in.
    pub(crate) fn index(self) -> usize {
        (self.place & INDEX_MASK) as usize
    }

    /// It stands at this index of the same list as before.
    pub(crate) fn set_index(&mut self, index: usize) {
        self.place = self.place & !INDEX_MASK | index as u32;
    }

    pub(crate) fn set_place(&mut self, index: usize, lagging: Option<Mode>) {
        self.place = index as u32 | lagging.map_or(0, |mode| LAGGING | (mode as u32) << MODE_SHIFT);
    }
}

/// Bytes that a peer may send behind its end before it is cut off: it is heard out so that it can read why (RFC 9112 §9.6).
pub(crate) const LINGER_BYTES_MAX: usize = 16 << 20;

/// Why a connection ends.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) code: u16,
    pub(crate) reason: String,
    pub(crate) by: ClosedBy,
    /// Bytes that came since, and were thrown away.
    pub(crate) thrown_away: usize,
}

impl Connection {
    pub(crate) fn new(fd: Option<OwnedFd>, generation: u32) -> Self {
        Self {
            transport: Transport::new(fd),
            session: Session::default(),
            generation,
            since_tick: NO_TICK,
            format: Format::Raw,
            inflates: None,
            is_reported: false,
            wants_drained: false,
            pending: 0,
            route: None,
            subscriptions: SmallVec::new(),
            failure: None,
            ending: None,
            event_ids: None,
        }
    }

    /// Whether it may get publications and private messages.
    pub(crate) fn takes_publications(&self) -> bool {
        self.session.takes_publications()
    }
}
