//! What shards and the thread leave with each other.
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::signature::{Key, Stamped, marked, wall_seconds};
use crate::connection_id::ConnectionId;
use crate::notify::Bell;
use crate::tokens::Token;

/// Machines whose keys are remembered, 200 bytes each: a token that nobody made is tried with each.
const KEYS_MAX: usize = 256;

/// What shards hold of it.
#[derive(Debug)]
pub(crate) struct Siblings {
    /// The number of this worker.
    pub(super) worker: u8,
    key: Key,
    /// Those of other machines, the newest last.
    elsewhere: RwLock<VecDeque<(Box<[u8]>, Key)>>,
    errands: Mutex<Vec<Errand>>,
    /// Wakes the thread.
    pub(crate) bell: Arc<Bell>,
}

impl Siblings {
    pub(crate) fn new(worker: u8, key: &[u8]) -> std::io::Result<Self> {
        let (elsewhere, errands) = Default::default();
        Ok(Self { worker, key: Key::new(key), elsewhere, errands, bell: Arc::new(Bell::new()?) })
    }

    /// What a token begins with that this worker issues now, to be claimed within so many seconds.
    pub(crate) fn stamp(&self, is_stateful: bool, within_s: u64) -> crate::tokens::Stamp {
        let until = wall_seconds().saturating_add(u32::try_from(within_s).unwrap_or(u32::MAX));
        Stamped { home: Some(self.worker), is_stateful, until }.write()
    }

    /// A token as the client of the hub at `path` gets it.
    pub(crate) fn text_of(&self, token: &Token, path: &str) -> String {
        self.key.text_of(token, path)
    }

    /// The token that a client of the hub at `path` has sent, if one of these workers has issued it, or another machine.
    pub(crate) fn read(&self, text: &str, path: &str) -> Option<Token> {
        let elsewhere = || self.elsewhere.read().unwrap_or_else(PoisonError::into_inner);
        let by_others = || elsewhere().iter().rev().find_map(|(_, key)| key.read(text, path)).map(marked);
        self.key.read(text, path).or_else(by_others)
    }

    /// Another machine signs with this key.
    pub(crate) fn learn(&self, key: &[u8]) {
        let mut elsewhere = self.elsewhere.write().unwrap_or_else(PoisonError::into_inner);
        if elsewhere.iter().any(|known| *known.0 == *key) {
            return;
        }
        elsewhere.push_back((key.into(), Key::new(key)));
        if elsewhere.len() > KEYS_MAX {
            elsewhere.pop_front();
        }
    }

    /// Whether this worker has issued a token.
    pub(crate) fn has_issued(&self, token: &Token) -> bool {
        Stamped::of(token).home == Some(self.worker)
    }

    pub(crate) fn leave(&self, errand: Errand) {
        let mut errands = self.errands.lock().unwrap_or_else(PoisonError::into_inner);
        errands.push(errand);
        let is_first = errands.len() == 1;
        drop(errands);
        if is_first {
            self.bell.ring();
        }
    }

    pub(super) fn take(&self) -> Vec<Errand> {
        std::mem::take(&mut *self.errands.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A request that another worker has passed on: over which link it came, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GuestId {
    pub(crate) link: u64,
    pub(crate) number: u64,
}

/// A request for a connection that is not here.
#[derive(Debug)]
pub struct Outgoing {
    pub(crate) token: Token,
    /// The number of its route here.
    pub(crate) route: u64,
    /// Where its client is, as the application is told; empty: where its socket says.
    pub(crate) client: Box<str>,
    /// What has been read: its head, and perhaps more.
    pub(crate) bytes: Vec<u8>,
}

/// What a shard leaves with the thread.
#[derive(Debug)]
pub(crate) enum Errand {
    /// Pass on a request; it comes back if the connection is nowhere else.
    Request(ConnectionId, Outgoing),
    /// Pass on the socket on which it came, from this shard.
    Socket(usize, OwnedFd, Outgoing),
    /// More of a request's body.
    More(ConnectionId, Vec<u8>),
    /// The poll is to be answered now, if with nothing.
    Hurry(ConnectionId),
    /// Nobody waits any more for what was passed on.
    Abandon(ConnectionId),
    /// All that came of a guest's body was taken.
    Taken(GuestId),
    /// Bytes of the response to a guest; with the last of them, whether its connection may carry another request.
    Response(GuestId, Vec<u8>, Option<bool>),
    /// A guest was dropped without an answer.
    Lost(GuestId),
    /// This shard has the connection that a guest is for.
    Pass(GuestId, usize, Box<str>, Vec<u8>),
    /// End, once all that was said before is out.
    Stop,
}

/// What the thread leaves with a shard.
#[derive(Debug)]
pub enum Delivery {
    /// A request is to be dealt with here: its token is here, or nowhere.
    Returned(ConnectionId, Vec<u8>, Sought),
    /// So is this one, of which the socket was passed on; or comes from another worker.
    Socket(OwnedFd, Outgoing, Sought),
    /// Bytes of the response to a request that was passed on; see [`Errand::Response`].
    Response(ConnectionId, Vec<u8>, Option<bool>),
    /// Its body may go on.
    Taken(ConnectionId),
    /// It gets no answer.
    Lost(ConnectionId),
    /// A request from another worker: where its client is, and its bytes.
    Guest(GuestId, Box<str>, Vec<u8>),
    /// More of its body.
    More(GuestId, Vec<u8>),
    /// It is to be answered now, if it is a poll.
    Hurry(GuestId),
    /// Nobody waits for its answer any more.
    Leave(GuestId),
}

/// What became of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sought {
    /// The token is here, or nobody has it.
    Settled,
    /// Who knows does not answer.
    Unknown,
}

/// Where the thread leaves what is for shards, and for the log.
pub(crate) trait Office: Send {
    /// So many shards there are.
    fn shards(&self) -> usize;
    fn deliver(&self, shard: usize, delivery: Delivery);
    fn record(&self, level: u8, text: String);
}

/// Where the socket of a worker stands.
pub(super) fn socket_path(folder: &Path, worker: u8) -> PathBuf {
    folder.join(format!("worker-{worker}.sock"))
}

/// Who waits for a search.
#[derive(Debug)]
pub(super) enum Asker {
    Request(ConnectionId, Outgoing),
    Socket(usize, OwnedFd, Outgoing),
    /// Another worker took the connection for one of this one's, which it may be about to be.
    Guest(GuestId, Box<str>, Vec<u8>),
}

/// A request that was passed on, or is about to be.
#[derive(Debug, Default)]
pub(super) struct Passed {
    pub(super) link: Option<u64>,
    pub(super) is_hurried: bool,
}
