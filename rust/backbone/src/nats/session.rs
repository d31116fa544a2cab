//! A link to NATS while it is up: what waits goes out, what comes is told, and silence is noticed.
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use fanwire_core::Position;
use fanwire_core::node::{Keep, Record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Interval, MissedTickBehavior};

use super::asking::{Asking, Kept};
use super::connection::{Connection, information};
use super::names::{Class, Names, fits, too_long};
use super::publishing::{Asked, Requests, length};
use super::streams::{Life, entry};
use super::target::Target;
use super::wire::{Message, Said, now_ms, publish, read};
use crate::api::{Event, Options, Refused};
use crate::channels::Heard;
use crate::inbox::{Inbox, Publication, Question, Taken, Telling};
use crate::session::{End, refuse, unanswered};
use crate::url::{Address, address};

/// Above, nothing more is taken of what waits until the server has read.
const OUT_BYTES_MAX: usize = 8 << 20;
const READ_BYTES: usize = 64 << 10;
/// So many streams has a prefix at most: one for each number of publications that its channels keep.
const CLASSES_MAX: usize = 256;
const TOPS_MAX: usize = 256;
const QUESTIONS_MAX: usize = 16;

/// Subscriptions of each connection: answers, what machines are told, and all channels if there are patterns.
const ANSWERS: u64 = 1;
const TOLD: u64 = 2;
const LISTENED: u64 = 4;
const FIRST_CHANNEL: u64 = 16;

/// What a session works for, over reconnects.
pub(crate) struct Plan {
    pub(crate) target: Target,
    pub(crate) names: Names,
    pub(crate) options: Options,
    pub(crate) tls: Option<tokio_rustls::TlsConnector>,
    /// What is known of each stream, so that one that has lost something is noticed.
    pub(super) known: RefCell<BTreeMap<Class, Known>>,
    /// Which server is the next to try, and those that others have named.
    turn: Cell<usize>,
    found: RefCell<Vec<Address>>,
}

#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) life: Life,
    pub(super) has_lost: bool,
}

impl Plan {
    pub(crate) fn new(target: Target, names: Names, options: Options, tls: Option<tokio_rustls::TlsConnector>) -> Self {
        let turn = Cell::new(usize::try_from(getrandom::u32().unwrap_or(0)).unwrap_or(0));
        Self { target, names, options, tls, known: RefCell::default(), turn, found: RefCell::default() }
    }

    /// The servers, the next to try first.
    fn addresses(&self) -> Vec<Address> {
        let mut addresses = self.target.addresses.clone();
        // A certificate names what the URL names.
        if self.tls.is_none() {
            addresses.extend(self.found.borrow().iter().filter(|one| !self.target.addresses.contains(one)).cloned());
        }
        let count = addresses.len();
        addresses.rotate_left(self.turn.get() % count);
        self.turn.set(self.turn.get().wrapping_add(1) % count);
        addresses
    }
}

/// Channels of one stream.
#[derive(Debug, Default)]
pub(super) struct Room {
    pub(super) life: Option<Life>,
    pub(super) is_looked_at: bool,
    /// It takes what is published: its leader has been heard.
    pub(super) is_ready: bool,
    /// When another server began to lead it, if what the one before has not answered is not given up yet.
    pub(super) led_anew_at: Option<Instant>,
    pub(super) tries: u32,
    pub(super) publications: VecDeque<Publication>,
    /// Channels whose newest positions are to be asked for.
    pub(super) tops: VecDeque<Box<str>>,
}

/// A channel that is subscribed.
#[derive(Debug)]
pub(super) struct Subscribed {
    pub(super) channel: Box<str>,
    pub(super) class: Class,
    pub(super) keep: Keep,
    /// The newest message is foreign: its sequence, and that of the publication before it.
    pub(super) bridge: Option<(u64, u64)>,
}

