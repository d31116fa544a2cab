//! A match's publications at one client: each once, in their order. No sockets.
//!
//! A publication is an object with `match`, `s` and `t`. `s` counts up by one within the match, and `t` is the
//! nanoseconds of the wall clock at which it was published. A snapshot is one with the newest `s`, to begin with.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// What stands between a target and the object where a hub writes it as all known ones do.
const USUAL: &[u8] = b"\"arguments\":[{\"match\":\"";

/// So many publications may come before a snapshot that is older: they were on their way when it was made.
const UNDER_WAY_MAX: u64 = 8;

/// The members that are looked at.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Odds<'a> {
    #[serde(borrow)]
    r#match: &'a str,
    s: u64,
    t: u64,
}

#[derive(Deserialize)]
struct Invocation<'a> {
    #[serde(borrow)]
    arguments: (Odds<'a>,),
}

/// Reads an invocation in JSON whose first bytes are mostly `usual`; `None` if it has no such object.
#[inline]
fn read<'a>(body: &'a [u8], usual: &[u8]) -> Option<Odds<'a>> {
    read_usual(body, usual).or_else(|| serde_json::from_slice(body).ok().map(|Invocation { arguments: (odds,) }| odds))
}

#[inline]
fn read_usual<'a>(body: &'a [u8], usual: &[u8]) -> Option<Odds<'a>> {
    let rest = body.strip_prefix(usual)?.strip_prefix(USUAL)?;
    let (name, rest) = rest.split_at(memchr::memchr(b'"', rest)?);
    let (s, rest) = take_number(rest.strip_prefix(b"\",\"s\":")?)?;
    let (t, rest) = take_number(rest.strip_prefix(b",\"t\":")?)?;
    matches!(rest.first()?, b',' | b'}').then_some(())?;
    Some(Odds { r#match: str::from_utf8(name).ok()?, s, t })
}

#[inline]
fn take_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let length = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = bytes.split_at(length);
    let number =
        digits.iter().try_fold(0_u64, |number, digit| number.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
    (length > 0).then_some((number?, rest))
}

/// What was wrong with what a client received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Faults {
    /// Places where `s` jumped forward.
    pub(super) gaps: u64,
    /// Publications that had come before, or should have.
    pub(super) repeats: u64,
    /// Snapshots that jumped forward: what came between is missing, and the client was told.
    pub(super) told: u64,
    /// Snapshots with which the match began anew.
    pub(super) restarts: u64,
    /// Publications of another match.
    pub(super) misrouted: u64,
    /// Invocations without the object.
    pub(super) malformed: u64,
    /// No fault, so it is not among them: publications while clients were away that came back.
    #[serde(skip)]
    pub(super) missed: u64,
}

impl AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.gaps += other.gaps;
        self.repeats += other.repeats;
        self.told += other.told;
        self.restarts += other.restarts;
        self.misrouted += other.misrouted;
        self.malformed += other.malformed;
        self.missed += other.missed;
    }
}

/// Where one client is in the match that it watches.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sequence {
    name: String,
    /// The `s` that comes next; 0 before the first.
    next: u64,
    /// The last was a snapshot: its publication may still come.
    may_repeat: bool,
    /// That publication has not come before it, either: where it does not come at all, the snapshot was in its place.
    may_stand_for: bool,
    /// The client was away: what comes next may jump.
    is_back: bool,
}

impl Sequence {
    /// Of the match `name`, of which nothing has come.
    pub(super) fn new(name: String) -> Self {
        Self { name, next: 0, may_repeat: false, may_stand_for: false, is_back: false }
    }

    /// The client is away, and will be told where the match is when it is back.
    pub(super) fn leave(&mut self) {
        self.is_back = self.next != 0;
    }

