//! Messages of WebSockets: frames in, requests of the raw protocol and what they lead to out.
use crate::channel::{Filter, Start, View};
use crate::messages::{Event, Wanted, Whose};
use crate::position::Position;
use crate::protocol::raw::Since;
use crate::protocol::{Request, parse_request, raw, write_reply_error};
use crate::routes::Asks;
use crate::ws::{CloseCode, Opcode, ReceiveError, Received, Receiver, receive_alone, write_header};

/// To a client whose message is no request, where the application takes no messages.
const NOBODY_TAKES_IT: &str = concat!(
    r#"this is no request: {"subscribe":["NAME"]} watches channels, {"unsubscribe":["NAME"]} ends that, "#,
    r#"{"call":"METHOD","args":[],"id":1} calls a method"#
);

/// What a session is told of its connection with each message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) whose: Whose,
    /// What the owner of its path is asked.
    pub(crate) asks: Asks,
    pub(crate) message_bytes_max: usize,
    /// Its messages may be compressed, each by itself.
    pub(crate) inflates: bool,
}

/// What a message leads to, once its bytes are no longer borrowed.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Something stands in the outbox.
    Answered,
    /// These channels are to be watched, from there on; the id is JSON text.
    Subscribe(Vec<String>, Option<String>, Wanted),
    /// These no more.
    Unsubscribe(Vec<String>, Option<String>),
    /// One more for the application to deal with.
    Event(Event),
    /// Bytes of a hub protocol.
    Payload(Vec<u8>),
    /// The peer's Close frame.
    Close(Option<CloseCode>, String),
    /// The peer broke a rule.
    Broken(ReceiveError),
}

/// A WebSocket.
#[derive(Debug, Default)]
pub(super) struct WebSocket {
    pub(super) receiver: Receiver,
    /// It was told that the application takes no messages.
    is_hinted: bool,
}

impl WebSocket {
    /// Takes up to one message of the raw protocol.
    pub(super) fn handle_frames(
        &mut self,
        bytes: &mut [u8],
        terms: Terms,
        out: &mut Vec<u8>,
    ) -> (usize, Option<Heard>) {
        let is_hinted = &mut self.is_hinted;
        receive(&mut self.receiver, (bytes, terms), out, |message, out| match message {
            Message::Text(text) => understand(text, terms, is_hinted, out),
            Message::Binary(_) if !terms.asks.messages => hint(is_hinted, out),
            Message::Binary(bytes) => Some(Heard::Event(Event::Binary(terms.whose, bytes.to_vec()))),
        })
    }

    /// Takes up to one message that is passed on as it is.
    pub(super) fn handle_passed_on(
        &mut self,
        bytes: &mut [u8],
        terms: Terms,
        out: &mut Vec<u8>,
    ) -> (usize, Option<Heard>) {
        receive(&mut self.receiver, (bytes, terms), out, |message, _| {
            let is_text = matches!(message, Message::Text(_));
            Some(Heard::Event(Event::Relayed(terms.whose, is_text, message.bytes().to_vec())))
        })
    }
}

/// A message of a WebSocket.
pub(super) enum Message<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
}

impl Message<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }
}

/// Takes up to one whole message, of which `understand` says what it means; gives how many bytes were taken.
pub(super) fn receive(
    receiver: &mut Receiver,
    (bytes, terms): (&mut [u8], Terms),
    out: &mut Vec<u8>,
    understand: impl FnOnce(Message<'_>, &mut Vec<u8>) -> Option<Heard>,
) -> (usize, Option<Heard>) {
    let (count, mut inflated) = (bytes.len(), Vec::new());
    let received = match terms.inflates {
        true => receive_alone(receiver, bytes, terms.message_bytes_max, &mut inflated),
        false => receiver.receive(bytes, terms.message_bytes_max),
    };
    let (taken, heard) = match received {
        Err(error) => {
            *receiver = Receiver::new();
            return (count, Some(Heard::Broken(error)));
        }
        Ok((taken, None)) => (taken, None),
        Ok((taken, Some(received))) => (
            taken,
            match received {
                Received::Text(text) => understand(Message::Text(text), out),
                Received::Binary(bytes) => understand(Message::Binary(bytes), out),
                Received::Ping(payload) => {
                    write_header(out, Opcode::Pong, payload.len());
                    out.extend_from_slice(payload);
                    Some(Heard::Answered)
                }
                Received::Pong(_) => None,
                Received::Close { code, reason } => Some(Heard::Close(code, reason.to_owned())),
            },
        ),
    };
    receiver.give_back();
    (taken, heard)
}

/// What a text of the raw protocol means.
fn understand(text: &str, terms: Terms, is_hinted: &mut bool, out: &mut Vec<u8>) -> Option<Heard> {
    let Terms { whose, asks, .. } = terms;
    let owned = |id: Option<&str>| id.map(str::to_owned);
    match parse_request(text) {
        Ok(Request::Subscribe { channels, since, start, filter, id }) => {
            let names = channels.into_iter().map(|name| name.into_owned()).collect();
            let wanted = match wanted_of(since, start.as_deref(), filter) {
                Ok(wanted) => wanted,
                Err(error) => return reply_error(out, id, &error),
            };
            if asks.subscribing {
                return Some(Heard::Event(Event::Subscribing(whose, names, owned(id), wanted)));
            }
            Some(Heard::Subscribe(names, owned(id), wanted))
        }
        Ok(Request::Unsubscribe { channels, id }) => {
            Some(Heard::Unsubscribe(channels.into_iter().map(|name| name.into_owned()).collect(), owned(id)))
        }
        Ok(Request::Call { target, arguments, id }) => {
            Some(Heard::Event(Event::Call(whose, target.into_owned(), arguments.to_owned(), owned(id))))
        }
        Ok(Request::Other) if !asks.messages => hint(is_hinted, out),
        Ok(Request::Other) => Some(Heard::Event(Event::Text(whose, text.to_owned()))),
        Err(error) => reply_error(out, error.id.as_deref(), &error.to_string()),
    }
}

/// A message that nobody takes: the first time its sender is told what it may send.
fn hint(is_hinted: &mut bool, out: &mut Vec<u8>) -> Option<Heard> {
    if std::mem::replace(is_hinted, true) {
        return None;
    }
    reply_error(out, None, NOBODY_TAKES_IT)
}

fn reply_error(out: &mut Vec<u8>, id: Option<&str>, error: &str) -> Option<Heard> {
    let mut reply = Vec::new();
    write_reply_error(&mut reply, id, error);
    raw::write_text(out, &reply);
    Some(Heard::Answered)
}

/// Where a request wants its subscriptions to begin, and what they are to get.
fn wanted_of(since: Option<Vec<Since<'_>>>, start: Option<&str>, filter: Option<&str>) -> Result<Wanted, String> {
    let start = start.map(|start| Start::from_name(start).ok_or_else(|| no_start(start))).transpose()?;
    let is_told = since.is_some();
    let named = |one: Since<'_>| {
        let Since { channel, epoch, offset } = one;
        (Some(channel.into()), Position { epoch, offset })
    };
    let filter = filter.map(Filter::parse).transpose().map_err(|error| error.to_string())?.flatten();
    let since = since.into_iter().flatten().map(named).collect();
    Ok(Wanted { start, since, is_told, view: View { filter }, since_ns: 0 })
}

/// What a client is told that wants to begin nowhere.
pub(crate) fn no_start(start: &str) -> String {
    format!("start {start:?}: there are live, keyframe and history")
}
