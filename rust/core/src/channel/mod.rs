//! A channel is a log, a subscriber is a cursor.
//!
//! - [`Channel`]: the name, the numbers and the logs, one for each wire format that a subscriber uses; here what is
//!   appended, in `joining` who watches;
//! - `logs`: one log for each wire format in use; `log`, `mark`, `segment`: frames ready for the wire, what is known of each, and the memory they lie in; `reading`
//!   what a cursor gets of them, `seeking` where one begins;
//! - `coding`: logs whose frames are compressed, and who goes from one to another; `coded`: how one is; `verified`: that it is right; `trimming`: what a log
//!   lets go of;
//! - `policy`: what becomes of laggards; `keys`, `compacted`: conflation, and keys that end (`removing` has the tests);
//! - `stored`: publications that are kept for whatever format may come; `beginning`: those that newcomers of a relay's
//!   lane begin with; `mirrors`, `mirrored`: the same in other workers;
//! - `tags`, `filter`: what publications are tagged with, and which of them a subscription is to get; `view`: that, as a
//!   log is read; `besides`: what a log keeps of some frames;
//! - `hearing`: the program's own subscribers;
//! - `crossing`: a publication as bytes for another process, `dumping` what a channel keeps;
//! - `edging`: a publication as a frame for hubs that pass it on; `looking`: what an operator is shown;
//! - `stand`: where a publication stands, and what is missing before it, where positions come from outside;
//! - `watch`: what a shard tells the writers; `common`: what all channels write to; `registry`: channels by name; `pattern`: rules by name.
mod beginning;
mod besides;
mod coded;
mod coding;
mod common;
mod compacted;
mod crossing;
mod dumping;
mod edging;
mod filter;
mod hearing;
#[cfg(test)]
mod held;
mod joining;
mod keys;
mod log;
mod logs;
mod looking;
mod mark;
mod mirrored;
mod mirrors;
pub(crate) mod pattern;
pub(crate) mod policy;
mod reading;
mod registry;
#[cfg(test)]
mod removing;
mod seeking;
mod segment;
mod stand;
#[cfg(test)]
pub(crate) mod stand_tests;
mod stored;
mod tags;
mod trimming;
mod verified;
mod view;
mod watch;

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};

pub use beginning::Newest;
use beginning::RelayedTo;
pub(crate) use coding::Inflates;
pub use common::Common;
pub(crate) use crossing::SNAPSHOT;
pub use crossing::{read_publication, write_publication};
pub(crate) use edging::PUBLICATION;
pub use filter::{FILTER_BYTES_MAX, FILTER_TERMS_MAX, Filter, FilterError};
pub use hearing::{Heard, HeardData, Listener};
pub(crate) use joining::Overtaken;
pub(crate) use joining::watch_all;
pub use joining::{Tail, Tails, Watched};
pub use looking::{Behind, ChannelSeen, Kept};
pub use mark::Exclusion;
pub(crate) use mirrored::Told;
pub use mirrors::{SharedId, Tie};
pub use pattern::Pattern;
pub(crate) use policy::Mode;
pub use policy::{Origin, Policy, Seek, Start};
pub use reading::Run;
pub use registry::Registry;
pub(crate) use registry::begin_epochs_now;
pub use segment::Slice;
pub(crate) use stand::LOCAL_EPOCH_END;
pub use stand::Stand;
pub(crate) use tags::write_json_tags;
pub use tags::{TAG_NAME_BYTES_MAX, TAG_TEXT_BYTES_MAX, TAG_WHOLE_MAX, TAGS_MAX, TagValue, Tags, write_tags};
pub use view::View;
pub use watch::Watch;

use crate::connection_id::ConnectionId;
use crate::error::EngineError;
use crate::position::Position;
use crate::protocol::{Encoding, Format, Formats, LogId, Payload, Stamp, frame_bytes_max, sse, write_frame};
use crate::settings::ChannelSettings;
use besides::Besides;
use hearing::Hearing;
use keys::{KEYLESS, Keys};
use log::Log;
use logs::Logs;
use mark::{FrameKind, FrameMark};
use stand::Stretches;

/// Longest name, bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 255;

/// Longest conflation key, bytes of UTF-8.
pub const KEY_BYTES_MAX: usize = 255;

/// Checks a channel's name: 1 to 255 bytes of UTF-8 without control characters and without `*`.
///
/// A name with `*` would be taken for a pattern by whoever wrote it, and reach nobody.
///
/// # Errors
/// [`EngineError::InvalidChannel`] with the name and the rule.
pub fn check_name(name: &str) -> Result<(), EngineError> {
    if name.contains('*') {
        return invalid(name, "must not hold *, which makes a pattern of it: a channel is named in full");
    }
    check_pattern(name)
}

