//! Sessions to backends, for the relay: what Python asks of `fanwire-upstream`, and what that does with the engine.
use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanwire_core::http::HeaderBytes;
use fanwire_core::messages::{ConnectionId, Header, Reply};
use fanwire_core::protocol::signalr::{HubMessage, HubProtocol, write_message};
use fanwire_core::{Audience, Engine as CoreEngine, Message};
use fanwire_upstream::{
    CloseFrame, CompletionKind, Fault, Negotiation, Open, OpenPlain, PlainRoute, Roots as CoreRoots, Route, Sink,
    UpstreamEvent, Upstreams,
};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

const SET_COOKIE: &str = "Set-Cookie";

/// A session's event among the engine's.
pub(crate) struct Reported(u64, UpstreamEvent);

/// What happened on a connection to a backend; see the stub for which kind has which members.
#[pyclass(frozen, get_all, module = "fanwire._engine")]
pub(crate) struct Upstream {
    session: u64,
    kind: &'static str,
    id: String,
    outcome: &'static str,
    body: Py<PyBytes>,
    text: String,
    status: Option<u16>,
    said: bool,
    may_reconnect: bool,
    was_open: bool,
    pending: Vec<String>,
    subprotocol: Option<String>,
    url_index: usize,
    code: Option<u16>,
    reason: String,
    cookies: Vec<String>,
    fault: &'static str,
}

impl Upstream {
    pub(crate) fn to_python(py: Python<'_>, reported: Reported) -> PyResult<Py<PyAny>> {
        let Reported(session, event) = reported;
        let mut made = Self {
            session,
            kind: "",
            id: String::new(),
            outcome: "",
            body: PyBytes::new(py, b"").unbind(),
            text: String::new(),
            status: None,
            said: false,
            may_reconnect: false,
            was_open: false,
            pending: Vec::new(),
            subprotocol: None,
            url_index: 0,
            code: None,
            reason: String::new(),
            cookies: Vec::new(),
            fault: "",
        };
        let bytes = |bytes: &[u8]| PyBytes::new(py, bytes).unbind();
        match event {
            UpstreamEvent::Opened { subprotocol, url_index, cookies } => {
                (made.kind, made.subprotocol, made.url_index) = ("opened", subprotocol, url_index);
                made.cookies = cookies;
            }
            UpstreamEvent::Unreached { url_index, error, status } => {
                (made.kind, made.url_index, made.text, made.status) = ("unreached", url_index, error, status);
            }
            UpstreamEvent::Completion { id, kind, body } => {
                (made.kind, made.id, made.outcome) = ("completion", id, name_of(kind));
                made.body = bytes(&body);
            }
            UpstreamEvent::Welcome { target, record } => {
                (made.kind, made.id, made.body) = ("welcome", target, bytes(&record.take()));
            }
            UpstreamEvent::Came { target } => (made.kind, made.id) = ("came", target),
            UpstreamEvent::Unnamed { target } => (made.kind, made.id) = ("unnamed", target),
            UpstreamEvent::Idle => made.kind = "idle",
            UpstreamEvent::Drained => made.kind = "drained",
            UpstreamEvent::Negotiated { status, body, fault, cookies } => {
                (made.kind, made.status, made.body) = ("negotiated", Some(status), bytes(&body));
                made.cookies = cookies;
                made.fault = fault.as_ref().map_or("", name_of_fault);
            }
            UpstreamEvent::Closed { error, status, fault, said, frame, was_open, pending } => {
                if let Some(CloseFrame { code, reason }) = frame {
                    (made.code, made.reason) = (Some(code), reason);
                }
                (made.kind, made.status, made.was_open, made.pending) = ("closed", status, was_open, pending);
                made.said = said.is_some();
                made.fault = fault.as_ref().map_or("", name_of_fault);
                if let Some(Fault::Handshake(words)) = fault {
                    made.body = bytes(words.as_bytes());
                }
                match said {
                    None => made.text = error,
                    Some(said) => {
                        made.may_reconnect = said.allow_reconnect;
                        made.text = said.error.unwrap_or_default();
                    }
                }
            }
        }
        Ok(Py::new(py, made)?.into_any())
    }
}

fn name_of(kind: CompletionKind) -> &'static str {
    match kind {
        CompletionKind::Error => "error",
        CompletionKind::Void => "void",
        CompletionKind::Result => "result",
    }
}

fn name_of_fault(fault: &Fault) -> &'static str {
    match fault {
        Fault::Server => "server",
        Fault::Request => "request",
        Fault::Machine => "machine",
        Fault::Handshake(_) => "handshake",
    }
}

