//! Faults of adopted connections that the simulation has found: each test says what happened, and claims that it no longer does.
use std::time::Duration;

use super::framework::{Part, frame};
use super::list::Kind;
use super::press::New;
use super::world::{ALL, World};
use crate::channel::{Origin, Pattern, Policy, Start};
use crate::position::Position;
use crate::routes::Asks;
use crate::settings::{ChannelRule, ChannelSettings, Settings};
use crate::shard::simulated::Luck;

/// One shard with a channel, and a framework whose socket is adopted and takes so much.
fn world(settings: ChannelSettings, room: usize) -> World {
    let rule = ChannelRule { pattern: Pattern::new("c0").expect("a pattern"), settings };
    let settings = Settings { channels: vec![rule], channels_max: 64, ..Settings::default() };
    let mut world = World::new(1, settings, Asks::default(), 1, false);
    world.net.borrow_mut().is_exact = true;
    let at = world.welcome_framework(room);
    world.adopt(at, &mut Luck(1));
    world
}

/// The same, which the engine has begun to write to, and which watches the channel.
fn begun(settings: ChannelSettings, start: Start) -> World {
    let mut world = world(settings, ALL);
    world.begin_adopted(0);
    world.subscribe_adopted(0, 0, Origin { since: None, start: Some(start) });
    world.settle();
    world
}

fn bounded(policy: Policy) -> ChannelSettings {
    ChannelSettings { policy, backlog_frames: 4, ..ChannelSettings::default() }
}

/// A message of the framework as it stands in a frame, cut behind so many bytes.
fn write_cut(world: &mut World, at: usize) -> Part {
    let number = world.frameworks[0].next_message();
    let mut bytes = frame(0x81, format!("p|{number}|xxxxx").as_bytes());
    let rest = bytes.split_off(at);
    world.write(0, Part { bytes, begins: 1, is_mid_message: true, is_mid_frame: true }, false);
    Part { bytes: rest, begins: 0, is_mid_message: false, is_mid_frame: false }
}

fn write_whole(world: &mut World) {
    let number = world.frameworks[0].next_message();
    let bytes = frame(0x81, format!("p|{number}|xxxxx").as_bytes());
    world.write(0, Part { bytes, begins: 1, is_mid_message: false, is_mid_frame: false }, false);
}

fn put(world: &mut World, kind: Kind) {
    world.publish(0, &New { kind, ..New::plain(0) });
}

fn received(world: &World) -> Vec<usize> {
    world.clients[0].accounts[0].promise.as_ref().expect("it has begun").received.clone()
}

/// Who waits for a keyframe is told that there is none. A framework's client got that, too, in the midst of a message.
#[test]
fn what_an_engine_says_of_keyframes_is_not_said_to_a_frameworks_client() {
    let snapshot_interval = Some(std::time::Duration::ZERO);
    let mut world = begun(ChannelSettings { snapshot_interval, ..ChannelSettings::default() }, Start::Keyframe);
    let rest = write_cut(&mut world, 5);
    put(&mut world, Kind::Plain);
    world.settle();
    world.give_up(0);
    world.settle();
    world.write(0, rest, false);
    world.settle();
    assert_eq!(received(&world), [0], "it begins where it waited");
    world.check_end();
}

/// What the application sends by the id of an adopted connection stood in the midst of the framework's message.
#[test]
fn what_is_sent_by_the_id_of_an_adopted_connection_goes_nowhere() {
    let mut world = begun(ChannelSettings::default(), Start::Live);
    let rest = write_cut(&mut world, 5);
    world.settle();
    let id = world.clients[0].id.expect("it is adopted");
    world.engine().reply(id, "an answer to nobody").expect("it runs");
    world.settle();
    world.write(0, rest, false);
    world.settle();
    world.check_end();
}

/// One that was released before its framework's own bytes were out lost what had been published in its channels by then.
#[test]
fn one_that_is_released_before_it_begins_gets_what_was_published_until_then() {
    let mut world = world(ChannelSettings::default(), ALL);
    world.subscribe_adopted(0, 0, Origin { since: None, start: Some(Start::Live) });
    put(&mut world, Kind::Plain);
    world.settle();
    world.release_adopted(0);
    put(&mut world, Kind::Plain);
    world.settle();
    assert!(world.clients[0].is_held(), "the framework's own bytes come first");
    world.begin_adopted(0);
    world.settle();
    assert!(!world.clients[0].is_held());
    assert_eq!(received(&world), [0]);
    world.check_end();
}

/// A channel that is left in the midst of a message waits for its end, which never comes once the connection is released: it
/// was never told of.
#[test]
fn one_that_is_released_in_the_midst_of_a_message_in_which_it_left_a_channel_is_given_up() {
    let mut world = begun(ChannelSettings::default(), Start::Live);
    let rest = write_cut(&mut world, 5);
    world.settle();
    world.unsubscribe_adopted(0, 0);
    world.settle();
    world.release_adopted(0);
    world.settle();
    assert!(!world.clients[0].is_held());
    world.write(0, rest, false); // which the framework writes itself
    world.check_end();
}

/// One that waited for a keyframe had it behind a message that was asked for after that was published, as its shard had not
/// come there.
#[test]
fn a_keyframe_comes_before_what_was_asked_for_after_it_was_published() {
    let mut world = begun(ChannelSettings { policy: Policy::Keyframe, ..ChannelSettings::default() }, Start::Live);
    put(&mut world, Kind::Plain);
    world.settle();
    let Position { epoch, offset } = world.press.lists.borrow()[0].position();
    let at = Some(Position { epoch, offset: offset + 3 }); // what is missing before it overtakes everyone
    world.publish(0, &New { kind: Kind::Keyframe, at, ..New::plain(0) });
    write_whole(&mut world);
    world.settle();
    assert_eq!(received(&world), [0, 1]);
    world.check_end();
}

