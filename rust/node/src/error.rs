//! What the crate's own calls refuse.
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why there is no server, or no link.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum StartError {
    /// Somebody listens there: two programs on one Unix socket.
    #[error("{}: another process listens on this Unix socket", path.display())]
    InUse {
        /// The socket's path.
        path: PathBuf,
    },
    /// What is there is none of ours to replace.
    #[error("{}: there is something that is no Unix socket", path.display())]
    NotASocket {
        /// The socket's path.
        path: PathBuf,
    },
    /// The system has no room for such a path (unix(7)).
    #[error("{}: a Unix socket's path has {bytes_max} bytes at most, this one has {bytes}", path.display())]
    PathTooLong {
        /// The socket's path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// An engine outside that cannot even be asked.
    #[error(transparent)]
    Backbone(#[from] fanwire_backbone::Error),
    /// The system's.
    #[error("{}: cannot {what}: {source}", path.display())]
    System {
        /// The socket's path.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Its reason.
        source: io::Error,
    },
}

/// Why a link has not taken a frame.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// The other end does not read as fast as this one sends.
    #[error("{waiting} bytes wait for the owner; {bytes_max} may")]
    Full {
        /// What waits already.
        waiting: usize,
        /// The bound, [`Bounds::link_queue_bytes_max`](crate::Bounds::link_queue_bytes_max).
        bytes_max: usize,
    },
    /// No frame may be so long.
    #[error("a frame has {bytes} bytes; {bytes_max} it may have")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The bound, [`Bounds::frame_bytes_max`](crate::Bounds::frame_bytes_max).
        bytes_max: usize,
    },
}
