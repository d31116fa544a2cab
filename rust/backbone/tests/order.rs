//! One order and one position for each publication, whoever publishes and whoever hears; and what is kept.
mod support;

use fanwire_backbone::{Event, Full, Keep, Options, Position};
use support::{ALL, Heard, KEEP, NOWHERE, Server, has_server, texts};

#[test]
fn publishers_of_two_links_have_one_order_at_both() {
    if !has_server() {
        return;
    }
    let server = Server::start(&[]);
    let channels = ["odds:7", "ß {x}:y"];
    let mut links = [Heard::start(&server.url()), Heard::start(&server.url())];
    for link in &mut links {
        link.link.want(&channels, KEEP);
        for channel in channels {
            assert_eq!(link.wanted(channel), NOWHERE);
        }
    }
    std::thread::scope(|scope| {
        for (number, link) in links.iter().enumerate() {
            for thread in 0..3 {
                let link = &link.link;
                scope.spawn(move || {
                    for count in 0..500_u64 {
                        let ticket = (thread + 1) * 1_000 + count;
                        let text = format!("{number}-{thread}-{count}");
                        let channel = channels[(count % 2) as usize];
                        link.publish(ticket, channel, text.into_bytes(), ALL, None).unwrap();
                    }
                });
            }
        }
    });
    let mut seen = Vec::new();
    for link in &mut links {
        let mut positions: Vec<Position> = (0..3)
            .flat_map(|thread| (0..500).map(move |count| (thread + 1) * 1_000 + count))
            .map(|ticket| link.published(ticket).unwrap())
            .collect();
        positions.sort();
        let of_channels = channels.map(|channel| (0..1_500).map(|_| link.record(channel)).collect::<Vec<_>>());
        for records in &of_channels {
            assert_eq!(records[0].previous.offset, 0);
            assert!(records.windows(2).all(|two| two[1].previous == two[0].position));
            for publisher in 0..6 {
                let of = format!("{}-{}-", publisher / 3, publisher % 3);
                let counts = texts(records).into_iter().filter_map(|text| text.strip_prefix(&of)?.parse::<u64>().ok());
                let counts: Vec<_> = counts.collect();
                assert!(counts.len() == 250 && counts.is_sorted());
            }
        }
        seen.push(of_channels);
    }
    assert_eq!(seen[0], seen[1]);
    let (records, top, is_whole) = links[0].since("odds:7", Position { offset: 1_000, ..seen[0][0][0].position });
    assert!(is_whole && top.offset == 1_500);
    assert_eq!(records, seen[0][0][1_000..]);
    assert_eq!(links[0].link.waiting(), (0, 0));
}

#[test]
fn what_is_kept_is_whole_until_its_beginning_is_trimmed() {
    if !has_server() {
        return;
    }
    let server = Server::start(&[]);
    let mut link = Heard::start(&server.url());
    assert_eq!(link.since("c", NOWHERE), (vec![], NOWHERE, true));
    let few = Keep { messages: 3, age_ms: 60_000 };
    let positions: Vec<_> =
        (0..5).map(|number| link.publish_as("c", number.to_string().as_bytes(), few, None).unwrap()).collect();
    let (records, top, is_whole) = link.since("c", positions[1]);
    assert_eq!((texts(&records), top, is_whole), (vec!["2".into(), "3".into(), "4".into()], positions[4], true));
    let (records, _, is_whole) = link.since("c", positions[0]);
    assert_eq!((records.len(), is_whole), (3, false));
    assert_eq!(link.since("c", positions[4]), (vec![], positions[4], true));
    let other = Position { epoch: 5, offset: 4 };
    let (records, top, is_whole) = link.since("c", other);
    assert_eq!((records.len(), top, is_whole), (3, positions[4], false));
    let later = Position { offset: 9, ..top };
    assert!(!link.since("c", later).2);
    let none = Keep { messages: 0, age_ms: 0 };
    let first = link.publish_as("n", b"x", none, None).unwrap();
    let second = link.publish_as("n", b"y", none, None).unwrap();
    assert_eq!(link.since("n", first), (vec![], second, false));
    assert_eq!(link.since("n", second), (vec![], second, true));
    assert!(server.ask("EXISTS fanwire:s:n").starts_with(":0"));
    for key in ["fanwire:m:n", "fanwire:m:c", "fanwire:s:c"] {
        assert!(!server.ask(&format!("PTTL {key}")).starts_with(":-1"), "{key} stays for ever");
    }
}

