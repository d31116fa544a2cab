//! Who is asked for a snapshot when a newcomer waits for one: one application for all, or whoever is outside.
use super::sequencer::{Peers, Sequencer};
use super::wire::{FromSequencer, Group};

/// That an application was asked for a keyframe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) peer: u64,
    /// What it gives has all that was published up to here.
    offset: u64,
    at_ns: u64,
    /// How often it was asked before, since others had published meanwhile.
    pub(super) again: u8,
}

/// A snapshot that came within so long of the question was made at once: where others have published meanwhile it is asked
/// for again, so that it stands where it is true. A slower one says nothing of its place in any process.
const AT_ONCE_NS: u64 = 10_000_000;
/// So often in a row at most.
const AGAIN_MAX: u8 = 8;

impl Sequencer {
    pub(super) fn ask_snapshot(&mut self, peer: u64, name: &str, peers: &mut dyn Peers) {
        if self.abroad.as_mut().is_some_and(|abroad| abroad.asks_snapshot(name)) {
            return;
        }
        let Some(interest) = self.interests[Group::Channel as usize].get_mut(name) else { return };
        if interest.asked.is_none() {
            self.ask(peer, name, 0, peers);
        }
    }

    /// There is no snapshot to be had: who waits for one begins live.
    pub(super) fn start_live(&mut self, name: &str, why: &str, peers: &mut dyn Peers) {
        self.forget_asked(name);
        if let Some(interest) = self.interests[Group::Channel as usize].get(name) {
            let to = interest.peers.clone();
            self.send(&to, FromSequencer::StartLive(name, why), peers);
        }
    }

    pub(super) fn ask(&mut self, peer: u64, name: &str, again: u8, peers: &mut dyn Peers) {
        let Some(interest) = self.interests[Group::Channel as usize].get_mut(name) else { return };
        let offset = interest.channel.as_ref().map_or(0, |channel| channel.position().offset);
        interest.asked = Some(Asked { peer, offset, at_ns: self.clock.now_ns(), again });
        self.send(&[peer], FromSequencer::AskApplication(name, again > 0), peers);
    }

    pub(super) fn forget_asked(&mut self, name: &str) {
        if let Some(interest) = self.interests[Group::Channel as usize].get_mut(name) {
            interest.asked = None;
        }
    }
}

impl Asked {
    /// Whether others have published since this one was asked, who has answered at once.
    pub(super) fn is_overtaken(self, peer: u64, offset: u64, now_ns: u64) -> bool {
        let is_at_once = now_ns.saturating_sub(self.at_ns) < AT_ONCE_NS;
        self.peer == peer && is_at_once && self.again < AGAIN_MAX && offset > self.offset
    }
}
