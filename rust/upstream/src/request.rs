//! What a session is to be, of either kind: what [`Open`] and [`OpenPlain`] have in common, and what each speaks.
use std::time::Duration;

use fanwire_core::protocol::signalr::HubProtocol;

use crate::api::{Open, OpenPlain, PlainRoute, Route};
use crate::roots::Roots;

/// What a session is to be.
pub(crate) struct Request {
    pub(crate) urls: Vec<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) roots: Option<Roots>,
    pub(crate) speech: Speech,
    pub(crate) keepalive: Duration,
    pub(crate) server_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) idle: Option<Duration>,
    /// Of one inbound record, or message.
    pub(crate) bytes_max: usize,
    pub(crate) queue_bytes_max: usize,
}

impl Request {
    /// Whether a server that hangs up at once is told from another: one client's own session says nothing of it.
    pub(crate) fn watches_flapping(&self) -> bool {
        let is_clients = matches!(
            &self.speech,
            Speech::Hub { route: Route::Private { .. }, .. } | Speech::Plain { route: PlainRoute::Private { .. }, .. }
        );
        self.urls.len() > 1 && !is_clients
    }
}

/// What is spoken on it, and where goes what comes.
pub(crate) enum Speech {
    /// Records of a hub protocol.
    Hub { protocol: HubProtocol, negotiates: bool, route: Route },
    /// Messages of a WebSocket.
    Plain { subprotocols: Vec<String>, route: PlainRoute },
}

impl Speech {
    /// The hub protocol, if it is one.
    pub(crate) const fn hub_protocol(&self) -> Option<HubProtocol> {
        match self {
            Self::Hub { protocol, .. } => Some(*protocol),
            Self::Plain { .. } => None,
        }
    }
}

impl From<Open> for Request {
    fn from(open: Open) -> Self {
        Self {
            urls: open.urls,
            headers: open.headers,
            roots: open.roots,
            speech: Speech::Hub { protocol: open.protocol, negotiates: open.negotiates, route: open.route },
            keepalive: open.keepalive,
            server_timeout: open.server_timeout,
            connect_timeout: open.connect_timeout,
            idle: open.idle,
            bytes_max: open.record_bytes_max,
            queue_bytes_max: open.queue_bytes_max,
        }
    }
}

impl From<OpenPlain> for Request {
    fn from(open: OpenPlain) -> Self {
        Self {
            urls: open.urls,
            headers: open.headers,
            roots: open.roots,
            speech: Speech::Plain { subprotocols: open.subprotocols, route: open.route },
            keepalive: open.keepalive,
            server_timeout: open.server_timeout,
            connect_timeout: open.connect_timeout,
            idle: open.idle,
            bytes_max: open.message_bytes_max,
            queue_bytes_max: open.queue_bytes_max,
        }
    }
}
