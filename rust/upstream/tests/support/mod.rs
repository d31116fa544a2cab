//! A backend that does what a test says, on real sockets, and a sink that remembers what it is told.
#![allow(dead_code)] // each test binary uses its part
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use fanwire_core::Message as SocketMessage;
use fanwire_core::messages::ConnectionId;
use fanwire_core::protocol::signalr::{HubMessage, HubProtocol, Outcome, write_message};
use fanwire_upstream::{Negotiation, Open, Route, Sink, UpstreamEvent, Upstreams};
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, accept_hdr};

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const BOTH: [HubProtocol; 2] = [HubProtocol::Json, HubProtocol::MessagePack];

/// What the sink was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Report(u64, UpstreamEvent),
    Append(String, HubProtocol, Vec<Vec<u8>>, Vec<usize>),
    Hub(String, HubProtocol, Vec<Vec<u8>>),
    Sent(ConnectionId, Vec<u8>),
    AppendMessages(String, Vec<Said>),
    SentMessages(ConnectionId, Vec<Said>),
    Accepted(ConnectionId, Option<String>, Vec<String>),
}

/// A message of a plain WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) is_text: bool,
    pub(crate) data: Vec<u8>,
}

fn said(messages: &[SocketMessage<'_>]) -> Vec<Said> {
    messages.iter().map(|message| Said { is_text: message.is_text, data: message.data.to_vec() }).collect()
}

struct Recorder(Sender<Heard>);

impl Sink for Recorder {
    fn report(&self, session: u64, event: UpstreamEvent) {
        if !matches!(event, UpstreamEvent::Unreached { .. }) {
            drop(self.0.send(Heard::Report(session, event)));
        }
    }

    fn append(&self, channel: &str, protocol: HubProtocol, records: &[&[u8]], keyframe: &[usize]) {
        let records = records.iter().map(|record| record.to_vec()).collect();
        drop(self.0.send(Heard::Append(channel.to_owned(), protocol, records, keyframe.to_vec())));
    }

    fn append_to_hub(&self, path: &str, protocol: HubProtocol, records: &[&[u8]]) {
        let records = records.iter().map(|record| record.to_vec()).collect();
        drop(self.0.send(Heard::Hub(path.to_owned(), protocol, records)));
    }

    fn send(&self, client: ConnectionId, records: &[u8]) {
        drop(self.0.send(Heard::Sent(client, records.to_vec())));
    }

    fn append_messages(&self, channel: &str, messages: &[SocketMessage<'_>]) {
        drop(self.0.send(Heard::AppendMessages(channel.to_owned(), said(messages))));
    }

    fn died(&self, thread: &str, text: String) {
        panic!("{thread} has died: {text}");
    }

    fn panicked(&self, text: String) {
        panic!("a session has panicked: {text}");
    }

    fn send_messages(&self, client: ConnectionId, messages: &[SocketMessage<'_>]) {
        drop(self.0.send(Heard::SentMessages(client, said(messages))));
    }

    fn accept(&self, client: ConnectionId, subprotocol: Option<&str>, cookies: &[String]) {
        drop(self.0.send(Heard::Accepted(client, subprotocol.map(str::to_owned), cookies.to_vec())));
    }
}

/// The upstreams and what their sink hears.
pub(crate) struct Relay {
    pub(crate) upstreams: Upstreams,
    pub(crate) heard: Receiver<Heard>,
}

impl Relay {
    pub(crate) fn start() -> Self {
        let (sender, heard) = channel();
        Self { upstreams: Upstreams::start(Arc::new(Recorder(sender))).unwrap(), heard }
    }

    pub(crate) fn next(&self) -> Heard {
        self.heard.recv_timeout(PATIENCE).expect("nothing was heard in 10 s")
    }

    pub(crate) fn event(&self) -> UpstreamEvent {
        match self.next() {
            Heard::Report(_, event) => event,
            other => panic!("expected a report, got {other:?}"),
        }
    }

    pub(crate) fn expect_opened(&self, url_index: usize) {
        assert_eq!(self.event(), UpstreamEvent::Opened { url_index, subprotocol: None, cookies: Vec::new() });
    }

    pub(crate) fn closed(&self) -> Closed {
        match self.event() {
            UpstreamEvent::Closed { error, status, said, was_open, mut pending, .. } => {
                pending.sort();
                Closed { error, status, said: said.map(|said| (said.error, said.allow_reconnect)), was_open, pending }
            }
            other => panic!("expected Closed, got {other:?}"),
        }
    }

    /// A session that is open, and its peer.
    pub(crate) fn open_at(&self, backend: &Backend, session: u64, request: Open) -> Peer {
        let protocol = request.protocol;
        self.upstreams.open(session, request);
        let mut peer = backend.accept_socket();
        peer.shake_hands(protocol);
        assert_eq!(
            self.next(),
            Heard::Report(session, UpstreamEvent::Opened { url_index: 0, subprotocol: None, cookies: Vec::new() })
        );
        peer
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) error: String,
    pub(crate) status: Option<u16>,
    pub(crate) said: Option<(Option<String>, bool)>,
    pub(crate) was_open: bool,
    pub(crate) pending: Vec<String>,
}

pub(crate) fn request(url: &str, protocol: HubProtocol, route: Route) -> Open {
    Open {
        urls: vec![url.to_owned()],
        headers: Vec::new(),
        roots: None,
        protocol,
        negotiates: false,
        route,
        keepalive: Duration::from_secs(15),
        server_timeout: Duration::from_secs(30),
        connect_timeout: PATIENCE,
        idle: None,
        record_bytes_max: 32 * 1024,
        queue_bytes_max: 64 * 1024,
    }
}

pub(crate) fn negotiation(url: &str) -> Negotiation {
    Negotiation { url: url.to_owned(), headers: Vec::new(), roots: None, timeout: Duration::from_secs(15) }
}

pub(crate) fn names(names: &[&str]) -> Arc<HashSet<String>> {
    Arc::new(names.iter().map(|&name| name.to_owned()).collect())
}

pub(crate) fn lane() -> Route {
    Route::Lane { everyone: names(&["News"]), snapshot: Some("Snapshot".to_owned()), channel: "m1".to_owned() }
}

pub(crate) fn broadcast() -> Route {
    Route::Broadcast { everyone: names(&["News"]), welcome: names(&["Welcome"]), path: "/live".to_owned() }
}

pub(crate) const CLIENT: u64 = 77;

pub(crate) fn private() -> Route {
    let (dropped, reported) = (names(&["News", "Welcome"]), names(&["watch"]));
    Route::Private { dropped, reported, client: ConnectionId::from_bits(CLIENT) }
}

pub(crate) fn record(protocol: HubProtocol, message: &HubMessage<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    write_message(protocol, message, &mut out);
    out
}

fn arguments(protocol: HubProtocol) -> &'static [u8] {
    if protocol.is_binary() { b"\x91\x07" } else { b"[7]" }
}

pub(crate) fn value(protocol: HubProtocol) -> &'static [u8] {
    if protocol.is_binary() { b"\x07" } else { b"7" }
}

pub(crate) fn publication(protocol: HubProtocol, target: &str) -> Vec<u8> {
    call(protocol, None, target)
}

pub(crate) fn call(protocol: HubProtocol, id: Option<&str>, target: &str) -> Vec<u8> {
    let message = HubMessage::Invocation {
        id: id.map(Into::into),
        target: target.into(),
        arguments: arguments(protocol),
        stream_ids: Vec::new(),
    };
    record(protocol, &message)
}

pub(crate) fn stream_call(protocol: HubProtocol, id: &str) -> Vec<u8> {
    let arguments = arguments(protocol);
    let message =
        HubMessage::StreamInvocation { id: id.into(), target: "Count".into(), arguments, stream_ids: Vec::new() };
    record(protocol, &message)
}

pub(crate) fn completion(protocol: HubProtocol, id: &str) -> Vec<u8> {
    let outcome = Outcome::Result(value(protocol));
    record(protocol, &HubMessage::Completion { id: id.into(), outcome })
}

pub(crate) fn item(protocol: HubProtocol, id: &str) -> Vec<u8> {
    record(protocol, &HubMessage::StreamItem { id: id.into(), item: value(protocol) })
}

pub(crate) fn unknown(protocol: HubProtocol) -> Vec<u8> {
    record(protocol, &HubMessage::Unknown { message_type: 42 })
}

pub(crate) fn close(protocol: HubProtocol, error: Option<&str>, allow_reconnect: bool) -> Vec<u8> {
    record(protocol, &HubMessage::Close { error: error.map(Into::into), allow_reconnect })
}

/// A listening address.
pub(crate) struct Backend {
    listener: TcpListener,
    pub(crate) origin: String,
    pub(crate) url: String,
}

impl Backend {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let url = format!("{origin}/live");
        Self { listener, origin, url }
    }

    pub(crate) fn accept(&self) -> TcpStream {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Whether nobody wants to connect.
    pub(crate) fn is_left_alone(&self) -> bool {
        self.listener.set_nonblocking(true).unwrap();
        let accepted = self.listener.accept();
        self.listener.set_nonblocking(false).unwrap();
        accepted.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    pub(crate) fn accept_socket(&self) -> Peer {
        let mut head = None;
        #[allow(clippy::result_large_err)] // the type is what the library asks for
        let keep = |request: &Request, response: Response| {
            head = Some(request.clone());
            Ok(response)
        };
        let socket = accept_hdr(self.accept(), keep).unwrap();
        Peer { socket, head: head.unwrap() }
    }

    /// Answers one request; gives its head.
    pub(crate) fn answer(&self, status: u16, body: &str) -> String {
        let mut stream = self.accept();
        let head = read_head(&mut stream);
        let text = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(text.as_bytes()).unwrap();
        head
    }

    /// Answers a negotiation that leads to a WebSocket here.
    pub(crate) fn agree(&self, token: &str) -> String {
        let transports = r#"[{"transport":"WebSockets","transferFormats":["Text","Binary"]}]"#;
        self.answer(
            200,
            &format!(
                r#"{{"negotiateVersion":1,"connectionId":"c","connectionToken":"{token}","availableTransports":{transports}}}"#
            ),
        )
    }
}

/// The head of a request, in small letters but for its first line.
pub(crate) fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// The server's end of one session.
pub(crate) struct Peer {
    pub(crate) socket: WebSocket<TcpStream>,
    pub(crate) head: Request,
}

impl Peer {
    pub(crate) fn shake_hands(&mut self, protocol: HubProtocol) {
        self.expect_handshake(protocol);
        self.send(protocol, b"{}\x1e");
    }

    pub(crate) fn expect_handshake(&mut self, protocol: HubProtocol) {
        let expected = format!("{{\"protocol\":\"{}\",\"version\":1}}\x1e", protocol.name());
        assert_eq!(self.receive(protocol), expected.as_bytes());
    }

    pub(crate) fn send(&mut self, protocol: HubProtocol, bytes: &[u8]) {
        let message = match String::from_utf8(bytes.to_vec()) {
            Ok(text) if !protocol.is_binary() => Message::text(text),
            _ => Message::binary(bytes.to_vec()),
        };
        self.socket.send(message).unwrap();
    }

    /// What one frame holds, which must be of the protocol's kind.
    pub(crate) fn receive(&mut self, protocol: HubProtocol) -> Vec<u8> {
        match self.socket.read().unwrap() {
            Message::Text(text) if !protocol.is_binary() => text.as_bytes().to_vec(),
            Message::Binary(bytes) if protocol.is_binary() => bytes.to_vec(),
            other => panic!("expected a frame of {}, got {other:?}", protocol.name()),
        }
    }

    /// Reads until the client has closed; gives the code of its close frame.
    pub(crate) fn expect_end(&mut self) -> Option<u16> {
        let mut code = None;
        loop {
            match self.socket.read() {
                Ok(Message::Close(frame)) => code = frame.map(|frame| frame.code.into()).or(Some(1005)),
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("the client did not close in 10 s");
                }
                Err(_) => return code,
            }
        }
    }
}
