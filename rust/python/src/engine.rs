//! Class `Engine`: each method borrows, calls the core and maps the error. What may wait lets go of the GIL.
use std::borrow::Cow;
use std::collections::BTreeMap;

use fanwire_core::channel::Publication;
use fanwire_core::messages::ConnectionId;
use fanwire_core::protocol::signalr::{HubMessage, Outcome};
use fanwire_core::protocol::{Encoding, Format, Payload};
use fanwire_core::{Audience, Engine as CoreEngine, EngineError, PollerKind};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use smallvec::SmallVec;

use crate::buffer::{self, Data};
use crate::encode;
use crate::errors::{new_to_pyerr, to_pyerr};
use crate::events;
use crate::position::Position;
use crate::settings::Settings;

/// The shards, their sockets and the channels' logs.
#[pyclass(frozen, module = "fanwire._engine")]
pub(crate) struct Engine(CoreEngine);

#[pymethods]
impl Engine {
    #[new]
    fn new(py: Python<'_>, settings: &Settings) -> PyResult<Self> {
        CoreEngine::new(settings.0.clone()).map(Self).map_err(|error| new_to_pyerr(py, error))
    }

    fn start(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.0.start()).map_err(|error| to_pyerr(py, error))
    }

    fn listen(&self, py: Python<'_>, address: &str) -> PyResult<String> {
        // A host name may have to be asked for.
        py.detach(|| self.0.listen(address)).map_err(|error| to_pyerr(py, error))
    }

    #[getter]
    fn event_fd(&self) -> i32 {
        self.0.event_fd()
    }

    #[pyo3(signature = (count_max = 1024))]
    fn take_events(&self, py: Python<'_>, count_max: usize) -> PyResult<Vec<Py<PyAny>>> {
        self.0.take_events(count_max).into_iter().map(|event| events::to_python(py, event)).collect()
    }

    fn acknowledge(&self, connections: Vec<u64>) {
        // Those of one connection stand together: one command for each run of equal ids.
        for run in connections.chunk_by(|one, other| one == other) {
            self.0.acknowledge(ConnectionId::from_bits(run[0]), u16::try_from(run.len()).unwrap_or(u16::MAX));
        }
    }

    /// Keeps the GIL: it appends, and rings an eventfd at most.
    #[allow(clippy::too_many_arguments)] // as Python calls it
    #[pyo3(signature = (channel, data, event = None, key = None, ttl = None, deferred = false, excluded = Vec::new()))]
    fn publish(
        &self,
        channel: &str,
        data: &Bound<'_, PyAny>,
        event: Option<&str>,
        key: Option<&str>,
        ttl: Option<f64>,
        deferred: bool,
        excluded: Vec<u64>,
    ) -> PyResult<Position> {
        let _ = key; // only policy `latest` looks at it
        self.publish_data(Audience::Channel(channel), data, (event, ttl, deferred, &excluded))
    }

    #[pyo3(signature = (user, data, event = None, ttl = None, deferred = false, excluded = Vec::new()))]
    fn publish_to_user(
        &self,
        user: &str,
        data: &Bound<'_, PyAny>,
        event: Option<&str>,
        ttl: Option<f64>,
        deferred: bool,
        excluded: Vec<u64>,
    ) -> PyResult<Position> {
        self.publish_data(Audience::User(user), data, (event, ttl, deferred, &excluded))
    }

    #[pyo3(signature = (path, data, event = None, ttl = None, deferred = false, excluded = Vec::new()))]
    fn publish_to_hub(
        &self,
        path: &str,
        data: &Bound<'_, PyAny>,
        event: Option<&str>,
        ttl: Option<f64>,
        deferred: bool,
        excluded: Vec<u64>,
    ) -> PyResult<Position> {
        self.publish_data(Audience::Hub(path), data, (event, ttl, deferred, &excluded))
    }

    fn flush(&self) {
        self.0.flush();
    }

    #[pyo3(signature = (connection, channels, user = None))]
    fn accept(&self, py: Python<'_>, connection: u64, channels: Vec<String>, user: Option<&str>) -> PyResult<()> {
        let id = ConnectionId::from_bits(connection);
        self.0.accept(id, channels.iter().map(String::as_str), user).map_err(|error| to_pyerr(py, error))
    }

    fn refuse(&self, py: Python<'_>, connection: u64, status: u16, reason: &str) -> PyResult<()> {
        let body = if reason.is_empty() { String::new() } else { format!("{reason}\n") };
        let content_type = if body.is_empty() { "" } else { "text/plain; charset=utf-8" };
        self.respond(py, connection, status, content_type, body.as_bytes())
    }

    fn respond(&self, py: Python<'_>, connection: u64, status: u16, content_type: &str, body: &[u8]) -> PyResult<()> {
        let id = ConnectionId::from_bits(connection);
        self.0.respond(id, status, content_type, body).map_err(|error| to_pyerr(py, error))
    }

    fn subscribe(&self, py: Python<'_>, connection: u64, channel: &str) -> PyResult<()> {
        self.0.subscribe(ConnectionId::from_bits(connection), channel).map_err(|error| to_pyerr(py, error))
    }

    #[pyo3(signature = (connection, channels, id = None, error = None))]
    fn grant(
        &self,
        py: Python<'_>,
        connection: u64,
        channels: Vec<String>,
        id: Option<&str>,
        error: Option<&str>,
    ) -> PyResult<()> {
        let connection = ConnectionId::from_bits(connection);
        let channels = channels.iter().map(String::as_str);
        self.0.grant(connection, channels, id, error).map_err(|error| to_pyerr(py, error))
    }

    fn unsubscribe(&self, py: Python<'_>, connection: u64, channel: &str) -> PyResult<()> {
        self.0.unsubscribe(ConnectionId::from_bits(connection), channel).map_err(|error| to_pyerr(py, error))
    }

    #[pyo3(signature = (connection, data, event = None))]
    fn send(&self, connection: u64, data: &Bound<'_, PyAny>, event: Option<&str>) -> PyResult<()> {
        let id = ConnectionId::from_bits(connection);
        let sent = match buffer::read(data)? {
            Data::Text(text) => self.0.send(id, &Payload::Text(text), event),
            Data::Binary(bytes) => self.0.send(id, &Payload::Binary(bytes), event),
            Data::Copied(bytes) => self.0.send(id, &Payload::Binary(&bytes), event),
            Data::Object(object) => {
                let format = id.format().unwrap_or(Format::Raw);
                let encoded = Encoded::new(object).with(format.bit())?;
                self.0.send(id, &encoded.payload(), event)
            }
        };
        sent.map_err(|error| to_pyerr(data.py(), error))
    }

    fn invoke(&self, connection: u64, target: &str, arguments: &Bound<'_, PyTuple>, id: Option<&str>) -> PyResult<()> {
        let arguments = encode_for(connection, arguments.as_any())?;
        let message = HubMessage::Invocation {
            id: id.map(Cow::Borrowed),
            target: Cow::Borrowed(target),
            arguments: &arguments,
            stream_ids: Vec::new(),
        };
        self.send_message(connection, &message)
    }

    fn complete(&self, connection: u64, id: &str, result: &Bound<'_, PyAny>) -> PyResult<()> {
        let result = encode_for(connection, result)?;
        self.send_message(connection, &completion(id, Outcome::Result(&result)))
    }

    fn complete_void(&self, connection: u64, id: &str) -> PyResult<()> {
        self.send_message(connection, &completion(id, Outcome::Void))
    }

    fn complete_error(&self, connection: u64, id: &str, error: &str) -> PyResult<()> {
        self.send_message(connection, &completion(id, Outcome::Error(Cow::Borrowed(error))))
    }

    fn ask_drained(&self, py: Python<'_>, connection: u64) -> PyResult<()> {
        self.0.ask_drained(ConnectionId::from_bits(connection)).map_err(|error| to_pyerr(py, error))
    }

    fn stream_item(&self, connection: u64, id: &str, item: &Bound<'_, PyAny>) -> PyResult<()> {
        let item = encode_for(connection, item)?;
        self.send_message(connection, &HubMessage::StreamItem { id: Cow::Borrowed(id), item: &item })
    }

    #[pyo3(signature = (connection, code = 1000, reason = ""))]
    fn disconnect(&self, py: Python<'_>, connection: u64, code: u16, reason: &str) -> PyResult<()> {
        self.0.disconnect(ConnectionId::from_bits(connection), code, reason).map_err(|error| to_pyerr(py, error))
    }

    fn channels(&self, py: Python<'_>, connection: u64) -> Vec<String> {
        py.detach(|| self.0.channels_of(ConnectionId::from_bits(connection)))
    }

    fn occupancy(&self, channel: &str) -> u32 {
        self.0.occupancy(channel)
    }

    fn stats(&self) -> Stats {
        Stats::new(&self.0)
    }

    #[pyo3(signature = (code = 1001, reason = ""))]
    fn drain(&self, py: Python<'_>, code: u16, reason: &str) -> PyResult<()> {
        self.0.drain(code, reason).map_err(|error| to_pyerr(py, error))
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.0.stop());
    }
}

