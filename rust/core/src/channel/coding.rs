//! Logs whose frames are compressed, made frame by frame of one whose are not, and readers that go from one to another.
//!
//! An inflater that is to know a shared compressor's window has to have got the last 2^w bytes that went into that, however
//! they were compressed. So each compressed log of a format takes in the same publications, and counts their bytes: a reader
//! that has got so many without a gap may go on in a log with context. What is not for everybody, or small, or gains nothing,
//! goes out as it is, and leaves every window alone ([RFC 7692] §6, §7.2.3.2).
//!
//! [RFC 7692]: https://datatracker.ietf.org/doc/html/rfc7692
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::log::Log;
use super::logs::Logs;
use super::mark::{FrameKind, FrameMark};
use super::view::View;
use super::watch::Watch;
use super::{Channel, Inner};
use crate::protocol::{Coding, Format, LogId};
use crate::ws::frame::RSV1;
use crate::ws::{Deflater, SharedDeflater};

/// A frame below it goes out as it is: little is won.
const BYTES_MIN: usize = if cfg!(test) { 1 } else { 64 };

/// After so many bytes it is looked whether compression pays.
const JUDGED_BYTES: u64 = 64 << 10;

/// Where it did not, it is tried again after so many bytes.
const REST_BYTES: u64 = 1 << 20;

/// Compressors with context of this process, at once: 200 to 330 KB each. Beyond it messages are compressed alone.
const COMPRESSORS_MAX: usize = 512;

static COMPRESSORS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Compresses messages alone, for whichever channel.
    static ALONE: RefCell<Deflater> = RefCell::new(Deflater::default());
}

/// What goes into the compressed logs of a format, as the log has it that they are made of.
#[derive(Debug, Default)]
pub(super) struct Intake {
    /// Bytes that have gone in, since there are such logs.
    fed: u64,
    /// Since it was looked whether that pays: what went in, and what came out.
    judged: (u64, u64),
    /// It did not: so many bytes go out as they are.
    rest: u64,
}

impl Intake {
    /// Whether a publication goes in, whose frame this is. Then it has been counted.
    pub(super) fn takes(&mut self, frame: &[u8], mark: &FrameMark, is_for_all: bool) -> bool {
        let is_plain = matches!(mark.kind, FrameKind::Snapshot | FrameKind::Gap | FrameKind::Opening);
        if is_plain || !is_for_all || mark.expires_ns != u64::MAX || frame.len() < BYTES_MIN {
            return false;
        }
        if self.rest > 0 {
            self.rest = self.rest.saturating_sub(frame.len() as u64);
            return false;
        }
        self.fed += Messages(frame).map(|message| message.payload.len() as u64).sum::<u64>();
        true
    }

    /// How many bytes have gone in.
    pub(super) fn fed(&self) -> u64 {
        self.fed
    }

    /// So many bytes went in, and so many came out.
    fn judge(&mut self, (raw, coded): (u64, u64)) {
        self.judged.0 += raw;
        self.judged.1 += coded;
        if self.judged.0 >= JUDGED_BYTES {
            let (raw, coded) = std::mem::take(&mut self.judged);
            self.rest = if coded * 10 > raw * 9 { REST_BYTES } else { 0 };
        }
    }
}

/// How the frames of a log are compressed.
#[derive(Debug)]
pub(super) struct Coded {
    coding: Coding,
    /// Of one with context.
    stream: Option<SharedDeflater>,
    /// What had gone in, of its format's bytes, when it began.
    begun: u64,
    /// What has gone in by now.
    now: u64,
    /// The same behind each kept frame, and before the first.
    fed: VecDeque<u64>,
    before: u64,
    /// Bytes in and out since that was last told.
    passed: (u64, u64),
}

