//! The head of a request, read from the front of a buffer (RFC 9112 §2 to §6).
//!
//! Syntax is left to httparse; here stand the bounds, the form of the target and what a server must refuse.
use std::mem::MaybeUninit;

use smallvec::SmallVec;

use super::body::Body;
use super::error::RequestError;

/// How long a target may be, in bytes; above it the answer is 414 (RFC 9110 §15.5.15 recommends at least 8,000).
pub const TARGET_BYTES_MAX: usize = 8 * 1024;

/// How many headers a head may have; above it the answer is 431. As many as Apache takes.
pub const HEADERS_MAX: usize = 100;

/// How much of a refused header value an error repeats, in bytes.
const EXCERPT_BYTES_MAX: usize = 40;

/// One request's head, borrowed from the bytes that it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead<'a> {
    /// The method as sent: case matters (RFC 9110 §9.1).
    pub method: &'a str,
    /// The target as sent, in any of its four forms (RFC 9112 §3.2).
    pub target: &'a str,
    /// The path, still percent-encoded: begins with `/`, or is `*` of `OPTIONS`, or the authority of `CONNECT`.
    pub path: &'a str,
    /// What follows the first `?`, still percent-encoded; [`super::query_pairs`] reads it.
    pub query: Option<&'a str>,
    /// 0 of HTTP/1.0 or 1 of HTTP/1.1.
    pub version_minor: u8,
    /// Names and values in the order sent, repeated ones included; values have no white space around them.
    pub headers: SmallVec<[(&'a str, &'a [u8]); 24]>,
    /// What follows the head: nothing, so many bytes, or chunks (RFC 9112 §6).
    pub body: Body,
}

/// Reads one request's head from the front of `bytes` (RFC 9112 §2.1).
///
/// Gives the head and its length with the empty line that ends it, or `None` while `bytes` holds only a part of it.
/// Empty lines before the request line are skipped (§2.2) and count. `head_bytes_max` bounds that length. The verdict
/// on a head is the same however its bytes were cut; a wrong one is refused as soon as the wrong byte is there.
/// Allocates only beyond 24 headers.
///
/// # Errors
/// [`RequestError::HeadTooLong`] 431 once `bytes` is longer than `head_bytes_max` and the head has not ended by then,
/// [`RequestError::TargetTooLong`] 414, [`RequestError::TooManyHeaders`] 431, [`RequestError::UnsupportedVersion`] 505,
/// 400 for [`RequestError::Malformed`], [`RequestError::BadTarget`], [`RequestError::HostCount`], and what is wrong with the
/// lengths of its body: [`RequestError::AmbiguousBody`] 400, [`RequestError::BadContentLength`] 400,
/// [`RequestError::BodyTooBig`] 413, [`RequestError::UnsupportedTransferEncoding`] 501, and
/// [`RequestError::UnsupportedExpectation`] 417.
pub fn parse_head(bytes: &[u8], head_bytes_max: usize) -> Result<Option<(RequestHead<'_>, usize)>, RequestError> {
    let within_bound = &bytes[..bytes.len().min(head_bytes_max)];
    let overlong_end = overlong_target_end(within_bound);
    let window = &within_bound[..overlong_end.unwrap_or(within_bound.len())];

    let mut header_room = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let status =
        request.parse_with_uninit_headers(window, &mut header_room).map_err(|error| refuse_syntax(error, window))?;
    let (httparse::Status::Complete(head_bytes), Some(method), Some(target), Some(version_minor)) =
        (status, request.method, request.path, request.version)
    else {
        if overlong_end.is_some() {
            return Err(RequestError::TargetTooLong { bytes_max: TARGET_BYTES_MAX });
        }
        if bytes.len() > head_bytes_max {
            return Err(RequestError::HeadTooLong { bytes_max: head_bytes_max });
        }
        return Ok(None);
    };

    let (path, query) = split_target(method, target)?;
    let headers = request.headers.iter().map(|header| (header.name, header.value)).collect();
    let mut head = RequestHead { method, target, path, query, version_minor, headers, body: Body::NONE };
    head.body = head.read_body()?;
    head.check_expectation()?;
    let host_count = head.headers_named("host").count();
    if host_count > 1 || (host_count == 0 && version_minor >= 1) {
        return Err(RequestError::HostCount { count: host_count });
    }
    Ok(Some((head, head_bytes)))
}

