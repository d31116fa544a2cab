//! The upgrade of a connection (RFC 6455 §4.1): the request, and the check of its answer. No sockets.

use crate::args::Settings;

/// The key of every request, RFC 6455's own example. Nothing is gained by a random one here, and so the answer is known.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The answer to [`KEY`] (§1.3).
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Writes the request of a connection that watches `channels` over what `out` holds.
pub(crate) fn write_request(out: &mut Vec<u8>, settings: &Settings, channels: impl Iterator<Item = u32>) {
    let mut target = settings.path.clone();
    for (index, channel) in channels.enumerate() {
        let separator = if index == 0 { "" } else { "&" };
        target.push_str(&format!("{separator}channel=c{channel}"));
    }
    out.clear();
    out.extend_from_slice(upgrade_request(&target, &settings.host).as_bytes());
}

/// The request that makes a connection a WebSocket.
pub(crate) fn upgrade_request(target: &str, host: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum UpgradeResponse {
    /// More must be read.
    Part,
    /// The upgrade is granted; frames begin after this many bytes.
    Granted { head_bytes: usize },
    /// It is not: why.
    Refused(String),
}

/// Reads an answer from its beginning.
pub(crate) fn read_answer(bytes: &[u8]) -> UpgradeResponse {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if bytes.len() > HEAD_BYTES_MAX {
            UpgradeResponse::Refused(format!("the head of its answer has over {HEAD_BYTES_MAX} bytes"))
        } else {
            UpgradeResponse::Part
        };
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 101") {
        return UpgradeResponse::Refused(format!("its answer is {status:?}, not 101"));
    }
    let fields = lines.filter_map(|line| line.split_once(':'));
    let mut accepts = fields.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-accept"));
    match accepts.next() {
        Some((_, value)) if value.trim() == ACCEPT => UpgradeResponse::Granted { head_bytes: end + 4 },
        Some((_, value)) => {
            UpgradeResponse::Refused(format!("its Sec-WebSocket-Accept is {:?}, not {ACCEPT}", value.trim()))
        }
        None => UpgradeResponse::Refused("its answer has no Sec-WebSocket-Accept".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRANTED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\
        sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

    #[test]
    fn answer_cut_anywhere_is_a_part_until_it_is_whole() {
        for end in 0..GRANTED.len() {
            assert_eq!(read_answer(&GRANTED[..end]), UpgradeResponse::Part);
        }
        assert_eq!(read_answer(GRANTED), UpgradeResponse::Granted { head_bytes: GRANTED.len() });
        let with_frame = [GRANTED, b"\x81\x01a"].concat();
        assert_eq!(read_answer(&with_frame), UpgradeResponse::Granted { head_bytes: GRANTED.len() });
    }

    #[test]
    fn answer_that_grants_nothing_is_refused_with_its_reason() {
        for (bytes, why) in [
            (&b"HTTP/1.1 403 Forbidden\r\n\r\n"[..], "403"),
            (b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n", "no Sec-WebSocket-Accept"),
            (b"HTTP/1.1 101 S\r\nSec-WebSocket-Accept: abc\r\n\r\n", "abc"),
        ] {
            let UpgradeResponse::Refused(reason) = read_answer(bytes) else { panic!("granted") };
            assert!(reason.contains(why), "{reason}");
        }
    }
}
