//! Stateful reconnect: a connection that outlives its socket (research: MessageBuffer of ASP.NET Core and of the clients).
//!
//! What the client has not acknowledged is known by the pieces of the logs that carried it, shared with everyone, and by
//! the few private messages. A client of this kind is written to by the slow path alone, because each of its messages
//! has a number; what it has not acknowledged is bounded, beyond it the client lags.
use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::time::Duration;

use super::opening::no_connection;
use crate::channel::Slice;
use crate::http::RequestHead;
use crate::protocol::signalr::sequence::{ReceivedSequence, SentSequence, Verdict};
use crate::protocol::signalr::{HubMessage, RecordReceiver};
use crate::shard::connection::Phase;
use crate::shard::io::Interest;
use crate::shard::opening::AnsweredBy;
use crate::shard::refusal::Refusal;
use crate::shard::timers::ticks;
use crate::shard::{Io, Shard};
use crate::ws::{CloseCode, Receiver, frame_bytes, read_upgrade, write_accept, write_close};

/// Unacknowledged bytes beyond which a client gets nothing new: as many as the reference keeps.
const UNACKED_BYTES_MAX: usize = 100_000;
/// Messages of a client after which it gets an ack at once; else it waits a second for it.
const ACK_EVERY: i64 = 32;
const ACK_AFTER: Duration = Duration::from_secs(1);

/// The books of one connection.
#[derive(Debug, Default)]
pub(crate) struct Stateful {
    sent: SentSequence,
    received: ReceivedSequence,
    /// What is not acknowledged, oldest first.
    unacked: VecDeque<Sent>,
    unacked_bytes: usize,
    /// Messages of the client since the last ack.
    owed: i64,
    /// When they are acknowledged at the latest.
    pub(super) ack_tick: Option<u32>,
}

/// One message, or several of a log.
#[derive(Debug)]
struct Sent {
    /// Number of the last message in it.
    last: i64,
    count: i64,
    frames: Frames,
}

#[derive(Debug)]
enum Frames {
    Private(Box<[u8]>),
    Log(Slice),
}

impl Frames {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Private(bytes) => bytes,
            Self::Log(slice) => slice.bytes(),
        }
    }
}

impl Stateful {
    fn note(&mut self, frames: Frames) {
        let count = frame_starts(frames.bytes()).count() as i64;
        let last = (0..count).map(|_| self.sent.handle_sent()).last();
        if let Some(last) = last {
            self.unacked_bytes += frames.bytes().len();
            self.unacked.push_back(Sent { last, count, frames });
        }
    }

    /// The client has got all up to this number.
    fn acknowledge(&mut self, sequence_id: i64) -> bool {
        if self.sent.handle_ack(sequence_id).is_err() {
            return false;
        }
        while self.unacked.front().is_some_and(|sent| sent.last <= sequence_id) {
            self.unacked_bytes -= self.unacked.pop_front().map_or(0, |sent| sent.frames.bytes().len());
        }
        true
    }

    /// All frames that are not acknowledged, appended to `out`.
    fn replay(&self, out: &mut Vec<u8>) {
        let first = self.sent.sequence_id();
        for sent in &self.unacked {
            let known = (first - (sent.last - sent.count + 1)).max(0) as usize;
            let bytes = sent.frames.bytes();
            out.extend_from_slice(&bytes[frame_starts(bytes).nth(known).unwrap_or(bytes.len())..]);
        }
    }
}

/// Where each frame of a server begins.
fn frame_starts(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at;
        at += frame_bytes(bytes.get(start..).filter(|rest| !rest.is_empty())?);
        Some(start)
    })
}

impl<I: Io> Shard<I> {
    fn stateful_at(&mut self, slot: u32) -> Option<&mut Stateful> {
        self.slab.get_mut(slot)?.signalr.as_deref_mut()?.stateful.as_deref_mut()
    }

    pub(in crate::shard) fn is_stateful(&self, slot: u32) -> bool {
        let signalr = self.slab.get(slot).and_then(|connection| connection.signalr.as_deref());
        signalr.is_some_and(|signalr| signalr.stateful.is_some())
    }

    /// Whether a client has to acknowledge before it gets more.
    pub(in crate::shard) fn awaits_ack(&mut self, slot: u32) -> bool {
        self.stateful_at(slot).is_some_and(|stateful| stateful.unacked_bytes >= UNACKED_BYTES_MAX)
    }

    /// A private message goes out: it is numbered, if this connection has numbers. False when that was one too many.
    pub(in crate::shard) fn note_private(&mut self, slot: u32, frame: &[u8]) -> bool {
        let bytes_max = UNACKED_BYTES_MAX + self.settings.outbox_bytes_max;
        let Some(stateful) = self.stateful_at(slot) else { return true };
        stateful.note(Frames::Private(frame.into()));
        let unacked_bytes = stateful.unacked_bytes;
        if unacked_bytes <= bytes_max {
            return true;
        }
        let reason = format!("{unacked_bytes} bytes are not acknowledged, the bound is {bytes_max}");
        if matches!(self.slab.at(slot).phase, Phase::Detached) {
            self.drop_connection(slot);
        } else {
            self.close(slot, CloseCode::TRY_AGAIN_LATER, &reason);
        }
        false
    }

    /// So much of a log went out, or will before anything else.
    pub(in crate::shard) fn note_written(&mut self, slot: u32, slices: impl Iterator<Item = Slice>) {
        if let Some(stateful) = self.stateful_at(slot) {
            slices.filter(|slice| !slice.bytes().is_empty()).for_each(|slice| stateful.note(Frames::Log(slice)));
        }
    }