impl Coded {
    /// `None` where there are too many compressors.
    fn begin(coding: Coding, fed: u64) -> Option<Self> {
        if coding.is_shared() && COMPRESSORS.fetch_add(1, Ordering::Relaxed) >= COMPRESSORS_MAX {
            COMPRESSORS.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let stream = coding.is_shared().then(|| SharedDeflater::new(coding.window_bits()));
        Some(Self { coding, stream, begun: fed, now: fed, fed: VecDeque::new(), before: fed, passed: (0, 0) })
    }

    /// Appends what stands here for a frame of the log that this one is made of, `fed` bytes having gone in with it.
    pub(super) fn write(&mut self, frame: &[u8], (is_taken, fed): (bool, u64), out: &mut Vec<u8>) {
        self.now = fed;
        if !is_taken {
            out.extend_from_slice(frame);
            return;
        }
        let before = out.len();
        for message in Messages(frame) {
            DATA.with_borrow_mut(|data| {
                data.clear();
                match &mut self.stream {
                    Some(stream) => stream.deflate(message.payload, data),
                    None => ALONE.with_borrow_mut(|alone| {
                        alone.deflate(self.coding.window_bits(), message.payload, data);
                    }),
                }
                write_frame(message.first | RSV1, data, out);
                if data.capacity() > 1 << 20 {
                    *data = Vec::new();
                }
            });
        }
        self.passed.0 += frame.len() as u64;
        self.passed.1 += (out.len() - before) as u64;
    }

    /// Its log has one frame more.
    pub(super) fn note_frame(&mut self) {
        self.fed.push_back(self.now);
    }

    /// Its log has let go of its oldest frame.
    pub(super) fn forget_frame(&mut self) {
        if let Some(fed) = self.fed.pop_front() {
            self.before = fed;
        }
    }
}

impl Drop for Coded {
    fn drop(&mut self) {
        if self.stream.is_some() {
            COMPRESSORS.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

thread_local! {
    /// The data of one message is made here: its length stands before it.
    static DATA: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The messages of a server's bytes, each a whole frame.
struct Messages<'a>(&'a [u8]);

struct Message<'a> {
    /// The first byte of its frame.
    first: u8,
    payload: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let (&[first, length], rest) = self.0.split_first_chunk()?;
        let (bytes, rest) = match length {
            126 => {
                let (bytes, rest) = rest.split_first_chunk()?;
                (usize::from(u16::from_be_bytes(*bytes)), rest)
            }
            127 => {
                let (bytes, rest) = rest.split_first_chunk()?;
                (usize::try_from(u64::from_be_bytes(*bytes)).ok()?, rest)
            }
            length => (usize::from(length), rest),
        };
        let (payload, rest) = rest.split_at_checked(bytes)?;
        self.0 = rest;
        Some(Message { first, payload })
    }
}

fn write_frame(first: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.reserve(payload.len() + 10);
    out.push(first);
    match payload.len() {
        bytes @ ..126 => out.push(bytes as u8),
        bytes => match u16::try_from(bytes) {
            Ok(bytes) => {
                out.push(126);
                out.extend_from_slice(&bytes.to_be_bytes());
            }
            Err(_) => {
                out.push(127);
                out.extend_from_slice(&(bytes as u64).to_be_bytes());
            }
        },
    }
    out.extend_from_slice(payload);
}

impl Log {
    /// How many bytes had gone in before this place.
    fn fed_at(&self, position: u64) -> u64 {
        let Some(coded) = &self.coded else { return 0 };
        let behind = self.frames.partition_point(|frame| frame.end <= position);
        behind.checked_sub(1).and_then(|last| coded.fed.get(last)).copied().unwrap_or(coded.before)
    }

    /// How many kept frames stand behind this place. Logs of one format have the same ones, as far back as they reach.
    fn frames_behind(&self, position: u64) -> usize {
        self.frames.len() - self.frames.partition_point(|frame| frame.end <= position)
    }

    /// The place before so many frames; `None` where it does not reach back so far.
    fn place_before(&self, frames: usize) -> Option<u64> {
        self.frames.len().checked_sub(frames).map(|index| self.start_of(index))
    }

