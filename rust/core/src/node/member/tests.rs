//! A member without a sequencer: what it says, and whom it calls when.
use std::sync::mpsc::{Receiver, Sender as Told, channel};

use super::*;
use crate::channel::{Registry, Stand};
use crate::protocol::Payload;
use crate::settings::Settings;

/// Keeps what it is given, up to a number of messages.
struct Kept(Mutex<Vec<Vec<u8>>>, usize);

impl Sender for Kept {
    fn send(&self, message: &[u8], _is_deferred: bool) -> Result<(), (u64, u64)> {
        let mut kept = self.0.lock().expect("nobody panics");
        if kept.len() >= self.1 {
            return Err((kept.len() as u64, self.1 as u64));
        }
        kept.push(message.to_vec());
        Ok(())
    }

    fn flush(&self) {}
}

impl Kept {
    fn said(&self) -> Vec<String> {
        let said = std::mem::take(&mut *self.0.lock().expect("nobody panics"));
        said.iter().map(|bytes| format!("{:?}", FromMember::read(bytes).expect("a message"))).collect()
    }
}

fn member(messages_max: usize) -> (Member, Arc<Kept>) {
    let kept = Arc::new(Kept(Mutex::default(), messages_max));
    (Member::new(7, b"alike".as_slice().into(), Arc::clone(&kept) as Arc<dyn Sender>), kept)
}

fn named(name: &str) -> Arc<Channel> {
    let registry = Registry::listed(&Arc::default(), 10);
    registry.obtain(name, &Settings::default(), 0).expect("there is room")
}

type Outcome = (Vec<String>, Vec<String>);

fn note(told: &Told<Outcome>) -> Then {
    let told = told.clone();
    Box::new(move |channels, errors| {
        let names = channels.iter().map(|channel| channel.name().to_owned()).collect();
        told.send((names, errors)).expect("somebody listens");
    })
}

fn noted() -> (Told<Outcome>, Receiver<Outcome>) {
    channel()
}

#[test]
fn who_subscribes_waits_for_all_and_is_called_once() {
    let (member, kept) = member(100);
    let (told, got) = noted();
    let (a, b) = (named("a"), named("b"));
    let both = vec![(Group::Channel, Arc::clone(&a)), (Group::Channel, Arc::clone(&b))];
    member.when_ready(None, both, |_| None, note(&told)).expect("room");
    assert!(kept.said().is_empty(), "nobody is connected");
    member.up().expect("room");
    let said = kept.said();
    assert!(said[0].starts_with("Hello(") && said.len() == 3, "{said:?}");
    member.when_ready(None, vec![(Group::Channel, Arc::clone(&a))], |_| None, note(&told)).expect("room");
    assert!(kept.said().is_empty(), "it was asked for");
    member.note_had(&a);
    member.arrived((Group::Channel, "a"), Ok(()));
    assert_eq!(got.try_recv(), Ok((vec!["a".into()], vec![])));
    assert!(got.try_recv().is_err());
    member.arrived((Group::Channel, "b"), Err("there is no room"));
    assert_eq!(got.try_recv(), Ok((vec!["a".into()], vec!["channel \"b\": there is no room".into()])));
    member.when_ready(None, vec![(Group::Channel, a)], |_| None, note(&told)).expect("room");
    assert_eq!(got.try_recv(), Ok((vec!["a".into()], vec![])), "at once");
    member.when_ready(None, vec![(Group::Channel, b)], |_| None, note(&told)).expect("room");
    assert_eq!(kept.said(), ["Want((Channel, \"b\"))"], "it is asked for again");
}

#[test]
fn one_that_was_given_up_and_made_anew_is_asked_for_again() {
    let (member, kept) = member(100);
    let (told, got) = noted();
    member.up().expect("room");
    let first = named("a");
    member.when_ready(None, vec![(Group::Channel, Arc::clone(&first))], |_| None, note(&told)).expect("room");
    member.note_had(&first);
    member.arrived((Group::Channel, "a"), Ok(()));
    got.try_recv().expect("it has come");
    kept.said();
    member.when_ready(None, vec![(Group::Channel, named("a"))], |_| None, note(&told)).expect("room");
    assert!(got.try_recv().is_err());
    assert_eq!(kept.said(), ["Want((Channel, \"a\"))"]);
}

#[test]
fn who_leaves_while_it_waits_is_not_subscribed_and_one_has_a_bound() {
    let (member, _) = member(100_000);
    let (told, got) = noted();
    member.up().expect("room");
    let (id, other) = (ConnectionId::from_bits(1), ConnectionId::from_bits(2));
    let a = named("a");
    for who in [id, other] {
        member.when_ready(Some(who), vec![(Group::Channel, Arc::clone(&a))], |_| None, note(&told)).expect("room");
    }
    member.cancel(id, (Group::Channel, "a"));
    for _ in 1..WAITING_MAX {
        member.when_ready(Some(id), vec![(Group::Channel, named("b"))], |_| None, note(&told)).expect("room");
    }
    let over =
        member.when_ready(Some(id), vec![(Group::Channel, named("c"))], |_| None, note(&told)).expect_err("the bound");
    assert_eq!(over.to_string(), "subscriptions that wait: 4097 is over the bound of 4096");
    member.note_had(&a);
    member.arrived((Group::Channel, "a"), Ok(()));
    let both: Vec<Outcome> = got.try_iter().collect();
    assert_eq!(both, [(vec![], vec![]), (vec!["a".into()], vec![])]);
    member.when_ready(Some(id), vec![(Group::Channel, named("c"))], |_| None, note(&told)).expect("one has gone");
}

