//! Several sequencers over one engine that delays, loses, forgets and comes back: what each member is told.
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::agreement::agreement;
use super::backbone::{Backbone, Heard, Keep, OnDown, Record};
use super::sequencer::{Peers, Sequencer};
use super::wire::{FromMember, FromSequencer, Group, VERSION};
use crate::channel::{Pattern, Publication, write_publication};
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

/// What members were sent, and what they make of it.
#[derive(Default)]
struct Members {
    /// By member and channel.
    at: HashMap<(u64, String), Position>,
    /// Positions and payloads of what came as records, by the same.
    got: HashMap<(u64, String), Vec<Position>>,
    outcomes: BTreeMap<u64, Vec<Result<Position, String>>>,
    holes: usize,
    excluded: Vec<bool>,
    reached: Vec<(u64, String)>,
}

impl Peers for Members {
    fn send(&mut self, peers: &[u64], message: &[u8]) {
        for &peer in peers {
            match FromSequencer::read(message).expect("a message") {
                FromSequencer::Have((_, name), dump) => {
                    let number = |at: usize| u64::from_le_bytes(dump[at..at + 8].try_into().expect("eight"));
                    self.at.insert((peer, name.into()), Position { epoch: number(0), offset: number(8) });
                }
                FromSequencer::Record((_, name), position, previous, publication) => {
                    let at = self.at.get_mut(&(peer, name.into())).expect("it was given before");
                    assert!(position > *at || position.epoch != at.epoch, "{position} behind {at}");
                    let is_whole = previous == *at || previous.epoch != at.epoch;
                    self.holes += usize::from(!is_whole);
                    *at = position;
                    self.got.entry((peer, name.into())).or_default().push(position);
                    let is_excluding =
                        crate::channel::read_publication(publication, |one| !one.excluded.is_empty()).expect("whole");
                    self.excluded.push(is_excluding);
                }
                FromSequencer::Placed(position) => self.outcomes.entry(peer).or_default().push(Ok(position)),
                FromSequencer::Failed(behind, why) => {
                    self.outcomes.entry(peer).or_default().push(Err(format!("{behind}: {why}")));
                }
                FromSequencer::Reached((_, name)) => self.reached.push((peer, name.into())),
                _ => (),
            }
        }
    }
}

struct Node {
    sequencer: Sequencer,
    way: Way,
    /// What comes over one connection, and over another: in any order between the two.
    comes: [VecDeque<Heard>; 2],
    wanted: HashSet<String>,
    is_up: bool,
    members: Members,
}

#[derive(Default)]
struct Kept {
    epoch: u64,
    top: u64,
    records: VecDeque<Record>,
}

struct World {
    nodes: Vec<Node>,
    channels: HashMap<String, Kept>,
    epoch: u64,
    random: u64,
    published: u64,
}

const NODES: usize = 3;
const LIMIT: usize = 5;

impl World {
    fn new(seed: u64, history: usize) -> Self {
        Self::with(seed, history, OnDown::Buffer)
    }

