//! Settings cross once, as one frozen object.
use std::time::Duration;

use fanwire_core::channel::Pattern;
use fanwire_core::{ChannelBounds, ChannelRule as CoreRule, HubSettings, PollerKind, Settings as CoreSettings};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors::to_pyerr;

/// Bounds of the channels whose name matches `pattern`; the first match wins.
#[pyclass(frozen, from_py_object, module = "fanwire._engine")]
#[derive(Clone)]
pub(crate) struct ChannelRule(CoreRule);

#[pymethods]
impl ChannelRule {
    #[new]
    #[pyo3(signature = (pattern, *, backlog_bytes, backlog_frames))]
    fn new(py: Python<'_>, pattern: &str, backlog_bytes: u64, backlog_frames: usize) -> PyResult<Self> {
        let pattern = Pattern::new(pattern).map_err(|error| to_pyerr(py, error))?;
        Ok(Self(CoreRule { pattern, bounds: ChannelBounds { backlog_bytes, backlog_frames } }))
    }
}

/// All limits and options of an engine, frozen.
#[pyclass(frozen, module = "fanwire._engine")]
pub(crate) struct Settings(pub(crate) CoreSettings);

#[pymethods]
impl Settings {
    #[new]
    #[pyo3(signature = (
        *, shards = 1, poller = None, channels = Vec::new(), ask_opening = false, ask_subscribing = false,
        origins = None, head_bytes_max = 16_384, message_bytes_max = 65_536, publication_bytes_max = 1_048_576,
        unsent_bytes_max = 67_108_864, outbox_bytes_max = 262_144, subscriptions_max = 1_000, channels_max = 1_000_000,
        messages_pending_max = 16, events_pending_max = 16_384, handshake_timeout = 10.0, ping_interval = 25.0, ping_timeout = 20.0,
        signalr_paths = Vec::new(), signalr_keepalive = 15.0, signalr_client_timeout = 30.0,
        signalr_handshake_timeout = 15.0, signalr_disconnect_timeout = 15.0, signalr_poll_timeout = 90.0,
        signalr_message_bytes_max = 32_768, close_timeout = 5.0, notsent_lowat = 16_384, congestion_control = None, backlog = 4_096, pin_shards = false,
    ))]
    #[allow(clippy::too_many_arguments)] // they are keyword-only and cross once
    fn new(
        shards: usize,
        poller: Option<&str>,
        channels: Vec<ChannelRule>,
        ask_opening: bool,
        ask_subscribing: bool,
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
        pin_shards: bool,
    ) -> PyResult<Self> {
        let settings = CoreSettings {
            shards,
            poller: poller.map(poller_of).transpose()?,
            channels: channels.into_iter().map(|rule| rule.0).collect(),
            asks_opening: ask_opening,
            asks_subscribing: ask_subscribing,
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
            hubs: HubSettings {
                paths: signalr_paths,
                keepalive: seconds("signalr_keepalive", signalr_keepalive)?,
                client_timeout: seconds("signalr_client_timeout", signalr_client_timeout)?,
                handshake_timeout: seconds("signalr_handshake_timeout", signalr_handshake_timeout)?,
                disconnect_timeout: seconds("signalr_disconnect_timeout", signalr_disconnect_timeout)?,
                poll_timeout: seconds("signalr_poll_timeout", signalr_poll_timeout)?,
                message_bytes_max: signalr_message_bytes_max,
            },
            close_timeout: seconds("close_timeout", close_timeout)?,
            notsent_lowat,
            congestion_control,
            backlog,
            pins_shards: pin_shards,
        };
        settings.validate().map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(Self(settings))
    }
}

fn poller_of(name: &str) -> PyResult<PollerKind> {
    match name {
        "epoll" => Ok(PollerKind::Epoll),
        "uring" => Ok(PollerKind::Uring),
        other => Err(PyValueError::new_err(format!("poller is {other:?}, must be 'epoll' or 'uring'"))),
    }
}

fn seconds(name: &str, value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value).map_err(|error| PyValueError::new_err(format!("{name} is {value}: {error}")))
}
