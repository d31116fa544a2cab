//! The worker's end: the handle, and the thread that connects, reads, writes and connects again.
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fanwire_core::{Backoff, run_to_end};

use crate::bell::Bell;
use crate::bounds::{Bounds, TURN_BYTES_MAX};
use crate::error::StartError;
use crate::frame::Inbox;
use crate::linked::Linked;
use crate::place::{address_of, connect, system};
use crate::poller::{Interest, Poller, Ready};
use crate::sender::{LinkSender, Shared};
use crate::thread::{DEBUG, INFO, Log, Thread, WARNING};

/// What the operating system shows of it is cut to 15 characters.
const THREAD_NAME: &str = "fanwire-link";

const BELL: u64 = 0;
const SOCKET: u64 = 1;

/// How long a turn waits for something to do.
const TURN_MAX: Duration = Duration::from_secs(1);
/// Between two attempts, when it begins.
const WAIT_FIRST: Duration = Duration::from_millis(10);
/// The longest.
const WAIT_LAST: Duration = Duration::from_secs(1);

/// Behind a connection that lasted for so long the next attempt comes soon. An owner that accepts and hangs up again is tried
/// ever more seldom.
const GOOD_AFTER: Duration = Duration::from_secs(1);

/// A connection to a [`Server`](crate::Server), made anew whenever it breaks. Dropping it is [`stop`](Self::stop).
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    thread: Thread,
}

impl Link {
    /// Starts the thread, which connects to `path` at once, and again 10 ms to 1 s after each end or failure. `make` gives
    /// what it runs; it is called here.
    ///
    /// A server that is another user's process is refused. `log` gets lines with a level as in Python's `logging`, on the
    /// thread.
    ///
    /// # Errors
    /// [`StartError::PathTooLong`], or the system's where descriptors or threads have run out. Not that nobody listens.
    pub fn start(
        path: &Path,
        make: impl FnOnce(LinkSender) -> Box<dyn Linked>,
        bounds: Bounds,
        log: impl Fn(u8, String) + Send + Sync + 'static,
    ) -> Result<Self, StartError> {
        let failed = |what| move |error: rustix::io::Errno| system(path, what, io::Error::from(error));
        address_of(path)?;
        let log: Log = Arc::new(log);
        let shared = Arc::new(Shared::new(Bell::new().map_err(failed("make an eventfd"))?, bounds));
        let poller = Poller::new().map_err(failed("make a poller"))?;
        poller.add_bell(&shared.bell, BELL).map_err(failed("watch an eventfd"))?;
        let linked = make(LinkSender::new(Arc::clone(&shared)));
        let (path_there, shared_there, log_there) = (path.to_owned(), Arc::clone(&shared), Arc::clone(&log));
        let thread = Thread::start(THREAD_NAME, log, move || {
            Worker {
                shared: shared_there,
                poller,
                path: path_there,
                log: log_there,
                frame_bytes_max: bounds.frame_limit(),
                scratch: vec![0; TURN_BYTES_MAX],
                ready: Vec::new(),
                linked,
                is_up: false,
            }
            .run();
        });
        Ok(Self { shared, thread: thread.map_err(|error| system(path, "start a thread", error))? })
    }

    /// Ends the thread, and waits for it: not where it is the one that calls. What waits is written as far as the socket
    /// takes it at once.
    ///
    /// Idempotent. In a fork it does nothing. Hold nothing meanwhile that a method of [`Linked`] waits for.
    pub fn stop(&self) {
        self.thread.stop(|| {
            self.shared.is_stopping.store(true, Ordering::Release);
            self.shared.bell.ring();
        });
    }

    /// Gives frames to it.
    #[must_use]
    pub fn sender(&self) -> LinkSender {
        LinkSender::new(Arc::clone(&self.shared))
    }

    /// What the thread died of, if it did: a panic of [`Linked`], or of `log`.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.thread.failure()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop();
    }
}

/// All that the thread owns.
struct Worker {
    shared: Arc<Shared>,
    poller: Poller,
    path: PathBuf,
    log: Log,
    frame_bytes_max: usize,
    scratch: Vec<u8>,
    ready: Vec<Ready>,
    linked: Box<dyn Linked>,
    /// `up` was called, and `down` not yet.
    is_up: bool,
}

/// One connection, while it lasts.
struct Connection {
    stream: UnixStream,
    inbox: Inbox,
    /// What was taken from the queue, and how much of it is written.
    taken: Vec<u8>,
    written: usize,
    /// The poller tells when there is room again: until then nothing is tried.
    is_blocked: bool,
    /// It does so as of now.
    is_watched: bool,
    /// Nothing can be written any more. What the owner has sent is read to its end all the same.
    is_deaf: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both); // a fork may hold the descriptor, too
    }
}

impl Worker {
    /// Runs until it is asked to stop. A panic goes on behind a last `down`.
    fn run(mut self) {
        if let Err(text) = run_to_end(|| self.connect_again_and_again()) {
            let _ = run_to_end(|| self.fall(&format!("thread {THREAD_NAME} has died: {text}")));
            resume_unwind(Box::new(text));
        }
    }

    fn is_stopping(&self) -> bool {
        self.shared.is_stopping.load(Ordering::Acquire)
    }

