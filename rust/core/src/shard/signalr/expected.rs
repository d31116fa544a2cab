//! Pings that are expected wake nobody: 15,000 idle clients would otherwise wake the shard a thousand times a second.
//!
//! Clients ping at a steady pace. Around the time of the next one the socket is told to become readable only for more
//! bytes than a ping has (`SO_RCVLOWAT`, socket(7)). The ping is read at the end of that time, with those of all other
//! clients of the tick. Every other message is longer, and is read at once. What is as short as a ping, such as a
//! WebSocket's close, waits for a second and a half at most, once in a ping's time. A ping that comes at
//! another time wakes the shard as ever. When exactly an expected one came is not asked: one that drifts away from its time
//! is one that comes at another, now and then.
use crate::protocol::signalr::HubProtocol;
use crate::shard::{Io, Shard};

/// A masked frame's header around a ping.
const HEADER_BYTES: usize = 6;

impl<I: Io> Shard<I> {
    /// Does what is due at the begin and at the end of the time around an expected ping. False when the socket is gone.
    pub(super) fn expect_ping(&mut self, slot: u32) -> bool {
        let tick = self.timers.tick();
        let Some(signalr) = self.slab.at(slot).session.signalr() else { return true };
        if tick < signalr.pace.next_tick() {
            return true;
        }
        if !signalr.pace.is_hushed() {
            self.hush(slot);
            return true;
        }
        self.read_on(slot, false); // an end of the stream wakes the shard, whatever the socket waits for
        self.unhush(slot);
        let Some(connection) = self.slab.get_mut(slot).filter(|connection| connection.transport.socket().is_some())
        else {
            return false;
        };
        if let Some(signalr) = connection.session.signalr_mut()
            && signalr.pace.next_tick() <= tick
        {
            signalr.pace.forget(); // it did not come
        }
        connection.takes_publications()
    }

    /// A ping came, expected or not: the next one is. Ours goes out with it, where both are due at the same pace.
    pub(super) fn note_ping(&mut self, slot: u32) {
        let (tick, patience) = (self.timers.tick(), self.patience());
        self.postpone_ping(slot);
        let Some(signalr) = self.slab.at(slot).session.signalr_mut() else { return };
        if signalr.pace.is_hushed() && tick >= signalr.pace.next_tick() {
            signalr.pace.handle_expected();
        } else {
            signalr.pace.handle_ping(tick, patience.keepalive);
        }
        if signalr.answers_ping(tick, patience) {
            self.ping(slot);
        }
        self.unhush(slot);
        self.watch_over_signalr(slot);
    }

    /// A part of a message came while a ping was expected: the rest may be as short as a ping.
    pub(in crate::shard) fn unhush_if_cut(&mut self, slot: u32) {
        let Some(session) = self.slab.get(slot).map(|connection| &connection.session) else { return };
        let Some(signalr) = session.signalr().filter(|signalr| signalr.pace.is_hushed()) else { return };
        if !session.is_between_messages() || !signalr.is_between_records() {
            self.unhush(slot);
        }
    }

    /// From now on a ping alone does not make the socket readable.
    fn hush(&mut self, slot: u32) {
        let connection = self.slab.at(slot);
        let (protocol, is_whole) = (connection.format.hub_protocol(), connection.session.is_between_messages());
        let is_read = connection.transport.unread.is_none();
        let (Some(fd), Some(signalr)) = (connection.transport.socket(), connection.session.signalr_mut()) else {
            return;
        };
        if !is_whole || !is_read || !signalr.is_between_records() || signalr.has_backlog() {
            return signalr.pace.forget();
        }
        let ping_bytes = HEADER_BYTES + protocol.unwrap_or(HubProtocol::Json).ping().len();
        signalr.pace.hush(self.io.set_receive_low_watermark(fd, ping_bytes + 1));
    }

    /// The socket becomes readable for whatever comes; at once, if something is there.
    pub(in crate::shard) fn unhush(&mut self, slot: u32) {
        let connection = self.slab.at(slot);
        if let (Some(fd), Some(signalr)) = (connection.transport.socket(), connection.session.signalr_mut())
            && signalr.pace.unhush()
        {
            self.io.set_receive_low_watermark(fd, 1);
        }
    }
}
