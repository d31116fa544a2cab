//! A kernel that is a program: sockets, readiness and answers of a shard in a test, all by chance and the same for the same
//! seed. What drives it, and says what is right, is `engine::simulation`.
//!
//! A simulated socket owns a descriptor of /dev/null, so that numbers are given out, owned and used again as they are by the
//! kernel.
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::io::{Interest, Io, Member, Ready, Short, VECTORS_MAX, Write};
use super::shared::ShardHandle;
use super::{BELL_TOKEN, Shard};
use crate::channel::Mode;
use crate::messages::ConnectionId;
use crate::protocol::signalr::negotiate::Transport;
use crate::session::SignalR;

/// Slots below this have a place in the registered descriptors of a poller that writes in batches.
const FILES_MAX: usize = 4;
/// Time passes within a turn, but never so much that a whole half of a millisecond is over: what is over at its begin is
/// what is over at its end.
const DRIFT_NS_MAX: u64 = 450_000;

/// Chance by a seed (splitmix64).
#[derive(Debug)]
pub(crate) struct Luck(pub(crate) u64);

impl Luck {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`, which is over 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Once in so many times.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn shuffle<T>(&mut self, all: &mut [T]) {
        for index in (1..all.len()).rev() {
            all.swap(index, self.below(index + 1));
        }
    }
}

/// Some bytes that a socket took in one call.
#[derive(Clone, Debug)]
pub(crate) struct Took {
    /// How many.
    pub(crate) bytes: usize,
    /// By the fast path: the bytes are what is new for everyone at the tail.
    pub(crate) is_fan_out: bool,
    /// There was more to take.
    pub(crate) is_short: bool,
    /// How many publications of each channel there were before the call.
    pub(crate) published: Rc<[usize]>,
}

/// One end of a connection: the shard's, and what is known of the other.
#[derive(Debug)]
pub(crate) struct Socket {
    /// In order of their making: descriptors' numbers are not the same from run to run.
    pub(crate) serial: usize,
    /// Whose it is, once that one watches it.
    shard: Option<usize>,
    token: u64,
    /// What the peer has sent and nobody has read.
    pub(crate) inbound: Vec<u8>,
    /// The peer sends no more.
    pub(crate) is_half_closed: bool,
    /// The peer is gone, or the network.
    pub(crate) is_reset: bool,
    /// The shard was told that it broke.
    is_broken: bool,
    /// The shard has ended its half.
    pub(crate) is_shut_for_writing: bool,
    /// The shard has ended it.
    pub(crate) is_shut: bool,
    /// Bytes that it takes yet.
    room: usize,
    /// It was full when it was written to, so the shard is to hear of room.
    is_refused: bool,
    /// There is something to hear of.
    has_edge: bool,
    /// What it took since somebody looked, and by which calls.
    pub(crate) taken: Vec<u8>,
    pub(crate) took: Vec<Took>,
    /// It did not take all that it was given, since somebody looked.
    pub(crate) came_short: bool,
}

/// What happens in the midst of a write, when other threads are about.
pub(crate) trait Meanwhile {
    /// Publications so far, by channel.
    fn published(&self) -> Rc<[usize]>;
    /// A socket is about to be written to.
    fn publish(&self, luck: &mut Luck);
}

/// All sockets, and the clock.
pub(crate) struct Net {
    pub(crate) luck: Luck,
    pub(crate) sockets: BTreeMap<RawFd, Socket>,
    pub(crate) clock: &'static AtomicU64,
    meanwhile: Rc<dyn Meanwhile>,
    serials: usize,
    /// How much the clock has moved in this turn, and whether it does.
    pub(crate) drift_ns: u64,
    pub(crate) drifts: bool,
    /// Whether others publish while a shard writes.
    pub(crate) is_busy: bool,
    /// One write in so many breaks its socket; 0 is none.
    pub(crate) breaks_once_in: usize,
    /// Sockets take all that there is room for.
    pub(crate) is_exact: bool,
    pub(crate) bytes_out: u64,
    null: OwnedFd,
}

impl Net {
    pub(crate) fn new(seed: u64, clock: &'static AtomicU64, meanwhile: Rc<dyn Meanwhile>) -> Self {
        Self {
            luck: Luck(seed),
            sockets: BTreeMap::new(),
            clock,
            meanwhile,
            serials: 0,
            drift_ns: 0,
            drifts: false,
            is_busy: false,
            breaks_once_in: 0,
            is_exact: false,
            bytes_out: 0,
            null: std::fs::File::open("/dev/null").expect("it is there").into(),
        }
    }

    /// A new connection; gives the shard's end, which is found by its number.
    pub(crate) fn connect(&mut self, room: usize) -> OwnedFd {
        let fd = self.null.try_clone().expect("a descriptor");
        self.serials += 1;
        let socket = Socket {
            serial: self.serials,
            shard: None,
            token: 0,
            inbound: Vec::new(),
            is_half_closed: false,
            is_reset: false,
            is_broken: false,
            is_shut_for_writing: false,
            is_shut: false,
            room,
            is_refused: false,
            has_edge: true,
            taken: Vec::new(),
            took: Vec::new(),
            came_short: false,
        };
        let before = self.sockets.insert(fd.as_raw_fd(), socket);
        assert!(before.is_none_or(|before| before.is_shut), "a descriptor was closed and its stream was not ended");
        fd
    }

    /// The peer sends.
    pub(crate) fn arrive(&mut self, fd: RawFd, bytes: &[u8]) {
        let socket = self.sockets.get_mut(&fd).expect("it was connected");
        socket.inbound.extend_from_slice(bytes);
        socket.has_edge = true;
    }

    /// The peer's half ends, or all of it breaks.
    pub(crate) fn end(&mut self, fd: RawFd, is_reset: bool) {
        let socket = self.sockets.get_mut(&fd).expect("it was connected");
        socket.is_half_closed = true;
        socket.is_reset |= is_reset;
        socket.has_edge = true;
    }

    /// The peer reads: there is room for so many bytes more.
    pub(crate) fn make_room(&mut self, fd: RawFd, bytes: usize) {
        let socket = self.sockets.get_mut(&fd).expect("it was connected");
        socket.room = socket.room.saturating_add(bytes);
        socket.has_edge |= std::mem::take(&mut socket.is_refused);
    }

    /// The peer has not read for long: there is room for so many bytes.
    pub(crate) fn set_room(&mut self, fd: RawFd, bytes: usize) {
        self.sockets.get_mut(&fd).expect("it was connected").room = bytes;
    }

    fn drift(&mut self) {
        let more = if self.drifts { self.luck.below(120_000) as u64 } else { 0 };
        if self.drift_ns + more < DRIFT_NS_MAX {
            self.drift_ns += more;
            self.clock.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// A shard's own end of a connection, which it may still use.
    fn own(&mut self, shard: usize, fd: RawFd) -> &mut Socket {
        let socket = self.sockets.get_mut(&fd).expect("a call on a number that no socket has");
        assert!(!socket.is_shut, "a call on a socket that has ended");
        assert!(!socket.is_broken, "a call on a socket that broke");
        assert_eq!(socket.shard, Some(shard), "a call on another shard's socket");
        socket
    }

    fn take(&mut self, shard: usize, fd: RawFd, pieces: &[&[u8]], is_fan_out: bool) -> isize {
        self.drift();
        let published = self.meanwhile.published();
        if self.is_busy && self.luck.once_in(3) {
            let meanwhile = Rc::clone(&self.meanwhile);
            meanwhile.publish(&mut self.luck);
        }
        let breaks = self.breaks_once_in > 0 && self.luck.once_in(self.breaks_once_in);
        let (is_partial, part) = (!self.is_exact && self.luck.once_in(6), self.luck.next() as usize);
        let all: usize = pieces.iter().map(|piece| piece.len()).sum();
        let socket = self.own(shard, fd);
        assert!(!socket.is_shut_for_writing, "written to behind its end");
        assert!(all > 0, "a call for nothing");
        socket.is_reset |= breaks;
        if socket.is_reset {
            socket.is_broken = true;
            return -(if part.is_multiple_of(2) { libc::EPIPE } else { libc::ECONNRESET } as isize);
        }
        let mut count = all.min(socket.room);
        if is_partial {
            count = part % (count + 1); // fewer than there is room for: the kernel may be short of memory
        }
        let is_short = count < all;
        socket.came_short |= is_short;
        socket.took.push(Took { bytes: count, is_fan_out, is_short, published });
        if count == 0 {
            socket.is_refused = true;
            socket.has_edge |= socket.room > 0;
            return -(libc::EAGAIN as isize);
        }
        socket.room -= count;
        let mut left = count;
        for piece in pieces {
            let now = left.min(piece.len());
            socket.taken.extend_from_slice(&piece[..now]);
            left -= now;
        }
        self.bytes_out += count as u64;
        count as isize
    }
}

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
        let is_ready = |socket: &Socket| socket.shard == Some(self.shard) && socket.has_edge;
        match self.asleep_until_ns {
            None => Some(Awake::New),
            Some(until_ns) if until_ns <= net.clock.load(Ordering::Relaxed) => Some(Awake::Time),
            Some(_) => (net.sockets.values().any(is_ready) || self.handle.bell.is_rung()).then_some(Awake::New),
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
            let socket = net.sockets.get_mut(&fd).expect("a socket");
            assert!(socket.shard.is_none(), "it is watched already");
            (socket.shard, socket.token, socket.has_edge) = (Some(self.shard), token, true);
        }
        Ok(())
    }

    fn unwatch(&mut self, fd: RawFd) {
        self.net.borrow_mut().sockets.get_mut(&fd).expect("a socket").shard = None;
    }

    fn wait(&mut self, ready: &mut Vec<Ready>, timeout_ms: i32) {
        let mut net = self.net.borrow_mut();
        let net = &mut *net;
        let (shard, luck) = (self.shard, &mut net.luck);
        let mut sockets: Vec<&mut Socket> = net.sockets.values_mut().collect();
        sockets.sort_unstable_by_key(|socket| socket.serial);
        for socket in sockets {
            // What is left is told of next time; now and then something that nobody asked for.
            if socket.shard != Some(shard) || !(socket.has_edge && !luck.once_in(8) || luck.once_in(50)) {
                continue;
            }
            socket.has_edge = false;
            let (is_ended, is_over) = (socket.is_half_closed, socket.is_reset);
            let is_readable = is_ended || !socket.inbound.is_empty();
            let is_writable = is_over || socket.room > 0;
            ready.push(Ready { token: socket.token, is_readable, is_writable, is_ended, is_over });
        }
        luck.shuffle(ready);
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
        let socket = net.sockets.get_mut(&fd).expect("a socket");
        assert!(!std::mem::replace(&mut socket.is_shut, true), "it was ended twice");
    }

    fn shut_down_writing(&mut self, fd: RawFd) {
        self.net.borrow_mut().own(self.shard, fd).is_shut_for_writing = true;
    }

    fn peer_address(&self, _fd: RawFd) -> Option<SocketAddr> {
        None
    }

    fn milliseconds_since_received(&self, _fd: RawFd) -> Option<u32> {
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
            let fd = connection.transport.socket();
            let subscriptions = connection.subscriptions.clone();
            let look = |one: &super::connection::Subscription| {
                let feed = self.feeds.get(one.feed).expect("a subscription names it");
                let cursor = if one.is_lagging() { one.cursor } else { feed.cursor };
                let before_tail = feed.channel.offset_at(feed.format, feed.cursor);
                SeenSubscription {
                    channel: feed.channel.name().to_owned(),
                    mode: one.is_lagging().then(|| one.mode()),
                    before: feed.channel.offset_at(feed.format, cursor),
                    before_tail: before_tail.expect("what a shard has not fanned out is never trimmed"),
                    before_head: feed.channel.offset_before_head(feed.format),
                }
            };
            let subscriptions = subscriptions.iter().map(look).collect();
            all.push(Seen { id, fd, ending, subscriptions });
        }
        self.check();
        all
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
