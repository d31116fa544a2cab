//! The loop: sockets, commands, who comes and goes, reports.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::args::Settings;
use super::counts::Counts;
use super::crowd::Crowd;
use crate::commands::{COMMAND_BYTES_MAX, Lines};
use crate::error::LoadError;
use crate::report::{line, seconds};
use crate::sys::{self, Event};

/// Events taken at a time.
const EVENTS: usize = 1024;

/// The token of stdin; connections have their numbers.
const STDIN: u64 = u64::MAX;

/// Without anything arriving for so long, an expectation is given up.
const PATIENCE_NS: u64 = 15_000_000_000;

const SECOND_NS: u64 = 1_000_000_000;

/// A line on stdin.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Command {
    /// Count anew, and report once so many messages are in.
    expect: Option<u64>,
    /// Count anew.
    #[serde(default)]
    begin: bool,
    /// From now on so many connections a second leave, and others come; 0 ends that.
    churn: Option<u32>,
    /// Report now.
    #[serde(default)]
    tell: bool,
    /// End.
    #[serde(default)]
    quit: bool,
}

/// A report, with the fields of the load client's own where there are such.
#[derive(Serialize)]
struct Complete<'a> {
    received: u64,
    expected: Option<u64>,
    gaps: u64,
    reordered: u64,
    malformed: u64,
    closed: u64,
    failed: u32,
    /// Of connections that were open all the while.
    lowest: u32,
    highest: u32,
    latency_us: BTreeMap<&'a str, f64>,
    completion_us: BTreeMap<&'a str, f64>,
    seconds: f64,
    cpu_seconds: f64,
    counts: Counts,
}

struct Session {
    crowd: Crowd,
    lines: Lines,
    began_ns: u64,
    began_cpu_ns: u64,
    is_announced: bool,
    expected: Option<u64>,
    /// Between two that leave; `None` where nobody does.
    leave_every_ns: Option<u64>,
    leaves_ns: u64,
    is_over: bool,
}

/// Runs the clients to their end; gives the exit code.
pub(super) fn run(settings: Settings) -> Result<i32, LoadError> {
    let crowd = Crowd::new(settings)?;
    let lines = Lines::watch(&crowd.epoll, 0, STDIN, COMMAND_BYTES_MAX).map_err(LoadError::system("watching stdin"))?;
    let mut session = Session {
        crowd,
        lines,
        began_ns: sys::monotonic_ns(),
        began_cpu_ns: sys::cpu_ns(),
        is_announced: false,
        expected: None,
        leave_every_ns: None,
        leaves_ns: 0,
        is_over: false,
    };
    let mut events = vec![Event::EMPTY; EVENTS];
    while !session.is_over {
        session.turn(&mut events)?;
    }
    Ok(0)
}

impl Session {
    fn turn(&mut self, events: &mut [Event]) -> Result<(), LoadError> {
        self.crowd.begin_connects();
        let timeout = self.timeout(sys::monotonic_ns());
        let count = self.crowd.epoll.wait(events, timeout).map_err(LoadError::system("epoll_pwait2"))?;
        let events = &events[..count];
        // What is on stdin was written before what is on the sockets was sent: a runner expects, then publishes.
        if self.lines.is_always_ready() || events.iter().any(|event| event.token() == STDIN) {
            self.read_commands()?;
        }
        for &event in events {
            self.crowd.handle(event);
        }
        let now = sys::monotonic_ns();
        self.announce();
        self.replace(now);
        self.conclude(now);
        Ok(())
    }

    fn timeout(&self, now: u64) -> Option<Duration> {
        if self.lines.is_always_ready() {
            return Some(Duration::ZERO);
        }
        let leaves = self.leave_every_ns.map(|_| self.leaves_ns);
        let gives_up = self.expected.map(|_| self.gives_up_ns());
        let next = leaves.into_iter().chain(gives_up).min()?;
        Some(Duration::from_nanos(next.saturating_sub(now)))
    }

    fn gives_up_ns(&self) -> u64 {
        self.began_ns.max(self.crowd.progress_ns) + PATIENCE_NS
    }

    fn read_commands(&mut self) -> Result<(), LoadError> {
        let texts = self.lines.read(&self.crowd.epoll).map_err(LoadError::system("reading stdin"))?;
        self.is_over |= self.lines.is_ended();
        for text in texts {
            let command: Command = serde_json::from_str(&text)
                .map_err(|error| LoadError::Command { line: text.clone(), why: error.to_string() })?;
            self.is_over |= command.quit;
            if command.begin || command.expect.is_some() {
                self.crowd.begin();
                self.expected = command.expect;
                (self.began_ns, self.began_cpu_ns) = (sys::monotonic_ns(), sys::cpu_ns());
            }
            if let Some(churn) = command.churn {
                self.leave_every_ns = (churn > 0).then(|| SECOND_NS / u64::from(churn));
                self.leaves_ns = sys::monotonic_ns();
            }
            if command.tell {
                self.complete();
            }
        }
        Ok(())
    }

    /// Tells, once, that all connections are open or failed.
    fn announce(&mut self) {
        if self.is_announced || !self.crowd.is_settled() {
            return;
        }
        self.is_announced = true;
        let Crowd { opened, failed, agreed, failures, .. } = &self.crowd;
        for (why, count) in failures {
            eprintln!("fanwire-load: {count} connections failed: {why}");
        }
        let seconds = seconds(sys::monotonic_ns() - self.began_ns);
        line(&json!({ "connected": {
            "connected": opened, "seconds": seconds, "failed": failed, "agreed": agreed, "subscribers": { "0": opened },
        }}));
    }

    fn replace(&mut self, now: u64) {
        let Some(every_ns) = self.leave_every_ns else { return };
        while self.leaves_ns <= now {
            self.leaves_ns += every_ns;
            self.crowd.replace_one();
        }
    }

    fn conclude(&mut self, now: u64) {
        let Some(expected) = self.expected else { return };
        if self.crowd.counts.received() >= expected || now >= self.gives_up_ns() {
            self.complete();
            self.expected = None;
        }
    }

    fn complete(&self) {
        let (counts, (lowest, highest)) = (self.crowd.counts, self.crowd.extremes());
        let complete = Complete {
            received: counts.received(),
            expected: self.expected,
            gaps: counts.gaps,
            reordered: 0,
            malformed: counts.malformed,
            closed: counts.closed,
            failed: self.crowd.failed,
            lowest,
            highest,
            latency_us: BTreeMap::new(),
            completion_us: BTreeMap::new(),
            seconds: seconds(sys::monotonic_ns() - self.began_ns),
            cpu_seconds: seconds(sys::cpu_ns() - self.began_cpu_ns),
            counts,
        };
        line(&json!({ "complete": complete }));
    }
}
