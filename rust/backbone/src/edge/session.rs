//! A link to an origin while it is up: what waits goes out, what comes is told, and silence is noticed.
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use fanwire_core::Position;
use fanwire_core::node::{EDGE_SUBPROTOCOLS, read_for_edges};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::connection::{Socket, open};
use super::following::Following;
use super::target::Target;
use crate::api::{Event, Options, Refused};
use crate::channels::Heard;
use crate::inbox::{Inbox, Taken};
use crate::session::{End, refuse};
use crate::url::Address;

/// Frames that are taken before what they say is told.
const AT_ONCE_MAX: usize = 256;
const NO_EPOCH: Position = Position { epoch: 0, offset: 0 };

/// What a session works for, over reconnects.
pub(crate) struct Plan {
    pub(crate) target: Target,
    pub(crate) options: Options,
    pub(crate) tls: Option<tokio_rustls::TlsConnector>,
    /// Which origin is the next to try.
    turn: Cell<usize>,
}

impl Plan {
    pub(crate) fn new(target: Target, options: Options, tls: Option<tokio_rustls::TlsConnector>) -> Self {
        Self { target, options, tls, turn: Cell::new(0) }
    }

    /// The origins, the next to try first.
    fn addresses(&self) -> Vec<Address> {
        let mut addresses = self.target.addresses.clone();
        let count = addresses.len();
        addresses.rotate_left(self.turn.get() % count);
        self.turn.set(self.turn.get().wrapping_add(1) % count);
        addresses
    }
}

/// Connected to one origin.
pub(crate) struct Session<'a> {
    plan: &'a Plan,
    inbox: &'a Inbox,
    heard: &'a Arc<Heard>,
    socket: Socket,
    address: Address,
    following: Following,
    ticks: Interval,
    heard_at: Instant,
    is_silent: bool,
}

impl<'a> Session<'a> {
    /// Connects to one of the origins.
    ///
    /// # Errors
    /// Why to none.
    pub(crate) async fn connect(plan: &'a Plan, inbox: &'a Inbox, heard: &'a Arc<Heard>) -> Result<Self, String> {
        let [json, msgpack] = EDGE_SUBPROTOCOLS;
        let subprotocol = if plan.options.speaks_msgpack { msgpack } else { json };
        let mut reasons = Vec::new();
        for address in plan.addresses() {
            let (bytes_max, within) = (plan.options.record_bytes_max, plan.options.silent_max);
            match open(&address, &plan.target, (plan.tls.as_ref(), subprotocol), bytes_max, within).await {
                Err(why) => reasons.push(why),
                Ok(socket) => {
                    let mut ticks = tokio::time::interval(plan.options.ping_every);
                    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    let (following, heard_at) = (Following::default(), Instant::now());
                    return Ok(Self {
                        plan,
                        inbox,
                        heard,
                        socket,
                        address,
                        following,
                        ticks,
                        heard_at,
                        is_silent: false,
                    });
                }
            }
        }
        Err(reasons.join("; "))
    }

    /// Until it is stopped or broken.
    pub(crate) async fn run(mut self, is_stopping: &AtomicBool) -> End {
        let mut taken = self.inbox.take();
        drop(self.heard.apply(&mut taken));
        for channel in self.heard.wanted() {
            self.want(&channel);
        }
        taken.patterns.extend(self.heard.patterns().into_iter().map(|pattern| (pattern, true)));
        self.accept(taken);
        let why = loop {
            self.tell();
            if let Err(why) = self.send().await {
                break why;
            }
            match self.step(is_stopping).await {
                Ok(true) => {}
                Ok(false) => {
                    let closing = self.socket.close(None);
                    drop(tokio::time::timeout(self.plan.options.ping_every, closing).await);
                    return End::Stopped;
                }
                Err(why) => break why,
            }
        };
        let why = format!("{}: {why}", self.address);
        self.following.end(&why);
        self.tell();
        End::Broken(why, Vec::new())
    }

    /// Waits for the next thing to happen, and does what follows from it. False where it is to stop.
    async fn step(&mut self, is_stopping: &AtomicBool) -> Result<bool, String> {
        tokio::select! {
            () = self.inbox.rung() => {
                if is_stopping.load(Ordering::Acquire) {
                    return Ok(false);
                }
                let mut taken = self.inbox.take();
                for (channel, keep) in self.heard.apply(&mut taken) {
                    match keep {
                        Some(_) => self.want(&channel),
                        None => self.leave(&channel),
                    }
                }
                self.accept(taken);
            }
            message = self.socket.next() => {
                self.came(message)?;
                self.take_what_is_there()?;
            }
            _ = self.ticks.tick() => self.tick().await?,
        }
        Ok(true)
    }

