//! One thread, its own connections, and the kernel as a parameter: the loop and nothing else.
//!
//! A turn: take what other threads left in the mailbox, fan out what moved, do commands, serve ready sockets, look at the
//! deadlines; then wait.
//!
//! What the shard has stands in leaves, which know no shard: `io` (what is asked of the kernel), `poller` (the kernel),
//! `shared` (with other threads), `transport`, `connection`, `slab`, `feed`, `timers`, `joiner`, `sampling`, `presence`,
//! `sweeping` (idle channels), `guests` (requests of other workers), `numbers` (of slots), `spoken` (what a connection may come to speak), `event_ids`, `answers`. What it does stands in rooms, each of them `impl Shard`: `commands`,
//! `acceptor`, `opening` (HTTP), `query`, `inbound` (bytes and silence), `subscribing`, `signalr`, `fanout` (fast path),
//! `lagging` (slow path), `tracking` (how far it came), `closing`, `adopting` (who is read by others), `looking` (what an operator asks). Rooms name leaves and this file, which names no room.
//! `simulated` is the kernel of tests.
mod acceptor;
mod adopting;
mod answers;
mod closing;
mod coding;
mod commands;
mod connection;
mod event_ids;
mod fanout;
mod feed;
mod guests;
mod gzipping;
mod inbound;
mod io;
mod joiner;
mod lagging;
mod looking;
mod numbers;
mod opening;
mod poller;
mod presence;
mod query;
mod requests;
mod sampling;
mod shared;
mod signalr;
mod slab;
mod spoken;
mod subscribing;
mod sweeping;
mod timers;
mod tracking;
mod transport;
mod waiting;

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use io::{Interest, Io, Ready, Short};
pub(crate) use shared::{Common, Readiness, ShardHandle};

use crate::channel::{Channel, Origin, Tails, Watch, Watched};
use crate::clock::{Clock, NO_TICK, start_of, ticks};
use crate::error::EngineError;
use crate::listening::Listener;
use crate::messages::{Command, ConnectionId, Event, Released, Whose};
use crate::protocol::{Format, Formats};
use crate::routes::Routes;
use crate::settings::{PollerKind, Settings};
use crate::socket;
use crate::stats::ShardStats;
pub(crate) use poller::Poller;

/// Tokens of listeners and of the bell have a slot part that no connection has.
const LISTENER_TOKENS: u64 = 1 << 63;
const BELL_TOKEN: u64 = u64::MAX;
/// What one receive may give.
const BUFFER_BYTES: usize = 64 << 10;
/// Ticks that a shard sleeps at most that watches a listener of several: so long may a connection wait that nobody was told of.
/// A step of the timers: both have a shard wake at the same time.
const LOOK_TICKS: u32 = timers::STEP_MAX;
/// Serving peers takes so long a turn: what is published meanwhile goes out before it goes on.
const SERVING_NS: u64 = 250_000;

