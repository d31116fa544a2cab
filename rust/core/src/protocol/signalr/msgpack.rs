//! Hub messages as MessagePack arrays: arguments are walked over, not read, without recursion.
use std::borrow::Cow;

use smallvec::SmallVec;

use super::message::{HubMessage, MSGPACK_DEPTH_MAX, MessageError, Outcome};

/// How many bytes of VarInt may say a length, and how long a record may be at most.
pub(super) const PREFIX_BYTES_MAX: usize = 5;
/// The most that a length may say.
pub(super) const BODY_BYTES_MAX: u32 = i32::MAX as u32;

const NIL: u8 = 0xc0;
const FALSE: u8 = 0xc2;
const TRUE: u8 = 0xc3;

/// Kinds of a completion.
const KIND_ERROR: u8 = 1;
const KIND_VOID: u8 = 2;
const KIND_RESULT: u8 = 3;

/// As [`parse_message`](super::parse_message).
pub(super) fn parse(record: &[u8]) -> Result<HubMessage<'_>, MessageError> {
    let mut reader = MsgpackReader { rest: record };
    let left = reader.read_array_head("message")?;
    let mut elements = Elements { reader, left };
    let message_type = elements.read_int("type")?;
    let message = match message_type {
        1 => {
            elements.skip_headers()?;
            HubMessage::Invocation {
                id: elements.read_text_or_nil("invocationId")?.filter(|id| !id.is_empty()),
                target: elements.read_text("target")?,
                arguments: elements.read_arguments()?,
                stream_ids: elements.read_stream_ids()?,
            }
        }
        2 => HubMessage::StreamItem { id: elements.read_id()?, item: elements.read_raw("item")? },
        3 => HubMessage::Completion { id: elements.read_id()?, outcome: elements.read_outcome()? },
        4 => HubMessage::StreamInvocation {
            id: elements.read_id()?,
            target: elements.read_text("target")?,
            arguments: elements.read_arguments()?,
            stream_ids: elements.read_stream_ids()?,
        },
        5 => HubMessage::CancelInvocation { id: elements.read_id()? },
        6 => HubMessage::Ping,
        7 => HubMessage::Close {
            error: elements.read_text_or_nil("error")?,
            allow_reconnect: elements.left > 0 && elements.read_bool("allowReconnect")?,
        },
        8 => HubMessage::Ack { sequence_id: elements.read_long("sequenceId")? },
        9 => HubMessage::Sequence { sequence_id: elements.read_long("sequenceId")? },
        _ => return Ok(HubMessage::Unknown { message_type }),
    };
    elements.finish()?;
    Ok(message)
}

/// As [`write_message`](super::write_message).
pub(super) fn write(message: &HubMessage<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    write_body(message, out);
    let body_bytes = u32::try_from(out.len() - start).ok().filter(|&bytes| bytes <= BODY_BYTES_MAX);
    let (prefix, prefix_bytes) = varint(body_bytes.expect("a message is below 2 GiB, as the caller promised"));
    let body_end = out.len();
    out.extend_from_slice(&prefix[..prefix_bytes]);
    out.copy_within(start..body_end, start + prefix_bytes);
    out[start..start + prefix_bytes].copy_from_slice(&prefix[..prefix_bytes]);
}

fn write_body(message: &HubMessage<'_>, out: &mut Vec<u8>) {
    let message_type = i64::from(message.message_type());
    let mut begin = |elements: u8| {
        out.push(0x90 | elements);
        write_int(out, message_type);
        if message.is_trackable() {
            out.push(0x80);
        }
    };
    match message {
        HubMessage::Invocation { id, target, arguments, stream_ids } => {
            begin(6);
            write_call(out, id.as_deref(), target, arguments, stream_ids);
        }
        HubMessage::StreamInvocation { id, target, arguments, stream_ids } => {
            begin(6);
            write_call(out, Some(id), target, arguments, stream_ids);
        }
        HubMessage::StreamItem { id, item } => {
            begin(4);
            write_str(out, id);
            out.extend_from_slice(item);
        }
        HubMessage::Completion { id, outcome } => {
            begin(if matches!(outcome, Outcome::Void) { 4 } else { 5 });
            write_str(out, id);
            match outcome {
                Outcome::Error(error) => {
                    out.push(KIND_ERROR);
                    write_str(out, error);
                }
                Outcome::Void => out.push(KIND_VOID),
                Outcome::Result(result) => {
                    out.push(KIND_RESULT);
                    out.extend_from_slice(result);
                }
            }
        }
        HubMessage::CancelInvocation { id } => {
            begin(3);
            write_str(out, id);
        }
        HubMessage::Close { error, allow_reconnect } => {
            begin(3);
            write_text_or_nil(out, error.as_deref());
            out.push(if *allow_reconnect { TRUE } else { FALSE });
        }
        HubMessage::Ack { sequence_id } | HubMessage::Sequence { sequence_id } => {
            begin(2);
            write_int(out, *sequence_id);
        }
        HubMessage::Ping | HubMessage::Unknown { .. } => begin(1),
    }
}

