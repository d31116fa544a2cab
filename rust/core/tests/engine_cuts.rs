//! Stateful reconnect under cuts at random moments: nothing is lost, nothing comes twice, in either direction.
//!
//! A socket that broke while a write to it was blocked was read from once more in the same turn, by a descriptor that
//! was gone; the error of that dropped what had been kept for the client's return (404 for a third of them).
mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fanwire_core::channel::Publication;
use fanwire_core::messages::{ConnectionId, Event, Whose};
use fanwire_core::protocol::signalr::{HubMessage, Outcome};
use fanwire_core::protocol::{Encoded, Payload};
use fanwire_core::{Audience, Engine, Settings};
use serde_json::{Value, json};
use socket2::SockRef;
use support::{
    Chances, Client, HUB, PATIENCE, TAKES_MESSAGES, dial, dial_small, eventually, on_each_poller, start_asking,
};
use tungstenite::{Error, Message};

const PATH: &str = "/signalr";
const PAYLOAD_BYTES: usize = 2_000;
/// Publications that the slowest may be behind: less than the backlog holds, and more than its socket takes.
const BEHIND_MAX: u64 = 300;
const CALLS: u64 = 60;

/// A client's side of a connection that outlives its sockets.
struct Stateful<'a> {
    address: &'a str,
    token: String,
    socket: Option<Client>,
    /// The one before, which the engine may take for living.
    old: Option<Client>,
    /// The number of the next message that comes, and of the last that came.
    next: u64,
    latest: u64,
    /// What was sent and not acknowledged, from the message `first` on.
    unacked: Vec<Value>,
    first: u64,
    publications: Vec<u64>,
    results: BTreeMap<u64, u64>,
}

impl<'a> Stateful<'a> {
    fn connect(address: &'a str) -> Self {
        let token = negotiate(address);
        let mut socket = upgrade(address, &token);
        send(&mut socket, &json!({"protocol": "json", "version": 2}));
        assert_eq!(records(&read(&mut socket).expect("the handshake's answer")), [json!({})]);
        let (publications, results) = (Vec::new(), BTreeMap::new());
        Self {
            address,
            token,
            socket: Some(socket),
            old: None,
            next: 1,
            latest: 0,
            unacked: Vec::new(),
            first: 1,
            publications,
            results,
        }
    }

    fn socket(&mut self) -> &mut Client {
        self.socket.as_mut().expect("only while it comes back it has none")
    }

    fn call(&mut self, number: u64) {
        let call = json!({"type": 1, "invocationId": number.to_string(), "target": "echo", "arguments": [number]});
        self.unacked.push(call.clone());
        send(self.socket(), &call); // a broken socket is found by the next read
    }

    fn acknowledge(&mut self) {
        let ack = json!({"type": 8, "sequenceId": self.latest});
        send(self.socket(), &ack);
    }

    /// Takes what the next frame brings; false when the socket is broken.
    fn take(&mut self) -> bool {
        let Some(text) = read(self.socket()) else { return false };
        for record in records(&text) {
            match record["type"].as_u64().expect("a type") {
                6 => {}
                8 => {
                    let acked = record["sequenceId"].as_u64().expect("a number");
                    let count = (acked + 1).saturating_sub(self.first);
                    self.unacked.drain(..usize::try_from(count).expect("few"));
                    self.first += count;
                }
                9 => self.next = record["sequenceId"].as_u64().expect("a number"),
                kind => {
                    self.next += 1;
                    if self.next - 1 <= self.latest {
                        continue;
                    }
                    assert_eq!(self.next - 1, self.latest + 1, "a message is missing");
                    self.latest = self.next - 1;
                    self.note(kind, &record);
                }
            }
        }
        true
    }

    fn note(&mut self, kind: u64, record: &Value) {
        match kind {
            1 => self.publications.push(record["arguments"][0].as_u64().expect("a number")),
            3 => {
                let number = record["invocationId"].as_str().and_then(|id| id.parse().ok()).expect("one of our calls");
                let is_new = self.results.insert(number, record["result"].as_u64().expect("a result")).is_none();
                assert!(is_new, "call {number} was answered twice");
            }
            other => panic!("type {other}: {record}"),
        }
    }

