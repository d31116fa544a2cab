//! What other threads give to a link's thread, and how much may wait.
use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fanwire_core::Position;
use fanwire_core::node::Keep;
use tokio::sync::Notify;

use crate::api::{Full, Options};

/// What a publication costs beside its bytes.
const CALL_BYTES: usize = 128;

/// A publication that waits.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) ticket: u64,
    pub(crate) channel: Box<str>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) keep: Keep,
    pub(crate) idempotency_key: Option<Box<str>>,
}

impl Publication {
    /// What it counts for, as long as it waits.
    pub(crate) fn cost(&self) -> usize {
        let key = self.idempotency_key.as_ref().map_or(0, |key| key.len());
        self.bytes.len() + self.channel.len() + key + CALL_BYTES
    }
}

/// A question for what a channel keeps.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) channel: Box<str>,
    pub(crate) after: Position,
    pub(crate) limit: usize,
}

impl Question {
    pub(crate) fn cost(&self) -> usize {
        self.channel.len() + CALL_BYTES
    }
}

/// What is to be told to machines.
#[derive(Debug)]
pub(crate) struct Telling {
    /// The machine, or all.
    pub(crate) to: Option<u64>,
    pub(crate) bytes: Vec<u8>,
}

impl Telling {
    pub(crate) fn cost(&self) -> usize {
        self.bytes.len() + CALL_BYTES
    }
}

/// What the thread takes at once.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) publications: Vec<Publication>,
    pub(crate) questions: Vec<Question>,
    pub(crate) tellings: Vec<Telling>,
    /// Channels of which a snapshot is asked for.
    pub(crate) snapshots: HashSet<Box<str>>,
    /// Which patterns are listened to from now on, and which no longer; the last word about each.
    pub(crate) patterns: HashMap<Box<str>, bool>,
    /// Which channels are wanted from now on, with what is kept, and which no longer; the last word about each.
    pub(crate) wants: HashMap<Box<str>, Option<Keep>>,
    /// The latest positions that the caller knows.
    pub(crate) seen: HashMap<Box<str>, Position>,
}

#[derive(Debug, Default)]
struct State {
    taken: Taken,
    /// What waits here and in the thread: publications and questions without an answer.
    waiting: usize,
    waiting_bytes: usize,
}

/// The queue between all threads and the link's.
#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    bell: Notify,
    waiting_bytes_max: usize,
    waiting_max: usize,
    record_bytes_max: usize,
}

impl Inbox {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            state: Mutex::default(),
            bell: Notify::new(),
            waiting_bytes_max: options.waiting_bytes_max,
            waiting_max: options.waiting_max,
            record_bytes_max: options.record_bytes_max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, state: &mut State, cost: usize) -> Result<(), Full> {
        let bytes_max = self.waiting_bytes_max;
        if state.waiting >= self.waiting_max {
            return Err(Full::Count { waiting: state.waiting });
        }
        if state.waiting > 0 && state.waiting_bytes + cost > bytes_max {
            return Err(Full::Bytes { waiting: state.waiting_bytes, bytes_max });
        }
        state.waiting += 1;
        state.waiting_bytes += cost;
        Ok(())
    }

    pub(crate) fn publish(&self, publication: Publication) -> Result<(), Full> {
        let (bytes, bytes_max) = (publication.bytes.len(), self.record_bytes_max);
        if bytes > bytes_max {
            return Err(Full::TooLarge { bytes, bytes_max });
        }
        let mut state = self.lock();
        self.admit(&mut state, publication.cost())?;
        state.taken.publications.push(publication);
        drop(state);
        self.bell.notify_one();
        Ok(())
    }

    pub(crate) fn ask(&self, question: Question) -> Result<(), Full> {
        let mut state = self.lock();
        self.admit(&mut state, question.cost())?;
        state.taken.questions.push(question);
        drop(state);
        self.bell.notify_one();
        Ok(())
    }

    pub(crate) fn tell(&self, telling: Telling) -> Result<(), Full> {
        let mut state = self.lock();
        self.admit(&mut state, telling.cost())?;
        state.taken.tellings.push(telling);
        drop(state);
        self.bell.notify_one();
        Ok(())
    }

    pub(crate) fn listen(&self, pattern: &str, is_begun: bool) {
        self.lock().taken.patterns.insert(pattern.into(), is_begun);
        self.bell.notify_one();
    }

    pub(crate) fn snapshot(&self, channel: &str) {
        self.lock().taken.snapshots.insert(channel.into());
        self.bell.notify_one();
    }

    /// These are told, or never will be.
    pub(crate) fn told(&self, tellings: &[Telling]) {
        self.settled(tellings.len(), tellings.iter().map(Telling::cost).sum());
    }

    pub(crate) fn want(&self, channels: &[&str], keep: Option<Keep>) {
        let mut state = self.lock();
        state.taken.wants.extend(channels.iter().map(|&channel| (Box::from(channel), keep)));
        drop(state);
        self.bell.notify_one();
    }

    pub(crate) fn seen(&self, channel: &str, top: Position) {
        let mut state = self.lock();
        match state.taken.seen.get_mut(channel) {
            Some(known) => *known = top.max(*known),
            None => drop(state.taken.seen.insert(Box::from(channel), top)),
        }
        drop(state);
        self.bell.notify_one();
    }

    /// Takes all that waits. What is published counts on until [`settled`](Self::settled).
    pub(crate) fn take(&self) -> Taken {
        mem::take(&mut self.lock().taken)
    }

    /// So many calls have their answer.
    pub(crate) fn settled(&self, calls: usize, cost: usize) {
        let mut state = self.lock();
        state.waiting -= calls;
        state.waiting_bytes -= cost;
    }

    /// How many calls wait for an answer, and what they cost.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let state = self.lock();
        (state.waiting, state.waiting_bytes)
    }

    /// Wakes the thread.
    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Until something waits, or [`ring`](Self::ring).
    pub(crate) async fn rung(&self) {
        self.bell.notified().await;
    }
}
