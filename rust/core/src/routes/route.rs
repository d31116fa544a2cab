//! What stands in the table: a path, what is spoken there, who answers for it and what that owner is asked.
use std::borrow::Cow;

use super::path::{PathSegment, parts_of, segments_of, shape_of};

use crate::channel::check_name;
use crate::http::decode_component;
use crate::protocol::signalr::negotiate::Transport;

/// Routes that there may be at once; 1 KiB each at most. A request looks at each pattern.
pub const ROUTES_MAX: usize = 1_024;

/// What clients ask for below a SignalR path.
pub(super) const NEGOTIATE: &str = "/negotiate";

/// Who answers for a path: a number of the application's choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnerId(pub u16);

/// What is spoken on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// WebSockets of clients that watch channels.
    WebSocket,
    /// Event streams of clients that watch channels.
    EventStream,
    /// A SignalR hub: found whatever the case, a slash at its end or not, with `/negotiate` below it.
    SignalR(Transports),
    /// WebSockets whose messages are passed on as they are.
    Plain,
    /// Plain requests, which the owner answers.
    Request,
    /// Whether the process lives.
    Health,
    /// Whether it serves.
    Ready,
}

/// Which transports SignalR's clients may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transports {
    /// WebSockets.
    pub web_sockets: bool,
    /// Server-Sent Events, with posts.
    pub server_sent_events: bool,
    /// Long polling, with posts.
    pub long_polling: bool,
}

impl Transports {
    /// Every one.
    pub const ALL: Self = Self { web_sockets: true, server_sent_events: true, long_polling: true };

    pub(crate) fn allow(self, transport: Transport) -> bool {
        match transport {
            Transport::WebSockets => self.web_sockets,
            Transport::ServerSentEvents => self.server_sent_events,
            Transport::LongPolling => self.long_polling,
        }
    }
}

/// What the owner of a path is asked and told of its clients. By default nothing but what it cannot do without: an idle
/// client costs it no event then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    /// Each opening waits for [`Engine::accept`](crate::Engine::accept). On a path of [`Wire::Plain`] it always does.
    pub opening: bool,
    /// Each subscription that a client asks for waits for [`Engine::grant`](crate::Engine::grant).
    pub subscribing: bool,
    /// It hears of each connection when that opens. Otherwise of SignalR's alone, with their first message.
    pub connected: bool,
    /// It takes messages that are no requests. Otherwise the first one is answered with an error that shows their form.
    pub messages: bool,
    /// It takes requests of any method on a path of [`Wire::Request`], with their whole body, up to
    /// [`Settings::body_bytes_max`](crate::Settings::body_bytes_max). Otherwise GET and HEAD alone.
    pub bodies: bool,
    /// Of a SignalR message it gets the whole record as well, to be passed on.
    pub records: bool,
}

/// What one client of a path may cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a message; `None` (default) as [`Settings`](crate::Settings) say.
    pub message_bytes_max: Option<usize>,
}

/// A path, and who answers for it.
#[derive(Clone, Debug)]
pub struct Route {
    /// As given.
    pub(super) path: Box<str>,
    segments: Vec<PathSegment>,
    /// The channel that a client of it watches.
    channel: Option<Vec<PathSegment>>,
    /// What is spoken there.
    pub wire: Wire,
    /// Who answers.
    pub owner: OwnerId,
    /// What the owner is asked.
    pub asks: Asks,
    /// What one client may cost.
    pub limits: Limits,
    /// Browsers' origins that may connect; `None` (default) as [`Settings`](crate::Settings) say.
    pub origins: Option<Vec<String>>,
}

/// Why there can be no such route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// No request could have the path, or its pattern is none.
    #[error("path {path:?}: must {why}")]
    BadPath {
        /// As given, at most 80 characters.
        path: String,
        /// The rule.
        why: &'static str,
    },
    /// No channel could have the name.
    #[error("channel {channel:?} of path {path:?}: {why}")]
    BadChannel {
        /// The path.
        path: String,
        /// As given, at most 80 characters.
        channel: String,
        /// What is wrong.
        why: String,
    },
    /// A request could mean this one and another.
    #[error("path {path:?} and {other:?} would hide each other")]
    Clash {
        /// The new one.
        path: String,
        /// The one that is there.
        other: String,
    },
    /// One more is one too many.
    #[error("path {path:?}: {ROUTES_MAX} paths is the bound")]
    TooMany {
        /// The new one.
        path: String,
    },
}

