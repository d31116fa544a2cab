//! From a target to a stream of bytes: names, TCP and TLS; and why that, or what follows, could not be had.
use std::collections::HashSet;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fanwire_core::EXHAUSTED;
use fanwire_core::protocol::signalr::handshake::ReplyError;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::api::Fault;
use crate::roots::Roots;
use crate::target::Target;

/// Text of a server's that goes into an error is cut behind so many characters.
const SHOWN_TEXT_CHARS_MAX: usize = 500;

/// Statuses with which a server is as good as down: another one is asked.
pub const FAILING: [u16; 4] = [404, 500, 502, 503];

/// Why an attempt failed. None of these says a query, a header's value or a token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// No URL was given.
    #[error("no URL was given")]
    NoUrl,
    /// A URL that can't be used; which it is is said beside it.
    #[error("not a URL of http, https, ws or wss")]
    BadUrl,
    /// A header that can't be sent.
    #[error("the header {name:?} can't be sent: its name or value has a character that HTTP forbids")]
    BadHeader {
        /// Its name.
        name: String,
    },
    /// The system's answer to a connect, or to TLS.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// TLS without anybody to trust.
    #[error(
        "this system has no root certificates (a relay's ca names its own, SSL_CERT_FILE others), so no https server can be trusted"
    )]
    NoRoots,
    /// The time is up.
    #[error("{stage} took longer than {milliseconds} ms")]
    Timeout {
        /// What was awaited.
        stage: &'static str,
        /// How long.
        milliseconds: u128,
    },
    /// HTTP that failed.
    #[error("negotiate: {source}")]
    Http {
        /// Why.
        source: hyper::Error,
    },
    /// A status that refuses.
    #[error("{stage} was answered with status {status}")]
    Status {
        /// Which request.
        stage: &'static str,
        /// HTTP's.
        status: u16,
    },
    /// An answer that is too long.
    #[error("the answer to negotiate has more than {bytes_max} bytes")]
    AnswerTooBig {
        /// The bound.
        bytes_max: usize,
    },
    /// An answer that is no reply.
    #[error("the answer to negotiate: {0}")]
    Answer(fanwire_core::protocol::signalr::MessageError),
    /// The server's own refusal.
    #[error("negotiate was refused: {error}")]
    Refused {
        /// What it says.
        error: String,
    },
    /// A redirect to nowhere.
    #[error("negotiate redirects to what is no URL of http or https")]
    BadRedirect,
    /// Redirects without an end.
    #[error("negotiate was redirected more than {redirects_max} times")]
    Redirects {
        /// The bound.
        redirects_max: usize,
    },
    /// A token that can't stand in a query.
    #[error("the connection token that negotiate gave has a character that a URL forbids")]
    BadToken,
    /// No WebSockets.
    #[error("the server does not offer the transport WebSockets")]
    NoWebSockets,
    /// The upgrade failed.
    #[error("WebSocket upgrade: {0}")]
    Upgrade(String),
    /// The socket was lost in the handshake.
    #[error("the connection ended in the hub's handshake: {0}")]
    Lost(String),
    /// The answer to the handshake is none.
    #[error("the hub's handshake: {0}")]
    Handshake(#[from] ReplyError),
    /// The answer to the handshake is too long.
    #[error("the hub's handshake: {0}")]
    Record(#[from] fanwire_core::protocol::signalr::RecordError),
}

/// Whether it is this machine that can open nothing more: it has no memory, descriptor, or port to connect from.
fn is_machines(errno: i32) -> bool {
    EXHAUSTED.contains(&errno) || errno == libc::EADDRNOTAVAIL
}

impl ConnectError {
    /// HTTP's status, if it is one.
    pub(crate) const fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whose doing it is.
    pub(crate) fn fault(&self) -> Fault {
        match self {
            Self::NoUrl | Self::BadUrl | Self::BadHeader { .. } | Self::Refused { .. } => Fault::Request,
            Self::Handshake(ReplyError::Refused { error }) => Fault::Handshake(shown(error)),
            Self::Io { source, .. } if source.raw_os_error().is_some_and(is_machines) => Fault::Machine,
            _ => Fault::Server,
        }
    }

    /// Whether it is the server that failed, and not what was asked of it, nor this machine.
    pub(crate) fn is_servers(&self) -> bool {
        !self.is_final() && self.fault() == Fault::Server
    }

    /// Whether it is a status with which a server fails, and which may be for what was asked of it.
    pub(crate) fn is_failing_status(&self) -> bool {
        self.status().is_some_and(|status| FAILING.contains(&status))
    }

    /// Whether another server of the same backend would say the same.
    pub(crate) const fn is_final(&self) -> bool {
        matches!(self.status(), Some(401 | 403))
    }
}

/// How far an attempt has come, for the error of one whose time is up.
pub(crate) struct Progress {
    pub(crate) at: String,
    pub(crate) stage: &'static str,
}

impl Progress {
    /// Nothing is known but what the caller calls it.
    pub(crate) const fn new(at: String) -> Self {
        Self { at, stage: "connect" }
    }

    /// What is done now, and where.
    pub(crate) fn at(&mut self, target: &Target, stage: &'static str) {
        self.at = target.to_string();
        self.stage = stage;
    }
}

/// What it is when the time is up.
pub(crate) fn timeout_error(stage: &'static str, timeout: Duration) -> ConnectError {
    ConnectError::Timeout { stage, milliseconds: timeout.as_millis() }
}

/// A server's own words, short enough for an error, and with nothing in them that a terminal would obey.
pub(crate) fn shown(text: &str) -> String {
    let shortened = match text.char_indices().nth(SHOWN_TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    };
    shortened.replace(char::is_control, " ")
}

/// The headers to send; those of the connection itself are ours to write. Values are bytes, decoded as latin-1.
pub(crate) fn header_map(headers: &[(String, String)]) -> Result<HeaderMap, ConnectError> {
    let mut map = HeaderMap::with_capacity(headers.len() + 6);
    for (name, value) in headers {
        let bad = || ConnectError::BadHeader { name: shown(name) };
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        let is_ours = [header::HOST, header::CONNECTION, header::UPGRADE, header::CONTENT_LENGTH].contains(&key)
            || [header::TRANSFER_ENCODING, header::TE, header::TRAILER, header::EXPECT].contains(&key)
            || key.as_str().starts_with("sec-websocket-")
            || key.as_str().starts_with("proxy-");
        if !is_ours {
            let bytes: Result<Vec<u8>, _> = value.chars().map(u8::try_from).collect();
            map.append(key, HeaderValue::from_bytes(&bytes.map_err(|_| bad())?).map_err(|_| bad())?);
        }
    }
    Ok(map)
}

/// A stream of bytes, with TLS or without.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// How many servers are remembered to be down: as many as any configuration names.
const DOWN_MAX: usize = 1_024;

/// Opens streams; the system's roots of trust are read when first needed.
#[derive(Default)]
pub(crate) struct Dialer {
    system: OnceCell<Roots>,
    /// Servers (host and port) that gave no answer when they were last asked, or hung up on it at once.
    down: Mutex<HashSet<String>>,
}

impl Dialer {
    /// The order in which to try servers: as given, but those that are down last.
    pub(crate) fn order(&self, urls: &[String]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..urls.len()).collect();
        let down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        if !down.is_empty() {
            order.sort_by_key(|&index| server_of(&urls[index]).is_some_and(|server| down.contains(&server)));
        }
        order
    }

    /// A server has answered, with whatever status, or it has not.
    pub(crate) fn note(&self, url: &str, is_down: bool) {
        let Some(server) = server_of(url) else { return };
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_down {
            down.remove(&server);
        } else if down.len() < DOWN_MAX {
            down.insert(server);
        }
    }

    /// A stream to a server, checked by these roots, or the system's.
    pub(crate) async fn dial(&self, roots: Option<&Roots>, target: &Target) -> Result<Box<dyn Io>, ConnectError> {
        let failed = |what| move |source| ConnectError::Io { what, source };
        let socket = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(failed("connect"))?;
        socket.set_nodelay(true).map_err(failed("TCP_NODELAY"))?;
        if !target.is_tls {
            return Ok(Box::new(socket));
        }
        let name = ServerName::try_from(target.host.clone()).map_err(|_| ConnectError::BadUrl)?;
        let roots = match roots {
            Some(roots) => roots,
            None => self.system.get_or_try_init(system_roots).await?,
        };
        let stream = roots.connector().connect(name, socket).await.map_err(failed("TLS"))?;
        Ok(Box::new(stream))
    }
}

fn server_of(url: &str) -> Option<String> {
    Target::parse(url).map(|target| format!("{}:{}", target.host, target.port))
}

/// The system's roots, read beside the thread that all sessions share.
async fn system_roots() -> Result<Roots, ConnectError> {
    let read = tokio::task::spawn_blocking(Roots::of_system).await;
    read.map_err(|_| ConnectError::NoRoots)?.map_err(|_| ConnectError::NoRoots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_has_none_of_left_is_no_fault_of_a_server() {
        let io = |number| ConnectError::Io { what: "connect", source: io::Error::from_raw_os_error(number) };
        for number in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EADDRNOTAVAIL] {
            assert_eq!((io(number).fault(), io(number).is_servers()), (Fault::Machine, false), "{number}");
        }
        for number in [libc::ECONNREFUSED, libc::EHOSTUNREACH, libc::ECONNRESET] {
            assert_eq!((io(number).fault(), io(number).is_servers()), (Fault::Server, true), "{number}");
        }
    }
}
