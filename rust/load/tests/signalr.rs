//! The SignalR clients against a hub of a few lines, over real sockets: they negotiate, upgrade, shake hands, invoke,
//! count and ping as stock clients do, and say so where a hub does not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

const CLIENTS: usize = 50;

/// What the hub does wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// It refuses tokens from the twenty-first on.
    Negotiate,
    /// It answers the handshake with an error.
    Handshake,
    /// It sends the last client one message less, or more, than the others.
    Fewer,
    More,
    /// It sends the last client a publication of its match twice, and leaves another out.
    Twice,
    /// It lets nobody watch m2.
    Refused,
}

/// One end of a connection at the hub.
struct Peer {
    stream: BufReader<TcpStream>,
    is_binary: bool,
    /// What the client watches, and the newest publication of it.
    watched: String,
    newest: u64,
}

impl Peer {
    /// The head of a request; `None` at the end.
    fn head(&mut self) -> Option<String> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        Some(head)
    }

    fn send(&mut self, bytes: &[u8]) {
        // A client that has left is no concern of the hub's.
        let _ = self.stream.get_mut().write_all(bytes);
    }

    /// The payload of a client's frame, which is masked with zeros; `None` at the end.
    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).ok()?;
        let mut length = u64::from(head[1] & 0x7f);
        if length == 126 {
            let mut long = [0; 2];
            self.stream.read_exact(&mut long).ok()?;
            length = u64::from(u16::from_be_bytes(long));
        }
        let mut payload = vec![0; 4 + length as usize];
        self.stream.read_exact(&mut payload).ok()?;
        assert_eq!(payload[..4], [0; 4]);
        Some(payload.split_off(4))
    }

    /// Sends hub messages as one WebSocket message of two frames, the cut anywhere.
    fn send_messages(&mut self, messages: &[u8]) {
        let (one, other) = messages.split_at(messages.len() / 3);
        let opcode = if self.is_binary { 2 } else { 1 };
        for (first, payload) in [(opcode, one), (0x80, other)] {
            let mut frame = vec![first, 126];
            frame.extend((payload.len() as u16).to_be_bytes());
            frame.extend_from_slice(payload);
            self.send(&frame);
        }
    }

    /// Has the client watch a match, if it may.
    fn answer_subscribe(&mut self, name: &str, fault: Fault) {
        if fault == Fault::Refused && name == "m2" {
            return self.send_messages(b"{\"type\":3,\"invocationId\":\"1\",\"error\":\"no such match\"}\x1e");
        }
        name.clone_into(&mut self.watched);
        let snapshot = json!({"type": 1, "target": "Snapshot", "arguments": [{"match": name, "s": 0, "t": 0}]});
        let completion = json!({"type": 3, "invocationId": "1", "result": null});
        self.send_messages(format!("{snapshot}\x1e{completion}\x1e").as_bytes());
    }

    /// The publications of its match with these numbers, then the completion of the invocation.
    fn publish(&mut self, numbers: &[u64]) {
        let t = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let name = &self.watched;
        let odds = numbers.iter().map(|s| {
            format!(
                "{{\"type\":1,\"target\":\"Odds\",\"arguments\":[{{\"match\":\"{name}\",\"s\":{s},\"t\":{t}}}]}}\x1e"
            )
        });
        let answer = odds.collect::<String>() + "{\"type\":3,\"invocationId\":\"1\"}\x1e";
        self.send_messages(answer.as_bytes());
    }

    /// `Odds` so many times, something else, then the completion of the invocation.
    fn answer_burst(&mut self, count: usize) {
        let mut answer = Vec::new();
        for target in [vec!["Odds"; count], vec!["Else"]].concat() {
            if self.is_binary {
                let body = [b"\x96\x01\x80\xc0\xa4", target.as_bytes(), b"\x91\x01\x90"].concat();
                answer.push(body.len() as u8);
                answer.extend(body);
            } else {
                answer.extend(format!("{{\"type\":1,\"target\":\"{target}\",\"arguments\":[1]}}\x1e").into_bytes());
            }
        }
        let completion =
            if self.is_binary { &b"\x06\x94\x03\x80\xa11\x02"[..] } else { b"{\"type\":3,\"invocationId\":\"1\"}\x1e" };
        answer.extend_from_slice(completion);
        self.send_messages(&answer);
    }
}

