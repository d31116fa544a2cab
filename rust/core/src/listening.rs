//! Listening sockets: from an address to one socket for each shard and address of the host, and their orderly end.
//!
//! A socket that a forked child still holds goes on listening after its owner has closed it: the port stays taken, and who
//! connects waits for ever. So a listener is shut down before it is closed, and a forked child closes those it inherits
//! ([`socket::close_in_children`]). Not so one that another process has made: others accept from it, now and later.
//! [`HeldAddress`] is the other side of that.
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use crate::error::EngineError;
use crate::settings::Settings;
use crate::socket;

/// Ports tried where any will do, until one is free at all addresses of the host.
const PORTS_TRIED: usize = 16;

/// A listening socket of one shard. A Unix path is removed when the last shard lets go.
#[derive(Debug)]
pub struct Listener {
    /// None only while it is dropped.
    fd: Option<OwnedFd>,
    /// The process that made it: what a forked child inherits is not the child's to end.
    process: u32,
    watchers: Watchers,
    /// Held for its drop.
    _path: Option<Arc<UnixPath>>,
}

/// Who watches one socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watchers {
    /// One shard.
    One,
    /// All shards.
    Shards,
    /// Those of other processes as well: one of them has made the socket, and it is not ours to end.
    Processes,
}

/// A path with a socket of ours.
#[derive(Debug)]
struct UnixPath {
    path: Box<Path>,
    /// Device and inode: somebody may have put something else there.
    inode: (u64, u64),
    process: u32,
}

impl Drop for UnixPath {
    fn drop(&mut self) {
        let is_ours = |found: std::fs::Metadata| (found.dev(), found.ino()) == self.inode;
        if self.process == std::process::id() && std::fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            let _ = std::fs::remove_file(&self.path); // somebody may have removed it just now
        }
    }
}

impl Listener {
    fn new(fd: OwnedFd, watchers: Watchers, path: Option<Arc<UnixPath>>) -> Self {
        socket::close_in_children(fd.as_raw_fd(), true);
        Self { fd: Some(fd), process: std::process::id(), watchers, _path: path }
    }

    /// Whether others watch the same socket: each connection is to wake one of them, and each to get its part.
    pub(crate) fn is_shared(&self) -> bool {
        self.watchers != Watchers::One
    }

    /// Whether other processes accept in its place once this one is gone.
    pub(crate) fn is_inherited(&self) -> bool {
        self.watchers == Watchers::Processes
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.fd.as_ref().expect("taken by its drop alone").as_raw_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Some(fd) = self.fd.take() else { return };
        if self.process == std::process::id() {
            if !self.is_inherited() {
                socket::shut_down(fd.as_raw_fd());
            }
            socket::close_in_children(fd.as_raw_fd(), false);
        } else {
            std::mem::forget(fd); // closed at the fork; its number may be another's by now
        }
    }
}

/// Binds an address once for each shard; gives the listeners with their shards, and the address as bound.
///
/// `unix:PATH`; `HOST:PORT` at all addresses that the host has, with one port; `PORT` at 127.0.0.1; `:PORT` at all addresses
/// of the machine. With several shards each has a socket of its own on the port (`SO_REUSEPORT`) and the kernel deals
/// connections out. `fd:N` or `fd:N,M` are sockets that this process has inherited.
///
/// # Errors
/// The system's, or what stands in the way.
pub(crate) fn bind(address: &str, settings: &Settings) -> io::Result<(Vec<(usize, Listener)>, String)> {
    if let Some(path) = address.strip_prefix("unix:") {
        return bind_unix(Path::new(path), settings);
    }
    if let Some(numbers) = address.strip_prefix("fd:") {
        return inherit(numbers, settings);
    }
    if let Ok(port) = address.parse::<u16>() {
        return bind_tcp("127.0.0.1", vec![SocketAddr::from(([127, 0, 0, 1], port))], settings);
    }
    if let Some(port) = address.strip_prefix(':').and_then(|port| port.parse::<u16>().ok()) {
        let all = bind_tcp("[::]", vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))], settings);
        return match all {
            Err(error) if is_not_here(&error) => {
                bind_tcp("0.0.0.0", vec![SocketAddr::from(([0, 0, 0, 0], port))], settings)
            }
            other => other,
        };
    }
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let mut found: Vec<SocketAddr> = Vec::new();
    for one in address.to_socket_addrs()? {
        if !found.contains(&one) {
            found.push(one);
        }
    }
    bind_tcp(host, found, settings)
}

