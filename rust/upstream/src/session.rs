//! One session: from its open to its Closed, a task that reads, writes and watches the clock in one poll.
//!
//! Measured with 5,000 private sessions to ASP.NET Core's hub: 12 KiB each, 66 µs of CPU for each to open, none that
//! shows while they are idle.
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::{Sink, Stream};
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame as Farewell;

use crate::api::{CloseFrame, Said, UpstreamEvent};
use crate::connect::{Dialer, shown};
use crate::opening::{Opened, Wire, bytes_of, end_of, message_of, open};
use crate::outbox::{Kind, Next};
use crate::request::Request;
use crate::shared::Ending;
use crate::upgrade::{Agreed, Socket};

/// How much is read before what came is passed on and the other sessions have their turn.
const READ_BYTES_MAX: usize = 64 * 1024;

/// What a message costs of that beside its bytes: one without any costs time, too.
const MESSAGE_BYTES: usize = 32;

/// A server that hangs up without a word sooner than this, with nothing said since the handshake, is asked last.
const FLAPPING_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a close may take, what waits to be sent included.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Pings come no faster than this, whatever is asked for.
const KEEPALIVE_MIN: Duration = Duration::from_millis(1);

/// Stands for a Close frame without a code (RFC 6455 §7.4.1).
const NO_CODE: u16 = 1005;

/// A deadline that never comes.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Runs a session to its end.
pub(crate) async fn run(mut ending: Ending, request: Box<Request>, dialer: &Dialer) {
    let outbox = Arc::clone(&ending.outbox);
    let closing = pin!(poll_fn(|context| outbox.poll_closing(context)));
    let (shared, session) = (Arc::clone(&ending.shared), ending.session);
    let tell = move |event| shared.sink.report(session, event);
    // Boxed: what opening needs is not kept for the session's life.
    let opened = match select(closing, Box::pin(open(dialer, &request, tell))).await {
        Either::Left(_) => {
            ending.error = closed_here(&ending);
            return;
        }
        Either::Right((Ok((opened, failed_attempts)), _)) => {
            ending.shared.counters.connects_failed.fetch_add(failed_attempts, Ordering::Relaxed);
            opened
        }
        Either::Right((Err(failed), _)) => {
            ending.shared.counters.connects_failed.fetch_add(failed.attempts, Ordering::Relaxed);
            ending.error = failed.error;
            ending.status = failed.status;
            ending.fault = failed.fault;
            return;
        }
    };
    ending.was_open = true;
    if let Wire::Plain(mailbag) = &opened.wire {
        mailbag.begin(&*ending.shared.sink, opened.agreed.subprotocol.as_deref(), &opened.agreed.cookies);
    }
    let Agreed { subprotocol, cookies } = opened.agreed.clone();
    ending.report(UpstreamEvent::Opened { url_index: opened.url_index, subprotocol, cookies });
    let at = opened.at.clone();
    let server = request.watches_flapping().then(|| request.urls[opened.url_index].clone());
    let (mut live, rest) = Live::new(opened, *request, &mut ending);
    live.take_frame(rest);
    let end = poll_fn(|context| live.poll(context)).await;
    if let Some(server) = server.filter(|_| live.has_flapped(&end)) {
        dialer.note(&server, true);
    }
    let Live { mut socket, close_by, .. } = live;
    let is_asked = matches!(end, End::Asked);
    let (text, said) = end.into_text(&ending);
    ending.error = format!("{at}: {text}");
    ending.said = said;
    if is_asked {
        shut(&mut socket, ending.outbox.farewell(), close_by).await;
        return;
    }
    // No wait: who hears of the end may want to go on elsewhere.
    let say_goodbye = poll_fn(|context| Poll::Ready(Pin::new(&mut socket).poll_close(context)));
    drop(say_goodbye.await);
}

/// Why a session ends.
enum End {
    /// The caller wants it.
    Asked,
    /// The server's Close.
    Said(Said),
    /// The socket is gone, the peer silent, or a rule was broken.
    Failed(String),
}

impl End {
    fn into_text(self, ending: &Ending) -> (String, Option<Said>) {
        match self {
            Self::Asked => (closed_here(ending), None),
            Self::Failed(_) if ending.outbox.overflow().is_some() => (closed_here(ending), None),
            Self::Failed(text) => (text, None),
            Self::Said(said) => {
                let text = match &said.error {
                    Some(error) => format!("the hub closed the connection: {}", shown(error)),
                    None => "the hub closed the connection".to_owned(),
                };
                (text, Some(said))
            }
        }
    }
}