/// Checks what may stand in a pattern: as a name, and `*`.
fn check_pattern(name: &str) -> Result<(), EngineError> {
    let why = if name.is_empty() {
        "must not be empty"
    } else if name.len() > NAME_BYTES_MAX {
        "must not be over 255 bytes of UTF-8"
    } else if name.chars().any(char::is_control) {
        "must not hold control characters"
    } else {
        return Ok(());
    };
    invalid(name, why)
}

/// Whether an event's name may stand in a record, whoever gets it.
///
/// # Errors
/// [`EngineError::InvalidEvent`].
pub(crate) fn check_event(event: Option<&str>) -> Result<(), EngineError> {
    match event {
        Some(event) if !sse::is_valid_event(event) => Err(EngineError::InvalidEvent { name: event.to_owned() }),
        _ => Ok(()),
    }
}

fn invalid(name: &str, why: &'static str) -> Result<(), EngineError> {
    Err(EngineError::InvalidChannel { name: name.chars().take(80).collect(), why })
}

/// A named stream of publications.
#[derive(Debug)]
pub struct Channel {
    name: Box<str>,
    epoch: u64,
    settings: Arc<ChannelSettings>,
    /// Clients know it by its name.
    pub(crate) is_listed: bool,
    /// Bit i: some subscriber speaks format i, so publications are framed for it.
    formats: AtomicU16,
    common: Arc<Common>,
    /// Publications are kept for formats that nobody speaks now.
    is_storing: AtomicBool,
    /// The program itself hears what is published.
    is_heard: AtomicBool,
    /// With other processes beside this one: what is kept of it is here.
    is_had: AtomicBool,
    subscribers: AtomicU32,
    /// Second of the engine's clock at the last publication, for the registry's sweep.
    published_s: AtomicU64,
    inner: Mutex<Inner>,
}

// With its name, the allocator's share and its two places in the registry about 250 bytes, as the settings say.
const _: () = assert!(size_of::<Channel>() <= 168, "a million idle ones are to cost 250 MB at most");

#[derive(Debug, Default)]
struct Inner {
    /// The number of the newest publication in the logs; its offset, unless there is a `life`.
    offset: u64,
    /// Where positions come from outside, which those of the numbers are.
    life: Option<Box<Stretches>>,
    keys: Keys,
    /// The history and the newest keyframe, in the form of `stored`.
    stored: Option<Box<Log>>,
    /// Of a relay's lane or hub.
    relayed: Option<Box<RelayedTo>>,
    /// What the program itself hears.
    hearing: Option<Box<Hearing>>,
    /// The application was asked for a keyframe and has not answered.
    is_snapshot_awaited: bool,
    /// Outside nothing had been published either when that was asked: whoever is here misses what comes before the first.
    is_known_empty: bool,
    logs: Logs,
}

/// One publication on its way into the logs.
#[derive(Clone, Copy, Debug)]
pub struct Publication<'a> {
    /// What goes out.
    pub payload: Payload<'a>,
    /// The name of an SSE event, the target in a hub protocol.
    pub event: Option<&'a str>,
    /// What it is the newest value of; only [`Policy::Latest`] looks at it.
    pub key: Option<&'a str>,
    /// Nanoseconds after which it is no longer sent to who has not got it.
    pub ttl_ns: Option<u64>,
    /// A newcomer may begin with it.
    pub is_keyframe: bool,
    /// It is for newcomers alone: the state up to the publication before it, whose number it has.
    pub is_snapshot: bool,
    /// Its key has ended, in a channel of [`Policy::Latest`]: who has values of that is told, nobody else gets any.
    pub is_removal: bool,
    /// Subscribers that it is not for.
    pub excluded: &'a [ConnectionId],
    /// What filters look at.
    pub tags: Tags<'a>,
}

impl<'a> Publication<'a> {
    /// A plain one: no event, no key, for everyone and for ever.
    #[must_use]
    pub fn new(payload: Payload<'a>) -> Self {
        let (event, key, ttl_ns, excluded, tags) = (None, None, None, &[][..], Tags::default());
        let (is_keyframe, is_snapshot, is_removal) = (false, false, false);
        Self { payload, event, key, ttl_ns, is_keyframe, is_snapshot, is_removal, excluded, tags }
    }

