//! A link to real NATS servers: what it promises, and what becomes of it where something goes wrong.
mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::channel;
use std::time::Duration;

use fanwire_backbone::{Event, Keep, Link, Options, Position, Refused};
use support::nats::{Nats, nats_server};
use support::{ALL, Heard, KEEP, NOWHERE, texts};

fn quick() -> Options {
    Options { ping_every: Duration::from_millis(200), silent_max: Duration::from_millis(1_500), ..Options::default() }
}

#[test]
fn what_is_published_comes_in_order_with_what_was_before() {
    if nats_server().is_none() {
        return;
    }
    let server = Nats::start("");
    let (mut one, top) = Heard::wanting(&server.url(), "c a.*>ß");
    assert_eq!(top, NOWHERE);
    let mut other = Heard::start(&server.url());
    let mut before = NOWHERE;
    for number in 0..20 {
        other.publish("elsewhere", "x");
        let link = if number % 2 == 0 { &mut one } else { &mut other };
        let position = link.publish("c a.*>ß", &number.to_string());
        assert!(position > before, "{position} after {before}");
        let record = one.record("c a.*>ß");
        assert_eq!((record.position, record.previous.offset), (position, before.offset));
        assert_eq!(record.bytes, number.to_string().as_bytes());
        before = position;
    }
    let (mut late, top) = Heard::wanting(&server.url(), "c a.*>ß");
    assert_eq!(top, before);
    let (records, top, _) = late.since("c a.*>ß", NOWHERE);
    assert_eq!((records.len(), top), (20, before));
    let (rest, _, is_whole) = late.since("c a.*>ß", records[16].position);
    assert_eq!((texts(&rest), is_whole), (vec!["17".into(), "18".into(), "19".into()], true));
    assert_eq!(rest[0].previous, records[16].position);
    assert_eq!(late.since("c a.*>ß", before), (vec![], before, true));
}

#[test]
fn what_a_channel_keeps_is_kept_and_who_has_less_knows() {
    if nats_server().is_none() {
        return;
    }
    let server = Nats::start("");
    let mut link = Heard::start(&server.url());
    let few = Keep { messages: 3, age_ms: 60_000 };
    link.link.want(&["few", "short"], few);
    let mut places = Vec::new();
    for number in 0..6 {
        places.push(link.publish_as("few", number.to_string().as_bytes(), few, None).unwrap());
    }
    let (records, _, is_whole) = link.since("few", NOWHERE);
    assert_eq!((texts(&records), is_whole), (vec!["3".into(), "4".into(), "5".into()], false));
    assert_eq!(records[0].previous, places[2]);
    assert!(link.since("few", places[2]).2 && !link.since("few", places[0]).2);
    let none = Keep { messages: 0, age_ms: 0 };
    link.link.want(&["none"], none);
    link.wanted("none");
    let first = link.publish_as("none", b"x", none, None).unwrap();
    let second = link.publish_as("none", b"y", none, None).unwrap();
    link.record("none");
    assert_eq!(link.record("none").previous, first);
    assert_eq!(link.since("none", first), (vec![], second, false));
    let short = Keep { messages: 3, age_ms: 1 };
    link.link.want(&["short"], short);
    link.publish_as("short", b"x", short, None).unwrap();
    std::thread::park_timeout(Duration::from_millis(20)); // it is the age that is tried
    assert_eq!(link.since("short", NOWHERE).0, []);
    let streams = server.taking();
    assert_eq!(streams.len(), 2, "{streams:?}");
    let key = Some("key");
    let once = link.publish_as("few", b"once", few, key).unwrap();
    assert_eq!(link.publish_as("few", b"twice", few, key), Ok(once));
}

/// The server takes two streams for one subject where they are made at the same time.
#[test]
fn links_that_begin_at_the_same_time_make_one_stream() {
    if nats_server().is_none() {
        return;
    }
    let server = Nats::start("");
    let prefixed = |number: u32| Options { prefix: format!("p{number}"), ..Options::default() };
    for number in 0..20 {
        let mut links = [(); 3].map(|()| Heard::with(&server.url(), prefixed(number)));
        links.iter().for_each(|link| link.link.want(&["c"], KEEP));
        let epochs = links.each_mut().map(|link| link.publish("c", "x").epoch);
        assert_eq!(epochs, [epochs[0]; 3]);
    }
    assert_eq!(server.taking().len(), 20);
}

