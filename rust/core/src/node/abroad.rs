//! The sequencer's side of an engine outside: what members publish goes there, what comes from there goes to them.
use std::sync::Arc;

use super::backbone::{
    Abroad, Backbone, Heard, Held, Level, OnDown, Outcome, Reach, Record, age_ns, is_snapshot, keep_of, key_of,
    name_of, publication_of,
};
use super::outgoing::{RULES, RULES_KEPT, write_rules};
use super::sequencer::{Peers, Sequencer};
use super::wire::{ALONE, AWAY, FromSequencer, Group, Key, REACHED};
use crate::channel::{Appended, Channel, LOCAL_EPOCH_END, Publication, Stand, read_publication, write_publication};
use crate::position::Position;

impl Sequencer {
    /// Has an engine outside order what is published, for this machine and others. `own` names this one among them, and is
    /// new each time that it begins.
    #[must_use]
    pub fn over(mut self, backbone: Box<dyn Backbone>, own: u64, on_down: OnDown) -> Self {
        self.abroad = Some(Abroad::new(backbone, own, on_down));
        self
    }

    /// Passes a publication of a member on; false if it is to be ordered here.
    pub(super) fn publish_abroad(
        &mut self,
        peer: u64,
        key: Key<'_>,
        publication: &[u8],
        peers: &mut dyn Peers,
    ) -> bool {
        let keep = keep_of(key, &self.settings);
        let Some(abroad) = &mut self.abroad else { return false };
        if abroad.reach == Reach::Down && abroad.on_down == OnDown::Local {
            return false;
        }
        if let Err(why) = abroad.publish(peer, key, publication, keep) {
            self.settle(peer, Err(why), peers);
        }
        true
    }

    /// Where a publication stands that is ordered here: with an engine outside in an epoch that is this machine's alone.
    pub(super) fn stand_here(&mut self, head: Position) -> Stand {
        let Some(abroad) = &mut self.abroad else { return Stand::Next };
        let position = match head.epoch < LOCAL_EPOCH_END {
            true => Position { offset: head.offset + 1, ..head },
            false => Position { epoch: abroad.own_epoch(), offset: 1 },
        };
        Stand::After { previous: head, position }
    }

    /// Tells members whether the engine is there, once that is known.
    pub(super) fn tell_of_backbone(&mut self, to: &[u64], peers: &mut dyn Peers) {
        let Some(abroad) = self.abroad.as_ref().filter(|abroad| abroad.reach != Reach::Unknown) else { return };
        let how = match (abroad.reach, abroad.on_down) {
            (Reach::Up, _) => REACHED,
            (_, OnDown::Local) => ALONE,
            (_, OnDown::Buffer | OnDown::Fail) => AWAY,
        };
        let why = abroad.why.clone();
        self.send(to, FromSequencer::Backbone(how, &why), peers);
    }

    /// Tells one of the members what has come that is not ours, so that all together count it once.
    pub(super) fn tell_of_foreign(&mut self, peers: &mut dyn Peers) {
        let of_machines = self.machines.foreign;
        let Some(&first) = self.members().first() else { return };
        let Some(abroad) = &mut self.abroad else { return };
        let all = abroad.foreign + abroad.unreadable + of_machines;
        let more = all - std::mem::replace(&mut abroad.foreign_told, all);
        if more > 0 {
            self.send(&[first], FromSequencer::Foreign(more), peers);
        }
    }

    fn published(&mut self, ticket: u64, outcome: Outcome, peers: &mut dyn Peers) {
        let Some(abroad) = &mut self.abroad else { return };
        let (peer, told) = abroad.tickets.settle(ticket, outcome);
        told.iter().for_each(|outcome| self.tell_outcome(peer, outcome, peers));
    }

