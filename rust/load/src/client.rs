//! All connections of one process: opens them, reads them, counts what they bring. Never waits.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::args::Settings;
use crate::check::{Batch, Tally, Watch};
use crate::connect::{UpgradeResponse, read_answer, write_request};
use crate::draw::{Draw, source_of};
use crate::error::LoadError;
use crate::receive::{self, Walk};
use crate::sys::{self, Epoll, Event};

/// Bytes that one read may bring, for all connections together: what the socket of one holds at most, nearly always.
const READ_BYTES: usize = 512 << 10;

/// What is kept for a connection beyond this is given back after use.
const KEPT_BYTES_MAX: usize = 4 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Connecting,
    Upgrading,
    Open,
    Over,
}

/// One connection. Its channels stand in [`Client::watches`].
struct Connection {
    socket: Option<OwnedFd>,
    stage: Stage,
    /// Messages since the last reset.
    received: u32,
    /// The beginning of a frame, or of the answer to the upgrade, whose rest was not there yet.
    kept: Vec<u8>,
}

const _: () = assert!(size_of::<Connection>() <= 40);

/// The connections of one process.
pub(crate) struct Client {
    pub(crate) settings: Settings,
    pub(crate) epoll: Epoll,
    pub(crate) tally: Tally,
    connections: Vec<Connection>,
    /// The channels of connection `n` are the `subscriptions` from `n * subscriptions` on.
    watches: Vec<Watch>,
    /// What reads write to; kept bytes are put in front of what is read after them.
    buffer: Vec<u8>,
    request: Vec<u8>,
    /// The next connection to open.
    next: usize,
    in_flight: u32,
    pub(crate) opened: u32,
    pub(crate) failed: u32,
    /// Why connections failed, and how many.
    pub(crate) failures: BTreeMap<String, u32>,
    /// First connect, last opening, and the last progress of either kind; 0 before.
    pub(crate) started_ns: u64,
    pub(crate) opened_ns: u64,
    pub(crate) progress_ns: u64,
}

impl Client {
    /// Draws the channels; opens nothing yet.
    pub(crate) fn new(settings: Settings) -> Result<Self, LoadError> {
        let draw = Draw::new(settings.channels, settings.zipf, settings.seed);
        let first = settings.child_first.unwrap_or(0);
        let mut channels = Vec::new();
        for connection in first..first + settings.connections {
            draw.channels_of(connection, settings.subscriptions as usize, &mut channels);
        }
        let mut tally = Tally::new(settings.channels, settings.child_first.is_some());
        tally.replies = settings.is_counting_replies.then_some(0);
        tally.has_envelopes = settings.has_envelopes;
        let connection = || Connection { socket: None, stage: Stage::Waiting, received: 0, kept: Vec::new() };
        Ok(Self {
            epoll: Epoll::new().map_err(LoadError::system("epoll_create1"))?,
            tally,
            connections: (0..settings.connections).map(|_| connection()).collect(),
            watches: channels.into_iter().map(Watch::new).collect(),
            buffer: vec![0; READ_BYTES],
            request: Vec::new(),
            next: 0,
            in_flight: 0,
            opened: 0,
            failed: 0,
            failures: BTreeMap::new(),
            started_ns: 0,
            opened_ns: 0,
            progress_ns: 0,
            settings,
        })
    }

    /// Whether all connections are open or failed.
    pub(crate) fn is_settled(&self) -> bool {
        self.opened + self.failed == self.settings.connections
    }

    /// Begins as many connects as may be in flight, and are still to be made.
    pub(crate) fn begin_connects(&mut self) {
        while self.in_flight < self.settings.in_flight && self.next < self.connections.len() {
            let index = self.next;
            self.next += 1;
            self.in_flight += 1;
            if let Err(error) = self.begin_connect(index) {
                self.fail(index, format!("connect: {error}"));
            }
        }
    }

