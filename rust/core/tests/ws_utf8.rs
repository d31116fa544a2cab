//! UTF-8 in pieces (RFC 3629 §4): equal to the whole, and refused at the first byte that nothing could make right.
use fanwire_core::ws::{InvalidUtf8, Utf8Stream};
use proptest::prelude::*;

/// How many bytes are taken before the first refusal when they come one by one, or `None` if none is refused.
fn refused_at(bytes: &[u8]) -> Option<usize> {
    let mut stream = Utf8Stream::new();
    bytes.iter().position(|byte| stream.push(std::slice::from_ref(byte)).is_err())
}

/// Whether some text begins with `bytes`.
fn can_begin_a_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).map_or_else(|error| error.error_len().is_none(), |_| true)
}

fn validate(bytes: &[u8], cuts: &[usize]) -> Result<(), InvalidUtf8> {
    let mut stream = Utf8Stream::new();
    let mut start = 0;
    for &cut in cuts {
        stream.push(&bytes[start..cut])?;
        start = cut;
    }
    stream.push(&bytes[start..])?;
    stream.finish()
}

#[test]
fn section_4_every_pair_and_each_edge_of_the_grammar_is_refused_no_later_than_needed() {
    let edges = [0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff];
    for first in 0..=255u8 {
        for second in 0..=255u8 {
            for third in edges {
                for fourth in edges {
                    let bytes = [first, second, third, fourth];
                    let expected = (0..4).find(|&end| !can_begin_a_text(&bytes[..=end]));
                    assert_eq!(refused_at(&bytes), expected, "{bytes:x?}");
                }
            }
        }
    }
}

#[test]
fn autobahn_6_4_a_cut_sequence_is_refused_at_its_first_wrong_byte() {
    let mut stream = Utf8Stream::new();
    assert_eq!(stream.push("κόσμε".as_bytes()), Ok(()));
    assert_eq!(stream.push(&[0xf4]), Ok(()));
    assert_eq!(stream.finish(), Err(InvalidUtf8));
    assert_eq!(stream.push(&[0x90]), Err(InvalidUtf8));
}

/// Text, text with one byte changed, or any bytes.
fn near_text() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![any::<String>(), "[a-zäß€𝄞]{0,200}"].prop_map(String::into_bytes);
    let changed = (text.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut bytes, index, byte)| {
        if !bytes.is_empty() {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    });
    prop_oneof![text, changed, prop::collection::vec(any::<u8>(), 0..40)]
}

proptest! {
    #[test]
    fn any_cuts_give_the_verdict_of_the_whole(
        bytes in near_text(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(validate(&bytes, &cuts).is_ok(), std::str::from_utf8(&bytes).is_ok());
    }

    #[test]
    fn the_first_piece_that_no_text_begins_with_is_refused(
        bytes in near_text(),
        piece_bytes in 1usize..20,
    ) {
        let mut stream = Utf8Stream::new();
        let mut end = 0;
        for piece in bytes.chunks(piece_bytes) {
            end += piece.len();
            let is_taken = stream.push(piece).is_ok();
            prop_assert_eq!(is_taken, can_begin_a_text(&bytes[..end]));
            if !is_taken {
                break;
            }
        }
    }
}
