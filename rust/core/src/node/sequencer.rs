//! The process that orders: it has each channel once, gives positions, and knows who wants what.
use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::agreement::agreement;
use super::asked::Asked;
use super::backbone::{Abroad, Outcome};
use super::machines::Machines;
use super::wire::{FromMember, FromSequencer, Group, Key, VERSION};
use crate::channel::{Appended, Channel, Pattern, Publication, Registry, Stand, begin_epochs_now, read_publication};
use crate::clock::Clock;
use crate::error::EngineError;
use crate::settings::Settings;

/// Who is to be reached, by the numbers that the caller gave.
pub trait Peers {
    /// Sends one message to each of these.
    fn send(&mut self, peers: &[u64], message: &[u8]);
}

/// One that is connected, and has said who it is.
#[derive(Debug)]
struct Peer {
    number: u8,
    patterns: Vec<(Pattern, usize)>,
}

/// Who wants a channel.
#[derive(Debug, Default)]
pub(super) struct Interest {
    pub(super) peers: SmallVec<[u64; 4]>,
    /// It stays in its registry while somebody wants it.
    pub(super) channel: Option<Arc<Channel>>,
    /// The patterns that were looked at for it.
    patterns_seen: u64,
    /// Whose application was asked for a keyframe.
    pub(super) asked: Option<Asked>,
}

/// Orders the publications of several processes.
#[derive(Debug)]
pub struct Sequencer {
    pub(super) settings: Settings,
    /// What all members have to say that they are set to.
    pub(super) agreed: Box<[u8]>,
    pub(super) clock: Clock,
    registries: [Registry; Group::ALL.len()],
    pub(super) interests: [HashMap<Box<str>, Interest>; Group::ALL.len()],
    /// An engine outside that orders in its place, if there is one.
    pub(super) abroad: Option<Abroad>,
    /// Other machines that are there.
    pub(super) machines: Machines,
    peers: HashMap<u64, Option<Peer>>,
    /// Changes with each pattern that somebody listens to.
    pub(super) patterns: u64,
    out: Vec<u8>,
    swept: u64,
}

impl Sequencer {
    /// One that knows nobody, of this version, and whose channels promise what these say.
    #[must_use]
    pub fn new(version: &str, settings: Settings) -> Self {
        begin_epochs_now(); // another process may have ordered before, which began later than this one
        let (common, max) = (Arc::default(), settings.channels_max);
        let unlisted = |max| Registry::unlisted(&common, max);
        Self {
            registries: [Registry::listed(&common, max), unlisted(max), unlisted(crate::routes::ROUTES_MAX)],
            agreed: agreement(version, &settings),
            settings,
            clock: Clock::start(),
            interests: Default::default(),
            abroad: None,
            machines: Machines::default(),
            peers: HashMap::new(),
            patterns: 0,
            out: Vec::new(),
            swept: 0,
        }
    }

    /// One whose time a test makes.
    #[cfg(test)]
    pub(crate) fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Somebody has connected.
    pub fn came(&mut self, peer: u64) {
        self.peers.insert(peer, None);
    }

    /// Somebody's connection is over.
    pub fn gone(&mut self, peer: u64, peers: &mut dyn Peers) {
        let Some(Some(gone)) = self.peers.remove(&peer) else { return };
        for group in Group::ALL {
            let mut orphaned = Vec::new();
            self.interests[group as usize].retain(|name, interest| {
                interest.leave(peer);
                if interest.asked.is_some_and(|asked| asked.peer == peer) {
                    interest.asked = None;
                    orphaned.push(name.clone());
                }
                !interest.peers.is_empty()
            });
            for name in orphaned {
                // Who waits for a keyframe still does: another application is asked.
                if let Some(&next) = self.interests[group as usize].get(&name).and_then(|one| one.peers.first()) {
                    self.forget_asked(&name);
                    self.ask_snapshot(next, &name, peers);
                }
            }
        }
        self.gone_from_here(peer);
        gone.patterns.iter().for_each(|one| self.listen_abroad(one.0.text(), false));
        let others = self.members();
        self.send(&others, FromSequencer::Changed(gone.number, false), peers);
        self.say_here(None);
    }