    /// Loses its socket, in one of several ways, and comes back on a new one: both ends say from where on they send again.
    fn come_back(&mut self, chances: &mut Chances) {
        let stream = dial_small(self.address, 4 << 10);
        let socket = self.socket.take().expect("it has one");
        match chances.below(3) {
            0 => {
                SockRef::from(socket.get_ref()).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
                drop(socket); // with a reset
            }
            1 => drop(socket),
            _ => self.old = Some(socket),
        }
        // The engine notices before it comes back, meanwhile, or not at all.
        (0..chances.below(500)).for_each(|_| std::thread::yield_now());
        let url = format!("ws://{}{PATH}?id={}", self.address, self.token);
        self.socket = match tungstenite::client(url, stream) {
            Ok((socket, _)) => Some(socket),
            Err(error) => panic!("the connection is lost: {error}"),
        };
        let sequence = json!({"type": 9, "sequenceId": self.first});
        send(self.socket(), &sequence);
        for message in &self.unacked {
            send(self.socket.as_mut().expect("just made"), message);
        }
    }
}

fn negotiate(address: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = dial(address);
    let query = "negotiateVersion=1&useStatefulReconnect=true";
    let head =
        format!("POST {PATH}/negotiate?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("it is open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer, then the end");
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    let reply: Value = serde_json::from_str(body).expect("JSON");
    reply["connectionToken"].as_str().expect("a token").to_owned()
}

fn upgrade(address: &str, token: &str) -> Client {
    let url = format!("ws://{address}{PATH}?id={token}");
    tungstenite::client(url, dial_small(address, 4 << 10)).expect("the upgrade is accepted").0
}

fn send(socket: &mut Client, message: &Value) {
    let _ = socket.send(Message::text(format!("{message}\u{1e}"))); // a broken socket is found by the next read
}

/// The next text; `None` when the socket is broken.
fn read(socket: &mut Client) -> Option<String> {
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => return Some(text.as_str().to_owned()),
            Ok(Message::Close(_)) => {}
            Ok(_) => {}
            Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("nothing came for {PATIENCE:?}")
            }
            Err(_) => return None,
        }
    }
}

fn records(text: &str) -> Vec<Value> {
    let records = text.split_terminator('\u{1e}');
    records.map(|record| serde_json::from_str(record).expect("JSON")).collect()
}

/// How far the publisher is, for those who stop reading until there is enough to fill their sockets.
#[derive(Default)]
struct Progress {
    published: AtomicU64,
    waits: AtomicBool,
    is_over: AtomicBool,
}

impl Progress {
    /// Until so many more are published, or somebody is waited for.
    fn stall(&self, count: u64) {
        let until = self.published.load(Ordering::Acquire) + count;
        let is_due = || self.published.load(Ordering::Acquire) >= until || self.waits.load(Ordering::Acquire);
        eventually("more publications", || is_due() || self.is_over.load(Ordering::Acquire));
    }
}

/// One client's life; gives how often it was cut.
fn live(client: &mut Stateful<'_>, seed: u64, publications: u64, progress: &Progress, behind: &AtomicU64) -> u64 {
    let mut chances = Chances(seed);
    let (mut calls, mut cuts) = (0, 0);
    while (client.publications.len() as u64) < publications || (client.results.len() as u64) < CALLS {
        match chances.below(16) {
            0 | 1 => {
                if chances.below(2) == 0 {
                    progress.stall(120);
                }
                client.come_back(&mut chances);
                cuts += 1;
            }
            2 | 3 if calls < CALLS => {
                calls += 1;
                client.call(calls);
            }
            4 | 5 => client.acknowledge(),
            _ if client.take() => behind.store(client.publications.len() as u64, Ordering::Release),
            _ => client.come_back(&mut chances),
        }
        if chances.below(8) == 0 || calls == CALLS {
            client.acknowledge(); // a client that owes acks gets nothing new
        }
        while calls < CALLS && (client.publications.len() as u64) == publications {
            calls += 1;
            client.call(calls);
        }
    }
    cuts
}

/// What an application does: answers each call with its argument.
fn answer_calls(engine: &Engine, calls: &mut BTreeMap<ConnectionId, Vec<u64>>) {
    for event in engine.take_events(1_000) {
        match event {
            Event::SignalR(Whose { connection: id, .. }, call) => {
                let number: u64 = call.id.parse().expect("one of our calls");
                calls.entry(id).or_default().push(number);
                let result = format!("{number}");
                let outcome = Outcome::Result(result.as_bytes());
                engine.send_message(id, &HubMessage::Completion { id: call.id.into(), outcome }).expect("it runs");
                engine.acknowledge(id, 1);
            }
            Event::Closed(whose, code, reason, _) => panic!("{whose:?} was closed: {code} {reason}"),
            _ => {}
        }
    }
}

