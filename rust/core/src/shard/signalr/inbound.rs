//! What SignalR clients say: bytes to records, records to messages, messages to events.
use std::borrow::Cow;

use super::format_of;
use super::opening::connection_id_of;
use crate::channel::Origin;
use crate::messages::{ClosedBy, Connected, Event, SignalRMessage, SignalRMessageKind};
use crate::protocol::Format;
use crate::protocol::signalr::handshake::{self, HandshakeError, HandshakeRequest};
use crate::protocol::signalr::negotiate::Transport;
use crate::protocol::signalr::{CLOSE_ERROR, HubMessage, HubProtocol, Outcome, parse_message, write_records};
use crate::shard::connection::Phase;
use crate::shard::{Io, Shard};
use crate::ws::CloseCode;

/// What a record leads to, once its bytes are no longer borrowed.
enum Heard {
    Handshake(Result<HandshakeRequest, HandshakeError>),
    Event(SignalRMessage),
    Ping,
    Ack(i64),
    Sequence(i64),
    Goodbye,
    /// Nothing to do.
    Skipped,
    /// The client broke the protocol.
    Broken(String),
}

impl<I: Io> Shard<I> {
    /// The payload of a WebSocket message; what the application has no room for waits.
    pub(in crate::shard) fn take_payload(&mut self, slot: u32, payload: Vec<u8>) {
        let taken = self.take_records(slot, &payload);
        if taken < payload.len()
            && let Some(signalr) = self.slab.get_mut(slot).and_then(|connection| connection.signalr.as_deref_mut())
        {
            signalr.backlog = payload[taken..].to_vec();
        }
    }

    /// Goes on with what waited. True when nothing waits any more.
    pub(in crate::shard) fn take_backlog(&mut self, slot: u32) -> bool {
        let Some(signalr) = self.slab.get_mut(slot).and_then(|connection| connection.signalr.as_deref_mut()) else {
            return true;
        };
        let backlog = std::mem::take(&mut signalr.backlog);
        if !backlog.is_empty() {
            self.take_payload(slot, backlog);
        }
        let connection = self.slab.get(slot);
        connection.is_none_or(|connection| connection.signalr.as_ref().is_none_or(|signalr| !signalr.has_backlog()))
    }

    /// Deals with bytes of a client's stream of messages, however they are cut; gives how many it dealt with.
    ///
    /// Fewer than all only while the application has enough to do: somebody resumes the connection later.
    pub(super) fn take_records(&mut self, slot: u32, bytes: &[u8]) -> usize {
        let mut at = 0;
        let record_bytes_max = self.settings.hubs.message_bytes_max;
        while at < bytes.len() {
            let connection = self.slab.get_mut(slot).filter(|connection| connection.is_live());
            // What comes behind the message at whose answer the socket broke is thrown away: the client sends it again.
            let Some(connection) = connection.filter(|one| !matches!(one.phase, Phase::Detached)) else { break };
            if connection.pending >= self.settings.messages_pending_max || !self.may_ask(slot) {
                return at;
            }
            let tick = self.timers.tick();
            let connection = self.slab.at(slot);
            let protocol = connection.format.hub_protocol().unwrap_or(HubProtocol::Json);
            let Some(signalr) = connection.signalr.as_deref_mut() else { break };
            signalr.heard_tick = tick;
            let has_shaken_hands = signalr.has_shaken_hands;
            let is_relayed = connection.route.as_ref().is_some_and(|route| route.asks.records);
            let heard = match signalr.records.receive(&bytes[at..], record_bytes_max) {
                Ok((taken, record)) => {
                    at += taken;
                    match record {
                        None => break,
                        Some(record) if has_shaken_hands => hear(protocol, record, is_relayed),
                        Some(record) => {
                            let known = [HubProtocol::Json, HubProtocol::MessagePack];
                            let has_msgpack = self.settings.speaks_msgpack || is_relayed;
                            Heard::Handshake(handshake::parse_request(record, &known[..1 + usize::from(has_msgpack)]))
                        }
                    }
                }
                Err(error) if has_shaken_hands => Heard::Broken(error.to_string()),
                Err(error) => Heard::Handshake(Err(error.into())),
            };
            signalr.records.give_back();
            self.act_on(slot, heard);
        }
        bytes.len()
    }

