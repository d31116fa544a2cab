//! A publication's place, as Python sees it, and what publishing gives: that place, which can be awaited.
use std::hash::{Hash, Hasher};

use fanwire_core::Position as CorePosition;
use pyo3::exceptions::{PyLookupError, PyTypeError};
use pyo3::prelude::*;
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

/// What was published: a position, and whoever awaits it gets that. Of epoch 0, which no channel has, is what went to one
/// client alone.
#[pyclass(frozen, extends = Position, name = "Publication", module = "fanwire")]
pub(crate) struct Published;

impl Published {
    /// One that has its place already.
    pub(crate) fn at(py: Python<'_>, position: CorePosition) -> PyResult<Py<Self>> {
        Py::new(py, PyClassInitializer::from(Position(position)).add_subclass(Self))
    }
}

#[pymethods]
impl Published {
    #[new]
    fn new() -> PyClassInitializer<Self> {
        PyClassInitializer::from(Position(CorePosition { epoch: 0, offset: 0 })).add_subclass(Self)
    }

    #[getter]
    fn position(this: &Bound<'_, Self>) -> PyResult<Position> {
        let position = *this.as_super().get();
        if position.0.epoch == 0 {
            return Err(PyLookupError::new_err("what goes to one client alone stands in no log, and has no position"));
        }
        Ok(position)
    }

    /// The waiting is Python's: it lets the event loop turn, whichever that is.
    fn __await__<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let settled = this.py().import("fanwire.to")?.getattr("settled")?;
        settled.call1((this,))?.call_method0("__await__")
    }

    fn __repr__(this: PyRef<'_, Self>) -> String {
        let position = this.as_super().0;
        if position.epoch == 0 {
            return "Publication()".to_owned();
        }
        format!("Publication(epoch={}, offset={})", position.epoch, position.offset)
    }

    /// What travels is the position.
    fn __reduce__<'py>(this: &Bound<'py, Self>) -> (Bound<'py, pyo3::types::PyType>, (u64, u64)) {
        let position = this.as_super().get().0;
        (this.py().get_type::<Position>(), (position.epoch, position.offset))
    }
}