#[test]
fn machines_tell_one_another_and_patterns_are_heard() {
    if nats_server().is_none() {
        return;
    }
    let server = Nats::start("");
    let of = |machine| Options { machine: Some(machine), ..Options::default() };
    let (mut a, mut b) = (Heard::with(&server.url(), of(1)), Heard::with(&server.url(), of(2)));
    a.up();
    b.up();
    let told = |link: &mut Heard| {
        link.next("something told", |event| match event {
            Event::Told(bytes) => Some(bytes.clone()),
            _ => None,
        })
    };
    a.link.tell(Some(2), b"two".to_vec()).unwrap();
    a.link.tell(None, b"all".to_vec()).unwrap();
    assert_eq!((told(&mut b), told(&mut b), told(&mut a)), (b"two".to_vec(), b"all".to_vec(), b"all".to_vec()));
    b.link.listen("odds:*", true);
    b.link.want(&["fence"], KEEP);
    b.wanted("fence");
    a.publish("other", "no");
    let position = a.publish("odds:7", "yes");
    assert_eq!(b.record("odds:7").position, position);
    b.link.listen("odds:*", false);
    drop(a);
    b.publish("c", "it goes on");
}

#[test]
fn a_server_that_was_killed_comes_back_with_what_it_had() {
    if nats_server().is_none() {
        return;
    }
    let mut server = Nats::start("");
    let (mut link, _) = Heard::wanting(&server.url(), "c");
    link.up();
    let first = link.publish("c", "one");
    server.kill();
    let why = link.down();
    assert!(why.contains(&server.port.to_string()), "{why}");
    assert!(matches!(link.publish_as("c", b"x", KEEP, None), Err(Refused::Down(_))));
    server.begin();
    link.up();
    assert_eq!(link.wanted("c"), first);
    let second = link.publish_in_the_end("c", "two");
    assert_eq!(second.epoch, first.epoch);
    let (records, _, is_whole) = link.since("c", first);
    assert_eq!((texts(&records), is_whole), (vec!["two".into()], true));
}

#[test]
fn a_stream_that_was_deleted_is_made_anew_and_begins_a_later_epoch() {
    if nats_server().is_none() {
        return;
    }
    let server = Nats::start("");
    let (mut deaf, _) = Heard::wanting(&server.url(), "c");
    deaf.up();
    let mut link = Heard::start(&server.url());
    let first = link.publish("c", "one");
    let [stream] = server.taking().try_into().unwrap();
    assert!(server.ask(&format!("$JS.API.STREAM.DELETE.{stream}"), "").contains("\"success\":true"));
    // Who only listens notices, too.
    let why = deaf.down();
    assert!(why.contains("stream"), "{why}");
    deaf.up();
    assert_eq!(deaf.wanted("c"), NOWHERE);
    let second = link.publish_in_the_end("c", "two");
    assert!(second.epoch > first.epoch, "{second} after {first}");
    deaf.record("c");
    let record = deaf.record("c");
    assert_eq!((record.position, record.previous.offset), (second, 0));
    let (records, top, is_whole) = deaf.since("c", first);
    assert_eq!((texts(&records), top, is_whole), (vec!["two".into()], second, false));
}

#[test]
fn a_stream_that_has_lost_publications_gives_no_position_twice() {
    if nats_server().is_none() {
        return;
    }
    let server = Nats::start("");
    let mut link = Heard::start(&server.url());
    let first = link.publish("c", "one");
    for number in 0..3 {
        link.publish("c", &number.to_string());
    }
    // As one is that comes back without its last seconds: the same name, and an earlier end.
    let [stream] = server.taking().try_into().unwrap();
    let info = server.ask(&format!("$JS.API.STREAM.INFO.{stream}"), "");
    let config = info.split_once("\"config\":").unwrap().1.split_once(",\"created\"").unwrap().0.to_owned();
    server.ask(&format!("$JS.API.STREAM.DELETE.{stream}"), "");
    let made = server.ask(&format!("$JS.API.STREAM.CREATE.{stream}"), &config);
    assert!(made.contains("did_create") || made.contains("\"config\""), "{made}");
    let why = link.next("down for it", |event| match event {
        Event::Down(why) if why.contains("has lost publications") => Some(why.clone()),
        _ => None,
    });
    assert!(why.contains(&stream), "{why}");
    let later = link.publish_in_the_end("c", "later");
    assert!(later.epoch > first.epoch, "{later} after {first}");
}

