//! The thread that has the links to the other workers. It waits for nothing but them and the bell.
//!
//! Each worker listens at a socket in the supervisor's folder. One that begins connects to all that it finds there, so
//! each pair of workers has a link. A request is passed on by its bytes, and its response comes back the same way: the
//! client's connection stays where it is, since a proxy's carries the requests of many clients. A socket that becomes one
//! client's, for a WebSocket or an event stream, is passed on itself.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::errands::{Asker, Delivery, Errand, GuestId, Office, Outgoing, Passed, Siblings, Sought, socket_path};
use super::link::{BUFFER_BYTES, Link};
use super::searches::{Found, Searches, Step};
use super::signature::{Stamped, wall_seconds};
use super::wire::{ANSWER_BYTES_MAX, End, MESSAGE_BYTES_MAX, Message, Whose};
use crate::clock::Clock;
use crate::connection_id::ConnectionId;
use crate::socket::{self, Awaited};
use crate::tokens::{Claim, Lending, Token, Tokens};

/// How long the end may take to say what was to be said.
const FAREWELL: Duration = Duration::from_secs(1);
/// Connections that wait at the socket: all other workers may come at once.
const BACKLOG: i32 = 256;
/// Links that are taken in one turn.
const ACCEPTS_MAX: usize = 256;
/// The folder is looked at so often, at most.
const LOOK: Duration = Duration::from_millis(100);
/// Bytes around a request's, at most.
const ROOM_BYTES: usize = 1 << 10;

/// All that the thread has.
#[derive(Debug)]
pub(crate) struct Thread<O> {
    siblings: Arc<Siblings>,
    tokens: Arc<Tokens>,
    clock: Clock,
    /// How long a token may wait for its transport.
    claimed_within: Duration,
    /// Descriptors from this on are left for others.
    descriptors_spare: usize,
    office: O,
    folder: PathBuf,
    listener: OwnedFd,
    /// By their numbers, which are never used twice.
    links: BTreeMap<u64, Link>,
    links_made: u64,
    /// The link by which a worker is spoken to.
    by_worker: HashMap<u8, u64>,
    searches: Searches<Asker>,
    /// When the folder was looked at last.
    looked_at: Option<Instant>,
    /// By the id of the connection that they came on.
    passed: HashMap<u64, Passed>,
    /// Which shard has them.
    guests: HashMap<GuestId, usize>,
    /// Where receives go.
    buffer: Vec<u8>,
    is_stopping: bool,
}

impl<O: Office> Thread<O> {
    /// Listens, and connects to the workers that are there.
    ///
    /// # Errors
    /// The system's, where there is no folder or no descriptor.
    pub(crate) fn new(
        siblings: Arc<Siblings>,
        tokens: Arc<Tokens>,
        clock: Clock,
        (claimed_within, descriptors_spare): (Duration, usize),
        folder: &Path,
        office: O,
    ) -> io::Result<Self> {
        let path = socket_path(folder, siblings.worker);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {} // one that had the same number was killed, long ago
        }
        let listener = socket::bind_unix(&path, 0o600)?;
        socket::listen(&listener, BACKLOG)?;
        socket::close_in_children(listener.as_raw_fd(), true);
        let within_s = u32::try_from(claimed_within.as_secs()).unwrap_or(u32::MAX);
        let mut thread = Self {
            searches: Searches::new(siblings.worker, within_s),
            looked_at: None,
            siblings,
            tokens,
            clock,
            claimed_within,
            descriptors_spare,
            office,
            folder: folder.to_owned(),
            listener,
            links: BTreeMap::new(),
            links_made: 0,
            by_worker: HashMap::new(),
            passed: HashMap::new(),
            guests: HashMap::new(),
            buffer: vec![0; BUFFER_BYTES],
            is_stopping: false,
        };
        thread.connect_to_all();
        Ok(thread)
    }

    /// Until it is stopped.
    pub(crate) fn run(mut self) {
        while !self.is_stopping {
            self.turn(None);
        }
        let until = Instant::now() + FAREWELL;
        while self.links.values().any(Link::has_waiting) && Instant::now() < until {
            self.turn(Some(until));
        }
    }

    fn turn(&mut self, until: Option<Instant>) {
        let mut awaited = vec![
            Awaited { fd: self.siblings.bell.fd(), wants_room: false, is_readable: false },
            Awaited { fd: self.listener.as_raw_fd(), wants_room: false, is_readable: false },
        ];
        let numbers: Vec<u64> = self.links.keys().copied().collect();
        awaited.extend(self.links.values().map(|link| Awaited {
            fd: link.fd(),
            wants_room: link.has_waiting(),
            is_readable: false,
        }));
        let timeout_ms = self.timeout_ms(until);
        socket::wait(&mut awaited, timeout_ms);
        if awaited[0].is_readable {
            self.siblings.bell.hush();
        }
        for errand in self.siblings.take() {
            self.run_errand(errand);
        }
        if awaited[1].is_readable {
            self.accept();
        }
        for (number, one) in numbers.into_iter().zip(&awaited[2..]) {
            if one.is_readable {
                self.receive(number);
            }
        }
        for token in self.tokens.take_gone() {
            self.give_back(token);
        }
        let step = self.searches.expire(self.clock.now_ns());
        self.take(step);
        self.flush();
    }

    fn timeout_ms(&mut self, until: Option<Instant>) -> i32 {
        let of_search = self.searches.next_deadline_ns().map(|due| due.saturating_sub(self.clock.now_ns()));
        let of_end = until.map(|until| until.saturating_duration_since(Instant::now()).as_nanos() as u64);
        let soonest = of_search.into_iter().chain(of_end).min();
        soonest.map_or(-1, |ns| i32::try_from(ns.div_ceil(1_000_000)).unwrap_or(i32::MAX))
    }

    fn flush(&mut self) {
        let broken: Vec<u64> = self
            .links
            .iter_mut()
            .filter_map(|(number, link)| (link.flush().is_err() || link.is_over_full()).then_some(*number))
            .collect();
        for number in broken {
            self.lose(number);
        }
    }
}

