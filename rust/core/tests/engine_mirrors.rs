//! A lane over workers: one engine holds it, clients of another one read the same, from the same snapshot on.
mod support;

use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanwire_core::channel::{Newest, SharedId, Tie};
use fanwire_core::messages::{ConnectionId, Event};
use fanwire_core::node::{Member, Sender};
use fanwire_core::protocol::signalr::HubProtocol;
use fanwire_core::{Asks, Audience, Engine, Message as OfPlain, OwnerId, Route, Settings, Wire};
use support::{HUB, TAKES_MESSAGES, next_event, start_asking, told_of};
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

type Client = WebSocket<MaybeTlsStream<TcpStream>>;

const ANY: Newest = Newest { messages_max: None, age_ns_max: None };
const ID: SharedId = *b"0123456789abcdef";
const HELD: Audience<'static> = Audience::Lane("held");
const MIRRORED: Audience<'static> = Audience::Lane("mirrored");
const TELL: u8 = 10;
const TOLD: u8 = 13;

/// What a worker sends to the others, until it is delivered.
#[derive(Default)]
struct Post(Mutex<Vec<Vec<u8>>>);

impl Sender for Post {
    fn send(&self, message: &[u8], _is_deferred: bool) -> Result<(), (u64, u64)> {
        if message[0] == TELL {
            self.0.lock().expect("nobody panics").push(message.to_vec());
        }
        Ok(())
    }

    fn flush(&self) {}
}

struct Worker {
    number: u32,
    engine: Engine,
    address: String,
    post: Arc<Post>,
}

impl Worker {
    fn new(number: u32) -> Self {
        let asks = Asks { connected: true, records: true, ..TAKES_MESSAGES };
        let settings = Settings { worker: number as u8, ..Settings::default() };
        let (engine, address) = start_asking(settings, asks, &[("/live", HUB)]);
        engine.add_route(Route::new("/feed", Wire::Plain, OwnerId(0)).expect("a path")).expect("it is free");
        let post = Arc::<Post>::default();
        engine.join_workers(Member::new(number as u8, Box::default(), Arc::clone(&post) as _));
        engine.node_up();
        Self { number, engine, address, post }
    }

    /// Has the other one get what this one has told; without the messages at these places.
    fn deliver(&self, other: &Self, lost: &[usize]) -> usize {
        let sent = std::mem::take(&mut *self.post.0.lock().expect("nobody panics"));
        for (index, message) in sent.iter().enumerate() {
            let count = u32::from_le_bytes(message[1..5].try_into().expect("four")) as usize;
            let (to, told) = message[5..].split_at(count);
            let is_for_it = to.chunks(4).any(|number| number == other.number.to_le_bytes());
            if is_for_it && !lost.contains(&index) {
                let told = [&[TOLD], self.number.to_le_bytes().as_slice(), told].concat();
                other.engine.node_received(&told).expect("a message");
            }
        }
        other.engine.node_turned();
        sent.len()
    }

    fn client(&self, protocol: &str) -> (Client, ConnectionId) {
        let (mut client, _) = tungstenite::connect(format!("ws://{}/live", self.address)).expect("an upgrade");
        if let MaybeTlsStream::Plain(socket) = client.get_ref() {
            socket.set_read_timeout(Some(support::PATIENCE)).expect("a timeout");
        }
        let handshake = format!("{{\"protocol\":\"{protocol}\",\"version\":1}}\u{1e}");
        client.send(Message::text(handshake)).expect("sent");
        assert_eq!(client.read().expect("an answer").into_data(), &b"{}\x1e"[..]);
        (client, told_of(&self.engine))
    }

    fn append(&self, records: &[&[u8]], snapshots: &[usize]) {
        self.engine.append_records(HELD, HubProtocol::Json, records, snapshots).expect("runs");
    }

    fn join(&self, id: ConnectionId) -> bool {
        self.engine.join_lane(id, "mirrored", false, ANY).expect("runs")
    }

    /// Mirrors the lane from that worker, as its so-manieth attempt.
    fn mirror_from(&self, holder: &Self, number: u32, lost: Option<Duration>) {
        self.engine.follow(MIRRORED, ID, Tie { worker: holder.number, number }, lost).expect("runs");
        let tie = Tie { worker: self.number, number };
        assert!(holder.engine.mirror(HELD, (ID, None), tie, ANY, false).expect("runs"));
        holder.deliver(self, &[]);
    }
}

fn read_until(client: &mut Client, last: &str) -> String {
    let mut read = String::new();
    while !read.ends_with(last) {
        read.push_str(client.read().expect("a message").to_text().expect("text"));
    }
    read.replace('\u{1e}', " ")
}

