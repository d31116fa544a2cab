//! Class `Engine`: each method borrows, calls the core and maps the error. What may wait lets go of the GIL.
use std::borrow::Cow;
use std::sync::Arc;

use fanwire_core::channel::Origin;
use fanwire_core::messages::{ConnectionId, Reply};
use fanwire_core::protocol::Format;
use fanwire_core::protocol::signalr::{HubMessage, Outcome};
use fanwire_core::{Audience, Engine as CoreEngine, OwnerId, Position as CorePosition};
use fanwire_upstream::{Negotiation, Open, OpenPlain};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::adopting::{self, Adopted};
use crate::encode::{self, Encoder};
use crate::errors::{new_to_pyerr, to_pyerr};
use crate::events::{self, Listener, Wanted, boxed};
use crate::mirroring::{self, Bounds, Source, Tied};
use crate::offering::{self, Call, End, Terms, completion, invocation, outcome_of};
use crate::position::{Position, Published, position_of, since_of};
use crate::publishing::{self, Options, publish};
use crate::routes::{Route, bad};
use crate::settings::{Settings, start_of, ttl_of};
use crate::stats::Stats;
use crate::tags::{Filter, Tagged, chosen, view_of};
use crate::upstream::{Roots, Sessions, plain_route_of, protocol_of, route_of, seconds};
use crate::workers::Joined;

