//! What both hub protocols promise of a stream of records.
use fanwire_core::protocol::signalr::{
    HubMessage, HubProtocol, RecordError, RecordReceiver, parse_message, write_message,
};

/// Checks records under cuts, and each message against what is written of it; gives `also` what was read.
///
/// The first byte says how long the pieces are, the second the bound; the rest is the stream.
pub fn check(protocol: HubProtocol, input: &[u8], also: impl Fn(&[u8], &HubMessage<'_>)) {
    let [piece_bytes, bound, stream @ ..] = input else { return };
    let record_bytes_max = usize::from(*bound) * 4;
    let whole = receive(protocol, stream.chunks(stream.len().max(1)), record_bytes_max);
    assert_eq!(receive(protocol, stream.chunks(1), record_bytes_max), whole);
    let piece_bytes = usize::from(*piece_bytes).max(1);
    assert_eq!(receive(protocol, stream.chunks(piece_bytes), record_bytes_max), whole);

    for record in whole.0.iter().map(Vec::as_slice).chain([stream]) {
        if let Ok(message) = parse_message(protocol, record) {
            check_rewritten(protocol, &message);
            also(record, &message);
        }
    }
}

type Outcome = (Vec<Vec<u8>>, Result<bool, RecordError>);

fn receive<'a>(protocol: HubProtocol, pieces: impl Iterator<Item = &'a [u8]>, record_bytes_max: usize) -> Outcome {
    let mut receiver = RecordReceiver::new(protocol);
    let mut records = Vec::new();
    for piece in pieces {
        let mut taken = 0;
        loop {
            match receiver.receive(&piece[taken..], record_bytes_max) {
                Err(error) => return (records, Err(error)),
                Ok((more, record)) => {
                    taken += more;
                    let Some(record) = record else { break };
                    assert!(record.len() < record_bytes_max);
                    records.push(record.to_vec());
                }
            }
        }
        assert_eq!(taken, piece.len());
    }
    (records, Ok(receiver.is_mid_record()))
}

/// What is written of a message is one record, which is read as the same message.
fn check_rewritten(protocol: HubProtocol, message: &HubMessage<'_>) {
    let mut out = Vec::new();
    write_message(protocol, message, &mut out);
    let mut receiver = RecordReceiver::new(protocol);
    let (taken, record) = receiver.receive(&out, usize::MAX).expect("what we write is a record");
    assert_eq!(taken, out.len());
    let record = record.expect("what we write is whole");
    assert_eq!(parse_message(protocol, record).as_ref(), Ok(message));
}
