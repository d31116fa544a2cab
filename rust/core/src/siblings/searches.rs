//! Which worker has a token: asked of its issuer, or of all others when that one is gone. No socket, no clock.
//!
//! The issuer decides who is first. Without it there is nobody to decide: then of two that ask each other at once the one
//! with the lower number is first. It tells the other that it wants the token, and does not hear the same from it.
use std::collections::{BTreeSet, HashMap, VecDeque};

use super::signature::Stamped;
use super::wire::{Message, Whose};
use crate::tokens::Token;

/// How long others may take to answer.
const PATIENCE_NS: u64 = 1_000_000_000;
/// A token whose issuer is gone is taken for one that nobody has claimed for so long. Its first transport comes at once;
/// one that comes later may be that of a client whose connection has gone with the issuer.
const FRESH_S: u32 = 5;
/// Tokens that are remembered, 17 bytes each: beyond that all are forgotten, and asked for again.
const REMEMBERED_MAX: usize = 1 << 16;
/// Tokens that are searched for at once.
const SEARCHES_MAX: usize = 1 << 16;

/// Where a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Here: the issuer has given it, or it is nobody's.
    Given,
    /// With this worker.
    At(u8),
    /// With nobody.
    Nowhere,
    /// Its issuer does not answer, or too much is asked for.
    Unknown,
}

/// What a step leads to: messages, and what became of searches.
#[derive(Debug)]
pub(super) struct Step<A> {
    pub(super) messages: Vec<(u8, Message)>,
    pub(super) over: Vec<(Token, u64, Vec<A>, Found)>,
}

impl<A> Default for Step<A> {
    fn default() -> Self {
        Self { messages: Vec::new(), over: Vec::new() }
    }
}

/// All searches of one worker. `A` is who waits.
#[derive(Debug)]
pub(super) struct Searches<A> {
    me: u8,
    /// How long a token may be claimed, as the hub has it.
    claimed_within_s: u32,
    running: HashMap<Token, Search<A>>,
    /// Their ends, the oldest first; some may be over.
    deadlines: VecDeque<(u64, Token)>,
    /// Where tokens were found: a connection stays with its worker.
    remembered: HashMap<Token, u8>,
}

#[derive(Debug)]
struct Search<A> {
    /// The number of the route by which it was asked for.
    route: u64,
    askers: Vec<A>,
    /// Who has yet to answer.
    asked: BTreeSet<u8>,
    /// The issuer is asked, and decides.
    by_issuer: bool,
    /// It is this worker's, if nobody has it.
    is_wanted: bool,
    /// Who wants it as well, and is first.
    before: Option<u8>,
    deadline_ns: u64,
}

impl<A> Searches<A> {
    pub(super) fn new(me: u8, claimed_within_s: u32) -> Self {
        let (running, deadlines, remembered) = Default::default();
        Self { me, claimed_within_s, running, deadlines, remembered }
    }

    /// Where it was found before.
    pub(super) fn remembered(&self, token: &Token) -> Option<u8> {
        self.remembered.get(token).copied()
    }

    /// Whether it is searched for.
    pub(super) fn is_running(&self, token: &Token) -> bool {
        self.running.contains_key(token)
    }

