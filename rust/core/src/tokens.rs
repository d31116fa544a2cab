//! Tokens of SignalR connections: given out by a negotiate, claimed by the first transport, known until the end.
//!
//! A token is the secret by which later requests find their connection, on whatever socket and shard they come in.
use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use crate::connection_id::ConnectionId;
use crate::error::EngineError;

/// Sixteen bytes from the system's random source.
pub(crate) type Token = [u8; 16];

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
}

/// All tokens of an engine.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    known: HashMap<Token, Negotiated>,
    /// Those that were given out, with the end of their time, oldest first; also ones that were claimed since.
    waiting: VecDeque<(u64, Token)>,
}

impl Tokens {
    fn with<R>(&self, act: impl FnOnce(&mut Inner) -> R) -> R {
        act(&mut self.inner.lock().expect("no code panics while it holds the tokens"))
    }

    /// Gives out a token that a transport must claim before `deadline_ns`.
    ///
    /// # Errors
    /// [`EngineError::LimitReached`] when too many wait; [`EngineError::NoRandom`].
    pub(crate) fn issue(
        &self,
        (route, is_stateful): (u64, bool),
        now_ns: u64,
        deadline_ns: u64,
    ) -> Result<Token, EngineError> {
        let token = random()?;
        self.with(|inner| {
            inner.forget_late(now_ns);
            let count = inner.known.len();
            if count >= TOKENS_MAX {
                let (value, bound) = (count as u64 + 1, TOKENS_MAX as u64);
                return Err(EngineError::LimitReached { name: "negotiated connections", value, bound });
            }
            inner.known.insert(token, Negotiated { route, claim: Claim::Open { is_stateful } });
            inner.waiting.push_back((deadline_ns, token));
            Ok(token)
        })
    }

    /// What stands behind a token, unless its time is over.
    pub(crate) fn find(&self, token: &Token, now_ns: u64) -> Option<Negotiated> {
        self.with(|inner| {
            inner.forget_late(now_ns);
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
        self.with(|inner| inner.known.remove(token));
    }
}

impl Inner {
    fn forget_late(&mut self, now_ns: u64) {
        while let Some(&(deadline_ns, token)) = self.waiting.front() {
            if deadline_ns > now_ns {
                return;
            }
            self.waiting.pop_front();
            if self.is_open(&token) {
                self.known.remove(&token);
            }
        }
    }

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

/// A token nobody can guess.
///
/// # Errors
/// [`EngineError::NoRandom`].
pub(crate) fn random() -> Result<Token, EngineError> {
    let mut token = [0; 16];
    getrandom::fill(&mut token).map_err(|cause| EngineError::NoRandom { cause: cause.to_string() })?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_claimed_once_and_in_time() {
        let tokens = Tokens::default();
        let (one, other) =
            (tokens.issue((0, true), 0, 15).expect("room"), tokens.issue((1, false), 0, 15).expect("room"));
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
        let issued: Vec<Token> = (0..100).map(|_| tokens.issue((0, false), 0, 15).expect("room")).collect();
        assert!(issued.iter().skip(1).all(|token| tokens.claim(token, id) == Some(false)));
        assert_eq!(tokens.with(|inner| inner.waiting.len()), 100, "behind one that still waits");
        assert_eq!(tokens.claim(&issued[0], id), Some(false));
        assert_eq!(tokens.with(|inner| (inner.waiting.len(), inner.known.len())), (0, 100));
    }
}
