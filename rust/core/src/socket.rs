//! System calls on sockets: thin, unsafe inside, safe outside.
#![allow(unsafe_code)] // the descriptors room: socket calls
use std::ffi::CString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// A call's result: bytes, or minus errno.
fn result_of(result: isize) -> isize {
    if result >= 0 { result } else { -(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) as isize) }
}

/// A descriptor that is gone must not be used: its number may be another socket's.
fn check(fd: RawFd) {
    debug_assert!(fd >= 0, "a connection without a socket was written to or read from");
}

/// Vectors in one call; more are left for the next.
pub(crate) const VECTORS_MAX: usize = 64;

/// Sends without waiting. Bytes taken, or minus errno.
pub(crate) fn send(fd: RawFd, bytes: &[u8]) -> isize {
    check(fd);
    // SAFETY: the kernel reads `bytes` during the call only.
    let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    result_of(sent)
}

/// Sends several pieces in one call, at most [`VECTORS_MAX`]. Bytes taken, or minus errno.
pub(crate) fn send_vectors(fd: RawFd, pieces: &[&[u8]]) -> isize {
    check(fd);
    let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; VECTORS_MAX];
    let count = pieces.len().min(VECTORS_MAX);
    for (vector, piece) in vectors.iter_mut().zip(pieces) {
        *vector = libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() };
    }
    // SAFETY: all zeros is a valid msghdr.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = vectors.as_mut_ptr();
    header.msg_iovlen = count;
    // SAFETY: header, vectors and pieces live through the call; the kernel only reads the pieces.
    result_of(unsafe { libc::sendmsg(fd, &raw const header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) })
}

/// Receives without waiting. Bytes, 0 at the end of the stream, or minus errno.
pub(crate) fn receive(fd: RawFd, room: &mut [u8]) -> isize {
    check(fd);
    // SAFETY: the kernel writes at most `room.len()` bytes into `room`.
    result_of(unsafe { libc::recv(fd, room.as_mut_ptr().cast(), room.len(), libc::MSG_DONTWAIT) })
}

/// Has the socket become readable only once so many bytes are there, or its end. False where the kernel refuses.
pub(crate) fn set_receive_low_watermark(fd: RawFd, bytes: usize) -> bool {
    check(fd);
    option(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, bytes as i32).is_ok()
}

/// The number from which on descriptors are spare, or beyond the limit: a new one has the lowest that is free.
pub(crate) fn spare_from(descriptors_spare: usize) -> RawFd {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills `limit`.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return RawFd::MAX;
    }
    let spare = (limit.rlim_cur / 4).min(descriptors_spare as u64);
    RawFd::try_from(limit.rlim_cur - spare).unwrap_or(RawFd::MAX)
}

/// The number that a new descriptor would have.
///
/// # Errors
/// There is none.
pub(crate) fn next_descriptor() -> io::Result<RawFd> {
    // SAFETY: two integers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) }.as_raw_fd())
}

/// Takes a connection, non-blocking.
pub(crate) fn accept(listener: RawFd) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no address is asked for.
    let fd = unsafe { libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes over a descriptor of a stream socket, non-blocking from now on; whoever had it must not use it any more.
///
/// # Errors
/// It is no such socket, or one that is not connected: it stays the caller's.
pub(crate) fn take_over(fd: RawFd) -> io::Result<OwnedFd> {
    let kind = int_option(fd, libc::SOL_SOCKET, libc::SO_TYPE)?;
    if kind != libc::SOCK_STREAM || int_option(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN)? != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no connected stream socket"));
    }
    name_of(libc::getpeername, fd)?;
    // SAFETY: two integers.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    // SAFETY: three integers.
    let is_waitless = flags >= 0 && unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) } >= 0;
    // SAFETY: three integers.
    if !is_waitless || unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    if int_option(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL)? == libc::IPPROTO_TCP {
        option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    }
    // SAFETY: it is open, since the calls above found a socket there, and the caller gives it away.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor of its own for a socket that listens and that another process has made, closed when another program is run.
