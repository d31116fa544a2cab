//! One client's messages, whatever they ask for and however often, hold up nobody: others get what is published meanwhile.
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use fanwire_core::{Engine, Settings};
use support::{connect, dial, eventually, on_each_poller, promising, publish, read_text, start};

/// As many as a client may have.
const SUBSCRIPTIONS: usize = 1_000;

/// A text frame of a client; its mask is zero.
fn frame(text: &str) -> Vec<u8> {
    let mut frame = match u8::try_from(text.len()) {
        Ok(length @ ..126) => vec![0x81, 0x80 | length],
        _ => [&[0x81, 0x80 | 126][..], &u16::try_from(text.len()).expect("small").to_be_bytes()].concat(),
    };
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    frame
}

fn names(count: usize) -> String {
    (0..count).map(|number| format!("\"c{number}\"")).collect::<Vec<String>>().join(",")
}

/// A client that watches so much.
fn watching(engine: &Engine, address: &str, count: usize) -> TcpStream {
    let client = connect(address, "");
    let mut stream = client.get_ref().try_clone().expect("a descriptor");
    std::mem::forget(client); // it would close
    let before = engine.stats().subscriptions;
    stream.write_all(&frame(&format!(r#"{{"subscribe":[{}]}}"#, names(count)))).expect("it is open");
    eventually("it watches", || engine.stats().subscriptions == before + count as u64);
    stream
}

/// Returns how long the engine took for these bytes and a ping behind them.
fn answered(stream: &mut TcpStream, bytes: &[u8]) -> Duration {
    let begin = Instant::now();
    stream.write_all(bytes).expect("it is open");
    stream.write_all(&[0x89, 0x80, 0, 0, 0, 0]).expect("it is open");
    stream.read_exact(&mut [0; 2]).expect("a pong");
    begin.elapsed()
}

/// Each name was looked for among all that the client watches: 619 ms of everybody's time for what one client sends at once.
#[test]
fn a_name_costs_the_same_however_much_its_client_watches() {
    on_each_poller(|settings| {
        let (engine, address) = start(settings);
        let mut few = watching(&engine, &address, 1);
        let mut many = watching(&engine, &address, SUBSCRIPTIONS);
        for request in ["subscribe", "unsubscribe"] {
            let name = if request == "subscribe" { "\"c0\"" } else { "\"goals\"" };
            let _watched = connect(&address, "channel=goals");
            let repeated = vec![name; 7_000].join(",");
            let bytes = frame(&format!(r#"{{"{request}":[{repeated}]}}"#));
            // The least of many times has nothing in it of what else the machine does, and all that a name costs.
            let (mut one, mut all) = (Duration::MAX, Duration::MAX);
            eventually(&format!("{request} costs the same with many subscriptions as with one"), || {
                one = one.min(answered(&mut few, &bytes));
                all = all.min(answered(&mut many, &bytes));
                all < one * 4 + Duration::from_millis(1)
            });
        }
    });
}

/// Who comes and goes in all of it keeps an account of what it watches.
#[test]
fn what_a_client_watches_is_known_through_all_changes() {
    on_each_poller(|settings| {
        let (engine, address) = start(settings);
        let mut client = connect(&address, "");
        let mut watched = std::collections::BTreeSet::new();
        let mut chances = support::Chances(7);
        for round in 0..400 {
            let number = chances.below(40);
            let is_there = chances.below(2) == 0;
            let request = if is_there { "subscribe" } else { "unsubscribe" };
            let done = if is_there { watched.insert(number) } else { watched.remove(&number) };
            client
                .send(tungstenite::Message::text(format!(r#"{{"{request}":["c{number}"],"id":{round}}}"#)))
                .expect("sent");
            assert!(read_text(&mut client).contains(&format!("\"id\":{round},")));
            let subscriptions = usize::try_from(engine.stats().subscriptions).expect("few");
            assert_eq!(subscriptions, watched.len(), "round {round}: {request} c{number}, new: {done}");
            if let Some(number) = watched.iter().nth(chances.below(40) as usize % watched.len().max(1)) {
                publish(&engine, &format!("c{number}"), &format!("of {number}"));
                assert_eq!(read_text(&mut client), format!("of {number}"));
            }
        }
    });
}

/// A flood was dealt with for up to 256 KiB before anybody else got anything.
#[test]
fn a_flood_is_interrupted_by_what_is_published() {
    on_each_poller(|settings| {
        let (engine, address) = start(settings);
        let mut honest = connect(&address, "channel=goals");
        let flooder = watching(&engine, &address, SUBSCRIPTIONS - 1);
        let all = names(SUBSCRIPTIONS - 1);
        let flood =
            [frame(&format!(r#"{{"unsubscribe":[{all}]}}"#)), frame(&format!(r#"{{"subscribe":[{all}]}}"#))].concat();
        let flood = flood.repeat(150);
        // Of so much there are fewer than twenty times 256 KiB. Who publishes may not have its turns each time.
        eventually("a flood is interrupted more than 60 times", || {
            let (mut stream, flood) = (flooder.try_clone().expect("a descriptor"), flood.clone());
            let flooding = std::thread::spawn(move || answered(&mut stream, &flood));
            let mut times = 0;
            while !flooding.is_finished() {
                publish(&engine, "goals", "goal");
                assert_eq!(read_text(&mut honest), "goal");
                times += 1;
            }
            flooding.join().expect("it got its answer");
            times > 60
        });
    });
}

/// Each pong was a write of its own.
#[test]
fn answers_to_what_came_together_are_written_together() {
    on_each_poller(|settings| {
        let (engine, address) = start(settings);
        let client = connect(&address, "");
        let mut stream = client.get_ref().try_clone().expect("a descriptor");
        stream.write_all(&[0x89, 0x80, 0, 0, 0, 0].repeat(100)).expect("it is open");
        let mut pongs = vec![0; 1_000];
        let count = stream.read(&mut pongs).expect("pongs");
        assert_eq!(pongs[..count], [0x8A, 0].repeat(100), "in one piece");
        drop(engine);
    });
}

/// Above 150 channels with history a stream's events have no ids of their own, and it goes the way of all others.
#[test]
fn a_stream_of_very_many_channels_is_written_to_as_others_are() {
    on_each_poller(|settings| {
        let keeping = fanwire_core::ChannelSettings { history_frames: 10, ..Default::default() };
        let (engine, address) = start(Settings { channels: promising("*", keeping), ..settings });
        let query = (0..200).map(|number| format!("channel=c{number}")).collect::<Vec<String>>().join("&");
        let mut stream = dial(&address);
        stream.write_all(format!("GET /events?{query} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).expect("it is open");
        eventually("it watches", || engine.occupancy("c199") == 1);
        let position = publish(&engine, "c7", "seven");
        let expected = format!("id: {position}\ndata: seven\n\n");
        let mut got = Vec::new();
        while !got.ends_with(b"seven\n\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("more");
            got.push(byte[0]);
        }
        assert!(String::from_utf8_lossy(&got).ends_with(&expected), "{}", String::from_utf8_lossy(&got));
        assert_eq!(engine.stats().lagging, 0);
    });
}
