//! Records out of a stream: any cutting equal to the whole, bounds, malformed lengths.
use std::time::Instant;

use fanwire_core::protocol::signalr::{
    HubMessage, HubProtocol, Outcome, RECORD_BYTES_MAX, RecordError, RecordReceiver, write_message,
};
use proptest::prelude::*;

type Outcomes = (Vec<Vec<u8>>, Result<bool, RecordError>);

/// All records of pieces, the error that ended them, and whether something is left open.
fn receive<'a>(protocol: HubProtocol, pieces: impl Iterator<Item = &'a [u8]>, bytes_max: usize) -> Outcomes {
    let mut receiver = RecordReceiver::new(protocol);
    let mut records = Vec::new();
    for piece in pieces {
        let mut taken = 0;
        loop {
            match receiver.receive(&piece[taken..], bytes_max) {
                Err(error) => return (records, Err(error)),
                Ok((more, Some(record))) => {
                    records.push(record.to_vec());
                    taken += more;
                }
                Ok((more, None)) => {
                    assert_eq!(taken + more, piece.len(), "all is taken when nothing is whole");
                    break;
                }
            }
        }
    }
    (records, Ok(receiver.is_mid_record()))
}

fn receive_whole(protocol: HubProtocol, bytes: &[u8], bytes_max: usize) -> Outcomes {
    let whole = receive(protocol, std::iter::once(bytes), bytes_max);
    assert_eq!(receive(protocol, bytes.chunks(1), bytes_max), whole);
    whole
}

fn prefixed(body: &[u8]) -> Vec<u8> {
    let mut record = Vec::new();
    let mut left = body.len();
    while left > 0x7f {
        record.push(left as u8 | 0x80);
        left >>= 7;
    }
    record.push(left as u8);
    record.extend_from_slice(body);
    record
}

#[test]
fn a_frame_holds_parts_of_records_and_many() {
    let (records, end) = receive_whole(HubProtocol::Json, b"{\"type\":6}\x1e{}\x1e\x1e{\"ty", 100);
    assert_eq!(records, [&b"{\"type\":6}"[..], b"{}", b""]);
    assert_eq!(end, Ok(true));
    let (records, end) = receive_whole(HubProtocol::MessagePack, b"\x02\x91\x06\x00\x82\x00\x91\x1e\x80", 100);
    assert_eq!(records, [&b"\x91\x06"[..], b"", b"\x91\x1e"]);
    assert_eq!(end, Ok(true));
    assert_eq!(receive_whole(HubProtocol::Json, b"", 100), (vec![], Ok(false)));
    assert_eq!(receive_whole(HubProtocol::MessagePack, b"\x02\x91\x06", 100).1, Ok(false));
}

#[test]
fn a_whole_record_is_handed_out_from_the_callers_bytes() {
    for (protocol, frame) in [(HubProtocol::Json, &b"{}\x1e"[..]), (HubProtocol::MessagePack, b"\x02\x91\x06")] {
        let mut receiver = RecordReceiver::new(protocol);
        let (taken, record) = receiver.receive(frame, 10).unwrap();
        assert!(frame.as_ptr_range().contains(&record.unwrap().as_ptr()));
        assert_eq!(taken, 3);
    }
}

#[test]
fn the_bound_counts_separator_and_length_as_the_references_does() {
    let text = |bytes: usize| [vec![b' '; bytes - 1], vec![0x1e]].concat();
    assert_eq!(receive_whole(HubProtocol::Json, &text(RECORD_BYTES_MAX), RECORD_BYTES_MAX).0.len(), 1);
    let too_big = RecordError::TooBig { record_bytes: 32_769, bytes_max: 32_768 };
    assert_eq!(too_big.to_string(), "record has at least 32769 bytes, at most 32768 are taken");
    let refused = (vec![], Err(too_big));
    assert_eq!(receive_whole(HubProtocol::Json, &text(RECORD_BYTES_MAX + 1), RECORD_BYTES_MAX), refused);
    assert_eq!(receive_whole(HubProtocol::Json, &text(9 * RECORD_BYTES_MAX), RECORD_BYTES_MAX), refused);

    let record = prefixed(&vec![0xc0; RECORD_BYTES_MAX - 3]);
    assert_eq!(receive_whole(HubProtocol::MessagePack, &record, RECORD_BYTES_MAX).0.len(), 1);
    let record = prefixed(&vec![0xc0; RECORD_BYTES_MAX - 2]);
    assert_eq!(receive_whole(HubProtocol::MessagePack, &record, RECORD_BYTES_MAX), refused);
    assert_eq!(receive_whole(HubProtocol::MessagePack, &record[..3], RECORD_BYTES_MAX), refused);
}

