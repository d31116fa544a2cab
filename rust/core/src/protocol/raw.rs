//! The raw WebSocket: frames are the publications themselves, and a few JSON objects ask for something.
//!
//! `{"subscribe":["a"],"since":{"a":[epoch,offset]},"start":"live","filter":{…}}`, `{"unsubscribe":["a"]}` and
//! `{"call":"PlaceBet","args":[…],"id":1}` are requests; every other message is the application's.
use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::ws::{Opcode, header_bytes, write_header};

/// A message of a client, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// It wants these channels.
    Subscribe {
        /// Their names as sent, in order; may be empty or repeat.
        channels: Vec<Cow<'a, str>>,
        /// Where it was, of channels that it wants recovered; may name others too. `None` if it did not say, and so does
        /// not ask where it is now.
        since: Option<Vec<Since<'a>>>,
        /// Where it wants to begin in the others, as sent.
        start: Option<Cow<'a, str>>,
        /// Which publications it wants of all of them: JSON text.
        filter: Option<&'a str>,
        /// The JSON text of a string or number, to be repeated in the reply.
        id: Option<&'a str>,
    },
    /// It no longer wants these channels.
    Unsubscribe {
        /// Their names as sent, in order; may be empty or repeat.
        channels: Vec<Cow<'a, str>>,
        /// The JSON text of a string or number, to be repeated in the reply.
        id: Option<&'a str>,
    },
    /// It calls a method.
    Call {
        /// The method's name.
        target: Cow<'a, str>,
        /// The JSON text of an array; `[]` if there was none.
        arguments: &'a str,
        /// The JSON text of a string or number, to be repeated in the reply.
        id: Option<&'a str>,
    },
    /// None of these: the application's own message.
    Other,
}

/// Where a client was in a channel when it lost its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since<'a> {
    /// The channel's name as sent.
    pub channel: Cow<'a, str>,
    /// Which life of the log.
    pub epoch: u64,
    /// The number of the last publication that it had.
    pub offset: u64,
}

/// A request that cannot be understood. To be answered with [`write_reply_error`]; the connection lives on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{misdeed}")]
pub struct RawError {
    /// The request's id, if that at least could be read.
    pub id: Option<Box<str>>,
    /// What is wrong.
    pub misdeed: Misdeed,
}

/// What is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misdeed {
    /// A field has the wrong type.
    #[error("{field}: expected {expected}, got {got}")]
    WrongType {
        /// Which field.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        got: &'static str,
    },
    /// A member of an array or object has the wrong type.
    #[error("{field}[{index}]: expected {expected}, got {got}")]
    WrongMember {
        /// Which field.
        field: &'static str,
        /// Which of its members, from 0.
        index: usize,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        got: &'static str,
    },
    /// A position that is none.
    #[error("since[{channel:?}]: expected [epoch, offset] as two whole numbers, got {got}")]
    WrongSince {
        /// Of which channel; at most 80 characters.
        channel: String,
        /// What it is.
        got: &'static str,
    },
    /// Two requests in one object.
    #[error("a request has one of subscribe, unsubscribe and call, got {first} and {second}")]
    SeveralRequests {
        /// One of them.
        first: &'static str,
        /// Another.
        second: &'static str,
    },
}

/// How many bytes a frame of this payload has.
pub(crate) const fn frame_bytes(payload: &[u8]) -> usize {
    header_bytes(payload.len()) + payload.len()
}

/// Appends a text frame (RFC 6455 §5.6). `text` must be UTF-8: clients fail the connection otherwise.
pub fn write_text(out: &mut Vec<u8>, text: &[u8]) {
    write_header(out, Opcode::Text, text.len());
    out.extend_from_slice(text);
}

/// Appends a binary frame (RFC 6455 §5.6).
pub fn write_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    write_header(out, Opcode::Binary, bytes.len());
    out.extend_from_slice(bytes);
}

