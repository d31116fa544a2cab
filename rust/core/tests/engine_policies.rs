//! What each policy promises a client that does not read while much is published, and then does; from outside.
mod support;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use fanwire_core::channel::{Policy, Publication};
use fanwire_core::protocol::Payload;
use fanwire_core::{ChannelSettings, Engine, Position, Settings};
use support::{
    Client, PATIENCE, await_turn, connect, connect_small, eventually, more_than_a_socket_takes, on_each_poller,
    promising, publish, read_text, resident_mib, start,
};
use tungstenite::Message;
use tungstenite::protocol::frame::coding::CloseCode;

fn bounded(policy: Policy, backlog_bytes: u64) -> ChannelSettings {
    ChannelSettings { policy, backlog_bytes, ..ChannelSettings::default() }
}

fn put(engine: &Engine, text: &str, key: Option<&str>, is_keyframe: bool) -> Position {
    let publication = Publication { key, is_keyframe, ..Publication::new(Payload::Text(text)) };
    engine.publish("c", &publication, false).expect("the engine runs").expect("nothing to encode")
}

/// `count` publications for clients of which none reads, each made of its number and a filler. The first is more than
/// a socket takes.
fn publish_past_stalled(engine: &Engine, count: usize, one: impl Fn(usize, &str)) {
    one(0, &more_than_a_socket_takes());
    eventually("all lag", || engine.stats().lagging == engine.stats().connections);
    let filler = filler();
    publish_in_turns(engine, 1..count, |number| one(number, &filler));
}

/// So that the shard is not busy with one turn for all, in which nothing would be trimmed.
fn publish_in_turns(engine: &Engine, numbers: Range<usize>, one: impl Fn(usize)) {
    for number in numbers {
        one(number);
        if number.is_multiple_of(20) {
            await_turn(engine);
        }
    }
    await_turn(engine);
}

/// The numbers at the front of the texts until `end`.
fn numbers_until_end(client: &mut Client) -> Vec<usize> {
    let texts = std::iter::repeat_with(|| read_text(client)).take_while(|text| !text.starts_with("end"));
    texts.map(|text| text.split(':').next().and_then(|number| number.parse().ok()).expect("as published")).collect()
}

fn filler() -> String {
    "x".repeat(300)
}

#[test]
fn a_laggard_under_latest_gets_the_newest_of_each_key() {
    on_each_poller(|settings| {
        let channels = promising("c", bounded(Policy::Latest, 256 << 10));
        let (engine, address) = start(Settings { channels, ..settings });
        let mut client = connect_small(&address, "channel=c");
        eventually("a subscriber", || engine.occupancy("c") == 1);
        // One key is told once, at the beginning, and must not be lost for all that is replaced behind it.
        put(&engine, "0:once", Some("once"), false);
        let published = 4_000;
        publish_past_stalled(&engine, published - 1, |number, filler| {
            put(&engine, &format!("{}:{filler}", number + 1), Some(&format!("key {}", number % 200)), false);
        });
        put(&engine, "end", None, false);
        let numbers = numbers_until_end(&mut client);
        assert!(numbers.is_sorted_by(|one, other| one < other), "{numbers:?}");
        assert_eq!(numbers[0], 0);
        assert!(numbers.len() < published, "it skipped something");
        let newest: Vec<usize> = (published - 200..published).collect();
        assert!(numbers.ends_with(&newest), "{numbers:?} of {published}");
        eventually("it is at the tail", || engine.stats().lagging == 0);
        let skipped = engine.stats().skipped[Policy::Latest as usize];
        assert_eq!(numbers.len() as u64 + skipped, published as u64);
        assert_eq!(engine.stats().overtaken, 0);
    });
}

