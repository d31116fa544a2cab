//! What becomes of who connects where no descriptor is left. A process of its own: it has few of them.
mod support;

use fanwire_node::Bounds;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::*;

#[test]
fn whoever_connects_while_no_descriptor_is_left_is_served_when_there_is_one() {
    let folder = Folder::new();
    let (_server, told, lines) = start_owner(&folder.socket(), Bounds::default(), |_, _, _| Ok(()));
    // Descriptors of ours until a few are left: the lowest free number says how many are in use.
    let most = Rlimit { current: Some(64), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, most).expect("fewer are always allowed");
    let mut clients: Vec<_> = (0..8).map(|_| connect(&folder.socket())).collect();
    (0..8).for_each(|_| assert!(matches!(next(&told), Told::Came(_))));
    let mut held = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        held.push(file);
    }
    held.pop(); // one end of the next, and none for the other
    let mut late = connect(&folder.socket());
    let (level, _) = lines.wait_for("the next attempt is in a second");
    assert_eq!(level, 30);
    // Those that are here are served meanwhile.
    write_frame(&mut clients[0], b"still served");
    assert!(matches!(next(&told), Told::Frame(peer, _) if peer.number() == 1));
    drop(held);
    assert!(matches!(next(&told), Told::Came(peer) if peer.number() == 9));
    write_frame(&mut late, b"served now");
    assert!(matches!(next(&told), Told::Frame(peer, _) if peer.number() == 9));
}
