//! Channels by name. Made when first named; given up, a few at a time, when nobody watches and nothing was published for
//! a while.
//!
//! The names are dealt out to stripes, each behind a lock of its own. So whoever names a new channel, grows a table or
//! gives up the idle is in the way of few others, for microseconds. [`Registry::sweep`] looks at a bounded number of
//! channels a call, under a lock that lets everybody read, and takes a stripe for itself only while it takes some out.
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hashbrown::HashTable;

use super::common::Common;
use super::{Channel, Listener, check_name};
use crate::error::EngineError;
use crate::settings::{ChannelRule, ChannelSettings, Settings};

/// A channel that nobody watches is kept this long after its last publication, so that its offsets go on; one that keeps
/// publications for who returns as long as those.
const IDLE_S: u64 = 60;
/// One in which nothing was ever published is kept for so long: there is hardly anything that would not go on.
const UNUSED_S: u64 = 5;
/// Channels looked at in one go, and so under one lock.
const LOOKS_MAX: usize = 256;
/// Lists of a stripe that each channel stands in.
pub(super) const PLACES: usize = 2;
/// Looked at on behalf of one new name at the bound.
const LOOKS_FOR_ROOM: usize = 64;
/// Stripes of a registry: at the bound of channels each has about so many.
const CHANNELS_A_STRIPE: usize = 1_024;
/// An epoch's low bits are the number of its channel's stripe.
const STRIPE_BITS: u32 = 10;
const STRIPES_MAX: usize = 1 << STRIPE_BITS;

/// The next epoch without its low bits, of any engine in this process. It starts at the clock's milliseconds: those of
/// a process that is started again are later. As a whole it stays below 2^53 until the year 2248: JavaScript reads it.
static NEXT_EPOCH: LazyLock<AtomicU64> = LazyLock::new(|| {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    AtomicU64::new(since.map_or(1, |since| since.as_millis() as u64).max(1))
});

/// Epochs that are given from now on are later than those of any process that began to give some before.
pub(crate) fn begin_epochs_now() {
    if let Ok(since) = SystemTime::now().duration_since(UNIX_EPOCH) {
        NEXT_EPOCH.fetch_max(since.as_millis() as u64, Ordering::Relaxed);
    }
}

/// All channels of an engine.
#[derive(Debug)]
pub struct Registry {
    stripes: Box<[RwLock<Stripe>]>,
    hasher: RandomState,
    /// How many channels exist.
    count: AtomicUsize,
    /// Where the sweep goes on; nobody waits for this lock.
    sweep: Mutex<Place>,
    /// Promises that channels have, each once.
    promises: RwLock<Vec<Arc<ChannelSettings>>>,
    /// Its channels are the application's and have names that clients use.
    is_listed: bool,
    /// What is published may be compressed, as settings say.
    compresses: bool,
    /// Of all registries of an engine.
    common: Arc<Common>,
    waker: Waker,
    /// Those who hear channels by a pattern, also such as are yet to be made. Taken behind a stripe.
    listeners: RwLock<Listeners>,
}

/// The program itself hears channels by so many patterns at most: each channel that is made costs a look at each.
const LISTENERS_MAX: usize = 1_024;

/// And by name so often: each publication costs a look at each who hears its channel.
const NAMED_MAX: usize = 262_144;

/// Who hears channels, those that are yet to be made as well.
#[derive(Debug, Default)]
struct Listeners {
    by_pattern: Vec<Arc<Listener>>,
    by_name: HashMap<Box<str>, Vec<Arc<Listener>>>,
    /// How many stand in `by_name`.
    named: usize,
}

impl Listeners {
    fn add(&mut self, listener: &Arc<Listener>) -> Result<(), EngineError> {
        let (count, max) = match listener.name() {
            Some(_) => (self.named, NAMED_MAX),
            None => (self.by_pattern.len(), LISTENERS_MAX),
        };
        if count >= max {
            let (value, bound) = (max as u64 + 1, max as u64);
            return Err(EngineError::LimitReached { name: "listeners", value, bound });
        }
        if let Some(name) = listener.name() {
            self.named += 1;
            self.by_name.entry(name.into()).or_default().push(Arc::clone(listener));
        } else {
            self.by_pattern.push(Arc::clone(listener));
        }
        Ok(())
    }

