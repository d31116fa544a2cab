//! Several processes, where one may not hold all connections: the parent starts children of itself, hands each its
//! share, and makes one report of theirs. The parent opens no connection.

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::args::Settings;
use crate::commands::{COMMAND_BYTES_MAX, Command, Lines};
use crate::error::LoadError;
use crate::histogram::latencies;
use crate::report::{Complete, Connected, Counts, Reporter, Said, Tick, seconds};
use crate::sys::{self, Epoll, Event};

/// The token of the parent's stdin; children have their numbers.
const STDIN: u64 = u64::MAX;

/// The longest line of a child: a report with as many completions as a child remembers.
const CHILD_LINE_BYTES_MAX: usize = 128 << 20;

/// A child's [`Said::Connected`].
struct ChildConnected {
    connected: Connected,
    started_ns: u64,
    opened_ns: u64,
}

/// One publication in the children that have it.
struct Progress {
    ns: u64,
    last_ns: u64,
    children: u32,
}

struct Parent<'a> {
    settings: &'a Settings,
    reporter: Reporter,
    epoll: Epoll,
    children: Vec<Child>,
    outputs: Vec<Lines>,
    connected: Vec<Option<ChildConnected>>,
    is_announced: bool,
    epoch: u32,
    /// Messages to wait for; `Some(None)` while `--for` runs.
    expected: Option<Option<u64>>,
    began_ns: u64,
    arrived_ns: u64,
    ticked_ns: u64,
    ends_ns: Option<u64>,
    /// Of the current epoch: messages of each child, ages since the last tick and before, acknowledgements and reports.
    received: Vec<u64>,
    interval: Histogram<u64>,
    latency: Histogram<u64>,
    expecting: usize,
    is_reporting: bool,
    reports: Vec<Counts>,
    completed: HashMap<(u32, u32), Progress>,
    is_over: bool,
    exit_code: i32,
}

/// Runs all processes to their end; gives the exit code.
pub(crate) fn run(settings: &Settings) -> Result<i32, LoadError> {
    let program = env::current_exe().map_err(LoadError::system("finding this program itself"))?;
    let epoll = Epoll::new().map_err(LoadError::system("epoll_create1"))?;
    let mut children = Vec::new();
    let mut outputs = Vec::new();
    for index in 0..settings.processes {
        let child = start(&program, settings, index)?;
        let output = child.stdout.as_ref().expect("its stdout is a pipe").as_raw_fd();
        let lines = Lines::watch(&epoll, output, index.into(), CHILD_LINE_BYTES_MAX);
        outputs.push(lines.map_err(LoadError::system("watching a child"))?);
        children.push(child);
    }
    let reads_commands = settings.measure.is_none() && !settings.is_holding;
    let mut stdin = reads_commands
        .then(|| Lines::watch(&epoll, 0, STDIN, COMMAND_BYTES_MAX))
        .transpose()
        .map_err(LoadError::system("watching stdin"))?;
    let now = sys::monotonic_ns();
    let mut parent = Parent {
        settings,
        reporter: Reporter::new(),
        epoll,
        connected: children.iter().map(|_| None).collect(),
        received: vec![0; children.len()],
        children,
        outputs,
        is_announced: false,
        epoch: 0,
        expected: None,
        began_ns: now,
        arrived_ns: now,
        ticked_ns: now,
        ends_ns: None,
        interval: latencies(),
        latency: latencies(),
        expecting: 0,
        is_reporting: false,
        reports: Vec::new(),
        completed: HashMap::new(),
        is_over: false,
        exit_code: 0,
    };
    let outcome = parent.run(stdin.as_mut());
    parent.stop();
    outcome.map(|()| parent.exit_code)
}

