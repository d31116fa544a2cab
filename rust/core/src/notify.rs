//! An eventfd: how one thread wakes another, and how the engine wakes Python's event loop.
#![allow(unsafe_code)] // the descriptors room: eventfd, read, write
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A counter in the kernel that is readable once it was rung.
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

impl Bell {
    /// A new one, non-blocking.
    ///
    /// # Errors
    /// The system's, when descriptors run out.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes two integers and touches no memory of ours.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Makes it readable. Never waits: a counter that is full is readable already.
    pub(crate) fn ring(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: eight bytes of ours are read, as an eventfd asks.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Makes it unreadable.
    pub(crate) fn hush(&self) {
        let mut count = [0_u8; 8];
        // SAFETY: eight bytes of ours are written.
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }

    /// Whether it is readable; asks the kernel.
    #[cfg(test)]
    pub(crate) fn is_rung(&self) -> bool {
        let mut asked = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry of ours is read and written during the call.
        unsafe { libc::poll(&raw mut asked, 1, 0) == 1 }
    }

    /// For a poller.
    pub(crate) fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
