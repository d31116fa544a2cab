//! An adopted connection as its client sees it: what the framework asked to be written, and what may stand between that.
use super::account::Account;
use super::client::{Chunk, Client};
use super::hold::{Asked, Hold, Last, Published};
use super::promise::{Losses, Promise, When};
use super::turn::Turn;
use super::wire::Wire;
use crate::channel::Origin;
use crate::engine::Adopted;
use crate::messages::Released;

impl Account {
    /// Whether its log keeps what it has yet to get: it lags, or its shard has yet to begin with it.
    pub(super) fn holds_back(&self) -> bool {
        !self.is_over && (self.is_lagging() || !self.is_seated())
    }
}

impl Client {
    pub(super) fn adopted(hold: Hold, (fd, serial, shard): (i32, usize, usize)) -> Self {
        let mut client = Self::new(Wire::Adopted, fd, serial, shard, Origin::default());
        client.id = hold.adopted.as_ref().map(Adopted::id);
        (client.is_open, client.is_ready) = (true, true);
        client.hold = Some(Box::new(hold));
        client
    }

    pub(super) fn hold(&mut self) -> &mut Hold {
        self.hold.as_deref_mut().expect("it is adopted")
    }

    /// Whether it is adopted, and its engine has not let go of it.
    pub(super) fn is_held(&self) -> bool {
        self.hold.is_some() && !self.is_gone
    }

    /// Whether what is published comes to it: not behind its framework's Close frame, nor while that is in a message.
    pub(super) fn is_reachable(&self) -> bool {
        self.hold
            .as_ref()
            .is_none_or(|hold| hold.has_begun && !hold.is_mid_message && !hold.is_silent && hold.last.is_none())
    }

    /// The framework asks for bytes in which so many messages begin.
    pub(super) fn note_asked(&mut self, messages: usize, bytes: usize, published: &Published) {
        let accounts = self.accounts.len();
        let asked = Asked { published: published.clone(), accounts, broadcast: None };
        let hold = self.hold();
        hold.asked.extend(std::iter::repeat_n(asked, messages));
        hold.given += bytes as u64;
        hold.is_asked = true;
    }

    /// The same, of one message that many have written.
    pub(super) fn note_broadcast(&mut self, number: usize, bytes: usize, published: &Published) {
        self.note_asked(1, bytes, published);
        self.hold().asked.back_mut().expect("it was put there").broadcast = Some(number);
    }

    /// The engine took none of that.
    pub(super) fn note_refused(&mut self, messages: usize, bytes: usize) {
        let hold = self.hold();
        hold.asked.truncate(hold.asked.len() - messages);
        hold.given -= bytes as u64;
    }

    /// Nothing more is for it: behind what was published until now, or until the message that never ends.
    pub(super) fn end_accounts(&mut self, published: &Published) {
        let hold = self.hold();
        let cut = hold.asked.back().filter(|_| hold.is_mid_message || hold.is_abandoned).cloned();
        for (index, account) in self.accounts.iter_mut().enumerate().filter(|one| !one.1.is_over) {
            let until = match &cut {
                Some(cut) if index >= cut.accounts => 0,
                Some(cut) => cut.published[account.channel],
                None => published[account.channel],
            };
            account.end_at(until);
        }
    }

    /// What asks for a channel now, and was not asked to leave it.
    pub(super) fn wanted(&mut self, channel: usize) -> Option<&mut Account> {
        self.accounts.iter_mut().find(|one| one.channel == channel && !one.is_over && !one.is_leaving)
    }

    /// The framework wrote to the socket itself.
    pub(super) fn take_direct(&mut self, bytes: &[u8], published: &Published, turn: &Turn<'_>, losses: &mut Losses) {
        if bytes.is_empty() {
            return;
        }
        self.buffer.extend_from_slice(bytes);
        self.chunks.push_back(Chunk::direct(bytes.len(), turn.now_ns, published));
        self.read(turn, losses);
    }

