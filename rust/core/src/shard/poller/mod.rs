//! What stands between a shard and the kernel: who is ready, and many writes at once.
//!
//! Readiness comes from epoll in both kinds, edge-triggered, registered once for a connection's life. What differs is
//! how a fan-out is written: `epoll` makes one `send` a connection, `uring` puts the sends into an io_uring and enters
//! the kernel once for a batch (docs/decisions/0001). Both give back only what did not go out whole.
mod epoll;
mod uring;

use std::io;
use std::os::fd::RawFd;

use crate::settings::PollerKind;
pub(crate) use epoll::{Epoll, Interest};

use super::socket;
use uring::Ring;

/// A connection in a dense list: what a write needs, and where its subscription stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    pub(crate) fd: RawFd,
    pub(crate) slot: u32,
    /// Index of the subscription in its connection.
    pub(crate) subscription: u32,
}

/// One connection's joined write: some of the vectors of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    pub(crate) fd: RawFd,
    pub(crate) slot: u32,
    pub(crate) vectors_start: u32,
    pub(crate) vectors_count: u32,
    pub(crate) bytes: usize,
}

/// A write that did not go out whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Short {
    pub(crate) slot: u32,
    /// What the socket took.
    pub(crate) written: usize,
    /// Errno when the socket is broken; `None` when it is full.
    pub(crate) error: Option<i32>,
}

impl Short {
    /// `result` is what a send gave: bytes taken, or minus errno.
    fn from_result(slot: u32, result: isize) -> Self {
        match -result as i32 {
            _ if result >= 0 => Self { slot, written: result as usize, error: None },
            libc::EAGAIN => Self { slot, written: 0, error: None },
            errno => Self { slot, written: 0, error: Some(errno) },
        }
    }
}

/// A socket or bell with something to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub(crate) token: u64,
    pub(crate) is_readable: bool,
    pub(crate) is_writable: bool,
    /// The peer has ended its half, or all is over: read to the end.
    pub(crate) is_ended: bool,
    /// All is over: nothing comes and nothing goes any more.
    pub(crate) is_over: bool,
}

/// Readiness and batched writes of one shard. Lives on the shard's thread.
pub(crate) struct Poller {
    pub(crate) epoll: Epoll,
    ring: Option<Ring>,
}

impl Poller {
    /// The kind asked for; with `None` io_uring where the kernel gives it.
    ///
    /// # Errors
    /// The system's word when the kind asked for, or epoll, can't be had.
    pub(crate) fn new(kind: Option<PollerKind>) -> io::Result<Self> {
        let ring = match kind {
            Some(PollerKind::Epoll) => None,
            Some(PollerKind::Uring) => Some(Ring::new()?),
            None => Ring::new().ok(),
        };
        Ok(Self { epoll: Epoll::new()?, ring })
    }

    pub(crate) fn kind(&self) -> PollerKind {
        if self.ring.is_some() { PollerKind::Uring } else { PollerKind::Epoll }
    }

    /// A connection took `slot`.
    pub(crate) fn register(&mut self, slot: u32, fd: RawFd) {
        if let Some(ring) = &mut self.ring {
            ring.register(slot, fd);
        }
    }

    /// The connection in `slot` is about to be closed.
    pub(crate) fn unregister(&mut self, slot: u32) {
        if let Some(ring) = &mut self.ring {
            ring.register(slot, -1);
        }
    }

    /// Sends the same bytes to every member; `shorts` gets those that did not take all.
    pub(crate) fn send_all(&mut self, members: &[Member], bytes: &[u8], shorts: &mut Vec<Short>) {
        match &mut self.ring {
            Some(ring) => ring.send_all(members, bytes, shorts),
            None => send_each(members, bytes, shorts),
        }
    }

    /// Makes all joined writes; `shorts` gets those that did not go out whole.
    pub(crate) fn write_batch(&mut self, writes: &[Write], vectors: &[&[u8]], shorts: &mut Vec<Short>) {
        match &mut self.ring {
            Some(ring) => ring.write_batch(writes, vectors, shorts),
            None => write_each(writes, vectors, shorts),
        }
    }
}

fn send_each(members: &[Member], bytes: &[u8], shorts: &mut Vec<Short>) {
    for member in members {
        let result = socket::send(member.fd, bytes);
        if result != bytes.len() as isize {
            shorts.push(Short::from_result(member.slot, result));
        }
    }
}

fn write_each(writes: &[Write], vectors: &[&[u8]], shorts: &mut Vec<Short>) {
    for write in writes {
        let own = &vectors[write.vectors_start as usize..][..write.vectors_count as usize];
        let result =
            if let [alone] = own { socket::send(write.fd, alone) } else { socket::send_vectors(write.fd, own) };
        if result != write.bytes as isize {
            shorts.push(Short::from_result(write.slot, result));
        }
    }
}
