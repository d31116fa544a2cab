//! Where a publication stands: behind the newest one, or at a position that comes from outside.
//!
//! Logs number publications on and on. A [`Life`] that began outside says which number its positions count from, so that a
//! new epoch is one more gap to them. A gap stands in each log, as a mark that is never written: whoever comes to it has
//! missed something, of which the policy says what becomes (`reading`, `joining`).
use super::log::Log;
use super::mark::{FrameKind, FrameMark};
use super::{Channel, Inner};
use crate::error::EngineError;
use crate::position::Position;

/// JavaScript reads whole numbers below this.
const NUMBER_END: u64 = 1 << 53;
const OUT_OF_RANGE: &str = "epoch and offset must be from 1 to 2^53 - 1";
const BEGAN_WITH: &str = "the channel began with this epoch, and another has followed";

/// Where a publication stands in its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// Behind the newest one.
    Next,
    /// At a position that comes from outside; of a snapshot for newcomers that of the publication before it. An epoch is
    /// one channel's alone, and that of a later life is greater. What stands there or before is a duplicate. The first
    /// from outside may have a smaller one than the channel was made with; that one does not come again.
    At(Position),
}

/// What the positions of one life of a channel are in its logs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    epoch: u64,
    /// The number, in the logs, before that of its first publication.
    before: u64,
}

impl Life {
    /// One whose positions count from this number of the logs.
    pub(super) fn new(epoch: u64, before: u64) -> Self {
        Self { epoch, before }
    }

    /// The position of a publication of this life, by its number in the logs.
    pub(super) fn position_of(self, number: u64) -> Position {
        Position { epoch: self.epoch, offset: number.saturating_sub(self.before) }
    }

    /// The number, in the logs, of a position of this life.
    pub(super) fn number_of(self, position: Position) -> Option<u64> {
        (position.epoch == self.epoch).then(|| position.offset.checked_add(self.before)).flatten()
    }

    /// Whether a number is of this life, or the one before its first.
    pub(super) fn has(self, number: u64) -> bool {
        number >= self.before
    }
}

impl Channel {
    /// The life that it is in.
    pub(super) fn life(&self, inner: &Inner) -> Life {
        inner.life.as_ref().map_or(Life { epoch: self.epoch, before: 0 }, |life| **life)
    }

    /// Moves the channel on to where a publication stands, over what is missing before it. False if that is there already.
    ///
    /// # Errors
    /// [`EngineError::InvalidPosition`].
    pub(super) fn stand(
        &self,
        inner: &mut Inner,
        stand: Stand,
        kind: FrameKind,
        now_ns: u64,
    ) -> Result<bool, EngineError> {
        let own = u64::from(kind != FrameKind::Snapshot);
        let Stand::At(position) = stand else {
            inner.offset += own;
            return Ok(true);
        };
        if !(1..NUMBER_END).contains(&position.epoch) || !(own..NUMBER_END).contains(&position.offset) {
            return Err(EngineError::InvalidPosition { position, why: OUT_OF_RANGE });
        }
        let life = self.life(inner);
        let head = life.position_of(inner.offset);
        let is_new_life = position.epoch != head.epoch;
        let is_there = match is_new_life {
            true => inner.life.is_some() && position.epoch < head.epoch,
            false => position.offset < head.offset + own,
        };
        if is_there {
            return Ok(false);
        }
        if is_new_life && position.epoch == self.epoch {
            // Clients may have positions of that life, which would be taken for those of this one.
            return Err(EngineError::InvalidPosition { position, why: BEGAN_WITH });
        }
        let base = if is_new_life { inner.offset } else { life.before };
        let before = base
            .checked_add(position.offset - own)
            .ok_or(EngineError::InvalidPosition { position, why: OUT_OF_RANGE })?;
        // Of a life that is known from outside it is known, too, that nothing was published in it.
        let may_begin_anywhere = is_new_life || inner.life.is_none();
        if is_new_life {
            inner.life = Some(Box::new(Life { epoch: position.epoch, before: base }));
        }
        if may_begin_anywhere && inner.is_untouched() {
            inner.every_log().for_each(|log| log.begin_behind(before));
        } else if is_new_life || before > inner.offset {
            self.note_gap(
                inner,
                FrameMark { published_ns: now_ns, offset: before, ..FrameMark::default() },
                is_new_life,
            );
        }
        inner.offset = before + own;
        Ok(true)
    }

    /// Publications up to this number are missing.
    fn note_gap(&self, inner: &mut Inner, mark: FrameMark, is_new_life: bool) {
        if inner.beginning().is_some() {
            inner.stored = None; // newcomers of a lane would begin with what has a hole
        }
        let keys = std::mem::take(&mut inner.keys);
        inner.every_log().for_each(|log| log.append_gap(mark, is_new_life, &self.settings, &keys));
        inner.keys = keys;
    }
}

impl Inner {
    fn every_log(&mut self) -> impl Iterator<Item = &mut Log> {
        let hearing = self.hearing.as_mut().map(|hearing| hearing.log_mut());
        self.logs.iter_mut().map(|(_, log)| log).chain(self.stored.as_deref_mut()).chain(hearing)
    }

    /// Nothing was ever published: whoever is here begins with what comes first, wherever that stands.
    fn is_untouched(&mut self) -> bool {
        self.offset == 0 && self.every_log().all(|log| log.tail() == 0)
    }
}
