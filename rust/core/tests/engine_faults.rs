//! Faults that the engine once had, from outside: each test says what happened, and claims that it no longer does.
//!
//! None of them waits for time where it can wait for a condition; where time itself is the matter, the test says why.
mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{TryRecvError, channel};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use fanwire_core::channel::Origin;
use fanwire_core::messages::{ConnectionId, Event, Reply};
use fanwire_core::protocol::Payload;
use fanwire_core::{Asks, ChannelSettings, Engine, Settings};
use socket2::SockRef;
use support::{
    Client, TAKES_MESSAGES, await_turn, bounded, connect, dial, eventually, on_each_poller, promising, publish,
    publish_deferred, read_text, resident_mib, start, start_asking,
};
use tungstenite::Message;
use tungstenite::protocol::frame::coding::CloseCode;

/// A request whose answer is the end of the stream, too.
const ASKS_OPENING: Asks = Asks { opening: true, ..TAKES_MESSAGES };
const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// A request for a WebSocket (RFC 6455 §1.3).
const UPGRADE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// The frame of a text up to 125 bytes as a client sends it (RFC 6455 §5.2), masked with zeros.
fn masked_text(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("a short text");
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
}

/// The next connection that asks to be opened.
fn next_opening(engine: &Engine) -> ConnectionId {
    let mut opening = None;
    eventually("an opening", || {
        opening = engine.take_events(1).into_iter().find_map(|event| match event {
            Event::Opening(whose, _) => Some(whose.connection),
            _ => None,
        });
        opening.is_some()
    });
    opening.expect("waited for")
}

/// An open client of an engine that asks, and its number.
fn open(engine: &Engine, address: &str, channels: &[&str]) -> (ConnectionId, Client) {
    std::thread::scope(|scope| {
        let client = scope.spawn(|| connect(address, ""));
        let id = next_opening(engine);
        engine.accept(id, channels.iter().copied(), None, Reply::default()).expect("the engine runs");
        (id, joined(client))
    })
}

fn joined(client: ScopedJoinHandle<'_, Client>) -> Client {
    client.join().expect("the upgrade is accepted")
}

