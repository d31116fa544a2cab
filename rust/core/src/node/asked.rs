//! That an application was asked for a snapshot.

/// That an application was asked for a keyframe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) peer: u64,
    /// What it gives has all that was published up to here.
    pub(super) offset: u64,
    pub(super) at_ns: u64,
    /// How often it was asked before, since others had published meanwhile.
    pub(super) again: u8,
}

/// A snapshot that came within so long of the question was made at once: where others have published meanwhile it is asked
/// for again, so that it stands where it is true. A slower one says nothing of its place in any process.
const AT_ONCE_NS: u64 = 10_000_000;
/// So often in a row at most.
pub(super) const AGAIN_MAX: u8 = 8;

impl Asked {
    /// Whether others have published since this one was asked, who has answered at once.
    pub(super) fn is_overtaken(self, peer: u64, offset: u64, now_ns: u64) -> bool {
        let is_at_once = now_ns.saturating_sub(self.at_ns) < AT_ONCE_NS;
        self.peer == peer && is_at_once && self.again < AGAIN_MAX && offset > self.offset
    }
}
