//! Several workers as one: the sequencer of their supervisor, and an engine's link to it.
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use fanwire_core::Engine as CoreEngine;
use fanwire_core::node::OnDown;
use fanwire_node::{JoinError, Link, Outside, Server, StartError};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;

use crate::errors::raise;
use crate::settings::Settings;

/// So many lines for the log are kept until somebody takes them.
const LINES_MAX: usize = 256;

pub(crate) type Lines = Arc<Mutex<Vec<(u8, String)>>>;

/// What writes them.
pub(crate) fn log_to(lines: &Lines) -> impl Fn(u8, String) + Send + 'static {
    let lines = Arc::clone(lines);
    move |level, text| {
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() < LINES_MAX {
            lines.push((level, text));
        }
    }
}

/// All that there are.
pub(crate) fn taken(lines: &Lines) -> Vec<(u8, String)> {
    std::mem::take(&mut *lines.lock().unwrap_or_else(PoisonError::into_inner))
}

/// What orders the publications of workers that join at a Unix socket.
#[pyclass(frozen, module = "fanwire._engine")]
pub(crate) struct Sequencer {
    server: Mutex<Option<Server>>,
    lines: Lines,
}

#[pymethods]
impl Sequencer {
    #[new]
    #[pyo3(signature = (settings, path, backbone=None))]
    fn new(settings: &Settings, path: PathBuf, backbone: Option<(String, String, u64, String)>) -> PyResult<Self> {
        let lines = Lines::default();
        let outside = backbone.map(outside_of).transpose()?;
        let server = fanwire_node::sequence(&path, settings.0.clone(), outside.as_ref(), log_to(&lines))
            .map_err(no_sequencer)?;
        Ok(Self { server: Mutex::new(Some(server)), lines })
    }

    /// Lines for `logging` since the last call, and what it died of, if it did.
    fn take_lines(&self) -> (Vec<(u8, String)>, Option<String>) {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        let failure = server.as_ref().and_then(|server| server.failure().map(str::to_owned));
        (taken(&self.lines), failure)
    }

    fn close(&self, py: Python<'_>) {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| server.map(Server::stop));
    }
}

#[pyfunction]
pub(crate) fn adopt_orphans(wanted: bool) -> PyResult<()> {
    Ok(fanwire_node::adopt_orphans(wanted)?)
}

/// As Python has it: URL, prefix, what names this machine, what becomes of publications while it is away.
fn outside_of((url, prefix, own, on_down): (String, String, u64, String)) -> PyResult<Outside> {
    let on_down = match on_down.as_str() {
        "buffer" => OnDown::Buffer,
        "fail" => OnDown::Fail,
        "local" => OnDown::Local,
        other => return Err(PyValueError::new_err(format!("on_down is none of buffer, fail and local: {other}"))),
    };
    Ok(Outside { url, prefix, own, on_down })
}

/// With the system's number.
fn no_sequencer(error: StartError) -> PyErr {
    if let StartError::Backbone(error) = error {
        return PyValueError::new_err(error.to_string());
    }
    let errno = match &error {
        StartError::InUse { .. } => 98, // EADDRINUSE
        StartError::System { source, .. } => source.raw_os_error().unwrap_or(0),
        _ => 22, // EINVAL
    };
    PyOSError::new_err((errno, error.to_string()))
}

/// An engine's link to the sequencer, while it has one.
#[derive(Default)]
pub(crate) struct Joined(Mutex<Option<Link>>);

impl Joined {
    /// Links an engine that runs and does not listen yet.
    pub(crate) fn join(&self, engine: &Arc<CoreEngine>, path: PathBuf) -> PyResult<()> {
        let weak: Weak<CoreEngine> = Arc::downgrade(engine);
        let log = move |level, text| {
            if let Some(engine) = weak.upgrade() {
                engine.record(level, text);
            }
        };
        let link = fanwire_node::join(engine, &path, engine.settings(), log).map_err(|error| match error {
            JoinError::Start(error) => PyOSError::new_err(error.to_string()),
            other => Python::attach(|py| raise(py, "WorkersApart", (other.to_string(),))),
        })?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(link);
        Ok(())
    }

    /// Before the engine stops.
    pub(crate) fn leave(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}
