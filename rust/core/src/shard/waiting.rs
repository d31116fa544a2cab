//! Subscriptions that wait for what other workers have published of their channels: [`crate::node`] knows when that is here.
use std::sync::Arc;

use super::answers::Refusal;
use super::{Io, Shard};
use crate::channel::{Channel, Watched, watch_all};
use crate::error::EngineError;
use crate::messages::{Command, ConnectionId, Grant, Reply, Wanted};
use crate::node::Group;
use crate::protocol::Formats;
use crate::session::Asked;

impl<I: Io> Shard<I> {
    /// Whether something of these channels may be elsewhere alone.
    pub(super) fn has_to_wait(&self, channels: &[Arc<Channel>], wanted: &Wanted) -> bool {
        let Some(member) = self.common.node.get() else { return false };
        let is_elsewhere =
            |channel: &Arc<Channel>| !channel.is_had() || member.is_behind(channel, wanted.origin_of(channel).since);
        channels.iter().any(is_elsewhere)
    }

    /// Whether an opening that is accepted has to wait for what its positions say that other workers have.
    pub(super) fn has_to_wait_to_open(&mut self, slot: u32, watched: &[Watched]) -> bool {
        let Some(member) = self.common.node.get() else { return false };
        let Some(asked) = self.slab.at(slot).session.asked().filter(|asked| !asked.has_waited) else { return false };
        let is_behind = |one: &Watched| member.is_behind(&one.channel, asked.wanted.origin_of(&one.channel).since);
        watched.iter().any(is_behind)
    }

    /// Accepts it when that is here.
    pub(super) fn open_when_ready(
        &mut self,
        slot: u32,
        watched: Vec<Watched>,
        (user, reply): (Option<Arc<Channel>>, Reply),
    ) {
        let Some(asked) = self.slab.at(slot).session.take_asked(false) else { return };
        let (id, wanted) = (self.id_of(slot), asked.wanted.clone());
        self.slab.at(slot).session.ask(Asked { has_waited: true, ..asked });
        let handle = Arc::clone(&self.common.shards[self.index]);
        let keys = watched.iter().map(|one| (Group::Channel, Arc::clone(&one.channel))).collect();
        // What is published meanwhile is for it, too: its place in each log is held.
        let then = move |_, _| handle.command(Command::Accept(id, watched, user, reply));
        let Some(member) = self.common.node.get() else { return };
        let since = |channel: &Channel| wanted.origin_of(channel).since;
        if let Err(cannot) = member.when_ready(Some(id), keys, since, Box::new(then)) {
            self.refuse(slot, &Refusal::new(503, cannot.to_string()));
        }
    }

    /// Has this shard do what `command` makes of them, and of why others are not to be had, once the channels are had, and reach as far as is wanted.
    ///
    /// # Errors
    /// [`EngineError::LimitReached`] where too many wait for this connection.
    pub(super) fn when_ready(
        &self,
        slot: u32,
        formats: Formats,
        (channels, wanted): (Vec<Arc<Channel>>, &Wanted),
        command: impl FnOnce(ConnectionId, Vec<Watched>, Vec<String>) -> Command + Send + 'static,
    ) -> Result<(), EngineError> {
        let Some(member) = self.common.node.get() else { return Ok(()) };
        let (id, index) = (self.id_of(slot), self.index);
        let handle = Arc::clone(&self.common.shards[index]);
        let view = wanted.view.clone();
        let then = move |channels: Vec<Arc<Channel>>, mut errors: Vec<String>| {
            let watched = watch_all(&channels, (formats, index), &view).unwrap_or_else(|error| {
                errors.push(error.to_string());
                Vec::new()
            });
            handle.command(command(id, watched, errors));
        };
        let keys = channels.into_iter().map(|channel| (Group::Channel, channel)).collect();
        member.when_ready(Some(id), keys, |channel| wanted.origin_of(channel).since, Box::new(then))
    }

    /// A client leaves a channel behind whatever is on its way here, as what it waited for may be.
    pub(super) fn unsubscribe_behind(&mut self, slot: u32, channel: Arc<Channel>) {
        let (id, tails) = (self.id_of(slot), channel.tails(self.slab.at(slot).format.into()));
        self.leaving_behind.push((id, Arc::clone(&channel)));
        self.common.shards[self.index].command(Command::Unsubscribe(id, channel, tails));
    }

    /// Whether it is yet to leave one of these so: what it asks for now comes behind that.
    fn leaves_behind(&self, slot: u32, channels: &[Arc<Channel>]) -> bool {
        let id = self.id_of(slot);
        self.leaving_behind.iter().any(|one| one.0 == id && channels.iter().any(|channel| Arc::ptr_eq(&one.1, channel)))
    }

    /// It has left one.
    pub(super) fn forget_leaving_behind(&mut self, id: ConnectionId, channel: &Arc<Channel>) {
        if let Some(at) = self.leaving_behind.iter().position(|one| one.0 == id && Arc::ptr_eq(&one.1, channel)) {
            self.leaving_behind.remove(at);
        }
    }

    /// A client's request waits for what other workers have of these channels. False where all of it is here.
    pub(super) fn ask_for_all(&mut self, slot: u32, names: &[String], id: Option<&str>, wanted: &Wanted) -> bool {
        let (mut channels, mut error) = (Vec::new(), None);
        for name in names {
            match self.check_room(slot, channels.len()).and_then(|()| self.obtain_channel(name)) {
                Ok(channel) => channels.push(channel),
                Err(cannot) => {
                    error = Some(cannot.to_string());
                    break; // as where nobody has to wait
                }
            }
        }
        if !self.has_to_wait(&channels, wanted) && !self.leaves_behind(slot, &channels) {
            return false;
        }
        let formats = self.slab.at(slot).format.into();
        let (request, asked) = (id.map(Box::from), wanted.clone());
        let grant = move |id, watched, errors: Vec<String>| {
            let error = error.into_iter().chain(errors).reduce(|all, one| format!("{all}; {one}"));
            Command::Grant(id, Box::new(Grant { watched, id: request, error, wanted: asked }))
        };
        if let Err(cannot) = self.when_ready(slot, formats, (channels, wanted), grant) {
            self.reply_error(slot, id, &cannot.to_string());
        }
        true
    }
}
