//! The opening handshake, the server's side (RFC 6455 §4.2).
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use sha1::{Digest as _, Sha1};

use crate::http::request::list_members;
use crate::http::response::{write_header, write_status_line};
use crate::http::{RequestHead, is_token};

/// What is appended to the key before it is hashed (RFC 6455 §1.3).
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The alphabet of keys. Clients that don't zero the bits after the sixteenth byte are let in: nothing depends on them.
const KEY_BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// A request that asks rightly for a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The value of `Sec-WebSocket-Accept`, ASCII (RFC 6455 §4.2.2).
    pub accept: [u8; 28],
}

/// Why a request does not become a WebSocket: it knows the response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// `Upgrade` does not name websocket (RFC 6455 §4.2.1). 426.
    #[error("this is a WebSocket endpoint: the request has no Upgrade: websocket")]
    NotAsked,
    /// Only GET can be upgraded (RFC 6455 §4.2.1). 405.
    #[error("method is not GET, which a WebSocket handshake needs")]
    MethodNotGet,
    /// HTTP/1.0 knows no upgrade (RFC 6455 §4.2.1). 400.
    #[error("version is HTTP/1.{version_minor}, a WebSocket handshake needs HTTP/1.1")]
    VersionTooOld {
        /// The minor version sent.
        version_minor: u8,
    },
    /// `Connection` does not list upgrade: often a proxy that forwards no upgrades (RFC 6455 §4.2.1). 400.
    #[error("Connection does not list upgrade; a proxy in between may not pass it on")]
    ConnectionNotUpgrade,
    /// `Sec-WebSocket-Version` is not 13 (RFC 6455 §4.4). 426, with the version that is spoken.
    #[error("Sec-WebSocket-Version is not 13, the only version spoken")]
    UnsupportedVersion,
    /// `Sec-WebSocket-Key` is missing or repeated (RFC 6455 §4.2.1, §11.3.1). 400.
    #[error("request has {count} Sec-WebSocket-Key headers, expected 1")]
    KeyCount {
        /// How many there were.
        count: usize,
    },
    /// `Sec-WebSocket-Key` is not 16 bytes in base64 (RFC 6455 §4.2.1). 400.
    #[error("Sec-WebSocket-Key is not 16 bytes in base64")]
    BadKey,
    /// The request announces a body, whose bytes would be taken for frames. 400.
    #[error("a WebSocket handshake has no body")]
    HasBody,
}

impl UpgradeError {
    /// The status that answers this misdeed.
    pub fn status(&self) -> u16 {
        match self {
            Self::NotAsked | Self::UnsupportedVersion => 426,
            Self::MethodNotGet => 405,
            Self::VersionTooOld { .. }
            | Self::ConnectionNotUpgrade
            | Self::KeyCount { .. }
            | Self::BadKey
            | Self::HasBody => 400,
        }
    }

    /// The headers that the response must have besides (RFC 6455 §4.4, RFC 9110 §15.5.6, §15.5.22).
    pub fn headers(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::NotAsked => &[("Upgrade", "websocket")],
            Self::MethodNotGet => &[("Allow", "GET")],
            Self::UnsupportedVersion => &[("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")],
            _ => &[],
        }
    }
}

/// Whether the request asks for a WebSocket at all: its `Upgrade` lists websocket (RFC 9110 §7.8).
pub fn is_upgrade(head: &RequestHead<'_>) -> bool {
    head.header_has_token("upgrade", "websocket")
}

/// Reads a handshake (RFC 6455 §4.2.1) and computes what accepts it (§4.2.2).
///
/// Whether the client may connect (`Origin`, tokens) is the caller's to say.
///
/// # Errors
/// The first of these in this order: [`UpgradeError::NotAsked`] 426, [`UpgradeError::MethodNotGet`] 405,
/// [`UpgradeError::VersionTooOld`] 400, [`UpgradeError::ConnectionNotUpgrade`] 400,
/// [`UpgradeError::UnsupportedVersion`] 426, [`UpgradeError::KeyCount`] 400, [`UpgradeError::BadKey`] 400,
/// [`UpgradeError::HasBody`] 400.
pub fn read_upgrade(head: &RequestHead<'_>) -> Result<Upgrade, UpgradeError> {
    if !is_upgrade(head) {
        return Err(UpgradeError::NotAsked);
    }
    if head.method != "GET" {
        return Err(UpgradeError::MethodNotGet);
    }
    if head.version_minor < 1 {
        return Err(UpgradeError::VersionTooOld { version_minor: head.version_minor });
    }
    if !head.header_has_token("connection", "upgrade") {
        return Err(UpgradeError::ConnectionNotUpgrade);
    }
    let mut versions = head.headers_named("sec-websocket-version");
    if versions.next() != Some(b"13") || versions.next().is_some() {
        return Err(UpgradeError::UnsupportedVersion);
    }
    let mut keys = head.headers_named("sec-websocket-key");
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return Err(UpgradeError::KeyCount { count: head.headers_named("sec-websocket-key").count() });
    };
    if !is_key(key) {
        return Err(UpgradeError::BadKey);
    }
    if !head.body.is_done() {
        return Err(UpgradeError::HasBody);
    }
    Ok(Upgrade { accept: accept_of(key) })
}

/// The subprotocols that the client offers, the preferred ones first (RFC 6455 §4.2.1, §11.3.4).
///
/// Repeated headers make one list; what is no token is skipped.
pub fn offered_subprotocols<'a>(head: &RequestHead<'a>) -> impl Iterator<Item = &'a str> {
    head.headers_named("sec-websocket-protocol")
        .flat_map(list_members)
        .filter(|member| is_token(member))
        .filter_map(|member| std::str::from_utf8(member).ok())
}

/// Appends the response that opens the WebSocket (RFC 6455 §4.2.2); frames may follow at once.
///
/// `subprotocol` must be one of [`offered_subprotocols`], else the client fails the connection (§4.1). `headers` stand
/// there besides.
pub fn write_accept<Value: AsRef<[u8]>>(
    out: &mut Vec<u8>,
    upgrade: &Upgrade,
    subprotocol: Option<&str>,
    headers: &[(&str, Value)],
) {
    write_status_line(out, 101);
    write_header(out, "Upgrade", "websocket");
    write_header(out, "Connection", "Upgrade");
    out.extend_from_slice(b"Sec-WebSocket-Accept: ");
    out.extend_from_slice(&upgrade.accept);
    out.extend_from_slice(b"\r\n");
    if let Some(subprotocol) = subprotocol {
        write_header(out, "Sec-WebSocket-Protocol", subprotocol);
    }
    for (name, value) in headers {
        write_header(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
}

fn is_key(key: &[u8]) -> bool {
    let mut decoded = [0; 18];
    key.len() == 24 && KEY_BASE64.decode_slice(key, &mut decoded) == Ok(16)
}

fn accept_of(key: &[u8]) -> [u8; 28] {
    let digest = Sha1::new().chain_update(key).chain_update(KEY_SUFFIX).finalize();
    let mut accept = [0; 28];
    KEY_BASE64.encode_slice(digest, &mut accept).expect("20 bytes are always 28 in base64");
    accept
}
