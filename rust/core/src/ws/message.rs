//! The receiving half of one connection: bytes in, messages and control frames out (RFC 6455 §5.4 to §5.6, §8.1).
//!
//! What lies whole in the caller's bytes is handed out from there, unmasked in place. Only what is cut or fragmented is
//! copied, into buffers that exist no longer than that message: an idle connection keeps one pointer.
use super::close_code::CloseCode;
use super::frame::{FrameError, HEADER_BYTES_MAX, Header, Opcode, parse_agreed_header, unmask};
use super::utf8::{InvalidUtf8, Utf8Stream};

/// What became whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// A ping, to be answered with a pong of the same payload (RFC 6455 §5.5.2).
    Ping(&'a [u8]),
    /// A pong (RFC 6455 §5.5.3).
    Pong(&'a [u8]),
    /// The client's last frame; what follows it is to be dropped unread (RFC 6455 §5.5.1).
    Close {
        /// The code, which [may be received](CloseCode::may_be_received), or `None` of an empty frame.
        code: Option<CloseCode>,
        /// The reason, often empty.
        reason: &'a str,
    },
}

/// What became whole, where compression was agreed (RFC 7692).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compressible<'a> {
    /// As it is.
    Plain(Received<'a>),
    /// A message whose data is yet to be inflated; whether text is UTF-8 shows then.
    Compressed {
        /// Whether it is text.
        is_text: bool,
        /// The data, without the four bytes that every sender leaves out.
        deflated: &'a [u8],
    },
}

/// Why the connection must be failed (RFC 6455 §7.1.7): the peer's misdeed, which knows its close code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// A frame that is none. 1002.
    #[error(transparent)]
    Frame(FrameError),
    /// A message above the bound, over all its fragments (RFC 6455 §10.4). 1009.
    #[error("message has at least {message_bytes} bytes, at most {bytes_max} are taken")]
    MessageTooBig {
        /// What was received of it and what the frame at hand announces.
        message_bytes: u64,
        /// The bound.
        bytes_max: usize,
    },
    /// A text message that is not UTF-8 (RFC 6455 §8.1). 1007.
    #[error("text message is not UTF-8")]
    TextNotUtf8,
    /// A continuation where no message was begun (RFC 6455 §5.4). 1002.
    #[error("continuation frame without a message to continue")]
    NothingToContinue,
    /// A new message where the last one has not ended (RFC 6455 §5.4). 1002.
    #[error("frame {opcode:?} inside a fragmented message, expected a continuation")]
    MessageUnfinished {
        /// How the new message began.
        opcode: Opcode,
    },
    /// A close frame of one byte (RFC 6455 §5.5.1). 1002.
    #[error("close frame has 1 byte, expected none or at least 2")]
    CloseOfOneByte,
    /// The data of a compressed message is not DEFLATE's (RFC 7692 §7.2.2). 1002.
    #[error("data of a compressed message cannot be inflated")]
    NotDeflated,
    /// A close code that may not be on the wire (RFC 6455 §7.4). 1002.
    #[error("close code {code} may not be sent")]
    BadCloseCode {
        /// The code sent.
        code: CloseCode,
    },
    /// The reason of a close frame is not UTF-8 (RFC 6455 §5.5.1). 1007.
    #[error("reason of a close frame is not UTF-8")]
    ReasonNotUtf8,
}

impl ReceiveError {
    /// The close code that answers this misdeed (RFC 6455 §7.4.1).
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::Frame(error) => error.close_code(),
            Self::MessageTooBig { .. } => CloseCode::TOO_BIG,
            Self::TextNotUtf8 | Self::ReasonNotUtf8 => CloseCode::INVALID_DATA,
            Self::NothingToContinue
            | Self::MessageUnfinished { .. }
            | Self::CloseOfOneByte
            | Self::NotDeflated
            | Self::BadCloseCode { .. } => CloseCode::PROTOCOL_ERROR,
        }
    }
}

impl From<InvalidUtf8> for ReceiveError {
    fn from(_: InvalidUtf8) -> Self {
        Self::TextNotUtf8
    }
}

/// The state of one connection's receiving half.
#[derive(Debug, Default)]
pub struct Receiver {
    /// What has begun and is not whole; boxed so that an idle connection pays a pointer.
    partial: Option<Box<Partial>>,
}

const _: () = assert!(size_of::<Receiver>() <= 64, "every connection has one");

