//! What a relay asks of the engine: publications that come as records of a hub protocol, and who joins them late.
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Audience, Engine, check_headers};
use crate::channel::{Channel, Newest, Origin, Start, Watch};
use crate::error::EngineError;
use crate::messages::{Command, ConnectionId, Event, Reply};
use crate::offers::{OfferedAnswer, OfferedCall, Terms as OfferTerms};
use crate::protocol::signalr::HubProtocol;
use crate::protocol::{Format, Payload, frame_bytes_max, raw};
use crate::routes::OwnerId;

/// What newcomers of a lane begin with goes before its log.
const LIVE: Origin = Origin { since: None, start: Some(Start::Live) };

/// A message of a WebSocket, in either direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Whether it is text, which must be UTF-8.
    pub is_text: bool,
    /// All of it.
    pub data: &'a [u8],
}

impl Engine {
    /// Appends whole records of a hub protocol, in order, for the subscribers that speak it; wakes the shards once.
    ///
    /// `snapshots` are the indexes, ascending, of those at which a newcomer may begin.
    ///
    /// # Errors
    /// [`EngineError::LimitReached`] at `unsent_bytes_max` or `channels_max`; [`EngineError::NotRunning`]. Nothing was
    /// appended.
    pub fn append_records(
        &self,
        audience: Audience<'_>,
        protocol: HubProtocol,
        records: &[&[u8]],
        snapshots: &[usize],
    ) -> Result<(), EngineError> {
        self.check_running()?;
        let common = &self.common;
        let now_ns = common.clock.now_ns();
        let channel = self.registry_of(audience).obtain(audience.name(), &common.settings, now_ns)?;
        let tell = |watch: &Arc<Watch>| self.tell(watch, false);
        let bound = common.settings.unsent_bytes_max;
        let tell_mirrors = |to: &[u32], message: &[u8]| self.tell_mirrors(to, message);
        channel.append_records((Some(protocol), records), snapshots, now_ns, bound, tell, &tell_mirrors)?;
        self.publications.fetch_add(records.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Appends messages of a WebSocket, in order, to a lane of such; wakes the shards once.
    ///
    /// # Errors
    /// As of [`append_records`](Self::append_records).
    pub fn append_messages(&self, lane: &str, messages: &[Message<'_>]) -> Result<(), EngineError> {
        self.check_running()?;
        let common = &self.common;
        let mut frames = Vec::with_capacity(frames_bytes(messages));
        let ends: Vec<usize> = messages.iter().map(|message| write_message_frame(*message, &mut frames)).collect();
        let starts = std::iter::once(&0).chain(&ends);
        let records: Vec<&[u8]> = starts.zip(&ends).map(|(&start, &end)| &frames[start..end]).collect();
        let now_ns = common.clock.now_ns();
        let tell = |watch: &Arc<Watch>| self.tell(watch, false);
        let bound = common.settings.unsent_bytes_max;
        let tell_mirrors = |to: &[u32], message: &[u8]| self.tell_mirrors(to, message);
        self.lane(lane)?.append_records((None, &records), &[], now_ns, bound, tell, &tell_mirrors)?;
        self.publications.fetch_add(messages.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Sends messages of a WebSocket, in order, to one connection that is relayed.
    ///
    /// # Errors
    /// As of [`send`](Self::send); nothing was sent.
    pub fn send_messages(&self, id: ConnectionId, messages: &[Message<'_>]) -> Result<(), EngineError> {
        self.check_running()?;
        let bytes = frames_bytes(messages);
        self.check_private(bytes)?;
        let mut frames = Vec::with_capacity(bytes);
        for message in messages {
            write_message_frame(*message, &mut frames);
        }
        self.command(id, Command::Send(id, frames.into_boxed_slice()));
        Ok(())
    }

    /// Finishes the opening of a relayed WebSocket with success, with the subprotocol that its backend chose of those
    /// that the client offers, and with what the backend's answer sets for this client.
    ///
    /// # Errors
    /// [`EngineError::InvalidHeader`]; [`EngineError::NotRunning`].
    pub fn accept_relayed(&self, id: ConnectionId, reply: Reply) -> Result<(), EngineError> {
        self.check_running()?;
        check_headers(&reply.headers)?;
        self.command(id, Command::AcceptRelayed(id, reply));
        Ok(())
    }

    /// Newcomers of a lane begin here, or at a snapshot that comes later, with what follows, up to `bytes_max` of it.
    ///
    /// # Errors
    /// [`EngineError::LimitReached`] at `channels_max`; [`EngineError::NotRunning`].
    pub fn set_beginning(&self, lane: &str, bytes_max: u64) -> Result<(), EngineError> {
        self.lane(lane)?.set_beginning(bytes_max, &|to, message| self.tell_mirrors(to, message));
        Ok(())
    }

    /// From now on no more than `bytes_max` is kept for newcomers of a lane; what is more is lost, until the next snapshot.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`].
    pub fn bound_beginning(&self, lane: &str, bytes_max: u64) -> Result<(), EngineError> {
        self.check_running()?;
        if let Some(channel) = self.common.lanes.find(lane) {
            channel.bound_beginning(bytes_max, &|to, message| self.tell_mirrors(to, message));
        }
        Ok(())
    }

    /// Newcomers of a lane begin with what is appended from now on.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`].
    pub fn forget_beginning(&self, lane: &str) -> Result<(), EngineError> {
        self.check_running()?;
        if let Some(channel) = self.common.lanes.find(lane) {
            channel.forget_beginning();
        }
        Ok(())
    }

    /// The lane's next snapshot was asked for newcomers' sake, and goes to nobody else; or, no longer, to everyone.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`].
    pub fn expect_snapshot(&self, lane: &str, is_expected: bool) -> Result<(), EngineError> {
        self.check_running()?;
        if let Some(channel) = self.common.lanes.find(lane) {
            channel.expect_snapshot(is_expected);
        }
        Ok(())
    }

    /// Subscribes a connection to a lane, from its beginning on; one that `is_subscribed` begins once more there. False when
    /// that is lost, or over these bounds: then nothing was done.
    ///
    /// # Errors
    /// As of [`set_beginning`](Self::set_beginning).
    pub fn join_lane(
        &self,
        id: ConnectionId,
        lane: &str,
        is_subscribed: bool,
        newest: Newest,
    ) -> Result<bool, EngineError> {
        let channel = self.lane(lane)?;
        let Some(format) = self.format_of(id) else { return Ok(true) };
        let now_ns = self.common.clock.now_ns();
        let Some((watched, before)) = channel.watch_from_beginning(format, id.shard(), newest, now_ns) else {
            return Ok(false);
        };
        if is_subscribed {
            self.leave_lane(id, lane)?;
        }
        self.command(id, Command::Subscribe(id, watched, LIVE, before));
        Ok(true)
    }

    /// Subscribes a connection to a lane from here on, whatever was kept of it.
    ///
    /// # Errors
    /// As of [`set_beginning`](Self::set_beginning).
    pub fn join_live(&self, id: ConnectionId, lane: &str) -> Result<(), EngineError> {
        let channel = self.lane(lane)?;
        if let Some(watched) = channel.watch(self.may_speak(id), id.shard()) {
            self.command(id, Command::Subscribe(id, watched, LIVE, Arc::default()));
        }
        Ok(())
    }

    /// Ends a connection's subscription to a lane: what is appended after this call does not reach it.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`].
    pub fn leave_lane(&self, id: ConnectionId, lane: &str) -> Result<(), EngineError> {
        self.check_running()?;
        if let Some(channel) = self.common.lanes.find(lane) {
            let tails = channel.tails(self.may_speak(id));
            self.command(id, Command::Unsubscribe(id, channel, tails));
        }
        Ok(())
    }

    /// Offers a lane: who makes this call as its first message joins it and is answered so, as by
    /// [`join_lane`](Self::join_lane) and [`send_message`](Self::send_message), and the application is told of that. Gives the
    /// offer's number.
    ///
    /// # Errors
    /// [`EngineError::LimitReached`] where a million stand; [`EngineError::NotRunning`].
    pub fn offer_lane(
        &self,
        lane: &str,
        call: OfferedCall<'_>,
        answer: OfferedAnswer,
        terms: OfferTerms,
    ) -> Result<u64, EngineError> {
        self.check_running()?;
        self.common.offers.make(lane, call, answer, terms, self.common.clock.now_ns())
    }

    /// From now on, and for so long, lets in without asking who shows these headers at a SignalR path of this owner, whose
    /// messages are passed on. The application is told of each that connects, by the number that this gives.
    ///
    /// # Errors
    /// [`EngineError::LimitReached`] where there are too many kinds; [`EngineError::NotRunning`].
    pub fn admit_alike(
        &self,
        owner: OwnerId,
        headers: Vec<(String, Vec<u8>)>,
        valid_for: Duration,
    ) -> Result<u64, EngineError> {
        self.check_running()?;
        self.common.admissions.add(owner, headers, valid_for, self.common.clock.now_ns())
    }

    /// Asks this owner again about everybody.
    pub fn ask_about_all(&self, owner: OwnerId) {
        self.common.admissions.end(owner);
    }

    /// Takes an offer back. Gives how many have taken it up: of each there is an [`Event::Joined`], or will be.
    pub fn withdraw_lane(&self, number: u64) -> u64 {
        self.common.offers.withdraw(number)
    }

    fn lane(&self, name: &str) -> Result<Arc<Channel>, EngineError> {
        self.obtain_of(Audience::Lane(name))
    }

    /// Puts a line for the log, with a level of Python's `logging`, into the stream of events.
    pub fn record(&self, level: u8, text: String) {
        self.common.events.push(self.shards.len(), Event::Record(level, text));
    }

    /// Puts what another part of the program has to say into the stream of events.
    ///
    /// Whoever calls this bounds what it says.
    pub fn report(&self, what: Box<dyn Any + Send>) {
        self.common.events.push(self.shards.len(), Event::Reported(what));
    }
}

fn frames_bytes(messages: &[Message<'_>]) -> usize {
    let frame_bytes = |message: &Message<'_>| frame_bytes_max(Format::Raw, &Payload::Binary(message.data), None, None);
    messages.iter().map(frame_bytes).sum()
}

/// Appends a frame; gives where it ends.
fn write_message_frame(message: Message<'_>, out: &mut Vec<u8>) -> usize {
    if message.is_text {
        raw::write_text(out, message.data);
    } else {
        raw::write_binary(out, message.data);
    }
    out.len()
}
