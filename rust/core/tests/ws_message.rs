//! The receiving half (RFC 6455 §5.4 to §5.6, §8.1, §10.4): a model of messages, and any cutting equal to the whole.
use fanwire_core::ws::{
    CloseCode, FrameError, Opcode, ReceiveError, Received, Receiver, header_bytes, unmask, write_header,
};
use proptest::prelude::*;

/// What was received, with a life of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owned {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<CloseCode>, String),
}

fn own(received: Received<'_>) -> Owned {
    match received {
        Received::Text(text) => Owned::Text(text.to_owned()),
        Received::Binary(bytes) => Owned::Binary(bytes.to_vec()),
        Received::Ping(bytes) => Owned::Ping(bytes.to_vec()),
        Received::Pong(bytes) => Owned::Pong(bytes.to_vec()),
        Received::Close { code, reason } => Owned::Close(code, reason.to_owned()),
    }
}

/// All that is received of pieces, the error that ended it, and whether something is left open.
fn receive<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
    message_bytes_max: usize,
) -> (Vec<Owned>, Result<bool, ReceiveError>) {
    let mut receiver = Receiver::new();
    let mut all = Vec::new();
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let mut taken = 0;
        loop {
            match receiver.receive(&mut bytes[taken..], message_bytes_max) {
                Err(error) => return (all, Err(error)),
                Ok((more, Some(received))) => {
                    all.push(own(received));
                    taken += more;
                }
                Ok((more, None)) => {
                    assert_eq!(taken + more, bytes.len(), "all is taken when nothing is whole");
                    break;
                }
            }
        }
    }
    (all, Ok(receiver.is_mid_message()))
}

fn receive_whole(bytes: &[u8]) -> (Vec<Owned>, Result<bool, ReceiveError>) {
    receive(std::iter::once(bytes), 1_000)
}

fn error(bytes: &[u8]) -> ReceiveError {
    let (_, end) = receive_whole(bytes);
    assert_eq!(receive(bytes.chunks(1), 1_000).1, end);
    end.expect_err("the stream is wrong")
}

/// One client's frame.
fn frame(is_final: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    masked_frame(is_final, opcode, payload, [0x5a, 0, 0xff, 0x13])
}

fn masked_frame(is_final: bool, opcode: Opcode, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_header(&mut bytes, opcode, payload.len());
    bytes[0] = u8::from(is_final) << 7 | opcode as u8;
    bytes[1] |= 0x80;
    bytes.extend(mask);
    bytes.extend(payload);
    let start = header_bytes(payload.len()) + 4;
    unmask(&mut bytes[start..], mask, 0);
    bytes
}

mod section_5_4_fragmentation {
    use super::*;

    #[test]
    fn control_frames_stand_between_fragments() {
        let bytes = [
            frame(false, Opcode::Text, b"a"),
            frame(true, Opcode::Ping, b"p"),
            frame(false, Opcode::Continuation, b""),
            frame(true, Opcode::Pong, b""),
            frame(true, Opcode::Continuation, b"b"),
        ]
        .concat();
        let expected = vec![Owned::Ping(b"p".to_vec()), Owned::Pong(vec![]), Owned::Text("ab".to_owned())];
        assert_eq!(receive_whole(&bytes), (expected.clone(), Ok(false)));
        assert_eq!(receive(bytes.chunks(1), 1_000), (expected, Ok(false)));
    }

    #[test]
    fn an_unfinished_message_is_mid_message() {
        let bytes = frame(false, Opcode::Binary, b"");
        assert_eq!(receive_whole(&bytes), (vec![], Ok(true)));
        assert_eq!(receive_whole(&bytes[..1]), (vec![], Ok(true)));
        assert_eq!(receive_whole(&[]), (vec![], Ok(false)));
    }

    #[test]
    fn a_continuation_needs_a_message_and_a_message_its_end() {
        let error_alone = error(&frame(true, Opcode::Continuation, b"a"));
        assert_eq!(error_alone, ReceiveError::NothingToContinue);
        assert_eq!(error_alone.close_code(), CloseCode::PROTOCOL_ERROR);
        let after_a_whole_one = [frame(true, Opcode::Text, b"a"), frame(true, Opcode::Continuation, b"b")].concat();
        assert_eq!(error(&after_a_whole_one), ReceiveError::NothingToContinue);
        let twice_begun = [frame(false, Opcode::Text, b"a"), frame(true, Opcode::Binary, b"b")].concat();
        let expected = ReceiveError::MessageUnfinished { opcode: Opcode::Binary };
        assert_eq!(error(&twice_begun), expected);
    }
}

