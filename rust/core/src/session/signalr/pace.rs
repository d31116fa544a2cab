//! When a client pings: at a steady pace, so that the next ping is expected.

/// Ticks before and behind the moment at which a ping is expected.
const MARGIN_TICKS: u32 = 4;
/// A shorter pace is left alone: the client would be deaf for too great a part of it.
const PACE_TICKS_MIN: u32 = 40;
/// When a client pings.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Tick of the last ping; 0 before the first.
    pinged_tick: u32,
    /// Ticks from one to the next; 0 where none is expected.
    ticks: u32,
    /// The socket does not become readable for a ping.
    is_hushed: bool,
}

impl Pace {
    /// A ping came. The next one is expected after as long as this one took, after the first as hubs and clients do.
    pub(crate) fn handle_ping(&mut self, tick: u32, usual: u32) {
        self.ticks = if self.has_begun() { tick.saturating_sub(self.pinged_tick) } else { usual };
        self.pinged_tick = tick.max(1);
    }

    /// The time around an expected ping is over, and its socket has been read. One that was read just now came so many
    /// ticks ago: gives when. Of one that did not come no next one is expected.
    pub(crate) fn handle_end(&mut self, tick: u32, ago: u32) -> Option<u32> {
        if self.pinged_tick != tick {
            self.forget();
            return None;
        }
        let ago = ago.min(2 * MARGIN_TICKS);
        (self.ticks, self.pinged_tick) = (self.ticks - ago, tick - ago);
        Some(self.pinged_tick)
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
        if self.ticks < PACE_TICKS_MIN {
            return u32::MAX;
        }
        let expected = self.pinged_tick + self.ticks;
        if self.is_hushed { expected + MARGIN_TICKS } else { expected - MARGIN_TICKS }
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
        self.ticks = 0;
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

    /// One that pings every 150 ticks is looked at around the next one, and what was read late counts from when it came.
    #[test]
    fn a_steady_pace_is_expected_and_one_that_breaks_off_is_not() {
        let mut pace = Pace::default();
        assert!(!pace.has_begun() && pace.next_tick() == u32::MAX);
        pace.handle_ping(100, 150);
        assert_eq!((pace.has_begun(), pace.next_tick()), (true, 250 - MARGIN_TICKS));
        pace.hush(true);
        assert_eq!(pace.next_tick(), 250 + MARGIN_TICKS);
        pace.handle_ping(254, 150); // read at the end of that time; it came four ticks before
        assert_eq!(pace.handle_end(254, 4), Some(250));
        assert!(pace.unhush() && !pace.unhush());
        assert_eq!(pace.next_tick(), 400 - MARGIN_TICKS);
        assert_eq!((pace.handle_end(404, 0), pace.next_tick()), (None, u32::MAX), "none came");
        pace.handle_ping(1_000, 150);
        pace.handle_ping(1_030, 150);
        assert_eq!(pace.next_tick(), u32::MAX, "too fast a pace is left alone");
    }
}