/// Starts child `index` with its share of the connections.
fn start(program: &Path, settings: &Settings, index: u32) -> Result<Child, LoadError> {
    let first =
        |index: u32| (u64::from(settings.connections) * u64::from(index) / u64::from(settings.processes)) as u32;
    let (first, next) = (first(index), first(index + 1));
    let in_flight = (settings.in_flight / settings.processes).max(1);
    let options = [
        ("--url", settings.url.clone()),
        ("--connections", (next - first).to_string()),
        ("--child-first", first.to_string()),
        ("--channels", settings.channels.to_string()),
        ("--subscriptions", settings.subscriptions.to_string()),
        ("--zipf", settings.zipf.to_string()),
        ("--seed", settings.seed.to_string()),
        ("--sources", settings.sources.unwrap_or(1).to_string()),
        ("--in-flight", in_flight.to_string()),
        ("--patience", settings.patience.as_secs_f64().to_string()),
        ("--processes", "1".to_owned()),
    ];
    Process::new(program)
        .args(options.iter().map(|(name, value)| format!("{name}={value}")))
        .args(settings.is_counting_replies.then_some("--replies"))
        .args(settings.has_envelopes.then_some("--envelopes"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(LoadError::system("starting a child"))
}

impl Parent<'_> {
    fn run(&mut self, mut stdin: Option<&mut Lines>) -> Result<(), LoadError> {
        let mut events = [Event::EMPTY; 64];
        while !self.is_over {
            let is_ready = stdin.as_ref().is_some_and(|lines| lines.is_always_ready());
            let timeout = if is_ready { Some(Duration::ZERO) } else { self.timeout(sys::monotonic_ns()) };
            let count = self.epoll.wait(&mut events, timeout).map_err(LoadError::system("epoll_pwait2"))?;
            let has_command = is_ready || events[..count].iter().any(|event| event.token() == STDIN);
            if let Some(lines) = stdin.as_mut().filter(|_| has_command) {
                let commands = lines.read(&self.epoll).map_err(LoadError::system("reading stdin"))?;
                self.is_over |= lines.is_ended();
                commands.iter().try_for_each(|line| self.obey(&Command::parse(line)?))?;
            }
            for event in events[..count].iter().filter(|event| event.token() != STDIN) {
                self.read_child(event.token() as usize)?;
            }
            self.look_at_the_time(sys::monotonic_ns())?;
        }
        Ok(())
    }

    fn timeout(&self, now: u64) -> Option<Duration> {
        let tick = (!self.interval.is_empty()).then_some(self.ticked_ns + 1_000_000_000);
        let is_waiting = matches!(self.expected, Some(Some(_))) && !self.is_reporting;
        let gives_up = is_waiting.then(|| self.gives_up_ns());
        let ends = self.ends_ns.filter(|_| !self.is_reporting);
        let next = [tick, gives_up, ends].into_iter().flatten().min()?;
        Some(Duration::from_nanos(next.saturating_sub(now)))
    }

    fn gives_up_ns(&self) -> u64 {
        self.began_ns.max(self.arrived_ns) + self.settings.patience.as_nanos() as u64
    }

    fn obey(&mut self, command: &Command) -> Result<(), LoadError> {
        self.is_over |= command.quit;
        match command.expect {
            Some(messages) => self.begin(Some(messages)),
            None => Ok(()),
        }
    }

    /// Counts anew in all children.
    fn begin(&mut self, expected: Option<u64>) -> Result<(), LoadError> {
        self.epoch += 1;
        self.expected = Some(expected);
        self.began_ns = sys::monotonic_ns();
        self.ticked_ns = self.began_ns;
        self.received.fill(0);
        self.interval.reset();
        self.latency.reset();
        self.expecting = 0;
        self.is_reporting = false;
        self.reports.clear();
        self.completed.clear();
        self.tell(&format!("{{\"expect\":0,\"epoch\":{}}}\n", self.epoch))
    }

    fn tell(&mut self, line: &str) -> Result<(), LoadError> {
        for (child, process) in self.children.iter_mut().enumerate() {
            let input = process.stdin.as_mut().expect("its stdin is a pipe until the end");
            let told = input.write_all(line.as_bytes());
            told.map_err(|error| LoadError::Child { child, why: format!("reads no commands: {error}") })?;
        }
        Ok(())
    }

    fn read_child(&mut self, child: usize) -> Result<(), LoadError> {
        let output = &mut self.outputs[child];
        let lines = output.read(&self.epoll).map_err(LoadError::system("reading a child"))?;
        if output.is_ended() {
            return Err(LoadError::Child { child, why: "ended early".to_owned() });
        }
        for line in lines {
            let said = serde_json::from_str(&line)
                .map_err(|error| LoadError::Child { child, why: format!("said {line:.80}: {error}") })?;
            self.hear(child, said)?;
        }
        Ok(())
    }

    fn hear(&mut self, child: usize, said: Said) -> Result<(), LoadError> {
        match said {
            Said::Connected { connected, started_ns, opened_ns } => {
                self.connected[child] = Some(ChildConnected { connected, started_ns, opened_ns });
                self.announce()?;
            }
            Said::Expecting { epoch } if epoch == self.epoch => {
                self.expecting += 1;
                let is_acknowledged = self.expecting == self.children.len();
                if let Some(Some(messages)) = self.expected
                    && self.settings.is_acknowledging
                    && is_acknowledged
                {
                    self.reporter.expecting(messages);
                }
            }
            Said::Tick { epoch, received, ages } if epoch == self.epoch => {
                self.arrived_ns = sys::monotonic_ns();
                self.received[child] = received;
                for (age, count) in ages {
                    self.interval.saturating_record_n(age, count);
                }
            }
            Said::Report { epoch, counts, completed } if epoch == self.epoch => {
                self.reports.push(counts);
                for (channel, sequence, ns, last_ns) in completed {
                    let new = Progress { ns, last_ns: 0, children: 0 };
                    let progress = self.completed.entry((channel, sequence)).or_insert(new);
                    progress.last_ns = progress.last_ns.max(last_ns);
                    progress.children += 1;
                }
                if self.reports.len() == self.children.len() {
                    self.complete();
                }
            }
            Said::Expecting { .. } | Said::Tick { .. } | Said::Report { .. } => {}
        }
        Ok(())
    }

    /// Tells that all connections are open or failed, once all children have said so.
    fn announce(&mut self) -> Result<(), LoadError> {
        let Some(all) = self.connected.iter().map(Option::as_ref).collect::<Option<Vec<_>>>() else { return Ok(()) };
        let started_ns = all.iter().map(|one| one.started_ns).min().unwrap_or(0);
        let opened_ns = all.iter().map(|one| one.opened_ns).max().unwrap_or(0);
        let mut subscribers = BTreeMap::new();
        for (&channel, &count) in all.iter().flat_map(|one| &one.connected.subscribers) {
            *subscribers.entry(channel).or_default() += count;
        }
        self.reporter.connected(&Connected {
            connected: all.iter().map(|one| one.connected.connected).sum(),
            seconds: seconds(opened_ns - started_ns),
            failed: all.iter().map(|one| one.connected.failed).sum(),
            subscribers,
        });
        self.is_announced = true;
        if let Some(measure) = self.settings.measure {
            self.begin(None)?;
            self.ends_ns = Some(self.began_ns + measure.as_nanos() as u64);
        }
        Ok(())
    }

    fn look_at_the_time(&mut self, now: u64) -> Result<(), LoadError> {
        let received = self.received.iter().sum();
        if now - self.ticked_ns >= 1_000_000_000 {
            if !self.interval.is_empty() {
                self.reporter.tick(&Tick::new(received, &self.interval, seconds(now - self.ticked_ns)));
                self.end_interval();
            }
            self.ticked_ns = now;
        }
        let is_done = match self.expected {
            None => false,
            Some(None) => self.ends_ns.is_some_and(|ends_ns| now >= ends_ns),
            Some(Some(expected)) => received >= expected || (self.is_announced && now >= self.gives_up_ns()),
        };
        if is_done && !self.is_reporting {
            self.is_reporting = true;
            return self.tell("{\"report\":true}\n");
        }
        Ok(())
    }

    fn end_interval(&mut self) {
        self.latency.add(&self.interval).expect("both histograms have the same bounds");
        self.interval.reset();
    }

    /// Makes one report of the children's.
    fn complete(&mut self) {
        self.end_interval();
        let counts = sum(&self.reports);
        let mut completion = latencies();
        for ((channel, _), progress) in self.completed.drain() {
            let watching = self.connected.iter().flatten();
            let watching = watching.filter(|one| one.connected.subscribers.contains_key(&channel)).count();
            if progress.children as usize >= watching {
                completion.saturating_record(progress.last_ns.saturating_sub(progress.ns));
            }
        }
        let expected = self.expected.take().flatten();
        self.reporter.complete(&Complete::new(&counts, expected, &self.latency, &completion));
        if self.ends_ns.is_some() {
            let opened: u32 = self.connected.iter().flatten().map(|one| one.connected.connected).sum();
            self.is_over = true;
            self.exit_code = i32::from(!counts.is_clean() || opened == 0);
        }
    }

    /// Ends all children: they quit when their stdin ends.
    fn stop(&mut self) {
        for child in &mut self.children {
            drop(child.stdin.take());
            drop(child.stdout.take());
        }
        for (index, child) in self.children.iter_mut().enumerate() {
            if let Err(error) = child.wait() {
                eprintln!("fanwire-load: child {index}: {error}");
            }
        }
    }
}

/// The counters of all processes together.
fn sum(reports: &[Counts]) -> Counts {
    let arrived = || reports.iter().filter(|one| one.received > 0);
    Counts {
        received: reports.iter().map(|one| one.received).sum(),
        gaps: reports.iter().map(|one| one.gaps).sum(),
        missing: reports.iter().map(|one| one.missing).sum(),
        reordered: reports.iter().map(|one| one.reordered).sum(),
        malformed: reports.iter().map(|one| one.malformed).sum(),
        replies: reports.iter().filter_map(|one| one.replies).reduce(|one, other| one + other),
        misrouted: reports.iter().map(|one| one.misrouted).sum(),
        closed: reports.iter().map(|one| one.closed).sum(),
        lowest: reports.iter().map(|one| one.lowest).min().unwrap_or(0),
        highest: reports.iter().map(|one| one.highest).max().unwrap_or(0),
        first_ns: arrived().map(|one| one.first_ns).min().unwrap_or(0),
        last_ns: arrived().map(|one| one.last_ns).max().unwrap_or(0),
        cpu_ns: reports.iter().map(|one| one.cpu_ns).sum(),
        uncompleted: reports.iter().map(|one| one.uncompleted).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn span_of_all_reports_leaves_out_those_without_messages() {
        let counts = |received, first_ns, last_ns| Counts { received, first_ns, last_ns, ..Counts::default() };
        let all = sum(&[counts(0, 0, 0), counts(5, 100, 200), counts(6, 150, 900)]);
        assert_eq!((all.received, all.first_ns, all.last_ns), (11, 100, 900));
    }

    #[test]
    fn replies_of_all_reports_are_added_where_they_are_counted() {
        let counts = |replies| Counts { replies, ..Counts::default() };
        assert_eq!(sum(&[counts(None), counts(None)]).replies, None);
        assert_eq!(sum(&[counts(Some(2)), counts(Some(0)), counts(Some(5))]).replies, Some(7));
    }
}
