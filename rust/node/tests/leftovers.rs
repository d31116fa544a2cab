//! What is stopped leaves no thread, no descriptor and no file. A process of its own: it counts all of its threads.
mod support;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use fanwire_node::{Bounds, SendError, Server};
use support::*;

fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("Linux").flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("fanwire-")).collect()
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("Linux").count()
}

#[test]
fn a_stop_while_all_are_busy_leaves_no_thread_no_descriptor_and_no_file() {
    let before = descriptors();
    for round in 0..8 {
        let folder = Folder::new();
        let server = Server::start(&folder.socket(), Box::new(Echo), Bounds::default(), |_, _| ()).expect("a server");
        let links: Vec<_> = (0..4).map(|_| start_link(&folder.socket(), Bounds::default(), Some(b"hello"))).collect();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            for (_, sender, _) in &links {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        match sender.send(&[1; 1_000]) {
                            Ok(()) => {}
                            Err(SendError::Full { .. }) => thread::yield_now(),
                            Err(error) => panic!("{error}"),
                        }
                    }
                });
            }
            for (_, _, hears) in &links {
                (0..100).for_each(|_| drop(next(hears)));
            }
            // Either end first.
            if round % 2 == 0 {
                server.stop();
                links.iter().for_each(|(link, _, _)| link.stop());
            } else {
                links.iter().for_each(|(link, _, _)| link.stop());
                server.stop();
            }
            assert_eq!(threads(), Vec::<String>::new());
            assert!(!folder.socket().exists());
            is_over.store(true, Ordering::Relaxed);
        });
        for (link, sender, hears) in links {
            link.stop(); // a second time
            assert!(sender.send(b"lost").is_ok() && sender.waiting() == 0);
            drop((link, sender));
            let told = rest(&hears);
            assert!(matches!(told.last(), Some(Heard::Down(_))), "each up has its down");
        }
    }
    assert_eq!(descriptors(), before);
}
