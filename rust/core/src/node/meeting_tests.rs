//! Several machines over an engine that is cut off, full, and whose machines stand still or die: in the end every member
//! knows every other one, and what that has told last.
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::agreement::agreement;
use super::backbone::{Backbone, Heard, Keep, OnDown};
use super::machines::LEASE_NS;
use super::meeting::{LETTER_BYTES_MAX, PIECE_BYTES_MAX};
use super::sequencer::{Peers, Sequencer};
use super::wire::{FromMember, FromSequencer, VERSION};
use crate::clock::Clock;
use crate::position::Position;
use crate::settings::Settings;

#[derive(Debug, Default)]
struct Told {
    letters: VecDeque<(Option<u64>, Vec<u8>)>,
    is_full: bool,
}

/// What a machine has told.
#[derive(Clone, Debug, Default)]
struct Way(Arc<Mutex<Told>>);

impl Backbone for Way {
    fn publish(&mut self, _: u64, _: &str, _: &[u8], _: Keep) {}
    fn want(&mut self, _: &str, _: Keep) {}
    fn leave(&mut self, _: &str) {}
    fn since(&mut self, _: &str, _: Position) {}
    fn tell(&mut self, to: Option<u64>, bytes: &[u8]) -> Result<(), String> {
        let mut told = self.0.lock().expect("alone");
        if told.is_full {
            return Err("full".into());
        }
        told.letters.push_back((to, bytes.into()));
        Ok(())
    }
    fn listen(&mut self, _: &str, _: bool) {}
}

/// What a member knows: of each other one its value, once that was told, and its machine's age.
#[derive(Debug, Default)]
struct Member {
    value: u8,
    others: BTreeMap<u32, (Option<u8>, i64)>,
}

#[derive(Debug)]
struct Machine {
    sequencer: Sequencer,
    way: Way,
    arriving: VecDeque<Heard>,
    is_up: bool,
    stands_still: bool,
    /// By their numbers, which are those of their connections as well.
    members: HashMap<u64, Member>,
}

#[derive(Default)]
struct Sent(Vec<(Vec<u64>, Vec<u8>)>);

impl Peers for Sent {
    fn send(&mut self, peers: &[u64], message: &[u8]) {
        self.0.push((peers.to_vec(), message.to_vec()));
    }
}

impl Machine {
    fn say(&mut self, member: u64, message: FromMember<'_>) {
        let (mut bytes, mut sent) = (Vec::new(), Sent::default());
        message.write(&mut bytes);
        self.sequencer.received(member, &bytes, &mut sent).expect("a message");
        self.take(sent);
    }

