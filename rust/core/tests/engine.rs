//! The engine from outside: real sockets, a client of other people's making, both pollers.
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use fanwire_core::Settings;
use fanwire_core::channel::Publication;
use fanwire_core::protocol::Payload;
use support::{
    bounded, connect, eventually, more_than_a_socket_takes, on_each_poller, publish, publish_deferred, read_text, start,
};
use tungstenite::Message;
use tungstenite::protocol::frame::coding::CloseCode;

#[test]
fn every_subscriber_gets_every_publication_in_order_from_several_threads() {
    on_each_poller(|settings| {
        let (engine, address) = start(Settings { shards: 2, ..settings });
        let mut clients: Vec<_> = (0..50).map(|_| connect(&address, "channel=a")).collect();
        eventually("50 subscribers", || engine.occupancy("a") == 50);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let engine = &engine;
                scope.spawn(move || {
                    for n in 0..200 {
                        publish(engine, "a", &format!("{thread}:{n}"));
                    }
                });
            }
        });
        for client in &mut clients {
            let mut next = [0; 4];
            for _ in 0..800 {
                let text = read_text(client);
                let (thread, n) = text.split_once(':').expect("as published");
                let thread: usize = thread.parse().expect("as published");
                assert_eq!(n.parse::<usize>(), Ok(next[thread]));
                next[thread] += 1;
            }
        }
        eventually("all deliveries are counted", || engine.stats().deliveries == 50 * 800);
    });
}

#[test]
fn channels_that_move_together_are_joined_in_one_write() {
    on_each_poller(|settings| {
        let (engine, address) = start(settings);
        let mut clients: Vec<_> = (0..20).map(|_| connect(&address, "channel=a&channel=b&channel=c")).collect();
        eventually("60 subscriptions", || engine.stats().subscriptions == 60);
        for channel in ["a", "b", "c"] {
            publish_deferred(&engine, channel, channel, None);
        }
        engine.flush();
        for client in &mut clients {
            let mut texts = [read_text(client), read_text(client), read_text(client)];
            texts.sort();
            assert_eq!(texts, ["a", "b", "c"]);
        }
        let stats = engine.stats();
        assert_eq!(stats.deliveries, 60);
        // The shard may have woken for its clock in the middle; it never writes three times.
        assert!(stats.writes <= 40, "{} writes", stats.writes);
    });
}

/// Deterministic payload: channel, number, then bytes that follow from them.
fn patterned(channel: char, number: usize) -> String {
    let length = (number * 7_919 + channel as usize * 31) % 3_000;
    let fill = char::from(b'a' + (number % 26) as u8);
    format!("{channel}{number}:{}", fill.to_string().repeat(length))
}

#[test]
fn a_slow_reader_of_several_channels_gets_whole_frames_in_order() {
    on_each_poller(|settings| {
        let (engine, address) = start(Settings { channels: bounded("*", 1 << 30, 1 << 20), ..settings });
        let mut slow = connect(&address, "channel=a&channel=b&channel=c");
        let mut fast = connect(&address, "channel=a");
        eventually("4 subscriptions", || engine.stats().subscriptions == 4);
        let count = 6_000; // 3 channels, about 27 MB: more than the kernel takes
        std::thread::scope(|scope| {
            let fast = scope.spawn(|| {
                (0..count).for_each(|n| assert_eq!(read_text(&mut fast), patterned('a', n)));
            });
            for n in 0..count {
                for channel in ['a', 'b', 'c'] {
                    publish(&engine, &channel.to_string(), &patterned(channel, n));
                }
            }
            fast.join().expect("the fast reader is not held up by the slow one");
        });
        eventually("the slow one lags", || engine.stats().lagging == 1);
        let mut next = [0; 3];
        for _ in 0..3 * count {
            let text = read_text(&mut slow);
            let channel = text.chars().next().expect("not empty");
            let index = channel as usize - 'a' as usize;
            assert!(text == patterned(channel, next[index]), "{channel}{} is broken: {text:.40}", next[index]);
            next[index] += 1;
        }
        eventually("it is back at the tail", || engine.stats().lagging == 0);
        assert_eq!(engine.stats().deliveries, 4 * count as u64);
        publish(&engine, "b", "live");
        assert_eq!(read_text(&mut slow), "live");
    });
}