/// It accepts without waiting from now on, whoever else has it.
///
/// # Errors
/// What it is instead, as it stands behind its number.
pub(crate) fn inherit_listener(fd: RawFd) -> io::Result<OwnedFd> {
    let is_not = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, format!("descriptor {fd} {what}")));
    match int_option(fd, libc::SOL_SOCKET, libc::SO_TYPE) {
        Ok(libc::SOCK_STREAM) => {}
        Ok(_) => return is_not("is no stream socket"),
        Err(error) if error.raw_os_error() == Some(libc::EBADF) => return is_not("is not open"),
        Err(error) if error.raw_os_error() == Some(libc::ENOTSOCK) => return is_not("is no socket"),
        Err(error) => return Err(error),
    }
    if int_option(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN)? == 0 {
        return is_not("does not listen");
    }
    let copy = duplicate(fd)?;
    // SAFETY: two integers.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    // SAFETY: three integers.
    if flags < 0 || unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(copy)
}

fn int_option(fd: RawFd, level: i32, name: i32) -> io::Result<i32> {
    let (mut value, mut length) = (0i32, size_of::<i32>() as u32);
    // SAFETY: the kernel writes at most `length` bytes into `value`.
    let result = unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// A descriptor of its own for a stream socket that somebody else has, closed when another program is run.
pub(crate) fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    if int_option(fd, libc::SOL_SOCKET, libc::SO_TYPE)? != libc::SOCK_STREAM {
        return Err(io::Error::from_raw_os_error(libc::EPROTOTYPE));
    }
    // SAFETY: three integers.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Ends the stream, whoever else holds the descriptor.
pub(crate) fn shut_down(fd: RawFd) {
    check(fd);
    // SAFETY: two integers.
    unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
}

/// Ends our half of the stream.
pub(crate) fn shut_down_writing(fd: RawFd) {
    check(fd);
    // SAFETY: two integers.
    unsafe { libc::shutdown(fd, libc::SHUT_WR) };
}

fn option(fd: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the kernel reads one int.
    let result = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), size_of::<i32>() as u32) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What a listening TCP socket is told; accepted ones inherit it.
#[derive(Clone, Debug)]
pub(crate) struct TcpOptions<'a> {
    pub(crate) shares_port: bool,
    /// Of an IPv6 address: IPv4 comes in there, too.
    pub(crate) is_dual_stack: bool,
    pub(crate) notsent_lowat: u32,
    pub(crate) congestion_control: Option<&'a str>,
    pub(crate) incoming_cpu: Option<usize>,
    pub(crate) backlog: i32,
}

