//! Stateful reconnect: a connection that outlives its socket. What it owes and is owed is in its books,
//! [`Stateful`](crate::session::signalr::Stateful).
use std::os::fd::AsRawFd;
use std::time::Duration;

use super::opening::no_connection;
use crate::channel::Slice;
use crate::clock::ticks;
use crate::http::RequestHead;
use crate::protocol::signalr::HubMessage;
use crate::session::signalr::{Ack, Stateful, UNACKED_BYTES_MAX};
use crate::shard::answers::{AnsweredBy, Refusal};
use crate::shard::io::Interest;
use crate::shard::{Io, Shard};
use crate::ws::{CloseCode, read_upgrade, write_accept, write_close};

/// How long a client waits for an ack, if it does not send much.
const ACK_AFTER: Duration = Duration::from_secs(1);

impl<I: Io> Shard<I> {
    fn stateful_at(&mut self, slot: u32) -> Option<&mut Stateful> {
        self.slab.get_mut(slot)?.session.signalr_mut()?.stateful.as_deref_mut()
    }

    pub(in crate::shard) fn is_stateful(&self, slot: u32) -> bool {
        let signalr = self.slab.get(slot).and_then(|connection| connection.session.signalr());
        signalr.is_some_and(|signalr| signalr.stateful.is_some())
    }

    /// Whether a client has to acknowledge before it gets more.
    pub(in crate::shard) fn awaits_ack(&mut self, slot: u32) -> bool {
        self.stateful_at(slot).is_some_and(|stateful| stateful.awaits_ack())
    }

    /// A private message goes out: it is numbered, if this connection has numbers. False when that was one too many.
    pub(in crate::shard) fn note_private(&mut self, slot: u32, frame: &[u8]) -> bool {
        let bytes_max = UNACKED_BYTES_MAX + self.settings.outbox_bytes_max;
        let Some(stateful) = self.stateful_at(slot) else { return true };
        let unacked_bytes = stateful.handle_private(frame);
        if unacked_bytes <= bytes_max {
            return true;
        }
        let reason = format!("{unacked_bytes} bytes are not acknowledged, the bound is {bytes_max}");
        if self.slab.at(slot).session.is_detached() {
            self.drop_connection(slot);
        } else {
            self.close(slot, CloseCode::TRY_AGAIN_LATER, &reason);
        }
        false
    }

    /// So much of a log went out, or will before anything else.
    pub(in crate::shard) fn note_written(&mut self, slot: u32, slices: impl Iterator<Item = Slice>) {
        if let Some(stateful) = self.stateful_at(slot) {
            stateful.handle_written(slices);
        }
    }

    /// The client acknowledges. True unless it cannot know that number.
    pub(super) fn take_ack(&mut self, slot: u32, sequence_id: i64) -> bool {
        let Some(stateful) = self.stateful_at(slot) else { return true };
        let is_possible = stateful.acknowledge(sequence_id);
        if is_possible && !stateful.awaits_ack() {
            self.pump(slot);
        }
        is_possible
    }

    /// The client says which of its messages comes next. True unless that is beyond what came.
    pub(super) fn take_sequence(&mut self, slot: u32, sequence_id: i64) -> bool {
        let due = self.timers.tick() + ticks(ACK_AFTER);
        let Some(stateful) = self.stateful_at(slot) else { return true };
        let ack = stateful.handle_sequence(sequence_id, due);
        if ack == Some(Ack::Soon) {
            self.watch_over_signalr(slot);
        }
        ack.is_some()
    }

    /// Whether a trackable message of the client is to be dealt with: it has not come before.
    pub(super) fn is_due(&mut self, slot: u32) -> bool {
        self.stateful_at(slot).is_none_or(|stateful| stateful.handle_message())
    }

    /// A trackable message was dealt with: it is acknowledged, soon.
    pub(super) fn owe_ack(&mut self, slot: u32) {
        let due = self.timers.tick() + ticks(ACK_AFTER);
        let Some(stateful) = self.stateful_at(slot) else { return };
        match stateful.owe_ack(due) {
            Ack::Now => self.send_ack(slot),
            Ack::Soon => self.watch_over_signalr(slot),
            Ack::AsBefore => {}
        }
    }

    pub(super) fn send_ack(&mut self, slot: u32) {
        let ack = self.stateful_at(slot).and_then(|stateful| stateful.poll_ack());
        if let Some(sequence_id) = ack {
            self.write_message(slot, &HubMessage::Ack { sequence_id });
            self.flush(slot);
        }
    }

    /// The socket is gone: whether the connection waits for another one.
    pub(in crate::shard) fn detach(&mut self, slot: u32) -> bool {
        let connection = self.slab.at(slot);
        let is_ending = connection.ending.is_some() || connection.failure.is_some();
        if is_ending || self.is_draining || self.is_stopping || !connection.session.detach() {
            return false;
        }
        self.block(slot);
        self.stats.lagging.sub(1);
        // What is numbered comes again from the books.
        let connection = self.slab.at(slot);
        let fd = connection.transport.detach();
        if std::mem::take(&mut connection.transport.is_registered) {
            self.io.unregister(slot);
        }
        if let Some(fd) = fd {
            self.end_socket(&fd);
        }
        self.timers.set(slot, self.settings.hubs.disconnect_timeout);
        true
    }

    /// A new socket, in `slot`, for the connection in `target`.
    pub(super) fn reattach(&mut self, slot: u32, head: &RequestHead<'_>, target: u32) -> Result<AnsweredBy, Refusal> {
        let upgrade = read_upgrade(head)?;
        let connection = self.slab.at(target);
        if connection.session.is_conversing() {
            let mut goodbye = Vec::new();
            write_close(&mut goodbye, CloseCode::NORMAL, "");
            if let Some(fd) = connection.transport.socket() {
                self.io.send(fd, &goodbye); // a full socket learns of it by its end
            }
            self.detach(target);
        }
        if !self.slab.at(target).session.is_detached() {
            return Err(no_connection());
        }
        let Some(fd) = self.slab.at(slot).transport.fd.take() else { return Err(no_connection()) };
        let raw = fd.as_raw_fd();
        self.io.unwatch(raw);
        if self.io.watch(raw, self.token_of(target), Interest::Connection).is_err() {
            self.stats.connections.sub(1);
            self.drop_connection(slot);
            return Ok(AnsweredBy::ThisShard);
        }
        let connection = self.slab.at(target);
        connection.transport.fd = Some(fd);
        if let Some(signalr) = connection.session.signalr_mut() {
            signalr.reattach();
        }
        connection.transport.is_blocked = false;
        connection.inflates = None; // of the socket that is gone
        write_accept::<&str>(connection.transport.outbox.bytes_mut(), &upgrade, None, &[]);
        if let Some(sequence_id) = self.stateful_at(target).map(|stateful| stateful.sequence_id()) {
            self.write_message(target, &HubMessage::Sequence { sequence_id });
        }
        let mut replay = Vec::new();
        if let Some(stateful) = self.stateful_at(target) {
            stateful.replay(&mut replay);
        }
        self.slab.at(target).transport.outbox.bytes_mut().extend_from_slice(&replay);
        self.drop_connection(slot);
        self.begin_upkeep(target);
        self.pump(target);
        Ok(AnsweredBy::ThisShard)
    }
}
