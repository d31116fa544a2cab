//! Logs whose frames are compressed, made frame by frame of one whose are not, and readers that go from one to another.
//!
//! An inflater that is to know a shared compressor's window has to have got the last 2^w bytes that went into that, however
//! they were compressed. So each compressed log of a format takes in the same publications, and counts their bytes: a reader
//! that has got so many without a gap may go on in a log with context. What is not for everybody, or small, or gains nothing,
//! goes out as it is, and leaves every window alone ([RFC 7692] §6, §7.2.3.2).
//!
//! [RFC 7692]: https://datatracker.ietf.org/doc/html/rfc7692
use std::sync::Arc;

use super::coded::{Coded, Compressing};
use super::joining::Watched;
use super::log::Log;
use super::logs::Logs;
use super::mark::{FrameKind, FrameMark};
use super::view::View;
use super::{Channel, Inner};
use crate::protocol::{Coding, Format, LogId};

impl Log {
    /// How many bytes had gone in before this place.
    fn fed_at(&self, position: u64) -> u64 {
        let Some(coded) = &self.coded else { return 0 };
        coded.fed_behind(self.frames_until(position))
    }

    /// How many kept frames stand behind this place. Logs of one format have the same ones, as far back as they reach.
    fn frames_behind(&self, position: u64) -> usize {
        self.frames.len() - self.frames_until(position)
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
    pub(super) fn settle_codings(&mut self, compressing: &Compressing) {
        if self.iter().all(|(id, _)| id.coding == Coding::Plain) {
            return;
        }
        let told = self.iter_mut().filter_map(|(id, log)| {
            let (needed, waiting) = (log.needed(), log.frames_behind(log.fanned_out()));
            let lost = (needed < log.head.position && log.head.position > 0).then(|| log.offset_before(needed));
            let passed = log.coded.as_mut()?.take_passed();
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
                intake.judge(passed, compressing);
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
    /// `since` says what had gone in, of the format's bytes, when the reader began to get all of them: of the log that it reads,
    /// `None` of one whose frames are not compressed; and so of the one where it goes on.
    pub(crate) fn better(
        self: &Arc<Self>,
        (from, cursor): (LogId, u64),
        inflates: Inflates,
        since: Option<u64>,
        shard: usize,
    ) -> Option<(Watched, u64)> {
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
                None if behind == 0 => begin(inner, id, (number, fed_now), self.common.verifies_compression)
                    .map(|()| (0, since.unwrap_or(fed_now))),
                None => None,
            };
            if let Some((cursor, since)) = found {
                return Some((self.pass((inner, id), cursor, shard), since));
            }
        }
        None
    }

    /// Whether a newer value of its key has replaced one that lies between two places of a log.
    pub(crate) fn has_replaced(&self, id: LogId, (from, to): (u64, u64)) -> bool {
        let inner = self.lock();
        let Some(log) = inner.logs.of(id) else { return false };
        let is_value = |mark: &&FrameMark| matches!(mark.kind, FrameKind::Plain | FrameKind::Keyframe);
        let mut frames = log.frames.range(log.frames_until(from)..log.frames_until(to)).filter(is_value);
        frames.any(|mark| !inner.keys.is_newest(mark.key, mark.offset))
    }

    /// Where a reader goes on in the log whose frames are not compressed, and may skip some; and how many publications it has
    /// lost by that.
    pub(crate) fn fall_back(self: &Arc<Self>, (from, cursor): (LogId, u64), shard: usize) -> Option<(Watched, u64)> {
        let mut inner = self.lock();
        let (source, plain) = (inner.logs.of(from)?, inner.logs.of(from.format)?);
        let is_held = cursor >= source.head.position;
        let place = is_held.then(|| plain.place_before(source.frames_behind(cursor))).flatten();
        let number = source.offset_before(cursor);
        let cursor = place.unwrap_or_else(|| plain.place_behind(number));
        let lost = plain.offset_before(cursor).saturating_sub(number); // of what it no longer remembers
        Some((self.pass((&mut inner, from.format.into()), cursor, shard), lost))
    }

    fn pass(self: &Arc<Self>, (inner, id): (&mut Inner, LogId), cursor: u64, shard: usize) -> Watched {
        let log = inner.logs.of_mut(id).expect("it was found, or has just begun");
        self.watched(id, log.watch_from(shard, &View::default()), cursor, Vec::new())
    }
}

impl Log {
    /// Where one goes on here that has got all but so many frames, and since when; `None` where it lacks something.
    fn way_in(&self, behind: usize, since: Option<u64>) -> Option<(u64, u64)> {
        let coded = self.coded.as_ref()?;
        let cursor = self.place_before(behind)?;
        let fed = self.fed_at(cursor);
        let since = since.unwrap_or(fed);
        coded.may_join(since, fed).then_some((cursor, since))
    }
}

/// Has a compressed log begin behind the newest publication; `None` where there are too many.
fn begin(inner: &mut Inner, id: LogId, (number, fed): (u64, u64), is_verified: bool) -> Option<()> {
    let coded = Coded::begin(id, fed, is_verified)?;
    let mut log = Log::behind(number);
    log.coded = Some(Box::new(coded));
    inner.logs.begin(id, log);
    inner.logs.of_mut(id.format)?.intake.get_or_insert_default();
    Some(())
}
