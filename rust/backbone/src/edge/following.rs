//! What an edge follows: which channels it has asked for, what has come, and what is yet to come. No socket, no clock.
//!
//! A channel is subscribed with the position that is known here. The answer says where the subscription begins, and where
//! the channel is at the origin: what comes up to there is the answer to the next question for what is kept; what comes
//! later is news. Where it turns out that something is missing, the channel is subscribed anew, with another position.
use std::collections::{HashMap, VecDeque};

use fanwire_core::Position;
use fanwire_core::node::Record;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Event, Refused};
use crate::inbox::Question;

/// What one request asks for: names, and bytes of them.
const NAMES_MAX: usize = 256;
const NAME_BYTES_MAX: usize = 16 << 10;
/// What one answer has at most; the next one goes on.
const RECORDS_MAX: usize = 1_024;
const RECORD_BYTES_MAX: usize = 4 << 20;
/// For so many ticks nothing came of a channel: what the origin has kept is over, though its newest was not among it.
const QUIET_TICKS: u32 = 3;
/// For so many ticks a snapshot is awaited.
const SNAPSHOT_TICKS: u32 = 6;
/// A flag of a publication, as the core writes it behind eight bytes: it is for newcomers alone.
const FLAGS_AT: usize = 8;
const SNAPSHOT: u8 = 8;

/// What the origin answers.
#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    id: Option<u64>,
    #[serde(default)]
    result: Option<Subscribed>,
    #[serde(default)]
    error: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Subscribed {
    recovered: HashMap<String, bool>,
    positions: HashMap<String, (u64, u64)>,
    newest: HashMap<String, (u64, u64)>,
}

/// What comes, behind the answer.
#[derive(Debug)]
struct Coming {
    /// What was asked for; none is all that is kept.
    since: Option<Position>,
    is_recovered: bool,
    /// Where the channel was then.
    top: Position,
}

impl Coming {
    /// Whether what comes is all that there is behind this position.
    fn covers(&self, after: Position) -> bool {
        let is_behind = |since: Position| after.epoch == since.epoch && after.offset >= since.offset;
        !self.is_recovered || self.since.is_none_or(is_behind)
    }

    fn reaches(&self, position: Position) -> bool {
        position.epoch != self.top.epoch || position.offset >= self.top.offset
    }
}

#[derive(Debug)]
enum Phase {
    /// The answer is awaited, of a subscription with this position: what comes before it is of an earlier one.
    Asked(Option<Position>),
    /// What is kept comes.
    Filling { coming: Coming, held: VecDeque<Record>, bytes: usize, is_whole: bool, quiet: u32 },
    /// What is published comes. Until something has come it is known what the answer was.
    Live(Option<Coming>),
}

/// One channel.
#[derive(Debug)]
struct Followed {
    /// The request that counts; 0 before it is sent.
    request: u64,
    phase: Phase,
    /// Whoever wants it is to be told when there is an answer.
    is_new: bool,
    question: Option<Question>,
}

/// What is to be sent.
#[derive(Debug, PartialEq, Eq)]
enum Ask {
    Subscribe(Box<str>),
    /// Not with others: they were refused together.
    SubscribeAlone(Box<str>),
    Unsubscribe(Box<str>),
    Snapshot(Box<str>),
}

/// All channels of a connection.
#[derive(Debug, Default)]
pub(super) struct Following {
    channels: HashMap<Box<str>, Followed>,
    asks: VecDeque<Ask>,
    /// Channels of which a snapshot is awaited, for so many ticks.
    snapshots: HashMap<Box<str>, u32>,
    /// What each request asked for.
    requests: HashMap<u64, Vec<Box<str>>>,
    last: u64,
    /// What is to be told, in order.
    events: Vec<Event>,
    /// Questions that have their answer among those.
    answered: Vec<Question>,
}

