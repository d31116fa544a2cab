//! Everything that waits has a bound, and nobody's flood is another's silence.
mod support;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use fanwire_node::{Bounds, Link, LinkSender, Linked, Outgoing, Peer, SendError, Server, Serving};
use support::*;

const TURN_BYTES: usize = 256 << 10;

#[test]
fn a_peer_that_does_not_read_is_dropped_at_the_bound_while_others_go_on() {
    let folder = Folder::new();
    let bounds = Bounds { peer_queue_bytes_max: 1 << 20, ..Bounds::default() };
    let mut here = Vec::new();
    // What one says goes to all, ten thousand bytes of it.
    let (_server, told, lines) = start_owner(&folder.socket(), bounds, move |peer, frame, out| {
        if !here.contains(&peer) {
            here.push(peer);
        }
        let frame: Vec<u8> = frame.iter().copied().cycle().take(10_000).collect();
        out.send_all(here.iter().copied(), &frame);
        Ok(())
    });
    let (mut silent, mut busy) = (connect(&folder.socket()), connect(&folder.socket()));
    write_frame(&mut silent, b"here");
    read_frame(&mut silent);
    // It gets ever more, and the other has its answer each time.
    for number in 0..1_000_u32 {
        write_frame(&mut busy, &number.to_le_bytes());
        assert_eq!(read_frame(&mut busy)[..4], number.to_le_bytes());
    }
    let (level, text) = lines.wait_for("does not read");
    assert_eq!(level, 30);
    assert!(text.starts_with("peer 1 (process ") && text.ends_with("1048576 may"), "{text}");
    let gone = (0..).map(|_| next(&told)).find(|told| matches!(told, Told::Gone(_)));
    assert!(matches!(gone, Some(Told::Gone(peer)) if peer.number() == 1));
    // What the kernel had taken is still there, then the end.
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).expect("an end, not a failure");
    assert!(rest.len() < 1 << 20);
}

#[test]
fn a_peer_that_asks_for_more_than_may_wait_gets_all_of_it_if_it_reads() {
    let folder = Folder::new();
    let bounds = Bounds { peer_queue_bytes_max: 1 << 20, ..Bounds::default() };
    let most = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&most);
    let (_server, told, _) = start_owner(&folder.socket(), bounds, move |peer, frame, out| {
        let answer = vec![frame[0]; 100_000];
        out.send(peer, &answer);
        seen.fetch_max(out.waiting(peer), Ordering::Relaxed);
        Ok(())
    });
    // A thousand short questions at once, a hundred times the bound in answers: its questions wait, and it is not dropped.
    let mut client = connect(&folder.socket());
    let questions: Vec<u8> = (0..1_000_u32).flat_map(|number| record(&[number as u8])).collect();
    client.write_all(&questions).expect("the kernel takes it");
    for number in 0..1_000_u32 {
        assert_eq!(read_frame(&mut client), vec![number as u8; 100_000], "answer {number}");
    }
    assert!(most.load(Ordering::Relaxed) <= (1 << 20) / 4 + 2 * 100_004, "{most:?}");
    // One that asks and does not read has its questions wait, and those that it has not asked are too much at last.
    write_frame(&mut client, b"still here");
    assert_eq!(read_frame(&mut client)[0], b's');
    client.write_all(&questions).expect("the kernel takes it");
    drop(client);
    assert!((0..).map(|_| next(&told)).any(|told| matches!(told, Told::Gone(_))), "an end is seen all the same");
}

#[test]
fn one_frame_may_always_wait_and_the_second_may_not() {
    let folder = Folder::new();
    let bounds = Bounds { peer_queue_bytes_max: 100, ..Bounds::default() };
    let (_server, _told, lines) = start_owner(&folder.socket(), bounds, |peer, frame, out| {
        let count = frame[0];
        (0..count).for_each(|_| out.send(peer, &[0; 1_000]));
        if count > 1 {
            assert_eq!(out.waiting(peer), 0, "it is about to go");
        }
        Ok(())
    });
    let mut client = connect(&folder.socket());
    write_frame(&mut client, &[1]);
    assert_eq!(read_frame(&mut client), [0; 1_000]);
    write_frame(&mut client, &[2]);
    lines.wait_for("1004 bytes wait for it, with this frame 2008; 100 may");
}

