//! What an operator is shown of connections: a page at a time, when somebody asks. Nobody is counted for it before.
use std::sync::Arc;

use crate::channel::Channel;
use crate::connection_id::ConnectionId;
use crate::protocol::Format;

/// Which connections of a shard somebody wants to see.
#[derive(Debug, Default)]
pub struct Look {
    /// These, and else nobody; without them those from this slot on.
    pub ids: Vec<ConnectionId>,
    /// The slot.
    pub from: u32,
    /// So many at most.
    pub count_max: usize,
    /// And so many slots are looked at.
    pub looks_max: u32,
    /// Who watches this channel.
    pub channel: Option<Arc<Channel>>,
    /// Who came by this path.
    pub path: Option<Box<str>>,
    /// Who does not keep up.
    pub is_lagging: bool,
    /// Those of whom this is most, largest first, of the slots that are looked at.
    pub by: Option<By>,
}

/// What connections may be put in order by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The age of what they have not got.
    LagAge,
    /// Its bytes.
    LagBytes,
    /// What their peers' kernels have acknowledged.
    Sent,
    /// Private bytes that wait.
    Waiting,
}

impl By {
    /// By its name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "lag" => Self::LagAge,
            "lag_bytes" => Self::LagBytes,
            "sent" => Self::Sent,
            "waiting" => Self::Waiting,
            _ => return None,
        })
    }
}

/// Some of them, in the order of their slots.
#[derive(Debug, Default)]
pub struct Page {
    /// How each stands.
    pub seen: Vec<Seen>,
    /// Where it goes on; `None` at the end.
    pub next: Option<u32>,
}

/// So many names of channels are told of one connection.
pub const CHANNELS_SHOWN: usize = 16;

/// How a connection stands.
#[derive(Debug)]
pub struct Seen {
    /// Its id.
    pub id: ConnectionId,
    /// The path of its route; `None` of one that a framework has accepted.
    pub path: Option<Box<str>>,
    /// Where its client is: `host:port`, or `unix:`.
    pub peer: String,
    /// How its publications are written.
    pub format: Format,
    /// A framework reads it.
    pub is_adopted: bool,
    /// Nanoseconds since it connected, to a tenth of a second.
    pub age_ns: u64,
    /// Some of its channels that clients can name.
    pub channels: Vec<String>,
    /// How many channels it has, a user's, a hub's and lanes with them.
    pub subscriptions: usize,
    /// Private bytes that wait for its socket.
    pub waiting_bytes: u64,
    /// Messages that the application has not dealt with.
    pub pending: u16,
    /// What the kernel knows; `None` of one without a socket, or with one that is none of TCP.
    pub tcp: Option<TcpSeen>,
    /// Of one that does not keep up: its worst subscription, as far as it is looked at.
    pub lag: Option<Lag>,
}

/// What the kernel knows of a connection (`TCP_INFO`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpSeen {
    /// Bytes that the peer's kernel has acknowledged.
    pub acked_bytes: u64,
    /// Bytes that are on their way to it, about.
    pub in_flight_bytes: u64,
    /// Bytes that have not been sent.
    pub unsent_bytes: u64,
    /// Smoothed round-trip time, microseconds.
    pub rtt_us: u32,
}

impl TcpSeen {
    /// Reads `struct tcp_info` of linux/tcp.h, as far as this kernel has filled it.
    pub(crate) fn read(info: &[u8]) -> Option<Self> {
        let u32_at = |at: usize| Some(u32::from_ne_bytes(*info.get(at..)?.first_chunk()?));
        let u64_at = |at: usize| Some(u64::from_ne_bytes(*info.get(at..)?.first_chunk()?));
        let (mss, unacked) = (u32_at(16)?, u32_at(24)?);
        Some(Self {
            acked_bytes: u64_at(120)?,
            in_flight_bytes: u64::from(mss) * u64::from(unacked),
            unsent_bytes: u32_at(144)?.into(),
            rtt_us: u32_at(68)?,
        })
    }
}

/// How far a subscription is behind, and why.
#[derive(Debug)]
pub struct Lag {
    /// In this channel; `None` where only private bytes wait.
    pub channel: Option<String>,
    /// Publications, those that its policy will skip with them.
    pub publications: u64,
    /// Their bytes, and private ones.
    pub bytes: u64,
    /// How old the oldest of them is.
    pub age_ns: u64,
    /// The reason.
    pub why: Why,
}

/// Why a connection does not keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its socket is full: the client reads too slowly, or its network brings too little.
    SocketFull,
    /// It reads what it missed.
    Replaying,
    /// It was overtaken, and begins again with the next keyframe.
    AwaitsKeyframe,
    /// It has no socket now: it is between two polls, or has lost it.
    Away,
    /// It is being written to.
    Behind,
}

impl Why {
    /// As it is told.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SocketFull => "socket_full",
            Self::Replaying => "replaying",
            Self::AwaitsKeyframe => "awaits_keyframe",
            Self::Away => "away",
            Self::Behind => "behind",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_tells_less_is_not_read_beyond_what_it_has_told() {
        let mut info = [0_u8; 160];
        info[16..20].copy_from_slice(&1_000_u32.to_ne_bytes());
        info[24..28].copy_from_slice(&3_u32.to_ne_bytes());
        info[68..72].copy_from_slice(&250_u32.to_ne_bytes());
        info[120..128].copy_from_slice(&(1_u64 << 40).to_ne_bytes());
        info[144..148].copy_from_slice(&77_u32.to_ne_bytes());
        let all = TcpSeen { acked_bytes: 1 << 40, in_flight_bytes: 3_000, unsent_bytes: 77, rtt_us: 250 };
        assert_eq!(TcpSeen::read(&info), Some(all));
        assert_eq!(TcpSeen::read(&info[..148]), Some(all));
        assert!((0..148).all(|end| TcpSeen::read(&info[..end]).is_none()));
    }
}