    /// A message of somebody.
    ///
    /// # Errors
    /// What is wrong with it: the connection is to be given up.
    pub fn received(&mut self, peer: u64, message: &[u8], peers: &mut dyn Peers) -> Result<(), String> {
        let message = FromMember::read(message).ok_or("a message that is none")?;
        let is_known = self.peers.get(&peer).is_some_and(Option::is_some);
        match message {
            FromMember::Hello(version, number, settings) if !is_known => {
                self.welcome(peer, (version, number, settings), peers);
            }
            _ if !is_known => return Err("a message before the first one".into()),
            FromMember::Hello(..) => return Err("a second first message".into()),
            FromMember::Publish(key, publication) => self.publish(peer, key, publication, peers)?,
            FromMember::Want(key) => self.want(peer, key, peers),
            FromMember::Reach(key) => self.reach(peer, key, peers),
            FromMember::Leave((group, name)) => {
                let interests = &mut self.interests[group as usize];
                if let Some(interest) = interests.get_mut(name) {
                    interest.leave(peer);
                    if interest.peers.is_empty() {
                        interests.remove(name);
                    }
                }
                self.wait_no_more(peer, (group, name));
            }
            FromMember::Listen(pattern) => self.listen(peer, pattern)?,
            FromMember::Unlisten(pattern) => {
                if let Some(Some(one)) = self.peers.get_mut(&peer) {
                    one.patterns.iter_mut().filter(|known| known.0.text() == pattern).for_each(|known| known.1 -= 1);
                    one.patterns.retain(|known| known.1 > 0);
                }
                self.listen_abroad(pattern, false);
            }
            FromMember::AskSnapshot(name) => self.ask_snapshot(peer, name, peers),
            FromMember::GiveUpSnapshot(name, why) => {
                self.start_live(name, why, peers);
            }
            FromMember::Secret(secret) => self.note_secret(secret),
            FromMember::TellAnywhere(to, kind, message) => {
                let Some(from) = self.number_of(peer) else { return Ok(()) };
                self.tell_anywhere(from, to, (kind, message), peers);
            }
            FromMember::Tell(to, kind, message) => {
                let Some(from) = self.number_of(peer) else { return Ok(()) };
                let meant =
                    self.members_that(|number| if to.is_empty() { number != from } else { to.contains(&number) });
                self.send(&meant, FromSequencer::Told(from, kind, message), peers);
            }
        }
        Ok(())
    }

    /// Some time has passed: forgets what nobody needs, a part of it.
    pub fn turned(&mut self, peers: &mut dyn Peers) {
        self.look_after_machines(peers);
        let now_s = self.clock.now_ns() / 1_000_000_000;
        if now_s == self.swept {
            return;
        }
        self.swept = now_s;
        self.tell_of_foreign(peers);
        for registry in &self.registries {
            registry.sweep(registry.looks().div_ceil(8), now_s);
        }
    }

    /// Whether a member listens to this pattern.
    pub(super) fn is_listened(&self, pattern: &str) -> bool {
        self.peers.values().flatten().any(|one| one.patterns.iter().any(|known| known.0.text() == pattern))
    }

    fn number_of(&self, peer: u64) -> Option<u8> {
        Some(self.peers.get(&peer)?.as_ref()?.number)
    }

    /// The numbers of all members.
    pub(super) fn numbers(&self) -> Vec<u8> {
        self.peers.values().flatten().map(|one| one.number).collect()
    }

    /// All members.
    pub(super) fn members(&self) -> SmallVec<[u64; 4]> {
        self.members_that(|_| true)
    }

    /// The members whose numbers are as that says.
    pub(super) fn members_that(&self, is_meant: impl Fn(u8) -> bool) -> SmallVec<[u64; 4]> {
        let known = self.peers.iter().filter_map(|(id, one)| Some((*id, one.as_ref()?.number)));
        known.filter(|one| is_meant(one.1)).map(|one| one.0).collect()
    }

