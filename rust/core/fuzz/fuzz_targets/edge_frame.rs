//! Invariant: what comes to an edge as a publication has a sound position, and its head written anew is what came; what
//! stands in it reads the same once written.
#![no_main]
use fanwire_core::channel::{read_publication, write_publication};
use fanwire_core::node::read_for_edges;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((channel, record)) = read_for_edges(input) else { return };
    let (previous, position) = (record.previous, record.position);
    assert!(position.epoch != 0 && previous.epoch == position.epoch && previous.offset <= position.offset);
    let (number, publication) = record.bytes.split_at(8);
    assert_eq!(number, [0; 8], "nobody's");

    let mut head = vec![1];
    head.extend((channel.len() as u32).to_le_bytes());
    head.extend(channel.as_bytes());
    for number in [position.epoch, previous.offset, position.offset, record.published_ms] {
        head.extend(number.to_le_bytes());
    }
    assert_eq!(input, [&head, publication].concat());

    let mut written = Vec::new();
    let Some(said) = read_publication(publication, |read| {
        write_publication(read, &mut written);
        format!("{read:?}")
    }) else {
        return;
    };
    assert_eq!(read_publication(&written, |read| format!("{read:?}")), Some(said));
});
