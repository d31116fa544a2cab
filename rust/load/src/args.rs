//! The options as the user writes them, and the settings that they become: parsed once, valid from then on.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use clap::Parser;

use crate::draw::{SOURCES_MAX, sources_for};
use crate::error::LoadError;
use crate::payload::CHANNEL_MAX;
use crate::sys;

/// Descriptors that a process keeps for itself: stdin, stdout, stderr, epoll, and what the host program has open.
pub(crate) const DESCRIPTORS_SLACK: u64 = 64;

/// Opens many WebSocket connections to one server and checks everything that arrives on them.
#[derive(Debug, Parser)]
#[command(
    name = "fanwire-load",
    version,
    after_help = "Clients of a SignalR hub: fanwire-load signalr --help; of a feed that may come compressed: feed --help."
)]
pub(crate) struct Options {
    /// The server, as ws://ADDRESS:PORT/PATH, the address an IPv4 one or `localhost`.
    #[arg(long)]
    url: String,
    /// How many connections to open.
    #[arg(long, default_value_t = 1)]
    connections: u32,
    /// How many channels there are: c0, c1, …
    #[arg(long, default_value_t = 1)]
    channels: u32,
    /// How many distinct channels each connection watches.
    #[arg(long, default_value_t = 1)]
    subscriptions: u32,
    /// Exponent of the Zipf law by which channels are drawn; 0 makes all equally likely.
    #[arg(long, default_value_t = 1.0)]
    zipf: f64,
    /// Seed of that draw.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many source addresses, from 127.0.0.2 on [default: one for each 10,000 connections].
    #[arg(long)]
    sources: Option<u32>,
    /// How many connects and handshakes may be under way at a time.
    #[arg(long, default_value_t = 500)]
    in_flight: u32,
    /// Stay connected when stdin ends, until killed.
    #[arg(long)]
    hold: bool,
    /// Read no commands: measure this many seconds, print what came, exit.
    #[arg(long = "for", value_name = "SECONDS")]
    measure_s: Option<f64>,
    /// Seconds without anything arriving after which an expectation, or connecting, is given up.
    #[arg(long, default_value_t = 15.0, value_name = "SECONDS")]
    patience: f64,
    /// Answer each `expect` with a line `{"expecting": n}` once counting has begun anew in all processes.
    #[arg(long)]
    acknowledge: bool,
    /// Count texts that begin as a hub's replies do, {"result":, apart from what is malformed. A `since` in the path has
    /// one for each connection.
    #[arg(long)]
    replies: bool,
    /// Payloads stand in objects, one a line, each as its member `data`: {"channel":"c0","pub":{"data":"…"}}. Other
    /// objects are passed over. Centrifugo writes to its unidirectional clients so.
    #[arg(long)]
    envelopes: bool,
    /// How many processes share the connections [default: as many as the limit of open descriptors makes necessary].
    #[arg(long)]
    processes: Option<u32>,
    /// This is a child: its first connection has this number, and its parent reads its stdout.
    #[arg(long, hide = true)]
    child_first: Option<u32>,
}

/// A valid run.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) target: SocketAddrV4,
    /// What goes into the Host field: address and port as given.
    pub(crate) host: String,
    /// What goes into the request line, with `?` or `&` at its end, ready for the channels.
    pub(crate) path: String,
    /// As given, for children.
    pub(crate) url: String,
    pub(crate) connections: u32,
    pub(crate) channels: u32,
    pub(crate) subscriptions: u32,
    pub(crate) zipf: f64,
    pub(crate) seed: u64,
    /// `None` where the server is not on loopback: the system then chooses the address.
    pub(crate) sources: Option<u32>,
    pub(crate) in_flight: u32,
    pub(crate) is_holding: bool,
    pub(crate) measure: Option<Duration>,
    pub(crate) patience: Duration,
    pub(crate) is_acknowledging: bool,
    pub(crate) is_counting_replies: bool,
    pub(crate) has_envelopes: bool,
    pub(crate) processes: u32,
    /// Number of the first connection, in a child.
    pub(crate) child_first: Option<u32>,
}

impl TryFrom<Options> for Settings {
    type Error = LoadError;

