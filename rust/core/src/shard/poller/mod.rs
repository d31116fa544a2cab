//! The kernel: who is ready, many writes at once, and calls on single sockets.
//!
//! Readiness comes from epoll in both kinds, edge-triggered, registered once for a connection's life. What differs is
//! how a fan-out is written: `epoll` makes one `send` a connection, `uring` puts the sends into an io_uring and enters
//! the kernel once for a batch (docs/decisions/0001). Both give back only what did not go out whole.
mod epoll;
mod uring;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};

use super::io::{Interest, Io, Member, Ready, Short, Write};
use crate::settings::PollerKind;
use crate::socket;
use epoll::Epoll;
use uring::Ring;

/// The kernel as one shard uses it.
pub(crate) struct Poller {
    epoll: Epoll,
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
}

impl Io for Poller {
    fn watch(&mut self, fd: RawFd, token: u64, interest: Interest) -> io::Result<()> {
        self.epoll.add(fd, token, interest)
    }

    fn unwatch(&mut self, fd: RawFd) {
        self.epoll.remove(fd);
    }

    fn wait(&mut self, ready: &mut Vec<Ready>, timeout_ms: i32) {
        self.epoll.wait(ready, timeout_ms);
    }

    fn register(&mut self, slot: u32, fd: RawFd) {
        if let Some(ring) = &mut self.ring {
            ring.register(slot, fd);
        }
    }

    fn unregister(&mut self, slot: u32) {
        if let Some(ring) = &mut self.ring {
            ring.unregister(slot);
        }
    }

    fn send_all(&mut self, members: &[Member], bytes: &[u8], shorts: &mut Vec<Short>) {
        match &mut self.ring {
            Some(ring) => ring.send_all(members, bytes, shorts),
            None => send_each(members, bytes, shorts),
        }
    }

    fn write_batch(&mut self, writes: &[Write], vectors: &[&[u8]], shorts: &mut Vec<Short>) {
        match &mut self.ring {
            Some(ring) => ring.write_batch(writes, vectors, shorts),
            None => write_each(writes, vectors, shorts),
        }
    }

    fn send(&mut self, fd: RawFd, bytes: &[u8]) -> isize {
        socket::send(fd, bytes)
    }

    fn send_vectors(&mut self, fd: RawFd, pieces: &[&[u8]]) -> isize {
        socket::send_vectors(fd, pieces)
    }

    fn receive(&mut self, fd: RawFd, room: &mut [u8]) -> isize {
        socket::receive(fd, room)
    }

    fn accept(&mut self, listener: RawFd) -> io::Result<OwnedFd> {
        socket::accept(listener)
    }

    fn shut_down(&mut self, fd: RawFd) {
        socket::shut_down(fd);
    }

    fn shut_down_writing(&mut self, fd: RawFd) {
        socket::shut_down_writing(fd);
    }

    fn peer_address(&self, fd: RawFd) -> Option<SocketAddr> {
        socket::peer_address(fd)
    }

    fn set_receive_low_watermark(&mut self, fd: RawFd, bytes: usize) -> bool {
        socket::set_receive_low_watermark(fd, bytes)
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