/// What comes from backends goes into the engine's logs and to its clients. Whether a cookie that could not be passed on
/// was told of stands beside it.
struct IntoEngine(Arc<CoreEngine>, AtomicBool);

impl IntoEngine {
    fn append_to(&self, audience: Audience<'_>, protocol: HubProtocol, records: &[&[u8]], snapshots: &[usize]) {
        // At the bound of what is unsent, or of channels, or when the engine has stopped: it is lost, and said.
        if let Err(error) = self.0.append_records(audience, protocol, records, snapshots) {
            self.0.record(40, format!("{} messages of a backend are lost: {error}", records.len()));
        }
    }
}

impl Sink for IntoEngine {
    fn report(&self, session: u64, event: UpstreamEvent) {
        self.0.report(Box::new(Reported(session, event)));
    }

    fn append(&self, channel: &str, protocol: HubProtocol, records: &[&[u8]], keyframe: &[usize]) {
        self.append_to(Audience::Lane(channel), protocol, records, keyframe);
    }

    fn append_to_hub(&self, path: &str, protocol: HubProtocol, records: &[&[u8]]) {
        self.append_to(Audience::Hub(path), protocol, records, &[]);
    }

    fn send(&self, client: ConnectionId, records: &[u8]) {
        // Over the bound of its outbox the client would be closed; a message of that size was never for it.
        if let Err(error) = self.0.send_records(client, records) {
            self.0.record(40, format!("{client}: a private message of its backend is lost: {error}"));
        }
    }

