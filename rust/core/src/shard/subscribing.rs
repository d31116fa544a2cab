//! Who watches what: asked for by clients and by the application, joined to feeds and left.
use std::sync::Arc;

use smallvec::SmallVec;

use super::Shard;
use crate::channel::{Channel, Registry, Watched};
use crate::error::EngineError;
use crate::messages::{Command, Grant};
use crate::protocol::{Format, raw, write_reply_result};

impl Shard {
    pub(super) fn subscribe_by_message(&mut self, slot: u32, names: &[String], id: Option<&str>) {
        for name in names {
            if let Err(error) = self.subscribe_by_name(slot, name) {
                self.reply_error(slot, id, &error.to_string());
                self.flush(slot);
                return;
            }
            if self.slab.get(slot).is_none() {
                return;
            }
        }
        self.reply_names(slot, id, "subscribed", names);
    }

    pub(super) fn unsubscribe_by_message(&mut self, slot: u32, names: &[String], id: Option<&str>) {
        for name in names {
            if let Some(channel) = self.common.registry.find(name) {
                self.unsubscribe(slot, &channel);
            }
        }
        self.reply_names(slot, id, "unsubscribed", names);
    }

    /// Who gives a request an id wants to know when it is done.
    fn reply_names(&mut self, slot: u32, id: Option<&str>, key: &str, names: &[String]) {
        if id.is_some() && self.slab.get(slot).is_some_and(|connection| connection.is_live()) {
            let result = serde_json::json!({ key: names }).to_string();
            let mut reply = Vec::new();
            write_reply_result(&mut reply, id, &result);
            raw::write_text(self.slab.at(slot).outbox.bytes_mut(), &reply);
            self.flush(slot);
        }
    }

    fn subscribe_by_name(&mut self, slot: u32, name: &str) -> Result<(), EngineError> {
        if self.common.registry.find(name).is_some_and(|channel| self.feed_of(slot, &channel).is_some()) {
            return Ok(());
        }
        let count = self.slab.at(slot).subscriptions.len();
        if count >= self.settings.subscriptions_max {
            return Err(self.subscriptions_max(count));
        }
        let channel = self.obtain_channel(name)?;
        let format = self.slab.at(slot).format;
        self.join(slot, channel.watch(format, self.index))
    }

    /// A subscription to what is for one user.
    pub(super) fn watch_user(&self, user: &str, format: Format) -> Option<Watched> {
        self.watch_unlisted(&self.common.users, user, format)
    }

    /// A subscription to a channel that clients cannot name; none at the bound of channels.
    pub(super) fn watch_unlisted(&self, registry: &Registry, name: &str, format: Format) -> Option<Watched> {
        let channel = registry.obtain(name, &self.settings, self.clock.now_ns()).ok()?;
        Some(channel.watch(format, self.index))
    }

    fn subscriptions_max(&self, count: usize) -> EngineError {
        let (value, bound) = (count as u64 + 1, self.settings.subscriptions_max as u64);
        EngineError::LimitReached { name: "subscriptions_max", value, bound }
    }

    /// The application subscribes a connection.
    pub(super) fn subscribe(&mut self, slot: u32, watched: Watched) {
        if let Err(error) = self.join(slot, watched) {
            self.record(30, format!("{}: not subscribed: {error}", self.id_of(slot)));
        }
    }

    /// The application has decided on a client's request: these channels, and what to tell the client.
    pub(super) fn grant(&mut self, slot: u32, grant: Grant) {
        let names: Vec<String> = grant.watched.iter().map(|one| one.channel.name().to_owned()).collect();
        let mut errors: Vec<String> = grant.error.into_iter().collect();
        for one in grant.watched {
            if let Err(error) = self.join(slot, one) {
                errors.push(error.to_string());
                break; // the others would not fit either
            }
            if self.slab.get(slot).is_none_or(|connection| !connection.is_live()) {
                return;
            }
        }
        let id = grant.id.as_deref();
        if errors.is_empty() {
            self.reply_names(slot, id, "subscribed", &names);
        } else {
            self.reply_error(slot, id, &errors.join("; "));
            self.flush(slot);
        }
    }

