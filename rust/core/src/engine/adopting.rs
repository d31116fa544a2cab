//! Connections of a framework whose write side is the engine's: the framework reads, and frames what it sends.
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use super::{Chosen, Engine};
use crate::adopted::Outgoing;
use crate::channel::{Channel, Origin, check_name};
use crate::error::EngineError;
use crate::messages::{Broadcast, Command, ConnectionId, Order};
use crate::node::Group;
use crate::protocol::Format;
use crate::shard::ShardHandle;
use crate::socket;

/// An adopted connection, for who writes to it. What is asked by one thread is done in the order of the calls.
///
/// Dropping it gives the connection up at once; the socket stays as it is.
#[derive(Debug)]
pub struct Adopted {
    id: ConnectionId,
    format: Format,
    shard: Arc<ShardHandle>,
    outgoing: Arc<Outgoing>,
    /// The process whose threads the engine's are.
    process: u32,
}

impl Adopted {
    /// Its id: as events have it, and as a publication's [`excluded`](crate::channel::Publication::excluded) may.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Private bytes that were accepted and that the socket has not taken.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.outgoing.waiting()
    }

    /// What its shard has of it.
    pub(super) fn outgoing(&self) -> Arc<Outgoing> {
        Arc::clone(&self.outgoing)
    }

    fn order(&self, order: Order, is_deferred: bool) {
        self.shard.command_soon(Command::Order(self.id, Box::new(order)), is_deferred);
    }
}

/// Takes those whom one message is for; see [`Engine::broadcast_adopted`].
#[derive(Debug)]
pub struct Broadcasting {
    frame: Arc<[u8]>,
    is_deferred: bool,
    /// What each shard gets.
    shards: Vec<(Arc<ShardHandle>, Broadcast)>,
}

impl Broadcasting {
    /// Has this connection write the message: gives how many private bytes wait for it then; `None`, and nothing is written, once
    /// it is over or being released.
    pub fn add(&mut self, adopted: &Adopted) -> Option<u64> {
        let index = self.shards.iter().position(|one| Arc::ptr_eq(&one.0, &adopted.shard)).unwrap_or_else(|| {
            let none = Broadcast { frame: Arc::clone(&self.frame), to: Vec::new(), behind: Vec::new() };
            self.shards.push((Arc::clone(&adopted.shard), none));
            self.shards.len() - 1
        });
        let of_shard = &mut self.shards[index].1;
        let is_asked = adopted.outgoing.ask(self.frame.len(), |barrier| match barrier.is_empty() {
            true => of_shard.to.push(adopted.id),
            false => of_shard.behind.push((adopted.id, barrier)),
        });
        is_asked.then(|| adopted.waiting())
    }
}

impl Drop for Broadcasting {
    /// What was accepted is asked in any case: a shard waits for all that was.
    fn drop(&mut self) {
        for (shard, broadcast) in self.shards.drain(..) {
            shard.command_soon(Command::Broadcast(Box::new(broadcast)), self.is_deferred);
        }
    }
}

impl Drop for Adopted {
    fn drop(&mut self) {
        if self.process == std::process::id() {
            self.outgoing.ask_last(|_| self.order(Order::Abort(false), false));
        }
    }
}

impl Engine {
    /// Takes the write side of a stream socket, which somebody else goes on reading: the engine writes to a duplicate of the
    /// descriptor. Nothing is written until [`begin_adopted`](Self::begin_adopted). It never waits for a shard.
    ///
    /// An [`Event::Released`](crate::messages::Event::Released) tells once that the engine has done with it.
    ///
    /// # Errors
    /// [`EngineError::CannotAdopt`] with the system's word; [`EngineError::LimitReached`] where the descriptors that are left are
    /// spare ones, or no slot is; [`EngineError::NotRunning`].
    pub fn adopt(&self, fd: RawFd, format: Format) -> Result<Adopted, EngineError> {
        self.check_running()?;
        let copy = socket::duplicate(fd).map_err(|cause| EngineError::CannotAdopt { fd, cause })?;
        let (taken, bound) = (copy.as_raw_fd(), socket::spare_from(self.common.settings.descriptors_spare));
        if taken >= bound {
            let (value, bound) = (taken as u64 + 1, bound as u64);
            return Err(EngineError::LimitReached { name: "descriptors but for spare ones", value, bound });
        }
        let adopted = self.take_number(format)?;
        let (format, outgoing) = (adopted.format, adopted.outgoing());
        self.hand_in(&adopted.shard, Command::Adopt(adopted.id, copy, format, outgoing));
        Ok(adopted)
    }

    /// The next id of the shard with the fewest connections.
    pub(super) fn take_number(&self, format: Format) -> Result<Adopted, EngineError> {
        let shards = self.shards.iter().enumerate();
        let (index, shard) = shards.min_by_key(|one| one.1.numbers.used()).expect("an engine has a shard");
        let Some((slot, generation)) = shard.numbers.take() else {
            let used = shard.numbers.used() as u64;
            return Err(EngineError::LimitReached { name: "connections of a shard", value: used + 1, bound: used });
        };
        let id = ConnectionId::new(self.common.settings.worker, index as u8, generation, slot);
        Ok(Adopted { id, format, shard: Arc::clone(shard), outgoing: Arc::default(), process: self.process })
    }

