//! Several machines as one: an engine outside orders what is published, and each machine's sequencer passes on what comes.
//!
//! What a member publishes goes out, and into the channel when it comes back. So there is one order for all, and a position
//! is the same on every machine. Only what is for newcomers alone stays on the machine: each asks its own application.
use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::plain::{is_plain, read_plain};
use super::wire::{Group, Key};
use crate::bytes::{Reader, put_u64};
use crate::channel::{Channel, LOCAL_EPOCH_END, SNAPSHOT};
use crate::position::Position;
use crate::settings::{ChannelSettings, Settings};

/// What an engine outside keeps of a channel, for those who come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// How many publications at most; with 0 nothing is kept, and only the position is counted on.
    pub messages: u64,
    /// For how many milliseconds; with 0 for as long as the channel is used. What is older may stay a sixteenth longer.
    pub age_ms: u64,
}

impl Keep {
    /// What a channel of these settings needs.
    pub(super) fn of(settings: &ChannelSettings) -> Self {
        let age_ms = u64::try_from(settings.history_age.as_millis()).unwrap_or(u64::MAX);
        Self { messages: settings.history_frames as u64, age_ms }
    }
}

/// One publication as it stands in its channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// That of the publication before it. The epoch is always that of `position`; offset 0 is none. Offsets may have gaps:
    /// whoever has `previous` has missed nothing.
    pub previous: Position,
    /// Its own. Epochs below 2^50 are those of machines that go on without the engine: it gives none of these.
    pub position: Position,
    /// When it was published, in milliseconds since 1970, by the engine's clock.
    pub published_ms: u64,
    /// What was given to [`Backbone::publish`].
    pub bytes: Vec<u8>,
}

/// An engine outside, or the way there. Nothing waits here; what comes of it is handed to `Sequencer::heard`.
pub trait Backbone: Send {
    /// Has a record appended, kept, and sent to each machine that wants the channel. Each ticket is answered once.
    fn publish(&mut self, ticket: u64, channel: &str, bytes: &[u8], keep: Keep);
    /// Have what is published in this channel come, until `leave`. It is answered by [`Heard::Wanted`], and again each time
    /// that the engine was out of reach. `keep` is what its publications are published with.
    fn want(&mut self, channel: &str, keep: Keep);
    /// No more.
    fn leave(&mut self, channel: &str);
    /// Ask for what is kept behind this position, the oldest first; answered by [`Heard::Since`], if nothing is lost.
    fn since(&mut self, channel: &str, after: Position);
    /// Has the machine of that number hear bytes, as [`Heard::Told`]; or with `None` all machines, this one among them.
    /// Nothing is kept: who is not there misses it. What one machine tells comes in its order, also where only some of it
    /// is for all. Whoever may have missed some hears [`Heard::Down`], and so does whoever may have told some in vain.
    ///
    /// # Errors
    /// Why it cannot be told now, in words.
    fn tell(&mut self, to: Option<u64>, bytes: &[u8]) -> Result<(), String>;
    /// Have what is published in all channels that fit a pattern come as [`Heard::Record`], also where they are not wanted; or
    /// no more. `*` stands for any run of characters. What is wanted as well may come twice. Where the engine has no
    /// patterns the answer is [`Heard::Unheard`], with the pattern.
    fn listen(&mut self, pattern: &str, is_begun: bool);
    /// Asks for a snapshot for newcomers, where that is made outside: then it comes as [`Heard::Record`], or
    /// [`Heard::NoSnapshot`] does. False where each machine asks its own application.
    fn snapshot(&mut self, channel: &str) -> bool {
        let _ = channel;
        false
    }
}

/// What becomes of publications while the engine is out of reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDown {
    /// They wait for it, up to a bound.
    #[default]
    Buffer,
    /// They fail at once.
    Fail,
    /// They are this machine's alone: its clients get them at once, in an epoch of its own.
    Local,
}

