//! Whom the owner of a path lets in without being asked: who shows the very same as one that it has let in.
//!
//! What is compared is all that a request shows, but for the key of its handshake and what stands in its query between
//! client and hub. So the owner says of which requests that is enough, and for how long.
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use crate::error::EngineError;
use crate::http::{RequestHead, query_pairs};
use crate::routes::OwnerId;

/// Of a path's owner, and of all.
const ALIKE_MAX: usize = 4_096;
/// Is another in each request.
const KEY: &str = "sec-websocket-key";
/// Of a query, what is between a client and its hub.
const OF_CONNECTION: [&str; 3] = ["id", "negotiateVersion", "useStatefulReconnect"];

/// What a request showed that was let in.
#[derive(Debug)]
pub struct Alike {
    /// Of this answer of the owner's.
    pub number: u64,
    /// Names in lower case; without the handshake's key.
    pub headers: Vec<(String, Vec<u8>)>,
    owner: OwnerId,
    until_ns: u64,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Admissions {
    by_hash: RwLock<HashMap<u64, Arc<Alike>>>,
    hasher: RandomState,
    newest: AtomicU64,
    count: AtomicUsize,
}

impl Admissions {
    /// From now on, and for so long, who shows these headers is let in. Gives the number by which that is told.
    ///
    /// # Errors
    /// [`EngineError::LimitReached`] where there are too many.
    pub(crate) fn add(
        &self,
        owner: OwnerId,
        mut headers: Vec<(String, Vec<u8>)>,
        valid_for: Duration,
        now_ns: u64,
    ) -> Result<u64, EngineError> {
        headers.retain(|(name, _)| name != KEY);
        let number = self.newest.fetch_add(1, Ordering::Relaxed) + 1;
        let until_ns = now_ns.saturating_add(u64::try_from(valid_for.as_nanos()).unwrap_or(u64::MAX));
        let hash = self.hash(owner, headers.iter().map(|(name, value)| (&**name, &**value)));
        let mut by_hash = self.by_hash.write().expect("no code panics while it holds the admissions");
        if by_hash.len() >= ALIKE_MAX {
            let (value, bound) = (ALIKE_MAX as u64 + 1, ALIKE_MAX as u64);
            return Err(EngineError::LimitReached { name: "kinds of clients that are let in", value, bound });
        }
        by_hash.insert(hash, Arc::new(Alike { number, headers, owner, until_ns }));
        self.count.store(by_hash.len(), Ordering::Release);
        Ok(number)
    }

    /// Nobody is let in any more without this owner's being asked.
    pub(crate) fn end(&self, owner: OwnerId) {
        let mut by_hash = self.by_hash.write().expect("no code panics while it holds the admissions");
        by_hash.retain(|_, one| one.owner != owner);
        self.count.store(by_hash.len(), Ordering::Release);
    }

    /// What this request is alike, if its owner has said that it is let in.
    pub(crate) fn find(&self, owner: OwnerId, head: &RequestHead<'_>, now_ns: u64) -> Option<Arc<Alike>> {
        if self.count.load(Ordering::Acquire) == 0 || !asks_for_nothing(head.query.unwrap_or("")) {
            return None;
        }
        let shown = || head.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case(KEY));
        let hash = self.hash(owner, shown().map(|(name, value)| (&**name, &**value)));
        let by_hash = self.by_hash.read().expect("no code panics while it holds the admissions");
        let one = by_hash.get(&hash).filter(|one| one.owner == owner && now_ns < one.until_ns)?;
        let mut known = one.headers.iter();
        for (name, value) in shown() {
            known.next().filter(|known| name.eq_ignore_ascii_case(&known.0) && *value == &*known.1)?;
        }
        known.next().is_none().then(|| Arc::clone(one))
    }

    fn hash<'a>(&self, owner: OwnerId, headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        owner.0.hash(&mut hasher);
        for (name, value) in headers {
            name.bytes().for_each(|byte| hasher.write_u8(byte.to_ascii_lowercase()));
            value.hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// Whether nothing in a query is for the owner to read.
fn asks_for_nothing(query: &str) -> bool {
    query_pairs(query).all(|pair| pair.is_ok_and(|(name, _)| OF_CONNECTION.contains(&&*name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::parse_head;

    const OWNER: OwnerId = OwnerId(3);

    fn admissions() -> Admissions {
        let admissions = Admissions::default();
        let headers = [("host", "a"), ("sec-websocket-key", "x"), ("user-agent", "u")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        assert_eq!(admissions.add(OWNER, headers.into(), Duration::from_secs(1), 0).expect("room"), 1);
        admissions
    }

    fn is_in(admissions: &Admissions, target: &str, lines: &str, owner: u16, now_ns: u64) -> bool {
        let text = format!("GET {target} HTTP/1.1\r\n{lines}\r\n\r\n");
        let (head, _) = parse_head(text.as_bytes(), 4_096).expect("good").expect("whole");
        admissions.find(OwnerId(owner), &head, now_ns).is_some()
    }

    #[test]
    fn only_who_shows_the_very_same_is_alike() {
        let admissions = admissions();
        let same = "Host: a\r\nSec-WebSocket-Key: another\r\nUser-Agent: u";
        for target in ["/x", "/x?id=1&negotiateVersion=1", "/x?useStatefulReconnect=true"] {
            assert!(is_in(&admissions, target, same, 3, 0), "{target}");
        }
        for target in ["/x?token=1", "/x?id=1&ID=2", "/x?%FF=1"] {
            assert!(!is_in(&admissions, target, same, 3, 0), "{target}");
        }
        for lines in [
            "Host: a\r\nUser-Agent: v",
            "Host: a\r\nUser-Agent: u\r\nCookie: c",
            "User-Agent: u\r\nHost: a",
            "Host: a",
            "Host: a\r\nUser-Agentu: ",
        ] {
            assert!(!is_in(&admissions, "/x", lines, 3, 0), "{lines}");
        }
        assert!(!is_in(&admissions, "/x", same, 4, 0), "of another owner");
        assert!(!is_in(&admissions, "/x", same, 3, 1_000_000_000), "its time is over");
        admissions.end(OWNER);
        assert!(!is_in(&admissions, "/x", same, 3, 0));
    }

    #[test]
    fn kinds_are_bounded() {
        let admissions = Admissions::default();
        for number in 0..ALIKE_MAX {
            let headers = vec![("host".to_owned(), number.to_string().into_bytes())];
            admissions.add(OWNER, headers, Duration::MAX, 0).expect("room");
        }
        assert!(admissions.add(OWNER, vec![("host".to_owned(), b"x".to_vec())], Duration::MAX, 0).is_err());
        admissions.end(OWNER);
        assert!(admissions.add(OWNER, Vec::new(), Duration::MAX, 0).is_ok());
    }
}