/// This machine has no such address.
fn is_not_here(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT))
}

fn bind_tcp(
    host: &str,
    addresses: Vec<SocketAddr>,
    settings: &Settings,
) -> io::Result<(Vec<(usize, Listener)>, String)> {
    let wants_any_port = addresses.first().is_some_and(|address| address.port() == 0);
    let mut tried = 1;
    let reserved = loop {
        match reserve(&addresses, settings) {
            Err(error) if wants_any_port && tried < PORTS_TRIED && error.kind() == io::ErrorKind::AddrInUse => {
                tried += 1
            }
            other => break other?,
        }
    };
    let bound = match reserved.as_slice() {
        [(_, alone)] => alone.to_string(),
        [(_, first), ..] => format!("{host}:{}", first.port()),
        [] => return Err(io::Error::new(io::ErrorKind::InvalidInput, "the host has no address")),
    };
    if settings.shards == 1 {
        return Ok((reserved.into_iter().map(|(fd, _)| (0, Listener::new(fd, Watchers::One, None))).collect(), bound));
    }
    // The ports are ours alone, so nobody else's server is joined unawares. Now for real, one socket a shard.
    let mut listeners = Vec::new();
    for (fd, address) in reserved {
        drop(fd);
        for shard in 0..settings.shards {
            let fd = socket::listen_tcp(address, &options_of(settings, address, true, shard))?;
            listeners.push((shard, Listener::new(fd, Watchers::One, None)));
        }
    }
    Ok((listeners, bound))
}

/// A socket at each of these addresses, all with the port that the first one gets; those that this machine has not are left
/// out, unless it has none.
fn reserve(addresses: &[SocketAddr], settings: &Settings) -> io::Result<Vec<(OwnedFd, SocketAddr)>> {
    let mut reserved: Vec<(OwnedFd, SocketAddr)> = Vec::new();
    let mut missing = None;
    for &(mut address) in addresses {
        if let Some((_, first)) = reserved.first() {
            address.set_port(first.port());
        }
        match socket::listen_tcp(address, &options_of(settings, address, false, 0)) {
            Ok(fd) => {
                let bound = socket::local_address(fd.as_raw_fd()).ok_or_else(io::Error::last_os_error)?;
                reserved.push((fd, bound));
            }
            Err(error) if is_not_here(&error) => missing = Some(error),
            Err(error) => return Err(error),
        }
    }
    match (reserved.is_empty(), missing) {
        (true, Some(error)) => Err(error),
        _ => Ok(reserved),
    }
}

fn options_of(settings: &Settings, address: SocketAddr, shares_port: bool, shard: usize) -> socket::TcpOptions<'_> {
    socket::TcpOptions {
        shares_port,
        // All addresses are those of both kinds, whatever the system's default.
        is_dual_stack: address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        notsent_lowat: settings.notsent_lowat,
        congestion_control: settings.congestion_control.as_deref(),
        incoming_cpu: if settings.pins_shards { socket::allowed_cpu(shard) } else { None },
        backlog: settings.backlog,
    }
}

fn bind_unix(path: &Path, settings: &Settings) -> io::Result<(Vec<(usize, Listener)>, String)> {
    make_way(path)?;
    // What the socket's permissions are before it has a name, its name has, less the umask: nobody gets in meanwhile.
    let fd = socket::bind_unix(path, settings.unix_mode)?;
    let made = std::fs::symlink_metadata(path)?;
    let (inode, process) = ((made.dev(), made.ino()), std::process::id());
    let owner = Arc::new(UnixPath { path: path.into(), inode, process });
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(settings.unix_mode))?;
    socket::listen(&fd, settings.backlog)?;
    let mut listeners = Vec::with_capacity(settings.shards);
    for shard in 0..settings.shards {
        let watchers = if settings.shards > 1 { Watchers::Shards } else { Watchers::One };
        listeners.push((shard, Listener::new(fd.try_clone()?, watchers, Some(Arc::clone(&owner)))));
    }
    Ok((listeners, format!("unix:{}", path.display())))
}

