//! An engine whose shards take turns on this thread, its channels as plain lists, and its clients.
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::account::Account;
use super::client::Client;
use super::framework::Framework;
use super::list::List;
use super::press::{New, Press};
use super::promise::Losses;
use super::seating::Asked;
use super::sieve::Sieve;
use super::turn::Turn;
use super::wire::{self, Wire};
use crate::channel::{Origin, Policy, Start, View};
use crate::clock::Clock;
use crate::engine::{Engine, RUNNING};
use crate::messages::{Command, ConnectionId, Event, Progress, Released, Reply, Wanted};
use crate::position::Position;
use crate::routes::{self, Asks, OwnerId, Route, Transports};
use crate::settings::Settings;
use crate::shard::Shard;
use crate::shard::simulated::{Awake, Luck, Net, Seen, Simulated};

pub(super) const MS: u64 = 1_000_000;
/// A socket that takes everything.
pub(super) const ALL: usize = usize::MAX;
/// Turns after which everything is quiet, if nobody does anything.
const TURNS_MAX: usize = 2_000;

/// Where the clients connect.
const PATHS: [(&str, routes::Wire); 3] = [
    ("/ws", routes::Wire::WebSocket),
    ("/events", routes::Wire::EventStream),
    ("/hub", routes::Wire::SignalR(Transports::ALL)),
];

pub(super) struct World {
    /// What the owner of the paths is asked.
    asks: Asks,
    pub(super) press: Rc<Press>,
    pub(super) net: Rc<RefCell<Net>>,
    pub(super) shards: Vec<Shard<Simulated>>,
    pub(super) clients: Vec<Client>,
    pub(super) clock: &'static AtomicU64,
    /// Openings, and requests to subscribe, that the application has to decide on.
    pub(super) openings: Vec<(ConnectionId, Vec<String>, View)>,
    pub(super) requests: Vec<(ConnectionId, Vec<String>, Option<String>, Wanted)>,
    /// What the next client that connects filters by.
    pub(super) sieve: Option<Sieve>,
    /// Positions of some publications come from outside.
    pub(super) comes_from_outside: bool,
    /// What the next WebSocket offers of permessage-deflate.
    pub(super) offer: &'static str,
    pub(super) losses: Losses,
    /// Who has sockets that are adopted.
    pub(super) frameworks: Vec<Framework>,
    pub(super) broadcasts: usize,
    /// Adopted connections that were given up, until they are looked at.
    pub(super) released: Vec<(ConnectionId, Released)>,
    present: BTreeSet<(String, ConnectionId)>,
    tracked: Vec<Progress>,
    has_been_busy: bool,
}

