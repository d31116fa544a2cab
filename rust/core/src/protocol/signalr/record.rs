//! The inbound stream of hub messages: bytes in, whole records out, however they were cut into frames.
//!
//! What lies whole in the caller's bytes is handed out from there. Only what is cut is copied, into a buffer that
//! exists no longer than that record: an idle connection keeps one pointer.
use super::hub_protocol::HubProtocol;
use super::json::SEPARATOR;
use super::msgpack::{BODY_BYTES_MAX, PREFIX_BYTES_MAX};

/// The reference's bound on one record, its separator or length included: 32 KiB. A client cannot raise it; a server
/// that takes more holds as much for each client that sends slowly.
pub const RECORD_BYTES_MAX: usize = 32 * 1024;

/// Why a stream of records cannot go on: the peer's misdeed, to be answered as a
/// [`MessageError`](super::MessageError) is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A record above the bound.
    #[error("record has at least {record_bytes} bytes, at most {bytes_max} are taken")]
    TooBig {
        /// What the length announces, or in JSON one more than the bound; with length or separator.
        record_bytes: u64,
        /// The bound.
        bytes_max: usize,
    },
    /// A length above 31 bits.
    #[error("length of a record is {prefix:02x?}, expected a VarInt of at most 5 bytes and 31 bits")]
    BadLength {
        /// How it begins.
        prefix: [u8; PREFIX_BYTES_MAX],
    },
}

/// Cuts one connection's inbound stream into records.
#[derive(Debug)]
pub struct RecordReceiver {
    /// How records end or begin.
    protocol: HubProtocol,
    /// What has begun and is not whole; boxed so that an idle connection pays a pointer.
    partial: Option<Box<PartialRecord>>,
}

const _: () = assert!(size_of::<RecordReceiver>() <= 16, "every connection has one");

/// How long the first of these records is, with its separator or length: they are whole, and were written here.
pub(crate) fn record_bytes(protocol: HubProtocol, records: &[u8]) -> usize {
    let end = match protocol {
        HubProtocol::Json => memchr::memchr(SEPARATOR, records).map(|end| end + 1),
        HubProtocol::MessagePack => parse_prefix(records, usize::MAX).ok().flatten().map(|prefix| prefix.record_bytes),
    };
    end.unwrap_or(records.len()).min(records.len())
}

/// A record that came in pieces.
#[derive(Debug, Default)]
struct PartialRecord {
    /// What has come of it, in MessagePack with its length; grows with what has come, never with what was announced.
    bytes: Vec<u8>,
    /// Whether the caller looks at it, so that the next call gives it back.
    is_handed_out: bool,
}

impl RecordReceiver {
    /// A receiver at the start of a stream. Handshakes are JSON whatever follows.
    #[must_use]
    pub const fn new(protocol: HubProtocol) -> Self {
        Self { protocol, partial: None }
    }

    /// Reads what follows the last record in another protocol: to be called once the handshake has been read.
    pub fn set_protocol(&mut self, protocol: HubProtocol) {
        self.give_back();
        self.protocol = protocol;
    }

