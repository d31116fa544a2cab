//! An event stream of several channels comes back with its place in each: nothing is lost or doubled, wherever it broke.
mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use fanwire_core::channel::{Origin, Publication, Start};
use fanwire_core::protocol::Payload;
use fanwire_core::{Asks, ChannelRule, ChannelSettings, Engine, Settings};
use support::{
    Chances, TAKES_MESSAGES, await_turn, dial_small, eventually, on_each_poller, promising, publish, publish_deferred,
    start, start_asking, told_of,
};

const TELLS_CONNECTED: Asks = Asks { connected: true, ..TAKES_MESSAGES };

fn keeping() -> ChannelSettings {
    let (history_bytes, backlog_bytes, backlog_frames) = (1 << 30, 1 << 30, 100_000);
    let (history_frames, start) = (10_000, Start::History);
    ChannelSettings {
        history_frames,
        history_bytes,
        backlog_bytes,
        backlog_frames,
        start,
        ..ChannelSettings::default()
    }
}

/// One event as a client sees it: WHATWG HTML §9.2.6.
#[derive(Debug, Default, Clone, PartialEq)]
struct Seen {
    event: String,
    data: String,
}

/// A client of an event stream that takes what it likes of it.
struct Follower {
    stream: TcpStream,
    unread: Vec<u8>,
    last_id: String,
}

impl Follower {
    /// Comes (back); for it the kernel keeps little, so that frames are cut.
    fn come(address: &str, query: &str, last_id: &str) -> Self {
        let mut stream = dial_small(address, 32 << 10);
        let header = if last_id.is_empty() { String::new() } else { format!("Last-Event-ID: {last_id}\r\n") };
        let request = format!("GET /events?{query} HTTP/1.1\r\nHost: x\r\n{header}\r\n");
        stream.write_all(request.as_bytes()).expect("it is open");
        let mut follower = Self { stream, unread: Vec::new(), last_id: last_id.to_owned() };
        while !follower.unread.ends_with(b"\r\n\r\n") {
            follower.take(1);
        }
        follower.unread.clear();
        follower
    }

    /// Reads up to so many bytes.
    fn take(&mut self, count: usize) {
        let mut buffer = vec![0; count];
        let taken = self.stream.read(&mut buffer).expect("something comes");
        assert!(taken > 0, "it ended");
        self.unread.extend_from_slice(&buffer[..taken]);
    }

    /// The events that are here whole.
    fn events(&mut self) -> Vec<Seen> {
        let mut events = Vec::new();
        while let Some(end) = self.unread.windows(2).position(|two| two == b"\n\n") {
            let record: Vec<u8> = self.unread.drain(..end + 2).collect();
            let mut seen = Seen::default();
            let mut has_data = false;
            for line in std::str::from_utf8(&record).expect("UTF-8").lines() {
                match line.split_once(": ") {
                    Some(("id", id)) => id.clone_into(&mut self.last_id),
                    Some(("event", event)) => event.clone_into(&mut seen.event),
                    Some(("data", data)) => (seen.data, has_data) = (data.to_owned(), true),
                    _ => {}
                }
            }
            events.extend(has_data.then_some(seen));
        }
        events
    }

    fn next(&mut self) -> Seen {
        loop {
            if let Some(seen) = self.events().into_iter().next() {
                return seen;
            }
            self.take(1); // one event at a time
        }
    }
}

/// Which channels were recovered, as the first event says.
fn recovered(follower: &mut Follower) -> serde_json::Value {
    let told = follower.next();
    assert_eq!(told.event, "subscribed");
    serde_json::from_str::<serde_json::Value>(&told.data).expect("JSON")["recovered"].clone()
}

/// The number in a publication's text, `CHANNEL NUMBER xxx…`.
fn number_in(seen: &Seen) -> Option<(String, usize)> {
    let (channel, rest) = seen.data.split_once(' ')?;
    Some((channel.to_owned(), rest.split(' ').next()?.parse().ok()?))
}

