//! The walk: which kind each object is, what is inside it, and whether it can be written at all. Knows no format's bytes.
//!
//! What it refuses it refuses for every format, so that what can be published never depends on who listens. A [`Sink`]
//! takes whatever comes.
//!
//! Reads with borrowed references where that is sound, which is where no Python code can run between the look and the
//! last use. Code can run in a `dict` subclass's `items`, a `tzinfo`, a hook, and (up to 3.11) whatever the collector
//! finalises when something is allocated. So everything but plain values is held while it is walked, and sizes are
//! looked at again. An error's path is read from the bytes already written. Free-threaded builds take owned references to a
//! `list`'s items and walk a copy of a `dict`'s pairs.

use super::error::{EncodeError, Step};
use super::kind::Kind;
use super::lower::{Duration, Lowered, seconds_since_epoch};
use super::rules::{DEPTH_MAX, Rules};
use super::text::{check_len, class_name, text_of, utf8};
use crate::buffer;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView};
use std::borrow::Cow;
use std::ffi::c_int;
use std::ptr::null_mut;

/// A format's bytes: how each kind of value is appended. Static, one instance of the walk each.
pub(super) trait Sink {
    /// Whether [`instant`](Self::instant) looks at the seconds, which take time to find.
    const WANTS_SECONDS: bool;
    fn null(&mut self);
    fn boolean(&mut self, value: bool);
    fn int(&mut self, value: i64);
    /// One beyond `i64`.
    fn unsigned(&mut self, value: u64);
    /// One beyond `u64`, in decimal digits. Only where MessagePack is off.
    fn digits(&mut self, digits: &[u8]);
    /// Finite.
    fn float(&mut self, value: f64);
    /// `text` is UTF-8.
    fn text(&mut self, text: &[u8]);
    fn binary(&mut self, bytes: &[u8]);
    /// A point in time: as text, and as seconds and nanoseconds since 1970.
    fn instant(&mut self, text: &[u8], since: (i64, u32));
    /// A finite decimal number's digits.
    fn decimal(&mut self, digits: &[u8]);
    fn duration(&mut self, duration: &Duration);
    fn array_start(&mut self, count: usize);
    /// Before each item.
    fn item(&mut self, index: usize);
    fn array_end(&mut self);
    fn map_start(&mut self, count: usize);
    /// The `index`th key, UTF-8, and what stands around it.
    fn text_key(&mut self, index: usize, text: &[u8]);
    /// The `index`th key, which is no text, and what stands around it.
    fn other_key(&mut self, index: usize, key: &Key<'_>);
    fn map_end(&mut self);
    /// How much is written.
    fn len(&self) -> usize;
    /// The path's step for the key that was written from `start` on.
    fn step(&self, start: usize, end: usize) -> Step;
}

/// A key of a map that is no text.
pub(super) enum Key<'a> {
    Int(i64),
    Unsigned(u64),
    Digits(&'a [u8]),
    Float(f64),
    Boolean(bool),
    Null,
    Binary(&'a [u8]),
    Instant(&'a [u8], (i64, u32)),
    Duration(&'a Duration),
}

/// One walk over one object.
pub(super) struct Walk<'e, S> {
    rules: &'e Rules,
    pub(super) sink: S,
    /// What stands here came from a pydantic model, which has a form for more.
    is_in_model: bool,
    /// Something has another form for SignalR's clients than for others.
    pub(super) has_forms: bool,
}

impl<'e, S: Sink> Walk<'e, S> {
    pub(super) fn new(rules: &'e Rules, sink: S) -> Self {
        Self { rules, sink, is_in_model: false, has_forms: false }
    }

    /// Appends `object`, inside `depth` containers.
    pub(super) fn walk(&mut self, object: &Bound<'_, PyAny>, depth: usize) -> Result<(), EncodeError> {
        // SAFETY: the caller's Bound keeps the object alive and proves that the thread is attached.
        unsafe { self.value(object.py(), object.as_ptr(), depth) }
    }

    /// # Safety
    /// `object` is alive until it is first read to its end or held: nothing before that runs Python code.
    #[inline(always)]
    unsafe fn value(&mut self, py: Python<'_>, object: *mut ffi::PyObject, depth: usize) -> Result<(), EncodeError> {
        // SAFETY: this function's contract, passed on; each call gets the kind that it asks for.
        unsafe {
            let kind = Kind::of(object);
            match kind {
                Kind::Text => {
                    self.sink.text(utf8(py, object)?);
                    return Ok(());
                }
                Kind::Int => {
                    let mut overflow: c_int = 0;
                    let int = ffi::PyLong_AsLongLongAndOverflow(object, &raw mut overflow);
                    if overflow == 0 {
                        self.sink.int(int);
                        return Ok(());
                    }
                }
                Kind::Float => {
                    let float = ffi::PyFloat_AsDouble(object);
                    if !float.is_finite() {
                        return Err(not_finite(float));
                    }
                    self.sink.float(float);
                    return Ok(());
                }
                Kind::Boolean => {
                    self.sink.boolean(object == ffi::Py_True());
                    return Ok(());
                }
                Kind::Null => {
                    self.sink.null();
                    return Ok(());
                }
                _ => {}
            }
            self.nested(&Bound::from_borrowed_ptr(py, object), kind, depth)
        }
    }

    /// What is not plain, held by the caller.
    fn nested(&mut self, object: &Bound<'_, PyAny>, kind: Kind, depth: usize) -> Result<(), EncodeError> {
        match kind {
            Kind::Dict if !cfg!(Py_GIL_DISABLED) => self.dict(object, deeper(depth)?),
            Kind::Dict | Kind::DictDerived => {
                // SAFETY: the caller holds the dict; the result is a new list or null with an exception.
                let items = unsafe { Bound::from_owned_ptr_or_err(object.py(), ffi::PyMapping_Items(object.as_ptr())) };
                self.pairs(object, &items.map_err(EncodeError::raised)?, deeper(depth)?)
            }
            Kind::List => self.list(object, deeper(depth)?),
            Kind::Tuple => self.tuple(object, deeper(depth)?),
            Kind::Int => self.big_int(object),
            _ => match bytes_of(object)? {
                Some(bytes) => {
                    self.sink.binary(&bytes);
                    Ok(())
                }
                None => self.other(object, depth),
            },
        }
    }

    #[inline(never)]
    fn list(&mut self, list: &Bound<'_, PyAny>, depth: usize) -> Result<(), EncodeError> {
        let (py, list) = (list.py(), list.as_ptr());
        // SAFETY: the caller holds the list. An item is borrowed only while no Python code runs, or is held by `nested`;
        // without a GIL it is owned. PyList_GetItem looks at the bounds each time.
        unsafe {
            let count = ffi::PyList_Size(list) as usize;
            check_len(count)?;
            self.sink.array_start(count);
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
                self.sink.item(index);
                self.value(py, item, depth).map_err(|error| error.at(Step::Index(index)))?;
            }
            if ffi::PyList_Size(list) as usize != count {
                return Err(changed("list"));
            }
        }
        self.sink.array_end();
        Ok(())
    }

    #[inline(never)]
    fn tuple(&mut self, tuple: &Bound<'_, PyAny>, depth: usize) -> Result<(), EncodeError> {
        let (py, tuple) = (tuple.py(), tuple.as_ptr());
        // SAFETY: the caller holds the tuple, and a tuple holds its items for as long as it lives.
        unsafe {
            let count = ffi::PyTuple_Size(tuple) as usize;
            check_len(count)?;
            self.sink.array_start(count);
            for index in 0..count {
                let item = ffi::PyTuple_GetItem(tuple, index as ffi::Py_ssize_t);
                self.sink.item(index);
                self.value(py, item, depth).map_err(|error| error.at(Step::Index(index)))?;
            }
        }
        self.sink.array_end();
        Ok(())
    }

    #[inline(never)]
    fn dict(&mut self, dict: &Bound<'_, PyAny>, depth: usize) -> Result<(), EncodeError> {
        let (py, dict) = (dict.py(), dict.as_ptr());
        let (mut position, mut key, mut item) = (0, null_mut(), null_mut());
        // SAFETY: the caller holds the dict, and the GIL is held: key and value are alive until Python code runs, which
        // is `pair`'s to look after. PyDict_Next looks at the bounds each time, and the count ends a dict that grows.
        unsafe {
            let count = ffi::PyDict_Size(dict) as usize;
            check_len(count)?;
            self.sink.map_start(count);
            let mut index = 0;
            while ffi::PyDict_Next(dict, &raw mut position, &raw mut key, &raw mut item) != 0 {
                if index == count {
                    return Err(changed("dict"));
                }
                self.pair(py, key, item, index, depth)?;
                index += 1;
            }
            if index != count {
                return Err(changed("dict"));
            }
        }
        self.sink.map_end();
        Ok(())
    }

    /// The pairs of an object: what `items` of a class derived from `dict` says, a copy where there is no GIL, fields.
    #[inline(never)]
    fn pairs(&mut self, object: &Bound<'_, PyAny>, items: &Bound<'_, PyAny>, depth: usize) -> Result<(), EncodeError> {
        let py = object.py();
        // SAFETY: the list is the caller's. Each pair is held, so its key and value are alive whatever runs.
        unsafe {
            let count = ffi::PyList_Size(items.as_ptr()) as usize;
            check_len(count)?;
            self.sink.map_start(count);
            for index in 0..count {
                let item = ffi::PyList_GetItem(items.as_ptr(), index as ffi::Py_ssize_t);
                let Some(item) = Bound::from_borrowed_ptr_or_opt(py, item) else {
                    drop(PyErr::take(py));
                    return Err(changed("list of a dict's items"));
                };
                if ffi::PyTuple_Check(item.as_ptr()) == 0 || ffi::PyTuple_Size(item.as_ptr()) != 2 {
                    let class = class_name(object);
                    return Err(EncodeError::unsupported_value(format!("items() of {class} gives no pairs")));
                }
                let (key, item) = (ffi::PyTuple_GetItem(item.as_ptr(), 0), ffi::PyTuple_GetItem(item.as_ptr(), 1));
                self.pair(py, key, item, index, depth)?;
            }
        }
        self.sink.map_end();
        Ok(())
    }

    /// # Safety
    /// `key` and `item` are alive until Python code runs.
    #[inline(always)]
    unsafe fn pair(
        &mut self,
        py: Python<'_>,
        key: *mut ffi::PyObject,
        item: *mut ffi::PyObject,
        index: usize,
        depth: usize,
    ) -> Result<(), EncodeError> {
        let start = self.sink.len();
        // SAFETY: a str's bytes are read before anything runs; both are held before another key's code may run.
        unsafe {
            let kind = Kind::of(key);
            let mut _held = None;
            if kind == Kind::Text {
                self.sink.text_key(index, utf8(py, key)?);
            } else {
                _held = Some(Bound::from_borrowed_ptr(py, item));
                self.other_key(index, &Bound::from_borrowed_ptr(py, key), kind, depth)?;
            }
            let end = self.sink.len();
            self.value(py, item, depth).map_err(|error| error.at(self.sink.step(start, end)))
        }
    }

    /// A key that is no `str`, held by the caller: what JSON has a text for.
    fn other_key(&mut self, index: usize, key: &Bound<'_, PyAny>, kind: Kind, depth: usize) -> Result<(), EncodeError> {
        let py = key.py();
        match kind {
            // SAFETY: a str, held by the caller.
            Kind::Text => self.sink.text_key(index, unsafe { utf8(py, key.as_ptr())? }),
            Kind::Float => {
                // SAFETY: a float (or derived), held by the caller.
                let float = unsafe { ffi::PyFloat_AsDouble(key.as_ptr()) };
                if !float.is_finite() {
                    return Err(not_finite(float));
                }
                self.sink.other_key(index, &Key::Float(float));
            }
            Kind::Boolean => self.sink.other_key(index, &Key::Boolean(key.is_truthy().map_err(EncodeError::raised)?)),
            Kind::Null => self.sink.other_key(index, &Key::Null),
            Kind::Int => match self.int_of(key)? {
                Int::Small(value) => self.sink.other_key(index, &Key::Int(value)),
                Int::Unsigned(value) => self.sink.other_key(index, &Key::Unsigned(value)),
                Int::Digits(digits) => self.sink.other_key(index, &Key::Digits(digits.as_bytes())),
            },
            Kind::Dict | Kind::DictDerived | Kind::List | Kind::Tuple => return Err(no_key(key)),
            Kind::Bytes | Kind::Other => return self.lowered_key(index, key, depth),
        }
        Ok(())
    }

    fn lowered_key(&mut self, index: usize, key: &Bound<'_, PyAny>, depth: usize) -> Result<(), EncodeError> {
        match bytes_of(key)? {
            Some(bytes) => self.sink.other_key(index, &Key::Binary(&bytes)),
            None => match self.lower(key)? {
                Lowered::Text(text) | Lowered::Decimal(text) => self.sink.text_key(index, text_of(&text)?),
                Lowered::Instant(text) => {
                    let seconds = self.seconds_of(key)?;
                    self.sink.other_key(index, &Key::Instant(text_of(&text)?, seconds));
                }
                Lowered::Duration(duration) => self.sink.other_key(index, &Key::Duration(&duration)),
                Lowered::Value(value) => {
                    // SAFETY: held here, and the thread attached.
                    let kind = unsafe { Kind::of(value.as_ptr()) };
                    if matches!(kind, Kind::Dict | Kind::DictDerived | Kind::List | Kind::Tuple) {
                        return Err(no_key(key));
                    }
                    return self.other_key(index, &value, kind, deeper(depth)?);
                }
                Lowered::Model(_) | Lowered::Pairs(_) => return Err(no_key(key)),
            },
        }
        Ok(())
    }

    /// Whatever has a form by its class, held by the caller.
    fn other(&mut self, object: &Bound<'_, PyAny>, depth: usize) -> Result<(), EncodeError> {
        match self.lower(object)? {
            Lowered::Text(text) => self.sink.text(text_of(&text)?),
            Lowered::Decimal(digits) => self.sink.decimal(text_of(&digits)?),
            Lowered::Instant(text) => {
                let seconds = self.seconds_of(object)?;
                self.sink.instant(text_of(&text)?, seconds);
            }
            Lowered::Duration(duration) => self.sink.duration(&duration),
            Lowered::Value(value) => self.walk(&value, deeper(depth)?)?,
            Lowered::Model(dump) => {
                let before = std::mem::replace(&mut self.is_in_model, true);
                self.walk(&dump, deeper(depth)?)?;
                self.is_in_model = before;
            }
            Lowered::Pairs(pairs) => self.pairs(object, &pairs, deeper(depth)?)?,
        }
        Ok(())
    }

    fn lower<'py>(&mut self, object: &Bound<'py, PyAny>) -> Result<Lowered<'py>, EncodeError> {
        let lowered = self.rules.lower(object, self.is_in_model)?;
        self.has_forms |= self.rules.has_forms(&lowered);
        Ok(lowered)
    }

