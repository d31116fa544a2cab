//! How a connection ends: by the close handshake, by a last answer, or broken.
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use super::answers::Refusal;
use super::connection::Ending;
use super::timers::{Latecomers, Leaving};
use super::{Io, Shard};
use crate::clock::ticks;
use crate::listening::Listener;
use crate::messages::{ClosedBy, Event, Released, Whose};
use crate::protocol::Formats;
use crate::session::Farewell;
use crate::ws::{CloseCode, write_close};

/// Connections of a path that is removed: closing so many takes a few milliseconds, and others are served between.
const CLOSED_IN_A_TICK: usize = 1_024;

/// Where other processes go on with the port: how long the next request may take to come on a connection that had one.
const NEXT_REQUEST: Duration = Duration::from_secs(1);

impl<I: Io> Shard<I> {
    /// Starts the close handshake (RFC 6455 §7.1.2) from this side; an event stream just ends.
    pub(super) fn close(&mut self, slot: u32, code: CloseCode, reason: &str) {
        if self.slab.at(slot).session.signalr().is_some() {
            return self.close_signalr(slot, code, reason);
        }
        if self.is_adopted(slot) {
            return self.close_adopted(slot, code, reason);
        }
        self.leave_all(slot);
        let connection = self.slab.at(slot);
        match connection.session.end() {
            Farewell::CloseFrame => write_close(connection.transport.outbox.bytes_mut(), code, reason),
            Farewell::Begun => return,
            Farewell::Silent | Farewell::ByPoll => {} // only a SignalR connection is polled
        }
        self.end_soon(slot, code, reason, ClosedBy::Server);
    }

    /// The peer broke a rule. What the application owes for messages before that still goes out, if it comes in time.
    pub(super) fn fail_when_answered(&mut self, slot: u32, code: CloseCode, reason: String) {
        let timeout = self.settings.close_timeout;
        let connection = self.slab.at(slot);
        if connection.pending == 0 {
            self.fail(slot, code, &reason);
        } else {
            connection.failure = Some(Box::new((code, reason)));
            self.timers.set(slot, timeout);
        }
    }

    /// The peer broke a rule: tell it why and read no more of it (RFC 6455 §7.1.7).
    pub(super) fn fail(&mut self, slot: u32, code: CloseCode, reason: &str) {
        self.leave_all(slot);
        let connection = self.slab.at(slot);
        if connection.session.fail() {
            write_close(connection.transport.outbox.bytes_mut(), code, reason);
        }
        self.end_soon(slot, code, reason, ClosedBy::Server);
    }

    /// The peer's Close frame came: answer it if it is the first, and end.
    pub(super) fn closed_by_peer(&mut self, slot: u32, code: Option<CloseCode>, reason: &str) {
        self.leave_all(slot);
        let connection = self.slab.at(slot);
        if connection.session.handle_close() {
            self.drop_connection(slot);
            return;
        }
        let answer = code.unwrap_or(CloseCode::NORMAL);
        write_close(connection.transport.outbox.bytes_mut(), answer, "");
        self.end_soon(slot, code.unwrap_or(CloseCode::NO_STATUS), reason, ClosedBy::Client);
    }

    /// The last bytes stand in the outbox; a peer that does not take them and leave in time is cut off.
    pub(super) fn end_soon(&mut self, slot: u32, code: CloseCode, reason: &str, by: ClosedBy) {
        let timeout = self.settings.close_timeout;
        self.end_within(slot, code, reason, by, timeout);
    }

    fn end_within(&mut self, slot: u32, code: CloseCode, reason: &str, by: ClosedBy, timeout: Duration) {
        self.unhush(slot);
        let connection = self.slab.at(slot);
        let (unread, has_socket) = (connection.transport.unread.take(), connection.transport.socket().is_some());
        connection
            .ending
            .get_or_insert_with(|| Box::new(Ending { code: code.0, reason: reason.to_owned(), by, thrown_away: 0 }));
        if !has_socket {
            return self.drop_connection(slot); // there is nobody to tell
        }
        self.timers.set(slot, timeout);
        if !self.slab.at(slot).transport.is_blocked {
            self.pump(slot);
        }
        if let (Some(mut unread), Some(_)) = (unread, self.slab.get(slot)) {
            // The peer's Close may stand in it or behind it.
            self.later.push(self.id_of(slot));
            self.take_bytes(slot, &mut unread.0);
        }
    }

