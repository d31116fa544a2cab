//! Many sends in one system call, by io_uring.
//!
//! Every send carries `MSG_DONTWAIT`: it is done when the submission returns and never waits in the kernel, so the
//! bytes need to live only for the call. With `MSG_WAITALL` and `CQE_SKIP_SUCCESS` the kernel reports only sends that
//! came short or failed (io_uring_enter(2), io_uring_prep_send(3)): nothing is reaped in the good case.
#![allow(unsafe_code)] // the poller room: submission entries point at slices of the caller's
use std::io;
use std::os::fd::RawFd;

use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, opcode, types};

use crate::shard::io::{Member, Short, Write};

/// Sends in one submission. 128 entries of 64 bytes stay in the first-level cache.
const BATCH: usize = 128;
/// Slots that may have a registered descriptor; the rest go by number.
const FILES_MAX: u32 = 32_768;
/// Descriptors that wait for their places at most: each that leaves is looked for among them.
const WAITING_MAX: usize = 64;
const SEND_FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | libc::MSG_WAITALL;

/// The ring of one shard: single issuer, completions run when we ask.
pub(super) struct Ring {
    ring: IoUring,
    /// Slots below this have a place in the registered files.
    files: u32,
    /// What is to be put into its place before the next batch: whoever logs in is rarely written to in one at once.
    waiting: Vec<(u32, RawFd)>,
    headers: Vec<libc::msghdr>,
    vectors: Vec<libc::iovec>,
}

