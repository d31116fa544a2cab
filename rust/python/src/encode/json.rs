//! JSON's bytes (RFC 8259): what `json.dumps(…, ensure_ascii=False, separators=(",", ":"))` gives, but for floats'
//! exponents (`1e16`, Python's `repr` says `1e+16`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::Step;
use super::lower::Duration;
use super::rules::CAPACITY_START;
use super::rules::{DecimalForm, DurationForm, Forms};
use super::walk::{Key, Sink};

/// RFC 8259.
pub(super) struct Json {
    pub(super) out: Vec<u8>,
    forms: Forms,
}

impl Json {
    pub(super) fn new(forms: Forms) -> Self {
        Self { out: Vec::with_capacity(CAPACITY_START), forms }
    }

    fn quoted(&mut self, text: &[u8]) {
        quoted::<false>(&mut self.out, 0, text);
    }
}

impl Sink for Json {
    const WANTS_SECONDS: bool = false;

    #[inline(always)]
    fn null(&mut self) {
        short(&mut self.out, *b"null\0\0\0\0", 4);
    }

    #[inline(always)]
    fn boolean(&mut self, value: bool) {
        short(&mut self.out, if value { *b"true\0\0\0\0" } else { *b"false\0\0\0" }, 5 - usize::from(value));
    }

    #[inline(always)]
    fn int(&mut self, value: i64) {
        if (0..100).contains(&value) {
            let tens = value as u8 / 10;
            let digits = [b'0' + tens, b'0' + value as u8 % 10];
            let [first, second] = if tens == 0 { [digits[1], 0] } else { digits };
            short(&mut self.out, [first, second, 0, 0, 0, 0, 0, 0], 1 + usize::from(tens != 0));
        } else {
            self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        }
    }

    fn unsigned(&mut self, value: u64) {
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    fn digits(&mut self, digits: &[u8]) {
        self.out.extend_from_slice(digits);
    }

    #[inline(always)]
    fn float(&mut self, value: f64) {
        if !float_of_few_places(&mut self.out, value) {
            self.out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes());
        }
    }

    #[inline(always)]
    fn text(&mut self, text: &[u8]) {
        quoted::<false>(&mut self.out, 0, text);
    }

    fn binary(&mut self, bytes: &[u8]) {
        self.quoted(STANDARD.encode(bytes).as_bytes());
    }

    fn instant(&mut self, text: &[u8], _since: (i64, u32)) {
        self.quoted(text);
    }

    fn decimal(&mut self, digits: &[u8]) {
        match self.forms.decimal {
            DecimalForm::Text => self.quoted(digits),
            DecimalForm::Number => self.out.extend_from_slice(digits),
        }
    }

    fn duration(&mut self, duration: &Duration) {
        match self.forms.duration {
            DurationForm::Iso8601 => self.quoted(duration.iso8601.as_bytes()),
            DurationForm::Dotnet => self.quoted(duration.dotnet().as_bytes()),
        }
    }

    #[inline(always)]
    fn array_start(&mut self, _count: usize) {
        self.out.push(b'[');
    }

    #[inline(always)]
    fn item(&mut self, index: usize) {
        if index != 0 {
            self.out.push(b',');
        }
    }

    #[inline(always)]
    fn array_end(&mut self) {
        self.out.push(b']');
    }

    #[inline(always)]
    fn map_start(&mut self, _count: usize) {
        self.out.push(b'{');
    }

    #[inline(always)]
    fn text_key(&mut self, index: usize, text: &[u8]) {
        quoted::<true>(&mut self.out, index, text);
    }

    /// Numbers as values have them; `None` and `bool` as `json.dumps` writes them.
    fn other_key(&mut self, index: usize, key: &Key<'_>) {
        match key {
            Key::Instant(text, _) => return self.text_key(index, text),
            Key::Binary(bytes) => return self.text_key(index, STANDARD.encode(bytes).as_bytes()),
            Key::Duration(duration) => {
                let text = match self.forms.duration {
                    DurationForm::Iso8601 => duration.iso8601.clone(),
                    DurationForm::Dotnet => duration.dotnet(),
                };
                return self.text_key(index, text.as_bytes());
            }
            _ => self.out.extend_from_slice(if index == 0 { b"\"" } else { b",\"" }),
        }
        match *key {
            Key::Int(value) => self.int(value),
            Key::Unsigned(value) => self.unsigned(value),
            Key::Digits(digits) => self.digits(digits),
            Key::Float(value) => self.float(value),
            Key::Boolean(value) => self.boolean(value),
            _ => self.null(),
        }
        self.out.extend_from_slice(b"\":");
    }

