//! What peers send, and their silence: bytes and deadlines go to the session, and what it gives is done. A peer whose
//! messages wait is not read.
use std::time::Duration;

use super::connection::LINGER_BYTES_MAX;
use super::{Io, Shard};
use crate::messages::{Event, SLOTS_MAX};
use crate::protocol::{raw, write_reply_error};
use crate::routes::Asks;
use crate::session::{Due, Heard, Held, Reads, Terms, Unread};
use crate::ws::{CloseCode, Opcode, ReceiveError, write_header};

/// Receives in one turn from one connection; a peer that sends without end waits for the others.
const RECEIVES_MAX: usize = 4;

/// Answers to messages that came together are written together, about so many bytes.
const ANSWERS_BYTES_MAX: usize = 4 << 10;

impl<I: Io> Shard<I> {
    /// Reads what the kernel holds for a connection, unless its messages wait or it has no socket any more.
    pub(super) fn read(&mut self, slot: u32) {
        self.read_on(slot, true);
    }

    /// With `is_ended` also behind a short read: the end of the stream may stand there, and tells only once.
    pub(super) fn read_on(&mut self, slot: u32, is_ended: bool) {
        let mut buffer = std::mem::take(&mut self.buffer);
        for round in 0.. {
            let Some(connection) = self.slab.get_mut(slot) else { break };
            let may_read = connection.transport.unread.is_none() && connection.session.is_read();
            let Some(fd) = connection.transport.socket().filter(|_| may_read) else {
                break;
            };
            if round == RECEIVES_MAX || (round > 0 && self.has_served_enough()) {
                self.later.push(self.id_of(slot));
                break;
            }
            let received = self.io.receive(fd, &mut buffer);
            if received <= 0 {
                match -received as i32 {
                    0 => self.end_of_stream(slot),
                    libc::EAGAIN | libc::EINTR => {}
                    errno => self.break_off(slot, errno),
                }
                break;
            }
            let count = received as usize;
            self.stats.bytes_in.add(count as u64);
            self.hear(slot);
            self.take_bytes(slot, &mut buffer[..count]);
            if count < buffer.len() && !is_ended {
                break; // a short read: the kernel holds no more, and tells when it does (epoll(7))
            }
        }
        self.buffer = buffer;
        self.unhush_if_cut(slot);
    }

    /// Something came: the peer lives.
    fn hear(&mut self, slot: u32) {
        let connection = self.slab.at(slot);
        if connection.session.handle_received() && connection.failure.is_none() {
            self.timers.set(slot, self.settings.ping_interval);
        }
    }

    /// Goes on with what was left unread, then with the socket.
    pub(super) fn resume_reading(&mut self, slot: u32) {
        if !self.take_backlog(slot) {
            return;
        }
        let Some(mut unread) = self.slab.get_mut(slot).and_then(|connection| connection.transport.unread.take()) else {
            return;
        };
        self.take_bytes(slot, &mut unread.0);
        self.ask_guest_for_more(slot);
        if self.slab.get(slot).is_some_and(|connection| connection.transport.unread.is_none()) {
            self.read(slot);
        }
    }

    /// Deals with received bytes and writes the answers; what can't be dealt with now is kept as unread.
    pub(super) fn take_bytes(&mut self, slot: u32, bytes: &mut [u8]) {
        self.take_messages(slot, bytes);
        let connection = self.slab.get(slot);
        if connection.is_some_and(|one| one.session.is_conversing() && !one.transport.outbox.is_empty()) {
            self.flush(slot);
        }
    }

