//! What a stream keeps of a channel behind a position, as it comes in parts. No socket.
use fanwire_core::Position;
use fanwire_core::node::{Keep, Record};
use serde_json::json;

use super::streams::{Entry, Life};
use crate::inbox::Question;

/// How many messages an answer has.
const BATCH_MAX: usize = 1_024;
const BATCH_BYTES_MAX: usize = 4 << 20;
/// A server that follows another may know less than we do: it is asked so often.
const BEHIND_MAX: u32 = 8;

/// One question, until it is answered.
#[derive(Debug)]
pub(crate) struct Asking {
    pub(crate) question: Question,
    keep: Keep,
    epoch: u64,
    is_replicated: bool,
    /// Older publications are over.
    since_ms: u64,
    behind: u32,
    /// What has come; and what had when it was asked for the last time.
    now: Progress,
    before: Progress,
}

/// What has come of an answer.
#[derive(Clone, Debug)]
struct Progress {
    /// The sequence that the answer begins with; 0 for all there is.
    from: u64,
    is_first: bool,
    /// So many from the beginning are more than the channel keeps.
    beyond: u64,
    /// The sequence of the publication before the next one.
    previous: u64,
    /// The newest that has come.
    last: u64,
    is_whole: bool,
    records: Vec<Record>,
    foreign: Option<&'static str>,
    /// The newest is foreign: its sequence, and that of the publication before it.
    bridge: Option<(u64, u64)>,
}

/// What is kept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) records: Vec<Record>,
    pub(crate) top: Position,
    pub(crate) is_whole: bool,
    pub(crate) foreign: Option<&'static str>,
    pub(crate) bridge: Option<(u64, u64)>,
}

impl Asking {
    pub(crate) fn new(question: Question, keep: Keep, life: &Life, now_ms: u64) -> Self {
        // Of another life there is everything to tell.
        let from = if question.after.epoch == life.epoch { question.after.offset } else { 0 };
        let since_ms = if keep.age_ms == 0 { 0 } else { now_ms.saturating_sub(keep.age_ms) };
        let now = Progress {
            from,
            is_first: true,
            beyond: 0,
            previous: 0,
            last: 0,
            is_whole: question.after.epoch == life.epoch,
            records: Vec::new(),
            foreign: None,
            bridge: None,
        };
        let is_replicated = life.replicas > 1;
        Self { question, keep, epoch: life.epoch, is_replicated, since_ms, behind: 0, before: now.clone(), now }
    }

    /// The request. It begins with the position that was asked for: where that is still there, nothing behind it is lost.
    pub(crate) fn request(&mut self, subject: &str) -> String {
        self.before = self.now.clone(); // there are no records: with some of them it is at its end
        let batch = self.question.limit.clamp(1, BATCH_MAX) + 1;
        json!({"seq": self.now.from.max(1), "next_by_subj": subject, "batch": batch, "max_bytes": BATCH_BYTES_MAX})
            .to_string()
    }

    /// It is asked for anew: what has come of the answer is forgotten.
    pub(crate) fn begin_again(&mut self) {
        self.now = self.before.clone();
    }

    /// A message of the answer.
    pub(crate) fn take(&mut self, entry: &Entry<'_>) {
        let (offset, now) = (entry.position.offset, &mut self.now);
        if entry.position.epoch != self.epoch || offset <= now.last {
            return;
        }
        now.last = offset;
        if std::mem::take(&mut now.is_first) {
            if now.from == 0 {
                now.beyond = (entry.pending + 1).saturating_sub(self.keep.messages);
            } else if offset == now.from {
                now.previous = offset;
                return;
            } else {
                now.is_whole &= offset == now.from + 1;
                now.previous = offset - 1;
            }
        }
        if now.beyond > 0 || entry.published_ms < self.since_ms {
            now.beyond = now.beyond.saturating_sub(1);
            (now.previous, now.is_whole) = (offset, false);
            return;
        }
        match entry.bytes {
            Ok(bytes) => {
                let previous = Position { epoch: self.epoch, offset: now.previous };
                let record = Record {
                    previous,
                    position: entry.position,
                    published_ms: entry.published_ms,
                    bytes: bytes.to_vec(),
                };
                now.records.push(record);
                (now.previous, now.bridge) = (offset, None);
            }
            Err(reason) => (now.foreign, now.bridge) = (Some(reason), Some((offset, now.previous))),
        }
    }

