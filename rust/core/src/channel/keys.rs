//! Conflation keys of one channel: which publication is the newest of each.
use std::collections::HashMap;

/// A key's number in its channel.
pub(super) type KeyId = u32;

/// What publications without a key have.
pub(super) const KEYLESS: KeyId = 0;

/// The keys of a channel of policy `latest`. Bounded by what its logs hold: see [`sweep`](Self::sweep).
#[derive(Debug)]
pub(super) struct Keys {
    ids: HashMap<Box<str>, KeyId>,
    /// By id: the offset of the newest publication; 0 of an id that is free.
    newest: Vec<u64>,
    free: Vec<KeyId>,
    sweep_at: usize,
}

const SWEEP_AT_MIN: usize = 1_024;

impl Default for Keys {
    fn default() -> Self {
        Self { ids: HashMap::new(), newest: vec![0], free: Vec::new(), sweep_at: SWEEP_AT_MIN }
    }
}

impl Keys {
    /// A publication of `key` gets this offset: the key's id, and the offset of the one that it replaces, or 0.
    pub(super) fn note(&mut self, key: Option<&str>, offset: u64) -> (KeyId, u64) {
        let id = match key {
            None => KEYLESS,
            Some(key) => match self.ids.get(key) {
                Some(&id) => id,
                None => self.add(key),
            },
        };
        (id, std::mem::replace(&mut self.newest[id as usize], offset))
    }

    fn add(&mut self, key: &str) -> KeyId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.newest.push(0);
            (self.newest.len() - 1) as KeyId
        });
        self.ids.insert(key.into(), id);
        id
    }

    /// Whether no later publication has the same key.
    pub(super) fn is_newest(&self, id: KeyId, offset: u64) -> bool {
        self.newest.get(id as usize) == Some(&offset)
    }

    /// Whether enough keys have come together to look for those that nobody needs.
    pub(super) fn is_sweep_due(&self) -> bool {
        self.ids.len() >= self.sweep_at
    }

    /// Forgets the keys whose newest publication is before `oldest`: no log holds a frame of theirs.
    pub(super) fn sweep(&mut self, oldest: u64) {
        let (newest, free) = (&mut self.newest, &mut self.free);
        self.ids.retain(|_, &mut id| {
            let is_held = newest[id as usize] >= oldest;
            if !is_held {
                newest[id as usize] = 0;
                free.push(id);
            }
            is_held
        });
        self.sweep_at = (self.ids.len() * 2).max(SWEEP_AT_MIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_key_replaces_the_one_before() {
        let mut keys = Keys::default();
        let (a, before) = keys.note(Some("a"), 1);
        assert_eq!(before, 0);
        assert_eq!(keys.note(None, 2), (KEYLESS, 0));
        assert_eq!(keys.note(Some("a"), 3), (a, 1));
        assert!(!keys.is_newest(a, 1) && keys.is_newest(a, 3) && keys.is_newest(KEYLESS, 2));
    }

    #[test]
    fn keys_that_nobody_holds_are_forgotten_and_their_numbers_used_again() {
        let mut keys = Keys::default();
        for n in 1..=SWEEP_AT_MIN as u64 {
            keys.note(Some(&n.to_string()), n);
        }
        assert!(keys.is_sweep_due());
        keys.sweep(SWEEP_AT_MIN as u64);
        assert_eq!((keys.ids.len(), keys.free.len()), (1, SWEEP_AT_MIN - 1));
        keys.note(Some("new"), 2_000);
        assert_eq!(keys.newest.len(), SWEEP_AT_MIN + 1);
    }
}
