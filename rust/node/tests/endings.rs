//! How connections, servers and links end, and begin again.
mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

use fanwire_node::{Bounds, Link, LinkSender, Linked, Outgoing, Peer, Server, Serving, StartError};
use support::*;

const CHILD: &str = "FANWIRE_NODE_TEST_CHILD";

#[test]
fn the_socket_is_its_user_s_alone_and_goes_with_the_server() {
    let folder = Folder::new();
    let (server, _, _) = start_owner(&folder.socket(), Bounds::default(), |_, _, _| Ok(()));
    let mode = fs::metadata(folder.socket()).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    server.stop();
    assert!(!folder.socket().exists());
}

#[test]
fn a_file_that_nobody_listens_on_is_replaced_and_two_servers_are_an_error() {
    let folder = Folder::new();
    drop(UnixListener::bind(folder.socket()).expect("a free path"));
    assert!(folder.socket().exists(), "std leaves it");
    let (server, _, _) = start_owner(&folder.socket(), Bounds::default(), |_, _, _| Ok(()));
    let second = Server::start(&folder.socket(), Box::new(Echo), Bounds::default(), |_, _| ());
    let error = second.expect_err("two programs on one Unix socket");
    assert!(matches!(error, StartError::InUse { .. }), "{error}");
    let expected = format!("{}: another process listens on this Unix socket", folder.socket().display());
    assert_eq!(error.to_string(), expected);
    // The first is as it was.
    write_frame(&mut connect(&folder.socket()), b"still here");
    server.stop();
    drop(Server::start(&folder.socket(), Box::new(Echo), Bounds::default(), |_, _| ()).expect("its place is free"));
}

#[test]
fn a_socket_that_somebody_has_put_in_its_place_is_left_alone() {
    let folder = Folder::new();
    let (server, _, _) = start_owner(&folder.socket(), Bounds::default(), |_, _, _| Ok(()));
    fs::remove_file(folder.socket()).expect("it is there");
    let (other, _, _) = start_owner(&folder.socket(), Bounds::default(), |_, _, _| Ok(()));
    server.stop();
    write_frame(&mut connect(&folder.socket()), b"the second is there");
    other.stop();
}

#[test]
fn what_can_be_no_socket_s_path_says_why() {
    let folder = Folder::new();
    let start = |path: &std::path::Path| {
        Server::start(path, Box::new(Echo), Bounds::default(), |_, _| ()).expect_err("there can be none").to_string()
    };
    fs::write(folder.socket(), b"somebody's notes").expect("a free path");
    assert!(start(&folder.socket()).ends_with("owner.sock: there is something that is no Unix socket"));
    assert_eq!(fs::read(folder.socket()).expect("it is there"), b"somebody's notes");
    let long = folder.socket().with_file_name("a".repeat(120));
    assert!(start(&long).contains("a Unix socket's path has 107 bytes at most, this one has "));
    let nowhere = folder.socket().join("below a file");
    assert!(start(&nowhere).contains("cannot "), "{}", start(&nowhere));
    let make = |_: LinkSender| -> Box<dyn Linked> { unreachable!("it is refused before") };
    let link = Link::start(&long, make, Bounds::default(), |_, _| ());
    assert!(matches!(link, Err(StartError::PathTooLong { bytes_max: 107, .. })));
}

#[test]
fn a_link_connects_again_and_says_again_what_counts() {
    let folder = Folder::new();
    let (_link, sender, hears) = start_link(&folder.socket(), Bounds::default(), Some(b"hello"));
    for _ in 0..5 {
        sender.send(b"lost").expect("nobody is there, and nothing waits");
        assert_eq!(sender.waiting(), 0);
        let (server, told, _) = start_owner(&folder.socket(), Bounds::default(), |peer, frame, out| {
            out.send(peer, frame);
            Ok(())
        });
        assert_eq!(next(&hears), Heard::Up);
        assert!(matches!(next(&told), Told::Came(_)));
        assert!(matches!(next(&told), Told::Frame(_, frame) if frame == b"hello"));
        assert_eq!(next(&hears), Heard::Frame(b"hello".to_vec()));
        server.stop();
        assert_eq!(next(&hears), Heard::Down("the owner has closed the connection".to_owned()));
    }
}