    /// The answer is at its end, and so many more could follow. `None` where it is to be asked again.
    pub(crate) fn end(&mut self, pending: u64, known: Position) -> Option<Kept> {
        let now = &mut self.now;
        let top = Position { epoch: self.epoch, offset: now.last };
        let is_behind = self.is_replicated && known.epoch == self.epoch && now.last.max(now.from) < known.offset;
        if now.records.is_empty() {
            let goes_on = pending > 0 && now.last > now.from;
            if goes_on || is_behind && self.behind < BEHIND_MAX {
                self.behind += u32::from(!goes_on);
                if now.last > 0 {
                    now.from = now.last;
                    now.last -= 1; // it comes again, as the first
                }
                now.is_first = true;
                return None;
            }
        }
        Some(Kept {
            records: std::mem::take(&mut now.records),
            top: if known.epoch == self.epoch { top.max(known) } else { top },
            is_whole: now.is_whole,
            foreign: now.foreign,
            bridge: now.bridge,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: u64 = 9;

    fn at(offset: u64) -> Position {
        Position { epoch: EPOCH, offset }
    }

    fn asking(after: Position, messages: u64, replicas: u64) -> Asking {
        let question = Question { channel: "c".into(), after, limit: 1_000 };
        let keep = Keep { messages, age_ms: 100 };
        let life = Life { name: String::new(), epoch: EPOCH, last: 0, replicas, leader: String::new() };
        Asking::new(question, keep, &life, 1_000)
    }

    fn given(asking: &mut Asking, offsets: &[u64]) {
        for (index, &offset) in offsets.iter().enumerate() {
            let pending = (offsets.len() - index - 1) as u64;
            asking.take(&Entry { position: at(offset), previous: 0, pending, published_ms: 950, bytes: Ok(b"x") });
        }
    }

    fn told(kept: &Kept) -> (Vec<(u64, u64)>, u64, bool) {
        let of = |record: &Record| (record.previous.offset, record.position.offset);
        (kept.records.iter().map(of).collect(), kept.top.offset, kept.is_whole)
    }

    #[test]
    fn behind_a_position_that_is_still_there_nothing_is_missing() {
        let mut one = asking(at(3), 10, 1);
        given(&mut one, &[3, 7, 9]);
        assert_eq!(told(&one.end(0, at(9)).unwrap()), (vec![(3, 7), (7, 9)], 9, true));
        let mut one = asking(at(3), 10, 1);
        given(&mut one, &[7, 9]);
        assert_eq!(told(&one.end(0, at(9)).unwrap()), (vec![(6, 7), (7, 9)], 9, false));
        let mut one = asking(at(3), 10, 1);
        given(&mut one, &[4]);
        assert_eq!(told(&one.end(0, at(4)).unwrap()), (vec![(3, 4)], 4, true));
    }

    #[test]
    fn of_all_there_is_only_what_the_channel_keeps_is_told() {
        let mut one = asking(Position { epoch: 1, offset: 7 }, 2, 1);
        given(&mut one, &[4, 6, 8]);
        assert_eq!(told(&one.end(0, at(8)).unwrap()), (vec![(4, 6), (6, 8)], 8, false));
        let mut one = asking(at(0), 2, 1);
        given(&mut one, &[4, 6]);
        assert_eq!(told(&one.end(0, at(6)).unwrap()), (vec![(0, 4), (4, 6)], 6, true));
    }

    #[test]
    fn what_is_old_or_foreign_is_stepped_over() {
        let mut one = asking(at(1), 10, 1);
        let entry =
            |offset, published_ms, bytes| Entry { position: at(offset), previous: 0, pending: 0, published_ms, bytes };
        one.take(&entry(1, 0, Ok(b"")));
        one.take(&entry(2, 800, Ok(b"")));
        one.take(&entry(3, 950, Ok(b"")));
        one.take(&entry(5, 950, Err("foreign")));
        one.take(&entry(6, 950, Ok(b"")));
        one.take(&entry(7, 950, Err("foreign")));
        let kept = one.end(0, at(7)).unwrap();
        assert_eq!(told(&kept), (vec![(2, 3), (3, 6)], 7, false));
        assert_eq!((kept.foreign, kept.bridge), (Some("foreign"), Some((7, 6))));
    }

    #[test]
    fn a_server_that_knows_less_is_asked_again_and_not_for_ever() {
        let mut one = asking(at(3), 10, 3);
        given(&mut one, &[3]);
        assert!(one.end(0, at(5)).is_none());
        given(&mut one, &[3, 5]);
        assert_eq!(told(&one.end(0, at(5)).unwrap()), (vec![(3, 5)], 5, true));
        let mut one = asking(at(3), 10, 3);
        let asked = (0..100).take_while(|_| one.end(0, at(5)).is_none()).count();
        assert_eq!(asked, BEHIND_MAX as usize);
    }

    #[test]
    fn what_has_come_of_an_answer_that_broke_off_is_forgotten() {
        let mut one = asking(at(3), 10, 3);
        let request = one.request("s");
        given(&mut one, &[3, 5]);
        one.begin_again();
        given(&mut one, &[3, 4, 5]);
        assert_eq!(told(&one.end(0, at(5)).unwrap()), (vec![(3, 4), (4, 5)], 5, true));
        assert!(request.contains("\"seq\":3"), "{request}");
    }

    #[test]
    fn a_part_in_which_nothing_is_new_is_followed_by_the_next() {
        let mut one = asking(at(3), 10, 1);
        one.take(&Entry { position: at(3), previous: 0, pending: 2, published_ms: 0, bytes: Ok(b"") });
        one.take(&Entry { position: at(4), previous: 0, pending: 1, published_ms: 0, bytes: Ok(b"") });
        assert!(one.end(1, at(9)).is_none() && one.request("s").contains("\"seq\":4"));
        given(&mut one, &[4, 9]);
        assert_eq!(told(&one.end(0, at(9)).unwrap()), (vec![(4, 9)], 9, false));
    }
}
