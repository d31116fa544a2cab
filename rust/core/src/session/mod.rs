//! What a connection speaks, without its socket: bytes and the time go in, bytes and decisions come out.
//!
//! No session knows a descriptor, a shard or a clock. The shard that has the connection asks what bytes mean now
//! ([`Session::reads`]), hands them over, and does what comes of it; when a deadline comes, it asks
//! [`Session::handle_timeout`]. Of what a session is, nobody outside this room asks: only what follows from it, by a
//! question that says so. All of it as a table; `over` is any session whose last bytes go out:
//!
//! | session | bytes | its time is up | the peer ends its half | an end from here |
//! |---|---|---|---|---|
//! | HTTP, a head | till it is whole | dropped if nothing came, else 408 | an answer that is out is waited for | over |
//! | HTTP, asked | wait | 503 | an answer is owed, to a stream none | over |
//! | HTTP, coming | the body, till it is whole | 408 | over | over |
//! | HTTP, posting | the body, in its turn | 408 | over | over |
//! | HTTP, polling | wait | answered with nothing | over | over |
//! | HTTP, away | the body, passed on | 503 | a poll: over; an answer is waited for | over |
//! | raw, plain | one message at a time | a ping, then over | over | a Close frame, closing |
//! | event stream | thrown away | a comment; if it takes nothing for long, over | over | over |
//! | SignalR | as its transport | [`SignalR::handle_timeout`] | over, or detached if stateful | as its transport |
//! | adopted | are its framework's | dropped | it is left | as [`Adopted`] has it |
//! | closing | till the peer's Close frame | dropped | over | nothing more |
//! | over | thrown away | dropped | over | nothing more |
mod adopted;
mod decisions;
mod http;
pub(crate) mod signalr;
mod websocket;

pub(crate) use adopted::{Adopted, Next, Passed};
pub(crate) use decisions::{Due, Farewell, Held, Reads, Unread};
use http::Http;
pub(crate) use http::{Asked, Away, Carrier, Incoming, SignalROpening};
pub(crate) use signalr::SignalR;
use websocket::WebSocket;
pub(crate) use websocket::{Heard, Terms, no_start};

use crate::protocol::signalr::negotiate::Transport;
use crate::ws::{Compressible, Received, Receiver};

/// What one connection speaks, and how far it is with it.
#[derive(Debug)]
pub(crate) struct Session {
    speaks: Speaks,
    stage: Stage,
    /// A ping was sent and nothing came since; of an event stream: it was found full and took nothing since.
    is_awaited: bool,
}

#[derive(Debug)]
enum Speaks {
    Http(Http),
    /// A WebSocket of the raw protocol.
    Raw(WebSocket),
    /// A WebSocket whose messages are passed on.
    Plain(WebSocket),
    EventStream,
    SignalR(Box<SignalR>),
    /// A framework reads it and frames what goes out.
    Adopted(Box<Adopted>),
}

const _: () = assert!(size_of::<Session>() <= 32, "every connection has one");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Live,
    /// Our Close frame is out, the peer's is awaited.
    Closing,
    /// Last bytes go out, then our half is shut down and what comes is thrown away until the peer ends its half.
    Over,
}

impl Default for Session {
    /// Every connection begins with a request.
    fn default() -> Self {
        Self { speaks: Speaks::Http(Http::default()), stage: Stage::Live, is_awaited: false }
    }
}

/// What follows from the table.
impl Session {
    /// What the bytes from the peer are now.
    pub(crate) fn reads(&self) -> Reads {
        match (self.stage, &self.speaks) {
            (Stage::Over, _) => Reads::Rest,
            (Stage::Closing, _) => Reads::LastFrames,
            (_, Speaks::Http(http)) => http.reads(),
            (_, Speaks::Raw(_) | Speaks::Plain(_)) => Reads::Frames,
            (_, Speaks::EventStream | Speaks::Adopted(_)) => Reads::Nothing,
            (_, Speaks::SignalR(signalr)) => match signalr.transport {
                _ if signalr.is_detached() => Reads::Nothing,
                Transport::WebSockets => Reads::Frames,
                Transport::ServerSentEvents => Reads::Nothing,
                Transport::LongPolling => Reads::Later,
            },
        }
    }

