//! One batch of events to Python objects: frozen classes with plain attributes.
use fanwire_core::messages::{ClosedBy, Connected as CoreConnected, Event, HubEvent, HubEventKind, Request};
use fanwire_core::protocol::{Encoding, Format};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

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
        connection: u64, method: String, target: String, headers: Vec<(String, String)>, peer: String,
        channels: Vec<String>, protocol: &'static str,
    }
}
event_class! {
    /// A plain HTTP request for a path that Python answers.
    Asking { connection: u64, method: String, target: String, headers: Vec<(String, String)>, peer: String }
}
event_class! {
    /// A client asks for channels.
    Subscribing { connection: u64, channels: Vec<String>, id: Option<String> }
}
event_class! {
    /// What a client of the raw protocol sent and the engine has no meaning for.
    Message { connection: u64, data: Py<PyAny> }
}
event_class! {
    /// A client calls a method.
    Call { connection: u64, target: String, arguments: String, id: Option<String> }
}
event_class! {
    /// A SignalR client has shaken hands.
    Connected {
        connection: u64, opened_as: u64, hub: u8, connection_id: String, transport: &'static str, is_json: bool,
    }
}
event_class! {
    /// What a SignalR client sent.
    HubMessage {
        connection: u64, kind: &'static str, id: String, target: String, body: Py<PyBytes>,
        stream_ids: Vec<String>,
    }
}
event_class! {
    /// The socket has taken all private bytes.
    Drained { connection: u64 }
}
event_class! {
    /// A connection that Python has heard of is gone.
    Closed { connection: u64, code: u16, reason: String, by: &'static str }
}
event_class! {
    /// A line for `logging`.
    Record { level: u8, text: String }
}

pub(crate) fn add_classes(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Opening>()?;
    module.add_class::<Asking>()?;
    module.add_class::<Subscribing>()?;
    module.add_class::<Message>()?;
    module.add_class::<Call>()?;
    module.add_class::<Connected>()?;
    module.add_class::<HubMessage>()?;
    module.add_class::<Drained>()?;
    module.add_class::<Closed>()?;
    module.add_class::<Record>()
}

/// One event as a Python object.
pub(crate) fn to_python(py: Python<'_>, event: Event) -> PyResult<Py<PyAny>> {
    Ok(match event {
        Event::Opening(id, request) => {
            let Request { method, target, headers, peer, channels, format } = *request;
            let protocol = match format {
                Format::Sse => "sse",
                Format::Raw | Format::RawMsgpack => "raw",
                _ => "signalr",
            };
            let (connection, headers) = (id.to_bits(), decode(headers));
            Py::new(py, Opening { connection, method, target, headers, peer, channels, protocol })?.into_any()
        }
        Event::Asking(id, request) => {
            let Request { method, target, headers, peer, .. } = *request;
            let headers = decode(headers);
            Py::new(py, Asking { connection: id.to_bits(), method, target, headers, peer })?.into_any()
        }
        Event::Subscribing(connection, channels, id) => {
            Py::new(py, Subscribing { connection: connection.to_bits(), channels, id })?.into_any()
        }
        Event::Text(id, text) => {
            let data = PyString::new(py, &text).into_any().unbind();
            Py::new(py, Message { connection: id.to_bits(), data })?.into_any()
        }
        Event::Binary(id, bytes) => {
            let data = PyBytes::new(py, &bytes).into_any().unbind();
            Py::new(py, Message { connection: id.to_bits(), data })?.into_any()
        }
        Event::Call(connection, target, arguments, id) => {
            Py::new(py, Call { connection: connection.to_bits(), target, arguments, id })?.into_any()
        }
        Event::Connected(id, connected) => {
            let CoreConnected { opened_as, hub, connection_id, transport } = *connected;
            let transport = transport.name();
            let is_json = id.format().is_none_or(|format| format.encoding() == Encoding::Json);
            let (connection, opened_as) = (id.to_bits(), opened_as.to_bits());
            Py::new(py, Connected { connection, opened_as, hub, connection_id, transport, is_json })?.into_any()
        }
        Event::Hub(id, event) => {
            let HubEvent { kind, id: invocation, target, body, stream_ids } = *event;
            let kind = match kind {
                HubEventKind::Invocation => "invocation",
                HubEventKind::StreamInvocation => "stream",
                HubEventKind::StreamItem => "item",
                HubEventKind::Result => "result",
                HubEventKind::Void => "void",
                HubEventKind::Error => "error",
                HubEventKind::Cancel => "cancel",
            };
            let (connection, body) = (id.to_bits(), PyBytes::new(py, &body).unbind());
            Py::new(py, HubMessage { connection, kind, id: invocation, target, body, stream_ids })?.into_any()
        }
        Event::Drained(id) => Py::new(py, Drained { connection: id.to_bits() })?.into_any(),
        Event::Closed(id, code, reason, by) => {
            let by = match by {
                ClosedBy::Client => "client",
                ClosedBy::Server => "server",
                ClosedBy::Network => "network",
            };
            Py::new(py, Closed { connection: id.to_bits(), code, reason, by })?.into_any()
        }
        Event::Record(level, text) => Py::new(py, Record { level, text })?.into_any(),
    })
}

/// Header values are bytes; each is the character of the same number (latin-1), as WSGI and ASGI servers do.
fn decode(headers: Vec<(String, Vec<u8>)>) -> Vec<(String, String)> {
    headers.into_iter().map(|(name, value)| (name, value.into_iter().map(char::from).collect())).collect()
}
