//! Negotiates and transports (TransportProtocols of ASP.NET Core's SignalR), with its statuses and texts.
use std::sync::Arc;

use sha1::{Digest, Sha1};

use crate::channel::{Channel, Origin, Watched};
use crate::http::{RequestHead, query_pairs, write_stream_head};
use crate::messages::{ConnectionId, Event};
use crate::protocol::signalr::negotiate::{
    Connect, NegotiateReply, NegotiateRequest, Transport, decode_id, encode_id, parse_query, write_error, write_reply,
};
use crate::protocol::{Format, Formats};
use crate::routes::{Placed, Wire};
use crate::session::{Asked, SignalR, SignalROpening, signalr};
use crate::shard::answers::{AnsweredBy, PLAIN, Refusal, accepts_event_stream, cors_headers, with_cors};
use crate::shard::connection::Connection;
use crate::shard::opening::accept_websocket;
use crate::shard::{Io, Shard};
use crate::siblings::unmarked;
use crate::stats::Opened;
use crate::tokens::{self, Claim, Token};
use crate::ws::{is_upgrade, read_upgrade};

/// How long a browser may remember what a preflight allowed.
const PREFLIGHT_SECONDS: &str = "7200";
const JSON: &str = "application/json";

impl<I: Io> Shard<I> {
    /// Whose pages may read the answers of a SignalR path, with their cookies: those of an origin that may connect.
    pub(in crate::shard) fn signalr_readable_by(&self, route: &Placed, head: &RequestHead<'_>) -> Option<Box<str>> {
        let origin = head.header("origin")?;
        self.check_may_open(route, head).is_ok().then(|| String::from_utf8_lossy(origin).into())
    }

    /// Does what a request for a SignalR path asks for.
    pub(in crate::shard) fn answer_signalr(
        &mut self,
        slot: u32,
        head: &RequestHead<'_>,
        route: &Placed,
        is_negotiate: bool,
    ) -> Result<AnsweredBy, Refusal> {
        if head.method == "OPTIONS" && head.header("access-control-request-method").is_some() {
            self.answer_preflight(slot, head, self.signalr_readable_by(route, head));
            return Ok(AnsweredBy::ThisShard);
        }
        self.check_may_open(route, head)?;
        if is_negotiate {
            return self.negotiate(slot, head, route);
        }
        let token = self.token_of_request(head, route)?;
        let elsewhere = token.filter(|token| self.may_be_elsewhere(slot, token));
        match head.method {
            "GET" => {}
            "POST" | "DELETE" => {
                let token = token.ok_or_else(id_required)?;
                return match elsewhere {
                    Some(token) => Ok(self.answered_elsewhere((route, head), token, false)),
                    None => self.answer_for(slot, head, route, token),
                };
            }
            _ => return Err(Refusal { headers: &[("Allow", "GET, POST, DELETE")], ..Refusal::new(405, "") }),
        }
        let transport = if accepts_event_stream(head) {
            Transport::ServerSentEvents
        } else if is_upgrade(head) {
            Transport::WebSockets
        } else {
            Transport::LongPolling
        };
        match elsewhere {
            Some(token) => Ok(self.answered_elsewhere((route, head), token, transport != Transport::LongPolling)),
            None => self.connect(slot, head, route, transport, token),
        }
    }

    /// The token that the query carries as `id`; one that no negotiate gives out finds nothing.
    fn token_of_request(&self, head: &RequestHead<'_>, route: &Placed) -> Result<Option<Token>, Refusal> {
        let Some(siblings) = &self.common.siblings else {
            return id_of_query(head, decode_id);
        };
        let token = id_of_query(head, |text| siblings.read(text, route.path()));
        if token.is_err() {
            self.stats.tokens_refused.add(1);
        }
        token
    }

    /// Tells a browser what a page of the origin `readable_by` may send here (Fetch §4.8), or nothing.
    pub(in crate::shard) fn answer_preflight(
        &mut self,
        slot: u32,
        head: &RequestHead<'_>,
        readable_by: Option<Box<str>>,
    ) {
        let asked = head.header("access-control-request-headers").map(String::from_utf8_lossy).unwrap_or_default();
        let method = head.header("access-control-request-method").map(String::from_utf8_lossy).unwrap_or_default();
        let mut headers = cors_headers(readable_by.as_deref());
        if readable_by.is_some() {
            headers.push(("Access-Control-Allow-Methods", &method));
            headers.push(("Access-Control-Allow-Headers", &asked));
            headers.push(("Access-Control-Max-Age", PREFLIGHT_SECONDS));
        }
        self.respond(slot, (204, &headers), "", b"", (head.keeps_alive(), false));
    }

