//! One Unix socket to another worker: messages in both directions, some of them with a descriptor.
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::wire::{End, Message, NoMessage, write_response};
use crate::socket;

/// Bytes that wait for one worker. Beyond that it is stuck, and given up.
pub(super) const WAITING_BYTES_MAX: usize = 64 << 20;
/// What one receive may give.
pub(super) const BUFFER_BYTES: usize = 256 << 10;
/// Receives in one turn.
const RECEIVES_MAX: usize = 8;

#[derive(Debug)]
pub(super) struct Link {
    fd: OwnedFd,
    /// Who is at the other end, once that is known.
    pub(super) worker: Option<u8>,
    received: Vec<u8>,
    /// Those that came with what was received, in the order of their messages; `None`: there was no room for it.
    descriptors: VecDeque<Option<OwnedFd>>,
    waiting: VecDeque<Piece>,
    waiting_bytes: usize,
}

/// Bytes that wait. With a descriptor they begin with its message, and end with it.
#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    sent: usize,
    descriptor: Option<OwnedFd>,
    /// Nothing is added to it.
    is_closed: bool,
}

impl Link {
    /// Takes a connected socket; a child that is forked has none of it.
    pub(super) fn new(fd: OwnedFd, worker: Option<u8>) -> Self {
        socket::close_in_children(fd.as_raw_fd(), true);
        let (received, descriptors, waiting) = Default::default();
        Self { fd, worker, received, descriptors, waiting, waiting_bytes: 0 }
    }

    pub(super) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Whether something waits to be sent.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether the other end has not taken what it was sent for long.
    pub(super) fn is_over_full(&self) -> bool {
        self.waiting_bytes > WAITING_BYTES_MAX
    }

    pub(super) fn say(&mut self, message: &Message) {
        self.say_by(|out| message.write(out));
    }

    /// Some of a response, from where its bytes are; see [`Message::Response`].
    pub(super) fn say_response(&mut self, number: u64, bytes: &[u8], end: End) {
        self.say_by(|out| write_response(out, number, bytes, end));
    }

    fn say_by(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.waiting.back().is_none_or(|last| last.is_closed) {
            self.waiting.push_back(Piece { bytes: Vec::new(), sent: 0, descriptor: None, is_closed: false });
        }
        let Some(last) = self.waiting.back_mut() else { return };
        let before = last.bytes.len();
        write(&mut last.bytes);
        self.waiting_bytes += last.bytes.len() - before;
    }

    pub(super) fn say_with(&mut self, message: &Message, descriptor: OwnedFd) {
        let mut bytes = Vec::new();
        message.write(&mut bytes);
        self.waiting_bytes += bytes.len();
        self.waiting.push_back(Piece { bytes, sent: 0, descriptor: Some(descriptor), is_closed: true });
    }

    /// Sends what the socket takes.
    ///
    /// # Errors
    /// The other end is gone.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while let Some(first) = self.waiting.front_mut() {
            let rest = &first.bytes[first.sent..];
            let sent = match &first.descriptor {
                Some(descriptor) => socket::send_with_descriptor(self.fd.as_raw_fd(), rest, descriptor.as_raw_fd()),
                None => socket::send(self.fd.as_raw_fd(), rest),
            };
            match usize::try_from(sent) {
                Err(_) if matches!(-sent as i32, libc::EAGAIN | libc::EINTR) => return Ok(()),
                // Too many descriptors are under way (unix(7)): the other end takes some soon.
                Err(_) if -sent as i32 == libc::ETOOMANYREFS => return Ok(()),
                Err(_) => return Err(io::Error::from_raw_os_error(-sent as i32)),
                Ok(sent) => {
                    first.descriptor = None; // it went with the first byte
                    first.is_closed = true;
                    first.sent += sent;
                    self.waiting_bytes -= sent;
                    if first.sent == first.bytes.len() {
                        self.waiting.pop_front();
                    }
                }
            }
        }
        Ok(())
    }

    /// Receives what is there, through `buffer`. False at the end of the stream.
    ///
    /// # Errors
    /// The other end is gone.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        for _ in 0..RECEIVES_MAX {
            let (received, descriptor) = socket::receive_with_descriptor(self.fd.as_raw_fd(), buffer);
            self.descriptors.extend(descriptor);
            match received {
                0 => return Ok(false),
                _ if received > 0 => {
                    self.received.extend_from_slice(&buffer[..received as usize]);
                    if (received as usize) < buffer.len() {
                        return Ok(true); // what is left, behind a descriptor, wakes again
                    }
                }
                _ if matches!(-received as i32, libc::EAGAIN | libc::EINTR) => return Ok(true),
                _ => return Err(io::Error::from_raw_os_error(-received as i32)),
            }
        }
        Ok(true)
    }

    /// The messages that have come whole.
    ///
    /// # Errors
    /// Something else came, or a socket's message without it.
    pub(super) fn messages(&mut self) -> Result<Vec<(Message, Option<OwnedFd>)>, NoMessage> {
        let (mut at, mut messages) = (0, Vec::new());
        while let Some((message, length)) = Message::read(&self.received[at..])? {
            at += length;
            let descriptor = match message {
                Message::Socket(..) => self.descriptors.pop_front().ok_or(NoMessage)?,
                _ => None,
            };
            messages.push((message, descriptor));
        }
        self.received.drain(..at);
        if self.received.is_empty() {
            self.received = Vec::new();
        }
        Ok(messages)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        socket::close_in_children(self.fd.as_raw_fd(), false);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (Link, Link) {
        let (one, other) = UnixStream::pair().expect("two sockets");
        for end in [&one, &other] {
            end.set_nonblocking(true).expect("a socket");
        }
        (Link::new(one.into(), None), Link::new(other.into(), None))
    }

    /// However much waits and however it is cut: each socket comes with its own message, in order.
    #[test]
    fn sockets_come_with_their_messages_among_others() {
        let (mut one, mut other) = pair();
        let mut inodes = Vec::new();
        for number in 0..200_u64 {
            one.say(&Message::More(number, vec![number as u8; (number as usize * 37) % 9_000]));
            if number % 3 == 0 {
                let (passed, _) = UnixStream::pair().expect("two sockets");
                inodes.push(std::fs::read_link(format!("/proc/self/fd/{}", passed.as_raw_fd())).expect("a link"));
                one.say_with(&Message::Socket([number as u8; 16], "".into(), vec![1; 50]), passed.into());
            }
        }
        let (mut came, mut buffer) = (Vec::new(), vec![0; 4_096]);
        while one.has_waiting() || came.len() < 267 {
            one.flush().expect("it is there");
            assert!(other.receive(&mut buffer).expect("it is there"));
            came.extend(other.messages().expect("messages"));
        }
        let mut inode = inodes.into_iter();
        let mut number = 0;
        for (message, descriptor) in came {
            match message {
                Message::More(is, bytes) => {
                    assert_eq!((is, bytes.len()), (number, (number as usize * 37) % 9_000));
                    number += 1;
                }
                Message::Socket(token, ..) => {
                    assert_eq!(u64::from(token[0]), number - 1);
                    let descriptor = descriptor.expect("there is room");
                    let found = std::fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
                    assert_eq!(found.ok(), inode.next());
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((number, inode.next()), (200, None));
        drop(one);
        assert!(!other.receive(&mut buffer).expect("an end"));
    }
}
