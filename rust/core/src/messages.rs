//! Every command and event that crosses a thread or the language: the contract on one page.
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use crate::channel::{Channel, Watched};
pub use crate::connection_id::ConnectionId;
pub(crate) use crate::connection_id::{GENERATION_MASK, SLOTS_MAX};
use crate::protocol::Format;
use crate::protocol::signalr::negotiate::Transport;

/// What any thread asks of a shard. Each is done once, in order; one that names a connection which is gone does nothing.
#[derive(Debug)]
pub enum Command {
    /// Takes connections from this listening socket.
    Listen(crate::shard::Listener),
    /// Finishes an opening: answer it, then these subscriptions; the user whom it belongs to.
    Accept(ConnectionId, Vec<Watched>, Option<Box<str>>),
    /// A socket whose first request, in these bytes, is for a connection of this shard.
    Adopt(OwnedFd, Vec<u8>),
    /// Answers a request: status, content type, body. Closes after it when the status is an error.
    Respond(ConnectionId, u16, Box<str>, Box<[u8]>),
    /// Adds a subscription.
    Subscribe(ConnectionId, Watched),
    /// Decides on what a client asked to watch, and answers it.
    Grant(ConnectionId, Box<Grant>),
    /// Ends a subscription; what stood in the channel's log up to this byte is still for it.
    Unsubscribe(ConnectionId, Arc<Channel>, u64),
    /// Private bytes, already framed.
    Send(ConnectionId, Box<[u8]>),
    /// Wants a `Drained` once the private bytes sent so far are with the socket.
    AskDrained(ConnectionId),
    /// The close handshake.
    Disconnect(ConnectionId, u16, Box<str>),
    /// So many messages of this connection are dealt with.
    Acknowledge(ConnectionId, u16),
    /// Events were taken: what was not read for want of room is read now.
    Resume,
    /// Asks for the names of a connection's channels.
    ListChannels(ConnectionId, SyncSender<Vec<String>>),
    /// Stops accepting and closes every connection with this code and reason.
    Drain(u16, Box<str>),
    /// Ends the thread.
    Stop,
}

/// What the application decided on a client's request to watch channels.
#[derive(Debug)]
pub struct Grant {
    /// Those that it may watch.
    pub watched: Vec<Watched>,
    /// The request's id as JSON text; with it success is answered, too.
    pub id: Option<Box<str>>,
    /// Why it may not watch the others.
    pub error: Option<String>,
}

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedBy {
    /// The peer's Close frame or end of stream.
    Client,
    /// This side: a command, a rule that the peer broke, a timeout.
    Server,
    /// The socket broke.
    Network,
}

/// What happened on a connection, in order for each connection.
#[derive(Debug)]
pub enum Event {
    /// An upgrade or event stream waits for `accept` or `refuse`.
    Opening(ConnectionId, Box<Request>),
    /// A plain request waits for `respond` or `refuse`.
    Asking(ConnectionId, Box<Request>),
    /// A client asks for channels; waits for `subscribe` or a denial. The id is JSON text.
    Subscribing(ConnectionId, Vec<String>, Option<String>),
    /// A text message that the raw protocol has no meaning for.
    Text(ConnectionId, String),
    /// A binary message.
    Binary(ConnectionId, Vec<u8>),
    /// A call: target, arguments as JSON text, id as JSON text.
    Call(ConnectionId, String, String, Option<String>),
    /// A SignalR client has shaken hands: its id from now on, that of its opening, and which hub it is on.
    Connected(ConnectionId, Box<Connected>),
    /// A SignalR client's message, to be acknowledged.
    Hub(ConnectionId, Box<HubEvent>),
    /// The socket has taken all private bytes, as was asked.
    Drained(ConnectionId),
    /// The connection is gone: close code, reason, by whom. Only for connections of which an event told before.
    Closed(ConnectionId, u16, String, ClosedBy),
    /// A line for the log: level as in Python's `logging`.
    Record(u8, String),
}

/// A SignalR connection at its beginning.
#[derive(Debug)]
pub struct Connected {
    /// What it was called while it was opened: its wire format was not known then.
    pub opened_as: ConnectionId,
    /// Which hub, by its index among the settings' paths.
    pub hub: u8,
    /// What carries it.
    pub transport: Transport,
    /// What the client and its hub call it.
    pub connection_id: String,
}

/// What a SignalR client sent.
#[derive(Debug)]
pub struct HubEvent {
    /// What it is.
    pub kind: HubEventKind,
    /// Of the invocation, or of the stream or call that an item, completion or cancellation belongs to; may be empty.
    pub id: String,
    /// The method that is invoked.
    pub target: String,
    /// Raw in the hub protocol of the connection: arguments, an item or a result.
    pub body: Vec<u8>,
    /// Streams that the client will send.
    pub stream_ids: Vec<String>,
}

/// Kinds of a [`HubEvent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HubEventKind {
    /// Calls a method; without an id nobody waits for an answer.
    Invocation,
    /// Calls a method for its stream.
    StreamInvocation,
    /// An item of a stream that the client sends.
    StreamItem,
    /// The end of such a stream, or of a call to the client, with a result in the body.
    Result,
    /// The same without a result.
    Void,
    /// The same with an error, which stands in the body as UTF-8.
    Error,
    /// The client wants no more of a stream.
    Cancel,
}

/// A request's head, owned.
#[derive(Debug)]
pub struct Request {
    /// As sent.
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    /// Names in lower case; values as bytes.
    pub headers: Vec<(String, Vec<u8>)>,
    /// `host:port`, or `unix:`.
    pub peer: String,
    /// What the query asks to watch.
    pub channels: Vec<String>,
    /// Which wire it will speak.
    pub format: Format,
}
