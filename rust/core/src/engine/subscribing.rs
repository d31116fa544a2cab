//! Who hears which channel, in which of the formats that it may come to speak.
use std::sync::Arc;

use super::{Engine, check_headers};
use crate::channel::{Channel, Origin, check_name};
use crate::error::EngineError;
use crate::http::is_token;
use crate::messages::{Command, ConnectionId, Grant, Reply, Wanted};
use crate::node::Group;
use crate::protocol::{Format, Formats};

impl Engine {
    /// The formats that a connection may come to speak; none of one that is gone, or another engine's.
    pub(super) fn may_speak(&self, id: ConnectionId) -> Formats {
        self.shard_of(id).map_or(Formats::default(), |shard| shard.spoken.of(id))
    }

    /// The wire format that a connection speaks; `None` of one that is gone, or has yet to say it.
    #[must_use]
    pub fn format_of(&self, id: ConnectionId) -> Option<Format> {
        self.may_speak(id).only()
    }

    /// Finishes an opening with success, subscribed to `channels` from its first byte.
    ///
    /// # Errors
    /// [`EngineError`]: stopped, a bad channel name, the bound of channels.
    pub fn accept<'a>(
        &self,
        id: ConnectionId,
        channels: impl IntoIterator<Item = &'a str>,
        user: Option<&str>,
        reply: Reply,
    ) -> Result<(), EngineError> {
        self.check_running()?;
        check_headers(&reply.headers)?;
        if let Some(name) = reply.subprotocol.as_deref().filter(|name| !is_token(name.as_bytes())) {
            return Err(EngineError::InvalidHeader {
                name: name.to_owned(),
                why: "is no subprotocol: no token".into(),
            });
        }
        let formats = self.may_speak(id);
        let channels = channels.into_iter().map(|name| self.obtain_to_watch(name)).collect::<Result<Vec<_>, _>>()?;
        let now_ns = self.common.clock.now_ns();
        // At the bound of channels it gets nothing that is for its user.
        let user = user.and_then(|user| self.common.users.obtain(user, &self.common.settings, now_ns).ok());
        let Some(shard) = self.shard_of(id).map(Arc::clone) else { return Ok(()) };
        let of_user = user.clone();
        let then = move |mut channels: Vec<Arc<Channel>>, errors: Vec<String>| {
            if !errors.is_empty() {
                return shard.command(Command::cannot_open(id, &errors));
            }
            channels.retain(|one| user.as_ref().is_none_or(|user| !Arc::ptr_eq(one, user)));
            let watched = channels.iter().filter_map(|channel| channel.watch(formats, id.shard())).collect();
            shard.command(Command::Accept(id, watched, user, reply));
        };
        let mut keys = named(channels);
        keys.extend(of_user.map(|user| (Group::User, user)));
        self.when_ready(id, keys, |_| None, then) // its shard knows from where on
    }

    /// Subscribes a connection, from `origin` on; publications made after this call reach it in any case.
    ///
    /// # Errors
    /// [`EngineError`]: stopped, a bad channel name, the bound of channels.
    pub fn subscribe(&self, id: ConnectionId, channel: &str, origin: Origin) -> Result<(), EngineError> {
        self.check_running()?;
        let (channel, formats) = (self.obtain_to_watch(channel)?, self.may_speak(id));
        let Some(shard) = self.shard_of(id).map(Arc::clone) else { return Ok(()) };
        let then = move |channels: Vec<Arc<Channel>>, _| {
            for watched in channels.iter().filter_map(|channel| channel.watch(formats, id.shard())) {
                shard.command(Command::Subscribe(id, watched, origin, Arc::default()));
            }
        };
        self.when_ready(id, named(vec![channel]), |_| origin.since, then)
    }

    /// Decides on a client's request to watch: subscribes it to `channels`, then answers it.
    ///
    /// With `error`, or when one of `channels` can't be watched, the answer is that error; else, for a request with an
    /// `id` (JSON text) or one that says where it was, that it is subscribed. It begins where it `wanted` to;
    /// publications made after this call reach it in any case.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`].
    pub fn grant<'a>(
        &self,
        id: ConnectionId,
        channels: impl IntoIterator<Item = &'a str>,
        request: Option<&str>,
        error: Option<&str>,
        wanted: Wanted,
    ) -> Result<(), EngineError> {
        self.check_running()?;
        let formats = self.may_speak(id);
        if formats.is_empty() {
            return Ok(());
        }
        let (request, error) = (request.map(Box::from), error.map(str::to_owned));
        let since = wanted.clone();
        let mut grant = Grant { watched: Vec::new(), id: request, error, wanted };
        let mut allowed = Vec::new();
        for name in channels {
            match self.obtain_to_watch(name) {
                Ok(channel) => allowed.push(channel),
                Err(cannot) => note_error(&mut grant, &cannot.to_string()),
            }
        }
        let Some(shard) = self.shard_of(id).map(Arc::clone) else { return Ok(()) };
        let then = move |channels: Vec<Arc<Channel>>, errors: Vec<String>| {
            grant.watched = channels.iter().filter_map(|channel| channel.watch(formats, id.shard())).collect();
            errors.iter().for_each(|error| note_error(&mut grant, error));
            shard.command(Command::Grant(id, Box::new(grant)));
        };
        self.when_ready(id, named(allowed), |channel| since.origin_of(channel).since, then)
    }

    /// Ends a subscription, if there is one: what is published after this call does not reach the connection.
    ///
    /// # Errors
    /// [`EngineError`]: stopped, a bad channel name.
    pub fn unsubscribe(&self, id: ConnectionId, channel: &str) -> Result<(), EngineError> {
        self.check_running()?;
        check_name(channel)?;
        if let Some(member) = self.node() {
            member.cancel(id, (Group::Channel, channel));
        }
        if let Some(channel) = self.common.registry.find(channel) {
            let tails = channel.tails(self.may_speak(id));
            self.command(id, Command::Unsubscribe(id, channel, tails));
        }
        Ok(())
    }
}

fn named(channels: Vec<Arc<Channel>>) -> Vec<(Group, Arc<Channel>)> {
    channels.into_iter().map(|channel| (Group::Channel, channel)).collect()
}

fn note_error(grant: &mut Grant, cannot: &str) {
    let error = grant.error.get_or_insert_default();
    let separator = if error.is_empty() { "" } else { "; " };
    error.push_str(&format!("{separator}{cannot}"));
}
