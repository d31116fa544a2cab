//! What is counted of what arrives: totals, the sequence on each connection and channel, ages.
//!
//! The hot path. A burst reaches a connection as many messages in one `read`, which share the time of arrival and
//! mostly the channel and the `ns` field: [`Batch`] remembers the last of both as bytes. So the digits are read and
//! the histogram is touched once for a run of equal ones. The result is the same as recording each message.

use hdrhistogram::Histogram;

use crate::completion::Completions;
use crate::histogram::latencies;
use crate::payload;

/// How a reply of fanwire's hub begins that answers no `id`.
const REPLY: &[u8] = b"{\"result\":";

/// What stands before the payload in an object.
const DATA: &[u8] = b"\"data\":\"";

/// No message of the channel has arrived yet on the connection.
const UNSEEN: u32 = u32::MAX;

/// One channel that one connection watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watch {
    pub(crate) channel: u32,
    /// The sequence number that comes next, or [`UNSEEN`].
    next: u32,
}

impl Watch {
    /// A channel of which nothing has arrived yet.
    pub(crate) fn new(channel: u32) -> Self {
        Self { channel, next: UNSEEN }
    }

    /// Lets the next message, whichever it is, fix where the sequence starts.
    pub(crate) fn reset(&mut self) {
        self.next = UNSEEN;
    }
}

/// The counters of one process since the last [`reset`](Tally::reset).
pub(crate) struct Tally {
    /// Well-formed messages of watched channels, whatever their sequence.
    pub(crate) received: u64,
    /// Places where a sequence jumped forward.
    pub(crate) gaps: u64,
    /// Publications that those jumps left out.
    pub(crate) missing: u64,
    /// Messages with a sequence number at or below one that had arrived: late or twice.
    pub(crate) reordered: u64,
    /// Frames and payloads that are not as they must be.
    pub(crate) malformed: u64,
    /// Texts that begin as [`REPLY`] does; `None` where they are malformed, too.
    pub(crate) replies: Option<u64>,
    /// Payloads may stand in objects.
    pub(crate) has_envelopes: bool,
    /// Messages of a channel that the connection does not watch.
    pub(crate) misrouted: u64,
    /// Connections that ended.
    pub(crate) closed: u64,
    /// First and last arrival; 0 before the first.
    pub(crate) first_ns: u64,
    pub(crate) last_ns: u64,
    /// Ages of messages since the last tick. [`end_interval`](Tally::end_interval) moves them to `latency`.
    pub(crate) interval: Histogram<u64>,
    /// Ages of messages up to the last tick.
    pub(crate) latency: Histogram<u64>,
    pub(crate) completions: Completions,
}

impl Tally {
    /// All zero, for channels 0 to `channels` - 1.
    pub(crate) fn new(channels: u32, listing: bool) -> Self {
        Self {
            received: 0,
            gaps: 0,
            missing: 0,
            reordered: 0,
            malformed: 0,
            replies: None,
            has_envelopes: false,
            misrouted: 0,
            closed: 0,
            first_ns: 0,
            last_ns: 0,
            interval: latencies(),
            latency: latencies(),
            completions: Completions::new(channels, listing),
        }
    }

    /// All zero again, the subscribers kept.
    pub(crate) fn reset(&mut self) {
        (self.received, self.gaps, self.missing, self.reordered) = (0, 0, 0, 0);
        (self.malformed, self.misrouted, self.closed) = (0, 0, 0);
        (self.first_ns, self.last_ns) = (0, 0);
        self.replies = self.replies.map(|_| 0);
        self.interval.reset();
        self.latency.reset();
        self.completions.reset();
    }

    /// Moves the ages of the interval to those of the whole.
    pub(crate) fn end_interval(&mut self) {
        self.latency.add(&self.interval).expect("both histograms have the same bounds");
        self.interval.reset();
    }
}

