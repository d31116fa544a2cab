//! HTTP/1.1 as functions on bytes (RFC 9110, RFC 9112): heads are read, targets decoded, responses written.
//!
//! It exists so that a shard can answer whatever a browser or a load balancer says before a WebSocket or an event
//! stream begins. It never touches a socket, and allocates nothing for a head of up to 24 headers, or for a body.
pub mod body;
pub mod error;
pub mod gzip;
pub mod request;
pub mod response;
pub mod target;

pub use body::{Body, Piece};
pub use error::RequestError;
pub use request::{RequestHead, is_token, parse_head};
pub use response::{
    HeaderBytes, forgery, header_fault, headers_fault, write_own_head, write_response, write_response_head,
    write_stream_head,
};
pub use target::{TargetError, decode_component, query_pairs};