/// What comes of an engine outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is out of reach, for this reason.
    Down(String),
    /// It is reached again.
    Up,
    /// A publication has its place; or has none, for this reason.
    Published(u64, Result<Position, String>),
    /// From now on what is published in a channel comes; where that stands now.
    Wanted(Box<str>, Position),
    /// What was published in a channel.
    Record(Box<str>, Record),
    /// What is kept of a channel, behind the position that was asked for; and where the channel stands.
    Since(Box<str>, Vec<Record>, Position),
    /// That is not to be had.
    SinceFailed(Box<str>),
    /// A channel cannot be wanted, for this reason.
    Unheard(Box<str>, String),
    /// No snapshot of a channel is to be had, for this reason.
    NoSnapshot(Box<str>, String),
    /// A machine of the prefix tells this; or somebody who is none.
    Told(Vec<u8>),
    /// So many things have come since it began that none of ours has published.
    Foreign(u64),
}

/// What waits of one channel until it is level with the engine outside.
pub(super) const WAITING_BYTES_MAX: usize = 4 << 20;
/// What members publish while the engine is out of reach: so much is published when it is reached.
pub(super) const HELD_BYTES_MAX: usize = 16 << 20;
/// The head of a record: which machine published it, whose first byte is zero.
const HEAD_BYTES: usize = 8;

/// How far a channel here is, of what the engine outside has.
#[derive(Debug, Default)]
pub(super) struct Level {
    /// All that is kept there is here.
    pub(super) is_level: bool,
    /// Where the channel was there when that was last said; an epoch before that is over.
    pub(super) top: Option<Position>,
    /// An answer is awaited, of what is behind our position.
    pub(super) is_asking: bool,
    /// The answer before was of an epoch that is over; another one is right.
    pub(super) is_asked_again: bool,
    /// Who waits for that answer, and who came behind the question.
    pub(super) reaching: Vec<u64>,
    pub(super) reaching_next: Vec<u64>,
    /// What has come meanwhile, and its bytes.
    pub(super) waiting: VecDeque<Record>,
    pub(super) waiting_bytes: usize,
    /// Who is to have the channel once it is level.
    pub(super) peers: Vec<u64>,
    /// The first record that somebody who listens is to hear, and not to be given as kept.
    pub(super) heard_from: Option<Position>,
    /// It stays in its registry meanwhile.
    pub(super) channel: Option<Arc<Channel>>,
    /// What members publish meanwhile: who subscribed here before gets it.
    held: VecDeque<Held>,
}

impl Level {
    /// A member waits no more.
    pub(super) fn forget(&mut self, peer: u64) {
        for waiting in [&mut self.peers, &mut self.reaching, &mut self.reaching_next] {
            waiting.retain(|one| *one != peer);
        }
    }

    /// All who wait for an answer.
    pub(super) fn take_reaching(&mut self) -> Vec<u64> {
        let mut all = std::mem::take(&mut self.reaching);
        all.append(&mut self.reaching_next);
        all
    }

    /// Keeps a record until those before it have come. What is over the bound is asked for again.
    pub(super) fn wait(&mut self, record: Record) {
        self.waiting_bytes += record.bytes.len();
        self.waiting.push_back(record);
        while self.waiting_bytes > WAITING_BYTES_MAX {
            let Some(first) = self.waiting.pop_front() else { return };
            self.waiting_bytes -= first.bytes.len();
        }
    }

    pub(super) fn take_waiting(&mut self) -> VecDeque<Record> {
        self.waiting_bytes = 0;
        std::mem::take(&mut self.waiting)
    }
}

/// What became of a publication.
pub(super) type Outcome = Result<Position, String>;

/// Publications of members whose place is not known yet, in the order of each member.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    last: u64,
    /// Whose each is.
    of: HashMap<u64, u64>,
    queues: HashMap<u64, VecDeque<(u64, Option<Outcome>)>>,
}

impl Tickets {
    /// A publication of that member is on its way.
    pub(super) fn take(&mut self, peer: u64) -> u64 {
        self.last += 1;
        self.of.insert(self.last, peer);
        self.queues.entry(peer).or_default().push_back((self.last, None));
        self.last
    }

