//! Frameworks: who has a socket, reads it, and has the engine write to it. What they ask for, by a seed.
use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::time::Duration;

use super::account::Account;
use super::client::Client;
use super::framework::{Framework, Part, frame, message};
use super::hold::{Hold, Last};
use super::seating::Asked;
use super::sieve::Sieve;
use super::turn::Turn;
use super::world::{ALL, World};
use crate::channel::{Origin, Start};
use crate::engine::Broadcasting;
use crate::messages::{Command, Released};
use crate::protocol::Format;
use crate::shard::simulated::{Luck, Meanwhile};

/// So many of them are about.
const FRAMEWORKS_MAX: usize = 4;

/// What one of them does.
pub(super) fn step(world: &mut World, channels: usize, luck: &mut Luck) {
    let alive = world.frameworks.iter().filter(|one| one.fd.is_some()).count();
    if alive == 0 || (alive < FRAMEWORKS_MAX && luck.once_in(20)) {
        let at = world.welcome_framework(if luck.once_in(2) { ALL } else { luck.below(3_000) });
        world.sieve = Sieve::pick(luck);
        return world.adopt(at, luck);
    }
    let at = luck.below(world.frameworks.len());
    let channel = luck.below(channels);
    match luck.below(40) {
        0..18 => world.write_part(at, luck),
        18..23 => {
            let origin = world.origin_of(at, channel, luck);
            world.subscribe_adopted(at, channel, origin);
        }
        23..26 => world.unsubscribe_adopted(at, channel),
        26..29 => world.notify_adopted(at, if luck.once_in(2) { 0 } else { luck.below(500) as u64 }),
        29..32 => world.begin_adopted(at),
        32..34 => world.release_adopted(at),
        34 if luck.once_in(4) => world.abort_adopted(at, luck.once_in(3)),
        35 if luck.once_in(2) => world.write_close(at),
        36..39 => world.adopt_again(at, luck),
        39 if luck.once_in(2) => world.close_framework(at),
        39 => world.broadcast_adopted(luck),
        _ => {}
    }
}

impl World {
    fn newest(&mut self, at: usize) -> &mut Client {
        &mut self.clients[self.frameworks[at].newest]
    }

    /// Whether the engine takes what is written.
    fn is_taken(&mut self, at: usize) -> bool {
        let newest = self.newest(at);
        newest.is_held() && newest.hold().is_taken()
    }

    pub(super) fn welcome_framework(&mut self, room: usize) -> usize {
        let (fd, serial) = {
            let mut net = self.net.borrow_mut();
            let fd = net.connect(room);
            let serial = net.sockets[&fd.as_raw_fd()].serial;
            (fd, serial)
        };
        self.frameworks.push(Framework {
            number: fd.as_raw_fd(),
            fd: Some(fd),
            serial,
            chain: Vec::new(),
            newest: 0,
            messages: 0,
            parts: VecDeque::new(),
            buffered: None,
            rest: Vec::new(),
            is_silent: false,
            is_broken: false,
        });
        self.frameworks.len() - 1
    }

    /// Hands a socket to the engine.
    pub(super) fn adopt(&mut self, at: usize, luck: &mut Luck) {
        let framework = &mut self.frameworks[at];
        let copy = self.net.borrow_mut().duplicate(framework.number);
        let adopted = self.press.engine.take_number(Format::Raw).expect("room");
        let (id, shard) = (adopted.id(), adopted.id().shard());
        let outgoing = adopted.outgoing();
        let command = Command::Adopt(id, copy, Format::Raw, outgoing);
        self.press.engine.shards[shard].command(command);
        let is_passed = framework.chain.is_empty();
        let waiting: usize = framework.rest.iter().map(|part| part.begins).sum();
        let hold = Hold::new(adopted, at, framework.messages - waiting);
        let mut client = Client::adopted(hold, (framework.number, framework.serial, shard));
        client.sieve = self.sieve.take();
        framework.newest = self.clients.len();
        framework.chain.push(self.clients.len());
        self.clients.push(client);
        if is_passed {
            self.frameworks[at].buffered = Some((self.clients.len() - 1, Vec::new()));
            if luck.once_in(3) {
                self.buffer(at, luck);
            }
        }
        for part in std::mem::take(&mut self.frameworks[at].rest) {
            self.write_to(at, part, luck.once_in(2));
        }
    }

