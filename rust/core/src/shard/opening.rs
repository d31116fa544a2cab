//! From the first byte to an open connection: request heads, paths, upgrades, event streams and plain answers.
use std::borrow::Cow;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, PoisonError};

use super::answers::{
    AnsweredBy, HTML, PLAIN, Refusal, TEXT, UNCACHED, accepts_event_stream, check_plain, cors_headers, pairs, with_cors,
};
use super::connection::Connection;
use super::gzipping::accept_event_stream;
use super::query::{MSGPACK, no_msgpack};
use super::{Io, Shard};
use crate::channel::{Channel, Inflates, View, Watched, watch_all};
use crate::http::{RequestHead, is_token, parse_head, write_response, write_response_head};
use crate::messages::{ClosedBy, Command, Event, Header, Reply, Request, Whose};
use crate::node::EDGE_SUBPROTOCOLS;
use crate::protocol::{Format, Formats};
use crate::routes::{Found, Placed, Wire};
use crate::session::Asked;
use crate::stats::Opened;
use crate::ws::{CloseCode, DeflateAgreement, is_upgrade, offered_subprotocols, read_upgrade, write_accept};

/// Where openings are asked about, Python says the same.
const NOT_CHOSEN: &str = "a client offered subprotocols and none was chosen, so a browser fails with 1006: name those \
                          that you take in Hub(subprotocols=[...]), or have authenticate set request.subprotocol (this \
                          is said once)";

impl<I: Io> Shard<I> {
    /// Takes bytes of a request head; a whole one is answered or lies with the application afterwards.
    pub(super) fn take_head(&mut self, slot: u32, bytes: &[u8]) -> usize {
        let mut partial = self.slab.at(slot).session.take_partial_head();
        let had = partial.len();
        let head_bytes_max = self.settings.head_bytes_max;
        let whole: &[u8] = if had == 0 {
            bytes
        } else {
            // No more than the bound is ever needed to see a head that is whole or too long.
            partial.extend_from_slice(&bytes[..bytes.len().min(head_bytes_max + 1 - had.min(head_bytes_max))]);
            &partial
        };
        match parse_head(whole, head_bytes_max) {
            Ok(None) => {
                self.slab.at(slot).session.keep_partial_head(whole.to_vec());
                bytes.len()
            }
            Ok(Some((head, taken))) => match self.answer_once(slot, &head) {
                Ok(AnsweredBy::ThisShard) => taken - had,
                Ok(AnsweredBy::Shard(shard)) => {
                    self.hand_over(slot, shard, [&partial[..had], bytes].concat());
                    bytes.len()
                }
                Ok(AnsweredBy::Worker(elsewhere)) if elsewhere.takes_socket => {
                    self.pass_socket_on(slot, &elsewhere, [&partial[..had], bytes].concat());
                    bytes.len()
                }
                Ok(AnsweredBy::Worker(elsewhere)) => {
                    let head = whole[..taken].to_vec();
                    self.pass_request_on(slot, elsewhere, head);
                    taken - had
                }
                Err(refusal) => {
                    self.refuse(slot, &Refusal { is_head: head.method == "HEAD", ..refusal });
                    taken - had
                }
            },
            Err(error) => {
                let is_head = whole.starts_with(b"HEAD ");
                self.refuse(slot, &Refusal { is_head, ..Refusal::new(error.status(), error.to_string()) });
                bytes.len()
            }
        }
    }

    /// What is known of one request is not known of the next.
    fn answer_once(&mut self, slot: u32, head: &RequestHead<'_>) -> Result<AnsweredBy, Refusal> {
        let answered = self.answer(slot, head);
        self.is_settled = false;
        answered
    }

    /// Does what a head asks for. What the session is then is said by whatever that is.
    fn answer(&mut self, slot: u32, head: &RequestHead<'_>) -> Result<AnsweredBy, Refusal> {
        let Some(Found { route, is_negotiate }) = self.routes().find(head.path) else {
            let is_bare = self.routes.is_below_signalr(head.path);
            let text = if is_bare { String::new() } else { no_such_path(head.path, self.routes.nearest(head.path)) };
            return Err(Refusal { is_bare, ..Refusal::new(404, text) });
        };
        self.slab.at(slot).route = Some(Arc::clone(&route));
        if matches!(route.wire, Wire::SignalR(_)) {
            let answered = self.answer_signalr(slot, head, &route, is_negotiate);
            let is_poll = head.method == "GET" && !is_negotiate && !is_upgrade(head) && !accepts_event_stream(head);
            return answered.map_err(|refusal| Refusal {
                is_bare: true,
                is_uncached: is_poll,
                readable_by: self.signalr_readable_by(&route, head),
                ..refusal
            });
        }
        self.answer_path(slot, &route, head)?;
        Ok(AnsweredBy::ThisShard)
    }

