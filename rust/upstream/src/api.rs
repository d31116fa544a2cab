//! What callers say and hear: the contract on one page.
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fanwire_core::Message;
use fanwire_core::messages::ConnectionId;
use fanwire_core::protocol::signalr::HubProtocol;

use crate::roots::Roots;

/// What a session is to be. It has no `Debug`: URLs and headers hold secrets.
#[derive(Clone)]
pub struct Open {
    /// The hub's URLs, http, https, ws or wss, their queries kept. The first is tried first, then the next: each for
    /// `connect_timeout`. After 401 or 403 the rest is not tried: it is the token that was refused.
    pub urls: Vec<String>,
    /// Sent with negotiations and with the upgrade: Authorization, Cookie, X-Forwarded-For … Values are bytes, decoded
    /// as latin-1. Those that belong to one
    /// connection (Host, Connection, Upgrade, Content-Length, Sec-WebSocket-…) are left out. A redirect to another origin
    /// takes no Cookie along.
    pub headers: Vec<(String, String)>,
    /// By whom the servers' certificates have to be signed, those of redirects included; the system's where it is none.
    pub roots: Option<Roots>,
    /// How both sides write.
    pub protocol: HubProtocol,
    /// Whether to negotiate first and follow redirects. Without it the WebSocket is opened at the hub's URL with no id.
    pub negotiates: bool,
    /// Where goes what comes.
    pub route: Route,
    /// After so much silence of ours a Ping is sent. Seconds; stock clients have 15.
    pub keepalive: Duration,
    /// After so long with nothing heard the session ends. Seconds; stock clients have 30.
    pub server_timeout: Duration,
    /// For everything up to and including the hub's handshake, for all URLs, each an equal part. Seconds.
    pub connect_timeout: Duration,
    /// After so long with nothing pending, sent or received (pings aside) [`Idle`](UpstreamEvent::Idle) is reported.
    pub idle: Option<Duration>,
    /// The most bytes of one inbound record, with separator or length; more ends the session. A frame, which may hold
    /// many records, may have 1 MiB more.
    pub record_bytes_max: usize,
    /// Above so many unsent bytes the caller is to hold back; [`Drained`](UpstreamEvent::Drained) says when to go on.
    pub queue_bytes_max: usize,
}

/// Where goes what comes from a server.
///
/// Pings, sequences, acks and unknown records go nowhere. A client result that the server asks for (an invocation with
/// an id) is refused at once on every route but [`Private`](Self::Private).
#[derive(Clone)]
pub enum Route {
    /// Publications of a shared subscription go into a channel.
    Lane {
        /// Targets that come over the broadcast lane and are dropped here.
        everyone: Arc<HashSet<String>>,
        /// The target that is a keyframe.
        snapshot: Option<String>,
        /// Which channel.
        channel: String,
    },
    /// What the hub sends to all.
    Broadcast {
        /// Targets that go to all clients of the path.
        everyone: Arc<HashSet<String>>,
        /// Targets whose records are reported, each one.
        welcome: Arc<HashSet<String>>,
        /// The hub's path.
        path: String,
    },
    /// A client's own connection: invocations, items, completions and cancellations go to it as the bytes that came.
    Private {
        /// Targets that are dropped: everyone and welcome. One that asks for a result is not.
        dropped: Arc<HashSet<String>>,
        /// Methods, in lower case, of whose calls the end is [reported](UpstreamEvent::Completion), too.
        reported: Arc<HashSet<String>>,
        /// Who it is.
        client: ConnectionId,
    },
    /// Pooled calls: completions of calls that went out here are reported, nothing else.
    Calls,
}

