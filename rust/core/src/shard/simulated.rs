//! A kernel that is a program: sockets, readiness and answers of a shard in a test, all by chance and the same for the same
//! seed. What drives it, and says what is right, is `engine::simulation`.
//!
//! A simulated socket owns a descriptor of /dev/null, so that numbers are given out, owned and used again as they are by the
//! kernel.
mod net;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use net::Eye;
pub(crate) use net::{Luck, Meanwhile, Net, Took};

use super::io::{Interest, Io, Member, Ready, Short, VECTORS_MAX, Write};
use super::shared::ShardHandle;
use super::{BELL_TOKEN, Shard};
use crate::channel::Mode;
use crate::messages::{ConnectionId, Released};
use crate::position::Position;
use crate::protocol::signalr::negotiate::Transport;
use crate::session::{Adopted, SignalR};

/// Slots below this have a place in the registered descriptors of a poller that writes in batches.
const FILES_MAX: usize = 4;
/// Why a shard does not sleep on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awake {
    /// It does not sleep, or the kernel has something to tell.
    New,
    /// It has slept long enough.
    Time,
}

/// The kernel as one simulated shard uses it.
pub(crate) struct Simulated {
    shard: usize,
    net: Rc<RefCell<Net>>,
    handle: Arc<ShardHandle>,
    /// By slot, where it writes in batches.
    files: Option<Vec<RawFd>>,
    /// Until when it sleeps, if nothing wakes it.
    pub(crate) asleep_until_ns: Option<u64>,
}

impl Simulated {
    pub(crate) fn new(shard: usize, net: &Rc<RefCell<Net>>, handle: &Arc<ShardHandle>, is_batch: bool) -> Self {
        let files = is_batch.then(|| vec![-1; FILES_MAX]);
        Self { shard, net: Rc::clone(net), handle: Arc::clone(handle), files, asleep_until_ns: None }
    }

    /// Why it does not sleep on, if it does not.
    pub(crate) fn why_awake(&self) -> Option<Awake> {
        let net = self.net.borrow();
        let eyes = || net.sockets.values().map(|one| &one.eye).chain(net.duplicates.values().map(|one| &one.eye));
        let is_ready = |eye: &Eye| eye.shard == Some(self.shard) && eye.has_edge;
        match self.asleep_until_ns {
            None => Some(Awake::New),
            Some(until_ns) if until_ns <= net.clock.load(Ordering::Relaxed) => Some(Awake::Time),
            Some(_) => (eyes().any(is_ready) || self.handle.bell.is_rung()).then_some(Awake::New),
        }
    }

    /// The descriptor that a write of a batch goes to.
    fn file(&self, slot: u32, fd: RawFd) -> RawFd {
        match self.files.as_ref().and_then(|files| files.get(slot as usize)) {
            Some(&known) => {
                assert_eq!(known, fd, "the poller does not know the socket of slot {slot}");
                known
            }
            None => fd,
        }
    }

    /// Makes writes one after another, and reports those that came short: of a batch in an order of its own.
    fn write(&mut self, mut writes: Vec<(u32, RawFd, usize, Vec<&[u8]>)>, shorts: &mut Vec<Short>) {
        let mut net = self.net.borrow_mut();
        if self.files.is_some() {
            net.luck.shuffle(&mut writes);
        }
        for (slot, fd, bytes, pieces) in writes {
            let result = net.take(self.shard, self.file(slot, fd), &pieces, true);
            if result != bytes as isize {
                shorts.push(Short::from_result(slot, result));
            }
        }
    }
}

impl Io for Simulated {
    fn watch(&mut self, fd: RawFd, token: u64, interest: Interest) -> io::Result<()> {
        if interest != Interest::Level {
            let mut net = self.net.borrow_mut();
            let eye = net.eye(fd);
            assert!(eye.shard.is_none(), "it is watched already");
            (eye.shard, eye.token, eye.has_edge) = (Some(self.shard), token, true);
        }
        Ok(())
    }

    fn unwatch(&mut self, fd: RawFd) {
        self.net.borrow_mut().eye(fd).shard = None;
    }

