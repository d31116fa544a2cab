//! What is for one user, or for a whole SignalR hub, over workers: what a client of theirs may get next.
use crate::engine::Audience;
use crate::messages::ConnectionId;
use crate::position::Position;

/// What the sequencer has ordered, or is yet to.
#[derive(Clone, Debug)]
pub(super) struct Ordered {
    /// Where it stands, once it has come back to whoever published it.
    pub(super) position: Position,
    pub(super) text: String,
    /// So many had been published before it.
    pub(super) number: usize,
    /// Whom it is not for.
    pub(super) excluded: Vec<ConnectionId>,
    /// Its time may be over before it comes.
    pub(super) has_ttl: bool,
}

/// Whom publications of the world of workers are for, behind its channels: users, and the hub.
pub(super) const AUDIENCES: [Audience<'static>; 4] =
    [Audience::User("u0"), Audience::User("u1"), Audience::User("u2"), Audience::Hub("/hub")];
/// Of the hub.
pub(super) const HUB: usize = AUDIENCES.len() - 1;

/// As whose a connection is accepted: the audience, and the name.
pub(super) fn user_of(id: ConnectionId) -> (usize, String) {
    let index = (id.to_bits() % HUB as u64) as usize;
    (index, format!("u{index}"))
}

/// One client's account of one audience. It is written to as it comes, without a position.
#[derive(Debug)]
pub(super) struct Direct {
    /// Which of them.
    pub(super) audience: usize,
    /// All that was published from this number on is for it; what was before may be. `None`: its worker has just come, and
    /// does not hear yet what others publish for the hub.
    sure_from: Option<usize>,
    /// The next that it may get, once it has got one.
    next: Option<usize>,
}

impl Direct {
    /// That of one who has been let in.
    pub(super) fn new(audience: usize) -> Self {
        Self { audience, sure_from: None, next: None }
    }

    /// Its worker hears what is for it, now that so many were published.
    pub(super) fn be_sure(&mut self, published: usize) {
        self.sure_from.get_or_insert(published);
    }

    /// It has got this: neither twice nor out of order, with nothing left out that was for it.
    pub(super) fn receive(&mut self, text: &str, ordered: &[Ordered], id: Option<ConnectionId>) {
        let index = ordered.iter().position(|one| one.text == text).expect("it has a place");
        assert!(!id.is_some_and(|id| ordered[index].excluded.contains(&id)), "{text} is not for it");
        let next = self.next.unwrap_or(0);
        assert!(index >= next, "{text} is {index}, and {next} is next");
        let left_out = ordered[next..index].iter().find(|one| self.is_owed(one, id));
        assert!(left_out.is_none(), "{text} came, and {left_out:?} did not: {self:?}");
        self.next = Some(index + 1);
    }

    /// Nothing is on its way any more.
    pub(super) fn check_end(&self, ordered: &[Ordered], id: Option<ConnectionId>) {
        let owed = ordered[self.next.unwrap_or(0)..].iter().find(|one| self.is_owed(one, id));
        assert!(owed.is_none(), "{owed:?} has not come: {self:?}");
    }

    fn is_owed(&self, one: &Ordered, id: Option<ConnectionId>) -> bool {
        let is_sure = self.next.is_some() || self.sure_from.is_some_and(|from| one.number >= from);
        is_sure && !one.has_ttl && !id.is_some_and(|id| one.excluded.contains(&id))
    }
}