    fn remove(&mut self, listener: &Arc<Listener>) {
        let is_other = |one: &Arc<Listener>| !Arc::ptr_eq(one, listener);
        let Some(name) = listener.name() else { return self.by_pattern.retain(is_other) };
        let Some(all) = self.by_name.get_mut(name) else { return };
        if let Some(index) = all.iter().position(|one| !is_other(one)) {
            all.swap_remove(index);
            self.named -= 1;
        }
        if all.is_empty() {
            self.by_name.remove(name);
        }
    }

    /// Those who hear the channel of this name.
    fn of(&self, name: &str) -> impl Iterator<Item = &Arc<Listener>> {
        let named = self.by_name.get(name).into_iter().flatten();
        self.by_pattern.iter().filter(move |listener| listener.hears(name)).chain(named)
    }
}

/// The presence of a channel is told in one that is called so and as that.
const PRESENCE_PREFIX: &str = "presence:";

/// What is called when there were no channels and now is one: from then on somebody has to sweep.
#[derive(Default)]
struct Waker(Option<Box<dyn Fn() + Send + Sync>>);

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Waker" } else { "no Waker" })
    }
}

/// Some of the channels. Each stands in both lists ([`PLACES`]), or in none.
#[derive(Debug, Default)]
struct Stripe {
    by_name: HashTable<Arc<Channel>>,
    /// The same in the order of their epochs, which is that of their making.
    by_epoch: Vec<Arc<Channel>>,
    /// Where those who need room look next.
    looked: usize,
}

/// A stripe, and an index in its `by_epoch`.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    stripe: usize,
    index: usize,
}

impl Registry {
    /// The channels of the application, which clients know by their names; at most about `channels_max`.
    #[must_use]
    pub fn listed(common: &Arc<Common>, channels_max: usize) -> Self {
        let stripes = (channels_max / CHANNELS_A_STRIPE).next_power_of_two().min(STRIPES_MAX);
        Self {
            stripes: (0..stripes).map(|_| RwLock::default()).collect(),
            hasher: RandomState::new(),
            count: AtomicUsize::new(0),
            sweep: Mutex::default(),
            promises: RwLock::default(),
            is_listed: true,
            compresses: true,
            common: Arc::clone(common),
            waker: Waker::default(),
            listeners: RwLock::default(),
        }
    }

    /// Channels that no client can name, under any text: those of users, of hubs, of lanes. They promise the default.
    #[must_use]
    pub fn unlisted(common: &Arc<Common>, channels_max: usize) -> Self {
        Self { is_listed: false, ..Self::listed(common, channels_max) }
    }

    /// What is published there is not compressed: others' texts and secrets may meet.
    #[must_use]
    pub fn uncompressed(self) -> Self {
        Self { compresses: false, ..self }
    }

    /// Calls `wake` with the first channel, and with the next one after all were given up.
    #[must_use]
    pub fn waking(self, wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { waker: Waker(Some(Box::new(wake))), ..self }
    }

    /// What compressing has taken, and how often it did not pay, in all registries of the engine.
    pub(crate) fn compressing(&self) -> (Duration, u64) {
        self.common.compressing.sums()
    }

    /// The channel of this epoch, if it exists.
    #[must_use]
    pub fn find_epoch(&self, epoch: u64) -> Option<Arc<Channel>> {
        let index = epoch as usize % STRIPES_MAX;
        let stripe = (index < self.stripes.len()).then(|| self.read(index))?;
        stripe.index_of(epoch).map(|index| Arc::clone(&stripe.by_epoch[index]))
    }

