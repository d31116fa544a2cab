//! Pings that are expected wake nobody: 15,000 idle clients would otherwise wake the shard a thousand times a second.
//!
//! Clients ping at a steady pace. Around the time of the next one the socket is told to become readable only for more
//! bytes than a ping has (`SO_RCVLOWAT`, socket(7)), and the ping is read at the end of that time, with those of all
//! other clients of the tick. Every other message is longer, and is read at once; what is as short as a ping, such as a
//! WebSocket's close, waits for a second at most, once in a ping's time. A ping that comes at another time wakes the shard as ever.
use super::SignalR;
use crate::protocol::signalr::HubProtocol;
use crate::protocol::signalr::negotiate::Transport;
use crate::shard::clock::TICK;
use crate::shard::connection::Phase;
use crate::shard::timers::ticks;
use crate::shard::{Io, Shard};

/// Ticks before and behind the moment at which a ping is expected.
const MARGIN_TICKS: u32 = 4;
/// A shorter pace is left alone: the client would be deaf for too great a part of it.
const PACE_TICKS_MIN: u32 = 40;
/// A masked frame's header around a ping.
const HEADER_BYTES: usize = 6;

/// When a client pings.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Tick of the last ping; 0 before the first.
    pinged_tick: u32,
    /// Ticks from one to the next; 0 where none is expected.
    ticks: u32,
    /// The socket does not become readable for a ping.
    is_hushed: bool,
}

impl Pace {
    /// A ping came. The next one is expected after as long as this one took, after the first as hubs and clients do.
    fn note(&mut self, tick: u32, usual: u32) {
        self.ticks = if self.has_begun() { tick.saturating_sub(self.pinged_tick) } else { usual };
        self.pinged_tick = tick.max(1);
    }

    /// From the first one on, a client has to say something within the timeout.
    pub(super) fn has_begun(&self) -> bool {
        self.pinged_tick > 0
    }

    /// When something is to be done: the begin of the time around the next ping, or its end.
    pub(super) fn next_tick(&self) -> u32 {
        if self.ticks < PACE_TICKS_MIN {
            return u32::MAX;
        }
        let expected = self.pinged_tick + self.ticks;
        if self.is_hushed { expected + MARGIN_TICKS } else { expected - MARGIN_TICKS }
    }

    /// The next one is not expected at any time.
    fn forget(&mut self) {
        self.ticks = 0;
    }
}

impl<I: Io> Shard<I> {
    /// Does what is due at the begin and at the end of the time around an expected ping. False when the socket is gone.
    pub(super) fn expect_ping(&mut self, slot: u32) -> bool {
        let tick = self.timers.tick();
        let Some(signalr) = self.slab.at(slot).signalr.as_deref() else { return true };
        if tick < signalr.pace.next_tick() {
            return true;
        }
        if !signalr.pace.is_hushed {
            self.hush(slot);
            return true;
        }
        let silent_ms = self.slab.at(slot).transport.socket().and_then(|fd| self.io.milliseconds_since_received(fd));
        self.read(slot);
        self.unhush(slot);
        let Some(connection) = self.slab.get_mut(slot).filter(|connection| connection.transport.socket().is_some())
        else {
            return false;
        };
        if let Some(signalr) = connection.signalr.as_deref_mut() {
            if signalr.pace.pinged_tick == tick {
                // It came some time ago.
                let ago = (silent_ms.unwrap_or(0) / TICK.as_millis() as u32).min(2 * MARGIN_TICKS);
                let came = tick - ago;
                (signalr.pace.ticks, signalr.pace.pinged_tick) = (signalr.pace.ticks - ago, came);
                signalr.heard_tick = signalr.heard_tick.min(came);
            } else {
                signalr.pace.forget();
            }
        }
        connection.is_live()
    }

    /// A ping came, expected or not: the next one is.
    pub(super) fn note_ping(&mut self, slot: u32) {
        let (tick, usual) = (self.timers.tick(), ticks(self.settings.hubs.keepalive));
        if let Some(signalr) = self.slab.at(slot).signalr.as_deref_mut() {
            signalr.pace.note(tick, usual);
        }
        self.unhush(slot);
        self.watch_over_signalr(slot);
    }

    /// A part of a message came while a ping was expected: the rest may be as short as a ping.
    pub(in crate::shard) fn unhush_if_cut(&mut self, slot: u32) {
        let Some(connection) = self.slab.get(slot) else { return };
        let Some(signalr) = connection.signalr.as_deref().filter(|signalr| signalr.pace.is_hushed) else { return };
        let is_whole = matches!(&connection.phase, Phase::Open(receiver) if !receiver.is_mid_message());
        if !is_whole || signalr.records.is_mid_record() {
            self.unhush(slot);
        }
    }

    /// From now on a ping alone does not make the socket readable.
    fn hush(&mut self, slot: u32) {
        let connection = self.slab.at(slot);
        let (Some(fd), Some(signalr)) = (connection.transport.socket(), connection.signalr.as_deref_mut()) else {
            return;
        };
        let is_whole = matches!(&connection.phase, Phase::Open(receiver) if !receiver.is_mid_message());
        let is_quiet = is_whole
            && !signalr.records.is_mid_record()
            && !signalr.has_backlog()
            && connection.transport.unread.is_none();
        if signalr.transport != Transport::WebSockets || !is_quiet {
            return signalr.pace.forget();
        }
        let protocol = connection.format.hub_protocol().unwrap_or(HubProtocol::Json);
        let ping_bytes = HEADER_BYTES + protocol.ping().len();
        signalr.pace.is_hushed = self.io.set_receive_low_watermark(fd, ping_bytes + 1);
    }

    /// The socket becomes readable for whatever comes; at once, if something is there.
    pub(in crate::shard) fn unhush(&mut self, slot: u32) {
        let connection = self.slab.at(slot);
        if let Some(fd) = connection.transport.socket()
            && let Some(signalr) = connection.signalr.as_deref_mut()
            && std::mem::take(&mut signalr.pace.is_hushed)
        {
            self.io.set_receive_low_watermark(fd, 1);
        }
    }
}

impl SignalR {
    /// The socket is another one.
    pub(super) fn forget_pace(&mut self) {
        self.pace.is_hushed = false;
        self.pace.forget();
    }
}
