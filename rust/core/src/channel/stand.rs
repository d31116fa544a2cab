//! Where a publication stands: behind the newest one, or at a position that comes from outside.
//!
//! Logs number publications on and on. [`Stretches`] say which positions those numbers are, where positions come from
//! outside: an offset that nobody has had and a new epoch cost no number. A gap stands in each log, as a mark that is never
//! written: whoever comes to it has missed something, of which the policy says what becomes (`reading`, `joining`).
use super::log::Log;
use super::mark::{FrameKind, FrameMark};
use super::{Channel, Inner};
use crate::bytes::{Reader, put_u32, put_u64};
use crate::error::EngineError;
use crate::position::Position;

/// JavaScript reads whole numbers below this.
const NUMBER_END: u64 = 1 << 53;
/// No log counts so far.
const LOG_END: u64 = 1 << 62;
/// Epochs below are those of machines that go on by themselves (`node::backbone`); any other is later.
pub(crate) const LOCAL_EPOCH_END: u64 = 1 << 50;
/// So many publications are counted as missing at most: which offsets of a gap anybody has had nobody knows.
const GAP_MAX: u64 = 4_096;
const OUT_OF_RANGE: &str = "epoch and offset must be from 1 to 2^53 - 1";
const BEGAN_WITH: &str = "the channel began with this epoch, and another has followed";
/// Stretches are looked through for what no log needs once there are so many, and twice as many as then were left.
const SWEEP_AT_MIN: usize = 64;

/// Where a publication stands in its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// Behind the newest one.
    Next,
    /// At a position that comes from outside; of a snapshot for newcomers that of the publication before it. An epoch is
    /// one channel's alone, and that of a later life is greater. What stands there or before is a duplicate. The first
    /// from outside may have a smaller one than the channel was made with; that one does not come again.
    At(Position),
    /// The same, behind the publication at another position: whoever has that has missed nothing, whatever numbers are
    /// between. Whoever says so knows which life is the later one: epochs may become less, and one that the channel has had
    /// goes on where it was.
    After {
        /// That of the publication before it; offset 0 of its epoch, if there is none.
        previous: Position,
        /// Its own.
        position: Position,
    },
}

/// From a number of the logs on, publications stand one behind the other from a position on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    number: u64,
    position: Position,
}

/// Which positions the numbers of a channel's logs are, since its life began.
#[derive(Clone, Debug)]
pub(super) struct Stretches {
    /// The number, in the logs, before that of its first publication.
    before: u64,
    /// One at least, in the order of their numbers.
    all: Vec<Stretch>,
    sweep_at: usize,
}

/// The same, also of a channel whose positions nobody outside gives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life<'a> {
    before: u64,
    /// The only one.
    own: Stretch,
    others: Option<&'a [Stretch]>,
}

impl Stretches {
    /// Of a life whose positions count from this number of the logs.
    fn new(epoch: u64, before: u64) -> Self {
        let first = Stretch { number: before, position: Position { epoch, offset: 0 } };
        Self { before, all: vec![first], sweep_at: SWEEP_AT_MIN }
    }

    pub(super) fn life(&self) -> Life<'_> {
        Life { before: self.before, own: self.all[0], others: Some(&self.all) }
    }

    /// Forgets those that only have numbers before this one. That of the newest epoch from outside stays: it may go on.
    fn sweep(&mut self, oldest: u64) {
        let is_outside = |stretch: &Stretch| stretch.position.epoch >= LOCAL_EPOCH_END;
        let stays = self.all.iter().rposition(is_outside).unwrap_or(self.all.len() - 1);
        let passed = self.all.iter().skip(1).take_while(|next| next.number < oldest).count();
        self.all.drain(..passed.min(stays));
        self.sweep_at = SWEEP_AT_MIN.max(2 * self.all.len());
    }

    /// Appends them.
    pub(super) fn write(life: Life<'_>, out: &mut Vec<u8>) {
        put_u64(out, life.before);
        put_u32(out, life.all().len() as u32);
        for Stretch { number, position } in life.all() {
            [*number, position.epoch, position.offset].into_iter().for_each(|number| put_u64(out, number));
        }
    }

    /// Reads what [`write`](Self::write) wrote.
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let before = reader.u64()?;
        let count = reader.count(24)?;
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            let number = reader.u64()?;
            all.push(Stretch { number, position: Position { epoch: reader.u64()?, offset: reader.u64()? } });
        }
        let is_small = |one: &Stretch| one.number < LOG_END && one.position.offset < NUMBER_END;
        let is_sound = all.iter().all(is_small) && all.is_sorted_by(|one: &Stretch, next| one.number < next.number);
        (is_sound && !all.is_empty()).then(|| Self { before, sweep_at: SWEEP_AT_MIN.max(2 * all.len()), all })
    }
}

