//! What a channel of a relay keeps for who joins late: its newest snapshot and everything after it, as records.
//!
//! Kept once for a hub protocol, not once for each transport: a newcomer gets it framed for its own, as one private
//! write, and follows the log from where it ends.

/// Records since the newest snapshot, or since keeping began.
#[derive(Debug)]
pub(super) struct Kept {
    records: Vec<u8>,
    bytes_max: usize,
    /// More came than may be kept: nobody can begin here until the next snapshot.
    is_lost: bool,
    /// The next snapshot was asked for on behalf of newcomers: it begins anew here and nobody else gets it.
    awaits_snapshot: bool,
}

impl Kept {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { records: Vec::new(), bytes_max, is_lost: false, awaits_snapshot: false }
    }

    /// Takes note of a record. False when it is for newcomers alone.
    pub(super) fn push(&mut self, record: &[u8], is_snapshot: bool) -> bool {
        let is_for_all = !(is_snapshot && std::mem::take(&mut self.awaits_snapshot));
        if is_snapshot {
            self.records.clear();
            self.is_lost = false;
        }
        self.is_lost |= self.records.len() + record.len() > self.bytes_max;
        if self.is_lost {
            self.records = Vec::new();
        } else {
            self.records.extend_from_slice(record);
        }
        is_for_all
    }

    /// Everything that a newcomer has to have; `None` when that is lost.
    pub(super) fn records(&self) -> Option<&[u8]> {
        (!self.is_lost).then_some(&self.records)
    }

    pub(super) fn await_snapshot(&mut self, awaits: bool) {
        self.awaits_snapshot = awaits;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_begins_anew() {
        let mut kept = Kept::new(100);
        for (record, is_snapshot) in [("a", false), ("S", true), ("b", false)] {
            assert!(kept.push(record.as_bytes(), is_snapshot));
        }
        assert_eq!(kept.records(), Some(&b"Sb"[..]));
    }

    #[test]
    fn over_the_bound_it_is_lost_until_the_next_snapshot() {
        let mut kept = Kept::new(3);
        assert!(kept.push(b"S123", true), "a snapshot over the bound is for the others all the same");
        assert_eq!(kept.records(), None);
        kept.push(b"S1", true);
        kept.push(b"2", false);
        assert_eq!(kept.records(), Some(&b"S12"[..]));
        kept.push(b"3", false);
        assert_eq!(kept.records(), None);
        kept.push(b"x", false);
        assert_eq!(kept.records(), None, "what follows alone is no beginning");
    }

    #[test]
    fn a_snapshot_that_was_asked_for_is_for_newcomers_alone() {
        let mut kept = Kept::new(100);
        kept.push(b"S", true);
        kept.await_snapshot(true);
        assert!(kept.push(b"b", false));
        assert!(!kept.push(b"T", true));
        assert!(kept.push(b"U", true));
        assert_eq!(kept.records(), Some(&b"U"[..]));
    }
}