/// The shard's own side. Made and used on its thread.
pub(crate) struct Shard<I: Io> {
    index: usize,
    settings: Settings,
    /// As of the last request; see [`Shard::routes`].
    routes: Arc<Routes>,
    clock: Clock,
    common: Arc<Common>,
    handle: Arc<ShardHandle>,
    stats: Arc<ShardStats>,
    io: I,
    listeners: Vec<Listener>,
    slab: slab::Slab,
    feeds: feed::Feeds,
    timers: timers::Timers,
    /// Where receives go; taken out while it is in use.
    buffer: Vec<u8>,
    /// Who is ready.
    ready: Vec<Ready>,
    /// How many of them had their turn.
    served: usize,
    /// What the mailbox gave; both are empty between two turns.
    commands: Vec<Command>,
    moved: Vec<Arc<Watch>>,
    /// Of the commands that are yet to be done: who leaves which channel, and up to where what stood there is for it.
    unsubscribing: Vec<(ConnectionId, Arc<Channel>, Tails)>,
    /// Who leaves which channel by a command of its own client's that this shard has left itself, and has yet to do.
    leaving_behind: Vec<(ConnectionId, Arc<Channel>)>,
    /// Of what this turn does: what is asked of adopted connections that it has yet to take.
    orders_ahead: BTreeMap<ConnectionId, u32>,
    shorts: Vec<Short>,
    joiner: joiner::Joiner,
    /// When the turn has served peers for long enough.
    serves_until_ns: u64,
    /// Connections that had more to do than one turn allows; some may have ended since.
    later: Vec<ConnectionId>,
    /// Feeds whose log had more than one turn takes.
    again: Vec<u32>,
    /// Feeds to whose tails somebody has come who could read a compressed log.
    uncoded: Vec<u32>,
    /// Connections with a subscription that is to go on in a log whose frames may be skipped.
    falling: Vec<ConnectionId>,
    /// Connections whose messages found no room among the events.
    stalled: Vec<ConnectionId>,
    /// SignalR connections to be pinged in this turn.
    pinged: Vec<(Format, u32)>,
    /// Events wait of which the application need not know before the next tick.
    has_told_quietly: bool,
    /// Who came and went since the last tick, in channels that tell it.
    presence: presence::Visits,
    sweep: sweeping::Sweep,
    /// Publications of which somebody asks how far they have come.
    tracked: Vec<sampling::Tracked>,
    /// By slot, of SignalR connections that have not shaken hands: subscriptions that begin then, in the format it says.
    held: BTreeMap<u32, Vec<(Watched, Origin)>>,
    /// By slot, of sockets whose other end is not the client: where that one is, as the application is told.
    clients_elsewhere: BTreeMap<u32, Box<str>>,
    /// Requests that other workers have passed on.
    guests: guests::Guests,
    /// What is read now is not to be passed on: nobody else has its connection.
    is_settled: bool,
    /// Connections that no fan-out writes to: those that poll, whose messages have numbers, or whose events have ids of their
    /// own.
    one_by_one: usize,
    is_draining: bool,
    /// Whom a drain, or a path that is removed, has yet to close.
    leaving: Vec<timers::Leaving>,
    /// Whom it has yet to answer and then close.
    late: Option<timers::Latecomers>,
    is_stopping: bool,
    is_accept_paused: bool,
    has_hinted_at_comma: bool,
    /// The tick of the next look at listeners that others watch, too.
    looks_at: u32,
    /// Accepting failed for want of descriptors in this tick or the last.
    is_accept_starved: bool,
    /// Descriptors from this on are left for others.
    spare_from: RawFd,
    /// Somebody offered subprotocols of which none was chosen, and Python's log says so.
    has_told_of_subprotocols: bool,
}

impl Shard<Poller> {
    /// Makes the shard on its own thread, with the poller that the settings say.
    ///
    /// # Errors
    /// The system's, when poller or descriptors can't be had.
    pub(crate) fn new(index: usize, common: Arc<Common>, handle: Arc<ShardHandle>) -> std::io::Result<Self> {
        if common.settings.pins_shards {
            socket::pin_thread(index);
        }
        Self::over(Poller::new(common.settings.poller)?, index, common, handle)
    }

    pub(crate) fn poller_kind(&self) -> PollerKind {
        self.io.kind()
    }
}

impl<I: Io> Drop for Shard<I> {
    /// Ends who is still connected, however the shard ends: a forked child may hold the descriptors, too.
    fn drop(&mut self) {
        for slot in self.slab.in_use() {
            if self.is_adopted(slot) {
                self.give_up(slot, Released::Aborted);
            } else if let Some(fd) = &self.slab.at(slot).transport.fd {
                self.io.shut_down(fd.as_raw_fd());
            }
        }
    }
}

impl<I: Io> Shard<I> {
    /// Makes a shard over the kernel, or what stands for it.
    ///
    /// # Errors
    /// The system's, when its bell cannot be watched.
    fn over(mut io: I, index: usize, common: Arc<Common>, handle: Arc<ShardHandle>) -> std::io::Result<Self> {
        io.watch(handle.bell.fd(), BELL_TOKEN, Interest::Level)?;
        let numbers = Arc::clone(&handle.numbers);
        Ok(Self {
            index,
            spare_from: socket::spare_from(common.settings.descriptors_spare),
            settings: common.settings.clone(),
            routes: Arc::default(),
            clock: common.clock,
            common,
            stats: Arc::clone(&handle.stats),
            handle,
            io,
            listeners: Vec::new(),
            slab: slab::Slab::new(numbers),
            feeds: feed::Feeds::default(),
            timers: timers::Timers::default(),
            buffer: vec![0; BUFFER_BYTES],
            ready: Vec::new(),
            served: 0,
            commands: Vec::new(),
            moved: Vec::new(),
            unsubscribing: Vec::new(),
            leaving_behind: Vec::new(),
            orders_ahead: BTreeMap::new(),
            shorts: Vec::new(),
            joiner: joiner::Joiner::default(),
            serves_until_ns: 0,
            later: Vec::new(),
            again: Vec::new(),
            uncoded: Vec::new(),
            falling: Vec::new(),
            stalled: Vec::new(),
            pinged: Vec::new(),
            has_told_quietly: false,
            presence: presence::Visits::default(),
            sweep: sweeping::Sweep::default(),
            tracked: Vec::new(),
            held: BTreeMap::new(),
            clients_elsewhere: BTreeMap::new(),
            guests: guests::Guests::default(),
            is_settled: false,
            one_by_one: 0,
            is_draining: false,
            leaving: Vec::new(),
            late: None,
            is_stopping: false,
            is_accept_paused: false,
            has_hinted_at_comma: false,
            has_told_of_subprotocols: false,
            is_accept_starved: false,
            looks_at: 0,
        })
    }