/// What a session to a plain WebSocket backend is to be. It has no `Debug`: URLs and headers hold secrets.
#[derive(Clone)]
pub struct OpenPlain {
    /// As [`Open::urls`].
    pub urls: Vec<String>,
    /// As [`Open::headers`].
    pub headers: Vec<(String, String)>,
    /// As [`Open::roots`].
    pub roots: Option<Roots>,
    /// Offered to the server, which chooses one of them, or none.
    pub subprotocols: Vec<String>,
    /// Where goes what comes.
    pub route: PlainRoute,
    /// After so long with nothing heard the server is pinged (RFC 6455 §5.5.2). Seconds.
    pub keepalive: Duration,
    /// After so long with nothing heard the session ends. Seconds; more than `keepalive`.
    pub server_timeout: Duration,
    /// For everything up to and including the upgrade, for all URLs, each an equal part. Seconds.
    pub connect_timeout: Duration,
    /// After so long with nothing sent or received (pings aside) [`Idle`](UpstreamEvent::Idle) is reported.
    pub idle: Option<Duration>,
    /// The most bytes of one inbound message; more ends the session.
    pub message_bytes_max: usize,
    /// As [`Open::queue_bytes_max`].
    pub queue_bytes_max: usize,
}

/// What a server is asked without a session: what it would answer to who shows these. It has no `Debug`, as [`Open`].
#[derive(Clone)]
pub struct Negotiation {
    /// The hub's URL; its `/negotiate` is asked, version 1 unless the query names one.
    pub url: String,
    /// As [`Open::headers`].
    pub headers: Vec<(String, String)>,
    /// As [`Open::roots`].
    pub roots: Option<Roots>,
    /// For all of it. Seconds.
    pub timeout: Duration,
}

/// Where goes what comes from a plain WebSocket backend.
#[derive(Clone, Debug)]
pub enum PlainRoute {
    /// Into a channel.
    Lane {
        /// Which.
        channel: String,
    },
    /// To one client.
    Private {
        /// Who it is.
        client: ConnectionId,
        /// Whether it waits for this session: it is [accepted](Sink::accept) before anything is sent to it.
        accepts: bool,
    },
    /// Nowhere: it is only to be seen whether the server lets it in.
    Nowhere,
}

/// A WebSocket's Close frame (RFC 6455 §5.5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseFrame {
    /// Its code; 1005 where it has none.
    pub code: u16,
    /// Why.
    pub reason: String,
}

/// What sessions report and do. Called on the thread `fanwire-upstream` (an open that comes after the stop is answered
/// on the caller's): it must not block, and not call [`Upstreams::stop`](crate::Upstreams::stop).
pub trait Sink: Send + Sync {
    /// Something happened in a session, or a negotiation ended.
    fn report(&self, session: u64, event: UpstreamEvent);
    /// Whole records in their order for a channel; `keyframe` has the indexes of those that are snapshots.
    fn append(&self, channel: &str, protocol: HubProtocol, records: &[&[u8]], keyframe: &[usize]);
    /// Whole records in their order for all clients of a hub's path.
    fn append_to_hub(&self, path: &str, protocol: HubProtocol, records: &[&[u8]]);
    /// Whole records in their order for one client.
    fn send(&self, client: ConnectionId, records: &[u8]);
    /// Messages of a plain backend in their order for a channel.
    fn append_messages(&self, channel: &str, messages: &[Message<'_>]);
    /// Messages of a plain backend in their order for one client.
    fn send_messages(&self, client: ConnectionId, messages: &[Message<'_>]);
    /// A plain backend has let in a client that waits for that, and has chosen this subprotocol and set these cookies:
    /// its answer's `Set-Cookie` lines, decoded as latin-1.
    fn accept(&self, client: ConnectionId, subprotocol: Option<&str>, cookies: &[String]);
    /// The thread of all sessions has ended by a panic, with this text; each session is reported as closed besides.
    fn died(&self, thread: &str, text: String);
    /// A session, or a negotiation, has ended by a panic with this text, and no other; it is reported as closed besides.
    fn panicked(&self, text: String);
}

/// How a call of ours ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CompletionKind {
    /// It failed; the body is the text of the error.
    Error,
    /// It ended without a result; the body is empty.
    Void,
    /// It gave a value; the body is that value, raw.
    Result,
}

/// What a server said with its Close message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Why, if something went wrong.
    pub error: Option<String>,
    /// Whether a client that reconnects by itself may do so.
    pub allow_reconnect: bool,
}

/// The newest of many records, until it is taken: a server that sends them faster than they are fills no queue.
#[derive(Clone, Debug, Default)]
pub struct Newest(Arc<Mutex<Vec<u8>>>);

impl Newest {
    /// Takes the place of one that was not taken; whether there was none.
    pub(crate) fn put(&self, record: Vec<u8>) -> bool {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), record).is_empty()
    }

