//! How machines meet: the sequencer's side of what they tell one another, and of what their members do.
use smallvec::SmallVec;

use super::machines::{
    HERE_NS, LEASE_NS, MACHINES_MAX, Machine, Machines, NEW_NS, NUMBERS, Pieces, REMEMBERED_MAX, digest, remember,
};
use super::sequencer::{Peers, Sequencer};
use super::telling::{Here, Letter, Said, Told};
use super::wire::FromSequencer;

/// What machines tell one another comes in letters of so many bytes at most: an engine outside has to take that.
pub const LETTER_BYTES_MAX: usize = 64 << 10;
/// Of a message in one of them, behind what says whose it is and for whom.
pub(super) const PIECE_BYTES_MAX: usize = 48 << 10;
/// As Python's `logging` has them.
const INFO: u8 = 20;
const WARNING: u8 = 30;
const ERROR: u8 = 40;

impl Sequencer {
    /// What this machine is called in the others' logs.
    #[must_use]
    pub fn named(mut self, name: &str, release: &str) -> Self {
        (self.machines.name, self.machines.release) = (name.to_owned(), release.to_owned());
        self
    }

    /// What is to be logged, since the last call.
    pub fn take_lines(&mut self) -> Vec<(u8, String)> {
        std::mem::take(&mut self.machines.lines)
    }

    /// The engine outside is reached: a life begins.
    pub(super) fn machines_up(&mut self, own: u64) {
        self.machines.own = own;
        self.machines.is_up = true;
        self.begin_life();
    }

    /// It is out of reach: who is not heard of for long is gone.
    pub(super) fn machines_down(&mut self) {
        self.machines.is_up = false;
    }

    fn begin_life(&mut self) {
        self.machines.begin_life(self.clock.now_ns());
        self.say_here(None);
    }

    /// Says that this machine is there, to one or to all.
    pub(super) fn say_here(&mut self, to: Option<u64>) {
        if !self.machines.is_up {
            return;
        }
        let (members, now_ns) = (self.numbers(), self.clock.now_ns());
        let digest = digest(&self.agreed);
        let Machines { name, release, began_ns, secret, .. } = &self.machines;
        let is_settled = now_ns - began_ns > NEW_NS;
        let here = Here { digest, release, name, members: &members, secret, is_settled };
        let letter = self.letter(Said::Here(here));
        self.post(to, &letter);
        if to.is_none() {
            self.machines.told_ns = now_ns;
        }
    }

    fn letter(&self, said: Said<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        Letter { own: self.machines.own, since: self.machines.since, said }.write(&mut bytes);
        bytes
    }

    fn post(&mut self, to: Option<u64>, letter: &[u8]) {
        let Some(abroad) = self.abroad.as_mut().filter(|_| self.machines.is_up) else { return };
        if let Err(why) = abroad.backbone.tell(to, letter)
            && !std::mem::replace(&mut self.machines.is_torn, true)
        {
            let line = format!("other machines could not be told something ({why}): they are told all anew");
            self.machines.lines.push((ERROR, line));
        }
    }

    /// Some time has passed.
    pub(super) fn look_after_machines(&mut self, peers: &mut dyn Peers) {
        let now_ns = self.clock.now_ns();
        let silent = self.machines.known.iter().filter(|(_, one)| now_ns > one.heard_ns.saturating_add(LEASE_NS));
        for id in silent.map(|(&id, _)| id).collect::<Vec<_>>() {
            let Some(gone) = self.machines.known.remove(&id) else { continue };
            remember(&mut self.machines.over, (id, gone.since));
            let line =
                format!("machine {} is silent for {} s: its clients have gone", gone.name, LEASE_NS / 1_000_000_000);
            self.machines.lines.push((WARNING, line));
            self.tell_of_members(&gone, &gone.members, false, peers);
        }
        if self.machines.is_up && self.machines.is_torn && now_ns - self.machines.began_ns > NEW_NS {
            self.begin_life();
        } else if now_ns - self.machines.told_ns >= HERE_NS {
            self.say_here(None);
        }
    }

