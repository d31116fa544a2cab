//! An adopted connection: a framework reads it and frames what it sends, the engine writes that between publications.
//!
//! What was asked of it stands in a queue, each with its barrier: the places in the logs of its channels that come before it.
//! Publications go out between whole messages of the framework, and a Close frame of the engine's own between whole frames.
use std::collections::VecDeque;
use std::sync::Arc;

use crate::adopted::{Barrier, Outgoing};
use crate::channel::{Channel, Origin, Watch, Watched};
use crate::messages::Released;
use crate::ws::Outline;

/// The side of an adopted connection that its shard has.
#[derive(Debug)]
pub(crate) struct Adopted {
    /// What other threads have of it.
    pub(crate) outgoing: Arc<Outgoing>,
    queue: VecDeque<Entry>,
    /// Of the framework's bytes up to the end of the queue, and up to what the socket has taken.
    queued: Outline,
    written: Outline,
    /// What the framework wrote itself is not with the socket yet.
    is_held: bool,
    /// So much of what this turn has to do is asked of it yet: until then nothing is known of the order.
    expected: u32,
    /// How much was done of all that was asked.
    done: u64,
    /// Why it is given up, once that is known; it is when nothing waits any more.
    leaving: Option<Released>,
    /// Nothing of the queue follows: all is given up, or the engine's own Close frame ends it.
    is_over: bool,
}

#[derive(Debug)]
struct Entry {
    /// None of what continues a message, or joins a channel.
    barrier: Option<Barrier>,
    act: Act,
}

/// What has its place among publications.
#[derive(Debug)]
enum Act {
    /// Bytes of the framework, of which the socket has taken some.
    Write(Bytes, usize),
    /// A channel is left.
    Leave(Arc<Channel>),
    /// One that it has yet to leave is joined again.
    Join(Box<(Watched, Origin)>),
    /// All is given up.
    Release,
}

/// Bytes that one connection alone writes, or several.
#[derive(Debug)]
enum Bytes {
    Own(Vec<u8>),
    Shared(Arc<[u8]>),
}

/// What is shared and not longer is copied behind what waits: both are one send then, and one entry.
const COPIED_BYTES_MAX: usize = 1 << 10;
/// What is longer grows no more: it is let go of when the socket has taken all of it, however much waits behind it.
const GROWN_BYTES_MAX: usize = 64 << 10;

impl Bytes {
    fn get(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }

    fn extend(&mut self, more: &[u8]) {
        match self {
            Self::Own(bytes) => bytes.extend_from_slice(more),
            Self::Shared(bytes) => *self = Self::Own([&bytes[..], more].concat()),
        }
    }

    /// Whether a few more bytes are to stand here, too.
    fn may_grow(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.len() <= GROWN_BYTES_MAX,
            Self::Shared(bytes) => bytes.len() <= COPIED_BYTES_MAX,
        }
    }
}

/// What stood first in the queue and is no bytes.
#[derive(Debug)]
pub(crate) enum Passed {
    /// This channel is left.
    Leave(Arc<Channel>),
    /// This one is joined.
    Join(Watched, Origin),
    /// All is given up: see [`Next::End`].
    Release,
}

/// What is to be written next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing, until something is asked of it.
    Nothing,
    /// Publications, as far as they have come.
    Publications,
    /// Publications up to the barrier, then what stands first in the queue.
    Ordered,
    /// What stands first in the queue.
    Private,
    /// Nothing any more: it is given up.
    End,
}

impl Adopted {
    /// One of which so much is asked in this turn yet.
    pub(crate) fn new(outgoing: Arc<Outgoing>, expected: u32) -> Self {
        Self {
            outgoing,
            queue: VecDeque::new(),
            queued: Outline::default(),
            written: Outline::default(),
            is_held: true,
            expected,
            done: 0,
            leaving: None,
            is_over: false,
        }
    }

    /// The turn has something to do for it.
    pub(crate) fn expect(&mut self) {
        self.expected += 1;
    }

    /// One of these is done. True when nothing more is expected.
    pub(crate) fn handle_done(&mut self) -> bool {
        self.done += 1;
        self.expected = self.expected.saturating_sub(1);
        self.expected == 0
    }

    /// The framework's own bytes are with the socket.
    pub(crate) fn begin(&mut self) {
        self.is_held = false;
    }

    pub(crate) fn is_held(&self) -> bool {
        self.is_held
    }

    /// Bytes as the framework framed them.
    pub(crate) fn queue(&mut self, bytes: &[u8], barrier: Barrier) {
        if self.is_over {
            return;
        }
        let rest = self.queued.pass_message(bytes);
        let (rest, next) = bytes.split_at(rest);
        if !rest.is_empty() {
            self.queue_rest(rest);
        }
        if next.is_empty() {
            return;
        }
        self.queued.pass(next);
        if !self.joins_last(next, &barrier) {
            self.queue.push_back(Entry { barrier: Some(barrier), act: Act::Write(Bytes::Own(next.to_vec()), 0) });
        }
    }

