//! permessage-deflate (RFC 7692): what is agreed, what is inflated and deflated, and what a stream of both gives.
use fanwire_core::ws::{
    Codec, DEFLATED_BYTES_MIN, DeflateAgreement, Deflater, FrameError, Opcode, ReceiveError, Received, frame_bytes,
    header_bytes, unmask, write_header,
};
use flate2::{Compress, Compression, FlushCompress};
use proptest::prelude::*;

const RSV1: u8 = 0x40;

fn agreed(offer: &str) -> Option<DeflateAgreement> {
    DeflateAgreement::negotiate([offer.as_bytes()].into_iter())
}

/// A client's compressor, with or without a context of its own.
struct Client {
    compress: Compress,
    takes_over: bool,
}

impl Client {
    fn new(window_bits: u8, takes_over: bool) -> Self {
        Self { compress: Compress::new_with_window_bits(Compression::default(), false, window_bits), takes_over }
    }

    fn deflated(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(payload.len() + 1_000);
        self.compress.compress_vec(payload, &mut out, FlushCompress::Sync).unwrap();
        assert!(out.len() < out.capacity());
        out.truncate(out.len() - 4);
        if !self.takes_over {
            self.compress.reset();
        }
        out
    }
}

/// A client's frame, with a first byte as given.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x5a, 0, 0xff, 0x13];
    let mut bytes = Vec::new();
    write_header(&mut bytes, Opcode::Binary, payload.len());
    bytes[0] = first;
    bytes[1] |= 0x80;
    bytes.extend(mask);
    bytes.extend(payload);
    let start = header_bytes(payload.len()) + 4;
    unmask(&mut bytes[start..], mask, 0);
    bytes
}

/// All messages of pieces of a stream, taken a few at a time, and how it ended.
fn heard<'a>(
    codec: &mut Codec,
    pieces: impl Iterator<Item = &'a [u8]>,
    messages_max: usize,
) -> (Vec<Vec<u8>>, Result<(), ReceiveError>) {
    let mut all = Vec::new();
    for piece in pieces {
        let mut piece = piece;
        loop {
            let before = all.len();
            let end = codec.receive(piece, messages_max, |received| match received {
                Received::Text(text) => all.push(text.as_bytes().to_vec()),
                Received::Binary(bytes) => all.push(bytes.to_vec()),
                _ => {}
            });
            assert!(all.len() - before <= messages_max);
            if end.is_err() {
                return (all, end);
            }
            if !codec.has_rest() {
                break;
            }
            piece = &[];
        }
    }
    (all, Ok(()))
}

fn hear(bytes: &[u8], message_bytes_max: usize) -> (Vec<Vec<u8>>, Result<(), ReceiveError>) {
    let mut codec = Codec::new(message_bytes_max, agreed("permessage-deflate"));
    heard(&mut codec, std::iter::once(bytes), usize::MAX)
}

#[test]
fn the_first_acceptable_offer_is_answered() {
    let server = "permessage-deflate; server_no_context_takeover";
    for (offer, added) in [
        ("permessage-deflate", ""),
        ("Permessage-Deflate ; client_max_window_bits", "; client_max_window_bits=12"),
        ("permessage-deflate; client_max_window_bits=10", "; client_max_window_bits=10"),
        ("permessage-deflate; client_max_window_bits=\"8\"", "; client_max_window_bits=8"),
        ("permessage-deflate; server_max_window_bits=9", "; server_max_window_bits=9"),
        ("permessage-deflate; server_no_context_takeover", ""),
        ("permessage-deflate; client_no_context_takeover", "; client_no_context_takeover"),
        ("x-webkit-deflate-frame, permessage-deflate; no=1, permessage-deflate", ""),
        (
            "permessage-deflate; server_max_window_bits=8, permessage-deflate; client_max_window_bits=15",
            "; client_max_window_bits=12",
        ),
    ] {
        assert_eq!(agreed(offer).map(|agreement| agreement.answer()), Some(format!("{server}{added}")), "{offer}");
    }
}

#[test]
fn offers_with_a_wrong_parameter_are_declined() {
    for parameter in [
        "server_max_window_bits",
        "server_max_window_bits=8",
        "server_max_window_bits=16",
        "client_max_window_bits=7",
        "client_max_window_bits=010",
        "client_max_window_bits=12; client_max_window_bits=12",
        "server_no_context_takeover=1",
        "server_no_context_takeover; server_no_context_takeover",
        "client_no_context_takeover; client_no_context_takeover",
        "unknown",
        "",
    ] {
        assert_eq!(agreed(&format!("permessage-deflate; {parameter}")), None, "{parameter}");
    }
    assert_eq!(agreed("permessage-bzip2"), None);
}

#[test]
fn a_client_s_context_is_taken_over() {
    let mut client = Client::new(15, true);
    let mut codec = Codec::new(1_000, agreed("permessage-deflate"));
    let text = "a text that its second message refers back to";
    let first = frame(0x80 | RSV1 | 1, &client.deflated(text.as_bytes()));
    let second = frame(0x80 | RSV1 | 1, &client.deflated(text.as_bytes()));
    assert!(second.len() < first.len() / 2);
    let stream = [first, second].concat();
    let (all, end) = heard(&mut codec, std::iter::once(&*stream), usize::MAX);
    assert_eq!((all, end), (vec![text.as_bytes().to_vec(); 2], Ok(())));
}