#[test]
fn whoever_refuses_a_frame_ends_the_connection_and_the_link_makes_another() {
    let folder = Folder::new();
    let (server, told, lines) = start_owner(&folder.socket(), Bounds::default(), |peer, frame, out| {
        match frame {
            b"refuse this" => {
                out.send(peer, b"you are refused");
                return Err("nobody takes that".to_owned());
            }
            _ => out.send(peer, b"a frame that no worker takes"),
        }
        Ok(())
    });
    let (_link, sender, hears) = start_link(&folder.socket(), Bounds::default(), Some(b"hello"));
    assert_eq!(next(&hears), Heard::Up);
    assert_eq!(next(&hears), Heard::Down("no worker takes that".to_owned()));
    assert_eq!(next(&hears), Heard::Up);
    drop((_link, sender));
    assert!(matches!(rest(&hears).last(), Some(Heard::Down(_))), "each up has its down");

    let mut client = connect(&folder.socket());
    client.write_all(&[record(b"refuse this"), record(b"behind it")].concat()).expect("the owner reads");
    // What was queued before goes out before the end.
    assert_eq!(read_frame(&mut client), b"you are refused");
    assert_eq!(client.read(&mut [0]).expect("an end"), 0);
    let (level, text) = lines.wait_for("nobody takes that");
    assert_eq!(level, 30);
    assert!(text.ends_with("is gone: nobody takes that"), "{text}");
    drop(server);
    assert!(!rest(&told).iter().any(|told| matches!(told, Told::Frame(_, frame) if frame == b"behind it")));
}

/// Not a test: the process that one kills. It sends two frames and a part of a third, and waits.
#[test]
#[ignore = "the child of a_process_that_is_killed_in_a_frame_is_gone_with_what_it_said_before"]
fn a_child_that_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let mut stream = connect(path.as_ref());
    stream.write_all(&[record(b"one"), record(b"two"), record(&[3; 100])[..50].to_vec()].concat()).expect("it reads");
    let _ = stream.read(&mut [0]); // until it is killed
}

#[test]
fn a_process_that_is_killed_in_a_frame_is_gone_with_what_it_said_before() {
    let folder = Folder::new();
    let (_server, told, lines) = start_owner(&folder.socket(), Bounds::default(), |_, _, _| Ok(()));
    let mut child = Command::new(std::env::current_exe().expect("it runs"))
        .args(["--exact", "a_child_that_is_killed", "--ignored"])
        .env(CHILD, folder.socket())
        .stdout(Stdio::null())
        .spawn()
        .expect("a process");
    let Told::Came(peer) = next(&told) else { panic!("it comes first") };
    assert_eq!(next(&told), Told::Frame(peer, b"one".to_vec()));
    assert_eq!(next(&told), Told::Frame(peer, b"two".to_vec()));
    child.kill().expect("it is ours");
    child.wait().expect("it is ours");
    assert_eq!(next(&told), Told::Gone(peer));
    let (level, text) = lines.wait_for("is gone");
    let process = child.id();
    let expected = format!(
        "{peer} (process {process}) is gone: it has closed the connection in a frame, 50 bytes of which have come"
    );
    assert_eq!((level, text), (30, expected));
}

/// Not a test: a process of another user's, which connects and waits for the end.
#[test]
#[ignore = "the child of a_process_of_another_user_is_refused"]
fn a_child_of_another_user() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    assert_eq!(connect(path.as_ref()).read(&mut [0]).expect("an end"), 0);
}