impl Engine {
    fn publish_data(
        &self,
        audience: Audience<'_>,
        data: &Bound<'_, PyAny>,
        (event, ttl, deferred, excluded): (Option<&str>, Option<f64>, bool, &[u64]),
    ) -> PyResult<Position> {
        let py = data.py();
        let ttl_ns = ttl.map(ttl_ns).transpose().map_err(|error| to_pyerr(py, error))?;
        let excluded: SmallVec<[ConnectionId; 4]> = excluded.iter().map(|&id| ConnectionId::from_bits(id)).collect();
        let publish = |payload: Payload<'_>| {
            let publication = Publication { payload, event, ttl_ns, excluded: &excluded };
            self.0.publish_to(audience, &publication, deferred).map_err(|error| to_pyerr(py, error))
        };
        let position = match buffer::read(data)? {
            Data::Text(text) => publish(Payload::Text(text))?,
            Data::Binary(bytes) => publish(Payload::Binary(bytes))?,
            Data::Copied(bytes) => publish(Payload::Binary(&bytes))?,
            Data::Object(object) => return self.publish_object(audience, object, publish),
        };
        Ok(Position(position.expect("only objects have encodings to miss")))
    }

    /// Encodes for the formats in use, and again for those that came into use meanwhile: at most once a format.
    fn publish_object(
        &self,
        audience: Audience<'_>,
        object: &Bound<'_, PyAny>,
        publish: impl Fn(Payload<'_>) -> PyResult<Result<fanwire_core::Position, u8>>,
    ) -> PyResult<Position> {
        // JSON also when nobody listens: an object that can't be encoded is an error on a quiet channel, too.
        let nobody = if matches!(audience, Audience::Channel(_)) { Format::Raw } else { Format::HubJson };
        let formats = self.0.formats_of(audience);
        let mut encoded = Encoded::new(object).with(if formats == 0 { nobody.bit() } else { formats })?;
        loop {
            match publish(encoded.payload())? {
                Ok(position) => return Ok(Position(position)),
                Err(missing) => encoded = encoded.with(missing)?,
            }
        }
    }

    fn send_message(&self, connection: u64, message: &HubMessage<'_>) -> PyResult<()> {
        let sent = self.0.send_message(ConnectionId::from_bits(connection), message);
        sent.map_err(|error| Python::attach(|py| to_pyerr(py, error)))
    }
}

