//! A hub protocol over a WebSocket, an event stream with posts, or polls with posts: what one client says and is owed.
//!
//! [`pace`](Pace) expects its pings, [`requests`](Requests) has the posts and polls that carry its messages, and
//! [`stateful`](Stateful) keeps the books of one that may change its socket.
mod pace;
mod requests;
mod stateful;

use std::borrow::Cow;
use std::sync::Arc;

pub(crate) use pace::Pace;
use requests::Requests;
pub(crate) use requests::{Poll, PollAnswer};
pub(crate) use stateful::{Ack, Stateful, UNACKED_BYTES_MAX};

use super::decisions::Unread;
use super::websocket::{Heard, Terms, receive};
use crate::channel::Channel;
use crate::messages::{ConnectionId, SignalRMessage, SignalRMessageKind};
use crate::protocol::signalr::handshake::{self, HandshakeError, HandshakeRequest};
use crate::protocol::signalr::negotiate::Transport;
use crate::protocol::signalr::{HubMessage, HubProtocol, Outcome, RecordReceiver, parse_message};
use crate::protocol::{Format, Formats};
use crate::tokens::Token;
use crate::ws::Receiver;

/// What a SignalR connection speaks, and what it is owed.
///
/// | state | a record | its time is up |
/// |---|---|---|
/// | begun | the handshake, or refused | refused |
/// | shaken | an event, a ping, an ack, the end | [`handle_silence`](Self::handle_silence), once a ping that is expected was looked for |
/// | shaken, polled | the same, from posts | over: no poll came |
/// | detached | none comes | dropped |
/// | over | thrown away | dropped |
#[derive(Debug)]
pub(crate) struct SignalR {
    pub(crate) transport: Transport,
    pub(crate) token: Token,
    /// Its user's channel, until it is on that.
    pub(crate) user: Option<Arc<Channel>>,
    pub(crate) has_shaken_hands: bool,
    /// The application has been told of the handshake.
    pub(crate) is_announced: bool,
    /// It has sent a message.
    pub(crate) has_spoken: bool,
    /// When the client pings, and so has promised to go on.
    pub(crate) pace: Pace,
    /// Tick of the last message.
    pub(crate) heard_tick: u32,
    /// Tick of the next ping.
    pub(crate) ping_tick: u32,
    /// Frames, on a WebSocket.
    pub(super) receiver: Receiver,
    records: RecordReceiver,
    /// Of the last frame, what the application had no room for.
    backlog: Option<Box<Unread>>,
    /// Of a connection without a WebSocket.
    requests: Option<Box<Requests>>,
    /// The negotiate granted a stateful reconnect; the handshake has to ask for it, too.
    pub(crate) may_be_stateful: bool,
    /// Its socket is gone, and it may get another one. It has no descriptor, and nothing that came from the old one: what
    /// the client has no answer to, it sends again.
    is_detached: bool,
    /// Of a connection that may get another socket.
    pub(crate) stateful: Option<Box<Stateful>>,
}

const _: () = assert!(size_of::<SignalR>() <= 120, "one step of the allocator more is 16 bytes a client");

/// What a record leads to, once its bytes are no longer borrowed.
#[derive(Debug)]
pub(crate) enum Record {
    Handshake(Result<HandshakeRequest, HandshakeError>),
    Message(SignalRMessage),
    Ping,
    Ack(i64),
    Sequence(i64),
    Goodbye,
    /// Nothing to do.
    Skipped,
    /// The client broke the protocol.
    Broken(String),
}

/// How records of a connection are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordTerms {
    pub(crate) protocol: HubProtocol,
    pub(crate) bytes_max: usize,
    /// Messages carry their records, to be passed on.
    pub(crate) is_relayed: bool,
    /// A handshake may ask for MessagePack.
    pub(crate) has_msgpack: bool,
}

/// What is to be done now that the time of a SignalR connection is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// No handshake came.
    RefuseHandshake,
    /// The client did not come back.
    Drop,
    /// No poll came.
    NoPoll,
    /// A ping may be expected, then see [`SignalR::handle_silence`].
    Upkeep,
    /// Nothing came for too long.
    Silent,
    /// What came is acknowledged.
    Ack,
    /// A ping.
    Ping,
    /// Nothing yet.
    Nothing,
}

/// Where client and hub ping at the same pace, ours waits so many ticks for theirs.
const LATE_TICKS_MAX: u32 = 5;

/// How often a connection pings, and how long it bears silence, in ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Both end with such a step, together with those of other connections.
    pub(crate) step: u32,
    pub(crate) keepalive: u32,
    pub(crate) client_timeout: u32,
}

