//! Settings cross once, as one frozen object; what there is to be set, and what it may be, as a table of plain values.
use std::path::PathBuf;
use std::time::Duration;

use fanwire_core::channel::{Pattern, Start};
use fanwire_core::settings::{self, Kind, Setting as CoreSetting, Value};
use fanwire_core::{
    ChannelRule as CoreRule, ChannelSettings, EngineError, Settings as CoreSettings, SettingsError, Siblings,
};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyTuple};

use crate::errors::to_pyerr;
use crate::options;
use crate::upstream::seconds;

/// One row of the table of settings.
#[pyclass(frozen, get_all, module = "fanwire._engine")]
pub(crate) struct Setting {
    name: &'static str,
    scope: &'static str,
    group: &'static str,
    meaning: String,
    kind: &'static str,
    least: f64,
    most: f64,
    choices: Vec<&'static str>,
    must: String,
    limits: &'static str,
    default: Py<PyAny>,
    usual: &'static str,
    cost: &'static str,
}

impl Setting {
    fn new(py: Python<'_>, scope: &'static str, row: CoreSetting) -> PyResult<Self> {
        let (kind, least, most) = match row.kind {
            Kind::Seconds(least, most) => ("seconds", least, most),
            Kind::Bytes(least, most) => ("bytes", least as f64, most as f64),
            Kind::Whole(least, most) => ("whole", least as f64, most as f64),
            Kind::Permissions(least, most) => ("permissions", least as f64, most as f64),
            Kind::Truth => ("truth", 0.0, 1.0),
            Kind::Choice(_) => ("choice", 0.0, 0.0),
            Kind::Other(_) => ("other", 0.0, 0.0),
        };
        let choices = if let Kind::Choice(names) = row.kind { names.to_vec() } else { Vec::new() };
        let CoreSetting { name, group, meaning, limits, usual, cost, .. } = row;
        let default = match row.default {
            Value::Nothing => py.None(),
            Value::Truth(truth) => truth.into_pyobject(py)?.to_owned().into_any().unbind(),
            Value::Whole(number) => number.into_pyobject(py)?.into_any().unbind(),
            Value::Number(number) => number.into_pyobject(py)?.into_any().unbind(),
            Value::Text(text) => text.into_pyobject(py)?.into_any().unbind(),
            Value::Texts(texts) => PyTuple::new(py, texts)?.into_any().unbind(),
        };
        let (meaning, must) = (meaning.trim().to_owned(), row.kind.to_string());
        Ok(Self { name, scope, group, meaning, kind, least, most, choices, must, limits, default, usual, cost })
    }
}

/// All that can be set, a row each: what serving takes, options of a hub (the engine's and its own), a channel's.
#[pyfunction]
pub(crate) fn settings_table(py: Python<'_>) -> PyResult<Vec<Setting>> {
    let (shards, engine): (Vec<_>, Vec<_>) = settings::engine_table().into_iter().partition(|row| row.name == "shards");
    let scopes = [
        ("serve", options::of_serving()),
        ("serve", shards),
        ("engine", engine),
        ("hub", options::of_hub()),
        ("channel", settings::channel_table()),
        ("channel", options::of_channel()),
    ];
    let rows = scopes.into_iter().flat_map(|(scope, rows)| rows.into_iter().map(move |row| (scope, row)));
    rows.map(|(scope, row)| Setting::new(py, scope, row)).collect()
}

/// What a number of this kind must be, between these bounds: what stands behind "must be".
#[pyfunction]
pub(crate) fn number_text(kind: &str, least: f64, most: f64) -> PyResult<String> {
    let (from, to) = (least as u64, most as u64);
    Ok(match kind {
        "seconds" => Kind::Seconds(least, most),
        "bytes" => Kind::Bytes(from, to),
        "whole" => Kind::Whole(from, to),
        "permissions" => Kind::Permissions(from, to),
        _ => return Err(PyValueError::new_err(format!("there is no kind of number {kind:?}"))),
    }
    .to_string())
}

