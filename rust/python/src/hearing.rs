//! What the program itself hears of channels.
use std::sync::Arc;

use fanwire_core::channel::{Heard, HeardData, Listener as CoreListener};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use crate::position::Position;

/// Somebody that hears channels.
#[pyclass(frozen, module = "fanwire._engine")]
pub(crate) struct Listener(pub(crate) Arc<CoreListener>);

/// Channel, position, data, whether that is JSON, event, whether it is a keyframe.
pub(crate) fn to_python<'py>(py: Python<'py>, heard: &Heard) -> PyResult<Bound<'py, PyTuple>> {
    let (data, is_json) = match &heard.data {
        HeardData::Text(text) => (PyString::new(py, text).into_any(), false),
        HeardData::Binary(bytes) => (PyBytes::new(py, bytes).into_any(), false),
        HeardData::Json(json) => (PyBytes::new(py, json).into_any(), true),
    };
    let event = heard.event.as_deref();
    (&*heard.channel, Position(heard.position), data, is_json, event, heard.is_keyframe).into_pyobject(py)
}
