//! Event streams that are gzip streams: who gets one, and what is written to one client alone.
//!
//! Such a stream has nothing outside its window. What one client gets alone stands in its window and in no other one, so it
//! goes back to the log whose frames are stored, and from there on as a newcomer does.
use super::{Io, Shard};
use crate::channel::{Inflates, Mode};
use crate::clock::TICK;
use crate::http::gzip::{HEADER, accepts_gzip, write_stored};
use crate::http::{RequestHead, write_stream_head};
use crate::messages::ConnectionId;
use crate::protocol::sse::{self, KEEPALIVE};
use crate::protocol::{Coding, Format};
use crate::session::Asked;
use crate::stats::FellBack;

use super::answers::with_cors;
use super::connection::{Connection, Subscription};
use super::fanout::Turn;
use super::feed::FEW;
use super::query::Query;

/// What any inflater of gzip has.
const INFLATES: Inflates = Inflates { window_bits: 15, takes_over: true };

impl<I: Io> Shard<I> {
    /// The format of an event stream that asks for this.
    ///
    /// Not compressed where the client would get hardly anything so: of several channels whose events have ids each has one of
    /// its own for this client, and what is filtered is for few.
    pub(super) fn event_stream_format(&self, head: &RequestHead<'_>, query: &Query) -> Format {
        let is_coded = |name: &String| self.settings.channel(name).compression;
        let has_ids = |name: &&String| self.settings.channel(name).history_frames > 0;
        let gains = self.settings.gzip
            && query.wanted.view.is_all()
            && (query.channels.is_empty() || query.channels.iter().any(is_coded))
            && query.channels.iter().filter(has_ids).count() < 2;
        if gains && accepts_gzip(head) { Format::SseGzip } else { Format::Sse }
    }

    /// What a connection inflates. Of a stream of several channels no two have the same window; but what a client or user gets
    /// alone, by a channel of its own, is seldom anything.
    pub(super) fn inflates_of(&self, slot: u32) -> Option<Inflates> {
        let connection = self.slab.get(slot)?;
        let inflates = connection.inflates?;
        let is_mixed = connection.format.is_gzip() && connection.subscriptions.len() > 1 && {
            let is_listed = |one: &&Subscription| self.feeds.get(one.feed).is_some_and(|feed| feed.channel.is_listed);
            connection.subscriptions.iter().filter(is_listed).count() > 1
        };
        Some(Inflates { takes_over: inflates.takes_over && !is_mixed, ..inflates })
    }

    /// Whether a stream has to part from those who share a window before it gets what waits of this subscription.
    pub(super) fn has_to_part(&self, slot: u32, index: usize) -> bool {
        let Some(connection) = self.slab.get(slot).filter(|one| one.format.is_gzip()) else { return false };
        if connection.subscriptions.len() < 2 {
            return false;
        }
        let is_shared = |one: &Subscription| self.feeds.get(one.feed).is_some_and(|it| it.log.coding.is_shared());
        connection.subscriptions.iter().enumerate().any(|(other, one)| other != index && is_shared(one))
    }

    /// Of a channel that clients do not know, who shares a window elsewhere leaves the tail: the slow path has it part first.
    pub(super) fn set_aside_mixed(&mut self, turns: &[Turn], set_aside: &mut Vec<ConnectionId>) {
        for turn in turns {
            let target = self.feeds.at(turn.feed());
            if !target.log.format.is_gzip() || target.channel.is_listed {
                continue;
            }
            for member in target.at_tail.clone() {
                let index = member.subscription as usize;
                if self.has_to_part(member.slot, index) {
                    self.feeds.move_to(&mut self.slab, member.slot, index, Some((turn.from(), Mode::Replaying)));
                    set_aside.push(self.id_of(member.slot));
                }
            }
        }
    }

