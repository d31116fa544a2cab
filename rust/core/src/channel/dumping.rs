//! What a channel keeps, as bytes for another process: there a channel of the same name goes on from it.
//!
//! Only what is stored crosses, and where the channel stands: the logs of formats are made of that when somebody comes.
//! Ages cross, not times: each process has a clock of its own.
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::besides::Besides;
use super::crossing::{read_ids, write_ids};
use super::joining::frames_of;
use super::keys::{KeyId, Keys};
use super::log::Log;
use super::mark::{Edge, FrameKind, FrameMark};
use super::stand::{Stand, Stretches};
use super::{Appended, Channel, Inner, Publication, Tags, Watch, stored};
use crate::bytes::{Reader, put_bytes, put_u32, put_u64};
use crate::error::EngineError;
use crate::position::Position;

/// The kinds of frames, each at the place that is its number.
const KINDS: [FrameKind; 6] = [
    FrameKind::Plain,
    FrameKind::Keyframe,
    FrameKind::Snapshot,
    FrameKind::Removal,
    FrameKind::Opening,
    FrameKind::Gap,
];
/// Bytes of a mark.
const MARK_BYTES: usize = 37;

/// One frame of what is stored.
struct Frame<'a> {
    mark: FrameMark,
    besides: Besides,
    form: &'a [u8],
}

/// A dump, taken apart.
struct Dump<'a> {
    head: Position,
    life: Stretches,
    offset: u64,
    is_known_empty: bool,
    keys: Keys,
    /// The name of each key, at its number less one.
    names: Vec<&'a str>,
    stored: Option<Stored<'a>>,
}

struct Stored<'a> {
    head: Edge,
    whole_from: u64,
    edges: [Edge; 3],
    keyframe: Option<(u64, FrameMark)>,
    forgotten: u64,
    /// Each with the place where it began.
    values: Vec<(u64, Frame<'a>)>,
    frames: Vec<Frame<'a>>,
}

impl Channel {
    /// All that another process needs to go on with it.
    pub(crate) fn dump(&self, now_ns: u64) -> Vec<u8> {
        let inner = self.lock();
        let (life, mut out) = (self.life(&inner), Vec::new());
        let position = life.position_of(inner.offset);
        [position.epoch, position.offset, inner.offset].into_iter().for_each(|number| put_u64(&mut out, number));
        out.push(u8::from(inner.is_known_empty && inner.offset == 0));
        Stretches::write(life, &mut out);
        let places = inner.keys.write(&mut out);
        out.push(u8::from(inner.stored.is_some()));
        if let Some(stored) = &inner.stored {
            write_stored(stored, (&inner.keys, &places), now_ns, &mut out);
        }
        out
    }

    /// Goes on from what [`dump`](Self::dump) gave. Where somebody watches, it is at another place already: then what is
    /// newer is appended, behind a gap where something is missing, and `tell` hears of the shards that watch.
    ///
    /// `None`: these bytes are no dump, or of a life that was before.
    pub(crate) fn restore(&self, dump: &[u8], now_ns: u64, tell: impl FnMut(&Arc<Watch>)) -> Option<()> {
        let dump = Dump::read(dump, now_ns)?;
        let mut inner = self.lock();
        if inner.logs.iter().next().is_some() {
            drop(inner);
            return self.catch_up(&dump, now_ns, tell).ok();
        }
        self.published_s.store(now_ns / 1_000_000_000, Ordering::Relaxed);
        (inner.offset, inner.is_known_empty) = (dump.offset, dump.is_known_empty);
        inner.life = Some(Box::new(dump.life));
        inner.keys = dump.keys;
        inner.is_snapshot_awaited = false;
        inner.stored = dump.stored.map(|stored| Box::new(stored.into_log(&self.settings, &inner.keys)));
        let is_storing = inner.stored.is_some() || self.settings.history_frames > 0;
        self.is_storing.store(is_storing, Ordering::Release);
        let offset = inner.offset;
        if let Some(hearing) = &mut inner.hearing
            && hearing.log().tail() == 0
        {
            hearing.log_mut().begin_behind(offset);
        }
        Some(())
    }