    /// A whole message stands in the framework's own buffer.
    fn buffer(&mut self, at: usize, luck: &mut Luck) {
        let published = self.press.published();
        let framework = &mut self.frameworks[at];
        for part in message(framework.messages, luck) {
            self.clients[framework.newest].note_asked(part.begins, part.bytes.len(), &published);
            framework.buffered.as_mut().expect("it is adopted").1.extend(part.bytes);
        }
        framework.messages += 1;
        self.clients[framework.newest].hold().buffered += 1;
    }

    fn adopt_again(&mut self, at: usize, luck: &mut Luck) {
        let framework = &self.frameworks[at];
        if framework.fd.is_none() || framework.is_broken || framework.is_silent || !framework.parts.is_empty() {
            return;
        }
        let newest = self.newest(at);
        let is_whole = !newest.hold().is_mid_message;
        let is_released = newest.hold().last.is_some_and(|last| last != Last::Drop);
        if is_whole && (newest.is_gone || is_released) && self.frameworks[at].chain.len() < 3 {
            self.adopt(at, luck);
        }
    }

    /// The framework's own buffer is empty, or the engine has let go of the one before.
    pub(super) fn begin_adopted(&mut self, at: usize) {
        let framework = &mut self.frameworks[at];
        let buffered = framework.buffered.take();
        let first = framework.chain.first().copied();
        if let Some((owner, bytes)) = buffered {
            self.clients[owner].hold().buffered = 0;
            self.write_direct(owner, &bytes);
        }
        let Some(first) = first else { return };
        if self.clients[first].hold().has_begun || self.clients[first].hold().adopted.is_none() {
            return;
        }
        self.clients[first].hold().has_begun = true;
        let adopted = self.clients[first].hold().adopted.take().expect("looked at above");
        self.engine().begin_adopted(&adopted).expect("it runs");
        self.clients[first].hold().adopted = Some(adopted);
    }

    /// The framework writes to its socket.
    fn write_direct(&mut self, client: usize, bytes: &[u8]) {
        let (published, lists) = (self.press.published(), self.press.lists.borrow());
        let now_ns = self.now_ns();
        let turn = Turn { lists: &lists, now_ns, ..Turn::empty() };
        self.clients[client].take_direct(bytes, &published, &turn, &mut self.losses);
    }

    /// The next part of the message under way, or of a new one; perhaps both.
    fn write_part(&mut self, at: usize, luck: &mut Luck) {
        let framework = &mut self.frameworks[at];
        if framework.fd.is_none() || framework.is_silent || framework.is_broken {
            return;
        }
        let mut all: Option<Part> = None;
        loop {
            if framework.parts.is_empty() {
                framework.parts = message(framework.messages, luck);
                framework.messages += 1;
            }
            let next = framework.parts.pop_front().expect("a message has a part");
            match &mut all {
                None => all = Some(next),
                Some(all) => {
                    all.bytes.extend(next.bytes);
                    all.begins += next.begins;
                    (all.is_mid_message, all.is_mid_frame) = (next.is_mid_message, next.is_mid_frame);
                }
            }
            if !luck.once_in(4) {
                break;
            }
        }
        self.write(at, all.expect("one was taken"), luck.once_in(2));
    }

    /// Where the bytes go as it is now.
    pub(super) fn write(&mut self, at: usize, part: Part, is_deferred: bool) {
        if self.frameworks[at].is_broken || self.frameworks[at].fd.is_none() {
            return;
        }
        if self.is_taken(at) {
            self.write_to(at, part, is_deferred);
        } else if self.frameworks[at].chain.is_empty() {
            let (newest, published) = (self.frameworks[at].newest, self.press.published());
            self.clients[newest].note_asked(part.begins, part.bytes.len(), &published);
            self.write_direct(newest, &part.bytes);
        } else {
            self.frameworks[at].rest.push(part);
        }
    }

