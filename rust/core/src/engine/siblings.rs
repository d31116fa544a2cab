//! The thread that speaks with the other workers, where there are some.
use std::sync::Arc;

use super::{Engine, died, lock};
use crate::error::EngineError;
use crate::failure::run_to_end;
use crate::messages::{Command, Event};
use crate::shard::Common;
use crate::siblings::{Delivery, Errand, Office, Thread};

const NAME: &str = "fanwire-siblings";

/// The shards, and the log, as that thread has them.
struct Shards(Arc<Common>);

impl Office for Shards {
    fn shards(&self) -> usize {
        self.0.shards.len()
    }

    fn deliver(&self, shard: usize, delivery: Delivery) {
        if let Some(shard) = self.0.shards.get(shard) {
            shard.command(Command::OfSiblings(Box::new(delivery)));
        }
    }

    fn record(&self, level: u8, text: String) {
        self.0.events.push(0, Event::Record(level, text));
    }
}

impl Engine {
    /// Starts it; nothing where there are no others.
    ///
    /// # Errors
    /// [`EngineError::ListenFailed`], of its socket in the workers' folder.
    pub(super) fn join_siblings(&self) -> Result<(), EngineError> {
        let settings = &self.common.settings;
        let (Some(siblings), Some(told)) = (&self.common.siblings, &settings.siblings) else { return Ok(()) };
        let terms = (settings.hubs.disconnect_timeout, settings.descriptors_spare);
        let office = Shards(Arc::clone(&self.common));
        let failed = |cause| EngineError::ListenFailed { address: told.folder.display().to_string(), cause };
        let (tokens, clock) = (Arc::clone(&self.common.tokens), self.common.clock);
        let thread = Thread::new(Arc::clone(siblings), tokens, clock, terms, &told.folder, office).map_err(failed)?;
        let common = Arc::clone(&self.common);
        let body = move || {
            if let Err(text) = run_to_end(|| thread.run()) {
                died(&common, NAME, text);
            }
        };
        let started = std::thread::Builder::new().name(NAME.to_owned()).spawn(body).map_err(failed)?;
        *lock(&self.sibling_thread) = Some(started);
        Ok(())
    }

    /// Ends it, when the shards have ended: what they have said goes out.
    pub(super) fn leave_siblings(&self) {
        if let (Some(siblings), Some(thread)) = (&self.common.siblings, lock(&self.sibling_thread).take()) {
            siblings.leave(Errand::Stop);
            let _ = thread.join(); // one that panicked has told
        }
    }
}
