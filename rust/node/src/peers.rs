//! Who is connected, what waits for each, and who has to go.
use std::fmt;
use std::mem;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crate::bounds::Bounds;
use crate::connection::Connection;
use crate::frame::{HEAD_BYTES, put};
use crate::outbox::Outbox;
use crate::poller::Poller;
use crate::thread::WARNING;

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

/// One that is here.
#[derive(Debug)]
struct Seated {
    peer: Peer,
    connection: Connection,
    /// It stands in the list of those that have to be written to, or watched otherwise.
    is_dirty: bool,
    /// It stands in the list of those that have to go.
    is_doomed: bool,
}

/// What is done with each frame of a peer.
pub(crate) trait Each: FnMut(&[u8], &mut Outgoing<'_>) -> Result<(), String> {}

impl<F: FnMut(&[u8], &mut Outgoing<'_>) -> Result<(), String>> Each for F {}

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
    slots: Vec<Option<Seated>>,
    /// How many have come so far.
    number: u64,
    dirty: Vec<Peer>,
    doomed: Vec<Doomed>,
    /// Whose frames have waited, and may go on.
    resumed: Vec<Peer>,
    bounds: Bounds,
}

impl Peers {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { slots: Vec::new(), number: 0, dirty: Vec::new(), doomed: Vec::new(), resumed: Vec::new(), bounds }
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
        let connection = Connection::new(stream, process, free as u64, poller)?;
        if free == self.slots.len() {
            self.slots.push(None);
        }
        self.number += 1;
        let peer = Peer { number: self.number, slot: free };
        self.slots[free] = Some(Seated { peer, connection, is_dirty: false, is_doomed: false });
        Ok(peer)
    }

    /// Who has a slot, and is to stay.
    pub(crate) fn at(&self, slot: u64) -> Option<Peer> {
        let seated = self.slots.get(usize::try_from(slot).ok()?)?.as_ref()?;
        (!seated.is_doomed).then_some(seated.peer)
    }

    fn get(&self, peer: Peer) -> Option<&Connection> {
        let seated = self.slots.get(peer.slot)?.as_ref()?;
        (seated.peer == peer).then_some(&seated.connection)
    }

    /// A peer that is here and is to stay.
    fn seated(&mut self, peer: Peer) -> Option<&mut Seated> {
        self.slots.get_mut(peer.slot)?.as_mut().filter(|seated| seated.peer == peer && !seated.is_doomed)
    }

    fn get_mut(&mut self, peer: Peer) -> Option<&mut Connection> {
        self.seated(peer).map(|seated| &mut seated.connection)
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
            connection.deafen();
            return self.doom(peer, why, WARNING);
        }
        push(&mut connection.outbox);
        if !connection.is_blocked {
            self.touch(peer);
        }
    }

    /// Has a peer written to when the turn ends, and watched for what it waits for then.
    pub(crate) fn touch(&mut self, peer: Peer) {
        if let Some(seated) = self.seated(peer)
            && !mem::replace(&mut seated.is_dirty, true)
        {
            self.dirty.push(peer);
        }
    }

    /// Nothing can be written to a peer any more.
    pub(crate) fn deafen(&mut self, peer: Peer) {
        if let Some(connection) = self.get_mut(peer) {
            connection.deafen();
            self.touch(peer);
        }
    }

    /// Has a peer go when the turn ends. The first reason counts.
    pub(crate) fn doom(&mut self, peer: Peer, why: String, level: u8) {
        if let Some(seated) = self.seated(peer) {
            seated.is_doomed = true;
            self.doomed.push(Doomed { peer, why, level });
        }
    }

    pub(crate) fn take_doomed(&mut self) -> Vec<Doomed> {
        mem::take(&mut self.doomed)
    }

    /// Closes a connection, with a last word where some waits; gives the number of its process.
    pub(crate) fn remove(&mut self, peer: Peer, poller: &Poller) -> u32 {
        let seated = self.slots[peer.slot].take();
        let mut connection = seated.expect("it was doomed once, and so is removed once").connection;
        connection.close(poller);
        connection.process
    }

    /// Reads once from a peer, and has it [heard](Self::hear); gives whether something has come.
    pub(crate) fn read(&mut self, peer: Peer, scratch: &mut [u8], each: impl Each) -> bool {
        let Some(connection) = self.get_mut(peer).filter(|connection| !connection.is_paused) else { return false };
        match connection.read(scratch) {
            Ok(0) => false,
            Ok(count) => {
                self.hear(peer, &scratch[..count], each);
                true
            }
            Err((why, level)) => {
                self.doom(peer, why, level);
                false
            }
        }
    }

    /// Gives each frame of a peer that is whole by now to `each`, until the peer is doomed, or too much waits for it: then
    /// its frames wait, too.
    pub(crate) fn hear(&mut self, peer: Peer, bytes: &[u8], mut each: impl Each) {
        let (frame_bytes_max, paused_from) = (self.bounds.frame_limit(), self.bounds.paused_from());
        let Some(connection) = self.get_mut(peer) else { return };
        let mut inbox = mem::take(&mut connection.inbox);
        let taken = inbox.take(bytes, frame_bytes_max, |frame| {
            each(frame, &mut self.outgoing())?;
            // Whoever is to go says nothing more; its own reason stands already.
            let connection = self.get_mut(peer).ok_or_else(String::new)?;
            Ok(connection.outbox.waiting() <= paused_from)
        });
        match (taken, self.get_mut(peer)) {
            (Ok(goes_on), Some(connection)) => {
                connection.inbox = inbox;
                if !goes_on {
                    connection.is_paused = true;
                    self.touch(peer);
                }
            }
            (Err(why), _) => self.doom(peer, why, WARNING),
            (Ok(_), None) => {}
        }
    }

    /// Whose frames have waited, and may go on by [`hear`](Self::hear).
    pub(crate) fn take_resumed(&mut self) -> Vec<Peer> {
        mem::take(&mut self.resumed)
    }

    /// Whether somebody's frames may go on.
    pub(crate) fn has_resumed(&self) -> bool {
        !self.resumed.is_empty()
    }

    /// Writes once to each peer for which something was queued, and has those watched that took only a part.
    pub(crate) fn flush(&mut self, poller: &Poller) {
        let resumed_from = self.bounds.paused_from() / 2;
        let mut dirty = mem::take(&mut self.dirty);
        for peer in dirty.drain(..) {
            let Some(seated) = self.seated(peer) else { continue };
            seated.is_dirty = false;
            let connection = &mut seated.connection;
            connection.write();
            let is_resumed = connection.is_paused && connection.outbox.waiting() <= resumed_from;
            connection.is_paused &= !is_resumed;
            let watched = connection.watch(peer.slot as u64, poller);
            if is_resumed {
                self.resumed.push(peer);
            }
            if let Err(why) = watched {
                self.doom(peer, why, WARNING);
            }
        }
        self.dirty = dirty; // empty, with its memory
    }

    /// Whether something is to be done before the next wait.
    pub(crate) fn is_settled(&self) -> bool {
        self.dirty.is_empty() && self.doomed.is_empty()
    }
}