    /// A place before its head, if it has let go of the publication of this number; as far as it remembers.
    fn place_behind(&self, number: u64) -> u64 {
        if number >= self.head.offset {
            // Before what is missing behind it.
            let index = self.frames.partition_point(|frame| frame.offset < number);
            let found = self.frames.get(index).filter(|frame| frame.offset == number);
            let found = found.filter(|frame| !matches!(frame.kind, FrameKind::Snapshot | FrameKind::Gap));
            return found.map_or(self.start_of(index), |frame| frame.end);
        }
        if number < self.lost.offset {
            return self.lost.position.saturating_sub(1);
        }
        if let Some(value) = self.compacted.behind(number).next() {
            return value.start();
        }
        let known = self.gone.partition_point(|edge| edge.offset <= number);
        known.checked_sub(1).or((!self.gone.is_empty()).then_some(0)).map_or(0, |at| self.gone[at].position)
    }
}

impl Logs {
    /// What readers of compressed logs may come to need is held where they would go on, and whether compression pays is looked
    /// at; before a publication.
    pub(super) fn settle_codings(&mut self) {
        if self.iter().all(|(id, _)| id.coding == Coding::Plain) {
            return;
        }
        let told = self.iter_mut().filter_map(|(id, log)| {
            let (needed, waiting) = (log.needed(), log.frames_behind(log.fanned_out()));
            let lost = (needed < log.head.position && log.head.position > 0).then(|| log.offset_before(needed));
            let passed = std::mem::take(&mut log.coded.as_mut()?.passed);
            Some((id.format, (log.frames_behind(needed), lost), waiting, passed))
        });
        let mut settled: Option<(Format, (u64, u64))> = None;
        for (format, (needed, lost), waiting, passed) in told.collect::<Vec<_>>() {
            let log = self.of_mut(format).expect("it is there as long as others are made of it");
            let same = settled.filter(|one| one.0 == format);
            let held = log.held.unwrap_or((log.head.position, log.head.position));
            let (_, before) = *settled.insert(same.unwrap_or((format, held)));
            // Where it reaches back no more, it was there before.
            let needed = match lost {
                Some(number) => log.place_behind(number),
                None => log.place_before(needed).unwrap_or(before.0),
            };
            let waiting = log.place_before(waiting).unwrap_or(before.1);
            log.held = Some(if same.is_some() { (needed.min(held.0), waiting.min(held.1)) } else { (needed, waiting) });
            if let (Some(intake), true) = (&mut log.intake, passed.0 > 0) {
                intake.judge(passed);
            }
        }
    }

    /// Nobody reads a log any more. True where nothing of its format is read.
    pub(super) fn let_go(&mut self, id: LogId) -> bool {
        let is_coded = |one: LogId| one.format == id.format && one.coding != Coding::Plain;
        if id.coding != Coding::Plain {
            self.end(id);
        }
        if self.iter().any(|(one, _)| is_coded(one)) {
            return false;
        }
        let Some(plain) = self.of_mut(id.format) else { return true };
        (plain.intake, plain.held) = (None, None);
        let is_unread = plain.watches.is_empty();
        if is_unread {
            self.end(id.format.into());
        }
        is_unread
    }
}

/// What an inflater at the other end can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inflates {
    /// The exponent of its window, 9 to 15.
    pub(crate) window_bits: u8,
    /// Its window outlives a message.
    pub(crate) takes_over: bool,
}

/// A reader's way from one log of a channel into another; who drops it gives it back.
#[derive(Debug)]
pub(crate) struct Passage {
    channel: Arc<Channel>,
    pub(crate) log: LogId,
    pub(crate) watch: Arc<Watch>,
    /// The same place, there.
    pub(crate) cursor: u64,
    /// What had gone in, of the format's bytes, when the reader began to get all of them.
    pub(crate) since: u64,
    is_kept: bool,
}

impl Passage {
    /// The shard has taken note of it, and calls [`Channel::unwatch`] in its time.
    pub(crate) fn keep(mut self) {
        self.is_kept = true;
        self.watch.joining.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if !self.is_kept {
            self.watch.joining.fetch_sub(1, Ordering::AcqRel);
            self.channel.unwatch(self.log, &self.watch);
        }
    }
}

impl Channel {
    /// Whether publications of this format are compressed for somebody.
    pub(crate) fn is_coded(&self, format: Format) -> bool {
        self.lock().logs.iter().any(|(id, _)| id.format == format && id.coding != Coding::Plain)
    }

    /// How many of a format's bytes had gone into a compressed log before this place.
    pub(crate) fn fed_at(&self, id: LogId, position: u64) -> u64 {
        self.lock().logs.of(id).map_or(0, |log| log.fed_at(position))
    }

