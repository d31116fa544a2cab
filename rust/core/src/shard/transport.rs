//! One socket and what waits to go out on it or to be looked at: the side of a connection that owns the descriptor.
//!
//! It knows no protocol. What is written goes out in this order: the rest of a cut frame, private bytes, then what the
//! subscriptions are behind. So no frame is ever interleaved with another.
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::channel::Slice;
use crate::session::Unread;

/// The socket's side of a connection.
#[derive(Debug, Default)]
pub(crate) struct Transport {
    /// None of a SignalR connection that is polled: sockets come and go.
    pub(crate) fd: Option<OwnedFd>,
    /// The socket is full: every subscription is a cursor, nothing is written until it drains.
    pub(crate) is_blocked: bool,
    /// The poller knows its slot for fan-outs.
    pub(crate) is_registered: bool,
    /// Private bytes: pong, reply, close.
    pub(crate) outbox: Outbox,
    /// The rest of a frame of which the socket took a part: it goes before everything else.
    pub(crate) cut: Option<Box<Cut>>,
    /// Bytes that were received and not looked at, while the application has enough to do.
    pub(crate) unread: Option<Box<Unread>>,
}

impl Transport {
    pub(crate) fn new(fd: Option<OwnedFd>) -> Self {
        Self { fd, ..Self::default() }
    }

    /// The socket; `None` where there is none: of one that is polled, that waits for another socket, or that has ended.
    ///
    /// Every call that writes may find it broken, so it is asked for anew before each use and never kept.
    pub(crate) fn socket(&self) -> Option<RawFd> {
        self.fd.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// The descriptor as the lists of feeds have it: -1 of those that no fan-out writes to.
    pub(crate) fn member_fd(&self) -> RawFd {
        self.socket().unwrap_or(-1)
    }

    /// Whether something waits that is not in a log.
    pub(crate) fn has_unsent(&self) -> bool {
        self.cut.is_some() || !self.outbox.is_empty()
    }

    /// What waits and is not in a log, in order.
    pub(crate) fn unsent(&self) -> [&[u8]; 2] {
        [self.cut.as_deref().map_or(&[][..], Cut::waiting), self.outbox.waiting()]
    }

    /// The socket took so many bytes of what [`unsent`](Self::unsent) gave.
    pub(crate) fn advance(&mut self, written: usize) {
        let mut left = written;
        if let Some(cut) = self.cut.as_deref_mut() {
            let taken = left.min(cut.waiting().len());
            cut.advance(taken);
            left -= taken;
            if cut.waiting().is_empty() {
                self.cut = None;
            }
        }
        self.outbox.advance(left);
    }

    /// The socket is gone, and another one may come: nothing of it is left but the descriptor, which is given.
    pub(crate) fn detach(&mut self) -> Option<OwnedFd> {
        (self.cut, self.unread, self.outbox) = (None, None, Outbox::default());
        self.fd.take()
    }
}

/// Bytes that wait for the socket.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    /// How many of them the socket has taken.
    taken: u32,
}

impl Outbox {
    /// For writers that append frames in place.
    pub(crate) fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Puts bytes before all that waits.
    pub(crate) fn put_first(&mut self, bytes: &[u8]) {
        let at = self.taken as usize;
        self.bytes.splice(at..at, bytes.iter().copied());
    }

    pub(crate) fn waiting(&self) -> &[u8] {
        &self.bytes[self.taken as usize..]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting().is_empty()
    }

    /// All that waits, which is gone then.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let Self { mut bytes, taken } = std::mem::take(self);
        bytes.drain(..taken as usize);
        bytes
    }

    /// The socket took so many; memory is given back when it took all.
    pub(crate) fn advance(&mut self, count: usize) {
        self.taken += count as u32;
        if self.is_empty() {
            *self = Self::default();
        } else if self.taken as usize > self.bytes.len() / 2 {
            self.bytes.drain(..self.taken as usize);
            self.taken = 0;
        }
    }
}

/// The rest of a frame that was cut by a full socket.
#[derive(Debug)]
pub(crate) enum Cut {
    /// A small one, copied, so that a stalled client holds no log memory.
    Copied(Box<[u8]>, usize),
    /// A large one, shared with the log.
    Shared(Slice, usize),
}

/// A rest up to so many bytes is copied.
const COPIED_BYTES_MAX: usize = 4 << 10;

impl Cut {
    pub(crate) fn new(rest: Slice) -> Self {
        if rest.bytes().len() <= COPIED_BYTES_MAX {
            Self::Copied(rest.bytes().into(), 0)
        } else {
            Self::Shared(rest, 0)
        }
    }

    pub(crate) fn waiting(&self) -> &[u8] {
        match self {
            Self::Copied(bytes, sent) => &bytes[*sent..],
            Self::Shared(slice, sent) => &slice.bytes()[*sent..],
        }
    }

    /// Without its last byte, of which something else takes the place.
    pub(crate) fn drop_last(&mut self) {
        match self {
            Self::Copied(bytes, _) => *bytes = bytes[..bytes.len() - 1].into(),
            Self::Shared(slice, _) => {
                let start = slice.position();
                *slice = slice.part(start, start + slice.bytes().len() as u64 - 1);
            }
        }
    }

    pub(crate) fn advance(&mut self, count: usize) {
        let (Self::Copied(_, sent) | Self::Shared(_, sent)) = self;
        *sent += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What goes first goes first, wherever the socket stops, and memory is given back when all is out.
    #[test]
    fn what_waits_goes_out_in_order_however_it_is_cut() {
        for stop in 0..=9 {
            let mut transport = Transport::new(None);
            transport.cut = Some(Box::new(Cut::Copied(b"frame".as_slice().into(), 0)));
            transport.outbox.bytes_mut().extend_from_slice(b"pong");
            let mut out = transport.unsent().concat()[..stop].to_vec();
            transport.advance(stop);
            assert_eq!((transport.cut.is_some(), transport.has_unsent()), (stop < 5, stop < 9));
            out.extend(transport.unsent().concat());
            assert_eq!(out, b"framepong", "the socket stopped behind {stop}");
            transport.advance(9 - stop);
            assert!(!transport.has_unsent() && transport.outbox.bytes_mut().capacity() == 0);
        }
    }
}
