//! A process that publishes through the sequencer, and keeps for its clients what comes back.
//!
//! Whoever subscribes to a channel that is not *had* yet waits until the sequencer has sent what is kept of it. Nothing
//! of a channel is in a log before, and nothing is missed behind it.
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::placing::{Outcome, Placing};
use super::wire::{FromMember, Group, Key, VERSION};
use crate::channel::{Channel, Publication, write_publication};
use crate::connection_id::ConnectionId;
use crate::error::EngineError;

/// Takes messages for the sequencer, from any thread, and never waits.
pub trait Sender: Send + Sync {
    /// Queues one, behind those before it.
    ///
    /// # Errors
    /// Bytes that wait, and the bound that they would pass.
    fn send(&self, message: &[u8]) -> Result<(), (u64, u64)>;
}

/// What waits: called once, with those of its channels that are to be had, and why the others are not.
pub type Then = Box<dyn FnOnce(Vec<Arc<Channel>>, Vec<String>) + Send>;

/// So many that wait to be subscribed may be one connection's.
const WAITING_MAX: usize = 4_096;

type OwnedKey = (Group, Box<str>);

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
struct Wanted {
    is_had: bool,
    /// Who waits for it, by number.
    waiting: Vec<u64>,
    /// Turns of the sweep that have found nobody interested.
    unwatched: u8,
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
    others: BTreeSet<u8>,
}