fn write_call(out: &mut Vec<u8>, id: Option<&str>, target: &str, arguments: &[u8], stream_ids: &[Cow<'_, str>]) {
    write_text_or_nil(out, id);
    write_str(out, target);
    out.extend_from_slice(arguments);
    write_array_head(out, stream_ids.len());
    for id in stream_ids {
        write_str(out, id);
    }
}

pub(in crate::protocol) fn write_array_head(out: &mut Vec<u8>, count: usize) {
    match count {
        count @ 0..=15 => out.push(0x90 | count as u8),
        count => write_sized(out, [0xdc, 0xdc, 0xdd], count),
    }
}

pub(in crate::protocol) fn write_map_head(out: &mut Vec<u8>, pairs: usize) {
    match pairs {
        pairs @ 0..=15 => out.push(0x80 | pairs as u8),
        pairs => write_sized(out, [0xde, 0xde, 0xdf], pairs),
    }
}

fn write_text_or_nil(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => write_str(out, text),
        None => out.push(NIL),
    }
}

pub(in crate::protocol) fn write_str(out: &mut Vec<u8>, text: &str) {
    match text.len() {
        bytes @ 0..=31 => out.push(0xa0 | bytes as u8),
        bytes @ 32..=255 => out.extend_from_slice(&[0xd9, bytes as u8]),
        bytes => write_sized(out, [0xda, 0xda, 0xdb], bytes),
    }
    out.extend_from_slice(text.as_bytes());
}

/// Appends bytes as bin, which .NET has for `byte[]`.
pub(in crate::protocol) fn write_bin(out: &mut Vec<u8>, bytes: &[u8]) {
    match u8::try_from(bytes.len()) {
        Ok(count) => out.extend_from_slice(&[0xc4, count]),
        Err(_) => write_sized(out, [0xc4, 0xc5, 0xc6], bytes.len()),
    }
    out.extend_from_slice(bytes);
}

/// Appends the marker of a size: the second of 16 bits, the third of 32.
fn write_sized(out: &mut Vec<u8>, markers: [u8; 3], size: usize) {
    match u16::try_from(size) {
        Ok(size) => {
            out.push(markers[1]);
            out.extend_from_slice(&size.to_be_bytes());
        }
        Err(_) => {
            out.push(markers[2]);
            // Above 32 bits the body is above its own bound, which is checked at its end.
            out.extend_from_slice(&(size as u32).to_be_bytes());
        }
    }
}

/// Appends a whole number in the fewest bytes.
pub(in crate::protocol) fn write_int(out: &mut Vec<u8>, number: i64) {
    match number {
        -0x20..=0x7f => out.push(number as u8),
        0x80..=0xff => out.extend_from_slice(&[0xcc, number as u8]),
        0x100..=0xffff => write_big_endian(out, 0xcd, &(number as u16).to_be_bytes()),
        0x1_0000..=0xffff_ffff => write_big_endian(out, 0xce, &(number as u32).to_be_bytes()),
        0x1_0000_0000.. => write_big_endian(out, 0xcf, &number.to_be_bytes()),
        -0x80..=-0x21 => out.extend_from_slice(&[0xd0, number as u8]),
        -0x8000..=-0x81 => write_big_endian(out, 0xd1, &(number as i16).to_be_bytes()),
        -0x8000_0000..=-0x8001 => write_big_endian(out, 0xd2, &(number as i32).to_be_bytes()),
        ..=-0x8000_0001 => write_big_endian(out, 0xd3, &number.to_be_bytes()),
    }
}

