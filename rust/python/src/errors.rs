//! THE mapping: an error of the core to the class of `fanwire.errors` that says it.
use fanwire_core::{EngineError, NewError};
use pyo3::call::PyCallArgs;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

/// The exception for what the engine refused.
pub(crate) fn to_pyerr(py: Python<'_>, error: EngineError) -> PyErr {
    let text = error.to_string();
    match error {
        EngineError::NotRunning { .. } | EngineError::Forked { .. } => raise(py, "HubStopped", (text,)),
        EngineError::InvalidChannel { name, why } => raise(py, "InvalidChannel", (name, why)),
        EngineError::PayloadTooBig { payload_bytes, bytes_max, name } => {
            raise(py, "PayloadTooBig", (payload_bytes, bytes_max, name))
        }
        EngineError::LimitReached { name, value, bound } => raise(py, "LimitReached", (name, value, bound)),
        EngineError::ListenFailed { address, cause } => {
            let strerror = strip_errno(&cause);
            raise(py, "ListenFailed", (errno_of(&cause), strerror, address))
        }
        EngineError::Apart => raise(py, "WorkersApart", (text,)),
        EngineError::Overtaken { channel } => raise(py, "Overtaken", (channel,)),
        EngineError::ThreadDied { thread, text } => raise(py, "EngineFailed", (thread, text)),
        EngineError::InvalidCloseCode { .. }
        | EngineError::InvalidHeader { .. }
        | EngineError::ReasonTooLong { .. }
        | EngineError::InvalidEvent { .. }
        | EngineError::KeyTooLong { .. }
        | EngineError::NoKeys { .. }
        | EngineError::InvalidPosition { .. }
        | EngineError::InvalidTtl { .. }
        | EngineError::InvalidTag { .. }
        | EngineError::OtherFilter { .. }
        | EngineError::FilteredEdge { .. }
        | EngineError::NoSuchPosition { .. } => PyValueError::new_err(text),
        EngineError::CannotAdopt { cause, .. } => PyOSError::new_err((errno_of(&cause), text)),
        EngineError::NoRandom { .. } => PyOSError::new_err(text),
        EngineError::StartFailed { cause, .. } | EngineError::WelcomeFailed { cause, .. } => {
            PyOSError::new_err((errno_of(&cause), text))
        }
        other => PyRuntimeError::new_err(other.to_string()),
    }
}

/// The exception for an engine that could not be made.
pub(crate) fn new_to_pyerr(py: Python<'_>, error: NewError) -> PyErr {
    match error {
        NewError::Settings(error) => PyValueError::new_err(error.to_string()),
        NewError::Engine(error) => to_pyerr(py, error),
        other => PyRuntimeError::new_err(other.to_string()),
    }
}

/// The system's number; of what the engine found itself, the one that the system has for it.
fn errno_of(cause: &std::io::Error) -> i32 {
    match (cause.raw_os_error(), cause.kind()) {
        (Some(errno), _) => errno,
        (None, std::io::ErrorKind::NotFound) => 2,       // ENOENT
        (None, std::io::ErrorKind::AlreadyExists) => 17, // EEXIST
        (None, std::io::ErrorKind::InvalidInput) => 22,  // EINVAL
        (None, std::io::ErrorKind::AddrInUse) => 98,     // EADDRINUSE
        (None, _) => 0,
    }
}

/// The system's words without Rust's "(os error 98)".
fn strip_errno(cause: &std::io::Error) -> String {
    let text = cause.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

pub(crate) fn raise<'py>(py: Python<'py>, class: &str, args: impl PyCallArgs<'py>) -> PyErr {
    let raised = || -> PyResult<PyErr> {
        let class = py.import("fanwire.errors")?.getattr(class)?;
        Ok(PyErr::from_value(class.call1(args)?))
    };
    raised().unwrap_or_else(|error| error)
}
