//! Requests for a SignalR connection that exists: posts that carry its messages in, polls that carry them out.
use super::opening::{check_transport, no_connection};
use crate::http::{Body, Piece, RequestHead};
use crate::messages::{ClosedBy, ConnectionId};
use crate::protocol::signalr::negotiate::Transport;
use crate::routes::Placed;
use crate::session::signalr::{Poll, PollAnswer};
use crate::session::{Asked, Carrier, SignalR, SignalROpening};
use crate::shard::answers::{AnsweredBy, PLAIN, Refusal, UNCACHED, cors_headers, with_cors};
use crate::shard::requests::CONTINUE;
use crate::shard::{Io, Shard};
use crate::siblings::is_marked;
use crate::tokens::Token;
use crate::ws::CloseCode;

const BYTES: &str = "application/octet-stream";
/// Bytes of messages that one poll brings, about: the rest comes with the next.
const POLL_BYTES_MAX: usize = 512 << 10;

impl<I: Io> Shard<I> {
    /// A POST or DELETE.
    pub(super) fn answer_for(
        &mut self,
        slot: u32,
        head: &RequestHead<'_>,
        route: &Placed,
        token: Token,
    ) -> Result<AnsweredBy, Refusal> {
        let Some(id) = self.find_token(&token, route)? else {
            // Its connection may be on the machine that has issued it: what comes here has lost its way.
            let is_lost = self.common.siblings.is_some() && is_marked(&token);
            return if is_lost { Err(no_connection()) } else { self.post_first(slot, head, route, token) };
        };
        if id.shard() != self.index {
            return Ok(AnsweredBy::Shard(id.shard()));
        }
        let target = self.slot_of(id).ok_or_else(no_connection)?;
        let signalr = self.slab.at(target).session.signalr().ok_or_else(no_connection)?;
        let (transport, is_over) = (signalr.transport, signalr.is_over());
        if head.method == "DELETE" {
            if transport != Transport::LongPolling {
                return Err(Refusal::new(400, "Cannot terminate this connection using the DELETE endpoint."));
            }
            let cors_for = self.signalr_readable_by(route, head);
            self.end_signalr(target, None, true, (CloseCode::NORMAL, "", ClosedBy::Client));
            self.drop_connection(target);
            let cors = cors_headers(cors_for.as_deref());
            self.respond(slot, (202, &cors), PLAIN, b"", (head.keeps_alive(), false));
            return Ok(AnsweredBy::ThisShard);
        }
        if transport == Transport::WebSockets {
            return Err(Refusal::new(405, "POST requests are not allowed for WebSocket connections."));
        }
        if is_over {
            return Err(no_connection());
        }
        let readable_by = self.signalr_readable_by(route, head);
        let carrier = Carrier {
            to: id,
            body: head.body,
            expects_continue: head.expects_continue(),
            keeps_alive: head.keeps_alive_after_body(),
            readable_by,
        };
        self.begin_post_of(slot, target, carrier);
        Ok(AnsweredBy::ThisShard)
    }

    /// A post that comes before any transport: what it says waits for the first poll.
    fn post_first(
        &mut self,
        slot: u32,
        head: &RequestHead<'_>,
        route: &Placed,
        token: Token,
    ) -> Result<AnsweredBy, Refusal> {
        if head.method != "POST" {
            return Err(no_connection());
        }
        check_transport(route, Transport::LongPolling)?;
        let asked = Asked {
            signalr: Some(SignalROpening::Post(token, head.body, head.expects_continue())),
            readable_by: self.signalr_readable_by(route, head),
            keeps_alive: head.keeps_alive_after_body(),
            ..Asked::default()
        };
        let formats = self.formats_on(route, Transport::LongPolling);
        self.open_or_ask(slot, (route, head), asked, formats, Vec::new())?;
        Ok(AnsweredBy::ThisShard)
    }

    /// The connection that a post has begun takes its body.
    pub(super) fn begin_post(&mut self, slot: u32, target: u32, asked: &Asked, (body, expects_continue): (Body, bool)) {
        let (to, readable_by) = (self.id_of(target), asked.readable_by.clone());
        let carrier = Carrier { to, body, expects_continue, keeps_alive: asked.keeps_alive, readable_by };
        self.begin_post_of(slot, target, carrier);
    }

