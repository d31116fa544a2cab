//! Several sequencers over one engine that delays, loses, forgets and comes back, for tests.
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::agreement::agreement;
use super::backbone::{Backbone, Heard, Keep, OnDown, Record};
use super::sequencer::{Peers, Sequencer};
use super::wire::{FromMember, FromSequencer, Group, VERSION};
use crate::channel::stand_tests::Client;
use crate::channel::{Channel, Pattern, Publication, Registry, Stand, read_publication, write_publication};
use crate::connection_id::ConnectionId;
use crate::position::Position;
use crate::protocol::Payload;
use crate::settings::{ChannelRule, ChannelSettings, Settings};

#[derive(Debug)]
enum Asked {
    Publish(u64, String, Vec<u8>, Keep),
    Want(String),
    Leave(String),
    Since(String, Position),
}

/// What a node has asked of the engine.
#[derive(Clone, Default)]
struct Way(Arc<Mutex<VecDeque<Asked>>>);

impl Way {
    fn ask(&self, asked: Asked) {
        self.0.lock().expect("alone").push_back(asked);
    }
}

impl Backbone for Way {
    fn publish(&mut self, ticket: u64, channel: &str, bytes: &[u8], keep: Keep) {
        self.ask(Asked::Publish(ticket, channel.into(), bytes.into(), keep));
    }
    fn want(&mut self, channel: &str, _keep: Keep) {
        self.ask(Asked::Want(channel.into()));
    }
    fn leave(&mut self, channel: &str) {
        self.ask(Asked::Leave(channel.into()));
    }
    fn since(&mut self, channel: &str, after: Position) {
        self.ask(Asked::Since(channel.into(), after));
    }
    fn tell(&mut self, _: Option<u64>, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
    fn listen(&mut self, _: &str, _: bool) {}
}

/// What a client has got of a channel.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) name: String,
    pub(super) got: String,
    /// It was there when nothing had been published.
    pub(super) is_from_beginning: bool,
    pub(super) is_closed: bool,
}

impl View {
    fn of(name: &str, client: &Client) -> Self {
        let (got, is_from_beginning, is_closed) = (client.got.clone(), client.is_from_beginning, client.is_closed);
        Self { name: name.into(), got, is_from_beginning, is_closed }
    }
}

/// What members were sent, and what they make of it.
#[derive(Default)]
pub(super) struct Members {
    settings: Settings,
    /// By member and channel: its own, and a client of it.
    pub(super) channels: HashMap<(u64, String), (Arc<Channel>, Client)>,
    /// What clients got that were closed.
    pub(super) views: Vec<View>,
    /// Of these something is to be asked for again.
    asks: Vec<(u64, String)>,

    /// By member and channel.
    pub(super) at: HashMap<(u64, String), Position>,
    /// Positions and payloads of what came as records, by the same.
    pub(super) got: HashMap<(u64, String), Vec<Position>>,
    pub(super) outcomes: BTreeMap<u64, Vec<Result<Position, String>>>,
    pub(super) holes: usize,
    pub(super) excluded: Vec<bool>,
    pub(super) reached: Vec<(u64, String)>,
    asked_to_reach: HashSet<(u64, String)>,
}

impl Members {
    /// As an engine does.
    fn have(&mut self, peer: u64, name: &str, dump: &[u8]) {
        let fresh = || {
            let registry = Registry::listed(&Arc::default(), 10);
            let channel = registry.obtain(name, &self.settings, 0).expect("room");
            channel.restore(dump, 0, |_| ()).expect("a dump");
            let client = Client::come(&channel, None);
            (channel, client)
        };
        let (channel, client) = self.channels.entry((peer, name.into())).or_insert_with(fresh);
        client.look();
        channel.restore(dump, 0, |_| ()).expect("a dump");
        channel.set_had(true);
        client.is_from_beginning |= channel.is_known_empty();
    }

    fn take(&mut self, peer: u64, name: &str, stand: (Position, Position), publication: &[u8]) {
        let key = (peer, name.to_owned());
        let Some((channel, _)) = self.channels.get(&key).filter(|one| one.0.is_had()) else { return };
        let (position, previous) = stand;
        if channel.is_elsewhere(previous) {
            channel.set_had(false);
            return self.asks.push(key);
        }
        let stand = Stand::After { previous, position };
        let append = |one: &Publication<'_>| channel.append(one, stand, 0, u64::MAX, |_| ());
        read_publication(publication, append).expect("whole").expect("it is right");
        self.look();
    }

    /// Clients get what there is; one that is closed comes again.
    pub(super) fn look(&mut self) {
        for ((_, name), (channel, client)) in &mut self.channels {
            client.look();
            if client.is_closed {
                let next = Client::come(channel, None);
                self.views.push(View::of(name, &std::mem::replace(client, next)));
            }
        }
    }

