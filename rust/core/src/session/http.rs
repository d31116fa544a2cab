//! Requests, one after another on one socket: a head, what the application is asked, bodies and polls of SignalR.
use super::decisions::{Due, Held, Reads};
use crate::http::{Body, Piece, RequestError};
use crate::messages::{ConnectionId, Header, Request, Wanted};
use crate::protocol::signalr::negotiate::{NegotiateRequest, Transport};
use crate::tokens::Token;
use crate::ws::{DeflateAgreement, Upgrade};

/// How far a request is.
#[derive(Debug)]
pub(super) enum Http {
    /// What has come of a head.
    Head(Vec<u8>),
    /// The application has to answer it.
    Asked(Box<Asked>),
    /// A body comes that the owner of the path wants.
    Coming(Box<Incoming>),
    /// The body of a request for a SignalR connection comes.
    Posting(Box<Carrier>),
    /// A poll waits for messages of a SignalR connection.
    Polling(Box<Carrier>),
    /// Another worker answers it.
    Away(Box<Away>),
}

impl Default for Http {
    fn default() -> Self {
        Self::Head(Vec::new())
    }
}

/// A request that the application has to answer.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// For a WebSocket: how to accept it, and with which subprotocol.
    pub(crate) upgrade: Option<(Upgrade, Option<Box<str>>)>,
    /// What its messages are compressed with, if its client may have that.
    pub(crate) deflate: Option<DeflateAgreement>,
    /// Not an opening: only a response answers it.
    pub(crate) is_plain: bool,
    pub(crate) is_head: bool,
    /// Of a SignalR request: whether its socket is for the next one, too.
    pub(crate) keeps_alive: bool,
    /// Of a SignalR request: what it asks for.
    pub(crate) signalr: Option<SignalROpening>,
    /// Where its subscriptions begin.
    pub(crate) wanted: Wanted,
    /// It has waited for what other workers have of its channels.
    pub(crate) has_waited: bool,
    /// When it had come; of an opening.
    pub(crate) since_ns: u64,
    /// What the application adds to the response.
    pub(crate) headers: Vec<Header>,
    /// Of an event stream or SignalR request: the origin whose pages may read it, or `*`.
    pub(crate) readable_by: Option<Box<str>>,
}

/// What a request that opens something of SignalR asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SignalROpening {
    /// A token.
    Negotiate(NegotiateRequest),
    /// A transport, with the token of a negotiate or, on a WebSocket, without.
    Connect(Transport, Option<Token>),
    /// A connection that will be polled, begun by a post with this body; whether the client waits for word to send it.
    Post(Token, Body, bool),
}

/// A request for a SignalR connection that exists: a post carries its messages in, a poll carries them out.
#[derive(Debug)]
pub(crate) struct Carrier {
    /// Which connection it is for.
    pub(crate) to: ConnectionId,
    /// What has not come of the body.
    pub(crate) body: Body,
    /// The client waits for word to send it.
    pub(crate) expects_continue: bool,
    pub(crate) keeps_alive: bool,
    /// The origin whose pages may read the answer.
    pub(crate) readable_by: Option<Box<str>>,
}

/// A request that another worker answers: it has the connection that this is for.
#[derive(Debug)]
pub(crate) struct Away {
    /// What has come of it and was not passed on.
    pub(crate) bytes: Vec<u8>,
    /// Until its begin is passed on: whose connection it is for, and the number of its route.
    pub(crate) begins: Option<(Token, u64)>,
    /// What has not come of its body.
    pub(crate) body: Body,
    /// What was passed on of its body has not been taken: no more of it is read.
    pub(crate) is_awaited: bool,
    /// It waits for messages of the connection.
    pub(crate) is_poll: bool,
    /// The origin whose pages may read an error.
    pub(crate) readable_by: Option<Box<str>>,
}

impl Away {
    /// Takes some of the body, up to its end; how many bytes that are.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, RequestError> {
        let Piece { framing, content } = self.body.next(bytes)?;
        self.body.take(content);
        self.bytes.extend_from_slice(&bytes[..framing + content]);
        Ok(framing + content)
    }
}

/// A request whose body has not come whole: its owner is asked when it has.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) request: Box<Request>,
    /// What the connection waits for then.
    pub(crate) asked: Asked,
    /// What has not come of the body.
    pub(crate) body: Body,
    /// What has.
    pub(crate) content: Vec<u8>,
}

impl Incoming {
    /// Takes some of the body, up to its end; how many bytes that are.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, RequestError> {
        let Piece { framing, content } = self.body.next(bytes)?;
        self.content.extend_from_slice(&bytes[framing..framing + content]);
        self.body.take(content);
        Ok(framing + content)
    }
}

impl Asked {
    /// Whether a whole answer is all that the client waits for, and no connection that lives on.
    pub(super) fn is_for_an_answer(&self) -> bool {
        let answers = |one: &SignalROpening| matches!(one, SignalROpening::Negotiate(..) | SignalROpening::Post(..));
        self.is_plain || self.signalr.as_ref().is_some_and(answers)
    }
}

impl Http {
    pub(super) fn reads(&self) -> Reads {
        match self {
            Self::Head(_) => Reads::Head,
            Self::Coming(_) => Reads::Wanted,
            Self::Posting(_) => Reads::Body,
            Self::Away(away) if !away.is_awaited && !away.body.is_done() => Reads::PassedOn,
            Self::Asked(_) | Self::Polling(_) | Self::Away(_) => Reads::Later,
        }
    }

    pub(super) fn due(&self, held: Held) -> Due {
        match self {
            Self::Head(partial) if partial.is_empty() && !held.is_unread => Due::Drop, // idle between requests
            Self::Head(_) | Self::Asked(_) | Self::Coming(_) | Self::Posting(_) | Self::Away(_) => Due::Refuse,
            Self::Polling(_) => Due::EmptyPoll,
        }
    }

    pub(super) fn take_partial(&mut self) -> Vec<u8> {
        match self {
            Self::Head(partial) => std::mem::take(partial),
            _ => Vec::new(),
        }
    }

    pub(super) fn take_asked(&mut self, answers_plainly: bool) -> Option<Asked> {
        match std::mem::take(self) {
            Self::Asked(asked) if answers_plainly || !asked.is_plain => Some(*asked),
            other => {
                *self = other;
                None
            }
        }
    }

    pub(super) fn take_carrier(&mut self, is_poll: bool) -> Option<Carrier> {
        match (std::mem::take(self), is_poll) {
            (Self::Posting(carrier), false) | (Self::Polling(carrier), true) => Some(*carrier),
            (other, _) => {
                *self = other;
                None
            }
        }
    }
}
