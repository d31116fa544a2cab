//! A thread of the engine's that has ended by a panic: which, and of what. It is told, and no other thread ends for it.
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use crate::error::EngineError;

/// The first thread that died, if one has.
#[derive(Debug, Default)]
pub(crate) struct Failure(OnceLock<(String, String)>);

impl Failure {
    /// A thread of this name has died of that.
    pub(crate) fn report(&self, thread: &str, text: String) {
        // Only the first is told: what dies after it may have died of it.
        let _ = self.0.set((thread.to_owned(), text));
    }

    /// Whether one has.
    pub(crate) fn has_come(&self) -> bool {
        self.0.get().is_some()
    }

    /// # Errors
    /// [`EngineError::ThreadDied`], once one has.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        match self.0.get() {
            None => Ok(()),
            Some((thread, text)) => Err(EngineError::ThreadDied { thread: thread.clone(), text: text.clone() }),
        }
    }
}

/// Runs what a thread does until it ends; what it panicked with comes back as text.
///
/// What `body` owned is dropped: a shard's sockets are closed.
///
/// # Errors
/// The panic's text.
pub fn run_to_end(body: impl FnOnce()) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|payload| panic_text(&*payload))
}

/// The text that a panic was given.
#[must_use]
pub fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("it gave no text").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_its_text_and_the_first_is_told() {
        assert_eq!(run_to_end(|| ()), Ok(()));
        assert_eq!(run_to_end(|| panic!("one")), Err("one".to_owned()));
        assert_eq!(run_to_end(|| panic!("{}", 2)), Err("2".to_owned()));
        assert_eq!(run_to_end(|| std::panic::panic_any(3)), Err("it gave no text".to_owned()));
        let failure = Failure::default();
        assert!(!failure.has_come() && failure.check().is_ok());
        failure.report("fanwire-0", "one".to_owned());
        failure.report("fanwire-1", "two".to_owned());
        let told = failure.check().expect_err("one has died").to_string();
        assert_eq!(told, "thread fanwire-0 has died: one");
    }
}