impl<'a> Life<'a> {
    /// Of a channel that was made with this epoch.
    pub(super) fn of(epoch: u64, stretches: Option<&'a Stretches>) -> Self {
        let own = Stretch { number: 0, position: Position { epoch, offset: 0 } };
        stretches.map_or(Self { before: 0, own, others: None }, Stretches::life)
    }

    fn all(&self) -> &[Stretch] {
        self.others.unwrap_or(std::slice::from_ref(&self.own))
    }

    /// The position of a publication of this life, by its number in the logs.
    pub(super) fn position_of(&self, number: u64) -> Position {
        let at = self.all().partition_point(|stretch| stretch.number <= number).saturating_sub(1);
        let Stretch { number: first, position } = self.all()[at];
        Position { offset: position.offset.saturating_add(number.saturating_sub(first)), ..position }
    }

    /// The position before that of a publication, of the same epoch; offset 0 where there is none. Whoever has it has missed
    /// nothing.
    pub(super) fn previous_of(&self, number: u64) -> Position {
        let own = self.position_of(number);
        let before = self.position_of(number.saturating_sub(1));
        if before.epoch == own.epoch {
            return before;
        }
        let at = self.all().partition_point(|stretch| stretch.number <= number).saturating_sub(1);
        let earlier = self.all()[..at].iter().rposition(|stretch| stretch.position.epoch == own.epoch);
        let end = earlier.map(|earlier| self.position_of(self.all()[earlier + 1].number - 1));
        end.unwrap_or(Position { offset: 0, ..own })
    }

    /// The number, in the logs, of a position of this life; `None` also of an offset that nobody has had.
    pub(super) fn number_of(&self, position: Position) -> Option<u64> {
        let is_from = |one: &Stretch| one.position.epoch == position.epoch && one.position.offset <= position.offset;
        let at = self.all().iter().rposition(is_from)?;
        let number = self.all()[at].number.checked_add(position.offset - self.all()[at].position.offset)?;
        self.all().get(at + 1).is_none_or(|next| number < next.number).then_some(number)
    }

    /// The newest position of an epoch, if it has any, where this number is the last.
    pub(super) fn newest_of(&self, epoch: u64, last: u64) -> Option<Position> {
        let at = self.all().iter().rposition(|one| one.position.epoch == epoch)?;
        let end = self.all().get(at + 1).map_or(last, |next| next.number - 1);
        let Stretch { number, position } = self.all()[at];
        Some(Position { offset: position.offset.saturating_add(end.saturating_sub(number)), ..position })
    }

    /// Whether a number is of this life, or the one before its first.
    pub(super) fn has(&self, number: u64) -> bool {
        number >= self.before
    }
}

