//! The sockets of the simulated kernel, and who has a descriptor of them.
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

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

    pub(super) fn shuffle<T>(&mut self, all: &mut [T]) {
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

/// A shard's eye on a descriptor.
#[derive(Debug, Default)]
pub(super) struct Eye {
    /// Whose it is, once that one watches it.
    pub(super) shard: Option<usize>,
    pub(super) token: u64,
    /// The socket was full when it was written to, so the shard is to hear of room.
    is_refused: bool,
    /// There is something to hear of.
    pub(super) has_edge: bool,
}

/// A descriptor of a socket that somebody else has, too.
#[derive(Debug)]
pub(super) struct Duplicate {
    /// The number by which that one has it.
    of: RawFd,
    pub(super) eye: Eye,
}

/// One end of a connection: the shard's, and what is known of the other.
#[derive(Debug)]
pub(crate) struct Socket {
    /// In order of their making: descriptors' numbers are not the same from run to run.
    pub(crate) serial: usize,
    pub(super) eye: Eye,
    /// What the peer has sent and nobody has read.
    pub(crate) inbound: Vec<u8>,
    /// The peer sends no more.
    pub(crate) is_half_closed: bool,
    /// The peer is gone, or the network.
    pub(crate) is_reset: bool,
    /// The shard was told that it broke.
    pub(super) is_broken: bool,
    /// The shard has ended its half.
    pub(crate) is_shut_for_writing: bool,
    /// The shard has ended it.
    pub(crate) is_shut: bool,
    /// Bytes that it takes yet.
    pub(super) room: usize,
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
    /// By their numbers; those that are given up keep theirs until it is used again.
    pub(super) duplicates: BTreeMap<RawFd, Duplicate>,
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
            duplicates: BTreeMap::new(),
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
        let fd = self.number();
        self.serials += 1;
        let socket = Socket {
            serial: self.serials,
            eye: Eye { has_edge: true, ..Eye::default() },
            inbound: Vec::new(),
            is_half_closed: false,
            is_reset: false,
            is_broken: false,
            is_shut_for_writing: false,
            is_shut: false,
            room,
            taken: Vec::new(),
            took: Vec::new(),
            came_short: false,
        };
        self.sockets.insert(fd.as_raw_fd(), socket);
        fd
    }

    /// Another descriptor of a socket that somebody has and keeps.
    pub(crate) fn duplicate(&mut self, of: RawFd) -> OwnedFd {
        let fd = self.number();
        let eye = Eye { has_edge: true, ..Eye::default() };
        self.duplicates.insert(fd.as_raw_fd(), Duplicate { of, eye });
        fd
    }

    /// A number, which may have been another's before.
    fn number(&mut self) -> OwnedFd {
        let fd = self.null.try_clone().expect("a descriptor");
        if let Some(before) = self.duplicates.remove(&fd.as_raw_fd()) {
            assert!(before.eye.shard.is_none(), "a duplicate was closed, which ends no watch");
        } else if let Some(before) = self.sockets.get(&fd.as_raw_fd()) {
            assert!(before.is_shut, "a descriptor was closed and its stream was not ended");
        }
        fd
    }

    /// Whoever has a socket that was adopted closes it, behind all duplicates of it.
    pub(crate) fn close(&mut self, fd: OwnedFd) {
        let number = fd.as_raw_fd();
        let is_held = |duplicate: &Duplicate| duplicate.of == number && duplicate.eye.shard.is_some();
        assert!(!self.duplicates.values().any(is_held), "a duplicate of it is watched yet");
        self.sockets.get_mut(&number).expect("it was connected").is_shut = true;
    }

    /// The number by which somebody has a socket, who may have given out this one.
    pub(super) fn origin(&self, fd: RawFd) -> RawFd {
        self.duplicates.get(&fd).map_or(fd, |duplicate| duplicate.of)
    }

    pub(super) fn eye(&mut self, fd: RawFd) -> &mut Eye {
        match self.duplicates.get_mut(&fd) {
            Some(duplicate) => &mut duplicate.eye,
            None => &mut self.sockets.get_mut(&fd).expect("a call on a number that no socket has").eye,
        }
    }

    /// Whoever watches this socket is to hear of something.
    pub(super) fn tell(&mut self, fd: RawFd) {
        self.eye(fd).has_edge = true;
        self.duplicates.values_mut().filter(|one| one.of == fd).for_each(|one| one.eye.has_edge = true);
    }

    /// All eyes of a shard, with their sockets, in an order of their own.
    pub(super) fn watched(&mut self, shard: usize) -> Vec<(RawFd, RawFd)> {
        let own = self.sockets.iter().filter(|one| one.1.eye.shard == Some(shard)).map(|one| (*one.0, *one.0));
        let duplicates = self.duplicates.iter().filter(|one| one.1.eye.shard == Some(shard));
        let mut all: Vec<_> = own.chain(duplicates.map(|one| (*one.0, one.1.of))).collect();
        all.sort_unstable_by_key(|one| (self.sockets[&one.1].serial, one.0));
        all
    }

    /// The peer sends.
    pub(crate) fn arrive(&mut self, fd: RawFd, bytes: &[u8]) {
        let socket = self.sockets.get_mut(&fd).expect("it was connected");
        socket.inbound.extend_from_slice(bytes);
        self.tell(fd);
    }

    /// The peer's half ends, or all of it breaks.
    pub(crate) fn end(&mut self, fd: RawFd, is_reset: bool) {
        let socket = self.sockets.get_mut(&fd).expect("it was connected");
        socket.is_half_closed = true;
        socket.is_reset |= is_reset;
        self.tell(fd);
    }

    /// The peer reads: there is room for so many bytes more.
    pub(crate) fn make_room(&mut self, fd: RawFd, bytes: usize) {
        let socket = self.sockets.get_mut(&fd).expect("it was connected");
        socket.room = socket.room.saturating_add(bytes);
        let duplicates = self.duplicates.values_mut().filter(|one| one.of == fd).map(|one| &mut one.eye);
        for eye in duplicates.chain([&mut socket.eye]) {
            eye.has_edge |= std::mem::take(&mut eye.is_refused);
        }
    }

    /// The peer has not read for long: there is room for so many bytes.
    pub(crate) fn set_room(&mut self, fd: RawFd, bytes: usize) {
        self.sockets.get_mut(&fd).expect("it was connected").room = bytes;
    }

    pub(super) fn drift(&mut self) {
        let more = if self.drifts { self.luck.below(120_000) as u64 } else { 0 };
        if self.drift_ns + more < DRIFT_NS_MAX {
            self.drift_ns += more;
            self.clock.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// A shard's own end of a connection, which it may still use.
    pub(super) fn own(&mut self, shard: usize, fd: RawFd) -> &mut Socket {
        assert_eq!(self.eye(fd).shard, Some(shard), "a call on another shard's socket");
        let origin = self.origin(fd);
        let socket = self.sockets.get_mut(&origin).expect("a call on a number that no socket has");
        assert!(!socket.is_shut, "a call on a socket that has ended");
        assert!(!socket.is_broken, "a call on a socket that broke");
        socket
    }

    pub(super) fn take(&mut self, shard: usize, fd: RawFd, pieces: &[&[u8]], is_fan_out: bool) -> isize {
        self.drift();
        let published = self.meanwhile.published();
        if self.is_busy && self.luck.once_in(3) {
            let meanwhile = Rc::clone(&self.meanwhile);
            meanwhile.publish(&mut self.luck);
        }
        let breaks = self.breaks_once_in > 0 && self.luck.once_in(self.breaks_once_in);
        let (is_partial, part) = (!self.is_exact && self.luck.once_in(6), self.luck.next() as usize);
        let all: usize = pieces.iter().map(|piece| piece.len()).sum();
        if self.duplicates.contains_key(&fd) && self.sockets[&self.origin(fd)].is_shut {
            return -(libc::EPIPE as isize); // who has it by another number has shut it down
        }
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
            let has_room = socket.room > 0;
            let eye = self.eye(fd);
            (eye.is_refused, eye.has_edge) = (true, eye.has_edge | has_room);
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
