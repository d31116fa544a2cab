//! SignalR connections: a hub protocol over a WebSocket, over an event stream with posts, or over polls with posts.
//!
//! A connection is one entry of the slab on each transport, and has its subscriptions, outbox and pending messages like
//! any other. What is SignalR's own stands in its session, [`SignalR`](crate::session::SignalR). Its token finds it for requests on other sockets; a request
//! that comes to another shard is handed over, socket and all. `opening` has negotiates and transports, `requests` posts
//! and polls, `inbound` its messages, `offered` first calls that it answers itself, `stateful` connections that change sockets, `upkeep` pings, deadlines and
//! ends, `expected` the clients' pings. Where there are other workers, `elsewhere` has requests for connections of theirs,
//! and `visiting` theirs for connections here.
mod elsewhere;
mod expected;
mod inbound;
mod offered;
mod opening;
mod requests;
mod stateful;
mod upkeep;
mod visiting;
