//! What goes wrong at a server is told, and no position is ever given twice.
mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::channel;
use std::time::Duration;

use fanwire_backbone::{Event, Link, Options, Position, Refused};
use support::{ALL, Heard, KEEP, NOWHERE, Server, has_server, texts};

/// How many offsets another server leaves out.
const GAP: u64 = 1 << 20;

fn quick() -> Options {
    Options { ping_every: Duration::from_millis(100), silent_max: Duration::from_millis(1_500), ..Options::default() }
}

#[test]
fn a_server_that_was_killed_and_kept_nothing_begins_a_later_epoch() {
    if !has_server() {
        return;
    }
    let mut server = Server::start(&[]);
    let (mut link, _) = Heard::wanting(&server.url(), "c");
    link.up();
    let first = link.publish("c", "one");
    server.kill();
    let why = link.down();
    assert!(why.contains(&server.port.to_string()), "{why}");
    assert!(matches!(link.publish_as("c", b"x", KEEP, None), Err(Refused::Down(_))));
    server.begin();
    link.up();
    assert_eq!(link.wanted("c"), NOWHERE);
    let second = link.publish("c", "two");
    assert!(second.epoch > first.epoch && second.offset == 1);
    let (records, top, is_whole) = link.since("c", first);
    assert_eq!((texts(&records), top, is_whole), (vec!["two".into()], second, false));
}

#[test]
fn a_server_that_was_killed_and_kept_all_goes_on_with_a_gap() {
    if !has_server() {
        return;
    }
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let (mut link, _) = Heard::wanting(&server.url(), "c");
    let first = link.publish("c", "one");
    assert_eq!(link.record("c").position, first); // by the other connection, which is killed, too
    server.kill();
    link.down();
    server.begin();
    assert_eq!(link.wanted("c"), first);
    let second = link.publish_in_the_end("c", "two");
    assert!(second.epoch == first.epoch && second.offset > first.offset + GAP, "{second}");
    assert_eq!(link.record("c").previous, first);
    let (records, _, is_whole) = link.since("c", first);
    assert_eq!((texts(&records), is_whole), (vec!["two".into()], true));
    assert_eq!(link.publish("c", "three").offset, second.offset + 1);
}

#[test]
fn who_is_cut_off_is_told_and_can_ask_for_what_it_missed() {
    if !has_server() {
        return;
    }
    let server = Server::start(&[]);
    let (mut link, _) = Heard::wanting(&server.url(), "c");
    let mut other = Heard::start(&server.url());
    link.up();
    let first = link.publish("c", "one");
    server.ask("CLIENT KILL TYPE pubsub");
    let missed = other.publish_in_the_end("c", "missed"); // it is cut off, too, and what was under way may stand
    let why = link.down();
    assert!(why.contains("CLIENT KILL"), "{why}");
    link.up();
    let top = link.wanted("c");
    assert!((first..=missed).contains(&top), "{top}: it may have been back before that was published");
    let (records, _, is_whole) = link.since("c", first);
    assert!(is_whole && records.last().map(|last| last.position) == Some(missed));
    assert!(texts(&records).iter().all(|text| text == "missed"));
    let last = other.publish("c", "last");
    link.next("the last record", |event| {
        matches!(event, Event::Record { record, .. } if record.position == last).then_some(())
    });
}

#[test]
fn a_server_that_is_flushed_begins_a_later_epoch_and_gets_the_script_again() {
    if !has_server() {
        return;
    }
    let server = Server::start(&[]);
    let (mut link, _) = Heard::wanting(&server.url(), "c");
    let first = link.publish("c", "one");
    server.ask("FLUSHALL");
    server.ask("SCRIPT FLUSH");
    let second = link.publish("c", "two");
    assert!(second.epoch > first.epoch && second.offset == 1);
    link.record("c");
    let record = link.record("c");
    assert_eq!((record.position, record.previous.offset), (second, 0));
    server.ask("DEL fanwire:s:c");
    assert_eq!(link.since("c", Position { offset: 0, ..second }), (vec![], second, false));
    server.ask("SET fanwire:s:c other");
    let refused = link.publish_as("c", b"x", KEEP, None).unwrap_err();
    assert!(matches!(&refused, Refused::Server(why) if why.contains("WRONGTYPE")), "{refused}");
}

