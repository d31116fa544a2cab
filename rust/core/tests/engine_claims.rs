//! Claims of a hostile reader. Each runs on both pollers.
#![allow(missing_docs, unsafe_code, clippy::undocumented_unsafe_blocks)]
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fanwire_core::channel::{Pattern, Publication};
use fanwire_core::messages::{ConnectionId, Event};
use fanwire_core::protocol::Payload;
use fanwire_core::{ChannelBounds, ChannelRule, Engine, PollerKind, Settings};

const POLLERS: [PollerKind; 2] = if option_env!("URING_FIRST").is_some() {
    [PollerKind::Uring, PollerKind::Epoll]
} else {
    [PollerKind::Epoll, PollerKind::Uring]
};

fn start(settings: Settings) -> (Engine, String) {
    let engine = Engine::new(settings).expect("settings");
    engine.start().expect("start");
    let address = engine.listen("127.0.0.1:0").expect("listen");
    (engine, address)
}

fn on(poller: PollerKind) -> Settings {
    Settings { poller: Some(poller), ..Settings::default() }
}

struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    fn request(address: &str, target: &str) -> Self {
        let mut stream = TcpStream::connect(address).expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
        write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").expect("request");
        Self { stream, buffer: Vec::new() }
    }
    fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return String::from_utf8(head).expect("ascii");
            }
            assert!(self.fill().expect("head"), "end of stream before a head");
        }
    }
    fn open(address: &str, target: &str) -> Self {
        let mut client = Self::request(address, target);
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        client
    }
    fn fill(&mut self) -> std::io::Result<bool> {
        let mut room = vec![0; 1 << 16];
        let count = self.stream.read(&mut room)?;
        self.buffer.extend_from_slice(&room[..count]);
        Ok(count > 0)
    }
    /// The next frame: opcode and payload; None at the end of the stream.
    fn frame(&mut self) -> std::io::Result<Option<(u8, Vec<u8>)>> {
        loop {
            let b = &self.buffer;
            if b.len() >= 2 {
                let (at, len) = match b[1] {
                    126 if b.len() >= 4 => (4, u64::from(u16::from_be_bytes([b[2], b[3]]))),
                    127 if b.len() >= 10 => (10, u64::from_be_bytes(b[2..10].try_into().expect("8"))),
                    126 | 127 => (0, 0),
                    short => (2, u64::from(short)),
                };
                let end = at + len as usize;
                if at > 0 && b.len() >= end {
                    let opcode = b[0] & 15;
                    let payload = b[at..end].to_vec();
                    self.buffer.drain(..end);
                    return Ok(Some((opcode, payload)));
                }
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }
    fn text(&mut self) -> String {
        match self.frame().expect("a frame") {
            Some((1, text)) => String::from_utf8(text).expect("utf-8"),
            other => panic!(
                "{:?}",
                other.map(|(op, p)| (op, String::from_utf8_lossy(&p).chars().take(80).collect::<String>()))
            ),
        }
    }
}

fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    let mut out = vec![0x80 | opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    out.extend_from_slice(payload);
    out
}

fn publish(engine: &Engine, channel: &str, text: &str, ttl: Option<Duration>, deferred: bool) {
    let publication =
        Publication { payload: Payload::Text(text), event: None, ttl_ns: ttl.map(|t| t.as_nanos() as u64) };
    engine.publish(channel, &publication, deferred).expect("published").expect("text needs no encoding");
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn wait_for_id(engine: &Engine) -> ConnectionId {
    let mut found = None;
    until("an event with an id", || {
        for event in engine.take_events(100) {
            match event {
                Event::Text(id, _) => {
                    engine.acknowledge(id, 1);
                    found = Some(id);
                }
                Event::Opening(id, _) => found = Some(id),
                _ => {}
            }
        }
        found.is_some()
    });
    found.expect("until")
}

#[test]
fn a_first_connection_after_a_long_silence_is_served() {
    for poller in POLLERS {
        let (_engine, address) = start(Settings { handshake_timeout: Duration::from_millis(500), ..on(poller) });
        std::thread::sleep(Duration::from_millis(1_500));
        let mut stream = TcpStream::connect(&address).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(3))).expect("timeout");
        std::thread::sleep(Duration::from_millis(50));
        write!(stream, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("send");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap_or_else(|e| panic!("{poller:?}: {e}"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{poller:?}: {answer:?}");
    }
}

#[test]
fn a_frame_that_expires_takes_no_living_ones_with_it() {
    for poller in POLLERS {
        let (engine, address) = start(on(poller));
        let mut client = Client::open(&address, "/ws?channel=c");
        until("subscribed", || engine.occupancy("c") == 1);
        let ttl = Some(Duration::from_nanos(1));
        for round in 0..20 {
            std::thread::sleep(Duration::from_millis(7));
            // 31 pieces between frames that expire, then living frames over a segment's edge, then one that expires.
            for index in 0..31 {
                publish(&engine, "c", "expires", ttl, true);
                publish(&engine, "c", &format!("{round}.{index}:"), None, true);
            }
            publish(&engine, "c", "expires", ttl, true);
            let filler = "x".repeat(600);
            for index in 31..80 {
                publish(&engine, "c", &format!("{round}.{index}:{filler}"), None, true);
            }
            publish(&engine, "c", "expires", ttl, true);
            publish(&engine, "c", "last:", None, true);
            engine.flush();
            let mut seen = Vec::new();
            loop {
                let text = client.text();
                let name = text.split(':').next().expect("name").to_owned();
                if name == "last" {
                    break;
                }
                if name != "expires" {
                    seen.push(name);
                }
            }
            let missing: Vec<usize> = (0..80).filter(|i| !seen.contains(&format!("{round}.{i}"))).collect();
            assert!(missing.is_empty(), "{poller:?}, round {round}: lost are {missing:?} of 80");
        }
    }
}

#[test]
fn a_subscriber_of_a_channel_with_a_long_unsent_log_gets_what_follows() {
    for poller in POLLERS {
        let rule = ChannelRule {
            pattern: Pattern::new("c").expect("p"),
            bounds: ChannelBounds { backlog_bytes: 1 << 30, backlog_frames: 1 << 20 },
        };
        let (engine, address) =
            start(Settings { asks_opening: true, subscriptions_max: 1 << 20, channels: vec![rule], ..on(poller) });
        let mut first = Client::request(&address, "/ws");
        engine.accept(wait_for_id(&engine), ["c"]).expect("accept");
        first.head();
        let mut second = Client::request(&address, "/ws");
        let id = wait_for_id(&engine);
        engine.accept(id, []).expect("accept");
        second.head();
        // The shard is busy for a while with somebody's many subscriptions.
        let mut third = Client::request(&address, "/ws");
        let names: Vec<String> = (0..12_000).map(|i| format!("n{i}")).collect();
        engine.accept(wait_for_id(&engine), names.iter().map(String::as_str)).expect("accept");
        std::thread::sleep(Duration::from_millis(3));
        let filler = "x".repeat(60_000);
        for _ in 0..300 {
            publish(&engine, "c", &filler, None, false);
        }
        engine.subscribe(id, "c").expect("subscribe");
        std::thread::sleep(Duration::from_millis(500));
        publish(&engine, "c", "hello", None, false);
        second.stream.set_read_timeout(Some(Duration::from_secs(3))).expect("timeout");
        let got = second.frame();
        assert!(
            matches!(&got, Ok(Some((1, t))) if t == b"hello"),
            "{poller:?}: {:?}",
            got.map(|f| f.map(|f| f.1.len()))
        );
        drop(first);
        third.head();
    }
}

#[test]
fn an_end_of_stream_right_behind_data_is_seen() {
    for poller in POLLERS {
        let (engine, address) = start(on(poller));
        let client = Client::open(&address, "/ws");
        until("open", || engine.stats().connections == 1);
        let one = 1_i32;
        unsafe {
            libc::setsockopt(client.stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_CORK, (&raw const one).cast(), 4)
        };
        (&client.stream).write_all(&masked(1, b"hi")).expect("send");
        client.stream.shutdown(Shutdown::Write).expect("fin");
        let began = Instant::now();
        while engine.stats().connections == 1 && began.elapsed() < Duration::from_secs(4) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(engine.stats().connections, 0, "{poller:?}: the end was not seen in 4 s");
    }
}

#[test]
fn a_publication_rings_also_when_a_deferred_one_waits() {
    for poller in POLLERS {
        let (engine, address) = start(on(poller));
        let mut client = Client::open(&address, "/ws?channel=c");
        until("subscribed", || engine.occupancy("c") == 1);
        let mut worst = Duration::MAX;
        for _ in 0..10 {
            std::thread::sleep(Duration::from_millis(7));
            let began = Instant::now();
            publish(&engine, "c", "deferred", None, true);
            publish(&engine, "c", "now", None, false);
            while client.text() != "now" {}
            worst = worst.min(began.elapsed());
        }
        // The tick of 100 ms would bring it by chance: so the median, not one.
        println!("{poller:?} best {worst:?}");
        let mut all: Vec<Duration> = (0..11)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(13));
                let began = Instant::now();
                publish(&engine, "c", "deferred", None, true);
                publish(&engine, "c", "now", None, false);
                while client.text() != "now" {}
                began.elapsed()
            })
            .collect();
        all.sort();
        assert!(all[5] < Duration::from_millis(30), "{poller:?}: median {:?}", all[5]);
    }
}

