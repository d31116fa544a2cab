//! Faults that the simulation and its forerunner, or a close look, have found: each test says what happened, and claims that
//! it no longer does.
use super::list::Kind;
use super::press::New;
use super::wire::Wire;
use super::world::{ALL, MS, World};
use crate::channel::{Origin, Pattern, Policy, Publication, Stand, Start};
use crate::engine::Audience;
use crate::error::EngineError;
use crate::position::Position;
use crate::protocol::Payload;
use crate::routes::Asks;
use crate::settings::{ChannelRule, ChannelSettings, Settings};

/// One shard with a channel, and clients whose sockets take what the test says.
fn world(settings: ChannelSettings) -> World {
    world_with(settings, Asks::default())
}

fn world_with(settings: ChannelSettings, asks: Asks) -> World {
    let rule = ChannelRule { pattern: Pattern::new("c0").expect("a pattern"), settings };
    let settings = Settings { channels: vec![rule], channels_max: 64, ..Settings::default() };
    let world = World::new(1, settings, asks, 1, false);
    world.net.borrow_mut().is_exact = true;
    world
}

fn latest(backlog_frames: usize) -> World {
    world(ChannelSettings { policy: Policy::Latest, backlog_frames, ..ChannelSettings::default() })
}

fn live() -> Origin {
    Origin { since: None, start: Some(Start::Live) }
}

/// A client that watches the channel from `origin` on.
fn join(world: &mut World, origin: Origin) -> usize {
    let index = world.connect(0, Wire::Raw, ALL, &[], live());
    world.settle();
    world.subscribe(index, 0, origin);
    world.settle();
    index
}

fn put(world: &mut World, key: u8, kind: Kind) {
    world.publish(0, &New { kind, ..New::plain(key) });
    world.settle();
}

fn received(world: &mut World, index: usize) -> Vec<usize> {
    let promise = world.clients[index].accounts[0].promise.as_ref();
    promise.expect("it was told where it begins").received.clone()
}

/// What had left the log for a laggard was let go after what followed it in the log, and moved the mark back that says
/// from where on everything newest is here. Who returned then missed a newest one, and was told that it was recovered.
#[test]
fn the_mark_of_what_is_lost_never_moves_back() {
    let mut world = latest(4);
    let first = join(&mut world, live());
    world.set_room(first, 0);
    (0..6).for_each(|key| put(&mut world, key, Kind::Plain));
    world.make_room(first, ALL);
    world.settle();
    (6..8).for_each(|key| put(&mut world, key, Kind::Plain));
    let epoch = world.press.lists.borrow()[0].life().0;
    for offset in 0..8 {
        let since = Some(Position { epoch, offset });
        join(&mut world, Origin { since, start: Some(Start::Live) }); // its promise is checked
    }
    world.catch_up();
}

/// What was replaced counted against the bound of what is kept of a key, so that a value that seldom changes was lost for
/// others that often do, and the laggard was closed.
#[test]
fn a_value_that_seldom_changes_is_not_lost_for_those_that_often_do() {
    let mut world = latest(10);
    let first = join(&mut world, live());
    world.set_room(first, 0);
    put(&mut world, 99, Kind::Plain);
    (0..400).for_each(|number| put(&mut world, (number % 12) as u8, Kind::Plain));
    world.catch_up();
    assert!(!world.clients[first].is_gone && !world.clients[first].is_ending());
    assert_eq!(received(&mut world, first), std::iter::once(0).chain(389..=400).collect::<Vec<_>>());
}

/// A newcomer's socket was full, and the snapshot that it was to begin with left the log. It went on without it.
#[test]
fn a_newcomer_whose_snapshot_is_gone_goes_on_at_the_next_one() {
    let mut world = latest(4);
    join(&mut world, live());
    put(&mut world, 0, Kind::Snapshot);
    let second = world.connect(0, Wire::Raw, ALL, &[], live());
    world.settle();
    world.set_room(second, 0);
    world.subscribe(second, 0, Origin { since: None, start: Some(Start::Keyframe) });
    world.settle();
    (0..8).for_each(|_| put(&mut world, 1, Kind::Plain));
    put(&mut world, 0, Kind::Snapshot);
    put(&mut world, 1, Kind::Plain);
    world.catch_up();
    assert_eq!(received(&mut world, second), [9, 10]);
}

