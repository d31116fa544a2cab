//! Publishing into a backbone from a program that serves nobody.
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fanwire_core::channel::{Publication, Tags};
use fanwire_core::node::Recipients;
use fanwire_core::protocol::{Format, Formats, Payload};
use fanwire_node::{Answer as CoreAnswer, PublishError, Publisher, Told, Unplaced};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffer::{self, Data};
use crate::encode::Encoder;
use crate::encoded::Encoded;
use crate::errors::{raise, to_pyerr};
use crate::position::Position;
use crate::settings::{Settings, ttl_ns, ttl_of};
use crate::tags::Tagged;
use crate::workers::{Lines, log_to, taken};

/// How often somebody who waits looks for signals.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A link to a backbone by which is published, and nothing heard.
#[pyclass(frozen, module = "fanwire._engine")]
pub(crate) struct BackboneLink {
    /// `None` once it is closed.
    publisher: Mutex<Option<Arc<Publisher>>>,
    encoder: Py<Encoder>,
    publication_bytes_max: usize,
    lines: Lines,
}

impl BackboneLink {
    fn publisher(&self, py: Python<'_>) -> PyResult<Arc<Publisher>> {
        let publisher = self.publisher.lock().unwrap_or_else(PoisonError::into_inner).clone();
        publisher.ok_or_else(|| raise(py, "NotPublished", ("the publisher was closed",)))
    }
}

#[pymethods]
impl BackboneLink {
    #[new]
    fn new(url: &str, prefix: &str, settings: &Settings, asks: bool, encoder: Py<Encoder>) -> PyResult<Self> {
        let lines = Lines::default();
        let publisher = Publisher::start(url, prefix, settings.0.clone(), asks, log_to(&lines))
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        let publication_bytes_max = settings.0.publication_bytes_max;
        Ok(Self { publisher: Mutex::new(Some(Arc::new(publisher))), encoder, publication_bytes_max, lines })
    }

    fn prepare(&self, py: Python<'_>) -> PyResult<Option<Answer>> {
        Ok(self.publisher(py)?.prepare().map(Answer))
    }

    #[pyo3(signature = (
        kind, name, data, event = None, key = None, ttl = None, keyframe = false, removal = false,
        idempotency_key = None, tags = Tagged::default(),
    ))]
    #[allow(clippy::too_many_arguments)] // as Python calls it
    fn publish(
        &self,
        py: Python<'_>,
        kind: &str,
        name: &str,
        data: &Bound<'_, PyAny>,
        event: Option<&str>,
        key: Option<&str>,
        #[pyo3(from_py_with = ttl_of)] ttl: Option<f64>,
        keyframe: bool,
        removal: bool,
        idempotency_key: Option<&str>,
        tags: Tagged,
    ) -> PyResult<Answer> {
        let publisher = self.publisher(py)?;
        let to = match kind {
            "user" => Recipients::User(name),
            "hub" => Recipients::Hub(name),
            "programs" => Recipients::Programs(name),
            _ => Recipients::Channel(name),
        };
        let ttl_ns = ttl.map(ttl_ns).transpose().map_err(|error| to_pyerr(py, error))?;
        let publish = |payload: Payload<'_>| {
            let tags = Tags::read(&tags.0).expect("as they were written");
            let terms = Publication { tags, ..Publication::new(payload) };
            let publication = Publication { event, key, ttl_ns, is_keyframe: keyframe, is_removal: removal, ..terms };
            let answer = publisher.publish(to, &publication, idempotency_key);
            answer.map(Answer).map_err(|error| not_published(py, error))
        };
        match buffer::read(data)? {
            Data::Text(text) => publish(Payload::Text(text)),
            Data::Binary(bytes) => publish(Payload::Binary(bytes)),
            Data::Copied(bytes) => publish(Payload::Binary(&bytes)),
            Data::Object(object) => {
                let encoder = self.encoder.get();
                let encoded = Encoded::new(encoder, object, formats_of(encoder), Some(self.publication_bytes_max))?;
                publish(encoded.payload())
            }
        }
    }

    /// Has what is published for programs under this name come.
    fn hear(&self, py: Python<'_>, name: &str) -> PyResult<Answer> {
        Ok(Answer(self.publisher(py)?.hear(name)))
    }

    fn hear_no_more(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        self.publisher(py)?.hear_no_more(name);
        Ok(())
    }

    /// Names and bytes that have come since the last call; without a name, what has happened: `down`, `up`, or how many
    /// were missed.
    fn take(&self, py: Python<'_>) -> PyResult<Vec<(Option<String>, Py<PyBytes>)>> {
        let bytes = |bytes: &[u8]| PyBytes::new(py, bytes).unbind();
        let told = self.publisher(py)?.take().into_iter().map(|told| match told {
            Told::Message(name, message) => (Some(name), bytes(&message)),
            Told::Down => (None, bytes(b"down")),
            Told::Up => (None, bytes(b"up")),
            Told::Missed(count) => (None, bytes(count.to_string().as_bytes())),
            _ => (None, bytes(b"")),
        });
        Ok(told.collect())
    }

    /// Can be read from once something has come.
    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        Ok(self.publisher(py)?.descriptor())
    }

    /// Lines for `logging` since the last call.
    fn take_lines(&self) -> Vec<(u8, String)> {
        taken(&self.lines)
    }

    fn close(&self, py: Python<'_>) {
        let publisher = self.publisher.lock().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| drop(publisher));
    }
}

