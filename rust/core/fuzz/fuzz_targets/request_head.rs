//! Invariant: a head has the same verdict whole and byte by byte, and nothing that reads it panics.
#![no_main]
use fanwire_core::http::{RequestHead, parse_head, query_pairs};
use fanwire_core::ws::{offered_subprotocols, read_upgrade, write_accept};
use libfuzzer_sys::fuzz_target;

/// Small, so that the fuzzer finds the bound.
const HEAD_BYTES_MAX: usize = 1024;

fuzz_target!(|bytes: &[u8]| {
    let whole = verdict(bytes);
    let cut = (0..=bytes.len()).find_map(|end| verdict(&bytes[..end]));
    assert_eq!(cut, whole);
    if let Ok(Some((head, head_bytes))) = parse_head(bytes, HEAD_BYTES_MAX) {
        assert!(head_bytes <= HEAD_BYTES_MAX);
        read_all(&head);
    }
});

fn verdict(bytes: &[u8]) -> Option<Result<usize, u16>> {
    match parse_head(bytes, HEAD_BYTES_MAX) {
        Ok(parsed) => parsed.map(|(_, head_bytes)| Ok(head_bytes)),
        Err(error) => Some(Err(error.status())),
    }
}

fn read_all(head: &RequestHead<'_>) {
    let _ = head.keeps_alive();
    let _ = (head.keeps_alive_after_body(), head.expects_continue(), head.body.is_done());
    for pair in query_pairs(head.query.unwrap_or("")) {
        let _ = pair.map_err(|error| error.to_string());
    }
    let subprotocol = offered_subprotocols(head).next();
    match read_upgrade(head) {
        Err(error) => assert!((400..500).contains(&error.status())),
        Ok(upgrade) => {
            let mut out = Vec::new();
            write_accept::<&str>(&mut out, &upgrade, subprotocol, &[]);
            let line_count = if subprotocol.is_some() { 6 } else { 5 };
            assert_eq!(out.split(|&byte| byte == b'\n').count() - 1, line_count);
        }
    }
}