    fn begin_post_of(&mut self, slot: u32, target: u32, carrier: Carrier) {
        let (poster, is_done, is_awaited) = (self.id_of(slot), carrier.body.is_done(), carrier.expects_continue);
        self.signalr_at(target).requests_mut().handle_post(poster);
        self.slab.at(slot).session.carry(carrier, false);
        if is_done {
            self.finish_post(slot);
        } else if is_awaited {
            self.slab.at(slot).transport.outbox.bytes_mut().extend_from_slice(CONTINUE);
            self.flush(slot);
        }
    }

    pub(super) fn signalr_at(&mut self, slot: u32) -> &mut SignalR {
        self.slab.at(slot).session.signalr_mut().expect("the caller has seen that it is a SignalR connection")
    }

    /// Whether the body of a post may be read on: it is its turn, and the application has room.
    pub(in crate::shard) fn may_post(&mut self, slot: u32) -> bool {
        let to = self.slab.at(slot).session.post().map(|post| post.to);
        let Some(target) = to.and_then(|to| self.slot_of(to)) else { return true }; // to be told so
        let poster = self.id_of(slot);
        let signalr = self.signalr_at(target);
        signalr.is_over() || (signalr.posts().next() == Some(poster) && self.may_read(target))
    }

    /// Whether another post of the same connection is being read, so that nothing of this one was looked at.
    pub(in crate::shard) fn waits_for_another_post(&mut self, slot: u32) -> bool {
        let to = self.slab.at(slot).session.post().map(|post| post.to);
        let Some(target) = to.and_then(|to| self.slot_of(to)) else { return false };
        let poster = self.id_of(slot);
        self.signalr_at(target).posts().next() != Some(poster)
    }

    /// The application has room again: the post that is being read goes on.
    pub(in crate::shard) fn resume_posts(&mut self, slot: u32) {
        let signalr = self.slab.get(slot).and_then(|connection| connection.session.signalr());
        self.later.extend(signalr.and_then(|signalr| signalr.posts().next()));
    }

    /// Takes some of a post's body. What comes for a connection that has ended meanwhile is thrown away: its client
    /// learns of the end where it listens, not from an answer that may overtake it.
    pub(in crate::shard) fn take_posted(&mut self, slot: u32, bytes: &[u8]) -> usize {
        let Some(post) = self.slab.at(slot).session.post_mut() else { return bytes.len() };
        let to = post.to;
        let Piece { framing, content } = match post.body.next(bytes) {
            Ok(piece) => piece,
            Err(error) => {
                self.refuse(slot, &error.into());
                return bytes.len();
            }
        };
        let bytes_of_content = &bytes[framing..framing + content];
        let taken = match self.slot_of(to).filter(|&target| self.slab.at(target).takes_publications()) {
            Some(target) => {
                self.timers.set(slot, self.settings.handshake_timeout);
                if content == 0 { 0 } else { self.take_records(target, bytes_of_content) }
            }
            None => content,
        };
        let Some(post) = self.slab.get_mut(slot).and_then(|connection| connection.session.post_mut()) else {
            return bytes.len();
        };
        post.body.take(taken);
        if post.body.is_done() {
            self.finish_post(slot);
        }
        framing + taken
    }

    /// The body is there: answer, and let the next post begin.
    fn finish_post(&mut self, slot: u32) {
        let Some(carrier) = self.slab.at(slot).session.take_carrier(false) else { return };
        let poster = self.id_of(slot);
        let cors = cors_headers(carrier.readable_by.as_deref());
        self.respond(slot, (200, &cors), PLAIN, b"", (carrier.keeps_alive, false));
        self.leave_posts(poster, carrier.to);
        self.later.push(poster); // the peer may have ended its half long ago
    }

    /// A post is over, or its socket: the next one is read.
    pub(in crate::shard) fn leave_posts(&mut self, poster: ConnectionId, to: ConnectionId) {
        let Some(target) = self.slot_of(to) else { return };
        let next = self.signalr_at(target).requests_mut().handle_post_end(poster);
        self.later.extend(next);
    }