    /// Whether it may ask to reach a channel: one question at a time.
    pub(super) fn waits_to_reach(&mut self, peer: u64, name: &str) -> bool {
        let key = (peer, name.to_owned());
        let is_had = self.channels.get(&key).is_some_and(|one| one.0.is_had());
        is_had && self.asked_to_reach.insert(key)
    }

    pub(super) fn reaching(&self) -> usize {
        self.asked_to_reach.len()
    }

    /// Outcomes that it was told.
    pub(super) fn told(&self) -> usize {
        self.outcomes.values().map(Vec::len).sum()
    }

    /// What all clients have got, by channel.
    pub(super) fn all_views(&mut self) -> Vec<View> {
        self.look();
        let here = self.channels.iter().map(|(key, (_, client))| View::of(&key.1, client));
        let mut all: Vec<_> = here.collect();
        all.extend(self.views.iter().cloned());
        all
    }
}

impl Peers for Members {
    fn send(&mut self, peers: &[u64], message: &[u8]) {
        for &peer in peers {
            match FromSequencer::read(message).expect("a message") {
                FromSequencer::Have((_, name), dump) => {
                    let number = |at: usize| u64::from_le_bytes(dump[at..at + 8].try_into().expect("eight"));
                    self.at.insert((peer, name.into()), Position { epoch: number(0), offset: number(8) });
                    self.have(peer, name, dump);
                }
                FromSequencer::Record((_, name), position, previous, publication) => {
                    self.take(peer, name, (position, previous), publication);
                    let at = self.at.get_mut(&(peer, name.into())).expect("it was given before");
                    assert!(position > *at || position.epoch != at.epoch, "{position} behind {at}");
                    let is_whole = previous == *at || position.epoch != at.epoch;
                    self.holes += usize::from(!is_whole);
                    *at = position;
                    self.got.entry((peer, name.into())).or_default().push(position);
                    let is_excluding = read_publication(publication, |one| !one.excluded.is_empty()).expect("whole");
                    self.excluded.push(is_excluding);
                }
                FromSequencer::Placed(position) => self.outcomes.entry(peer).or_default().push(Ok(position)),
                FromSequencer::Failed(behind, why) => {
                    self.outcomes.entry(peer).or_default().push(Err(format!("{behind}: {why}")));
                }
                FromSequencer::Reached((_, name)) => {
                    self.asked_to_reach.remove(&(peer, name.into()));
                    self.reached.push((peer, name.into()));
                }
                _ => (),
            }
        }
    }
}

pub(super) struct Node {
    pub(super) sequencer: Sequencer,
    way: Way,
    /// What comes over one connection, and over another: in any order between the two.
    pub(super) comes: [VecDeque<Heard>; 2],
    pub(super) wanted: HashSet<String>,
    pub(super) is_up: bool,
    pub(super) members: Members,
}

#[derive(Default)]
pub(super) struct Kept {
    epoch: u64,
    top: u64,
    pub(super) records: VecDeque<Record>,
    /// It does not know what it gave out last: the next stands further on.
    is_unsure: bool,
}

/// What an engine has appended, by its number in the world; and whether it has lost that since.
pub(super) struct Appended {
    pub(super) number: u64,
    pub(super) position: Position,
    pub(super) is_lost: bool,
}

pub(super) struct World {
    pub(super) nodes: Vec<Node>,
    pub(super) channels: HashMap<String, Kept>,
    pub(super) truth: HashMap<String, Vec<Appended>>,
    epoch: u64,
    random: u64,
    pub(super) published: u64,
    /// Each gives later positions than the one before.
    servers: u64,
    /// By number: at which node.
    pub(super) published_at: Vec<usize>,
}

/// What a server leaves out that does not know what it gave out last.
const LEFT_OUT: u64 = 1 << 20;
pub(super) const NODES: usize = 3;
const LIMIT: usize = 5;

impl World {
    pub(super) fn new(seed: u64, history: usize) -> Self {
        Self::with(seed, history, OnDown::Buffer)
    }