    fn answer_path(&mut self, slot: u32, route: &Placed, head: &RequestHead<'_>) -> Result<(), Refusal> {
        if matches!(route.wire, Wire::WebSocket | Wire::Plain) {
            return self.answer_route(slot, route, head);
        }
        if head.method == "OPTIONS" && head.header("access-control-request-method").is_some() {
            self.answer_preflight(slot, head, self.fetchable_by(route, head));
            return Ok(());
        }
        let answered = self.answer_route(slot, route, head);
        // A page that may read the answer may read why there is none.
        answered.map_err(|refusal| Refusal { readable_by: self.fetchable_by(route, head), ..refusal })
    }

    fn answer_route(&mut self, slot: u32, route: &Placed, head: &RequestHead<'_>) -> Result<(), Refusal> {
        match route.wire {
            Wire::WebSocket if asks_for_a_page(head) => {
                let keeps_alive = check_plain(head)?;
                let is_head = head.method == "HEAD";
                self.respond(slot, (200, &WELCOME_HEADERS), HTML, WELCOME, (keeps_alive, is_head));
                Ok(())
            }
            Wire::WebSocket => self.open_websocket(slot, route, head),
            Wire::EventStream => self.open_event_stream(slot, route, head),
            Wire::Plain => self.open_plain(slot, route, head),
            Wire::SignalR(_) => unreachable!("`answer` has dealt with it"),
            Wire::Health => self.answer_plainly(slot, route, head, 200, "ok\n"),
            Wire::Ready => self.answer_ready(slot, route, head),
            Wire::Request => self.answer_request(slot, route, head),
        }
    }

    /// Has the owner answer: the connection waits.
    pub(super) fn ask(&mut self, slot: u32, asked: Asked, event: impl FnOnce(Whose) -> Event) {
        let connection = self.slab.at(slot);
        connection.session.ask(asked);
        connection.is_reported = true;
        self.common.events.push(self.index, event(self.whose(slot)));
    }

    fn open_websocket(&mut self, slot: u32, route: &Placed, head: &RequestHead<'_>) -> Result<(), Refusal> {
        let upgrade = read_upgrade(head)?;
        self.check_may_open(route, head)?;
        let mut query = self.read_query(route, head)?;
        let [_, edge_msgpack] = EDGE_SUBPROTOCOLS;
        let known = |name: &&str| *name == MSGPACK || EDGE_SUBPROTOCOLS.contains(name);
        let subprotocol = offered_subprotocols(head).find(known);
        query.is_edge = subprotocol.is_some_and(|name| EDGE_SUBPROTOCOLS.contains(&name));
        query.is_msgpack |= subprotocol.is_some_and(|name| name == MSGPACK || name == edge_msgpack);
        if query.is_msgpack && !self.settings.speaks_msgpack {
            return Err(Refusal::new(400, no_msgpack("subprotocol")));
        }
        if query.is_edge && self.settings.edge_subscriptions_max == 0 {
            return Err(Refusal::new(403, "this hub takes no edges: its edge_subscriptions_max is 0"));
        }
        let is_left = subprotocol.is_none() && offered_subprotocols(head).next().is_some();
        if is_left && !route.asks.opening && !self.has_told_of_subprotocols {
            self.has_told_of_subprotocols = true;
            self.record(30, NOT_CHOSEN.to_owned()); // not what was offered: it may be a token
        }
        let upgrade = Some((upgrade, subprotocol.map(Box::from)));
        let deflate = self.agree_deflate(head).filter(|_| !query.is_edge);
        let asked = Asked { upgrade, deflate, wanted: query.wanted.clone(), ..Asked::default() };
        self.open_or_ask(slot, (route, head), asked, query.websocket_format().into(), query.channels)
    }

    /// A WebSocket whose messages are passed on: whether it opens, and with which subprotocol, is its owner's to say.
    fn open_plain(&mut self, slot: u32, route: &Placed, head: &RequestHead<'_>) -> Result<(), Refusal> {
        let upgrade = read_upgrade(head)?;
        self.check_may_open(route, head)?;
        self.slab.at(slot).format = Format::Raw;
        self.note_formats(slot, Format::Raw.into());
        let request = self.own(slot, route, head, (Vec::new(), View::default()));
        let (deflate, since_ns) = (self.agree_deflate(head), self.clock.now_ns());
        let asked = Asked { upgrade: Some((upgrade, None)), deflate, since_ns, ..Asked::default() };
        self.ask(slot, asked, |whose| Event::Opening(whose, Box::new(request)));
        Ok(())
    }