    /// Checks each option against its range, and raises the limit of open descriptors as far as it goes.
    fn try_from(options: Options) -> Result<Self, LoadError> {
        let (target, host, path) = parse_url(&options.url)?;
        within("--connections", options.connections, 1, 10_000_000)?;
        within("--channels", options.channels, 1, CHANNEL_MAX + 1)?;
        within("--subscriptions", options.subscriptions, 1, options.channels)?;
        within("--in-flight", options.in_flight, 1, u32::MAX)?;
        let sources = options.sources.unwrap_or_else(|| sources_for(options.connections));
        within("--sources", sources, 1, SOURCES_MAX)?;
        let limit = sys::descriptors_max().map_err(LoadError::system("limit of open descriptors"))?;
        let share_max = limit.saturating_sub(DESCRIPTORS_SLACK).max(1);
        let needed = u64::from(options.connections).div_ceil(share_max) as u32;
        let processes = options.processes.unwrap_or(needed);
        within("--processes", processes, needed, options.connections)?;
        Ok(Self {
            target,
            host,
            path,
            url: options.url,
            connections: options.connections,
            channels: options.channels,
            subscriptions: options.subscriptions,
            zipf: options.zipf,
            seed: options.seed,
            sources: target.ip().is_loopback().then_some(sources),
            in_flight: options.in_flight,
            is_holding: options.hold,
            measure: options.measure_s.map(|s| seconds("--for", s)).transpose()?,
            patience: seconds("--patience", options.patience)?,
            is_acknowledging: options.acknowledge,
            is_counting_replies: options.replies,
            has_envelopes: options.envelopes,
            processes,
            child_first: options.child_first,
        })
    }
}

/// Refuses what is outside an option's range.
pub(crate) fn within(option: &'static str, value: u32, lowest: u32, highest: u32) -> Result<(), LoadError> {
    if (lowest..=highest).contains(&value) {
        return Ok(());
    }
    Err(LoadError::OutOfRange { option, value: value.into(), lowest: lowest.into(), highest: highest.into() })
}

/// A time of at most a day.
pub(crate) fn seconds(option: &'static str, value: f64) -> Result<Duration, LoadError> {
    Duration::try_from_secs_f64(value)
        .ok()
        .filter(|duration| duration.as_secs() <= 86_400)
        .ok_or(LoadError::OutOfRange { option, value: value as u64, lowest: 0, highest: 86_400 })
}

/// Address, Host field and path of a URL; the path ends so that a query can be appended.
pub(crate) fn parse_url(url: &str) -> Result<(SocketAddrV4, String, String), LoadError> {
    let wrong = |why| LoadError::Url { url: url.to_owned(), why };
    let rest = url.strip_prefix("ws://").ok_or_else(|| wrong("it does not begin with ws://"))?;
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    if path.bytes().any(|byte| byte <= b' ' || byte == b'#' || byte == 0x7f) {
        return Err(wrong("its path holds a space, a control character or a fragment"));
    }
    let (name, port) = host.split_once(':').unwrap_or((host, "80"));
    let address: Ipv4Addr = match name {
        "localhost" => Ipv4Addr::LOCALHOST,
        name => name.parse().map_err(|_| wrong("its address is neither IPv4 nor `localhost`"))?,
    };
    let port = port.parse().map_err(|_| wrong("its port is no number up to 65535"))?;
    let separator = if path.contains('?') { '&' } else { '?' };
    Ok((SocketAddrV4::new(address, port), host.to_owned(), format!("{path}{separator}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(args: &[&str]) -> Result<Settings, LoadError> {
        let args = ["fanwire-load", "--url", "ws://127.0.0.1:9000/ws"].iter().chain(args);
        Settings::try_from(Options::try_parse_from(args).unwrap())
    }

    #[test]
    fn url_is_split_and_ready_for_channels() {
        let (target, host, path) = parse_url("ws://localhost:9000/ws").unwrap();
        assert_eq!((target.to_string(), host, path), ("127.0.0.1:9000".into(), "localhost:9000".into(), "/ws?".into()));
        assert_eq!(parse_url("ws://10.0.0.1/a?b=c").unwrap().2, "/a?b=c&");
        assert_eq!(parse_url("ws://10.0.0.1").unwrap().0.port(), 80);
    }

    #[test]
    fn url_of_another_kind_is_refused_by_name() {
        for url in
            ["wss://127.0.0.1/", "127.0.0.1:80", "ws://example.org/", "ws://127.0.0.1:99999/", "ws://127.0.0.1/a b"]
        {
            assert!(parse_url(url).unwrap_err().to_string().contains(url));
        }
    }

    #[test]
    fn more_subscriptions_than_channels_are_refused() {
        let error = settings(&["--channels", "3", "--subscriptions", "4"]).unwrap_err();
        assert_eq!(error.to_string(), "--subscriptions is 4, but must be 1 to 3");
    }

    #[test]
    fn sources_follow_connections_and_stay_within_loopback() {
        assert_eq!(settings(&["--connections", "15000"]).unwrap().sources, Some(2));
        assert!(settings(&["--sources", "254"]).is_err());
    }
}
