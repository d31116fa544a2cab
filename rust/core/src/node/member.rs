//! A process that publishes through the sequencer, and keeps for its clients what comes back.
//!
//! Whoever subscribes to a channel that is not *had* yet waits until the sequencer has sent what is kept of it. Nothing
//! of a channel is in a log before, and nothing is missed behind it. Whoever comes with a position that another process
//! gave out, and that is yet to come here, waits until the sequencer has sent all that it had: that is one question at a
//! time for each channel, whoever waits, and an answer without anything in it. While something is on its way already they
//! wait for that, and it is asked only where it does not reach as far.
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::placing::{Outcome, Placing};
use super::wire::{FromMember, Group, Key, VERSION};
use crate::channel::{Channel, Publication, write_publication};
use crate::connection_id::ConnectionId;
use crate::error::EngineError;
use crate::position::Position;

/// Takes messages for the sequencer, from any thread, and never waits.
pub trait Sender: Send + Sync {
    /// Queues one, behind those before it. With `is_deferred` it may wait for [`flush`](Self::flush), or for the next one
    /// that is not deferred.
    ///
    /// # Errors
    /// Bytes that wait, and the bound that they would pass.
    fn send(&self, message: &[u8], is_deferred: bool) -> Result<(), (u64, u64)>;

    /// What is queued goes out.
    fn flush(&self);
}

/// What waits: called once, with those of its channels that are to be had, and why the others are not.
pub type Then = Box<dyn FnOnce(Vec<Arc<Channel>>, Vec<String>) + Send>;

/// So many that wait to be subscribed may be one connection's.
const WAITING_MAX: usize = 4_096;

type OwnedKey = (Group, Box<str>);

/// Who waits, by number, and the position that the log has to reach for it, where what it waits for may be from before that.
type Turn = (u64, Option<Position>);

/// Subscriptions that wait for their channels.
struct Waiting {
    connection: Option<ConnectionId>,
    channels: Vec<(Group, Arc<Channel>)>,
    /// Of those that are yet to come.
    missing: usize,
    errors: Vec<String>,
    then: Then,
}

/// What is known of a channel that was wanted.
#[derive(Default)]
struct Wanted {
    is_had: bool,
    /// Who waits for it.
    waiting: Vec<Turn>,
    /// Who waits for all that the sequencer had when it was asked last, by number, and who came behind that.
    reaching: Vec<u64>,
    reaching_next: Vec<Turn>,
    /// Turns of the sweep that have found nobody interested.
    unwatched: u8,
}

impl Wanted {
    fn is_waited_for(&self) -> bool {
        !(self.waiting.is_empty() && self.reaching.is_empty() && self.reaching_next.is_empty())
    }
}

#[derive(Default)]
struct State {
    /// By group.
    wanted: [HashMap<Box<str>, Wanted>; Group::ALL.len()],
    waiting: HashMap<u64, Waiting>,
    last: u64,
    of_connections: HashMap<ConnectionId, usize>,
    /// What the program hears, each as often as it does.
    patterns: Vec<Box<str>>,
    /// Channels by the epoch that they have here.
    by_epoch: HashMap<u64, Weak<Channel>>,
    /// How many of those there were when they were last looked through.
    by_epoch_live: usize,
    /// Where the sweep goes on.
    due: Vec<OwnedKey>,
    /// Who else is there.
    others: BTreeSet<u32>,
}

impl State {
    /// One thing less is missing for each of these: calls whoever waited for it last.
    ///
    /// Under the lock: who sweeps must not leave a channel that is about to be watched.
    fn end_waiting(&mut self, numbers: &[u64]) {
        let mut ready = Vec::new();
        for number in numbers {
            let Some(waiting) = self.waiting.get_mut(number) else { continue };
            waiting.missing -= 1;
            if waiting.missing == 0 {
                ready.extend(self.waiting.remove(number));
            }
        }
        for id in ready.iter().filter_map(|one| one.connection) {
            if let Some(count) = self.of_connections.get_mut(&id) {
                *count -= 1;
                if *count == 0 {
                    self.of_connections.remove(&id);
                }
            }
        }
        for waiting in ready {
            (waiting.then)(waiting.channels.into_iter().map(|one| one.1).collect(), waiting.errors);
        }
    }
}