    pub(super) fn send(&mut self, to: &[u64], message: FromSequencer<'_>, peers: &mut dyn Peers) {
        if to.is_empty() {
            return;
        }
        self.out.clear();
        message.write(&mut self.out);
        peers.send(to, &self.out);
        if self.out.capacity() > 1 << 20 {
            self.out = Vec::new();
        }
    }

    fn welcome(&mut self, peer: u64, (version, number, settings): (u32, u8, &[u8]), peers: &mut dyn Peers) {
        let why = if version != VERSION {
            format!(
                "worker {number} speaks version {version} of the protocol between workers, and its supervisor {VERSION}: \
                 start the supervisor anew, which is of another version of fanwire"
            )
        } else if *self.agreed != *settings {
            format!(
                "worker {number} has other channels or bounds than its supervisor: the program has changed, or what it \
                 builds is not the same each time; start the supervisor anew"
            )
        } else if self.peers.values().flatten().any(|one| one.number == number) {
            format!("there is a worker {number} already")
        } else {
            String::new()
        };
        if !why.is_empty() {
            // It goes by itself when it reads that; the connection's end here might come before.
            self.send(&[peer], FromSequencer::Refused(&why), peers);
            return;
        }
        let others = self.members();
        let numbers = self.numbers();
        self.peers.insert(peer, Some(Peer { number, patterns: Vec::new() }));
        self.send(&[peer], FromSequencer::Welcome(&numbers), peers);
        self.tell_of_backbone(&[peer], peers);
        self.send(&others, FromSequencer::Changed(number, true), peers);
        self.tell_of_machines(peer, peers);
        self.say_here(None);
    }

    pub(super) fn obtain(&self, (group, name): Key<'_>) -> Result<Arc<Channel>, EngineError> {
        self.registries[group as usize].obtain(name, &self.settings, self.clock.now_ns())
    }

    fn publish(&mut self, peer: u64, key: Key<'_>, publication: &[u8], peers: &mut dyn Peers) -> Result<(), String> {
        let channel = match self.obtain(key) {
            Ok(channel) => channel,
            Err(error) => {
                self.settle(peer, Err(error.to_string()), peers);
                return Ok(());
            }
        };
        self.hear_patterns(key, &channel, peers);
        let is_snapshot = read_publication(publication, |one| one.is_snapshot).ok_or("a publication that is none")?;
        if !is_snapshot && self.publish_abroad(peer, key, publication, peers) {
            return Ok(());
        }
        let (now_ns, before) = (self.clock.now_ns(), channel.position());
        let asked = self.interests[key.0 as usize].get(key.1).and_then(|interest| interest.asked);
        let is_late = asked.is_some_and(|asked| asked.is_overtaken(peer, before.offset, now_ns));
        if is_snapshot && is_late {
            self.settle(peer, Err(String::new()), peers);
            self.ask(peer, key.1, asked.map_or(0, |asked| asked.again + 1), peers);
            return Ok(());
        }
        let outcome = self.order(key, &channel, publication, peers)?;
        self.settle(peer, outcome, peers);
        Ok(())
    }

