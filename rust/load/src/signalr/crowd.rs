//! All connections of the crowd: negotiates, opens, reads and counts. Never waits.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use hdrhistogram::Histogram;

use super::args::Settings;
use super::counts::{Counts, Standing};
use super::inbound::{Inbound, Seen};
use super::message::Reader;
use super::negotiate;
use super::odds::{Faults, Sequence};
use super::progress::Progress;
use super::protocol::Protocol;
use super::returning::Returning;
use super::stage::Stage;
use crate::connect::{self, upgrade_request};
use crate::draw::source_of;
use crate::error::LoadError;
use crate::histogram::latencies;
use crate::sys::{self, Epoll, Event};

/// The target of what tells a client where its match is.
const SNAPSHOT: &str = "Snapshot";

/// Bytes that one read may bring, for all connections together.
const READ_BYTES: usize = 512 << 10;

struct Connection {
    socket: Option<OwnedFd>,
    stage: Stage,
    /// It has an invocation that is not answered.
    is_calling: bool,
    /// It was open before.
    is_returning: bool,
    /// When connecting began, and when it was over by the wall's clock.
    began_ns: u64,
    opened_wall_ns: u64,
    /// Messages that were counted, since it opened.
    received: u64,
    /// The request that goes out once the socket is connected.
    request: Vec<u8>,
    /// The beginning of an HTTP answer.
    answer: Vec<u8>,
    inbound: Inbound,
}

/// Invocations in a closed loop: each client has one under way.
#[derive(Debug, Default)]
pub(super) struct Calls {
    frame: Vec<u8>,
    /// Not begun yet, begun and not answered, and answered by an error or never.
    left: u64,
    open: u64,
    pub(super) failed: u64,
}

pub(super) struct Crowd {
    pub(super) settings: Settings,
    pub(super) epoll: Epoll,
    reader: Reader,
    connections: Vec<Connection>,
    negotiation: Vec<u8>,
    handshake: Vec<u8>,
    ping: Vec<u8>,
    /// What watches each match.
    subscriptions: Vec<Vec<u8>>,
    buffer: Vec<u8>,
    /// The next connection to open, and how many are being opened.
    next: usize,
    in_flight: u32,
    pub(super) opened: u32,
    pub(super) failed: u32,
    /// Open connections that were lost.
    pub(super) closed: u32,
    /// Why connections failed or were lost, and how many.
    pub(super) failures: BTreeMap<String, u32>,
    pub(super) returning: Returning,
    pub(super) opened_ns: u64,
    /// The last time that anything moved.
    pub(super) moved_ns: u64,
    /// How long connecting took each client.
    pub(super) logins: Histogram<u64>,
    pub(super) counts: Counts,
    pub(super) progress: Progress,
    /// What was wrong with what they received, ever.
    pub(super) faults: Faults,
    /// Messages that each connection should have in all, and how many open ones have fewer.
    wanted: u64,
    behind: u32,
    pub(super) calls: Calls,
}

impl Crowd {
    /// Opens nothing yet.
    pub(super) fn new(settings: Settings) -> Result<Self, LoadError> {
        let is_shaken = settings.protocol == Protocol::Raw;
        let matches = settings.subscribe.as_ref().map_or(0, |(_, matches)| *matches);
        let connection = |index: u32| Connection {
            socket: None,
            stage: Stage::Waiting,
            is_calling: false,
            is_returning: false,
            began_ns: 0,
            opened_wall_ns: u64::MAX,
            received: 0,
            request: Vec::new(),
            answer: Vec::new(),
            inbound: Inbound::new(
                is_shaken,
                (matches > 0).then(|| Sequence::new(name_of(match_of(index, settings.first, matches)))),
            ),
        };
        let now = sys::monotonic_ns();
        Ok(Self {
            epoll: Epoll::new().map_err(LoadError::system("epoll_create1"))?,
            reader: reader(&settings),
            connections: (0..settings.connections).map(connection).collect(),
            negotiation: negotiate::request(&settings.path, &settings.host).into_bytes(),
            handshake: settings.protocol.handshake(),
            ping: settings.protocol.ping(),
            subscriptions: subscriptions(&settings),
            buffer: vec![0; READ_BYTES],
            next: 0,
            in_flight: 0,
            opened: 0,
            failed: 0,
            closed: 0,
            failures: BTreeMap::new(),
            returning: Returning::default(),
            opened_ns: now,
            moved_ns: now,
            logins: latencies(),
            counts: Counts::new(),
            progress: Progress::new(settings.progress, now),
            faults: Faults::default(),
            wanted: 0,
            behind: 0,
            calls: Calls::default(),
            settings,
        })
    }