    /// The channel called `name`, if it exists.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<Channel>> {
        let (hash, stripe) = self.place_of(name);
        self.read(stripe).find(hash, name).cloned()
    }

    /// The channel called `name`, made if need be.
    ///
    /// # Errors
    /// [`EngineError::InvalidChannel`]; [`EngineError::LimitReached`] at `channels_max`.
    pub(crate) fn obtain(&self, name: &str, settings: &Settings, now_ns: u64) -> Result<Arc<Channel>, EngineError> {
        if let Some(channel) = self.find(name) {
            return Ok(channel);
        }
        if self.is_listed {
            check_name(name)?;
        }
        let (hash, index) = self.place_of(name);
        let promised = self.promised(name, settings);
        let mut stripe = self.write(index);
        if let Some(channel) = stripe.find(hash, name) {
            return Ok(Arc::clone(channel));
        }
        let now_s = now_ns / 1_000_000_000;
        let gone = self.take_place(&mut stripe, settings.channels_max, now_s)?;
        let epoch = NEXT_EPOCH.fetch_add(1, Ordering::Relaxed) << STRIPE_BITS | index as u64;
        let channel = Arc::new(Channel::new(name, epoch, promised, self.is_listed, Arc::clone(&self.common)));
        channel.published_s.store(now_s, Ordering::Relaxed);
        let listeners = self.listeners.read().expect("no code panics while it holds the listeners");
        listeners.of(name).for_each(|listener| channel.attach(listener));
        drop(listeners);
        stripe.insert(hash, &channel, &self.hasher);
        drop(stripe);
        drop(gone); // behind the lock
        Ok(channel)
    }

    /// Has a listener hear the channels that it is for, those that are yet to be made as well.
    ///
    /// # Errors
    /// [`EngineError::LimitReached`] where there are too many.
    pub(crate) fn listen(&self, listener: &Arc<Listener>) -> Result<(), EngineError> {
        let mut listeners = self.listeners.write().expect("no code panics while it holds the listeners");
        listeners.add(listener)?;
        drop(listeners); // a channel that is made from now on is heard
        self.for_each_heard(listener, |channel| channel.attach(listener));
        Ok(())
    }

    /// It hears no more.
    pub(crate) fn unlisten(&self, listener: &Arc<Listener>) {
        let mut listeners = self.listeners.write().expect("no code panics while it holds the listeners");
        listeners.remove(listener);
        drop(listeners);
        self.for_each_heard(listener, |channel| channel.detach(listener));
        listener.end();
    }

    /// The channels that there are and it hears.
    fn for_each_heard(&self, listener: &Listener, visit: impl Fn(&Arc<Channel>)) {
        match listener.name() {
            Some(name) => self.find(name).iter().for_each(visit),
            None => self.for_each(|channel| {
                if listener.hears(channel.name()) {
                    visit(channel);
                }
            }),
        }
    }

    fn for_each(&self, visit: impl Fn(&Arc<Channel>)) {
        for stripe in &self.stripes {
            stripe.read().expect("no code panics while it holds the registry").by_epoch.iter().for_each(&visit);
        }
    }

    /// As [`obtain`](Self::obtain), for a subscriber: nobody is to wait for what nothing tells.
    ///
    /// # Errors
    /// Those of [`obtain`](Self::obtain), and [`EngineError::InvalidChannel`] for the presence of a channel without.
    pub(crate) fn obtain_to_watch(
        &self,
        name: &str,
        settings: &Settings,
        now_ns: u64,
    ) -> Result<Arc<Channel>, EngineError> {
        let is_told = |rule: &ChannelRule| rule.pattern.is_within(PRESENCE_PREFIX) && rule.pattern.matches(name);
        if name.starts_with(PRESENCE_PREFIX) && !settings.channels.iter().any(is_told) {
            let why = "nothing is told there: the channel behind the colon has no presence";
            return Err(EngineError::InvalidChannel { name: name.chars().take(80).collect(), why });
        }
        self.obtain(name, settings, now_ns)
    }

    /// Counts one more channel; at the bound a few of the stripe's make room, if they are idle.
    fn take_place(
        &self,
        stripe: &mut Stripe,
        channels_max: usize,
        now_s: u64,
    ) -> Result<Vec<Arc<Channel>>, EngineError> {
        let mut gone = Vec::new();
        let mut before = self.count.fetch_add(1, Ordering::Relaxed);
        if before >= channels_max {
            gone = stripe.make_room(now_s, &self.hasher);
            self.count.fetch_sub(gone.len(), Ordering::Relaxed);
            before -= gone.len();
        }
        if before >= channels_max {
            self.count.fetch_sub(1, Ordering::Relaxed);
            let (value, bound) = (before as u64 + 1, channels_max as u64);
            return Err(EngineError::LimitReached { name: "channels_max", value, bound });
        }
        if let (0, Some(wake)) = (before, &self.waker.0) {
            wake();
        }
        Ok(gone)
    }

    /// Looks at up to `count_max` channels, about, and gives up those that are idle; gives how many it looked at.
    ///
    /// Meant for one thread, a few channels at a time: everybody else may read meanwhile, and waits for those alone that
    /// are taken out.
    pub(crate) fn sweep(&self, count_max: usize, now_s: u64) -> usize {
        let mut place = self.sweep.lock().expect("no code panics while it holds the sweep");
        let mut looked = 0;
        while looked < count_max {
            let count = LOOKS_MAX.min(count_max - looked);
            let (seen, idle) = self.read(place.stripe).find_idle(place.index, count, now_s);
            let mut gone = Vec::new();
            if !idle.is_empty() {
                gone = self.write(place.stripe).give_up(idle, |channel| channel.is_idle(now_s), &self.hasher);
                self.count.fetch_sub(gone.len(), Ordering::Relaxed);
            }
            looked += seen + 1; // a stripe costs about as much as a channel
            place.index += seen - gone.len();
            if seen < count {
                *place = Place { stripe: (place.stripe + 1) % self.stripes.len(), index: 0 };
            }
        }
        looked
    }

    /// Gives up the channel of this epoch now, if nothing was ever published to it and nobody watches.
    pub(crate) fn forget_unused(&self, epoch: u64) {
        if !self.find_epoch(epoch).is_some_and(|channel| channel.is_unused()) {
            return;
        }
        let mut stripe = self.write(epoch as usize % STRIPES_MAX);
        let index = stripe.index_of(epoch).into_iter().collect();
        let gone = stripe.give_up(index, Channel::is_unused, &self.hasher);
        drop(stripe);
        self.count.fetch_sub(gone.len(), Ordering::Relaxed);
    }

    /// Up to `count_max` channels behind a place, and the place behind the last of them; `None` at the end.
    ///
    /// A place is a stripe, and the epoch of the last channel that was given of it. Whatever exists for as long as somebody
    /// goes from place to place is given once; what is made meanwhile may be left out.
    pub(crate) fn page(&self, from: (usize, u64), count_max: usize) -> (Vec<Arc<Channel>>, Option<(usize, u64)>) {
        let (mut found, (mut stripe, mut behind)) = (Vec::new(), from);
        while stripe < self.stripes.len() {
            let all = &self.read(stripe).by_epoch;
            let first = all.partition_point(|channel| channel.epoch <= behind);
            found.extend(all[first..].iter().take(count_max - found.len()).cloned());
            if found.len() == count_max {
                let last = found.last().map_or(behind, |channel: &Arc<Channel>| channel.epoch);
                return (found, Some((stripe, last)));
            }
            (stripe, behind) = (stripe + 1, 0);
        }
        (found, None)
    }

    /// An epoch such that every channel that is there now has a lower one, and every later one a greater one.
    pub(crate) fn next_epoch(&self) -> u64 {
        NEXT_EPOCH.load(Ordering::Relaxed) << STRIPE_BITS
    }

    /// How many exist.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// What [`sweep`](Self::sweep) has to look at, in all, to have seen every channel.
    pub(crate) fn looks(&self) -> usize {
        self.count() + self.stripes.len()
    }

    fn place_of(&self, name: &str) -> (u64, usize) {
        let hash = self.hasher.hash_one(name);
        (hash, (hash >> 32) as usize % self.stripes.len())
    }

    fn read(&self, stripe: usize) -> RwLockReadGuard<'_, Stripe> {
        self.stripes[stripe].read().expect("no code panics while it holds the registry")
    }

    fn write(&self, stripe: usize) -> RwLockWriteGuard<'_, Stripe> {
        self.stripes[stripe].write().expect("no code panics while it holds the registry")
    }

    /// What the channel called `name` promises: shared with all that promise the same.
    fn promised(&self, name: &str, settings: &Settings) -> Arc<ChannelSettings> {
        let mut promised = if self.is_listed { settings.channel(name) } else { ChannelSettings::default() };
        promised.compression &= self.compresses;
        let find = |known: &[Arc<ChannelSettings>]| known.iter().find(|one| ***one == promised).cloned();
        let known = find(&self.promises.read().expect("no code panics while it holds the promises"));
        known.unwrap_or_else(|| {
            let mut promises = self.promises.write().expect("no code panics while it holds the promises");
            find(&promises).unwrap_or_else(|| {
                promises.push(Arc::new(promised));
                Arc::clone(promises.last().expect("just added"))
            })
        })
    }
}

