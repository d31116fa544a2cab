//! What SignalR clients say: bytes to records, records to messages, messages to events.
use super::opening::connection_id_of;
use crate::channel::Origin;
use crate::messages::{ClosedBy, Connected, Event};
use crate::protocol::Format;
use crate::protocol::signalr::handshake::{self, HandshakeError, HandshakeRequest};
use crate::protocol::signalr::negotiate::Transport;
use crate::protocol::signalr::{CLOSE_ERROR, HubProtocol, write_records};
use crate::session::signalr::{Record, RecordTerms};
use crate::shard::{Io, Shard};
use crate::ws::CloseCode;

impl<I: Io> Shard<I> {
    /// The payload of a WebSocket message; what the application has no room for waits.
    pub(in crate::shard) fn take_payload(&mut self, slot: u32, payload: &[u8]) {
        let taken = self.take_records(slot, payload);
        if taken < payload.len()
            && let Some(signalr) = self.slab.get_mut(slot).and_then(|connection| connection.session.signalr_mut())
        {
            signalr.keep_backlog(&payload[taken..]);
        }
    }

    /// Goes on with what waited. True when nothing waits any more.
    pub(in crate::shard) fn take_backlog(&mut self, slot: u32) -> bool {
        let Some(signalr) = self.slab.get_mut(slot).and_then(|connection| connection.session.signalr_mut()) else {
            return true;
        };
        if let Some(backlog) = signalr.take_backlog() {
            self.take_payload(slot, &backlog.0);
        }
        let connection = self.slab.get(slot);
        connection.is_none_or(|connection| !connection.session.has_backlog())
    }

