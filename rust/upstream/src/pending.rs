//! Which calls wait for their completion, on either side.
use std::collections::{HashMap, HashSet};

use fanwire_core::protocol::signalr::{HubMessage, HubProtocol, MessageError, RecordReceiver, parse_message};

/// What the ids of calls that wait may cost in one session, with 64 bytes for each call; more ends the session.
pub const PENDING_BYTES_MAX: usize = 1024 * 1024;

/// What a call costs besides its id.
const CALL_BYTES: usize = 64;

/// Why bytes can't be sent: the caller's mistake, or a client's whose bytes it passes on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OutgoingError {
    #[error("a record to send: {0}")]
    Message(#[from] MessageError),
    #[error("{bytes} bytes to send end inside a record")]
    Cut { bytes: usize },
    #[error("a record to send: {0}")]
    Record(#[from] fanwire_core::protocol::signalr::RecordError),
    #[error("calls that wait for their completion take {bytes} bytes, at most {bytes_max} are kept")]
    TooMany { bytes: usize, bytes_max: usize },
}

/// The calls of one session.
#[derive(Default)]
pub(crate) struct Pending {
    /// Ours. Plain ids may repeat.
    calls: HashMap<Box<str>, u32>,
    /// Client results that the server asked for.
    asked: HashMap<Box<str>, u32>,
    /// Those of our calls whose end is to be reported.
    reported: HashSet<Box<str>>,
    /// What they cost, the last aside.
    bytes: usize,
}

impl Pending {
    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.asked.is_empty()
    }

    /// Whether the end of this call is to be reported.
    pub(crate) fn is_reported(&self, id: &str) -> bool {
        self.reported.contains(id)
    }

    /// A completion came; whether it is of a call of ours.
    pub(crate) fn complete(&mut self, id: &str) -> bool {
        self.reported.remove(id);
        remove(&mut self.calls, &mut self.bytes, id)
    }

    /// The server asked for a client result.
    pub(crate) fn ask(&mut self, id: &str) -> Result<(), OutgoingError> {
        insert(&mut self.asked, &mut self.bytes, id);
        self.check()
    }

    /// Takes note of what goes out, whole records; gives those that a server may be sent. Types that no server knows
    /// what to do with are left out, as are pings and Close: a session has its own. Calls of `reported` methods are
    /// noted as such.
    pub(crate) fn go_out(
        &mut self,
        protocol: HubProtocol,
        bytes: Vec<u8>,
        reported: Option<&HashSet<String>>,
    ) -> Result<Vec<u8>, OutgoingError> {
        let mut receiver = RecordReceiver::new(protocol);
        let mut kept = Vec::new();
        let (mut at, mut kept_to) = (0, 0);
        let mut malformed = None;
        while at < bytes.len() {
            let (taken, record) = receiver.receive(&bytes[at..], usize::MAX)?;
            let record = record.ok_or(OutgoingError::Cut { bytes: bytes.len() })?;
            // Those behind a malformed one are noted, too: with the session they fail.
            let is_kept = match parse_message(protocol, record) {
                Ok(message) => self.note(&message, reported),
                Err(error) => {
                    malformed.get_or_insert(error);
                    false
                }
            };
            if !is_kept {
                kept.extend_from_slice(&bytes[kept_to..at]);
                kept_to = at + taken;
            }
            at += taken;
        }
        if let Some(error) = malformed {
            return Err(error.into());
        }
        self.check()?;
        if kept_to == 0 {
            return Ok(bytes);
        }
        kept.extend_from_slice(&bytes[kept_to..]);
        Ok(kept)
    }

    /// Ids of calls, those in bytes that never went out among them.
    pub(crate) fn into_ids(mut self, protocol: HubProtocol, unsent: impl Iterator<Item = Vec<u8>>) -> Vec<String> {
        for bytes in unsent {
            // What is malformed holds no more calls: it would have ended the session.
            let _ = self.go_out(protocol, bytes, None);
        }
        let repeated = self.calls.into_iter();
        repeated.flat_map(|(id, count)| std::iter::repeat_n(String::from(id), count as usize)).collect()
    }

    /// Whether a server may be sent this.
    fn note(&mut self, message: &HubMessage<'_>, reported: Option<&HashSet<String>>) -> bool {
        match message {
            HubMessage::Invocation { id: Some(id), target, .. }
                if reported.is_some_and(|methods| methods.contains(&target.to_lowercase())) =>
            {
                insert(&mut self.calls, &mut self.bytes, id);
                self.reported.insert((&**id).into());
            }
            HubMessage::Invocation { id: Some(id), .. } | HubMessage::StreamInvocation { id, .. } => {
                insert(&mut self.calls, &mut self.bytes, id);
            }
            HubMessage::Completion { id, .. } => {
                remove(&mut self.asked, &mut self.bytes, id);
            }
            HubMessage::Invocation { id: None, .. }
            | HubMessage::StreamItem { .. }
            | HubMessage::CancelInvocation { .. } => {}
            _ => return false,
        }
        true
    }

    fn check(&self) -> Result<(), OutgoingError> {
        let (bytes, bytes_max) = (self.bytes, PENDING_BYTES_MAX);
        if bytes > bytes_max { Err(OutgoingError::TooMany { bytes, bytes_max }) } else { Ok(()) }
    }
}

fn insert(calls: &mut HashMap<Box<str>, u32>, bytes: &mut usize, id: &str) {
    *bytes += id.len() + CALL_BYTES;
    match calls.get_mut(id) {
        Some(count) => *count += 1,
        None => drop(calls.insert(id.into(), 1)),
    }
}

fn remove(calls: &mut HashMap<Box<str>, u32>, bytes: &mut usize, id: &str) -> bool {
    let Some(count) = calls.get_mut(id) else { return false };
    *bytes -= id.len() + CALL_BYTES;
    *count -= 1;
    if *count == 0 {
        calls.remove(id);
    }
    true
}
