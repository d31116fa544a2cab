//! Who mirrors what comes into a relay's channel, and what they are told of it.
use smallvec::SmallVec;

use super::mark::FrameKind;
use crate::bytes::{Reader, put_bytes, put_u32};
use crate::protocol::signalr::HubProtocol;

/// What names a lane, or a broadcast lane, to all workers.
pub type SharedId = [u8; 16];

/// A worker that mirrors, and its own number for this attempt: a dump that was for an older one it does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tie {
    /// From 256 on it is one of another machine.
    pub worker: u32,
    /// Of the worker's attempts.
    pub number: u32,
}

/// Takes a message for these workers, and never waits.
pub(crate) type TellMirrors<'a> = &'a dyn Fn(&[u32], &[u8]);

/// Those who mirror what comes into a channel here.
#[derive(Debug, Default)]
pub(super) struct Mirrors(SmallVec<[Mirrored; 1]>);

/// What comes of one source. A hub's channel has one for each protocol that its backend sends to all.
#[derive(Debug)]
pub(super) struct Mirrored {
    id: SharedId,
    /// Only what is in this one; without it all.
    of: Option<HubProtocol>,
    ties: SmallVec<[Tie; 4]>,
    /// Messages so far.
    count: u32,
}

pub(super) const DUMP: u8 = 0;
pub(super) const RECORDS: u8 = 1;
pub(super) const BEGIN: u8 = 2;
pub(super) const BOUND: u8 = 3;

pub(super) const PROTOCOLS: [Option<HubProtocol>; 3] = [None, Some(HubProtocol::Json), Some(HubProtocol::MessagePack)];
pub(super) const KINDS: [FrameKind; 3] = [FrameKind::Plain, FrameKind::Keyframe, FrameKind::Snapshot];

pub(super) fn index_of<T: PartialEq>(all: &[T], one: &T) -> u8 {
    all.iter().position(|each| each == one).expect("all are there") as u8
}

/// One record on its way.
pub(super) fn put_record(out: &mut Vec<u8>, kind: FrameKind, record: &[u8]) {
    out.push(index_of(&KINDS, &kind));
    put_bytes(out, record);
}

/// What stands before records.
pub(super) fn put_protocol(out: &mut Vec<u8>, protocol: Option<HubProtocol>) {
    out.push(index_of(&PROTOCOLS, &protocol));
}

pub(super) fn protocol(reader: &mut Reader<'_>) -> Option<Option<HubProtocol>> {
    PROTOCOLS.get(usize::from(reader.u8()?)).copied()
}

pub(super) fn kind(reader: &mut Reader<'_>) -> Option<FrameKind> {
    KINDS.get(usize::from(reader.u8()?)).copied()
}

impl Mirrored {
    /// Whether this one is new.
    pub(super) fn tie(&mut self, tie: Tie) -> bool {
        if self.ties.contains(&tie) {
            return false;
        }
        self.ties.retain(|other| other.worker != tie.worker);
        self.ties.push(tie);
        true
    }

    fn tell(&mut self, op: u8, body: &[u8], tell: TellMirrors<'_>) {
        self.count = self.count.wrapping_add(1);
        let to: SmallVec<[u32; 16]> = self.ties.iter().map(|tie| tie.worker).collect();
        tell(&to, &self.message(op, body));
    }

    pub(super) fn message(&self, op: u8, body: &[u8]) -> Vec<u8> {
        let mut message = Vec::with_capacity(21 + body.len());
        message.push(op);
        message.extend_from_slice(&self.id);
        put_u32(&mut message, self.count);
        message.extend_from_slice(body);
        message
    }
}

impl Mirrors {
    /// That worker mirrors this no longer.
    pub(super) fn untie(&mut self, id: &SharedId, worker: u32) {
        for one in self.0.iter_mut().filter(|one| one.id == *id) {
            one.ties.retain(|tie| tie.worker != worker);
        }
        self.0.retain(|one| !one.ties.is_empty());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn of(&mut self, id: SharedId, of: Option<HubProtocol>) -> &mut Mirrored {
        let at = self.0.iter().position(|one| one.id == id).unwrap_or_else(|| {
            self.0.push(Mirrored { id, of, ties: SmallVec::new(), count: 0 });
            self.0.len() - 1
        });
        &mut self.0[at]
    }

    /// Whether somebody mirrors what comes in this protocol.
    pub(super) fn want(&self, protocol: Option<HubProtocol>) -> bool {
        self.0.iter().any(|one| one.of.is_none() || one.of == protocol)
    }

    /// Records, as [`put_record`] has them behind [`put_protocol`], have been appended.
    pub(super) fn tell_records(&mut self, protocol: Option<HubProtocol>, body: &[u8], tell: TellMirrors<'_>) {
        for one in self.0.iter_mut().filter(|one| one.of.is_none() || one.of == protocol) {
            one.tell(RECORDS, body, tell);
        }
    }

    /// Newcomers begin anew.
    pub(super) fn tell_begin(&mut self, bytes_max: u64, tell: TellMirrors<'_>) {
        self.0.iter_mut().for_each(|one| one.tell(BEGIN, &bytes_max.to_le_bytes(), tell));
    }

    /// More is kept for newcomers.
    pub(super) fn tell_bound(&mut self, bytes_max: u64, tell: TellMirrors<'_>) {
        self.0.iter_mut().for_each(|one| one.tell(BOUND, &bytes_max.to_le_bytes(), tell));
    }
}
