//! Which publications of a channel a subscription is to get, by their tags.
//!
//! A filter is an object of JSON: names of tags, and what each has to be. All of it has to hold. It is brought into one form, so
//! that all who want the same share one, and are one feed in a shard.
use std::cmp::Ordering;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde_json::{Map, Value as Json};
use thiserror::Error;

use super::tags::{TagValue, Tags, fault_of_name, value_of};

/// Longest filter, bytes of JSON.
pub const FILTER_BYTES_MAX: usize = 4_096;
/// Conditions of one filter at most.
pub const FILTER_TERMS_MAX: usize = 16;

/// A filter that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FilterError {
    /// Over [`FILTER_BYTES_MAX`].
    #[error("filter of {bytes} bytes is over the bound of {FILTER_BYTES_MAX}")]
    TooLong {
        /// What was given.
        bytes: usize,
    },
    /// Over [`FILTER_TERMS_MAX`].
    #[error("filter of {count} conditions is over the bound of {FILTER_TERMS_MAX}")]
    TooMany {
        /// What it has, or would have with that of the application.
        count: usize,
    },
    /// No JSON, or no object.
    #[error("filter must be an object of JSON: {why}")]
    NoObject {
        /// What it is.
        why: String,
    },
    /// What a tag is to be is nothing that one can be.
    #[error("filter: {why}")]
    Condition {
        /// The tag, what is wrong, and the bound.
        why: String,
    },
}

/// What a tag has to be.
#[derive(Clone, Debug, PartialEq)]
enum Condition {
    /// One of these, in order.
    OneOf(Box<[Wanted]>),
    /// A text that begins so.
    Prefix(Box<str>),
    /// A number from the one to the other, both included.
    Range(Option<f64>, Option<f64>),
}

/// A value that a tag may have.
#[derive(Clone, Debug, PartialEq)]
enum Wanted {
    Text(Box<str>),
    Number(f64),
    Truth(bool),
}

/// A filter in its one form.
#[derive(Clone, Debug)]
pub struct Filter {
    /// In the order of their names; those of one name in that of their text.
    terms: Box<[(Box<str>, Condition)]>,
    /// Its one form as a text: filters are equal when these are.
    text: Box<str>,
    hash: u64,
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.text == other.text
    }
}

impl Eq for Filter {}

impl Filter {
    /// Reads a filter; `None` where nothing is asked of a publication.
    ///
    /// # Errors
    /// [`FilterError`], which names what is wrong and the bound.
    pub fn parse(json: &str) -> Result<Option<Arc<Self>>, FilterError> {
        if json.len() > FILTER_BYTES_MAX {
            return Err(FilterError::TooLong { bytes: json.len() });
        }
        let read: Json =
            serde_json::from_str(json).map_err(|error| FilterError::NoObject { why: error.to_string() })?;
        let terms = match &read {
            Json::Object(terms) => terms,
            Json::Null => return Ok(None),
            other => return Err(FilterError::NoObject { why: format!("got {}", kind(other)) }),
        };
        let terms = terms.iter().map(|(name, wanted)| Ok((name.as_str().into(), condition(name, wanted)?)));
        Self::of(terms.collect::<Result<_, _>>()?)
    }

    /// What both let through.
    ///
    /// # Errors
    /// [`FilterError::TooMany`].
    pub fn both(one: Option<&Arc<Self>>, other: Option<&Arc<Self>>) -> Result<Option<Arc<Self>>, FilterError> {
        let (one, other) = match (one, other) {
            (Some(one), Some(other)) => (one, other),
            (one, other) => return Ok(one.or(other).cloned()),
        };
        Self::of(one.terms.iter().chain(&other.terms).cloned().collect())
    }

    fn of(terms: Vec<(Box<str>, Condition)>) -> Result<Option<Arc<Self>>, FilterError> {
        let mut terms: Vec<_> = terms.into_iter().map(|term| (text_of(&term), term)).collect();
        terms.sort_by(|one, other| (&one.1.0, &one.0).cmp(&(&other.1.0, &other.0)));
        terms.dedup_by(|one, other| one.0 == other.0);
        if terms.len() > FILTER_TERMS_MAX {
            return Err(FilterError::TooMany { count: terms.len() });
        }
        let texts: Vec<&str> = terms.iter().map(|term| &*term.0).collect();
        let text = texts.join(",").into_boxed_str();
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let hash = hasher.finish();
        let terms: Box<[_]> = terms.into_iter().map(|term| term.1).collect();
        Ok((!terms.is_empty()).then(|| Arc::new(Self { terms, text, hash })))
    }

