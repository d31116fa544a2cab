//! Connections taken from listening sockets: in batches, and the pause when descriptors run out.
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::connection::Connection;
use super::io::Interest;
use super::{Io, Shard};
use crate::error::EXHAUSTED;
use crate::listening::Listener;
use crate::messages::Event;

/// Connections taken in one turn from one listener; the rest is taken in the next.
const ACCEPTS_MAX: usize = 256;

/// The token of a shard's `index`-th listener.
pub(super) fn token_of(index: usize) -> u64 {
    super::LISTENER_TOKENS | index as u64
}

impl<I: Io> Shard<I> {
    pub(super) fn add_listener(&mut self, listener: Listener) {
        if self.is_accept_paused {
            self.listeners.push(listener); // watched with the others when accepting goes on
            return;
        }
        let token = token_of(self.listeners.len());
        match self.io.watch(listener.fd(), token, Interest::Level) {
            Ok(()) => self.listeners.push(listener),
            Err(error) => self.record(40, format!("shard {}: cannot watch a listener: {error}", self.index)),
        }
    }

    /// Takes what waits, up to a bound. Without descriptors, spare ones aside, accepting pauses until some are free.
    pub(super) fn accept(&mut self, index: usize) {
        let Some(listener) = self.listeners.get(index) else { return };
        let fd = listener.fd();
        for _ in 0..ACCEPTS_MAX {
            match self.io.accept(fd) {
                Ok(taken) if taken.as_raw_fd() >= self.spare_from => {
                    drop(taken); // it was looked at to see that there is none but a spare one
                    self.pause_accepting(&io::Error::other("the descriptors that are left are for backends"));
                    return;
                }
                Ok(taken) => {
                    self.welcome(taken, None);
                }
                Err(error) => match error.raw_os_error() {
                    Some(errno) if EXHAUSTED.contains(&errno) => {
                        self.pause_accepting(&error);
                        return;
                    }
                    Some(libc::EAGAIN) => return,
                    _ => {} // that one is gone (ECONNABORTED and the like, accept(2)); the next may be fine
                },
            }
        }
    }

    /// Takes a socket in; gives its slot, if there is room for it. `client` is where its client is, if not at its other end.
    pub(super) fn welcome(&mut self, fd: OwnedFd, client: Option<Box<str>>) -> Option<u32> {
        let (raw, timeout) = (fd.as_raw_fd(), self.settings.handshake_timeout);
        let slot = self.slab.insert(|generation, _| Connection::new(Some(fd), generation))?;
        if let Err(error) = self.io.watch(raw, self.token_of(slot), Interest::Connection) {
            self.record(40, format!("shard {}: cannot watch a connection: {error}", self.index));
            self.slab.bury(slot);
            return None;
        }
        self.stats.connections.add(1);
        self.stats.connections_total.add(1);
        self.timers.set(slot, timeout);
        if let Some(client) = client {
            self.clients_elsewhere.insert(slot, client);
        }
        Some(slot)
    }

    fn pause_accepting(&mut self, error: &io::Error) {
        for listener in &self.listeners {
            self.io.unwatch(listener.fd());
        }
        if !self.is_accept_starved {
            let open = self.slab.count();
            self.stats.accept_pauses.add(1);
            self.record(30, format!("shard {}: accepting pauses with {open} connections: {error}", self.index));
        }
        self.is_accept_paused = true;
        self.is_accept_starved = true;
    }

    /// Tries again, once a tick at most.
    pub(super) fn resume_accepting(&mut self) {
        if !self.is_accept_paused {
            // A whole tick without a refusal.
            if std::mem::take(&mut self.is_accept_starved) {
                self.record(20, format!("shard {}: accepting again", self.index));
            }
            return;
        }
        self.is_accept_paused = false;
        for index in 0..self.listeners.len() {
            let fd = self.listeners[index].fd();
            if let Err(error) = self.io.watch(fd, token_of(index), Interest::Level) {
                self.record(40, format!("shard {}: cannot watch a listener: {error}", self.index));
            }
        }
    }

    pub(super) fn record(&self, level: u8, text: String) {
        self.common.events.push(self.index, Event::Record(level, text));
    }
}
