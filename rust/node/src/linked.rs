//! What a worker does, as its link calls it.

/// What a worker does: each method runs on the link's one thread, so never two at once.
///
/// While one of them runs nothing is read or written, so none may wait. A panic ends the link for good: the log says so,
/// [`down`](Self::down) is called a last time, and [`Link::failure`](crate::Link::failure) has the text.
pub trait Linked: Send {
    /// There is a connection: the first, or a new one.
    ///
    /// What [`LinkSender::send`](crate::LinkSender::send) took before that is lost, so this is where to say again what
    /// counts. What is sent from within is the first that the owner gets. What other threads send meanwhile goes out behind
    /// it: something may be said twice there, once here and once by the thread that had just noted it.
    fn up(&mut self);

    /// The owner has sent a frame: whole, and in the order in which it was sent.
    ///
    /// # Errors
    /// Why the connection cannot stay: it is given up, [`down`](Self::down) is called with the reason, and another is made.
    fn received(&mut self, frame: &[u8]) -> Result<(), String>;

    /// A turn ends: behind each batch of the others, after sends of other threads, and at least once a second, whether
    /// there is a connection or not.
    fn turned(&mut self);

    /// The connection is gone: once behind each [`up`](Self::up), also when the link stops. What is sent now is lost.
    fn down(&mut self, why: &str);
}