/// Binds and listens.
pub(crate) fn listen_tcp(address: SocketAddr, options: &TcpOptions<'_>) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let fd = new_socket(family)?;
    let raw = fd.as_raw_fd();
    option(raw, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if options.shares_port {
        option(raw, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    if address.is_ipv6() {
        option(raw, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, i32::from(!options.is_dual_stack))?;
    }
    set_tcp(raw, options)?;
    let (storage, length) = to_system(address);
    // SAFETY: `storage` holds an address of `length` bytes.
    if unsafe { libc::bind(raw, (&raw const storage).cast(), length) } < 0 {
        return Err(io::Error::last_os_error());
    }
    listen(&fd, options.backlog)?;
    Ok(fd)
}

/// Has a TCP socket, and those that it accepts, be as told.
pub(crate) fn set_tcp(fd: RawFd, options: &TcpOptions<'_>) -> io::Result<()> {
    option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    if options.notsent_lowat > 0 {
        option(fd, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, options.notsent_lowat as i32)?;
    }
    if let Some(name) = options.congestion_control {
        congestion_control(fd, name)?;
    }
    if let Some(cpu) = options.incoming_cpu {
        option(fd, libc::SOL_SOCKET, libc::SO_INCOMING_CPU, cpu as i32)?;
    }
    Ok(())
}

/// Has a bound socket listen.
pub(crate) fn listen(fd: &OwnedFd, backlog: i32) -> io::Result<()> {
    // SAFETY: two integers.
    if unsafe { libc::listen(fd.as_raw_fd(), backlog) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A socket at a path, which does not listen yet; with these permissions from its first moment, less the umask (unix(7)).
pub(crate) fn bind_unix(path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let fd = new_socket(libc::AF_UNIX)?;
    // SAFETY: two integers.
    if unsafe { libc::fchmod(fd.as_raw_fd(), mode) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let (address, length) = unix_address(path)?;
    // SAFETY: the address has `length` bytes, and its path ends with a zero.
    if unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(fd)
}

fn unix_address(path: &Path) -> io::Result<(libc::sockaddr_un, u32)> {
    // SAFETY: all zeros is a valid sockaddr_un.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as u16;
    let (bytes, bytes_max) = (path.as_os_str().as_bytes(), address.sun_path.len() - 1);
    if bytes.is_empty() || bytes.len() > bytes_max || bytes.contains(&0) {
        let text =
            format!("a path of a socket has 1 to {bytes_max} bytes, none of them zero; this one has {}", bytes.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    for (target, &byte) in address.sun_path.iter_mut().zip(bytes) {
        *target = byte as libc::c_char;
    }
    let length = size_of::<libc::sockaddr_un>() as u32;
    Ok((address, length))
}

/// Descriptors that a forked child closes first of all; -1 where there is none. Without a lock: one may be held at a fork.
static CLOSED_IN_CHILDREN: [AtomicI32; 1_024] = [const { AtomicI32::new(-1) }; 1_024];
static AT_FORK: Once = Once::new();
/// How many forks lie between this process and the one that looked first.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Which process this is, among those that a fork has made of one another: what a child has of its parent's was made with
/// another number. Costs no system call. It is the C library's fork(3) that is noticed, by whatever language.
pub(crate) fn forks() -> u32 {
    watch_forks();
    FORKS.load(Ordering::Relaxed)
}

fn watch_forks() {
    // SAFETY: the handler is a function of ours that counts and calls close(2), which may be done after a fork.
    AT_FORK.call_once(|| unsafe {
        libc::pthread_atfork(None, None, Some(begin_child));
    });
}

/// From now on a child that is forked closes its copy of this descriptor; or no longer. Beyond 1,024 of them it does not.
pub(crate) fn close_in_children(fd: RawFd, closes: bool) {
    watch_forks();
    let (from, to) = if closes { (-1, fd) } else { (fd, -1) };
    let relaxed = Ordering::Relaxed;
    let _ = CLOSED_IN_CHILDREN.iter().find(|one| one.compare_exchange(from, to, relaxed, relaxed).is_ok());
}

extern "C" fn begin_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    for one in &CLOSED_IN_CHILDREN {
        let fd = one.swap(-1, Ordering::Relaxed);
        if fd >= 0 {
            // SAFETY: the child's copy of a descriptor that nobody in the child uses: the threads that do stayed behind.
            unsafe { libc::close(fd) };
        }
    }
}

fn congestion_control(fd: RawFd, name: &str) -> io::Result<()> {
    let name = CString::new(name).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let length = name.as_bytes().len() as u32;
    // SAFETY: the kernel reads `length` bytes of the name.
    let result = unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_CONGESTION, name.as_ptr().cast(), length) };
    if result < 0 {
        let cause = io::Error::last_os_error();
        let name = name.to_string_lossy().into_owned();
        return Err(io::Error::new(cause.kind(), format!("congestion control {name:?}: {cause}")));
    }
    Ok(())
}

fn new_socket(family: i32) -> io::Result<OwnedFd> {
    // SAFETY: three integers.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn to_system(address: SocketAddr) -> (libc::sockaddr_storage, u32) {
    // SAFETY: all zeros is a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let length = match address {
        SocketAddr::V4(v4) => {
            let target = (&raw mut storage).cast::<libc::sockaddr_in>();
            let octets = u32::from_ne_bytes(v4.ip().octets());
            // SAFETY: sockaddr_storage is large and aligned enough for every kind of address.
            unsafe {
                (*target).sin_family = libc::AF_INET as u16;
                (*target).sin_port = v4.port().to_be();
                (*target).sin_addr.s_addr = octets;
            }
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            let target = (&raw mut storage).cast::<libc::sockaddr_in6>();
            // SAFETY: as above.
            unsafe {
                (*target).sin6_family = libc::AF_INET6 as u16;
                (*target).sin6_port = v6.port().to_be();
                (*target).sin6_addr.s6_addr = v6.ip().octets();
                (*target).sin6_scope_id = v6.scope_id();
            }
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, length as u32)
}

fn from_system(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which kind lies in the storage.
            let v4 = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddr::new(IpAddr::V6(ip), u16::from_be(v6.sin6_port)))
        }
        _ => None,
    }
}

type NameCall = unsafe extern "C" fn(i32, *mut libc::sockaddr, *mut libc::socklen_t) -> i32;

/// `None` is a name that is no address of TCP.
fn name_of(call: NameCall, fd: RawFd) -> io::Result<Option<SocketAddr>> {
    // SAFETY: all zeros is a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_storage>() as u32;
    // SAFETY: the kernel writes at most `length` bytes into `storage`.
    let result = unsafe { call(fd, (&raw mut storage).cast(), &raw mut length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(from_system(&storage)) }
}

/// Where the peer of a TCP connection is; `None` for a Unix socket or one that is gone.
pub(crate) fn peer_address(fd: RawFd) -> Option<SocketAddr> {
    name_of(libc::getpeername, fd).ok().flatten()
}

/// What the kernel knows of a TCP connection (tcp(7), `struct tcp_info`), as far as it tells it; `None` of another socket.
pub(crate) fn tcp_info(fd: RawFd) -> Option<Vec<u8>> {
    let mut info = vec![0_u8; 256];
    let mut length = info.len() as u32;
    // SAFETY: the kernel writes at most `length` bytes into `info`, and how many into `length`.
    let result =
        unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut length) };
    info.truncate(length as usize);
    (result == 0).then_some(info)
}

/// Where a TCP socket is bound.
pub(crate) fn local_address(fd: RawFd) -> Option<SocketAddr> {
    name_of(libc::getsockname, fd).ok().flatten()
}

/// Binds the calling thread to the `index`-th CPU that it may use (cyclically) and gives that CPU's number.
pub(crate) fn pin_thread(index: usize) -> Option<usize> {
    let cpu = allowed_cpu(index)?;
    // SAFETY: all zeros is an empty set; CPU_SET writes inside it for numbers below CPU_SETSIZE, which cpu is.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
    Some(cpu)
}

/// The `index`-th CPU that this thread may use, cyclically.
pub(crate) fn allowed_cpu(index: usize) -> Option<usize> {
    // SAFETY: all zeros is an empty set, which the kernel fills.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the size is that of the set.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) } < 0 {
        return None;
    }
    // SAFETY: CPU_ISSET reads inside the set for numbers below CPU_SETSIZE.
    let allowed: Vec<usize> =
        (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect();
    allowed.get(index % allowed.len().max(1)).copied()
}

/// Connects to the socket at a path, without waiting.
///
/// # Errors
/// Nobody listens there, or too many wait.
pub(crate) fn connect_unix(path: &Path) -> io::Result<OwnedFd> {
    let fd = new_socket(libc::AF_UNIX)?;
    let (address, length) = unix_address(path)?;
    // SAFETY: the address has `length` bytes, and its path ends with a zero.
    if unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), length) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(fd)
}

