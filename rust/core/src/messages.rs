//! Every command and event that crosses a thread or the language: the contract on one page.
use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use crate::adopted::{Barrier, Outgoing};
use crate::alike::Alike;
use crate::channel::{Channel, Origin, Start, Tails, View, Watch, Watched};
pub use crate::connection_id::ConnectionId;
pub(crate) use crate::connection_id::{GENERATION_MAX, SLOTS_MAX};
use crate::looking::{Look, Page};
use crate::position::Position;
use crate::protocol::Format;
use crate::protocol::signalr::HubProtocol;
use crate::protocol::signalr::negotiate::Transport;
use crate::routes::{OwnerId, Wire};

/// What any thread asks of a shard. Each is done once, in order; one that names a connection which is gone does nothing.
#[derive(Debug)]
pub enum Command {
    /// Takes connections from this listening socket.
    Listen(crate::listening::Listener),
    /// Finishes an opening: answer it so, then these subscriptions; the channel of the user whom it belongs to.
    Accept(ConnectionId, Vec<Watched>, Option<Arc<Channel>>, Reply),
    /// Finishes the opening of a relayed WebSocket, with the subprotocol that its backend chose and its cookies.
    AcceptRelayed(ConnectionId, Reply),
    /// A connected socket, to be served as one that was accepted, and where its client is; `None` is where the socket says.
    Welcome(OwnedFd, Option<Box<str>>),
    /// A socket whose first request, in these bytes, is for a connection of this shard; the client as of `Welcome`.
    HandOver(OwnedFd, Vec<u8>, Option<Box<str>>),
    /// What has to do with other workers.
    OfSiblings(Box<crate::siblings::Delivery>),
    /// Takes the write side of a socket whose other user reads, under an id that was given out before.
    Adopt(ConnectionId, OwnedFd, Format, Arc<Outgoing>),
    /// Asks something of an adopted connection.
    Order(ConnectionId, Box<Order>),
    /// Asks several of them to write the same.
    Broadcast(Box<Broadcast>),
    /// Answers a request: status, content type, body, headers besides. Closes after it when the status is an error.
    Respond(ConnectionId, u16, Box<str>, Box<[u8]>, Box<[Header]>),
    /// Adds a subscription that begins there, behind private bytes, already framed.
    Subscribe(ConnectionId, Watched, Origin, Arc<[u8]>),
    /// Decides on what a client asked to watch, and answers it.
    Grant(ConnectionId, Box<Grant>),
    /// Ends a subscription; what stood in the channel's logs up to these places is still for it.
    Unsubscribe(ConnectionId, Arc<Channel>, Tails),
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
    /// Asks for some connections, as they stand.
    Look(Box<Look>, SyncSender<Page>),
    /// There is no keyframe of this channel to be had: who waits for one begins live, and is told this.
    StartLive(Arc<Channel>, Box<str>),
    /// Reports how far a publication has come, until everyone has it.
    Track(Track),
    /// Reports no more of that.
    Untrack(u64),
    /// Closes who came by the route of this number, with this code and reason, a few in a tick.
    CloseRoute(u64, u16, Box<str>),
    /// Stops accepting and closes every connection with this code and reason, spread over so long.
    Drain(u16, Box<str>, Duration),
    /// Ends the thread.
    Stop,
    /// Panic with this text.
    #[cfg(test)]
    Panic(String),
}

impl Command {
    /// Refuses an opening: its channels are not to be had.
    pub(crate) fn cannot_open(id: ConnectionId, why: &[String]) -> Self {
        let text = format!("{}\n", why.join("; "));
        Self::Respond(id, 503, "text/plain; charset=utf-8".into(), text.into_bytes().into(), Box::default())
    }
}

