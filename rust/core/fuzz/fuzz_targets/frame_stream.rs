//! Invariant: a stream gives the same messages and the same error whole, byte by byte and cut at places of its own.
//!
//! The first byte says how long the pieces are, the second the bound; the rest is the stream.
#![no_main]
use fanwire_core::ws::{ReceiveError, Received, Receiver};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let [piece_bytes, bound, stream @ ..] = bytes else { return };
    let message_bytes_max = usize::from(*bound) * 4;
    let whole = receive(stream.chunks(stream.len().max(1)), message_bytes_max);
    assert_eq!(receive(stream.chunks(1), message_bytes_max), whole);
    let piece_bytes = usize::from(*piece_bytes).max(1);
    assert_eq!(receive(stream.chunks(piece_bytes), message_bytes_max), whole);
});

type Outcome = (Vec<(u8, Vec<u8>)>, Result<bool, ReceiveError>);

fn receive<'a>(pieces: impl Iterator<Item = &'a [u8]>, message_bytes_max: usize) -> Outcome {
    let mut receiver = Receiver::new();
    let mut all = Vec::new();
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let mut taken = 0;
        loop {
            match receiver.receive(&mut bytes[taken..], message_bytes_max) {
                Err(error) => return (all, Err(error)),
                Ok((more, received)) => {
                    taken += more;
                    let Some(received) = received else { break };
                    all.push(own(received, message_bytes_max));
                }
            }
        }
        assert_eq!(taken, bytes.len());
    }
    (all, Ok(receiver.is_mid_message()))
}

fn own(received: Received<'_>, message_bytes_max: usize) -> (u8, Vec<u8>) {
    let (kind, bytes) = match received {
        Received::Text(text) => (1, text.as_bytes().to_vec()),
        Received::Binary(bytes) => (2, bytes.to_vec()),
        Received::Ping(bytes) => (9, bytes.to_vec()),
        Received::Pong(bytes) => (10, bytes.to_vec()),
        Received::Close { code, reason } => {
            assert!(code.is_none_or(|code| code.may_be_received()));
            (8, format!("{code:?} {reason}").into_bytes())
        }
    };
    assert!(kind > 2 || bytes.len() <= message_bytes_max);
    (kind, bytes)
}
