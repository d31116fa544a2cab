//! Frame headers (RFC 6455 §5.2), masks (§5.3) and close frames (§5.5.1, §7.4).
use fanwire_core::ws::{
    CloseCode, FrameError, Header, Opcode, header_bytes, parse_header, unmask, write_close, write_header,
};
use proptest::prelude::*;

const MASK: [u8; 4] = [1, 2, 3, 4];

/// A client's header, its length written in the given form: 0, 2 or 8 bytes besides the second.
fn client_header(first: u8, payload_bytes: u64, length_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![first];
    match length_bytes {
        0 => bytes.push(0x80 | payload_bytes as u8),
        2 => {
            bytes.push(0x80 | 126);
            bytes.extend((payload_bytes as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend(payload_bytes.to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes
}

fn error(bytes: &[u8]) -> FrameError {
    parse_header(bytes, u64::MAX).expect_err("the header is wrong")
}

mod section_5_1_masking {
    use super::*;

    #[test]
    fn an_unmasked_frame_of_a_client_is_refused_at_its_second_byte() {
        assert_eq!(error(&[0x81, 0x05]), FrameError::Unmasked);
    }
}

mod section_5_2_headers {
    use super::*;

    #[test]
    fn the_masked_hello_of_the_rfc_is_read() {
        let bytes = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        let (header, header_bytes) = parse_header(&bytes, 5).unwrap().unwrap();
        assert_eq!(header_bytes, 6);
        let expected = Header {
            is_final: true,
            is_compressed: false,
            opcode: Opcode::Text,
            mask: [0x37, 0xfa, 0x21, 0x3d],
            payload_bytes: 5,
        };
        assert_eq!(header, expected);
        let mut payload = bytes[6..].to_vec();
        unmask(&mut payload, header.mask, 0);
        assert_eq!(payload, b"Hello");
    }

    #[test]
    fn reserved_bits_and_opcodes_are_refused_at_the_first_byte() {
        assert_eq!(error(&[0xc1]), FrameError::ReservedBits { bits: 0b100 });
        assert_eq!(error(&[0xc1]).to_string(), "reserved bits of a frame are 0b100, expected 0 without an extension");
        for value in [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf] {
            assert_eq!(error(&[0x80 | value]), FrameError::ReservedOpcode { value });
        }
    }

    #[test]
    fn lengths_take_no_more_bytes_than_they_need() {
        for (payload_bytes, length_bytes) in [(0, 2), (125, 2), (0, 8), (126, 8), (65_535, 8)] {
            let error = error(&client_header(0x82, payload_bytes, length_bytes as usize));
            assert_eq!(error, FrameError::LengthNotMinimal { payload_bytes, length_bytes });
            assert_eq!(error.close_code(), CloseCode::PROTOCOL_ERROR);
        }
        let error = error(&client_header(0x82, 1 << 63, 8));
        assert_eq!(error, FrameError::LengthTooLong { payload_bytes: 1 << 63 });
    }

    #[test]
    fn a_payload_above_the_bound_is_refused_with_1009_before_its_mask_is_there() {
        assert!(parse_header(&client_header(0x82, 1000, 2), 1000).unwrap().is_some());
        let bytes = client_header(0x82, 1001, 2);
        let error = parse_header(&bytes[..4], 1000).unwrap_err();
        assert_eq!(error, FrameError::TooBig { payload_bytes: 1001, bytes_max: 1000 });
        assert_eq!(error.close_code(), CloseCode::TOO_BIG);
        assert_eq!(error.to_string(), "frame announces 1001 bytes, at most 1000 are taken");
    }

    #[test]
    fn lengths_at_the_edges_are_written_in_2_4_and_10_bytes() {
        for (payload_bytes, expected_bytes) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10), (1 << 40, 10)] {
            let mut out = Vec::new();
            write_header(&mut out, Opcode::Binary, payload_bytes);
            assert_eq!(out.len(), expected_bytes, "{payload_bytes}");
            assert_eq!(header_bytes(payload_bytes), expected_bytes, "{payload_bytes}");
        }
    }
}

mod section_5_5_control_frames {
    use super::*;

    #[test]
    fn control_frames_are_final_and_have_at_most_125_bytes() {
        for (value, opcode) in [(8, Opcode::Close), (9, Opcode::Ping), (10, Opcode::Pong)] {
            assert_eq!(error(&[value]), FrameError::ControlFragmented { opcode });
            assert_eq!(error(&[0x80 | value, 0xfe]), FrameError::ControlTooLong { opcode, bytes_max: 125 });
            assert_eq!(error(&[0x80 | value, 0xff]), FrameError::ControlTooLong { opcode, bytes_max: 125 });
            assert!(parse_header(&client_header(0x80 | value, 125, 0), 0).unwrap().is_some());
        }
    }
}

mod section_7_4_close_codes {
    use super::*;

    #[test]
    fn only_registered_and_free_codes_are_on_the_wire() {
        let received: Vec<u16> = (0..=u16::MAX).filter(|&code| CloseCode(code).may_be_received()).collect();
        let expected: Vec<u16> = (1000..=1003).chain(1007..=1014).chain(3000..=4999).collect();
        assert_eq!(received, expected);
        assert!(!CloseCode(1010).may_be_sent());
        assert!(CloseCode::NORMAL.may_be_sent() && !CloseCode::NO_STATUS.may_be_sent());
    }

    #[test]
    fn a_close_frame_has_code_and_reason() {
        let mut out = Vec::new();
        write_close(&mut out, CloseCode::GOING_AWAY, "bye");
        assert_eq!(out, b"\x88\x05\x03\xe9bye");
    }

    #[test]
    fn a_code_that_may_not_be_sent_gives_an_empty_close_frame() {
        for code in [CloseCode::NO_STATUS, CloseCode::ABNORMAL, CloseCode(0), CloseCode(5000)] {
            let mut out = Vec::new();
            write_close(&mut out, code, "bye");
            assert_eq!(out, b"\x88\x00");
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let mut out = Vec::new();
        write_close(&mut out, CloseCode::NORMAL, &"ä".repeat(100));
        assert_eq!(out.len(), 2 + 2 + 122);
        assert_eq!(std::str::from_utf8(&out[4..]).unwrap(), "ä".repeat(61));
    }
}

fn unmask_naively(bytes: &mut [u8], mask: [u8; 4], offset: usize) {
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte ^= mask[(offset + index) % 4];
    }
}

proptest! {
    #[test]
    fn masks_are_the_naive_ones_at_each_alignment_and_phase(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        mask: [u8; 4],
        offset in 0usize..1_000,
    ) {
        for start in 0..bytes.len().min(33) {
            let mut ours = bytes.clone();
            let mut naive = bytes.clone();
            unmask(&mut ours[start..], mask, offset);
            unmask_naively(&mut naive[start..], mask, offset);
            prop_assert_eq!(&ours, &naive);
            unmask(&mut ours[start..], mask, offset);
            prop_assert_eq!(&ours, &bytes);
        }
    }

    #[test]
    fn a_payload_unmasked_in_pieces_is_the_payload_unmasked_whole(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        mask: [u8; 4],
        cut in any::<prop::sample::Index>(),
    ) {
        let at = cut.index(bytes.len() + 1);
        let mut whole = bytes.clone();
        unmask(&mut whole, mask, 0);
        let mut pieces = bytes;
        unmask(&mut pieces[..at], mask, 0);
        unmask(&mut pieces[at..], mask, at);
        prop_assert_eq!(pieces, whole);
    }

    #[test]
    fn headers_come_back_as_written_once_they_are_masked(
        opcode_value in prop::sample::select(vec![1u8, 2, 8, 9, 10]),
        payload_bytes in prop_oneof![0usize..200, 65_000usize..66_000, any::<u32>().prop_map(|n| n as usize)],
        mask: [u8; 4],
    ) {
        let opcode = Opcode::from_u8(opcode_value).unwrap();
        let payload_bytes = if opcode.is_control() { payload_bytes % 126 } else { payload_bytes };
        let mut bytes = Vec::new();
        write_header(&mut bytes, opcode, payload_bytes);
        bytes[1] |= 0x80;
        bytes.extend(mask);
        for end in 0..bytes.len() {
            prop_assert_eq!(parse_header(&bytes[..end], u64::MAX), Ok(None));
        }
        let header = Header { is_final: true, is_compressed: false, opcode, mask, payload_bytes: payload_bytes as u64 };
        prop_assert_eq!(parse_header(&bytes, u64::MAX), Ok(Some((header, bytes.len()))));
    }

    #[test]
    fn the_verdict_on_a_header_does_not_depend_on_how_it_is_cut(
        bytes in prop::collection::vec(any::<u8>(), 0..16),
        masked: bool,
        payload_bytes_max in prop_oneof![Just(u64::MAX), 0u64..1_000],
    ) {
        let mut bytes = bytes;
        if let (true, Some(second)) = (masked, bytes.get_mut(1)) {
            *second |= 0x80;
        }
        let whole = parse_header(&bytes, payload_bytes_max);
        let first = (0..=bytes.len())
            .map(|end| parse_header(&bytes[..end], payload_bytes_max))
            .find(|verdict| *verdict != Ok(None))
            .unwrap_or(Ok(None));
        prop_assert_eq!(first, whole);
    }

    #[test]
    fn any_reason_makes_a_close_frame_that_is_utf_8(reason: String, code in 3000u16..5000) {
        let mut out = Vec::new();
        write_close(&mut out, CloseCode(code), &reason);
        prop_assert!(out.len() <= 2 + 125);
        prop_assert_eq!(usize::from(out[1]), out.len() - 2);
        let kept = std::str::from_utf8(&out[4..]).unwrap();
        prop_assert!(reason.starts_with(kept));
        prop_assert!(kept.len() == reason.len() || kept.len() > 123 - 4);
    }
}
