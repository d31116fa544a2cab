//! A channel's logs, one for each format in use, and one more for each coding that it is read in.
use std::collections::HashSet;
use std::sync::Arc;

use smallvec::SmallVec;

use super::log::Log;
use super::view::View;
use crate::error::EngineError;
use crate::protocol::LogId;

/// The logs, densely, in the order of their formats and codings: nearly always one or two, so a look through them finds each.
#[derive(Debug, Default)]
pub(super) struct Logs(SmallVec<[(LogId, Box<Log>); 1]>);

impl Logs {
    /// The log that is in use by this name.
    pub(super) fn of(&self, id: impl Into<LogId>) -> Option<&Log> {
        let id = id.into();
        self.0.iter().find(|one| one.0 == id).map(|one| &*one.1)
    }

    /// The same, to be written.
    pub(super) fn of_mut(&mut self, id: impl Into<LogId>) -> Option<&mut Log> {
        let id = id.into();
        self.0.iter_mut().find(|one| one.0 == id).map(|one| &mut *one.1)
    }

    /// A log that was not in use.
    pub(super) fn begin(&mut self, id: LogId, log: Log) {
        let place = self.0.partition_point(|one| one.0 < id);
        self.0.insert(place, (id, Box::new(log)));
    }

    /// Nobody reads a log any more.
    pub(super) fn end(&mut self, id: LogId) {
        self.0.retain(|one| one.0 != id);
        if self.0.is_empty() {
            self.0 = SmallVec::new(); // most channels that have had several formats are idle at last
        }
    }

    /// Each log, with its name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (LogId, &Log)> {
        self.0.iter().map(|one| (one.0, &*one.1))
    }

    /// The same, to be written.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (LogId, &mut Log)> {
        self.0.iter_mut().map(|one| (one.0, &mut *one.1))
    }

    /// This view, sharing the filter that others here have, if it is the same.
    ///
    /// # Errors
    /// [`EngineError::LimitReached`] where it is none of so many distinct filters.
    pub(super) fn known_view(&self, view: &View, filters_max: usize) -> Result<View, EngineError> {
        if view.is_all() {
            return Ok(View::default());
        }
        let watches = || self.iter().flat_map(|one| &one.1.watches);
        if let Some(known) = watches().find(|watch| watch.view == *view) {
            return Ok(known.view.clone());
        }
        let filters: HashSet<_> =
            watches().filter_map(|watch| Some(Arc::as_ptr(watch.view.filter.as_ref()?))).collect();
        let (value, bound) = (filters.len() as u64 + 1, filters_max as u64);
        if value > bound {
            return Err(EngineError::LimitReached { name: "filters_max", value, bound });
        }
        Ok(view.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Format;

    #[test]
    fn formats_in_use_have_logs_in_their_order_and_no_other_has_one() {
        let mut logs = Logs::default();
        for format in [Format::HubJson, Format::EnvelopeMsgpack, Format::Raw] {
            assert!(logs.of(format).is_none());
            logs.begin(format.into(), Log::behind(format.index() as u64));
        }
        let all: Vec<_> = logs.iter().map(|(id, log)| (id.format, log.tail_offset())).collect();
        assert_eq!(all, [(Format::Raw, 0), (Format::HubJson, 3), (Format::EnvelopeMsgpack, 9)]);
        logs.end(Format::HubJson.into());
        logs.of_mut(Format::Raw).expect("it is in use").tail = 7;
        let tails: Vec<_> = logs.iter_mut().map(|(id, log)| (id.format, log.tail())).collect();
        assert_eq!(tails, [(Format::Raw, 7), (Format::EnvelopeMsgpack, 0)]);
        assert!(logs.of(Format::HubJson).is_none() && logs.of(Format::Sse).is_none());
        [Format::Raw, Format::EnvelopeMsgpack].into_iter().for_each(|format| logs.end(format.into()));
        assert!(logs.iter().next().is_none() && !logs.0.spilled(), "an idle channel keeps no list");
    }
}
