//! What other threads give to a link, and when they wake its thread.
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, ThreadId};

use crate::bell::Bell;
use crate::bounds::{Bounds, KEPT_BYTES_MAX};
use crate::error::SendError;
use crate::frame::{HEAD_BYTES, put};
use crate::thread::lock;

/// Deferred frames wake the link's thread when so many bytes wait.
const DEFERRED_BYTES_MAX: usize = 64 << 10;

/// Gives frames to a link. Any thread; clones give to the same one.
#[derive(Clone, Debug)]
pub struct LinkSender(Arc<Shared>);

impl LinkSender {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Queues a frame for the owner. Never waits; copies it once.
    ///
    /// Two calls from one thread arrive in that order. While there is no connection the frame is lost, and so is what waits
    /// when one breaks: see [`Linked::up`](crate::Linked::up). The link's thread is woken once for many.
    ///
    /// # Errors
    /// [`SendError::Full`] where too much waits, [`SendError::TooLong`]: nothing was queued.
    pub fn send(&self, frame: &[u8]) -> Result<(), SendError> {
        self.0.push(frame, false)
    }

    /// As [`send`](Self::send), but the link's thread is not woken before [`flush`](Self::flush), the next frame that is not
    /// deferred, or 64 KiB that wait. Where it is awake it may take the frame at once.
    ///
    /// # Errors
    /// As of [`send`](Self::send).
    pub fn send_deferred(&self, frame: &[u8]) -> Result<(), SendError> {
        self.0.push(frame, true)
    }

    /// Wakes the link's thread for what waits, if it does not know of it.
    pub fn flush(&self) {
        self.0.wake();
    }

    /// Whether there is a connection, and [`Linked::up`](crate::Linked::up) has returned.
    #[must_use]
    pub fn is_up(&self) -> bool {
        lock(&self.0.queue).stand == Stand::Up
    }

    /// How many bytes wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.waiting(&lock(&self.0.queue))
    }

    /// How often the link's thread was woken for what was sent, so far.
    #[must_use]
    pub fn wakes(&self) -> u64 {
        self.0.wakes.load(Ordering::Relaxed)
    }
}

/// What the link's thread shares with all others.
#[derive(Debug)]
pub(crate) struct Shared {
    queue: Mutex<Queue>,
    pub(crate) bell: Bell,
    pub(crate) is_stopping: AtomicBool,
    /// What the thread has taken and not written yet.
    unwritten: AtomicUsize,
    wakes: AtomicU64,
    bounds: Bounds,
}

#[derive(Debug, Default)]
struct Queue {
    stand: Stand,
    /// Frames with their lengths.
    bytes: Vec<u8>,
    /// What other threads have sent while `up` runs.
    held: Vec<u8>,
    /// The thread waits, or is about to, and can write: whoever sends or flushes wakes it.
    is_parked: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stand {
    /// What is sent is lost.
    #[default]
    Down,
    /// `up` runs, in this thread.
    Rising(ThreadId),
    Up,
}

impl Shared {
    pub(crate) fn new(bell: Bell, bounds: Bounds) -> Self {
        Self {
            queue: Mutex::default(),
            bell,
            is_stopping: AtomicBool::new(false),
            unwritten: AtomicUsize::new(0),
            wakes: AtomicU64::new(0),
            bounds,
        }
    }

    fn waiting(&self, queue: &Queue) -> usize {
        queue.bytes.len() + queue.held.len() + self.unwritten.load(Ordering::Relaxed)
    }

    fn push(&self, frame: &[u8], is_deferred: bool) -> Result<(), SendError> {
        let (frame_bytes_max, link_queue_bytes_max) = (self.bounds.frame_limit(), self.bounds.link_queue_bytes_max);
        if frame.len() > frame_bytes_max {
            return Err(SendError::TooLong { bytes: frame.len(), bytes_max: frame_bytes_max });
        }
        let mut queue = lock(&self.queue);
        let is_held = match queue.stand {
            Stand::Down => return Ok(()),
            Stand::Rising(thread) => thread != thread::current().id(),
            Stand::Up => false,
        };
        let waiting = self.waiting(&queue);
        if waiting > 0 && waiting + HEAD_BYTES + frame.len() > link_queue_bytes_max {
            return Err(SendError::Full { waiting, bytes_max: link_queue_bytes_max });
        }
        put(if is_held { &mut queue.held } else { &mut queue.bytes }, frame);
        if is_deferred && queue.bytes.len() < DEFERRED_BYTES_MAX {
            return Ok(());
        }
        self.ring(queue);
        Ok(())
    }

    fn wake(&self) {
        let queue = lock(&self.queue);
        if !queue.bytes.is_empty() {
            self.ring(queue);
        }
    }

    fn ring(&self, mut queue: MutexGuard<'_, Queue>) {
        let is_parked = mem::take(&mut queue.is_parked);
        drop(queue);
        if is_parked {
            self.wakes.fetch_add(1, Ordering::Relaxed);
            self.bell.ring();
        }
    }

    /// A connection begins: what this thread sends until [`open`](Self::open) goes out first.
    pub(crate) fn rise(&self) {
        lock(&self.queue).stand = Stand::Rising(thread::current().id());
    }

    /// `up` has returned.
    pub(crate) fn open(&self) {
        let mut queue = lock(&self.queue);
        let held = mem::take(&mut queue.held);
        queue.bytes.extend_from_slice(&held);
        queue.stand = Stand::Up;
    }

    /// The connection is gone, and what waits with it.
    pub(crate) fn fall(&self) {
        *lock(&self.queue) = Queue::default();
        self.unwritten.store(0, Ordering::Relaxed);
    }

    /// Takes what waits, for an empty buffer whose memory is used next.
    pub(crate) fn take(&self, taken: &mut Vec<u8>) {
        debug_assert!(taken.is_empty());
        taken.shrink_to(KEPT_BYTES_MAX);
        let mut queue = lock(&self.queue);
        mem::swap(&mut queue.bytes, taken);
        self.unwritten.store(taken.len(), Ordering::Relaxed);
    }

    /// The thread has written so much of what it took.
    pub(crate) fn written(&self, bytes: usize) {
        self.unwritten.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether the thread may wait: nothing is queued, and whoever sends from now on wakes it.
    pub(crate) fn park(&self) -> bool {
        let mut queue = lock(&self.queue);
        queue.is_parked = queue.bytes.is_empty();
        queue.is_parked
    }

    /// The thread is awake, and looks at the queue before it waits again.
    pub(crate) fn unpark(&self) {
        lock(&self.queue).is_parked = false;
    }
}