#[test]
fn a_laggard_under_every_is_closed_with_1013() {
    on_each_poller(|settings| {
        let channels = promising("c", bounded(Policy::Every, 64 << 10));
        let (engine, address) = start(Settings { channels, ..settings });
        let mut client = connect_small(&address, "channel=c");
        eventually("a subscriber", || engine.occupancy("c") == 1);
        publish_past_stalled(&engine, 3_000, |number, filler| {
            put(&engine, &format!("{number}:{filler}"), None, false);
        });
        eventually("it is overtaken", || engine.stats().overtaken == 1);
        let mut next = 0;
        let frame = loop {
            match client.read().expect("a message") {
                Message::Text(text) => {
                    assert!(text.starts_with(&format!("{next}:")), "{text} is not the {next}th");
                    next += 1;
                }
                Message::Close(frame) => break frame.expect("a code"),
                _ => {}
            }
        };
        assert_eq!(frame.code, CloseCode::Again);
        assert!(frame.reason.contains("too slow for channel c"), "{}", frame.reason);
        client.flush().expect("it answers the close");
        eventually("the close is counted", || engine.stats().closes.get(&1013) == Some(&1));
    });
}

#[test]
fn a_laggard_under_keyframe_goes_on_at_keyframes() {
    on_each_poller(|settings| {
        let channels = promising("c", bounded(Policy::Keyframe, 64 << 10));
        let (engine, address) = start(Settings { channels, ..settings });
        let mut client = connect_small(&address, "channel=c");
        eventually("a subscriber", || engine.occupancy("c") == 1);
        let published = 5_000;
        publish_past_stalled(&engine, published, |number, filler| {
            put(&engine, &format!("{number}:{filler}"), None, number.is_multiple_of(50));
        });
        put(&engine, "end", None, true);
        let numbers = numbers_until_end(&mut client);
        for pair in numbers.windows(2) {
            let is_gap = pair[1] != pair[0] + 1;
            assert!(!is_gap || (pair[1] > pair[0] && pair[1].is_multiple_of(50)), "{pair:?} of {published}");
        }
        assert!(numbers.len() < published);
        eventually("it is at the tail", || engine.stats().lagging == 0);
        assert_eq!(numbers.len() as u64 + engine.stats().skipped[Policy::Keyframe as usize], published as u64);
    });
}

#[test]
fn a_laggard_under_keyframe_waits_for_one_when_none_is_left() {
    on_each_poller(|settings| {
        let channels = promising("c", bounded(Policy::Keyframe, 16 << 10));
        let (engine, address) = start(Settings { channels, ..settings });
        let mut client = connect_small(&address, "channel=c");
        eventually("a subscriber", || engine.occupancy("c") == 1);
        let published = 2_000;
        publish_past_stalled(&engine, published, |number, filler| {
            put(&engine, &format!("{number}:{filler}"), None, false);
        });
        let keyframe = format!("{}:keyframe", published + 1);
        let mut numbers = Vec::new();
        // What the kernel holds of it comes; then it waits, and a plain one does not reach it.
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| numbers_until_end(&mut client));
            eventually("its socket is empty", || engine.stats().lagging == 0);
            put(&engine, &format!("{published}:not for it"), None, false);
            put(&engine, &keyframe, None, true);
            put(&engine, "end", None, false);
            numbers = reader.join().expect("it reads");
        });
        assert_eq!(numbers.last(), Some(&(published + 1)));
        let before = numbers.len() - 1;
        assert!(numbers[..before].iter().copied().eq(0..before), "{numbers:?}");
        assert_eq!(numbers.len() as u64 + engine.stats().skipped[Policy::Keyframe as usize], published as u64 + 2);
    });
}

#[test]
fn a_laggard_under_drop_goes_on_at_the_tail() {
    on_each_poller(|settings| {
        let channels = promising("c", bounded(Policy::Drop, 64 << 10));
        let (engine, address) = start(Settings { channels, ..settings });
        let mut client = connect_small(&address, "channel=c");
        eventually("a subscriber", || engine.occupancy("c") == 1);
        let published = 5_000;
        publish_past_stalled(&engine, published, |number, filler| {
            put(&engine, &format!("{number}:{filler}"), None, false);
        });
        // The first may be what overtakes it, and is lost then; the second is not.
        put(&engine, &published.to_string(), None, false);
        await_turn(&engine);
        put(&engine, "end", None, false);
        let numbers = numbers_until_end(&mut client);
        assert!(numbers.is_sorted_by(|one, other| one < other), "{numbers:?}");
        assert!(numbers.len() < published);
        eventually("it is at the tail", || engine.stats().lagging == 0);
        assert_eq!(numbers.len() as u64 + engine.stats().skipped[Policy::Drop as usize], published as u64 + 1);
        assert_eq!(engine.stats().overtaken, 0);
    });
}

