//! Invariant: each piece is taken exactly if some text begins with all so far, as std knows it.
//!
//! The first byte says how long the pieces are.
#![no_main]
use fanwire_core::ws::Utf8Stream;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let [piece_bytes, text @ ..] = bytes else { return };
    check(text, 1);
    check(text, usize::from(*piece_bytes).max(1));
});

fn check(text: &[u8], piece_bytes: usize) {
    let mut stream = Utf8Stream::new();
    let mut end = 0;
    for piece in text.chunks(piece_bytes) {
        end += piece.len();
        let std_verdict = std::str::from_utf8(&text[..end]);
        let can_begin = std_verdict.map_or_else(|error| error.error_len().is_none(), |_| true);
        assert_eq!(stream.push(piece).is_ok(), can_begin);
        if !can_begin {
            return;
        }
        assert_eq!(stream.finish().is_ok(), std_verdict.is_ok());
    }
}