/// Reads a client's text message.
///
/// Only an object with one of the keys `subscribe`, `unsubscribe`, `call` is a request; all else, also what is no JSON,
/// is [`Request::Other`]. Of a key that stands twice the last counts, as in `JSON.parse`; `null` counts as absent in
/// `id`, `args`, `since`, `start` and `filter`; unknown keys are skipped. No nesting is deep enough to exhaust the stack.
///
/// # Errors
/// [`RawError`] of a request with fields of wrong types, or of two requests in one.
pub fn parse_request(text: &str) -> Result<Request<'_>, RawError> {
    let trimmed = text.trim_ascii_start();
    if !trimmed.starts_with('{') {
        return Ok(Request::Other);
    }
    let Ok(fields) = serde_json::from_str::<RequestFields<'_>>(trimmed) else {
        return Ok(Request::Other);
    };
    let id = read_id(fields.id);
    let known_id = id.as_ref().ok().copied().flatten();
    read_request(&fields, id).map_err(|misdeed| RawError { id: known_id.map(Box::from), misdeed })
}

/// Appends `{"id":<id>,"error":"<error>"}`, a reply's JSON text without a frame; no `id` where there is none.
///
/// `id` is JSON text as [`parse_request`] gives it, `error` any text.
pub fn write_reply_error(out: &mut Vec<u8>, id: Option<&str>, error: &str) {
    write_reply_start(out, id);
    out.extend_from_slice(b"\"error\":");
    serde_json::to_writer(&mut *out, error).expect("a string is JSON, and a Vec takes all");
    out.push(b'}');
}

/// Appends `{"id":<id>,"result":<result>}`, a reply's JSON text without a frame; no `id` where there is none.
///
/// `id` and `result` are JSON text and taken as they are.
pub fn write_reply_result(out: &mut Vec<u8>, id: Option<&str>, result: &str) {
    write_reply_start(out, id);
    out.extend_from_slice(b"\"result\":");
    out.extend_from_slice(result.as_bytes());
    out.push(b'}');
}

fn write_reply_start(out: &mut Vec<u8>, id: Option<&str>) {
    out.push(b'{');
    if let Some(id) = id {
        out.extend_from_slice(b"\"id\":");
        out.extend_from_slice(id.as_bytes());
        out.push(b',');
    }
}

