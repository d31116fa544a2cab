//! Sentinels and clusters: another master, and slots that move.
mod support;

use fanwire_backbone::{Event, Options};
use support::{Heard, KEEP, Server, has_server, texts};

#[test]
fn a_failover_of_sentinels_is_followed() {
    if !has_server() {
        return;
    }
    let mut master = Server::start(&["--repl-diskless-sync-delay", "0"]);
    let replica = Server::start(&["--replicaof", &format!("127.0.0.1 {}", master.port)]);
    assert!(master.ask_until("WAIT 1 1000", ":1"));
    let sentinel = Server::sentinel(&master);
    assert!(sentinel.ask_until("SENTINEL REPLICAS mymaster", &format!("127.0.0.1:{}", replica.port)));
    let url = format!("redis+sentinel://127.0.0.1:{}/mymaster", sentinel.port);
    let (mut link, _) = Heard::wanting(&url, "c");
    let first = link.publish("c", "one");
    assert!(replica.ask_until("HGET fanwire:m:c o", "$1\r\n1\r\n"));
    master.kill();
    let second = link.publish_in_the_end("c", "two");
    assert!(second > first);
    let (records, _, is_whole) = link.since("c", first);
    assert!(is_whole && texts(&records).ends_with(&["two".to_owned()]));
    let why = Heard::start(&format!("redis+sentinel://127.0.0.1:{}/other", sentinel.port)).down();
    assert!(why.contains("knows no master \"other\""), "{why}");
}

/// Three nodes with all slots.
fn cluster() -> Vec<Server> {
    let nodes: Vec<_> = (0..3).map(|_| Server::node()).collect();
    for (node, range) in nodes.iter().zip(["0 5460", "5461 10922", "10923 16383"]) {
        assert!(node.ask(&format!("CLUSTER ADDSLOTSRANGE {range}")).contains("OK"));
        for other in &nodes {
            node.ask(&format!("CLUSTER MEET 127.0.0.1 {} {}", other.port, other.port + 1_000));
        }
    }
    for node in &nodes {
        assert!(node.ask_until("CLUSTER INFO", "cluster_state:ok"));
        assert!(node.ask_until("CLUSTER INFO", "cluster_known_nodes:3"));
    }
    nodes
}

#[test]
fn channels_are_spread_over_a_cluster() {
    if !has_server() {
        return;
    }
    let nodes = cluster();
    let urls = [nodes[0].url(), format!("redis+cluster://127.0.0.1:1,127.0.0.1:{}", nodes[1].port)];
    let mut links = urls.map(|url| Heard::start(&url));
    let names: Vec<_> = (0..100).map(|number| format!("c{number}")).collect();
    for link in &mut links {
        link.link.want(&names.iter().map(String::as_str).collect::<Vec<_>>(), KEEP);
        for name in &names {
            link.wanted(name);
        }
    }
    for name in &names {
        let position = links[0].publish_as(name, name.as_bytes(), KEEP, Some("key")).unwrap();
        for link in &mut links {
            assert_eq!(link.record(name).position, position);
        }
        assert_eq!(
            texts(&links[1].since(name, fanwire_backbone::Position { offset: 0, ..position }).0),
            [name.as_str()]
        );
    }
    for node in &nodes {
        assert!(!node.ask("DBSIZE").starts_with(":0"), "a node has nothing");
    }
    let alone = Server::start(&[]);
    let why = Heard::start(&format!("redis+cluster://127.0.0.1:{}", alone.port)).down();
    assert!(why.contains("no node of a cluster"), "{why}");
}

#[test]
fn slots_that_move_take_their_channels_along() {
    if !has_server() {
        return;
    }
    let nodes = cluster();
    let mut link = Heard::with(&nodes[0].url(), Options { partitions: 1, ..Options::default() });
    link.link.want(&["c"], KEEP);
    link.wanted("c");
    link.up();
    let first = link.publish("c", "one");
    link.record("c");
    let (from, to, slot) = (&nodes[2], &nodes[0], 13_907); // that of {0}
    let id = |node: &Server| node.ask("CLUSTER MYID").lines().nth(1).unwrap().to_owned();
    to.ask(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", id(from)));
    from.ask(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", id(to)));
    let moved = from.ask(&format!("MIGRATE 127.0.0.1 {}  0 5000 KEYS fanwire:m:{{0}}:c fanwire:s:{{0}}:c", to.port));
    assert!(moved.contains("OK"), "{moved}");
    // What is published while the slot is on its way waits until it is there.
    link.link.publish(100, "c", b"two".to_vec(), KEEP, None).unwrap();
    for node in [to, from, &nodes[1]] {
        node.ask(&format!("CLUSTER SETSLOT {slot} NODE {}", id(to)));
    }
    let why = link.down();
    assert!(why.starts_with("MOVED"), "{why}");
    let second = link.published(100).unwrap();
    assert!(second.epoch == first.epoch && second > first);
    link.wanted("c");
    let third = link.publish("c", "three");
    link.next("the third", |event| {
        matches!(event, Event::Record { record, .. } if record.position == third).then_some(())
    });
    let (records, _, is_whole) = link.since("c", first);
    assert_eq!((texts(&records), is_whole), (vec!["two".into(), "three".into()], true));
}
