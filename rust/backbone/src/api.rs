//! What a link is told, what it tells, and why it may refuse.
use std::time::Duration;

use fanwire_core::Position;
use fanwire_core::node::Record;

/// What a link tells its hearer, in its own thread: nothing else happens there until the hearer returns.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Connected. [`Event::Wanted`] comes again for each channel that is wanted.
    Up,
    /// Not connected, and why. It is tried again; this comes once more where the reason becomes another. Nothing is heard
    /// until [`Event::Up`].
    Down(String),
    /// A publication in a channel that is wanted, in order. It may be one that [`Event::Wanted`] or [`Event::Since`] covers,
    /// and it may come before them.
    Record {
        /// Where.
        channel: Box<str>,
        /// It.
        record: Record,
    },
    /// What became of [`Link::publish`](crate::Link::publish). It comes once for each ticket.
    Published {
        /// Which.
        ticket: u64,
        /// Where it stands; with an idempotency key that was used before, where the first one stands.
        result: Result<Position, Refused>,
    },
    /// The channel is subscribed: what comes after `top` comes as [`Event::Record`].
    Wanted {
        /// Which.
        channel: Box<str>,
        /// The newest publication; epoch 0 where nothing was published.
        top: Position,
    },
    /// The answer to [`Link::since`](crate::Link::since).
    Since {
        /// Of which channel.
        channel: Box<str>,
        /// What was asked.
        after: Position,
        /// What follows, the oldest first. In another epoch than `after`, or without its beginning, it is what there is.
        records: Vec<Record>,
        /// The newest publication. Where the last of `records` is before it, ask again after that one.
        top: Position,
        /// Whether nothing is missing between `after` and the first of `records`, or `top` if there are none.
        is_whole: bool,
    },
    /// [`Link::since`](crate::Link::since) has no answer, since the link was or went down, or the server refused.
    SinceFailed {
        /// Of which channel.
        channel: Box<str>,
        /// What was asked.
        after: Position,
        /// Why.
        refused: Refused,
    },
    /// The server refused to subscribe: nothing comes of this channel until it is wanted anew.
    Unheard {
        /// Which.
        channel: Box<str>,
        /// The server's words.
        reason: String,
    },
    /// No snapshot of a channel comes: see [`Link::snapshot`](crate::Link::snapshot).
    NoSnapshot {
        /// Which.
        channel: Box<str>,
        /// Why not.
        reason: String,
    },
    /// A machine tells this: see [`Link::tell`](crate::Link::tell).
    Told(Vec<u8>),
    /// Something could not be told, since the server refuses. Told once a second at most.
    Untold {
        /// The server's words.
        reason: String,
        /// How many there were since the link began.
        count: u64,
    },
    /// Somebody else publishes other things in our channels. They are skipped; told once a second at most.
    Foreign {
        /// Where the last of them was.
        channel: Box<str>,
        /// What is wrong with it.
        reason: &'static str,
        /// How many there were since the link began.
        count: u64,
    },
}

/// Why a publication has no position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// There is no connection: it was not published.
    #[error("the backbone is down: {0}")]
    Down(String),
    /// The connection broke while it was under way: nobody knows whether it was published. With an idempotency key it can
    /// be published again.
    #[error("the backbone went down, and whether it was published is not known: {0}")]
    Unknown(String),
    /// The server has no memory left (`maxmemory`): it was not published.
    #[error("the backbone's server has no memory left: {0}")]
    OutOfMemory(String),
    /// The server refused for another reason, in its words: it was not published.
    #[error("the backbone's server refused: {0}")]
    Server(String),
}

/// A call that was refused at once: nothing of it was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Full {
    /// Too many bytes wait for the server.
    #[error("{waiting} bytes wait for the backbone, and {bytes_max} may")]
    Bytes {
        /// So many wait.
        waiting: usize,
        /// So many may.
        bytes_max: usize,
    },
    /// Too many calls wait for the server.
    #[error("{waiting} calls wait for the backbone, which is the most")]
    Count {
        /// So many wait.
        waiting: usize,
    },
    /// A publication is too large.
    #[error("a publication of {bytes} bytes: the backbone takes {bytes_max} at most")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
}

/// How a link behaves. All links to one server that share a prefix need the same prefix and partitions.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the names of all keys and channels at the server begin with. `fanwire`. No braces.
    pub prefix: String,
    /// Over how many hash tags channels are spread in a cluster. 128; 1 to 16,384. Elsewhere it is of no effect.
    pub partitions: u16,
    /// For how long an unused channel's epoch and offset stay, in milliseconds. 7 days. Later it begins a new epoch.
    pub unused_ms: u64,
    /// For how long an idempotency key is remembered, in milliseconds. 5 minutes.
    pub idempotency_ms: u64,
    /// How often both connections are pinged. A second.
    pub ping_every: Duration,
    /// A connection of which nothing is heard for so long is given up. 3 seconds. It bounds a connect, too.
    pub silent_max: Duration,
    /// How many bytes may wait. 64 MiB.
    pub waiting_bytes_max: usize,
    /// How many publications and questions may wait. 262,144.
    pub waiting_max: usize,
    /// How long a publication may be, in bytes. 16 MiB; the server's `proto-max-bulk-len` bounds it, too.
    pub record_bytes_max: usize,
    /// The number of this machine, which hears what others tell it or all. Without one nothing is told to it.
    pub machine: Option<u64>,
    /// Whether this machine's clients may want objects as MessagePack: of an origin they come so, too.
    pub speaks_msgpack: bool,
    /// Certificates of authorities in PEM, in place of the system's, for `rediss://`.
    pub roots_pem: Option<Vec<u8>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            prefix: "fanwire".to_owned(),
            partitions: 128,
            unused_ms: 7 * 24 * 60 * 60 * 1_000,
            idempotency_ms: 5 * 60 * 1_000,
            ping_every: Duration::from_secs(1),
            silent_max: Duration::from_secs(3),
            waiting_bytes_max: 64 << 20,
            waiting_max: 1 << 18,
            record_bytes_max: 16 << 20,
            machine: None,
            speaks_msgpack: true,
            roots_pem: None,
        }
    }
}

/// Why a link cannot even begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A URL that nobody can connect to. It is not shown, as it may hold a password.
    #[error("the backbone's URL: {0}")]
    Url(&'static str),
    /// An option that cannot be.
    #[error("the backbone's {option} is {value}: {expected}")]
    Option {
        /// Which.
        option: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// Certificates that cannot be used.
    #[error("the backbone's certificates: {0}")]
    Roots(String),
    /// No thread.
    #[error("no thread for the backbone: {0}")]
    Thread(std::io::Error),
}
