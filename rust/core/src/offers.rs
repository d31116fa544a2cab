//! Lanes of a relay that a client may join by its first call, without the application: what calls that, and the answer.
//!
//! The application offers a lane while all who make its call would be answered alike. A shard that takes up an offer
//! joins its client, answers it, and tells the application. What is taken back is not taken up any more, and who takes it
//! back learns how often it was: so it knows of how many it is yet to be told.
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use crate::channel::Newest;
use crate::error::EngineError;
use crate::protocol::signalr::{HubProtocol, Outcome, canonical};
use crate::routes::OwnerId;

/// Bytes of a call's arguments in their one form: larger ones are not offered.
pub const OFFERED_BYTES_MAX: usize = 4_096;
/// Offers that stand at once.
const OFFERS_MAX: usize = 1 << 20;
/// It was taken back.
const OVER: u64 = 1 << 63;

/// A call that joins a lane.
#[derive(Clone, Copy, Debug)]
pub struct OfferedCall<'a> {
    /// Of the path.
    pub owner: OwnerId,
    /// That the client speaks.
    pub protocol: HubProtocol,
    /// The method, in ASCII; the case of its letters does not matter.
    pub target: &'a str,
    /// An array, in its one form.
    pub arguments: &'a [u8],
}

/// How a call ended, for everybody who makes it.
#[derive(Clone, Debug)]
pub enum OfferedAnswer {
    /// Without a result.
    Void,
    /// With this value, raw.
    Result(Box<[u8]>),
}

impl OfferedAnswer {
    pub(crate) fn outcome(&self) -> Outcome<'_> {
        match self {
            Self::Void => Outcome::Void,
            Self::Result(result) => Outcome::Result(result),
        }
    }
}

/// What a newcomer may begin with: more than that the application is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// For so long any beginning is new enough.
    pub new_for: Duration,
    /// Publications behind a snapshot.
    pub messages_max: Option<usize>,
    /// From then on, how old a snapshot may be; `None` where it is over then.
    pub age_max: Option<Duration>,
}

/// One that stands, or stood.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) number: u64,
    /// The lane's name.
    pub(crate) lane: Box<str>,
    pub(crate) answer: OfferedAnswer,
    new_until_ns: u64,
    terms: Terms,
    /// How often it was taken up, and whether it is over.
    taken: AtomicU64,
}

impl Offer {
    /// What a newcomer may begin with now; `None` where the application is to be asked.
    pub(crate) fn newest(&self, now_ns: u64) -> Option<Newest> {
        let messages_max = self.terms.messages_max;
        if now_ns < self.new_until_ns {
            return Some(Newest { messages_max, age_ns_max: None });
        }
        let age_ns_max = Some(ns(self.terms.age_max?));
        Some(Newest { messages_max, age_ns_max })
    }

    /// Takes it up. False where it is over.
    pub(crate) fn take_up(&self) -> bool {
        let more = |taken| (taken & OVER == 0).then_some(taken + 1);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    fn end(&self) -> u64 {
        self.taken.fetch_or(OVER, Ordering::AcqRel) & !OVER
    }
}

/// All that stand.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    inner: RwLock<Inner>,
    newest: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    by_call: HashMap<Box<[u8]>, Arc<Offer>>,
    /// The calls of each.
    calls: HashMap<u64, Box<[u8]>>,
    /// How many stand, by owner.
    of_owner: HashMap<u16, usize>,
}

impl Offers {
    /// Makes one, and gives its number; of two for one call the newer one stands.
    ///
    /// # Errors
    /// [`EngineError::LimitReached`] where there are too many.
    pub(crate) fn make(
        &self,
        lane: &str,
        call: OfferedCall<'_>,
        answer: OfferedAnswer,
        terms: Terms,
        now_ns: u64,
    ) -> Result<u64, EngineError> {
        let number = self.newest.fetch_add(1, Ordering::Relaxed) + 1;
        let (key, new_until_ns) = (key_of(call), now_ns.saturating_add(ns(terms.new_for)));
        let offer = Offer { number, lane: lane.into(), answer, new_until_ns, terms, taken: AtomicU64::new(0) };
        let mut inner = self.inner.write().expect("no code panics while it holds the offers");
        if inner.calls.len() >= OFFERS_MAX {
            let (value, bound) = (OFFERS_MAX as u64 + 1, OFFERS_MAX as u64);
            return Err(EngineError::LimitReached { name: "offers", value, bound });
        }
        inner.calls.insert(number, key.clone());
        *inner.of_owner.entry(call.owner.0).or_default() += 1;
        if let Some(before) = inner.by_call.insert(key, Arc::new(offer)) {
            before.end();
        }
        Ok(number)
    }

