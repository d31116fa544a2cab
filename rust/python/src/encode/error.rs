//! Why an object could not be encoded and where in it, and the Python exceptions that say so.

use pyo3::exceptions::{PyUnicodeEncodeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use std::fmt::Write as _;

/// Steps of a path that are shown from its start and from its end; the middle of a longer one is `…`.
const STEPS_SHOWN: usize = 8;
/// Characters of a key that a path shows.
const KEY_CHARS_SHOWN: usize = 64;

/// A refusal: what and where. One pointer, so that `Result<(), EncodeError>` comes back in a register.
#[derive(Debug)]
pub(crate) struct EncodeError(Box<Refusal>);

#[derive(Debug)]
struct Refusal {
    why: Why,
    /// From the refused value outwards: each level adds its step while it unwinds.
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Why {
    UnsupportedType(String),
    UnsupportedValue(String),
    /// Raised by Python code of the object's, or out of memory.
    Raised(PyErr),
}

/// One level of a path.
#[derive(Debug)]
pub(super) enum Step {
    /// A place in a list or tuple.
    Index(usize),
    /// A key, as text.
    Key(String),
}

impl EncodeError {
    fn new(why: Why) -> Self {
        Self(Box::new(Refusal { why, steps: Vec::new() }))
    }

    /// A type that the format does not have.
    #[cold]
    pub(super) fn unsupported_type(message: impl Into<String>) -> Self {
        Self::new(Why::UnsupportedType(message.into()))
    }

    /// A value that the format cannot carry, of a type that it has.
    #[cold]
    pub(super) fn unsupported_value(message: impl Into<String>) -> Self {
        Self::new(Why::UnsupportedValue(message.into()))
    }

    /// What Python raised.
    #[cold]
    pub(super) fn raised(error: PyErr) -> Self {
        Self::new(Why::Raised(error))
    }

    /// What reading a `str` as UTF-8 raised: nearly always a lone surrogate.
    #[cold]
    pub(crate) fn text(py: Python<'_>, error: PyErr) -> Self {
        if !error.is_instance_of::<PyUnicodeEncodeError>(py) {
            return Self::raised(error);
        }
        match error.value(py).getattr("start").and_then(|start| start.extract::<usize>()) {
            Ok(start) => Self::unsupported_value(format!("str has a lone surrogate at index {start}")),
            Err(error) => Self::raised(error),
        }
    }

    /// What reading a buffer or the digits of an `int` raised: a `ValueError` is the value's fault.
    #[cold]
    pub(super) fn value(py: Python<'_>, error: PyErr) -> Self {
        if error.is_instance_of::<PyValueError>(py) {
            Self::unsupported_value(error.value(py).to_string())
        } else {
            Self::raised(error)
        }
    }

    /// The same refusal, seen from one level further out.
    #[cold]
    pub(super) fn at(mut self, step: Step) -> Self {
        self.0.steps.push(step);
        self
    }

    /// The place of the refused value: `$.odds[3].since`.
    pub(crate) fn path(&self) -> String {
        let steps = &self.0.steps;
        let mut path = String::from("$");
        for (at, step) in steps.iter().rev().enumerate() {
            if at >= STEPS_SHOWN && at + STEPS_SHOWN < steps.len() {
                if at == STEPS_SHOWN {
                    path.push('…');
                }
                continue;
            }
            step.append_to(&mut path);
        }
        path
    }

    /// The exception of `fanwire.errors`: `UnsupportedType` or `UnsupportedValue`; or what Python code raised.
    pub(crate) fn into_pyerr(self, py: Python<'_>) -> PyErr {
        static UNSUPPORTED_TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        static UNSUPPORTED_VALUE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let path = self.path();
        let (class, message) = match self.0.why {
            Why::UnsupportedType(message) => {
                (UNSUPPORTED_TYPE.import(py, "fanwire.errors", "UnsupportedType"), message)
            }
            Why::UnsupportedValue(message) => {
                (UNSUPPORTED_VALUE.import(py, "fanwire.errors", "UnsupportedValue"), message)
            }
            Why::Raised(error) => {
                // As much as can be done for it: the exception is somebody else's.
                drop(error.value(py).call_method1("add_note", (format!("raised while {path} was encoded"),)));
                return error;
            }
        };
        match class {
            Ok(class) => PyErr::from_type(class.clone(), (message, path)),
            Err(error) => error,
        }
    }
}

impl Step {
    fn append_to(&self, path: &mut String) {
        // Writing to a String cannot fail.
        let _ = match self {
            Self::Index(index) => write!(path, "[{index}]"),
            Self::Key(key) if is_plain_name(key) => write!(path, ".{key}"),
            Self::Key(key) => match key.char_indices().nth(KEY_CHARS_SHOWN) {
                Some((end, _)) => write!(path, "[\"{}…\"]", &key[..end]),
                None => write!(path, "[\"{key}\"]"),
            },
        };
    }
}

fn is_plain_name(key: &str) -> bool {
    key.len() <= KEY_CHARS_SHOWN
        && key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