    fn act_on(&mut self, slot: u32, heard: Heard) {
        match heard {
            Heard::Skipped => {}
            Heard::Ping => self.note_ping(slot),
            Heard::Ack(sequence_id) if self.take_ack(slot, sequence_id) => {}
            Heard::Sequence(sequence_id) if self.take_sequence(slot, sequence_id) => {}
            Heard::Ack(sequence_id) | Heard::Sequence(sequence_id) => {
                self.break_signalr(slot, &format!("{sequence_id} is a number beyond the messages"));
            }
            Heard::Event(event) => {
                if !self.is_due(slot) {
                    return;
                }
                self.owe_ack(slot);
                if self.slab.get(slot).is_none() {
                    return; // its socket broke at the ack, and it is not to come back
                }
                self.announce(slot);
                self.slab.at(slot).pending += 1;
                self.common.events.push(self.index, Event::SignalR(self.whose(slot), Box::new(event)));
            }
            Heard::Handshake(Ok(request)) => self.shake_hands(slot, request),
            Heard::Handshake(Err(error)) => self.refuse_handshake(slot, &error),
            Heard::Goodbye => self.end_signalr(slot, None, false, (CloseCode::NORMAL, "", ClosedBy::Client)),
            Heard::Broken(reason) => self.break_signalr(slot, &reason),
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
        let Some(signalr) = connection.signalr.as_deref_mut() else { return };
        if signalr.transport == Transport::ServerSentEvents && request.protocol == HubProtocol::MessagePack {
            return self.refuse_handshake(slot, &HandshakeError::UnsupportedFormat);
        }
        signalr.has_shaken_hands = true;
        if signalr.may_be_stateful && request.has_stateful_reconnect() && signalr.transport == Transport::WebSockets {
            signalr.stateful = Some(Box::default());
            self.one_by_one += 1;
        }
        signalr.records.set_protocol(request.protocol);
        connection.format = format_of(request.protocol, signalr.transport);
        write_records(connection.format, handshake::AGREED, connection.transport.outbox.bytes_mut());
        self.begin_upkeep(slot);
        self.flush(slot);
        for watched in self.own_channels(slot) {
            if self.slab.get(slot).is_some_and(|connection| connection.is_live()) {
                self.subscribe(slot, watched, Origin::default());
            }
        }
        if self.asks(slot).connected && self.slab.get(slot).is_some_and(|connection| connection.is_live()) {
            self.announce(slot);
        }
    }

    /// Tells the application of the handshake, if it has not been told.
    ///
    /// Where nobody waits for it, that is with the first message: a client that only listens costs the application nothing.
    fn announce(&mut self, slot: u32) {
        let whose = self.whose(slot);
        let connection = self.slab.at(slot);
        let Some(signalr) = connection.signalr.as_deref_mut() else { return };
        if std::mem::replace(&mut signalr.is_announced, true) {
            return;
        }
        let connected = Connected {
            opened_as: signalr.opened_as,
            path: connection.route.as_ref().map(|route| route.path().to_owned()).unwrap_or_default(),
            transport: signalr.transport,
            connection_id: connection_id_of(&signalr.token),
        };
        connection.is_reported = true;
        self.common.events.push(self.index, Event::Connected(whose, Some(Box::new(connected))));
    }

    pub(super) fn refuse_handshake(&mut self, slot: u32, error: &HandshakeError) {
        let connection = self.slab.at(slot);
        let format = match connection.signalr.as_deref().map(|signalr| signalr.transport) {
            Some(Transport::ServerSentEvents) => Format::HubSse,
            Some(Transport::LongPolling) => Format::HubPollJson,
            _ => Format::HubJson,
        };
        let mut reply = Vec::new();
        handshake::write_refusal(&mut reply, error, self.settings.hubs.tells_details);
        write_records(format, &reply, connection.transport.outbox.bytes_mut());
        let reason = error.to_string();
        self.end_signalr_as_is(slot, (CloseCode::PROTOCOL_ERROR, &reason, ClosedBy::Server));
    }
}

fn hear(protocol: HubProtocol, record: &[u8], is_relayed: bool) -> Heard {
    let message = match parse_message(protocol, record) {
        Ok(message) => message,
        Err(error) => return Heard::Broken(error.to_string()),
    };
    let owned = |ids: Vec<Cow<'_, str>>| ids.into_iter().map(|id| id.into_owned()).collect();
    let event = |kind, id: Cow<'_, str>, body: &[u8]| SignalRMessage {
        kind,
        id: id.into_owned(),
        target: String::new(),
        body: body.to_vec(),
        record: is_relayed.then(|| protocol.whole(record)),
        stream_ids: Vec::new(),
    };
    Heard::Event(match message {
        HubMessage::Ping => return Heard::Ping,
        HubMessage::Close { .. } => return Heard::Goodbye,
        HubMessage::Ack { sequence_id } => return Heard::Ack(sequence_id),
        HubMessage::Sequence { sequence_id } => return Heard::Sequence(sequence_id),
        HubMessage::Unknown { .. } => return Heard::Skipped,
        HubMessage::Invocation { id, target, arguments, stream_ids } => SignalRMessage {
            target: target.into_owned(),
            stream_ids: owned(stream_ids),
            ..event(SignalRMessageKind::Invocation, id.unwrap_or_default(), arguments)
        },
        HubMessage::StreamInvocation { id, target, arguments, stream_ids } => SignalRMessage {
            target: target.into_owned(),
            stream_ids: owned(stream_ids),
            ..event(SignalRMessageKind::StreamInvocation, id, arguments)
        },
        HubMessage::StreamItem { id, item } => event(SignalRMessageKind::StreamItem, id, item),
        HubMessage::Completion { id, outcome } => match outcome {
            Outcome::Error(text) => event(SignalRMessageKind::Error, id, text.as_bytes()),
            Outcome::Void => event(SignalRMessageKind::Void, id, b""),
            Outcome::Result(result) => event(SignalRMessageKind::Result, id, result),
        },
        HubMessage::CancelInvocation { id } => event(SignalRMessageKind::Cancel, id, b""),
    })
}
