//! How a hub writes objects, the bounds of any object, and which clients get which form: .NET reads some otherwise.
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Containers inside one another, the outermost counted; one more is refused, and so every circle is.
pub(super) const DEPTH_MAX: usize = 128;

/// Bytes set aside before an object's size is known: glibc serves them from the thread's own cache.
pub(super) const CAPACITY_START: usize = 1024;

/// What a hub's options say of objects.
pub(super) struct Rules {
    /// `function(object)` gives what stands for an object of a class that has no form here.
    pub(super) hook: Option<Py<PyAny>>,
    /// MessagePack is one of the hub's formats: what it cannot hold is refused.
    pub(super) has_msgpack: bool,
    pub(super) plain: Forms,
    /// The forms for SignalR's clients.
    pub(super) hub: Forms,
}

/// How a `Decimal` is written in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecimalForm {
    /// Its digits as a string.
    Text,
    /// Its digits as a number, as .NET has a `decimal`.
    Number,
}

/// How a `timedelta` is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DurationForm {
    /// `P1DT2.5S`.
    Iso8601,
    /// `[-][d.]hh:mm:ss[.fffffff]`, and in MessagePack ticks of 100 ns, as .NET has a `TimeSpan`.
    Dotnet,
}

/// The forms that one group of clients gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forms {
    pub(super) decimal: DecimalForm,
    pub(super) duration: DurationForm,
}

impl Forms {
    /// Those of msgspec: what clients get that do not speak SignalR.
    pub(super) const PLAIN: Self = Self { decimal: DecimalForm::Text, duration: DurationForm::Iso8601 };
    /// Those of .NET: what SignalR's clients get.
    pub(super) const DOTNET: Self = Self { decimal: DecimalForm::Number, duration: DurationForm::Dotnet };

    /// With these in their places, by name, where one is given.
    pub(super) fn with(mut self, decimal: Option<&str>, duration: Option<&str>) -> PyResult<Self> {
        let wrong = |text: String| Err(PyValueError::new_err(text));
        match decimal {
            None => {}
            Some("string") => self.decimal = DecimalForm::Text,
            Some("number") => self.decimal = DecimalForm::Number,
            Some(other) => return wrong(format!("decimal is {other:?}, must be 'number', 'string' or None")),
        }
        match duration {
            None => {}
            Some("iso8601") => self.duration = DurationForm::Iso8601,
            Some("dotnet") => self.duration = DurationForm::Dotnet,
            Some(other) => return wrong(format!("duration is {other:?}, must be 'dotnet', 'iso8601' or None")),
        }
        Ok(self)
    }
}