#[test]
fn clients_of_a_mirror_get_the_snapshot_and_all_behind_it() {
    let (holder, other) = (Worker::new(1), Worker::new(2));
    holder.engine.set_beginning("held", 1_000).expect("runs");
    holder.append(&[b"early\x1e", b"S1\x1e", b"a\x1e"], &[1]);
    other.mirror_from(&holder, 1, None);
    let (mut first, id) = other.client("json");
    assert!(other.join(id));
    holder.append(&[b"b\x1e"], &[]);
    holder.engine.expect_snapshot("held", true).expect("runs");
    holder.append(&[b"S2\x1e", b"c\x1e"], &[0]);
    holder.deliver(&other, &[]);
    let (mut second, id) = other.client("json");
    assert!(other.join(id));
    holder.append(&[b"S3\x1e", b"d\x1e"], &[0]);
    holder.deliver(&other, &[]);
    assert_eq!(read_until(&mut first, "d\u{1e}"), "S1 a b c S3 d ", "S2 was asked for newcomers' sake");
    assert_eq!(read_until(&mut second, "d\u{1e}"), "S2 c S3 d ");
    holder.engine.unmirror(HELD, &ID, 2);
    holder.append(&[b"e\x1e"], &[]);
    assert_eq!(holder.deliver(&other, &[]), 0, "a lane that nobody mirrors tells nobody");
}

/// Clocks of machines say nothing here: what is new to who has missed something is all that newcomers begin with.
#[test]
fn a_worker_of_another_machine_mirrors_as_well() {
    let (holder, other) = (Worker::new(257), Worker::new(2));
    holder.engine.set_beginning("held", 1_000).expect("runs");
    holder.append(&[b"S1\x1e", b"a\x1e"], &[0]);
    other.mirror_from(&holder, 1, None);
    let (mut client, id) = other.client("json");
    assert!(other.join(id));
    for record in [b"b\x1e", b"c\x1e"] {
        holder.append(&[record], &[]);
    }
    holder.deliver(&other, &[0]);
    assert!(matches!(next_event(&other.engine), Event::Record(40, _)));
    assert!(matches!(next_event(&other.engine), Event::MirrorLost(257, ID)));
    holder.append(&[b"S2\x1e"], &[0]);
    holder.deliver(&other, &[]);
    assert!(other.engine.unfollow(ID, 257).is_some());
    other.mirror_from(&holder, 2, Some(Duration::from_secs(1_000_000_000)));
    holder.append(&[b"d\x1e"], &[]);
    holder.deliver(&other, &[]);
    assert_eq!(read_until(&mut client, "d\u{1e}"), "S1 a S2 d ");
}

#[test]
fn a_lane_that_is_opened_again_begins_anew_in_the_mirror() {
    let (holder, other) = (Worker::new(1), Worker::new(2));
    holder.engine.set_beginning("held", 10).expect("runs");
    holder.append(&[b"S1\x1e", b"a\x1e"], &[0]);
    other.mirror_from(&holder, 1, None);
    let (mut first, id) = other.client("json");
    assert!(other.join(id));
    holder.engine.set_beginning("held", 10).expect("runs");
    holder.engine.bound_beginning("held", 100).expect("runs");
    holder.append(&[b"1234567890\x1e", b"S2\x1e", b"b\x1e"], &[1]);
    holder.engine.forget_beginning("held").expect("runs");
    holder.deliver(&other, &[]);
    let (mut second, id) = other.client("json");
    assert!(other.join(id), "the bound was raised here, too; and it is forgotten here when the mirror says so");
    assert_eq!(read_until(&mut first, "b\u{1e}"), "S1 a 1234567890 S2 b ");
    assert_eq!(read_until(&mut second, "b\u{1e}"), "S2 b ");
}

#[test]
fn what_is_lost_on_the_way_is_told_and_only_what_was_missed_comes_again() {
    let (holder, other) = (Worker::new(1), Worker::new(2));
    holder.engine.set_beginning("held", 1_000).expect("runs");
    holder.append(&[b"S1\x1e"], &[0]);
    other.mirror_from(&holder, 1, None);
    let (mut client, id) = other.client("json");
    assert!(other.join(id));
    let began = std::time::Instant::now();
    for record in [b"a\x1e", b"b\x1e", b"c\x1e"] {
        holder.append(&[record], &[]);
    }
    holder.deliver(&other, &[1]);
    assert!(matches!(next_event(&other.engine), Event::Record(40, _)));
    assert!(matches!(next_event(&other.engine), Event::MirrorLost(1, ID)));
    holder.append(&[b"d\x1e"], &[]);
    holder.deliver(&other, &[]);
    other.mirror_from(&holder, 2, Some(Duration::ZERO));
    holder.append(&[b"e\x1e"], &[]);
    holder.deliver(&other, &[]);
    assert_eq!(read_until(&mut client, "e\u{1e}"), "S1 a e ", "what it may have had does not come twice");
    holder.append(&[b"S2\x1e", b"f\x1e"], &[0]);
    holder.post.0.lock().expect("nobody panics").clear();
    other.mirror_from(&holder, 3, Some(began.elapsed() + Duration::from_secs(1)));
    assert_eq!(read_until(&mut client, "f\u{1e}"), "S2 f ", "a snapshot that is newer is for who has missed something");
}