/// This process among several.
pub struct Member {
    number: u8,
    /// What all are to be set to alike.
    settings: Box<[u8]>,
    /// What tokens are signed with, if they are.
    secret: Option<Box<[u8]>>,
    sender: Arc<dyn Sender>,
    state: Mutex<State>,
    /// Publications without a place yet, in the order in which they were sent; `None` while nobody is connected.
    placing: Mutex<Option<VecDeque<Arc<Placing>>>>,
    /// Channels that stay, whoever watches.
    held: Mutex<Vec<Arc<Channel>>>,
    /// The second of the last sweep.
    swept_s: AtomicU64,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("number", &self.number).finish_non_exhaustive()
    }
}

/// Turns of the sweep after which a channel that nobody here is interested in is left.
const UNWATCHED_TURNS: u8 = 2;

impl Member {
    /// One that is not connected yet. `settings` is what every member has to be set to, in any form.
    #[must_use]
    pub fn new(number: u8, settings: Box<[u8]>, sender: Arc<dyn Sender>) -> Self {
        Self {
            number,
            settings,
            secret: None,
            sender,
            state: Mutex::default(),
            placing: Mutex::default(),
            held: Mutex::default(),
            swept_s: AtomicU64::new(0),
        }
    }

    /// The same, which tells other machines what it signs tokens with.
    #[must_use]
    pub fn signing(self, secret: Option<&[u8]>) -> Self {
        Self { secret: secret.map(Box::from), ..self }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds what is wanted")
    }

