//! The extension module `fanwire._engine`: thin. Each method borrows, calls the core and maps the error.
mod adopting;
mod buffer;
mod encode;
mod encoded;
mod engine;
mod errors;
mod events;
mod lines;
mod listening;
mod looking;
mod mirroring;
mod offering;
mod options;
mod position;
mod publisher;
mod publishing;
mod routes;
mod settings;
mod stats;
mod tags;
mod upstream;
mod websocket;
mod workers;

use std::collections::HashMap;

use fanwire_core::http::headers_fault;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

/// What was built, and how.
#[pyfunction]
fn build_info() -> HashMap<&'static str, &'static str> {
    HashMap::from([
        ("version", env!("CARGO_PKG_VERSION")),
        ("profile", if cfg!(debug_assertions) { "debug" } else { "release" }),
        ("target", env!("FANWIRE_TARGET")),
        ("rustc", env!("FANWIRE_RUSTC")),
    ])
}

/// JSON text of `data` as UTF-8, as `publish` of a hub without options would send it.
#[pyfunction]
fn encode_json<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    encode::DEFAULT.json(data, false)
}

/// MessagePack of `data`, as `publish` of a hub without options would send it.
#[pyfunction]
fn encode_msgpack<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    encode::DEFAULT.msgpack(data, false)
}

/// Whether a channel's name matches a pattern, in which `*` stands for any run of characters.
#[pyfunction]
fn matches(py: Python<'_>, pattern: &str, name: &str) -> PyResult<bool> {
    let pattern = fanwire_core::channel::Pattern::new(pattern).map_err(|error| errors::to_pyerr(py, error))?;
    Ok(pattern.matches(name))
}

/// Raises ValueError for headers that no response of the application's may have together.
#[pyfunction]
fn check_headers(py: Python<'_>, headers: Vec<(String, String)>) -> PyResult<()> {
    let fault = |(name, why): (&str, _)| fanwire_core::EngineError::InvalidHeader { name: name.to_owned(), why };
    let found = headers_fault(headers.iter().map(|(name, value)| (&**name, &**value)));
    found.map_or(Ok(()), |found| Err(errors::to_pyerr(py, fault(found))))
}

/// Whether a close code may be sent by a server (RFC 6455 §7.4).
#[pyfunction]
fn may_be_sent(code: &Bound<'_, PyAny>) -> bool {
    code.extract().is_ok_and(|code| fanwire_core::CloseCode(code).may_be_sent())
}

/// Whether a close code may come from a client (RFC 6455 §7.4).
#[pyfunction]
fn may_be_received(code: &Bound<'_, PyAny>) -> bool {
    code.extract().is_ok_and(|code| fanwire_core::CloseCode(code).may_be_received())
}

/// The one form of a JSON text or MessagePack value; None where it has none.
#[pyfunction]
fn canonical<'py>(py: Python<'py>, protocol: &str, value: &[u8]) -> PyResult<Option<Bound<'py, PyBytes>>> {
    upstream::canonical(protocol, value).map(|form| form.map(|form| PyBytes::new(py, &form)))
}

/// An invocation as a whole record of a hub protocol.
#[pyfunction]
fn invocation<'py>(
    py: Python<'py>,
    protocol: &str,
    id: &str,
    target: &str,
    arguments: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    upstream::invocation(protocol, id, target, arguments).map(|record| PyBytes::new(py, &record))
}

/// Python's own module of interpreters, newest name first.
const INTERPRETERS: [&str; 2] = ["_interpreters", "_xxsubinterpreters"];

/// Refuses any interpreter but the process's main one. What is made here once, such as types, all of them would share,
/// and one that ends takes its objects along.
fn refuse_subinterpreters(py: Python<'_>) -> PyResult<()> {
    let Some(interpreters) = INTERPRETERS.iter().find_map(|name| py.import(*name).ok()) else { return Ok(()) };
    let current = interpreters.call_method0("get_current")?;
    let id: i64 = current.get_item(0).unwrap_or(current).extract()?;
    if id == 0 {
        return Ok(());
    }
    let text = format!("fanwire cannot be used in a subinterpreter (this is number {id}): use it in the main one");
    Err(pyo3::exceptions::PyImportError::new_err(text))
}

#[pymodule(gil_used = false)]
fn _engine(module: &Bound<'_, PyModule>) -> PyResult<()> {
    refuse_subinterpreters(module.py())?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(build_info, module)?)?;
    module.add_function(wrap_pyfunction!(workers::adopt_orphans, module)?)?;
    module.add_function(wrap_pyfunction!(encode_json, module)?)?;
    module.add_function(wrap_pyfunction!(encode_msgpack, module)?)?;
    module.add_function(wrap_pyfunction!(canonical, module)?)?;
    module.add_function(wrap_pyfunction!(check_headers, module)?)?;
    module.add_function(wrap_pyfunction!(invocation, module)?)?;
    module.add_function(wrap_pyfunction!(matches, module)?)?;
    module.add_function(wrap_pyfunction!(may_be_sent, module)?)?;
    module.add_function(wrap_pyfunction!(may_be_received, module)?)?;
    module.add_function(wrap_pyfunction!(lines::toml_lines, module)?)?;
    module.add_function(wrap_pyfunction!(settings::number_text, module)?)?;
    module.add_function(wrap_pyfunction!(settings::settings_table, module)?)?;
    module.add("FAILING_STATUSES", PyTuple::new(module.py(), fanwire_upstream::FAILING)?)?;
    module.add("PUBLISH_SCRIPT", fanwire_node::PUBLISH_SCRIPT)?;
    module.add("ROUTES_MAX", fanwire_core::ROUTES_MAX)?;
    module.add_class::<position::Position>()?;
    module.add_class::<position::Published>()?;
    module.add_class::<publisher::Answer>()?;
    module.add_class::<publisher::BackboneLink>()?;
    module.add_class::<routes::Route>()?;
    module.add_class::<settings::ChannelRule>()?;
    module.add_class::<settings::Setting>()?;
    module.add_class::<settings::Settings>()?;
    module.add_class::<encode::Encoder>()?;
    module.add_class::<encoded::Arguments>()?;
    module.add_class::<adopting::Adopted>()?;
    module.add_class::<engine::Engine>()?;
    module.add_class::<events::Listener>()?;
    module.add_class::<listening::HeldAddress>()?;
    module.add_class::<looking::Look>()?;
    module.add_class::<stats::Stats>()?;
    module.add_class::<upstream::Roots>()?;
    module.add_class::<workers::Sequencer>()?;
    events::add_classes(module)?;
    websocket::add(module)?;
    if cfg!(debug_assertions) {
        let text = "fanwire was built without optimisation: use `maturin develop --release`";
        PyErr::warn(
            module.py(),
            &module.py().get_type::<pyo3::exceptions::PyRuntimeWarning>(),
            &std::ffi::CString::new(text)?,
            1,
        )?;
    }
    Ok(())
}
