//! The simplest answer to an upgrade (RFC 6455 §4.2.2) that any client takes.

use base64::Engine;
use sha1::{Digest, Sha1};

/// What a request is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// More must be read.
    Part,
    /// An upgrade for channel 0: the answer.
    Upgrade(String),
    /// Anything else.
    Other,
}

/// Reads a request from its beginning.
pub(super) fn read_request(bytes: &[u8]) -> Request {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Request::Part };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = head.split("\r\n");
    let target = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let mut channels = query.split('&').filter_map(|pair| pair.strip_prefix("channel="));
    let mut fields = lines.filter_map(|line| line.split_once(':'));
    match fields.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key")) {
        Some((_, key)) if channels.all(|channel| channel == "c0") => Request::Upgrade(answer(key.trim())),
        _ => Request::Other,
    }
}

fn answer(key: &str) -> String {
    let digest = Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    let accept = base64::engine::general_purpose::STANDARD.encode(digest);
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upgrade_of_section_1_3_is_answered_as_it_says() {
        let request = b"GET /ws?channel=c0 HTTP/1.1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let Request::Upgrade(answer) = read_request(request) else { panic!("refused") };
        assert!(answer.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert_eq!(read_request(&request[..request.len() - 1]), Request::Part);
    }

    #[test]
    fn other_channels_and_plain_requests_are_refused() {
        assert_eq!(read_request(b"GET /ws?channel=c1 HTTP/1.1\r\nSec-WebSocket-Key: a\r\n\r\n"), Request::Other);
        assert_eq!(read_request(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Request::Other);
    }
}
