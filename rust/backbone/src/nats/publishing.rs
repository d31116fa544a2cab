//! Requests under way to a NATS server: each has a number, which its answer names.
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::asking::Asking;
use super::names::{Class, Names};
use super::streams::MAGIC;
use super::wire::publish;
use crate::inbox::Publication;

/// So many publications are under way: a stream takes in what waits for it, up to a bound of its own.
const PUBLICATIONS_MAX: usize = 1_024;
const PUBLICATION_BYTES_MAX: usize = 4 << 20;

/// What was asked.
#[derive(Debug)]
pub(crate) enum Asked {
    Publication(Class, Publication),
    /// Whether JetStream is there.
    Enabled,
    /// Which stream takes a class.
    Streams(Class),
    /// To have the stream that says which stream takes a class.
    Lives(Class),
    /// Which one that is.
    Named(Class),
    /// To have it be the one of this epoch.
    Naming(Class, u64),
    /// To make it; and where it stands that it is to be made.
    Made(Class, u64),
    /// What one is, and the newest sequence that was known when it was asked.
    Seen(Class, u64),
    /// To remove one that has lost something.
    Removed(Class),
    /// A channel's newest position.
    Top(Box<str>),
    Kept(Class, Box<Asking>),
}

impl Asked {
    /// What it is, for an error.
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Self::Publication(..) => "a publication",
            Self::Enabled => "$JS.API.INFO",
            Self::Streams(_) => "$JS.API.STREAM.NAMES",
            Self::Lives(_) | Self::Made(..) => "$JS.API.STREAM.CREATE",
            Self::Named(_) => "$JS.API.STREAM.MSG.GET",
            Self::Naming(..) => "which stream takes a class",
            Self::Seen(..) => "$JS.API.STREAM.INFO",
            Self::Removed(_) => "$JS.API.STREAM.DELETE",
            Self::Top(..) => "$JS.API.STREAM.MSG.GET",
            Self::Kept(..) => "$JS.API.DIRECT.GET",
        }
    }
}

/// What goes out, and what of it has no answer yet.
#[derive(Debug)]
pub(crate) struct Requests {
    pub(crate) out: Vec<u8>,
    /// What answers are sent to begins so.
    pub(crate) inbox: String,
    asked: BTreeMap<u64, (Instant, Asked)>,
    next: u64,
    answered_at: Instant,
    publications: usize,
    publication_bytes: usize,
    pub(crate) tops: usize,
    pub(crate) questions: usize,
}

/// What stands before a publication that is to stand once.
fn headers(names: &Names, publication: &Publication) -> Option<String> {
    let key = names.once(&publication.channel, publication.idempotency_key.as_ref()?);
    Some(format!("NATS/1.0\r\nNats-Msg-Id: {key}\r\n\r\n"))
}

/// How many bytes a publication is for the server, which has a bound for them.
pub(crate) fn length(names: &Names, publication: &Publication) -> usize {
    headers(names, publication).map_or(0, |headers| headers.len()) + MAGIC.len() + publication.bytes.len()
}

impl Requests {
    pub(crate) fn new(inbox: String) -> Self {
        let answered_at = Instant::now();
        let (out, asked) = (Vec::new(), BTreeMap::new());
        Self { out, inbox, asked, next: 1, answered_at, publications: 0, publication_bytes: 0, tops: 0, questions: 0 }
    }

    /// Asks.
    pub(crate) fn ask(&mut self, subject: &str, payload: &str, asked: Asked) {
        let reply = self.begin(asked);
        publish(&mut self.out, subject, &reply, &[payload.as_bytes()]);
    }

