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
const SEND_FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | libc::MSG_WAITALL;

/// The ring of one shard: single issuer, completions run when we ask.
pub(super) struct Ring {
    ring: IoUring,
    /// Slots below this have a place in the registered files.
    files: u32,
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
        Ok(Self { ring, files, headers: Vec::new(), vectors: Vec::new() })
    }

    /// Puts a descriptor into a slot's place, or -1 to empty it.
    pub(super) fn register(&mut self, slot: u32, fd: RawFd) {
        if slot < self.files {
            // It can only fail for a bad descriptor or place; then sends to the slot fail with EBADF and close it.
            let _ = self.ring.submitter().register_files_update(slot, &[fd]);
        }
    }

    pub(super) fn send_all(&mut self, members: &[Member], bytes: &[u8], shorts: &mut Vec<Short>) {
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
