//! WebSocket (RFC 6455) as functions on bytes: the handshake, frames, and the receiving half of a connection.
//!
//! Sending needs no state: [`write_header`] and the payload are a frame. Receiving has one state machine, [`Receiver`];
//! [`Codec`] is that with permessage-deflate (RFC 7692), for those who have sockets of their own.
//! Nothing here touches a socket, a clock or a channel.
pub mod close_code;
pub mod codec;
pub mod deflate;
pub mod frame;
pub mod handshake;
pub mod message;
pub mod outline;
pub mod utf8;

pub use close_code::{CLOSE_CODES, CloseCode};
pub use codec::{Codec, DEFLATED_BYTES_MIN, receive_alone};
pub use deflate::{DeflateAgreement, Deflater, Inflater, SharedDeflater, inflate_alone};
pub(crate) use frame::payload_bytes;
pub use frame::{
    FrameError, Header, Opcode, frame_bytes, header_bytes, parse_header, unmask, write_close, write_header,
};
pub use handshake::{Upgrade, UpgradeError, is_upgrade, offered_subprotocols, read_upgrade, write_accept};
pub use message::{Compressible, ReceiveError, Received, Receiver};
pub use outline::Outline;
pub use utf8::{InvalidUtf8, Utf8Stream};