    /// Somebody waits for a token that is not here; `others` are the workers that can be asked.
    pub(super) fn search(
        &mut self,
        (token, route): (Token, u64),
        asker: A,
        others: &BTreeSet<u8>,
        (now_ns, wall_s): (u64, u32),
    ) -> Step<A> {
        let mut step = Step::default();
        if let Some(search) = self.running.get_mut(&token) {
            search.askers.push(asker);
            return step;
        }
        let stamped = Stamped::of(&token);
        let now = match self.remembered.get(&token) {
            Some(&worker) => Some(Found::At(worker)),
            None if stamped.home == Some(self.me) => Some(Found::Nowhere), // it would be known here
            None if self.running.len() >= SEARCHES_MAX => Some(Found::Unknown),
            None => None,
        };
        if let Some(found) = now {
            step.over.push((token, route, vec![asker], found));
            return step;
        }
        let issuer = stamped.home.filter(|home| others.contains(home));
        let by_issuer = issuer.is_some();
        let asked = issuer.map_or_else(|| others.clone(), |home| BTreeSet::from([home]));
        let age_s = self.claimed_within_s.saturating_sub(stamped.until.saturating_sub(wall_s));
        let is_wanted = stamped.until > wall_s && age_s <= FRESH_S;
        let (before, deadline_ns) = (None, now_ns + PATIENCE_NS);
        let search = Search { route, askers: vec![asker], asked, by_issuer, is_wanted, before, deadline_ns };
        step.messages = search.questions(token);
        self.running.insert(token, search);
        self.deadlines.push_back((deadline_ns, token));
        self.decide(&token, &mut step);
        step
    }

    /// One of the others waits for a connection that it believes here, and that may be about to be.
    pub(super) fn wait(&mut self, token: &Token, asker: A) -> Option<A> {
        match self.running.get_mut(token) {
            Some(search) => {
                search.askers.push(asker);
                None
            }
            None => Some(asker),
        }
    }

    /// Another worker seeks a token that is not here: what it is told. It is told before anything that is decided later.
    pub(super) fn sought(&mut self, from: u8, token: &Token, is_wanted: bool) -> Whose {
        let Some(search) = self.running.get_mut(token).filter(|search| search.is_wanted && !search.by_issuer) else {
            return Whose::Nobodys;
        };
        if self.me < from || !is_wanted {
            return Whose::Wanted;
        }
        search.yield_to(from);
        Whose::Nobodys
    }

    /// Another worker has answered.
    pub(super) fn answered(&mut self, from: u8, token: &Token, whose: Whose) -> Step<A> {
        let mut step = Step::default();
        let Some(search) = self.running.get_mut(token) else { return step };
        if !search.asked.remove(&from) {
            return step;
        }
        match whose {
            Whose::Of(worker) if worker != self.me => self.end(token, Found::At(worker), &mut step),
            Whose::Of(_) => self.end(token, Found::Nowhere, &mut step), // it was here, and is over
            Whose::Yours => self.end(token, Found::Given, &mut step),
            Whose::Wanted => {
                search.yield_to(from);
                self.decide(token, &mut step);
            }
            Whose::Nobodys if search.by_issuer => self.end(token, Found::Nowhere, &mut step),
            Whose::Nobodys => self.decide(token, &mut step),
        }
        step
    }

    /// A worker is gone: who was to answer no longer does, and what it had nobody has.
    pub(super) fn lost(&mut self, worker: u8, others: &BTreeSet<u8>) -> Step<A> {
        let mut step = Step::default();
        self.remembered.retain(|_, at| *at != worker);
        let waiting: Vec<Token> =
            self.running.iter().filter(|(_, search)| search.asked.contains(&worker)).map(|(token, _)| *token).collect();
        for token in waiting {
            let Some(search) = self.running.get_mut(&token) else { continue };
            search.asked.remove(&worker);
            if std::mem::take(&mut search.by_issuer) {
                search.asked.clone_from(others);
                step.messages.extend(search.questions(token));
            }
            self.decide(&token, &mut step);
        }
        step
    }

    /// Searches whose time is up are over: a worker that is stuck has no say.
    pub(super) fn expire(&mut self, now_ns: u64) -> Step<A> {
        let mut step = Step::default();
        while let Some(token) = self.next_deadline_ns().filter(|due| *due <= now_ns).and_then(|_| self.first_due()) {
            let Some(search) = self.running.get_mut(&token) else { continue };
            let is_stuck = search.by_issuer;
            search.asked.clear();
            if is_stuck {
                self.end(&token, Found::Unknown, &mut step);
            } else {
                self.decide(&token, &mut step);
            }
        }
        step
    }

