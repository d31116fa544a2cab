//! Paths and names with placeholders, `/rooms/{room}`, `odds:{room}`; and which path one that there is not may mean.

use std::borrow::Cow;

use percent_encoding::{percent_decode, percent_encode_byte};

/// Bytes of a path.
const PATH_BYTES_MAX: usize = 255;

/// Longest path that is compared, bytes: the work grows with its square.
const COMPARED_BYTES_MAX: usize = 64;

/// Mistakes of spelling that are still taken for one.
const MISTAKES_MAX: usize = 2;

/// What may stand in a segment by itself, beside letters and digits: `pchar` (RFC 3986 §3.3).
const PLAIN: &[u8] = b"-._~!$&'()*+,;=:@";

/// A path as it is compared: what a client may write in several ways stands in one (RFC 3986 §6.2.2).
///
/// Each segment is percent-decoded, once, and what may not stand in one by itself is encoded again, with hexadecimal
/// digits in upper case. So a `%2F` stays a part of its segment, and `%2541` stays apart from `%41`. `None` where a
/// segment is `.` or `..`, however written: browsers take those out before they send a path (WHATWG URL §4.4), and what
/// stands between may read them otherwise. Copies only what has something to decode or to encode.
pub(super) fn normal(path: &str) -> Option<Cow<'_, str>> {
    let normal = if path.bytes().all(|byte| byte == b'/' || is_plain(byte)) {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(path.split('/').map(normal_segment).collect::<Vec<_>>().join("/"))
    };
    (!normal.split('/').any(is_dots)).then_some(normal)
}

fn normal_segment(segment: &str) -> String {
    let mut normal = String::with_capacity(segment.len());
    for byte in percent_decode(segment.as_bytes()) {
        if is_plain(byte) {
            normal.push(byte.into());
        } else {
            normal.push_str(percent_encode_byte(byte));
        }
    }
    normal
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || PLAIN.contains(&byte)
}

fn is_dots(segment: &str) -> bool {
    matches!(segment, "." | "..")
}

/// A part of a path or of a channel's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PathSegment {
    Text(Box<str>),
    /// `{name}`.
    Placeholder(Box<str>),
}

/// The segments of a path or a pattern, their texts as [`normal`] has them; or the rule that it breaks.
pub(super) fn segments_of(path: &str) -> Result<Vec<PathSegment>, &'static str> {
    let Some(rest) = path.strip_prefix('/') else { return Err("begin with /") };
    if path.len() > PATH_BYTES_MAX {
        return Err("not be over 255 bytes");
    }
    if path.contains(['?', '#']) || path.contains(|one: char| one.is_whitespace() || one.is_control()) {
        return Err("hold no ?, no #, no space and no control character");
    }
    if path.contains('\\') {
        return Err("hold no \\, for which browsers send /");
    }
    if rest.is_empty() {
        return Ok(vec![PathSegment::Text("".into())]);
    }
    if rest.ends_with('/') {
        return Err("not end with /");
    }
    let mut segments = Vec::new();
    for segment in rest.split('/') {
        let is_whole = |parts: &[PathSegment]| parts.len() == 1;
        match parts_of(segment) {
            _ if segment.is_empty() => return Err("hold no empty segment"),
            Ok(mut parts) if is_whole(&parts) => segments.push(match parts.remove(0) {
                PathSegment::Text(text) => PathSegment::Text(normal_segment(&text).into()),
                placeholder @ PathSegment::Placeholder(_) => placeholder,
            }),
            Ok(_) => return Err("have each placeholder in a segment of its own, as in /rooms/{room}"),
            Err(why) => return Err(why),
        }
        if let Some((last @ PathSegment::Placeholder(_), before)) = segments.split_last()
            && before.contains(last)
        {
            return Err("hold each placeholder once");
        }
        if let Some(PathSegment::Text(text)) = segments.last()
            && is_dots(text)
        {
            return Err("hold no segment . or .., which browsers take out");
        }
    }
    if shape_of(&segments).len() > PATH_BYTES_MAX {
        return Err("not be over 255 bytes, percent-encoded");
    }
    Ok(segments)
}

