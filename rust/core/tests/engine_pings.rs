//! Pings of SignalR clients that come when they are expected: read late, but in time, and nothing else is.
mod support;

use std::time::{Duration, Instant};

use fanwire_core::messages::Event;
use fanwire_core::{HubSettings, Settings};
use support::{HUB, TAKES_MESSAGES, dial, eventually, on_each_poller, start_asking};
use tungstenite::Message;

/// Long enough for a ping to be expected.
const KEEPALIVE: Duration = Duration::from_secs(4);
const TIMEOUT: Duration = Duration::from_secs(6);
const PING: &str = "{\"type\":6}\u{1e}";

#[test]
fn a_client_that_pings_when_expected_lives_and_one_that_falls_silent_is_told_so() {
    on_each_poller(|settings| {
        let hubs = HubSettings { keepalive: KEEPALIVE, client_timeout: TIMEOUT, ..HubSettings::default() };
        let (engine, address) = start_asking(Settings { hubs, ..settings }, TAKES_MESSAGES, &[("/live", HUB)]);
        let (mut client, _) = tungstenite::client(format!("ws://{address}/live"), dial(&address)).expect("an upgrade");
        let handshake = "{\"protocol\":\"json\",\"version\":1}\u{1e}";
        client.send(Message::text(format!("{handshake}{PING}"))).expect("sent");
        assert_eq!(client.read().expect("an answer"), Message::text("{}\u{1e}"));
        // The server's pings are the clock: with the first one the client's second is expected.
        assert_eq!(client.read().expect("a ping"), Message::text(PING));
        client.send(Message::text(PING)).expect("sent");
        assert_eq!(client.read().expect("a ping"), Message::text(PING));
        client
            .send(Message::text(format!("{{\"type\":1,\"target\":\"x\",\"arguments\":[]}}\u{1e}{PING}")))
            .expect("sent");
        let spoken = Instant::now();
        eventually("a call at the time of a ping is heard", || {
            engine.take_events(16).iter().any(|event| matches!(event, Event::SignalR(..)))
        });
        let told = loop {
            match client.read().expect("pings, then a close") {
                Message::Text(text) if text.as_str() == PING => {}
                Message::Text(text) => break text,
                other => panic!("expected text, got {other:?}"),
            }
        };
        assert!(told.as_str().starts_with("{\"type\":7,\"error\":"), "{told}");
        assert!(spoken.elapsed() >= TIMEOUT, "given up after {:?}", spoken.elapsed());
    });
}

#[test]
fn a_close_at_the_time_of_a_ping_is_answered() {
    on_each_poller(|settings| {
        let hubs = HubSettings { keepalive: KEEPALIVE, ..HubSettings::default() };
        let (engine, address) = start_asking(Settings { hubs, ..settings }, TAKES_MESSAGES, &[("/live", HUB)]);
        let (mut client, _) = tungstenite::client(format!("ws://{address}/live"), dial(&address)).expect("an upgrade");
        let handshake = "{\"protocol\":\"messagepack\",\"version\":1}\u{1e}\u{2}";
        let mut first = handshake.as_bytes().to_vec();
        first.extend_from_slice(b"\x91\x06");
        client.send(Message::binary(first)).expect("sent");
        assert_eq!(client.read().expect("an answer").into_data(), &b"{}\x1e"[..]);
        assert_eq!(client.read().expect("a ping"), Message::binary(&b"\x02\x91\x06"[..]));
        client.close(None).expect("sent");
        assert!(matches!(client.read(), Ok(Message::Close(_))));
        eventually("it is gone", || engine.stats().connections == 0);
    });
}
