//! One id for life, whatever its connection speaks; and subscriptions that are made before it has said that.
mod support;

use fanwire_core::channel::{Origin, Publication};
use fanwire_core::messages::{ConnectionId, Event, Reply};
use fanwire_core::protocol::{Encoded, Payload};
use fanwire_core::{Asks, Engine, Settings};
use support::{
    Client, HUB, TAKES_MESSAGES, await_turn, dial, eventually, next_event, on_each_poller, publish, read_text,
    start_asking, told_of,
};
use tungstenite::Message;

const ASKED: Asks = Asks { connected: true, opening: true, ..TAKES_MESSAGES };

/// A client of the hub whose opening was accepted, which has not shaken hands, and its id.
fn open(engine: &Engine, address: &str) -> (Client, ConnectionId) {
    let url = format!("ws://{address}/live");
    let stream = dial(address);
    let client = std::thread::spawn(move || tungstenite::client(url, stream).expect("the upgrade is accepted").0);
    let whose = loop {
        if let Event::Opening(whose, _) = next_event(engine) {
            break whose; // an earlier client may have ended only now
        }
    };
    engine.accept(whose.connection, ["accepted"], None, Reply::default()).expect("runs");
    (client.join().expect("it was accepted"), whose.connection)
}

fn shake_hands(client: &mut Client, protocol: &str) {
    let handshake = format!("{{\"protocol\":\"{protocol}\",\"version\":1}}\u{1e}");
    client.send(Message::text(handshake)).expect("sent");
    assert_eq!(client.read().expect("an answer").into_data(), &b"{}\x1e"[..], "nothing comes before it");
}

/// Publishes a number under ten, in the encodings that are asked for.
fn publish_number(engine: &Engine, channel: &str, number: u8) {
    let text = number.to_string();
    let all = Encoded::alike(Some(text.as_bytes()), Some(std::slice::from_ref(&number)));
    let publication = Publication::new(Payload::Object(all));
    engine.publish(channel, &publication, false).expect("runs").expect("each encoding is there");
}

/// The number in the next message.
fn read_number(client: &mut Client) -> u8 {
    match client.read().expect("a message") {
        Message::Text(text) => text.as_str().trim_end_matches("]}\u{1e}").bytes().last().expect("a digit") - b'0',
        Message::Binary(bytes) => bytes.iter().rev().copied().find(|&byte| byte != 0x90).expect("a number"),
        other => panic!("expected a publication, got {other:?}"),
    }
}

#[test]
fn an_id_stays_and_so_do_subscriptions_that_were_made_before_the_handshake() {
    on_each_poller(|settings| {
        let (engine, address) = start_asking(settings, ASKED, &[("/live", HUB)]);
        for protocol in ["json", "messagepack"] {
            let (mut client, id) = open(&engine, &address);
            engine.subscribe(id, "a", Origin::default()).expect("runs");
            publish_number(&engine, "a", 1); // its shard may not have had its turn
            await_turn(&engine);
            publish_number(&engine, "accepted", 2);
            engine.subscribe(id, "left", Origin::default()).expect("runs");
            engine.unsubscribe(id, "left").expect("runs");
            publish_number(&engine, "left", 9);
            await_turn(&engine);
            assert!(engine.format_of(id).is_none(), "it has yet to say");
            shake_hands(&mut client, protocol);
            assert_eq!(told_of(&engine), id);
            assert_eq!(
                engine.format_of(id).and_then(|format| format.hub_protocol()).map(|one| one.name()),
                Some(protocol)
            );
            let mut first = [read_number(&mut client), read_number(&mut client)];
            first.sort_unstable(); // of two channels
            assert_eq!(first, [1, 2]);
            publish_number(&engine, "a", 3);
            assert_eq!(read_number(&mut client), 3);
            let mut names = engine.channels_of(id);
            names.sort_unstable();
            assert_eq!(names, ["a", "accepted"]);
            engine.unsubscribe(id, "a").expect("runs");
            publish_number(&engine, "a", 4);
            publish_number(&engine, "accepted", 5);
            assert_eq!(read_number(&mut client), 5);
        }
    });
}