    /// Makes a connection a subscriber from the cursor that was taken when it was asked for. Twice is once.
    ///
    /// # Errors
    /// [`EngineError::LimitReached`] when it has `subscriptions_max` others.
    pub(super) fn join(&mut self, slot: u32, watched: Watched) -> Result<(), EngineError> {
        let mut feed = self.feeds.obtain(&watched.channel, watched.format, &watched.watch);
        let connection = self.slab.at(slot);
        let count = connection.subscriptions.len();
        let (is_new, is_full) = (connection.find_feed(feed).is_none(), count >= self.settings.subscriptions_max);
        if !connection.is_live() || !is_new || is_full {
            self.feeds.forget_if_empty(feed);
            return if is_new && is_full { Err(self.subscriptions_max(count)) } else { Ok(()) };
        }
        if !std::mem::replace(&mut connection.is_registered, true) {
            let fd = connection.raw_fd();
            self.poller.register(slot, fd);
        }
        while self.feeds.get(feed).is_some_and(|target| target.cursor < watched.cursor) {
            self.fan_out(&[feed], None);
            if self.slab.get(slot).is_none_or(|connection| !connection.is_live()) {
                if self.feeds.get(feed).is_some() {
                    self.feeds.forget_if_empty(feed);
                }
                return Ok(());
            }
        }
        if self.feeds.get(feed).is_none() {
            // Its last member broke just now.
            feed = self.feeds.obtain(&watched.channel, watched.format, &watched.watch);
        }
        let keeps_pace = !self.slab.at(slot).is_blocked && !self.is_stateful(slot);
        let is_at_tail = keeps_pace && self.feeds.at(feed).cursor == watched.cursor;
        self.feeds.join(&mut self.slab, slot, feed, watched.cursor, !is_at_tail);
        self.stats.subscriptions.add(1);
        self.feeds.at(feed).report();
        watched.keep();
        let target = self.feeds.at(feed);
        if target.cursor < target.channel.tail(target.format) {
            self.again.push(feed); // what came while it was on its way here
        }
        if !is_at_tail && !self.slab.at(slot).is_blocked {
            self.block(slot);
            self.pump(slot);
        }
        Ok(())
    }

    /// Before anything else is fanned out: who unsubscribed gets what was published until then and nothing after.
    ///
    /// Done again in its order among the commands, for a subscription that one of them makes.
    pub(super) fn unsubscribe_early(&mut self, command: &Command) {
        let Command::Unsubscribe(id, channel, tail) = command else { return };
        let (Some(slot), Some(format)) = (self.slot_of(*id), id.format()) else { return };
        let Some(feed) = self.feed_of(slot, channel) else { return };
        if self.feeds.at(feed).cursor < *tail && self.feeds.at(feed).format == format {
            self.fan_out(&[feed], Some(*tail));
        }
        self.with(*id, |shard, slot| shard.unsubscribe(slot, channel));
    }

    /// The feed through which a connection watches a channel.
    fn feed_of(&mut self, slot: u32, channel: &Arc<Channel>) -> Option<u32> {
        let feeds: SmallVec<[u32; 8]> = self.slab.at(slot).subscriptions.iter().map(|one| one.feed).collect();
        feeds.into_iter().find(|&feed| Arc::ptr_eq(&self.feeds.at(feed).channel, channel))
    }

    pub(super) fn unsubscribe(&mut self, slot: u32, channel: &Arc<Channel>) {
        let Some(feed) = self.feed_of(slot, channel) else { return };
        if let Some(index) = self.slab.at(slot).find_feed(feed) {
            self.feeds.leave(&mut self.slab, slot, index);
            self.stats.subscriptions.sub(1);
        }
    }

    pub(super) fn channels_of(&mut self, slot: u32) -> Vec<String> {
        let feeds: Vec<u32> = self.slab.at(slot).subscriptions.iter().map(|subscription| subscription.feed).collect();
        let channels = feeds.into_iter().map(|feed| Arc::clone(&self.feeds.at(feed).channel));
        channels.filter(|channel| channel.is_listed).map(|channel| channel.name().to_owned()).collect()
    }
}
