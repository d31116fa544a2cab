//! An engine at one end of the star.
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use fanwire_core::node::{Member, Sender, agreement};
use fanwire_core::{Engine, Settings};
use thiserror::Error;

use crate::error::{SendError, StartError};
use crate::link::Link;
use crate::linked::Linked;
use crate::sender::LinkSender;
use crate::sequencing::{BOUNDS, RELEASE};

/// So long a member waits for its first word at most.
const WELCOME: Duration = Duration::from_secs(10);

/// Why an engine is none of several workers.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum JoinError {
    /// There is no link.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The sequencer does not want it.
    #[error("{0}")]
    Refused(String),
    /// Nobody has answered.
    #[error("{}: the supervisor's sequencer did not answer within {} s", path.display(), WELCOME.as_secs())]
    Silent {
        /// The socket's path.
        path: std::path::PathBuf,
    },
}

impl Sender for LinkSender {
    fn send(&self, message: &[u8], is_deferred: bool) -> Result<(), (u64, u64)> {
        let sent = if is_deferred { self.send_deferred(message) } else { LinkSender::send(self, message) };
        sent.map_err(|error| match error {
            SendError::Full { waiting, bytes_max } => ((waiting + message.len()) as u64, bytes_max as u64),
            SendError::TooLong { bytes, bytes_max } => (bytes as u64, bytes_max as u64),
        })
    }

    fn flush(&self) {
        LinkSender::flush(self);
    }
}

struct Joined {
    /// Whoever drops the engine ends it, and not this thread.
    engine: Weak<Engine>,
    first: Option<SyncSender<Result<(), String>>>,
}

impl Linked for Joined {
    fn up(&mut self) {
        if let Some(engine) = self.engine.upgrade() {
            engine.node_up();
        }
    }

    fn received(&mut self, frame: &[u8]) -> Result<(), String> {
        let Some(engine) = self.engine.upgrade() else { return Ok(()) };
        let done = engine.node_received(frame);
        if let Some(first) = self.first.take() {
            let _ = first.try_send(done.clone()); // nobody waits any more
        }
        done
    }

    fn turned(&mut self) {
        if let Some(engine) = self.engine.upgrade() {
            engine.node_turned();
        }
    }

    fn down(&mut self, why: &str) {
        if let Some(engine) = self.engine.upgrade() {
            engine.node_down(why);
        }
    }
}

/// Makes an engine that does not serve yet one of those whose publications the sequencer at `path` orders, as the worker
/// of its settings. Waits for its welcome, ten seconds at most. The link has to end before the engine stops.
///
/// # Errors
/// [`JoinError`].
pub fn join(
    engine: &Arc<Engine>,
    path: &Path,
    settings: &Settings,
    log: impl Fn(u8, String) + Send + Sync + 'static,
) -> Result<Link, JoinError> {
    let (first, answer) = sync_channel(1);
    let make = |sender| {
        let member = Member::new(settings.worker, agreement(RELEASE, settings), Arc::new(sender));
        engine.join_workers(member.signing(settings.siblings.as_ref().map(|siblings| siblings.key.as_slice())));
        Box::new(Joined { engine: Arc::downgrade(engine), first: Some(first) }) as Box<dyn Linked>
    };
    let link = Link::start(path, make, BOUNDS, log)?;
    match answer.recv_timeout(WELCOME) {
        Ok(Ok(())) => Ok(link),
        Ok(Err(why)) => Err(JoinError::Refused(why)),
        Err(_) => Err(JoinError::Silent { path: path.to_owned() }),
    }
}
