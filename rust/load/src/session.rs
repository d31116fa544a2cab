//! The loop of one process: sockets, commands, ticks, expectations. A process alone tells its reports to the user, a
//! child tells its counters to its parent.

use std::time::Duration;

use crate::args::Settings;
use crate::client::Client;
use crate::commands::{COMMAND_BYTES_MAX, Command, Lines};
use crate::error::LoadError;
use crate::histogram::pairs;
use crate::report::{Complete, Connected, Counts, Reporter, Said, Tick, line, seconds};
use crate::sys::{self, Event};

/// Events taken at a time.
const EVENTS: usize = 1024;

/// The token of stdin; connections have their numbers.
const STDIN: u64 = u64::MAX;

/// Between ticks, for the user and for a parent.
const TICK_NS: u64 = 1_000_000_000;
const CHILD_TICK_NS: u64 = 50_000_000;

struct Session {
    client: Client,
    reporter: Reporter,
    lines: Option<Lines>,
    is_child: bool,
    epoch: u32,
    is_announced: bool,
    /// Messages to wait for.
    expected: Option<u64>,
    /// When counting last began, and the CPU time then.
    began_ns: u64,
    began_cpu_ns: u64,
    ticked_ns: u64,
    /// End of `--for`.
    ends_ns: Option<u64>,
    is_over: bool,
    exit_code: i32,
}

/// Runs one process to its end; gives the exit code.
pub(crate) fn run(settings: Settings) -> Result<i32, LoadError> {
    let client = Client::new(settings)?;
    let reads_commands = client.settings.measure.is_none() && !client.settings.is_holding;
    let lines = reads_commands.then(|| Lines::watch(&client.epoll, 0, STDIN, COMMAND_BYTES_MAX)).transpose();
    let now = sys::monotonic_ns();
    let mut session = Session {
        reporter: Reporter::new(),
        lines: lines.map_err(LoadError::system("watching stdin"))?,
        is_child: client.settings.child_first.is_some(),
        epoch: 0,
        is_announced: false,
        expected: None,
        began_ns: now,
        began_cpu_ns: sys::cpu_ns(),
        ticked_ns: now,
        ends_ns: None,
        is_over: false,
        exit_code: 0,
        client,
    };
    let mut events = vec![Event::EMPTY; EVENTS];
    while !session.is_over {
        session.turn(&mut events)?;
    }
    Ok(session.exit_code)
}

impl Session {
    fn turn(&mut self, events: &mut [Event]) -> Result<(), LoadError> {
        if !self.client.is_settled() {
            self.client.begin_connects();
        }
        let timeout = self.timeout(sys::monotonic_ns());
        let count = self.client.epoll.wait(events, timeout).map_err(LoadError::system("epoll_pwait2"))?;
        let events = &events[..count];
        // What is on stdin was written before what is on the sockets was sent: a runner expects, then publishes.
        let is_ready = self.lines.as_ref().is_some_and(Lines::is_always_ready);
        if is_ready || events.iter().any(|event| event.token() == STDIN) {
            self.read_commands()?;
        }
        for &event in events {
            self.client.handle(event);
        }
        let now = sys::monotonic_ns();
        self.announce(now);
        if now.saturating_sub(self.ticked_ns) >= self.tick_ns() {
            self.tick(now);
        }
        self.conclude(now);
        Ok(())
    }

    fn tick_ns(&self) -> u64 {
        if self.is_child { CHILD_TICK_NS } else { TICK_NS }
    }

    /// How long nothing but an event needs attention.
    fn timeout(&self, now: u64) -> Option<Duration> {
        if self.lines.as_ref().is_some_and(Lines::is_always_ready) {
            return Some(Duration::ZERO);
        }
        let is_quiet = self.client.tally.interval.is_empty();
        let tick = (!is_quiet).then(|| self.ticked_ns + self.tick_ns());
        let gives_up = (!self.is_announced || self.expected.is_some()).then(|| self.gives_up_ns());
        let next = [tick, gives_up, self.ends_ns].into_iter().flatten().min()?;
        Some(Duration::from_nanos(next.saturating_sub(now)))
    }

    /// When patience ends, as things are.
    fn gives_up_ns(&self) -> u64 {
        let moved_ns = if self.is_announced {
            self.began_ns.max(self.client.tally.last_ns)
        } else {
            self.began_ns.max(self.client.progress_ns)
        };
        moved_ns + self.client.settings.patience.as_nanos() as u64
    }