    /// The loop, until `Stop`.
    pub(crate) fn run(mut self) {
        while !self.is_stopping {
            self.wait();
            self.turn();
        }
    }

    /// Until there is something to do, unless something is left of the last turn.
    pub(crate) fn wait(&mut self) {
        if self.served < self.ready.len() {
            return;
        }
        self.ready.clear();
        self.served = 0;
        let has_more = !self.later.is_empty() || !self.again.is_empty() || self.sweep.has_more();
        let may_sleep = self.handle.mailbox.park() && !has_more;
        let timeout_ms = if may_sleep { self.sleep_ms() } else { 0 };
        self.io.wait(&mut self.ready, timeout_ms);
    }

    /// Does what there is to do.
    pub(crate) fn turn(&mut self) {
        self.timers.begin_turn(self.clock.now_ns());
        let (mut commands, mut moved) = (std::mem::take(&mut self.commands), std::mem::take(&mut self.moved));
        // What is told to one client and then published to all comes in this order, and the other way round. If
        // something else moves at the same time, what moved is first.
        let ahead = self.handle.mailbox.take(&mut commands, &mut moved);
        self.begin_serving();
        self.note_unsubscribing(&commands);
        self.note_orders(&commands);
        self.obey_early(commands.drain(..ahead));
        // A subscription that is over already must not see what was published behind it.
        if let Some(last) = commands.iter().rposition(|command| self.ends_what_has_not_begun(command)) {
            self.obey_early(commands.drain(..=last));
        }
        for command in &commands {
            self.unsubscribe_early(command);
            self.track_early(command);
        }
        self.fan_out_moved(&mut moved);
        for command in commands.drain(..) {
            self.obey(command);
        }
        (self.commands, self.moved) = (commands, moved);
        self.orders_ahead.clear();
        self.begin_serving();
        while self.served < self.ready.len() && !self.has_served_enough() {
            self.served += 1;
            self.serve(self.ready[self.served - 1]);
        }
        self.serve_later();
        self.tick();
        let uncoded = std::mem::take(&mut self.uncoded);
        self.settle_codings(uncoded.into_iter());
        if !self.pinged.is_empty() {
            self.ping_together();
        }
        self.sweep.go_on(self.common.registries(), self.clock.now_ns());
        if !self.tracked.is_empty() {
            self.report_tracked();
        }
        let (timers, clients) = (&mut self.timers, &mut self.clients_elsewhere);
        self.slab.release(|slot| {
            timers.clear(slot);
            clients.remove(&slot);
        });
    }

    /// Looks at the deadlines, if a tick has begun since the last time.
    fn tick(&mut self) {
        let now_ns = self.clock.now_ns();
        if self.timers.is_due(now_ns) {
            for slot in self.timers.advance(now_ns) {
                self.expire(slot);
            }
            self.tell_presence();
            if std::mem::take(&mut self.has_told_quietly) {
                self.common.events.wake();
            }
            self.go_on_draining();
            self.resume_accepting();
            if self.timers.tick() >= self.looks_at {
                self.looks_at = (self.timers.tick() + 1).next_multiple_of(LOOK_TICKS);
                self.look_at_shared_listeners();
            }
            if self.has_to_sweep() {
                self.sweep.plan(self.common.registries(), self.timers.tick());
            } else {
                self.sweep.rest();
            }
        }
    }

    /// Does commands before anything is fanned out.
    fn obey_early(&mut self, commands: impl Iterator<Item = Command>) {
        for command in commands {
            self.track_early(&command);
            self.obey(command);
        }
    }

    /// Until the next tick at which there may be something to do; for ever where nobody's time runs.
    fn sleep_ms(&self) -> i32 {
        let (tick, mut until) = (self.timers.tick(), self.timers.next());
        let is_leaving = self.is_draining || !self.leaving.is_empty() || self.late.is_some();
        let has_told = !self.presence.is_empty() || self.has_told_quietly;
        if is_leaving || has_told || self.is_accept_paused || self.is_accept_starved {
            until = until.min(tick + 1);
        }
        if self.has_shared_listener() {
            until = until.min(self.looks_at);
        }
        if self.has_to_sweep() {
            until = until.min(tick + ticks(sweeping::PAUSE));
        }
        if until == NO_TICK {
            return -1;
        }
        let wait_ns = start_of(until).saturating_sub(self.clock.now_ns());
        i32::try_from(wait_ns.div_ceil(1_000_000)).unwrap_or(i32::MAX)
    }

