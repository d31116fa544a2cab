//! One WebSocket to one origin: TCP, TLS, the handshake, and whether what answers passes publications on.
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, HeaderValue, SEC_WEBSOCKET_PROTOCOL, USER_AGENT};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WebSocketError, http};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::target::Target;
use crate::url::Address;

/// So much of what a server says when it refuses is told.
const TEXT_CHARACTERS_MAX: usize = 200;
/// What frames and names add to a publication.
const SLACK_BYTES: usize = 1 << 20;

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(crate) type Socket = WebSocketStream<Box<dyn Stream>>;

/// Connects to an origin.
///
/// # Errors
/// Why not, with the address.
pub(crate) async fn open(
    address: &Address,
    target: &Target,
    (tls, subprotocol): (Option<&TlsConnector>, &'static str),
    record_bytes_max: usize,
    within: Duration,
) -> Result<Socket, String> {
    let opening = tokio::time::timeout(within, dial(address, target, (tls, subprotocol), record_bytes_max));
    let opened = opening.await.unwrap_or_else(|_| Err(format!("no connection within {within:?}")));
    opened.map_err(|why| format!("{address}: {why}"))
}

async fn dial(
    address: &Address,
    target: &Target,
    (tls, subprotocol): (Option<&TlsConnector>, &'static str),
    record_bytes_max: usize,
) -> Result<Socket, String> {
    let tcp = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(|error| error.to_string())?;
    tcp.set_nodelay(true).map_err(|error| error.to_string())?;
    let mut stream: Box<dyn Stream> = Box::new(tcp);
    if let Some(tls) = tls {
        let name = ServerName::try_from(address.host.clone()).map_err(|error| error.to_string())?;
        stream = Box::new(tls.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?);
    }
    let bytes_max = record_bytes_max.saturating_mul(2).saturating_add(SLACK_BYTES); // as JSON and as MessagePack
    let config = WebSocketConfig::default().max_message_size(Some(bytes_max)).max_frame_size(Some(bytes_max));
    let request = request_for(address, target, subprotocol).ok_or("its path or its token cannot be sent")?;
    let opened = client_async_with_config(request, stream, Some(config)).await;
    opened.map(|(socket, _)| socket).map_err(|error| refused(error, subprotocol))
}

fn request_for(address: &Address, target: &Target, subprotocol: &'static str) -> Option<http::Request<()>> {
    let mut request = format!("ws://{address}{}", target.path).into_client_request().ok()?;
    let headers = request.headers_mut();
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("fanwire-edge/", env!("CARGO_PKG_VERSION"))));
    if let Some(authorization) = &target.authorization {
        headers.insert(AUTHORIZATION, HeaderValue::from_str(authorization).ok()?);
    }
    Some(request)
}

/// Why there is no WebSocket, in words. The request is never shown.
fn refused(error: WebSocketError, subprotocol: &str) -> String {
    match error {
        WebSocketError::Http(response) => {
            let (status, body) = (response.status(), response.body().as_deref().unwrap_or_default());
            let said: String = String::from_utf8_lossy(body).trim().chars().take(TEXT_CHARACTERS_MAX).collect();
            let said = if said.is_empty() { said } else { format!(": {said}") };
            match status.as_u16() {
                401 | 403 => format!("the origin refused this edge with {status}{said}"),
                404 => format!("the origin has no such path, {status}{said}"),
                _ => format!("it answered {status}{said}"),
            }
        }
        WebSocketError::Protocol(ProtocolError::SecWebSocketSubProtocolError(_)) => {
            format!("it does not speak {subprotocol}: it is an older fanwire, or none")
        }
        WebSocketError::Io(error) => error.to_string(),
        error => format!("what answers there is no fanwire: {error}"),
    }
}