    /// With the first `s` of a client that is back its match begins anew, there or further back; what it has missed
    /// before `following` is counted. Gives whether this was the first.
    fn come_back(&mut self, s: u64, following: u64, faults: &mut Faults) -> bool {
        let is_first = std::mem::take(&mut self.is_back);
        if is_first {
            faults.missed += following.saturating_sub(self.next);
            self.next = s;
        }
        is_first
    }

    /// The newest `s` that has come; 0 before the first.
    pub(super) fn newest(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    /// Takes a snapshot, in JSON.
    pub(super) fn begin(&mut self, body: &[u8], faults: &mut Faults) {
        let Some(Odds { s, .. }) = self.own(body, &[], faults) else { return };
        let is_known = !self.come_back(s, s + 1, faults) && self.next != 0;
        if is_known && s < self.next && s + UNDER_WAY_MAX >= self.next {
            return;
        }
        if is_known && s != self.next {
            *if s > self.next { &mut faults.told } else { &mut faults.restarts } += 1;
        }
        (self.may_repeat, self.may_stand_for) = (true, is_known && s == self.next);
        self.next = s + 1;
    }

    /// Takes a publication, in JSON, which mostly begins with `usual`; gives its `t`.
    #[inline]
    pub(super) fn take(&mut self, body: &[u8], usual: &[u8], faults: &mut Faults) -> Option<u64> {
        let Odds { s, t, .. } = self.own(body, usual, faults)?;
        self.come_back(s, s, faults);
        let may_repeat = std::mem::take(&mut self.may_repeat);
        if std::mem::take(&mut self.may_stand_for) && s >= self.next {
            faults.told += 1;
        }
        if s == self.next || self.next == 0 {
            self.next = s + 1;
        } else if s > self.next {
            faults.gaps += 1;
            self.next = s + 1;
        } else if s + 1 != self.next || !may_repeat {
            faults.repeats += 1;
        }
        Some(t)
    }

    #[inline]
    fn own<'a>(&self, body: &'a [u8], usual: &[u8], faults: &mut Faults) -> Option<Odds<'a>> {
        let odds = read(body, usual).filter(|odds| odds.s < u64::MAX);
        match &odds {
            None => faults.malformed += 1,
            Some(odds) if odds.r#match != self.name => faults.misrouted += 1,
            Some(_) => return odds,
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TARGET: &[u8] = b"{\"type\":1,\"target\":\"Odds\",";

    fn body(name: &str, s: u64) -> Vec<u8> {
        format!(
            "{{\"type\":1,\"target\":\"Odds\",\"arguments\":[{{\"match\":\"{name}\",\"s\":{s},\"t\":7,\"pad\":null}}]}}"
        )
        .into_bytes()
    }

    /// What is wrong with snapshots (below zero, from -1 for 0) and publications in this order.
    fn faults(steps: &[i64]) -> Faults {
        let (mut sequence, mut faults) = (Sequence::new("m1".to_owned()), Faults::default());
        for &step in steps {
            if step < 0 {
                sequence.begin(&body("m1", (-1 - step) as u64), &mut faults);
            } else {
                assert_eq!(sequence.take(&body("m1", step as u64), TARGET, &mut faults), Some(7));
            }
        }
        faults
    }

    #[test]
    fn each_once_and_in_order_is_right_wherever_it_begins() {
        assert_eq!(faults(&[41, 42, 43]), Faults::default());
        assert_eq!(faults(&[-1, 1, 2]), Faults::default());
        // A snapshot whose own publication was under way, and publications that were when it was made.
        assert_eq!(faults(&[-6, 5, 6]), Faults::default());
        assert_eq!(faults(&[5, 6, -6, 7]), Faults::default());
        assert_eq!(faults(&[5, 6, -7, 7]), Faults::default());
        assert_eq!(faults(&[5, -7, 6, 7]), Faults::default());
    }

    #[test]
    fn what_is_missing_or_comes_twice_is_seen() {
        assert_eq!(faults(&[1, 3, 4]), Faults { gaps: 1, ..Faults::default() });
        assert_eq!(faults(&[-6, 7]), Faults { gaps: 1, ..Faults::default() });
        assert_eq!(faults(&[1, 2, 2, 3]), Faults { repeats: 1, ..Faults::default() });
        assert_eq!(faults(&[-6, 5, 5, 6]), Faults { repeats: 1, ..Faults::default() });
        assert_eq!(faults(&[-6, 4, 6]), Faults { repeats: 1, ..Faults::default() });
        assert_eq!(faults(&[1, 2, -10, 10]), Faults { told: 1, ..Faults::default() });
        assert_eq!(faults(&[1, 2, -4, 4]), Faults { told: 1, ..Faults::default() }, "a snapshot in place of one");
        assert_eq!(faults(&[1, 2, -4, 5]), Faults { told: 1, gaps: 1, ..Faults::default() });
    }

    #[test]
    fn client_that_was_away_counts_what_it_missed_once() {
        let (mut sequence, mut faults) = (Sequence::new("m1".to_owned()), Faults::default());
        sequence.take(&body("m1", 5), TARGET, &mut faults);
        sequence.leave();
        sequence.begin(&body("m1", 9), &mut faults);
        assert_eq!(sequence.newest(), 9);
        sequence.take(&body("m1", 9), TARGET, &mut faults);
        sequence.take(&body("m1", 10), TARGET, &mut faults);
        assert_eq!(faults, Faults { missed: 4, ..Faults::default() });
        sequence.leave();
        sequence.begin(&body("m1", 10), &mut faults);
        sequence.take(&body("m1", 12), TARGET, &mut faults);
        assert_eq!(faults, Faults { missed: 4, gaps: 1, ..Faults::default() });
        sequence.leave();
        sequence.begin(&body("m1", 8), &mut faults);
        (9..14).for_each(|s| assert_eq!(sequence.take(&body("m1", s), TARGET, &mut faults), Some(7)));
        assert_eq!((faults, sequence.newest()), (Faults { missed: 4, gaps: 1, ..Faults::default() }, 13));
    }

    #[test]
    fn hub_that_came_back_begins_anew_with_a_snapshot() {
        let steps: Vec<i64> = (1..50).chain([-1, 1, 2]).collect();
        assert_eq!(faults(&steps), Faults { restarts: 1, ..Faults::default() });
    }

    #[test]
    fn other_matches_and_other_objects_are_faults() {
        let (mut sequence, mut faults) = (Sequence::new("m1".to_owned()), Faults::default());
        assert_eq!(sequence.take(&body("m11", 1), TARGET, &mut faults), None);
        assert_eq!(sequence.take(b"{\"type\":1,\"target\":\"Odds\",\"arguments\":[1]}", TARGET, &mut faults), None);
        assert_eq!((faults.misrouted, faults.malformed, sequence.newest()), (1, 1, 0));
    }

    #[test]
    fn members_in_another_order_are_read() {
        let text = br#"{"arguments":[{"t":9,"s":3,"match":"m1"}],"target":"Odds","type":1}"#;
        assert_eq!(read_usual(text, TARGET), None);
        assert_eq!(read(text, TARGET), Some(Odds { r#match: "m1", s: 3, t: 9 }));
    }

    proptest! {
        #[test]
        fn usual_form_is_read_as_any_other(s: u64, t: u64, name in "[a-z0-9]{1,12}") {
            let text = format!(
                "{{\"type\":1,\"target\":\"Odds\",\"arguments\":[{{\"match\":\"{name}\",\"s\":{s},\"t\":{t}}}]}}"
            );
            let quick = read_usual(text.as_bytes(), TARGET);
            prop_assert!(quick.is_some());
            prop_assert_eq!(quick, read(text.as_bytes(), b"no"));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            read(&[TARGET, USUAL, &bytes].concat(), TARGET);
            read(&bytes, b"");
        }
    }
}
