//! What machines tell one another by way of the server, and channels that are listened to by a pattern.
mod support;

use fanwire_backbone::{Event, Options};
use support::{Heard, KEEP, Server, has_server};

fn machine(server: &Server, number: u64) -> Heard {
    let mut link = Heard::with(&server.url(), Options { machine: Some(number), ..Options::default() });
    link.up();
    link
}

fn told(link: &mut Heard) -> String {
    link.next("what is told", |event| match event {
        Event::Told(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    })
}

#[test]
fn what_one_tells_comes_in_its_order_to_whom_it_is_for() {
    if !has_server() {
        return;
    }
    let server = Server::start(&[]);
    let (mut a, mut b) = (machine(&server, 1), machine(&server, u64::MAX));
    for number in 0..3_000 {
        let to = [None, Some(u64::MAX), Some(1)][number % 3];
        a.link.tell(to, number.to_string().into_bytes()).unwrap();
    }
    for number in (0..3_000).filter(|number| number % 3 != 2) {
        assert_eq!(told(&mut b), number.to_string());
    }
    for number in (0..3_000).filter(|number| number % 3 != 1) {
        assert_eq!(told(&mut a), number.to_string());
    }
    assert_eq!(a.link.waiting(), (0, 0));
    server.ask("CLIENT KILL TYPE pubsub");
    a.down();
    a.up();
    b.up();
    b.link.tell(Some(1), b"again".to_vec()).unwrap();
    assert_eq!(told(&mut a), "again");
    b.link.tell(None, b"the last word".to_vec()).unwrap();
    drop(b);
    assert_eq!(told(&mut a), "the last word", "a link that ends says what it was told to say");
}

#[test]
fn a_pattern_has_the_first_publication_of_a_channel_that_nobody_wants() {
    if !has_server() {
        return;
    }
    let server = Server::start(&[]);
    let (mut a, mut b) = (machine(&server, 1), machine(&server, 2));
    b.link.listen("odds:*[x]", true);
    b.link.want(&["other"], KEEP);
    b.wanted("other");
    a.publish_as("odds:7x", b"no", KEEP, None).unwrap();
    a.publish_as("odds:7[x]", b"yes", KEEP, None).unwrap();
    assert_eq!(b.record("odds:7[x]").bytes, b"yes");
    server.ask("CLIENT KILL TYPE pubsub");
    b.down();
    b.up();
    b.wanted("other");
    a.publish_in_the_end("odds:8[x]", "anew");
    assert_eq!(b.record("odds:8[x]").bytes, b"anew");
}