    fn negotiate(&mut self, slot: u32, head: &RequestHead<'_>, route: &Placed) -> Result<AnsweredBy, Refusal> {
        if head.method != "POST" {
            return Err(Refusal { headers: &[("Allow", "POST")], ..Refusal::new(405, "") });
        }
        let keeps_alive = head.keeps_alive();
        let readable_by = self.signalr_readable_by(route, head);
        let request = match parse_query(head.query.unwrap_or("")) {
            Ok(request) => request,
            Err(error) => {
                let mut body = Vec::new();
                write_error(&mut body, &error.to_string());
                let cors = cors_headers(readable_by.as_deref());
                self.respond(slot, (error.status(), &cors), JSON, &body, (keeps_alive, false));
                return Ok(AnsweredBy::ThisShard);
            }
        };
        let signalr = Some(SignalROpening::Negotiate(request));
        let asked = Asked { signalr, readable_by, keeps_alive, ..Asked::default() };
        self.open_or_ask(slot, (route, head), asked, Format::HubJson.into(), Vec::new())?;
        Ok(AnsweredBy::ThisShard)
    }

    fn connect(
        &mut self,
        slot: u32,
        head: &RequestHead<'_>,
        route: &Placed,
        transport: Transport,
        token: Option<Token>,
    ) -> Result<AnsweredBy, Refusal> {
        if token.is_none() && transport != Transport::WebSockets {
            return Err(id_required());
        }
        let known = token.map(|token| self.find_token(&token, route)).transpose()?.flatten();
        if let Some(id) = known.filter(|id| id.shard() != self.index) {
            return Ok(AnsweredBy::Shard(id.shard()));
        }
        check_transport(route, transport)?;
        if let Some(id) = known {
            return self.connect_again(slot, (route, head), id, transport);
        }
        let upgrade = if transport == Transport::WebSockets { Some((read_upgrade(head)?, None)) } else { None };
        let asked = Asked {
            upgrade,
            signalr: Some(SignalROpening::Connect(transport, token)),
            readable_by: self.signalr_readable_by(route, head),
            keeps_alive: head.keeps_alive(),
            ..Asked::default()
        };
        let formats = self.formats_on(route, transport);
        self.open_or_ask(slot, (route, head), asked, formats, Vec::new())?;
        Ok(AnsweredBy::ThisShard)
    }

