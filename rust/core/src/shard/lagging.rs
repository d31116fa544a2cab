//! The slow path: sockets that are full. Each subscription is a cursor; nothing is queued for anybody.
use std::os::fd::RawFd;
use std::sync::Arc;

use super::connection::Connection;
use super::event_ids::{Labelled, Taken};
use super::io::{Member, VECTORS_MAX};
use super::transport::Cut;
use super::{Io, Shard};
use crate::channel::{Mode, Overtaken, Policy, Run, Slice};
use crate::messages::Released;
use crate::protocol::Coding;
use crate::ws::CloseCode;

/// A laggard takes at most so much in one call, so that its neighbours get their turn of the cache.
const PUMP_BYTES_MAX: usize = 256 << 10;

/// What a write of the slow path came to.
pub(super) enum Pumped {
    /// Everything that waited went out.
    Drained,
    /// The socket is full; the kernel will say when it is not.
    Full,
    /// The socket broke.
    Broken(i32),
    /// All went out, of one that is adopted and now given up.
    Done,
}

/// One laggard's piece of a log in a write.
struct Piece {
    subscription: usize,
    run: Run,
    from: u64,
    mode: Mode,
    /// When it was read.
    now_ns: u64,
}

impl<I: Io> Shard<I> {
    /// The socket is full: all subscriptions leave the tail, where they are.
    pub(super) fn block(&mut self, slot: u32) {
        self.set_aside(slot, Mode::Lagging);
    }

    /// All subscriptions leave the tail, where they are, and read on in this mode.
    pub(super) fn set_aside(&mut self, slot: u32, mode: Mode) {
        let connection = self.slab.at(slot);
        if connection.transport.is_blocked {
            return;
        }
        connection.transport.is_blocked = true;
        self.stats.lagging.add(1);
        for index in 0..self.slab.at(slot).subscriptions.len() {
            let subscription = self.slab.at(slot).subscriptions[index];
            if !subscription.is_lagging() {
                let cursor = self.feeds.at(subscription.feed).cursor;
                self.feeds.move_to(&mut self.slab, slot, index, Some((cursor, mode)));
            }
        }
    }

    /// Sets where a lagging subscription goes on.
    pub(super) fn set_cursor(&mut self, slot: u32, feed: u32, cursor: u64) {
        let connection = self.slab.at(slot);
        if let Some(index) = self.feeds.find(connection, slot, feed) {
            connection.subscriptions[index].cursor = cursor;
            let target = self.feeds.at(feed);
            target.oldest_lag = target.oldest_lag.min(cursor);
        }
    }

    /// After `taken` bytes of a run that began at `from`: the cursor, at a frame's edge, and the rest of a cut frame. That there is
    /// none the caller may know.
    pub(super) fn place_in(
        &mut self,
        feed: u32,
        run: &Run,
        (taken, is_edge): (usize, bool),
        from: u64,
    ) -> (u64, Option<Box<Cut>>) {
        let mut left = taken;
        let mut cursor = from;
        // What its view leaves out before the next slice is nothing that it waits for.
        let leaves_out = !self.feeds.at(feed).watch.view.is_all();
        let next = |at: usize, end| match leaves_out {
            true => run.slices.get(at + 1).map_or(run.end, Slice::position),
            false => end,
        };
        for (at, slice) in run.slices.iter().enumerate() {
            let length = slice.bytes().len();
            if left >= length {
                left -= length;
                cursor = slice.position() + length as u64;
                continue;
            }
            if left == 0 {
                return (if leaves_out { slice.position() } else { cursor }, None);
            }
            let position = slice.position() + left as u64;
            let target = self.feeds.at(feed);
            if is_edge || target.channel.frame_end(target.log, position - 1) == Some(position) {
                return (position, None);
            }
            // A log that has moved on no longer knows its frames: then the rest of the slice is finished as a whole.
            let slice_end = slice.position() + length as u64;
            let end = target.channel.frame_end(target.log, position).map_or(slice_end, |end| end.min(slice_end));
            let cursor = if end == slice_end { next(at, end) } else { end };
            return (cursor, Some(Box::new(Cut::new(slice.part(position, end)))));
        }
        (run.end, None)
    }

