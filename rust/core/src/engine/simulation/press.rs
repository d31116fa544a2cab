//! What is published, by the engine and in plain lists.
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::list::{Kind, List, Published};
use super::sieve::tagged;
use crate::channel::{Appended, Publication, Stand, Tags};
use crate::engine::{Audience, Engine};
use crate::error::EngineError;
use crate::messages::ConnectionId;
use crate::position::Position;
use crate::protocol::Payload;
use crate::shard::simulated::{Luck, Meanwhile};

/// What is to be published.
#[derive(Clone, Debug)]
pub(super) struct New {
    pub(super) key: Option<u8>,
    pub(super) kind: Kind,
    pub(super) ttl_ns: Option<u64>,
    pub(super) bytes: usize,
    pub(super) excluded: Vec<ConnectionId>,
    /// What filters look at.
    pub(super) tag: Option<u8>,
    /// Where it stands, if that comes from outside.
    pub(super) at: Option<Position>,
}

impl New {
    pub(super) fn plain(key: u8) -> Self {
        Self { key: Some(key), kind: Kind::Plain, ttl_ns: None, bytes: 10, excluded: Vec::new(), tag: None, at: None }
    }
}

/// The engine, and the lists of what was published by it.
pub(super) struct Press {
    pub(super) engine: Engine,
    pub(super) lists: RefCell<Vec<List>>,
    pub(super) clock: &'static AtomicU64,
    /// Something was published in the midst of a write.
    pub(super) has_interfered: Cell<bool>,
}

impl Press {
    pub(super) fn publish(&self, channel: usize, new: &New, is_deferred: bool) {
        let list = &mut self.lists.borrow_mut()[channel];
        let text = format!("{}|{}|{}", list.name, list.all.len(), "x".repeat(new.bytes));
        let key = new.key.map(|key| format!("key {key}"));
        let tags = tagged(new.tag);
        let publication = Publication {
            key: key.as_deref(),
            ttl_ns: new.ttl_ns,
            is_keyframe: new.kind == Kind::Keyframe,
            is_snapshot: new.kind == Kind::Snapshot,
            excluded: &new.excluded,
            tags: Tags::read(&tags).expect("tags"),
            ..Publication::new(Payload::Text(&text))
        };
        let own = u64::from(new.kind != Kind::Snapshot);
        let stand = new.at.map_or(Stand::Next, Stand::At);
        let appended = self.engine.publish_at(Audience::Channel(&list.name), &publication, stand, is_deferred);
        if new.at.is_some_and(|at| list.is_of_another_time(at)) {
            return assert!(matches!(appended, Err(EngineError::InvalidPosition { .. })), "{:?}", new.at);
        }
        let next = Some((list.offset() + own, 0, false));
        let known = new.at.map_or(next, |at| list.stand(at, own));
        let position = match appended.expect("nothing is over a bound") {
            Appended::At(position) => position,
            Appended::Duplicate(head) => return assert_eq!((known, head), (None, list.position())),
            Appended::Missing(_) => panic!("text goes in all formats"),
        };
        let (offset, missing, begins_life) = known.expect("it is there already");
        if begins_life {
            let is_known = list.lives.iter().any(|life| life.0 == position.epoch);
            assert!(!is_known, "{position} begins a life, and there was one of that epoch");
            list.lives.push((position.epoch, list.offset()));
        }
        let (epoch, before) = list.life();
        assert_eq!(position, new.at.unwrap_or(Position { epoch, offset: offset - before }));
        let now_ns = self.clock.load(Ordering::Relaxed);
        list.all.push(Published {
            offset,
            position,
            missing,
            begins_life,
            key: new.key.filter(|_| new.kind != Kind::Snapshot),
            kind: new.kind,
            published_ns: now_ns,
            expires_ns: new.ttl_ns.map_or(u64::MAX, |ttl| now_ns + ttl),
            bytes_max: (text.len() + 120 + size_of_val(new.excluded.as_slice()) + tags.len()) as u64,
            excluded: new.excluded.as_slice().into(),
            tag: new.tag,
        });
        list.is_snapshot_asked &= new.kind == Kind::Plain;
    }
}

impl Meanwhile for Press {
    fn published(&self) -> Rc<[usize]> {
        self.lists.borrow().iter().map(|list| list.all.len()).collect()
    }

    fn publish(&self, luck: &mut Luck) {
        self.has_interfered.set(true);
        let channel = luck.below(self.lists.borrow().len());
        Press::publish(self, channel, &New { bytes: 40, ..New::plain(0) }, false);
    }
}
