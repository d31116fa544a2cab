//! The façade: start, listen, publish, subscribe, send, take events, drain, stop. Any thread may call any of it.
//!
//! `sending` has private bytes, `lanes` what a relay asks besides, `mirroring` its lanes over workers, `following` how far a publication has come, and
//! keyframes for who waits, `subscribing` who hears which channel, in which format, `welcoming` sockets that were handed in,
//! `adopting` connections that a framework reads, `node` this engine among several workers, `siblings` the thread that
//! passes SignalR's requests on to them.
mod adopting;
#[cfg(test)]
mod dying;
mod following;
mod lanes;
mod looking;
mod mirroring;
mod node;
mod paths;
mod sending;
mod siblings;
#[cfg(test)]
mod simulation;
mod subscribing;
mod welcoming;

pub use adopting::{Adopted, Broadcasting};
pub use lanes::Message;
pub use mirroring::TOLD_OF_LANES;
pub use node::TOLD_TO_APPLICATION;
pub use subscribing::Chosen;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::channel::{Appended, Channel, Publication, Registry, Stand, Watch};
use crate::clock::Clock;
use crate::error::EngineError;
use crate::events::Events;
use crate::failure::{Failure, run_to_end};
use crate::http::headers_fault;
use crate::messages::{Command, ConnectionId, Event, Header};
use crate::position::Position;
use crate::protocol::Formats;
use crate::settings::{PollerKind, Settings, SettingsError};
use crate::shard::{Common, Poller, Readiness, Shard, ShardHandle};
use crate::siblings::Siblings;
use crate::socket;
use crate::stats::Stats;
use crate::tokens::Tokens;
use crate::ws::{CLOSE_CODES, CloseCode};
use mirroring::Following;

