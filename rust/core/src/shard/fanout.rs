//! The fast path: one slice of the log to everyone at its tail; several dirty channels joined in one write a connection.
use super::io::{Member, Short, VECTORS_MAX, Write};
use super::sampling::Marks;
use super::{Io, Shard};
use crate::channel::{Mode, Policy, Run, Slice};
use crate::messages::ConnectionId;

/// One dirty log in this turn.
pub(super) struct Turn {
    feed: u32,
    run: Run,
    /// Where its feed was before.
    from: u64,
    /// When it was read: what expires later is still sent.
    now_ns: u64,
    /// When parts of its receivers had been written to.
    marks: Marks,
}

impl Turn {
    pub(super) fn feed(&self) -> u32 {
        self.feed
    }

    pub(super) fn from(&self) -> u64 {
        self.from
    }
}

impl<I: Io> Shard<I> {
    /// Writes what is new in these feeds to everyone at their tails. A feed that is gone or has nothing new is skipped.
    ///
    /// With `to` no further than that byte, otherwise as far as is due.
    pub(super) fn fan_out(&mut self, dirty: &[u32], to: Option<u64>) {
        let now_ns = self.clock.now_ns();
        let mut turns = Vec::with_capacity(dirty.len());
        let mut without = Vec::new();
        for &feed in dirty {
            let Some(target) = self.feeds.get(feed) else { continue };
            let to = to.unwrap_or_else(|| target.watch.due());
            let run = target.channel.read(target.log, &target.watch.view, (target.cursor, to), Mode::Live, now_ns);
            if run.end > target.cursor {
                let from = target.cursor;
                let target = self.feeds.at(feed);
                target.cursor = run.end;
                target.is_in_turn = true;
                let marks = Marks::new(target.at_tail.len() + target.lagging.len());
                turns.push(Turn { feed, run, from, now_ns, marks });
            } else {
                without.push((feed, run.head));
            }
        }
        let mut set_aside = self.set_aside_excluded(&turns);
        if self.feeds.sharing > 0 {
            self.set_aside_mixed(&turns, &mut set_aside);
        }
        if turns.len() > 1 && self.feeds.sharing > 0 {
            self.write_joined(&turns);
        } else {
            for turn in &mut turns {
                self.write_alike(turn);
            }
        }
        for turn in &turns {
            self.finish(turn);
        }
        for (feed, head) in without {
            self.settle_before(feed, head);
        }
        for id in set_aside {
            self.with(id, |shard, slot| shard.pump_if_open(slot));
        }
        self.settle_codings(turns.iter().map(Turn::feed));
    }

    fn pump_if_open(&mut self, slot: u32) {
        if !self.slab.at(slot).transport.is_blocked {
            self.pump(slot);
        }
    }

    /// A feed had nothing new, but where publications are missing up to `head`: it goes past that, and who stood before it does
    /// as the policy says.
    fn settle_before(&mut self, feed: u32, head: u64) {
        let Some(target) = self.feeds.get(feed) else { return };
        let (from, mut moved) = (target.cursor, Vec::new());
        if from < head {
            for member in target.at_tail.clone() {
                let index = member.subscription as usize;
                self.feeds.move_to(&mut self.slab, member.slot, index, Some((from, Mode::Lagging)));
                moved.push(self.id_of(member.slot));
            }
            let target = self.feeds.at(feed);
            (target.cursor, target.oldest_lag) = (head, target.oldest_lag.min(from));
            self.again.push(feed); // what follows
        }
        self.settle_overtaken(feed);
        for id in moved {
            self.with(id, |shard, slot| shard.pump_if_open(slot)); // back to the tail, if it may go on
        }
        self.write_one_by_one(feed);
        if self.feeds.get(feed).is_some() {
            self.feeds.at(feed).report();
        }
    }

    /// Members that some frame is not for leave the tail: the slow path writes the others to them, every one.
    fn set_aside_excluded(&mut self, turns: &[Turn]) -> Vec<ConnectionId> {
        let mut set_aside = Vec::new();
        for turn in turns {
            for exclusion in &turn.run.exclusions {
                for &id in exclusion.excluded.iter().filter(|id| id.shard() == self.index) {
                    let Some(slot) = self.slot_of(id) else { continue };
                    let Some(index) = self.feeds.find(self.slab.at(slot), slot, turn.feed) else { continue };
                    if !self.slab.at(slot).subscriptions[index].is_lagging() {
                        self.feeds.move_to(&mut self.slab, slot, index, Some((turn.from, Mode::Replaying)));
                        set_aside.push(id);
                    }
                }
            }
        }
        set_aside
    }

