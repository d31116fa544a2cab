//! Connections that a framework reads and frames for: real sockets, both pollers.
mod support;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use fanwire_core::channel::{Origin, Publication};
use fanwire_core::messages::{ConnectionId, Event, Released};
use fanwire_core::protocol::{Format, Payload};
use fanwire_core::ws::{Opcode, write_header};
use fanwire_core::{Adopted, Broadcasting, Engine, EngineError, Settings};
use support::{
    Chances, Client, PATIENCE, await_turn, bounded, connect, eventually, more_than_a_socket_takes, on_each_poller,
    publish, publish_deferred, read_text, start,
};
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

/// What a framework has: the socket, the engine's hold on its write side, and the client at the other end.
struct Framework {
    socket: TcpStream,
    adopted: Adopted,
    client: Client,
}

impl Framework {
    fn held(engine: &Engine) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        client.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
        let socket = listener.accept().expect("it has connected").0;
        let adopted = engine.adopt(socket.as_raw_fd(), Format::Raw).expect("a socket");
        Self { socket, adopted, client: WebSocket::from_raw_socket(client, Role::Client, None) }
    }

    fn new(engine: &Engine) -> Self {
        let framework = Self::held(engine);
        engine.begin_adopted(&framework.adopted).expect("it runs");
        framework
    }

    fn subscribe(&self, engine: &Engine, channel: &str) {
        engine.subscribe_adopted(&self.adopted, channel, Origin::default()).expect("a name");
    }

    fn write(&self, engine: &Engine, bytes: &[u8]) -> Option<u64> {
        engine.write_adopted(&self.adopted, bytes.into(), false).expect("it runs")
    }

    fn say(&self, engine: &Engine, text: &str) {
        self.write(engine, &frame(text)).expect("it is not over");
    }
}

