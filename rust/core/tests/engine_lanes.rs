//! Lanes of a relay: records of a hub protocol go out as they came, and who joins late begins at a snapshot.
mod support;

use std::net::TcpStream;

use fanwire_core::channel::Newest;
use fanwire_core::messages::{ConnectionId, Event, Reply};
use fanwire_core::protocol::signalr::HubProtocol;
use fanwire_core::{Asks, Audience, Engine, EngineError, OwnerId, Route, Settings, Wire};
use support::{HUB, TAKES_MESSAGES, eventually, next_event, on_each_poller, start_asking, told_of};
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

type Client = WebSocket<MaybeTlsStream<TcpStream>>;

/// However much and old.
const ANY: Newest = Newest { messages_max: None, age_ns_max: None };

/// An engine with a SignalR path and a plain one, both a relay's, and where it listens.
fn start(settings: Settings) -> (Engine, String) {
    let asks = Asks { connected: true, records: true, ..TAKES_MESSAGES };
    let (engine, address) = start_asking(settings, asks, &[("/live", HUB)]);
    let feed = Route::new("/Feed", Wire::Plain, OwnerId(0)).expect("a path");
    engine.add_route(feed).expect("it is free");
    (engine, address)
}

/// A client that has shaken hands, and what the engine calls it.
fn client(engine: &Engine, address: &str, protocol: &str) -> (Client, ConnectionId) {
    let (mut client, _) = tungstenite::connect(format!("ws://{address}/live")).expect("an upgrade");
    let handshake = format!("{{\"protocol\":\"{protocol}\",\"version\":1}}\u{1e}");
    client.send(Message::text(handshake)).expect("sent");
    assert_eq!(client.read().expect("an answer").into_data(), &b"{}\x1e"[..]);
    let id = told_of(engine);
    (client, id)
}

fn append(engine: &Engine, records: &[&[u8]], snapshots: &[usize]) {
    engine.append_records(Audience::Lane("l"), HubProtocol::Json, records, snapshots).expect("runs");
}

/// What comes next, up to `last`.
fn read_until(client: &mut Client, last: &str) -> String {
    let mut read = String::new();
    while !read.ends_with(last) {
        read.push_str(client.read().expect("a message").to_text().expect("text"));
    }
    read
}

#[test]
fn who_joins_late_gets_the_newest_snapshot_and_everything_after_it() {
    on_each_poller(|settings| {
        let (engine, address) = start(settings);
        engine.set_beginning("l", 1_000).expect("runs");
        append(&engine, &[b"early\x1e", b"S1\x1e", b"a\x1e"], &[1]);
        let (mut first, id) = client(&engine, &address, "json");
        assert!(engine.join_lane(id, "l", false, ANY).expect("runs"));
        append(&engine, &[b"b\x1e"], &[]);
        assert_eq!(read_until(&mut first, "b\u{1e}"), "S1\u{1e}a\u{1e}b\u{1e}");
        let (mut second, id) = client(&engine, &address, "json");
        append(&engine, &[b"S2\x1e", b"c\x1e"], &[0]);
        assert!(engine.join_lane(id, "l", false, ANY).expect("runs"));
        append(&engine, &[b"d\x1e"], &[]);
        assert_eq!(read_until(&mut first, "d\u{1e}"), "S2\u{1e}c\u{1e}d\u{1e}");
        assert_eq!(read_until(&mut second, "d\u{1e}"), "S2\u{1e}c\u{1e}d\u{1e}");
        engine.leave_lane(id, "l").expect("runs");
        append(&engine, &[b"e\x1e"], &[]);
        assert_eq!(read_until(&mut first, "e\u{1e}"), "e\u{1e}");
        engine.send_records(id, b"mine\x1e").expect("runs");
        assert_eq!(read_until(&mut second, "mine\u{1e}"), "mine\u{1e}");
    });
}

#[test]
fn what_is_lost_is_said_and_a_snapshot_for_newcomers_is_theirs_alone() {
    on_each_poller(|settings| {
        let (engine, address) = start(settings);
        engine.set_beginning("l", 8).expect("runs");
        let (mut first, id) = client(&engine, &address, "json");
        assert!(engine.join_lane(id, "l", false, ANY).expect("runs"));
        append(&engine, &[b"S1\x1e", b"12345678\x1e"], &[0]);
        let (mut second, newcomer) = client(&engine, &address, "json");
        assert!(!engine.join_lane(newcomer, "l", false, ANY).expect("runs"));
        let (mut third, impatient) = client(&engine, &address, "json");
        engine.join_live(impatient, "l").expect("runs");
        engine.expect_snapshot("l", true).expect("runs");
        append(&engine, &[b"S2\x1e", b"x\x1e"], &[0]);
        assert!(engine.join_lane(newcomer, "l", false, ANY).expect("runs"));
        append(&engine, &[b"y\x1e"], &[]);
        assert_eq!(read_until(&mut first, "y\u{1e}"), "S1\u{1e}12345678\u{1e}x\u{1e}y\u{1e}");
        assert_eq!(read_until(&mut second, "y\u{1e}"), "S2\u{1e}x\u{1e}y\u{1e}");
        assert_eq!(read_until(&mut third, "y\u{1e}"), "x\u{1e}y\u{1e}");
    });
}