/// Connected to one server.
pub(crate) struct Session<'a> {
    pub(super) plan: &'a Plan,
    pub(super) inbox: &'a Inbox,
    pub(super) heard: &'a Arc<Heard>,
    pub(super) connection: Connection,
    pub(super) requests: Requests,
    pub(super) ticks: Interval,
    pub(super) heard_at: Instant,
    pub(super) is_silent: bool,
    pub(super) is_late: bool,
    /// JetStream has said that it is there.
    pub(super) is_enabled: bool,
    pub(super) rooms: BTreeMap<Class, Room>,
    pub(super) by_sid: HashMap<u64, Subscribed>,
    pub(super) sids: HashMap<Box<str>, u64>,
    pub(super) next_sid: u64,
    pub(super) questions: VecDeque<Question>,
    pub(super) patterns: HashSet<Box<str>>,
}

pub(super) enum Step {
    On,
    Stopped,
}

/// Until then; for ever, if there is no such time.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

impl<'a> Session<'a> {
    /// Connects to one of the servers, and finds the streams that were used before.
    ///
    /// # Errors
    /// Why to none.
    pub(crate) async fn connect(plan: &'a Plan, inbox: &'a Inbox, heard: &'a Arc<Heard>) -> Result<Self, String> {
        let mut reasons = Vec::new();
        for address in plan.addresses() {
            let within = plan.options.silent_max;
            match Connection::open(&address, &plan.target.login, plan.tls.as_ref(), within).await {
                Err(why) => reasons.push(why),
                Ok(connection) => match Self::begin(plan, inbox, heard, connection).await {
                    Err(why) => reasons.push(format!("{address}: {why}")),
                    Ok(session) => return Ok(session),
                },
            }
        }
        Err(reasons.join("; "))
    }