impl Following {
    /// Have what is published come, from behind this position on.
    pub(super) fn want(&mut self, channel: &str, known: Option<Position>) {
        let question = self.channels.remove(channel).and_then(|before| {
            self.asks.push_back(Ask::Unsubscribe(channel.into()));
            before.question
        });
        self.asks.push_back(Ask::Subscribe(channel.into()));
        let followed = Followed { request: 0, phase: Phase::Asked(known), is_new: true, question };
        self.channels.insert(channel.into(), followed);
    }

    /// No more.
    pub(super) fn leave(&mut self, channel: &str) {
        if let Some(followed) = self.channels.remove(channel) {
            self.asks.push_back(Ask::Unsubscribe(channel.into()));
            self.give_up(followed.question, channel, Refused::Down("nobody wants it".to_owned()));
        }
    }

    /// Newcomers wait for a snapshot.
    pub(super) fn snapshot(&mut self, channel: &str) {
        self.asks.push_back(Ask::Snapshot(channel.into()));
        self.snapshots.insert(channel.into(), 0);
    }

    /// What is kept behind a position is wanted.
    pub(super) fn ask(&mut self, channel: &str, question: Question) {
        let Some(followed) = self.channels.get_mut(channel) else {
            return self.give_up(Some(question), channel, Refused::Server("it is not subscribed".to_owned()));
        };
        let after = question.after;
        let before = followed.question.replace(question);
        self.give_up(before, channel, Refused::Down("it was asked again".to_owned()));
        let Some(followed) = self.channels.get_mut(channel) else { return };
        match &mut followed.phase {
            Phase::Asked(_) => {}
            Phase::Filling { coming, .. } if coming.covers(after) => self.fill(channel),
            Phase::Live(Some(coming)) if coming.covers(after) => {
                let top = coming.top;
                self.answer(channel, Vec::new(), top, false);
            }
            Phase::Filling { .. } | Phase::Live(_) => self.begin_anew(channel, after),
        }
    }

    fn begin_anew(&mut self, channel: &str, since: Position) {
        let Some(followed) = self.channels.get_mut(channel) else { return };
        (followed.request, followed.phase) = (0, Phase::Asked(Some(since)));
        self.asks.push_back(Ask::Unsubscribe(channel.into()));
        self.asks.push_back(Ask::Subscribe(channel.into()));
    }

    /// The next request to be sent.
    pub(super) fn next_request(&mut self) -> Option<String> {
        let first = self.asks.pop_front()?;
        if let Ask::Unsubscribe(channel) = first {
            let mut names = vec![channel];
            while let Some(Ask::Unsubscribe(_)) = self.asks.front().filter(|_| names.len() < NAMES_MAX) {
                let Some(Ask::Unsubscribe(channel)) = self.asks.pop_front() else { break };
                names.push(channel);
            }
            return Some(json!({ "unsubscribe": names }).to_string());
        }
        if let Ask::Snapshot(channel) = first {
            // It is subscribed, so this says no more than that.
            return Some(json!({ "subscribe": [channel], "start": "keyframe" }).to_string());
        }
        let (mut names, mut bytes) = (Vec::new(), 0);
        let (Ask::Subscribe(channel) | Ask::SubscribeAlone(channel)) = &first else { return None };
        names.push(channel.clone());
        while let (Ask::Subscribe(_), Some(Ask::Subscribe(channel))) = (&first, self.asks.front()) {
            bytes += channel.len();
            if names.len() >= NAMES_MAX || bytes > NAME_BYTES_MAX || names.contains(channel) {
                break;
            }
            names.push(channel.clone());
            self.asks.pop_front();
        }
        self.last += 1;
        let mut since = serde_json::Map::new();
        for name in &names {
            let Some(followed) = self.channels.get_mut(name).filter(|one| one.request == 0) else { continue };
            followed.request = self.last;
            if let Phase::Asked(Some(Position { epoch, offset })) = followed.phase {
                since.insert(name.to_string(), json!([epoch, offset]));
            }
        }
        let request = json!({ "subscribe": names, "since": since, "start": "history", "id": self.last }).to_string();
        self.requests.insert(self.last, names);
        Some(request)
    }

