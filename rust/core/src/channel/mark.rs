//! What a log knows of its frames and of the places between them.
use std::sync::Arc;

use super::keys::KeyId;
use crate::connection_id::ConnectionId;

/// What a frame is for newcomers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum FrameKind {
    #[default]
    Plain,
    /// One may begin with it.
    Keyframe,
    /// One may begin with it, and nobody else gets it.
    Snapshot,
    /// Its key has ended: the values before it are for nobody who has not got them.
    Removal,
    /// Of no frame: from here on a newcomer lacks nothing, though there is no state to begin with.
    Opening,
    /// Of no frame that is written: publications up to this number are missing here.
    Gap,
}

/// One frame in the index.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FrameMark {
    /// Position of the byte after it; set by the log.
    pub(super) end: u64,
    /// When it was published, ns of the engine's clock.
    pub(super) published_ns: u64,
    /// When it must no longer be sent, ns; `u64::MAX` is never.
    pub(super) expires_ns: u64,
    /// Its number in the channel; of a snapshot that of the publication before it.
    pub(super) offset: u64,
    pub(super) key: KeyId,
    pub(super) kind: FrameKind,
}

const _: () = assert!(size_of::<FrameMark>() == 40, "as the settings say");

impl FrameMark {
    /// Whether one may begin with it.
    pub(super) fn is_beginning(&self) -> bool {
        matches!(self.kind, FrameKind::Keyframe | FrameKind::Snapshot)
    }

    /// Whether a read has to look at it; at a removal, for the values of its key before it.
    pub(super) fn is_special(&self) -> bool {
        let is_looked_at = matches!(self.kind, FrameKind::Snapshot | FrameKind::Removal | FrameKind::Gap);
        self.expires_ns != u64::MAX || is_looked_at
    }
}

/// A place between two frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) position: u64,
    /// Of the publication before it.
    pub(super) offset: u64,
}

/// A frame that some connections are not to get.
#[derive(Clone, Debug)]
pub struct Exclusion {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Those who don't get it, in the order of their identities.
    pub excluded: Arc<[ConnectionId]>,
}

impl Exclusion {
    /// Whether the frame is not for this connection.
    pub(super) fn is_of(&self, id: ConnectionId) -> bool {
        self.excluded.binary_search(&id).is_ok()
    }
}
