//! Who hears which channel, in which of the formats that it may come to speak.
use std::sync::Arc;

use super::{Engine, check_headers};
use crate::channel::{Channel, Origin, View, Watched, check_name};
use crate::error::EngineError;
use crate::http::is_token;
use crate::messages::{Command, ConnectionId, Grant, Reply, Wanted};
use crate::node::Group;
use crate::protocol::{Format, Formats};

/// A channel that somebody is to watch, and what of it.
#[derive(Clone, Debug)]
pub struct Chosen<'a> {
    channel: &'a str,
    view: View,
}

impl<'a> From<&'a str> for Chosen<'a> {
    fn from(channel: &'a str) -> Self {
        Self { channel, view: View::default() }
    }
}

impl<'a> From<&'a String> for Chosen<'a> {
    fn from(channel: &'a String) -> Self {
        channel.as_str().into()
    }
}

impl<'a> From<(&'a str, View)> for Chosen<'a> {
    fn from((channel, view): (&'a str, View)) -> Self {
        Self { channel, view }
    }
}

/// What each of them is watched for, by their channels.
type Views = Vec<(Arc<Channel>, View)>;

/// Counts a subscriber in to each of these channels; gives why to others it was not.
fn watch_each(
    channels: &[Arc<Channel>],
    views: &Views,
    (formats, shard): (Formats, usize),
) -> (Vec<Watched>, Vec<String>) {
    let (mut watched, mut errors) = (Vec::new(), Vec::new());
    for channel in channels {
        let view = views.iter().find(|one| Arc::ptr_eq(&one.0, channel)).map(|one| one.1.clone());
        match channel.watch_view(formats, shard, &view.unwrap_or_default()) {
            Ok(one) => watched.extend(one),
            Err(cannot) => errors.push(cannot.to_string()),
        }
    }
    (watched, errors)
}

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
    pub fn accept<'a, C: Into<Chosen<'a>>>(
        &self,
        id: ConnectionId,
        channels: impl IntoIterator<Item = C>,
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
        let views = channels.into_iter().map(|one| self.choose(one.into())).collect::<Result<Views, _>>()?;
        let channels = views.iter().map(|one| Arc::clone(&one.0)).collect();
        let now_ns = self.common.clock.now_ns();
        // At the bound of channels it gets nothing that is for its user.
        let user = user.and_then(|user| self.common.users.obtain(user, &self.common.settings, now_ns).ok());
        let Some(shard) = self.shard_of(id).map(Arc::clone) else { return Ok(()) };
        let of_user = user.clone();
        let then = move |mut channels: Vec<Arc<Channel>>, mut errors: Vec<String>| {
            channels.retain(|one| user.as_ref().is_none_or(|user| !Arc::ptr_eq(one, user)));
            let (watched, cannot) = watch_each(&channels, &views, (formats, id.shard()));
            errors.extend(cannot);
            if !errors.is_empty() {
                return shard.command(Command::cannot_open(id, &errors));
            }
            shard.command(Command::Accept(id, watched, user, reply));
        };
        let mut keys = named(channels);
        keys.extend(of_user.map(|user| (Group::User, user)));
        self.when_ready(id, keys, |_| None, then) // its shard knows from where on
    }

    /// The channel, made if need be, and what of it is wanted, where there is room for that.
    pub(super) fn choose(&self, chosen: Chosen<'_>) -> Result<(Arc<Channel>, View), EngineError> {
        let channel = self.obtain_to_watch(chosen.channel)?;
        channel.check_view(&chosen.view)?;
        Ok((channel, chosen.view))
    }

    /// Subscribes a connection, from `origin` on; publications made after this call reach it in any case.
    ///
    /// # Errors
    /// [`EngineError`]: stopped, a bad channel name, the bound of channels, or of the channel's filters.
    pub fn subscribe<'a>(
        &self,
        id: ConnectionId,
        channel: impl Into<Chosen<'a>>,
        origin: Origin,
    ) -> Result<(), EngineError> {
        self.check_running()?;
        let ((channel, view), formats) = (self.choose(channel.into())?, self.may_speak(id));
        let Some(shard) = self.shard_of(id).map(Arc::clone) else { return Ok(()) };
        let views = vec![(Arc::clone(&channel), view)];
        let then = move |channels: Vec<Arc<Channel>>, _| {
            // At a bound that others have come to meanwhile it gets nothing.
            for watched in watch_each(&channels, &views, (formats, id.shard())).0 {
                shard.command(Command::Subscribe(id, watched, origin, Arc::default()));
            }
        };
        self.when_ready(id, named(vec![channel]), |_| origin.since, then)
    }

    /// Decides on a client's request to watch: subscribes it to `channels`, then answers it.
    ///
    /// With `error`, or when one of `channels` can't be watched, the answer is that error; else, for a request with an
    /// `id` (JSON text) or one that says where it was, that it is subscribed. It begins where it `wanted` to, and gets what
    /// `channels` say, not the filter that it wanted;
    /// publications made after this call reach it in any case.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`].
    pub fn grant<'a, C: Into<Chosen<'a>>>(
        &self,
        id: ConnectionId,
        channels: impl IntoIterator<Item = C>,
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
        let mut views = Views::new();
        for one in channels {
            match self.choose(one.into()) {
                Ok(one) => views.push(one),
                Err(cannot) => note_error(&mut grant, &cannot.to_string()),
            }
        }
        let Some(shard) = self.shard_of(id).map(Arc::clone) else { return Ok(()) };
        let allowed = views.iter().map(|one| Arc::clone(&one.0)).collect();
        let then = move |channels: Vec<Arc<Channel>>, mut errors: Vec<String>| {
            let (watched, cannot) = watch_each(&channels, &views, (formats, id.shard()));
            grant.watched = watched;
            errors.extend(cannot);
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
