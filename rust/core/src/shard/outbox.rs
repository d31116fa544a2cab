//! Private bytes of one connection: pong, reply, close. Empty it holds no memory.

/// Bytes that wait for the socket.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    /// How many of them the socket has taken.
    taken: u32,
}

impl Outbox {
    /// For writers that append frames in place.
    pub(crate) fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Puts bytes before all that waits.
    pub(crate) fn put_first(&mut self, bytes: &[u8]) {
        let at = self.taken as usize;
        self.bytes.splice(at..at, bytes.iter().copied());
    }

    pub(crate) fn waiting(&self) -> &[u8] {
        &self.bytes[self.taken as usize..]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting().is_empty()
    }

    /// The socket took so many; memory is given back when it took all.
    pub(crate) fn advance(&mut self, count: usize) {
        self.taken += count as u32;
        if self.is_empty() {
            *self = Self::default();
        } else if self.taken as usize > self.bytes.len() / 2 {
            self.bytes.drain(..self.taken as usize);
            self.taken = 0;
        }
    }
}
