//! Who is connected, what waits for each, and who has to go.
use std::fmt;
use std::io::{ErrorKind, Read};
use std::mem;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crate::bounds::Bounds;
use crate::frame::{HEAD_BYTES, Inbox, put};
use crate::outbox::Outbox;
use crate::poller::Poller;
use crate::thread::{DEBUG, WARNING};

/// From this length on, a frame for several peers is written out once, and shared.
const SHARED_BYTES_MIN: usize = 4 << 10;

/// Names one connection to the server; no later one has the same.
///
/// It is written, and ordered, as its number: `peer 3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer {
    number: u64,
    slot: usize,
}

impl Peer {
    /// 1 for the first that came, and so on.
    #[must_use]
    pub fn number(self) -> u64 {
        self.number
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "peer {}", self.number)
    }
}

/// What a [`Serving`](crate::Serving) may do with its peers while one of its methods runs.
///
/// A peer that is gone, or about to go, is left out without a word.
#[derive(Debug)]
pub struct Outgoing<'a> {
    peers: &'a mut Peers,
}

impl Outgoing<'_> {
    /// Queues a frame for a peer; it goes out when the turn ends, behind what was queued before.
    ///
    /// A peer for which more than [`Bounds::peer_queue_bytes_max`] would wait does not read: it is dropped with that
    /// reason. So is one that is sent a frame over [`Bounds::frame_bytes_max`], which its end would refuse.
    pub fn send(&mut self, peer: Peer, frame: &[u8]) {
        self.peers.send(peer, frame.len(), |outbox| outbox.push(frame));
    }

    /// [`send`](Self::send) to each of these. From 4 KiB on they share the frame's memory.
    pub fn send_all(&mut self, peers: impl IntoIterator<Item = Peer>, frame: &[u8]) {
        let mut record: Option<Arc<[u8]>> = None;
        for peer in peers {
            if frame.len() < SHARED_BYTES_MIN {
                self.send(peer, frame);
            } else {
                self.peers.send(peer, frame.len(), |outbox| {
                    outbox.push_shared(Arc::clone(record.get_or_insert_with(|| record_of(frame))));
                });
            }
        }
    }

    /// Ends a peer's connection when the turn ends; what waits for it by now is sent before, as far as the socket takes it
    /// at once. The first reason is told to the log.
    pub fn drop_peer(&mut self, peer: Peer, why: String) {
        self.peers.doom(peer, why, WARNING);
    }

    /// The number of the peer's process, as the kernel knows it; `None` once it is gone.
    #[must_use]
    pub fn process_of(&self, peer: Peer) -> Option<u32> {
        self.peers.get(peer).map(|connection| connection.process)
    }

    /// How many bytes wait for a peer; 0 once it is gone.
    #[must_use]
    pub fn waiting(&self, peer: Peer) -> usize {
        self.peers.get(peer).map_or(0, |connection| connection.outbox.waiting())
    }
}

fn record_of(frame: &[u8]) -> Arc<[u8]> {
    let mut record = Vec::with_capacity(HEAD_BYTES + frame.len());
    put(&mut record, frame);
    record.into()
}

/// One peer's connection.
#[derive(Debug)]
struct Connection {
    peer: Peer,
    stream: UnixStream,
    process: u32,
    inbox: Inbox,
    outbox: Outbox,
    /// It stands in the list of those that have to be written to.
    is_dirty: bool,
    /// The poller tells when there is room again: until then nothing is tried.
    is_blocked: bool,
    /// Nothing can be written any more. What it has sent is read to its end all the same.
    is_deaf: bool,
    /// It stands in the list of those that have to go.
    is_doomed: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both); // a fork may hold the descriptor, too
    }
}

/// A peer that has to go, with the reason and how loud the log says it.
#[derive(Debug)]
pub(crate) struct Doomed {
    pub(crate) peer: Peer,
    pub(crate) why: String,
    pub(crate) level: u8,
}

/// All peers. A slot is used anew only behind the turn in which its peer went: an event of that turn may be for it.
#[derive(Debug)]
pub(crate) struct Peers {
    slots: Vec<Option<Connection>>,
    /// How many have come so far.
    number: u64,
    dirty: Vec<Peer>,
    doomed: Vec<Doomed>,
    bounds: Bounds,
}