/// Whom a publication is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience<'a> {
    /// The subscribers of a channel.
    Channel(&'a str),
    /// The connections that were accepted as this user's.
    User(&'a str),
    /// The connections of the SignalR hub at this path.
    Hub(&'a str),
    /// The clients that a lane of a relay serves.
    Lane(&'a str),
}

impl<'a> Audience<'a> {
    fn name(self) -> &'a str {
        let (Self::Channel(name) | Self::User(name) | Self::Hub(name) | Self::Lane(name)) = self;
        name
    }
}

/// Deferred publications wake the shards by themselves when so many bytes wait.
const DEFERRED_BYTES_MAX: u64 = 64 << 10;

/// The shards, their sockets and the channels' logs.
#[derive(Debug)]
pub struct Engine {
    common: Arc<Common>,
    shards: Vec<Arc<ShardHandle>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The one that speaks with other workers.
    sibling_thread: Mutex<Option<JoinHandle<()>>>,
    poller: Mutex<Option<PollerKind>>,
    state: AtomicU64,
    publications: AtomicU64,
    deferred_bytes: AtomicU64,
    /// Of the next call of `track`.
    token: AtomicU64,
    /// Sockets that were handed in so far.
    welcomed: AtomicUsize,
    /// What is mirrored here from other workers.
    following: Mutex<Following>,
    /// The process whose threads these are, and how many forks had led to it: to ask for the first is a system call.
    process: u32,
    forks: u32,
}

const NEW: u64 = 0;
const RUNNING: u64 = 1;
const STOPPED: u64 = 2;

impl Engine {
    /// An engine that does not run yet.
    ///
    /// # Errors
    /// [`SettingsError`]; [`EngineError::StartFailed`] without descriptors, as the second kind.
    pub fn new(settings: Settings) -> Result<Self, NewError> {
        settings.validate()?;
        let shards: std::io::Result<Vec<_>> = (0..settings.shards).map(|_| ShardHandle::new().map(Arc::new)).collect();
        let failed = |cause| EngineError::StartFailed { shard: 0, cause };
        let shards = shards.map_err(failed)?;
        let events = Events::new(settings.shards, settings.events_pending_max).map_err(failed)?;
        let channels = Arc::new(crate::channel::Common::new(settings.verifies_compression));
        let channels_max = settings.channels_max;
        let wake = |shard: &Arc<ShardHandle>| {
            let shard = Arc::clone(shard);
            move || shard.bell.ring()
        };
        let told = settings.siblings.as_ref();
        let siblings = told.map(|told| Siblings::new(settings.worker, &told.key)).transpose().map_err(failed)?;
        let siblings = siblings.map(Arc::new);
        let of_worker = |siblings: &Arc<Siblings>| Tokens::of_worker(settings.worker, Arc::clone(&siblings.bell));
        let tokens = Arc::new(siblings.as_ref().map(of_worker).unwrap_or_default());
        let unlisted = |count_max| Registry::unlisted(&channels, count_max).waking(wake(&shards[0]));
        let common = Common {
            registry: Registry::listed(&channels, channels_max).waking(wake(&shards[0])),
            users: unlisted(channels_max).uncompressed(),
            hubs: unlisted(crate::routes::ROUTES_MAX),
            lanes: unlisted(channels_max / 16),
            offers: Default::default(),
            admissions: Default::default(),
            settings,
            routes: Default::default(),
            tokens,
            siblings,
            shards: shards.clone(),
            events,
            failure: Failure::default(),
            readiness: Mutex::default(),
            clock: Clock::start(),
            node: Default::default(),
        };
        Ok(Self {
            common: Arc::new(common),
            shards,
            threads: Mutex::default(),
            sibling_thread: Mutex::default(),
            poller: Mutex::default(),
            state: AtomicU64::new(NEW),
            publications: AtomicU64::new(0),
            deferred_bytes: AtomicU64::new(0),
            token: AtomicU64::new(0),
            welcomed: AtomicUsize::new(0),
            following: Mutex::default(),
            process: std::process::id(),
            forks: socket::forks(),
        })
    }

    /// Starts the shards' threads; returns when each has its poller.
    ///
    /// # Errors
    /// [`EngineError::StartFailed`]; [`EngineError::NotRunning`] after `stop`.
    pub fn start(&self) -> Result<(), EngineError> {
        self.check_process()?;
        if self.state.compare_exchange(NEW, RUNNING, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return self.check_running();
        }
        if let Err(error) = self.join_siblings() {
            self.stop();
            return Err(error);
        }
        for index in 0..self.shards.len() {
            match self.spawn(index).recv() {
                Ok(Ok(kind)) => *lock(&self.poller) = Some(kind),
                Ok(Err(cause)) => {
                    self.stop();
                    return Err(EngineError::StartFailed { shard: index, cause });
                }
                Err(gone) => {
                    self.stop();
                    return Err(EngineError::StartFailed { shard: index, cause: std::io::Error::other(gone) });
                }
            }
        }
        Ok(())
    }

    fn spawn(&self, index: usize) -> Receiver<std::io::Result<PollerKind>> {
        let (started, outcome) = sync_channel(1);
        let (common, handle) = (Arc::clone(&self.common), Arc::clone(&self.shards[index]));
        let of_thread = Arc::clone(&handle);
        let failed = started.clone();
        let body = move || match Shard::<Poller>::new(index, Arc::clone(&common), handle) {
            Ok(shard) => {
                let _ = started.send(Ok(shard.poller_kind())); // `start` waits for it
                if let Err(text) = run_to_end(|| shard.run()) {
                    of_thread.stats.forget_connections();
                    died(&common, &format!("fanwire-{index}"), text);
                }
            }
            Err(cause) => {
                let _ = started.send(Err(cause));
            }
        };
        match std::thread::Builder::new().name(format!("fanwire-{index}")).spawn(body) {
            Ok(thread) => lock(&self.threads).push(thread),
            Err(cause) => {
                let _ = failed.send(Err(cause));
            }
        }
        outcome
    }

    /// Listens with every shard on `host:port`, at all addresses that the host has, `[v6]:port`, `port` (at 127.0.0.1), `:port`
    /// (at all addresses of the machine) or `unix:path`; or with inherited sockets, `fd:5,6`. Gives the address as bound.
    ///
    /// # Errors
    /// [`EngineError::ListenFailed`], [`EngineError::NotRunning`].
    pub fn listen(&self, address: &str) -> Result<String, EngineError> {
        self.check_running()?;
        let (listeners, bound) = crate::listening::bind(address, &self.common.settings)
            .map_err(|cause| EngineError::ListenFailed { address: address.to_owned(), cause })?;
        for (shard, listener) in listeners {
            self.shards[shard].command(Command::Listen(listener));
        }
        Ok(bound)
    }

    /// Formats that an object published to these has to be encoded for, as of now.
    #[must_use]
    pub fn formats_of(&self, audience: Audience<'_>) -> Formats {
        if self.node().is_some() && !matches!(audience, Audience::Lane(_)) {
            return self.formats_of_all();
        }
        self.registry_of(audience).find(audience.name()).map_or(Formats::default(), |channel| channel.formats())
    }

    /// The shard of a connection of this engine.
    fn shard_of(&self, id: ConnectionId) -> Option<&Arc<ShardHandle>> {
        self.shards.get(id.shard()).filter(|_| id.worker() == self.common.settings.worker)
    }

    fn registry_of(&self, audience: Audience<'_>) -> &Registry {
        audience.key().map_or(&self.common.lanes, |(group, _)| self.common.registry_of(group))
    }

    /// Appends one publication and wakes the shards that watch. O(1) in subscribers; never waits for a socket.
    ///
    /// With `is_deferred` they are woken by [`flush`](Self::flush), or when 64 KiB wait. `Ok(Err(formats))`
    /// asks for those that came into use meanwhile and that the payload was not encoded for: nothing was appended.
    ///
    /// # Errors
    /// [`EngineError`]: stopped, a bad channel name or event, too big, a bound reached. Nothing was appended.
    pub fn publish(
        &self,
        channel: &str,
        publication: &Publication<'_>,
        is_deferred: bool,
    ) -> Result<Result<Position, Formats>, EngineError> {
        self.publish_to(Audience::Channel(channel), publication, is_deferred)
    }

    /// As [`publish`](Self::publish), to any audience.
    ///
    /// # Errors
    /// Those of [`publish`](Self::publish).
    pub fn publish_to(
        &self,
        audience: Audience<'_>,
        publication: &Publication<'_>,
        is_deferred: bool,
    ) -> Result<Result<Position, Formats>, EngineError> {
        match self.publish_at(audience, publication, Stand::Next, is_deferred)? {
            Appended::Missing(formats) => Ok(Err(formats)),
            Appended::At(position) | Appended::Duplicate(position) => Ok(Ok(position)),
        }
    }

    /// As [`publish_to`](Self::publish_to), at a place that may come from outside: [`Appended::Duplicate`] of what is there.
    ///
    /// Whoever stands before what is missing is dealt with as the channel's policy says of something missed.
    ///
    /// # Errors
    /// Those of [`publish`](Self::publish); [`EngineError::InvalidPosition`].
    pub fn publish_at(
        &self,
        audience: Audience<'_>,
        publication: &Publication<'_>,
        stand: Stand,
        is_deferred: bool,
    ) -> Result<Appended, EngineError> {
        self.check_running()?;
        self.check_publication(publication)?;
        let common = &self.common;
        let now_ns = common.clock.now_ns();
        let channel = self.registry_of(audience).obtain(audience.name(), &common.settings, now_ns)?;
        let tell = |watch: &Arc<Watch>| self.tell(watch, is_deferred);
        let appended = channel.append(publication, stand, now_ns, common.settings.unsent_bytes_max, tell)?;
        if matches!(appended, Appended::At(_)) {
            self.publications.fetch_add(1, Ordering::Relaxed);
            if !is_deferred && self.deferred_bytes.load(Ordering::Relaxed) > 0 {
                self.flush(); // it may stand in a mailbox that was not rung for it
            } else if is_deferred {
                let bytes = (publication.payload.bytes() as u64).max(1);
                if self.deferred_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > DEFERRED_BYTES_MAX {
                    self.flush();
                }
            }
        }
        Ok(appended)
    }

    fn tell(&self, watch: &Arc<Watch>, is_deferred: bool) {
        let shard = &self.shards[watch.shard];
        if shard.mailbox.push_dirty(Arc::clone(watch), is_deferred).0 {
            shard.bell.ring();
        }
    }

    /// Bytes that a publication's payload may have.
    #[must_use]
    pub fn publication_bytes_max(&self) -> usize {
        self.common.settings.publication_bytes_max
    }

    fn check_publication(&self, publication: &Publication<'_>) -> Result<(), EngineError> {
        publication.check(self.common.settings.publication_bytes_max)
    }

    /// Wakes the shards for what was published with `is_deferred`, and whoever takes it to the sequencer.
    pub fn flush(&self) {
        if let Some(member) = self.node() {
            member.flush();
        }
        self.deferred_bytes.store(0, Ordering::Relaxed);
        for shard in &self.shards {
            if shard.mailbox.flush().0 {
                shard.bell.ring();
            }
        }
    }

    fn obtain(&self, name: &str) -> Result<Arc<Channel>, EngineError> {
        self.common.registry.obtain(name, &self.common.settings, self.common.clock.now_ns())
    }

    fn obtain_to_watch(&self, name: &str) -> Result<Arc<Channel>, EngineError> {
        self.common.registry.obtain_to_watch(name, &self.common.settings, self.common.clock.now_ns())
    }

    /// Gives a shard a command that has a descriptor, which is not to outlive the engine.
    fn hand_in(&self, shard: &ShardHandle, command: Command) {
        shard.command(command);
        if self.check_running().is_err() {
            let _threads = lock(&self.threads); // it was stopped meanwhile, perhaps before this came: they have ended now
            shard.drop_commands();
        }
    }

    fn command(&self, id: ConnectionId, command: Command) {
        if let Some(shard) = self.shard_of(id) {
            shard.command(command);
        }
    }

    /// Answers a request that waits. A status of 400 and over ends the connection.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`].
    pub fn respond(
        &self,
        id: ConnectionId,
        (status, headers): (u16, Vec<Header>),
        content_type: &str,
        body: &[u8],
    ) -> Result<(), EngineError> {
        self.check_running()?;
        check_headers(&headers)?;
        self.command(id, Command::Respond(id, status, content_type.into(), body.into(), headers.into()));
        Ok(())
    }

    /// Starts the close handshake.
    ///
    /// # Errors
    /// [`EngineError::InvalidCloseCode`], [`EngineError::ReasonTooLong`], [`EngineError::NotRunning`].
    pub fn disconnect(&self, id: ConnectionId, code: u16, reason: &str) -> Result<(), EngineError> {
        self.check_running()?;
        let speaks_raw = self.may_speak(id).iter().any(|format| format.hub_protocol().is_none());
        check_close(code, reason, if speaks_raw { REASON_BYTES_MAX } else { CLOSE_ERROR_BYTES_MAX })?;
        self.command(id, Command::Disconnect(id, code, reason.into()));
        Ok(())
    }

    /// The application has dealt with `count` messages of a connection.
    pub fn acknowledge(&self, id: ConnectionId, count: u16) {
        if self.check_process().is_err() {
            return;
        }
        self.command(id, Command::Acknowledge(id, count));
    }

    /// Takes what happened, oldest first for each connection. Never waits.
    #[must_use]
    pub fn take_events(&self, count_max: usize) -> Vec<Event> {
        if self.check_process().is_err() {
            return Vec::new(); // the eventfd is the parent's, too
        }
        // The last queue is no shard's, and nobody stalls for it.
        self.common.events.take(count_max, |shard| {
            if let Some(shard) = self.shards.get(shard) {
                shard.command(Command::Resume);
            }
        })
    }

    /// What it was made with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.common.settings
    }

    /// Whether all threads live; one that has died is told here, for ever, and the eventfd is rung for it.
    ///
    /// # Errors
    /// [`EngineError::ThreadDied`], naming the first.
    pub fn check_threads(&self) -> Result<(), EngineError> {
        self.common.failure.check()
    }

    /// Has `/readyz` answer 503 with this text from now on, or 200 again; and 200 while this process drains, where others
    /// serve its port.
    pub fn set_unready(&self, why_not: Option<String>, others_serve: bool) {
        *lock(&self.common.readiness) = Readiness { why_not, others_serve };
    }

    /// A thread of this name, which works for this engine, has died of that.
    pub fn thread_died(&self, name: &str, text: String) {
        died(&self.common, name, text);
    }

    /// An eventfd that is readable when events wait.
    #[must_use]
    pub fn event_fd(&self) -> std::os::fd::RawFd {
        self.common.events.bell.fd()
    }

    /// Names of the channels that a connection is subscribed to. Waits for the shard's turn, a second at most.
    #[must_use]
    pub fn channels_of(&self, id: ConnectionId) -> Vec<String> {
        if self.check_running().is_err() {
            return Vec::new();
        }
        let (reply, names) = sync_channel(1);
        self.command(id, Command::ListChannels(id, reply));
        names.recv_timeout(Duration::from_secs(1)).unwrap_or_default()
    }

    /// Subscribers of a channel now.
    #[must_use]
    pub fn occupancy(&self, channel: &str) -> u32 {
        self.common.registry.find(channel).map_or(0, |channel| channel.occupancy())
    }

    /// Counters and gauges of all shards.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = Stats {
            channels: self.common.registry.count() as u64,
            publications: self.publications.load(Ordering::Relaxed),
            ..Stats::default()
        };
        (stats.compression_time, stats.compression_rests) = self.common.registry.compressing();
        self.shards.iter().for_each(|shard| stats.add(&shard.stats));
        stats
    }

    /// The poller in use, once started.
    #[must_use]
    pub fn poller(&self) -> Option<PollerKind> {
        *lock(&self.poller)
    }

    /// Stops accepting and closes every connection in an orderly way, evenly over the time of `spread`.
    ///
    /// # Errors
    /// As [`disconnect`](Self::disconnect).
    pub fn drain(&self, code: u16, reason: &str, spread: Duration) -> Result<(), EngineError> {
        self.check_running()?;
        check_close(code, reason, REASON_BYTES_MAX)?;
        self.shards.iter().for_each(|shard| shard.command(Command::Drain(code, reason.into(), spread)));
        Ok(())
    }

    /// Ends the threads and closes every descriptor. Idempotent. Waits for the threads, a turn each.
    pub fn stop(&self) {
        if self.check_process().is_err() {
            return; // a fork has no threads to end
        }
        let mut threads = lock(&self.threads);
        self.state.store(STOPPED, Ordering::Release);
        self.shards.iter().for_each(|shard| shard.command(Command::Stop));
        for thread in threads.drain(..) {
            // One that panicked has told; its sockets are closed all the same.
            let _ = thread.join();
        }
        self.leave_siblings();
        self.shards.iter().for_each(|shard| shard.drop_commands());
    }

    fn check_process(&self) -> Result<(), EngineError> {
        if socket::forks() == self.forks {
            return Ok(());
        }
        Err(EngineError::Forked { started: self.process, here: std::process::id() })
    }

    fn check_running(&self) -> Result<(), EngineError> {
        match self.state.load(Ordering::Acquire) {
            RUNNING => self.check_process(),
            NEW => Err(EngineError::NotRunning { state: "not started" }),
            _ => Err(EngineError::NotRunning { state: "stopped" }),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NewError {
    /// A setting is out of range.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The system refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

fn died(common: &Common, thread: &str, text: String) {
    common.failure.report(thread, text);
    common.events.bell.ring();
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn check_headers(headers: &[Header]) -> Result<(), EngineError> {
    let fault = headers_fault(headers.iter().map(|(name, value)| (&**name, &**value)));
    fault.map_or(Ok(()), |(name, why)| Err(EngineError::InvalidHeader { name: name.to_owned(), why }))
}

const REASON_BYTES_MAX: usize = 123; // of a Close frame (RFC 6455 §5.5)
const CLOSE_ERROR_BYTES_MAX: usize = 4096; // of the error in a hub protocol's Close message, which has no bound of its own

fn check_close(code: u16, reason: &str, bytes_max: usize) -> Result<(), EngineError> {
    if !CloseCode(code).may_be_sent() {
        return Err(EngineError::InvalidCloseCode { code, allowed: CLOSE_CODES });
    }
    if reason.len() > bytes_max {
        return Err(EngineError::ReasonTooLong { bytes: reason.len(), bytes_max });
    }
    Ok(())
}
