//! The text that each publication carries, so that any language can write it and the client can check it:
//! `{seq:010d} {channel:06d} {ns:020d} ` and `x` up to the length wanted.

use std::io::Write;

/// Length of the fields and their three spaces; at least one `x` follows.
const HEAD_BYTES: usize = 39;

/// The shortest payload.
pub(crate) const BYTES_MIN: usize = HEAD_BYTES + 1;

/// The highest sequence number that the client counts.
pub(crate) const SEQUENCE_MAX: u32 = u32::MAX - 1;

/// The highest channel that six digits name.
pub(crate) const CHANNEL_MAX: u32 = 999_999;

/// The padding is compared with this, so long as it reaches: one `memcmp`.
static PADDING: [u8; 1024] = [b'x'; 1024];

/// A payload whose layout is right: fixed length, spaces and padding in place. The digits are not read yet, because
/// most messages of a burst share two of their three fields.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    /// Ten bytes: the number of the publication in its channel.
    pub(crate) sequence: &'a [u8; 10],
    /// Six bytes: the channel.
    pub(crate) channel: &'a [u8; 6],
    /// Twenty bytes: the intended time of the burst.
    pub(crate) ns: &'a [u8; 20],
}

/// Finds the fields of a payload by their offsets; `None` if its layout is not that of a payload.
#[inline]
pub(crate) fn fields(payload: &[u8]) -> Option<Fields<'_>> {
    let (head, padding) = payload.split_first_chunk::<HEAD_BYTES>()?;
    let (sequence, rest) = head.split_first_chunk::<10>()?;
    let (channel, rest) = rest[1..].split_first_chunk::<6>()?;
    let (ns, _) = rest[1..].split_first_chunk::<20>()?;
    let spaced = (head[10] == b' ') & (head[17] == b' ') & (head[38] == b' ');
    (spaced && is_padding(padding)).then_some(Fields { sequence, channel, ns })
}

#[inline]
fn is_padding(bytes: &[u8]) -> bool {
    match PADDING.get(..bytes.len()) {
        Some(expected) => !bytes.is_empty() && bytes == expected,
        None => bytes.chunks(PADDING.len()).all(|part| part == &PADDING[..part.len()]),
    }
}

/// The number that eight ASCII digits write, all eight at once; `None` if one is no digit.
#[inline]
fn eight_digits(digits: &[u8; 8]) -> Option<u64> {
    let bytes = u64::from_le_bytes(*digits);
    let high = 0xf0f0_f0f0_f0f0_f0f0;
    let zeros = 0x3030_3030_3030_3030;
    // 0x30..=0x39: the upper half is 3, and still is after adding 6.
    if (bytes & high) != zeros || (bytes.wrapping_add(0x0606_0606_0606_0606) & high) != zeros {
        return None;
    }
    let pairs = (bytes - zeros).wrapping_mul(10).wrapping_add((bytes - zeros) >> 8);
    let mask = 0x0000_00ff_0000_00ff;
    let upper = (pairs & mask).wrapping_mul(0x000f_4240_0000_0064);
    let lower = ((pairs >> 16) & mask).wrapping_mul(0x0000_2710_0000_0001);
    Some(upper.wrapping_add(lower) >> 32)
}

/// Fewer than eight digits.
#[inline]
fn few_digits<const N: usize>(digits: &[u8]) -> Option<u64> {
    let mut padded = [b'0'; 8];
    padded[8 - N..].copy_from_slice(digits.get(..N)?);
    eight_digits(&padded)
}

impl Fields<'_> {
    /// The sequence number; `None` if it is no number or over [`SEQUENCE_MAX`].
    #[inline]
    pub(crate) fn sequence(&self) -> Option<u32> {
        let (upper, lower) = self.sequence.split_last_chunk::<8>()?;
        let upper = few_digits::<2>(upper)?;
        u32::try_from(upper * 100_000_000 + eight_digits(lower)?).ok().filter(|&n| n <= SEQUENCE_MAX)
    }

    /// The channel; `None` if it is no number.
    #[inline]
    pub(crate) fn channel(&self) -> Option<u32> {
        few_digits::<6>(self.channel).map(|channel| channel as u32)
    }

    /// The time in nanoseconds; `None` if it is no number or needs more than 64 bits.
    #[inline]
    pub(crate) fn ns(&self) -> Option<u64> {
        let (upper, rest) = self.ns.split_first_chunk::<4>()?;
        let (middle, lower) = rest.split_first_chunk::<8>()?;
        let (lower, _) = lower.split_first_chunk::<8>()?;
        let lower = eight_digits(middle)? * 100_000_000 + eight_digits(lower)?;
        few_digits::<4>(upper)?.checked_mul(10_u64.pow(16))?.checked_add(lower)
    }
}

/// Appends one payload of `bytes` in total, at least [`BYTES_MIN`].
pub(crate) fn write(out: &mut Vec<u8>, sequence: u64, channel: u32, ns: u64, bytes: usize) {
    let end = out.len() + bytes;
    write!(out, "{sequence:010} {channel:06} {ns:020} ").expect("a Vec takes all that is written to it");
    out.resize(end, b'x');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn payload_of_the_contract_is_read_as_written() {
        let text = b"0000000042 000017 00000001234567890123 xxxxx";
        let fields = fields(text).unwrap();
        assert_eq!(fields.sequence(), Some(42));
        assert_eq!(fields.channel(), Some(17));
        assert_eq!(fields.ns(), Some(1_234_567_890_123));
    }

    #[test]
    fn payload_with_any_byte_of_it_changed_to_a_letter_is_refused() {
        let mut text = Vec::new();
        write(&mut text, 7, 3, 99, 2_500);
        for at in 0..text.len() {
            let mut broken = text.clone();
            broken[at] = b'q';
            let whole = fields(&broken).and_then(|f| Some((f.sequence()?, f.channel()?, f.ns()?)));
            assert_eq!(whole, None, "byte {at}");
        }
    }

    #[test]
    fn payload_without_padding_is_refused() {
        let mut text = Vec::new();
        write(&mut text, 7, 3, 99, BYTES_MIN);
        assert!(fields(&text).is_some());
        text.pop();
        assert!(fields(&text).is_none());
    }

    #[test]
    fn sequence_over_its_bound_is_refused() {
        for (sequence, read) in [(u64::from(SEQUENCE_MAX), Some(SEQUENCE_MAX)), (u64::from(u32::MAX), None)] {
            let mut text = Vec::new();
            write(&mut text, sequence, 0, 0, 128);
            assert_eq!(fields(&text).unwrap().sequence(), read);
        }
    }

    proptest! {
        #[test]
        fn every_payload_written_is_read_back(
            sequence in 0..=SEQUENCE_MAX, channel in 0..=CHANNEL_MAX, ns: u64, bytes in BYTES_MIN..5_000,
        ) {
            let mut text = Vec::new();
            write(&mut text, u64::from(sequence), channel, ns, bytes);
            prop_assert_eq!(text.len(), bytes);
            let fields = fields(&text).unwrap();
            prop_assert_eq!(fields.sequence(), Some(sequence));
            prop_assert_eq!(fields.channel(), Some(channel));
            prop_assert_eq!(fields.ns(), Some(ns));
        }

        #[test]
        fn any_bytes_are_answered_without_a_panic(bytes: Vec<u8>) {
            if let Some(fields) = fields(&bytes) {
                let _ = (fields.sequence(), fields.channel(), fields.ns());
            }
        }
    }
}