    /// Whether it may be published, wherever that is.
    ///
    /// # Errors
    /// [`EngineError::PayloadTooBig`], [`EngineError::KeyTooLong`], [`EngineError::InvalidEvent`].
    pub fn check(&self, bytes_max: usize) -> Result<(), EngineError> {
        let payload_bytes = self.payload.bytes();
        if payload_bytes > bytes_max {
            return Err(EngineError::PayloadTooBig { payload_bytes, bytes_max, name: "publication_bytes_max" });
        }
        if let Some(bytes) = self.key.map(str::len).filter(|&bytes| bytes > KEY_BYTES_MAX) {
            return Err(EngineError::KeyTooLong { bytes, bytes_max: KEY_BYTES_MAX });
        }
        check_event(self.event)
    }

    fn kind(&self) -> FrameKind {
        match (self.is_snapshot, self.is_keyframe) {
            _ if self.is_removal => FrameKind::Removal,
            (true, _) => FrameKind::Snapshot,
            (false, true) => FrameKind::Keyframe,
            (false, false) => FrameKind::Plain,
        }
    }
}

/// A shard's eye on one of the logs, and where a publication ends in that.
pub(crate) type Eye = (LogId, u64, Arc<Watch>);

/// What `append` did.
#[derive(Debug)]
pub enum Appended {
    /// It has this position; the shards that watch were told.
    At(Position),
    /// It was to stand at or before this, the newest position: nothing was appended.
    Duplicate(Position),
    /// A subscriber speaks formats that the payload was not encoded for; nothing was appended.
    Missing(Formats),
}

impl Inner {
    /// A publication of `key` gets the newest offset; gives the key's number and the offset that it replaces, or 0.
    fn note_key(&mut self, key: Option<&str>) -> (keys::KeyId, u64) {
        if self.keys.is_sweep_due() {
            let heard = self.hearing.as_ref().map(|hearing| hearing.log());
            let logs = self.logs.iter().map(|one| one.1).chain(self.stored.as_deref()).chain(heard);
            self.keys.sweep(logs.map(|log| log.oldest_offset()).min().unwrap_or(u64::MAX));
        }
        self.keys.note(key, self.offset)
    }

    fn check_unsent(&self, unsent_bytes_max: u64) -> Result<(), EngineError> {
        let unsent = self.logs.iter().map(|(_, log)| log.unsent_bytes()).max().unwrap_or(0);
        if unsent >= unsent_bytes_max {
            let (value, bound) = (unsent, unsent_bytes_max);
            return Err(EngineError::LimitReached { name: "unsent_bytes_max", value, bound });
        }
        Ok(())
    }
}