#[test]
fn a_server_that_is_silent_is_given_up_and_comes_back() {
    if !has_server() {
        return;
    }
    let server = Server::start(&[]);
    let mut link = Heard::with(&server.url(), quick());
    link.link.want(&["c"], KEEP);
    link.wanted("c");
    link.up();
    server.signal("STOP");
    link.link.publish(1, "c", b"x".to_vec(), KEEP, None).unwrap();
    let why = link.down();
    assert!(why.contains("nothing was heard for 1.5s"), "{why}");
    assert!(matches!(link.published(1), Err(Refused::Unknown(_))));
    server.signal("CONT");
    link.up();
    link.wanted("c");
    let position = link.publish_in_the_end("c", "later");
    link.next("it", |event| matches!(event, Event::Record { record, .. } if record.position == position).then_some(()));
}

#[test]
fn a_full_server_is_named_and_nothing_of_a_batch_is_done() {
    if !has_server() {
        return;
    }
    let server = Server::start(&[]);
    let mut link = Heard::start(&server.url());
    let first = link.publish("c", "one");
    server.ask("CONFIG SET maxmemory 1");
    for (channel, key) in [("c", None), ("c", Some("key")), ("d", None)] {
        let refused = link.publish_as(channel, b"two", KEEP, key).unwrap_err();
        assert!(matches!(&refused, Refused::OutOfMemory(why) if why.contains("OOM")), "{refused}");
    }
    server.ask("CONFIG SET maxmemory 0");
    assert_eq!(link.publish_as("c", b"two", KEEP, Some("key")).unwrap().offset, first.offset + 1);
    assert_eq!(link.publish("d", "x").offset, 1);
}

#[test]
fn what_others_publish_in_our_channels_is_counted_and_skipped() {
    if !has_server() {
        return;
    }
    let server = Server::start(&[]);
    let (mut link, _) = Heard::wanting(&server.url(), "c");
    server.ask("PUBLISH fanwire:c:c hello");
    let (reason, count) = link.next("foreign", |event| match event {
        Event::Foreign { channel, reason, count } if **channel == *"c" => Some((*reason, *count)),
        _ => None,
    });
    assert_eq!((reason, count), ("it is shorter than a head", 1));
    let first = link.publish("c", "one");
    assert_eq!(link.record("c").position, first);
    server.ask("XADD fanwire:s:c * other thing");
    let (records, ..) = link.since("c", NOWHERE);
    assert_eq!(texts(&records), ["one"]);
}