    /// Writes what waits for a connection: the rest of a cut frame, private bytes, then every lagging subscription.
    ///
    /// A socket that breaks is broken off, once and for all: the connection has none afterwards, or is gone.
    pub(super) fn pump(&mut self, slot: u32) {
        let Some(fd) = self.slab.at(slot).transport.socket() else { return }; // it broke before, in this turn or an earlier one
        let pumped = match self.pump_private(slot, fd) {
            Pumped::Drained if self.is_adopted(slot) => self.pump_adopted(slot, fd),
            Pumped::Drained => self.pump_subscriptions(slot, fd),
            other => other,
        };
        match pumped {
            Pumped::Done => self.give_up(slot, Released::Released),
            Pumped::Drained => self.unblock(slot, fd),
            Pumped::Full => self.block(slot),
            Pumped::Broken(errno) => self.break_off(slot, errno),
        }
    }

    fn pump_private(&mut self, slot: u32, fd: RawFd) -> Pumped {
        let connection = self.slab.at(slot);
        while connection.transport.has_unsent() {
            let written = self.io.send_vectors(fd, &connection.transport.unsent());
            if written < 0 {
                return broken_or_full(written);
            }
            self.stats.bytes_out.add(written as u64);
            connection.session.handle_taken(written as usize);
            connection.transport.advance(written as usize);
        }
        self.tell_if_drained(slot);
        Pumped::Drained
    }

    pub(super) fn pump_subscriptions(&mut self, slot: u32, fd: RawFd) -> Pumped {
        let mut budget = PUMP_BYTES_MAX;
        loop {
            if self.awaits_ack(slot) {
                return Pumped::Drained; // its ack brings it here again; what is private goes out meanwhile
            }
            let pieces = self.gather_pieces(slot);
            if pieces.is_empty() {
                return Pumped::Drained;
            }
            let slices = || pieces.iter().flat_map(|piece| piece.run.slices.iter().map(Slice::bytes));
            let is_gzip = self.slab.at(slot).format.is_gzip();
            let labelled = self.slab.at(slot).event_ids.as_deref().map(|ids| match is_gzip {
                true => ids.label_gzip(slices()),
                false => ids.label(slices()),
            });
            let vectors = labelled.as_ref().map_or_else(|| slices().take(VECTORS_MAX).collect(), Labelled::vectors);
            let all: usize = vectors.iter().map(|vector| vector.len()).sum();
            let written = match all {
                0 => 0, // only expired frames
                _ => self.io.send_vectors(fd, &vectors),
            };
            if written < 0 {
                return broken_or_full(written);
            }
            self.stats.bytes_out.add(written as u64);
            self.stats.writes.add(u64::from(all > 0));
            let connection = self.slab.at(slot);
            connection.session.handle_taken(written as usize);
            if let Some(labelled) = &labelled {
                let taken = labelled.taken(written as usize);
                self.move_cursors(slot, &pieces, (taken.frame_bytes, taken.is_edge));
                note_labelled(self.slab.at(slot), taken);
                self.forget_lives(slot);
            } else {
                self.move_cursors(slot, &pieces, (written as usize, false));
            }
            if (written as usize) < all {
                // A part was taken; the kernel may not have been full yet. The next call tells.
                match self.pump_private(slot, fd) {
                    Pumped::Drained => continue,
                    full_or_broken => return full_or_broken,
                }
            }
            budget = budget.saturating_sub(written as usize);
            if budget == 0 {
                self.later.push(self.id_of(slot));
                return Pumped::Full;
            }
        }
    }

    /// What each lagging subscription has to catch up with, up to where its feed is; one that is there joins the tail.
    fn gather_pieces(&mut self, slot: u32) -> Vec<Piece> {
        let now_ns = self.clock.now_ns();
        let count = self.slab.at(slot).subscriptions.len();
        (0..count).filter_map(|index| self.gather_piece(slot, index, now_ns)).collect()
    }

    fn gather_piece(&mut self, slot: u32, index: usize, now_ns: u64) -> Option<Piece> {
        if !self.find_place(slot, index) {
            return None;
        }
        let subscription = self.slab.at(slot).subscriptions[index];
        let target = self.feeds.at(subscription.feed);
        let (mut from, mode) = (subscription.cursor, subscription.mode());
        let to = self.slab.at(slot).session.adopted().and_then(|adopted| adopted.bound(&target.watch));
        let to = to.map_or(target.cursor, |to| to.min(target.cursor));
        let may_pass = target.passes_unmatched(mode);
        if from >= to {
            self.pass_unmatched_at(slot, index);
            return None;
        }
        if self.why_fall_back(slot, index).is_some() || self.has_to_part(slot, index) {
            self.falling.push(self.id_of(slot));
            return None;
        }
        let target = self.feeds.at(subscription.feed);
        let mut run = target.channel.read(target.log, &target.watch.view, (from, to), mode, now_ns);
        if run.head > from {
            if mode == Mode::AtKeyframe && self.skip_overtaken(subscription.feed, slot, index) {
                return self.gather_piece(slot, index, now_ns); // its keyframe is all that is gone
            }
            self.again.push(subscription.feed); // its next turn decides
            return None;
        }
        if may_pass {
            // It waits for nothing before what it is given, whenever the socket takes that.
            from = run.slices.first().map_or(run.end, Slice::position);
            self.slab.at(slot).subscriptions[index].cursor = from;
        }
        if !run.exclusions.is_empty() {
            run.exclude(self.id_of(slot));
        }
        Some(Piece { subscription: index, run, from, mode, now_ns })
    }