#[test]
fn each_channel_is_recovered() {
    on_each_poller(|settings| {
        let (engine, address) = start(Settings { channels: promising("*", keeping()), ..settings });
        let query = "channel=a&channel=b&channel=c&start=live";
        let mut follower = Follower::come(&address, query, "");
        eventually("a subscriber", || engine.occupancy("c") == 1);
        let (a, b) = (publish(&engine, "a", "a1"), publish(&engine, "b", "b1"));
        assert_eq!(follower.next().data, "a1");
        assert_eq!(follower.next().data, "b1");
        let positions: Vec<&str> = follower.last_id.split(',').collect();
        assert_eq!(positions[..2], [a.to_string(), b.to_string()]);
        assert!(positions.len() == 3 && positions[2].ends_with("-0"), "{positions:?}");
        let last_id = follower.last_id.clone();
        drop(follower);
        for (channel, text) in [("a", "a2"), ("c", "c1"), ("b", "b2"), ("a", "a3")] {
            publish(&engine, channel, text);
        }
        // In any order, and beside one that it was not in.
        let mut follower = Follower::come(&address, "channel=c&channel=d&channel=b&channel=a&start=live", &last_id);
        let told = recovered(&mut follower);
        assert_eq!(told, serde_json::json!({ "a": true, "b": true, "c": true, "d": false }));
        let mut missed: Vec<String> = (0..4).map(|_| follower.next().data).collect();
        missed.sort();
        assert_eq!(missed, ["a2", "a3", "b2", "c1"]);
        publish(&engine, "d", "d1");
        assert_eq!(follower.next().data, "d1");
        assert_eq!(follower.last_id.split(',').count(), 4);
    });
}

#[test]
fn a_stream_of_one_channel_has_the_ids_of_its_log() {
    on_each_poller(|settings| {
        let channels = [promising("kept", keeping()), promising("*", ChannelSettings::default())].concat();
        let (engine, address) = start(Settings { channels, ..settings });
        let mut follower = Follower::come(&address, "channel=kept&channel=plain", "");
        eventually("a subscriber", || engine.occupancy("plain") == 1);
        let position = publish(&engine, "kept", "1");
        publish(&engine, "plain", "2");
        assert_eq!((follower.next().data, follower.next().data), ("1".into(), "2".into()));
        assert_eq!(follower.last_id, position.to_string());
    });
}

/// What the application adds later and takes away again is in the ids while it is there.
#[test]
fn ids_follow_what_is_subscribed_later() {
    on_each_poller(|settings| {
        let settings = Settings { channels: promising("*", keeping()), ..settings };
        let (engine, address) = start_asking(settings, TELLS_CONNECTED, &[]);
        let mut follower = Follower::come(&address, "channel=a", "");
        let id = told_of(&engine);
        let mut count_after = |text: &str| {
            publish(&engine, "a", text);
            assert_eq!(follower.next().data, text);
            follower.last_id.split(',').count()
        };
        assert_eq!(count_after("1"), 1);
        for channel in ["b", "c"] {
            engine.subscribe(id, channel, Origin::default()).expect("it is there");
            eventually("a subscriber", || engine.occupancy(channel) == 1);
        }
        assert_eq!(count_after("2"), 3);
        engine.unsubscribe(id, "b").expect("it is there");
        eventually("it left", || engine.occupancy("b") == 0);
        assert_eq!(count_after("3"), 2);
        engine.unsubscribe(id, "c").expect("it is there");
        eventually("it left", || engine.occupancy("c") == 0);
        assert_eq!(count_after("4"), 1);
    });
}

/// One channel too many, and the stream is as any other: it gets everything, with the ids of the logs.
#[test]
fn a_stream_of_too_many_channels_goes_the_way_of_all_others() {
    on_each_poller(|settings| {
        let settings = Settings { channels: promising("*", keeping()), ..settings };
        let (engine, address) = start_asking(settings, TELLS_CONNECTED, &[]);
        let query: Vec<String> = (0..150).map(|number| format!("channel=c{number}")).collect();
        let mut follower = Follower::come(&address, &query.join("&"), "");
        eventually("a subscriber", || engine.occupancy("c149") == 1);
        let own = publish(&engine, "c0", "1");
        assert_eq!(follower.next().data, "1");
        assert!(follower.last_id.starts_with(&own.to_string()) && follower.last_id.len() > 2_000);
        engine.subscribe(told_of(&engine), "more", Origin::default()).expect("it is there");
        eventually("a subscriber", || engine.occupancy("more") == 1);
        for channel in ["c0", "c149", "more"] {
            let own = publish(&engine, channel, channel);
            assert_eq!(follower.next().data, channel);
            assert_eq!(follower.last_id, own.to_string());
        }
    });
}