impl Route {
    /// A path without a channel, of which the owner is asked nothing. `{name}` in place of a segment stands for any text
    /// but none.
    ///
    /// # Errors
    /// [`RouteError::BadPath`].
    pub fn new(path: &str, wire: Wire, owner: OwnerId) -> Result<Self, RouteError> {
        let segments =
            segments_of(path).map_err(|why| RouteError::BadPath { path: path.chars().take(80).collect(), why })?;
        let has_placeholder = segments.iter().any(|one| matches!(one, PathSegment::Placeholder(_)));
        let has_channels = matches!(wire, Wire::WebSocket | Wire::EventStream);
        if has_placeholder && !has_channels {
            let why = "hold no placeholder: only paths of WebSockets and event streams have some";
            return Err(RouteError::BadPath { path: path.to_owned(), why });
        }
        let (asks, limits) = (Asks::default(), Limits::default());
        Ok(Self { path: path.into(), segments, channel: None, wire, owner, asks, limits, origins: None })
    }

    /// The same, whose clients watch the channel of this name from their opening on: `{name}` in it stands for what the
    /// path has there.
    ///
    /// # Errors
    /// [`RouteError::BadChannel`]: a placeholder that the path has not, or no channel could have such a name.
    pub fn with_channel(mut self, template: &str) -> Result<Self, RouteError> {
        let bad = |why: String| RouteError::BadChannel {
            path: self.path.to_string(),
            channel: template.chars().take(80).collect(),
            why,
        };
        let parts = parts_of(template).map_err(|why| bad(format!("must {why}")))?;
        if !matches!(self.wire, Wire::WebSocket | Wire::EventStream) {
            return Err(bad("only paths of WebSockets and event streams have one".to_owned()));
        }
        for part in &parts {
            if let PathSegment::Placeholder(name) = part
                && !self.segments.contains(part)
            {
                return Err(bad(format!("the path has no {{{name}}}")));
            }
        }
        let texts = parts.iter().map(|part| if let PathSegment::Text(text) = part { text } else { "x" });
        check_name(&texts.collect::<String>()).map_err(|error| bad(error.to_string()))?;
        self.channel = Some(parts);
        Ok(self)
    }

    /// As given.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The path in the one form in which requests are compared with it, `{}` for each placeholder: of SignalR in lower
    /// case. Two routes of one wire with equal keys are one.
    #[must_use]
    pub fn key(&self) -> String {
        let shape = shape_of(&self.segments);
        if self.is_signalr() { shape.to_ascii_lowercase() } else { shape }
    }

    pub(super) fn is_pattern(&self) -> bool {
        self.segments.iter().any(|one| matches!(one, PathSegment::Placeholder(_)))
    }

    pub(super) fn is_signalr(&self) -> bool {
        matches!(self.wire, Wire::SignalR(_))
    }

    /// What two routes may not both be, whatever their placeholders are called: in lower case for one that is found so.
    fn names(&self, is_folded: bool) -> Vec<String> {
        let path = shape_of(&self.segments);
        let path = if is_folded { path.to_ascii_lowercase() } else { path };
        let below = self.is_signalr().then(|| format!("{path}{NEGOTIATE}"));
        std::iter::once(path).chain(below).collect()
    }

    /// Whether a request could mean either with equal right.
    #[must_use]
    pub fn clashes_with(&self, other: &Self) -> bool {
        let is_folded = self.is_signalr() || other.is_signalr();
        let theirs = other.names(is_folded);
        self.names(is_folded).iter().any(|name| theirs.contains(name))
    }

    /// Whether this pattern is for a request's path, which is in its one form.
    pub(super) fn matches(&self, path: &str) -> bool {
        let mut segments = path.strip_prefix('/').unwrap_or(path).split('/');
        let is_of = |segment: &PathSegment| match (segment, segments.next()) {
            (PathSegment::Text(text), Some(one)) => **text == *one,
            (PathSegment::Placeholder(_), Some(one)) => !one.is_empty(),
            (_, None) => false,
        };
        self.segments.iter().all(is_of) && segments.next().is_none()
    }

