//! Where what comes goes, in which order, and that it is the bytes that came.
mod support;

use fanwire_core::messages::ConnectionId;
use fanwire_core::protocol::signalr::{HubMessage, HubProtocol, Outcome};
use fanwire_upstream::{CompletionKind, Newest, Route, UpstreamEvent};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use support::{
    BOTH, Backend, CLIENT, Heard, Relay, broadcast, call, close, completion, item, lane, private, publication, record,
    request, stream_call, unknown, value,
};

const NO_RESULT: &str = "Client didn't provide a result.";

fn joined(records: &[&[u8]]) -> Vec<u8> {
    records.concat()
}

fn reported(event: UpstreamEvent) -> Heard {
    Heard::Report(1, event)
}

fn came(target: &str) -> Heard {
    reported(UpstreamEvent::Came { target: target.to_owned() })
}

fn outcome(protocol: HubProtocol, id: &str) -> Heard {
    let body = value(protocol).to_vec();
    reported(UpstreamEvent::Completion { id: id.to_owned(), kind: CompletionKind::Result, body })
}

#[test]
fn a_lane_appends_what_one_read_brought_around_a_completion_in_order() {
    for protocol in BOTH {
        let (backend, relay) = (Backend::start(), Relay::start());
        let mut peer = relay.open_at(&backend, 1, request(&backend.url, protocol, lane()));
        let subscribe = call(protocol, Some("s"), "Subscribe");
        relay.upstreams.send(1, subscribe.clone());
        assert_eq!(peer.receive(protocol), subscribe);
        let of = |target| publication(protocol, target);
        let (snapshot, odds, news) = (of("Snapshot"), of("Odds"), of("News"));
        let done = completion(protocol, "s");
        let ping = protocol.ping();
        let strange = [unknown(protocol), item(protocol, "s"), completion(protocol, "nobody's")].concat();
        peer.send(protocol, &joined(&[&odds, &news, &snapshot, ping, &strange, &snapshot, &done, &odds, &odds]));
        let append = |records: &[&Vec<u8>], keyframes| {
            let records = records.iter().map(|record| record.to_vec()).collect();
            Heard::Append("m1".to_owned(), protocol, records, keyframes)
        };
        assert_eq!(["Odds", "News", "Snapshot"].map(came), [(); 3].map(|()| relay.next()));
        assert_eq!(relay.next(), append(&[&odds, &snapshot, &snapshot], vec![1, 2]));
        assert_eq!(relay.next(), outcome(protocol, "s"));
        assert_eq!(relay.next(), append(&[&odds, &odds], vec![]));
        assert_eq!(relay.upstreams.stats().records_in, 11);
    }
}

#[test]
fn frames_that_are_there_together_are_one_append() {
    let (backend, relay) = (Backend::start(), Relay::start());
    let protocol = HubProtocol::Json;
    let mut peer = relay.open_at(&backend, 1, request(&backend.url, protocol, lane()));
    let odds = publication(protocol, "Odds");
    let frame_head = [0x81, u8::try_from(odds.len()).unwrap()];
    let frames = [frame_head.as_slice(), &odds].concat().repeat(100);
    // In one write, so that the whole of it is in the socket when it is read.
    std::io::Write::write_all(peer.socket.get_mut(), &frames).unwrap();
    assert_eq!(relay.next(), came("Odds"));
    assert_eq!(relay.next(), Heard::Append("m1".into(), protocol, vec![odds; 100], vec![]));
}

#[test]
fn what_came_over_a_lane_is_reported_once_and_of_targets_that_nobody_named_only_so_many() {
    let (backend, relay) = (Backend::start(), Relay::start());
    let protocol = HubProtocol::Json;
    let mut peer = relay.open_at(&backend, 1, request(&backend.url, protocol, lane()));
    let others: Vec<String> = (0..20).map(|number| format!("T{number}")).collect();
    let names = others.iter().map(String::as_str).chain(["News", "T0", "Snapshot", "T1", "News"]);
    let records: Vec<Vec<u8>> = names.map(|name| publication(protocol, name)).collect();
    peer.send(protocol, &records.concat());
    for name in others[..16].iter().map(String::as_str).chain(["News", "Snapshot", "News"]) {
        assert_eq!(relay.next(), came(name));
    }
    assert!(matches!(relay.next(), Heard::Append(..)));
}

