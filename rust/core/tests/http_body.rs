//! Bodies of requests: RFC 9112 §6 and §7.1, whole and however they are cut.
use fanwire_core::http::{Body, RequestError};
use proptest::prelude::*;

/// The content and how many bytes the body took of `bytes`, which come in pieces of these lengths, the last of which
/// repeats; content is taken at most `bite` bytes at a time.
fn read(mut body: Body, bytes: &[u8], cuts: &[usize], bite: usize) -> Result<(Vec<u8>, usize), RequestError> {
    let (mut content, mut at, mut cuts) = (Vec::new(), 0, cuts.iter().copied().chain(std::iter::repeat(bytes.len())));
    let mut end = 0;
    while !body.is_done() && at < bytes.len() {
        if at == end {
            end = (at + cuts.next().expect("endless").max(1)).min(bytes.len());
        }
        let piece = body.next(&bytes[at..end])?;
        at += piece.framing;
        let taken = piece.content.min(bite);
        content.extend_from_slice(&bytes[at..at + taken]);
        body.take(taken);
        at += taken;
    }
    assert!(body.is_done() || at == bytes.len());
    Ok((content, at))
}

fn chunked(chunks: &[Vec<u8>], extension: &str, trailer: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
        bytes.extend_from_slice(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(format!("0{extension}\r\n{trailer}\r\n").as_bytes());
    bytes
}

proptest! {
    #[test]
    fn any_cut_of_chunks_gives_the_same_content_and_leaves_what_follows(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
        extension in prop::sample::select(vec!["", ";a=b", " ; name=\"v\"", "  "]),
        trailer in prop::sample::select(vec!["", "X-A: 1\r\n", "GET / HTTP/1.1\r\nHost: x\r\n"]),
        cuts in prop::collection::vec(1usize..12, 0..40),
        bite in 1usize..50,
    ) {
        let mut bytes = chunked(&chunks, extension, trailer);
        let length = bytes.len();
        bytes.extend_from_slice(b"GET /next HTTP/1.1\r\n\r\n");
        let (content, taken) = read(Body::CHUNKED, &bytes, &cuts, bite).unwrap();
        prop_assert_eq!(content, chunks.concat());
        prop_assert_eq!(taken, length);
    }

    #[test]
    fn nothing_panics_and_any_cut_gives_the_same_verdict(bytes in prop::collection::vec(
        prop::sample::select(b"0123456789aF;\r\n x\x00\xff".to_vec()), 0..60), cuts in prop::collection::vec(1usize..5, 0..60)) {
        prop_assert_eq!(read(Body::CHUNKED, &bytes, &cuts, 3), read(Body::CHUNKED, &bytes, &[], usize::MAX));
    }

    #[test]
    fn a_length_takes_so_many_bytes(length in 0u64..50, cuts in prop::collection::vec(1usize..7, 0..20)) {
        let bytes = vec![b'x'; 60];
        let (content, taken) = read(Body::Length(length), &bytes, &cuts, 4).unwrap();
        prop_assert_eq!((content.len(), taken), (length as usize, length as usize));
    }
}

#[test]
fn what_is_no_chunk_is_400_at_its_wrong_byte() {
    for wrong in [
        &b"x\r\n"[..],
        b"\r\n",
        b"-1\r\n",
        b"0x5\r\n",
        b"5\n",
        b"5\rX",
        b"5 5\r\n",
        b"5\t5;a\r\n",
        b"5\r\nabcdeX",
        b"5\r\nabcde\n",
        b"11111111111111111\r\n",
        b"5;a\x00\r\n",
        b"0\r\nX: \x01\r\n\r\n",
    ] {
        let refused = read(Body::CHUNKED, wrong, &[], usize::MAX).unwrap_err();
        assert_eq!(refused.status(), 400, "{}", wrong.escape_ascii());
    }
}

#[test]
fn lines_and_trailers_are_bounded() {
    let line = format!("5;{}\r\n", "x".repeat(2000));
    assert!(read(Body::CHUNKED, line.as_bytes(), &[], 1).is_err());
    let trailers = format!("0\r\n{}\r\n", "X-A: 123456789\r\n".repeat(1000));
    assert!(read(Body::CHUNKED, trailers.as_bytes(), &[], 1).is_err());
}
