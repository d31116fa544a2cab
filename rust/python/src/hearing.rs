//! What the program itself hears of channels.
use std::sync::Arc;

use fanwire_core::Engine as CoreEngine;
use fanwire_core::channel::{Heard, HeardData, Listener as CoreListener};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use crate::errors::to_pyerr;
use crate::position::Position;

/// Somebody that hears channels of an engine.
#[pyclass(frozen, module = "fanwire._engine")]
pub(crate) struct Listener(pub(crate) Arc<CoreEngine>, pub(crate) Arc<CoreListener>);

#[pymethods]
impl Listener {
    fn hear<'py>(&self, py: Python<'py>, count_max: usize) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let heard = self.0.hear(&self.1, count_max).map_err(|error| to_pyerr(py, error))?;
        heard.iter().map(|one| to_python(py, one)).collect()
    }

    fn end(&self, py: Python<'_>) {
        py.detach(|| self.0.unlisten(&self.1));
    }
}

/// Channel, position, data, whether that is JSON, event, whether it is a keyframe.
fn to_python<'py>(py: Python<'py>, heard: &Heard) -> PyResult<Bound<'py, PyTuple>> {
    let (data, is_json) = match &heard.data {
        HeardData::Text(text) => (PyString::new(py, text).into_any(), false),
        HeardData::Binary(bytes) => (PyBytes::new(py, bytes).into_any(), false),
        HeardData::Json(json) => (PyBytes::new(py, json).into_any(), true),
    };
    let event = heard.event.as_deref();
    (&*heard.channel, Position(heard.position), data, is_json, event, heard.is_keyframe).into_pyobject(py)
}