    /// Bytes as several connections send them, which are copied only where that is less than to keep them apart.
    pub(crate) fn queue_shared(&mut self, bytes: &Arc<[u8]>, barrier: Barrier) {
        if self.is_over || !self.queued.is_between_messages() {
            return self.queue(bytes, barrier);
        }
        self.queued.pass(bytes);
        if bytes.len() > COPIED_BYTES_MAX || !self.joins_last(bytes, &barrier) {
            self.queue
                .push_back(Entry { barrier: Some(barrier), act: Act::Write(Bytes::Shared(Arc::clone(bytes)), 0) });
        }
    }

    /// Whether one message, the only thing that this turn asks of it, may be written now.
    pub(crate) fn is_free(&self) -> bool {
        self.expected == 1
            && self.queue.is_empty()
            && !self.is_held
            && !self.is_over
            && self.leaving.is_none()
            && self.written.is_between_messages()
            && !self.has_closed()
    }

    /// Of whole messages that were written while it was free the socket took so much; the rest is queued, and that was all that
    /// the turn asks. True when somebody is to be told how few private bytes are left.
    pub(crate) fn handle_written(&mut self, messages: &Arc<[u8]>, taken: usize) -> bool {
        self.handle_done();
        if taken == messages.len() {
            return self.outgoing.take(taken);
        }
        self.queue_shared(messages, Barrier::default());
        self.advance(taken)
    }

    /// Puts bytes behind those that stand last, if nothing was published between: one send has both.
    fn joins_last(&mut self, bytes: &[u8], barrier: &Barrier) -> bool {
        match self.queue.back_mut() {
            Some(Entry { barrier: Some(same), act: Act::Write(before, _) })
                if same.is_same(barrier) && before.may_grow() =>
            {
                before.extend(bytes);
                true
            }
            _ => false,
        }
    }

    /// Bytes of the message that is under way: nothing comes between its parts.
    fn queue_rest(&mut self, rest: &[u8]) {
        let last = self.queue.iter().rposition(|entry| matches!(entry.act, Act::Write(..)));
        match last.map(|last| &mut self.queue[last].act) {
            Some(Act::Write(before, _)) => before.extend(rest),
            _ => self.queue.push_front(Entry { barrier: None, act: Act::Write(Bytes::Own(rest.to_vec()), 0) }),
        }
    }

    /// A channel is left, behind all that was asked before.
    pub(crate) fn queue_leaving(&mut self, channel: Arc<Channel>, barrier: Barrier) {
        self.queue.push_back(Entry { barrier: Some(barrier), act: Act::Leave(channel) });
    }

    /// A channel is joined, behind all that was asked before, if that says that it is left: else it is given back, to be joined now.
    pub(crate) fn queue_joining(&mut self, watched: Watched, origin: Origin) -> Option<(Watched, Origin)> {
        let is_it = |entry: &Entry| match &entry.act {
            Act::Leave(left) => Arc::ptr_eq(left, &watched.channel),
            Act::Join(joined) => Arc::ptr_eq(&joined.0.channel, &watched.channel),
            Act::Write(..) | Act::Release => false,
        };
        if !self.queue.iter().any(is_it) {
            return Some((watched, origin));
        }
        self.queue.push_back(Entry { barrier: None, act: Act::Join(Box::new((watched, origin))) });
        None
    }

    /// All is given up, behind all that was asked before.
    pub(crate) fn queue_release(&mut self, barrier: Barrier) {
        if self.is_over {
            return;
        }
        self.queue.push_back(Entry { barrier: Some(barrier), act: Act::Release });
    }

    /// It is given up when nothing waits any more, for this reason if there is no other one.
    pub(crate) fn leave(&mut self, why: Released) {
        self.outgoing.refuse();
        self.leaving.get_or_insert(why);
    }

    /// Why it is given up, if that is known.
    pub(crate) fn take_leaving(&mut self) -> Option<Released> {
        self.leaving.take()
    }

    /// The same, which stays.
    pub(crate) fn leaving(&self) -> Option<&Released> {
        self.leaving.as_ref()
    }

    /// Whether publications may still go to it.
    pub(crate) fn takes_publications(&self) -> bool {
        !self.is_over && !self.has_closed() && !matches!(self.leaving, Some(Released::Ended))
    }

    /// Whether the framework's Close frame is with the socket.
    pub(crate) fn has_closed(&self) -> bool {
        self.written.has_closed()
    }