    fn wait(&mut self, ready: &mut Vec<Ready>, timeout_ms: i32) {
        let mut net = self.net.borrow_mut();
        let net = &mut *net;
        for (fd, origin) in net.watched(self.shard) {
            // What is left is told of next time; now and then something that nobody asked for.
            let has_edge = net.eye(fd).has_edge;
            if !(has_edge && !net.luck.once_in(8) || net.luck.once_in(50)) {
                continue;
            }
            let eye = net.eye(fd);
            eye.has_edge = false;
            let token = eye.token;
            let socket = &net.sockets[&origin];
            let (is_ended, is_over) = (socket.is_half_closed, socket.is_reset || socket.is_shut);
            let is_readable = is_ended || !socket.inbound.is_empty();
            let is_writable = is_over || socket.room > 0;
            ready.push(Ready { token, is_readable, is_writable, is_ended, is_over });
        }
        net.luck.shuffle(ready);
        if self.handle.bell.is_rung() {
            ready.push(Ready {
                token: BELL_TOKEN,
                is_readable: true,
                is_writable: false,
                is_ended: false,
                is_over: false,
            });
        }
        let now_ns = net.clock.load(Ordering::Relaxed);
        let sleeps = ready.is_empty() && timeout_ms != 0;
        let until_ns = u64::try_from(timeout_ms).map_or(u64::MAX, |timeout_ms| now_ns + timeout_ms * 1_000_000);
        self.asleep_until_ns = sleeps.then_some(until_ns);
    }

    fn register(&mut self, slot: u32, fd: RawFd) {
        if let Some(file) = self.files.as_mut().and_then(|files| files.get_mut(slot as usize)) {
            *file = fd;
        }
    }

    fn unregister(&mut self, slot: u32) {
        self.register(slot, -1);
    }

    fn send_all(&mut self, members: &[Member], bytes: &[u8], shorts: &mut Vec<Short>) {
        let write = |member: &Member| (member.slot, member.fd, bytes.len(), vec![bytes]);
        self.write(members.iter().map(write).collect(), shorts);
    }

    fn write_batch(&mut self, writes: &[Write], vectors: &[&[u8]], shorts: &mut Vec<Short>) {
        let write = |write: &Write| {
            let own = vectors[write.vectors_start as usize..][..write.vectors_count as usize].to_vec();
            assert_eq!(write.bytes, own.iter().map(|vector| vector.len()).sum::<usize>());
            assert!(own.len() <= VECTORS_MAX);
            (write.slot, write.fd, write.bytes, own)
        };
        self.write(writes.iter().map(write).collect(), shorts);
    }

    fn send(&mut self, fd: RawFd, bytes: &[u8]) -> isize {
        self.send_vectors(fd, &[bytes])
    }

    fn send_vectors(&mut self, fd: RawFd, pieces: &[&[u8]]) -> isize {
        let pieces = &pieces[..pieces.len().min(VECTORS_MAX)];
        self.net.borrow_mut().take(self.shard, fd, pieces, false)
    }

    fn receive(&mut self, fd: RawFd, room: &mut [u8]) -> isize {
        let mut net = self.net.borrow_mut();
        net.drift();
        assert!(!net.duplicates.contains_key(&fd), "what comes is for who has the socket");
        let socket = net.own(self.shard, fd);
        let count = socket.inbound.len().min(room.len());
        if count == 0 && socket.is_reset {
            socket.is_broken = true;
            return -(libc::ECONNRESET as isize);
        }
        room[..count].copy_from_slice(&socket.inbound[..count]);
        socket.inbound.drain(..count);
        match count {
            0 if !socket.is_half_closed => -(libc::EAGAIN as isize),
            count => count as isize,
        }
    }

    fn accept(&mut self, _listener: RawFd) -> io::Result<OwnedFd> {
        Err(io::Error::from_raw_os_error(libc::EAGAIN)) // sockets come by `Command::HandOver`
    }

    fn shut_down(&mut self, fd: RawFd) {
        let mut net = self.net.borrow_mut();
        let (origin, is_duplicate) = (net.origin(fd), net.duplicates.contains_key(&fd));
        let socket = net.sockets.get_mut(&origin).expect("a socket");
        let was_shut = std::mem::replace(&mut socket.is_shut, true);
        assert!(!was_shut || is_duplicate, "it was ended twice");
        net.tell(origin);
    }

    fn shut_down_writing(&mut self, fd: RawFd) {
        self.net.borrow_mut().own(self.shard, fd).is_shut_for_writing = true;
    }

    fn peer_address(&self, _fd: RawFd) -> Option<SocketAddr> {
        None
    }

    fn set_receive_low_watermark(&mut self, _fd: RawFd, _bytes: usize) -> bool {
        false
    }
}

/// What a test sees of a connection.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) id: ConnectionId,
    pub(crate) fd: Option<RawFd>,
    /// Code and reason of its end, once that is known.
    pub(crate) ending: Option<(u16, String)>,
    pub(crate) subscriptions: Vec<SeenSubscription>,
    /// Of one that is adopted: why it is about to be given up.
    pub(crate) leaving: Option<Released>,
    /// The rest of what it was given at once goes before everything else.
    pub(crate) is_cut: bool,
}

/// Where one of its subscriptions is.
#[derive(Debug)]
pub(crate) struct SeenSubscription {
    pub(crate) channel: String,
    /// How it lags, if it does.
    pub(crate) mode: Option<Mode>,
    /// The number of the publication before its cursor, where the log knows it.
    pub(crate) before: Option<u64>,
    /// The same of those at the tail.
    pub(crate) before_tail: u64,
    /// The same of the log's head.
    pub(crate) before_head: u64,
}

