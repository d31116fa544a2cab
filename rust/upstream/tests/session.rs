//! A session's life: pings, silence, idleness, queues and every kind of end.
mod support;

use std::io::Write;
use std::time::Duration;

use fanwire_core::protocol::signalr::HubProtocol;
use fanwire_upstream::{PENDING_BYTES_MAX, QUEUE_SLACK_BYTES, Route, UpstreamEvent};
use support::{
    BOTH, Backend, Heard, Relay, call, close, completion, lane, negotiation, private, publication, request, stream_call,
};
use tokio_tungstenite::tungstenite::Message;

const JSON: HubProtocol = HubProtocol::Json;
const SHORT: Duration = Duration::from_millis(60);

#[test]
fn a_close_message_ends_it_with_what_it_said() {
    for protocol in BOTH {
        for (error, allow_reconnect) in [(Some("Connection closed with an error."), true), (None, false), (None, true)]
        {
            let (backend, relay) = (Backend::start(), Relay::start());
            let mut peer = relay.open_at(&backend, 1, request(&backend.url, protocol, lane()));
            let odds = publication(protocol, "Odds");
            peer.send(protocol, &[odds.clone(), close(protocol, error, allow_reconnect), odds.clone()].concat());
            assert_eq!(relay.event(), UpstreamEvent::Came { target: "Odds".into() });
            assert_eq!(relay.next(), Heard::Append("m1".into(), protocol, vec![odds], vec![]));
            let closed = relay.closed();
            assert_eq!(closed.said, Some((error.map(str::to_owned), allow_reconnect)));
            let text = error.map(|error| format!(": {error}")).unwrap_or_default();
            assert_eq!(closed.error, format!("{}: the hub closed the connection{text}", backend.url));
            assert!(closed.was_open);
            assert_eq!(peer.expect_end(), Some(1005));
        }
    }
}

#[test]
fn a_lost_socket_names_the_calls_that_were_pending() {
    for protocol in BOTH {
        for is_polite in [false, true] {
            let (backend, relay) = (Backend::start(), Relay::start());
            let mut peer = relay.open_at(&backend, 1, request(&backend.url, protocol, private()));
            let calls = [
                call(protocol, Some("1"), "Add"),
                call(protocol, Some("2"), "Add"),
                stream_call(protocol, "3"),
                call(protocol, Some("1"), "Add"),
                call(protocol, None, "Send"),
            ];
            relay.upstreams.send(1, calls.concat());
            assert_eq!(peer.receive(protocol), calls.concat());
            peer.send(protocol, &completion(protocol, "2"));
            assert!(matches!(relay.next(), Heard::Sent(..)));
            if is_polite {
                peer.socket.close(None).unwrap();
            }
            drop(peer);
            let closed = relay.closed();
            assert_eq!(closed.pending, ["1", "1", "3"]);
            let expected =
                if is_polite { "the server closed the WebSocket without a code" } else { "the connection was lost: " };
            assert!(closed.error.starts_with(&format!("{}: {expected}", backend.url)), "{}", closed.error);
            assert_eq!((closed.said, closed.was_open), (None, true));
            assert_eq!(relay.upstreams.stats().sessions_now, 0);
        }
    }
}

#[test]
fn our_silence_is_broken_by_pings() {
    for protocol in BOTH {
        let (backend, relay) = (Backend::start(), Relay::start());
        let mut open = request(&backend.url, protocol, lane());
        open.keepalive = SHORT;
        let mut peer = relay.open_at(&backend, 1, open);
        for _ in 0..3 {
            assert_eq!(peer.receive(protocol), protocol.ping());
        }
    }
}

#[test]
fn a_silent_server_is_given_up_and_one_that_pings_is_not() {
    for protocol in BOTH {
        let (backend, relay) = (Backend::start(), Relay::start());
        let mut open = request(&backend.url, protocol, lane());
        open.keepalive = SHORT;
        open.server_timeout = Duration::from_secs(2);
        let mut peer = relay.open_at(&backend, 1, open);
        // Pings of the relay's are its clock: these take longer than the silence that ends it.
        for _ in 0..40 {
            peer.receive(protocol);
            peer.send(protocol, protocol.ping());
        }
        let closed = relay.closed();
        assert_eq!(closed.error, format!("{}: the server was silent for 2000 ms", backend.url));
        assert!(closed.was_open);
    }
}

#[test]
fn websocket_pings_are_answered_and_are_no_sign_of_the_hub() {
    let (backend, relay) = (Backend::start(), Relay::start());
    let mut peer = relay.open_at(&backend, 1, request(&backend.url, JSON, lane()));
    peer.socket.send(Message::Ping(b"abc".as_slice().into())).unwrap();
    assert_eq!(peer.socket.read().unwrap(), Message::Pong(b"abc".as_slice().into()));
}

