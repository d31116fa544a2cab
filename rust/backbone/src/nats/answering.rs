//! What a NATS server answers, and what follows from it: streams are found or made, publications placed, questions answered.
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use fanwire_core::Position;

use super::asking::{Asking, Kept};
use super::names::Class;
use super::publishing::Asked;
use super::session::{Known, Session};
use super::streams::{
    FULL, Fault, Life, NO_STREAM, Named, OVERTAKEN, TAKEN, config, entry, foreign_stream, is_enabled, life_of, lives,
    named, naming, not_yet, placed, streams_of, top_of,
};
use super::wire::{Message, now_ms};
use crate::api::{Event, Refused};
use crate::inbox::{Publication, Question};
use crate::session::{refuse, unanswered};

/// So often it is tried to make a stream that others make at the same time.
const TRIES_MAX: u32 = 5;
/// So long a link that ends takes at most to tell what it was told to.
const LAST_WORD: Duration = Duration::from_millis(250);
const NO_RESPONDERS: u16 = 503;

fn cannot_make(fault: &Fault) -> String {
    format!("no stream can be made: {} (replicas=1 in the URL asks for one server alone)", fault.description)
}

/// Why there is no answer yet, if it is so. Where a publication has none, or no server at all, that is the answer.
fn not_answered(asked: &Asked, message: &Message<'_>) -> Option<String> {
    match (asked, message.status()) {
        (Asked::Publication(..) | Asked::Enabled, _) => None,
        (_, Some(NO_RESPONDERS)) => Some("no server of the cluster leads the stream".to_owned()),
        (Asked::Kept(..), _) => None,
        _ => not_yet(message.payload),
    }
}

