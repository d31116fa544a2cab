//! What a shard has in common with other threads.
use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use super::numbers::Numbers;
use super::spoken::Spoken;
use crate::alike::Admissions;
use crate::channel::{Registry, Watch};
use crate::clock::Clock;
use crate::events::Events;
use crate::failure::Failure;
use crate::mailbox::Mailbox;
use crate::messages::Command;
use crate::node::{Group, Member};
use crate::notify::Bell;
use crate::offers::Offers;
use crate::routes::Table;
use crate::settings::Settings;
use crate::siblings::Siblings;
use crate::stats::ShardStats;
use crate::tokens::Tokens;

/// What other threads hold of a shard.
#[derive(Debug)]
pub(crate) struct ShardHandle {
    pub(crate) mailbox: Mailbox<Command, Arc<Watch>>,
    pub(crate) bell: Bell,
    pub(crate) stats: Arc<ShardStats>,
    /// What its connections may come to speak.
    pub(crate) spoken: Spoken,
    /// Of its slots, which are given out here.
    pub(crate) numbers: Arc<Numbers>,
}

impl ShardHandle {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            mailbox: Mailbox::default(),
            bell: Bell::new()?,
            stats: Arc::default(),
            spoken: Spoken::default(),
            numbers: Arc::default(),
        })
    }

    pub(crate) fn command(&self, command: Command) {
        if self.mailbox.push(command).0 {
            self.bell.ring();
        }
    }

    /// The thread has ended: what it was asked since is never done, and the descriptors in it are closed.
    pub(crate) fn drop_commands(&self) {
        let (mut commands, mut moved) = (Vec::new(), Vec::new());
        self.mailbox.take(&mut commands, &mut moved);
    }

    /// As [`command`](Self::command); with `is_deferred` a sleeping shard sleeps on until it is flushed.
    pub(crate) fn command_soon(&self, command: Command, is_deferred: bool) {
        if is_deferred {
            self.mailbox.push_deferred(command);
        } else {
            self.command(command);
        }
    }
}

/// What `/readyz` is to say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readiness {
    /// Why the application is not ready, if it says that it is not.
    pub(crate) why_not: Option<String>,
    /// Whether other workers serve the same port: it does not drain with this one then.
    pub(crate) others_serve: bool,
}

/// What all shards share.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) settings: Settings,
    /// Which path is whose.
    pub(crate) routes: Table,
    pub(crate) registry: Registry,
    /// A channel for each user, by id.
    pub(crate) users: Registry,
    /// A channel for all connections of a SignalR hub, by its path.
    pub(crate) hubs: Registry,
    /// A channel for each lane of a relay.
    pub(crate) lanes: Registry,
    /// Of those, which a client may join by its first call.
    pub(crate) offers: Offers,
    /// Who is let in by a path's owner without being asked about.
    pub(crate) admissions: Admissions,
    pub(crate) tokens: Arc<Tokens>,
    /// The other workers, where there are some.
    pub(crate) siblings: Option<Arc<Siblings>>,
    /// For sockets that another shard has to take.
    pub(crate) shards: Vec<Arc<ShardHandle>>,
    pub(crate) events: Events,
    /// Of a shard's thread, or of the one to backends.
    pub(crate) failure: Failure,
    /// What the application says of it.
    pub(crate) readiness: Mutex<Readiness>,
    pub(crate) clock: Clock,
    /// Where other processes serve the same clients: this one among them.
    pub(crate) node: OnceLock<Arc<Member>>,
}

impl Common {
    /// Those of what workers share.
    pub(crate) fn registry_of(&self, group: Group) -> &Registry {
        match group {
            Group::Channel => &self.registry,
            Group::User => &self.users,
            Group::Hub => &self.hubs,
        }
    }

    /// All registries of channels.
    pub(crate) fn registries(&self) -> [&Registry; 4] {
        [&self.registry, &self.users, &self.hubs, &self.lanes]
    }
}
