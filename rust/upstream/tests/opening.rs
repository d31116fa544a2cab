//! How a session comes to be, and each way in which it does not.
mod support;

use std::io::{Read, Write};
use std::time::Duration;

use fanwire_core::protocol::signalr::HubProtocol;
use fanwire_upstream::{Fault, Negotiation, Open, Route, UpstreamEvent};
use support::{BOTH, Backend, Heard, Relay, lane, negotiation, publication, read_head, request};

const JSON: HubProtocol = HubProtocol::Json;
const SHORT: Duration = Duration::from_millis(300);
const SECRET: &str = "s3cr3t";

#[test]
fn a_session_opens_without_negotiation_and_its_answer_may_share_a_frame() {
    for protocol in BOTH {
        let (backend, relay) = (Backend::start(), Relay::start());
        let mut open = request(&format!("{}?a=1", backend.url), protocol, lane());
        open.headers = vec![("Authorization".into(), "Bearer t".into()), ("Host".into(), "elsewhere".into())];
        relay.upstreams.open(1, open);
        let mut peer = backend.accept_socket();
        peer.expect_handshake(protocol);
        let odds = publication(protocol, "Odds");
        peer.send(protocol, &[b"{}\x1e".as_slice(), &odds].concat());
        relay.expect_opened(0);
        assert_eq!(relay.next(), Heard::Report(1, UpstreamEvent::Came { target: "Odds".into() }));
        assert_eq!(relay.next(), Heard::Append("m1".into(), protocol, vec![odds], vec![]));
        assert_eq!(peer.head.uri(), "/live?a=1");
        assert_eq!(peer.head.headers()["authorization"], "Bearer t");
        assert_eq!(format!("http://{}", peer.head.headers()["host"].to_str().unwrap()), backend.origin);
        assert!(!peer.head.headers().contains_key("sec-websocket-extensions"));
    }
}