#[test]
fn a_server_that_pings_and_reads_no_answer_is_lost_once_they_take_the_place_of_what_is_sent() {
    let (backend, relay) = (Backend::start(), Relay::start());
    let mut peer = relay.open_at(&backend, 1, request(&backend.url, JSON, private()));
    let ping = [&[0x89, 125], [b'x'; 125].as_slice()].concat();
    // Far more than what the kernel takes of the answers, and the queue with its slack.
    peer.socket.get_mut().write_all(&ping.repeat(24 * 1024 * 1024 / ping.len())).unwrap();
    peer.send(JSON, &publication(JSON, "Odds"));
    assert!(matches!(relay.next(), Heard::Sent(..)), "it is read all the same");
    relay.upstreams.send(1, call(JSON, Some("1"), &"Long".repeat(100)));
    let closed = relay.closed();
    let why = "the connection was lost: the server does not read what it is sent";
    assert_eq!((closed.error, closed.pending), (format!("{}: {why}", backend.url), vec!["1".to_owned()]));
}

#[test]
fn idle_is_told_once_and_again_after_something_was_sent() {
    let (backend, relay) = (Backend::start(), Relay::start());
    let mut open = request(&backend.url, JSON, private());
    open.idle = Some(SHORT);
    open.keepalive = SHORT / 6;
    let mut peer = relay.open_at(&backend, 1, open);
    assert_eq!(relay.event(), UpstreamEvent::Idle);
    let add = call(JSON, None, "Add");
    relay.upstreams.send(1, add.clone());
    while peer.receive(JSON) != add {}
    assert_eq!(relay.event(), UpstreamEvent::Idle);
    // Pings either way, more than the time of two idles: nothing is told.
    for _ in 0..20 {
        assert_eq!(peer.receive(JSON), JSON.ping());
        peer.send(JSON, JSON.ping());
    }
    peer.send(JSON, &publication(JSON, "Odds"));
    assert!(matches!(relay.next(), Heard::Sent(..)));
    assert_eq!(relay.event(), UpstreamEvent::Idle);
}

#[test]
fn it_is_never_idle_while_a_call_or_a_client_result_is_pending() {
    for protocol in BOTH {
        let (backend, relay) = (Backend::start(), Relay::start());
        let mut open = request(&backend.url, protocol, private());
        open.idle = Some(SHORT * 5);
        open.keepalive = SHORT;
        let mut peer = relay.open_at(&backend, 1, open);
        let add = call(protocol, Some("1"), "Add");
        relay.upstreams.send(1, add.clone());
        while peer.receive(protocol) != add {}
        for _ in 0..10 {
            assert_eq!(peer.receive(protocol), protocol.ping());
        }
        let asks = [call(protocol, Some("s1"), "Question"), completion(protocol, "1")].concat();
        peer.send(protocol, &asks);
        assert!(matches!(relay.next(), Heard::Sent(..)), "before Idle");
        for _ in 0..10 {
            assert_eq!(peer.receive(protocol), protocol.ping());
        }
        let answer = completion(protocol, "s1");
        assert!(relay.heard.try_recv().is_err(), "Idle while a client result was pending");
        relay.upstreams.send(1, answer.clone());
        while peer.receive(protocol) != answer {}
        assert_eq!(relay.event(), UpstreamEvent::Idle);
    }
}

#[test]
fn garbage_oversize_and_a_record_that_is_none_end_it() {
    let cases: [(HubProtocol, Vec<u8>, &str); 5] = [
        (JSON, b"garbage\x1e".to_vec(), "message is not JSON"),
        (JSON, vec![b' '; 32 * 1024], "record has at least 32769 bytes, at most 32768 are taken"),
        (HubProtocol::MessagePack, b"\x01\xc1".to_vec(), "message: expected an array, got"),
        (HubProtocol::MessagePack, b"\xff\xff\xff\xff\xff".to_vec(), "length of a record is "),
        (
            HubProtocol::MessagePack,
            b"\x80\x80\x04".to_vec(),
            "record has at least 65539 bytes, at most 32768 are taken",
        ),
    ];
    let (backend, relay) = (Backend::start(), Relay::start());
    for (protocol, bytes, expected) in cases {
        let mut peer = relay.open_at(&backend, 1, request(&backend.url, protocol, lane()));
        let odds = publication(protocol, "Odds");
        peer.send(protocol, &[odds.clone(), bytes].concat());
        assert_eq!(relay.event(), UpstreamEvent::Came { target: "Odds".into() });
        assert_eq!(relay.next(), Heard::Append("m1".into(), protocol, vec![odds], vec![]));
        let error = relay.closed().error;
        let expected = format!("{}: what the server sent can't be used: {expected}", backend.url);
        assert!(error.starts_with(&expected), "{error}");
        peer.expect_end();
    }
    let mut peer = relay.open_at(&backend, 1, request(&backend.url, JSON, lane()));
    drop(peer.socket.send(Message::text(" ".repeat(2 << 20))));
    let error = relay.closed().error;
    assert!(error.contains("2097152 > 1081344"), "{error}");
}

