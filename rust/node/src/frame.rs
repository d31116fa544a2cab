//! Frames in a stream of bytes: a length of four bytes, little-endian, and so many bytes. No socket.
use crate::bounds::KEPT_BYTES_MAX;

/// What stands before a frame's bytes.
pub(crate) const HEAD_BYTES: usize = 4;

/// Appends `frame` with its length, which is below 4 GiB: its bound was looked at.
pub(crate) fn put(buffer: &mut Vec<u8>, frame: &[u8]) {
    let length = u32::try_from(frame.len()).expect("a frame's bound is below 4 GiB");
    buffer.reserve(HEAD_BYTES + frame.len());
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(frame);
}

/// What one end of a connection has read of a frame that is not whole yet.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    partial: Vec<u8>,
}

impl Inbox {
    /// Takes what was read, and gives each frame that is whole by now to `each`, in order and without a copy of those that
    /// were not cut. Goes on until `each` refuses one, or says by `false` that the others have to wait: for the next call,
    /// which may bring no bytes. Gives whether none waits.
    ///
    /// Nothing is reserved for a length that is only said: memory grows with what has come.
    ///
    /// # Errors
    /// A length over `frame_bytes_max`, with both numbers; or what `each` said.
    pub(crate) fn take(
        &mut self,
        mut bytes: &[u8],
        frame_bytes_max: usize,
        mut each: impl FnMut(&[u8]) -> Result<bool, String>,
    ) -> Result<bool, String> {
        let (mut taken, mut goes_on) = (0, true);
        while goes_on && let Some(end) = whole(&self.partial[taken..], frame_bytes_max)? {
            goes_on = each(&self.partial[taken + HEAD_BYTES..taken + end])?;
            taken += end;
        }
        self.partial.drain(..taken);
        if goes_on && !self.partial.is_empty() {
            self.grow(HEAD_BYTES, &mut bytes);
            let Some(end) = end_of(&self.partial, frame_bytes_max)? else { return Ok(true) };
            self.grow(end, &mut bytes);
            if self.partial.len() < end {
                return Ok(true);
            }
            goes_on = each(&self.partial[HEAD_BYTES..])?;
            self.partial.clear();
            self.partial.shrink_to(KEPT_BYTES_MAX);
        }
        while goes_on && let Some(end) = whole(bytes, frame_bytes_max)? {
            let (record, rest) = bytes.split_at(end);
            goes_on = each(&record[HEAD_BYTES..])?;
            bytes = rest;
        }
        self.partial.extend_from_slice(bytes);
        Ok(goes_on)
    }

    /// How many bytes of a frame have come whose rest has not.
    pub(crate) fn cut_bytes(&self) -> usize {
        self.partial.len()
    }

    /// Moves bytes from the front of `bytes` until `end` of them are here.
    fn grow(&mut self, end: usize, bytes: &mut &[u8]) {
        let missing = end.saturating_sub(self.partial.len()).min(bytes.len());
        let (more, rest) = bytes.split_at(missing);
        self.partial.extend_from_slice(more);
        *bytes = rest;
    }
}

/// Where the frame ends that begins `bytes`, or `None` while its length is not here.
fn end_of(bytes: &[u8], frame_bytes_max: usize) -> Result<Option<usize>, String> {
    let Some(head) = bytes.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    let length = u32::from_le_bytes(*head) as usize;
    if length > frame_bytes_max {
        return Err(format!("it sends a frame of {length} bytes; {frame_bytes_max} it may have"));
    }
    Ok(Some(HEAD_BYTES + length))
}

/// Where the frame ends that begins `bytes`, if all of it is here.
fn whole(bytes: &[u8], frame_bytes_max: usize) -> Result<Option<usize>, String> {
    Ok(end_of(bytes, frame_bytes_max)?.filter(|end| *end <= bytes.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_wherever_they_are_cut(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            cuts in prop::collection::vec(1..200_usize, 1..40),
            rests in prop::collection::vec(any::<bool>(), 1..10),
        ) {
            let mut stream = Vec::new();
            frames.iter().for_each(|frame| put(&mut stream, frame));
            let (mut inbox, mut found, mut rest) = (Inbox::default(), Vec::new(), &stream[..]);
            let (mut cuts, mut rests) = (cuts.into_iter().cycle(), rests.into_iter().cycle());
            let mut has_all = false;
            while !(rest.is_empty() && has_all) {
                // Where frames wait, more may come or not.
                let (now, later) = rest.split_at(cuts.next().expect("a cycle").min(rest.len()));
                let each = |frame: &[u8]| { found.push(frame.to_vec()); Ok(rests.next().expect("a cycle")) };
                has_all = inbox.take(now, 300, each).expect("none is too long") || found.len() == frames.len();
                rest = later;
            }
            prop_assert_eq!(found, frames);
            prop_assert_eq!(inbox.cut_bytes(), 0);
        }
    }

    #[test]
    fn a_length_over_the_bound_is_refused_before_its_bytes_have_come() {
        let mut inbox = Inbox::default();
        let refused = inbox.take(b"\xff\xff\xff\xffGET", 10, |_| Ok(true)).expect_err("4 GiB are too many");
        assert_eq!(refused, "it sends a frame of 4294967295 bytes; 10 it may have");
        let mut inbox = Inbox::default();
        assert_eq!(inbox.take(b"\x0b\0\0", 10, |_| Ok(true)), Ok(true));
        let refused = inbox.take(b"\0", 10, |_| Ok(true)).expect_err("eleven are too many");
        assert_eq!(refused, "it sends a frame of 11 bytes; 10 it may have");
    }

    #[test]
    fn one_that_is_refused_is_the_last() {
        let mut stream = Vec::new();
        [b"a", b"b", b"c"].iter().for_each(|frame| put(&mut stream, *frame));
        let mut found = Vec::new();
        let refused = Inbox::default().take(&stream, 10, |frame| {
            found.push(frame.to_vec());
            if frame == b"b" { Err("no b".to_owned()) } else { Ok(true) }
        });
        assert_eq!((refused, found), (Err("no b".to_owned()), vec![b"a".to_vec(), b"b".to_vec()]));
    }
}
