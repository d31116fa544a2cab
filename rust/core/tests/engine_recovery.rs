//! Where subscribers begin: recovered from a position, at a keyframe or snapshot, live or with the history; from outside.
mod support;

use std::io::{BufRead, BufReader, Write};

use fanwire_core::channel::{Publication, Start};
use fanwire_core::messages::Event;
use fanwire_core::protocol::{Encoded, Payload};
use fanwire_core::{ChannelSettings, Engine, Position, Settings};
use serde_json::{Value, json};
use support::{Client, await_turn, connect, dial, eventually, on_each_poller, promising, publish, read_text, start};
use tungstenite::Message;

/// Channels that begin live, and keep ten publications.
fn keeping() -> ChannelSettings {
    ChannelSettings { history_frames: 10, start: Start::Live, ..ChannelSettings::default() }
}

fn start_with(settings: Settings, channel: ChannelSettings) -> (Engine, String) {
    start(Settings { channels: promising("*", channel), ..settings })
}

fn put(engine: &Engine, channel: &str, text: &str, kind: &str) -> Position {
    let (is_keyframe, is_snapshot) = (kind == "keyframe", kind == "snapshot");
    let publication = Publication { is_keyframe, is_snapshot, ..Publication::new(Payload::Text(text)) };
    engine.publish(channel, &publication, false).expect("the engine runs").expect("nothing to encode")
}

fn read_json(client: &mut Client) -> Value {
    serde_json::from_str(&read_text(client)).expect("JSON")
}

fn ask(client: &mut Client, request: &Value) {
    client.send(Message::text(request.to_string())).expect("it is open");
}

/// The first publications of a channel `a` that got twenty.
fn twenty(engine: &Engine) -> Vec<Position> {
    (1..=20).map(|number| publish(engine, "a", &number.to_string())).collect()
}

fn expect_texts(client: &mut Client, texts: impl IntoIterator<Item = u32>) {
    for text in texts {
        assert_eq!(read_text(client), text.to_string());
    }
}

#[test]
fn a_position_in_the_query_brings_what_was_missed_and_then_the_live_ones() {
    on_each_poller(|settings| {
        let (engine, address) = start_with(settings, keeping());
        let positions = twenty(&engine);
        let since = positions[14];
        let mut client = connect(&address, &format!("channel=a&since={since}"));
        let expected = json!({ "subscribed": ["a"], "recovered": { "a": true },
            "positions": { "a": [since.epoch, since.offset] } });
        assert_eq!(read_json(&mut client), json!({ "result": expected }));
        expect_texts(&mut client, 16..=20);
        publish(&engine, "a", "21");
        expect_texts(&mut client, [21]);
    });
}

#[test]
fn positions_that_cannot_be_had_are_not_recovered_and_begin_as_asked() {
    on_each_poller(|settings| {
        let (engine, address) = start_with(settings, keeping());
        let positions = twenty(&engine);
        let last = positions[19];
        let other = publish(&engine, "b", "b");
        let cases = [
            ("too old", Position { offset: 3, ..last }),
            ("the future", Position { offset: 21, ..last }),
            ("another epoch", Position { epoch: last.epoch - 1, ..last }),
            ("another channel", other),
            ("huge", Position { epoch: u64::MAX, offset: u64::MAX }),
            ("huge offset", Position { offset: u64::MAX, ..last }),
            ("zero", Position { epoch: 0, offset: 0 }),
        ];
        for (what, since) in cases {
            let mut client = connect(&address, &format!("channel=a&since={since}"));
            let reply = read_json(&mut client);
            assert_eq!(reply["result"]["recovered"], json!({ "a": false }), "{what}");
            assert_eq!(reply["result"]["positions"], json!({ "a": [last.epoch, 20] }), "{what}");
            let mut history = connect(&address, &format!("channel=a&since={since}&start=history"));
            let reply = read_json(&mut history);
            assert_eq!(reply["result"]["recovered"], json!({ "a": false }), "{what}");
            assert_eq!(reply["result"]["positions"], json!({ "a": [last.epoch, 10] }), "{what}");
            expect_texts(&mut history, 11..=20);
            // By message, too.
            let mut asking = connect(&address, "");
            let since = json!({ "a": [since.epoch, since.offset] });
            ask(&mut asking, &json!({ "subscribe": ["a"], "since": since, "id": 1 }));
            let reply = read_json(&mut asking);
            assert_eq!((&reply["id"], &reply["result"]["recovered"]), (&json!(1), &json!({ "a": false })), "{what}");
        }
    });
}

