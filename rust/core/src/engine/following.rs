//! Where a channel is, how far a publication has come, and keyframes for subscribers that wait for one.
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Engine;
use crate::channel::{Heard, Listener, Pattern, Watch};
use crate::error::EngineError;
use crate::messages::{Command, Event, Published, Track};
use crate::position::Position;
use crate::protocol::LogId;

impl Engine {
    /// Where a channel is now: the place of its newest publication, or of none yet. The channel is made if need be, so that
    /// its epoch is that of what is published next.
    ///
    /// # Errors
    /// [`EngineError`]: stopped, a bad channel name, the bound of channels.
    pub fn position(&self, channel: &str) -> Result<Position, EngineError> {
        self.check_running()?;
        let channel = self.obtain(channel)?;
        self.wait_for(&channel)?;
        Ok(channel.position())
    }

    /// Has each shard report, as [`Event::Progress`](crate::messages::Event::Progress), how far the publication at
    /// `position` has come, until all of its subscribers have it or have gone past it.
    ///
    /// Gives the token of the reports and how many parts there are, each of which reports at least once: none, where
    /// nobody is subscribed or the channel is gone.
    ///
    /// # Errors
    /// [`EngineError::NoSuchPosition`] when its offset is yet to come; [`EngineError::NotRunning`].
    pub fn track(&self, position: Position) -> Result<(u64, u32), EngineError> {
        self.check_running()?;
        let token = self.token.fetch_add(1, Ordering::Relaxed);
        let common = &self.common;
        let registries = common.registries();
        let found = registries.into_iter().find_map(|registry| registry.find_epoch(position.epoch));
        let Some(channel) = found.or_else(|| self.node()?.find_epoch(position.epoch)) else {
            return Ok((token, 0));
        };
        let (number, watches) = channel.watches_of(position).ok_or(EngineError::NoSuchPosition { position })?;
        let known: Vec<_> = watches.iter().map(|(_, _, watch)| Arc::clone(watch)).collect();
        let of = Arc::new(Published { channel, number, known });
        for (index, (log, end, watch)) in watches.iter().enumerate() {
            let is_same = |one: &(LogId, u64, Arc<Watch>)| (one.0.format, one.2.shard) == (log.format, watch.shard);
            let is_first = !watches[..index].iter().any(is_same);
            let (part, watch, of) = (index as u32, Arc::clone(watch), Arc::clone(&of));
            let shard = &self.shards[watch.shard];
            shard.command(Command::Track(Track { token, part, watch, end: *end, format: log.format, of, is_first }));
        }
        Ok((token, watches.len() as u32))
    }

    /// Hears the channels whose names match `pattern`, from now on: [`Event::Heard`](crate::messages::Event::Heard) with
    /// `token` says when there is something to [`hear`](Self::hear).
    ///
    /// # Errors
    /// [`EngineError`]: stopped, a bad pattern, too many who listen.
    pub fn listen_to(&self, pattern: &str, token: u64) -> Result<Arc<Listener>, EngineError> {
        self.check_running()?;
        let common = Arc::downgrade(&self.common);
        let wake = move || {
            if let Some(common) = common.upgrade() {
                common.events.push(common.shards.len(), Event::Heard(token));
            }
        };
        let listener = Arc::new(Listener::new(Pattern::new(pattern)?, wake));
        self.common.registry.listen(&listener)?;
        if let Some(member) = self.node() {
            member.listen(pattern, true).inspect_err(|_| self.common.registry.unlisten(&listener))?;
        }
        Ok(listener)
    }

    /// What a listener has to read, at most `count_max` of it; it is told of more once it got nothing.
    ///
    /// # Errors
    /// [`EngineError::Overtaken`]: it fell behind the backlog of a channel that promises every publication.
    pub fn hear(&self, listener: &Arc<Listener>, count_max: usize) -> Result<Vec<Heard>, EngineError> {
        self.check_running()?;
        let overtaken = |channel: Arc<str>| EngineError::Overtaken { channel: (*channel).into() };
        listener.read(count_max, self.common.clock.now_ns()).map_err(overtaken)
    }

    /// A listener hears no more.
    pub fn unlisten(&self, listener: &Arc<Listener>) {
        self.common.registry.unlisten(listener);
        if let Some(member) = self.node() {
            let _ = member.listen(listener.pattern(), false); // apart, it is not said anew when they are together
        }
    }

    /// Ends the reports of a token.
    pub fn untrack(&self, token: u64) {
        self.shards.iter().for_each(|shard| shard.command(Command::Untrack(token)));
    }

    /// The application has no keyframe of a channel to give: subscribers that wait for one begin where they came, and are
    /// told `why`.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`].
    pub fn give_up_snapshot(&self, channel: &str, why: &str) -> Result<(), EngineError> {
        self.check_running()?;
        if let Some(member) = self.node() {
            return member.give_up_snapshot(channel, why);
        }
        self.start_live(channel, why);
        Ok(())
    }
}