    /// Gives a publication its place here, and sends it to the members that want it.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn order(
        &mut self,
        key: Key<'_>,
        channel: &Channel,
        publication: &[u8],
        peers: &mut dyn Peers,
    ) -> Result<Outcome, String> {
        let (now_ns, before) = (self.clock.now_ns(), channel.position());
        let append = |publication: &Publication<'_>| {
            let stand = if publication.is_snapshot { Stand::Next } else { self.stand_here(before) };
            let is_beginning = publication.is_keyframe || publication.is_snapshot;
            (channel.append(publication, stand, now_ns, u64::MAX, |_| ()), is_beginning)
        };
        let (appended, is_beginning) = read_publication(publication, append).ok_or("a publication that is none")?;
        Ok(match appended {
            Ok(Appended::At(position) | Appended::Duplicate(position)) => {
                self.send_record(key, (position, before), publication, is_beginning, peers);
                Ok(position)
            }
            Ok(Appended::Missing(formats)) => Err(format!("the publication came without its encoding for {formats:?}")),
            Err(error) => Err(error.to_string()),
        })
    }

    fn want(&mut self, peer: u64, key: Key<'_>, peers: &mut dyn Peers) {
        match self.obtain(key) {
            Ok(channel) => self.give_or_wait(peer, key, &channel, peers),
            Err(error) => self.send(&[peer], FromSequencer::Cannot(key, &error.to_string()), peers),
        }
    }

    /// Sends what is kept, and from now on all that is published.
    pub(super) fn give(&mut self, peer: u64, key: Key<'_>, channel: &Arc<Channel>, peers: &mut dyn Peers) {
        let dump = channel.dump(self.clock.now_ns());
        let interest = self.interests[key.0 as usize].entry(key.1.into()).or_default();
        if !interest.peers.contains(&peer) {
            interest.peers.push(peer);
        }
        interest.channel = Some(Arc::clone(channel));
        self.send(&[peer], FromSequencer::Have(key, &dump), peers);
    }

    fn listen(&mut self, peer: u64, text: &str) -> Result<(), String> {
        let pattern = Pattern::new(text).map_err(|error| error.to_string())?;
        self.listen_abroad(text, true);
        if let Some(Some(one)) = self.peers.get_mut(&peer) {
            match one.patterns.iter_mut().find(|known| known.0.text() == text) {
                Some(known) => known.1 += 1,
                None => one.patterns.push((pattern, 1)),
            }
            self.patterns += 1;
        }
        Ok(())
    }

    /// Whoever listens to channels of a pattern wants each from its next publication on.
    pub(super) fn hear_patterns(&mut self, key: Key<'_>, channel: &Arc<Channel>, peers: &mut dyn Peers) {
        if self.patterns == 0 || key.0 != Group::Channel {
            return;
        }
        let known = self.interests[Group::Channel as usize].get_mut(key.1);
        if known.as_ref().is_some_and(|interest| interest.patterns_seen == self.patterns) {
            return;
        }
        let has = known.map(|interest| interest.peers.clone()).unwrap_or_default();
        let hears = |one: &Peer| one.patterns.iter().any(|known| known.0.matches(key.1));
        let all = self.peers.iter().filter_map(|(id, one)| Some((*id, one.as_ref()?)));
        let new: Vec<u64> = all.filter(|(id, one)| !has.contains(id) && hears(one)).map(|one| one.0).collect();
        for peer in new {
            self.give_or_wait(peer, key, channel, peers);
        }
        if let Some(interest) = self.interests[Group::Channel as usize].get_mut(key.1) {
            interest.patterns_seen = self.patterns;
        }
    }
}

