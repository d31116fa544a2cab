//! Requests for connections that another worker has: passed on, and what comes back.
//!
//! A socket that becomes a WebSocket or an event stream is passed on itself. Of any other request the bytes are: what comes
//! next on its socket may be another client's, behind a proxy. Its connection here waits, in a session of its own.
use std::os::fd::AsRawFd;
use std::time::Duration;

use super::opening::no_connection;
use crate::http::RequestHead;
use crate::messages::ClosedBy;
use crate::routes::Placed;
use crate::session::Away;
use crate::shard::answers::{AnsweredBy, Elsewhere, Refusal};
use crate::shard::{Io, Shard};
use crate::siblings::{Delivery, Errand, Outgoing, Sought};
use crate::tokens::{Claim, Token};
use crate::ws::CloseCode;

/// How much longer than an answer may take another worker may take to bring it.
const WAY: Duration = Duration::from_secs(2);

impl<I: Io> Shard<I> {
    /// Whether the connection of a token may be with another worker: who issued the token knows.
    pub(super) fn may_be_elsewhere(&self, slot: u32, token: &Token) -> bool {
        let Some(siblings) = self.common.siblings.as_ref().filter(|_| !self.is_settled) else { return false };
        if self.guests.at(slot).is_some() {
            return false; // that worker has looked
        }
        match self.common.tokens.find(token, self.clock.now_ns()).map(|negotiated| negotiated.claim) {
            Some(Claim::Lent(_)) => true,
            Some(Claim::Open { .. } | Claim::By(_)) => false,
            None => !siblings.has_issued(token),
        }
    }

    pub(super) fn answered_elsewhere(
        &self,
        (route, head): (&Placed, &RequestHead<'_>),
        token: Token,
        takes_socket: bool,
    ) -> AnsweredBy {
        AnsweredBy::Worker(Elsewhere {
            token,
            route: route.number,
            takes_socket,
            is_poll: head.method == "GET",
            body: head.body,
            expects_continue: head.expects_continue(),
            readable_by: self.signalr_readable_by(route, head),
        })
    }

    /// The socket goes to the worker that has what is asked for, with all that was read from it.
    pub(in crate::shard) fn pass_socket_on(&mut self, slot: u32, elsewhere: &Elsewhere, bytes: Vec<u8>) {
        let Some(siblings) = self.common.siblings.clone() else { return };
        if self.slab.at(slot).transport.has_unsent() {
            // It has not read what it asked for before, which would be lost.
            let refusal = Refusal { is_bare: true, ..Refusal::new(503, "an earlier answer has not been read") };
            return self.refuse(slot, &refusal);
        }
        let client = self.clients_elsewhere.remove(&slot).unwrap_or_default();
        if let Some(fd) = self.slab.at(slot).transport.fd.take() {
            self.io.unwatch(fd.as_raw_fd());
            self.stats.connections.sub(1);
            self.stats.passed_on.add(1);
            let outgoing = Outgoing { token: elsewhere.token, route: elsewhere.route, client, bytes };
            siblings.leave(Errand::Socket(self.index, fd, outgoing));
        }
        self.drop_connection(slot);
    }

    /// The request goes to that worker, and its answer comes back.
    pub(in crate::shard) fn pass_request_on(&mut self, slot: u32, elsewhere: Elsewhere, head: Vec<u8>) {
        let Elsewhere { token, route, is_poll, body, expects_continue, readable_by, .. } = elsewhere;
        self.stats.passed_on.add(1);
        let waits = if is_poll { self.settings.hubs.poll_timeout } else { self.settings.handshake_timeout };
        self.timers.set(slot, waits + WAY);
        let begins = Some((token, route));
        let away = Away { bytes: head, begins, body, is_awaited: false, is_poll, readable_by };
        self.slab.at(slot).session.go_away(away);
        // Otherwise it goes with the first bytes of the body, which mostly are there.
        if body.is_done() || expects_continue {
            self.send_on(slot);
        }
        if self.is_draining {
            self.hurry(slot); // nobody is kept waiting here
        }
    }

    /// Passes on what has come; more is read when that was taken.
    fn send_on(&mut self, slot: u32) {
        let id = self.id_of(slot);
        let Some(away) = self.slab.at(slot).session.away_mut() else { return };
        away.is_awaited = true;
        let bytes = std::mem::take(&mut away.bytes);
        let errand = match away.begins.take() {
            Some((token, route)) => {
                let client = self.client_at(slot).into();
                Errand::Request(id, Outgoing { token, route, client, bytes })
            }
            None => Errand::More(id, bytes),
        };
        if let Some(siblings) = &self.common.siblings {
            siblings.leave(errand);
        }
    }

    /// Takes some of the body of such a request.
    pub(in crate::shard) fn take_passed_on(&mut self, slot: u32, bytes: &[u8]) -> usize {
        let Some(away) = self.slab.at(slot).session.away_mut() else { return bytes.len() };
        let mut at = 0;
        while at < bytes.len() && !away.body.is_done() {
            match away.take(&bytes[at..]) {
                Ok(taken) => at += taken,
                Err(error) => {
                    self.refuse(slot, &error.into());
                    return bytes.len();
                }
            }
        }
        self.timers.set(slot, self.settings.handshake_timeout + WAY);
        self.send_on(slot);
        at
    }

    /// A poll that waits at another worker is to be answered: this one ends.
    pub(in crate::shard) fn hurry(&mut self, slot: u32) {
        let is_poll = self.slab.at(slot).session.away().is_some_and(|away| away.is_poll);
        if let Some(siblings) = self.common.siblings.as_ref().filter(|_| is_poll) {
            siblings.leave(Errand::Hurry(self.id_of(slot)));
        }
    }

    /// Nobody waits any more for what was passed on, if anything was.
    pub(in crate::shard) fn abandon(&mut self, slot: u32) {
        let is_away = self.slab.get(slot).is_some_and(|connection| connection.session.away().is_some());
        if let Some(siblings) = self.common.siblings.as_ref().filter(|_| is_away) {
            siblings.leave(Errand::Abandon(self.id_of(slot)));
        }
    }

    /// What the thread with the links brings.
    pub(in crate::shard) fn take_delivery(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Returned(id, bytes, sought) => {
                self.with(id, |shard, slot| shard.take_back(slot, bytes, sought));
            }
            Delivery::Socket(fd, outgoing, sought) => {
                let client = Some(outgoing.client).filter(|client| !client.is_empty());
                if let Some(slot) = self.welcome(fd, client) {
                    self.read_settled(slot, outgoing.bytes, sought);
                }
            }
            Delivery::Response(id, bytes, end) => self.with(id, |shard, slot| shard.take_response(slot, &bytes, end)),
            Delivery::Taken(id) => self.with(id, |shard, slot| {
                if let Some(away) = shard.slab.at(slot).session.away_mut() {
                    away.is_awaited = false;
                }
                shard.timers.set(slot, shard.settings.handshake_timeout + WAY);
                shard.later.push(id);
            }),
            Delivery::Lost(id) => self.with(id, |shard, slot| {
                if let Some(away) = shard.slab.at(slot).session.away() {
                    let is_uncached = away.is_poll;
                    shard.refuse(slot, &Refusal { is_uncached, ..no_connection() });
                }
            }),
            Delivery::Guest(id, client, bytes) => self.receive_guest(id, client, bytes),
            Delivery::More(id, bytes) => self.take_more_of_guest(id, bytes),
            Delivery::Hurry(id) => self.hurry_guest(id),
            Delivery::Leave(id) => self.leave_guest(id),
        }
    }