    /// A poll for a connection: waits until there is something to say.
    pub(super) fn poll(&mut self, slot: u32, (route, head): (&Placed, &RequestHead<'_>), target: u32) {
        let (poll, to) = (self.id_of(slot), self.id_of(target));
        let readable_by = self.signalr_readable_by(route, head);
        let Poll::Waits(older) = self.signalr_at(target).requests_mut().handle_poll(poll) else {
            let asked = Asked { readable_by, keeps_alive: head.keeps_alive(), ..Asked::default() };
            return self.finish_first_poll(slot, &asked);
        };
        let (body, keeps_alive) = (Body::NONE, head.keeps_alive());
        let carrier = Carrier { to, body, expects_continue: false, keeps_alive, readable_by };
        self.slab.at(slot).session.carry(carrier, true);
        self.timers.set(slot, self.settings.hubs.poll_timeout);
        if let Some(older) = older.and_then(|older| self.slot_of(older)) {
            self.finish_poll(older, 204, b"");
        }
        if self.signalr_at(target).has_shaken_hands {
            self.timers.clear(target);
        }
        self.answer_poll(target);
    }

    /// The first poll only opens the connection.
    pub(super) fn finish_first_poll(&mut self, slot: u32, asked: &Asked) {
        let cors = with_cors(asked.readable_by.as_deref(), &asked.headers);
        self.respond_to_poll(slot, 200, &cors, b"", asked.keeps_alive);
    }

    /// Something new stands in a log: those hear of it who poll for it, whose messages have numbers, or who wait for a
    /// keyframe.
    pub(in crate::shard) fn write_one_by_one(&mut self, feed: u32) {
        let Some(target) = self.feeds.get(feed).filter(|target| !target.lagging.is_empty()) else { return };
        if self.one_by_one == 0 && target.awaiting == 0 {
            return;
        }
        let slots: Vec<u32> = target.lagging.iter().map(|member| member.slot).collect();
        for slot in slots {
            let Some(connection) = self.slab.get(slot) else { continue };
            if connection.session.is_polled() {
                self.answer_poll(slot);
            } else if connection.session.writes_publications() && !connection.transport.is_blocked {
                self.pump(slot);
            }
        }
        self.learn_oldest_lag(feed);
    }

    /// Answers the poll that waits for a connection, if there is one and something to say.
    pub(in crate::shard) fn answer_poll(&mut self, slot: u32) {
        let Some(poll) = self.signalr_at(slot).poll().and_then(|poll| self.slot_of(poll)) else { return };
        let connection = self.slab.at(slot);
        let mut body = connection.transport.outbox.waiting().to_vec();
        connection.transport.outbox.advance(body.len());
        while body.len() < POLL_BYTES_MAX {
            let before = body.len();
            self.take_behind(slot, &mut body);
            if body.len() == before {
                break;
            }
        }
        let answer = self.signalr_at(slot).requests_mut().answer_poll(!body.is_empty());
        if answer == PollAnswer::Waits {
            return;
        }
        self.tell_if_drained(slot);
        self.finish_poll(poll, if answer == PollAnswer::Over { 204 } else { 200 }, &body);
        match answer {
            PollAnswer::Over => self.drop_connection(slot),
            _ => self.await_next_poll(slot),
        }
    }

    fn await_next_poll(&mut self, slot: u32) {
        if self.signalr_at(slot).owes_poll() {
            self.timers.set(slot, self.settings.hubs.disconnect_timeout);
        }
    }

    /// A poll's time is up, or its socket is gone.
    pub(in crate::shard) fn leave_poll(&mut self, poll: ConnectionId, to: ConnectionId) {
        let Some(target) = self.slot_of(to) else { return };
        if self.signalr_at(target).requests_mut().handle_poll_end(poll) {
            self.await_next_poll(target);
        }
    }

    /// Nothing came within a poll's time.
    pub(in crate::shard) fn expire_poll(&mut self, slot: u32) {
        if let Some(to) = self.slab.at(slot).session.poll().map(|poll| poll.to) {
            self.leave_poll(self.id_of(slot), to);
            self.finish_poll(slot, 200, b"");
        }
    }

    pub(super) fn finish_poll(&mut self, slot: u32, status: u16, body: &[u8]) {
        let Some(carrier) = self.slab.at(slot).session.take_carrier(true) else { return };
        let cors = cors_headers(carrier.readable_by.as_deref());
        self.respond_to_poll(slot, status, &cors, body, carrier.keeps_alive);
    }

    pub(super) fn respond_to_poll(
        &mut self,
        slot: u32,
        status: u16,
        cors: &[(&str, &str)],
        body: &[u8],
        keeps_alive: bool,
    ) {
        let headers = [&UNCACHED[..], cors].concat();
        self.respond(slot, (status, &headers), BYTES, body, (keeps_alive, false));
        // A request may stand behind it already.
        self.later.push(self.id_of(slot));
    }
}