#[test]
fn a_broadcast_lane_publishes_everyone_and_reports_welcome_and_each_unnamed_once() {
    for protocol in BOTH {
        let (backend, relay) = (Backend::start(), Relay::start());
        let mut peer = relay.open_at(&backend, 1, request(&backend.url, protocol, broadcast()));
        let of = |target| publication(protocol, target);
        let (news, welcome, other) = (of("News"), of("Welcome"), of("Other"));
        peer.send(protocol, &joined(&[&news, &news, &other, &welcome, &other, &news]));
        let hub = |count: usize| Heard::Hub("/live".to_owned(), protocol, vec![news.clone(); count]);
        assert_eq!(relay.next(), came("News"));
        assert_eq!(relay.next(), came("News"), "their number has doubled");
        assert_eq!(relay.next(), hub(2));
        assert_eq!(relay.next(), reported(UpstreamEvent::Unnamed { target: "Other".to_owned() }));
        assert_eq!(greeting(&relay).take(), welcome);
        assert_eq!(relay.next(), hub(1));
        peer.send(protocol, &welcome);
        assert_eq!(greeting(&relay).take(), welcome);
    }
}

fn greeting(relay: &Relay) -> Newest {
    match relay.event() {
        UpstreamEvent::Welcome { target, record } if target == "Welcome" => record,
        other => panic!("expected a welcome, got {other:?}"),
    }
}

#[test]
fn greetings_that_nobody_takes_fill_no_queue_and_the_newest_is_kept() {
    for protocol in BOTH {
        let (backend, relay) = (Backend::start(), Relay::start());
        let mut peer = relay.open_at(&backend, 1, request(&backend.url, protocol, broadcast()));
        let arguments: &[u8] = if protocol.is_binary() { &[0x90] } else { b"[]" };
        let other = HubMessage::Invocation { id: None, target: "Welcome".into(), arguments, stream_ids: Vec::new() };
        let (welcome, newest) = (publication(protocol, "Welcome"), record(protocol, &other));
        peer.send(protocol, &joined(&[&welcome, &welcome, &newest, &publication(protocol, "Other")]));
        let greeted = greeting(&relay);
        assert_eq!(relay.next(), reported(UpstreamEvent::Unnamed { target: "Other".to_owned() }));
        assert_eq!(greeted.take(), newest);
        peer.send(protocol, &welcome);
        assert_eq!(greeting(&relay).take(), welcome);
    }
}

#[test]
fn a_private_session_passes_on_the_bytes_that_came_and_drops_what_is_not_the_clients() {
    for protocol in BOTH {
        let (backend, relay) = (Backend::start(), Relay::start());
        let mut peer = relay.open_at(&backend, 1, request(&backend.url, protocol, private()));
        let of = |target| publication(protocol, target);
        let asks = call(protocol, Some("s1"), "News");
        let strange: &[u8] = match protocol {
            HubProtocol::Json => b" { \"arguments\" : [ ] , \"target\":\"\\u004fdds\", \"x\":1, \"type\": 1 }\x1e",
            // A length in more bytes than it needs, and headers.
            HubProtocol::MessagePack => b"\x8d\x00\x96\x01\x81\xa1a\xa1b\xc0\xa1o\x91\x01\x90",
        };
        let cancel = record(protocol, &HubMessage::CancelInvocation { id: "s1".into() });
        let kept = [of("Odds"), strange.to_vec(), asks, completion(protocol, "1"), item(protocol, "2"), cancel];
        let sequence = record(protocol, &HubMessage::Sequence { sequence_id: 1 });
        let dropped = [of("News"), protocol.ping().to_vec(), unknown(protocol), of("Welcome"), sequence];
        let mut frame = Vec::new();
        for (index, kept) in kept.iter().enumerate() {
            frame.extend_from_slice(kept);
            frame.extend_from_slice(dropped.get(index).map_or(&[], Vec::as_slice));
        }
        peer.send(protocol, &frame);
        assert_eq!(relay.next(), Heard::Sent(ConnectionId::from_bits(CLIENT), kept.concat()));
    }
}

