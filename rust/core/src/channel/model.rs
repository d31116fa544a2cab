//! What channels promise, as properties: whatever is published, lost, read in part and asked for again, each subscriber
//! gets what a plain list says that its policy promises.
//!
//! `list` is that list, `promise` one subscriber's account, `shard` does what a shard does, without sockets; `faults` has
//! what was found so, step by step. Time is a number. A failure prints the operations that led to it, and proptest keeps its seed.
mod faults;
mod list;
mod promise;
mod shard;

use std::time::Duration;

use proptest::prelude::*;

use super::{Origin, Policy, Start};
use crate::position::Position;
use crate::protocol::Format;
use crate::settings::ChannelSettings;
use list::{Kind, List};
use shard::{ALL, New, World};

const MS: u64 = 1_000_000;

#[derive(Clone, Copy, Debug)]
enum Since {
    Nothing,
    /// So many publications ago.
    Back(u64),
    Future,
    OtherEpoch,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Publish(New),
    Ask { is_enveloped: bool, shard: usize, start: Option<Start>, since: Since },
    Begin(u64),
    FanOut(u64),
    Read { pick: usize, luck: u64, between: u64 },
    Leave(usize),
    LeaveAll,
    Pass(u64),
    GiveUp(u64),
}

fn new() -> impl Strategy<Value = New> {
    let kinds = prop_oneof![14 => Just(Kind::Plain), 2 => Just(Kind::Keyframe), 1 => Just(Kind::Snapshot)];
    let keys = prop_oneof![2 => Just(None), 6 => (0_u8..4).prop_map(Some), 3 => (4_u8..60).prop_map(Some)];
    let ttls = prop_oneof![8 => Just(None), 1 => (1_u64..20).prop_map(|ms| Some(ms * MS))];
    let bytes = prop_oneof![6 => 0_usize..200, 1 => 1_000_usize..5_000];
    (kinds, keys, ttls, bytes).prop_map(|(kind, key, ttl_ns, bytes)| New { key, kind, ttl_ns, bytes })
}

fn step() -> impl Strategy<Value = Step> {
    let starts =
        prop_oneof![Just(None), Just(Some(Start::Live)), Just(Some(Start::Keyframe)), Just(Some(Start::History)),];
    let since = prop_oneof![
        4 => Just(Since::Nothing),
        5 => (0_u64..30).prop_map(Since::Back),
        1 => Just(Since::Future),
        1 => Just(Since::OtherEpoch),
    ];
    prop_oneof![
        24 => new().prop_map(Step::Publish),
        4 => (any::<bool>(), 0_usize..2, starts, since)
            .prop_map(|(is_enveloped, shard, start, since)| Step::Ask { is_enveloped, shard, start, since }),
        5 => any::<u64>().prop_map(Step::Begin),
        12 => any::<u64>().prop_map(Step::FanOut),
        8 => (any::<usize>(), any::<u64>(), 0_u64..3)
            .prop_map(|(pick, luck, between)| Step::Read { pick, luck, between }),
        2 => any::<usize>().prop_map(Step::Leave),
        1 => Just(Step::LeaveAll),
        4 => (0_u64..15).prop_map(Step::Pass),
        1 => any::<u64>().prop_map(Step::GiveUp),
    ]
}

fn settings(policy: impl Strategy<Value = Policy>) -> impl Strategy<Value = ChannelSettings> {
    let backlog_bytes = prop_oneof![Just(1_u64 << 20), 400_u64..20_000];
    let backlog_frames = prop_oneof![Just(16_384_usize), 2_usize..40];
    let backlog_age = prop_oneof![3 => Just(Duration::MAX), 1 => (5_u64..40).prop_map(Duration::from_millis)];
    let history_frames = prop_oneof![Just(0_usize), 1_usize..25];
    let history_age =
        prop_oneof![2 => Just(Duration::from_secs(300)), 1 => (5_u64..60).prop_map(Duration::from_millis)];
    let history_bytes = prop_oneof![2 => Just(16_u64 << 20), 1 => 400_u64..20_000];
    let start = prop_oneof![Just(Start::Live), Just(Start::Keyframe), Just(Start::History)];
    let interval = prop_oneof![3 => Just(None), 1 => (0_u64..40).prop_map(|ms| Some(Duration::from_millis(ms)))];
    let bounds = (backlog_bytes, backlog_frames, backlog_age);
    (policy, bounds, history_frames, history_age, history_bytes, start, interval).prop_map(
        |(policy, bounds, history_frames, history_age, history_bytes, start, snapshot_interval)| {
            let (backlog_bytes, backlog_frames, backlog_age) = bounds;
            ChannelSettings {
                policy,
                backlog_bytes,
                backlog_frames,
                backlog_age,
                history_frames,
                history_age,
                history_bytes,
                start,
                snapshot_interval,
                tells_presence: false,
            }
        },
    )
}