    /// What became of a member's newest publication: a place is told in its turn, a refusal at once.
    pub(super) fn settle(&mut self, peer: u64, outcome: Outcome, peers: &mut dyn Peers) {
        let behind = self.abroad.as_ref().map_or(0, |abroad| abroad.tickets.count(peer));
        match (&mut self.abroad, &outcome) {
            (_, Err(why)) => self.send(&[peer], FromSequencer::Failed(behind, why), peers),
            (Some(abroad), Ok(_)) if behind > 0 => {
                let ticket = abroad.tickets.take(peer);
                let (_, told) = abroad.tickets.settle(ticket, outcome);
                debug_assert!(told.is_empty(), "something is before it");
            }
            _ => self.tell_outcome(peer, &outcome, peers),
        }
    }

    /// What became of a member's oldest publication that was not told of.
    fn tell_outcome(&mut self, peer: u64, outcome: &Outcome, peers: &mut dyn Peers) {
        let message = match outcome {
            Ok(position) => FromSequencer::Placed(*position),
            Err(why) => FromSequencer::Failed(0, why),
        };
        self.send(&[peer], message, peers);
    }

    /// A member wants to have all that was published in a channel until now: on other machines as well.
    pub(super) fn reach(&mut self, peer: u64, key: Key<'_>, peers: &mut dyn Peers) {
        let head = self.obtain(key).map(|channel| channel.position());
        let Some(abroad) = self.abroad.as_mut().filter(|abroad| abroad.reach != Reach::Down) else {
            return self.send(&[peer], FromSequencer::Reached(key), peers);
        };
        let (Some(level), Ok(head)) = (abroad.levels[key.0 as usize].get_mut(key.1), head) else {
            return self.send(&[peer], FromSequencer::Reached(key), peers);
        };
        if level.is_level && !level.is_asking {
            level.is_asking = true;
            level.reaching.push(peer);
            abroad.backbone.since(&name_of(key), head);
        } else {
            level.reaching_next.push(peer); // the answer that is on its way may be from before
        }
    }

    /// All that was asked for has come: who waits is told, and who came meanwhile has it asked for.
    fn reached(&mut self, key: Key<'_>, peers: &mut dyn Peers) {
        let Ok(head) = self.obtain(key).map(|channel| channel.position()) else { return };
        let Some(abroad) = &mut self.abroad else { return };
        let Some(level) = abroad.levels[key.0 as usize].get_mut(key.1) else { return };
        let told = std::mem::take(&mut level.reaching);
        if level.is_level && !level.is_asking && !level.reaching_next.is_empty() {
            level.reaching = std::mem::take(&mut level.reaching_next);
            level.is_asking = true;
            abroad.backbone.since(&name_of(key), head);
        }
        self.send(&told, FromSequencer::Reached(key), peers);
    }

    /// Whether a channel is as far here as it can be; else that peer is given it once it is.
    fn is_level(&mut self, peer: u64, key: Key<'_>, channel: &Arc<Channel>) -> bool {
        let Some(abroad) = &mut self.abroad else { return true };
        let levels = &mut abroad.levels[key.0 as usize];
        if !levels.contains_key(key.1) {
            channel.forget_empty();
            levels.insert(key.1.into(), Default::default());
            abroad.backbone.want(&name_of(key), keep_of(key, &self.settings));
        }
        let Some(level) = levels.get_mut(key.1).filter(|level| !level.is_level && abroad.reach != Reach::Down) else {
            return true;
        };
        if !level.peers.contains(&peer) {
            level.peers.push(peer);
        }
        level.channel = Some(Arc::clone(channel));
        false
    }

    /// A member waits for a channel no longer.
    pub(super) fn wait_no_more(&mut self, peer: u64, key: Key<'_>) {
        let Some(abroad) = &mut self.abroad else { return };
        if let Some(level) = abroad.level(key) {
            level.forget(peer);
        }
        self.leave_abroad(key);
    }

    /// A member is gone.
    pub(super) fn gone_from_here(&mut self, peer: u64) {
        let Some(abroad) = &mut self.abroad else { return };
        abroad.tickets.forget(peer);
        let mut names = Vec::new();
        for group in Group::ALL {
            for (name, level) in &mut abroad.levels[group as usize] {
                level.forget(peer);
                if level.peers.is_empty() {
                    names.push((group, name.clone()));
                }
            }
        }
        names.iter().for_each(|(group, name)| self.leave_abroad((*group, name)));
    }

