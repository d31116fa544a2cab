//! Ages, counted.

use hdrhistogram::Histogram;

/// A histogram of ages in nanoseconds, up to an hour, with three digits.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("the bounds are valid for hdrhistogram")
}

/// The greatest age, in microseconds, that is told as it is: an hour.
const AGE_US_MAX: u64 = 3_600_000_000;

/// Two digits: an age is told to the hundredth.
const DIGITS: u8 = 2;

/// A histogram of ages in microseconds, small enough to be told often.
pub(crate) fn ages_us() -> Histogram<u64> {
    Histogram::new_with_bounds(1, AGE_US_MAX, DIGITS).expect("the bounds are valid for hdrhistogram")
}

/// What [`latencies`] holds, as [`ages_us`] would, in pairs.
pub(crate) fn pairs_us(latencies: &Histogram<u64>) -> Vec<(u64, u64)> {
    let mut ages = ages_us();
    for value in latencies.iter_recorded() {
        ages.saturating_record_n(value.value_iterated_to() / 1_000, value.count_at_value());
    }
    pairs(&ages)
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

    #[test]
    fn nanoseconds_are_told_as_microseconds_to_the_hundredth() {
        let mut known = latencies();
        known.record_n(5_000_000, 3).unwrap();
        known.record(999).unwrap();
        let told = pairs_us(&known);
        assert_eq!(told.iter().map(|pair| pair.1).collect::<Vec<_>>(), [1, 3]);
        assert!((4_950..=5_050).contains(&told[1].0), "{told:?}");
    }
}
