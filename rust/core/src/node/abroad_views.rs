//! What clients of several machines see while the engine loses, repeats, delays, restarts, forgets, and is replaced by a
//! replica that lags: that is what docs/promises.md says of machines.
use super::abroad_world::{Appended, Members, NODES, View, World};
use super::backbone::{Heard, OnDown};
use super::wire::{FromMember, Group};

/// What may happen in a world.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    can_forget: bool,
    can_lag: bool,
    can_restart: bool,
    /// What the engine sends is lost without anybody being told, or comes twice.
    can_slip: bool,
}

const NAMES: [&str; 2] = ["a", "b"];

/// A world in which all of that happens by chance, and is over at the end.
fn happen(seed: u64, history: usize, on_down: OnDown, faults: Faults) -> World {
    let mut world = World::with(seed, history, on_down);
    for _ in 0..40 {
        world.run(12, faults.can_forget);
        let node = world.chance(NODES as u64) as usize;
        match world.chance(8) {
            0 if faults.can_restart => world.replace(0),
            1 if faults.can_lag => {
                let lacking = world.chance(4) as usize;
                world.replace(lacking);
            }
            2 | 3 if faults.can_slip => world.nodes[node].lose_one(),
            4 | 5 if faults.can_slip => world.nodes[node].repeat_one(),
            _ => (),
        }
        let (peer, name) = (world.chance(2), NAMES[world.chance(2) as usize]);
        if world.nodes[node].members.waits_to_reach(peer, name) {
            world.nodes[node].say(peer, FromMember::Reach((Group::Channel, name)));
        }
    }
    world.mend_all();
    world.settle();
    for name in NAMES {
        world.publish(0, 0, name, &[]); // what was lost without a word is noticed with the next
        world.settle();
    }
    world
}

/// Each client's view, beside what was published.
fn check(world: &mut World, seed: u64) {
    for node in 0..NODES {
        for View { name, got, is_from_beginning, .. } in world.nodes[node].members.all_views() {
            let numbers: Vec<u64> =
                got.split(['<', '>']).filter(|one| !one.is_empty()).map(|one| one.parse().expect("a number")).collect();
            let truth = world.truth.get(&format!("c{name}")).map(Vec::as_slice).unwrap_or_default();
            let mut next = 0;
            let mut last_own = 0;
            for number in &numbers {
                let Some(at) = truth.iter().position(|one| one.number == *number) else {
                    // It was published while the engine was away.
                    assert_eq!(
                        world.published_at[*number as usize], node,
                        "seed {seed}: {number} is another machine's"
                    );
                    assert!(*number > last_own, "seed {seed}, node {node}, {name}: {number} in {numbers:?}");
                    last_own = *number;
                    continue;
                };
                assert!(
                    at >= next || next == 0,
                    "seed {seed}, node {node}, {name}: {number} comes again in {numbers:?}"
                );
                let is_first = next == 0;
                // Whoever was there before anything was has this life from its beginning.
                let is_due = |one: &&Appended| {
                    !one.is_lost && (!is_first || is_from_beginning && one.position.epoch == truth[at].position.epoch)
                };
                let missing = truth[next.min(at)..at].iter().find(is_due).map(|one| one.number);
                assert_eq!(missing, None, "seed {seed}, node {node}, {name}: before {number} in {numbers:?}");
                next = at + 1;
            }
        }
        let Some(members) = world.nodes.get(node).map(|node| &node.members) else { continue };
        assert_eq!(members.reaching(), 0, "seed {seed}, node {node}: everybody who waits is answered");
    }
}

#[test]
fn nobody_lacks_what_the_engine_has_and_is_not_told() {
    for seed in 0..300 {
        let bit = |which: u64| seed >> which & 1 == 1;
        let faults = Faults { can_forget: bit(0), can_lag: bit(1), can_restart: bit(2), can_slip: bit(3) };
        for on_down in [OnDown::Buffer, OnDown::Fail, OnDown::Local] {
            let history = [0, 3, 1_000][(seed % 3) as usize];
            let mut world = happen(seed, history, on_down, faults);
            check(&mut world, seed);
            let told: usize = world.nodes.iter().map(|node| node.members.told()).sum();
            assert_eq!(told as u64, world.published, "seed {seed}: each publication has one outcome");
        }
    }
}

/// It was taken for a gap, and clients of policy `every` were closed.
#[test]
fn a_server_that_starts_anew_and_has_lost_nothing_costs_no_client_anything() {
    let mut world = World::new(1, 10);
    world.nodes[0].say(0, FromMember::Want((Group::Channel, "a")));
    for _ in 0..3 {
        world.publish(1, 0, "a", &[]);
        world.settle();
        world.replace(0);
        world.mend_all();
    }
    world.publish(1, 0, "a", &[]);
    world.settle();
    assert!(world.top("ca").offset > 3 << 20);
    assert_eq!(world.nodes[0].members.all_views()[0].got, "<1><2><3><4>");
}

