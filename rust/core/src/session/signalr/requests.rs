//! What carries messages where there is no WebSocket: posts bring those of the client, polls fetch those for it.
use std::collections::VecDeque;

use crate::connection_id::ConnectionId;

/// The requests for one connection: behind a pointer, as a WebSocket has none.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// The first poll, which is answered at once, has come.
    has_polled: bool,
    /// The poll that waits for messages.
    poll: Option<ConnectionId>,
    /// Posts in the order of their arrival: the first is read, the others wait.
    posts: VecDeque<ConnectionId>,
    /// The end has been said, and waits for a poll.
    is_over: bool,
}

/// What becomes of a poll that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Poll {
    /// It only opens the connection, and is answered at once.
    Opens,
    /// It waits for messages; an older one is answered with nothing.
    Waits(Option<ConnectionId>),
}

/// What the poll that waits is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PollAnswer {
    /// Nothing yet.
    Waits,
    /// What there is.
    Messages,
    /// That the connection is over.
    Over,
}

impl Requests {
    /// A post has come: it is read when all before it have been.
    pub(crate) fn handle_post(&mut self, post: ConnectionId) {
        self.posts.push_back(post);
    }

    /// A post is dealt with, or its socket is gone: gives whose turn it is.
    pub(crate) fn handle_post_end(&mut self, post: ConnectionId) -> Option<ConnectionId> {
        self.posts.retain(|&one| one != post);
        self.posts.front().copied()
    }

    /// A poll has come.
    pub(crate) fn handle_poll(&mut self, poll: ConnectionId) -> Poll {
        if !std::mem::replace(&mut self.has_polled, true) {
            return Poll::Opens;
        }
        Poll::Waits(self.poll.replace(poll))
    }

    /// A poll's time is up, or its socket is gone. True if it was the one that waits.
    pub(crate) fn handle_poll_end(&mut self, poll: ConnectionId) -> bool {
        self.poll.take_if(|one| *one == poll).is_some()
    }

    /// What the poll that waits is answered, with messages there or not. One that is answered waits no more.
    pub(crate) fn answer_poll(&mut self, has_messages: bool) -> PollAnswer {
        let answer = match (has_messages, self.is_over) {
            (true, _) => PollAnswer::Messages,
            (false, true) => PollAnswer::Over,
            (false, false) => return PollAnswer::Waits,
        };
        self.poll = None;
        answer
    }

    /// The end is said to the poll that waits, or to the next one.
    pub(crate) fn end(&mut self) {
        self.is_over = true;
    }

    /// Those that have come and are not dealt with, in their order.
    pub(super) fn posts(&self) -> impl Iterator<Item = ConnectionId> {
        self.posts.iter().copied()
    }

    /// The poll that waits for messages.
    pub(super) fn poll(&self) -> Option<ConnectionId> {
        self.poll
    }

    /// Whether the end has been said, and waits for a poll.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(slot: u32) -> ConnectionId {
        ConnectionId::new(0, 0, 0, slot)
    }

    #[test]
    fn posts_have_their_turns_and_one_that_is_gone_has_none() {
        let mut requests = Requests::default();
        (1..4).for_each(|slot| requests.handle_post(id(slot)));
        assert_eq!(requests.handle_post_end(id(2)), Some(id(1)), "its socket broke while it waited");
        assert_eq!(requests.handle_post_end(id(1)), Some(id(3)));
        assert_eq!((requests.handle_post_end(id(3)), requests.handle_post_end(id(3))), (None, None));
    }

    #[test]
    fn the_first_poll_opens_and_of_the_others_the_newest_waits() {
        let mut requests = Requests::default();
        assert_eq!((requests.handle_poll(id(1)), requests.poll()), (Poll::Opens, None));
        assert_eq!(requests.handle_poll(id(2)), Poll::Waits(None));
        assert_eq!(requests.handle_poll(id(3)), Poll::Waits(Some(id(2))));
        assert!(!requests.handle_poll_end(id(2)), "another one waits");
        assert_eq!((requests.answer_poll(false), requests.poll()), (PollAnswer::Waits, Some(id(3))));
        assert_eq!((requests.answer_poll(true), requests.poll()), (PollAnswer::Messages, None));
        assert_eq!(requests.handle_poll(id(4)), Poll::Waits(None));
        assert!(requests.handle_poll_end(id(4)) && requests.poll().is_none());
    }

    #[test]
    fn the_end_comes_behind_what_is_still_to_say() {
        let mut requests = Requests::default();
        requests.handle_poll(id(1));
        requests.end();
        assert!(requests.is_over());
        requests.handle_poll(id(2));
        assert_eq!([requests.answer_poll(true), requests.answer_poll(false)], [PollAnswer::Messages, PollAnswer::Over]);
    }
}
