//! This engine among the workers of one server: what it publishes goes to the sequencer, and into its logs when it comes
//! back; who subscribes waits until what is kept of the channel is here.
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use super::mirroring::TOLD_OF_LANES;
use super::{Audience, Engine};
use crate::channel::{Appended, Channel, Policy, Publication, Registry, Stand, read_publication};
use crate::error::EngineError;
use crate::messages::{Command, ConnectionId, Event};
use crate::node::{FromSequencer, Group, Key, Member, Outcome, Placing};
use crate::position::Position;
use crate::protocol::{Format, Formats};

/// Channels that are looked at in one turn, for some that nobody needs here any more.
const LOOKS_A_TURN: usize = 4_096;

/// Messages of this kind are the application's; others are the engine's own.
pub const TOLD_TO_APPLICATION: u8 = 0;

impl Audience<'_> {
    /// Which of the things that workers share it is.
    pub(super) fn key(&self) -> Option<Key<'_>> {
        match *self {
            Self::Channel(name) => Some((Group::Channel, name)),
            Self::User(name) => Some((Group::User, name)),
            Self::Hub(name) => Some((Group::Hub, name)),
            Self::Lane(_) => None,
        }
    }
}

impl Engine {
    /// Makes it one of several workers, before it serves. Nothing is had of any channel then.
    pub fn join_workers(&self, member: Member) {
        // A second call would find what the first one had; nobody calls it twice.
        let _ = self.common.node.set(Arc::new(member));
        for path in self.common.routes.hubs() {
            self.want_hub(&self.common.hubs, &path);
        }
    }

    /// This engine among several workers, once it has joined them.
    #[must_use]
    pub fn node(&self) -> Option<&Arc<Member>> {
        self.common.node.get()
    }

    /// Calls `then` with these channels for a connection, and why others are not to be had: at once, or once what other
    /// workers have of them is here, up to where `since` says that the connection was.
    ///
    /// # Errors
    /// [`EngineError::LimitReached`] where too much waits.
    pub(super) fn when_ready(
        &self,
        id: ConnectionId,
        channels: Vec<(Group, Arc<Channel>)>,
        since: impl Fn(&Channel) -> Option<Position>,
        then: impl FnOnce(Vec<Arc<Channel>>, Vec<String>) + Send + 'static,
    ) -> Result<(), EngineError> {
        let Some(member) = self.node() else {
            then(channels.into_iter().map(|one| one.1).collect(), Vec::new());
            return Ok(());
        };
        member.when_ready(Some(id), channels, since, Box::new(then))
    }

    /// Encodings that whatever is published has to have, where other workers may serve clients that speak them.
    pub(super) fn formats_of_all(&self) -> Formats {
        let all = [Format::Raw, Format::HubJson, Format::RawMsgpack, Format::HubMsgpack];
        all.into_iter().take(if self.common.settings.speaks_msgpack { 4 } else { 2 }).collect()
    }

    /// Publishes by way of the sequencer, where there is one: what is given knows its place later. With `is_deferred` it
    /// goes there with the next [`flush`](Self::flush), or when 64 KiB wait.
    ///
    /// # Errors
    /// Those of [`publish`](Self::publish); [`EngineError::Apart`].
    pub fn publish_for_all(
        &self,
        audience: Audience<'_>,
        publication: &Publication<'_>,
        is_deferred: bool,
    ) -> Result<Option<Arc<Placing>>, EngineError> {
        let Some((member, key)) = self.node().zip(audience.key()) else { return Ok(None) };
        self.check_running()?;
        self.check_publication(publication)?;
        if let (Group::Channel, name) = key {
            crate::channel::check_name(name)?;
            let policy = || self.common.settings.channel(name).policy;
            if publication.is_removal && policy() != Policy::Latest {
                return Err(EngineError::NoKeys { name: name.to_owned(), policy: policy().name() });
            }
        }
        self.publications.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        member.publish(key, publication, is_deferred).map(Some)
    }

    /// Tells other workers, or with none all of them.
    ///
    /// # Errors
    /// [`EngineError::Apart`]; [`EngineError::LimitReached`] where too much waits for them.
    pub fn tell_workers(&self, to: &[u8], kind: u8, message: &[u8]) -> Result<(), EngineError> {
        self.check_running()?;
        self.node().ok_or(EngineError::Apart)?.tell(to, kind, message)
    }

    /// Tells workers of any machines, or with none all others of all.
    ///
    /// # Errors
    /// As of [`tell_workers`](Self::tell_workers).
    pub fn tell_anywhere(&self, to: &[u32], kind: u8, message: &[u8]) -> Result<(), EngineError> {
        self.check_running()?;
        self.node().ok_or(EngineError::Apart)?.tell_anywhere(to, kind, message)
    }

