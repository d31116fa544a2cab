//! HTTP/1.1 as functions on bytes (RFC 9110, RFC 9112): heads are read, targets decoded, responses written.
//!
//! It exists so that a shard can answer whatever a browser or a load balancer says before a WebSocket or an event
//! stream begins. It never touches a socket, and allocates nothing for a head of up to 24 headers, or for a body.
pub mod body;
pub mod error;
pub mod request;
pub mod response;
pub mod target;

pub use body::{Body, Piece};
pub use error::RequestError;
pub use request::{RequestHead, parse_head};
pub use response::{header_fault, write_response, write_response_head, write_stream_head};
pub use target::{TargetError, decode_component, query_pairs};

/// Whether `text` is a token (RFC 9110 §5.6.2): the grammar of methods, header names and subprotocols.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is_token_byte(byte))
}

/// Whether `byte` may stand in a token (RFC 9110 §5.6.2, `tchar`).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