    /// Has the engine write.
    fn write_to(&mut self, at: usize, part: Part, is_deferred: bool) {
        let published = self.press.published();
        let newest = self.frameworks[at].newest;
        let client = &mut self.clients[newest];
        if !client.hold().is_taken() {
            return self.frameworks[at].rest.push(part); // one of those before it was refused
        }
        client.note_asked(part.begins, part.bytes.len(), &published);
        let adopted = client.hold().adopted.as_ref().expect("it is taken");
        let taken = self.press.engine.write_adopted(adopted, part.bytes.as_slice().into(), is_deferred);
        let waiting = adopted.waiting();
        match taken.expect("it runs") {
            Some(waits) => {
                assert_eq!(waits, waiting);
                let hold = client.hold();
                (hold.is_mid_message, hold.is_mid_frame) = (part.is_mid_message, part.is_mid_frame);
            }
            None => {
                self.note_refusal(at, part.begins, part.bytes.len());
                self.frameworks[at].rest.push(part);
            }
        }
    }

    /// One message is written by many of them, in one call.
    pub(super) fn broadcast_adopted(&mut self, luck: &mut Luck) {
        let number = self.broadcasts;
        self.broadcasts += 1;
        let filling = if luck.once_in(3) { luck.below(4_000) } else { luck.below(100) };
        let bytes = frame(0x81, format!("b|{number}|{}", "x".repeat(filling)).as_bytes());
        let published = self.press.published();
        let mut all = Vec::new();
        for at in 0..self.frameworks.len() {
            let framework = &self.frameworks[at];
            let may_write = !framework.is_silent && !framework.is_broken && framework.parts.is_empty();
            if may_write && self.is_taken(at) && !luck.once_in(4) {
                let client = self.newest(at);
                client.note_broadcast(number, bytes.len(), &published);
                all.push((at, client.hold().adopted.take().expect("it is taken")));
            }
        }
        let add = |to: &mut Broadcasting| all.iter().map(|one| to.add(&one.1)).collect::<Vec<_>>();
        let engine = &self.press.engine;
        let taken = engine.broadcast_adopted(bytes.as_slice().into(), luck.once_in(2), add).expect("it runs");
        for ((at, adopted), waits) in all.into_iter().zip(taken) {
            assert!(waits.is_none_or(|waits| waits == adopted.waiting()));
            self.newest(at).hold().adopted = Some(adopted);
            match waits {
                Some(_) => self.frameworks[at].messages += 1,
                None => self.note_refusal(at, 1, bytes.len()),
            }
        }
    }

    /// The engine takes nothing more, as it has ended.
    fn note_refusal(&mut self, at: usize, messages: usize, bytes: usize) {
        let newest = self.frameworks[at].newest;
        let client = &mut self.clients[newest];
        let net = self.net.borrow();
        let socket = &net.sockets[&client.fd];
        let is_over = client.is_ending() || socket.is_half_closed || socket.is_reset || client.hold().may_drain;
        assert!(is_over, "it takes no more, and nobody ended it");
        client.note_refused(messages, bytes);
        client.hold().last = Some(Last::Refused);
    }

    /// The framework closes, perhaps in the midst of a message.
    pub(super) fn write_close(&mut self, at: usize) {
        if self.frameworks[at].is_silent || !self.is_taken(at) || self.newest(at).hold().is_mid_frame {
            return;
        }
        let published = self.press.published();
        let number = self.frameworks[at].messages;
        let mut payload = 1_000_u16.to_be_bytes().to_vec();
        payload.extend(format!("p|{number}|own").bytes());
        let client = self.newest(at);
        let is_mid = std::mem::take(&mut client.hold().is_mid_message);
        (client.hold().is_abandoned, client.hold().is_silent) = (is_mid, true);
        client.end_accounts(&published);
        client.accounts.iter_mut().for_each(|account| account.is_leaving = true);
        let framework = &mut self.frameworks[at];
        framework.parts.clear();
        (framework.messages, framework.is_silent) = (number + 1, true);
        let bytes = frame(0x88, &payload);
        self.write_to(at, Part { bytes, begins: 1, is_mid_message: false, is_mid_frame: false }, false);
    }