fn read_request<'a>(fields: &RequestFields<'a>, id: Result<Option<&'a str>, Misdeed>) -> Result<Request<'a>, Misdeed> {
    let asked =
        [fields.subscribe.map(|_| "subscribe"), fields.unsubscribe.map(|_| "unsubscribe"), fields.call.map(|_| "call")];
    let mut asked = asked.into_iter().flatten();
    let Some(first) = asked.next() else {
        return Ok(Request::Other);
    };
    if let Some(second) = asked.next() {
        return Err(Misdeed::SeveralRequests { first, second });
    }
    let id = id?;
    if let Some(channels) = fields.subscribe {
        let channels = read_channels("subscribe", channels)?;
        let start = fields.start.filter(|start| start.get() != "null");
        let start = start.map(|start| from_raw::<Text<'_>>("start", "a string", start)).transpose()?;
        let start = start.map(|start| start.0);
        let filter = fields.filter.map(RawValue::get).filter(|filter| *filter != "null");
        return Ok(Request::Subscribe { channels, since: read_since(fields.since)?, start, filter, id });
    }
    if let Some(channels) = fields.unsubscribe {
        return Ok(Request::Unsubscribe { channels: read_channels("unsubscribe", channels)?, id });
    }
    let Some(call) = fields.call else {
        return Ok(Request::Other);
    };
    let target = from_raw::<Text<'_>>("call", "a string", call)?.0;
    let arguments = match fields.args.filter(|args| args.get() != "null") {
        None => "[]",
        Some(args) if args.get().starts_with('[') => args.get(),
        Some(args) => {
            return Err(Misdeed::WrongType { field: "args", expected: "an array", got: kind(args) });
        }
    };
    Ok(Request::Call { target, arguments, id })
}

fn read_id(id: Option<&RawValue>) -> Result<Option<&str>, Misdeed> {
    let Some(id) = id.filter(|id| id.get() != "null") else {
        return Ok(None);
    };
    match kind(id) {
        "a string" | "a number" => Ok(Some(id.get())),
        got => Err(Misdeed::WrongType { field: "id", expected: "a string or a number", got }),
    }
}

fn read_channels<'a>(field: &'static str, channels: &'a RawValue) -> Result<Vec<Cow<'a, str>>, Misdeed> {
    let members: Vec<&'a RawValue> = from_raw(field, "an array of strings", channels)?;
    let read_member = |(index, member): (usize, &'a RawValue)| {
        let wrong =
            |_| Misdeed::WrongMember { field, index, expected: "a string", got: kind_of_wrong("a string", member) };
        serde_json::from_str::<Text<'a>>(member.get()).map(|text| text.0).map_err(wrong)
    };
    members.into_iter().enumerate().map(read_member).collect()
}

fn read_since(since: Option<&RawValue>) -> Result<Option<Vec<Since<'_>>>, Misdeed> {
    let Some(since) = since.filter(|since| since.get() != "null") else {
        return Ok(None);
    };
    let Pairs(pairs) = from_raw("since", "an object of [epoch, offset]", since)?;
    let mut positions = Vec::with_capacity(pairs.len());
    for (channel, position) in pairs {
        let (epoch, offset) = serde_json::from_str(position.get())
            .map_err(|_| Misdeed::WrongSince { channel: channel.chars().take(80).collect(), got: kind(position) })?;
        positions.push(Since { channel, epoch, offset });
    }
    Ok(Some(positions))
}

/// Reads a value of a fixed shape; members stay unread, so that no depth is followed.
fn from_raw<'a, T: Deserialize<'a>>(
    field: &'static str,
    expected: &'static str,
    value: &'a RawValue,
) -> Result<T, Misdeed> {
    let wrong = |_| Misdeed::WrongType { field, expected, got: kind_of_wrong(expected, value) };
    serde_json::from_str(value.get()).map_err(wrong)
}

/// What a JSON value is, by its first byte.
pub(super) fn kind(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'[') => "an array",
        Some(b'{') => "an object",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// As [`kind`], of a value that is not what was expected: if it is a string and should be one, it is no text.
pub(super) fn kind_of_wrong(expected: &str, value: &RawValue) -> &'static str {
    match kind(value) {
        "a string" if expected == "a string" => "a string with half a surrogate pair",
        other => other,
    }
}

/// The fields that make an object a request, unread.
#[derive(Default)]
struct RequestFields<'a> {
    subscribe: Option<&'a RawValue>,
    unsubscribe: Option<&'a RawValue>,
    call: Option<&'a RawValue>,
    args: Option<&'a RawValue>,
    since: Option<&'a RawValue>,
    start: Option<&'a RawValue>,
    filter: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for RequestFields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = RequestFields<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RequestFields<'de>, A::Error> {
                let mut fields = RequestFields::default();
                while let Some(Text(key)) = map.next_key()? {
                    let field = match &*key {
                        "subscribe" => &mut fields.subscribe,
                        "unsubscribe" => &mut fields.unsubscribe,
                        "call" => &mut fields.call,
                        "args" => &mut fields.args,
                        "since" => &mut fields.since,
                        "start" => &mut fields.start,
                        "filter" => &mut fields.filter,
                        "id" => &mut fields.id,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *field = Some(map.next_value()?);
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// An object's members in the order sent, values unread.
struct Pairs<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some((Text(key), value)) = map.next_entry()? {
                    pairs.push((key, value));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(PairsVisitor)
    }
}

/// A string, borrowed where it has no escapes; serde's own `Cow` always copies.
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}
