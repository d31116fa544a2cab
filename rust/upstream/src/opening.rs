//! From URLs to a hub that agreed: negotiation, the WebSocket's upgrade, the hub's handshake; each URL in its turn.
use bytes::Bytes;
use fanwire_core::protocol::signalr::handshake::{HandshakeRequest, parse_reply, write_request};
use fanwire_core::protocol::signalr::{HubProtocol, RecordReceiver};
use futures_util::{SinkExt, StreamExt};
use hyper::Request as HttpRequest;
use hyper::header::{CONNECTION, HOST, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::{Error as SocketError, Utf8Bytes};

use crate::api::{Fault, UpstreamEvent};
use crate::connect::{ConnectError, Dialer, Io, Progress, header_map, shown, timeout_error};
use crate::inbox::Inbox;
use crate::inbox::Mailbag;
use crate::negotiate::{Place, negotiate};
use crate::request::{Request, Speech};
use crate::target::Target;
use crate::upgrade::{Agreed, Socket, config, upgrade as upgrade_plainly};

/// A session's read buffer: what it costs while it is idle, so it is small.
const READ_BYTES: usize = 4 * 1024;

/// How much bigger than one record a frame may be: it may hold many.
const FRAME_SLACK_BYTES: usize = 1024 * 1024;

/// What is spoken on a session that is open.
pub(crate) enum Wire {
    /// Records of a hub.
    Hub(HubProtocol, Box<Inbox>),
    /// Messages as they are.
    Plain(Mailbag),
}

/// A backend that agreed.
pub(crate) struct Opened {
    pub(crate) socket: Socket,
    /// Behind the handshake.
    pub(crate) wire: Wire,
    /// What came behind a hub's handshake in its frame.
    pub(crate) rest: Bytes,
    /// What a plain backend chose and set.
    pub(crate) agreed: Agreed,
    /// Which URL it is.
    pub(crate) url_index: usize,
    /// How it is shown.
    pub(crate) at: String,
}

/// Why no URL would do.
pub(crate) struct Failed {
    /// Of each URL that was tried.
    pub(crate) error: String,
    /// Of the last that gave one.
    pub(crate) status: Option<u16>,
    /// Whose doing the last was, or that of a hub that refused the handshake.
    pub(crate) fault: Option<Fault>,
    /// How many were tried.
    pub(crate) attempts: u64,
}

/// Tries each URL in its turn, those of servers that are down last; `failed` so many before the one that did it. Each
/// server that fails is told.
pub(crate) async fn open(
    dialer: &Dialer,
    request: &Request,
    tell: impl Fn(UpstreamEvent),
) -> Result<(Opened, u64), Failed> {
    let mut failed = Failed { error: String::new(), status: None, fault: None, attempts: 0 };
    // Those that answered so that another one was asked: where that lets us in, it was not for what was asked.
    let mut failing = Vec::new();
    let timeout = request.connect_timeout / u32::try_from(request.urls.len().max(1)).unwrap_or(u32::MAX);
    for url_index in dialer.order(&request.urls) {
        let url = &request.urls[url_index];
        let mut progress = Progress::new(format!("URL {} of {}", url_index + 1, request.urls.len()));
        let attempt = tokio::time::timeout(timeout, attempt(dialer, request, url, &mut progress)).await;
        let error = match attempt {
            Ok(Ok(opened)) => {
                if request.urls.len() > 1 {
                    dialer.note(url, false);
                    failing.into_iter().for_each(|failing: &String| dialer.note(failing, true));
                }
                return Ok((Opened { url_index, at: progress.at, ..opened }, failed.attempts));
            }
            Ok(Err(error)) => error,
            Err(_) => timeout_error(progress.stage, timeout),
        };
        if error.is_failing_status() {
            failing.push(url);
        } else if request.urls.len() > 1 && error.fault() != Fault::Machine {
            dialer.note(url, error.is_servers());
        }
        if !matches!(failed.fault, Some(Fault::Handshake(_))) {
            failed.fault = Some(error.fault());
        }
        if error.is_servers() {
            tell(UpstreamEvent::Unreached { url_index, error: shown(&error.to_string()), status: error.status() });
        }
        failed.attempts += 1;
        failed.status = error.status().or(failed.status);
        if !failed.error.is_empty() {
            failed.error.push_str("; ");
        }
        failed.error.push_str(&format!("{}: {}", progress.at, shown(&error.to_string())));
        if error.is_final() {
            break;
        }
    }
    if failed.attempts == 0 {
        failed.error = ConnectError::NoUrl.to_string();
    }
    Err(failed)
}

/// Bytes as a message of the kind that the protocol needs; `None` of JSON that is no UTF-8.
pub(crate) fn message_of(protocol: HubProtocol, bytes: Vec<u8>) -> Option<Message> {
    if protocol.is_binary() {
        return Some(Message::Binary(bytes.into()));
    }
    Utf8Bytes::try_from(bytes).ok().map(Message::Text)
}

/// What a message carries of the hub's stream; both kinds are taken, as a server takes them.
pub(crate) fn bytes_of(message: Message) -> Option<Bytes> {
    match message {
        Message::Text(text) => Some(text.into()),
        Message::Binary(bytes) => Some(bytes),
        _ => None,
    }
}

/// How an end of the socket is said.
pub(crate) fn end_of(error: Option<SocketError>) -> String {
    match error {
        None | Some(SocketError::ConnectionClosed | SocketError::AlreadyClosed) => "the server closed it".to_owned(),
        Some(SocketError::Io(error)) => error.to_string(),
        Some(SocketError::WriteBufferFull(_)) => "the server does not read what it is sent".to_owned(),
        Some(error) => error.to_string(),
    }
}

async fn attempt(
    dialer: &Dialer,
    request: &Request,
    url: &str,
    progress: &mut Progress,
) -> Result<Opened, ConnectError> {
    let target = Target::parse(url).ok_or(ConnectError::BadUrl)?;
    let bytes_max = request.bytes_max;
    match &request.speech {
        Speech::Plain { subprotocols, route } => {
            progress.at(&target, "connect");
            let stream = dialer.dial(request.roots.as_ref(), &target).await?;
            progress.stage = "WebSocket upgrade";
            let config = config(READ_BYTES, bytes_max, request.queue_bytes_max);
            let (socket, agreed) = upgrade_plainly(&target, &request.headers, subprotocols, stream, config).await?;
            let wire = Wire::Plain(Mailbag::new(route.clone()));
            Ok(Opened { socket, wire, rest: Bytes::new(), agreed, url_index: 0, at: String::new() })
        }
        Speech::Hub { protocol, negotiates, route } => {
            let (headers, roots) = (request.headers.clone(), request.roots.clone());
            let mut place = Place { target, headers, token: None, roots };
            if *negotiates {
                negotiate(dialer, &mut place, progress).await?;
            }
            progress.at(&place.target, "connect");
            let stream = dialer.dial(place.roots.as_ref(), &place.target).await?;
            progress.stage = "WebSocket upgrade";
            let mut socket = upgrade(&place, stream, (bytes_max, request.queue_bytes_max)).await?;
            progress.stage = "the hub's handshake";
            let (receiver, rest) = shake_hands(&mut socket, *protocol, bytes_max).await?;
            let inbox = Inbox::new(route.clone(), *protocol, receiver, bytes_max);
            let wire = Wire::Hub(*protocol, Box::new(inbox));
            Ok(Opened { socket, wire, rest, agreed: Agreed::default(), url_index: 0, at: String::new() })
        }
    }
}

async fn upgrade(
    place: &Place,
    stream: Box<dyn Io>,
    (record_bytes_max, queue_bytes_max): (usize, usize),
) -> Result<Socket, ConnectError> {
    let target = &place.target;
    let uri = format!("ws://{}{}", target.host_header(), target.socket_path(place.token.as_deref()));
    let mut request = HttpRequest::new(());
    *request.uri_mut() = uri.parse().map_err(|_| match place.token {
        Some(_) => ConnectError::BadToken,
        None => ConnectError::BadUrl,
    })?;
    let map = request.headers_mut();
    *map = header_map(&place.headers)?;
    map.insert(HOST, HeaderValue::from_str(&target.host_header()).map_err(|_| ConnectError::BadUrl)?);
    map.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    map.insert(UPGRADE, HeaderValue::from_static("websocket"));
    map.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    map.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_str(&generate_key()).map_err(|_| ConnectError::BadUrl)?);
    let frame_bytes_max = record_bytes_max.saturating_add(FRAME_SLACK_BYTES);
    let config = config(READ_BYTES, frame_bytes_max, queue_bytes_max);
    match client_async_with_config(request, stream, Some(config)).await {
        Ok((socket, _)) => Ok(socket),
        Err(SocketError::Http(response)) => {
            Err(ConnectError::Status { stage: "WebSocket upgrade", status: response.status().as_u16() })
        }
        Err(error) => Err(ConnectError::Upgrade(end_of(Some(error)))),
    }
}

/// Asks for the protocol; gives what stands behind the answer.
async fn shake_hands(
    socket: &mut Socket,
    protocol: HubProtocol,
    record_bytes_max: usize,
) -> Result<(RecordReceiver, Bytes), ConnectError> {
    let mut record = Vec::new();
    write_request(&mut record, HandshakeRequest { protocol, version: 1 });
    let lost = |error| ConnectError::Lost(end_of(error));
    let message = message_of(protocol, record).expect("a request is ASCII");
    socket.send(message).await.map_err(|error| lost(Some(error)))?;
    let mut receiver = RecordReceiver::new(HubProtocol::Json);
    loop {
        let message = match socket.next().await {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Err(lost(Some(error))),
            None => return Err(lost(None)),
        };
        let Some(bytes) = bytes_of(message) else { continue };
        let (taken, reply) = receiver.receive(&bytes, record_bytes_max)?;
        let Some(reply) = reply else { continue };
        parse_reply(reply)?;
        receiver.set_protocol(protocol);
        return Ok((receiver, bytes.slice(taken..)));
    }
}
