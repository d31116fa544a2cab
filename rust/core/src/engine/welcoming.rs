//! Sockets that somebody else has accepted or made, served as if a shard had accepted them.
use std::os::fd::RawFd;
use std::sync::atomic::Ordering;

use super::Engine;
use crate::error::EngineError;
use crate::messages::Command;
use crate::socket;

/// Bytes of what the application is told as a client's address: a host name, and a port.
const CLIENT_BYTES_MAX: usize = 262;

impl Engine {
    /// Serves a connected stream socket from its first byte on; the engine owns the descriptor then, and closes it.
    ///
    /// `read` is what somebody else has read from it before, if anything: the head of its first request. The shards take
    /// turns. `client` is where the client is, as a [`Request`](crate::messages::Request) says it:
    /// `HOST:PORT`, `[V6]:PORT` or `unix:`; empty, it is what the socket says. One that comes while the engine drains is
    /// answered so.
    ///
    /// # Errors
    /// [`EngineError::WelcomeFailed`]: no connected stream socket, one of the spare descriptors, or a client that is none;
    /// [`EngineError::NotRunning`]. The descriptor is still the caller's.
    pub fn welcome(&self, fd: RawFd, client: &str, read: &[u8]) -> Result<(), EngineError> {
        self.check_running()?;
        let failed = |cause| EngineError::WelcomeFailed { fd, cause };
        if client.len() > CLIENT_BYTES_MAX || !client.bytes().all(|byte| byte.is_ascii_graphic()) {
            let text = format!("client must be at most {CLIENT_BYTES_MAX} bytes of visible ASCII");
            return Err(failed(std::io::Error::new(std::io::ErrorKind::InvalidInput, text)));
        }
        if fd >= socket::spare_from(self.common.settings.descriptors_spare) {
            return Err(failed(std::io::Error::from_raw_os_error(libc::EMFILE)));
        }
        let taken = socket::take_over(fd).map_err(failed)?;
        let shard = &self.shards[self.welcomed.fetch_add(1, Ordering::Relaxed) % self.shards.len()];
        let client = (!client.is_empty()).then(|| client.into());
        let command = match read {
            [] => Command::Welcome(taken, client),
            _ => Command::HandOver(taken, read.to_vec(), client),
        };
        self.hand_in(shard, command);
        Ok(())
    }
}