    /// Whether all connections are open or failed.
    pub(super) fn is_settled(&self) -> bool {
        self.next == self.connections.len() && self.in_flight == 0 && self.returning.is_empty()
    }

    /// Begins as many connects as may be in flight, and are still to be made or made again.
    pub(super) fn begin_connects(&mut self) {
        while self.in_flight < self.settings.in_flight {
            let index = if self.next < self.connections.len() {
                self.next += 1;
                self.connections[self.next - 1].began_ns = sys::monotonic_ns();
                self.next - 1
            } else {
                let Some(index) = self.returning.next(sys::monotonic_ns()) else { return };
                index
            };
            self.in_flight += 1;
            let (stage, request) = if self.settings.negotiates {
                (Stage::Negotiating, self.negotiation.clone())
            } else {
                let request = upgrade_request(&self.settings.path, &self.settings.host);
                (Stage::Upgrading, request.into_bytes())
            };
            if let Err(why) = self.connect(index, stage, request) {
                self.lose(index, &why);
            }
        }
    }

    /// When a client is to come back that can.
    pub(super) fn return_due_ns(&self) -> Option<u64> {
        self.returning.due_ns().filter(|_| self.in_flight < self.settings.in_flight)
    }

    /// Gives up all that is not open: nothing has moved for too long.
    pub(super) fn abandon_connects(&mut self) {
        for index in 0..self.connections.len() {
            let stage = self.connections[index].stage;
            if stage == Stage::Waiting {
                self.in_flight += 1;
            }
            if !matches!(stage, Stage::Open | Stage::Away | Stage::Stalled | Stage::Over) {
                self.lose(index, "no answer");
            }
        }
        self.next = self.connections.len();
    }

    /// Forgets what has arrived so far.
    pub(super) fn count_anew(&mut self) {
        self.counts = Counts::new();
    }

    /// What each connection has had so far is what it should have.
    pub(super) fn level(&mut self) {
        self.connections.iter_mut().for_each(|connection| connection.received = 0);
        (self.wanted, self.behind) = (0, 0);
    }

    /// Counts anew, until each connection has `each` more; one that had too many before has too many now.
    pub(super) fn expect(&mut self, each: u64) {
        self.count_anew();
        self.wanted += each;
        let wanted = self.wanted;
        self.behind = self.open().filter(|connection| connection.received < wanted).count() as u32;
    }

    /// Whether each open connection has what was expected.
    pub(super) fn is_met(&self) -> bool {
        self.behind == 0
    }

    /// The least and the most that a connection has of the last `each` that were expected; negative where some of
    /// those before are missing, too.
    pub(super) fn extremes(&self, each: u64) -> (i64, i64) {
        let before = (self.wanted - each) as i64;
        let received = self.open().map(|connection| connection.received as i64 - before);
        received
            .fold(None, |found, one| match found {
                None => Some((one, one)),
                Some((lowest, highest)) => Some((one.min(lowest), one.max(highest))),
            })
            .unwrap_or_default()
    }

    /// How far those that watch matches are; all are level where nobody does.
    pub(super) fn standing(&self) -> Standing {
        let matches = self.subscriptions.len();
        let mut newest = vec![0; matches];
        let watching = || {
            let all = self.connections.iter().enumerate().filter(|(_, connection)| connection.stage == Stage::Open);
            all.filter_map(|(index, connection)| {
                let of = match_of(index as u32, self.settings.first, matches as u32);
                Some((of as usize, connection.inbound.newest()?))
            })
        };
        for (of, s) in watching() {
            newest[of] = s.max(newest[of]);
        }
        let behind = watching().filter(|&(of, s)| s < newest[of]).count() as u32;
        Standing { newest: newest.iter().sum(), behind }
    }

