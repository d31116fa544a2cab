//! The loop: sockets, one command at a time, one report for each.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::args::Settings;
use super::counts::Standing;
use super::crowd::Crowd;
use super::protocol::Protocol;
use crate::commands::{COMMAND_BYTES_MAX, Lines};
use crate::error::LoadError;
use crate::histogram::pairs_us;
use crate::report::{Latency, line, seconds};
use crate::sys::{self, Event};

/// Events taken at a time.
const EVENTS: usize = 1024;

/// The token of stdin; connections have their numbers.
const STDIN: u64 = u64::MAX;

/// The longest time of a command, seconds: a day.
const SECONDS_MAX: f64 = 86_400.0;

/// Pings are sent so often, each time all that are due.
const PING_TURN_NS: u64 = 100_000_000;

/// The longest invocation, in a frame that is written whole.
const INVOCATION_BYTES_MAX: usize = 60_000;

/// A line on stdin.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Command {
    /// Wait until each client has so many more messages.
    Expect(u64),
    /// Have each client call, again as soon as it is answered, so many times in all.
    Invoke {
        target: String,
        arguments: Vec<Value>,
        calls: u64,
    },
    /// Read what comes for so long.
    Watch {
        seconds: f64,
    },
    /// Read from one client in so many no more.
    Stall {
        one_in: u32,
    },
    /// Ping, each client so often and all of them spread over that time; read what comes.
    /// Without `seconds` until the next command, or the end of stdin.
    Idle {
        seconds: Option<f64>,
        ping_every_s: f64,
    },
    /// What each client has had so far is what was expected.
    Level(bool),
    /// Tell how things are, at once.
    Tell(bool),
    Quit(bool),
}

impl Command {
    /// Reads one line, and checks it against the protocol and its bounds.
    fn parse(text: &str, protocol: Protocol) -> Result<Self, LoadError> {
        let refused = |why: String| LoadError::Command { line: text.to_owned(), why };
        let command = serde_json::from_str(text).map_err(|error| refused(error.to_string()))?;
        if protocol == Protocol::Raw && matches!(command, Self::Invoke { .. } | Self::Idle { .. }) {
            return Err(refused("the raw protocol has neither invocations nor pings".to_owned()));
        }
        let bounded = match command {
            Self::Idle { seconds, ping_every_s } => {
                vec![("seconds", seconds.unwrap_or_default(), 0.0), ("ping_every_s", ping_every_s, 0.001)]
            }
            Self::Watch { seconds } => vec![("seconds", seconds, 0.0)],
            Self::Stall { one_in } => vec![("one_in", one_in.into(), 1.0)],
            _ => Vec::new(),
        };
        for (name, value, least) in bounded {
            if !(least..=SECONDS_MAX).contains(&value) {
                return Err(refused(format!("{name} is {value}, but must be {least} to {SECONDS_MAX}")));
            }
        }
        if text.len() > INVOCATION_BYTES_MAX {
            return Err(refused(format!("it has {} bytes, over {INVOCATION_BYTES_MAX}", text.len())));
        }
        Ok(command)
    }
}

/// What is under way.
#[derive(Clone, Copy, Debug)]
enum Task {
    Connect,
    Expect { each: u64 },
    Invoke { calls: u64 },
    Watch { ends_ns: u64 },
    Idle { ends_ns: Option<u64>, ping_every_ns: u64, pings: u64 },
}

struct Session {
    crowd: Crowd,
    lines: Lines,
    /// What was told and is not begun.
    commands: VecDeque<Command>,
    task: Option<Task>,
    /// When it began, and the CPU time then.
    began_ns: u64,
    began_cpu_ns: u64,
    /// Pings that were sent whatever else was done, and the next turn of them.
    pings: u64,
    pings_due_ns: u64,
    started_ns: u64,
    is_over: bool,
}

