//! Clients that join a lane by their first call, while it is offered, taken back and offered anew; others ask for it.
//!
//! A seed says when. Each client gets the newest snapshot and all that followed, in order and once, and one answer to each
//! call, whoever gave it. And the application knows at any time of how many it is yet to be told.
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use serde_json::{Value, json};

use super::wire;
use super::world::{ALL, World};
use crate::channel::Newest;
use crate::engine::Audience;
use crate::messages::{Command, ConnectionId, Event};
use crate::offers::{OfferedAnswer, OfferedCall, Terms};
use crate::protocol::signalr::{HubMessage, HubProtocol, Outcome};
use crate::routes::{Asks, OwnerId};
use crate::settings::Settings;
use crate::shard::simulated::Luck;

const LANE: &str = "lane";

/// One client, as it sees itself.
#[derive(Debug)]
struct Client {
    fd: RawFd,
    came: Vec<u8>,
    is_open: bool,
    has_shaken_hands: bool,
    /// It has ended its socket.
    is_gone: bool,
    /// Its calls that are not answered yet, in order: whether each joins.
    calls: Vec<bool>,
    called: usize,
    answered: usize,
    /// The number of the last publication, once it has had any since it joined.
    last: Option<usize>,
    watches: bool,
}

#[derive(Default)]
struct Application {
    /// The offer that stands, and how many were told of that have taken it up.
    offer: Option<(u64, u64)>,
    /// By offers that were taken back.
    underway: BTreeMap<u64, u64>,
    joined: usize,
}

struct Stage {
    world: World,
    clients: Vec<Client>,
    application: Application,
    published: usize,
}

impl Stage {
    fn new(luck: &mut Luck) -> Self {
        let settings = Settings { shards: 1 + luck.below(3), ..Settings::default() };
        let asks = Asks { messages: true, connected: true, records: true, ..Asks::default() };
        let world = World::new(luck.next(), settings, asks, 1, luck.once_in(2));
        world.net.borrow_mut().drifts = luck.once_in(3);
        world.engine().set_beginning(LANE, 1 << 20).expect("room");
        Self { world, clients: Vec::new(), application: Application::default(), published: 0 }
    }

    fn publish(&mut self, is_snapshot: bool) {
        self.published += usize::from(!is_snapshot);
        let target = if is_snapshot { "state" } else { "one" };
        let record = json!({"type": 1, "target": target, "arguments": [self.published]}).to_string() + "\x1e";
        let snapshots: &[usize] = if is_snapshot { &[0] } else { &[] };
        let records = [record.as_bytes()];
        let lane = Audience::Lane(LANE);
        self.world.engine().append_records(lane, HubProtocol::Json, &records, snapshots).expect("room");
    }

    fn connect(&mut self, luck: &mut Luck) {
        let room = if luck.once_in(2) { ALL } else { luck.below(400) };
        let fd = self.world.net.borrow_mut().connect(room);
        self.clients.push(Client {
            fd: fd.as_raw_fd(),
            came: Vec::new(),
            is_open: false,
            has_shaken_hands: false,
            is_gone: false,
            calls: Vec::new(),
            called: 0,
            answered: 0,
            last: None,
            watches: false,
        });
        let shard = luck.below(self.world.shards.len());
        let head = wire::Wire::Hub.opening(&[], &[], None, None);
        self.world.engine().shards[shard].command(Command::HandOver(fd, head, None));
    }

    fn call(&mut self, place: usize, joins: bool) {
        let client = &mut self.clients[place];
        if !client.has_shaken_hands || client.is_gone {
            return;
        }
        let target = if joins { "Watch" } else { "Leave" };
        let call = json!({"type": 1, "invocationId": client.called.to_string(), "target": target, "arguments": ["m"]});
        client.called += 1;
        client.calls.push(joins);
        self.world.net.borrow_mut().arrive(client.fd, &wire::frame(1, (call.to_string() + "\x1e").as_bytes()));
    }

