//! What a publication is tagged with, which filters look at: names with a text, a number or a truth value.
//!
//! They are checked once, where they are published, and are bytes from there on: in logs, between workers and machines. One tag
//! after the other in the order of their names: a name behind its length, a kind, and the value.
use std::fmt;

use serde_json::{Map, Value};

use crate::error::EngineError;

/// Tags of one publication at most.
pub const TAGS_MAX: usize = 16;
/// Longest name of a tag, bytes of UTF-8.
pub const TAG_NAME_BYTES_MAX: usize = 64;
/// Longest text of a tag, bytes of UTF-8.
pub const TAG_TEXT_BYTES_MAX: usize = 255;
/// Whole numbers up to here are told apart, in JSON, in Python and here.
pub const TAG_WHOLE_MAX: i64 = 1 << 53;

const TEXT: u8 = 0;
const NUMBER: u8 = 1;
const FALSE: u8 = 2;
const TRUE: u8 = 3;

/// What a tag says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TagValue<'a> {
    /// A text.
    Text(&'a str),
    /// A whole number or another one: 1 and 1.0 are the same.
    Number(f64),
    /// True or false, which are no numbers.
    Truth(bool),
}

/// A publication's tags, in the order of their names.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Tags<'a>(&'a [u8]);

impl fmt::Debug for Tags<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.iter()).finish()
    }
}

impl<'a> Tags<'a> {
    /// Bytes that are tags; `None` of others, and of such as nobody may publish.
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (mut rest, mut last, mut count) = (bytes, None, 0);
        while !rest.is_empty() {
            let (name, value) = take_one(&mut rest)?;
            count += 1;
            let is_next = last.is_none_or(|last| last < name) && count <= TAGS_MAX;
            (is_next && fault_of(name, value).is_none()).then_some(())?;
            last = Some(name);
        }
        Some(Self(bytes))
    }

    /// Tags that were read before.
    pub(super) fn known(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// As they cross and are kept; empty where there are none.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Each, in the order of their names.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, TagValue<'a>)> {
        let mut rest = self.0;
        std::iter::from_fn(move || if rest.is_empty() { None } else { take_one(&mut rest) })
    }
}

fn take_one<'a>(rest: &mut &'a [u8]) -> Option<(&'a str, TagValue<'a>)> {
    let text = |rest: &mut &'a [u8]| {
        let (&length, behind) = rest.split_first()?;
        let (text, behind) = behind.split_at_checked(length.into())?;
        *rest = behind;
        std::str::from_utf8(text).ok()
    };
    let name = text(rest)?;
    let (&kind, behind) = rest.split_first()?;
    *rest = behind;
    let value = match kind {
        TEXT => TagValue::Text(text(rest)?),
        NUMBER => {
            let (bits, behind) = rest.split_first_chunk()?;
            *rest = behind;
            TagValue::Number(f64::from_le_bytes(*bits))
        }
        FALSE | TRUE => TagValue::Truth(kind == TRUE),
        _ => return None,
    };
    Some((name, value))
}

/// What is wrong with a tag, in words that name it, what it has and the bound.
fn fault_of(name: &str, value: TagValue<'_>) -> Option<String> {
    if let Some(fault) = fault_of_name(name) {
        return Some(fault);
    }
    match value {
        TagValue::Text(text) if text.len() > TAG_TEXT_BYTES_MAX => {
            Some(format!("tag {name:?}: a text of {} bytes is over the bound of {TAG_TEXT_BYTES_MAX}", text.len()))
        }
        TagValue::Number(number) if !number.is_finite() => {
            Some(format!("tag {name:?}: a number must be finite, not {number}"))
        }
        _ => None,
    }
}

/// What is wrong with the name of a tag.
pub(super) fn fault_of_name(name: &str) -> Option<String> {
    let shown: String = name.chars().take(80).collect();
    if name.is_empty() || name.len() > TAG_NAME_BYTES_MAX {
        return Some(format!("tag {shown:?}: a name has 1 to {TAG_NAME_BYTES_MAX} bytes of UTF-8, not {}", name.len()));
    }
    name.chars().any(char::is_control).then(|| format!("tag {shown:?}: a name must not hold control characters"))
}

