//! Faults that these properties, or a close look, have found: each test says what happened, and claims that it no longer
//! does.
use super::list::Kind;
use super::shard::{ALL, NOTHING, New, World};
use crate::channel::{Origin, Policy, Start};
use crate::position::Position;
use crate::protocol::Format;
use crate::settings::ChannelSettings;

fn latest(backlog_frames: usize) -> World {
    World::new(ChannelSettings { policy: Policy::Latest, backlog_frames, ..ChannelSettings::default() })
}

fn live() -> Origin {
    Origin { since: None, start: Some(Start::Live) }
}

fn put(world: &mut World, key: u8, kind: Kind, luck: u64) {
    world.publish(New { key: Some(key), kind, ttl_ns: None, bytes: 10 });
    world.fan_out_all(luck);
}

/// What had left the log for a laggard was let go after what followed it in the log, and moved the mark back that says
/// from where on everything newest is here. Who returned then missed a newest one, and was told that it was recovered.
#[test]
fn the_mark_of_what_is_lost_never_moves_back() {
    let mut world = latest(4);
    world.ask(Format::Raw, 0, live());
    world.begin(ALL);
    (0..6).for_each(|key| put(&mut world, key, Kind::Plain, NOTHING));
    world.pump(0, ALL, 0);
    (6..8).for_each(|key| put(&mut world, key, Kind::Plain, ALL));
    for offset in 0..8 {
        let since = Some(Position { epoch: 7, offset });
        world.ask(Format::Raw, 0, Origin { since, start: Some(Start::Live) });
        world.begin(ALL); // its promise is checked
    }
    world.catch_up();
}

/// What was replaced counted against the bound of what is kept of a key, so that a value that seldom changes was lost for
/// others that often do, and the laggard was closed.
#[test]
fn a_value_that_seldom_changes_is_not_lost_for_those_that_often_do() {
    let mut world = latest(10);
    world.ask(Format::Raw, 0, live());
    world.begin(ALL);
    put(&mut world, 99, Kind::Plain, NOTHING);
    (0..400).for_each(|number| put(&mut world, (number % 12) as u8, Kind::Plain, NOTHING));
    world.catch_up();
    assert_eq!(world.closed, 0);
    let received = &world.subscribers[0].promise.received;
    assert_eq!(*received, std::iter::once(0).chain(389..=400).collect::<Vec<_>>());
}

/// A newcomer's socket was full, and the snapshot that it was to begin with left the log. It went on without it.
#[test]
fn a_newcomer_whose_snapshot_is_gone_goes_on_at_the_next_one() {
    let mut world = latest(4);
    world.ask(Format::Raw, 0, live());
    world.begin(ALL);
    put(&mut world, 0, Kind::Snapshot, ALL);
    world.ask(Format::Raw, 0, Origin { since: None, start: Some(Start::Keyframe) });
    world.begin(NOTHING);
    (0..8).for_each(|_| put(&mut world, 1, Kind::Plain, ALL));
    put(&mut world, 0, Kind::Snapshot, ALL);
    put(&mut world, 1, Kind::Plain, ALL);
    world.catch_up();
    assert_eq!(world.subscribers[1].promise.received, [9, 10]);
}

/// A snapshot has the number of the publication before it, and was taken for that when somebody asked how far it had come.
#[test]
fn a_publication_ends_before_the_snapshot_behind_it() {
    let mut world = World::new(ChannelSettings::default());
    world.ask(Format::Raw, 0, live());
    world.begin(ALL);
    let end_of = |world: &World| world.channel.watches_of(1).expect("it was published")[0].0;
    world.publish(New { key: None, kind: Kind::Plain, ttl_ns: None, bytes: 10 });
    let end = end_of(&world);
    assert_eq!(end, world.channel.tail(Format::Raw));
    world.publish(New { key: None, kind: Kind::Snapshot, ttl_ns: None, bytes: 10 });
    assert_eq!(end_of(&world), end);
}