    fn placing(&self) -> MutexGuard<'_, Option<VecDeque<Arc<Placing>>>> {
        self.placing.lock().expect("no code panics while it holds what is sent")
    }

    fn send(&self, message: FromMember<'_>) -> Result<(), EngineError> {
        let mut out = Vec::new();
        message.write(&mut out);
        self.send_written(&out, false)
    }

    fn send_written(&self, message: &[u8], is_deferred: bool) -> Result<(), EngineError> {
        let full = |(value, bound)| EngineError::LimitReached { name: "bytes for the other workers", value, bound };
        self.sender.send(message, is_deferred).map_err(full)
    }

    /// What was published with `is_deferred` goes out.
    pub(crate) fn flush(&self) {
        self.sender.flush();
    }

    /// As `send`, while the sequencer is connected.
    fn send_up(&self, message: FromMember<'_>) -> Result<(), EngineError> {
        let placing = self.placing();
        placing.as_ref().ok_or(EngineError::Apart)?;
        self.send(message)
    }

    /// Sends a publication to where it gets its place: with `is_deferred` it may wait for [`flush`](Self::flush).
    ///
    /// # Errors
    /// [`EngineError::Apart`] while the sequencer is not connected; [`EngineError::LimitReached`] where too much waits.
    pub(crate) fn publish(
        &self,
        key: Key<'_>,
        publication: &Publication<'_>,
        is_deferred: bool,
    ) -> Result<Arc<Placing>, EngineError> {
        let mut message = Vec::with_capacity(256);
        FromMember::Publish(key, &[]).write(&mut message);
        write_publication(publication, &mut message);
        let mut placing = self.placing();
        let queue = placing.as_mut().ok_or(EngineError::Apart)?;
        self.send_written(&message, is_deferred)?;
        let placed = Arc::<Placing>::default();
        queue.push_back(Arc::clone(&placed));
        Ok(placed)
    }

    /// Its number among the others.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Whether the sequencer is out of reach.
    #[must_use]
    pub fn is_apart(&self) -> bool {
        self.placing().is_none()
    }

    /// Tells some of the others, or with none all of them.
    ///
    /// # Errors
    /// [`EngineError::Apart`]; [`EngineError::LimitReached`] where too much waits.
    pub fn tell(&self, to: &[u8], kind: u8, message: &[u8]) -> Result<(), EngineError> {
        self.send_up(FromMember::Tell(to, kind, message))
    }

    /// Tells members of any machines, or with none all members of all.
    ///
    /// # Errors
    /// As of [`tell`](Self::tell).
    pub fn tell_anywhere(&self, to: &[u32], kind: u8, message: &[u8]) -> Result<(), EngineError> {
        let to: Vec<u8> = to.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.send_up(FromMember::TellAnywhere(&to, kind, message))
    }

    /// The program hears channels of this pattern, or no more.
    ///
    /// # Errors
    /// As of [`publish`](Self::publish).
    pub(crate) fn listen(&self, pattern: &str, is_begun: bool) -> Result<(), EngineError> {
        let mut state = self.lock();
        match (is_begun, state.patterns.iter().position(|known| **known == *pattern)) {
            (true, _) => state.patterns.push(pattern.into()),
            (false, Some(index)) => drop(state.patterns.swap_remove(index)),
            (false, None) => return Ok(()),
        }
        if self.is_apart() {
            return Ok(()); // it is said when somebody is there
        }
        self.send(if is_begun { FromMember::Listen(pattern) } else { FromMember::Unlisten(pattern) })
    }

    /// The channel that has this epoch, if it is had.
    pub(crate) fn find_epoch(&self, epoch: u64) -> Option<Arc<Channel>> {
        self.lock().by_epoch.get(&epoch).and_then(Weak::upgrade)
    }

    /// A channel is had from now on, in this epoch.
    pub(crate) fn note_had(&self, channel: &Arc<Channel>) {
        let mut state = self.lock();
        if state.by_epoch.len() >= 2 * state.by_epoch_live.max(512) {
            state.by_epoch.retain(|_, one| one.strong_count() > 0);
            state.by_epoch_live = state.by_epoch.len();
        }
        state.by_epoch.insert(channel.epoch(), Arc::downgrade(channel));
        drop(state);
        channel.set_had(true);
    }

    /// Somebody who has subscribed waits for a keyframe.
    pub(crate) fn ask_snapshot(&self, name: &str) {
        let _ = self.send_up(FromMember::AskSnapshot(name)); // where too much waits, the next one who comes asks again
    }

    /// There is no keyframe to be had.
    ///
    /// # Errors
    /// As of [`publish`](Self::publish).
    pub(crate) fn give_up_snapshot(&self, name: &str, why: &str) -> Result<(), EngineError> {
        self.send_up(FromMember::GiveUpSnapshot(name, why))
    }

    /// Whether a position is one that other processes may have given out, and this one's log is yet to reach: where that has
    /// nothing of the channel, any. While nobody is connected nothing comes.
    pub(crate) fn is_behind(&self, channel: &Channel, since: Option<Position>) -> bool {
        let is_ahead = |since: Position| !channel.is_had() || since > channel.position();
        since.is_some_and(is_ahead) && !self.is_apart()
    }

    /// Calls `then` once all of these channels are had, and reach as far as `since` says, or as the sequencer can: at once
    /// where they do.
    ///
    /// # Errors
    /// [`EngineError::LimitReached`] where too many wait for one connection.
    pub(crate) fn when_ready(
        &self,
        connection: Option<ConnectionId>,
        channels: Vec<(Group, Arc<Channel>)>,
        since: impl Fn(&Channel) -> Option<Position>,
        then: Then,
    ) -> Result<(), EngineError> {
        let mut state = self.lock();
        let of_one = connection.map_or(0, |id| state.of_connections.get(&id).copied().unwrap_or(0));
        if of_one >= WAITING_MAX {
            let (value, bound) = (of_one as u64 + 1, WAITING_MAX as u64);
            return Err(EngineError::LimitReached { name: "subscriptions that wait", value, bound });
        }
        state.last += 1;
        let number = state.last;
        let mut missing = 0;
        for (group, channel) in &channels {
            let wanted = state.wanted[*group as usize].entry(channel.name().into());
            let is_new = matches!(wanted, std::collections::hash_map::Entry::Vacant(_));
            let wanted = wanted.or_default();
            wanted.unwatched = 0;
            // One that was given up and made anew has nothing of what the one before had.
            let is_stale = wanted.is_had && !channel.is_had();
            let since = since(channel).filter(|_| !is_new && !is_stale);
            if is_new || is_stale {
                wanted.is_had = false;
                // While nobody is connected, all that is wanted is said when somebody is.
                let want = FromMember::Want((*group, channel.name()));
                let sent = if self.is_apart() { Ok(()) } else { self.send(want) };
                if let Err(error) = sent {
                    state.wanted[*group as usize].remove(channel.name()); // whoever comes next asks again
                    return Err(error);
                }
            }
            let Some(wanted) = state.wanted[*group as usize].get_mut(channel.name()) else { continue };
            if !wanted.is_had {
                wanted.waiting.push((number, since));
            } else if !self.is_behind(channel, since) {
                continue;
            } else if !wanted.reaching.is_empty() {
                wanted.reaching_next.push((number, since)); // the answer that is on its way may be from before
            } else if self.send(FromMember::Reach((*group, channel.name()))).is_ok() {
                wanted.reaching.push(number);
            } else {
                continue;
            }
            missing += 1;
        }
        if missing > 0 {
            if let Some(id) = connection {
                *state.of_connections.entry(id).or_default() += 1;
            }
            let waiting = Waiting { connection, channels, missing, errors: Vec::new(), then };
            state.waiting.insert(number, waiting);
            return Ok(());
        }
        drop(state);
        then(channels.into_iter().map(|one| one.1).collect(), Vec::new());
        Ok(())
    }

    /// A connection no longer waits for a channel, if it does.
    pub(crate) fn cancel(&self, connection: ConnectionId, (group, name): Key<'_>) {
        let mut state = self.lock();
        if !state.of_connections.contains_key(&connection) {
            return;
        }
        for waiting in state.waiting.values_mut().filter(|one| one.connection == Some(connection)) {
            waiting.channels.retain(|(of, channel)| *of != group || channel.name() != name);
        }
    }

    /// The sequencer has been reached: says who this is and what is wanted. What was sent before and is not answered has
    /// an unknown outcome; gives who waits for that.
    ///
    /// # Errors
    /// As of [`publish`](Self::publish).
    pub(crate) fn up(&self) -> Result<(), EngineError> {
        let state = self.lock();
        let mut placing = self.placing();
        *placing = Some(VecDeque::new());
        self.send(FromMember::Hello(VERSION, self.number, &self.settings))?;
        if let Some(secret) = &self.secret {
            self.send(FromMember::Secret(secret))?;
        }
        for group in Group::ALL {
            for name in state.wanted[group as usize].keys() {
                self.send(FromMember::Want((group, name)))?;
            }
        }
        for pattern in &state.patterns {
            self.send(FromMember::Listen(pattern))?;
        }
        Ok(())
    }

    /// The sequencer is gone: of what was sent nobody knows. Gives the numbers of those who wait for that.
    pub(crate) fn down(&self, why: &str) -> Vec<u64> {
        let lost = self.placing().take().unwrap_or_default();
        self.reach_no_more();
        let text = format!("the sequencer of the workers is gone ({why}): whether it was published is not known");
        lost.iter().filter_map(|one| one.settle(Outcome::Failed(text.as_str().into()))).collect()
    }

    /// Another member has come or gone; false where that was known.
    pub(crate) fn note_other(&self, number: u32, is_there: bool) -> bool {
        let others = &mut self.lock().others;
        if is_there { others.insert(number) } else { others.remove(&number) }
    }

    /// All others are out of reach: who was there.
    pub(crate) fn take_others(&self) -> BTreeSet<u32> {
        std::mem::take(&mut self.lock().others)
    }

    /// What became of the publication that was sent behind so many others without a place; gives the number of who waits
    /// for it.
    pub(crate) fn placed(&self, behind: u32, outcome: Outcome) -> Option<u64> {
        let placed = self.placing().as_mut().and_then(|queue| queue.remove(behind as usize));
        placed.and_then(|one| one.settle(outcome))
    }

    /// A channel is here now, or cannot be had: calls whoever waited for it last.
    pub(crate) fn arrived(&self, key: Key<'_>, outcome: Result<(), &str>) {
        let (group, name) = key;
        let mut state = self.lock();
        let Some(wanted) = state.wanted[group as usize].get_mut(name) else { return };
        wanted.is_had = outcome.is_ok();
        let turns = std::mem::take(&mut wanted.waiting);
        let Err(why) = outcome else { return self.reach_for(&mut state, key, turns, Vec::new()) };
        let mut numbers = std::mem::take(&mut wanted.reaching);
        numbers.extend(turns.into_iter().chain(std::mem::take(&mut wanted.reaching_next)).map(|(number, _)| number));
        state.wanted[group as usize].remove(name);
        for number in &numbers {
            let Some(waiting) = state.waiting.get_mut(number) else { continue };
            waiting.channels.retain(|(of, channel)| *of != group || channel.name() != name);
            waiting.errors.push(format!("channel {name:?}: {why}"));
        }
        state.end_waiting(&numbers);
    }

    /// All of a channel that the sequencer had when it was asked is here, or is asked for anew.
    pub(crate) fn reached(&self, key: Key<'_>) {
        let mut state = self.lock();
        let Some(wanted) = state.wanted[key.0 as usize].get_mut(key.1) else { return };
        let (numbers, next) = (std::mem::take(&mut wanted.reaching), std::mem::take(&mut wanted.reaching_next));
        if wanted.is_had {
            return self.reach_for(&mut state, key, next, numbers);
        }
        wanted.waiting.extend(numbers.into_iter().map(|number| (number, None)).chain(next));
    }

    /// Asks the sequencer for what these wait for and the log does not have; whom it is far enough for goes on, and so do the
    /// others named.
    fn reach_for(&self, state: &mut State, key: Key<'_>, turns: Vec<Turn>, mut others: Vec<u64>) {
        let is_it = |(group, channel): &&(Group, Arc<Channel>)| *group == key.0 && channel.name() == key.1;
        let channel_of = |number| state.waiting.get(&number)?.channels.iter().find(is_it).map(|one| &one.1);
        let is_behind = |&(number, since): &Turn| channel_of(number).is_some_and(|one| self.is_behind(one, since));
        let (behind, level): (Vec<Turn>, Vec<Turn>) = turns.into_iter().partition(is_behind);
        others.extend(level.into_iter().map(|(number, _)| number));
        let numbers = behind.iter().map(|(number, _)| *number);
        match state.wanted[key.0 as usize].get_mut(key.1) {
            Some(wanted) if !wanted.reaching.is_empty() => wanted.reaching_next.extend(behind),
            Some(wanted) if !behind.is_empty() && self.send(FromMember::Reach(key)).is_ok() => {
                wanted.reaching.extend(numbers);
            }
            _ => others.extend(numbers), // too much waits for the sequencer: they go on with what is here
        }
        state.end_waiting(&others);
    }

    /// Nobody answers any more: who waits for that goes on with what is here.
    fn reach_no_more(&self) {
        let mut state = self.lock();
        let mut numbers = Vec::new();
        for wanted in state.wanted.iter_mut().flat_map(HashMap::values_mut) {
            let reaching = std::mem::take(&mut wanted.reaching).into_iter().map(|number| (number, None));
            let turns = reaching.chain(std::mem::take(&mut wanted.reaching_next));
            match wanted.is_had {
                true => numbers.extend(turns.map(|(number, _)| number)),
                false => wanted.waiting.extend(turns),
            }
        }
        state.end_waiting(&numbers);
    }

    /// Something is missing of a channel: it is asked for anew, and is not had until that has come.
    ///
    /// # Errors
    /// As of [`publish`](Self::publish).
    pub(crate) fn ask_again(&self, key: Key<'_>, channel: &Channel) -> Result<(), EngineError> {
        let mut state = self.lock();
        if let Some(wanted) = state.wanted[key.0 as usize].get_mut(key.1) {
            wanted.is_had = false;
        }
        channel.set_had(false);
        self.send(FromMember::Want(key))
    }

    /// Takes note that the sequencer sends a channel that was not asked for by name.
    pub(crate) fn note_given(&self, (group, name): Key<'_>) {
        let mut state = self.lock();
        let fresh = || Wanted { is_had: true, ..Wanted::default() };
        state.wanted[group as usize].entry(name.into()).or_insert_with(fresh);
    }

    /// Keeps a channel for good.
    pub(crate) fn hold(&self, channel: &Arc<Channel>) {
        let mut held = self.held.lock().expect("no code panics while it holds the list");
        if !held.iter().any(|one| Arc::ptr_eq(one, channel)) {
            held.push(Arc::clone(channel));
        }
    }

    /// Whether a second has passed since the last sweep.
    pub(crate) fn is_sweep_due(&self, now_s: u64) -> bool {
        self.swept_s.swap(now_s, Ordering::Relaxed) != now_s
    }

    /// Looks at some of the channels that are had: `is_watched` says whether anybody here is interested. Those that nobody
    /// was for a while are left; `forget` drops what is kept of them.
    pub(crate) fn sweep(&self, count_max: usize, is_watched: impl Fn(Key<'_>) -> bool, forget: impl Fn(Key<'_>)) {
        let mut state = self.lock();
        let state = &mut *state;
        if state.due.is_empty() {
            let of = |group: Group| state.wanted[group as usize].keys().map(move |name| (group, name.clone()));
            state.due = Group::ALL.into_iter().flat_map(of).collect();
        }
        for _ in 0..count_max {
            let Some(key) = state.due.pop() else { return };
            let wanted_of_group = &mut state.wanted[key.0 as usize];
            let Some(wanted) = wanted_of_group.get_mut(&key.1) else { continue };
            let name = (key.0, &*key.1);
            if !wanted.is_had || wanted.is_waited_for() || is_watched(name) {
                wanted.unwatched = 0;
                continue;
            }
            wanted.unwatched += 1;
            if wanted.unwatched > UNWATCHED_TURNS && self.send(FromMember::Leave(name)).is_ok() {
                forget(name);
                wanted_of_group.remove(&key.1);
            }
        }
    }
}

#[cfg(test)]
mod tests;
