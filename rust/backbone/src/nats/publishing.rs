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
/// A request without an answer is made again after so long, then after twice as long each time: a stream that has no leader
/// yet says nothing, and one that has just become one may say nothing for a moment.
const AGAIN_FIRST: Duration = Duration::from_millis(200);
/// The same where it was said that there is no answer yet.
const AGAIN_SOON: Duration = Duration::from_millis(25);
/// The longest.
const AGAIN_LAST: Duration = Duration::from_secs(1);

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
    /// Whether the server of a cluster that leads a stream hears this one: then it knows what is subscribed here, too. These
    /// channels' newest positions are to be asked for behind it.
    Ready(Class, Vec<Box<str>>),
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
            Self::Ready(..) => "whether a stream is led",
            Self::Top(..) => "$JS.API.STREAM.MSG.GET",
            Self::Kept(..) => "$JS.API.DIRECT.GET",
        }
    }
}

/// A request that has no answer yet, or not all of it.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) asked: Asked,
    /// When it was made first, or a part of its answer came.
    since: Instant,
    /// What is said to make it: a subject, headers, a payload. `None` of a publication, which is said once.
    words: Option<(String, String, String)>,
    /// When it is made again.
    again: Instant,
    /// So often it was made.
    times: u32,
    /// Parts of answers come to that time's alone, or to this one's and later ones'.
    answered: Option<u32>,
    first: u32,
    /// What was said in the place of an answer.
    said: Option<String>,
}