    pub(super) fn subscribe_adopted(&mut self, at: usize, channel: usize, origin: Origin) {
        if self.frameworks[at].is_silent || !self.is_taken(at) {
            return;
        }
        let (name, asked) = {
            let list = &self.press.lists.borrow()[channel];
            let asked = Asked { origin, place: list.all.len(), offset: list.offset(), is_by_turn: false };
            (list.name.clone(), asked)
        };
        let newest = self.frameworks[at].newest;
        let sieve = self.clients[newest].sieve;
        let adopted = self.clients[newest].hold().adopted.as_ref().expect("it is taken");
        self.press.engine.subscribe_adopted(adopted, (&*name, Sieve::view(sieve)), origin).expect("room");
        let client = &mut self.clients[newest];
        client.hold().is_asked = true;
        if client.wanted(channel).is_none() {
            client.accounts.push(Account::new(channel, asked, true).filtered(sieve));
        }
    }

    /// One that has yet to leave comes back for what is new: else nobody could say which of the two got something.
    fn origin_of(&mut self, at: usize, channel: usize, luck: &mut Luck) -> Origin {
        match self.newest(at).account(channel) {
            None => self.origin(channel, luck),
            Some(_) => Origin { since: None, start: Some(Start::Live) },
        }
    }

    pub(super) fn unsubscribe_adopted(&mut self, at: usize, channel: usize) {
        if !self.is_taken(at) {
            return;
        }
        let newest = self.frameworks[at].newest;
        let (name, length) = {
            let list = &self.press.lists.borrow()[channel];
            (list.name.clone(), list.all.len())
        };
        let client = &mut self.clients[newest];
        if let Some(account) = client.wanted(channel) {
            account.end_at(length);
            account.is_leaving = true;
        }
        client.hold().is_asked = true;
        let adopted = client.hold().adopted.as_ref().expect("it is taken");
        self.press.engine.unsubscribe_adopted(adopted, &name).expect("a good name");
    }

    fn notify_adopted(&mut self, at: usize, below: u64) {
        let newest = self.frameworks[at].newest;
        let client = &mut self.clients[newest];
        if let (true, Some(adopted)) = (client.is_held(), &client.hold.as_ref().expect("it is adopted").adopted) {
            self.press.engine.notify_adopted(adopted, below).expect("it runs");
            client.hold().wants = Some(below);
        }
    }

    pub(super) fn release_adopted(&mut self, at: usize) {
        if !self.is_taken(at) {
            return;
        }
        let published = self.press.published();
        let client = self.newest(at);
        client.end_accounts(&published);
        client.hold().last = Some(Last::Release);
        let newest = self.frameworks[at].newest;
        let adopted = self.clients[newest].hold().adopted.as_ref().expect("it is taken");
        self.press.engine.release_adopted(adopted).expect("it runs");
        let late = self.press.engine.write_adopted(adopted, Box::from(&b"late"[..]), false);
        assert_eq!(late.expect("it runs"), None, "it is being released");
    }

    pub(super) fn abort_adopted(&mut self, at: usize, is_dropped: bool) {
        let chain = self.frameworks[at].chain.clone();
        if chain.is_empty() {
            return;
        }
        self.frameworks[at].is_broken = true;
        for index in chain {
            let hold = self.clients[index].hold();
            let Some(adopted) = &hold.adopted else { continue };
            if !is_dropped {
                self.press.engine.abort_adopted(adopted).expect("it runs");
                hold.last = Some(Last::Abort);
            } else if hold.is_taken() {
                hold.last = Some(Last::Drop);
                hold.adopted = None;
            }
        }
    }

