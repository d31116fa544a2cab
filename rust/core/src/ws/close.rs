//! Close frames (RFC 6455 §5.5.1).
use super::close_code::CloseCode;
use super::frame::{CONTROL_BYTES_MAX, Opcode, write_header};

/// How long the reason of a close frame may be, in bytes: a control frame's 125 less the code (RFC 6455 §5.5).
pub const REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

/// Appends a server's whole close frame (RFC 6455 §5.5.1).
///
/// `reason` is cut to 123 bytes at a character's boundary. A code that may not be sent, such as
/// [`CloseCode::NO_STATUS`], gives a frame without code and reason.
pub fn write_close(out: &mut Vec<u8>, code: CloseCode, reason: &str) {
    if !code.may_be_sent() {
        write_header(out, Opcode::Close, 0);
        return;
    }
    let reason = cut_at_character(reason, REASON_BYTES_MAX);
    write_header(out, Opcode::Close, 2 + reason.len());
    out.extend_from_slice(&code.0.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

/// The longest beginning of `text` that ends between characters and has at most `bytes_max` bytes.
fn cut_at_character(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