    /// Publishes what the stream takes only if the newest of that subject has this sequence; 0 is none. Without `asked` its
    /// answer is nobody's.
    pub(crate) fn publish_behind(&mut self, newest: u64, subject: &str, payload: &str, asked: Option<Asked>) {
        let reply = asked.map(|asked| self.begin(asked)).unwrap_or_default();
        let headers = format!("NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: {newest}\r\n\r\n");
        let total = headers.len() + payload.len();
        let said = format!("HPUB {subject} {reply} {} {total}\r\n{headers}{payload}\r\n", headers.len());
        self.out.extend_from_slice(said.as_bytes());
    }

    /// Publishes.
    pub(crate) fn publish(&mut self, names: &Names, class: Class, publication: Publication) {
        let subject = names.taken(class, &publication.channel);
        let (reply, out, bytes) = (format!("{}{}", self.inbox, self.next), &mut self.out, &publication.bytes);
        match headers(names, &publication) {
            None => publish(out, &subject, &reply, &[MAGIC, bytes]),
            Some(headers) => {
                let total = headers.len() + MAGIC.len() + bytes.len();
                let line = format!("HPUB {subject} {reply} {} {total}\r\n{headers}", headers.len());
                [line.as_bytes(), MAGIC, bytes, b"\r\n"].iter().for_each(|part| out.extend_from_slice(part));
            }
        }
        self.publications += 1;
        self.publication_bytes += publication.cost();
        self.begin(Asked::Publication(class, publication));
    }

    fn begin(&mut self, asked: Asked) -> String {
        let now = Instant::now();
        if self.asked.is_empty() {
            self.answered_at = now;
        }
        match asked {
            Asked::Top(..) => self.tops += 1,
            Asked::Kept(..) => self.questions += 1,
            _ => {}
        }
        let id = self.next;
        self.next += 1;
        self.asked.insert(id, (now, asked));
        format!("{}{id}", self.inbox)
    }

    /// Whether one more publication may go out.
    pub(crate) fn has_room(&self) -> bool {
        self.publications < PUBLICATIONS_MAX && self.publication_bytes < PUBLICATION_BYTES_MAX
    }

    /// What an answer on this subject is one to.
    pub(crate) fn answered(&mut self, subject: &str) -> Option<(u64, Asked)> {
        self.answered_at = Instant::now();
        let id = subject.strip_prefix(self.inbox.as_str())?.parse().ok()?;
        Some((id, self.end(id)?))
    }

    /// An answer of several parts goes on.
    pub(crate) fn goes_on(&mut self, id: u64, asked: Asked) {
        if matches!(asked, Asked::Kept(..)) {
            self.questions += 1;
        }
        self.asked.insert(id, (Instant::now(), asked));
    }

    fn end(&mut self, id: u64) -> Option<Asked> {
        let (_, asked) = self.asked.remove(&id)?;
        match &asked {
            Asked::Publication(_, publication) => {
                self.publications -= 1;
                self.publication_bytes -= publication.cost();
            }
            Asked::Top(..) => self.tops -= 1,
            Asked::Kept(..) => self.questions -= 1,
            _ => {}
        }
        Some(asked)
    }

    /// The oldest publication on a subject, which the server refuses.
    pub(crate) fn refused(&mut self, names: &Names, subject: &str) -> Option<Publication> {
        let is_it = |asked: &Asked| matches!(asked, Asked::Publication(class, one) if names.taken(*class, &one.channel) == subject);
        let id = self.asked.iter().find(|(_, (_, asked))| is_it(asked)).map(|(&id, _)| id)?;
        match self.end(id)? {
            Asked::Publication(_, publication) => Some(publication),
            _ => None,
        }
    }

    /// What was asked so long ago without any answer since, or three times as long.
    pub(crate) fn late(&self, after: Duration) -> Option<&'static str> {
        let (_, (since, asked)) = self.asked.first_key_value()?;
        let is_late = since.elapsed() >= after && self.answered_at.elapsed() >= after || since.elapsed() >= after * 3;
        is_late.then(|| asked.what())
    }

    /// All that has no answer.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Asked> {
        std::mem::take(&mut self.asked).into_values().map(|(_, asked)| asked)
    }
}