#[test]
fn what_others_publish_in_our_channels_is_counted_and_stepped_over() {
    if nats_server().is_none() {
        return;
    }
    let server = Nats::start("");
    let (mut link, _) = Heard::wanting(&server.url(), "c");
    let foreign = |link: &mut Heard, wanted: u64| {
        link.next("foreign", |event| match event {
            Event::Foreign { channel, reason, count } if **channel == *"c" && *count == wanted => Some(*reason),
            _ => None,
        })
    };
    let first = link.publish("c", "one");
    link.record("c");
    server.publish("fanwire.in.100.c", "hello");
    assert_eq!(foreign(&mut link, 1), "it does not begin with fw, version 1");
    server.publish("fanwire.out.100.c", "hello");
    let second = link.publish("c", "two");
    let record = link.record("c");
    assert_eq!((record.position, record.previous), (second, first));
    let (records, _, is_whole) = link.since("c", first);
    assert_eq!((texts(&records), records[0].previous, is_whole), (vec!["two".into()], first, true));
}

#[test]
fn who_may_not_is_told_and_no_password_is() {
    if nats_server().is_none() {
        return;
    }
    let users = "authorization { users: [\n\
        { user: joe, password: right },\n\
        { user: few, password: pw, permissions: { publish: [\"$JS.API.>\"], subscribe: [\"_INBOX.>\"] } }\n] }";
    let server = Nats::start(users);
    let url = |login: &str| format!("nats://{login}@127.0.0.1:{}", server.port);
    let why = Heard::start(&url("joe:wr0ng")).down();
    assert!(why.contains("Authorization Violation") && !why.contains("wr0ng"), "{why}");
    let (mut right, _) = Heard::wanting(&url("joe:right"), "c");
    right.publish("c", "x");
    let mut few = Heard::start(&url("few:pw"));
    few.link.want(&["c"], KEEP);
    let reason = few.next("unheard", |event| match event {
        Event::Unheard { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert!(reason.contains("fanwire.out.100.c"), "{reason}");
    let refused = few.publish_as("c", b"x", KEEP, None).unwrap_err();
    assert!(matches!(&refused, Refused::Server(why) if why.contains("fanwire.in.100.c")), "{refused}");
}

#[test]
fn a_token_lets_in() {
    if nats_server().is_none() {
        return;
    }
    let server = Nats::start("authorization { token: \"t0ken\" }");
    let mut link = Heard::start(&format!("nats://t0ken@127.0.0.1:{}", server.port));
    link.publish("c", "x");
}

#[test]
fn a_server_without_jetstream_one_that_is_too_old_and_none_are_named() {
    if nats_server().is_none() {
        return;
    }
    let mut server = Nats::prepared("");
    server.begin();
    server.wait();
    let why = Heard::start(&server.url()).down();
    assert!(why.contains("JetStream is not enabled"), "{why}");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let old = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.write_all(b"INFO {\"version\":\"2.11.9\",\"headers\":true,\"max_payload\":1048576}\r\n");
        let _ = stream.read(&mut [0; 100]);
    });
    let why = Heard::start(&format!("nats://127.0.0.1:{port}")).down();
    assert!(why.contains("nats-server 2.11.9 is too old: 2.12"), "{why}");
    old.join().unwrap();
    let why = Heard::start(&format!("nats://127.0.0.1:{port}")).down();
    assert!(why.contains("refused"), "{why}");
    let small = Nats::start("max_payload: 65535");
    let why = Heard::start(&small.url()).down();
    assert!(why.contains("the server's max_payload is 65535 bytes") && why.contains("needs 65536"), "{why}");
}

#[test]
fn a_stream_of_somebody_else_is_named() {
    if nats_server().is_none() {
        return;
    }
    let server = Nats::start("");
    let made = server.ask("$JS.API.STREAM.CREATE.ORDERS", "{\"name\":\"ORDERS\",\"subjects\":[\"fanwire.>\"]}");
    assert!(made.contains("ORDERS"), "{made}");
    let mut link = Heard::start(&server.url());
    link.link.want(&["c"], KEEP);
    let why = link.down();
    assert!(why.contains("the stream ORDERS takes fanwire.in.100.*"), "{why}");
}

#[test]
fn what_is_too_large_is_refused_with_the_bound() {
    if nats_server().is_none() {
        return;
    }
    let server = Nats::start("max_payload: 65536");
    let mut link = Heard::start(&server.url());
    let refused = link.publish_as("c", &[b'x'; 65_536], KEEP, None).unwrap_err();
    let says = "a publication of 65540 bytes: the server's max_payload is 65536";
    assert!(matches!(&refused, Refused::Server(why) if why == says), "{refused}");
    link.publish_as("c", &[b'x'; 65_532], KEEP, None).unwrap();
    let refused = link.publish_as("c", &[b'x'; 65_532], KEEP, Some("k")).unwrap_err();
    assert!(matches!(&refused, Refused::Server(why) if why.contains("max_payload is 65536")), "{refused}");
    link.publish_as("c", &[b'x'; 65_000], KEEP, Some("k")).unwrap();
    let long = "ü".repeat(200);
    let refused = link.publish_as(&long, b"x", KEEP, None).unwrap_err();
    assert!(
        matches!(&refused, Refused::Server(why) if why.contains("1200 bytes") && why.contains("1024")),
        "{refused}"
    );
}

#[test]
fn a_server_that_is_silent_is_given_up_and_comes_back() {
    if nats_server().is_none() {
        return;
    }
    let server = Nats::start("");
    let mut link = Heard::with(&server.url(), quick());
    link.link.want(&["c"], KEEP);
    link.wanted("c");
    link.up();
    server.signal("STOP");
    link.link.publish(1, "c", b"x".to_vec(), KEEP, None).unwrap();
    let why = link.down();
    assert!(why.contains("for 1.5s"), "{why}");
    let outcome = link.published(1);
    assert!(matches!(outcome, Err(Refused::Unknown(_))), "{outcome:?}");
    server.signal("CONT");
    let position = link.publish_in_the_end("c", "later");
    link.next("it", |event| matches!(event, Event::Record { record, .. } if record.position == position).then_some(()));
}

#[test]
fn who_reads_too_slowly_is_cut_by_the_server_and_told() {
    if nats_server().is_none() {
        return;
    }
    let server = Nats::start("max_pending: 1048576\nwrite_deadline: \"500ms\"");
    let ((open, gate), (tell, events)) = (channel::<()>(), channel());
    let mut is_open = false;
    let slow = Link::start(&server.url(), Options::default(), move |event| {
        if matches!(event, Event::Record { .. }) && !is_open {
            let _ = gate.recv();
            is_open = true;
        }
        let _ = tell.send(event);
    });
    let slow = slow.unwrap();
    slow.want(&["c"], ALL);
    while !matches!(events.recv_timeout(Duration::from_secs(30)).unwrap(), Event::Wanted { .. }) {}
    let mut fast = Heard::start(&server.url());
    let mut log = String::new();
    while !log.contains("Slow Consumer") {
        fast.publish_as("c", &vec![b'x'; 1 << 18], ALL, None).unwrap();
        log = server.log();
    }
    open.send(()).unwrap();
    while !matches!(events.recv_timeout(Duration::from_secs(30)).unwrap(), Event::Down(_)) {}
    while !matches!(events.recv_timeout(Duration::from_secs(30)).unwrap(), Event::Wanted { .. }) {}
}

#[test]
fn a_cluster_of_three_goes_on_without_one() {
    if nats_server().is_none() {
        return;
    }
    let mut servers = Nats::cluster();
    let url = format!("nats://{}", servers.each_ref().map(|one| format!("127.0.0.1:{}", one.port)).join(","));
    let mut links = [0, 1].map(|_| Heard::start(&url));
    links.iter().for_each(|link| link.link.want(&["c"], KEEP));
    let mut placed: Vec<Position> =
        (0..5).map(|number| links[number % 2].publish_in_the_end("c", &number.to_string())).collect();
    let [stream] = servers[0].taking().try_into().unwrap();
    let info = servers[0].ask(&format!("$JS.API.STREAM.INFO.{stream}"), "");
    assert!(info.contains("\"num_replicas\":3"), "{info}");
    let leader = info.split("\"leader\":\"n").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let at = servers.iter().position(|one| one.is_named(&leader)).unwrap();
    servers[at].kill();
    for number in 5..10 {
        placed.push(links[number % 2].publish_in_the_end("c", &number.to_string()));
    }
    assert!(placed.is_sorted() && placed.iter().all(|position| position.epoch == placed[0].epoch), "{placed:?}");
    let last = *placed.last().unwrap();
    for link in &mut links {
        link.next("the last", |event| match event {
            Event::Record { record, .. } => (record.position == last).then_some(()),
            Event::Wanted { top, .. } => (*top == last).then_some(()),
            _ => None,
        });
        let (records, top, is_whole) = link.since("c", placed[0]);
        assert_eq!((top, is_whole), (last, true));
        let came: Vec<Position> = records.iter().map(|record| record.position).collect();
        assert!(placed[1..].iter().all(|position| came.contains(position)), "{came:?}");
        assert!(records.windows(2).all(|two| two[1].previous == two[0].position));
    }
}