#[test]
fn what_is_over_a_newcomers_bounds_is_not_given_and_is_not_lost() {
    on_each_poller(|settings| {
        let (engine, address) = start(settings);
        engine.set_beginning("l", 1_000).expect("runs");
        append(&engine, &[b"S1\x1e", b"a\x1e", b"b\x1e"], &[0]);
        let (mut late, id) = client(&engine, &address, "json");
        for bounds in [Newest { messages_max: Some(1), ..ANY }, Newest { age_ns_max: Some(0), ..ANY }] {
            eventually("time goes on", || !engine.join_lane(id, "l", false, bounds).expect("runs"));
        }
        let hour_ns = 3_600_000_000_000;
        let most = Newest { messages_max: Some(2), age_ns_max: Some(hour_ns) };
        assert!(engine.join_lane(id, "l", false, most).expect("runs"));
        assert_eq!(read_until(&mut late, "b\u{1e}"), "S1\u{1e}a\u{1e}b\u{1e}");
    });
}

#[test]
fn who_joins_once_more_begins_at_the_snapshot_or_stays_where_it_is() {
    on_each_poller(|settings| {
        let (engine, address) = start(settings);
        engine.set_beginning("l", 8).expect("runs");
        append(&engine, &[b"S1\x1e", b"a\x1e"], &[0]);
        let (mut client, id) = client(&engine, &address, "json");
        assert!(engine.join_lane(id, "l", false, ANY).expect("runs"));
        assert!(engine.join_lane(id, "l", true, ANY).expect("runs"));
        append(&engine, &[b"b\x1e"], &[]);
        assert_eq!(read_until(&mut client, "b\u{1e}"), "S1\u{1e}a\u{1e}S1\u{1e}a\u{1e}b\u{1e}");
        append(&engine, &[b"12345678\x1e"], &[]);
        assert!(!engine.join_lane(id, "l", true, ANY).expect("runs"));
        append(&engine, &[b"c\x1e"], &[]);
        assert_eq!(read_until(&mut client, "c\u{1e}"), "12345678\u{1e}c\u{1e}");
    });
}

#[test]
fn records_reach_only_those_who_speak_their_protocol_and_come_in_whole() {
    on_each_poller(|settings| {
        let (engine, address) = start(settings);
        let (mut json, _) = client(&engine, &address, "json");
        let (mut msgpack, _) = client(&engine, &address, "messagepack");
        let all = Audience::Hub("/live");
        engine.append_records(all, HubProtocol::Json, &[b"j\x1e"], &[]).expect("runs");
        engine.append_records(all, HubProtocol::MessagePack, &[b"\x02\x91\x01"], &[]).expect("runs");
        assert_eq!(json.read().expect("a message"), Message::text("j\u{1e}"));
        assert_eq!(msgpack.read().expect("a message"), Message::binary(&b"\x02\x91\x01"[..]));
        let call = "{\"type\":1,\"target\":\"x\",\"arguments\":[1],\"extra\":{}}\u{1e}";
        json.send(Message::text(call)).expect("sent");
        let mut record = None;
        eventually("the call is an event with the whole record", || {
            for event in engine.take_events(16) {
                if let Event::SignalR(_, event) = event {
                    record = event.record;
                }
            }
            record.is_some()
        });
        assert_eq!(record.as_deref(), Some(call.as_bytes()));
    });
}

#[test]
fn a_plain_websocket_that_is_relayed_is_opened_as_the_application_says_and_its_messages_are_events() {
    on_each_poller(|settings| {
        let (engine, address) = start(settings);
        let url = format!("ws://{address}/Feed?channel=not+one");
        let connecting = std::thread::spawn(move || {
            let builder = tungstenite::ClientRequestBuilder::new(url.parse().expect("a URL"));
            tungstenite::connect(builder.with_sub_protocol("a").with_sub_protocol("b")).expect("an upgrade")
        });
        let Event::Opening(whose, request) = next_event(&engine) else { panic!("expected an opening") };
        let id = whose.connection;
        assert!(request.wire == Wire::Plain && request.channels.is_empty());
        engine.set_beginning("f", 1_000).expect("runs");
        let message = |is_text, data| fanwire_core::Message { is_text, data };
        engine.append_messages("f", &[message(true, b"early"), message(false, b"")]).expect("runs");
        let cookie = |value: &str| Reply {
            headers: vec![("Set-Cookie".into(), "a=1".into()), ("Set-Cookie".into(), value.into())],
            subprotocol: Some("b".into()),
        };
        for bad in ["b=\r\nX: y".to_owned(), "b".repeat(16 * 1024)] {
            let refused = engine.accept_relayed(id, cookie(&bad));
            assert!(matches!(refused, Err(EngineError::InvalidHeader { .. })), "{refused:?}");
        }
        engine.accept_relayed(id, cookie("b=2; Path=/")).expect("runs");
        engine.send_messages(id, &[message(true, b"first")]).expect("runs");
        assert!(engine.join_lane(id, "f", false, ANY).expect("runs"));
        engine.append_messages("f", &[message(true, b"late")]).expect("runs");
        let (mut client, response) = connecting.join().expect("connected");
        assert_eq!(response.headers()["sec-websocket-protocol"], "b");
        let cookies: Vec<_> = response.headers().get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a=1", "b=2; Path=/"]);
        for expected in [Message::text("first"), Message::text("early"), Message::binary(""), Message::text("late")] {
            assert_eq!(client.read().expect("a message"), expected);
        }
        client.send(Message::text(r#"{"subscribe":["a"]}"#)).expect("sent");
        client.send(Message::binary([0xFF].as_slice())).expect("sent");
        for expected in [(true, br#"{"subscribe":["a"]}"#.as_slice()), (false, &[0xFF])] {
            let Event::Relayed(from, is_text, data) = next_event(&engine) else { panic!("expected a message") };
            assert_eq!((from, is_text, &*data), (whose, expected.0, expected.1));
        }
        assert!(tungstenite::connect(format!("ws://{address}/feed")).is_err(), "its case matters");
    });
}