#[test]
fn who_is_overtaken_is_closed_with_1013_and_the_channels_name() {
    on_each_poller(|settings| {
        let (engine, address) = start(Settings { channels: bounded("odds:*", 100_000, 1 << 20), ..settings });
        let mut stalled = connect(&address, "channel=odds:7");
        let mut healthy = connect(&address, "channel=odds:7");
        eventually("2 subscribers", || engine.occupancy("odds:7") == 2);
        let text = "x".repeat(50_000);
        let reader = std::thread::spawn(move || {
            let mut count = 0;
            while read_text(&mut healthy) != "end" {
                count += 1;
            }
            count
        });
        let mut published = 0;
        let deadline = Instant::now() + Duration::from_secs(20);
        while engine.stats().overtaken == 0 {
            assert!(Instant::now() < deadline, "nobody was overtaken by {published} publications");
            let target = engine.stats().deliveries;
            publish(&engine, "odds:7", &text);
            published += 1;
            // In step with the healthy one, so that only the stalled one falls behind.
            eventually("the healthy one has it", || engine.stats().deliveries > target);
        }
        publish(&engine, "odds:7", "end");
        assert_eq!(reader.join().expect("the healthy one lives"), published);
        let frame = loop {
            match stalled.read().expect("frames up to the close") {
                Message::Text(got) => assert_eq!(got.as_str(), text),
                Message::Close(frame) => break frame.expect("a code"),
                _ => {}
            }
        };
        assert_eq!((frame.code, frame.reason.as_str()), (CloseCode::Again, "too slow for channel odds:7"));
        eventually("only the healthy one is left", || engine.occupancy("odds:7") <= 1);
    });
}

#[test]
fn what_expired_while_a_client_lagged_is_skipped() {
    on_each_poller(|settings| {
        let (engine, address) = start(Settings { channels: bounded("*", 1 << 30, 1 << 20), ..settings });
        let mut client = connect(&address, "channel=a");
        eventually("a subscriber", || engine.occupancy("a") == 1);
        let large = more_than_a_socket_takes();
        publish(&engine, "a", &large);
        eventually("it lags", || engine.stats().lagging == 1);
        publish_deferred(&engine, "a", "stale", Some(1));
        publish_deferred(&engine, "a", "fresh", Some(600_000_000_000));
        engine.flush();
        assert!(read_text(&mut client) == large);
        assert_eq!(read_text(&mut client), "fresh");
        eventually("the stale one is counted", || engine.stats().expired == 1);
    });
}

#[test]
fn a_publication_larger_than_any_segment_arrives_whole() {
    on_each_poller(|settings| {
        let (engine, address) = start(settings);
        let mut client = connect(&address, "channel=a");
        eventually("a subscriber", || engine.occupancy("a") == 1);
        let large = "0123456789abcdef".repeat(65_536);
        publish(&engine, "a", "before");
        publish(&engine, "a", &large);
        publish(&engine, "a", "after");
        assert_eq!(read_text(&mut client), "before");
        assert!(read_text(&mut client) == large);
        assert_eq!(read_text(&mut client), "after");
    });
}

#[test]
fn stop_closes_every_descriptor_and_refuses_what_comes() {
    on_each_poller(|settings| {
        let (engine, address) = start(settings);
        let mut client = connect(&address, "channel=a");
        engine.stop();
        client.get_mut().read_to_end(&mut Vec::new()).expect("the stream ends");
        assert!(TcpStream::connect(&address).is_err(), "nobody listens");
        let publication = Publication::new(Payload::Text("x"));
        let error = engine.publish("a", &publication, false).expect_err("it is stopped");
        assert_eq!(error.to_string(), "the engine is stopped");
        engine.stop();
    });
}

#[test]
fn half_a_request_and_rubbish_hold_up_nobody() {
    on_each_poller(|settings| {
        let (engine, address) = start(settings);
        let mut half = TcpStream::connect(&address).expect("the engine listens");
        half.write_all(b"GET /ws HTTP/1.1\r\nHost:").expect("sent");
        let mut rubbish = TcpStream::connect(&address).expect("the engine listens");
        rubbish.write_all(&[0xFF; 100]).expect("sent");
        let mut answer = String::new();
        rubbish.read_to_string(&mut answer).expect("an answer, then the end");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        let mut client = connect(&address, "channel=a");
        eventually("a subscriber", || engine.occupancy("a") == 1);
        publish(&engine, "a", "lives");
        assert_eq!(read_text(&mut client), "lives");
        assert_eq!(engine.stats().handshakes_refused, 1);
    });
}