#[test]
fn a_length_has_at_most_31_bits() {
    let whole = |bytes: &[u8]| receive_whole(HubProtocol::MessagePack, bytes, usize::MAX);
    assert_eq!(whole(b"\xff\xff\xff\xff\x07"), (vec![], Ok(true)));
    for prefix in [*b"\xff\xff\xff\xff\x08", *b"\x80\x80\x80\x80\x80", *b"\xff\xff\xff\xff\xff"] {
        assert_eq!(whole(&[&prefix[..], b"\x01"].concat()), (vec![], Err(RecordError::BadLength { prefix })));
    }
    let text = RecordError::BadLength { prefix: [0xff, 0xff, 0xff, 0xff, 8] }.to_string();
    assert!(text.contains("[ff, ff, ff, ff, 08]"), "{text}");
}

#[test]
fn a_handshake_may_be_cut_and_share_its_frame_with_what_follows() {
    let stream = b"{\"protocol\":\"messagepack\",\"version\":1}\x1e\x02\x91\x06\x02\x91\x06";
    for piece_bytes in 1..=stream.len() {
        let mut receiver = RecordReceiver::new(HubProtocol::Json);
        let mut records = Vec::new();
        for piece in stream.chunks(piece_bytes) {
            let mut taken = 0;
            while let (more, Some(record)) = receiver.receive(&piece[taken..], 100).unwrap() {
                records.push(record.to_vec());
                taken += more;
                if records.len() == 1 {
                    receiver.set_protocol(HubProtocol::MessagePack);
                }
            }
        }
        assert_eq!(records, [&stream[..38], b"\x91\x06", b"\x91\x06"]);
        assert!(!receiver.is_mid_record());
    }
}

#[test]
fn byte_by_byte_costs_linear_time() {
    let bytes = 1 << 20;
    for (protocol, start) in [(HubProtocol::Json, &b" "[..]), (HubProtocol::MessagePack, b"\xff\xff\xff\xff\x07")] {
        let stream = [start, &vec![b' '; bytes]].concat();
        let began = Instant::now();
        assert_eq!(receive(protocol, stream.chunks(1), usize::MAX), (vec![], Ok(true)));
        assert!(
            began.elapsed().as_secs() < 5,
            "{protocol:?}: a million pieces take a fraction of a second, or a minute if each looks at all before it"
        );
    }
}

/// A stream of both protocols' real messages.
fn stream_of(protocol: HubProtocol, texts: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    for text in texts {
        let message = HubMessage::Completion { id: "1".into(), outcome: Outcome::Error(text.into()) };
        write_message(protocol, &message, &mut out);
        write_message(protocol, &HubMessage::Ping, &mut out);
    }
    out
}

fn any_protocol() -> impl Strategy<Value = HubProtocol> {
    prop_oneof![Just(HubProtocol::Json), Just(HubProtocol::MessagePack)]
}

/// `stream` cut at these places.
fn cut_at(stream: &[u8], mut places: Vec<prop::sample::Index>) -> Vec<&[u8]> {
    places.sort_by_key(|place| place.index(stream.len() + 1));
    let mut pieces = Vec::new();
    let mut start = 0;
    for place in places {
        let end = place.index(stream.len() + 1);
        pieces.push(&stream[start..end]);
        start = end;
    }
    pieces.push(&stream[start..]);
    pieces
}

proptest! {
    #[test]
    fn any_cutting_of_messages_gives_the_same(
        protocol in any_protocol(),
        texts in prop::collection::vec(".{0,200}", 0..6),
        places: Vec<prop::sample::Index>,
    ) {
        let stream = stream_of(protocol, &texts);
        let whole = receive(protocol, std::iter::once(&stream[..]), RECORD_BYTES_MAX);
        prop_assert_eq!(whole.0.len(), 2 * texts.len());
        prop_assert_eq!(&whole.1, &Ok(false));
        let pieces = cut_at(&stream, places);
        prop_assert_eq!(receive(protocol, pieces.into_iter(), RECORD_BYTES_MAX), whole);
    }

    #[test]
    fn any_cutting_of_any_bytes_gives_the_same(
        protocol in any_protocol(),
        stream in prop::collection::vec(prop_oneof![any::<u8>(), Just(0x1e), 0..9_u8], 0..200),
        places: Vec<prop::sample::Index>,
        bytes_max in 0..60_usize,
    ) {
        let whole = receive(protocol, std::iter::once(&stream[..]), bytes_max);
        prop_assert!(whole.0.iter().all(|record| record.len() < bytes_max));
        let pieces = cut_at(&stream, places);
        prop_assert_eq!(receive(protocol, pieces.into_iter(), bytes_max), whole);
    }
}