    /// What is agreed of permessage-deflate with who asks so.
    pub(super) fn agree_deflate(&self, head: &RequestHead<'_>) -> Option<DeflateAgreement> {
        let inflates = self.settings.permessage_deflate && !head.header("user-agent").is_some_and(cannot_inflate);
        inflates.then(|| DeflateAgreement::negotiate_shared(head.headers_named("sec-websocket-extensions")))?
    }

    fn open_event_stream(&mut self, slot: u32, route: &Placed, head: &RequestHead<'_>) -> Result<(), Refusal> {
        if head.method != "GET" {
            return Err(Refusal {
                headers: &[("Allow", "GET")],
                ..Refusal::new(405, format!("{} {}: only GET opens an event stream", head.method, head.path))
            });
        }
        if is_upgrade(head) {
            let text = format!("{} is a stream of server-sent events, not a WebSocket; use /ws", head.path);
            return Err(Refusal::new(400, text));
        }
        self.check_may_open(route, head)?;
        let mut query = self.read_query(route, head)?;
        query.recover_last_event(head, self.settings.subscriptions_max);
        let format = self.event_stream_format(head, &query);
        let asked = Asked { readable_by: self.readable_by(route, head), wanted: query.wanted, ..Asked::default() };
        self.open_or_ask(slot, (route, head), asked, format.into(), query.channels)
    }

    /// A client was let in that asked so.
    pub(super) fn count_opening(&self, opened: Opened, asked: &Asked) {
        self.stats.count_opening(opened, self.clock.now_ns().saturating_sub(asked.since_ns));
    }

