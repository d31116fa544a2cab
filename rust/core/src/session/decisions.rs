//! What a session tells the shard that has its connection, and what both keep for later.

/// What the bytes from the peer are now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// A request's head.
    Head,
    /// The body of a post.
    Body,
    /// The body of a request, which the owner of its path wants.
    Wanted,
    /// The body of a request that was passed on to another worker.
    PassedOn,
    /// WebSocket frames.
    Frames,
    /// WebSocket frames, of which only the peer's Close matters.
    LastFrames,
    /// Nothing: the peer has no business to send, or sends it again on another socket.
    Nothing,
    /// What comes behind the end: thrown away, within a bound.
    Rest,
    /// What is looked at later: the next request waits until this one is answered.
    Later,
}

/// How an end from here begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// With a Close frame, which the caller writes; the peer's is awaited.
    CloseFrame,
    /// It has begun before.
    Begun,
    /// By the poll that waits, or the next one: the session lives on until then.
    ByPoll,
    /// Without a word.
    Silent,
}

/// What is to be done now that a connection's time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The connection is forgotten.
    Drop,
    /// The request that is not whole, or that the application has not answered, is refused.
    Refuse,
    /// The poll is answered with nothing.
    EmptyPoll,
    /// A ping, if the socket takes one; the next look after the interval between pings.
    Probe,
    /// A ping, and its answer within its timeout.
    Ping,
    /// There was no answer to the ping.
    Silent,
    /// An event stream takes nothing: it has until the timeout of pings.
    Patience,
    /// It took nothing in that time.
    Stuck,
    /// A comment, so that nobody on the way takes the stream for dead.
    Comment,
    /// As SignalR has it.
    SignalR,
}

/// How a transport is when its session's time is up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    /// Received bytes wait to be looked at.
    pub(crate) is_unread: bool,
    /// The socket is full.
    pub(crate) is_blocked: bool,
}

/// Bytes that wait to be looked at: behind a pointer of one word, as most connections have none.
#[derive(Debug)]
pub(crate) struct Unread(pub(crate) Box<[u8]>);