impl Peers {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { slots: Vec::new(), number: 0, dirty: Vec::new(), doomed: Vec::new(), bounds }
    }

    pub(crate) fn outgoing(&mut self) -> Outgoing<'_> {
        Outgoing { peers: self }
    }

    /// Takes a connection in, and has it watched by its slot.
    ///
    /// # Errors
    /// Why it cannot stay.
    pub(crate) fn add(&mut self, stream: UnixStream, process: u32, poller: &Poller) -> Result<Peer, String> {
        let free = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        if free >= self.bounds.peers_max {
            return Err(format!("there are {free} peers already; {} there may be", self.bounds.peers_max));
        }
        poller.add(&stream, free as u64).map_err(|error| format!("cannot watch it: {error}"))?;
        if free == self.slots.len() {
            self.slots.push(None);
        }
        self.number += 1;
        let peer = Peer { number: self.number, slot: free };
        self.slots[free] = Some(Connection {
            peer,
            stream,
            process,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            is_dirty: false,
            is_blocked: false,
            is_deaf: false,
            is_doomed: false,
        });
        Ok(peer)
    }

    /// Who has a slot, and is to stay.
    pub(crate) fn at(&self, slot: u64) -> Option<Peer> {
        let connection = self.slots.get(usize::try_from(slot).ok()?)?.as_ref()?;
        (!connection.is_doomed).then_some(connection.peer)
    }

    fn get(&self, peer: Peer) -> Option<&Connection> {
        self.slots.get(peer.slot)?.as_ref().filter(|connection| connection.peer == peer)
    }

    /// A peer that is here and is to stay.
    fn get_mut(&mut self, peer: Peer) -> Option<&mut Connection> {
        let connection = self.slots.get_mut(peer.slot)?.as_mut()?;
        (connection.peer == peer && !connection.is_doomed).then_some(connection)
    }

    fn send(&mut self, peer: Peer, frame_bytes: usize, push: impl FnOnce(&mut Outbox)) {
        let (frame_bytes_max, peer_queue_bytes_max) = (self.bounds.frame_limit(), self.bounds.peer_queue_bytes_max);
        let Some(connection) = self.get_mut(peer) else { return };
        if connection.is_deaf {
            return;
        }
        if frame_bytes > frame_bytes_max {
            let why = format!("it was to be sent a frame of {frame_bytes} bytes; {frame_bytes_max} it may have");
            return self.doom(peer, why, WARNING);
        }
        let waiting = connection.outbox.waiting();
        if waiting > 0 && waiting + HEAD_BYTES + frame_bytes > peer_queue_bytes_max {
            let why = format!(
                "it does not read: {waiting} bytes wait for it, with this frame {}; {peer_queue_bytes_max} may",
                waiting + HEAD_BYTES + frame_bytes
            );
            connection.is_deaf = true;
            connection.outbox.clear();
            return self.doom(peer, why, WARNING);
        }
        push(&mut connection.outbox);
        if !connection.is_blocked && !mem::replace(&mut connection.is_dirty, true) {
            self.dirty.push(peer);
        }
    }

    /// Has a peer go when the turn ends. The first reason counts.
    pub(crate) fn doom(&mut self, peer: Peer, why: String, level: u8) {
        if let Some(connection) = self.get_mut(peer) {
            connection.is_doomed = true;
            self.doomed.push(Doomed { peer, why, level });
        }
    }

    pub(crate) fn take_doomed(&mut self) -> Vec<Doomed> {
        mem::take(&mut self.doomed)
    }

    /// Closes a connection, with a last word where some waits; gives the number of its process.
    pub(crate) fn remove(&mut self, peer: Peer, poller: &Poller) -> u32 {
        let mut connection = self.slots[peer.slot].take().expect("it was doomed once, and so is removed once");
        if !connection.is_deaf {
            let _ = connection.outbox.write_to(&connection.stream); // it goes in any case
        }
        poller.remove(&connection.stream);
        connection.process
    }

    /// Reads once from a peer, and gives each frame that is whole to `each`, until the peer is doomed.
    pub(crate) fn read(
        &mut self,
        peer: Peer,
        scratch: &mut [u8],
        mut each: impl FnMut(&[u8], &mut Outgoing<'_>) -> Result<(), String>,
    ) {
        let frame_bytes_max = self.bounds.frame_limit();
        let Some(connection) = self.get_mut(peer) else { return };
        let count = match (&connection.stream).read(scratch) {
            Ok(0) => {
                let (why, level) = match connection.inbox.cut_bytes() {
                    0 => ("it has closed the connection".to_owned(), DEBUG),
                    bytes => {
                        (format!("it has closed the connection in a frame, {bytes} bytes of which have come"), WARNING)
                    }
                };
                return self.doom(peer, why, level);
            }
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            Err(error) => return self.doom(peer, format!("the connection has broken: {error}"), WARNING),
        };
        let mut inbox = mem::take(&mut connection.inbox);
        let taken = inbox.take(&scratch[..count], frame_bytes_max, |frame| {
            each(frame, &mut self.outgoing())?;
            // Whoever is to go says nothing more; its own reason stands already.
            if self.get_mut(peer).is_some() { Ok(()) } else { Err(String::new()) }
        });
        match (taken, self.get_mut(peer)) {
            (Ok(()), Some(connection)) => connection.inbox = inbox,
            (Err(why), _) => self.doom(peer, why, WARNING),
            (Ok(()), None) => {}
        }
    }

    /// There is room in a peer's socket again.
    pub(crate) fn unblock(&mut self, peer: Peer) {
        if let Some(connection) = self.get_mut(peer)
            && !mem::replace(&mut connection.is_dirty, true)
        {
            self.dirty.push(peer);
        }
    }

    /// Writes once to each peer for which something was queued, and has those watched that took only a part.
    pub(crate) fn flush(&mut self, poller: &Poller) {
        let mut dirty = mem::take(&mut self.dirty);
        for peer in dirty.drain(..) {
            let Some(connection) = self.get_mut(peer) else { continue };
            connection.is_dirty = false;
            let is_blocked = connection.outbox.write_to(&connection.stream).unwrap_or_else(|_| {
                // How it broke is told by the read that comes to its end.
                connection.is_deaf = true;
                connection.outbox.clear();
                false
            });
            if mem::replace(&mut connection.is_blocked, is_blocked) != is_blocked {
                let watched = poller.watch_writing(&connection.stream, peer.slot as u64, is_blocked);
                if let Err(error) = watched {
                    self.doom(peer, format!("cannot watch it: {error}"), WARNING);
                }
            }
        }
        self.dirty = dirty; // empty, with its memory
    }

    /// Whether something is to be done before the next wait.
    pub(crate) fn is_settled(&self) -> bool {
        self.dirty.is_empty() && self.doomed.is_empty()
    }
}
