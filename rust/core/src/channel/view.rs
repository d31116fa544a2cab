//! What of a log a subscription is to get. Those of one log and shard that have the same view are one feed.
use std::sync::Arc;

use super::filter::Filter;
use super::mark::{FrameKind, FrameMark};
use super::tags::Tags;

/// What of a log a subscription is to get; by default all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// What its publications have to be tagged with.
    pub filter: Option<Arc<Filter>>,
}

impl View {
    /// Whether it is all of the log.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.filter.is_none()
    }

    /// Whether a frame is in it. What tells the state of the channel is, where it has no tags: who begins with that, or is to
    /// forget a key, has to know.
    pub(super) fn has(&self, mark: &FrameMark, tags: Tags<'_>) -> bool {
        let Some(filter) = &self.filter else { return true };
        let is_state = mark.is_beginning() || mark.kind == FrameKind::Removal;
        (is_state && tags.is_empty()) || filter.matches(tags)
    }
}
