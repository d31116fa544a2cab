//! Frames (RFC 6455 §5): a client's header is read and its payload unmasked; a server's header and close are written.
use super::close_code::CloseCode;

/// How long the payload of a control frame may be, in bytes (RFC 6455 §5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// How long a client's header may be, in bytes: 2, a length of 8, a mask of 4.
pub const HEADER_BYTES_MAX: usize = 14;

/// The bit of a frame's first byte that permessage-deflate has (RFC 7692 §6).
pub const RSV1: u8 = 0x40;

/// What a frame is (RFC 6455 §5.2); the value is the one on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// A further fragment of the message that is under way.
    Continuation = 0x0,
    /// A text message or its first fragment.
    Text = 0x1,
    /// A binary message or its first fragment.
    Binary = 0x2,
    /// The end.
    Close = 0x8,
    /// Asks for a pong with the same payload.
    Ping = 0x9,
    /// Answers a ping, or comes unasked.
    Pong = 0xa,
}

impl Opcode {
    /// The opcode of this value, or `None` of one that is reserved.
    pub const fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    /// Whether it is Close, Ping or Pong (RFC 6455 §5.5).
    pub const fn is_control(self) -> bool {
        self as u8 >= 0x8
    }
}

/// One header of a client's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// FIN: the last or only frame of its message.
    pub is_final: bool,
    /// RSV1: the message that the frame begins is compressed (RFC 7692 §6). Only where that was agreed.
    pub is_compressed: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// What the payload is masked with (RFC 6455 §5.3).
    pub mask: [u8; 4],
    /// How long the payload is, in bytes.
    pub payload_bytes: u64,
}

/// Why a frame is refused: the peer's misdeed, which knows its [`close_code`](FrameError::close_code).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A reserved bit is set though no extension was agreed (RFC 6455 §5.2). 1002.
    #[error("reserved bits of a frame are {bits:#05b}, expected 0 without an extension")]
    ReservedBits {
        /// RSV1 RSV2 RSV3, the first of them the highest.
        bits: u8,
    },
    /// An opcode without a meaning (RFC 6455 §5.2). 1002.
    #[error("opcode of a frame is {value:#x}, which is reserved")]
    ReservedOpcode {
        /// The opcode sent.
        value: u8,
    },
    /// A control frame in fragments (RFC 6455 §5.5). 1002.
    #[error("control frame {opcode:?} is fragmented")]
    ControlFragmented {
        /// Which of the three.
        opcode: Opcode,
    },
    /// A client's frame without a mask (RFC 6455 §5.1). 1002.
    #[error("frame of a client is not masked")]
    Unmasked,
    /// A control frame above 125 bytes (RFC 6455 §5.5). 1002.
    #[error("control frame {opcode:?} announces more than {bytes_max} bytes")]
    ControlTooLong {
        /// Which of the three.
        opcode: Opcode,
        /// The bound, 125.
        bytes_max: usize,
    },
    /// A length in more bytes than it needs (RFC 6455 §5.2). 1002.
    #[error("payload length {payload_bytes} is written in {length_bytes} bytes, fewer would do")]
    LengthNotMinimal {
        /// The length announced.
        payload_bytes: u64,
        /// In how many bytes: 2 or 8.
        length_bytes: u8,
    },
    /// A length with its highest bit set (RFC 6455 §5.2). 1002.
    #[error("payload length {payload_bytes} exceeds 63 bits")]
    LengthTooLong {
        /// The length announced.
        payload_bytes: u64,
    },
    /// A payload above the caller's bound (RFC 6455 §10.4). 1009.
    #[error("frame announces {payload_bytes} bytes, at most {bytes_max} are taken")]
    TooBig {
        /// The length announced.
        payload_bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
}

impl FrameError {
    /// The close code that answers this misdeed (RFC 6455 §7.4.1).
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::TooBig { .. } => CloseCode::TOO_BIG,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }
}

