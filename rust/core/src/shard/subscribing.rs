//! Who watches what: asked for by clients and by the application, joined to feeds and left.
use std::sync::Arc;

use serde_json::{Map, Value};

use super::event_ids::{POSITIONS_MAX, Taken};
use super::feed::FEW;
use super::lagging::note_labelled;
use super::{Io, Shard};
use crate::channel::{Channel, Mode, Origin, Registry, Seek, Start, Tails, View, Watched};
use crate::error::EngineError;
use crate::messages::{Command, ConnectionId, Event, Grant, Wanted};
use crate::node::Group;
use crate::position::Position;
use crate::protocol::{Format, Framing, raw, write_reply_result};

/// A subscription that knows where it begins and has not begun.
pub(super) struct Seat {
    watched: Watched,
    seek: Seek,
}

impl<I: Io> Shard<I> {
    pub(super) fn subscribe_by_message(&mut self, slot: u32, names: &[String], id: Option<&str>, wanted: &Wanted) {
        if self.common.node.get().is_some() && self.ask_for_all(slot, names, id, wanted) {
            return;
        }
        let mut seats = Vec::new();
        for name in names {
            match self.seat_by_name(slot, name, wanted, seats.len()) {
                Ok(seat) => seats.extend(seat),
                Err(error) => {
                    self.reply_error(slot, id, &error.to_string());
                    return self.begin(slot, seats);
                }
            }
        }
        self.reply_subscribed(slot, id, names, &seats, wanted);
        self.begin(slot, seats);
    }

    pub(super) fn unsubscribe_by_message(&mut self, slot: u32, names: &[String], id: Option<&str>) {
        for name in names {
            if let Some(member) = self.common.node.get() {
                member.cancel(self.id_of(slot), (Group::Channel, name));
            }
            let Some(channel) = self.common.registry.find(name) else { continue };
            if self.common.node.get().is_some() && self.feed_of(slot, &channel).is_none() {
                // What it waited for may have come, and be on its way here: this comes behind it.
                self.unsubscribe_behind(slot, channel);
            } else {
                self.unsubscribe(slot, &channel);
            }
        }
        if id.is_some() && self.gets_publications(slot) {
            self.reply(slot, id, &serde_json::json!({ "unsubscribed": names }));
            self.flush(slot);
        }
    }

    /// Who gives a request an id wants to know when it is done; who had a position, where it begins. Goes out before the
    /// first publication does.
    fn reply_subscribed(&mut self, slot: u32, id: Option<&str>, names: &[String], seats: &[Seat], wanted: &Wanted) {
        if (id.is_none() && !wanted.is_told) || !self.slab.at(slot).takes_publications() {
            return;
        }
        let mut result = serde_json::json!({ "subscribed": names });
        if wanted.is_told {
            let seats = || seats.iter().filter(|seat| seat.watched.channel.is_listed);
            let name = |seat: &Seat| seat.watched.channel.name().to_owned();
            let position = |seat: &Seat| serde_json::json!([seat.seek.position.epoch, seat.seek.position.offset]);
            let positions: Map<String, Value> = seats().map(|seat| (name(seat), position(seat))).collect();
            let asked = seats().filter_map(|seat| Some((name(seat), seat.seek.recovered?.into())));
            result["recovered"] = Value::Object(asked.collect());
            result["positions"] = Value::Object(positions);
            if self.slab.at(slot).format.framing() == Framing::Edge {
                let newest = |seat: &Seat| {
                    let Position { epoch, offset } = seat.watched.channel.position();
                    (name(seat), serde_json::json!([epoch, offset]))
                };
                result["newest"] = Value::Object(seats().map(newest).collect());
            }
        }
        self.reply(slot, id, &result);
    }

    /// Adds a reply to the outbox; of an event stream it is an event of its own.
    fn reply(&mut self, slot: u32, id: Option<&str>, result: &Value) {
        if self.slab.at(slot).format.is_event_stream() {
            return self.tell_subscribed(slot, &result.to_string());
        }
        let mut reply = Vec::new();
        write_reply_result(&mut reply, id, &result.to_string());
        raw::write_text(self.slab.at(slot).transport.outbox.bytes_mut(), &reply);
    }

