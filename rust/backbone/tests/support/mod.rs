//! A real server for each test, and links that are heard.
#![allow(dead_code)] // each test file has a use for its own part
pub(crate) mod nats;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use fanwire_backbone::{Event, Keep, Link, Options, Position, Record, Refused};

/// How long anything may take on a busy machine.
const LONG: Duration = Duration::from_secs(30);
pub(crate) const KEEP: Keep = Keep { messages: 100, age_ms: 60_000 };
pub(crate) const ALL: Keep = Keep { messages: 1_000_000, age_ms: 0 };
pub(crate) const NOWHERE: Position = Position { epoch: 0, offset: 0 };

/// Whether there is a server to test with; says so if not.
pub(crate) fn has_server() -> bool {
    let is_there = Command::new("redis-server").arg("--version").output().is_ok();
    if !is_there {
        eprintln!("skipped: there is no redis-server");
    }
    is_there
}

/// A port between 20001 and 32000 that nobody has; a cluster's bus has the one 1,000 above.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let process = u16::try_from(std::process::id() % 100).unwrap() * 100;
    for _ in 0..2_000 {
        let port = 20_001 + (process + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_900;
        let both =
            TcpListener::bind(("127.0.0.1", port)).and_then(|_one| TcpListener::bind(("127.0.0.1", port + 1_000)));
        if both.is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

/// A server with a folder of its own; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) folder: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Server {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_at(free_port(), arguments)
    }

    fn start_at(port: u16, arguments: &[&str]) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("fanwire-backbone-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        if !arguments.iter().any(|argument| argument == "--save") {
            arguments.extend(["--save".to_owned(), String::new()]);
        }
        let mut server = Self { port, folder, arguments, child: None };
        server.begin();
        server
    }

    /// A node of a cluster that is yet to be.
    pub(crate) fn node() -> Self {
        let port = free_port();
        let bus = (port + 1_000).to_string();
        Self::start_at(port, &["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "5000"])
    }

    /// Starts it, anew where it was killed, and waits until it answers.
    pub(crate) fn begin(&mut self) {
        self.begin_unready();
        let began = Instant::now();
        while !TcpStream::connect(("127.0.0.1", self.port)).is_ok_and(|_| {
            let answer = self.ask("PING");
            answer.contains("PONG") || answer.contains("NOAUTH")
        }) {
            assert!(began.elapsed() < LONG, "the server does not answer");
            std::thread::park_timeout(Duration::from_millis(20)); // another process: it tells nobody
        }
    }

    fn begin_unready(&mut self) {
        let mut command = Command::new("redis-server");
        let sentinel = self.folder.join("sentinel.conf");
        if sentinel.exists() {
            command.arg(sentinel).arg("--sentinel");
        }
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--daemonize", "no"]);
        command.arg("--dir").arg(&self.folder);
        if !self.folder.join("sentinel.conf").exists() {
            command.args(&self.arguments);
        }
        self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }

    /// A sentinel that watches a server as `mymaster`.
    pub(crate) fn sentinel(master: &Self) -> Self {
        let folder = std::env::temp_dir().join(format!("fanwire-sentinel-{}-{}", std::process::id(), master.port));
        std::fs::create_dir_all(&folder).unwrap();
        let config = format!(
            "sentinel monitor mymaster 127.0.0.1 {} 1\nsentinel down-after-milliseconds mymaster 1000\nsentinel failover-timeout mymaster 5000\n",
            master.port
        );
        std::fs::write(folder.join("sentinel.conf"), config).unwrap();
        let mut server = Self { port: free_port(), folder, arguments: Vec::new(), child: None };
        server.begin();
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// One command in a line; the answer as the protocol has it, an error too.
    pub(crate) fn ask(&self, command: &str) -> String {
        self.ask_all(&[command])
    }

    /// Several in one connection.
    pub(crate) fn ask_all(&self, commands: &[&str]) -> String {
        let split = |command: &&str| command.split(' ').map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
        self.exchange(&commands.iter().map(split).collect::<Vec<_>>())
    }

    /// Asks until the answer has this, for half a minute.
    pub(crate) fn ask_until(&self, command: &str, wanted: &str) -> bool {
        let began = Instant::now();
        while began.elapsed() < LONG {
            if self.ask(command).contains(wanted) {
                return true;
            }
            std::thread::park_timeout(Duration::from_millis(20)); // another process: it tells nobody
        }
        false
    }

    fn exchange(&self, commands: &[Vec<Vec<u8>>]) -> String {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return String::new() };
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut request = Vec::new();
        for words in commands.iter().chain([&vec![b"QUIT".to_vec()]]) {
            request.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
            for word in words {
                request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
                request.extend_from_slice(word);
                request.extend_from_slice(b"\r\n");
            }
        }
        let mut answer = Vec::new();
        if stream.write_all(&request).is_err() {
            return String::new();
        }
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.as_ref().unwrap(), name);
    }
}