    /// What comes next.
    pub(crate) fn next(&self) -> Next {
        if self.is_over && self.awaits_rest() {
            return Next::Nothing;
        }
        if self.is_over {
            return Next::End; // what is left stands in the outbox, which is empty
        }
        let is_between = self.written.is_between_messages();
        let Some(first) = self.queue.front() else {
            let is_done = self.is_done();
            return match is_between {
                _ if self.is_held && is_done => Next::End,
                _ if self.is_held || self.expected > 0 => Next::Nothing,
                true => Next::Publications,
                false if is_done => Next::End,
                false => Next::Nothing,
            };
        };
        match (self.is_held, &first.act) {
            (true, Act::Release) => Next::Private, // there is nothing to wait for
            (true, _) => Next::Nothing,
            (false, Act::Leave(_)) if !is_between && !self.has_been_given_all() => Next::Nothing,
            (false, _) if first.barrier.is_none() || !is_between => Next::Private,
            (false, _) => Next::Ordered,
        }
    }

    /// Whether nothing is asked of it any more: a message that is under way never ends.
    fn has_been_given_all(&self) -> bool {
        let is_ending = self.leaving.is_some() || self.queue.iter().any(|entry| matches!(entry.act, Act::Release));
        is_ending && self.done == self.outgoing.refuse()
    }

    /// Whether all that was asked is done, and it is to be given up.
    pub(crate) fn is_done(&self) -> bool {
        self.leaving.is_some() && self.queue.is_empty() && self.done == self.outgoing.refuse()
    }

    /// How far a log may be written now: up to the barrier of what stands first in the queue. `None` where nothing stands there.
    pub(crate) fn bound(&self, watch: &Arc<Watch>) -> Option<u64> {
        let barrier = self.barrier()?;
        Some(barrier.of(watch).unwrap_or(0)) // a channel that came later has to wait
    }

    /// The barrier of what stands first in the queue.
    pub(crate) fn barrier(&self) -> Option<&Barrier> {
        self.queue.front()?.barrier.as_ref()
    }

    /// Private bytes that stand first in the queue.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self.queue.front().map(|entry| &entry.act) {
            Some(Act::Write(bytes, taken)) => &bytes.get()[*taken..],
            _ => &[],
        }
    }

    /// The socket took so many of these. True when somebody is to be told how few are left.
    pub(crate) fn advance(&mut self, count: usize) -> bool {
        if let Some(Entry { act: Act::Write(bytes, taken), .. }) = self.queue.front_mut() {
            let bytes = bytes.get();
            self.written.pass(&bytes[*taken..*taken + count]);
            *taken += count;
            if *taken == bytes.len() {
                self.queue.pop_front();
            }
            if self.queue.is_empty() {
                self.queue = VecDeque::new(); // a connection that is silent keeps no memory for it
            }
        }
        self.outgoing.take(count)
    }

    /// Takes what stands first and is no bytes.
    pub(crate) fn pass(&mut self) -> Option<Passed> {
        Some(match self.queue.pop_front()?.act {
            Act::Leave(channel) => Passed::Leave(channel),
            Act::Join(joined) => Passed::Join(joined.0, joined.1),
            Act::Release => {
                self.leaving.get_or_insert(Released::Released);
                self.is_over = true;
                Passed::Release
            }
            Act::Write(..) => unreachable!("bytes are advanced over"),
        })
    }

    /// The engine closes it: gives the rest of the frame that is under way, as far as that was asked for here.
    ///
    /// [`may_close`](Self::may_close) says whether a Close frame may stand behind that.
    pub(crate) fn close(&mut self, why: Released) -> Vec<u8> {
        self.outgoing.refuse();
        self.is_over = true;
        self.leaving = Some(why);
        let mut rest = Vec::new();
        for entry in std::mem::take(&mut self.queue) {
            if let Act::Write(bytes, taken) = entry.act {
                rest.extend_from_slice(self.rest_of_frame(&bytes.get()[taken..]));
            }
        }
        rest
    }

    /// Whether the engine ends it: nothing of the queue follows.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Of bytes behind all that was written, those that belong to the frame that is under way.
    pub(crate) fn rest_of_frame<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let count = if self.written.is_between_frames() { 0 } else { self.written.pass_frame(bytes) };
        &bytes[..count]
    }

    /// Whether a Close frame of the engine's own may stand here: not in a frame that never ended, behind one of the framework,
    /// or before what the framework wrote itself.
    pub(crate) fn may_close(&self) -> bool {
        !self.is_held && self.written.is_between_frames() && !self.has_closed()
    }

    /// A frame is under way, and more was accepted, in which it may end.
    fn awaits_rest(&self) -> bool {
        !self.written.is_between_frames() && self.done < self.outgoing.refuse()
    }
}