/// Without connections a shard sleeps and looks at no clock. The first connection's deadline was counted from the last
/// look, so that it had passed before the request came.
#[test]
fn a_first_connection_after_a_long_silence_is_served() {
    on_each_poller(|settings| {
        let (engine, address) = start(Settings { handshake_timeout: Duration::from_secs(1), ..settings });
        await_turn(&engine);
        // The silence has to be longer than the timeout, and nothing happens in it that could be waited for.
        let (_silent, silence) = channel::<()>();
        silence.recv_timeout(Duration::from_millis(1_300)).expect_err("nobody sends");
        let mut stream = dial(&address);
        eventually("it is accepted", || engine.stats().connections_total == 1);
        await_turn(&engine);
        stream.write_all(HEALTH).expect("it is still open");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer, then the end");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    });
}

/// Frames that expire cut a run into pieces. When the pieces were too many for one write, the run ended further on than
/// its bytes did, and the frames between were lost.
#[test]
fn a_frame_that_expires_takes_no_living_ones_with_it() {
    on_each_poller(|settings| {
        let (engine, address) = start(settings);
        let mut client = connect(&address, "channel=c");
        eventually("a subscriber", || engine.occupancy("c") == 1);
        let filler = "x".repeat(600);
        for round in 0..20 {
            await_turn(&engine);
            // 31 pieces between frames that expire, then living frames over a segment's edge, then one that expires.
            for index in 0..31 {
                publish_deferred(&engine, "c", "expires", Some(1));
                publish_deferred(&engine, "c", &format!("{index}:"), None);
            }
            publish_deferred(&engine, "c", "expires", Some(1));
            (31..80).for_each(|index| {
                publish_deferred(&engine, "c", &format!("{index}:{filler}"), None);
            });
            publish_deferred(&engine, "c", "expires", Some(1));
            publish_deferred(&engine, "c", "last", None);
            engine.flush();
            let texts = std::iter::repeat_with(|| read_text(&mut client)).take_while(|text| text != "last");
            let living = texts.filter(|text| text != "expires");
            let numbers: Vec<usize> =
                living.map(|text| text.split(':').next().and_then(|n| n.parse().ok()).expect("as published")).collect();
            assert!(numbers.iter().copied().eq(0..80), "round {round}: of 80 came {numbers:?}");
        }
    });
}

/// A shard was busy while more was published than one turn takes, then came a subscriber whose cursor was the tail. The
/// shard caught up by one turn only, and the subscriber stood before its feed for ever.
#[test]
fn a_subscriber_of_a_channel_with_a_long_unsent_log_gets_what_follows() {
    on_each_poller(|settings| {
        let channels = bounded("c", 1 << 30, 1 << 20);
        let (engine, address) =
            start_asking(Settings { subscriptions_max: 1 << 20, channels, ..settings }, ASKS_OPENING, &[]);
        let (_, _first) = open(&engine, &address, &["c"]);
        let (id, mut second) = open(&engine, &address, &[]);
        let _third = std::thread::scope(|scope| {
            // The shard is busy for a while with somebody's many subscriptions.
            let third = scope.spawn(|| connect(&address, ""));
            let names: Vec<String> = (0..12_000).map(|index| format!("n{index}")).collect();
            engine
                .accept(next_opening(&engine), names.iter().map(String::as_str), None, Reply::default())
                .expect("the engine runs");
            eventually("it began with them", || engine.stats().subscriptions > 1);
            let filler = "x".repeat(60_000);
            (0..300).for_each(|_| {
                publish(&engine, "c", &filler);
            });
            engine.subscribe(id, "c", Origin::default()).expect("the engine runs");
            joined(third)
        });
        await_turn(&engine);
        publish(&engine, "c", "hello");
        assert_eq!(read_text(&mut second), "hello");
    });
}

/// A message and the end of the stream came in one segment. The short read of the message ended the reading, and the
/// kernel does not tell of the same end twice.
#[test]
fn an_end_of_stream_right_behind_data_is_seen() {
    on_each_poller(|settings| {
        let (engine, address) = start(settings);
        let mut client = connect(&address, "");
        eventually("a connection", || engine.stats().connections == 1);
        SockRef::from(client.get_ref()).set_tcp_cork(true).expect("a TCP socket");
        client.get_mut().write_all(&masked_text("hi")).expect("sent with the end");
        client.get_mut().shutdown(Shutdown::Write).expect("it is open");
        eventually("the end is seen", || engine.stats().connections == 0);
    });
}

/// A deferred publication marked its channel without ringing; the next one found the channel marked and did not ring
/// either. Both lay until the shard's tick of 100 ms.
#[test]
fn a_publication_rings_also_when_a_deferred_one_waits() {
    on_each_poller(|settings| {
        let (engine, address) = start(settings);
        let mut client = connect(&address, "channel=c");
        eventually("a subscriber", || engine.occupancy("c") == 1);
        let mut times: Vec<Duration> = std::iter::repeat_with(|| {
            await_turn(&engine); // then it sleeps for a whole tick, unless it is rung
            let began = Instant::now();
            publish_deferred(&engine, "c", "deferred", None);
            publish(&engine, "c", "now");
            assert_eq!([read_text(&mut client), read_text(&mut client)], ["deferred", "now"]);
            began.elapsed()
        })
        .take(11)
        .collect();
        times.sort();
        // The median: one that found the shard awake, or this thread asleep, proves nothing.
        assert!(times[5] < Duration::from_millis(50), "{times:?}");
    });
}

/// What had too many pieces for one write was not counted when it was put off, but was taken back where it lagged
/// behind: the counter went below zero.
#[test]
fn bytes_out_are_what_went_out_also_when_a_write_has_too_many_pieces() {
    on_each_poller(|settings| {
        let (engine, address) = start(settings);
        let query: Vec<String> = (0..100).map(|index| format!("channel=c{index}")).collect();
        let mut client = connect(&address, &query.join("&"));
        eventually("100 subscriptions", || engine.stats().subscriptions == 100);
        await_turn(&engine);
        let before = engine.stats().bytes_out;
        (0..100).for_each(|index| {
            publish_deferred(&engine, &format!("c{index}"), "twenty bytes of text", None);
        });
        engine.flush();
        (0..100).for_each(|_| assert_eq!(read_text(&mut client), "twenty bytes of text"));
        await_turn(&engine);
        let stats = engine.stats();
        assert_eq!((stats.deliveries, stats.bytes_out.wrapping_sub(before)), (100, 100 * 22));
    });
}

/// `send` allowed a payload of `outbox_bytes_max`; its frame is longer than that, and the client was closed before the
/// socket was asked to take it.
#[test]
fn a_private_message_of_the_bound_reaches_an_idle_client() {
    on_each_poller(|settings| {
        let (engine, address) = start_asking(Settings { outbox_bytes_max: 1_000, ..settings }, ASKS_OPENING, &[]);
        let (id, mut client) = open(&engine, &address, &[]);
        for text in ["x".repeat(1_000).as_str(), "and on"] {
            engine.send(id, &Payload::Text(text), None).expect("it is no longer than the bound");
            assert_eq!(read_text(&mut client), text);
        }
    });
}

/// What the socket had taken was let go only when the outbox was empty. With a reader that is never quite there it held
/// everything that was ever sent.
#[test]
fn an_outbox_that_is_never_empty_does_not_grow() {
    on_each_poller(|settings| {
        let (engine, address) = start_asking(Settings { outbox_bytes_max: 32 << 20, ..settings }, ASKS_OPENING, &[]);
        let (id, mut client) = open(&engine, &address, &[]);
        // Else the kernel would grow its buffer until it holds all that waits.
        SockRef::from(client.get_ref()).set_recv_buffer_size(64 << 10).expect("a TCP socket");
        let piece = "x".repeat(128 << 10);
        let send = || {
            engine.send(id, &Payload::Text(&piece), None).expect("the engine runs");
            await_turn(&engine);
        };
        while engine.stats().lagging == 0 {
            send();
        }
        (0..40).for_each(|_| send()); // 5 MiB: far from the bound, far from empty
        let before = resident_mib();
        for _ in 0..1_600 {
            assert_eq!(read_text(&mut client).len(), piece.len());
            send();
        }
        assert_eq!(engine.stats().lagging, 1, "the outbox was empty: nothing is shown");
        let grown = resident_mib().saturating_sub(before);
        assert!(grown < 100, "{grown} MiB more after 200 MiB through an outbox of 5 MiB");
    });
}

/// A subscriber's cursor was taken, the only other one left, and publications let the log's head go past the cursor
/// before the shard heard of it. It could neither read on nor was it closed: it heard nothing any more.
#[test]
fn a_subscriber_is_not_left_behind_the_head_when_the_last_other_one_leaves() {
    on_each_poller(|settings| {
        let channels = bounded("c", 1 << 20, 1);
        let (engine, address) =
            start_asking(Settings { unsent_bytes_max: 1 << 16, channels, ..settings }, ASKS_OPENING, &[]);
        let (first_id, _first) = open(&engine, &address, &["c"]);
        let mut second = std::thread::scope(|scope| {
            let second = scope.spawn(|| connect(&address, ""));
            let id = next_opening(&engine);
            // While accept goes through its channels the other one leaves and things are published.
            let names = std::iter::once("c").chain((0..3).map(|step| {
                match step {
                    0 => {
                        publish(&engine, "c", "one");
                    }
                    1 => engine.unsubscribe(first_id, "c").expect("the engine runs"),
                    _ => {
                        publish(&engine, "c", "two");
                        publish(&engine, "c", "three");
                    }
                }
                await_turn(&engine);
                "other"
            }));
            engine.accept(id, names, None, Reply::default()).expect("the engine runs");
            joined(second)
        });
        for _ in 0..3 {
            await_turn(&engine);
            publish(&engine, "c", "later");
        }
        // Either it gets what follows, or it is told that it was too slow; not silence.
        match second.read().expect("no silence") {
            Message::Text(_) => {}
            Message::Close(frame) => assert_eq!(frame.expect("a code").code, CloseCode::Again),
            other => panic!("expected text or a close, got {other:?}"),
        }
    });
}

/// The shard fanned out what had moved before it looked at its commands, so what was published right after
/// `unsubscribe` still went to the client.
#[test]
fn what_is_published_after_unsubscribe_does_not_reach() {
    on_each_poller(|settings| {
        let (engine, address) = start_asking(settings, ASKS_OPENING, &[]);
        let (id, mut client) = open(&engine, &address, &["c"]);
        for round in 0..200 {
            await_turn(&engine);
            engine.unsubscribe(id, "c").expect("the engine runs");
            publish(&engine, "c", "secret");
            engine.subscribe(id, "c", Origin::default()).expect("the engine runs");
            publish(&engine, "c", "open");
            assert_eq!(read_text(&mut client), "open", "round {round}");
        }
    });
}

/// Each answered `/healthz` was counted as a WebSocket that ended with 1006.
#[test]
fn a_plain_request_is_no_closed_websocket() {
    on_each_poller(|settings| {
        let (engine, address) = start(settings);
        let mut stream = dial(&address);
        stream.write_all(HEALTH).expect("sent");
        stream.read_to_string(&mut String::new()).expect("an answer, then the end");
        drop(stream);
        eventually("it is gone", || engine.stats().connections == 0);
        await_turn(&engine);
        assert!(engine.stats().closes.is_empty(), "{:?}", engine.stats().closes);
    });
}

/// Channels that moved together were joined in one write from the last to the first.
#[test]
fn channels_reach_a_client_in_the_order_of_publication() {
    on_each_poller(|settings| {
        let (engine, address) = start(settings);
        let mut client = connect(&address, "channel=a&channel=b&channel=c");
        eventually("3 subscriptions", || engine.stats().subscriptions == 3);
        await_turn(&engine);
        for channel in ["a", "b", "c"] {
            publish_deferred(&engine, channel, channel, None);
        }
        engine.flush();
        assert_eq!([read_text(&mut client), read_text(&mut client), read_text(&mut client)], ["a", "b", "c"]);
    });
}

/// A newcomer joined a feed that was behind the tail, so the shard fanned out first; that broke the only member, the
/// feed went with it, and the shard looked for a feed that was gone and died.
#[test]
fn a_newcomer_survives_that_the_last_member_breaks_in_its_join() {
    on_each_poller(|settings| {
        // However slow this machine is, nobody is to be overtaken by a publisher that never waits.
        let patient = ChannelSettings { backlog_frames: 1 << 24, backlog_bytes: 1 << 30, ..ChannelSettings::default() };
        let (engine, address) = start(Settings { channels: promising("c", patient), ..settings });
        std::thread::scope(|scope| {
            let (is_on, over) = channel::<()>();
            let engine = &engine;
            scope.spawn(move || {
                while over.try_recv() == Err(TryRecvError::Empty) {
                    publish(engine, "c", "x");
                    std::thread::yield_now();
                }
            });
            for _ in 0..100 {
                let member = connect(&address, "channel=c");
                SockRef::from(member.get_ref()).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
                let mut newcomer = connect(&address, "");
                let mut bytes = masked_text(r#"{"subscribe":["c"]}"#);
                for _ in 0..500 {
                    bytes.extend(masked_text(r#"{"unsubscribe":["c"]}"#));
                    bytes.extend(masked_text(r#"{"subscribe":["c"]}"#));
                }
                newcomer.get_mut().write_all(&bytes).expect("the shard lives");
                drop(member); // a reset, while the shard is among the joins
                assert_eq!(read_text(&mut newcomer), "x");
            }
            drop(is_on); // as a panic does
        });
    });
}

/// Two messages, and right behind them an unmasked frame, which RFC 6455 §5.1 forbids; they are taken, not answered.
fn misbehave(engine: &Engine, address: &str) -> (ConnectionId, Client) {
    let mut client = connect(address, "");
    let bytes = [masked_text("one"), masked_text("two"), vec![0x81, 0]].concat();
    client.get_mut().write_all(&bytes).expect("sent");
    let mut texts = Vec::new();
    eventually("two messages", || {
        texts.extend(engine.take_events(2).into_iter().filter_map(|event| match event {
            Event::Text(whose, text) => Some((whose.connection, text)),
            _ => None,
        }));
        texts.len() == 2
    });
    let id = texts[0].0;
    assert_eq!(texts, [(id, "one".to_owned()), (id, "two".to_owned())]);
    (id, client)
}

/// The code of the Close frame that comes next.
fn read_close(client: &mut Client) -> CloseCode {
    match client.read().expect("a message") {
        Message::Close(frame) => frame.expect("a code").code,
        other => panic!("expected a close, got {other:?}"),
    }
}

/// The frame's error closed the connection at once, and the answers to the messages before it found nobody.
#[test]
fn a_bad_frame_is_answered_after_the_good_messages_before_it() {
    on_each_poller(|settings| {
        let (engine, address) = start(settings);
        let (id, mut client) = misbehave(&engine, &address);
        for answer in ["to one", "to two"] {
            await_turn(&engine);
            engine.send(id, &Payload::Text(answer), None).expect("the engine runs");
            engine.acknowledge(id, 1);
            assert_eq!(read_text(&mut client), answer);
        }
        assert_eq!(read_close(&mut client), CloseCode::Protocol);
    });
}

/// The other side of that patience: an application that never acknowledges would keep a misbehaving client for ever.
#[test]
fn a_bad_frame_behind_messages_that_nobody_acknowledges_is_answered_after_close_timeout() {
    on_each_poller(|settings| {
        let (engine, address) = start(Settings { close_timeout: Duration::from_millis(200), ..settings });
        let began = Instant::now();
        let (_, mut client) = misbehave(&engine, &address);
        assert_eq!(read_close(&mut client), CloseCode::Protocol);
        // Time is the matter here. Deadlines are kept in ticks of 100 ms; above is room for a busy machine.
        let took = began.elapsed();
        assert!((Duration::from_millis(100)..Duration::from_secs(15)).contains(&took), "{took:?}");
    });
}

/// Who had as many subscriptions as allowed and asked for one of them again was refused, as if it were one more.
#[test]
fn a_subscription_over_the_bound_is_refused_by_name_and_twice_is_once() {
    on_each_poller(|settings| {
        let (engine, address) = start(Settings { subscriptions_max: 2, ..settings });
        let mut client = connect(&address, "");
        let mut ask = |text: &str| {
            client.send(Message::text(text)).expect("it is open");
            read_text(&mut client)
        };
        let subscribed = r#"{"id":1,"result":{"subscribed":["a","b"]}}"#;
        assert_eq!(ask(r#"{"subscribe":["a","b"],"id":1}"#), subscribed);
        assert_eq!(ask(r#"{"subscribe":["a","b"],"id":1}"#), subscribed);
        let refused = r#"{"id":2,"error":"subscriptions_max: 3 is over the bound of 2"}"#;
        assert_eq!(ask(r#"{"subscribe":["c"],"id":2}"#), refused);
        await_turn(&engine);
        assert_eq!(engine.stats().subscriptions, 2);
        assert_eq!(["a", "b", "c"].map(|channel| engine.occupancy(channel)), [1, 1, 0]);
    });
}

/// 100 clients who ask to be opened, of whom the shard has read everything, with room for 16 events.
fn crowd(settings: Settings) -> (Engine, Vec<TcpStream>) {
    let (engine, address) = start_asking(Settings { events_pending_max: 16, ..settings }, ASKS_OPENING, &[]);
    let clients = std::iter::repeat_with(|| {
        let mut stream = dial(&address);
        stream.write_all(UPGRADE).expect("sent");
        stream
    });
    let clients = clients.take(100).collect();
    eventually("all have asked", || engine.stats().bytes_in == 100 * UPGRADE.len() as u64);
    await_turn(&engine);
    (engine, clients)
}

/// Requests became events whether there was room or not: who connected without end made the queue grow without end.
#[test]
fn openings_that_nobody_takes_stop_at_the_bound_of_events() {
    on_each_poller(|settings| {
        let (engine, _clients) = crowd(settings);
        engine.stop(); // else the shard would fill up what is taken while it is counted
        let openings = engine.take_events(200).iter().filter(|event| matches!(event, Event::Opening(..))).count();
        assert_eq!(openings, 16);
    });
}

/// The other side of that bound: who waits for room is reported once there is some.
#[test]
fn openings_over_the_bound_of_events_are_reported_when_events_are_taken() {
    on_each_poller(|settings| {
        let (engine, clients) = crowd(settings);
        for _ in 0..clients.len() {
            engine.accept(next_opening(&engine), [""; 0], None, Reply::default()).expect("the engine runs");
        }
        for mut client in clients {
            let mut head = [0; 12];
            client.read_exact(&mut head).expect("an answer");
            assert_eq!(&head, b"HTTP/1.1 101");
        }
    });
}
