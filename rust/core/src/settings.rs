//! Limits and options of an engine, frozen at start. Each says its unit, default and worst cost.
use std::time::Duration;

use crate::channel::pattern::Pattern;
use crate::channel::policy::{Policy, Start};
use crate::error::SettingsError;

/// Which system interface carries the writes of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollerKind {
    /// One `send` a connection.
    Epoll,
    /// Batches of sends through an io_uring.
    Uring,
}

/// What the channels that match a pattern promise; the first match wins.
#[derive(Clone, Debug)]
pub struct ChannelRule {
    /// Names it is for.
    pub pattern: Pattern,
    /// What they promise.
    pub settings: ChannelSettings,
}

/// What a channel promises its subscribers, and what it may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelSettings {
    /// What becomes of a subscriber that the bounds overtake, default [`Policy::Every`].
    pub policy: Policy,
    /// Bytes that a lagging subscriber may be behind, default 1 MiB. Worst cost: so much memory for each channel and wire
    /// format while somebody lags.
    pub backlog_bytes: u64,
    /// The same in frames, default 16,384; 40 bytes of index each.
    pub backlog_frames: usize,
    /// The same in time since the publication, default unbounded; looked at with each publication.
    pub backlog_age: Duration,
    /// Frames that are kept for who returns, default 0. Kept once for the channel, and once for each format in use.
    pub history_frames: usize,
    /// How long they are kept, default 300 s.
    pub history_age: Duration,
    /// Bytes of history, default 16 MiB. Worst cost: so much for each channel, and again for each format in use.
    pub history_bytes: u64,
    /// Where a new subscriber begins that does not say, default [`Start::Keyframe`].
    pub start: Start,
    /// How old a keyframe may be, at most, for new subscribers to begin there; an older one is asked for anew, of the
    /// application. `None` (default): it is never asked.
    pub snapshot_interval: Option<Duration>,
    /// Whether the application hears who joins and leaves, default false. An event for each, in batches.
    pub tells_presence: bool,
}

impl Default for ChannelSettings {
    fn default() -> Self {
        Self {
            policy: Policy::Every,
            backlog_bytes: 1 << 20,
            backlog_frames: 16_384,
            backlog_age: Duration::MAX,
            history_frames: 0,
            history_age: Duration::from_secs(300),
            history_bytes: 16 << 20,
            start: Start::Keyframe,
            snapshot_interval: None,
            tells_presence: false,
        }
    }
}

/// SignalR: paths and times; the defaults are those of ASP.NET Core.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// Each a hub of its own, such as `/signalr`; `/negotiate` below it, too. At most 255, default none.
    pub paths: Vec<String>,
    /// Indexes of the paths whose messages are relayed to a backend: their events carry the whole record. Default none.
    pub relayed: Vec<u8>,
    /// Between two pings to a client, default 15 s.
    pub keepalive: Duration,
    /// Silence after which a client that has pinged before is given up, default 30 s.
    pub client_timeout: Duration,
    /// From the transport to the hub protocol's handshake, default 15 s.
    pub handshake_timeout: Duration,
    /// From a negotiate to its transport, and from one long poll to the next, default 15 s.
    pub disconnect_timeout: Duration,
    /// How long a poll waits for messages, default 90 s.
    pub poll_timeout: Duration,
    /// Bytes of a hub message, default 32 KiB. A slow client makes us hold so much.
    pub message_bytes_max: usize,
    /// Whether a client that broke the protocol is told how, default false.
    pub tells_details: bool,
    /// Of each path that has fewer than all, by index: the transports that clients may use. Default none.
    pub transports: Vec<HubTransports>,
}

/// Which transports a hub's clients may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HubTransports {
    /// WebSockets.
    pub web_sockets: bool,
    /// Server-Sent Events, with posts.
    pub server_sent_events: bool,
    /// Long polling, with posts.
    pub long_polling: bool,
}

impl Default for HubSettings {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            relayed: Vec::new(),
            keepalive: Duration::from_secs(15),
            client_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(15),
            disconnect_timeout: Duration::from_secs(15),
            poll_timeout: Duration::from_secs(90),
            message_bytes_max: 32 << 10,
            tells_details: false,
            transports: Vec::new(),
        }
    }
}

