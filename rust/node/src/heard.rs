//! What programs are told by one another by way of an engine outside, until they take it.
use std::collections::{HashMap, VecDeque};
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use crate::answer::{Answer, Unplaced};

/// So many bytes wait; what comes beyond is left out, and counted.
const BYTES_MAX: usize = 16 << 20;
/// So many messages wait.
const COUNT_MAX: usize = 65_536;

/// What has come.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Told {
    /// A message, and where.
    Message(String, Vec<u8>),
    /// The engine is out of reach: what is said meanwhile is not heard.
    Down,
    /// It is reached, and all is heard again.
    Up,
    /// So many messages were left out, since too much waited.
    Missed(u64),
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Told>,
    bytes: usize,
    missed: u64,
    /// Who waits until a name is heard.
    asked: HashMap<String, Vec<Arc<Answer>>>,
    is_down: bool,
}

/// The queue of one program. Any thread.
#[derive(Debug)]
pub(crate) struct Heard {
    state: Mutex<State>,
    bell: OwnedFd,
}

impl Heard {
    pub(crate) fn new() -> std::io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { state: Mutex::default(), bell })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn descriptor(&self) -> i32 {
        self.bell.as_raw_fd()
    }

    fn ring(&self) {
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes()); // one that is full is readable
    }

    /// Somebody waits until this is heard.
    pub(crate) fn ask(&self, name: String) -> Arc<Answer> {
        let answer = Arc::<Answer>::default();
        self.lock().asked.entry(name).or_default().push(Arc::clone(&answer));
        answer
    }

    /// It is heard, or never will be.
    pub(crate) fn settle(&self, name: &str, outcome: Result<fanwire_core::Position, String>) {
        for answer in self.lock().asked.remove(name).unwrap_or_default() {
            answer.settle(outcome.clone().map_err(|why| Unplaced { why, may_stand: false }));
        }
    }

    pub(crate) fn message(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.lock();
        let cost = name.len() + bytes.len();
        if state.waiting.len() >= COUNT_MAX || (state.bytes > 0 && state.bytes + cost > BYTES_MAX) {
            state.missed += 1;
            return;
        }
        state.bytes += cost;
        state.waiting.push_back(Told::Message(name.to_owned(), bytes));
        drop(state);
        self.ring();
    }

    /// Whether the engine is out of reach.
    pub(crate) fn changed(&self, is_down: bool) {
        let mut state = self.lock();
        if mem::replace(&mut state.is_down, is_down) == is_down {
            return;
        }
        state.waiting.push_back(if is_down { Told::Down } else { Told::Up });
        drop(state);
        self.ring();
    }

    /// All that has come since the last call.
    pub(crate) fn take(&self) -> Vec<Told> {
        let _ = rustix::io::read(&self.bell, &mut [0; 8]); // before the look, so that what comes later rings again
        let mut state = self.lock();
        state.bytes = 0;
        let mut told: Vec<Told> = mem::take(&mut state.waiting).into();
        match mem::take(&mut state.missed) {
            0 => (),
            missed => told.push(Told::Missed(missed)),
        }
        told
    }

    /// Nothing more comes.
    pub(crate) fn end(&self) {
        let asked = mem::take(&mut self.lock().asked);
        for answer in asked.into_values().flatten() {
            answer.settle(Err(Unplaced { why: "it was closed meanwhile".to_owned(), may_stand: false }));
        }
        self.ring();
    }
}