/// What is asked of an adopted connection. It is done in the order of the calls, publications included.
#[derive(Debug)]
pub enum Order {
    /// What its other user has written is with the socket: from now on it is written to.
    Begin,
    /// These bytes, framed, behind what stood in its channels.
    Write(Box<[u8]>, Barrier),
    /// Adds a subscription that begins there.
    Subscribe(Watched, Origin),
    /// Ends one; what stood in the channel is still for it.
    Unsubscribe(Arc<Channel>, Barrier),
    /// Looks whether few enough private bytes wait, of which somebody wants to know.
    Notify,
    /// Gives it up, behind what stood in its channels.
    Release(Barrier),
    /// Gives it up at once; whether the socket is shut down.
    Abort(bool),
}

/// One message for adopted connections: to each it is an [`Order::Write`].
#[derive(Debug)]
pub struct Broadcast {
    /// As all of them send it, framed.
    pub frame: Arc<[u8]>,
    /// Those that have no channels.
    pub to: Vec<ConnectionId>,
    /// Those that have, each with what stood in them.
    pub behind: Vec<(ConnectionId, Barrier)>,
}

impl Broadcast {
    /// All of them.
    pub(crate) fn ids(&self) -> impl Iterator<Item = ConnectionId> {
        self.to.iter().copied().chain(self.behind.iter().map(|one| one.0))
    }
}

/// Why an adopted connection is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Released {
    /// As was asked: all that was accepted is with the socket.
    Released,
    /// At once, as was asked, or by the end of the engine: what waited is lost.
    Aborted,
    /// The peer has ended its half: its channels were left, what was written is with the socket.
    Ended,
    /// The socket broke, with this errno.
    Broken(i32),
    /// By a policy or the application, with this close code and reason.
    Closed(u16, String),
}

/// A header that the application adds to a response: name and value.
pub type Header = (Box<str>, Box<str>);

/// What the application adds to the response that opens a connection.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// In the response to a negotiate, an upgrade or an event stream's request.
    pub headers: Vec<Header>,
    /// Which of the subprotocols that the client offered; of a raw WebSocket only.
    pub subprotocol: Option<Box<str>>,
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
    /// Where it wants to begin.
    pub wanted: Wanted,
}

/// Where a client wants to begin in the channels that it asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// In any of them, that it has no position in; `None` is each channel's own.
    pub start: Option<Start>,
    /// The last publication that it had, by channel, or of whichever channel has this epoch.
    pub since: Vec<(Option<Box<str>>, Position)>,
    /// It is to be told where it begins.
    pub is_told: bool,
    /// What of them it is to get.
    pub view: View,
    /// When it asked, by the shard's clock; 0 where the application is not asked.
    pub since_ns: u64,
}

impl Wanted {
    /// Where it wants to begin in this one.
    pub(crate) fn origin_of(&self, channel: &Channel) -> Origin {
        let named = self.since.iter().find(|one| one.0.as_deref() == Some(channel.name()));
        let nameless = || self.since.iter().filter(|one| one.0.is_none());
        // A position of which nobody knows the channel says at least that something is to be recovered.
        let known = || nameless().find(|one| one.1.epoch == channel.epoch()).or_else(|| nameless().next());
        Origin { since: named.or_else(known).map(|one| one.1), start: self.start }
    }
}

/// Whose way a shard is to report.
#[derive(Clone, Debug)]
pub struct Track {
    /// What the reports carry.
    pub token: u64,
    /// Which part of all reports this shard gives, for one log.
    pub part: u32,
    /// The shard's eye on that log.
    pub watch: Arc<Watch>,
    /// Position of the byte after the publication.
    pub end: u64,
    /// How its frames are written.
    pub format: Format,
    /// What was published where.
    pub of: Arc<Published>,
    /// Of all parts of this shard and format it is the first: it tells of subscribers in logs that none of them knows, too.
    pub is_first: bool,
}

