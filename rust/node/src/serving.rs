//! What an owner does, as the server calls it.
use crate::peers::{Outgoing, Peer};

/// What the owner does: each method runs on the server's one thread, so never two at once.
///
/// What they send goes out when the turn ends: in one write for each peer, however much was sent. While one of them runs,
/// nobody is served, so none may wait. A panic ends the server: the log says so, its peers are disconnected, and
/// [`Server::failure`](crate::Server::failure) has the text.
pub trait Serving: Send {
    /// Somebody has connected.
    fn came(&mut self, peer: Peer, out: &mut Outgoing<'_>);

    /// A peer has sent a frame: whole, and in the order in which it was sent.
    ///
    /// # Errors
    /// Why the peer cannot stay: it is dropped when the turn ends, `log` gets the reason, and [`gone`](Self::gone) is
    /// called. What waits for it by now is sent before, as far as the socket takes it at once. Nothing of what it has sent
    /// behind that frame comes.
    fn received(&mut self, peer: Peer, frame: &[u8], out: &mut Outgoing<'_>) -> Result<(), String>;

    /// A peer is no longer here: once for each that came, but not for those that are here when the server stops.
    ///
    /// All that came whole before its end was [`received`](Self::received), unless it was dropped. What is sent to it now
    /// goes nowhere.
    fn gone(&mut self, peer: Peer, out: &mut Outgoing<'_>);

    /// A turn ends: behind each batch of the others, and at least once a second.
    fn turned(&mut self, out: &mut Outgoing<'_>);
}
