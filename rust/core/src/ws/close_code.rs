//! Close codes (RFC 6455 §7.4).
use std::fmt;

/// Why a WebSocket ends, as a number (RFC 6455 §7.4 and the IANA registry).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(pub u16);

/// The codes that a server may send, as errors and pages tell them.
pub const CLOSE_CODES: &str = "a close code, 1000 to 1003, 1007 to 1009, 1011 to 1014 or 3000 to 4999 (RFC 6455 §7.4)";

impl CloseCode {
    /// The purpose is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// The server goes down or the browser leaves the page.
    pub const GOING_AWAY: Self = Self(1001);
    /// A peer broke RFC 6455.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// A kind of data that cannot be taken.
    pub const UNSUPPORTED: Self = Self(1003);
    /// Stands for a close frame without a code; never on the wire.
    pub const NO_STATUS: Self = Self(1005);
    /// Stands for a connection that ended without a close frame; never on the wire.
    pub const ABNORMAL: Self = Self(1006);
    /// Text that is not UTF-8.
    pub const INVALID_DATA: Self = Self(1007);
    /// A rule of the application was broken.
    pub const POLICY: Self = Self(1008);
    /// A message above the bound.
    pub const TOO_BIG: Self = Self(1009);
    /// The server failed.
    pub const INTERNAL: Self = Self(1011);
    /// The server restarts: come back.
    pub const RESTART: Self = Self(1012);
    /// The server is overloaded, or the client too slow: come back later.
    pub const TRY_AGAIN_LATER: Self = Self(1013);

    /// Whether a server may put it into a close frame (RFC 6455 §7.4.1): 1010 is the client's alone.
    pub fn may_be_sent(self) -> bool {
        self.may_be_received() && self.0 != 1010
    }

    /// Whether a client may put it into a close frame (RFC 6455 §7.4.1, §7.4.2).
    ///
    /// 1000 to 1003, 1007 to 1014 as registered, 3000 to 4999 free to libraries and applications.
    pub fn may_be_received(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