    /// Appends what a dump has that is newer than what is here.
    fn catch_up(&self, dump: &Dump<'_>, now_ns: u64, mut tell: impl FnMut(&Arc<Watch>)) -> Result<(), EngineError> {
        let life = dump.life.life();
        let values = dump.stored.iter().flat_map(|stored| stored.values.iter().map(|one| &one.1).chain(&stored.frames));
        for frame in values.filter(|frame| !matches!(frame.mark.kind, FrameKind::Gap | FrameKind::Opening)) {
            let FrameMark { offset, expires_ns, key, kind, .. } = frame.mark;
            let position = life.position_of(offset);
            let is_known = self.newest_of(position.epoch).is_some_and(|known| position.offset <= known.offset);
            if is_known || !life.has(offset) {
                continue;
            }
            let previous = life.position_of(offset - u64::from(kind != FrameKind::Snapshot));
            let stand = Stand::After { previous, position };
            let (payload, event) = stored::read(frame.form);
            let publication = Publication {
                payload,
                event,
                key: (key as usize).checked_sub(1).map(|index| dump.names[index]),
                // One whose time is over stands in its place all the same, and is sent to nobody: without it something were missing.
                ttl_ns: (expires_ns != u64::MAX).then(|| expires_ns.saturating_sub(now_ns)),
                is_keyframe: kind == FrameKind::Keyframe,
                is_snapshot: kind == FrameKind::Snapshot,
                is_removal: kind == FrameKind::Removal,
                excluded: frame.besides.excluded(),
                tags: frame.besides.tags(),
            };
            let appended = self.append(&publication, stand, now_ns, u64::MAX, &mut tell)?;
            debug_assert!(!matches!(appended, Appended::Missing(_)), "all encodings cross");
        }
        self.move_on(dump.head, now_ns, tell)?;
        if dump.is_known_empty {
            self.know_empty();
        }
        Ok(())
    }

    /// Nothing of what was published up to this position is to be had any more.
    pub(crate) fn move_on(
        &self,
        position: Position,
        now_ns: u64,
        mut tell: impl FnMut(&Arc<Watch>),
    ) -> Result<(), EngineError> {
        let mut inner = self.lock();
        if self.stand(&mut inner, Stand::At(position), FrameKind::Snapshot, now_ns)? {
            inner.logs.iter().for_each(|(_, log)| log.tell(&mut tell));
        }
        Ok(())
    }

    /// Forgets what is kept, where nobody watches: another process keeps it.
    pub(crate) fn forget_kept(&self) {
        let mut inner = self.lock();
        if inner.logs.iter().next().is_some() || inner.hearing.is_some() || self.occupancy() > 0 {
            return;
        }
        let Inner { offset, life, .. } = std::mem::take(&mut *inner);
        (inner.offset, inner.life) = (offset, life);
    }
}

impl Dump<'_> {
    fn read(bytes: &[u8], now_ns: u64) -> Option<Dump<'_>> {
        let mut reader = Reader(bytes);
        let head = Position { epoch: reader.u64()?, offset: reader.u64()? };
        let offset = reader.u64()?;
        let is_known_empty = reader.bool()?;
        let life = Stretches::read(&mut reader)?;
        (life.life().position_of(offset) == head).then_some(())?;
        let (keys, names) = Keys::read(&mut reader)?;
        let stored = if reader.bool()? { Some(Stored::read(&mut reader, now_ns, names.len())?) } else { None };
        reader.end()?;
        Some(Dump { head, life, offset, is_known_empty, keys, names, stored })
    }
}

impl<'a> Stored<'a> {
    fn read(reader: &mut Reader<'a>, now_ns: u64, keys: usize) -> Option<Self> {
        let head = read_edge(reader)?;
        let whole_from = reader.u64()?;
        let edges = [read_edge(reader)?, read_edge(reader)?, read_edge(reader)?];
        let keyframe = match reader.bool()? {
            true => Some((reader.u64()?, read_mark(reader, now_ns, keys)?)),
            false => None,
        };
        let forgotten = reader.u64()?;
        let count = reader.count(MARK_BYTES + 8)?;
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            let start = reader.u64()?;
            values.push((start, read_frame(reader, now_ns, keys)?));
        }
        let count = reader.count(MARK_BYTES + 4)?;
        let frames: Option<Vec<_>> = (0..count).map(|_| read_frame(reader, now_ns, keys)).collect();
        let found = Self { head, whole_from, edges, keyframe, forgotten, values, frames: frames? };
        found.is_sound().then_some(found)
    }

    /// Places follow each other as the bytes between them say.
    fn is_sound(&self) -> bool {
        let mut end = 0;
        for (start, frame) in &self.values {
            if *start < end || start.checked_add(frame.form.len() as u64) != Some(frame.mark.end) {
                return false;
            }
            end = frame.mark.end;
        }
        let mut offset = self.head.offset;
        end <= self.head.position
            && self.frames.iter().try_fold(self.head.position, |end, frame| {
                let is_next = frame.mark.offset >= std::mem::replace(&mut offset, frame.mark.offset);
                let next = end.checked_add(frame.form.len() as u64)?;
                (is_next && frame.mark.end == next).then_some(next)
            }) == Some(self.frames.last().map_or(self.head.position, |frame| frame.mark.end))
    }

    fn into_log(self, settings: &crate::settings::ChannelSettings, keys: &Keys) -> Log {
        let mut log = Log::behind(self.head.offset);
        for (start, frame) in self.values {
            log.restore_value(start, frame.mark, frame.form, frame.besides);
        }
        log.begin_at(self.head, self.whole_from);
        for frame in self.frames {
            log.restore_frame(frame.form, frame.mark, &frame.besides);
        }
        let [lost, gap, life] = self.edges;
        (log.lost, log.gap, log.life, log.keyframe) = (lost, gap, life, self.keyframe);
        log.compacted.forget_up_to(self.forgotten);
        debug_assert!(settings.policy == super::Policy::Latest || keys.is_none());
        log
    }
}

