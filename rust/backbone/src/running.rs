//! The life of a link's thread: connect, be up, be down, wait, and again.
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::api::{Error, Event, Options};
use crate::inbox::Inbox;

/// What a link is to do.
#[derive(Debug)]
pub(crate) struct Plan;

impl Plan {
    pub(crate) fn new(_url: &str, _options: Options) -> Result<Self, Error> {
        Ok(Self)
    }
}

pub(crate) fn run(_plan: Plan, _inbox: Arc<Inbox>, _is_stopping: &AtomicBool, _hear: Box<dyn FnMut(Event) + Send>) {}
