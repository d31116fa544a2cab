//! Settings cross once, as one frozen object.
use std::time::Duration;

use fanwire_core::channel::{Pattern, Policy, Start};
use fanwire_core::{
    ChannelRule as CoreRule, ChannelSettings, HubSettings, HubTransports, PollerKind, Settings as CoreSettings,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors::to_pyerr;

/// What the channels promise whose name matches `pattern`; the first match wins.
#[pyclass(frozen, from_py_object, module = "fanwire._engine")]
#[derive(Clone)]
pub(crate) struct ChannelRule(CoreRule);

#[pymethods]
impl ChannelRule {
    #[new]
    #[pyo3(signature = (
        pattern, *, policy, backlog_bytes, backlog_frames, backlog_age, history, history_age, history_bytes, start,
        presence,
    ))]
    #[allow(clippy::too_many_arguments)] // they are keyword-only and cross once
    fn new(
        py: Python<'_>,
        pattern: &str,
        policy: &str,
        backlog_bytes: u64,
        backlog_frames: usize,
        backlog_age: Option<f64>,
        history: usize,
        history_age: f64,
        history_bytes: u64,
        start: &str,
        presence: bool,
    ) -> PyResult<Self> {
        let pattern = Pattern::new(pattern).map_err(|error| to_pyerr(py, error))?;
        let settings = ChannelSettings {
            policy: Policy::from_name(policy)
                .ok_or_else(|| PyValueError::new_err(format!("policy {policy:?} does not exist")))?,
            backlog_bytes,
            backlog_frames,
            backlog_age: backlog_age.map_or(Ok(Duration::MAX), |age| seconds("backlog_age", age))?,
            history_frames: history,
            history_age: seconds("history_age", history_age)?,
            history_bytes,
            start: start_of(start)?,
            snapshot_interval: None,
            tells_presence: presence,
        };
        Ok(Self(CoreRule { pattern, settings }))
    }
}

/// All limits and options of an engine, frozen.
#[pyclass(frozen, module = "fanwire._engine")]
pub(crate) struct Settings(pub(crate) CoreSettings);

#[pymethods]
impl Settings {
    #[new]
    #[pyo3(signature = (
        *, shards = 1, poller = None, channels = Vec::new(), snapshots = Vec::new(), ask_opening = false, ask_subscribing = false,
        ignore_messages = false, tell_connected = false, origins = None, head_bytes_max = 16_384, message_bytes_max = 65_536, publication_bytes_max = 1_048_576,
        unsent_bytes_max = 67_108_864, outbox_bytes_max = 262_144, subscriptions_max = 1_000, channels_max = 1_000_000,
        messages_pending_max = 16, events_pending_max = 16_384, handshake_timeout = 10.0, ping_interval = 25.0, ping_timeout = 20.0,
        signalr_paths = Vec::new(), signalr_keepalive = 15.0, signalr_client_timeout = 30.0,
        signalr_handshake_timeout = 15.0, signalr_disconnect_timeout = 15.0, signalr_poll_timeout = 90.0,
        signalr_message_bytes_max = 32_768, close_timeout = 5.0, notsent_lowat = 16_384, congestion_control = None, backlog = 4_096, unix_mode = 0o660, pin_shards = false,
    ))]
    #[allow(clippy::too_many_arguments)] // they are keyword-only and cross once
    fn new(
        shards: usize,
        poller: Option<&str>,
        channels: Vec<ChannelRule>,
        snapshots: Vec<(String, f64)>,
        ask_opening: bool,
        ask_subscribing: bool,
        ignore_messages: bool,
        tell_connected: bool,
        origins: Option<Vec<String>>,
        head_bytes_max: usize,
        message_bytes_max: usize,
        publication_bytes_max: usize,
        unsent_bytes_max: u64,
        outbox_bytes_max: usize,
        subscriptions_max: usize,
        channels_max: usize,
        messages_pending_max: u16,
        events_pending_max: usize,
        handshake_timeout: f64,
        ping_interval: f64,
        ping_timeout: f64,
        signalr_paths: Vec<String>,
        signalr_keepalive: f64,
        signalr_client_timeout: f64,
        signalr_handshake_timeout: f64,
        signalr_disconnect_timeout: f64,
        signalr_poll_timeout: f64,
        signalr_message_bytes_max: usize,
        close_timeout: f64,
        notsent_lowat: u32,
        congestion_control: Option<String>,
        backlog: i32,
        unix_mode: u32,
        pin_shards: bool,
    ) -> PyResult<Self> {
        let pings = [signalr_keepalive, signalr_client_timeout];
        let times = hub_times(pings, [signalr_handshake_timeout, signalr_disconnect_timeout, signalr_poll_timeout])?;
        checked(CoreSettings {
            shards,
            poller: poller.map(poller_of).transpose()?,
            channels: channels.into_iter().map(|rule| rule.0).collect(),
            snapshots: snapshots.into_iter().map(snapshot_of).collect::<PyResult<_>>()?,
            asks_opening: ask_opening,
            asks_subscribing: ask_subscribing,
            ignores_messages: ignore_messages,
            tells_connected: tell_connected,
            origins,
            head_bytes_max,
            message_bytes_max,
            publication_bytes_max,
            unsent_bytes_max,
            outbox_bytes_max,
            subscriptions_max,
            channels_max,
            messages_pending_max,
            events_pending_max,
            handshake_timeout: seconds("handshake_timeout", handshake_timeout)?,
            ping_interval: seconds("ping_interval", ping_interval)?,
            ping_timeout: seconds("ping_timeout", ping_timeout)?,
            hubs: HubSettings { paths: signalr_paths, message_bytes_max: signalr_message_bytes_max, ..times },
            close_timeout: seconds("close_timeout", close_timeout)?,
            notsent_lowat,
            congestion_control,
            backlog,
            unix_mode,
            pins_shards: pin_shards,
            ..CoreSettings::default()
        })
    }

    /// The same, with the transports of each hub's clients by their names, and whether those are told details of errors.
    fn hubs(&self, transports: Vec<Vec<String>>, tells_details: bool) -> PyResult<Self> {
        let mut settings = self.0.clone();
        settings.hubs.transports = transports.iter().map(|names| transports_of(names)).collect::<PyResult<_>>()?;
        settings.hubs.tells_details = tells_details;
        checked(settings)
    }

    /// The same, with the messages of these hubs, by index, and the WebSockets of these paths relayed to a backend.
    #[pyo3(signature = (hubs, paths = Vec::new()))]
    fn relaying(&self, hubs: Vec<u8>, paths: Vec<String>) -> PyResult<Self> {
        let mut settings = self.0.clone();
        settings.hubs.relayed = hubs;
        settings.relayed_paths = paths;
        checked(settings)
    }
}