    /// Whether a subscription lags and has a place to go on.
    fn find_place(&mut self, slot: u32, index: usize) -> bool {
        let subscription = self.slab.at(slot).subscriptions[index];
        let waits = subscription.mode() == Mode::AwaitingKeyframe;
        subscription.is_lagging() && (!waits || self.find_keyframe(slot, index))
    }

    /// One that waits for a keyframe goes on there, once its shard has come past it.
    fn find_keyframe(&mut self, slot: u32, index: usize) -> bool {
        let subscription = self.slab.at(slot).subscriptions[index];
        let target = self.feeds.at(subscription.feed);
        let from = subscription.cursor;
        let found = target.channel.keyframe_from(target.log, &target.watch.view, from, self.clock.now_ns());
        let Some((cursor, lost)) = found.filter(|found| found.0 < target.cursor) else { return false };
        self.feeds.go_on(&mut self.slab, slot, index, cursor, Mode::AtKeyframe);
        self.count_lost(subscription.feed, (from, cursor), lost);
        true
    }

    /// One of a feed's subscribers went from one place to another and lost what lies between.
    fn count_lost(&mut self, feed: u32, (from, to): (u64, u64), lost: u64) {
        let policy = self.feeds.at(feed).channel.settings().policy;
        if matches!(policy, Policy::Keyframe | Policy::Drop) {
            self.stats.skipped[policy as usize].add(lost); // elsewhere it is a newcomer that waited
        }
        self.note_passed(feed, (from, to), None, 1);
    }

    /// So much of these pieces went out, which ends at a frame's edge if it `is_edge`; else that is looked up.
    fn move_cursors(&mut self, slot: u32, pieces: &[Piece], (written, is_edge): (usize, bool)) {
        let mut left = written;
        for piece in pieces {
            let feed = self.slab.at(slot).subscriptions[piece.subscription].feed;
            let all = piece.run.bytes();
            let taken = left.min(all);
            left -= taken;
            let (cursor, cut) = if taken == all {
                (piece.run.end, None)
            } else {
                self.place_in(feed, &piece.run, (taken, is_edge), piece.from)
            };
            self.count_read(feed, piece, cursor);
            let target = self.feeds.at(feed);
            let (feed_cursor, is_all) = (target.cursor, target.cursor >= target.watch.due());
            if self.is_stateful(slot) {
                let upto = |slice: &Slice| {
                    let (start, end) = (slice.position(), slice.position() + slice.bytes().len() as u64);
                    (start < cursor).then(|| slice.part(start, end.min(cursor)))
                };
                self.note_written(slot, piece.run.slices.iter().filter_map(upto));
            }
            let connection = self.slab.at(slot);
            let subscription = &mut connection.subscriptions[piece.subscription];
            subscription.cursor = cursor;
            if subscription.mode() == Mode::AtKeyframe && cursor > piece.from {
                subscription.set_mode(Mode::Replaying);
            }
            // It has all that it missed: from now on it is as any other. Where one read of the log was not all of it, one that
            // keeps pace is here, too, and gets the rest.
            if subscription.mode() == Mode::Replaying && cursor >= feed_cursor && is_all {
                subscription.set_mode(Mode::Lagging);
            }
            if cut.is_some() {
                connection.transport.cut = cut;
            }
            if taken == all {
                self.pass_unmatched_at(slot, piece.subscription); // else it stands where it goes on
            }
        }
    }