/// Links.
impl<O: Office> Thread<O> {
    /// Connects to those in the folder. One that begins does so, and one that misses another: then it may be gone, too.
    fn connect_to_all(&mut self) {
        if self.looked_at.is_some_and(|at| at.elapsed() < LOOK) {
            return;
        }
        self.looked_at = Some(Instant::now());
        let Ok(found) = std::fs::read_dir(&self.folder) else { return };
        for entry in found.flatten() {
            let name = entry.file_name();
            let number =
                name.to_str().and_then(|name| name.strip_prefix("worker-")?.strip_suffix(".sock")?.parse().ok());
            if let Some(worker) = number.filter(|worker| *worker != self.siblings.worker) {
                self.connect(worker);
            }
        }
    }

    /// Connects to a worker, unless there is a link. Nobody listens where one was killed.
    fn connect(&mut self, worker: u8) {
        if self.by_worker.contains_key(&worker) {
            return;
        }
        let Ok(fd) = socket::connect_unix(&socket_path(&self.folder, worker)) else { return };
        if !socket::is_of_this_user(fd.as_raw_fd()) {
            return;
        }
        let mut link = Link::new(fd, Some(worker));
        link.say(&Message::Hello(self.siblings.worker));
        let number = self.add(link);
        self.by_worker.insert(worker, number);
    }

    fn add(&mut self, link: Link) -> u64 {
        self.links_made += 1;
        self.links.insert(self.links_made, link);
        self.links_made
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTS_MAX {
            let Ok(fd) = socket::accept(self.listener.as_raw_fd()) else { return };
            if socket::is_of_this_user(fd.as_raw_fd()) {
                self.add(Link::new(fd, None));
            } else {
                self.office.record(30, "another user's process connected to this worker: it was refused".to_owned());
            }
        }
    }

    fn receive(&mut self, number: u64) {
        let Some(link) = self.links.get_mut(&number) else { return };
        let goes_on = link.receive(&mut self.buffer).unwrap_or(false);
        let messages = link.messages();
        let is_none = messages.is_err();
        for (message, descriptor) in messages.unwrap_or_default() {
            self.hear(number, message, descriptor);
        }
        if is_none {
            let text = "what came from another worker is not as this version of fanwire says it: it is left alone";
            self.office.record(40, text.to_owned());
        }
        if is_none || !goes_on {
            self.lose(number);
        }
    }

    /// The other end of a link is gone: what was passed on over it gets no answer, and what came over it needs none.
    fn lose(&mut self, number: u64) {
        let Some(link) = self.links.remove(&number) else { return };
        let unanswered: Vec<u64> =
            self.passed.iter().filter(|(_, passed)| passed.link == Some(number)).map(|(id, _)| *id).collect();
        for id in unanswered {
            self.passed.remove(&id);
            let id = ConnectionId::from_bits(id);
            self.office.deliver(id.shard(), Delivery::Lost(id));
        }
        let guests: Vec<(GuestId, usize)> = self
            .guests
            .iter()
            .filter(|(guest, _)| guest.link == number)
            .map(|(guest, shard)| (*guest, *shard))
            .collect();
        for (guest, shard) in guests {
            self.guests.remove(&guest);
            self.office.deliver(shard, Delivery::Leave(guest));
        }
        if let Some(worker) = link.worker.filter(|worker| self.by_worker.get(worker) == Some(&number)) {
            self.by_worker.remove(&worker);
            self.tokens.forget_all_lent(worker);
            let others = self.others();
            let step = self.searches.lost(worker, &others);
            self.take(step);
        }
    }

