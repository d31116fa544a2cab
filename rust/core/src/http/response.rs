//! Responses, written whole into the bytes that a connection sends (RFC 9112 §4 to §6).
//!
//! There is no `Date`: a caller with a clock hands it in among `headers` (RFC 9110 §6.6.1 asks only those who have one).
use std::borrow::Cow;

use super::request::is_token;

/// Appends one whole response: status line, headers, `Content-Length`, body.
///
/// `headers` come first and as given. Line ends inside a value become spaces, and a name that is no token is left out.
/// So no text can forge a header (RFC 9110 §5.5). `content_type` is left out when empty. Of 1xx, 204 and 304 body
/// and its headers are left out (RFC 9112 §6.3). `keep_alive` says what `Connection` promises; the caller keeps it.
pub fn write_response(
    out: &mut Vec<u8>,
    status: u16,
    headers: &[(&str, &str)],
    content_type: &str,
    body: &[u8],
    keep_alive: bool,
) {
    write_response_head(out, status, headers, content_type, body.len(), keep_alive);
    if has_body(status) {
        out.extend_from_slice(body);
    }
}

/// Appends what [`write_response`] would before a body of `body_bytes`: the whole answer to `HEAD` (RFC 9110 §9.3.2).
pub fn write_response_head(
    out: &mut Vec<u8>,
    status: u16,
    headers: &[(&str, &str)],
    content_type: &str,
    body_bytes: usize,
    keep_alive: bool,
) {
    write_status_line(out, status);
    write_headers(out, headers);
    if has_body(status) {
        if !content_type.is_empty() {
            write_header(out, "Content-Type", content_type);
        }
        write_header(out, "Content-Length", itoa::Buffer::new().format(body_bytes));
    }
    write_header(out, "Connection", if keep_alive { "keep-alive" } else { "close" });
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of a response without an end, for `text/event-stream` (WHATWG HTML §9.2).
///
/// The body ends with the connection (RFC 9112 §6.3). `Cache-Control: no-cache,no-store` keeps caches from holding it back,
/// `X-Accel-Buffering: no` keeps nginx from it. `headers` as in [`write_response`]. One that is gzip says so (RFC 9110
/// §8.4), and to nobody on the way to make something else of it (RFC 9111 §5.2.2.6).
pub fn write_stream_head(out: &mut Vec<u8>, headers: &[(&str, &str)], content_type: &str, is_gzip: bool) {
    write_status_line(out, 200);
    write_headers(out, headers);
    write_header(out, "Content-Type", content_type);
    if is_gzip {
        write_header(out, "Content-Encoding", "gzip");
        write_header(out, "Vary", "Accept-Encoding");
    }
    write_header(out, "Cache-Control", if is_gzip { "no-cache,no-store,no-transform" } else { "no-cache,no-store" });
    write_header(out, "X-Accel-Buffering", "no");
    write_header(out, "Connection", "close");
    out.extend_from_slice(b"\r\n");
}

/// Why the application may not set a header like this, or `None` where it may.
///
/// A name is a token, and a value visible ASCII, spaces and tabs (RFC 9110 §5.1, §5.5). So no text can forge a header.
/// What frames the message, belongs to one hop (§7.6.1) or to the handshake (RFC 6455 §11.3) is the engine's to write.
pub fn header_fault(name: &str, value: &str) -> Option<&'static str> {
    const OWN: [&str; 12] = [
        "connection",
        "content-length",
        "content-type",
        "keep-alive",
        "proxy-connection",
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "sec-websocket-protocol",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    if !is_token(name.as_bytes()) {
        Some("has a name that is no token")
    } else if OWN.iter().any(|own| own.eq_ignore_ascii_case(name)) {
        Some("is the engine's own to set")
    } else if !value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)) {
        Some("has a value with bytes that are not visible ASCII")
    } else {
        None
    }
}

/// Why a header cannot be sent by anybody: another one would be forged by it (RFC 9110 §5.1, §5.5).
///
/// For programs that have always set their own: [`header_fault`] asks more.
pub fn forgery(name: &str, value: &[u8]) -> Option<&'static str> {
    if !is_token(name.as_bytes()) {
        Some("has a name that is no token")
    } else if value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        Some("has a value with a line end or NUL")
    } else {
        None
    }
}

/// Appends a head with these headers and no others; the caller knows how the body ends.
pub fn write_own_head<Value: AsRef<[u8]>>(out: &mut Vec<u8>, status: u16, headers: &[(&str, Value)]) {
    write_status_line(out, status);
    write_headers(out, headers);
    out.extend_from_slice(b"\r\n");
}

/// What an application's headers of one answer may take together: stock clients take heads of 32 KiB and less.
const RESPONSE_HEADERS_BYTES_MAX: usize = 16 * 1024;

/// How much of that the headers of one answer take, which come one by one.
#[derive(Debug, Default)]
pub struct HeaderBytes(usize);

impl HeaderBytes {
    /// Adds a header; or says why it cannot be sent with those before it, and counts nothing then.
    ///
    /// # Errors
    /// What [`header_fault`] has against it, or that it would be one too many.
    pub fn add(&mut self, name: &str, value: &str) -> Result<(), Cow<'static, str>> {
        if let Some(why) = header_fault(name, value) {
            return Err(why.into());
        }
        let bytes = self.0 + name.len() + ": ".len() + value.len() + "\r\n".len();
        if bytes > RESPONSE_HEADERS_BYTES_MAX {
            let bound = format!("{bytes} bytes, over the bound of {RESPONSE_HEADERS_BYTES_MAX}");
            return Err(format!("is one too many: together they are {bound}").into());
        }
        self.0 = bytes;
        Ok(())
    }
}

/// Which of an answer's headers cannot be sent, and why.
pub fn headers_fault<'a>(
    mut headers: impl Iterator<Item = (&'a str, &'a str)>,
) -> Option<(&'a str, Cow<'static, str>)> {
    let mut taken = HeaderBytes::default();
    headers.find_map(|(name, value)| taken.add(name, value).err().map(|why| (name, why)))
}

/// The reason phrase of a status (RFC 9110 §15, RFC 6585), empty for one that is not used here: it may be empty.
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// Appends the status line, written with three digits whatever `status` is.
pub(crate) fn write_status_line(out: &mut Vec<u8>, status: u16) {
    out.extend_from_slice(b"HTTP/1.1 ");
    let digits = [100u16, 10, 1].map(|place| b'0' + u8::try_from(status / place % 10).unwrap_or(0));
    out.extend_from_slice(&digits);
    out.push(b' ');
    out.extend_from_slice(reason_phrase(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends one header; see [`write_response`] for what becomes of names and values that are none.
pub(crate) fn write_header(out: &mut Vec<u8>, name: &str, value: impl AsRef<[u8]>) {
    if !is_token(name.as_bytes()) {
        return;
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend(value.as_ref().iter().map(|&byte| match byte {
        b'\r' | b'\n' | 0 => b' ',
        other => other,
    }));
    out.extend_from_slice(b"\r\n");
}

fn write_headers<Value: AsRef<[u8]>>(out: &mut Vec<u8>, headers: &[(&str, Value)]) {
    for (name, value) in headers {
        write_header(out, name, value);
    }
}

fn has_body(status: u16) -> bool {
    !matches!(status, 100..=199 | 204 | 304)
}
