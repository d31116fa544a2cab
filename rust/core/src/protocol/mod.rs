//! A publication on each wire, and what clients ask on the raw one.
//!
//! A channel keeps one log for each [`Format`] that a subscriber uses; [`write_frame`] makes what is appended to it.
//! Nothing here knows who is subscribed, and no socket.
mod coding;
pub mod envelope;
mod format;
mod frame;
mod payload;
pub mod raw;
pub mod signalr;
pub mod sse;
mod transcode;

pub use coding::{Coding, LogId};
pub use format::{Encoding, Format, Formats, Framing};
pub use frame::{frame_bytes_max, write_frame};
pub use payload::{Encoded, MissingEncoding, Payload, Stamp};
pub use raw::{RawError, Request, parse_request, write_reply_error, write_reply_result};
pub(crate) use transcode::json_to_msgpack;
