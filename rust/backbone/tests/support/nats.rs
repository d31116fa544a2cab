//! A real nats-server for each test, or a cluster of them.
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::free_port;

const LONG: Duration = Duration::from_secs(30);

/// The server to test with, 2.12 or later; says so if there is none.
pub(crate) fn nats_server() -> Option<PathBuf> {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.venv/bin/nats-server");
    let is_new = |path: &PathBuf| {
        let said = Command::new(path).arg("--version").output().ok()?;
        let said = String::from_utf8(said.stdout).ok()?;
        let mut numbers = said.split(['v', '.']).filter_map(|part| part.trim().parse::<u64>().ok());
        Some((numbers.next()?, numbers.next()?) >= (2, 12))
    };
    let found = [own, "nats-server"].map(PathBuf::from).into_iter().find(|path| is_new(path) == Some(true));
    if found.is_none() {
        eprintln!("skipped: there is no nats-server 2.12 or later (make .venv/bin/nats-server, which needs Go)");
    }
    found
}

/// A server with a folder of its own; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Nats {
    pub(crate) port: u16,
    folder: PathBuf,
    config: String,
    child: Option<Child>,
}

impl Nats {
    /// One with JetStream, and with more lines of configuration.
    pub(crate) fn start(more: &str) -> Self {
        let mut server = Self::prepared(&format!("jetstream {{ store_dir: \"DIR\" }}\n{more}"));
        server.begin();
        server.wait();
        server
    }

    /// A cluster of three.
    pub(crate) fn cluster() -> [Self; 3] {
        let routes = [(); 3].map(|()| free_port());
        let urls = routes.map(|port| format!("nats://127.0.0.1:{port}")).join(", ");
        let mut servers = routes.map(|port| {
            Self::prepared(&format!(
                "server_name: n{port}\njetstream {{ store_dir: \"DIR\" }}\n\
                 cluster {{ name: c, listen: \"127.0.0.1:{port}\", routes: [{urls}] }}"
            ))
        });
        servers.iter_mut().for_each(Self::begin);
        servers.iter().for_each(Self::wait);
        servers
    }

    /// One that is not started, with this configuration alone.
    pub(crate) fn prepared(config: &str) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("fanwire-nats-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let config = config.replace("DIR", folder.to_str().unwrap());
        Self { port: free_port(), folder, config, child: None }
    }

    /// Starts it, anew where it was killed.
    pub(crate) fn begin(&mut self) {
        let file = self.folder.join("nats.conf");
        std::fs::write(&file, format!("listen: \"127.0.0.1:{}\"\n{}\n", self.port, self.config)).unwrap();
        let mut command = Command::new(nats_server().unwrap());
        command.arg("-c").arg(file).arg("-l").arg(self.folder.join("nats.log"));
        self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }

    /// Until it answers.
    pub(crate) fn wait(&self) {
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(began.elapsed() < LONG, "the server does not answer: {}", self.log());
            std::thread::park_timeout(Duration::from_millis(20)); // another process: it tells nobody
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        super::signal(self.child.as_ref().unwrap(), name);
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("nats.log")).unwrap_or_default()
    }

    /// Whether it is the one that a cluster calls so.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        self.config.contains(&format!("server_name: n{name}\n"))
    }

    /// One request, and the payload of its answer.
    pub(crate) fn ask(&self, subject: &str, payload: &str) -> String {
        let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", self.port)).unwrap());
        stream.get_ref().set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let said = format!(
            "CONNECT {{\"verbose\":false,\"headers\":true,\"no_responders\":true}}\r\nSUB answer 1\r\n\
             PUB {subject} answer {}\r\n{payload}\r\nPING\r\n",
            payload.len()
        );
        stream.get_mut().write_all(said.as_bytes()).unwrap();
        loop {
            let mut line = String::new();
            assert!(stream.read_line(&mut line).unwrap() > 0, "no answer on {subject}");
            assert!(!line.starts_with("-ERR"), "{line}");
            if line.contains("MSG ") {
                let length: usize = line.trim().rsplit(' ').next().unwrap().parse().unwrap();
                let mut bytes = vec![0; length];
                stream.read_exact(&mut bytes).unwrap();
                return String::from_utf8_lossy(&bytes).into_owned();
            }
        }
    }

    /// Publishes, without an answer.
    pub(crate) fn publish(&self, subject: &str, payload: &str) {
        let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", self.port)).unwrap());
        let said = format!("CONNECT {{\"verbose\":false}}\r\nPUB {subject} {}\r\n{payload}\r\nPING\r\n", payload.len());
        stream.get_mut().write_all(said.as_bytes()).unwrap();
        let mut line = String::new();
        while !line.starts_with("PONG") {
            line.clear();
            assert!(stream.read_line(&mut line).unwrap() > 0);
        }
    }

    /// The streams that take publications, and not the one that says which do.
    pub(crate) fn taking(&self) -> Vec<String> {
        let answer = self.ask("$JS.API.STREAM.NAMES", "");
        let names = answer.split_once("\"streams\":[").map_or("", |(_, rest)| rest.split(']').next().unwrap());
        names
            .split(',')
            .map(|name| name.trim_matches('"').to_owned())
            .filter(|name| !name.is_empty() && !name.ends_with("-lives"))
            .collect()
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
