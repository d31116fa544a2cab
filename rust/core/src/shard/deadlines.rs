//! What happens when a connection's time is up: pings, comments of event streams, late openings, ends.
use super::connection::Phase;
use super::{Io, Shard};
use crate::protocol::sse;
use crate::ws::{CloseCode, Opcode, write_header};

impl<I: Io> Shard<I> {
    /// A deadline has come.
    pub(super) fn expire(&mut self, slot: u32) {
        let Some(connection) = self.slab.get_mut(slot) else { return };
        if let Some(failure) = connection.failure.take() {
            self.fail(slot, failure.0, &failure.1);
            return;
        }
        if connection.signalr.is_some() && connection.is_live() {
            return self.expire_signalr(slot);
        }
        match connection.phase {
            Phase::Polling(_) => self.expire_poll(slot),
            Phase::Opening(ref partial) if partial.is_empty() && connection.transport.unread.is_none() => {
                self.drop_connection(slot); // idle between requests
            }
            Phase::Opening(_) | Phase::Asked(_) | Phase::Posting(_) => self.refuse_late(slot),
            Phase::Closing(_) | Phase::Ending | Phase::Polled | Phase::Detached => self.drop_connection(slot),
            Phase::Open(_) if connection.transport.unread.is_some() => {
                // Its pong may wait among what is not read; but where nobody is any more, a write breaks the socket.
                if !connection.transport.is_blocked {
                    write_header(connection.transport.outbox.bytes_mut(), Opcode::Ping, 0);
                }
                self.timers.set(slot, self.settings.ping_interval);
                self.flush(slot);
            }
            Phase::Open(_) if connection.awaits_pong => {
                let seconds = self.settings.ping_timeout.as_secs_f64();
                self.close(slot, CloseCode::INTERNAL, &format!("no answer to a ping within {seconds} s"));
            }
            Phase::Open(_) => {
                connection.awaits_pong = true;
                write_header(connection.transport.outbox.bytes_mut(), Opcode::Ping, 0);
                self.timers.set(slot, self.settings.ping_timeout);
                self.flush(slot);
            }
            Phase::Streaming if connection.transport.is_blocked && connection.awaits_pong => {
                let seconds = self.settings.ping_timeout.as_secs_f64();
                self.close(slot, CloseCode::INTERNAL, &format!("took nothing for {seconds} s"));
            }
            Phase::Streaming if connection.transport.is_blocked => {
                connection.awaits_pong = true; // until it takes something
                self.timers.set(slot, self.settings.ping_timeout);
            }
            Phase::Streaming => {
                connection.transport.outbox.bytes_mut().extend_from_slice(sse::KEEPALIVE);
                self.timers.set(slot, self.settings.ping_interval);
                self.flush(slot);
            }
        }
    }
}