impl SignalR {
    pub(crate) fn new(transport: Transport, token: Token) -> Self {
        Self {
            transport,
            token,
            user: None,
            has_shaken_hands: false,
            is_announced: false,
            has_spoken: false,
            pace: Pace::default(),
            heard_tick: 0,
            ping_tick: 0,
            receiver: Receiver::new(),
            records: RecordReceiver::new(HubProtocol::Json),
            backlog: None,
            requests: None,
            may_be_stateful: false,
            is_detached: false,
            stateful: None,
        }
    }

    /// Takes up to one frame's payload.
    pub(super) fn handle_frames(
        &mut self,
        bytes: &mut [u8],
        terms: Terms,
        out: &mut Vec<u8>,
    ) -> (usize, Option<Heard>) {
        receive(&mut self.receiver, (bytes, terms), out, |message, _| Some(Heard::Payload(message.bytes().to_vec())))
    }

    /// Takes up to one record from the client's stream of them, however it is cut; gives how many bytes were taken.
    pub(crate) fn handle_records(&mut self, bytes: &[u8], tick: u32, terms: RecordTerms) -> (usize, Option<Record>) {
        self.heard_tick = tick;
        let result = match self.records.receive(bytes, terms.bytes_max) {
            Ok((taken, None)) => (taken, None),
            Ok((taken, Some(record))) if self.has_shaken_hands => (taken, Some(understand(record, terms))),
            Ok((taken, Some(record))) => {
                let known = [HubProtocol::Json, HubProtocol::MessagePack];
                let request = handshake::parse_request(record, &known[..1 + usize::from(terms.has_msgpack)]);
                (taken, Some(Record::Handshake(request)))
            }
            Err(error) if self.has_shaken_hands => (0, Some(Record::Broken(error.to_string()))),
            Err(error) => (0, Some(Record::Handshake(Err(error.into())))),
        };
        self.records.give_back();
        result
    }

    /// The client asks for a protocol: the format that it speaks from now on, and whether it may get another socket.
    ///
    /// # Errors
    /// Its transport cannot carry what is asked for: an event stream carries text only.
    pub(crate) fn shake_hands(&mut self, request: &HandshakeRequest) -> Result<(Format, bool), HandshakeError> {
        let format = Format::of_hub(request.protocol, self.transport).ok_or(HandshakeError::UnsupportedFormat)?;
        self.has_shaken_hands = true;
        let is_stateful =
            self.may_be_stateful && request.has_stateful_reconnect() && self.transport == Transport::WebSockets;
        self.stateful = is_stateful.then(Box::default);
        self.records.set_protocol(request.protocol);
        Ok((format, is_stateful))
    }

    /// A deadline has come.
    pub(crate) fn handle_timeout(&self) -> Due {
        match self.transport {
            _ if !self.has_shaken_hands => Due::RefuseHandshake,
            _ if self.is_detached => Due::Drop,
            Transport::LongPolling => Due::NoPoll,
            Transport::WebSockets | Transport::ServerSentEvents => Due::Upkeep,
        }
    }

    /// The same, once its socket has been looked at. Who is not read from is not silent: its pings may wait.
    pub(crate) fn handle_silence(&mut self, tick: u32, patience: Patience, may_read: bool) -> Due {
        if !may_read {
            self.heard_tick = tick;
        }
        if tick >= self.silent_until(patience) {
            return Due::Silent;
        }
        if self.stateful.as_ref().and_then(|stateful| stateful.ack_tick).is_some_and(|due| tick >= due) {
            return Due::Ack;
        }
        if tick >= self.ping_tick && !self.pace.is_hushed() {
            self.ping_tick = tick + patience.keepalive;
            return Due::Ping;
        }
        Due::Nothing
    }

    /// The socket was written to in this tick: there is no need of a ping for as long as there is between two.
    pub(crate) fn handle_written(&mut self, tick: u32, patience: Patience) {
        self.ping_tick = self.ping_tick.max(tick + patience.keepalive);
    }

    /// A ping of the client's was read. True where one is to go out with that: both are due at the same pace, and who is
    /// written to when it is read from anyway costs less. One a little before its time is no more than one in eight.
    pub(crate) fn answers_ping(&mut self, tick: u32, patience: Patience) -> bool {
        let Some(pace) = self.pace.expects() else { return false };
        let (keepalive, early_max) = (patience.keepalive, patience.keepalive / 8);
        let is_soon = self.ping_tick <= tick + early_max || pace + early_max >= keepalive;
        if !is_soon || pace > keepalive + LATE_TICKS_MAX || self.ping_tick + LATE_TICKS_MAX >= tick + pace {
            return false;
        }
        self.ping_tick = tick + keepalive;
        true
    }

