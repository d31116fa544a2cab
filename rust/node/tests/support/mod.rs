//! What the tests of the star share: owners and workers made of closures, raw clients, numbers by chance.
#![allow(dead_code, unreachable_pub)] // each test file uses a part
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanwire_node::{Bounds, Link, LinkSender, Linked, Outgoing, Peer, Server, Serving};

/// How long anything may take before the test fails: long, for busy machines.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A folder that goes with its test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fanwire-node-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    pub fn socket(&self) -> PathBuf {
        self.0.join("owner.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What an owner was told.
#[derive(Debug, PartialEq)]
pub enum Told {
    Came(Peer),
    Frame(Peer, Vec<u8>),
    Gone(Peer),
}

/// An owner that tells the test everything and does with each frame what `on_frame` says.
pub struct Owner<F> {
    pub told: Sender<Told>,
    pub on_frame: F,
}

impl<F: FnMut(Peer, &[u8], &mut Outgoing<'_>) -> Result<(), String> + Send> Serving for Owner<F> {
    fn came(&mut self, peer: Peer, _: &mut Outgoing<'_>) {
        let _ = self.told.send(Told::Came(peer));
    }

    fn received(&mut self, peer: Peer, frame: &[u8], out: &mut Outgoing<'_>) -> Result<(), String> {
        let _ = self.told.send(Told::Frame(peer, frame.to_vec()));
        (self.on_frame)(peer, frame, out)
    }

    fn gone(&mut self, peer: Peer, _: &mut Outgoing<'_>) {
        let _ = self.told.send(Told::Gone(peer));
    }

    fn turned(&mut self, _: &mut Outgoing<'_>) {}
}

/// An owner that sends each frame back and tells nothing.
pub struct Echo;

impl Serving for Echo {
    fn came(&mut self, _: Peer, _: &mut Outgoing<'_>) {}

    fn received(&mut self, peer: Peer, frame: &[u8], out: &mut Outgoing<'_>) -> Result<(), String> {
        out.send(peer, frame);
        Ok(())
    }

    fn gone(&mut self, _: Peer, _: &mut Outgoing<'_>) {}

    fn turned(&mut self, _: &mut Outgoing<'_>) {}
}

/// Lines of the log, to be looked at.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<(u8, String)>>>);

impl Lines {
    pub fn log(&self) -> impl Fn(u8, String) + Send + Sync + 'static {
        let lines = Arc::clone(&self.0);
        move |level, text| lines.lock().expect("nobody panics with it").push((level, text))
    }

    /// Waits for a line with that in it; gives its level and text.
    pub fn wait_for(&self, part: &str) -> (u8, String) {
        let found = || {
            let lines = self.0.lock().expect("nobody panics with it");
            lines.iter().find(|(_, text)| text.contains(part)).cloned()
        };
        wait_until(&format!("no line with {part:?}"), || found().is_some());
        found().expect("it was there")
    }
}

/// Starts an owner that tells the test everything.
pub fn start_owner(
    path: &Path,
    bounds: Bounds,
    on_frame: impl FnMut(Peer, &[u8], &mut Outgoing<'_>) -> Result<(), String> + Send + 'static,
) -> (Server, Receiver<Told>, Lines) {
    let (told, hears) = channel();
    let lines = Lines::default();
    let server = Server::start(path, Box::new(Owner { told, on_frame }), bounds, lines.log());
    (server.expect("nobody listens there"), hears, lines)
}

/// What a worker was told.
#[derive(Debug, PartialEq)]
pub enum Heard {
    Up,
    Frame(Vec<u8>),
    Down(String),
}

/// A worker that tells the test everything, and sends a frame whenever it is up, if it has one.
pub struct Worker {
    pub heard: Sender<Heard>,
    pub sender: LinkSender,
    pub hello: Option<Vec<u8>>,
}

impl Linked for Worker {
    fn up(&mut self) {
        if let Some(hello) = &self.hello {
            self.sender.send(hello).expect("there is room for the first");
        }
        let _ = self.heard.send(Heard::Up);
    }

    fn received(&mut self, frame: &[u8]) -> Result<(), String> {
        if frame == b"a frame that no worker takes" {
            return Err("no worker takes that".to_owned());
        }
        let _ = self.heard.send(Heard::Frame(frame.to_vec()));
        Ok(())
    }

    fn turned(&mut self) {}

    fn down(&mut self, why: &str) {
        let _ = self.heard.send(Heard::Down(why.to_owned()));
    }
}

/// Starts a link whose worker tells the test everything.
pub fn start_link(path: &Path, bounds: Bounds, hello: Option<&[u8]>) -> (Link, LinkSender, Receiver<Heard>) {
    let (heard, hears) = channel();
    let hello = hello.map(<[u8]>::to_vec);
    let make = |sender| Box::new(Worker { heard, sender, hello }) as Box<dyn Linked>;
    let link = Link::start(path, make, bounds, |_, _| ()).expect("a thread");
    let sender = link.sender();
    (link, sender, hears)
}

/// The next that is told.
pub fn next<T>(from: &Receiver<T>) -> T {
    from.recv_timeout(PATIENCE).expect("it is told in time")
}

/// Everything that is told until nobody can tell more.
pub fn rest<T>(from: &Receiver<T>) -> Vec<T> {
    let mut found = Vec::new();
    loop {
        match from.recv_timeout(PATIENCE) {
            Ok(one) => found.push(one),
            Err(RecvTimeoutError::Disconnected) => return found,
            Err(RecvTimeoutError::Timeout) => panic!("it goes on"),
        }
    }
}

/// Looks again and again, in turn with other threads.
pub fn wait_until(what_is_missing: &str, mut is_so: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what_is_missing}");
        std::thread::yield_now();
    }
}

/// A client without the crate: what it writes is what the owner gets.
pub fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("the owner listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above 0");
    stream
}

/// A frame with its length.
pub fn record(frame: &[u8]) -> Vec<u8> {
    let mut record = u32::try_from(frame.len()).expect("a test's frame is short").to_le_bytes().to_vec();
    record.extend_from_slice(frame);
    record
}

/// Reads one frame.
pub fn read_frame(stream: &mut UnixStream) -> Vec<u8> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).expect("a length");
    let mut frame = vec![0; u32::from_le_bytes(head) as usize];
    stream.read_exact(&mut frame).expect("a frame");
    frame
}

/// Writes one frame.
pub fn write_frame(stream: &mut UnixStream, frame: &[u8]) {
    stream.write_all(&record(frame)).expect("the owner reads");
}

/// Numbers by chance from a seed (xorshift).
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// From 0 to `end`, without it.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % end
    }
}

/// Frame `number` of a sender: both stand in it, and its length is by chance.
pub fn numbered(sender: u8, number: u32, chance: &mut Chance) -> Vec<u8> {
    // A few are long, most are not.
    let bytes = if number.is_multiple_of(1_000) { chance.below(300_000) } else { chance.below(400) };
    let mut frame = vec![sender ^ number as u8; 5 + bytes];
    frame[0] = sender;
    frame[1..5].copy_from_slice(&number.to_le_bytes());
    frame
}

/// Fails unless `frame` is what [`numbered`] gives.
pub fn check_numbered(frame: &[u8], sender: u8, number: u32) {
    let found = u32::from_le_bytes(frame[1..5].try_into().expect("four bytes"));
    assert_eq!((frame[0], found), (sender, number));
    assert!(frame[5..].iter().all(|byte| *byte == sender ^ number as u8), "frame {number} of {sender} is torn");
}
