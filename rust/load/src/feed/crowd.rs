//! All connections: opens them, reads them, has some leave and others come. Never waits.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::agreement::Agreement;
use super::args::Settings;
use super::counts::Counts;
use super::stream::{self, Checker, Walk};
use crate::connect::{UpgradeResponse, read_answer, upgrade_request};
use crate::error::LoadError;
use crate::sys::{self, Epoll, Event};

/// Bytes that one read may bring, with what was kept before it; as much as the longest frame.
const READ_BYTES: usize = 17 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Connecting,
    Upgrading,
    Open,
    Over,
}

/// One connection.
#[derive(Debug)]
struct Connection {
    socket: Option<OwnedFd>,
    stage: Stage,
    /// It was opened after counting began.
    is_newcomer: bool,
    /// Messages since counting began.
    received: u32,
    /// The beginning of a frame, or of the answer to the upgrade, whose rest was not there yet.
    kept: Vec<u8>,
    /// Looks at what comes, where somebody does.
    checker: Option<Checker>,
}

/// The connections.
pub(super) struct Crowd {
    pub(super) settings: Settings,
    pub(super) epoll: Epoll,
    pub(super) counts: Counts,
    connections: Vec<Connection>,
    /// Those still to be opened, in this order.
    waiting: VecDeque<usize>,
    /// The one that leaves next.
    leaves_next: usize,
    buffer: Vec<u8>,
    request: String,
    in_flight: u32,
    pub(super) opened: u32,
    pub(super) failed: u32,
    /// How many have agreed on compression.
    pub(super) agreed: u32,
    /// Why connections failed, and how many.
    pub(super) failures: BTreeMap<String, u32>,
    /// When something last came or opened.
    pub(super) progress_ns: u64,
}

impl Crowd {
    /// Opens nothing yet.
    pub(super) fn new(settings: Settings) -> Result<Self, LoadError> {
        let mut request = upgrade_request(&settings.path, &settings.host);
        if let Some(offer) = &settings.offer {
            request.truncate(request.len() - 2);
            request.push_str(&format!("Sec-WebSocket-Extensions: {offer}\r\n\r\n"));
        }
        let connection = || Connection {
            socket: None,
            stage: Stage::Waiting,
            is_newcomer: false,
            received: 0,
            kept: Vec::new(),
            checker: None,
        };
        Ok(Self {
            epoll: Epoll::new().map_err(LoadError::system("epoll_create1"))?,
            counts: Counts::default(),
            connections: (0..settings.connections).map(|_| connection()).collect(),
            waiting: (0..settings.connections as usize).collect(),
            leaves_next: 0,
            buffer: vec![0; READ_BYTES],
            request,
            in_flight: 0,
            opened: 0,
            failed: 0,
            agreed: 0,
            failures: BTreeMap::new(),
            progress_ns: sys::monotonic_ns(),
            settings,
        })
    }