/// The place of each key in the list of them.
type Places = HashMap<KeyId, u32>;

fn write_stored(stored: &Log, (keys, places): (&Keys, &Places), now_ns: u64, out: &mut Vec<u8>) {
    write_edge(stored.head, out);
    put_u64(out, stored.whole_from);
    [stored.lost, stored.gap, stored.life].into_iter().for_each(|edge| write_edge(edge, out));
    out.push(u8::from(stored.keyframe.is_some()));
    if let Some((start, mark)) = &stored.keyframe {
        put_u64(out, *start);
        write_mark(mark, places, now_ns, out);
    }
    put_u64(out, stored.compacted.forgotten());
    let values = || stored.compacted.from(0).filter(|value| stored.compacted.is_current(&value.mark, keys));
    put_u32(out, values().count() as u32);
    for value in values() {
        put_u64(out, value.start());
        write_frame(&value.mark, &value.besides, value.frame.bytes(), places, now_ns, out);
    }
    put_u32(out, stored.frames.len() as u32);
    for (mark, form) in frames_of(stored) {
        write_frame(&mark, &stored.noted.of(mark.end), form.bytes(), places, now_ns, out);
    }
}

fn write_frame(mark: &FrameMark, besides: &Besides, form: &[u8], places: &Places, now_ns: u64, out: &mut Vec<u8>) {
    write_mark(mark, places, now_ns, out);
    write_ids(besides.excluded(), out);
    put_bytes(out, besides.tags().bytes());
    put_bytes(out, form);
}

fn read_frame<'a>(reader: &mut Reader<'a>, now_ns: u64, keys: usize) -> Option<Frame<'a>> {
    let mark = read_mark(reader, now_ns, keys)?;
    let besides = Besides::of(&read_ids(reader)?, Tags::read(reader.bytes()?)?);
    let form = reader.bytes()?;
    if mark.kind != FrameKind::Gap {
        let (_, _, rest) = stored::read_foreign(form)?;
        rest.is_empty().then_some(())?;
    }
    Some(Frame { mark, besides, form })
}

fn write_edge(edge: Edge, out: &mut Vec<u8>) {
    put_u64(out, edge.position);
    put_u64(out, edge.offset);
}

fn read_edge(reader: &mut Reader<'_>) -> Option<Edge> {
    Some(Edge { position: reader.u64()?, offset: reader.u64()? })
}

fn write_mark(mark: &FrameMark, places: &Places, now_ns: u64, out: &mut Vec<u8>) {
    let left = if mark.expires_ns == u64::MAX { u64::MAX } else { mark.expires_ns.saturating_sub(now_ns) };
    let age = now_ns.saturating_sub(mark.published_ns);
    [mark.end, age, left, mark.offset].into_iter().for_each(|number| put_u64(out, number));
    put_u32(out, places.get(&mark.key).copied().unwrap_or(0));
    out.push(KINDS.iter().position(|kind| *kind == mark.kind).expect("all are there") as u8);
}