#[test]
fn positions_that_are_none_are_refused_with_their_text() {
    on_each_poller(|settings| {
        let (engine, address) = start_with(settings, keeping());
        twenty(&engine);
        let bad = [
            ("since=-1-3", "since: position"),
            ("since=1--3", "since: position"),
            ("since=17", "since: position"),
            ("since=99999999999999999999-1", "99999999999999999999-1"),
            ("start=yesterday", "yesterday"),
            ("start=", "start"),
            ("envelope=perhaps", "perhaps"),
            ("format=xml", "xml"),
        ];
        for (query, word) in bad {
            let mut stream = dial(&address);
            let request = format!("GET /events?channel=a&{query} HTTP/1.1\r\nHost: x\r\n\r\n");
            stream.write_all(request.as_bytes()).expect("it is open");
            let answer = std::io::read_to_string(stream).expect("an answer, then the end");
            assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(word), "{query}: {answer}");
        }
        let mut client = connect(&address, "");
        let bad = [
            (json!({ "subscribe": ["a"], "since": { "a": [-1, 2] }, "id": 1 }), "since[\"a\"]: expected"),
            (json!({ "subscribe": ["a"], "since": { "a": [1, -2] }, "id": 1 }), "since[\"a\"]: expected"),
            (json!({ "subscribe": ["a"], "since": { "a": [1] }, "id": 1 }), "since[\"a\"]: expected"),
            (json!({ "subscribe": ["a"], "since": { "a": [1, 1e30] }, "id": 1 }), "since[\"a\"]: expected"),
            (json!({ "subscribe": ["a"], "since": "1-2", "id": 1 }), "since: expected"),
            (json!({ "subscribe": ["a"], "start": "yesterday", "id": 1 }), "yesterday"),
            (json!({ "subscribe": ["a"], "start": 7, "id": 1 }), "start: expected"),
        ];
        for (request, word) in bad {
            ask(&mut client, &request);
            let reply = read_json(&mut client);
            assert_eq!(reply["id"], 1);
            assert!(reply["error"].as_str().is_some_and(|error| error.contains(word)), "{request}: {reply}");
        }
        assert_eq!(engine.occupancy("a"), 0);
    });
}

#[test]
fn a_position_in_a_message_is_answered_before_the_first_frame() {
    on_each_poller(|settings| {
        let (engine, address) = start_with(settings, keeping());
        let positions = twenty(&engine);
        let other = publish(&engine, "b", "b");
        let mut client = connect(&address, "");
        let since = json!({ "a": [positions[17].epoch, 18], "elsewhere": [1, 1] });
        ask(&mut client, &json!({ "subscribe": ["a", "b"], "since": since, "id": "x" }));
        let reply = read_json(&mut client);
        assert_eq!(reply["id"], "x");
        assert_eq!(reply["result"]["subscribed"], json!(["a", "b"]));
        assert_eq!(reply["result"]["recovered"], json!({ "a": true }));
        let expected = json!({ "a": [positions[17].epoch, 18], "b": [other.epoch, other.offset] });
        assert_eq!(reply["result"]["positions"], expected);
        expect_texts(&mut client, [19, 20]);
        // Once more changes nothing, and brings nothing twice.
        ask(&mut client, &json!({ "subscribe": ["a"], "since": { "a": [positions[0].epoch, 11] }, "id": 2 }));
        assert_eq!(read_json(&mut client)["id"], 2);
        publish(&engine, "a", "21");
        expect_texts(&mut client, [21]);
    });
}

/// The next record of an event stream: its fields by name.
fn read_record(stream: &mut impl BufRead) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    loop {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).expect("a line") > 0, "it ended");
        let line = line.trim_end_matches('\n');
        match line.split_once(": ") {
            Some((name, value)) => fields.push((name.to_owned(), value.to_owned())),
            None if line.is_empty() && !fields.is_empty() => return fields,
            None => {}
        }
    }
}

/// An event stream behind its head.
fn follow(address: &str, query: &str, last_id: Option<&str>) -> BufReader<std::net::TcpStream> {
    let mut stream = dial(address);
    let header = last_id.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
    let request = format!("GET /events?{query} HTTP/1.1\r\nHost: x\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).expect("it is open");
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).expect("a head");
    }
    stream
}

fn field<'a>(record: &'a [(String, String)], name: &str) -> Option<&'a str> {
    record.iter().find(|field| field.0 == name).map(|field| &*field.1)
}

