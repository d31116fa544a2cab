//! A Python object to JSON or MessagePack bytes, one walk, appended to a `Vec<u8>`.
//!
//! [`walk`] knows Python's objects and no format; [`json`](mod@json) and [`msgpack`](mod@msgpack) know a format's bytes
//! and, but for the few types that only one of them has, no object. What they accept and refuse is what users of
//! Python's `json` and `msgpack` expect. Three things differ: NaN and infinities are refused in JSON, nesting ends at
//! [`DEPTH_MAX`], an aware `datetime` is a MessagePack timestamp (extension -1) without being asked for.
//!
//! An error leaves what was written so far in the buffer: who called truncates or drops it. No input panics.
#![allow(unsafe_code)] // the walk reads borrowed references; the formats write behind one capacity check

mod error;
mod json;
mod msgpack;
mod walk;

pub(crate) use error::EncodeError;
pub(crate) use walk::has_buffer;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Containers inside one another, the outermost counted; one more is refused, and so every circle is.
pub(crate) const DEPTH_MAX: usize = 128;

/// Bytes set aside before an object's size is known: glibc serves them from the thread's own cache.
const CAPACITY_START: usize = 1024;

/// Appends `object` to `out` as JSON (RFC 8259): UTF-8, no spaces, nothing escaped that needn't be.
///
/// Takes `dict`, `list`, `tuple`, `str`, `int`, `float`, `bool`, `None` and what derives from them. Keys of a `dict`
/// that are `int`, `float`, `bool` or `None` become strings as `json.dumps` makes them. An `int` may have any size; a
/// `float` is written with the fewest digits that read back as the same number.
///
/// # Errors
/// `UnsupportedType` for any other type, of a value or of a key. `UnsupportedValue` for NaN and infinities, a lone
/// surrogate, an `int` over `sys.set_int_max_str_digits`, nesting over [`DEPTH_MAX`], and a container that changes
/// meanwhile. What Python code of a `dict`'s subclass (`items`) raises passes through.
pub(crate) fn json(object: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    walk::walk::<json::Json<false>>(object, out)
}

/// Appends `object` to `out` as [`json`](fn@json) does, and takes bytes, as base64, and `datetime`, as ISO 8601, too.
///
/// # Errors
/// Those of [`json`](fn@json).
pub(crate) fn hub_json(object: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    walk::walk::<json::Json<true>>(object, out)
}

/// Appends `object` to `out` as MessagePack, each value in its smallest form: the bytes of `msgpack.packb(object)`.
///
/// Takes what [`json`](fn@json) takes, and `bytes`, `bytearray` and `memoryview` as bin; keys of a `dict` may be anything
/// that is accepted as a value. A `datetime` that knows its offset becomes a timestamp (extension -1), as with
/// `packb(…, datetime=True)`. NaN and infinities are float64 like any other.
///
/// # Errors
/// `UnsupportedType` for any other type. `UnsupportedValue` for an `int` outside -2**63 to 2**64 - 1, a lone surrogate, a
/// naive `datetime`, more than 2**32 - 1 bytes or entries, nesting over [`DEPTH_MAX`], and a container that changes
/// meanwhile. What Python code of a `dict`'s subclass or of a `tzinfo` raises passes through.
pub(crate) fn msgpack(object: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    walk::walk::<msgpack::MessagePack>(object, out)
}

/// [`json`](fn@json) as a new `bytes` object.
pub(crate) fn json_bytes<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    bytes_of(object, json)
}

/// [`msgpack`](fn@msgpack) as a new `bytes` object.
pub(crate) fn msgpack_bytes<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    bytes_of(object, msgpack)
}

fn bytes_of<'py>(
    object: &Bound<'py, PyAny>,
    encode: impl Fn(&Bound<'_, PyAny>, &mut Vec<u8>) -> Result<(), EncodeError>,
) -> PyResult<Bound<'py, PyBytes>> {
    let mut out = Vec::with_capacity(CAPACITY_START);
    match encode(object, &mut out) {
        Ok(()) => Ok(PyBytes::new(object.py(), &out)),
        Err(error) => Err(error.into_pyerr(object.py())),
    }
}