#[test]
fn who_has_no_snapshot_yet_has_no_place_there() {
    on_each_poller(|settings| {
        let asking = ChannelSettings {
            snapshot_interval: Some(Duration::from_secs(3_600)),
            start: Start::Keyframe,
            ..keeping()
        };
        let channels = [promising("s", asking), promising("*", keeping())].concat();
        let (engine, address) = start(Settings { channels, ..settings });
        let mut follower = Follower::come(&address, "channel=a&channel=s", "");
        eventually("a subscriber", || engine.occupancy("s") == 1);
        publish(&engine, "s", "s1"); // before any snapshot
        publish(&engine, "a", "a1");
        assert_eq!(follower.next().data, "a1");
        let last_id = follower.last_id.clone();
        assert_eq!(last_id.split(',').count(), 1, "{last_id}");
        drop(follower);
        let mut follower = Follower::come(&address, "channel=a&channel=s", &last_id);
        assert_eq!(recovered(&mut follower), serde_json::json!({ "a": true, "s": false }));
        let snapshot = Publication { is_snapshot: true, ..Publication::new(Payload::Text("state")) };
        engine.publish("s", &snapshot, false).expect("the engine runs").expect("nothing to encode");
        assert_eq!(follower.next().data, "state");
        assert_eq!(follower.last_id.split(',').count(), 2);
        publish(&engine, "s", "s2");
        assert_eq!(follower.next().data, "s2");
        // From here on it has one, and needs no snapshot again.
        let last_id = follower.last_id.clone();
        publish(&engine, "s", "s3");
        let mut follower = Follower::come(&address, "channel=a&channel=s", &last_id);
        assert_eq!(recovered(&mut follower), serde_json::json!({ "a": true, "s": true }));
        assert_eq!(follower.next().data, "s3");
    });
}

/// Publishes a few at a time, often several in one turn, some larger than a socket takes at once.
fn publish_some(engine: &Engine, chances: &mut Chances, counts: &mut BTreeMap<&'static str, usize>) {
    for _ in 0..chances.below(6) {
        let channel = ["a", "b", "c"][chances.below(3) as usize];
        let count = counts.entry(channel).or_default();
        *count += 1;
        let padding = match chances.below(20) {
            0 => 300_000,
            1..4 => 9_000,
            _ => chances.below(200) as usize,
        };
        let text = format!("{channel} {count} {}", "x".repeat(padding));
        if chances.below(2) == 0 {
            publish(engine, channel, &text);
        } else {
            publish_deferred(engine, channel, &text, None); // goes out with the next one
        }
    }
}

/// A client that breaks off at random bytes and comes back with what it has: it gets every publication once, in order.
fn follow_with_cuts(settings: Settings, rules: Vec<ChannelRule>, seed: u64, cuts: usize) {
    let mut chances = Chances(seed);
    let (engine, address) = start(Settings { channels: rules, ..settings });
    let query = "channel=a&channel=b&channel=c";
    let mut counts = BTreeMap::from([("a", 0), ("b", 0), ("c", 0)]);
    let mut got: BTreeMap<String, usize> = BTreeMap::new();
    let mut last_id = String::new();
    for cut in 0..=cuts {
        let mut follower = Follower::come(&address, query, &last_id);
        let mut budget = if cut == cuts { usize::MAX } else { chances.below(40_000) as usize };
        loop {
            if cut < cuts {
                publish_some(&engine, &mut chances, &mut counts);
            } else {
                engine.flush();
            }
            let is_there = || counts.iter().all(|(channel, count)| got.get(*channel).copied().unwrap_or(0) == *count);
            if budget == 0 || (cut == cuts && is_there()) {
                break;
            }
            let count = (1 + chances.below(20_000) as usize).min(budget);
            if cut < cuts && is_there() {
                break; // there may be nothing to read
            }
            let before = follower.unread.len();
            follower.take(count);
            budget -= follower.unread.len() - before;
            for (channel, number) in follower.events().iter().filter_map(number_in) {
                let last = got.entry(channel.clone()).or_default();
                assert_eq!(number, *last + 1, "{channel} in life {cut} of seed {seed}, behind {last_id:?}");
                *last = number;
            }
            last_id.clone_from(&follower.last_id);
        }
    }
    await_turn(&engine);
}

#[test]
fn wherever_a_stream_breaks_nothing_is_lost_or_doubled() {
    on_each_poller(|settings| {
        for seed in 0..3 {
            follow_with_cuts(settings.clone(), promising("*", keeping()), seed, 25);
        }
    });
}

#[test]
#[ignore = "takes minutes: make soak"]
fn wherever_a_stream_breaks_nothing_is_lost_or_doubled_at_length() {
    on_each_poller(|settings| {
        for seed in 100..200 {
            follow_with_cuts(settings.clone(), promising("*", keeping()), seed, 60);
        }
    });
}