/// The texts in some whole frames; what an envelope tells besides is checked.
fn texts(mut bytes: &[u8], format: Format, list: &List) -> Vec<String> {
    let mut texts = Vec::new();
    while !bytes.is_empty() {
        assert_eq!(bytes[0], 0x81, "a frame begins here, of a text");
        let (head, length) = match bytes[1] {
            126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
            short => (2, usize::from(short)),
        };
        let text = std::str::from_utf8(&bytes[head..head + length]).expect("UTF-8");
        bytes = &bytes[head + length..];
        if format == Format::Raw {
            texts.push(text.to_owned());
            continue;
        }
        let envelope: serde_json::Value = serde_json::from_str(text).expect("JSON");
        let data = envelope["data"].as_str().expect("a text").to_owned();
        let index: usize = data.split('|').next().and_then(|number| number.parse().ok()).expect("as published");
        assert_eq!(envelope["position"], serde_json::json!([7, list.all[index].offset]));
        assert_eq!(envelope["channel"], "c");
        assert_eq!(envelope["keyframe"].as_bool(), (list.all[index].kind != Kind::Plain).then_some(true));
        texts.push(data);
    }
    texts
}

fn take(world: &mut World, step: Step) {
    match step {
        Step::Publish(new) => world.publish(new),
        Step::Ask { is_enveloped, shard, start, since } => {
            let format = if is_enveloped { Format::Envelope } else { Format::Raw };
            let offset = world.list.offset();
            let since = match since {
                Since::Nothing => None,
                Since::Back(count) => Some(Position { epoch: 7, offset: offset.saturating_sub(count) }),
                Since::Future => Some(Position { epoch: 7, offset: offset + 1 }),
                Since::OtherEpoch => Some(Position { epoch: 6, offset }),
            };
            world.ask(format, shard, Origin { since, start });
        }
        Step::Begin(luck) => world.begin(luck),
        Step::FanOut(luck) => world.fan_out_all(luck),
        Step::Read { pick, luck, between } if !world.subscribers.is_empty() => {
            world.pump(pick % world.subscribers.len(), luck, between);
        }
        Step::Leave(pick) if !world.subscribers.is_empty() => world.leave(pick % world.subscribers.len()),
        Step::LeaveAll => (0..world.subscribers.len()).rev().for_each(|index| world.leave(index)),
        Step::Pass(ms) => world.now_ns += ms * MS,
        Step::GiveUp(luck) => world.give_up(luck),
        Step::Read { .. } | Step::Leave(_) => {}
    }
}

/// After everyone has read all, and one more: nothing is kept but what was asked for.
fn check_memory(world: &mut World) {
    world.catch_up();
    let plain = New { key: None, kind: Kind::Plain, ttl_ns: None, bytes: 10 };
    world.publish(plain);
    world.catch_up();
    world.publish(plain);
    let is_lagging = world.subscribers.iter().any(|subscriber| subscriber.lagging.is_some());
    let inner = world.channel.lock();
    let settings = world.channel.settings();
    for log in inner.logs.iter().flatten().chain(&inner.stored) {
        let is_bare = settings.history_frames == 0 && log.newest_keyframe().is_none() && !is_lagging;
        if is_bare {
            assert!(log.frames.len() <= 1 && log.compacted.count() == 0, "{} frames are kept", log.frames.len());
        }
        let frames_max = settings.backlog_frames.max(2 * settings.history_frames) + 1;
        assert!(log.frames.len() <= frames_max, "{} frames of {frames_max}", log.frames.len());
        let (count, bytes) = (log.compacted.count(), log.compacted.bytes());
        assert!(count <= settings.backlog_frames, "{count} are kept apart");
        assert!(bytes <= settings.backlog_bytes, "{bytes} bytes are kept apart");
    }
}

fn run(settings: ChannelSettings, steps: Vec<Step>) {
    let mut world = World::new(settings);
    for step in steps {
        take(&mut world, step);
    }
    check_memory(&mut world);
    let mut inner = world.channel.lock();
    inner.keys.sweep(u64::MAX);
    assert!(!inner.keys.is_sweep_due());
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..160)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn every_gives_all_or_closes(settings in settings(Just(Policy::Every)), steps in steps()) {
        run(settings, steps);
    }

    #[test]
    fn latest_misses_nothing_that_is_newest(settings in settings(Just(Policy::Latest)), steps in steps()) {
        run(settings, steps);
    }

    #[test]
    fn keyframe_goes_on_at_keyframes_alone(settings in settings(Just(Policy::Keyframe)), steps in steps()) {
        run(settings, steps);
    }

    #[test]
    fn drop_goes_on_at_the_tail_and_counts(settings in settings(Just(Policy::Drop)), steps in steps()) {
        run(settings, steps);
    }

    #[test]
    fn any_policy_does_as_it_says(settings in settings(proptest::sample::select(&Policy::ALL[..])), steps in steps()) {
        run(settings, steps);
    }
}

/// An epoch that is not this one's, at an offset that is.
#[test]
fn a_world_without_publications_recovers_its_beginning() {
    let mut world = World::new(ChannelSettings::default());
    world.ask(Format::Raw, 0, Origin { since: Some(Position { epoch: 7, offset: 0 }), start: None });
    world.begin(ALL);
    world.publish(New { key: None, kind: Kind::Plain, ttl_ns: None, bytes: 1 });
    world.fan_out_all(ALL);
    assert_eq!(world.subscribers[0].promise.received, [0]);
}
