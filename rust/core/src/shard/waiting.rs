//! Subscriptions that wait for what other workers have published of their channels: [`crate::node`] knows when that is here.
use std::sync::Arc;

use super::{Io, Shard};
use crate::channel::{Channel, Watched};
use crate::error::EngineError;
use crate::messages::{Command, ConnectionId, Grant, Wanted};
use crate::node::Group;
use crate::protocol::Formats;

impl<I: Io> Shard<I> {
    /// Whether something of these channels may be elsewhere alone.
    pub(super) fn has_to_wait(&self, channels: &[Arc<Channel>]) -> bool {
        self.common.node.get().is_some() && channels.iter().any(|channel| !channel.is_had())
    }

    /// Has this shard do what `command` makes of them, once the channels are had.
    ///
    /// # Errors
    /// [`EngineError::LimitReached`] where too many wait for this connection.
    pub(super) fn when_ready(
        &self,
        slot: u32,
        formats: Formats,
        channels: Vec<Arc<Channel>>,
        command: impl FnOnce(ConnectionId, Vec<Watched>) -> Command + Send + 'static,
    ) -> Result<(), EngineError> {
        let Some(member) = self.common.node.get() else { return Ok(()) };
        let (id, index) = (self.id_of(slot), self.index);
        let handle = Arc::clone(&self.common.shards[index]);
        let then = move |channels: Vec<Arc<Channel>>, _| {
            let watched = channels.iter().filter_map(|channel| channel.watch(formats, index)).collect();
            handle.command(command(id, watched));
        };
        let keys = channels.into_iter().map(|channel| (Group::Channel, channel)).collect();
        member.when_ready(Some(id), keys, Box::new(then))
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
        if !self.has_to_wait(&channels) {
            return false;
        }
        let formats = self.slab.at(slot).format.into();
        let (request, wanted) = (id.map(Box::from), wanted.clone());
        let grant = move |id, watched| Command::Grant(id, Box::new(Grant { watched, id: request, error, wanted }));
        if let Err(cannot) = self.when_ready(slot, formats, channels, grant) {
            self.reply_error(slot, id, &cannot.to_string());
        }
        true
    }
}
