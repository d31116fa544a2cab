//! Connections that a framework reads and frames for: what it writes goes out between publications, in the order of the calls.
//!
//! One of which something is asked in a turn leaves the tail before anything is fanned out, and is back there when all of that is
//! done: only it is on the slow path meanwhile.
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::connection::Connection;
use super::io::{Interest, Member, Ready, Short};
use super::lagging::{Pumped, broken_or_full};
use super::{Io, Shard};
use crate::adopted::{Barrier, Outgoing};
use crate::channel::Mode;
use crate::messages::{Broadcast, Command, ConnectionId, Event, Order, Released};
use crate::protocol::Format;
use crate::session::{Adopted, Next, Passed};
use crate::ws::{CloseCode, Outline, write_close};

impl<I: Io> Shard<I> {
    pub(super) fn is_adopted(&self, slot: u32) -> bool {
        self.slab.get(slot).is_some_and(|connection| !connection.session.is_read())
    }

    /// The turn's commands are about to be done: of whom something is asked leaves the tail until it is.
    pub(super) fn note_orders(&mut self, commands: &[Command]) {
        for command in commands {
            match command {
                Command::Order(id, _) => self.note_order(*id),
                Command::Broadcast(broadcast) => broadcast.ids().for_each(|id| self.note_order(id)),
                _ => {}
            }
        }
    }

    fn note_order(&mut self, id: ConnectionId) {
        match self.slot_of(id) {
            Some(slot) => {
                self.set_aside(slot, Mode::Replaying);
                if let Some(adopted) = self.slab.at(slot).session.adopted_mut() {
                    adopted.expect();
                }
            }
            None => *self.orders_ahead.entry(id).or_default() += 1,
        }
    }

    /// Takes the write side of a socket, under the id that was given out for it.
    pub(super) fn adopt(&mut self, id: ConnectionId, fd: OwnedFd, (format, outgoing): (Format, Arc<Outgoing>)) {
        let (raw, slot) = (fd.as_raw_fd(), id.slot());
        let expected = self.orders_ahead.remove(&id).unwrap_or_default();
        let mut connection = Connection::new(Some(fd), id.generation());
        (connection.format, connection.since_tick) = (format, self.timers.tick());
        connection.session.adopt(Adopted::new(outgoing, expected));
        self.slab.seat(slot, connection);
        self.stats.connections.add(1);
        self.stats.connections_total.add(1);
        self.block(slot);
        if let Err(error) = self.io.watch(raw, self.token_of(slot), Interest::Writing) {
            self.give_up(slot, Released::Broken(error.raw_os_error().unwrap_or(libc::EIO)));
        } else if self.is_draining {
            self.release(slot);
        }
    }

    pub(super) fn obey_order(&mut self, slot: u32, order: Order) {
        let id = self.id_of(slot);
        let Some(adopted) = self.slab.at(slot).session.adopted_mut() else { return };
        match order {
            Order::Begin => adopted.begin(),
            Order::Write(bytes, _) if adopted.is_over() => self.end_frame(slot, &bytes),
            Order::Write(bytes, barrier) => adopted.queue(&bytes, barrier),
            Order::Unsubscribe(channel, barrier) => adopted.queue_leaving(channel, barrier),
            Order::Release(barrier) => adopted.queue_release(barrier),
            Order::Notify => self.tell_if_few(slot),
            Order::Abort(shuts_down) => {
                if let Some(fd) = self.slab.at(slot).transport.socket().filter(|_| shuts_down) {
                    self.io.shut_down(fd);
                }
                self.give_up(slot, Released::Aborted);
            }
            Order::Subscribe(watched, origin) => {
                if let Some((watched, origin)) = adopted.queue_joining(watched, origin) {
                    self.subscribe(slot, watched, origin);
                }
            }
        }
        self.with(id, |shard, slot| shard.end_order(slot));
    }

    fn end_order(&mut self, slot: u32) {
        if self.slab.at(slot).session.adopted_mut().is_some_and(Adopted::handle_done) {
            self.pump(slot);
        }
    }

    /// Has each of them write the message, behind what was asked of it before.
    pub(super) fn broadcast(&mut self, broadcast: Broadcast) {
        let Broadcast { frame, to, behind } = broadcast;
        let mut at_once = Vec::new();
        let are_whole = Outline::has_whole_messages(&frame);
        for id in to {
            let Some(slot) = self.slot_of(id) else { continue };
            match self.may_write_at_once(slot).filter(|_| are_whole) {
                Some(fd) => at_once.push(Member { fd, slot, subscription: 0 }),
                None => self.queue_shared(slot, &frame, Barrier::default()),
            }
        }
        for (id, barrier) in behind {
            if let Some(slot) = self.slot_of(id) {
                self.queue_shared(slot, &frame, barrier);
            }
        }
        self.write_at_once(&at_once, &frame);
    }