/// A laggard's socket took all that it could be given just when the bound had overtaken it. It was not full any more, so
/// that nobody looked at it when its policy had found it a place to go on.
#[test]
fn a_laggard_that_reads_while_it_is_overtaken_is_not_forgotten() {
    on_each_poller(|settings| {
        let channels = promising("c", bounded(Policy::Keyframe, 8 << 10));
        let (engine, address) = start(Settings { channels, ..settings });
        let mut client = connect_small(&address, "channel=c");
        eventually("a subscriber", || engine.occupancy("c") == 1);
        let filler = "x".repeat(1_000);
        std::thread::scope(|scope| {
            let (ended, end) = std::sync::mpsc::channel();
            scope.spawn(move || {
                (0..400).for_each(|round| {
                    while read_text(&mut client) != format!("end {round}") {}
                    ended.send(()).expect("it is waited for");
                });
            });
            for round in 0..400 {
                (0..60).for_each(|number| {
                    put(&engine, &filler, None, number % 7 == 0);
                });
                put(&engine, &format!("end {round}"), None, true);
                end.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("round {round}: {:?}", engine.stats()));
            }
        });
    });
}

#[test]
fn what_a_laggard_has_not_got_when_its_time_is_over_is_skipped() {
    on_each_poller(|settings| {
        let channels = promising("c", bounded(Policy::Every, 16 << 20));
        let (engine, address) = start(Settings { channels, ..settings });
        let mut client = connect_small(&address, "channel=c");
        eventually("a subscriber", || engine.occupancy("c") == 1);
        publish_past_stalled(&engine, 100, |number, filler| {
            put(&engine, &format!("{number}:{filler}"), None, false);
        });
        for _ in 0..1_000 {
            let publication = Publication { ttl_ns: Some(1), ..Publication::new(Payload::Text("late")) };
            engine.publish("c", &publication, false).expect("the engine runs").expect("nothing to encode");
        }
        put(&engine, "end", None, false);
        let numbers = numbers_until_end(&mut client);
        assert!(numbers.iter().copied().eq(0..100), "{numbers:?}");
        eventually("they are counted", || engine.stats().expired == 1_000);
    });
}

#[test]
fn fifty_stalled_laggards_cost_no_memory_beyond_the_bounds() {
    on_each_poller(|settings| {
        for policy in [Policy::Latest, Policy::Drop, Policy::Keyframe] {
            let channels = promising("c", bounded(policy, 1 << 20));
            let (engine, address) = start(Settings { channels, ..settings.clone() });
            let stalled: Vec<Client> = (0..50).map(|_| connect_small(&address, "channel=c")).collect();
            eventually("subscribers", || engine.occupancy("c") == 50);
            let filler = "x".repeat(4_000);
            let one = |number: usize| {
                let key = (number % 100).to_string();
                put(&engine, &filler, Some(&key), number.is_multiple_of(100));
            };
            put(&engine, &more_than_a_socket_takes(), None, false);
            eventually("all lag", || engine.stats().lagging == 50);
            publish_in_turns(&engine, 0..1_000, one);
            let before = resident_mib();
            publish_in_turns(&engine, 1_000..21_000, one);
            let grown = resident_mib().saturating_sub(before);
            assert!(grown < 40, "{policy:?}: {grown} MiB more after 80 MiB past {} laggards", stalled.len());
            let stats = engine.stats();
            assert!(stats.overtaken == 0 && stats.lagging == 50, "{stats:?}");
        }
    });
}

/// A client that tells where it stands, and what it may have missed.
struct Follower {
    client: Client,
    /// The last publication that it had.
    position: Position,
    /// By key: the newest that it had.
    newest: BTreeMap<String, u64>,
    /// Where it began.
    since: u64,
    stalls: bool,
}

/// What reading comes to.
#[derive(PartialEq, Eq)]
enum Outcome {
    Reached,
    Closed,
    /// Nothing comes: under `drop` what it waits for may have overtaken it.
    Empty,
}