    /// Where nobody here is interested any more, nothing is to come.
    fn leave_abroad(&mut self, key: Key<'_>) {
        let Some(abroad) = &mut self.abroad else { return };
        let is_wanted = self.interests[key.0 as usize].contains_key(key.1);
        if !is_wanted && abroad.level(key).is_some_and(|level| level.peers.is_empty()) {
            abroad.let_go(key);
            abroad.levels[key.0 as usize].remove(key.1);
            abroad.backbone.leave(&name_of(key));
        }
    }

    /// Something came of the engine outside.
    ///
    /// # Errors
    /// What is wrong with it, in words for the log: it is not taken, and all else goes on.
    pub fn heard(&mut self, heard: Heard, peers: &mut dyn Peers) -> Result<(), String> {
        let Some(abroad) = &mut self.abroad else { return Ok(()) };
        match heard {
            Heard::Up => {
                abroad.went_up();
                abroad.backbone.publish(0, RULES, &write_rules(&self.settings), RULES_KEPT);
                let all = self.members();
                self.tell_of_backbone(&all, peers);
                if let Some(own) = self.abroad.as_ref().map(|abroad| abroad.own) {
                    self.machines_up(own);
                }
            }
            Heard::Down(why) => {
                self.went_down(why, peers);
                self.machines_down();
            }
            Heard::Published(ticket, outcome) => self.published(ticket, outcome, peers),
            Heard::Wanted(name, top) => return self.wanted(&name, top, peers),
            Heard::Record(name, record) => return self.came_back(&name, record, peers),
            Heard::Since(name, records, top) => return self.filled(&name, records, top, peers),
            Heard::SinceFailed(name) => return self.not_filled(&name, peers),
            Heard::Unheard(name, why) => return self.refused(&name, &why, peers),
            Heard::NoSnapshot(name, why) => self.start_live(known(&name)?.1, &why, peers),
            Heard::Told(bytes) => return self.heard_letter(&bytes, peers),
            Heard::Foreign(count) => abroad.foreign = count,
        }
        Ok(())
    }

    /// Nobody waits for what may never come: whoever does has what there is, and the rest when it comes.
    fn went_down(&mut self, why: String, peers: &mut dyn Peers) {
        let Some(abroad) = &mut self.abroad else { return };
        let held = abroad.went_down(why);
        let (mut waiting, mut reaching) = (Vec::new(), Vec::new());
        for group in Group::ALL {
            for (name, level) in &mut abroad.levels[group as usize] {
                (level.is_level, level.is_asking, level.is_asked_again) = (false, false, false);
                level.take_waiting();
                if !level.peers.is_empty() {
                    waiting.push((group, name.clone()));
                }
                let who = level.take_reaching();
                if !who.is_empty() {
                    reaching.push((group, name.clone(), who));
                }
            }
        }
        waiting.iter().for_each(|(group, name)| self.give_waiting((*group, name), peers));
        for (group, name, who) in &reaching {
            self.send(who, FromSequencer::Reached((*group, name)), peers);
        }
        held.into_iter().for_each(|one| self.goes_nowhere(one, peers));
        let all = self.members();
        self.tell_of_backbone(&all, peers);
    }

    /// The engine is away, and for this publication nobody waits until it comes back.
    fn goes_nowhere(&mut self, held: Held, peers: &mut dyn Peers) {
        let Some(abroad) = &self.abroad else { return };
        let outcome = match abroad.on_down {
            OnDown::Local => known(&held.name).and_then(|key| {
                let (_, publication) = publication_of(&held.record, &self.settings)?;
                let channel = self.obtain(key).map_err(|error| error.to_string())?;
                self.order(key, &channel, &publication, peers)?
            }),
            OnDown::Buffer | OnDown::Fail => {
                Err(format!("the backbone is out of reach, it was not published: {}", abroad.why))
            }
        };
        self.published(held.ticket, outcome, peers);
    }