    /// The record, which is empty only where it was taken before.
    #[must_use]
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl PartialEq for Newest {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Newest {}

/// Whose doing it is that a server could not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server's: it cannot be reached, or what it answers is none.
    Server,
    /// The request's: it cannot be sent, or was refused in the server's own words. The server is there.
    Request,
    /// This machine's: it has no descriptor, port or memory left. Nothing is known of the server.
    Machine,
    /// The hub's, which has refused the handshake with these words: it does not speak the protocol, say. It is there.
    Handshake(String),
}

/// What a session reports. Of one session events and records come in the order in which the server sent their causes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamEvent {
    /// The hub's handshake is done, or a plain backend's upgrade.
    Opened {
        /// Which of [`Open::urls`] it is.
        url_index: usize,
        /// What a plain backend chose of [`OpenPlain::subprotocols`].
        subprotocol: Option<String>,
        /// The `Set-Cookie` lines of a plain backend's answer, decoded as latin-1.
        cookies: Vec<String>,
    },
    /// One of [`Open::urls`] could not be had; the next is tried, if there is one. Not where the [`Fault`] is another's
    /// than the server's, or it refused the request (401, 403).
    Unreached {
        /// Which.
        url_index: usize,
        /// Why.
        error: String,
        /// HTTP's, if it is that.
        status: Option<u16>,
    },
    /// A call that went out here ended. On [`Route::Private`] of its `reported` methods only, and without a body.
    Completion {
        /// The call's.
        id: String,
        /// How it ended.
        kind: CompletionKind,
        /// Text of the error, or the value, raw.
        body: Vec<u8>,
    },
    /// A record of a welcome target. On [`Route::Broadcast`] only; once until it is taken, however many come meanwhile.
    Welcome {
        /// Its target.
        target: String,
        /// All of it, with separator or length.
        record: Newest,
    },
    /// The first record of a target: of each that the route names, and of the first 16 others. On [`Route::Lane`], where
    /// those of `everyone` are dropped; and on [`Route::Broadcast`] of what is in `everyone`. What is in `everyone` is
    /// reported again at its second, fourth, eighth record and so on. It may come before what the server sent earlier.
    Came {
        /// The target.
        target: String,
    },
    /// The first record of a target that is in neither set, of the first 1,024 such targets. On [`Route::Broadcast`] only.
    Unnamed {
        /// The target.
        target: String,
    },
    /// Nothing is pending, and nothing was sent or received for [`Open::idle`]. Once, until something is.
    Idle,
    /// Less than half of [`Open::queue_bytes_max`] waits, and more than that had waited.
    Drained,
    /// A negotiation ended; reported with the number of the request.
    Negotiated {
        /// HTTP's, or 0 where there is none.
        status: u16,
        /// The answer's, or with status 0 the text of an error.
        body: Vec<u8>,
        /// With status 0, whose doing that is.
        fault: Option<Fault>,
        /// The values of its `Set-Cookie` lines, decoded as latin-1.
        cookies: Vec<String>,
    },
    /// The session is over: once for each open, and nothing follows it.
    Closed {
        /// Why, with scheme, host, port and path of each URL that failed.
        error: String,
        /// HTTP's, of a server that refused.
        status: Option<u16>,
        /// Whose doing it is that it was never open: the last URL's, or a hub's that refused the handshake.
        fault: Option<Fault>,
        /// What the server's Close message said, if there was one.
        said: Option<Said>,
        /// The WebSocket's Close frame that the server sent, if it did.
        frame: Option<CloseFrame>,
        /// Whether it was [`Opened`](Self::Opened).
        was_open: bool,
        /// Ids of calls that were given to [`send`](crate::Upstreams::send) and got no completion; an id for each call.
        pending: Vec<String>,
    },
}

/// What sessions have done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sessions that are not closed.
    pub sessions_now: u64,
    /// Sessions ever opened.
    pub sessions_total: u64,
    /// Bytes of hub messages received.
    pub bytes_in: u64,
    /// Bytes of hub messages sent.
    pub bytes_out: u64,
    /// Records received, handshakes aside.
    pub records_in: u64,
    /// Attempts at a URL that failed.
    pub connects_failed: u64,
}
