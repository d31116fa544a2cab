//! What happens when a connection's time is up: pings, comments of event streams, late openings, ends.
use std::time::Duration;

use super::{Io, Shard};
use crate::protocol::sse;
use crate::session::{Due, Held};
use crate::ws::{CloseCode, Opcode, write_header};

impl<I: Io> Shard<I> {
    /// A deadline has come.
    pub(super) fn expire(&mut self, slot: u32) {
        let Some(connection) = self.slab.get_mut(slot) else { return };
        if let Some(failure) = connection.failure.take() {
            self.fail(slot, failure.0, &failure.1);
            return;
        }
        let held =
            Held { is_unread: connection.transport.unread.is_some(), is_blocked: connection.transport.is_blocked };
        match connection.session.handle_timeout(held) {
            Due::Drop => self.drop_connection(slot),
            Due::Refuse => self.refuse_late(slot),
            Due::EmptyPoll => self.expire_poll(slot),
            Due::SignalR => self.expire_signalr(slot),
            Due::Probe => {
                if !held.is_blocked {
                    write_header(connection.transport.outbox.bytes_mut(), Opcode::Ping, 0);
                }
                self.look_again(slot, self.settings.ping_interval);
            }
            Due::Ping => {
                write_header(connection.transport.outbox.bytes_mut(), Opcode::Ping, 0);
                self.look_again(slot, self.settings.ping_timeout);
            }
            Due::Comment => {
                connection.transport.outbox.bytes_mut().extend_from_slice(sse::KEEPALIVE);
                self.look_again(slot, self.settings.ping_interval);
            }
            Due::Patience => self.timers.set(slot, self.settings.ping_timeout),
            Due::Silent => {
                let seconds = self.settings.ping_timeout.as_secs_f64();
                self.close(slot, CloseCode::INTERNAL, &format!("no answer to a ping within {seconds} s"));
            }
            Due::Stuck => {
                let seconds = self.settings.ping_timeout.as_secs_f64();
                self.close(slot, CloseCode::INTERNAL, &format!("took nothing for {seconds} s"));
            }
        }
    }

    fn look_again(&mut self, slot: u32, after: Duration) {
        self.timers.set(slot, after);
        self.flush(slot);
    }
}