/// A snapshot has the number of the publication before it, and was taken for that when somebody asked how far it had come.
#[test]
fn a_publication_ends_before_the_snapshot_behind_it() {
    let mut world = world(ChannelSettings::default());
    join(&mut world, live());
    let channel = world.engine().obtain("c0").expect("it exists");
    let first = Position { epoch: channel.epoch(), offset: 1 };
    let end_of = || channel.watches_of(first).expect("it was published").1[0].1;
    put(&mut world, 0, Kind::Plain);
    let end = end_of();
    assert_eq!(end, channel.tail(crate::protocol::Format::Raw));
    put(&mut world, 0, Kind::Snapshot);
    assert_eq!(end_of(), end);
}

/// An epoch that is not this one's, at an offset that is.
#[test]
fn a_world_without_publications_recovers_its_beginning() {
    let mut world = world(ChannelSettings::default());
    let epoch = world.press.lists.borrow()[0].life().0;
    let first = join(&mut world, Origin { since: Some(Position { epoch, offset: 0 }), start: None });
    put(&mut world, 0, Kind::Plain);
    assert_eq!(received(&mut world, first), [0]);
}

/// One client watches, and the application has just let in another, which begins at a keyframe: its shard has yet to hear it.
fn with_a_newcomer_decided_on() -> (World, usize, usize) {
    let asking = Asks { subscribing: true, ..Asks::default() };
    let mut world = world_with(ChannelSettings::default(), asking);
    let first = join(&mut world, live());
    world.decide();
    world.settle();
    let second = join(&mut world, at_keyframe());
    world.decide();
    (world, first, second)
}

fn at_keyframe() -> Origin {
    Origin { since: None, start: Some(Start::Keyframe) }
}

/// A newcomer's snapshot was fanned out for its sake, and the last of those at the tail broke at that. The shard's next list
/// began before it again: the newcomer lost it there. One that begins further on was ahead of all others, and got nothing more.
#[test]
fn a_newcomer_is_not_left_behind_where_all_others_break() {
    let (mut world, first, second) = with_a_newcomer_decided_on();
    world.publish(0, &New { kind: Kind::Snapshot, ..New::plain(0) });
    world.end(first, true);
    world.settle();
    put(&mut world, 0, Kind::Plain);
    world.catch_up();
    assert_eq!(received(&mut world, second), [0, 1]);
}

/// A keyframe was fanned out for a newcomer's sake, and came to one who had unsubscribed before it was published.
#[test]
fn who_unsubscribed_gets_nothing_for_a_newcomer_s_sake() {
    let (mut world, first, second) = with_a_newcomer_decided_on();
    world.unsubscribe(first, 0);
    put(&mut world, 0, Kind::Keyframe);
    assert_eq!(received(&mut world, second), [0]);
    assert!(received(&mut world, first).is_empty());
}

/// What was kept for whoever may come had forgotten whom it is not for.
#[test]
fn an_excluded_publication_is_not_for_them_later_either() {
    let mut world = world(ChannelSettings { history_frames: 10, ..ChannelSettings::default() });
    let first = world.connect(0, Wire::Raw, ALL, &[], live());
    world.settle();
    let excluded = vec![world.clients[first].id.expect("it was seen")];
    world.publish(0, &New { excluded, ..New::plain(0) });
    put(&mut world, 0, Kind::Plain);
    world.subscribe(first, 0, Origin { since: None, start: Some(Start::History) });
    world.catch_up();
    assert_eq!(received(&mut world, first), [1]);
}

/// A publication that was over, or for newcomers alone, and was not for one client either, was taken twice from what that one
/// got: deliveries were counted too few.
#[test]
fn what_is_not_sent_for_two_reasons_is_taken_from_the_count_once() {
    let mut world = world(ChannelSettings::default());
    let first = join(&mut world, live());
    let excluded = vec![world.clients[first].id.expect("it was seen")];
    world.publish(0, &New::plain(0));
    world.publish(0, &New { kind: Kind::Snapshot, excluded, ..New::plain(0) });
    world.settle();
    assert_eq!(received(&mut world, first), [0]);
    assert_eq!(world.engine().stats().deliveries, 1);
}