    /// What its other user wrote before is with the socket: from now on the engine writes.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`], as of all of these.
    pub fn begin_adopted(&self, adopted: &Adopted) -> Result<(), EngineError> {
        self.check_running()?;
        adopted.outgoing.ask_always(|| adopted.order(Order::Begin, false));
        Ok(())
    }

    /// Writes bytes that are framed for a client, in any pieces: behind all that was published in its channels before this call,
    /// before all that is published after it. Publications go between whole messages.
    ///
    /// Gives how many private bytes wait now; `None`, and nothing is written, once it is over or being released. With
    /// `is_deferred` the shard is woken by [`flush`](Self::flush).
    ///
    /// # Errors
    /// [`EngineError::NotRunning`].
    pub fn write_adopted(
        &self,
        adopted: &Adopted,
        bytes: Box<[u8]>,
        is_deferred: bool,
    ) -> Result<Option<u64>, EngineError> {
        self.check_running()?;
        let count = bytes.len();
        let order = |barrier| adopted.order(Order::Write(bytes, barrier), is_deferred);
        Ok(adopted.outgoing.ask(count, order).then(|| adopted.waiting()))
    }

    /// As [`write_adopted`](Self::write_adopted) of one whole message, framed, by each of the connections that `choose` adds: they
    /// share its bytes, and each shard is asked once. Nothing else is to be asked of them meanwhile.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`]; then `choose` is not called.
    pub fn broadcast_adopted<R>(
        &self,
        frame: Arc<[u8]>,
        is_deferred: bool,
        choose: impl FnOnce(&mut Broadcasting) -> R,
    ) -> Result<R, EngineError> {
        self.check_running()?;
        Ok(choose(&mut Broadcasting { frame, is_deferred, shards: Vec::new() }))
    }

    /// Subscribes it, from `origin` on; publications made after this call reach it in any case, and go out behind what was written
    /// before it.
    ///
    /// # Errors
    /// [`EngineError`]: stopped, a bad channel name, the bound of channels, or of the channel's filters.
    pub fn subscribe_adopted<'a>(
        &self,
        adopted: &Adopted,
        channel: impl Into<Chosen<'a>>,
        origin: Origin,
    ) -> Result<(), EngineError> {
        self.check_running()?;
        let (channel, view) = self.choose(channel.into())?;
        let (id, format, shard, outgoing) =
            (adopted.id, adopted.format, Arc::clone(&adopted.shard), adopted.outgoing());
        let join = move |channels: Vec<Arc<Channel>>, _| {
            for channel in channels {
                let Ok(Some(watched)) = channel.watch_view(format.into(), id.shard(), &view) else { continue };
                let watch = Arc::clone(&watched.watch);
                let order = || Command::Order(id, Box::new(Order::Subscribe(watched, origin)));
                outgoing.ask_to_join(&channel, &watch, || shard.command_soon(order(), false));
            }
        };
        self.when_ready(id, vec![(Group::Channel, channel)], |_| origin.since, join)
    }

    /// Ends a subscription, if there is one: what was published before this call still goes out, what is published after it not.
    ///
    /// # Errors
    /// [`EngineError`]: stopped, a bad channel name.
    pub fn unsubscribe_adopted(&self, adopted: &Adopted, channel: &str) -> Result<(), EngineError> {
        self.check_running()?;
        check_name(channel)?;
        if let Some(member) = self.node() {
            member.cancel(adopted.id, (Group::Channel, channel));
        }
        if let Some(channel) = self.common.registry.find(channel) {
            let ask = |barrier| adopted.order(Order::Unsubscribe(Arc::clone(&channel), barrier), false);
            adopted.outgoing.ask_to_leave(&channel, ask);
        }
        Ok(())
    }

    /// Asks for one [`Event::Drained`](crate::messages::Event::Drained) once no more than `below` private bytes wait.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`].
    pub fn notify_adopted(&self, adopted: &Adopted, below: u64) -> Result<(), EngineError> {
        self.check_running()?;
        adopted.outgoing.want(below);
        adopted.outgoing.ask_always(|| adopted.order(Order::Notify, false));
        Ok(())
    }

    /// Gives it up once all that was asked until now is with the socket, what was published in its channels included.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`].
    pub fn release_adopted(&self, adopted: &Adopted) -> Result<(), EngineError> {
        self.check_running()?;
        adopted.outgoing.ask_last(|barrier| adopted.order(Order::Release(barrier), false));
        Ok(())
    }

    /// Gives it up at once: what waits is lost, and the socket is shut down both ways.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`].
    pub fn abort_adopted(&self, adopted: &Adopted) -> Result<(), EngineError> {
        self.check_running()?;
        adopted.outgoing.refuse();
        adopted.order(Order::Abort(true), false);
        Ok(())
    }
}
