//! The first record each way: the client names protocol and version, the server agrees or says why not.
//!
//! Both are JSON records whatever protocol follows, the server's in the kind of frame that follows. What stands behind
//! a handshake in the same frame belongs to the protocol agreed on; a [`RecordReceiver`](super::RecordReceiver) leaves
//! it untaken, and bounds the handshake as any other record.
use super::hub_protocol::HubProtocol;
use super::json::SEPARATOR;
use super::message::MessageError;
use super::object::{read_int, read_members, read_text, write_member, write_name};
use super::record::RecordError;

/// A server's reply that agrees.
pub const AGREED: &[u8] = b"{}\x1e";

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeRequest {
    /// How it will write, and wants to be written to.
    pub protocol: HubProtocol,
    /// At most [`HubProtocol::VERSION_MAX`]; the reference takes any number below, too.
    pub version: i32,
}

impl HandshakeRequest {
    /// Whether this version has stateful reconnect, which negotiation must have granted besides.
    #[must_use]
    pub const fn has_stateful_reconnect(self) -> bool {
        self.version >= 2
    }
}

/// Why a handshake fails; the text is the reference's own, to be sent with [`write_refusal`] before the close.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// A protocol that the server does not know, or does not offer.
    #[error("The protocol '{protocol}' is not supported.")]
    UnsupportedProtocol {
        /// Its name as sent.
        protocol: Box<str>,
    },
    /// A version above [`HubProtocol::VERSION_MAX`].
    #[error("The server does not support version {version} of the '{protocol}' protocol.")]
    UnsupportedVersion {
        /// The version.
        version: i32,
        /// The protocol's name as sent.
        protocol: Box<str>,
    },
    /// MessagePack on Server-Sent Events. [`parse_request`] knows no transport: it is for its caller to find.
    #[error(
        "Cannot use the 'messagepack' protocol on the current transport. The transport does not support 'Binary' \
         transfer format."
    )]
    UnsupportedFormat,
    /// No handshake came within the time for it (15 s by default), or it is above the bound on a record.
    #[error("Handshake was canceled.")]
    Canceled,
    /// The first record is no handshake.
    #[error("An unexpected error occurred during connection handshake.")]
    Unexpected {
        /// What is wrong with it, for a client that is told details.
        detail: Box<str>,
    },
}

impl HandshakeError {
    /// The text for a client that is told details.
    #[must_use]
    pub fn detailed(&self) -> String {
        match self {
            Self::Unexpected { detail } => format!("{self} InvalidDataException: {detail}"),
            _ => self.to_string(),
        }
    }
}

fn unexpected(error: impl std::fmt::Display) -> HandshakeError {
    HandshakeError::Unexpected { detail: error.to_string().into() }
}

impl From<RecordError> for HandshakeError {
    fn from(_: RecordError) -> Self {
        Self::Canceled
    }
}

/// Why a client cannot go on after the server's reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// The server refuses; not worth another try.
    #[error("the server refused the handshake: {error}")]
    Refused {
        /// What it says.
        error: Box<str>,
    },
    /// It has a `type`, so it is another message.
    #[error("expected the reply to the handshake, got a hub message")]
    NoReply,
    /// It is no JSON object, or its error no string.
    #[error("reply to the handshake: {0}")]
    Malformed(#[from] MessageError),
}

/// Reads a client's first record; a server offers the protocols in `offered`.
///
/// Members stand in any order, unknown ones are skipped, the protocol's name is compared without case.
///
/// # Errors
/// [`HandshakeError`], to be sent before the close.
pub fn parse_request(record: &[u8], offered: &[HubProtocol]) -> Result<HandshakeRequest, HandshakeError> {
    let [protocol, version] = read_members(record, ["protocol", "version"]).map_err(unexpected)?;
    let protocol = protocol.ok_or_else(|| unexpected("protocol is missing"))?;
    let version = version.ok_or_else(|| unexpected("version is missing"))?;
    let name = read_text("protocol", protocol).map_err(unexpected)?;
    let version = read_int("version", version).map_err(unexpected)?;
    let protocol = HubProtocol::from_name(&name).filter(|protocol| offered.contains(protocol));
    match protocol {
        None => Err(HandshakeError::UnsupportedProtocol { protocol: name.into() }),
        Some(_) if version > HubProtocol::VERSION_MAX => {
            Err(HandshakeError::UnsupportedVersion { version, protocol: name.into() })
        }
        Some(protocol) => Ok(HandshakeRequest { protocol, version }),
    }
}

/// Appends a client's first record. Older servers take version 1 only: ask for 2 where negotiation granted it.
pub fn write_request(out: &mut Vec<u8>, request: HandshakeRequest) {
    out.push(b'{');
    write_member(out, "protocol", request.protocol.name());
    write_name(out, "version");
    out.extend_from_slice(itoa::Buffer::new().format(request.version).as_bytes());
    out.extend_from_slice(&[b'}', SEPARATOR]);
}

/// Reads a server's first record: nothing, if it agrees.
///
/// # Errors
/// [`ReplyError`]: the connection is to be closed.
pub fn parse_reply(record: &[u8]) -> Result<(), ReplyError> {
    let [error, message_type] = read_members(record, ["error", "type"])?;
    if message_type.is_some() {
        return Err(ReplyError::NoReply);
    }
    let error = error.map(|error| read_text("error", error)).transpose()?;
    match error {
        Some(error) if !error.is_empty() => Err(ReplyError::Refused { error: error.into() }),
        _ => Ok(()),
    }
}

/// Appends a server's reply that refuses, with details if `is_detailed`; the connection is to be closed behind it. The
/// other reply is [`AGREED`].
pub fn write_refusal(out: &mut Vec<u8>, error: &HandshakeError, is_detailed: bool) {
    out.push(b'{');
    write_member(out, "error", &if is_detailed { error.detailed() } else { error.to_string() });
    out.extend_from_slice(&[b'}', SEPARATOR]);
}