    /// What became of one. Gives whose it is and what it is told now, oldest first: none before its turn.
    pub(super) fn settle(&mut self, ticket: u64, outcome: Outcome) -> (u64, Vec<Outcome>) {
        let Some(peer) = self.of.remove(&ticket) else { return (0, Vec::new()) };
        let Some(queue) = self.queues.get_mut(&peer) else { return (0, Vec::new()) };
        if let Ok(at) = queue.binary_search_by_key(&ticket, |one| one.0) {
            queue[at].1 = Some(outcome);
        }
        let mut told = Vec::new();
        while let Some(outcome) = queue.front_mut().and_then(|one| one.1.take()) {
            queue.pop_front();
            told.push(outcome);
        }
        if queue.is_empty() {
            self.queues.remove(&peer);
        }
        (peer, told)
    }

    /// How many of that member are on their way, or wait for one that is.
    pub(super) fn count(&self, peer: u64) -> u32 {
        self.queues.get(&peer).map_or(0, |queue| queue.len() as u32)
    }

    /// That member is gone.
    pub(super) fn forget(&mut self, peer: u64) {
        for (ticket, _) in self.queues.remove(&peer).unwrap_or_default() {
            self.of.remove(&ticket);
        }
    }
}

/// An engine outside, and what is known of it.
pub(super) struct Abroad {
    pub(super) backbone: Box<dyn Backbone>,
    /// Names this machine's publications: who is excluded from one is a connection of this machine.
    pub(super) own: u64,
    pub(super) tickets: Tickets,
    pub(super) levels: [HashMap<Box<str>, Level>; Group::ALL.len()],
    pub(super) reach: Reach,
    /// Why it is out of reach.
    pub(super) why: String,
    pub(super) on_down: OnDown,
    held: VecDeque<Held>,
    held_bytes: usize,
    /// Epochs of this machine's own.
    epochs: u64,
    /// What has come that is not ours: as it counts, and what was no publication here; and how many of all were told of.
    pub(super) foreign: u64,
    pub(super) unreadable: u64,
    pub(super) foreign_told: u64,
}

/// Whether the engine is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// It is not known yet.
    Unknown,
    Up,
    Down,
}

/// A publication that waits for the engine.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) ticket: u64,
    pub(super) name: String,
    pub(super) record: Vec<u8>,
    keep: Keep,
}

impl fmt::Debug for Abroad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Abroad").field("own", &self.own).field("reach", &self.reach).finish_non_exhaustive()
    }
}

impl Abroad {
    pub(super) fn new(backbone: Box<dyn Backbone>, own: u64, on_down: OnDown) -> Self {
        Self {
            backbone,
            own,
            tickets: Tickets::default(),
            levels: Default::default(),
            reach: Reach::Unknown,
            why: String::new(),
            on_down,
            held: VecDeque::new(),
            held_bytes: 0,
            epochs: 0,
            foreign: 0,
            unreadable: 0,
            foreign_told: 0,
        }
    }