    /// The channel that a client watches which asks for this path, if the route has one.
    ///
    /// # Errors
    /// Why no channel can have the name: the text of an answer with 400.
    pub(crate) fn channel_of(&self, path: &str) -> Result<Option<String>, String> {
        let Some(parts) = &self.channel else { return Ok(None) };
        let given: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
        let mut name = String::new();
        for part in parts {
            let text = match part {
                PathSegment::Text(text) => Cow::Borrowed(&**text),
                PathSegment::Placeholder(_) => {
                    let place = self.segments.iter().position(|one| one == part).expect("checked when it was made");
                    decode_component(given[place]).map_err(|error| error.to_string())?
                }
            };
            name.push_str(&text);
        }
        check_name(&name).map_err(|error| error.to_string())?;
        Ok(Some(name))
    }

    /// Which of two patterns that are for the same path is the more exact: that is first.
    pub(super) fn exactness(&self) -> Vec<bool> {
        self.segments.iter().map(|one| matches!(one, PathSegment::Placeholder(_))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: OwnerId = OwnerId(0);
    const HUB: Wire = Wire::SignalR(Transports::ALL);

    fn route(path: &str, wire: Wire) -> Route {
        Route::new(path, wire, OWNER).expect(path)
    }

    #[test]
    fn a_path_that_no_request_can_have_is_refused_with_the_rule() {
        let long = format!("/{}", "x".repeat(255));
        for (path, rule) in [
            ("ws", "begin with /"),
            ("/ws/", "not end with /"),
            ("/a//b", "no empty segment"),
            ("/a?b", "no ?"),
            ("/a b", "no space"),
            ("/a\0", "no control character"),
            ("/\u{a0}", "no space"),
            ("/\u{85}", "no control character"),
            ("/a\\b", "for which browsers send /"),
            ("/a/../b", "no segment . or .."),
            ("/%2E%2e/b", "no segment . or .."),
            (&format!("/{}", "ü".repeat(50)), "255 bytes, percent-encoded"),
            (&long, "255 bytes"),
            ("/{a}/{a}", "each placeholder once"),
            ("/x{a}", "a segment of its own"),
            ("/{}", "letters, digits and _"),
            ("/{a", "closed by a }"),
            ("/a}", "closed by a }"),
        ] {
            let error = Route::new(path, Wire::WebSocket, OWNER).expect_err(path).to_string();
            assert!(error.contains(rule), "{path}: {error}");
        }
        assert!(Route::new("/{a}", HUB, OWNER).is_err() && Route::new("/{a}", Wire::Plain, OWNER).is_err());
        for (template, rule) in [("a:{y}", "the path has no {y}"), ("", "not be empty"), ("{x", "closed by a }")] {
            let error = route("/{x}", Wire::WebSocket).with_channel(template).expect_err(template).to_string();
            assert!(error.contains(rule), "{template}: {error}");
        }
        assert!(route("/a", HUB).with_channel("a").is_err());
    }

    #[test]
    fn a_path_says_which_channel_is_watched() {
        let rooms = route("/{tenant}/ws/{room}", Wire::WebSocket).with_channel("odds:{room}:{tenant}").expect("good");
        let channel = |path: &str| rooms.channel_of(path).map(|name| name.expect("it has one"));
        assert_eq!(channel("/t/ws/a+b"), Ok("odds:a+b:t".to_owned()));
        assert_eq!(channel("/t%3A/ws/%C3%BC%2Fx"), Ok("odds:ü/x:t:".to_owned()));
        for (path, why) in [
            ("/t/ws/%FF", "not UTF-8"),
            ("/t/ws/%00", "control characters"),
            ("/t/ws/%2A", "must not hold *"),
            (&*format!("/t/ws/{}", "x".repeat(249)), "255 bytes"),
        ] {
            assert!(channel(path).expect_err(path).contains(why), "{path}");
        }
        assert_eq!(route("/{x}", Wire::WebSocket).channel_of("/7"), Ok(None));
    }
}