fn publish(engine: &Engine, number: u64) {
    let arguments = format!("[{number},{:?}]", "x".repeat(PAYLOAD_BYTES));
    let payload = Payload::Arguments(Encoded::alike(Some(arguments.as_bytes()), None));
    let publication = Publication { event: Some("tick"), ..Publication::new(payload) };
    engine.publish_to(Audience::Hub(PATH), &publication, true).expect("it runs").expect("nothing to encode");
}

/// So many clients under random cuts while so much is published; gives how often they were cut.
fn survive(settings: Settings, seed: u64, clients: usize, publications: u64) -> u64 {
    let (engine, address) = start_asking(Settings { shards: 2, ..settings }, TAKES_MESSAGES, &[(PATH, HUB)]);
    let mut alive: Vec<Stateful<'_>> = (0..clients).map(|_| Stateful::connect(&address)).collect();
    eventually("everybody has joined", || engine.stats().subscriptions == clients as u64);
    let (progress, mut calls) = (Progress::default(), BTreeMap::new());
    let behind: Vec<AtomicU64> = (0..clients).map(|_| AtomicU64::new(0)).collect();
    let cuts = std::thread::scope(|scope| {
        let lives = (0..).zip(alive.iter_mut().zip(&behind)).map(|(index, (client, behind))| {
            let progress = &progress;
            scope.spawn(move || live(client, seed * 1_000 + index, publications, progress, behind))
        });
        let lives: Vec<_> = lives.collect();
        for number in 0..publications {
            let slowest = || behind.iter().map(|one| one.load(Ordering::Acquire)).min().unwrap_or(number);
            if number - slowest() >= BEHIND_MAX {
                engine.flush();
                progress.waits.store(true, Ordering::Release);
                eventually("the slowest goes on", || {
                    answer_calls(&engine, &mut calls);
                    number - slowest() < BEHIND_MAX || lives.iter().any(|life| life.is_finished())
                });
                progress.waits.store(false, Ordering::Release);
            }
            publish(&engine, number);
            progress.published.store(number + 1, Ordering::Release);
            if number % 60 == 59 {
                engine.flush();
                answer_calls(&engine, &mut calls);
            }
        }
        engine.flush();
        progress.is_over.store(true, Ordering::Release);
        eventually("all have all", || {
            answer_calls(&engine, &mut calls);
            lives.iter().all(|life| life.is_finished())
        });
        lives.into_iter().map(|life| life.join().expect("its life was told above")).sum()
    });
    for client in &alive {
        assert!(client.publications.iter().copied().eq(0..publications), "{:?}", client.publications);
        assert!(client.results.iter().all(|(number, result)| number == result));
        assert_eq!(client.results.len() as u64, CALLS);
    }
    assert_eq!(calls.len(), clients);
    for (id, calls) in calls {
        assert!(calls.iter().copied().eq(1..=CALLS), "{id:?}: {calls:?}");
    }
    cuts
}

#[test]
fn no_cut_at_any_moment_loses_or_doubles_anything() {
    on_each_poller(|settings| {
        let cuts: u64 = (1..=2).map(|seed| survive(settings.clone(), seed, 4, 600)).sum();
        eprintln!("{cuts} cuts");
        assert!(cuts > 50, "{cuts} cuts");
    });
}

/// The same for long: `make soak`.
#[test]
#[ignore = "takes a minute: `make soak` runs it"]
fn no_cut_of_thousands_loses_or_doubles_anything() {
    on_each_poller(|settings| {
        let cuts: u64 = (1..=20).map(|seed| survive(settings.clone(), seed, 8, 1_500)).sum();
        eprintln!("{cuts} cuts");
        assert!(cuts > 2_000, "{cuts} cuts");
    });
}

/// What a shard owes a client may be what finds the socket broken: while it drains, the client is not kept. The shard
/// went on with the slot of a connection that was gone, and died.
#[test]
fn a_client_whose_socket_breaks_at_an_ack_while_all_is_drained_ends_alone() {
    on_each_poller(|settings| {
        let settings = Settings { messages_pending_max: 1_000, ..settings };
        let (engine, address) = start_asking(settings, TAKES_MESSAGES, &[(PATH, HUB)]);
        let clients: Vec<Stateful<'_>> = (0..50).map(|_| Stateful::connect(&address)).collect();
        engine.drain(1012, "", Duration::from_secs(60)).expect("it runs");
        for mut client in clients {
            let call = json!({"type": 1, "target": "echo", "arguments": []});
            let calls: String = (0..40).map(|_| format!("{call}\u{1e}")).collect();
            client.socket().send(Message::text(calls)).expect("it is open");
            SockRef::from(client.socket().get_ref()).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
        }
        eventually("all are gone", || engine.stats().connections == 0);
    });
}