    /// An epoch that no other machine has: 50 bits by chance of what names this one.
    pub(super) fn own_epoch(&mut self) -> u64 {
        self.epochs += 1;
        let mut mixed = self.own.wrapping_add(self.epochs.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for factor in [0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb] {
            mixed = (mixed ^ (mixed >> 29)).wrapping_mul(factor);
        }
        ((mixed ^ (mixed >> 32)) % LOCAL_EPOCH_END).max(1)
    }

    /// Whether a snapshot of a channel is made outside, where it is asked for now.
    pub(super) fn asks_snapshot(&mut self, name: &str) -> bool {
        self.backbone.snapshot(&name_of((Group::Channel, name)))
    }

    /// How far a channel here is, if it is wanted.
    pub(super) fn level(&mut self, (group, name): Key<'_>) -> Option<&mut Level> {
        self.levels[group as usize].get_mut(name)
    }

    /// Publishes what a member has sent, or holds it until the engine is reached.
    ///
    /// # Errors
    /// The engine is out of reach, or so much waits already; in words. There is no ticket of it.
    pub(super) fn publish(&mut self, peer: u64, key: Key<'_>, publication: &[u8], keep: Keep) -> Result<(), String> {
        let (name, record) = (name_of(key), record_of(self.own, publication));
        let level = self.levels[key.0 as usize].get_mut(key.1).filter(|level| !level.is_level);
        if self.reach == Reach::Up && level.is_none() {
            let ticket = self.tickets.take(peer);
            self.backbone.publish(ticket, &name, &record, keep);
            return Ok(());
        }
        if self.reach == Reach::Down && self.on_down == OnDown::Fail {
            return Err(format!("the backbone is out of reach, it was not published: {}", self.why));
        }
        let bytes = self.held_bytes + name.len() + record.len();
        if bytes > HELD_BYTES_MAX {
            let what = "bytes that wait until the backbone is reached";
            return Err(format!("{what}: {bytes} is over the bound of {HELD_BYTES_MAX}"));
        }
        self.held_bytes = bytes;
        let ticket = self.tickets.take(peer);
        let held = level.filter(|_| self.reach == Reach::Up).map_or(&mut self.held, |level| &mut level.held);
        held.push_back(Held { ticket, name, record, keep });
        Ok(())
    }

    /// A channel is level, or never will be: what was held for it goes out.
    pub(super) fn let_go(&mut self, key: Key<'_>) {
        let held = self.level(key).map(|level| std::mem::take(&mut level.held)).unwrap_or_default();
        self.publish_held(held);
    }

    /// The engine is out of reach: all that is held waits for it. Gives what does not.
    pub(super) fn went_down(&mut self, why: String) -> VecDeque<Held> {
        (self.reach, self.why) = (Reach::Down, why);
        let levels = self.levels.iter_mut().flat_map(HashMap::values_mut);
        levels.for_each(|level| self.held.append(&mut level.held));
        match self.on_down {
            OnDown::Buffer => VecDeque::new(),
            OnDown::Fail | OnDown::Local => {
                self.held_bytes = 0;
                std::mem::take(&mut self.held)
            }
        }
    }

    fn publish_held(&mut self, held: VecDeque<Held>) {
        for Held { ticket, name, record, keep } in held {
            self.held_bytes -= name.len() + record.len();
            self.backbone.publish(ticket, &name, &record, keep);
        }
    }

    /// It is reached: what was held goes there, in its order.
    pub(super) fn went_up(&mut self) {
        self.reach = Reach::Up;
        let held = std::mem::take(&mut self.held);
        self.publish_held(held);
    }
}

/// What a channel is called outside: its group's letter, and its name.
pub(super) fn name_of((group, name): Key<'_>) -> String {
    let letter = ['c', 'u', 'h'][group as usize];
    let mut whole = String::with_capacity(1 + name.len());
    whole.push(letter);
    whole.push_str(name);
    whole
}

/// The channel that is called so outside.
pub(super) fn key_of(name: &str) -> Option<Key<'_>> {
    let letters = [(Group::Channel, 'c'), (Group::User, 'u'), (Group::Hub, 'h')];
    letters.into_iter().find_map(|(group, letter)| Some((group, name.strip_prefix(letter)?)))
}

/// A publication as the engine outside has it.
pub(super) fn record_of(own: u64, publication: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEAD_BYTES + publication.len());
    put_u64(&mut record, own);
    record.extend_from_slice(publication);
    record
}

/// Which machine a record is of, and its publication. One that anybody has written is no machine's.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn publication_of<'a>(record: &'a [u8], settings: &Settings) -> Result<(u64, Cow<'a, [u8]>), String> {
    if is_plain(record) {
        return read_plain(record, settings).map(|publication| (0, Cow::Owned(publication)));
    }
    let mut reader = Reader(record);
    let own = reader.u64().ok_or("is none")?;
    Ok((own, Cow::Borrowed(reader.rest())))
}

/// Whether a record is for newcomers alone.
pub(super) fn is_snapshot(record: &[u8]) -> bool {
    !is_plain(record) && record.get(HEAD_BYTES).is_some_and(|flags| flags & SNAPSHOT != 0)
}

/// What is to be kept outside: all of a channel that a machine which comes later needs. For users and hubs nothing is kept.
pub(super) fn keep_of((group, name): Key<'_>, settings: &Settings) -> Keep {
    match group {
        Group::Channel => Keep::of(&settings.channel(name)),
        Group::User | Group::Hub => Keep { messages: 0, age_ms: 0 },
    }
}

/// How long ago that was, in nanoseconds.
pub(super) fn age_ns(published_ms: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    now_ms.saturating_sub(published_ms).saturating_mul(1_000_000)
}