impl Ring {
    pub(super) fn new() -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(4 * BATCH as u32)
            .build(BATCH as u32)?;
        let files = [FILES_MAX, 16_384, 1_000]
            .into_iter()
            .find(|&files| ring.submitter().register_files_sparse(files).is_ok())
            .unwrap_or(0);
        Ok(Self { ring, files, waiting: Vec::new(), headers: Vec::new(), vectors: Vec::new() })
    }

    /// Puts a descriptor into a slot's place, before the next batch at the latest.
    pub(super) fn register(&mut self, slot: u32, fd: RawFd) {
        if slot < self.files {
            self.waiting.push((slot, fd));
            if self.waiting.len() == WAITING_MAX {
                self.settle();
            }
        }
    }

    /// Empties a slot's place, at once: what stands there keeps its socket open.
    pub(super) fn unregister(&mut self, slot: u32) {
        if slot >= self.files {
            return;
        }
        match self.waiting.iter().position(|&(other, _)| other == slot) {
            Some(index) => drop(self.waiting.swap_remove(index)),
            None => self.put(slot, &[-1]),
        }
    }

    /// Puts all that waits into its places: slots that follow one another in one call.
    fn settle(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.sort_unstable();
        for run in waiting.chunk_by(|(one, _), (next, _)| one + 1 == *next) {
            let mut fds = [-1; WAITING_MAX];
            fds.iter_mut().zip(run).for_each(|(place, &(_, fd))| *place = fd);
            self.put(run[0].0, &fds[..run.len()]);
        }
        waiting.clear();
        self.waiting = waiting;
    }

    fn put(&self, slot: u32, fds: &[RawFd]) {
        // It can only fail for a bad descriptor or place; then sends to the slot fail with EBADF and close it.
        let _ = self.ring.submitter().register_files_update(slot, fds);
    }

    pub(super) fn send_all(&mut self, members: &[Member], bytes: &[u8], shorts: &mut Vec<Short>) {
        self.settle();
        for batch in members.chunks(BATCH) {
            for (index, member) in batch.iter().enumerate() {
                let entry = self.send_entry(member.slot, member.fd, bytes);
                self.push(entry, index);
            }
            self.submit(|index| batch[index].slot, shorts);
        }
    }

    fn send_entry(&self, slot: u32, fd: RawFd, bytes: &[u8]) -> Entry {
        let (pointer, length) = (bytes.as_ptr(), bytes.len() as u32);
        if slot < self.files {
            opcode::Send::new(types::Fixed(slot), pointer, length).flags(SEND_FLAGS).build()
        } else {
            opcode::Send::new(types::Fd(fd), pointer, length).flags(SEND_FLAGS).build()
        }
    }

    pub(super) fn write_batch(&mut self, writes: &[Write], vectors: &[&[u8]], shorts: &mut Vec<Short>) {
        self.settle();
        self.vectors.clear();
        self.vectors.extend(
            vectors
                .iter()
                .map(|vector| libc::iovec { iov_base: vector.as_ptr().cast_mut().cast(), iov_len: vector.len() }),
        );
        for batch in writes.chunks(BATCH) {
            self.headers.clear();
            for write in batch {
                // SAFETY: all zeros is a valid msghdr: no name, no control, no vectors.
                let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
                header.msg_iov = &raw mut self.vectors[write.vectors_start as usize];
                header.msg_iovlen = write.vectors_count as usize;
                self.headers.push(header);
            }
            for (index, write) in batch.iter().enumerate() {
                let entry = if let [alone] = &vectors[write.vectors_start as usize..][..write.vectors_count as usize] {
                    self.send_entry(write.slot, write.fd, alone)
                } else {
                    self.vectors_entry(write, index)
                };
                self.push(entry, index);
            }
            self.submit(|index| batch[index].slot, shorts);
        }
        self.vectors.clear();
    }

    fn vectors_entry(&self, write: &Write, index: usize) -> Entry {
        let header = &raw const self.headers[index];
        if write.slot < self.files {
            opcode::SendMsg::new(types::Fixed(write.slot), header).flags(SEND_FLAGS as u32).build()
        } else {
            opcode::SendMsg::new(types::Fd(write.fd), header).flags(SEND_FLAGS as u32).build()
        }
    }

    fn push(&mut self, entry: Entry, index: usize) {
        let entry = entry.flags(Flags::SKIP_SUCCESS).user_data(index as u64);
        // SAFETY: what the entry points at (slice, header, vectors) lives until `submit` returns, and by MSG_DONTWAIT
        // the kernel is done with it then.
        unsafe { self.ring.submission().push(&entry) }
            .expect("a batch is no larger than the ring, which was submitted");
    }

    /// Enters the kernel once and reports what came short.
    fn submit(&mut self, slot_of: impl Fn(usize) -> u32, shorts: &mut Vec<Short>) {
        while !self.ring.submission().is_empty() {
            match self.ring.submit() {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY)) => {
                    std::thread::yield_now(); // the kernel lacks memory for requests right now
                }
                Err(error) => panic!("io_uring refuses well-formed sends: {error}"),
            }
        }
        for completion in self.ring.completion() {
            let slot = slot_of(completion.user_data() as usize);
            shorts.push(Short::from_result(slot, completion.result() as isize));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn member(slot: u32, socket: &UnixStream) -> Member {
        Member { fd: socket.as_raw_fd(), slot, subscription: 0 }
    }

    fn ended(peer: &mut UnixStream) -> bool {
        peer.read(&mut [0; 8]).expect("its other end is closed") == 0
    }

    #[test]
    fn who_is_to_be_registered_is_before_the_next_batch_and_who_leaves_keeps_nothing_open() {
        let Ok(mut ring) = Ring::new() else { return }; // the kernel gives none
        let [mut one, mut gone, mut other] = [(); 3].map(|()| UnixStream::pair().expect("sockets"));
        for (slot, pair) in [(7, &other), (0, &one), (1, &gone)] {
            ring.register(slot, pair.0.as_raw_fd());
        }
        ring.unregister(1);
        drop(gone.0);
        assert!(ended(&mut gone.1), "it waited for its place");
        let mut shorts = Vec::new();
        ring.send_all(&[member(0, &one.0), member(7, &other.0)], b"hello", &mut shorts);
        for peer in [&mut one.1, &mut other.1] {
            let mut read = [0; 5];
            peer.read_exact(&mut read).expect("it was sent");
            assert_eq!(&read, b"hello");
        }
        assert!(shorts.is_empty() && ring.waiting.is_empty());
        ring.unregister(0);
        drop(one.0);
        assert!(ended(&mut one.1), "it had its place");
        (100..100 + WAITING_MAX as u32 + 2).for_each(|slot| ring.register(slot, other.0.as_raw_fd()));
        assert_eq!(ring.waiting.len(), 2, "no more wait than are looked through");
    }
}