    fn begin_connect(&mut self, index: usize) -> io::Result<()> {
        if self.started_ns == 0 {
            self.started_ns = sys::monotonic_ns();
            self.progress_ns = self.started_ns;
        }
        let number = self.settings.child_first.unwrap_or(0) + index as u32;
        let source = self.settings.sources.map(|sources| source_of(number, sources, 0));
        let (socket, is_connected) = sys::connect(source, self.settings.target)?;
        let descriptor = socket.as_raw_fd();
        self.connections[index].socket = Some(socket);
        self.connections[index].stage = Stage::Connecting;
        let flags = sys::IN | sys::HALF_ENDED | sys::EDGE;
        if is_connected {
            self.epoll.add(descriptor, index as u64, flags)?;
            return self.send_request(index, descriptor);
        }
        self.epoll.add(descriptor, index as u64, flags | sys::OUT)
    }

    /// Gives up all that is not open: nothing has moved for too long.
    pub(crate) fn abandon_connects(&mut self) {
        for index in 0..self.connections.len() {
            match self.connections[index].stage {
                Stage::Waiting => {
                    self.in_flight += 1;
                    self.fail(index, "not begun: the connects before it got no answer".to_owned());
                }
                Stage::Connecting => self.fail(index, "connect: no answer".to_owned()),
                Stage::Upgrading => self.fail(index, "upgrade: no answer".to_owned()),
                Stage::Open | Stage::Over => {}
            }
        }
        self.next = self.connections.len();
    }

    /// Counts from zero again; the next message of each channel fixes where its sequence starts.
    pub(crate) fn reset(&mut self) {
        self.tally.reset();
        self.connections.iter_mut().for_each(|connection| connection.received = 0);
        self.watches.iter_mut().for_each(Watch::reset);
    }

    /// The fewest and the most messages on one connection that was opened.
    pub(crate) fn extremes(&self) -> (u32, u32) {
        let opened = self.connections.iter().filter(|one| one.stage == Stage::Open || one.received > 0);
        let (lowest, highest) =
            opened.fold((u32::MAX, 0), |(low, high), one| (low.min(one.received), high.max(one.received)));
        (lowest.min(highest), highest)
    }

    /// How many open connections watch each channel that has any.
    pub(crate) fn subscribers(&self) -> BTreeMap<u32, u32> {
        (0..).zip(self.tally.completions.subscribers()).filter(|&(_, count)| count > 0).collect()
    }

    /// Handles one event of a connection.
    #[inline]
    pub(crate) fn handle(&mut self, event: Event) {
        let index = event.token() as usize;
        let Some(connection) = self.connections.get(index) else { return };
        let Some(descriptor) = connection.socket.as_ref().map(AsRawFd::as_raw_fd) else { return };
        match connection.stage {
            Stage::Open => self.read_frames(index, descriptor, event.has(sys::ENDED)),
            Stage::Connecting => self.finish_connect(index, descriptor, event),
            Stage::Upgrading => self.read_upgrade(index, descriptor),
            Stage::Waiting | Stage::Over => {}
        }
    }

    fn finish_connect(&mut self, index: usize, descriptor: RawFd, event: Event) {
        if !event.has(sys::OUT | sys::ENDED) {
            return;
        }
        let outcome = sys::connect_outcome(descriptor)
            .and_then(|()| self.epoll.change(descriptor, index as u64, sys::IN | sys::HALF_ENDED | sys::EDGE))
            .and_then(|()| self.send_request(index, descriptor));
        if let Err(error) = outcome {
            self.fail(index, format!("connect: {error}"));
        }
    }

    fn send_request(&mut self, index: usize, descriptor: RawFd) -> io::Result<()> {
        let each = self.settings.subscriptions as usize;
        let channels = self.watches[index * each..][..each].iter().map(|watch| watch.channel);
        write_request(&mut self.request, &self.settings, channels);
        let sent = sys::send(descriptor, &self.request)?;
        if sent < self.request.len() {
            let why = format!("only {sent} of {} bytes of the request were taken", self.request.len());
            return Err(io::Error::new(io::ErrorKind::WriteZero, why));
        }
        self.connections[index].stage = Stage::Upgrading;
        Ok(())
    }

