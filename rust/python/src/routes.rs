//! Class `Route`: a path, and who answers for it.
use fanwire_core::{Asks, Limits, OwnerId, Route as CoreRoute, Transports, Wire};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// A path, and who answers for it.
#[pyclass(frozen, module = "fanwire._engine")]
pub(crate) struct Route(pub(crate) CoreRoute);

#[pymethods]
impl Route {
    #[new]
    #[pyo3(signature = (
        path, wire, owner = 0, *, channel = None, transports = None, asks = Vec::new(), origins = None,
        message_bytes_max = None,
    ))]
    #[allow(clippy::too_many_arguments)] // they are keyword-only and cross once
    fn new(
        path: &str,
        wire: &str,
        owner: u16,
        channel: Option<&str>,
        transports: Option<Vec<String>>,
        asks: Vec<String>,
        origins: Option<Vec<String>>,
        message_bytes_max: Option<usize>,
    ) -> PyResult<Self> {
        let transports = transports.as_deref().map_or(Ok(Transports::ALL), transports_of)?;
        let mut route =
            CoreRoute::new(path, wire_of(wire, transports)?, OwnerId(owner)).map_err(|error| bad(error.to_string()))?;
        if let Some(template) = channel {
            route = route.with_channel(template).map_err(|error| bad(error.to_string()))?;
        }
        route.asks = asks_of(&asks)?;
        route.limits = Limits { message_bytes_max };
        route.origins = origins;
        Ok(Self(route))
    }

    fn clashes_with(&self, other: &Self) -> bool {
        self.0.clashes_with(&other.0)
    }

    #[getter]
    fn key(&self) -> String {
        self.0.key()
    }

    #[getter]
    fn path(&self) -> &str {
        self.0.path()
    }
}

pub(crate) fn bad(text: String) -> PyErr {
    PyValueError::new_err(text)
}

fn wire_of(name: &str, transports: Transports) -> PyResult<Wire> {
    Ok(match name {
        "websocket" => Wire::WebSocket,
        "events" => Wire::EventStream,
        "signalr" => Wire::SignalR(transports),
        "plain" => Wire::Plain,
        "request" => Wire::Request,
        "health" => Wire::Health,
        "ready" => Wire::Ready,
        _ => return Err(bad(format!("there is no wire {name:?}"))),
    })
}

fn asks_of(names: &[String]) -> PyResult<Asks> {
    let mut asks = Asks::default();
    for name in names {
        *match name.as_str() {
            "opening" => &mut asks.opening,
            "subscribing" => &mut asks.subscribing,
            "connected" => &mut asks.connected,
            "messages" => &mut asks.messages,
            "bodies" => &mut asks.bodies,
            "records" => &mut asks.records,
            _ => return Err(bad(format!("no owner is asked {name:?}"))),
        } = true;
    }
    Ok(asks)
}

/// The transports of a SignalR path by their names, of which there is one at least.
fn transports_of(names: &[String]) -> PyResult<Transports> {
    let mut transports = Transports { web_sockets: false, server_sent_events: false, long_polling: false };
    for name in names {
        match name.as_str() {
            "WebSockets" => transports.web_sockets = true,
            "ServerSentEvents" => transports.server_sent_events = true,
            "LongPolling" => transports.long_polling = true,
            _ => {
                let text = "must be 'WebSockets', 'ServerSentEvents' or 'LongPolling'";
                return Err(bad(format!("a transport {text}, not {name:?}")));
            }
        }
    }
    if names.is_empty() {
        return Err(bad("a hub must have at least one transport".to_owned()));
    }
    Ok(transports)
}
