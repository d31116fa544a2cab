//! Patterns that members listen to, at an engine outside: what is published on other machines is heard here, too.
use super::backbone::{Record, name_of};
use super::sequencer::{Peers, Sequencer};
use super::wire::{Group, Key};
use crate::position::Position;

impl Sequencer {
    /// A member begins to listen to a pattern, or has ended to: the first and the last are said outside.
    pub(super) fn listen_abroad(&mut self, pattern: &str, is_begun: bool) {
        if self.is_listened(pattern) {
            return;
        }
        if let Some(abroad) = &mut self.abroad {
            abroad.backbone.listen(&name_of((Group::Channel, pattern)), is_begun);
        }
    }

    /// A record has come: whoever listens to such channels wants this one from it on.
    ///
    /// # Errors
    /// There can be no such channel.
    pub(super) fn hear_listened(&mut self, key: Key<'_>, record: &Record, peers: &mut dyn Peers) -> Result<(), String> {
        if self.patterns == 0 || key.0 != Group::Channel {
            return Ok(());
        }
        let waiting = self.waiting_for(key);
        let channel = self.obtain(key).map_err(|error| error.to_string())?;
        self.hear_patterns(key, &channel, peers);
        if self.waiting_for(key) > waiting
            && let Some(level) = self.level(key)
        {
            level.heard_from.get_or_insert(record.position);
        }
        Ok(())
    }

    fn waiting_for(&mut self, key: Key<'_>) -> usize {
        self.level(key).map_or(0, |level| level.peers.len())
    }

    /// This record comes next: where somebody who listens is to hear it, it has what was before.
    pub(super) fn give_before(&mut self, key: Key<'_>, position: Position, peers: &mut dyn Peers) {
        let from = self.level(key).and_then(|level| level.heard_from);
        if from.is_some_and(|from| position.epoch != from.epoch || position >= from) {
            self.give_waiting(key, peers);
        }
    }
}