    async fn begin(
        plan: &'a Plan,
        inbox: &'a Inbox,
        heard: &'a Arc<Heard>,
        connection: Connection,
    ) -> Result<Self, String> {
        let mut ticks = tokio::time::interval(plan.options.ping_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let answers = format!("_INBOX.{:016x}.", getrandom::u64().unwrap_or_else(|_| now_ms()));
        let mut session = Self {
            plan,
            inbox,
            heard,
            connection,
            requests: Requests::new(answers.clone()),
            ticks,
            heard_at: Instant::now(),
            is_silent: false,
            is_late: false,
            is_enabled: false,
            rooms: BTreeMap::new(),
            by_sid: HashMap::new(),
            sids: HashMap::new(),
            next_sid: FIRST_CHANNEL,
            questions: VecDeque::new(),
            patterns: HashSet::new(),
        };
        session.find_others();
        session.say(&format!("SUB {answers}* {ANSWERS}\r\n"));
        if let Some(machine) = plan.options.machine {
            for (to, sid) in [(Some(machine), TOLD), (None, TOLD + 1)] {
                session.say(&format!("SUB {} {sid}\r\n", plan.names.told(to)));
            }
        }
        session.requests.ask("$JS.API.INFO", "", Asked::Enabled);
        let classes: Vec<_> = plan.known.borrow().keys().copied().collect();
        for class in classes {
            session.look_up(class);
        }
        let never = AtomicBool::new(false);
        while !session.is_enabled || session.rooms.values().any(|room| !room.is_ready) {
            session.step(false, &never).await?;
        }
        Ok(session)
    }

    /// Until it is stopped or broken.
    pub(crate) async fn run(mut self, is_stopping: &AtomicBool) -> End {
        let mut taken = self.inbox.take();
        drop(self.heard.apply(&mut taken));
        for (channel, keep) in self.heard.wanted_as() {
            self.want(channel, keep);
        }
        taken.patterns = self.heard.patterns().into_iter().map(|pattern| (pattern, true)).collect();
        self.accept(taken);
        let why = loop {
            self.set_going();
            match self.step(true, is_stopping).await {
                Ok(Step::On) => {}
                Ok(Step::Stopped) => {
                    self.tell_the_last().await;
                    return End::Stopped;
                }
                Err(why) => break why,
            }
        };
        let why = format!("{}: {why}", self.connection.address);
        self.end(&why);
        End::Broken(why, Vec::new())
    }

    /// Waits for the next thing to happen, and does what follows from it.
    pub(super) async fn step(&mut self, is_up: bool, is_stopping: &AtomicBool) -> Result<Step, String> {
        let Connection { reader, writer, rest, .. } = &mut self.connection;
        rest.reserve(READ_BYTES);
        tokio::select! {
            () = self.inbox.rung(), if is_up && self.requests.out.len() < OUT_BYTES_MAX => {
                if is_stopping.load(Ordering::Acquire) {
                    return Ok(Step::Stopped);
                }
                let mut taken = self.inbox.take();
                for (channel, keep) in self.heard.apply(&mut taken) {
                    match keep {
                        Some(keep) => self.want(channel, keep),
                        None => self.leave(&channel),
                    }
                }
                self.accept(taken);
            }
            count = reader.read_buf(rest) => match count {
                Ok(0) => return Err("the connection was closed (its end, or a client that is too slow)".to_owned()),
                Ok(_) => self.came()?,
                Err(error) => return Err(error.to_string()),
            },
            count = writer.write(&self.requests.out), if !self.requests.out.is_empty() => match count {
                Ok(count) => drop(self.requests.out.drain(..count)),
                Err(error) => return Err(error.to_string()),
            },
            () = until(self.requests.again()) => self.requests.ask_again(Instant::now()),
            _ = self.ticks.tick() => self.tick()?,
        }
        Ok(Step::On)
    }

    pub(super) fn say(&mut self, line: &str) {
        self.requests.out.extend_from_slice(line.as_bytes());
    }

    fn accept(&mut self, taken: Taken) {
        for publication in taken.publications {
            self.publish(publication);
        }
        self.questions.extend(taken.questions);
        taken.tellings.iter().for_each(|telling| self.tell(telling));
        self.inbox.told(&taken.tellings); // what is under way is bounded, and has no answer where the session ends
        for (pattern, is_begun) in taken.patterns {
            if is_begun {
                self.patterns.insert(pattern)
            } else {
                self.patterns.remove(&pattern)
            };
            let line = match self.patterns.is_empty() {
                true => format!("UNSUB {LISTENED}\r\n"),
                false => format!("SUB {} {LISTENED}\r\n", self.plan.names.all_given()),
            };
            self.say(&line); // one that is there already stays as it is
        }
    }

    fn publish(&mut self, publication: Publication) {
        let (bytes, bytes_max) = (length(&self.plan.names, &publication), self.connection.info.max_payload);
        let refused = if bytes > bytes_max {
            Some(format!("a publication of {bytes} bytes: the server's max_payload is {bytes_max}"))
        } else {
            too_long(&publication.channel)
        };
        let class = Class::of(publication.keep);
        let refused = refused.or_else(|| self.look_up(class));
        match (refused, self.rooms.get_mut(&class)) {
            (None, Some(room)) => room.publications.push_back(publication),
            (why, _) => {
                let why = why.unwrap_or_default();
                refuse(self.inbox, self.heard, vec![publication], || Refused::Server(why.clone()));
            }
        }
    }

    pub(super) fn tell(&mut self, telling: &Telling) {
        let (bytes, bytes_max) = (telling.bytes.len(), self.connection.info.max_payload);
        if bytes > bytes_max {
            self.heard.untold(&[format!("{bytes} bytes to machines: the server's max_payload is {bytes_max}")]);
            return;
        }
        publish(&mut self.requests.out, &self.plan.names.told(telling.to), "", &[&telling.bytes]);
    }

    fn want(&mut self, channel: Box<str>, keep: Keep) {
        let class = Class::of(keep);
        if let Some(reason) = too_long(&channel).or_else(|| self.look_up(class)) {
            return self.heard.tell(Event::Unheard { channel, reason });
        }
        if self.sids.get(&channel).is_some_and(|sid| self.by_sid[sid].class != class) {
            self.leave(&channel);
        }
        if let Some(subscribed) = self.sids.get(&channel).and_then(|sid| self.by_sid.get_mut(sid)) {
            subscribed.keep = keep;
        } else {
            let sid = self.next_sid;
            self.next_sid += 1;
            self.say(&format!("SUB {} {sid}\r\n", self.plan.names.given(class, &channel)));
            self.sids.insert(channel.clone(), sid);
            self.by_sid.insert(sid, Subscribed { channel: channel.clone(), class, keep, bridge: None });
        }
        self.rooms.entry(class).or_default().tops.push_back(channel);
    }

    fn leave(&mut self, channel: &str) {
        if let Some(sid) = self.sids.remove(channel) {
            self.by_sid.remove(&sid);
            self.say(&format!("UNSUB {sid}\r\n"));
        }
    }

    /// Has the stream of a class found or made. Gives why there is none, if there are too many.
    fn look_up(&mut self, class: Class) -> Option<String> {
        if self.rooms.contains_key(&class) {
            return None;
        }
        if self.rooms.len() >= CLASSES_MAX {
            return Some(format!(
                "channels of one prefix keep {CLASSES_MAX} different numbers of publications at most"
            ));
        }
        self.rooms.insert(class, Room::default());
        self.ask_for_streams(class);
        None
    }

    pub(super) fn ask_for_streams(&mut self, class: Class) {
        let payload = format!("{{\"subject\":\"{}\"}}", self.plan.names.all_taken(class));
        self.requests.ask("$JS.API.STREAM.NAMES", &payload, Asked::Streams(class));
    }

    /// Sends all that can go.
    fn set_going(&mut self) {
        let (names, requests) = (&self.plan.names, &mut self.requests);
        let is_cluster = self.connection.info.cluster.is_some();
        for (&class, room) in &mut self.rooms {
            let Some(life) = room.life.as_ref().filter(|_| room.is_ready) else { continue };
            while requests.has_room()
                && let Some(publication) = room.publications.pop_front()
            {
                requests.publish(names, class, publication);
            }
            let count = room.tops.len().min(TOPS_MAX.saturating_sub(requests.tops));
            let tops = room.tops.drain(..count);
            if is_cluster && count > 0 {
                // What its leader does not know to be subscribed does not come: newest positions are asked for behind that.
                requests.try_out(names, class, tops.collect());
            } else {
                tops.for_each(|channel| requests.ask_for_top(names, class, &life.name, channel));
            }
        }
        for _ in 0..self.questions.len() {
            if self.requests.questions >= QUESTIONS_MAX {
                break;
            }
            if let Some(question) = self.questions.pop_front() {
                self.ask(question);
            }
        }
    }

    fn ask(&mut self, question: Question) {
        let subscribed = self.sids.get(&question.channel).and_then(|sid| self.by_sid.get(sid));
        let Some(&Subscribed { class, keep, .. }) = subscribed else {
            let why = Refused::Server("the channel is not wanted".to_owned());
            return unanswered(self.inbox, self.heard, question, why);
        };
        let Some(life) = self.rooms.get(&class).and_then(|room| room.life.as_ref()) else {
            return self.questions.push_back(question);
        };
        let asking = Asking::new(question, keep, life, now_ms());
        if keep.messages == 0 {
            let top = self.heard.known(&asking.question.channel);
            let is_whole = top == asking.question.after;
            return self.answer(asking.question, Kept { records: vec![], top, is_whole, foreign: None, bridge: None });
        }
        let life = life.name.clone();
        self.ask_for_kept(class, &life, asking);
    }

    pub(super) fn ask_for_kept(&mut self, class: Class, stream: &str, mut asking: Asking) {
        let payload = asking.request(&self.plan.names.taken(class, &asking.question.channel));
        self.requests.ask(&format!("$JS.API.DIRECT.GET.{stream}"), &payload, Asked::Kept(class, Box::new(asking)));
    }

    /// Bytes have come.
    fn came(&mut self) -> Result<(), String> {
        self.heard_at = Instant::now();
        let mut buffer = std::mem::take(&mut self.connection.rest);
        let mut at = 0;
        while let Some((said, length)) = read(&buffer[at..])? {
            at += length;
            match said {
                Said::Message(message) => self.message(&message)?,
                Said::Ping => self.say("PONG\r\n"),
                Said::Pong | Said::Fine => {}
                Said::Error(why) => self.error(why)?,
                Said::Info(text) => {
                    self.connection.info = information(text)?;
                    self.find_others();
                    if self.connection.info.ldm {
                        return Err("the server is about to end (lame duck mode)".to_owned());
                    }
                }
            }
        }
        buffer.drain(..at);
        self.connection.rest = buffer;
        Ok(())
    }

    /// Other servers of the cluster, as this one has named them.
    fn find_others(&mut self) {
        let of = |text: &String| address(text, 4_222).ok();
        *self.plan.found.borrow_mut() = self.connection.info.connect_urls.iter().take(64).filter_map(of).collect();
    }

    /// The server refuses something, and says so in a line of its own.
    fn error(&mut self, why: &str) -> Result<(), String> {
        let subject = why.split('"').nth(1).unwrap_or_default();
        if why.starts_with("Permissions Violation for Subscription") {
            let channel = Names::channel_of(subject).unwrap_or_default().into_boxed_str();
            if let Some(sid) = self.sids.remove(&channel) {
                self.by_sid.remove(&sid);
                self.heard.tell(Event::Unheard { channel, reason: why.to_owned() });
                return Ok(());
            }
        } else if why.starts_with("Permissions Violation for Publish") {
            match self.requests.refused(&self.plan.names, subject) {
                Some(Asked::Publication(_, publication)) => {
                    refuse(self.inbox, self.heard, vec![publication], || Refused::Server(why.to_owned()));
                    return Ok(());
                }
                Some(Asked::Ready(class, tops)) => {
                    self.ready(class, tops);
                    return Ok(());
                }
                _ => {}
            }
            if subject.contains(".told.") {
                self.heard.untold(&[why.to_owned()]);
                return Ok(());
            }
        }
        Err(why.to_owned())
    }

    fn message(&mut self, message: &Message<'_>) -> Result<(), String> {
        match message.sid {
            ANSWERS => return self.answered(message),
            TOLD | 3 => self.heard.tell(Event::Told(message.payload.to_vec())),
            LISTENED => {
                let channel = Names::channel_of(message.subject).unwrap_or_default().into_boxed_str();
                if self.patterns.iter().any(|pattern| fits(pattern, &channel)) {
                    self.published(channel, message, None);
                }
            }
            sid => {
                let Some(subscribed) = self.by_sid.get(&sid) else { return Ok(()) };
                let (channel, bridge, class) = (subscribed.channel.clone(), subscribed.bridge, subscribed.class);
                let bridge = self.published(channel, message, bridge);
                if let Some(subscribed) = self.by_sid.get_mut(&sid) {
                    subscribed.bridge = bridge;
                }
                let life = self.rooms.get_mut(&class).and_then(|room| room.life.as_mut());
                if let (Some(life), Ok(entry)) = (life, entry(message, &self.plan.names)) {
                    life.learn(entry.position);
                }
            }
        }
        Ok(())
    }

    /// A stream has published something again. Gives what is to be bridged before the next one.
    fn published(
        &mut self,
        channel: Box<str>,
        message: &Message<'_>,
        bridge: Option<(u64, u64)>,
    ) -> Option<(u64, u64)> {
        let entry = match entry(message, &self.plan.names) {
            Ok(entry) => entry,
            Err(reason) => {
                self.heard.foreign(&channel, reason);
                return bridge;
            }
        };
        let mut previous =
            bridge.filter(|(foreign, _)| *foreign == entry.previous).map_or(entry.previous, |(_, before)| before);
        if previous == 0 {
            // The server has forgotten the one before. Whoever was subscribed has it, if there was one.
            let known = self.heard.known(&channel);
            previous =
                if known.epoch == entry.position.epoch { known.offset.min(entry.position.offset - 1) } else { 0 };
        }
        match entry.bytes {
            Err(reason) => {
                self.heard.foreign(&channel, reason);
                Some((entry.position.offset, previous))
            }
            Ok(bytes) => {
                let previous = Position { offset: previous, ..entry.position };
                let (position, published_ms, bytes) = (entry.position, entry.published_ms, bytes.to_vec());
                self.heard.learn(&channel, position);
                self.heard.tell(Event::Record { channel, record: Record { previous, position, published_ms, bytes } });
                None
            }
        }
    }
}
