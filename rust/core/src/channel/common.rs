//! What all channels of an engine write to.
use std::sync::atomic::AtomicU16;

use super::coded::Compressing;

/// Of all registries of an engine.
#[derive(Debug)]
pub struct Common {
    /// Formats that some subscriber of any channel has spoken: what is kept, is kept for these.
    pub(super) formats_seen: AtomicU16,
    /// What compressing has taken.
    pub(super) compressing: Compressing,
    /// The debug mode: what is compressed is decoded again.
    pub(super) verifies_compression: bool,
}

impl Common {
    /// Of an engine that is yet to begin. In tests of this crate all is verified.
    pub(crate) fn new(verifies_compression: bool) -> Self {
        let verifies_compression = verifies_compression || cfg!(test);
        Self { formats_seen: AtomicU16::default(), compressing: Compressing::default(), verifies_compression }
    }
}

impl Default for Common {
    fn default() -> Self {
        Self::new(false)
    }
}