impl World {
    /// Channels called c0, c1, …, with what the rules of the settings promise; the pollers write in batches, or one by one.
    pub(super) fn new(seed: u64, settings: Settings, asks: Asks, channels: usize, is_batch: bool) -> Self {
        let clock: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(1_000 * MS)));
        let shards = settings.shards;
        let mut engine = Engine::new(settings).expect("good settings");
        for (path, wire) in PATHS {
            let mut route = Route::new(path, wire, OwnerId(0)).expect("a path");
            route.asks = asks;
            engine.add_route(route).expect("it is free");
        }
        Arc::get_mut(&mut engine.common).expect("no shard has it yet").clock = Clock::Set(clock);
        engine.state.store(RUNNING, Ordering::Release);
        let list = |index: usize| {
            let name = format!("c{index}");
            let channel = engine.obtain(&name).expect("room");
            let (epoch, settings) = (channel.epoch(), *channel.settings());
            List { name, lives: vec![(epoch, 0)], all: Vec::new(), settings, is_snapshot_asked: false }
        };
        let lists = RefCell::new((0..channels).map(list).collect());
        let press = Rc::new(Press { engine, lists, clock, has_interfered: Cell::new(false) });
        let net = Rc::new(RefCell::new(Net::new(seed, clock, press.clone())));
        let shard = |index: usize| {
            let io = Simulated::new(index, &net, &press.engine.shards[index], is_batch);
            Shard::simulated(io, index, Arc::clone(&press.engine.common))
        };
        let shards = (0..shards).map(shard).collect();
        Self {
            asks,
            press,
            net,
            shards,
            clients: Vec::new(),
            clock,
            openings: Vec::new(),
            requests: Vec::new(),
            sieve: None,
            comes_from_outside: false,
            offer: "",
            losses: Losses::default(),
            frameworks: Vec::new(),
            broadcasts: 0,
            released: Vec::new(),
            present: BTreeSet::new(),
            tracked: Vec::new(),
            has_been_busy: false,
        }
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.press.engine
    }

    pub(super) fn publish(&mut self, channel: usize, new: &New) {
        self.press.publish(channel, new, false);
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.clock.fetch_add(ms * MS, Ordering::Relaxed);
    }

    /// A client connects, whose socket takes so many bytes at first; the query asks for these channels.
    pub(super) fn connect(
        &mut self,
        shard: usize,
        wire: Wire,
        room: usize,
        channels: &[usize],
        origin: Origin,
    ) -> usize {
        let (fd, serial) = {
            let mut net = self.net.borrow_mut();
            let fd = net.connect(room);
            let serial = net.sockets[&fd.as_raw_fd()].serial;
            (fd, serial)
        };
        let lists = self.press.lists.borrow();
        let names: Vec<&str> = channels.iter().map(|&channel| &*lists[channel].name).collect();
        // Who says where it was is told where it begins; a position of no channel is nowhere.
        let since = origin.since.unwrap_or(Position { epoch: 0, offset: 0 });
        let sieve = self.sieve.take();
        let filter = sieve.map(Sieve::json);
        let head = wire.offering(self.offer, &names, &[since], origin.start.map(Start::name), filter.as_deref());
        let origin = Origin { since: Some(since), start: origin.start };
        let mut client = Client::new(wire, fd.as_raw_fd(), serial, shard, origin);
        client.sieve = sieve;
        if !self.asks.opening {
            let asked = |&channel: &usize| Account::new(channel, Asked::by_turn(origin), true).filtered(sieve);
            client.accounts = channels.iter().map(asked).collect();
        }
        drop(lists);
        self.clients.push(client);
        let index = self.clients.len() - 1;
        self.engine().shards[shard].command(Command::HandOver(fd, head, None));
        index
    }

    /// A client of the raw protocol asks for a channel.
    pub(super) fn subscribe(&mut self, index: usize, channel: usize, origin: Origin) {
        let name = self.press.lists.borrow()[channel].name.clone();
        let since = origin.since.map(|since| (name.clone(), serde_json::json!([since.epoch, since.offset])));
        let since: serde_json::Map<_, _> = since.into_iter().collect();
        let mut request = serde_json::json!({ "subscribe": [name], "since": since, "id": channel });
        if let Some(start) = origin.start {
            request["start"] = start.name().into();
        }
        let sieve = self.clients[index].sieve;
        if let Some(sieve) = sieve {
            request["filter"] = serde_json::from_str(&sieve.json()).expect("JSON");
        }
        if self.asks.subscribing {
            self.clients[index].asking.push(channel);
        } else {
            let account = Account::new(channel, Asked::by_turn(origin), true).filtered(sieve);
            self.clients[index].accounts.push(account);
        }
        self.arrive(index, &wire::frame(1, request.to_string().as_bytes()));
    }

    pub(super) fn arrive(&mut self, index: usize, bytes: &[u8]) {
        let client = &self.clients[index];
        self.net.borrow_mut().arrive(client.fd, bytes);
    }

    /// From where somebody may want to begin: with the policy's start or another one, from what is kept, or what never was.
    pub(super) fn origin(&self, channel: usize, luck: &mut Luck) -> Origin {
        let list = &self.press.lists.borrow()[channel];
        let Position { epoch, offset } = list.position();
        let accounts = self.clients.iter().flat_map(|client| &client.accounts).filter(|one| one.channel == channel);
        let known: Vec<u64> = accounts.filter_map(|account| account.last_offset(list)).collect();
        let since = match luck.below(11) {
            0..4 => None,
            4..7 if !known.is_empty() => Some(list.position_of(luck.pick(&known))),
            4..9 => Some(Position { epoch, offset: offset.saturating_sub(luck.below(30) as u64) }),
            9 => Some(Position { epoch, offset: offset + 1 }),
            _ => Some(Position { epoch: epoch - 1, offset }),
        };
        let start = if luck.once_in(3) { None } else { Some(luck.pick(&Start::ALL)) };
        Origin { since, start }
    }

    /// The application subscribes a client, to what is published from now on.
    pub(super) fn subscribe_by_application(&mut self, index: usize, channel: usize) {
        let Some(id) = self.clients[index].id else { return };
        let origin = Origin { since: None, start: Some(Start::Live) };
        let asked = self.asked_now(channel, origin);
        let name = self.press.lists.borrow()[channel].name.clone();
        let sieve = self.clients[index].sieve;
        self.engine().subscribe(id, (&*name, Sieve::view(sieve)), origin).expect("room");
        self.clients[index].accounts.push(Account::new(channel, asked, false).filtered(sieve));
    }

    fn asked_now(&self, channel: usize, origin: Origin) -> Asked {
        let list = &self.press.lists.borrow()[channel];
        Asked { origin, place: list.all.len(), offset: list.offset(), is_by_turn: false }
    }

    pub(super) fn unsubscribe(&mut self, index: usize, channel: usize) {
        let (name, length) = {
            let list = &self.press.lists.borrow()[channel];
            (list.name.clone(), list.all.len())
        };
        let id = self.clients[index].id.expect("it was seen");
        self.engine().unsubscribe(id, &name).expect("a good name");
        if let Some(account) = self.clients[index].account(channel) {
            account.until = length;
            if let Some(promise) = &mut account.promise {
                promise.until = length;
            }
        }
    }

    /// The application has no keyframe to give.
    pub(super) fn give_up(&mut self, channel: usize) {
        let name = {
            let list = &mut self.press.lists.borrow_mut()[channel];
            list.is_snapshot_asked = false;
            list.name.clone()
        };
        self.engine().give_up_snapshot(&name, "there is no keyframe to be had").expect("it runs");
        let accounts = self.clients.iter_mut().flat_map(|client| &mut client.accounts);
        for account in accounts.filter(|one| one.channel == channel && !one.is_over) {
            (account.may_give_up, account.has_given_up) = (true, true);
        }
    }

    /// The application decides on what it was asked.
    pub(super) fn decide(&mut self) {
        for (id, names, view) in std::mem::take(&mut self.openings) {
            let Some(index) = self.index_of(id) else { continue };
            let chosen = names.iter().map(|name| (name.as_str(), view.clone()));
            self.engine().accept(id, chosen, None, Reply::default()).expect("room");
            let origin = self.clients[index].opening_origin;
            self.account_for(index, &names, |_| origin);
        }
        for (id, names, request, wanted) in std::mem::take(&mut self.requests) {
            let Some(index) = self.index_of(id) else { continue };
            let named = wanted.clone();
            let since = |name: &str| named.since.iter().find(|one| one.0.as_deref() == Some(name)).map(|one| one.1);
            self.account_for(index, &names, |name| Origin { since: since(name), start: named.start });
            let chosen = names.iter().map(|name| (name.as_str(), wanted.view.clone())).collect::<Vec<_>>();
            self.engine().grant(id, chosen, request.as_deref(), None, wanted).expect("it runs");
        }
    }

    fn account_for(&mut self, index: usize, names: &[String], origin: impl Fn(&str) -> Origin) {
        for name in names {
            let found = self.press.lists.borrow().iter().position(|list| list.name == *name);
            let channel = found.expect("it was asked for by name");
            self.clients[index].asking.retain(|&one| one != channel);
            let asked = self.asked_now(channel, origin(name));
            let sieve = self.clients[index].sieve;
            self.clients[index].accounts.push(Account::new(channel, asked, true).filtered(sieve));
        }
    }

    fn index_of(&self, id: ConnectionId) -> Option<usize> {
        let is_it = |client: &Client| !client.is_gone && client.id.is_some_and(|known| known == id);
        self.clients.iter().position(is_it)
    }

    /// One shard's turn, if it has a reason to be awake. False if nothing is to be done.
    pub(super) fn turn(&mut self, shard: usize) -> bool {
        let Some(has_run) = self.give_turn(shard) else { return false };
        if has_run {
            self.look(shard);
            self.round_time();
        }
        true
    }

    /// The same, and nobody looks at what came of it: whether it ran, or `None` if nothing is to be done.
    pub(super) fn give_turn(&mut self, shard: usize) -> Option<bool> {
        let why = self.shards[shard].io_mut().why_awake()?;
        self.shards[shard].io_mut().asleep_until_ns = None;
        self.shards[shard].wait();
        if why == Awake::New && self.shards[shard].io_mut().asleep_until_ns.is_some() {
            return self.shards[shard].io_mut().why_awake().map(|_| false); // the kernel may be slow to tell
        }
        self.shards[shard].io_mut().asleep_until_ns = None;
        self.press.has_interfered.set(false);
        self.shards[shard].turn();
        Some(true)
    }

    /// Between two turns time is whole.
    pub(super) fn round_time(&mut self) {
        let mut net = self.net.borrow_mut();
        let drift_ns = std::mem::take(&mut net.drift_ns);
        if drift_ns > 0 {
            net.clock.fetch_add(MS - drift_ns, Ordering::Relaxed);
        }
    }

    fn look(&mut self, shard: usize) {
        let seen = self.shards[shard].look();
        let seats = Shard::take_seats();
        self.take_events();
        let now_ns = self.now_ns();
        let mut released = Vec::new();
        let clients = self.clients.iter_mut().enumerate();
        for (index, client) in clients.filter(|one| one.1.shard == shard && !one.1.is_gone) {
            let why = self.released.iter().position(|one| client.hold.is_some() && Some(one.0) == client.id);
            let why = why.map(|at| self.released.remove(at).1);
            let is_it = |seen: &&Seen| match client.hold {
                Some(_) => Some(seen.id) == client.id,
                None => seen.fd == Some(client.fd),
            };
            let is_written = client.hold.as_ref().is_none_or(|hold| hold.has_begun);
            let is_slow = client.hold.as_ref().is_some_and(|hold| hold.is_asked || hold.is_mid_message);
            let mut net = self.net.borrow_mut();
            let socket = net.sockets.get_mut(&client.fd).filter(|socket| socket.serial == client.serial);
            let socket = socket.expect("it is looked at before its number is used again");
            client.may_end |= socket.is_reset;
            let turn = Turn {
                lists: &self.press.lists.borrow(),
                now_ns,
                is_busy: self.press.has_interfered.get(),
                seen: seen.iter().find(is_it),
                taken: if is_written { std::mem::take(&mut socket.taken) } else { Vec::new() },
                took: if is_written { std::mem::take(&mut socket.took) } else { Vec::new() },
                came_short: !is_written || std::mem::take(&mut socket.came_short) || is_slow,
                released: why.as_ref(),
                seats: seats
                    .iter()
                    .filter(|one| Some(one.0) == client.id)
                    .map(|one| (one.1.clone(), one.2, one.3))
                    .collect(),
                is_half_closed: socket.is_half_closed,
                is_reset: socket.is_reset || (client.hold.is_some() && socket.is_shut),
                close_timeout_ns: self.press.engine.common.settings.close_timeout.as_nanos() as u64,
            };
            let is_shut = if client.hold.is_some() { why.is_some() } else { socket.is_shut };
            drop(net);
            client.note(&turn, is_shut, &mut self.losses);
            released.extend(why.map(|why| (index, why)));
        }
        assert!(self.released.is_empty(), "{:?} was given up twice", self.released);
        self.has_been_busy |= self.press.has_interfered.get();
        self.check_deliveries();
        for (index, why) in released {
            self.let_go(index, &why);
        }
        for framework in 0..self.frameworks.len() {
            self.check_untouched(framework);
        }
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    /// Frames are counted once they are begun.
    fn check_deliveries(&self) {
        let is_unsure = |client: &Client| client.is_gone || client.is_ending() || client.is_cut();
        if self.has_been_busy || self.clients.iter().any(is_unsure) {
            return; // of what was in the midst of it, or has left the log meanwhile, some counts and some does not
        }
        let received: u64 = self.clients.iter().map(|client| client.publications).sum();
        let counted: u64 = self.engine().shards.iter().map(|shard| shard.stats.deliveries.get()).sum();
        assert_eq!(counted, received, "deliveries");
    }

    pub(super) fn take_events(&mut self) {
        for event in self.press.engine.take_events(10_000) {
            match event {
                Event::Opening(whose, request) => {
                    self.openings.push((whose.connection, request.channels, request.view));
                }
                Event::Subscribing(whose, names, request, wanted) => {
                    self.requests.push((whose.connection, names, request, wanted));
                }
                Event::SnapshotWanted(name, _) => {
                    let mut lists = self.press.lists.borrow_mut();
                    let list = lists.iter_mut().find(|list| list.name == name).expect("a channel's");
                    assert!(!std::mem::replace(&mut list.is_snapshot_asked, true), "it was asked twice");
                }
                Event::Presence(visits) => {
                    for visit in visits.iter() {
                        let key = (visit.channel.name().to_owned(), visit.connection);
                        let is_new =
                            if visit.has_joined { self.present.insert(key) } else { self.present.remove(&key) };
                        assert!(is_new, "{visit:?} was told before");
                    }
                }
                Event::Progress(progress) => {
                    let of = |one: &Progress| (one.token, one.part);
                    self.tracked.retain(|one| of(one) != of(&progress));
                    self.tracked.push(progress);
                }
                Event::Released(whose, why) => self.released.push((whose.connection, why)),
                Event::Drained(whose) => {
                    let client = self.clients.iter_mut().find(|one| one.id == Some(whose.connection));
                    let hold = client.and_then(|client| client.hold.as_deref_mut()).expect("an adopted one");
                    let below = hold.wants.take().expect("nobody wants to know");
                    assert!(hold.waiting() <= below, "{} wait", hold.waiting());
                }
                Event::Record(level, text) => assert!(level < 30, "{text}"),
                _ => {}
            }
        }
    }

    /// Turns until nothing is to be done: whoever is asleep and should not be shows here.
    pub(super) fn settle(&mut self) {
        self.engine().flush();
        for _ in 0..TURNS_MAX {
            let mut is_quiet = true;
            for shard in 0..self.shards.len() {
                is_quiet &= !self.turn(shard);
            }
            if is_quiet {
                return;
            }
        }
        panic!("it is never quiet");
    }

    /// Everyone reads all.
    pub(super) fn catch_up(&mut self) {
        for _ in 0..3 {
            self.finish_frameworks();
            self.decide();
            for index in 0..self.clients.len() {
                self.answer(index);
                self.make_room(index, ALL);
            }
            self.settle();
        }
        let lists = self.press.lists.borrow();
        let is_there = |client: &&Client| client.is_open && !client.is_gone && !client.is_ending();
        for client in self.clients.iter().filter(is_there).filter(|client| client.is_reachable()) {
            assert!(!client.is_cut(), "it has read everything");
            for account in client.accounts.iter().filter(|account| !account.is_over) {
                account.check_caught_up(&lists[account.channel], client.wire == Wire::Sse);
            }
        }
        let waits = self.clients.iter().flat_map(|client| &client.accounts).any(Account::is_lagging);
        assert!(waits || self.tracked.iter().all(|progress| progress.behind == 0), "{:?}", self.tracked);
    }

    /// The client sends what it owes: pongs, and the answer to a close, behind which it goes.
    pub(super) fn answer(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let replies = std::mem::take(&mut client.replies);
        if client.is_gone || (replies.is_empty() && !client.is_ending()) {
            return;
        }
        let is_ending = client.is_ending() && (client.wire == Wire::Sse || !replies.is_empty());
        for reply in replies {
            self.arrive(index, &reply);
        }
        if is_ending {
            self.end(index, false);
        }
    }

    pub(super) fn end(&mut self, index: usize, is_reset: bool) {
        let client = &mut self.clients[index];
        client.may_end = true;
        self.net.borrow_mut().end(client.fd, is_reset);
    }

    pub(super) fn set_room(&mut self, index: usize, bytes: usize) {
        self.net.borrow_mut().set_room(self.clients[index].fd, bytes);
    }

    /// Nothing is on its way of which a publication in the midst of a write would make something else.
    pub(super) fn is_calm(&self) -> bool {
        let net = self.net.borrow();
        let is_read = |client: &Client| client.is_gone || net.sockets[&client.fd].inbound.is_empty();
        self.openings.is_empty()
            && self.requests.is_empty()
            && self.clients.iter().all(|client| client.is_calm() && is_read(client))
    }

    pub(super) fn make_room(&mut self, index: usize, bytes: usize) {
        let client = &self.clients[index];
        if !client.is_gone && bytes > 0 {
            self.net.borrow_mut().make_room(client.fd, bytes);
        }
    }

    /// After everyone has read all, and one more; then everyone leaves: nothing is kept but what was asked for.
    pub(super) fn check_end(&mut self) {
        for _ in 0..2 {
            self.catch_up();
            let channels = self.press.lists.borrow().len();
            for channel in 0..channels {
                let plain = New { key: None, ..New::plain(0) };
                self.publish(channel, &plain);
            }
        }
        let names: Vec<String> = self.press.lists.borrow().iter().map(|list| list.name.clone()).collect();
        for (index, name) in names.iter().enumerate() {
            let channel = self.engine().obtain(name).expect("it exists");
            let mut accounts = self.clients.iter().flat_map(|client| &client.accounts);
            channel.check_memory(accounts.any(|one| one.channel == index && one.holds_back()));
        }
        self.catch_up();
        self.check_counts();
        for index in 0..self.clients.len() {
            if !self.clients[index].is_gone {
                self.end(index, true);
            }
        }
        self.settle();
        self.pass(200);
        self.settle();
        self.close_frameworks();
        for shard in &self.shards {
            shard.check_empty();
        }
        let stats = self.engine().stats();
        assert_eq!((stats.connections, stats.subscriptions, stats.lagging), (0, 0, 0));
        assert!(self.present.is_empty(), "{:?}", self.present);
        for name in &names {
            self.engine().obtain(name).expect("it exists").check_left();
        }
        assert!(self.net.borrow().sockets.values().all(|socket| socket.is_shut), "a socket is left");
    }

    fn check_counts(&self) {
        let stats = self.engine().stats();
        assert_eq!(stats.bytes_out, self.net.borrow().bytes_out);
        for policy in [Policy::Keyframe, Policy::Drop] {
            let (at, skipped) = (policy as usize, stats.skipped[policy as usize]);
            let (min, max) = (self.losses.min[at], self.losses.max[at]);
            assert!(min <= skipped && skipped <= max, "{skipped} skipped of {policy:?}, {min} to {max} are lost");
        }
    }
}