    /// Of one that has subscriptions one behind the other in a channel: whose a publication is.
    pub(super) fn account_of(&self, channel: usize, index: usize, turn: usize) -> Option<usize> {
        let is_it = |one: &Account| one.channel == channel && (one.promise.is_some() || !one.is_told);
        // What began to come before it left may come whole behind that.
        let is_there = |one: &Account| !one.is_over || turn <= one.over_in;
        let is_due = |one: &Account| one.promise.is_some() && is_there(one) && index < one.until;
        let due = self.accounts.iter().position(|one| self.hold.is_some() && is_it(one) && is_due(one));
        due.or_else(|| self.accounts.iter().rposition(is_it))
    }

    /// Of an adopted connection: how much of a channel its shard has looked at, at least. That ends where the next message was
    /// asked for, and what is asked of it may be done before anything is fanned out.
    pub(super) fn looked_at(&self, at: usize, index: usize, when: &When) -> usize {
        let (Some(hold), account) = (&self.hold, &self.accounts[at]) else { return when.published };
        let barrier = hold.asked.front().map_or(usize::MAX, |next| next.published[account.channel]);
        let tail = when.before.map_or(0, |before| before.tail);
        when.published.min(barrier).min(account.until).min(tail).max(index + 1)
    }

    /// A publication came: before all that was asked for before it was published, or was subscribed to, and behind the rest.
    pub(super) fn check_order(&self, at: usize, index: usize, when: &When) {
        let (Some(hold), account) = (&self.hold, &self.accounts[at]) else { return };
        assert!(!hold.has_closed, "{index} behind a Close frame");
        let number = hold.next;
        if let Some(next) = hold.asked.front() {
            let is_before = at < next.accounts && index < next.published[account.channel];
            assert!(is_before, "publication {index} came before message {number}, which was asked for before it");
        }
        let may_be_late = account.has_waited && (when.may_give_up || account.may_give_up || account.has_given_up);
        let is_behind = index >= account.floor || may_be_late;
        assert!(is_behind, "publication {index} came behind message {}, asked for after it: {account:?}", number - 1);
    }

    /// A message of the framework came.
    pub(super) fn take_own(&mut self, (number, is_broadcast): (usize, bool), chunk: &Chunk, turn: &Turn<'_>) {
        // In the turn in which it begins to come one may come to wait for a keyframe before it, and be told behind it that there
        // is none.
        let may_have_waited = |(at, account): (usize, &Account)| {
            let (when, list) = (self.when(chunk, account.channel, at), turn.lists.get(account.channel));
            let may_wait = |promise: &Promise| list.is_some_and(|list| promise.may_come_to_wait(when.now_ns, list));
            when.may_give_up && account.promise.as_ref().is_none_or(may_wait)
        };
        let have_waited: Vec<bool> = self.accounts.iter().enumerate().map(may_have_waited).collect();
        let hold = self.hold();
        assert!(!hold.has_closed, "message {number} behind a Close frame");
        let asked = hold.asked.pop_front().expect("nobody asked for it");
        let expected = (asked.broadcast.unwrap_or(hold.next), asked.broadcast.is_some());
        assert_eq!((number, is_broadcast), expected, "own messages come in order");
        hold.next += 1;
        for (account, may_have_waited) in self.accounts[..asked.accounts].iter_mut().zip(have_waited) {
            let floor = asked.published[account.channel];
            if floor > account.floor {
                (account.floor, account.has_waited) = (floor, account.may_be_waiting() || may_have_waited);
                account.floor_turn = self.turns;
            }
        }
    }

    pub(super) fn take_own_close(&mut self, (code, reason): (u16, &str), chunk: &Chunk, turn: &Turn<'_>) {
        let ending = self.ending.clone();
        let hold = self.hold();
        assert!(!hold.has_closed, "a Close frame behind another");
        if let Some(number) = reason.strip_prefix("p|").and_then(|rest| rest.strip_suffix("|own")) {
            if std::mem::take(&mut hold.is_abandoned) {
                hold.asked.pop_front().expect("it is under way");
                hold.next += 1;
            }
            self.take_own((number.parse().expect("a number"), false), chunk, turn);
        } else {
            assert_eq!(Some((code, reason.to_owned())), ending);
        }
        self.hold().has_closed = true;
    }

