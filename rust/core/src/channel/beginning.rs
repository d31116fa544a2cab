//! What newcomers of a relay's lane begin with: its newest snapshot, which is a keyframe, and what followed.
//!
//! It is what the channel stores, from the keyframe on. A newcomer is answered besides, and the answer comes behind the
//! snapshot. So the one is private as the other is, in one write. Its cursor starts at the tail of the same moment. The
//! logs of a lane therefore hold no keyframe back, and a snapshot that was asked for newcomers' sake does not come into
//! them.
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use super::besides::Besides;
use super::joining::{Watched, frames_of};
use super::log::Log;
use super::mark::{FrameKind, FrameMark};
use super::mirrors::{Mirrors, TellMirrors, put_protocol, put_record};
use super::stand::Stand;
use super::view::View;
use super::watch::Watch;
use super::{Channel, Inner, stored};
use crate::error::EngineError;
use crate::protocol::signalr::HubProtocol;
use crate::protocol::{Format, Payload, write_frame};
use crate::settings::ChannelSettings;

/// How much and how old what a newcomer begins with may be; `None` is without bound.
#[derive(Clone, Copy, Debug, Default)]
pub struct Newest {
    /// Publications behind the snapshot.
    pub messages_max: Option<usize>,
    /// Of the snapshot: where there is none, it is too old.
    pub age_ns_max: Option<u64>,
}

impl Newest {
    pub(super) fn allows(self, stored: &Log, mark: &FrameMark, start: u64, now_ns: u64) -> bool {
        let is_opening = mark.kind == FrameKind::Opening;
        let age_ns = if is_opening { u64::MAX } else { now_ns.saturating_sub(mark.published_ns) };
        let behind = if is_opening { 0 } else { stored.frames_in(start, stored.tail()).saturating_sub(1) };
        self.age_ns_max.is_none_or(|most| age_ns <= most) && self.messages_max.is_none_or(|most| behind <= most as u64)
    }
}

/// Of a lane that keeps something for newcomers.
#[derive(Debug)]
pub(super) struct Beginning {
    bytes_max: u64,
    /// What the last newcomer began with, while it is on its way: for whom, and where it begins and ends in what is stored.
    /// All who come at one time are given the same bytes.
    last: Weak<[u8]>,
    last_is: (Format, u64, u64),
}

/// For whom what a backend sends is kept, beside those who watch.
#[derive(Debug, Default)]
pub(super) struct RelayedTo {
    /// Of a lane: how much is stored for newcomers.
    beginning: Option<Beginning>,
    /// Workers that get it from here.
    pub(super) mirrors: Mirrors,
}

impl Beginning {
    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }
}

/// Only the keyframe's own bound is for what newcomers begin with.
fn held_by_keyframe(settings: &ChannelSettings) -> ChannelSettings {
    ChannelSettings { backlog_bytes: u64::MAX, backlog_frames: usize::MAX, ..*settings }
}

impl Channel {
    /// Newcomers begin here, or at a snapshot that comes later, with what follows, up to so many bytes of it.
    pub(crate) fn set_beginning(&self, bytes_max: u64, tell: TellMirrors<'_>) {
        let mut inner = self.lock();
        inner.begin(bytes_max).mirrors.tell_begin(bytes_max, tell);
    }

    /// From now on no more than this is kept for newcomers. Mirrors are told of more: each knows by itself when less will do.
    pub(crate) fn bound_beginning(&self, bytes_max: u64, tell: TellMirrors<'_>) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let Some(relayed) = &mut inner.relayed else { return };
        let Some(beginning) = &mut relayed.beginning else { return };
        if bytes_max > std::mem::replace(&mut beginning.bytes_max, bytes_max) {
            relayed.mirrors.tell_bound(bytes_max, tell);
        }
        inner.keep_within(bytes_max);
    }

    /// Newcomers begin with what is published from now on. Those of mirrors do when those say so.
    pub(crate) fn forget_beginning(&self) {
        self.lock().forget_beginning();
    }

    /// A lane's next snapshot is for newcomers alone: it was asked for, and everyone else has it by other means. Or no longer.
    pub(crate) fn expect_snapshot(&self, is_expected: bool) {
        self.lock().is_snapshot_awaited = is_expected;
    }

