//! What the seeds of several workers have found, step by step.
use super::wire;
use super::workers::Cluster;
use super::world::ALL;
use crate::channel::{Pattern, Policy};
use crate::settings::{ChannelRule, ChannelSettings};
use crate::shard::simulated::Luck;

/// The link of a worker broke, and what was published meanwhile was kept nowhere. Who watched a channel in which nothing had
/// been published yet was not told that something was missing.
#[test]
fn who_watches_a_channel_without_publications_is_told_that_one_is_missing() {
    let (luck, pattern) = (&mut Luck(1), Pattern::new("c0").expect("a pattern"));
    let settings = ChannelSettings { policy: Policy::Every, ..ChannelSettings::default() };
    let mut cluster = Cluster::of(vec![ChannelRule { pattern, settings }]);
    cluster.come(luck);
    cluster.come(luck);
    cluster.connect(1, (Some(0), None), ALL, luck);
    cluster.settle();
    cluster.publish(2, 0, false, 0);
    while cluster.hear(2) {}
    cluster.cut(1);
    cluster.settle();
    assert_eq!((cluster.clients.len(), cluster.away.len()), (0, 1), "1013");
}

/// A client came back to a worker that had yet to hear what its old one had sent it: it was told that it had lost something.
#[test]
fn who_was_further_on_in_another_worker_is_recovered() {
    for opening in [false, true] {
        let (luck, pattern) = (&mut Luck(1), Pattern::new("c0").expect("a pattern"));
        let settings = ChannelSettings { policy: Policy::Every, history_frames: 8, ..ChannelSettings::default() };
        let mut cluster = Cluster::of(vec![ChannelRule { pattern, settings }]);
        cluster.asks.opening = opening;
        cluster.come(luck);
        cluster.come(luck);
        cluster.connect(1, (Some(0), None), ALL, luck);
        cluster.connect(2, (Some(0), None), ALL, luck);
        cluster.settle();
        cluster.publish(1, 0, false, 0);
        cluster.run_alone(1, true);
        let since = cluster.clients[0].last;
        assert!(since.is_some() && cluster.clients[1].last.is_none());
        cluster.connect(2, (Some(0), since), ALL, luck);
        cluster.run_alone(2, false);
        cluster.settle();
        assert_eq!((cluster.recovered, cluster.clients.len()), (1, 3));
    }
}

/// A client left a channel that it did not watch, which was done behind all that was on its way, and asked for it behind that:
/// it was subscribed at once, and unsubscribed then.
#[test]
fn who_subscribes_behind_an_unsubscription_is_subscribed() {
    let (luck, pattern) = (&mut Luck(1), Pattern::new("c0").expect("a pattern"));
    let mut cluster = Cluster::of(vec![ChannelRule { pattern, settings: ChannelSettings::default() }]);
    cluster.come(luck);
    cluster.connect(1, (Some(0), None), ALL, luck);
    cluster.settle();
    let asks = ["unsubscribe", "unsubscribe", "subscribe", "unsubscribe", "subscribe"];
    let bytes: Vec<u8> =
        asks.iter().flat_map(|what| wire::frame(1, format!("{{\"{what}\":[\"c0\"]}}").as_bytes())).collect();
    cluster.workers[&1].world.net.borrow_mut().arrive(cluster.clients[0].fd, &bytes);
    cluster.settle();
    cluster.publish(1, 0, false, 0);
    cluster.settle();
    assert_eq!(cluster.clients[0].last, cluster.ordered[0].last().map(|one| one.position));
}

/// As above, of a worker that was about to get the channel, as it was before the client's position.
#[test]
fn who_was_further_on_than_what_is_on_its_way_is_recovered() {
    let (luck, pattern) = (&mut Luck(1), Pattern::new("c0").expect("a pattern"));
    let settings = ChannelSettings { policy: Policy::Every, history_frames: 8, ..ChannelSettings::default() };
    let mut cluster = Cluster::of(vec![ChannelRule { pattern, settings }]);
    cluster.come(luck);
    cluster.come(luck);
    cluster.connect(1, (Some(0), None), ALL, luck);
    cluster.settle();
    cluster.connect(2, (Some(0), None), ALL, luck);
    cluster.run_alone(2, false);
    while cluster.hear(2) {}
    cluster.publish(1, 0, false, 0);
    cluster.run_alone(1, true);
    let since = cluster.clients[0].last;
    cluster.connect(2, (Some(0), since), ALL, luck);
    cluster.run_alone(2, false);
    cluster.settle();
    assert_eq!((since.is_some(), cluster.recovered), (true, 1));
}