#[test]
fn an_event_stream_returns_with_the_id_of_its_last_event() {
    on_each_poller(|settings| {
        let (engine, address) = start_with(settings, keeping());
        let mut stream = follow(&address, "channel=a", None);
        eventually("a subscriber", || engine.occupancy("a") == 1);
        twenty(&engine);
        let mut record = Vec::new();
        (0..15).for_each(|_| record = read_record(&mut stream));
        assert_eq!(field(&record, "data"), Some("15"));
        let id = field(&record, "id").expect("there is a history").to_owned();
        drop(stream);
        // What the query says is from the first time, and counts no more.
        for query in ["channel=a", "channel=a&since=1-1"] {
            let mut stream = follow(&address, query, Some(&id));
            let record = read_record(&mut stream);
            assert_eq!(field(&record, "event"), Some("subscribed"));
            let result: Value = serde_json::from_str(field(&record, "data").expect("data")).expect("JSON");
            assert_eq!(result["recovered"], json!({ "a": true }));
            for number in 16..=20 {
                assert_eq!(field(&read_record(&mut stream), "data"), Some(&*number.to_string()));
            }
        }
        let mut stream = follow(&address, "channel=a", Some("not one of ours"));
        let record = read_record(&mut stream);
        assert!(field(&record, "data").is_some_and(|data| data.contains("\"recovered\":{\"a\":false}")), "{record:?}");
    });
}

#[test]
fn events_have_no_id_where_nothing_is_kept() {
    on_each_poller(|settings| {
        let (engine, address) = start_with(settings, ChannelSettings::default());
        let mut stream = follow(&address, "channel=a", None);
        eventually("a subscriber", || engine.occupancy("a") == 1);
        publish(&engine, "a", "1");
        assert_eq!(read_record(&mut stream), [("data".to_owned(), "1".to_owned())]);
    });
}

#[test]
fn an_envelope_tells_channel_position_event_and_keyframe() {
    on_each_poller(|settings| {
        let (engine, address) = start_with(settings, ChannelSettings { start: Start::History, ..keeping() });
        let mut clients: Vec<Client> = (0..2).map(|_| connect(&address, "channel=a&envelope=1")).collect();
        let mut msgpack = connect(&address, "channel=a&envelope=1&format=msgpack");
        eventually("subscribers", || engine.occupancy("a") == 3);
        let object = Payload::Object(Encoded::alike(Some(b"{\"x\":1}"), Some(&[0x81, 0xa1, b'x', 1])));
        let publication = Publication { event: Some("odds"), is_keyframe: true, ..Publication::new(object) };
        let position = engine.publish("a", &publication, false).expect("the engine runs").expect("both are there");
        let bytes = Publication::new(Payload::Binary(&[0, 255]));
        engine.publish("a", &bytes, false).expect("the engine runs").expect("nothing to encode");
        clients.push(connect(&address, "channel=a&envelope=1&start=history")); // one that gets it from the store
        clients.push(connect(&address, "channel=a&envelope=true"));
        let place = |offset: u64| json!([position.epoch, offset]);
        for client in &mut clients {
            let expected = json!({ "channel": "a", "position": place(1), "event": "odds", "keyframe": true,
                "data": { "x": 1 } });
            assert_eq!(read_json(client), expected);
            assert_eq!(read_json(client), json!({ "channel": "a", "position": place(2), "base64": "AP8=" }));
        }
        let Message::Binary(map) = msgpack.read().expect("a message") else { panic!("MessagePack is binary") };
        assert_eq!(map[0], 0x85, "a map of five");
        let numbers = [&[0x92, 0xcf][..], &position.epoch.to_be_bytes(), &[0xcf], &1_u64.to_be_bytes()].concat();
        let has = |part: &[u8]| map.windows(part.len()).any(|window| window == part);
        assert!(has(&numbers) && has(b"\xa5event\xa4odds") && has(b"\xa8keyframe\xc3"), "{map:?}");
        assert!(map.ends_with(&[0xa4, b'd', b'a', b't', b'a', 0x81, 0xa1, b'x', 1]), "{map:?}");
    });
}