    fn seat_by_name(
        &mut self,
        slot: u32,
        name: &str,
        wanted: &Wanted,
        seated: usize,
    ) -> Result<Option<Seat>, EngineError> {
        let known = self.common.registry.find(name);
        if let Some(channel) = known
            && self.is_known_to(slot, &channel, &wanted.view)?
        {
            self.want_snapshot_for_edge(slot, &channel, wanted.start);
            return Ok(None);
        }
        self.check_room(slot, seated)?; // a name too many makes no channel
        let channel = self.obtain_channel(name)?;
        let watched = channel.watch_view(self.slab.at(slot).format.into(), self.index, &wanted.view)?;
        watched.map_or(Ok(None), |watched| self.seat(slot, watched, wanted.origin_of(&channel), seated))
    }

    /// A subscription to a channel that clients cannot name; none at the bound of channels.
    pub(super) fn watch_unlisted(&self, registry: &Registry, name: &str, format: Format) -> Option<Watched> {
        let channel = registry.obtain(name, &self.settings, self.clock.now_ns()).ok()?;
        channel.watch(format.into(), self.index)
    }

    /// Whether one more subscription has room, beside so many that are about to begin.
    ///
    /// # Errors
    /// [`EngineError::LimitReached`] at `subscriptions_max`, of an edge at `edge_subscriptions_max`.
    pub(super) fn check_room(&mut self, slot: u32, seated: usize) -> Result<(), EngineError> {
        let (name, bound) = match self.slab.at(slot).format.framing() {
            Framing::Edge => ("edge_subscriptions_max", self.settings.edge_subscriptions_max),
            _ => ("subscriptions_max", self.settings.subscriptions_max),
        };
        let value = self.slab.at(slot).subscriptions.len() + seated + 1;
        if value > bound {
            let (value, bound) = (value as u64, bound as u64);
            return Err(EngineError::LimitReached { name, value, bound });
        }
        Ok(())
    }

    /// The application subscribes a connection.
    pub(super) fn subscribe(&mut self, slot: u32, watched: Watched, origin: Origin) {
        if self.awaits_handshake(slot) {
            return self.hold(slot, watched, origin);
        }
        match self.seat(slot, watched, origin, 0) {
            Ok(seat) => self.begin(slot, seat.into_iter().collect()),
            Err(error) => self.record(30, format!("{}: not subscribed: {error}", self.id_of(slot))),
        }
    }

    /// The application has decided on a client's request: these channels, and what to tell the client.
    pub(super) fn grant(&mut self, slot: u32, grant: Grant) {
        if grant.wanted.since_ns > 0 {
            self.stats.count_subscribing(self.clock.now_ns().saturating_sub(grant.wanted.since_ns));
        }
        let names: Vec<String> = grant.watched.iter().map(|one| one.channel.name().to_owned()).collect();
        let mut errors: Vec<String> = grant.error.into_iter().collect();
        let mut seats = Vec::new();
        for one in grant.watched {
            let origin = grant.wanted.origin_of(&one.channel);
            match self.seat(slot, one, origin, seats.len()) {
                Ok(seat) => seats.extend(seat),
                Err(error) => {
                    errors.push(error.to_string());
                    break; // the others would not fit either
                }
            }
        }
        let id = grant.id.as_deref();
        if errors.is_empty() {
            self.reply_subscribed(slot, id, &names, &seats, &grant.wanted);
        } else {
            self.reply_error(slot, id, &errors.join("; "));
        }
        self.begin(slot, seats);
    }

    /// An opening brings its subscriptions.
    pub(super) fn subscribe_opened(&mut self, slot: u32, watched: Vec<Watched>, wanted: &Wanted) {
        let (mut names, mut seats) = (Vec::new(), Vec::new());
        for one in watched {
            let origin = wanted.origin_of(&one.channel);
            let name = one.channel.is_listed.then(|| one.channel.name().to_owned());
            match self.seat(slot, one, origin, seats.len()) {
                Ok(seat) => {
                    names.extend(name);
                    seats.extend(seat);
                }
                Err(error) => self.record(30, format!("{}: not subscribed: {error}", self.id_of(slot))),
            }
        }
        self.reply_subscribed(slot, None, &names, &seats, wanted);
        self.begin(slot, seats);
    }

