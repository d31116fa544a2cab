//! The shared buffer through one io_uring: batches of sends on registered files, silent where they succeed.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;

use io_uring::{IoUring, opcode, squeue, types};

/// One send that failed, or took only a part.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) descriptor: RawFd,
    pub(super) outcome: Result<usize, i32>,
}

/// One ring. Only the thread that made it may use it (`SINGLE_ISSUER`).
pub(super) struct Ring {
    ring: IoUring,
    batch: usize,
}

impl Ring {
    /// A ring that submits `batch` sends at a time, on descriptors below `files_max`.
    pub(super) fn new(batch: u32, files_max: u32) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_defer_taskrun()
            .build(batch.next_power_of_two())?;
        ring.submitter().register_files_sparse(files_max)?;
        Ok(Self { ring, batch: batch as usize })
    }

    /// Enters an open socket in the table of files, at its own number.
    pub(super) fn register(&mut self, descriptor: RawFd) -> io::Result<()> {
        self.ring.submitter().register_files_update(descriptor as u32, &[descriptor])?;
        Ok(())
    }

    /// Takes a socket out of the table, which holds it open otherwise.
    pub(super) fn unregister(&mut self, descriptor: RawFd) {
        // It fails only where nothing was entered.
        let _ = self.ring.submitter().register_files_update(descriptor as u32, &[-1]);
    }

    /// Sends `bytes` to all of `descriptors`, which are registered; adds what went wrong to `failures`.
    ///
    /// `MSG_DONTWAIT` makes each send end within the call that submits it. `MSG_WAITALL` makes a short one a failure, so
    /// that it is told in spite of `SKIP_SUCCESS`, with the count that it took.
    pub(super) fn send_to_all(
        &mut self,
        descriptors: &[RawFd],
        bytes: &[u8],
        failures: &mut Vec<Failure>,
    ) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        for part in descriptors.chunks(self.batch) {
            for &descriptor in part {
                let send = opcode::Send::new(types::Fixed(descriptor as u32), bytes.as_ptr(), length)
                    .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
                    .build()
                    .flags(squeue::Flags::SKIP_SUCCESS)
                    .user_data(descriptor as u64);
                // SAFETY: the kernel reads `bytes` only while it runs the send. With MSG_DONTWAIT that is within the
                // submit below: the kernel neither polls nor hands such a request to a worker. `bytes` is borrowed
                // beyond the loop that submits all of the queue.
                unsafe { self.ring.submission().push(&send) }.map_err(io::Error::other)?;
            }
            while !self.ring.submission().is_empty() {
                match self.ring.submit() {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            self.take_failures(failures);
        }
        Ok(())
    }

    fn take_failures(&mut self, failures: &mut Vec<Failure>) {
        for told in self.ring.completion() {
            let outcome = usize::try_from(told.result()).map_err(|_| -told.result());
            failures.push(Failure { descriptor: told.user_data() as RawFd, outcome });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    /// A ring, or `None` with a word where the kernel has none to give.
    fn ring() -> Option<Ring> {
        Ring::new(8, 1024).inspect_err(|error| eprintln!("skipped: no io_uring here: {error}")).ok()
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, client)
    }

    #[test]
    fn sends_that_succeed_say_nothing_and_arrive() {
        let Some(mut ring) = ring() else { return };
        let pairs: Vec<_> = (0..20).map(|_| pair()).collect();
        let descriptors: Vec<_> = pairs.iter().map(|(server, _)| server.as_raw_fd()).collect();
        descriptors.iter().for_each(|&descriptor| ring.register(descriptor).unwrap());
        let mut failures = Vec::new();
        ring.send_to_all(&descriptors, b"hello", &mut failures).unwrap();
        assert!(failures.is_empty(), "{failures:?}");
        for (_, mut client) in pairs {
            let mut bytes = [0; 5];
            client.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"hello");
        }
    }

    #[test]
    fn receiver_that_falls_behind_is_told_as_a_short_send_and_then_as_a_full_socket() {
        let Some(mut ring) = ring() else { return };
        let (server, _client) = pair();
        ring.register(server.as_raw_fd()).unwrap();
        let bytes = vec![0; 64 << 20];
        let mut failures = Vec::new();
        ring.send_to_all(&[server.as_raw_fd()], &bytes, &mut failures).unwrap();
        assert!(matches!(failures[..], [Failure { outcome: Ok(1..), .. }]), "{failures:?}");
        while !matches!(failures.last(), Some(Failure { outcome: Err(_), .. })) {
            ring.send_to_all(&[server.as_raw_fd()], &bytes, &mut failures).unwrap();
        }
        assert!(matches!(failures.last(), Some(Failure { outcome: Err(libc::EAGAIN), .. })), "{failures:?}");
    }

    #[test]
    fn socket_that_is_closed_is_told() {
        let Some(mut ring) = ring() else { return };
        let (server, client) = pair();
        ring.register(server.as_raw_fd()).unwrap();
        server.shutdown(std::net::Shutdown::Write).unwrap();
        let mut failures = Vec::new();
        ring.send_to_all(&[server.as_raw_fd()], b"hello", &mut failures).unwrap();
        assert!(matches!(failures[..], [Failure { outcome: Err(libc::EPIPE), .. }]), "{failures:?}");
        drop(client);
    }
}