impl<'a> RequestHead<'a> {
    /// The value of the first header called `name`, in any case, or `None`.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers_named(name).next()
    }

    /// The values of all headers called `name`, in any case, in the order sent.
    pub fn headers_named(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.headers.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name)).map(|&(_, value)| value)
    }

    /// Whether `token` is in the comma-separated list that the headers called `name` make together, in any case
    /// (RFC 9110 §5.3, §5.6.1).
    pub fn header_has_token(&self, name: &str, token: &str) -> bool {
        self.headers_named(name).flat_map(list_members).any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Whether the connection may live on after a response that leaves the body unread: the client wants it to
    /// (RFC 9112 §9.3), and there is no body that would be taken for the next request.
    pub fn keeps_alive(&self) -> bool {
        self.body.is_done() && self.keeps_alive_after_body()
    }

    /// Whether the client wants the connection to live on once its body is read (RFC 9112 §9.3).
    pub fn keeps_alive_after_body(&self) -> bool {
        if self.header_has_token("connection", "close") {
            return false;
        }
        self.version_minor >= 1 || self.header_has_token("connection", "keep-alive")
    }

    /// Whether it waits for `100 Continue` before it sends the body (RFC 9110 §10.1.1).
    pub fn expects_continue(&self) -> bool {
        self.version_minor >= 1 && !self.body.is_done() && self.header_has_token("expect", "100-continue")
    }

    fn check_expectation(&self) -> Result<(), RequestError> {
        let mut others = self.headers_named("expect").flat_map(list_members);
        match others.find(|member| !member.eq_ignore_ascii_case(b"100-continue")) {
            Some(other) if self.version_minor >= 1 => {
                Err(RequestError::UnsupportedExpectation { value: excerpt(other) })
            }
            _ => Ok(()),
        }
    }

    /// What body its headers announce; equal lengths repeated count as one (RFC 9112 §6.3, RFC 9110 §8.6).
    fn read_body(&self) -> Result<Body, RequestError> {
        let length_is_given = self.header("content-length").is_some();
        if let Some(value) = self.header("transfer-encoding") {
            let mut codings = self.headers_named("transfer-encoding").flat_map(list_members);
            let is_chunked = codings.next().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
            return if length_is_given {
                Err(RequestError::AmbiguousBody { beside: "beside Content-Length" })
            } else if self.version_minor == 0 {
                Err(RequestError::AmbiguousBody { beside: "with HTTP/1.0" })
            } else if is_chunked && codings.next().is_none() {
                Ok(Body::CHUNKED)
            } else {
                Err(RequestError::UnsupportedTransferEncoding { value: excerpt(value) })
            };
        }
        let mut body_bytes = None;
        for member in self.headers_named("content-length").flat_map(list_members) {
            let announced = parse_content_length(member)?;
            if body_bytes.is_some_and(|known| known != announced) {
                return Err(RequestError::BadContentLength { value: excerpt(member) });
            }
            body_bytes = Some(announced);
        }
        Ok(Body::Length(body_bytes.unwrap_or(0)))
    }
}

/// The members of one header's comma-separated list, without the white space around them; empty ones too.
pub(crate) fn list_members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

fn parse_content_length(digits: &[u8]) -> Result<u64, RequestError> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(RequestError::BadContentLength { value: excerpt(digits) });
    }
    digits
        .iter()
        .try_fold(0u64, |sum, &digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        .ok_or_else(|| RequestError::BodyTooBig { value: excerpt(digits), bytes_max: u64::MAX })
}

/// Where the first byte ends that makes the target too long, if it is too long.
fn overlong_target_end(bytes: &[u8]) -> Option<usize> {
    if bytes.len() <= TARGET_BYTES_MAX {
        return None;
    }
    let method_start = bytes.iter().position(|&byte| byte != b'\r' && byte != b'\n')?;
    let method_bytes = bytes[method_start..].iter().position(|&byte| !is_token_byte(byte))?;
    let target_start = method_start + method_bytes + 1;
    let end = target_start + TARGET_BYTES_MAX + 1;
    let is_overlong = bytes[target_start - 1] == b' '
        && bytes.get(target_start..end)?.iter().all(|&byte| byte > b' ' && byte != 0x7f);
    is_overlong.then_some(end)
}

/// Path and query of a target (RFC 9112 §3.2): origin-form, absolute-form, `*` of `OPTIONS`, authority of `CONNECT`.
fn split_target<'a>(method: &str, target: &'a str) -> Result<(&'a str, Option<&'a str>), RequestError> {
    if method == "CONNECT" || (method == "OPTIONS" && target == "*") {
        return Ok((target, None));
    }
    let origin = if target.starts_with('/') {
        target
    } else {
        let (scheme, after_scheme) = target.split_once("://").ok_or(RequestError::BadTarget)?;
        if !["http", "https", "ws", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return Err(RequestError::BadTarget);
        }
        match after_scheme.find(['/', '?']) {
            None => "/",
            Some(0) => return Err(RequestError::BadTarget),
            Some(at) => &after_scheme[at..],
        }
    };
    if origin.contains('#') {
        return Err(RequestError::BadTarget);
    }
    Ok(match origin.split_once('?') {
        None => (origin, None),
        Some(("", query)) => ("/", Some(query)),
        Some((path, query)) => (path, Some(query)),
    })
}

fn refuse_syntax(error: httparse::Error, bytes: &[u8]) -> RequestError {
    match error {
        httparse::Error::TooManyHeaders => RequestError::TooManyHeaders { count_max: HEADERS_MAX },
        httparse::Error::Version if names_other_version(bytes) => RequestError::UnsupportedVersion,
        httparse::Error::HeaderName => RequestError::Malformed { what: "header name" },
        httparse::Error::HeaderValue => RequestError::Malformed { what: "header value" },
        httparse::Error::NewLine => RequestError::Malformed { what: "line end" },
        httparse::Error::Version => RequestError::Malformed { what: "protocol name" },
        httparse::Error::Token | httparse::Error::Status => RequestError::Malformed { what: "request line" },
    }
}

/// Whether the request line ends in `HTTP/` and a digit, so that only the version is wrong (RFC 9112 §2.3).
fn names_other_version(bytes: &[u8]) -> bool {
    let start = bytes.iter().position(|&byte| byte != b'\r' && byte != b'\n').unwrap_or(0);
    let mut words = bytes[start..].split(|&byte| byte == b' ').skip(2);
    let version = words.next().and_then(|word| word.strip_prefix(b"HTTP/"));
    version.and_then(<[u8]>::first).is_some_and(u8::is_ascii_digit)
}

fn excerpt(value: &[u8]) -> String {
    let bytes = &value[..value.len().min(EXCERPT_BYTES_MAX)];
    bytes.escape_ascii().to_string()
}

/// Whether `text` is a token (RFC 9110 §5.6.2): the grammar of methods, header names and subprotocols.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is_token_byte(byte))
}

/// Whether `byte` may stand in a token (RFC 9110 §5.6.2, `tchar`).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
