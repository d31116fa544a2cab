//! What waits for one peer: bytes of its own, and frames that several wait for, in order. No socket.
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::sync::Arc;

use crate::bounds::TURN_BYTES_MAX;
use crate::frame::{HEAD_BYTES, put};

/// Frames are gathered up to that much in one piece of memory.
const CHUNK_BYTES: usize = 64 << 10;

/// How many pieces go into one write at most.
const SLICES_MAX: usize = 64;

#[derive(Debug)]
enum Chunk {
    Own(Vec<u8>),
    Shared(Arc<[u8]>),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// What waits for one peer.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    chunks: VecDeque<Chunk>,
    /// How much of the first chunk is written.
    written: usize,
    /// What waits, in all.
    bytes: usize,
    /// An empty chunk, so that a peer that keeps up needs no new memory.
    spare: Vec<u8>,
}

impl Outbox {
    /// How many bytes wait.
    pub(crate) fn waiting(&self) -> usize {
        self.bytes
    }

    /// Appends a frame.
    pub(crate) fn push(&mut self, frame: &[u8]) {
        let record_bytes = HEAD_BYTES + frame.len();
        self.bytes += record_bytes;
        if let Some(Chunk::Own(last)) = self.chunks.back_mut()
            && last.len() + record_bytes <= CHUNK_BYTES
        {
            return put(last, frame);
        }
        let mut chunk = std::mem::take(&mut self.spare);
        put(&mut chunk, frame);
        self.chunks.push_back(Chunk::Own(chunk));
    }

    /// Appends a frame that is written out with its length, and that others have, too.
    pub(crate) fn push_shared(&mut self, record: Arc<[u8]>) {
        self.bytes += record.len();
        self.chunks.push_back(Chunk::Shared(record));
    }

    /// Forgets what waits.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Writes what waits, in one call and [`TURN_BYTES_MAX`] at most; gives whether something waits still.
    ///
    /// # Errors
    /// The system's. A socket that takes nothing now is none.
    pub(crate) fn write_to(&mut self, mut to: impl Write) -> io::Result<bool> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let (mut count, mut room, mut skipped) = (0, TURN_BYTES_MAX, self.written);
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            let bytes = &chunk.bytes()[std::mem::take(&mut skipped)..];
            *slice = IoSlice::new(&bytes[..bytes.len().min(room)]);
            room -= slice.len();
            count += 1;
            if room == 0 {
                break;
            }
        }
        if count > 0 {
            match to.write_vectored(&slices[..count]) {
                Ok(written) => self.advance(written),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.bytes > 0)
    }

    fn advance(&mut self, written: usize) {
        self.bytes -= written;
        self.written += written;
        while let Some(chunk) = self.chunks.front()
            && self.written >= chunk.bytes().len()
        {
            self.written -= chunk.bytes().len();
            if let Some(Chunk::Own(mut chunk)) = self.chunks.pop_front()
                && chunk.capacity() <= 2 * CHUNK_BYTES
            {
                chunk.clear();
                self.spare = chunk;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes of each write, in turn; with 0 it is full.
    struct Socket {
        takes: Vec<usize>,
        writes: usize,
        bytes: Vec<u8>,
    }

    impl Write for &mut Socket {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            unreachable!("everything goes out in joined writes")
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            let take = self.takes[self.writes % self.takes.len()];
            self.writes += 1;
            if take == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            let before = self.bytes.len();
            let offered: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            self.bytes.extend(&offered[..take.min(offered.len())]);
            Ok(self.bytes.len() - before)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn socket(takes: &[usize]) -> Socket {
        Socket { takes: takes.to_vec(), writes: 0, bytes: Vec::new() }
    }

    #[test]
    fn everything_goes_out_in_order_however_little_the_socket_takes() {
        let (mut outbox, mut expected) = (Outbox::default(), Vec::new());
        for number in 0..500_usize {
            let frame = vec![number as u8; number * 37 % 3_000];
            put(&mut expected, &frame);
            if number.is_multiple_of(3) {
                let mut record = Vec::new();
                put(&mut record, &frame);
                outbox.push_shared(record.into());
            } else {
                outbox.push(&frame);
            }
            assert_eq!(outbox.waiting(), expected.len());
        }
        let mut to = socket(&[1, 0, 5, 4_096, 100_000]);
        while outbox.write_to(&mut to).expect("it does not break") {
            assert_eq!(outbox.waiting(), expected.len() - to.bytes.len());
        }
        assert_eq!(to.bytes, expected);
    }

    #[test]
    fn what_was_gathered_goes_out_in_one_write() {
        let (mut outbox, mut to) = (Outbox::default(), socket(&[usize::MAX]));
        (0..1_000).for_each(|_| outbox.push(&[7; 100]));
        assert!(!outbox.write_to(&mut to).expect("it does not break"));
        assert_eq!((to.writes, to.bytes.len()), (1, 104_000));
        outbox.push(&vec![0; TURN_BYTES_MAX]);
        assert!(outbox.write_to(&mut to).expect("it does not break"), "a turn's part and no more");
        assert_eq!(outbox.waiting(), HEAD_BYTES);
    }
}
