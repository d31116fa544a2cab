//! Keys that end, as tests: whoever applies what it gets to what it had, has what is true.
use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Appended, Channel, Mode, Origin, Policy, Publication, Registry, Stand, Start, View, Watch, Watched};
use crate::error::EngineError;
use crate::position::Position;
use crate::protocol::{Format, Payload};
use crate::settings::{ChannelRule, ChannelSettings, Settings};

type State = BTreeMap<String, String>;

fn channel(promised: ChannelSettings) -> Arc<Channel> {
    let settings = Settings {
        channels: vec![ChannelRule { pattern: super::Pattern::new("*").expect("one"), settings: promised }],
        ..Settings::default()
    };
    Registry::listed(&Arc::default(), 10).obtain("odds", &settings, 0).expect("there is room")
}

fn latest(history_frames: usize) -> ChannelSettings {
    ChannelSettings { policy: Policy::Latest, history_frames, ..ChannelSettings::default() }
}

fn append(channel: &Channel, text: &str, key: &str, is_removal: bool, is_keyframe: bool) -> Position {
    let publication = Publication { key: Some(key), is_removal, is_keyframe, ..Publication::new(Payload::Text(text)) };
    match channel.append(&publication, Stand::Next, 0, u64::MAX, |_: &Arc<Watch>| {}) {
        Ok(Appended::At(position)) => position,
        other => panic!("{other:?}"),
    }
}

/// Publishes `key=value`, or `-key` for none.
fn set(channel: &Channel, key: &str, value: Option<u32>) -> Position {
    match value {
        Some(value) => append(channel, &format!("{key}={value}"), key, false, false),
        None => append(channel, &format!("-{key}"), key, true, false),
    }
}

/// What a cursor gets from here to the tail, and applied to a state.
fn texts(channel: &Channel, format: Format, mut cursor: u64, mut mode: Mode) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        let tail = channel.tail(format);
        let run = channel.read(format, &View::default(), (cursor, tail), mode, 0);
        assert!(run.head <= cursor, "overtaken at {cursor} by {}", run.head);
        for slice in &run.slices {
            let mut bytes = slice.bytes();
            while let [_, length, rest @ ..] = bytes {
                let (text, behind) = rest.split_at(usize::from(*length));
                texts.push(String::from_utf8(text.to_vec()).expect("UTF-8"));
                bytes = behind;
            }
        }
        if run.end >= tail {
            return texts;
        }
        assert!(run.end > cursor);
        (cursor, mode) = (run.end, if mode == Mode::AtKeyframe { Mode::Replaying } else { mode });
    }
}

fn apply(state: &mut State, texts: &[String]) {
    for text in texts {
        match (text.strip_prefix('-'), text.split_once('=')) {
            (Some(key), _) => state.remove(key),
            (None, Some((key, value))) => state.insert(key.to_owned(), value.to_owned()),
            (None, None) => panic!("{text}"),
        };
    }
}

/// Whoever comes now and begins so: what it gets, and whether it recovered.
fn newcomer(channel: &Arc<Channel>, since: Option<Position>, start: Start) -> (Vec<String>, Option<bool>) {
    let watched = channel.watch(Format::Raw.into(), 1).expect("a format");
    let seek = channel.seek(Format::Raw, Origin { since, start: Some(start) }, watched.cursor, 0);
    (texts(channel, Format::Raw, seek.cursor, seek.mode), seek.recovered)
}

/// The shard has everything up to the tail, and its slowest laggard stands at `needed`.
fn fanned_out(channel: &Channel, watched: &Watched, needed: u64) {
    watched.watch.joining.store(0, std::sync::atomic::Ordering::Relaxed);
    watched.watch.advance(channel.tail(watched.log.format), needed);
}

#[test]
fn who_comes_late_gets_no_value_of_a_key_that_ended() {
    for history in [1, 2, 100] {
        let channel = channel(latest(history));
        let before = set(&channel, "a", Some(1));
        set(&channel, "b", Some(2));
        set(&channel, "a", None);
        set(&channel, "c", Some(3));
        let (got, recovered) = newcomer(&channel, None, Start::History);
        assert!(!got.contains(&"a=1".to_owned()) && recovered.is_none(), "history {history}: {got:?}");
        let mut state = State::new();
        apply(&mut state, &got);
        assert_eq!(state.keys().collect::<Vec<_>>(), ["b", "c"], "history {history}");
        let (got, recovered) = newcomer(&channel, Some(Position { offset: 0, ..before }), Start::History);
        assert!(!got.contains(&"a=1".to_owned()), "history {history}: {got:?}");
        assert_eq!(recovered, Some(history > 1), "history {history}: who had it must hear that it ended");
    }
}

#[test]
fn who_comes_back_is_told_of_the_end_while_that_is_in_the_history_and_else_that_something_is_lost() {
    let channel = channel(latest(3));
    let had = set(&channel, "a", Some(1));
    let end = set(&channel, "a", None);
    assert_eq!(newcomer(&channel, Some(had), Start::History), (vec!["-a".to_owned()], Some(true)));
    for value in 0..5 {
        set(&channel, "b", Some(value));
    }
    assert_eq!(newcomer(&channel, Some(had), Start::History), (vec!["b=4".to_owned()], Some(false)));
    assert_eq!(newcomer(&channel, Some(end), Start::Live), (vec!["b=4".to_owned()], Some(true)));
}