    /// Where a reader may go on that stands at `cursor` of a log, with fewer bytes on its way; `None`: here, for now.
    ///
    /// `since` is of the log that it reads, `None` of one whose frames are not compressed.
    pub(crate) fn better(
        self: &Arc<Self>,
        (from, cursor): (LogId, u64),
        inflates: Inflates,
        since: Option<u64>,
        shard: usize,
    ) -> Option<Passage> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let (source, plain) = (inner.logs.of(from)?, inner.logs.of(from.format)?);
        if cursor < source.head.position {
            return None;
        }
        let (behind, number) = (source.frames_behind(cursor), plain.tail_offset());
        let fed_now = plain.intake.as_ref().map_or(0, |intake| intake.fed());
        for &coding in Coding::of(inflates.window_bits, inflates.takes_over) {
            if coding == from.coding {
                return None;
            }
            let id = LogId { format: from.format, coding };
            let found = match inner.logs.of(id) {
                Some(log) => log.way_in(behind, since),
                None if behind == 0 => begin(inner, id, number, fed_now).map(|()| (0, since.unwrap_or(fed_now))),
                None => None,
            };
            if let Some((cursor, since)) = found {
                return Some(self.pass((inner, id), (cursor, since), shard));
            }
        }
        None
    }

    /// Whether a newer value of its key has replaced one that lies between two places of a log.
    pub(crate) fn has_replaced(&self, id: LogId, (from, to): (u64, u64)) -> bool {
        let inner = self.lock();
        let Some(log) = inner.logs.of(id) else { return false };
        let until = |position| log.frames.partition_point(|frame| frame.end <= position);
        let is_value = |mark: &&FrameMark| matches!(mark.kind, FrameKind::Plain | FrameKind::Keyframe);
        let mut frames = log.frames.range(until(from)..until(to)).filter(is_value);
        frames.any(|mark| !inner.keys.is_newest(mark.key, mark.offset))
    }

    /// Where a reader goes on in the log whose frames are not compressed, and may skip some; and how many publications it has
    /// lost by that.
    pub(crate) fn fall_back(self: &Arc<Self>, (from, cursor): (LogId, u64), shard: usize) -> Option<(Passage, u64)> {
        let mut inner = self.lock();
        let (source, plain) = (inner.logs.of(from)?, inner.logs.of(from.format)?);
        let is_held = cursor >= source.head.position;
        let place = is_held.then(|| plain.place_before(source.frames_behind(cursor))).flatten();
        let number = source.offset_before(cursor);
        let cursor = place.unwrap_or_else(|| plain.place_behind(number));
        let lost = plain.offset_before(cursor).saturating_sub(number); // of what it no longer remembers
        Some((self.pass((&mut inner, from.format.into()), (cursor, 0), shard), lost))
    }

    fn pass(self: &Arc<Self>, (inner, log): (&mut Inner, LogId), (cursor, since): (u64, u64), shard: usize) -> Passage {
        let watch =
            inner.logs.of_mut(log).expect("it was found, or has just begun").watch_from(shard, &View::default());
        self.subscribers.fetch_add(1, Ordering::Relaxed);
        Passage { channel: Arc::clone(self), log, watch, cursor, since, is_kept: false }
    }
}

impl Log {
    /// Where one goes on here that has got all but so many frames, and since when; `None` where it lacks something.
    fn way_in(&self, behind: usize, since: Option<u64>) -> Option<(u64, u64)> {
        let coded = self.coded.as_ref()?;
        let cursor = self.place_before(behind)?;
        let fed = self.fed_at(cursor);
        let since = since.unwrap_or(fed);
        let has_window = since <= coded.begun || fed - since >= 1 << coded.coding.window_bits();
        (!coded.coding.is_shared() || has_window).then_some((cursor, since))
    }
}

/// Has a compressed log begin behind the newest publication; `None` where there are too many.
fn begin(inner: &mut Inner, id: LogId, number: u64, fed: u64) -> Option<()> {
    let coded = Coded::begin(id.coding, fed)?;
    let mut log = Log::behind(number);
    log.coded = Some(Box::new(coded));
    inner.logs.begin(id, log);
    inner.logs.of_mut(id.format)?.intake.get_or_insert_default();
    Some(())
}
