//! MessagePack's bytes, each value in its smallest form (github.com/msgpack/msgpack, spec.md): `msgpack.packb`'s.

use super::error::Step;
use super::lower::Duration;
use super::rules::CAPACITY_START;
use super::rules::{DurationForm, Forms};
use super::walk::{Key, Sink};

/// spec.md, "Formats".
pub(super) struct MessagePack {
    pub(super) out: Vec<u8>,
    forms: Forms,
}

impl MessagePack {
    pub(super) fn new(forms: Forms) -> Self {
        Self { out: Vec::with_capacity(CAPACITY_START), forms }
    }
}

impl Sink for MessagePack {
    const WANTS_SECONDS: bool = true;

    #[inline(always)]
    fn null(&mut self) {
        self.out.push(0xc0);
    }

    #[inline(always)]
    fn boolean(&mut self, value: bool) {
        self.out.push(0xc2 + u8::from(value));
    }

    #[inline(always)]
    fn int(&mut self, value: i64) {
        match value {
            -32..=0x7f => self.out.push(value as u8),
            0x80.. => unsigned(&mut self.out, value as u64),
            _ => negative(&mut self.out, value),
        }
    }

    fn unsigned(&mut self, value: u64) {
        unsigned(&mut self.out, value);
    }

    fn digits(&mut self, _digits: &[u8]) {
        unreachable!("the walk lets no such int through where MessagePack is on");
    }

    #[inline(always)]
    fn float(&mut self, value: f64) {
        tagged(&mut self.out, 0xcb, value.to_bits().to_be_bytes());
    }

    #[inline(always)]
    fn text(&mut self, text: &[u8]) {
        match text.len() {
            len @ 0..32 => self.out.push(0xa0 | len as u8),
            len => sized(&mut self.out, 0xd9, len),
        }
        self.out.extend_from_slice(text);
    }

    fn binary(&mut self, bytes: &[u8]) {
        sized(&mut self.out, 0xc4, bytes.len());
        self.out.extend_from_slice(bytes);
    }

    /// Timestamp 32, 64 or 96 (spec.md, "Timestamp extension type").
    fn instant(&mut self, _text: &[u8], (seconds, nanoseconds): (i64, u32)) {
        if (0..1 << 34).contains(&seconds) {
            let packed = u64::from(nanoseconds) << 34 | seconds as u64;
            if let Ok(seconds) = u32::try_from(packed) {
                self.out.extend_from_slice(&[0xd6, 0xff]);
                self.out.extend_from_slice(&seconds.to_be_bytes());
            } else {
                self.out.extend_from_slice(&[0xd7, 0xff]);
                self.out.extend_from_slice(&packed.to_be_bytes());
            }
        } else {
            self.out.extend_from_slice(&[0xc7, 12, 0xff]);
            self.out.extend_from_slice(&nanoseconds.to_be_bytes());
            self.out.extend_from_slice(&seconds.to_be_bytes());
        }
    }

    /// Its digits as text: MessagePack has no decimal numbers, and .NET reads one from text.
    fn decimal(&mut self, digits: &[u8]) {
        self.text(digits);
    }

    /// .NET has a `TimeSpan`'s ticks.
    fn duration(&mut self, duration: &Duration) {
        match self.forms.duration {
            DurationForm::Iso8601 => self.text(duration.iso8601.as_bytes()),
            DurationForm::Dotnet => self.int(duration.ticks.unwrap_or_default()),
        }
    }

    #[inline(always)]
    fn array_start(&mut self, count: usize) {
        match count {
            0..16 => self.out.push(0x90 | count as u8),
            _ => sized(&mut self.out, 0xdb, count), // there is no array 8: 0xdc is array 16
        }
    }

    #[inline(always)]
    fn item(&mut self, _index: usize) {}

    #[inline(always)]
    fn array_end(&mut self) {}

    #[inline(always)]
    fn map_start(&mut self, count: usize) {
        match count {
            0..16 => self.out.push(0x80 | count as u8),
            _ => sized(&mut self.out, 0xdd, count), // there is no map 8: 0xde is map 16
        }
    }

    #[inline(always)]
    fn text_key(&mut self, _index: usize, text: &[u8]) {
        self.text(text);
    }

    fn other_key(&mut self, _index: usize, key: &Key<'_>) {
        match *key {
            Key::Int(value) => self.int(value),
            Key::Unsigned(value) => self.unsigned(value),
            Key::Digits(digits) => self.digits(digits),
            Key::Float(value) => self.float(value),
            Key::Boolean(value) => self.boolean(value),
            Key::Null => self.null(),
            Key::Binary(bytes) => self.binary(bytes),
            Key::Instant(text, since) => self.instant(text, since),
            Key::Duration(duration) => self.duration(duration),
        }
    }

    #[inline(always)]
    fn map_end(&mut self) {}

    #[inline(always)]
    fn len(&self) -> usize {
        self.out.len()
    }

    /// Never shown: a path is told as JSON has its keys, by a walk of its own.
    #[cold]
    fn step(&self, _start: usize, _end: usize) -> Step {
        Step::Key(String::new())
    }
}

/// A tag and the big-endian bytes that belong to it, with one look at the capacity.
#[inline(always)]
fn tagged<const N: usize>(out: &mut Vec<u8>, tag: u8, bytes: [u8; N]) {
    out.reserve(16);
    out.push(tag);
    out.extend_from_slice(&bytes);
}

/// uint 8 to uint 64.
fn unsigned(out: &mut Vec<u8>, value: u64) {
    match value {
        0..=0x7f => out.push(value as u8),
        0x80..=0xff => tagged(out, 0xcc, [value as u8]),
        0x100..=0xffff => tagged(out, 0xcd, (value as u16).to_be_bytes()),
        0x1_0000..=0xffff_ffff => tagged(out, 0xce, (value as u32).to_be_bytes()),
        _ => tagged(out, 0xcf, value.to_be_bytes()),
    }
}

/// int 8 to int 64, of what no fixint holds.
fn negative(out: &mut Vec<u8>, value: i64) {
    if let Ok(value) = i8::try_from(value) {
        tagged(out, 0xd0, value.to_be_bytes());
    } else if let Ok(value) = i16::try_from(value) {
        tagged(out, 0xd1, value.to_be_bytes());
    } else if let Ok(value) = i32::try_from(value) {
        tagged(out, 0xd2, value.to_be_bytes());
    } else {
        tagged(out, 0xd3, value.to_be_bytes());
    }
}

/// A length: `tag` with one byte, the next tag with two, the one after with four. Lists and maps begin at two.
#[inline(always)]
fn sized(out: &mut Vec<u8>, tag: u8, len: usize) {
    let has_one_byte = tag == 0xd9 || tag == 0xc4;
    match len {
        0..=0xff if has_one_byte => tagged(out, tag, [len as u8]),
        0..=0xffff => tagged(out, tag + 1, (len as u16).to_be_bytes()),
        // The walk has refused what is longer than 32 bits say.
        _ => tagged(out, tag + 2, u32::try_from(len).expect("the walk has looked").to_be_bytes()),
    }
}