#[test]
fn a_newcomer_begins_where_it_asks_to() {
    on_each_poller(|settings| {
        let channel = ChannelSettings { start: Start::Keyframe, ..keeping() };
        let (engine, address) = start_with(settings, channel);
        for number in 1..=20 {
            put(&engine, "a", &number.to_string(), if number == 17 { "keyframe" } else { "" });
        }
        let firsts = [("live", 21), ("keyframe", 17), ("history", 11)];
        let clients: Vec<(Client, u32)> =
            firsts.map(|(start, first)| (connect(&address, &format!("channel=a&start={start}")), first)).into();
        let unasked = (connect(&address, "channel=a"), 17);
        let mut by_message = connect(&address, "");
        ask(&mut by_message, &json!({ "subscribe": ["a"], "start": "history" }));
        eventually("subscribers", || engine.occupancy("a") == 5);
        await_turn(&engine);
        publish(&engine, "a", "21");
        for (mut client, first) in clients.into_iter().chain([unasked, (by_message, 11)]) {
            expect_texts(&mut client, first..=21);
        }
    });
}

/// Keyframes are asked for, and none is there.
fn asking() -> ChannelSettings {
    ChannelSettings { snapshot_interval: Some(std::time::Duration::from_secs(3_600)), ..ChannelSettings::default() }
}

fn count_wanted(engine: &Engine) -> usize {
    let is_wanted = |event: &Event| matches!(event, Event::SnapshotWanted(channel, _) if channel == "a");
    engine.take_events(100).iter().filter(|event| is_wanted(event)).count()
}

#[test]
fn newcomers_wait_for_a_snapshot_that_is_asked_for_once_and_is_theirs_alone() {
    on_each_poller(|settings| {
        let (engine, address) = start_with(settings, asking());
        let mut old = connect(&address, "channel=a&start=live");
        let mut waiting: Vec<Client> = (0..3).map(|_| connect(&address, "channel=a")).collect();
        eventually("subscribers", || engine.occupancy("a") == 4);
        await_turn(&engine);
        assert_eq!(count_wanted(&engine), 1);
        publish(&engine, "a", "before");
        put(&engine, "a", "snapshot", "snapshot");
        publish(&engine, "a", "after");
        assert_eq!([read_text(&mut old), read_text(&mut old)], ["before", "after"]);
        for client in &mut waiting {
            assert_eq!([read_text(client), read_text(client)], ["snapshot", "after"]);
        }
        // It is fresh: who comes now begins there, and nobody is asked.
        let mut later = connect(&address, "channel=a");
        assert_eq!([read_text(&mut later), read_text(&mut later)], ["snapshot", "after"]);
        await_turn(&engine);
        assert_eq!(count_wanted(&engine), 0);
        assert_eq!(engine.stats().lagging, 0);
    });
}

#[test]
fn who_waits_for_a_snapshot_that_is_given_up_begins_where_it_came_and_is_told_why() {
    on_each_poller(|settings| {
        let (engine, address) = start_with(settings, asking());
        let mut client = connect(&address, "channel=a");
        let mut stream = follow(&address, "channel=a", None);
        eventually("subscribers", || engine.occupancy("a") == 2);
        publish(&engine, "a", "before");
        await_turn(&engine);
        assert_eq!(count_wanted(&engine), 1);
        engine.give_up_snapshot("a", "no snapshot of a").expect("the engine runs");
        assert_eq!(read_json(&mut client), json!({ "error": "no snapshot of a" }));
        assert_eq!(read_text(&mut client), "before");
        let record = read_record(&mut stream);
        assert_eq!(field(&record, "data"), Some("{\"error\":\"no snapshot of a\"}"));
        assert_eq!(field(&read_record(&mut stream), "data"), Some("before"));
        // Late it is no longer for them, but for the next one.
        put(&engine, "a", "late", "snapshot");
        publish(&engine, "a", "after");
        assert_eq!(read_text(&mut client), "after");
        let mut later = connect(&address, "channel=a");
        assert_eq!([read_text(&mut later), read_text(&mut later)], ["late", "after"]);
        await_turn(&engine);
        assert_eq!(count_wanted(&engine), 0);
    });
}

#[test]
fn who_leaves_while_it_waits_for_a_snapshot_leaves_nothing_behind() {
    on_each_poller(|settings| {
        let (engine, address) = start_with(settings, asking());
        drop(connect(&address, "channel=a"));
        eventually("it is gone", || engine.stats().connections == 0);
        assert_eq!((engine.occupancy("a"), engine.stats().lagging, engine.stats().subscriptions), (0, 0, 0));
        assert_eq!(count_wanted(&engine), 1);
        let mut client = connect(&address, "channel=a");
        eventually("a subscriber", || engine.occupancy("a") == 1);
        await_turn(&engine);
        assert_eq!(count_wanted(&engine), 0, "it was asked for, and not answered");
        put(&engine, "a", "snapshot", "snapshot");
        assert_eq!(read_text(&mut client), "snapshot");
    });
}