/// What has begun and is not whole: a header, a payload, a message in fragments.
#[derive(Debug, Default)]
struct Partial {
    /// The first bytes of a header whose rest has not come.
    header: [u8; HEADER_BYTES_MAX],
    /// How many of them there are.
    header_bytes: usize,
    /// The frame whose payload has not all come.
    frame: Option<PartialFrame>,
    /// The message under way; kept beyond its end while the caller looks at it.
    message: Option<PartialMessage>,
    /// The payload of a control frame that came in pieces: it may stand between the fragments of `message`.
    control: Vec<u8>,
    /// Which buffer the caller looks at, so that the next call gives it back.
    handed_out: HandedOut,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum HandedOut {
    #[default]
    Nothing,
    Message,
    Control,
}

#[derive(Debug)]
struct PartialFrame {
    header: Header,
    /// How much of the payload has come.
    received_bytes: usize,
}

#[derive(Debug)]
struct PartialMessage {
    is_text: bool,
    /// Its data is yet to be inflated: no text yet.
    is_compressed: bool,
    /// Unmasked; grows with what has come, never with what was announced.
    bytes: Vec<u8>,
    /// Whether `bytes`, if text, can still become UTF-8.
    utf8: Utf8Stream,
}

impl Receiver {
    /// A receiver at the start of a connection, right after the handshake.
    pub const fn new() -> Self {
        Self { partial: None }
    }

    /// Takes some of `bytes`, unmasking them in place; gives how many were taken and what became whole, if anything.
    ///
    /// Call it again with the rest until nothing becomes whole: then all bytes are taken, and the buffer of a message
    /// that came in pieces is given back. How the bytes are cut changes neither messages nor errors. A message that
    /// lies in `bytes` in one frame is handed out in place; others cost at most twice what has come of them,
    /// whatever is announced.
    ///
    /// ```
    /// use fanwire_core::ws::{Received, Receiver};
    ///
    /// let mut receiver = Receiver::new();
    /// let mut bytes = *b"\x81\x82\0\0\0\0Hi\x89\x80\0\0\0\0\x82";
    /// let (mut taken, mut log) = (0, Vec::new());
    /// loop {
    ///     let (more, received) = receiver.receive(&mut bytes[taken..], 64 * 1024)?;
    ///     taken += more;
    ///     match received {
    ///         Some(Received::Text(text)) => log.push(text.to_owned()),
    ///         Some(Received::Ping(_)) => log.push("ping".to_owned()),
    ///         Some(_) => {}
    ///         None => break,
    ///     }
    /// }
    /// assert_eq!(log, ["Hi", "ping"]);
    /// assert!(receiver.is_mid_message());
    /// # Ok::<(), fanwire_core::ws::ReceiveError>(())
    /// ```
    ///
    /// # Errors
    /// [`ReceiveError`]: fail the connection with its close code. The receiver must not be used after it.
    pub fn receive<'a>(
        &'a mut self,
        bytes: &'a mut [u8],
        message_bytes_max: usize,
    ) -> Result<(usize, Option<Received<'a>>), ReceiveError> {
        let (taken, whole) = self.take(bytes, message_bytes_max, false)?;
        Ok((taken, whole.map(Whole::read).transpose()?))
    }

