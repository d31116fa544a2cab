//! What the query of an opening asks for: channels, a format, a filter, and where to begin.
use super::answers::Refusal;
use super::event_ids::positions_in;
use super::{Io, Shard};
use crate::channel::{Filter, Start, check_name};
use crate::http::{RequestHead, query_pairs};
use crate::messages::Wanted;
use crate::position::Position;
use crate::protocol::Format;
use crate::routes::Placed;
use crate::session::no_start;

/// The subprotocol, and the format, of those who want objects as MessagePack.
pub(super) const MSGPACK: &str = "msgpack";

/// The header with which `EventSource` comes back (WHATWG HTML §9.2.4).
const LAST_EVENT_ID: &str = "last-event-id";

/// What polyfills of `EventSource`, which cannot set that header, put into the query instead; the header goes before it.
const LAST_EVENT_ID_PARAMETER: &str = "lastEventId";

/// What the query asks for.
#[derive(Default)]
pub(super) struct Query {
    pub(super) channels: Vec<String>,
    pub(super) is_msgpack: bool,
    is_enveloped: bool,
    /// An edge, which gets publications whole.
    pub(super) is_edge: bool,
    last_event_id: Option<String>,
    pub(super) wanted: Wanted,
}

impl Query {
    /// The format of a WebSocket that asks for this.
    pub(super) fn websocket_format(&self) -> Format {
        match (self.is_msgpack, self.is_enveloped) {
            (false, _) if self.is_edge => Format::Edge,
            (true, _) if self.is_edge => Format::EdgeMsgpack,
            (false, false) => Format::Raw,
            (true, false) => Format::RawMsgpack,
            (false, true) => Format::Envelope,
            (true, true) => Format::EnvelopeMsgpack,
        }
    }

    /// The id of the last event that an event stream had goes before what its query says, which is from its first time.
    ///
    /// An id that is no position of ours recovers nothing, and is no error: `EventSource` would not come back from one.
    pub(super) fn recover_last_event(&mut self, head: &RequestHead<'_>, subscriptions_max: usize) {
        let by_query = self.last_event_id.as_deref().map(str::as_bytes);
        let Some(id) = head.header(LAST_EVENT_ID).or(by_query).filter(|id| !id.is_empty()) else { return };
        let mut positions = positions_in(id, subscriptions_max);
        if positions.is_empty() {
            positions.push(Position { epoch: 0, offset: 0 });
        }
        self.wanted.since = positions.into_iter().map(|position| (None, position)).collect();
        self.wanted.is_told = true;
    }
}

impl<I: Io> Shard<I> {
    /// A comma may stand in a name, but who writes one may have meant several: said in the log, once a shard.
    fn hint_at_comma(&mut self, name: &str) {
        if !std::mem::replace(&mut self.has_hinted_at_comma, true) {
            let name: String = name.chars().take(80).collect();
            self.record(30, format!("a client asked for the one channel {name:?}: several are ?channel=a&channel=b"));
        }
    }

    /// What the query asks for, behind the channel that the path itself names.
    pub(super) fn read_query(&mut self, route: &Placed, head: &RequestHead<'_>) -> Result<Query, Refusal> {
        let mut query = Query::default();
        let mut misspelt = None;
        let bad = |text: String| Refusal::new(400, text);
        query.channels.extend(route.channel_of(head.path).map_err(bad)?);
        for pair in query_pairs(head.query.unwrap_or("")) {
            let (key, value) = pair?;
            match (&*key, &*value) {
                ("channel", name) => {
                    check_name(name).map_err(|error| bad(error.to_string()))?;
                    query.channels.push(name.to_owned());
                }
                ("channels", names) => misspelt = Some(names.to_owned()),
                ("format", "json") => query.is_msgpack = false,
                ("format", MSGPACK) if !self.settings.speaks_msgpack => return Err(bad(no_msgpack("format"))),
                ("format", MSGPACK) => query.is_msgpack = true,
                ("format", other) => return Err(bad(format!("format {other:?}: there are json and msgpack"))),
                ("envelope", "1" | "true") => query.is_enveloped = true,
                ("envelope", "0" | "false") => query.is_enveloped = false,
                ("envelope", other) => return Err(bad(format!("envelope {other:?}: expected 1 or 0"))),
                ("start", start) => {
                    let found = Start::from_name(start).ok_or_else(|| bad(no_start(start)))?;
                    query.wanted.start = Some(found);
                }
                ("filter", filter) => {
                    query.wanted.view.filter = Filter::parse(filter).map_err(|error| bad(error.to_string()))?;
                }
                ("since", position) => {
                    let position = position.parse().map_err(|error| bad(format!("since: {error}")))?;
                    query.wanted.since.push((None, position));
                    query.wanted.is_told = true;
                }
                (name, id) if name.eq_ignore_ascii_case(LAST_EVENT_ID_PARAMETER) => {
                    query.last_event_id = Some(id.to_owned());
                }
                _ => {} // the application's
            }
        }
        match (misspelt, query.channels.first()) {
            (Some(names), None) => return Err(bad(no_channels(&names))),
            (_, Some(name)) if name.contains(',') => self.hint_at_comma(name),
            _ => {}
        }
        let (count, bound) = (query.channels.len(), self.settings.subscriptions_max);
        if count > bound {
            return Err(bad(format!("{count} channels are over the bound of {bound}")));
        }
        Ok(query)
    }
}

/// What a client is told that asks for MessagePack where it is off.
pub(super) fn no_msgpack(asked_by: &str) -> String {
    format!("{asked_by} {MSGPACK:?}: this hub has json alone")
}

/// What a client is told that asks for `channels`, which nobody gives.
fn no_channels(names: &str) -> String {
    let all: Vec<String> = names.split(',').take(3).map(|name| format!("channel={}", name.trim())).collect();
    format!("channels: the parameter is channel, once for each, as in ?{}", all.join("&"))
}