/// What Python gave; what is none of these is a ValueError that names it.
fn value_of(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Value> {
    if value.is_none() {
        return Ok(Value::Nothing);
    }
    if value.is_instance_of::<PyBool>() {
        return value.extract().map(Value::Truth);
    }
    if let Ok(text) = value.extract::<String>() {
        return Ok(Value::Text(text.into()));
    }
    let whole = value.extract().map(Value::Whole);
    let found = whole.or_else(|_| value.extract().map(Value::Number)).or_else(|_| value.extract().map(Value::Texts));
    found.map_err(|_| PyValueError::new_err(format!("{name} must not be of type {}", value.get_type())))
}

/// Has each of the settings that `given` names be what it says.
fn set_all(
    given: Option<&Bound<'_, PyDict>>,
    mut set: impl FnMut(&str, &Value) -> Result<(), SettingsError>,
) -> PyResult<()> {
    for (name, value) in given.into_iter().flatten() {
        let name: String = name.extract()?;
        set(&name, &value_of(&name, &value)?).map_err(settings_to_pyerr)?;
    }
    Ok(())
}

/// What the channels promise whose name matches `pattern`; the first match wins.
#[pyclass(frozen, from_py_object, module = "fanwire._engine")]
#[derive(Clone)]
pub(crate) struct ChannelRule(CoreRule);

#[pymethods]
impl ChannelRule {
    #[new]
    #[pyo3(signature = (pattern, *, presence = false, **values))]
    fn new(py: Python<'_>, pattern: &str, presence: bool, values: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let pattern = Pattern::new(pattern).map_err(|error| to_pyerr(py, error))?;
        let mut settings = ChannelSettings { tells_presence: presence, ..ChannelSettings::default() };
        set_all(values, |name, value| settings.set(name, value))?;
        Ok(Self(CoreRule { pattern, settings }))
    }
}

/// All limits and options of an engine, frozen.
#[pyclass(frozen, module = "fanwire._engine")]
pub(crate) struct Settings(pub(crate) CoreSettings);

#[pymethods]
impl Settings {
    #[new]
    #[allow(clippy::too_many_arguments)] // as Python calls it
    #[pyo3(signature = (
        *, channels = Vec::new(), snapshots = Vec::new(), tell_details = false, descriptors_spare = 0, worker = 0, siblings = None,
        verify_compression = false,
        **values,
    ))]
    fn new(
        channels: Vec<ChannelRule>,
        snapshots: Vec<(String, f64)>,
        tell_details: bool,
        descriptors_spare: usize,
        worker: u8,
        siblings: Option<(PathBuf, Vec<u8>)>,
        verify_compression: bool,
        values: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let mut settings = CoreSettings {
            channels: channels.into_iter().map(|rule| rule.0).collect(),
            snapshots: snapshots.into_iter().map(snapshot_of).collect::<PyResult<_>>()?,
            descriptors_spare,
            worker,
            verifies_compression: verify_compression,
            siblings: siblings.map(|(folder, key)| Siblings { folder, key }),
            ..CoreSettings::default()
        };
        settings.hubs.tells_details = tell_details;
        set_all(values, |name, value| settings.set(name, value))?;
        checked(settings)
    }
}

/// A pattern, and seconds.
fn snapshot_of((pattern, interval): (String, f64)) -> PyResult<(Pattern, Duration)> {
    let pattern = Pattern::new(&pattern).map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok((pattern, seconds("interval", interval)?))
}

fn checked(settings: CoreSettings) -> PyResult<Settings> {
    settings.validate().map_err(settings_to_pyerr)?;
    Ok(Settings(settings))
}

fn settings_to_pyerr(error: SettingsError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// Where a subscriber begins, by its name.
pub(crate) fn start_of(name: &str) -> PyResult<Start> {
    Start::from_name(name)
        .ok_or_else(|| PyValueError::new_err(format!("start must be {}, not {name:?}", Kind::Choice(&Start::NAMES))))
}

/// A publication's time in nanoseconds.
pub(crate) fn ttl_ns(seconds: f64) -> Result<u64, EngineError> {
    // NaN is not over 0 either. A float beyond u64 saturates: for ever.
    if seconds > 0.0 { Ok((seconds * 1e9) as u64) } else { Err(EngineError::InvalidTtl { seconds }) }
}

/// Seconds to live. Python takes True for 1, but nobody means that.
pub(crate) fn ttl_of(value: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
    if value.is_instance_of::<PyBool>() {
        return Err(PyTypeError::new_err("ttl must be a number of seconds over 0, or None, not a bool"));
    }
    value.extract()
}