    /// A connection's time is up.
    pub(crate) fn handle_timeout(&mut self, held: Held) -> Due {
        match (self.stage, &self.speaks) {
            (Stage::Live, Speaks::SignalR(signalr)) if !signalr.is_over() => Due::SignalR,
            (Stage::Closing | Stage::Over, _) | (_, Speaks::SignalR(_) | Speaks::Adopted(_)) => Due::Drop,
            (_, Speaks::Http(http)) => http.due(held),
            // Its pong may wait among what is not read; but where nobody is any more, a write breaks the socket.
            (_, Speaks::Raw(_) | Speaks::Plain(_)) if held.is_unread => Due::Probe,
            (_, Speaks::Raw(_) | Speaks::Plain(_)) if self.is_awaited => Due::Silent,
            (_, Speaks::EventStream) if held.is_blocked && self.is_awaited => Due::Stuck,
            (_, Speaks::EventStream) if !held.is_blocked => Due::Comment,
            (_, Speaks::Raw(_) | Speaks::Plain(_)) => {
                self.is_awaited = true;
                Due::Ping
            }
            (_, Speaks::EventStream) => {
                self.is_awaited = true;
                Due::Patience
            }
        }
    }

    /// Something came: the peer lives. True where silence is counted from now on.
    pub(crate) fn handle_received(&mut self) -> bool {
        self.is_awaited = false;
        self.stage == Stage::Live && matches!(self.speaks, Speaks::Raw(_) | Speaks::Plain(_))
    }

    /// The socket took so many bytes: who reads an event stream lives.
    pub(crate) fn handle_taken(&mut self, written: usize) {
        self.is_awaited &= written == 0 || !self.is_stream();
    }

    /// The peer ended its half. True while an answer to a whole request is still to go out. Who has sent all may end
    /// its half and wait for it (RFC 9112 §9.6). Of who waits for a WebSocket, a stream or a poll, that end says that
    /// it has left.
    pub(crate) fn handle_end_of_stream(&mut self, has_unsent: bool) -> bool {
        let Speaks::Http(http) = &self.speaks else { return false };
        match (self.stage, http) {
            (Stage::Live, Http::Asked(asked)) => asked.is_for_an_answer(),
            (Stage::Live, Http::Away(away)) => !away.is_poll && away.body.is_done(),
            (Stage::Over, _) | (_, Http::Head(_)) if has_unsent => {
                self.stage = Stage::Over; // it asks for nothing more
                true
            }
            _ => false,
        }
    }

    /// An end from here begins.
    pub(crate) fn end(&mut self) -> Farewell {
        match self.stage {
            Stage::Closing => Farewell::Begun,
            Stage::Live if self.has_frames() => {
                self.stage = Stage::Closing;
                Farewell::CloseFrame
            }
            Stage::Live if self.is_polled() => {
                self.signalr_mut().expect("it is polled").requests_mut().end();
                Farewell::ByPoll
            }
            _ => {
                self.stage = Stage::Over;
                Farewell::Silent
            }
        }
    }

    /// The peer broke a rule: no more of it is read. True where a Close frame says so.
    pub(crate) fn fail(&mut self) -> bool {
        let has_frames = self.stage == Stage::Live && self.has_frames();
        self.stage = Stage::Over;
        has_frames
    }

    /// The peer's Close frame came. True when it answers ours.
    pub(crate) fn handle_close(&mut self) -> bool {
        std::mem::replace(&mut self.stage, Stage::Over) == Stage::Closing
    }