#[test]
fn a_process_of_another_user_is_refused() {
    const NOBODY: u32 = 65_534;
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root can start a process of another user");
    }
    let folder = Folder::new();
    let (server, told, lines) = start_owner(&folder.socket(), Bounds::default(), |_, _, _| Ok(()));
    // Its mode keeps others out already, and so does the folder's: somebody has opened both.
    fs::set_permissions(folder.socket(), fs::Permissions::from_mode(0o666)).expect("it is ours");
    let around = folder.socket().with_file_name("");
    fs::set_permissions(around, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let program = folder.socket().with_file_name("client");
    fs::copy(std::env::current_exe().expect("it runs"), &program).expect("where all may run it");
    let mut child = Command::new(&program);
    child.args(["--exact", "a_child_of_another_user", "--ignored"]).env(CHILD, folder.socket()).stdout(Stdio::null());
    let ended = child.uid(NOBODY).current_dir("/").status().expect("a process");
    assert!(ended.success(), "it was let in, or could not connect");
    let text = "a connection is refused: its process is of user 65534, ours of user 0";
    assert_eq!(lines.wait_for("is refused"), (30, text.to_owned()));
    drop(server);
    assert_eq!(rest(&told), []);
}

/// Not a test: it leaves a child that has its socket, says which, and waits.
#[test]
#[allow(clippy::zombie_processes)] // the child is to outlive it
#[ignore = "the child of a_process_that_is_killed_is_gone_though_a_child_of_it_has_its_socket"]
fn a_child_with_a_child() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let mut stream = connect(path.as_ref());
    rustix::io::fcntl_setfd(&stream, rustix::io::FdFlags::empty()).expect("it is inherited from now on");
    let child = Command::new("tail").args(["-f", "/dev/null"]).stdout(Stdio::null()).spawn().expect("a process");
    write_frame(&mut stream, &child.id().to_le_bytes());
    let _ = stream.read(&mut [0]); // until it is killed
}

#[test]
fn a_process_that_is_killed_is_gone_though_a_child_of_it_has_its_socket() {
    let folder = Folder::new();
    let (_server, told, lines) = start_owner(&folder.socket(), Bounds::default(), |_, _, _| Ok(()));
    let mut child = Command::new(std::env::current_exe().expect("it runs"))
        .args(["--exact", "a_child_with_a_child", "--ignored"])
        .env(CHILD, folder.socket())
        .stdout(Stdio::null())
        .spawn()
        .expect("a process");
    let Told::Came(peer) = next(&told) else { panic!("it comes first") };
    let Told::Frame(_, left) = next(&told) else { panic!("it says whom it leaves") };
    child.kill().expect("it is ours");
    child.wait().expect("it is ours");
    assert_eq!(next(&told), Told::Gone(peer));
    lines.wait_for(&format!("(process {}) is gone: its process has ended", child.id()));
    let left = i32::from_le_bytes(left.try_into().expect("four bytes"));
    let left = rustix::process::Pid::from_raw(left).expect("a process");
    rustix::process::kill_process(left, rustix::process::Signal::TERM).expect("it runs still");
}

#[test]
fn what_a_peer_said_before_it_closed_is_heard_though_it_can_be_sent_nothing() {
    let folder = Folder::new();
    let (go, gate) = channel();
    let (_server, told, _) = start_owner(&folder.socket(), Bounds::default(), move |peer, frame, out| {
        if frame == b"wait" {
            next(&gate);
            (0..10).for_each(|_| out.send(peer, &[0; 60_000]));
        }
        Ok(())
    });
    let mut client = connect(&folder.socket());
    write_frame(&mut client, b"wait");
    let Told::Came(peer) = next(&told) else { panic!("it comes first") };
    assert_eq!(next(&told), Told::Frame(peer, b"wait".to_vec()));
    // What it says now is read only behind a write that fails.
    let much: Vec<u8> = (0..1_000).flat_map(|_| record(&[1; 96])).collect();
    client.write_all(&much).expect("the kernel takes it");
    drop(client);
    go.send(()).expect("it waits");
    (0..1_000).for_each(|_| assert_eq!(next(&told), Told::Frame(peer, vec![1; 96])));
    assert_eq!(next(&told), Told::Gone(peer));
}