/// Where a subscription has begun: whose, of which channel, and whether it was recovered.
type Seated = (ConnectionId, String, Position, Option<bool>);

thread_local! {
    /// Those of adopted connections, which are not told.
    static SEATS: RefCell<Vec<Seated>> = const { RefCell::new(Vec::new()) };
}

/// A shard has found where one begins.
pub(super) fn note_seat(seated: Seated) {
    SEATS.with_borrow_mut(|seats| seats.push(seated));
}

impl Shard<Simulated> {
    /// One for a test, which calls [`wait`](Self::wait) and [`turn`](Self::turn) in turn.
    pub(crate) fn simulated(io: Simulated, index: usize, common: Arc<super::Common>) -> Self {
        let handle = Arc::clone(&io.handle);
        Self::over(io, index, common, handle).expect("nothing fails")
    }

    pub(crate) fn io_mut(&mut self) -> &mut Simulated {
        &mut self.io
    }

    /// All connections, in order of their slots; what lists and counts say of each other is checked.
    pub(crate) fn look(&mut self) -> Vec<Seen> {
        let mut all = Vec::new();
        for slot in self.slab.in_use() {
            let id = self.id_of(slot);
            let connection = self.slab.at(slot);
            let ending = connection.ending.as_ref().map(|ending| (ending.code, ending.reason.clone()));
            let leaving = connection.session.adopted().and_then(Adopted::leaving).cloned();
            let fd = connection.transport.socket();
            let subscriptions = connection.subscriptions.clone();
            let look = |one: &super::connection::Subscription| {
                let feed = self.feeds.get(one.feed).expect("a subscription names it");
                let cursor = if one.is_lagging() { one.cursor } else { feed.cursor };
                let before_tail = feed.channel.offset_at(feed.log, feed.cursor);
                SeenSubscription {
                    channel: feed.channel.name().to_owned(),
                    mode: one.is_lagging().then(|| one.mode()),
                    before: feed.channel.offset_at(feed.log, cursor),
                    before_tail: before_tail.expect("what a shard has not fanned out is never trimmed"),
                    before_head: feed.channel.offset_before_head(feed.log),
                }
            };
            let subscriptions = subscriptions.iter().map(look).collect();
            all.push(Seen { id, fd, ending, subscriptions, leaving, is_cut: connection.transport.cut.is_some() });
        }
        self.check();
        all
    }

    /// Where subscriptions of adopted connections have begun, who are not told: by channel, and whether it was recovered.
    pub(crate) fn take_seats() -> Vec<Seated> {
        SEATS.take()
    }

    /// Nothing is left of anybody.
    pub(crate) fn check_empty(&self) {
        assert_eq!((self.slab.count(), self.feeds.count(), self.feeds.sharing, self.one_by_one), (0, 0, 0, 0));
        assert!(self.later.is_empty() && self.again.is_empty() && self.stalled.is_empty() && self.tracked.is_empty());
    }

    /// What is known from both ends is the same from both.
    fn check(&mut self) {
        let (mut sharing, mut alone, mut blocked) = (0, 0, 0);
        for slot in self.slab.in_use() {
            let connection = self.slab.at(slot);
            sharing += usize::from(connection.subscriptions.len() > 1);
            let is_carried = |one: &SignalR| one.transport == Transport::LongPolling || one.stateful.is_some();
            let is_alone = connection.event_ids.is_some() || connection.session.signalr().is_some_and(is_carried);
            alone += usize::from(is_alone);
            let has_socket = connection.transport.socket().is_some();
            blocked += u64::from(connection.transport.is_blocked && has_socket);
            let (is_blocked, fd) = (connection.transport.is_blocked, connection.transport.member_fd());
            for (index, one) in connection.subscriptions.clone().iter().enumerate() {
                let feed = self.feeds.get(one.feed).expect("a subscription names it");
                let list = if one.is_lagging() { &feed.lagging } else { &feed.at_tail };
                let member = list[one.index()];
                assert_eq!((member.slot, member.subscription as usize), (slot, index));
                // Whoever is written to alone is found by its slot: its sockets come and go.
                assert!(is_alone || member.fd == fd, "the list has {}, the connection {fd}", member.fd);
                assert!(one.is_lagging() || !is_blocked, "one whose socket is full is at the tail");
                assert!(!one.is_lagging() || one.cursor >= feed.oldest_lag, "the log may let go of what it needs");
                assert!(!one.is_lagging() || one.cursor <= feed.cursor, "one that lags is ahead");
            }
        }
        assert_eq!((sharing, alone, blocked), (self.feeds.sharing, self.one_by_one, self.stats.lagging.get()));
        self.feeds.check();
    }
}
