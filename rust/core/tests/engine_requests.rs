//! Requests with bodies, for an owner that wants them: whole, in pieces, in chunks, slow, over the bound and cut off.
mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use fanwire_core::messages::{ConnectionId, Event};
use fanwire_core::{Engine, OwnerId, Route, Settings, Wire};
use support::{await_turn, dial, next_event, on_each_poller, start};

const BOUND: usize = 1_000;

fn start_taking(settings: Settings) -> (Engine, String) {
    let (engine, address) = start(Settings { body_bytes_max: BOUND, ..settings });
    let mut route = Route::new("/api", Wire::Request, OwnerId(7)).expect("a path");
    route.asks.bodies = true;
    engine.add_route(route).expect("it is free");
    (engine, address)
}

/// What the owner is asked next, by its method and with its body.
fn asked(engine: &Engine) -> (ConnectionId, String, Vec<u8>) {
    loop {
        match next_event(engine) {
            Event::Asking(whose, request, body) => {
                assert_eq!(whose.owner, OwnerId(7));
                return (whose.connection, request.method, body);
            }
            Event::Closed(..) => {} // of one that was answered
            other => panic!("expected a request, got {other:?}"),
        }
    }
}

fn answer(engine: &Engine, id: ConnectionId, text: &str) {
    engine.respond(id, (200, Vec::new()), "text/plain", text.as_bytes()).expect("it runs");
}

/// All that comes until the other side ends.
fn read_to_end(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("an answer, and its end");
    String::from_utf8(all).expect("UTF-8")
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or_default()
}

#[test]
fn a_body_comes_whole_however_it_is_cut() {
    on_each_poller(|settings| {
        let (engine, address) = start_taking(settings);
        let long = "x".repeat(BOUND);
        let cases = [
            ("POST", "Content-Length: 5\r\n\r\nhello".to_owned(), "hello"),
            (
                "PUT",
                "Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\nA: b\r\n\r\n".to_owned(),
                "hello",
            ),
            ("DELETE", "\r\n".to_owned(), ""),
            ("GET", "\r\n".to_owned(), ""),
            ("QUERY", format!("Content-Length: {BOUND}\r\n\r\n{long}"), long.as_str()),
        ];
        for (method, rest, body) in &cases {
            let request = format!("{method} /api?a=b HTTP/1.1\r\nHost: x\r\n{rest}");
            for step in [1, 7, request.len()] {
                let mut stream = dial(&address);
                stream.set_nodelay(true).expect("a TCP socket");
                for piece in request.as_bytes().chunks(step) {
                    stream.write_all(piece).expect("sent");
                }
                let (id, told, got) = asked(&engine);
                assert_eq!((told.as_str(), got.as_slice()), (*method, body.as_bytes()), "steps of {step}");
                answer(&engine, id, "done");
                let all = read_to_end(&mut stream);
                assert!(all.starts_with("HTTP/1.1 200") && all.ends_with("\r\n\r\ndone"), "{all}");
            }
        }
    });
}

#[test]
fn a_body_over_the_bound_is_refused_before_its_owner_hears_of_it() {
    on_each_poller(|settings| {
        let (engine, address) = start_taking(settings);
        let chunk = |bytes: usize| format!("{bytes:x}\r\n{}\r\n", "x".repeat(bytes));
        let announced = format!("Content-Length: {}\r\n\r\n", BOUND + 1); // nothing of it has to come
        let chunked = format!("Transfer-Encoding: chunked\r\n\r\n{}{}", chunk(BOUND), chunk(1));
        let endless = "Transfer-Encoding: chunked\r\n\r\nffffffff\r\n".to_owned() + &"x".repeat(BOUND + 1);
        for rest in [announced, chunked, endless] {
            let mut stream = dial(&address);
            write!(stream, "POST /api HTTP/1.1\r\nHost: x\r\n{rest}").expect("sent");
            stream.shutdown(Shutdown::Write).expect("a TCP socket");
            let all = read_to_end(&mut stream);
            assert_eq!(status(&all), "413", "{all}");
            assert!(all.contains("is over the bound of 1000"), "{all}");
        }
        let mut stream = dial(&address);
        write!(stream, "POST /api HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n").expect("sent");
        assert_eq!(status(&read_to_end(&mut stream)), "400");
        await_turn(&engine);
        assert!(engine.take_events(10).is_empty(), "the owner was asked nothing");
    });
}

#[test]
fn a_body_that_does_not_come_in_time_or_is_cut_off_is_nobodys() {
    on_each_poller(|settings| {
        let (engine, address) = start_taking(Settings { handshake_timeout: Duration::from_millis(300), ..settings });
        let half = "POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello";
        let (mut slow, mut cut) = (dial(&address), dial(&address));
        for stream in [&mut slow, &mut cut] {
            stream.write_all(half.as_bytes()).expect("sent");
        }
        cut.shutdown(Shutdown::Write).expect("a TCP socket");
        assert_eq!(read_to_end(&mut cut), "");
        let all = read_to_end(&mut slow);
        assert!(status(&all) == "408" && all.contains("no whole request within 0.3 s"), "{all}");
        await_turn(&engine);
        assert!(engine.take_events(10).is_empty(), "the owner was asked nothing");
    });
}

#[test]
fn who_waits_for_word_to_send_a_body_gets_it_unless_the_body_is_too_big() {
    on_each_poller(|settings| {
        let (engine, address) = start_taking(settings);
        for (bytes, word) in [(5, "HTTP/1.1 100 Continue\r\n\r\n"), (BOUND + 1, "HTTP/1.1 413 ")] {
            let mut stream = dial(&address);
            let head =
                format!("POST /api HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {bytes}\r\n\r\n");
            stream.write_all(head.as_bytes()).expect("sent");
            let mut heard = vec![0; word.len()];
            stream.read_exact(&mut heard).expect("a word");
            assert_eq!(String::from_utf8_lossy(&heard), word);
            if bytes == 5 {
                stream.write_all(b"hello").expect("sent");
                let (id, _, body) = asked(&engine);
                assert_eq!(body, b"hello");
                answer(&engine, id, "done");
                assert!(read_to_end(&mut stream).ends_with("done"));
            }
        }
    });
}

#[test]
fn what_changes_something_is_no_other_site_s_to_ask_for_and_other_owners_take_no_bodies() {
    on_each_poller(|settings| {
        let origins = Some(vec!["https://a.example".to_owned()]);
        let (engine, address) = start_taking(Settings { origins, ..settings });
        let request = |path: &str, origin: &str| {
            let mut stream = dial(&address);
            let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\nContent-Length: 2\r\n\r\nhi");
            stream.write_all(head.as_bytes()).expect("sent");
            stream
        };
        assert_eq!(status(&read_to_end(&mut request("/api", "https://b.example"))), "403");
        assert_eq!(status(&read_to_end(&mut request("/metrics", "https://a.example"))), "405");
        let mut stream = request("/api", "https://a.example");
        let (id, _, body) = asked(&engine);
        assert_eq!(body, b"hi");
        answer(&engine, id, "done");
        assert!(read_to_end(&mut stream).contains("Access-Control-Allow-Origin: https://a.example"));
    });
}