    fn others(&self) -> BTreeSet<u8> {
        self.by_worker.keys().copied().collect()
    }

    fn link_to(&mut self, worker: u8) -> Option<(u64, &mut Link)> {
        let number = *self.by_worker.get(&worker)?;
        self.links.get_mut(&number).map(|link| (number, link))
    }
}

/// What shards ask for.
impl<O: Office> Thread<O> {
    fn run_errand(&mut self, errand: Errand) {
        match errand {
            Errand::Request(id, outgoing) => {
                self.passed.insert(id.to_bits(), Passed::default());
                let (token, route) = (outgoing.token, outgoing.route);
                self.find(token, route, Asker::Request(id, outgoing));
            }
            Errand::Socket(shard, fd, outgoing) => {
                let (token, route) = (outgoing.token, outgoing.route);
                self.find(token, route, Asker::Socket(shard, fd, outgoing));
            }
            Errand::More(id, bytes) => self.say_of(id, |number| Message::More(number, bytes)),
            Errand::Hurry(id) => {
                if let Some(passed) = self.passed.get_mut(&id.to_bits()) {
                    passed.is_hurried = true;
                }
                self.say_of(id, Message::Hurry);
            }
            Errand::Abandon(id) => {
                self.say_of(id, Message::Abandon);
                self.passed.remove(&id.to_bits());
            }
            Errand::Taken(guest) => self.say_to(guest, &Message::Taken(guest.number)),
            Errand::Response(guest, bytes, end) => self.respond(guest, &bytes, end),
            Errand::Lost(guest) => {
                if self.guests.remove(&guest).is_some() {
                    self.say_to(guest, &Message::Response(guest.number, Vec::new(), End::Lost));
                }
            }
            Errand::Pass(guest, shard, client, bytes) => {
                if let Some(at) = self.guests.get_mut(&guest) {
                    *at = shard;
                    self.office.deliver(shard, Delivery::Guest(guest, client, bytes));
                }
            }
            Errand::Stop => self.is_stopping = true,
        }
    }

    fn say_of(&mut self, id: ConnectionId, message: impl FnOnce(u64) -> Message) {
        let link = self.passed.get(&id.to_bits()).and_then(|passed| passed.link);
        if let Some(link) = link.and_then(|link| self.links.get_mut(&link)) {
            link.say(&message(id.to_bits()));
        }
    }

    fn say_to(&mut self, guest: GuestId, message: &Message) {
        if let Some(link) = self.links.get_mut(&guest.link) {
            link.say(message);
        }
    }

    fn respond(&mut self, guest: GuestId, bytes: &[u8], end: Option<bool>) {
        if end.is_some() && self.guests.remove(&guest).is_none() {
            return;
        }
        let last = end.map_or(End::More, |keeps_alive| if keeps_alive { End::KeepsAlive } else { End::Closes });
        let Some(link) = self.links.get_mut(&guest.link) else { return };
        let mut rest = bytes;
        while let Some((piece, more)) = rest.split_at_checked(ANSWER_BYTES_MAX).filter(|(_, more)| !more.is_empty()) {
            link.say_response(guest.number, piece, End::More);
            rest = more;
        }
        link.say_response(guest.number, rest, last);
    }

    /// Finds the worker of a token, and passes on what waits for it.
    fn find(&mut self, token: Token, route: u64, asker: Asker) {
        let found = match self.tokens.find(&token, self.clock.now_ns()).map(|negotiated| negotiated.claim) {
            Some(Claim::Lent(worker)) => Some(Found::At(worker)),
            Some(_) => Some(Found::Nowhere), // it has come here meanwhile: that is for the shard to see
            None => self.searches.remembered(&token).map(Found::At),
        };
        if let Some(found) = found {
            return self.go(asker, found);
        }
        let home = Stamped::of(&token).home;
        if let Some(home) = home.filter(|home| *home != self.siblings.worker) {
            self.connect(home);
        }
        if home.is_none_or(|home| !self.by_worker.contains_key(&home)) {
            self.connect_to_all();
        }
        let (others, now) = (self.others(), (self.clock.now_ns(), wall_seconds()));
        let step = self.searches.search((token, route), asker, &others, now);
        self.take(step);
    }

