//! Paths and names with placeholders, `/rooms/{room}`, `odds:{room}`; and which path one that there is not may mean.

/// Bytes of a path.
const PATH_BYTES_MAX: usize = 255;

/// Longest path that is compared, bytes: the work grows with its square.
const COMPARED_BYTES_MAX: usize = 64;

/// Mistakes of spelling that are still taken for one.
const MISTAKES_MAX: usize = 2;

/// A part of a path or of a channel's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PathSegment {
    Text(Box<str>),
    /// `{name}`.
    Placeholder(Box<str>),
}

/// The segments of a path or a pattern; or the rule that it breaks.
pub(super) fn segments_of(path: &str) -> Result<Vec<PathSegment>, &'static str> {
    let Some(rest) = path.strip_prefix('/') else { return Err("begin with /") };
    if path.len() > PATH_BYTES_MAX {
        return Err("not be over 255 bytes");
    }
    if !path.is_ascii() {
        return Err("hold what is not ASCII as requests do, such as %C3%BC for ü");
    }
    if path.contains(['?', '#']) || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("hold no ?, no #, no space and no control character");
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
            Ok(mut parts) if is_whole(&parts) => segments.push(parts.remove(0)),
            Ok(_) => return Err("have each placeholder in a segment of its own, as in /rooms/{room}"),
            Err(why) => return Err(why),
        }
        if let Some((last @ PathSegment::Placeholder(_), before)) = segments.split_last()
            && before.contains(last)
        {
            return Err("hold each placeholder once");
        }
    }
    Ok(segments)
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
    use super::nearest;

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
