//! A shard without sockets: it does with a channel what `shard::fanout` and `shard::lagging` do, and books what each
//! subscriber gets.
use std::collections::HashMap;
use std::sync::Arc;

use super::list::{Kind, List, Published};
use super::promise::Promise;
use crate::channel::{
    Appended, Channel, Mode, Origin, Overtaken, Policy, Publication, Run, Seek, Slice, Start, Watch, Watched,
};
use crate::position::Position;
use crate::protocol::{Format, Payload};
use crate::settings::ChannelSettings;

/// Nobody's luck: every socket takes everything.
pub(super) const ALL: u64 = u64::MAX;

/// No socket takes anything.
pub(super) const NOTHING: u64 = u64::MAX - 1;

/// What the shard keeps of a log.
#[derive(Debug)]
struct Feed {
    format: Format,
    watch: Arc<Watch>,
    cursor: u64,
    is_in_turn: bool,
}

/// A subscriber, and its socket.
#[derive(Debug)]
pub(super) struct Subscriber {
    watch: Arc<Watch>,
    /// Where it lags; `None` is at the tail.
    pub(super) lagging: Option<(u64, Mode)>,
    is_blocked: bool,
    pub(super) promise: Promise,
}

/// One that has asked and not begun: its origin, and the place of the tail when it asked.
#[derive(Debug)]
struct Asking {
    watched: Watched,
    origin: Origin,
    place: usize,
    offset: u64,
}

/// One channel, its shards and subscribers.
#[derive(Debug)]
pub(super) struct World {
    pub(super) channel: Arc<Channel>,
    pub(super) list: List,
    pub(super) now_ns: u64,
    feeds: Vec<Feed>,
    pub(super) subscribers: Vec<Subscriber>,
    asking: Vec<Asking>,
    /// Which publication begins at a place of a format's log, as far as one could see.
    places: HashMap<(Format, u64), usize>,
    pub(super) is_snapshot_asked: bool,
    pub(super) closed: usize,
    /// How long the list was when the run was read that is being written.
    read_at: usize,
}

/// What is to be published.
#[derive(Clone, Copy, Debug)]
pub(super) struct New {
    pub(super) key: Option<u8>,
    pub(super) kind: Kind,
    pub(super) ttl_ns: Option<u64>,
    pub(super) bytes: usize,
}

