//! Engines as workers of one server, with real sockets: one order for all, whatever becomes of one of them.
use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fanwire_core::channel::{HeardData, Pattern, Publication};
use fanwire_core::messages::Event;
use fanwire_core::node::{Outcome, Placing};
use fanwire_core::protocol::{Encoded, Payload};
use fanwire_core::{
    Audience, ChannelRule, ChannelSettings, Engine, EngineError, OwnerId, Position, Route, Settings, Wire,
};
use fanwire_node::{Link, Server, join, sequence};

fn settings(worker: u8, history_frames: usize) -> Settings {
    let promised = ChannelSettings { history_frames, ..ChannelSettings::default() };
    let rule = ChannelRule { pattern: Pattern::new("*").expect("a pattern"), settings: promised };
    Settings { worker, channels: vec![rule], ..Settings::default() }
}

fn quiet(level: u8, text: String) {
    assert!(level < 40, "{text}");
}

/// A folder that goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fanwire-together-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("sequencer")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One worker, its link, and where it listens.
struct Worker {
    engine: Arc<Engine>,
    link: Option<Link>,
    address: String,
}

impl Worker {
    fn new(folder: &Folder, number: u8, history: usize) -> Self {
        let engine = Arc::new(Engine::new(settings(number, history)).expect("good settings"));
        engine.add_route(Route::new("/ws", Wire::WebSocket, OwnerId(0)).expect("a path")).expect("it is free");
        engine.start().expect("a thread");
        let link = join(&engine, &folder.socket(), engine.settings(), quiet).expect("it is welcome");
        let address = engine.listen("127.0.0.1:0").expect("a free port");
        Self { engine, link: Some(link), address }
    }

    fn publish(&self, channel: &str, text: &str) -> Result<Arc<Placing>, EngineError> {
        let publication = Publication::new(Payload::Text(text));
        let placing = self.engine.publish_for_all(Audience::Channel(channel), &publication, false)?;
        Ok(placing.expect("there is a sequencer"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.link.take());
        self.engine.stop();
    }
}

/// A client of `/ws`.
struct Client(TcpStream);

impl Client {
    fn new(worker: &Worker, query: &str) -> Self {
        let mut stream = TcpStream::connect(&worker.address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("an option");
        write!(
            stream,
            "GET /ws?{query} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        .expect("a socket");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        Self(stream)
    }

    /// The next message, or the code of the Close frame.
    fn next(&mut self) -> Result<String, u16> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).expect("a frame");
        let mut length = usize::from(head[1]);
        if length == 126 {
            let mut more = [0; 2];
            self.0.read_exact(&mut more).expect("a length");
            length = usize::from(u16::from_be_bytes(more));
        }
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).expect("a payload");
        match head[0] {
            0x88 => Err(u16::from_be_bytes([payload[0], payload[1]])),
            _ => Ok(String::from_utf8_lossy(&payload).into_owned()),
        }
    }

    fn texts(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.next().expect("a message")).collect()
    }
}

fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

fn place(placing: &Placing) -> Position {
    match until("it has a place", || placing.outcome()) {
        Outcome::At(position) => position,
        Outcome::Failed(why) => panic!("{why}"),
    }
}

fn sequencer(folder: &Folder, history: usize) -> Server {
    sequence(&folder.socket(), settings(0, history), None, quiet).expect("the place is free")
}