#[test]
fn a_link_says_what_waits_and_what_may() {
    let folder = Folder::new();
    // It listens, and nobody accepts.
    let listener = std::os::unix::net::UnixListener::bind(folder.socket()).expect("a free path");
    let bounds = Bounds { link_queue_bytes_max: 1 << 20, frame_bytes_max: 2 << 20, ..Bounds::default() };
    let (link, sender, hears) = start_link(&folder.socket(), bounds, None);
    assert_eq!(next(&hears), Heard::Up);
    wait_until("it does not come up", || sender.is_up());
    sender.send(&vec![1; 2 << 20]).expect("one may always wait");
    assert_eq!(sender.send(&vec![1; (2 << 20) + 1]), Err(SendError::TooLong { bytes: 2_097_153, bytes_max: 2 << 20 }));
    let error = sender.send(b"more").expect_err("the bound is passed already");
    let SendError::Full { waiting, bytes_max } = error else { panic!("{error}") };
    assert!(waiting <= (2 << 20) + 4 && bytes_max == 1 << 20, "{error}");
    assert_eq!(error.to_string(), format!("{waiting} bytes wait for the owner; 1048576 may"));
    // It is read: there is room again, and all of it arrives.
    let (mut stream, _) = listener.accept().expect("it has connected");
    assert_eq!(read_frame(&mut stream).len(), 2 << 20);
    wait_until("it stays full", || sender.waiting() == 0);
    sender.send(b"more").expect("there is room");
    assert_eq!(read_frame(&mut stream), b"more");
    link.stop();
}

#[test]
fn a_length_that_cannot_be_ends_the_connection_with_both_numbers() {
    let folder = Folder::new();
    let (_server, told, lines) = start_owner(&folder.socket(), Bounds::default(), |_, _, _| Ok(()));
    let mut garbage = connect(&folder.socket());
    let mut good = connect(&folder.socket());
    write_frame(&mut garbage, b"good so far");
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("the owner reads");
    let (level, text) = lines.wait_for("542393671");
    assert_eq!(level, 30);
    assert!(text.ends_with("is gone: it sends a frame of 542393671 bytes; 67174400 it may have"), "{text}");
    assert_eq!(garbage.read(&mut [0]).expect("an end"), 0);
    write_frame(&mut good, b"another goes on");
    let all: Vec<Told> = (0..5).map(|_| next(&told)).collect();
    let frames: Vec<&[u8]> =
        all.iter().filter_map(|told| if let Told::Frame(_, frame) = told { Some(&frame[..]) } else { None }).collect();
    assert_eq!(frames, [&b"good so far"[..], b"another goes on"]);
}

#[test]
fn a_frame_that_is_too_long_to_send_ends_the_peer_that_it_was_for() {
    let folder = Folder::new();
    let bounds = Bounds { frame_bytes_max: 10, ..Bounds::default() };
    let (_server, _told, lines) = start_owner(&folder.socket(), bounds, |peer, _, out| {
        out.send(peer, b"eleven byte");
        Ok(())
    });
    let mut client = connect(&folder.socket());
    write_frame(&mut client, b"ten bytes!");
    lines.wait_for("it was to be sent a frame of 11 bytes; 10 it may have");
}

#[test]
fn whoever_comes_when_all_places_are_taken_is_refused_until_one_goes() {
    let folder = Folder::new();
    let bounds = Bounds { peers_max: 2, ..Bounds::default() };
    let (_server, told, lines) = start_owner(&folder.socket(), bounds, |_, _, _| Ok(()));
    let (first, _second) = (connect(&folder.socket()), connect(&folder.socket()));
    assert!(matches!((next(&told), next(&told)), (Told::Came(_), Told::Came(_))));
    assert_eq!(connect(&folder.socket()).read(&mut [0]).expect("an end"), 0);
    lines.wait_for("a connection is refused: there are 2 peers already; 2 there may be");
    drop(first);
    assert!(matches!(next(&told), Told::Gone(peer) if peer.number() == 1));
    let _third = connect(&folder.socket());
    assert!(matches!(next(&told), Told::Came(peer) if peer.number() == 3), "a number is never used again");
}

#[test]
fn a_flood_takes_its_part_of_a_turn_and_a_slow_talker_is_answered() {
    /// Answers who asks, and counts what each has said in one turn.
    struct Fair {
        this_turn: HashMap<Peer, usize>,
        most: Arc<AtomicUsize>,
    }
    impl Serving for Fair {
        fn came(&mut self, _: Peer, _: &mut Outgoing<'_>) {}
        fn received(&mut self, peer: Peer, frame: &[u8], out: &mut Outgoing<'_>) -> Result<(), String> {
            *self.this_turn.entry(peer).or_default() += 4 + frame.len();
            if frame == b"?" {
                out.send(peer, b"!");
            }
            Ok(())
        }
        fn gone(&mut self, _: Peer, _: &mut Outgoing<'_>) {}
        fn turned(&mut self, _: &mut Outgoing<'_>) {
            let most = self.this_turn.drain().map(|(_, bytes)| bytes).max().unwrap_or(0);
            self.most.fetch_max(most, Ordering::Relaxed);
        }
    }

    let folder = Folder::new();
    let most = Arc::new(AtomicUsize::new(0));
    let serving = Fair { this_turn: HashMap::new(), most: Arc::clone(&most) };
    let server = Server::start(&folder.socket(), Box::new(serving), Bounds::default(), |_, _| ()).expect("a server");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut flood = connect(&folder.socket());
                let much: Vec<u8> = (0..5_000).flat_map(|_| record(&[7; 200])).collect();
                while !is_over.load(Ordering::Relaxed) {
                    flood.write_all(&much).expect("the owner reads");
                }
            });
        }
        let mut slow = connect(&folder.socket());
        for _ in 0..500 {
            write_frame(&mut slow, b"?");
            assert_eq!(read_frame(&mut slow), b"!");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    server.stop();
    // What the turn before had cut is whole in this one.
    assert!(most.load(Ordering::Relaxed) <= TURN_BYTES + 204, "{most:?}");
}