    /// Finds where a connection that becomes a subscriber begins, with so many others about to. `None`: it is one already.
    ///
    /// # Errors
    /// [`EngineError::LimitReached`] when it has `subscriptions_max` others; [`EngineError::OtherFilter`];
    /// [`EngineError::FilteredEdge`].
    fn seat(
        &mut self,
        slot: u32,
        watched: Watched,
        origin: Origin,
        seated: usize,
    ) -> Result<Option<Seat>, EngineError> {
        if !self.slab.at(slot).takes_publications() {
            return Ok(None);
        }
        if self.is_known_to(slot, &watched.channel, &watched.watch.view)? {
            self.want_snapshot_for_edge(slot, &watched.channel, origin.start);
            return Ok(None);
        }
        let Some(watched) = watched.in_format(self.slab.at(slot).format) else { return Ok(None) };
        if !watched.watch.view.is_all() && watched.log.format.framing() == Framing::Edge {
            return Err(EngineError::FilteredEdge { name: watched.channel.name().to_owned() });
        }
        self.check_room(slot, seated)?;
        let seek = watched.channel.seek(watched.log.format, origin, watched.cursor, self.clock.now_ns());
        if seek.asks {
            self.ask_application(watched.channel.name());
        }
        #[cfg(test)]
        if self.is_adopted(slot) {
            super::simulated::note_seat((
                self.id_of(slot),
                watched.channel.name().into(),
                seek.position,
                seek.recovered,
            ));
        }
        Ok(Some(Seat { watched, seek }))
    }

    /// Whether a connection is a subscriber of this channel already.
    ///
    /// # Errors
    /// [`EngineError::OtherFilter`] where it is, and gets something else of it than this.
    fn is_known_to(&self, slot: u32, channel: &Arc<Channel>, view: &View) -> Result<bool, EngineError> {
        let Some(feed) = self.feed_of(slot, channel).and_then(|feed| self.feeds.get(feed)) else { return Ok(false) };
        if feed.watch.view == *view {
            return Ok(true);
        }
        Err(EngineError::OtherFilter { name: channel.name().to_owned() })
    }

    /// Whether a connection is there, and has not been closed meanwhile.
    pub(super) fn gets_publications(&self, slot: u32) -> bool {
        self.slab.get(slot).is_some_and(|connection| connection.takes_publications())
    }

    /// Makes a connection a subscriber, from where each seat begins; what stands in its outbox goes out before.
    fn begin(&mut self, slot: u32, seats: Vec<Seat>) {
        let was_blocked = self.slab.get(slot).is_none_or(|connection| connection.transport.is_blocked);
        self.note_channels_of_stream(slot, &seats);
        for seat in seats {
            if !self.gets_publications(slot) {
                break;
            }
            self.join(slot, seat);
        }
        if !was_blocked && self.slab.get(slot).is_some_and(|connection| connection.transport.is_blocked) {
            self.pump(slot); // once for all of them, and whatever has become of it
        }
        self.flush(slot);
    }

    /// A connection is about to get these channels: from its second with ids on, an event stream's events have ids of its own.
    ///
    /// An event that is on its way and was cut ends with such an id, too: it may be the last one that comes.
    fn note_channels_of_stream(&mut self, slot: u32, seats: &[Seat]) {
        let seats: Vec<&Seat> = seats.iter().filter(|seat| has_ids(&seat.watched.channel)).collect();
        let Some(connection) = self.slab.get(slot).filter(|connection| connection.format.is_event_stream()) else {
            return;
        };
        let is_new = connection.event_ids.is_none();
        if seats.is_empty() {
            return;
        }
        let count = self.channels_with_ids(slot) + seats.len();
        if count > POSITIONS_MAX && !is_new {
            self.one_by_one -= 1;
            self.slab.at(slot).event_ids = None;
            self.block(slot); // when it is pumped, it goes the way of all others
        }
        if !(2..=POSITIONS_MAX).contains(&count) {
            return;
        }
        if is_new {
            self.leave_coded(slot); // its events come in frames of their own
            if !self.gets_publications(slot) {
                return;
            }
        }
        let before = if is_new { self.places_of(slot) } else { Vec::new() };
        self.one_by_one += usize::from(is_new);
        let connection = self.slab.at(slot);
        let ids = connection.event_ids.get_or_insert_default();
        before.into_iter().flatten().for_each(|position| ids.set(position));
        for seat in seats.iter().filter(|seat| !awaits_state(seat.seek.mode)) {
            ids.set(seat.seek.position);
        }
        if is_new {
            note_labelled(connection, Taken::CUT);
        }
    }