    /// Members hear it, and tell whoever comes what they have.
    fn take(&mut self, sent: Sent) {
        let mut welcomed = Vec::new();
        for (peers, message) in sent.0 {
            for peer in peers {
                let Some(member) = self.members.get_mut(&peer) else { continue };
                let mut change = |number: u32, has_come: bool, age: i64| {
                    if has_come {
                        assert!(member.others.insert(number, (None, age)).is_none(), "it was there");
                        welcomed.push((peer, number));
                    } else {
                        assert!(member.others.remove(&number).is_some(), "it was not there");
                    }
                };
                match FromSequencer::read(&message).expect("a message") {
                    FromSequencer::Welcome(others) => others.iter().for_each(|&one| change(one.into(), true, 0)),
                    FromSequencer::Changed(number, has_come) => change(number.into(), has_come, 0),
                    FromSequencer::ChangedElsewhere(number, has_come, age) => change(number, has_come, age),
                    FromSequencer::ToldAnywhere(from, 0, value) => {
                        let known = member.others.get_mut(&from).expect("who tells is there");
                        known.0 = Some(value[0]);
                    }
                    FromSequencer::Backbone(..) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        for (member, number) in welcomed {
            let value = self.members[&member].value;
            self.say(member, FromMember::TellAnywhere(&number.to_le_bytes(), 0, &[value]));
        }
    }

    fn join(&mut self, member: u64, value: u8) {
        self.sequencer.came(member);
        self.members.insert(member, Member { value, ..Member::default() });
        let agreed = agreement("1", &Settings::default());
        self.say(member, FromMember::Hello(VERSION, member as u8, &agreed));
    }
}

struct World {
    now_ns: &'static AtomicU64,
    machines: BTreeMap<u64, Machine>,
    random: u64,
    last: u64,
}

impl World {
    fn start(seed: u64) -> Self {
        let now_ns = Box::leak(Box::new(AtomicU64::new(1 << 40)));
        let mut world = Self { now_ns, machines: BTreeMap::new(), random: seed * 2 + 1, last: 0 };
        (0..3).for_each(|_| world.begin_one());
        world
    }

    fn chance(&mut self, of: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 8) % of
    }

    fn value(&mut self) -> u8 {
        self.chance(256) as u8
    }

    fn begin_one(&mut self) {
        self.last += 1;
        let (own, way) = (self.last, Way::default());
        let sequencer = Sequencer::new("1", Settings::default()).with_clock(Clock::Set(self.now_ns));
        let sequencer = sequencer.over(Box::new(way.clone()), own, OnDown::default()).named(&own.to_string(), "1");
        let (arriving, members) = (VecDeque::from([Heard::Up]), HashMap::new());
        let machine = Machine { sequencer, way, arriving, is_up: true, stands_still: false, members };
        self.machines.insert(own, machine);
        for member in 0..=self.chance(2) {
            let value = self.value();
            self.machine(own).join(member, value);
        }
    }

    fn machine(&mut self, own: u64) -> &mut Machine {
        self.machines.get_mut(&own).expect("it is there")
    }

    /// All that was told arrives where somebody is reached.
    fn pass_on(&mut self) {
        let told: Vec<_> = self.machines.values().filter(|one| one.is_up).collect();
        let told: Vec<_> =
            told.into_iter().flat_map(|one| std::mem::take(&mut one.way.0.lock().expect("alone").letters)).collect();
        for (to, bytes) in told {
            for (own, machine) in &mut self.machines {
                if machine.is_up && to.is_none_or(|to| to == *own) {
                    machine.arriving.push_back(Heard::Told(bytes.clone()));
                }
            }
        }
    }

    fn hear(&mut self, own: u64, at_most: usize) {
        let machine = self.machine(own);
        for _ in 0..at_most.min(machine.arriving.len()) {
            let (mut sent, heard) = (Sent::default(), machine.arriving.pop_front().expect("counted"));
            machine.sequencer.heard(heard, &mut sent).expect("all are alike");
            machine.take(sent);
        }
    }

    /// All links break: what was under way is lost.
    fn cut(&mut self, own: u64) {
        let machine = self.machine(own);
        machine.way.0.lock().expect("alone").letters.clear();
        machine.arriving.retain(|heard| !matches!(heard, Heard::Told(_)));
        if std::mem::take(&mut machine.is_up) {
            machine.arriving.push_back(Heard::Down("cut".into()));
        }
    }

    fn mend(&mut self, own: u64) {
        let machine = self.machine(own);
        machine.way.0.lock().expect("alone").is_full = false;
        if !std::mem::replace(&mut machine.is_up, true) {
            machine.arriving.push_back(Heard::Up);
        }
    }

    fn step(&mut self) {
        let all: Vec<u64> = self.machines.keys().copied().collect();
        let own = all[self.chance(all.len() as u64) as usize];
        match self.chance(100) {
            0..30 => self.pass_on(),
            30..60 if !self.machine(own).stands_still => {
                let at_most = 1 + self.chance(7) as usize;
                self.hear(own, at_most);
            }
            60..75 => self.change_value(own),
            75..80 => self.cut(own),
            80..85 => self.mend(own),
            85..87 => self.machine(own).stands_still = true,
            87..89 => self.machine(own).stands_still = false,
            89 => self.machine(own).way.0.lock().expect("alone").is_full = true,
            90 if all.len() > 2 => drop(self.machines.remove(&own)),
            91 if all.len() < 5 => self.begin_one(),
            92 => {
                let value = self.value();
                let member = (0..9).find(|one| !self.machine(own).members.contains_key(one));
                if let Some(member) = member {
                    self.machine(own).join(member, value);
                }
            }
            93 => {
                let machine = self.machine(own);
                if let Some(&member) = machine.members.keys().next().filter(|_| machine.members.len() > 1) {
                    let mut sent = Sent::default();
                    machine.members.remove(&member);
                    machine.sequencer.gone(member, &mut sent);
                    machine.take(sent);
                }
            }
            _ => {
                let span = [1_000_000, 400_000_000, LEASE_NS][self.chance(3) as usize];
                self.pass(span);
            }
        }
    }

    fn change_value(&mut self, own: u64) {
        let value = self.value();
        let machine = self.machine(own);
        let Some(&member) = machine.members.keys().next() else { return };
        machine.members.get_mut(&member).expect("it is there").value = value;
        machine.say(member, FromMember::TellAnywhere(&[], 0, &[value]));
    }

    fn pass(&mut self, span_ns: u64) {
        self.now_ns.fetch_add(span_ns, Ordering::Relaxed);
        for machine in self.machines.values_mut().filter(|one| !one.stands_still) {
            let mut sent = Sent::default();
            machine.sequencer.turned(&mut sent);
            machine.take(sent);
        }
    }

    fn settle(&mut self) {
        let all: Vec<u64> = self.machines.keys().copied().collect();
        for &own in &all {
            self.machine(own).stands_still = false;
            self.mend(own);
        }
        for _ in 0..20 {
            for _ in 0..6 {
                self.pass_on();
                all.iter().for_each(|&own| self.hear(own, usize::MAX));
            }
            self.pass(500_000_000);
        }
    }

    fn check(&self) {
        let mut all: Vec<u8> =
            self.machines.values().flat_map(|one| one.members.values()).map(|one| one.value).collect();
        all.sort_unstable();
        let mut eldest = 0;
        for machine in self.machines.values() {
            for member in machine.members.values() {
                let mut known: Vec<u8> = member.others.values().map(|one| one.0.expect("it was told")).collect();
                known.push(member.value);
                known.sort_unstable();
                assert_eq!(known, all);
            }
            let member = machine.members.values().next().expect("one is there");
            eldest += usize::from(member.others.values().all(|one| one.1 >= 0));
        }
        assert_eq!(eldest, 1, "all know who is there for longest");
    }
}

#[test]
fn in_the_end_all_know_all_and_what_each_has_told_last() {
    for seed in 0..300 {
        let mut world = World::start(seed);
        for _ in 0..4 {
            (0..60).for_each(|_| world.step());
            world.settle();
            world.check();
        }
    }
}

#[test]
fn whoever_comes_is_behind_all_that_are_there() {
    let mut world = World::start(7);
    world.settle();
    for _ in 0..3 {
        world.begin_one();
        world.settle();
        world.check();
        let newest = &world.machines[&world.last];
        let member = newest.members.values().next().expect("one is there");
        let elsewhere = member.others.iter().filter(|one| *one.0 >= 256);
        assert!(elsewhere.clone().count() > 2 && elsewhere.into_iter().all(|one| one.1.1 < 0));
    }
}

/// To each machine once, whoever there it is for, and in pieces that any engine outside takes.
#[test]
fn what_is_told_to_some_crosses_once_for_each_machine_and_comes_whole() {
    let mut world = World::start(3);
    world.settle();
    let (holder, other) = (1, 2);
    for member in 0..3 {
        if !world.machine(other).members.contains_key(&member) {
            world.machine(other).join(member, 0);
        }
    }
    world.settle();
    let teller = *world.machine(holder).members.keys().next().expect("one is there");
    let machine = world.machine(holder);
    let place = machine.sequencer.machines.known[&other].place;
    machine.way.0.lock().expect("alone").letters.clear();
    let to: Vec<u8> = (0..3).flat_map(|member| (place * 256 + member).to_le_bytes()).collect();
    for bytes in [0_usize, 1, PIECE_BYTES_MAX, PIECE_BYTES_MAX + 1, 2 << 20] {
        let message: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
        let (mut said, mut sent) = (Vec::new(), Sent::default());
        FromMember::TellAnywhere(&to, 1, &message).write(&mut said);
        let machine = world.machine(holder);
        machine.sequencer.received(teller, &said, &mut sent).expect("a message");
        let letters = std::mem::take(&mut machine.way.0.lock().expect("alone").letters);
        assert_eq!(letters.len(), bytes.div_ceil(PIECE_BYTES_MAX).max(1));
        assert!(letters.iter().all(|(_, letter)| letter.len() <= LETTER_BYTES_MAX));
        for lost in [None, Some(0), Some(1)] {
            let mut sent = Sent::default();
            let coming = letters.iter().enumerate().filter(|(index, _)| Some(*index) != lost);
            for (_, (whom, letter)) in coming {
                assert_eq!(*whom, Some(other));
                let sequencer = &mut world.machine(other).sequencer;
                sequencer.heard(Heard::Told(letter.clone()), &mut sent).expect("all are alike");
            }
            let is_whole = lost.is_none_or(|lost| lost >= letters.len());
            assert_eq!(sent.0.len(), usize::from(is_whole), "{bytes} bytes without {lost:?}");
            for (peers, told) in sent.0 {
                assert_eq!(peers.len(), 3);
                let told = FromSequencer::read(&told).expect("a message");
                assert!(matches!(told, FromSequencer::ToldAnywhere(_, 1, whole) if *whole == *message));
            }
        }
    }
}
