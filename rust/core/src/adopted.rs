//! What the threads that write to an adopted connection share with its shard: what is accepted, where the logs of its
//! channels ended at that moment, and how much waits.
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use smallvec::SmallVec;

use crate::channel::{Channel, Watch};

/// Where the logs of a connection's channels ended when something was asked of it: all up to there comes before that, what is
/// behind it after.
#[derive(Clone, Debug, Default)]
pub struct Barrier {
    /// In the order of their addresses; `None` where there are none.
    watches: Option<Arc<[Arc<Watch>]>>,
    /// Of each of them.
    tails: SmallVec<[u64; 2]>,
}

impl Barrier {
    /// Where the log ended that this is the eye on; `None` where the connection did not have that channel yet.
    pub(crate) fn of(&self, watch: &Arc<Watch>) -> Option<u64> {
        let found = self.watches().binary_search_by_key(&Arc::as_ptr(watch), Arc::as_ptr);
        found.ok().map(|index| self.tails[index])
    }

    /// Each log's.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<Watch>, u64)> {
        self.watches().iter().zip(self.tails.iter().copied())
    }

    fn watches(&self) -> &[Arc<Watch>] {
        self.watches.as_deref().unwrap_or_default()
    }

    /// Whether it has no channel.
    pub(crate) fn is_empty(&self) -> bool {
        self.watches.is_none()
    }

    /// Whether nothing was published and nothing subscribed between.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (&self.watches, &other.watches) {
            (None, None) => true,
            (Some(one), Some(same)) => Arc::ptr_eq(one, same) && self.tails == other.tails,
            _ => false,
        }
    }
}

/// One adopted connection, seen from outside its shard.
#[derive(Debug)]
pub struct Outgoing {
    inner: Mutex<Inner>,
    /// Private bytes that were accepted and that the socket has not taken.
    waiting: AtomicU64,
    /// Somebody wants to know when no more than so many wait; [`NOBODY`] if nobody does.
    below: AtomicU64,
}

const NOBODY: u64 = u64::MAX;

#[derive(Debug)]
struct Inner {
    /// What it is subscribed to, by all that was asked so far.
    channels: Vec<(Arc<Channel>, Arc<Watch>)>,
    /// Their watches, as barriers have them; `None` where they have changed.
    watches: Option<Arc<[Arc<Watch>]>>,
    /// How much was asked of it.
    accepted: u64,
    /// Nothing more is accepted.
    is_ending: bool,
    /// Who has it asks for nothing more, or it is over.
    is_let_go: bool,
}

impl Default for Outgoing {
    fn default() -> Self {
        let inner = Inner { channels: Vec::new(), watches: None, accepted: 0, is_ending: false, is_let_go: false };
        Self { inner: Mutex::new(inner), waiting: AtomicU64::new(0), below: AtomicU64::new(NOBODY) }
    }
}

impl Outgoing {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no code panics while it holds what an adopted connection shares")
    }

    /// Asks something of the shard: `ask` puts the command into its mailbox. It learns where the logs of the channels end,
    /// and nothing else is asked meanwhile. False, and nothing asked, once nothing more is accepted.
    pub(crate) fn ask(&self, bytes: usize, ask: impl FnOnce(Barrier)) -> bool {
        let mut inner = self.lock();
        if inner.is_ending {
            return false;
        }
        inner.accepted += 1;
        self.waiting.fetch_add(bytes as u64, Ordering::AcqRel);
        ask(inner.barrier());
        true
    }

    /// As [`ask`](Self::ask), also of one of which nothing else is accepted any more.
    pub(crate) fn ask_always(&self, ask: impl FnOnce()) {
        let mut inner = self.lock();
        inner.accepted += 1;
        ask();
    }

    /// As [`ask`](Self::ask), for the last time: also where the shard ends it already, which may wait for who has it.
    pub(crate) fn ask_last(&self, ask: impl FnOnce(Barrier)) {
        let mut inner = self.lock();
        inner.is_ending = true;
        if !std::mem::replace(&mut inner.is_let_go, true) {
            inner.accepted += 1;
            ask(inner.barrier());
        }
    }

    /// As [`ask`](Self::ask), to subscribe to this channel, if it is not subscribed to it.
    pub(crate) fn ask_to_join(&self, channel: &Arc<Channel>, watch: &Arc<Watch>, ask: impl FnOnce()) {
        let mut inner = self.lock();
        let is_new = !inner.channels.iter().any(|one| Arc::ptr_eq(&one.0, channel));
        if is_new && !inner.is_ending {
            inner.channels.push((Arc::clone(channel), Arc::clone(watch)));
            inner.watches = None;
            inner.accepted += 1;
            ask();
        }
    }

    /// As [`ask`](Self::ask), to unsubscribe from this channel, if it is subscribed to it.
    pub(crate) fn ask_to_leave(&self, channel: &Arc<Channel>, ask: impl FnOnce(Barrier)) {
        let mut inner = self.lock();
        let Some(at) = inner.channels.iter().position(|one| Arc::ptr_eq(&one.0, channel)) else { return };
        if inner.is_ending {
            return;
        }
        let barrier = inner.barrier();
        inner.channels.swap_remove(at);
        inner.watches = None;
        inner.accepted += 1;
        ask(barrier);
    }

    /// Nothing more is accepted. Gives how much was.
    pub(crate) fn refuse(&self) -> u64 {
        let mut inner = self.lock();
        inner.is_ending = true;
        inner.accepted
    }

    /// It is over: nothing waits any more, and no channel is held.
    pub(crate) fn end(&self) {
        let mut inner = self.lock();
        (inner.is_ending, inner.is_let_go, inner.watches) = (true, true, None);
        inner.channels.clear();
        self.waiting.store(0, Ordering::Release);
    }

    /// Private bytes that the socket has not taken.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Acquire)
    }

    /// The socket took so many of them. True when somebody is to be told that few enough are left.
    pub(crate) fn take(&self, count: usize) -> bool {
        self.waiting.fetch_sub(count as u64, Ordering::AcqRel);
        self.is_to_tell()
    }

    /// Somebody wants to know when no more than so many wait; [`is_to_tell`](Self::is_to_tell) has to be asked after this.
    pub(crate) fn want(&self, below: u64) {
        self.below.store(below.min(NOBODY - 1), Ordering::Release);
    }

    /// Whether somebody is to be told now, who is told once.
    pub(crate) fn is_to_tell(&self) -> bool {
        let below = self.below.load(Ordering::Acquire);
        below != NOBODY
            && self.waiting() <= below
            && self.below.compare_exchange(below, NOBODY, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Inner {
    fn barrier(&mut self) -> Barrier {
        let channels = &self.channels;
        if channels.is_empty() {
            return Barrier::default();
        }
        let watches = self.watches.get_or_insert_with(|| {
            let mut watches: Vec<_> = channels.iter().map(|one| Arc::clone(&one.1)).collect();
            watches.sort_unstable_by_key(Arc::as_ptr);
            watches.into()
        });
        // Without a lock of theirs: what this thread has published is there, and what others have may be.
        let tails = watches.iter().map(|watch| watch.tail()).collect();
        Barrier { watches: Some(Arc::clone(watches)), tails }
    }
}
