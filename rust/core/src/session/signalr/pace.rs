//! When a client pings: at a steady pace, so that the next ping is expected.

/// Ticks before and behind the moment at which a ping is expected.
const MARGIN_TICKS: u32 = 3;
/// The time around that moment begins and ends with such a step: with those of other clients.
const STEP_TICKS: u32 = 5;
/// A shorter pace is left alone: the client would be deaf for too great a part of it.
const PACE_TICKS_MIN: u32 = 40;
/// A ping that comes so far from where it was expected is of the same pace, if nobody saw when the last one came.
const DRIFT_TICKS_MAX: u32 = 10;

/// When a client pings.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Tick of the last ping, or about that; 0 before the first.
    pinged_tick: u32,
    /// Ticks from one to the next.
    ticks: u32,
    /// The last ping was read when it came.
    is_exact: bool,
    /// None is expected: the last one did not come.
    has_lapsed: bool,
    /// The socket does not become readable for a ping.
    is_hushed: bool,
}

impl Pace {
    /// A ping came just now. The next one is expected after as long as this one took, after the first as hubs and clients do.
    pub(crate) fn handle_ping(&mut self, tick: u32, usual: u32) {
        let since = tick.saturating_sub(self.pinged_tick);
        if !self.has_begun() {
            self.ticks = usual;
        } else if self.is_exact || since.abs_diff(self.ticks) > DRIFT_TICKS_MAX {
            self.ticks = since;
        }
        self.pinged_tick = tick.max(1);
        (self.is_exact, self.has_lapsed) = (true, false);
    }

    /// A ping came within the time around which it was expected, and was read at its end.
    pub(crate) fn handle_expected(&mut self) {
        self.pinged_tick += self.ticks;
        self.is_exact = false;
    }

    /// Ticks from one ping to the next, while one is expected.
    pub(crate) fn expects(&self) -> Option<u32> {
        (self.has_begun() && !self.has_lapsed).then_some(self.ticks)
    }

    /// From the first one on, a client has to say something within the timeout.
    pub(crate) fn has_begun(&self) -> bool {
        self.pinged_tick > 0
    }

    pub(crate) fn is_hushed(&self) -> bool {
        self.is_hushed
    }

    /// When something is to be done: the begin of the time around the next ping, or its end.
    pub(crate) fn next_tick(&self) -> u32 {
        let Some(ticks) = self.expects().filter(|&ticks| ticks >= PACE_TICKS_MIN) else { return u32::MAX };
        let expected = self.pinged_tick + ticks;
        if self.is_hushed {
            (expected + MARGIN_TICKS).next_multiple_of(STEP_TICKS)
        } else {
            (expected - MARGIN_TICKS) / STEP_TICKS * STEP_TICKS
        }
    }

    /// The socket does not become readable for a ping from now on, unless the kernel refused that.
    pub(crate) fn hush(&mut self, is_hushed: bool) {
        self.is_hushed = is_hushed;
    }

    /// The socket becomes readable for whatever comes. True if it did not before.
    pub(crate) fn unhush(&mut self) -> bool {
        std::mem::take(&mut self.is_hushed)
    }

    /// The next one is not expected at any time.
    pub(crate) fn forget(&mut self) {
        self.has_lapsed = true;
    }

    /// The socket is another one.
    pub(super) fn forget_socket(&mut self) {
        self.is_hushed = false;
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that pings every 150 ticks is looked at around the next one, whenever exactly that comes.
    #[test]
    fn a_steady_pace_is_expected_and_one_that_breaks_off_is_not() {
        let mut pace = Pace::default();
        assert!(!pace.has_begun() && pace.next_tick() == u32::MAX);
        pace.handle_ping(101, 150);
        assert_eq!((pace.has_begun(), pace.next_tick(), pace.expects()), (true, 245, Some(150)));
        pace.hush(true);
        assert_eq!(pace.next_tick(), 255);
        pace.handle_expected();
        assert!(pace.unhush() && !pace.unhush());
        assert_eq!(pace.next_tick(), 395, "where it came is not known, so that is as expected");
        pace.forget();
        assert_eq!((pace.next_tick(), pace.expects()), (u32::MAX, None), "none came");
        pace.handle_ping(409, 150);
        assert_eq!(pace.expects(), Some(150), "it has drifted, and is as steady as before");
        pace.handle_ping(560, 150);
        assert_eq!(pace.expects(), Some(151));
        pace.handle_expected();
        pace.handle_ping(1_000, 150);
        assert_eq!(pace.expects(), Some(289), "it is another pace");
        pace.handle_ping(1_030, 150);
        assert_eq!(pace.next_tick(), u32::MAX, "too fast a pace is left alone");
    }
}
