//! Sockets that are handed in: served as those that a shard accepted, whose client is elsewhere.
mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;

use fanwire_core::messages::{Event, Reply, Request};
use fanwire_core::{Asks, Engine, EngineError, Settings};
use support::{
    Client, PATIENCE, TAKES_MESSAGES, dial, eventually, next_event, on_each_poller, publish, read_text, start_asking,
};

const ASKS_OPENINGS: Asks = Asks { opening: true, ..TAKES_MESSAGES };

/// Our end of a pair whose other end the engine has.
fn welcomed(engine: &Engine, client: &str) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().expect("descriptors are left");
    ours.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
    engine.welcome(theirs.as_raw_fd(), client, b"").expect("the engine runs");
    let _ = theirs.into_raw_fd(); // the engine's from now on
    ours
}

fn asked(engine: &Engine) -> Request {
    match next_event(engine) {
        Event::Opening(_, request) => *request,
        other => panic!("expected an opening, got {other:?}"),
    }
}

#[test]
fn a_welcomed_socket_is_served_and_its_client_is_where_it_was_said_to_be() {
    on_each_poller(|settings| {
        let (engine, _) = start_asking(Settings { shards: 2, ..settings }, ASKS_OPENINGS, &[]);
        for n in 0..4 {
            let client = format!("203.0.113.{n}:443");
            let ours = welcomed(&engine, &client);
            let mut peer = std::thread::scope(|scope| {
                let opened = || tungstenite::client("ws://localhost/ws?channel=a", ours).expect("it is accepted").0;
                let opening = scope.spawn(opened);
                let Event::Opening(whose, request) = next_event(&engine) else { panic!("expected an opening") };
                assert_eq!(request.peer, client);
                engine.accept(whose.connection, ["a"], None, Reply::default()).expect("it waits");
                opening.join().expect("it ends")
            });
            eventually("a subscriber", || engine.occupancy("a") == 1);
            publish(&engine, "a", "x");
            assert!(matches!(peer.read(), Ok(tungstenite::Message::Text(text)) if text.as_str() == "x"));
            drop(peer);
            eventually("nobody is left", || engine.stats().connections == 0);
            while !matches!(next_event(&engine), Event::Closed(..)) {}
        }
    });
}

#[test]
fn what_was_read_from_a_socket_before_is_the_beginning_of_its_request() {
    let request = b"GET /ws?channel=a HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    on_each_poller(|settings| {
        let (engine, _) = start_asking(settings, TAKES_MESSAGES, &[]);
        for read_before in [1, 20, request.len()] {
            let (mut ours, theirs) = UnixStream::pair().expect("a pair");
            ours.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
            engine.welcome(theirs.into_raw_fd(), "", &request[..read_before]).expect("the engine runs");
            ours.write_all(&request[read_before..]).expect("it is read");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                ours.read_exact(&mut byte).expect("it answers");
                head.extend_from_slice(&byte);
            }
            assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
            eventually("a subscriber", || engine.occupancy("a") == 1);
            publish(&engine, "a", "x");
            let mut frame = [0; 3];
            ours.read_exact(&mut frame).expect("it is published");
            assert_eq!(&frame, b"\x81\x01x");
            drop(ours);
            eventually("nobody is left", || engine.stats().connections == 0);
        }
    });
}

#[test]
fn a_slot_that_is_used_again_has_not_the_client_of_the_one_before() {
    let (engine, address) = start_asking(Settings::default(), ASKS_OPENINGS, &[]);
    let request = b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut ours = welcomed(&engine, "203.0.113.9:443");
    ours.write_all(request).expect("it listens");
    assert_eq!(asked(&engine).peer, "203.0.113.9:443");
    drop(ours);
    eventually("nobody is left", || engine.stats().connections == 0);
    let mut accepted = dial(&address);
    accepted.write_all(request).expect("it listens");
    let local = accepted.local_addr().expect("it is connected").to_string();
    loop {
        if let Event::Opening(_, request) = next_event(&engine) {
            assert_eq!(request.peer, local);
            break;
        }
    }
}

#[test]
fn a_real_socket_says_itself_where_its_client_is() {
    let (engine, _) = start_asking(Settings::default(), TAKES_MESSAGES, &[]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let ours = dial(&listener.local_addr().expect("it is bound").to_string());
    let (theirs, _) = listener.accept().expect("somebody has connected");
    engine.welcome(theirs.as_raw_fd(), "", b"").expect("the engine runs");
    let _ = theirs.into_raw_fd();
    let mut client: Client = tungstenite::client("ws://localhost/ws?channel=a", ours).expect("accepted").0;
    eventually("a subscriber", || engine.occupancy("a") == 1);
    publish(&engine, "a", "x");
    assert_eq!(read_text(&mut client), "x");
}

#[test]
fn what_cannot_be_served_is_refused_and_stays_the_callers() {
    let engine = Engine::new(Settings::default()).expect("valid");
    let (_ours, theirs) = UnixStream::pair().expect("descriptors are left");
    assert!(matches!(engine.welcome(theirs.as_raw_fd(), "", b""), Err(EngineError::NotRunning { .. })));
    engine.start().expect("a poller");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (unconnected, file) = (socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None), "/dev/null");
    let (unconnected, file) = (unconnected.expect("a socket"), std::fs::File::open(file).expect("it is there"));
    let datagrams = std::os::unix::net::UnixDatagram::pair().expect("descriptors are left").0;
    for (fd, why) in [
        (-1, "Bad file descriptor"),
        (file.as_raw_fd(), "Socket operation on non-socket"),
        (listener.as_raw_fd(), "no connected stream socket"),
        (datagrams.as_raw_fd(), "no connected stream socket"),
        (unconnected.as_raw_fd(), "not connected"),
    ] {
        let error = engine.welcome(fd, "", b"").expect_err("it is none");
        assert!(error.to_string().contains(why), "{error} for {why}");
    }
    for client in ["a b", "a\r\nb", "ä:1", &"x".repeat(263)] {
        let error = engine.welcome(theirs.as_raw_fd(), client, b"").expect_err("no address");
        assert!(error.to_string().contains("262 bytes of visible ASCII"), "{error}");
    }
}

#[test]
fn what_is_welcomed_as_the_engine_stops_is_closed() {
    for _ in 0..20 {
        let (engine, _) = start_asking(Settings::default(), TAKES_MESSAGES, &[]);
        let (mut ours, theirs) = UnixStream::pair().expect("descriptors are left");
        ours.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
        std::thread::scope(|scope| {
            scope.spawn(|| engine.stop());
            match engine.welcome(theirs.as_raw_fd(), "", b"") {
                Ok(()) => {
                    let _ = theirs.into_raw_fd();
                }
                Err(error) => assert!(matches!(error, EngineError::NotRunning { .. }), "{error}"),
            }
        });
        assert_eq!(ours.read(&mut [0]).expect("the end, and no timeout"), 0);
    }
}
