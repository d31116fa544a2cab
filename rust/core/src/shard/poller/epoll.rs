//! Readiness by epoll.
#![allow(unsafe_code)] // the poller room: epoll
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::shard::io::{Interest, Ready};

const EVENTS_MAX: usize = 1_024;

/// An epoll instance.
pub(crate) struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: takes a flag, touches no memory of ours.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX] })
    }

    /// Begins to watch `fd`; `token` comes back with each readiness.
    pub(crate) fn add(&self, fd: RawFd, token: u64, interest: Interest) -> io::Result<()> {
        let flags = match interest {
            Interest::Connection => libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET,
            Interest::Writing => libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET,
            Interest::Level => libc::EPOLLIN,
            Interest::Shared => libc::EPOLLIN | libc::EPOLLEXCLUSIVE,
        };
        let mut event = libc::epoll_event { events: flags as u32, u64: token };
        // SAFETY: `event` is ours and read during the call only.
        let result = unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Ends the watch. Closing a descriptor does it too.
    pub(crate) fn remove(&self, fd: RawFd) {
        // SAFETY: no event is passed; a descriptor that is not watched is an error without effect.
        unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) };
    }

    /// Waits for something to do, at most `timeout_ms` (-1: for ever, 0: not at all), and appends it to `ready`.
    pub(crate) fn wait(&mut self, ready: &mut Vec<Ready>, timeout_ms: i32) {
        let (events, count_max) = (self.events.as_mut_ptr(), EVENTS_MAX as i32);
        // SAFETY: the kernel writes at most EVENTS_MAX entries into our array of so many.
        let count = unsafe { libc::epoll_wait(self.fd.as_raw_fd(), events, count_max, timeout_ms) };
        // An interrupted wait counts as one that found nothing.
        for event in &self.events[..usize::try_from(count).unwrap_or(0)] {
            let flags = event.events as i32;
            let is_over = flags & (libc::EPOLLHUP | libc::EPOLLERR) != 0;
            ready.push(Ready {
                token: event.u64,
                is_over,
                is_ended: is_over || flags & libc::EPOLLRDHUP != 0,
                is_readable: is_over || flags & (libc::EPOLLIN | libc::EPOLLRDHUP) != 0,
                is_writable: is_over || flags & libc::EPOLLOUT != 0,
            });
        }
    }
}
