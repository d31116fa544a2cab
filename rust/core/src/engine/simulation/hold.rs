//! What is known of one adopted connection besides its subscriptions.
use std::collections::VecDeque;
use std::rc::Rc;

use crate::engine::Adopted;

/// How many publications of each channel there were.
pub(super) type Published = Rc<[usize]>;

/// A message of the framework, when its first byte was asked for.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) published: Published,
    /// Who was subscribed by then; what comes later waits for it.
    pub(super) accounts: usize,
    /// Of one that many connections have written in one call: which.
    pub(super) broadcast: Option<usize>,
}

/// What was asked of the engine at last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    Release,
    Abort,
    /// It was dropped, which gives it up and leaves the socket.
    Drop,
    /// Nothing; the engine took no more.
    Refused,
}

/// What is known of one adopted connection besides its subscriptions.
#[derive(Debug)]
pub(super) struct Hold {
    /// None once it was dropped.
    pub(super) adopted: Option<Adopted>,
    /// Whose it is.
    pub(super) framework: usize,
    pub(super) has_begun: bool,
    /// The same, when its shard had its last turn.
    pub(super) had_begun: bool,
    pub(super) last: Option<Last>,
    /// What the framework gave ends in the midst of a message, and of a frame.
    pub(super) is_mid_message: bool,
    pub(super) is_mid_frame: bool,
    /// The message under way never ends: a Close frame stands in it.
    pub(super) is_abandoned: bool,
    /// The framework has closed.
    pub(super) is_silent: bool,
    /// Messages in the framework's own buffer, which go before all that is given to the engine.
    pub(super) buffered: usize,
    /// Somebody waits until no more than so much waits.
    pub(super) wants: Option<u64>,
    /// Something was asked of it since its shard had a turn.
    pub(super) is_asked: bool,
    /// The engine gives up who is at its end by now.
    pub(super) may_drain: bool,
    pub(super) may_stop: bool,
    /// Messages that have not come, the first of which has this number.
    pub(super) asked: VecDeque<Asked>,
    pub(super) next: usize,
    /// Bytes that were asked for, and that came.
    pub(super) given: u64,
    pub(super) came: u64,
    /// A Close frame has come, behind which nothing may.
    pub(super) has_closed: bool,
    /// Since when the engine closes it.
    pub(super) closes_since_ns: Option<u64>,
}

impl Hold {
    pub(super) fn new(adopted: Adopted, framework: usize, next: usize) -> Self {
        Self {
            adopted: Some(adopted),
            framework,
            has_begun: false,
            had_begun: false,
            last: None,
            is_mid_message: false,
            is_mid_frame: false,
            is_abandoned: false,
            is_silent: false,
            buffered: 0,
            wants: None,
            is_asked: true,
            may_drain: false,
            may_stop: false,
            asked: VecDeque::new(),
            next,
            given: 0,
            came: 0,
            has_closed: false,
            closes_since_ns: None,
        }
    }

    /// Private bytes that wait, as the engine says.
    pub(super) fn waiting(&self) -> u64 {
        self.adopted.as_ref().map_or(0, Adopted::waiting)
    }

    /// A Close frame has come.
    pub(super) fn has_closed(&self) -> bool {
        self.has_closed
    }

    pub(super) fn is_taken(&self) -> bool {
        self.last.is_none()
    }
}