    /// Its one form, as a text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a publication with these tags passes: one without a tag that is named does not.
    #[must_use]
    pub fn matches(&self, tags: Tags<'_>) -> bool {
        let mut tags = tags.iter().peekable();
        self.terms.iter().all(|(name, condition)| {
            while tags.next_if(|tag| *tag.0 < **name).is_some() {}
            tags.peek().is_some_and(|tag| *tag.0 == **name && condition.holds(tag.1))
        })
    }
}

impl Condition {
    fn holds(&self, value: TagValue<'_>) -> bool {
        match (self, value) {
            (Self::OneOf(wanted), _) => wanted.binary_search_by(|one| one.order(value)).is_ok(),
            (Self::Prefix(prefix), TagValue::Text(text)) => text.starts_with(&**prefix),
            (Self::Range(min, max), TagValue::Number(number)) => {
                min.is_none_or(|min| min <= number) && max.is_none_or(|max| number <= max)
            }
            _ => false,
        }
    }
}

impl Wanted {
    fn of(value: TagValue<'_>) -> Self {
        match value {
            TagValue::Text(text) => Self::Text(text.into()),
            TagValue::Number(number) => Self::Number(number),
            TagValue::Truth(is_so) => Self::Truth(is_so),
        }
    }

    fn value(&self) -> TagValue<'_> {
        match self {
            Self::Text(text) => TagValue::Text(text),
            Self::Number(number) => TagValue::Number(*number),
            Self::Truth(is_so) => TagValue::Truth(*is_so),
        }
    }

    /// Texts, then numbers, then truth values.
    fn order(&self, other: TagValue<'_>) -> Ordering {
        let rank = |value| match value {
            TagValue::Text(_) => 0,
            TagValue::Number(_) => 1,
            TagValue::Truth(_) => 2,
        };
        match (self.value(), other) {
            (TagValue::Text(one), TagValue::Text(other)) => one.cmp(other),
            (TagValue::Number(one), TagValue::Number(other)) => one.total_cmp(&other),
            (TagValue::Truth(one), TagValue::Truth(other)) => one.cmp(&other),
            (one, other) => rank(one).cmp(&rank(other)),
        }
    }
}

/// The one text of a term.
fn text_of((name, condition): &(Box<str>, Condition)) -> String {
    let wanted = match condition {
        Condition::OneOf(wanted) => Json::Array(
            wanted
                .iter()
                .map(|one| match one.value() {
                    TagValue::Text(text) => text.into(),
                    TagValue::Number(number) => number.into(),
                    TagValue::Truth(is_so) => is_so.into(),
                })
                .collect(),
        ),
        Condition::Prefix(prefix) => serde_json::json!({ "prefix": prefix }),
        Condition::Range(min, max) => serde_json::json!({ "min": min, "max": max }),
    };
    format!("{}:{wanted}", Json::from(&**name))
}

fn condition(name: &str, wanted: &Json) -> Result<Condition, FilterError> {
    let wrong = |why| FilterError::Condition { why };
    if let Some(why) = fault_of_name(name) {
        return Err(wrong(why));
    }
    let value = |one: &Json| value_of(name, one).map(Wanted::of).map_err(|error| wrong(error.to_string()));
    match wanted {
        Json::Array(several) if several.is_empty() => {
            Err(wrong(format!("tag {name:?}: an empty array lets nothing through")))
        }
        Json::Array(several) => {
            let mut values = several.iter().map(value).collect::<Result<Vec<_>, _>>()?;
            values.sort_by(|one, other| one.order(other.value()));
            values.dedup();
            Ok(Condition::OneOf(values.into()))
        }
        Json::Object(members) => by_members(name, members).map_err(wrong),
        one => Ok(Condition::OneOf(Box::new([value(one)?]))),
    }
}

fn by_members(name: &str, members: &Map<String, Json>) -> Result<Condition, String> {
    let expected = || format!("tag {name:?}: expected {{\"prefix\": TEXT}} or {{\"min\": NUMBER, \"max\": NUMBER}}");
    let is_range = !members.is_empty() && members.keys().all(|key| key == "min" || key == "max");
    if let (Some(Json::String(prefix)), 1) = (members.get("prefix"), members.len()) {
        return Ok(Condition::Prefix(prefix.as_str().into()));
    }
    if !is_range {
        let keys: Vec<&str> = members.keys().take(4).map(String::as_str).collect();
        return Err(format!("{}, got the members {keys:?}", expected()));
    }
    let end = |key| match members.get(key).filter(|end| !end.is_null()) {
        None => Ok(None),
        Some(end) => match value_of(name, end).map_err(|error| error.to_string())? {
            TagValue::Number(number) => Ok(Some(number)),
            _ => Err(format!("{}, got {} as {key}", expected(), kind(end))),
        },
    };
    let (min, max) = (end("min")?, end("max")?);
    match (min, max) {
        (None, None) => Err(format!("{}, got neither", expected())),
        (Some(least), Some(most)) if least > most => Err(format!("tag {name:?}: nothing is from {least} to {most}")),
        _ => Ok(Condition::Range(min, max)),
    }
}