mod section_5_5_control_frames {
    use super::*;

    #[test]
    fn a_close_frame_has_no_payload_or_a_code() {
        let close = |payload: &[u8]| frame(true, Opcode::Close, payload);
        assert_eq!(receive_whole(&close(b"")).0, [Owned::Close(None, String::new())]);
        let bytes = close(b"\x03\xe8bye");
        let expected = [Owned::Close(Some(CloseCode::NORMAL), "bye".to_owned())];
        assert_eq!(receive_whole(&bytes).0, expected);
        assert_eq!(receive(bytes.chunks(3), 0).0, expected);
    }

    #[test]
    fn wrong_close_frames_are_refused() {
        let close = |payload: &[u8]| error(&frame(true, Opcode::Close, payload));
        assert_eq!(close(b"\x03"), ReceiveError::CloseOfOneByte);
        for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
            let error = close(&code.to_be_bytes());
            assert_eq!(error, ReceiveError::BadCloseCode { code: CloseCode(code) });
            assert_eq!(error.close_code(), CloseCode::PROTOCOL_ERROR);
        }
        let error = close(b"\x03\xe8\xff");
        assert_eq!((error.clone(), error.close_code()), (ReceiveError::ReasonNotUtf8, CloseCode::INVALID_DATA));
    }

    #[test]
    fn frame_errors_keep_their_close_code() {
        let error = error(&[0x81, 0x01]);
        assert_eq!(error, ReceiveError::Frame(FrameError::Unmasked));
        assert_eq!(error.to_string(), "frame of a client is not masked");
        assert_eq!(error.close_code(), CloseCode::PROTOCOL_ERROR);
    }
}

mod section_8_1_utf_8 {
    use super::*;

    #[test]
    fn a_character_may_be_cut_between_fragments() {
        let bytes = [
            frame(false, Opcode::Text, b"\xf0\x9d"),
            frame(true, Opcode::Ping, b"\xff"),
            frame(true, Opcode::Continuation, b"\x84\x9e"),
        ]
        .concat();
        assert_eq!(receive_whole(&bytes).0[1], Owned::Text("𝄞".to_owned()));
    }

    #[test]
    fn wrong_text_is_refused_in_the_middle_of_a_frame() {
        let bytes = frame(true, Opcode::Text, &[b"ok \xed\xa0".as_slice(), &[b'a'; 300]].concat());
        let header_bytes = 4 + 4;
        for wrong_byte in 0..=5 {
            let (_, end) = receive_whole(&bytes[..header_bytes + wrong_byte]);
            let expected = if wrong_byte < 5 { Ok(true) } else { Err(ReceiveError::TextNotUtf8) };
            assert_eq!(end, expected, "{wrong_byte}");
        }
        assert_eq!(error(&bytes).close_code(), CloseCode::INVALID_DATA);
    }

    #[test]
    fn text_that_ends_inside_a_character_is_refused() {
        assert_eq!(error(&frame(true, Opcode::Text, b"a\xe2\x82")), ReceiveError::TextNotUtf8);
        let bytes = [frame(false, Opcode::Text, b"\xe2"), frame(true, Opcode::Continuation, b"\x82")].concat();
        assert_eq!(error(&bytes), ReceiveError::TextNotUtf8);
    }

    #[test]
    fn binary_may_be_any_bytes() {
        let bytes = frame(true, Opcode::Binary, b"\xff");
        assert_eq!(receive(bytes.chunks(1), 1).0, [Owned::Binary(vec![0xff])]);
    }
}

mod section_10_4_bounds {
    use super::*;

    #[test]
    fn the_bound_counts_all_fragments_and_is_checked_before_they_come() {
        let mut bytes = frame(false, Opcode::Binary, &[0; 600]);
        bytes.extend(frame(true, Opcode::Ping, &[0; 125]));
        let last = frame(true, Opcode::Continuation, &[0; 401]);
        bytes.extend(&last[..4]);
        let error = error(&bytes);
        assert_eq!(error, ReceiveError::MessageTooBig { message_bytes: 1_001, bytes_max: 1_000 });
        assert_eq!(error.close_code(), CloseCode::TOO_BIG);
        assert_eq!(error.to_string(), "message has at least 1001 bytes, at most 1000 are taken");
    }

    #[test]
    fn a_message_of_the_bound_is_taken() {
        let bytes = [
            frame(false, Opcode::Binary, &[1; 600]),
            frame(true, Opcode::Continuation, &[1; 400]),
            frame(true, Opcode::Binary, &[1; 1_000]),
        ]
        .concat();
        assert_eq!(receive_whole(&bytes), (vec![Owned::Binary(vec![1; 1_000]); 2], Ok(false)));
    }