/// What goes out, and what of it has no answer yet.
#[derive(Debug)]
pub(crate) struct Requests {
    pub(crate) out: Vec<u8>,
    /// What answers are sent to begins so.
    pub(crate) inbox: String,
    asked: BTreeMap<u64, Open>,
    next: u64,
    /// No request has to be made again before; `None` if none at all.
    again: Option<Instant>,
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
        Self {
            out: Vec::new(),
            inbox,
            asked: BTreeMap::new(),
            next: 1,
            again: None,
            answered_at: Instant::now(),
            publications: 0,
            publication_bytes: 0,
            tops: 0,
            questions: 0,
        }
    }

    /// Asks.
    pub(crate) fn ask(&mut self, subject: &str, payload: &str, asked: Asked) {
        self.begin(asked, Some((subject.to_owned(), String::new(), payload.to_owned())));
    }

    /// Publishes what the stream takes only if the newest of that subject has this sequence; 0 is none. Without `asked` its
    /// answer is nobody's.
    pub(crate) fn publish_behind(&mut self, newest: u64, subject: &str, payload: &str, asked: Option<Asked>) {
        let headers = format!("NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: {newest}\r\n\r\n");
        match asked {
            Some(asked) => self.begin(asked, Some((subject.to_owned(), headers, payload.to_owned()))),
            None => request(&mut self.out, subject, "", &headers, payload),
        }
    }

    /// Asks for a channel's newest position.
    pub(crate) fn ask_for_top(&mut self, names: &Names, class: Class, stream: &str, channel: Box<str>) {
        let payload = format!("{{\"last_by_subj\":\"{}\"}}", names.taken(class, &channel));
        self.ask(&format!("$JS.API.STREAM.MSG.GET.{stream}"), &payload, Asked::Top(channel));
    }

    /// Publishes what no stream takes: its leader says so, and that is the answer.
    pub(crate) fn try_out(&mut self, names: &Names, class: Class, tops: Vec<Box<str>>) {
        let headers = "NATS/1.0\r\nNats-Expected-Stream: none\r\n\r\n".to_owned();
        self.begin(Asked::Ready(class, tops), Some((names.tried(class), headers, String::new())));
    }

    /// Publishes.
    pub(crate) fn publish(&mut self, names: &Names, class: Class, publication: Publication) {
        let subject = names.taken(class, &publication.channel);
        let (reply, out, bytes) = (reply(&self.inbox, self.next, 1), &mut self.out, &publication.bytes);
        match headers(names, &publication) {
            None => publish(out, &subject, &reply, &[MAGIC, bytes]),
            Some(headers) => {
                let total = headers.len() + MAGIC.len() + bytes.len();
                let line = format!("HPUB {subject} {reply} {} {total}\r\n{headers}", headers.len());
                [line.as_bytes(), MAGIC, bytes, b"\r\n"].iter().for_each(|part| out.extend_from_slice(part));
            }
        }
        self.begin(Asked::Publication(class, publication), None);
    }

    /// It is under way, and is said if it has words.
    fn begin(&mut self, asked: Asked, words: Option<(String, String, String)>) {
        let now = Instant::now();
        if self.asked.is_empty() {
            self.answered_at = now;
        }
        self.count(&asked, true);
        let id = self.next;
        self.next += 1;
        let again = now + AGAIN_FIRST;
        if let Some((subject, headers, payload)) = &words {
            request(&mut self.out, subject, &reply(&self.inbox, id, 1), headers, payload);
            self.again = Some(self.again.map_or(again, |first| first.min(again)));
        }
        let open = Open { asked, since: now, words, again, times: 1, answered: None, first: 1, said: None };
        self.asked.insert(id, open);
    }

    /// One more that is under way, or one less.
    fn count(&mut self, asked: &Asked, is_more: bool) {
        let of = |number: &mut usize, by: usize| if is_more { *number += by } else { *number -= by };
        match asked {
            Asked::Publication(_, publication) => {
                of(&mut self.publications, 1);
                of(&mut self.publication_bytes, publication.cost());
            }
            Asked::Top(..) => of(&mut self.tops, 1),
            Asked::Ready(_, tops) => of(&mut self.tops, tops.len()),
            Asked::Kept(..) => of(&mut self.questions, 1),
            _ => {}
        }
    }

    /// Whether one more publication may go out.
    pub(crate) fn has_room(&self) -> bool {
        self.publications < PUBLICATIONS_MAX && self.publication_bytes < PUBLICATION_BYTES_MAX
    }

    /// What an answer on this subject is one to.
    pub(crate) fn answered(&mut self, subject: &str) -> Option<(u64, Open)> {
        self.answered_at = Instant::now();
        let (id, time) = subject.strip_prefix(self.inbox.as_str())?.split_once('-')?;
        let (id, time) = (id.parse().ok()?, time.parse().ok()?);
        let open = self.asked.get_mut(&id)?;
        if time < open.first || *open.answered.get_or_insert(time) != time {
            return None; // of parts that come from two servers none would be known to be missing
        }
        Some((id, self.end(id)?))
    }

    /// An answer of several parts goes on.
    pub(crate) fn goes_on(&mut self, id: u64, mut open: Open) {
        open.since = Instant::now();
        self.put_back(id, open, AGAIN_LAST);
    }

    /// There is no answer yet, for this reason: it is asked again.
    pub(crate) fn put_off(&mut self, id: u64, mut open: Open, said: String) {
        (open.said, open.answered) = (Some(said), None);
        self.put_back(id, open, AGAIN_SOON);
    }

    fn put_back(&mut self, id: u64, mut open: Open, first: Duration) {
        open.again = Instant::now() + wait(first, open.times);
        self.again = Some(self.again.map_or(open.again, |again| again.min(open.again)));
        self.count(&open.asked, true);
        self.asked.insert(id, open);
    }

    /// When [`ask_again`](Self::ask_again) is to be called.
    pub(crate) fn again(&self) -> Option<Instant> {
        self.again
    }

    /// Makes those again that have waited for so long.
    pub(crate) fn ask_again(&mut self, now: Instant) {
        self.again = None;
        for (id, open) in &mut self.asked {
            let Some((subject, headers, payload)) = &open.words else { continue };
            if open.again <= now {
                open.times += 1;
                if open.answered.take().is_some() {
                    open.first = open.times;
                    if let Asked::Kept(_, asking) = &mut open.asked {
                        asking.begin_again();
                    }
                }
                request(&mut self.out, subject, &reply(&self.inbox, *id, open.times), headers, payload);
                open.again = now + wait(AGAIN_FIRST, open.times);
            }
            self.again = Some(self.again.map_or(open.again, |again| again.min(open.again)));
        }
    }

    fn end(&mut self, id: u64) -> Option<Open> {
        let open = self.asked.remove(&id)?;
        self.count(&open.asked, false);
        if self.asked.is_empty() {
            self.again = None;
        }
        Some(open)
    }

    /// What the server refuses to have published on a subject: the oldest.
    pub(crate) fn refused(&mut self, names: &Names, subject: &str) -> Option<Asked> {
        let is_it = |open: &Open| match &open.asked {
            Asked::Publication(class, one) => names.taken(*class, &one.channel) == subject,
            Asked::Ready(class, _) => names.tried(*class) == subject,
            _ => false,
        };
        let id = self.asked.iter().find(|(_, open)| is_it(open)).map(|(&id, _)| id)?;
        self.end(id).map(|open| open.asked)
    }

    /// Publications of a class that went to a server which leads it no longer: nobody answers them.
    pub(crate) fn forsaken(&mut self, class: Class, before: Instant) -> Vec<Publication> {
        let is_one =
            |open: &Open| open.since < before && matches!(&open.asked, Asked::Publication(its, _) if *its == class);
        let ids: Vec<_> = self.asked.iter().filter(|(_, open)| is_one(open)).map(|(&id, _)| id).collect();
        let publication = |id| match self.end(id)?.asked {
            Asked::Publication(_, publication) => Some(publication),
            _ => None,
        };
        ids.into_iter().filter_map(publication).collect()
    }

    /// What was asked so long ago without any answer since, or three times as long.
    pub(crate) fn late(&self, after: Duration) -> Option<String> {
        let open = self.asked.values().min_by_key(|open| open.since)?;
        let elapsed = open.since.elapsed();
        let is_late = elapsed >= after && self.answered_at.elapsed() >= after || elapsed >= after * 3;
        let said = open.said.as_ref().map_or_else(String::new, |said| format!(" ({said})"));
        is_late.then(|| format!("{}{said}", open.asked.what()))
    }

    /// All that has no answer.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Asked> {
        std::mem::take(&mut self.asked).into_values().map(|open| open.asked)
    }
}