#[test]
fn a_panic_of_what_is_served_ends_the_server_and_is_told() {
    struct Panics;
    impl Serving for Panics {
        fn came(&mut self, _: Peer, _: &mut Outgoing<'_>) {}
        fn received(&mut self, _: Peer, _: &[u8], _: &mut Outgoing<'_>) -> Result<(), String> {
            panic!("it was to panic");
        }
        fn gone(&mut self, _: Peer, _: &mut Outgoing<'_>) {}
        fn turned(&mut self, _: &mut Outgoing<'_>) {}
    }
    let folder = Folder::new();
    let lines = Lines::default();
    let server = Server::start(&folder.socket(), Box::new(Panics), Bounds::default(), lines.log()).expect("a server");
    assert_eq!(server.failure(), None);
    let (link, _, hears) = start_link(&folder.socket(), Bounds::default(), Some(b"panic"));
    assert_eq!(next(&hears), Heard::Up);
    assert!(matches!(next(&hears), Heard::Down(_)));
    assert_eq!(lines.wait_for("has died"), (50, "thread fanwire-owner has died: it was to panic".to_owned()));
    wait_until("the file stays", || !folder.socket().exists());
    assert_eq!(server.failure(), Some("thread fanwire-owner has died: it was to panic"));
    link.stop();
}

#[test]
fn a_panic_of_what_is_linked_ends_the_link_and_is_told() {
    struct Panics(std::sync::mpsc::Sender<String>);
    impl Linked for Panics {
        fn up(&mut self) {}
        fn received(&mut self, _: &[u8]) -> Result<(), String> {
            panic!("it was to panic");
        }
        fn turned(&mut self) {}
        fn down(&mut self, why: &str) {
            self.0.send(why.to_owned()).expect("the test waits");
        }
    }
    let folder = Folder::new();
    let _server = Server::start(&folder.socket(), Box::new(Echo), Bounds::default(), |_, _| ()).expect("a server");
    let ((downs, down), lines) = (channel(), Lines::default());
    let make = |_: LinkSender| Box::new(Panics(downs)) as Box<dyn Linked>;
    let link = Link::start(&folder.socket(), make, Bounds::default(), lines.log()).expect("a thread");
    wait_until("it does not come up", || link.sender().is_up());
    link.sender().send(b"back to me").expect("there is room");
    let told = "thread fanwire-link has died: it was to panic";
    assert_eq!(next(&down), told);
    assert_eq!(lines.wait_for("has died"), (50, told.to_owned()));
    assert_eq!(rest(&down), Vec::<String>::new(), "once, and it does not connect again");
    assert_eq!(link.failure(), Some(told));
    link.sender().send(b"lost").expect("nothing waits");
    assert!(!link.sender().is_up());
    link.stop();
}

#[test]
fn turned_is_called_when_somebody_wakes_it_and_when_nothing_happens() {
    struct Turns(std::sync::mpsc::Sender<()>);
    impl Serving for Turns {
        fn came(&mut self, _: Peer, _: &mut Outgoing<'_>) {}
        fn received(&mut self, _: Peer, _: &[u8], _: &mut Outgoing<'_>) -> Result<(), String> {
            Ok(())
        }
        fn gone(&mut self, _: Peer, _: &mut Outgoing<'_>) {}
        fn turned(&mut self, _: &mut Outgoing<'_>) {
            let _ = self.0.send(());
        }
    }
    impl Linked for Turns {
        fn up(&mut self) {}
        fn received(&mut self, _: &[u8]) -> Result<(), String> {
            Ok(())
        }
        fn turned(&mut self) {
            let _ = self.0.send(());
        }
        fn down(&mut self, _: &str) {}
    }
    let folder = Folder::new();
    let (turns, turned) = channel();
    let server = Server::start(&folder.socket(), Box::new(Turns(turns)), Bounds::default(), |_, _| ());
    let server = server.expect("a server");
    next(&turned);
    let (turns, turned) = channel();
    let make = |_: LinkSender| Box::new(Turns(turns)) as Box<dyn Linked>;
    let link = Link::start(&folder.socket(), make, Bounds::default(), |_, _| ()).expect("a thread");
    next(&turned);
    server.stop();
    // Without a server, too.
    (0..3).for_each(|_| next(&turned));
    link.stop();
}