    /// Everyone at the tail of one feed gets the same bytes; in each turn another one is the first.
    fn write_alike(&mut self, turn: &mut Turn) {
        let mut shorts = std::mem::take(&mut self.shorts);
        let target = self.feeds.at(turn.feed);
        let count = target.at_tail.len() as u64;
        let start = target.begin_turn(target.at_tail.len());
        let members = &target.at_tail;
        let (io, clock) = (&mut self.io, self.clock);
        match turn.run.slices.as_slice() {
            [] => {}
            [slice] => turn.marks.write_from(start, members, (io, clock), |io, members| {
                io.send_all(members, slice.bytes(), &mut shorts);
            }),
            slices => {
                let vectors: Vec<&[u8]> = slices.iter().map(Slice::bytes).collect();
                let (bytes, vectors_count) = (turn.run.bytes(), vectors.len() as u32);
                let write = |member: &Member| {
                    let Member { fd, slot, .. } = *member;
                    Write { fd, slot, vectors_start: 0, vectors_count, bytes }
                };
                turn.marks.write_from(start, members, (io, clock), |io, members| {
                    let writes: Vec<Write> = members.iter().map(write).collect();
                    io.write_batch(&writes, &vectors, &mut shorts);
                });
            }
        }
        let turn = &*turn;
        self.count_writes(turn, count);
        for short in shorts.drain(..) {
            self.lag_behind(short, std::slice::from_ref(turn), std::iter::once(0));
        }
        self.shorts = shorts;
    }

    /// Each connection gets everything that is new for it in one write.
    fn write_joined(&mut self, turns: &[Turn]) {
        let mut joiner = std::mem::take(&mut self.joiner);
        let mut shorts = std::mem::take(&mut self.shorts);
        let members = turns
            .iter()
            .enumerate()
            .rev() // a chain gives the last first
            .map(|(index, turn)| {
                (
                    index as u32,
                    self.feeds.get(turn.feed).expect("turns are made of feeds that exist").at_tail.as_slice(),
                )
            });
        joiner.gather(self.slab.slots(), members);
        for turn in turns {
            let count = self.feeds.at(turn.feed).at_tail.len() as u64;
            self.count_sent(turn, count);
        }
        let mut vectors: Vec<&[u8]> = Vec::new();
        let mut writes = Vec::with_capacity(joiner.touched.len());
        let mut postponed = Vec::new();
        for member in &joiner.touched {
            let start = vectors.len();
            for turn in joiner.chain(member.slot) {
                vectors.extend(turns[turn as usize].run.slices.iter().map(Slice::bytes));
            }
            let own = &vectors[start..];
            if own.len() > VECTORS_MAX {
                postponed.push(member.slot);
                vectors.truncate(start);
            } else if !own.is_empty() {
                writes.push(Write {
                    fd: member.fd,
                    slot: member.slot,
                    vectors_start: start as u32,
                    vectors_count: own.len() as u32,
                    bytes: own.iter().map(|vector| vector.len()).sum(),
                });
            }
        }
        // In each turn another one is the first.
        let start = turns.first().map_or(0, |turn| self.feeds.at(turn.feed).begin_turn(writes.len()));
        for part in [&writes[start..], &writes[..start]] {
            self.io.write_batch(part, &vectors, &mut shorts);
        }
        self.stats.writes.add(writes.len() as u64);
        for short in shorts.drain(..) {
            self.lag_behind(short, turns, joiner.chain(short.slot));
        }
        for slot in postponed {
            self.write_in_calls(slot, turns, joiner.chain(slot));
        }
        self.shorts = shorts;
        self.joiner = joiner;
    }

    fn count_writes(&mut self, turn: &Turn, members: u64) {
        if turn.run.bytes() > 0 {
            self.stats.writes.add(members);
        }
        self.count_sent(turn, members);
    }