    /// When the next one is.
    pub(super) fn next_deadline_ns(&mut self) -> Option<u64> {
        while let Some((deadline_ns, token)) = self.deadlines.front()
            && self.running.get(token).is_none_or(|search| search.deadline_ns != *deadline_ns)
        {
            self.deadlines.pop_front();
        }
        self.deadlines.front().map(|(deadline_ns, _)| *deadline_ns)
    }

    fn first_due(&mut self) -> Option<Token> {
        self.deadlines.pop_front().map(|(_, token)| token)
    }

    fn decide(&mut self, token: &Token, step: &mut Step<A>) {
        let Some(search) = self.running.get(token).filter(|search| search.asked.is_empty()) else { return };
        let found = match search.before {
            Some(worker) => Found::At(worker),
            None if search.is_wanted => Found::Given,
            None => Found::Nowhere,
        };
        self.end(token, found, step);
    }

    fn end(&mut self, token: &Token, found: Found, step: &mut Step<A>) {
        let Some(search) = self.running.remove(token) else { return };
        if let Found::At(worker) = found {
            if self.remembered.len() >= REMEMBERED_MAX {
                self.remembered.clear();
            }
            self.remembered.insert(*token, worker);
        }
        step.over.push((*token, search.route, search.askers, found));
    }
}

impl<A> Search<A> {
    fn yield_to(&mut self, worker: u8) {
        self.before = Some(self.before.map_or(worker, |before| before.min(worker)));
    }