    /// A member that has just come is told who else is there.
    pub(super) fn tell_of_machines(&mut self, peer: u64, peers: &mut dyn Peers) {
        let all = self.machines.known.values();
        let members =
            all.flat_map(|one| one.members.iter().map(|&member| (one.number_of(member), self.machines.age_of(one))));
        for (number, age) in members.collect::<Vec<_>>() {
            self.send(&[peer], FromSequencer::ChangedElsewhere(number, true, age), peers);
        }
        for secret in self.machines.secrets.clone() {
            self.send(&[peer], FromSequencer::SecretElsewhere(&secret), peers);
        }
    }

    /// A member says what it and the others sign tokens with.
    pub(super) fn note_secret(&mut self, secret: &[u8]) {
        if *self.machines.secret != *secret {
            self.machines.secret = secret.to_vec();
            self.say_here(None);
        }
    }

    fn learn_secret(&mut self, secret: &[u8], peers: &mut dyn Peers) {
        if secret.is_empty() || self.machines.secrets.iter().any(|known| **known == *secret) {
            return;
        }
        self.machines.secrets.push_back(secret.into());
        if self.machines.secrets.len() > REMEMBERED_MAX {
            self.machines.secrets.pop_front();
        }
        let to = self.members();
        self.send(&to, FromSequencer::SecretElsewhere(secret), peers);
    }

    fn tell_of_members(&mut self, machine: &Machine, members: &[u8], is_there: bool, peers: &mut dyn Peers) {
        let (to, age) = (self.members(), self.machines.age_of(machine));
        for &member in members {
            let changed = FromSequencer::ChangedElsewhere(machine.number_of(member), is_there, age);
            self.send(&to, changed, peers);
        }
    }

    /// A member tells others, wherever they are, or with none all. To each machine it goes once, whoever there it is for.
    pub(super) fn tell_anywhere(&mut self, from: u8, to: &[u8], (kind, message): (u8, &[u8]), peers: &mut dyn Peers) {
        let (numbers, _) = to.as_chunks();
        let to: SmallVec<[u32; 16]> = numbers.iter().map(|&number| u32::from_le_bytes(number)).collect();
        let here = self.members_that(|one| if to.is_empty() { one != from } else { to.contains(&u32::from(one)) });
        self.send(&here, FromSequencer::ToldAnywhere(u32::from(from), kind, message), peers);
        let told = Told { life: 0, from, to: &[], kind, part: 0, is_last: true, message };
        if to.is_empty() {
            if !self.machines.known.is_empty() {
                self.post_told(None, told);
            }
            return;
        }
        let all = self.machines.known.iter().map(|(&id, one)| (id, one.since, one.place));
        for (id, life, place) in all.collect::<SmallVec<[_; 8]>>() {
            let its = to.iter().filter(|&number| number / NUMBERS == place).map(|number| (number % NUMBERS) as u8);
            let its: SmallVec<[u8; 16]> = its.collect();
            if !its.is_empty() {
                self.post_told(Some(id), Told { life, to: &its, ..told });
            }
        }
    }

    /// In pieces that any engine outside takes.
    fn post_told(&mut self, to: Option<u64>, told: Told<'_>) {
        let count = told.message.len().div_ceil(PIECE_BYTES_MAX).max(1);
        let mut rest = told.message;
        for part in 0..count {
            let message = rest.split_off(..PIECE_BYTES_MAX.min(rest.len())).unwrap_or_default();
            let (part, is_last) = (part as u16, part + 1 == count);
            let letter = self.letter(Said::Told(Told { part, is_last, message, ..told }));
            self.post(to, &letter);
        }
    }