thread_local! {
    /// One frame is made here and copied into the log, which needs its length first.
    static FRAME: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// The same, of one format, and what it is in one of its codings.
    static FRAMES: RefCell<(Vec<u8>, Vec<u8>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

impl Channel {
    fn new(name: &str, epoch: u64, settings: Arc<ChannelSettings>, is_listed: bool, common: Arc<Common>) -> Self {
        Self {
            name: name.into(),
            epoch,
            is_listed,
            formats: AtomicU16::new(0),
            common,
            is_storing: AtomicBool::new(settings.history_frames > 0),
            is_heard: AtomicBool::new(false),
            is_had: AtomicBool::new(false),
            settings,
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

    /// What it promises.
    #[must_use]
    pub fn settings(&self) -> &ChannelSettings {
        &self.settings
    }

    /// Whether what other processes have published of it is here.
    pub(crate) fn is_had(&self) -> bool {
        self.is_had.load(Ordering::Acquire)
    }

    pub(crate) fn set_had(&self, is_had: bool) {
        self.is_had.store(is_had, Ordering::Release);
    }

    /// Whether anybody here subscribes, hears, or is about to; who asks holds it once himself.
    pub(crate) fn is_cared_for(self: &Arc<Self>) -> bool {
        let is_held = Arc::strong_count(self) > registry::PLACES + 1;
        is_held || self.occupancy() > 0 || self.is_heard.load(Ordering::Acquire)
    }

    /// Which life of the channel this is.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.position().epoch
    }

    /// The epoch that it was made with: the registry knows it by that, whatever positions come from outside.
    pub(crate) fn own_epoch(&self) -> u64 {
        self.epoch
    }

    /// The place of its newest publication; offset 0 where there was none.
    pub(crate) fn position(&self) -> Position {
        let inner = self.lock();
        self.life(&inner).position_of(inner.offset)
    }

    /// Formats, such that a payload that can be written in these can be written in all that are needed. Those are what
    /// subscribers speak now, and where publications are kept also what others have spoken.
    #[must_use]
    pub fn formats(&self) -> Formats {
        let mut formats = Formats::from_bits(self.formats.load(Ordering::Acquire));
        if self.is_heard.load(Ordering::Acquire) {
            formats = formats.and(Format::Raw.into());
        }
        // An edge passes them on to whoever it has.
        if formats.has(Format::EdgeMsgpack) {
            formats = [Format::Raw, Format::HubJson, Format::HubMsgpack].into_iter().collect::<Formats>().and(formats);
        } else if formats.has(Format::Edge) {
            formats = formats.and(Format::HubJson.into());
        }
        if !self.is_storing.load(Ordering::Acquire) {
            return formats;
        }
        let mut seen = Formats::from_bits(self.common.formats_seen.load(Ordering::Relaxed)).iter();
        if seen.any(|format| matches!(format.encoding(), Encoding::Msgpack | Encoding::HubMsgpack)) {
            formats = [Format::RawMsgpack, Format::HubMsgpack].into_iter().collect::<Formats>().and(formats);
        }
        [Format::Raw, Format::HubJson].into_iter().collect::<Formats>().and(formats)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("no code panics while it holds a channel")
    }

    /// Appends to the log of each format in use; `tell` hears of each shard that watches and does not know yet.
    ///
    /// # Errors
    /// [`EngineError::LimitReached`] when `unsent_bytes_max` wait for a shard already; [`EngineError::NoKeys`];
    /// [`EngineError::InvalidPosition`]. Nothing was appended.
    pub(crate) fn append(
        &self,
        publication: &Publication<'_>,
        stand: Stand,
        now_ns: u64,
        unsent_bytes_max: u64,
        tell: impl FnMut(&Arc<Watch>),
    ) -> Result<Appended, EngineError> {
        let expires_ns = publication.ttl_ns.map_or(u64::MAX, |ttl| now_ns.saturating_add(ttl));
        let kind = publication.kind();
        let besides = Besides::of(publication.excluded, publication.tags);
        let is_beginning = matches!(kind, FrameKind::Keyframe | FrameKind::Snapshot);
        if kind == FrameKind::Removal && self.settings.policy != Policy::Latest {
            return Err(EngineError::NoKeys { name: self.name.to_string(), policy: self.settings.policy.name() });
        }
        let mut inner = self.lock();
        if is_beginning {
            self.is_storing.store(true, Ordering::Release);
        }
        let missing = self.formats().without(publication.payload.formats());
        if !missing.is_empty() {
            return Ok(Appended::Missing(missing));
        }
        inner.check_unsent(unsent_bytes_max)?;
        let inner = &mut *inner;
        if !self.stand(inner, stand, kind, now_ns)? {
            return Ok(Appended::Duplicate(self.life(inner).position_of(inner.offset)));
        }
        self.published_s.store(now_ns / 1_000_000_000, Ordering::Relaxed);
        let (key, replaced) = match (self.settings.policy, kind) {
            (_, FrameKind::Snapshot) | (Policy::Every | Policy::Keyframe | Policy::Drop, _) => (KEYLESS, 0),
            (Policy::Latest, _) => inner.note_key(publication.key),
        };
        if kind == FrameKind::Removal {
            inner.keys.note_removal(key, inner.offset);
        }
        let mark = FrameMark { published_ns: now_ns, expires_ns, offset: inner.offset, key, kind, end: 0 };
        self.store(inner, publication, (mark, replaced), &besides);
        let position = self.life(inner).position_of(inner.offset);
        if let Some(hearing) = &mut inner.hearing {
            let what = (&publication.payload, publication.event);
            hearing.append(what, (mark, position), replaced, &self.settings, &inner.keys);
        }
        let what = (&publication.payload, publication.event, publication.key);
        self.write(inner, what, (mark, replaced), &besides, Some(tell));
        if is_beginning {
            inner.is_snapshot_awaited = false;
        }
        Ok(Appended::At(position))
    }

    /// Writes a publication into the log of each format in use; `tell` hears of each shard that watches and does not know yet.
    fn write(
        &self,
        inner: &mut Inner,
        (payload, event, key): (&Payload<'_>, Option<&str>, Option<&str>),
        (mark, replaced): (FrameMark, u64),
        besides: &Besides,
        mut tell: Option<impl FnMut(&Arc<Watch>)>,
    ) {
        let stamp = self.stamp(&mark, self.life(inner).position_of(mark.offset));
        let mut logs = std::mem::take(&mut inner.logs);
        logs.settle_codings(&self.common.compressing);
        let mut taken = (false, 0);
        for (LogId { format, .. }, log) in logs.iter_mut() {
            if !payload.is_for(format) {
                continue;
            }
            FRAMES.with_borrow_mut(|(plain, compressed)| {
                let frame = if let Some(coded) = &mut log.coded {
                    compressed.clear();
                    coded.write(plain, taken, &self.common.compressing, compressed); // the plain log of its format stands before it
                    compressed
                } else {
                    plain.clear();
                    if !self.write_for_edges(format, inner, (payload, event, key), (&mark, besides.tags()), plain) {
                        plain.reserve(frame_bytes_max(format, payload, event, stamp));
                        write_frame(format, payload, event, stamp, plain)
                            .expect("an encoding for every format in use was asked for above");
                    }
                    plain
                };
                if let Some(intake) = &mut log.intake {
                    taken = (intake.takes(format, frame, &mark, besides.excluded().is_empty()), intake.fed());
                }
                log.append(frame, mark, replaced, &self.settings, &inner.keys);
                log.note_last(frame.len(), besides);
            });
            if let Some(tell) = &mut tell {
                log.tell(tell);
            }
        }
        FRAMES.with_borrow_mut(|(plain, compressed)| {
            for frame in [plain, compressed].into_iter().filter(|frame| frame.capacity() > 1 << 20) {
                *frame = Vec::new();
            }
        });
        inner.logs = logs;
    }

    /// What frames tell of a publication; nothing of a channel that clients do not know.
    fn stamp(&self, mark: &FrameMark, position: Position) -> Option<Stamp<'_>> {
        self.is_listed.then(|| Stamp {
            channel: &self.name,
            position,
            is_keyframe: mark.is_beginning(),
            has_id: self.settings.history_frames > 0,
        })
    }

    /// Keeps a publication for formats that nobody speaks now, where there is a history or a keyframe.
    fn store(
        &self,
        inner: &mut Inner,
        publication: &Publication<'_>,
        (mark, replaced): (FrameMark, u64),
        besides: &Besides,
    ) {
        if !self.is_storing.load(Ordering::Acquire) {
            return;
        }
        let what = (&publication.payload, publication.event);
        let stored = self.store_in(inner, what, (mark, replaced), besides, &self.settings);
        let is_kept = self.settings.history_frames > 0 || stored.newest_keyframe().is_some();
        if !is_kept {
            inner.stored = None;
            self.is_storing.store(false, Ordering::Release);
        }
    }

    /// Writes a publication into what is stored, bounded as these settings say.
    fn store_in<'a>(
        &self,
        inner: &'a mut Inner,
        (payload, event): (&Payload<'_>, Option<&str>),
        (mark, replaced): (FrameMark, u64),
        besides: &Besides,
        settings: &ChannelSettings,
    ) -> &'a Log {
        let before = mark.offset - u64::from(mark.kind != FrameKind::Snapshot);
        let stored = inner.stored.get_or_insert_with(|| Box::new(Log::behind(before)));
        FRAME.with_borrow_mut(|form| {
            form.clear();
            stored::write(payload, event, form);
            stored.append(form, mark, replaced, settings, &inner.keys);
            stored.note_last(form.len(), besides);
        });
        stored
    }

    /// Whether anything was ever published, and whether it is a lane with something for newcomers, or for other workers.
    fn has_begun(&self) -> (bool, bool) {
        let inner = self.lock();
        (inner.offset > 0 || inner.stored.is_some(), inner.relayed.is_some())
    }

    /// Somebody waits for a keyframe. True when the application is to be asked for one: it gives some, and was not asked.
    pub(crate) fn ask_snapshot(&self) -> bool {
        self.settings.snapshot_interval.is_some() && !std::mem::replace(&mut self.lock().is_snapshot_awaited, true)
    }

    /// The application has no keyframe to give: who waits for one begins where it came.
    pub(crate) fn give_up_snapshot(&self) {
        self.lock().is_snapshot_awaited = false;
    }

    /// The number of a publication, and its end in each log with the eyes of the shards on that whose view has it, none of one
    /// that is of another life; `None` of one yet to come.
    pub(crate) fn watches_of(&self, position: Position) -> Option<(u64, Vec<Eye>)> {
        let inner = self.lock();
        let Some(number) = self.life(&inner).number_of(position) else { return Some((0, Vec::new())) };
        if number > inner.offset {
            return None;
        }
        let mut watches = Vec::new();
        for (id, log) in inner.logs.iter() {
            let end = log.end_of(number);
            watches.extend(log.watches_of_frame(end).map(|watch| (id, end, Arc::clone(watch))));
        }
        Some((number, watches))
    }

    /// Where the publication of this number ends in a log.
    pub(crate) fn end_of(&self, id: LogId, number: u64) -> u64 {
        self.lock().logs.of(id).map_or(0, |log| log.end_of(number))
    }
}
