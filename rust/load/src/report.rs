//! What is told on stdout: one JSON object a line, or aligned lines where a person reads them.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::completion::Completed;

/// What a child says on one line. `epoch` is that of the last `expect`: what is of an older one no longer counts.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Said {
    /// Its connections are open or failed.
    Connected { connected: Connected, started_ns: u64, opened_ns: u64 },
    /// It counts anew.
    Expecting { epoch: u32 },
    /// Messages arrived: all of the epoch, and values and counts of the ages of those since the last tick.
    Tick { epoch: u32, received: u64, ages: Vec<(u64, u64)> },
    /// All its counters, after a last tick.
    Report { epoch: u32, counts: Counts, completed: Vec<Completed> },
}

/// All connections are open or failed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Connected {
    pub(crate) connected: u32,
    pub(crate) seconds: f64,
    pub(crate) failed: u32,
    pub(crate) subscribers: BTreeMap<u32, u32>,
}

/// One second in which something arrived.
#[derive(Debug, Serialize)]
pub(crate) struct Tick {
    /// Since the last reset.
    received: u64,
    per_second: u64,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
}

/// The end of an expectation.
#[derive(Debug, Serialize)]
pub(crate) struct Complete {
    received: u64,
    /// `None` where nothing certain was expected: `--for`.
    expected: Option<u64>,
    gaps: u64,
    missing: u64,
    reordered: u64,
    malformed: u64,
    /// With `--replies` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    replies: Option<u64>,
    misrouted: u64,
    closed: u64,
    lowest: u32,
    highest: u32,
    latency_us: Latency,
    completion_us: Completion,
    seconds: f64,
    cpu_seconds: f64,
}

/// Quantiles in microseconds; `None` of nothing.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    p50: Option<f64>,
    p90: Option<f64>,
    p99: Option<f64>,
    p999: Option<f64>,
    max: Option<f64>,
    mean: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Completion {
    p50: Option<f64>,
    p99: Option<f64>,
    max: Option<f64>,
    /// Publications that all subscribers have.
    count: u64,
    /// Publications whose counter was needed for a younger one before all had them.
    uncompleted: u64,
}

/// The counters of one expectation, of one process or of all.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) received: u64,
    pub(crate) gaps: u64,
    pub(crate) missing: u64,
    pub(crate) reordered: u64,
    pub(crate) malformed: u64,
    /// `None` where they are malformed.
    pub(crate) replies: Option<u64>,
    pub(crate) misrouted: u64,
    pub(crate) closed: u64,
    pub(crate) lowest: u32,
    pub(crate) highest: u32,
    pub(crate) first_ns: u64,
    pub(crate) last_ns: u64,
    pub(crate) cpu_ns: u64,
    pub(crate) uncompleted: u64,
}

impl Counts {
    /// Whether nothing was missing, late, twice, broken or astray.
    pub(crate) fn is_clean(&self) -> bool {
        self.gaps + self.reordered + self.malformed + self.misrouted == 0
    }
}

impl Latency {
    /// Of ages in nanoseconds.
    pub(crate) fn of(ages: &Histogram<u64>) -> Self {
        Self {
            p50: quantile_us(ages, 0.5),
            p90: quantile_us(ages, 0.9),
            p99: quantile_us(ages, 0.99),
            p999: quantile_us(ages, 0.999),
            max: quantile_us(ages, 1.0),
            mean: (!ages.is_empty()).then(|| to_us(ages.mean())),
        }
    }
}

impl Tick {
    /// `received` in all, `interval` of it in the last `seconds`.
    pub(crate) fn new(received: u64, interval: &Histogram<u64>, seconds: f64) -> Self {
        let per_second = (interval.len() as f64 / seconds).round() as u64;
        Self { received, per_second, p50_us: quantile_us(interval, 0.5), p99_us: quantile_us(interval, 0.99) }
    }
}

impl Complete {
    /// From the counters and the ages, in nanoseconds, of messages and of completed publications.
    pub(crate) fn new(
        counts: &Counts,
        expected: Option<u64>,
        latency: &Histogram<u64>,
        completion: &Histogram<u64>,
    ) -> Self {
        Self {
            received: counts.received,
            expected,
            gaps: counts.gaps,
            missing: counts.missing,
            reordered: counts.reordered,
            malformed: counts.malformed,
            replies: counts.replies,
            misrouted: counts.misrouted,
            closed: counts.closed,
            lowest: counts.lowest,
            highest: counts.highest,
            latency_us: Latency::of(latency),
            completion_us: Completion {
                p50: quantile_us(completion, 0.5),
                p99: quantile_us(completion, 0.99),
                max: quantile_us(completion, 1.0),
                count: completion.len(),
                uncompleted: counts.uncompleted,
            },
            seconds: seconds(counts.last_ns - counts.first_ns),
            cpu_seconds: seconds(counts.cpu_ns),
        }
    }
}

/// Nanoseconds as seconds, to the microsecond.
pub(crate) fn seconds(ns: u64) -> f64 {
    (ns as f64 / 1e3).round() / 1e6
}

fn to_us(ns: f64) -> f64 {
    (ns / 100.0).round() / 10.0
}

