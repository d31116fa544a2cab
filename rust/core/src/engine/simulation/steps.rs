//! What happens, by a seed.
use std::time::Duration;

use super::frameworks;
use super::list::Kind;
use super::press::New;
use super::sieve::{Sieve, TAGS};
use super::wire::{self, Wire};
use super::world::{ALL, MS, World};
use crate::channel::{Pattern, Policy, Start};
use crate::messages::ConnectionId;
use crate::position::Position;
use crate::protocol::Payload;
use crate::routes::Asks;
use crate::settings::{ChannelRule, ChannelSettings, Settings};
use crate::shard::simulated::Luck;

/// What WebSockets may offer; nothing, too.
const OFFERS: [&str; 6] = [
    "",
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits",
    "permessage-deflate; server_max_window_bits=12",
    "permessage-deflate; server_max_window_bits=9",
    "permessage-deflate; server_no_context_takeover; server_max_window_bits=10",
];

const CLIENTS_MAX: usize = 10;

/// An age that is over at no whole millisecond, as time is whole between two turns.
fn age(ms: usize) -> Duration {
    Duration::from_millis(ms as u64) + Duration::from_micros(500)
}

fn channel_settings(luck: &mut Luck) -> ChannelSettings {
    let wide = ChannelSettings::default();
    ChannelSettings {
        policy: luck.pick(&Policy::ALL),
        backlog_bytes: if luck.once_in(2) { 1 << 20 } else { 400 + luck.below(20_000) as u64 },
        backlog_frames: if luck.once_in(2) { 16_384 } else { 2 + luck.below(38) },
        backlog_age: if luck.once_in(4) { age(5 + luck.below(35)) } else { Duration::MAX },
        history_frames: if luck.once_in(2) { 0 } else { 1 + luck.below(24) },
        history_age: if luck.once_in(3) { age(5 + luck.below(55)) } else { wide.history_age },
        history_bytes: if luck.once_in(3) { 400 + luck.below(20_000) as u64 } else { wide.history_bytes },
        start: luck.pick(&Start::ALL),
        compression: !luck.once_in(4),
        compression_readers: 1 + luck.below(2),
        filters_max: wide.filters_max,
        snapshot_interval: luck.once_in(4).then(|| age(luck.below(40))),
        tells_presence: luck.once_in(3),
    }
}

fn world(seed: u64, luck: &mut Luck) -> (World, usize) {
    let channels = 1 + luck.below(4);
    let rule = |index: usize| ChannelRule {
        pattern: Pattern::new(&format!("c{index}")).expect("a pattern"),
        settings: channel_settings(luck),
    };
    let rules = (0..channels).map(rule).collect();
    let is_hasty = luck.once_in(6); // pings and their timeouts come within the test's time
    let shards = 1 + luck.below(3);
    let asks = Asks { opening: luck.once_in(2), subscribing: luck.once_in(2), messages: true, ..Asks::default() };
    let settings = Settings {
        shards,
        channels: rules,
        channels_max: 64,
        ping_interval: Duration::from_millis(if is_hasty { 300 } else { 25_000 }),
        ping_timeout: Duration::from_millis(if is_hasty { 300 } else { 20_000 }),
        close_timeout: Duration::from_millis(if is_hasty { 200 } else { 5_000 }),
        ..Settings::default()
    };
    let mut world = World::new(seed, settings, asks, channels, luck.once_in(2));
    world.comes_from_outside = luck.once_in(3);
    let mut net = world.net.borrow_mut();
    net.drifts = luck.once_in(3);
    net.breaks_once_in = if luck.once_in(4) { 40 } else { 0 };
    drop(net);
    (world, channels)
}