    /// A life of one of a stream's channels is over: its place there is none any more.
    pub(super) fn forget_lives(&mut self, slot: u32) {
        let connection = self.slab.at(slot);
        let count = connection.subscriptions.len();
        let Some(ids) = connection.event_ids.as_deref_mut().filter(|ids| ids.count() > count) else { return };
        let channels = connection.subscriptions.iter().map(|one| self.feeds.at(one.feed).channel.epoch());
        let epochs: Vec<u64> = channels.collect();
        ids.retain(|epoch| epochs.contains(&epoch));
    }

    /// In how many of a connection's channels frames have ids.
    fn channels_with_ids(&mut self, slot: u32) -> usize {
        let subscriptions = &self.slab.at(slot).subscriptions;
        subscriptions.iter().filter(|one| self.feeds.get(one.feed).is_some_and(|feed| has_ids(&feed.channel))).count()
    }

    /// Where a connection is in each of its channels whose frames have ids, if that is sure.
    fn places_of(&mut self, slot: u32) -> Vec<Option<Position>> {
        let mut places = Vec::new();
        for index in 0..self.slab.at(slot).subscriptions.len() {
            let subscription = self.slab.at(slot).subscriptions[index];
            let target = self.feeds.at(subscription.feed);
            if !has_ids(&target.channel) {
                continue;
            }
            let (cursor, awaits) = match subscription.is_lagging() {
                true => (subscription.cursor, awaits_state(subscription.mode())),
                false => (target.cursor, false),
            };
            places.push(target.channel.position_at(target.log, cursor).filter(|_| !awaits));
        }
        places
    }

    fn join(&mut self, slot: u32, Seat { watched, seek }: Seat) {
        if self.feed_of(slot, &watched.channel).is_some() {
            return; // it was asked for twice
        }
        if self.slab.at(slot).subscriptions.len() == 1 {
            self.leave_coded(slot); // what comes of the other stands in its window, too
            if !self.gets_publications(slot) {
                return;
            }
        }
        let mut feed = self.feeds.obtain(&watched.channel, watched.log, &watched.watch);
        let connection = self.slab.at(slot);
        if let Some(fd) = connection.transport.socket()
            && !std::mem::replace(&mut connection.transport.is_registered, true)
        {
            self.io.register(slot, fd);
        }
        // Nobody is ahead of the feed; and what is for newcomers alone must lie behind it, else it would pass them by.
        let keyframe_end = match seek.mode {
            Mode::AtKeyframe => watched.channel.frame_end(watched.log, seek.cursor),
            _ => None,
        };
        let reach = keyframe_end.unwrap_or(seek.cursor);
        while self.feeds.at(feed).cursor < reach {
            self.unsubscribe_before(&watched.channel, (watched.log.format, reach));
            feed = self.feeds.obtain(&watched.channel, watched.log, &watched.watch);
            self.fan_out(&[feed], Some(reach));
            // Its last member may have left just now: the next one begins where the log was told that it was, before that.
            feed = self.feeds.obtain(&watched.channel, watched.log, &watched.watch);
            if !self.gets_publications(slot) {
                return self.feeds.forget_if_empty(feed);
            }
        }
        let keeps_pace = !self.slab.at(slot).transport.is_blocked && !self.is_alone(slot);
        let waits = seek.mode == Mode::AwaitingKeyframe;
        let is_at_tail = keeps_pace && self.feeds.at(feed).cursor == seek.cursor && !waits;
        let lagging = (!is_at_tail).then_some(match seek.mode {
            Mode::Replaying if seek.cursor >= self.feeds.at(feed).cursor => Mode::Lagging, // it has missed nothing
            mode => mode,
        });
        self.feeds.join(&mut self.slab, slot, feed, seek.cursor, lagging);
        if is_at_tail {
            self.note_uncoded(slot, feed);
        }
        let index = self.slab.at(slot).subscriptions.len() - 1;
        self.pass_unmatched_at(slot, index);
        self.stats.subscriptions.add(1);
        self.note_presence(slot, &watched.channel, true);
        self.feeds.at(feed).report();
        watched.keep();
        let target = self.feeds.at(feed);
        if target.cursor < target.watch.due() {
            self.again.push(feed); // what came while it was on its way here
        }
        if !is_at_tail && !self.slab.at(slot).transport.is_blocked {
            self.block(slot); // `begin` pumps it
        }
        self.settle_overtaken(feed); // the bounds may have taken from it already what it came for
    }