    pub(super) fn give_waiting(&mut self, key: Key<'_>, peers: &mut dyn Peers) {
        let Some(abroad) = &mut self.abroad else { return };
        let Some(level) = abroad.level(key) else { return };
        let _stays = level.channel.take();
        level.heard_from = None;
        for peer in std::mem::take(&mut level.peers) {
            match self.obtain(key) {
                Ok(channel) => self.give(peer, key, &channel, peers),
                Err(error) => self.send(&[peer], FromSequencer::Cannot(key, &error.to_string()), peers),
            }
        }
    }

    fn wanted(&mut self, name: &str, top: Position, peers: &mut dyn Peers) -> Result<(), String> {
        let key = known(name)?;
        let channel = self.obtain(key).map_err(|error| error.to_string())?;
        let head = head_in(&channel, top.epoch);
        let Some(abroad) = &mut self.abroad else { return Ok(()) };
        let Some(level) = abroad.level(key) else { return Ok(()) };
        level.top = Some(top);
        if top.offset == 0 || top == head {
            level.is_level = true;
            if top.offset == 0 && channel.know_empty() {
                self.give_again(key, &channel, peers);
            }
            return self.catch_up(key, peers);
        }
        (level.is_level, level.is_asking) = (false, true);
        abroad.backbone.since(name, head);
        Ok(())
    }

    /// Who has the channel already learns that nothing was published until now.
    fn give_again(&mut self, key: Key<'_>, channel: &Channel, peers: &mut dyn Peers) {
        let Some(interest) = self.interests[key.0 as usize].get(key.1) else { return };
        let to = interest.peers.clone();
        let dump = channel.dump(self.clock.now_ns());
        self.send(&to, FromSequencer::Have(key, &dump), peers);
    }

    fn came_back(&mut self, name: &str, record: Record, peers: &mut dyn Peers) -> Result<(), String> {
        let key = known(name)?;
        if is_snapshot(&record.bytes) {
            return self.snapshot_came(key, &record, peers);
        }
        self.hear_listened(key, &record, peers)?;
        let Some(level) = self.level(key) else { return Ok(()) }; // nobody wants it any more
        if !level.is_level {
            level.wait(record);
            return Ok(());
        }
        self.take(key, record, false, peers)
    }

    /// What newcomers begin with. It is true where it was made: elsewhere it is of no use, and another one is asked for.
    fn snapshot_came(&mut self, key: Key<'_>, record: &Record, peers: &mut dyn Peers) -> Result<(), String> {
        let channel = self.obtain(key).map_err(|error| error.to_string())?;
        let here = channel.position();
        if here == record.position || (here.offset, record.position.offset) == (0, 0) {
            let (_, publication) = publication_of(&record.bytes, &self.settings)?;
            self.order(key, &channel, &publication, peers)??;
        }
        Ok(())
    }

    pub(super) fn level(&mut self, key: Key<'_>) -> Option<&mut Level> {
        self.abroad.as_mut()?.level(key)
    }

    /// What was asked for behind our position: with it the channel is where the answer says, and what came meanwhile follows.
    fn filled(&mut self, name: &str, records: Vec<Record>, top: Position, peers: &mut dyn Peers) -> Result<(), String> {
        let key = known(name)?;
        let head = self.obtain(key).map(|channel| channel.position()).map_err(|error| error.to_string())?;
        let Some(abroad) = &mut self.abroad else { return Ok(()) };
        let Some(level) = abroad.levels[key.0 as usize].get_mut(key.1).filter(|level| level.is_asking) else {
            return Ok(()); // it was asked before the engine was out of reach, or nobody wants it
        };
        // It may have been given before a life began of which something is here already; or the clock there was set back.
        let is_over = level.top.is_some_and(|known| top.epoch != 0 && top.epoch < known.epoch);
        if is_over && !std::mem::replace(&mut level.is_asked_again, true) {
            abroad.backbone.since(name, head);
            return Ok(());
        }
        (level.is_asking, level.is_asked_again, level.top) = (false, false, Some(top));
        let newest = records.last().map(|record| record.position);
        // One that is none is a gap, and the others follow.
        let mut outcome = Ok(());
        for record in records {
            self.give_before(key, record.position, peers);
            outcome = outcome.and(self.append(key, &record, peers));
        }
        let goes_on = newest.filter(|newest| newest.epoch == top.epoch && newest.offset < top.offset);
        let Some(level) = self.level(key) else { return outcome };
        let Some(newest) = goes_on else {
            level.is_level = true;
            return outcome.and(self.catch_up(key, peers));
        };
        level.is_asking = true;
        if let Some(abroad) = &mut self.abroad {
            abroad.backbone.since(name, newest);
        }
        outcome
    }

