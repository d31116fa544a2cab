//! Several workers and the sequencer: real engines over simulated kernels, joined by links that a seed delays.
//!
//! Each link is in order, and any of them may be ahead of the others. Workers are lost and others come; the clients of one
//! that is lost come back to another with their positions. What each client got is compared with what the sequencer ordered.
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::audiences::{AUDIENCES, Direct, HUB, Ordered, user_of};
use super::wire::{self, Wire};
use super::world::{ALL, MS, World};
use crate::channel::{Pattern, Policy, Publication};
use crate::clock::Clock;
use crate::engine::Audience;
use crate::messages::{Command, ConnectionId, Event, Reply};
use crate::node::{FromSequencer, Member, Peers, Sender, Sequencer, agreement};
use crate::position::Position;
use crate::protocol::Payload;
use crate::routes::Asks;
use crate::settings::{ChannelRule, ChannelSettings, Settings};
use crate::shard::simulated::Luck;

const CLIENTS_MAX: usize = 8;
/// Rounds after which everything is quiet, if nobody does anything.
const ROUNDS_MAX: usize = 4_000;

/// What a worker has said, and the sequencer has not heard.
#[derive(Default)]
struct Link(Mutex<VecDeque<Vec<u8>>>);

impl Link {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Vec<u8>>> {
        self.0.lock().expect("nobody panics while it has it")
    }
}

impl Sender for Link {
    fn send(&self, message: &[u8], _is_deferred: bool) -> Result<(), (u64, u64)> {
        self.lock().push_back(message.to_vec());
        Ok(())
    }

    fn flush(&self) {}
}

pub(super) struct Worker {
    pub(super) world: World,
    said: Arc<Link>,
    /// What the sequencer has said, and it has not heard.
    told: VecDeque<Vec<u8>>,
    /// What it has published that has no place yet: channel and text.
    published: VecDeque<(usize, Ordered)>,
}

/// What a client is there for: a channel and a position, or, without a channel, all that is for the hub's clients.
type Wish = (Option<usize>, Option<Position>);

/// One client, of one channel or of the hub.
pub(super) struct Client {
    channel: Option<usize>,
    worker: u64,
    pub(super) fd: RawFd,
    /// Once its worker has seen it.
    id: Option<ConnectionId>,
    buffer: Vec<u8>,
    is_open: bool,
    /// The position that it came with, and the newest one that it got.
    since: Option<Position>,
    pub(super) last: Option<Position>,
    /// The next that it may get, once it was told where it begins.
    next: Option<usize>,
    /// Where it was told that it begins.
    begin: Option<Position>,
    /// How many links had broken when it came.
    cuts: usize,
    /// What is for its user, and for its hub, once it was let in.
    direct: Vec<Direct>,
}

/// All of them.
pub(super) struct Cluster {
    settings: Settings,
    /// What the application of each worker is asked.
    pub(super) asks: Asks,
    sequencer: Sequencer,
    /// The sequencer's; each worker has one of its own, which goes as fast.
    clock: &'static AtomicU64,
    pub(super) workers: BTreeMap<u64, Worker>,
    pub(super) clients: Vec<Client>,
    /// Who has lost its worker or was closed.
    pub(super) away: Vec<Wish>,
    /// What the sequencer has ordered, by channel, and behind those by [`AUDIENCES`].
    pub(super) ordered: Vec<Vec<Ordered>>,
    published: usize,
    cuts: usize,
    peers: u64,
    /// Who came back and got exactly what it had missed.
    pub(super) recovered: usize,
}

/// The sequencer's word on its way.
struct Out<'a> {
    workers: &'a mut BTreeMap<u64, Worker>,
    ordered: &'a mut [Vec<Ordered>],
}

impl Peers for Out<'_> {
    fn send(&mut self, peers: &[u64], message: &[u8]) {
        for peer in peers {
            let worker = self.workers.get_mut(peer).expect("it is told of all that go");
            match FromSequencer::read(message).expect("a message") {
                FromSequencer::Placed(position) => {
                    let (channel, one) = worker.published.pop_front().expect("it was published");
                    self.ordered[channel].push(Ordered { position, ..one });
                }
                FromSequencer::Failed(_, why) | FromSequencer::Refused(why) => panic!("{why}"),
                _ => {}
            }
            worker.told.push_back(message.to_vec());
        }
    }
}