/// A pattern, and seconds.
fn snapshot_of((pattern, interval): (String, f64)) -> PyResult<(Pattern, Duration)> {
    let pattern = Pattern::new(&pattern).map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok((pattern, seconds("interval", interval)?))
}

/// The transports of a hub by their names, of which there is one at least.
fn transports_of(names: &[String]) -> PyResult<HubTransports> {
    let mut transports = HubTransports { web_sockets: false, server_sent_events: false, long_polling: false };
    for name in names {
        match name.as_str() {
            "WebSockets" => transports.web_sockets = true,
            "ServerSentEvents" => transports.server_sent_events = true,
            "LongPolling" => transports.long_polling = true,
            _ => {
                let text = "must be 'WebSockets', 'ServerSentEvents' or 'LongPolling'";
                return Err(PyValueError::new_err(format!("a transport {text}, not {name:?}")));
            }
        }
    }
    if names.is_empty() {
        return Err(PyValueError::new_err("a hub must have at least one transport"));
    }
    Ok(transports)
}

/// The times of hubs, in this order.
fn hub_times([keepalive, client_timeout]: [f64; 2], others: [f64; 3]) -> PyResult<HubSettings> {
    let [handshake_timeout, disconnect_timeout, poll_timeout] = others;
    Ok(HubSettings {
        keepalive: seconds("signalr_keepalive", keepalive)?,
        client_timeout: seconds("signalr_client_timeout", client_timeout)?,
        handshake_timeout: seconds("signalr_handshake_timeout", handshake_timeout)?,
        disconnect_timeout: seconds("signalr_disconnect_timeout", disconnect_timeout)?,
        poll_timeout: seconds("signalr_poll_timeout", poll_timeout)?,
        ..HubSettings::default()
    })
}

fn checked(settings: CoreSettings) -> PyResult<Settings> {
    settings.validate().map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok(Settings(settings))
}

/// Where a subscriber begins, by its name.
pub(crate) fn start_of(name: &str) -> PyResult<Start> {
    Start::from_name(name)
        .ok_or_else(|| PyValueError::new_err(format!("start is {name:?}, must be 'live', 'keyframe' or 'history'")))
}

fn poller_of(name: &str) -> PyResult<PollerKind> {
    match name {
        "epoll" => Ok(PollerKind::Epoll),
        "uring" => Ok(PollerKind::Uring),
        other => Err(PyValueError::new_err(format!("poller is {other:?}, must be 'epoll' or 'uring'"))),
    }
}

fn seconds(name: &str, value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value)
        .map_err(|_| PyValueError::new_err(format!("{name} must be a number of seconds, 0 or more, not {value}")))
}
