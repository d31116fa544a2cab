//! The calls of the operating system, each in the least wrapping that makes it safe. No policy, no protocol.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Readable.
pub(crate) const IN: u32 = libc::EPOLLIN as u32;
/// Writable.
pub(crate) const OUT: u32 = libc::EPOLLOUT as u32;
/// The other side has ended its half, or all is over.
pub(crate) const ENDED: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;
/// The other side has ended its half.
pub(crate) const HALF_ENDED: u32 = libc::EPOLLRDHUP as u32;
/// Report a change once, not a state for as long as it lasts.
pub(crate) const EDGE: u32 = libc::EPOLLET as u32;

/// The -1 of a system call as the error that it stands for.
fn checked(answer: libc::c_int) -> io::Result<libc::c_int> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    // SAFETY: a timespec of zeros is valid, and the call only writes to the one it is given.
    let time = unsafe {
        let mut time: libc::timespec = zeroed();
        libc::clock_gettime(clock, &raw mut time);
        time
    };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// `CLOCK_MONOTONIC` in nanoseconds, the clock of every payload.
#[inline]
pub(crate) fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// `CLOCK_REALTIME` in nanoseconds, the clock of what a hub's publications carry.
#[inline]
pub(crate) fn wall_ns() -> u64 {
    clock_ns(libc::CLOCK_REALTIME)
}

/// CPU time of this process, all threads, user and system, in nanoseconds.
pub(crate) fn cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// Raises the soft limit of open descriptors to the hard one; gives the limit then in force.
pub(crate) fn descriptors_max() -> io::Result<u64> {
    // SAFETY: the struct is plain numbers, and both calls only touch the one they are given.
    unsafe {
        let mut limit: libc::rlimit = zeroed();
        checked(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit))?;
        if limit.rlim_cur < limit.rlim_max {
            let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
            if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) == 0 {
                limit = raised;
            }
        }
        Ok(limit.rlim_cur)
    }
}

/// One event of [`Epoll::wait`].
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Event(libc::epoll_event);

impl Event {
    /// Room for one event.
    pub(crate) const EMPTY: Self = Self(libc::epoll_event { events: 0, u64: 0 });

    /// What the descriptor was added with.
    #[inline]
    pub(crate) fn token(self) -> u64 {
        self.0.u64
    }

    /// Whether any of `flags` is reported.
    #[inline]
    pub(crate) fn has(self, flags: u32) -> bool {
        self.0.events & flags != 0
    }
}

/// One epoll instance.
pub(crate) struct Epoll(OwnedFd);