    /// Reads from every `one_in`th open connection no more; gives how many those are.
    pub(super) fn stall(&mut self, one_in: u32) -> Result<u32, LoadError> {
        let mut stalled = 0;
        for connection in self.connections.iter_mut().step_by(one_in as usize) {
            if let (Stage::Open, Some(socket)) = (connection.stage, &connection.socket) {
                self.epoll.remove(socket.as_raw_fd()).map_err(LoadError::system("epoll_ctl"))?;
                connection.stage = Stage::Stalled;
                stalled += 1;
            }
        }
        Ok(stalled)
    }

    fn open(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().filter(|connection| connection.stage == Stage::Open)
    }

    /// Has every open connection make the invocation in `frame`, again as soon as it is answered, `calls` times in all.
    pub(super) fn begin_calls(&mut self, frame: Vec<u8>, calls: u64) {
        self.calls = Calls { frame, left: calls, open: 0, failed: 0 };
        for index in 0..self.connections.len() {
            self.call(index);
        }
    }

    /// Whether no call is under way.
    pub(super) fn are_calls_over(&self) -> bool {
        self.calls.open == 0
    }

    /// Calls that were not made, for want of a connection.
    pub(super) fn calls_left(&self) -> u64 {
        self.calls.left
    }

    /// Gives up the calls that are under way: the answer to one of them would end another.
    pub(super) fn abandon_calls(&mut self) {
        for index in 0..self.connections.len() {
            if self.connections[index].is_calling {
                self.lose(index, "no completion");
            }
        }
    }

    fn call(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let (Stage::Open, Some(socket)) = (connection.stage, &connection.socket) else { return };
        if self.calls.left == 0 || connection.is_calling {
            return;
        }
        let sent = send_whole(socket.as_raw_fd(), &self.calls.frame);
        self.calls.left -= 1;
        self.calls.open += 1;
        connection.is_calling = true;
        if let Err(why) = sent {
            self.lose(index, &why);
        }
    }

    /// Pings with one connection, whichever has this number, over and over in their order.
    pub(super) fn ping(&mut self, number: u64) {
        let index = (number % self.connections.len() as u64) as usize;
        let connection = &self.connections[index];
        let (Stage::Open, Some(socket)) = (connection.stage, &connection.socket) else { return };
        if let Err(why) = send_whole(socket.as_raw_fd(), &self.ping) {
            self.lose(index, &why);
        }
    }

    /// Handles one event of a connection.
    #[inline]
    pub(super) fn handle(&mut self, event: Event) {
        let index = event.token() as usize;
        let Some(connection) = self.connections.get(index) else { return };
        let Some(descriptor) = connection.socket.as_ref().map(AsRawFd::as_raw_fd) else { return };
        let outcome = if !connection.request.is_empty() {
            sys::connect_outcome(descriptor)
                .map_err(text_of)
                .and_then(|()| self.send_request(index, descriptor).map(drop))
        } else if !event.has(sys::IN | sys::ENDED) {
            Ok(())
        } else {
            match connection.stage {
                Stage::Negotiating | Stage::Upgrading => self.read_answer(index, descriptor),
                Stage::ShakingHands | Stage::Subscribing | Stage::Open => {
                    self.read_frames(index, descriptor, event.has(sys::ENDED))
                }
                Stage::Waiting | Stage::Away | Stage::Stalled | Stage::Over => Ok(()),
            }
        };
        if let Err(why) = outcome {
            self.lose(index, &why);
        }
    }

    /// Opens a socket that sends `request` first. On loopback it is nearly always connected at once.
    fn connect(&mut self, index: usize, stage: Stage, request: Vec<u8>) -> Result<(), String> {
        let (sources, network) = (self.settings.sources, self.settings.network);
        let source = sources.map(|sources| source_of(index as u32, sources, network));
        let (socket, _) = sys::connect(source, self.settings.address).map_err(text_of)?;
        let descriptor = socket.as_raw_fd();
        let connection = &mut self.connections[index];
        connection.socket = Some(socket);
        connection.stage = stage;
        connection.request = request;
        let flags = sys::IN | sys::HALF_ENDED | sys::EDGE;
        let awaited = if self.send_request(index, descriptor)? { flags } else { flags | sys::OUT };
        self.epoll.add(descriptor, index as u64, awaited).map_err(text_of)
    }

