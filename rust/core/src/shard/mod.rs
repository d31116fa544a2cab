//! One thread, one poller, its own connections: the loop and nothing else.
//!
//! A turn: wait, take what other threads left in the mailbox, fan out what moved, do commands, serve ready sockets,
//! look at the deadlines. The rooms: `poller` (kernel), `acceptor`, `opening` (HTTP), `inbound` (messages), `fanout`
//! (fast path), `lagging` (slow path), `closing`, `feed`, `slab`, `connection`, `outbox`, `timers`, `clock`, `socket`.
mod acceptor;
pub(crate) mod clock;
mod closing;
mod connection;
mod fanout;
mod feed;
mod inbound;
mod lagging;
mod opening;
mod outbox;
mod poller;
mod slab;
mod socket;
mod timers;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub use acceptor::Listener;
pub(crate) use acceptor::bind;

use smallvec::SmallVec;

use crate::channel::{Channel, Registry, Watch, Watched};
use crate::error::EngineError;
use crate::events::Events;
use crate::mailbox::Mailbox;
use crate::messages::{Command, ConnectionId};
use crate::notify::Bell;
use crate::settings::{PollerKind, Settings};
use crate::stats::ShardStats;
use crate::ws::{CloseCode, Opcode, write_header};
use clock::{Clock, TICK};
use connection::Phase;
use poller::{Interest, Poller, Ready, Short};

/// Tokens of listeners and of the bell have a slot part that no connection has.
const LISTENER_TOKENS: u64 = 1 << 63;
const BELL_TOKEN: u64 = u64::MAX;
/// What one receive may give.
const BUFFER_BYTES: usize = 64 << 10;

/// What other threads hold of a shard.
#[derive(Debug)]
pub(crate) struct ShardHandle {
    pub(crate) mailbox: Mailbox<Command, Arc<Watch>>,
    pub(crate) bell: Bell,
    pub(crate) stats: Arc<ShardStats>,
}

impl ShardHandle {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { mailbox: Mailbox::default(), bell: Bell::new()?, stats: Arc::default() })
    }

    pub(crate) fn command(&self, command: Command) {
        if self.mailbox.push(command).0 {
            self.bell.ring();
        }
    }
}

/// What all shards share.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) settings: Settings,
    pub(crate) registry: Registry,
    pub(crate) events: Events,
    pub(crate) clock: Clock,
}

/// The shard's own side. Made and used on its thread.
pub(crate) struct Shard {
    index: usize,
    settings: Settings,
    clock: Clock,
    common: Arc<Common>,
    handle: Arc<ShardHandle>,
    stats: Arc<ShardStats>,
    poller: Poller,
    listeners: Vec<Listener>,
    slab: slab::Slab,
    feeds: feed::Feeds,
    timers: timers::Timers,
    /// Where receives go; taken out while it is in use.
    buffer: Vec<u8>,
    shorts: Vec<Short>,
    joiner: fanout::Joiner,
    /// Connections that had more to do than one turn allows.
    later: Vec<ConnectionId>,
    /// Feeds whose log had more than one turn takes.
    again: Vec<u32>,
    /// Connections whose messages found no room among the events.
    stalled: Vec<ConnectionId>,
    is_draining: bool,
    is_stopping: bool,
    is_accept_paused: bool,
    /// Accepting failed for want of descriptors in this tick or the last.
    is_accept_starved: bool,
}

impl Shard {
    /// Makes the shard on its own thread.
    ///
    /// # Errors
    /// The system's, when poller or descriptors can't be had.
    pub(crate) fn new(index: usize, common: Arc<Common>, handle: Arc<ShardHandle>) -> io::Result<Self> {
        if common.settings.pins_shards {
            socket::pin_thread(index);
        }
        let poller = Poller::new(common.settings.poller)?;
        poller.epoll.add(handle.bell.fd(), BELL_TOKEN, Interest::Level)?;
        Ok(Self {
            index,
            settings: common.settings.clone(),
            clock: common.clock,
            common,
            stats: Arc::clone(&handle.stats),
            handle,
            poller,
            listeners: Vec::new(),
            slab: slab::Slab::default(),
            feeds: feed::Feeds::default(),
            timers: timers::Timers::default(),
            buffer: vec![0; BUFFER_BYTES],
            shorts: Vec::new(),
            joiner: fanout::Joiner::default(),
            later: Vec::new(),
            again: Vec::new(),
            stalled: Vec::new(),
            is_draining: false,
            is_stopping: false,
            is_accept_paused: false,
            is_accept_starved: false,
        })
    }