    pub(super) fn with(seed: u64, history: usize, on_down: OnDown) -> Self {
        let kept =
            ChannelSettings { history_frames: history, history_age: Duration::from_secs(60), ..Default::default() };
        let rule = ChannelRule { pattern: Pattern::new("*").expect("a pattern"), settings: kept };
        let settings = Settings { channels: vec![rule], ..Settings::default() };
        let nodes = (0..NODES as u64).map(|own| {
            let way = Way::default();
            let sequencer = Sequencer::new("1", settings.clone()).over(Box::new(way.clone()), own + 1, on_down);
            let members = Members { settings: settings.clone(), ..Members::default() };
            let mut node =
                Node { sequencer, way, comes: Default::default(), wanted: HashSet::new(), is_up: true, members };
            node.sequencer.heard(Heard::Up, &mut node.members).expect("it is right");
            for peer in 0..2 {
                node.sequencer.came(peer);
                node.say(peer, FromMember::Hello(VERSION, peer as u8, &agreement("1", &settings)));
            }
            node
        });
        let nodes = nodes.collect();
        Self {
            nodes,
            channels: HashMap::new(),
            truth: HashMap::new(),
            epoch: 1 << 51,
            random: seed * 2 + 1,
            published: 0,
            servers: 0,
            published_at: vec![0],
        }
    }

    pub(super) fn chance(&mut self, of: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % of
    }

    pub(super) fn kept(&mut self, name: &str) -> &mut Kept {
        let epoch = self.epoch;
        self.channels.entry(name.into()).or_insert_with(|| Kept { epoch, ..Kept::default() })
    }

    pub(super) fn top(&mut self, name: &str) -> Position {
        let kept = self.kept(name);
        Position { epoch: kept.epoch, offset: kept.top }
    }

    /// The engine does what a node asked for first; whether there was something.
    pub(super) fn serve(&mut self, node: usize) -> bool {
        let Some(asked) = self.nodes[node].way.0.lock().expect("alone").pop_front() else { return false };
        let is_up = self.nodes[node].is_up;
        match asked {
            Asked::Publish(ticket, ..) if !is_up => {
                let refused = Heard::Published(ticket, Err("it is out of reach".into()));
                self.nodes[node].comes[0].push_back(refused);
            }
            Asked::Publish(ticket, name, bytes, keep) => {
                let least = self.servers << 30;
                let kept = self.kept(&name);
                let previous = Position { epoch: kept.epoch, offset: kept.top };
                let unsure =
                    if std::mem::take(&mut kept.is_unsure) { LEFT_OUT.max(least.saturating_sub(kept.top)) } else { 0 };
                kept.top += 1 + unsure;
                let position = Position { offset: kept.top, ..previous };
                let record = Record { previous, position, published_ms: 0, bytes };
                kept.records.push_back(record.clone());
                while kept.records.len() as u64 > keep.messages {
                    kept.records.pop_front();
                }
                let number = number_of(&record.bytes);
                self.truth.entry(name.clone()).or_default().push(Appended { number, position, is_lost: false });
                for one in self.nodes.iter_mut().filter(|one| one.is_up && one.wanted.contains(&name)) {
                    one.comes[1].push_back(Heard::Record(name.as_str().into(), record.clone()));
                }
                self.nodes[node].comes[0].push_back(Heard::Published(ticket, Ok(position)));
            }
            Asked::Want(name) => {
                let top = self.top(&name);
                self.nodes[node].wanted.insert(name.clone());
                if is_up {
                    self.nodes[node].comes[1].push_back(Heard::Wanted(name.as_str().into(), top));
                }
            }
            Asked::Leave(name) => drop(self.nodes[node].wanted.remove(&name)),
            Asked::Since(name, after) if is_up => {
                let top = self.top(&name);
                let behind = |one: &&Record| after.epoch != top.epoch || one.position.offset > after.offset;
                let records: Vec<_> = self.kept(&name).records.iter().filter(behind).take(LIMIT).cloned().collect();
                self.nodes[node].comes[0].push_back(Heard::Since(name.as_str().into(), records, top));
            }
            Asked::Since(..) => (),
        }
        true
    }

    /// A node hears what came first over one of its connections.
    pub(super) fn deliver(&mut self, node: usize, way: usize) -> bool {
        let one = &mut self.nodes[node];
        let Some(heard) = one.comes[way].pop_front() else { return false };
        one.sequencer.heard(heard, &mut one.members).expect("it is right");
        one.ask_again();
        true
    }

    pub(super) fn cut(&mut self, node: usize) {
        let one = &mut self.nodes[node];
        one.is_up = false;
        one.comes[1].clear();
        // Answers that were on their way are lost; whether a publication was appended nobody knows.
        for heard in std::mem::take(&mut one.comes[0]) {
            if let Heard::Published(ticket, _) = heard {
                one.comes[0].push_back(Heard::Published(ticket, Err("its answer is lost".into())));
            }
        }
        one.comes[1].push_back(Heard::Down("cut".into()));
    }

    pub(super) fn mend(&mut self, node: usize) {
        self.nodes[node].is_up = true;
        self.nodes[node].comes[1].push_back(Heard::Up);
        for name in self.nodes[node].wanted.clone() {
            let top = self.top(&name);
            self.nodes[node].comes[1].push_back(Heard::Wanted(name.as_str().into(), top));
        }
    }