#[test]
fn since_when_nothing_has_come_is_known_however_late_it_is_asked() {
    let (holder, next, other) = (Worker::new(1), Worker::new(2), Worker::new(3));
    holder.engine.set_beginning("held", 1_000).expect("runs");
    holder.append(&[b"S1\x1e"], &[0]);
    assert_eq!(other.engine.unfollow(ID, 1), None, "it is not followed");
    other.engine.follow(MIRRORED, ID, Tie { worker: 1, number: 9 }, None).expect("runs");
    assert_eq!(other.engine.unfollow(ID, 1), None, "nothing has come");
    other.mirror_from(&holder, 1, None);
    let (mut client, id) = other.client("json");
    assert!(other.join(id));
    for record in [b"a\x1e", b"b\x1e"] {
        holder.append(&[record], &[]);
    }
    holder.deliver(&other, &[1]); // the holder is killed before this is out: it is lost
    next.engine.set_beginning("held", 1_000).expect("runs");
    next.append(&[b"S2\x1e", b"c\x1e"], &[0]);
    // Here that is noticed when the other has asked the backend already.
    let silent = other.engine.unfollow(ID, 1).expect("something has come");
    other.mirror_from(&next, 2, Some(silent));
    assert_eq!(read_until(&mut client, "c\u{1e}"), "S1 a S2 c ");
}

#[test]
fn a_dump_for_an_older_attempt_and_whatever_comes_behind_the_end_is_not_taken() {
    let (holder, other) = (Worker::new(1), Worker::new(2));
    holder.engine.set_beginning("held", 1_000).expect("runs");
    holder.append(&[b"S1\x1e"], &[0]);
    other.engine.follow(MIRRORED, ID, Tie { worker: 1, number: 2 }, None).expect("runs");
    let mirror = |number, newest, is_late| {
        let tie = Tie { worker: 2, number };
        holder.engine.mirror(HELD, (ID, None), tie, newest, is_late).expect("runs")
    };
    assert!(mirror(1, ANY, false));
    holder.append(&[b"a\x1e"], &[]);
    holder.deliver(&other, &[]);
    let (mut client, id) = other.client("json");
    other.engine.join_live(id, "mirrored").expect("runs");
    assert!(!mirror(2, Newest { messages_max: Some(0), ..ANY }, false), "over a bound");
    assert!(mirror(2, ANY, true));
    assert!(mirror(2, ANY, false), "it has all there is");
    holder.append(&[b"b\x1e"], &[]);
    holder.deliver(&other, &[]);
    let (_late, newcomer) = other.client("json");
    assert!(!other.join(newcomer), "it came late, and knows of no snapshot");
    assert_eq!(read_until(&mut client, "b\u{1e}"), "b ");
    holder.append(&[b"c\x1e"], &[]);
    other.engine.unfollow(ID, 1);
    holder.deliver(&other, &[]);
    other.engine.append_records(MIRRORED, HubProtocol::Json, &[b"own\x1e"], &[]).expect("runs");
    assert_eq!(read_until(&mut client, "own\u{1e}"), "own ");
    other.engine.node_received(&[TOLD, 1, 0, 0, 0, 1, 7]).expect("it is no reason to part");
    assert!(matches!(next_event(&other.engine), Event::Record(40, _)));
}

#[test]
fn what_is_sent_to_all_is_mirrored_in_its_protocol_alone() {
    let (holder, other) = (Worker::new(1), Worker::new(2));
    let (hub, source) = (Audience::Hub("/live"), (ID, Some(HubProtocol::Json)));
    let (mut client, _) = other.client("json");
    other.engine.follow(hub, ID, Tie { worker: 1, number: 1 }, None).expect("runs");
    assert!(holder.engine.mirror(hub, source, Tie { worker: 2, number: 1 }, ANY, false).expect("runs"));
    holder.engine.append_records(hub, HubProtocol::MessagePack, &[b"\x01\x90"], &[]).expect("runs");
    assert_eq!(holder.deliver(&other, &[]), 1, "the dump");
    holder.engine.append_records(hub, HubProtocol::Json, &[b"all\x1e"], &[]).expect("runs");
    holder.deliver(&other, &[]);
    assert_eq!(read_until(&mut client, "all\u{1e}"), "all ");
}

#[test]
fn messages_of_a_plain_backend_are_mirrored_as_they_came() {
    let (holder, other) = (Worker::new(1), Worker::new(2));
    holder.engine.append_messages("held", &[OfPlain { is_text: true, data: b"early" }]).expect("runs");
    other.mirror_from(&holder, 1, None);
    let address = other.address.clone();
    let opening = std::thread::spawn(move || tungstenite::connect(format!("ws://{address}/feed")).expect("in").0);
    let whose = loop {
        if let Event::Opening(whose, _) = next_event(&other.engine) {
            break whose.connection;
        }
    };
    other.engine.accept_relayed(whose, Default::default()).expect("runs");
    assert!(other.join(whose));
    let mut client = opening.join().expect("in");
    let messages = [OfPlain { is_text: true, data: b"one" }, OfPlain { is_text: false, data: &[0, 1] }];
    holder.engine.append_messages("held", &messages).expect("runs");
    holder.deliver(&other, &[]);
    assert_eq!(client.read().expect("a message"), Message::text("one"));
    assert_eq!(client.read().expect("a message"), Message::binary(vec![0, 1]));
}
