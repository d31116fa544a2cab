//! Chunked bodies: no input panics; however the bytes are cut, content, end and verdict are the same, and the body never
//! takes more than there is.
#![no_main]
use fanwire_core::http::{Body, RequestError};
use libfuzzer_sys::fuzz_target;

/// The content and how much of `bytes` the body took, in pieces of `cut` bytes of which at most `bite` are taken at once.
fn read(bytes: &[u8], cut: usize, bite: usize) -> Result<(Vec<u8>, usize), RequestError> {
    let (mut body, mut content, mut at) = (Body::CHUNKED, Vec::new(), 0);
    while !body.is_done() && at < bytes.len() {
        let end = (at + cut).min(bytes.len());
        let piece = body.next(&bytes[at..end])?;
        assert!(piece.framing + piece.content <= end - at);
        at += piece.framing;
        let taken = piece.content.min(bite);
        content.extend_from_slice(&bytes[at..at + taken]);
        body.take(taken);
        at += taken;
    }
    Ok((content, at))
}

fuzz_target!(|bytes: &[u8]| {
    let whole = read(bytes, usize::MAX / 2, usize::MAX);
    assert_eq!(read(bytes, 1, 1), whole);
    assert_eq!(read(bytes, 7, 3), whole);
});
