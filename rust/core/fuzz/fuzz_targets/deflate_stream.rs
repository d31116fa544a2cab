//! Invariant: a compressed stream gives the same messages and the same error whole, byte by byte and cut at places of its own, and
//! no message has more bytes than the bound, whatever they were deflated to. Without a context, a message is what it is alone.
//!
//! The first byte says what was agreed, the second how long the pieces are, the third the bound. Then comes a stream of frames, or,
//! as the first byte says, messages: each is a byte for its length, whose lowest bit says whether it is compressed, and its data.
#![no_main]
use fanwire_core::ws::{Codec, DeflateAgreement, Opcode, ReceiveError, Received, header_bytes, write_header};
use libfuzzer_sys::fuzz_target;

const OFFERS: [&str; 4] = [
    "permessage-deflate",
    "permessage-deflate; client_no_context_takeover",
    "permessage-deflate; client_max_window_bits",
    "permessage-deflate; client_no_context_takeover; client_max_window_bits=9",
];
const RSV1: u8 = 0x40;

fuzz_target!(|bytes: &[u8]| {
    let [kind, piece_bytes, bound, rest @ ..] = bytes else { return };
    let offer = OFFERS[usize::from(kind & 3)];
    let bytes_max = usize::from(*bound) * 16;
    let messages = if kind & 4 == 0 { None } else { Some(messages(rest)) };
    let stream = messages.as_ref().map_or_else(|| rest.to_vec(), |all| all.concat());
    let whole = receive(offer, bytes_max, stream.chunks(stream.len().max(1)));
    assert_eq!(receive(offer, bytes_max, stream.chunks(1)), whole);
    assert_eq!(receive(offer, bytes_max, stream.chunks(usize::from(*piece_bytes).max(1))), whole);
    if let Some(messages) = messages.filter(|_| offer.contains("no_context")) {
        let mut alone = Vec::new();
        for message in &messages {
            let (all, end) = receive(offer, bytes_max, std::iter::once(&message[..]));
            alone.extend(all);
            if end.is_err() {
                return assert_eq!(whole, (alone, end));
            }
        }
        assert_eq!(whole, (alone, Ok(())));
    }
});

/// Frames of a client, masked with zeros.
fn messages(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let [length, rest @ ..] = bytes {
        let (data, behind) = rest.split_at(usize::from(length >> 1).min(rest.len()));
        let mut frame = Vec::new();
        write_header(&mut frame, Opcode::Binary, data.len());
        frame[0] |= if length & 1 == 1 { RSV1 } else { 0 };
        frame[1] |= 0x80;
        frame.extend([0; 4]);
        assert_eq!(frame.len(), header_bytes(data.len()) + 4);
        frame.extend_from_slice(data);
        all.push(frame);
        bytes = behind;
    }
    all
}

type Outcome = (Vec<(u8, Vec<u8>)>, Result<(), ReceiveError>);

fn receive<'a>(offer: &str, bytes_max: usize, pieces: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let agreement = DeflateAgreement::negotiate([offer.as_bytes()].into_iter()).expect("an offer");
    let mut codec = Codec::new(bytes_max, Some(agreement));
    let mut all = Vec::new();
    for mut piece in pieces {
        loop {
            let heard = codec.receive(piece, 2, |received| all.push(own(received, bytes_max)));
            if heard.is_err() {
                return (all, heard);
            }
            piece = &[];
            if !codec.has_rest() {
                break;
            }
        }
    }
    (all, Ok(()))
}

fn own(received: Received<'_>, bytes_max: usize) -> (u8, Vec<u8>) {
    let (kind, bytes) = match received {
        Received::Text(text) => (1, text.as_bytes().to_vec()),
        Received::Binary(bytes) => (2, bytes.to_vec()),
        Received::Ping(bytes) => (9, bytes.to_vec()),
        Received::Pong(bytes) => (10, bytes.to_vec()),
        Received::Close { code, reason } => (8, format!("{code:?} {reason}").into_bytes()),
    };
    assert!(kind > 2 || bytes.len() <= bytes_max);
    (kind, bytes)
}
