//! One WebSocket whose socket is somebody else's: bytes in, messages out, and messages framed; with permessage-deflate.
//!
//! The engine's own connections need none: they write frames of a log, and what their clients compress takes no context over
//! ([`receive_alone`]).
use super::deflate::{DeflateAgreement, Deflater, Inflater, inflate_alone};
use super::frame::{Opcode, header_bytes, write_compressed, write_header};
use super::message::{Compressible, ReceiveError, Received, Receiver, read_data};

/// What a message has to have at least to be deflated, in bytes: below it little is won, and each costs a compressor's reset.
pub const DEFLATED_BYTES_MIN: usize = 256;

/// How many bytes the buffer of a connection keeps that waits for its peer.
const IDLE_BYTES_MAX: usize = 4 * 1024;

/// The state of one connection after its handshake.
#[derive(Debug)]
pub struct Codec {
    receiver: Receiver,
    /// What was agreed, and the client's side of it.
    deflate: Option<(DeflateAgreement, Inflater)>,
    /// Of one message, inflated.
    message_bytes_max: usize,
    /// What the caller had no room for, from `taken` on.
    rest: Vec<u8>,
    taken: usize,
    /// The peer's Close came, or a misdeed: nothing is heard any more.
    is_over: bool,
}

impl Codec {
    /// A connection right after the handshake; no message of the client's has more than `message_bytes_max` bytes.
    pub fn new(message_bytes_max: usize, deflate: Option<DeflateAgreement>) -> Self {
        Self {
            receiver: Receiver::new(),
            deflate: deflate.map(|agreement| (agreement, agreement.inflater())),
            message_bytes_max,
            rest: Vec::new(),
            taken: 0,
            is_over: false,
        }
    }

    /// Takes `bytes`, after what was left over, and hands out what becomes whole.
    ///
    /// It stops behind `messages_max` messages, or once these have [`message_bytes_max`](Self::new) bytes together; what
    /// is left over then [waits](Self::has_rest) for the next call, which may bring nothing new. Control frames count
    /// for nothing. After the peer's Close or an error all is dropped.
    ///
    /// # Errors
    /// [`ReceiveError`]: fail the connection with its close code. What was heard before it counts.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        messages_max: usize,
        mut hear: impl FnMut(Received<'_>),
    ) -> Result<(), ReceiveError> {
        if self.is_over {
            return Ok(());
        }
        let mut buffer = std::mem::take(&mut self.rest);
        let mut taken = std::mem::take(&mut self.taken);
        buffer.extend_from_slice(bytes);
        let (mut messages, mut message_bytes) = (0, 0);
        let mut inflated = Vec::new();
        while messages < messages_max && message_bytes < self.message_bytes_max.max(1) {
            inflated.clear();
            let received = self.take(&mut buffer[taken..], &mut taken, &mut inflated);
            let received = match received {
                Ok(Some(received)) => received,
                Ok(None) => break,
                Err(error) => {
                    self.is_over = true;
                    return Err(error);
                }
            };
            let is_close = matches!(received, Received::Close { .. });
            if let Received::Text(_) | Received::Binary(_) = received {
                messages += 1;
                message_bytes += match received {
                    Received::Text(text) => text.len(),
                    Received::Binary(bytes) => bytes.len(),
                    _ => 0,
                };
            }
            hear(received);
            if is_close {
                self.is_over = true;
                return Ok(());
            }
        }
        self.receiver.give_back();
        if taken < buffer.len() {
            (self.rest, self.taken) = (buffer, taken);
        } else if buffer.capacity() <= IDLE_BYTES_MAX {
            buffer.clear();
            self.rest = buffer;
        }
        Ok(())
    }

    /// Takes up to one message or control frame, and moves `taken` behind it.
    fn take<'a>(
        &'a mut self,
        bytes: &'a mut [u8],
        taken: &mut usize,
        inflated: &'a mut Vec<u8>,
    ) -> Result<Option<Received<'a>>, ReceiveError> {
        let Some((_, inflater)) = &mut self.deflate else {
            let (more, received) = self.receiver.receive(bytes, self.message_bytes_max)?;
            *taken += more;
            return Ok(received);
        };
        let inflate = |deflated: &[u8], bytes_max, out: &mut Vec<u8>| inflater.inflate(deflated, bytes_max, out);
        let (more, received) =
            receive_inflated(&mut self.receiver, (bytes, self.message_bytes_max), inflated, inflate)?;
        *taken += more;
        Ok(received)
    }

    /// Whether bytes are left over that the next [`receive`](Self::receive) looks at.
    pub fn has_rest(&self) -> bool {
        self.taken < self.rest.len()
    }

    /// Appends a server's whole frame of one message; deflated by `deflater` where that was agreed and makes it shorter.
    pub fn write_message(&self, opcode: Opcode, payload: &[u8], deflater: &mut Deflater, out: &mut Vec<u8>) {
        if let Some((agreement, _)) = &self.deflate
            && payload.len() >= DEFLATED_BYTES_MIN
        {
            let mut deflated = Vec::with_capacity(payload.len());
            deflater.deflate(agreement.server_window_bits(), payload, &mut deflated);
            if deflated.len() < payload.len() {
                return write_compressed(out, opcode, &deflated);
            }
        }
        out.reserve(header_bytes(payload.len()) + payload.len());
        write_header(out, opcode, payload.len());
        out.extend_from_slice(payload);
    }
}

/// [`Receiver::receive`] where permessage-deflate was agreed and each message refers to none before it; one that was compressed
/// is appended to `inflated`. What it stands for has `message_bytes_max` bytes at most.
///
/// # Errors
/// [`ReceiveError`], as of [`Receiver::receive`] and of [`inflate_alone`].
pub fn receive_alone<'a>(
    receiver: &'a mut Receiver,
    bytes: &'a mut [u8],
    message_bytes_max: usize,
    inflated: &'a mut Vec<u8>,
) -> Result<(usize, Option<Received<'a>>), ReceiveError> {
    receive_inflated(receiver, (bytes, message_bytes_max), inflated, inflate_alone)
}

/// The bound is of what a message stands for; its data may be longer where nothing was won.
fn receive_inflated<'a>(
    receiver: &'a mut Receiver,
    (bytes, bytes_max): (&'a mut [u8], usize),
    inflated: &'a mut Vec<u8>,
    inflate: impl FnOnce(&[u8], usize, &mut Vec<u8>) -> Result<(), ReceiveError>,
) -> Result<(usize, Option<Received<'a>>), ReceiveError> {
    let (taken, received) = receiver.receive_compressible(bytes, deflated_bytes_max(bytes_max))?;
    let received = match received {
        None => None,
        Some(Compressible::Plain(received)) => {
            let message_bytes = match received {
                Received::Text(text) => text.len(),
                Received::Binary(bytes) => bytes.len(),
                _ => 0,
            };
            if message_bytes > bytes_max {
                return Err(ReceiveError::MessageTooBig { message_bytes: message_bytes as u64, bytes_max });
            }
            Some(received)
        }
        Some(Compressible::Compressed { is_text, deflated }) => {
            inflate(deflated, bytes_max, inflated)?;
            Some(read_data(is_text, inflated)?)
        }
    };
    Ok((taken, received))
}

/// How long data gets that nothing is won of: a header for each stored block, of a few KiB with the smallest windows.
const fn deflated_bytes_max(bytes: usize) -> usize {
    bytes.saturating_add(bytes / 64).saturating_add(64)
}