    fn queue_shared(&mut self, slot: u32, frame: &Arc<[u8]>, barrier: Barrier) {
        match self.slab.at(slot).session.adopted_mut() {
            Some(adopted) if adopted.is_over() => self.end_frame(slot, frame),
            Some(adopted) => adopted.queue_shared(frame, barrier),
            None => {}
        }
        self.end_order(slot);
    }

    /// Its socket, where nothing stands before a message that this turn asks of it, and no channel can.
    fn may_write_at_once(&mut self, slot: u32) -> Option<RawFd> {
        let connection = self.slab.at(slot);
        let is_free = connection.subscriptions.is_empty() && !connection.transport.has_unsent();
        if !is_free || !connection.session.adopted().is_some_and(Adopted::is_free) {
            return None;
        }
        let fd = connection.transport.socket()?;
        if !std::mem::replace(&mut connection.transport.is_registered, true) {
            self.io.register(slot, fd);
        }
        Some(fd)
    }

    /// Sends whole messages to these, in few calls; what a socket does not take stands in its queue.
    fn write_at_once(&mut self, members: &[Member], frame: &Arc<[u8]>) {
        let mut shorts = std::mem::take(&mut self.shorts);
        self.io.send_all(members, frame, &mut shorts);
        self.stats.writes.add(members.len() as u64);
        let missing: usize = shorts.iter().map(|short| frame.len() - short.written).sum();
        self.stats.bytes_out.add((members.len() * frame.len() - missing) as u64);
        shorts.sort_unstable_by_key(|short| short.slot);
        for member in members {
            let short = shorts.binary_search_by_key(&member.slot, |short| short.slot).ok().map(|index| shorts[index]);
            let Some(adopted) = self.slab.at(member.slot).session.adopted_mut() else { continue };
            let taken = short.map_or(frame.len(), |short| short.written);
            let is_few = adopted.handle_written(frame, taken);
            if is_few {
                self.tell_drained(member.slot);
            }
            match short {
                None => self.unblock(member.slot, member.fd),
                Some(Short { error: Some(errno), .. }) => self.break_off(member.slot, errno),
                Some(_) => self.pump(member.slot), // a part was taken, and the kernel may not be full: the next call tells
            }
        }
        shorts.clear();
        self.shorts = shorts;
    }

    /// Writes what was asked of a connection, each behind the publications that come before it.
    pub(super) fn pump_adopted(&mut self, slot: u32, fd: RawFd) -> Pumped {
        loop {
            let connection = self.slab.at(slot);
            let Some(adopted) = connection.session.adopted() else { return Pumped::Done }; // it was given up
            let (next, is_held) = (adopted.next(), adopted.is_held());
            match next {
                // A policy closed it in the midst of this, and the socket did not take all of that.
                Next::End if connection.transport.has_unsent() => return Pumped::Full,
                Next::Nothing => return Pumped::Full, // what is asked next, or the order to begin, brings it here again
                Next::End => return Pumped::Done,
                Next::Publications => {
                    let pumped = self.pump_subscriptions(slot, fd);
                    let is_done = self.slab.at(slot).session.adopted().is_some_and(Adopted::is_done);
                    return if is_done && matches!(pumped, Pumped::Drained) { Pumped::Done } else { pumped };
                }
                Next::Ordered => {
                    match self.pump_subscriptions(slot, fd) {
                        Pumped::Drained => {}
                        other => return other,
                    }
                    if !self.has_reached_barrier(slot) {
                        self.later.push(self.id_of(slot)); // the shard is about to come there
                        return Pumped::Full;
                    }
                }
                // What is to be given up before the framework's own bytes are out waits for them, if something is due behind those.
                Next::Private if is_held && !self.has_reached_barrier(slot) => return Pumped::Full,
                Next::Private => {}
            }
            if let Some(pumped) = self.pump_first(slot, fd) {
                return pumped;
            }
        }
    }

    /// Does what stands first in the queue of an adopted connection, as far as its socket goes; gives what keeps it from more.
    fn pump_first(&mut self, slot: u32, fd: RawFd) -> Option<Pumped> {
        let connection = self.slab.at(slot);
        let adopted = connection.session.adopted_mut()?;
        if adopted.bytes().is_empty() {
            match adopted.pass()? {
                Passed::Leave(channel) => self.unsubscribe(slot, &channel),
                Passed::Join(watched, origin) => self.subscribe(slot, watched, origin),
                Passed::Release => {}
            }
            return None;
        }
        let written = self.io.send(fd, adopted.bytes());
        if written < 0 {
            return Some(broken_or_full(written));
        }
        self.stats.bytes_out.add(written as u64);
        self.stats.writes.add(1);
        let is_few = adopted.advance(written as usize);
        if adopted.has_closed() {
            self.leave_all(slot);
        }
        if is_few {
            self.tell_drained(slot);
        }
        None
    }