    /// Its shard has given up an adopted connection.
    pub(super) fn let_go(&mut self, index: usize, why: &Released) {
        let at = self.clients[index].hold().framework;
        let framework = &mut self.frameworks[at];
        framework.chain.retain(|&one| one != index);
        if !matches!(why, Released::Released | Released::Ended) {
            (framework.is_broken, framework.rest) = (true, Vec::new());
            return self.abort_adopted(at, false);
        }
        if framework.buffered.is_none() || framework.chain.is_empty() {
            self.begin_adopted(at);
        }
        if !self.frameworks[at].chain.is_empty() {
            return;
        }
        for part in std::mem::take(&mut self.frameworks[at].rest) {
            self.write(at, part, false);
        }
    }

    /// The framework closes its socket, once the engine has let go of it.
    fn close_framework(&mut self, at: usize) {
        let framework = &mut self.frameworks[at];
        if framework.chain.is_empty()
            && let Some(fd) = framework.fd.take()
        {
            self.net.borrow_mut().close(fd);
        }
    }

    /// All that was begun is written to its end, and nothing is held back.
    pub(super) fn finish_frameworks(&mut self) {
        for at in 0..self.frameworks.len() {
            self.begin_adopted(at);
            while let Some(part) = self.frameworks[at].parts.pop_front() {
                self.write(at, part, false);
            }
        }
        self.engine().flush();
    }

    /// Nothing was written to a socket that the engine has not begun with, or has let go of.
    pub(super) fn check_untouched(&mut self, at: usize) {
        let framework = &self.frameworks[at];
        let has_begun = framework.chain.first().is_some_and(|&first| self.clients[first].hold().has_begun);
        if !has_begun && framework.fd.is_some() {
            let net = self.net.borrow();
            assert!(
                net.sockets[&framework.number].taken.is_empty(),
                "{at} {:?} {:?} a socket that is the framework's was written to",
                framework.chain,
                net.sockets[&framework.number]
            );
        }
    }

    /// The engine drains: it lets go of what is adopted once that is written, and closes everyone else.
    pub(super) fn drain(&mut self) {
        let published = self.press.published();
        for client in &mut self.clients {
            client.may_end = true;
            let Some(hold) = client.hold.as_deref_mut() else { continue };
            hold.may_drain = true;
            if hold.is_mid_message {
                client.end_accounts(&published); // nothing stands in a message that never ends
            }
        }
        self.engine().drain(1_001, "it drains", Duration::ZERO).expect("it runs");
        self.settle();
        self.catch_up();
        for framework in &self.frameworks {
            assert!(framework.chain.is_empty(), "it was not let go of");
        }
    }

    /// The engine stops in the midst of everything: who is adopted is let go of, and its socket is its framework's.
    pub(super) fn stop(&mut self) {
        self.engine().stop();
        self.shards.clear();
        self.take_events();
        for (id, why) in std::mem::take(&mut self.released) {
            let is_it = |client: &&mut Client| client.hold.is_some() && client.id == Some(id) && !client.is_gone;
            let client = self.clients.iter_mut().find(is_it).expect("it is let go of once");
            client.is_gone = true;
            let was_waiting = client.hold().waiting();
            assert!(was_waiting == 0 && !matches!(why, Released::Released | Released::Broken(_)), "{why:?}");
        }
        for framework in &mut self.frameworks {
            let mut net = self.net.borrow_mut();
            let is_shut = net.sockets[&framework.number].is_shut;
            if let Some(fd) = framework.fd.take() {
                assert!(!is_shut || framework.is_broken, "its socket was shut down");
                net.close(fd);
            }
        }
    }

    /// Everyone is gone.
    pub(super) fn close_frameworks(&mut self) {
        for at in 0..self.frameworks.len() {
            assert!(self.frameworks[at].chain.is_empty(), "it was not released");
            self.close_framework(at);
        }
    }
}
