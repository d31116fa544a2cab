//! Tokens of SignalR connections: given out by a negotiate, claimed by the first transport, known until the end.
//!
//! A token is the secret by which later requests find their connection, on whatever socket and shard they come in. Where
//! several workers serve, a token is signed as well: see [`siblings`](crate::siblings).
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use crate::connection_id::ConnectionId;
use crate::error::EngineError;
use crate::notify::Bell;
use crate::socket;

/// Sixteen bytes from the system's random source. Of a signed one they begin with its [`stamp`](Tokens::issue).
pub(crate) type Token = [u8; 16];

/// What a signed token says in plain.
pub(crate) type Stamp = [u8; 6];

/// Tokens that may be known at once: about 100 bytes each.
const TOKENS_MAX: usize = 1 << 20;

/// What stands behind a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Negotiated {
    /// The number of its route.
    pub(crate) route: u64,
    pub(crate) claim: Claim,
}

const _: () = assert!(size_of::<Negotiated>() <= 24, "every SignalR connection has one");

/// Whose a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// A transport may claim it.
    Open {
        /// The client may reconnect statefully then.
        is_stateful: bool,
    },
    /// That of this connection.
    By(ConnectionId),
    /// The first request for it came to this worker, which decides on it from then on.
    Lent(u8),
}

/// All tokens of an engine.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    inner: Mutex<Inner>,
    /// Which worker this is, and who is rung when one that another has issued is over.
    of_worker: Option<(u8, Arc<Bell>)>,
}

#[derive(Debug, Default)]
struct Inner {
    known: HashMap<Token, Negotiated>,
    /// Those that were given out, with the end of their time, oldest first; also ones that were claimed since.
    waiting: VecDeque<(u64, Token)>,
    /// Those that other workers have issued and that are over.
    gone: Vec<Token>,
}

impl Tokens {
    /// Those of one of several workers: `bell` is rung when [`take_gone`](Self::take_gone) has something to give.
    pub(crate) fn of_worker(worker: u8, bell: Arc<Bell>) -> Self {
        Self { of_worker: Some((worker, bell)), ..Self::default() }
    }

    fn with<R>(&self, act: impl FnOnce(&mut Inner) -> R) -> R {
        act(&mut self.inner.lock().expect("no code panics while it holds the tokens"))
    }

    /// Gives out a token that a transport must claim before `deadline_ns`; with a stamp it begins with that.
    ///
    /// # Errors
    /// [`EngineError::LimitReached`] when too many wait; [`EngineError::NoRandom`].
    pub(crate) fn issue(
        &self,
        stamp: Option<Stamp>,
        (route, is_stateful): (u64, bool),
        now_ns: u64,
        deadline_ns: u64,
    ) -> Result<Token, EngineError> {
        let mut token = random()?;
        if let Some(stamp) = stamp {
            token[..stamp.len()].copy_from_slice(&stamp);
        }
        self.add(token, (route, is_stateful), now_ns, deadline_ns).map(|()| token)
    }

    /// Takes over a token that another worker has issued: from now on it is as one of this engine's own.
    ///
    /// # Errors
    /// [`EngineError::LimitReached`].
    pub(crate) fn add(
        &self,
        token: Token,
        (route, is_stateful): (u64, bool),
        now_ns: u64,
        deadline_ns: u64,
    ) -> Result<(), EngineError> {
        self.with(|inner| {
            self.forget_late(inner, now_ns);
            let count = inner.known.len();
            if count >= TOKENS_MAX {
                let (value, bound) = (count as u64 + 1, TOKENS_MAX as u64);
                return Err(EngineError::LimitReached { name: "negotiated connections", value, bound });
            }
            inner.known.insert(token, Negotiated { route, claim: Claim::Open { is_stateful } });
            inner.waiting.push_back((deadline_ns, token));
            Ok(())
        })
    }

    /// A worker asks for a token of this engine's: what it is from now on. The first that asks gets one that is open.
    pub(crate) fn lend(&self, token: &Token, to: u8, now_ns: u64) -> Option<Lending> {
        self.with(|inner| {
            self.forget_late(inner, now_ns);
            let negotiated = inner.known.get_mut(token)?;
            Some(match negotiated.claim {
                Claim::Open { .. } => {
                    negotiated.claim = Claim::Lent(to);
                    inner.forget_claimed();
                    Lending::Given
                }
                Claim::By(_) => Lending::Kept,
                Claim::Lent(worker) => Lending::Lent(worker),
            })
        })
    }