    pub(super) fn count_own(&mut self, bytes: usize) {
        if let Some(hold) = &mut self.hold {
            hold.came += bytes as u64;
        }
    }

    /// Where its subscriptions begin, as its shard has found.
    pub(super) fn note_own_seats(&mut self, turn: &Turn<'_>) {
        for (name, position, recovered) in &turn.seats {
            let is_of = |one: &Account| !one.is_over && turn.lists[one.channel].name == *name;
            let at = self.accounts.iter().position(|one| is_of(one) && !one.is_seated());
            let at = at.unwrap_or_else(|| panic!("{name} begins, and nobody asked for it"));
            self.accounts[..at].iter_mut().filter(|one| is_of(one)).for_each(|one| one.has_left = true);
            self.accounts[at].seat_at(*position, *recovered, turn);
        }
    }

    /// Whether who left a channel in this turn has all of it that was published until then: not where its peer has ended, also
    /// if that came behind its release.
    pub(super) fn has_all(&self, turn: &Turn<'_>) -> bool {
        if turn.is_half_closed {
            return false;
        }
        let leaving = turn.seen.map(|seen| seen.leaving.as_ref());
        let is_released = |why: &Released| *why == Released::Released;
        match (turn.released, leaving) {
            (Some(why), _) => is_released(why),
            (None, Some(leaving)) => leaving.is_none_or(is_released),
            (None, None) => false,
        }
    }

    /// Its shard had a turn.
    pub(super) fn check_hold(&mut self, turn: &Turn<'_>) {
        let (is_cut, ending) = (self.is_cut(), self.ending.clone());
        let Some(hold) = &mut self.hold else { return };
        hold.is_asked = false;
        if ending.is_some() {
            hold.closes_since_ns.get_or_insert(turn.now_ns);
        }
        let waiting = hold.waiting();
        if let Some(why) = turn.released {
            assert_eq!(waiting, 0, "it is given up, and something waits");
            (hold.wants, self.may_end) = (None, true);
            return self.check_released(why, turn);
        }
        hold.had_begun = hold.has_begun;
        if hold.has_begun && !is_cut && ending.is_none() {
            assert_eq!(hold.given - hold.came, waiting, "bytes that wait");
        }
        let is_told = hold.adopted.is_none() || hold.wants.is_none_or(|below| waiting > below);
        assert!(is_told, "nobody was told that {waiting} bytes wait");
    }

    fn check_released(&self, why: &Released, turn: &Turn<'_>) {
        let hold = self.hold.as_ref().expect("it is adopted");
        let (is_cut, is_mid) = (self.is_cut(), hold.is_mid_message || hold.is_abandoned);
        let has_all = || {
            let (due, asked) = (hold.asked.len() - hold.buffered, &hold.asked);
            assert!(hold.has_closed || due <= usize::from(is_mid), "{why:?}, and {asked:?} have not come");
            assert!(is_mid || !is_cut, "{why:?}, and a part of something came");
        };
        match why {
            Released::Released => {
                assert!(hold.last == Some(Last::Release) || hold.may_drain, "nobody asked for it");
                has_all();
            }
            Released::Aborted => {
                assert!(matches!(hold.last, Some(Last::Abort | Last::Drop)) || hold.may_stop, "nobody asked for it");
            }
            Released::Ended => {
                assert!(turn.is_half_closed, "its peer has not ended");
                has_all();
            }
            Released::Broken(_) => assert!(turn.is_reset, "it is not broken"),
            Released::Closed(code, reason) => {
                assert_eq!(self.ending.as_ref(), Some(&(*code, reason.clone())));
                let since_ns = hold.closes_since_ns.expect("it ends");
                let may_be_cut = turn.is_reset
                    || matches!(hold.last, Some(Last::Abort | Last::Drop))
                    || turn.now_ns >= since_ns + turn.close_timeout_ns;
                let is_told = hold.has_closed || !hold.had_begun || hold.is_mid_frame;
                assert!(may_be_cut || is_told, "{why:?}, and the client does not know");
                assert!(may_be_cut || hold.is_mid_frame || is_mid || !is_cut, "{why:?} in the midst of a frame");
            }
        }
    }
}