/// Takes what others listen with, too, each for every shard. The numbers stay open, and the caller's.
fn inherit(numbers: &str, settings: &Settings) -> io::Result<(Vec<(usize, Listener)>, String)> {
    let (mut listeners, mut names) = (Vec::new(), Vec::new());
    for number in numbers.split(',') {
        let is_no_number = |_| io::Error::new(io::ErrorKind::InvalidInput, format!("{number:?} is no descriptor"));
        let fd = socket::inherit_listener(number.parse().map_err(is_no_number)?)?;
        if let Some(address) = socket::local_address(fd.as_raw_fd()) {
            let options = socket::TcpOptions { incoming_cpu: None, ..options_of(settings, address, false, 0) };
            socket::set_tcp(fd.as_raw_fd(), &options)?;
            names.push(address.to_string());
        } else {
            let address = UnixListener::from(fd.try_clone()?).local_addr()?;
            names.push(
                address.as_pathname().map_or_else(|| format!("fd:{number}"), |path| format!("unix:{}", path.display())),
            );
        }
        for shard in 0..settings.shards {
            listeners.push((shard, Listener::new(fd.try_clone()?, Watchers::Processes, None)));
        }
    }
    Ok((listeners, names.join(",")))
}

/// An address that a process listens at without accepting, for those that inherit its descriptors and accept there.
///
/// What waits is theirs, whichever of them comes or goes. Dropped, nobody is listened to any more.
#[derive(Debug)]
pub struct HeldAddress {
    listeners: Vec<Listener>,
    address: String,
}

impl HeldAddress {
    /// Listens at an address, as [`Engine::listen`](crate::Engine::listen) takes it.
    ///
    /// # Errors
    /// [`EngineError::ListenFailed`].
    pub fn new(address: &str, settings: &Settings) -> Result<Self, EngineError> {
        let settings = Settings { shards: 1, ..settings.clone() };
        let (listeners, bound) = bind(address, &settings)
            .map_err(|cause| EngineError::ListenFailed { address: address.to_owned(), cause })?;
        let listeners: Vec<Listener> = listeners.into_iter().map(|(_, listener)| listener).collect();
        for listener in &listeners {
            socket::close_in_children(listener.fd(), false); // they are for children
        }
        Ok(Self { listeners, address: bound })
    }

    /// The address as bound.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The numbers that are to be inherited.
    #[must_use]
    pub fn descriptors(&self) -> Vec<RawFd> {
        self.listeners.iter().map(Listener::fd).collect()
    }
}

/// Removes a socket that nobody serves, left behind by a server that was killed; whatever else stands there stays.
fn make_way(path: &Path) -> io::Result<()> {
    let taken = |kind, what: &str| Err(io::Error::new(kind, format!("{what} stands there, and is left alone")));
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return check_folder(path),
        Err(error) => return Err(error),
    };
    let kind = found.file_type();
    if !kind.is_socket() {
        let what = match (kind.is_dir(), kind.is_symlink(), kind.is_file()) {
            (true, ..) => "a directory",
            (_, true, _) => "a symbolic link",
            (.., true) => "a regular file",
            _ => "something that is no socket",
        };
        return taken(io::ErrorKind::AlreadyExists, what);
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Ok(_) => taken(io::ErrorKind::AddrInUse, "a socket that somebody serves"),
        Err(error) => {
            taken(io::ErrorKind::AddrInUse, &format!("a socket that does not say whether it is served ({error})"))
        }
    }
}

/// The system says "No such file or directory" of the socket to be, which nobody expects to be there.
fn check_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.exists() => {
            Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no folder {}", folder.display())))
        }
        _ => Ok(()),
    }
}