    /// Deals with bytes of a client's stream of messages, however they are cut; gives how many it dealt with.
    ///
    /// Fewer than all only while the application has enough to do: somebody resumes the connection later.
    pub(super) fn take_records(&mut self, slot: u32, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let connection = self.slab.get_mut(slot).filter(|connection| connection.takes_publications());
            // What comes behind the message at whose answer the socket broke is thrown away: the client sends it again.
            let Some(connection) = connection.filter(|one| !one.session.is_detached()) else { break };
            if connection.pending >= self.settings.messages_pending_max || !self.may_ask(slot) {
                return at;
            }
            let tick = self.timers.tick();
            let is_relayed = self.asks(slot).records;
            let connection = self.slab.at(slot);
            let terms = RecordTerms {
                protocol: connection.format.hub_protocol().unwrap_or(HubProtocol::Json),
                bytes_max: self.settings.hubs.message_bytes_max,
                is_relayed,
                has_msgpack: self.settings.speaks_msgpack || is_relayed,
            };
            let Some(signalr) = connection.session.signalr_mut() else { break };
            let (taken, record) = signalr.handle_records(&bytes[at..], tick, terms);
            at += taken;
            match record {
                Some(record) => self.act_on(slot, record),
                None => break,
            }
        }
        bytes.len()
    }

    fn act_on(&mut self, slot: u32, record: Record) {
        match record {
            Record::Skipped => {}
            Record::Ping => self.note_ping(slot),
            Record::Ack(sequence_id) if self.take_ack(slot, sequence_id) => {}
            Record::Sequence(sequence_id) if self.take_sequence(slot, sequence_id) => {}
            Record::Ack(sequence_id) | Record::Sequence(sequence_id) => {
                self.break_signalr(slot, &format!("{sequence_id} is a number beyond the messages"));
            }
            Record::Message(message) => {
                if !self.is_due(slot) {
                    return;
                }
                self.owe_ack(slot);
                if self.slab.get(slot).is_none() {
                    return; // its socket broke at the ack, and it is not to come back
                }
                self.announce(slot);
                if self.take_up_offer(slot, &message) {
                    return;
                }
                self.slab.at(slot).pending += 1;
                self.common.events.push(self.index, Event::SignalR(self.whose(slot), Box::new(message)));
            }
            Record::Handshake(Ok(request)) => self.shake_hands(slot, request),
            Record::Handshake(Err(error)) => self.refuse_handshake(slot, &error),
            Record::Goodbye => self.end_signalr(slot, None, false, (CloseCode::NORMAL, "", ClosedBy::Client)),
            Record::Broken(reason) => self.break_signalr(slot, &reason),
        }
    }

    /// The client broke the protocol: it may come back and try again.
    pub(in crate::shard) fn break_signalr(&mut self, slot: u32, reason: &str) {
        let details = format!("{CLOSE_ERROR} InvalidDataException: {reason}");
        let told = if self.settings.hubs.tells_details { &details } else { CLOSE_ERROR };
        self.end_signalr(slot, Some(told), true, (CloseCode::PROTOCOL_ERROR, reason, ClosedBy::Server));
    }

    fn shake_hands(&mut self, slot: u32, request: HandshakeRequest) {
        let connection = self.slab.at(slot);
        let Some(signalr) = connection.session.signalr_mut() else { return };
        let (format, is_stateful) = match signalr.shake_hands(&request) {
            Ok(agreed) => agreed,
            Err(error) => return self.refuse_handshake(slot, &error),
        };
        connection.format = format;
        self.one_by_one += usize::from(is_stateful);
        self.note_formats(slot, format.into());
        let connection = self.slab.at(slot);
        write_records(connection.format, handshake::AGREED, connection.transport.outbox.bytes_mut());
        self.begin_upkeep(slot);
        self.flush(slot);
        for watched in self.take_own_channels(slot) {
            if self.slab.get(slot).is_some_and(|connection| connection.takes_publications()) {
                self.subscribe(slot, watched, Origin::default());
            }
        }
        for (watched, origin) in self.held.remove(&slot).unwrap_or_default() {
            if self.slab.get(slot).is_some_and(|connection| connection.takes_publications()) {
                self.subscribe(slot, watched, origin);
            }
        }
        if self.asks(slot).connected && self.slab.get(slot).is_some_and(|connection| connection.takes_publications()) {
            self.announce(slot);
        }
    }

    /// Tells the application of the handshake, if it has not been told.
    ///
    /// Where nobody waits for it, that is with the first message: a client that only listens costs the application nothing.
    fn announce(&mut self, slot: u32) {
        let whose = self.whose(slot);
        let connection = self.slab.at(slot);
        let Some(signalr) = connection.session.signalr_mut() else { return };
        if std::mem::replace(&mut signalr.is_announced, true) {
            return;
        }
        let connected = Connected {
            path: connection.route.as_ref().map(|route| route.path().to_owned()).unwrap_or_default(),
            transport: signalr.transport,
            protocol: connection.format.hub_protocol().unwrap_or(HubProtocol::Json),
            connection_id: connection_id_of(&signalr.token),
        };
        connection.is_reported = true;
        let event = Event::Connected(whose, Some(Box::new(connected)));
        // Where first calls are answered here, nothing that this client does waits for the application.
        if self.asks(slot).records && self.common.offers.any_of(whose.owner) {
            self.tell_quietly(event);
        } else {
            self.common.events.push(self.index, event);
        }
    }

    pub(super) fn refuse_handshake(&mut self, slot: u32, error: &HandshakeError) {
        let connection = self.slab.at(slot);
        let transport = connection.session.signalr().map_or(Transport::WebSockets, |signalr| signalr.transport);
        let format = Format::of_hub(HubProtocol::Json, transport).expect("each transport carries JSON");
        let mut reply = Vec::new();
        handshake::write_refusal(&mut reply, error, self.settings.hubs.tells_details);
        write_records(format, &reply, connection.transport.outbox.bytes_mut());
        let reason = error.to_string();
        self.end_signalr_as_is(slot, (CloseCode::PROTOCOL_ERROR, &reason, ClosedBy::Server));
    }
}
