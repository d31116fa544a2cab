//! Pings, deadlines and ends of SignalR connections. One shared ping record a protocol, no timer a connection.
use crate::clock::ticks;
use crate::messages::{ClosedBy, ConnectionId};
use crate::protocol::Format;
use crate::protocol::signalr::handshake::HandshakeError;
use crate::protocol::signalr::negotiate::Transport;
use crate::protocol::signalr::{CLOSE_ERROR, HubMessage, write_message, write_records};
use crate::session::signalr::{Due, Patience};
use crate::session::{Farewell, SignalR};
use crate::shard::connection::Ending;
use crate::shard::feed::FEW;
use crate::shard::io::Member;
use crate::shard::timers::step_of;
use crate::shard::{Io, Shard};
use crate::ws::{CloseCode, write_close};

impl<I: Io> Shard<I> {
    /// The handshake is done: pings begin.
    pub(super) fn begin_upkeep(&mut self, slot: u32) {
        let tick = self.timers.tick();
        let keepalive = ticks(self.settings.hubs.keepalive);
        if let Some(signalr) = self.slab.at(slot).session.signalr_mut() {
            signalr.heard_tick = tick;
            signalr.ping_tick = tick + keepalive;
            if signalr.transport == Transport::LongPolling {
                match signalr.poll() {
                    Some(_) => self.timers.clear(slot), // the poll has a deadline of its own
                    None => self.timers.set(slot, self.settings.hubs.disconnect_timeout),
                }
                return;
            }
        }
        self.watch_over_signalr(slot);
    }

    /// Sets the next deadline.
    pub(super) fn watch_over_signalr(&mut self, slot: u32) {
        let (tick, patience) = (self.timers.tick(), self.patience());
        let connection = self.slab.at(slot);
        let Some(signalr) = connection.session.signalr() else { return };
        if connection.transport.socket().is_none() || !signalr.has_shaken_hands {
            return; // a poll's, or that of a client that may come back, is another deadline
        }
        self.timers.set_at(slot, signalr.poll_timeout(patience).max(tick + 1));
    }

    pub(super) fn patience(&self) -> Patience {
        let hubs = &self.settings.hubs;
        let (keepalive, client_timeout) = (ticks(hubs.keepalive), ticks(hubs.client_timeout));
        Patience { step: step_of(keepalive.min(client_timeout)), keepalive, client_timeout }
    }

    /// A deadline of a SignalR connection has come.
    pub(in crate::shard) fn expire_signalr(&mut self, slot: u32) {
        let Some(due) = self.slab.at(slot).session.signalr().map(SignalR::handle_timeout) else { return };
        self.do_due(slot, due);
    }

    fn do_due(&mut self, slot: u32, due: Due) {
        match due {
            Due::Drop => return self.drop_connection(slot),
            Due::RefuseHandshake => return self.refuse_handshake(slot, &HandshakeError::Canceled),
            Due::NoPoll => {
                let why = (CloseCode::ABNORMAL, "no poll came in time", ClosedBy::Network);
                return self.end_signalr_as_is(slot, why);
            }
            Due::Silent => {
                let seconds = self.settings.hubs.client_timeout.as_secs_f64();
                let reason = format!("nothing came from the client for {seconds} s");
                let why = (CloseCode::INTERNAL, &*reason, ClosedBy::Server);
                return self.end_signalr(slot, Some(CLOSE_ERROR), true, why);
            }
            Due::Upkeep => {
                let may_read = self.may_read(slot);
                let (tick, patience) = (self.timers.tick(), self.patience());
                if self.expect_ping(slot) {
                    self.postpone_ping(slot);
                    let Some(signalr) = self.slab.at(slot).session.signalr_mut() else { return };
                    let due = signalr.handle_silence(tick, patience, may_read);
                    self.do_due(slot, due);
                }
                return;
            }
            Due::Ack => self.send_ack(slot),
            Due::Ping => self.ping(slot),
            Due::Nothing => {}
        }
        self.watch_over_signalr(slot);
    }

    /// What went out to all who watch a channel went out to this connection, too: its ping is due later.
    pub(super) fn postpone_ping(&mut self, slot: u32) {
        let patience = self.patience();
        let connection = self.slab.at(slot);
        // No more than a few are looked through: a client pings as often as it likes.
        let few = connection.subscriptions.iter().take(FEW);
        let written = few.filter_map(|one| self.feeds.get(one.feed)?.written_tick(*one)).max();
        if let (Some(tick), Some(signalr)) = (written, connection.session.signalr_mut()) {
            signalr.handle_written(tick, patience);
        }
    }

    /// The connection is pinged with others at the end of the turn, unless it takes nothing: then it has something to hear already.
    pub(super) fn ping(&mut self, slot: u32) {
        let connection = self.slab.at(slot);
        if !connection.transport.is_blocked {
            self.pinged.push((connection.format, slot));
        }
    }

