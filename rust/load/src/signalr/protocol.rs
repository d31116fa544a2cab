//! What a client says to a hub, each in a frame that is ready to be sent.

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::receive::{self, write_masked};

/// What ends a JSON message.
pub(super) const SEPARATOR: u8 = 0x1e;

/// A binary frame (RFC 6455 §5.2).
const BINARY: u8 = 2;

/// The id of every invocation: a client has one under way at most.
const INVOCATION_ID: &str = "1";

/// What goes over the WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// SignalR's JSON.
    Json,
    /// SignalR's MessagePack.
    #[value(name = "messagepack")]
    MessagePack,
    /// No SignalR.
    Raw,
}

impl Protocol {
    /// The opcode of frames with data, either way.
    pub(super) fn opcode(self) -> u8 {
        if self == Self::MessagePack { BINARY } else { receive::TEXT }
    }

    /// The first frame: JSON, whatever comes after it.
    pub(super) fn handshake(self) -> Vec<u8> {
        let name = if self == Self::MessagePack { "messagepack" } else { "json" };
        frame(receive::TEXT, &record(&json!({"protocol": name, "version": 1})))
    }

    /// A ping.
    pub(super) fn ping(self) -> Vec<u8> {
        match self {
            Self::MessagePack => frame(BINARY, &[2, 0x91, 6]),
            _ => frame(receive::TEXT, b"{\"type\":6}\x1e"),
        }
    }

    /// An invocation that is to be answered.
    pub(super) fn invocation(self, target: &str, arguments: &[Value]) -> Vec<u8> {
        if self != Self::MessagePack {
            let message = json!({"type": 1, "invocationId": INVOCATION_ID, "target": target, "arguments": arguments});
            return frame(receive::TEXT, &record(&message));
        }
        let mut body = Vec::new();
        write_value(&mut body, &json!([1, {}, INVOCATION_ID, target, arguments, []]));
        let mut message = Vec::new();
        write_length(&mut message, body.len());
        message.extend_from_slice(&body);
        frame(BINARY, &message)
    }
}

fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_masked(&mut out, opcode, payload);
    out
}

fn record(message: &Value) -> Vec<u8> {
    let mut bytes = message.to_string().into_bytes();
    bytes.push(SEPARATOR);
    bytes
}

/// Appends what stands before a MessagePack message: seven bits a byte, the lowest first.
fn write_length(out: &mut Vec<u8>, mut length: usize) {
    while length > 0x7f {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

/// Appends a value as MessagePack.
fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(0xc0),
        Value::Bool(value) => out.push(0xc2 | u8::from(*value)),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number @ 0..=0x7f), _) => out.push(number as u8),
            (Some(number), _) => {
                out.push(0xcf);
                out.extend_from_slice(&number.to_be_bytes());
            }
            (None, Some(number)) => {
                out.push(0xd3);
                out.extend_from_slice(&number.to_be_bytes());
            }
            (None, None) => {
                out.push(0xcb);
                out.extend_from_slice(&number.as_f64().unwrap_or(f64::NAN).to_be_bytes());
            }
        },
        Value::String(text) => {
            write_head(out, text.len(), 0xa0, 0x1f, 0xdb);
            out.extend_from_slice(text.as_bytes());
        }
        Value::Array(items) => {
            write_head(out, items.len(), 0x90, 0x0f, 0xdd);
            items.iter().for_each(|item| write_value(out, item));
        }
        Value::Object(members) => {
            write_head(out, members.len(), 0x80, 0x0f, 0xdf);
            for (name, member) in members {
                write_head(out, name.len(), 0xa0, 0x1f, 0xdb);
                out.extend_from_slice(name.as_bytes());
                write_value(out, member);
            }
        }
    }
}

/// Appends kind and length: in one byte up to `short_max`, else with 32 bits.
fn write_head(out: &mut Vec<u8>, length: usize, short: u8, short_max: u8, long: u8) {
    if length <= usize::from(short_max) {
        return out.push(short | length as u8);
    }
    out.push(long);
    out.extend_from_slice(&(length as u32).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_masked_text_that_ends_with_the_separator() {
        assert_eq!(Protocol::Json.ping(), b"\x81\x8b\0\0\0\0{\"type\":6}\x1e");
        let call = Protocol::Json.invocation("Add", &[json!(1), json!(2)]);
        let message: Value = serde_json::from_slice(&call[6..call.len() - 1]).unwrap();
        assert_eq!(message, json!({"type": 1, "invocationId": "1", "target": "Add", "arguments": [1, 2]}));
        assert_eq!((call[1], call[call.len() - 1]), (0x80 | (call.len() - 6) as u8, SEPARATOR));
    }

    #[test]
    fn message_pack_is_masked_binary_with_its_length_in_front() {
        assert_eq!(Protocol::MessagePack.ping(), [0x82, 0x83, 0, 0, 0, 0, 2, 0x91, 6]);
        let call = Protocol::MessagePack.invocation("Add", &[json!(1), json!(300)]);
        let body = b"\x96\x01\x80\xa11\xa3Add\x92\x01\xcf\0\0\0\0\0\0\x01\x2c\x90";
        assert_eq!(call[6..], [&[body.len() as u8], &body[..]].concat());
    }

    #[test]
    fn long_message_pack_has_its_length_in_two_bytes() {
        let call = Protocol::MessagePack.invocation("Say", &[json!("x".repeat(200))]);
        let length = usize::from(call[8] & 0x7f) | usize::from(call[9]) << 7;
        assert_eq!((call[1], length), (0x80 | 126, call.len() - 10));
    }

    #[test]
    fn handshake_is_json_for_both() {
        for (protocol, name) in [(Protocol::Json, "json"), (Protocol::MessagePack, "messagepack")] {
            let handshake = protocol.handshake();
            let message: Value = serde_json::from_slice(&handshake[6..handshake.len() - 1]).unwrap();
            assert_eq!((handshake[0], message), (0x81, json!({"protocol": name, "version": 1})));
        }
    }
}