#[test]
fn what_is_too_old_goes() {
    if !has_server() {
        return;
    }
    let server = Server::start(&[]);
    let mut link = Heard::start(&server.url());
    let keep = Keep { messages: 1_000, age_ms: 200 };
    let mut first = NOWHERE;
    for number in 0..20 {
        let position = link.publish_as("c", b"old", keep, None).unwrap();
        first = if number == 0 { position } else { first };
    }
    let gone = |link: &mut Heard| {
        let position = link.publish_as("c", b"new", keep, None).unwrap();
        let (records, _, is_whole) = link.since("c", Position { offset: 0, ..position });
        (!texts(&records).contains(&"old".to_owned()), is_whole)
    };
    let began = std::time::Instant::now();
    loop {
        match gone(&mut link) {
            (true, is_whole) => break assert!(!is_whole),
            (false, _) => assert!(began.elapsed().as_secs() < 20, "what is old stays"),
        }
    }
}

#[test]
fn an_idempotency_key_that_comes_again_has_the_first_position() {
    if !has_server() {
        return;
    }
    let server = Server::start(&[]);
    let mut links = [Heard::start(&server.url()), Heard::start(&server.url())];
    let first = links[0].publish_as("c", b"one", KEEP, Some("key")).unwrap();
    assert_eq!(links[1].publish_as("c", b"again", KEEP, Some("key")), Ok(first));
    assert_ne!(links[1].publish_as("d", b"elsewhere", KEEP, Some("key")), Ok(first));
    let second = links[0].publish("c", "two");
    assert_eq!(second.offset, 2);
    for ticket in [100, 101, 102] {
        let key = Some(if ticket == 101 { "key" } else { "other" });
        links[0].link.publish(ticket, "c", b"batch".to_vec(), KEEP, key).unwrap();
    }
    let third = links[0].published(100).unwrap();
    assert_eq!(links[0].published(101), Ok(first));
    assert_eq!(links[0].published(102), Ok(third));
    let (records, ..) = links[1].since("c", NOWHERE);
    assert_eq!(texts(&records), ["one", "two", "batch"]);
}

#[test]
fn who_leaves_hears_nothing_more_and_wants_again() {
    if !has_server() {
        return;
    }
    let server = Server::start(&[]);
    let (mut link, top) = Heard::wanting(&server.url(), "c");
    assert_eq!(top, NOWHERE);
    let first = link.publish("c", "one");
    assert_eq!(link.record("c").position, first);
    link.link.leave(&["c"]);
    while !server.ask("PUBSUB NUMSUB fanwire:c:c").contains(":0\r\n") {
        std::thread::yield_now();
    }
    let second = link.publish("c", "two");
    link.link.want(&["c"], KEEP);
    assert_eq!(link.wanted("c"), second);
    let third = link.publish("c", "three");
    let record = link.record("c");
    assert_eq!((record.previous, record.position), (second, third));
    link.link.want(&["c"], KEEP);
    assert_eq!(link.wanted("c"), third);
}

#[test]
fn many_channels_are_wanted_at_once() {
    if !has_server() {
        return;
    }
    let server = Server::start(&[]);
    let mut link = Heard::start(&server.url());
    let names: Vec<_> = (0..2_000).map(|number| format!("c{number}")).collect();
    link.link.want(&names.iter().map(String::as_str).collect::<Vec<_>>(), KEEP);
    for name in &names {
        link.wanted(name);
    }
    link.publish("c1999", "x");
    link.record("c1999");
}

#[test]
fn bounds_are_named() {
    if !has_server() {
        return;
    }
    let server = Server::start(&[]);
    let options = Options { record_bytes_max: 10, waiting_max: 3, waiting_bytes_max: 400, ..Options::default() };
    let mut link = Heard::with(&server.url(), options.clone());
    link.up();
    let full = link.link.publish(1, "c", vec![0; 11], KEEP, None);
    assert_eq!(full, Err(Full::TooLarge { bytes: 11, bytes_max: 10 }));
    server.signal("STOP");
    link.link.publish(1, "c", vec![0; 10], KEEP, None).unwrap();
    link.link.publish(2, "c", vec![0; 10], KEEP, None).unwrap();
    assert_eq!(link.link.publish(3, "c", vec![0; 130], KEEP, None), Err(Full::TooLarge { bytes: 130, bytes_max: 10 }));
    let full = link.link.publish(3, &"c".repeat(100), vec![0; 10], KEEP, None).unwrap_err();
    assert!(full.to_string().contains("bytes wait for the backbone, and 400 may"), "{full}");
    link.link.since("c", NOWHERE, 10).unwrap_err();
    server.signal("CONT");
    link.published(1).unwrap();
    link.published(2).unwrap();
}

#[test]
fn a_url_and_options_that_cannot_be_are_refused() {
    for (url, options, said) in [
        ("http://x", Options::default(), "scheme"),
        ("redis://x", Options { prefix: "{".into(), ..Options::default() }, "prefix"),
        ("rediss://x", Options { roots_pem: Some(b"no".to_vec()), ..Options::default() }, "certificates"),
    ] {
        let error = fanwire_backbone::Link::start(url, options, |_: Event| {}).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}