/// Sends a signal to a server. One that is to stop has stopped afterwards, with all its threads: it answers nothing more.
pub(crate) fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    let is_stopped = |path: PathBuf| {
        let stat = std::fs::read_to_string(path.join("stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
    };
    let tasks = PathBuf::from(format!("/proc/{id}/task"));
    let deadline = Instant::now() + Duration::from_secs(20);
    while name == "STOP" && !tasks.read_dir().unwrap().all(|task| is_stopped(task.unwrap().path())) {
        assert!(Instant::now() < deadline, "process {id} has not stopped");
        std::thread::yield_now();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A link and what it says.
pub(crate) struct Heard {
    pub(crate) link: Link,
    events: Receiver<Event>,
    /// What came while something else was awaited.
    kept: Vec<Event>,
    tickets: u64,
}

impl Heard {
    pub(crate) fn start(url: &str) -> Self {
        Self::with(url, Options::default())
    }

    pub(crate) fn with(url: &str, options: Options) -> Self {
        let (tell, events) = channel();
        let link = Link::start(url, options, move |event| drop(tell.send(event))).unwrap();
        Self { link, events, kept: Vec::new(), tickets: 0 }
    }

    /// One that is up and wants a channel.
    pub(crate) fn wanting(url: &str, channel: &str) -> (Self, Position) {
        let mut heard = Self::start(url);
        heard.link.want(&[channel], KEEP);
        let top = heard.wanted(channel);
        (heard, top)
    }

    /// The first event that is wanted, of those that came and those that come.
    pub(crate) fn next<T>(&mut self, what: &str, mut of: impl FnMut(&Event) -> Option<T>) -> T {
        if let Some((index, found)) = self.kept.iter().enumerate().find_map(|(index, event)| Some((index, of(event)?)))
        {
            self.kept.remove(index);
            return found;
        }
        let began = Instant::now();
        loop {
            match self.events.recv_timeout(LONG.saturating_sub(began.elapsed())) {
                Ok(event) => match of(&event) {
                    Some(found) => return found,
                    None => self.kept.push(event),
                },
                Err(RecvTimeoutError::Timeout) => panic!("{what} has not come; but {:?}", self.kept),
                Err(RecvTimeoutError::Disconnected) => panic!("the link has ended"),
            }
        }
    }

    pub(crate) fn up(&mut self) {
        self.next("up", |event| matches!(event, Event::Up).then_some(()));
    }

    pub(crate) fn down(&mut self) -> String {
        self.next("down", |event| match event {
            Event::Down(why) => Some(why.clone()),
            _ => None,
        })
    }

    pub(crate) fn wanted(&mut self, channel: &str) -> Position {
        self.next("wanted", |event| match event {
            Event::Wanted { channel: its, top } if **its == *channel => Some(*top),
            _ => None,
        })
    }

    pub(crate) fn record(&mut self, channel: &str) -> Record {
        self.next("a record", |event| match event {
            Event::Record { channel: its, record } if **its == *channel => Some(record.clone()),
            _ => None,
        })
    }

    pub(crate) fn publish_as(
        &mut self,
        channel: &str,
        bytes: &[u8],
        keep: Keep,
        key: Option<&str>,
    ) -> Result<Position, Refused> {
        self.tickets += 1;
        let ticket = self.tickets;
        self.link.publish(ticket, channel, bytes.to_vec(), keep, key).unwrap();
        self.published(ticket)
    }

    pub(crate) fn published(&mut self, wanted: u64) -> Result<Position, Refused> {
        self.next("the position of a publication", |event| match event {
            Event::Published { ticket, result } if *ticket == wanted => Some(result.clone()),
            _ => None,
        })
    }

    pub(crate) fn publish(&mut self, channel: &str, text: &str) -> Position {
        self.publish_as(channel, text.as_bytes(), KEEP, None).unwrap()
    }

    /// Until it goes: a link that was cut comes up again.
    pub(crate) fn publish_in_the_end(&mut self, channel: &str, text: &str) -> Position {
        let began = Instant::now();
        loop {
            match self.publish_as(channel, text.as_bytes(), KEEP, None) {
                Ok(position) => return position,
                Err(Refused::Down(_) | Refused::Unknown(_)) if began.elapsed() < LONG => {
                    std::thread::park_timeout(Duration::from_millis(20)); // another process: it tells nobody
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn since(&mut self, channel: &str, after: Position) -> (Vec<Record>, Position, bool) {
        self.link.since(channel, after, 1_000).unwrap();
        self.next("what is kept", |event| match event {
            Event::Since { channel: its, after: its_after, records, top, is_whole }
                if **its == *channel && *its_after == after =>
            {
                Some((records.clone(), *top, *is_whole))
            }
            _ => None,
        })
    }
}

pub(crate) fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| String::from_utf8_lossy(&record.bytes).into_owned()).collect()
}
