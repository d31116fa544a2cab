//! What holds when a shard's thread dies, and what `/readyz` says: tests alone, as nothing but a mistake of ours lets one die.
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::Engine;
use crate::channel::Publication;
use crate::error::EngineError;
use crate::messages::Command;
use crate::protocol::Payload;
use crate::routes::{OwnerId, Route, Wire};
use crate::settings::Settings;

fn connected(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a shard listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("an option");
    stream
}

/// The whole answer to a plain request, if there was one.
fn answer(address: &str, path: &str) -> Option<String> {
    let mut stream = connected(address);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Its status.
fn status(address: &str, path: &str) -> Option<String> {
    Some(answer(address, path)?.get(9..12)?.to_owned())
}

/// What probes ask for.
fn add_probes(engine: &Engine) {
    for (path, wire) in [("/readyz", Wire::Ready), ("/healthz", Wire::Health)] {
        engine.add_route(Route::new(path, wire, OwnerId(0)).expect("a path")).expect("it is free");
    }
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_shard_that_dies_is_told_of_and_the_others_serve_on() {
    let engine = Engine::new(Settings { shards: 2, ..Settings::default() }).expect("good settings");
    add_probes(&engine);
    engine.start().expect("two threads");
    let address = engine.listen("127.0.0.1:0").expect("a free port");
    assert!(engine.check_threads().is_ok());
    assert_eq!(status(&address, "/readyz").as_deref(), Some("200"));
    let clients: Vec<_> = (0..16).map(|_| connected(&address)).collect();
    until("all are accepted", || engine.stats().connections >= 16);
    engine.shards[0].command(Command::Panic("out of its mind".to_owned()));
    until("it is told", || engine.check_threads().is_err());
    let told = engine.check_threads().expect_err("it is told for ever");
    assert!(
        matches!(&told, EngineError::ThreadDied { thread, text } if thread == "fanwire-0" && text == "out of its mind")
    );
    // Its connections are closed, and not counted any more; those of the other live on.
    until("only the other's are left", || engine.stats().connections < 16);
    let others = engine.stats().connections;
    // Its listener is gone with it: whoever comes now comes to the other.
    for _ in 0..8 {
        assert_eq!(status(&address, "/readyz").as_deref(), Some("503"));
        assert_eq!(status(&address, "/healthz").as_deref(), Some("200"));
    }
    until("those are over", || engine.stats().connections == others);
    drop(clients);
    engine.drain(1001, "", Duration::ZERO).expect("it still runs");
    until("the living have drained", || engine.stats().connections == 0);
    engine.stop();
}

#[test]
fn the_application_says_whether_it_is_ready() {
    let engine = Engine::new(Settings::default()).expect("good settings");
    add_probes(&engine);
    engine.start().expect("a thread");
    let address = engine.listen("127.0.0.1:0").expect("a free port");
    engine.set_unready(Some("/live: all down\n".to_owned()), false);
    assert!(
        answer(&address, "/readyz")
            .is_some_and(|text| text.starts_with("HTTP/1.1 503 ") && text.ends_with("/live: all down\n"))
    );
    assert_eq!(status(&address, "/healthz").as_deref(), Some("200"));
    engine.set_unready(None, false);
    assert_eq!(status(&address, "/readyz").as_deref(), Some("200"));
    engine.stop();
}

#[test]
fn the_only_shard_that_dies_lets_stop_return() {
    let engine = Engine::new(Settings::default()).expect("good settings");
    engine.start().expect("a thread");
    engine.shards[0].command(Command::Panic("at once".to_owned()));
    until("it is told", || engine.check_threads().is_err());
    assert_eq!(engine.take_events(8).len(), 0);
    engine
        .publish("a", &Publication::new(Payload::Text("x")), false)
        .expect("a publisher is none of it")
        .expect("no formats");
    engine.stop();
    engine.stop();
}