    fn read_commands(&mut self) -> Result<(), LoadError> {
        let Some(lines) = &mut self.lines else { return Ok(()) };
        let commands = lines.read(&self.client.epoll).map_err(LoadError::system("reading stdin"))?;
        self.is_over |= lines.is_ended();
        for text in commands {
            let command = Command::parse(&text)?;
            self.is_over |= command.quit;
            if let Some(messages) = command.expect {
                self.begin();
                self.epoch = command.epoch;
                self.expected = (!self.is_child).then_some(messages);
                if self.is_child {
                    line(&Said::Expecting { epoch: self.epoch });
                } else if self.client.settings.is_acknowledging {
                    self.reporter.expecting(messages);
                }
            }
            if command.report {
                self.report_to_parent();
            }
        }
        Ok(())
    }

    /// Counts anew.
    fn begin(&mut self) {
        self.client.reset();
        self.began_ns = sys::monotonic_ns();
        self.began_cpu_ns = sys::cpu_ns();
        self.ticked_ns = self.began_ns;
    }

    /// Tells, once, that all connections are open or failed.
    fn announce(&mut self, now: u64) {
        if self.is_announced {
            return;
        }
        if !self.client.is_settled() {
            if now < self.gives_up_ns() {
                return;
            }
            self.client.abandon_connects();
        }
        self.is_announced = true;
        for (why, count) in &self.client.failures {
            eprintln!("fanwire-load: {count} connections failed: {why}");
        }
        let client = &self.client;
        let (started_ns, opened_ns) = (client.started_ns, client.opened_ns.max(client.started_ns));
        let connected = Connected {
            connected: client.opened,
            seconds: seconds(opened_ns - started_ns),
            failed: client.failed,
            subscribers: client.subscribers(),
        };
        if self.is_child {
            return line(&Said::Connected { connected, started_ns, opened_ns });
        }
        self.reporter.connected(&connected);
        if let Some(measure) = self.client.settings.measure {
            self.begin();
            self.ends_ns = Some(self.began_ns + measure.as_nanos() as u64);
        }
    }

    fn tick(&mut self, now: u64) {
        let tally = &mut self.client.tally;
        if !tally.interval.is_empty() {
            if self.is_child {
                line(&Said::Tick { epoch: self.epoch, received: tally.received, ages: pairs(&tally.interval) });
            } else {
                self.reporter.tick(&Tick::new(tally.received, &tally.interval, seconds(now - self.ticked_ns)));
            }
            tally.end_interval();
        }
        self.ticked_ns = now;
    }

    fn counts(&self) -> Counts {
        let tally = &self.client.tally;
        let (lowest, highest) = self.client.extremes();
        Counts {
            received: tally.received,
            gaps: tally.gaps,
            missing: tally.missing,
            reordered: tally.reordered,
            malformed: tally.malformed,
            replies: tally.replies,
            misrouted: tally.misrouted,
            closed: tally.closed,
            lowest,
            highest,
            first_ns: tally.first_ns,
            last_ns: tally.last_ns,
            cpu_ns: sys::cpu_ns() - self.began_cpu_ns,
            uncompleted: tally.completions.uncompleted,
        }
    }

    fn report_to_parent(&mut self) {
        self.tick(sys::monotonic_ns());
        let completed = self.client.tally.completions.list().to_vec();
        line(&Said::Report { epoch: self.epoch, counts: self.counts(), completed });
    }

    /// Ends the expectation, or `--for`, if it is time.
    fn conclude(&mut self, now: u64) {
        let is_met = self.expected.is_some_and(|expected| self.client.tally.received >= expected);
        let is_given_up = self.expected.is_some() && self.is_announced && now >= self.gives_up_ns();
        let is_at_end = self.ends_ns.is_some_and(|ends_ns| now >= ends_ns);
        if !(is_met || is_given_up || is_at_end) {
            return;
        }
        let counts = self.counts();
        self.client.tally.end_interval();
        let tally = &self.client.tally;
        self.reporter.complete(&Complete::new(&counts, self.expected, &tally.latency, &tally.completions.histogram));
        self.expected = None;
        if is_at_end {
            self.is_over = true;
            self.exit_code = i32::from(!counts.is_clean() || self.client.opened == 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_the_contract_are_read_and_others_refused() {
        assert_eq!(Command::parse(r#"{"expect": 5}"#).unwrap().expect, Some(5));
        assert!(Command::parse(r#"{"quit": true}"#).unwrap().quit);
        let error = Command::parse(r#"{"expcet": 5}"#).unwrap_err().to_string();
        assert!(error.contains("expcet"), "{error}");
    }
}