#[test]
fn a_private_session_reports_how_the_named_methods_end_besides() {
    for protocol in BOTH {
        let (backend, relay) = (Backend::start(), Relay::start());
        let mut peer = relay.open_at(&backend, 1, request(&backend.url, protocol, private()));
        let calls = joined(&[&call(protocol, Some("a"), "Add"), &call(protocol, Some("w"), "WATCH")]);
        relay.upstreams.send(1, calls.clone());
        assert_eq!(peer.receive(protocol), calls);
        let ended = |id: &str, outcome| record(protocol, &HubMessage::Completion { id: id.to_owned().into(), outcome });
        let refused = joined(&[&completion(protocol, "a"), &ended("w", Outcome::Error("no".into()))]);
        peer.send(protocol, &refused);
        assert_eq!(relay.next(), Heard::Sent(ConnectionId::from_bits(CLIENT), refused));
        let reported = UpstreamEvent::Completion { id: "w".into(), kind: CompletionKind::Error, body: Vec::new() };
        assert_eq!(relay.next(), Heard::Report(1, reported));
    }
}

#[test]
fn calls_report_completions_of_each_kind_and_nothing_else() {
    for protocol in BOTH {
        let (backend, relay) = (Backend::start(), Relay::start());
        let mut peer = relay.open_at(&backend, 1, request(&backend.url, protocol, Route::Calls));
        let calls = joined(&[
            &call(protocol, Some("a"), "Add"),
            &call(protocol, Some("b"), "Nothing"),
            &stream_call(protocol, "c"),
        ]);
        relay.upstreams.send(1, calls.clone());
        assert_eq!(peer.receive(protocol), calls);
        let ended = |id: &str, outcome| record(protocol, &HubMessage::Completion { id: id.to_owned().into(), outcome });
        peer.send(
            protocol,
            &joined(&[
                &publication(protocol, "Odds"),
                &item(protocol, "nobody's"),
                &item(protocol, "c"),
                &completion(protocol, "a"),
                &ended("c", Outcome::Error("no \u{e4}".into())),
                &item(protocol, "c"),
                &ended("b", Outcome::Void),
            ]),
        );
        let ended = |id: &str, kind, body: &str| {
            reported(UpstreamEvent::Completion { id: id.to_owned(), kind, body: body.into() })
        };
        assert_eq!(relay.next(), outcome(protocol, "a"));
        assert_eq!(relay.next(), ended("c", CompletionKind::Error, "no \u{e4}"));
        assert_eq!(relay.next(), ended("b", CompletionKind::Void, ""));
        relay.upstreams.close(1, None);
        peer.expect_end();
        assert_eq!(relay.closed().pending, Vec::<String>::new());
    }
}

#[test]
fn a_client_result_is_refused_at_once_where_there_is_no_client() {
    for protocol in BOTH {
        for route in [lane(), broadcast(), Route::Calls] {
            let (backend, relay) = (Backend::start(), Relay::start());
            let mut peer = relay.open_at(&backend, 1, request(&backend.url, protocol, route));
            peer.send(protocol, &call(protocol, Some("s1"), "News"));
            let refusal = HubMessage::Completion { id: "s1".into(), outcome: Outcome::Error(NO_RESULT.into()) };
            assert_eq!(peer.receive(protocol), record(protocol, &refusal));
            relay.upstreams.close(1, None);
            peer.expect_end();
            assert!(relay.closed().said.is_none());
        }
    }
}