    /// What is missing cannot be had: the channel goes on behind a gap, which is told as any other.
    fn not_filled(&mut self, name: &str, peers: &mut dyn Peers) -> Result<(), String> {
        let key = known(name)?;
        let Some(level) = self.level(key) else { return Ok(()) };
        let newest = level.waiting.back().map(|newest| newest.previous);
        match newest.max(level.top) {
            Some(top) => self.filled(name, Vec::new(), top, peers),
            // Where it is nobody has said.
            None => {
                self.reached(key, peers);
                Ok(())
            }
        }
    }

    /// Nothing comes of a channel: who waits for it is told why.
    fn refused(&mut self, name: &str, why: &str, peers: &mut dyn Peers) -> Result<(), String> {
        let key = known(name)?;
        let Some(abroad) = &mut self.abroad else { return Ok(()) };
        abroad.let_go(key);
        let level = abroad.levels[key.0 as usize].remove(key.1);
        let Some(mut level) = level else { return Ok(()) };
        self.send(&level.take_reaching(), FromSequencer::Reached(key), peers);
        self.send(&level.peers, FromSequencer::Cannot(key, why), peers);
        Ok(())
    }

    /// It is level: what came meanwhile follows, and who waits is given it.
    fn catch_up(&mut self, key: Key<'_>, peers: &mut dyn Peers) -> Result<(), String> {
        self.move_on(key)?;
        let mut outcome = Ok(());
        for record in self.level(key).map(Level::take_waiting).unwrap_or_default() {
            self.give_before(key, record.position, peers);
            outcome = outcome.and(self.take(key, record, true, peers));
        }
        if self.level(key).is_some_and(|level| level.is_level) {
            self.give_waiting(key, peers);
            if let Some(abroad) = &mut self.abroad {
                abroad.let_go(key);
            }
        }
        self.reached(key, peers);
        outcome
    }

    /// What is not kept outside is not to come: a channel of which nothing is here stands where it stands there, before what
    /// came meanwhile. So what is given to newcomers alone has the right place.
    fn move_on(&mut self, key: Key<'_>) -> Result<(), String> {
        let Some(level) = self.level(key) else { return Ok(()) };
        let Some(top) = level.top else { return Ok(()) };
        let first = level.waiting.front().filter(|first| first.position <= top);
        let stands = first.map_or(top, |first| first.previous);
        let channel = self.obtain(key).map_err(|error| error.to_string())?;
        if stands.offset == 0 || channel.position().offset > 0 {
            return Ok(());
        }
        channel.move_on(stands, self.clock.now_ns(), |_| ()).map_err(|error| error.to_string())
    }