    /// Whether each is open, or has failed.
    pub(super) fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.in_flight == 0
    }

    /// Counts from zero; who is there is no newcomer.
    pub(super) fn begin(&mut self) {
        self.counts = Counts::default();
        for connection in &mut self.connections {
            (connection.is_newcomer, connection.received) = (false, 0);
        }
    }

    /// The fewest and the most messages on one connection that has been open all the while.
    pub(super) fn extremes(&self) -> (u32, u32) {
        let settled = self.connections.iter().filter(|one| one.stage == Stage::Open && !one.is_newcomer);
        let (lowest, highest) =
            settled.fold((u32::MAX, 0), |(low, high), one| (low.min(one.received), high.max(one.received)));
        (lowest.min(highest), highest)
    }

    /// The one that has been there longest leaves without a word, and somebody else comes.
    pub(super) fn replace_one(&mut self) {
        let index = self.leaves_next;
        self.leaves_next = (index + 1) % self.connections.len();
        let connection = &mut self.connections[index];
        if connection.stage != Stage::Open {
            return;
        }
        connection.socket = None;
        connection.kept.clear();
        (connection.stage, connection.is_newcomer, connection.received) = (Stage::Waiting, true, 0);
        self.counts.came += 1;
        self.opened -= 1;
        self.waiting.push_back(index);
    }

    /// Begins as many connects as may be in flight, and are still to be made.
    pub(super) fn begin_connects(&mut self) {
        while self.in_flight < self.settings.in_flight
            && let Some(index) = self.waiting.pop_front()
        {
            self.in_flight += 1;
            if let Err(error) = self.begin_connect(index) {
                self.fail(index, format!("connect: {error}"));
            }
        }
    }

    fn begin_connect(&mut self, index: usize) -> io::Result<()> {
        let (socket, is_connected) = sys::connect(None, self.settings.target)?;
        let descriptor = socket.as_raw_fd();
        self.connections[index].socket = Some(socket);
        self.connections[index].stage = Stage::Connecting;
        let flags = sys::IN | sys::HALF_ENDED;
        if is_connected {
            self.epoll.add(descriptor, index as u64, flags)?;
            return self.send_request(index, descriptor);
        }
        self.epoll.add(descriptor, index as u64, flags | sys::OUT)
    }

    fn send_request(&mut self, index: usize, descriptor: RawFd) -> io::Result<()> {
        let sent = sys::send(descriptor, self.request.as_bytes())?;
        if sent < self.request.len() {
            let why = format!("only {sent} of {} bytes of the request were taken", self.request.len());
            return Err(io::Error::new(io::ErrorKind::WriteZero, why));
        }
        self.connections[index].stage = Stage::Upgrading;
        Ok(())
    }

    /// Handles one event of a connection.
    pub(super) fn handle(&mut self, event: Event) {
        let index = event.token() as usize;
        let Some(connection) = self.connections.get(index) else { return };
        let Some(descriptor) = connection.socket.as_ref().map(AsRawFd::as_raw_fd) else { return };
        match connection.stage {
            Stage::Open | Stage::Upgrading => self.read(index, descriptor),
            Stage::Connecting if event.has(sys::OUT | sys::ENDED) => {
                let outcome = sys::connect_outcome(descriptor)
                    .and_then(|()| self.epoll.change(descriptor, index as u64, sys::IN | sys::HALF_ENDED))
                    .and_then(|()| self.send_request(index, descriptor));
                if let Err(error) = outcome {
                    self.fail(index, format!("connect: {error}"));
                }
            }
            Stage::Connecting | Stage::Waiting | Stage::Over => {}
        }
    }

    /// Reads once; what is left makes an event of its own.
    fn read(&mut self, index: usize, descriptor: RawFd) {
        let connection = &mut self.connections[index];
        let kept = connection.kept.len();
        self.buffer[..kept].copy_from_slice(&connection.kept);
        let count = match sys::receive(descriptor, &mut self.buffer[kept..]) {
            Ok(0) => return self.end(index),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return,
            Err(_) => return self.end(index),
        };
        self.progress_ns = sys::monotonic_ns();
        let mut bytes = &self.buffer[..kept + count];
        if connection.stage == Stage::Upgrading {
            match read_answer(bytes) {
                UpgradeResponse::Part => return connection.kept.extend_from_slice(&bytes[kept..]),
                UpgradeResponse::Refused(why) => return self.fail(index, format!("upgrade: {why}")),
                UpgradeResponse::Granted { head_bytes } => {
                    let agreement = Agreement::read(&bytes[..head_bytes]);
                    let is_checking = index < self.settings.inflating as usize;
                    connection.checker = is_checking.then(|| Checker::new(agreement, self.settings.has_envelopes));
                    connection.stage = Stage::Open;
                    self.agreed += u32::from(agreement.is_some());
                    self.in_flight -= 1;
                    self.opened += 1;
                    bytes = &bytes[head_bytes..];
                }
            }
        }
        let checker = connection.checker.as_mut();
        let walk = stream::walk(bytes, connection.is_newcomer, checker, &self.settings.script, &mut self.counts);
        connection.received += walk.messages;
        connection.kept.clear();
        connection.kept.extend_from_slice(&bytes[walk.bytes..]);
        self.answer(index, descriptor, &walk);
    }

    /// Sends what the server is owed.
    fn answer(&mut self, index: usize, descriptor: RawFd, walk: &Walk) {
        if walk.answers.is_empty() && !walk.ended {
            return;
        }
        let sent = sys::send(descriptor, &walk.answers);
        // A server that does not even take a pong, which is a few bytes every few seconds, is not read any more.
        if walk.ended || !matches!(sent, Ok(count) if count == walk.answers.len()) {
            self.end(index);
        }
    }

    /// The server has ended a connection.
    fn end(&mut self, index: usize) {
        if self.connections[index].stage != Stage::Open {
            return self.fail(index, "upgrade: the server closed".to_owned());
        }
        self.connections[index].stage = Stage::Over;
        self.connections[index].socket = None;
        self.counts.closed += 1;
    }

    /// A connection never opened.
    fn fail(&mut self, index: usize, why: String) {
        self.connections[index].stage = Stage::Over;
        self.connections[index].socket = None;
        self.in_flight -= 1;
        self.failed += 1;
        *self.failures.entry(why).or_default() += 1;
    }
}
