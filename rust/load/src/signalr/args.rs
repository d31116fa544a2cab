//! The options of the mode, and the settings that they become.

use std::net::SocketAddrV4;
use std::time::Duration;

use clap::Parser;

use super::protocol::Protocol;
use crate::args::{DESCRIPTORS_SLACK, parse_url, seconds, within};
use crate::draw::{SOURCES_MAX, sources_for};
use crate::error::LoadError;
use crate::sys;

/// More matches than any hub has.
const MATCHES_MAX: u32 = 100_000;

/// Connects clients to a SignalR hub, then obeys commands on stdin, one after another until it ends.
///
/// A command is one JSON object on a line, its answer another on stdout:
///
///   {"expect": N}                        wait until each client has N more invocations of the target
///   {"invoke": {"target": "Add", "arguments": [1, 2], "calls": K}}
///                                        each client calls, again as soon as it is answered, K calls in all
///   {"watch": {"seconds": S}}            read what comes for so long
///   {"stall": {"one_in": N}}             one client in N reads no more, for good
///   {"idle": {"seconds": S, "ping_every_s": P}}
///                                        ping, all clients spread over P seconds; without S until the next command,
///                                        or the end of stdin
///   {"level": true}                      what each client has had so far is what was expected
///   {"tell": true}                       a tick, now
///   {"quit": true}
///
/// With --progress a line tells from time to time what there has been since the start: "tick", with clients that are
/// open, failed or were closed and why, and what was wrong with what they received. It has the messages that were
/// counted, and bytes of all kinds. It has the ages of publications since the last such line, as pairs of microseconds
/// and a count. Of clients that came back it has how many, how long that took the slowest, and what they missed.
#[derive(Debug, Parser)]
#[command(name = "fanwire-load signalr", version, verbatim_doc_comment)]
pub(crate) struct Options {
    /// The hub, as ws://ADDRESS:PORT/PATH, the address an IPv4 one or `localhost`.
    #[arg(long)]
    url: String,
    /// What the clients speak; `raw` is a WebSocket at the URL as it stands, each of its messages counted.
    #[arg(long, value_enum, default_value_t = Protocol::Json)]
    protocol: Protocol,
    /// How many clients to connect.
    #[arg(long, default_value_t = 1)]
    connections: u32,
    /// How many of them may be negotiating, upgrading or shaking hands at a time.
    #[arg(long, default_value_t = 128)]
    in_flight: u32,
    /// How many source addresses, from 127.0.0.2 on [default: one for each 10,000 connections].
    #[arg(long)]
    sources: Option<u32>,
    /// The third number of the source addresses: processes that have one each share no address.
    #[arg(long, default_value_t = 0)]
    network: u8,
    /// Upgrade at once, without a negotiation.
    #[arg(long)]
    skip_negotiation: bool,
    /// A client that was open and is lost comes back: at once, and two seconds after each try that failed.
    #[arg(long)]
    reconnect: bool,
    /// Each client pings so often, whatever else is done [default: with the command `idle` only].
    #[arg(long, value_name = "SECONDS")]
    ping_every: Option<f64>,
    /// A method that each client calls with a match (`m1`, `m2`, …), as part of connecting. What is counted first must
    /// then be publications of the match, `{"match": "m1", "s": …, "t": …}`: `s` goes up by one, `t` is when (ns, wall clock).
    #[arg(long, value_name = "METHOD")]
    subscribe: Option<String>,
    /// How many matches are dealt out: client 0 watches m1, client 1 watches m2.
    #[arg(long, default_value_t = 1, requires = "subscribe")]
    matches: u32,
    /// The number of the first client, where processes share the matches.
    #[arg(long, default_value_t = 0, requires = "subscribe")]
    first: u32,
    /// Which invocations are counted: a target, or several with commas. Those of the first are publications.
    #[arg(long, value_delimiter = ',', default_value = "Odds", value_name = "TARGET,…")]
    target: Vec<String>,
    /// Seconds between two lines that tell how things are [default: there are none].
    #[arg(long, value_name = "SECONDS")]
    progress: Option<f64>,
    /// Seconds without anything arriving after which connecting, or a command, is given up.
    #[arg(long, default_value_t = 15.0, value_name = "SECONDS")]
    patience: f64,
}

/// A valid run.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) address: SocketAddrV4,
    /// What goes into the Host field: address and port as given.
    pub(super) host: String,
    /// The hub's path; of the raw protocol with its query.
    pub(super) path: String,
    pub(super) protocol: Protocol,
    pub(super) connections: u32,
    pub(super) in_flight: u32,
    /// `None` where the server is not on loopback: the system then chooses the address.
    pub(super) sources: Option<u32>,
    pub(super) network: u8,
    /// Before the upgrade.
    pub(super) negotiates: bool,
    pub(super) reconnects: bool,
    /// Between two pings of a client.
    pub(super) ping_every: Option<Duration>,
    /// What each client calls to watch its match, and how many matches there are.
    pub(super) subscribe: Option<(String, u32)>,
    /// Client 0 watches what the one of this number would.
    pub(super) first: u32,
    /// The first target that is counted, and the others.
    pub(super) targets: (String, Vec<String>),
    /// Between two lines that tell how things are.
    pub(super) progress: Option<Duration>,
    pub(super) patience: Duration,
}