/// One seed, from the first step to the end of everything.
pub(super) fn run(seed: u64) {
    let mut luck = Luck(seed);
    let (mut world, channels) = world(luck.next(), &mut luck);
    let (is_busy, steps, adopts) = (luck.once_in(3), 40 + luck.below(160), luck.once_in(2));
    for _ in 0..steps {
        let is_calm = world.is_calm();
        world.net.borrow_mut().is_busy = is_busy && is_calm;
        if adopts && luck.once_in(3) {
            frameworks::step(&mut world, channels, &mut luck);
        } else {
            step(&mut world, channels, &mut luck);
        }
    }
    let mut net = world.net.borrow_mut();
    (net.is_busy, net.drifts, net.breaks_once_in) = (false, false, 0);
    drop(net);
    match luck.below(if adopts { 6 } else { 1 }) {
        1 => return world.stop(),
        2 => world.drain(),
        _ => {}
    }
    world.check_end();
}

fn step(world: &mut World, channels: usize, luck: &mut Luck) {
    let (channel, client) = (luck.below(channels), luck.below(world.clients.len().max(1)));
    match luck.below(100) {
        0..28 => publish(world, channel, luck),
        28..56 => {
            let shard = luck.below(world.shards.len());
            world.turn(shard);
        }
        56..63 if world.clients.iter().filter(|client| !client.is_gone).count() < CLIENTS_MAX => {
            connect(world, channels, luck);
        }
        _ if world.clients.is_empty() => {}
        63..73 => {
            let bytes = if luck.once_in(3) { ALL } else { luck.below(2_000) };
            world.make_room(client, bytes);
        }
        73..78 => subscribe(world, client, channel, luck),
        78..81 => unsubscribe(world, client, channel, luck),
        81..85 => send(world, client, luck),
        85..88 => world.decide(),
        88..90 => world.answer(client),
        90 if luck.once_in(2) => end(world, client, luck),
        90 => burst(world, channel),
        91 => world.give_up(channel),
        92 => world.settle(),
        93 => track(world, channel),
        94..98 => world.pass(luck.below(15) as u64),
        98 if luck.once_in(4) => world.pass(100 + luck.below(300) as u64),
        _ => {}
    }
}

fn publish(world: &mut World, channel: usize, luck: &mut Luck) {
    for _ in 0..if luck.once_in(4) { 1 + luck.below(12) } else { 1 } {
        let kind = match luck.below(17) {
            0..14 => Kind::Plain,
            14..16 => Kind::Keyframe,
            _ => Kind::Snapshot,
        };
        let key = match luck.below(11) {
            0..2 => None,
            2..8 => Some(luck.below(4) as u8),
            _ => Some(4 + luck.below(56) as u8),
        };
        // Who has a keyframe of its own goes on behind it: that is not looked at here.
        let excluded: Vec<ConnectionId> = if kind == Kind::Plain && luck.once_in(10) {
            world.clients.iter().filter_map(|client| client.id).filter(|_| luck.once_in(3)).collect()
        } else {
            Vec::new()
        };
        let new = New {
            key,
            kind,
            ttl_ns: luck.once_in(9).then(|| (1 + luck.below(19)) as u64 * MS),
            bytes: if luck.once_in(7) { 1_000 + luck.below(4_000) } else { luck.below(200) },
            excluded,
            tag: if kind == Kind::Plain && !luck.once_in(5) { Some(luck.below(TAGS.into()) as u8) } else { None },
            at: if world.comes_from_outside && luck.once_in(4) { Some(place(world, channel, luck)) } else { None },
        };
        world.press.publish(channel, &new, luck.once_in(4));
        if luck.once_in(3) {
            world.engine().flush();
        }
    }
}

/// A position from outside: the next one, one further on, one that is there, or one of another life.
fn place(world: &World, channel: usize, luck: &mut Luck) -> Position {
    let Position { epoch, offset } = world.press.lists.borrow()[channel].position();
    match luck.below(10) {
        0..4 => Position { epoch, offset: offset + 1 },
        4..7 => Position { epoch, offset: offset + 2 + luck.below(5) as u64 },
        7 => Position { epoch, offset: offset.saturating_sub(luck.below(4) as u64).max(1) },
        8 => Position { epoch: epoch - 1, offset: 1 + luck.below(30) as u64 },
        _ => Position { epoch: epoch + 1 + luck.below(3) as u64, offset: 1 + luck.below(5) as u64 },
    }
}

