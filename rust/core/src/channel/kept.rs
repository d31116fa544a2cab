//! What a channel of a relay keeps for who joins late: its newest snapshot and everything after it, as records.
//!
//! Kept once for a hub protocol, not once for each transport: a newcomer gets it framed for its own, as one private
//! write, and follows the log from where it ends.

/// How much and how old what a newcomer gets may be; `None` is without bound.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeptBounds {
    /// Records behind the snapshot.
    pub messages_max: Option<usize>,
    /// Of the snapshot: where there is none, it is too old.
    pub age_ns_max: Option<u64>,
}

/// Records since the newest snapshot, or since keeping began.
#[derive(Debug)]
pub(super) struct Kept {
    records: Vec<u8>,
    bytes_max: usize,
    /// When the newest snapshot came, and how many records since.
    snapshot: Option<(u64, usize)>,
    /// More came than may be kept: nobody can begin here until the next snapshot.
    is_lost: bool,
    /// The next snapshot was asked for on behalf of newcomers: it begins anew here and nobody else gets it.
    awaits_snapshot: bool,
}

impl Kept {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { records: Vec::new(), bytes_max, snapshot: None, is_lost: false, awaits_snapshot: false }
    }

    /// Takes note of a record. False when it is for newcomers alone.
    pub(super) fn push(&mut self, record: &[u8], is_snapshot: bool, now_ns: u64) -> bool {
        let is_for_all = !(is_snapshot && std::mem::take(&mut self.awaits_snapshot));
        if is_snapshot {
            self.records.clear();
            self.is_lost = false;
            self.snapshot = Some((now_ns, 0));
        } else if let Some((_, since)) = &mut self.snapshot {
            *since += 1;
        }
        self.is_lost |= self.records.len() + record.len() > self.bytes_max;
        if self.is_lost {
            self.records = Vec::new();
        } else {
            self.records.extend_from_slice(record);
        }
        is_for_all
    }

    /// Everything that a newcomer has to have; `None` when that is lost, or over these bounds.
    pub(super) fn records(&self, bounds: KeptBounds, now_ns: u64) -> Option<&[u8]> {
        let age_ns = self.snapshot.map_or(u64::MAX, |(at_ns, _)| now_ns.saturating_sub(at_ns));
        let messages = self.snapshot.map_or(0, |(_, since)| since);
        let is_within = bounds.age_ns_max.is_none_or(|most| age_ns <= most)
            && bounds.messages_max.is_none_or(|most| messages <= most);
        (is_within && !self.is_lost).then_some(&self.records)
    }

    pub(super) fn await_snapshot(&mut self, awaits: bool) {
        self.awaits_snapshot = awaits;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(kept: &Kept) -> Option<&[u8]> {
        kept.records(KeptBounds::default(), u64::MAX)
    }

    #[test]
    fn a_snapshot_begins_anew() {
        let mut kept = Kept::new(100);
        for (record, is_snapshot) in [("a", false), ("S", true), ("b", false)] {
            assert!(kept.push(record.as_bytes(), is_snapshot, 0));
        }
        assert_eq!(all(&kept), Some(&b"Sb"[..]));
    }

    #[test]
    fn over_the_bound_it_is_lost_until_the_next_snapshot() {
        let mut kept = Kept::new(3);
        assert!(kept.push(b"S123", true, 0), "a snapshot over the bound is for the others all the same");
        assert_eq!(all(&kept), None);
        kept.push(b"S1", true, 0);
        kept.push(b"2", false, 0);
        assert_eq!(all(&kept), Some(&b"S12"[..]));
        kept.push(b"3", false, 0);
        assert_eq!(all(&kept), None);
        kept.push(b"x", false, 0);
        assert_eq!(all(&kept), None, "what follows alone is no beginning");
    }

    #[test]
    fn a_snapshot_that_was_asked_for_is_for_newcomers_alone() {
        let mut kept = Kept::new(100);
        kept.push(b"S", true, 0);
        kept.await_snapshot(true);
        assert!(kept.push(b"b", false, 0));
        assert!(!kept.push(b"T", true, 0));
        assert!(kept.push(b"U", true, 0));
        assert_eq!(all(&kept), Some(&b"U"[..]));
    }

    #[test]
    fn what_is_too_much_or_too_old_for_a_newcomer_is_kept_for_others() {
        let mut kept = Kept::new(100);
        let most = |messages_max, age_ns_max| KeptBounds { messages_max, age_ns_max };
        kept.push(b"a", false, 0);
        assert_eq!(kept.records(most(Some(0), None), 9), Some(&b"a"[..]), "there is no snapshot to count from");
        assert_eq!(kept.records(most(None, Some(9)), 9), None);
        kept.push(b"S", true, 10);
        kept.push(b"b", false, 12);
        assert_eq!(kept.records(most(Some(1), Some(5)), 15), Some(&b"Sb"[..]));
        assert_eq!(kept.records(most(Some(0), None), 15), None);
        assert_eq!(kept.records(most(None, Some(4)), 15), None);
        assert_eq!(kept.records(most(None, Some(0)), 9), Some(&b"Sb"[..]), "a clock of another thread may be behind");
        assert_eq!(all(&kept), Some(&b"Sb"[..]));
        kept.push(b"T", true, 15);
        assert_eq!(kept.records(most(Some(0), Some(0)), 15), Some(&b"T"[..]));
    }
}