#[test]
fn a_block_that_says_it_is_the_last_ends_no_context() {
    // RFC 7692 §7.2.3.4: "Hello" in a block with BFINAL, and the byte that makes it a message.
    let message = frame(0x80 | RSV1 | 1, &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00]);
    let stream = [message.clone(), message].concat();
    assert_eq!(hear(&stream, 1_000), (vec![b"Hello".to_vec(); 2], Ok(())));
}

#[test]
fn a_bomb_costs_no_more_than_the_bound() {
    let bomb = Client::new(15, true).deflated(&vec![0; 1 << 20]);
    assert!(bomb.len() < 2_000);
    let (all, end) = hear(&frame(0x80 | RSV1 | 2, &bomb), 10_000);
    assert!(all.is_empty());
    let Err(ReceiveError::MessageTooBig { message_bytes, bytes_max: 10_000 }) = end else { panic!("{end:?}") };
    assert_eq!(message_bytes, 10_001);
    let whole = hear(&frame(0x80 | RSV1 | 2, &bomb), 1 << 20);
    assert_eq!((whole.0.len(), whole.0[0].len(), whole.1), (1, 1 << 20, Ok(())));
}

#[test]
fn the_bit_stands_on_the_first_frame_of_a_message_alone() {
    let reserved = |bits| Err(ReceiveError::Frame(FrameError::ReservedBits { bits }));
    for (stream, end) in [
        (frame(0x80 | RSV1 | 9, b""), reserved(0b100)),
        (frame(0x80 | 0x60 | 1, b""), reserved(0b010)),
        ([frame(RSV1 | 1, b""), frame(0x80 | RSV1, b"")].concat(), reserved(0b100)),
        (frame(0x80 | RSV1 | 2, b"no deflate"), Err(ReceiveError::NotDeflated)),
        (frame(0x80 | RSV1 | 1, &Client::new(15, true).deflated(b"\xff")), Err(ReceiveError::TextNotUtf8)),
    ] {
        assert_eq!(hear(&stream, 1_000).1, end);
    }
    let mut plain = Codec::new(1_000, None);
    assert_eq!(plain.receive(&frame(0x80 | RSV1 | 1, b"a"), 9, |_| {}), reserved(0b100));
}

#[test]
fn what_would_not_shrink_is_sent_as_it_is() {
    let codec = Codec::new(1_000, agreed("permessage-deflate"));
    let mut deflater = Deflater::default();
    let noise: Vec<u8> = (0..2_000u32).flat_map(|number| number.wrapping_mul(0x9e37_79b9).to_be_bytes()).collect();
    for (payload, is_compressed) in [
        (&noise[..1_000], false),
        (&[b'a'; DEFLATED_BYTES_MIN - 1][..], false),
        (&[b'a'; DEFLATED_BYTES_MIN][..], true),
    ] {
        let mut out = Vec::new();
        codec.write_message(Opcode::Binary, payload, &mut deflater, &mut out);
        assert_eq!(out[0] & RSV1 != 0, is_compressed);
        assert_eq!(frame_bytes(&out), out.len());
    }
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    let noise = prop::collection::vec(any::<u8>(), 0..2_000);
    let repeated = (prop::collection::vec(any::<u8>(), 1..40), 0usize..4_000)
        .prop_map(|(seed, count)| seed.iter().copied().cycle().take(count).collect());
    prop_oneof![noise, repeated]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_cutting_gives_the_messages(
        payloads in prop::collection::vec((payload(), any::<bool>(), 0usize..3), 1..8),
        piece_bytes in 1usize..3_000,
        messages_max in 1usize..4,
        (window_bits, takes_over) in (9u8..16, any::<bool>()),
    ) {
        let mut client = Client::new(window_bits, takes_over);
        let mut stream = Vec::new();
        for (payload, is_compressed, cuts) in &payloads {
            let data = if *is_compressed { client.deflated(payload) } else { payload.clone() };
            let rsv1 = if *is_compressed { RSV1 } else { 0 };
            let size = data.len() / (cuts + 1) + 1;
            let pieces: Vec<&[u8]> = if data.is_empty() { vec![&data] } else { data.chunks(size).collect() };
            for (index, piece) in pieces.iter().enumerate() {
                let last = if index + 1 == pieces.len() { 0x80 } else { 0 };
                let first = if index == 0 { last | rsv1 | 2 } else { last };
                stream.extend(frame(first, piece));
                stream.extend(frame(0x89, b"there?"));
            }
        }
        let take = if takes_over { "" } else { "; client_no_context_takeover" };
        let mut codec = Codec::new(10_000, agreed(&format!("permessage-deflate{take}")));
        let (all, end) = heard(&mut codec, stream.chunks(piece_bytes), messages_max);
        prop_assert_eq!(end, Ok(()));
        prop_assert_eq!(all, payloads.into_iter().map(|(payload, ..)| payload).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_deflated_inflates_whatever_came_before(
        payloads in prop::collection::vec(payload(), 1..8),
        bits in 9u8..16,
    ) {
        let mut deflater = Deflater::default();
        for payload in payloads {
            let mut deflated = Vec::new();
            deflater.deflate(bits, &payload, &mut deflated);
            // A receiver of its own each time: nothing refers back.
            let mut codec = Codec::new(10_000, agreed("permessage-deflate"));
            let message = frame(0x80 | RSV1 | 2, &deflated);
            let (all, end) = heard(&mut codec, std::iter::once(&*message), 1);
            prop_assert_eq!((all, end), (vec![payload], Ok(())));
        }
    }
}