    /// The socket is broken, which is said once: afterwards the connection has none, or is gone.
    pub(super) fn break_off(&mut self, slot: u32, errno: i32) {
        if self.slab.at(slot).transport.socket().is_none() || self.detach(slot) {
            return;
        }
        if self.is_adopted(slot) {
            return self.give_up(slot, Released::Broken(errno));
        }
        let connection = self.slab.at(slot);
        connection.ending.get_or_insert_with(|| {
            let reason = std::io::Error::from_raw_os_error(errno).to_string();
            Box::new(Ending { code: CloseCode::ABNORMAL.0, reason, by: ClosedBy::Network, thrown_away: 0 })
        });
        self.drop_connection(slot);
    }

    /// The peer ended its half of the stream: that ends the connection, unless all that it asked for is an answer.
    pub(super) fn end_of_stream(&mut self, slot: u32) {
        let connection = self.slab.at(slot);
        if connection.session.handle_end_of_stream(connection.transport.has_unsent()) || self.detach(slot) {
            return;
        }
        let connection = self.slab.at(slot);
        connection.ending.get_or_insert_with(|| {
            Box::new(Ending {
                code: CloseCode::ABNORMAL.0,
                reason: String::new(),
                by: ClosedBy::Client,
                thrown_away: 0,
            })
        });
        self.drop_connection(slot);
    }

    /// Whether something unread stands behind a request for a WebSocket, a stream or a poll. The end of the peer's half
    /// says that it has left, and would not be read behind it.
    pub(super) fn waits_for_a_stream(&mut self, slot: u32) -> bool {
        let connection = self.slab.at(slot);
        connection.session.waits_for_a_stream() && connection.transport.unread.is_some()
    }

    pub(super) fn leave_all(&mut self, slot: u32) {
        while let Some(last) = self.slab.at(slot).subscriptions.len().checked_sub(1) {
            self.leave(slot, last);
        }
    }

    /// Closes the descriptor and forgets the connection. Who goes on with the slot in this turn finds an empty one there,
    /// without a socket, whose ids are stale; see [`super::slab`].
    pub(super) fn drop_connection(&mut self, slot: u32) {
        if self.slab.get(slot).is_none() {
            return;
        }
        if self.is_adopted(slot) {
            return self.give_up(slot, Released::Aborted);
        }
        self.leave_all(slot);
        let Whose { connection: id, owner } = self.whose(slot);
        self.timers.clear(slot);
        self.abandon(slot);
        self.lose_guest(slot);
        let connection = self.slab.bury(slot).expect("looked up above");
        self.handle.spoken.set(id, Formats::default());
        if let Some(post) = connection.session.post() {
            self.leave_posts(id, post.to);
        }
        if let Some(poll) = connection.session.poll() {
            self.leave_poll(id, poll.to);
        }
        if let Some(signalr) = connection.session.signalr() {
            self.forget_signalr(id, signalr);
        }
        self.one_by_one -= usize::from(connection.event_ids.is_some());
        if connection.transport.is_registered {
            self.io.unregister(slot);
        }
        if let Some(fd) = &connection.transport.fd {
            self.end_socket(fd);
            self.stats.lagging.sub(u64::from(connection.transport.is_blocked));
        }
        let Ending { code, reason, by, .. } = connection.ending.map_or_else(
            || Ending { code: CloseCode::ABNORMAL.0, reason: String::new(), by: ClosedBy::Network, thrown_away: 0 },
            |ending| *ending,
        );
        if connection.session.is_opened() {
            self.stats.count_close(code);
        }
        if connection.is_reported {
            self.common.events.push(self.index, Event::Closed(Whose { connection: id, owner }, code, reason, by));
        }
    }

