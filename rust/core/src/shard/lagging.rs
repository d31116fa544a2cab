//! The slow path: sockets that are full. Each subscription is a cursor; nothing is queued for anybody.

use super::Shard;
use super::connection::{Connection, Cut, Phase};
use super::socket::{self, VECTORS_MAX};
use crate::channel::{Run, Slice};
use crate::ws::CloseCode;

/// A laggard takes at most so much in one call, so that its neighbours get their turn of the cache.
const PUMP_BYTES_MAX: usize = 256 << 10;

/// What a write of the slow path came to.
enum Pumped {
    /// Everything that waited went out.
    Drained,
    /// The socket is full; the kernel will say when it is not.
    Full,
    /// The socket broke.
    Broken(i32),
}

/// One laggard's piece of a log in a write.
struct Piece {
    subscription: usize,
    run: Run,
    from: u64,
    /// When it was read.
    now_ns: u64,
}

impl Shard {
    /// The socket is full: all subscriptions leave the tail, where they are.
    pub(super) fn block(&mut self, slot: u32) {
        let connection = self.slab.at(slot);
        if connection.is_blocked {
            return;
        }
        connection.is_blocked = true;
        self.stats.lagging.add(1);
        for index in 0..self.slab.at(slot).subscriptions.len() {
            let subscription = self.slab.at(slot).subscriptions[index];
            if !subscription.is_lagging() {
                let cursor = self.feeds.at(subscription.feed).cursor;
                self.feeds.move_to(&mut self.slab, slot, index, Some(cursor));
            }
        }
    }

    /// Sets where a lagging subscription goes on.
    pub(super) fn set_cursor(&mut self, slot: u32, feed: u32, cursor: u64) {
        let connection = self.slab.at(slot);
        if let Some(index) = connection.find_feed(feed) {
            connection.subscriptions[index].cursor = cursor;
            let target = self.feeds.at(feed);
            target.oldest_lag = target.oldest_lag.min(cursor);
        }
    }

    /// After `taken` bytes of a run that began at `from`: the cursor, at a frame's edge, and the rest of a cut frame.
    pub(super) fn place_in(&mut self, feed: u32, run: &Run, taken: usize, from: u64) -> (u64, Option<Box<Cut>>) {
        let mut left = taken;
        let mut cursor = from;
        for slice in &run.slices {
            let length = slice.bytes().len();
            if left >= length {
                left -= length;
                cursor = slice.position() + length as u64;
                continue;
            }
            if left == 0 {
                return (cursor, None);
            }
            let position = slice.position() + left as u64;
            let target = self.feeds.at(feed);
            let is_edge = target.channel.frame_end(target.format, position - 1) == Some(position);
            if is_edge {
                return (position, None);
            }
            // A log that has moved on no longer knows its frames: then the rest of the slice is finished as a whole.
            let slice_end = slice.position() + length as u64;
            let end = target.channel.frame_end(target.format, position).map_or(slice_end, |end| end.min(slice_end));
            return (end, Some(Box::new(Cut::new(slice.part(position, end)))));
        }
        (run.end, None)
    }

    /// Writes what waits for a connection: the rest of a cut frame, private bytes, then every lagging subscription.
    pub(super) fn pump(&mut self, slot: u32) {
        let pumped = match self.pump_private(slot) {
            Pumped::Drained => self.pump_subscriptions(slot),
            other => other,
        };
        match pumped {
            Pumped::Drained => self.unblock(slot),
            Pumped::Full => self.block(slot),
            Pumped::Broken(errno) => self.break_off(slot, errno),
        }
    }

    fn pump_private(&mut self, slot: u32) -> Pumped {
        let connection = self.slab.at(slot);
        while connection.cut.is_some() || !connection.outbox.is_empty() {
            let cut = connection.cut.as_deref().map_or(&[][..], Cut::waiting);
            let pieces = [cut, connection.outbox.waiting()];
            let written = socket::send_vectors(connection.raw_fd(), &pieces);
            if written < 0 {
                return broken_or_full(written);
            }
            self.stats.bytes_out.add(written as u64);
            connection.awaits_pong &= written == 0 || !matches!(connection.phase, Phase::Streaming);
            advance_private(connection, written as usize);
        }
        self.tell_if_drained(slot);
        Pumped::Drained
    }

