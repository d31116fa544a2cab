//! Channels that nobody needs any more: forgotten on a timer, their memory given back, in nobody's way.
//!
//! They stayed for ever unless a new name came, and the search for them at the bound held a lock that everybody needs.
mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use fanwire_core::channel::Origin;
use fanwire_core::messages::ConnectionId;
use fanwire_core::{Engine, Settings};
use support::{connect, publish, read_text, resident_mib, start};
use tungstenite::Message;

/// Longer than channels without a publication are kept, with the round of the sweep.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(40);

/// Time itself is the matter: looks a few times a second.
fn wait_until(what: &str, within: Duration, condition: impl Fn() -> bool) {
    let (_silent, silence) = channel::<()>();
    let deadline = Instant::now() + within;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        silence.recv_timeout(Duration::from_millis(100)).expect_err("nobody sends");
    }
}

/// Who subscribes to ever new names leaves nothing behind, and needs nobody's new name for that.
#[test]
fn names_that_one_client_floods_are_forgotten() {
    let (engine, address) = start(Settings::default());
    let mut client = connect(&address, "channel=kept");
    for round in 0..20 {
        let names: Vec<String> = (0..500).map(|n| format!("\"flood:{round}:{n}\"")).collect();
        for action in ["subscribe", "unsubscribe"] {
            let text = format!("{{\"{action}\":[{}],\"id\":1}}", names.join(","));
            client.send(Message::text(text)).expect("it is open");
            assert!(read_text(&mut client).contains("result"));
        }
    }
    let channels = engine.stats().channels;
    assert!(channels < 2_000, "{channels} are kept for who comes back at once");
    wait_until("they are forgotten", FORGOTTEN_WITHIN, || engine.stats().channels <= 1);
    publish(&engine, "kept", "still there");
    assert_eq!(read_text(&mut client), "still there");
}

/// Nobody is connected, so no shard has anything else to do; and nothing new is ever published.
#[test]
fn channels_are_forgotten_where_nobody_ever_connects() {
    let (engine, _) = start(Settings { shards: 2, ..Settings::default() });
    // The number names nobody, of the second shard: the first, which has the sweep, is not told of it.
    let nobody = ConnectionId::from_bits(1 << 48 | 0x00FF_FFFF);
    for n in 0..100 {
        engine.subscribe(nobody, &format!("c{n}"), Origin::default()).expect("it runs");
    }
    assert_eq!(engine.stats().channels, 100);
    wait_until("they are forgotten", FORGOTTEN_WITHIN, || engine.stats().channels == 0);
}

/// The 99th percentile and the worst of what `act` takes, while `condition` holds.
fn latency(mut act: impl FnMut(), condition: impl Fn() -> bool) -> (Duration, Duration) {
    let mut took = Vec::new();
    while condition() {
        let begun = Instant::now();
        act();
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    (took[took.len() * 99 / 100], took.last().copied().expect("something was done"))
}

/// Publications to one channel and new names, while another thread has a million swept; prints what they took.
fn measure(engine: &Engine, what: &str, condition: impl Fn() -> bool + Sync) {
    let is_over = AtomicBool::new(false);
    let (publishing, naming) = std::thread::scope(|scope| {
        let naming = scope.spawn(|| {
            // Not as fast as it goes: the names of a few seconds alone would reach the bound of a million.
            let (_silent, silence) = channel::<()>();
            let mut n = 0_u64;
            let name = || {
                n += 1;
                publish(engine, &format!("new:{what}:{n}"), "x");
            };
            let goes_on = || {
                silence.recv_timeout(Duration::from_micros(200)).expect_err("nobody sends");
                !is_over.load(Ordering::Relaxed)
            };
            latency(name, goes_on)
        });
        let publishing = latency(
            || {
                publish(engine, "busy", "x");
            },
            &condition,
        );
        is_over.store(true, Ordering::Relaxed);
        (publishing, naming.join().expect("it publishes"))
    });
    eprintln!(
        "{what}: publish p99 {:?}, worst {:?}; new name p99 {:?}, worst {:?}",
        publishing.0, publishing.1, naming.0, naming.1
    );
}

/// Takes two minutes: prints what a million idle channels cost, and what publishers feel while they are forgotten.
#[test]
#[ignore = "takes two minutes: `make soak` runs it"]
fn a_million_idle_channels_cost_300_bytes_each_and_are_given_back() {
    const COUNT: usize = 900_000;
    let (engine, _) = start(Settings::default());
    publish(&engine, "busy", "x");
    let before = resident_mib();
    for n in 0..COUNT {
        publish(&engine, &format!("m{n:07}"), "x");
    }
    let grown = resident_mib() - before;
    let bytes = (grown << 20) / COUNT;
    eprintln!("{COUNT} channels: {grown} MiB, {bytes} bytes each");
    assert!(bytes <= 330, "{bytes} bytes each");
    let until = Instant::now() + Duration::from_secs(5);
    measure(&engine, "none idle", || Instant::now() < until);
    let begun = engine.stats().channels;
    wait_until("the sweep begins", Duration::from_secs(90), || engine.stats().channels < begun - 1_000);
    measure(&engine, "while they are forgotten", || engine.stats().channels > COUNT as u64 / 2);
    wait_until("all are forgotten", Duration::from_secs(180), || engine.stats().channels < 1_000);
    // What is free may stay with the allocator, in pieces; the next million takes no more.
    for n in 0..COUNT {
        publish(&engine, &format!("n{n:07}"), "x");
    }
    let twice = resident_mib().saturating_sub(before);
    eprintln!("{twice} MiB after as many again");
    assert!(twice < grown * 5 / 4, "{twice} MiB after as many again, {grown} before");
}