fn write_big_endian(out: &mut Vec<u8>, marker: u8, bytes: &[u8]) {
    out.push(marker);
    out.extend_from_slice(bytes);
}

/// A length as VarInt, least significant bits first, and how many bytes that takes.
pub(super) fn varint(mut value: u32) -> ([u8; PREFIX_BYTES_MAX], usize) {
    let mut bytes = [0; PREFIX_BYTES_MAX];
    let mut count = 0;
    loop {
        let more = value > 0x7f;
        bytes[count] = (value & 0x7f) as u8 | u8::from(more) << 7;
        count += 1;
        value >>= 7;
        if !more {
            return (bytes, count);
        }
    }
}

/// The elements of a message's array, of which none is read that was not announced.
struct Elements<'a> {
    reader: MsgpackReader<'a>,
    /// How many are still to come.
    left: u32,
}

impl<'a> Elements<'a> {
    fn next(&mut self, field: &'static str) -> Result<&mut MsgpackReader<'a>, MessageError> {
        self.left = self.left.checked_sub(1).ok_or(MessageError::Missing { field })?;
        Ok(&mut self.reader)
    }

    fn read_long(&mut self, field: &'static str) -> Result<i64, MessageError> {
        self.next(field)?.read_int(field)
    }

    fn read_int(&mut self, field: &'static str) -> Result<i32, MessageError> {
        let expected = "a whole number of 32 bits";
        let number = self.read_long(field)?;
        i32::try_from(number).map_err(|_| MessageError::WrongType { field, expected, got: "a number above them" })
    }

    fn read_bool(&mut self, field: &'static str) -> Result<bool, MessageError> {
        let reader = self.next(field)?;
        match reader.read_marker(field)? {
            FALSE => Ok(false),
            TRUE => Ok(true),
            marker => Err(MessageError::WrongType { field, expected: "a boolean", got: kind(marker) }),
        }
    }

    fn read_text_or_nil(&mut self, field: &'static str) -> Result<Option<Cow<'a, str>>, MessageError> {
        let reader = self.next(field)?;
        if reader.rest.first() == Some(&NIL) {
            reader.rest = &reader.rest[1..];
            return Ok(None);
        }
        reader.read_text(field).map(|text| Some(Cow::Borrowed(text)))
    }

    /// A string that holds something.
    fn read_text(&mut self, field: &'static str) -> Result<Cow<'a, str>, MessageError> {
        let text = self.next(field)?.read_full_text(field)?;
        Ok(Cow::Borrowed(text))
    }

    /// The headers and the id behind them, which must hold something.
    fn read_id(&mut self) -> Result<Cow<'a, str>, MessageError> {
        self.skip_headers()?;
        self.read_text("invocationId")
    }

    fn skip_headers(&mut self) -> Result<(), MessageError> {
        let reader = self.next("headers")?;
        for _ in 0..reader.read_map_head("headers")? {
            reader.read_full_text("headers")?;
            reader.read_full_text("headers")?;
        }
        Ok(())
    }

    fn read_arguments(&mut self) -> Result<&'a [u8], MessageError> {
        let reader = self.next("arguments")?;
        let mut ahead = MsgpackReader { rest: reader.rest };
        ahead.read_array_head("arguments")?;
        reader.read_raw("arguments")
    }

    fn read_raw(&mut self, field: &'static str) -> Result<&'a [u8], MessageError> {
        self.next(field)?.read_raw(field)
    }

    /// An array of strings; older clients leave it out.
    fn read_stream_ids(&mut self) -> Result<Vec<Cow<'a, str>>, MessageError> {
        let field = "streamIds";
        let mut ids = Vec::new();
        if self.left > 0 {
            let reader = self.next(field)?;
            for _ in 0..reader.read_array_head(field)? {
                ids.push(Cow::Borrowed(reader.read_full_text(field)?));
            }
        }
        Ok(ids)
    }

    fn read_outcome(&mut self) -> Result<Outcome<'a>, MessageError> {
        let kind = self.read_int("result kind")?;
        match u8::try_from(kind) {
            // An error that is nil is none to the reference.
            Ok(KIND_ERROR) => Ok(self.read_text_or_nil("error")?.map_or(Outcome::Void, Outcome::Error)),
            Ok(KIND_VOID) => Ok(Outcome::Void),
            Ok(KIND_RESULT) => self.read_raw("result").map(Outcome::Result),
            _ => Err(MessageError::UnknownResultKind { kind }),
        }
    }