    /// A transport for a connection that has one.
    fn connect_again(
        &mut self,
        slot: u32,
        (route, head): (&Placed, &RequestHead<'_>),
        id: ConnectionId,
        transport: Transport,
    ) -> Result<AnsweredBy, Refusal> {
        let target = self.slot_of(id).ok_or_else(no_connection)?;
        let known = self.slab.at(target).session.signalr().ok_or_else(no_connection)?.transport;
        if known != transport {
            return Err(Refusal::new(400, "Cannot change transports mid-connection"));
        }
        if self.is_stateful(target) {
            return self.reattach(slot, head, target);
        }
        if transport != Transport::LongPolling {
            return Err(Refusal::new(409, ""));
        }
        self.poll(slot, (route, head), target);
        Ok(AnsweredBy::ThisShard)
    }

    /// The connection behind a token, if a transport has claimed it.
    pub(super) fn find_token(&self, token: &Token, route: &Placed) -> Result<Option<ConnectionId>, Refusal> {
        let found = self.common.tokens.find(token, self.clock.now_ns());
        match found.filter(|negotiated| negotiated.route == route.number).ok_or_else(no_connection)?.claim {
            Claim::Open { .. } => Ok(None),
            Claim::By(id) => Ok(Some(id)),
            Claim::Lent(_) => Err(no_connection()), // and that worker does not have it either
        }
    }

    /// Answers an opening with success.
    pub(in crate::shard) fn open_signalr(
        &mut self,
        slot: u32,
        asked: &Asked,
        opening: SignalROpening,
        accepted: (Option<Arc<Channel>>, Vec<Watched>),
    ) {
        match opening {
            SignalROpening::Negotiate(request) => {
                self.count_opening(Opened::Negotiation, asked);
                let reply = self.reply_to_negotiate(slot, request);
                let cors = with_cors(asked.readable_by.as_deref(), &asked.headers);
                // What the application hears of this socket next is another request.
                self.slab.at(slot).is_reported = false;
                match reply {
                    Ok(body) => self.respond(slot, (200, &cors), JSON, &body, (asked.keeps_alive, false)),
                    Err(text) => self.respond(slot, (503, &cors), PLAIN, text.as_bytes(), (false, false)),
                }
                self.later.push(self.id_of(slot)); // the peer may have ended its half long ago
            }
            SignalROpening::Connect(transport, token) => {
                self.open_transport(slot, asked, (transport, token), accepted);
            }
            SignalROpening::Post(token, body, expects_continue) => {
                let opening = (Transport::LongPolling, Some(token));
                if let Some(target) = self.open_transport(slot, asked, opening, accepted) {
                    self.begin_post(slot, target, asked, (body, expects_continue));
                }
            }
        }
    }

    fn reply_to_negotiate(&mut self, slot: u32, request: NegotiateRequest) -> Result<Vec<u8>, String> {
        let route = self.slab.at(slot).route.clone().expect("its request has been read");
        let NegotiateRequest { version, wants_stateful_reconnect: is_stateful } = request;
        let now_ns = self.clock.now_ns();
        let claimed_within = self.settings.hubs.disconnect_timeout;
        let deadline_ns = now_ns + claimed_within.as_nanos() as u64;
        let siblings = self.common.siblings.as_deref();
        let stamp = siblings.map(|siblings| siblings.stamp(is_stateful, claimed_within.as_secs()));
        let issued = self.common.tokens.issue(stamp, (route.number, is_stateful), now_ns, deadline_ns);
        let token = issued.map_err(|error| error.to_string())?;
        let secret = siblings.map_or_else(|| encode_id(&token), |siblings| siblings.text_of(&token, route.path()));
        let connection_id = if version == 0 { secret.clone() } else { connection_id_of(&token) };
        let mut body = Vec::new();
        let connect = Connect {
            version,
            has_stateful_reconnect: is_stateful,
            connection_id: connection_id.into(),
            connection_token: secret.into(),
            transports: Transport::ALL.into_iter().filter(|&transport| allows(&route, transport)).collect(),
        };
        write_reply(&mut body, &NegotiateReply::Connect(connect));
        Ok(body)
    }

    fn open_transport(
        &mut self,
        slot: u32,
        asked: &Asked,
        (transport, token): (Transport, Option<Token>),
        (user, watched): (Option<Arc<Channel>>, Vec<Watched>),
    ) -> Option<u32> {
        let (whose, is_reported) = (self.whose(slot), self.slab.at(slot).is_reported);
        let (target, token, may_be_stateful) = match self.claim_connection(slot, transport, token) {
            Ok(claimed) => claimed,
            Err(refusal) => {
                self.refuse(slot, &refusal);
                return None;
            }
        };
        self.count_opening(Opened::SignalR(transport), asked);
        let route = self.slab.at(slot).route.clone();
        let id = self.id_of(target);
        let mut signalr = SignalR::new(transport, token);
        signalr.may_be_stateful = may_be_stateful;
        signalr.user = user;
        let formats = route.as_ref().map(|route| self.formats_on(route, transport)).unwrap_or_default();
        self.note_formats(target, formats);
        let connection = self.slab.at(target);
        connection.session.open_signalr(signalr);
        connection.route = route;
        for one in watched {
            self.hold(target, one, Origin::default());
        }
        let connection = self.slab.at(target);
        match transport {
            Transport::WebSockets => accept_websocket(connection, asked),
            Transport::ServerSentEvents => {
                let out = connection.transport.outbox.bytes_mut();
                let mut headers = with_cors(asked.readable_by.as_deref(), &asked.headers);
                headers.extend([("Pragma", "no-cache"), ("Content-Encoding", "identity")]);
                write_stream_head(out, &headers, "text/event-stream", false);
                out.extend_from_slice(b":\r\n"); // Firefox opens an event source when something comes
            }
            Transport::LongPolling => {
                self.one_by_one += 1;
                connection.transport.is_blocked = true; // for ever: it is written to by polls
                connection.is_reported = is_reported;
                self.slab.at(slot).is_reported = false;
                if is_reported {
                    self.common.events.push(self.index, Event::Moved(whose, id));
                }
                if matches!(asked.signalr, Some(SignalROpening::Connect(..))) {
                    self.signalr_at(target).requests_mut().handle_poll(whose.connection);
                    self.finish_first_poll(slot, asked);
                }
            }
        }
        self.timers.set(target, self.settings.hubs.handshake_timeout);
        if target == slot {
            self.flush(slot);
        }
        Some(target)
    }

    /// The entry that a token names, a new token where there was no negotiate, and whether it may change its socket.
    fn claim_connection(
        &mut self,
        slot: u32,
        transport: Transport,
        token: Option<Token>,
    ) -> Result<(u32, Token, bool), Refusal> {
        let unavailable = |why: String| Refusal::new(503, why);
        // Of polls it is one without a socket.
        let target = if transport == Transport::LongPolling {
            let made = self.slab.insert(|generation, _| Connection::new(None, generation));
            let made = made.ok_or_else(|| unavailable("no connection is free".to_owned()))?;
            self.slab.at(made).since_tick = self.timers.tick();
            made
        } else {
            slot
        };
        let Some(token) = token else {
            let token = tokens::random().map_err(|error| unavailable(error.to_string()))?;
            return Ok((target, token, false));
        };
        match self.common.tokens.claim(&token, self.id_of(target)) {
            Some(is_stateful) => Ok((target, token, is_stateful)),
            None => {
                if target != slot {
                    self.slab.bury(target);
                }
                Err(no_connection())
            }
        }
    }

    pub(super) fn formats_on(&self, route: &Placed, transport: Transport) -> Formats {
        signalr::formats_on(transport, self.settings.speaks_msgpack || route.asks.records)
    }

    /// A subscription of a connection that has not shaken hands begins when it does, at the same place in the log of its
    /// format. What comes until then is kept within the bounds of the channel's backlog.
    pub(in crate::shard) fn hold(&mut self, slot: u32, watched: Watched, origin: Origin) {
        let held_max = self.settings.subscriptions_max;
        let held = self.held.entry(slot).or_default();
        if held.len() < held_max && !held.iter().any(|one| Arc::ptr_eq(&one.0.channel, &watched.channel)) {
            held.push((watched, origin));
        }
    }

    /// Whether what it subscribes to is held.
    pub(in crate::shard) fn awaits_handshake(&self, slot: u32) -> bool {
        let signalr = self.slab.get(slot).and_then(|connection| connection.session.signalr());
        signalr.is_some_and(|signalr| !signalr.has_shaken_hands)
    }

    /// It has no subscription to this channel any more that is held.
    pub(in crate::shard) fn let_go_of_held(&mut self, slot: u32, channel: &Arc<Channel>) {
        if let Some(held) = self.held.get_mut(&slot) {
            held.retain(|one| !Arc::ptr_eq(&one.0.channel, channel));
        }
    }

    /// The channels that a connection is on from its handshake: everybody's of its path, and its user's.
    pub(super) fn take_own_channels(&mut self, slot: u32) -> Vec<Watched> {
        let signalr = self.slab.get_mut(slot).and_then(|connection| connection.session.signalr_mut());
        let user = signalr.and_then(|signalr| signalr.user.take());
        let Some(connection) = self.slab.get(slot) else { return Vec::new() };
        let path = connection.route.as_ref().map(|route| route.path());
        let everybody = path.and_then(|path| self.watch_unlisted(&self.common.hubs, path, connection.format));
        let user = user.and_then(|user| user.watch(connection.format.into(), self.index));
        everybody.into_iter().chain(user).collect()
    }
}

/// Refuses a transport that the path's clients may not use, in the reference's words.
pub(super) fn check_transport(route: &Placed, transport: Transport) -> Result<(), Refusal> {
    if allows(route, transport) {
        return Ok(());
    }
    let text = format!("{} transport not supported by this end point type", transport.name());
    Err(Refusal::new(404, text))
}

fn allows(route: &Placed, transport: Transport) -> bool {
    matches!(route.wire, Wire::SignalR(transports) if transports.allow(transport))
}

/// The public name of a connection; says nothing about its token.
pub(super) fn connection_id_of(token: &Token) -> String {
    let digest = Sha1::digest(unmarked(*token));
    encode_id(digest[..16].try_into().expect("SHA-1 gives 20 bytes"))
}

pub(super) fn no_connection() -> Refusal {
    Refusal::new(404, "No Connection with that ID")
}

fn id_required() -> Refusal {
    Refusal::new(400, "Connection ID required")
}

/// What the query carries as `id`, read as a token.
fn id_of_query(head: &RequestHead<'_>, read: impl Fn(&str) -> Option<Token>) -> Result<Option<Token>, Refusal> {
    for pair in query_pairs(head.query.unwrap_or("")) {
        let (name, value) = pair?;
        if name.eq_ignore_ascii_case("id") && !value.is_empty() {
            return read(&value).map(Some).ok_or_else(no_connection);
        }
    }
    Ok(None)
}