fn closed_here(ending: &Ending) -> String {
    match ending.outbox.overflow() {
        Some((bytes, bytes_max)) => format!("{bytes} bytes wait to be sent, at most {bytes_max} may"),
        None => "closed from here".to_owned(),
    }
}

/// The close handshake: our frame, then what still comes is read and left.
async fn shut(socket: &mut Socket, farewell: Option<CloseFrame>, close_by: Option<Instant>) {
    let deadline = close_by.unwrap_or_else(Instant::now);
    let handshake = async {
        if let Some(CloseFrame { code, reason }) = farewell {
            let frame = Farewell { code: code.into(), reason: reason.into() };
            // Where it cannot be said, what follows fails, too.
            drop(Pin::new(&mut *socket).start_send(Message::Close(Some(frame))));
        }
        if poll_fn(|context| Pin::new(&mut *socket).poll_close(context)).await.is_ok() {
            while let Some(Ok(message)) = poll_fn(|context| Pin::new(&mut *socket).poll_next(context)).await {
                if message.is_close() {
                    break;
                }
            }
        }
    };
    // A peer that does not answer in time is left without a word: the socket is dropped.
    drop(tokio::time::timeout_at(deadline, handshake).await);
}

/// A session whose handshake is done.
struct Live<'a> {
    socket: Socket,
    wire: Wire,
    ending: &'a mut Ending,
    keepalive: Duration,
    server_timeout: Duration,
    idle: Option<Duration>,
    /// Of the queue, given to the socket and not flushed; `None` when nothing at all is.
    unflushed_bytes: Option<usize>,
    /// When hub messages last came, or anything of a plain backend.
    heard_at: Instant,
    /// When we last sent any, to a hub; when a plain backend was last heard or pinged.
    sent_at: Instant,
    /// When either was more than a ping.
    active_at: Instant,
    opened_at: Instant,
    /// Whether anything came behind the handshake.
    was_heard: bool,
    /// Whether `Idle` was reported since.
    is_idle: bool,
    /// When a close that was asked for is broken off.
    close_by: Option<Instant>,
    /// The one timer; it may fire before anything is due.
    timer: Pin<Box<Sleep>>,
}

impl<'a> Live<'a> {
    fn new(opened: Opened, request: Request, ending: &'a mut Ending) -> (Self, bytes::Bytes) {
        let now = Instant::now();
        let Request { keepalive, server_timeout, idle, .. } = request;
        let live = Self {
            socket: opened.socket,
            wire: opened.wire,
            ending,
            keepalive: keepalive.clamp(KEEPALIVE_MIN, NEVER),
            server_timeout: server_timeout.min(NEVER),
            idle: idle.map(|idle| idle.min(NEVER)),
            unflushed_bytes: None,
            heard_at: now,
            sent_at: now,
            active_at: now,
            opened_at: now,
            was_heard: false,
            is_idle: false,
            close_by: None,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        };
        (live, opened.rest)
    }

    /// Reads, writes and looks at the clock until nothing more can be done now.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<End> {
        // Registered first: what is asked for from here on wakes us.
        if self.close_by.is_none() && self.ending.outbox.poll_closing(context).is_ready() {
            self.close_by = Some(Instant::now() + CLOSE_TIMEOUT);
        }
        let end = self.read(context).and_then(|()| self.write(context)).and_then(|()| self.watch_clock(context));
        match end {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }

