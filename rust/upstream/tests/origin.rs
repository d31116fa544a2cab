//! Against ASP.NET Core's own hub: set `SIGNALR_ORIGIN` to the executable of signalr-origin, or this is skipped.
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use fanwire_core::protocol::signalr::{HubMessage, HubProtocol, parse_message};
use fanwire_upstream::{CompletionKind, Route, UpstreamEvent};
use support::{BOTH, Heard, PATIENCE, Relay, record, request};

struct Origin {
    child: Child,
    address: String,
}

impl Origin {
    fn start() -> Option<Self> {
        let Some(executable) = std::env::var_os("SIGNALR_ORIGIN") else {
            println!("skipped: SIGNALR_ORIGIN does not name the executable of signalr-origin");
            return None;
        };
        // A port above 20000 that nobody has.
        let port = (20_000..30_000).rev().find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok()).unwrap();
        let address = format!("127.0.0.1:{port}");
        let mut child = Command::new(executable)
            .args(["serve", "--url", &format!("http://{address}")])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("listening"), "{line}");
        Some(Self { child, address })
    }

    fn post(&self, path: &str) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", self.address);
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn subscribe(protocol: HubProtocol) -> Vec<u8> {
    let arguments: &[u8] = if protocol.is_binary() { b"\x91\xa2m1" } else { b"[\"m1\"]" };
    let message =
        HubMessage::Invocation { id: Some("1".into()), target: "Subscribe".into(), arguments, stream_ids: Vec::new() };
    record(protocol, &message)
}

fn target_of(protocol: HubProtocol, whole: &[u8]) -> String {
    let body = match protocol {
        HubProtocol::Json => &whole[..whole.len() - 1],
        HubProtocol::MessagePack => &whole[whole.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1..],
    };
    match parse_message(protocol, body).unwrap() {
        HubMessage::Invocation { target, .. } => target.into_owned(),
        other => panic!("expected a publication, got {other:?}"),
    }
}

#[test]
fn a_lane_of_the_real_hub_gets_its_snapshot_completion_and_publications() {
    let Some(origin) = Origin::start() else { return };
    let relay = Relay::start();
    for (protocol, path) in BOTH.into_iter().flat_map(|protocol| [(protocol, "live"), (protocol, "elsewhere")]) {
        let route = Route::Lane {
            everyone: support::names(&["Announcement"]),
            snapshot: Some("Snapshot".to_owned()),
            channel: "m1".to_owned(),
        };
        let mut open = request(&format!("http://{}/{path}", origin.address), protocol, route);
        open.negotiates = true;
        relay.upstreams.open(1, open);
        relay.expect_opened(0);
        relay.upstreams.send(1, subscribe(protocol));
        let Heard::Append(_, _, records, keyframes) = relay.next() else { panic!("expected the snapshot") };
        assert_eq!((records.len(), keyframes), (1, vec![0]));
        assert_eq!(target_of(protocol, &records[0]), "Snapshot");
        let UpstreamEvent::Completion { id, kind, .. } = relay.event() else { panic!("expected the completion") };
        assert_eq!((id.as_str(), kind), ("1", CompletionKind::Result));
        origin.post("/publish-all?target=Announcement&count=3&text=x");
        origin.post("/publish?matches=m1,m2&count=20&size=300&target=Odds");
        let mut appended = Vec::new();
        while appended.len() < 20 {
            match relay.next() {
                Heard::Append(channel, of, records, _) => {
                    assert_eq!((channel.as_str(), of), ("m1", protocol));
                    appended.extend(records);
                }
                other => panic!("expected an append, got {other:?}"),
            }
        }
        assert!(appended.iter().all(|record| target_of(protocol, record) == "Odds"));
        relay.upstreams.close(1, None);
        let closed = relay.closed();
        assert!(closed.was_open && closed.pending.is_empty(), "{closed:?}");
    }
    for (path, expected, status) in [("members", "status 401", Some(401)), ("broken", "negotiate was refused: ", None)]
    {
        let mut open = request(&format!("http://{}/{path}", origin.address), HubProtocol::Json, Route::Calls);
        open.negotiates = true;
        relay.upstreams.open(1, open);
        let closed = relay.closed();
        assert!(closed.error.contains(expected), "{}", closed.error);
        assert_eq!(closed.status, status);
    }
}
