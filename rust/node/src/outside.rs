//! The backbone's link as the sequencer's engine outside: what it tells comes in the sequencer's turn, in its order.
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use fanwire_backbone::{Error, Event, Link, Options, Refused};
use fanwire_core::Position;
use fanwire_core::node::{Backbone, Heard, Keep, OnDown};

use crate::server::Waker;

/// Bytes that the sequencer has not taken yet: above, the link's thread waits, and the server with it.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// The same of what takes none.
const EVENT_BYTES: usize = 64;
/// Records asked for at once.
const SINCE_MAX: usize = 1_024;

/// A backbone, as a program names it.
#[derive(Clone, Debug)]
pub struct Outside {
    /// `redis://…`, as the link has it.
    pub url: String,
    /// What the names of all keys and channels at the server begin with.
    pub prefix: String,
    /// Names this machine among others; a random number, new each time.
    pub own: u64,
    /// What becomes of publications while it is out of reach.
    pub on_down: OnDown,
}

/// What has come and was not taken.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    queue: Mutex<Queue>,
    has_room: Condvar,
    waker: OnceLock<Waker>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Heard>,
    bytes: usize,
    is_over: bool,
}

impl Inbound {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom to wake when something comes.
    pub(crate) fn wake_by(&self, waker: Waker) {
        waker.wake(); // for what has come before
        let _ = self.waker.set(waker);
    }

    /// All that has come since the last call.
    pub(crate) fn take(&self) -> VecDeque<Heard> {
        let mut queue = self.lock();
        queue.bytes = 0;
        self.has_room.notify_all();
        std::mem::take(&mut queue.waiting)
    }

    fn push(&self, heard: Heard, may_wait: bool) {
        let mut queue = self.lock();
        while may_wait && queue.bytes > WAITING_BYTES_MAX && !queue.is_over {
            queue = self.has_room.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.bytes += bytes_of(&heard);
        let was_empty = queue.waiting.is_empty();
        queue.waiting.push_back(heard);
        drop(queue);
        if was_empty && let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    fn end(&self) {
        self.lock().is_over = true;
        self.has_room.notify_all();
    }
}

fn bytes_of(heard: &Heard) -> usize {
    EVENT_BYTES
        + match heard {
            Heard::Record(_, record) => record.bytes.len(),
            Heard::Told(bytes) => bytes.len(),
            Heard::Since(_, records, _) => records.iter().map(|one| one.bytes.len() + EVENT_BYTES).sum(),
            _ => 0,
        }
}

/// The link; what it says is in `Inbound`.
pub(crate) struct Linked {
    /// `None` once it ends.
    link: Option<Link>,
    inbound: Arc<Inbound>,
}

impl Linked {
    /// Begins it.
    pub(crate) fn start(
        outside: &Outside,
        speaks_msgpack: bool,
        log: impl Fn(u8, String) + Send + 'static,
    ) -> Result<(Self, Arc<Inbound>), Error> {
        let inbound = Arc::<Inbound>::default();
        let its = Arc::clone(&inbound);
        let hear = move |event| {
            say(&event, &log);
            if let Some(heard) = heard_of(event) {
                its.push(heard, true);
            }
        };
        let (prefix, machine) = (outside.prefix.clone(), Some(outside.own));
        let options = Options { prefix, machine, speaks_msgpack, ..Options::default() };
        let link = Link::start(&outside.url, options, hear)?;
        Ok((Self { link: Some(link), inbound: Arc::clone(&inbound) }, inbound))
    }

    fn link(&self) -> &Link {
        self.link.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for Linked {
    fn drop(&mut self) {
        self.inbound.end(); // its thread may wait there
        self.link = None;
    }
}

impl Backbone for Linked {
    fn publish(&mut self, ticket: u64, channel: &str, bytes: &[u8], keep: Keep) {
        if let Err(full) = self.link().publish(ticket, channel, bytes.to_vec(), keep, None) {
            self.inbound.push(Heard::Published(ticket, Err(full.to_string())), false);
        }
    }

    fn want(&mut self, channel: &str, keep: Keep) {
        self.link().want(&[channel], keep);
    }

    fn leave(&mut self, channel: &str) {
        self.link().leave(&[channel]);
    }

    fn since(&mut self, channel: &str, after: Position) {
        if self.link().since(channel, after, SINCE_MAX).is_err() {
            self.inbound.push(Heard::SinceFailed(channel.into()), false);
        }
    }

    fn tell(&mut self, to: Option<u64>, bytes: &[u8]) -> Result<(), String> {
        self.link().tell(to, bytes.to_vec()).map_err(|full| full.to_string())
    }

    fn listen(&mut self, pattern: &str, is_begun: bool) {
        self.link().listen(pattern, is_begun);
    }

    fn snapshot(&mut self, channel: &str) -> bool {
        self.link().snapshot(channel)
    }
}

/// What it is to the sequencer.
fn heard_of(event: Event) -> Option<Heard> {
    Some(match event {
        Event::Up => Heard::Up,
        Event::Down(why) => Heard::Down(why),
        Event::Record { channel, record } => Heard::Record(channel, record),
        Event::Published { ticket, result } => Heard::Published(ticket, result.map_err(|why| why.to_string())),
        Event::Wanted { channel, top } => Heard::Wanted(channel, top),
        Event::Since { channel, records, top, .. } => Heard::Since(channel, records, top),
        // It is asked again when the channel is wanted anew.
        Event::SinceFailed { refused: Refused::Down(_) | Refused::Unknown(_), .. } => return None,
        Event::SinceFailed { channel, .. } => Heard::SinceFailed(channel),
        Event::Unheard { channel, reason } => Heard::Unheard(channel, reason),
        Event::NoSnapshot { channel, reason } => Heard::NoSnapshot(channel, reason),
        Event::Told(bytes) => Heard::Told(bytes),
        Event::Foreign { count, .. } => Heard::Foreign(count),
        _ => return None, // it is for the log
    })
}

/// What somebody who runs it wants to know.
fn say(event: &Event, log: &impl Fn(u8, String)) {
    match event {
        Event::Up => log(20, "the backbone is reached: publications of all machines come".into()),
        Event::Down(why) => log(40, format!("the backbone is out of reach: {why}")),
        Event::SinceFailed { channel, refused, .. } => {
            log(40, format!("what the backbone keeps of {channel:?} is not to be had: {refused}"));
        }
        Event::Unheard { channel, reason } => {
            log(40, format!("the backbone lets nobody subscribe to {channel:?}: {reason}"));
        }
        Event::Untold { reason, count } => {
            log(40, format!("the backbone lets machines tell one another nothing, {count} messages so far: {reason}"));
        }
        Event::Foreign { channel, reason, count } => log(
            40,
            format!(
                "somebody else publishes on channels of the backbone's prefix, {count} so far; in {channel:?}: {reason}"
            ),
        ),
        _ => (),
    }
}
