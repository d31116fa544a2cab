//! What a relay's clients are let do without the application, which is told of it soon: to open, and by their first call to
//! join a lane that it has offered.
use crate::channel::{Origin, Start};
use crate::http::RequestHead;
use crate::messages::{Event, SignalRMessage, SignalRMessageKind};
use crate::offers::{Offer, OfferedCall};
use crate::protocol::signalr::{HubMessage, write_message, write_records};
use crate::routes::Placed;
use crate::session::{Asked, SignalROpening};
use crate::shard::{Io, Shard};

/// What newcomers of a lane begin with goes before its log.
const LIVE: Origin = Origin { since: None, start: Some(Start::Live) };

impl<I: Io> Shard<I> {
    /// Has a client join the lane that its message asks for, and answers it. False where the application is to be asked: all
    /// but the first message of a client is its own to decide on, as it knows what the client has said before.
    pub(super) fn take_up_offer(&mut self, slot: u32, message: &SignalRMessage) -> bool {
        let is_relayed = self.asks(slot).records;
        let Some(signalr) = self.slab.at(slot).session.signalr_mut() else { return false };
        let is_first = !std::mem::replace(&mut signalr.has_spoken, true);
        let is_call = message.kind == SignalRMessageKind::Invocation && message.stream_ids.is_empty();
        if !(is_first && is_call && is_relayed) {
            return false;
        }
        let (whose, format) = (self.whose(slot), self.slab.at(slot).format);
        let Some(protocol) = format.hub_protocol() else { return false };
        let (target, arguments) = (&*message.target, &*message.body);
        let found = self.common.offers.find(OfferedCall { owner: whose.owner, protocol, target, arguments });
        let Some(offer) = found else { return false };
        let Some(answer) = self.answer_of(&offer, slot, message) else { return false };
        let now_ns = self.clock.now_ns();
        let Some(newest) = offer.newest(now_ns) else { return false };
        let Ok(lane) = self.common.lanes.obtain(&offer.lane, &self.settings, now_ns) else { return false };
        let Some((watched, before)) = lane.watch_from_beginning(format, self.index, newest, now_ns) else {
            return false;
        };
        if self.check_room(slot, 0).is_err() || !offer.take_up() {
            return false;
        }
        // Before anything that may end the connection, whose end is told behind this.
        self.tell_quietly(Event::Joined(whose, offer.number));
        for frame in [&*before, &*answer] {
            let may_write = !frame.is_empty() && self.note_private(slot, frame);
            if may_write && !self.slab.at(slot).session.is_detached() {
                self.slab.at(slot).transport.outbox.bytes_mut().extend_from_slice(frame);
            }
            if self.slab.get(slot).is_none_or(|connection| !connection.takes_publications()) {
                return true;
            }
        }
        self.subscribe(slot, watched, LIVE);
        true
    }

    /// Whether who asks to open this, or what to open with, shows the same as another that the path's owner has let in. Then
    /// that is told of whoever connects.
    pub(in crate::shard) fn admits_alike(
        &mut self,
        slot: u32,
        (route, head): (&Placed, &RequestHead<'_>),
        asked: &Asked,
    ) -> bool {
        let is_told = match asked.signalr {
            Some(SignalROpening::Negotiate(_)) => false,
            Some(SignalROpening::Connect(..)) => true,
            Some(SignalROpening::Post(..)) | None => return false,
        };
        let found = self.common.admissions.find(route.owner, head, self.clock.now_ns());
        let Some(alike) = found.filter(|_| route.asks.records) else { return false };
        if is_told {
            let client = self.client_at(slot).into();
            self.slab.at(slot).is_reported = true;
            self.tell_quietly(Event::Admitted(self.whose(slot), alike, client));
        }
        true
    }

    /// The answer as it is written; empty where the client wants none, and `None` where it is larger than may be.
    fn answer_of(&mut self, offer: &Offer, slot: u32, message: &SignalRMessage) -> Option<Vec<u8>> {
        let format = self.slab.at(slot).format;
        let mut frame = Vec::new();
        if !message.id.is_empty() {
            let (id, outcome) = (message.id.as_str().into(), offer.answer.outcome());
            let mut record = Vec::new();
            write_message(format.hub_protocol()?, &HubMessage::Completion { id, outcome }, &mut record);
            if record.len() > self.settings.outbox_bytes_max {
                return None;
            }
            write_records(format, &record, &mut frame);
        }
        Some(frame)
    }
}