    /// Ends a socket that is about to be dropped.
    pub(super) fn end_socket(&mut self, fd: &OwnedFd) {
        let raw = fd.as_raw_fd();
        self.io.shut_down(raw); // not only a close: a forked child may hold the descriptor, too
        self.io.unwatch(raw);
        self.stats.connections.sub(1);
    }

    /// Stops accepting and closes everyone, evenly over the time of `spread`: who comes back does not come all at once.
    ///
    /// Who has not been answered yet is dropped; but where others go on with the port no connect is to fail, so it is answered,
    /// and closed then.
    pub(super) fn drain(&mut self, code: CloseCode, reason: Box<str>, spread: Duration) {
        self.is_draining = true;
        let (answers_all, mut late) = (self.listeners.iter().any(Listener::is_inherited), Vec::new());
        for listener in self.listeners.drain(..) {
            self.io.unwatch(listener.fd());
        }
        let in_use = self.slab.in_use();
        let mut leaving = Leaving::new((code, reason), (self.timers.tick(), ticks(spread)), in_use.len());
        for (index, slot) in (0..).zip(in_use) {
            if self.is_adopted(slot) {
                self.release(slot);
            } else if !self.slab.at(slot).session.is_requesting() {
                leaving.add(index, self.id_of(slot));
            } else if answers_all {
                self.hurry(slot);
                late.push(self.id_of(slot));
            } else {
                self.drop_connection(slot);
            }
        }
        if !late.is_empty() {
            let until = self.timers.tick() + ticks(NEXT_REQUEST);
            self.late = Some(Latecomers { code, reason: leaving.reason.clone(), connections: late, until });
        }
        self.leaving.push(leaving);
        self.go_on_draining();
    }

    /// Closes everyone who came by a route that is gone, so many in a tick; who asks to connect there is refused.
    pub(super) fn close_route(&mut self, number: u64, code: CloseCode, reason: Box<str>) {
        let came_by =
            |shard: &mut Self, slot| shard.slab.at(slot).route.as_ref().is_some_and(|one| one.number == number);
        let theirs: Vec<u32> = self.slab.in_use().into_iter().filter(|&slot| came_by(self, slot)).collect();
        let spread = u32::try_from(theirs.len() / CLOSED_IN_A_TICK).unwrap_or(u32::MAX);
        let mut leaving = Leaving::new((code, reason), (self.timers.tick(), spread), theirs.len());
        for (index, slot) in (0..).zip(theirs) {
            let session = &self.slab.at(slot).session;
            if session.asked().is_some() {
                self.refuse(slot, &Refusal::new(404, "this path has been removed".to_owned()));
            } else if !session.is_requesting() {
                leaving.add(index, self.id_of(slot));
            }
        }
        self.leaving.push(leaving);
        self.go_on_draining();
    }

    /// Closes those whose time has come.
    pub(super) fn go_on_draining(&mut self) {
        let tick = self.timers.tick();
        for mut leaving in std::mem::take(&mut self.leaving) {
            while let Some(id) = leaving.next_before(tick) {
                self.with(id, |shard, slot| shard.close(slot, leaving.code, &leaving.reason));
            }
            if !leaving.is_empty() {
                self.leaving.push(leaving);
            }
        }
        self.close_latecomers(tick);
    }

    /// Closes those that have been opened, and drops those that do not ask again. The first request has its usual time.
    fn close_latecomers(&mut self, tick: u32) {
        let Some(mut late) = self.late.take() else { return };
        for id in std::mem::take(&mut late.connections) {
            let Some(slot) = self.slot_of(id) else { continue };
            let connection = self.slab.at(slot);
            let has_asked_before = connection.route.is_some() && connection.session.asked().is_none();
            if !connection.session.is_requesting() {
                self.close(slot, late.code, &late.reason);
            } else if tick < late.until || !has_asked_before {
                late.connections.push(id);
            } else {
                self.drop_connection(slot);
            }
        }
        self.late = Some(late).filter(|late| !late.connections.is_empty());
    }
}