impl Epoll {
    /// A new one, watching nothing.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no pointers; a descriptor that is not negative is new and ours.
        unsafe { Ok(Self(OwnedFd::from_raw_fd(checked(libc::epoll_create1(libc::EPOLL_CLOEXEC))?))) }
    }

    fn control(&self, operation: libc::c_int, descriptor: RawFd, token: u64, flags: u32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: flags, u64: token };
        // SAFETY: the event lives through the call, which only reads it.
        checked(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, descriptor, &raw mut event) })?;
        Ok(())
    }

    /// Watches `descriptor` for `flags`; its events carry `token`.
    pub(crate) fn add(&self, descriptor: RawFd, token: u64, flags: u32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, descriptor, token, flags)
    }

    /// Watches a descriptor that is already watched for other `flags`.
    pub(crate) fn change(&self, descriptor: RawFd, token: u64, flags: u32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, descriptor, token, flags)
    }

    /// Watches `descriptor` no longer.
    pub(crate) fn remove(&self, descriptor: RawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, descriptor, 0, 0)
    }

    /// Waits for events, at most `timeout`, to the nanosecond, or for ever without one; gives how many of `events` it filled.
    ///
    /// An interrupted wait gives 0.
    pub(crate) fn wait(&self, events: &mut [Event], timeout: Option<Duration>) -> io::Result<usize> {
        let room = libc::c_int::try_from(events.len()).unwrap_or(libc::c_int::MAX);
        let limit = timeout.map(|timeout| libc::timespec {
            tv_sec: timeout.as_secs().min(86_400) as libc::time_t,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: `Event` is `repr(transparent)`; the kernel writes at most `room` of
        // them; `limit` is null or points to a timespec that lives through the call; the mask is null.
        let count = unsafe {
            let first = events.as_mut_ptr().cast::<libc::epoll_event>();
            let no_mask = std::ptr::null::<libc::sigset_t>();
            libc::syscall(libc::SYS_epoll_pwait2, self.0.as_raw_fd(), first, room, limit, no_mask, 0_usize)
        };
        match checked(count as libc::c_int) {
            Ok(count) => Ok(count as usize),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }
}

fn address(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
        sin_zero: [0; 8],
    }
}

fn set_option(descriptor: RawFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the value lives through the call and its length is given.
    checked(unsafe {
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        libc::setsockopt(descriptor, level, option, (&raw const value).cast(), length)
    })?;
    Ok(())
}

/// Begins to connect to `target`, from `source` where there is one; never waits.
///
/// Gives the socket, and whether it is connected already. The port is chosen when connecting, not when binding
/// (`IP_BIND_ADDRESS_NO_PORT`), so that two connections to different servers may share one.
pub(crate) fn connect(source: Option<Ipv4Addr>, target: SocketAddrV4) -> io::Result<(OwnedFd, bool)> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers; a descriptor that is not negative is new and ours.
    let socket = unsafe { OwnedFd::from_raw_fd(checked(libc::socket(libc::AF_INET, kind, 0))?) };
    let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    if let Some(source) = source {
        set_option(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
        let source = address(SocketAddrV4::new(source, 0));
        // SAFETY: the address lives through the call and its length is given.
        checked(unsafe { libc::bind(socket.as_raw_fd(), (&raw const source).cast(), length) })?;
    }
    set_option(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    let target = address(target);
    // SAFETY: as above.
    match checked(unsafe { libc::connect(socket.as_raw_fd(), (&raw const target).cast(), length) }) {
        Ok(_) => Ok((socket, true)),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok((socket, false)),
        Err(error) => Err(error),
    }
}

/// How a connect that was begun has ended.
pub(crate) fn connect_outcome(descriptor: RawFd) -> io::Result<()> {
    let mut error: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: both live through the call, which writes at most `length` bytes.
    checked(unsafe {
        let value = (&raw mut error).cast();
        libc::getsockopt(descriptor, libc::SOL_SOCKET, libc::SO_ERROR, value, &raw mut length)
    })?;
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// Reads what a socket has, without waiting; 0 is the end.
#[inline]
pub(crate) fn receive(descriptor: RawFd, room: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `room.len()` bytes to `room`.
    let count = unsafe { libc::recv(descriptor, room.as_mut_ptr().cast(), room.len(), libc::MSG_DONTWAIT) };
    if count < 0 { Err(io::Error::last_os_error()) } else { Ok(count as usize) }
}

/// Writes what a socket takes, without waiting and without a signal.
#[inline]
pub(crate) fn send(descriptor: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel reads `bytes.len()` bytes of `bytes`.
    let count = unsafe { libc::send(descriptor, bytes.as_ptr().cast(), bytes.len(), flags) };
    if count < 0 { Err(io::Error::last_os_error()) } else { Ok(count as usize) }
}

/// Reads from any descriptor, as it waits or not; 0 is the end.
pub(crate) fn read(descriptor: RawFd, room: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `room.len()` bytes to `room`.
    let count = unsafe { libc::read(descriptor, room.as_mut_ptr().cast(), room.len()) };
    if count < 0 { Err(io::Error::last_os_error()) } else { Ok(count as usize) }
}

/// Lets as many connections wait to be accepted as the system allows.
pub(crate) fn widen_backlog(listener: &TcpListener) -> io::Result<()> {
    // SAFETY: no pointers. A second listen on the same socket only changes the bound.
    checked(unsafe { libc::listen(listener.as_raw_fd(), 65_535) })?;
    Ok(())
}

/// Sleeps until `deadline_ns` of `CLOCK_MONOTONIC`; a signal may end it early.
pub(crate) fn sleep_until(deadline_ns: u64) {
    let deadline = libc::timespec {
        tv_sec: (deadline_ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (deadline_ns % 1_000_000_000) as libc::c_long,
    };
    // SAFETY: the deadline lives through the call; no remaining time is asked for.
    unsafe {
        libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &raw const deadline, std::ptr::null_mut());
    }
}