    #[inline(always)]
    fn map_end(&mut self) {
        self.out.push(b'}');
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.out.len()
    }

    /// The text between the quotes, escapes as they are.
    #[cold]
    fn step(&self, start: usize, end: usize) -> Step {
        let key = &self.out[start..end];
        let key = key.strip_prefix(b",").unwrap_or(key);
        let key = key.strip_prefix(b"\"").unwrap_or(key);
        let key = key.strip_suffix(b"\":").unwrap_or(key);
        Step::Key(String::from_utf8_lossy(key).into_owned())
    }
}

/// Prices, odds and percentages: at most three digits after the point and twelve before. Says whether it wrote.
///
/// If `n / 1000.0`, which IEEE 754 rounds correctly, gives `value` again, then n thousandths read back as `value`; and
/// with at most 15 digits no other decimal that short does, so these are the shortest digits.
#[inline(always)]
fn float_of_few_places(out: &mut Vec<u8>, value: f64) -> bool {
    let size = value.abs();
    if size >= 1e11 {
        return false;
    }
    let thousandths = (size * 1000.0 + 0.5) as u64;
    if thousandths as f64 / 1000.0 != size {
        return false;
    }
    let (whole, places) = (thousandths / 1000, (thousandths % 1000) as u32);
    if whole >= 10 || value.is_sign_negative() {
        if value.is_sign_negative() {
            out.push(b'-');
        }
        out.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes());
    } else {
        short(out, [b'0' + whole as u8, 0, 0, 0, 0, 0, 0, 0], 1);
    }
    let digit = |n: u32| b'0' + (n % 10) as u8;
    let [tenths, hundredths, rest] = [digit(places / 100), digit(places / 10), digit(places)];
    let used = 2 + usize::from(hundredths != b'0' || rest != b'0') + usize::from(rest != b'0');
    short(out, [b'.', tenths, hundredths, rest, 0, 0, 0, 0], used);
    true
}

/// Appends the first `used` of eight bytes: one store instead of a copy of unknown length.
#[inline(always)]
fn short(out: &mut Vec<u8>, bytes: [u8; 8], used: usize) {
    assert!(used <= 8);
    out.reserve(8);
    let len = out.len();
    // SAFETY: room for all eight was made above, and the length covers no more than what was written.
    unsafe {
        out.as_mut_ptr().add(len).cast::<[u8; 8]>().write(bytes);
        out.set_len(len + used);
    }
}

/// `"text"`, escaped; as the `index`th key with the comma before and the colon after.
#[inline(always)]
fn quoted<const IS_KEY: bool>(out: &mut Vec<u8>, index: usize, text: &[u8]) {
    out.reserve(text.len() + 4);
    let start = out.len();
    // SAFETY: room for the text and four bytes more was made above; the length covers what was written.
    unsafe {
        let mut end = out.as_mut_ptr().add(start);
        if IS_KEY {
            end.write(b',');
            end = end.add(usize::from(index != 0));
        }
        end.write(b'"');
        end = end.add(1);
        if copy_plain(text, end) {
            end = end.add(text.len());
            end.write(b'"');
            if IS_KEY {
                end.add(1).write(b':');
            }
            out.set_len(end.offset_from_unsigned(out.as_ptr()) + 1 + usize::from(IS_KEY));
            return;
        }
        out.set_len(end.offset_from_unsigned(out.as_ptr()));
    }
    escaped(out, text);
    out.extend_from_slice(if IS_KEY { b"\":" } else { b"\"" });
}

