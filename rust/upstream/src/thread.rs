//! The handle, and the thread with its runtime: what starts sessions and sees to their end.
use std::collections::hash_map::Entry;
use std::future::poll_fn;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use fanwire_core::{panic_text, run_to_end};

use crate::api::{CloseFrame, Fault, Negotiation, Open, OpenPlain, Sink, Stats, UpstreamEvent};
use crate::connect::{ConnectError, Dialer, timeout_error};
use crate::negotiate::post;
use crate::outbox::{Kind, Outbox};
use crate::request::Request;
use crate::session;
use crate::shared::Ending;
use crate::shared::Shared;
use crate::target::Target;

/// How many sessions and negotiations there may be at once; what is above is answered with an error.
pub const SESSIONS_MAX: usize = 65_536;

/// What the operating system shows of it is cut to 15 characters.
const THREAD_NAME: &str = "fanwire-upstream";

/// Names are looked up on threads beside ours, at most so many.
const LOOKUP_THREADS_MAX: usize = 4;

/// How long a stop waits for the close handshakes of all sessions, then for names that are being looked up.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// The connections to backends. Dropping it is [`stop`](Self::stop).
pub struct Upstreams {
    shared: Arc<Shared>,
    commands: UnboundedSender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Whose thread it is.
    process: u32,
}

/// What is asked of the thread. Dropped undone it is answered all the same.
enum Command {
    Open(Ending, Box<Request>),
    Negotiate(NegotiationGuard, Box<Negotiation>),
    Stop,
    /// Has the thread, or a task of it, panic with that.
    #[cfg(test)]
    Panic {
        text: &'static str,
        is_task: bool,
    },
}

impl Upstreams {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system's, where it has no thread or poller left.
    pub fn start(sink: Arc<dyn Sink>) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(sink));
        let (commands, received) = unbounded_channel();
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(LOOKUP_THREADS_MAX)
            .thread_name(THREAD_NAME)
            .build()?;
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name(THREAD_NAME.to_owned()).spawn(move || {
            if let Err(text) = run_to_end(|| run(runtime, received, &of_thread)) {
                of_thread.sink.died(THREAD_NAME, text);
            }
        })?;
        Ok(Self { shared, commands, thread: Mutex::new(Some(thread)), process: std::process::id() })
    }

    /// Begins a session; never blocks. Its number must not be that of one that is not closed.
    ///
    /// [`Closed`](UpstreamEvent::Closed) is reported for it once, whatever happens.
    pub fn open(&self, session: u64, request: Open) {
        self.begin(session, request.into());
    }

    /// Begins a session with a plain WebSocket backend; otherwise as [`open`](Self::open).
    pub fn open_plain(&self, session: u64, request: OpenPlain) {
        self.begin(session, request.into());
    }

    fn begin(&self, session: u64, request: Request) {
        let outbox = Arc::new(Outbox::new(request.queue_bytes_max));
        let protocol = request.speech.hub_protocol();
        let mut ending = Ending::new(session, Arc::clone(&self.shared), Arc::clone(&outbox), protocol);
        self.shared.counters.sessions_total.fetch_add(1, Ordering::Relaxed);
        match self.shared.lock().entry(session) {
            Entry::Vacant(entry) => drop(entry.insert(outbox)),
            Entry::Occupied(_) => ending.refuse(format!("session {session} is open already")),
        }
        // To a thread that has ended: the command is dropped here, and so answered.
        drop(self.commands.send(Command::Open(ending, Box::new(request))));
    }

    /// Queues whole hub records; gives how many bytes now wait unsent, or `None` where nothing was taken: the session is
    /// closed or closing.
    ///
    /// What was taken before the session is open goes out behind its handshake. Calls and client results are kept account
    /// of; pings, Close, acks, sequences and unknown records are left out. Bytes that are no whole records end the
    /// session, as do more than [`Open::queue_bytes_max`] and [`QUEUE_SLACK_BYTES`](crate::QUEUE_SLACK_BYTES) that wait.
    pub fn send(&self, session: u64, bytes: Vec<u8>) -> Option<usize> {
        let outbox = self.shared.lock().get(&session).cloned();
        outbox?.push(Kind::Records, bytes)
    }

    /// As [`send`](Self::send), one message of a plain session; text that is no UTF-8 ends it.
    pub fn send_message(&self, session: u64, is_text: bool, data: Vec<u8>) -> Option<usize> {
        let outbox = self.shared.lock().get(&session).cloned();
        outbox?.push(if is_text { Kind::Text } else { Kind::Binary }, data)
    }

    /// Ends a session: what waits is sent, then the WebSocket's close handshake, five seconds for both. Without a
    /// `farewell` the Close frame says no code. A [negotiation](Self::negotiate) is called off: its connection is closed at
    /// once, and it is answered all the same.
    pub fn close(&self, session: u64, farewell: Option<CloseFrame>) {
        drop(self.shared.lock_asked().remove(&session));
        let outbox = self.shared.lock().get(&session).cloned();
        if let Some(outbox) = outbox {
            outbox.close(farewell);
        }
    }

    /// Posts to a hub's `/negotiate`; no redirect is followed. Its number must not be that of a session, or of another.
    ///
    /// The answer is a [`Negotiated`](UpstreamEvent::Negotiated) of this number, once, within the timeout.
    pub fn negotiate(&self, request: u64, negotiation: Negotiation) {
        let guard = NegotiationGuard::new(request, Arc::clone(&self.shared));
        drop(self.commands.send(Command::Negotiate(guard, Box::new(negotiation))));
    }

    /// What has been done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        Stats {
            sessions_now: self.shared.lock().len() as u64,
            sessions_total: counters.sessions_total.load(Ordering::Relaxed),
            bytes_in: counters.bytes_in.load(Ordering::Relaxed),
            bytes_out: counters.bytes_out.load(Ordering::Relaxed),
            records_in: counters.records_in.load(Ordering::Relaxed),
            connects_failed: counters.connects_failed.load(Ordering::Relaxed),
        }
    }

    /// Closes every session and ends the thread; waits for both, two seconds at most. Again it does nothing, and neither in
    /// a fork, where there is no such thread.
    pub fn stop(&self) {
        if self.process != std::process::id() {
            return;
        }
        drop(self.commands.send(Command::Stop));
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
            // A panic of the thread's was told when it happened; its sessions are closed.
            drop(thread.join());
        }
    }
}