impl TryFrom<Options> for Settings {
    type Error = LoadError;

    /// Checks each option against its range, and raises the limit of open descriptors as far as it goes.
    fn try_from(options: Options) -> Result<Self, LoadError> {
        let (address, host, mut path) = parse_url(&options.url)?;
        path.pop(); // what would separate channels from it
        if options.protocol != Protocol::Raw && path.contains('?') {
            return Err(LoadError::Url { url: options.url, why: "the path of a hub has no query" });
        }
        if options.subscribe.is_some() && options.protocol != Protocol::Json {
            return Err(LoadError::Conflict { option: "--subscribe", why: "publications are checked in JSON only" });
        }
        within("--matches", options.matches, 1, MATCHES_MAX)?;
        let limit = sys::descriptors_max().map_err(LoadError::system("limit of open descriptors"))?;
        let connections_max = u32::try_from(limit.saturating_sub(DESCRIPTORS_SLACK).max(1)).unwrap_or(u32::MAX);
        within("--connections", options.connections, 1, connections_max)?;
        within("--in-flight", options.in_flight, 1, u32::MAX)?;
        if options.ping_every.is_some() && options.protocol == Protocol::Raw {
            return Err(LoadError::Conflict { option: "--ping-every", why: "the raw protocol has no pings" });
        }
        let ping_every = options.ping_every.map(|value| seconds("--ping-every", value)).transpose()?;
        let sources = options.sources.unwrap_or_else(|| sources_for(options.connections));
        within("--sources", sources, 1, SOURCES_MAX)?;
        let mut targets = options.target.into_iter();
        let first = targets.next().unwrap_or_default();
        Ok(Self {
            address,
            host,
            path,
            protocol: options.protocol,
            connections: options.connections,
            in_flight: options.in_flight,
            sources: address.ip().is_loopback().then_some(sources),
            network: options.network,
            negotiates: options.protocol != Protocol::Raw && !options.skip_negotiation,
            reconnects: options.reconnect,
            ping_every: ping_every.filter(|every| !every.is_zero()),
            first: options.first,
            subscribe: options.subscribe.map(|method| (method, options.matches)),
            targets: (first, targets.collect()),
            progress: options.progress.map(|value| seconds("--progress", value)).transpose()?,
            patience: seconds("--patience", options.patience)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str, more: &[&str]) -> Result<Settings, LoadError> {
        let args = ["fanwire-load signalr", "--url", url].into_iter().chain(more.iter().copied());
        Settings::try_from(Options::try_parse_from(args).unwrap())
    }

    #[test]
    fn path_of_a_hub_stands_alone_and_that_of_the_raw_protocol_has_its_query() {
        assert_eq!(settings("ws://127.0.0.1:9/live", &[]).unwrap().path, "/live");
        let raw = settings("ws://127.0.0.1:9/ws?channel=m1", &["--protocol", "raw"]).unwrap();
        assert_eq!(raw.path, "/ws?channel=m1");
        let error = settings("ws://127.0.0.1:9/live?a=b", &[]).unwrap_err().to_string();
        assert!(error.contains("/live?a=b") && error.contains("query"), "{error}");
    }

    #[test]
    fn matches_are_watched_in_json_only() {
        let watching = settings("ws://127.0.0.1:9/live", &["--subscribe", "Subscribe", "--matches", "30"]).unwrap();
        assert_eq!(watching.subscribe, Some(("Subscribe".to_owned(), 30)));
        let packed = settings("ws://127.0.0.1:9/live", &["--subscribe", "Subscribe", "--protocol", "messagepack"]);
        assert_eq!(packed.unwrap_err().to_string(), "--subscribe: publications are checked in JSON only");
    }

    #[test]
    fn targets_are_one_and_others() {
        assert_eq!(settings("ws://127.0.0.1:9/live", &[]).unwrap().targets, ("Odds".to_owned(), vec![]));
        let two = settings("ws://127.0.0.1:9/live", &["--target", "Odds,Announcement"]).unwrap();
        assert_eq!(two.targets, ("Odds".to_owned(), vec!["Announcement".to_owned()]));
    }

    #[test]
    fn more_clients_than_descriptors_are_refused() {
        let error = settings("ws://127.0.0.1:9/live", &["--connections", "4000000000"]).unwrap_err().to_string();
        assert!(error.starts_with("--connections is 4000000000, but must be 1 to "), "{error}");
    }
}
