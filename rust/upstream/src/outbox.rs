//! What waits to be sent in one session, between the callers' threads and the one that writes.
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::api::CloseFrame;

/// So many bytes above [`Open::queue_bytes_max`](crate::Open::queue_bytes_max) end the session: its caller does not hold
/// back.
pub const QUEUE_SLACK_BYTES: usize = 1024 * 1024;

/// What is joined into one frame, at most, unless one call gave more: what a session's buffer grows to.
const JOIN_BYTES_MAX: usize = 16 * 1024;

/// What bytes in the queue are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Whole records of a hub protocol, which may be joined with others.
    Records,
    /// A message of a plain WebSocket: text.
    Text,
    /// The same, binary.
    Binary,
}

/// The queue of one session.
pub(crate) struct Outbox {
    /// The caller's bound.
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(Kind, Vec<u8>)>,
    /// In the queue, and taken from it but not yet with the socket.
    bytes: usize,
    /// Whether a `Drained` is owed.
    was_over: bool,
    /// What did not fit below the bound that ends a session.
    overflow_bytes: Option<usize>,
    is_closing: bool,
    /// What the peer is told then.
    farewell: Option<CloseFrame>,
    is_gone: bool,
    /// Of the session's task.
    waker: Option<Waker>,
}

impl State {
    /// Has this task woken when there are bytes, or the end was asked for.
    fn watch(&mut self, context: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => self.waker = Some(context.waker().clone()),
        }
    }
}

/// Wakes the task, with the lock released.
fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// What the task finds.
pub(crate) enum Next {
    /// Bytes to be sent.
    Bytes(Kind, Vec<u8>),
    /// Nothing now; the task is woken when there is.
    Nothing,
    /// Nothing, and nothing will be: close.
    Close,
}

impl Outbox {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, state: Mutex::default() }
    }

    /// Adds whole records, or a message; gives what waits, or `None` if the session is closed or closing.
    pub(crate) fn push(&self, kind: Kind, bytes: Vec<u8>) -> Option<usize> {
        let mut state = self.lock();
        if state.is_gone || state.is_closing {
            return None;
        }
        let bytes_now = state.bytes + bytes.len();
        if bytes_now > self.bytes_max.saturating_add(QUEUE_SLACK_BYTES) {
            state.overflow_bytes = Some(bytes_now);
        }
        // Kept even then, once, so that its calls are among those that fail; then the session is gone.
        state.bytes = bytes_now;
        state.was_over |= bytes_now > self.bytes_max;
        state.is_closing |= state.overflow_bytes.is_some();
        state.queue.push_back((kind, bytes));
        wake(state);
        Some(bytes_now)
    }

    /// Asks for the end, behind what waits; the first who does says what the peer is told.
    pub(crate) fn close(&self, farewell: Option<CloseFrame>) {
        let mut state = self.lock();
        if !state.is_closing {
            state.farewell = farewell;
        }
        state.is_closing = true;
        wake(state);
    }

    /// Ready once the end was asked for.
    pub(crate) fn poll_closing(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.is_closing {
            return Poll::Ready(());
        }
        state.watch(context);
        Poll::Pending
    }

    /// So many bytes came, of so many that may wait: why it closes, if that is why.
    pub(crate) fn overflow(&self) -> Option<(usize, usize)> {
        self.lock().overflow_bytes.map(|bytes| (bytes, self.bytes_max.saturating_add(QUEUE_SLACK_BYTES)))
    }

    /// What is to be sent next, in one frame.
    pub(crate) fn take(&self, context: &mut Context<'_>) -> Next {
        let mut state = self.lock();
        let Some((kind, mut joined)) = state.queue.pop_front() else {
            if state.is_closing {
                return Next::Close;
            }
            state.watch(context);
            return Next::Nothing;
        };
        while kind == Kind::Records
            && let Some((_, next)) = state.queue.front().filter(|(_, next)| joined.len() + next.len() <= JOIN_BYTES_MAX)
        {
            joined.extend_from_slice(next);
            state.queue.pop_front();
        }
        Next::Bytes(kind, joined)
    }

    /// So many bytes are with the socket; whether a `Drained` is due.
    pub(crate) fn sent(&self, bytes: usize) -> bool {
        let mut state = self.lock();
        state.bytes -= bytes;
        let is_drained = state.was_over && (state.bytes == 0 || state.bytes < self.bytes_max / 2);
        state.was_over &= !is_drained;
        is_drained
    }

    /// What the peer is told at the end that was asked for.
    pub(crate) fn farewell(&self) -> Option<CloseFrame> {
        self.lock().farewell.clone()
    }

    /// Whether all is with the socket.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().bytes == 0
    }

    /// Takes no more; gives what was never taken from the queue.
    pub(crate) fn finish(&self) -> VecDeque<(Kind, Vec<u8>)> {
        let mut state = self.lock();
        state.is_gone = true;
        state.waker = None;
        std::mem::take(&mut state.queue)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