fn quantile_us(histogram: &Histogram<u64>, quantile: f64) -> Option<f64> {
    (!histogram.is_empty()).then(|| to_us(histogram.value_at_quantile(quantile) as f64))
}

/// Where reports go.
pub(crate) struct Reporter {
    is_human: bool,
}

impl Reporter {
    /// To stdout, in the form that suits it.
    pub(crate) fn new() -> Self {
        Self { is_human: std::io::stdout().is_terminal() }
    }

    /// All connections are open or failed.
    pub(crate) fn connected(&self, connected: &Connected) {
        if !self.is_human {
            return line(connected);
        }
        let Connected { connected, seconds, failed, subscribers } = connected;
        let channels = subscribers.len();
        text(&format!("connected    {connected} in {seconds:.3} s, {failed} failed, {channels} channels watched"));
    }

    /// One second in which something arrived.
    pub(crate) fn tick(&self, tick: &Tick) {
        if !self.is_human {
            return line(&serde_json::json!({ "tick": tick }));
        }
        let Tick { received, per_second, p50_us, p99_us } = tick;
        let (p50, p99) = (human_us(*p50_us), human_us(*p99_us));
        text(&format!("{received:>12} received {per_second:>12} /s   p50 {p50}  p99 {p99}"));
    }

    /// Counting has begun anew.
    pub(crate) fn expecting(&self, messages: u64) {
        if !self.is_human {
            line(&serde_json::json!({ "expecting": messages }));
        }
    }

    /// The end of an expectation.
    pub(crate) fn complete(&self, complete: &Complete) {
        if !self.is_human {
            return line(&serde_json::json!({ "complete": complete }));
        }
        let c = complete;
        let expected = c.expected.map_or_else(String::new, |expected| format!(" of {expected}"));
        let (latency, completion) = (&c.latency_us, &c.completion_us);
        text(&format!(
            "received     {}{expected} in {:.3} s, {} to {} on a connection",
            c.received, c.seconds, c.lowest, c.highest
        ));
        text(&format!(
            "wrong        {} gaps ({} missing), {} reordered, {} malformed, {} misrouted, {} closed",
            c.gaps, c.missing, c.reordered, c.malformed, c.misrouted, c.closed
        ));
        text(&format!(
            "latency      p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
            human_us(latency.p50),
            human_us(latency.p90),
            human_us(latency.p99),
            human_us(latency.p999),
            human_us(latency.max)
        ));
        text(&format!(
            "completion   p50 {}  p99 {}  max {}  of {} publications",
            human_us(completion.p50),
            human_us(completion.p99),
            human_us(completion.max),
            completion.count
        ));
        text(&format!("client CPU   {:.3} s", c.cpu_seconds));
    }
}

fn human_us(us: Option<f64>) -> String {
    match us {
        None => format!("{:>10}", "-"),
        Some(us) if us < 10_000.0 => format!("{us:>7.1} us"),
        Some(us) => format!("{:>7.1} ms", us / 1e3),
    }
}

/// One JSON object on one line, seen by a reader at once.
pub(crate) fn line(object: &impl Serialize) {
    text(&serde_json::to_string(object).expect("numbers and string keys always serialise"));
}

fn text(line: &str) {
    let mut out = std::io::stdout().lock();
    // A reader that is gone closes stdin too, which ends the run.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::latencies;

    #[test]
    fn connected_is_the_line_of_the_contract() {
        let connected = Connected { connected: 5, seconds: 0.5, failed: 1, subscribers: [(0, 3), (17, 2)].into() };
        let text = serde_json::to_string(&connected).unwrap();
        assert_eq!(text, r#"{"connected":5,"seconds":0.5,"failed":1,"subscribers":{"0":3,"17":2}}"#);
    }

    #[test]
    fn ages_are_told_in_microseconds_with_one_decimal() {
        let mut ages = latencies();
        ages.record_n(123_456, 10).unwrap();
        let tick = Tick::new(10, &ages, 0.5);
        assert_eq!((tick.per_second, tick.p50_us), (20, Some(123.5)));
    }

    #[test]
    fn complete_of_nothing_has_no_ages() {
        let complete = Complete::new(&Counts::default(), Some(5), &latencies(), &latencies());
        let json = serde_json::to_value(complete).unwrap();
        assert!(json.get("replies").is_none());
        assert!(json["latency_us"]["p99"].is_null() && json["received"] == 0 && json["expected"] == 5);
    }

    #[test]
    fn lines_of_a_child_are_read_as_written() {
        let connected = Connected { connected: 2, seconds: 0.5, failed: 0, subscribers: [(17, 2)].into() };
        for said in [
            Said::Connected { connected, started_ns: 1, opened_ns: 2 },
            Said::Expecting { epoch: 3 },
            Said::Tick { epoch: 3, received: 9, ages: vec![(5, 9)] },
            Said::Report { epoch: 3, counts: Counts::default(), completed: vec![(1, 2, 3, 4)] },
        ] {
            let line = serde_json::to_string(&said).unwrap();
            let heard: Said = serde_json::from_str(&line).unwrap();
            assert_eq!(format!("{said:?}"), format!("{heard:?}"));
        }
    }
}
