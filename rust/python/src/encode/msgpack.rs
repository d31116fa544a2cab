//! MessagePack's bytes, each value in its smallest form (github.com/msgpack/msgpack, spec.md): `msgpack.packb`'s.

use super::error::{EncodeError, Step};
use super::walk::{Format, Kind, has_buffer, unsupported, walk_at};
use crate::buffer;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView, PyType};

/// spec.md, "Formats".
pub(super) struct MessagePack;

impl Format for MessagePack {
    const NAME: &'static str = "MessagePack";

    #[inline(always)]
    fn null(out: &mut Vec<u8>) {
        out.push(0xc0);
    }

    #[inline(always)]
    fn boolean(out: &mut Vec<u8>, value: bool) {
        out.push(0xc2 + u8::from(value));
    }

    #[inline(always)]
    fn int(out: &mut Vec<u8>, value: i64) {
        match value {
            -32..=0x7f => out.push(value as u8),
            0x80.. => unsigned(out, value as u64),
            _ => negative(out, value),
        }
    }

    #[inline(always)]
    fn float(out: &mut Vec<u8>, value: f64) -> Result<(), EncodeError> {
        tagged(out, 0xcb, value.to_bits().to_be_bytes());
        Ok(())
    }

    #[inline(always)]
    fn text(out: &mut Vec<u8>, text: &[u8]) -> Result<(), EncodeError> {
        match text.len() {
            len @ 0..32 => out.push(0xa0 | len as u8),
            len => sized(out, 0xd9, len)?,
        }
        out.extend_from_slice(text);
        Ok(())
    }

    /// An `int` up to 2**64 - 1, bytes of any kind, an aware `datetime`.
    fn other(out: &mut Vec<u8>, object: &Bound<'_, PyAny>, kind: Kind) -> Result<(), EncodeError> {
        let py = object.py();
        if kind == Kind::Int {
            let value = object.extract::<u64>().map_err(|_| int_out_of_range())?;
            unsigned(out, value);
        } else if let Ok(bytes) = object.cast::<PyBytes>() {
            binary(out, bytes.as_bytes())?;
        } else if object.is_instance_of::<PyByteArray>() || object.is_instance_of::<PyMemoryView>() {
            debug_assert!(has_buffer(object));
            binary(out, &buffer::copy(object).map_err(|error| EncodeError::value(py, error))?)?;
        } else if object.is_instance(datetime_class(py).map_err(EncodeError::raised)?).map_err(EncodeError::raised)? {
            datetime(out, object)?;
        } else {
            return Err(unsupported::<Self>(object));
        }
        Ok(())
    }

    #[inline(always)]
    fn array_start(out: &mut Vec<u8>, count: usize) -> Result<(), EncodeError> {
        match count {
            0..16 => out.push(0x90 | count as u8),
            _ => sized(out, 0xdb, count)?, // there is no array 8: 0xdc is array 16
        }
        Ok(())
    }

    #[inline(always)]
    fn item(_out: &mut Vec<u8>, _index: usize) {}

    #[inline(always)]
    fn array_end(_out: &mut Vec<u8>) {}

    #[inline(always)]
    fn map_start(out: &mut Vec<u8>, count: usize) -> Result<(), EncodeError> {
        match count {
            0..16 => out.push(0x80 | count as u8),
            _ => sized(out, 0xdd, count)?, // there is no map 8: 0xde is map 16
        }
        Ok(())
    }

    #[inline(always)]
    fn text_key(out: &mut Vec<u8>, _index: usize, text: &[u8]) -> Result<(), EncodeError> {
        Self::text(out, text)
    }

    fn other_key(
        out: &mut Vec<u8>,
        _index: usize,
        key: &Bound<'_, PyAny>,
        _kind: Kind,
        depth: usize,
    ) -> Result<(), EncodeError> {
        walk_at::<Self>(key, depth, out)
    }

    #[inline(always)]
    fn map_end(_out: &mut Vec<u8>) {}