    /// A turn goes out to so many; what one of them does not take is taken back.
    fn count_sent(&mut self, turn: &Turn, members: u64) {
        self.stats.bytes_out.add(turn.run.bytes() as u64 * members);
        self.note_passed(turn.feed, (turn.from, turn.run.end), Some(&turn.run), members);
        self.note_load(turn.feed, turn.run.bytes());
        if let Some(coded) = self.stats.coded(self.feeds.at(turn.feed).log.coding) {
            coded.count(&turn.run, members);
        }
        self.stats.deliveries.add(turn.run.frames * members);
        self.stats.expired.add(turn.run.expired * members);
        self.stats.skipped[Policy::Latest as usize].add(turn.run.replaced * members); // of nothing else, at the tail
        if turn.run.bytes() > 0 && turn.run.exclusions.is_empty() {
            self.feeds.at(turn.feed).written = (turn.from, self.timers.tick());
        }
    }

    /// One member's share of a turn did not go out after all.
    fn count_unsent(&mut self, turn: &Turn) {
        self.take_back_coded(turn.feed, &turn.run);
        self.stats.bytes_out.sub(turn.run.bytes() as u64);
        self.stats.deliveries.sub(turn.run.frames);
        self.stats.expired.sub(turn.run.expired);
        self.stats.skipped[Policy::Latest as usize].sub(turn.run.replaced);
    }

    fn take_back_coded(&mut self, feed: u32, run: &Run) {
        let coded = self.feeds.get(feed).and_then(|target| self.stats.coded(target.log.coding));
        coded.inspect(|coded| coded.take_back(run));
    }

    /// A connection has more pieces than one call takes. It keeps pace all the same: the slow path writes every one to it.
    fn write_in_calls(&mut self, slot: u32, turns: &[Turn], chain: impl Iterator<Item = u32>) {
        for turn in chain {
            let turn = &turns[turn as usize];
            self.count_unsent(turn);
            if let Some(index) = self.feeds.find(self.slab.at(slot), slot, turn.feed) {
                self.feeds.move_to(&mut self.slab, slot, index, Some((turn.from, Mode::Replaying)));
            }
        }
        self.pump(slot);
    }

    /// A connection took only a part: find the cursor of each of its turns, keep the rest of a cut frame, and let it lag.
    ///
    /// `chain` are the turns in the order in which they were written.
    fn lag_behind(&mut self, short: Short, turns: &[Turn], chain: impl Iterator<Item = u32>) {
        if let Some(errno) = short.error {
            for turn in chain {
                self.count_unsent(&turns[turn as usize]);
            }
            self.break_off(short.slot, errno);
            return;
        }
        self.block(short.slot);
        let mut left = short.written;
        for turn in chain {
            let turn = &turns[turn as usize];
            let all = turn.run.bytes();
            let taken = left.min(all);
            left -= taken;
            self.stats.bytes_out.sub((all - taken) as u64);
            if taken == all {
                continue;
            }
            let (cursor, cut) = self.place_in(turn.feed, &turn.run, (taken, false), turn.from);
            // What was counted as delivered to it is counted when the rest goes out.
            let target = self.feeds.at(turn.feed);
            let range = (cursor, turn.run.end);
            let rest = target.channel.read(target.log, &target.watch.view, range, Mode::Live, turn.now_ns);
            self.take_back_coded(turn.feed, &rest);
            self.stats.deliveries.sub(rest.frames);
            self.stats.expired.sub(rest.expired);
            self.stats.skipped[Policy::Latest as usize].sub(rest.replaced);
            self.set_cursor(short.slot, turn.feed, cursor);
            if cut.is_some() {
                self.slab.at(short.slot).transport.cut = cut;
            }
        }
        // The kernel says when there is room, but only to those whom it has refused: so ask once more.
        self.pump(short.slot);
    }

    /// The turn is over for one feed: laggards that the bound has overtaken go, the writers hear how far we are.
    fn finish(&mut self, turn: &Turn) {
        if self.feeds.get(turn.feed).is_none() {
            return;
        }
        self.pass_unmatched(turn.feed, turn.from, &turn.run);
        self.settle_overtaken(turn.feed);
        self.write_one_by_one(turn.feed);
        if turn.run.frames > 0 && self.feeds.get(turn.feed).is_some() {
            self.sample(turn.feed, turn.run.end, turn.run.published_ns, turn.marks);
        }
        let now_ns = self.clock.now_ns();
        if turn.run.frames > 0 {
            self.stats.count_completion(now_ns.saturating_sub(turn.run.published_ns));
        }
        if self.feeds.get(turn.feed).is_some() {
            let target = self.feeds.at(turn.feed);
            target.is_in_turn = false;
            target.report();
            if target.cursor < target.watch.due() {
                self.again.push(turn.feed);
            }
        }
    }
}