    pub(crate) fn poller_kind(&self) -> PollerKind {
        self.poller.kind()
    }

    /// The loop, until `Stop`.
    pub(crate) fn run(mut self) {
        let (mut ready, mut commands, mut moved) = (Vec::new(), Vec::new(), Vec::new());
        let mut expired = Vec::new();
        while !self.is_stopping {
            let has_more = !self.later.is_empty() || !self.again.is_empty();
            let may_sleep = self.handle.mailbox.park() && !has_more;
            self.poller.epoll.wait(&mut ready, if may_sleep { self.sleep_ms() } else { 0 });
            self.timers.begin_turn(self.clock.now_ns());
            self.handle.mailbox.take(&mut commands, &mut moved);
            commands.iter().for_each(|command| self.unsubscribe_early(command));
            // What moved before a command was given is fanned out before it is done: who subscribes after a
            // publication does not get it.
            self.fan_out_moved(&mut moved);
            for command in commands.drain(..) {
                self.obey(command);
            }
            for one in ready.drain(..) {
                self.serve(one);
            }
            for id in std::mem::take(&mut self.later) {
                if let Some(slot) = self.slot_of(id) {
                    self.pump(slot);
                    self.read_if_alive(id);
                }
            }
            let now_ns = self.clock.now_ns();
            if self.timers.is_due(now_ns) {
                self.timers.advance(now_ns, &mut expired);
                expired.drain(..).for_each(|slot| self.expire(slot));
                self.resume_accepting();
            }
        }
    }

    /// Without connections and troubles there is no deadline to look at.
    fn sleep_ms(&self) -> i32 {
        let has_deadlines = self.slab.count() > 0 || self.is_accept_paused || self.is_accept_starved;
        if has_deadlines { TICK.as_millis() as i32 } else { -1 }
    }

    fn fan_out_moved(&mut self, moved: &mut Vec<Arc<Watch>>) {
        let mut dirty = std::mem::take(&mut self.again);
        dirty.sort_unstable();
        dirty.dedup();
        let continued = dirty.len();
        for watch in moved.drain(..) {
            watch.dirty.clear();
            let feed = watch.feed.load(Ordering::Relaxed);
            if feed != u32::MAX && !dirty[..continued].contains(&feed) {
                dirty.push(feed);
            }
        }
        if !dirty.is_empty() {
            self.fan_out(&dirty, None);
        }
    }

    fn serve(&mut self, ready: Ready) {
        if ready.token == BELL_TOKEN {
            self.handle.bell.hush();
            return;
        }
        if ready.token & LISTENER_TOKENS != 0 {
            self.accept((ready.token & !LISTENER_TOKENS) as usize);
            return;
        }
        let (slot, generation) = ((ready.token & 0xFF_FFFF) as u32, (ready.token >> 24) as u32);
        let Some(slot) = self.slab.find(slot, generation) else { return };
        if ready.is_writable && self.slab.at(slot).is_blocked {
            self.pump(slot);
        }
        if ready.is_readable && self.slab.find(slot, generation).is_some() {
            self.read_on(slot, ready.is_ended);
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Listen(listener) => self.add_listener(listener),
            Command::Accept(id, watched) => self.with(id, |shard, slot| shard.accept_asked(slot, watched)),
            Command::Respond(id, status, content_type, body) => {
                self.with(id, |shard, slot| shard.respond_asked(slot, status, &content_type, &body));
            }
            Command::Subscribe(id, watched) => self.with(id, |shard, slot| shard.join(slot, watched)),
            Command::Unsubscribe(id, channel, _) => self.with(id, |shard, slot| shard.unsubscribe(slot, &channel)),
            Command::Send(id, frame) => self.with(id, |shard, slot| shard.send(slot, &frame)),
            Command::Disconnect(id, code, reason) => {
                self.with(id, |shard, slot| shard.close(slot, CloseCode(code), &reason));
            }
            Command::Acknowledge(id, count) => self.with(id, |shard, slot| shard.acknowledge(slot, count)),
            Command::Resume => {
                for id in std::mem::take(&mut self.stalled) {
                    self.with(id, Self::resume_reading);
                }
            }
            Command::ListChannels(id, reply) => {
                let names = self.slot_of(id).map(|slot| self.channels_of(slot)).unwrap_or_default();
                let _ = reply.send(names); // the asker may have given up
            }
            Command::Drain(code, reason) => self.drain(code, &reason),
            Command::Stop => self.is_stopping = true,
        }
    }

