//! A publication's place, as Python sees it.
use std::hash::{Hash, Hasher};

use fanwire_core::Position as CorePosition;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// (epoch, offset): ordered, hashable, unpacks like a tuple.
#[pyclass(frozen, eq, ord, hash, module = "fanwire")]
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
    fn new(epoch: u64, offset: u64) -> Self {
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