/// This process among several.
pub struct Member {
    number: u8,
    /// What all are to be set to alike.
    settings: Box<[u8]>,
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
            sender,
            state: Mutex::default(),
            placing: Mutex::default(),
            held: Mutex::default(),
            swept_s: AtomicU64::new(0),
        }
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
        self.send_written(&out)
    }

    fn send_written(&self, message: &[u8]) -> Result<(), EngineError> {
        let full = |(value, bound)| EngineError::LimitReached { name: "bytes for the other workers", value, bound };
        self.sender.send(message).map_err(full)
    }

    /// As `send`, while the sequencer is connected.
    fn send_up(&self, message: FromMember<'_>) -> Result<(), EngineError> {
        let placing = self.placing();
        placing.as_ref().ok_or(EngineError::Apart)?;
        self.send(message)
    }

    /// Sends a publication to where it gets its place.
    ///
    /// # Errors
    /// [`EngineError::Apart`] while the sequencer is not connected; [`EngineError::LimitReached`] where too much waits.
    pub(crate) fn publish(&self, key: Key<'_>, publication: &Publication<'_>) -> Result<Arc<Placing>, EngineError> {
        let mut message = Vec::with_capacity(256);
        FromMember::Publish(key, &[]).write(&mut message);
        write_publication(publication, &mut message);
        let mut placing = self.placing();
        let queue = placing.as_mut().ok_or(EngineError::Apart)?;
        self.send_written(&message)?;
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

    /// Calls `then` once all of these channels are had: at once where they are.
    ///
    /// # Errors
    /// [`EngineError::LimitReached`] where too many wait for one connection.
    pub(crate) fn when_ready(
        &self,
        connection: Option<ConnectionId>,
        channels: Vec<(Group, Arc<Channel>)>,
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
            let wanted = wanted.or_insert_with(|| Wanted { is_had: false, waiting: Vec::new(), unwatched: 0 });
            wanted.unwatched = 0;
            // One that was given up and made anew has nothing of what the one before had.
            let is_stale = wanted.is_had && !channel.is_had();
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
            if let Some(wanted) = state.wanted[*group as usize].get_mut(channel.name()).filter(|one| !one.is_had) {
                wanted.waiting.push(number);
                missing += 1;
            }
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
        let text = format!("the sequencer of the workers is gone ({why}): whether it was published is not known");
        lost.iter().filter_map(|one| one.settle(Outcome::Failed(text.as_str().into()))).collect()
    }

    /// Another member has come or gone; false where that was known.
    pub(crate) fn note_other(&self, number: u8, is_there: bool) -> bool {
        let others = &mut self.lock().others;
        if is_there { others.insert(number) } else { others.remove(&number) }
    }

    /// All others are out of reach: who was there.
    pub(crate) fn take_others(&self) -> BTreeSet<u8> {
        std::mem::take(&mut self.lock().others)
    }

    /// What became of the oldest publication that was sent; gives the number of who waits for it.
    pub(crate) fn placed(&self, outcome: Outcome) -> Option<u64> {
        let placed = self.placing().as_mut().and_then(VecDeque::pop_front);
        placed.and_then(|one| one.settle(outcome))
    }

    /// A channel is here now, or cannot be had: calls whoever waited for it last.
    pub(crate) fn arrived(&self, (group, name): Key<'_>, outcome: Result<(), &str>) {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(wanted) = state.wanted[group as usize].get_mut(name) else { return };
        wanted.is_had = outcome.is_ok();
        let numbers = std::mem::take(&mut wanted.waiting);
        if outcome.is_err() {
            state.wanted[group as usize].remove(name);
        }
        let mut ready = Vec::new();
        for number in numbers {
            let Some(waiting) = state.waiting.get_mut(&number) else { continue };
            waiting.missing -= 1;
            if let Err(why) = outcome {
                waiting.channels.retain(|(of, channel)| *of != group || channel.name() != name);
                waiting.errors.push(format!("channel {name:?}: {why}"));
            }
            if waiting.missing == 0 {
                ready.extend(state.waiting.remove(&number));
            }
        }
        for id in ready.iter().filter_map(|one| one.connection) {
            if let Some(count) = state.of_connections.get_mut(&id) {
                *count -= 1;
                if *count == 0 {
                    state.of_connections.remove(&id);
                }
            }
        }
        // Under the lock: who sweeps must not leave a channel that is about to be watched.
        for waiting in ready {
            (waiting.then)(waiting.channels.into_iter().map(|one| one.1).collect(), waiting.errors);
        }
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
        let fresh = || Wanted { is_had: true, waiting: Vec::new(), unwatched: 0 };
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
            if !wanted.is_had || !wanted.waiting.is_empty() || is_watched(name) {
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
mod tests {
    use std::sync::mpsc::{Receiver, Sender as Told, channel};

    use super::*;
    use crate::channel::Registry;
    use crate::protocol::Payload;
    use crate::settings::Settings;

    /// Keeps what it is given, up to a number of messages.
    struct Kept(Mutex<Vec<Vec<u8>>>, usize);

    impl Sender for Kept {
        fn send(&self, message: &[u8]) -> Result<(), (u64, u64)> {
            let mut kept = self.0.lock().expect("nobody panics");
            if kept.len() >= self.1 {
                return Err((kept.len() as u64, self.1 as u64));
            }
            kept.push(message.to_vec());
            Ok(())
        }
    }

    impl Kept {
        fn said(&self) -> Vec<String> {
            let said = std::mem::take(&mut *self.0.lock().expect("nobody panics"));
            said.iter().map(|bytes| format!("{:?}", FromMember::read(bytes).expect("a message"))).collect()
        }
    }

    fn member(messages_max: usize) -> (Member, Arc<Kept>) {
        let kept = Arc::new(Kept(Mutex::default(), messages_max));
        (Member::new(7, b"alike".as_slice().into(), Arc::clone(&kept) as Arc<dyn Sender>), kept)
    }

    fn named(name: &str) -> Arc<Channel> {
        let registry = Registry::listed(&Arc::default(), 10);
        registry.obtain(name, &Settings::default(), 0).expect("there is room")
    }

    type Outcome = (Vec<String>, Vec<String>);

    fn note(told: &Told<Outcome>) -> Then {
        let told = told.clone();
        Box::new(move |channels, errors| {
            let names = channels.iter().map(|channel| channel.name().to_owned()).collect();
            told.send((names, errors)).expect("somebody listens");
        })
    }

    fn noted() -> (Told<Outcome>, Receiver<Outcome>) {
        channel()
    }

    #[test]
    fn who_subscribes_waits_for_all_and_is_called_once() {
        let (member, kept) = member(100);
        let (told, got) = noted();
        let (a, b) = (named("a"), named("b"));
        let both = vec![(Group::Channel, Arc::clone(&a)), (Group::Channel, Arc::clone(&b))];
        member.when_ready(None, both, note(&told)).expect("room");
        assert!(kept.said().is_empty(), "nobody is connected");
        member.up().expect("room");
        let said = kept.said();
        assert!(said[0].starts_with("Hello(") && said.len() == 3, "{said:?}");
        member.when_ready(None, vec![(Group::Channel, Arc::clone(&a))], note(&told)).expect("room");
        assert!(kept.said().is_empty(), "it was asked for");
        member.note_had(&a);
        member.arrived((Group::Channel, "a"), Ok(()));
        assert_eq!(got.try_recv(), Ok((vec!["a".into()], vec![])));
        assert!(got.try_recv().is_err());
        member.arrived((Group::Channel, "b"), Err("there is no room"));
        assert_eq!(got.try_recv(), Ok((vec!["a".into()], vec!["channel \"b\": there is no room".into()])));
        member.when_ready(None, vec![(Group::Channel, a)], note(&told)).expect("room");
        assert_eq!(got.try_recv(), Ok((vec!["a".into()], vec![])), "at once");
        member.when_ready(None, vec![(Group::Channel, b)], note(&told)).expect("room");
        assert_eq!(kept.said(), ["Want((Channel, \"b\"))"], "it is asked for again");
    }

    #[test]
    fn one_that_was_given_up_and_made_anew_is_asked_for_again() {
        let (member, kept) = member(100);
        let (told, got) = noted();
        member.up().expect("room");
        let first = named("a");
        member.when_ready(None, vec![(Group::Channel, Arc::clone(&first))], note(&told)).expect("room");
        member.note_had(&first);
        member.arrived((Group::Channel, "a"), Ok(()));
        got.try_recv().expect("it has come");
        kept.said();
        member.when_ready(None, vec![(Group::Channel, named("a"))], note(&told)).expect("room");
        assert!(got.try_recv().is_err());
        assert_eq!(kept.said(), ["Want((Channel, \"a\"))"]);
    }

    #[test]
    fn who_leaves_while_it_waits_is_not_subscribed_and_one_has_a_bound() {
        let (member, _) = member(100_000);
        let (told, got) = noted();
        member.up().expect("room");
        let (id, other) = (ConnectionId::from_bits(1), ConnectionId::from_bits(2));
        let a = named("a");
        for who in [id, other] {
            member.when_ready(Some(who), vec![(Group::Channel, Arc::clone(&a))], note(&told)).expect("room");
        }
        member.cancel(id, (Group::Channel, "a"));
        for _ in 1..WAITING_MAX {
            member.when_ready(Some(id), vec![(Group::Channel, named("b"))], note(&told)).expect("room");
        }
        let over = member.when_ready(Some(id), vec![(Group::Channel, named("c"))], note(&told)).expect_err("the bound");
        assert_eq!(over.to_string(), "subscriptions that wait: 4097 is over the bound of 4096");
        member.note_had(&a);
        member.arrived((Group::Channel, "a"), Ok(()));
        let both: Vec<Outcome> = got.try_iter().collect();
        assert_eq!(both, [(vec![], vec![]), (vec!["a".into()], vec![])]);
        member.when_ready(Some(id), vec![(Group::Channel, named("c"))], note(&told)).expect("one has gone");
    }

    #[test]
    fn a_publication_has_its_place_in_its_turn_and_none_when_nobody_is_there() {
        let (member, kept) = member(4);
        let publish = || member.publish((Group::User, "ann"), &Publication::new(Payload::Text("x")));
        assert!(matches!(publish(), Err(EngineError::Apart)));
        member.up().expect("room");
        let placings: Vec<_> = (0..3).map(|_| publish().expect("room")).collect();
        let full = publish().expect_err("four wait");
        assert_eq!(full.to_string(), "bytes for the other workers: 4 is over the bound of 4");
        kept.said();
        let position = crate::Position { epoch: 9, offset: 1 };
        assert!(placings[1].wait_as(5));
        assert_eq!(member.placed(super::Outcome::At(position)), None);
        assert_eq!(placings[0].outcome(), Some(super::Outcome::At(position)));
        assert!(placings[1].outcome().is_none());
        assert_eq!(member.down("it was killed"), [5]);
        let why = "the sequencer of the workers is gone (it was killed): whether it was published is not known";
        assert_eq!(placings[2].outcome(), Some(super::Outcome::Failed(why.into())));
        assert!(!placings[2].wait_as(6) && matches!(publish(), Err(EngineError::Apart)));
    }

    #[test]
    fn what_nobody_watches_is_left_after_some_turns() {
        let (member, kept) = member(100);
        member.up().expect("room");
        for name in ["a", "b"] {
            let channel = named(name);
            member.note_given((Group::Channel, name));
            member.note_had(&channel);
        }
        kept.said();
        let forgotten = Mutex::new(Vec::new());
        for _ in 0..=UNWATCHED_TURNS {
            member.sweep(2, |key| key.1 == "b", |key| forgotten.lock().expect("alone").push(key.1.to_owned()));
        }
        assert_eq!(kept.said(), ["Leave((Channel, \"a\"))"]);
        assert_eq!(*forgotten.lock().expect("alone"), ["a"]);
    }
}
