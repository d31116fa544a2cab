//! Answers that end a connection, on real sockets and both pollers (RFC 9110 §9.3.2, RFC 9112 §9.6).
mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use fanwire_core::Settings;
use support::{on_each_poller, start};

#[test]
fn a_head_request_that_is_refused_has_no_body_in_its_answer() {
    on_each_poller(|settings| {
        let (_engine, address) = start(settings);
        for target in ["/nowhere", "/events", "/ws", "no-path"] {
            let mut client = TcpStream::connect(&address).expect("it listens");
            write!(client, "HEAD {target} HTTP/1.1\r\nHost: x\r\n\r\n").expect("it is there");
            let mut answer = String::new();
            client.read_to_string(&mut answer).expect("it ends");
            assert!(answer.starts_with("HTTP/1.1 4") && answer.ends_with("\r\n\r\n"), "{answer}");
            assert!(!answer.contains("Content-Length: 0"), "the length is that of the text: {answer}");
        }
    });
}

#[test]
fn who_sends_on_behind_the_end_without_bound_is_cut_off_before_its_time() {
    on_each_poller(|settings| {
        let (_engine, address) = start(Settings { close_timeout: Duration::from_secs(3600), ..settings });
        let mut client = TcpStream::connect(&address).expect("it listens");
        client.set_write_timeout(Some(Duration::from_secs(20))).expect("it is open");
        write!(client, "POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n").expect("there");
        let piece = vec![b'x'; 1 << 20];
        let error = (0..256).find_map(|_| client.write_all(&piece).err()).expect("256 MiB are too many");
        assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
    });
}
