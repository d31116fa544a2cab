//! What comes from a server and goes where its route says: a hub's records, or whole messages of a plain WebSocket.
use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};

use bytes::Bytes;
use fanwire_core::Message;
use fanwire_core::protocol::signalr::{
    HubMessage, HubProtocol, MessageError, Outcome, RecordError, RecordReceiver, parse_message, write_message,
};

use crate::api::{CompletionKind, Newest, PlainRoute, Route, Said, Sink, UpstreamEvent};
use crate::pending::OutgoingError;
use crate::shared::Ending;

/// What the reference's clients answer when they have no handler.
const NO_RESULT: &str = "Client didn't provide a result.";

/// How many answers may wait before the session ends: a server that asks without reading.
const REPLIES_BYTES_MAX: usize = 64 * 1024;

/// What a record costs of a turn beside its bytes: one without any costs time, too.
const RECORD_BYTES: usize = 128;

/// How many unnamed targets are reported.
const UNNAMED_MAX: u16 = 1024;

/// How many targets that a lane's route does not name are reported.
const CAME_MAX: u16 = 16;

/// Why a session can't go on after what came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InboundError {
    #[error("{0}")]
    Record(#[from] RecordError),
    #[error("{0}")]
    Message(#[from] MessageError),
    #[error("answers to the server take {bytes} bytes, at most {bytes_max} wait")]
    Replies { bytes: usize, bytes_max: usize },
    #[error("{0}")]
    Pending(#[from] OutgoingError),
}

/// The inbound side of one session.
pub(crate) struct Inbox {
    protocol: HubProtocol,
    record_bytes_max: usize,
    receiver: RecordReceiver,
    /// What is left of the newest frame: the next turn's.
    unread: Bytes,
    /// What came of a record that is not whole, with separator or length: what is passed on is what came.
    cut: Vec<u8>,
    desk: Desk,
}

/// Where records go, and what waits there for the end of one read.
struct Desk {
    route: Route,
    protocol: HubProtocol,
    /// Whole records that go to the route's place in one call.
    records: Vec<Bytes>,
    /// Which of them are snapshots.
    keyframes: Vec<usize>,
    /// Hashes of the targets that were reported, and how many came of those that go to all.
    targets: HashMap<u64, u32>,
    /// How many of those the route does not name.
    others: u16,
    /// What greets clients, by its target.
    welcomes: HashMap<String, Newest>,
    /// Answers of ours to the server.
    replies: Vec<u8>,
}

impl Inbox {
    /// Behind a handshake.
    pub(crate) fn new(route: Route, protocol: HubProtocol, receiver: RecordReceiver, record_bytes_max: usize) -> Self {
        let desk = Desk {
            route,
            protocol,
            records: Vec::new(),
            keyframes: Vec::new(),
            targets: HashMap::new(),
            others: 0,
            welcomes: HashMap::new(),
            replies: Vec::new(),
        };
        Self { protocol, record_bytes_max, receiver, unread: Bytes::new(), cut: Vec::new(), desk }
    }

    /// Takes a frame, behind the one before it: [`go_on`](Self::go_on) reads it.
    pub(crate) fn take(&mut self, frame: Bytes) {
        debug_assert!(self.unread.is_empty(), "the one before it is read first");
        self.unread = frame;
    }

    /// Whether the newest frame is not read to its end.
    pub(crate) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Reads records of the frame for so many bytes, which it takes off: none costs nothing. What is left is for another
    /// turn, so that a frame of many records holds no other session up. Gives what the server's Close said, behind which
    /// nothing counts.
    pub(crate) fn go_on(&mut self, bytes_left: &mut usize, ending: &mut Ending) -> Result<Option<Said>, InboundError> {
        while !self.unread.is_empty() && *bytes_left > 0 {
            let frame = self.unread.clone();
            let (taken, record) = self.receiver.receive(&frame, self.record_bytes_max)?;
            *bytes_left = bytes_left.saturating_sub(taken + RECORD_BYTES);
            let bytes = self.unread.split_to(taken);
            let Some(record) = record else {
                self.cut.extend_from_slice(&bytes);
                continue;
            };
            let message = parse_message(self.protocol, record)?;
            let whole = if self.cut.is_empty() {
                bytes
            } else {
                self.cut.extend_from_slice(&bytes);
                std::mem::take(&mut self.cut).into()
            };
            ending.shared.counters.count_record();
            if let HubMessage::Close { error, allow_reconnect } = message {
                return Ok(Some(Said { error: error.map(String::from), allow_reconnect }));
            }
            self.desk.take(message, whole, ending)?;
        }
        if self.unread.is_empty() {
            self.receiver.give_back();
        }
        Ok(None)
    }

    /// Passes on what this read brought.
    pub(crate) fn flush(&mut self, ending: &Ending) {
        self.desk.flush(&*ending.shared.sink);
    }

    /// Methods of whose calls the end is reported though they are a client's.
    pub(crate) fn reported(&self) -> Option<&HashSet<String>> {
        match &self.desk.route {
            Route::Private { reported, .. } => Some(reported),
            _ => None,
        }
    }

    /// Answers of ours that wait.
    pub(crate) fn take_replies(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.desk.replies)
    }

    /// Whether any wait.
    pub(crate) fn has_replies(&self) -> bool {
        !self.desk.replies.is_empty()
    }
}

impl Desk {
    fn take(&mut self, message: HubMessage<'_>, whole: Bytes, ending: &mut Ending) -> Result<(), InboundError> {
        match message {
            HubMessage::Invocation { id: Some(id), .. } if self.is_private() => {
                ending.pending.ask(&id)?;
                self.records.push(whole);
            }
            HubMessage::Invocation { id: Some(id), .. } => self.refuse(&id)?,
            HubMessage::Invocation { id: None, target, .. } => self.take_publication(&target, whole, ending),
            HubMessage::Completion { id, outcome } => {
                let is_reported = ending.pending.is_reported(&id);
                let is_ours = ending.pending.complete(&id);
                let is_private = self.is_private();
                if is_private {
                    self.records.push(whole);
                }
                if is_ours && (is_reported || !is_private) {
                    let (kind, body) = match outcome {
                        Outcome::Error(_) if is_private => (CompletionKind::Error, Vec::new()),
                        Outcome::Error(error) => (CompletionKind::Error, error.into_owned().into_bytes()),
                        Outcome::Void => (CompletionKind::Void, Vec::new()),
                        Outcome::Result(_) if is_private => (CompletionKind::Result, Vec::new()),
                        Outcome::Result(result) => (CompletionKind::Result, result.to_vec()),
                    };
                    self.report(UpstreamEvent::Completion { id: id.into_owned(), kind, body }, ending);
                }
            }
            HubMessage::StreamItem { .. }
            | HubMessage::StreamInvocation { .. }
            | HubMessage::CancelInvocation { .. }
                if self.is_private() =>
            {
                self.records.push(whole);
            }
            _ => {}
        }
        Ok(())
    }

    fn take_publication(&mut self, target: &str, whole: Bytes, ending: &Ending) {
        match &self.route {
            Route::Lane { everyone, snapshot, .. } => {
                let (is_for_all, is_snapshot) = (everyone.contains(target), snapshot.as_deref() == Some(target));
                if self.is_due(target, is_for_all, is_snapshot, CAME_MAX) {
                    ending.report(UpstreamEvent::Came { target: target.to_owned() });
                }
                if is_for_all {
                    return;
                }
                if is_snapshot {
                    self.keyframes.push(self.records.len());
                }
                self.records.push(whole);
            }
            Route::Broadcast { everyone, welcome, .. } => {
                let (is_for_all, is_welcome) = (everyone.contains(target), welcome.contains(target));
                if is_for_all {
                    self.records.push(whole.clone());
                    if self.is_due(target, true, false, UNNAMED_MAX) {
                        ending.report(UpstreamEvent::Came { target: target.to_owned() });
                    }
                }
                if is_welcome {
                    let record = self.welcomes.entry(target.to_owned()).or_default().clone();
                    if record.put(whole.to_vec()) {
                        self.report(UpstreamEvent::Welcome { target: target.to_owned(), record }, ending);
                    }
                } else if !is_for_all && self.is_due(target, false, false, UNNAMED_MAX) {
                    self.report(UpstreamEvent::Unnamed { target: target.to_owned() }, ending);
                }
            }
            Route::Private { dropped, .. } => {
                if !dropped.contains(target) {
                    self.records.push(whole);
                }
            }
            Route::Calls => {}
        }
    }

    /// Answers a client result that nobody here can give.
    fn refuse(&mut self, id: &str) -> Result<(), InboundError> {
        let message = HubMessage::Completion { id: id.into(), outcome: Outcome::Error(NO_RESULT.into()) };
        write_message(self.protocol, &message, &mut self.replies);
        let (bytes, bytes_max) = (self.replies.len(), REPLIES_BYTES_MAX);
        if bytes > bytes_max { Err(InboundError::Replies { bytes, bytes_max }) } else { Ok(()) }
    }

    /// Reports behind what came before it.
    fn report(&mut self, event: UpstreamEvent, ending: &Ending) {
        self.flush(&*ending.shared.sink);
        ending.report(event);
    }

    fn flush(&mut self, sink: &dyn Sink) {
        if self.records.is_empty() {
            return;
        }
        let records: Vec<&[u8]> = self.records.iter().map(|record| &**record).collect();
        match &self.route {
            Route::Lane { channel, .. } => sink.append(channel, self.protocol, &records, &self.keyframes),
            Route::Broadcast { path, .. } => sink.append_to_hub(path, self.protocol, &records),
            Route::Private { client, .. } => match records.as_slice() {
                [record] => sink.send(*client, record),
                records => sink.send(*client, &records.concat()),
            },
            Route::Calls => {}
        }
        // A burst's room is not kept: there are thousands of sessions.
        self.records = Vec::new();
        self.keyframes = Vec::new();
    }

    fn is_private(&self) -> bool {
        matches!(self.route, Route::Private { .. })
    }

    /// Whether a target is to be reported: the first time, and what goes to all whenever their number has doubled. Of
    /// those that the route does not name none beyond the bound is.
    fn is_due(&mut self, target: &str, is_for_all: bool, is_snapshot: bool, others_max: u16) -> bool {
        let is_named = is_for_all || is_snapshot;
        if !is_named && self.others >= others_max {
            return false;
        }
        let mut hasher = DefaultHasher::new();
        target.hash(&mut hasher);
        let count = self.targets.entry(hasher.finish()).or_insert(0);
        let is_first = *count == 0;
        if is_first || is_for_all {
            *count = count.saturating_add(1);
        }
        let is_due = is_first || (is_for_all && count.is_power_of_two());
        self.others += u16::from(is_first && !is_named);
        is_due
    }
}

/// The messages of one read.
pub(crate) struct Mailbag {
    route: PlainRoute,
    /// Whether each is text, and its bytes.
    messages: Vec<(bool, Bytes)>,
}

impl Mailbag {
    pub(crate) const fn new(route: PlainRoute) -> Self {
        Self { route, messages: Vec::new() }
    }

    /// The backend has agreed: the client that waits for that is told before anything is sent to it.
    pub(crate) fn begin(&self, sink: &dyn Sink, subprotocol: Option<&str>, cookies: &[String]) {
        if let PlainRoute::Private { client, accepts: true } = self.route {
            sink.accept(client, subprotocol, cookies);
        }
    }

    /// Takes a message.
    pub(crate) fn push(&mut self, is_text: bool, data: Bytes) {
        if !matches!(self.route, PlainRoute::Nowhere) {
            self.messages.push((is_text, data));
        }
    }

    /// Passes on what this read brought.
    pub(crate) fn flush(&mut self, sink: &dyn Sink) {
        if self.messages.is_empty() {
            return;
        }
        // A burst's room is not kept: there are thousands of sessions.
        let taken = std::mem::take(&mut self.messages);
        let messages: Vec<Message<'_>> =
            taken.iter().map(|(is_text, data)| Message { is_text: *is_text, data }).collect();
        match &self.route {
            PlainRoute::Lane { channel } => sink.append_messages(channel, &messages),
            PlainRoute::Private { client, .. } => sink.send_messages(*client, &messages),
            PlainRoute::Nowhere => {}
        }
    }
}