/// Appends tags as bytes, each name once, in any order.
///
/// # Errors
/// [`EngineError::InvalidTag`], which names the tag, what it has, and the bound.
pub fn write_tags(mut tags: Vec<(&str, TagValue<'_>)>, out: &mut Vec<u8>) -> Result<(), EngineError> {
    let invalid = |fault| Err(EngineError::InvalidTag { fault });
    if tags.len() > TAGS_MAX {
        return invalid(format!("tags: {} are over the bound of {TAGS_MAX}", tags.len()));
    }
    tags.sort_by_key(|tag| tag.0);
    for (name, value) in tags {
        if let Some(fault) = fault_of(name, value) {
            return invalid(fault);
        }
        put_text(name, out);
        match value {
            TagValue::Text(text) => {
                out.push(TEXT);
                put_text(text, out);
            }
            TagValue::Number(number) => {
                out.push(NUMBER);
                out.extend_from_slice(&(number + 0.0).to_le_bytes()); // -0 is 0
            }
            TagValue::Truth(is_so) => out.push(if is_so { TRUE } else { FALSE }),
        }
    }
    Ok(())
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    out.push(text.len() as u8); // its bound was looked at
    out.extend_from_slice(text.as_bytes());
}

/// Appends the tags of a JSON object.
///
/// # Errors
/// [`EngineError::InvalidTag`].
pub(crate) fn write_json_tags(tags: &Map<String, Value>, out: &mut Vec<u8>) -> Result<(), EngineError> {
    let tags: Result<Vec<_>, _> =
        tags.iter().map(|(name, value)| Ok((name.as_str(), value_of(name, value)?))).collect();
    write_tags(tags?, out)
}

/// A value of JSON as that of the tag called `name`.
///
/// # Errors
/// [`EngineError::InvalidTag`].
pub(super) fn value_of<'a>(name: &str, value: &'a Value) -> Result<TagValue<'a>, EngineError> {
    let shown: String = name.chars().take(80).collect();
    match value {
        Value::String(text) => Ok(TagValue::Text(text)),
        Value::Bool(is_so) => Ok(TagValue::Truth(*is_so)),
        Value::Number(number) => {
            let is_exact = number.is_f64() || number.as_i64().is_some_and(|whole| whole.abs() <= TAG_WHOLE_MAX);
            let found = number.as_f64().filter(|number| is_exact && number.is_finite());
            found.map(|number| TagValue::Number(number + 0.0)).ok_or_else(|| EngineError::InvalidTag {
                fault: format!("tag {shown:?}: a whole number is within ±{TAG_WHOLE_MAX}, not {number}"),
            })
        }
        other => {
            let got = match other {
                Value::Null => "null",
                Value::Array(_) => "an array",
                _ => "an object",
            };
            Err(EngineError::InvalidTag {
                fault: format!("tag {shown:?}: expected a text, a number, true or false, got {got}"),
            })
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Tags from a JSON object.
    pub(in super::super) fn tags(json: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_json_tags(&serde_json::from_str(json).expect("an object"), &mut bytes).expect("tags");
        bytes
    }

    #[test]
    fn tags_are_read_back_in_the_order_of_their_names() {
        let bytes = tags(r#"{"odds":2.5,"league":"seriea","live":true,"minute":90}"#);
        let all: Vec<_> = Tags::read(&bytes).expect("tags").iter().collect();
        let number = TagValue::Number;
        let expected = [
            ("league", TagValue::Text("seriea")),
            ("live", TagValue::Truth(true)),
            ("minute", number(90.0)),
            ("odds", number(2.5)),
        ];
        assert_eq!(all, expected);
        assert!(Tags::read(&[]).expect("none").is_empty());
    }

    #[test]
    fn what_no_tag_may_be_is_named_with_the_bound() {
        let fault = |json: &str| {
            let object = serde_json::from_str(json).expect("an object");
            write_json_tags(&object, &mut Vec::new()).expect_err(json).to_string()
        };
        assert_eq!(fault(r#"{"":1}"#), "tag \"\": a name has 1 to 64 bytes of UTF-8, not 0");
        assert_eq!(fault(r#"{"a\n":1}"#), "tag \"a\\n\": a name must not hold control characters");
        assert_eq!(fault(r#"{"a":null}"#), "tag \"a\": expected a text, a number, true or false, got null");
        assert_eq!(
            fault(r#"{"a":9007199254740993}"#),
            "tag \"a\": a whole number is within ±9007199254740992, not 9007199254740993"
        );
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(256));
        assert_eq!(fault(&long), "tag \"a\": a text of 256 bytes is over the bound of 255");
        let many: Map<String, Value> = (0..17).map(|number| (number.to_string(), number.into())).collect();
        assert_eq!(fault(&Value::Object(many).to_string()), "tags: 17 are over the bound of 16");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(tags) = Tags::read(&bytes) {
                prop_assert!(tags.iter().count() <= TAGS_MAX);
            }
        }
    }
}