    /// Counts a subscriber of `shard` in, from the tail on, and gives what it begins with, framed; `None` when that is lost,
    /// or over these bounds.
    pub(crate) fn watch_from_beginning(
        self: &Arc<Self>,
        format: Format,
        shard: usize,
        newest: Newest,
        now_ns: u64,
    ) -> Option<(Watched, Arc<[u8]>)> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let mut frame: Arc<[u8]> = Arc::default();
        if let Some(beginning) = inner.relayed.as_mut().and_then(|relayed| relayed.beginning.as_mut()) {
            let stored = inner.stored.as_deref()?;
            let (start, _) = stored.keyframe.filter(|(start, mark)| newest.allows(stored, mark, *start, now_ns))?;
            let is = (format, start, stored.tail());
            frame = beginning.last.upgrade().filter(|_| beginning.last_is == is).unwrap_or_else(|| {
                let frame = framed_from(stored, start, format);
                (beginning.last, beginning.last_is) = (Arc::downgrade(&frame), is);
                frame
            });
        }
        Some((self.watch_in(inner, format.into(), shard, &View::default())?, frame))
    }

    /// Appends whole records of a hub protocol, each a publication, for those who speak it; without a protocol frames of the
    /// raw one. Shards are told once. `snapshots` are the indexes of those at which a newcomer may begin, in ascending order.
    ///
    /// # Errors
    /// [`EngineError::LimitReached`] as for [`append`](Self::append); nothing was appended.
    pub(crate) fn append_records(
        &self,
        (protocol, records): (Option<HubProtocol>, &[&[u8]]),
        snapshots: &[usize],
        now_ns: u64,
        unsent_bytes_max: u64,
        mut tell: impl FnMut(&Arc<Watch>),
        tell_mirrors: TellMirrors<'_>,
    ) -> Result<(), EngineError> {
        let mut inner = self.lock();
        inner.check_unsent(unsent_bytes_max)?;
        self.published_s.store(now_ns / 1_000_000_000, Ordering::Relaxed);
        let inner = &mut *inner;
        let is_mirrored = inner.relayed.as_ref().is_some_and(|relayed| relayed.mirrors.want(protocol));
        let mut told = Vec::new();
        if is_mirrored {
            put_protocol(&mut told, protocol);
        }
        for (index, record) in records.iter().enumerate() {
            let is_snapshot = snapshots.binary_search(&index).is_ok();
            let is_for_all = !(is_snapshot && std::mem::take(&mut inner.is_snapshot_awaited));
            let kind = match (is_snapshot, is_for_all) {
                (true, true) => FrameKind::Keyframe,
                (true, false) => FrameKind::Snapshot,
                (false, _) => FrameKind::Plain,
            };
            self.append_whole(inner, (protocol, record), kind, now_ns)?;
            if is_mirrored {
                put_record(&mut told, kind, record);
            }
        }
        inner.tell_whole(protocol, &mut tell);
        if let Some(relayed) = inner.relayed.as_mut().filter(|_| is_mirrored) {
            relayed.mirrors.tell_records(protocol, &told, tell_mirrors);
        }
        Ok(())
    }

    /// One record: for newcomers alone where it is a snapshot that was asked for.
    pub(super) fn append_whole(
        &self,
        inner: &mut Inner,
        (protocol, record): (Option<HubProtocol>, &[u8]),
        kind: FrameKind,
        now_ns: u64,
    ) -> Result<(), EngineError> {
        let payload = Payload::Whole(protocol, record);
        self.stand(inner, Stand::Next, kind, now_ns)?;
        let (expires_ns, offset) = (u64::MAX, inner.offset);
        let mark = FrameMark { published_ns: now_ns, expires_ns, offset, ..FrameMark::default() };
        if inner.beginning().is_some() {
            self.keep_for_newcomers(inner, &payload, FrameMark { kind, ..mark });
        }
        if kind != FrameKind::Snapshot {
            self.write(inner, (&payload, None, None), (mark, 0), &Besides::default(), None::<fn(&Arc<Watch>)>);
        }
        Ok(())
    }

    /// Stores what newcomers begin with; over the bound all of it is lost, until the next snapshot.
    pub(super) fn keep_for_newcomers(&self, inner: &mut Inner, payload: &Payload<'_>, mark: FrameMark) {
        if inner.stored.is_none() && !mark.is_beginning() {
            return;
        }
        self.store_in(inner, (payload, None), (mark, 0), &Besides::default(), &held_by_keyframe(&self.settings));
        let mut bytes_max = 0;
        if let Some(beginning) = inner.relayed.as_mut().and_then(|relayed| relayed.beginning.as_mut()) {
            (beginning.last, bytes_max) = (nothing(), beginning.bytes_max); // a weak pointer holds the memory
        }
        inner.keep_within(bytes_max);
    }
}

impl Inner {
    /// What there is for newcomers, if anything.
    pub(super) fn beginning(&self) -> Option<&Beginning> {
        self.relayed.as_ref()?.beginning.as_ref()
    }