    /// Pings those whose time came in this turn: one write of the poller for each wire format.
    pub(in crate::shard) fn ping_together(&mut self) {
        let pinged = std::mem::take(&mut self.pinged);
        let mut shorts = std::mem::take(&mut self.shorts);
        for format in Format::ALL {
            let Some(protocol) = format.hub_protocol() else { continue };
            let members: Vec<Member> =
                pinged.iter().filter(|one| one.0 == format).filter_map(|one| self.member_to_ping(one.1)).collect();
            if members.is_empty() {
                continue;
            }
            let mut ping = Vec::new();
            write_records(format, protocol.ping(), &mut ping);
            self.io.send_all(&members, &ping, &mut shorts);
            self.stats.bytes_out.add((ping.len() * members.len()) as u64);
            for short in shorts.drain(..) {
                self.stats.bytes_out.sub((ping.len() - short.written) as u64);
                match short.error {
                    Some(errno) => self.break_off(short.slot, errno),
                    None => {
                        self.slab.at(short.slot).transport.outbox.bytes_mut().extend_from_slice(&ping[short.written..]);
                        self.pump(short.slot);
                    }
                }
            }
        }
        self.shorts = shorts;
        self.pinged = pinged;
        self.pinged.clear();
    }

    /// A connection as the poller knows it, if nothing has happened to it since its time came.
    fn member_to_ping(&mut self, slot: u32) -> Option<Member> {
        let connection = self
            .slab
            .get_mut(slot)
            .filter(|connection| connection.takes_publications() && !connection.transport.is_blocked)?;
        let fd = connection.transport.socket()?;
        if !std::mem::replace(&mut connection.transport.is_registered, true) {
            self.io.register(slot, fd);
        }
        Some(Member { fd, slot, subscription: 0 })
    }

    /// A SignalR connection is gone: so are its token and what was asked for it.
    pub(in crate::shard) fn forget_signalr(&mut self, id: ConnectionId, signalr: &SignalR) {
        self.common.tokens.forget(&signalr.token);
        self.one_by_one -= usize::from(signalr.stateful.is_some() || signalr.transport == Transport::LongPolling);
        self.held.remove(&id.slot());
        self.later.extend(signalr.posts());
        if let Some(poll) = signalr.poll().and_then(|poll| self.slot_of(poll)) {
            self.finish_poll(poll, 204, b"");
        }
    }

    /// Ends a SignalR connection for the application or for a bound. A client that may try again is told so.
    ///
    /// While everything drains there is no message: then every client that can reconnects.
    pub(in crate::shard) fn close_signalr(&mut self, slot: u32, code: CloseCode, reason: &str) {
        let why = (code, reason, ClosedBy::Server);
        let may_reconnect = matches!(code, CloseCode::TRY_AGAIN_LATER | CloseCode::RESTART | CloseCode::INTERNAL);
        let has_shaken_hands = self.slab.at(slot).session.signalr().is_some_and(|signalr| signalr.has_shaken_hands);
        if self.is_draining || !has_shaken_hands {
            self.end_signalr_as_is(slot, why);
        } else {
            self.end_signalr(slot, Some(reason).filter(|reason| !reason.is_empty()), may_reconnect, why);
        }
    }

    /// Says goodbye in the hub protocol and ends the connection.
    pub(super) fn end_signalr(
        &mut self,
        slot: u32,
        error: Option<&str>,
        allow_reconnect: bool,
        why: (CloseCode, &str, ClosedBy),
    ) {
        if self.slab.at(slot).takes_publications() {
            self.write_message(slot, &HubMessage::Close { error: error.map(Into::into), allow_reconnect });
        }
        self.end_signalr_as_is(slot, why);
    }

    /// Adds a message of the hub protocol's own to the outbox: one without a number.
    pub(super) fn write_message(&mut self, slot: u32, message: &HubMessage<'_>) {
        let connection = self.slab.at(slot);
        let Some(protocol) = connection.format.hub_protocol() else { return };
        let mut record = Vec::new();
        write_message(protocol, message, &mut record);
        write_records(connection.format, &record, connection.transport.outbox.bytes_mut());
    }

    /// Ends a SignalR connection behind what it has been told; a WebSocket with 1000, as the reference does.
    pub(super) fn end_signalr_as_is(&mut self, slot: u32, (code, reason, by): (CloseCode, &str, ClosedBy)) {
        self.leave_all(slot);
        let connection = self.slab.at(slot);
        match connection.session.end() {
            Farewell::ByPoll => {
                connection.ending.get_or_insert_with(|| {
                    Box::new(Ending { code: code.0, reason: reason.to_owned(), by, thrown_away: 0 })
                });
                self.timers.set(slot, self.settings.close_timeout);
                return self.answer_poll(slot);
            }
            Farewell::CloseFrame => write_close(connection.transport.outbox.bytes_mut(), CloseCode::NORMAL, ""),
            Farewell::Begun => return,
            Farewell::Silent => {}
        }
        self.end_soon(slot, code, reason, by);
    }
}