/// All settings of an [`Engine`](crate::Engine).
#[derive(Clone, Debug)]
pub struct Settings {
    /// Threads, each with its own poller and connections; 1 to 64, default 1.
    pub shards: usize,
    /// `None` (default): io_uring where the kernel allows it, else epoll.
    pub poller: Option<PollerKind>,
    /// Promises by channel name; what matches none has [`ChannelSettings::default`].
    pub channels: Vec<ChannelRule>,
    /// Names whose channels have a [`ChannelSettings::snapshot_interval`], and what it is; the first match wins; default
    /// none.
    pub snapshots: Vec<(Pattern, Duration)>,
    /// Whether each upgrade waits for [`Engine::accept`](crate::Engine::accept); default false.
    pub asks_opening: bool,
    /// Whether each subscription that a client asks for (default: none) waits for [`Engine::subscribe`](crate::Engine::subscribe);
    /// default false.
    pub asks_subscribing: bool,
    /// Whether the application takes no messages but requests; the first other one of a client is answered with an error
    /// that shows their form; default false.
    pub ignores_messages: bool,
    /// Whether each connection is told of when it opens, not only SignalR's and those only with their first message;
    /// default false.
    pub tells_connected: bool,
    /// Browsers' origins that may connect; `None` (default) is all. A browser sends any site's pages here otherwise.
    pub origins: Option<Vec<String>>,
    /// Whether clients of this hub's own channels and methods may ask for MessagePack; default true.
    pub speaks_msgpack: bool,
    /// Bytes of a request head, default 16 KiB. A client may make us hold so much until `handshake_timeout`.
    pub head_bytes_max: usize,
    /// Bytes of a message from a client over all its fragments, default 64 KiB. So much for each client that cuts one.
    pub message_bytes_max: usize,
    /// Bytes of a publication's payload, default 1 MiB.
    pub publication_bytes_max: usize,
    /// Bytes that wait for a channel's shards before `publish` refuses, default 64 MiB.
    pub unsent_bytes_max: u64,
    /// Private bytes that wait for one client, default 256 KiB; more closes it with 1013.
    pub outbox_bytes_max: usize,
    /// Subscriptions of one client, default 1,000; 28 bytes each.
    pub subscriptions_max: usize,
    /// Channels that exist at once, default 1,000,000; about 300 bytes each when idle.
    pub channels_max: usize,
    /// Messages of one client that the application has not dealt with, default 16; then its socket is not read.
    pub messages_pending_max: u16,
    /// Events that wait for the application on one shard, default 16,384; then no socket is read.
    pub events_pending_max: usize,
    /// SignalR: paths, times and a bound; by default there is no hub.
    pub hubs: HubSettings,
    /// Paths, case as given, of WebSockets that are relayed to a backend as they are: each opening is the application's
    /// to decide, and each message its own. Default none.
    pub relayed_paths: Vec<String>,
    /// From accept to the end of the upgrade, default 10 s.
    pub handshake_timeout: Duration,
    /// Silence after which a client is pinged, default 25 s.
    pub ping_interval: Duration,
    /// Silence after that ping, default 20 s; then the client is closed with 1011.
    pub ping_timeout: Duration,
    /// How long a close handshake or a last answer may take, default 5 s.
    pub close_timeout: Duration,
    /// `TCP_NOTSENT_LOWAT`, bytes, default 16 KiB; 0 leaves the kernel's. What a slow reader has not taken beyond it
    /// stays in the log.
    pub notsent_lowat: u32,
    /// `TCP_CONGESTION` of the listener by the kernel's name, e.g. `reno`; `None` (default) leaves the system's.
    pub congestion_control: Option<String>,
    /// Backlog of `listen(2)`, default 4,096; the kernel caps it at `net.core.somaxconn`.
    pub backlog: i32,
    /// Permissions of a Unix socket, default `0o660`: its owner and its group may connect.
    pub unix_mode: u32,
    /// Whether shard i is bound to the i-th allowed CPU and its listener prefers that CPU (`SO_INCOMING_CPU`);
    /// default false.
    pub pins_shards: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            shards: 1,
            poller: None,
            channels: Vec::new(),
            snapshots: Vec::new(),
            asks_opening: false,
            asks_subscribing: false,
            ignores_messages: false,
            tells_connected: false,
            origins: None,
            speaks_msgpack: true,
            head_bytes_max: 16 << 10,
            message_bytes_max: 64 << 10,
            publication_bytes_max: 1 << 20,
            unsent_bytes_max: 64 << 20,
            outbox_bytes_max: 256 << 10,
            subscriptions_max: 1_000,
            channels_max: 1_000_000,
            messages_pending_max: 16,
            events_pending_max: 16_384,
            hubs: HubSettings::default(),
            relayed_paths: Vec::new(),
            handshake_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            close_timeout: Duration::from_secs(5),
            notsent_lowat: 16 << 10,
            congestion_control: None,
            backlog: 4_096,
            unix_mode: 0o660,
            pins_shards: false,
        }
    }
}

