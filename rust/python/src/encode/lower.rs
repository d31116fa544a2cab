//! What an object that is neither plain nor a container is written as: by its class, or as the hub's hook says.
//!
//! How a class is dealt with is `python/fanwire/dumps.py`'s to say, once for each class.

use super::error::EncodeError;
use super::rules::DurationForm;
use super::rules::Rules;
use super::text::{class_name, text_of};
use pyo3::exceptions::PyNotImplementedError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyString, PyType};

/// Classes whose ways are remembered; then all are forgotten. A class that a program makes anew each time costs no more.
const PLANS_MAX: usize = 4_096;

/// Ticks of .NET, of 100 ns, in a microsecond.
const TICKS_PER_MICROSECOND: i128 = 10;

/// What stands for an object.
pub(super) enum Lowered<'py> {
    Text(Bound<'py, PyString>),
    /// A point in time, as text.
    Instant(Bound<'py, PyString>),
    /// Finite.
    Decimal(Bound<'py, PyString>),
    Duration(Duration),
    /// Another object.
    Value(Bound<'py, PyAny>),
    /// What a pydantic model's dump gave.
    Model(Bound<'py, PyAny>),
    /// Names and values.
    Pairs(Bound<'py, PyList>),
}

/// A `timedelta`.
pub(super) struct Duration {
    pub(super) iso8601: String,
    /// `None` beyond what .NET's `TimeSpan` holds; refused where its form is asked for.
    pub(super) ticks: Option<i64>,
}

impl Duration {
    /// `[-][d.]hh:mm:ss[.fffffff]`: .NET's constant format.
    pub(super) fn dotnet(&self) -> String {
        let ticks = self.ticks.unwrap_or_default();
        let sign = if ticks < 0 { "-" } else { "" };
        let (seconds, rest) = (ticks.unsigned_abs() / 10_000_000, ticks.unsigned_abs() % 10_000_000);
        let (minutes, seconds) = (seconds / 60, seconds % 60);
        let (hours, minutes) = (minutes / 60, minutes % 60);
        let days = if hours < 24 { String::new() } else { format!("{}.", hours / 24) };
        let fraction = if rest == 0 { String::new() } else { format!(".{rest:07}") };
        format!("{sign}{days}{:02}:{minutes:02}:{seconds:02}{fraction}", hours % 24)
    }
}

/// What is done with objects of one class, as `dumps.plan_of` names it.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Text,
    Datetime,
    Duration,
    Decimal,
    Value,
    Model,
    Pairs,
    /// Nothing here: the hook is asked.
    Unknown,
}

/// How objects of one class are dealt with.
#[pyclass(frozen, module = "fanwire._engine")]
struct Plan {
    way: Way,
    function: Py<PyAny>,
}

impl Rules {
    /// Looks `object`'s class up and does as it says there.
    ///
    /// # Errors
    /// `UnsupportedType` where neither class nor hook have a form; what Python code raises.
    pub(super) fn lower<'py>(
        &self,
        object: &Bound<'py, PyAny>,
        is_in_model: bool,
    ) -> Result<Lowered<'py>, EncodeError> {
        let plan = plan_of(&object.get_type()).map_err(EncodeError::raised)?;
        let plan = plan.get();
        if plan.way == Way::Unknown {
            return self.ask_hook(object, is_in_model);
        }
        let made = plan.function.bind(object.py()).call1((object,)).map_err(EncodeError::raised)?;
        let as_text = || made.cast::<PyString>().cloned().map_err(|error| EncodeError::raised(error.into()));
        Ok(match plan.way {
            Way::Text => Lowered::Text(as_text()?),
            Way::Datetime if is_naive(object)? => Lowered::Text(as_text()?),
            Way::Datetime => Lowered::Instant(as_text()?),
            Way::Decimal => Lowered::Decimal(finite(as_text()?)?),
            Way::Duration => Lowered::Duration(self.duration(object, &as_text()?)?),
            Way::Model => Lowered::Model(made),
            Way::Pairs => Lowered::Pairs(made.cast_into().map_err(|error| EncodeError::raised(error.into()))?),
            Way::Value | Way::Unknown => Lowered::Value(made),
        })
    }

    /// Whether SignalR's clients get another form of this than others do.
    pub(super) fn has_forms(&self, lowered: &Lowered<'_>) -> bool {
        match lowered {
            Lowered::Decimal(_) => self.plain.decimal != self.hub.decimal,
            Lowered::Duration(_) => self.plain.duration != self.hub.duration,
            _ => false,
        }
    }

    /// Of a model's dump pydantic is asked first, which has a form for more.
    fn ask_hook<'py>(&self, object: &Bound<'py, PyAny>, is_in_model: bool) -> Result<Lowered<'py>, EncodeError> {
        static MODEL_VALUE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = object.py();
        if is_in_model {
            let value = MODEL_VALUE.import(py, "fanwire.dumps", "model_value").map_err(EncodeError::raised)?;
            let value = value.call1((object,)).map_err(EncodeError::raised)?;
            if !value.is(py.NotImplemented()) {
                return Ok(Lowered::Value(value));
            }
        }
        match self.hook.as_ref().map(|hook| hook.bind(py).call1((object,))) {
            Some(Ok(value)) => Ok(Lowered::Value(value)),
            Some(Err(error)) if !error.is_instance_of::<PyNotImplementedError>(py) => Err(EncodeError::raised(error)),
            _ => Err(unsupported(object)),
        }
    }

    fn duration(&self, object: &Bound<'_, PyAny>, iso8601: &Bound<'_, PyString>) -> Result<Duration, EncodeError> {
        let part = |name: &str| object.getattr(name).and_then(|part| part.extract::<i64>());
        let ticks = || {
            let seconds = i128::from(part("days")?) * 86_400 + i128::from(part("seconds")?);
            let microseconds = seconds * 1_000_000 + i128::from(part("microseconds")?);
            PyResult::Ok(i64::try_from(microseconds * TICKS_PER_MICROSECOND).ok())
        };
        let ticks = ticks().map_err(EncodeError::raised)?;
        if ticks.is_none() && [self.plain, self.hub].iter().any(|forms| forms.duration == DurationForm::Dotnet) {
            let text = "timedelta is outside .NET's TimeSpan, which Hub(duration=\"iso8601\") lifts";
            return Err(EncodeError::unsupported_value(text));
        }
        Ok(Duration { iso8601: String::from_utf8_lossy(text_of(iso8601)?).into_owned(), ticks })
    }
}

