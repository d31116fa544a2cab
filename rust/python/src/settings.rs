//! Settings cross once, as one frozen object; what there is to be set, and what it may be, as a table of plain values.
use std::time::Duration;

use fanwire_core::channel::{Pattern, Start};
use fanwire_core::settings::{self, Kind, Setting as CoreSetting, Value};
use fanwire_core::{ChannelRule as CoreRule, ChannelSettings, HubTransports, Settings as CoreSettings, SettingsError};
use pyo3::exceptions::PyValueError;
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

/// What is wrong with a path that clients are to have; None where it is right.
#[pyfunction]
pub(crate) fn path_fault(path: &str) -> Option<&'static str> {
    settings::path_fault(path)
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
    #[pyo3(signature = (
        *, channels = Vec::new(), snapshots = Vec::new(), ask_opening = false, ask_subscribing = false,
        ignore_messages = false, tell_connected = false, signalr_paths = Vec::new(), **values,
    ))]
    #[allow(clippy::too_many_arguments)] // they are keyword-only and cross once
    fn new(
        channels: Vec<ChannelRule>,
        snapshots: Vec<(String, f64)>,
        ask_opening: bool,
        ask_subscribing: bool,
        ignore_messages: bool,
        tell_connected: bool,
        signalr_paths: Vec<String>,
        values: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let mut settings = CoreSettings {
            channels: channels.into_iter().map(|rule| rule.0).collect(),
            snapshots: snapshots.into_iter().map(snapshot_of).collect::<PyResult<_>>()?,
            asks_opening: ask_opening,
            asks_subscribing: ask_subscribing,
            ignores_messages: ignore_messages,
            tells_connected: tell_connected,
            ..CoreSettings::default()
        };
        settings.hubs.paths = signalr_paths;
        set_all(values, |name, value| settings.set(name, value))?;
        checked(settings)
    }

    /// The same, with the transports of each hub's clients by their names, and whether those are told details of errors.
    fn hubs(&self, transports: Vec<Vec<String>>, tells_details: bool) -> PyResult<Self> {
        let mut settings = self.0.clone();
        settings.hubs.transports = transports.iter().map(|names| transports_of(names)).collect::<PyResult<_>>()?;
        settings.hubs.tells_details = tells_details;
        checked(settings)
    }

    /// The same, with the messages of these hubs, by index, and the WebSockets of these paths relayed to a backend.
    #[pyo3(signature = (hubs, paths = Vec::new()))]
    fn relaying(&self, hubs: Vec<u8>, paths: Vec<String>) -> PyResult<Self> {
        let mut settings = self.0.clone();
        settings.hubs.relayed = hubs;
        settings.relayed_paths = paths;
        checked(settings)
    }
}

/// A pattern, and seconds.
fn snapshot_of((pattern, interval): (String, f64)) -> PyResult<(Pattern, Duration)> {
    let pattern = Pattern::new(&pattern).map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok((pattern, seconds("interval", interval)?))
}

/// The transports of a hub by their names, of which there is one at least.
fn transports_of(names: &[String]) -> PyResult<HubTransports> {
    let mut transports = HubTransports { web_sockets: false, server_sent_events: false, long_polling: false };
    for name in names {
        match name.as_str() {
            "WebSockets" => transports.web_sockets = true,
            "ServerSentEvents" => transports.server_sent_events = true,
            "LongPolling" => transports.long_polling = true,
            _ => {
                let text = "must be 'WebSockets', 'ServerSentEvents' or 'LongPolling'";
                return Err(PyValueError::new_err(format!("a transport {text}, not {name:?}")));
            }
        }
    }
    if names.is_empty() {
        return Err(PyValueError::new_err("a hub must have at least one transport"));
    }
    Ok(transports)
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
