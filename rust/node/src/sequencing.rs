//! The core's sequencer at the middle of the star.
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use fanwire_core::Settings;
use fanwire_core::node::{Peers, Sequencer};

use crate::bounds::Bounds;
use crate::error::StartError;
use crate::outside::{Inbound, Linked, Outside};
use crate::peers::{Outgoing, Peer};
use crate::server::Server;
use crate::serving::Serving;
use crate::thread::Log;

/// As Python's `logging` has it.
const ERROR: u8 = 40;

/// Members of other versions may keep publications in another way.
pub(crate) const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// What is kept of one channel crosses in one frame.
pub(crate) const BOUNDS: Bounds =
    Bounds { frame_bytes_max: 1 << 30, peer_queue_bytes_max: 64 << 20, link_queue_bytes_max: 64 << 20, peers_max: 256 };

struct Sequencing {
    sequencer: Sequencer,
    /// By number.
    peers: HashMap<u64, Peer>,
    /// What comes of an engine outside, where there is one.
    inbound: Option<Arc<Inbound>>,
    log: Log,
}

/// What the sequencer reaches peers by.
struct Reach<'a, 'b> {
    peers: &'a HashMap<u64, Peer>,
    out: &'a mut Outgoing<'b>,
}

impl Peers for Reach<'_, '_> {
    fn send(&mut self, peers: &[u64], message: &[u8]) {
        self.out.send_all(peers.iter().filter_map(|number| self.peers.get(number).copied()), message);
    }
}

impl Serving for Sequencing {
    fn came(&mut self, peer: Peer, _: &mut Outgoing<'_>) {
        self.peers.insert(peer.number(), peer);
        self.sequencer.came(peer.number());
    }

    fn received(&mut self, peer: Peer, frame: &[u8], out: &mut Outgoing<'_>) -> Result<(), String> {
        self.sequencer.received(peer.number(), frame, &mut Reach { peers: &self.peers, out })
    }

    fn gone(&mut self, peer: Peer, out: &mut Outgoing<'_>) {
        self.peers.remove(&peer.number());
        self.sequencer.gone(peer.number(), &mut Reach { peers: &self.peers, out });
    }

    fn turned(&mut self, out: &mut Outgoing<'_>) {
        for heard in self.inbound.as_ref().map(|inbound| inbound.take()).unwrap_or_default() {
            if let Err(error) = self.sequencer.heard(heard, &mut Reach { peers: &self.peers, out }) {
                (self.log)(ERROR, format!("from the backbone: {error}"));
            }
        }
        self.sequencer.turned(&mut Reach { peers: &self.peers, out });
        for (level, line) in self.sequencer.take_lines() {
            (self.log)(level, line);
        }
    }
}

/// What this machine is called in the logs of others: its host's name, and the number of this process.
fn name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default(); // Linux alone has it
    format!("{}:{}", host.trim(), std::process::id())
}

/// Orders what the members that [`join`](crate::join) at `path` publish, for as long as the server lives. `settings` are
/// those that each of them has to have; `log` gets lines with a level as in Python's `logging`. With `outside` an engine
/// there orders, for this machine and for others.
///
/// # Errors
/// Those of [`Server::start`]; [`StartError::Backbone`].
pub fn sequence(
    path: &Path,
    settings: Settings,
    outside: Option<&Outside>,
    log: impl Fn(u8, String) + Send + Sync + 'static,
) -> Result<Server, StartError> {
    let log: Log = Arc::new(log);
    let speaks_msgpack = settings.speaks_msgpack;
    let mut sequencer = Sequencer::new(RELEASE, settings);
    let mut inbound = None;
    if let Some(outside) = outside {
        let its_log = Arc::clone(&log);
        let (linked, comes) = Linked::start(outside, speaks_msgpack, move |level, text| its_log(level, text))?;
        sequencer = sequencer.over(Box::new(linked), outside.own, outside.on_down).named(&name(), RELEASE);
        inbound = Some(comes);
    }
    let its_log = Arc::clone(&log);
    let serving = Sequencing { sequencer, peers: HashMap::new(), inbound: inbound.clone(), log };
    let server = Server::start(path, Box::new(serving), BOUNDS, move |level, text| its_log(level, text))?;
    if let Some(inbound) = inbound {
        inbound.wake_by(server.waker());
    }
    Ok(server)
}