    /// Takes some of the peer's frames behind our Close. True at its Close frame; `None` where it breaks a rule.
    ///
    /// Messages among them are not looked at, and may be compressed.
    pub(crate) fn handle_last_frames(&mut self, bytes: &mut [u8], bytes_max: usize) -> Option<(usize, bool)> {
        let is_close = |received| matches!(received, Some(Compressible::Plain(Received::Close { .. })));
        let received = self.receiver_mut()?.receive_compressible(bytes, bytes_max).ok();
        received.map(|(taken, received)| (taken, is_close(received)))
    }

    /// Takes up to one whole message; what answers it at once is appended to `out`.
    pub(crate) fn handle_frames(
        &mut self,
        bytes: &mut [u8],
        terms: Terms,
        out: &mut Vec<u8>,
    ) -> (usize, Option<Heard>) {
        match &mut self.speaks {
            Speaks::Raw(raw) => raw.handle_frames(bytes, terms, out),
            Speaks::Plain(plain) => plain.handle_passed_on(bytes, terms, out),
            Speaks::SignalR(signalr) => signalr.handle_frames(bytes, terms, out),
            Speaks::Http(_) | Speaks::EventStream | Speaks::Adopted(_) => (bytes.len(), None),
        }
    }
}

/// Commands: a session becomes another one.
impl Session {
    /// A WebSocket of the raw protocol is open, or one whose messages are passed on.
    pub(crate) fn open_websocket(&mut self, passes_on: bool) {
        let websocket = WebSocket::default();
        self.speaks = if passes_on { Speaks::Plain(websocket) } else { Speaks::Raw(websocket) };
    }

    pub(crate) fn open_event_stream(&mut self) {
        self.speaks = Speaks::EventStream;
    }

    pub(crate) fn open_signalr(&mut self, signalr: SignalR) {
        self.speaks = Speaks::SignalR(Box::new(signalr));
    }

    /// A framework reads it and frames what goes out.
    pub(crate) fn adopt(&mut self, adopted: Adopted) {
        self.speaks = Speaks::Adopted(Box::new(adopted));
    }

    /// The request lies with the application.
    pub(crate) fn ask(&mut self, asked: Asked) {
        self.speaks = Speaks::Http(Http::Asked(Box::new(asked)));
    }

    /// The body of a request comes, which its owner wants.
    pub(crate) fn take_in(&mut self, incoming: Incoming) {
        self.speaks = Speaks::Http(Http::Coming(Box::new(incoming)));
    }

    /// All of the request has come: gives it.
    pub(crate) fn take_incoming(&mut self) -> Option<Incoming> {
        let http = self.http_mut().filter(|http| matches!(http, Http::Coming(_)))?;
        let Http::Coming(incoming) = std::mem::take(http) else { return None };
        Some(*incoming)
    }

    /// The application answers: gives what it was asked; a plain request only to who answers plainly.
    pub(crate) fn take_asked(&mut self, answers_plainly: bool) -> Option<Asked> {
        self.http_mut()?.take_asked(answers_plainly)
    }

    /// The body of a post comes, or a poll waits, for a SignalR connection.
    pub(crate) fn carry(&mut self, carrier: Carrier, is_poll: bool) {
        let carrier = Box::new(carrier);
        self.speaks = Speaks::Http(if is_poll { Http::Polling(carrier) } else { Http::Posting(carrier) });
    }

    /// The post has come, or the poll is answered: gives it; whether it is a poll has to be so.
    pub(crate) fn take_carrier(&mut self, is_poll: bool) -> Option<Carrier> {
        self.http_mut()?.take_carrier(is_poll)
    }

    /// Another worker answers the request.
    pub(crate) fn go_away(&mut self, away: Away) {
        self.speaks = Speaks::Http(Http::Away(Box::new(away)));
    }

    /// The request that another worker answers.
    pub(crate) fn away_mut(&mut self) -> Option<&mut Away> {
        match self.http_mut()? {
            Http::Away(away) => Some(away),
            _ => None,
        }
    }

    /// What has come of a head, to go on with.
    pub(crate) fn take_partial_head(&mut self) -> Vec<u8> {
        self.http_mut().map(Http::take_partial).unwrap_or_default()
    }