    pub(super) fn begin(&mut self, bytes_max: u64) -> &mut RelayedTo {
        let mark = FrameMark { kind: FrameKind::Opening, offset: self.offset, ..FrameMark::default() };
        let mut stored = Log::behind(self.offset);
        stored.keyframe = Some((0, mark));
        self.stored = Some(Box::new(stored));
        let (last, last_is) = (nothing(), (Format::Raw, 0, 0));
        self.is_snapshot_awaited = false;
        let relayed = self.relayed.get_or_insert_default();
        relayed.beginning = Some(Beginning { bytes_max, last, last_is });
        relayed
    }

    pub(super) fn forget_beginning(&mut self) {
        self.stored = None;
        if let Some(relayed) = &mut self.relayed {
            relayed.beginning = None;
        }
        self.forget_if_nobody();
    }

    /// What is relayed to nobody but those who watch costs nothing.
    pub(super) fn forget_if_nobody(&mut self) {
        self.relayed.take_if(|relayed| relayed.beginning.is_none() && relayed.mirrors.is_empty());
    }

    /// `tell` hears of each shard that watches and does not know yet that whole records have come.
    pub(super) fn tell_whole(&self, protocol: Option<HubProtocol>, tell: &mut impl FnMut(&Arc<Watch>)) {
        let is_for = |format| Payload::Whole(protocol, &[]).is_for(format);
        self.logs.iter().filter(|one| is_for(one.0.format)).for_each(|(_, log)| log.tell(&mut *tell));
    }

    /// What newcomers begin with is lost where it is over this bound.
    fn keep_within(&mut self, bytes_max: u64) {
        let is_over =
            |stored: &mut Box<Log>| stored.keyframe.is_none_or(|(start, _)| stored.tail() - start > bytes_max);
        if self.stored.take_if(is_over).is_some()
            && let Some(beginning) = self.relayed.as_mut().and_then(|relayed| relayed.beginning.as_mut())
        {
            beginning.last = nothing(); // what is stored next begins at the same place
        }
    }
}

fn nothing() -> Weak<[u8]> {
    Weak::<[u8; 0]>::new()
}

/// What is stored from this place on, as one write in that format.
fn framed_from(stored: &Log, start: u64, format: Format) -> Arc<[u8]> {
    let (mut records, mut protocol, mut frame) = (Vec::new(), None, Vec::new());
    for (_, form) in frames_of(stored).filter(|(_, form)| form.position() >= start) {
        if let (Payload::Whole(of, record), _) = stored::read(form.bytes()) {
            records.extend_from_slice(record);
            protocol = of;
        }
    }
    if !records.is_empty() {
        write_frame(format, &Payload::Whole(protocol, &records), None, None, &mut frame).expect("it is no object");
    }
    frame.into()
}

#[cfg(test)]
mod tests {
    use super::super::Registry;
    use super::*;
    use crate::settings::Settings;

    fn nobody(_: &[u32], _: &[u8]) {}

    fn lane(bytes_max: u64) -> Arc<Channel> {
        let registry = Registry::unlisted(&Arc::default(), 10);
        let lane = registry.obtain("l", &Settings::default(), 0).expect("there is room");
        lane.set_beginning(bytes_max, &nobody);
        lane
    }

    /// Appends records; gives which of them are for everyone.
    fn push(lane: &Arc<Channel>, record: &str, is_snapshot: bool, now_ns: u64) -> bool {
        let before = lane.position().offset;
        let records: (_, &[&[u8]]) = (Some(HubProtocol::Json), &[record.as_bytes()]);
        let snapshots: &[usize] = if is_snapshot { &[0] } else { &[] };
        lane.append_records(records, snapshots, now_ns, u64::MAX, |_| (), &nobody).expect("there is room");
        lane.position().offset > before
    }

    fn within(
        lane: &Arc<Channel>,
        messages_max: Option<usize>,
        age_ns_max: Option<u64>,
        now_ns: u64,
    ) -> Option<String> {
        let newest = Newest { messages_max, age_ns_max };
        let (_, frame) = lane.watch_from_beginning(Format::HubPollJson, 0, newest, now_ns)?;
        Some(String::from_utf8(frame.to_vec()).expect("UTF-8"))
    }

    fn all(lane: &Arc<Channel>) -> Option<String> {
        within(lane, None, None, u64::MAX)
    }

    #[test]
    fn a_snapshot_begins_anew() {
        let lane = lane(100);
        for (record, is_snapshot) in [("a", false), ("S", true), ("b", false)] {
            assert!(push(&lane, record, is_snapshot, 0));
        }
        assert_eq!(all(&lane).as_deref(), Some("Sb"));
        lane.set_beginning(100, &nobody);
        assert_eq!(all(&lane).as_deref(), Some(""), "what another connection brought is not for newcomers");
        lane.forget_beginning();
        push(&lane, "c", false, 0);
        assert_eq!(all(&lane).as_deref(), Some(""), "they begin live");
    }

