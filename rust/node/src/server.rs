//! The owner's end: what other threads hold of it.
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bell::Bell;
use crate::bounds::Bounds;
use crate::error::StartError;
use crate::owner::{Asked, Owner};
use crate::peers::Peers;
use crate::place::{self, system};
use crate::serving::Serving;
use crate::thread::{Log, Thread};

/// What the operating system shows of it is cut to 15 characters.
const THREAD_NAME: &str = "fanwire-owner";

/// A Unix socket that listens, and the thread that serves it. Dropping it is [`stop`](Self::stop).
#[derive(Debug)]
pub struct Server {
    asked: Arc<Asked>,
    thread: Thread,
}

impl Server {
    /// Listens at `path` and starts the thread.
    ///
    /// The file is this user's alone (mode 0600); one that nobody listens on is replaced; it is removed at the end. A
    /// process of another user is refused. `log` gets lines with a level as in Python's `logging`, on the thread.
    ///
    /// # Errors
    /// [`StartError::InUse`] where somebody listens there; the others as they say. Nothing is left behind then.
    pub fn start(
        path: &Path,
        serving: Box<dyn Serving>,
        bounds: Bounds,
        log: impl Fn(u8, String) + Send + Sync + 'static,
    ) -> Result<Self, StartError> {
        let failed = |what| move |error: rustix::io::Errno| system(path, what, io::Error::from(error));
        let log: Log = Arc::new(log);
        let listening = place::listen(path)?;
        let bell = Bell::new().map_err(failed("make an eventfd"))?;
        let asked = Arc::new(Asked { bell, is_stopping: AtomicBool::new(false) });
        let owner = Owner::new(Arc::clone(&asked), listening, Peers::new(bounds), serving, Arc::clone(&log));
        let owner = owner.map_err(failed("watch the socket"))?;
        let thread = Thread::start(THREAD_NAME, log, || owner.run());
        Ok(Self { asked, thread: thread.map_err(|error| system(path, "start a thread", error))? })
    }

    /// Ends the thread, waits for it, and removes the file. Peers are disconnected; what waits for them is lost.
    ///
    /// In a fork it does nothing. Hold nothing meanwhile that a method of [`Serving`] waits for.
    pub fn stop(self) {
        self.end();
    }

    /// What the thread died of, if it did: a panic of [`Serving`], or of `log`.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.thread.failure()
    }

    /// Something by which any thread can have [`Serving::turned`] called.
    pub(crate) fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.asked))
    }

    fn end(&self) {
        self.thread.stop(|| {
            self.asked.is_stopping.store(true, Ordering::Release);
            self.asked.bell.ring();
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Wakes a server's thread. Clones wake the same one.
#[derive(Clone, Debug)]
pub(crate) struct Waker(Arc<Asked>);

impl Waker {
    /// Has [`Serving::turned`] called soon: once or more for several calls. Never waits; a system call.
    pub(crate) fn wake(&self) {
        self.0.bell.ring();
    }
}