    pub(super) fn open_or_ask(
        &mut self,
        slot: u32,
        (route, head): (&Placed, &RequestHead<'_>),
        mut asked: Asked,
        formats: Formats,
        channels: Vec<String>,
    ) -> Result<(), Refusal> {
        asked.since_ns = self.clock.now_ns();
        self.slab.at(slot).format = formats.iter().next().unwrap_or(Format::Raw);
        self.note_formats(slot, formats);
        if route.asks.opening && !self.admits_alike(slot, (route, head), &asked) {
            let request = self.own(slot, route, head, (channels, asked.wanted.view.clone()));
            self.ask(slot, asked, |whose| Event::Opening(whose, Box::new(request)));
            return Ok(());
        }
        let obtain = |name: &String| self.obtain_channel(name).map_err(|error| Refusal::new(503, error.to_string()));
        let channels = channels.iter().map(obtain).collect::<Result<Vec<_>, _>>()?;
        if self.has_to_wait(&channels, &asked.wanted) {
            let wanted = asked.wanted.clone();
            self.slab.at(slot).session.ask(Asked { has_waited: true, ..asked });
            let accept = |id, watched, errors: Vec<String>| match errors.is_empty() {
                true => Command::Accept(id, watched, None, Reply::default()),
                false => Command::cannot_open(id, &errors),
            };
            return self
                .when_ready(slot, formats, (channels, &wanted), accept)
                .map_err(|error| Refusal::new(503, error.to_string()));
        }
        let watched = watch_all(&channels, (formats, self.index), &asked.wanted.view);
        let watched = watched.map_err(|error| Refusal::new(503, error.to_string()))?;
        self.open(slot, &asked, watched, None);
        Ok(())
    }

    /// Answers an upgrade or event stream with success; the subscriptions begin with its first byte.
    fn open(&mut self, slot: u32, asked: &Asked, watched: Vec<Watched>, user: Option<Arc<Channel>>) {
        if let Some(opening) = asked.signalr {
            return self.open_signalr(slot, asked, opening, (user, watched));
        }
        let connection = self.slab.at(slot);
        let passes_on = connection.route.as_ref().is_some_and(|route| route.wire == Wire::Plain);
        let opened = match (&asked.upgrade, passes_on) {
            (Some(_), true) => Opened::Relayed,
            (Some(_), false) => Opened::WebSocket,
            (None, _) => Opened::EventStream,
        };
        self.count_opening(opened, asked);
        let connection = self.slab.at(slot);
        if asked.upgrade.is_some() {
            accept_websocket(connection, asked);
            connection.session.open_websocket(passes_on);
        } else {
            accept_event_stream(connection, asked);
            connection.session.open_event_stream();
        }
        self.timers.set(slot, self.settings.ping_interval);
        self.flush(slot);
        if self.slab.get(slot).is_none() {
            return;
        }
        self.subscribe_opened(slot, watched, &asked.wanted);
        if self.slab.get(slot).is_some() && self.asks(slot).connected {
            self.slab.at(slot).is_reported = true;
            self.common.events.push(self.index, Event::Connected(self.whose(slot), None));
        }
    }

    /// The application accepts.
    pub(super) fn accept_asked(
        &mut self,
        slot: u32,
        mut watched: Vec<Watched>,
        user: Option<Arc<Channel>>,
        reply: Reply,
    ) {
        if self.has_to_wait_to_open(slot, &watched) {
            return self.open_when_ready(slot, watched, (user, reply));
        }
        if let Some(mut asked) = self.slab.at(slot).session.take_asked(false) {
            asked.headers = reply.headers;
            if let (Some((_, chosen)), Some(name)) = (&mut asked.upgrade, reply.subprotocol) {
                *chosen = Some(name);
            }
            let format = self.slab.at(slot).format;
            if let (None, Some(user)) = (&asked.signalr, &user) {
                watched.extend(user.watch(format.into(), self.index));
            }
            self.open(slot, &asked, watched, user);
            self.resume_reading(slot);
        }
    }

    /// The backend of a relayed WebSocket accepts.
    pub(super) fn accept_relayed(&mut self, slot: u32, reply: Reply) {
        if !self.slab.at(slot).route.as_ref().is_some_and(|route| route.wire == Wire::Plain) {
            return;
        }
        if let Some(mut asked) = self.slab.at(slot).session.take_asked(false) {
            asked.headers = reply.headers;
            if let Some((_, chosen)) = &mut asked.upgrade {
                *chosen = reply.subprotocol.filter(|name| is_token(name.as_bytes()));
            }
            self.open(slot, &asked, Vec::new(), None);
            self.resume_reading(slot);
        }
    }

    /// The application answers.
    pub(super) fn respond_asked(
        &mut self,
        slot: u32,
        (status, own): (u16, &[Header]),
        content_type: &str,
        body: &[u8],
    ) {
        let Some(asked) = self.slab.at(slot).session.take_asked(true) else { return };
        let mut headers = with_cors(asked.readable_by.as_deref(), own);
        if status == 401 && !own.iter().any(|(name, _)| name.eq_ignore_ascii_case("WWW-Authenticate")) {
            headers.push(("WWW-Authenticate", "Bearer")); // RFC 9110 §11.6.1 asks for one
        }
        // A shell wants a line's end behind an error; a SignalR client would show it.
        let has_line_end = status >= 400 && !body.is_empty() && asked.signalr.is_none();
        let line = if has_line_end { [body, b"\n"].concat().into() } else { Cow::Borrowed(body) };
        self.respond(slot, (status, &headers), content_type, &line, (false, asked.is_head));
        self.later.push(self.id_of(slot)); // the peer may have ended its half long ago
    }

    /// Whether clients are served, by whichever worker: who asks wants to know whether to send some.
    fn answer_ready(&mut self, slot: u32, route: &Placed, head: &RequestHead<'_>) -> Result<(), Refusal> {
        let readiness = self.common.readiness.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let why_not = if self.is_draining && !readiness.others_serve {
            Some("draining\n")
        } else if self.common.failure.has_come() {
            Some("a thread of the engine has died\n")
        } else {
            readiness.why_not.as_deref()
        };
        let (status, text) = why_not.map_or((200, "ready\n"), |why_not| (503, why_not));
        self.answer_plainly(slot, route, head, status, text)
    }

    fn answer_plainly(
        &mut self,
        slot: u32,
        route: &Placed,
        head: &RequestHead<'_>,
        status: u16,
        text: &str,
    ) -> Result<(), Refusal> {
        let keeps_alive = check_plain(head)? && !self.is_draining;
        let readable_by = self.fetchable_by(route, head);
        let cors = cors_headers(readable_by.as_deref());
        self.respond(slot, (status, &cors), TEXT, text.as_bytes(), (keeps_alive, head.method == "HEAD"));
        Ok(())
    }

    pub(super) fn refuse(&mut self, slot: u32, refusal: &Refusal) {
        let mut readable_by = refusal.readable_by.clone();
        let (mut is_bare, mut is_head) = (refusal.is_bare, refusal.is_head);
        let session = &self.slab.at(slot).session;
        if let Some(asked) = session.asked() {
            is_bare |= asked.signalr.is_some();
            is_head |= asked.is_head;
            readable_by.clone_from(&asked.readable_by);
        }
        if let Some(asked) = session.incoming().map(|incoming| &incoming.asked) {
            is_head |= asked.is_head;
            readable_by.clone_from(&asked.readable_by);
        }
        if let Some(away) = session.away() {
            is_bare = true;
            readable_by.clone_from(&away.readable_by);
            self.abandon(slot);
        }
        let session = &self.slab.at(slot).session;
        if let Some(post) = session.post() {
            is_bare = true;
            readable_by.clone_from(&post.readable_by);
            let to = post.to;
            self.leave_posts(self.id_of(slot), to);
        }
        let (body, kind) = if is_bare { (refusal.text.clone(), PLAIN) } else { (format!("{}\n", refusal.text), TEXT) };
        let uncached: &[_] = if refusal.is_uncached { &UNCACHED } else { &[] };
        let headers = [refusal.headers, uncached, &cors_headers(readable_by.as_deref())].concat();
        self.respond(slot, (refusal.status, &headers), kind, body.as_bytes(), (false, is_head));
    }

    /// Writes a response; then the connection waits for the next request, or ends.
    pub(super) fn respond(
        &mut self,
        slot: u32,
        (status, headers): (u16, &[(&str, &str)]),
        content_type: &str,
        body: &[u8],
        (keeps_alive, is_head): (bool, bool),
    ) {
        let out = self.slab.at(slot).transport.outbox.bytes_mut();
        if is_head {
            write_response_head(out, status, headers, content_type, body.len(), keeps_alive);
        } else {
            write_response(out, status, headers, content_type, body, keeps_alive);
        }
        self.stats.count_answer(status);
        self.slab.at(slot).session.finish_request(keeps_alive);
        if self.answer_guest(slot, keeps_alive) {
            return;
        }
        if keeps_alive {
            self.timers.set(slot, self.settings.handshake_timeout);
            self.flush(slot);
        } else {
            self.end_soon(slot, CloseCode::ABNORMAL, "", ClosedBy::Server);
        }
    }

    /// The upgrade did not come in time.
    pub(super) fn refuse_late(&mut self, slot: u32) {
        let seconds = self.settings.handshake_timeout.as_secs_f64();
        let is_behind_a_post = self.waits_for_another_post(slot);
        let connection = self.slab.at(slot);
        let is_away = connection.session.away().is_some();
        // What is unread waits for room among the application's events.
        let refusal = if is_behind_a_post {
            Refusal::new(503, format!("a post of this connection that came before was not over within {seconds} s"))
        } else if is_away {
            Refusal::new(503, format!("the connection's worker did not answer within {seconds} s"))
        } else if connection.transport.unread.take().is_some() || connection.session.asked().is_some() {
            Refusal::new(503, format!("the application did not answer within {seconds} s"))
        } else {
            Refusal::new(408, format!("no whole request within {seconds} s"))
        };
        self.refuse(slot, &refusal);
    }

    pub(super) fn check_may_open(&self, route: &Placed, head: &RequestHead<'_>) -> Result<(), Refusal> {
        if self.is_draining && self.late.is_none() {
            return Err(Refusal::new(503, "draining"));
        }
        let (Some(allowed), Some(origin)) = (self.origins_of(route), head.header("origin")) else { return Ok(()) };
        if allowed.iter().any(|one| one.as_bytes().eq_ignore_ascii_case(origin)) {
            return Ok(());
        }
        Err(Refusal::new(403, format!("origin {:?} is not allowed", String::from_utf8_lossy(origin))))
    }

    fn origins_of<'a>(&'a self, route: &'a Placed) -> Option<&'a [String]> {
        route.origins.as_deref().or(self.settings.origins.as_deref())
    }

    /// Whose pages may read an event stream: `*`, the request's origin, which was checked before, or none.
    fn readable_by(&self, route: &Placed, head: &RequestHead<'_>) -> Option<Box<str>> {
        match self.origins_of(route) {
            None => Some("*".into()),
            Some(_) => head.header("origin").map(|origin| String::from_utf8_lossy(origin).into()),
        }
    }

    /// Whose pages may read a plain answer: as an event stream, and nobody's whose origin may not connect.
    pub(super) fn fetchable_by(&self, route: &Placed, head: &RequestHead<'_>) -> Option<Box<str>> {
        self.check_may_open(route, head).ok().and_then(|()| self.readable_by(route, head))
    }

    /// The socket and what came on it go to the shard that has what it asks for.
    fn hand_over(&mut self, slot: u32, shard: usize, bytes: Vec<u8>) {
        if self.hand_guest_over(slot, shard, &bytes) {
            return;
        }
        if let Some(fd) = self.slab.at(slot).transport.fd.take() {
            self.io.unwatch(fd.as_raw_fd());
            self.stats.connections.sub(1);
            let client = self.clients_elsewhere.remove(&slot);
            self.common.shards[shard].command(Command::HandOver(fd, bytes, client));
        }
        self.drop_connection(slot);
    }

    /// Takes in a socket that another shard was asked on.
    pub(super) fn take_over(&mut self, fd: OwnedFd, mut bytes: Vec<u8>, client: Option<Box<str>>) {
        if let Some(slot) = self.welcome(fd, client) {
            self.take_bytes(slot, &mut bytes);
        }
    }

    /// Where the client is, as the application is told.
    pub(super) fn client_at(&self, slot: u32) -> String {
        let fd = self.slab.get(slot).and_then(|connection| connection.transport.socket());
        let of_socket = || fd.and_then(|fd| self.io.peer_address(fd)).map(|address| address.to_string());
        let client = self.clients_elsewhere.get(&slot).map(|client| client.to_string()).or_else(of_socket);
        client.unwrap_or_else(|| "unix:".to_owned())
    }

    pub(super) fn own(
        &self,
        slot: u32,
        route: &Placed,
        head: &RequestHead<'_>,
        (channels, view): (Vec<String>, View),
    ) -> Request {
        Request {
            method: head.method.to_owned(),
            target: head.query.map_or_else(|| head.path.to_owned(), |query| format!("{}?{query}", head.path)),
            headers: head.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec())).collect(),
            peer: self.client_at(slot),
            channels,
            view,
            wire: route.wire,
            subprotocols: offered_subprotocols(head).map(str::to_owned).collect(),
        }
    }
}