    /// A worker has no more to do with a token that was lent to it.
    pub(crate) fn forget_lent(&self, token: &Token, to: u8) {
        self.with(|inner| {
            if inner.known.get(token).is_some_and(|negotiated| negotiated.claim == Claim::Lent(to)) {
                inner.known.remove(token);
            }
        });
    }

    /// A worker is gone, and with it all that was lent to it.
    pub(crate) fn forget_all_lent(&self, to: u8) {
        self.with(|inner| inner.known.retain(|_, negotiated| negotiated.claim != Claim::Lent(to)));
    }

    /// Those of other workers that are over, since the last call.
    pub(crate) fn take_gone(&self) -> Vec<Token> {
        self.with(|inner| std::mem::take(&mut inner.gone))
    }

    /// What stands behind a token, unless its time is over.
    pub(crate) fn find(&self, token: &Token, now_ns: u64) -> Option<Negotiated> {
        self.with(|inner| {
            self.forget_late(inner, now_ns);
            inner.known.get(token).copied()
        })
    }

    /// A transport takes the token for its connection: whether its client may reconnect statefully. `None` when it is not
    /// there to be taken.
    pub(crate) fn claim(&self, token: &Token, id: ConnectionId) -> Option<bool> {
        self.with(|inner| {
            let negotiated = inner.known.get_mut(token)?;
            let Claim::Open { is_stateful } = negotiated.claim else { return None };
            negotiated.claim = Claim::By(id);
            inner.forget_claimed();
            Some(is_stateful)
        })
    }

    /// The connection is over, and with it its token.
    pub(crate) fn forget(&self, token: &Token) {
        self.with(|inner| self.remove(inner, token));
    }

    fn forget_late(&self, inner: &mut Inner, now_ns: u64) {
        while let Some(&(deadline_ns, token)) = inner.waiting.front() {
            if deadline_ns > now_ns {
                return;
            }
            inner.waiting.pop_front();
            if inner.is_open(&token) {
                self.remove(inner, &token);
            }
        }
    }

    fn remove(&self, inner: &mut Inner, token: &Token) {
        let is_known = inner.known.remove(token).is_some();
        if let Some((_, bell)) = self.of_worker.as_ref().filter(|(worker, _)| is_known && *worker != token[0]) {
            if inner.gone.is_empty() {
                bell.ring();
            }
            inner.gone.push(*token);
        }
    }
}

/// What becomes of a token for which another worker asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lending {
    /// It is that worker's from now on.
    Given,
    /// It is the one of a connection here.
    Kept,
    /// It was lent to this worker before.
    Lent(u8),
}

impl Inner {
    /// Those that stand before all who still wait need not be looked at when their time is over: a list of them would hold
    /// as much as the connections' tokens.
    fn forget_claimed(&mut self) {
        while let Some((_, token)) = self.waiting.front()
            && !self.is_open(token)
        {
            self.waiting.pop_front();
        }
    }

    fn is_open(&self, token: &Token) -> bool {
        self.known.get(token).is_some_and(|negotiated| matches!(negotiated.claim, Claim::Open { .. }))
    }
}

/// Tokens that are asked for at once: one system call for all of them.
const BLOCK: usize = 64;

thread_local! {
    static NEXT: RefCell<Block> = const { RefCell::new(Block { forks: 0, tokens: [[0; 16]; BLOCK], left: 0 }) };
}

/// Random tokens that are given out one after another. A child that is forked has a copy of what its parent gives out next,
/// so it throws that away.
struct Block {
    /// Of the process that asked for it.
    forks: u32,
    tokens: [Token; BLOCK],
    left: usize,
}

impl Block {
    fn next(&mut self) -> Result<Token, EngineError> {
        let forks = socket::forks();
        if self.left == 0 || self.forks != forks {
            self.left = 0;
            getrandom::fill(self.tokens.as_flattened_mut())
                .map_err(|cause| EngineError::NoRandom { cause: cause.to_string() })?;
            (self.left, self.forks) = (BLOCK, forks);
        }
        self.left -= 1;
        Ok(std::mem::take(&mut self.tokens[self.left])) // nobody finds it here afterwards
    }
}

