//! A channel is a log, a subscriber is a cursor.
//!
//! - [`Channel`]: the name, the numbers and the logs, one for each wire format that a subscriber uses;
//! - `log`, `segment`: frames ready for the wire and the memory they lie in;
//! - `watch`: what a shard tells the writers; `registry`: channels by name; `pattern`: rules by name.
mod log;
mod pattern;
mod registry;
mod segment;
mod watch;

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

pub use log::{Exclusion, Run};
pub use pattern::Pattern;
pub use registry::Registry;
pub use segment::Slice;
pub use watch::Watch;

use crate::connection_id::ConnectionId;
use crate::error::EngineError;
use crate::position::Position;
use crate::protocol::{Format, Payload, frame_bytes_max, write_frame};
use crate::settings::ChannelBounds;
use log::Log;

/// Longest name, bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 255;

/// Checks a channel's name: 1 to 255 bytes of UTF-8 without control characters.
///
/// # Errors
/// [`EngineError::InvalidChannel`] with the name and the rule.
pub fn check_name(name: &str) -> Result<(), EngineError> {
    let why = if name.is_empty() {
        "must not be empty"
    } else if name.len() > NAME_BYTES_MAX {
        "must not be over 255 bytes of UTF-8"
    } else if name.chars().any(char::is_control) {
        "must not hold control characters"
    } else {
        return Ok(());
    };
    Err(EngineError::InvalidChannel { name: name.chars().take(80).collect(), why })
}

/// A named stream of publications.
#[derive(Debug)]
pub struct Channel {
    name: Box<str>,
    epoch: u64,
    bounds: ChannelBounds,
    /// Clients know it by its name.
    pub(crate) is_listed: bool,
    /// Bit i: some subscriber speaks format i, so publications are framed for it.
    formats: AtomicU8,
    subscribers: AtomicU32,
    /// Second of the engine's clock at the last publication, for the registry's sweep.
    published_s: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    offset: u64,
    logs: [Option<Box<Log>>; Format::COUNT],
}

/// One publication on its way into the logs.
#[derive(Clone, Copy, Debug)]
pub struct Publication<'a> {
    /// What goes out.
    pub payload: Payload<'a>,
    /// The name of an SSE event, the target in a hub protocol.
    pub event: Option<&'a str>,
    /// Nanoseconds after which it is no longer sent to who has not got it.
    pub ttl_ns: Option<u64>,
    /// Subscribers that it is not for.
    pub excluded: &'a [ConnectionId],
}

/// What `append` did.
#[derive(Debug)]
pub enum Appended {
    /// It has this number; the shards in the list have to be told, and have not been.
    At(Position),
    /// A subscriber speaks formats (bits) that the payload was not encoded for; nothing was appended.
    Missing(u8),
}

/// A subscription on its way to its shard: whoever drops it gives it back.
#[derive(Debug)]
pub struct Watched {
    pub(crate) channel: Arc<Channel>,
    pub(crate) format: Format,
    pub(crate) watch: Arc<Watch>,
    /// Where it starts.
    pub(crate) cursor: u64,
    is_kept: bool,
}

impl Watched {
    /// The shard has taken note of its cursor and calls [`Channel::unwatch`] in its time.
    pub(crate) fn keep(mut self) {
        self.is_kept = true;
        self.watch.joining.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.is_kept {
            self.watch.joining.fetch_sub(1, Ordering::AcqRel);
            self.channel.unwatch(self.format, &self.watch);
        }
    }
}

