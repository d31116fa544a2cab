//! What the application hears of its publications and subscribers: how far they have come, who came and who went.
mod support;

use std::time::Duration;

use fanwire_core::channel::{Policy, Publication};
use fanwire_core::messages::{Event, Progress};
use fanwire_core::protocol::Payload;
use fanwire_core::{ChannelSettings, Engine, EngineError, Position, Settings};
use support::{
    Client, await_turn, connect, connect_small, eventually, more_than_a_socket_takes, on_each_poller, promising,
    publish, read_text, start,
};

fn start_with(settings: Settings, channel: ChannelSettings) -> (Engine, String) {
    start(Settings { channels: promising("*", channel), ..settings })
}

/// The last report of each part, once all of them say that nobody is behind.
fn progress_of(engine: &Engine, token: u64, parts: u32, is_done: impl Fn(&[Progress]) -> bool) -> Vec<Progress> {
    let mut last: Vec<Progress> = Vec::new();
    eventually("the reports", || {
        for event in engine.take_events(100) {
            if let Event::Progress(progress) = event
                && progress.token == token
            {
                last.retain(|other| other.part != progress.part);
                last.push(progress);
            }
        }
        last.len() == parts as usize && is_done(&last)
    });
    last
}

fn nobody_is_behind(parts: &[Progress]) -> bool {
    parts.iter().all(|part| part.behind == 0)
}

fn totals(parts: &[Progress]) -> (u64, u64, u64) {
    let sum = |of: fn(&Progress) -> u64| parts.iter().map(of).sum();
    (sum(|part| part.subscribers), sum(|part| part.behind), sum(|part| part.skipped))
}

/// Publishes what the only client that does not read will not have, nor anything behind it.
fn stall(engine: &Engine, channel: &str) {
    publish(engine, channel, &more_than_a_socket_takes());
    eventually("it lags", || engine.stats().lagging == 1);
}

#[test]
fn a_publication_that_all_have_is_reported_once_for_each_log() {
    on_each_poller(|settings| {
        let (engine, address) = start_with(Settings { shards: 2, ..settings }, ChannelSettings::default());
        let mut clients: Vec<Client> = (0..6).map(|_| connect(&address, "channel=a")).collect();
        clients.extend((0..3).map(|_| connect(&address, "channel=a&envelope=1")));
        eventually("subscribers", || engine.occupancy("a") == 9);
        let position = publish(&engine, "a", "hello");
        let (token, parts) = engine.track(position).expect("it was published");
        let last = progress_of(&engine, token, parts, nobody_is_behind);
        assert_eq!(totals(&last), (9, 0, 0));
        clients.iter_mut().for_each(|client| assert!(read_text(client).contains("hello")));
    });
}

#[test]
fn nobody_no_channel_and_the_future_are_told_at_once() {
    on_each_poller(|settings| {
        let (engine, _) = start_with(settings, ChannelSettings::default());
        let position = publish(&engine, "a", "hello");
        assert_eq!(engine.track(position).expect("nobody").1, 0);
        assert_eq!(engine.track(Position { epoch: 1, offset: 1 }).expect("no such channel").1, 0);
        let next = Position { offset: position.offset + 1, ..position };
        assert!(matches!(engine.track(next), Err(EngineError::NoSuchPosition { position }) if position == next));
    });
}

#[test]
fn who_lags_is_behind_until_it_has_read() {
    on_each_poller(|settings| {
        let (engine, address) = start_with(settings, ChannelSettings::default());
        let mut slow = connect_small(&address, "channel=a");
        eventually("a subscriber", || engine.occupancy("a") == 1);
        stall(&engine, "a");
        let _quick = connect(&address, "channel=a&channel=b");
        eventually("both", || engine.occupancy("a") == 2);
        let position = publish(&engine, "a", "end");
        let (token, parts) = engine.track(position).expect("it was published");
        let last = progress_of(&engine, token, parts, |parts| totals(parts) == (2, 1, 0));
        assert_eq!(totals(&last), (2, 1, 0));
        while read_text(&mut slow) != "end" {}
        let last = progress_of(&engine, token, parts, nobody_is_behind);
        assert_eq!(totals(&last), (2, 0, 0));
    });
}