    /// A text has come. Gives what is wrong with it, if it is of no use.
    pub(super) fn text(&mut self, text: &str) -> Option<&'static str> {
        let Ok(answer) = serde_json::from_str::<Answer>(text) else {
            // An application's own messages, and what it calls: they are for clients.
            return serde_json::from_str::<Value>(text).err().map(|_| "a text that is no answer");
        };
        let id = answer.id?;
        let names = self.requests.remove(&id)?;
        let many = names.len() > 1;
        for name in names {
            let Some(followed) = self.channels.get_mut(&name).filter(|one| one.request == id) else { continue };
            let why = match (&answer.error, &answer.result) {
                (Some(_), _) if many => {
                    followed.request = 0;
                    self.asks.push_back(Ask::Unsubscribe(name.clone()));
                    self.asks.push_back(Ask::SubscribeAlone(name));
                    continue;
                }
                (Some(why), _) => why.clone(),
                (None, Some(result)) => match self.begun(&name, result) {
                    Some(()) => continue,
                    None => "the origin has not said where it begins".to_owned(),
                },
                (None, None) => "the origin's answer has neither result nor error".to_owned(),
            };
            let question = self.channels.remove(&name).and_then(|followed| followed.question);
            self.give_up(question, &name, Refused::Down(why.clone()));
            self.events.push(Event::Unheard { channel: outside(&name), reason: why });
        }
        None
    }

    /// A subscription has begun.
    fn begun(&mut self, name: &str, result: &Subscribed) -> Option<()> {
        let position = |(epoch, offset): &(u64, u64)| Position { epoch: *epoch, offset: *offset };
        let begin = result.positions.get(name).map(position)?;
        let top = result.newest.get(name).map(position)?;
        let followed = self.channels.get_mut(name)?;
        let Phase::Asked(since) = followed.phase else { return Some(()) };
        let is_recovered = result.recovered.get(name).copied().unwrap_or(false);
        let coming = Coming { since, is_recovered, top };
        let is_whole = begin == top || top.offset == 0;
        followed.phase = match (is_whole, &followed.question) {
            (true, None) => Phase::Live(Some(coming)),
            _ => Phase::Filling { coming, held: VecDeque::new(), bytes: 0, is_whole, quiet: 0 },
        };
        if std::mem::take(&mut followed.is_new) {
            self.events.push(Event::Wanted { channel: outside(name), top });
        }
        self.look_at_question(name);
        Some(())
    }

    fn look_at_question(&mut self, name: &str) {
        let Some(followed) = self.channels.get(name) else { return };
        let (Some(question), Phase::Filling { coming, .. }) = (&followed.question, &followed.phase) else { return };
        let after = question.after;
        if coming.covers(after) { self.fill(name) } else { self.begin_anew(name, after) }
    }

    /// A publication has come.
    pub(super) fn record(&mut self, channel: &str, record: Record) {
        let Some(followed) = self.channels.get_mut(channel) else { return };
        let is_snapshot = record.bytes.get(FLAGS_AT).is_some_and(|flags| flags & SNAPSHOT != 0);
        match &mut followed.phase {
            Phase::Asked(_) => {}
            Phase::Live(_) if is_snapshot => {
                self.snapshots.remove(channel);
                self.events.push(Event::Record { channel: outside(channel), record });
            }
            Phase::Live(answer) => {
                *answer = None;
                self.events.push(Event::Record { channel: outside(channel), record });
            }
            Phase::Filling { .. } if is_snapshot => {}
            Phase::Filling { coming, held, bytes, is_whole, quiet } => {
                *is_whole |= coming.reaches(record.position);
                *bytes += record.bytes.len();
                *quiet = 0;
                held.push_back(record);
                if *is_whole || held.len() >= RECORDS_MAX || *bytes >= RECORD_BYTES_MAX {
                    self.fill(channel);
                }
            }
        }
    }

    /// Answers a question with what has come, if that is enough.
    fn fill(&mut self, channel: &str) {
        let Some(followed) = self.channels.get_mut(channel) else { return };
        if followed.question.is_none() {
            return;
        }
        let Phase::Filling { coming, held, bytes, is_whole, .. } = &mut followed.phase else { return };
        if !*is_whole && held.len() < RECORDS_MAX && *bytes < RECORD_BYTES_MAX {
            return;
        }
        let mut records = Vec::with_capacity(held.len().min(RECORDS_MAX));
        let mut taken = 0;
        while records.len() < RECORDS_MAX
            && taken < RECORD_BYTES_MAX
            && let Some(record) = held.pop_front()
        {
            taken += record.bytes.len();
            records.push(record);
        }
        *bytes -= taken;
        let (is_recovered, newest) = (coming.is_recovered, records.last().map(|last| last.position));
        let is_over = *is_whole && held.is_empty();
        let top = newest.filter(|_| is_over).unwrap_or(coming.top);
        if is_over {
            followed.phase = Phase::Live(None);
        } else {
            coming.since = newest;
        }
        self.answer(channel, records, top, is_recovered);
    }

    fn answer(&mut self, channel: &str, records: Vec<Record>, top: Position, is_whole: bool) {
        let Some(question) = self.channels.get_mut(channel).and_then(|followed| followed.question.take()) else {
            return;
        };
        let after = question.after;
        self.events.push(Event::Since { channel: outside(channel), after, records, top, is_whole });
        self.answered.push(question);
    }

    /// A question has no answer.
    fn give_up(&mut self, question: Option<Question>, channel: &str, refused: Refused) {
        if let Some(question) = question {
            self.events.push(Event::SinceFailed { channel: outside(channel), after: question.after, refused });
            self.answered.push(question);
        }
    }

    /// Some time has passed.
    pub(super) fn tick(&mut self) {
        let mut late = Vec::new();
        for (name, ticks) in &mut self.snapshots {
            *ticks += 1;
            if *ticks >= SNAPSHOT_TICKS {
                late.push(name.clone());
            }
        }
        for name in late {
            self.snapshots.remove(&name);
            let reason = "the origin gives no snapshot".to_owned();
            self.events.push(Event::NoSnapshot { channel: outside(&name), reason });
        }
        let mut quiet_ones = Vec::new();
        for (name, followed) in &mut self.channels {
            if let Phase::Filling { quiet, .. } = &mut followed.phase {
                *quiet += 1;
                if *quiet >= QUIET_TICKS {
                    quiet_ones.push(name.clone());
                }
            }
        }
        for name in quiet_ones {
            let Some(followed) = self.channels.get_mut(&name) else { continue };
            let Phase::Filling { held, is_whole, .. } = &mut followed.phase else { continue };
            *is_whole = true;
            if followed.question.is_some() {
                self.fill(&name);
                continue;
            }
            // It is known where it was wanted, and nobody has asked.
            let records = std::mem::take(held);
            followed.phase = Phase::Live(None);
            let told = |record| Event::Record { channel: outside(&name), record };
            self.events.extend(records.into_iter().map(told));
        }
    }

    /// The connection is over: no question has an answer.
    pub(super) fn end(&mut self, why: &str) {
        for (name, _) in self.snapshots.drain() {
            self.events.push(Event::NoSnapshot { channel: outside(&name), reason: why.to_owned() });
        }
        let channels = std::mem::take(&mut self.channels);
        for (name, followed) in channels {
            self.give_up(followed.question, &name, Refused::Down(why.to_owned()));
        }
    }

    /// What is to be told, and the questions that have their answers with it.
    pub(super) fn take(&mut self) -> (Vec<Event>, Vec<Question>) {
        (std::mem::take(&mut self.events), std::mem::take(&mut self.answered))
    }
}

/// What a channel is called to whoever wants it.
pub(super) fn outside(channel: &str) -> Box<str> {
    format!("c{channel}").into()
}

#[cfg(test)]
#[path = "following_tests.rs"]
mod tests;
