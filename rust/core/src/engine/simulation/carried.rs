//! SignalR that has no socket for life: by polls and posts, or stateful, on one socket after another.
//!
//! A seed says what is published, sent and called, which shard a request comes to, where a socket breaks and a body is cut.
//! What each client gets is compared with what was published since it was subscribed: all of it, in order and once. So is
//! what the application is told of its calls. A poll whose socket breaks may take with it what it was answered.
use std::os::fd::{AsRawFd, RawFd};

use serde_json::{Value, json};

use super::press::New;
use super::wire;
use super::world::{ALL, MS, World};
use crate::channel::{Origin, Start};
use crate::messages::{Command, ConnectionId, Event};
use crate::protocol::Payload;
use crate::routes::Asks;
use crate::settings::Settings;
use crate::shard::simulated::Luck;

/// What a socket was opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Negotiate,
    Poll,
    Post,
    WebSocket,
}

/// A socket of a client.
#[derive(Debug)]
struct Line {
    fd: RawFd,
    purpose: Purpose,
    /// Of a WebSocket: its request is answered.
    is_open: bool,
    came: Vec<u8>,
}

/// Numbers that come in order and once, but for those that a broken poll took with it.
#[derive(Debug, Default)]
struct Counted {
    next: usize,
    may_miss: bool,
}

impl Counted {
    fn take(&mut self, number: usize) {
        let is_next = number == self.next || (self.may_miss && number > self.next);
        assert!(is_next, "{number} came, and {} was next", self.next);
        (self.next, self.may_miss) = (number + 1, false);
    }

    /// Whether all of so many came.
    fn has_all(&self, count: usize) -> bool {
        self.next == count || (self.may_miss && self.next < count)
    }
}

/// One client.
#[derive(Debug)]
struct Client {
    is_stateful: bool,
    token: Option<String>,
    id: Option<ConnectionId>,
    lines: Vec<Line>,
    has_polled: bool,
    has_shaken_hands: bool,
    is_subscribed: bool,
    /// It was told so.
    is_over: bool,
    /// What is to be posted: a stream of records, cut anywhere.
    outgoing: Vec<u8>,
    calls: usize,
    told: usize,
    publications: Counted,
    privates: Counted,
    privates_sent: usize,
    /// Of stateful ones: calls that are not acknowledged, and the number of the first of them.
    unacked: Vec<Vec<u8>>,
    first_unacked: i64,
    /// The number of the next message that comes, and that of the last one that was looked at.
    incoming: i64,
    latest: i64,
}

struct Stage {
    world: World,
    clients: Vec<Client>,
}

impl Stage {
    fn new(luck: &mut Luck) -> Self {
        let settings = Settings { shards: 1 + luck.below(3), ..Settings::default() };
        let asks = Asks { messages: true, ..Asks::default() };
        let world = World::new(luck.next(), settings, asks, 1, luck.once_in(2));
        world.net.borrow_mut().drifts = luck.once_in(3);
        let client = |_| Client {
            is_stateful: luck.once_in(2),
            token: None,
            id: None,
            lines: Vec::new(),
            has_polled: false,
            has_shaken_hands: false,
            is_subscribed: false,
            is_over: false,
            outgoing: Vec::new(),
            calls: 0,
            told: 0,
            publications: Counted::default(),
            privates: Counted::default(),
            privates_sent: 0,
            unacked: Vec::new(),
            first_unacked: 1,
            incoming: 1,
            latest: 0,
        };
        let clients = (0..4).map(client).collect();
        Self { world, clients }
    }

    fn published(&self) -> usize {
        self.world.press.lists.borrow()[0].all.len()
    }

    /// A request on a socket of its own, to whatever shard.
    fn request(&mut self, place: usize, purpose: Purpose, bytes: Vec<u8>, luck: &mut Luck) {
        let room = if luck.once_in(2) { ALL } else { luck.below(400) };
        let fd = self.world.net.borrow_mut().connect(room);
        self.clients[place].lines.push(Line { fd: fd.as_raw_fd(), purpose, is_open: false, came: Vec::new() });
        let shard = luck.below(self.world.shards.len());
        self.world.engine().shards[shard].command(Command::HandOver(fd, bytes, None));
    }