/// A call on one thread, the handshake on another, publications on a third: each comes once, in whichever format.
#[test]
fn what_is_published_after_the_call_comes_however_the_handshake_falls() {
    on_each_poller(|settings| {
        let (engine, address) = start_asking(settings, ASKED, &[("/live", HUB)]);
        for round in 0..40 {
            let channel = format!("round {round}");
            let (mut client, id) = open(&engine, &address);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    engine.subscribe(id, &channel, Origin::default()).expect("runs");
                    (1..8).for_each(|number| publish_number(&engine, &channel, number));
                });
                let protocol = if round % 2 == 0 { "messagepack" } else { "json" };
                scope.spawn(|| shake_hands(&mut client, protocol));
            });
            let read: Vec<u8> = (1..8).map(|_| read_number(&mut client)).collect();
            assert_eq!(read, [1, 2, 3, 4, 5, 6, 7], "round {round}");
            client.close(None).expect("sent");
        }
    });
}

#[test]
fn a_client_that_takes_its_time_to_shake_hands_holds_nobody_up() {
    on_each_poller(|settings| {
        let settings = Settings { unsent_bytes_max: 64 << 10, ..settings };
        let (engine, address) = start_asking(settings, ASKED, &[("/live", HUB)]);
        let (mut client, id) = open(&engine, &address);
        engine.subscribe(id, "a", Origin::default()).expect("runs");
        await_turn(&engine);
        let text = "x".repeat(32 << 10);
        for _ in 0..16 {
            publish(&engine, "a", &text);
            await_turn(&engine);
        }
        let occupancy = engine.stats().subscriptions;
        assert_eq!(occupancy, 0, "none has begun");
        shake_hands(&mut client, "json");
        for _ in 0..16 {
            assert!(read_text(&mut client).contains(&text));
        }
        drop(client);
        let (gone, _) = open(&engine, &address);
        drop(gone); // with what it was accepted for
        eventually("both are gone", || engine.stats().connections == 0);
        publish(&engine, "accepted", "nobody waits for it");
    });
}

#[test]
fn an_id_says_whose_it_is_and_that_of_another_worker_names_nobody_here() {
    let worker = |worker| start_asking(Settings { worker, ..Settings::default() }, TELLS, &[]);
    let ((three, address), (four, elsewhere)) = (worker(3), worker(4));
    let join = |engine: &Engine, address: &str| (support::connect(address, "channel=a"), told_of(engine));
    let ((mut client, id), (mut other, their)) = (join(&three, &address), join(&four, &elsewhere));
    assert_eq!((id.worker(), their.worker()), (3, 4));
    assert_eq!(id.to_bits() ^ their.to_bits(), 7 << 56, "else they are the same");
    three.subscribe(their, "b", Origin::default()).expect("it is nobody here, which is no error");
    three.send(their, &Payload::Text("lost"), None).expect("nor here");
    three.disconnect(their, 1000, "").expect("nor here");
    assert!(three.channels_of(their).is_empty() && three.format_of(their).is_none());
    publish(&three, "b", "for nobody");
    let excluded = [their];
    let not_theirs = Publication { excluded: &excluded, ..Publication::new(Payload::Text("one")) };
    three.publish("a", &not_theirs, false).expect("runs").expect("text");
    let not_its = [id];
    let publication = Publication { excluded: &not_its, ..not_theirs };
    three.publish("a", &publication, false).expect("runs").expect("text");
    three.send(id, &Payload::Text("two"), None).expect("runs");
    assert_eq!([read_text(&mut client), read_text(&mut client)], ["one", "two"]);
    publish(&four, "a", "still there");
    assert_eq!(read_text(&mut other), "still there");
}

const TELLS: Asks = Asks { connected: true, ..TAKES_MESSAGES };
