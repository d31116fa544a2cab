//! One client: its socket, what it asked for, and what it makes of the bytes that came.
use std::collections::VecDeque;
use std::os::fd::RawFd;

use super::account::Account;
use super::hold::Hold;
use super::list::List;
use super::promise::{Losses, Promise, Standing, When};
use super::seating::Seating;
use super::sieve::Sieve;
use super::turn::Turn;
use super::wire::{self, Item, Wire};
use crate::channel::{Origin, Policy};
use crate::messages::{ConnectionId, Released};
use crate::position::Position;
use crate::shard::simulated::SeenSubscription;

/// By account: its channel, where it stood, and whether its shard was told that there is no keyframe.
type Before = std::rc::Rc<[(usize, Option<Standing>, bool)]>;

/// The turn in which something came.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    turn: usize,
    bytes: usize,
    now_ns: u64,
    is_short: bool,
    is_torn: bool,
    is_fan_out: bool,
    is_first: bool,
    is_in_fan_out: bool,
    published: std::rc::Rc<[usize]>,
    /// By channel, where the accounts stood before.
    before: Before,
}

impl Chunk {
    /// Of bytes that no shard wrote.
    pub(super) fn direct(bytes: usize, now_ns: u64, published: &std::rc::Rc<[usize]>) -> Self {
        Self {
            turn: 0,
            bytes,
            now_ns,
            is_short: false,
            is_torn: false,
            is_fan_out: false,
            is_first: false,
            is_in_fan_out: false,
            published: published.clone(),
            before: [].into(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) wire: Wire,
    pub(super) fd: RawFd,
    pub(super) serial: usize,
    pub(super) shard: usize,
    pub(super) id: Option<ConnectionId>,
    pub(super) accounts: Vec<Account>,
    /// Channels that the application has to decide on.
    pub(super) asking: Vec<usize>,
    /// Where its query wants to begin.
    pub(super) opening_origin: Origin,
    /// What it filters all its channels by.
    pub(super) sieve: Option<Sieve>,
    pub(super) is_open: bool,
    /// It may be subscribed: of a hub's, its handshake is answered.
    pub(super) is_ready: bool,
    pub(super) is_gone: bool,
    /// Why it may end: the test did something, or a timeout may come.
    pub(super) may_end: bool,
    /// What it has to answer.
    pub(super) replies: Vec<Vec<u8>>,
    pub(super) privates_sent: usize,
    privates_received: usize,
    pub(super) publications: u64,
    pub(super) buffer: Vec<u8>,
    /// Where compression was agreed.
    inflater: Option<wire::Inflater>,
    gunzip: Option<wire::Gunzip>,
    pub(super) chunks: VecDeque<Chunk>,
    is_torn: bool,
    pub(super) turns: usize,
    pub(super) ending: Option<(u16, String)>,
    is_shut: bool,
    /// What is known besides of one that is adopted.
    pub(super) hold: Option<Box<Hold>>,
}

impl Client {
    pub(super) fn new(wire: Wire, fd: RawFd, serial: usize, shard: usize, opening_origin: Origin) -> Self {
        Self {
            wire,
            fd,
            serial,
            shard,
            id: None,
            accounts: Vec::new(),
            asking: Vec::new(),
            opening_origin,
            sieve: None,
            is_open: false,
            is_ready: false,
            is_gone: false,
            may_end: false,
            replies: Vec::new(),
            privates_sent: 0,
            privates_received: 0,
            publications: 0,
            buffer: Vec::new(),
            inflater: None,
            gunzip: None,
            chunks: VecDeque::new(),
            is_torn: false,
            turns: 0,
            ending: None,
            is_shut: false,
            hold: None,
        }
    }

    /// A part of something has come.
    pub(super) fn is_cut(&self) -> bool {
        !self.buffer.is_empty()
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Whether all that the test knows of it is settled: nothing is on its way.
    pub(super) fn is_calm(&self) -> bool {
        let is_seated = |account: &Account| account.is_over || account.seating.is_some();
        self.is_gone || (self.id.is_some() && self.asking.is_empty() && self.accounts.iter().all(is_seated))
    }

    pub(super) fn is_asking(&self, channel: usize) -> bool {
        self.asking.contains(&channel)
    }

    /// What has not ended, nor is about to.
    pub(super) fn account(&mut self, channel: usize) -> Option<&mut Account> {
        self.accounts.iter_mut().find(|one| one.channel == channel && !one.is_over)
    }

    /// Takes note of a turn of its shard.
    pub(super) fn note(&mut self, turn: &Turn<'_>, is_shut: bool, losses: &mut Losses) {
        let before: Vec<_> = self.accounts.iter().map(|one| (one.channel, one.stood(turn), one.may_give_up)).collect();
        let before: Before = before.into();
        if let Some(seen) = turn.seen {
            self.id = Some(seen.id);
        }
        self.turns += 1;
        self.buffer.extend_from_slice(&turn.taken);
        // A stream of several channels is written to by the slow path alone.
        let is_slow = self.wire == Wire::Sse && turn.took.iter().any(|took| !took.is_fan_out);
        let (mut is_first, mut is_in_fan_out) = (true, false);
        for took in &turn.took {
            is_first &= took.is_fan_out;
            is_in_fan_out |= took.is_fan_out && took.is_short;
            let is_first_yet = is_first;
            is_first &= !took.is_short; // what follows may be written to a laggard that has come back to the tail
            if took.bytes == 0 {
                continue;
            }
            self.chunks.push_back(Chunk {
                turn: self.turns,
                bytes: took.bytes,
                now_ns: turn.now_ns,
                is_short: turn.came_short || is_slow,
                is_torn: turn.is_busy || self.is_torn,
                is_fan_out: took.is_fan_out,
                is_first: is_first_yet,
                is_in_fan_out,
                published: took.published.clone(),
                before: before.clone(),
            });
        }
        let leaving = turn.released.or(turn.seen.and_then(|seen| seen.leaving.as_ref()));
        let closed = leaving.and_then(|why| match why {
            Released::Closed(code, reason) => Some((*code, reason.clone())),
            _ => None,
        });
        let ending = turn.seen.and_then(|seen| seen.ending.clone()).or(closed).filter(|_| self.ending.is_none());
        self.ending = self.ending.take().or_else(|| ending.clone());
        self.is_shut = is_shut;
        self.note_seats(turn);
        self.read(turn, losses);
        if let Some((code, reason)) = ending {
            self.check_ending(code, &reason, turn);
        }
        self.settle(turn, losses, &before);
        self.check_hold(turn);
        if is_shut {
            assert!(self.may_end, "it is gone, and nobody knows why");
            self.is_gone = true;
            // One that came and went between two looks may have gone past whatever was there.
            for account in self.accounts.iter().filter(|account| account.seating.is_none()) {
                let (list, all) = (&turn.lists[account.channel], turn.lists[account.channel].all.len());
                losses.max[list.settings.policy as usize] += list.count(0, all) + list.missing(0, all);
            }
            self.accounts.iter_mut().for_each(|account| account.is_over = true);
        }
        self.is_torn = (self.is_cut() || turn.seen.is_some_and(|seen| seen.is_cut)) && (self.is_torn || turn.is_busy);
    }

    fn note_seats(&mut self, turn: &Turn<'_>) {
        if self.hold.is_some() {
            return self.note_own_seats(turn);
        }
        let subscriptions = turn.seen.map_or(&[][..], |seen| &seen.subscriptions);
        for account in self.accounts.iter_mut().filter(|account| !account.is_over && account.seating.is_none()) {
            let list = &turn.lists[account.channel];
            if !subscriptions.iter().any(|one| one.channel == list.name) {
                continue;
            }
            account.seat(list, turn.now_ns);
        }
    }

    /// What is whole of what has come; what is compressed is inflated here, as a client does that has got everything.
    fn cut(&mut self, lists: &[List]) -> Option<(usize, Vec<Item>)> {
        if let Some(gunzip) = &mut self.gunzip {
            let (count, record) = gunzip.cut(&self.buffer)?;
            let (whole, items) = wire::read(self.wire, true, &record, lists).expect("it is whole");
            assert_eq!(whole, record.len(), "a record in a piece");
            return Some((count, items));
        }
        if !self.is_open
            || matches!(self.wire, Wire::Sse | Wire::Adopted)
            || self.buffer.first().is_none_or(|first| first & 0x40 == 0)
        {
            return self.cut_plain(lists);
        }
        let (count, payload) = wire::cut_frame(&self.buffer)?;
        let inflater = self.inflater.as_mut().expect("nothing was agreed");
        let text = inflater.inflate(payload);
        let mut plain = vec![self.buffer[0] & !0x40];
        wire::write_length(&mut plain, text.len());
        plain.extend(text);
        let (_, items) = wire::read(self.wire, true, &plain, lists).expect("it is whole");
        Some((count, items))
    }

    fn cut_plain(&mut self, lists: &[List]) -> Option<(usize, Vec<Item>)> {
        let (count, items) = wire::read(self.wire, self.is_open, &self.buffer, lists)?;
        if !self.is_open {
            self.inflater = wire::Inflater::of(&self.buffer[..count]);
            self.gunzip = wire::Gunzip::of(&self.buffer[..count]);
        }
        Some((count, items))
    }

    pub(super) fn read(&mut self, turn: &Turn<'_>, losses: &mut Losses) {
        while let Some((count, items)) = self.cut(turn.lists) {
            self.buffer.drain(..count);
            let chunk = self.chunks.front().expect("it came in some turn").clone();
            let mut left = count;
            while left > 0 {
                let front = self.chunks.front_mut().expect("as many bytes as came");
                let now = left.min(front.bytes);
                (left, front.bytes) = (left - now, front.bytes - now);
                if front.bytes == 0 {
                    self.chunks.pop_front();
                }
            }
            self.is_ready = self.is_open || self.wire != Wire::Hub;
            self.is_open = true;
            if !matches!(items[..], [Item::Publication(..)]) {
                self.count_own(count);
            }
            items.into_iter().for_each(|item| self.take(item, &chunk, turn, losses));
        }
    }

    fn take(&mut self, item: Item, chunk: &Chunk, turn: &Turn<'_>, losses: &mut Losses) {
        match item {
            Item::Publication(channel, index) => {
                self.publications += 1;
                let list = &turn.lists[channel];
                let name = (list.name.clone(), self.serial);
                let at = self
                    .account_of(channel, index, chunk.turn)
                    .unwrap_or_else(|| panic!("{index} of {name:?} for nobody"));
                let mut when = self.when(chunk, channel, at);
                self.check_order(at, index, &when);
                when.published = self.looked_at(at, index, &when);
                let account = &mut self.accounts[at];
                if account.seating.is_none() {
                    account.seat(list, turn.now_ns); // it came and went in one turn
                }
                account.catch_up(chunk.turn, list, losses);
                account.promise.as_mut().expect("found by it").receive(index, &when, list, losses);
            }
            Item::Subscribed(all) => {
                for (name, position, recovered) in all {
                    let account = self
                        .accounts
                        .iter_mut()
                        .rev()
                        .find(|one| turn.lists[one.channel].name == name && one.promise.is_none());
                    let Some(account) = account else { panic!("{name} was not asked for") };
                    let list = &turn.lists[account.channel];
                    let promise = match &account.seating {
                        Some(seating) => seating.begin(position, recovered, list),
                        None => Seating::believe(position, &account.asked, list),
                    };
                    account.begin(promise);
                }
            }
            Item::Private(number) if self.hold.is_some() => self.take_own((number, false), chunk, turn),
            Item::Broadcast(number) => self.take_own((number, true), chunk, turn),
            Item::Ping(_) if self.hold.is_some() => {}
            Item::Close(code, reason) if self.hold.is_some() => self.take_own_close((code, &reason), chunk, turn),
            Item::Private(number) => {
                assert_eq!(number, self.privates_received, "private ones come in order");
                self.privates_received += 1;
                assert!(number < self.privates_sent);
            }
            Item::Places(places) => self.check_places(&places, turn),
            Item::Ping(payload) => self.replies.push(wire::frame(0xA, &payload)),
            Item::Close(code, reason) => {
                let is_known = |(known, why): &(u16, String)| code == 0 || (code, &reason) == (*known, why);
                let is_answer = reason.is_empty() && (self.may_end || self.wire == Wire::Hub);
                let is_right = self.ending.as_ref().map_or(self.is_shut, is_known) || is_answer;
                assert!(is_right, "{code} {reason} for {:?}", self.ending);
                if self.wire != Wire::Hub || code != 0 {
                    self.replies.push(wire::frame(8, &code.to_be_bytes()));
                }
            }
            Item::Other => {}
        }
    }

    pub(super) fn when(&self, chunk: &Chunk, channel: usize, at: usize) -> When {
        let known = match self.hold {
            Some(_) => chunk.before.get(at),
            None => chunk.before.iter().rev().find(|one| one.0 == channel),
        };
        let (before, may_give_up) = known.map_or((None, false), |one| (one.1, one.2));
        let Chunk { now_ns, is_short, is_torn, is_fan_out, is_first, is_in_fan_out, .. } = *chunk;
        let (published, id) = (chunk.published[channel], self.id.unwrap_or(ConnectionId::from_bits(u64::MAX))); // it came and went in one turn
        let sieve = self.accounts[at].sieve;
        When {
            now_ns,
            before,
            is_short,
            is_fan_out,
            is_first,
            is_in_fan_out,
            published,
            is_torn,
            id,
            sieve,
            may_give_up,
        }
    }

    /// What an event stream would come back with says no less than it got, and no more than was for it.
    fn check_places(&self, places: &[Position], turn: &Turn<'_>) {
        for account in self.accounts.iter().filter(|account| !account.is_over) {
            let list = &turn.lists[account.channel];
            let place = places.iter().find_map(|&place| list.number_of(place));
            let (Some(place), Some(promise)) = (place, &account.promise) else { continue };
            let last = promise.received.last().map_or(0, |&last| list.all[last].offset);
            assert!(place >= last, "{place} for one that got {last}");
        }
    }

    /// What it was promised of a channel, which an adopted connection may have left and joined again.
    fn promises_of(&self, channel: usize) -> Vec<&Promise> {
        let accounts = self.accounts.iter().filter(|one| one.channel == channel && !one.is_over);
        accounts.filter_map(|account| account.promise.as_ref()).collect()
    }

    /// Its shard has decided on its end in this turn.
    fn check_ending(&mut self, code: u16, reason: &str, turn: &Turn<'_>) {
        if let Some(name) = reason.strip_prefix("too slow for channel ") {
            assert_eq!(code, 1013);
            let channel = turn.lists.iter().position(|list| list.name == name).expect("it exists");
            let list = &turn.lists[channel];
            let is_overtaken = |account: &&Account| {
                let Some(promise) = &account.promise else { return false };
                // Of what the log lets go of before it is seated nobody knows whether it was for it.
                let sieve = account.standing.and(self.sieve);
                let is_too_far = list.may_be_overtaken(list.next_passing(promise.next, sieve), turn.now_ns);
                is_too_far || list.has_gap_in(promise.crossed..list.all.len()) // which the log has let go of
            };
            let mut accounts = self.accounts.iter().filter(|one| one.channel == channel && !one.is_over);
            let is_right = self.promises_of(channel).is_empty() || accounts.any(|account| is_overtaken(&account));
            assert!(is_right, "{reason}, and is not overtaken");
            self.may_end = true;
        }
        if let Some(name) = reason.strip_prefix("publications are missing in channel ") {
            let (channel, list) = turn.lists.iter().enumerate().find(|(_, list)| list.name == name).expect("it exists");
            assert_eq!((code, list.settings.policy), (1013, Policy::Every));
            // Of one that came and went in one turn nobody knows where it stood.
            let is_known = |one: &Account| one.channel != channel || one.is_over || one.standing.is_some();
            let promises = self.promises_of(channel);
            let is_sure = !promises.is_empty() && self.accounts.iter().all(is_known);
            let is_before = |promise: &&Promise| list.has_gap_in(promise.crossed..list.all.len());
            let is_right = !is_sure || promises.iter().any(is_before);
            assert!(is_right, "{reason}, and none is");
            self.may_end = true;
        }
        assert!(self.may_end || code == 1011, "it was ended: {code} {reason}");
        self.may_end = true;
    }

    /// Compares what came with where its shard says that it stands.
    fn settle(&mut self, turn: &Turn<'_>, losses: &mut Losses, before: &Before) {
        let Some(id) = self.id else { return };
        // Where its log has moved on, the rest of what it was given at once is kept, of which the socket may have nothing.
        let is_cut = self.is_cut() || turn.seen.is_some_and(|seen| seen.is_cut);
        let subscriptions = turn.seen.map_or(&[][..], |seen| &seen.subscriptions);
        let is_slow = subscriptions.len() > 1 || turn.took.iter().any(|took| !took.is_fan_out);
        let is_slow = self.wire == Wire::Sse && is_slow;
        let (has_all, has_closed) = (self.has_all(turn), self.hold.as_ref().is_some_and(|hold| hold.has_closed()));
        for (account, (_, stood, may_give_up)) in self.accounts.iter_mut().zip(before.iter()) {
            let list = &turn.lists[account.channel];
            let when = When {
                now_ns: turn.now_ns,
                before: *stood,
                is_short: turn.came_short || is_slow,
                is_fan_out: false,
                is_first: false,
                is_in_fan_out: turn.took.iter().any(|took| took.is_fan_out && took.is_short),
                published: list.all.len(),
                is_torn: self.is_torn || turn.is_busy,
                id,
                sieve: account.sieve,
                may_give_up: *may_give_up,
            };
            let one = subscriptions.iter().find(|one| one.channel == list.name).filter(|_| !account.is_over);
            let one = one.filter(|_| account.seating.is_some() && !account.has_left);
            match one {
                Some(one) => {
                    let standing = standing_of(one, list);
                    account.standing = Some(standing);
                    // It may have come to wait in the turn in which the message came, and before it.
                    account.is_held_up = is_cut && (account.is_held_up || when.may_give_up);
                    account.has_waited |= account.floor_turn == self.turns && account.may_be_waiting();
                    // What is torn comes later than where it stands says.
                    if !(is_cut && when.is_torn) {
                        account.may_give_up = false;
                        account.deferred.push((self.turns, standing, when));
                    } else {
                        account.is_unsure = true;
                    }
                    if !is_cut {
                        account.catch_up(usize::MAX, list, losses);
                    }
                }
                None if account.seating.is_some() && !account.is_over => {
                    (account.is_over, account.over_in) = (true, self.turns);
                    if !is_cut {
                        account.catch_up(usize::MAX, list, losses);
                    }
                    // A client's own message is read when its shard comes to it, wherever that is in the log.
                    let is_by_application = account.until < usize::MAX;
                    account.until = account.until.min(list.all.len());
                    // What it went past in its last turn, or before it was told where it begins, nobody knows.
                    let next = account.promise.as_ref().map_or(0, |promise| promise.next);
                    let passed = list.count(next, list.all.len()) + list.missing(next, list.all.len());
                    losses.max[list.settings.policy as usize] += passed;
                    let Some(promise) = &mut account.promise else { continue };
                    promise.until = account.until;
                    if self.hold.is_some() {
                        let ends_in_message = account.is_held_up && has_closed;
                        if is_by_application && (has_all || account.has_left) && !ends_in_message {
                            promise.leave_behind(&when, list);
                        }
                    } else if is_by_application && turn.seen.is_some_and(|seen| seen.ending.is_none()) && !is_cut {
                        promise.leave(&when, list);
                    }
                }
                None => {}
            }
        }
    }
}

fn standing_of(one: &SeenSubscription, list: &List) -> Standing {
    Standing {
        mode: one.mode,
        place: one.before.map(|before| list.place(before)),
        crossed: one.before.map_or(0, |before| list.crossed(before)),
        tail: list.place(one.before_tail),
        head: list.place(one.before_head),
    }
}
