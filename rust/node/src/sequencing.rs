//! The core's sequencer at the middle of the star.
use std::collections::HashMap;
use std::path::Path;

use fanwire_core::Settings;
use fanwire_core::node::{Peers, Sequencer};

use crate::bounds::Bounds;
use crate::error::StartError;
use crate::peers::{Outgoing, Peer};
use crate::server::Server;
use crate::serving::Serving;

/// Members of other versions may keep publications in another way.
pub(crate) const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// What is kept of one channel crosses in one frame.
pub(crate) const BOUNDS: Bounds =
    Bounds { frame_bytes_max: 1 << 30, peer_queue_bytes_max: 64 << 20, link_queue_bytes_max: 64 << 20, peers_max: 256 };

struct Sequencing {
    sequencer: Sequencer,
    /// By number.
    peers: HashMap<u64, Peer>,
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

    fn turned(&mut self, _: &mut Outgoing<'_>) {
        self.sequencer.turned();
    }
}

/// Orders what the members that [`join`](crate::join) at `path` publish, for as long as the server lives. `settings` are
/// those that each of them has to have; `log` gets lines with a level as in Python's `logging`.
///
/// # Errors
/// Those of [`Server::start`].
pub fn sequence(
    path: &Path,
    settings: Settings,
    log: impl Fn(u8, String) + Send + Sync + 'static,
) -> Result<Server, StartError> {
    let serving = Sequencing { sequencer: Sequencer::new(RELEASE, settings), peers: HashMap::new() };
    Server::start(path, Box::new(serving), BOUNDS, log)
}
