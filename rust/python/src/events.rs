//! What happened to Python objects: a batch of events as frozen classes, and what the program itself hears of channels.
use std::sync::Arc;

use fanwire_core::channel::{Heard, HeardData, Listener as CoreListener, View};
use fanwire_core::messages::{
    ClosedBy, Connected as CoreConnected, Event, Header, Presence as CorePresence, Progress as CoreProgress,
    Released as CoreReleased, Request, SignalRMessage, SignalRMessageKind, Wanted as CoreWanted, Whose,
};
use fanwire_core::{Alike, Engine as CoreEngine, Wire};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use crate::errors::to_pyerr;
use crate::position::Position;
use crate::tags::{Filter, filter_in};
use crate::upstream::Upstream;

macro_rules! event_class {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[pyclass(frozen, get_all, module = "fanwire._engine")]
        pub(crate) struct $name { $($field: $type),* }
    };
}

event_class! {
    /// A connection whose upgrade request waits for `accept` or `refuse`.
    Opening {
        connection: u64, owner: u16, method: String, target: String, headers: Vec<(String, String)>, peer: String,
        channels: Vec<String>, protocol: &'static str, subprotocols: Vec<String>, filter: Option<Py<Filter>>,
    }
}
/// A client was let in that shows the same as another.
#[pyclass(frozen, module = "fanwire._engine")]
pub(crate) struct Admitted(Whose, Arc<Alike>, Box<str>);

#[pymethods]
impl Admitted {
    #[getter]
    fn connection(&self) -> u64 {
        self.0.connection.to_bits()
    }

    #[getter]
    fn owner(&self) -> u16 {
        self.0.owner.0
    }

    #[getter]
    fn admission(&self) -> u64 {
        self.1.number
    }

    #[getter]
    fn headers(&self) -> Vec<(String, String)> {
        decode(self.1.headers.clone())
    }

    #[getter]
    fn peer(&self) -> &str {
        &self.2
    }
}

event_class! {
    /// A plain HTTP request for a path that Python answers.
    Asking {
        connection: u64, owner: u16, method: String, target: String, headers: Vec<(String, String)>, peer: String,
        body: Py<PyBytes>,
    }
}
event_class! {
    /// A client asks for channels.
    Subscribing {
        connection: u64, owner: u16, channels: Vec<String>, id: Option<String>, wanted: Py<Wanted>,
        filter: Option<Py<Filter>>,
    }
}

/// Where a client wants to begin: handed back as it came.
#[pyclass(frozen, module = "fanwire._engine")]
pub(crate) struct Wanted(pub(crate) CoreWanted);