    /// All that is there, up to a bound; then it is passed on in one piece.
    fn read(&mut self, context: &mut Context<'_>) -> Result<(), End> {
        let mut bytes_left = READ_BYTES_MAX;
        let outcome = loop {
            if let Err(end) = self.read_frame(&mut bytes_left) {
                break Err(end);
            }
            if bytes_left == 0 {
                yield_turn(context);
                break Ok(());
            }
            match Pin::new(&mut self.socket).poll_next(context) {
                Poll::Pending => break Ok(()),
                Poll::Ready(Some(Ok(Message::Close(frame)))) => {
                    let text = frame.as_ref().map_or_else(
                        || "the server closed the WebSocket without a code".to_owned(),
                        |frame| format!("the server closed the WebSocket with {}", u16::from(frame.code)),
                    );
                    let said =
                        frame.map_or((NO_CODE, String::new()), |frame| (frame.code.into(), frame.reason.to_string()));
                    self.ending.frame = Some(CloseFrame { code: said.0, reason: said.1 });
                    break Err(End::Failed(text));
                }
                Poll::Ready(Some(Ok(message))) => {
                    // What a hub's frame holds costs when that is read.
                    let is_whole = matches!(self.wire, Wire::Plain(_));
                    bytes_left = bytes_left.saturating_sub(if is_whole { message.len() } else { 0 } + MESSAGE_BYTES);
                    self.take(message);
                }
                Poll::Ready(error) => {
                    let error = error.and_then(Result::err);
                    break Err(End::Failed(format!("the connection was lost: {}", end_of(error))));
                }
            }
        };
        self.flush();
        outcome
    }

    /// What a hub's newest frame holds, as far as the turn's bytes go; see [`Inbox::go_on`](crate::inbox::Inbox::go_on).
    fn read_frame(&mut self, bytes_left: &mut usize) -> Result<(), End> {
        let Wire::Hub(_, inbox) = &mut self.wire else { return Ok(()) };
        if !inbox.has_unread() {
            return Ok(());
        }
        match inbox.go_on(bytes_left, self.ending) {
            Ok(None) => Ok(()),
            Ok(Some(said)) => Err(End::Said(said)),
            Err(error) => Err(End::Failed(format!("what the server sent can't be used: {error}"))),
        }
    }

    /// Whether the server has hung up at once, for no reason that it gives.
    fn has_flapped(&self, end: &End) -> bool {
        let is_lost = matches!(end, End::Failed(_)) && self.ending.frame.is_none();
        is_lost && !self.was_heard && self.close_by.is_none() && self.opened_at.elapsed() < FLAPPING_TIMEOUT
    }

    fn take(&mut self, message: Message) {
        let Wire::Plain(mailbag) = &mut self.wire else {
            if let Some(bytes) = bytes_of(message) {
                self.take_frame(bytes);
            }
            return;
        };
        self.was_heard = true;
        self.heard_at = Instant::now();
        self.sent_at = self.heard_at;
        let is_text = message.is_text();
        if let Some(data) = bytes_of(message) {
            self.ending.shared.counters.bytes_in.fetch_add(data.len() as u64, Ordering::Relaxed);
            self.ending.shared.counters.count_record();
            mailbag.push(is_text, data);
            self.is_active(self.heard_at);
        }
    }

    fn flush(&mut self) {
        match &mut self.wire {
            Wire::Hub(_, inbox) => inbox.flush(self.ending),
            Wire::Plain(mailbag) => mailbag.flush(&*self.ending.shared.sink),
        }
    }

    fn take_frame(&mut self, bytes: bytes::Bytes) {
        let Wire::Hub(protocol, inbox) = &mut self.wire else { return };
        if bytes.is_empty() {
            return;
        }
        self.was_heard = true;
        self.heard_at = Instant::now();
        let is_ping = *bytes == *protocol.ping();
        self.ending.shared.counters.bytes_in.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        inbox.take(bytes);
        if !is_ping {
            self.is_active(self.heard_at);
        }
    }

