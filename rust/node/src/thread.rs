//! The one thread of a server or a link: none ends unnoticed, and none is ended by a fork.
use std::io;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Builder, JoinHandle};

use fanwire_core::run_to_end;

/// Where lines for the log go: a level as in Python's `logging`, and the text.
pub(crate) type Log = Arc<dyn Fn(u8, String) + Send + Sync>;

/// Levels of Python's `logging`.
pub(crate) const DEBUG: u8 = 10;
pub(crate) const INFO: u8 = 20;
pub(crate) const WARNING: u8 = 30;
pub(crate) const CRITICAL: u8 = 50;

/// A thread that runs, or has ended.
#[derive(Debug)]
pub(crate) struct Thread {
    handle: Mutex<Option<JoinHandle<()>>>,
    /// What it died of, if it did.
    failure: Arc<OnceLock<String>>,
    /// Whose thread it is.
    process: u32,
}

impl Thread {
    /// Starts it. A panic of `body` is told to `log`, and to [`failure`](Self::failure).
    pub(crate) fn start(name: &'static str, log: Log, body: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let failure = Arc::new(OnceLock::new());
        let told = Arc::clone(&failure);
        let handle = Builder::new().name(name.to_owned()).spawn(move || {
            if let Err(text) = run_to_end(body) {
                let text = format!("thread {name} has died: {text}");
                let _ = told.set(text.clone()); // it dies once
                let _ = run_to_end(|| log(CRITICAL, text)); // a log that panics has nowhere to tell
            }
        })?;
        Ok(Self { handle: Mutex::new(Some(handle)), failure, process: std::process::id() })
    }

    /// What it died of, if it did.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Runs `ask`, which has it end, and waits until it has. Nothing is done in a fork, or a second time; in the thread
    /// itself nothing is waited for.
    pub(crate) fn stop(&self, ask: impl FnOnce()) {
        if self.process != std::process::id() {
            return;
        }
        ask();
        let Some(handle) = lock(&self.handle).take() else { return };
        if handle.thread().id() != thread::current().id() {
            let _ = handle.join(); // what it panicked with is told
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            mem::forget(self.handle.get_mut().unwrap_or_else(PoisonError::into_inner).take()); // there is no such thread
        }
    }
}

/// What it guards is whole whoever panicked: nobody does between two steps of a change.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
