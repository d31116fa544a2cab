//! Frames that a log has let go of and that are still the newest of their keys: policy `latest` only.
//!
//! They keep their places: a cursor that stands before the log's head goes on with what is here, and then at the head.
use std::collections::VecDeque;
use std::sync::Arc;

use super::besides::Besides;
use super::keys::Keys;
use super::mark::{FrameKind, FrameMark};
use super::segment::{Segment, Slice};

/// One frame, in memory of its own.
#[derive(Debug)]
pub(super) struct Value {
    pub(super) mark: FrameMark,
    pub(super) frame: Slice,
    pub(super) besides: Besides,
}

impl Value {
    fn new(mark: FrameMark, start: u64, bytes: &[u8], besides: Besides) -> Self {
        let own = Segment::new(start, bytes.len());
        own.write(0, bytes);
        Self { mark, frame: Slice::new(&Arc::new(own), 0, bytes.len()), besides }
    }

    /// Where it stood in the log.
    pub(super) fn start(&self) -> u64 {
        self.frame.position()
    }

    /// Of the frame, the list and the tags; what several share counts with each, since one may outlive the others.
    fn bytes(&self) -> u64 {
        self.frame.bytes().len() as u64 + self.besides.bytes()
    }
}

/// Oldest first.
#[derive(Debug, Default)]
pub(super) struct Compacted {
    values: VecDeque<Value>,
    /// Of those that are not replaced.
    bytes: u64,
    /// How many of them are replaced by now, and their bytes.
    replaced: usize,
    replaced_bytes: u64,
    /// Where removals end and their offsets, oldest first: each is kept for those who lag before it, and for nobody else.
    removals: VecDeque<(u64, u64)>,
    /// The removals up to this offset were forgotten: everyone who lags has passed them.
    forgotten: u64,
}

/// The replaced are removed once they are more than so many, or bytes, and half of the rest.
const REPLACED_MIN: usize = 16;
const REPLACED_BYTES_MIN: u64 = 4 << 10;

impl Compacted {
    /// Takes a frame that leaves the log; each comes from behind the one before.
    pub(super) fn push(&mut self, mark: FrameMark, start: u64, frame: &[u8], besides: Besides) {
        if mark.kind == FrameKind::Removal {
            self.removals.push_back((mark.end, mark.offset));
        }
        let value = Value::new(mark, start, frame, besides);
        self.bytes += value.bytes();
        self.values.push_back(value);
    }

    /// Removals that end here or before are for nobody any more.
    pub(super) fn forget_removals(&mut self, needed: u64, keys: &Keys) {
        while let Some(&(end, offset)) = self.removals.front()
            && end <= needed
        {
            self.removals.pop_front();
            self.forget_removal(offset, keys);
        }
    }

    /// Of this removal nobody will be told who comes back from before it.
    pub(super) fn forget_removal(&mut self, offset: u64, keys: &Keys) {
        let index = self.values.binary_search_by_key(&offset, |value| value.mark.offset).ok();
        let current = index.filter(|&index| self.is_current(&self.values[index].mark, keys));
        self.forgotten = self.forgotten.max(offset);
        if let Some(index) = current {
            self.end(index, keys);
        }
    }

    /// The offset of the newest removal that was forgotten.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// As one that takes over what another has: it knows no more of removals than that one.
    pub(super) fn forget_as(&mut self, other: &Self) {
        self.forget_up_to(other.forgotten);
    }

    /// Removals up to this offset were forgotten before.
    pub(super) fn forget_up_to(&mut self, offset: u64) {
        self.forgotten = self.forgotten.max(offset);
    }

    /// Whether it is the newest of its key, and no removal that was forgotten.
    pub(super) fn is_current(&self, mark: &FrameMark, keys: &Keys) -> bool {
        !self.is_forgotten(mark) && keys.is_newest(mark.key, mark.offset)
    }

    fn is_forgotten(&self, mark: &FrameMark) -> bool {
        mark.kind == FrameKind::Removal && mark.offset <= self.forgotten
    }

    /// The publication of this number was replaced, which may be one of these. They are removed once they are many.
    pub(super) fn note_replaced(&mut self, offset: u64, keys: &Keys) {
        let Ok(index) = self.values.binary_search_by_key(&offset, |value| value.mark.offset) else { return };
        if !self.is_forgotten(&self.values[index].mark) {
            self.end(index, keys);
        }
    }

    /// One of these is no longer the newest of its key.
    fn end(&mut self, index: usize, keys: &Keys) {
        let bytes = self.values[index].bytes();
        self.bytes -= bytes;
        self.replaced_bytes += bytes;
        self.replaced += 1;
        let is_much = self.replaced_bytes > REPLACED_BYTES_MIN + self.bytes / 2;
        if is_much || self.replaced > REPLACED_MIN + self.count() / 2 {
            let mut values = std::mem::take(&mut self.values);
            values.retain(|value| self.is_current(&value.mark, keys));
            self.values = values;
            (self.replaced, self.replaced_bytes) = (0, 0);
        }
    }

    pub(super) fn pop(&mut self, keys: &Keys) {
        let Some(value) = self.values.pop_front() else { return };
        let bytes = value.bytes();
        if self.is_current(&value.mark, keys) {
            self.bytes -= bytes;
        } else {
            self.replaced -= 1;
            self.replaced_bytes -= bytes;
        }
    }

    pub(super) fn first(&self) -> Option<&Value> {
        self.values.front()
    }

    /// Those from a cursor on.
    pub(super) fn from(&self, cursor: u64) -> impl Iterator<Item = &Value> {
        self.values.range(self.values.partition_point(|value| value.start() < cursor)..)
    }

    /// The frame that began at this place, if it is here.
    pub(super) fn at(&self, start: u64) -> Option<&Value> {
        self.from(start).next().filter(|value| value.start() == start)
    }

    /// Those behind an offset.
    pub(super) fn behind(&self, offset: u64) -> impl Iterator<Item = &Value> {
        self.values.range(self.values.partition_point(|value| value.mark.offset <= offset)..)
    }

    /// Where the frame ends that holds the byte at `position`.
    pub(super) fn frame_end(&self, position: u64) -> Option<u64> {
        let value = self.values.get(self.values.partition_point(|value| value.mark.end <= position))?;
        (value.start() <= position).then_some(value.mark.end)
    }

    /// Of those that are not replaced.
    pub(super) fn count(&self) -> usize {
        self.values.len() - self.replaced
    }

    /// Of those that are not replaced; the others are never more than half as much again and a little.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}