    /// Whether the connection has all of its channels that comes before what stands first in its queue.
    fn has_reached_barrier(&mut self, slot: u32) -> bool {
        let connection = self.slab.at(slot);
        let Some(barrier) = connection.session.adopted().and_then(Adopted::barrier) else { return true };
        barrier.iter().all(|(watch, end)| {
            let feed = watch.feed.load(Ordering::Relaxed);
            let index = if feed == u32::MAX { None } else { self.feeds.find(connection, slot, feed) };
            index.is_none_or(|index| {
                let subscription = connection.subscriptions[index];
                let waits = subscription.mode() == Mode::AwaitingKeyframe && self.feeds.at(feed).cursor >= end;
                subscription.cursor >= end || waits
            })
        })
    }

    /// Tells the application, if it asked, once few enough private bytes wait.
    fn tell_if_few(&mut self, slot: u32) {
        if self.slab.at(slot).session.adopted().is_some_and(|adopted| adopted.outgoing.is_to_tell()) {
            self.tell_drained(slot);
        }
    }

    fn tell_drained(&mut self, slot: u32) {
        self.common.events.push(self.index, Event::Drained(self.whose(slot)));
    }

    /// Ends what the policy, or the application, wants to be closed: a Close frame behind a whole frame, and nothing after it.
    pub(super) fn close_adopted(&mut self, slot: u32, code: CloseCode, reason: &str) {
        let timeout = self.settings.close_timeout;
        let is_over = |adopted: &Adopted| adopted.is_over() || adopted.next() == Next::End;
        if self.slab.at(slot).session.adopted().is_none_or(is_over) {
            return;
        }
        self.leave_all(slot);
        let connection = self.slab.at(slot);
        let Some(adopted) = connection.session.adopted_mut() else { return };
        let is_held = adopted.is_held();
        let released = Released::Closed(code.0, reason.to_owned());
        let (rest, may_close) = (adopted.close(released.clone()), adopted.may_close());
        let out = connection.transport.outbox.bytes_mut();
        if !is_held {
            out.extend_from_slice(&rest);
        }
        if may_close {
            write_close(out, code, reason);
        }
        self.stats.count_close(code.0);
        if is_held {
            return self.give_up(slot, released);
        }
        self.timers.set(slot, timeout);
        self.pump(slot);
    }

    /// The rest of a frame in the midst of which the engine closed: its Close frame may stand behind it.
    fn end_frame(&mut self, slot: u32, bytes: &[u8]) {
        let connection = self.slab.at(slot);
        let Some(adopted) = connection.session.adopted_mut() else { return };
        let rest = adopted.rest_of_frame(bytes);
        let out = connection.transport.outbox.bytes_mut();
        out.extend_from_slice(rest);
        if !rest.is_empty()
            && adopted.may_close()
            && let Some(Released::Closed(code, reason)) = adopted.leaving()
        {
            write_close(out, CloseCode(*code), reason);
        }
    }

    /// The peer has ended its half, or all is over.
    pub(super) fn end_adopted(&mut self, slot: u32, ready: Ready) {
        if ready.is_over {
            return self.break_off(slot, libc::ECONNRESET);
        }
        if !ready.is_ended {
            return;
        }
        self.leave_all(slot);
        if let Some(adopted) = self.slab.at(slot).session.adopted_mut() {
            adopted.leave(Released::Ended);
            self.pump(slot);
        }
    }

    /// Gives an adopted connection up when all that was accepted is with the socket; nothing more is.
    pub(super) fn release(&mut self, slot: u32) {
        if let Some(adopted) = self.slab.at(slot).session.adopted_mut() {
            adopted.leave(Released::Released);
            self.pump(slot);
        }
    }

    /// Has no more to do with an adopted connection, and tells why, if that was not known before. Its socket stays as it is.
    pub(super) fn give_up(&mut self, slot: u32, why: Released) {
        if self.slab.get(slot).is_none() {
            return;
        }
        self.leave_all(slot);
        let whose = self.whose(slot);
        self.timers.clear(slot);
        let Some(mut connection) = self.slab.bury(slot) else { return };
        if connection.transport.is_registered {
            self.io.unregister(slot);
        }
        self.stats.connections.sub(1);
        self.stats.lagging.sub(u64::from(connection.transport.is_blocked));
        if let Some(fd) = connection.transport.fd.take() {
            self.io.unwatch(fd.as_raw_fd()); // closing it ends no watch, as the framework has the socket too
        }
        let Some(adopted) = connection.session.adopted_mut() else { return };
        let why = match (adopted.take_leaving(), why) {
            (Some(closed @ Released::Closed(..)), _) => closed,
            (_, why @ (Released::Broken(_) | Released::Aborted)) => why,
            (leaving, why) => leaving.unwrap_or(why),
        };
        adopted.outgoing.end();
        self.common.events.push(self.index, Event::Released(whose, why));
    }
}
