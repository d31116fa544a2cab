//! The relay's connections to a backend, SignalR's or a plain WebSocket's: dialled, kept alive and read at line rate, on one thread of their own.
//!
//! [`Upstreams`] is the whole of it. Each [`open`](Upstreams::open) is a session: a WebSocket to one of a hub's URLs,
//! negotiated if it is to be, with the hub's handshake done. What comes goes where its [`Route`] says, through the
//! [`Sink`] that the caller gave, as the bytes that came. What goes out waits in a queue of the session's own. Each
//! [`open_plain`](Upstreams::open_plain) is a session without a hub: whole messages, as they are, both ways.
//!
//! The thread `fanwire-upstream` has a tokio runtime, which no other part of fanwire has: it never takes part in the
//! fan-out and never touches Python. A session's slow outbound never stops its reading. No error says a query, a
//! header's value or a token: it names scheme, host, port and path only.
mod api;
mod connect;
mod inbox;
mod negotiate;
mod opening;
mod outbox;
mod pending;
mod request;
mod roots;
mod session;
mod shared;
mod target;
mod thread;
mod upgrade;

pub use api::{
    CloseFrame, CompletionKind, Fault, Negotiation, Newest, Open, OpenPlain, PlainRoute, Route, Said, Sink, Stats,
    UpstreamEvent,
};
pub use connect::FAILING;
pub use outbox::QUEUE_SLACK_BYTES;
pub use pending::PENDING_BYTES_MAX;
pub use roots::{Roots, RootsError};
pub use thread::{SESSIONS_MAX, Upstreams};