    fn read_upgrade(&mut self, index: usize, descriptor: RawFd) {
        loop {
            let count = match sys::receive(descriptor, &mut self.buffer) {
                Ok(0) => return self.fail(index, "upgrade: the server closed".to_owned()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.fail(index, format!("upgrade: {error}")),
            };
            let kept = &mut self.connections[index].kept;
            kept.extend_from_slice(&self.buffer[..count]);
            match read_answer(kept) {
                UpgradeResponse::Part => {}
                UpgradeResponse::Refused(why) => return self.fail(index, format!("upgrade: {why}")),
                UpgradeResponse::Granted { head_bytes } => {
                    kept.drain(..head_bytes);
                    return self.open(index, descriptor);
                }
            }
        }
    }

    fn open(&mut self, index: usize, descriptor: RawFd) {
        self.connections[index].stage = Stage::Open;
        self.in_flight -= 1;
        self.opened += 1;
        self.opened_ns = sys::monotonic_ns();
        self.progress_ns = self.opened_ns;
        let each = self.settings.subscriptions as usize;
        for watch in &self.watches[index * each..][..each] {
            self.tally.completions.subscribe(watch.channel);
        }
        self.make_room(self.connections[index].kept.len());
        // Frames may have come with the answer; the edge that announced them is past.
        self.read_frames(index, descriptor, true);
    }

    /// Reads what a connection has. `is_ending` reads on until nothing is left or the end is found; otherwise a read
    /// that does not fill its room has found all there is, and the next byte makes an event of its own.
    fn read_frames(&mut self, index: usize, descriptor: RawFd, is_ending: bool) {
        let each = self.settings.subscriptions as usize;
        loop {
            let connection = &mut self.connections[index];
            let kept = connection.kept.len();
            self.buffer[..kept].copy_from_slice(&connection.kept);
            let count = match sys::receive(descriptor, &mut self.buffer[kept..]) {
                Ok(0) => return self.end(index),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && kept == 0 => return,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return self.end(index),
            };
            let now = sys::monotonic_ns();
            let bytes = &self.buffer[..kept + count];
            let mut batch = Batch::new(&mut self.tally, &mut self.watches[index * each..][..each], now);
            let walk = receive::walk(bytes, &mut batch);
            connection.received += batch.end();
            keep(&mut connection.kept, &bytes[walk.bytes..]);
            let was_filled = bytes.len() == self.buffer.len();
            self.make_room(walk.bytes_needed);
            if !self.answer(index, descriptor, &walk) || count == 0 || !(was_filled || is_ending) {
                return;
            }
        }
    }

    /// Makes the buffer long enough for a frame of `bytes` that a read cut off, and as much again.
    #[inline]
    fn make_room(&mut self, bytes: usize) {
        if bytes * 2 > self.buffer.len() {
            self.buffer.resize((bytes * 2).next_power_of_two(), 0);
        }
    }

    /// Sends what the server is owed; gives whether the connection goes on.
    #[inline]
    fn answer(&mut self, index: usize, descriptor: RawFd, walk: &Walk) -> bool {
        if walk.answers.is_empty() && !walk.ended {
            return true;
        }
        let sent = sys::send(descriptor, &walk.answers);
        // A server that does not even take a pong, which is a few bytes every few seconds, is not read any more.
        if walk.ended || !matches!(sent, Ok(count) if count == walk.answers.len()) {
            self.end(index);
            return false;
        }
        true
    }

    /// An open connection is over.
    #[cold]
    fn end(&mut self, index: usize) {
        self.connections[index].stage = Stage::Over;
        self.connections[index].socket = None;
        self.connections[index].kept = Vec::new();
        self.tally.closed += 1;
        let each = self.settings.subscriptions as usize;
        for watch in &self.watches[index * each..][..each] {
            self.tally.completions.unsubscribe(watch.channel);
        }
    }

    /// A connection never opened.
    fn fail(&mut self, index: usize, why: String) {
        self.connections[index].stage = Stage::Over;
        self.connections[index].socket = None;
        self.connections[index].kept = Vec::new();
        self.in_flight -= 1;
        self.failed += 1;
        self.progress_ns = sys::monotonic_ns();
        *self.failures.entry(why).or_default() += 1;
    }
}

/// Keeps `rest` for the next read, and no more memory than is worth keeping.
#[inline]
fn keep(kept: &mut Vec<u8>, rest: &[u8]) {
    kept.clear();
    if kept.capacity() > KEPT_BYTES_MAX && rest.len() <= KEPT_BYTES_MAX {
        *kept = Vec::new();
    }
    kept.extend_from_slice(rest);
}
