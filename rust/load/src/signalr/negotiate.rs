//! The request for a connection token (`POST …/negotiate`), and its answer. No sockets.

use serde::Deserialize;

/// The longest answer, head and body.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// The request, as stock clients make it: it leaves the connection open, which the client closes.
pub(super) fn request(path: &str, host: &str) -> String {
    format!(
        "POST {path}/negotiate?negotiateVersion=1 HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/plain;charset=UTF-8\r\n\
         X-Requested-With: XMLHttpRequest\r\nContent-Length: 0\r\n\r\n"
    )
}

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NegotiateResponse {
    /// More must be read.
    Part,
    /// What goes into `?id=`.
    Token(String),
    /// There is none: why.
    Refused(String),
}

/// The member of an answer that a client needs, or the reason why it is not there.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    connection_token: Option<String>,
    error: Option<String>,
}

/// Reads an answer from its beginning.
pub(super) fn read_answer(bytes: &[u8]) -> NegotiateResponse {
    if bytes.len() > ANSWER_BYTES_MAX {
        return NegotiateResponse::Refused(format!("its answer has {} bytes, over {ANSWER_BYTES_MAX}", bytes.len()));
    }
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return NegotiateResponse::Part };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 200") {
        return NegotiateResponse::Refused(format!("its answer is {status:?}, not 200"));
    }
    let mut fields = lines.filter_map(|line| line.split_once(':'));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length")).map(|(_, value)| value.trim());
    let Some(length) = length.and_then(|value| value.parse::<usize>().ok()) else {
        return NegotiateResponse::Refused("its answer has no Content-Length".to_owned());
    };
    let body = &bytes[end + 4..];
    if body.len() < length {
        return NegotiateResponse::Part;
    }
    match serde_json::from_slice(&body[..length]) {
        Ok(Body { connection_token: Some(token), .. }) => NegotiateResponse::Token(token),
        Ok(Body { error, .. }) => {
            NegotiateResponse::Refused(error.unwrap_or_else(|| "its answer has no connectionToken".into()))
        }
        Err(error) => NegotiateResponse::Refused(format!("its answer is no JSON: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &str) -> Vec<u8> {
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
            .into()
    }

    #[test]
    fn answer_cut_anywhere_is_a_part_until_it_is_whole() {
        let bytes =
            answer(r#"{"negotiateVersion":1,"connectionId":"a","connectionToken":"b","availableTransports":[]}"#);
        for end in 0..bytes.len() {
            assert_eq!(read_answer(&bytes[..end]), NegotiateResponse::Part);
        }
        assert_eq!(read_answer(&bytes), NegotiateResponse::Token("b".to_owned()));
    }

    #[test]
    fn answer_without_a_token_is_refused_with_its_reason() {
        for (bytes, why) in [
            (b"HTTP/1.1 404 Not Found\r\n\r\n".to_vec(), "404"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(), "no Content-Length"),
            (answer(r#"{"error":"closed for the day"}"#), "closed for the day"),
            (answer(r#"{"connectionId":"a"}"#), "no connectionToken"),
            (answer("<html>"), "no JSON"),
            (vec![b'a'; ANSWER_BYTES_MAX + 1], "16385 bytes, over 16384"),
        ] {
            let NegotiateResponse::Refused(reason) = read_answer(&bytes) else { panic!("not refused") };
            assert!(reason.contains(why), "{reason}");
        }
    }
}
