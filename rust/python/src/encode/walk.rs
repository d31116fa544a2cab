//! The walk: which kind each object is, and what is inside it. Knows no format's bytes.
//!
//! Reads with borrowed references where that is sound, which is where no Python code can run between the look and the
//! last use. Code can run in a `dict` subclass's `items`, a `tzinfo`, and (up to 3.11) whatever the collector finalises
//! when something is allocated: so everything but plain values is held while it is walked, sizes are looked at again, and
//! an error's path is read from the bytes already written. Free-threaded builds take owned references to a `list`'s items
//! and walk a copy of a `dict`'s pairs.

use super::DEPTH_MAX;
use super::error::{EncodeError, Step};
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::c_int;
use std::ptr::{addr_of_mut, null_mut};
use std::slice;

/// A format: how each kind of value is appended. Static, one instance of the walk each.
pub(super) trait Format {
    /// As messages name it.
    const NAME: &'static str;
    fn null(out: &mut Vec<u8>);
    fn boolean(out: &mut Vec<u8>, value: bool);
    fn int(out: &mut Vec<u8>, value: i64);
    fn float(out: &mut Vec<u8>, value: f64) -> Result<(), EncodeError>;
    /// `text` is UTF-8.
    fn text(out: &mut Vec<u8>, text: &[u8]) -> Result<(), EncodeError>;
    /// Everything that is not a plain value, a `dict`, a `list` or a `tuple`, such as an `int` beyond `i64`.
    fn other(out: &mut Vec<u8>, object: &Bound<'_, PyAny>, kind: Kind) -> Result<(), EncodeError>;
    fn array_start(out: &mut Vec<u8>, count: usize) -> Result<(), EncodeError>;
    /// Before each item.
    fn item(out: &mut Vec<u8>, index: usize);
    fn array_end(out: &mut Vec<u8>);
    fn map_start(out: &mut Vec<u8>, count: usize) -> Result<(), EncodeError>;
    /// The `index`th key, UTF-8, and what stands around it.
    fn text_key(out: &mut Vec<u8>, index: usize, text: &[u8]) -> Result<(), EncodeError>;
    /// The `index`th key, which is no `str`, and what stands around it.
    fn other_key(
        out: &mut Vec<u8>,
        index: usize,
        key: &Bound<'_, PyAny>,
        kind: Kind,
        depth: usize,
    ) -> Result<(), EncodeError>;
    fn map_end(out: &mut Vec<u8>);
    /// The path's step for the bytes that `text_key` or `other_key` wrote.
    fn step(key: &[u8]) -> Step;
}

/// What an object is, subclasses included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Int,
    Float,
    Boolean,
    Null,
    Dict,
    /// Of a class derived from `dict`: its order and pairs are what its `items` says (`OrderedDict.move_to_end`).
    DictDerived,
    List,
    Tuple,
    Bytes,
    Other,
}

impl Kind {
    /// # Safety
    /// `object` is alive and the thread attached.
    #[inline(always)]
    pub(super) unsafe fn of(object: *mut ffi::PyObject) -> Self {
        // SAFETY: the object is alive (this function's contract); the addresses of the types are only compared.
        unsafe {
            let class = ffi::Py_TYPE(object);
            if class == addr_of_mut!(ffi::PyUnicode_Type) {
                Self::Text
            } else if class == addr_of_mut!(ffi::PyLong_Type) {
                Self::Int
            } else if class == addr_of_mut!(ffi::PyFloat_Type) {
                Self::Float
            } else if class == addr_of_mut!(ffi::PyBool_Type) {
                Self::Boolean
            } else if class == addr_of_mut!(ffi::PyDict_Type) {
                Self::Dict
            } else if class == addr_of_mut!(ffi::PyList_Type) {
                Self::List
            } else if object == ffi::Py_None() {
                Self::Null
            } else {
                Self::of_derived(class)
            }
        }
    }

    /// # Safety
    /// `class` is alive and the thread attached.
    #[cold]
    unsafe fn of_derived(class: *mut ffi::PyTypeObject) -> Self {
        // SAFETY: the class is alive (this function's contract); reads its flags.
        let flags = unsafe { ffi::PyType_GetFlags(class) };
        for (flag, kind) in [
            (ffi::Py_TPFLAGS_TUPLE_SUBCLASS, Self::Tuple),
            (ffi::Py_TPFLAGS_UNICODE_SUBCLASS, Self::Text),
            (ffi::Py_TPFLAGS_LONG_SUBCLASS, Self::Int),
            (ffi::Py_TPFLAGS_DICT_SUBCLASS, Self::DictDerived),
            (ffi::Py_TPFLAGS_LIST_SUBCLASS, Self::List),
            (ffi::Py_TPFLAGS_BYTES_SUBCLASS, Self::Bytes),
        ] {
            if flags & flag != 0 {
                return kind;
            }
        }
        // SAFETY: both are classes and alive; looks along the first's MRO, runs no Python code.
        if unsafe { ffi::PyType_IsSubtype(class, addr_of_mut!(ffi::PyFloat_Type)) } != 0 {
            Self::Float
        } else {
            Self::Other
        }
    }
}