/// The rest of a frame that was asked for stood in its shard's mailbox when the policy closed the connection: the client got a
/// part of a frame, and no Close frame.
#[test]
fn a_policy_closes_behind_a_frame_whose_rest_is_on_its_way() {
    let mut world = begun(bounded(Policy::Every), Start::Live);
    let rest = write_cut(&mut world, 5);
    put(&mut world, Kind::Plain);
    world.settle();
    (0..9).for_each(|_| put(&mut world, Kind::Plain));
    world.write(0, rest, false);
    world.settle();
    assert!(world.clients[0].hold().has_closed(), "1013");
    assert!(!world.clients[0].is_cut());
    world.check_end();
}

/// The policy closed it while a channel was joined again, in the midst of what its shard wrote to it: of the Close frame the
/// socket took a part, and the rest was lost.
#[test]
fn a_close_frame_that_a_full_socket_cuts_goes_on_when_it_was_decided_on_in_the_midst_of_a_write() {
    let mut world = begun(bounded(Policy::Every), Start::Live);
    world.set_room(0, 0);
    write_whole(&mut world);
    world.unsubscribe_adopted(0, 0);
    world.subscribe_adopted(0, 0, Origin { since: None, start: Some(Start::Live) });
    world.settle();
    put(&mut world, Kind::Plain);
    let Position { epoch, offset } = world.press.lists.borrow()[0].position();
    let at = Some(Position { epoch, offset: offset + 3 });
    world.publish(0, &New { at, ..New::plain(0) });
    world.settle();
    world.make_room(0, 40);
    world.settle();
    assert!(world.clients[0].is_held() && world.clients[0].is_ending() && world.clients[0].is_cut());
    world.make_room(0, ALL);
    world.settle();
    assert!(world.clients[0].hold().has_closed() && !world.clients[0].is_cut());
    world.check_end();
}

/// The framework's own Close frame was with the socket in part when the policy closed the connection: its rest was lost.
#[test]
fn a_policy_lets_the_frameworks_close_frame_end() {
    let mut world = begun(bounded(Policy::Every), Start::Live);
    world.set_room(0, 5);
    world.write_close(0);
    world.settle();
    assert!(world.clients[0].is_cut());
    put(&mut world, Kind::Plain);
    world.settle();
    (0..9).for_each(|_| put(&mut world, Kind::Plain));
    world.settle();
    world.make_room(0, ALL);
    world.settle();
    assert!(world.clients[0].hold().has_closed() && !world.clients[0].is_cut());
    world.check_end();
}

/// A socket took a part of what many have written in one call. The rest went nowhere until something else was asked of the
/// connection: the kernel tells of room only whom it has refused, and nobody had asked it again.
#[test]
fn the_rest_of_what_many_write_in_one_call_goes_out_when_there_is_room() {
    let mut world = world(ChannelSettings::default(), ALL);
    world.begin_adopted(0);
    world.settle();
    world.set_room(0, 5);
    world.broadcast_adopted(&mut Luck(2));
    world.settle();
    assert!(world.clients[0].is_cut());
    world.make_room(0, ALL);
    world.settle();
    assert!(!world.clients[0].is_cut());
    world.check_end();
}

/// A channel was joined again behind a message that the socket did not take, and its shard had let go of it meanwhile. Its log
/// waited for that shard, and grew without a bound.
#[test]
fn a_log_does_not_wait_for_one_that_joins_behind_what_its_socket_does_not_take() {
    let mut world = begun(bounded(Policy::Drop), Start::Live);
    world.set_room(0, 0);
    write_whole(&mut world);
    world.unsubscribe_adopted(0, 0);
    write_whole(&mut world);
    world.subscribe_adopted(0, 0, Origin { since: None, start: Some(Start::Live) });
    world.settle();
    world.make_room(0, 11); // the first message
    world.settle();
    for _ in 0..20 {
        put(&mut world, Kind::Plain);
        world.settle();
    }
    world.engine().obtain("c0").expect("it exists").check_memory(true);
    world.make_room(0, ALL);
    world.settle();
    world.check_end();
}

/// The peer had ended its half, and what was written waited for the framework's own bytes. Then the framework was gone with its
/// handle, and nothing was asked any more of a connection that ended anyway: it stayed for ever, and a drain waited for it.
#[test]
fn one_that_ends_is_given_up_with_its_handle() {
    for is_drained in [false, true] {
        let mut world = world(ChannelSettings::default(), ALL);
        write_whole(&mut world);
        if is_drained {
            world.engine().drain(1_001, "it drains", Duration::ZERO).expect("it runs");
            world.clients[0].hold().may_drain = true;
        } else {
            world.end(0, false);
        }
        world.settle();
        assert!(!world.clients[0].is_gone);
        world.abort_adopted(0, true);
        world.settle();
        assert!(world.clients[0].is_gone && world.frameworks[0].chain.is_empty());
    }
}

/// One read of a log was not all that a turn had. Who kept pace, and had something asked of it in that turn, was read to its
/// end, and was taken for a laggard then: of the rest it got the newest of each key alone.
#[test]
fn one_that_keeps_pace_gets_every_publication_of_a_long_turn() {
    let mut world = begun(ChannelSettings { policy: Policy::Latest, ..ChannelSettings::default() }, Start::Live);
    for _ in 0..40 {
        put(&mut world, Kind::Plain);
        put(&mut world, Kind::Snapshot);
    }
    write_whole(&mut world);
    world.settle();
    assert_eq!(received(&world), (0..80).step_by(2).collect::<Vec<_>>());
    world.check_end();
}
