//! Why a request is refused, and with which status.

/// Why a request is refused: the peer's misdeed, which knows its [`status`](RequestError::status).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The bytes are no HTTP/1 head (RFC 9112 §2). 400.
    #[error("malformed request head: {what}")]
    Malformed {
        /// Which part, in httparse's words.
        what: &'static str,
    },
    /// A version other than 1.0 and 1.1, also the preface of HTTP/2 (RFC 9110 §15.6.6). 505.
    #[error("unsupported HTTP version in the request line, expected HTTP/1.0 or HTTP/1.1")]
    UnsupportedVersion,
    /// The head did not end within the bound (RFC 6585 §5). 431.
    #[error("request head is longer than {bytes_max} bytes")]
    HeadTooLong {
        /// The bound, in bytes.
        bytes_max: usize,
    },
    /// More headers than [`HEADERS_MAX`](super::request::HEADERS_MAX) (RFC 6585 §5). 431.
    #[error("request head has more than {count_max} headers")]
    TooManyHeaders {
        /// The bound.
        count_max: usize,
    },
    /// The target is longer than [`TARGET_BYTES_MAX`](super::request::TARGET_BYTES_MAX) (RFC 9110 §15.5.15). 414.
    #[error("request target is longer than {bytes_max} bytes")]
    TargetTooLong {
        /// The bound, in bytes.
        bytes_max: usize,
    },
    /// The target is in none of the four forms that its method allows (RFC 9112 §3.2). 400.
    #[error("request target is neither a path nor an http or ws URL")]
    BadTarget,
    /// HTTP/1.1 with no `Host`, or any request with several (RFC 9112 §3.2). 400.
    #[error("request has {count} Host headers, expected 1")]
    HostCount {
        /// How many there were.
        count: usize,
    },
    /// `Content-Length` is not one decimal number (RFC 9110 §8.6). 400.
    #[error("Content-Length is {value:?}, expected one decimal number")]
    BadContentLength {
        /// The first bytes of the value, made printable.
        value: String,
    },
    /// `Content-Length` does not fit 64 bits (RFC 9110 §8.6, §15.5.14). 413.
    #[error("Content-Length is {value:?}, more than {bytes_max} bytes")]
    BodyTooBig {
        /// The first bytes of the value.
        value: String,
        /// The largest that can be told.
        bytes_max: u64,
    },
    /// Another `Transfer-Encoding` than chunked alone (RFC 9112 §6.1). 501.
    #[error("Transfer-Encoding {value:?} is not supported, only chunked is")]
    UnsupportedTransferEncoding {
        /// The first bytes of the value, made printable.
        value: String,
    },
    /// A chunked body is malformed (RFC 9112 §7.1). 400.
    #[error("malformed chunked body: {what}")]
    BadChunk {
        /// What is wrong with it.
        what: &'static str,
    },
    /// Something is expected that is not done here (RFC 9110 §10.1.1). 417.
    #[error("Expect {value:?} is not supported, only 100-continue is")]
    UnsupportedExpectation {
        /// The first bytes of the value, made printable.
        value: String,
    },
    /// `Transfer-Encoding` beside `Content-Length`, or in HTTP/1.0: how smuggling begins (RFC 9112 §6.1). 400.
    #[error("Transfer-Encoding may not be sent {beside}")]
    AmbiguousBody {
        /// What makes it ambiguous.
        beside: &'static str,
    },
}

impl RequestError {
    /// The status that answers this misdeed. The connection is to be closed after it.
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed { .. }
            | Self::BadTarget
            | Self::HostCount { .. }
            | Self::BadContentLength { .. }
            | Self::BadChunk { .. }
            | Self::AmbiguousBody { .. } => 400,
            Self::UnsupportedExpectation { .. } => 417,
            Self::BodyTooBig { .. } => 413,
            Self::TargetTooLong { .. } => 414,
            Self::HeadTooLong { .. } | Self::TooManyHeaders { .. } => 431,
            Self::UnsupportedTransferEncoding { .. } => 501,
            Self::UnsupportedVersion => 505,
        }
    }
}
