//! The bare loop: the least that any server must do for the same work. One thread builds the frames of a burst once
//! and hands that one buffer to every socket; there is no log, no channel, no policy. What a server costs above it is
//! the server's own.
//!
//! A socket that does not take all at once is an error here: it is counted, and told on stderr at the end.

mod ring;
mod round;
mod upgrade;

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde::Deserialize;

use crate::commands::{COMMAND_BYTES_MAX, Lines};
use crate::error::LoadError;
use crate::payload;
use crate::report::{line, seconds};
use crate::sys::{self, Epoll, Event};
use ring::{Failure, Ring};
use round::Job;
use upgrade::{Request, read_request};

const STDIN: u64 = u64::MAX;
const LISTENER: u64 = u64::MAX - 1;

/// Sockets at most, which is what a ring's table of files holds.
const SOCKETS_MAX: usize = 1 << 16;

/// The longest request for an upgrade.
const REQUEST_BYTES_MAX: usize = 256 << 10;

/// A peer of the bench that does nothing but write: one channel, c0, one shared buffer, one thread.
#[derive(Debug, Parser)]
#[command(name = "fanwire-floor", version)]
struct Options {
    /// The port to listen on, at 127.0.0.1; 0 takes a free one.
    #[arg(long)]
    port: u16,
    /// How the buffer reaches the sockets.
    #[arg(long, value_enum, default_value_t = Via::Send)]
    via: Via,
    /// Sends that one system call submits, with `--via uring`.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Via {
    /// One `send` for each socket.
    Send,
    /// Batches of sends through one io_uring.
    Uring,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Command {
    publish: Option<Publish>,
    #[serde(default)]
    connections: bool,
    #[serde(default)]
    quit: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Publish {
    rounds: u64,
    burst: u64,
    interval_s: f64,
    bytes: usize,
    #[serde(default)]
    sequence: Option<Vec<u32>>,
}

/// How the shared buffer reaches the sockets.
enum Path {
    Send,
    Ring(Box<Ring>),
}

impl Path {
    /// Sends `bytes` to all of `descriptors`; adds what went wrong to `failures`.
    fn send_to_all(&mut self, descriptors: &[RawFd], bytes: &[u8], failures: &mut Vec<Failure>) -> io::Result<()> {
        match self {
            Self::Send => {
                for &descriptor in descriptors {
                    match sys::send(descriptor, bytes) {
                        Ok(count) if count == bytes.len() => {}
                        Ok(count) => failures.push(Failure { descriptor, outcome: Ok(count) }),
                        Err(error) => {
                            let number = error.raw_os_error().unwrap_or(libc::EIO);
                            failures.push(Failure { descriptor, outcome: Err(number) });
                        }
                    }
                }
                Ok(())
            }
            Self::Ring(ring) => ring.send_to_all(descriptors, bytes, failures),
        }
    }
}

struct Socket {
    stream: TcpStream,
    /// Its place in [`Floor::open`] once it is upgraded.
    place: Option<usize>,
    /// The request so far.
    request: Vec<u8>,
}

struct Floor {
    epoll: Epoll,
    listener: TcpListener,
    lines: Lines,
    path: Path,
    /// By descriptor, which is also the index in the ring's table of files.
    sockets: Vec<Option<Socket>>,
    /// Descriptors that are upgraded, dense.
    open: Vec<RawFd>,
    job: Option<Job>,
    /// Publications so far: the next sequence number.
    sequence: u64,
    frames: Vec<u8>,
    failures: Vec<Failure>,
    /// Sends that took nothing because the socket was full; that took a part; that failed otherwise.
    behind: u64,
    short: u64,
    failed: u64,
    is_over: bool,
    exit_code: i32,
}

/// Runs the floor until stdin ends; `args` begins with the program's name. Gives the exit code: 0, or 2 when the
/// system refuses or a command asks for what the floor does not do.
pub fn run(args: impl Iterator<Item = String>) -> i32 {
    let options = match Options::try_parse_from(args) {
        Ok(options) => options,
        Err(error) => {
            // A closed stdout or stderr leaves nobody to tell.
            let _ = error.print();
            return error.exit_code();
        }
    };
    let outcome = Floor::new(&options).and_then(|mut floor| floor.run());
    outcome.unwrap_or_else(|error| {
        eprintln!("fanwire-floor: {error}");
        2
    })
}

impl Floor {
    fn new(options: &Options) -> Result<Self, LoadError> {
        let epoll = Epoll::new().map_err(LoadError::system("epoll_create1"))?;
        let limit = sys::descriptors_max().map_err(LoadError::system("limit of open descriptors"))?;
        let sockets_max = SOCKETS_MAX.min(limit as usize);
        let path = match options.via {
            Via::Send => Path::Send,
            Via::Uring => {
                let ring = Ring::new(options.batch, sockets_max as u32);
                Path::Ring(Box::new(ring.map_err(LoadError::system("setting up an io_uring"))?))
            }
        };
        let listener = TcpListener::bind(("127.0.0.1", options.port))
            .and_then(|listener| sys::widen_backlog(&listener).map(|()| listener))
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .and_then(|listener| epoll.add(listener.as_raw_fd(), LISTENER, sys::IN).map(|()| listener))
            .map_err(LoadError::system("listening"))?;
        let lines = Lines::watch(&epoll, 0, STDIN, COMMAND_BYTES_MAX).map_err(LoadError::system("watching stdin"))?;
        let port = listener.local_addr().map_err(LoadError::system("listening"))?.port();
        line(&serde_json::json!({ "ready": true, "port": port }));
        Ok(Self {
            epoll,
            listener,
            lines,
            path,
            sockets: (0..sockets_max).map(|_| None).collect(),
            open: Vec::new(),
            job: None,
            sequence: 0,
            frames: Vec::new(),
            failures: Vec::new(),
            behind: 0,
            short: 0,
            failed: 0,
            is_over: false,
            exit_code: 0,
        })
    }

    fn run(&mut self) -> Result<i32, LoadError> {
        let mut events = vec![Event::EMPTY; 512];
        while !self.is_over {
            let timeout = self.timeout();
            let count = self.epoll.wait(&mut events, timeout).map_err(LoadError::system("epoll_pwait2"))?;
            if self.lines.is_always_ready() {
                self.read_commands()?;
            }
            for event in &events[..count] {
                match event.token() {
                    STDIN => self.read_commands()?,
                    LISTENER => self.accept(),
                    token => self.read_socket(token as RawFd),
                }
            }
            self.run_round()?;
        }
        if self.behind + self.short + self.failed > 0 {
            eprintln!(
                "fanwire-floor: {} sends found a full socket, {} took only a part, {} failed otherwise",
                self.behind, self.short, self.failed
            );
        }
        Ok(self.exit_code)
    }

    /// Until the next round, or for ever. The last stretch is slept in [`run_round`](Self::run_round).
    fn timeout(&self) -> Option<Duration> {
        if self.lines.is_always_ready() {
            return Some(Duration::ZERO);
        }
        let due_ns = self.job.as_ref()?.due_ns();
        Some(Duration::from_nanos(due_ns.saturating_sub(sys::monotonic_ns() + round::SLEEP_NS)))
    }

    fn read_commands(&mut self) -> Result<(), LoadError> {
        let lines = self.lines.read(&self.epoll).map_err(LoadError::system("reading stdin"))?;
        self.is_over |= self.lines.is_ended();
        for text in lines {
            let wrong = |why: String| LoadError::Command { line: text.chars().take(200).collect(), why };
            let command: Command = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
            if command.connections {
                line(&serde_json::json!({ "connections": self.open.len() }));
            }
            self.is_over |= command.quit;
            let Some(publish) = command.publish else { continue };
            if publish.sequence.is_some() {
                return Err(wrong("the floor has channel 0 only, so `sequence` must be null".to_owned()));
            }
            if publish.bytes < payload::BYTES_MIN {
                return Err(wrong(format!("bytes is {}, but at least {}", publish.bytes, payload::BYTES_MIN)));
            }
            if self.job.is_some() {
                return Err(wrong("the publish before it is still under way".to_owned()));
            }
            let interval = Duration::try_from_secs_f64(publish.interval_s).map_err(|error| wrong(error.to_string()))?;
            self.job = Some(Job::new(publish.rounds, publish.burst, interval, publish.bytes));
        }
        Ok(())
    }

    /// Publishes the round that is due, if one is.
    fn run_round(&mut self) -> Result<(), LoadError> {
        let Some(job) = &mut self.job else { return Ok(()) };
        if !job.is_done() {
            let due_ns = job.due_ns();
            let mut now = sys::monotonic_ns();
            if due_ns > now + round::SLEEP_NS {
                return Ok(());
            }
            while now < due_ns {
                sys::sleep_until(due_ns);
                now = sys::monotonic_ns();
            }
            round::write_frames(&mut self.frames, self.sequence, job.burst, due_ns, job.bytes);
            let sent = self.path.send_to_all(&self.open, &self.frames, &mut self.failures);
            sent.map_err(LoadError::system("submitting sends"))?;
            self.sequence += job.burst;
            job.end_round(sys::monotonic_ns() - now);
        }
        if job.is_done() {
            line(&serde_json::json!({
                "published": job.published(),
                "seconds": seconds(sys::monotonic_ns() - job.start_ns),
                "publish_seconds": seconds(job.publish_ns),
            }));
            self.job = None;
        }
        self.count_failures();
        Ok(())
    }

    fn count_failures(&mut self) {
        let failures = std::mem::take(&mut self.failures);
        for Failure { descriptor, outcome } in &failures {
            match outcome {
                Err(libc::EAGAIN) => self.behind += 1,
                Err(_) => {
                    self.failed += 1;
                    self.close(*descriptor);
                }
                // The rest of the frame is lost, and with it the framing.
                Ok(_) => {
                    self.short += 1;
                    self.close(*descriptor);
                }
            }
        }
        self.failures = failures;
        self.failures.clear();
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let descriptor = stream.as_raw_fd();
            let accepted = stream
                .set_nodelay(true)
                .and_then(|()| self.epoll.add(descriptor, descriptor as u64, sys::IN | sys::HALF_ENDED));
            match (accepted, self.sockets.get_mut(descriptor as usize)) {
                (Ok(()), Some(place)) => *place = Some(Socket { stream, place: None, request: Vec::new() }),
                _ => eprintln!("fanwire-floor: a connection over the bound of {} is closed", self.sockets.len()),
            }
        }
    }

    fn read_socket(&mut self, descriptor: RawFd) {
        let Some(Some(socket)) = self.sockets.get_mut(descriptor as usize) else { return };
        let mut room = [0; 4096];
        let count = match sys::receive(descriptor, &mut room) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Ok(0) | Err(_) => return self.close(descriptor),
            Ok(count) => count,
        };
        if socket.place.is_some() {
            // Pongs and closes; the end of the connection follows a close.
            return;
        }
        socket.request.extend_from_slice(&room[..count]);
        match read_request(&socket.request) {
            Request::Part if socket.request.len() <= REQUEST_BYTES_MAX => {}
            Request::Upgrade(answer) => self.open(descriptor, answer.as_bytes()),
            Request::Part | Request::Other => {
                // Closed next, so it does not matter whether it is taken.
                let _ = sys::send(descriptor, b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
                self.close(descriptor);
            }
        }
    }

    fn open(&mut self, descriptor: RawFd, answer: &[u8]) {
        let is_answered = matches!(sys::send(descriptor, answer), Ok(count) if count == answer.len());
        let is_registered = match &mut self.path {
            Path::Send => true,
            Path::Ring(ring) => ring.register(descriptor).is_ok(),
        };
        if !(is_answered && is_registered) {
            return self.close(descriptor);
        }
        if let Some(Some(socket)) = self.sockets.get_mut(descriptor as usize) {
            socket.place = Some(self.open.len());
            socket.request = Vec::new();
            self.open.push(descriptor);
        }
    }

    fn close(&mut self, descriptor: RawFd) {
        let Some(socket) = self.sockets.get_mut(descriptor as usize).and_then(Option::take) else { return };
        if let Path::Ring(ring) = &mut self.path {
            ring.unregister(descriptor);
        }
        if let Some(place) = socket.place {
            self.open.swap_remove(place);
            if let Some(&moved) = self.open.get(place)
                && let Some(Some(moved)) = self.sockets.get_mut(moved as usize)
            {
                moved.place = Some(place);
            }
        }
        // Dropping it closes it, and epoll forgets it.
        drop(socket.stream);
    }
}