/// A token nobody can guess.
///
/// # Errors
/// [`EngineError::NoRandom`].
pub(crate) fn random() -> Result<Token, EngineError> {
    NEXT.with_borrow_mut(Block::next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_claimed_once_and_in_time() {
        let tokens = Tokens::default();
        let (one, other) =
            (tokens.issue(None, (0, true), 0, 15).expect("room"), tokens.issue(None, (1, false), 0, 15).expect("room"));
        assert_ne!(one, other);
        let id = ConnectionId::from_bits(7);
        let open = Claim::Open { is_stateful: true };
        assert_eq!(tokens.find(&one, 14), Some(Negotiated { route: 0, claim: open }));
        assert_eq!((tokens.claim(&one, id), tokens.claim(&one, id)), (Some(true), None));
        assert_eq!(tokens.find(&one, 15), Some(Negotiated { route: 0, claim: Claim::By(id) }));
        assert_eq!(tokens.find(&other, 15), None);
        assert!(tokens.claim(&other, id).is_none());
        tokens.forget(&one);
        assert_eq!(tokens.find(&one, 15), None);
    }

    #[test]
    fn tokens_that_are_claimed_wait_for_no_time() {
        let tokens = Tokens::default();
        let id = ConnectionId::from_bits(7);
        let issued: Vec<Token> = (0..100).map(|_| tokens.issue(None, (0, false), 0, 15).expect("room")).collect();
        assert!(issued.iter().skip(1).all(|token| tokens.claim(token, id) == Some(false)));
        assert_eq!(tokens.with(|inner| inner.waiting.len()), 100, "behind one that still waits");
        assert_eq!(tokens.claim(&issued[0], id), Some(false));
        assert_eq!(tokens.with(|inner| (inner.waiting.len(), inner.known.len())), (0, 100));
    }

    #[test]
    fn a_token_is_lent_to_the_first_who_asks_and_none_that_is_claimed() {
        let tokens = Tokens::of_worker(3, Arc::new(Bell::new().expect("a descriptor")));
        let issue = || tokens.issue(Some([3; 6]), (0, false), 0, 15).expect("room");
        let (one, other) = (issue(), issue());
        let lent = [7, 8, 7].map(|worker| tokens.lend(&one, worker, 1));
        assert_eq!(lent, [Some(Lending::Given), Some(Lending::Lent(7)), Some(Lending::Lent(7))]);
        let id = ConnectionId::from_bits(7);
        assert_eq!((tokens.claim(&one, id), tokens.claim(&other, id)), (None, Some(false)));
        assert_eq!((tokens.lend(&other, 7, 1), tokens.lend(&[0; 16], 7, 1)), (Some(Lending::Kept), None));
        assert!(tokens.find(&one, 99).is_some(), "it has no time of its own");
        tokens.forget_lent(&one, 8);
        assert!(tokens.find(&one, 99).is_some(), "it is not this one's");
        tokens.forget_lent(&one, 7);
        tokens.forget_all_lent(7);
        assert!(tokens.find(&one, 99).is_none() && tokens.find(&other, 99).is_some());
        assert!(tokens.take_gone().is_empty());
    }

    #[test]
    fn of_others_tokens_it_is_told_when_they_are_over() {
        let bell = Arc::new(Bell::new().expect("a descriptor"));
        let tokens = Tokens::of_worker(3, Arc::clone(&bell));
        let (theirs, late) = ([4; 16], [5; 16]);
        tokens.add(theirs, (0, true), 0, 15).expect("room");
        tokens.add(late, (0, true), 0, 20).expect("room");
        assert_eq!(tokens.claim(&theirs, ConnectionId::from_bits(7)), Some(true));
        tokens.forget(&theirs);
        assert!(bell.is_rung() && tokens.take_gone() == [theirs]);
        tokens.forget(&theirs);
        assert_eq!((tokens.find(&late, 20), tokens.take_gone()), (None, vec![late]));
    }
}