fn completion<'a>(id: &'a str, outcome: Outcome<'a>) -> HubMessage<'a> {
    HubMessage::Completion { id: Cow::Borrowed(id), outcome }
}

/// An object in the encoding of a connection's hub protocol.
fn encode_for(connection: u64, object: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let encoding = ConnectionId::from_bits(connection).format().unwrap_or(Format::HubJson).encoding();
    let mut out = Vec::with_capacity(256);
    match encoding {
        Encoding::Json => encode::hub_json(object, &mut out),
        Encoding::Msgpack => encode::msgpack(object, &mut out),
    }
    .map_err(|error| error.into_pyerr(object.py()))?;
    Ok(out)
}

/// An object in the encodings made so far.
struct Encoded<'a, 'py> {
    object: Cow<'a, Bound<'py, PyAny>>,
    is_arguments: bool,
    json: Option<Vec<u8>>,
    msgpack: Option<Vec<u8>>,
}

impl<'a, 'py> Encoded<'a, 'py> {
    fn new(object: &'a Bound<'py, PyAny>) -> Self {
        let arguments = object.cast::<Arguments>().ok();
        let is_arguments = arguments.is_some();
        let object = match arguments {
            Some(arguments) => Cow::Owned(arguments.get().0.bind(object.py()).clone().into_any()),
            None => Cow::Borrowed(object),
        };
        Self { object, is_arguments, json: None, msgpack: None }
    }