    /// Takes one back: from now on nobody takes it up. Gives how many have.
    pub(crate) fn withdraw(&self, number: u64) -> u64 {
        let mut guard = self.inner.write().expect("no code panics while it holds the offers");
        let inner = &mut *guard;
        let Some(key) = inner.calls.remove(&number) else { return 0 };
        let owner = u16::from_le_bytes([key[0], key[1]]);
        if let Some(count) = inner.of_owner.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                inner.of_owner.remove(&owner);
            }
        }
        if inner.by_call.get(&key).is_none_or(|offer| offer.number != number) {
            return 0;
        }
        inner.by_call.remove(&key).map_or(0, |offer| offer.end())
    }

    /// Whether any stands of this owner's.
    pub(crate) fn any_of(&self, owner: OwnerId) -> bool {
        self.inner.read().expect("no code panics while it holds the offers").of_owner.contains_key(&owner.0)
    }

    /// The offer for a call whose arguments are as a client wrote them.
    pub(crate) fn find(&self, call: OfferedCall<'_>) -> Option<Arc<Offer>> {
        let is_any = !self.inner.read().expect("no code panics while it holds the offers").by_call.is_empty();
        if !is_any || !call.target.is_ascii() || call.arguments.len() > OFFERED_BYTES_MAX {
            return None;
        }
        let arguments = &*canonical(call.protocol, call.arguments)?;
        let key = key_of(OfferedCall { arguments, ..call });
        let inner = self.inner.read().expect("no code panics while it holds the offers");
        inner.by_call.get(&key).cloned()
    }
}

/// Different for calls that are not one.
fn key_of(call: OfferedCall<'_>) -> Box<[u8]> {
    let mut key = Vec::with_capacity(8 + call.target.len() + call.arguments.len());
    key.extend_from_slice(&call.owner.0.to_le_bytes());
    key.push(u8::from(call.protocol.is_binary()));
    key.extend_from_slice(&(call.target.len() as u32).to_le_bytes());
    key.extend(call.target.bytes().map(|byte| byte.to_ascii_lowercase()));
    key.extend_from_slice(call.arguments);
    key.into()
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms { new_for: Duration::from_secs(1), messages_max: Some(5), age_max: None };

    fn call<'a>(target: &'a str, arguments: &'a [u8]) -> OfferedCall<'a> {
        OfferedCall { owner: OwnerId(3), protocol: HubProtocol::Json, target, arguments }
    }

    fn made(offers: &Offers, terms: Terms) -> u64 {
        offers.make("l", call("Watch", br#"["m"]"#), OfferedAnswer::Void, terms, 0).expect("room")
    }

    #[test]
    fn an_offer_is_found_by_what_a_call_says_however_it_is_written() {
        let offers = Offers::default();
        assert!(offers.find(call("Watch", br#"["m"]"#)).is_none());
        let number = made(&offers, TERMS);
        let is_found = |call| offers.find(call).is_some_and(|offer| offer.number == number);
        assert!(is_found(call("Watch", br#"["m"]"#)) && is_found(call("wATCH", br#" [ "\u006d" ]"#)));
        assert!(!is_found(call("Watch", br#"["n"]"#)) && !is_found(call("Watches", br#"["m"]"#)));
        assert!(!is_found(call("Watch", b"[")) && !is_found(call("\u{17f}", br#"["m"]"#)));
        assert!(!is_found(OfferedCall { owner: OwnerId(4), ..call("Watch", br#"["m"]"#) }));
        assert!(!is_found(OfferedCall { protocol: HubProtocol::MessagePack, ..call("Watch", b"\x91\xa1m") }));
        assert!(offers.any_of(OwnerId(3)) && !offers.any_of(OwnerId(4)));
        offers.withdraw(number);
        assert!(!is_found(call("Watch", br#"["m"]"#)) && !offers.any_of(OwnerId(3)));
    }

    #[test]
    fn who_takes_an_offer_back_learns_how_often_it_was_taken_up_and_it_is_not_any_more() {
        let offers = Offers::default();
        let number = made(&offers, TERMS);
        let found = offers.find(call("Watch", br#"["m"]"#)).expect("it stands");
        assert!(found.take_up() && found.take_up());
        assert_eq!((offers.withdraw(number), offers.withdraw(number)), (2, 0));
        assert!(!found.take_up(), "a shard that has found it before comes too late");
    }

    #[test]
    fn of_two_offers_of_one_call_the_newer_one_stands() {
        let offers = Offers::default();
        let first = made(&offers, TERMS);
        let found = offers.find(call("Watch", br#"["m"]"#)).expect("it stands");
        let second = made(&offers, TERMS);
        assert!(!found.take_up());
        assert_eq!(offers.withdraw(first), 0);
        assert!(offers.any_of(OwnerId(3)));
        assert_eq!(offers.find(call("Watch", br#"["m"]"#)).expect("it stands").number, second);
    }

    #[test]
    fn what_is_old_is_bounded_by_age_or_asked_for() {
        let offers = Offers::default();
        for (age_max, old) in [(None, None), (Some(Duration::from_secs(2)), Some(Some(2_000_000_000)))] {
            let number = made(&offers, Terms { age_max, ..TERMS });
            let found = offers.find(call("Watch", br#"["m"]"#)).expect("it stands");
            let at = |now_ns| found.newest(now_ns).map(|newest| newest.age_ns_max);
            assert_eq!((at(999_999_999), at(1_000_000_000)), (Some(None), old));
            offers.withdraw(number);
        }
    }
}
