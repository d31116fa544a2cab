//! JSON objects with known members, and JSON strings: what messages, handshakes and negotiations have in common.
use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::message::{JSON_DEPTH_MAX, MessageError};
use crate::protocol::raw::{Text, kind, kind_of_wrong};

/// The members of the JSON object `text` with these names, unread; `None` where there is none.
///
/// Of a name that stands twice the last counts. Nesting is bounded by [`JSON_DEPTH_MAX`], and nothing may follow.
pub(super) fn read_members<'a, const N: usize>(
    text: &'a [u8],
    names: [&'static str; N],
) -> Result<[Option<&'a RawValue>; N], MessageError> {
    let text = simdutf8::basic::from_utf8(text).map_err(|_| MessageError::NotUtf8 { field: "message" })?;
    check_depth(text.as_bytes())?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let members =
        Members { names }.deserialize(&mut deserializer).and_then(|members| deserializer.end().map(|()| members));
    members.map_err(|error| match text.trim_ascii_start().as_bytes().first() {
        // What serde_json says of another value quotes it.
        Some(b'"' | b'[' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') if error.is_data() => {
            MessageError::WrongType { field: "message", expected: "an object", got: "another value" }
        }
        _ => MessageError::NotJson { reason: error.to_string().into() },
    })
}

/// A member that must be a string.
pub(super) fn read_text<'a>(field: &'static str, value: &'a RawValue) -> Result<Cow<'a, str>, MessageError> {
    let expected = "a string";
    serde_json::from_str::<Text<'a>>(value.get()).map(|text| text.0).map_err(|_| MessageError::WrongType {
        field,
        expected,
        got: kind_of_wrong(expected, value),
    })
}

/// A member that must be a whole number of 32 bits.
pub(super) fn read_int(field: &'static str, value: &RawValue) -> Result<i32, MessageError> {
    serde_json::from_str(value.get()).map_err(|_| MessageError::WrongType {
        field,
        expected: "a whole number of 32 bits",
        got: kind(value),
    })
}

/// A member that must be a whole number of 64 bits.
pub(super) fn read_long(field: &'static str, value: &RawValue) -> Result<i64, MessageError> {
    serde_json::from_str(value.get()).map_err(|_| MessageError::WrongType {
        field,
        expected: "a whole number of 64 bits",
        got: kind(value),
    })
}

/// A member that must be a boolean.
pub(super) fn read_bool(field: &'static str, value: &RawValue) -> Result<bool, MessageError> {
    serde_json::from_str(value.get()).map_err(|_| MessageError::WrongType {
        field,
        expected: "a boolean",
        got: kind(value),
    })
}

/// A member that must be an array; its members stay unread.
pub(super) fn read_array<'a>(field: &'static str, value: &'a RawValue) -> Result<Vec<&'a RawValue>, MessageError> {
    serde_json::from_str(value.get()).map_err(|_| MessageError::WrongType {
        field,
        expected: "an array",
        got: kind(value),
    })
}

/// Checks that a member is an object of strings.
pub(super) fn check_headers(field: &'static str, value: &RawValue) -> Result<(), MessageError> {
    let expected = "an object of strings";
    serde_json::from_str::<Headers>(value.get()).map(|Headers| ()).map_err(|_| MessageError::WrongType {
        field,
        expected,
        got: match kind(value) {
            "an object" => "an object of other values",
            other => other,
        },
    })
}

/// Appends a JSON string, escaped as .NET's relaxed encoder does what is below U+00A1; the rest passes through.
///
/// The reference escapes also what is private, unassigned or a space other than U+0020.
pub(super) fn write_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut plain_at = 0;
    for (at, char) in text.char_indices() {
        let escape: &[u8] = match char {
            '"' => b"\\\"",
            '\\' => b"\\\\",
            '\u{8}' => b"\\b",
            '\t' => b"\\t",
            '\n' => b"\\n",
            '\u{c}' => b"\\f",
            '\r' => b"\\r",
            '\0'..='\u{1f}' | '\u{7f}'..='\u{a0}' => {
                let digit = |value: u8| b"0123456789ABCDEF"[usize::from(value & 0xf)];
                let code = char as u8;
                &[b'\\', b'u', b'0', b'0', digit(code >> 4), digit(code)]
            }
            _ => continue,
        };
        out.extend_from_slice(&text.as_bytes()[plain_at..at]);
        out.extend_from_slice(escape);
        plain_at = at + char.len_utf8();
    }
    out.extend_from_slice(&text.as_bytes()[plain_at..]);
    out.push(b'"');
}

/// Appends `"name":` and `value` as a string; a comma before it unless the object begins here.
pub(super) fn write_member(out: &mut Vec<u8>, name: &str, value: &str) {
    write_name(out, name);
    write_text(out, value);
}

/// Appends `"name":`; a comma before it unless the object begins here. `name` needs no escape.
pub(super) fn write_name(out: &mut Vec<u8>, name: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Refuses what nests too deep, before anything else looks at it. What is no JSON is left to the parser.
fn check_depth(text: &[u8]) -> Result<(), MessageError> {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        at += 1;
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth > JSON_DEPTH_MAX {
                    return Err(MessageError::TooDeep { depth_max: JSON_DEPTH_MAX });
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => loop {
                let Some(found) = text.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) else {
                    return Ok(());
                };
                at += found + 1;
                if text[at - 1] == b'"' {
                    break;
                }
                at += 1;
            },
            _ => {}
        }
    }
    Ok(())
}

/// Reads an object's members of these names.
struct Members<const N: usize> {
    names: [&'static str; N],
}

impl<'de, const N: usize> DeserializeSeed<'de> for Members<N> {
    type Value = [Option<&'de RawValue>; N];

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Members<N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = [None; N];
        while let Some(Text(key)) = map.next_key()? {
            match self.names.iter().position(|&name| name == key) {
                Some(index) => members[index] = Some(map.next_value()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(members)
    }
}

/// An object whose members are all strings, which are not kept.
struct Headers;

impl<'de> serde::de::Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeadersVisitor;
        impl<'de> Visitor<'de> for HeadersVisitor {
            type Value = Headers;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
                while map.next_entry::<Text<'_>, Text<'_>>()?.is_some() {}
                Ok(Headers)
            }
        }
        deserializer.deserialize_map(HeadersVisitor)
    }
}
