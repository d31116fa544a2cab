//! A publication as anybody can write it: an object of JSON, in the place of a hub's own bytes (docs/records.md).
//!
//! What begins with `{` is one. A hub's own begin with the number of a machine, whose first byte is zero.
use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::channel::{Publication, Tags, write_json_tags, write_publication};
use crate::protocol::{Encoded, Payload, json_to_msgpack};
use crate::settings::Settings;

/// What stands there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain<'a> {
    #[serde(borrow, default, deserialize_with = "given")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "given")]
    arguments: Option<&'a RawValue>,
    #[serde(borrow, default)]
    base64: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    key: Option<Cow<'a, str>>,
    #[serde(default)]
    ttl: Option<f64>,
    #[serde(default)]
    tags: Option<Map<String, Value>>,
    #[serde(default)]
    keyframe: bool,
    #[serde(default)]
    remove: bool,
}

/// A value that is there, and may be null.
fn given<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(reader).map(Some)
}

/// Whether these bytes claim to be one.
pub(super) fn is_plain(bytes: &[u8]) -> bool {
    bytes.first() == Some(&b'{')
}

/// It as a hub writes its own.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn read_plain(bytes: &[u8], settings: &Settings) -> Result<Vec<u8>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is no UTF-8".to_owned())?;
    let plain: Plain<'_> = serde_json::from_str(text).map_err(|error| format!("is no publication: {error}"))?;
    let given = [plain.data.is_some(), plain.arguments.is_some(), plain.base64.is_some()];
    let count = given.into_iter().filter(|one| *one).count();
    let removed = removed_of(&plain)?;
    if count > 1 || (count == 0 && removed.is_none()) {
        return Err("has to have one of data, arguments and base64".to_owned());
    }
    let (mut msgpack, bytes, string);
    let payload = match &plain {
        Plain { base64: Some(base64), .. } => {
            bytes = STANDARD.decode(&**base64).map_err(|error| format!("has a base64 that is none: {error}"))?;
            Payload::Binary(&bytes)
        }
        Plain { data: Some(data), .. } if data.get().starts_with('"') => {
            string = serde_json::from_str::<String>(data.get()).map_err(|error| error.to_string())?;
            Payload::Text(&string)
        }
        _ => {
            let json = plain.arguments.or(plain.data).map(RawValue::get).or(removed.as_deref()).unwrap_or("null");
            msgpack = Vec::new();
            if settings.speaks_msgpack {
                json_to_msgpack(json, &mut msgpack)?;
            }
            let encoded = Encoded::alike(Some(json.as_bytes()), settings.speaks_msgpack.then_some(msgpack.as_slice()));
            match plain.arguments {
                Some(arguments) if !arguments.get().starts_with('[') => {
                    return Err("has arguments that are no array".to_owned());
                }
                Some(_) => Payload::Arguments(encoded),
                None => Payload::Object(encoded),
            }
        }
    };
    let mut tags = Vec::new();
    if let Some(given) = &plain.tags {
        write_json_tags(given, &mut tags).map_err(|error| format!("has a {error}"))?;
    }
    let publication = Publication {
        event: plain.event.as_deref(),
        key: plain.key.as_deref(),
        ttl_ns: plain.ttl.map(ttl_ns).transpose()?,
        is_keyframe: plain.keyframe,
        is_removal: plain.remove,
        tags: Tags::read(&tags).unwrap_or_default(),
        ..Publication::new(payload)
    };
    publication.check(settings.publication_bytes_max).map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    write_publication(&publication, &mut out);
    Ok(out)
}

/// What others are told of a key that ends, where nothing else is said.
fn removed_of(plain: &Plain<'_>) -> Result<Option<String>, String> {
    match (&plain.key, plain.remove) {
        (_, false) => Ok(None),
        (None, true) => Err("removes a key and names none".to_owned()),
        (Some(key), true) => Ok(Some(serde_json::json!({ "removed": key }).to_string())),
    }
}

fn ttl_ns(seconds: f64) -> Result<u64, String> {
    if seconds > 0.0 { Ok((seconds * 1e9) as u64) } else { Err(format!("has a ttl of {seconds}: over 0 s it may be")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::read_publication;

    fn told(text: &str) -> Result<String, String> {
        let bytes = read_plain(text.as_bytes(), &Settings::default())?;
        let mut told = String::new();
        read_publication(&bytes, |one| told = format!("{one:?}")).expect("it was just written");
        Ok(told)
    }

    #[test]
    fn what_may_be_said_is_read() {
        let text = told(r#"{"data":"hi\n","event":"e","key":"k","ttl":1.5,"keyframe":true}"#).unwrap();
        for part in [r#"Text("hi\n")"#, r#"event: Some("e")"#, r#"key: Some("k")"#, "1500000000", "is_keyframe: true"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(told(r#"{"base64":"AP8="}"#).unwrap().contains("Binary([0, 255])"));
        assert!(told(r#"{"arguments":[1,2]}"#).unwrap().contains("Arguments("));
        assert!(told(r#"{"data":null}"#).unwrap().contains("Object("));
        assert!(told(r#"{"key":"k","remove":true}"#).unwrap().contains("is_removal: true"));
    }

    #[test]
    fn tags_are_read() {
        let text = told(r#"{"data":1,"tags":{"league":"seriea","odds":1.5,"live":true}}"#).unwrap();
        assert!(
            text.contains(r#"tags: {"league": Text("seriea"), "live": Truth(true), "odds": Number(1.5)}"#),
            "{text}"
        );
    }

    #[test]
    fn what_may_not_is_named() {
        for (text, why) in [
            ("{", "EOF"),
            ("{}", "one of data"),
            (r#"{"data":1,"base64":""}"#, "one of data"),
            (r#"{"dta":1}"#, "dta"),
            (r#"{"base64":"?"}"#, "base64"),
            (r#"{"arguments":1}"#, "no array"),
            (r#"{"data":1,"ttl":0}"#, "ttl of 0"),
            (r#"{"remove":true}"#, "names none"),
            (r#"{"data":1,"event":"a\nb"}"#, "event"),
            (r#"{"data":1,"tags":{"odds":null}}"#, "odds"),
        ] {
            let error = told(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