impl Stripe {
    fn find(&self, hash: u64, name: &str) -> Option<&Arc<Channel>> {
        self.by_name.find(hash, |channel| channel.name() == name)
    }

    fn index_of(&self, epoch: u64) -> Option<usize> {
        self.by_epoch.binary_search_by_key(&epoch, |channel| channel.epoch).ok()
    }

    fn insert(&mut self, hash: u64, channel: &Arc<Channel>, hasher: &RandomState) {
        self.by_name.insert_unique(hash, Arc::clone(channel), |channel| hasher.hash_one(channel.name()));
        self.by_epoch.push(Arc::clone(channel)); // epochs of a stripe are given under its lock
    }

    /// Looks at `count` channels from `start` on: how many there were, and the indexes of the idle.
    fn find_idle(&self, start: usize, count: usize, now_s: u64) -> (usize, Vec<usize>) {
        let some = self.by_epoch.iter().enumerate().skip(start).take(count);
        let seen = some.len();
        (seen, some.filter(|(_, channel)| channel.is_idle(now_s)).map(|(index, _)| index).collect())
    }

    /// Gives up the channels at these indexes, in ascending order, that still are idle. The caller drops them.
    ///
    /// Nobody else can hold one of those: new holders come through this stripe, which is locked.
    fn give_up(
        &mut self,
        mut indexes: Vec<usize>,
        may_go: impl Fn(&Channel) -> bool,
        hasher: &RandomState,
    ) -> Vec<Arc<Channel>> {
        indexes.retain(|&index| {
            let channel = self.by_epoch.get(index);
            channel.is_some_and(|channel| Arc::strong_count(channel) == PLACES && may_go(channel))
        });
        let (mut gone, mut at) = (Vec::with_capacity(indexes.len()), 0);
        for &index in &indexes {
            let channel = &self.by_epoch[index];
            let entry = self.by_name.find_entry(hasher.hash_one(channel.name()), |one| Arc::ptr_eq(one, channel));
            gone.extend(entry.ok().map(|entry| entry.remove().0));
        }
        let mut next = indexes.into_iter().peekable();
        self.by_epoch.retain(|_| {
            let is_gone = next.next_if_eq(&at).is_some();
            at += 1;
            !is_gone
        });
        let enough = self.by_epoch.len() * 2;
        if self.by_epoch.capacity() > 2 * enough {
            self.by_epoch.shrink_to(enough);
            self.by_name.shrink_to(enough, |channel| hasher.hash_one(channel.name()));
        }
        gone
    }