    fn step(key: &[u8]) -> Step {
        let text = |from: usize| Step::Key(String::from_utf8_lossy(&key[from..]).into_owned());
        let number = |bytes: &[u8]| bytes.iter().fold(0, |n: u64, byte| n << 8 | u64::from(*byte));
        match key[0] {
            0xa0..=0xbf => text(1),
            0xd9 => text(2),
            0xda => text(3),
            0xdb => text(5),
            small @ 0..=0x7f => Step::Other(small.to_string()),
            small @ 0xe0.. => Step::Other((small as i8).to_string()),
            0xcc..=0xcf => Step::Other(number(&key[1..]).to_string()),
            tag @ 0xd0..=0xd3 => {
                let unused = 64 - (8 << (tag - 0xd0));
                Step::Other(((number(&key[1..]) << unused) as i64 >> unused).to_string())
            }
            0xc0 => Step::Other("None".into()),
            0xc2 => Step::Other("False".into()),
            0xc3 => Step::Other("True".into()),
            _ => Step::Other("…".into()),
        }
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
fn sized(out: &mut Vec<u8>, tag: u8, len: usize) -> Result<(), EncodeError> {
    let has_one_byte = tag == 0xd9 || tag == 0xc4;
    match len {
        0..=0xff if has_one_byte => tagged(out, tag, [len as u8]),
        0..=0xffff => tagged(out, tag + 1, (len as u16).to_be_bytes()),
        0x1_0000..=0xffff_ffff => tagged(out, tag + 2, (len as u32).to_be_bytes()),
        _ => return Err(too_long(len)),
    }
    Ok(())
}

#[cold]
fn too_long(len: usize) -> EncodeError {
    EncodeError::unsupported_value(format!("{len} bytes or entries exceed MessagePack's {}", u32::MAX))
}

#[cold]
fn int_out_of_range() -> EncodeError {
    EncodeError::unsupported_value("int is outside MessagePack's -2**63 to 2**64 - 1")
}

fn binary(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), EncodeError> {
    sized(out, 0xc4, bytes.len())?;
    out.extend_from_slice(bytes);
    Ok(())
}

pub(super) fn datetime_class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static DATETIME: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    DATETIME.import(py, "datetime", "datetime")
}

/// An aware `datetime` as timestamp 32, 64 or 96 (spec.md, "Timestamp extension type"), microseconds kept.
fn datetime(out: &mut Vec<u8>, object: &Bound<'_, PyAny>) -> Result<(), EncodeError> {
    let (seconds, nanoseconds) = since_epoch(object).map_err(EncodeError::raised)?.ok_or_else(|| {
        EncodeError::unsupported_value("datetime without an offset (tzinfo) is no point in time for MessagePack")
    })?;
    if (0..1 << 34).contains(&seconds) {
        let packed = u64::from(nanoseconds) << 34 | seconds as u64;
        if let Ok(seconds) = u32::try_from(packed) {
            out.extend_from_slice(&[0xd6, 0xff]);
            out.extend_from_slice(&seconds.to_be_bytes());
        } else {
            out.extend_from_slice(&[0xd7, 0xff]);
            out.extend_from_slice(&packed.to_be_bytes());
        }
    } else {
        out.extend_from_slice(&[0xc7, 12, 0xff]);
        out.extend_from_slice(&nanoseconds.to_be_bytes());
        out.extend_from_slice(&seconds.to_be_bytes());
    }
    Ok(())
}

/// Seconds since 1970 and nanoseconds into the last; `None` for a naive one. May run a `tzinfo`'s Python code.
fn since_epoch(object: &Bound<'_, PyAny>) -> PyResult<Option<(i64, u32)>> {
    static EPOCH: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = object.py();
    if object.call_method0(intern!(py, "utcoffset"))?.is_none() {
        return Ok(None);
    }
    let epoch = EPOCH.get_or_try_init(py, || {
        let utc = py.import("datetime")?.getattr("timezone")?.getattr("utc")?;
        PyResult::Ok(datetime_class(py)?.call1((1970, 1, 1, 0, 0, 0, 0, utc))?.unbind())
    })?;
    let since = object.sub(epoch)?;
    let days: i64 = since.getattr(intern!(py, "days"))?.extract()?;
    let seconds: i64 = since.getattr(intern!(py, "seconds"))?.extract()?;
    let microseconds: u32 = since.getattr(intern!(py, "microseconds"))?.extract()?;
    // A derived class may say anything here: saturate rather than overflow.
    Ok(Some((days.saturating_mul(86_400).saturating_add(seconds), microseconds.saturating_mul(1_000))))
}