/// Reads one frame header from the front of `bytes` (RFC 6455 §5.2), masked as a client's must be (§5.1).
///
/// Gives the header and its length, 6 to 14 bytes, or `None` while `bytes` holds only a part of it. A wrong header is
/// refused as soon as the wrong byte is there, so the verdict does not depend on how the bytes were cut.
/// `payload_bytes_max` bounds data frames; control frames have their own bound. Allocates nothing.
///
/// # Errors
/// [`FrameError::TooBig`] 1009; all others 1002, in the order of their bytes.
pub fn parse_header(bytes: &[u8], payload_bytes_max: u64) -> Result<Option<(Header, usize)>, FrameError> {
    parse_agreed_header(bytes, payload_bytes_max, false)
}

/// The same; with `deflates`, permessage-deflate was agreed, and RSV1 may mark the first frame of a message (RFC 7692 §6).
pub(crate) fn parse_agreed_header(
    bytes: &[u8],
    payload_bytes_max: u64,
    deflates: bool,
) -> Result<Option<(Header, usize)>, FrameError> {
    let Some(&first) = bytes.first() else {
        return Ok(None);
    };
    let is_compressed = deflates && first & RSV1 != 0 && matches!(first & 0x0f, 0x1 | 0x2);
    let (is_final, opcode) = parse_first_byte(if is_compressed { first & !RSV1 } else { first })?;
    let Some(&second) = bytes.get(1) else {
        return Ok(None);
    };
    if second & 0x80 == 0 {
        return Err(FrameError::Unmasked);
    }
    let short_length = second & 0x7f;
    if opcode.is_control() && usize::from(short_length) > CONTROL_BYTES_MAX {
        return Err(FrameError::ControlTooLong { opcode, bytes_max: CONTROL_BYTES_MAX });
    }
    let Some((payload_bytes, mask_at)) = parse_length(short_length, bytes)? else {
        return Ok(None);
    };
    if payload_bytes > payload_bytes_max && !opcode.is_control() {
        return Err(FrameError::TooBig { payload_bytes, bytes_max: payload_bytes_max });
    }
    let Some(&mask) = bytes[mask_at..].first_chunk::<4>() else {
        return Ok(None);
    };
    Ok(Some((Header { is_final, is_compressed, opcode, mask, payload_bytes }, mask_at + 4)))
}

/// How long the frame is that begins `bytes`: one that [`write_header`] began, whole.
#[must_use]
pub fn frame_bytes(bytes: &[u8]) -> usize {
    let payload_bytes = payload_bytes(bytes);
    header_bytes(payload_bytes) + payload_bytes
}

/// How long the payload of that frame is.
pub(crate) fn payload_bytes(bytes: &[u8]) -> usize {
    match usize::from(bytes[1] & 0x7f) {
        126 => usize::from(u16::from_be_bytes([bytes[2], bytes[3]])),
        127 => u64::from_be_bytes(bytes[2..10].try_into().expect("eight bytes")) as usize,
        short => short,
    }
}

/// Appends the header of a server's only and final frame of a message: FIN, no mask (RFC 6455 §5.1, §5.2).
pub fn write_header(out: &mut Vec<u8>, opcode: Opcode, payload_bytes: usize) {
    out.push(0x80 | opcode as u8);
    if let Ok(length) = u16::try_from(payload_bytes) {
        match u8::try_from(length) {
            Ok(short_length @ 0..=125) => out.push(short_length),
            _ => {
                out.push(126);
                out.extend_from_slice(&length.to_be_bytes());
            }
        }
    } else {
        out.push(127);
        out.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
    }
}

/// Appends a server's whole frame of a message that is compressed to this data (RFC 7692 §6).
pub(crate) fn write_compressed(out: &mut Vec<u8>, opcode: Opcode, data: &[u8]) {
    let begin = out.len();
    out.reserve(header_bytes(data.len()) + data.len());
    write_header(out, opcode, data.len());
    out[begin] |= RSV1;
    out.extend_from_slice(data);
}

