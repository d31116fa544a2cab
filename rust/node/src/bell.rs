//! How one thread wakes another: a counter in the kernel. Each ring is an edge for a poller, so nobody reads the counter.
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io;

/// An eventfd of this process.
#[derive(Debug)]
pub(crate) struct Bell {
    fd: OwnedFd,
    /// Who made it: a fork shares the counter, and is not to wake a thread of its parent's.
    process: u32,
}

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { fd, process: std::process::id() })
    }

    /// Wakes who waits for it, or who waits next. Never waits itself: the counter is full after 2^64 rings.
    pub(crate) fn ring(&self) {
        if self.process == std::process::id() {
            let _ = io::write(&self.fd, &1_u64.to_ne_bytes());
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