fn plan_of<'py>(class: &Bound<'py, PyType>) -> PyResult<Bound<'py, Plan>> {
    static PLANS: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    static PLAN_OF: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = class.py();
    let plans = PLANS.get_or_init(py, || PyDict::new(py).unbind()).bind(py);
    if let Some(plan) = plans.get_item(class)? {
        return Ok(plan.cast_into()?);
    }
    let (name, function): (String, Py<PyAny>) =
        PLAN_OF.import(py, "fanwire.dumps", "plan_of")?.call1((class,))?.extract()?;
    let way = match name.as_str() {
        "text" => Way::Text,
        "datetime" => Way::Datetime,
        "duration" => Way::Duration,
        "decimal" => Way::Decimal,
        "value" => Way::Value,
        "model" => Way::Model,
        "pairs" => Way::Pairs,
        _ => Way::Unknown,
    };
    if plans.len() >= PLANS_MAX {
        plans.clear();
    }
    let plan = Bound::new(py, Plan { way, function })?;
    plans.set_item(class, &plan)?;
    Ok(plan)
}

/// NaN and infinities are refused, as those of a float are.
fn finite(digits: Bound<'_, PyString>) -> Result<Bound<'_, PyString>, EncodeError> {
    let text = text_of(&digits)?;
    let first = text.strip_prefix(b"-").unwrap_or(text).first();
    if first.is_some_and(u8::is_ascii_digit) {
        return Ok(digits);
    }
    let text = String::from_utf8_lossy(text);
    Err(EncodeError::unsupported_value(format!("Decimal {text} is not JSON serializable")))
}

#[cold]
fn unsupported(object: &Bound<'_, PyAny>) -> EncodeError {
    EncodeError::unsupported_type(format!("Object of type {} is not JSON serializable", class_name(object)))
}

fn is_naive(datetime: &Bound<'_, PyAny>) -> Result<bool, EncodeError> {
    let offset = datetime.call_method0(intern!(datetime.py(), "utcoffset"));
    Ok(offset.map_err(EncodeError::raised)?.is_none())
}

/// Seconds of an aware `datetime` since 1970 and nanoseconds into the last. May run a `tzinfo`'s Python code.
///
/// # Errors
/// What that code raises.
pub(super) fn seconds_since_epoch(datetime: &Bound<'_, PyAny>) -> Result<(i64, u32), EncodeError> {
    static EPOCH: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static DATETIME: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let py = datetime.py();
    let since = || {
        let class = DATETIME.import(py, "datetime", "datetime")?;
        let epoch = EPOCH.get_or_try_init(py, || {
            let utc = py.import("datetime")?.getattr("timezone")?.getattr("utc")?;
            PyResult::Ok(class.call1((1970, 1, 1, 0, 0, 0, 0, utc))?.unbind())
        })?;
        let since = class.call_method1(intern!(py, "__sub__"), (datetime, epoch))?;
        let days: i64 = since.getattr(intern!(py, "days"))?.extract()?;
        let seconds: i64 = since.getattr(intern!(py, "seconds"))?.extract()?;
        let microseconds: u32 = since.getattr(intern!(py, "microseconds"))?.extract()?;
        Ok((days.saturating_mul(86_400).saturating_add(seconds), microseconds.saturating_mul(1_000)))
    };
    since().map_err(EncodeError::raised)
}
