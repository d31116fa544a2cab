//! Strings and names of Python, as bytes.
use super::error::EncodeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;
use std::slice;

/// The UTF-8 of a `str`, in place. It is kept with the object (CPython caches that of a `str` beyond ASCII).
///
/// # Safety
/// `text` is a `str` (or derived), alive as long as the result is used.
#[inline(always)]
pub(super) unsafe fn utf8<'a>(py: Python<'_>, text: *mut ffi::PyObject) -> Result<&'a [u8], EncodeError> {
    let mut len = 0;
    // SAFETY: a str, alive (this function's contract); the bytes belong to it and never change.
    unsafe {
        let bytes = ffi::PyUnicode_AsUTF8AndSize(text, &raw mut len);
        if bytes.is_null() {
            return Err(EncodeError::text(py, PyErr::fetch(py)));
        }
        check_len(len as usize)?;
        Ok(slice::from_raw_parts(bytes.cast(), len as usize))
    }
}

/// The UTF-8 of a `str` that is held.
pub(super) fn text_of<'a>(text: &'a Bound<'_, PyString>) -> Result<&'a [u8], EncodeError> {
    // SAFETY: a str, alive as long as the result.
    unsafe { utf8(text.py(), text.as_ptr()) }
}

/// MessagePack's lengths have 32 bits; what is longer would be over any bound of a hub, too.
#[inline(always)]
pub(super) fn check_len(len: usize) -> Result<(), EncodeError> {
    if len > u32::MAX as usize { Err(too_long(len)) } else { Ok(()) }
}

#[cold]
fn too_long(len: usize) -> EncodeError {
    EncodeError::unsupported_value(format!("{len} bytes or entries exceed the bound of {}", u32::MAX))
}

/// The name of an object's class; runs no Python code of the object's.
pub(super) fn class_name(object: &Bound<'_, PyAny>) -> String {
    object.get_type().name().map_or_else(|_| "?".into(), |name| name.to_string())
}