#[test]
fn what_no_server_understands_is_not_sent() {
    for protocol in BOTH {
        let (backend, relay) = (Backend::start(), Relay::start());
        let mut peer = relay.open_at(&backend, 1, request(&backend.url, protocol, private()));
        let (first, last) = (call(protocol, None, "Add"), call(protocol, None, "Sub"));
        let ping = protocol.ping();
        let goodbye = close(protocol, None, false);
        relay.upstreams.send(1, joined(&[ping, &first, &unknown(protocol), &goodbye, &last, ping]));
        assert_eq!(peer.receive(protocol), joined(&[&first, &last]));
    }
}

/// Records of every kind and length of prefix, as they came and without what a lane drops.
fn stream(protocol: HubProtocol) -> (Vec<u8>, Vec<Vec<u8>>) {
    let long: Vec<u8> = match protocol {
        HubProtocol::Json => format!("[\"{}\"]", "ö".repeat(150)).into_bytes(),
        HubProtocol::MessagePack => [b"\x91\xc5\x01\x2c".as_slice(), &[0x1e; 300]].concat(),
    };
    let long = HubMessage::Invocation { id: None, target: "Long".into(), arguments: &long, stream_ids: Vec::new() };
    let of = |target| publication(protocol, target);
    let kept = vec![of("Odds"), record(protocol, &long), of("Snapshot"), of("Odds")];
    let bytes = joined(&[&kept[0], protocol.ping(), &kept[1], &of("News"), &kept[2], &unknown(protocol), &kept[3]]);
    (bytes, kept)
}

fn expect_records(relay: &Relay, expected: &[Vec<u8>]) {
    let mut appended = Vec::new();
    while appended.len() < expected.len() {
        match relay.next() {
            Heard::Append(_, _, records, _) => appended.extend(records),
            Heard::Report(_, UpstreamEvent::Came { .. }) => {}
            other => panic!("expected an append, got {other:?}"),
        }
    }
    assert_eq!(appended, expected);
}

/// In JSON a cut inside a character makes binary frames of both pieces, which are taken as well.
fn send_cut(peer: &mut support::Peer, protocol: HubProtocol, pieces: &[&[u8]]) {
    for piece in pieces {
        peer.send(protocol, piece);
    }
}

#[test]
fn records_cut_at_any_byte_come_out_whole() {
    for protocol in BOTH {
        let (backend, relay) = (Backend::start(), Relay::start());
        let mut peer = relay.open_at(&backend, 1, request(&backend.url, protocol, lane()));
        let (bytes, kept) = stream(protocol);
        for cut in 0..=bytes.len() {
            send_cut(&mut peer, protocol, &[&bytes[..cut], &bytes[cut..]]);
            expect_records(&relay, &kept);
        }
        send_cut(&mut peer, protocol, &bytes.chunks(1).collect::<Vec<_>>());
        expect_records(&relay, &kept);
    }
}

#[test]
fn records_cut_into_any_pieces_come_out_whole() {
    for protocol in BOTH {
        let (backend, relay) = (Backend::start(), Relay::start());
        let peer = relay.open_at(&backend, 1, request(&backend.url, protocol, lane()));
        let peer = std::cell::RefCell::new(peer);
        let (bytes, kept) = stream(protocol);
        let cuts = prop::collection::btree_set(0..=bytes.len(), 0..20);
        let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() });
        let outcome = runner.run(&cuts, |cuts| {
            let mut at = 0;
            let mut pieces = Vec::new();
            for cut in cuts.into_iter().chain([bytes.len()]) {
                pieces.push(&bytes[at..cut]);
                at = cut;
            }
            send_cut(&mut peer.borrow_mut(), protocol, &pieces);
            expect_records(&relay, &kept);
            Ok(())
        });
        outcome.unwrap();
    }
}