/// Whether the process at the other end of a Unix socket belongs to this one's user.
pub(crate) fn is_of_this_user(fd: RawFd) -> bool {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as u32;
    // SAFETY: the kernel writes at most `length` bytes into `peer`.
    let result =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut peer).cast(), &raw mut length) };
    // SAFETY: it takes nothing and cannot fail.
    result == 0 && peer.uid == unsafe { libc::geteuid() }
}

/// Room for one descriptor beside a message, aligned as the kernel wants it.
#[repr(C, align(8))]
struct OneDescriptor([u8; 32]);

/// Sends, and with the first byte a descriptor: the other process gets one of its own. Bytes taken, or minus errno.
pub(crate) fn send_with_descriptor(fd: RawFd, bytes: &[u8], passed: RawFd) -> isize {
    check(fd);
    let mut room = OneDescriptor([0; 32]);
    let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: all zeros is a valid msghdr; the control message has room for one descriptor, as CMSG_SPACE says.
    unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        (header.msg_iov, header.msg_iovlen) = (&raw mut vector, 1);
        header.msg_control = (&raw mut room).cast();
        header.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as usize;
        debug_assert!(header.msg_controllen <= size_of::<OneDescriptor>());
        let control = libc::CMSG_FIRSTHDR(&raw const header);
        (*control).cmsg_level = libc::SOL_SOCKET;
        (*control).cmsg_type = libc::SCM_RIGHTS;
        (*control).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as usize;
        libc::CMSG_DATA(control).cast::<RawFd>().write_unaligned(passed);
        result_of(libc::sendmsg(fd, &raw const header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL))
    }
}