impl Open {
    /// When it was made first, or a part of its answer came.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }
}

/// How long it takes until a request is made once more that was made so often.
fn wait(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << (times - 1).min(8)).min(AGAIN_LAST)
}

/// Where an answer is to come.
fn reply(inbox: &str, id: u64, times: u32) -> String {
    format!("{inbox}{id}-{times}")
}

fn request(out: &mut Vec<u8>, subject: &str, reply: &str, headers: &str, payload: &str) {
    if headers.is_empty() {
        return publish(out, subject, reply, &[payload.as_bytes()]);
    }
    let total = headers.len() + payload.len();
    let said = format!("HPUB {subject} {reply} {} {total}\r\n{headers}{payload}\r\n", headers.len());
    out.extend_from_slice(said.as_bytes());
}

#[cfg(test)]
mod tests {
    use fanwire_core::Position;
    use fanwire_core::node::Keep;

    use super::super::streams::Life;
    use super::*;
    use crate::inbox::Question;

    fn requests() -> Requests {
        Requests::new("_INBOX.x.".to_owned())
    }

    fn said(requests: &mut Requests) -> String {
        String::from_utf8(std::mem::take(&mut requests.out)).unwrap()
    }

    #[test]
    fn what_has_no_answer_is_asked_again_and_any_answer_is_one() {
        let (mut one, began) = (requests(), Instant::now());
        one.ask("$JS.API.INFO", "", Asked::Enabled);
        assert_eq!(said(&mut one), "PUB $JS.API.INFO _INBOX.x.1-1 0\r\n\r\n");
        one.ask_again(began);
        assert_eq!(said(&mut one), "");
        let mut waits = Vec::new();
        for time in 2..8 {
            let again = one.again().unwrap();
            one.ask_again(again);
            assert_eq!(said(&mut one), format!("PUB $JS.API.INFO _INBOX.x.1-{time} 0\r\n\r\n"));
            waits.push(one.again().unwrap() - again);
        }
        assert_eq!(waits, [400, 800, 1_000, 1_000, 1_000, 1_000].map(Duration::from_millis));
        assert!(one.answered("_INBOX.x.1-3").is_some() && one.answered("_INBOX.x.1-2").is_none());
        assert_eq!((one.again(), one.drain().count()), (None, 0));
    }

    #[test]
    fn a_publication_is_said_once() {
        let (mut one, class) = (requests(), Class { messages: 1, days: 7 });
        let names = Names::new(&crate::api::Options::default()).unwrap();
        let keep = Keep { messages: 1, age_ms: 0 };
        let publication = Publication { ticket: 1, channel: "c".into(), bytes: vec![], keep, idempotency_key: None };
        one.publish(&names, class, publication);
        let first = said(&mut one);
        one.ask_again(Instant::now() + Duration::from_secs(60));
        assert!(
            first.starts_with("PUB fanwire.in.1.c _INBOX.x.1-1 ") && said(&mut one).is_empty() && one.again().is_none()
        );
        assert_eq!(one.forsaken(class, Instant::now() + Duration::from_secs(1)).len(), 1);
    }

    #[test]
    fn parts_of_two_answers_are_not_taken_for_one() {
        let (mut one, class) = (requests(), Class { messages: 1, days: 7 });
        let question = Question { channel: "c".into(), after: Position { epoch: 0, offset: 0 }, limit: 10 };
        let life = Life { name: "s".into(), epoch: 9, last: 0, replicas: 3, leader: String::new() };
        let asking = Asking::new(question, Keep { messages: 1, age_ms: 0 }, &life, 0);
        one.ask("$JS.API.DIRECT.GET.s", "{}", Asked::Kept(class, Box::new(asking)));
        let again = one.again().unwrap();
        one.ask_again(again);
        // The first answer was only late: it is this one that counts.
        let (id, open) = one.answered("_INBOX.x.1-1").unwrap();
        one.goes_on(id, open);
        assert!(one.answered("_INBOX.x.1-2").is_none());
        // It has broken off.
        let again = one.again().unwrap();
        one.ask_again(again);
        assert!(one.answered("_INBOX.x.1-1").is_none() && one.answered("_INBOX.x.1-2").is_none());
        assert!(said(&mut one).contains("_INBOX.x.1-3") && one.answered("_INBOX.x.1-3").is_some());
    }

    #[test]
    fn what_is_not_to_be_had_yet_is_asked_for_soon() {
        let mut one = requests();
        one.ask("$JS.API.STREAM.INFO.s", "", Asked::Removed(Class { messages: 1, days: 7 }));
        let (id, open) = one.answered("_INBOX.x.1-1").unwrap();
        one.put_off(id, open, "there is no leader".to_owned());
        assert!(one.again().unwrap() < Instant::now() + AGAIN_FIRST);
        assert_eq!(one.late(Duration::ZERO).unwrap(), "$JS.API.STREAM.DELETE (there is no leader)");
    }
}
