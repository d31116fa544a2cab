//! One batch of events to Python objects: frozen classes with plain attributes.
use fanwire_core::messages::{
    ClosedBy, Connected as CoreConnected, ConnectionId, Event, HubEvent, HubEventKind, Presence as CorePresence,
    Progress as CoreProgress, Request, Wanted as CoreWanted,
};
use fanwire_core::protocol::{Encoding, Format};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

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
        connection: u64, method: String, target: String, headers: Vec<(String, String)>, peer: String,
        channels: Vec<String>, protocol: &'static str, subprotocols: Vec<String>,
    }
}
event_class! {
    /// A plain HTTP request for a path that Python answers.
    Asking { connection: u64, method: String, target: String, headers: Vec<(String, String)>, peer: String }
}
event_class! {
    /// A client asks for channels.
    Subscribing { connection: u64, channels: Vec<String>, id: Option<String>, wanted: Py<Wanted> }
}

/// Where a client wants to begin: handed back as it came.
#[pyclass(frozen, module = "fanwire._engine")]
pub(crate) struct Wanted(pub(crate) CoreWanted);

event_class! {
    /// What a client of the raw protocol sent and the engine has no meaning for.
    Message { connection: u64, data: Py<PyAny> }
}
event_class! {
    /// What a client sent on a path whose WebSockets are relayed.
    Relayed { connection: u64, data: Py<PyBytes>, is_text: bool }
}
event_class! {
    /// A client calls a method.
    Call { connection: u64, target: String, arguments: String, id: Option<String> }
}
event_class! {
    /// A client's connection is open; the last four are for SignalR clients.
    Connected {
        connection: u64, opened_as: u64, hub: u8, connection_id: Option<String>, transport: Option<&'static str>,
        hub_protocol: Option<&'static str>,
    }
}
event_class! {
    /// What a SignalR client sent.
    HubMessage {
        connection: u64, kind: &'static str, id: String, target: String, body: Py<PyBytes>,
        record: Option<Py<PyBytes>>, stream_ids: Vec<String>,
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
    /// New subscribers of a channel wait for a keyframe.
    SnapshotWanted { channel: String }
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
    /// A line for `logging`.
    Record { level: u8, text: String }
}

pub(crate) fn add_classes(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Opening>()?;
    module.add_class::<Asking>()?;
    module.add_class::<Subscribing>()?;
    module.add_class::<Message>()?;
    module.add_class::<Call>()?;
    module.add_class::<Relayed>()?;
    module.add_class::<Connected>()?;
    module.add_class::<HubMessage>()?;
    module.add_class::<Wanted>()?;
    module.add_class::<SnapshotWanted>()?;
    module.add_class::<Presence>()?;
    module.add_class::<Progress>()?;
    module.add_class::<Audible>()?;
    module.add_class::<Drained>()?;
    module.add_class::<Closed>()?;
    module.add_class::<Record>()?;
    module.add_class::<Upstream>()
}

/// One event as a Python object.
pub(crate) fn to_python(py: Python<'_>, event: Event) -> PyResult<Py<PyAny>> {
    Ok(match event {
        Event::Opening(id, request) => {
            let Request { method, target, headers, peer, channels, format, subprotocols, is_relayed } = *request;
            let protocol = match format {
                _ if is_relayed => "websocket",
                Format::Sse => "sse",
                Format::Raw | Format::RawMsgpack | Format::Envelope | Format::EnvelopeMsgpack => "raw",
                _ => "signalr",
            };
            let (connection, headers) = (id.to_bits(), decode(headers));
            let opening = Opening { connection, method, target, headers, peer, channels, protocol, subprotocols };
            Py::new(py, opening)?.into_any()
        }
        Event::Asking(id, request) => {
            let Request { method, target, headers, peer, .. } = *request;
            let headers = decode(headers);
            Py::new(py, Asking { connection: id.to_bits(), method, target, headers, peer })?.into_any()
        }
        Event::Subscribing(connection, channels, id, wanted) => {
            let (connection, wanted) = (connection.to_bits(), Py::new(py, Wanted(wanted))?);
            Py::new(py, Subscribing { connection, channels, id, wanted })?.into_any()
        }
        Event::Text(id, text) => {
            let data = PyString::new(py, &text).into_any().unbind();
            Py::new(py, Message { connection: id.to_bits(), data })?.into_any()
        }
        Event::Binary(id, bytes) => {
            let data = PyBytes::new(py, &bytes).into_any().unbind();
            Py::new(py, Message { connection: id.to_bits(), data })?.into_any()
        }
        Event::Relayed(id, is_text, data) => {
            let data = PyBytes::new(py, &data).unbind();
            Py::new(py, Relayed { connection: id.to_bits(), data, is_text })?.into_any()
        }
        Event::Call(connection, target, arguments, id) => {
            Py::new(py, Call { connection: connection.to_bits(), target, arguments, id })?.into_any()
        }
        Event::Connected(id, connected) => {
            Py::new(py, connected_of(id, connected.map(|connected| *connected)))?.into_any()
        }
        Event::Hub(id, event) => {
            let HubEvent { kind, id: invocation, target, body, record, stream_ids } = *event;
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
            let record = record.map(|record| PyBytes::new(py, &record).unbind());
            Py::new(py, HubMessage { connection, kind, id: invocation, target, body, record, stream_ids })?.into_any()
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
        other => return told_to_python(py, other),
    })
}

/// What is told of channels, and what the engine and sessions to backends report.
fn told_to_python(py: Python<'_>, event: Event) -> PyResult<Py<PyAny>> {
    Ok(match event {
        Event::SnapshotWanted(channel) => Py::new(py, SnapshotWanted { channel })?.into_any(),
        Event::Presence(changes) => {
            let change = |one: &CorePresence| (one.channel.name().to_owned(), one.connection.to_bits(), one.has_joined);
            Py::new(py, Presence { changes: changes.iter().map(change).collect() })?.into_any()
        }
        Event::Heard(token) => Py::new(py, Audible { token })?.into_any(),
        Event::Progress(progress) => {
            let CoreProgress { token, part, subscribers, behind, skipped } = progress;
            Py::new(py, Progress { token, part, subscribers, behind, skipped })?.into_any()
        }
        Event::Record(level, text) => Py::new(py, Record { level, text })?.into_any(),
        Event::Reported(what) => {
            let reported = what.downcast().expect("only sessions to backends report");
            Upstream::to_python(py, *reported)?
        }
        other => unreachable!("{other:?} has its arm above"),
    })
}

fn connected_of(id: ConnectionId, connected: Option<CoreConnected>) -> Connected {
    let connection = id.to_bits();
    let Some(CoreConnected { opened_as, hub, connection_id, transport }) = connected else {
        let (connection_id, transport, hub_protocol) = (None, None, None);
        return Connected { connection, opened_as: connection, hub: 0, connection_id, transport, hub_protocol };
    };
    let is_json = id.format().is_none_or(|format| matches!(format.encoding(), Encoding::Json | Encoding::HubJson));
    Connected {
        connection,
        opened_as: opened_as.to_bits(),
        hub,
        connection_id: Some(connection_id),
        transport: Some(transport.name()),
        hub_protocol: Some(if is_json { "json" } else { "messagepack" }),
    }
}

/// Header values are bytes; each is the character of the same number (latin-1), as WSGI and ASGI servers do.
fn decode(headers: Vec<(String, Vec<u8>)>) -> Vec<(String, String)> {
    headers.into_iter().map(|(name, value)| (name, value.into_iter().map(char::from).collect())).collect()
}