    /// The server ends and another comes in its place: the same one, or a replica that lacks so many of what was last.
    pub(super) fn replace(&mut self, lacking: usize) {
        (0..NODES).for_each(|node| self.cut(node));
        self.servers += 1;
        for (name, kept) in &mut self.channels {
            kept.is_unsure = true;
            for _ in 0..lacking {
                kept.records.pop_back();
            }
            // What is not kept it may know of all the same.
            let truth = self.truth.entry(name.clone()).or_default();
            let epoch = kept.epoch;
            let known: Vec<_> = truth.iter_mut().filter(|one| one.position.epoch == epoch && !one.is_lost).collect();
            let left = known.len().saturating_sub(lacking);
            kept.top = left.checked_sub(1).map_or(0, |last| known[last].position.offset);
            known.into_iter().skip(left).for_each(|one| one.is_lost = true);
        }
    }

    pub(super) fn forget_all(&mut self) {
        self.epoch += 1;
        self.channels.clear();
    }

    pub(super) fn publish(&mut self, node: usize, peer: u64, name: &str, excluded: &[ConnectionId]) {
        self.published += 1;
        self.published_at.push(node);
        let text = format!("<{}>", self.published);
        let mut bytes = Vec::new();
        let one = Publication { excluded, ..Publication::new(Payload::Text(&text)) };
        write_publication(&one, &mut bytes);
        self.nodes[node].say(peer, FromMember::Publish((Group::Channel, name), &bytes));
        self.nodes[node].ask_again();
    }

    pub(super) fn settle(&mut self) {
        for _ in 0..100_000 {
            let mut has_moved = false;
            for node in 0..NODES {
                has_moved |= self.serve(node);
                has_moved |= self.deliver(node, 0) | self.deliver(node, 1);
            }
            if !has_moved {
                return;
            }
        }
        panic!("it goes on for ever: {:?}", self.channels.keys());
    }

    pub(super) fn run(&mut self, steps: usize, can_forget: bool) {
        for _ in 0..steps {
            let node = self.chance(NODES as u64) as usize;
            let peer = self.chance(2);
            let name = ["a", "b"][self.chance(2) as usize];
            match self.chance(24) {
                0..6 => self.publish(node, peer, name, &[]),
                6..11 => drop(self.serve(node)),
                11..18 => {
                    let way = self.chance(2) as usize;
                    self.deliver(node, way);
                }
                18..20 => self.nodes[node].say(peer, FromMember::Want((Group::Channel, name))),
                20 => self.nodes[node].leave(peer, name),
                21 if self.nodes[node].is_up => self.cut(node),
                22 if !self.nodes[node].is_up => self.mend(node),
                23 if can_forget && self.chance(4) == 0 => self.forget_all(),
                _ => (),
            }
        }
    }

    pub(super) fn mend_all(&mut self) {
        for node in 0..NODES {
            if !self.nodes[node].is_up {
                self.mend(node);
            }
        }
    }
}

/// Which publication a record is.
fn number_of(record: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(record);
    let start = text.rfind('<').map_or(0, |at| at + 1);
    text[start..].split('>').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

impl Node {
    /// How much it has asked of the engine that is not answered.
    pub(super) fn asked(&self) -> usize {
        self.way.0.lock().expect("alone").len()
    }

    /// Something that comes is lost without a word.
    pub(super) fn lose_one(&mut self) {
        if let Some(at) = self.comes[1].iter().position(|one| matches!(one, Heard::Record(..))) {
            self.comes[1].remove(at);
        }
    }

    /// Something comes twice.
    pub(super) fn repeat_one(&mut self) {
        if let Some(record) = self.comes[1].iter().find(|one| matches!(one, Heard::Record(..))).cloned() {
            self.comes[1].push_back(record);
        }
    }

    fn ask_again(&mut self) {
        for (peer, name) in std::mem::take(&mut self.members.asks) {
            self.say(peer, FromMember::Want((Group::Channel, &name)));
        }
    }

    pub(super) fn say(&mut self, peer: u64, message: FromMember<'_>) {
        let mut bytes = Vec::new();
        message.write(&mut bytes);
        self.sequencer.received(peer, &bytes, &mut self.members).expect("a message");
    }

    pub(super) fn leave(&mut self, peer: u64, name: &str) {
        self.members.asked_to_reach.remove(&(peer, name.to_owned()));
        self.members.look();
        if let Some((_, client)) = self.members.channels.remove(&(peer, name.to_owned())) {
            self.members.views.push(View::of(name, &client));
        }
        self.members.at.remove(&(peer, name.to_owned()));
        self.say(peer, FromMember::Leave((Group::Channel, name)));
    }
}
