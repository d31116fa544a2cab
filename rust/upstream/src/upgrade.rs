//! The opening handshake of a plain WebSocket, the client's side (RFC 6455 §4.1).
//!
//! Not tungstenite's own: that fails where a server chooses none of the subprotocols offered, which it may.
use std::pin::pin;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header::{
    CONNECTION, HOST, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::connect::{ConnectError, Io, header_map};
use crate::negotiate::cookies_of;
use crate::outbox::QUEUE_SLACK_BYTES;
use crate::target::Target;

/// What hyper buffers of a head, which bounds it.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// A WebSocket to a backend.
pub(crate) type Socket = WebSocketStream<Box<dyn Io>>;

const STAGE: &str = "WebSocket upgrade";

/// What a server's answer says beside that it agrees.
#[derive(Clone, Debug, Default)]
pub(crate) struct Agreed {
    /// Which of the subprotocols it chose.
    pub(crate) subprotocol: Option<String>,
    /// Its `Set-Cookie` lines, decoded as latin-1.
    pub(crate) cookies: Vec<String>,
}

/// Asks for a WebSocket; gives it with what the server's answer says.
pub(crate) async fn upgrade(
    target: &Target,
    headers: &[(String, String)],
    subprotocols: &[String],
    stream: Box<dyn Io>,
    config: WebSocketConfig,
) -> Result<(Socket, Agreed), ConnectError> {
    let key = generate_key();
    let request = request_for(target, headers, subprotocols, &key)?;
    let (response, upgraded) = exchange(request, stream).await?;
    let subprotocol = check(&response, &key, subprotocols)?;
    let agreed = Agreed { subprotocol, cookies: cookies_of(response.headers()) };
    let parts = upgraded.downcast::<TokioIo<Box<dyn Io>>>().map_err(|_| failed("the stream was lost"))?;
    let read = parts.read_buf.to_vec();
    let socket = WebSocketStream::from_partially_read(parts.io.into_inner(), read, Role::Client, Some(config));
    Ok((socket.await, agreed))
}

fn request_for(
    target: &Target,
    headers: &[(String, String)],
    subprotocols: &[String],
    key: &str,
) -> Result<Request<Empty<Bytes>>, ConnectError> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = target.socket_path(None).parse().map_err(|_| ConnectError::BadUrl)?;
    let map = request.headers_mut();
    *map = header_map(headers)?;
    map.insert(HOST, HeaderValue::from_str(&target.host_header()).map_err(|_| ConnectError::BadUrl)?);
    map.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    map.insert(UPGRADE, HeaderValue::from_static("websocket"));
    map.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    map.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_str(key).map_err(|_| ConnectError::BadUrl)?);
    if !subprotocols.is_empty() {
        let bad = |_| ConnectError::BadHeader { name: SEC_WEBSOCKET_PROTOCOL.to_string() };
        map.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(&subprotocols.join(", ")).map_err(bad)?);
    }
    Ok(request)
}

async fn exchange(
    request: Request<Empty<Bytes>>,
    stream: Box<dyn Io>,
) -> Result<(Response<hyper::body::Incoming>, Upgraded), ConnectError> {
    let lost = |error: hyper::Error| failed(&error.to_string());
    let builder = http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream));
    let (mut sender, connection) = builder.await.map_err(lost)?;
    let exchange = pin!(async move {
        let mut response = sender.send_request(request).await.map_err(lost)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(ConnectError::Status { stage: STAGE, status: response.status().as_u16() });
        }
        let upgraded = hyper::upgrade::on(&mut response).await.map_err(lost)?;
        Ok((response, upgraded))
    });
    match select(exchange, pin!(connection.with_upgrades())).await {
        Either::Left((answer, _)) => answer,
        // The connection has ended: what it left is with the exchange.
        Either::Right((_, exchange)) => exchange.await,
    }
}

/// Whether the answer is one to this key and these offers (RFC 6455 §4.1, "the client MUST validate").
fn check<T>(response: &Response<T>, key: &str, subprotocols: &[String]) -> Result<Option<String>, ConnectError> {
    let headers = response.headers();
    let is = |name, value: &[u8]| {
        headers.get(name).is_some_and(|header: &HeaderValue| header.as_bytes().eq_ignore_ascii_case(value))
    };
    if !is(UPGRADE, b"websocket") {
        return Err(failed("the answer has no Upgrade: websocket"));
    }
    if headers.get(SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes)
        != Some(derive_accept_key(key.as_bytes()).as_bytes())
    {
        return Err(failed("the answer's Sec-WebSocket-Accept does not belong to the request"));
    }
    let Some(chosen) = headers.get(SEC_WEBSOCKET_PROTOCOL) else { return Ok(None) };
    match subprotocols.iter().find(|offered| offered.as_bytes() == chosen.as_bytes()) {
        Some(chosen) => Ok(Some(chosen.clone())),
        None => Err(failed("the server chose a subprotocol that was not offered")),
    }
}

fn failed(what: &str) -> ConnectError {
    ConnectError::Upgrade(what.to_owned())
}

/// How a socket is set up: what it costs while it is idle is its read buffer, so that is small.
///
/// What waits to be written is what one call gave, and answers to the server's pings: of those no more is kept for one
/// that reads none of them.
pub(crate) fn config(read_bytes: usize, message_bytes_max: usize, queue_bytes_max: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(read_bytes)
        .write_buffer_size(0)
        .max_write_buffer_size(queue_bytes_max.saturating_add(2 * QUEUE_SLACK_BYTES))
        .max_message_size(Some(message_bytes_max))
        .max_frame_size(Some(message_bytes_max))
}
