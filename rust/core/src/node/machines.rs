//! What one machine knows of the others that have the same prefix: their lives.
//!
//! Each machine tells all, again and again, that it is there and which members it has. Whoever is silent for longer than
//! [`LEASE_NS`] is taken to be gone. A *life* is over, too, when its machine may have missed something or told something in
//! vain: then it begins another one, and all tell it anew what it has to know, as they do to one that has just come. Lives
//! have an order, so that all know who is there for longer. Who says what of this to whom is in `meeting`.
use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use super::telling::{Here, Told};

/// So often a machine says that it is there.
pub(super) const HERE_NS: u64 = 900_000_000;
/// Whoever has said nothing for so long is gone.
pub(super) const LEASE_NS: u64 = 5_000_000_000;
/// A life that is younger is a newcomer's: it is behind all that are older, whatever its clock says.
pub(super) const NEW_NS: u64 = 1_000_000_000;
/// Lives that are over, and machines that are none of ours: so many are remembered.
pub(super) const REMEMBERED_MAX: usize = 256;
/// So many machines at most.
pub(super) const MACHINES_MAX: usize = 1_024;
/// What cannot be read is told of so often at most.
const FOREIGN_EVERY_NS: u64 = 1_000_000_000;
/// Members of other machines have numbers from here on: their machine's place here times this, and their own.
pub(super) const NUMBERS: u32 = 256;
/// Of one message that comes in pieces.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
const PLACES: u32 = u32::MAX / NUMBERS;

/// Another machine that is there.
#[derive(Debug)]
pub(super) struct Machine {
    /// What members here know it by.
    pub(super) place: u32,
    /// Which life it is in.
    pub(super) since: u64,
    /// In which life this one has got to know it.
    pub(super) known_in: u64,
    pub(super) members: Vec<u8>,
    pub(super) name: String,
    pub(super) heard_ns: u64,
    pub(super) pieces: Pieces,
}

/// A message of which not all has come.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    bytes: Vec<u8>,
    /// Which piece is next; with 0 none has come.
    next: u16,
}

impl Pieces {
    /// The whole message, once the last piece is there; what is behind one that is lost is dropped.
    pub(super) fn take<'a>(&mut self, told: Told<'a>) -> Option<Cow<'a, [u8]>> {
        if told.part == 0 && told.is_last {
            return Some(Cow::Borrowed(told.message));
        }
        let (mut whole, next) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.next));
        if told.part == 0 {
            whole.clear();
        } else if told.part != next || whole.len() + told.message.len() > MESSAGE_BYTES_MAX {
            return None;
        }
        whole.extend_from_slice(told.message);
        if told.is_last {
            return Some(Cow::Owned(whole));
        }
        (self.bytes, self.next) = (whole, told.part.wrapping_add(1));
        None
    }
}

impl Machine {
    pub(super) fn number_of(&self, member: u8) -> u32 {
        self.place * NUMBERS + u32::from(member)
    }
}

/// What one machine knows of the others.
#[derive(Debug, Default)]
pub(super) struct Machines {
    pub(super) own: u64,
    /// This machine's life: the longer ago it began, the less.
    pub(super) since: u64,
    pub(super) began_ns: u64,
    pub(super) name: String,
    pub(super) release: String,
    /// What its members sign tokens with.
    pub(super) secret: Vec<u8>,
    /// What those of others do, or did, the newest last.
    pub(super) secrets: VecDeque<Box<[u8]>>,
    pub(super) is_up: bool,
    /// Something could not be told.
    pub(super) is_torn: bool,
    pub(super) told_ns: u64,
    pub(super) known: HashMap<u64, Machine>,
    places: u32,
    /// Lives that were taken to be over, and may not be.
    pub(super) over: VecDeque<(u64, u64)>,
    /// Lives of machines that are set to something else; that was said.
    refused: VecDeque<(u64, u64)>,
    /// So many things were told that no machine tells.
    pub(super) foreign: u64,
    foreign_told_ns: u64,
    pub(super) lines: Vec<(u8, String)>,
}

impl Machines {
    pub(super) fn begin_life(&mut self, now_ns: u64) {
        let micros = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let now = u64::try_from(micros).unwrap_or(0) << 12 | self.own & 0xfff;
        let newest = self.known.values().map(|one| one.since).max().unwrap_or(0).max(self.since);
        self.since = if now > newest { now } else { newest + 0x1000 };
        (self.began_ns, self.is_torn) = (now_ns, false);
        self.over.clear();
    }

    pub(super) fn age_of(&self, machine: &Machine) -> i64 {
        machine.since.cast_signed().wrapping_sub(self.since.cast_signed())
    }

    pub(super) fn free_place(&mut self) -> u32 {
        loop {
            self.places = self.places % (PLACES - 1) + 1;
            if self.known.values().all(|one| one.place != self.places) {
                return self.places;
            }
        }
    }

    /// What is said of a machine that is set to something else, once.
    pub(super) fn refuse(&mut self, life: (u64, u64), here: &Here<'_>) -> Result<(), String> {
        if self.refused.contains(&life) {
            return Ok(());
        }
        remember(&mut self.refused, life);
        let (name, own) = (here.name, &self.release);
        Err(if here.release == *own {
            format!(
                "machine {name} has the same prefix, and other channels or bounds: presence, disconnects and questions do \
                 not reach it, and publications may have other places there; give all the same, or another backbone_prefix"
            )
        } else {
            format!(
                "machine {name} has the same prefix, and runs fanwire {}, this one {own}: presence, disconnects and \
                 questions do not reach it until all run the same",
                here.release
            )
        })
    }

    /// What is said of something that no machine tells, once a second at most.
    pub(super) fn foreign(&mut self, why: &str, now_ns: u64) -> Result<(), String> {
        self.foreign += 1;
        if self.foreign > 1 && now_ns - self.foreign_told_ns < FOREIGN_EVERY_NS {
            return Ok(());
        }
        self.foreign_told_ns = now_ns;
        let count = self.foreign;
        Err(format!("somebody else tells the machines of the backbone's prefix things, {count} so far: {why}"))
    }
}

pub(super) fn remember(lives: &mut VecDeque<(u64, u64)>, life: (u64, u64)) {
    lives.push_back(life);
    if lives.len() > REMEMBERED_MAX {
        lives.pop_front();
    }
}

/// What is the same for what is the same (FNV-1a, 64 bits).
pub(super) fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