    /// The client acknowledges. True unless it cannot know that number.
    pub(super) fn take_ack(&mut self, slot: u32, sequence_id: i64) -> bool {
        let Some(stateful) = self.stateful_at(slot) else { return true };
        let is_possible = stateful.acknowledge(sequence_id);
        if is_possible && !self.awaits_ack(slot) {
            self.pump(slot);
        }
        is_possible
    }

    /// The client says which of its messages comes next. True unless that is beyond what came.
    pub(super) fn take_sequence(&mut self, slot: u32, sequence_id: i64) -> bool {
        let due = self.timers.tick() + ticks(ACK_AFTER);
        let Some(stateful) = self.stateful_at(slot) else { return true };
        let is_possible = stateful.received.handle_sequence(sequence_id).is_ok();
        if is_possible && stateful.received.owes_ack() && stateful.ack_tick.is_none() {
            stateful.ack_tick = Some(due); // it sends again what has come: nothing else would tell it so
            self.watch_over_signalr(slot);
        }
        is_possible
    }

    /// Whether a trackable message of the client is to be dealt with: it has not come before.
    pub(super) fn is_due(&mut self, slot: u32) -> bool {
        self.stateful_at(slot).is_none_or(|stateful| stateful.received.handle_message(true) == Verdict::Process)
    }

    /// A trackable message was dealt with: it is acknowledged, soon.
    pub(super) fn owe_ack(&mut self, slot: u32) {
        let due = self.timers.tick() + ticks(ACK_AFTER);
        let Some(stateful) = self.stateful_at(slot) else { return };
        stateful.owed += 1;
        if stateful.owed >= ACK_EVERY {
            self.send_ack(slot);
        } else if stateful.ack_tick.is_none() {
            stateful.ack_tick = Some(due);
            self.watch_over_signalr(slot);
        }
    }

    pub(super) fn send_ack(&mut self, slot: u32) {
        let Some(stateful) = self.stateful_at(slot) else { return };
        stateful.owed = 0;
        stateful.ack_tick = None;
        if let Some(sequence_id) = stateful.received.poll_ack() {
            self.write_message(slot, &HubMessage::Ack { sequence_id });
            self.flush(slot);
        }
    }

    /// The socket is gone: whether the connection waits for another one.
    pub(in crate::shard) fn detach(&mut self, slot: u32) -> bool {
        if !self.is_stateful(slot) || self.is_draining || self.is_stopping {
            return false;
        }
        let connection = self.slab.at(slot);
        if !matches!(connection.phase, Phase::Open(_)) || connection.ending.is_some() || connection.failure.is_some() {
            return false;
        }
        self.block(slot);
        self.stats.lagging.sub(1);
        let connection = self.slab.at(slot);
        connection.phase = Phase::Detached;
        // What is numbered comes again from the books.
        let (fd, protocol) = (connection.transport.detach(), connection.format.hub_protocol());
        if std::mem::take(&mut connection.transport.is_registered) {
            self.io.unregister(slot);
        }
        if let (Some(signalr), Some(protocol)) = (self.slab.at(slot).signalr.as_deref_mut(), protocol) {
            signalr.records = RecordReceiver::new(protocol);
            signalr.forget_pace();
            signalr.backlog = Vec::new(); // it was not dealt with, and may end in half a record: the client sends it again
        }
        if let Some(fd) = fd {
            self.end_socket(&fd);
        }
        self.timers.set(slot, self.settings.hubs.disconnect_timeout);
        true
    }

    /// A new socket, in `slot`, for the connection in `target`.
    pub(super) fn reattach(&mut self, slot: u32, head: &RequestHead<'_>, target: u32) -> Result<AnsweredBy, Refusal> {
        let upgrade = read_upgrade(head)?;
        let connection = self.slab.at(target);
        if let Phase::Open(_) = connection.phase {
            let mut goodbye = Vec::new();
            write_close(&mut goodbye, CloseCode::NORMAL, "");
            if let Some(fd) = connection.transport.socket() {
                self.io.send(fd, &goodbye); // a full socket learns of it by its end
            }
            self.detach(target);
        }
        if !matches!(self.slab.at(target).phase, Phase::Detached) {
            return Err(no_connection());
        }
        let Some(fd) = self.slab.at(slot).transport.fd.take() else { return Err(no_connection()) };
        let raw = fd.as_raw_fd();
        self.io.unwatch(raw);
        if self.io.watch(raw, self.token_of(target), Interest::Connection).is_err() {
            self.stats.connections.sub(1);
            self.drop_connection(slot);
            return Ok(AnsweredBy::ThisShard);
        }
        let connection = self.slab.at(target);
        connection.transport.fd = Some(fd);
        connection.phase = Phase::Open(Receiver::new());
        connection.transport.is_blocked = false;
        write_accept(connection.transport.outbox.bytes_mut(), &upgrade, None, &[]);
        if let Some(sequence_id) = self.stateful_at(target).map(|stateful| stateful.sent.sequence_id()) {
            self.write_message(target, &HubMessage::Sequence { sequence_id });
        }
        let mut replay = Vec::new();
        if let Some(stateful) = self.stateful_at(target) {
            stateful.replay(&mut replay);
        }
        self.slab.at(target).transport.outbox.bytes_mut().extend_from_slice(&replay);
        self.drop_connection(slot);
        self.begin_upkeep(target);
        self.pump(target);
        Ok(AnsweredBy::ThisShard)
    }
}