    /// [`receive`](Self::receive) where permessage-deflate was agreed; `message_bytes_max` is of the compressed data.
    ///
    /// # Errors
    /// The same.
    pub fn receive_compressible<'a>(
        &'a mut self,
        bytes: &'a mut [u8],
        message_bytes_max: usize,
    ) -> Result<(usize, Option<Compressible<'a>>), ReceiveError> {
        let (taken, whole) = self.take(bytes, message_bytes_max, true)?;
        let read = |whole: Whole<'a>| {
            if whole.is_compressed {
                Ok(Compressible::Compressed { is_text: whole.opcode == Opcode::Text, deflated: whole.payload })
            } else {
                whole.read().map(Compressible::Plain)
            }
        };
        Ok((taken, whole.map(read).transpose()?))
    }

    fn take<'a>(
        &'a mut self,
        bytes: &'a mut [u8],
        message_bytes_max: usize,
        deflates: bool,
    ) -> Result<(usize, Option<Whole<'a>>), ReceiveError> {
        self.give_back();
        let mut taken = 0;
        loop {
            let frame = match self.partial.as_mut().and_then(|partial| partial.frame.take()) {
                Some(frame) => frame,
                None => match self.take_header(bytes, &mut taken, (message_bytes_max, deflates))? {
                    Some(header) => PartialFrame { header, received_bytes: 0 },
                    None => return Ok((taken, None)),
                },
            };
            let PartialFrame { header, received_bytes } = frame;
            let payload_at = taken;
            let missing_bytes = header.payload_bytes - received_bytes as u64;
            let piece_bytes =
                usize::try_from(missing_bytes).map_or(bytes.len() - taken, |missing| missing.min(bytes.len() - taken));
            taken += piece_bytes;
            let is_whole = piece_bytes as u64 == missing_bytes;
            unmask(&mut bytes[payload_at..taken], header.mask, received_bytes);

            let is_in_place = received_bytes == 0 && is_whole;
            let is_alone = header.opcode.is_control() || header.is_final && !self.is_in_message();
            if is_in_place && is_alone {
                let (opcode, is_compressed) = (header.opcode, header.is_compressed);
                return Ok((taken, Some(Whole { opcode, is_compressed, payload: &bytes[payload_at..taken] })));
            }

            let partial = self.partial.get_or_insert_default();
            partial.append(&header, &bytes[payload_at..taken])?;
            if !is_whole {
                let received_bytes = received_bytes + piece_bytes;
                partial.frame = Some(PartialFrame { header, received_bytes });
                return Ok((taken, None));
            }
            if header.is_final {
                let partial = self.partial.get_or_insert_default();
                return Ok((taken, Some(partial.hand_out(header.opcode)?)));
            }
        }
    }

    /// Whether something has begun that is not whole: part of a header, of a frame, or of a message in fragments.
    pub fn is_mid_message(&self) -> bool {
        self.partial.as_ref().is_some_and(|partial| {
            let message_is_cut = partial.message.is_some() && partial.handed_out != HandedOut::Message;
            partial.header_bytes > 0 || partial.frame.is_some() || message_is_cut
        })
    }

    /// Whether a message has begun, in the sense of RFC 6455 §5.4.
    fn is_in_message(&self) -> bool {
        self.partial.as_ref().is_some_and(|partial| partial.message.is_some())
    }

    /// Frees what the last [`receive`](Self::receive) handed out, and everything once nothing is partial.
    ///
    /// For a caller that stops when its bytes are at an end, without a call that finds nothing whole: the buffer of a
    /// message that came in pieces would lie there as long as the connection is idle.
    pub fn give_back(&mut self) {
        let Some(partial) = &mut self.partial else { return };
        match partial.handed_out {
            HandedOut::Nothing => {}
            HandedOut::Message => partial.message = None,
            HandedOut::Control => partial.control = Vec::new(),
        }
        partial.handed_out = HandedOut::Nothing;
        if !self.is_mid_message() {
            self.partial = None;
        }
    }

    /// Reads a header at `taken`, going on with one that was cut, and moves `taken` behind it.
    ///
    /// Gives `None` while the header is not all there; then all bytes are taken.
    fn take_header(
        &mut self,
        bytes: &[u8],
        taken: &mut usize,
        (message_bytes_max, deflates): (usize, bool),
    ) -> Result<Option<Header>, ReceiveError> {
        let message = self.partial.as_ref().and_then(|partial| partial.message.as_ref());
        let message_bytes = message.map_or(0, |message| message.bytes.len());
        let payload_bytes_max = message_bytes_max.saturating_sub(message_bytes) as u64;
        let refuse = |error| match error {
            FrameError::TooBig { payload_bytes, .. } => ReceiveError::MessageTooBig {
                message_bytes: payload_bytes + message_bytes as u64,
                bytes_max: message_bytes_max,
            },
            other => ReceiveError::Frame(other),
        };

        let rest = &bytes[*taken..];
        let known_bytes = self.partial.as_ref().map_or(0, |partial| partial.header_bytes);
        let parsed = if known_bytes == 0 {
            let parsed = parse_agreed_header(rest, payload_bytes_max, deflates).map_err(refuse)?;
            if parsed.is_none() && !rest.is_empty() {
                let partial = self.partial.get_or_insert_default();
                partial.header[..rest.len()].copy_from_slice(rest);
                partial.header_bytes = rest.len();
            }
            parsed
        } else {
            let partial = self.partial.get_or_insert_default();
            let added_bytes = rest.len().min(HEADER_BYTES_MAX - known_bytes);
            partial.header_bytes += added_bytes;
            partial.header[known_bytes..partial.header_bytes].copy_from_slice(&rest[..added_bytes]);
            let known = &partial.header[..partial.header_bytes];
            parse_agreed_header(known, payload_bytes_max, deflates).map_err(refuse)?
        };
        let Some((header, header_bytes)) = parsed else {
            *taken = bytes.len();
            return Ok(None);
        };
        *taken += header_bytes - known_bytes;
        if let Some(partial) = &mut self.partial {
            partial.header_bytes = 0;
        }
        self.check_order(&header)?;
        Ok(Some(header))
    }

    /// Refuses a data frame out of order (RFC 6455 §5.4).
    fn check_order(&self, header: &Header) -> Result<(), ReceiveError> {
        match (header.opcode, self.is_in_message()) {
            (Opcode::Continuation, false) => Err(ReceiveError::NothingToContinue),
            (opcode @ (Opcode::Text | Opcode::Binary), true) => Err(ReceiveError::MessageUnfinished { opcode }),
            _ => Ok(()),
        }
    }
}