/// The messages of one connection in one `read`.
pub(crate) struct Batch<'a> {
    tally: &'a mut Tally,
    /// The channels of the connection, ascending.
    watches: &'a mut [Watch],
    /// Time of the read.
    now: u64,
    /// Messages counted in this batch.
    received: u32,
    /// The last channel field, and its place in `watches`.
    channel: [u8; 6],
    place: usize,
    /// The last `ns` field and its value, and how many messages had it since the histogram was last touched.
    ns: [u8; 20],
    ns_value: u64,
    run: u64,
}

impl<'a> Batch<'a> {
    /// For a connection that watches `watches`, read at `now`.
    pub(crate) fn new(tally: &'a mut Tally, watches: &'a mut [Watch], now: u64) -> Self {
        Self { tally, watches, now, received: 0, channel: [0; 6], place: 0, ns: [0; 20], ns_value: 0, run: 0 }
    }

    /// Counts and checks one message.
    #[inline]
    pub(crate) fn message(&mut self, payload: &[u8]) {
        let Some(fields) = payload::fields(payload) else { return self.no_payload(payload) };
        if *fields.ns != self.ns {
            let Some(ns) = fields.ns() else { return self.malformed() };
            self.end_run();
            (self.ns, self.ns_value) = (*fields.ns, ns);
        }
        if *fields.channel != self.channel {
            let Some(channel) = fields.channel() else { return self.malformed() };
            let Some(place) = place_of(self.watches, channel) else {
                self.tally.misrouted += 1;
                return;
            };
            (self.channel, self.place) = (*fields.channel, place);
        }
        let Some(sequence) = fields.sequence() else { return self.malformed() };
        self.received += 1;
        self.run += 1;
        let watch = &mut self.watches[self.place];
        if sequence != watch.next && watch.next != UNSEEN {
            if sequence < watch.next {
                self.tally.reordered += 1;
                return;
            }
            self.tally.gaps += 1;
            self.tally.missing += u64::from(sequence - watch.next);
        }
        watch.next = sequence + 1;
        self.tally.completions.arrived(watch.channel, sequence, self.ns_value, self.now);
    }

    /// Counts a text that is laid out otherwise.
    #[cold]
    fn no_payload(&mut self, text: &[u8]) {
        if self.tally.has_envelopes && text.starts_with(b"{") {
            return text.split(|&byte| byte == b'\n').filter_map(enveloped).for_each(|payload| self.message(payload));
        }
        match &mut self.tally.replies {
            Some(replies) if text.starts_with(REPLY) => *replies += 1,
            _ => self.malformed(),
        }
    }

    /// Counts a frame or payload that is not as it must be.
    #[cold]
    pub(crate) fn malformed(&mut self) {
        self.tally.malformed += 1;
    }

    fn end_run(&mut self) {
        if self.run > 0 {
            self.tally.interval.saturating_record_n(self.now.saturating_sub(self.ns_value), self.run);
            self.run = 0;
        }
    }

    /// Ends the batch; gives how many messages were counted.
    pub(crate) fn end(mut self) -> u32 {
        self.end_run();
        if self.received > 0 {
            self.tally.received += u64::from(self.received);
            self.tally.last_ns = self.now;
            if self.tally.first_ns == 0 {
                self.tally.first_ns = self.now;
            }
        }
        self.received
    }
}

/// The payload in an object; `None` where it has none.
fn enveloped(text: &[u8]) -> Option<&[u8]> {
    let begin = memchr::memmem::find(text, DATA)? + DATA.len();
    let length = memchr::memchr(b'"', &text[begin..])?;
    Some(&text[begin..begin + length])
}