#[test]
fn who_goes_past_it_is_skipped_and_who_leaves_is_not_behind() {
    on_each_poller(|settings| {
        let channel = ChannelSettings { policy: Policy::Drop, backlog_bytes: 32 << 10, ..ChannelSettings::default() };
        let (engine, address) = start_with(settings.clone(), channel);
        let _slow = connect_small(&address, "channel=a");
        eventually("subscribers", || engine.occupancy("a") == 1);
        stall(&engine, "a");
        let position = publish(&engine, "a", "passed by");
        let (token, parts) = engine.track(position).expect("it was published");
        let filler = "x".repeat(300);
        for _ in 0..400 {
            publish(&engine, "a", &filler);
            await_turn(&engine);
        }
        let last = progress_of(&engine, token, parts, nobody_is_behind);
        assert_eq!(totals(&last), (1, 0, 1));

        let (engine, address) = start_with(settings, ChannelSettings::default());
        let slow = connect_small(&address, "channel=a");
        eventually("a subscriber", || engine.occupancy("a") == 1);
        stall(&engine, "a");
        let (token, parts) = engine.track(publish(&engine, "a", "never read")).expect("it was published");
        progress_of(&engine, token, parts, |parts| totals(parts) == (1, 1, 0));
        drop(slow);
        let last = progress_of(&engine, token, parts, nobody_is_behind);
        assert_eq!(totals(&last), (0, 0, 0));
    });
}

#[test]
fn what_a_newer_one_replaces_or_time_takes_is_skipped() {
    on_each_poller(|settings| {
        let channel = ChannelSettings { policy: Policy::Latest, ..ChannelSettings::default() };
        let (engine, address) = start_with(settings, channel);
        let mut slow = connect_small(&address, "channel=a");
        eventually("a subscriber", || engine.occupancy("a") == 1);
        stall(&engine, "a");
        let put = |text: &str, key, ttl_ns| {
            let publication = Publication { key, ttl_ns, ..Publication::new(Payload::Text(text)) };
            engine.publish("a", &publication, false).expect("the engine runs").expect("nothing to encode")
        };
        let replaced = engine.track(put("replaced", Some("key"), None)).expect("it was published");
        let expired = engine.track(put("expired", Some("other"), Some(1))).expect("it was published");
        let newest = engine.track(put("newest", Some("key"), None)).expect("it was published");
        await_turn(&engine);
        let mut texts = Vec::new();
        while texts.last().is_none_or(|text| text != "newest") {
            texts.push(read_text(&mut slow));
        }
        assert!(!texts.iter().any(|text| text == "replaced" || text == "expired"));
        await_turn(&engine);
        let mut last: Vec<Progress> = Vec::new();
        eventually("the reports", || {
            for event in engine.take_events(100) {
                let Event::Progress(progress) = event else { continue };
                last.retain(|other| other.token != progress.token);
                last.push(progress);
            }
            nobody_is_behind(&last) && last.len() == 3
        });
        let skipped = |token: u64| last.iter().find(|one| one.token == token).map(|one| one.skipped);
        let expected = [(replaced.0, Some(1)), (expired.0, Some(1)), (newest.0, Some(0))];
        expected.into_iter().for_each(|(token, count)| assert_eq!(skipped(token), count));
    });
}

#[test]
fn what_is_not_tracked_any_more_is_not_reported() {
    on_each_poller(|settings| {
        let (engine, address) = start_with(settings, ChannelSettings::default());
        let mut slow = connect_small(&address, "channel=a");
        eventually("a subscriber", || engine.occupancy("a") == 1);
        stall(&engine, "a");
        let (token, parts) = engine.track(publish(&engine, "a", "end")).expect("it was published");
        progress_of(&engine, token, parts, |parts| totals(parts).1 == 1);
        engine.untrack(token);
        await_turn(&engine);
        while read_text(&mut slow) != "end" {}
        eventually("it is at the tail", || engine.stats().lagging == 0);
        await_turn(&engine);
        let events = engine.take_events(100);
        assert!(!events.iter().any(|event| matches!(event, Event::Progress(_))), "{events:?}");
    });
}

#[test]
fn who_comes_and_goes_is_told_in_batches_and_in_order() {
    on_each_poller(|settings| {
        let channel = ChannelSettings { tells_presence: true, ..ChannelSettings::default() };
        let channels = promising("told", channel);
        let settings = Settings { channels, ping_interval: Duration::from_secs(60), ..settings };
        let (engine, address) = start(settings);
        let clients: Vec<Client> = (0..20).map(|_| connect(&address, "channel=told&channel=untold")).collect();
        let (mut batches, mut all) = (0, Vec::new());
        let mut take = |count: usize| {
            eventually("all are told", || {
                for event in engine.take_events(100) {
                    if let Event::Presence(batch) = event {
                        assert!(!batch.is_empty());
                        assert!(batch.iter().all(|one| one.channel.name() == "told"));
                        batches += 1;
                        all.extend(batch.iter().map(|one| (one.connection, one.has_joined)));
                    }
                }
                all.len() == count
            });
        };
        take(20);
        drop(clients);
        take(40);
        assert!(batches < 40, "{batches} events for 40 comings and goings");
        for (connection, _) in &all {
            let same = all.iter().filter(|other| other.0 == *connection);
            assert_eq!(same.map(|one| one.1).collect::<Vec<_>>(), [true, false]);
        }
        assert_eq!(engine.occupancy("told"), 0);
    });
}