fn kind(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tags::tests::tags;
    use super::*;

    fn filter(json: &str) -> Arc<Filter> {
        Filter::parse(json).expect("a filter").expect("it asks for something")
    }

    fn lets(filter_json: &str, tags_json: &str) -> bool {
        filter(filter_json).matches(Tags::read(&tags(tags_json)).expect("tags"))
    }

    #[test]
    fn all_of_a_filter_has_to_hold() {
        for (wanted, has, is_let) in [
            (r#"{"league":"seriea"}"#, r#"{"league":"seriea","live":true}"#, true),
            (r#"{"league":"seriea"}"#, r#"{"league":"laliga"}"#, false),
            (r#"{"league":"seriea"}"#, "{}", false),
            (r#"{"league":["seriea","laliga"]}"#, r#"{"league":"laliga"}"#, true),
            (r#"{"league":["seriea","laliga"]}"#, r#"{"league":"ligue1"}"#, false),
            (r#"{"n":[1,"1",true]}"#, r#"{"n":1.0}"#, true),
            (r#"{"n":["1",true]}"#, r#"{"n":1}"#, false),
            (r#"{"n":1}"#, r#"{"n":true}"#, false),
            (r#"{"n":-0.0}"#, r#"{"n":0}"#, true),
            (r#"{"team":{"prefix":"in"}}"#, r#"{"team":"inter"}"#, true),
            (r#"{"team":{"prefix":"in"}}"#, r#"{"team":"milan"}"#, false),
            (r#"{"team":{"prefix":"1"}}"#, r#"{"team":1}"#, false),
            (r#"{"odds":{"min":1.5,"max":3}}"#, r#"{"odds":1.5}"#, true),
            (r#"{"odds":{"min":1.5,"max":3}}"#, r#"{"odds":3}"#, true),
            (r#"{"odds":{"min":1.5,"max":3}}"#, r#"{"odds":3.01}"#, false),
            (r#"{"odds":{"min":1.5}}"#, r#"{"odds":1e300}"#, true),
            (r#"{"odds":{"max":3}}"#, r#"{"odds":"2"}"#, false),
            (r#"{"a":1,"b":2}"#, r#"{"a":1,"aa":0,"b":2,"c":3}"#, true),
            (r#"{"a":1,"b":2}"#, r#"{"a":1,"aa":0,"c":3}"#, false),
        ] {
            assert_eq!(lets(wanted, has), is_let, "{wanted} of {has}");
        }
    }

    #[test]
    fn the_same_filter_is_one_however_it_is_written() {
        let one = filter(r#"{"a":["x","y"],"b":{"min":1,"max":2}}"#);
        let same = filter(" {\"b\": {\"max\": 2.0, \"min\": 1}, \"a\": [\"y\", \"x\", \"y\"]}");
        assert_eq!(one, same);
        assert_eq!(filter(r#"{"a":"x"}"#), filter(r#"{"a":["x"]}"#));
        assert_ne!(filter(r#"{"a":"1"}"#), filter(r#"{"a":1}"#));
        assert_ne!(filter(r#"{"a":{"min":1}}"#), filter(r#"{"a":{"max":1}}"#));
        assert!(Filter::parse("{}").expect("a filter").is_none() && Filter::parse("null").expect("none").is_none());
    }

    #[test]
    fn both_let_through_what_each_does() {
        let (one, other) = (filter(r#"{"a":["x","y"]}"#), filter(r#"{"a":["y","z"],"b":1}"#));
        let both = Filter::both(Some(&one), Some(&other)).expect("few").expect("something");
        assert_eq!(Filter::both(Some(&other), Some(&one)).expect("few"), Some(Arc::clone(&both)));
        for (has, is_let) in [(r#"{"a":"y","b":1}"#, true), (r#"{"a":"x","b":1}"#, false), (r#"{"a":"y"}"#, false)] {
            assert_eq!(both.matches(Tags::read(&tags(has)).expect("tags")), is_let, "{has}");
        }
        assert_eq!(Filter::both(None, Some(&one)), Ok(Some(Arc::clone(&one))));
        assert_eq!(Filter::both(Some(&one), Some(&one)), Ok(Some(one)));
        let many = |letter: &str| {
            let terms: Vec<_> = (0..9).map(|number| format!("\"{letter}{number}\":1")).collect();
            filter(&format!("{{{}}}", terms.join(",")))
        };
        assert_eq!(Filter::both(Some(&many("a")), Some(&many("b"))), Err(FilterError::TooMany { count: 18 }));
    }

    #[test]
    fn what_is_no_filter_is_named_with_the_bound() {
        for (json, why) in [
            ("[]", "filter must be an object of JSON: got an array"),
            (r#"{"a":[]}"#, "filter: tag \"a\": an empty array lets nothing through"),
            (r#"{"a":null}"#, "filter: tag \"a\": expected a text, a number, true or false, got null"),
            (
                r#"{"a":{"prefx":"x"}}"#,
                "filter: tag \"a\": expected {\"prefix\": TEXT} or {\"min\": NUMBER, \"max\": NUMBER}, got the members [\"prefx\"]",
            ),
            (r#"{"a":{"min":3,"max":2}}"#, "filter: tag \"a\": nothing is from 3 to 2"),
            (
                r#"{"a":{"min":"x"}}"#,
                "filter: tag \"a\": expected {\"prefix\": TEXT} or {\"min\": NUMBER, \"max\": NUMBER}, got a string as min",
            ),
            (r#"{"":1}"#, "filter: tag \"\": a name has 1 to 64 bytes of UTF-8, not 0"),
        ] {
            assert_eq!(Filter::parse(json).expect_err(json).to_string(), why);
        }
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(5_000));
        assert_eq!(
            Filter::parse(&long).expect_err("long").to_string(),
            "filter of 5008 bytes is over the bound of 4096"
        );
        assert!(Filter::parse("{").expect_err("cut").to_string().starts_with("filter must be an object of JSON: EOF"));
    }

    /// What a condition means, said another way.
    fn holds(wanted: &Json, value: Option<&Json>) -> bool {
        let Some(value) = value else { return false };
        let same = |one: &Json| match (one.as_f64(), value.as_f64()) {
            (Some(one), Some(value)) => one == value,
            _ => one == value,
        };
        match wanted {
            Json::Array(several) => several.iter().any(same),
            Json::Object(members) => match members.get("prefix").and_then(Json::as_str) {
                Some(prefix) => value.as_str().is_some_and(|text| text.starts_with(prefix)),
                None => value.as_f64().is_some_and(|number| {
                    let end = |key, otherwise| members.get(key).and_then(Json::as_f64).unwrap_or(otherwise);
                    (end("min", f64::MIN)..=end("max", f64::MAX)).contains(&number)
                }),
            },
            one => same(one),
        }
    }

    fn value() -> impl Strategy<Value = Json> {
        prop_oneof![
            "[ab]{0,2}".prop_map(Json::from),
            (-2..3_i32).prop_map(Json::from),
            (-4..6_i32).prop_map(|half| Json::from(f64::from(half) / 2.0)),
            any::<bool>().prop_map(Json::from),
        ]
    }

    fn wanted() -> impl Strategy<Value = Json> {
        prop_oneof![
            value(),
            prop::collection::vec(value(), 1..4).prop_map(Json::from),
            "[ab]{0,2}".prop_map(|prefix| serde_json::json!({ "prefix": prefix })),
            (-2..1_i32, 1..3_i32).prop_map(|(min, max)| serde_json::json!({ "min": min, "max": max })),
            (-2..3_i32).prop_map(|min| serde_json::json!({ "min": min })),
            (-2..3_i32).prop_map(|max| serde_json::json!({ "max": max })),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn it_lets_through_what_it_says(
            asked in prop::collection::hash_map("[abc]", wanted(), 1..4),
            has in prop::collection::hash_map("[abc]", value(), 0..4),
        ) {
            let json = serde_json::to_string(&asked).expect("JSON");
            let bytes = tags(&serde_json::to_string(&has).expect("JSON"));
            let is_let = asked.iter().all(|(name, wanted)| holds(wanted, has.get(name)));
            prop_assert_eq!(filter(&json).matches(Tags::read(&bytes).expect("tags")), is_let);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[\\{\\}\\[\\]\":,a1.e-]{0,40}") {
            let _ = Filter::parse(&text);
        }
    }
}
