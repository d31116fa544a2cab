//! One form for equal values, so that what many clients ask alike is asked in bytes that none of them wrote.
//!
//! A value has such a form only where the form says all that the value said. Otherwise there is none, and whoever sent
//! it speaks for himself alone.
use std::borrow::Cow;

use serde_json::value::RawValue;

use super::hub_protocol::HubProtocol;
use super::message::JSON_DEPTH_MAX;
use super::msgpack::{MsgpackReader, write_array_head, write_bin, write_int, write_map_head, write_str};
use super::object::write_text;

/// The one form of `value`, a whole JSON text or MessagePack value; `None` where it has none.
///
/// Equal values give equal bytes, and those say what `value` said: members sorted by name, no white space, integers as
/// they are, other numbers in the shortest form that a double is read from; in MessagePack the smallest forms, and
/// doubles for floats. There is none for
///
/// - names that stand twice in an object, or differ in case only (the JSON of ASP.NET Core finds members by either);
/// - numbers that a double does not hold exactly, NaN, integers beyond 64 bits, and the integer `-0`;
/// - half a surrogate pair, and text that is no UTF-8;
/// - MessagePack's extensions, timestamps among them, and maps with names that are no strings;
/// - what nests deeper than [`JSON_DEPTH_MAX`], and what is malformed.
#[must_use]
pub fn canonical(protocol: HubProtocol, value: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(value.len());
    match protocol {
        HubProtocol::Json => {
            // Validated in one pass, without recursion; what follows relies on it.
            let text = serde_json::from_slice::<&RawValue>(value).ok()?.get();
            let mut text = JsonText { text, at: 0 };
            text.write_value(&mut out, JSON_DEPTH_MAX)?;
        }
        HubProtocol::MessagePack => {
            let mut reader = MsgpackReader::new(value);
            write_msgpack(&mut reader, &mut out, JSON_DEPTH_MAX)?;
            if !reader.is_at_end() {
                return None;
            }
        }
    }
    Some(out)
}

/// Members of an object: their names, and their values in the one form.
struct CanonicalMembers<'a>(Vec<(Cow<'a, str>, Vec<u8>)>);

impl<'a> CanonicalMembers<'a> {
    /// In the order of their names; `None` where one stands twice.
    fn sorted(self) -> Option<Vec<(Cow<'a, str>, Vec<u8>)>> {
        let Self(mut members) = self;
        let mut folded: Vec<String> = members.iter().map(|(name, _)| name.to_uppercase().to_lowercase()).collect();
        folded.sort_unstable();
        if folded.windows(2).any(|pair| pair[0] == pair[1]) {
            return None;
        }
        members.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Some(members)
    }
}

/// A JSON text that is known to be well-formed, read from `at` on.
struct JsonText<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> JsonText<'a> {
    fn peek(&mut self) -> Option<u8> {
        let rest = self.text.as_bytes().get(self.at..)?;
        self.at += rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))?;
        self.text.as_bytes().get(self.at).copied()
    }

    /// Takes `wanted` if it comes next.
    fn take(&mut self, wanted: u8) -> bool {
        let is_next = self.peek() == Some(wanted);
        self.at += usize::from(is_next);
        is_next
    }

    fn write_value(&mut self, out: &mut Vec<u8>, depth_left: usize) -> Option<()> {
        match self.peek()? {
            b'{' => self.write_object(out, depth_left.checked_sub(1)?),
            b'[' => self.write_array(out, depth_left.checked_sub(1)?),
            b'"' => {
                write_text(out, &self.read_string()?);
                Some(())
            }
            _ => write_scalar(out, self.read_scalar()),
        }
    }

    fn write_array(&mut self, out: &mut Vec<u8>, depth_left: usize) -> Option<()> {
        self.at += 1;
        out.push(b'[');
        while !self.take(b']') {
            if self.take(b',') {
                out.push(b',');
            }
            self.write_value(out, depth_left)?;
        }
        out.push(b']');
        Some(())
    }

    fn write_object(&mut self, out: &mut Vec<u8>, depth_left: usize) -> Option<()> {
        self.at += 1;
        let mut members = CanonicalMembers(Vec::new());
        while !self.take(b'}') {
            self.take(b',');
            self.peek()?;
            let name = self.read_string()?;
            self.take(b':');
            let mut value = Vec::new();
            self.write_value(&mut value, depth_left)?;
            members.0.push((name, value));
        }
        out.push(b'{');
        for (index, (name, value)) in members.sorted()?.into_iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_text(out, &name);
            out.push(b':');
            out.extend_from_slice(&value);
        }
        out.push(b'}');
        Some(())
    }

    /// The string that begins here; `None` where it holds half a surrogate pair.
    fn read_string(&mut self) -> Option<Cow<'a, str>> {
        let start = self.at;
        let mut at = start + 1;
        let mut is_plain = true;
        loop {
            at += memchr::memchr2(b'"', b'\\', self.text.as_bytes().get(at..)?)?;
            if self.text.as_bytes()[at] == b'"' {
                break;
            }
            is_plain = false;
            at += 2;
        }
        self.at = at + 1;
        if is_plain {
            return Some(Cow::Borrowed(&self.text[start + 1..at]));
        }
        serde_json::from_str(&self.text[start..self.at]).ok().map(Cow::Owned)
    }

    /// The number, `true`, `false` or `null` that begins here.
    fn read_scalar(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let end = rest.find([',', ']', '}', ' ', '\t', '\n', '\r']).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }
}

