//! Limits and options of an engine, frozen at start. Each is a row with its unit, range, default and worst cost.
mod table;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::channel::pattern::Pattern;
use crate::channel::policy::{Policy, Start};
use table::{AGE, COUNT_MAX, KEPT, Row, WAIT, held, settings};
pub use table::{Kind, Setting, SettingsError, Value};

/// Which system interface carries the writes of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollerKind {
    /// One `send` a connection.
    Epoll,
    /// Batches of sends through an io_uring.
    Uring,
}

impl PollerKind {
    const ALL: [Self; 2] = [Self::Epoll, Self::Uring];
    /// What programs call them, in the same order.
    pub const NAMES: [&'static str; 2] = ["epoll", "uring"];

    /// As programs call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The one that is called so.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

held! {
    Policy: Text(name => Self::from_name(name), policy => policy.name().into());
    Start: Text(name => Self::from_name(name), start => start.name().into());
    PollerKind: Text(name => Self::from_name(name), kind => kind.name().into());
}

/// What the channels that match a pattern promise; the first match wins.
#[derive(Clone, Debug)]
pub struct ChannelRule {
    /// Names it is for.
    pub pattern: Pattern,
    /// What they promise.
    pub settings: ChannelSettings,
}

settings! {
    /// What a channel promises its subscribers, and what it may cost.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ChannelSettings prefixed "" {
        /// name of what becomes of a subscriber beyond the backlog: [promises.md](promises.md)
        policy in "Channels": Policy = Policy::Every, Kind::Choice(&Policy::NAMES),
            cost "as the policy says";
        /// bytes kept for subscribers that lag
        backlog_bytes in "Channels": u64 = 1 << 20, KEPT,
            cost "so much each channel and wire format while somebody lags; shared by all laggards; 8 bytes for each client of an `exclude=`, of the same ones in a row once. With `latest` as much again for values that are old and still the newest";
        /// frames kept for them
        backlog_frames in "Channels": usize = 16_384, Kind::Whole(1, COUNT_MAX), cost "40 bytes of index each";
        /// whether what it publishes is compressed for WebSockets that agreed on it, once for all that have got the same
        compression in "Channels": bool = true, Kind::Truth,
            cost "a compressor of 200 to 330 KB each wire format and window in use, 512 of them at most, and 10 to 20 µs a publication of 500 bytes; never put secrets and text of others into one channel";
        /// subscribers that inflate, in one shard, from which on it is compressed
        compression_readers in "Channels": usize = 2, Kind::Whole(1, COUNT_MAX),
            cost "with 1 a publication to a single client costs a compression, too";
        /// seconds that they may be behind
        backlog_age in "Channels": Duration = Duration::MAX, AGE, "a year at most", default "without bound",
            cost "looked at with each publication";
        /// publications kept for who comes back
        history_frames "history" in "Channels": usize = 0, Kind::Whole(0, COUNT_MAX),
            cost "kept once for the channel, also while nobody watches, and once for each wire format in use; encoded as JSON, and as MessagePack once any client has asked for that";
        /// seconds that they are kept
        history_age in "Channels": Duration = Duration::from_secs(300), AGE, "a year at most",
            cost "a channel that nobody watches is kept as long";
        /// bytes of them
        history_bytes in "Channels": u64 = 16 << 20, KEPT, cost "so much each channel, and each wire format in use";
        /// name of where a new subscriber begins
        start in "Channels": Start = Start::Keyframe, Kind::Choice(&Start::NAMES),
            cost "with `\"history\"` each new subscriber is sent all that is kept: it needs a `history` over 0";
        /// distinct filters that its subscribers may have at once; one more is an error to whoever brings it
        filters_max in "Channels": usize = 1_024, Kind::Whole(0, 1 << 16),
            cost "each is looked at with each publication, once a shard, some 2 µs; about 0.5 KiB each. 0: nobody has one";
    }
    besides {
        /// How old a keyframe may be, at most, for new subscribers to begin there; an older one is asked for anew, of the
        /// application. `None` (default): it is never asked.
        snapshot_interval: Option<Duration> = None;
        /// Whether the application hears who joins and leaves, default false. An event for each, in batches.
        tells_presence: bool = false;
    }
}

settings! {
    /// SignalR: times and a bound; the defaults are those of ASP.NET Core.
    #[derive(Clone, Debug)]
    pub struct HubSettings prefixed "signalr_" {
        /// seconds between two pings to a client
        keepalive in "SignalR": Duration = Duration::from_secs(15), WAIT, cost "a shorter one costs a write a client";
        /// seconds of silence after which a client that has pinged is given up
        client_timeout in "SignalR": Duration = Duration::from_secs(30), WAIT,
            cost "a dead client keeps its place for so long; one that never pings, until its socket breaks";
        /// seconds from the transport to the hub protocol's handshake
        handshake_timeout in "SignalR": Duration = Duration::from_secs(15), WAIT, cost "a descriptor for so long";
        /// seconds from a negotiate to its transport, from one poll to the next, from one socket to the next
        disconnect_timeout in "SignalR": Duration = Duration::from_secs(15), WAIT,
            cost "about 100 bytes each negotiate; there are at most 1,048,576 at once";
        /// seconds that a poll waits for messages
        poll_timeout in "SignalR": Duration = Duration::from_secs(90), WAIT, cost "clients give up after 100";
        /// bytes of one message of a client; a bigger one ends the connection with an error
        message_bytes_max in "SignalR": usize = 32 << 10, Kind::Bytes(64, 1 << 30),
            cost "up to twice so much a client that sends slowly";
    }
    besides {
        /// Whether a client that broke the protocol is told how, default false.
        tells_details: bool = false;
    }
}

settings! {
    /// All settings of an [`Engine`](crate::Engine).
    #[derive(Clone, Debug)]
    pub struct Settings prefixed "" {
        /// threads that own the connections, each with its poller
        shards in "Serving": usize = 1, Kind::Whole(1, 64),
            cost "a thread, a poller and a 64 KiB receive buffer each; a log's frames are shared, a publication wakes each shard that watches";
        /// name of the system interface that carries writes
        poller in "Serving": Option<PollerKind> = None, Kind::Choice(&PollerKind::NAMES), "`uring` is io_uring",
            default "what the variable `FANWIRE_POLLER` says, else the better one that the kernel allows",
            cost "`\"uring\"` where the kernel allows none: `serve` raises OSError";
        /// whether shard i stays on the i-th CPU that the process may use
        pins_shards "pin_shards" in "Serving": bool = false, Kind::Truth, cost "it stays there also when others need that CPU";
        /// connections that wait for `accept`
        backlog in "Serving": i32 = 4_096, Kind::Whole(1, 1 << 16),
            cost "the kernel's memory; it caps this at `net.core.somaxconn`";
        /// permissions of a Unix socket, such as `0o600`
        unix_mode in "Serving": u32 = 0o660, Kind::Permissions(0, 0o777), default "its owner and its group may connect",
            cost "who may connect at `unix:PATH`; from the socket's first moment on";
        /// name of TCP's algorithm, `TCP_CONGESTION`, such as `cubic`
        congestion_control in "Serving": Option<String> = None,
            Kind::Other("what `net.ipv4.tcp_available_congestion_control` has and the process may use; the kernel is asked when the hub is made"),
            default "the system's", cost "–";
        /// bytes of a slow client's backlog that the kernel takes, `TCP_NOTSENT_LOWAT`
        notsent_lowat in "Serving": u32 = 16 << 10, Kind::Bytes(0, 1 << 30), "0 leaves the kernel's",
            cost "so much of a slow client's backlog grows stale in the kernel; too little costs wake-ups";
        /// list of `Origin` values that may connect, such as `https://bets.example`, or `"*"`; a request without one is let in
        origins in "Who may connect": Option<Vec<String>> = None,
            Kind::Other("`SCHEME://HOST` or `SCHEME://HOST:PORT`; case, a trailing slash and a default port do not count; a bare host, a path or a `*` in one is an error"),
            default "all, as `\"*\"`", cost "with None a page of any site connects with its visitor's cookies";
        /// bytes of a request's head
        head_bytes_max in "Who may connect": usize = 16 << 10, Kind::Bytes(256, 1 << 20),
            cost "so much a connection until `handshake_timeout`";
        /// bytes of a request's body, on a path whose owner takes bodies; a bigger one is answered with 413
        body_bytes_max in "Who may connect": usize = 1 << 20, Kind::Bytes(1, 1 << 30),
            cost "so much a connection to such a path, until `handshake_timeout`; nothing is set aside for what is only announced";
        /// seconds from accept to the answered upgrade, your callbacks included; then 408, or 503 if it waits for them
        handshake_timeout in "Who may connect": Duration = Duration::from_secs(10), WAIT,
            cost "a descriptor for so long without a word; also how long a kept-alive plain connection may be idle";
        /// bytes of a message over all its fragments; a bigger one closes with 1009
        message_bytes_max in "What clients may do": usize = 64 << 10, Kind::Bytes(1, 1 << 30),
            cost "up to twice so much a connection that cuts one; nothing is set aside for what is only announced";
        /// messages of one client that callbacks have not dealt with
        messages_pending_max in "What clients may do": u16 = 16, Kind::Whole(1, 1 << 15),
            cost "so many messages of full size each client, then it is not read";
        /// events of one shard that wait for Python
        events_pending_max in "What clients may do": usize = 16_384, Kind::Whole(16, 1 << 24),
            cost "so many messages in memory; then no socket of the shard is read for new ones";
        /// channels of one client
        subscriptions_max in "What clients may do": usize = 1_000, Kind::Whole(1, 1 << 20),
            cost "28 bytes each, 45 from the 17th on, and a place in each log's list";
        /// channels of one edge, which passes them on to clients of its own; 0: no edges
        edge_subscriptions_max in "What clients may do": usize = 20_000, Kind::Whole(0, 1 << 20),
            cost "as of `subscriptions_max`; who may connect may say that it is an edge, and gets keys and events of publications, too";
        /// channels that exist at once
        channels_max in "What clients may do": usize = 1_000_000, Kind::Whole(1, 1 << 24),
            cost "about 250 bytes each when idle, given back once they are forgotten: nobody watches, and for 60 s (with history: as long as that) nothing was published; one that never had a publication after 5 s; at the bound a publication to a new channel is `LimitReached`";
        /// private bytes that wait for one client: pongs, replies, `send`
        outbox_bytes_max in "What clients may do": usize = 256 << 10, Kind::Bytes(256, 1 << 30),
            default "2 MiB on a hub that relays", cost "so much a client that reads nothing; more closes it with 1013";
        /// whether WebSockets agree on permessage-deflate (RFC 7692), where a client offers it
        permessage_deflate in "What clients may do": bool = true, Kind::Truth,
            cost "a message of a client's may take the time of `message_bytes_max` bytes, however few it has";
        /// whether event streams are gzip (RFC 1952), where a client accepts it
        gzip in "What clients may do": bool = true, Kind::Truth,
            cost "programs that count keepalives in what they inflate see none while publications come";
        /// seconds of silence before a ping; of an event stream, between two keepalives
        ping_interval in "What clients may do": Duration = Duration::from_secs(25), WAIT,
            cost "a shorter one costs a write a client";
        /// seconds of silence after that ping; then 1011 is the close code
        ping_timeout in "What clients may do": Duration = Duration::from_secs(20), WAIT,
            cost "a dead client keeps its place for both together";
        /// seconds for a close handshake or a last answer
        close_timeout in "What clients may do": Duration = Duration::from_secs(5), WAIT, cost "a descriptor for so long";
        /// bytes of a payload, in the longest form that the hub has; a bigger one is `PayloadTooBig`
        publication_bytes_max in "What you may publish": usize = 1 << 20, Kind::Bytes(1, 1 << 30),
            cost "a frame lies whole in the log, once for each wire format in use";
        /// bytes of one channel's log in one format that some shard has not fanned out
        unsent_bytes_max in "What you may publish": u64 = 64 << 20, Kind::Bytes(1 << 10, 1 << 40),
            cost "so much each channel and format when a shard cannot keep up; then `publish` raises `LimitReached`";
    }
    besides {
        /// Promises by channel name; what matches none has [`ChannelSettings::default`].
        channels: Vec<ChannelRule> = Vec::new();
        /// Names whose channels have a [`ChannelSettings::snapshot_interval`], and what it is; the first match wins;
        /// default none.
        snapshots: Vec<(Pattern, Duration)> = Vec::new();
        /// Whether clients of this hub's own channels and methods may ask for MessagePack; default true.
        speaks_msgpack: bool = true;
        /// Descriptors that accepting leaves for others of the process, a quarter of the limit at most; default none.
        descriptors_spare: usize = 0;
        /// For tests: what is compressed is decoded again, and a difference is a panic; default false.
        verifies_compression: bool = false;
        /// Which of several engines that serve together this one is, 0 to 255; default 0. The ids of its connections say so.
        worker: u8 = 0;
        /// Where the other workers are, with which SignalR's connections are shared; default none.
        siblings: Option<Siblings> = None;
        /// SignalR: times and a bound, each with its default.
        hubs: HubSettings = HubSettings::default();
    }
}

/// How the workers of one supervisor find and trust each other.
#[derive(Clone, PartialEq, Eq)]
pub struct Siblings {
    /// A folder of this user alone, where each worker has a socket.
    pub folder: PathBuf,
    /// What tokens of SignalR connections are signed with: the same in all of them, and nobody else's.
    pub key: Vec<u8>,
}

/// The key is a secret: it is not shown.
impl fmt::Debug for Siblings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Siblings").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// The rows of what an engine can be set to, in no order that means anything.
#[must_use]
pub fn engine_table() -> Vec<Setting> {
    Settings::ROWS.iter().map(Row::setting).chain(HubSettings::ROWS.iter().map(Row::setting)).collect()
}

/// The rows of what a channel can be set to.
#[must_use]
pub fn channel_table() -> Vec<Setting> {
    ChannelSettings::ROWS.iter().map(Row::setting).collect()
}

impl ChannelSettings {
    /// Has the setting called `name` be `value`.
    ///
    /// # Errors
    /// [`SettingsError::OutOfRange`], and [`SettingsError::Unknown`] where there is none of this name.
    pub fn set(&mut self, name: &str, value: &Value) -> Result<(), SettingsError> {
        let done = table::put(self, Self::ROWS, name, value);
        done.unwrap_or_else(|| Err(SettingsError::Unknown { name: name.to_owned() }))
    }
}

impl Settings {
    /// Has the setting called `name`, of SignalR or not, be `value`.
    ///
    /// # Errors
    /// As [`ChannelSettings::set`].
    pub fn set(&mut self, name: &str, value: &Value) -> Result<(), SettingsError> {
        let done = table::put(self, Self::ROWS, name, value);
        let done = done.or_else(|| table::put(&mut self.hubs, HubSettings::ROWS, name, value));
        done.unwrap_or_else(|| Err(SettingsError::Unknown { name: name.to_owned() }))
    }