/// Receives, and what descriptor came with it: `Some(None)` is one for which this process had no room.
/// Bytes, 0 at the end of the stream, or minus errno.
pub(crate) fn receive_with_descriptor(fd: RawFd, room: &mut [u8]) -> (isize, Option<Option<OwnedFd>>) {
    check(fd);
    let mut control_room = OneDescriptor([0; 32]);
    let mut vector = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
    // SAFETY: all zeros is a valid msghdr; the kernel writes into `room` and `control_room` what they have room for, and
    // a control message of these rights is followed by a descriptor that is ours from now on.
    unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        (header.msg_iov, header.msg_iovlen) = (&raw mut vector, 1);
        header.msg_control = (&raw mut control_room).cast();
        header.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as usize;
        let received = libc::recvmsg(fd, &raw mut header, libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC);
        let result = result_of(received);
        if result < 0 {
            return (result, None);
        }
        let control = libc::CMSG_FIRSTHDR(&raw const header);
        let has_one = !control.is_null()
            && (*control).cmsg_type == libc::SCM_RIGHTS
            && (*control).cmsg_len >= libc::CMSG_LEN(size_of::<RawFd>() as u32) as usize;
        let passed = has_one.then(|| OwnedFd::from_raw_fd(libc::CMSG_DATA(control).cast::<RawFd>().read_unaligned()));
        let was_cut = header.msg_flags & libc::MSG_CTRUNC != 0;
        (result, if passed.is_some() || was_cut { Some(passed) } else { None })
    }
}

/// What to wait for on a descriptor, and what there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Awaited {
    pub(crate) fd: RawFd,
    /// Until it can be written to, too.
    pub(crate) wants_room: bool,
    /// Something can be read, or it is over.
    pub(crate) is_readable: bool,
}

/// Waits until one of them has something, at most `timeout_ms` (-1: for ever).
pub(crate) fn wait(awaited: &mut [Awaited], timeout_ms: i32) {
    let events = |one: &Awaited| libc::POLLIN | if one.wants_room { libc::POLLOUT } else { 0 };
    let mut asked: Vec<libc::pollfd> =
        awaited.iter().map(|one| libc::pollfd { fd: one.fd, events: events(one), revents: 0 }).collect();
    // SAFETY: the entries live through the call, and their number is theirs.
    let count = unsafe { libc::poll(asked.as_mut_ptr(), asked.len() as libc::nfds_t, timeout_ms) };
    for (one, told) in awaited.iter_mut().zip(&asked) {
        one.is_readable = count > 0 && told.revents & !libc::POLLOUT != 0;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::tokens;

    /// A child says how many forks lead to it, and which token it would give out next.
    #[test]
    fn a_forked_child_knows_that_it_is_one_and_gives_out_none_of_its_parents_tokens() {
        let before = forks();
        tokens::random().expect("the system's"); // the next of this thread are made
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        // SAFETY: the child makes system calls alone, and ends without a destructor.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let told = [&forks().to_ne_bytes()[..], &tokens::random().unwrap_or_default()].concat();
            send(theirs.as_raw_fd(), &told);
            // SAFETY: it ends the child.
            unsafe { libc::_exit(0) };
        }
        assert!(child > 0, "{}", io::Error::last_os_error());
        drop(theirs);
        let mut told = Vec::new();
        (&ours).read_to_end(&mut told).expect("the child ends");
        // SAFETY: no status is asked for.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        assert_eq!((forks(), told.len()), (before, 20));
        assert_eq!(told[..4], (before + 1).to_ne_bytes());
        let ours: Vec<_> = (0..200).map(|_| tokens::random().expect("the system's")).collect();
        assert!(ours.iter().all(|token| told[4..] != token[..] && *token != [0; 16]));
        assert!(ours.iter().enumerate().all(|(index, token)| !ours[..index].contains(token)));
    }
}