impl Drop for Upstreams {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Tells how a negotiation ended when it is dropped.
struct NegotiationGuard {
    request: u64,
    shared: Arc<Shared>,
    status: u16,
    body: Vec<u8>,
    fault: Option<Fault>,
    cookies: Vec<String>,
    /// Ends when nobody wants the answer any more.
    called_off: Option<oneshot::Receiver<()>>,
}

impl NegotiationGuard {
    fn new(request: u64, shared: Arc<Shared>) -> Self {
        let (sender, receiver) = oneshot::channel();
        drop(shared.lock_asked().insert(request, sender));
        let body = b"the upstreams were stopped".to_vec();
        Self { request, shared, status: 0, body, fault: None, cookies: Vec::new(), called_off: Some(receiver) }
    }

    async fn run(mut self, dialer: &Dialer, negotiation: Box<Negotiation>) {
        let called_off = self.called_off.take().expect("it is run once");
        // Dropped before its end it closes its connection.
        match select(called_off, Box::pin(answer_of(dialer, &negotiation))).await {
            Either::Left(_) => self.body = b"it was called off".to_vec(),
            Either::Right((Ok((status, body, cookies)), _)) => {
                (self.status, self.body, self.cookies) = (status, body, cookies);
            }
            Either::Right((Err((text, fault)), _)) => (self.body, self.fault) = (text.into_bytes(), Some(fault)),
        }
    }
}

/// Status, body and cookies; or the text of an error, and whose doing it is.
async fn answer_of(
    dialer: &Dialer,
    Negotiation { url, headers, roots, timeout }: &Negotiation,
) -> Result<(u16, Vec<u8>, Vec<String>), (String, Fault)> {
    let Some(target) = Target::parse(url) else {
        return Err((format!("the URL: {}", ConnectError::BadUrl), Fault::Request));
    };
    let answer = tokio::time::timeout(*timeout, post(dialer, roots.as_ref(), &target, headers)).await;
    let answer = answer.unwrap_or_else(|_| Err(timeout_error("negotiate", *timeout)));
    answer.map_err(|error| (format!("{target}: {error}"), error.fault()))
}

impl Drop for NegotiationGuard {
    fn drop(&mut self) {
        drop(self.shared.lock_asked().remove(&self.request));
        let (body, cookies) = (std::mem::take(&mut self.body), std::mem::take(&mut self.cookies));
        let event = UpstreamEvent::Negotiated { status: self.status, body, fault: self.fault.take(), cookies };
        self.shared.sink.report(self.request, event);
    }
}

fn run(runtime: Runtime, commands: UnboundedReceiver<Command>, shared: &Shared) {
    runtime.block_on(serve(commands, shared));
    runtime.shutdown_timeout(STOP_TIMEOUT);
}

async fn serve(mut commands: UnboundedReceiver<Command>, shared: &Shared) {
    let dialer = Arc::new(Dialer::default());
    let mut tasks = JoinSet::new();
    loop {
        let command = poll_fn(|context| {
            while let Poll::Ready(Some(ended)) = tasks.poll_join_next(context) {
                if let Some(panic) = ended.err().and_then(|error| error.try_into_panic().ok()) {
                    shared.sink.panicked(panic_text(&*panic));
                }
            }
            commands.poll_recv(context)
        });
        let dialer = Arc::clone(&dialer);
        match command.await {
            None | Some(Command::Stop) => break,
            #[cfg(test)]
            Some(Command::Panic { text, is_task: true }) => drop(tasks.spawn(async move { panic!("{text}") })),
            #[cfg(test)]
            Some(Command::Panic { text, .. }) => panic!("{text}"),
            Some(Command::Open(mut ending, _)) if tasks.len() >= SESSIONS_MAX => ending.refuse(too_many()),
            Some(Command::Open(ending, request)) => {
                if !ending.is_refused {
                    tasks.spawn(async move { session::run(ending, request, &dialer).await });
                }
            }
            Some(Command::Negotiate(mut guard, _)) if tasks.len() >= SESSIONS_MAX => {
                guard.body = too_many().into_bytes();
            }
            Some(Command::Negotiate(guard, negotiation)) => {
                tasks.spawn(async move { guard.run(&dialer, negotiation).await });
            }
        }
    }
    commands.close();
    let outboxes: Vec<_> = shared.lock().values().cloned().collect();
    for outbox in outboxes {
        outbox.close(None);
    }
    let all = async { while tasks.join_next().await.is_some() {} };
    // Who does not answer in time is dropped, and so closed.
    drop(tokio::time::timeout(STOP_TIMEOUT, all).await);
    tasks.shutdown().await;
}

fn too_many() -> String {
    format!("there are {SESSIONS_MAX} sessions and negotiations, more are not opened")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use fanwire_core::Message;
    use fanwire_core::messages::ConnectionId;
    use fanwire_core::protocol::signalr::HubProtocol;

    use super::*;

    /// Hears of ends alone.
    struct Mourner(Sender<String>);

    impl Sink for Mourner {
        fn report(&self, session: u64, event: UpstreamEvent) {
            if let UpstreamEvent::Negotiated { status: 0, .. } = event {
                self.0.send(format!("{session} unanswered")).expect("the test listens");
            }
        }
        fn append(&self, _: &str, _: HubProtocol, _: &[&[u8]], _: &[usize]) {}
        fn append_to_hub(&self, _: &str, _: HubProtocol, _: &[&[u8]]) {}
        fn send(&self, _: ConnectionId, _: &[u8]) {}
        fn append_messages(&self, _: &str, _: &[Message<'_>]) {}
        fn send_messages(&self, _: ConnectionId, _: &[Message<'_>]) {}
        fn accept(&self, _: ConnectionId, _: Option<&str>, _: &[String]) {}
        fn died(&self, thread: &str, text: String) {
            self.0.send(format!("{thread} died: {text}")).expect("the test listens");
        }
        fn panicked(&self, text: String) {
            self.0.send(format!("panicked: {text}")).expect("the test listens");
        }
    }

    #[test]
    fn a_panic_of_a_session_ends_no_other_and_one_of_the_thread_is_told() {
        let (told, heard) = channel();
        let upstreams = Upstreams::start(Arc::new(Mourner(told))).expect("a thread");
        let next = || heard.recv_timeout(Duration::from_secs(10)).expect("something is told");
        let panic = |text, is_task| drop(upstreams.commands.send(Command::Panic { text, is_task }));
        panic("a task's", true);
        assert_eq!(next(), "panicked: a task's");
        panic("the thread's", false);
        assert_eq!(next(), "fanwire-upstream died: the thread's");
        let (url, timeout) = ("http://127.0.0.1:9".to_owned(), Duration::from_secs(60));
        upstreams.negotiate(7, Negotiation { url, headers: Vec::new(), roots: None, timeout });
        assert_eq!(next(), "7 unanswered");
        upstreams.stop();
    }
}