    /// Somebody needs a place: the next few that are idle go.
    fn make_room(&mut self, now_s: u64, hasher: &RandomState) -> Vec<Arc<Channel>> {
        let (seen, idle) = self.find_idle(self.looked, LOOKS_FOR_ROOM, now_s);
        let gone = self.give_up(idle, |channel| channel.is_idle(now_s), hasher);
        self.looked = if seen < LOOKS_FOR_ROOM { 0 } else { self.looked + seen - gone.len() };
        gone
    }
}

impl Channel {
    /// Nobody watches, and nothing was ever published.
    pub(crate) fn is_unused(&self) -> bool {
        self.occupancy() == 0 && self.has_begun() == (false, false)
    }

    /// Nobody watches, and nothing was published for as long as that matters.
    fn is_idle(&self, now_s: u64) -> bool {
        let since_s = now_s.saturating_sub(self.published_s.load(Ordering::Relaxed));
        if since_s < UNUSED_S || self.occupancy() > 0 {
            return false;
        }
        let (is_used, keeps) = self.has_begun();
        let idle_s = match (is_used, self.is_storing.load(Ordering::Relaxed)) {
            (false, _) => UNUSED_S,
            (true, false) => IDLE_S,
            (true, true) => self.settings.history_age.as_secs().max(IDLE_S),
        };
        !keeps && since_s >= idle_s
    }
}