    fn seconds_of(&self, instant: &Bound<'_, PyAny>) -> Result<(i64, u32), EncodeError> {
        if S::WANTS_SECONDS { seconds_since_epoch(instant) } else { Ok((0, 0)) }
    }

    fn big_int(&mut self, object: &Bound<'_, PyAny>) -> Result<(), EncodeError> {
        match self.int_of(object)? {
            Int::Small(value) => self.sink.int(value),
            Int::Unsigned(value) => self.sink.unsigned(value),
            Int::Digits(digits) => self.sink.digits(digits.as_bytes()),
        }
        Ok(())
    }

    fn int_of(&self, object: &Bound<'_, PyAny>) -> Result<Int, EncodeError> {
        if let Ok(value) = object.extract::<i64>() {
            return Ok(Int::Small(value));
        }
        if let Ok(value) = object.extract::<u64>() {
            return Ok(Int::Unsigned(value));
        }
        if self.rules.has_msgpack {
            return Err(int_out_of_range());
        }
        // SAFETY: an int, held by the caller; its class's own __str__ and __index__ are not asked. The result is a new
        // str, or null with an exception.
        let digits = unsafe { Bound::from_owned_ptr_or_err(object.py(), ffi::PyNumber_ToBase(object.as_ptr(), 10)) };
        let digits = digits.map_err(|error| EncodeError::value(object.py(), error))?;
        Ok(Int::Digits(digits.extract().map_err(EncodeError::raised)?))
    }
}