    /// The client does what is next for it.
    fn act(&mut self, place: usize, luck: &mut Luck) {
        let client = &mut self.clients[place];
        let has = |purpose| client.lines.iter().any(|line| line.purpose == purpose);
        if client.is_over {
            return;
        }
        let Some(token) = client.token.clone() else {
            let reconnects = client.is_stateful;
            if !has(Purpose::Negotiate) {
                let query = format!("negotiateVersion=1&useStatefulReconnect={reconnects}");
                let head = format!("POST /hub/negotiate?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
                self.request(place, Purpose::Negotiate, head.into_bytes(), luck);
            }
            return;
        };
        if client.is_stateful {
            if !has(Purpose::WebSocket) {
                let bytes = upgrade(&token);
                self.request(place, Purpose::WebSocket, bytes, luck);
            }
            return;
        }
        if !has(Purpose::Post) && !client.outgoing.is_empty() && client.has_polled {
            let length = 1 + luck.below(client.outgoing.len());
            let body: Vec<u8> = client.outgoing.drain(..length).collect();
            let head = format!("POST /hub?id={token} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
            return self.request(place, Purpose::Post, [head.into_bytes(), body].concat(), luck);
        }
        if !has(Purpose::Poll) {
            let head = format!("GET /hub?id={token} HTTP/1.1\r\nHost: x\r\n\r\n");
            self.request(place, Purpose::Poll, head.into_bytes(), luck);
        }
    }

    /// A client calls, which the application is told in order and once.
    fn call(&mut self, place: usize) {
        let client = &mut self.clients[place];
        if !client.has_shaken_hands || client.is_over {
            return;
        }
        let record = json!({"type": 1, "target": place.to_string(), "arguments": [client.calls]}).to_string() + "\x1e";
        client.calls += 1;
        if client.is_stateful {
            let frame = wire::frame(1, record.as_bytes());
            client.unacked.push(frame.clone());
            if let Some(line) = client.lines.iter().find(|line| line.is_open) {
                self.world.net.borrow_mut().arrive(line.fd, &frame);
            }
        } else {
            client.outgoing.extend_from_slice(record.as_bytes());
        }
    }

    /// A socket breaks: that of a poll, or of a stateful client.
    fn lose_socket(&mut self, place: usize, is_reset: bool) {
        let client = &mut self.clients[place];
        let is_it = |line: &Line| matches!(line.purpose, Purpose::Poll | Purpose::WebSocket);
        let Some(at) = client.lines.iter().position(is_it).filter(|_| client.is_subscribed) else { return };
        let line = client.lines.remove(at);
        if !client.is_stateful {
            (client.publications.may_miss, client.privates.may_miss) = (true, true);
        }
        let mut net = self.world.net.borrow_mut();
        if !net.sockets[&line.fd].is_shut {
            net.end(line.fd, is_reset);
        }
    }

    /// The application subscribes who is known to it, and sends.
    fn serve(&mut self, place: usize) {
        let published = self.published();
        let client = &mut self.clients[place];
        let Some(id) = client.id.filter(|_| !client.is_over) else { return };
        if !client.is_subscribed {
            (client.is_subscribed, client.publications.next) = (true, published);
            let origin = Origin { since: None, start: Some(Start::Live) };
            return self.world.engine().subscribe(id, "c0", origin).expect("room");
        }
        let text = format!("p|{}|x", client.privates_sent);
        client.privates_sent += 1;
        self.world.engine().send(id, &Payload::Text(&text), None).expect("it runs");
    }

    fn turn(&mut self, shard: usize) -> bool {
        if self.world.give_turn(shard).is_none() {
            return false;
        }
        self.world.shards[shard].look();
        for event in self.world.engine().take_events(10_000) {
            let Event::SignalR(whose, message) = event else { continue };
            let place: usize = message.target.parse().expect("its place");
            let client = &mut self.clients[place];
            assert_eq!(*client.id.get_or_insert(whose.connection), whose.connection);
            assert_eq!(message.body, format!("[{}]", client.told).into_bytes(), "calls are told in order, and once");
            client.told += 1;
            self.world.engine().acknowledge(whose.connection, 1);
        }
        for client in &mut self.clients {
            client.look(&self.world);
        }
        self.world.round_time();
        true
    }

    /// Everyone reads and does what is to be done, until nothing is.
    fn settle(&mut self, luck: &mut Luck) {
        for _ in 0..60 {
            self.world.engine().flush();
            for place in 0..self.clients.len() {
                self.act(place, luck);
                for line in &self.clients[place].lines {
                    self.world.net.borrow_mut().make_room(line.fd, ALL);
                }
            }
            for _ in 0..200 {
                let shards = self.world.shards.len();
                if (0..shards).filter(|&shard| self.turn(shard)).count() == 0 {
                    break;
                }
            }
        }
    }

    fn check_end(&mut self, luck: &mut Luck) {
        self.settle(luck);
        for place in 0..self.clients.len() {
            self.call(place);
        }
        self.settle(luck);
        (0..self.clients.len()).for_each(|place| self.serve(place));
        self.world.publish(0, &New { key: None, ..New::plain(0) });
        self.settle(luck);
        let published = self.published();
        for client in &self.clients {
            assert!(client.has_shaken_hands && client.told == client.calls, "{client:?}");
            assert!(client.publications.has_all(published), "{published} were published: {client:?}");
            assert!(client.privates.has_all(client.privates_sent), "{client:?}");
            self.world.engine().disconnect(client.id.expect("it has called"), 4_000, "go").expect("a good code");
        }
        self.settle(luck);
        assert!(self.clients.iter().all(|client| client.is_over), "all are told of the end: {:?}", self.clients);
        for line in self.clients.iter().flat_map(|client| &client.lines) {
            let mut net = self.world.net.borrow_mut();
            if !net.sockets[&line.fd].is_shut {
                net.end(line.fd, true);
            }
        }
        self.settle(luck);
        self.world.pass(60_000);
        self.settle(luck);
        self.world.shards.iter().for_each(|shard| shard.check_empty());
        assert!(self.world.net.borrow().sockets.values().all(|socket| socket.is_shut), "a socket is left");
    }
}

impl Client {
    /// What a stateful client sends on a socket that is open: at first its handshake, then what is not acknowledged.
    fn greeting(&self) -> Vec<u8> {
        let first = if self.has_shaken_hands {
            json!({"type": 9, "sequenceId": self.first_unacked}).to_string()
        } else {
            json!({"protocol": "json", "version": 2}).to_string()
        };
        let frame = wire::frame(1, (first + "\x1e").as_bytes());
        [frame, self.unacked.concat()].concat()
    }

    /// Takes what has come on its sockets.
    fn look(&mut self, world: &World) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.retain_mut(|line| {
            let is_shut = {
                let mut net = world.net.borrow_mut();
                let socket = net.sockets.get_mut(&line.fd).expect("it was connected");
                line.came.append(&mut socket.taken);
                socket.took.clear();
                socket.is_shut
            };
            let is_done =
                if line.purpose == Purpose::WebSocket { self.read_frames(line, world) } else { self.read_answer(line) };
            if is_done && !is_shut {
                world.net.borrow_mut().end(line.fd, false);
            }
            !is_done && !is_shut
        });
        self.lines.extend(lines);
    }

    /// Reads an answer once it is whole. True then: its socket is for no other request.
    fn read_answer(&mut self, line: &Line) -> bool {
        let Some(end) = memchr::memmem::find(&line.came, b"\r\n\r\n") else { return false };
        let head = std::str::from_utf8(&line.came[..end]).expect("a head is text");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length = length.map_or(0, |length| length.parse().expect("a number"));
        let Some(body) = line.came.get(end + 4..end + 4 + length) else { return false };
        match (line.purpose, &head[..12]) {
            (Purpose::Negotiate, "HTTP/1.1 200") => {
                let reply: Value = serde_json::from_slice(body).expect("JSON");
                self.token = Some(reply["connectionToken"].as_str().expect("a token").to_owned());
            }
            (Purpose::Poll, "HTTP/1.1 204") => self.is_over = true,
            (Purpose::Poll, "HTTP/1.1 200") if !std::mem::replace(&mut self.has_polled, true) => {
                assert_eq!(body, b"", "the first poll only opens the connection");
                self.outgoing.extend_from_slice(b"{\"protocol\":\"json\",\"version\":1}\x1e");
            }
            (Purpose::Poll, "HTTP/1.1 200") => self.read_records(body),
            (Purpose::Post, "HTTP/1.1 200") => {}
            (purpose, _) => panic!("{purpose:?} is answered {head}"),
        }
        true
    }

    /// Reads frames of a WebSocket. True once it has ended.
    fn read_frames(&mut self, line: &mut Line, world: &World) -> bool {
        if !line.is_open {
            let Some(end) = memchr::memmem::find(&line.came, b"\r\n\r\n") else { return false };
            assert!(line.came.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&line.came));
            line.came.drain(..end + 4);
            line.is_open = true;
            if !world.net.borrow().sockets[&line.fd].is_shut {
                world.net.borrow_mut().arrive(line.fd, &self.greeting());
            }
        }
        while let Some((opcode, payload)) = take_frame(&mut line.came) {
            match opcode {
                0x81 => self.read_records(&payload),
                0x88 => return true,
                other => panic!("no frame begins with {other:#x}"),
            }
            let ack = json!({"type": 8, "sequenceId": self.latest}).to_string() + "\x1e";
            if self.latest % 3 == 1 && !world.net.borrow().sockets[&line.fd].is_shut {
                world.net.borrow_mut().arrive(line.fd, &wire::frame(1, ack.as_bytes()));
            }
        }
        false
    }