/// Copies `text` to `to`, up to where something needs an escape, and says whether nothing does.
///
/// # Safety
/// `to` has room for all of `text`.
#[inline(always)]
unsafe fn copy_plain(text: &[u8], to: *mut u8) -> bool {
    let (from, len) = (text.as_ptr(), text.len());
    // SAFETY: each block begins and ends inside `text`, and so inside the room at `to`; the last may overlap the one
    // before it.
    unsafe {
        if len >= 16 {
            let mut at = 0;
            while at + 16 < len {
                if copy_block16(from.add(at), to.add(at)) {
                    return false;
                }
                at += 16;
            }
            !copy_block16(from.add(len - 16), to.add(len - 16))
        } else if len >= 8 {
            let (head, tail) = (from.cast::<u64>().read_unaligned(), from.add(len - 8).cast::<u64>().read_unaligned());
            to.cast::<u64>().write_unaligned(head);
            to.add(len - 8).cast::<u64>().write_unaligned(tail);
            special(head) | special(tail) == 0
        } else if len >= 4 {
            let (head, tail) = (from.cast::<u32>().read_unaligned(), from.add(len - 4).cast::<u32>().read_unaligned());
            to.cast::<u32>().write_unaligned(head);
            to.add(len - 4).cast::<u32>().write_unaligned(tail);
            special(u64::from(head) | u64::from(tail) << 32) == 0
        } else if len > 0 {
            let (middle, last) = (len / 2, len - 1);
            let bytes = [*from, *from.add(middle), *from.add(last)];
            to.write(bytes[0]);
            to.add(middle).write(bytes[1]);
            to.add(last).write(bytes[2]);
            bytes.iter().all(|byte| ESCAPES[*byte as usize] == 0)
        } else {
            true
        }
    }
}

/// Copies 16 bytes and says whether one of them needs an escape.
///
/// # Safety
/// 16 bytes may be read at `from` and written at `to`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn copy_block16(from: *const u8, to: *mut u8) -> bool {
    use std::arch::x86_64::{
        _mm_cmpeq_epi8, _mm_loadu_si128, _mm_max_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8, _mm_storeu_si128,
    };
    // SAFETY: the caller answers for the 16 bytes; SSE2 is part of x86_64.
    unsafe {
        let block = _mm_loadu_si128(from.cast());
        _mm_storeu_si128(to.cast(), block);
        let space = _mm_set1_epi8(0x1f);
        let control = _mm_cmpeq_epi8(_mm_max_epu8(block, space), space);
        let quote = _mm_cmpeq_epi8(block, _mm_set1_epi8(b'"' as i8));
        let backslash = _mm_cmpeq_epi8(block, _mm_set1_epi8(b'\\' as i8));
        _mm_movemask_epi8(_mm_or_si128(control, _mm_or_si128(quote, backslash))) != 0
    }
}

/// Copies 16 bytes and says whether one of them needs an escape.
///
/// # Safety
/// 16 bytes may be read at `from` and written at `to`.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
unsafe fn copy_block16(from: *const u8, to: *mut u8) -> bool {
    // SAFETY: the caller answers for the 16 bytes.
    unsafe {
        let (head, tail) = (from.cast::<u64>().read_unaligned(), from.cast::<u64>().add(1).read_unaligned());
        std::ptr::copy_nonoverlapping(from, to, 16);
        special(head) | special(tail) != 0
    }
}

/// Not zero if one of the eight bytes is a control character, `"` or `\`. Bytes beyond ASCII are none of these.
#[inline(always)]
fn special(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    let below = |word: u64, bound: u64| word.wrapping_sub(bound * ONES) & !word & HIGH;
    below(word, 0x20) | below(word ^ (0x22 * ONES), 1) | below(word ^ (0x5c * ONES), 1)
}

/// What follows the backslash, `u` for `\u00XX`, 0 for what stays as it is (RFC 8259 §7).
static ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 0x20 {
        table[at] = b'u';
        at += 1;
    }
    table[0x08] = b'b';
    table[0x09] = b't';
    table[0x0a] = b'n';
    table[0x0c] = b'f';
    table[0x0d] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

/// Appends `text`, which has something to escape: the runs between as they are.
#[cold]
fn escaped(out: &mut Vec<u8>, text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut run = 0;
    for (at, byte) in text.iter().enumerate() {
        let escape = ESCAPES[*byte as usize];
        if escape == 0 {
            continue;
        }
        out.extend_from_slice(&text[run..at]);
        run = at + 1;
        if escape == b'u' {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[(byte >> 4) as usize], HEX[(byte & 15) as usize]]);
        } else {
            out.extend_from_slice(&[b'\\', escape]);
        }
    }
    out.extend_from_slice(&text[run..]);
}