    /// A record, in its turn. Where something is missing before it, it waits for that. What the engine does not have up to
    /// where it says that it is, where it `has_said` so just now, is lost.
    fn take(&mut self, key: Key<'_>, record: Record, has_said: bool, peers: &mut dyn Peers) -> Result<(), String> {
        let channel = self.obtain(key).map_err(|error| error.to_string())?;
        let Some(abroad) = &mut self.abroad else { return Ok(()) };
        let Some(level) = abroad.level(key) else { return Ok(()) };
        let Record { previous, position, .. } = record;
        let head = head_in(&channel, position.epoch);
        let is_there = position.epoch == head.epoch && position.offset <= head.offset;
        let is_over = level.top.is_some_and(|top| position.epoch < top.epoch);
        if is_there || (is_over && has_said) {
            return Ok(());
        }
        let is_covered = |top: Position| previous.epoch == top.epoch && previous.offset <= top.offset;
        let is_lost = has_said && level.top.is_some_and(is_covered);
        if level.is_level && !is_over && (previous == head || previous.offset == 0 || is_lost) {
            level.top = Some(position);
            return self.append(key, &record, peers);
        }
        level.is_level = false;
        level.wait(record);
        if !std::mem::replace(&mut level.is_asking, true) {
            abroad.backbone.since(&name_of(key), head);
        }
        Ok(())
    }

    /// Appends a record where it stands, and sends it to the members that want it.
    fn append(&mut self, key: Key<'_>, record: &Record, peers: &mut dyn Peers) -> Result<(), String> {
        let text = |what: String| format!("{}: the record at {} {what}", key.1, record.position);
        let read = publication_of(&record.bytes, &self.settings);
        if read.is_err()
            && let Some(abroad) = &mut self.abroad
        {
            abroad.unreadable += 1;
        }
        let (of, publication) = read.map_err(text)?;
        let channel = self.obtain(key).map_err(|error| error.to_string())?;
        let is_own = self.abroad.as_ref().is_some_and(|abroad| abroad.own == of);
        let now_ns = self.clock.now_ns().saturating_sub(age_ns(record.published_ms));
        let (before, newest) = (channel.position(), channel.newest_of(record.position.epoch));
        let is_whole = record.previous == before
            || newest.is_some_and(|newest| record.previous.offset <= newest.offset)
            || channel.is_begun_by(record.previous, record.position);
        let stand = Stand::After { previous: record.previous, position: record.position };
        let mut bytes = Vec::new();
        let append = |publication: &Publication<'_>| {
            // Who is excluded is a connection of the machine that published it.
            let own = Publication { excluded: if is_own { publication.excluded } else { &[] }, ..*publication };
            write_publication(&own, &mut bytes);
            let appended = channel.append(&own, stand, now_ns, u64::MAX, |_| ());
            (appended, publication.is_keyframe)
        };
        let (appended, is_keyframe) = read_publication(&publication, append).ok_or_else(|| text("is none".into()))?;
        match appended.map_err(|error| text(error.to_string()))? {
            Appended::Duplicate(_) => Ok(()),
            Appended::Missing(formats) => Err(text(format!("came without its encoding for {formats:?}"))),
            Appended::At(position) => {
                let previous = if is_whole { before } else { record.previous };
                self.send_record(key, (position, previous), &bytes, is_keyframe, peers);
                Ok(())
            }
        }
    }

    /// Sends a record to the members that want it.
    pub(super) fn send_record(
        &mut self,
        key: Key<'_>,
        (position, previous): (Position, Position),
        publication: &[u8],
        is_beginning: bool,
        peers: &mut dyn Peers,
    ) {
        let Some(interest) = self.interests[key.0 as usize].get_mut(key.1) else { return };
        if is_beginning {
            interest.asked = None;
        }
        let to = interest.peers.clone();
        self.send(&to, FromSequencer::Record(key, position, previous, publication), peers);
    }

    pub(super) fn give_or_wait(&mut self, peer: u64, key: Key<'_>, channel: &Arc<Channel>, peers: &mut dyn Peers) {
        if self.is_level(peer, key, channel) {
            self.give(peer, key, channel, peers);
        }
    }
}

/// How far a channel here is in an epoch; else where it is.
fn head_in(channel: &Channel, epoch: u64) -> Position {
    channel.newest_of(epoch).unwrap_or_else(|| channel.position())
}

fn known(name: &str) -> Result<Key<'_>, String> {
    key_of(name).ok_or_else(|| format!("{name:?} is no channel's name outside"))
}
