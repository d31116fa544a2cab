//! Why a request is answered with an error.
use crate::http::{RequestError, TargetError};
use crate::ws::UpgradeError;

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