    fn pump_subscriptions(&mut self, slot: u32) -> Pumped {
        let mut budget = PUMP_BYTES_MAX;
        loop {
            if self.awaits_ack(slot) {
                return Pumped::Drained; // its ack brings it here again; what is private goes out meanwhile
            }
            let pieces = self.gather_pieces(slot);
            if pieces.is_empty() {
                return Pumped::Drained;
            }
            let vectors: Vec<&[u8]> =
                pieces.iter().flat_map(|piece| piece.run.slices.iter().map(Slice::bytes)).take(VECTORS_MAX).collect();
            let all: usize = vectors.iter().map(|vector| vector.len()).sum();
            let written = match all {
                0 => 0, // only expired frames
                _ => socket::send_vectors(self.slab.at(slot).raw_fd(), &vectors),
            };
            if written < 0 {
                return broken_or_full(written);
            }
            self.stats.bytes_out.add(written as u64);
            self.stats.writes.add(u64::from(all > 0));
            let connection = self.slab.at(slot);
            connection.awaits_pong &= written == 0 || !matches!(connection.phase, Phase::Streaming);
            self.move_cursors(slot, &pieces, written as usize);
            if (written as usize) < all {
                // A part was taken; the kernel may not have been full yet. The next call tells.
                if let Pumped::Drained = self.pump_private(slot) {
                    continue;
                }
                return Pumped::Full;
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
        let mut pieces = Vec::new();
        for index in 0..self.slab.at(slot).subscriptions.len() {
            let subscription = self.slab.at(slot).subscriptions[index];
            if !subscription.is_lagging() {
                continue;
            }
            let target = self.feeds.at(subscription.feed);
            let from = subscription.cursor;
            if from < target.cursor {
                let mut run = target.channel.read(target.format, from, Some(target.cursor), now_ns);
                if run.head > from {
                    // Overtaken: the next turn of the feed closes it.
                    continue;
                }
                if !run.exclusions.is_empty() {
                    run.exclude(self.id_of(slot));
                }
                pieces.push(Piece { subscription: index, run, from, now_ns });
            }
        }
        pieces
    }

    fn move_cursors(&mut self, slot: u32, pieces: &[Piece], written: usize) {
        let mut left = written;
        for piece in pieces {
            let feed = self.slab.at(slot).subscriptions[piece.subscription].feed;
            let all: usize = piece.run.slices.iter().map(|slice| slice.bytes().len()).sum();
            let taken = left.min(all);
            left -= taken;
            let (cursor, cut) =
                if taken == all { (piece.run.end, None) } else { self.place_in(feed, &piece.run, taken, piece.from) };
            let target = self.feeds.at(feed);
            let done = target.channel.read(target.format, piece.from, Some(cursor), piece.now_ns);
            self.stats.deliveries.add(done.frames);
            self.stats.expired.add(done.expired);
            if self.is_stateful(slot) {
                let upto = |slice: &Slice| {
                    let (start, end) = (slice.position(), slice.position() + slice.bytes().len() as u64);
                    (start < cursor).then(|| slice.part(start, end.min(cursor)))
                };
                self.note_written(slot, piece.run.slices.iter().filter_map(upto));
            }
            let connection = self.slab.at(slot);
            connection.subscriptions[piece.subscription].cursor = cursor;
            if cut.is_some() {
                connection.cut = cut;
            }
        }
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
        self.move_cursors(slot, &pieces, taken);
    }

    /// Nothing waits any more: back to the tails, or on with the end of the connection.
    fn unblock(&mut self, slot: u32) {
        let connection = self.slab.at(slot);
        if std::mem::take(&mut connection.is_blocked) {
            self.stats.lagging.sub(1);
        }
        let count = if self.is_stateful(slot) { 0 } else { self.slab.at(slot).subscriptions.len() };
        for index in 0..count {
            let subscription = self.slab.at(slot).subscriptions[index];
            if subscription.is_lagging() && subscription.cursor == self.feeds.at(subscription.feed).cursor {
                self.feeds.move_to(&mut self.slab, slot, index, None);
            }
        }
        if matches!(self.slab.at(slot).phase, Phase::Ending) {
            socket::shut_down_writing(self.slab.at(slot).raw_fd());
        }
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

    /// Closes the laggards of a feed whose cursor the log no longer holds, and learns the oldest cursor of the rest.
    pub(super) fn close_overtaken(&mut self, feed: u32, head: u64) {
        let target = self.feeds.at(feed);
        if target.lagging.is_empty() || head <= target.oldest_lag {
            return;
        }
        let channel = target.channel.clone();
        let lagging: Vec<(u32, u32)> = target.lagging.iter().map(|m| (m.slot, m.subscription)).collect();
        let mut oldest = target.cursor;
        let mut overtaken = Vec::new();
        for (slot, index) in lagging {
            let cursor = self.slab.at(slot).subscriptions[index as usize].cursor;
            if cursor < head {
                overtaken.push(slot);
            } else {
                oldest = oldest.min(cursor);
            }
        }
        self.feeds.at(feed).oldest_lag = oldest;
        self.stats.overtaken.add(overtaken.len() as u64);
        for slot in overtaken {
            let reason = format!("too slow for channel {}", channel.name());
            self.close(slot, CloseCode::TRY_AGAIN_LATER, &reason);
        }
    }
}

fn broken_or_full(result: isize) -> Pumped {
    match -result as i32 {
        libc::EAGAIN => Pumped::Full,
        libc::EINTR => Pumped::Full,
        errno => Pumped::Broken(errno),
    }
}

fn advance_private(connection: &mut Connection, written: usize) {
    let mut left = written;
    if let Some(cut) = connection.cut.as_deref_mut() {
        let taken = left.min(cut.waiting().len());
        cut.advance(taken);
        left -= taken;
        if cut.waiting().is_empty() {
            connection.cut = None;
        }
    }
    connection.outbox.advance(left);
}