fn read_mark(reader: &mut Reader<'_>, now_ns: u64, keys: usize) -> Option<FrameMark> {
    let (end, age, left, offset) = (reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?);
    let (key, kind) = (reader.u32()?, *KINDS.get(usize::from(reader.u8()?))?);
    let expires_ns = if left == u64::MAX { u64::MAX } else { now_ns.saturating_add(left) };
    let published_ns = now_ns.saturating_sub(age);
    (key as usize <= keys).then_some(FrameMark { end, published_ns, expires_ns, offset, key, kind })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Filter, Mode, Origin, Pattern, Policy, Registry, Start, TagValue, View, write_tags};
    use super::*;
    use crate::connection_id::ConnectionId;
    use crate::protocol::{Format, Payload};
    use crate::settings::{ChannelRule, ChannelSettings, Settings};

    const S: u64 = 1_000_000_000;

    fn channel(promised: ChannelSettings) -> Arc<Channel> {
        let rule = ChannelRule { pattern: Pattern::new("*").expect("one"), settings: promised };
        let settings = Settings { channels: vec![rule], ..Settings::default() };
        Registry::listed(&Arc::default(), 10).obtain("odds", &settings, 0).expect("there is room")
    }

    /// What a newcomer who begins so gets: where, whether it recovered, and the bytes.
    fn come(channel: &Arc<Channel>, view: &View, origin: Origin, now_ns: u64) -> (Position, Option<bool>, Vec<u8>) {
        let format = Format::Raw;
        let watched = channel.watch(format.into(), 0).expect("a format");
        let seek = channel.seek(format, origin, watched.cursor, now_ns);
        let (mut cursor, mut mode, mut got) = (seek.cursor, seek.mode, Vec::new());
        let tail = channel.tail(format);
        while mode != Mode::AwaitingKeyframe && cursor < tail {
            if channel.is_overtaken(format, cursor, mode) {
                match channel.overtaken(format, view, (cursor, mode), tail, now_ns) {
                    super::super::Overtaken::Close => {
                        got.extend(b"closed");
                        break;
                    }
                    super::super::Overtaken::Skip(to, next, _) => {
                        assert!(to > cursor || next != mode, "it goes on");
                        (cursor, mode) = (to, next);
                        continue;
                    }
                }
            }
            let mut run = channel.read(format, view, (cursor, tail), mode, now_ns);
            run.exclude(ConnectionId::from_bits(7));
            got.extend(run.slices.iter().flat_map(|slice| slice.bytes().to_vec()));
            assert!(run.end > cursor);
            (cursor, mode) = (run.end, if mode == Mode::AtKeyframe { Mode::Replaying } else { mode });
        }
        (seek.position, seek.recovered, got)
    }

    #[derive(Clone, Debug)]
    struct Op {
        key: Option<u8>,
        flags: u8,
        ttl: Option<u8>,
        later_s: u8,
        size: u8,
    }

    fn op() -> impl Strategy<Value = Op> {
        (proptest::option::of(0..4_u8), 0..16_u8, proptest::option::weighted(0.2, 0..8_u8), 0..3_u8, 0..40_u8)
            .prop_map(|(key, flags, ttl, later_s, size)| Op { key, flags, ttl, later_s, size })
    }

    fn publish(channel: &Channel, op: &Op, number: usize, stand: Stand, now_ns: u64) -> Option<Position> {
        let text = format!("{number}:{}", "x".repeat(op.size.into()));
        let key = op.key.map(|key| key.to_string());
        let is_latest = channel.settings().policy == Policy::Latest;
        let own = [ConnectionId::from_bits(7)];
        let mut tagged = Vec::new();
        if !op.size.is_multiple_of(3) {
            write_tags(vec![("odd", TagValue::Truth(op.size % 3 == 1))], &mut tagged).expect("tags");
        }
        let publication = Publication {
            key: key.as_deref(),
            ttl_ns: op.ttl.map(|ttl| u64::from(ttl) * S),
            is_keyframe: op.flags == 1,
            is_snapshot: op.flags == 2,
            is_removal: op.flags >= 14 && is_latest && key.is_some(),
            excluded: if op.flags == 3 { &own } else { &[] },
            tags: Tags::read(&tagged).expect("tags"),
            ..Publication::new(Payload::Text(&text))
        };
        match channel.append(&publication, stand, now_ns, u64::MAX, |_| ()) {
            Ok(Appended::At(position)) => Some(position),
            other => panic!("{other:?}"),
        }
    }

    /// Its place was taken for a gap, and who watched with policy `every` was closed.
    #[test]
    fn what_expires_on_its_way_is_not_missing() {
        let promised = ChannelSettings { policy: Policy::Every, history_frames: 8, ..ChannelSettings::default() };
        let (one, other) = (channel(promised), channel(promised));
        other.restore(&one.dump(0), 0, |_| ()).expect("a dump");
        let watched = other.watch(Format::Raw.into(), 0).expect("a format");
        let short = Op { key: None, flags: 0, ttl: Some(1), later_s: 0, size: 1 };
        publish(&one, &short, 0, Stand::Next, 0);
        publish(&one, &Op { ttl: None, ..short }, 1, Stand::Next, 0);
        other.restore(&one.dump(2 * S), 2 * S, |_| ()).expect("a dump");
        assert_eq!((other.position(), other.has_gap_at(Format::Raw, watched.cursor)), (one.position(), false));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// A channel that goes on from a dump is the channel that was dumped, for everybody who comes, then and later.
        #[test]
        fn who_goes_on_from_a_dump_is_no_other(
            before in proptest::collection::vec(op(), 0..60),
            behind in proptest::collection::vec(op(), 0..20),
            policy in 0..4_usize,
            history in 0..12_usize,
            backlog in 1..20_usize,
            age in 1..40_u64,
            ahead_s in 0..50_u64,
        ) {
            let promised = ChannelSettings {
                policy: Policy::ALL[policy],
                history_frames: history,
                backlog_frames: backlog,
                history_age: std::time::Duration::from_secs(age),
                ..ChannelSettings::default()
            };
            let filter = Filter::parse(r#"{"odd":false}"#).expect("a filter");
            let views = [View::default(), View { filter }];
            let (here, there) = (channel(promised), channel(promised));
            let (mut now_ns, mut last) = (100 * S, None);
            for (number, op) in before.iter().enumerate() {
                now_ns += u64::from(op.later_s) * S;
                last = publish(&here, op, number, Stand::Next, now_ns).or(last);
            }
            // The clock of the other process is another one.
            let ahead_ns = ahead_s * S;
            there.restore(&here.dump(now_ns), now_ns + ahead_ns, |_| ()).expect("a dump");
            for step in 0..=behind.len() {
                prop_assert_eq!(here.position(), there.position());
                let newest = here.position();
                let from = newest.offset.saturating_sub(15);
                let mut origins: Vec<_> = (from..=newest.offset + 1)
                    .map(|offset| Origin { since: Some(Position { offset, ..newest }), start: None })
                    .collect();
                origins.push(Origin { since: Some(Position { epoch: 1, offset: 1 }), start: Some(Start::History) });
                for start in [Start::Live, Start::History, Start::Keyframe] {
                    origins.push(Origin { since: None, start: Some(start) });
                }
                for (origin, view) in origins.iter().flat_map(|origin| views.iter().map(move |view| (*origin, view))) {
                    let (one, other) = (come(&here, view, origin, now_ns), come(&there, view, origin, now_ns + ahead_ns));
                    prop_assert_eq!(one, other, "{:?} at {}", origin, step);
                }
                let Some(op) = behind.get(step) else { break };
                now_ns += u64::from(op.later_s) * S;
                let position = publish(&here, op, 1_000 + step, Stand::Next, now_ns).expect("a place");
                prop_assert_eq!(publish(&there, op, 1_000 + step, Stand::At(position), now_ns + ahead_ns), Some(position));
            }
            // Where somebody watches already, what is newer is appended.
            let watched = there.watch(Format::Raw.into(), 0).expect("a format");
            watched.watch.advance(watched.cursor, watched.cursor);
            let first = there.tail(Format::Raw);
            let op = Op { key: None, flags: 0, ttl: None, later_s: 0, size: 3 };
            let position = publish(&here, &op, 5_000, Stand::Next, now_ns).expect("a place");
            there.restore(&here.dump(now_ns), now_ns + ahead_ns, |_| ()).expect("a dump");
            prop_assert_eq!(there.position(), position);
            let is_kept = history > 0;
            let run = there.read(Format::Raw, &View::default(), (first, there.tail(Format::Raw)), Mode::Live, now_ns + ahead_ns);
            let has = run.slices.iter().any(|slice| slice.bytes().windows(5).any(|bytes| bytes == b"5000:"));
            prop_assert!(!is_kept || has || there.is_overtaken(Format::Raw, first, Mode::Lagging));
        }

        /// No bytes make it panic, and what is cut is no dump.
        #[test]
        fn what_is_no_dump_is_refused(
            ops in proptest::collection::vec(op(), 0..20),
            flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let promised = ChannelSettings { policy: Policy::Latest, history_frames: 5, ..ChannelSettings::default() };
            let here = channel(promised);
            for (number, op) in ops.iter().enumerate() {
                publish(&here, op, number, Stand::Next, S);
            }
            let mut dump = here.dump(S);
            prop_assert!(channel(promised).restore(&dump[..cut.index(dump.len())], S, |_| ()).is_none());
            for (at, byte) in flips {
                let at = at.index(dump.len());
                dump[at] = byte;
            }
            let there = channel(promised);
            if there.restore(&dump, S, |_| ()).is_some() {
                come(&there, &View::default(), Origin { since: None, start: Some(Start::History) }, S);
            }
        }
    }
}