    /// Tells the application of another worker something, or with none that of all others: of this machine, or of all.
    ///
    /// # Errors
    /// As of [`tell_workers`](Self::tell_workers).
    pub fn tell_applications(&self, to: Option<u32>, message: &[u8], is_for_all: bool) -> Result<(), EngineError> {
        if !is_for_all {
            // A worker of another machine is none of these: nobody hears it.
            let Ok(to) = to.map(u8::try_from).transpose() else { return Ok(()) };
            return self.tell_workers(to.as_slice(), TOLD_TO_APPLICATION, message);
        }
        self.tell_anywhere(to.as_slice(), TOLD_TO_APPLICATION, message)
    }

    /// The sequencer has been reached.
    pub fn node_up(&self) {
        if let Some(member) = self.node()
            && let Err(error) = member.up()
        {
            self.record(40, format!("what is wanted of the sequencer cannot be said: {error}"));
        }
    }

    /// Whoever connects to this path is to get what is published for all of it.
    pub(super) fn want_hub(&self, hubs: &Registry, path: &str) {
        let Some(member) = self.node() else { return };
        if let Ok(channel) = hubs.obtain(path, &self.common.settings, self.common.clock.now_ns()) {
            member.hold(&channel);
            let wanted = member.when_ready(None, vec![(Group::Hub, channel)], |_| None, Box::new(|_, _| ()));
            if let Err(error) = wanted {
                self.record(40, format!("{path}: what other workers publish for all of it is not to be had: {error}"));
            }
        }
    }

    /// The sequencer is gone, for this reason.
    pub fn node_down(&self, why: &str) {
        let lost = self.node().map(|member| member.down(why)).unwrap_or_default();
        for token in lost {
            self.common.events.push(self.shards.len(), Event::Placed(token));
        }
        for number in self.node().map(|member| member.take_others()).unwrap_or_default() {
            self.common.events.push(self.shards.len(), Event::Worker(number, false, 0));
        }
    }

    /// A message of the sequencer. Shards are woken by [`node_turned`](Self::node_turned).
    ///
    /// # Errors
    /// What is wrong with it: the connection is to be given up.
    pub fn node_received(&self, message: &[u8]) -> Result<(), String> {
        let Some(member) = self.node() else { return Ok(()) };
        let push = |event| self.common.events.push(self.shards.len(), event);
        match FromSequencer::read(message).ok_or("a message that is none")? {
            FromSequencer::Welcome(others) => {
                for number in others.iter().map(|&number| u32::from(number)) {
                    if member.note_other(number, true) {
                        push(Event::Worker(number, true, 0));
                    }
                }
            }
            FromSequencer::Refused(why) => return Err(why.to_owned()),
            FromSequencer::Have(key, dump) => self.receive_kept(member, key, dump)?,
            FromSequencer::Cannot(key, why) => member.arrived(key, Err(why)),
            FromSequencer::Reached(key) => member.reached(key),
            FromSequencer::Record(key, position, previous, publication) => {
                self.receive(member, key, (position, previous), publication)?;
            }
            FromSequencer::Placed(position) => {
                if let Some(token) = member.placed(0, Outcome::At(position)) {
                    push(Event::Placed(token));
                }
            }
            FromSequencer::Failed(behind, why) => match member.placed(behind, Outcome::Failed(why.into())) {
                Some(token) => push(Event::Placed(token)),
                None if why.is_empty() => (),
                None => self.record(40, format!("a publication was refused: {why}")),
            },
            FromSequencer::AskApplication(name, again) => push(Event::SnapshotWanted(name.to_owned(), again)),
            FromSequencer::StartLive(name, why) => self.start_live(name, why),
            FromSequencer::Backbone(how, why) => push(Event::Backbone(how, why.into())),
            FromSequencer::Foreign(more) => push(Event::BackboneForeign(more)),
            FromSequencer::Told(from, TOLD_TO_APPLICATION, message) => push(Event::Told(from, message.to_vec())),
            FromSequencer::Told(from, TOLD_OF_LANES, message) => self.told_of_lane(from.into(), message),
            FromSequencer::Told(..) => (), // of a kind that this engine does not know
            FromSequencer::Changed(number, is_there) => {
                if member.note_other(number.into(), is_there) {
                    push(Event::Worker(number.into(), is_there, 0));
                }
            }
            FromSequencer::SecretElsewhere(secret) => {
                if let Some(siblings) = &self.common.siblings {
                    siblings.learn(secret);
                }
            }
            FromSequencer::ToldAnywhere(from, TOLD_TO_APPLICATION, message) => {
                push(Event::ToldAnywhere(from, message.to_vec()));
            }
            FromSequencer::ToldAnywhere(from, TOLD_OF_LANES, message) => self.told_of_lane(from, message),
            FromSequencer::ToldAnywhere(..) => (),
            FromSequencer::ChangedElsewhere(number, is_there, age) => {
                if member.note_other(number, is_there) {
                    push(Event::Worker(number, is_there, age));
                }
            }
        }
        Ok(())
    }

