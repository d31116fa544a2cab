//! A relay's channel as other workers have it: what comes into it here is told to them in its order, and there the same
//! code does the same.
//!
//! One worker *holds* what a backend sends, by its own connection; others *mirror* it. Both know it by the same 16
//! bytes, since each calls its channel as it likes. A mirror begins with a dump of what newcomers begin with. Each
//! message has a number, so that one that was lost is noticed at the next.
use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::beginning::Newest;
use super::besides::Besides;
use super::joining::frames_of;
use super::mark::{FrameKind, FrameMark};
use super::mirrors::{
    BEGIN, BOUND, DUMP, KINDS, PROTOCOLS, RECORDS, SharedId, TellMirrors, Tie, index_of, kind, protocol, put_protocol,
};
use super::stand::Stand;
use super::{Channel, Inner, Watch, stored};
use crate::bytes::{Reader, put_bytes, put_u32, put_u64};
use crate::error::EngineError;
use crate::protocol::Payload;
use crate::protocol::signalr::HubProtocol;

/// Of a dump: there is a beginning.
const HAS_BEGINNING: u8 = 1;
/// Something is stored.
const HAS_STORED: u8 = 2;

/// A message of who holds what is mirrored here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told<'a> {
    pub(crate) id: SharedId,
    pub(crate) count: u32,
    /// When it was sent, by a clock that all processes of the machine have.
    pub(crate) sent_ns: u64,
    /// Of a dump: for which attempt it is.
    pub(crate) dump: Option<u32>,
    op: u8,
    body: Reader<'a>,
}

impl<'a> Told<'a> {
    /// Takes its head apart; `None` of what is none.
    pub(crate) fn read(message: &'a [u8]) -> Option<Self> {
        let mut body = Reader(message);
        let (sent_ns, op) = (body.u64()?, body.u8()?);
        let (id, count) = (body.take(16)?.try_into().ok()?, body.u32()?);
        let dump = if op == DUMP { Some(body.u32()?) } else { None };
        Some(Self { id, count, sent_ns, dump, op, body })
    }
}

impl Channel {
    /// Has a worker mirror what comes from now on under this name, and sends it what newcomers begin with. False where
    /// that is lost, or over these bounds: then nothing was done. With `is_late` it gets nothing of that.
    pub(crate) fn mirror(
        &self,
        (id, of): (SharedId, Option<HubProtocol>),
        tie: Tie,
        (newest, is_late): (Newest, bool),
        now_ns: u64,
        tell: TellMirrors<'_>,
    ) -> bool {
        let mut guard = self.lock();
        let inner = &mut *guard;
        if inner.beginning().is_some() && !is_late {
            let allows =
                |(start, mark)| inner.stored.as_ref().is_some_and(|log| newest.allows(log, &mark, start, now_ns));
            if !inner.stored.as_ref().and_then(|stored| stored.keyframe).is_some_and(allows) {
                return false;
            }
        }
        if inner.relayed.get_or_insert_default().mirrors.of(id, of).tie(tie) {
            let dump = inner.dump_for_newcomers(tie.number, is_late, now_ns);
            let message = inner.relayed.get_or_insert_default().mirrors.of(id, of).message(DUMP, &dump);
            tell(&[tie.worker], &message);
        }
        true
    }

    /// A worker mirrors it no longer.
    pub(crate) fn unmirror(&self, id: &SharedId, worker: u32) {
        let mut inner = self.lock();
        let Some(relayed) = &mut inner.relayed else { return };
        relayed.mirrors.untie(id, worker);
        inner.forget_if_nobody();
    }

