//! Paths of different owners: each is asked and told what its own routes say, and they come and go while all is served.
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use fanwire_core::messages::{Event, Reply, Whose};
use fanwire_core::{Asks, Limits, OwnerId, Route, Settings, Wire};
use support::{Client, TAKES_MESSAGES, dial, eventually, next_event, on_each_poller, publish, read_text, start};
use tungstenite::{Error, Message};

const OTHER: OwnerId = OwnerId(7);

fn open(address: &str, path: &str) -> Result<Client, Error> {
    let opened = tungstenite::client(format!("ws://{address}{path}"), dial(address));
    opened.map(|(client, _)| client).map_err(|error| match error {
        tungstenite::HandshakeError::Failure(error) => error,
        other => panic!("{other:?}"),
    })
}

/// The status and the text of a refusal.
fn refusal(address: &str, path: &str) -> (u16, String) {
    match open(address, path) {
        Err(Error::Http(response)) => {
            let text = response.body().clone().unwrap_or_default();
            (response.status().as_u16(), String::from_utf8(text).expect("UTF-8"))
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn each_owner_is_asked_and_told_of_its_own_clients_alone() {
    on_each_poller(|settings| {
        let (engine, address) = start(settings);
        let mut route = Route::new("/other", Wire::WebSocket, OTHER).expect("a path");
        route.asks = Asks { opening: true, connected: true, ..TAKES_MESSAGES };
        engine.add_route(route).expect("it is free");
        let mut idle = open(&address, "/ws?channel=a").expect("nobody is asked");
        eventually("a subscriber", || engine.occupancy("a") == 1);
        let asked = std::thread::spawn({
            let address = address.clone();
            move || open(&address, "/other").expect("accepted")
        });
        let Event::Opening(whose, _) = next_event(&engine) else { panic!("expected an opening") };
        assert_eq!(whose.owner, OTHER);
        engine.accept(whose.connection, [""; 0], None, Reply::default()).expect("it runs");
        assert!(matches!(next_event(&engine), Event::Connected(of, None) if of == whose));
        let mut other = asked.join().expect("connected");
        for (client, owner) in [(&mut other, OTHER), (&mut idle, OwnerId(0))] {
            client.send(Message::text("hello")).expect("sent");
            let Event::Text(Whose { owner: of, .. }, text) = next_event(&engine) else { panic!("expected a text") };
            assert_eq!((of, text.as_str()), (owner, "hello"));
        }
        drop(other);
        assert!(matches!(next_event(&engine), Event::Closed(of, ..) if of == whose));
    });
}

#[test]
fn a_path_names_the_channel_that_is_watched_and_the_owner_is_asked_for_that() {
    on_each_poller(|settings| {
        let (engine, address) = start(settings);
        let rooms = |wire, path: &str| Route::new(path, wire, OTHER).expect("a path").with_channel("odds:{room}");
        engine.add_route(rooms(Wire::WebSocket, "/ws/{room}").expect("good")).expect("it is free");
        engine.add_route(rooms(Wire::EventStream, "/events/{room}").expect("good")).expect("it is free");
        let mut client = open(&address, "/ws/%C3%BC%2F7?channel=b").expect("nobody is asked");
        let mut stream = dial(&address);
        stream.write_all(b"GET /events/%C3%BC%2F7 HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        eventually("subscribers", || engine.occupancy("odds:ü/7") == 2 && engine.occupancy("b") == 1);
        publish(&engine, "odds:ü/7", "1.5");
        assert_eq!(read_text(&mut client), "1.5");
        let mut seen = String::new();
        while !seen.contains("data: 1.5") {
            let mut some = [0; 1024];
            let count = stream.read(&mut some).expect("an event");
            assert!(count > 0, "{seen}");
            seen.push_str(std::str::from_utf8(&some[..count]).expect("UTF-8"));
        }
        for (path, why) in
            [("/ws/%00", "control characters"), ("/ws/%FF", "not UTF-8"), ("/ws/a%2A", "must not hold *")]
        {
            let (status, text) = refusal(&address, path);
            assert!(status == 400 && text.contains(why), "{path}: {status} {text}");
        }
        for path in ["/ws/", "/ws//", "/ws/a/b", "/WS/a"] {
            assert_eq!(refusal(&address, path).0, 404, "{path}");
        }
    });
}

/// A status of the answer to a request on a connection that is kept.
fn get(stream: &mut TcpStream, path: &str) -> String {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"ok\n") && !head.starts_with(b"HTTP/1.1 404") {
        let mut some = [0; 1024];
        let count = stream.read(&mut some).expect("an answer");
        head.extend_from_slice(&some[..count]);
    }
    String::from_utf8_lossy(&head[9..12]).into_owned()
}

#[test]
fn routes_come_and_go_while_all_is_served_and_who_is_connected_stays() {
    on_each_poller(|settings| {
        let (engine, address) = start(Settings { shards: 2, ..settings });
        let mut kept = dial(&address);
        assert_eq!(get(&mut kept, "/healthz"), "200");
        engine.add_route(Route::new("/live", Wire::Health, OTHER).expect("a path")).expect("it is free");
        assert_eq!(get(&mut kept, "/live"), "200");
        let echo =
            || Route::new("/echo/{x}", Wire::WebSocket, OTHER).expect("a path").with_channel("{x}").expect("good");
        for round in 0..20 {
            assert_eq!(refusal(&address, "/echo/a").0, 404, "round {round}");
            engine.add_route(echo()).expect("it is free");
            let mut client = open(&address, "/echo/a").expect("added");
            eventually("a subscriber", || engine.occupancy("a") == 1);
            assert!(engine.remove_route("/echo/{x}") && !engine.remove_route("/echo/{x}"));
            publish(&engine, "a", "still there");
            assert_eq!(read_text(&mut client), "still there");
            drop(client);
            eventually("it left", || engine.occupancy("a") == 0);
        }
        assert!(engine.remove_route("/live"));
        assert_eq!(get(&mut kept, "/live"), "404");
    });
}

#[test]
fn a_path_that_is_closed_ends_its_own_clients_and_nobody_elses() {
    on_each_poller(|settings| {
        let (engine, address) = start(Settings { shards: 2, ..settings });
        let mut other = open(&address, "/ws?channel=b").expect("there");
        let mut route = Route::new("/asked", Wire::WebSocket, OTHER).expect("a path");
        route.asks.opening = true;
        engine.add_route(route).expect("it is free");
        let echo = Route::new("/echo/{x}", Wire::WebSocket, OTHER).expect("a path").with_channel("{x}").expect("good");
        engine.add_route(echo.clone()).expect("it is free");
        let mut clients: Vec<Client> = (0..20).map(|_| open(&address, "/echo/a").expect("added")).collect();
        eventually("subscribers", || engine.occupancy("a") == 20 && engine.occupancy("b") == 1);
        assert!(engine.close_route("/echo/{x}", 5, "").is_err(), "no such code");
        assert!(engine.close_route("/echo/{x}", 1001, "moved").expect("it runs"));
        assert!(!engine.close_route("/echo/{x}", 1001, "moved").expect("it runs"), "it is gone");
        for client in &mut clients {
            let Ok(Message::Close(Some(frame))) = client.read() else { panic!("expected a Close frame") };
            assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1001, "moved"));
        }
        assert_eq!(refusal(&address, "/echo/a").0, 404);
        engine.add_route(echo).expect("free again");
        drop(open(&address, "/echo/a").expect("added again"));
        let asking = std::thread::spawn({
            let address = address.clone();
            move || refusal(&address, "/asked")
        });
        let Event::Opening(whose, _) = next_event(&engine) else { panic!("expected an opening") };
        assert!(engine.close_route("/asked", 1001, "").expect("it runs"));
        engine.accept(whose.connection, [""; 0], None, Reply::default()).expect("too late, and no harm");
        assert_eq!(asking.join().expect("answered"), (404, "this path has been removed\n".to_owned()));
        publish(&engine, "b", "still there");
        assert_eq!(read_text(&mut other), "still there");
    });
}

#[test]
fn a_route_has_limits_and_origins_of_its_own() {
    on_each_poller(|settings| {
        let (engine, address) = start(settings);
        let mut route = Route::new("/small", Wire::WebSocket, OTHER).expect("a path");
        route.asks = TAKES_MESSAGES;
        route.limits = Limits { message_bytes_max: Some(8) };
        route.origins = Some(vec!["https://a.example".to_owned()]);
        engine.add_route(route).expect("it is free");
        let mut client = open(&address, "/small").expect("without an origin");
        client.send(Message::text("12345678")).expect("sent");
        assert!(matches!(next_event(&engine), Event::Text(_, text) if text == "12345678"));
        client.send(Message::text("123456789")).expect("sent");
        let closed = loop {
            match client.read() {
                Ok(Message::Close(Some(frame))) => break frame,
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(u16::from(closed.code), 1009);
        let answer = |path: &str, origin: &str| {
            let mut stream = dial(&address);
            let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n{upgrade}Origin: {origin}\r\n\r\n").expect("sent");
            let mut head = [0; 12];
            stream.read_exact(&mut head).expect("an answer");
            String::from_utf8_lossy(&head[9..12]).into_owned()
        };
        assert_eq!(answer("/small", "https://a.example"), "101");
        assert_eq!(answer("/small", "https://b.example"), "403");
        assert_eq!(answer("/ws", "https://b.example"), "101");
    });
}