/// Connects, then obeys commands until stdin ends; gives the exit code.
pub(super) fn run(settings: Settings) -> Result<i32, LoadError> {
    let crowd = Crowd::new(settings)?;
    let lines = Lines::watch(&crowd.epoll, 0, STDIN, COMMAND_BYTES_MAX);
    let mut session = Session {
        lines: lines.map_err(LoadError::system("watching stdin"))?,
        commands: VecDeque::new(),
        task: Some(Task::Connect),
        began_ns: sys::monotonic_ns(),
        began_cpu_ns: sys::cpu_ns(),
        pings: 0,
        pings_due_ns: 0,
        started_ns: sys::monotonic_ns(),
        is_over: false,
        crowd,
    };
    let mut events = vec![Event::EMPTY; EVENTS];
    while !session.is_over {
        session.turn(&mut events)?;
    }
    for (why, count) in &session.crowd.failures {
        eprintln!("fanwire-load: {count} connections failed or were lost: {why}");
    }
    Ok(0)
}

impl Session {
    fn turn(&mut self, events: &mut [Event]) -> Result<(), LoadError> {
        self.crowd.begin_connects();
        let timeout = self.timeout(sys::monotonic_ns());
        let count = self.crowd.epoll.wait(events, timeout).map_err(LoadError::system("epoll_pwait2"))?;
        let events = &events[..count];
        if self.lines.is_always_ready() || events.iter().any(|event| event.token() == STDIN) {
            self.read_commands()?;
        }
        for &event in events {
            self.crowd.handle(event);
        }
        let now = sys::monotonic_ns();
        self.send_pings(now);
        self.send_steady_pings(now);
        self.conclude(now);
        self.begin_next()?;
        if self.crowd.progress.is_due(now) {
            line(&self.tick(now));
        }
        Ok(())
    }

    /// How long nothing but an event needs attention.
    fn timeout(&self, now: u64) -> Option<Duration> {
        if self.lines.is_always_ready() {
            return Some(Duration::ZERO);
        }
        let next = self.task.map(|task| match task {
            Task::Watch { ends_ns } => ends_ns,
            Task::Idle { ends_ns, ping_every_ns, pings } => {
                self.ping_due_ns(ping_every_ns, pings).min(ends_ns.unwrap_or(u64::MAX))
            }
            _ => self.gives_up_ns(),
        });
        let pings = self.crowd.settings.ping_every.map(|_| self.pings_due_ns);
        let more = [self.crowd.progress.due_ns(), self.crowd.return_due_ns(), pings];
        let first = next.into_iter().chain(more.into_iter().flatten()).min()?;
        Some(Duration::from_nanos(first.saturating_sub(now)))
    }

    /// When patience ends, as things are.
    fn gives_up_ns(&self) -> u64 {
        self.began_ns.max(self.crowd.moved_ns) + self.crowd.settings.patience.as_nanos() as u64
    }

    /// When the ping of this number is due.
    fn ping_due_ns(&self, ping_every_ns: u64, number: u64) -> u64 {
        self.began_ns + self.ping_after_ns(ping_every_ns, number)
    }

    /// So long after the beginning.
    fn ping_after_ns(&self, ping_every_ns: u64, number: u64) -> u64 {
        let passed = u128::from(number + 1) * u128::from(ping_every_ns) / u128::from(self.crowd.settings.connections);
        passed as u64
    }

    /// Sends those pings that are due whatever else is done.
    fn send_steady_pings(&mut self, now: u64) {
        let Some(every) = self.crowd.settings.ping_every.filter(|_| now >= self.pings_due_ns) else { return };
        self.pings_due_ns = now + PING_TURN_NS;
        while self.started_ns + self.ping_after_ns(every.as_nanos() as u64, self.pings) <= now {
            self.crowd.ping(self.pings);
            self.pings += 1;
        }
    }

    fn read_commands(&mut self) -> Result<(), LoadError> {
        for text in self.lines.read(&self.crowd.epoll).map_err(LoadError::system("reading stdin"))? {
            match Command::parse(&text, self.crowd.settings.protocol)? {
                Command::Tell(_) => line(&self.tick(sys::monotonic_ns())),
                command => self.commands.push_back(command),
            }
        }
        Ok(())
    }