    /// Does what was done where it is held. `tell` hears of the shards that watch.
    ///
    /// It was sent at `now_ns`. Of a dump, who watches already gets what was published after `after_ns`; `None`: nobody
    /// has missed anything.
    ///
    /// # Errors
    /// As of [`append_records`](Self::append_records). `Ok(None)`: it is no such message.
    pub(crate) fn receive(
        &self,
        told: Told<'_>,
        after_ns: Option<u64>,
        (now_ns, unsent_bytes_max): (u64, u64),
        tell: impl FnMut(&Arc<Watch>),
    ) -> Result<Option<()>, EngineError> {
        let mut body = told.body;
        match told.op {
            DUMP => return Ok(self.receive_dump(body, after_ns, now_ns, tell)),
            RECORDS => {
                let Some(protocol) = protocol(&mut body) else { return Ok(None) };
                let mut records: SmallVec<[(FrameKind, &[u8]); 8]> = SmallVec::new();
                while !body.0.is_empty() {
                    let Some(record) = kind(&mut body).zip(body.bytes()) else { return Ok(None) };
                    records.push(record);
                }
                return self.append_told(protocol, &records, (now_ns, unsent_bytes_max), tell).map(Some);
            }
            _ => {}
        }
        let Some(bytes_max) = body.u64() else { return Ok(None) };
        match told.op {
            BEGIN => self.set_beginning(bytes_max, &|_, _| ()),
            BOUND => self.bound_beginning(bytes_max, &|_, _| ()),
            _ => return Ok(None),
        }
        Ok(Some(()))
    }

    fn append_told(
        &self,
        protocol: Option<HubProtocol>,
        records: &[(FrameKind, &[u8])],
        (now_ns, unsent_bytes_max): (u64, u64),
        mut tell: impl FnMut(&Arc<Watch>),
    ) -> Result<(), EngineError> {
        let mut inner = self.lock();
        inner.check_unsent(unsent_bytes_max)?;
        self.published_s.store(now_ns / 1_000_000_000, Ordering::Relaxed);
        for &(kind, record) in records {
            self.append_whole(&mut inner, (protocol, record), kind, now_ns)?;
        }
        inner.tell_whole(protocol, &mut tell);
        Ok(())
    }

    fn receive_dump(
        &self,
        mut body: Reader<'_>,
        after_ns: Option<u64>,
        now_ns: u64,
        mut tell: impl FnMut(&Arc<Watch>),
    ) -> Option<()> {
        let (flags, bytes_max) = (body.u8()?, body.u64()?);
        let mut guard = self.lock();
        let inner = &mut *guard;
        inner.forget_beginning();
        if flags & HAS_BEGINNING != 0 {
            inner.begin(bytes_max);
        }
        while !body.0.is_empty() {
            let (kind, age_ns) = (kind(&mut body)?, body.u64()?);
            let (protocol, record) = (protocol(&mut body)?, body.bytes()?);
            let published_ns = now_ns.saturating_sub(age_ns);
            let is_missed = after_ns.is_some_and(|after_ns| published_ns > after_ns);
            // Who has missed something needs a snapshot as newcomers do.
            let kind = if is_missed && kind == FrameKind::Snapshot { FrameKind::Keyframe } else { kind };
            self.stand(inner, Stand::Next, kind, now_ns).ok()?;
            let mark = FrameMark { published_ns, expires_ns: u64::MAX, offset: inner.offset, ..FrameMark::default() };
            let payload = Payload::Whole(protocol, record);
            self.keep_for_newcomers(inner, &payload, FrameMark { kind, ..mark });
            if is_missed {
                self.write(inner, (&payload, None, None), (mark, 0), &Besides::default(), None::<fn(&Arc<Watch>)>);
            }
        }
        if flags & HAS_STORED == 0 {
            inner.stored = None;
        }
        PROTOCOLS.into_iter().for_each(|protocol| inner.tell_whole(protocol, &mut tell));
        Some(())
    }
}

impl Inner {
    /// What newcomers begin with, for who mirrors.
    fn dump_for_newcomers(&self, tie: u32, is_late: bool, now_ns: u64) -> Vec<u8> {
        let mut out = Vec::new();
        put_u32(&mut out, tie);
        let stored = self.stored.as_deref().filter(|_| self.beginning().is_some() && !is_late);
        let has_stored = if stored.is_some() { HAS_STORED } else { 0 };
        out.push(has_stored | if self.beginning().is_some() { HAS_BEGINNING } else { 0 });
        put_u64(&mut out, self.beginning().map_or(0, |beginning| beginning.bytes_max()));
        let Some((stored, (start, _))) = stored.and_then(|stored| Some((stored, stored.keyframe?))) else { return out };
        for (mark, form) in frames_of(stored).filter(|(_, form)| form.position() >= start) {
            if let (Payload::Whole(of, record), _) = stored::read(form.bytes()) {
                out.push(index_of(&KINDS, &mark.kind));
                put_u64(&mut out, now_ns.saturating_sub(mark.published_ns));
                put_protocol(&mut out, of);
                put_bytes(&mut out, record);
            }
        }
        out
    }
}
