//! Ages, counted.

use hdrhistogram::Histogram;

/// A histogram of ages in nanoseconds, up to an hour, with three digits.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("the bounds are valid for hdrhistogram")
}

/// The recorded values of a histogram and how often each.
pub(crate) fn pairs(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    histogram.iter_recorded().map(|value| (value.value_iterated_to(), value.count_at_value())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histogram_told_as_pairs_is_the_same_again() {
        let (mut told, mut heard) = (latencies(), latencies());
        for age in [5, 70_000, 70_001, 3_000_000_000] {
            told.record_n(age, age % 7 + 1).unwrap();
        }
        for (age, count) in pairs(&told) {
            heard.record_n(age, count).unwrap();
        }
        assert_eq!(told, heard);
    }
}
