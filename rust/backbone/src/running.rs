//! The life of a link's thread: connect, be up, be down, wait, and again.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fanwire_core::Backoff;
use tokio::runtime::{Builder, Runtime};

use crate::api::{Error, Event, Options, Refused};
use crate::channels::Heard;
use crate::edge;
use crate::inbox::{Inbox, Publication};
use crate::names::Names;
use crate::nats;
use crate::roots;
use crate::server::MOVED;
use crate::session::{End, Plan, Session, refuse, unanswered};
use crate::url::Target;

/// A session that was shorter is no success: the next attempt waits for longer.
const LASTING: Duration = Duration::from_secs(5);
/// Between two attempts, when it begins.
const WAIT_FIRST: Duration = Duration::from_millis(50);
/// The longest.
const WAIT_LAST: Duration = Duration::from_secs(5);

/// What a link is to do, by the server that it is for.
pub(crate) enum Way {
    Redis(Plan),
    Nats(nats::Plan),
    Edge(edge::Plan),
}

/// A link that is up.
enum Up<'a> {
    Redis(Box<Session<'a>>),
    Nats(Box<nats::Session<'a>>),
    Edge(Box<edge::Session<'a>>),
}

impl Way {
    async fn connect<'a>(&'a self, inbox: &'a Inbox, heard: &'a Arc<Heard>) -> Result<Up<'a>, String> {
        Ok(match self {
            Self::Redis(plan) => Up::Redis(Box::new(Session::connect(plan, inbox, heard).await?)),
            Self::Nats(plan) => Up::Nats(Box::new(nats::Session::connect(plan, inbox, heard).await?)),
            Self::Edge(plan) => Up::Edge(Box::new(edge::Session::connect(plan, inbox, heard).await?)),
        })
    }
}

impl Up<'_> {
    async fn run(self, carried: Vec<Publication>, is_stopping: &AtomicBool) -> End {
        match self {
            Self::Redis(session) => session.run(carried, is_stopping).await,
            // These carry nothing over.
            Self::Nats(session) => session.run(is_stopping).await,
            Self::Edge(session) => session.run(is_stopping).await,
        }
    }
}

/// Reads what a link is to do.
pub(crate) fn plan(url: &str, options: Options) -> Result<Way, Error> {
    for (option, length) in [("ping_every", options.ping_every), ("silent_max", options.silent_max)] {
        if length < Duration::from_millis(1) {
            return Err(Error::Option { option, value: format!("{length:?}"), expected: "a millisecond at least" });
        }
    }
    let connector = |is_tls: bool| is_tls.then(|| roots::connector(options.roots_pem.as_deref())).transpose();
    if nats::Target::is_meant(url) {
        let (target, names) = (nats::Target::parse(url)?, nats::Names::new(&options)?);
        let tls = connector(target.is_tls)?;
        return Ok(Way::Nats(nats::Plan::new(target, names, options, tls)));
    }
    if edge::Target::is_meant(url) {
        let target = edge::Target::parse(url)?;
        let tls = connector(target.is_tls)?;
        return Ok(Way::Edge(edge::Plan::new(target, options, tls)));
    }
    let (target, names) = (Target::parse(url)?, Names::new(&options)?);
    let tls = connector(target.is_tls)?;
    Ok(Way::Redis(Plan { target, names, options, tls }))
}

/// What a thread runs its link in.
pub(crate) fn runtime() -> Result<Runtime, Error> {
    Builder::new_current_thread().enable_io().enable_time().build().map_err(Error::Thread)
}

/// The whole of it, until it is stopped.
pub(crate) async fn live(way: Way, inbox: Arc<Inbox>, is_stopping: &AtomicBool, hear: Box<dyn FnMut(Event) + Send>) {
    let heard = Arc::new(Heard::new(hear));
    let mut backoff = Backoff::new(WAIT_FIRST, WAIT_LAST, getrandom::u64().unwrap_or(1));
    // Why it is down. Without a reason what waits may wait for one attempt.
    let mut down: Option<String> = None;
    let mut carried = Vec::new();
    while !is_stopping.load(Ordering::Acquire) {
        let attempt = tokio::select! {
            attempt = way.connect(&inbox, &heard) => attempt,
            () = idle(&inbox, &heard, down.as_deref(), is_stopping) => return,
        };
        let why = match attempt {
            Ok(session) => {
                let began = Instant::now();
                heard.tell(Event::Up);
                match session.run(std::mem::take(&mut carried), is_stopping).await {
                    End::Stopped => return,
                    End::Broken(why, publications) => {
                        carried = publications;
                        if began.elapsed() > LASTING {
                            backoff.reset();
                        }
                        heard.tell(Event::Down(why.clone()));
                        down = (!why.starts_with(MOVED)).then_some(why);
                        None
                    }
                }
            }
            Err(why) => Some(why),
        };
        if let Some(why) = why {
            refuse_all(&inbox, &heard, std::mem::take(&mut carried), &why);
            if down.as_ref() != Some(&why) {
                heard.tell(Event::Down(why.clone()));
            }
            down = Some(why);
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.wait()) => {}
            () = idle(&inbox, &heard, down.as_deref(), is_stopping) => return,
        }
    }
}

/// Refuses what comes while it is down, until it is stopped.
async fn idle(inbox: &Inbox, heard: &Heard, down: Option<&str>, is_stopping: &AtomicBool) {
    loop {
        if is_stopping.load(Ordering::Acquire) {
            return;
        }
        if let Some(why) = down {
            refuse_all(inbox, heard, Vec::new(), why);
        }
        inbox.rung().await;
    }
}

fn refuse_all(inbox: &Inbox, heard: &Heard, mut publications: Vec<Publication>, why: &str) {
    let mut taken = inbox.take();
    drop(heard.apply(&mut taken)); // what is wanted is subscribed when it is up
    publications.append(&mut taken.publications);
    inbox.told(&taken.tellings); // whoever told it hears that it was down
    for channel in taken.snapshots {
        heard.tell(Event::NoSnapshot { channel, reason: why.to_owned() });
    }
    refuse(inbox, heard, publications, || Refused::Down(why.to_owned()));
    for question in taken.questions {
        unanswered(inbox, heard, question, Refused::Down(why.to_owned()));
    }
}