    fn take_messages(&mut self, slot: u32, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            let is_enough = at > 0 && self.has_served_enough();
            let Some(connection) = self.slab.get_mut(slot) else { return };
            if connection.failure.is_some() {
                return; // thrown away: the peer broke a rule before
            }
            let reads = connection.session.reads();
            if is_enough && matches!(reads, Reads::Frames | Reads::Head) {
                connection.transport.unread = Some(Box::new(Unread(bytes[at..].into())));
                self.later.push(self.id_of(slot));
                return;
            }
            at += match reads {
                Reads::Head if self.may_ask(slot) => self.take_head(slot, &bytes[at..]),
                Reads::Frames if self.may_read(slot) => self.take_frame(slot, &mut bytes[at..]),
                Reads::Wanted if self.may_ask(slot) => self.take_body(slot, &bytes[at..]),
                Reads::Body if self.may_post(slot) => self.take_posted(slot, &bytes[at..]),
                Reads::PassedOn => self.take_passed_on(slot, &bytes[at..]),
                Reads::LastFrames => self.take_last_frame(slot, &mut bytes[at..]),
                Reads::Rest => return self.throw_away(slot, bytes.len() - at),
                Reads::Nothing => return,
                Reads::Head | Reads::Frames | Reads::Body | Reads::Wanted | Reads::Later => {
                    self.slab.at(slot).transport.unread = Some(Box::new(Unread(bytes[at..].into())));
                    return;
                }
            };
        }
    }

    /// The peer goes on behind its end: what comes is thrown away, within a bound.
    fn throw_away(&mut self, slot: u32, count: usize) {
        let Some(ending) = self.slab.at(slot).ending.as_deref_mut() else { return };
        ending.thrown_away += count;
        if ending.thrown_away > LINGER_BYTES_MAX {
            self.drop_connection(slot);
        }
    }

    /// Whether a request may become an event; when not, it is looked at when the application has caught up.
    pub(super) fn may_ask(&mut self, slot: u32) -> bool {
        let has_room = self.common.events.has_room(self.index);
        if !has_room {
            self.stalled.push(self.id_of(slot));
        }
        has_room
    }

    /// Whether one more message of this connection may become an event; when not, somebody resumes it later.
    pub(super) fn may_read(&mut self, slot: u32) -> bool {
        let connection = self.slab.at(slot);
        if connection.pending >= self.settings.messages_pending_max || connection.session.has_backlog() {
            return false;
        }
        self.may_ask(slot)
    }

    /// Takes up to one whole message.
    fn take_frame(&mut self, slot: u32, bytes: &mut [u8]) -> usize {
        let terms = Terms {
            whose: self.whose(slot),
            asks: self.asks(slot),
            message_bytes_max: self.message_bytes_max(slot),
            inflates: self.slab.at(slot).inflates.is_some(),
        };
        let connection = self.slab.at(slot);
        let out = connection.transport.outbox.bytes_mut();
        let (taken, heard) = connection.session.handle_frames(bytes, terms, out);
        match heard {
            None => {}
            Some(Heard::Broken(ReceiveError::MessageTooBig { .. })) if connection.session.signalr().is_some() => {
                self.break_signalr(slot, "a message over message_bytes_max");
            }
            Some(Heard::Broken(error)) => self.fail_when_answered(slot, error.close_code(), error.to_string()),
            Some(Heard::Close(code, reason)) => self.closed_by_peer(slot, code, &reason),
            Some(Heard::Answered) => self.flush_many(slot),
            Some(Heard::Payload(bytes)) => self.take_payload(slot, &bytes),
            Some(Heard::Subscribe(names, id, wanted)) => {
                self.subscribe_by_message(slot, &names, id.as_deref(), &wanted);
            }
            Some(Heard::Unsubscribe(names, id)) => self.unsubscribe_by_message(slot, &names, id.as_deref()),
            Some(Heard::Event(mut event)) => {
                if let Event::Subscribing(.., wanted) = &mut event {
                    wanted.since_ns = self.clock.now_ns();
                }
                connection.pending += 1;
                connection.is_reported = true;
                self.common.events.push(self.index, event);
            }
        }
        taken
    }

    /// After our Close only the peer's matters (RFC 6455 §5.5.1).
    fn take_last_frame(&mut self, slot: u32, bytes: &mut [u8]) -> usize {
        let bytes_max = self.message_bytes_max(slot);
        match self.slab.at(slot).session.handle_last_frames(bytes, bytes_max) {
            Some((taken, is_close)) => {
                if is_close {
                    self.closed_by_peer(slot, None, "");
                }
                taken
            }
            None => {
                self.drop_connection(slot);
                bytes.len()
            }
        }
    }

    /// What the owner of a connection's path is asked.
    pub(super) fn asks(&self, slot: u32) -> Asks {
        let route = self.slab.get(slot).and_then(|connection| connection.route.as_ref());
        route.map(|route| route.asks).unwrap_or_default()
    }

    fn message_bytes_max(&self, slot: u32) -> usize {
        let route = self.slab.get(slot).and_then(|connection| connection.route.as_ref());
        route.and_then(|route| route.limits.message_bytes_max).unwrap_or(self.settings.message_bytes_max)
    }

    /// Writes answers before the last one of what came together, once there are many.
    fn flush_many(&mut self, slot: u32) {
        if self.slab.at(slot).transport.outbox.waiting().len() > ANSWERS_BYTES_MAX {
            self.flush(slot);
        }
    }

    /// Writes what stands in the outbox, unless the socket is full; an outbox over its bound ends the connection.
    pub(super) fn flush(&mut self, slot: u32) {
        let Some(connection) = self.slab.get_mut(slot) else { return };
        if connection.session.is_detached() || self.flush_guest(slot) {
            return;
        }
        let connection = self.slab.at(slot);
        if connection.session.is_polled() {
            self.answer_poll(slot);
        } else if !connection.transport.is_blocked {
            self.pump(slot);
        }
        let Some(connection) = self.slab.get_mut(slot) else { return };
        let waiting = connection.transport.outbox.waiting().len();
        if waiting > self.settings.outbox_bytes_max {
            let bound = self.settings.outbox_bytes_max;
            self.close(
                slot,
                CloseCode::TRY_AGAIN_LATER,
                &format!("{waiting} private bytes wait, the bound is {bound}"),
            );
        }
    }

    /// Adds an error reply to the outbox.
    pub(super) fn reply_error(&mut self, slot: u32, id: Option<&str>, error: &str) {
        let mut reply = Vec::new();
        write_reply_error(&mut reply, id, error);
        raw::write_text(self.slab.at(slot).transport.outbox.bytes_mut(), &reply);
    }

    /// A deadline has come.
    pub(super) fn expire(&mut self, slot: u32) {
        let Some(connection) = self.slab.get_mut(slot) else { return };
        if let Some(failure) = connection.failure.take() {
            self.fail(slot, failure.0, &failure.1);
            return;
        }
        let held =
            Held { is_unread: connection.transport.unread.is_some(), is_blocked: connection.transport.is_blocked };
        match connection.session.handle_timeout(held) {
            Due::Drop => self.drop_connection(slot),
            Due::Refuse => self.refuse_late(slot),
            Due::EmptyPoll => self.expire_poll(slot),
            Due::SignalR => self.expire_signalr(slot),
            Due::Probe => {
                if !held.is_blocked {
                    write_header(connection.transport.outbox.bytes_mut(), Opcode::Ping, 0);
                }
                self.look_again(slot, self.settings.ping_interval);
            }
            Due::Ping => {
                write_header(connection.transport.outbox.bytes_mut(), Opcode::Ping, 0);
                self.look_again(slot, self.settings.ping_timeout);
            }
            Due::Comment => self.comment(slot),
            Due::Patience => self.timers.set(slot, self.settings.ping_timeout),
            Due::Silent => {
                let seconds = self.settings.ping_timeout.as_secs_f64();
                self.close(slot, CloseCode::INTERNAL, &format!("no answer to a ping within {seconds} s"));
            }
            Due::Stuck => {
                let seconds = self.settings.ping_timeout.as_secs_f64();
                self.close(slot, CloseCode::INTERNAL, &format!("took nothing for {seconds} s"));
            }
        }
    }

    pub(super) fn look_again(&mut self, slot: u32, after: Duration) {
        self.timers.set(slot, after);
        self.flush(slot);
    }

    /// The token under which the poller knows a connection.
    pub(super) fn token_of(&self, slot: u32) -> u64 {
        let generation = self.slab.get(slot).map_or(0, |connection| connection.generation);
        debug_assert!(slot <= SLOTS_MAX);
        u64::from(generation) << 24 | u64::from(slot)
    }
}
