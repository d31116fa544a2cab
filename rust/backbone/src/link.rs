//! The handle of a link: any thread's calls, and the end of its thread.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use fanwire_core::Position;
use fanwire_core::node::Keep;

use crate::api::{Error, Event, Full, Options};
use crate::inbox::{Inbox, Publication, Question, Telling};
use crate::running::{Way, live, plan, runtime};

/// One machine's link to the server that orders and keeps what all machines publish. Any thread; dropping it ends its
/// thread and closes its connections, and what waits has no answer.
#[derive(Debug)]
pub struct Link {
    inbox: Arc<Inbox>,
    is_stopping: Arc<AtomicBool>,
    is_edge: bool,
    thread: Option<JoinHandle<()>>,
}

impl Link {
    /// Begins a thread (`fanwire-backbone`) that connects, and goes on trying.
    ///
    /// `hear` runs in that thread; it may call the link, and must not wait for it.
    ///
    /// # Errors
    /// [`Error`]: the URL or an option cannot be used, or there is no thread. That nobody answers is [`Event::Down`].
    pub fn start(url: &str, options: Options, hear: impl FnMut(Event) + Send + 'static) -> Result<Self, Error> {
        let inbox = Arc::new(Inbox::new(&options));
        let is_stopping = Arc::new(AtomicBool::new(false));
        let plan = plan(url, options)?;
        let runtime = runtime()?;
        let is_edge = matches!(plan, Way::Edge(_));
        let (its_inbox, its_stop) = (Arc::clone(&inbox), Arc::clone(&is_stopping));
        let thread = thread::Builder::new()
            .name("fanwire-backbone".to_owned())
            .spawn(move || runtime.block_on(live(plan, its_inbox, &its_stop, Box::new(hear))))
            .map_err(Error::Thread)?;
        Ok(Self { inbox, is_stopping, is_edge, thread: Some(thread) })
    }

    /// Publishes; never waits. [`Event::Published`] with this ticket says what became of it. What one link publishes in a
    /// channel is published in the order of these calls. With an idempotency key that was used within
    /// [`Options::idempotency_ms`] in this channel, nothing is published.
    ///
    /// # Errors
    /// [`Full`]: it is too large, or too much waits. There is no event then.
    pub fn publish(
        &self,
        ticket: u64,
        channel: &str,
        bytes: Vec<u8>,
        keep: Keep,
        idempotency_key: Option<&str>,
    ) -> Result<(), Full> {
        let idempotency_key = idempotency_key.map(Box::from);
        self.inbox.publish(Publication { ticket, channel: channel.into(), bytes, keep, idempotency_key })
    }

    /// Subscribes to these channels, from now on and after each reconnect. [`Event::Wanted`] comes for each, also for one
    /// that was wanted before. `keep` is what they are published with. The caller bounds how many.
    pub fn want(&self, channels: &[&str], keep: Keep) {
        self.inbox.want(channels, Some(keep));
    }

    /// Nothing more is heard of these channels, but for what is under way.
    pub fn leave(&self, channels: &[&str]) {
        self.inbox.want(channels, None);
    }

    /// Asks for what a channel keeps after a position: 1,024 publications at most. [`Event::Since`] is the answer, or
    /// [`Event::SinceFailed`].
    ///
    /// # Errors
    /// [`Full`]: too much waits. There is no event then.
    pub fn since(&self, channel: &str, after: Position, limit: usize) -> Result<(), Full> {
        self.inbox.ask(Question { channel: channel.into(), after, limit })
    }

    /// Has the machine of that number hear bytes, or with `None` all machines of the prefix, this one among them. Nothing
    /// is kept. What one link tells comes in its order. Where the link breaks, what was under way may be lost.
    ///
    /// # Errors
    /// [`Full`]: too much waits.
    pub fn tell(&self, to: Option<u64>, bytes: Vec<u8>) -> Result<(), Full> {
        self.inbox.tell(Telling { to, bytes })
    }

    /// Hears what is published in all channels of these patterns, from now on and after each reconnect, or no more. What is
    /// wanted as well comes twice. In a cluster there are no patterns: [`Event::Unheard`] says so.
    pub fn listen(&self, pattern: &str, is_begun: bool) {
        self.inbox.listen(pattern, is_begun);
    }

    /// Has an origin's application asked for a snapshot of a channel that is wanted. It comes as [`Event::Record`], or
    /// [`Event::NoSnapshot`] does. False where the server is none that has an application: nothing is asked then.
    pub fn snapshot(&self, channel: &str) -> bool {
        if self.is_edge {
            self.inbox.snapshot(channel);
        }
        self.is_edge
    }

    /// The last position that is known here. What the link hears itself it knows. Where the server knows less, the next
    /// publication begins a new epoch.
    pub fn seen(&self, channel: &str, top: Position) {
        self.inbox.seen(channel, top);
    }

    /// How many publications and questions wait for an answer, and how many bytes they have.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        self.inbox.waiting()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.is_stopping.store(true, Ordering::Release);
        self.inbox.ring();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            let _ = thread.join(); // a hearer that panicked has said so
        }
    }
}
