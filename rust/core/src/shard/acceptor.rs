//! Listening sockets: binding, accepting in batches, and the pause when descriptors run out.
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use super::connection::Connection;
use super::poller::Interest;
use super::{Shard, socket};
use crate::messages::Event;
use crate::settings::Settings;

/// Connections taken in one turn from one listener; the rest is taken in the next.
const ACCEPTS_MAX: usize = 256;

/// A listening socket of one shard. A Unix path is removed when the last shard lets go.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    /// Held for its drop.
    _path: Option<Arc<UnixPath>>,
}

#[derive(Debug)]
struct UnixPath(Box<Path>);

impl Drop for UnixPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0); // somebody may have removed it before
    }
}

impl Listener {
    pub(super) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Binds `address` (`host:port` or `unix:path`) once for each shard; gives the address as bound.
///
/// With several shards each has a socket of its own on the port (`SO_REUSEPORT`) and the kernel deals connections out.
///
/// # Errors
/// The system's, or an address that can't be read.
pub(crate) fn bind(address: &str, settings: &Settings) -> io::Result<(Vec<Listener>, String)> {
    match address.strip_prefix("unix:") {
        Some(path) => bind_unix(Path::new(path), settings.shards),
        None => bind_tcp(address, settings),
    }
}

fn bind_tcp(address: &str, settings: &Settings) -> io::Result<(Vec<Listener>, String)> {
    let mut wanted = address
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the host has no address"))?;
    let options = |shares_port, shard| socket::TcpOptions {
        shares_port,
        notsent_lowat: settings.notsent_lowat,
        congestion_control: settings.congestion_control.as_deref(),
        incoming_cpu: if settings.pins_shards { socket::allowed_cpu(shard) } else { None },
        backlog: settings.backlog,
    };
    let alone = socket::listen_tcp(wanted, &options(false, 0))?;
    let bound = local_address(&alone)?;
    if settings.shards == 1 {
        return Ok((vec![Listener { fd: alone, _path: None }], bound.to_string()));
    }
    // The port is ours alone, so nobody else's server is joined unawares. Now for real, one socket a shard.
    drop(alone);
    wanted.set_port(bound.port());
    let sockets: io::Result<Vec<Listener>> = (0..settings.shards)
        .map(|shard| Ok(Listener { fd: socket::listen_tcp(wanted, &options(true, shard))?, _path: None }))
        .collect();
    Ok((sockets?, bound.to_string()))
}

fn local_address(fd: &OwnedFd) -> io::Result<SocketAddr> {
    socket::local_address(fd.as_raw_fd()).ok_or_else(io::Error::last_os_error)
}

fn bind_unix(path: &Path, shards: usize) -> io::Result<(Vec<Listener>, String)> {
    if path.exists() && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        std::fs::remove_file(path)?; // left behind by a server that was killed
    }
    let socket = UnixListener::bind(path)?;
    socket.set_nonblocking(true)?;
    let owner = Arc::new(UnixPath(path.into()));
    let sockets: io::Result<Vec<Listener>> =
        (0..shards).map(|_| Ok(Listener { fd: socket.try_clone()?.into(), _path: Some(Arc::clone(&owner)) })).collect();
    Ok((sockets?, format!("unix:{}", path.display())))
}

/// The token of a shard's `index`-th listener.
pub(super) fn token_of(index: usize) -> u64 {
    super::LISTENER_TOKENS | index as u64
}

impl Shard {
    pub(super) fn add_listener(&mut self, listener: Listener) {
        if self.is_accept_paused {
            self.listeners.push(listener); // watched with the others when accepting goes on
            return;
        }
        let token = token_of(self.listeners.len());
        match self.poller.epoll.add(listener.fd(), token, Interest::Level) {
            Ok(()) => self.listeners.push(listener),
            Err(error) => self.record(40, format!("shard {}: cannot watch a listener: {error}", self.index)),
        }
    }

    /// Takes what waits, up to a bound. Without descriptors accepting pauses until some are free.
    pub(super) fn accept(&mut self, index: usize) {
        let Some(listener) = self.listeners.get(index) else { return };
        let fd = listener.fd();
        for _ in 0..ACCEPTS_MAX {
            match socket::accept(fd) {
                Ok(taken) => {
                    self.welcome(taken);
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                        self.pause_accepting(&error);
                        return;
                    }
                    Some(libc::EAGAIN) => return,
                    _ => {} // that one is gone (ECONNABORTED and the like, accept(2)); the next may be fine
                },
            }
        }
    }

    /// Takes a socket in; gives its slot, if there is room for it.
    pub(super) fn welcome(&mut self, fd: OwnedFd) -> Option<u32> {
        let (raw, timeout) = (fd.as_raw_fd(), self.settings.handshake_timeout);
        let slot = self.slab.insert(|generation, _| Connection::new(Some(fd), generation))?;
        if let Err(error) = self.poller.epoll.add(raw, self.token_of(slot), Interest::Connection) {
            self.record(40, format!("shard {}: cannot watch a connection: {error}", self.index));
            self.slab.bury(slot);
            return None;
        }
        self.stats.connections.add(1);
        self.stats.connections_total.add(1);
        self.timers.set(slot, timeout);
        Some(slot)
    }

    fn pause_accepting(&mut self, error: &io::Error) {
        for listener in &self.listeners {
            self.poller.epoll.remove(listener.fd());
        }
        if !self.is_accept_starved {
            let open = self.slab.count();
            self.stats.accept_pauses.add(1);
            self.record(30, format!("shard {}: accepting pauses with {open} connections: {error}", self.index));
        }
        self.is_accept_paused = true;
        self.is_accept_starved = true;
    }

    /// Tries again, once a tick at most.
    pub(super) fn resume_accepting(&mut self) {
        if !self.is_accept_paused {
            // A whole tick without a refusal.
            if std::mem::take(&mut self.is_accept_starved) {
                self.record(20, format!("shard {}: accepting again", self.index));
            }
            return;
        }
        self.is_accept_paused = false;
        for index in 0..self.listeners.len() {
            let fd = self.listeners[index].fd();
            if let Err(error) = self.poller.epoll.add(fd, token_of(index), Interest::Level) {
                self.record(40, format!("shard {}: cannot watch a listener: {error}", self.index));
            }
        }
    }

    pub(super) fn record(&self, level: u8, text: String) {
        self.common.events.push(self.index, Event::Record(level, text));
    }
}