fn frame(text: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    write_header(&mut frame, Opcode::Text, text.len());
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// Of it a socket takes only a part, though the client's end grows as well as this one.
fn more_than_both_ends_take() -> String {
    more_than_a_socket_takes().repeat(3)
}

/// Why a connection was given up, which is told once.
fn released(engine: &Engine, id: ConnectionId) -> Released {
    let mut told = Vec::new();
    let take = |told: &mut Vec<Released>| {
        told.extend(engine.take_events(64).into_iter().filter_map(|event| match event {
            Event::Released(whose, why) if whose.connection == id => Some(why),
            _ => None,
        }));
    };
    eventually("it is given up", || {
        take(&mut told);
        !told.is_empty()
    });
    assert_eq!(engine.channels_of(id), Vec::<String>::new());
    take(&mut told);
    assert_eq!(told.len(), 1, "{told:?}");
    told.remove(0)
}

#[test]
fn what_the_framework_writes_and_what_is_published_come_in_the_order_of_the_calls() {
    on_each_poller(|settings| {
        let (engine, address) = start(Settings { shards: 2, ..settings });
        let mut other = connect(&address, "channel=a");
        eventually("a subscriber", || engine.occupancy("a") == 1);
        let mut one = Framework::new(&engine);
        one.subscribe(&engine, "a");
        for seed in 0..40 {
            let mut chances = Chances(seed);
            let (mut expected, mut published) = (Vec::new(), Vec::new());
            for n in 0..50 {
                let text = format!("{seed}:{n}");
                if chances.below(2) == 0 {
                    let deferred = chances.below(2) == 0;
                    engine.write_adopted(&one.adopted, frame(&text).into(), deferred).expect("it runs");
                } else {
                    match chances.below(2) {
                        0 => publish(&engine, "a", &text),
                        _ => publish_deferred(&engine, "a", &text, None),
                    };
                    published.push(text.clone());
                }
                expected.push(text);
            }
            engine.flush();
            let got: Vec<String> = expected.iter().map(|_| read_text(&mut one.client)).collect();
            assert_eq!(got, expected, "seed {seed}");
            let got: Vec<String> = published.iter().map(|_| read_text(&mut other)).collect();
            assert_eq!(got, published, "who is not adopted gets what is published and nothing else");
        }
        eventually("nothing waits", || one.adopted.waiting() == 0);
        eventually("it is at the tail again", || engine.stats().lagging == 0);
    });
}

/// Of each channel; between channels there is no order.
#[test]
fn channels_that_come_and_go_in_midst_of_it_give_what_was_published_while_they_were_there() {
    on_each_poller(|settings| {
        let (engine, _) = start(settings);
        let mut one = Framework::new(&engine);
        let mut chances = Chances(7);
        let mut has = [false; 3];
        let names = ["a", "b", "c"];
        // Of each channel: its publications and the private messages between which they stand.
        let mut expected: [VecDeque<String>; 3] = Default::default();
        let mut messages = 0;
        for n in 0..3_000 {
            let index = chances.below(3) as usize;
            match chances.below(5) {
                0 if has[index] => engine.unsubscribe_adopted(&one.adopted, names[index]).expect("a name"),
                0 => one.subscribe(&engine, names[index]),
                1 | 2 => {
                    let text = format!("own {n}");
                    one.say(&engine, &text);
                    expected.iter_mut().for_each(|one| one.push_back(text.clone()));
                    messages += 1;
                    continue;
                }
                _ => {
                    let text = format!("{} {n}", names[index]);
                    publish_deferred(&engine, names[index], &text, None);
                    if has[index] {
                        expected[index].push_back(text);
                        messages += 1;
                    }
                    continue;
                }
            }
            has[index] = !has[index];
        }
        engine.release_adopted(&one.adopted).expect("it runs");
        for _ in 0..messages {
            let text = read_text(&mut one.client);
            let which = names.iter().position(|name| text.starts_with(&format!("{name} ")));
            for (index, expected) in expected.iter_mut().enumerate() {
                if which.is_none_or(|which| which == index) {
                    assert_eq!(expected.pop_front().as_deref(), Some(&*text), "in {}", names[index]);
                }
            }
        }
        assert_eq!(released(&engine, one.adopted.id()), Released::Released);
        assert!(expected.iter().all(VecDeque::is_empty));
    });
}

#[test]
fn a_publication_stands_between_whole_messages_however_the_framework_writes_them() {
    on_each_poller(|settings| {
        let (engine, _) = start(settings);
        let mut one = Framework::new(&engine);
        one.subscribe(&engine, "a");
        let whole = frame("in pieces");
        for at in 1..whole.len() {
            one.write(&engine, &whole[..at]);
            publish(&engine, "a", "between");
            // It may be with the shard by now: what is under way is not torn.
            assert!(engine.channels_of(one.adopted.id()) == ["a"]);
            one.write(&engine, &whole[at..]);
            assert_eq!([read_text(&mut one.client), read_text(&mut one.client)], ["in pieces", "between"]);
        }
        // A message in two frames, and the next one begins in the same write as it ends.
        let (mut first, mut last) = (frame("two "), frame("frames"));
        (first[0], last[0]) = (0x01, 0x80);
        one.write(&engine, &first);
        publish(&engine, "a", "behind it");
        last.extend_from_slice(&frame("the next"));
        one.write(&engine, &last);
        let got = [read_text(&mut one.client), read_text(&mut one.client), read_text(&mut one.client)];
        assert_eq!(got, ["two frames", "behind it", "the next"]);
    });
}

#[test]
fn nothing_is_written_before_the_frameworks_own_bytes_are_out() {
    on_each_poller(|settings| {
        let (engine, _) = start(settings);
        let mut one = Framework::held(&engine);
        one.subscribe(&engine, "a");
        publish(&engine, "a", "published");
        one.say(&engine, "written");
        assert_eq!(engine.channels_of(one.adopted.id()), ["a"]); // its shard has come past all of it
        assert!(one.adopted.waiting() > 0);
        one.socket.write_all(&frame("the framework's")).expect("its socket is its own still");
        engine.begin_adopted(&one.adopted).expect("it runs");
        let got = [read_text(&mut one.client), read_text(&mut one.client), read_text(&mut one.client)];
        assert_eq!(got, ["the framework's", "published", "written"]);
    });
}

#[test]
fn who_does_not_read_is_waited_for_and_told_of_once_few_bytes_are_left() {
    on_each_poller(|settings| {
        let (engine, _) = start(settings);
        let mut one = Framework::new(&engine);
        one.subscribe(&engine, "a");
        let much = more_than_both_ends_take();
        one.say(&engine, &much);
        publish(&engine, "a", "behind much");
        let waiting = one.write(&engine, &frame("last")).expect("it is not over");
        assert!(waiting > 0, "over any outbox_bytes_max, and not closed for it");
        engine.notify_adopted(&one.adopted, 100).expect("it runs");
        assert_eq!(engine.channels_of(one.adopted.id()), ["a"]);
        assert!(engine.take_events(64).is_empty(), "the socket is full");
        let got = [read_text(&mut one.client), read_text(&mut one.client), read_text(&mut one.client)];
        assert!(got[0] == much && got[1..] == ["behind much", "last"]);
        let mut told = 0;
        eventually("it is told of", || {
            told += engine.take_events(64).iter().filter(|event| matches!(event, Event::Drained(_))).count();
            told == 1
        });
        engine.notify_adopted(&one.adopted, 0).expect("it runs");
        eventually("it is told of at once", || {
            engine.take_events(64).iter().any(|event| matches!(event, Event::Drained(_)))
        });
    });
}

#[test]
fn one_that_is_released_has_all_and_the_socket_is_the_frameworks_again() {
    on_each_poller(|settings| {
        let (engine, _) = start(settings);
        let mut one = Framework::new(&engine);
        one.subscribe(&engine, "a");
        let much = more_than_both_ends_take();
        publish(&engine, "a", &much);
        one.say(&engine, "own");
        publish(&engine, "a", "due");
        engine.release_adopted(&one.adopted).expect("it runs");
        publish(&engine, "a", "not for it");
        assert_eq!(one.write(&engine, b"late"), None);
        one.subscribe(&engine, "b");
        assert!(read_text(&mut one.client) == much);
        assert_eq!([read_text(&mut one.client), read_text(&mut one.client)], ["own", "due"]);
        assert_eq!(released(&engine, one.adopted.id()), Released::Released);
        one.socket.write_all(&frame("the framework's")).expect("it is open");
        assert_eq!(read_text(&mut one.client), "the framework's");
        assert_eq!((engine.occupancy("a"), engine.occupancy("b")), (0, 0));
        eventually("nobody is left", || engine.stats().connections == 0);
        drop(one.socket);
        assert!(one.client.read().is_err(), "the engine holds no descriptor of it");
    });
}

#[test]
fn one_that_is_aborted_broken_or_left_by_its_peer_is_given_up_with_the_reason() {
    on_each_poller(|settings| {
        let (engine, _) = start(settings);
        let mut aborted = Framework::new(&engine);
        aborted.say(&engine, &more_than_both_ends_take());
        engine.abort_adopted(&aborted.adopted).expect("it runs");
        assert_eq!(released(&engine, aborted.adopted.id()), Released::Aborted);
        assert_eq!((aborted.adopted.waiting(), aborted.write(&engine, b"late")), (0, None));
        let mut rest = Vec::new();
        aborted.client.get_mut().read_to_end(&mut rest).expect("it was shut down");

        let mut left = Framework::new(&engine);
        left.subscribe(&engine, "a");
        left.say(&engine, "last");
        left.client.get_mut().shutdown(Shutdown::Write).expect("it is open");
        assert_eq!(released(&engine, left.adopted.id()), Released::Ended);
        left.socket.write_all(&frame("the framework's")).expect("the other half is open");
        assert_eq!([read_text(&mut left.client), read_text(&mut left.client)], ["last", "the framework's"]);

        let broken = Framework::new(&engine);
        broken.subscribe(&engine, "a");
        socket2::SockRef::from(broken.client.get_ref())
            .set_linger(Some(std::time::Duration::ZERO))
            .expect("a TCP socket");
        drop(broken.client);
        let why = released(&engine, broken.adopted.id());
        assert!(matches!(why, Released::Broken(_)), "{why:?}");

        let forgotten = Framework::new(&engine);
        let id = forgotten.adopted.id();
        drop(forgotten.adopted);
        assert_eq!(released(&engine, id), Released::Aborted);
        assert_eq!(engine.occupancy("a"), 0);
    });
}

#[test]
fn one_that_is_overtaken_or_disconnected_is_closed_behind_a_whole_frame() {
    on_each_poller(|settings| {
        let (engine, _) = start(Settings { channels: bounded("a", 100_000, 1 << 20), ..settings });
        let close = |one: &mut Client| loop {
            match one.read().expect("a message") {
                Message::Close(Some(close)) => return (u16::from(close.code), close.reason.to_string()),
                Message::Text(_) => {}
                other => panic!("{other:?}"),
            }
        };
        let mut slow = Framework::new(&engine);
        slow.subscribe(&engine, "a");
        slow.say(&engine, &more_than_both_ends_take());
        slow.say(&engine, "never");
        eventually("it is overtaken", || {
            publish(&engine, "a", &"x".repeat(50_000));
            // In step with the shard, or what it has not taken yet reaches `unsent_bytes_max`.
            await_turn(&engine);
            engine.stats().overtaken == 1
        });
        assert_eq!(close(&mut slow.client), (1013, "too slow for channel a".to_owned()));
        let why = released(&engine, slow.adopted.id());
        assert_eq!(why, Released::Closed(1013, "too slow for channel a".to_owned()));
        assert_eq!(engine.stats().closes.get(&1013), Some(&1));

        let mut kicked = Framework::new(&engine);
        kicked.write(&engine, &frame("half of it")[..5]);
        engine.disconnect(kicked.adopted.id(), 4_000, "out").expect("a code");
        let why = released(&engine, kicked.adopted.id());
        assert_eq!(
            why,
            Released::Closed(4_000, "out".to_owned()),
            "where no Close frame may stand, the reason is told"
        );
        drop(kicked.socket);
        let mut bytes = Vec::new();
        kicked.client.get_mut().read_to_end(&mut bytes).expect("it ends");
        assert!(bytes.len() <= 5, "no Close frame in the midst of another one");

        let mut told = Framework::new(&engine);
        told.say(&engine, "before");
        engine.disconnect(told.adopted.id(), 4_001, "bye").expect("a code");
        assert_eq!(close(&mut told.client), (4_001, "bye".to_owned()));
        assert_eq!(released(&engine, told.adopted.id()), Released::Closed(4_001, "bye".to_owned()));
    });
}

#[test]
fn behind_the_frameworks_close_frame_nothing_of_channels_follows() {
    on_each_poller(|settings| {
        let (engine, _) = start(settings);
        let mut one = Framework::new(&engine);
        one.subscribe(&engine, "a");
        publish(&engine, "a", "before");
        one.write(&engine, &[0x88, 0x02, 0x03, 0xE8]);
        publish(&engine, "a", "after");
        assert_eq!(read_text(&mut one.client), "before");
        assert!(matches!(one.client.read(), Ok(Message::Close(_))));
        eventually("it has left", || engine.occupancy("a") == 0);
        engine.release_adopted(&one.adopted).expect("it runs");
        assert_eq!(released(&engine, one.adopted.id()), Released::Released);
        one.client.get_mut().set_nonblocking(true).expect("a socket");
        let read = one.client.get_mut().read(&mut [0; 64]);
        assert!(read.is_err(), "{read:?}");
    });
}

#[test]
fn a_drain_and_the_engines_end_release_and_close_nothing() {
    on_each_poller(|settings| {
        let (engine, _) = start(settings);
        let mut one = Framework::new(&engine);
        one.subscribe(&engine, "a");
        publish(&engine, "a", "published");
        one.say(&engine, "written");
        engine.drain(1001, "", PATIENCE).expect("it runs");
        assert_eq!([read_text(&mut one.client), read_text(&mut one.client)], ["published", "written"]);
        assert_eq!(released(&engine, one.adopted.id()), Released::Released);
        one.socket.write_all(&frame("the framework's")).expect("it is open");
        assert_eq!(read_text(&mut one.client), "the framework's");

        let late = Framework::new(&engine);
        assert_eq!(released(&engine, late.adopted.id()), Released::Released, "it drains");
        let mut stopped = Framework::held(&engine);
        engine.stop();
        assert!(matches!(
            engine.write_adopted(&stopped.adopted, frame("late").into(), false),
            Err(EngineError::NotRunning { .. })
        ));
        stopped.socket.write_all(&frame("the framework's")).expect("it is open");
        assert_eq!(read_text(&mut stopped.client), "the framework's");
    });
}

#[test]
fn who_is_excluded_is_so_when_adopted_too() {
    on_each_poller(|settings| {
        let (engine, _) = start(settings);
        let (mut one, mut other) = (Framework::new(&engine), Framework::new(&engine));
        one.subscribe(&engine, "a");
        other.subscribe(&engine, "a");
        eventually("both are there", || engine.stats().subscriptions == 2);
        let excluded = [one.adopted.id()];
        let publication = Publication { excluded: &excluded, ..Publication::new(Payload::Text("not for one")) };
        engine.publish("a", &publication, false).expect("it runs").expect("nothing to encode");
        publish(&engine, "a", "for both");
        assert_eq!(read_text(&mut one.client), "for both");
        assert_eq!([read_text(&mut other.client), read_text(&mut other.client)], ["not for one", "for both"]);
    });
}

#[test]
fn what_is_no_stream_socket_is_not_adopted() {
    on_each_poller(|settings| {
        let (engine, _) = start(settings);
        let file = std::fs::File::open("/dev/null").expect("it is there");
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
        for (fd, errno) in [(-1, libc_errno("EBADF")), (file.as_raw_fd(), libc_errno("ENOTSOCK"))] {
            let refused = engine.adopt(fd, Format::Raw).expect_err("it is none");
            let EngineError::CannotAdopt { cause, .. } = refused else { panic!("{refused}") };
            assert_eq!(cause.raw_os_error(), Some(errno));
        }
        assert!(engine.adopt(datagrams.as_raw_fd(), Format::Raw).is_err());
        assert_eq!(engine.stats().connections, 0);
    });
}

/// As Linux numbers them.
fn libc_errno(name: &str) -> i32 {
    match name {
        "EBADF" => 9,
        _ => 88,
    }
}

/// One message for several, between what each of them and its channels say.
#[test]
fn a_broadcast_comes_in_the_order_of_the_calls_to_each_of_those_that_it_is_for() {
    on_each_poller(|settings| {
        let (engine, _) = start(Settings { shards: 2, ..settings });
        let mut all: Vec<Framework> = (0..6).map(|_| Framework::new(&engine)).collect();
        all[..3].iter().for_each(|one| one.subscribe(&engine, "a"));
        let mut expected: Vec<Vec<String>> = vec![Vec::new(); all.len()];
        for seed in 0..8 {
            let mut chances = Chances(seed);
            for n in 0..60 {
                let length = [1, 100, 1_100, 3_000][chances.below(4) as usize];
                let text = format!("{seed}:{n}:{}", "x".repeat(length));
                match chances.below(4) {
                    0 => {
                        publish_deferred(&engine, "a", &text, None);
                        expected[..3].iter_mut().for_each(|one| one.push(text.clone()));
                    }
                    1 => {
                        let index = chances.below(6) as usize;
                        all[index].say(&engine, &text);
                        expected[index].push(text);
                    }
                    _ => {
                        let mask = chances.below(64);
                        let is_for = |index: usize| mask >> index & 1 == 1;
                        let add = |to: &mut Broadcasting| {
                            let chosen = all.iter().enumerate().filter(|one| is_for(one.0));
                            chosen.for_each(|one| assert!(to.add(&one.1.adopted).is_some()));
                        };
                        engine.broadcast_adopted(frame(&text).into(), true, add).expect("it runs");
                        let texts = expected.iter_mut().enumerate().filter(|one| is_for(one.0));
                        texts.for_each(|one| one.1.push(text.clone()));
                    }
                }
            }
            engine.flush();
            for (one, expected) in all.iter_mut().zip(&mut expected) {
                for text in expected.drain(..) {
                    assert_eq!(read_text(&mut one.client), text, "seed {seed}");
                }
            }
        }
        eventually("nothing waits", || all.iter().all(|one| one.adopted.waiting() == 0));
        eventually("all are at the tail again", || engine.stats().lagging == 0);
    });
}

#[test]
fn broadcasts_that_were_not_flushed_between_are_one_write_of_each_socket() {
    on_each_poller(|settings| {
        let (engine, _) = start(settings);
        let mut all: Vec<Framework> = (0..3).map(|_| Framework::new(&engine)).collect();
        all.iter().for_each(|one| one.say(&engine, "begun"));
        all.iter_mut().for_each(|one| assert_eq!(read_text(&mut one.client), "begun"));
        let before = eventually_still(|| engine.stats().writes);
        for n in 0..20 {
            let add = |to: &mut Broadcasting| assert!(all.iter().all(|one| to.add(&one.adopted).is_some()));
            engine.broadcast_adopted(frame(&n.to_string()).into(), true, add).expect("it runs");
        }
        engine.flush();
        for one in &mut all {
            (0..20).for_each(|n| assert_eq!(read_text(&mut one.client), n.to_string()));
        }
        assert_eq!(eventually_still(|| engine.stats().writes) - before, 3);
    });
}

/// A number that two looks in a row agree on, the engine having had turns between.
fn eventually_still(mut number: impl FnMut() -> u64) -> u64 {
    let mut last = number();
    eventually("it stands still", || {
        std::thread::yield_now();
        std::mem::replace(&mut last, number()) == last
    });
    last
}

#[test]
fn a_broadcast_tells_who_took_nothing_and_for_whom_how_much_waits() {
    on_each_poller(|settings| {
        let (engine, _) = start(settings);
        let (mut good, slow, gone, held) =
            (Framework::new(&engine), Framework::new(&engine), Framework::new(&engine), Framework::held(&engine));
        engine.release_adopted(&gone.adopted).expect("it runs");
        let text = more_than_both_ends_take();
        let bytes: std::sync::Arc<[u8]> = frame(&text).into();
        let length = bytes.len() as u64;
        let add = |to: &mut Broadcasting| {
            [&good, &slow, &gone, &held].map(|one| to.add(&one.adopted).map(|waiting| waiting >= length))
        };
        let told = engine.broadcast_adopted(std::sync::Arc::clone(&bytes), true, add).expect("it runs");
        assert_eq!(told, [Some(true), Some(true), None, Some(true)]);
        engine.flush();
        assert_eq!(read_text(&mut good.client), text, "a stalled neighbour holds up nobody");
        assert_eq!(released(&engine, gone.adopted.id()), Released::Released);
        assert!(slow.adopted.waiting() > 0 && held.adopted.waiting() == length);
        assert!(std::sync::Arc::strong_count(&bytes) >= 3, "what waits for several is there once");
        engine.abort_adopted(&slow.adopted).expect("it runs");
        engine.abort_adopted(&held.adopted).expect("it runs");
        eventually("nobody has it any more", || std::sync::Arc::strong_count(&bytes) == 1);
        engine.stop();
        let refused = engine.broadcast_adopted(bytes, true, |to| to.add(&good.adopted));
        assert!(matches!(refused, Err(EngineError::NotRunning { .. })));
    });
}

/// Between the parts of a message nothing else may stand, and none of the frames that are shared is cut.
#[test]
fn a_broadcast_to_who_is_in_the_middle_of_a_frame_goes_on_with_it() {
    on_each_poller(|settings| {
        let (engine, _) = start(settings);
        let (mut one, mut other) = (Framework::new(&engine), Framework::new(&engine));
        let own = frame("whole");
        one.write(&engine, &own[..3]);
        let add = |to: &mut Broadcasting| assert!([&one, &other].iter().all(|each| to.add(&each.adopted).is_some()));
        engine.broadcast_adopted(own[3..].into(), false, add).expect("it runs");
        assert_eq!(read_text(&mut one.client), "whole");
        one.say(&engine, "next");
        assert_eq!(read_text(&mut one.client), "next");
        let mut bytes = vec![0; own.len() - 3];
        other.client.get_mut().read_exact(&mut bytes).expect("it is there");
        assert_eq!(bytes, own[3..], "it is no frame: whoever frames answers for it");
    });
}
