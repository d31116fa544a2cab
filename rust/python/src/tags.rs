//! Tags of publications, and filters of subscriptions, as Python gives them.
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use fanwire_core::EngineError;
use fanwire_core::channel::{Filter as CoreFilter, TAG_WHOLE_MAX, TagValue, View, write_tags};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyString};

use crate::errors::to_pyerr;

/// A publication's tags, as bytes.
#[derive(Default)]
pub(crate) struct Tagged(pub(crate) Vec<u8>);

impl<'py> FromPyObject<'_, 'py> for Tagged {
    type Error = PyErr;

    fn extract(given: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let py = given.py();
        if given.is_none() {
            return Ok(Self::default());
        }
        let wrong = |what: String| PyTypeError::new_err(what);
        let tags = given.cast::<PyDict>().map_err(|_| wrong("tags must be a dict, or None".to_owned()))?;
        let mut texts = Vec::with_capacity(tags.len());
        for (name, value) in tags.iter() {
            let name = name.cast_into::<PyString>().map_err(|_| wrong("tags: each name must be a str".to_owned()))?;
            texts.push((name, value));
        }
        let mut pairs = Vec::with_capacity(texts.len());
        for (name, value) in &texts {
            let name = name.to_str()?;
            pairs.push((name, value_of(py, name, value)?));
        }
        let mut bytes = Vec::new();
        write_tags(pairs, &mut bytes).map_err(|error| to_pyerr(py, error))?;
        Ok(Self(bytes))
    }
}

fn value_of<'a>(py: Python<'_>, name: &str, value: &'a Bound<'_, PyAny>) -> PyResult<TagValue<'a>> {
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(TagValue::Text(text.to_str()?));
    }
    if let Ok(truth) = value.cast::<PyBool>() {
        return Ok(TagValue::Truth(truth.is_true()));
    }
    if let Ok(number) = value.cast::<PyFloat>() {
        return Ok(TagValue::Number(number.value()));
    }
    if value.is_instance_of::<PyInt>() {
        let whole = value.extract::<i64>().ok().filter(|whole| whole.unsigned_abs() <= TAG_WHOLE_MAX.unsigned_abs());
        let fault = format!("tag {name:?}: a whole number is within ±{TAG_WHOLE_MAX}, not {value}");
        let whole = whole.ok_or_else(|| to_pyerr(py, EngineError::InvalidTag { fault }))?;
        return Ok(TagValue::Number(whole as f64));
    }
    let kind = value.get_type().name()?;
    Err(PyTypeError::new_err(format!("tag {name:?}: expected a str, an int, a float or a bool, not {kind}")))
}

/// Which publications of a channel a subscription is to get.
#[pyclass(frozen, eq, module = "fanwire._engine")]
#[derive(PartialEq)]
pub(crate) struct Filter(Arc<CoreFilter>);

/// What of a channel somebody is to get.
pub(crate) fn view_of(filter: Option<&Filter>) -> View {
    View { filter: filter.map(|filter| Arc::clone(&filter.0)) }
}

/// The same, to Python.
pub(crate) fn filter_in(view: &View) -> Option<Filter> {
    view.filter.clone().map(Filter)
}

#[pymethods]
impl Filter {
    /// Reads an object of JSON; None where it asks for nothing.
    #[staticmethod]
    fn parse(json: &str) -> PyResult<Option<Self>> {
        let read = CoreFilter::parse(json).map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(read.map(Self))
    }

    /// What both let through.
    fn both(&self, other: &Self) -> PyResult<Option<Self>> {
        let both = CoreFilter::both(Some(&self.0), Some(&other.0));
        Ok(both.map_err(|error| PyValueError::new_err(error.to_string()))?.map(Self))
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.text().hash(&mut hasher);
        hasher.finish()
    }

    fn __repr__(&self) -> String {
        format!("<Filter {}>", self.0.text())
    }
}

/// Each channel, and what of it somebody is to get; with no filters all of them.
pub(crate) fn chosen<'a>(channels: &'a [String], filters: Option<&[Option<Py<Filter>>]>) -> Vec<(&'a str, View)> {
    let filter = |index: usize| filters.and_then(|filters| filters.get(index)?.as_ref()).map(Py::get);
    channels.iter().enumerate().map(|(index, channel)| (channel.as_str(), view_of(filter(index)))).collect()
}