/// More pieces than one read of a log gives: every other publication is for newcomers alone.
fn burst(world: &mut World, channel: usize) {
    for _ in 0..40 {
        world.publish(channel, &New::plain(0));
        world.publish(channel, &New { kind: Kind::Snapshot, ..New::plain(0) });
    }
}

fn connect(world: &mut World, channels: usize, luck: &mut Luck) {
    let wire = luck.pick(&Wire::ALL);
    world.offer = luck.pick(&OFFERS);
    let room = if luck.once_in(2) { ALL } else { luck.below(3_000) };
    let mut asked: Vec<usize> = (0..channels).filter(|_| luck.once_in(2)).collect();
    if wire == Wire::Hub {
        asked.clear();
    }
    let origin = world.origin(asked.first().copied().unwrap_or(0), luck);
    let shard = luck.below(world.shards.len());
    world.sieve = Sieve::pick(luck);
    world.connect(shard, wire, room, &asked, origin);
    if luck.once_in(2) {
        world.net.borrow_mut().is_busy = false;
        world.turn(shard);
    }
}

fn subscribe(world: &mut World, index: usize, channel: usize, luck: &mut Luck) {
    let client = &mut world.clients[index];
    if client.hold.is_some() {
        return;
    }
    let is_busy = client.is_gone || client.is_ending() || client.is_cut() || !client.is_ready || client.id.is_none();
    if is_busy || client.may_end || client.account(channel).is_some() || client.is_asking(channel) {
        return;
    }
    if matches!(client.wire, Wire::Sse | Wire::Hub) || luck.once_in(4) {
        return world.subscribe_by_application(index, channel);
    }
    let origin = world.origin(channel, luck);
    world.subscribe(index, channel, origin);
}

fn unsubscribe(world: &mut World, index: usize, channel: usize, luck: &mut Luck) {
    let client = &mut world.clients[index];
    if client.hold.is_some() {
        return;
    }
    let may_leave = client.account(channel).is_some_and(|one| one.promise.is_some() && !one.is_leaving);
    if client.is_gone || client.is_ending() || !may_leave {
        return;
    }
    client.account(channel).expect("looked up above").is_leaving = true;
    if matches!(client.wire, Wire::Sse | Wire::Hub) || luck.once_in(2) {
        return world.unsubscribe(index, channel);
    }
    let name = world.press.lists.borrow()[channel].name.clone();
    let request = serde_json::json!({ "unsubscribe": [name], "id": "u" });
    world.arrive(index, &wire::frame(1, request.to_string().as_bytes()));
}

fn send(world: &mut World, index: usize, luck: &mut Luck) {
    let client = &mut world.clients[index];
    let Some(id) = client.id.filter(|_| client.is_ready && !client.is_gone && !client.is_ending()) else { return };
    if client.hold.is_some() {
        return world
            .engine()
            .send(id, &Payload::Text("what is adopted is sent to by its framework"), None)
            .expect("it runs");
    }
    let text = format!("p|{}|{}", client.privates_sent, "x".repeat(luck.below(100)));
    client.privates_sent += 1;
    world.engine().send(id, &Payload::Text(&text), None).expect("it runs");
}

fn end(world: &mut World, index: usize, luck: &mut Luck) {
    let client = &mut world.clients[index];
    if client.is_gone {
        return;
    }
    client.may_end = true;
    match luck.below(4) {
        0 => world.end(index, true),
        1 => world.end(index, false),
        2 if client.is_open && matches!(client.wire, Wire::Raw | Wire::Envelope) => {
            world.arrive(index, &wire::frame(8, &1_000_u16.to_be_bytes()));
        }
        _ => {
            if let Some(id) = client.id {
                world.engine().disconnect(id, 4_000, "go").expect("a good code");
            }
        }
    }
}

fn track(world: &mut World, channel: usize) {
    let position = { world.press.lists.borrow()[channel].position() };
    if position.offset > 0 {
        world.engine().track(position).expect("it was published");
    }
}
