//! Commands, which are lines on stdin, read in the same thread as everything else: nothing here ever waits.

use std::io;
use std::os::fd::RawFd;

use serde::Deserialize;

use crate::error::LoadError;
use crate::sys::{self, Epoll};

/// The longest command: a publish with a sequence of some 100,000 channels.
pub(crate) const COMMAND_BYTES_MAX: usize = 1 << 20;

/// A line on stdin.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Command {
    /// Count anew, until so many messages are in.
    pub(crate) expect: Option<u64>,
    /// To a child: which expectation of the parent's this is; ticks and reports carry it.
    #[serde(default)]
    pub(crate) epoch: u32,
    /// To a child: tell all counters.
    #[serde(default)]
    pub(crate) report: bool,
    /// End.
    #[serde(default)]
    pub(crate) quit: bool,
}

impl Command {
    /// Reads one line.
    pub(crate) fn parse(line: &str) -> Result<Self, LoadError> {
        serde_json::from_str(line).map_err(|error| LoadError::Command { line: line.to_owned(), why: error.to_string() })
    }
}

/// The lines of one descriptor.
pub(crate) struct Lines {
    descriptor: RawFd,
    /// A longer line is an error.
    line_bytes_max: usize,
    /// A line that has not ended yet.
    part: Vec<u8>,
    /// Regular files cannot be watched, but never wait either.
    is_always_ready: bool,
    is_ended: bool,
}

impl Lines {
    /// Watches `descriptor` through `epoll`; its events carry `token`.
    pub(crate) fn watch(epoll: &Epoll, descriptor: RawFd, token: u64, line_bytes_max: usize) -> io::Result<Self> {
        let is_always_ready = match epoll.add(descriptor, token, sys::IN) {
            Ok(()) => false,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => true,
            Err(error) => return Err(error),
        };
        Ok(Self { descriptor, line_bytes_max, part: Vec::new(), is_always_ready, is_ended: false })
    }

    /// Whether to read without an event.
    pub(crate) fn is_always_ready(&self) -> bool {
        self.is_always_ready && !self.is_ended
    }

    /// Whether the end was reached.
    pub(crate) fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Reads once; gives the lines that are now whole, without those that are empty. Call it only when readable.
    pub(crate) fn read(&mut self, epoll: &Epoll) -> io::Result<Vec<String>> {
        let mut room = [0; 65_536];
        let count = match sys::read(self.descriptor, &mut room) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        if count == 0 {
            self.is_ended = true;
            if !self.is_always_ready {
                epoll.remove(self.descriptor)?;
            }
            return Ok(take_lines(&mut self.part, b"\n"));
        }
        let lines = take_lines(&mut self.part, &room[..count]);
        if self.part.len() > self.line_bytes_max {
            let why = format!("a line has over {} bytes", self.line_bytes_max);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(lines)
    }
}

/// Adds `bytes` to the unfinished line; takes out what is whole.
fn take_lines(part: &mut Vec<u8>, bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
        part.extend_from_slice(piece);
        if part.last() == Some(&b'\n') {
            let line = String::from_utf8_lossy(part).trim().to_owned();
            part.clear();
            if !line.is_empty() {
                lines.push(line);
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_cut_anywhere_come_out_whole() {
        let text = b"{\"expect\": 5}\n\n  {\"quit\": true}\r\nrest";
        for cut in 0..text.len() {
            let mut part = Vec::new();
            let mut lines = take_lines(&mut part, &text[..cut]);
            lines.extend(take_lines(&mut part, &text[cut..]));
            assert_eq!(lines, ["{\"expect\": 5}", "{\"quit\": true}"]);
            assert_eq!(part, b"rest");
        }
    }
}