#[test]
fn bytes_out_are_what_went_out_also_when_a_write_has_too_many_pieces() {
    for poller in POLLERS {
        let (engine, address) = start(on(poller));
        let query: String = (0..100).map(|i| format!("&channel=c{i}")).collect();
        let mut client = Client::open(&address, &format!("/ws?{}", &query[1..]));
        until("subscribed", || engine.stats().subscriptions == 100);
        let before = engine.stats().bytes_out;
        for i in 0..100 {
            publish(&engine, &format!("c{i}"), "twenty bytes of text", None, true);
        }
        engine.flush();
        for _ in 0..100 {
            client.text();
        }
        std::thread::sleep(Duration::from_millis(50));
        let stats = engine.stats();
        assert_eq!((stats.deliveries, stats.bytes_out.wrapping_sub(before)), (100, 2_200), "{poller:?}");
    }
}

#[test]
fn a_private_message_of_the_bound_reaches_an_idle_client() {
    for poller in POLLERS {
        let (engine, address) = start(Settings { outbox_bytes_max: 1_000, asks_opening: true, ..on(poller) });
        let mut client = Client::request(&address, "/ws");
        let id = wait_for_id(&engine);
        engine.accept(id, []).expect("accept");
        client.head();
        engine.send(id, &Payload::Text(&"x".repeat(1_000))).expect("allowed by send");
        let (opcode, payload) = client.frame().expect("frame").expect("frame");
        assert_eq!((opcode, payload.len()), (1, 1_000), "{poller:?}");
        engine.send(id, &Payload::Text("and on")).expect("allowed by send");
        let (opcode, payload) = client.frame().expect("frame").expect("frame");
        assert_eq!(opcode, 1, "{poller:?}: closed: {}", String::from_utf8_lossy(&payload));
    }
}

