//! Several sequencers over one engine that delays, loses, forgets and comes back: what each member is told.
use super::abroad_world::{Members, NODES, Node, World};
use super::backbone::Heard;
use super::wire::{FromMember, Group};
use crate::channel::{Publication, write_publication};
use crate::connection_id::ConnectionId;
use crate::protocol::Payload;

/// Whatever is lost on the way, each member that wants a channel is where the engine is, and has all that came since it had it.
#[test]
fn every_machine_has_the_same_in_the_same_places() {
    for seed in 0..400 {
        let mut world = World::new(seed, 1_000);
        world.run(400, false);
        world.mend_all();
        world.settle();
        for name in ["a", "b"] {
            let top = world.top(&format!("c{name}"));
            for (number, node) in world.nodes.iter().enumerate() {
                for peer in 0..2 {
                    if let Some(at) = node.members.at.get(&(peer, name.to_owned())).filter(|_| top.offset > 0) {
                        assert_eq!(*at, top, "seed {seed}: node {number}, member {peer}, channel {name}");
                    }
                }
                assert_eq!(node.members.holes, 0, "seed {seed}: node {number}");
            }
        }
        let told: usize = world.nodes.iter().flat_map(|node| node.members.outcomes.values()).map(Vec::len).sum();
        assert_eq!(told as u64, world.published, "seed {seed}: each publication has one outcome");
    }
}

#[test]
fn an_engine_that_forgets_begins_a_new_life_everywhere() {
    for seed in 0..400 {
        let mut world = World::new(seed, if seed % 2 == 0 { 1_000 } else { 3 });
        world.run(400, true);
        world.mend_all();
        world.settle();
        for node in 0..NODES {
            for peer in 0..2 {
                world.nodes[node].say(peer, FromMember::Want((Group::Channel, "a")));
            }
        }
        world.settle();
        world.publish(0, 0, "a", &[]);
        world.settle();
        let top = world.top("ca");
        for node in &world.nodes {
            for peer in 0..2 {
                assert_eq!(node.members.at[&(peer, "a".to_owned())], top, "seed {seed}");
            }
        }
    }
}

#[test]
fn who_is_excluded_is_a_connection_of_the_machine_that_publishes() {
    let mut world = World::new(1, 10);
    for node in 0..2 {
        world.nodes[node].say(0, FromMember::Want((Group::Channel, "a")));
    }
    world.settle();
    world.publish(0, 1, "a", &[ConnectionId::from_bits(7)]);
    world.settle();
    let said: Vec<_> = world.nodes.iter().map(|node| node.members.excluded.clone()).collect();
    assert_eq!(said, [vec![true], vec![false], vec![]]);
}

#[test]
fn what_is_published_while_the_engine_is_away_waits_for_it_up_to_a_bound() {
    let mut world = World::new(1, 10);
    world.settle();
    let down = Heard::Down("away".into());
    let node = &mut world.nodes[0];
    node.sequencer.heard(down, &mut node.members).expect("it is right");
    world.publish(0, 0, "a", &[]);
    let mut bytes = Vec::new();
    let text = "x".repeat(9 << 20);
    write_publication(&Publication::new(Payload::Text(&text)), &mut bytes);
    for _ in 0..2 {
        world.nodes[0].say(1, FromMember::Publish((Group::Channel, "a"), &bytes));
    }
    assert!(world.nodes[0].asked() == 0);
    let at_once = &world.nodes[0].members.outcomes[&1];
    let said = "1: bytes that wait until the backbone is reached: ";
    assert!(matches!(&at_once[..], [Err(why)] if why.starts_with(said) && why.ends_with("over the bound of 16777216")));
    world.mend(0);
    world.settle();
    let outcomes = &world.nodes[0].members.outcomes;
    assert!(matches!(outcomes[&0][..], [Ok(_)]) && matches!(outcomes[&1][..], [Err(_), Ok(_)]));
}

#[test]
fn who_subscribes_gets_what_is_published_here_behind_that() {
    let mut world = World::new(1, 0);
    world.publish(1, 0, "a", &[]);
    world.settle();
    world.nodes[0].say(0, FromMember::Want((Group::Channel, "a")));
    world.publish(0, 1, "a", &[]);
    world.settle();
    assert_eq!(world.nodes[0].members.got[&(0, "a".to_owned())].len(), 1);
}

/// It was never level again: nothing came of it any more.
#[test]
fn a_record_that_is_none_costs_its_channel_no_other() {
    let mut world = World::new(1, 10);
    world.publish(1, 0, "a", &[]);
    world.settle();
    world.kept("ca").records[0].bytes.clear();
    world.publish(1, 0, "a", &[]);
    world.settle();
    world.nodes[0].say(0, FromMember::Want((Group::Channel, "a")));
    while world.serve(0) || world.deliver(0, 1) {}
    let Node { sequencer, members, comes, .. } = &mut world.nodes[0];
    let kept = comes[0].pop_front().expect("what is kept");
    assert!(sequencer.heard(kept, members).expect_err("the first is none").contains("is none"));
    world.publish(1, 0, "a", &[]);
    world.settle();
    let top = world.top("ca");
    assert_eq!(world.nodes[0].members.at[&(0, "a".to_owned())], top);
}

#[test]
fn outcomes_come_in_the_order_of_a_members_publications() {
    let mut world = World::new(1, 10);
    for name in ["a", &"x".repeat(300), "b"] {
        world.publish(0, 0, name, &[]);
    }
    world.settle();
    let said: Vec<bool> = world.nodes[0].members.outcomes[&0].iter().map(Result::is_ok).collect();
    assert_eq!(said, [false, true, true], "what has no place is told of at once");
    assert!(matches!(&world.nodes[0].members.outcomes[&0][0], Err(why) if why.starts_with("1: ")), "behind the first");
}

#[test]
fn what_nobody_here_wants_does_not_come() {
    let mut world = World::new(1, 10);
    world.nodes[0].say(0, FromMember::Want((Group::Channel, "a")));
    world.nodes[0].say(1, FromMember::Want((Group::Channel, "a")));
    world.settle();
    assert!(world.nodes[0].wanted.contains("ca"));
    world.nodes[0].leave(0, "a");
    world.settle();
    assert!(world.nodes[0].wanted.contains("ca"), "the other does");
    world.nodes[0].sequencer.gone(1, &mut Members::default());
    world.settle();
    assert!(world.nodes[0].wanted.is_empty());
}
