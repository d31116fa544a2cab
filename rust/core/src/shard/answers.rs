//! What answers to requests are made of: refusals, kinds of content, and headers that go with them.
use smallvec::{SmallVec, smallvec};

use crate::http::{Body, RequestError, RequestHead, TargetError};
use crate::messages::Header;
use crate::tokens::Token;
use crate::ws::UpgradeError;

/// Who deals with a request.
pub(super) enum AnsweredBy {
    ThisShard,
    /// By that one: it has the connection that the request is for.
    Shard(usize),
    /// By another worker, or here once it is known that none has the connection.
    Worker(Elsewhere),
}

/// A request for a SignalR connection that is not known here.
pub(super) struct Elsewhere {
    pub(super) token: Token,
    /// The number of its route.
    pub(super) route: u64,
    /// It is for a WebSocket or an event stream: the socket is that client's from now on.
    pub(super) takes_socket: bool,
    pub(super) is_poll: bool,
    pub(super) body: Body,
    /// The client waits for word to send it.
    pub(super) expects_continue: bool,
    /// The origin whose pages may read an error.
    pub(super) readable_by: Option<Box<str>>,
}

/// Why a request is answered with an error, and nothing else.
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) headers: &'static [(&'static str, &'static str)],
    pub(super) text: String,
    /// Of a SignalR request: in the words of the reference, bare.
    pub(super) is_bare: bool,
    /// Of a HEAD request: the text is not sent, only its length (RFC 9110 §9.3.2).
    pub(super) is_head: bool,
    /// What was asked for may be cached otherwise.
    pub(super) is_uncached: bool,
    /// The origin whose pages may read it.
    pub(super) readable_by: Option<Box<str>>,
}

impl Refusal {
    pub(super) fn new(status: u16, text: impl Into<String>) -> Self {
        Self {
            status,
            headers: &[],
            text: text.into(),
            is_bare: false,
            is_head: false,
            is_uncached: false,
            readable_by: None,
        }
    }
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        Self::new(error.status(), error.to_string())
    }
}

impl From<TargetError> for Refusal {
    fn from(error: TargetError) -> Self {
        Self::new(error.status(), error.to_string())
    }
}

impl From<UpgradeError> for Refusal {
    fn from(error: UpgradeError) -> Self {
        Self { headers: error.headers(), ..Self::new(error.status(), error.to_string()) }
    }
}

/// Headers of the application as responses take them.
pub(super) fn pairs(headers: &[Header]) -> SmallVec<[(&str, &str); 6]> {
    headers.iter().map(|(name, value)| (&**name, &**value)).collect()
}

/// What lets a page of another origin read the answer, a named one with its cookies (Fetch §3.3).
pub(super) fn cors_headers(origin: Option<&str>) -> SmallVec<[(&str, &str); 6]> {
    match origin {
        None => smallvec![],
        Some("*") => smallvec![("Access-Control-Allow-Origin", "*")],
        Some(origin) => smallvec![
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Allow-Credentials", "true"),
            ("Vary", "Origin"),
        ],
    }
}

/// The application's headers behind those for pages of other origins, unless it has written those itself: a browser takes
/// two of `Access-Control-Allow-Origin` for none (Fetch §4.9).
pub(super) fn with_cors<'a>(origin: Option<&'a str>, own: &'a [Header]) -> SmallVec<[(&'a str, &'a str); 6]> {
    let is_own = own.iter().any(|(name, _)| name.eq_ignore_ascii_case("Access-Control-Allow-Origin"));
    let mut headers = if is_own { smallvec![] } else { cors_headers(origin) };
    headers.extend(pairs(own));
    headers
}

/// As the reference says it.
pub(super) const PLAIN: &str = "text/plain";
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

pub(super) const HTML: &str = "text/html; charset=utf-8";

/// What keeps caches and old proxies from answering in our place.
pub(super) const UNCACHED: [(&str, &str); 3] =
    [("Cache-Control", "no-cache, no-store"), ("Pragma", "no-cache"), ("Expires", "Thu, 01 Jan 1970 00:00:00 GMT")];

/// Whether the request is for an event stream: that comes before all else that it may be for.
pub(super) fn accepts_event_stream(head: &RequestHead<'_>) -> bool {
    head.headers_named("accept").any(|value| {
        let is_it = |kind: &[u8]| kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream");
        value.split(|&byte| byte == b',').any(|one| one.split(|&byte| byte == b';').next().is_some_and(is_it))
    })
}

/// Checks a request for a plain resource: GET or HEAD. True when it keeps alive.
pub(super) fn check_plain(head: &RequestHead<'_>) -> Result<bool, Refusal> {
    if !matches!(head.method, "GET" | "HEAD") {
        return Err(Refusal {
            headers: &[("Allow", "GET, HEAD")],
            ..Refusal::new(405, format!("{} {}: only GET and HEAD", head.method, head.path))
        });
    }
    Ok(head.keeps_alive())
}