fn resident_mb() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("statm");
    text.split(' ').nth(1).expect("rss").parse::<u64>().expect("number") / 256
}

#[test]
fn an_outbox_that_is_never_empty_does_not_grow() {
    for poller in POLLERS {
        let (engine, address) = start(Settings { asks_opening: true, outbox_bytes_max: 32 << 20, ..on(poller) });
        let mut client = Client::request(&address, "/ws");
        let id = wait_for_id(&engine);
        engine.accept(id, []).expect("accept");
        client.head();
        let piece = "x".repeat(16_000);
        while engine.stats().lagging == 0 {
            engine.send(id, &Payload::Text(&piece)).expect("send");
            std::thread::sleep(Duration::from_millis(2));
        }
        // 10 MB more wait in the outbox: far from the bound of 32 MiB, far from empty.
        for _ in 0..640 {
            engine.send(id, &Payload::Text(&piece)).expect("send");
        }
        let before = resident_mb();
        let began = Instant::now();
        let mut rounds = 0;
        while rounds < 20_000 && began.elapsed() < Duration::from_secs(8) {
            // One is read, one is sent.
            assert_eq!(client.frame().expect("frame").expect("still open").1.len(), 16_000);
            engine.send(id, &Payload::Text(&piece)).expect("send");
            rounds += 1;
        }
        let grown = resident_mb().saturating_sub(before);
        assert!(
            grown < 64,
            "{poller:?}: {grown} MB more after {} MB through an outbox of 32 MiB",
            (rounds * 16_000) >> 20
        );
    }
}

#[test]
fn a_subscriber_is_not_left_behind_the_head_when_the_last_other_one_leaves() {
    for poller in POLLERS {
        let rule = ChannelRule {
            pattern: Pattern::new("c").expect("p"),
            bounds: ChannelBounds { backlog_bytes: 1 << 20, backlog_frames: 1 },
        };
        let (engine, address) =
            start(Settings { asks_opening: true, unsent_bytes_max: 1 << 16, channels: vec![rule], ..on(poller) });
        let mut first = Client::request(&address, "/ws");
        let first_id = wait_for_id(&engine);
        engine.accept(first_id, ["c"]).expect("accept");
        first.head();
        let mut second = Client::request(&address, "/ws");
        let second_id = wait_for_id(&engine);
        // While accept goes through its channels the other subscriber leaves and things are published.
        let names = std::iter::once("c").chain((0..3).map(|step| {
            match step {
                0 => {
                    publish(&engine, "c", "one", None, false);
                    std::thread::sleep(Duration::from_millis(250));
                }
                1 => {
                    engine.unsubscribe(first_id, "c").expect("unsubscribe");
                    std::thread::sleep(Duration::from_millis(250));
                }
                _ => {
                    publish(&engine, "c", "two", None, false);
                    publish(&engine, "c", "three", None, false);
                }
            }
            "other"
        }));
        engine.accept(second_id, names).expect("accept");
        second.head();
        std::thread::sleep(Duration::from_millis(100));
        for _ in 0..3 {
            publish(&engine, "c", "later", None, false);
            std::thread::sleep(Duration::from_millis(20));
        }
        second.stream.set_read_timeout(Some(Duration::from_secs(2))).expect("timeout");
        // Either it gets what follows or it is told with a Close that it was too slow; not silence.
        let got = second.frame();
        assert!(matches!(got, Ok(Some(_))), "{poller:?}: silence: {got:?}");
    }
}

