//! What may wait, and how long a frame may be.

/// The bounds of a server or a link. Both ends of a star should have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How many bytes a frame may have, without its length. 64 MiB and 64 KiB; below 4 GiB. A peer costs as much memory at
    /// worst while it sends one.
    pub frame_bytes_max: usize,
    /// How many bytes may wait for a peer that does not read; one frame may always wait. 64 MiB. Over it the server drops
    /// the peer. From a quarter of it on, what the peer sends waits: so nobody is dropped for what it has asked for itself.
    pub peer_queue_bytes_max: usize,
    /// How many bytes may wait in a link; one frame may always wait. 64 MiB. Over it
    /// [`LinkSender::send`](crate::LinkSender::send) fails.
    pub link_queue_bytes_max: usize,
    /// How many peers a server has at once. 256. Who comes then is refused.
    pub peers_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            frame_bytes_max: (64 << 20) + (64 << 10),
            peer_queue_bytes_max: 64 << 20,
            link_queue_bytes_max: 64 << 20,
            peers_max: 256,
        }
    }
}

impl Bounds {
    /// How long a frame may be that a length of four bytes can say.
    pub(crate) fn frame_limit(&self) -> usize {
        self.frame_bytes_max.min(u32::MAX as usize)
    }

    /// Where so much waits for a peer, what it sends waits, too: it asks for more than it reads.
    pub(crate) fn paused_from(&self) -> usize {
        self.peer_queue_bytes_max / 4
    }
}

/// How much is read from a socket, or written to it, in one turn: so that one that floods takes no more than its part.
pub(crate) const TURN_BYTES_MAX: usize = 256 << 10;

/// What a buffer may keep of its memory when it is empty.
pub(crate) const KEPT_BYTES_MAX: usize = 1 << 20;
