//! What a publication through one link costs: so many of 128 bytes, each heard by the same link, over 16 channels.
//!
//! `cargo bench -p fanwire-backbone --bench publishing [-- COUNT CHANNELS WAITING]`: 200,000, 16 and 4,096 at first; WAITING
//! are under way at once. It starts a redis-server at port 21999 and ends it. Instructions of this process alone:
//! `perf stat -e instructions:u BINARY …` for two counts, and the difference through the difference.
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Instant;

use fanwire_backbone::{Event, Keep, Link, Options};

fn main() {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<u64>().ok());
    let mut number = |otherwise| numbers.next().unwrap_or(otherwise);
    let (count, channels, waiting) = (number(200_000), number(16), number(4_096));
    let server = Command::new("redis-server")
        .args(["--port", "21999", "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"])
        .stdout(Stdio::null())
        .spawn();
    let Ok(mut server) = server else { return println!("skipped: there is no redis-server") };
    let (tell, events) = channel();
    let link = Link::start("redis://127.0.0.1:21999", Options::default(), move |event| drop(tell.send(event)));
    let link = link.expect("the URL is right");
    while !matches!(events.recv().expect("the link lives"), Event::Up) {}
    let names: Vec<String> = (0..channels).map(|number| format!("odds:{number}")).collect();
    let keep = Keep { messages: 100, age_ms: 300_000 };
    link.want(&names.iter().map(String::as_str).collect::<Vec<_>>(), keep);
    for _ in 0..channels {
        while !matches!(events.recv().expect("the link lives"), Event::Wanted { .. }) {}
    }
    let (mut sent, mut published, mut heard) = (0, 0, 0);
    let began = Instant::now();
    while published < count || heard < count {
        while sent < count && sent < published + waiting {
            let name = &names[(sent % channels) as usize];
            link.publish(sent, name, vec![b'x'; 128], keep, None).expect("there is room");
            sent += 1;
        }
        match events.recv().expect("the link lives") {
            Event::Published { result, .. } => {
                result.expect("the server takes it");
                published += 1;
            }
            Event::Record { .. } => heard += 1,
            other => println!("{other:?}"),
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{count} publications of 128 B in {channels} channels, {waiting} at once: {:.0} a second",
        count as f64 / seconds
    );
    drop(link);
    server.kill().expect("it runs");
    server.wait().expect("it was killed");
}