/// Who unsubscribed got what one read of the log gave, at most 32 pieces, and not the rest of what was published before that.
#[test]
fn who_unsubscribed_gets_all_that_was_published_before() {
    let mut world = world(ChannelSettings::default());
    let first = join(&mut world, live());
    for _ in 0..40 {
        world.publish(0, &New::plain(0));
        world.publish(0, &New { kind: Kind::Snapshot, ..New::plain(0) });
    }
    world.unsubscribe(first, 0);
    world.settle();
    assert_eq!(received(&mut world, first), (0..40).map(|number| 2 * number).collect::<Vec<_>>());
}

/// Who had more pieces to get in one turn than one call takes was taken for a laggard, and in channels of `latest` went past
/// what was replaced in the same turn, though it kept pace.
#[test]
fn who_keeps_pace_gets_every_publication_of_a_long_turn() {
    let settings = ChannelSettings { policy: Policy::Latest, ..ChannelSettings::default() };
    let rule = ChannelRule { pattern: Pattern::new("*").expect("a pattern"), settings };
    let settings = Settings { channels: vec![rule], channels_max: 64, ..Settings::default() };
    let mut world = World::new(1, settings, Asks::default(), 3, false);
    world.net.borrow_mut().is_exact = true;
    let first = world.connect(0, Wire::Raw, ALL, &[0, 1, 2], live());
    world.settle();
    for channel in [0, 1, 2].repeat(30) {
        world.publish(channel, &New::plain(0));
        world.publish(channel, &New { kind: Kind::Snapshot, ..New::plain(0) });
    }
    world.settle();
    for account in &world.clients[first].accounts {
        let promise = account.promise.as_ref().expect("it was told where it begins");
        assert_eq!(promise.received, (0..30).map(|number| 2 * number).collect::<Vec<_>>());
    }
    assert_eq!(world.engine().stats().deliveries, 90);
}

/// A snapshot for newcomers alone that left the log made who stood before it too slow for the channel, though nothing that
/// was for it was gone.
#[test]
fn a_snapshot_that_leaves_the_log_overtakes_nobody_whom_it_is_not_for() {
    let mut world = world(ChannelSettings { policy: Policy::Every, backlog_frames: 4, ..ChannelSettings::default() });
    let first = join(&mut world, live());
    world.set_room(first, 0);
    put(&mut world, 0, Kind::Snapshot);
    (1..=4).for_each(|key| put(&mut world, key, Kind::Plain));
    world.make_room(first, ALL);
    world.settle();
    assert!(!world.clients[first].is_ending());
    assert_eq!(received(&mut world, first), [1, 2, 3, 4]);
}

/// Who replays a channel of `latest` and stood before such a snapshot went past what was replaced since, though the log had
/// it all.
#[test]
fn a_snapshot_that_leaves_the_log_conflates_for_nobody_who_replays() {
    let mut world = latest(4);
    put(&mut world, 7, Kind::Plain);
    let first = world.connect(0, Wire::Raw, ALL, &[], live());
    world.settle();
    world.set_room(first, 0);
    let origin =
        Origin { since: Some(Position { epoch: world.press.lists.borrow()[0].life().0, offset: 1 }), start: None };
    put(&mut world, 0, Kind::Snapshot);
    (0..3).for_each(|_| put(&mut world, 1, Kind::Plain));
    world.subscribe(first, 0, origin);
    world.settle();
    put(&mut world, 1, Kind::Plain);
    world.make_room(first, ALL);
    world.settle();
    assert_eq!(received(&mut world, first), [2, 3, 4, 5]);
}

/// A client whose socket is full is to begin at a keyframe, and the time of that is over before it can be written.
fn with_an_expired_keyframe(settings: ChannelSettings) -> (World, usize) {
    let mut world = world(settings);
    let first = world.connect(0, Wire::Raw, ALL, &[], live());
    world.settle();
    world.set_room(first, 0);
    world.publish(0, &New { kind: Kind::Keyframe, ttl_ns: Some(5 * MS), ..New::plain(0) });
    put(&mut world, 1, Kind::Plain);
    world.subscribe(first, 0, at_keyframe());
    world.settle();
    world.pass(10);
    world.make_room(first, ALL);
    world.settle();
    assert!(received(&mut world, first).is_empty(), "what followed changes a state that it has not got");
    (world, first)
}

