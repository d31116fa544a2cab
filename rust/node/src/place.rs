//! The socket's file: made for one user, taken over where nobody listens, removed at the end; and who is at the other end.
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::geteuid;

use crate::error::StartError;

/// `sun_path` has 108 bytes, of which the last is 0 (unix(7)).
const PATH_BYTES_MAX: usize = 107;

/// How many may wait to be accepted.
const BACKLOG: i32 = 256;

/// A path with a socket of ours. It is removed when this is dropped, unless it is another's by then.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    /// Device and inode.
    inode: (u64, u64),
    process: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        let is_ours = |found: fs::Metadata| (found.dev(), found.ino()) == self.inode;
        if self.process == std::process::id() && fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            let _ = fs::remove_file(&self.path); // somebody may have removed it just now
        }
    }
}

/// A socket that listens at `path`, which its own user alone may connect to.
///
/// A file whose socket nobody listens on is replaced. Two that begin at once wait for each other by a lock on the folder.
pub(crate) fn listen(path: &Path) -> Result<(UnixListener, Place), StartError> {
    let failed = |what| move |error| system(path, what, error);
    let address = address_of(path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = File::open(folder).map_err(failed("open its folder"))?;
    folder.lock().map_err(failed("lock its folder"))?; // until this returns
    remove_stale(path, &address)?;
    let socket = stream_socket().map_err(failed("make a socket"))?;
    net::bind(&socket, &address).map_err(|error| system(path, "bind a socket", error.into()))?;
    let made = fs::symlink_metadata(path).map_err(failed("look at the socket"))?;
    let place = Place { path: path.to_owned(), inode: (made.dev(), made.ino()), process: std::process::id() };
    // Before it listens: nobody can connect until it does.
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed("set the socket's mode"))?;
    net::listen(&socket, BACKLOG).map_err(|error| system(path, "listen", error.into()))?;
    Ok((UnixListener::from(socket), place))
}

/// A connection to whoever listens there. Never waits.
///
/// # Errors
/// As text: the system's, or whose process it is.
pub(crate) fn connect(path: &Path) -> Result<UnixStream, String> {
    let address = address_of(path).map_err(|error| error.to_string())?;
    let socket = stream_socket().map_err(|error| error.to_string())?;
    net::connect(&socket, &address).map_err(|error| format!("cannot connect: {}", io::Error::from(error)))?;
    let stream = UnixStream::from(socket);
    process_of(&stream)?;
    Ok(stream)
}

/// Whether a socket may have such a path.
pub(crate) fn address_of(path: &Path) -> Result<SocketAddrUnix, StartError> {
    let bytes = path.as_os_str().as_bytes().len();
    if bytes > PATH_BYTES_MAX {
        return Err(StartError::PathTooLong { path: path.to_owned(), bytes, bytes_max: PATH_BYTES_MAX });
    }
    SocketAddrUnix::new(path).map_err(|error| system(path, "use such a path", error.into()))
}

/// The process at the other end (`SO_PEERCRED`, unix(7)).
///
/// # Errors
/// It is another user's.
pub(crate) fn process_of(stream: &UnixStream) -> Result<u32, String> {
    let credentials = net::sockopt::socket_peercred(stream)
        .map_err(|error| format!("whose process it is cannot be told: {}", io::Error::from(error)))?;
    let (its, ours) = (credentials.uid, geteuid());
    if its != ours {
        return Err(format!("its process is of user {}, ours of user {}", its.as_raw(), ours.as_raw()));
    }
    Ok(credentials.pid.as_raw_nonzero().get().unsigned_abs())
}

fn stream_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// Removes a socket's file that nobody listens on.
fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<(), StartError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(system(path, "look at what is there", error)),
        Ok(found) if !found.file_type().is_socket() => return Err(StartError::NotASocket { path: path.to_owned() }),
        Ok(_) => {}
    }
    let socket = stream_socket().map_err(|error| system(path, "make a socket", error))?;
    match net::connect(&socket, address) {
        Err(Errno::CONNREFUSED) => {}
        Err(Errno::NOENT) => return Ok(()),
        // Where it would wait there is a queue to wait in.
        Ok(()) | Err(Errno::AGAIN) => return Err(StartError::InUse { path: path.to_owned() }),
        Err(error) => return Err(system(path, "see whether somebody listens", error.into())),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(system(path, "remove a stale socket", error)),
        _ => Ok(()),
    }
}

pub(crate) fn system(path: &Path, what: &'static str, source: io::Error) -> StartError {
    StartError::System { path: path.to_owned(), what, source }
}
