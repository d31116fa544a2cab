//! Channels by name. Made when first named; given up when nobody watches and nothing was published for a while.
use std::collections::HashMap;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, RwLock, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Channel, check_name};
use crate::error::EngineError;
use crate::settings::{ChannelSettings, Settings};

/// A channel that nobody watches is kept this long after its last publication, so that its offsets go on; one that keeps
/// publications for who returns as long as those.
const IDLE_S: u64 = 60;

/// The next epoch, of any engine in this process: starts at the clock's milliseconds, so that those of a process that is
/// started again are later.
static NEXT_EPOCH: LazyLock<AtomicU64> = LazyLock::new(|| {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    AtomicU64::new(since.map_or(1, |since| since.as_millis() as u64).max(1))
});

/// All channels of an engine.
#[derive(Debug)]
pub struct Registry {
    by_name: RwLock<Names>,
    /// Its channels are the application's and have names that clients use.
    is_listed: bool,
    /// Of all registries of an engine: formats that any subscriber has spoken.
    formats_seen: Arc<AtomicU16>,
}

#[derive(Debug, Default)]
struct Names {
    map: HashMap<Box<str>, Arc<Channel>>,
    /// The same by epoch, for who has a position only; some are gone.
    by_epoch: HashMap<u64, Weak<Channel>>,
    /// The idle are looked for when so many channels exist, so that the search costs O(1) a new channel.
    sweep_at: usize,
    /// Second of the last search: at the bound, unknown names must not make us search for each.
    swept_s: u64,
}

impl Registry {
    /// The channels of the application, which clients know by their names.
    #[must_use]
    pub fn listed(formats_seen: &Arc<AtomicU16>) -> Self {
        Self { by_name: RwLock::default(), is_listed: true, formats_seen: Arc::clone(formats_seen) }
    }

    /// Channels that no client can name, under any text: those of users, of hubs, of lanes. They promise the default.
    #[must_use]
    pub fn unlisted(formats_seen: &Arc<AtomicU16>) -> Self {
        Self { is_listed: false, ..Self::listed(formats_seen) }
    }

    /// The channel of this epoch, if it exists.
    #[must_use]
    pub fn find_epoch(&self, epoch: u64) -> Option<Arc<Channel>> {
        self.by_name.read().expect("no code panics while it holds the registry").by_epoch.get(&epoch)?.upgrade()
    }

    /// The channel called `name`, if it exists.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<Channel>> {
        self.by_name.read().expect("no code panics while it holds the registry").map.get(name).cloned()
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
        let mut names = self.by_name.write().expect("no code panics while it holds the registry");
        if let Some(channel) = names.map.get(name) {
            return Ok(Arc::clone(channel));
        }
        let now_s = now_ns / 1_000_000_000;
        if names.map.len() >= names.sweep_at.min(settings.channels_max) && (now_s > names.swept_s || now_s == 0) {
            names.sweep(now_s);
        }
        let count = names.map.len();
        if count >= settings.channels_max {
            return Err(EngineError::LimitReached {
                name: "channels_max",
                value: count as u64 + 1,
                bound: settings.channels_max as u64,
            });
        }
        let epoch = NEXT_EPOCH.fetch_add(1, Ordering::Relaxed);
        let promised = if self.is_listed { settings.channel(name) } else { ChannelSettings::default() };
        let channel = Arc::new(Channel::new(name, epoch, promised, self.is_listed, Arc::clone(&self.formats_seen)));
        channel.published_s.store(now_ns / 1_000_000_000, Ordering::Relaxed);
        names.map.insert(name.into(), Arc::clone(&channel));
        names.by_epoch.insert(epoch, Arc::downgrade(&channel));
        Ok(channel)
    }

    /// How many exist.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_name.read().expect("no code panics while it holds the registry").map.len()
    }
}

impl Channel {
    fn idle_s(&self) -> u64 {
        if self.is_storing.load(Ordering::Relaxed) { self.settings.history_age.as_secs().max(IDLE_S) } else { IDLE_S }
    }
}

impl Names {
    /// Gives up the idle. Nobody else can hold one of those: new holders come through this map, which is locked.
    fn sweep(&mut self, now_s: u64) {
        self.map.retain(|_, channel| {
            Arc::strong_count(channel) > 1
                || channel.occupancy() > 0
                || channel.keeps()
                || channel.published_s.load(Ordering::Relaxed).saturating_add(channel.idle_s()) > now_s
        });
        self.by_epoch.retain(|_, channel| channel.strong_count() > 0);
        self.by_epoch.shrink_to(self.map.len() * 2);
        self.map.shrink_to(self.map.len() * 2);
        self.swept_s = now_s;
        self.sweep_at = (self.map.len() * 2).max(1_024);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_idle_make_room_and_come_back_in_a_later_epoch() {
        let settings = Settings { channels_max: 2, ..Settings::default() };
        let registry = Registry::listed(&Arc::default());
        let first = registry.obtain("a", &settings, 0).expect("room").epoch;
        registry.obtain("b", &settings, 0).expect("room");
        let refused = registry.obtain("c", &settings, 0).expect_err("two exist and are fresh");
        assert_eq!(refused.to_string(), "channels_max: 3 is over the bound of 2");
        let later = (IDLE_S + 1) * 1_000_000_000;
        registry.obtain("c", &settings, later).expect("the idle made room");
        assert_eq!(registry.count(), 1);
        assert!(registry.obtain("a", &settings, later).expect("room").epoch > first);
    }

    #[test]
    fn a_bad_name_is_refused_with_its_rule() {
        let registry = Registry::listed(&Arc::default());
        for (name, rule) in [("", "empty"), ("a\nb", "control"), (&"x".repeat(256)[..], "255 bytes")] {
            let text = registry.obtain(name, &Settings::default(), 0).expect_err(name).to_string();
            assert!(text.contains(rule), "{text}");
        }
    }
}