    fn append_messages(&self, channel: &str, messages: &[Message<'_>]) {
        if let Err(error) = self.0.append_messages(channel, messages) {
            self.0.record(40, format!("{} messages of a backend are lost: {error}", messages.len()));
        }
    }

    fn send_messages(&self, client: ConnectionId, messages: &[Message<'_>]) {
        if let Err(error) = self.0.send_messages(client, messages) {
            self.0.record(40, format!("{client}: {} messages of its backend are lost: {error}", messages.len()));
        }
    }

    fn accept(&self, client: ConnectionId, subprotocol: Option<&str>, cookies: &[String]) {
        let mut headers: Vec<Header> = Vec::new();
        let mut taken = HeaderBytes::default();
        for cookie in cookies {
            match taken.add(SET_COOKIE, cookie) {
                Ok(()) => headers.push((SET_COOKIE.into(), cookie.as_str().into())),
                Err(why) if !self.1.swap(true, Ordering::Relaxed) => {
                    self.0.record(30, format!("a cookie of a backend is not passed on (this is said once): it {why}"));
                }
                Err(_) => {}
            }
        }
        // An engine that has stopped has no client that waits.
        drop(self.0.accept_relayed(client, Reply { headers, subprotocol: subprotocol.map(Into::into) }));
    }

    fn died(&self, thread: &str, text: String) {
        self.0.thread_died(thread, text);
    }

    fn panicked(&self, text: String) {
        self.0.record(40, format!("a connection to a backend has ended by a panic: {text}"));
    }
}

/// The sessions of one engine; their thread is started with the first.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<Option<Arc<Upstreams>>>);

impl Sessions {
    fn get(&self, engine: &Arc<CoreEngine>) -> PyResult<Arc<Upstreams>> {
        let mut sessions = self.0.lock().expect("nothing panics while it holds this");
        if let Some(upstreams) = &*sessions {
            return Ok(Arc::clone(upstreams));
        }
        let sink = Arc::new(IntoEngine(Arc::clone(engine), AtomicBool::new(false)));
        let started = Arc::new(Upstreams::start(sink).map_err(|error| PyOSError::new_err(error.to_string()))?);
        *sessions = Some(Arc::clone(&started));
        Ok(started)
    }

    pub(crate) fn stop(&self) {
        let upstreams = self.0.lock().expect("nothing panics while it holds this").take();
        if let Some(upstreams) = upstreams {
            upstreams.stop();
        }
    }

    pub(crate) fn open(&self, engine: &Arc<CoreEngine>, session: u64, open: Open) -> PyResult<()> {
        self.get(engine)?.open(session, open);
        Ok(())
    }

    pub(crate) fn send(&self, engine: &Arc<CoreEngine>, session: u64, records: &[u8]) -> PyResult<Option<usize>> {
        Ok(self.get(engine)?.send(session, records.to_vec()))
    }

    pub(crate) fn open_plain(&self, engine: &Arc<CoreEngine>, session: u64, open: OpenPlain) -> PyResult<()> {
        self.get(engine)?.open_plain(session, open);
        Ok(())
    }

    pub(crate) fn send_message(
        &self,
        engine: &Arc<CoreEngine>,
        session: u64,
        (is_text, data): (bool, &[u8]),
    ) -> PyResult<Option<usize>> {
        Ok(self.get(engine)?.send_message(session, is_text, data.to_vec()))
    }

    pub(crate) fn close(
        &self,
        engine: &Arc<CoreEngine>,
        session: u64,
        farewell: Option<(u16, String)>,
    ) -> PyResult<()> {
        self.get(engine)?.close(session, farewell.map(|(code, reason)| CloseFrame { code, reason }));
        Ok(())
    }

    pub(crate) fn negotiate(&self, engine: &Arc<CoreEngine>, request: u64, negotiation: Negotiation) -> PyResult<()> {
        self.get(engine)?.negotiate(request, negotiation);
        Ok(())
    }
}

/// Certificates of authorities by which backends are checked.
#[pyclass(frozen, module = "fanwire._engine")]
pub(crate) struct Roots(pub(crate) CoreRoots);

#[pymethods]
impl Roots {
    #[new]
    fn new(pem: &[u8]) -> PyResult<Self> {
        CoreRoots::from_pem(pem).map(Self).map_err(|error| PyValueError::new_err(error.to_string()))
    }
}

/// The one form of a value of a hub protocol, if it has one.
pub(crate) fn canonical(protocol: &str, value: &[u8]) -> PyResult<Option<Vec<u8>>> {
    Ok(fanwire_core::protocol::signalr::canonical(protocol_of(protocol)?, value))
}

/// A whole record that calls a method, without headers; an empty id is none.
pub(crate) fn invocation(protocol: &str, id: &str, target: &str, arguments: &[u8]) -> PyResult<Vec<u8>> {
    let message = HubMessage::Invocation {
        id: Some(Cow::Borrowed(id)).filter(|id| !id.is_empty()),
        target: Cow::Borrowed(target),
        arguments,
        stream_ids: Vec::new(),
    };
    let mut record = Vec::new();
    write_message(protocol_of(protocol)?, &message, &mut record);
    Ok(record)
}

pub(crate) fn protocol_of(name: &str) -> PyResult<HubProtocol> {
    HubProtocol::from_name(name)
        .ok_or_else(|| PyValueError::new_err(format!("protocol is {name:?}, must be 'json' or 'messagepack'")))
}

pub(crate) fn seconds(name: &str, value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value).map_err(|error| PyValueError::new_err(format!("{name} is {value}: {error}")))
}

/// A route as Python says it: its kind, and what belongs to that.
pub(crate) fn route_of(route: &Bound<'_, PyTuple>) -> PyResult<Route> {
    let kind: String = route.get_item(0)?.extract()?;
    Ok(match kind.as_str() {
        "lane" => {
            let (_, channel, everyone, snapshot): (String, String, HashSet<String>, Option<String>) =
                route.extract()?;
            Route::Lane { everyone: Arc::new(everyone), snapshot, channel }
        }
        "broadcast" => {
            let (_, path, everyone, welcome): (String, String, HashSet<String>, HashSet<String>) = route.extract()?;
            Route::Broadcast { everyone: Arc::new(everyone), welcome: Arc::new(welcome), path }
        }
        "private" => {
            let (_, client, dropped, reported): (String, u64, HashSet<String>, HashSet<String>) = route.extract()?;
            let client = ConnectionId::from_bits(client);
            Route::Private { dropped: Arc::new(dropped), reported: Arc::new(reported), client }
        }
        "calls" => Route::Calls,
        other => {
            return Err(PyValueError::new_err(format!(
                "route is {other:?}, must be lane, broadcast, private or calls"
            )));
        }
    })
}

/// A route of a plain WebSocket as Python says it.
pub(crate) fn plain_route_of(route: &Bound<'_, PyTuple>) -> PyResult<PlainRoute> {
    let kind: String = route.get_item(0)?.extract()?;
    Ok(match kind.as_str() {
        "lane" => {
            let (_, channel): (String, String) = route.extract()?;
            PlainRoute::Lane { channel }
        }
        "private" => {
            let (_, client, accepts): (String, u64, bool) = route.extract()?;
            PlainRoute::Private { client: ConnectionId::from_bits(client), accepts }
        }
        "nowhere" => PlainRoute::Nowhere,
        other => {
            return Err(PyValueError::new_err(format!("route is {other:?}, must be lane, private or nowhere")));
        }
    })
}
