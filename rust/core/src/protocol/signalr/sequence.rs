//! Stateful reconnect's books: both ends number [trackable](super::HubMessage::is_trackable) messages from 1, and
//! after a reconnect go on where they were. The messages themselves are kept elsewhere.
//!
//! It follows what the reference does, which is not all that its specification says. After a reconnect each end sends
//! [`Sequence`](super::HubMessage::Sequence) with the id of its **first message that is not acked**, or of the next if
//! all are. Then it sends all from there again. The reference sends at most an ack a second, and stops sending at 100,000
//! bytes (`StatefulReconnectBufferSize`) that are not acked: a receiver does better to ack every 32 KiB (800 kB take
//! 9 ms, not 7.9 s).
use std::ops::RangeInclusive;

/// A number that the peer cannot know: its misdeed, the connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SequenceError {
    /// It goes on behind messages that never came.
    #[error("sequence begins at message {sequence_id}, expected at most {next_id}")]
    AboveNext {
        /// What it says.
        sequence_id: i64,
        /// The id of the first message that never came.
        next_id: i64,
    },
    /// It acks messages that were never sent. The reference takes it for all that were.
    #[error("ack of message {sequence_id}, only {sent} were sent")]
    AckAboveSent {
        /// What it says.
        sequence_id: i64,
        /// How many were sent.
        sent: i64,
    },
}

/// What one end has sent, and what of it the other has acked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SentSequence {
    /// The id of the last message, 0 before the first.
    sent: i64,
    /// The highest id acked; never above `sent`.
    acked: i64,
}

impl SentSequence {
    /// Nothing sent yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { sent: 0, acked: 0 }
    }

    /// A trackable message is sent for the first time; gives its id. It is to be kept until it is acked.
    pub const fn handle_sent(&mut self) -> i64 {
        self.sent += 1;
        self.sent
    }

    /// The peer acks all messages up to this one; gives the ids that need not be kept any longer, often none.
    ///
    /// # Errors
    /// [`SequenceError::AckAboveSent`]; nothing has changed.
    pub fn handle_ack(&mut self, sequence_id: i64) -> Result<RangeInclusive<i64>, SequenceError> {
        if sequence_id > self.sent {
            return Err(SequenceError::AckAboveSent { sequence_id, sent: self.sent });
        }
        let released = self.acked + 1..=sequence_id;
        self.acked = self.acked.max(sequence_id);
        Ok(released)
    }

    /// What the [`Sequence`](super::HubMessage::Sequence) of a new connection says, to be sent before all else.
    #[must_use]
    pub const fn sequence_id(&self) -> i64 {
        self.acked + 1
    }

    /// The ids of the messages that follow it, to be sent again in this order; empty if all are acked.
    #[must_use]
    pub const fn unacked(&self) -> RangeInclusive<i64> {
        self.acked + 1..=self.sent
    }
}

/// What to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Process it.
    Process,
    /// Skip it: it came a second time, or between a reconnect and its Sequence.
    Skip,
}

/// What one end has received, and what of it has been acked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedSequence {
    /// The id of the next trackable message.
    next: i64,
    /// The highest id received, 0 before the first.
    latest: i64,
    /// The highest id acked.
    acked: i64,
    /// Whether the connection is new and its Sequence has not come.
    waits_for_sequence: bool,
}

impl Default for ReceivedSequence {
    fn default() -> Self {
        Self::new()
    }
}

impl ReceivedSequence {
    /// Nothing received yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { next: 1, latest: 0, acked: 0, waits_for_sequence: false }
    }

    /// The peer has a new connection: all it sends is skipped up to its Sequence, which it is to send first.
    ///
    /// Clients do so. The reference's server (10.0) does not wait: without this call what comes before is processed.
    pub const fn handle_reconnected(&mut self) {
        self.waits_for_sequence = true;
    }

    /// Any message but a Sequence came, trackable or not.
    #[must_use]
    pub const fn handle_message(&mut self, is_trackable: bool) -> Verdict {
        if self.waits_for_sequence {
            return Verdict::Skip;
        }
        if !is_trackable {
            return Verdict::Process;
        }
        let id = self.next;
        self.next += 1;
        if id <= self.latest {
            return Verdict::Skip;
        }
        self.latest = id;
        Verdict::Process
    }

    /// A Sequence came, expected or not: the next trackable message has this id.
    ///
    /// The reference compares it with its counter alone. So it refuses its peer where a second reconnect comes after an
    /// ack, but before the end of what the first one sent again. Here it may go on behind all that ever came.
    ///
    /// # Errors
    /// [`SequenceError::AboveNext`]; nothing has changed.
    pub const fn handle_sequence(&mut self, sequence_id: i64) -> Result<(), SequenceError> {
        let next_id = self.latest + 1;
        if sequence_id > next_id {
            return Err(SequenceError::AboveNext { sequence_id, next_id });
        }
        self.next = sequence_id;
        self.waits_for_sequence = false;
        if self.acked >= sequence_id {
            // The ack that said more was lost with the old connection.
            self.acked = if sequence_id > 0 { sequence_id - 1 } else { 0 };
        }
        Ok(())
    }

    /// Whether an ack would say something new.
    #[must_use]
    pub const fn owes_ack(&self) -> bool {
        self.acked < self.latest
    }

    /// What an ack sent now says, or `None` if it has been said. It counts as sent.
    pub const fn poll_ack(&mut self) -> Option<i64> {
        if self.acked >= self.latest {
            return None;
        }
        self.acked = self.latest;
        Some(self.acked)
    }
}