/// The shards, their sockets and the channels' logs.
#[pyclass(frozen, module = "fanwire._engine")]
pub(crate) struct Engine(pub(crate) Arc<CoreEngine>, Sessions, Option<Py<Encoder>>, Joined);

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (settings, encoder = None))]
    fn new(py: Python<'_>, settings: &Settings, encoder: Option<Py<Encoder>>) -> PyResult<Self> {
        let mut settings = settings.0.clone();
        settings.speaks_msgpack = encoder.as_ref().is_none_or(|encoder| encoder.get().has_msgpack());
        let engine = CoreEngine::new(settings).map_err(|error| new_to_pyerr(py, error))?;
        Ok(Self(Arc::new(engine), Sessions::default(), encoder, Joined::default()))
    }

    /// `data` as JSON, for replies of the raw protocol.
    fn encode_json<'py>(&self, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        self.encoder().json(data, false)
    }

    fn add_route(&self, route: &Route) -> PyResult<()> {
        self.0.add_route(route.0.clone()).map_err(|error| bad(error.to_string()))
    }

    #[pyo3(signature = (path, code = None))]
    fn remove_route(&self, py: Python<'_>, path: &str, code: Option<u16>) -> PyResult<bool> {
        let Some(code) = code else { return Ok(self.0.remove_route(path)) };
        self.0.close_route(path, code, "").map_err(|error| to_pyerr(py, error))
    }

    fn start(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.0.start()).map_err(|error| to_pyerr(py, error))
    }

    fn join(&self, py: Python<'_>, path: std::path::PathBuf) -> PyResult<()> {
        py.detach(|| self.3.join(&self.0, path))
    }

    #[getter]
    fn worker(&self) -> Option<u8> {
        self.0.node().map(|member| member.number())
    }

    #[getter]
    fn is_apart(&self) -> bool {
        self.0.node().is_some_and(|member| member.is_apart())
    }

    #[pyo3(signature = (to, message, *, is_for_all = false))]
    fn tell(&self, py: Python<'_>, to: Option<u32>, message: &[u8], is_for_all: bool) -> PyResult<()> {
        self.0.tell_applications(to, message, is_for_all).map_err(|error| to_pyerr(py, error))
    }

    fn listen(&self, py: Python<'_>, address: &str) -> PyResult<String> {
        // A host name may have to be asked for.
        py.detach(|| self.0.listen(address)).map_err(|error| to_pyerr(py, error))
    }

    #[pyo3(signature = (fd, client = "", read = None))]
    fn welcome(&self, py: Python<'_>, fd: i32, client: &str, read: Option<&[u8]>) -> PyResult<()> {
        self.0.welcome(fd, client, read.unwrap_or_default()).map_err(|error| to_pyerr(py, error))
    }

    #[pyo3(signature = (fd, *, msgpack = false))]
    fn adopt(&self, py: Python<'_>, fd: i32, msgpack: bool) -> PyResult<Adopted> {
        Adopted::new(py, &self.0, fd, msgpack)
    }

    #[pyo3(signature = (adopted, frame, *, above))]
    fn broadcast(&self, adopted: &Bound<'_, PyList>, frame: &[u8], above: u64) -> PyResult<Vec<(usize, Option<u64>)>> {
        adopting::broadcast(&self.0, adopted, frame, above)
    }

    #[getter]
    fn event_fd(&self) -> i32 {
        self.0.event_fd()
    }

    #[pyo3(signature = (count_max = 1024))]
    fn take_events(&self, py: Python<'_>, count_max: usize) -> PyResult<Vec<Py<PyAny>>> {
        self.0.check_threads().map_err(|error| to_pyerr(py, error))?;
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
    #[pyo3(signature = (
        channel, data, event = None, key = None, ttl = None, deferred = false, excluded = Vec::new(), keyframe = false,
        tags = Tagged::default(),
    ))]
    fn publish(
        &self,
        channel: &str,
        data: &Bound<'_, PyAny>,
        event: Option<&str>,
        key: Option<&str>,
        #[pyo3(from_py_with = ttl_of)] ttl: Option<f64>,
        deferred: bool,
        excluded: Vec<u64>,
        keyframe: bool,
        tags: Tagged,
    ) -> PyResult<Py<Published>> {
        let plain = Options { event, key, ttl, deferred, excluded: &excluded, ..Options::default() };
        let options = Options { is_keyframe: keyframe, tags, ..plain };
        self.publish_data(Audience::Channel(channel), data, options)
    }

    #[pyo3(signature = (channel, data, event = None))]
    fn publish_snapshot(&self, channel: &str, data: &Bound<'_, PyAny>, event: Option<&str>) -> PyResult<Py<Published>> {
        let options = Options { event, is_snapshot: true, ..Options::default() };
        self.publish_data(Audience::Channel(channel), data, options)
    }

    #[pyo3(signature = (channel, data, key, event = None, excluded = Vec::new(), tags = Tagged::default()))]
    fn remove(
        &self,
        channel: &str,
        data: &Bound<'_, PyAny>,
        key: &str,
        event: Option<&str>,
        excluded: Vec<u64>,
        tags: Tagged,
    ) -> PyResult<Py<Published>> {
        let plain = Options { event, key: Some(key), excluded: &excluded, ..Options::default() };
        let options = Options { is_removal: true, tags, ..plain };
        self.publish_data(Audience::Channel(channel), data, options)
    }

    fn give_up_snapshot(&self, py: Python<'_>, channel: &str, why: &str) -> PyResult<()> {
        self.0.give_up_snapshot(channel, why).map_err(|error| to_pyerr(py, error))
    }

    fn position(&self, py: Python<'_>, channel: &str) -> PyResult<Position> {
        // It may have to be asked for.
        py.detach(|| self.0.position(channel)).map(Position).map_err(|error| to_pyerr(py, error))
    }

    fn listen_to(&self, py: Python<'_>, pattern: &str, token: u64) -> PyResult<Listener> {
        // It looks at the name of every channel.
        let listener = py.detach(|| self.0.listen_to(pattern, token)).map_err(|error| to_pyerr(py, error))?;
        Ok(Listener(Arc::clone(&self.0), listener))
    }

    fn track(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = position_of)] position: CorePosition,
    ) -> PyResult<(u64, u32)> {
        self.0.track(position).map_err(|error| to_pyerr(py, error))
    }

    fn untrack(&self, token: u64) {
        self.0.untrack(token);
    }

    #[pyo3(signature = (user, data, event = None, ttl = None, deferred = false, excluded = Vec::new()))]
    fn publish_to_user(
        &self,
        user: &str,
        data: &Bound<'_, PyAny>,
        event: Option<&str>,
        #[pyo3(from_py_with = ttl_of)] ttl: Option<f64>,
        deferred: bool,
        excluded: Vec<u64>,
    ) -> PyResult<Py<Published>> {
        let options = Options { event, ttl, deferred, excluded: &excluded, ..Options::default() };
        self.publish_data(Audience::User(user), data, options)
    }

    #[pyo3(signature = (path, data, event = None, ttl = None, deferred = false, excluded = Vec::new()))]
    fn publish_to_hub(
        &self,
        path: &str,
        data: &Bound<'_, PyAny>,
        event: Option<&str>,
        #[pyo3(from_py_with = ttl_of)] ttl: Option<f64>,
        deferred: bool,
        excluded: Vec<u64>,
    ) -> PyResult<Py<Published>> {
        let options = Options { event, ttl, deferred, excluded: &excluded, ..Options::default() };
        self.publish_data(Audience::Hub(path), data, options)
    }

    fn flush(&self) {
        self.0.flush();
    }

    #[allow(clippy::too_many_arguments)] // as Python calls it
    #[pyo3(signature = (connection, channels, user = None, headers = Vec::new(), subprotocol = None, filters = None))]
    fn accept(
        &self,
        py: Python<'_>,
        connection: u64,
        channels: Vec<String>,
        user: Option<&str>,
        headers: Vec<(String, String)>,
        subprotocol: Option<String>,
        filters: Option<Vec<Option<Py<Filter>>>>,
    ) -> PyResult<()> {
        let id = ConnectionId::from_bits(connection);
        let reply = Reply { headers: boxed(headers), subprotocol: subprotocol.map(Into::into) };
        self.0.accept(id, chosen(&channels, filters.as_deref()), user, reply).map_err(|error| to_pyerr(py, error))
    }

    #[pyo3(signature = (connection, subprotocol = None, headers = Vec::new()))]
    fn accept_relayed(
        &self,
        py: Python<'_>,
        connection: u64,
        subprotocol: Option<String>,
        headers: Vec<(String, String)>,
    ) -> PyResult<()> {
        let reply = Reply { headers: boxed(headers), subprotocol: subprotocol.map(Into::into) };
        self.0.accept_relayed(ConnectionId::from_bits(connection), reply).map_err(|error| to_pyerr(py, error))
    }

    #[pyo3(signature = (connection, status, reason, headers = Vec::new()))]
    fn refuse(
        &self,
        py: Python<'_>,
        connection: u64,
        status: u16,
        reason: &str,
        headers: Vec<(String, String)>,
    ) -> PyResult<()> {
        let content_type = if reason.is_empty() { "" } else { "text/plain; charset=utf-8" };
        self.respond(py, connection, status, content_type, reason.as_bytes(), headers)
    }

    #[pyo3(signature = (connection, status, content_type, body, headers = Vec::new()))]
    fn respond(
        &self,
        py: Python<'_>,
        connection: u64,
        status: u16,
        content_type: &str,
        body: &[u8],
        headers: Vec<(String, String)>,
    ) -> PyResult<()> {
        let id = ConnectionId::from_bits(connection);
        self.0.respond(id, (status, boxed(headers)), content_type, body).map_err(|error| to_pyerr(py, error))
    }

    #[pyo3(signature = (connection, channel, since = None, start = None, filter = None))]
    fn subscribe(
        &self,
        py: Python<'_>,
        connection: u64,
        channel: &str,
        #[pyo3(from_py_with = since_of)] since: Option<CorePosition>,
        start: Option<&str>,
        filter: Option<&Filter>,
    ) -> PyResult<()> {
        let (id, chosen) = (ConnectionId::from_bits(connection), (channel, view_of(filter)));
        let origin = Origin { since, start: start.map(start_of).transpose()? };
        self.0.subscribe(id, chosen, origin).map_err(|error| to_pyerr(py, error))
    }

    #[allow(clippy::too_many_arguments)] // as Python calls it
    #[pyo3(signature = (connection, channels, id = None, error = None, wanted = None, filters = None))]
    fn grant(
        &self,
        py: Python<'_>,
        connection: u64,
        channels: Vec<String>,
        id: Option<&str>,
        error: Option<&str>,
        wanted: Option<&Wanted>,
        filters: Option<Vec<Option<Py<Filter>>>>,
    ) -> PyResult<()> {
        let connection = ConnectionId::from_bits(connection);
        let channels = chosen(&channels, filters.as_deref());
        let wanted = wanted.map(|wanted| wanted.0.clone()).unwrap_or_default();
        self.0.grant(connection, channels, id, error, wanted).map_err(|error| to_pyerr(py, error))
    }

    fn unsubscribe(&self, py: Python<'_>, connection: u64, channel: &str) -> PyResult<()> {
        self.0.unsubscribe(ConnectionId::from_bits(connection), channel).map_err(|error| to_pyerr(py, error))
    }

    #[pyo3(signature = (connection, data, event = None))]
    fn send(&self, connection: u64, data: &Bound<'_, PyAny>, event: Option<&str>) -> PyResult<()> {
        publishing::send(&self.0, self.encoder(), ConnectionId::from_bits(connection), data, event)
    }

    fn reply(&self, py: Python<'_>, connection: u64, text: &str) -> PyResult<()> {
        self.0.reply(ConnectionId::from_bits(connection), text).map_err(|error| to_pyerr(py, error))
    }

    fn invoke(&self, connection: u64, target: &str, arguments: &Bound<'_, PyTuple>, id: Option<&str>) -> PyResult<()> {
        let arguments = self.encode_for(connection, arguments.as_any())?;
        self.send_message(connection, &invocation(id, target, &arguments))
    }

    fn complete(&self, connection: u64, id: &str, result: &Bound<'_, PyAny>) -> PyResult<()> {
        let result = self.encode_for(connection, result)?;
        self.send_message(connection, &completion(id, Outcome::Result(&result)))
    }

    fn complete_void(&self, connection: u64, id: &str) -> PyResult<()> {
        self.send_message(connection, &completion(id, Outcome::Void))
    }

    fn complete_error(&self, connection: u64, id: &str, error: &str) -> PyResult<()> {
        self.send_message(connection, &completion(id, Outcome::Error(Cow::Borrowed(error))))
    }

    /// Answers an invocation with what a backend answered it with, raw.
    fn complete_raw(&self, connection: u64, id: &str, outcome: &str, body: &[u8]) -> PyResult<()> {
        self.send_message(connection, &completion(id, outcome_of(outcome, body)))
    }

    fn send_records(&self, py: Python<'_>, connection: u64, records: &[u8]) -> PyResult<()> {
        self.0.send_records(ConnectionId::from_bits(connection), records).map_err(|error| to_pyerr(py, error))
    }

    #[pyo3(signature = (lane, data, event))]
    fn publish_to_lane(&self, lane: &str, data: &Bound<'_, PyAny>, event: &str) -> PyResult<Py<Published>> {
        self.publish_data(Audience::Lane(lane), data, Options { event: Some(event), ..Options::default() })
    }

    fn set_beginning(&self, py: Python<'_>, lane: &str, bytes_max: u64) -> PyResult<()> {
        self.0.set_beginning(lane, bytes_max).map_err(|error| to_pyerr(py, error))
    }

    fn bound_beginning(&self, py: Python<'_>, lane: &str, bytes_max: u64) -> PyResult<()> {
        self.0.bound_beginning(lane, bytes_max).map_err(|error| to_pyerr(py, error))
    }

    fn forget_beginning(&self, py: Python<'_>, lane: &str) -> PyResult<()> {
        self.0.forget_beginning(lane).map_err(|error| to_pyerr(py, error))
    }

    #[pyo3(signature = (lane, is_expected = true))]
    fn expect_snapshot(&self, py: Python<'_>, lane: &str, is_expected: bool) -> PyResult<()> {
        self.0.expect_snapshot(lane, is_expected).map_err(|error| to_pyerr(py, error))
    }

    #[pyo3(signature = (connection, lane, is_subscribed = false, messages_max = None, age_max = None))]
    fn join_lane(
        &self,
        py: Python<'_>,
        connection: u64,
        lane: &str,
        is_subscribed: bool,
        messages_max: Option<usize>,
        age_max: Option<f64>,
    ) -> PyResult<bool> {
        let (newest, id) = (mirroring::newest_of(messages_max, age_max)?, ConnectionId::from_bits(connection));
        self.0.join_lane(id, lane, is_subscribed, newest).map_err(|error| to_pyerr(py, error))
    }

    fn join_live(&self, py: Python<'_>, connection: u64, lane: &str) -> PyResult<()> {
        self.0.join_live(ConnectionId::from_bits(connection), lane).map_err(|error| to_pyerr(py, error))
    }

    fn leave_lane(&self, py: Python<'_>, connection: u64, lane: &str) -> PyResult<()> {
        self.0.leave_lane(ConnectionId::from_bits(connection), lane).map_err(|error| to_pyerr(py, error))
    }

    fn offer_lane(&self, py: Python<'_>, lane: &str, call: Call<'_>, end: End<'_>, terms: Terms) -> PyResult<u64> {
        offering::offer(py, &self.0, lane, call, end, terms)
    }

    fn admit_alike(&self, py: Python<'_>, owner: u16, headers: Vec<(String, String)>, valid_for: f64) -> PyResult<u64> {
        offering::admit(py, &self.0, owner, headers, valid_for)
    }

    fn ask_about_all(&self, owner: u16) {
        self.0.ask_about_all(OwnerId(owner));
    }

    fn withdraw_lane(&self, offer: u64) -> u64 {
        self.0.withdraw_lane(offer)
    }

    fn mirror(&self, py: Python<'_>, name: &str, source: Source<'_>, tie: Tied, newest: Bounds) -> PyResult<bool> {
        mirroring::mirror(py, &self.0, name, source, tie, newest)
    }

    fn unmirror(&self, name: &str, source: Source<'_>, worker: u32) -> PyResult<()> {
        mirroring::unmirror(&self.0, name, source, worker)
    }

    fn follow(&self, py: Python<'_>, name: &str, source: Source<'_>, tie: Tied, lost: Option<f64>) -> PyResult<()> {
        mirroring::follow(py, &self.0, name, source, tie, lost)
    }

    fn unfollow(&self, id: &[u8], worker: u32) -> PyResult<Option<f64>> {
        mirroring::unfollow(&self.0, id, worker)
    }

    #[allow(clippy::too_many_arguments)] // as Python calls it
    #[pyo3(signature = (
        session, urls, headers, protocol, route, *, negotiates, keepalive, server_timeout, connect_timeout, idle,
        record_bytes_max, queue_bytes_max, roots = None,
    ))]
    fn upstream_open(
        &self,
        session: u64,
        urls: Vec<String>,
        headers: Vec<(String, String)>,
        protocol: &str,
        route: &Bound<'_, PyTuple>,
        negotiates: bool,
        keepalive: f64,
        server_timeout: f64,
        connect_timeout: f64,
        idle: Option<f64>,
        record_bytes_max: usize,
        queue_bytes_max: usize,
        roots: Option<&Roots>,
    ) -> PyResult<()> {
        let open = Open {
            urls,
            headers,
            roots: roots.map(|roots| roots.0.clone()),
            protocol: protocol_of(protocol)?,
            negotiates,
            route: route_of(route)?,
            keepalive: seconds("keepalive", keepalive)?,
            server_timeout: seconds("server_timeout", server_timeout)?,
            connect_timeout: seconds("connect_timeout", connect_timeout)?,
            idle: idle.map(|idle| seconds("idle", idle)).transpose()?,
            record_bytes_max,
            queue_bytes_max,
        };
        self.1.open(&self.0, session, open)
    }

    fn upstream_send(&self, session: u64, records: &[u8]) -> PyResult<Option<usize>> {
        self.1.send(&self.0, session, records)
    }

    #[allow(clippy::too_many_arguments)] // as Python calls it
    #[pyo3(signature = (
        session, urls, headers, subprotocols, route, *, keepalive, server_timeout, connect_timeout, idle,
        message_bytes_max, queue_bytes_max, roots = None,
    ))]
    fn upstream_open_plain(
        &self,
        session: u64,
        urls: Vec<String>,
        headers: Vec<(String, String)>,
        subprotocols: Vec<String>,
        route: &Bound<'_, PyTuple>,
        keepalive: f64,
        server_timeout: f64,
        connect_timeout: f64,
        idle: Option<f64>,
        message_bytes_max: usize,
        queue_bytes_max: usize,
        roots: Option<&Roots>,
    ) -> PyResult<()> {
        let open = OpenPlain {
            urls,
            headers,
            roots: roots.map(|roots| roots.0.clone()),
            subprotocols,
            route: plain_route_of(route)?,
            keepalive: seconds("keepalive", keepalive)?,
            server_timeout: seconds("server_timeout", server_timeout)?,
            connect_timeout: seconds("connect_timeout", connect_timeout)?,
            idle: idle.map(|idle| seconds("idle", idle)).transpose()?,
            message_bytes_max,
            queue_bytes_max,
        };
        self.1.open_plain(&self.0, session, open)
    }

    fn upstream_send_message(&self, session: u64, data: &[u8], is_text: bool) -> PyResult<Option<usize>> {
        self.1.send_message(&self.0, session, (is_text, data))
    }

    #[pyo3(signature = (session, farewell = None))]
    fn upstream_close(&self, session: u64, farewell: Option<(u16, String)>) -> PyResult<()> {
        self.1.close(&self.0, session, farewell)
    }

    #[pyo3(signature = (request, url, headers, timeout, roots = None))]
    fn upstream_negotiate(
        &self,
        request: u64,
        url: String,
        headers: Vec<(String, String)>,
        timeout: f64,
        roots: Option<&Roots>,
    ) -> PyResult<()> {
        let (roots, timeout) = (roots.map(|roots| roots.0.clone()), seconds("timeout", timeout)?);
        self.1.negotiate(&self.0, request, Negotiation { url, headers, roots, timeout })
    }

    #[pyo3(signature = (why, others_serve = false))]
    fn set_unready(&self, why: Option<String>, others_serve: bool) {
        self.0.set_unready(why, others_serve);
    }

    fn ask_drained(&self, py: Python<'_>, connection: u64) -> PyResult<()> {
        self.0.ask_drained(ConnectionId::from_bits(connection)).map_err(|error| to_pyerr(py, error))
    }

    fn stream_item(&self, connection: u64, id: &str, item: &Bound<'_, PyAny>) -> PyResult<usize> {
        let item = self.encode_for(connection, item)?;
        self.send_message(connection, &HubMessage::StreamItem { id: Cow::Borrowed(id), item: &item })?;
        Ok(item.len())
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

    #[pyo3(signature = (code = 1001, reason = "", spread = 0.0))]
    fn drain(&self, py: Python<'_>, code: u16, reason: &str, spread: f64) -> PyResult<()> {
        self.0.drain(code, reason, seconds("spread", spread)?).map_err(|error| to_pyerr(py, error))
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| {
            self.1.stop();
            self.3.leave();
            self.0.stop();
        });
    }
}

impl Engine {
    fn publish_data(
        &self,
        audience: Audience<'_>,
        data: &Bound<'_, PyAny>,
        options: Options<'_>,
    ) -> PyResult<Py<Published>> {
        publish(&self.0, self.encoder(), audience, data, options)
    }

    /// An object in the encoding that a client of SignalR speaks; of one that is gone, anything will do.
    fn encode_for(&self, connection: u64, object: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
        let format = self.0.format_of(ConnectionId::from_bits(connection)).unwrap_or(Format::HubJson);
        self.encoder().encode(object, format.encoding())
    }

    fn encoder(&self) -> &Encoder {
        self.2.as_ref().map_or(&encode::DEFAULT, Py::get)
    }

    fn send_message(&self, connection: u64, message: &HubMessage<'_>) -> PyResult<()> {
        let sent = self.0.send_message(ConnectionId::from_bits(connection), message);
        sent.map_err(|error| Python::attach(|py| to_pyerr(py, error)))
    }
}