/// An `int`, by its size.
enum Int {
    Small(i64),
    Unsigned(u64),
    Digits(String),
}

/// The bytes of `bytes`, `bytearray` and `memoryview`, and of what derives from them; `None` of anything else.
fn bytes_of<'a>(object: &'a Bound<'_, PyAny>) -> Result<Option<Cow<'a, [u8]>>, EncodeError> {
    let bytes = if let Ok(bytes) = object.cast::<PyBytes>() {
        Cow::Borrowed(bytes.as_bytes())
    } else if object.is_instance_of::<PyByteArray>() || object.is_instance_of::<PyMemoryView>() {
        Cow::Owned(buffer::copy(object).map_err(|error| EncodeError::value(object.py(), error))?)
    } else {
        return Ok(None);
    };
    check_len(bytes.len())?;
    Ok(Some(bytes))
}

/// The depth inside one more container.
fn deeper(depth: usize) -> Result<usize, EncodeError> {
    if depth < DEPTH_MAX { Ok(depth + 1) } else { Err(too_deep()) }
}

#[cold]
fn too_deep() -> EncodeError {
    EncodeError::unsupported_value(format!("nesting exceeds {DEPTH_MAX}"))
}

#[cold]
fn int_out_of_range() -> EncodeError {
    EncodeError::unsupported_value(
        "int is outside MessagePack's -2**63 to 2**64 - 1, which Hub(formats=(\"json\",)) lifts",
    )
}

#[cold]
fn not_finite(value: f64) -> EncodeError {
    let name = if value.is_nan() {
        "nan"
    } else if value > 0.0 {
        "inf"
    } else {
        "-inf"
    };
    EncodeError::unsupported_value(format!("float {name} is not JSON serializable"))
}

#[cold]
fn no_key(key: &Bound<'_, PyAny>) -> EncodeError {
    EncodeError::unsupported_type(format!("a key of type {} has no text in JSON", class_name(key)))
}

#[cold]
fn changed(what: &str) -> EncodeError {
    EncodeError::unsupported_value(format!("{what} changed its size while it was encoded"))
}
