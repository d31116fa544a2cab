//! One connection to one NATS server: TCP, TLS, who we are, and what the server is.
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use fanwire_core::node::LETTER_BYTES_MAX;

use super::key::Credentials;
use super::target::Login;
use super::wire::{Said, read};
use crate::url::Address;

/// The oldest version that is enough.
const VERSION_MIN: (u64, u64) = (2, 12);

/// What a server says of itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Info {
    version: String,
    headers: bool,
    tls_required: bool,
    nonce: Option<String>,
    pub(crate) max_payload: usize,
    /// The name of its cluster.
    pub(crate) cluster: Option<String>,
    /// Other servers of the cluster.
    pub(crate) connect_urls: Vec<String>,
    /// It is about to end.
    pub(crate) ldm: bool,
}

/// A connection that is logged in. Dropping it closes it.
pub(crate) struct Connection {
    pub(crate) address: Address,
    pub(crate) info: Info,
    pub(crate) reader: Box<dyn AsyncRead + Send + Unpin>,
    pub(crate) writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// What has come and was not read.
    pub(crate) rest: Vec<u8>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("address", &self.address).finish_non_exhaustive()
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Connection {
    /// Connects, says who we are, and looks what the server is.
    ///
    /// # Errors
    /// Why not, with the address.
    pub(crate) async fn open(
        address: &Address,
        login: &Login,
        tls: Option<&TlsConnector>,
        within: Duration,
    ) -> Result<Self, String> {
        let opening = tokio::time::timeout(within, dial(address, login, tls));
        let opened = opening.await.unwrap_or_else(|_| Err(format!("no connection within {within:?}")));
        opened.map_err(|why| format!("{address}: {why}"))
    }
}

async fn dial(address: &Address, login: &Login, tls: Option<&TlsConnector>) -> Result<Connection, String> {
    let tcp = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(|error| error.to_string())?;
    tcp.set_nodelay(true).map_err(|error| error.to_string())?;
    let mut stream: Box<dyn Stream> = Box::new(tcp);
    let mut buffer = Vec::new();
    let info = loop {
        match next(&mut stream, &mut buffer).await? {
            Reply::Info(info) => break info,
            Reply::Error(why) => return Err(why),
            Reply::Pong => {}
        }
    };
    check(&info)?;
    match tls {
        Some(tls) => {
            let name = ServerName::try_from(address.host.clone()).map_err(|error| error.to_string())?;
            let made = tls.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?;
            stream = Box::new(made);
        }
        None if info.tls_required => return Err("the server wants TLS: its URL begins with tls://".to_owned()),
        None => {}
    }
    let hello = format!("CONNECT {}\r\nPING\r\n", introduction(&info, login)?);
    stream.write_all(hello.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut latest = info;
    loop {
        match next(&mut stream, &mut buffer).await? {
            Reply::Pong => break,
            Reply::Error(why) => return Err(why),
            Reply::Info(info) => latest = info,
        }
    }
    let (reader, writer) = split(stream);
    let (reader, writer) = (Box::new(reader), Box::new(writer));
    Ok(Connection { address: address.clone(), info: latest, reader, writer, rest: buffer })
}

/// What concerns a connection that is not yet one.
enum Reply {
    Info(Info),
    Pong,
    Error(String),
}

async fn next(stream: &mut Box<dyn Stream>, buffer: &mut Vec<u8>) -> Result<Reply, String> {
    let mut chunk = [0; 4_096];
    loop {
        if let Some((said, length)) = read(buffer)? {
            let reply = match said {
                Said::Info(text) => Some(Reply::Info(information(text)?)),
                Said::Pong => Some(Reply::Pong),
                Said::Error(why) => Some(Reply::Error(why.to_owned())),
                Said::Ping | Said::Fine | Said::Message(_) => None,
            };
            buffer.drain(..length);
            match reply {
                Some(reply) => return Ok(reply),
                None => continue,
            }
        }
        match stream.read(&mut chunk).await {
            Ok(0) => return Err("the connection was closed before it was one".to_owned()),
            Ok(count) => buffer.extend_from_slice(&chunk[..count]),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Reads what a server says of itself.
pub(crate) fn information(text: &[u8]) -> Result<Info, String> {
    serde_json::from_slice(text).map_err(|error| format!("what it says of itself cannot be read: {error}"))
}

fn check(info: &Info) -> Result<(), String> {
    let mut numbers = info.version.split(['.', '-']).map(|number| number.parse::<u64>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < VERSION_MIN || !info.headers {
        let what =
            "2.12 or later is needed, with headers: it answers for a channel in batches, and says what was before";
        return Err(format!("nats-server {} is too old: {what}", info.version));
    }
    if info.max_payload < LETTER_BYTES_MAX {
        let (has, must) = (info.max_payload, LETTER_BYTES_MAX);
        return Err(format!("the server's max_payload is {has} bytes: what machines tell one another needs {must}"));
    }
    Ok(())
}

/// Who we are.
fn introduction(info: &Info, login: &Login) -> Result<String, String> {
    let mut said = json!({
        "verbose": false, "pedantic": false, "protocol": 1, "headers": true, "no_responders": true, "echo": true,
        "name": "fanwire", "lang": "fanwire", "version": env!("CARGO_PKG_VERSION"),
    });
    match (&login.user, &login.password) {
        (Some(user), Some(password)) => {
            said["user"] = json!(user);
            said["pass"] = json!(password);
        }
        (Some(token), None) => said["auth_token"] = json!(token),
        (None, _) => {}
    }
    if let Some(path) = &login.credentials {
        let failed = |why: &dyn fmt::Display| format!("the credentials in {}: {why}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
        let credentials = Credentials::read(&text).map_err(|why| failed(&why))?;
        match &credentials.jwt {
            Some(jwt) => said["jwt"] = json!(jwt),
            None => said["nkey"] = json!(credentials.public()),
        }
        said["sig"] = json!(credentials.sign(info.nonce.as_deref().unwrap_or_default()));
    }
    Ok(said.to_string())
}