    fn with(&mut self, id: ConnectionId, act: impl FnOnce(&mut Self, u32)) {
        if let Some(slot) = self.slot_of(id) {
            act(self, slot);
        }
    }

    fn read_if_alive(&mut self, id: ConnectionId) {
        self.with(id, Self::read);
    }

    fn slot_of(&self, id: ConnectionId) -> Option<u32> {
        self.slab.find(id.slot(), id.generation())
    }

    fn id_of(&self, slot: u32) -> ConnectionId {
        let connection = self.slab.get(slot).expect("the caller looked it up");
        ConnectionId::new(self.index as u8, connection.format, connection.generation, slot)
    }

    fn obtain_channel(&self, name: &str) -> Result<Arc<Channel>, EngineError> {
        self.common.registry.obtain(name, &self.settings, self.clock.now_ns())
    }

    fn subscribe_by_name(&mut self, slot: u32, name: &str) -> Result<(), EngineError> {
        if self.common.registry.find(name).is_some_and(|channel| self.feed_of(slot, &channel).is_some()) {
            return Ok(());
        }
        let (count, bound) = (self.slab.at(slot).subscriptions.len(), self.settings.subscriptions_max);
        if count >= bound {
            let (value, bound) = (count as u64, bound as u64);
            return Err(EngineError::LimitReached { name: "subscriptions_max", value, bound });
        }
        let channel = self.obtain_channel(name)?;
        let format = self.slab.at(slot).format;
        self.join(slot, channel.watch(format, self.index));
        Ok(())
    }

    /// Makes a connection a subscriber from the cursor that was taken when it was asked for. Twice is once.
    fn join(&mut self, slot: u32, watched: Watched) {
        let mut feed = self.feeds.obtain(&watched.channel, watched.format, &watched.watch);
        let connection = self.slab.at(slot);
        let is_full = connection.subscriptions.len() >= self.settings.subscriptions_max;
        if !connection.is_live() || is_full || connection.find_feed(feed).is_some() {
            if is_full {
                let (name, bound) = (watched.channel.name(), self.settings.subscriptions_max);
                self.record(
                    30,
                    format!("{}: not subscribed to {name:?}: subscriptions_max is {bound}", self.id_of(slot)),
                );
            }
            self.feeds.forget_if_empty(feed);
            return;
        }
        if !std::mem::replace(&mut connection.is_registered, true) {
            let fd = std::os::fd::AsRawFd::as_raw_fd(&connection.fd);
            self.poller.register(slot, fd);
        }
        while self.feeds.get(feed).is_some_and(|target| target.cursor < watched.cursor) {
            self.fan_out(&[feed], None);
            if self.slab.get(slot).is_none_or(|connection| !connection.is_live()) {
                if self.feeds.get(feed).is_some() {
                    self.feeds.forget_if_empty(feed);
                }
                return;
            }
        }
        if self.feeds.get(feed).is_none() {
            // Its last member broke just now.
            feed = self.feeds.obtain(&watched.channel, watched.format, &watched.watch);
        }
        let is_at_tail = self.feeds.at(feed).cursor == watched.cursor && !self.slab.at(slot).is_blocked;
        self.feeds.join(&mut self.slab, slot, feed, watched.cursor, !is_at_tail);
        self.stats.subscriptions.add(1);
        self.feeds.at(feed).report();
        watched.keep();
        let target = self.feeds.at(feed);
        if target.cursor < target.channel.tail(target.format) {
            self.again.push(feed); // what came while it was on its way here
        }
        if !is_at_tail && !self.slab.at(slot).is_blocked {
            self.block(slot);
            self.pump(slot);
        }
    }

