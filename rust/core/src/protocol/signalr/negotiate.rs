//! `POST {hub}/negotiate`: what a client asks in the query, what a server answers as JSON, and ids of connections.
//!
//! A client that skips it opens a WebSocket without an id and has no stateful reconnect. Members that have nothing to
//! say are left out of replies: clients refuse `null`.
use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::value::RawValue;

use super::message::MessageError;
use super::object::{read_array, read_bool, read_int, read_members, read_text, write_member, write_name};
use crate::http::{TargetError, query_pairs};

/// The newest version: that in which a connection has a token besides its id.
pub const VERSION_MAX: i32 = 1;

/// What a client asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NegotiateRequest {
    /// 0 or 1; what is above was lowered to [`VERSION_MAX`].
    pub version: i32,
    /// Whether it could reconnect statefully.
    pub wants_stateful_reconnect: bool,
}

/// A query that is refused: with status 200 and [`write_error`] of this text, except for [`status`](Self::status).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NegotiateError {
    /// `negotiateVersion` is no whole number of 32 bits, or stands twice.
    #[error("The client requested a non-integer protocol version.")]
    VersionNotInteger,
    /// `negotiateVersion` is below 0.
    #[error("The client requested version '{version}', but the server does not support this version.")]
    UnsupportedVersion {
        /// The version.
        version: i32,
    },
    /// The query is not UTF-8.
    #[error(transparent)]
    Target(#[from] TargetError),
}

impl NegotiateError {
    /// The status of the answer: clients read the error of a 200 only.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::VersionNotInteger | Self::UnsupportedVersion { .. } => 200,
            Self::Target(error) => error.status(),
        }
    }
}

/// How hub messages can travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Text and binary.
    WebSockets,
    /// Text only: no MessagePack.
    ServerSentEvents,
    /// Text and binary.
    LongPolling,
}

impl Transport {
    /// All of them, best first.
    pub const ALL: [Self; 3] = [Self::WebSockets, Self::ServerSentEvents, Self::LongPolling];

    /// The name in a reply.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WebSockets => "WebSockets",
            Self::ServerSentEvents => "ServerSentEvents",
            Self::LongPolling => "LongPolling",
        }
    }

    /// Whether it carries bytes that are no text.
    #[must_use]
    pub const fn takes_binary(self) -> bool {
        !matches!(self, Self::ServerSentEvents)
    }
}

/// What a server answers.
#[derive(Clone, PartialEq, Eq)]
pub enum NegotiateReply<'a> {
    /// Connect here.
    Connect(Connect<'a>),
    /// Negotiate again at another place.
    Redirect {
        /// Where; `/negotiate` is to be added to its path.
        url: Cow<'a, str>,
        /// To be sent with all further requests. Some clients follow no redirect without one.
        access_token: Option<Cow<'a, str>>,
    },
    /// Go away.
    Error(Cow<'a, str>),
}

/// A token is a secret: it is not shown.
impl fmt::Debug for NegotiateReply<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(connect) => connect.fmt(formatter),
            Self::Redirect { url, access_token } => formatter
                .debug_struct("Redirect")
                .field("url", url)
                .field("has_access_token", &access_token.is_some())
                .finish(),
            Self::Error(error) => formatter.debug_tuple("Error").field(error).finish(),
        }
    }
}

/// A connection that waits for its transport: 15 s in the reference.
#[derive(Clone, PartialEq, Eq)]
pub struct Connect<'a> {
    /// 0 or 1.
    pub version: i32,
    /// Whether the connection survives its socket; only to be granted where the client asked.
    pub has_stateful_reconnect: bool,
    /// The public name of the connection.
    pub connection_id: Cow<'a, str>,
    /// What the client sends as `id` with each request, pasted without escapes. Version 0 has only the id: the same.
    pub connection_token: Cow<'a, str>,
    /// In the order of preference; unknown ones were skipped.
    pub transports: Vec<Transport>,
}

/// The token is a secret: it is not shown.
impl fmt::Debug for Connect<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Connect")
            .field("version", &self.version)
            .field("has_stateful_reconnect", &self.has_stateful_reconnect)
            .field("connection_id", &self.connection_id)
            .field("transports", &self.transports)
            .finish_non_exhaustive()
    }
}

/// Reads the query of a client's request, without `?`. Names are compared without case, unknown ones are skipped.
///
/// Without `negotiateVersion` it is version 0. `useStatefulReconnect` counts only as `true`, in any case.
///
/// # Errors
/// [`NegotiateError`], to be answered.
pub fn parse_query(query: &str) -> Result<NegotiateRequest, NegotiateError> {
    let mut version = None;
    let mut reconnect = None;
    for pair in query_pairs(query) {
        let (name, value) = pair?;
        let known = match &*name {
            name if name.eq_ignore_ascii_case("negotiateVersion") => &mut version,
            name if name.eq_ignore_ascii_case("useStatefulReconnect") => &mut reconnect,
            _ => continue,
        };
        // Twice is joined with a comma in the reference, so it is no number and no boolean.
        *known = Some(if known.is_none() { value } else { Cow::Borrowed(",") });
    }
    let version: i32 = match version {
        None => 0,
        Some(version) => version.trim().parse().map_err(|_| NegotiateError::VersionNotInteger)?,
    };
    if version < 0 {
        return Err(NegotiateError::UnsupportedVersion { version });
    }
    let wants_stateful_reconnect = reconnect.is_some_and(|reconnect| reconnect.trim().eq_ignore_ascii_case("true"));
    Ok(NegotiateRequest { version: version.min(VERSION_MAX), wants_stateful_reconnect })
}

