//! What a request's target says: query pairs and percent-encoding (RFC 3986 §2.1, WHATWG URL "urlencoded parsing").
use std::borrow::Cow;

use percent_encoding::percent_decode;

/// Why a target is refused, with status 400: its text must be the one its sender meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// A name or value is not UTF-8 once decoded. Nothing is replaced silently: two names could become one.
    #[error("{part} {encoded:?} in the request target is not UTF-8 once percent-decoded")]
    NotUtf8 {
        /// "query name", "query value" or what the caller called it.
        part: &'static str,
        /// As sent, at most 60 characters. Of a value it is left empty: values may be tokens.
        encoded: String,
    },
}

impl TargetError {
    /// The status that answers this misdeed.
    pub fn status(&self) -> u16 {
        400
    }
}

/// The name and value pairs of `query`, decoded, in the order sent.
///
/// As browsers read a form, `+` is a space, a name without `=` has the empty value, and empty pairs are skipped. A `%`
/// without two hexadecimal digits stands for itself. Copies only what has something to decode.
///
/// Each item is an error of its own where the pair is not UTF-8: [`TargetError::NotUtf8`].
pub fn query_pairs(query: &str) -> impl Iterator<Item = Result<(Cow<'_, str>, Cow<'_, str>), TargetError>> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded_name = decode_form(name)
            .ok_or_else(|| TargetError::NotUtf8 { part: "query name", encoded: name.chars().take(60).collect() })?;
        let decoded_value =
            decode_form(value).ok_or(TargetError::NotUtf8 { part: "query value", encoded: String::new() })?;
        Ok((decoded_name, decoded_value))
    })
}

/// Decodes one percent-encoded part of a path (RFC 3986 §2.1): as [`query_pairs`], but `+` stands for itself.
///
/// # Errors
/// [`TargetError::NotUtf8`] where the bytes are not UTF-8.
pub fn decode_component(component: &str) -> Result<Cow<'_, str>, TargetError> {
    percent_decode(component.as_bytes())
        .decode_utf8()
        .map_err(|_| TargetError::NotUtf8 { part: "path", encoded: component.chars().take(60).collect() })
}

fn decode_form(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('+') {
        return percent_decode(text.as_bytes()).decode_utf8().ok();
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode(spaced.as_bytes()).decode_utf8().ok()?;
    Some(Cow::Owned(decoded.into_owned()))
}