thread_local! {
    /// One frame is made here and copied into the log, which needs its length first.
    static FRAME: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Channel {
    fn new(name: &str, epoch: u64, bounds: ChannelBounds, is_listed: bool) -> Self {
        Self {
            name: name.into(),
            epoch,
            bounds,
            is_listed,
            formats: AtomicU8::new(0),
            subscribers: AtomicU32::new(0),
            published_s: AtomicU64::new(0),
            inner: Mutex::new(Inner::default()),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Subscribers now, in all shards and formats.
    #[must_use]
    pub fn occupancy(&self) -> u32 {
        self.subscribers.load(Ordering::Relaxed)
    }

    /// Bits of the formats that subscribers speak now.
    #[must_use]
    pub fn formats(&self) -> u8 {
        self.formats.load(Ordering::Acquire)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("no code panics while it holds a channel")
    }

    /// Appends to the log of each format in use; `tell` hears of each shard that watches and does not know yet.
    ///
    /// # Errors
    /// [`EngineError::LimitReached`] when `unsent_bytes_max` wait for a shard already; nothing was appended.
    pub(crate) fn append(
        &self,
        publication: &Publication<'_>,
        now_ns: u64,
        unsent_bytes_max: u64,
        mut tell: impl FnMut(&Arc<Watch>),
    ) -> Result<Appended, EngineError> {
        let expires_ns = publication.ttl_ns.map_or(u64::MAX, |ttl| now_ns.saturating_add(ttl));
        let mut inner = self.lock();
        let missing = self.missing_formats(&publication.payload);
        if missing != 0 {
            return Ok(Appended::Missing(missing));
        }
        for log in inner.logs.iter().flatten() {
            let unsent = log.unsent_bytes();
            if unsent >= unsent_bytes_max {
                return Err(EngineError::LimitReached {
                    name: "unsent_bytes_max",
                    value: unsent,
                    bound: unsent_bytes_max,
                });
            }
        }
        let excluded = (!publication.excluded.is_empty()).then(|| Arc::from(publication.excluded));
        inner.offset += 1;
        self.published_s.store(now_ns / 1_000_000_000, Ordering::Relaxed);
        for format in Format::ALL {
            let Some(log) = &mut inner.logs[format as usize] else { continue };
            FRAME.with_borrow_mut(|frame| {
                frame.clear();
                frame.reserve(frame_bytes_max(format, &publication.payload, publication.event));
                write_frame(format, &publication.payload, publication.event, frame)
                    .expect("missing_formats found an encoding for every format in use");
                log.append(frame, now_ns, expires_ns, &self.bounds);
                if let Some(excluded) = &excluded {
                    log.exclude_from_last(frame.len(), excluded);
                }
                if frame.capacity() > 1 << 20 {
                    *frame = Vec::new();
                }
            });
            log.watches.iter().filter(|watch| watch.dirty.mark()).for_each(&mut tell);
        }
        Ok(Appended::At(Position { epoch: self.epoch, offset: inner.offset }))
    }

    fn missing_formats(&self, payload: &Payload<'_>) -> u8 {
        self.formats() & !payload.formats()
    }

    /// Counts a subscriber of `shard` in, from the tail on.
    pub(crate) fn watch(self: &Arc<Self>, format: Format, shard: usize) -> Watched {
        let mut inner = self.lock();
        let log = inner.logs[format as usize].get_or_insert_default();
        let tail = log.tail();
        let known = log.watches.iter().find(|watch| watch.shard == shard).cloned();
        let watch = known.unwrap_or_else(|| {
            let watch = Arc::new(Watch::new(shard, tail));
            log.watches.push(Arc::clone(&watch));
            watch
        });
        watch.subscribers.fetch_add(1, Ordering::Relaxed);
        watch.joining.fetch_add(1, Ordering::AcqRel);
        self.formats.fetch_or(format.bit(), Ordering::Release);
        self.subscribers.fetch_add(1, Ordering::Relaxed);
        drop(inner);
        Watched { channel: Arc::clone(self), format, watch, cursor: tail, is_kept: false }
    }

    /// Counts a subscriber out. True when it was the shard's last: the shard forgets what it kept for the log.
    pub(crate) fn unwatch(&self, format: Format, watch: &Arc<Watch>) -> bool {
        let mut inner = self.lock();
        self.subscribers.fetch_sub(1, Ordering::Relaxed);
        if watch.subscribers.fetch_sub(1, Ordering::Relaxed) > 1 {
            return false;
        }
        let slot = &mut inner.logs[format as usize];
        if let Some(log) = slot {
            log.watches.retain(|other| !Arc::ptr_eq(other, watch));
            if log.watches.is_empty() {
                *slot = None;
                self.formats.fetch_and(!format.bit(), Ordering::Release);
            }
        }
        true
    }

    /// The tail of a format's log.
    pub(crate) fn tail(&self, format: Format) -> u64 {
        self.lock().logs[format as usize].as_ref().map_or(0, |log| log.tail())
    }

    /// What lies from `cursor` to `to`, or to the tail; see [`Run`].
    pub(crate) fn read(&self, format: Format, cursor: u64, to: Option<u64>, now_ns: u64) -> Run {
        let inner = self.lock();
        match &inner.logs[format as usize] {
            Some(log) => log.read(cursor, to.unwrap_or(log.tail()), now_ns),
            None => Run { end: cursor, published_ns: now_ns, ..Run::default() },
        }
    }

    /// Where the frame ends that holds the byte at `position`.
    pub(crate) fn frame_end(&self, format: Format, position: u64) -> Option<u64> {
        self.lock().logs[format as usize].as_ref().and_then(|log| log.frame_end(position))
    }
}