    fn questions(&self, token: Token) -> Vec<(u8, Message)> {
        let question = |_: &u8| {
            if self.by_issuer { Message::Ask(token) } else { Message::Seek(token, self.is_wanted) }
        };
        self.asked.iter().map(|worker| (*worker, question(worker))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: (u64, u32) = (0, 1_000);

    fn token(home: u8, until: u32) -> Token {
        let mut token = [5; 16];
        token[..6].copy_from_slice(&Stamped { home: Some(home), is_stateful: false, until }.write());
        token
    }

    /// Issued now by worker 9.
    fn fresh() -> Token {
        token(9, 1_015)
    }

    fn searches(me: u8) -> Searches<&'static str> {
        Searches::new(me, 15)
    }

    fn found(step: &Step<&'static str>) -> Vec<Found> {
        step.over.iter().map(|(.., found)| *found).collect()
    }

    #[test]
    fn the_issuer_is_asked_and_decides_for_all_who_wait() {
        let others = BTreeSet::from([2, 9]);
        for (whose, expected) in [
            (Whose::Yours, Found::Given),
            (Whose::Of(2), Found::At(2)),
            (Whose::Of(9), Found::At(9)),
            (Whose::Of(1), Found::Nowhere),
            (Whose::Nobodys, Found::Nowhere),
        ] {
            let mut one = searches(1);
            let step = one.search((fresh(), 7), "a poll", &others, NOW);
            assert_eq!((step.messages, step.over.len()), (vec![(9, Message::Ask(fresh()))], 0));
            let step = one.search((fresh(), 7), "a post", &others, NOW);
            assert!(step.messages.is_empty() && step.over.is_empty());
            assert!(one.answered(2, &fresh(), Whose::Of(2)).over.is_empty(), "it was not asked");
            let step = one.answered(9, &fresh(), whose);
            assert_eq!(step.over, [(fresh(), 7, vec!["a poll", "a post"], expected)]);
            let is_elsewhere = matches!(expected, Found::At(_));
            let again = one.search((fresh(), 7), "a poll", &others, NOW);
            assert_eq!(found(&again), if is_elsewhere { vec![expected] } else { vec![] });
        }
    }

    #[test]
    fn without_its_issuer_all_are_asked_and_a_fresh_token_is_the_asker_s() {
        let others = BTreeSet::from([2, 3]);
        let mut one = searches(1);
        let step = one.search((fresh(), 7), "a poll", &others, NOW);
        assert_eq!(step.messages, [2, 3].map(|worker| (worker, Message::Seek(fresh(), true))));
        assert!(one.answered(2, &fresh(), Whose::Nobodys).over.is_empty());
        assert_eq!(found(&one.answered(3, &fresh(), Whose::Nobodys)), [Found::Given]);
        for (until, is_wanted) in [(1_011, true), (1_009, false), (1_000, false)] {
            let old = token(9, until);
            assert_eq!(one.search((old, 7), "a poll", &others, NOW).messages[0].1, Message::Seek(old, is_wanted));
            one.answered(2, &old, Whose::Nobodys);
            let expected = if is_wanted { Found::Given } else { Found::Nowhere };
            assert_eq!(found(&one.answered(3, &old, Whose::Nobodys)), [expected]);
        }
        assert_eq!(found(&one.search((fresh(), 7), "alone", &BTreeSet::new(), NOW)), [Found::Given]);
        assert_eq!(found(&one.search((token(1, 1_015), 7), "ours", &others, NOW)), [Found::Nowhere]);
    }

    /// Each way in which two that ask each other can cross: one of them takes the token, and the other knows.
    #[test]
    fn of_two_that_want_a_token_at_once_the_lower_number_is_first() {
        for order in ["1 2 answers", "2 1 answers", "answers"] {
            let (mut one, mut two) = (searches(1), searches(2));
            one.search((fresh(), 7), "at one", &BTreeSet::from([2]), NOW);
            two.search((fresh(), 7), "at two", &BTreeSet::from([1]), NOW);
            let (to_one, to_two);
            if order.starts_with('2') {
                to_two = one.sought(2, &fresh(), true);
                to_one = two.sought(1, &fresh(), true);
            } else {
                to_one = two.sought(1, &fresh(), true);
                to_two = one.sought(2, &fresh(), true);
            }
            assert_eq!((to_one, to_two), (Whose::Nobodys, Whose::Wanted), "{order}");
            assert_eq!(found(&one.answered(2, &fresh(), to_one)), [Found::Given]);
            assert_eq!(found(&two.answered(1, &fresh(), to_two)), [Found::At(1)]);
        }
        let mut two = searches(2);
        two.search((fresh(), 7), "at two", &BTreeSet::from([1, 3]), NOW);
        two.answered(1, &fresh(), Whose::Wanted);
        assert_eq!(
            found(&two.answered(3, &fresh(), Whose::Of(3))),
            [Found::At(3)],
            "who has it comes before who wants it"
        );
    }

    #[test]
    fn an_issuer_that_goes_is_replaced_by_all_and_one_that_is_stuck_by_nobody() {
        let mut one = searches(1);
        one.search((fresh(), 7), "a poll", &BTreeSet::from([2, 9]), NOW);
        let step = one.lost(9, &BTreeSet::from([2]));
        assert_eq!(step.messages, [(2, Message::Seek(fresh(), true))]);
        assert_eq!(found(&one.answered(2, &fresh(), Whose::Of(2))), [Found::At(2)]);
        assert_eq!(one.remembered(&fresh()), Some(2));
        one.lost(2, &BTreeSet::new());
        assert_eq!(one.remembered(&fresh()), None);

        one.search((fresh(), 7), "a poll", &BTreeSet::from([2, 9]), NOW);
        assert_eq!(one.next_deadline_ns(), Some(PATIENCE_NS));
        assert!(one.expire(PATIENCE_NS - 1).over.is_empty());
        assert_eq!(found(&one.expire(PATIENCE_NS)), [Found::Unknown]);
        one.search((fresh(), 7), "a poll", &BTreeSet::from([2, 3]), NOW);
        one.answered(3, &fresh(), Whose::Nobodys);
        assert_eq!(found(&one.expire(PATIENCE_NS)), [Found::Given], "one that is stuck does not count");
        assert_eq!(one.next_deadline_ns(), None);
        one.search((fresh(), 7), "a poll", &BTreeSet::from([2]), NOW);
        assert_eq!(found(&one.lost(2, &BTreeSet::new())), [Found::Given]);
    }
}