fn write_scalar(out: &mut Vec<u8>, text: &str) -> Option<()> {
    let is_integer = text.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit());
    if matches!(text, "true" | "false" | "null") {
        out.extend_from_slice(text.as_bytes());
    } else if is_integer {
        let is_held = text.parse::<u64>().is_ok() || text.parse::<i64>().is_ok();
        if !is_held || text == "-0" {
            return None;
        }
        out.extend_from_slice(text.as_bytes());
    } else {
        // Infinite beyond a double, which has no JSON.
        let shortest = serde_json::Number::from_f64(text.parse().ok()?)?.to_string();
        if Decimal::of(text)? != Decimal::of(&shortest)? {
            return None;
        }
        out.extend_from_slice(shortest.as_bytes());
    }
    Some(())
}

/// A number as it is written in JSON, for the comparison of values: zeros at either end do not count.
#[derive(PartialEq, Eq)]
struct Decimal {
    is_negative: bool,
    digits: Vec<u8>,
    /// Of the last digit.
    exponent: i64,
}

impl Decimal {
    fn of(text: &str) -> Option<Self> {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let mut exponent: i64 = exponent.parse().ok()?;
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let is_negative = whole.starts_with('-');
        let all = whole.bytes().chain(fraction.bytes()).filter(u8::is_ascii_digit);
        let mut digits: Vec<u8> = all.skip_while(|&digit| digit == b'0').collect();
        exponent = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?;
        while digits.pop_if(|digit| *digit == b'0').is_some() {
            exponent = exponent.checked_add(1)?;
        }
        if digits.is_empty() {
            exponent = 0;
        }
        Some(Self { is_negative, digits, exponent })
    }
}

fn write_msgpack(reader: &mut MsgpackReader<'_>, out: &mut Vec<u8>, depth_left: usize) -> Option<()> {
    let marker = reader.peek()?;
    match marker {
        0x00..=0x7f | 0xe0..=0xff | 0xcc..=0xcf | 0xd0..=0xd3 => write_integer(reader, out)?,
        0xc0 | 0xc2 | 0xc3 => out.extend_from_slice(reader.take(1, "value").ok()?),
        0xca | 0xcb => write_float(reader, out)?,
        0xa0..=0xbf | 0xd9..=0xdb => write_str(out, reader.read_text("value").ok()?),
        0xc4..=0xc6 => {
            reader.take(1, "value").ok()?;
            let bytes = reader.read_size(1 << (marker - 0xc4), "value").ok()? as usize;
            write_bin(out, reader.take(bytes, "value").ok()?);
        }
        0x90..=0x9f | 0xdc | 0xdd => {
            let depth_left = depth_left.checked_sub(1)?;
            let count = reader.read_array_head("value").ok()?;
            write_array_head(out, count as usize);
            for _ in 0..count {
                write_msgpack(reader, out, depth_left)?;
            }
        }
        0x80..=0x8f | 0xde | 0xdf => {
            let depth_left = depth_left.checked_sub(1)?;
            let count = reader.read_map_head("value").ok()?;
            let mut members = CanonicalMembers(Vec::new());
            for _ in 0..count {
                let name = reader.read_text("name").ok()?;
                let mut value = Vec::new();
                write_msgpack(reader, &mut value, depth_left)?;
                members.0.push((Cow::Borrowed(name), value));
            }
            write_map_head(out, count as usize);
            for (name, value) in members.sorted()? {
                write_str(out, &name);
                out.extend_from_slice(&value);
            }
        }
        _ => return None,
    }
    Some(())
}

fn write_integer(reader: &mut MsgpackReader<'_>, out: &mut Vec<u8>) -> Option<()> {
    if let Some(large) = reader.take_above_63_bits() {
        // There is one form.
        out.push(0xcf);
        out.extend_from_slice(large);
    } else {
        write_int(out, reader.read_int("value").ok()?);
    }
    Some(())
}

fn write_float(reader: &mut MsgpackReader<'_>, out: &mut Vec<u8>) -> Option<()> {
    let is_double = reader.take(1, "value").ok()? == [0xcb];
    let number = if is_double {
        f64::from_be_bytes(reader.take(8, "value").ok()?.try_into().ok()?)
    } else {
        f64::from(f32::from_be_bytes(reader.take(4, "value").ok()?.try_into().ok()?))
    };
    if number.is_nan() {
        return None;
    }
    out.push(0xcb);
    out.extend_from_slice(&number.to_be_bytes());
    Some(())
}