impl Interest {
    fn leave(&mut self, peer: u64) {
        self.peers.retain(|one| *one != peer);
        if self.peers.is_empty() {
            self.channel = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::asked::AGAIN_MAX;
    use super::*;
    use crate::channel::write_publication;
    use crate::protocol::Payload;
    use crate::settings::Settings;

    /// What each was sent.
    #[derive(Default)]
    struct Sent(Vec<(Vec<u64>, String)>);

    impl Peers for Sent {
        fn send(&mut self, peers: &[u64], message: &[u8]) {
            let message = FromSequencer::read(message).expect("a message");
            self.0.push((peers.to_vec(), format!("{message:?}")));
        }
    }

    impl Sent {
        /// To whom went what begins so, since the last look.
        fn to(&mut self, begin: &str) -> Vec<Vec<u64>> {
            let all = std::mem::take(&mut self.0);
            all.into_iter().filter(|one| one.1.starts_with(begin)).map(|one| one.0).collect()
        }
    }

    fn say(sequencer: &mut Sequencer, peer: u64, message: FromMember<'_>, sent: &mut Sent) -> Result<(), String> {
        let mut bytes = Vec::new();
        message.write(&mut bytes);
        sequencer.received(peer, &bytes, sent)
    }

    /// One with three members, of the numbers 1 to 3.
    fn three() -> (Sequencer, Sent) {
        let settings = Settings::default();
        let (mut sequencer, mut sent) = (Sequencer::new("1", settings.clone()), Sent::default());
        for peer in 1..=3 {
            sequencer.came(peer);
            let hello = FromMember::Hello(VERSION, peer as u8, &agreement("1", &settings));
            say(&mut sequencer, peer, hello, &mut sent).expect("it is welcome");
        }
        sent.0.clear();
        (sequencer, sent)
    }

    fn publication() -> Vec<u8> {
        let mut bytes = Vec::new();
        write_publication(&Publication::new(Payload::Text("x")), &mut bytes);
        bytes
    }

    #[test]
    fn what_is_published_goes_to_those_who_want_it_and_its_place_to_the_publisher() {
        let (mut sequencer, mut sent) = three();
        for peer in [1, 2] {
            say(&mut sequencer, peer, FromMember::Want((Group::Channel, "a")), &mut sent).expect("a message");
            assert_eq!(sent.to("Have((Channel, \"a\")"), [[peer]]);
        }
        let publish = FromMember::Publish((Group::Channel, "a"), &publication());
        say(&mut sequencer, 3, publish, &mut sent).expect("a message");
        let kinds: Vec<_> = sent.0.iter().map(|one| (one.0.clone(), one.1.starts_with("Record("))).collect();
        assert_eq!(kinds, [(vec![1, 2], true), (vec![3], false)]);
        sent.0.clear();
        say(&mut sequencer, 1, FromMember::Leave((Group::Channel, "a")), &mut sent).expect("a message");
        say(&mut sequencer, 3, publish, &mut sent).expect("a message");
        assert_eq!(sent.to("Record("), [[2]]);
    }

    #[test]
    fn who_listens_gets_a_channel_from_its_next_publication_on() {
        let (mut sequencer, mut sent) = three();
        let publish = |name| (Group::Channel, name);
        say(&mut sequencer, 1, FromMember::Publish(publish("odds:1"), &publication()), &mut sent).expect("a message");
        say(&mut sequencer, 2, FromMember::Listen("odds:*"), &mut sent).expect("a message");
        sent.0.clear();
        for _ in 0..2 {
            say(&mut sequencer, 1, FromMember::Publish(publish("odds:1"), &publication()), &mut sent)
                .expect("a message");
            say(&mut sequencer, 1, FromMember::Publish(publish("goals"), &publication()), &mut sent)
                .expect("a message");
        }
        let got: Vec<_> = sent.0.iter().filter(|one| one.0 == [2]).map(|one| &one.1[..4]).collect();
        assert_eq!(got, ["Have", "Reco", "Reco"]);
        say(&mut sequencer, 2, FromMember::Unlisten("odds:*"), &mut sent).expect("a message");
        sent.0.clear();
        say(&mut sequencer, 1, FromMember::Publish(publish("odds:2"), &publication()), &mut sent).expect("a message");
        assert!(sent.to("Have").is_empty());
    }

    #[test]
    fn one_application_is_asked_for_a_keyframe_and_another_when_that_one_dies() {
        let (mut sequencer, mut sent) = three();
        for peer in 1..=3 {
            say(&mut sequencer, peer, FromMember::Want((Group::Channel, "a")), &mut sent).expect("a message");
        }
        for peer in [2, 1, 3] {
            say(&mut sequencer, peer, FromMember::AskSnapshot("a"), &mut sent).expect("a message");
        }
        assert_eq!(sent.to("AskApplication"), [[2]]);
        sequencer.gone(2, &mut sent);
        assert_eq!(sent.to("AskApplication"), [[1]]);
        say(&mut sequencer, 1, FromMember::GiveUpSnapshot("a", "why"), &mut sent).expect("a message");
        assert_eq!(sent.to("StartLive"), [[1, 3]]);
        say(&mut sequencer, 3, FromMember::AskSnapshot("a"), &mut sent).expect("a message");
        assert_eq!(sent.to("AskApplication"), [[3]]);
        let mut keyframe = Vec::new();
        let newest = Publication { is_keyframe: true, ..Publication::new(Payload::Text("x")) };
        write_publication(&newest, &mut keyframe);
        say(&mut sequencer, 3, FromMember::Publish((Group::Channel, "a"), &keyframe), &mut sent).expect("a message");
        sent.0.clear();
        sequencer.gone(3, &mut sent);
        assert!(sent.to("AskApplication").is_empty(), "it has come");
    }

    /// What a newcomer begins with lacks nothing of what came before it, whoever has published that.
    #[test]
    fn a_snapshot_that_others_have_overtaken_is_asked_for_again() {
        let (mut sequencer, mut sent) = three();
        for peer in 1..=2 {
            say(&mut sequencer, peer, FromMember::Want((Group::Channel, "a")), &mut sent).expect("a message");
        }
        let mut snapshot = Vec::new();
        let state = Publication { is_snapshot: true, ..Publication::new(Payload::Text("state")) };
        write_publication(&state, &mut snapshot);
        let key = (Group::Channel, "a");
        say(&mut sequencer, 1, FromMember::AskSnapshot("a"), &mut sent).expect("a message");
        say(&mut sequencer, 3, FromMember::Publish(key, &publication()), &mut sent).expect("a message");
        sent.0.clear();
        say(&mut sequencer, 1, FromMember::Publish(key, &snapshot), &mut sent).expect("a message");
        let said: Vec<_> = sent.0.drain(..).map(|one| one.1).collect();
        assert_eq!(said, ["Failed(0, \"\")", "AskApplication(\"a\", true)"]);
        say(&mut sequencer, 1, FromMember::Publish(key, &snapshot), &mut sent).expect("a message");
        assert_eq!(sent.to("Record("), [[1, 2]]);
        say(&mut sequencer, 2, FromMember::AskSnapshot("a"), &mut sent).expect("a message");
        assert_eq!(sent.to("AskApplication(\"a\", false)"), [[2]], "the next newcomer may have another asked");
        for _ in 0..=AGAIN_MAX {
            say(&mut sequencer, 3, FromMember::Publish(key, &publication()), &mut sent).expect("a message");
            say(&mut sequencer, 2, FromMember::Publish(key, &snapshot), &mut sent).expect("a message");
        }
        assert!(sent.0.last().is_some_and(|one| one.1.starts_with("Placed")), "it does not go on for ever");
    }

    #[test]
    fn what_is_told_goes_to_whom_it_is_for() {
        let (mut sequencer, mut sent) = three();
        say(&mut sequencer, 1, FromMember::Tell(&[], 0, b"all"), &mut sent).expect("a message");
        say(&mut sequencer, 1, FromMember::Tell(&[3, 9], 1, b"one"), &mut sent).expect("a message");
        let mut to = sent.to("Told(1");
        to[0].sort_unstable();
        assert_eq!(to, [vec![2, 3], vec![3]]);
    }

    #[test]
    fn what_is_no_message_or_comes_out_of_turn_ends_the_connection() {
        let (mut sequencer, mut sent) = three();
        assert!(sequencer.received(1, &[99], &mut sent).is_err());
        assert!(sequencer.received(1, &[1, 0, 1, 0, 0, 0, b'a', 255], &mut sent).is_err(), "no publication");
        sequencer.came(4);
        let early = say(&mut sequencer, 4, FromMember::Want((Group::Channel, "a")), &mut sent);
        assert_eq!(early.expect_err("nobody knows it"), "a message before the first one");
        let again = FromMember::Hello(VERSION, 1, b"");
        assert_eq!(say(&mut sequencer, 1, again, &mut sent).expect_err("it is known"), "a second first message");
        for (version, number, settings, says) in
            [(VERSION + 1, 4, b"".as_slice(), "speaks version"), (VERSION, 4, b"x", "other channels or bounds")]
        {
            say(&mut sequencer, 4, FromMember::Hello(version, number, settings), &mut sent).expect("it is told");
            assert!(sent.0.last().is_some_and(|one| one.0 == [4] && one.1.contains(says)), "{:?}", sent.0.last());
        }
        let name = "x".repeat(256);
        say(&mut sequencer, 1, FromMember::Want((Group::Channel, &name)), &mut sent).expect("it is told");
        assert_eq!(sent.to("Cannot"), [[1]]);
    }
}