event_class! {
    /// What a client of the raw protocol sent and the engine has no meaning for.
    Message { connection: u64, owner: u16, data: Py<PyAny> }
}
event_class! {
    /// What a client sent on a path whose messages are passed on.
    Relayed { connection: u64, owner: u16, data: Py<PyBytes>, is_text: bool }
}
event_class! {
    /// A client calls a method.
    Call { connection: u64, owner: u16, target: String, arguments: String, id: Option<String> }
}
event_class! {
    /// A client's connection is open; what may be missing is SignalR clients'.
    Connected {
        connection: u64, owner: u16, path: Option<String>, connection_id: Option<String>,
        transport: Option<&'static str>, hub_protocol: Option<&'static str>,
    }
}
event_class! {
    /// Who was asked about as `connection` is called `to` from now on.
    Moved { connection: u64, owner: u16, to: u64 }
}
event_class! {
    /// What a SignalR client sent.
    HubMessage {
        connection: u64, owner: u16, kind: &'static str, id: String, target: String, body: Py<PyBytes>,
        record: Option<Py<PyBytes>>, stream_ids: Vec<String>,
    }
}
event_class! {
    /// A client's first call has taken up an offer: it has joined that lane and is answered.
    Joined { connection: u64, owner: u16, offer: u64 }
}
event_class! {
    /// The socket has taken all private bytes.
    Drained { connection: u64, owner: u16 }
}
event_class! {
    /// An adopted connection is given up.
    Released { connection: u64, owner: u16, why: &'static str, code: u16, reason: String }
}
event_class! {
    /// A connection that Python has heard of is gone.
    Closed { connection: u64, owner: u16, code: u16, reason: String, by: &'static str }
}
event_class! {
    /// New subscribers of a channel wait for a keyframe.
    SnapshotWanted { channel: String, again: bool }
}
event_class! {
    /// Who came to channels that tell it, and who went: channel, connection, whether it came.
    Presence { changes: Vec<(String, u64, bool)> }
}
event_class! {
    /// How far a publication has come among one shard's subscribers in one format.
    Progress { token: u64, part: u32, subscribers: u64, behind: u64, skipped: u64 }
}
event_class! {
    /// There is something to read for a listener.
    Audible { token: u64 }
}
event_class! {
    /// The place of a publication is known, or will never be, for which somebody waits under this number.
    Placed { token: u64 }
}
event_class! {
    /// Another worker tells this, to those of its machine, or to those of all.
    WorkerTold { worker: u32, message: Py<PyBytes>, is_for_all: bool }
}
event_class! {
    /// Another worker has come, or gone.
    WorkerChanged { number: u32, has_come: bool, age: i64 }
}
event_class! {
    /// The backbone is reached, or out of reach.
    BackboneChanged { state: &'static str, why: String }
}
event_class! {
    /// Records have come from the backbone that nobody of the prefix has published.
    BackboneForeign { count: u64 }
}
event_class! {
    /// Something of what this worker holds has not come to what mirrors it here.
    MirrorLost { worker: u32, id: Py<PyBytes> }
}
event_class! {
    /// A line for `logging`.
    Record { level: u8, text: String }
}

pub(crate) fn add_classes(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Opening>()?;
    module.add_class::<Admitted>()?;
    module.add_class::<Asking>()?;
    module.add_class::<Subscribing>()?;
    module.add_class::<Message>()?;
    module.add_class::<Call>()?;
    module.add_class::<Relayed>()?;
    module.add_class::<Connected>()?;
    module.add_class::<Moved>()?;
    module.add_class::<HubMessage>()?;
    module.add_class::<Wanted>()?;
    module.add_class::<Filter>()?;
    module.add_class::<SnapshotWanted>()?;
    module.add_class::<Presence>()?;
    module.add_class::<Progress>()?;
    module.add_class::<Audible>()?;
    module.add_class::<Joined>()?;
    module.add_class::<Drained>()?;
    module.add_class::<Closed>()?;
    module.add_class::<Released>()?;
    module.add_class::<Placed>()?;
    module.add_class::<WorkerTold>()?;
    module.add_class::<WorkerChanged>()?;
    module.add_class::<BackboneChanged>()?;
    module.add_class::<BackboneForeign>()?;
    module.add_class::<MirrorLost>()?;
    module.add_class::<Record>()?;
    module.add_class::<Upstream>()
}

fn filter_of(py: Python<'_>, view: &View) -> PyResult<Option<Py<Filter>>> {
    filter_in(view).map(|filter| Py::new(py, filter)).transpose()
}

fn wanted_of(py: Python<'_>, wanted: CoreWanted) -> PyResult<(Option<Py<Filter>>, Py<Wanted>)> {
    Ok((filter_of(py, &wanted.view)?, Py::new(py, Wanted(wanted))?))
}

/// One event as a Python object.
pub(crate) fn to_python(py: Python<'_>, event: Event) -> PyResult<Py<PyAny>> {
    Ok(match event {
        Event::Opening(whose, request) => {
            let Request { method, target, headers, peer, channels, view, wire, subprotocols } = *request;
            let protocol = match wire {
                Wire::Plain => "websocket",
                Wire::EventStream => "sse",
                Wire::SignalR(_) => "signalr",
                _ => "raw",
            };
            let ((connection, owner), headers, filter) = (bits(whose), decode(headers), filter_of(py, &view)?);
            let opening =
                Opening { connection, owner, method, target, headers, peer, channels, protocol, subprotocols, filter };
            Py::new(py, opening)?.into_any()
        }
        Event::Asking(whose, request, body) => {
            let Request { method, target, headers, peer, .. } = *request;
            let ((connection, owner), headers) = (bits(whose), decode(headers));
            let body = PyBytes::new(py, &body).unbind();
            Py::new(py, Asking { connection, owner, method, target, headers, peer, body })?.into_any()
        }
        Event::Subscribing(whose, channels, id, wanted) => {
            let ((connection, owner), (filter, wanted)) = (bits(whose), wanted_of(py, wanted)?);
            Py::new(py, Subscribing { connection, owner, channels, id, wanted, filter })?.into_any()
        }
        Event::Text(whose, text) => {
            let ((connection, owner), data) = (bits(whose), PyString::new(py, &text).into_any().unbind());
            Py::new(py, Message { connection, owner, data })?.into_any()
        }
        Event::Binary(whose, bytes) => {
            let ((connection, owner), data) = (bits(whose), PyBytes::new(py, &bytes).into_any().unbind());
            Py::new(py, Message { connection, owner, data })?.into_any()
        }
        Event::Relayed(whose, is_text, data) => {
            let ((connection, owner), data) = (bits(whose), PyBytes::new(py, &data).unbind());
            Py::new(py, Relayed { connection, owner, data, is_text })?.into_any()
        }
        Event::Call(whose, target, arguments, id) => {
            let (connection, owner) = bits(whose);
            Py::new(py, Call { connection, owner, target, arguments, id })?.into_any()
        }
        Event::Connected(whose, connected) => {
            Py::new(py, connected_of(whose, connected.map(|connected| *connected)))?.into_any()
        }
        Event::SignalR(whose, event) => hub_message_of(py, whose, *event)?,
        Event::Admitted(whose, alike, peer) => Py::new(py, Admitted(whose, alike, peer))?.into_any(),
        Event::Joined(whose, offer) => {
            let (connection, owner) = bits(whose);
            Py::new(py, Joined { connection, owner, offer })?.into_any()
        }
        Event::Moved(whose, to) => {
            let (connection, owner) = bits(whose);
            Py::new(py, Moved { connection, owner, to: to.to_bits() })?.into_any()
        }
        Event::Drained(whose) => {
            let (connection, owner) = bits(whose);
            Py::new(py, Drained { connection, owner })?.into_any()
        }
        Event::Closed(whose, code, reason, by) => {
            let by = match by {
                ClosedBy::Client => "client",
                ClosedBy::Server => "server",
                ClosedBy::Network => "network",
            };
            let (connection, owner) = bits(whose);
            Py::new(py, Closed { connection, owner, code, reason, by })?.into_any()
        }
        other => return told_to_python(py, other),
    })
}

/// What is told of channels, and what the engine and sessions to backends report.
fn told_to_python(py: Python<'_>, event: Event) -> PyResult<Py<PyAny>> {
    Ok(match event {
        Event::Released(whose, why) => Py::new(py, released_of(whose, why))?.into_any(),
        Event::SnapshotWanted(channel, again) => Py::new(py, SnapshotWanted { channel, again })?.into_any(),
        Event::Presence(changes) => {
            let change = |one: &CorePresence| (one.channel.name().to_owned(), one.connection.to_bits(), one.has_joined);
            Py::new(py, Presence { changes: changes.iter().map(change).collect() })?.into_any()
        }
        Event::Heard(token) => Py::new(py, Audible { token })?.into_any(),
        Event::Progress(progress) => {
            let CoreProgress { token, part, subscribers, behind, skipped } = progress;
            Py::new(py, Progress { token, part, subscribers, behind, skipped })?.into_any()
        }
        Event::Placed(token) => Py::new(py, Placed { token })?.into_any(),
        Event::Told(worker, message) => {
            let message = PyBytes::new(py, &message).unbind();
            Py::new(py, WorkerTold { worker: worker.into(), message, is_for_all: false })?.into_any()
        }
        Event::ToldAnywhere(worker, message) => {
            let message = PyBytes::new(py, &message).unbind();
            Py::new(py, WorkerTold { worker, message, is_for_all: true })?.into_any()
        }
        Event::MirrorLost(worker, id) => {
            Py::new(py, MirrorLost { worker, id: PyBytes::new(py, &id).unbind() })?.into_any()
        }
        Event::Worker(number, has_come, age) => Py::new(py, WorkerChanged { number, has_come, age })?.into_any(),
        Event::Backbone(how, why) => {
            let state = ["up", "down", "alone"][usize::from(how.min(2))];
            Py::new(py, BackboneChanged { state, why: why.into() })?.into_any()
        }
        Event::BackboneForeign(count) => Py::new(py, BackboneForeign { count })?.into_any(),
        Event::Record(level, text) => Py::new(py, Record { level, text })?.into_any(),
        Event::Reported(what) => {
            let reported = what.downcast().expect("only sessions to backends report");
            Upstream::to_python(py, *reported)?
        }
        other => unreachable!("{other:?} has its arm above"),
    })
}

fn hub_message_of(py: Python<'_>, whose: Whose, event: SignalRMessage) -> PyResult<Py<PyAny>> {
    let SignalRMessage { kind, id: invocation, target, body, record, stream_ids } = event;
    let kind = match kind {
        SignalRMessageKind::Invocation => "invocation",
        SignalRMessageKind::StreamInvocation => "stream",
        SignalRMessageKind::StreamItem => "item",
        SignalRMessageKind::Result => "result",
        SignalRMessageKind::Void => "void",
        SignalRMessageKind::Error => "error",
        SignalRMessageKind::Cancel => "cancel",
    };
    let ((connection, owner), body) = (bits(whose), PyBytes::new(py, &body).unbind());
    let record = record.map(|record| PyBytes::new(py, &record).unbind());
    let message = HubMessage { connection, owner, kind, id: invocation, target, body, record, stream_ids };
    Ok(Py::new(py, message)?.into_any())
}

fn bits(whose: Whose) -> (u64, u16) {
    (whose.connection.to_bits(), whose.owner.0)
}

fn released_of(whose: Whose, why: CoreReleased) -> Released {
    let (why, code, reason) = match why {
        CoreReleased::Released => ("released", 0, String::new()),
        CoreReleased::Aborted => ("aborted", 0, String::new()),
        CoreReleased::Ended => ("ended", 0, String::new()),
        CoreReleased::Broken(errno) => {
            ("broken", u16::try_from(errno).unwrap_or(0), std::io::Error::from_raw_os_error(errno).to_string())
        }
        CoreReleased::Closed(code, reason) => ("closed", code, reason),
    };
    let (connection, owner) = bits(whose);
    Released { connection, owner, why, code, reason }
}

fn connected_of(whose: Whose, connected: Option<CoreConnected>) -> Connected {
    let (connection, owner) = bits(whose);
    let Some(CoreConnected { path, connection_id, transport, protocol }) = connected else {
        let (path, connection_id, transport, hub_protocol) = (None, None, None, None);
        return Connected { connection, owner, path, connection_id, transport, hub_protocol };
    };
    Connected {
        connection,
        owner,
        path: Some(path),
        connection_id: Some(connection_id),
        transport: Some(transport.name()),
        hub_protocol: Some(protocol.name()),
    }
}

/// Header values are bytes; each is the character of the same number (latin-1), as WSGI and ASGI servers do.
fn decode(headers: Vec<(String, Vec<u8>)>) -> Vec<(String, String)> {
    headers.into_iter().map(|(name, value)| (name, value.into_iter().map(char::from).collect())).collect()
}

/// Headers as the engine takes them.
pub(crate) fn boxed(headers: Vec<(String, String)>) -> Vec<Header> {
    headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// Somebody that hears channels of an engine.
#[pyclass(frozen, module = "fanwire._engine")]
pub(crate) struct Listener(pub(crate) Arc<CoreEngine>, pub(crate) Arc<CoreListener>);

#[pymethods]
impl Listener {
    fn hear<'py>(&self, py: Python<'py>, count_max: usize) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let heard = self.0.hear(&self.1, count_max).map_err(|error| to_pyerr(py, error))?;
        heard.iter().map(|one| heard_to_python(py, one)).collect()
    }

    fn end(&self, py: Python<'_>) {
        py.detach(|| self.0.unlisten(&self.1));
    }
}

/// Channel, position, data, whether that is JSON, event, whether it is a keyframe.
fn heard_to_python<'py>(py: Python<'py>, heard: &Heard) -> PyResult<Bound<'py, PyTuple>> {
    let (data, is_json) = match &heard.data {
        HeardData::Text(text) => (PyString::new(py, text).into_any(), false),
        HeardData::Binary(bytes) => (PyBytes::new(py, bytes).into_any(), false),
        HeardData::Json(json) => (PyBytes::new(py, json).into_any(), true),
    };
    let event = heard.event.as_deref();
    (&*heard.channel, Position(heard.position), data, is_json, event, heard.is_keyframe).into_pyobject(py)
}