    /// Skips what newer versions may have added; nothing may follow.
    fn finish(mut self) -> Result<(), MessageError> {
        for _ in 0..self.left {
            self.reader.read_raw("an unknown element")?;
        }
        match self.reader.rest.len() {
            0 => Ok(()),
            bytes => Err(MessageError::TrailingBytes { bytes }),
        }
    }
}

/// Values at the front of bytes.
pub(super) struct MsgpackReader<'a> {
    rest: &'a [u8],
}

impl<'a> MsgpackReader<'a> {
    pub(super) const fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(super) const fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The first byte of what comes next.
    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The eight bytes of an integer that an `i64` does not hold, if one comes next.
    pub(super) fn take_above_63_bits(&mut self) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(9)?;
        if head[0] != 0xcf || head[1] & 0x80 == 0 {
            return None;
        }
        self.rest = rest;
        Some(&head[1..])
    }

    pub(super) fn take(&mut self, bytes: usize, field: &'static str) -> Result<&'a [u8], MessageError> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(MessageError::Truncated { field })?;
        self.rest = rest;
        Ok(taken)
    }

    fn read_marker(&mut self, field: &'static str) -> Result<u8, MessageError> {
        self.take(1, field).map(|taken| taken[0])
    }

    /// A size of 1, 2 or 4 bytes.
    pub(super) fn read_size(&mut self, bytes: usize, field: &'static str) -> Result<u32, MessageError> {
        let taken = self.take(bytes, field)?;
        Ok(taken.iter().fold(0, |size, &byte| size << 8 | u32::from(byte)))
    }

    /// How many members an array has; each takes a byte at least, or the bytes are cut off.
    pub(super) fn read_array_head(&mut self, field: &'static str) -> Result<u32, MessageError> {
        let members = match self.read_marker(field)? {
            marker @ 0x90..=0x9f => u32::from(marker & 0xf),
            0xdc => self.read_size(2, field)?,
            0xdd => self.read_size(4, field)?,
            marker => return Err(MessageError::WrongType { field, expected: "an array", got: kind(marker) }),
        };
        if members as usize > self.rest.len() {
            return Err(MessageError::Truncated { field });
        }
        Ok(members)
    }

    /// How many pairs a map has.
    pub(super) fn read_map_head(&mut self, field: &'static str) -> Result<u32, MessageError> {
        match self.read_marker(field)? {
            marker @ 0x80..=0x8f => Ok(u32::from(marker & 0xf)),
            0xde => self.read_size(2, field),
            0xdf => self.read_size(4, field),
            marker => Err(MessageError::WrongType { field, expected: "a map", got: kind(marker) }),
        }
    }

    pub(super) fn read_int(&mut self, field: &'static str) -> Result<i64, MessageError> {
        let wrong = |got| MessageError::WrongType { field, expected: "a whole number of 64 bits", got };
        let marker = self.read_marker(field)?;
        let bytes = match marker {
            0x00..=0x7f | 0xe0..=0xff => return Ok(i64::from(marker as i8)),
            0xcc..=0xcf => 1 << (marker - 0xcc),
            0xd0..=0xd3 => 1 << (marker - 0xd0),
            _ => return Err(wrong(kind(marker))),
        };
        let taken = self.take(bytes, field)?;
        let is_negative = marker >= 0xd0 && taken[0] & 0x80 != 0;
        let mut wide = [if is_negative { 0xff } else { 0 }; 8];
        wide[8 - bytes..].copy_from_slice(taken);
        let number = i64::from_be_bytes(wide);
        if marker == 0xcf && number < 0 {
            return Err(wrong("a number above them"));
        }
        Ok(number)
    }

    pub(super) fn read_text(&mut self, field: &'static str) -> Result<&'a str, MessageError> {
        let bytes = match self.read_marker(field)? {
            marker @ 0xa0..=0xbf => u32::from(marker & 0x1f),
            0xd9 => self.read_size(1, field)?,
            0xda => self.read_size(2, field)?,
            0xdb => self.read_size(4, field)?,
            marker => return Err(MessageError::WrongType { field, expected: "a string", got: kind(marker) }),
        };
        let text = self.take(bytes as usize, field)?;
        simdutf8::basic::from_utf8(text).map_err(|_| MessageError::NotUtf8 { field })
    }

    fn read_full_text(&mut self, field: &'static str) -> Result<&'a str, MessageError> {
        let text = self.read_text(field)?;
        if text.is_empty() { Err(MessageError::Empty { field }) } else { Ok(text) }
    }

    /// One value as it stands, walked over; strings in it are not looked at.
    fn read_raw(&mut self, field: &'static str) -> Result<&'a [u8], MessageError> {
        let value = self.rest;
        // How many values are still to come in each array and map that is open.
        let mut open = SmallVec::<[u64; 16]>::new();
        loop {
            let inner = self.skip_head(field)?;
            if inner > 0 {
                if inner > self.rest.len() as u64 {
                    return Err(MessageError::Truncated { field });
                }
                if open.len() == MSGPACK_DEPTH_MAX {
                    return Err(MessageError::TooDeep { depth_max: MSGPACK_DEPTH_MAX });
                }
                open.push(inner);
                continue;
            }
            while let Some(left) = open.last_mut() {
                *left -= 1;
                if *left > 0 {
                    break;
                }
                open.pop();
            }
            if open.is_empty() {
                return Ok(&value[..value.len() - self.rest.len()]);
            }
        }
    }

    /// Skips a value, or the head of an array or map; gives how many values follow in it.
    fn skip_head(&mut self, field: &'static str) -> Result<u64, MessageError> {
        let payload_bytes = match self.read_marker(field)? {
            0x00..=0x7f | 0xe0..=0xff | NIL | FALSE | TRUE => 0,
            marker @ 0x80..=0x8f => return Ok(u64::from(marker & 0xf) * 2),
            marker @ 0x90..=0x9f => return Ok(u64::from(marker & 0xf)),
            0xdc => return self.read_size(2, field).map(u64::from),
            0xdd => return self.read_size(4, field).map(u64::from),
            0xde => return self.read_size(2, field).map(|pairs| u64::from(pairs) * 2),
            0xdf => return self.read_size(4, field).map(|pairs| u64::from(pairs) * 2),
            marker @ 0xa0..=0xbf => usize::from(marker & 0x1f),
            0xc4 | 0xd9 => self.read_size(1, field)? as usize,
            0xc5 | 0xda => self.read_size(2, field)? as usize,
            0xc6 | 0xdb => self.read_size(4, field)? as usize,
            // Extensions have a byte of type before their payload.
            0xc7 => self.read_size(1, field)? as usize + 1,
            0xc8 => self.read_size(2, field)? as usize + 1,
            0xc9 => (self.read_size(4, field)? as usize).checked_add(1).ok_or(MessageError::Truncated { field })?,
            marker @ 0xcc..=0xcf => 1 << (marker - 0xcc),
            marker @ 0xd0..=0xd3 => 1 << (marker - 0xd0),
            0xca => 4,
            0xcb => 8,
            marker @ 0xd4..=0xd8 => (1 << (marker - 0xd4)) + 1,
            marker @ 0xc1 => {
                return Err(MessageError::WrongType { field, expected: "MessagePack", got: kind(marker) });
            }
        };
        self.take(payload_bytes, field).map(|_| 0)
    }
}

/// What a MessagePack value is, by its first byte.
const fn kind(marker: u8) -> &'static str {
    match marker {
        0x00..=0x7f | 0xcc..=0xd3 | 0xca | 0xcb | 0xe0..=0xff => "a number",
        0x80..=0x8f | 0xde | 0xdf => "a map",
        0x90..=0x9f | 0xdc | 0xdd => "an array",
        0xa0..=0xbf | 0xd9..=0xdb => "a string",
        NIL => "nil",
        FALSE | TRUE => "a boolean",
        0xc4..=0xc6 => "bytes",
        0xc7..=0xc9 | 0xd4..=0xd8 => "an extension",
        0xc1 => "the byte 0xc1, which is never used",
    }
}