    fn connect_again_and_again(&mut self) {
        let mut backoff = Backoff::new(WAIT_FIRST, WAIT_LAST, RandomState::new().hash_one(std::process::id()));
        let mut failures = 0_u32;
        while !self.is_stopping() {
            match connect(&self.path) {
                Ok(stream) => {
                    if mem::take(&mut failures) > 0 {
                        (self.log)(INFO, format!("{}: connected", self.path.display()));
                    }
                    if self.serve_while_it_lasts(stream) {
                        backoff.reset();
                    }
                }
                Err(why) => {
                    let level = if failures == 0 { INFO } else { DEBUG };
                    failures = failures.saturating_add(1);
                    (self.log)(level, format!("{}: {why}; it is tried again", self.path.display()));
                }
            }
            if !self.is_stopping() {
                self.poller.wait(&mut self.ready, backoff.wait());
                self.ready.clear();
                self.linked.turned();
            }
        }
    }

    /// Gives whether it was a good connection.
    fn serve_while_it_lasts(&mut self, stream: UnixStream) -> bool {
        let began = Instant::now();
        let mut connection = Connection::new(stream);
        let ended = self.serve(&mut connection);
        self.poller.remove(&connection.stream);
        let is_good = began.elapsed() >= GOOD_AFTER;
        drop(connection);
        match ended {
            Ok(()) => self.fall("the link is stopped"),
            Err(why) => {
                (self.log)(WARNING, format!("{}: {why}", self.path.display()));
                self.fall(&why);
            }
        }
        is_good
    }

    fn fall(&mut self, why: &str) {
        self.shared.fall();
        if mem::take(&mut self.is_up) {
            self.linked.down(why);
        }
    }

    /// Serves until it is asked to stop.
    ///
    /// # Errors
    /// Why the connection has ended.
    fn serve(&mut self, connection: &mut Connection) -> Result<(), String> {
        self.poller.add(&connection.stream, SOCKET).map_err(|error| format!("cannot watch the connection: {error}"))?;
        self.shared.rise();
        self.is_up = true;
        self.linked.up();
        self.shared.open();
        let mut turns_at = Instant::now() + TURN_MAX;
        while !self.is_stopping() {
            connection.write(&self.shared, &self.poller)?;
            let may_wait = connection.is_blocked || connection.is_deaf || self.shared.park();
            let wait = if may_wait { turns_at.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
            self.poller.wait(&mut self.ready, wait);
            self.shared.unpark();
            if !self.ready.is_empty() || Instant::now() >= turns_at {
                self.turn(connection)?;
                turns_at = Instant::now() + TURN_MAX;
            }
        }
        while !connection.is_blocked && connection.write(&self.shared, &self.poller)? {}
        Ok(())
    }

    fn turn(&mut self, connection: &mut Connection) -> Result<(), String> {
        let Self { ready, scratch, linked, .. } = self;
        for event in ready.drain(..) {
            if event.token == BELL {
                continue; // it has woken us
            }
            connection.is_blocked &= !event.is_writable;
            if event.is_readable {
                connection.read(scratch, self.frame_bytes_max, |frame| linked.received(frame))?;
            }
        }
        linked.turned();
        Ok(())
    }
}

impl Connection {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            inbox: Inbox::default(),
            taken: Vec::new(),
            written: 0,
            is_blocked: false,
            is_watched: false,
            is_deaf: false,
        }
    }

    /// Reads once, and gives each frame that is whole to `each`.
    fn read(
        &mut self,
        scratch: &mut [u8],
        frame_bytes_max: usize,
        mut each: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        match self.stream.read(scratch) {
            Ok(0) if self.inbox.cut_bytes() == 0 => Err("the owner has closed the connection".to_owned()),
            Ok(0) => {
                let bytes = self.inbox.cut_bytes();
                Err(format!("the owner has closed the connection in a frame, {bytes} bytes of which have come"))
            }
            Ok(count) => {
                self.inbox.take(&scratch[..count], frame_bytes_max, |frame| each(frame).map(|()| true)).map(|_| ())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            Err(error) => Err(format!("the connection has broken: {error}")),
        }
    }

    /// Writes once of what waits; gives whether anything was written.
    fn write(&mut self, shared: &Shared, poller: &Poller) -> Result<bool, String> {
        if self.is_blocked || self.is_deaf {
            return Ok(false);
        }
        if self.written == self.taken.len() {
            self.taken.clear();
            self.written = 0;
            shared.take(&mut self.taken);
        }
        let rest = &self.taken[self.written..];
        let rest = &rest[..rest.len().min(TURN_BYTES_MAX)];
        if rest.is_empty() {
            return Ok(false);
        }
        match (&self.stream).write(rest) {
            Ok(count) => {
                self.written += count;
                shared.written(count);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // How it broke is told by the read that comes to its end.
            Err(_) => self.is_deaf = true,
        }
        self.is_blocked = self.written < self.taken.len() && !self.is_deaf;
        if mem::replace(&mut self.is_watched, self.is_blocked) != self.is_blocked {
            let watched = poller.watch(&self.stream, SOCKET, Interest { reads: true, writes: self.is_blocked });
            watched.map_err(|error| format!("cannot watch the connection: {error}"))?;
        }
        Ok(true)
    }
}