    /// An edge that asks for a channel again, from a keyframe on, has a newcomer who is to begin with one: it comes to the
    /// edge among the others.
    fn want_snapshot_for_edge(&mut self, slot: u32, channel: &Channel, start: Option<Start>) {
        if start == Some(Start::Keyframe) && self.slab.at(slot).format.framing() == Framing::Edge {
            self.want_snapshot(channel);
        }
    }

    /// Asks the application for a keyframe, if it gives some and was not asked.
    pub(super) fn want_snapshot(&mut self, channel: &Channel) {
        if channel.ask_snapshot() {
            self.ask_application(channel.name());
        }
    }

    /// One application is asked, where several workers serve.
    fn ask_application(&self, name: &str) {
        match self.common.node.get() {
            Some(member) => member.ask_snapshot(name),
            None => self.common.events.push(self.index, Event::SnapshotWanted(name.to_owned(), false)),
        }
    }

    /// There is no keyframe to be had: who waits for one begins where it came, and is told why.
    pub(super) fn start_live(&mut self, channel: &Arc<Channel>, why: &str) {
        for watch in channel.watches_in(self.index) {
            let feed = watch.feed.load(std::sync::atomic::Ordering::Relaxed);
            let Some(target) = self.feeds.get(feed) else { continue };
            let members = target.lagging.iter().map(|member| (member.slot, member.subscription as usize));
            for (slot, index) in members.collect::<Vec<_>>() {
                let Some(connection) = self.slab.get(slot) else { continue };
                let Some(one) = connection.subscriptions.get(index).copied().filter(|one| one.feed == feed) else {
                    continue;
                };
                if one.mode() == Mode::AwaitingKeyframe {
                    self.feeds.go_on(&mut self.slab, slot, index, one.cursor, Mode::Replaying);
                    self.pass_unmatched_at(slot, index);
                    // What a framework's client reads is the framework's to say.
                    if !self.is_adopted(slot) {
                        self.tell_of(slot, why);
                    }
                    self.flush(slot);
                }
            }
        }
    }

    /// Adds to the outbox what went wrong; a hub protocol has no words for it.
    fn tell_of(&mut self, slot: u32, error: &str) {
        match self.slab.at(slot).format {
            format if format.is_event_stream() => {
                self.tell_subscribed(slot, &serde_json::json!({ "error": error }).to_string());
            }
            format if format.hub_protocol().is_none() => self.reply_error(slot, None, error),
            _ => {}
        }
    }

    /// Somebody came to a channel or went, of which the application is told if the channel says so.
    pub(super) fn note_presence(&mut self, slot: u32, channel: &Arc<Channel>, has_joined: bool) {
        if channel.settings().tells_presence {
            self.presence.note(channel, self.id_of(slot), has_joined);
        }
    }

    /// Once a tick: what has come together, if the application has taken what was told before.
    pub(super) fn tell_presence(&mut self) {
        if let Some(visits) = self.presence.take() {
            self.common.events.push(self.index, Event::Presence(visits));
        }
    }

    /// Before anything else is fanned out, so that nothing comes of what was published after it.
    ///
    /// Done again in its order among the commands, for a subscription that one of them makes.
    pub(super) fn unsubscribe_early(&mut self, command: &Command) {
        if let Command::Unsubscribe(id, channel, tails) = command {
            self.unsubscribe_at(*id, channel, tails);
        }
    }

    /// The turn's commands are about to be done.
    pub(super) fn note_unsubscribing(&mut self, commands: &[Command]) {
        debug_assert!(self.unsubscribing.is_empty(), "each was done in its turn");
        for command in commands {
            if let Command::Unsubscribe(id, channel, tails) = command {
                self.unsubscribing.push((*id, Arc::clone(channel), tails.clone()));
            }
        }
    }

    /// The command that stands first for this one is done now.
    pub(super) fn forget_unsubscribing(&mut self, id: ConnectionId, channel: &Arc<Channel>) {
        let is_it = |one: &(ConnectionId, Arc<Channel>, Tails)| one.0 == id && Arc::ptr_eq(&one.1, channel);
        if let Some(at) = self.unsubscribing.iter().position(is_it) {
            self.unsubscribing.remove(at);
        }
    }