    /// Checks every range once, so that nothing behind it has to.
    ///
    /// # Errors
    /// [`SettingsError`], which names the setting, the value and the range.
    pub fn validate(&self) -> Result<(), SettingsError> {
        Self::ROWS.iter().try_for_each(|row| row.check(self))?;
        HubSettings::ROWS.iter().try_for_each(|row| row.check(&self.hubs))?;
        for rule in &self.channels {
            let fault = |fault| SettingsError::Channel { pattern: rule.pattern.to_string(), fault: Box::new(fault) };
            ChannelSettings::ROWS.iter().try_for_each(|row| row.check(&rule.settings)).map_err(fault)?;
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
        assert_eq!(text, "shards must be a whole number, 1 to 64, not 65");
        let settings = Settings { close_timeout: Duration::ZERO, ..Settings::default() };
        let text = settings.validate().expect_err("no time at all").to_string();
        assert_eq!(text, "close_timeout must be a number of seconds, 0.1 to 86,400, not 0");
        let channel = ChannelSettings { backlog_bytes: 0, ..ChannelSettings::default() };
        let pattern = Pattern::new("odds:*").expect("a pattern");
        let channels = vec![ChannelRule { pattern, settings: channel }];
        let text = Settings { channels, ..Settings::default() }.validate().expect_err("no backlog").to_string();
        let says = "backlog_bytes must be a whole number of bytes, 1 to 1,099,511,627,776, not 0";
        assert_eq!(text, format!("channel pattern \"odds:*\": {says}"));
    }

    #[test]
    fn each_setting_takes_its_bounds_and_nothing_beyond() {
        let mut settings = Settings::default();
        for row in engine_table() {
            let mut takes = |value: Value| settings.set(row.name, &value).is_ok();
            match row.kind {
                Kind::Seconds(min, max) => {
                    assert!(takes(Value::Number(min)) && takes(Value::Number(max)), "{}", row.name);
                    assert!(!takes(Value::Number(min - 0.001)) && !takes(Value::Number(max + 0.001)), "{}", row.name);
                }
                Kind::Bytes(min, max) | Kind::Whole(min, max) | Kind::Permissions(min, max) => {
                    assert!(takes(Value::Whole(min)) && takes(Value::Whole(max)), "{}", row.name);
                    assert!(
                        !takes(Value::Whole(max + 1)) && (min == 0 || !takes(Value::Whole(min - 1))),
                        "{}",
                        row.name
                    );
                }
                _ => {}
            }
            assert!(takes(row.default.clone()) && !takes(Value::Number(f64::NAN)), "{}", row.name);
        }
        assert!(settings.validate().is_ok());
        let error = settings.set("origins", &Value::Text("x".into())).expect_err("no list").to_string();
        assert!(
            error.starts_with("origins must be `SCHEME://HOST`") && error.ends_with(" or None, not 'x'"),
            "{error}"
        );
        let error = settings.set("shard", &Value::Whole(1)).expect_err("no such").to_string();
        assert_eq!(error, "there is no setting \"shard\"");
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
