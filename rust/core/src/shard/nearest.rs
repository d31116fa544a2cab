//! What a client that asked for a path that there is not is told: the one that it may have meant.
use super::{Io, Shard};

/// Longest path that is compared, bytes: the work grows with its square.
const PATH_BYTES_MAX: usize = 64;

/// Mistakes of spelling that are still taken for one.
const MISTAKES_MAX: usize = 2;

impl<I: Io> Shard<I> {
    /// The refusal of a path that there is not.
    pub(super) fn no_such_path(&self, path: &str) -> String {
        match nearest(path, self.routes.paths().filter(|&one| one != "/")) {
            Some(meant) => format!("no such path: {path}; the nearest is {meant}"),
            None => format!("no such path: {path}; WebSockets connect at /ws, event streams at /events"),
        }
    }
}

fn nearest<'a>(path: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.filter_map(|one| Some((mistakes(path, one)?, one)));
    near.min_by_key(|&(count, _)| count).map(|(_, one)| one)
}

/// How many letters must be put in, left out or replaced to get from one to the other, a slash at the end and case aside;
/// None if it is more than [`MISTAKES_MAX`].
fn mistakes(one: &str, other: &str) -> Option<usize> {
    if one.len() > PATH_BYTES_MAX || one.len().abs_diff(other.len()) > MISTAKES_MAX + 1 {
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