    fn read_records(&mut self, bytes: &[u8]) {
        let text = std::str::from_utf8(bytes).expect("UTF-8").strip_suffix('\x1e').expect("whole records");
        for record in text.split('\x1e') {
            let record: Value = serde_json::from_str(record).expect("JSON");
            match record["type"].as_u64() {
                None => assert!(!std::mem::replace(&mut self.has_shaken_hands, true), "one answer to its handshake"),
                Some(1) => self.take(record["arguments"][0].as_str().expect("text")),
                Some(6) => {}
                Some(7) => self.is_over = true,
                Some(8) => {
                    let acked = record["sequenceId"].as_i64().expect("a number") + 1 - self.first_unacked;
                    self.unacked.drain(..acked.max(0) as usize);
                    self.first_unacked += acked.max(0);
                }
                Some(9) => self.incoming = record["sequenceId"].as_i64().expect("a number"),
                other => panic!("{other:?} is no message that is sent here"),
            }
        }
    }

    /// A publication, or what is for this client alone; what comes a second time on another socket is known by its number.
    fn take(&mut self, text: &str) {
        let number = self.incoming;
        self.incoming += 1;
        assert!(!self.is_stateful || number <= self.latest + 1, "{number} came, and {} was last", self.latest);
        if self.is_stateful && number <= self.latest {
            return;
        }
        self.latest = number;
        let mut parts = text.split('|');
        let (name, index) = (parts.next(), parts.next().and_then(|index| index.parse().ok()).expect("a number"));
        if name == Some("p") { self.privates.take(index) } else { self.publications.take(index) }
    }
}