/// What was published, by offset from 1: its key, and whether it is a keyframe.
type Published = Vec<(Option<String>, bool)>;

impl Follower {
    fn join(address: &str, since: Option<Position>, published: &Published, history_frames: usize) -> Self {
        let mut query = "channel=c&envelope=1".to_owned();
        match since {
            Some(position) => query += &format!("&since={position}&start=live"),
            None => query += "&since=1-1&start=live", // of no channel: it is told where it begins
        }
        let mut client = connect_small(address, &query);
        let reply: serde_json::Value = serde_json::from_str(&read_text(&mut client)).expect("JSON");
        let position = &reply["result"]["positions"]["c"];
        let (epoch, offset) = (position[0].as_u64().expect("an epoch"), position[1].as_u64().expect("an offset"));
        let is_recovered = reply["result"]["recovered"]["c"].as_bool().expect("it asked");
        if let Some(since) = since {
            assert!(is_recovered || since.offset + (history_frames as u64) < published.len() as u64, "{reply}");
            assert!(!is_recovered || offset == since.offset, "{reply} for {since}");
        }
        let position = Position { epoch, offset };
        Self { client, position, newest: BTreeMap::new(), since: offset, stalls: false }
    }

    /// Reads up to the publication of this offset.
    fn read_to(&mut self, offset: u64, policy: Policy, published: &Published) -> Outcome {
        if policy == Policy::Drop {
            self.client.get_ref().set_read_timeout(Some(Duration::from_millis(10))).expect("a socket takes a timeout");
        }
        while self.position.offset < offset {
            let text = match self.client.read() {
                Ok(Message::Text(text)) => text,
                Ok(Message::Close(frame)) => {
                    assert!(policy == Policy::Every, "{frame:?} under {policy:?}");
                    assert_eq!(frame.expect("a code").code, CloseCode::Again);
                    return Outcome::Closed;
                }
                Ok(_) => continue,
                Err(tungstenite::Error::Io(error)) if policy == Policy::Drop => {
                    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                    return Outcome::Empty;
                }
                Err(error) => panic!("{error} at {}, on the way to {offset} under {policy:?}", self.position),
            };
            let envelope: serde_json::Value = serde_json::from_str(text.as_str()).expect("JSON");
            let at = envelope["position"][1].as_u64().expect("an offset");
            let (key, is_keyframe) = &published[at as usize - 1];
            assert_eq!(envelope["position"][0].as_u64(), Some(self.position.epoch));
            assert_eq!(envelope["keyframe"].as_bool().unwrap_or(false), *is_keyframe);
            let is_next = at == self.position.offset + 1;
            let may_skip = match policy {
                Policy::Every => false,
                Policy::Keyframe => *is_keyframe,
                Policy::Latest | Policy::Drop => true,
            };
            assert!(
                is_next || (may_skip && at > self.position.offset),
                "{at} after {} under {policy:?}",
                self.position
            );
            self.position.offset = at;
            self.newest.insert(key.clone().unwrap_or_default(), at);
        }
        assert_eq!(self.position.offset, offset);
        if policy == Policy::Latest {
            let ours = published.iter().enumerate().skip(self.since as usize).take((offset - self.since) as usize);
            let newest: BTreeMap<String, u64> =
                ours.map(|(index, one)| (one.0.clone().unwrap_or_default(), index as u64 + 1)).collect();
            assert_eq!(self.newest, newest, "it missed what is newest");
        }
        Outcome::Reached
    }
}

