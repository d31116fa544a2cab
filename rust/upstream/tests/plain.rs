//! Sessions with a plain WebSocket backend: messages as they are, both ways, and how they begin and end.
mod support;

use std::time::Duration;

use fanwire_core::messages::ConnectionId;
use fanwire_upstream::{CloseFrame, OpenPlain, PlainRoute, UpstreamEvent};
use support::{Backend, CLIENT, Heard, PATIENCE, Peer, Relay, Said, read_head};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame as Frame;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket};
use tokio_tungstenite::tungstenite::{Error, Message};

fn open(url: &str, route: PlainRoute, subprotocols: &[&str]) -> OpenPlain {
    OpenPlain {
        urls: vec![url.to_owned()],
        headers: vec![("Origin".to_owned(), "http://here.test".to_owned())],
        roots: None,
        subprotocols: subprotocols.iter().map(|&name| name.to_owned()).collect(),
        route,
        keepalive: Duration::from_secs(15),
        server_timeout: Duration::from_secs(30),
        connect_timeout: PATIENCE,
        idle: None,
        message_bytes_max: 32 * 1024,
        queue_bytes_max: 64 * 1024,
    }
}

fn client() -> ConnectionId {
    ConnectionId::from_bits(CLIENT)
}

fn lane() -> PlainRoute {
    PlainRoute::Lane { channel: "m1".to_owned() }
}

fn private(accepts: bool) -> PlainRoute {
    PlainRoute::Private { client: client(), accepts }
}

fn said(is_text: bool, data: &[u8]) -> Said {
    Said { is_text, data: data.to_vec() }
}

fn opened(subprotocol: Option<&str>) -> Heard {
    opened_with(subprotocol, &[])
}

fn opened_with(subprotocol: Option<&str>, cookies: &[&str]) -> Heard {
    let cookies = cookies.iter().map(|&cookie| cookie.to_owned()).collect();
    let subprotocol = subprotocol.map(str::to_owned);
    Heard::Report(1, UpstreamEvent::Opened { url_index: 0, subprotocol, cookies })
}

/// The backend's end of an upgrade that is answered with these headers besides, and what follows them at once.
fn accept(backend: &Backend, headers: impl AsRef<[u8]>, rest: &[u8]) -> (WebSocket<std::net::TcpStream>, String) {
    let mut stream = backend.accept();
    let head = read_head(&mut stream);
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).expect("a key");
    let accept = derive_accept_key(key.as_bytes());
    let answer =
        format!("HTTP/1.1 101 X\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n");
    std::io::Write::write_all(&mut stream, &[answer.as_bytes(), headers.as_ref(), b"\r\n", rest].concat()).unwrap();
    (WebSocket::from_raw_socket(stream, Role::Server, None), head)
}

/// How a session ended: why, with which status, and what the server's Close frame said.
fn closed(relay: &Relay) -> (String, Option<u16>, Option<CloseFrame>) {
    match relay.event() {
        UpstreamEvent::Closed { error, status, frame, .. } => (error, status, frame),
        other => panic!("expected Closed, got {other:?}"),
    }
}

const SETS: &[u8] =
    b"Sec-WebSocket-Protocol: y\r\nSet-Cookie: a=1; Path=/\r\nX-Powered-By: z\r\nSet-Cookie: b=\xfc\r\n";

/// A turn is bounded by what was read, and a message without any bytes is some of it.
#[test]
fn messages_that_are_empty_end_a_session_s_turn_too() {
    const COUNT: usize = 40_000;
    let (backend, relay) = (Backend::start(), Relay::start());
    relay.upstreams.open_plain(1, open(&backend.url, lane(), &[]));
    let (mut peer, _) = accept(&backend, "", &b"\x82\x00".repeat(COUNT));
    assert_eq!(relay.next(), opened(None));
    let mut came = 0;
    while came < COUNT {
        let Heard::AppendMessages(_, messages) = relay.next() else { panic!("expected messages") };
        assert!(messages.len() <= 64 * 1024 / 32, "{} at once", messages.len());
        came += messages.len();
    }
    peer.close(None).unwrap();
}

#[test]
fn a_client_is_let_in_before_anything_is_sent_to_it() {
    let (backend, relay) = (Backend::start(), Relay::start());
    relay.upstreams.open_plain(1, open(&format!("{}?a=%20", backend.url), private(true), &["x", "y"]));
    let (_socket, head) = accept(&backend, SETS, b"\x81\x05first\x82\x00");
    assert!(head.starts_with("GET /live?a=%20 HTTP/1.1\r\n"), "{head}");
    assert!(
        head.contains("sec-websocket-protocol: x, y\r\n") && head.contains("origin: http://here.test\r\n"),
        "{head}"
    );
    let cookies = ["a=1; Path=/", "b=\u{fc}"];
    assert_eq!(relay.next(), Heard::Accepted(client(), Some("y".to_owned()), cookies.map(str::to_owned).to_vec()));
    assert_eq!(relay.next(), opened_with(Some("y"), &cookies));
    assert_eq!(relay.next(), Heard::SentMessages(client(), vec![said(true, b"first"), said(false, b"")]));
}

