//! What other threads ask of the shard, one after another.
use super::{Io, Shard};
use crate::messages::{Command, Event};
use crate::ws::CloseCode;

impl<I: Io> Shard<I> {
    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Listen(listener) => self.add_listener(listener),
            Command::Accept(id, watched, user, reply) => {
                self.with(id, |shard, slot| shard.accept_asked(slot, watched, user, reply));
            }
            Command::AcceptRelayed(id, reply) => {
                self.with(id, |shard, slot| shard.accept_relayed(slot, reply));
            }
            Command::Welcome(fd, client) => {
                self.welcome(fd, client);
            }
            Command::HandOver(fd, bytes, client) => self.take_over(fd, bytes, client),
            Command::OfSiblings(delivery) => self.take_delivery(*delivery),
            Command::Adopt(id, fd, format, outgoing) => self.adopt(id, fd, (format, outgoing)),
            Command::Order(id, order) => self.with(id, |shard, slot| shard.obey_order(slot, *order)),
            Command::Broadcast(broadcast) => self.broadcast(*broadcast),
            Command::Respond(id, status, content_type, body, headers) => {
                self.with(id, |shard, slot| shard.respond_asked(slot, (status, &headers), &content_type, &body));
            }
            Command::Subscribe(id, watched, origin, before) => self.with(id, |shard, slot| {
                shard.send(slot, &before);
                shard.with(id, |shard, slot| shard.subscribe(slot, watched, origin));
            }),
            Command::Grant(id, grant) => self.with(id, |shard, slot| shard.grant(slot, *grant)),
            Command::Unsubscribe(id, channel, tails) => {
                self.forget_unsubscribing(id, &channel);
                self.forget_leaving_behind(id, &channel);
                self.unsubscribe_at(id, &channel, &tails);
            }
            Command::Send(id, frame) => self.with(id, |shard, slot| shard.send(slot, &frame)),
            Command::AskDrained(id) => self.with(id, |shard, slot| {
                shard.slab.at(slot).wants_drained = true;
                shard.tell_if_drained(slot);
            }),
            Command::Disconnect(id, code, reason) => {
                self.with(id, |shard, slot| shard.close(slot, CloseCode(code), &reason));
            }
            Command::Acknowledge(id, count) => self.with(id, |shard, slot| shard.acknowledge(slot, count)),
            Command::Resume => {
                for id in std::mem::take(&mut self.stalled) {
                    self.with(id, |shard, slot| {
                        shard.resume_reading(slot);
                        shard.resume_posts(slot);
                    });
                }
            }
            Command::ListChannels(id, reply) => {
                let names = self.slot_of(id).map(|slot| self.channels_of(slot)).unwrap_or_default();
                let _ = reply.send(names); // the asker may have given up
            }
            Command::Look(look, reply) => drop(reply.send(self.page_of(&look))),
            Command::StartLive(channel, why) => self.start_live(&channel, &why),
            Command::Track(_) => {} // begun before the fan-out, see `Shard::turn`
            Command::Untrack(token) => self.untrack(token),
            Command::CloseRoute(route, code, reason) => self.close_route(route, CloseCode(code), reason),
            Command::Drain(code, reason, spread) => self.drain(CloseCode(code), reason, spread),
            Command::Stop => self.is_stopping = true,
            #[cfg(test)]
            Command::Panic(text) => panic!("{text}"),
        }
    }

    fn send(&mut self, slot: u32, frame: &[u8]) {
        // One that is adopted is sent to by its framework, whose message may be under way.
        let may_send = self.slab.at(slot).takes_publications() && !self.is_adopted(slot);
        if !frame.is_empty()
            && may_send
            && self.note_private(slot, frame)
            && !self.slab.at(slot).session.is_detached()
            && self.part_from_others(slot)
        {
            self.slab.at(slot).transport.outbox.bytes_mut().extend_from_slice(frame);
            self.flush(slot);
        }
    }

    /// Tells the application, if it asked, once nothing private waits; of a client that is away or owes acks, not yet.
    pub(super) fn tell_if_drained(&mut self, slot: u32) {
        let may_take_more = !self.slab.at(slot).session.is_detached() && !self.awaits_ack(slot);
        let connection = self.slab.at(slot);
        if may_take_more && connection.wants_drained && !connection.transport.has_unsent() {
            connection.wants_drained = false;
            self.common.events.push(self.index, Event::Drained(self.whose(slot)));
        }
    }

    fn acknowledge(&mut self, slot: u32, count: u16) {
        let connection = self.slab.at(slot);
        connection.pending = connection.pending.saturating_sub(count);
        match connection.failure.take_if(|_| connection.pending == 0) {
            Some(failure) => self.fail(slot, failure.0, &failure.1),
            None => {
                self.resume_reading(slot);
                self.resume_posts(slot);
            }
        }
    }
}