#[test]
fn a_peer_with_much_to_read_does_not_hold_up_another_s_answer() {
    let folder = Folder::new();
    let long = vec![5; 32 << 20];
    let (_server, _told, _) = start_owner(&folder.socket(), Bounds::default(), move |peer, frame, out| {
        out.send(peer, if frame == b"much" { &long } else { frame });
        Ok(())
    });
    let (mut much, mut little) = (connect(&folder.socket()), connect(&folder.socket()));
    write_frame(&mut much, b"much");
    let mut head = [0; 4];
    much.read_exact(&mut head).expect("it begins");
    for number in 0..100_u32 {
        write_frame(&mut little, &number.to_le_bytes());
        assert_eq!(read_frame(&mut little), number.to_le_bytes());
    }
    let mut rest = vec![0; u32::from_le_bytes(head) as usize];
    much.read_exact(&mut rest).expect("all of it comes");
    assert!(rest.len() == 32 << 20 && rest.iter().all(|byte| *byte == 5));
}

#[test]
fn a_link_that_is_given_much_wakes_its_thread_seldom() {
    /// Its thread is held at its first frame until the test lets it go.
    struct Held {
        gate: Mutex<std::sync::mpsc::Receiver<()>>,
        at_gate: std::sync::mpsc::SyncSender<()>,
    }
    impl Linked for Held {
        fn up(&mut self) {}
        fn received(&mut self, _: &[u8]) -> Result<(), String> {
            self.at_gate.send(()).expect("the test waits");
            next(&self.gate.lock().expect("nobody panics with it"));
            Ok(())
        }
        fn turned(&mut self) {}
        fn down(&mut self, _: &str) {}
    }

    let folder = Folder::new();
    let (_server, told, _) = start_owner(&folder.socket(), Bounds::default(), |peer, frame, out| {
        if frame == b"hold" {
            out.send(peer, b"now");
        }
        Ok(())
    });
    let ((open, gate), (at_gate, is_at_gate)) = (channel(), sync_channel(1));
    let make = |_: LinkSender| Box::new(Held { gate: Mutex::new(gate), at_gate }) as Box<dyn Linked>;
    let link = Link::start(&folder.socket(), make, Bounds::default(), |_, _| ()).expect("a thread");
    let sender = link.sender();
    wait_until("it does not come up", || sender.is_up());
    sender.send(b"hold").expect("there is room");
    next(&is_at_gate);
    // The thread is busy, and looks at the queue by itself before it waits again.
    let before = sender.wakes();
    (0..100_000_u32).for_each(|number| sender.send(&number.to_le_bytes()).expect("there is room"));
    assert_eq!(sender.wakes(), before);
    assert_eq!(sender.waiting(), 800_000);
    open.send(()).expect("it waits");
    let frames = (0..)
        .map(|_| next(&told))
        .filter(|told| matches!(told, Told::Frame(_, frame) if frame.len() == 4 && frame != b"hold"));
    assert_eq!(frames.take(100_000).count(), 100_000);
    // And from a thread that sends as fast as it can, beside one that writes.
    let before = sender.wakes();
    (0..100_000_u32).for_each(|number| sender.send(&number.to_le_bytes()).expect("there is room"));
    let wakes = sender.wakes() - before;
    assert!(wakes < 50_000, "{wakes} of 100,000");
    println!("{wakes} wake-ups for 100,000 frames");
    // What is deferred wakes it once, for all of it.
    let before = sender.wakes();
    (0..1_000_u32).for_each(|number| sender.send_deferred(&number.to_le_bytes()).expect("there is room"));
    assert_eq!(sender.wakes(), before);
    sender.flush();
    assert!(sender.wakes() <= before + 1);
    let await_frames = |wanted: usize| {
        let frames =
            (0..).map(|_| next(&told)).filter(|told| matches!(told, Told::Frame(_, frame) if frame.len() == 4));
        assert_eq!(frames.take(wanted).count(), wanted);
    };
    await_frames(100_000 + 1_000);
    // Or once so much waits that it is worth a wake-up, or with what is not deferred.
    (0..20_000_u32).for_each(|number| sender.send_deferred(&number.to_le_bytes()).expect("there is room"));
    sender.send(b"last").expect("there is room");
    await_frames(20_000 + 1);
    link.stop();
}