    fn offer(&mut self, luck: &mut Luck) {
        self.withdraw();
        let call =
            OfferedCall { owner: OwnerId(0), protocol: HubProtocol::Json, target: "watch", arguments: br#"["m"]"# };
        let new_for = Duration::from_millis(luck.below(20) as u64);
        let age_max = luck.once_in(2).then_some(Duration::from_millis(20));
        let terms = Terms { new_for, messages_max: Some(luck.below(10)), age_max };
        let made = self.world.engine().offer_lane(LANE, call, OfferedAnswer::Result((*b"true").into()), terms);
        self.application.offer = Some((made.expect("room"), 0));
    }

    fn withdraw(&mut self) {
        let Some((number, told)) = self.application.offer.take() else { return };
        let left = self.world.engine().withdraw_lane(number) - told;
        if left > 0 {
            self.application.underway.insert(number, left);
        }
    }

    /// The application deals with what it is told.
    fn take_events(&mut self) {
        for event in self.world.engine().take_events(10_000) {
            match event {
                Event::Joined(_, number) => self.told(number),
                Event::SignalR(whose, message) => {
                    self.answer(whose.connection, &message.target, &message.id);
                    self.world.engine().acknowledge(whose.connection, 1);
                }
                _ => {}
            }
        }
    }

    fn told(&mut self, number: u64) {
        self.application.joined += 1;
        if let Some((_, told)) = self.application.offer.as_mut().filter(|offer| offer.0 == number) {
            *told += 1;
            return;
        }
        let left = self.application.underway.get_mut(&number).expect("of no more than were underway");
        *left -= 1;
        if *left == 0 {
            self.application.underway.remove(&number);
        }
    }

    fn answer(&mut self, id: ConnectionId, target: &str, call: &str) {
        let engine = self.world.engine();
        // It begins anew at the snapshot; of one that has not joined there is nothing to leave.
        if target == "Watch" {
            assert!(engine.join_lane(id, LANE, true, Newest::default()).expect("room"), "all is kept");
        } else {
            engine.leave_lane(id, LANE).expect("it runs");
        }
        let message = HubMessage::Completion { id: call.into(), outcome: Outcome::Result(b"true") };
        engine.send_message(id, &message).expect("it is small");
    }

    fn turn(&mut self, shard: usize, is_told: bool) -> bool {
        if self.world.give_turn(shard).is_none() {
            return false;
        }
        self.world.shards[shard].look();
        if is_told {
            self.take_events();
        }
        for client in &mut self.clients {
            client.look(&self.world);
        }
        self.world.round_time();
        true
    }

    fn settle(&mut self) {
        for _ in 0..20 {
            for client in &self.clients {
                self.world.net.borrow_mut().make_room(client.fd, ALL);
            }
            self.take_events();
            for _ in 0..200 {
                let shards = self.world.shards.len();
                if (0..shards).filter(|&shard| self.turn(shard, true)).count() == 0 {
                    break;
                }
            }
        }
    }

    fn check_end(&mut self) {
        self.settle();
        self.publish(false);
        self.settle();
        self.withdraw();
        assert!(self.application.underway.is_empty(), "{:?}", self.application.underway);
        for client in self.clients.iter().filter(|client| !client.is_gone) {
            assert!(client.has_shaken_hands && client.answered == client.called, "{client:?}");
            assert!(!client.watches || client.last == Some(self.published), "{}: {client:?}", self.published);
            self.world.net.borrow_mut().end(client.fd, true);
        }
        self.settle();
        self.world.pass(60_000);
        self.settle();
        self.world.shards.iter().for_each(|shard| shard.check_empty());
    }
}

impl Client {
    fn look(&mut self, world: &World) {
        {
            let mut net = world.net.borrow_mut();
            let Some(socket) = net.sockets.get_mut(&self.fd).filter(|_| !self.is_gone) else { return };
            self.came.append(&mut socket.taken);
            socket.took.clear();
        }
        if !self.is_open {
            let Some(end) = memchr::memmem::find(&self.came, b"\r\n\r\n") else { return };
            self.came.drain(..end + 4);
            self.is_open = true;
        }
        while let Some((count, payload)) = wire::cut_frame(&self.came) {
            assert_eq!(self.came[0], 0x81, "nothing but text");
            let payload = payload.to_vec();
            self.came.drain(..count);
            for record in payload.split(|&byte| byte == 0x1e).filter(|record| !record.is_empty()) {
                self.take(&serde_json::from_slice(record).expect("JSON"));
            }
        }
    }

    fn take(&mut self, record: &Value) {
        let number = || record["arguments"][0].as_u64().expect("a number") as usize;
        match (record["type"].as_u64(), record["target"].as_str()) {
            (None, _) => self.has_shaken_hands = true,
            (Some(1), Some("state")) => {
                let is_new = self.calls.iter().any(|&joins| joins);
                let is_next = self.last.is_none_or(|last| number() == last);
                assert!(is_new || (self.watches && is_next), "{record}: {self:?}");
                self.last = Some(number());
            }
            (Some(1), Some("one")) => {
                let is_joining = self.calls.iter().any(|&joins| joins);
                let next = self.last.map_or(1, |last| last + 1);
                // Where no snapshot has come it begins with the first.
                assert!(number() == next || (is_joining && number() == 1), "{record}: {self:?}");
                assert!(self.watches || is_joining, "{record}: {self:?}");
                self.last = Some(number());
            }
            (Some(3), _) => {
                assert_eq!(record["invocationId"].as_str(), Some(&*self.answered.to_string()), "in order, and once");
                self.answered += 1;
                self.watches = self.calls.remove(0);
                if !self.watches {
                    self.last = None;
                }
            }
            (Some(6), _) => {}
            other => panic!("{other:?} is no message that is sent here"),
        }
    }
}

/// One seed, from the first step to the end of everything.
pub(super) fn run(seed: u64) {
    let mut luck = Luck(seed);
    let mut stage = Stage::new(&mut luck);
    for _ in 0..60 + luck.below(300) {
        match luck.below(100) {
            0..8 => stage.connect(&mut luck),
            8..20 => stage.publish(luck.once_in(5)),
            20..55 => {
                let (shard, is_told) = (luck.below(stage.world.shards.len()), luck.once_in(2));
                stage.turn(shard, is_told);
            }
            55..60 => stage.take_events(),
            60..70 => stage.offer(&mut luck),
            70..74 => stage.withdraw(),
            74..90 if !stage.clients.is_empty() => {
                let (place, joins) = (luck.below(stage.clients.len()), !luck.once_in(4));
                stage.call(place, joins);
                if luck.once_in(4) {
                    stage.call(place, luck.once_in(2));
                }
            }
            90..95 if !stage.clients.is_empty() => {
                let place = luck.below(stage.clients.len());
                stage.world.net.borrow_mut().make_room(stage.clients[place].fd, 300);
            }
            95 if !stage.clients.is_empty() => {
                let place = luck.below(stage.clients.len());
                let client = &mut stage.clients[place];
                if !std::mem::replace(&mut client.is_gone, true) {
                    stage.world.net.borrow_mut().end(client.fd, luck.once_in(2));
                }
            }
            _ => stage.world.pass(luck.below(30) as u64),
        }
    }
    stage.world.net.borrow_mut().drifts = false;
    stage.check_end();
}