    /// Takes what has come with it, so that it is told together.
    fn take_what_is_there(&mut self) -> Result<(), String> {
        for _ in 1..AT_ONCE_MAX {
            match futures_util::FutureExt::now_or_never(self.socket.next()) {
                Some(message) => self.came(message)?,
                None => break,
            }
        }
        Ok(())
    }

    fn came(&mut self, message: Option<Result<Message, tokio_tungstenite::tungstenite::Error>>) -> Result<(), String> {
        self.heard_at = Instant::now();
        match message {
            None => return Err("the connection was closed".to_owned()),
            Some(Err(error)) => return Err(error.to_string()),
            Some(Ok(Message::Close(frame))) => {
                let said = frame.map_or_else(String::new, |frame| format!(" with {}: {}", frame.code, frame.reason));
                return Err(format!("the origin closed{said}"));
            }
            Some(Ok(Message::Binary(bytes))) => match read_for_edges(&bytes) {
                Some((channel, record)) => self.following.record(channel, record),
                None => self.heard.foreign("", "bytes that are no publication"),
            },
            Some(Ok(Message::Text(text))) => {
                if let Some(reason) = self.following.text(&text) {
                    self.heard.foreign("", reason);
                }
            }
            Some(Ok(_)) => {} // pings are answered by whoever reads them
        }
        Ok(())
    }

    fn accept(&mut self, taken: Taken) {
        let why = || Refused::Server(format!("this is an edge of {}: publish there", self.address));
        refuse(self.inbox, self.heard, taken.publications, why);
        for question in taken.questions {
            let channel = question.channel.clone();
            self.following.ask(channel.strip_prefix('c').unwrap_or(&channel), question);
        }
        for channel in taken.snapshots {
            self.following.snapshot(channel.strip_prefix('c').unwrap_or(&channel));
        }
        // This machine is the only one that it knows.
        for telling in &taken.tellings {
            if telling.to.is_none() || telling.to == self.plan.options.machine {
                self.heard.tell(Event::Told(telling.bytes.clone()));
            }
        }
        self.inbox.told(&taken.tellings);
        for (pattern, _) in taken.patterns.into_iter().filter(|one| one.1) {
            let reason = "an edge hears the channels that its clients watch, and no patterns".to_owned();
            self.heard.tell(Event::Unheard { channel: pattern, reason });
        }
    }

    /// Users and hubs of SignalR are of this machine alone: nothing of them comes.
    fn want(&mut self, channel: &str) {
        match channel.strip_prefix('c') {
            Some(name) => {
                let known = self.heard.known(channel);
                self.following.want(name, Some(known).filter(|known| *known != NO_EPOCH));
            }
            None => self.heard.tell(Event::Wanted { channel: channel.into(), top: NO_EPOCH }),
        }
    }

    fn leave(&mut self, channel: &str) {
        if let Some(name) = channel.strip_prefix('c') {
            self.following.leave(name);
        }
    }

    /// Tells what has come.
    fn tell(&mut self) {
        let (events, answered) = self.following.take();
        self.inbox.settled(answered.len(), answered.iter().map(|question| question.cost()).sum());
        for event in events {
            match &event {
                Event::Record { channel, record } => self.heard.learn(channel, record.position),
                Event::Since { channel, records, .. } => {
                    records.last().into_iter().for_each(|last| self.heard.learn(channel, last.position));
                }
                _ => {}
            }
            self.heard.tell(event);
        }
    }

    /// Sends what is asked for.
    async fn send(&mut self) -> Result<(), String> {
        let (socket, following, within) = (&mut self.socket, &mut self.following, self.plan.options.silent_max);
        let sending = async {
            while let Some(request) = following.next_request() {
                socket.send(Message::text(request)).await?;
            }
            Ok(())
        };
        let sent: Result<_, tokio_tungstenite::tungstenite::Error> = match tokio::time::timeout(within, sending).await {
            Ok(sent) => sent,
            Err(_) => return Err(format!("it has taken nothing for {within:?}")),
        };
        sent.map_err(|error| error.to_string())
    }

    /// Pings, and looks whether anything came.
    async fn tick(&mut self) -> Result<(), String> {
        let silent_max = self.plan.options.silent_max;
        // Whoever hears has kept this thread waiting, perhaps, and it is all there to read: so it has to be so twice.
        let is_silent = self.heard_at.elapsed() >= silent_max;
        if std::mem::replace(&mut self.is_silent, is_silent) && is_silent {
            return Err(format!("nothing was heard for {silent_max:?}"));
        }
        self.following.tick();
        let ping = self.socket.send(Message::Ping(Bytes::new()));
        match tokio::time::timeout(silent_max, ping).await {
            Ok(sent) => sent.map_err(|error| error.to_string()),
            Err(_) => Err(format!("it has taken nothing for {silent_max:?}")),
        }
    }
}
