//! The link to NATS: core subscriptions for what is published, JetStream streams for order and what is kept.
//!
//! A publication goes to a subject that a stream takes, which gives it a sequence, keeps it and publishes it again on a
//! subject that machines subscribe. So the stream is what orders, and nobody is a consumer of it. A stream is named after
//! the moment at which it was made: that is the epoch, and the name stands in all that a stream says. One that was deleted
//! and made anew has another, and no position is given twice.
//!
//! How many publications a channel keeps is a setting of a stream: there is one for each such number, a [`Class`]. It keeps
//! one more, so that who has the one before the oldest knows that nothing is missing.
mod answering;
mod asking;
mod connection;
mod key;
mod names;
mod publishing;
mod session;
mod streams;
mod target;
mod wire;

pub(crate) use names::Names;
pub(crate) use session::{Plan, Session};
pub(crate) use target::Target;