#[test]
fn who_keeps_pace_gets_everything_and_who_lags_gets_the_end() {
    let channel = channel(latest(0));
    let watched = channel.watch(Format::Raw.into(), 0).expect("a format");
    fanned_out(&channel, &watched, 0);
    set(&channel, "a", Some(1));
    let behind = channel.tail(Format::Raw);
    set(&channel, "a", Some(2));
    set(&channel, "a", None);
    assert_eq!(texts(&channel, Format::Raw, 0, Mode::Live), ["a=1", "a=2", "-a"]);
    fanned_out(&channel, &watched, behind);
    for value in 0..20_000 {
        set(&channel, "b", Some(value));
        fanned_out(&channel, &watched, behind);
    }
    assert_eq!(texts(&channel, Format::Raw, behind, Mode::Lagging), ["-a", "b=19999"], "long out of the log");
    let tail = channel.tail(Format::Raw);
    fanned_out(&channel, &watched, tail);
    set(&channel, "b", Some(1));
    fanned_out(&channel, &watched, tail);
    let inner = channel.lock();
    let log = inner.logs.of(Format::Raw).expect("it is watched");
    assert_eq!((log.compacted.count(), log.compacted.forgotten()), (0, 3), "nobody lags before it");
}

#[test]
fn a_key_that_is_published_again_lives_again() {
    let channel = channel(latest(2));
    let had = set(&channel, "a", Some(1));
    set(&channel, "a", None);
    set(&channel, "a", Some(2));
    assert_eq!(newcomer(&channel, None, Start::History).0, ["a=2"]);
    assert_eq!(newcomer(&channel, Some(had), Start::History), (vec!["-a".to_owned(), "a=2".to_owned()], Some(true)));
}

#[test]
fn nobody_begins_at_a_keyframe_that_ended() {
    for history in [0, 10] {
        let channel = channel(latest(history));
        append(&channel, "a=1", "a", false, true);
        assert_eq!(newcomer(&channel, None, Start::Keyframe).0, ["a=1"]);
        set(&channel, "b", Some(1));
        set(&channel, "a", None);
        assert_eq!(newcomer(&channel, None, Start::Keyframe).0, [""; 0], "history {history}");
    }
}

#[test]
fn only_where_values_are_kept_by_key_can_one_end() {
    for policy in [Policy::Every, Policy::Keyframe, Policy::Drop] {
        let channel = channel(ChannelSettings { policy, ..ChannelSettings::default() });
        let publication = Publication { key: Some("a"), is_removal: true, ..Publication::new(Payload::Text("-a")) };
        let refused = channel.append(&publication, Stand::Next, 0, u64::MAX, |_: &Arc<Watch>| {});
        assert!(matches!(refused, Err(EngineError::NoKeys { .. })), "{refused:?}");
        assert_eq!(channel.position().offset, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whoever comes, comes back or lags, and applies what it gets, has what is true; or is told that something is lost.
    #[test]
    fn whoever_applies_what_it_gets_has_what_is_true(
        steps in prop::collection::vec((0_u8..6, prop::option::weighted(0.7, any::<u32>()), 0_u8..8), 1..120),
        history in 0_usize..12,
        backlog_frames in 2_usize..40,
    ) {
        let channel = channel(ChannelSettings { backlog_frames, ..latest(history) });
        let mut truth = vec![State::new()];
        let mut watched: Option<Watched> = None;
        let (mut laggard, mut at) = (0, 0); // where it stands, and in which state
        for (key, value, action) in steps {
            let key = format!("k{key}");
            let position = set(&channel, &key, value);
            let mut state = truth.last().expect("there is one").clone();
            match value {
                Some(value) => state.insert(key, value.to_string()),
                None => state.remove(&key),
            };
            truth.push(state);
            let now = truth.last().expect("just pushed");
            match (&watched, action) {
                (None, 0) => {
                    let new = channel.watch(Format::Raw.into(), 0).expect("a format");
                    (laggard, at) = (channel.tail(Format::Raw), truth.len() - 1);
                    fanned_out(&channel, &new, laggard);
                    watched = Some(new);
                }
                (Some(one), 0) => {
                    let is_overtaken = channel.is_overtaken(Format::Raw, laggard, Mode::Lagging);
                    if !is_overtaken {
                        let mut state = truth[at].clone();
                        apply(&mut state, &texts(&channel, Format::Raw, laggard, Mode::Lagging));
                        prop_assert_eq!(&state, now, "who lags");
                    }
                    (laggard, at) = (channel.tail(Format::Raw), truth.len() - 1);
                    fanned_out(&channel, one, laggard);
                }
                (Some(one), 1..=4) => fanned_out(&channel, one, laggard),
                (_, 5) if history > 0 => {
                    let mut state = State::new();
                    apply(&mut state, &newcomer(&channel, None, Start::History).0);
                    for (key, value) in &state {
                        prop_assert_eq!(now.get(key), Some(value), "who is new");
                    }
                }
                (_, 6) => {
                    let since = usize::try_from(position.offset).expect("small") / 2;
                    let from = Position { offset: since as u64, ..position };
                    let (got, recovered) = newcomer(&channel, Some(from), Start::Live);
                    if recovered == Some(true) {
                        let mut state = truth[since].clone();
                        apply(&mut state, &got);
                        prop_assert_eq!(&state, now, "who was there until {}", since);
                    }
                }
                _ => {}
            }
        }
    }
}
