//! One peer's connection: its socket, what has come of a frame, what waits, and what is watched for.
use std::io::{ErrorKind, Read};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::frame::Inbox;
use crate::outbox::Outbox;
use crate::poller::{Interest, Poller};
use crate::thread::{DEBUG, WARNING};

/// Stands in the token of a process's end, beside its peer's slot.
pub(crate) const PROCESS: u64 = 1 << 32;

/// Why a connection is over, and how loud the log says it.
pub(crate) type Over = (String, u8);

/// One peer's connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    pub(crate) process: u32,
    /// Readable when the process has ended, whoever has inherited its socket (pidfd_open(2)).
    process_end: Option<OwnedFd>,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
    watched: Interest,
    /// The poller tells when there is room again: until then nothing is tried.
    pub(crate) is_blocked: bool,
    /// Too much waits for it: until some of that is written, nothing is read, and what was read waits.
    pub(crate) is_paused: bool,
    /// Nothing can be written any more. What it has sent is read to its end all the same.
    pub(crate) is_deaf: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both); // a fork may hold the descriptor, too
    }
}

impl Connection {
    /// Has it watched by its slot.
    ///
    /// # Errors
    /// The system's, as text.
    pub(crate) fn new(stream: UnixStream, process: u32, slot: u64, poller: &Poller) -> Result<Self, String> {
        poller.add(&stream, slot).map_err(|error| format!("cannot watch it: {error}"))?;
        // One that is of another namespace has no number here, and one may have gone by now: its socket says so as well.
        let number = i32::try_from(process).ok().and_then(Pid::from_raw);
        let process_end = number.and_then(|number| pidfd_open(number, PidfdFlags::empty()).ok());
        let process_end = process_end.filter(|end| poller.add(end, slot | PROCESS).is_ok());
        Ok(Self {
            stream,
            process,
            process_end,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            watched: Interest { reads: true, writes: false },
            is_blocked: false,
            is_paused: false,
            is_deaf: false,
        })
    }

    /// Reads once; gives how much, 0 while there is nothing.
    ///
    /// # Errors
    /// That and how it has ended.
    pub(crate) fn read(&self, scratch: &mut [u8]) -> Result<usize, Over> {
        match (&self.stream).read(scratch) {
            Ok(0) => Err(match self.inbox.cut_bytes() {
                0 => ("it has closed the connection".to_owned(), DEBUG),
                bytes => {
                    (format!("it has closed the connection in a frame, {bytes} bytes of which have come"), WARNING)
                }
            }),
            Ok(count) => Ok(count),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
            Err(error) => Err((format!("the connection has broken: {error}"), WARNING)),
        }
    }

    /// Writes once of what waits.
    pub(crate) fn write(&mut self) {
        match self.outbox.write_to(&self.stream) {
            Ok(is_blocked) => self.is_blocked = is_blocked,
            Err(_) => self.deafen(), // how it broke is told by the read that comes to its end
        }
    }

    /// Nothing can be written any more: what waits is forgotten.
    pub(crate) fn deafen(&mut self) {
        self.is_deaf = true;
        self.is_blocked = false;
        self.outbox.clear();
    }

    /// Watches for what it waits for now.
    ///
    /// # Errors
    /// The system's, as text.
    pub(crate) fn watch(&mut self, slot: u64, poller: &Poller) -> Result<(), String> {
        let interest = Interest { reads: !self.is_paused, writes: self.is_blocked };
        if std::mem::replace(&mut self.watched, interest) == interest {
            return Ok(());
        }
        poller.watch(&self.stream, slot, interest).map_err(|error| format!("cannot watch it: {error}"))
    }

    /// Says a last word, where one waits, and ends the watch.
    pub(crate) fn close(&mut self, poller: &Poller) {
        if !self.is_deaf {
            self.write();
        }
        poller.remove(&self.stream);
        if let Some(end) = &self.process_end {
            poller.remove(end);
        }
    }
}