/// All that clients of any hub may speak.
fn formats_of(encoder: &Encoder) -> Formats {
    let all = [Format::Raw, Format::HubJson, Format::RawMsgpack, Format::HubMsgpack];
    all.into_iter().take(if encoder.has_msgpack() { 4 } else { 2 }).collect()
}

fn not_published(py: Python<'_>, error: PublishError) -> PyErr {
    use fanwire_node::Full;
    match error {
        PublishError::Publication(error) => to_pyerr(py, error),
        PublishError::Full(Full::Bytes { waiting, bytes_max }) => {
            raise(py, "LimitReached", ("bytes that wait for the backbone", waiting, bytes_max))
        }
        PublishError::Full(Full::Count { waiting }) => {
            raise(py, "LimitReached", ("publications that wait for the backbone", waiting + 1, waiting))
        }
        PublishError::Full(Full::TooLarge { bytes, bytes_max }) => {
            raise(py, "PayloadTooBig", (bytes, bytes_max, "the bound of the backbone"))
        }
        other => PyValueError::new_err(other.to_string()),
    }
}

/// What becomes of one call, known later.
#[pyclass(frozen, module = "fanwire._engine")]
pub(crate) struct Answer(Arc<CoreAnswer>);

fn told(py: Python<'_>, outcome: Result<fanwire_core::Position, Unplaced>) -> PyResult<Position> {
    outcome.map(Position).map_err(|Unplaced { why, may_stand }| raise(py, "NotPublished", (why, may_stand)))
}

#[pymethods]
impl Answer {
    /// What became of it; None where that is not known after so many seconds.
    fn wait(&self, py: Python<'_>, timeout: f64) -> PyResult<Option<Position>> {
        let until = Duration::try_from_secs_f64(timeout).ok().and_then(|length| Instant::now().checked_add(length));
        loop {
            let left = until.map_or(LOOK_EVERY, |until| until.saturating_duration_since(Instant::now()));
            if let Some(outcome) = py.detach(|| self.0.wait(left.min(LOOK_EVERY))) {
                return told(py, outcome).map(Some);
            }
            if left.is_zero() {
                return Ok(None);
            }
            py.check_signals()?;
        }
    }

    #[getter]
    fn is_known(&self) -> bool {
        self.0.outcome().is_some()
    }

    /// Can be read from once it is known; it is closed with this object.
    fn fileno(&self) -> PyResult<i32> {
        Ok(self.0.descriptor()?)
    }
}
