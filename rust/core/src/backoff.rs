//! How long to wait before the next attempt. No clock: the caller waits.
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(10);
const LAST: Duration = Duration::from_secs(1);

/// 10 ms at first, twice as long each time, a second at most; each less up to a half of it, by chance.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    /// The state of a xorshift generator, never 0.
    chance: u64,
}

impl Backoff {
    pub(crate) fn new(seed: u64) -> Self {
        Self { next: FIRST, chance: seed | 1 }
    }

    /// An attempt has succeeded.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }

    /// How long to wait now.
    pub(crate) fn wait(&mut self) -> Duration {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        let part = 0.5 + 0.5 * (self.chance >> 11) as f64 / (1_u64 << 53) as f64;
        let wait = self.next.mul_f64(part);
        self.next = (self.next * 2).min(LAST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_between_a_half_and_the_whole_of_its_turn() {
        for seed in [0, 1, 7, u64::MAX] {
            let mut backoff = Backoff::new(seed);
            for whole in [10, 20, 40, 80, 160, 320, 640, 1_000, 1_000] {
                let wait = backoff.wait();
                let whole = Duration::from_millis(whole);
                assert!(whole / 2 <= wait && wait <= whole, "{wait:?} of {whole:?}");
            }
            backoff.reset();
            assert!(backoff.wait() <= FIRST);
        }
    }
}