/// Serves one connection: a negotiation, or a hub connection that sends three messages for each invocation.
fn serve(stream: TcpStream, number: usize, fault: Fault) {
    stream.set_nodelay(true).unwrap();
    let mut peer = Peer { stream: BufReader::new(stream), is_binary: false, watched: String::new(), newest: 0 };
    let Some(head) = peer.head() else { return };
    if head.starts_with("POST /live/negotiate?negotiateVersion=1 HTTP/1.1\r\n") {
        let body = json!({"connectionId": "a", "connectionToken": format!("token{number}"), "negotiateVersion": 1});
        let (status, body) = if fault == Fault::Negotiate && number >= 40 {
            ("503 Service Unavailable", String::new())
        } else {
            ("200 OK", body.to_string())
        };
        peer.send(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
        assert_eq!(peer.head(), None, "a client leaves after it has negotiated");
        return;
    }
    assert!(head.starts_with("GET /live?id=token") || head.starts_with("GET /live HTTP/1.1\r\n"), "{head}");
    peer.send(b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
    let Some(handshake) = peer.receive() else { return };
    let handshake: Value = serde_json::from_slice(handshake.strip_suffix(b"\x1e").unwrap()).unwrap();
    assert_eq!(handshake["version"], 1);
    peer.is_binary = handshake["protocol"] == "messagepack";
    peer.send_messages(if fault == Fault::Handshake { b"{\"error\":\"closed for the day\"}\x1e" } else { b"{}\x1e" });
    let is_last = number == 2 * CLIENTS - 1;
    while let Some(message) = peer.receive() {
        if String::from_utf8_lossy(&message).contains("\"Leave\"") {
            return;
        }
        if message == b"{\"type\":6}\x1e" || message == [2, 0x91, 6] {
            peer.send_messages(&message);
        } else if let Some(name) = subscribed(&message) {
            peer.answer_subscribe(&name, fault);
        } else if !peer.watched.is_empty() {
            let next = peer.newest + 1;
            peer.newest += 3;
            let is_wrong = is_last && fault == Fault::Twice;
            peer.publish(&if is_wrong { [next, next, next + 2] } else { [next, next + 1, next + 2] });
        } else {
            let odd_one = is_last && fault != Fault::None;
            peer.answer_burst(if !odd_one {
                3
            } else if fault == Fault::Fewer {
                2
            } else {
                4
            });
        }
    }
}

/// Which match a client asks for, if this is what it does.
fn subscribed(message: &[u8]) -> Option<String> {
    let message: Value = serde_json::from_slice(message.strip_suffix(b"\x1e")?).ok()?;
    (message["target"] == "Subscribe").then(|| message["arguments"][0].as_str().unwrap().to_owned())
}

/// A hub on a free port; its threads end with their connections, and the last with the test.
fn hub(fault: Fault) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/live", listener.local_addr().unwrap());
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let stream = stream.unwrap();
            thread::spawn(move || serve(stream, number, fault));
        }
    });
    url
}

/// `fanwire-load signalr`; it is killed if the test fails before it ends.
struct Crowd {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Crowd {
    fn start(url: &str, more: &[&str]) -> Self {
        let clients = CLIENTS.to_string();
        let mut process = Command::new(env!("CARGO_BIN_EXE_fanwire-load"))
            .args(["signalr", "--url", url, "--connections", &clients, "--in-flight", "1"])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, input, output }
    }

    fn tell(&mut self, command: &Value) {
        writeln!(self.input.as_mut().unwrap(), "{command}").unwrap();
    }

    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// Waits for `each` messages; gives the report.
    fn expect(&mut self, each: u64) -> Value {
        self.tell(&json!({ "expect": each }));
        assert_eq!(self.hear(), json!({ "expecting": each }));
        self.hear()["complete"].take()
    }

