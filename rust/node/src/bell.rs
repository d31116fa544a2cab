//! How one thread wakes another: a counter in the kernel that is readable once it was rung.
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

    /// Makes it readable. Never waits: a counter that is full is readable already.
    pub(crate) fn ring(&self) {
        if self.process == std::process::id() {
            let _ = io::write(&self.fd, &1_u64.to_ne_bytes());
        }
    }

    /// Makes it unreadable.
    pub(crate) fn hush(&self) {
        let _ = io::read(&self.fd, &mut [0_u8; 8]); // nothing in it is no error
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