    /// Goes on to what was told next, once all before it is done.
    fn begin_next(&mut self) -> Result<(), LoadError> {
        while self.task.is_none() && !self.is_over {
            match self.commands.pop_front() {
                Some(command) => {
                    self.begin(command)?;
                    self.conclude(sys::monotonic_ns()); // it may be done already
                }
                None => {
                    self.is_over = self.lines.is_ended();
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, command: Command) -> Result<(), LoadError> {
        self.began_ns = sys::monotonic_ns();
        self.began_cpu_ns = sys::cpu_ns();
        match command {
            Command::Expect(each) => {
                self.crowd.expect(each);
                self.task = Some(Task::Expect { each });
                line(&json!({ "expecting": each }));
            }
            Command::Invoke { target, arguments, calls } => {
                self.task = Some(Task::Invoke { calls });
                self.crowd.begin_calls(self.crowd.settings.protocol.invocation(&target, &arguments), calls);
            }
            Command::Watch { seconds } => {
                self.crowd.count_anew();
                let ends_ns = self.began_ns + Duration::from_secs_f64(seconds).as_nanos() as u64;
                self.task = Some(Task::Watch { ends_ns });
                line(&json!({ "watching": seconds }));
            }
            Command::Stall { one_in } => line(&json!({ "stalled": self.crowd.stall(one_in)? })),
            Command::Idle { seconds, ping_every_s } => {
                self.crowd.count_anew();
                let ends_ns = seconds.map(|seconds| self.began_ns + Duration::from_secs_f64(seconds).as_nanos() as u64);
                let ping_every_ns = Duration::from_secs_f64(ping_every_s).as_nanos() as u64;
                self.task = Some(Task::Idle { ends_ns, ping_every_ns, pings: 0 });
            }
            Command::Level(_) => {
                self.crowd.level();
                line(&json!({ "level": true }));
            }
            Command::Quit(quits) => self.is_over = quits,
            Command::Tell(_) => {} // never left waiting
        }
        Ok(())
    }

    /// Sends the pings that are due.
    fn send_pings(&mut self, now: u64) {
        let Some(Task::Idle { ends_ns, ping_every_ns, mut pings }) = self.task else { return };
        while self.ping_due_ns(ping_every_ns, pings) <= now {
            self.crowd.ping(pings);
            pings += 1;
        }
        self.task = Some(Task::Idle { ends_ns, ping_every_ns, pings });
    }

    /// Reports what is done, or given up.
    fn conclude(&mut self, now: u64) {
        let Some(task) = self.task else { return };
        let is_given_up = now >= self.gives_up_ns();
        let is_done = match task {
            Task::Connect => self.crowd.is_settled(),
            Task::Expect { .. } => self.crowd.is_met(),
            Task::Invoke { .. } => self.crowd.are_calls_over(),
            Task::Watch { ends_ns } | Task::Idle { ends_ns: Some(ends_ns), .. } => now >= ends_ns,
            Task::Idle { ends_ns: None, .. } => self.lines.is_ended() || !self.commands.is_empty(),
        };
        if !is_done && (!is_given_up || matches!(task, Task::Watch { .. } | Task::Idle { .. })) {
            return;
        }
        match task {
            Task::Connect if !is_done => self.crowd.abandon_connects(),
            Task::Invoke { .. } if !is_done => self.crowd.abandon_calls(),
            _ => {}
        }
        self.task = None;
        line(&self.report(task, now));
    }

    /// What there has been since the start.
    fn tick(&mut self, now: u64) -> Value {
        let crowd = &mut self.crowd;
        let ages_us = crowd.progress.begin_span(now);
        json!({ "tick": {
            "open": crowd.opened - crowd.closed,
            "failed": crowd.failed,
            "closed": crowd.closed,
            "received": crowd.progress.received,
            "bytes": crowd.progress.bytes,
            "ages_us": ages_us,
            "faults": crowd.faults,
            "returned": crowd.returning.returned,
            "return_slowest_ns": crowd.returning.slowest_ns,
            "missed": crowd.faults.missed,
            "opened_ns": crowd.opened_ns,
            "pings_received": crowd.progress.pings,
            "failures": crowd.failures,
        }})
    }

    fn report(&self, task: Task, now: u64) -> Value {
        let crowd = &self.crowd;
        let counts = &crowd.counts;
        let passed_s = seconds(now - self.began_ns);
        let cpu_s = seconds(sys::cpu_ns() - self.began_cpu_ns);
        match task {
            Task::Connect => json!({
                "connected": crowd.opened,
                "failed": crowd.failed,
                "seconds": seconds(crowd.opened_ns - self.began_ns.min(crowd.opened_ns)),
                "login_us": Latency::of(&crowd.logins),
                "faults": crowd.faults,
                "cpu_seconds": cpu_s,
            }),
            Task::Expect { each } => {
                let (lowest, highest) = crowd.extremes(each);
                json!({ "complete": {
                    "received": counts.received,
                    "lowest": lowest,
                    "highest": highest,
                    "last_ns": counts.last_ns,
                    "ages_us": pairs_us(&counts.latency),
                    "bytes": counts.bytes,
                    "frames": counts.frames,
                    "faults": crowd.faults,
                    "closed": crowd.closed,
                    "seconds": passed_s,
                    "cpu_seconds": cpu_s,
                }})
            }
            Task::Watch { .. } => {
                let Standing { newest, behind } = crowd.standing();
                json!({ "watched": {
                    "received": counts.received,
                    "bytes": counts.bytes,
                    "frames": counts.frames,
                    "faults": crowd.faults,
                    "latency_us": Latency::of(&counts.latency),
                    "ages_us": pairs_us(&counts.latency),
                    "silence_s": seconds(counts.silence_ns),
                    "newest": newest,
                    "behind": behind,
                    "closed": crowd.closed,
                    "seconds": passed_s,
                    "cpu_seconds": cpu_s,
                }})
            }
            Task::Invoke { calls } => json!({ "invoked": {
                "calls": calls - crowd.calls_left(),
                "failed": crowd.calls.failed,
                "closed": crowd.closed,
                "seconds": passed_s,
                "cpu_seconds": cpu_s,
            }}),
            Task::Idle { pings, .. } => json!({ "idled": {
                "pings_sent": pings,
                "pings_received": counts.pings,
                "closed": crowd.closed,
                "seconds": passed_s,
                "cpu_seconds": cpu_s,
            }}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_the_contract_are_read() {
        let parse = |text| Command::parse(text, Protocol::Json).unwrap();
        assert_eq!(parse(r#"{"expect": 20}"#), Command::Expect(20));
        assert_eq!(parse(r#"{"quit": true}"#), Command::Quit(true));
        assert_eq!(parse(r#"{"watch": {"seconds": 2}}"#), Command::Watch { seconds: 2.0 });
        let idle = Command::Idle { seconds: None, ping_every_s: 15.0 };
        assert_eq!(parse(r#"{"idle": {"ping_every_s": 15}}"#), idle);
        assert_eq!(parse(r#"{"stall": {"one_in": 100}}"#), Command::Stall { one_in: 100 });
        let invoke = parse(r#"{"invoke": {"target": "Add", "arguments": [1, 2], "calls": 9}}"#);
        let arguments = vec![json!(1), json!(2)];
        assert_eq!(invoke, Command::Invoke { target: "Add".to_owned(), arguments, calls: 9 });
    }

    #[test]
    fn other_commands_are_refused_by_name_and_bound() {
        for (text, protocol, why) in [
            (r#"{"expcet": 5}"#, Protocol::Json, "expcet"),
            (r#"{"idle": {"seconds": 1, "ping_every_s": 0}}"#, Protocol::Json, "ping_every_s is 0, but must be 0.001"),
            (r#"{"watch": {"seconds": -1}}"#, Protocol::Json, "seconds is -1, but must be 0"),
            (r#"{"stall": {"one_in": 0}}"#, Protocol::Json, "one_in is 0, but must be 1"),
            (r#"{"idle": {"seconds": -1, "ping_every_s": 1}}"#, Protocol::Json, "seconds is -1, but must be 0"),
            (r#"{"idle": {"seconds": 1, "ping_every_s": 1}}"#, Protocol::Raw, "neither invocations nor pings"),
        ] {
            let error = Command::parse(text, protocol).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