impl Partial {
    /// Keeps one unmasked piece of a payload; refuses text at its first wrong byte.
    fn append(&mut self, header: &Header, piece: &[u8]) -> Result<(), InvalidUtf8> {
        if header.opcode.is_control() {
            self.control.extend_from_slice(piece);
            return Ok(());
        }
        let message = self.message.get_or_insert_with(|| PartialMessage {
            is_text: header.opcode == Opcode::Text,
            is_compressed: header.is_compressed,
            bytes: Vec::new(),
            utf8: Utf8Stream::new(),
        });
        if message.is_text && !message.is_compressed {
            message.utf8.push(piece)?;
        }
        message.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// Reads what has become whole from the buffer that holds it.
    fn hand_out(&mut self, opcode: Opcode) -> Result<Whole<'_>, ReceiveError> {
        if opcode.is_control() {
            self.handed_out = HandedOut::Control;
            return Ok(Whole { opcode, is_compressed: false, payload: &self.control });
        }
        self.handed_out = HandedOut::Message;
        let message = self.message.as_ref().ok_or(ReceiveError::NothingToContinue)?;
        let opcode = if message.is_text { Opcode::Text } else { Opcode::Binary };
        Ok(Whole { opcode, is_compressed: message.is_compressed, payload: &message.bytes })
    }
}

/// A message or a control frame with all its bytes, yet to be read.
struct Whole<'a> {
    opcode: Opcode,
    is_compressed: bool,
    payload: &'a [u8],
}

impl<'a> Whole<'a> {
    fn read(self) -> Result<Received<'a>, ReceiveError> {
        match self.opcode {
            Opcode::Ping => Ok(Received::Ping(self.payload)),
            Opcode::Pong => Ok(Received::Pong(self.payload)),
            Opcode::Close => read_close(self.payload),
            opcode => read_data(opcode == Opcode::Text, self.payload),
        }
    }
}

/// Reads the payload of a whole message.
pub(super) fn read_data(is_text: bool, payload: &[u8]) -> Result<Received<'_>, ReceiveError> {
    if !is_text {
        return Ok(Received::Binary(payload));
    }
    let text = simdutf8::basic::from_utf8(payload).map_err(|_| ReceiveError::TextNotUtf8)?;
    Ok(Received::Text(text))
}

/// Reads the payload of a close frame (RFC 6455 §5.5.1).
fn read_close(payload: &[u8]) -> Result<Received<'_>, ReceiveError> {
    let Some((&code, reason)) = payload.split_first_chunk::<2>() else {
        return match payload {
            [] => Ok(Received::Close { code: None, reason: "" }),
            _ => Err(ReceiveError::CloseOfOneByte),
        };
    };
    let code = CloseCode(u16::from_be_bytes(code));
    if !code.may_be_received() {
        return Err(ReceiveError::BadCloseCode { code });
    }
    let reason = std::str::from_utf8(reason).map_err(|_| ReceiveError::ReasonNotUtf8)?;
    Ok(Received::Close { code: Some(code), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_receiver_holds_no_buffer() {
        let mut receiver = Receiver::new();
        let mut frames = *b"\x01\x81\0\0\0\0a\x89\x81\0\0\0\0p\x80\x81\0\0\0\0b";
        for byte in &mut frames {
            receiver.receive(std::slice::from_mut(byte), 10).unwrap();
            assert!(receiver.partial.is_some());
        }
        assert!(!receiver.is_mid_message());
        receiver.give_back();
        assert!(receiver.partial.is_none());
    }

    #[test]
    fn an_announced_length_costs_nothing_until_its_bytes_come() {
        let mut receiver = Receiver::new();
        let mut start = *b"\x82\xff\0\0\0\0\x40\0\0\0\0\0\0\0abc";
        assert_eq!(receiver.receive(&mut start, 1 << 31), Ok((17, None)));
        let message = receiver.partial.as_ref().and_then(|partial| partial.message.as_ref()).unwrap();
        assert!(message.bytes.capacity() <= 8);
    }

    #[test]
    fn a_whole_frame_is_handed_out_from_the_callers_bytes() {
        let mut receiver = Receiver::new();
        let mut frame = *b"\x82\x83\x01\x02\x03\x04abc";
        let range = frame.as_ptr_range();
        let (_, received) = receiver.receive(&mut frame, 3).unwrap();
        let Some(Received::Binary(payload)) = received else { panic!("a message is whole") };
        assert!(range.contains(&payload.as_ptr()));
    }
}
