//! Which channels are wanted, how far each is known, and the hearer that is told what comes.
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fanwire_core::Position;
use fanwire_core::node::Keep;

use crate::api::Event;
use crate::inbox::Taken;
use crate::names::Names;
use crate::record::read_all;

/// So many positions of channels that nobody here wants are remembered; then all of these are forgotten.
const OTHERS_MAX: usize = 65_536;
const FOREIGN_EVERY: Duration = Duration::from_secs(1);
/// In an epoch beyond, a double would not be exact; no server's clock gives one.
const EPOCH_MAX: u64 = 1 << 53;

/// What the thread's tasks share: they run in one thread, so nobody waits for another.
pub(crate) struct Heard {
    hear: Mutex<Box<dyn FnMut(Event) + Send>>,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Wanted {
    keep: Keep,
    /// The latest position that is known.
    known: Position,
}

/// Faults of one kind, which are told seldom, and counted.
#[derive(Debug, Default)]
struct Faults {
    count: u64,
    told: Option<Instant>,
    told_count: u64,
}

impl Faults {
    /// So many more; gives how many there were in all, if it is time to tell.
    fn count(&mut self, more: u64) -> Option<u64> {
        self.count += more;
        let now = Instant::now();
        if self.told.is_some_and(|told| now - told < FOREIGN_EVERY) || self.count == self.told_count {
            return None;
        }
        (self.told, self.told_count) = (Some(now), self.count);
        Some(self.count)
    }
}

#[derive(Debug, Default)]
struct Table {
    wanted: HashMap<Box<str>, Wanted>,
    others: HashMap<Box<str>, Position>,
    /// What is listened to.
    patterns: HashSet<Box<str>>,
    /// Whose unsubscription is under way.
    leaving: HashSet<Box<str>>,
    foreign: Faults,
    /// Where the last of these was, and what is wrong with it.
    last_foreign: Option<(Box<str>, &'static str)>,
    untold: Faults,
}

const NOWHERE: Position = Position { epoch: 0, offset: 0 };

impl fmt::Debug for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heard").field("table", &self.table).finish_non_exhaustive()
    }
}

impl Heard {
    pub(crate) fn new(hear: Box<dyn FnMut(Event) + Send>) -> Self {
        Self { hear: Mutex::new(hear), table: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tell(&self, event: Event) {
        (self.hear.lock().unwrap_or_else(PoisonError::into_inner))(event);
    }

    /// Takes what the caller has said of channels; gives those that have to be subscribed or left.
    pub(crate) fn apply(&self, taken: &mut Taken) -> Vec<(Box<str>, Option<Keep>)> {
        let mut table = self.lock();
        for (pattern, is_begun) in &taken.patterns {
            if *is_begun {
                table.patterns.insert(pattern.clone());
            } else {
                table.patterns.remove(pattern);
            }
        }
        let mut changes = Vec::with_capacity(taken.wants.len());
        for (channel, keep) in taken.wants.drain() {
            if let Some(keep) = keep {
                let known = table.others.remove(&channel).unwrap_or(NOWHERE);
                table.wanted.entry(channel.clone()).or_insert(Wanted { keep, known }).keep = keep;
                changes.push((channel, Some(keep)));
            } else if let Some(Wanted { known, .. }) = table.wanted.remove(&channel) {
                table.learn(&channel, known);
                changes.push((channel, None));
            }
        }
        for (channel, top) in taken.seen.drain() {
            table.learn(&channel, top);
        }
        changes
    }

    /// All that is wanted.
    pub(crate) fn wanted(&self) -> Vec<Box<str>> {
        self.lock().wanted.keys().cloned().collect()
    }

    /// The same, with what each keeps.
    pub(crate) fn wanted_as(&self) -> Vec<(Box<str>, Keep)> {
        self.lock().wanted.iter().map(|(channel, wanted)| (channel.clone(), wanted.keep)).collect()
    }

    /// All that is listened to.
    pub(crate) fn patterns(&self) -> Vec<Box<str>> {
        self.lock().patterns.iter().cloned().collect()
    }

    pub(crate) fn is_wanted(&self, channel: &str) -> bool {
        self.lock().wanted.contains_key(channel)
    }

    /// The latest position that is known; epoch 0 if none is.
    pub(crate) fn known(&self, channel: &str) -> Position {
        let table = self.lock();
        let wanted = table.wanted.get(channel).map(|wanted| wanted.known);
        wanted.or_else(|| table.others.get(channel).copied()).unwrap_or(NOWHERE)
    }

    pub(crate) fn learn(&self, channel: &str, position: Position) {
        self.lock().learn(channel, position);
    }

    /// It is about to be unsubscribed.
    pub(crate) fn leave(&self, channel: &str) {
        self.lock().leaving.insert(channel.into());
    }

    /// A new connection is subscribed to nothing.
    pub(crate) fn begin(&self) {
        self.lock().leaving.clear();
    }

    /// The server says that it is unsubscribed. Whether that was asked for.
    pub(crate) fn left(&self, names: &Names, published: &[u8]) -> bool {
        let channel = std::str::from_utf8(published).ok().and_then(|text| names.channel_of(text));
        channel.is_some_and(|channel| self.lock().leaving.remove(channel))
    }

    /// A message has come.
    pub(crate) fn message(&self, names: &Names, published: &[u8], bytes: &[u8]) {
        let Ok(published) = std::str::from_utf8(published) else { return };
        if names.is_told(published) {
            return self.tell(Event::Told(bytes.to_vec()));
        }
        let Some(channel) = names.channel_of(published) else { return };
        match read_all(bytes) {
            Ok(records) => {
                if let Some(last) = records.last() {
                    self.learn(channel, last.position);
                }
                for record in records {
                    self.tell(Event::Record { channel: channel.into(), record });
                }
            }
            Err(reason) => self.foreign(channel, reason),
        }
    }

    /// Something in one of our channels or streams is not ours.
    pub(crate) fn foreign(&self, channel: &str, reason: &'static str) {
        self.lock().last_foreign = Some((channel.into(), reason));
        self.tell_foreign(1);
    }

    /// Some time has passed: what was counted and not told is told.
    pub(crate) fn tick(&self) {
        self.tell_foreign(0);
    }

    fn tell_foreign(&self, more: u64) {
        let mut table = self.lock();
        let (count, last) = (table.foreign.count(more), table.last_foreign.clone());
        drop(table);
        if let (Some(count), Some((channel, reason))) = (count, last) {
            self.tell(Event::Foreign { channel, reason, count });
        }
    }

    /// So many things could not be told, for this reason.
    pub(crate) fn untold(&self, reasons: &[String]) {
        let Some(reason) = reasons.first() else { return };
        let count = self.lock().untold.count(reasons.len() as u64);
        if let Some(count) = count {
            self.tell(Event::Untold { reason: reason.clone(), count });
        }
    }
}

impl Table {
    fn learn(&mut self, channel: &str, position: Position) {
        if position.epoch >= EPOCH_MAX || position.offset >= EPOCH_MAX {
            return; // no server of ours has given it
        }
        let wanted = self.wanted.get_mut(channel).map(|wanted| &mut wanted.known);
        if let Some(known) = wanted.or_else(|| self.others.get_mut(channel)) {
            *known = position.max(*known);
            return;
        }
        if self.others.len() >= OTHERS_MAX {
            drop(mem::take(&mut self.others));
        }
        self.others.insert(channel.into(), position);
    }
}