    /// Gives the socket what waits, frame by frame, until it takes no more.
    fn write(&mut self, context: &mut Context<'_>) -> Result<(), End> {
        loop {
            if let Some(bytes) = self.unflushed_bytes {
                match Pin::new(&mut self.socket).poll_flush(context) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(Err(error)) => return Err(lost(error)),
                    Poll::Ready(Ok(())) => self.unflushed_bytes = None,
                }
                if bytes > 0 && self.ending.outbox.sent(bytes) {
                    self.ending.report(UpstreamEvent::Drained);
                }
            }
            if let Wire::Hub(_, inbox) = &mut self.wire
                && inbox.has_replies()
            {
                let replies = inbox.take_replies();
                self.start(Kind::Records, replies, 0)?;
                continue;
            }
            match self.ending.outbox.take(context) {
                Next::Nothing => return Ok(()),
                Next::Close => return Err(End::Asked),
                Next::Bytes(kind, mut bytes) => {
                    let queue_bytes = bytes.len();
                    if let Wire::Hub(protocol, inbox) = &self.wire {
                        let records = self.ending.pending.go_out(*protocol, bytes, inbox.reported());
                        bytes = records.map_err(|error| End::Failed(error.to_string()))?;
                    }
                    self.is_active(Instant::now());
                    self.start(kind, bytes, queue_bytes)?;
                }
            }
        }
    }

    /// Begins a frame that costs the queue so many bytes.
    fn start(&mut self, kind: Kind, bytes: Vec<u8>, queue_bytes: usize) -> Result<(), End> {
        self.unflushed_bytes = Some(queue_bytes);
        self.ending.shared.counters.bytes_out.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let message = match (&self.wire, kind) {
            (Wire::Hub(..), _) if bytes.is_empty() => return Ok(()),
            (Wire::Hub(protocol, _), _) => {
                self.sent_at = Instant::now();
                message_of(*protocol, bytes)
            }
            (Wire::Plain(_), Kind::Text) => Utf8Bytes::try_from(bytes).ok().map(Message::Text),
            (Wire::Plain(_), _) => Some(Message::Binary(bytes.into())),
        };
        let message = message.ok_or_else(|| End::Failed("a record to send is not UTF-8".to_owned()))?;
        Pin::new(&mut self.socket).start_send(message).map_err(lost)
    }

    /// A sign of life of ours, or the wish for one.
    fn ping(&mut self) -> Result<(), End> {
        if let Wire::Hub(protocol, _) = self.wire {
            return self.start(Kind::Records, protocol.ping().to_vec(), 0);
        }
        self.unflushed_bytes = Some(0);
        Pin::new(&mut self.socket).start_send(Message::Ping(bytes::Bytes::new())).map_err(lost)
    }

    /// Does what is due, and has us woken when the next thing is.
    fn watch_clock(&mut self, context: &mut Context<'_>) -> Result<(), End> {
        loop {
            let now = Instant::now();
            if self.close_by.is_some_and(|by| by <= now) {
                return Err(End::Asked);
            }
            if self.heard_at + self.server_timeout <= now {
                let milliseconds = self.server_timeout.as_millis();
                return Err(End::Failed(format!("the server was silent for {milliseconds} ms")));
            }
            if self.sent_at + self.keepalive <= now {
                // Where the socket takes no more, what waits is a sign of life as good as a ping.
                self.sent_at = now;
                if self.unflushed_bytes.is_none() {
                    self.ping()?;
                    self.write(context)?;
                }
            }
            let idle_at = self.idle_at();
            if idle_at.is_some_and(|at| at <= now) {
                self.is_idle = true;
                self.ending.report(UpstreamEvent::Idle);
            }
            let due = [Some(self.heard_at + self.server_timeout), Some(self.sent_at + self.keepalive)];
            let due = due.into_iter().chain([self.idle_at(), self.close_by]).flatten().min();
            let due = due.unwrap_or(now + NEVER);
            // Deadlines mostly move away: the timer is set again when it has fired, or when one comes nearer.
            if self.timer.is_elapsed() || due < self.timer.deadline() {
                self.timer.as_mut().reset(due);
            }
            if self.timer.as_mut().poll(context).is_pending() {
                return Ok(());
            }
        }
    }

    /// When silence becomes worth a report; `None` while it is not silence, or was reported.
    fn idle_at(&self) -> Option<Instant> {
        let is_silent = !self.is_idle && self.ending.pending.is_empty() && self.ending.outbox.is_empty();
        self.idle.filter(|_| is_silent && self.close_by.is_none()).map(|idle| self.active_at + idle)
    }

    fn is_active(&mut self, now: Instant) {
        self.active_at = now;
        self.is_idle = false;
    }
}

/// Has this task woken once every other that is ready had its turn and the sockets were looked at.
///
/// A task that wakes itself never lets the queue run dry. Then tokio looks at the sockets after 61 turns only.
fn yield_turn(context: &mut Context<'_>) {
    let _ = pin!(tokio::task::yield_now()).poll(context); // pending: it is polled for its waker alone
}

fn lost(error: tokio_tungstenite::tungstenite::Error) -> End {
    End::Failed(format!("the connection was lost: {}", end_of(Some(error))))
}