/// The path of these segments, whatever its placeholders are called. Without placeholders it is what [`normal`] gives.
pub(super) fn shape_of(segments: &[PathSegment]) -> String {
    let shape = |one: &PathSegment| match one {
        PathSegment::Text(text) => format!("/{text}"),
        PathSegment::Placeholder(_) => "/{}".to_owned(),
    };
    segments.iter().map(shape).collect()
}

/// Texts and placeholders in their order; or the rule that they break.
pub(super) fn parts_of(template: &str) -> Result<Vec<PathSegment>, &'static str> {
    const FORM: &str = "have each { closed by a }, with a name of letters, digits and _ between them";
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        if at > 0 {
            parts.push(PathSegment::Text(rest[..at].into()));
        }
        let (name, behind) = rest[at..].strip_prefix('{').and_then(|rest| rest.split_once('}')).ok_or(FORM)?;
        let is_name = |byte: u8| byte == b'_' || byte.is_ascii_alphanumeric();
        if name.is_empty() || !name.bytes().all(is_name) {
            return Err(FORM);
        }
        parts.push(PathSegment::Placeholder(name.into()));
        rest = behind;
    }
    if !rest.is_empty() || parts.is_empty() {
        parts.push(PathSegment::Text(rest.into()));
    }
    Ok(parts)
}

/// The path that a client which asked for this one may have meant.
pub(super) fn nearest<'a>(path: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.filter_map(|one| Some((mistakes(path, one)?, one)));
    near.min_by_key(|&(count, _)| count).map(|(_, one)| one)
}

/// How many letters must be put in, left out or replaced to get from one to the other, a slash at the end and case aside;
/// None if it is more than [`MISTAKES_MAX`].
fn mistakes(one: &str, other: &str) -> Option<usize> {
    if one.len() > COMPARED_BYTES_MAX || one.len().abs_diff(other.len()) > MISTAKES_MAX + 1 {
        return None;
    }
    let (one, other) = (one.trim_end_matches('/').to_lowercase(), other.to_lowercase());
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, a) in one.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, b) in other.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    Some(row[other.len()]).filter(|&count| count <= MISTAKES_MAX)
}

#[cfg(test)]
mod tests {
    use super::{nearest, normal};

    #[test]
    fn a_path_has_one_form() {
        for (path, expected) in [
            ("/a/b", Some("/a/b")),
            ("/%61/%7Eb%2d", Some("/a/~b-")),
            ("/%c3%bc", Some("/%C3%BC")),
            ("/\u{fc}", Some("/%C3%BC")),
            ("/a%2fb%2F", Some("/a%2Fb%2F")),
            ("/%2541/%25", Some("/%2541/%25")),
            ("/%4/%zz%", Some("/%254/%25zz%25")),
            ("/%ff%00", Some("/%FF%00")),
            ("/a%3Ab%40%2B+", Some("/a:b@++")),
            ("/\"<>`^|[]", Some("/%22%3C%3E%60%5E%7C%5B%5D")),
            ("/a//", Some("/a//")),
            ("*", Some("*")),
            ("", Some("")),
            ("/...", Some("/...")),
            ("/a/../b", None),
            ("/.", None),
            ("/a/%2e%2E/b", None),
            ("/.%2e", None),
        ] {
            assert_eq!(normal(path).as_deref(), expected, "{path}");
            let again = expected.map(|once| normal(once).map(|twice| twice.into_owned()));
            assert_eq!(again.flatten().as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn the_nearest_path_is_within_two_letters() {
        let known = ["/ws", "/events", "/metrics", "/signalr"];
        let cases = [
            ("/event", Some("/events")),
            ("/Events/", Some("/events")),
            ("/singalr", Some("/signalr")),
            ("/wss", Some("/ws")),
            ("/metric", Some("/metrics")),
            ("/stream", None),
            ("/\u{e9}v\u{e9}nements-qui-ne-sont-pas-l\u{e0}", None),
        ];
        for (path, expected) in cases {
            assert_eq!(nearest(path, known.into_iter()), expected, "{path}");
        }
    }
}
