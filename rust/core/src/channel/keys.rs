//! Conflation keys of one channel: which publication is the newest of each.
use std::collections::HashMap;

use crate::bytes::{Reader, put_bytes, put_u32, put_u64};

/// A key's number in its channel.
pub(super) type KeyId = u32;

/// What publications without a key have.
pub(super) const KEYLESS: KeyId = 0;

/// The keys of a channel of policy `latest`. Bounded by what its logs hold: see [`sweep`](Self::sweep).
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// The offset of the newest publication without a key.
    keyless: u64,
    /// Of a channel without keys it is none: there may be a million.
    named: Option<Box<Named>>,
}

#[derive(Debug)]
struct Named {
    ids: HashMap<Box<str>, KeyId>,
    /// By id less one: the offset of the newest publication; 0 of an id that is free.
    newest: Vec<u64>,
    free: Vec<KeyId>,
    /// Of keys that ended, the offset of the last removal; what came before it is gone, whatever came after.
    removed: HashMap<KeyId, u64>,
    sweep_at: usize,
}

const SWEEP_AT_MIN: usize = 1_024;

impl Keys {
    /// A publication of `key` gets this offset: the key's id, and the offset of the one that it replaces, or 0.
    pub(super) fn note(&mut self, key: Option<&str>, offset: u64) -> (KeyId, u64) {
        let Some(key) = key else { return (KEYLESS, std::mem::replace(&mut self.keyless, offset)) };
        let named = self.named.get_or_insert_default();
        let id = named.ids.get(key).copied().unwrap_or_else(|| named.add(key));
        (id, std::mem::replace(&mut named.newest[id as usize - 1], offset))
    }

    /// Whether no later publication has the same key.
    pub(super) fn is_newest(&self, id: KeyId, offset: u64) -> bool {
        match (id, &self.named) {
            (KEYLESS, _) => self.keyless == offset,
            (id, Some(named)) => named.newest.get(id as usize - 1) == Some(&offset),
            (_, None) => false,
        }
    }

    /// The publication that was noted last, of this key and at this offset, says that the key has ended.
    pub(super) fn note_removal(&mut self, id: KeyId, offset: u64) {
        if let Some(named) = &mut self.named {
            named.removed.insert(id, offset);
        }
    }

    /// Whether the key of a publication ended later.
    pub(super) fn is_removed(&self, id: KeyId, offset: u64) -> bool {
        self.named.as_ref().is_some_and(|named| named.removed.get(&id).is_some_and(|&removal| offset < removal))
    }

    /// What each is called.
    pub(super) fn names(&self) -> HashMap<KeyId, &str> {
        let named = self.named.iter().flat_map(|named| &named.ids);
        named.map(|(name, &id)| (id, &**name)).collect()
    }

    /// Whether none was ever named.
    pub(super) fn is_none(&self) -> bool {
        self.named.is_none()
    }

    /// Appends all of them: the offset of what has no key, then each by name, with its newest offset and that of its last
    /// removal, or 0. Gives the place of each in that list, from 1.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> HashMap<KeyId, u32> {
        put_u64(out, self.keyless);
        let all = self.named.as_ref().map(|named| named.sorted()).unwrap_or_default();
        put_u32(out, all.len() as u32);
        for (named, (name, id)) in self.named.iter().cycle().zip(&all) {
            put_bytes(out, name.as_bytes());
            put_u64(out, named.newest[*id as usize - 1]);
            put_u64(out, named.removed.get(id).copied().unwrap_or(0));
        }
        all.iter().zip(1..).map(|(&(_, id), place)| (id, place)).collect()
    }

    /// Reads what [`write`](Self::write) wrote: the keys, numbered in their order, and their names.
    pub(super) fn read<'a>(reader: &mut Reader<'a>) -> Option<(Self, Vec<&'a str>)> {
        let mut keys = Self { keyless: reader.u64()?, named: None };
        let count = reader.count(20)?;
        let mut names = Vec::with_capacity(count);
        for _ in 0..count {
            let (name, newest, removed) = (reader.text()?, reader.u64()?, reader.u64()?);
            let (id, _) = keys.note(Some(name), newest);
            (id as usize == names.len() + 1).then_some(())?; // each once
            if removed > 0 {
                keys.note_removal(id, removed);
            }
            names.push(name);
        }
        Some((keys, names))
    }

    /// Whether enough keys have come together to look for those that nobody needs.
    pub(super) fn is_sweep_due(&self) -> bool {
        self.named.as_ref().is_some_and(|named| named.ids.len() >= named.sweep_at)
    }

    /// Forgets the keys whose newest publication is before `oldest`: no log holds a frame of theirs.
    pub(super) fn sweep(&mut self, oldest: u64) {
        let Some(named) = &mut self.named else { return };
        let (newest, free, removed) = (&mut named.newest, &mut named.free, &mut named.removed);
        named.ids.retain(|_, &mut id| {
            let offset = &mut newest[id as usize - 1];
            let is_held = *offset >= oldest;
            if !is_held {
                *offset = 0;
                free.push(id);
                removed.remove(&id);
            }
            is_held
        });
        named.sweep_at = (named.ids.len() * 2).max(SWEEP_AT_MIN);
    }
}

impl Default for Named {
    fn default() -> Self {
        let (ids, newest, free, removed) = (HashMap::new(), Vec::new(), Vec::new(), HashMap::new());
        Self { ids, newest, free, removed, sweep_at: SWEEP_AT_MIN }
    }
}

impl Named {
    /// In the order of their numbers.
    fn sorted(&self) -> Vec<(&str, KeyId)> {
        let mut all: Vec<_> = self.ids.iter().map(|(name, &id)| (&**name, id)).collect();
        all.sort_unstable_by_key(|one| one.1);
        all
    }

    fn add(&mut self, key: &str) -> KeyId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.newest.push(0);
            self.newest.len() as KeyId
        });
        self.ids.insert(key.into(), id);
        id
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
    fn a_removal_is_of_what_came_before_it() {
        let mut keys = Keys::default();
        let (a, _) = keys.note(Some("a"), 1);
        assert!(!keys.is_removed(a, 1));
        let (_, replaced) = keys.note(Some("a"), 2);
        keys.note_removal(a, 2);
        assert!(replaced == 1 && keys.is_removed(a, 1) && !keys.is_removed(a, 2) && !keys.is_removed(KEYLESS, 1));
        keys.note(Some("a"), 3);
        assert!(keys.is_removed(a, 1) && !keys.is_removed(a, 3), "it lives again, but not what it was");
        keys.sweep(4);
        assert!(!keys.is_removed(a, 1), "its number may be another key's now");
    }

    #[test]
    fn keys_that_nobody_holds_are_forgotten_and_their_numbers_used_again() {
        let mut keys = Keys::default();
        for n in 1..=SWEEP_AT_MIN as u64 {
            keys.note(Some(&n.to_string()), n);
        }
        assert!(keys.is_sweep_due());
        keys.sweep(SWEEP_AT_MIN as u64);
        let named = keys.named.as_ref().expect("there are keys");
        assert_eq!((named.ids.len(), named.free.len()), (1, SWEEP_AT_MIN - 1));
        keys.note(Some("new"), 2_000);
        assert_eq!(keys.named.map(|named| named.newest.len()), Some(SWEEP_AT_MIN));
    }
}
