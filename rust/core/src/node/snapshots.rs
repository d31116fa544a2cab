//! Who is asked for a snapshot when a newcomer waits for one: one application for all, or whoever is outside.
use super::asked::Asked;
use super::sequencer::{Peers, Sequencer};
use super::wire::{FromSequencer, Group};

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
