//! An address that a supervisor listens at, for workers that accept there.
use std::sync::{Mutex, PoisonError};

use fanwire_core::HeldAddress as CoreHeld;
use pyo3::prelude::*;

use crate::errors::to_pyerr;
use crate::settings::Settings;

/// An address that this process listens at without accepting: who inherits its descriptors does.
#[pyclass(frozen, module = "fanwire._engine")]
pub(crate) struct HeldAddress {
    #[pyo3(get)]
    address: String,
    /// None once closed.
    held: Mutex<Option<CoreHeld>>,
}

#[pymethods]
impl HeldAddress {
    #[new]
    fn new(py: Python<'_>, settings: &Settings, address: &str) -> PyResult<Self> {
        let held = py.detach(|| CoreHeld::new(address, &settings.0)).map_err(|error| to_pyerr(py, error))?;
        Ok(Self { address: held.address().to_owned(), held: Mutex::new(Some(held)) })
    }

    #[getter]
    fn descriptors(&self) -> Vec<i32> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().map(CoreHeld::descriptors).unwrap_or_default()
    }

    fn close(&self) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
