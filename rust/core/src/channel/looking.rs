//! What an operator is shown of a channel, when somebody asks: nothing of it is counted for that.
use std::sync::atomic::Ordering;

use super::joining::frames_of;
use super::mark::FrameMark;
use super::policy::Policy;
use super::{Channel, FrameKind, HeardData, Inner, stored};
use crate::clock::unix_ms_of;
use crate::position::Position;
use crate::protocol::LogId;

/// How a channel stands.
#[derive(Clone, Debug)]
pub struct ChannelSeen {
    /// Its name.
    pub name: String,
    /// What it was made with: later ones are greater, within a process.
    pub made: u64,
    /// Of its newest publication.
    pub position: Position,
    /// How many there were in its life here.
    pub published: u64,
    /// Now, in this process.
    pub subscribers: u32,
    /// What becomes of laggards.
    pub policy: Policy,
    /// Seconds since the newest publication; `None` where there was none.
    pub idle_s: Option<u64>,
    /// Publications that its logs hold for who lags, in the log that has most.
    pub backlog: u64,
    /// And their bytes, in all logs.
    pub backlog_bytes: u64,
    /// Of these, what the slowest shard has yet to fan out.
    pub unsent_bytes: u64,
    /// History and keyframe, for who comes or returns.
    pub kept: u64,
    /// Their bytes.
    pub kept_bytes: u64,
}

/// How far a reader is behind the tail of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// Publications that it has not got; those that its policy will skip are among them.
    pub publications: u64,
    /// Their bytes, as they are framed.
    pub bytes: u64,
    /// How long ago the oldest of them was published.
    pub age_ns: u64,
}

/// A publication that is kept.
#[derive(Debug)]
pub struct Kept {
    /// Its place.
    pub position: Position,
    /// Its name.
    pub event: Option<Box<str>>,
    /// What was published.
    pub data: HeardData,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Whether one may begin with it.
    pub is_keyframe: bool,
}

impl Channel {
    /// How it stands.
    pub(crate) fn look(&self, now_ns: u64) -> ChannelSeen {
        let inner = self.lock();
        let logs = || inner.logs.iter().map(|one| one.1);
        let published_s = self.published_s.load(Ordering::Relaxed);
        let has_any = inner.offset > 0;
        let stored = inner.stored.as_deref();
        ChannelSeen {
            name: self.name.to_string(),
            made: self.epoch,
            position: self.life(&inner).position_of(inner.offset),
            published: inner.offset,
            subscribers: self.occupancy(),
            policy: self.settings.policy,
            idle_s: has_any.then(|| (now_ns / 1_000_000_000).saturating_sub(published_s)),
            backlog: logs().map(|log| log.frames.len() as u64).max().unwrap_or(0),
            backlog_bytes: logs().map(super::log::Log::kept_bytes).sum(),
            unsent_bytes: logs().map(super::log::Log::unsent_bytes).max().unwrap_or(0),
            kept: stored.map_or(0, |log| (log.frames.len() + log.compacted.count()) as u64),
            kept_bytes: stored.map_or(0, |log| log.kept_bytes() + log.compacted.bytes()),
        }
    }

    /// How far a cursor in one of its logs is behind.
    pub(crate) fn behind(&self, id: LogId, cursor: u64, now_ns: u64) -> Behind {
        let inner = self.lock();
        let Some(log) = inner.logs.of(id).filter(|log| cursor < log.tail()) else { return Behind::default() };
        let oldest = log.frames.get(log.frames_until(cursor));
        Behind {
            publications: log.tail_offset().saturating_sub(log.offset_before(cursor)),
            bytes: log.tail() - cursor,
            age_ns: oldest.map_or(0, |mark| now_ns.saturating_sub(mark.published_ns)),
        }
    }

    /// The newest position, what is kept behind `since`, oldest first and at most `count_max`, and whether that is all
    /// that was published behind it. Without `since` it is the newest of what is kept.
    pub(crate) fn kept(&self, since: Option<Position>, count_max: usize, now_ns: u64) -> (Position, Vec<Kept>, bool) {
        let inner = self.lock();
        let life = self.life(&inner);
        let newest = life.position_of(inner.offset);
        let known = since.map(|since| life.number_of(since).filter(|&number| number <= inner.offset));
        let from = known.flatten().unwrap_or(0);
        let mut found = found_in(&inner, from, now_ns);
        let is_cut = found.len() > count_max;
        let first = found.first().map_or(inner.offset + 1, |one| one.0.offset);
        if is_cut && since.is_some() {
            found.truncate(count_max);
        } else if is_cut {
            found.drain(..found.len() - count_max);
        }
        let is_whole = !is_cut && known.is_none_or(|known| known.is_some()) && first <= from + 1;
        let kept = found.into_iter().map(|(mark, bytes)| {
            let (payload, event) = stored::read(&bytes);
            Kept {
                position: life.position_of(mark.offset),
                event: event.map(Box::from),
                data: super::hearing::data_of(payload),
                at_ms: unix_ms_of(mark.published_ns),
                is_keyframe: mark.is_beginning(),
            }
        });
        (newest, kept.collect(), is_whole)
    }
}

/// What is stored behind the publication of this number and still of use, in its order.
fn found_in(inner: &Inner, from: u64, now_ns: u64) -> Vec<(FrameMark, Vec<u8>)> {
    let Some(log) = inner.stored.as_deref() else { return Vec::new() };
    let is_meant = |mark: &FrameMark| {
        let is_publication = matches!(mark.kind, FrameKind::Plain | FrameKind::Keyframe | FrameKind::Removal);
        is_publication && mark.offset > from && mark.expires_ns > now_ns
    };
    let values = log.compacted.from(0).filter(|value| log.compacted.is_current(&value.mark, &inner.keys));
    let values = values.map(|value| (value.mark, value.frame.clone()));
    let all = values.chain(frames_of(log)).filter(|(mark, _)| is_meant(mark));
    all.map(|(mark, slice)| (mark, slice.bytes().to_vec())).collect()
}
