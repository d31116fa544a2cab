//! A relay's lanes over workers: one holds a lane by its connection to the backend, the others mirror its log.
//!
//! What comes into the holder's channel is told to those who mirror it under the channel's lock, so in its order. There
//! the thread that receives it appends it to the worker's own channel, which clients join and read as any other. Who
//! holds what is agreed elsewhere, by messages on the same path: so it is known before it is needed.
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Audience, Engine, lock};
use crate::channel::{Channel, Newest, SharedId, Tie, Told, Watch};
use crate::error::EngineError;
use crate::messages::Event;
use crate::protocol::signalr::HubProtocol;

/// The kind of messages between workers that are about lanes.
pub const TOLD_OF_LANES: u8 = 1;

/// A message has been underway for no longer, whatever clocks say.
const UNDERWAY_NS_MAX: u64 = 10_000_000_000;

/// What is mirrored here, by the worker that holds it.
pub(super) type Following = HashMap<(u32, SharedId), Followed>;

/// One channel.
#[derive(Debug)]
pub(super) struct Followed {
    channel: Arc<Channel>,
    tie: u32,
    /// Who watches already has missed what was published after this.
    after_ns: Option<u64>,
    /// The number of the next message, once the dump has come.
    next: Option<u32>,
    /// When the last that came was sent: what was published later has not come here.
    heard_ns: Option<u64>,
}

impl Engine {
    /// Has another worker mirror a lane from now on; or the hub at this path, what comes for all in one protocol. It is
    /// sent what newcomers begin with, once for each tie.
    ///
    /// False where that is lost, or over these bounds: then nothing was done. With `is_late` it gets nothing of that.
    ///
    /// # Errors
    /// As of [`set_beginning`](Self::set_beginning).
    pub fn mirror(
        &self,
        what: Audience<'_>,
        source: (SharedId, Option<HubProtocol>),
        tie: Tie,
        newest: Newest,
        is_late: bool,
    ) -> Result<bool, EngineError> {
        let channel = self.obtain_of(what)?;
        // Both clocks at one moment: by the one ages are told, by the other when they were.
        let (now_ns, sent_ns) = (self.common.clock.now_ns(), wall_ns());
        let tell = |to: &[u32], message: &[u8]| self.tell_mirrors_at(sent_ns, to, message);
        Ok(channel.mirror(source, tie, (newest, is_late), now_ns, &tell))
    }

    /// That worker mirrors it no longer.
    pub fn unmirror(&self, what: Audience<'_>, id: &SharedId, worker: u32) {
        if let Some(channel) = self.registry_of(what).find(what.name()) {
            channel.unmirror(id, worker);
        }
    }

    /// Has what a worker holds under this name come into a lane here, or to the hub at this path, once its dump for this tie
    /// has come. Who watches here has missed what was published since `lost` ago.
    ///
    /// # Errors
    /// As of [`set_beginning`](Self::set_beginning).
    pub fn follow(
        &self,
        what: Audience<'_>,
        id: SharedId,
        holder: Tie,
        lost: Option<Duration>,
    ) -> Result<(), EngineError> {
        let channel = self.obtain_of(what)?;
        let now_ns = self.common.clock.now_ns();
        let ns = |lost: Duration| u64::try_from(lost.as_nanos()).unwrap_or(u64::MAX);
        let after_ns = lost.map(|lost| now_ns.saturating_sub(ns(lost)));
        let followed = Followed { channel, tie: holder.number, after_ns, next: None, heard_ns: None };
        lock(&self.following).insert((holder.worker, id), followed);
        Ok(())
    }

    /// Nothing of that comes here any more, from when this returns. Gives since when nothing has; `None` where nothing ever did.
    ///
    /// Who watches has missed what was published since then. That a worker is gone may be noticed much later.
    pub fn unfollow(&self, id: SharedId, holder: u32) -> Option<Duration> {
        let heard_ns = lock(&self.following).remove(&(holder, id))?.heard_ns?;
        Some(Duration::from_nanos(self.common.clock.now_ns().saturating_sub(heard_ns)))
    }

    pub(super) fn obtain_of(&self, what: Audience<'_>) -> Result<Arc<Channel>, EngineError> {
        self.check_running()?;
        self.registry_of(what).obtain(what.name(), &self.common.settings, self.common.clock.now_ns())
    }

    /// What is lost on the way is noticed where it was to go, by the number of the next.
    pub(super) fn tell_mirrors(&self, to: &[u32], message: &[u8]) {
        self.tell_mirrors_at(wall_ns(), to, message);
    }

    fn tell_mirrors_at(&self, sent_ns: u64, to: &[u32], message: &[u8]) {
        if !to.is_empty()
            && let Err(error) = self.tell_anywhere(to, TOLD_OF_LANES, &[&sent_ns.to_le_bytes(), message].concat())
        {
            self.record(40, format!("{} workers are not told what has come on a lane: {error}", to.len()));
        }
    }

    /// A worker says what has come into a channel that it holds. In one thread.
    pub(super) fn told_of_lane(&self, from: u32, message: &[u8]) {
        let Some(told) = Told::read(message) else {
            return self.record(40, format!("worker {from} tells of a lane what cannot be read"));
        };
        // Held while it is appended: nothing comes behind `unfollow`.
        let mut following = lock(&self.following);
        let Some(followed) = following.get_mut(&(from, told.id)) else { return };
        let is_due = match (told.dump, followed.next) {
            (Some(tie), _) => tie == followed.tie,
            (None, Some(next)) => next == told.count,
            (None, None) => return, // its dump is on the way
        };
        if !is_due && told.dump.is_some() {
            return; // for an older tie
        }
        followed.next = Some(told.count.wrapping_add(1));
        let now_ns = self.common.clock.now_ns();
        // The clock of another machine says nothing here: there what was missed is never told by times alone.
        let is_elsewhere = from > u32::from(u8::MAX);
        let underway_ns = if is_elsewhere { 0 } else { wall_ns().saturating_sub(told.sent_ns).min(UNDERWAY_NS_MAX) };
        let sent_ns = now_ns.saturating_sub(underway_ns);
        let bounds = (sent_ns, self.common.settings.unsent_bytes_max);
        let tell = |watch: &Arc<Watch>| self.tell(watch, true);
        let why = match is_due.then(|| followed.channel.receive(told, followed.after_ns, bounds, tell)) {
            Some(Ok(Some(()))) => return followed.heard_ns = Some(sent_ns),
            Some(Ok(None)) => "what cannot be read".to_owned(),
            Some(Err(error)) => error.to_string(),
            None => "not all that has come".to_owned(),
        };
        followed.next = None; // nothing comes until it is tied anew; since when is known until then
        drop(following);
        self.record(40, format!("worker {from} tells of a lane {why}: that begins anew"));
        self.common.events.push(self.shards.len(), Event::MirrorLost(from, told.id));
    }
}

/// By a clock that all processes of this machine have.
fn wall_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