/// Where a channel stands among those of a connection.
#[inline]
fn place_of(watches: &[Watch], channel: u32) -> Option<usize> {
    if watches.len() <= 16 {
        watches.iter().position(|watch| watch.channel == channel)
    } else {
        watches.binary_search_by_key(&channel, |watch| watch.channel).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(watched: &[u32], messages: &[(u64, u32, u64)]) -> Tally {
        let mut tally = Tally::new(100, false);
        let mut watches: Vec<_> = watched.iter().map(|&channel| Watch::new(channel)).collect();
        watched.iter().for_each(|&channel| tally.completions.subscribe(channel));
        let mut batch = Batch::new(&mut tally, &mut watches, 1_000_000);
        for &(sequence, channel, ns) in messages {
            let mut payload = Vec::new();
            payload::write(&mut payload, sequence, channel, ns, 64);
            batch.message(&payload);
        }
        batch.end();
        tally.end_interval();
        tally
    }

    #[test]
    fn contiguous_sequence_from_anywhere_has_no_gap() {
        let tally = counted(&[3], &[(7, 3, 1), (8, 3, 1), (9, 3, 1)]);
        assert_eq!((tally.received, tally.gaps, tally.reordered, tally.malformed), (3, 0, 0, 0));
        assert_eq!(tally.completions.histogram.len(), 3);
    }

    #[test]
    fn jump_is_one_gap_and_as_many_missing_as_it_left_out() {
        let tally = counted(&[3], &[(7, 3, 1), (10, 3, 1), (11, 3, 1)]);
        assert_eq!((tally.gaps, tally.missing, tally.reordered), (1, 2, 0));
    }

    #[test]
    fn late_and_repeated_messages_are_reordered_and_complete_nothing() {
        let tally = counted(&[3], &[(7, 3, 1), (7, 3, 1), (6, 3, 1), (8, 3, 1)]);
        assert_eq!((tally.received, tally.gaps, tally.reordered), (4, 0, 2));
        assert_eq!(tally.completions.histogram.len(), 2);
    }

    #[test]
    fn channels_of_one_connection_are_counted_apart() {
        let tally = counted(&[1, 5, 9], &[(0, 1, 1), (4, 9, 1), (1, 1, 1), (5, 9, 2), (2, 1, 2), (0, 5, 2)]);
        assert_eq!((tally.received, tally.gaps, tally.reordered, tally.misrouted), (6, 0, 0, 0));
    }

    #[test]
    fn message_of_a_channel_not_watched_is_misrouted() {
        let tally = counted(&[1], &[(0, 1, 1), (0, 2, 1), (1, 1, 1)]);
        assert_eq!((tally.received, tally.misrouted, tally.gaps), (2, 1, 0));
    }

    #[test]
    fn payloads_in_envelopes_are_read_line_by_line_and_other_objects_passed_over() {
        let mut tally = Tally::new(1, false);
        tally.has_envelopes = true;
        tally.completions.subscribe(0);
        let mut watches = [Watch::new(0)];
        let mut text = b"{\"connect\":{\"client\":\"a\"}}\n{}".to_vec();
        for sequence in 3..5 {
            text.extend_from_slice(b"\n{\"channel\":\"c0\",\"pub\":{\"data\":\"");
            payload::write(&mut text, sequence, 0, 1, 64);
            text.extend_from_slice(b"\"}}");
        }
        let mut batch = Batch::new(&mut tally, &mut watches, 9);
        batch.message(&text);
        batch.message(b"{\"pub\":{\"data\":\"what\"}}");
        batch.end();
        assert_eq!((tally.received, tally.gaps, tally.malformed), (2, 0, 1));
    }

    #[test]
    fn reply_is_malformed_unless_replies_are_counted() {
        let reply = br#"{"result":{"subscribed":["c0"],"recovered":{"c0":true},"positions":{"c0":[1764,41]}}}"#;
        for (counted, replies, malformed) in [(None, None, 2), (Some(0), Some(1), 1)] {
            let mut tally = Tally::new(1, false);
            tally.replies = counted;
            let mut batch = Batch::new(&mut tally, &mut [], 9);
            batch.message(reply);
            batch.message(br#"{"error":"internal error"}"#);
            assert_eq!(batch.end(), 0);
            assert_eq!((tally.received, tally.replies, tally.malformed), (0, replies, malformed));
            tally.reset();
            assert_eq!((tally.replies, tally.malformed), (counted, 0));
        }
    }

    #[test]
    fn ages_recorded_in_runs_are_those_of_each_message() {
        let tally = counted(&[0], &[(0, 0, 999_000), (1, 0, 999_000), (2, 0, 400_000), (3, 0, 999_000)]);
        let counts: Vec<_> = tally.latency.iter_recorded().map(|v| v.count_at_value()).collect();
        assert_eq!(counts, [3, 1]);
    }
}