    /// A head that is not whole waits for its rest.
    pub(crate) fn keep_partial_head(&mut self, partial: Vec<u8>) {
        self.speaks = Speaks::Http(Http::Head(partial));
    }

    /// A request is answered: the next one may come, or the connection is over.
    pub(crate) fn finish_request(&mut self, keeps_alive: bool) {
        self.speaks = Speaks::Http(Http::default());
        self.stage = if keeps_alive { Stage::Live } else { Stage::Over };
    }

    /// The socket of a stateful SignalR connection is gone, and another one may come. False where it cannot.
    pub(crate) fn detach(&mut self) -> bool {
        match &mut self.speaks {
            Speaks::SignalR(signalr) if self.stage == Stage::Live => signalr.detach(),
            _ => false,
        }
    }

    fn http_mut(&mut self) -> Option<&mut Http> {
        match &mut self.speaks {
            Speaks::Http(http) if self.stage == Stage::Live => Some(http),
            _ => None,
        }
    }

    fn receiver_mut(&mut self) -> Option<&mut Receiver> {
        match &mut self.speaks {
            Speaks::Raw(websocket) | Speaks::Plain(websocket) => Some(&mut websocket.receiver),
            Speaks::SignalR(signalr) => Some(&mut signalr.receiver),
            Speaks::Http(_) | Speaks::EventStream | Speaks::Adopted(_) => None,
        }
    }
}

/// Questions.
impl Session {
    /// Whether it may get publications and private messages.
    pub(crate) fn takes_publications(&self) -> bool {
        let is_open = match &self.speaks {
            Speaks::Http(_) => false,
            Speaks::Raw(_) | Speaks::Plain(_) | Speaks::EventStream => true,
            Speaks::SignalR(signalr) => !signalr.is_over(),
            Speaks::Adopted(adopted) => adopted.takes_publications(),
        };
        is_open && self.stage == Stage::Live
    }

    /// Whether publications go to a socket of its own: not of one that is polled or detached.
    pub(crate) fn writes_publications(&self) -> bool {
        self.takes_publications() && !self.is_polled() && !self.is_detached()
    }

    /// Whether messages come to it in frames, and may be answered in them.
    pub(crate) fn is_conversing(&self) -> bool {
        self.reads() == Reads::Frames
    }

    /// Whether the last message has come whole.
    pub(crate) fn is_between_messages(&self) -> bool {
        let receiver = match &self.speaks {
            Speaks::Raw(websocket) | Speaks::Plain(websocket) => &websocket.receiver,
            Speaks::SignalR(signalr) => &signalr.receiver,
            Speaks::Http(_) | Speaks::EventStream | Speaks::Adopted(_) => return false,
        };
        self.is_conversing() && !receiver.is_mid_message()
    }

    /// Whether only requests came so far, and none is over: nobody is told of its end.
    pub(crate) fn is_requesting(&self) -> bool {
        self.stage == Stage::Live && !self.is_opened()
    }

    /// Whether it is or was a WebSocket, an event stream or a SignalR connection.
    pub(crate) fn is_opened(&self) -> bool {
        !matches!(self.speaks, Speaks::Http(_))
    }

    /// Whether its last bytes go out.
    pub(crate) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Whether it is written to by polls: it has no socket of its own.
    pub(crate) fn is_polled(&self) -> bool {
        let is_polled = |one: &SignalR| one.transport == Transport::LongPolling;
        self.stage == Stage::Live && self.signalr().is_some_and(is_polled)
    }

    /// Whether its socket is gone and another one may come.
    pub(crate) fn is_detached(&self) -> bool {
        self.stage == Stage::Live && self.signalr().is_some_and(SignalR::is_detached)
    }