/// What a person sees who opens the address in a browser: what this is, and how to connect.
const WELCOME: &[u8] = include_bytes!("welcome.html");
/// The page needs nothing from elsewhere, and nobody else may frame it. Its lines are tried in its own console: it may connect.
const WELCOME_HEADERS: [(&str, &str); 3] = [
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src *; img-src data:; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Vary", "Accept, Upgrade"),
];

/// Whether a browser's address line asks, and no client: for `/`, for HTML by name, and for no upgrade.
fn asks_for_a_page(head: &RequestHead<'_>) -> bool {
    let names_html = |value: &[u8]| memchr::memmem::find(&value.to_ascii_lowercase(), b"text/html").is_some();
    head.path == "/"
        && matches!(head.method, "GET" | "HEAD")
        && !is_upgrade(head)
        && head.header("accept").is_some_and(names_html)
}

/// What a client is told of a path that there is not.
fn no_such_path(path: &str, meant: Option<&str>) -> String {
    match meant {
        Some(meant) => format!("no such path: {path}; the nearest is {meant}"),
        None => format!("no such path: {path}; WebSockets connect at /ws, event streams at /events"),
    }
}

/// Opens the WebSocket that was asked for: its response is in the outbox, and what is agreed in the connection.
pub(super) fn accept_websocket(connection: &mut Connection, asked: &Asked) {
    let (upgrade, subprotocol) = asked.upgrade.as_ref().expect("a WebSocket's opening has its upgrade");
    let answer = asked.deflate.map(|agreed| agreed.answer());
    let mut headers = pairs(&asked.headers);
    headers.extend(answer.as_deref().map(|answer| ("Sec-WebSocket-Extensions", answer)));
    write_accept(connection.transport.outbox.bytes_mut(), upgrade, subprotocol.as_deref(), &headers);
    connection.inflates = asked
        .deflate
        .map(|agreed| Inflates { window_bits: agreed.server_window_bits(), takes_over: agreed.server_takes_over() });
}

/// Safari up to 15.3 offers permessage-deflate and fails at compressed messages (uWebSockets#1347).
fn cannot_inflate(user_agent: &[u8]) -> bool {
    let text = String::from_utf8_lossy(user_agent);
    if !text.contains("Safari/") {
        return false;
    }
    let Some(version) = text.split("Version/").nth(1) else { return false };
    let mut numbers = version.split(|one: char| !one.is_ascii_digit()).map(|one| one.parse::<u32>().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    (major, minor) <= (15, 3)
}