/// A publication of which somebody asks how far it has come.
#[derive(Clone, Debug)]
pub struct Published {
    /// The channel.
    pub channel: Arc<Channel>,
    /// Its number in the channel's logs.
    pub number: u64,
    /// The eyes of all shards on those logs then. Subscribers may go on in logs that begin later.
    pub known: Vec<Arc<Watch>>,
}

/// How far a publication has come among one shard's subscribers of one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Whose reports these are.
    pub token: u64,
    /// Which of them.
    pub part: u32,
    /// Subscribers now.
    pub subscribers: u64,
    /// Those whose sockets have not taken it.
    pub behind: u64,
    /// Those who went past it without getting it, so far: by the channel's policy or because its time was over.
    pub skipped: u64,
}

/// One coming or going.
#[derive(Debug)]
pub struct Presence {
    /// Of this channel.
    pub channel: Arc<Channel>,
    /// Who.
    pub connection: ConnectionId,
    /// It came.
    pub has_joined: bool,
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

/// On which connection something happened, and who answers for its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whose {
    /// Which.
    pub connection: ConnectionId,
    /// Whose path it connected to.
    pub owner: OwnerId,
}

/// What happened on a connection, in order for each connection.
#[derive(Debug)]
pub enum Event {
    /// An upgrade or event stream waits for `accept` or `refuse`.
    Opening(Whose, Box<Request>),
    /// A client was let in that shows the same as another, as the path's owner wanted it; and where it is.
    Admitted(Whose, Arc<Alike>, Box<str>),
    /// A plain request waits for `respond` or `refuse`; with its body, where the path's owner wants bodies.
    Asking(Whose, Box<Request>, Vec<u8>),
    /// A client asks for channels; waits for `subscribe` or a denial. The id is JSON text.
    Subscribing(Whose, Vec<String>, Option<String>, Wanted),
    /// A text message that the raw protocol has no meaning for.
    Text(Whose, String),
    /// A binary message.
    Binary(Whose, Vec<u8>),
    /// A message on a path of [`Wire::Plain`], as it came; whether it is text, which is UTF-8 then.
    Relayed(Whose, bool, Vec<u8>),
    /// A call: target, arguments as JSON text, id as JSON text.
    Call(Whose, String, String, Option<String>),
    /// A client's connection is open; of a SignalR client, which has shaken hands, more about it. Comes
    /// before the first message, or at once where the [`Route`](crate::Route) asks for it.
    Connected(Whose, Option<Box<Connected>>),
    /// Who was asked about on a connection that carries others' requests, too, has a number of its own from now on: a
    /// client of long polling, for whom its first poll was accepted.
    Moved(Whose, ConnectionId),
    /// A SignalR client's message, to be acknowledged.
    SignalR(Whose, Box<SignalRMessage>),
    /// A client's first call took up the offer of this number: it has joined the lane and is answered, and nothing is to be
    /// acknowledged.
    Joined(Whose, u64),
    /// The socket has taken all private bytes, as was asked.
    Drained(Whose),
    /// The connection is gone: close code, reason, by whom. Only for connections of which an event told before.
    Closed(Whose, u16, String, ClosedBy),
    /// An adopted connection is given up: the engine has no descriptor of it any more.
    Released(Whose, Released),
    /// New subscribers of this channel wait for a keyframe; whether that is since other workers have published while the
    /// last one was made.
    SnapshotWanted(String, bool),
    /// Who came to channels that tell it, and who went, in order. The next is told when this is dropped.
    Presence(Arc<Vec<Presence>>),
    /// How far a publication has come.
    Progress(Progress),
    /// There is something to read for the listener of this token.
    Heard(u64),
    /// The place of a publication is known, or will never be, for which somebody waits under this number.
    Placed(u64),
    /// Another worker tells this: its number, and the message.
    Told(u8, Vec<u8>),
    /// A worker of any machine tells this: its number, above 255 where its machine is another one, and the message.
    ToldAnywhere(u32, Vec<u8>),
    /// The worker of this number has come, or gone; and when its machine came, where this one is 0 and what is less was before.
    Worker(u32, bool, i64),
    /// The engine outside that orders for several machines is there (0), out of reach (1), or so while this machine goes on
    /// by itself (2); and why.
    Backbone(u8, Box<str>),
    /// So many more things have come from there that nobody of the prefix has published.
    BackboneForeign(u64),
    /// Something of what this worker holds has not come to what mirrors it here under this name: that begins anew.
    MirrorLost(u32, crate::channel::SharedId),
    /// A line for the log: level as in Python's `logging`.
    Record(u8, String),
    /// What another part of the program reports in the same stream; see [`Engine::report`](crate::Engine::report).
    Reported(Box<dyn Any + Send>),
}