    fn take(&mut self, step: Step<Asker>) {
        for (worker, message) in step.messages {
            if let Some((_, link)) = self.link_to(worker) {
                link.say(&message);
            }
        }
        for (token, route, askers, found) in step.over {
            if found == Found::Given && self.take_over(token, route).is_err() {
                self.give_back(token);
                askers.into_iter().for_each(|asker| self.go(asker, Found::Unknown));
                continue;
            }
            askers.into_iter().for_each(|asker| self.go(asker, found));
        }
    }

    fn take_over(&self, token: Token, route: u64) -> Result<(), crate::error::EngineError> {
        let now_ns = self.clock.now_ns();
        let deadline_ns = now_ns + self.claimed_within.as_nanos() as u64;
        self.tokens.add(token, (route, Stamped::of(&token).is_stateful), now_ns, deadline_ns)
    }

    /// Tells its issuer that a token is not needed here any more.
    fn give_back(&mut self, token: Token) {
        if let Some((_, link)) = Stamped::of(&token).home.and_then(|home| self.link_to(home)) {
            link.say(&Message::Gone(token));
        }
    }

    fn go(&mut self, asker: Asker, found: Found) {
        let sought = if found == Found::Unknown { Sought::Unknown } else { Sought::Settled };
        let to = match found {
            Found::At(worker) => self.by_worker.get(&worker).copied(),
            _ => None,
        };
        match (asker, to) {
            (Asker::Request(id, outgoing), to) => self.pass_on(id, outgoing, to, sought),
            (Asker::Socket(_, fd, outgoing), Some(link)) => {
                let Outgoing { token, client, bytes, .. } = outgoing;
                if let Some(link) = self.links.get_mut(&link) {
                    link.say_with(&Message::Socket(token, client, bytes), fd);
                }
            }
            (Asker::Socket(shard, fd, outgoing), None) => {
                self.office.deliver(shard, Delivery::Socket(fd, outgoing, sought));
            }
            (Asker::Guest(guest, client, bytes), _) => {
                let shard = self.guests.get(&guest).copied();
                if let Some(shard) = shard {
                    self.office.deliver(shard, Delivery::Guest(guest, client, bytes));
                }
            }
        }
    }

    fn pass_on(&mut self, id: ConnectionId, outgoing: Outgoing, to: Option<u64>, sought: Sought) {
        let Some(passed) = self.passed.get_mut(&id.to_bits()) else { return }; // nobody waits for it any more
        let Some((number, link)) = to.and_then(|number| self.links.get_mut(&number).map(|link| (number, link))) else {
            self.passed.remove(&id.to_bits());
            self.office.deliver(id.shard(), Delivery::Returned(id, outgoing.bytes, sought));
            return;
        };
        if outgoing.bytes.len() > MESSAGE_BYTES_MAX - ROOM_BYTES {
            self.passed.remove(&id.to_bits());
            self.office.deliver(id.shard(), Delivery::Lost(id));
            return;
        }
        passed.link = Some(number);
        let is_hurried = passed.is_hurried;
        link.say(&Message::Request(id.to_bits(), outgoing.token, outgoing.client, outgoing.bytes));
        if is_hurried {
            link.say(&Message::Hurry(id.to_bits()));
        }
    }
}

