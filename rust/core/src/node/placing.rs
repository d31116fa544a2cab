//! A publication that is on its way to its place.
use std::sync::{Mutex, PoisonError};

use crate::position::Position;

/// What became of a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It stands here.
    At(Position),
    /// It was refused, or nobody knows: this says why.
    Failed(Box<str>),
}

/// The place of one publication, which is known later.
#[derive(Debug, Default)]
pub struct Placing(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    outcome: Option<Outcome>,
    /// Whoever waits for it knows it by this.
    awaited_as: Option<u64>,
}

impl Placing {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What became of it, once that is known.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.lock().outcome.clone()
    }

    /// Somebody waits for it under this number. False if its outcome is known: nobody is told then.
    #[must_use]
    pub fn wait_as(&self, token: u64) -> bool {
        let mut state = self.lock();
        if state.outcome.is_none() {
            state.awaited_as = Some(token);
        }
        state.outcome.is_none()
    }

    /// Gives the number of who waits for it, if anybody does.
    pub(super) fn settle(&self, outcome: Outcome) -> Option<u64> {
        let mut state = self.lock();
        state.outcome = Some(outcome);
        state.awaited_as.take()
    }
}