    /// Counts what one that lags has got up to `cursor`, and what it went past.
    fn count_read(&mut self, feed: u32, piece: &Piece, cursor: u64) {
        let target = self.feeds.at(feed);
        let policy = target.channel.settings().policy as usize;
        let coded = self.stats.coded(target.log.coding);
        let (frames, expired, replaced) = if cursor == piece.run.end {
            coded.inspect(|coded| coded.count(&piece.run, 1));
            (piece.run.frames, piece.run.expired, piece.run.replaced)
        } else {
            let range = (piece.from, cursor);
            let read = target.channel.read(target.log, &target.watch.view, range, piece.mode, piece.now_ns);
            coded.inspect(|coded| coded.count(&read, 1));
            (target.channel.frames_until(target.log, &piece.run.slices, cursor), read.expired, read.replaced)
        };
        self.stats.deliveries.add(frames);
        self.stats.expired.add(expired);
        self.stats.skipped[policy].add(replaced);
        self.note_passed(feed, (piece.from, cursor), Some(&piece.run), 1);
    }

    /// Takes out what a connection without a socket is behind, about a write's worth.
    pub(super) fn take_behind(&mut self, slot: u32, out: &mut Vec<u8>) {
        let pieces = self.gather_pieces(slot);
        let start = out.len();
        for slice in pieces.iter().flat_map(|piece| &piece.run.slices) {
            out.extend_from_slice(slice.bytes());
        }
        let taken = out.len() - start;
        self.stats.writes.add(u64::from(taken > 0));
        self.move_cursors(slot, &pieces, (taken, false));
    }

    /// Whether a connection is written to by the slow path alone: its messages have numbers, or its events ids of its own.
    pub(super) fn is_alone(&self, slot: u32) -> bool {
        self.is_stateful(slot) || self.slab.get(slot).is_some_and(|connection| connection.event_ids.is_some())
    }

    /// Nothing waits any more: back to the tails, or on with the end of the connection.
    pub(super) fn unblock(&mut self, slot: u32, fd: RawFd) {
        let connection = self.slab.at(slot);
        if std::mem::take(&mut connection.transport.is_blocked) {
            self.stats.lagging.sub(1);
        }
        let count = if self.is_alone(slot) { 0 } else { self.slab.at(slot).subscriptions.len() };
        for index in 0..count {
            let subscription = self.slab.at(slot).subscriptions[index];
            let waits = subscription.mode() == Mode::AwaitingKeyframe;
            let is_there = subscription.cursor == self.feeds.at(subscription.feed).cursor;
            if subscription.is_lagging() && is_there && !waits {
                self.feeds.move_to(&mut self.slab, slot, index, None);
                self.note_uncoded(slot, subscription.feed);
            }
        }
        if self.slab.at(slot).session.is_over() {
            self.io.shut_down_writing(fd);
        }
    }

    /// Of a feed whose view is not all: who waits for nothing of the log before this turn's end but what the view leaves out
    /// goes past that. So the bounds take from nobody what is not for him.
    pub(super) fn pass_unmatched(&mut self, feed: u32, from: u64, run: &Run) {
        let target = self.feeds.at(feed);
        if target.lagging.is_empty() || target.watch.view.is_all() {
            return;
        }
        let end_of = |slice: &Slice| slice.position() + slice.bytes().len() as u64;
        for &Member { slot, subscription, .. } in &target.lagging {
            let Some(connection) = self.slab.get_mut(slot) else { continue };
            let Some(subscription) = connection.subscriptions.get_mut(subscription as usize) else { continue };
            let cursor = subscription.cursor;
            if (from..run.end).contains(&cursor) && target.passes_unmatched(subscription.mode()) {
                let next = run.slices.get(run.slices.partition_point(|slice| end_of(slice) <= cursor));
                subscription.cursor = next.map_or(run.end, |next| next.position().max(cursor));
            }
        }
        self.learn_oldest_lag(feed);
    }

    /// This subscription waits for nothing but what its view has, of what its feed is past.
    pub(super) fn pass_unmatched_at(&mut self, slot: u32, index: usize) {
        let subscription = self.slab.at(slot).subscriptions[index];
        let target = self.feeds.at(subscription.feed);
        let (from, mode) = (subscription.cursor, subscription.mode());
        if !subscription.is_lagging() || !target.passes_unmatched(mode) || from >= target.cursor {
            return;
        }
        let range = (from, target.cursor);
        let run = target.channel.read(target.log, &target.watch.view, range, mode, self.clock.now_ns());
        if run.head > from {
            return self.again.push(subscription.feed); // its next turn decides
        }
        self.slab.at(slot).subscriptions[index].cursor = run.slices.first().map_or(run.end, Slice::position);
    }

    /// Looks again where the slowest of a feed is, so that the log can let go of what is before it.
    pub(super) fn learn_oldest_lag(&mut self, feed: u32) {
        let Some(target) = self.feeds.get(feed) else { return };
        let oldest = target.lagging.iter().filter_map(|member| {
            let connection = self.slab.get(member.slot)?;
            Some(connection.subscriptions.get(member.subscription as usize)?.cursor)
        });
        let oldest = oldest.min().unwrap_or(target.cursor).min(target.cursor);
        self.feeds.at(feed).oldest_lag = oldest;
    }