/// A SignalR connection at its beginning.
#[derive(Debug)]
pub struct Connected {
    /// The path of its route.
    pub path: String,
    /// What carries it.
    pub transport: Transport,
    /// What it speaks.
    pub protocol: HubProtocol,
    /// What the client and its hub call it.
    pub connection_id: String,
}

/// What a SignalR client sent.
#[derive(Debug)]
pub struct SignalRMessage {
    /// What it is.
    pub kind: SignalRMessageKind,
    /// Of the invocation, or of the stream or call that an item, completion or cancellation belongs to; may be empty.
    pub id: String,
    /// The method that is invoked.
    pub target: String,
    /// Raw in the hub protocol of the connection: arguments, an item or a result.
    pub body: Vec<u8>,
    /// Where the route asks for it: the whole record as it came, to be passed on.
    pub record: Option<Vec<u8>>,
    /// Streams that the client will send.
    pub stream_ids: Vec<String>,
}

/// Kinds of a [`SignalRMessage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalRMessageKind {
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
    /// Path and query as sent, without the authority that an absolute one has.
    pub target: String,
    /// Names in lower case; values as bytes.
    pub headers: Vec<(String, Vec<u8>)>,
    /// `host:port`, or `unix:`.
    pub peer: String,
    /// What the query asks to watch.
    pub channels: Vec<String>,
    /// And what of that it is to get.
    pub view: View,
    /// What is spoken on its path.
    pub wire: Wire,
    /// The WebSocket subprotocols that it offers, the preferred first.
    pub subprotocols: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Registry;
    use crate::settings::Settings;

    #[test]
    fn a_position_is_that_of_the_channel_by_name_else_by_epoch_else_any() {
        let registry = Registry::listed(&Arc::default(), 10);
        let obtain = |name| registry.obtain(name, &Settings::default(), 0).expect("room");
        let (a, b) = (obtain("a"), obtain("b"));
        let at = |channel: &Channel, offset| Position { epoch: channel.epoch(), offset };
        let named = |name: &str, position| (Some(Box::from(name)), position);
        let wanted = |since| Wanted { since, start: Some(Start::Live), is_told: true, ..Wanted::default() };
        let since = |wanted: &Wanted, channel| wanted.origin_of(channel).since;

        let nothing = Wanted::default();
        assert_eq!(nothing.origin_of(&a), Origin { since: None, start: None });
        let by_name = wanted(vec![named("b", at(&b, 2)), named("a", at(&b, 3))]);
        assert_eq!(by_name.origin_of(&a), Origin { since: Some(at(&b, 3)), start: Some(Start::Live) });
        let by_epoch = wanted(vec![(None, at(&b, 2)), (None, at(&a, 1))]);
        assert_eq!((since(&by_epoch, &a), since(&by_epoch, &b)), (Some(at(&a, 1)), Some(at(&b, 2))));
        let unknown = wanted(vec![(None, Position { epoch: 1, offset: 1 })]);
        assert_eq!(since(&unknown, &a), Some(Position { epoch: 1, offset: 1 }), "something is to be recovered");
        let elsewhere = wanted(vec![named("b", at(&b, 2))]);
        assert_eq!(since(&elsewhere, &a), None);
    }
}