#[test]
fn a_wrong_password_and_one_without_rights_are_told() {
    if !has_server() {
        return;
    }
    let server = Server::start(&["--requirepass", "right"]);
    let url = |login: &str| format!("redis://{login}@127.0.0.1:{}", server.port);
    let mut wrong = Heard::start(&url(":wr0ng"));
    let why = wrong.down();
    assert!(why.contains("WRONGPASS") && !why.contains("wr0ng"), "{why}");
    assert!(matches!(wrong.publish_as("c", b"x", KEEP, None), Err(Refused::Down(why)) if why.contains("WRONGPASS")));
    let (mut right, _) = Heard::wanting(&url(":right"), "c");
    right.publish("c", "x");
    server.ask_all(&["AUTH right", "ACL SETUSER few on >pw ~* +@all -info"]);
    let why = Heard::start(&url("few:pw")).down();
    assert!(why.contains("NOPERM"), "{why}");
    server.ask_all(&["AUTH right", "ACL SETUSER deaf on >pw ~* +@all resetchannels"]);
    let mut deaf = Heard::start(&url("deaf:pw"));
    deaf.link.want(&["c"], KEEP);
    let reason = deaf.next("unheard", |event| match event {
        Event::Unheard { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert!(reason.contains("NOPERM"), "{reason}");
}

#[test]
fn a_replica_that_has_lost_publications_gives_none_of_their_positions() {
    if !has_server() {
        return;
    }
    let master = Server::start(&["--repl-diskless-sync-delay", "0"]);
    let replica = Server::start(&["--replicaof", &format!("127.0.0.1 {}", master.port)]);
    let mut old = Heard::start(&master.url());
    let kept = old.publish("c", "kept");
    old.publish("d", "kept");
    assert!(replica.ask_until("HGET fanwire:m:d o", "$1\r\n1\r\n"));
    replica.ask("REPLICAOF NO ONE");
    let lost = old.publish("c", "lost");
    let lost_too = old.publish("d", "lost");
    // Who knows nothing of it.
    let mut new = Heard::start(&replica.url());
    let first = new.publish("c", "new");
    assert!(first.epoch == kept.epoch && first.offset > kept.offset + GAP, "{first}");
    let (records, _, is_whole) = new.since("c", kept);
    assert_eq!((records.len(), records[0].previous, is_whole), (1, kept, true));
    assert!(!new.since("c", lost).2);
    // Who knows better, and says so.
    let mut knowing = Heard::start(&replica.url());
    knowing.link.seen("d", lost_too);
    let renewed = knowing.publish("d", "new");
    assert!(renewed.epoch > lost_too.epoch && renewed.offset == 1, "{renewed}");
}

#[test]
fn a_master_that_is_one_no_longer_is_named() {
    if !has_server() {
        return;
    }
    let server = Server::start(&[]);
    let mut link = Heard::start(&server.url());
    link.publish("c", "x");
    server.ask("REPLICAOF 127.0.0.1 1");
    let refused = link.publish_as("c", b"y", KEEP, None).unwrap_err();
    assert!(matches!(&refused, Refused::Down(why) if why.contains("READONLY")), "{refused}");
    assert!(link.down().contains("READONLY"));
    let why = link.down();
    assert!(why.contains("role is \"slave\""), "{why}");
    server.ask("REPLICAOF NO ONE");
    link.publish_in_the_end("c", "z");
}

#[test]
fn who_reads_too_slowly_is_cut_by_the_server_and_told() {
    if !has_server() {
        return;
    }
    let server = Server::start(&["--client-output-buffer-limit", "pubsub 262144 0 0"]);
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
    slow.want(&["c"], KEEP);
    while !matches!(events.recv().unwrap(), Event::Wanted { .. }) {}
    let mut fast = Heard::start(&server.url());
    while server.ask("CLIENT LIST TYPE pubsub").contains("addr=") {
        fast.publish_as("c", &vec![b'x'; 1 << 18], ALL, None).unwrap();
    }
    open.send(()).unwrap();
    let down = loop {
        if let Event::Down(why) = events.recv().unwrap() {
            break why;
        }
    };
    assert!(down.contains("client-output-buffer-limit"), "{down}");
    while !matches!(events.recv().unwrap(), Event::Wanted { .. }) {}
}

#[test]
fn a_server_that_is_too_old_or_none_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let old = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = [0; 1_000];
        let _ = stream.read(&mut bytes);
        stream.write_all(b"-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n").unwrap();
    });
    let why = Heard::start(&format!("redis://127.0.0.1:{port}")).down();
    assert!(why.contains("too old") && why.contains("6.2"), "{why}");
    old.join().unwrap();
    let mut nobody = Heard::start(&format!("redis://127.0.0.1:{port}"));
    let why = nobody.down();
    assert!(why.contains("refused"), "{why}");
}

#[test]
fn a_link_that_is_dropped_has_closed_its_connections() {
    if !has_server() {
        return;
    }
    let server = Server::start(&[]);
    let (mut link, _) = Heard::wanting(&server.url(), "c");
    link.publish("c", "x");
    drop(link);
    while server.ask("CLIENT LIST").matches("laddr=").count() > 1 {
        std::thread::yield_now();
    }
}
