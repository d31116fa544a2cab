//! Invariant: a stream of JSON records gives the same whole and cut; what is read is what serde_json reads, and reads
//! the same once written.
#![no_main]
mod signalr_stream;

use fanwire_core::protocol::signalr::{HubMessage, HubProtocol};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|input: &[u8]| signalr_stream::check(HubProtocol::Json, input, check_oracle));

fn check_oracle(record: &[u8], message: &HubMessage<'_>) {
    // What serde_json cannot hold as a value (1e999, half a surrogate pair in arguments) has no oracle.
    let Ok(value) = serde_json::from_slice::<Value>(record) else { return };
    assert_eq!(value["type"], message.message_type());
    if let HubMessage::Invocation { target, arguments, stream_ids, .. } = message {
        assert_eq!(value["target"], **target);
        assert_eq!(value["arguments"], serde_json::from_slice::<Value>(arguments).expect("arguments are JSON"));
        assert_eq!(value["streamIds"].as_array().map_or(0, Vec::len), stream_ids.len());
    }
}
