//! What the engine's own calls can refuse. Every other enum of errors lives with its module.
use std::borrow::Cow;
use std::io;

use thiserror::Error;

/// What the system says to `accept`, `socket` and `connect` where this machine has no more of something.
pub const EXHAUSTED: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];

/// Why a call to the engine did nothing.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum EngineError {
    /// A position whose publication has not been made.
    #[error("position {position}: nothing was published there yet")]
    NoSuchPosition {
        /// Which.
        position: crate::position::Position,
    },
    /// A position from outside that no publication can have.
    #[error("position {position}: {why}")]
    InvalidPosition {
        /// Which.
        position: crate::position::Position,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// `stop` was called, or `start` was not.
    #[error("the engine is {state}")]
    NotRunning {
        /// `not started` or `stopped`.
        state: &'static str,
    },
    /// What all workers share is out of reach.
    #[error("this worker is apart from the others, as its supervisor cannot be reached: publish again when it is back")]
    Apart,
    /// A channel's name that breaks a rule.
    #[error("channel name {name:?}: {why}")]
    InvalidChannel {
        /// The name, shortened to 80 characters.
        name: String,
        /// The rule, with its bound.
        why: &'static str,
    },
    /// More bytes than the bound for one publication or private message.
    #[error("payload of {payload_bytes} bytes is over {name}, which is {bytes_max}")]
    PayloadTooBig {
        /// What was given.
        payload_bytes: usize,
        /// The bound.
        bytes_max: usize,
        /// The setting: `publication_bytes_max` or `outbox_bytes_max`.
        name: &'static str,
    },
    /// A bound on a number of things.
    #[error("{name}: {value} is over the bound of {bound}")]
    LimitReached {
        /// The setting.
        name: &'static str,
        /// How many it would come to.
        value: u64,
        /// The bound.
        bound: u64,
    },
    /// A close code that RFC 6455 §7.4 does not let an endpoint send.
    #[error("code must be {allowed}, not {code}")]
    InvalidCloseCode {
        /// What was given.
        code: u16,
        /// What may be sent, in words.
        allowed: &'static str,
    },
    /// A response header or subprotocol that the application may not set.
    #[error("header {name:?} {why}")]
    InvalidHeader {
        /// Its name as given.
        name: String,
        /// What is wrong with it.
        why: Cow<'static, str>,
    },
    /// A reason that does not fit into a Close frame (§5.5).
    #[error("close reason of {bytes} bytes is over the bound of {bytes_max}")]
    ReasonTooLong {
        /// Its length in UTF-8.
        bytes: usize,
        /// The bound: of a Close frame, or of a hub protocol's Close message.
        bytes_max: usize,
    },
    /// The system gave no random bytes for a token.
    #[error("no random bytes for a connection token: {cause}")]
    NoRandom {
        /// The system's word.
        cause: String,
    },
    /// An SSE event name that would break its record.
    #[error("event name {name:?} holds a line break")]
    InvalidEvent {
        /// The name.
        name: String,
    },
    /// A conflation key over its bound.
    #[error("key of {bytes} bytes is over the bound of {bytes_max}")]
    KeyTooLong {
        /// Its length in UTF-8.
        bytes: usize,
        /// [`KEY_BYTES_MAX`](crate::channel::KEY_BYTES_MAX).
        bytes_max: usize,
    },
    /// The program itself heard a channel, and its backlog went past it.
    #[error("channel {channel:?} promises every publication, and its backlog went past this listener")]
    Overtaken {
        /// The channel.
        channel: String,
    },
    /// A key was to be removed where none are kept.
    #[error("channel {name:?} has policy {policy:?}: only \"latest\" keeps a value for each key, which can be removed")]
    NoKeys {
        /// The channel.
        name: String,
        /// What it has.
        policy: &'static str,
    },
    /// A tag that no publication can have, or too many.
    #[error("{fault}")]
    InvalidTag {
        /// The tag, what it has, and the bound.
        fault: String,
    },
    /// A subscription of a channel that has one with another filter.
    #[error("channel {name:?} is watched with another filter: unsubscribe it first")]
    OtherFilter {
        /// The channel.
        name: String,
    },
    /// An edge, which passes on all that it gets, was to get a part.
    #[error("channel {name:?}: an edge has no filter: it may watch all of it, or nothing")]
    FilteredEdge {
        /// The channel.
        name: String,
    },
    /// A time to live that is not a positive number of seconds.
    #[error("ttl is {seconds}, must be over 0 seconds")]
    InvalidTtl {
        /// What was given.
        seconds: f64,
    },
    /// The write side of a socket could not be taken.
    #[error("descriptor {fd} cannot be adopted: {cause}")]
    CannotAdopt {
        /// Which.
        fd: std::os::fd::RawFd,
        /// The system's word.
        cause: io::Error,
    },
    /// Binding or listening failed.
    #[error("cannot listen on {address}: {cause}")]
    ListenFailed {
        /// As given.
        address: String,
        /// The system's word.
        cause: io::Error,
    },
    /// A descriptor that was handed in cannot be served.
    #[error("cannot serve descriptor {fd}: {cause}")]
    WelcomeFailed {
        /// As given; it is still the caller's.
        fd: std::os::fd::RawFd,
        /// The system's word, or what it is not.
        cause: io::Error,
    },
    /// A shard could not get its thread, poller or descriptors.
    #[error("cannot start shard {shard}: {cause}")]
    StartFailed {
        /// Its number.
        shard: usize,
        /// The system's word.
        cause: io::Error,
    },
    /// A shard's thread, or that of the connections to backends, has ended by a panic.
    #[error("thread {thread} has died: {text}")]
    ThreadDied {
        /// Its name.
        thread: String,
        /// What it panicked with.
        text: String,
    },
    /// This process is a fork of the one that started the engine; its threads are not here.
    #[error(
        "the engine was started in process {started} and is not usable in its fork {here}; make a new Hub after the fork"
    )]
    Forked {
        /// Process that started it.
        started: u32,
        /// This process.
        here: u32,
    },
}