#[test]
fn a_server_that_does_not_read_still_is_read_and_drained_tells_when_it_did() {
    let (backend, relay) = (Backend::start(), Relay::start());
    let mut peer = relay.open_at(&backend, 1, request(&backend.url, JSON, private()));
    let big = format!("{{\"type\":1,\"target\":\"Big\",\"arguments\":[\"{}\"]}}\x1e", "x".repeat(400_000)).into_bytes();
    let (mut sent, mut waiting, mut is_owed) = (0, 0, false);
    // Until the kernel takes no more of it, and one waits behind another.
    while waiting <= big.len() {
        waiting = relay.upstreams.send(1, big.clone()).expect("within the bound");
        (sent, is_owed) = (sent + 1, true);
        // What comes back shows that the session's task had its turn, and that it still reads.
        peer.send(JSON, &publication(JSON, "Odds"));
        while !matches!(relay.next(), Heard::Sent(..)) {
            is_owed = false;
        }
    }
    let mut received = 0;
    while received < sent * big.len() {
        received += peer.receive(JSON).len();
    }
    assert_eq!(received, sent * big.len());
    if is_owed {
        assert_eq!(relay.event(), UpstreamEvent::Drained);
    }
    assert!(relay.upstreams.stats().bytes_out >= received as u64);
}

#[test]
fn a_caller_that_does_not_hold_back_loses_the_session_and_hears_of_its_calls() {
    let (backend, relay) = (Backend::start(), Relay::start());
    relay.upstreams.open(1, request(&backend.url, JSON, private()));
    let hung = backend.accept();
    let add = call(JSON, Some("1"), "Add");
    let count = (64 * 1024 + QUEUE_SLACK_BYTES) / add.len() + 1;
    for _ in 0..count {
        relay.upstreams.send(1, add.clone()).expect("the session takes it");
    }
    assert_eq!(relay.upstreams.send(1, add.clone()), None);
    let closed = relay.closed();
    let expected =
        format!("{} bytes wait to be sent, at most {} may", count * add.len(), 64 * 1024 + QUEUE_SLACK_BYTES);
    assert_eq!((closed.error, closed.pending.len()), (expected, count));
    drop(hung);
}

#[test]
fn what_is_no_record_and_too_many_calls_end_it() {
    let (backend, relay) = (Backend::start(), Relay::start());
    let add = call(JSON, Some("1"), "Add");
    let cases = [
        (b"garbage\x1e".to_vec(), "a record to send: message is not JSON"),
        (add[..add.len() - 1].to_vec(), "bytes to send end inside a record"),
    ];
    for (bytes, expected) in cases {
        let mut peer = relay.open_at(&backend, 1, request(&backend.url, JSON, private()));
        relay.upstreams.send(1, bytes);
        let error = relay.closed().error;
        assert!(error.contains(expected), "{error}");
        peer.expect_end();
    }
    let mut open = request(&backend.url, JSON, Route::Calls);
    open.queue_bytes_max = 8 << 20;
    let mut peer = relay.open_at(&backend, 1, open);
    let count = PENDING_BYTES_MAX / 65 + 1;
    relay.upstreams.send(1, add.repeat(count));
    let closed = relay.closed();
    assert!(closed.error.contains("calls that wait for their completion take"), "{}", closed.error);
    assert_eq!(closed.pending.len(), count);
    peer.expect_end();
}

#[test]
fn close_sends_what_waits_then_shakes_hands() {
    for protocol in BOTH {
        let (backend, relay) = (Backend::start(), Relay::start());
        let mut peer = relay.open_at(&backend, 1, request(&backend.url, protocol, private()));
        let leave = call(protocol, Some("7"), "Leave");
        relay.upstreams.send(1, leave.clone());
        relay.upstreams.close(1, None);
        assert_eq!(peer.receive(protocol), leave);
        assert_eq!(peer.expect_end(), Some(1005));
        let closed = relay.closed();
        assert_eq!(closed.error, format!("{}: closed from here", backend.url));
        assert_eq!((closed.said, closed.pending), (None, vec!["7".to_owned()]));
        assert_eq!(relay.upstreams.send(1, leave), None);
        assert!(relay.heard.try_recv().is_err());
    }
}