#[cfg(test)]
mod tests {
    use super::super::Stand;
    use super::*;
    use crate::channel::Publication;
    use crate::protocol::Payload;

    const S: u64 = 1_000_000_000;

    fn settings(channels_max: usize) -> Settings {
        Settings { channels_max, ..Settings::default() }
    }

    fn registry(channels_max: usize) -> Registry {
        Registry::listed(&Arc::default(), channels_max)
    }

    #[test]
    fn where_secrets_and_texts_of_others_may_meet_nothing_is_compressed() {
        let settings = settings(2);
        for (registry, compresses) in [(registry(2), true), (registry(2).uncompressed(), false)] {
            let channel = registry.obtain("a", &settings, 0).expect("room");
            assert_eq!(channel.settings().compression, compresses);
        }
    }

    #[test]
    fn the_idle_make_room_and_come_back_in_a_later_epoch() {
        let (settings, registry) = (settings(2), registry(2));
        let first = registry.obtain("a", &settings, 0).expect("room").epoch;
        registry.obtain("b", &settings, 0).expect("room");
        let refused = registry.obtain("c", &settings, 0).expect_err("two exist and are fresh");
        assert_eq!(refused.to_string(), "channels_max: 3 is over the bound of 2");
        assert_eq!(registry.count(), 2);
        registry.obtain("c", &settings, UNUSED_S * S).expect("the idle made room");
        assert_eq!(registry.count(), 1);
        assert!(registry.obtain("a", &settings, UNUSED_S * S).expect("room").epoch > first);
    }

    #[test]
    fn a_sweep_forgets_the_idle_in_bounded_steps_and_gives_their_memory_back() {
        let (settings, registry) = (settings(10_000), registry(10_000));
        let obtain = |name: usize, at_s: u64| registry.obtain(&name.to_string(), &settings, at_s * S).expect("room");
        (0..5_000).for_each(|name| drop(obtain(name, 0)));
        let held = obtain(1, 0);
        let published = obtain(2, 0).epoch;
        let channel = registry.find_epoch(published).expect("it exists");
        channel.append(&Publication::new(Payload::Text("x")), Stand::Next, 0, u64::MAX, |_| ()).expect("room");
        drop(channel);
        (5_000..6_000).for_each(|name| drop(obtain(name, UNUSED_S)));
        let mut steps = 0;
        let rest = |at_s: u64, steps: &mut usize| {
            for _ in 0..100 {
                assert!(registry.sweep(100, at_s) <= 101);
                *steps += 1;
            }
            registry.count()
        };
        assert_eq!(rest(UNUSED_S - 1, &mut steps), 6_000, "all are fresh");
        assert_eq!(rest(UNUSED_S, &mut steps), 1_002, "the new ones, the one that is held, and the used one");
        assert_eq!(rest(IDLE_S, &mut steps), 1, "the one that is held");
        assert!(registry.find_epoch(published).is_none() && registry.find("2").is_none());
        assert!(Arc::ptr_eq(&registry.find_epoch(held.epoch).expect("held"), &registry.find("1").expect("held")));
        let room: usize = registry.stripes.iter().map(|one| one.read().expect("whole").by_epoch.capacity()).sum();
        assert!(room < 100, "{room} places for one channel");
    }

    #[test]
    fn the_first_channel_wakes_who_sweeps() {
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        let registry = registry(10).waking(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        for (name, at_s, expected) in [("a", 0, 1), ("b", 0, 1), ("c", IDLE_S, 2)] {
            registry.sweep(100, at_s);
            registry.obtain(name, &settings(10), at_s * S).expect("room");
            assert_eq!(woken.load(Ordering::Relaxed), expected);
        }
    }

    #[test]
    fn a_bad_name_is_refused_with_its_rule() {
        for (name, rule) in [("", "empty"), ("a\nb", "control"), (&"x".repeat(256)[..], "255 bytes")] {
            let text = registry(10).obtain(name, &Settings::default(), 0).expect_err(name).to_string();
            assert!(text.contains(rule), "{text}");
        }
    }
}