impl Session<'_> {
    /// An answer has come.
    pub(super) fn answered(&mut self, message: &Message<'_>) -> Result<(), String> {
        let Some((id, mut open)) = self.requests.answered(message.subject) else { return Ok(()) };
        if let Some(why) = not_answered(&open.asked, message) {
            self.requests.put_off(id, open, why);
            return Ok(());
        }
        let payload = message.payload;
        if let Asked::Kept(_, asking) = &mut open.asked
            && message.status().is_none()
            && let Ok(entry) = entry(message, &self.plan.names)
        {
            asking.take(&entry);
            self.requests.goes_on(id, open);
            return Ok(());
        }
        if message.status() == Some(NO_RESPONDERS) {
            return Err(self.nobody_answers(open.asked));
        }
        let asked_at = open.since();
        match open.asked {
            Asked::Enabled => {
                let failed = |fault: Fault| format!("JetStream is not to be had: {}", fault.description);
                is_enabled(payload).map_err(failed)?;
                self.is_enabled = true;
            }
            Asked::Streams(class) => return self.streams_known(class, streams_of(payload)),
            Asked::Lives(class) => match is_enabled(payload) {
                Err(fault) if !TAKEN.contains(&fault.err_code) => return Err(cannot_make(&fault)),
                _ => {
                    let (lives, life) = (self.plan.names.lives(), self.plan.names.life(class));
                    let payload = format!("{{\"last_by_subj\":\"{life}\"}}");
                    self.requests.ask(&format!("$JS.API.STREAM.MSG.GET.{lives}"), &payload, Asked::Named(class));
                }
            },
            Asked::Named(class) => {
                self.named(class, &named(payload, &self.plan.names).map_err(|one| cannot_make(&one))?)
            }
            Asked::Naming(class, epoch) => match placed(payload) {
                Ok((_, at)) => self.make(class, epoch, at),
                Err(fault) if fault.err_code == OVERTAKEN => self.ask_for_streams(class),
                Err(fault) => return Err(cannot_make(&fault)),
            },
            Asked::Made(class, at) => match life_of(payload, &self.plan.names, class)? {
                Ok(life) => {
                    let (subject, said) = (self.plan.names.life(class), naming(&life.name, true));
                    self.requests.publish_behind(at, &subject, &said, None);
                    self.begin_life(class, life);
                }
                Err(fault) if TAKEN.contains(&fault.err_code) => self.ask_for_streams(class),
                Err(fault) => return Err(cannot_make(&fault)),
            },
            Asked::Seen(class, last) => {
                let life = life_of(payload, &self.plan.names, class)?;
                return self.seen(class, (asked_at, last), life);
            }
            Asked::Removed(class) => self.ask_for_streams(class),
            Asked::Ready(class, tops) => self.ready(class, tops),
            Asked::Top(channel) => return self.top_known(channel, top_of(payload)),
            Asked::Publication(class, publication) => self.placed(class, publication, placed(payload)),
            Asked::Kept(class, asking) => self.kept(class, *asking, message),
        }
        Ok(())
    }

    fn nobody_answers(&self, asked: Asked) -> String {
        let Asked::Publication(class, publication) = asked else {
            return "JetStream is not enabled: nats-server -js, or jetstream {} in its configuration".to_owned();
        };
        let subject = self.plan.names.all_taken(class);
        let why = format!("no stream takes {subject}: it was deleted, or no server of the cluster leads it");
        refuse(self.inbox, self.heard, vec![publication], || Refused::Down(why.clone()));
        why
    }

    fn streams_known(&mut self, class: Class, streams: Result<Vec<String>, Fault>) -> Result<(), String> {
        let streams = streams.map_err(|fault| format!("streams cannot be listed: {}", fault.description))?;
        let Some(room) = self.rooms.get_mut(&class) else { return Ok(()) };
        room.tries += 1;
        if room.tries > TRIES_MAX {
            return Err(format!("the stream for {} cannot be made: others do", self.plan.names.all_taken(class)));
        }
        if let Some(name) = streams.first() {
            if streams.len() > 1 || self.plan.names.epoch_of(name).is_none() {
                return Err(foreign_stream(&streams.join(" and "), &self.plan.names, class));
            }
            self.requests.ask(&format!("$JS.API.STREAM.INFO.{name}"), "", Asked::Seen(class, 0));
            return Ok(());
        }
        // The server takes two streams of other names for one subject, where both are made at the same time. So those who
        // make one agree on its name first.
        let name = self.plan.names.lives();
        let config = lives(&self.plan.names, &self.plan.target, self.connection.info.cluster.is_some());
        self.requests.ask(&format!("$JS.API.STREAM.CREATE.{name}"), &config, Asked::Lives(class));
        Ok(())
    }

    /// A class has no stream: the one that is said to be made is made, or another one is said to be.
    fn named(&mut self, class: Class, named: &Named) {
        let known = self.plan.known.borrow().get(&class).map_or(0, |known| known.life.epoch);
        if !named.is_made && named.epoch > known {
            return self.make(class, named.epoch, named.at);
        }
        // Later than any epoch that a hub begins by itself, and than any that there was.
        let now = now_ms() * 2_000 + u64::from(getrandom::u32().unwrap_or(0)) % 2_000;
        let epoch = now.max(known + 1).max(named.epoch + 1);
        let (subject, said) = (self.plan.names.life(class), naming(&self.plan.names.stream(class, epoch), false));
        self.requests.publish_behind(named.at, &subject, &said, Some(Asked::Naming(class, epoch)));
    }

    /// Who has the same made at the same time has the same stream.
    fn make(&mut self, class: Class, epoch: u64, named_at: u64) {
        let (is_cluster, again_ms) = (self.connection.info.cluster.is_some(), self.plan.options.idempotency_ms);
        let name = self.plan.names.stream(class, epoch);
        let config = config(&self.plan.names, class, epoch, &self.plan.target, is_cluster, again_ms);
        self.requests.ask(&format!("$JS.API.STREAM.CREATE.{name}"), &config, Asked::Made(class, named_at));
    }

    /// What a stream is now; `last` is what was known of it when that was asked.
    fn seen(
        &mut self,
        class: Class,
        (asked_at, last): (Instant, u64),
        life: Result<Life, Fault>,
    ) -> Result<(), String> {
        let room = self.rooms.entry(class).or_default();
        room.is_looked_at = false;
        if let Some(at) = room.led_anew_at.take_if(|at| *at < asked_at) {
            let forsaken = self.requests.forsaken(class, at);
            let why = "another server of the cluster leads the stream since";
            refuse(self.inbox, self.heard, forsaken, || Refused::Unknown(why.to_owned()));
        }
        let life = match life {
            Ok(life) => life,
            Err(fault) if fault.err_code == NO_STREAM && room.life.is_none() => {
                self.ask_for_streams(class); // it was deleted just now
                return Ok(());
            }
            Err(fault) => {
                return Err(format!("the stream for {}: {}", self.plan.names.all_taken(class), fault.description));
            }
        };
        let Some(now) = &mut room.life else { return self.found(class, life) };
        if life.last < last {
            let why =
                format!("the stream {} is at {}, and was at {last}: it has lost publications", life.name, life.last);
            now.last = last;
            return Err(why);
        }
        let is_led_anew = !now.leader.is_empty() && now.leader != life.leader;
        now.learn(Position { epoch: life.epoch, offset: life.last });
        now.leader = life.leader;
        if is_led_anew {
            room.led_anew_at = Some(Instant::now());
            // What the former leader had stored and not published again is found by the positions.
            let channels = self.by_sid.values().filter(|one| one.class == class).map(|one| one.channel.clone());
            room.tops.extend(channels);
        }
        Ok(())
    }

    /// The stream of a class is there. One that is of an earlier life, or has lost what others have, would give positions
    /// that were given already: it makes room for a new one, when it is found so twice.
    fn found(&mut self, class: Class, life: Life) -> Result<(), String> {
        let mut known = self.plan.known.borrow_mut();
        let was = known.get_mut(&class).filter(|was| {
            if was.life.name == life.name { life.last < was.life.last } else { life.epoch <= was.life.epoch }
        });
        if let Some(was) = was {
            let (name, before) = (&life.name, &was.life);
            let why = format!("the stream {name} is at {}, and {} was at {}", life.last, before.name, before.last);
            if !std::mem::replace(&mut was.has_lost, true) {
                return Err(format!("{why}: it has lost publications"));
            }
            self.requests.ask(&format!("$JS.API.STREAM.DELETE.{name}"), "", Asked::Removed(class));
            return Ok(());
        }
        drop(known);
        self.begin_life(class, life);
        Ok(())
    }

    fn begin_life(&mut self, class: Class, life: Life) {
        self.plan.known.borrow_mut().insert(class, Known { life: life.clone(), has_lost: false });
        let room = self.rooms.entry(class).or_default();
        room.life = Some(life);
        // In a cluster servers learn a moment later than the one that made it, or that leads it now, who takes what.
        room.is_ready = self.connection.info.cluster.is_none();
        if !room.is_ready {
            self.requests.try_out(&self.plan.names, class, Vec::new());
        }
    }

    /// The server that leads a stream hears this one.
    pub(super) fn ready(&mut self, class: Class, tops: Vec<Box<str>>) {
        let Some(room) = self.rooms.get_mut(&class) else { return };
        room.is_ready = true;
        if let Some(life) = &room.life {
            for channel in tops {
                self.requests.ask_for_top(&self.plan.names, class, &life.name, channel);
            }
        }
    }

    fn top_known(&mut self, channel: Box<str>, top: Result<u64, Fault>) -> Result<(), String> {
        let Some(subscribed) = self.sids.get(&channel).and_then(|sid| self.by_sid.get(sid)) else { return Ok(()) };
        let life = self.rooms.get(&subscribed.class).and_then(|room| room.life.as_ref());
        let epoch = life.map_or(0, |life| life.epoch);
        match top {
            Ok(0) => self.heard.tell(Event::Wanted { channel, top: Position { epoch: 0, offset: 0 } }),
            Ok(offset) => {
                let top = Position { epoch, offset };
                self.heard.learn(&channel, top);
                self.heard.tell(Event::Wanted { channel, top });
            }
            Err(fault) if fault.err_code == NO_STREAM => return Err("a stream was deleted".to_owned()),
            Err(fault) => self.heard.tell(Event::Unheard { channel, reason: fault.description }),
        }
        Ok(())
    }

    fn placed(&mut self, class: Class, publication: Publication, placed: Result<(String, u64), Fault>) {
        let placed = placed.and_then(|(stream, offset)| {
            let foreign = || Fault { err_code: 0, description: format!("the stream {stream} is none of fanwire's") };
            Ok(Position { epoch: self.plan.names.epoch_of(&stream).ok_or_else(foreign)?, offset })
        });
        match placed {
            Ok(position) => {
                if let Some(life) = self.rooms.get_mut(&class).and_then(|room| room.life.as_mut()) {
                    life.learn(position);
                }
                if self.sids.contains_key(&publication.channel) {
                    self.heard.learn(&publication.channel, position);
                }
                self.inbox.settled(1, publication.cost());
                self.heard.tell(Event::Published { ticket: publication.ticket, result: Ok(position) });
            }
            Err(Fault { err_code, description }) => refuse(self.inbox, self.heard, vec![publication], || {
                let is_full = FULL.contains(&err_code);
                if is_full { Refused::OutOfMemory(description.clone()) } else { Refused::Server(description.clone()) }
            }),
        }
    }

    /// The end of an answer, or of a part of it, about what a channel keeps.
    fn kept(&mut self, class: Class, mut asking: Asking, message: &Message<'_>) {
        let pending = message.number("Nats-Num-Pending").unwrap_or(0);
        match message.status() {
            Some(204 | 404) => {}
            status => {
                let status = status.map_or_else(|| "an answer that is none".to_owned(), |status| status.to_string());
                let why = Refused::Server(format!("$JS.API.DIRECT.GET: {status}"));
                return unanswered(self.inbox, self.heard, asking.question, why);
            }
        }
        match asking.end(pending, self.heard.known(&asking.question.channel)) {
            Some(kept) => self.answer(asking.question, kept),
            None => {
                let stream = self.rooms.get(&class).and_then(|room| room.life.as_ref()).map(|life| life.name.clone());
                self.ask_for_kept(class, &stream.unwrap_or_default(), asking);
            }
        }
    }

    pub(super) fn answer(&mut self, question: Question, kept: Kept) {
        let Kept { records, top, is_whole, foreign, bridge } = kept;
        self.inbox.settled(1, question.cost());
        if let Some(reason) = foreign {
            self.heard.foreign(&question.channel, reason);
        }
        let sid = self.sids.get(&question.channel);
        if let (Some(bridge), Some(subscribed)) = (bridge, sid.and_then(|sid| self.by_sid.get_mut(sid))) {
            subscribed.bridge = Some(bridge);
        }
        let Question { channel, after, .. } = question;
        self.heard.tell(Event::Since { channel, after, records, top, is_whole });
    }

    /// Pings, looks at the streams, and whether the last answers came.
    pub(super) fn tick(&mut self) -> Result<(), String> {
        self.heard.tick();
        let silent_max = self.plan.options.silent_max;
        // Whoever hears has kept this thread waiting, perhaps, and it is all there to read: so it has to be so twice.
        let is_silent = self.heard_at.elapsed() >= silent_max;
        if std::mem::replace(&mut self.is_silent, is_silent) && is_silent {
            return Err(format!("nothing was heard for {silent_max:?}"));
        }
        let late = self.requests.late(silent_max);
        let was_late = std::mem::replace(&mut self.is_late, late.is_some());
        if let Some(what) = late.filter(|_| was_late) {
            return Err(format!("JetStream has not answered {what} for {silent_max:?}"));
        }
        self.say("PING\r\n");
        let requests = &mut self.requests;
        for (&class, room) in &mut self.rooms {
            if let Some(life) = &room.life
                && !std::mem::replace(&mut room.is_looked_at, true)
            {
                let asked = Asked::Seen(class, life.last);
                requests.ask(&format!("$JS.API.STREAM.INFO.{}", life.name), "", asked);
            }
        }
        Ok(())
    }

    /// That this machine goes is told, if that takes no time.
    pub(super) async fn tell_the_last(&mut self) {
        let tellings = self.inbox.take().tellings;
        tellings.iter().for_each(|telling| self.tell(telling));
        self.inbox.told(&tellings);
        let never = AtomicBool::new(false);
        let telling = async { while !self.requests.out.is_empty() && self.step(false, &never).await.is_ok() {} };
        drop(tokio::time::timeout(LAST_WORD, telling).await);
    }

    /// Everything that was under way is answered.
    pub(super) fn end(mut self, why: &str) {
        let unknown = || Refused::Unknown(why.to_owned());
        let down = || Refused::Down(why.to_owned());
        for asked in self.requests.drain() {
            match asked {
                Asked::Publication(_, publication) => refuse(self.inbox, self.heard, vec![publication], unknown),
                Asked::Kept(_, asking) => unanswered(self.inbox, self.heard, asking.question, down()),
                _ => {}
            }
        }
        for question in self.questions.drain(..) {
            unanswered(self.inbox, self.heard, question, down());
        }
        let mut known = self.plan.known.borrow_mut();
        for (class, room) in self.rooms {
            refuse(self.inbox, self.heard, room.publications.into(), down);
            if let (Some(life), Some(known)) = (room.life, known.get_mut(&class)) {
                known.life.last = known.life.last.max(life.last);
            }
        }
    }
}
