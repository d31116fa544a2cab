//! Readiness, by epoll. Of sockets by level: what was not taken in one turn comes again in the next.
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io;

use crate::bell::Bell;

/// How many are told of in one wait; the next goes on with the others.
const EVENTS_MAX: usize = 128;

/// What has become ready.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub(crate) token: u64,
    /// There is something to read, if only the end.
    pub(crate) is_readable: bool,
    pub(crate) is_writable: bool,
    /// Neither will anything be read behind what is here, nor can anything be written.
    pub(crate) is_over: bool,
}

/// What is watched for at a socket. That it is over is always told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interest {
    pub(crate) reads: bool,
    pub(crate) writes: bool,
}

/// An epoll instance.
#[derive(Debug)]
pub(crate) struct Poller {
    fd: OwnedFd,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { fd: epoll::create(CreateFlags::CLOEXEC)? })
    }

    /// Begins to watch for what can be read; `token` comes back with it.
    pub(crate) fn add(&self, of: impl AsFd, token: u64) -> io::Result<()> {
        epoll::add(&self.fd, of, EventData::new_u64(token), EventFlags::IN)
    }

    /// Begins to watch a bell: each ring is told once.
    pub(crate) fn add_bell(&self, bell: &Bell, token: u64) -> io::Result<()> {
        epoll::add(&self.fd, bell, EventData::new_u64(token), EventFlags::IN | EventFlags::ET)
    }

    /// Watches for something else from now on.
    pub(crate) fn watch(&self, of: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, interest.reads);
        flags.set(EventFlags::OUT, interest.writes);
        epoll::modify(&self.fd, of, EventData::new_u64(token), flags)
    }

    /// Ends the watch. A close does not, where a fork holds the descriptor, too.
    pub(crate) fn remove(&self, of: impl AsFd) {
        let _ = epoll::delete(&self.fd, of); // one that is not watched is left alone
    }

    /// Waits until something is ready, or for so long; appends it to `ready`.
    ///
    /// A signal counts as the end of the wait.
    pub(crate) fn wait(&self, ready: &mut Vec<Ready>, timeout: Duration) {
        // Rounded up, or the last millisecond would be waited for in circles.
        let timeout_ms = timeout.as_nanos().div_ceil(1_000_000).min(60_000) as i64;
        let timeout = Timespec { tv_sec: timeout_ms / 1_000, tv_nsec: timeout_ms % 1_000 * 1_000_000 };
        let mut events = [MaybeUninit::<Event>::uninit(); EVENTS_MAX];
        let Ok((events, _)) = epoll::wait(&self.fd, &mut events[..], Some(&timeout)) else { return };
        ready.extend(events.iter().map(|event| {
            let flags = event.flags;
            let is_over = flags.intersects(EventFlags::HUP | EventFlags::ERR);
            Ready {
                token: event.data.u64(),
                is_readable: is_over || flags.contains(EventFlags::IN),
                is_writable: flags.contains(EventFlags::OUT),
                is_over,
            }
        }));
    }
}