impl Cluster {
    fn new(luck: &mut Luck) -> Self {
        let rule = |(index, policy): (usize, Policy)| {
            let settings = ChannelSettings {
                policy,
                backlog_frames: if luck.once_in(2) { 16_384 } else { 4 + luck.below(40) },
                history_frames: if luck.once_in(3) { 0 } else { 1 + luck.below(24) },
                ..ChannelSettings::default()
            };
            ChannelRule { pattern: Pattern::new(&format!("c{index}")).expect("a pattern"), settings }
        };
        let channels = Policy::ALL.into_iter().enumerate().map(rule).collect();
        let mut cluster = Self::of(channels);
        cluster.asks.opening = luck.once_in(2);
        (0..2 + luck.below(3)).for_each(|_| cluster.come(luck));
        cluster
    }

    /// One without a worker.
    pub(super) fn of(channels: Vec<ChannelRule>) -> Self {
        let ordered = vec![Vec::new(); channels.len() + AUDIENCES.len()];
        let clock: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(1_000 * MS)));
        let settings = Settings { channels, channels_max: 64, ..Settings::default() };
        Self {
            sequencer: Sequencer::new("1", settings.clone()).with_clock(Clock::Set(clock)),
            clock,
            settings,
            asks: Asks::default(),
            workers: BTreeMap::new(),
            clients: Vec::new(),
            away: Vec::new(),
            ordered,
            published: 0,
            cuts: 0,
            peers: 0,
            recovered: 0,
        }
    }

    /// A worker comes.
    pub(super) fn come(&mut self, luck: &mut Luck) {
        self.peers += 1;
        let number = self.peers as u8;
        let settings = Settings { worker: number, shards: 1 + luck.below(2), ..self.settings.clone() };
        let agreed = agreement("1", &settings);
        let world = World::new(luck.next(), settings, self.asks, 0, luck.once_in(2));
        let said = Arc::<Link>::default();
        world.engine().join_workers(Member::new(number, agreed, Arc::clone(&said) as Arc<dyn Sender>));
        self.sequencer.came(self.peers);
        world.engine().node_up();
        let worker = Worker { world, said, told: VecDeque::new(), published: VecDeque::new() };
        self.workers.insert(self.peers, worker);
    }

    fn any(&self, luck: &mut Luck) -> u64 {
        let all: Vec<u64> = self.workers.keys().copied().collect();
        luck.pick(&all)
    }

    /// A worker is lost with all that it had: what it said last may not have been heard.
    fn lose(&mut self, peer: u64) {
        let worker = self.workers.remove(&peer).expect("it is there");
        for client in self.clients.extract_if(.., |client| client.worker == peer) {
            self.away.push((client.channel, client.last.or(client.since)));
        }
        worker.world.engine().stop();
        drop(worker);
        self.sequencer.gone(peer, &mut Out { workers: &mut self.workers, ordered: &mut self.ordered });
    }

    /// The link to the sequencer breaks, and is there again at once.
    pub(super) fn cut(&mut self, peer: u64) {
        let worker = self.workers.get_mut(&peer).expect("it is there");
        worker.said.lock().clear();
        worker.told.clear();
        worker.published.clear();
        worker.world.engine().node_down("cut");
        self.cuts += 1;
        self.sequencer.gone(peer, &mut Out { workers: &mut self.workers, ordered: &mut self.ordered });
        self.sequencer.came(peer);
        self.workers[&peer].world.engine().node_up();
    }

    pub(super) fn publish(&mut self, peer: u64, channel: usize, is_keyframe: bool, key: usize) {
        self.publish_for(peer, (channel, is_keyframe, key), Vec::new(), None);
    }

    /// The same, but not for these, and for a while alone.
    fn publish_for(
        &mut self,
        peer: u64,
        (channel, is_keyframe, key): (usize, bool, usize),
        excluded: Vec<ConnectionId>,
        ttl_ns: Option<u64>,
    ) {
        let (number, name, key) = (self.published, format!("c{channel}"), format!("key {key}"));
        let audience = match channel.checked_sub(self.channels()) {
            Some(direct) => AUDIENCES[direct],
            None => Audience::Channel(&name),
        };
        let text = format!("{channel} {number}");
        self.published += 1;
        let new = Publication {
            is_keyframe,
            key: Some(&key),
            excluded: &excluded,
            ttl_ns,
            ..Publication::new(Payload::Text(&text))
        };
        let worker = self.workers.get_mut(&peer).expect("it is there");
        worker.world.engine().publish_for_all(audience, &new, false).expect("it is up");
        let position = Position { epoch: 0, offset: 0 };
        worker.published.push_back((channel, Ordered { position, text, number, excluded, has_ttl: ttl_ns.is_some() }));
    }

    /// A client comes, or comes back.
    pub(super) fn connect(&mut self, peer: u64, (channel, since): Wish, room: usize, luck: &mut Luck) {
        let world = &self.workers[&peer].world;
        let fd = world.net.borrow_mut().connect(room);
        let number = fd.as_raw_fd();
        let at = since.unwrap_or(Position { epoch: 0, offset: 0 });
        let head = match channel {
            Some(channel) => Wire::Envelope.opening(&[&format!("c{channel}")], &[at], Some("live"), None),
            None => Wire::Hub.opening(&[], &[], None, None),
        };
        let shard = luck.below(world.shards.len());
        world.engine().shards[shard].command(Command::HandOver(fd, head, None));
        let client = Client {
            channel,
            worker: peer,
            fd: number,
            id: None,
            buffer: Vec::new(),
            is_open: false,
            since,
            last: None,
            next: None,
            begin: None,
            cuts: self.cuts,
            direct: Vec::new(),
        };
        self.clients.push(client);
    }

    /// The sequencer hears what a worker said next. False if that is nothing.
    pub(super) fn hear(&mut self, peer: u64) -> bool {
        let Some(message) = self.workers[&peer].said.lock().pop_front() else { return false };
        let out = &mut Out { workers: &mut self.workers, ordered: &mut self.ordered };
        self.sequencer.received(peer, &message, out).expect("a message");
        true
    }

    /// A worker hears what the sequencer said next.
    fn tell(&mut self, peer: u64, is_turned: bool) -> bool {
        let worker = self.workers.get_mut(&peer).expect("it is there");
        let message = worker.told.pop_front();
        if let Some(message) = &message {
            worker.world.engine().node_received(message).expect("a message");
        }
        if is_turned || message.is_none() {
            worker.world.engine().node_turned();
        }
        message.is_some()
    }

    /// A shard has its turn, and its clients read.
    fn turn(&mut self, peer: u64, shard: usize) -> bool {
        let worker = self.workers.get_mut(&peer).expect("it is there");
        let is_awake = worker.world.give_turn(shard).is_some();
        worker.world.round_time();
        for seen in worker.world.shards[shard].look() {
            let of_it = |client: &&mut Client| client.worker == peer && Some(client.fd) == seen.fd;
            self.clients.iter_mut().filter(of_it).for_each(|client| client.id = Some(seen.id));
        }
        for event in worker.world.engine().take_events(10_000) {
            if let Event::Opening(whose, request) = event {
                let names = request.channels.iter().map(String::as_str);
                let (_, user) = user_of(whose.connection);
                worker.world.engine().accept(whose.connection, names, Some(&user), Reply::default()).expect("room");
            }
        }
        let mut clients = std::mem::take(&mut self.clients);
        clients.retain_mut(|client| client.worker != peer || self.read(client));
        self.clients = clients;
        is_awake
    }

    /// Reads what came to a client. False once it is gone.
    fn read(&mut self, client: &mut Client) -> bool {
        let world = &self.workers[&client.worker].world;
        let is_shut = {
            let mut net = world.net.borrow_mut();
            let socket = net.sockets.get_mut(&client.fd).expect("it was connected");
            client.buffer.append(&mut socket.taken);
            socket.took.clear();
            socket.is_shut
        };
        if let (false, Some(end)) = (client.is_open, memchr::memmem::find(&client.buffer, b"\r\n\r\n")) {
            assert!(client.buffer.starts_with(b"HTTP/1.1 101 "));
            client.buffer.drain(..end + 4);
            client.is_open = true;
            if client.channel.is_some() {
                self.let_in(client);
            }
        }
        while let (true, Some((count, payload))) = (client.is_open, wire::cut_frame(&client.buffer)) {
            let (first, payload) = (client.buffer[0], payload.to_vec());
            client.buffer.drain(..count);
            match first {
                0x81 if client.channel.is_none() => self.take_records(client, &payload),
                0x81 => self.take(client, &serde_json::from_slice(&payload).expect("JSON")),
                0x88 if client.channel.is_none() => {
                    self.workers[&client.worker].world.net.borrow_mut().end(client.fd, false);
                }
                0x88 => {
                    let reason = String::from_utf8_lossy(&payload[2..]).into_owned();
                    assert_eq!(payload[..2], 1_013_u16.to_be_bytes(), "{reason}");
                    self.workers[&client.worker].world.net.borrow_mut().end(client.fd, false);
                }
                other => panic!("no frame begins with {other:#x}"),
            }
        }
        self.be_sure(client);
        if is_shut {
            self.away.push((client.channel, client.last.or(client.since)));
        }
        !is_shut
    }

    /// What is published for its user and its hub is for it.
    fn let_in(&self, client: &mut Client) {
        let user = client.id.filter(|_| self.asks.opening).map(|id| user_of(id).0);
        let hub = client.channel.is_none().then_some(HUB);
        client.direct = user.into_iter().chain(hub).map(Direct::new).collect();
    }

    /// What is published from now on for these is for the client, where its worker hears of it.
    fn be_sure(&self, client: &mut Client) {
        let hubs = &self.workers[&client.worker].world.engine().common.hubs;
        let is_had = hubs.find("/hub").is_some_and(|hub| hub.is_had());
        let sure = client.direct.iter_mut().filter(|one| one.audience != HUB || is_had);
        sure.for_each(|one| one.be_sure(self.published));
    }

    /// Records of SignalR's: the answer to the handshake, invocations, a Close.
    fn take_records(&self, client: &mut Client, payload: &[u8]) {
        for record in payload.split(|&byte| byte == 0x1E).filter(|record| !record.is_empty()) {
            let record: serde_json::Value = serde_json::from_slice(record).expect("JSON");
            match record["type"].as_u64() {
                None => self.let_in(client),
                Some(1) => self.take_direct(client, record["arguments"][0].as_str().expect("text")),
                Some(7) => {
                    let is_missing = |why: &str| why.starts_with("publications are missing in channel ");
                    assert!(self.cuts > 0 && record["error"].as_str().is_some_and(is_missing), "{record}");
                }
                _ => {}
            }
        }
    }

    /// What is for its user, or for its hub.
    fn take_direct(&self, client: &mut Client, text: &str) {
        let index = text.split(' ').next().and_then(|index| index.parse::<usize>().ok()).expect("as published");
        let (id, audience) = (client.id, index - self.channels());
        let direct = client.direct.iter_mut().find(|one| one.audience == audience).expect("it is one of those");
        direct.receive(text, &self.ordered[index], id);
    }

    fn channels(&self) -> usize {
        self.settings.channels.len()
    }

    fn take(&mut self, client: &mut Client, object: &serde_json::Value) {
        if let (true, Some(text)) = (object.get("channel").is_none(), object["data"].as_str()) {
            return self.take_direct(client, text);
        }
        let channel = client.channel.expect("it has one");
        let (ordered, name) = (&self.ordered[channel], format!("c{channel}"));
        let position_of = |value: &serde_json::Value| Position {
            epoch: value[0].as_u64().expect("a number"),
            offset: value[1].as_u64().expect("a number"),
        };
        if let Some(result) = object.get("result") {
            let begin = position_of(&result["positions"][&name]);
            let has_recovered = result["recovered"][&name].as_bool() == Some(true);
            if let Some(since) = client.since.filter(|_| has_recovered) {
                assert_eq!(begin, since, "it goes on where it was");
                self.recovered += 1;
            } else if let Some(since) = client.since.filter(|_| client.cuts == self.cuts) {
                let missed = ordered.iter().rposition(|one| one.position == since).map(|at| ordered.len() - at - 1);
                let kept = self.settings.channels[channel].settings.history_frames;
                assert!(
                    missed.is_none_or(|missed| missed > kept),
                    "{since} is not recovered, and {missed:?} are missed"
                );
            }
            // A channel that nobody wanted may have begun anew: its positions are of another epoch then.
            let of_epoch = |one: &Ordered| one.position.epoch == begin.epoch;
            let last = ordered.iter().rposition(|one| of_epoch(one) && one.position.offset <= begin.offset);
            let first = || ordered.iter().position(of_epoch).unwrap_or(ordered.len());
            client.next = Some(last.map_or_else(first, |last| last + 1));
            client.begin = Some(begin);
            return;
        }
        let position = position_of(&object["position"]);
        let index = ordered.iter().position(|one| one.position == position).expect("it has a place");
        assert_eq!(object["data"], ordered[index].text.as_str(), "{position} is the same everywhere");
        let is_excluded = |one: &Ordered| client.id.is_some_and(|id| one.excluded.contains(&id));
        assert!(!is_excluded(&ordered[index]), "{position} is not for it");
        let next = client.next.expect("it was told where it begins");
        let is_next = match Policy::ALL[channel] {
            Policy::Every => index >= next && ordered[next..index].iter().all(|one| one.has_ttl || is_excluded(one)),
            _ => index >= next,
        };
        let around = &ordered[next.saturating_sub(2)..=index];
        assert!(is_next, "{index} of {name}, and {next} is next: it began at {:?}, {around:?}", client.begin);
        (client.next, client.last) = (Some(index + 1), Some(position));
    }

    fn make_room(&mut self, index: usize, bytes: usize) {
        let client = &self.clients[index];
        self.workers[&client.worker].world.net.borrow_mut().make_room(client.fd, bytes);
    }

    /// One worker goes on, and hears the sequencer or does not; the others' messages stay on their way.
    pub(super) fn run_alone(&mut self, peer: u64, hears: bool) {
        for _ in 0..50 {
            while hears && (self.hear(peer) || self.tell(peer, true)) {}
            (0..self.workers[&peer].world.shards.len()).for_each(|shard| _ = self.turn(peer, shard));
        }
    }

    /// Until nothing is on its way.
    pub(super) fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut is_quiet = true;
            for peer in self.workers.keys().copied().collect::<Vec<_>>() {
                is_quiet &= !self.hear(peer);
                is_quiet &= !self.tell(peer, true);
                for shard in 0..self.workers[&peer].world.shards.len() {
                    is_quiet &= !self.turn(peer, shard);
                }
            }
            (0..self.clients.len()).for_each(|index| self.make_room(index, ALL));
            if is_quiet {
                return;
            }
        }
        panic!("it is never quiet");
    }

    fn step(&mut self, luck: &mut Luck) {
        let (peer, channel) = (self.any(luck), luck.below(self.channels()));
        match luck.below(100) {
            0..20 => {
                for _ in 0..if luck.once_in(5) { 1 + luck.below(30) } else { 1 } {
                    let direct = luck.once_in(4).then(|| self.channels() + luck.below(AUDIENCES.len()));
                    let new = (direct.unwrap_or(channel), direct.is_none() && luck.once_in(8), luck.below(4));
                    let known = self.clients.iter().filter_map(|client| client.id);
                    // Who has a keyframe of its own goes on behind it: that is not looked at here.
                    let is_plain = !new.1 && luck.once_in(6);
                    let excluded = known.filter(|_| is_plain && luck.once_in(3)).collect();
                    let ttl_ns = luck.once_in(9).then(|| (1 + luck.below(9)) as u64 * MS);
                    self.publish_for(peer, new, excluded, ttl_ns);
                }
            }
            20..40 => drop(self.hear(peer)),
            40..60 => drop(self.tell(peer, luck.once_in(2))),
            60..80 => {
                let shard = luck.below(self.workers[&peer].world.shards.len());
                self.turn(peer, shard);
            }
            80..86 if self.clients.len() < CLIENTS_MAX => {
                let wanted = self.away.pop().unwrap_or(((!luck.once_in(4)).then_some(channel), None));
                let room = if luck.once_in(2) { ALL } else { luck.below(3_000) };
                self.connect(peer, wanted, room, luck);
            }
            86..96 if !self.clients.is_empty() => {
                let index = luck.below(self.clients.len());
                self.make_room(index, 1 + luck.below(2_000));
            }
            96 if luck.once_in(2) => self.cut(peer),
            99 => {
                let ms = luck.below(12) as u64;
                let clocks = self.workers.values().map(|worker| worker.world.clock).chain([self.clock]);
                clocks.for_each(|clock| _ = clock.fetch_add(ms * MS, Ordering::Relaxed));
            }
            97 if self.workers.len() > 1 => self.lose(peer),
            98 if self.workers.len() < 4 => self.come(luck),
            _ => {}
        }
    }
}

/// One seed.
pub(super) fn run(seed: u64) {
    let mut luck = Luck(seed);
    let mut cluster = Cluster::new(&mut luck);
    for _ in 0..100 + luck.below(400) {
        cluster.step(&mut luck);
    }
    for wanted in std::mem::take(&mut cluster.away) {
        let peer = cluster.any(&mut luck);
        cluster.connect(peer, wanted, ALL, &mut luck);
    }
    cluster.settle();
    let peer = cluster.any(&mut luck);
    (0..cluster.ordered.len()).for_each(|channel| cluster.publish(peer, channel, true, 0));
    cluster.settle();
    for client in &cluster.clients {
        assert!(client.is_open && client.buffer.is_empty(), "it has read everything");
        for direct in &client.direct {
            direct.check_end(&cluster.ordered[cluster.channels() + direct.audience], client.id);
        }
        let Some(channel) = client.channel else { continue };
        let newest = cluster.ordered[channel].last().map(|one| one.position);
        assert_eq!(client.last, newest, "c{channel} has come");
    }
}