/// It went on behind the keyframe without a state.
#[test]
fn who_was_to_begin_at_a_keyframe_that_expires_waits_for_the_next() {
    for policy in [Policy::Every, Policy::Keyframe, Policy::Drop] {
        let (mut world, first) = with_an_expired_keyframe(ChannelSettings { policy, ..ChannelSettings::default() });
        put(&mut world, 2, Kind::Plain);
        put(&mut world, 3, Kind::Keyframe);
        put(&mut world, 4, Kind::Plain);
        assert_eq!(received(&mut world, first), [3, 4], "{policy:?}");
        world.catch_up();
    }
}

/// Where a newer one lives it goes on there, and where the application gives some it is asked.
#[test]
fn who_waits_for_an_expired_keyframe_gets_what_there_is() {
    for policy in Policy::ALL {
        let snapshot_interval = Some(std::time::Duration::ZERO);
        let settings = ChannelSettings { policy, snapshot_interval, ..ChannelSettings::default() };
        let (mut world, first) = with_an_expired_keyframe(settings);
        assert!(world.press.lists.borrow()[0].is_snapshot_asked, "{policy:?}");
        put(&mut world, 2, Kind::Snapshot);
        put(&mut world, 3, Kind::Plain);
        assert_eq!(received(&mut world, first), [2, 3], "{policy:?}");
        let (mut world, first) = with_an_expired_keyframe(settings);
        world.give_up(0);
        put(&mut world, 2, Kind::Plain);
        let all: &[usize] = if policy == Policy::Latest { &[2] } else { &[1, 2] };
        assert_eq!(received(&mut world, first), all, "{policy:?}: there is none, and what came behind it is not lost");
    }
}

/// Publishes where a position from outside says.
fn put_at(world: &mut World, key: u8, kind: Kind, at: Position) {
    world.publish(0, &New { kind, at: Some(at), ..New::plain(key) });
    world.settle();
}

/// Behind so many of those that are missing, in the life that the channel is in.
fn further(world: &World, missing: u64) -> Position {
    let Position { epoch, offset } = world.press.lists.borrow()[0].position();
    Position { epoch, offset: offset + 1 + missing }
}

fn skipped(world: &World, policy: Policy) -> u64 {
    world.engine().stats().skipped[policy as usize]
}

/// A client that has the first publication, and the next one stands behind two that are missing.
fn with_a_gap(policy: Policy) -> (World, usize) {
    let mut world = world(ChannelSettings { policy, history_frames: 10, ..ChannelSettings::default() });
    let first = join(&mut world, live());
    put(&mut world, 0, Kind::Plain);
    let at = further(&world, 2);
    put_at(&mut world, 1, Kind::Plain, at);
    (world, first)
}

#[test]
fn a_gap_is_something_missed_of_which_the_policy_says_what_becomes() {
    let (mut world, first) = with_a_gap(Policy::Every);
    assert!(world.clients[first].is_ending(), "1013");
    assert_eq!(received(&mut world, first), [0]);
    for policy in [Policy::Latest, Policy::Drop] {
        let (mut world, first) = with_a_gap(policy);
        put(&mut world, 2, Kind::Plain);
        assert_eq!(received(&mut world, first), [0, 1, 2], "{policy:?}");
        assert_eq!(skipped(&world, policy), 2, "{policy:?}: they are counted");
    }
    let (mut world, first) = with_a_gap(Policy::Keyframe);
    put(&mut world, 2, Kind::Keyframe);
    put(&mut world, 3, Kind::Plain);
    assert_eq!(received(&mut world, first), [0, 2, 3]);
    assert_eq!(skipped(&world, Policy::Keyframe), 3, "and the one before the keyframe");
}

/// Who lags gets what was there before the gap first.
#[test]
fn who_comes_to_a_gap_late_is_dealt_with_when_it_is_there() {
    for (policy, all) in
        [(Policy::Every, vec![0, 1]), (Policy::Keyframe, vec![0, 1, 3]), (Policy::Drop, vec![0, 1, 2, 3])]
    {
        let mut world = world(ChannelSettings { policy, ..ChannelSettings::default() });
        let first = join(&mut world, live());
        world.set_room(first, 0);
        put(&mut world, 0, Kind::Plain);
        put(&mut world, 0, Kind::Plain);
        let at = further(&world, 7);
        put_at(&mut world, 1, Kind::Plain, at);
        put(&mut world, 1, Kind::Keyframe);
        world.make_room(first, ALL);
        world.settle();
        assert_eq!(received(&mut world, first), all, "{policy:?}");
        assert_eq!(world.clients[first].is_ending(), policy == Policy::Every);
    }
}