    /// Something for a client alone is about to stand in its outbox: what is compressed for it with others goes out before. False
    /// where it is gone by that.
    pub(super) fn part_from_others(&mut self, slot: u32) -> bool {
        let coded = self.coded_of(slot);
        if coded.iter().any(|&feed| self.feeds.at(feed).log.coding.is_shared()) {
            self.leave_coded(slot);
            return self.gets_publications(slot);
        }
        for feed in coded {
            self.begin_climbing_anew(self.id_of(slot), feed);
        }
        true
    }

    /// A stream goes on in the logs whose frames are stored, wherever it is.
    pub(super) fn leave_coded(&mut self, slot: u32) {
        for feed in self.coded_of(slot) {
            // The other log may have been fanned out further than this client is to get.
            if let Some(target) = self.feeds.get(feed) {
                let (channel, format) = (target.channel.clone(), target.log.format);
                self.unsubscribe_before(&channel, (format, u64::MAX));
            }
        }
        let coded = self.coded_of(slot);
        if coded.is_empty() {
            return;
        }
        self.block(slot);
        for feed in coded {
            if let Some((index, _)) = self.index_at(self.id_of(slot), feed) {
                let why = self.why_fall_back(slot, index).unwrap_or(FellBack::Parted);
                self.fall_back_from(slot, index, why);
            }
        }
        self.later.push(self.id_of(slot)); // its socket may have room, of which the kernel will not tell
    }

    /// Through which feeds a gzip stream reads logs whose frames are compressed.
    fn coded_of(&self, slot: u32) -> Vec<u32> {
        let Some(connection) = self.slab.get(slot).filter(|connection| connection.format.is_gzip()) else {
            return Vec::new();
        };
        let is_coded = |feed: &u32| self.feeds.get(*feed).is_some_and(|target| target.log.coding != Coding::Plain);
        connection.subscriptions.iter().map(|one| one.feed).filter(is_coded).collect()
    }

    /// A stream was silent for as long as it may be, if nothing was written to it together with others.
    pub(super) fn comment(&mut self, slot: u32) {
        let interval = self.settings.ping_interval;
        let connection = self.slab.at(slot);
        if connection.format.is_gzip() {
            let few = connection.subscriptions.iter().take(FEW);
            let written = few.filter_map(|one| self.feeds.get(one.feed)?.written_tick(*one)).max();
            let silence = written.map_or(interval, |tick| TICK * self.timers.tick().saturating_sub(tick));
            if silence < interval {
                return self.timers.set(slot, (interval - silence).max(TICK));
            }
        }
        if self.part_from_others(slot) {
            write_aside(self.slab.at(slot), KEEPALIVE);
            self.look_again(slot, interval);
        }
    }

    /// Adds an event to the outbox that tells this client of its subscriptions.
    pub(super) fn tell_subscribed(&mut self, slot: u32, text: &str) {
        let mut event = Vec::new();
        sse::write_text(&mut event, None, Some("subscribed"), text.as_bytes());
        if self.part_from_others(slot) {
            write_aside(self.slab.at(slot), &event);
        }
    }
}

/// Opens the event stream that was asked for: its response is in the outbox, with a first comment.
pub(super) fn accept_event_stream(connection: &mut Connection, asked: &Asked) {
    let is_gzip = connection.format.is_gzip();
    connection.inflates = is_gzip.then_some(INFLATES);
    let out = connection.transport.outbox.bytes_mut();
    let headers = with_cors(asked.readable_by.as_deref(), &asked.headers);
    write_stream_head(out, &headers, "text/event-stream", is_gzip);
    if is_gzip {
        out.extend_from_slice(&HEADER);
    }
    write_aside(connection, KEEPALIVE); // nginx sends a head over HTTP/2 when something follows it
}

/// Adds records to an event stream's outbox that are for its client alone.
pub(super) fn write_aside(connection: &mut Connection, records: &[u8]) {
    let is_gzip = connection.format.is_gzip();
    let out = connection.transport.outbox.bytes_mut();
    if is_gzip {
        write_stored(out, records);
    } else {
        out.extend_from_slice(records);
    }
}