#[test]
fn what_is_published_after_unsubscribe_does_not_reach() {
    for poller in POLLERS {
        let (engine, address) = start(Settings { asks_opening: true, ..on(poller) });
        let mut client = Client::request(&address, "/ws");
        let id = wait_for_id(&engine);
        engine.accept(id, ["c"]).expect("accept");
        client.head();
        let mut leaks = 0;
        for _ in 0..200 {
            std::thread::sleep(Duration::from_millis(1));
            engine.unsubscribe(id, "c").expect("unsubscribe");
            publish(&engine, "c", "secret", None, false);
            engine.subscribe(id, "c").expect("subscribe");
            publish(&engine, "c", "open", None, false);
            while client.text() != "open" {
                leaks += 1;
            }
        }
        assert_eq!(leaks, 0, "{poller:?}: of 200 publications after unsubscribe reached the client");
    }
}

#[test]
fn a_plain_request_is_no_closed_websocket() {
    for poller in POLLERS {
        let (engine, address) = start(on(poller));
        let mut stream = TcpStream::connect(&address).expect("connect");
        write!(stream, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("send");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answer");
        drop(stream);
        until("gone", || engine.stats().connections == 0);
        assert!(engine.stats().closes.is_empty(), "{poller:?}: {:?}", engine.stats().closes);
    }
}

#[test]
fn channels_reach_a_client_in_the_order_of_publication() {
    for poller in POLLERS {
        let (engine, address) = start(on(poller));
        let mut client = Client::open(&address, "/ws?channel=a&channel=b&channel=c");
        until("subscribed", || engine.stats().subscriptions == 3);
        for name in ["a", "b", "c"] {
            publish(&engine, name, name, None, true);
        }
        engine.flush();
        let got: Vec<String> = (0..3).map(|_| client.text()).collect();
        assert_eq!(got, ["a", "b", "c"], "{poller:?}");
    }
}

/// A feed's only member is dead; a newcomer joins while the feed is behind the tail.
#[test]
fn a_newcomer_survives_that_the_last_member_breaks_in_its_join() {
    for poller in POLLERS {
        let (engine, address) = start(on(poller));
        let end = Instant::now() + Duration::from_secs(8);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            struct End<'a>(&'a AtomicBool);
            impl Drop for End<'_> {
                fn drop(&mut self) {
                    self.0.store(true, Ordering::Relaxed);
                }
            }
            let _end = End(&is_over);
            for _ in 0..1 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        let publication = Publication { payload: Payload::Text("x"), event: None, ttl_ns: None };
                        let _ = engine.publish("c", &publication, false);
                        std::thread::yield_now();
                    }
                });
            }
            let mut rounds = 0;
            while Instant::now() < end {
                let member = Client::open(&address, "/ws?channel=c");
                let zero = libc::linger { l_onoff: 1, l_linger: 0 };
                unsafe {
                    libc::setsockopt(
                        member.stream.as_raw_fd(),
                        libc::SOL_SOCKET,
                        libc::SO_LINGER,
                        (&raw const zero).cast(),
                        8,
                    )
                };
                let newcomer = Client::open(&address, "/ws");
                let mut bytes = Vec::new();
                for _ in 0..40 {
                    bytes.extend(masked(1, br#"{"subscribe":["c"]}"#));
                    bytes.extend(masked(1, br#"{"unsubscribe":["c"]}"#));
                }
                bytes.extend(masked(1, br#"{"subscribe":["c"]}"#));
                drop(member); // a reset
                let _ = (&newcomer.stream).write_all(&bytes);
                rounds += 1;
                if rounds % 20 == 0 {
                    let mut probe = TcpStream::connect(&address).expect("connect");
                    probe.set_read_timeout(Some(Duration::from_secs(3))).expect("t");
                    let _ = write!(probe, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
                    let mut answer = String::new();
                    let read = probe.read_to_string(&mut answer);
                    if !answer.starts_with("HTTP/1.1 200") {
                        is_over.store(true, Ordering::Relaxed);
                        panic!("{poller:?}: the shard is dead after {rounds} rounds: {read:?}");
                    }
                }
            }
            is_over.store(true, Ordering::Relaxed);
            println!("{poller:?}: {rounds} rounds");
        });
    }
}
