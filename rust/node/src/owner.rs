//! The server's thread: its loop and nothing else.
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::bell::Bell;
use crate::bounds::TURN_BYTES_MAX;
use crate::connection::PROCESS;
use crate::peers::{Peer, Peers};
use crate::place::{Place, process_of};
use crate::poller::{Poller, Ready};
use crate::serving::Serving;
use crate::thread::{DEBUG, Log, WARNING};

/// Tokens that no peer's slot has.
const BELL: u64 = u64::MAX;
const LISTENER: u64 = u64::MAX - 1;

/// How long a turn waits for something to do, and how long nobody is accepted where descriptors have run out.
const TURN_MAX: Duration = Duration::from_secs(1);

/// How often is read from a socket whose process has ended: more than it can hold.
const READS_MAX: usize = 16;

/// How many are accepted in one turn.
const ACCEPTS_MAX: usize = 64;

/// What others ask of the thread.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) bell: Bell,
    pub(crate) is_stopping: AtomicBool,
}

/// All that the thread owns.
pub(crate) struct Owner {
    asked: Arc<Asked>,
    poller: Poller,
    listener: UnixListener,
    /// When it is watched again, where it is not.
    listens_again: Option<Instant>,
    peers: Peers,
    serving: Box<dyn Serving>,
    log: Log,
    scratch: Vec<u8>,
    /// Held for its drop, which removes the file.
    _place: Place,
}

impl Owner {
    pub(crate) fn new(
        asked: Arc<Asked>,
        (listener, place): (UnixListener, Place),
        peers: Peers,
        serving: Box<dyn Serving>,
        log: Log,
    ) -> rustix::io::Result<Self> {
        let poller = Poller::new()?;
        poller.add_bell(&asked.bell, BELL)?;
        poller.add(&listener, LISTENER)?;
        let scratch = vec![0; TURN_BYTES_MAX];
        Ok(Self { asked, poller, listener, listens_again: None, peers, serving, log, scratch, _place: place })
    }

    /// Serves until it is asked to stop.
    pub(crate) fn run(mut self) {
        let mut ready = Vec::new();
        let mut turns_at = Instant::now() + TURN_MAX;
        while !self.asked.is_stopping.load(Ordering::Acquire) {
            let now = Instant::now();
            let until =
                if self.peers.has_resumed() { now } else { turns_at.min(self.listens_again.unwrap_or(turns_at)) };
            self.poller.wait(&mut ready, until.saturating_duration_since(now));
            let is_due = Instant::now() >= turns_at || self.peers.has_resumed();
            if !ready.is_empty() || is_due {
                self.turn(&mut ready);
                turns_at = Instant::now() + TURN_MAX;
            }
            self.listen_again();
        }
    }

    fn turn(&mut self, ready: &mut Vec<Ready>) {
        let mut is_called = false;
        for peer in self.peers.take_resumed() {
            self.peers.hear(peer, &[], |frame, out| self.serving.received(peer, frame, out));
        }
        for event in ready.drain(..) {
            match event.token {
                BELL => {} // it has woken us
                LISTENER => is_called = true,
                token => self.serve(token, event),
            }
        }
        // Behind the others: a slot that is free now may have had an event.
        if is_called {
            self.accept();
        }
        self.serving.turned(&mut self.peers.outgoing());
        self.settle();
    }

    fn serve(&mut self, token: u64, event: Ready) {
        let Some(peer) = self.peers.at(token & !PROCESS) else { return };
        if token & PROCESS != 0 {
            return self.bury(peer);
        }
        if event.is_over {
            self.peers.deafen(peer);
        } else if event.is_writable {
            self.peers.touch(peer);
        }
        if event.is_readable {
            let Self { serving, peers, scratch, .. } = self;
            peers.read(peer, scratch, |frame, out| serving.received(peer, frame, out));
        }
    }

    /// The process of a peer has ended. All that it has said is here; its socket may go on in a fork of it.
    fn bury(&mut self, peer: Peer) {
        let Self { serving, peers, scratch, .. } = self;
        peers.deafen(peer);
        peers.hear(peer, &[], |frame, out| serving.received(peer, frame, out));
        for _ in 0..READS_MAX {
            if !peers.read(peer, scratch, |frame, out| serving.received(peer, frame, out)) {
                break;
            }
        }
        peers.doom(peer, "its process has ended".to_owned(), DEBUG);
    }

    /// Has everyone go who must, and writes what was queued, until neither leads to the other.
    fn settle(&mut self) {
        while !self.peers.is_settled() {
            for doomed in self.peers.take_doomed() {
                let process = self.peers.remove(doomed.peer, &self.poller);
                (self.log)(doomed.level, format!("{} (process {process}) is gone: {}", doomed.peer, doomed.why));
                self.serving.gone(doomed.peer, &mut self.peers.outgoing());
            }
            self.peers.flush(&self.poller);
        }
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTS_MAX {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::AGAIN) => return,
                    Some(Errno::INTR | Errno::CONNABORTED) => continue,
                    _ => {
                        (self.log)(WARNING, format!("cannot accept: {error}; the next attempt is in a second"));
                        self.poller.remove(&self.listener);
                        self.listens_again = Some(Instant::now() + TURN_MAX);
                        return;
                    }
                },
            };
            let taken = stream.set_nonblocking(true).map_err(|error| error.to_string());
            let taken = taken.and_then(|()| process_of(&stream));
            match taken.and_then(|process| self.peers.add(stream, process, &self.poller)) {
                Ok(peer) => self.serving.came(peer, &mut self.peers.outgoing()),
                Err(why) => (self.log)(WARNING, format!("a connection is refused: {why}")),
            }
        }
    }

    fn listen_again(&mut self) {
        if self.listens_again.is_some_and(|at| at <= Instant::now()) {
            let is_watched = self.poller.add(&self.listener, LISTENER).is_ok();
            self.listens_again = (!is_watched).then(|| Instant::now() + TURN_MAX);
        }
    }
}