/// The messages of bytes that are such frames, each whole and of a data frame: what they are, and their payloads.
pub(crate) fn messages(mut frames: &[u8]) -> impl Iterator<Item = (Opcode, &[u8])> {
    std::iter::from_fn(move || {
        let opcode = Opcode::from_u8(frames.first()? & 0x0f)?;
        let (frame, rest) = frames.split_at(frame_bytes(frames));
        frames = rest;
        Some((opcode, &frame[frame.len() - payload_bytes(frame)..]))
    })
}

/// How long the header is that [`write_header`] writes before a payload of `payload_bytes`: 2, 4 or 10 bytes.
pub const fn header_bytes(payload_bytes: usize) -> usize {
    match payload_bytes {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

fn parse_first_byte(first: u8) -> Result<(bool, Opcode), FrameError> {
    let reserved_bits = first >> 4 & 0b111;
    if reserved_bits != 0 {
        return Err(FrameError::ReservedBits { bits: reserved_bits });
    }
    let value = first & 0x0f;
    let opcode = Opcode::from_u8(value).ok_or(FrameError::ReservedOpcode { value })?;
    let is_final = first & 0x80 != 0;
    if opcode.is_control() && !is_final {
        return Err(FrameError::ControlFragmented { opcode });
    }
    Ok((is_final, opcode))
}

/// The payload's length and where the mask begins, or `None` while the length is not all there.
fn parse_length(short_length: u8, bytes: &[u8]) -> Result<Option<(u64, usize)>, FrameError> {
    let (payload_bytes, length_bytes, minimum) = match short_length {
        126 => match bytes[2..].first_chunk::<2>() {
            Some(&length) => (u64::from(u16::from_be_bytes(length)), 2, 126),
            None => return Ok(None),
        },
        127 => match bytes[2..].first_chunk::<8>() {
            Some(&length) => (u64::from_be_bytes(length), 8, 0x1_0000),
            None => return Ok(None),
        },
        short => return Ok(Some((u64::from(short), 2))),
    };
    if payload_bytes < minimum {
        return Err(FrameError::LengthNotMinimal { payload_bytes, length_bytes });
    }
    if payload_bytes > u64::MAX >> 1 {
        return Err(FrameError::LengthTooLong { payload_bytes });
    }
    Ok(Some((payload_bytes, 2 + usize::from(length_bytes))))
}

/// Masks or unmasks `bytes` in place; twice is not at all.
///
/// `offset` is where in the payload `bytes` begins, so that a payload may come in pieces. Works on 32 bytes at a time,
/// which the compiler turns into vector instructions; no `unsafe`, no alignment needed.
pub fn unmask(bytes: &mut [u8], mask: [u8; 4], offset: usize) {
    let phase_mask: [u8; 32] = std::array::from_fn(|index| mask[(offset.wrapping_add(index)) % 4]);
    let (blocks, rest) = bytes.as_chunks_mut::<32>();
    for block in blocks {
        for (byte, key) in block.iter_mut().zip(phase_mask) {
            *byte ^= key;
        }
    }
    for (byte, key) in rest.iter_mut().zip(phase_mask) {
        *byte ^= key;
    }
}

/// How long the reason of a close frame may be, in bytes: a control frame's 125 less the code (RFC 6455 §5.5).
pub const REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

/// Appends a server's whole close frame (RFC 6455 §5.5.1).
///
/// `reason` is cut to 123 bytes at a character's boundary. A code that may not be sent, such as
/// [`CloseCode::NO_STATUS`], gives a frame without code and reason.
pub fn write_close(out: &mut Vec<u8>, code: CloseCode, reason: &str) {
    if !code.may_be_sent() {
        write_header(out, Opcode::Close, 0);
        return;
    }
    let reason = cut_at_character(reason, REASON_BYTES_MAX);
    write_header(out, Opcode::Close, 2 + reason.len());
    out.extend_from_slice(&code.0.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

/// The longest beginning of `text` that ends between characters and has at most `bytes_max` bytes.
fn cut_at_character(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
