//! What the tests of the engine share: an engine that listens, a client of other people's making, a wait with an end.
use std::net::TcpStream;
use std::time::{Duration, Instant};

use fanwire_core::channel::{Pattern, Publication};
use fanwire_core::protocol::Payload;
use fanwire_core::{ChannelBounds, ChannelRule, Engine, PollerKind, Position, Settings};
use tungstenite::{Message, WebSocket};

pub(crate) type Client = WebSocket<TcpStream>;

const POLLERS: [PollerKind; 2] = [PollerKind::Epoll, PollerKind::Uring];

/// How long anything may take that is expected to happen at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a claim on each poller that this kernel has.
pub(crate) fn on_each_poller(claim: impl Fn(Settings)) {
    for poller in POLLERS {
        let settings = Settings { poller: Some(poller), ..Settings::default() };
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

/// An engine that listens, and where.
pub(crate) fn start(settings: Settings) -> (Engine, String) {
    let engine = Engine::new(settings).expect("settings are valid");
    engine.start().expect("the poller was had a moment ago");
    let address = engine.listen("127.0.0.1:0").expect("a free port");
    (engine, address)
}

/// One rule for the channels that match `pattern`.
pub(crate) fn bounded(pattern: &str, backlog_bytes: u64, backlog_frames: usize) -> Vec<ChannelRule> {
    let bounds = ChannelBounds { backlog_bytes, backlog_frames };
    vec![ChannelRule { pattern: Pattern::new(pattern).expect("valid"), bounds }]
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
    let publication = Publication { payload: Payload::Text(text), event: None, ttl_ns: None, excluded: &[] };
    engine.publish(channel, &publication, false).expect("the engine runs").expect("nothing to encode")
}

/// Publishes what goes out with the next `flush`.
pub(crate) fn publish_deferred(engine: &Engine, channel: &str, text: &str, ttl_ns: Option<u64>) -> Position {
    let publication = Publication { payload: Payload::Text(text), event: None, ttl_ns, excluded: &[] };
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

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::yield_now();
    }
}