impl Settings {
    /// Checks every range once, so that nothing behind it has to.
    ///
    /// # Errors
    /// [`SettingsError`], which names the setting, the value and the range.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let ranges: [(&'static str, u64, u64, u64); 15] = [
            ("shards", self.shards as u64, 1, 64),
            ("head_bytes_max", self.head_bytes_max as u64, 256, 1 << 20),
            ("message_bytes_max", self.message_bytes_max as u64, 1, 1 << 30),
            ("publication_bytes_max", self.publication_bytes_max as u64, 1, 1 << 30),
            ("unsent_bytes_max", self.unsent_bytes_max, 1 << 10, 1 << 40),
            ("outbox_bytes_max", self.outbox_bytes_max as u64, 256, 1 << 30),
            ("subscriptions_max", self.subscriptions_max as u64, 1, 1 << 20),
            ("channels_max", self.channels_max as u64, 1, 1 << 24),
            ("messages_pending_max", u64::from(self.messages_pending_max), 1, 1 << 15),
            ("events_pending_max", self.events_pending_max as u64, 16, 1 << 24),
            ("notsent_lowat", u64::from(self.notsent_lowat), 0, 1 << 30),
            ("hub paths", self.hubs.paths.len() as u64, 0, 255),
            ("signalr_message_bytes_max", self.hubs.message_bytes_max as u64, 64, 1 << 30),
            ("unix_mode", self.unix_mode.into(), 0, 0o777),
            ("backlog", u64::try_from(self.backlog).unwrap_or(0), 1, 1 << 16),
        ];
        for (name, value, min, max) in ranges {
            if !(min..=max).contains(&value) {
                return Err(SettingsError::OutOfRange { name, value, min, max });
            }
        }
        let times = [
            ("handshake_timeout", self.handshake_timeout),
            ("ping_interval", self.ping_interval),
            ("ping_timeout", self.ping_timeout),
            ("close_timeout", self.close_timeout),
            ("signalr_keepalive", self.hubs.keepalive),
            ("signalr_client_timeout", self.hubs.client_timeout),
            ("signalr_handshake_timeout", self.hubs.handshake_timeout),
            ("signalr_disconnect_timeout", self.hubs.disconnect_timeout),
            ("signalr_poll_timeout", self.hubs.poll_timeout),
        ];
        for (name, value) in times {
            if value < Duration::from_millis(100) || value > Duration::from_secs(86_400) {
                return Err(SettingsError::TimeOutOfRange { name, value });
            }
        }
        for path in self.hubs.paths.iter().chain(&self.relayed_paths) {
            let taken = ["/", "/ws", "/events", "/healthz", "/readyz", "/metrics"];
            if !path.starts_with('/') || path.ends_with('/') || path.contains(['?', '#']) || taken.contains(&&**path) {
                return Err(SettingsError::BadPath { path: path.clone() });
            }
        }
        let is_hub = |path: &&String| self.hubs.paths.iter().any(|hub| hub.eq_ignore_ascii_case(path));
        if let Some(path) = self.relayed_paths.iter().find(is_hub) {
            return Err(SettingsError::BadPath { path: path.clone() });
        }
        for rule in &self.channels {
            let empty = [
                ("backlog_bytes", rule.settings.backlog_bytes == 0),
                ("backlog_frames", rule.settings.backlog_frames == 0),
                ("backlog_age", rule.settings.backlog_age.is_zero()),
                ("history_age", rule.settings.history_age.is_zero()),
                ("history_bytes", rule.settings.history_bytes == 0),
            ];
            if let Some((name, _)) = empty.into_iter().find(|one| one.1) {
                return Err(SettingsError::EmptyBacklog { name, pattern: rule.pattern.to_string() });
            }
        }
        Ok(())
    }

    /// What the channel called `name` promises.
    #[must_use]
    pub fn channel(&self, name: &str) -> ChannelSettings {
        let rule = self.channels.iter().find(|rule| rule.pattern.matches(name));
        let settings = rule.map_or_else(ChannelSettings::default, |rule| rule.settings);
        let snapshot = self.snapshots.iter().find(|(pattern, _)| pattern.matches(name));
        let snapshot_interval = snapshot.map(|(_, interval)| *interval).or(settings.snapshot_interval);
        ChannelSettings { snapshot_interval, ..settings }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        Settings::default().validate().expect("defaults stand inside their ranges");
    }

    #[test]
    fn an_error_names_setting_value_and_range() {
        let settings = Settings { shards: 65, ..Settings::default() };
        let text = settings.validate().expect_err("65 shards").to_string();
        assert_eq!(text, "shards is 65, must be 1 to 64");
    }

    #[test]
    fn the_first_matching_rule_wins() {
        let rule = |pattern: &str, frames| ChannelRule {
            pattern: Pattern::new(pattern).expect("a pattern"),
            settings: ChannelSettings { backlog_frames: frames, ..ChannelSettings::default() },
        };
        let settings = Settings { channels: vec![rule("odds:7", 1), rule("odds:*", 2)], ..Settings::default() };
        assert_eq!(settings.channel("odds:7").backlog_frames, 1);
        assert_eq!(settings.channel("odds:8").backlog_frames, 2);
        assert_eq!(settings.channel("goals"), ChannelSettings::default());
    }
}