    /// Before anything else is fanned out: who unsubscribed gets what was published until then and nothing after.
    ///
    /// Done again in its order among the commands, for a subscription that one of them makes.
    fn unsubscribe_early(&mut self, command: &Command) {
        let Command::Unsubscribe(id, channel, tail) = command else { return };
        let (Some(slot), Some(format)) = (self.slot_of(*id), id.format()) else { return };
        let Some(feed) = self.feed_of(slot, channel) else { return };
        if self.feeds.at(feed).cursor < *tail && self.feeds.at(feed).format == format {
            self.fan_out(&[feed], Some(*tail));
        }
        self.with(*id, |shard, slot| shard.unsubscribe(slot, channel));
    }

    /// The feed through which a connection watches a channel.
    fn feed_of(&mut self, slot: u32, channel: &Arc<Channel>) -> Option<u32> {
        let feeds: SmallVec<[u32; 8]> = self.slab.at(slot).subscriptions.iter().map(|one| one.feed).collect();
        feeds.into_iter().find(|&feed| Arc::ptr_eq(&self.feeds.at(feed).channel, channel))
    }

    fn unsubscribe(&mut self, slot: u32, channel: &Arc<Channel>) {
        let Some(feed) = self.feed_of(slot, channel) else { return };
        if let Some(index) = self.slab.at(slot).find_feed(feed) {
            self.feeds.leave(&mut self.slab, slot, index);
            self.stats.subscriptions.sub(1);
        }
    }

    fn channels_of(&mut self, slot: u32) -> Vec<String> {
        let feeds: Vec<u32> = self.slab.at(slot).subscriptions.iter().map(|subscription| subscription.feed).collect();
        feeds.into_iter().map(|feed| self.feeds.at(feed).channel.name().to_owned()).collect()
    }

    fn send(&mut self, slot: u32, frame: &[u8]) {
        if self.slab.at(slot).is_live() {
            self.slab.at(slot).outbox.bytes_mut().extend_from_slice(frame);
            self.flush(slot);
        }
    }

    fn acknowledge(&mut self, slot: u32, count: u16) {
        let connection = self.slab.at(slot);
        connection.pending = connection.pending.saturating_sub(count);
        match connection.failure.take_if(|_| connection.pending == 0) {
            Some(failure) => self.fail(slot, failure.0, &failure.1),
            None => self.resume_reading(slot),
        }
    }

    /// A deadline has come.
    fn expire(&mut self, slot: u32) {
        let Some(connection) = self.slab.get_mut(slot) else { return };
        if let Some(failure) = connection.failure.take() {
            self.fail(slot, failure.0, &failure.1);
            return;
        }
        match connection.phase {
            Phase::Opening(ref partial) if partial.is_empty() && connection.unread.is_none() => {
                self.drop_connection(slot); // idle between requests
            }
            Phase::Opening(_) | Phase::Asked(_) => self.refuse_late(slot),
            Phase::Closing(_) | Phase::Ending => self.drop_connection(slot),
            Phase::Open(_) if connection.unread.is_some() => self.timers.set(slot, self.settings.ping_interval),
            Phase::Open(_) if connection.awaits_pong => {
                let seconds = self.settings.ping_timeout.as_secs_f64();
                self.close(slot, CloseCode::INTERNAL, &format!("no answer to a ping within {seconds} s"));
            }
            Phase::Open(_) => {
                connection.awaits_pong = true;
                write_header(connection.outbox.bytes_mut(), Opcode::Ping, 0);
                self.timers.set(slot, self.settings.ping_timeout);
                self.flush(slot);
            }
            Phase::Streaming if connection.is_blocked && connection.awaits_pong => {
                let seconds = self.settings.ping_timeout.as_secs_f64();
                self.close(slot, CloseCode::INTERNAL, &format!("took nothing for {seconds} s"));
            }
            Phase::Streaming if connection.is_blocked => {
                connection.awaits_pong = true; // until it takes something
                self.timers.set(slot, self.settings.ping_timeout);
            }
            Phase::Streaming => {
                connection.outbox.bytes_mut().extend_from_slice(crate::protocol::sse::KEEPALIVE);
                self.timers.set(slot, self.settings.ping_interval);
                self.flush(slot);
            }
        }
    }
}
