//! What comes to an edge: publications as an origin writes them, and bytes that it never does.
use fanwire_core::Position;
use fanwire_core::channel::{Publication, read_publication, write_publication};
use fanwire_core::node::{Record, read_for_edges};
use fanwire_core::protocol::Payload;
use proptest::prelude::*;

/// What a frame begins with.
const PUBLICATION: u8 = 1;

/// A frame as an origin writes it: see `channel::edging`.
fn frame(channel: &str, record: &Record, publication: &[u8]) -> Vec<u8> {
    let mut bytes = vec![PUBLICATION];
    bytes.extend((channel.len() as u32).to_le_bytes());
    bytes.extend(channel.as_bytes());
    for number in [record.position.epoch, record.previous.offset, record.position.offset, record.published_ms] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(publication);
    bytes
}

/// A record of nobody's, as an edge has it.
fn record((epoch, previous, offset): (u64, u64, u64), published_ms: u64, publication: &[u8]) -> Record {
    let (previous, position) = (Position { epoch, offset: previous }, Position { epoch, offset });
    Record { previous, position, published_ms, bytes: [&[0; 8], publication].concat() }
}

fn publication(text: &str, event: Option<&str>, key: Option<&str>) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_publication(&Publication { event, key, ..Publication::new(Payload::Text(text)) }, &mut bytes);
    bytes
}

fn same(left: &Record, right: &Record) -> bool {
    (left.previous, left.position, left.published_ms, &left.bytes)
        == (right.previous, right.position, right.published_ms, &right.bytes)
}

proptest! {
    #[test]
    fn a_publication_comes_as_it_was_written_and_no_part_of_its_head_is_one(
        channel: String, text: String, event: Option<String>, key: Option<String>,
        epoch in 1..u64::MAX, previous: u64, further: u64, published_ms: u64,
    ) {
        let publication = publication(&text, event.as_deref(), key.as_deref());
        let record = record((epoch, previous, previous.saturating_add(further)), published_ms, &publication);
        let bytes = frame(&channel, &record, &publication);
        let read = read_for_edges(&bytes);
        prop_assert!(read.is_some_and(|(name, read)| name == channel && same(&read, &record)));
        for end in 0..bytes.len() - publication.len() {
            prop_assert!(read_for_edges(&bytes[..end]).is_none());
        }
    }

    #[test]
    fn a_position_that_cannot_be_is_no_publication(epoch: u64, previous: u64, offset: u64) {
        let bytes = frame("odds:7", &record((epoch, previous, offset), 0, b""), b"");
        prop_assert_eq!(read_for_edges(&bytes).is_some(), epoch != 0 && previous <= offset);
    }

    #[test]
    fn bytes_that_are_spoilt_or_of_anything_are_read_as_they_stand_or_not_at_all(
        anything: Vec<u8>, spoilt: Vec<(prop::sample::Index, u8)>, is_spoilt: bool,
    ) {
        let publication = publication("hi", Some("said"), Some("k"));
        let mut bytes = frame("odds:7", &record((7, 1, 2), 3, &publication), &publication);
        spoilt.iter().for_each(|(at, byte)| *at.get_mut(&mut bytes) = *byte);
        let bytes = if is_spoilt { bytes } else { [&[PUBLICATION], &anything[..]].concat() };
        if let Some((channel, record)) = read_for_edges(&bytes) {
            prop_assert!(record.position.epoch != 0 && record.previous.offset <= record.position.offset);
            prop_assert_eq!(&frame(channel, &record, &record.bytes[8..]), &bytes);
            let _ = read_publication(&record.bytes[8..], |_| ());
        }
    }
}