    /// A request that is to be dealt with here: its head is read once more, and what has come behind it.
    fn take_back(&mut self, slot: u32, mut bytes: Vec<u8>, sought: Sought) {
        let connection = self.slab.at(slot);
        let Some(away) = connection.session.away_mut() else { return };
        bytes.append(&mut away.bytes);
        if let Some(unread) = connection.transport.unread.take() {
            bytes.extend_from_slice(&unread.0);
        }
        self.timers.set(slot, self.settings.handshake_timeout);
        if sought == Sought::Settled {
            self.slab.at(slot).session.finish_request(true);
        }
        self.read_settled(slot, bytes, sought);
    }

    fn read_settled(&mut self, slot: u32, mut bytes: Vec<u8>, sought: Sought) {
        if sought == Sought::Unknown {
            let text = "the worker that has given out this token does not answer";
            return self.refuse(slot, &Refusal { is_bare: true, ..Refusal::new(503, text) });
        }
        self.is_settled = true;
        self.take_bytes(slot, &mut bytes);
        self.is_settled = false;
        self.later.push(self.id_of(slot)); // what came meanwhile told once
    }

    fn take_response(&mut self, slot: u32, bytes: &[u8], end: Option<bool>) {
        if self.slab.at(slot).session.away().is_none() {
            return;
        }
        self.slab.at(slot).transport.outbox.bytes_mut().extend_from_slice(bytes);
        let Some(keeps_alive) = end else { return self.flush(slot) };
        let is_read = self.slab.at(slot).session.away().is_some_and(|away| away.body.is_done());
        self.slab.at(slot).session.finish_request(keeps_alive && is_read);
        if keeps_alive && is_read {
            self.timers.set(slot, self.settings.handshake_timeout);
            self.flush(slot);
        } else {
            self.end_soon(slot, CloseCode::ABNORMAL, "", ClosedBy::Server);
        }
        self.later.push(self.id_of(slot)); // a request may stand behind it already
    }
}