    /// A batch of messages is over.
    pub fn node_turned(&self) {
        self.flush();
        let Some(member) = self.node() else { return };
        let now_s = self.common.clock.now_ns() / 1_000_000_000;
        if member.is_sweep_due(now_s) {
            let find = |(group, name): Key<'_>| self.common.registry_of(group).find(name);
            member.sweep(
                LOOKS_A_TURN,
                |key| find(key).is_some_and(|channel| channel.is_cared_for()),
                |key| {
                    if let Some(channel) = find(key) {
                        channel.set_had(false);
                        channel.forget_kept();
                    }
                },
            );
        }
    }

    fn receive_kept(&self, member: &Member, key: Key<'_>, dump: &[u8]) -> Result<(), String> {
        let (common, now_ns) = (&self.common, self.common.clock.now_ns());
        let channel = match common.registry_of(key.0).obtain(key.1, &common.settings, now_ns) {
            Ok(channel) => channel,
            Err(error) => {
                member.arrived(key, Err(&error.to_string()));
                return Ok(());
            }
        };
        let tell = |watch: &Arc<_>| self.tell(watch, true);
        channel.restore(dump, now_ns, tell).ok_or_else(|| format!("what is kept of {:?} is none", key.1))?;
        member.note_given(key);
        member.note_had(&channel);
        member.arrived(key, Ok(()));
        Ok(())
    }

    fn receive(
        &self,
        member: &Member,
        key: Key<'_>,
        (position, previous): (Position, Position),
        publication: &[u8],
    ) -> Result<(), String> {
        let found = self.common.registry_of(key.0).find(key.1);
        let Some(channel) = found.filter(|channel| channel.is_had()) else { return Ok(()) };
        if channel.is_elsewhere(previous) {
            // What is between is with the sequencer, as is this one.
            return member.ask_again(key, &channel).map_err(|error| error.to_string());
        }
        let (now_ns, head) = (self.common.clock.now_ns(), channel.position());
        let append = |publication: &Publication<'_>| {
            let tell = |watch: &Arc<_>| self.tell(watch, true);
            channel.append(
                publication,
                Stand::After { previous, position },
                now_ns,
                self.common.settings.unsent_bytes_max,
                tell,
            )
        };
        loop {
            match read_publication(publication, append).ok_or("a publication that is none")? {
                Ok(Appended::At(_) | Appended::Duplicate(_)) => {
                    if head.epoch != position.epoch {
                        member.note_had(&channel); // whoever waits for its delivery finds it by its life
                    }
                    return Ok(());
                }
                Ok(Appended::Missing(formats)) => {
                    self.record(40, format!("{:?}: {position} came without its encoding for {formats:?}", key.1));
                    return Ok(());
                }
                // The shards are behind by all that may wait for them: nothing more is taken until they have caught up.
                Err(EngineError::LimitReached { .. }) => {
                    self.check_running().map_err(|error| error.to_string())?;
                    self.flush();
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    pub(super) fn start_live(&self, name: &str, why: &str) {
        if let Some(channel) = self.common.registry.find(name) {
            channel.give_up_snapshot();
            for shard in &self.shards {
                shard.command(Command::StartLive(channel.clone(), why.into()));
            }
        }
    }

    /// Waits until what is kept of a channel is here, a second at most.
    ///
    /// # Errors
    /// [`EngineError::Apart`].
    pub(super) fn wait_for(&self, channel: &Arc<Channel>) -> Result<(), EngineError> {
        let Some(member) = self.node().filter(|_| !channel.is_had()) else { return Ok(()) };
        let (done, is_done) = sync_channel(1);
        let then = Box::new(move |channels: Vec<_>, _| {
            let _ = done.try_send(channels.is_empty()); // nobody waits any more
        });
        member.when_ready(None, vec![(Group::Channel, Arc::clone(channel))], |_| None, then)?;
        match is_done.recv_timeout(Duration::from_secs(1)) {
            Ok(false) => Ok(()),
            _ => Err(EngineError::Apart),
        }
    }
}