/// A request for a WebSocket.
fn upgrade(token: &str) -> Vec<u8> {
    let head = format!("GET /hub?id={token} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
    (head + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n").into_bytes()
}

/// Cuts off a server's frame, if it is whole.
fn take_frame(bytes: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let (head, length) = match *bytes.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
        short => (2, usize::from(short)),
    };
    let payload = bytes.get(head..head + length)?.to_vec();
    let opcode = bytes[0];
    bytes.drain(..head + length);
    Some((opcode, payload))
}

/// One seed, from the first step to the end of everything.
pub(super) fn run(seed: u64) {
    let mut luck = Luck(seed);
    let mut stage = Stage::new(&mut luck);
    for _ in 0..60 + luck.below(300) {
        let place = luck.below(stage.clients.len());
        match luck.below(100) {
            0..15 => {
                let new = New { key: None, bytes: luck.below(600), ..New::plain(0) };
                stage.world.press.publish(0, &new, luck.once_in(4));
            }
            15..50 => {
                let shard = luck.below(stage.world.shards.len());
                stage.turn(shard);
            }
            50..66 => stage.act(place, &mut luck),
            66..74 => stage.call(place),
            74..82 => stage.serve(place),
            82..92 => {
                for line in &stage.clients[place].lines {
                    stage.world.net.borrow_mut().make_room(line.fd, 300);
                }
            }
            92..95 => stage.lose_socket(place, luck.once_in(2)),
            95 => stage.settle(&mut luck),
            _ => {
                stage.world.engine().flush();
                stage.world.clock.fetch_add(luck.below(30) as u64 * MS, std::sync::atomic::Ordering::Relaxed);
            }
        }
    }
    stage.world.net.borrow_mut().drifts = false;
    stage.check_end(&mut luck);
}