    #[test]
    fn the_largest_length_is_refused_and_overflows_nothing() {
        let mut bytes = frame(false, Opcode::Binary, b"abc");
        bytes.extend([0x80, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(error(&bytes).close_code(), CloseCode::TOO_BIG);
    }
}

/// One message or control frame to be sent, with how it is sent.
#[derive(Clone, Debug)]
struct Sent {
    what: Owned,
    /// Where the payload is cut into fragments; each cut is followed by a ping where true.
    cuts: Vec<(prop::sample::Index, bool)>,
    mask: [u8; 4],
}

impl Sent {
    /// The frames on the wire, and what is to be received of them.
    fn frames(&self) -> (Vec<u8>, Vec<Owned>) {
        let (opcode, payload, is_control) = match &self.what {
            Owned::Text(text) => (Opcode::Text, text.as_bytes().to_vec(), false),
            Owned::Binary(bytes) => (Opcode::Binary, bytes.clone(), false),
            Owned::Ping(bytes) => (Opcode::Ping, bytes.clone(), true),
            Owned::Pong(bytes) => (Opcode::Pong, bytes.clone(), true),
            Owned::Close(..) => unreachable!("none is generated"),
        };
        let cuts = if is_control { &[][..] } else { &self.cuts };
        let mut cuts: Vec<_> = cuts.iter().map(|(cut, pings)| (cut.index(payload.len() + 1), *pings)).collect();
        cuts.sort_unstable();
        let (mut bytes, mut expected, mut start, mut opcode) = (vec![], vec![], 0, opcode);
        for (cut, pings) in cuts {
            bytes.extend(masked_frame(false, opcode, &payload[start..cut], self.mask));
            if pings {
                bytes.extend(masked_frame(true, Opcode::Ping, b"between", self.mask));
                expected.push(Owned::Ping(b"between".to_vec()));
            }
            (start, opcode) = (cut, Opcode::Continuation);
        }
        bytes.extend(masked_frame(true, opcode, &payload[start..], self.mask));
        expected.push(self.what.clone());
        (bytes, expected)
    }
}

fn sent() -> impl Strategy<Value = Sent> {
    let bytes = |count_max| prop::collection::vec(any::<u8>(), 0..=count_max);
    let what = prop_oneof![
        "[a-zäß€𝄞]{0,120}".prop_map(Owned::Text),
        any::<String>().prop_map(Owned::Text),
        bytes(300).prop_map(Owned::Binary),
        bytes(125).prop_map(Owned::Ping),
        bytes(125).prop_map(Owned::Pong),
    ];
    let cuts = prop::collection::vec(any::<(prop::sample::Index, bool)>(), 0..4);
    (what, cuts, any::<[u8; 4]>()).prop_map(|(what, cuts, mask)| Sent { what, cuts, mask })
}

/// `bytes` in pieces that are cut at `cuts`.
fn pieces<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(&ends).map(|(start, &end)| &bytes[start..end]).collect()
}

proptest! {
    #[test]
    fn what_is_sent_is_received_however_it_is_fragmented_and_cut(
        sent in prop::collection::vec(sent(), 0..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let (bytes, expected): (Vec<_>, Vec<_>) = sent.iter().map(Sent::frames).unzip();
        let (bytes, expected) = (bytes.concat(), expected.concat());
        prop_assert_eq!(&receive(pieces(&bytes, &cuts).into_iter(), 10_000), &(expected.clone(), Ok(false)));
        prop_assert_eq!(receive(bytes.chunks(1), 10_000), (expected, Ok(false)));
    }

    #[test]
    fn a_stream_with_a_wrong_byte_gives_the_same_messages_and_error_at_any_cut(
        sent in prop::collection::vec(sent(), 1..4),
        wrong in (any::<prop::sample::Index>(), any::<u8>()),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        message_bytes_max in prop_oneof![Just(10_000usize), 0usize..300],
    ) {
        let mut bytes: Vec<_> = sent.iter().flat_map(|sent| sent.frames().0).collect();
        let at = wrong.0.index(bytes.len());
        bytes[at] = wrong.1;
        let whole = receive(std::iter::once(bytes.as_slice()), message_bytes_max);
        prop_assert_eq!(&receive(pieces(&bytes, &cuts).into_iter(), message_bytes_max), &whole);
        prop_assert_eq!(&receive(bytes.chunks(1), message_bytes_max), &whole);
    }
}
