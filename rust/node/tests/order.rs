//! Frames arrive whole, once and in order, both ways.
mod support;

use std::io::{Read, Write};
use std::sync::mpsc::channel;
use std::thread;

use fanwire_node::{Bounds, Link, LinkSender, Linked, SendError, Server};
use support::*;

const FRAMES: u32 = 100_000;

#[test]
fn four_raw_clients_get_back_each_frame_however_it_was_cut() {
    let folder = Folder::new();
    let server = Server::start(&folder.socket(), Box::new(Echo), Bounds::default(), |_, _| ()).expect("a server");
    thread::scope(|scope| {
        for sender in 0..4_u8 {
            let mut writes = connect(&folder.socket());
            let mut reads = writes.try_clone().expect("a descriptor");
            scope.spawn(move || {
                let (mut lengths, mut cuts) = (Chance::new(u64::from(sender)), Chance::new(77 + u64::from(sender)));
                let mut waiting = Vec::new();
                for number in 0..FRAMES {
                    waiting.extend(record(&numbered(sender, number, &mut lengths)));
                    // Whole frames and a part of the next, or a part of one.
                    while waiting.len() > 3_000 {
                        let end = cuts.below(waiting.len()).max(1);
                        writes.write_all(&waiting[..end]).expect("the owner reads");
                        waiting.drain(..end);
                    }
                }
                writes.write_all(&waiting).expect("the owner reads");
            });
            scope.spawn(move || {
                for number in 0..FRAMES {
                    check_numbered(&read_frame(&mut reads), sender, number);
                }
            });
        }
    });
    server.stop();
}

/// Checks that what comes back is in order, and says when it has all.
struct InOrder {
    sender: u8,
    next: u32,
    done: std::sync::mpsc::Sender<()>,
    up: std::sync::mpsc::Sender<()>,
}

impl Linked for InOrder {
    fn up(&mut self) {
        self.up.send(()).expect("the test waits");
    }

    fn received(&mut self, frame: &[u8]) -> Result<(), String> {
        check_numbered(frame, self.sender, self.next);
        self.next += 1;
        if self.next == FRAMES {
            self.done.send(()).expect("the test waits");
        }
        Ok(())
    }

    fn turned(&mut self) {}

    fn down(&mut self, why: &str) {
        assert_eq!(why, "the link is stopped");
    }
}

#[test]
fn four_links_get_back_each_frame_in_order_while_the_bound_slows_them_down() {
    let folder = Folder::new();
    let bounds = Bounds { link_queue_bytes_max: 1 << 20, ..Bounds::default() };
    let server = Server::start(&folder.socket(), Box::new(Echo), bounds, |_, _| ()).expect("a server");
    thread::scope(|scope| {
        for sender in 0..4_u8 {
            let path = folder.socket();
            scope.spawn(move || {
                let ((done, is_done), (up, is_up)) = (channel(), channel());
                let make = |_: LinkSender| Box::new(InOrder { sender, next: 0, done, up }) as Box<dyn Linked>;
                let link = Link::start(&path, make, bounds, |_, _| ()).expect("a thread");
                next(&is_up);
                let (to, mut chance) = (link.sender(), Chance::new(u64::from(sender)));
                wait_until("it does not come up", || to.is_up());
                for number in 0..FRAMES {
                    let frame = numbered(sender, number, &mut chance);
                    while let Err(error) = to.send(&frame) {
                        assert!(matches!(error, SendError::Full { .. }), "{error}");
                        thread::yield_now();
                    }
                }
                next(&is_done);
                link.stop();
                assert_eq!(link.failure(), None);
            });
        }
    });
    assert_eq!(server.failure(), None);
    server.stop();
}

#[test]
fn what_up_sends_comes_first_and_what_others_send_meanwhile_behind_it() {
    struct Rising {
        sender: LinkSender,
        begun: std::sync::mpsc::Sender<()>,
        others_sent: std::sync::mpsc::Receiver<()>,
    }
    impl Linked for Rising {
        fn up(&mut self) {
            self.begun.send(()).expect("the test waits");
            next(&self.others_sent);
            self.sender.send(b"first").expect("there is room");
            self.sender.send(b"second").expect("there is room");
        }
        fn received(&mut self, _: &[u8]) -> Result<(), String> {
            Ok(())
        }
        fn turned(&mut self) {}
        fn down(&mut self, _: &str) {}
    }

    let folder = Folder::new();
    let ((begun, is_begun), (others, others_sent)) = (channel(), channel());
    let make = |sender| Box::new(Rising { sender, begun, others_sent }) as Box<dyn Linked>;
    let link = Link::start(&folder.socket(), make, Bounds::default(), |_, _| ()).expect("a thread");
    link.sender().send(b"lost: there is no connection").expect("there is room");
    let (_server, told, _) = start_owner(&folder.socket(), Bounds::default(), |_, _, _| Ok(()));
    next(&is_begun);
    link.sender().send(b"third").expect("there is room");
    others.send(()).expect("it waits");
    let Told::Came(peer) = next(&told) else { panic!("it comes first") };
    for expected in [b"first".to_vec(), b"second".to_vec(), b"third".to_vec()] {
        assert_eq!(next(&told), Told::Frame(peer, expected));
    }
}

#[test]
fn a_frame_to_all_reaches_each_behind_what_was_sent_to_it_alone() {
    let folder = Folder::new();
    let mut here = Vec::new();
    let long = vec![9; 100_000];
    let to_all = long.clone();
    let (_server, told, _) = start_owner(&folder.socket(), Bounds::default(), move |peer, _, out| {
        here.push(peer);
        if here.len() == 3 {
            for one in &here {
                out.send(*one, format!("to {one}").as_bytes());
            }
            out.send_all(here.iter().copied(), &to_all);
            out.send_all(here.iter().copied(), b"short");
        }
        Ok(())
    });
    let mut clients: Vec<_> = (0..3).map(|_| connect(&folder.socket())).collect();
    for client in &mut clients {
        write_frame(client, b"");
        while !matches!(next(&told), Told::Frame(_, frame) if frame.is_empty()) {}
    }
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(read_frame(client), format!("to peer {}", number + 1).as_bytes());
        assert_eq!(read_frame(client), long);
        assert_eq!(read_frame(client), b"short");
    }
    drop(_server);
    assert_eq!(clients[0].read(&mut [0]).expect("an end, not a failure"), 0);
}