/// Whatever the policy is: `recovered` says whether anything is missing, and its promise is checked.
#[test]
fn who_returns_from_before_a_gap_is_not_recovered() {
    for policy in Policy::ALL {
        let (mut world, _) = with_a_gap(policy);
        let epoch = world.press.lists.borrow()[0].life().0;
        for (offset, is_recovered) in [(0, false), (1, false), (2, false), (3, true), (4, true)] {
            let since = Some(Position { epoch, offset });
            let back = join(&mut world, Origin { since, start: Some(Start::Live) });
            put(&mut world, 5, Kind::Plain);
            let got = received(&mut world, back);
            let newest = world.press.lists.borrow()[0].all.len() - 1;
            assert!(got.contains(&newest));
            assert_eq!(got.contains(&1), is_recovered && offset == 3, "{policy:?} {offset}");
        }
        let oldest = join(&mut world, Origin { since: None, start: Some(Start::History) });
        let got = received(&mut world, oldest);
        assert_eq!(got.contains(&0), policy == Policy::Latest, "{policy:?}: a newcomer misses nothing");
        assert!(got.contains(&1));
    }
}

#[test]
fn what_stands_at_or_before_the_head_is_a_duplicate() {
    let mut world = world(ChannelSettings { policy: Policy::Drop, ..ChannelSettings::default() });
    let first = join(&mut world, live());
    put_at(&mut world, 0, Kind::Plain, Position { epoch: 7, offset: 500 });
    assert_eq!((received(&mut world, first), skipped(&world, Policy::Drop)), (vec![0], 0), "the first misses nothing");
    for (epoch, offset) in [(7, 500), (7, 1), (6, 900)] {
        put_at(&mut world, 0, Kind::Plain, Position { epoch, offset });
    }
    put_at(&mut world, 0, Kind::Plain, Position { epoch: 7, offset: 501 });
    put_at(&mut world, 0, Kind::Plain, Position { epoch: 8, offset: 1 });
    put(&mut world, 0, Kind::Plain);
    assert_eq!(received(&mut world, first), [0, 1, 2, 3]);
    assert_eq!(world.press.lists.borrow()[0].position(), Position { epoch: 8, offset: 2 });
    for (epoch, offset) in [(0, 1), (9, 0), (9, 1 << 53), (1 << 53, 1)] {
        let (one, stand) = (Publication::new(Payload::Text("x")), Stand::At(Position { epoch, offset }));
        let refused = world.engine().publish_at(Audience::Channel("c0"), &one, stand, false);
        assert!(matches!(refused, Err(EngineError::InvalidPosition { .. })), "{epoch}-{offset}");
    }
}

/// An epoch from outside may be smaller than the channel's own. Then the own one came again as a new life, in which who
/// came back with a position of the first was told that it had missed nothing.
#[test]
fn the_epoch_that_a_channel_began_with_does_not_come_again() {
    let mut world = world(ChannelSettings { policy: Policy::Drop, history_frames: 10, ..ChannelSettings::default() });
    put(&mut world, 0, Kind::Plain);
    let own = world.press.lists.borrow()[0].position();
    put_at(&mut world, 1, Kind::Plain, Position { epoch: own.epoch - 1, offset: 1 });
    let again = Position { epoch: own.epoch, offset: 2 };
    let stand = Stand::At(again);
    let one = Publication::new(Payload::Text("x"));
    let refused = world.engine().publish_at(Audience::Channel("c0"), &one, stand, false);
    let why = "the channel began with this epoch, and another has followed";
    assert_eq!(refused.expect_err("it is refused").to_string(), format!("position {again}: {why}"));
    put_at(&mut world, 1, Kind::Plain, again); // and what was published is as it was
    put_at(&mut world, 2, Kind::Plain, Position { epoch: own.epoch - 1, offset: 2 });
    let back = join(&mut world, Origin { since: Some(own), start: Some(Start::Live) });
    assert_eq!(received(&mut world, back), [0; 0], "it is not recovered");
    put_at(&mut world, 3, Kind::Plain, Position { epoch: own.epoch + 1, offset: 1 });
    assert_eq!(received(&mut world, back), [3]);
}

