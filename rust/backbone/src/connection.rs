//! One connection to one server: TCP, TLS, who we are, and the task that reads and writes.
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, PushInfo, RedisConnectionInfo, RedisError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::url::{Address, Login};

/// A connection. Dropping it closes it.
pub(crate) struct Connection {
    pub(crate) commands: MultiplexedConnection,
    /// How long one answer may take, as long as it is not in use.
    pub(crate) within: Duration,
    task: JoinHandle<()>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is told of what the server says unasked.
pub(crate) type Pushed = Arc<dyn Fn(PushInfo) + Send + Sync>;

/// How a connection is made, and who is told that it has ended.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) tls: Option<TlsConnector>,
    pub(crate) ended: mpsc::Sender<String>,
    /// How long a connect may take, and each answer before it is in use.
    pub(crate) within: Duration,
}

impl Dialer {
    /// Connects. `what` says in errors what it is for.
    pub(crate) async fn connect(
        &self,
        address: &Address,
        login: &Login,
        what: &'static str,
        pushed: Option<Pushed>,
    ) -> Result<Connection, String> {
        let connecting = tokio::time::timeout(self.within, self.dial(address, login, what, pushed));
        connecting.await.unwrap_or_else(|_| Err(format!("{address}: no connection within {:?}", self.within)))
    }

    async fn dial(
        &self,
        address: &Address,
        login: &Login,
        what: &'static str,
        pushed: Option<Pushed>,
    ) -> Result<Connection, String> {
        let failed = |error: &dyn fmt::Display| format!("{address}: {error}");
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(|error| failed(&error))?;
        stream.set_nodelay(true).map_err(|error| failed(&error))?;
        match &self.tls {
            None => self.greet(stream, address, login, what, pushed).await,
            Some(tls) => {
                let name = ServerName::try_from(address.host.clone()).map_err(|error| failed(&error))?;
                let stream = tls.connect(name, stream).await.map_err(|error| failed(&format_args!("TLS: {error}")))?;
                self.greet(stream, address, login, what, pushed).await
            }
        }
    }

    async fn greet(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        address: &Address,
        login: &Login,
        what: &'static str,
        pushed: Option<Pushed>,
    ) -> Result<Connection, String> {
        let mut info = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_db(login.database);
        if let Some(user) = &login.user {
            info = info.set_username(user);
        }
        if let Some(password) = &login.password {
            info = info.set_password(password);
        }
        // Silence is noticed by pings: a batch that takes long is no fault.
        let mut config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        if let Some(pushed) = pushed {
            config = config.set_push_sender(move |push: PushInfo| {
                pushed(push);
                Ok::<(), ()>(())
            });
        }
        let (commands, driver) = MultiplexedConnection::new_with_config(&info.set_skip_set_lib_name(), stream, config)
            .await
            .map_err(|error| greeting_failed(address, &error))?;
        let ended = Ended(self.ended.clone(), format!("{address}: the connection for {what} was closed"));
        let task = tokio::spawn(async move {
            driver.await;
            drop(ended);
        });
        Ok(Connection { commands, within: self.within, task })
    }
}

/// Tells that a connection has ended, also where its hearer has panicked.
struct Ended(mpsc::Sender<String>, String);

impl Drop for Ended {
    fn drop(&mut self) {
        // Where there is no room, another has told the same; where nobody listens, the link has closed it.
        let _ = self.0.try_send(std::mem::take(&mut self.1));
    }
}

fn greeting_failed(address: &Address, error: &RedisError) -> String {
    let text = told(error);
    if text.contains("HELLO command") || text.contains("NOPROTO") {
        return format!(
            "{address}: the server is too old, it does not know HELLO 3 ({text}): Redis 6.2 or later is needed"
        );
    }
    format!("{address}: {text}")
}

/// An error as the server said it.
pub(crate) fn told(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    }
}