    /// Does as the policy says with the laggards of a feed whose cursor the log no longer holds, and learns the oldest
    /// cursor of the rest.
    pub(super) fn settle_overtaken(&mut self, feed: u32) {
        let Some(target) = self.feeds.get(feed).filter(|target| !target.lagging.is_empty()) else { return };
        let log = target.log;
        let bound = target.channel.may_be_overtaken_before(log);
        if bound <= target.oldest_lag {
            return;
        }
        let (channel, tail) = (target.channel.clone(), target.cursor);
        let lagging: Vec<(u32, u32)> = target.lagging.iter().map(|m| (m.slot, m.subscription)).collect();
        let is_overtaken = |&(slot, index): &(u32, u32)| {
            self.slab.get(slot).is_some_and(|connection| {
                let subscription = connection.subscriptions[index as usize];
                let cursor = subscription.cursor;
                cursor < bound.min(tail) && channel.is_overtaken(log, cursor, subscription.mode()) // which locks the channel
            })
        };
        let overtaken: Vec<(u32, u32)> = lagging.into_iter().filter(is_overtaken).collect();
        if log.coding != Coding::Plain {
            let overtaken = overtaken.into_iter().map(|(slot, _)| self.id_of(slot));
            return self.falling.extend(overtaken.collect::<Vec<_>>());
        }
        let mut closing = Vec::new();
        for (slot, index) in overtaken {
            if !self.skip_overtaken(feed, slot, index as usize) {
                let cursor = self.slab.at(slot).subscriptions[index as usize].cursor;
                let why = if channel.has_gap_at(log, cursor) { "publications are missing in" } else { "too slow for" };
                closing.push((slot, format!("{why} channel {}", channel.name())));
            } else if !self.slab.at(slot).transport.is_blocked {
                self.pump_later(slot); // its socket has room, so the kernel will not tell of it
            }
        }
        self.stats.overtaken.add(closing.len() as u64);
        for (slot, reason) in closing {
            self.close(slot, CloseCode::TRY_AGAIN_LATER, &reason);
        }
        self.learn_oldest_lag(feed);
    }

    /// Has a connection looked at in this turn yet; those without a socket of their own are asked for what is new.
    fn pump_later(&mut self, slot: u32) {
        if self.slab.at(slot).session.writes_publications() {
            self.later.push(self.id_of(slot));
        }
    }

    /// An overtaken subscription goes on where the policy says. False if that is nowhere.
    fn skip_overtaken(&mut self, feed: u32, slot: u32, index: usize) -> bool {
        let subscription = self.slab.at(slot).subscriptions[index];
        let target = self.feeds.at(feed);
        let (channel, log, from, tail) = (target.channel.clone(), target.log, subscription.cursor, target.cursor);
        let now_ns = self.clock.now_ns();
        let watch = Arc::clone(&target.watch);
        let outcome = channel.overtaken(log, &watch.view, (from, subscription.mode()), tail, now_ns);
        let Overtaken::Skip(cursor, mode, lost) = outcome else { return false };
        self.feeds.go_on(&mut self.slab, slot, index, cursor, mode);
        self.count_lost(feed, (from, cursor), lost);
        if mode == Mode::AwaitingKeyframe && channel.keyframe_from(log, &watch.view, cursor, now_ns).is_none() {
            self.want_snapshot(&channel);
        }
        true
    }
}

/// Where an event stream is now in its channels. What belongs behind a frame that was cut goes out next.
pub(super) fn note_labelled(connection: &mut Connection, taken: Taken) {
    let Some(ids) = connection.event_ids.as_deref_mut() else { return };
    if connection.format.is_gzip() && taken.is_cut {
        let record = if connection.transport.cut.is_some() { ids.record() } else { Vec::new() };
        return connection.transport.outbox.put_first(&record);
    }
    let cut = connection.transport.cut.as_deref_mut().filter(|_| taken.is_cut);
    let rest = ids.note(taken, cut.as_deref().map(Cut::waiting));
    if let Some(cut) = cut {
        cut.drop_last();
    }
    connection.transport.outbox.put_first(&rest);
}

pub(super) fn broken_or_full(result: isize) -> Pumped {
    match -result as i32 {
        libc::EAGAIN => Pumped::Full,
        libc::EINTR => Pumped::Full,
        errno => Pumped::Broken(errno),
    }
}
