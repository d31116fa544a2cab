//! The options as the user writes them, and the settings that they become.

use std::net::SocketAddrV4;
use std::path::PathBuf;

use clap::Parser;

use super::script::Script;
use crate::args::{DESCRIPTORS_SLACK, parse_url, within};
use crate::error::LoadError;
use crate::sys;

/// Opens many connections that listen to one feed, and counts messages and bytes of it.
#[derive(Debug, Parser)]
#[command(name = "fanwire-load feed", version)]
pub(crate) struct Options {
    /// The server, as ws://ADDRESS:PORT/PATH, the address an IPv4 one or `localhost`.
    #[arg(long)]
    url: String,
    /// How many connections to open.
    #[arg(long, default_value_t = 1)]
    connections: u32,
    /// What each offers as Sec-WebSocket-Extensions [default: nothing].
    #[arg(long, value_name = "EXTENSIONS")]
    offer: Option<String>,
    /// What is published, over and over: a message a line.
    #[arg(long, value_name = "FILE")]
    feed: PathBuf,
    /// How many connections inflate what they get, and check each message and the order.
    #[arg(long, default_value_t = 8)]
    inflate: u32,
    /// Messages, which are JSON, stand in objects, one a line, each as the last member: {"channel":"c0","pub":{"data":…}}.
    /// Other objects are passed over where messages are looked at. Centrifugo writes to its unidirectional clients so.
    #[arg(long)]
    envelopes: bool,
    /// How many connects and handshakes may be under way at a time.
    #[arg(long, default_value_t = 128)]
    in_flight: u32,
}

/// A valid run.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) target: SocketAddrV4,
    /// What goes into the Host field: address and port as given.
    pub(super) host: String,
    /// What goes into the request line.
    pub(super) path: String,
    pub(super) connections: u32,
    pub(super) offer: Option<String>,
    pub(super) script: Script,
    pub(super) inflating: u32,
    pub(super) has_envelopes: bool,
    pub(super) in_flight: u32,
}

impl TryFrom<Options> for Settings {
    type Error = LoadError;

    /// Checks each option against its range, reads the feed, and raises the limit of open descriptors.
    fn try_from(options: Options) -> Result<Self, LoadError> {
        let (target, host, path) = parse_url(&options.url)?;
        let limit = sys::descriptors_max().map_err(LoadError::system("limit of open descriptors"))?;
        let connections_max = limit.saturating_sub(DESCRIPTORS_SLACK).clamp(1, 60_000) as u32;
        within("--connections", options.connections, 1, connections_max)?;
        within("--in-flight", options.in_flight, 1, connections_max)?;
        within("--inflate", options.inflate, 0, options.connections)?;
        let feed = std::fs::read(&options.feed).map_err(LoadError::system("reading --feed"))?;
        Ok(Self {
            target,
            host,
            path: path.trim_end_matches(['?', '&']).to_owned(),
            connections: options.connections,
            offer: options.offer,
            script: Script::new(&feed)?,
            inflating: options.inflate,
            has_envelopes: options.envelopes,
            in_flight: options.in_flight,
        })
    }
}