    #[test]
    fn over_the_bound_it_is_lost_until_the_next_snapshot() {
        let lane = lane(5); // a record takes a byte more
        assert!(push(&lane, "S12345", true, 0), "a snapshot over the bound is for the others all the same");
        assert_eq!(all(&lane), None);
        push(&lane, "S1", true, 0);
        push(&lane, "2", false, 0);
        assert_eq!(all(&lane).as_deref(), Some("S12"));
        push(&lane, "3", false, 0);
        assert_eq!(all(&lane), None);
        push(&lane, "x", false, 0);
        assert_eq!(all(&lane), None, "what follows alone is no beginning");
        assert!(lane.lock().stored.is_none(), "and costs nothing");
    }

    #[test]
    fn the_bound_can_be_raised_for_a_while() {
        let lane = lane(5);
        lane.bound_beginning(100, &nobody);
        push(&lane, "S12345", true, 0);
        assert_eq!(all(&lane).as_deref(), Some("S12345"));
        lane.bound_beginning(5, &nobody);
        assert_eq!(all(&lane), None);
        lane.forget_beginning();
        lane.bound_beginning(100, &nobody);
        assert_eq!(all(&lane).as_deref(), Some(""), "they begin live");
    }

    #[test]
    fn all_who_come_at_one_time_are_given_the_same_bytes() {
        let lane = lane(100);
        push(&lane, "S", true, 0);
        let come = |format| lane.watch_from_beginning(format, 0, Newest::default(), 0).expect("it is kept").1;
        let first = come(Format::HubPollJson);
        assert!(Arc::ptr_eq(&first, &come(Format::HubPollJson)));
        assert_ne!(first, come(Format::HubJson), "framed for another transport");
        push(&lane, "T", false, 0);
        let both = come(Format::HubPollJson);
        assert_eq!(&*both, b"ST");
        lane.bound_beginning(0, &nobody);
        lane.bound_beginning(100, &nobody);
        push(&lane, "U", true, 0);
        push(&lane, "V", false, 0);
        assert_eq!(&*come(Format::HubPollJson), b"UV", "as much at the same place");
        drop(both);
    }

    #[test]
    fn a_snapshot_that_was_asked_for_is_for_newcomers_alone() {
        let lane = lane(100);
        push(&lane, "S", true, 0);
        lane.expect_snapshot(true);
        assert!(push(&lane, "b", false, 0));
        assert!(!push(&lane, "T", true, 0));
        assert_eq!(all(&lane).as_deref(), Some("T"));
        assert!(push(&lane, "U", true, 0));
        assert_eq!(all(&lane).as_deref(), Some("U"));
    }

    #[test]
    fn what_is_too_much_or_too_old_for_a_newcomer_is_kept_for_others() {
        let lane = lane(100);
        push(&lane, "a", false, 0);
        assert_eq!(within(&lane, Some(0), None, 9).as_deref(), Some("a"), "there is no snapshot to count from");
        assert_eq!(within(&lane, None, Some(9), 9), None);
        push(&lane, "S", true, 10);
        push(&lane, "b", false, 12);
        assert_eq!(within(&lane, Some(1), Some(5), 15).as_deref(), Some("Sb"));
        assert_eq!(within(&lane, Some(0), None, 15), None);
        assert_eq!(within(&lane, None, Some(4), 15), None);
        assert_eq!(within(&lane, None, Some(0), 9).as_deref(), Some("Sb"), "a clock of another thread may be behind");
        assert_eq!(all(&lane).as_deref(), Some("Sb"));
        push(&lane, "T", true, 15);
        assert_eq!(within(&lane, Some(0), Some(0), 15).as_deref(), Some("T"));
    }

    /// More than any backlog holds is kept if so much is to be, and the logs hold nothing back for newcomers.
    #[test]
    fn its_bound_is_its_own() {
        let lane = lane(10 << 20);
        let watched = lane.watch(Format::HubJson.into(), 0).expect("a format");
        watched.watch.joining.store(0, Ordering::Relaxed);
        push(&lane, "S", true, 0);
        for _ in 0..20_000 {
            push(&lane, &"x".repeat(100), false, 0);
            let tail = lane.tail(Format::HubJson);
            watched.watch.advance(tail, tail);
        }
        assert_eq!(all(&lane).map(|all| all.len()), Some(1 + 20_000 * 100));
        let frames = lane.lock().logs.of(Format::HubJson).map(|log| log.frames.len());
        assert_eq!(frames, Some(1));
    }
}