    fn invoke(&mut self, calls: usize) -> Value {
        self.tell(&json!({ "invoke": { "target": "Burst", "arguments": ["a", 1], "calls": calls } }));
        self.hear()["invoked"].take()
    }

    /// Ends its stdin; gives its exit code and what it said on stderr.
    fn end(mut self) -> (Option<i32>, String) {
        drop(self.input.take());
        let mut said = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.process.wait().unwrap().code(), said)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // It has ended already where the test passed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One life of a crowd, in which all goes well.
fn all_is_counted(protocol: &str) {
    let mut crowd = Crowd::start(&hub(Fault::None), &["--protocol", protocol]);
    let connected = crowd.hear();
    assert_eq!((&connected["connected"], &connected["failed"]), (&json!(CLIENTS), &json!(0)), "{connected}");
    let invoked = crowd.invoke(4 * CLIENTS);
    assert_eq!((&invoked["calls"], &invoked["failed"]), (&json!(4 * CLIENTS), &json!(0)), "{invoked}");
    assert_eq!(crowd.invoke(0)["calls"], 0);
    crowd.tell(&json!({ "idle": { "seconds": 0.3, "ping_every_s": 0.1 } }));
    let idled = crowd.hear()["idled"].take();
    assert!(idled["pings_sent"].as_u64().unwrap() >= 3 * CLIENTS as u64, "{idled}");
    assert!(idled["pings_received"].as_u64().unwrap() >= 2 * CLIENTS as u64, "{idled}");
    assert_eq!(crowd.end(), (Some(0), String::new()));
}

#[test]
fn json_clients_negotiate_invoke_and_ping() {
    all_is_counted("json");
}

#[test]
fn message_pack_clients_negotiate_invoke_and_ping() {
    all_is_counted("messagepack");
}

#[test]
fn progress_is_told_until_stdin_ends() {
    let mut crowd = Crowd::start(&hub(Fault::None), &[&WATCHING[..], &["--progress", "0.02"]].concat());
    let next = |crowd: &mut Crowd, name: &str| {
        let lines = std::iter::repeat_with(|| crowd.hear());
        lines.map(|mut line| line[name].take()).find(|value| !value.is_null()).unwrap()
    };
    assert_eq!(next(&mut crowd, "connected"), json!(CLIENTS));
    crowd.tell(&json!({ "invoke": { "target": "Burst", "arguments": [], "calls": CLIENTS } }));
    crowd.tell(&json!({ "idle": { "ping_every_s": 0.1 } }));
    let (mut ages, mut tick) = (0, Value::Null);
    while ages < 3 * CLIENTS as u64 {
        tick = next(&mut crowd, "tick");
        ages += tick["ages_us"].as_array().unwrap().iter().map(|pair| pair[1].as_u64().unwrap()).sum::<u64>();
    }
    assert_eq!((&tick["open"], &tick["failed"], &tick["closed"]), (&json!(CLIENTS), &json!(0), &json!(0)), "{tick}");
    assert_eq!((&tick["received"], &tick["failures"]), (&json!(ages), &json!({})), "{tick}");
    assert!(tick["bytes"].as_u64().unwrap() > 300 * CLIENTS as u64, "{tick}");
    drop(crowd.input.take());
    assert_eq!(next(&mut crowd, "idled")["closed"], 0);
    assert_eq!(crowd.end(), (Some(0), String::new()));
}

#[test]
fn several_targets_are_counted_and_only_the_first_is_checked() {
    let mut crowd = Crowd::start(&hub(Fault::None), &["--target", "Odds,Else"]);
    crowd.hear();
    crowd.invoke(CLIENTS);
    let complete = crowd.expect(4);
    assert_eq!((&complete["lowest"], &complete["highest"]), (&json!(4), &json!(4)), "{complete}");
    crowd.end();
    let mut crowd = Crowd::start(&hub(Fault::Twice), &[&WATCHING[..], &["--target", "Else,Odds"]].concat());
    crowd.hear();
    crowd.invoke(CLIENTS);
    let complete = crowd.expect(3);
    assert_eq!((&complete["lowest"], &complete["faults"]), (&json!(3), &none()), "{complete}");
    crowd.end();
}

#[test]
fn each_client_has_its_own_count() {
    for protocol in ["json", "messagepack"] {
        let mut crowd = Crowd::start(&hub(Fault::None), &["--protocol", protocol]);
        crowd.hear();
        for _ in 0..2 {
            crowd.invoke(CLIENTS);
            let complete = crowd.expect(3);
            assert_eq!((&complete["lowest"], &complete["highest"]), (&json!(3), &json!(3)), "{complete}");
        }
        crowd.end();
    }
}

#[test]
fn one_message_too_few_or_too_many_is_seen() {
    for (fault, lowest, highest) in [(Fault::Fewer, 2, 3), (Fault::More, 3, 4)] {
        let mut crowd = Crowd::start(&hub(fault), &["--patience", "0.2"]);
        crowd.hear();
        crowd.invoke(CLIENTS);
        let complete = crowd.expect(3);
        assert_eq!((&complete["lowest"], &complete["highest"]), (&json!(lowest), &json!(highest)), "{complete}");
        crowd.end();
    }
}

#[test]
fn clients_that_are_refused_have_failed_with_the_reason() {
    let mut crowd = Crowd::start(&hub(Fault::Negotiate), &[]);
    let connected = crowd.hear();
    assert_eq!((&connected["connected"], &connected["failed"]), (&json!(20), &json!(30)), "{connected}");
    let (code, said) = crowd.end();
    assert_eq!(code, Some(0));
    assert!(
        said.contains("30 connections") && said.contains("negotiate: its answer is") && said.contains("503"),
        "{said}"
    );
    let mut crowd = Crowd::start(&hub(Fault::Handshake), &[]);
    assert_eq!(crowd.hear()["failed"], CLIENTS);
    assert!(crowd.end().1.contains("closed for the day"));
}

fn none() -> Value {
    json!({"gaps": 0, "repeats": 0, "told": 0, "restarts": 0, "misrouted": 0, "malformed": 0})
}

const WATCHING: [&str; 4] = ["--subscribe", "Subscribe", "--matches", "3"];

#[test]
fn clients_that_watch_matches_check_what_they_receive() {
    let mut crowd = Crowd::start(&hub(Fault::None), &WATCHING);
    let connected = crowd.hear();
    assert_eq!((&connected["connected"], &connected["failed"]), (&json!(CLIENTS), &json!(0)), "{connected}");
    assert!(connected["login_us"]["p99"].as_f64().unwrap() > 0.0, "{connected}");
    crowd.tell(&json!({ "watch": { "seconds": 0.1 } }));
    assert_eq!(crowd.hear(), json!({ "watching": 0.1 }));
    let watched = crowd.hear()["watched"].take();
    assert_eq!((&watched["received"], &watched["newest"], &watched["behind"]), (&json!(0), &json!(0), &json!(0)));
    crowd.invoke(CLIENTS);
    let complete = crowd.expect(3);
    assert_eq!((&complete["lowest"], &complete["faults"]), (&json!(3), &none()), "{complete}");
    crowd.tell(&json!({ "watch": { "seconds": 0 } }));
    crowd.hear();
    let watched = crowd.hear()["watched"].take();
    assert_eq!((&watched["newest"], &watched["behind"]), (&json!(9), &json!(0)), "{watched}");
    assert_eq!(crowd.end(), (Some(0), String::new()));
}

#[test]
fn publication_that_comes_twice_or_never_is_a_fault() {
    let mut crowd = Crowd::start(&hub(Fault::Twice), &WATCHING);
    crowd.hear();
    crowd.invoke(CLIENTS);
    let complete = crowd.expect(3);
    assert_eq!((&complete["lowest"], &complete["highest"]), (&json!(3), &json!(3)), "{complete}");
    assert_eq!((&complete["faults"]["gaps"], &complete["faults"]["repeats"]), (&json!(1), &json!(1)), "{complete}");
    crowd.end();
}

#[test]
fn client_that_may_not_watch_has_failed() {
    let mut crowd = Crowd::start(&hub(Fault::Refused), &WATCHING);
    let connected = crowd.hear();
    assert_eq!((&connected["connected"], &connected["failed"]), (&json!(33), &json!(17)), "{connected}");
    let (_, said) = crowd.end();
    assert!(said.contains("17 connections") && said.contains("subscribe: 1 completions, 1 of them errors"), "{said}");
}

#[test]
fn clients_that_stall_are_not_waited_for() {
    let mut crowd = Crowd::start(&hub(Fault::None), &WATCHING);
    crowd.hear();
    crowd.tell(&json!({ "stall": { "one_in": 10 } }));
    assert_eq!(crowd.hear(), json!({ "stalled": 5 }));
    assert_eq!(crowd.invoke(45)["failed"], 0);
    let complete = crowd.expect(3);
    assert_eq!((&complete["lowest"], &complete["highest"], &complete["closed"]), (&json!(3), &json!(3), &json!(0)));
    crowd.end();
}

#[test]
fn commands_that_are_told_at_once_are_done_in_their_order() {
    let mut crowd = Crowd::start(&hub(Fault::None), &[]);
    let clients = json!(CLIENTS);
    crowd.tell(&json!({ "invoke": { "target": "Burst", "arguments": [], "calls": CLIENTS } }));
    crowd.tell(&json!({ "expect": 3 }));
    crowd.tell(&json!({ "expect": 0 }));
    drop(crowd.input.take());
    assert_eq!(crowd.hear()["connected"], clients);
    assert_eq!(crowd.hear()["invoked"]["calls"], clients);
    for each in [3, 0] {
        assert_eq!(crowd.hear()["expecting"], each);
        assert_eq!(crowd.hear()["complete"]["highest"], each);
    }
    assert_eq!(crowd.end(), (Some(0), String::new()));
}

#[test]
fn clients_that_are_lost_come_back_and_go_on_in_what_they_watch() {
    let more = ["--skip-negotiation", "--reconnect", "--network", "7", "--first", "1", "--ping-every", "0.2"];
    let mut crowd = Crowd::start(&hub(Fault::None), &[&WATCHING[..], &more].concat());
    assert_eq!(crowd.hear()["connected"], CLIENTS);
    crowd.invoke(CLIENTS);
    assert_eq!(crowd.expect(3)["lowest"], 3);
    crowd.tell(&json!({ "invoke": { "target": "Leave", "arguments": [], "calls": CLIENTS } }));
    assert_eq!(crowd.hear()["invoked"]["failed"], CLIENTS);
    let mut tick = json!({});
    while tick["returned"] != CLIENTS || tick["pings_received"] == 0 {
        crowd.tell(&json!({ "tell": true }));
        tick = crowd.hear()["tick"].take();
    }
    assert_eq!((&tick["open"], &tick["closed"], &tick["failed"]), (&json!(CLIENTS), &json!(CLIENTS), &json!(0)));
    crowd.tell(&json!({ "level": true }));
    assert_eq!(crowd.hear()["level"], true);
    assert_eq!(crowd.expect(0)["highest"], 0);
    crowd.tell(&json!({ "watch": { "seconds": 0 } }));
    crowd.hear();
    assert_eq!(crowd.hear()["watched"]["faults"], none());
    crowd.end();
}

#[test]
fn command_that_is_not_understood_ends_the_run() {
    let mut crowd = Crowd::start(&hub(Fault::None), &[]);
    crowd.hear();
    crowd.tell(&json!({ "expcet": 3 }));
    let (code, said) = crowd.end();
    assert_eq!(code, Some(2));
    assert!(said.contains("expcet"), "{said}");
}