#[test]
fn a_negotiation_follows_a_redirect_with_its_token_and_leaves_the_cookie_behind() {
    let (first, second, relay) = (Backend::start(), Backend::start(), Relay::start());
    let mut open = request(&format!("{}?a=1", first.url), JSON, Route::Calls);
    open.negotiates = true;
    open.headers = vec![("Authorization".into(), "Bearer old".into()), ("Cookie".into(), "c=1".into())];
    relay.upstreams.open(1, open);
    let redirect = format!(r#"{{"url":"{}/client/?hub=x","accessToken":"new"}}"#, second.origin);
    let head = first.answer(200, &redirect).to_lowercase();
    assert!(head.starts_with("post /live/negotiate?a=1&negotiateversion=1 http/1.1\r\n"), "{head}");
    assert!(head.contains("authorization: bearer old\r\n") && head.contains("cookie: c=1\r\n"), "{head}");
    assert!(head.contains("content-length: 0\r\n"), "{head}");
    let head = second.agree("tok-1").to_lowercase();
    assert!(head.starts_with("post /client/negotiate?hub=x&negotiateversion=1 "), "{head}");
    assert!(head.contains("authorization: bearer new\r\n") && !head.contains("cookie"), "{head}");
    let mut peer = second.accept_socket();
    peer.shake_hands(JSON);
    assert_eq!(peer.head.uri(), "/client/?hub=x&id=tok-1");
    assert_eq!(peer.head.headers()["authorization"], "Bearer new");
    relay.expect_opened(0);
}

#[test]
fn redirects_without_an_end_are_given_up() {
    let (backend, relay) = (Backend::start(), Relay::start());
    let mut open = request(&backend.url, JSON, lane());
    open.negotiates = true;
    relay.upstreams.open(1, open);
    for _ in 0..=100 {
        backend.answer(200, &format!(r#"{{"url":"{}"}}"#, backend.url));
    }
    assert!(relay.closed().error.ends_with("negotiate was redirected more than 100 times"));
}

#[test]
fn a_negotiation_that_does_not_lead_to_a_websocket_fails_with_what_it_said() {
    let long = format!("\"{}\"", "x".repeat(70_000));
    let cases = [
        (200, r#"{"error":"full up"}"#, "negotiate was refused: full up", None),
        (401, "", "negotiate was answered with status 401", Some(401)),
        (503, "", "negotiate was answered with status 503", Some(503)),
        (200, "nonsense", "the answer to negotiate: message is not JSON", None),
        (200, r#"{"url":"ftp://x/"}"#, "negotiate redirects to what is no URL of http or https", None),
        (200, &long, "the answer to negotiate has more than 65536 bytes", None),
        (
            200,
            r#"{"connectionId":"c","availableTransports":[{"transport":"LongPolling"}]}"#,
            "the server does not offer the transport WebSockets",
            None,
        ),
        (
            200,
            r#"{"connectionId":"a b","availableTransports":[{"transport":"WebSockets"}]}"#,
            "the connection token that negotiate gave has a character that a URL forbids",
            None,
        ),
    ];
    let (backend, relay) = (Backend::start(), Relay::start());
    for (status, body, expected, closed_status) in cases {
        let mut open = request(&format!("{}?access_token={SECRET}", backend.url), JSON, lane());
        open.negotiates = true;
        relay.upstreams.open(1, open);
        backend.answer(status, body);
        if body.contains("a b") {
            drop(backend.accept());
        }
        let closed = relay.closed();
        assert!(closed.error.starts_with(&format!("{}: {expected}", backend.url)), "{}", closed.error);
        assert!(!closed.error.contains(SECRET));
        assert_eq!((closed.status, closed.was_open), (closed_status, false));
    }
    assert_eq!(relay.upstreams.stats().connects_failed, 8);
}

#[test]
fn an_upgrade_that_is_refused_gives_its_status_and_is_final_when_the_token_is_refused() {
    for (status, is_final) in [(401, true), (403, true), (404, false), (500, false)] {
        let (backend, relay) = (Backend::start(), Relay::start());
        let mut open = request(&backend.url, JSON, lane());
        open.urls.push(backend.url.clone());
        relay.upstreams.open(1, open);
        for _ in 0..if is_final { 1 } else { 2 } {
            backend.answer(status, "no");
        }
        let closed = relay.closed();
        assert_eq!(closed.status, Some(status));
        assert_eq!(closed.error.matches(&backend.url).count(), if is_final { 1 } else { 2 }, "{}", closed.error);
    }
}

#[test]
fn a_url_that_refuses_is_followed_by_the_next() {
    let refusing = Backend::start().url;
    let (backend, relay) = (Backend::start(), Relay::start());
    let mut open = request(&refusing, JSON, lane());
    open.urls = vec!["nonsense".into(), refusing.clone(), backend.url.clone()];
    relay.upstreams.open(1, open.clone());
    backend.accept_socket().shake_hands(JSON);
    relay.expect_opened(2);
    assert_eq!(relay.upstreams.stats().connects_failed, 2);
    assert!(relay.closed().was_open);
    open.urls.pop();
    relay.upstreams.open(1, open.clone());
    let error = relay.closed().error;
    let expected = format!("URL 1 of 2: not a URL of http, https, ws or wss; {refusing}: connect: Connection refused");
    assert!(error.starts_with(&expected), "{error}");
    open.urls.clear();
    relay.upstreams.open(1, open);
    assert_eq!(relay.closed().error, "no URL was given");
}

/// A machine that is dead takes its part of the time once, and is asked last from then on.
#[test]
fn a_url_that_hangs_leaves_time_for_the_next_which_is_asked_first_from_then_on() {
    let (hanging, backend, relay) = (Backend::start(), Backend::start(), Relay::start());
    let mut open = request(&hanging.url, HubProtocol::Json, lane());
    open.urls.push(backend.url.clone());
    open.connect_timeout = Duration::from_secs(4);
    let mut peers = Vec::new();
    for session in [1, 2] {
        relay.upstreams.open(session, open.clone());
        let _hanging = (session == 1).then(|| hanging.accept());
        let mut peer = backend.accept_socket();
        peer.shake_hands(HubProtocol::Json);
        assert_eq!(
            relay.next(),
            Heard::Report(session, UpstreamEvent::Opened { url_index: 1, subprotocol: None, cookies: Vec::new() })
        );
        peers.push(peer);
    }
    assert!(hanging.is_left_alone());
}

#[test]
fn each_stage_has_to_end_in_time() {
    for (stage, negotiates) in [("negotiate", true), ("WebSocket upgrade", false), ("the hub's handshake", false)] {
        let (backend, relay) = (Backend::start(), Relay::start());
        let mut open = request(&backend.url, JSON, lane());
        open.negotiates = negotiates;
        open.connect_timeout = SHORT;
        relay.upstreams.open(1, open);
        let hung = match stage {
            "the hub's handshake" => (None, Some(backend.accept_socket())),
            _ => (Some(backend.accept()), None),
        };
        let closed = relay.closed();
        assert_eq!(closed.error, format!("{}: {stage} took longer than 300 ms", backend.url));
        assert!(!closed.was_open);
        drop(hung);
    }
}

#[test]
fn a_handshake_that_is_refused_cut_off_or_garbage_fails() {
    let cases: [(&[u8], &str); 4] = [
        (
            b"{\"error\":\"The protocol 'json' is not supported.\"}\x1e",
            "the server refused the handshake: The protocol",
        ),
        (b"{\"type\":6}\x1e", "expected the reply to the handshake, got a hub message"),
        (b"garbage\x1e", "reply to the handshake: message is not JSON"),
        (&[b' '; 40_000], "record has at least 32769 bytes, at most 32768 are taken"),
    ];
    let (backend, relay) = (Backend::start(), Relay::start());
    for (reply, expected) in cases {
        relay.upstreams.open(1, request(&backend.url, JSON, lane()));
        let mut peer = backend.accept_socket();
        peer.expect_handshake(JSON);
        peer.send(JSON, reply);
        let error = relay.closed().error;
        assert!(error.starts_with(&format!("{}: the hub's handshake: {expected}", backend.url)), "{error}");
    }
    relay.upstreams.open(1, request(&backend.url, JSON, lane()));
    drop(backend.accept_socket());
    assert!(relay.closed().error.contains("the connection ended in the hub's handshake"));
    relay.upstreams.open(1, request(&backend.url, JSON, lane()));
    let mut stream = backend.accept();
    read_head(&mut stream);
    stream.write_all(b"garbage\r\n\r\n").unwrap();
    assert!(relay.closed().error.contains("WebSocket upgrade: "));
}

#[test]
fn a_handshake_in_pieces_is_put_together() {
    let (backend, relay) = (Backend::start(), Relay::start());
    relay.upstreams.open(1, request(&backend.url, JSON, lane()));
    let mut peer = backend.accept_socket();
    peer.expect_handshake(JSON);
    for byte in b"{}\x1e" {
        peer.send(JSON, &[*byte]);
    }
    relay.expect_opened(0);
}

#[test]
fn a_header_that_cannot_be_sent_is_named_without_its_value() {
    let (backend, relay) = (Backend::start(), Relay::start());
    let mut open = request(&backend.url, JSON, lane());
    open.headers = vec![("Authorization".into(), format!("Bearer {SECRET}\r\nX: 1"))];
    relay.upstreams.open(1, open);
    let error = relay.closed().error;
    assert!(error.contains("the header \"Authorization\" can't be sent") && !error.contains(SECRET), "{error}");
}

#[test]
fn whose_doing_it_is_that_there_is_no_session_is_told() {
    let (backend, relay) = (Backend::start(), Relay::start());
    let fault = |url: &str, header: &str, negotiates: bool, meet: &dyn Fn()| {
        let mut open = Open { negotiates, ..request(url, JSON, lane()) };
        open.headers = vec![("X-A".into(), header.into())];
        relay.upstreams.open(1, open);
        meet();
        let UpstreamEvent::Closed { fault, .. } = relay.event() else { panic!("expected Closed") };
        fault.expect("it was never open")
    };
    let say = |words: &'static str| {
        let (backend, words) = (&backend, format!("{words}\x1e"));
        move || {
            let mut peer = backend.accept_socket();
            peer.expect_handshake(JSON);
            peer.send(JSON, words.as_bytes());
        }
    };
    let (nothing, gone): (&dyn Fn(), _) = (&|| (), Backend::start().url);
    assert_eq!(fault(&gone, "b", false, nothing), Fault::Server);
    assert_eq!(fault(&format!("{}?a=<", backend.url), "b", false, nothing), Fault::Request);
    assert_eq!(fault(&backend.url, "b\n", true, nothing), Fault::Request);
    let refuse = || drop(backend.answer(200, r#"{"error":"full up"}"#));
    assert_eq!(fault(&backend.url, "b", true, &refuse), Fault::Request);
    let words = Fault::Handshake("not \u{1b}spoken".replace('\u{1b}', " "));
    assert_eq!(fault(&backend.url, "b", false, &say(r#"{"error":"not \u001bspoken"}"#)), words);
    assert_eq!(fault(&backend.url, "b", false, &say("nonsense")), Fault::Server);
}

/// Answers go by what was asked, so only where another server lets the same in is one that fails asked last.
#[test]
fn a_server_that_fails_or_hangs_up_at_once_is_asked_last_if_another_does_not() {
    for is_flapping in [false, true] {
        let (first, second, relay) = (Backend::start(), Backend::start(), Relay::start());
        let open = Open { urls: vec![first.url.clone(), second.url.clone()], ..request("", JSON, lane()) };
        relay.upstreams.open(1, open.clone());
        if is_flapping {
            first.accept_socket().shake_hands(JSON);
            relay.expect_opened(0);
            assert!(relay.closed().was_open);
        } else {
            first.answer(503, "");
            second.answer(503, "");
            assert_eq!(relay.closed().status, Some(503));
            relay.upstreams.open(2, open.clone());
            first.answer(503, "");
            second.accept_socket().shake_hands(JSON);
            relay.expect_opened(1);
            assert!(relay.closed().was_open);
        }
        relay.upstreams.open(3, open);
        second.accept_socket().shake_hands(JSON);
        relay.expect_opened(1);
    }
}

#[test]
fn a_close_while_it_opens_ends_it_at_once() {
    let (backend, relay) = (Backend::start(), Relay::start());
    relay.upstreams.open(1, request(&backend.url, JSON, lane()));
    let hung = backend.accept();
    let call = support::call(JSON, Some("1"), "Subscribe");
    assert_eq!(relay.upstreams.send(1, call.clone()), Some(call.len()));
    relay.upstreams.close(1, None);
    let closed = relay.closed();
    assert_eq!((closed.error.as_str(), closed.was_open, closed.pending), ("closed from here", false, vec!["1".into()]));
    assert_eq!(relay.upstreams.send(1, call), None);
    drop(hung);
}

#[test]
fn a_number_that_is_open_is_not_opened_again() {
    let (backend, relay) = (Backend::start(), Relay::start());
    let _peer = relay.open_at(&backend, 5, request(&backend.url, JSON, lane()));
    relay.upstreams.open(5, request(&backend.url, JSON, lane()));
    assert_eq!(relay.closed().error, "session 5 is open already");
    assert_eq!(relay.upstreams.stats().sessions_now, 1);
}

#[test]
fn a_negotiation_alone_gives_status_and_body_and_follows_nothing() {
    let (backend, relay) = (Backend::start(), Relay::start());
    let redirect = r#"{"url":"http://127.0.0.1:1/"}"#;
    for (status, body) in [(200, redirect), (401, "no"), (302, "")] {
        let headers = vec![("X-A".into(), "b".into())];
        relay.upstreams.negotiate(9, Negotiation { headers, ..negotiation(&backend.url) });
        let head = backend.answer(status, body).to_lowercase();
        assert!(head.contains("x-a: b\r\n"), "{head}");
        let expected = UpstreamEvent::Negotiated { status, body: body.into(), fault: None, cookies: vec![] };
        assert_eq!(relay.next(), Heard::Report(9, expected));
    }
    let gone = Backend::start().url;
    relay.upstreams.negotiate(9, negotiation(&format!("{gone}?access_token={SECRET}")));
    let UpstreamEvent::Negotiated { status: 0, body, fault, .. } = relay.event() else { panic!("expected an error") };
    assert_eq!(fault, Some(Fault::Server));
    let text = String::from_utf8(body).unwrap();
    assert!(text.starts_with(&format!("{gone}: connect: ")) && !text.contains(SECRET), "{text}");
}

#[test]
fn a_negotiation_that_is_called_off_closes_its_connection() {
    let (backend, relay) = (Backend::start(), Relay::start());
    relay.upstreams.negotiate(9, negotiation(&backend.url));
    let mut hung = backend.accept();
    assert!(read_head(&mut hung).starts_with("POST "));
    relay.upstreams.close(9, None);
    let told =
        UpstreamEvent::Negotiated { status: 0, body: b"it was called off".to_vec(), fault: None, cookies: vec![] };
    assert_eq!(relay.next(), Heard::Report(9, told));
    assert_eq!(hung.read(&mut [0]).unwrap(), 0, "the backend sees that it is over");
    // Before the thread has seen it, and again when it is over.
    relay.upstreams.negotiate(10, negotiation(&backend.url));
    relay.upstreams.close(10, None);
    assert!(matches!(relay.next(), Heard::Report(10, UpstreamEvent::Negotiated { status: 0, .. })));
    relay.upstreams.close(10, None);
}
