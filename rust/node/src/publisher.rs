//! Publishing into an engine outside from a program that serves nobody: no sequencer, no socket that listens. Such programs
//! may also tell one another things.
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fanwire_backbone::{Error, Event, Full, Link, Options, Refused};
use fanwire_core::channel::Publication;
use fanwire_core::node::{
    Keep, Outgoing, RULES, RULES_KEPT, Recipients, bytes_for_programs, name_for_programs, read_rules,
};
use fanwire_core::{EngineError, Position, Settings};

use crate::answer::{Answer, Unplaced};
use crate::heard::{Heard, Told};

/// What hubs say of their channels is asked for again after so long.
const RULES_AGE_MAX: Duration = Duration::from_secs(60);

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Such a publication there cannot be.
    #[error(transparent)]
    Publication(#[from] EngineError),
    /// Too much waits.
    #[error(transparent)]
    Full(#[from] Full),
}

/// What hubs have said of their channels.
#[derive(Debug, Default)]
struct Rules {
    /// When they were asked for.
    asked: Option<Instant>,
    is_known: bool,
    /// Who waits for the answer.
    waiting: Option<Arc<Answer>>,
}

/// What the link's thread shares with the publisher's callers.
#[derive(Debug)]
struct Shared {
    settings: Mutex<Settings>,
    answers: Mutex<HashMap<u64, Arc<Answer>>>,
    rules: Mutex<Rules>,
    heard: Heard,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Something of the link; gives what somebody who runs it wants to know.
    fn hear(&self, event: Event) -> Option<(u8, String)> {
        match event {
            Event::Published { ticket, result } => self.settle(ticket, result),
            Event::Since { channel, records, .. } if *channel == *RULES => {
                let told = records.last().and_then(|newest| read_rules(&newest.bytes));
                return self.learn(told);
            }
            Event::SinceFailed { channel, refused, .. } if *channel == *RULES => {
                let waiting = {
                    let mut rules = lock(&self.rules);
                    rules.asked = None;
                    rules.waiting.take()
                };
                if let Some(waiting) = waiting {
                    waiting.settle(Err(Unplaced { why: refused.to_string(), may_stand: false }));
                }
            }
            Event::Up => {
                self.heard.changed(false);
                return Some((20, "the backbone is reached".into()));
            }
            Event::Down(why) => {
                self.heard.changed(true);
                return Some((40, format!("the backbone is out of reach: {why}")));
            }
            Event::Wanted { channel, top } => self.heard.settle(&channel, Ok(top)),
            Event::Unheard { channel, reason } => self.heard.settle(&channel, Err(reason)),
            Event::Record { channel, record } if *channel == *RULES => return self.learn(read_rules(&record.bytes)),
            Event::Record { channel, record } => {
                let bytes = bytes_for_programs(&record.bytes, &lock(&self.settings));
                match bytes {
                    Ok(bytes) => self.heard.message(channel.strip_prefix('p').unwrap_or(&channel), bytes),
                    Err(why) => return Some((40, format!("a message for programs in {channel:?} {why}"))),
                }
            }
            _ => (),
        }
        None
    }

    fn settle(&self, ticket: u64, result: Result<Position, Refused>) {
        let answer = lock(&self.answers).remove(&ticket);
        if let Some(answer) = answer {
            let unplaced =
                |why: Refused| Unplaced { may_stand: matches!(why, Refused::Unknown(_)), why: why.to_string() };
            answer.settle(result.map_err(unplaced));
        }
    }

    fn learn(&self, told: Option<Vec<fanwire_core::ChannelRule>>) -> Option<(u8, String)> {
        let is_told = told.is_some();
        if let Some(channels) = told {
            lock(&self.settings).channels = channels;
        }
        let (waiting, was_known) = {
            let mut rules = lock(&self.rules);
            (rules.waiting.take(), std::mem::replace(&mut rules.is_known, true))
        };
        if let Some(waiting) = waiting {
            waiting.settle(Ok(Position { epoch: 0, offset: 0 }));
        }
        let text = "no hub has said there what its channels keep: nothing is kept of what is published";
        (!is_told && !was_known).then(|| (30, text.to_owned()))
    }

    /// Nothing more comes.
    fn end(&self) {
        let answers = std::mem::take(&mut *lock(&self.answers));
        let waiting = lock(&self.rules).waiting.take();
        for answer in answers.into_values().chain(waiting) {
            answer.settle(Err(Unplaced { why: "the publisher was closed meanwhile".to_owned(), may_stand: true }));
        }
    }
}

/// A link of a program that publishes, and hears other programs. Any thread.
#[derive(Debug)]
pub struct Publisher {
    /// `None` once it ends.
    link: Option<Link>,
    shared: Arc<Shared>,
    last: AtomicU64,
    /// Whose the link's thread is: a fork has none.
    process: u32,
}

impl Publisher {
    /// Begins one. With `asks` the settings' channels are those that hubs have told.
    ///
    /// # Errors
    /// [`Error`]: the URL or the prefix cannot be used, or there is no thread.
    pub fn start(
        url: &str,
        prefix: &str,
        settings: Settings,
        asks: bool,
        log: impl Fn(u8, String) + Send + 'static,
    ) -> Result<Self, Error> {
        let rules = Mutex::new(Rules { is_known: !asks, ..Rules::default() });
        let shared = Arc::new(Shared {
            settings: Mutex::new(settings),
            answers: Mutex::default(),
            rules,
            heard: Heard::new().map_err(Error::Thread)?,
        });
        let its = Arc::clone(&shared);
        let options = Options { prefix: prefix.to_owned(), ..Options::default() };
        let link = Link::start(url, options, move |event| {
            if let Some((level, text)) = its.hear(event) {
                log(level, text);
            }
        })?;
        let process = std::process::id();
        Ok(Self { link: Some(link), shared, last: AtomicU64::new(0), process })
    }

    fn link(&self) -> &Link {
        self.link.as_ref().expect("it is there until it is dropped")
    }

    /// What has to be known before the first publication: it is asked for. `None` once it is.
    #[must_use]
    pub fn prepare(&self) -> Option<Arc<Answer>> {
        let mut rules = lock(&self.shared.rules);
        if rules.is_known && rules.asked.is_none_or(|asked| asked.elapsed() < RULES_AGE_MAX) {
            return None;
        }
        if rules.waiting.is_none() {
            rules.asked = Some(Instant::now());
            rules.waiting = Some(Arc::default());
            self.link().want(&[RULES], RULES_KEPT); // an engine may know nothing of what nobody wants
            let asked = self.link().since(RULES, Position { epoch: 0, offset: 0 }, 1);
            if asked.is_err() {
                rules.waiting = None; // so much waits that the publication is refused
                return None;
            }
        }
        rules.waiting.clone().filter(|_| !rules.is_known)
    }

    /// Publishes; never waits. What one thread publishes in a channel stands there in that order.
    ///
    /// # Errors
    /// [`PublishError`]: nothing was published.
    pub fn publish(
        &self,
        to: Recipients<'_>,
        publication: &Publication<'_>,
        idempotency_key: Option<&str>,
    ) -> Result<Arc<Answer>, PublishError> {
        let Outgoing { name, record, keep } = Outgoing::new(to, publication, &lock(&self.shared.settings))?;
        let ticket = self.last.fetch_add(1, Ordering::Relaxed);
        let answer = Arc::<Answer>::default();
        lock(&self.shared.answers).insert(ticket, Arc::clone(&answer));
        if let Err(full) = self.link().publish(ticket, &name, record, keep, idempotency_key) {
            lock(&self.shared.answers).remove(&ticket);
            return Err(full.into());
        }
        Ok(answer)
    }

    /// Has what is published for programs under this name come. Known once it does; it goes on over reconnects.
    #[must_use]
    pub fn hear(&self, name: &str) -> Arc<Answer> {
        let name = name_for_programs(name);
        let answer = self.shared.heard.ask(name.clone());
        self.link().want(&[&name], Keep { messages: 0, age_ms: 0 });
        answer
    }

    /// No more of it.
    pub fn hear_no_more(&self, name: &str) {
        self.link().leave(&[&name_for_programs(name)]);
    }

    /// All that has come since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<Told> {
        self.shared.heard.take()
    }

    /// Can be read from once something has come. It is closed with this.
    #[must_use]
    pub fn descriptor(&self) -> i32 {
        self.shared.heard.descriptor()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            return std::mem::forget(self.link.take()); // its thread is the parent's, and so are its locks
        }
        drop(self.link.take());
        self.shared.end();
        self.shared.heard.end();
    }
}