fn mix(luck: u64, index: usize) -> u64 {
    let mixed = (luck ^ index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ (mixed >> 29)
}

impl World {
    pub(super) fn new(settings: ChannelSettings) -> Self {
        let channel = Channel::new("c", 7, settings.into(), true, Arc::default());
        Self {
            channel: Arc::new(channel),
            list: List { all: Vec::new(), settings },
            now_ns: 1_000_000_000,
            feeds: Vec::new(),
            subscribers: Vec::new(),
            asking: Vec::new(),
            places: HashMap::new(),
            is_snapshot_asked: false,
            closed: 0,
            read_at: 0,
        }
    }

    pub(super) fn publish(&mut self, new: New) {
        let index = self.list.all.len();
        let text = format!("{index}|{}", "x".repeat(new.bytes));
        let key = new.key.map(|key| format!("key {key}"));
        let publication = Publication {
            key: key.as_deref(),
            ttl_ns: new.ttl_ns,
            is_keyframe: new.kind == Kind::Keyframe,
            is_snapshot: new.kind == Kind::Snapshot,
            is_removal: false,
            ..Publication::new(Payload::Text(&text))
        };
        let appended = self.channel.append(&publication, self.now_ns, u64::MAX, |_| {}).expect("nothing is bounded");
        let offset = self.list.offset() + u64::from(new.kind != Kind::Snapshot);
        let Appended::At(position) = appended else { panic!("text goes in all formats") };
        assert_eq!(position, Position { epoch: 7, offset });
        self.list.all.push(Published {
            offset,
            key: new.key.filter(|_| new.kind != Kind::Snapshot),
            kind: new.kind,
            published_ns: self.now_ns,
            expires_ns: new.ttl_ns.map_or(u64::MAX, |ttl| self.now_ns + ttl),
            bytes_max: text.len() as u64 + 120,
        });
        self.is_snapshot_asked &= new.kind == Kind::Plain;
        self.note_places();
    }

    fn note_places(&mut self) {
        for format in [Format::Raw, Format::Envelope] {
            self.places.insert((format, self.channel.tail(format)), self.list.all.len());
        }
    }

    /// A subscriber asks: the log is there from now on.
    pub(super) fn ask(&mut self, format: Format, shard: usize, origin: Origin) {
        let is_new = self.channel.lock().logs[format as usize].is_none();
        let watched = self.channel.watch(format, shard);
        if is_new {
            self.places.retain(|place, _| place.0 != format);
        }
        self.note_places();
        let (place, offset) = (self.list.all.len(), self.list.offset());
        self.asking.push(Asking { watched, origin, place, offset });
    }

    /// Those who have asked begin, with as much of it as `luck` lets their sockets take.
    pub(super) fn begin(&mut self, luck: u64) {
        for asking in std::mem::take(&mut self.asking) {
            self.join(asking, luck);
        }
    }

    fn join(&mut self, asking: Asking, luck: u64) {
        let (format, watch) = (asking.watched.format, Arc::clone(&asking.watched.watch));
        let seek = self.channel.seek(format, asking.origin, asking.watched.cursor, self.now_ns);
        let mut promise = self.promise_of(&asking, seek);
        if seek.mode != Mode::Lagging {
            promise.exact_from = promise.next;
        }
        self.obtain(format, &watch);
        let reach = seek.cursor + u64::from(seek.mode == Mode::AtKeyframe);
        while self.feed(&watch).cursor < reach {
            self.fan_out(&watch, luck);
            self.obtain(format, &watch);
        }
        let waits = seek.mode == Mode::AwaitingKeyframe;
        let is_at_tail = self.feed(&watch).cursor == seek.cursor && !waits;
        let lagging = (!is_at_tail).then_some((seek.cursor, seek.mode));
        self.subscribers.push(Subscriber { watch: Arc::clone(&watch), lagging, is_blocked: false, promise });
        self.report(&watch);
        asking.watched.keep();
        if !is_at_tail {
            self.pump(self.subscribers.len() - 1, luck, 0);
        }
        let head = self.channel.overtaken_before(format);
        self.settle_overtaken(&watch, head);
    }

    /// Checks where it begins.
    fn promise_of(&mut self, asking: &Asking, seek: Seek) -> Promise {
        let list = &self.list;
        assert_eq!(seek.position.epoch, 7);
        assert_eq!(seek.recovered.is_some(), asking.origin.since.is_some());
        let since = asking.origin.since.map(|since| (since, since.epoch == 7 && since.offset <= list.offset()));
        if seek.recovered == Some(true) {
            let (since, is_ours) = since.expect("asked for");
            assert!(is_ours && since == seek.position, "{since} recovered at {}", seek.position);
            let next = list.index_behind(since.offset);
            let may_be_stale = list.settings.policy == Policy::Latest;
            assert!(may_be_stale || !list.is_stale(next, self.now_ns), "{since} is too old, and recovered");
            return Promise::from(next);
        }
        if let Some((since, true)) = since {
            assert!(!list.must_recover(since.offset, self.now_ns), "{since} is not recovered");
        }
        let start = asking.origin.start.unwrap_or(list.settings.start);
        let keyframe = list.newest_keyframe(self.now_ns);
        match (start, seek.mode) {
            (Start::Keyframe, Mode::AtKeyframe) => {
                let index = keyframe.expect("it begins at one");
                let before = list.all[index].offset - u64::from(list.all[index].kind == Kind::Keyframe);
                assert_eq!(seek.position.offset, before);
                assert!(list.is_fresh(index, self.now_ns));
                let mut promise = Promise::from(index);
                promise.go_to_keyframe(index);
                promise
            }
            (Start::Live, _) | (Start::Keyframe, _) => {
                assert_eq!(seek.position.offset, asking.offset);
                let may_begin = |&index: &usize| list.must_keep_keyframe(index) && list.is_fresh(index, self.now_ns);
                let is_missed = start == Start::Keyframe && keyframe.filter(may_begin).is_some();
                assert!(!is_missed, "it does not begin at the keyframe {keyframe:?}");
                let mut promise = Promise::from(asking.place);
                if start == Start::Keyframe && list.settings.snapshot_interval.is_some() {
                    assert_eq!(seek.mode, Mode::AwaitingKeyframe);
                    assert_eq!(seek.asks, !self.is_snapshot_asked);
                    self.is_snapshot_asked = true;
                    promise.wait();
                }
                promise
            }
            (Start::History, _) => {
                let next = list.index_behind(seek.position.offset);
                let kept = (0..list.all.len()).find(|&index| list.is_kept(index, self.now_ns));
                let missed = list.count(kept.unwrap_or(next), next);
                assert!(missed == 0, "the history begins at {next}, not {kept:?}");
                Promise::from(next)
            }
        }
    }

    fn feed(&mut self, watch: &Arc<Watch>) -> &mut Feed {
        self.feeds.iter_mut().find(|feed| Arc::ptr_eq(&feed.watch, watch)).expect("it is obtained")
    }

    fn obtain(&mut self, format: Format, watch: &Arc<Watch>) {
        if !self.feeds.iter().any(|feed| Arc::ptr_eq(&feed.watch, watch)) {
            let (watch, cursor) = (Arc::clone(watch), watch.cursor());
            self.feeds.push(Feed { format, watch, cursor, is_in_turn: false });
        }
    }

    fn members(&self, watch: &Arc<Watch>) -> Vec<usize> {
        (0..self.subscribers.len()).filter(|&index| Arc::ptr_eq(&self.subscribers[index].watch, watch)).collect()
    }

    fn report(&mut self, watch: &Arc<Watch>) {
        let members = self.members(watch);
        let oldest = members.into_iter().filter_map(|index| self.subscribers[index].lagging).map(|lagging| lagging.0);
        let oldest = oldest.min().unwrap_or(u64::MAX);
        let feed = self.feed(watch);
        if !feed.is_in_turn {
            feed.watch.advance(feed.cursor, oldest.min(feed.cursor));
        }
    }

    /// The shards are told: each feed is written to everyone at its tail.
    pub(super) fn fan_out_all(&mut self, luck: u64) {
        let watches: Vec<Arc<Watch>> = self.feeds.iter().map(|feed| Arc::clone(&feed.watch)).collect();
        for watch in watches {
            while self.feeds.iter().any(|feed| Arc::ptr_eq(&feed.watch, &watch)) {
                let format = self.feed(&watch).format;
                if self.feed(&watch).cursor >= self.channel.tail(format) {
                    break;
                }
                self.fan_out(&watch, luck);
            }
        }
    }

    fn fan_out(&mut self, watch: &Arc<Watch>, luck: u64) {
        let now_ns = self.now_ns;
        let channel = Arc::clone(&self.channel);
        let feed = self.feed(watch);
        let (format, from) = (feed.format, feed.cursor);
        let run = channel.read(format, from, channel.tail(format), Mode::Replaying, now_ns);
        if run.end <= from {
            return;
        }
        (feed.cursor, feed.is_in_turn) = (run.end, true);
        let to = self.places[&(format, run.end)];
        for index in self.members(watch) {
            if self.subscribers[index].lagging.is_some() {
                continue;
            }
            let bytes = self.allowance(luck, index, run.bytes());
            let promise = &mut self.subscribers[index].promise;
            promise.exact_from = promise.exact_from.min(self.places[&(format, from)]);
            let cursor = self.take(index, &run, from, bytes);
            if bytes < run.bytes() {
                let subscriber = &mut self.subscribers[index];
                (subscriber.lagging, subscriber.is_blocked) = (Some((cursor, Mode::Lagging)), true);
            } else {
                self.subscribers[index].promise.pass(to, &self.list, now_ns);
            }
        }
        self.settle_overtaken(watch, run.head);
        for index in self.members(watch) {
            if self.subscribers[index].lagging.is_some() && !self.subscribers[index].is_blocked {
                self.pump(index, luck, 0);
            }
        }
        if self.feeds.iter().any(|feed| Arc::ptr_eq(&feed.watch, watch)) {
            self.feed(watch).is_in_turn = false;
            self.report(watch);
        }
    }

    /// How many of these bytes a socket takes: most take all.
    fn allowance(&self, luck: u64, index: usize, bytes: usize) -> usize {
        let mixed = mix(luck, index);
        if luck == NOTHING {
            return 0;
        }
        if luck == ALL || !mixed.is_multiple_of(4) { bytes } else { (mixed >> 8) as usize % (bytes + 1) }
    }

    /// A socket took so many bytes of a run; a frame that it cut is finished later, whatever happens. Gives the cursor.
    fn take(&mut self, index: usize, run: &Run, from: u64, bytes: usize) -> u64 {
        let format = self.feed_of(index).format;
        let (mut left, mut cursor) = (bytes, from);
        for slice in &run.slices {
            let length = slice.bytes().len();
            let end = slice.position() + length as u64;
            if left == 0 {
                return cursor;
            }
            let position = slice.position() + left as u64;
            let is_edge = |position| self.channel.frame_end(format, position - 1) == Some(position);
            cursor = if left >= length {
                end
            } else if is_edge(position) {
                position
            } else {
                self.channel.frame_end(format, position).map_or(end, |frame| frame.min(end))
            };
            left = left.saturating_sub(length);
            self.receive(index, slice.part(slice.position(), cursor));
            if cursor < end || left == 0 && bytes < run.bytes() {
                return cursor;
            }
        }
        run.end
    }

    fn receive(&mut self, index: usize, slice: Slice) {
        let format = self.feed_of(index).format;
        let is_lagging = matches!(self.subscribers[index].lagging, Some((_, Mode::Lagging)));
        let conflated_to = is_lagging.then_some(self.read_at);
        for text in super::texts(slice.bytes(), format, &self.list) {
            let number = text.split('|').next().and_then(|number| number.parse().ok()).expect("as published");
            self.subscribers[index].promise.receive(number, conflated_to, &self.list, self.now_ns);
        }
    }

    fn feed_of(&mut self, index: usize) -> &mut Feed {
        let watch = Arc::clone(&self.subscribers[index].watch);
        self.feed(&watch)
    }

    /// A socket takes some more; so many publications come between the reading and the writing.
    pub(super) fn pump(&mut self, index: usize, luck: u64, between: u64) {
        let channel = Arc::clone(&self.channel);
        self.subscribers[index].is_blocked = false;
        while let Some((mut from, mut mode)) = self.subscribers[index].lagging {
            let Feed { format, cursor: tail, .. } = *self.feed_of(index);
            if mode == Mode::AwaitingKeyframe {
                let found = channel.keyframe_from(format, from, self.now_ns).filter(|found| found.0 < tail);
                let Some((found, lost)) = found else { return };
                let at = self.list.newest_keyframe(self.now_ns).expect("one was found");
                self.check_lost(self.places.get(&(format, from)).copied(), at, lost);
                (from, mode) = (found, Mode::AtKeyframe);
                self.subscribers[index].promise.go_to_keyframe(at);
                self.subscribers[index].lagging = Some((from, mode));
            }
            if from == tail {
                self.subscribers[index].lagging = None;
                let to = self.places[&(format, tail)];
                self.subscribers[index].promise.pass(to, &self.list, self.now_ns);
                let watch = Arc::clone(&self.subscribers[index].watch);
                return self.report(&watch);
            }
            assert!(from < tail, "{from} is ahead of the feed at {tail}");
            let run = channel.read(format, from, tail, mode, self.now_ns);
            if run.head > from && mode != Mode::AtKeyframe {
                return; // overtaken: the next turn of the feed decides
            }
            if run.head > from {
                match channel.overtaken(format, (from, mode), tail, self.now_ns) {
                    Overtaken::Close => return,
                    Overtaken::Skip(cursor, mode, lost) => self.skip(index, cursor, mode, lost),
                }
                continue;
            }
            let is_before_head = from < channel.lock().logs[format as usize].as_ref().expect("watched").head.position;
            let promise = &mut self.subscribers[index].promise;
            let place = self.places.get(&(format, from)).copied().unwrap_or(promise.next);
            promise.exact_from = if mode == Mode::Lagging || is_before_head { usize::MAX } else { place };
            self.read_at = self.list.all.len();
            for _ in 0..between {
                self.publish(New { key: Some(0), kind: Kind::Plain, ttl_ns: None, bytes: 40 });
            }
            let bytes = self.allowance(luck, index, run.bytes());
            let cursor = self.take(index, &run, from, bytes);
            if mode == Mode::AtKeyframe && cursor > from {
                mode = Mode::Replaying;
            }
            self.subscribers[index].lagging = Some((cursor, mode));
            if bytes < run.bytes() {
                self.subscribers[index].is_blocked = true;
                return;
            }
        }
    }

    fn settle_overtaken(&mut self, watch: &Arc<Watch>, head: u64) {
        let Feed { format, cursor: tail, .. } = *self.feed(watch);
        let mut closing = Vec::new();
        for index in self.members(watch) {
            let Some((from, mode)) = self.subscribers[index].lagging.filter(|lagging| lagging.0 < head) else {
                continue;
            };
            let promise = &mut self.subscribers[index].promise;
            assert!(self.list.may_be_overtaken(promise.next, self.now_ns), "overtaken at {}", promise.next);
            match self.channel.overtaken(format, (from, mode), tail, self.now_ns) {
                Overtaken::Close => closing.push(index),
                Overtaken::Skip(cursor, mode, lost) => self.skip(index, cursor, mode, lost),
            }
        }
        for index in closing.into_iter().rev() {
            self.closed += 1;
            self.leave(index);
        }
        if self.feeds.iter().any(|feed| Arc::ptr_eq(&feed.watch, watch)) {
            self.report(watch);
        }
    }

    fn skip(&mut self, index: usize, cursor: u64, mode: Mode, lost: u64) {
        let Feed { format, cursor: tail, .. } = *self.feed_of(index);
        let to = match mode {
            Mode::AtKeyframe => self.list.newest_keyframe(self.now_ns).expect("it goes on at one"),
            _ => self.places[&(format, tail)],
        };
        assert!(cursor <= tail, "{cursor} is ahead of the feed at {tail}");
        if self.list.settings.policy != Policy::Latest {
            self.check_lost(Some(self.subscribers[index].promise.next), to, lost);
        }
        let promise = &mut self.subscribers[index].promise;
        match (self.list.settings.policy, mode) {
            (Policy::Drop, Mode::Lagging) => promise.skip_to(to),
            (_, Mode::AtKeyframe) => promise.go_to_keyframe(to),
            (_, Mode::AwaitingKeyframe) => {
                let keyframe = self.list.newest_keyframe(self.now_ns);
                let passed = keyframe
                    .filter(|&index| index >= promise.next && index < to && self.list.must_keep_keyframe(index));
                assert_eq!(passed, None, "it waits for one, and went past it");
                promise.wait();
                promise.pass(to, &self.list, self.now_ns);
                if self.channel.keyframe_from(format, cursor, self.now_ns).is_none() {
                    self.is_snapshot_asked |= self.channel.ask_snapshot();
                }
            }
            (Policy::Latest, Mode::Lagging) => promise.lose_keyframe(),
            other => panic!("{other:?}"),
        }
        self.subscribers[index].lagging = Some((cursor, mode));
    }

    /// So many were lost between two places, of which those that had expired may have been passed before.
    fn check_lost(&self, from: Option<usize>, to: usize, lost: u64) {
        let Some(from) = from else { return };
        let is_alive = |&index: &usize| !self.list.is_expired(index, self.now_ns);
        let alive: u64 = (from..to).filter(is_alive).map(|index| self.list.count(index, index + 1)).sum();
        let expected = self.list.count(from, to);
        assert!(alive <= lost && lost <= expected, "{lost} skipped, of {expected} of which {alive} are alive");
    }

    pub(super) fn leave(&mut self, index: usize) {
        let watch = Arc::clone(&self.subscribers[index].watch);
        let format = self.feed(&watch).format;
        self.subscribers.remove(index);
        self.channel.unwatch(format, &watch);
        self.report(&watch);
        if self.members(&watch).is_empty() {
            self.feeds.retain(|feed| !Arc::ptr_eq(&feed.watch, &watch));
        }
    }

    /// The application has no keyframe to give.
    pub(super) fn give_up(&mut self, luck: u64) {
        self.channel.give_up_snapshot();
        self.is_snapshot_asked = false;
        for index in 0..self.subscribers.len() {
            let subscriber = &mut self.subscribers[index];
            if let Some((cursor, Mode::AwaitingKeyframe)) = subscriber.lagging {
                subscriber.lagging = Some((cursor, Mode::Replaying));
                subscriber.promise.give_up();
                self.pump(index, luck, 0);
            }
        }
    }

    /// Everyone reads all, and the logs hear of it.
    pub(super) fn catch_up(&mut self) {
        self.begin(ALL);
        self.fan_out_all(ALL);
        for index in 0..self.subscribers.len() {
            self.pump(index, ALL, 0);
        }
        self.fan_out_all(ALL);
        let watches: Vec<Arc<Watch>> = self.feeds.iter().map(|feed| Arc::clone(&feed.watch)).collect();
        watches.iter().for_each(|watch| self.report(watch));
    }
}