    fn with(seed: u64, history: usize, on_down: OnDown) -> Self {
        let kept =
            ChannelSettings { history_frames: history, history_age: Duration::from_secs(60), ..Default::default() };
        let rule = ChannelRule { pattern: Pattern::new("*").expect("a pattern"), settings: kept };
        let settings = Settings { channels: vec![rule], ..Settings::default() };
        let nodes = (0..NODES as u64).map(|own| {
            let way = Way::default();
            let sequencer = Sequencer::new("1", settings.clone()).over(Box::new(way.clone()), own + 1, on_down);
            let members = Members::default();
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
        Self { nodes, channels: HashMap::new(), epoch: 1 << 51, random: seed * 2 + 1, published: 0 }
    }

    fn chance(&mut self, of: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % of
    }

    fn kept(&mut self, name: &str) -> &mut Kept {
        let epoch = self.epoch;
        self.channels.entry(name.into()).or_insert_with(|| Kept { epoch, ..Kept::default() })
    }

    fn top(&mut self, name: &str) -> Position {
        let kept = self.kept(name);
        Position { epoch: kept.epoch, offset: kept.top }
    }

    /// The engine does what a node asked for first; whether there was something.
    fn serve(&mut self, node: usize) -> bool {
        let Some(asked) = self.nodes[node].way.0.lock().expect("alone").pop_front() else { return false };
        let is_up = self.nodes[node].is_up;
        match asked {
            Asked::Publish(ticket, ..) if !is_up => {
                let refused = Heard::Published(ticket, Err("it is out of reach".into()));
                self.nodes[node].comes[0].push_back(refused);
            }
            Asked::Publish(ticket, name, bytes, keep) => {
                let kept = self.kept(&name);
                let previous = Position { epoch: kept.epoch, offset: kept.top };
                kept.top += 1;
                let position = Position { offset: kept.top, ..previous };
                let record = Record { previous, position, published_ms: 0, bytes };
                kept.records.push_back(record.clone());
                while kept.records.len() as u64 > keep.messages {
                    kept.records.pop_front();
                }
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
    fn deliver(&mut self, node: usize, way: usize) -> bool {
        let one = &mut self.nodes[node];
        let Some(heard) = one.comes[way].pop_front() else { return false };
        one.sequencer.heard(heard, &mut one.members).expect("it is right");
        true
    }

    fn cut(&mut self, node: usize) {
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

    fn mend(&mut self, node: usize) {
        self.nodes[node].is_up = true;
        self.nodes[node].comes[1].push_back(Heard::Up);
        for name in self.nodes[node].wanted.clone() {
            let top = self.top(&name);
            self.nodes[node].comes[1].push_back(Heard::Wanted(name.as_str().into(), top));
        }
    }

    fn forget_all(&mut self) {
        self.epoch += 1;
        self.channels.clear();
    }

    fn publish(&mut self, node: usize, peer: u64, name: &str, excluded: &[ConnectionId]) {
        self.published += 1;
        let text = self.published.to_string();
        let mut bytes = Vec::new();
        let one = Publication { excluded, ..Publication::new(Payload::Text(&text)) };
        write_publication(&one, &mut bytes);
        self.nodes[node].say(peer, FromMember::Publish((Group::Channel, name), &bytes));
    }

    fn settle(&mut self) {
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

    fn run(&mut self, steps: usize, can_forget: bool) {
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
        for node in 0..NODES {
            if !self.nodes[node].is_up {
                self.mend(node);
            }
        }
        self.settle();
    }
}

impl Node {
    fn say(&mut self, peer: u64, message: FromMember<'_>) {
        let mut bytes = Vec::new();
        message.write(&mut bytes);
        self.sequencer.received(peer, &bytes, &mut self.members).expect("a message");
    }

    fn leave(&mut self, peer: u64, name: &str) {
        self.members.at.remove(&(peer, name.to_owned()));
        self.say(peer, FromMember::Leave((Group::Channel, name)));
    }
}

/// Whatever is lost on the way, each member that wants a channel is where the engine is, and has all that came since it had it.
#[test]
fn every_machine_has_the_same_in_the_same_places() {
    for seed in 0..400 {
        let mut world = World::new(seed, 1_000);
        world.run(400, false);
        for name in ["a", "b"] {
            let top = world.top(&format!("c{name}"));
            for (number, node) in world.nodes.iter().enumerate() {
                for peer in 0..2 {
                    if let Some(at) = node.members.at.get(&(peer, name.to_owned())).filter(|_| top.offset > 0) {
                        assert_eq!(*at, top, "seed {seed}: node {number}, member {peer}, channel {name}");
                    }
                }
                assert_eq!(node.members.holes, 0, "seed {seed}: node {number}");
            }
        }
        let told: usize = world.nodes.iter().flat_map(|node| node.members.outcomes.values()).map(Vec::len).sum();
        assert_eq!(told as u64, world.published, "seed {seed}: each publication has one outcome");
    }
}

#[test]
fn an_engine_that_forgets_begins_a_new_life_everywhere() {
    for seed in 0..400 {
        let mut world = World::new(seed, if seed % 2 == 0 { 1_000 } else { 3 });
        world.run(400, true);
        for node in 0..NODES {
            for peer in 0..2 {
                world.nodes[node].say(peer, FromMember::Want((Group::Channel, "a")));
            }
        }
        world.settle();
        world.publish(0, 0, "a", &[]);
        world.settle();
        let top = world.top("ca");
        for node in &world.nodes {
            for peer in 0..2 {
                assert_eq!(node.members.at[&(peer, "a".to_owned())], top, "seed {seed}");
            }
        }
    }
}

#[test]
fn who_is_excluded_is_a_connection_of_the_machine_that_publishes() {
    let mut world = World::new(1, 10);
    for node in 0..2 {
        world.nodes[node].say(0, FromMember::Want((Group::Channel, "a")));
    }
    world.settle();
    world.publish(0, 1, "a", &[ConnectionId::from_bits(7)]);
    world.settle();
    let said: Vec<_> = world.nodes.iter().map(|node| node.members.excluded.clone()).collect();
    assert_eq!(said, [vec![true], vec![false], vec![]]);
}

#[test]
fn what_is_published_while_the_engine_is_away_waits_for_it_up_to_a_bound() {
    let mut world = World::new(1, 10);
    let down = Heard::Down("away".into());
    let node = &mut world.nodes[0];
    node.sequencer.heard(down, &mut node.members).expect("it is right");
    world.publish(0, 0, "a", &[]);
    let mut bytes = Vec::new();
    let text = "x".repeat(9 << 20);
    write_publication(&Publication::new(Payload::Text(&text)), &mut bytes);
    for _ in 0..2 {
        world.nodes[0].say(1, FromMember::Publish((Group::Channel, "a"), &bytes));
    }
    assert!(world.nodes[0].way.0.lock().expect("alone").is_empty());
    let at_once = &world.nodes[0].members.outcomes[&1];
    let said = "1: bytes that wait until the backbone is reached: ";
    assert!(matches!(&at_once[..], [Err(why)] if why.starts_with(said) && why.ends_with("over the bound of 16777216")));
    world.mend(0);
    world.settle();
    let outcomes = &world.nodes[0].members.outcomes;
    assert!(matches!(outcomes[&0][..], [Ok(_)]) && matches!(outcomes[&1][..], [Err(_), Ok(_)]));
}

#[test]
fn who_subscribes_gets_what_is_published_here_behind_that() {
    let mut world = World::new(1, 0);
    world.publish(1, 0, "a", &[]);
    world.settle();
    world.nodes[0].say(0, FromMember::Want((Group::Channel, "a")));
    world.publish(0, 1, "a", &[]);
    world.settle();
    assert_eq!(world.nodes[0].members.got[&(0, "a".to_owned())].len(), 1);
}

/// It was never level again: nothing came of it any more.
#[test]
fn a_record_that_is_none_costs_its_channel_no_other() {
    let mut world = World::new(1, 10);
    world.publish(1, 0, "a", &[]);
    world.settle();
    world.kept("ca").records[0].bytes.clear();
    world.publish(1, 0, "a", &[]);
    world.settle();
    world.nodes[0].say(0, FromMember::Want((Group::Channel, "a")));
    while world.serve(0) || world.deliver(0, 1) {}
    let Node { sequencer, members, comes, .. } = &mut world.nodes[0];
    let kept = comes[0].pop_front().expect("what is kept");
    assert!(sequencer.heard(kept, members).expect_err("the first is none").contains("is none"));
    world.publish(1, 0, "a", &[]);
    world.settle();
    let top = world.top("ca");
    assert_eq!(world.nodes[0].members.at[&(0, "a".to_owned())], top);
}

#[test]
fn outcomes_come_in_the_order_of_a_members_publications() {
    let mut world = World::new(1, 10);
    for name in ["a", &"x".repeat(300), "b"] {
        world.publish(0, 0, name, &[]);
    }
    world.settle();
    let said: Vec<bool> = world.nodes[0].members.outcomes[&0].iter().map(Result::is_ok).collect();
    assert_eq!(said, [false, true, true], "what has no place is told of at once");
    assert!(matches!(&world.nodes[0].members.outcomes[&0][0], Err(why) if why.starts_with("1: ")), "behind the first");
}

#[test]
fn what_nobody_here_wants_does_not_come() {
    let mut world = World::new(1, 10);
    world.nodes[0].say(0, FromMember::Want((Group::Channel, "a")));
    world.nodes[0].say(1, FromMember::Want((Group::Channel, "a")));
    world.settle();
    assert!(world.nodes[0].wanted.contains("ca"));
    world.nodes[0].leave(0, "a");
    world.settle();
    assert!(world.nodes[0].wanted.contains("ca"), "the other does");
    world.nodes[0].sequencer.gone(1, &mut Members::default());
    world.settle();
    assert!(world.nodes[0].wanted.is_empty());
}
