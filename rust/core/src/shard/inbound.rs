//! What peers send: bytes to messages, messages to events. A peer whose messages wait is not read.

use super::connection::{LINGER_BYTES_MAX, Phase};
use super::query::no_start;
use super::transport::Unread;
use super::{Io, Shard};
use crate::channel::Start;
use crate::messages::{Event, SLOTS_MAX, Wanted};
use crate::position::Position;
use crate::protocol::raw::Since;
use crate::protocol::{Request, parse_request, raw, write_reply_error};
use crate::routes::{Asks, Wire};
use crate::ws::{CloseCode, Opcode, ReceiveError, Received, Receiver, write_header};

/// Receives in one turn from one connection; a peer that sends without end waits for the others.
const RECEIVES_MAX: usize = 4;

/// Answers to messages that came together are written together, about so many bytes.
const ANSWERS_BYTES_MAX: usize = 4 << 10;

/// To a client whose message is no request, where the application takes no messages.
const NOBODY_TAKES_IT: &str = concat!(
    r#"this is no request: {"subscribe":["NAME"]} watches channels, {"unsubscribe":["NAME"]} ends that, "#,
    r#"{"call":"METHOD","args":[],"id":1} calls a method"#
);

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
            let Some(fd) = connection.transport.socket().filter(|_| connection.transport.unread.is_none()) else {
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
        connection.awaits_pong = false;
        if matches!(connection.phase, Phase::Open(_)) && connection.failure.is_none() && connection.signalr.is_none() {
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
        if self.slab.get(slot).is_some_and(|connection| connection.transport.unread.is_none()) {
            self.read(slot);
        }
    }

    /// Deals with received bytes and writes the answers; what can't be dealt with now is kept as unread.
    pub(super) fn take_bytes(&mut self, slot: u32, bytes: &mut [u8]) {
        self.take_messages(slot, bytes);
        let connection = self.slab.get(slot);
        if connection.is_some_and(|one| matches!(one.phase, Phase::Open(_)) && !one.transport.outbox.is_empty()) {
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
            if is_enough && matches!(connection.phase, Phase::Open(_) | Phase::Opening(_)) {
                connection.transport.unread = Some(Box::new(Unread(bytes[at..].into())));
                self.later.push(self.id_of(slot));
                return;
            }
            at += match std::mem::replace(&mut connection.phase, Phase::Ending) {
                Phase::Opening(partial) if self.may_ask(slot) => self.take_head(slot, partial, &bytes[at..]),
                Phase::Open(receiver) if self.may_read(slot) => self.take_frame(slot, receiver, &mut bytes[at..]),
                Phase::Closing(receiver) => self.take_last_frame(slot, receiver, &mut bytes[at..]),
                Phase::Posting(carrier) if self.may_post(slot, &carrier) => {
                    self.take_posted(slot, carrier, &bytes[at..])
                }
                Phase::Ending => return self.throw_away(slot, bytes.len() - at),
                Phase::Detached => {
                    self.slab.at(slot).phase = Phase::Detached;
                    return; // of a socket that broke meanwhile: the client sends it again
                }
                Phase::Streaming => {
                    self.slab.at(slot).phase = Phase::Streaming;
                    return; // an event stream has no business to send; what comes is thrown away
                }
                waiting => {
                    // Opening, Asked, Open, Posting; Polling: the next request waits until this one is answered.
                    self.slab.at(slot).phase = waiting;
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
        let has_backlog = connection.signalr.as_ref().is_some_and(|signalr| signalr.has_backlog());
        if connection.pending >= self.settings.messages_pending_max || has_backlog {
            return false;
        }
        self.may_ask(slot)
    }

    /// Takes up to one whole message.
    fn take_frame(&mut self, slot: u32, mut receiver: Receiver, bytes: &mut [u8]) -> usize {
        // The connection is Ending while its receiver is out, so what the message leads to must see it open again.
        let bytes_max = self.message_bytes_max(slot);
        let (taken, outcome) = match receiver.receive(bytes, bytes_max) {
            Err(ReceiveError::MessageTooBig { .. }) if self.slab.at(slot).signalr.is_some() => {
                self.slab.at(slot).phase = Phase::Open(Receiver::new());
                self.break_signalr(slot, "a message over message_bytes_max");
                return bytes.len();
            }
            Err(error) => {
                self.slab.at(slot).phase = Phase::Open(Receiver::new());
                self.fail_when_answered(slot, error.close_code(), error.to_string());
                return bytes.len();
            }
            Ok((taken, None)) => (taken, None),
            Ok((taken, Some(received))) => (taken, self.understand(slot, received)),
        };
        receiver.give_back();
        self.slab.at(slot).phase = Phase::Open(receiver);
        match outcome {
            None => {}
            Some(Outcome::Close(code, reason)) => self.closed_by_peer(slot, code, &reason),
            Some(Outcome::Answered) => self.flush_many(slot),
            Some(Outcome::Payload(bytes)) => self.take_payload(slot, bytes),
            Some(Outcome::Subscribe(names, id, wanted)) => {
                self.subscribe_by_message(slot, &names, id.as_deref(), &wanted);
            }
            Some(Outcome::Unsubscribe(names, id)) => self.unsubscribe_by_message(slot, &names, id.as_deref()),
            Some(Outcome::Event(event)) => {
                let connection = self.slab.at(slot);
                connection.pending += 1;
                connection.is_reported = true;
                self.common.events.push(self.index, event);
            }
        }
        taken
    }

    /// After our Close only the peer's matters (RFC 6455 §5.5.1).
    fn take_last_frame(&mut self, slot: u32, mut receiver: Receiver, bytes: &mut [u8]) -> usize {
        let bytes_max = self.message_bytes_max(slot);
        match receiver.receive(bytes, bytes_max) {
            Ok((taken, Some(Received::Close { .. }))) => {
                self.slab.at(slot).phase = Phase::Closing(receiver);
                self.closed_by_peer(slot, None, "");
                taken
            }
            Ok((taken, _)) => {
                self.slab.at(slot).phase = Phase::Closing(receiver);
                taken
            }
            Err(_) => {
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

    fn understand(&mut self, slot: u32, received: Received<'_>) -> Option<Outcome> {
        let whose = self.whose(slot);
        let route = self.slab.at(slot).route.as_deref();
        let is_signalr = matches!(route.map(|route| route.wire), Some(Wire::SignalR(_)));
        let is_plain = matches!(route.map(|route| route.wire), Some(Wire::Plain));
        match received {
            Received::Text(text) if is_signalr => Some(Outcome::Payload(text.as_bytes().to_vec())),
            Received::Binary(bytes) if is_signalr => Some(Outcome::Payload(bytes.to_vec())),
            Received::Text(text) if is_plain => {
                Some(Outcome::Event(Event::Relayed(whose, true, text.as_bytes().to_vec())))
            }
            Received::Binary(bytes) if is_plain => Some(Outcome::Event(Event::Relayed(whose, false, bytes.to_vec()))),
            Received::Text(text) => self.understand_text(slot, text),
            Received::Binary(_) if !self.asks(slot).messages => self.hint(slot),
            Received::Binary(bytes) => Some(Outcome::Event(Event::Binary(whose, bytes.to_vec()))),
            Received::Ping(payload) => {
                let out = self.slab.at(slot).transport.outbox.bytes_mut();
                write_header(out, Opcode::Pong, payload.len());
                out.extend_from_slice(payload);
                Some(Outcome::Answered)
            }
            Received::Pong(_) => None,
            Received::Close { code, reason } => Some(Outcome::Close(code, reason.to_owned())),
        }
    }

    fn understand_text(&mut self, slot: u32, text: &str) -> Option<Outcome> {
        let (whose, asks) = (self.whose(slot), self.asks(slot));
        let owned = |id: Option<&str>| id.map(str::to_owned);
        match parse_request(text) {
            Ok(Request::Subscribe { channels, since, start, id }) => {
                let names = channels.into_iter().map(|name| name.into_owned()).collect();
                let wanted = match wanted_of(since, start.as_deref()) {
                    Ok(wanted) => wanted,
                    Err(error) => {
                        self.reply_error(slot, id, &error);
                        return Some(Outcome::Answered);
                    }
                };
                if asks.subscribing {
                    return Some(Outcome::Event(Event::Subscribing(whose, names, owned(id), wanted)));
                }
                Some(Outcome::Subscribe(names, owned(id), wanted))
            }
            Ok(Request::Unsubscribe { channels, id }) => {
                Some(Outcome::Unsubscribe(channels.into_iter().map(|name| name.into_owned()).collect(), owned(id)))
            }
            Ok(Request::Call { target, arguments, id }) => {
                Some(Outcome::Event(Event::Call(whose, target.into_owned(), arguments.to_owned(), owned(id))))
            }
            Ok(Request::Other) if !asks.messages => self.hint(slot),
            Ok(Request::Other) => Some(Outcome::Event(Event::Text(whose, text.to_owned()))),
            Err(error) => {
                self.reply_error(slot, error.id.as_deref(), &error.to_string());
                Some(Outcome::Answered)
            }
        }
    }

    /// A message that nobody takes: the first time its sender is told what it may send.
    fn hint(&mut self, slot: u32) -> Option<Outcome> {
        if std::mem::replace(&mut self.slab.at(slot).is_hinted, true) {
            return None;
        }
        self.reply_error(slot, None, NOBODY_TAKES_IT);
        Some(Outcome::Answered)
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
        if matches!(connection.phase, Phase::Detached) {
            return;
        }
        if matches!(connection.phase, Phase::Polled) {
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

    /// The token under which the poller knows a connection.
    pub(super) fn token_of(&self, slot: u32) -> u64 {
        let generation = self.slab.get(slot).map_or(0, |connection| connection.generation);
        debug_assert!(slot <= SLOTS_MAX);
        u64::from(generation) << 24 | u64::from(slot)
    }
}

/// Where a request wants its subscriptions to begin.
fn wanted_of(since: Option<Vec<Since<'_>>>, start: Option<&str>) -> Result<Wanted, String> {
    let start = start.map(|start| Start::from_name(start).ok_or_else(|| no_start(start))).transpose()?;
    let is_told = since.is_some();
    let named = |one: Since<'_>| {
        let Since { channel, epoch, offset } = one;
        (Some(channel.into()), Position { epoch, offset })
    };
    Ok(Wanted { start, since: since.into_iter().flatten().map(named).collect(), is_told })
}

/// What a message leads to, once its bytes are no longer borrowed.
enum Outcome {
    /// Something stands in the outbox.
    Answered,
    Subscribe(Vec<String>, Option<String>, Wanted),
    Unsubscribe(Vec<String>, Option<String>),
    Event(Event),
    /// Bytes of a hub protocol.
    Payload(Vec<u8>),
    Close(Option<CloseCode>, String),
}