/// Appends `object` to `out`.
pub(super) fn walk<F: Format>(object: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    walk_at::<F>(object, 0, out)
}

/// Appends `object`, inside `depth` containers, to `out`.
pub(super) fn walk_at<F: Format>(
    object: &Bound<'_, PyAny>,
    depth: usize,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    // SAFETY: the caller's Bound keeps the object alive and proves that the thread is attached.
    unsafe { value::<F>(object.py(), object.as_ptr(), depth, out) }
}

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
        Ok(slice::from_raw_parts(bytes.cast(), len as usize))
    }
}

/// Whether `object` gives its bytes through the buffer protocol (`bytearray`, `memoryview`, `array`, numpy's arrays).
pub(crate) fn has_buffer(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: alive and attached, as Bound proves; looks at a slot of the type.
    unsafe { ffi::PyObject_CheckBuffer(object.as_ptr()) != 0 }
}

/// # Safety
/// `object` is alive until it is first read to its end or held: nothing before that runs Python code.
#[inline(always)]
unsafe fn value<F: Format>(
    py: Python<'_>,
    object: *mut ffi::PyObject,
    depth: usize,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    // SAFETY: this function's contract, passed on; each call gets the kind that it asks for.
    unsafe {
        let kind = Kind::of(object);
        match kind {
            Kind::Text => return F::text(out, utf8(py, object)?),
            Kind::Int => {
                let mut overflow: c_int = 0;
                let int = ffi::PyLong_AsLongLongAndOverflow(object, &raw mut overflow);
                if overflow == 0 {
                    F::int(out, int);
                    return Ok(());
                }
            }
            Kind::Float => return F::float(out, ffi::PyFloat_AsDouble(object)),
            Kind::Boolean => {
                F::boolean(out, object == ffi::Py_True());
                return Ok(());
            }
            Kind::Null => {
                F::null(out);
                return Ok(());
            }
            _ => {}
        }
        nested::<F>(&Bound::from_borrowed_ptr(py, object), kind, depth, out)
    }
}

/// What is not plain, held by the caller.
fn nested<F: Format>(
    object: &Bound<'_, PyAny>,
    kind: Kind,
    depth: usize,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    if !matches!(kind, Kind::Dict | Kind::DictDerived | Kind::List | Kind::Tuple) {
        return F::other(out, object, kind);
    }
    if depth >= DEPTH_MAX {
        return Err(EncodeError::unsupported_value(format!("nesting exceeds {DEPTH_MAX}")));
    }
    match kind {
        Kind::Dict if !cfg!(Py_GIL_DISABLED) => dict::<F>(object, depth + 1, out),
        Kind::Dict | Kind::DictDerived => pairs::<F>(object, depth + 1, out),
        Kind::List => list::<F>(object, depth + 1, out),
        _ => tuple::<F>(object, depth + 1, out),
    }
}

#[inline(never)]
fn list<F: Format>(list: &Bound<'_, PyAny>, depth: usize, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let (py, list) = (list.py(), list.as_ptr());
    // SAFETY: the caller holds the list. An item is borrowed only while no Python code runs, or is held by `nested`;
    // without a GIL it is owned. PyList_GetItem looks at the bounds each time.
    unsafe {
        let count = ffi::PyList_Size(list) as usize;
        F::array_start(out, count)?;
        for index in 0..count {
            #[cfg(not(Py_GIL_DISABLED))]
            let item = ffi::PyList_GetItem(list, index as ffi::Py_ssize_t);
            #[cfg(Py_GIL_DISABLED)]
            let owned =
                Bound::from_owned_ptr_or_opt(py, ffi::compat::PyList_GetItemRef(list, index as ffi::Py_ssize_t));
            #[cfg(Py_GIL_DISABLED)]
            let item = owned.as_ref().map_or(null_mut(), Bound::as_ptr);
            if item.is_null() {
                drop(PyErr::take(py));
                return Err(changed("list"));
            }
            F::item(out, index);
            value::<F>(py, item, depth, out).map_err(|error| error.at(Step::Index(index)))?;
        }
        if ffi::PyList_Size(list) as usize != count {
            return Err(changed("list"));
        }
    }
    F::array_end(out);
    Ok(())
}