/// Where nothing had ever been published its clients began with what came first, whatever they had missed.
#[test]
fn what_is_missed_of_a_channel_that_was_empty_is_told() {
    for (history, closed, there) in [(0, 1, ""), (1, 1, "<3>"), (9, 0, "<1><2><3>")] {
        let mut world = World::new(1, history);
        world.nodes[0].say(0, FromMember::Want((Group::Channel, "a")));
        world.settle();
        world.cut(0);
        world.settle();
        world.publish(1, 0, "a", &[]);
        world.publish(1, 0, "a", &[]);
        world.settle();
        world.mend(0);
        world.settle();
        world.publish(1, 0, "a", &[]);
        world.settle();
        let views = world.nodes[0].members.all_views();
        assert_eq!(views.iter().filter(|view| view.is_closed).count(), closed, "history {history}: {views:?}");
        assert_eq!(views[0].got, there, "history {history}: {views:?}");
    }
}

#[test]
fn who_is_ahead_of_the_machine_has_the_engine_asked_once_at_a_time() {
    let mut world = World::new(1, 10);
    for peer in 0..2 {
        world.nodes[0].say(peer, FromMember::Want((Group::Channel, "a")));
    }
    world.settle();
    world.publish(1, 0, "a", &[]);
    while world.serve(1) {} // it is on its way to the first machine
    for peer in 0..2 {
        world.nodes[0].say(peer, FromMember::Reach((Group::Channel, "a")));
    }
    assert_eq!(world.nodes[0].asked(), 1, "one question, whoever waits");
    assert!(world.nodes[0].members.reached.is_empty());
    while world.serve(0) || world.deliver(0, 0) {}
    let members = &mut world.nodes[0].members;
    assert_eq!(members.reached, [(0, "a".to_owned()), (1, "a".to_owned())]);
    assert_eq!(members.all_views()[0].got, "<1>");
    // Out of reach nobody waits.
    world.nodes[0].say(0, FromMember::Reach((Group::Channel, "a")));
    world.cut(0);
    while world.deliver(0, 1) {}
    world.nodes[0].say(1, FromMember::Reach((Group::Channel, "a")));
    assert_eq!(world.nodes[0].members.reached.len(), 4);
}

#[test]
fn while_the_engine_is_away_publications_wait_fail_or_are_the_machines_own() {
    for (on_down, there, elsewhere) in [
        (OnDown::Buffer, "<1><2><3>", "<1><2><3>"),
        (OnDown::Fail, "<1><3>", "<1><3>"),
        (OnDown::Local, "<1><2><3>", "<1><3>"),
    ] {
        let mut world = World::with(1, 10, on_down);
        for node in 0..2 {
            world.nodes[node].say(0, FromMember::Want((Group::Channel, "a")));
        }
        world.settle();
        world.publish(0, 0, "a", &[]);
        world.settle();
        world.cut(0);
        world.settle();
        world.publish(0, 0, "a", &[]);
        let outcomes = world.nodes[0].members.outcomes[&0].clone();
        match on_down {
            OnDown::Buffer => assert_eq!(outcomes.len(), 1),
            OnDown::Fail => assert!(matches!(&outcomes[1], Err(why) if why.ends_with("it was not published: cut"))),
            OnDown::Local => assert!(matches!(outcomes[1], Ok(at) if at.epoch < 1 << 50 && at.offset == 1)),
        }
        world.mend(0);
        world.settle();
        world.publish(1, 0, "a", &[]);
        world.settle();
        let views: Vec<_> = (0..2).map(|node| world.nodes[node].members.all_views().remove(0).got).collect();
        assert_eq!(views, [there, elsewhere], "{on_down:?}");
        assert!(matches!(world.nodes[0].members.outcomes[&0].last(), Some(Ok(_) | Err(_))));
    }
}

/// What nobody has answered yet when the engine is found to be away is no exception.
#[test]
fn what_is_published_before_the_engine_was_tried_is_treated_alike() {
    let mut world = World::with(1, 10, OnDown::Local);
    world.nodes[0].sequencer.heard(Heard::Down("away".into()), &mut Members::default()).expect("it is right");
    world.nodes[0].say(0, FromMember::Want((Group::Channel, "a")));
    world.publish(0, 1, "a", &[]);
    world.publish(0, 1, "b", &[]);
    let outcomes = &world.nodes[0].members.outcomes[&1];
    assert!(outcomes.iter().all(Result::is_ok) && outcomes.len() == 2, "{outcomes:?}");
    assert_eq!(world.nodes[0].members.all_views()[0].got, "<1>");
}