    /// Whether this shard has channels to look at from time to time.
    fn has_to_sweep(&self) -> bool {
        self.index == 0 && self.common.registries().iter().any(|registry| registry.count() > 0)
    }

    fn fan_out_moved(&mut self, moved: &mut Vec<Arc<Watch>>) {
        let mut dirty = std::mem::take(&mut self.again);
        dirty.sort_unstable();
        dirty.dedup();
        let continued = dirty.len();
        for watch in moved.drain(..) {
            let feed = watch.feed.load(Ordering::Relaxed);
            if feed == u32::MAX {
                // It may be a client's that takes its time to shake hands, or to read what comes before: nobody waits for it.
                watch.pass_by();
            } else if !dirty[..continued].contains(&feed) {
                dirty.push(feed);
            }
        }
        if !dirty.is_empty() {
            self.fan_out(&dirty, None);
        }
    }

    fn begin_serving(&mut self) {
        self.serves_until_ns = self.clock.now_ns() + SERVING_NS;
    }

    /// Whether what is left has to wait for the next turn.
    fn has_served_enough(&self) -> bool {
        self.clock.now_ns() >= self.serves_until_ns
    }

    /// Goes on with those that had more to do; who comes again stands behind the others.
    fn serve_later(&mut self) {
        self.begin_serving();
        let mut waiting = std::mem::take(&mut self.later).into_iter();
        for id in waiting.by_ref() {
            if let Some(slot) = self.slot_of(id) {
                self.pump(slot);
                self.go_on_reading(id);
            }
            if self.has_served_enough() {
                break;
            }
        }
        let again = std::mem::replace(&mut self.later, waiting.collect());
        self.later.extend(again);
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
        if ready.is_writable && self.slab.at(slot).transport.is_blocked {
            self.pump(slot);
        }
        if self.is_adopted(slot) {
            return self.end_adopted(slot, ready);
        }
        if ready.is_readable && self.slab.find(slot, generation).is_some() {
            self.read_on(slot, ready.is_ended);
        }
        if ready.is_ended && self.slab.find(slot, generation).is_some_and(|slot| self.waits_for_a_stream(slot)) {
            self.end_of_stream(slot); // it stands behind what is not read, and tells only once
        }
        if ready.is_over
            && self.slab.find(slot, generation).is_some_and(|slot| self.slab.at(slot).transport.unread.is_some())
        {
            // One that is not read from, while its messages wait, is gone all the same.
            self.break_off(slot, libc::ECONNRESET);
        }
    }

    fn with(&mut self, id: ConnectionId, act: impl FnOnce(&mut Self, u32)) {
        if let Some(slot) = self.slot_of(id) {
            act(self, slot);
        }
    }

    /// Tells the application something for which nobody waits: with what else there is, or in the next tick.
    fn tell_quietly(&mut self, event: Event) {
        self.common.events.push_quietly(self.index, event);
        self.has_told_quietly = true;
    }

    fn go_on_reading(&mut self, id: ConnectionId) {
        self.with(id, |shard, slot| match shard.slab.at(slot).transport.unread {
            Some(_) => shard.resume_reading(slot),
            None => shard.read(slot),
        });
    }

    fn slot_of(&self, id: ConnectionId) -> Option<u32> {
        self.slab.find(id.slot(), id.generation())
    }

    fn id_of(&self, slot: u32) -> ConnectionId {
        ConnectionId::new(self.settings.worker, self.index as u8, self.slab.generation_at(slot), slot)
    }

    /// A connection may come to speak these, from now on.
    fn note_formats(&self, slot: u32, formats: Formats) {
        self.handle.spoken.set(self.id_of(slot), formats);
    }

    /// Which path is whose, now.
    fn routes(&mut self) -> &Routes {
        self.common.routes.refresh(&mut self.routes);
        &self.routes
    }

    /// A connection that has been read from, and whose it is.
    fn whose(&self, slot: u32) -> Whose {
        let route = self.slab.get(slot).and_then(|connection| connection.route.as_ref());
        Whose { connection: self.id_of(slot), owner: route.map(|route| route.owner).unwrap_or_default() }
    }

    fn obtain_channel(&self, name: &str) -> Result<Arc<Channel>, EngineError> {
        self.common.registry.obtain_to_watch(name, &self.settings, self.clock.now_ns())
    }
}

// The kernel of tests. Here, behind all that is no test.
#[cfg(test)]
pub(crate) mod simulated;
