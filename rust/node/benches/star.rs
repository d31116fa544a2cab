//! What the hop over the owner costs: how long a frame is under way, and how much CPU each end spends on it.
//!
//! `cargo bench -p fanwire-node --bench star [-- FRAMES_A_SECOND PEERS SECONDS]`, 20,000 and 3 and 5 s at first. One worker
//! sends frames of 200 bytes at that rate, the owner sends each to all, the sender included. All are threads of one process,
//! with the sockets between them that processes have.
use std::collections::HashMap;
use std::fs;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use fanwire_node::{Bounds, Link, LinkSender, Linked, Outgoing, Peer, Server, Serving};

const FRAME_BYTES: usize = 200;

/// Sends each frame to all, and says who has come: a connection is there before it is accepted.
struct ToAll(Vec<Peer>, Sender<()>);

impl Serving for ToAll {
    fn came(&mut self, peer: Peer, _: &mut Outgoing<'_>) {
        self.0.push(peer);
        self.1.send(()).expect("the bench waits");
    }

    fn received(&mut self, _: Peer, frame: &[u8], out: &mut Outgoing<'_>) -> Result<(), String> {
        out.send_all(self.0.iter().copied(), frame);
        Ok(())
    }

    fn gone(&mut self, peer: Peer, _: &mut Outgoing<'_>) {
        self.0.retain(|one| *one != peer);
    }

    fn turned(&mut self, _: &mut Outgoing<'_>) {}
}

/// Notes how long each frame was under way, in nanoseconds.
struct Notes {
    began: Instant,
    under_way: Vec<u64>,
    up: Sender<()>,
    all: Sender<Vec<u64>>,
}

impl Linked for Notes {
    fn up(&mut self) {
        self.up.send(()).expect("the bench waits");
    }

    fn received(&mut self, frame: &[u8]) -> Result<(), String> {
        let sent = u64::from_le_bytes(*frame.first_chunk().ok_or("it is too short")?);
        self.under_way.push(self.began.elapsed().as_nanos() as u64 - sent);
        Ok(())
    }

    fn turned(&mut self) {}

    fn down(&mut self, _: &str) {
        self.all.send(std::mem::take(&mut self.under_way)).expect("the bench waits");
    }
}

/// CPU time of this process's threads by name, in nanoseconds.
fn cpu_by_name() -> HashMap<String, u64> {
    let mut found = HashMap::new();
    for task in fs::read_dir("/proc/self/task").expect("Linux").flatten() {
        let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let spent = read("schedstat").split(' ').next().and_then(|spent| spent.parse::<u64>().ok()).unwrap_or(0);
        *found.entry(read("comm").trim().to_owned()).or_default() += spent;
    }
    found
}

fn main() {
    let given: Vec<f64> = std::env::args().skip(1).filter_map(|one| one.parse().ok()).collect();
    let [rate, peers, seconds] =
        [(0, 20_000.0), (1, 3.0), (2, 5.0)].map(|(at, usual)| *given.get(at).unwrap_or(&usual));
    let path = std::env::temp_dir().join(format!("fanwire-bench-{}.sock", std::process::id()));
    let log = |level: u8, text: String| {
        if level > 20 {
            eprintln!("{text}")
        }
    };
    let ((come, has_come), (up, is_up), began) = (channel(), channel(), Instant::now());
    let server = Server::start(&path, Box::new(ToAll(Vec::new(), come)), Bounds::default(), log).expect("a server");
    let links: Vec<_> = (0..peers as usize)
        .map(|_| {
            let (all, noted) = channel();
            let notes = Notes { began, under_way: Vec::with_capacity((rate * seconds) as usize), up: up.clone(), all };
            let make = |_: LinkSender| Box::new(notes) as Box<dyn Linked>;
            let link = Link::start(&path, make, Bounds::default(), log).expect("a link");
            is_up.recv().expect("it connects");
            has_come.recv().expect("it is accepted");
            (link, noted)
        })
        .collect();
    let sender = links[0].0.sender();
    while !sender.is_up() {
        thread::yield_now();
    }

    let (before, wakes_before, start) = (cpu_by_name(), sender.wakes(), Instant::now());
    let mut frame = vec![7; FRAME_BYTES];
    let mut sent = 0_u64;
    while start.elapsed().as_secs_f64() < seconds {
        while (sent as f64) < start.elapsed().as_secs_f64() * rate {
            frame[..8].copy_from_slice(&(began.elapsed().as_nanos() as u64).to_le_bytes());
            sender.send(&frame).expect("there is room");
            sent += 1;
        }
        thread::sleep(Duration::from_micros(1)); // the kernel makes it 60 or so
    }
    thread::sleep(Duration::from_millis(300)); // the last ones arrive
    let after = cpu_by_name();
    println!(
        "{sent} frames of {FRAME_BYTES} B at {:.0}/s, {} wake-ups",
        sent as f64 / seconds,
        sender.wakes() - wakes_before
    );
    for name in ["fanwire-owner", "fanwire-link"] {
        let spent = after[name] - before[name];
        println!("{name}: {:.2} µs of CPU a frame sent, all of them together", spent as f64 / 1e3 / sent as f64);
    }
    for (number, (link, noted)) in links.into_iter().enumerate() {
        link.stop();
        let mut under_way = noted.recv().expect("it notes");
        assert_eq!(under_way.len() as u64, sent, "peer {number} has all");
        under_way.sort_unstable();
        let at = |part: f64| under_way[((under_way.len() - 1) as f64 * part) as usize] as f64 / 1e3;
        let whose = if number == 0 { "the sender itself" } else { "another" };
        println!("to {whose}: p50 {:.0} µs, p99 {:.0} µs, most {:.0} µs", at(0.5), at(0.99), at(1.0));
    }
    server.stop();
}