#[test]
fn messages_go_both_ways_as_they_are_and_are_never_joined() {
    let (backend, relay) = (Backend::start(), Relay::start());
    relay.upstreams.open_plain(1, open(&backend.url, lane(), &[]));
    for (is_text, data) in [(true, "a"), (false, "b"), (true, ""), (true, "{}\u{1e}")] {
        assert!(relay.upstreams.send_message(1, is_text, data.as_bytes().to_vec()).is_some());
    }
    let mut peer = backend.accept_socket();
    assert_eq!(relay.next(), opened(None));
    for expected in [Message::text("a"), Message::binary("b"), Message::text(""), Message::text("{}\u{1e}")] {
        assert_eq!(peer.socket.read().unwrap(), expected);
    }
    peer.socket.send(Message::text("ä")).unwrap();
    assert_eq!(relay.next(), Heard::AppendMessages("m1".to_owned(), vec![said(true, "ä".as_bytes())]));
    peer.socket.send(Message::binary(vec![7; 32 * 1024])).unwrap();
    assert_eq!(relay.next(), Heard::AppendMessages("m1".to_owned(), vec![said(false, &[7; 32 * 1024])]));
    peer.socket.send(Message::binary(vec![7; 32 * 1024 + 1])).unwrap();
    assert!(closed(&relay).0.contains("Message too long"), "the bound ends it");
}

#[test]
fn a_backend_that_chooses_none_of_the_subprotocols_is_fine_and_one_that_makes_one_up_is_not() {
    let (backend, relay) = (Backend::start(), Relay::start());
    relay.upstreams.open_plain(1, open(&backend.url, PlainRoute::Nowhere, &["x"]));
    let (_socket, _) = accept(&backend, "", b"\x81\x05first");
    assert_eq!(relay.next(), opened(None));
    relay.upstreams.open_plain(2, open(&backend.url, lane(), &["x"]));
    let (_other, _) = accept(&backend, "Sec-WebSocket-Protocol: y\r\n", b"");
    let error = format!("{}: WebSocket upgrade: the server chose a subprotocol that was not offered", backend.url);
    assert_eq!(closed(&relay), (error, None, None));
}

#[test]
fn a_refusal_is_its_status() {
    let (backend, relay) = (Backend::start(), Relay::start());
    for status in [401, 404, 503] {
        relay.upstreams.open_plain(1, open(&format!("{}?token=secret", backend.url), lane(), &[]));
        backend.answer(status, "no");
        let error = format!("{}: WebSocket upgrade was answered with status {status}", backend.url);
        assert_eq!(closed(&relay), (error, Some(status), None));
    }
}

#[test]
fn close_frames_are_passed_on_both_ways() {
    let (backend, relay) = (Backend::start(), Relay::start());
    let begin = |session| -> Peer {
        relay.upstreams.open_plain(session, open(&backend.url, private(false), &[]));
        let peer = backend.accept_socket();
        assert!(matches!(relay.next(), Heard::Report(_, UpstreamEvent::Opened { .. })));
        peer
    };
    let mut peer = begin(1);
    peer.socket.close(Some(Frame { code: 4711.into(), reason: "why".into() })).unwrap();
    assert_eq!(closed(&relay).2, Some(CloseFrame { code: 4711, reason: "why".to_owned() }));
    let mut peer = begin(2);
    peer.socket.close(None).unwrap();
    assert_eq!(closed(&relay).2, Some(CloseFrame { code: 1005, reason: String::new() }));
    let mut peer = begin(3);
    relay.upstreams.send_message(3, true, b"last".to_vec());
    relay.upstreams.close(3, Some(CloseFrame { code: 4712, reason: "so".to_owned() }));
    assert_eq!(peer.socket.read().unwrap(), Message::text("last"));
    let frame = Frame { code: 4712.into(), reason: "so".into() };
    assert_eq!(peer.socket.read().unwrap(), Message::Close(Some(frame)));
    assert!(matches!(peer.socket.read(), Err(Error::ConnectionClosed)));
    assert_eq!(closed(&relay).2, None);
}

#[test]
fn who_is_only_sent_to_is_pinged_and_who_does_not_answer_is_lost() {
    let (backend, relay) = (Backend::start(), Relay::start());
    let times = OpenPlain {
        keepalive: Duration::from_millis(50),
        server_timeout: Duration::from_secs(2),
        ..open(&backend.url, lane(), &[])
    };
    relay.upstreams.open_plain(1, times);
    let mut peer = backend.accept_socket();
    assert_eq!(relay.next(), opened(None));
    for _ in 0..45 {
        relay.upstreams.send_message(1, true, b"x".to_vec());
        // Reading a ping answers it.
        while !peer.socket.read().unwrap().is_ping() {}
    }
    assert_eq!(relay.upstreams.stats().sessions_now, 1);
    let error = format!("{}: the server was silent for 2000 ms", backend.url);
    assert_eq!(closed(&relay), (error, None, None), "nobody reads any more");
}

#[test]
fn it_is_idle_once_nothing_was_sent_or_received() {
    let (backend, relay) = (Backend::start(), Relay::start());
    let idle = Some(Duration::from_millis(50));
    relay.upstreams.open_plain(1, OpenPlain { idle, ..open(&backend.url, private(false), &[]) });
    let mut peer = backend.accept_socket();
    assert_eq!(relay.next(), opened(None));
    assert_eq!(relay.event(), UpstreamEvent::Idle);
    peer.socket.send(Message::text("x")).unwrap();
    assert_eq!(relay.next(), Heard::SentMessages(client(), vec![said(true, b"x")]));
    assert_eq!(relay.event(), UpstreamEvent::Idle);
}
