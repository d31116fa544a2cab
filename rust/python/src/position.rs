//! A publication's place, as Python sees it, and what publishing gives: that place, which can be awaited.
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fanwire_core::Position as CorePosition;
use fanwire_core::node::{Outcome, Placing};
use pyo3::exceptions::{PyLookupError, PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::pyclass::CompareOp;
use pyo3::types::{PyBool, PyTuple};

/// A whole number. Python takes True for 1, but nobody means that.
fn whole(value: &Bound<'_, PyAny>) -> PyResult<u64> {
    if value.is_instance_of::<PyBool>() {
        return Err(PyTypeError::new_err(format!("epoch and offset must be whole numbers, not {value}")));
    }
    value.extract()
}

/// (epoch, offset): ordered, hashable, unpacks like a tuple.
#[pyclass(frozen, eq, ord, hash, subclass, module = "fanwire")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position(pub(crate) CorePosition);

impl Hash for Position {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

#[pymethods]
impl Position {
    #[new]
    fn new(#[pyo3(from_py_with = whole)] epoch: u64, #[pyo3(from_py_with = whole)] offset: u64) -> Self {
        Self(CorePosition { epoch, offset })
    }

    #[getter]
    fn epoch(&self) -> u64 {
        self.0.epoch
    }

    #[getter]
    fn offset(&self) -> u64 {
        self.0.offset
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        PyTuple::new(py, [self.0.epoch, self.0.offset])?.call_method0("__iter__")
    }

    fn __repr__(&self) -> String {
        format!("Position(epoch={}, offset={})", self.0.epoch, self.0.offset)
    }

    fn __getnewargs__(&self) -> (u64, u64) {
        (self.0.epoch, self.0.offset)
    }
}

/// Where a publication stands, or what will know it.
pub(crate) enum Place {
    At(CorePosition),
    Awaited(Arc<Placing>),
}

/// Of the next one who waits for a place, in any engine.
static TOKEN: AtomicU64 = AtomicU64::new(1);

/// What was published: a position, and whoever awaits it gets that. Of epoch 0, which no channel has, is what went to one
/// client alone, and what other workers are yet to give a place.
#[pyclass(frozen, extends = Position, name = "Publication", module = "fanwire")]
pub(crate) struct Published(Option<Arc<Placing>>);

const NOWHERE: CorePosition = CorePosition { epoch: 0, offset: 0 };

impl Published {
    /// One that has its place already.
    pub(crate) fn at(py: Python<'_>, position: CorePosition) -> PyResult<Py<Self>> {
        Py::new(py, PyClassInitializer::from(Position(position)).add_subclass(Self(None)))
    }

    /// One whose place is known later.
    pub(crate) fn awaited(py: Python<'_>, placing: Arc<Placing>) -> PyResult<Py<Self>> {
        Py::new(py, PyClassInitializer::from(Position(NOWHERE)).add_subclass(Self(Some(placing))))
    }

    /// Its place, if it is known; an error where it is none.
    fn known(this: &Bound<'_, Self>) -> PyResult<Option<CorePosition>> {
        match this.get().0.as_deref().map(Placing::outcome) {
            None => Ok(Some(this.as_super().get().0)),
            Some(None) => Ok(None),
            Some(Some(Outcome::At(position))) => Ok(Some(position)),
            Some(Some(Outcome::Failed(why))) => Err(PyRuntimeError::new_err(format!("not published: {why}"))),
        }
    }

    fn require(this: &Bound<'_, Self>) -> PyResult<CorePosition> {
        let text = "where it stands among those of other workers is not known yet: await the publication";
        Self::known(this)?.ok_or_else(|| PyLookupError::new_err(text))
    }
}

/// A position as an argument, which may be what publishing gave.
pub(crate) fn position_of(value: &Bound<'_, PyAny>) -> PyResult<CorePosition> {
    match value.cast::<Published>() {
        Ok(published) => Published::require(published),
        Err(_) => Ok(value.cast::<Position>()?.get().0),
    }
}

/// The same, or none.
pub(crate) fn since_of(value: &Bound<'_, PyAny>) -> PyResult<Option<CorePosition>> {
    if value.is_none() { Ok(None) } else { position_of(value).map(Some) }
}

#[pymethods]
impl Published {
    #[new]
    fn new() -> PyClassInitializer<Self> {
        PyClassInitializer::from(Position(NOWHERE)).add_subclass(Self(None))
    }

    #[getter]
    fn position(this: &Bound<'_, Self>) -> PyResult<Position> {
        let position = Self::require(this)?;
        if position.epoch == 0 {
            return Err(PyLookupError::new_err("what goes to one client alone stands in no log, and has no position"));
        }
        Ok(Position(position))
    }

    #[getter]
    fn epoch(this: &Bound<'_, Self>) -> PyResult<u64> {
        Self::require(this).map(|position| position.epoch)
    }

    #[getter]
    fn offset(this: &Bound<'_, Self>) -> PyResult<u64> {
        Self::require(this).map(|position| position.offset)
    }

    fn __iter__<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let position = Self::require(this)?;
        PyTuple::new(this.py(), [position.epoch, position.offset])?.call_method0("__iter__")
    }

    fn __richcmp__(this: &Bound<'_, Self>, other: &Bound<'_, PyAny>, op: CompareOp) -> PyResult<Py<PyAny>> {
        let py = this.py();
        if other.cast::<Position>().is_err() {
            return Ok(py.NotImplemented());
        }
        if this.is(other) && matches!(op, CompareOp::Eq | CompareOp::Ne) {
            return Ok(PyBool::new(py, matches!(op, CompareOp::Eq)).to_owned().into_any().unbind());
        }
        let order = Self::require(this)?.cmp(&position_of(other)?);
        Ok(PyBool::new(py, op.matches(order)).to_owned().into_any().unbind())
    }

    fn __hash__(this: &Bound<'_, Self>) -> PyResult<isize> {
        Position(Self::require(this)?).into_pyobject(this.py())?.hash()
    }

    #[getter]
    fn is_placed(&self) -> bool {
        self.0.as_deref().is_none_or(|placing| placing.outcome().is_some())
    }

    /// The number under which an event `Placed` tells that its place is known; None where it is, or will never be.
    fn await_place(&self) -> Option<u64> {
        let token = TOKEN.fetch_add(1, Ordering::Relaxed);
        self.0.as_deref().filter(|placing| placing.wait_as(token)).map(|_| token)
    }

    /// The waiting is Python's: it lets the event loop turn, whichever that is.
    fn __await__<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let settled = this.py().import("fanwire.to")?.getattr("settled")?;
        settled.call1((this,))?.call_method0("__await__")
    }

    fn __repr__(this: &Bound<'_, Self>) -> String {
        match Self::known(this) {
            Ok(Some(position)) if position.epoch != 0 => {
                format!("Publication(epoch={}, offset={})", position.epoch, position.offset)
            }
            Ok(None) => "Publication(not placed yet)".to_owned(),
            Err(_) => "Publication(not published)".to_owned(),
            Ok(_) => "Publication()".to_owned(),
        }
    }

    /// What travels is the position.
    fn __reduce__<'py>(this: &Bound<'py, Self>) -> PyResult<(Bound<'py, pyo3::types::PyType>, (u64, u64))> {
        let position = Self::require(this)?;
        Ok((this.py().get_type::<Position>(), (position.epoch, position.offset)))
    }
}
