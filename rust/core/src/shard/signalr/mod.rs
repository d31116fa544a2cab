//! SignalR connections: a hub protocol over a WebSocket, over an event stream with posts, or over polls with posts.
//!
//! A connection is one entry of the slab on each transport, and has its subscriptions, outbox and pending messages like
//! any other. What is SignalR's own stands in its [`SignalR`]. Its token finds it for requests on other sockets; a request
//! that comes to another shard is handed over, socket and all. `opening` has negotiates and transports, `requests` posts
//! and polls, `inbound` its messages, `stateful` connections that change sockets, `upkeep` pings, deadlines and
//! ends, `expected` the clients' pings.
mod expected;
mod inbound;
mod opening;
mod requests;
mod stateful;
mod upkeep;

use std::collections::VecDeque;

pub(super) use opening::accepts_event_stream;
pub(super) use requests::UNCACHED;
pub(crate) use stateful::Stateful;

use crate::http::Body;
use crate::messages::ConnectionId;
use crate::protocol::Format;
use crate::protocol::signalr::negotiate::{NegotiateRequest, Transport};
use crate::protocol::signalr::{HubProtocol, RecordReceiver};
use crate::tokens::Token;

/// What a SignalR connection has besides.
#[derive(Debug)]
pub(crate) struct SignalR {
    pub(crate) transport: Transport,
    pub(crate) token: Token,
    /// What the application was told that it is called.
    pub(crate) opened_as: ConnectionId,
    pub(crate) user: Option<Box<str>>,
    pub(crate) has_shaken_hands: bool,
    /// The application has been told of the handshake.
    is_announced: bool,
    /// When the client pings, and so has promised to go on.
    pace: expected::Pace,
    /// Tick of the last message.
    heard_tick: u32,
    /// Tick of the next ping.
    ping_tick: u32,
    records: RecordReceiver,
    /// Of the last frame, what the application had no room for.
    backlog: Vec<u8>,
    /// The first poll, which is answered at once, has come.
    has_polled: bool,
    /// The poll that waits for messages.
    poll: Option<ConnectionId>,
    /// Posts in the order of their arrival: the first is read, the others wait.
    posts: VecDeque<ConnectionId>,
    /// Nothing more will come: the next poll is told so.
    is_over: bool,
    /// The negotiate granted a stateful reconnect; the handshake has to ask for it, too.
    may_be_stateful: bool,
    /// Of a connection that may get another socket.
    stateful: Option<Box<Stateful>>,
}

impl SignalR {
    pub(crate) fn new(transport: Transport, token: Token, opened_as: ConnectionId) -> Self {
        Self {
            transport,
            token,
            opened_as,
            user: None,
            has_shaken_hands: false,
            is_announced: false,
            pace: expected::Pace::default(),
            heard_tick: 0,
            ping_tick: 0,
            records: RecordReceiver::new(HubProtocol::Json),
            backlog: Vec::new(),
            has_polled: false,
            poll: None,
            posts: VecDeque::new(),
            is_over: false,
            may_be_stateful: false,
            stateful: None,
        }
    }

    /// Whether the end has been said, and waits for a poll.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether what came must be dealt with before more is read.
    pub(crate) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }
}

/// The wire format of a hub protocol on a transport.
const fn format_of(protocol: HubProtocol, transport: Transport) -> Format {
    match (transport, protocol) {
        (Transport::WebSockets, HubProtocol::Json) => Format::HubJson,
        (Transport::WebSockets, HubProtocol::MessagePack) => Format::HubMsgpack,
        (Transport::ServerSentEvents, _) => Format::HubSse,
        (Transport::LongPolling, HubProtocol::Json) => Format::HubPollJson,
        (Transport::LongPolling, HubProtocol::MessagePack) => Format::HubPollMsgpack,
    }
}

/// What a request that opens something asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SignalROpening {
    /// A token.
    Negotiate(NegotiateRequest),
    /// A transport, with the token of a negotiate or, on a WebSocket, without.
    Connect(Transport, Option<Token>),
    /// A connection that will be polled, begun by a post with this body; whether the client waits for word to send it.
    Post(Token, Body, bool),
}

/// A request for a connection that exists.
#[derive(Debug)]
pub(crate) struct Carrier {
    /// Which one.
    to: ConnectionId,
    /// What has not come of the body.
    body: Body,
    /// The client waits for word to send it.
    expects_continue: bool,
    keeps_alive: bool,
    readable_by: Option<Box<str>>,
}

impl Carrier {
    /// The connection that it is for.
    pub(crate) fn to(&self) -> ConnectionId {
        self.to
    }

    /// The origin whose pages may read the answer.
    pub(crate) fn readable_by(&self) -> Option<&str> {
        self.readable_by.as_deref()
    }
}