    /// Whether it waits for a WebSocket, a stream or a poll: the end of the peer's half says that it has left.
    pub(crate) fn waits_for_a_stream(&self) -> bool {
        match &self.speaks {
            Speaks::Http(Http::Asked(asked)) => self.stage == Stage::Live && !asked.is_for_an_answer(),
            Speaks::Http(Http::Polling(_)) => self.stage == Stage::Live,
            Speaks::Http(Http::Away(away)) => self.stage == Stage::Live && away.is_poll,
            _ => false,
        }
    }

    /// Whether messages that have come, or that wait to be answered, are in the way of new ones.
    pub(crate) fn has_backlog(&self) -> bool {
        self.signalr().is_some_and(SignalR::has_backlog)
    }

    pub(crate) fn signalr(&self) -> Option<&SignalR> {
        match &self.speaks {
            Speaks::SignalR(signalr) => Some(signalr),
            _ => None,
        }
    }

    pub(crate) fn signalr_mut(&mut self) -> Option<&mut SignalR> {
        match &mut self.speaks {
            Speaks::SignalR(signalr) => Some(signalr),
            _ => None,
        }
    }

    /// Of one that is adopted: what it has to write.
    pub(crate) fn adopted(&self) -> Option<&Adopted> {
        match &self.speaks {
            Speaks::Adopted(adopted) => Some(adopted),
            _ => None,
        }
    }

    pub(crate) fn adopted_mut(&mut self) -> Option<&mut Adopted> {
        match &mut self.speaks {
            Speaks::Adopted(adopted) => Some(adopted),
            _ => None,
        }
    }

    /// Whether what comes from the peer is for the engine.
    pub(crate) fn is_read(&self) -> bool {
        !matches!(self.speaks, Speaks::Adopted(_))
    }

    /// The request that another worker answers.
    pub(crate) fn away(&self) -> Option<&Away> {
        match &self.speaks {
            Speaks::Http(Http::Away(away)) => Some(away),
            _ => None,
        }
    }

    /// What the application is asked.
    pub(crate) fn asked(&self) -> Option<&Asked> {
        match &self.speaks {
            Speaks::Http(Http::Asked(asked)) => Some(asked),
            _ => None,
        }
    }

    /// The request whose body comes.
    pub(crate) fn incoming(&self) -> Option<&Incoming> {
        match &self.speaks {
            Speaks::Http(Http::Coming(incoming)) => Some(incoming),
            _ => None,
        }
    }

    /// The same, to take some of it.
    pub(crate) fn incoming_mut(&mut self) -> Option<&mut Incoming> {
        match &mut self.speaks {
            Speaks::Http(Http::Coming(incoming)) => Some(incoming),
            _ => None,
        }
    }

    /// The post whose body comes.
    pub(crate) fn post(&self) -> Option<&Carrier> {
        match &self.speaks {
            Speaks::Http(Http::Posting(carrier)) => Some(carrier),
            _ => None,
        }
    }

    /// The same, to take some of it.
    pub(crate) fn post_mut(&mut self) -> Option<&mut Carrier> {
        match &mut self.speaks {
            Speaks::Http(Http::Posting(carrier)) => Some(carrier),
            _ => None,
        }
    }

    /// The poll that waits for messages.
    pub(crate) fn poll(&self) -> Option<&Carrier> {
        match &self.speaks {
            Speaks::Http(Http::Polling(carrier)) => Some(carrier),
            _ => None,
        }
    }

    /// Whether what goes out is an event stream.
    fn is_stream(&self) -> bool {
        match &self.speaks {
            Speaks::EventStream => self.stage == Stage::Live,
            Speaks::SignalR(signalr) => self.stage == Stage::Live && signalr.transport == Transport::ServerSentEvents,
            _ => false,
        }
    }

    /// Whether WebSocket frames go both ways.
    fn has_frames(&self) -> bool {
        match &self.speaks {
            Speaks::Raw(_) | Speaks::Plain(_) => true,
            Speaks::SignalR(signalr) => signalr.transport == Transport::WebSockets && !signalr.is_detached(),
            Speaks::Http(_) | Speaks::EventStream | Speaks::Adopted(_) => false,
        }
    }
}

#[cfg(test)]
mod tests;