    /// A channel is about to be fanned out up to `reach`, for the sake of a newcomer: who leaves it before that, by a command
    /// that has yet to be done, leaves it now.
    pub(super) fn unsubscribe_before(&mut self, channel: &Arc<Channel>, (format, reach): (Format, u64)) {
        for at in 0..self.unsubscribing.len() {
            let (id, left, tails) = &self.unsubscribing[at];
            if Arc::ptr_eq(left, channel) && tails.iter().any(|one| one.format == format && one.end < reach) {
                let (id, tails) = (*id, tails.clone());
                self.unsubscribe_at(id, channel, &tails);
            }
        }
    }

    /// Whether the command unsubscribes a client whose subscription has yet to begin.
    ///
    /// Its beginning is among the same commands, before this one. Both are then done before anything is fanned out.
    pub(super) fn ends_what_has_not_begun(&self, command: &Command) -> bool {
        let Command::Unsubscribe(id, channel, _) = command else { return false };
        self.slot_of(*id).is_some_and(|slot| self.feed_of(slot, channel).is_none())
    }

    /// Who unsubscribed gets what was published until then, which is to the tail of its format, and nothing
    /// after.
    pub(super) fn unsubscribe_at(&mut self, id: ConnectionId, channel: &Arc<Channel>, tails: &Tails) {
        let Some(slot) = self.slot_of(id) else { return };
        if self.awaits_handshake(slot) {
            return self.let_go_of_held(slot, channel);
        }
        let Some(feed) = self.feed_of(slot, channel) else { return };
        let format = self.slab.at(slot).format;
        let log = self.feeds.at(feed).log;
        let tail = tails.iter().find(|one| one.format == format).map_or(0, |one| channel.end_in(log, one));
        // One read of the log may not be all of it.
        while self.feeds.get(feed).is_some_and(|target| target.cursor < tail && target.log == log) {
            self.fan_out(&[feed], Some(tail));
        }
        self.with(id, |shard, slot| shard.unsubscribe(slot, channel));
    }

    /// The feed through which a connection watches a channel.
    fn feed_of(&self, slot: u32, channel: &Arc<Channel>) -> Option<u32> {
        let connection = self.slab.get(slot)?;
        if connection.subscriptions.len() > FEW {
            let mut feeds = channel.feeds_in(connection.format, self.index).into_iter();
            return feeds.find(|&feed| self.feeds.find(connection, slot, feed).is_some());
        }
        let mut feeds = connection.subscriptions.iter().map(|subscription| subscription.feed);
        feeds.find(|&feed| self.feeds.get(feed).is_some_and(|target| Arc::ptr_eq(&target.channel, channel)))
    }

    pub(super) fn unsubscribe(&mut self, slot: u32, channel: &Arc<Channel>) {
        let Some(feed) = self.feed_of(slot, channel) else { return };
        if let Some(index) = self.feeds.find(self.slab.at(slot), slot, feed) {
            self.leave(slot, index);
        }
    }

    /// Ends one of a connection's subscriptions.
    pub(super) fn leave(&mut self, slot: u32, index: usize) {
        let feed = self.slab.at(slot).subscriptions[index].feed;
        let channel = Arc::clone(&self.feeds.at(feed).channel);
        self.note_presence(slot, &channel, false);
        if let Some(ids) = self.slab.at(slot).event_ids.as_deref_mut() {
            ids.forget(&channel);
        }
        self.stats.coded(self.feeds.at(feed).log.coding).inspect(|coded| coded.readers.sub(1));
        self.feeds.leave(&mut self.slab, slot, index);
        self.stats.subscriptions.sub(1);
        self.sweep.note_left(&self.common.registry, &channel);
    }

    pub(super) fn channels_of(&mut self, slot: u32) -> Vec<String> {
        let feeds: Vec<u32> = self.slab.at(slot).subscriptions.iter().map(|subscription| subscription.feed).collect();
        let channels = feeds.into_iter().map(|feed| Arc::clone(&self.feeds.at(feed).channel));
        channels.filter(|channel| channel.is_listed).map(|channel| channel.name().to_owned()).collect()
    }
}

/// Whether frames of this channel have ids.
fn has_ids(channel: &Channel) -> bool {
    channel.is_listed && channel.settings().history_frames > 0
}

/// Who begins with a keyframe has nothing before it, and what it has then is not what came before that.
fn awaits_state(mode: Mode) -> bool {
    matches!(mode, Mode::AtKeyframe | Mode::AwaitingKeyframe)
}
