//! How long to wait before the next attempt. No clock: the caller waits.
use std::time::Duration;

/// The first wait, then twice as long each time, up to the last; each less up to a half of it, by chance.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    last: Duration,
    next: Duration,
    /// The state of a xorshift generator, never 0.
    chance: u64,
}

impl Backoff {
    /// One that has waited for nothing yet. Processes with the same seed wait alike.
    #[must_use]
    pub fn new(first: Duration, last: Duration, seed: u64) -> Self {
        Self { first, last, next: first, chance: seed | 1 }
    }

    /// An attempt has succeeded.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// How long to wait now.
    pub fn wait(&mut self) -> Duration {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        let part = 0.5 + 0.5 * (self.chance >> 11) as f64 / (1_u64 << 53) as f64;
        let wait = self.next.mul_f64(part);
        self.next = (self.next * 2).min(self.last);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_between_a_half_and_the_whole_of_its_turn() {
        for wholes in
            [[10, 20, 40, 80, 160, 320, 640, 1_000, 1_000], [50, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]]
        {
            let [first, last] = [wholes[0], wholes[8]].map(Duration::from_millis);
            for seed in [0, 1, 7, u64::MAX] {
                let mut backoff = Backoff::new(first, last, seed);
                for whole in wholes.map(Duration::from_millis) {
                    let wait = backoff.wait();
                    assert!(whole / 2 <= wait && wait <= whole, "{wait:?} of {whole:?}");
                }
                backoff.reset();
                assert!(backoff.wait() <= first);
            }
        }
    }
}