    /// Takes some of `bytes`; gives how many were taken and the record that became whole, without separator or length.
    ///
    /// Call it again with the rest until nothing becomes whole: then all bytes are taken. How the bytes are cut changes
    /// neither records nor errors, and the work is linear in them. `record_bytes_max` counts separator and length. A
    /// record that came in pieces costs at most twice what has come of it.
    ///
    /// ```
    /// use fanwire_core::protocol::signalr::{HubProtocol, RECORD_BYTES_MAX, RecordReceiver};
    ///
    /// let mut receiver = RecordReceiver::new(HubProtocol::Json);
    /// let frame = b"{\"protocol\":\"messagepack\",\"version\":1}\x1e\x02\x91\x06\x02";
    /// let (mut taken, handshake) = receiver.receive(frame, RECORD_BYTES_MAX)?;
    /// assert_eq!(handshake.map(<[u8]>::len), Some(38));
    ///
    /// receiver.set_protocol(HubProtocol::MessagePack);
    /// let (more, ping) = receiver.receive(&frame[taken..], RECORD_BYTES_MAX)?;
    /// assert_eq!(ping, Some(&b"\x91\x06"[..]));
    /// taken += more;
    /// assert_eq!(receiver.receive(&frame[taken..], RECORD_BYTES_MAX)?, (1, None));
    /// assert!(receiver.is_mid_record());
    /// # Ok::<(), fanwire_core::protocol::signalr::RecordError>(())
    /// ```
    ///
    /// # Errors
    /// [`RecordError`]: end the connection. The receiver must not be used after it.
    pub fn receive<'a>(
        &'a mut self,
        bytes: &'a [u8],
        record_bytes_max: usize,
    ) -> Result<(usize, Option<&'a [u8]>), RecordError> {
        self.give_back();
        match self.protocol {
            HubProtocol::Json => self.receive_separated(bytes, record_bytes_max),
            HubProtocol::MessagePack => self.receive_prefixed(bytes, record_bytes_max),
        }
    }

    /// Whether a record has begun that is not whole.
    #[must_use]
    pub fn is_mid_record(&self) -> bool {
        self.partial.as_ref().is_some_and(|partial| !partial.is_handed_out)
    }

    /// Frees what the last [`receive`](Self::receive) handed out, for a caller that stops without another call.
    pub fn give_back(&mut self) {
        if self.partial.as_ref().is_some_and(|partial| partial.is_handed_out) {
            self.partial = None;
        }
    }

    /// Forgets what has begun: the stream begins anew, in the same protocol.
    pub fn forget(&mut self) {
        self.partial = None;
    }

    fn receive_separated<'a>(
        &'a mut self,
        bytes: &'a [u8],
        bytes_max: usize,
    ) -> Result<(usize, Option<&'a [u8]>), RecordError> {
        let held_bytes = self.partial.as_ref().map_or(0, |partial| partial.bytes.len());
        let room_bytes = bytes_max.saturating_sub(held_bytes);
        let window = &bytes[..bytes.len().min(room_bytes)];
        let end = memchr::memchr(SEPARATOR, window);
        let Some(end) = end else {
            if window.len() == room_bytes {
                return Err(RecordError::TooBig { record_bytes: bytes_max as u64 + 1, bytes_max });
            }
            if !bytes.is_empty() {
                self.partial.get_or_insert_default().bytes.extend_from_slice(bytes);
            }
            return Ok((bytes.len(), None));
        };
        if held_bytes == 0 {
            return Ok((end + 1, Some(&bytes[..end])));
        }
        let partial = self.partial.get_or_insert_default();
        partial.bytes.extend_from_slice(&bytes[..end]);
        partial.is_handed_out = true;
        Ok((end + 1, Some(&partial.bytes)))
    }

    fn receive_prefixed<'a>(
        &'a mut self,
        bytes: &'a [u8],
        bytes_max: usize,
    ) -> Result<(usize, Option<&'a [u8]>), RecordError> {
        if self.partial.is_none() {
            let prefix = parse_prefix(bytes, bytes_max)?;
            if let Some(Prefix { prefix_bytes, record_bytes }) =
                prefix.filter(|prefix| prefix.record_bytes <= bytes.len())
            {
                return Ok((record_bytes, Some(&bytes[prefix_bytes..record_bytes])));
            }
            if bytes.is_empty() {
                return Ok((0, None));
            }
        }
        let partial = self.partial.get_or_insert_default();
        let mut taken = 0;
        let prefix = loop {
            if let Some(prefix) = parse_prefix(&partial.bytes, bytes_max)? {
                break prefix;
            }
            let Some(&byte) = bytes.get(taken) else {
                return Ok((taken, None));
            };
            partial.bytes.push(byte);
            taken += 1;
        };
        let missing_bytes = prefix.record_bytes - partial.bytes.len();
        let piece_bytes = missing_bytes.min(bytes.len() - taken);
        partial.bytes.extend_from_slice(&bytes[taken..taken + piece_bytes]);
        taken += piece_bytes;
        if piece_bytes < missing_bytes {
            return Ok((taken, None));
        }
        partial.is_handed_out = true;
        Ok((taken, Some(&partial.bytes[prefix.prefix_bytes..])))
    }
}

/// What a length says.
struct Prefix {
    prefix_bytes: usize,
    /// With the length itself.
    record_bytes: usize,
}

/// Reads the length at the front of `bytes`: a VarInt, least significant bits first. `None` while it is not all there.
fn parse_prefix(bytes: &[u8], bytes_max: usize) -> Result<Option<Prefix>, RecordError> {
    let mut body_bytes = 0_u64;
    for (index, &byte) in bytes.iter().take(PREFIX_BYTES_MAX).enumerate() {
        body_bytes |= u64::from(byte & 0x7f) << (7 * index);
        let is_last = byte & 0x80 == 0;
        let prefix_bytes = index + 1;
        if body_bytes > u64::from(BODY_BYTES_MAX) || (!is_last && prefix_bytes == PREFIX_BYTES_MAX) {
            let mut prefix = [0; PREFIX_BYTES_MAX];
            prefix[..prefix_bytes].copy_from_slice(&bytes[..prefix_bytes]);
            return Err(RecordError::BadLength { prefix });
        }
        if is_last {
            let record_bytes = body_bytes + prefix_bytes as u64;
            return match usize::try_from(record_bytes) {
                Ok(record_bytes) if record_bytes <= bytes_max => Ok(Some(Prefix { prefix_bytes, record_bytes })),
                _ => Err(RecordError::TooBig { record_bytes, bytes_max }),
            };
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_receiver_holds_no_buffer() {
        for (protocol, record) in [(HubProtocol::Json, &b"{}\x1e"[..]), (HubProtocol::MessagePack, b"\x02\x91\x06")] {
            let mut receiver = RecordReceiver::new(protocol);
            for byte in record {
                receiver.receive(std::slice::from_ref(byte), 10).unwrap();
                assert!(receiver.partial.is_some());
            }
            assert!(!receiver.is_mid_record());
            receiver.give_back();
            assert!(receiver.partial.is_none());
        }
    }

    #[test]
    fn an_announced_length_costs_nothing_until_its_bytes_come() {
        let mut receiver = RecordReceiver::new(HubProtocol::MessagePack);
        assert_eq!(receiver.receive(b"\xff\xff\xff\xff\x07abc", usize::MAX), Ok((8, None)));
        assert!(receiver.partial.as_ref().unwrap().bytes.capacity() <= 16);
    }
}
