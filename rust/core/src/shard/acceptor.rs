//! Connections taken from listening sockets: in batches, and the pause when descriptors run out.
//!
//! A listener may be watched by others, too: shards, or whole processes. The kernel wakes one of those who wait, the one
//! that has watched for longest. So who has taken some steps back behind the others. Who was woken and is gone, or takes
//! none, leaves a connection that nobody was told of: so each looks from time to time, too.
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::connection::Connection;
use super::io::Interest;
use super::{Io, Shard};
use crate::error::EXHAUSTED;
use crate::listening::Listener;
use crate::messages::Event;
use crate::socket;

/// Connections taken in one turn from one listener; the rest is taken in the next.
const ACCEPTS_MAX: usize = 256;
/// The same where others watch it, too: of a burst each gets its part.
const SHARED_ACCEPTS_MAX: usize = 8;

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
        self.listeners.push(listener);
        self.watch_listener(self.listeners.len() - 1);
    }

    fn watch_listener(&mut self, index: usize) {
        let listener = &self.listeners[index];
        let interest = if listener.is_shared() { Interest::Shared } else { Interest::Level };
        if let Err(error) = self.io.watch(listener.fd(), token_of(index), interest) {
            self.record(40, format!("shard {}: cannot watch a listener: {error}", self.index));
        }
    }

    /// Takes what waits, up to a bound. Without descriptors, spare ones aside, accepting pauses until some are free: what
    /// waits goes on waiting, for others where there are some.
    pub(super) fn accept(&mut self, index: usize) {
        let Some(listener) = self.listeners.get(index) else { return };
        let (fd, is_shared, before) = (listener.fd(), listener.is_shared(), self.stats.connections_total.get());
        for _ in 0..if is_shared { SHARED_ACCEPTS_MAX } else { ACCEPTS_MAX } {
            match self.io.accept(fd) {
                Ok(taken) => {
                    let next = taken.as_raw_fd() + 1;
                    self.welcome(taken, None);
                    if next >= self.spare_from && !self.has_room() {
                        self.pause_accepting(&io::Error::other("no descriptor is left for a client"));
                        return;
                    }
                }
                Err(error) => match error.raw_os_error() {
                    Some(errno) if EXHAUSTED.contains(&errno) => {
                        self.pause_accepting(&error);
                        return;
                    }
                    Some(libc::EAGAIN) => break,
                    _ => {} // that one is gone (ECONNABORTED and the like, accept(2)); the next may be fine
                },
            }
        }
        if is_shared && self.stats.connections_total.get() > before {
            self.io.unwatch(fd);
            self.watch_listener(index);
        }
    }

    /// Whether there is a descriptor for one more; the limit may have been moved.
    fn has_room(&mut self) -> bool {
        self.spare_from = socket::spare_from(self.settings.descriptors_spare);
        socket::next_descriptor().is_ok_and(|next| next < self.spare_from)
    }

    pub(super) fn has_shared_listener(&self) -> bool {
        self.listeners.iter().any(Listener::is_shared)
    }

    /// Twice a second: takes what nobody was told of.
    pub(super) fn look_at_shared_listeners(&mut self) {
        for index in 0..self.listeners.len() {
            if !self.is_accept_paused && self.listeners[index].is_shared() {
                self.accept(index);
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
        self.slab.at(slot).since_tick = self.timers.tick();
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
        if !self.has_room() {
            return;
        }
        self.is_accept_paused = false;
        for index in 0..self.listeners.len() {
            self.watch_listener(index);
        }
    }

    pub(super) fn record(&self, level: u8, text: String) {
        self.common.events.push(self.index, Event::Record(level, text));
    }
}