impl Channel {
    /// The life that it is in.
    pub(super) fn life<'a>(&self, inner: &'a Inner) -> Life<'a> {
        Life::of(self.epoch, inner.life.as_deref())
    }

    /// Its newest publication of this epoch, if it has any.
    pub(crate) fn newest_of(&self, epoch: u64) -> Option<Position> {
        let inner = self.lock();
        self.life(&inner).newest_of(epoch, inner.offset)
    }

    /// Whether it is at another place than a publication's predecessor, of an epoch that it knows.
    pub(crate) fn is_elsewhere(&self, previous: Position) -> bool {
        let inner = self.lock();
        let life = self.life(&inner);
        life.newest_of(previous.epoch, inner.offset).is_some() && life.position_of(inner.offset) != previous
    }

    /// Nothing was published here, nor, as is said there, outside: then whoever is here has it all. False if that was known, or
    /// something is here.
    pub(crate) fn know_empty(&self) -> bool {
        let mut inner = self.lock();
        inner.offset == 0 && !std::mem::replace(&mut inner.is_known_empty, true)
    }

    /// Whether that is known.
    #[cfg(test)]
    pub(crate) fn is_known_empty(&self) -> bool {
        let inner = self.lock();
        inner.is_known_empty && inner.offset == 0
    }

    /// Nobody hears any more what is published outside.
    pub(crate) fn forget_empty(&self) {
        self.lock().is_known_empty = false;
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
        let (previous, position) = match stand {
            Stand::Next => {
                inner.offset += own;
                return Ok(true);
            }
            Stand::At(position) => (Position { offset: position.offset.saturating_sub(own), ..position }, position),
            Stand::After { previous, position } => (previous, position),
        };
        let invalid = |why| EngineError::InvalidPosition { position, why };
        if !(1..NUMBER_END).contains(&position.epoch) || !(own..NUMBER_END).contains(&position.offset) {
            return Err(invalid(OUT_OF_RANGE));
        }
        let life = self.life(inner);
        let head = life.position_of(inner.offset);
        let newest = life.newest_of(position.epoch, inner.offset);
        let follows = previous == head || inner.is_begun_by(previous, position);
        let is_there = match newest {
            Some(newest) => position.offset < newest.offset.saturating_add(own),
            None => matches!(stand, Stand::At(_)) && inner.life.is_some() && position.epoch < head.epoch,
        };
        if is_there {
            return Ok(false);
        }
        if newest.is_none() && position.epoch == self.epoch {
            // Clients may have positions of that life, which would be taken for those of this one.
            return Err(invalid(BEGAN_WITH));
        }
        let is_new_life = newest.is_none() && !follows;
        let known = newest.map_or(0, |newest| newest.offset);
        let missing = if follows {
            0
        } else {
            missing_before(previous, Position { offset: position.offset - own, ..position }, known)
        };
        let before = inner.offset.saturating_add(missing.min(GAP_MAX));
        if before >= LOG_END {
            return Err(invalid(OUT_OF_RANGE));
        }
        // Of a life that is known from outside it is known, too, that nothing was published in it.
        let may_begin_anywhere = (is_new_life || inner.life.is_none()) && !inner.is_known_empty;
        if is_new_life {
            inner.life = Some(Box::new(Stretches::new(position.epoch, inner.offset)));
        }
        let previous = Position { offset: known + missing, ..position };
        if missing > 0 && self.life(inner).position_of(before) != previous {
            self.note_stretch(inner, before, previous);
        }
        if may_begin_anywhere && inner.is_untouched() {
            inner.every_log().for_each(|log| log.begin_behind(before));
        } else if is_new_life && inner.offset == 0 && before == 0 {
            // What stands here is for newcomers alone, and that life begins: nothing is missing between.
        } else if is_new_life || missing > 0 {
            let mark = FrameMark { published_ns: now_ns, offset: before, ..FrameMark::default() };
            self.note_gap(inner, mark, is_new_life);
        }
        inner.is_known_empty &= own == 0 || position.epoch < LOCAL_EPOCH_END;
        inner.offset = before + own;
        if own > 0 && self.life(inner).position_of(inner.offset) != position {
            self.note_stretch(inner, inner.offset, position);
        }
        Ok(true)
    }

    /// Whether that publication is the first from outside, and whoever is here has missed none: it was known that nothing had
    /// been published outside, and all that is here is this machine's alone.
    pub(crate) fn is_begun_by(&self, previous: Position, position: Position) -> bool {
        self.lock().is_begun_by(previous, position)
    }

    /// From this number on publications stand elsewhere.
    fn note_stretch(&self, inner: &mut Inner, number: u64, position: Position) {
        let life = inner.life.get_or_insert_with(|| Box::new(Stretches::new(self.epoch, 0)));
        life.all.push(Stretch { number, position });
        if life.all.len() < life.sweep_at {
            return;
        }
        let oldest = inner.every_log().map(|log| log.oldest_offset().min(log.head.offset)).min().unwrap_or(number);
        if let Some(life) = &mut inner.life {
            life.sweep(oldest);
        }
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

/// How many offsets are missing up to a place, of an epoch that is known up to an offset.
fn missing_before(previous: Position, place: Position, known: u64) -> u64 {
    // Of another epoch the one before it says nothing, nor does a later one.
    let end = if previous.epoch == place.epoch { previous.offset.min(place.offset) } else { place.offset };
    end.saturating_sub(known)
}

impl Inner {
    fn is_begun_by(&self, previous: Position, position: Position) -> bool {
        let is_first = previous == Position { offset: 0, ..position } && position.epoch >= LOCAL_EPOCH_END;
        self.is_known_empty && self.offset > 0 && is_first
    }

    fn every_log(&mut self) -> impl Iterator<Item = &mut Log> {
        let hearing = self.hearing.as_mut().map(|hearing| hearing.log_mut());
        self.logs.iter_mut().map(|(_, log)| log).chain(self.stored.as_deref_mut()).chain(hearing)
    }

    /// Nothing was ever published here: where it is not known whether something was elsewhere, whoever is here begins with
    /// what comes first, wherever that stands.
    fn is_untouched(&mut self) -> bool {
        self.offset == 0 && self.every_log().all(|log| log.tail() == 0)
    }
}
