//! The client against the floor: whatever the floor sends arrives, whole and in order, in one process or in several.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

/// A program that is told lines and answers lines; it is killed if the test fails before it ends.
struct Program {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Program {
    fn start(path: &str, args: &[&str]) -> Self {
        let mut process = Command::new(path).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, input, output }
    }

    fn tell(&mut self, command: &Value) {
        writeln!(self.input.as_mut().unwrap(), "{command}").unwrap();
    }

    /// The next line that is no tick, or `None` at the end.
    fn hear(&mut self) -> Option<Value> {
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            let said: Value = serde_json::from_str(&line).unwrap();
            if said.get("tick").is_none() {
                return Some(said);
            }
        }
    }

    /// Ends its stdin; gives its exit code.
    fn end(mut self) -> Option<i32> {
        drop(self.input.take());
        self.process.wait().unwrap().code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It has ended already where the test passed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A floor on a free port, and its URL; `None` with a word where the kernel has no io_uring to give.
fn floor(via: &str) -> Option<(Program, String)> {
    let mut floor = Program::start(env!("CARGO_BIN_EXE_fanwire-floor"), &["--port", "0", "--via", via]);
    let Some(ready) = floor.hear() else {
        assert_eq!(via, "uring", "the floor did not start");
        println!("skipped: no io_uring here");
        return None;
    };
    assert_eq!(ready["ready"], true);
    let url = format!("ws://127.0.0.1:{}/ws", ready["port"]);
    Some((floor, url))
}

fn client(url: &str, more: &[&str]) -> Program {
    let args = [&["--url", url, "--connections", "200", "--acknowledge"], more].concat();
    Program::start(env!("CARGO_BIN_EXE_fanwire-load"), &args)
}

/// Publishes to 200 connections and checks that everything arrives, twice over one life of the floor.
fn all_is_received(via: &str, more: &[&str]) {
    let Some((mut floor, url)) = floor(via) else { return };
    let mut client = client(&url, more);
    let connected = client.hear().unwrap();
    assert_eq!(connected["connected"], 200, "{connected}");
    assert_eq!(connected["failed"], 0);
    assert_eq!(connected["subscribers"], json!({ "0": 200 }));
    floor.tell(&json!({ "connections": true }));
    assert_eq!(floor.hear().unwrap()["connections"], 200);
    for (rounds, burst, bytes) in [(20, 20, 128), (5, 100, 700)] {
        let expected = rounds * burst * 200;
        client.tell(&json!({ "expect": expected }));
        assert_eq!(client.hear().unwrap()["expecting"], expected);
        floor.tell(&json!({ "publish": {
            "rounds": rounds, "burst": burst, "interval_s": 0.01, "bytes": bytes, "sequence": null,
        }}));
        assert_eq!(floor.hear().unwrap()["published"], rounds * burst);
        let complete = &client.hear().unwrap()["complete"];
        assert_eq!(complete["received"], expected, "{complete}");
        for wrong in ["gaps", "missing", "reordered", "malformed", "misrouted", "closed"] {
            assert_eq!(complete[wrong], 0, "{wrong} of {complete}");
        }
        assert_eq!(complete["lowest"], rounds * burst);
        assert_eq!(complete["highest"], rounds * burst);
        assert_eq!(complete["completion_us"]["count"], rounds * burst, "{complete}");
        assert!(complete["latency_us"]["p50"].as_f64() <= complete["completion_us"]["max"].as_f64());
        assert!(complete["cpu_seconds"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(client.end(), Some(0));
    assert_eq!(floor.end(), Some(0));
}

#[test]
fn all_that_the_floor_sends_one_by_one_is_received() {
    all_is_received("send", &[]);
}

#[test]
fn all_that_the_floor_sends_through_a_ring_is_received() {
    all_is_received("uring", &[]);
}

#[test]
fn all_is_received_by_several_processes_as_by_one() {
    all_is_received("send", &["--processes", "3", "--sources", "2"]);
}

#[test]
fn expectation_that_is_not_met_ends_when_nothing_arrives_any_more() {
    let (mut floor, url) = floor("send").unwrap();
    for more in [&["--patience", "0.2"][..], &["--patience", "0.2", "--processes", "2"]] {
        let mut client = client(&url, more);
        client.hear().unwrap();
        client.tell(&json!({ "expect": 4001 }));
        client.hear().unwrap();
        floor.tell(&json!({ "publish": { "rounds": 1, "burst": 20, "interval_s": 0, "bytes": 128 }}));
        floor.hear().unwrap();
        let complete = &client.hear().unwrap()["complete"];
        assert_eq!((&complete["received"], &complete["expected"]), (&json!(4000), &json!(4001)));
        client.end();
    }
}

#[test]
fn measuring_for_a_time_needs_no_commands() {
    let (_floor, url) = floor("send").unwrap();
    for more in [&["--for", "0.2"][..], &["--for", "0.2", "--processes", "2"]] {
        let mut client = client(&url, more);
        assert_eq!(client.hear().unwrap()["connected"], 200);
        let complete = &client.hear().unwrap()["complete"];
        assert_eq!((&complete["received"], &complete["expected"]), (&json!(0), &Value::Null));
        assert_eq!(client.end(), Some(0));
    }
}

#[test]
fn refused_upgrades_are_failed_connections() {
    let (_floor, url) = floor("send").unwrap();
    let mut client = client(&url, &["--channels", "3", "--subscriptions", "3"]);
    let connected = client.hear().unwrap();
    assert_eq!((&connected["connected"], &connected["failed"]), (&json!(0), &json!(200)));
    client.end();
}

#[test]
fn floor_asked_for_other_channels_says_so_and_exits_with_2() {
    let (mut floor, _) = floor("send").unwrap();
    floor.tell(&json!({ "publish": { "rounds": 1, "burst": 1, "interval_s": 0, "bytes": 128, "sequence": [1] }}));
    assert_eq!(floor.hear(), None);
    assert_eq!(floor.end(), Some(2));
}