/// One seed: clients come, stall, read, go and come back with their positions while much is published.
fn wander(settings: Settings, policy: Policy, seed: u64) {
    let history_frames = [0, 300][seed as usize % 2];
    let channel = ChannelSettings { history_frames, ..bounded(policy, 48 << 10) };
    let (engine, address) = start(Settings { channels: promising("c", channel), ..settings });
    let mut luck = seed;
    let mut draw = |below: u64| {
        luck = luck.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (luck >> 33) % below
    };
    let (mut followers, mut gone): (Vec<Follower>, Vec<Position>) = (Vec::new(), Vec::new());
    let mut published: Published = Vec::new();
    let add = |published: &mut Published, key: Option<String>, is_keyframe: bool, bytes: u64| {
        let position = put(&engine, &"x".repeat(bytes as usize), key.as_deref(), is_keyframe);
        published.push((key, is_keyframe));
        assert_eq!(position.offset, published.len() as u64);
        position.offset
    };
    for round in 0..60 {
        match draw(6) {
            0 if followers.len() < 6 => {
                let since = if gone.is_empty() || draw(3) == 0 { None } else { Some(gone.swap_remove(0)) };
                followers.push(Follower::join(&address, since, &published, history_frames));
            }
            1 if !followers.is_empty() => {
                let index = draw(followers.len() as u64) as usize;
                followers[index].stalls = true;
            }
            2 if !followers.is_empty() => {
                let index = draw(followers.len() as u64) as usize;
                followers[index].stalls = false;
            }
            3 if !followers.is_empty() => {
                let left = followers.swap_remove(draw(followers.len() as u64) as usize);
                gone.push(left.position);
            }
            _ => {}
        }
        if round == 59 {
            followers.iter_mut().for_each(|follower| follower.stalls = false);
        }
        for _ in 0..draw(120) {
            let key = Some(draw(12)).filter(|&key| key > 0).map(|key| key.to_string());
            add(&mut published, key, draw(30) == 0, draw(900));
            if draw(15) == 0 {
                await_turn(&engine);
            }
        }
        let mut marker = add(&mut published, None, true, 10);
        await_turn(&engine);
        followers.retain_mut(|follower| {
            loop {
                if follower.stalls {
                    return true;
                }
                match follower.read_to(marker, policy, &published) {
                    Outcome::Empty => marker = add(&mut published, None, true, 10),
                    outcome => return outcome == Outcome::Reached,
                }
            }
        });
    }
}

#[test]
fn whoever_stalls_leaves_and_returns_gets_what_the_policy_promises() {
    on_each_poller(|settings| {
        for policy in Policy::ALL {
            for seed in 0..4 {
                eprintln!("{policy:?}, seed {seed}");
                wander(settings.clone(), policy, seed);
            }
        }
    });
}

/// Two channels of different policies on one socket that is full: each does as it says.
#[test]
fn a_full_socket_is_many_cursors_each_with_its_own_policy() {
    on_each_poller(|settings| {
        let mut channels = promising("latest", bounded(Policy::Latest, 64 << 10));
        channels.extend(promising("drop", bounded(Policy::Drop, 32 << 10)));
        let (engine, address) = start(Settings { channels, ..settings });
        let mut client = connect_small(&address, "channel=latest&channel=drop");
        let mut healthy = connect(&address, "channel=drop");
        eventually("subscribers", || engine.occupancy("latest") == 1 && engine.occupancy("drop") == 2);
        let (large, filler) = (more_than_a_socket_takes(), filler());
        for number in 0..1_000 {
            let text = format!("latest:{number}:{}", if number == 0 { &large } else { &filler });
            let publication = Publication { key: Some("one"), ..Publication::new(Payload::Text(&text)) };
            engine.publish("latest", &publication, false).expect("the engine runs").expect("nothing to encode");
            publish(&engine, "drop", &format!("drop:{number}:{filler}"));
            assert!(read_text(&mut healthy).starts_with(&format!("drop:{number}:")));
        }
        publish(&engine, "drop", "drop:1000:"); // it may be what overtakes the laggard, and is lost then
        await_turn(&engine);
        publish(&engine, "drop", "end");
        let (mut last, mut latest) = (None, None);
        loop {
            let text = read_text(&mut client);
            let mut parts = text.split(':');
            let (channel, number) = (parts.next().expect("one"), parts.next().map(|part| part.parse::<u32>()));
            let number = number.and_then(Result::ok);
            match channel {
                "latest" => {
                    assert!(number > latest, "{number:?} after {latest:?}");
                    latest = number;
                }
                "drop" => {
                    assert!(number > last, "{number:?} after {last:?}");
                    last = number;
                }
                _ => break,
            }
        }
        assert_eq!(latest, Some(999));
        assert!(
            engine.stats().skipped[Policy::Drop as usize] > 0 && engine.stats().skipped[Policy::Latest as usize] > 0
        );
    });
}