/// What other workers say.
impl<O: Office> Thread<O> {
    fn hear(&mut self, number: u64, message: Message, descriptor: Option<OwnedFd>) {
        let worker = self.links.get(&number).and_then(|link| link.worker);
        let Some(worker) = worker else { return self.greet(number, &message) };
        match message {
            Message::Hello(_) => {}
            Message::Ask(token) => {
                let whose = match self.tokens.lend(&token, worker, self.clock.now_ns()) {
                    None => Whose::Nobodys,
                    Some(Lending::Given) => Whose::Yours,
                    Some(Lending::Kept) => Whose::Of(self.siblings.worker),
                    Some(Lending::Lent(to)) => Whose::Of(to),
                };
                self.answer(number, token, whose);
            }
            Message::Seek(token, is_wanted) => {
                let whose = match self.tokens.find(&token, self.clock.now_ns()).map(|negotiated| negotiated.claim) {
                    Some(Claim::Lent(to)) => Whose::Of(to),
                    Some(_) => Whose::Of(self.siblings.worker),
                    None => self.searches.sought(worker, &token, is_wanted),
                };
                self.answer(number, token, whose);
            }
            Message::Answer(token, Whose::Yours) if !self.searches.is_running(&token) => {
                // It came too late: whoever asks next is first.
                if self.tokens.find(&token, self.clock.now_ns()).is_none() {
                    self.give_back(token);
                }
            }
            Message::Answer(token, whose) => {
                let step = self.searches.answered(worker, &token, whose);
                self.take(step);
            }
            Message::Gone(token) => self.tokens.forget_lent(&token, worker),
            Message::Request(id, token, client, bytes) => {
                let guest = GuestId { link: number, number: id };
                self.guests.insert(guest, self.shard_of(&token));
                self.hold(&token, Asker::Guest(guest, client, bytes));
            }
            Message::More(id, bytes) => self.tell_guest(number, id, |guest| Delivery::More(guest, bytes)),
            Message::Hurry(id) => self.tell_guest(number, id, Delivery::Hurry),
            Message::Abandon(id) => {
                self.tell_guest(number, id, Delivery::Leave);
                self.guests.remove(&GuestId { link: number, number: id });
            }
            Message::Taken(id) => self.tell_asker(number, id, Delivery::Taken),
            Message::Response(id, bytes, end) => self.take_response(number, id, bytes, end),
            Message::Socket(token, client, bytes) => {
                let Some(fd) = descriptor.filter(|fd| self.has_room_for(fd)) else {
                    let text = "no descriptor is left for a client that another worker passed on: it was closed";
                    return self.office.record(30, text.to_owned());
                };
                let shard = self.shard_of(&token);
                let outgoing = Outgoing { token, route: 0, client, bytes };
                self.hold(&token, Asker::Socket(shard, fd, outgoing));
            }
        }
    }

    /// The first message on a link that another worker has made.
    fn greet(&mut self, number: u64, message: &Message) {
        let Message::Hello(worker) = message else {
            self.links.remove(&number);
            return;
        };
        if let Some(link) = self.links.get_mut(&number) {
            link.worker = Some(*worker);
            self.by_worker.insert(*worker, number);
        }
    }

    fn answer(&mut self, number: u64, token: Token, whose: Whose) {
        if let Some(link) = self.links.get_mut(&number) {
            link.say(&Message::Answer(token, whose));
        }
    }

    fn has_room_for(&self, fd: &OwnedFd) -> bool {
        fd.as_raw_fd() < socket::spare_from(self.descriptors_spare)
    }

    /// The shard that has a token's connection, or that will.
    fn shard_of(&self, token: &Token) -> usize {
        match self.tokens.find(token, self.clock.now_ns()).map(|negotiated| negotiated.claim) {
            Some(Claim::By(id)) => id.shard(),
            _ => usize::from(token[15]) % self.office.shards(),
        }
    }

    /// What comes from another worker, which takes its connection for one of this worker's: where that is searched for, it
    /// waits, too.
    fn hold(&mut self, token: &Token, asker: Asker) {
        if let Some(asker) = self.searches.wait(token, asker) {
            self.go(asker, Found::Given);
        }
    }

    fn tell_guest(&self, link: u64, number: u64, delivery: impl FnOnce(GuestId) -> Delivery) {
        let guest = GuestId { link, number };
        if let Some(shard) = self.guests.get(&guest) {
            self.office.deliver(*shard, delivery(guest));
        }
    }

    fn tell_asker(&self, link: u64, id: u64, delivery: impl FnOnce(ConnectionId) -> Delivery) {
        if self.passed.get(&id).is_some_and(|passed| passed.link == Some(link)) {
            let id = ConnectionId::from_bits(id);
            self.office.deliver(id.shard(), delivery(id));
        }
    }

    fn take_response(&mut self, link: u64, id: u64, bytes: Vec<u8>, end: End) {
        let ends = match end {
            End::More => None,
            End::KeepsAlive => Some(true),
            End::Closes => Some(false),
            End::Lost => {
                self.tell_asker(link, id, Delivery::Lost);
                self.passed.remove(&id);
                return;
            }
        };
        self.tell_asker(link, id, |id| Delivery::Response(id, bytes, ends));
        if ends.is_some() {
            self.passed.remove(&id);
        }
    }
}

impl<O> Drop for Thread<O> {
    fn drop(&mut self) {
        socket::close_in_children(self.listener.as_raw_fd(), false);
        let _ = std::fs::remove_file(socket_path(&self.folder, self.siblings.worker)); // the folder may be gone
    }
}