#[test]
fn what_four_publish_at_once_comes_to_all_clients_in_one_order() {
    const EACH: usize = 1_000;
    let folder = Folder::new("order");
    let _server = sequencer(&folder, 0);
    let workers: Vec<Worker> = (0..4).map(|number| Worker::new(&folder, number, 0)).collect();
    let mut clients: Vec<Client> = workers.iter().map(|worker| Client::new(worker, "channel=a&channel=b")).collect();
    until("all are on both", || workers.iter().all(|one| one.engine.occupancy("b") == 1).then_some(()));
    let positions: Vec<Vec<Position>> = std::thread::scope(|scope| {
        let publish = |(index, worker): (usize, &Worker)| {
            let publish = |number| worker.publish("a", &format!("{index}:{number}")).expect("room");
            let placings: Vec<_> = (0..EACH).map(publish).collect();
            placings.iter().map(|one| place(one)).collect()
        };
        let threads: Vec<_> = workers.iter().enumerate().map(|one| scope.spawn(move || publish(one))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let first = clients[0].texts(4 * EACH);
    for client in &mut clients[1..] {
        assert_eq!(client.texts(4 * EACH), first);
    }
    // A position says where it came, and one publisher's publications stay in their order.
    for (index, positions) in positions.iter().enumerate() {
        assert!(positions.is_sorted());
        for (number, position) in positions.iter().enumerate() {
            assert_eq!(first[position.offset as usize - 1], format!("{index}:{number}"));
        }
    }
    let newest = workers[2].engine.position("a").expect("it is here");
    assert_eq!(newest.offset, 4 * EACH as u64);
}

#[test]
fn who_comes_late_or_comes_back_elsewhere_lacks_nothing() {
    let folder = Folder::new("late");
    let _server = sequencer(&folder, 100);
    let workers: Vec<Worker> = (0..2).map(|number| Worker::new(&folder, number, 100)).collect();
    let mut first = Client::new(&workers[0], "channel=a");
    let placings: Vec<_> =
        (0..10).map(|number| workers[number % 2].publish("a", &number.to_string()).expect("room")).collect();
    let mut expected: Vec<String> = first.texts(10);
    let since = place(&placings[3]);
    let at = since.offset as usize;
    // The other worker has nothing of this channel, nor has a third, which comes now.
    let third = Worker::new(&folder, 2, 100);
    for worker in [&workers[1], &third] {
        let mut back = Client::new(worker, &format!("channel=a&since={since}"));
        let told = back.next().expect("an answer");
        assert!(told.contains("\"recovered\":{\"a\":true}"), "{told}");
        assert_eq!(back.texts(10 - at), expected[at..]);
        assert_eq!(Client::new(worker, "channel=a&start=history").texts(10), expected);
    }
    drop(third);
    let mut fourth = Client::new(&workers[1], "channel=a");
    until("it is on it", || (workers[1].engine.occupancy("a") == 1).then_some(()));
    place(&workers[0].publish("a", "last").expect("room"));
    expected = vec![first.next().expect("a message")];
    assert_eq!(fourth.texts(1), expected);
}

#[test]
fn a_worker_that_nobody_subscribes_in_is_sent_nothing() {
    let folder = Folder::new("interest");
    let _server = sequencer(&folder, 0);
    let workers: Vec<Worker> = (0..2).map(|number| Worker::new(&folder, number, 0)).collect();
    let mut client = Client::new(&workers[0], "channel=a");
    until("it is on it", || (workers[0].engine.occupancy("a") == 1).then_some(()));
    place(&workers[1].publish("a", "x").expect("room"));
    assert_eq!(client.next().as_deref(), Ok("x"));
    assert_eq!(workers[1].engine.stats().channels, 0, "it has no such channel");
}

#[test]
fn the_program_hears_what_others_publish() {
    let folder = Folder::new("heard");
    let _server = sequencer(&folder, 0);
    let workers: Vec<Worker> = (0..2).map(|number| Worker::new(&folder, number, 0)).collect();
    let ears: Vec<_> =
        ["odds:*", "odds:7"].map(|pattern| workers[0].engine.listen_to(pattern, 1).expect("room")).into();
    // What it tells is behind what it listens to: all who publish then are heard.
    let told = |worker: &Worker| worker.engine.take_events(100).iter().any(|one| matches!(one, Event::Told(..)));
    workers[0].engine.tell_workers(&[], 0, b"I listen").expect("room");
    until("the other knows", || told(&workers[1]).then_some(()));
    for text in ["1", "2"] {
        place(&workers[1].publish("odds:7", text).expect("room"));
        place(&workers[1].publish("goals", text).expect("room"));
    }
    for ear in &ears {
        let heard = RefCell::new(Vec::new());
        until("both are heard", || {
            heard.borrow_mut().extend(workers[0].engine.hear(ear, 10).expect("it keeps pace"));
            (heard.borrow().len() >= 2).then_some(())
        });
        let texts: Vec<_> = heard.borrow().iter().map(|one| (one.channel.to_string(), one.data.clone())).collect();
        let text = |text: &str| ("odds:7".to_owned(), HeardData::Text(text.into()));
        assert_eq!(texts, [text("1"), text("2")]);
        workers[0].engine.unlisten(ear);
    }
}

#[test]
fn one_that_is_set_to_something_else_is_refused_and_told_why() {
    let folder = Folder::new("refused");
    let _server = sequencer(&folder, 0);
    let engine = Arc::new(Engine::new(settings(1, 5)).expect("good settings"));
    engine.start().expect("a thread");
    let refused = join(&engine, &folder.socket(), engine.settings(), |_, _| ()).expect_err("another history");
    assert!(refused.to_string().contains("worker 1 has other channels or bounds"), "{refused}");
    engine.stop();
    let _first = Worker::new(&folder, 1, 0);
    let engine = Arc::new(Engine::new(settings(1, 0)).expect("good settings"));
    engine.start().expect("a thread");
    let refused = join(&engine, &folder.socket(), engine.settings(), |_, _| ()).expect_err("the same number");
    assert!(refused.to_string().contains("there is a worker 1 already"), "{refused}");
    engine.stop();
}

/// Positions of the one that is gone never name what the next one orders.
#[test]
fn a_sequencer_that_is_gone_is_found_again_and_positions_do_not_fork() {
    let folder = Folder::new("gone");
    let server = sequencer(&folder, 100);
    let workers: Vec<Worker> = (0..2).map(|number| Worker::new(&folder, number, 100)).collect();
    let mut clients: Vec<Client> = workers.iter().map(|worker| Client::new(worker, "channel=a")).collect();
    until("all are on it", || workers.iter().all(|one| one.engine.occupancy("a") == 1).then_some(()));
    let before = place(&workers[0].publish("a", "before").expect("room"));
    clients.iter_mut().for_each(|client| assert_eq!(client.next().as_deref(), Ok("before")));
    server.stop();
    until("they know", || matches!(workers[0].publish("a", "x"), Err(EngineError::Apart)).then_some(()));
    let _server = sequencer(&folder, 100);
    let placing = until("they are back", || workers[0].publish("a", "after").ok());
    let after = place(&placing);
    assert!(after.epoch > before.epoch, "{before} {after}");
    // Policy `every` promises what nobody knows any more: who was there is closed, and told so.
    for client in &mut clients {
        match client.next() {
            Err(code) => assert_eq!(code, 1013),
            Ok(text) => assert_eq!(text, "after", "its channel was given anew before anything was published"),
        }
    }
    let mut back = Client::new(&workers[1], &format!("channel=a&since={before}"));
    let told = back.next().expect("an answer");
    assert!(told.contains("\"recovered\":{\"a\":false}"), "{told}");
}

/// Each encoding crosses: nobody knows what the clients of others speak.
#[test]
fn an_object_comes_in_the_encoding_that_a_client_elsewhere_speaks() {
    let folder = Folder::new("encodings");
    let _server = sequencer(&folder, 0);
    let workers: Vec<Worker> = (0..2).map(|number| Worker::new(&folder, number, 0)).collect();
    let mut client = Client::new(&workers[1], "channel=a&format=msgpack");
    until("it is on it", || (workers[1].engine.occupancy("a") == 1).then_some(()));
    let formats = workers[0].engine.formats_of(Audience::Channel("a"));
    let object = Payload::Object(Encoded::alike(Some(b"\"text\""), Some(b"\xA4text")));
    assert!(formats.without(object.formats()).is_empty());
    let publication = Publication::new(object);
    workers[0].engine.publish_for_all(Audience::Channel("a"), &publication, false).expect("room");
    assert!(client.next().is_ok_and(|got| got.ends_with("text") && got != "text"), "MessagePack's");
}