    fn silent_until(&self, patience: Patience) -> u32 {
        if self.pace.has_begun() { self.heard_tick.saturating_add(patience.client_timeout + 1) } else { u32::MAX }
    }

    /// When a deadline comes next: a ping that is due, an ack, or a client that has not kept its promise.
    pub(crate) fn poll_timeout(&self, patience: Patience) -> u32 {
        let ack_tick = self.stateful.as_ref().and_then(|stateful| stateful.ack_tick).unwrap_or(u32::MAX);
        let ping_tick = if self.pace.is_hushed() { u32::MAX } else { self.ping_tick.next_multiple_of(patience.step) };
        let silent_until = self.silent_until(patience).checked_next_multiple_of(patience.step).unwrap_or(u32::MAX);
        ping_tick.min(silent_until).min(ack_tick).min(self.pace.next_tick())
    }

    /// The socket is gone: whether the connection waits for another one. Of what the old one brought nothing is kept; what
    /// was not dealt with may end in half a record, and the client sends it again.
    pub(super) fn detach(&mut self) -> bool {
        if self.stateful.is_none() || self.is_detached {
            return false;
        }
        self.is_detached = true;
        self.records.forget();
        self.backlog = None;
        self.pace.forget_socket();
        true
    }

    /// Another socket has come.
    pub(crate) fn reattach(&mut self) {
        self.is_detached = false;
        self.receiver = Receiver::new();
    }

    pub(crate) fn is_detached(&self) -> bool {
        self.is_detached
    }

    /// The application has no room for these bytes of the last frame.
    pub(crate) fn keep_backlog(&mut self, bytes: &[u8]) {
        self.backlog = Some(Box::new(Unread(bytes.into())));
    }

    /// What waited is dealt with now.
    pub(crate) fn take_backlog(&mut self) -> Option<Unread> {
        self.backlog.take().map(|unread| *unread)
    }

    /// The posts and polls that are for it.
    pub(crate) fn requests_mut(&mut self) -> &mut Requests {
        self.requests.get_or_insert_default()
    }

    /// The posts that have come and are not dealt with, in their order.
    pub(crate) fn posts(&self) -> impl Iterator<Item = ConnectionId> {
        self.requests.iter().flat_map(|requests| requests.posts())
    }

    /// The poll that waits for messages.
    pub(crate) fn poll(&self) -> Option<ConnectionId> {
        self.requests.as_ref()?.poll()
    }

    /// Whether the client has to poll within its time.
    pub(crate) fn owes_poll(&self) -> bool {
        self.has_shaken_hands && !self.is_over() && self.poll().is_none()
    }

    /// Whether the end has been said, and waits for a poll.
    pub(crate) fn is_over(&self) -> bool {
        self.requests.as_ref().is_some_and(|requests| requests.is_over())
    }

    /// Whether what came must be dealt with before more is read.
    pub(crate) fn has_backlog(&self) -> bool {
        self.backlog.is_some()
    }

    /// Whether nothing has begun that is not whole, or waits: frames are the caller's to know.
    pub(crate) fn is_between_records(&self) -> bool {
        !self.records.is_mid_record()
    }
}

/// What a client on a transport may come to speak: its handshake says which.
pub(crate) fn formats_on(transport: Transport, has_msgpack: bool) -> Formats {
    let protocols = [HubProtocol::Json, HubProtocol::MessagePack];
    let known = protocols.into_iter().take(1 + usize::from(has_msgpack));
    known.filter_map(|protocol| Format::of_hub(protocol, transport)).collect()
}

/// What a record means, behind the handshake.
fn understand(record: &[u8], terms: RecordTerms) -> Record {
    let RecordTerms { protocol, is_relayed, .. } = terms;
    let message = match parse_message(protocol, record) {
        Ok(message) => message,
        Err(error) => return Record::Broken(error.to_string()),
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
    Record::Message(match message {
        HubMessage::Ping => return Record::Ping,
        HubMessage::Close { .. } => return Record::Goodbye,
        HubMessage::Ack { sequence_id } => return Record::Ack(sequence_id),
        HubMessage::Sequence { sequence_id } => return Record::Sequence(sequence_id),
        HubMessage::Unknown { .. } => return Record::Skipped,
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
