//! Requests that other workers have passed on, for connections here: each is a connection without a socket until its answer.
use crate::session::Reads;
use crate::shard::connection::Connection;
use crate::shard::{Io, Shard};
use crate::siblings::{Errand, GuestId};

impl<I: Io> Shard<I> {
    fn tell_siblings(&self, errand: Errand) {
        if let Some(siblings) = &self.common.siblings {
            siblings.leave(errand);
        }
    }

    /// Takes in a request from another worker, whose client is there.
    pub(super) fn receive_guest(&mut self, id: GuestId, client: Box<str>, mut bytes: Vec<u8>) {
        let made = self.guests.has_room().then(|| self.slab.insert(|generation, _| Connection::new(None, generation)));
        let Some(slot) = made.flatten() else { return self.tell_siblings(Errand::Lost(id)) };
        self.guests.add(id, slot);
        self.clients_elsewhere.insert(slot, client);
        self.timers.set(slot, self.settings.handshake_timeout);
        self.take_bytes(slot, &mut bytes);
        self.ask_guest_for_more(slot);
    }

    /// More of a guest's body has come.
    pub(super) fn take_more_of_guest(&mut self, id: GuestId, mut bytes: Vec<u8>) {
        if let Some(slot) = self.guests.slot_of(id) {
            self.guests.owe(slot);
            self.take_bytes(slot, &mut bytes);
            self.ask_guest_for_more(slot);
        }
    }

    /// Once all that has come of a guest's body was taken, more may come.
    pub(in crate::shard) fn ask_guest_for_more(&mut self, slot: u32) {
        let Some(connection) = self.slab.get(slot).filter(|_| self.guests.at(slot).is_some()) else { return };
        if connection.transport.unread.is_some() || connection.session.reads() != Reads::Body {
            return;
        }
        if let Some(id) = self.guests.take_owed(slot) {
            self.tell_siblings(Errand::Taken(id));
        }
    }

    /// The worker that has a poll's client ends: it is answered, if with nothing.
    pub(super) fn hurry_guest(&mut self, id: GuestId) {
        if let Some(slot) = self.guests.slot_of(id) {
            self.expire_poll(slot);
        }
    }

    /// Nobody waits for the answer any more.
    pub(super) fn leave_guest(&mut self, id: GuestId) {
        if let Some(slot) = self.guests.slot_of(id) {
            self.guests.remove(slot);
            self.drop_connection(slot);
        }
    }

    /// What stands in a guest's outbox goes to its client. False for a connection that is none.
    pub(in crate::shard) fn flush_guest(&mut self, slot: u32) -> bool {
        let Some(id) = self.guests.at(slot) else { return false };
        let bytes = self.slab.at(slot).transport.outbox.take();
        if !bytes.is_empty() {
            self.tell_siblings(Errand::Response(id, bytes, None));
        }
        true
    }

    /// A guest's answer is whole, and with it the guest is gone. False for a connection that is none.
    pub(in crate::shard) fn answer_guest(&mut self, slot: u32, keeps_alive: bool) -> bool {
        let Some(id) = self.guests.remove(slot) else { return false };
        let bytes = self.slab.at(slot).transport.outbox.take();
        self.tell_siblings(Errand::Response(id, bytes, Some(keeps_alive)));
        self.drop_connection(slot);
        true
    }

    /// A connection is dropped: if it stood for a guest, that one gets no answer.
    pub(in crate::shard) fn lose_guest(&mut self, slot: u32) {
        if let Some(id) = self.guests.remove(slot) {
            self.tell_siblings(Errand::Lost(id));
        }
    }

    /// Another shard has the connection that a guest is for. False for a connection that is none.
    pub(in crate::shard) fn hand_guest_over(&mut self, slot: u32, shard: usize, bytes: &[u8]) -> bool {
        let Some(id) = self.guests.remove(slot) else { return false };
        let client = self.clients_elsewhere.remove(&slot).unwrap_or_default();
        self.tell_siblings(Errand::Pass(id, shard, client, bytes.to_vec()));
        self.drop_connection(slot);
        true
    }
}