/// How many threads of this process have the upstreams' name, which the system cuts.
fn threads_named_so() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|name| name.starts_with("fanwire-upstrea")).count()
}

/// In a process of its own: the other tests here have threads of that name.
#[test]
fn stop_with_open_sessions_leaves_no_thread() {
    if std::env::var_os("FANWIRE_STOP_TEST").is_none() {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["stop_with_open_sessions_leaves_no_thread", "--exact"]).env("FANWIRE_STOP_TEST", "1");
        assert!(child.status().unwrap().success());
        return;
    }
    let (backend, relay) = (Backend::start(), Relay::start());
    let polite: Vec<_> =
        (0..20).map(|session| relay.open_at(&backend, session, request(&backend.url, JSON, lane()))).collect();
    relay.upstreams.open(20, request(&backend.url, JSON, lane()));
    let hung = backend.accept();
    relay.upstreams.open(21, request(&backend.url.replace("127.0.0.1", "localhost"), JSON, lane()));
    relay.upstreams.negotiate(22, negotiation(&backend.url));
    assert!(threads_named_so() >= 1);
    let peers = std::thread::spawn(move || polite.into_iter().map(|mut peer| peer.expect_end()).collect::<Vec<_>>());
    relay.upstreams.stop();
    assert_eq!(peers.join().unwrap(), [Some(1005); 20]);
    assert_eq!(threads_named_so(), 0);
    let mut closed: Vec<u64> = Vec::new();
    for heard in relay.heard.try_iter() {
        match heard {
            Heard::Report(session, UpstreamEvent::Closed { error, .. }) => {
                assert!(error.ends_with("closed from here"), "{error}");
                closed.push(session);
            }
            Heard::Report(22, UpstreamEvent::Negotiated { status: 0, body, .. }) => {
                assert_eq!(body, b"the upstreams were stopped");
            }
            other => panic!("expected the end, got {other:?}"),
        }
    }
    closed.sort_unstable();
    assert_eq!(closed, (0..22).collect::<Vec<_>>());
    relay.upstreams.open(30, request(&backend.url, JSON, lane()));
    assert_eq!(relay.closed().error, "the upstreams were stopped");
    relay.upstreams.stop();
    drop(hung);
}

/// An answer was looked for after 61 turns of the other, where that one had so much to say.
#[test]
fn a_server_that_sends_without_pause_leaves_others_their_turns() {
    let (backend, relay) = (Backend::start(), Relay::start());
    let mut flooder = relay.open_at(&backend, 1, request(&backend.url, JSON, lane()));
    let mut other = relay.open_at(&backend, 2, request(&backend.url, JSON, private()));
    let odds = publication(JSON, "Odds");
    let flood = [&[0x81, u8::try_from(odds.len()).unwrap()][..], &odds].concat().repeat(10_000);
    let flooding = std::thread::spawn(move || while flooder.socket.get_mut().write_all(&flood).is_ok() {});
    let mut turns = [0; 31];
    for turn in &mut turns {
        relay.upstreams.send(2, call(JSON, Some("1"), "Add"));
        other.receive(JSON);
        while relay.heard.try_recv().is_ok() {} // of before
        other.send(JSON, &completion(JSON, "1"));
        while !matches!(relay.next(), Heard::Sent(..)) {
            *turn += 1;
        }
    }
    turns.sort_unstable();
    assert!(turns[15] < 2, "the answers came after so many turns of the other: {turns:?}");
    drop(relay);
    flooding.join().unwrap();
}

/// Such a frame was one turn, however many records it held.
#[test]
fn a_frame_of_many_records_is_read_in_many_turns() {
    for protocol in BOTH {
        let (backend, relay) = (Backend::start(), Relay::start());
        let mut flooder = relay.open_at(&backend, 1, request(&backend.url, protocol, lane()));
        let odds = publication(protocol, "Odds");
        let count = 20_000;
        flooder.send(protocol, &odds.repeat(count));
        let (mut came, mut most) = (0, 0);
        while came < count {
            if let Heard::Append(_, _, records, _) = relay.next() {
                assert!(records.iter().all(|record| *record == odds));
                came += records.len();
                most = most.max(records.len());
            }
        }
        assert_eq!(came, count);
        assert!(most <= 512, "{most} in one turn");
        flooder.send(protocol, &odds); // what comes behind it is read as well
        assert!(matches!(relay.next(), Heard::Append(_, _, records, _) if records == [&*odds]));
    }
}
