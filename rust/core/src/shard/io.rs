//! What a shard asks of the kernel, as a parameter: so that all that a shard does also runs over a simulated one.
//!
//! The kernel itself is [`Poller`](super::poller::Poller), and each shard that serves is compiled for it: nothing is called
//! through a pointer. The other one is `simulation`, for tests.
use std::io;
use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};

pub(crate) use crate::socket::VECTORS_MAX;

/// What to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Reading and writing, each time it becomes possible (edge-triggered).
    Connection,
    /// Writing, each time it becomes possible, and the end of the peer's half (edge-triggered): somebody else reads.
    Writing,
    /// Reading, as long as it is possible (level-triggered): listeners and bells.
    Level,
    /// The same of a listener that others watch, too: one of those who wait hears of each connection.
    Shared,
}

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
    pub(super) fn from_result(slot: u32, result: isize) -> Self {
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

/// Readiness, many writes at once, and the calls on single sockets. No call waits but `wait`. Lives on its shard's thread.
pub(crate) trait Io {
    /// Begins to watch `fd`; `token` comes back with each readiness.
    ///
    /// # Errors
    /// The system's.
    fn watch(&mut self, fd: RawFd, token: u64, interest: Interest) -> io::Result<()>;

    /// Ends the watch. Closing a descriptor does it too.
    fn unwatch(&mut self, fd: RawFd);

    /// Waits for something to do, at most `timeout_ms` (-1: for ever, 0: not at all), and appends it to `ready`.
    fn wait(&mut self, ready: &mut Vec<Ready>, timeout_ms: i32);

    /// The connection in `slot` is written to by [`send_all`](Self::send_all) and [`write_batch`](Self::write_batch) from now on.
    fn register(&mut self, slot: u32, fd: RawFd);

    /// The connection in `slot` is about to be closed.
    fn unregister(&mut self, slot: u32);

    /// Sends the same bytes to every member; `shorts` gets those that did not take all.
    fn send_all(&mut self, members: &[Member], bytes: &[u8], shorts: &mut Vec<Short>);

    /// Makes all joined writes; `shorts` gets those that did not go out whole.
    fn write_batch(&mut self, writes: &[Write], vectors: &[&[u8]], shorts: &mut Vec<Short>);

    /// Sends to one socket. Bytes taken, or minus errno.
    fn send(&mut self, fd: RawFd, bytes: &[u8]) -> isize;

    /// Sends several pieces in one call, at most [`VECTORS_MAX`]. Bytes taken, or minus errno.
    fn send_vectors(&mut self, fd: RawFd, pieces: &[&[u8]]) -> isize;

    /// Receives. Bytes, 0 at the end of the stream, or minus errno.
    fn receive(&mut self, fd: RawFd, room: &mut [u8]) -> isize;

    /// Takes a connection from a listening socket.
    ///
    /// # Errors
    /// The system's; `EAGAIN` when none waits.
    fn accept(&mut self, listener: RawFd) -> io::Result<OwnedFd>;

    /// Ends the stream, whoever else holds the descriptor.
    fn shut_down(&mut self, fd: RawFd);

    /// Ends our half of the stream.
    fn shut_down_writing(&mut self, fd: RawFd);

    /// Where the peer of a TCP connection is; `None` for a Unix socket or one that is gone.
    fn peer_address(&self, fd: RawFd) -> Option<SocketAddr>;

    /// Has the socket become readable only once so many bytes are there, or its end. False where the kernel refuses.
    fn set_receive_low_watermark(&mut self, fd: RawFd, bytes: usize) -> bool;
}