/// Who waits for a keyframe that nobody gives begins where it waited, as far as the backlog holds that: in a channel of
/// `every`, too, what is missing there is behind it. Only from there on it would be closed.
#[test]
fn who_waits_in_vain_begins_behind_what_the_backlog_has_lost() {
    let snapshot_interval = Some(std::time::Duration::ZERO);
    let (backlog_frames, policy) = (4, Policy::Every);
    let mut world = world(ChannelSettings { policy, backlog_frames, snapshot_interval, ..ChannelSettings::default() });
    let first = join(&mut world, Origin { since: None, start: Some(Start::Keyframe) });
    let at = further(&world, 3);
    put(&mut world, 0, Kind::Plain);
    put_at(&mut world, 1, Kind::Plain, Position { offset: at.offset + 1, ..at });
    (0..8).for_each(|key| world.publish(0, &New::plain(key)));
    world.give_up(0);
    world.settle();
    put(&mut world, 0, Kind::Plain);
    assert_eq!(received(&mut world, first), [10]);
    assert!(!world.clients[first].is_ending());
    let at = further(&world, 1);
    put_at(&mut world, 1, Kind::Plain, at);
    assert!(world.clients[first].is_ending(), "1013");
    assert_eq!(received(&mut world, first), [10]);
}

/// While the backlog holds what is before it, that comes, and then the client is closed as any other.
#[test]
fn who_waits_in_vain_before_what_is_missing_comes_to_it() {
    let snapshot_interval = Some(std::time::Duration::ZERO);
    let mut world = world(ChannelSettings { policy: Policy::Every, snapshot_interval, ..ChannelSettings::default() });
    let first = join(&mut world, Origin { since: None, start: Some(Start::Keyframe) });
    put(&mut world, 0, Kind::Plain);
    let at = further(&world, 3);
    put_at(&mut world, 1, Kind::Plain, at);
    assert!(!world.clients[first].is_ending(), "it waits, and a keyframe would make it whole");
    world.give_up(0);
    world.settle();
    assert_eq!(received(&mut world, first), [0]);
    assert!(world.clients[first].is_ending(), "1013");
}

/// The log keeps no keyframe that something is missing behind: nobody who comes begins there. Of policy `latest` goes on who
/// was about to.
#[test]
fn a_keyframe_before_what_is_missing_is_let_go_of() {
    let backlog_age = std::time::Duration::from_millis(1);
    let settings = ChannelSettings { policy: Policy::Latest, backlog_age, ..ChannelSettings::default() };
    let mut world = world(settings);
    put(&mut world, 0, Kind::Plain);
    let first = world.connect(0, Wire::Raw, ALL, &[], live());
    world.settle();
    put(&mut world, 1, Kind::Snapshot);
    world.set_room(first, 0);
    world.subscribe(first, 0, Origin { since: None, start: Some(Start::Keyframe) });
    world.settle();
    let at = further(&world, 3);
    put_at(&mut world, 2, Kind::Plain, at);
    world.pass(3);
    put(&mut world, 3, Kind::Plain);
    world.make_room(first, ALL);
    world.settle();
    assert_eq!(received(&mut world, first), [2, 3]);
}

/// What is kept is of the life that is over, and its positions are those of another channel.
#[test]
fn an_epoch_from_outside_begins_anew() {
    for policy in Policy::ALL {
        let mut world = world(ChannelSettings { policy, history_frames: 10, ..ChannelSettings::default() });
        let watcher = join(&mut world, live());
        put(&mut world, 0, Kind::Keyframe);
        let before = world.press.lists.borrow()[0].position();
        put_at(&mut world, 1, Kind::Plain, Position { epoch: before.epoch + 1, offset: 1 });
        let all: &[usize] = if matches!(policy, Policy::Latest | Policy::Drop) { &[0, 1] } else { &[0] };
        assert_eq!(received(&mut world, watcher), all, "{policy:?}");
        for (since, start) in [(Some(before), Start::History), (None, Start::History), (None, Start::Keyframe)] {
            let back = join(&mut world, Origin { since, start: Some(start) });
            let all: &[usize] = if start == Start::History { &[1] } else { &[] };
            assert_eq!(received(&mut world, back), all, "{policy:?} {start:?}");
        }
    }
}