    /// Adds what `formats` (bits) need.
    fn with(mut self, formats: u8) -> PyResult<Self> {
        type Encode = fn(&Bound<'_, PyAny>, &mut Vec<u8>) -> Result<(), encode::EncodeError>;
        // One JSON for all who want it: where others than hubs do, what only hubs have a form for is an error.
        let is_for_hubs = formats & (Format::Raw.bit() | Format::Sse.bit()) == 0;
        let json: Encode = if is_for_hubs { encode::hub_json } else { encode::json };
        for format in Format::ALL.into_iter().filter(|format| formats & format.bit() != 0) {
            let (target, encode): (_, Encode) = match format.encoding() {
                Encoding::Json => (&mut self.json, json),
                Encoding::Msgpack => (&mut self.msgpack, encode::msgpack),
            };
            if target.is_none() {
                let mut out = Vec::with_capacity(1_024);
                encode(&self.object, &mut out).map_err(|error| error.into_pyerr(self.object.py()))?;
                *target = Some(out);
            }
        }
        Ok(self)
    }

    fn payload(&self) -> Payload<'_> {
        let (json, msgpack) = (self.json.as_deref(), self.msgpack.as_deref());
        if self.is_arguments { Payload::Arguments { json, msgpack } } else { Payload::Object { json, msgpack } }
    }
}

/// Several arguments of one invocation; to clients of other protocols an array.
#[pyclass(frozen, module = "fanwire._engine")]
pub(crate) struct Arguments(Py<PyTuple>);

#[pymethods]
impl Arguments {
    #[new]
    #[pyo3(signature = (*items))]
    fn new(items: Bound<'_, PyTuple>) -> Self {
        Self(items.unbind())
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("Arguments{}", self.0.bind(py).repr()?))
    }
}

fn ttl_ns(seconds: f64) -> Result<u64, EngineError> {
    // NaN is not over 0 either. A float beyond u64 saturates: for ever.
    if seconds > 0.0 { Ok((seconds * 1e9) as u64) } else { Err(EngineError::InvalidTtl { seconds }) }
}

/// Counters since start and gauges now, summed over the shards.
#[pyclass(frozen, get_all, module = "fanwire._engine")]
pub(crate) struct Stats {
    connections: u64,
    connections_total: u64,
    subscriptions: u64,
    channels: u64,
    publications: u64,
    deliveries: u64,
    expired: u64,
    writes: u64,
    bytes_out: u64,
    bytes_in: u64,
    lagging: u64,
    overtaken: u64,
    accept_pauses: u64,
    handshakes_refused: u64,
    closes: BTreeMap<u16, u64>,
    completion_buckets: Vec<(f64, u64)>,
    completion_seconds: f64,
    poller: &'static str,
}

impl Stats {
    fn new(engine: &CoreEngine) -> Self {
        let stats = engine.stats();
        let seconds = |us: u64| if us == u64::MAX { f64::INFINITY } else { us as f64 / 1e6 };
        Self {
            connections: stats.connections,
            connections_total: stats.connections_total,
            subscriptions: stats.subscriptions,
            channels: stats.channels,
            publications: stats.publications,
            deliveries: stats.deliveries,
            expired: stats.expired,
            writes: stats.writes,
            bytes_out: stats.bytes_out,
            bytes_in: stats.bytes_in,
            lagging: stats.lagging,
            overtaken: stats.overtaken,
            accept_pauses: stats.accept_pauses,
            handshakes_refused: stats.handshakes_refused,
            closes: stats.closes,
            completion_buckets: stats.completion.iter().map(|&(us, count)| (seconds(us), count)).collect(),
            completion_seconds: stats.completion_sum.as_secs_f64(),
            poller: match engine.poller() {
                Some(PollerKind::Uring) => "uring",
                Some(PollerKind::Epoll) => "epoll",
                None => "",
            },
        }
    }
}