    /// Something came that a machine of the prefix tells, or somebody who is none.
    ///
    /// # Errors
    /// It is none, or of one that is set to something else; in words for the log.
    pub(super) fn heard_letter(&mut self, bytes: &[u8], peers: &mut dyn Peers) -> Result<(), String> {
        let letter = match Letter::read(bytes) {
            Ok(letter) => letter,
            Err(why) => return self.machines.foreign(&why, self.clock.now_ns()),
        };
        let Letter { own: id, since, said } = letter;
        if id == self.machines.own {
            return Ok(());
        }
        match said {
            Said::Here(here) => return self.heard_here((id, since), here, peers),
            Said::Anew { life } if life == self.machines.since => self.begin_life(),
            Said::Anew { .. } => {}
            Said::Told(told) => {
                let own = self.machines.since;
                let known = self.machines.known.get_mut(&id);
                // Of another life it has missed something, or we have: what counts is told anew.
                let known = known.filter(|one| one.since == since && one.known_in == own);
                let known = known.filter(|one| one.members.contains(&told.from));
                let Some(known) = known.filter(|_| told.life == 0 || told.life == own) else { return Ok(()) };
                let (number, message) = (known.number_of(told.from), known.pieces.take(told));
                let Some(message) = message else { return Ok(()) };
                let to = self.members_that(|number| told.to.is_empty() || told.to.contains(&number));
                self.send(&to, FromSequencer::ToldAnywhere(number, told.kind, &message), peers);
            }
        }
        Ok(())
    }

    fn heard_here(&mut self, (id, since): (u64, u64), here: Here<'_>, peers: &mut dyn Peers) -> Result<(), String> {
        let now_ns = self.clock.now_ns();
        let Here { name, members, is_settled, .. } = here;
        if here.digest != digest(&self.agreed) {
            return self.machines.refuse((id, since), &here);
        }
        if self.machines.over.contains(&(id, since)) {
            let letter = self.letter(Said::Anew { life: since });
            self.post(Some(id), &letter);
            return Ok(());
        }
        self.learn_secret(here.secret, peers);
        // Whoever comes is behind all that are there, also where its clock is not right.
        if is_settled && since >= self.machines.since && now_ns - self.machines.began_ns <= NEW_NS {
            self.machines.since = since;
            self.begin_life();
        }
        let own = self.machines.since;
        if let Some(known) = self.machines.known.get_mut(&id).filter(|one| one.since == since && one.known_in == own) {
            known.heard_ns = now_ns;
            if known.members == members {
                return Ok(());
            }
            let gone: Vec<u8> = known.members.iter().copied().filter(|one| !members.contains(one)).collect();
            let new: Vec<u8> = members.iter().copied().filter(|one| !known.members.contains(one)).collect();
            known.members = members.to_vec();
            let Some(machine) = self.machines.known.remove(&id) else { return Ok(()) };
            self.tell_of_members(&machine, &gone, false, peers);
            self.tell_of_members(&machine, &new, true, peers);
            self.machines.known.insert(id, machine);
            return Ok(());
        }
        let mut is_new = false;
        if let Some(before) = self.machines.known.remove(&id) {
            self.tell_of_members(&before, &before.members, false, peers);
        } else if self.machines.known.len() >= MACHINES_MAX {
            return Err(format!("machine {name} is left out: there are {MACHINES_MAX} others, and no more can be"));
        } else {
            is_new = true;
        }
        self.say_here(Some(id)); // before anything that members here tell its members
        let (place, members) = (self.machines.free_place(), members.to_vec());
        if is_new {
            let line = format!("machine {name} is there, with {} workers; here it has number {place}", members.len());
            self.machines.lines.push((INFO, line));
        }
        let machine = Machine {
            place,
            since,
            known_in: own,
            members,
            name: name.to_owned(),
            heard_ns: now_ns,
            pieces: Pieces::default(),
        };
        self.tell_of_members(&machine, &machine.members, true, peers);
        self.machines.known.insert(id, machine);
        Ok(())
    }
}
