//! One publish command: when its rounds are due, and the frames of one round.

use std::time::Duration;

use crate::payload;
use crate::sys;

/// The last stretch before a round is slept to the absolute time, without looking at sockets.
pub(super) const SLEEP_NS: u64 = 100_000;

/// A publish command under way.
pub(super) struct Job {
    rounds: u64,
    /// Publications in each round.
    pub(super) burst: u64,
    interval_ns: u64,
    /// Length of each payload.
    pub(super) bytes: usize,
    /// When the first round was due.
    pub(super) start_ns: u64,
    round: u64,
    /// Time spent publishing.
    pub(super) publish_ns: u64,
}

impl Job {
    /// Due from now on.
    pub(super) fn new(rounds: u64, burst: u64, interval: Duration, bytes: usize) -> Self {
        let interval_ns = interval.as_nanos() as u64;
        Self { rounds, burst, interval_ns, bytes, start_ns: sys::monotonic_ns(), round: 0, publish_ns: 0 }
    }

    /// When the next round is due.
    pub(super) fn due_ns(&self) -> u64 {
        self.start_ns + self.round * self.interval_ns
    }

    /// Whether all rounds are over.
    pub(super) fn is_done(&self) -> bool {
        self.round == self.rounds
    }

    /// One round is over and took so long.
    pub(super) fn end_round(&mut self, publish_ns: u64) {
        self.round += 1;
        self.publish_ns += publish_ns;
    }

    /// Publications so far.
    pub(super) fn published(&self) -> u64 {
        self.round * self.burst
    }
}

/// Writes the frames of one round over what `out` holds: unmasked text frames (RFC 6455 §5.2), one after another.
pub(super) fn write_frames(out: &mut Vec<u8>, sequence: u64, burst: u64, ns: u64, bytes: usize) {
    out.clear();
    for number in sequence..sequence + burst {
        out.push(0x81);
        match bytes {
            0..=125 => out.push(bytes as u8),
            126..=65_535 => {
                out.push(126);
                out.extend_from_slice(&(bytes as u16).to_be_bytes());
            }
            _ => {
                out.push(127);
                out.extend_from_slice(&(bytes as u64).to_be_bytes());
            }
        }
        payload::write(out, number, 0, ns, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_shortest_length_form() {
        for (bytes, header) in
            [(125, &[0x81, 125][..]), (126, &[0x81, 126, 0, 126]), (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0])]
        {
            let mut frames = Vec::new();
            write_frames(&mut frames, 3, 2, 5, bytes);
            assert_eq!(frames.len(), 2 * (header.len() + bytes));
            assert!(frames.starts_with(header));
            assert!(frames[header.len()..].starts_with(b"0000000003 000000 "));
        }
    }

    #[test]
    fn rounds_are_due_at_absolute_times_however_late_one_was() {
        let mut job = Job::new(3, 10, Duration::from_millis(5), 128);
        let start_ns = job.due_ns();
        job.end_round(1_000_000_000);
        job.end_round(0);
        assert_eq!((job.due_ns() - start_ns, job.published(), job.is_done()), (10_000_000, 20, false));
        job.end_round(0);
        assert!(job.is_done());
    }
}