/// Appends the JSON of a reply, members in the order of the reference; to be sent as `application/json`, status 200.
///
/// A redirect has version 0 and no transports, as Azure SignalR's has.
pub fn write_reply(out: &mut Vec<u8>, reply: &NegotiateReply<'_>) {
    match reply {
        NegotiateReply::Connect(connect) => write_connect(out, connect),
        NegotiateReply::Redirect { url, access_token } => {
            out.push(b'{');
            write_version(out, 0);
            write_member(out, "url", url);
            if let Some(access_token) = access_token {
                write_member(out, "accessToken", access_token);
            }
            write_transports(out, &[]);
            out.push(b'}');
        }
        NegotiateReply::Error(error) => write_error(out, error),
    }
}

/// Appends the JSON of a refusal.
pub fn write_error(out: &mut Vec<u8>, error: &str) {
    out.push(b'{');
    write_member(out, "error", error);
    out.push(b'}');
}

/// Reads the JSON of a server's reply. Where it has an error that counts, then a redirect.
///
/// # Errors
/// [`MessageError`] of what is no reply: not JSON, wrong types, a member missing. `ProtocolVersion` is an error of its
/// own: the server speaks the SignalR before ASP.NET Core.
pub fn parse_reply(body: &[u8]) -> Result<NegotiateReply<'_>, MessageError> {
    let names = [
        "error",
        "url",
        "accessToken",
        "negotiateVersion",
        "useStatefulReconnect",
        "connectionId",
        "connectionToken",
        "availableTransports",
        "ProtocolVersion",
    ];
    let [error, url, access_token, version, reconnect, id, token, transports, old_version] = read_members(body, names)?;
    if old_version.is_some() {
        let expected = "a reply of ASP.NET Core SignalR";
        return Err(MessageError::WrongType { field: "message", expected, got: "one of the older ASP.NET SignalR" });
    }
    if let Some(error) = error {
        return read_text("error", error).map(NegotiateReply::Error);
    }
    if let Some(url) = url {
        let access_token = access_token.map(|token| read_text("accessToken", token)).transpose()?;
        return Ok(NegotiateReply::Redirect { url: read_text("url", url)?, access_token });
    }
    let version = version.map_or(Ok(0), |version| read_int("negotiateVersion", version))?;
    let connection_id = read_needed_text("connectionId", id)?;
    let connection_token =
        if version > 0 { read_needed_text("connectionToken", token)? } else { connection_id.clone() };
    let transports = transports.ok_or(MessageError::Missing { field: "availableTransports" })?;
    Ok(NegotiateReply::Connect(Connect {
        version,
        has_stateful_reconnect: reconnect.map_or(Ok(false), |value| read_bool("useStatefulReconnect", value))?,
        connection_id,
        connection_token,
        transports: read_transports(transports)?,
    }))
}

/// A connection's id or token, of 16 random bytes: 22 characters of base64url, which need no escape in a query.
#[must_use]
pub fn encode_id(random: &[u8; 16]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(random)
}

/// The bytes of an id or token that [`encode_id`] made, or `None` of any other text.
#[must_use]
pub fn decode_id(id: &str) -> Option<[u8; 16]> {
    let mut random = [0; 16];
    let bytes = BASE64_URL_SAFE_NO_PAD.decode_slice_unchecked(id.get(..22).filter(|_| id.len() == 22)?, &mut random);
    (bytes == Ok(16)).then_some(random)
}

fn write_connect(out: &mut Vec<u8>, connect: &Connect<'_>) {
    out.push(b'{');
    if connect.has_stateful_reconnect {
        write_name(out, "useStatefulReconnect");
        out.extend_from_slice(b"true");
    }
    write_version(out, connect.version);
    write_member(out, "connectionId", &connect.connection_id);
    if connect.version > 0 {
        write_member(out, "connectionToken", &connect.connection_token);
    }
    write_transports(out, &connect.transports);
    out.push(b'}');
}

fn write_version(out: &mut Vec<u8>, version: i32) {
    write_name(out, "negotiateVersion");
    out.extend_from_slice(itoa::Buffer::new().format(version).as_bytes());
}

fn write_transports(out: &mut Vec<u8>, transports: &[Transport]) {
    write_name(out, "availableTransports");
    out.push(b'[');
    for (index, transport) in transports.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"{" } else { b",{" });
        write_member(out, "transport", transport.name());
        write_name(out, "transferFormats");
        out.extend_from_slice(if transport.takes_binary() { b"[\"Text\",\"Binary\"]}" } else { b"[\"Text\"]}" });
    }
    out.push(b']');
}

fn read_needed_text<'a>(field: &'static str, value: Option<&'a RawValue>) -> Result<Cow<'a, str>, MessageError> {
    let text = read_text(field, value.ok_or(MessageError::Missing { field })?)?;
    if text.is_empty() { Err(MessageError::Empty { field }) } else { Ok(text) }
}

fn read_transports(transports: &RawValue) -> Result<Vec<Transport>, MessageError> {
    let mut known = Vec::new();
    for transport in read_array("availableTransports", transports)? {
        let [name] = read_members(transport.get().as_bytes(), ["transport"])?;
        let name = read_needed_text("transport", name)?;
        known.extend(Transport::ALL.into_iter().find(|transport| transport.name() == name));
    }
    Ok(known)
}