    /// Gives whether the request is out; it is not where the socket is not connected yet.
    fn send_request(&mut self, index: usize, descriptor: RawFd) -> Result<bool, String> {
        let request = &mut self.connections[index].request;
        match sys::send(descriptor, request) {
            Ok(sent) if sent == request.len() => {
                *request = Vec::new();
                Ok(true)
            }
            Ok(sent) => Err(format!("{sent} of the {} bytes of the request were taken", request.len())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(text_of(error)),
        }
    }

    /// Reads the answer to a request, and goes on from it.
    fn read_answer(&mut self, index: usize, descriptor: RawFd) -> Result<(), String> {
        loop {
            let count = match sys::receive(descriptor, &mut self.buffer) {
                Ok(0) => return Err("the server closed".to_owned()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(text_of(error)),
            };
            self.progress.bytes += count as u64;
            let connection = &mut self.connections[index];
            connection.answer.extend_from_slice(&self.buffer[..count]);
            if connection.stage == Stage::Negotiating {
                match negotiate::read_answer(&connection.answer) {
                    negotiate::NegotiateResponse::Part => {}
                    negotiate::NegotiateResponse::Refused(why) => return Err(why),
                    negotiate::NegotiateResponse::Token(token) => return self.begin_upgrade(index, &token),
                }
            } else {
                match connect::read_answer(&connection.answer) {
                    connect::UpgradeResponse::Part => {}
                    connect::UpgradeResponse::Refused(why) => return Err(why),
                    connect::UpgradeResponse::Granted { head_bytes } => {
                        return self.begin_frames(index, descriptor, head_bytes);
                    }
                }
            }
        }
    }

    /// Leaves the connection that negotiated, and opens another.
    fn begin_upgrade(&mut self, index: usize, token: &str) -> Result<(), String> {
        self.connections[index].socket = None;
        self.connections[index].answer = Vec::new();
        let target = format!("{}?id={token}", self.settings.path);
        let request = upgrade_request(&target, &self.settings.host);
        self.connect(index, Stage::Upgrading, request.into_bytes())
    }

    fn begin_frames(&mut self, index: usize, descriptor: RawFd, head_bytes: usize) -> Result<(), String> {
        let connection = &mut self.connections[index];
        let answer = mem::take(&mut connection.answer);
        connection.stage = Stage::ShakingHands;
        if self.settings.protocol == Protocol::Raw {
            self.welcome(index);
        } else {
            send_whole(descriptor, &self.handshake)?;
        }
        // Frames may have come with the answer; the edge that announced them is past.
        let seen = self.connections[index].inbound.take(&self.reader, &answer[head_bytes..]);
        self.apply(index, descriptor, seen)?;
        self.read_frames(index, descriptor, false)
    }

    /// Reads what a connection has. `is_ending` reads on until the end is found; otherwise a read that does not fill
    /// its room has found all there is, and the next byte makes an event of its own.
    fn read_frames(&mut self, index: usize, descriptor: RawFd, is_ending: bool) -> Result<(), String> {
        loop {
            let count = match sys::receive(descriptor, &mut self.buffer) {
                Ok(0) => return Err("the server left without a close frame".to_owned()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(text_of(error)),
            };
            self.progress.bytes += count as u64;
            let seen = self.connections[index].inbound.take(&self.reader, &self.buffer[..count]);
            self.apply(index, descriptor, seen)?;
            if count < self.buffer.len() && !is_ending {
                return Ok(());
            }
        }
    }

    /// Does what follows from what a connection received.
    #[inline]
    fn apply(&mut self, index: usize, descriptor: RawFd, seen: Seen) -> Result<(), String> {
        if seen.counted > 0 || seen.completed > 0 {
            self.moved_ns = sys::monotonic_ns();
        }
        let opened_wall_ns = self.connections[index].opened_wall_ns;
        self.counts.add(&seen, opened_wall_ns);
        self.progress.add(&seen, opened_wall_ns);
        self.faults += seen.faults;
        if self.connections[index].stage == Stage::ShakingHands && self.connections[index].inbound.is_shaken {
            self.subscribe(index, descriptor)?;
        }
        let connection = &mut self.connections[index];
        let before = connection.received;
        connection.received += seen.counted;
        if connection.stage == Stage::Open && before < self.wanted && connection.received >= self.wanted {
            self.behind -= 1;
        }
        if !seen.answers.is_empty() {
            send_whole(descriptor, &seen.answers)?;
        }
        if let Some(why) = seen.end {
            return Err(why);
        }
        if seen.completed > 0 {
            self.complete(index, &seen)?;
        }
        Ok(())
    }

    /// Has a connection that has shaken hands watch its match, if there are any.
    fn subscribe(&mut self, index: usize, descriptor: RawFd) -> Result<(), String> {
        if self.subscriptions.is_empty() {
            self.welcome(index);
            return Ok(());
        }
        self.connections[index].stage = Stage::Subscribing;
        let of = match_of(index as u32, self.settings.first, self.subscriptions.len() as u32);
        send_whole(descriptor, &self.subscriptions[of as usize])
    }

    fn complete(&mut self, index: usize, seen: &Seen) -> Result<(), String> {
        if self.connections[index].stage == Stage::Subscribing {
            if (seen.completed, seen.errors) != (1, 0) {
                return Err(format!("{} completions, {} of them errors", seen.completed, seen.errors));
            }
            self.welcome(index);
            return Ok(());
        }
        let connection = &mut self.connections[index];
        if seen.completed != u32::from(connection.is_calling) {
            return Err(format!("{} completions for {} invocations", seen.completed, u32::from(connection.is_calling)));
        }
        connection.is_calling = false;
        self.calls.open -= 1;
        self.calls.failed += u64::from(seen.errors);
        self.call(index);
        Ok(())
    }

    /// A connection is open.
    fn welcome(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        connection.stage = Stage::Open;
        connection.opened_wall_ns = sys::wall_ns();
        self.in_flight -= 1;
        self.opened += 1;
        self.opened_ns = sys::monotonic_ns();
        let passed_ns = self.opened_ns - connection.began_ns;
        if mem::replace(&mut connection.is_returning, true) {
            connection.received = self.wanted;
            self.returning.welcome(passed_ns);
        } else {
            self.logins.saturating_record(passed_ns);
        }
        self.moved_ns = self.opened_ns;
    }

    /// A connection is over, before it was open or after.
    #[cold]
    fn lose(&mut self, index: usize, why: &str) {
        let connection = &mut self.connections[index];
        let stage = mem::replace(&mut connection.stage, Stage::Over);
        connection.socket = None;
        connection.request = Vec::new();
        self.moved_ns = sys::monotonic_ns();
        let is_returning = connection.is_returning && self.settings.reconnects;
        if stage == Stage::Open {
            self.closed += 1;
            self.behind -= u32::from(connection.received < self.wanted);
            connection.began_ns = self.moved_ns;
        } else {
            self.in_flight -= 1;
            self.failed += u32::from(!is_returning);
        }
        if is_returning {
            connection.stage = Stage::Away;
            connection.answer = Vec::new();
            connection.inbound.leave(self.settings.protocol == Protocol::Raw);
            self.returning.lose(index, stage != Stage::Open, self.moved_ns);
        }
        if mem::take(&mut connection.is_calling) {
            self.calls.open -= 1;
            self.calls.failed += 1;
        }
        *self.failures.entry(format!("{}: {why}", stage.name())).or_default() += 1;
    }
}

/// What tells messages apart.
fn reader(settings: &Settings) -> Reader {
    let (first, more) = &settings.targets;
    Reader::new(settings.protocol, first.clone()).with_more(more.clone()).with_snapshots(SNAPSHOT.to_owned())
}

/// What the match of this number, from 0, is called.
fn name_of(number: u32) -> String {
    format!("m{}", number + 1)
}

/// Which match the client of this number watches.
fn match_of(index: u32, first: u32, matches: u32) -> u32 {
    (index + first % matches) % matches
}

/// The invocation that watches each match.
fn subscriptions(settings: &Settings) -> Vec<Vec<u8>> {
    let Some((method, matches)) = &settings.subscribe else { return Vec::new() };
    (0..*matches).map(|number| settings.protocol.invocation(method, &[name_of(number).into()])).collect()
}

/// Sends all or fails: what is sent here fits into any socket whose server reads.
fn send_whole(descriptor: RawFd, bytes: &[u8]) -> Result<(), String> {
    match sys::send(descriptor, bytes) {
        Ok(sent) if sent == bytes.len() => Ok(()),
        Ok(sent) => Err(format!("{sent} of {} bytes were taken", bytes.len())),
        Err(error) => Err(text_of(error)),
    }
}

fn text_of(error: io::Error) -> String {
    error.to_string()
}
