//! What the tests of the engine share: an engine that listens, a client of other people's making, a wait with an end.
#![allow(dead_code)] // each of them uses a part
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use fanwire_core::channel::{Pattern, Publication};
use fanwire_core::messages::{ConnectionId, Event};
use fanwire_core::protocol::Payload;
use fanwire_core::{
    Asks, ChannelRule, ChannelSettings, Engine, OwnerId, PollerKind, Position, Route, Settings, Transports, Wire,
};
use socket2::{Domain, Socket, Type};
use tungstenite::{Message, WebSocket};

pub(crate) type Client = WebSocket<TcpStream>;

const POLLERS: [PollerKind; 2] = [PollerKind::Epoll, PollerKind::Uring];

/// How long anything may take that is expected to happen at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a claim on each poller that this kernel has.
pub(crate) fn on_each_poller(claim: impl Fn(Settings)) {
    for poller in POLLERS {
        let publication_bytes_max = 64 << 20; // room for `more_than_a_socket_takes`
        let settings = Settings { poller: Some(poller), publication_bytes_max, ..Settings::default() };
        let engine = Engine::new(settings.clone()).expect("settings are valid");
        match engine.start() {
            Ok(()) => {
                eprintln!("on {poller:?}"); // the last such line above a panic tells where it was
                claim(settings);
            }
            Err(error) => eprintln!("{poller:?} skipped: {error}"),
        }
    }
}

/// What an owner asks that takes messages and nothing else.
pub(crate) const TAKES_MESSAGES: Asks =
    Asks { messages: true, opening: false, subscribing: false, connected: false, bodies: false, records: false };

/// An engine that listens, with the usual paths, and where.
pub(crate) fn start(settings: Settings) -> (Engine, String) {
    start_asking(settings, TAKES_MESSAGES, &[])
}

/// The same, whose owner is asked this, with paths besides.
pub(crate) fn start_asking(settings: Settings, asks: Asks, others: &[(&str, Wire)]) -> (Engine, String) {
    let engine = Engine::new(settings).expect("settings are valid");
    for &(path, wire) in USUAL.iter().chain(others) {
        let mut route = Route::new(path, wire, OwnerId(0)).expect("a path");
        route.asks = asks;
        engine.add_route(route).expect("it is free");
    }
    engine.start().expect("the poller was had a moment ago");
    let address = engine.listen("127.0.0.1:0").expect("a free port");
    (engine, address)
}

/// The paths that a hub has.
const USUAL: [(&str, Wire); 6] = [
    ("/", Wire::WebSocket),
    ("/ws", Wire::WebSocket),
    ("/events", Wire::EventStream),
    ("/healthz", Wire::Health),
    ("/readyz", Wire::Ready),
    ("/metrics", Wire::Request),
];

/// A SignalR hub with every transport.
pub(crate) const HUB: Wire = Wire::SignalR(Transports::ALL);

/// One rule for the channels that match `pattern`.
pub(crate) fn bounded(pattern: &str, backlog_bytes: u64, backlog_frames: usize) -> Vec<ChannelRule> {
    promising(pattern, ChannelSettings { backlog_bytes, backlog_frames, ..ChannelSettings::default() })
}

/// The same, whatever it says.
pub(crate) fn promising(pattern: &str, settings: ChannelSettings) -> Vec<ChannelRule> {
    vec![ChannelRule { pattern: Pattern::new(pattern).expect("valid"), settings }]
}

/// A TCP connection whose reads end, if with an error.
pub(crate) fn dial(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the engine listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
    stream
}

/// An open WebSocket.
pub(crate) fn connect(address: &str, query: &str) -> Client {
    tungstenite::client(format!("ws://{address}/ws?{query}"), dial(address)).expect("the upgrade is accepted").0
}

pub(crate) fn publish(engine: &Engine, channel: &str, text: &str) -> Position {
    let publication = Publication::new(Payload::Text(text));
    engine.publish(channel, &publication, false).expect("the engine runs").expect("nothing to encode")
}

/// Publishes what goes out with the next `flush`.
pub(crate) fn publish_deferred(engine: &Engine, channel: &str, text: &str, ttl_ns: Option<u64>) -> Position {
    let publication = Publication { ttl_ns, ..Publication::new(Payload::Text(text)) };
    engine.publish(channel, &publication, true).expect("the engine runs").expect("nothing to encode")
}

pub(crate) fn read_text(client: &mut Client) -> String {
    loop {
        match client.read().expect("a message") {
            Message::Text(text) => return text.as_str().to_owned(),
            Message::Ping(_) => {}
            other => panic!("expected text, got {other:?}"),
        }
    }
}

/// What Python would hear of next.
pub(crate) fn next_event(engine: &Engine) -> Event {
    let mut found = None;
    eventually("something happens", || {
        found = found.take().or_else(|| engine.take_events(1).pop());
        found.is_some()
    });
    found.expect("it happened")
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::yield_now();
    }
}

/// Returns when the engine's only shard has had a turn: what was asked or published before is done.
pub(crate) fn await_turn(engine: &Engine) {
    // The number names nobody, but the shard has to look to find out.
    let names = engine.channels_of(ConnectionId::from_bits(0x00FF_FFFF));
    assert!(names.is_empty());
}

/// A socket for which the kernel keeps about so many bytes while it is not read.
pub(crate) fn dial_small(address: &str, bytes: usize) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(bytes).expect("a TCP socket");
    let target: SocketAddr = address.parse().expect("as bound");
    socket.connect(&target.into()).expect("the engine listens");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
    stream
}

/// An open WebSocket for which the kernel keeps little: who does not read it, lags soon.
pub(crate) fn connect_small(address: &str, query: &str) -> Client {
    let stream = dial_small(address, 4 << 10);
    tungstenite::client(format!("ws://{address}/ws?{query}"), stream).expect("the upgrade is accepted").0
}

/// As whom the next client is told of that connects, where the engine tells it.
pub(crate) fn told_of(engine: &Engine) -> ConnectionId {
    let mut told = None;
    eventually("it is told of", || {
        let found = |event: &Event| if let Event::Connected(whose, _) = event { Some(whose.connection) } else { None };
        told = engine.take_events(16).iter().find_map(found);
        told.is_some()
    });
    told.expect("awaited above")
}

/// A text of which a socket takes only a part: who does not read it lags until it does.
///
/// A socket that is merely full may not stay so. The kernel lets its send buffer grow with each acknowledgement, and the
/// first of those may come 40 ms late.
pub(crate) fn more_than_a_socket_takes() -> String {
    let bounds = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_wmem").expect("Linux");
    let most: usize = bounds.split_whitespace().nth(2).and_then(|most| most.parse().ok()).expect("a number");
    "x".repeat(most + (1 << 20))
}

/// MiB of this process's memory that are resident.
pub(crate) fn resident_mib() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = pages.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4 / 1_024
}

/// A course of chances that a seed fixes (splitmix64, Vigna).
pub(crate) struct Chances(pub(crate) u64);

impl Chances {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}
