//! How the `data` of `publish` and `send` is read: `bytes` and `str` in place, what may change under us copied.
//!
//! Never holds another object's buffer beyond the call: what is mutable is copied while the thread is attached.

use crate::encode::error::EncodeError;
use crate::encode::kind::{has_buffer, is_plain};
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyMemoryView, PyString};

/// `data` as it goes out. What is borrowed lives as long as the object, also while the thread is detached.
pub(crate) enum Data<'a> {
    /// A `str`: text as it is.
    Text(&'a str),
    /// `bytes`: binary as it is.
    Binary(&'a [u8]),
    /// `bytearray`, `memoryview` or another buffer: binary, copied.
    Copied(Vec<u8>),
    /// Anything else: to be encoded.
    Object(&'a Bound<'a, PyAny>),
}

/// Looks at what `data` is. Copies only what may change later.
///
/// # Errors
/// `UnsupportedValue` for a `str` with a lone surrogate; what the buffer protocol raises (a released `memoryview`).
pub(crate) fn read<'a>(data: &'a Bound<'a, PyAny>) -> PyResult<Data<'a>> {
    if let Ok(text) = data.cast::<PyString>() {
        let text = text.to_str().map_err(|error| EncodeError::text(data.py(), error).into_pyerr(data.py()))?;
        Ok(Data::Text(text))
    } else if let Ok(bytes) = data.cast::<PyBytes>() {
        Ok(Data::Binary(bytes.as_bytes()))
    } else if data.is_instance_of::<PyDict>() || data.is_instance_of::<PyList>() || !has_buffer(data) || is_plain(data)
    {
        Ok(Data::Object(data))
    } else {
        copy(data).map(Data::Copied)
    }
}

/// A copy of the bytes of an object that [`has_buffer`], of any format and shape, in C order.
///
/// # Errors
/// What the object raises, as a released `memoryview` does.
pub(crate) fn copy(object: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    if let Ok(bytes) = object.cast::<PyByteArray>() {
        return Ok(bytes.to_vec());
    }
    if let Ok(buffer) = PyBuffer::<u8>::get(object) {
        return buffer.to_vec(object.py());
    }
    let bytes = PyMemoryView::from(object)?.call_method0("tobytes")?;
    Ok(bytes.cast::<PyBytes>()?.as_bytes().to_vec())
}