#[test]
fn a_publication_has_its_place_in_its_turn_and_none_when_nobody_is_there() {
    let (member, kept) = member(4);
    let publish = || member.publish((Group::User, "ann"), &Publication::new(Payload::Text("x")), false);
    assert!(matches!(publish(), Err(EngineError::Apart)));
    member.up().expect("room");
    let placings: Vec<_> = (0..3).map(|_| publish().expect("room")).collect();
    let full = publish().expect_err("four wait");
    assert_eq!(full.to_string(), "bytes for the other workers: 4 is over the bound of 4");
    kept.said();
    let position = crate::Position { epoch: 9, offset: 1 };
    assert!(placings[1].wait_as(5));
    assert_eq!(member.placed(0, super::Outcome::At(position)), None);
    assert_eq!(placings[0].outcome(), Some(super::Outcome::At(position)));
    assert!(placings[1].outcome().is_none());
    assert_eq!(member.down("it was killed"), [5]);
    let why = "the sequencer of the workers is gone (it was killed): whether it was published is not known";
    assert_eq!(placings[2].outcome(), Some(super::Outcome::Failed(why.into())));
    assert!(!placings[2].wait_as(6) && matches!(publish(), Err(EngineError::Apart)));
}

#[test]
fn what_nobody_watches_is_left_after_some_turns() {
    let (member, kept) = member(100);
    member.up().expect("room");
    for name in ["a", "b"] {
        let channel = named(name);
        member.note_given((Group::Channel, name));
        member.note_had(&channel);
    }
    kept.said();
    let forgotten = Mutex::new(Vec::new());
    for _ in 0..=UNWATCHED_TURNS {
        member.sweep(2, |key| key.1 == "b", |key| forgotten.lock().expect("alone").push(key.1.to_owned()));
    }
    assert_eq!(kept.said(), ["Leave((Channel, \"a\"))"]);
    assert_eq!(*forgotten.lock().expect("alone"), ["a"]);
}

#[test]
fn who_was_further_on_elsewhere_waits_for_one_answer_of_the_sequencer() {
    let (member, kept) = member(100);
    let (told, got) = noted();
    member.up().expect("room");
    let a = named("a");
    member.note_given((Group::Channel, "a"));
    member.note_had(&a);
    kept.said();
    let come = |offset| {
        let since = Position { offset, ..a.position() };
        let channels = vec![(Group::Channel, Arc::clone(&a))];
        member.when_ready(None, channels, |_| Some(since), note(&told)).expect("room");
    };
    come(0);
    assert_eq!(got.try_iter().count(), 1, "it is here");
    come(7);
    come(8);
    come(9);
    assert_eq!((kept.said(), got.try_iter().count()), (vec!["Reach((Channel, \"a\"))".to_owned()], 0));
    member.reached((Group::Channel, "a"));
    assert_eq!(got.try_iter().count(), 1, "what the others wait for may be behind that");
    assert_eq!(kept.said(), ["Reach((Channel, \"a\"))"]);
    member.ask_again((Group::Channel, "a"), &a).expect("room");
    member.reached((Group::Channel, "a"));
    assert_eq!(got.try_iter().count(), 0, "something is missing, and is on its way");
    member.note_had(&a);
    member.arrived((Group::Channel, "a"), Ok(()));
    assert_eq!(got.try_iter().count(), 2);
    kept.said();
    come(9);
    come(9);
    member.down("it was killed");
    assert_eq!(got.try_iter().count(), 2, "nobody answers");
    come(9);
    assert_eq!((got.try_iter().count(), kept.said().len()), (1, 1), "nor is asked");
}

#[test]
fn who_comes_back_while_what_is_kept_is_on_its_way_has_nothing_asked_that_it_brings() {
    let (member, kept) = member(100);
    let (told, got) = noted();
    member.up().expect("room");
    let a = named("a");
    kept.said();
    let come = |offset| {
        let since = Position { offset, ..a.position() };
        let channels = vec![(Group::Channel, Arc::clone(&a))];
        member.when_ready(None, channels, |_| Some(since), note(&told)).expect("room");
    };
    let arrive = |count| {
        for _ in 0..count {
            a.append(&Publication::new(Payload::Text("x")), Stand::Next, 0, u64::MAX, |_| ()).expect("room");
        }
        member.note_had(&a);
        member.arrived((Group::Channel, "a"), Ok(()));
    };
    (0..=5).for_each(come);
    assert_eq!((kept.said(), got.try_iter().count()), (vec!["Want((Channel, \"a\"))".to_owned()], 0));
    arrive(5);
    assert_eq!((kept.said(), got.try_iter().count()), (vec![], 6), "that is as far as any of them was");
    member.ask_again((Group::Channel, "a"), &a).expect("room");
    kept.said();
    (5..=8).for_each(come);
    arrive(1);
    assert_eq!((kept.said(), got.try_iter().count()), (vec!["Reach((Channel, \"a\"))".to_owned()], 2));
    come(7);
    a.append(&Publication::new(Payload::Text("x")), Stand::Next, 0, u64::MAX, |_| ()).expect("room");
    member.reached((Group::Channel, "a"));
    assert_eq!((kept.said(), got.try_iter().count()), (vec![], 3), "who came behind the question has it, too");
}