#[inline(never)]
fn tuple<F: Format>(tuple: &Bound<'_, PyAny>, depth: usize, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let (py, tuple) = (tuple.py(), tuple.as_ptr());
    // SAFETY: the caller holds the tuple, and a tuple holds its items for as long as it lives.
    unsafe {
        let count = ffi::PyTuple_Size(tuple) as usize;
        F::array_start(out, count)?;
        for index in 0..count {
            let item = ffi::PyTuple_GetItem(tuple, index as ffi::Py_ssize_t);
            F::item(out, index);
            value::<F>(py, item, depth, out).map_err(|error| error.at(Step::Index(index)))?;
        }
    }
    F::array_end(out);
    Ok(())
}

#[inline(never)]
fn dict<F: Format>(dict: &Bound<'_, PyAny>, depth: usize, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let (py, dict) = (dict.py(), dict.as_ptr());
    let (mut position, mut key, mut item) = (0, null_mut(), null_mut());
    // SAFETY: the caller holds the dict, and the GIL is held: key and value are alive until Python code runs, which is
    // `pair`'s to look after. PyDict_Next looks at the bounds each time, and the count ends a dict that grows.
    unsafe {
        let count = ffi::PyDict_Size(dict) as usize;
        F::map_start(out, count)?;
        let mut index = 0;
        while ffi::PyDict_Next(dict, &raw mut position, &raw mut key, &raw mut item) != 0 {
            if index == count {
                return Err(changed("dict"));
            }
            pair::<F>(py, key, item, index, depth, out)?;
            index += 1;
        }
        if index != count {
            return Err(changed("dict"));
        }
    }
    F::map_end(out);
    Ok(())
}

/// A `dict` by way of a list of its pairs: what `items` of a derived class says, or a copy where there is no GIL.
#[inline(never)]
fn pairs<F: Format>(dict: &Bound<'_, PyAny>, depth: usize, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let py = dict.py();
    // SAFETY: the caller holds the dict; the result is a new list or null with an exception.
    let items = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyMapping_Items(dict.as_ptr())) }
        .map_err(EncodeError::raised)?;
    // SAFETY: the list is ours. Each pair is held, so its key and value are alive whatever runs.
    unsafe {
        let count = ffi::PyList_Size(items.as_ptr()) as usize;
        F::map_start(out, count)?;
        for index in 0..count {
            let item = ffi::PyList_GetItem(items.as_ptr(), index as ffi::Py_ssize_t);
            let Some(item) = Bound::from_borrowed_ptr_or_opt(py, item) else {
                drop(PyErr::take(py));
                return Err(changed("list of a dict's items"));
            };
            if ffi::PyTuple_Check(item.as_ptr()) == 0 || ffi::PyTuple_Size(item.as_ptr()) != 2 {
                let class = class_name(dict);
                return Err(EncodeError::unsupported_value(format!("items() of {class} gives no pairs")));
            }
            let (key, item) = (ffi::PyTuple_GetItem(item.as_ptr(), 0), ffi::PyTuple_GetItem(item.as_ptr(), 1));
            pair::<F>(py, key, item, index, depth, out)?;
        }
    }
    F::map_end(out);
    Ok(())
}

/// # Safety
/// `key` and `item` are alive until Python code runs.
#[inline(always)]
unsafe fn pair<F: Format>(
    py: Python<'_>,
    key: *mut ffi::PyObject,
    item: *mut ffi::PyObject,
    index: usize,
    depth: usize,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let start = out.len();
    // SAFETY: a str's bytes are read before anything runs; both are held before another key's code may run.
    unsafe {
        let kind = Kind::of(key);
        let mut _held = None;
        if kind == Kind::Text {
            F::text_key(out, index, utf8(py, key)?)?;
        } else {
            _held = Some(Bound::from_borrowed_ptr(py, item));
            F::other_key(out, index, &Bound::from_borrowed_ptr(py, key), kind, depth)?;
        }
        let end = out.len();
        value::<F>(py, item, depth, out).map_err(|error| error.at(F::step(&out[start..end])))
    }
}

/// The refusal of `object` for its type.
#[cold]
pub(super) fn unsupported<F: Format>(object: &Bound<'_, PyAny>) -> EncodeError {
    EncodeError::unsupported_type(format!("Object of type {} is not {} serializable", class_name(object), F::NAME))
}

/// The name of an object's class; runs no Python code of the object's.
pub(super) fn class_name(object: &Bound<'_, PyAny>) -> String {
    object.get_type().name().map_or_else(|_| "?".into(), |name| name.to_string())
}

#[cold]
fn changed(what: &str) -> EncodeError {
    EncodeError::unsupported_value(format!("{what} changed its size while it was encoded"))
}
