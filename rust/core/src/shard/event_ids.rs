//! What an event stream comes back with: the id of its last event (WHATWG HTML §9.2.4), which says where it was in each of
//! its channels.
//!
//! A frame in a log has the id of its own place, which is all that a stream of one channel needs. A stream of several
//! is written to by the slow path alone. Each of its events gets one more `id` line, in place of its empty line: of
//! two, the last counts (§9.2.6). So an event that came whole says what came, and one that was cut off never was.
use std::fmt::Write;

use super::io::VECTORS_MAX;
use crate::channel::Channel;
use crate::http::gzip;
use crate::position::Position;
use crate::protocol::sse;

/// So much of an id at most. It returns in a request's head, of which proxies take a line of 8 KiB (nginx's
/// `large_client_header_buffers`). A longer one is not written: then only the last event's own channel is recovered.
const ID_BYTES_MAX: usize = 4 << 10;

/// And so many positions at most: each event costs as much time as it has positions, and others wait meanwhile.
pub(super) const POSITIONS_MAX: usize = 150;

/// Endings are made for a write until they are so many bytes.
const ENDINGS_BYTES_MAX: usize = 16 << 10;

/// Between the positions of an id.
const SEPARATOR: char = ',';

/// The positions in an id that came back; of one that is not ours, none.
pub(super) fn positions_in(id: &[u8], count_max: usize) -> Vec<Position> {
    let parts = std::str::from_utf8(id).unwrap_or("").split(SEPARATOR);
    parts.take(count_max).filter_map(|part| part.trim().parse().ok()).collect()
}

/// Where a stream of several channels is in each of them. One where it has got nothing yet, and waits for a keyframe, has no
/// place.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventIds {
    positions: Vec<Position>,
}

impl EventIds {
    pub(super) fn set(&mut self, position: Position) {
        match self.positions.iter_mut().find(|known| known.epoch == position.epoch) {
            Some(known) => *known = position,
            None => self.positions.push(position),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.positions.len()
    }

    /// Keeps the places in lives of these epochs.
    pub(super) fn retain(&mut self, keeps: impl Fn(u64) -> bool) {
        self.positions.retain(|known| keeps(known.epoch));
    }

    pub(super) fn forget(&mut self, channel: &Channel) {
        let epoch = channel.epoch();
        self.retain(|known| known != epoch);
    }

    /// Appends what ends an event instead of its empty line.
    fn write(&self, out: &mut Vec<u8>) {
        let mut id = String::with_capacity(self.positions.len() * 32);
        for position in &self.positions {
            if !id.is_empty() {
                id.push(SEPARATOR);
            }
            write!(id, "{position}").expect("a String takes all");
            if id.len() > ID_BYTES_MAX {
                return sse::write_ending(out, None);
            }
        }
        sse::write_ending(out, Some(&id));
    }

    /// As its own record, which is no event: where a gzip stream is, whose last record was cut and has a length.
    pub(super) fn record(&self) -> Vec<u8> {
        let (mut record, mut piece) = (Vec::new(), Vec::new());
        self.write(&mut record);
        gzip::write_stored(&mut piece, &record);
        piece
    }

    /// So much of labelled events went out: gives the rest of an ending, which goes before everything else.
    ///
    /// `cut` is the rest of a frame that is kept. Its ending takes the place of its last byte, and is given here.
    pub(super) fn note(&mut self, taken: Taken, cut: Option<&[u8]>) -> Vec<u8> {
        taken.positions.into_iter().for_each(|position| self.set(position));
        let mut rest = taken.rest;
        if let Some(cut) = cut {
            // Where the log no longer knows its frames, more follow in the same piece.
            sse::records(cut).skip(1).filter_map(position_of).for_each(|position| self.set(position));
            self.write(&mut rest);
        }
        rest
    }

    /// Takes frames for a write, as many as one call takes, each with an ending of its own where it has an id.
    pub(super) fn label<'a>(&self, slices: impl Iterator<Item = &'a [u8]>) -> Labelled<'a> {
        self.label_each(slices.flat_map(sse::records), |ids, frame, endings| {
            let position = position_of(frame);
            if let Some(position) = position {
                ids.set(position);
                ids.write(endings);
            }
            (position, frame.len() - usize::from(position.is_some()))
        })
    }

    /// The same, of a gzip stream. A record's length stands before it, so each that has an id is made anew, whole.
    pub(super) fn label_gzip<'a>(&self, slices: impl Iterator<Item = &'a [u8]>) -> Labelled<'a> {
        let mut record = Vec::new();
        self.label_each(slices.flat_map(pieces), |ids, frame, endings| {
            record.clear();
            gzip::contents(frame).for_each(|bytes| record.extend_from_slice(bytes));
            let Some(position) = position_of(&record) else { return (None, frame.len()) };
            ids.set(position);
            record.pop();
            ids.write(&mut record);
            gzip::write_stored(endings, &record);
            (Some(position), 0)
        })
    }

    /// `end` appends what ends a frame, and gives its place, if it has one, and how much of it goes out before.
    fn label_each<'a>(
        &self,
        frames: impl Iterator<Item = &'a [u8]>,
        mut end: impl FnMut(&mut Self, &[u8], &mut Vec<u8>) -> (Option<Position>, usize),
    ) -> Labelled<'a> {
        let mut labelled = Labelled { events: Vec::new(), endings: Vec::new() };
        let mut ids = self.clone();
        for frame in frames.take(VECTORS_MAX / 2) {
            let start = labelled.endings.len();
            if start > ENDINGS_BYTES_MAX {
                break; // most of it is for nothing where the socket takes little
            }
            let (position, kept) = end(&mut ids, frame, &mut labelled.endings);
            labelled.events.push(Event { frame, kept, position, ending: start..labelled.endings.len() });
        }
        labelled
    }
}

/// The frames of a gzip stream that were written one behind the other.
fn pieces(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (piece, rest) = gzip::split_piece(bytes)?;
        bytes = rest;
        Some(piece)
    })
}

/// The place of a frame, where it has an id.
fn position_of(frame: &[u8]) -> Option<Position> {
    sse::id_of(frame).and_then(|id| id.parse().ok())
}

/// One event on its way out.
struct Event<'a> {
    frame: &'a [u8],
    /// How much of it goes out before the ending.
    kept: usize,
    position: Option<Position>,
    ending: std::ops::Range<usize>,
}

impl Event<'_> {
    fn bytes(&self) -> usize {
        self.kept + self.ending.len()
    }
}

/// Events of one write, with their endings.
pub(super) struct Labelled<'a> {
    events: Vec<Event<'a>>,
    endings: Vec<u8>,
}

/// What a socket took of labelled events.
pub(super) struct Taken {
    /// Of the frames, with their last bytes.
    pub(super) frame_bytes: usize,
    /// Those that are out, the one last that was begun.
    positions: Vec<Position>,
    /// What goes before everything else: the rest of an ending.
    rest: Vec<u8>,
    /// The last one ends inside its frame, which has an ending that is still to come.
    pub(super) is_cut: bool,
    /// It ends where a frame does.
    pub(super) is_edge: bool,
}

impl Taken {
    /// What comes next is the rest of an event that was cut before it had an ending.
    pub(super) const CUT: Self =
        Self { frame_bytes: 0, positions: Vec::new(), rest: Vec::new(), is_cut: true, is_edge: false };
}

impl Labelled<'_> {
    pub(super) fn vectors(&self) -> Vec<&[u8]> {
        let mut vectors: Vec<&[u8]> = Vec::with_capacity(2 * self.events.len());
        for event in &self.events {
            vectors.push(&event.frame[..event.kept]);
            vectors.push(&self.endings[event.ending.clone()]);
        }
        vectors.retain(|part| !part.is_empty());
        vectors
    }

    /// What came of it that so many bytes went out.
    pub(super) fn taken(&self, written: usize) -> Taken {
        let mut taken = Taken { frame_bytes: 0, positions: Vec::new(), rest: Vec::new(), is_cut: false, is_edge: true };
        let mut left = written;
        for event in self.events.iter() {
            if left == 0 {
                break;
            }
            taken.positions.extend(event.position);
            if left < event.kept {
                taken.frame_bytes += left;
                (taken.is_cut, taken.is_edge) = (event.position.is_some(), false);
                break;
            }
            taken.frame_bytes += event.frame.len();
            if left < event.bytes() {
                taken.rest.extend_from_slice(&self.endings[event.ending.clone()][left - event.kept..]);
                break;
            }
            left -= event.bytes();
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_back_and_what_is_none_of_ours_is_none() {
        let (a, b) = (Position { epoch: 9, offset: 1 }, Position { epoch: 7, offset: 0 });
        assert_eq!(positions_in(b"9-1,7-0", 5), [a, b]);
        assert_eq!(positions_in(b"9-1, 7-0", 5), [a, b], "a proxy may have joined two headers");
        assert_eq!(positions_in(b"9-1,7-0", 1), [a]);
        assert_eq!(positions_in(b"x,9-1,", 5), [a]);
        for none in [&b""[..], b",", b"17", b"\xff", b"1-1-1"] {
            assert_eq!(positions_in(none, 5), [], "{none:?}");
        }
    }

    /// Wherever a write ends, the bytes that follow make whole what it began.
    #[test]
    fn every_cut_is_made_up_for() {
        let frames = [&b"id: 9-2\ndata: a\n\n"[..], b"data: none\n\n", b"id: 7-1\nevent: e\ndata: b\ndata:\n\n"];
        let ids = EventIds { positions: vec![Position { epoch: 9, offset: 1 }] };
        let all: Vec<u8> = frames.concat();
        let labelled = ids.label([&all[..17], &all[17..]].into_iter());
        let whole = labelled.vectors().concat();
        let expected = "id: 9-2\ndata: a\nid: 9-2\n\ndata: none\n\nid: 7-1\nevent: e\ndata: b\ndata:\nid: 9-2,7-1\n\n";
        assert_eq!(String::from_utf8_lossy(&whole), expected);
        for written in 0..=whole.len() {
            let taken = labelled.taken(written);
            let edges: Vec<usize> = (0..=3).map(|count| frames[..count].concat().len()).collect();
            let is_edge = edges.contains(&taken.frame_bytes);
            assert!(!taken.is_cut || !is_edge, "{written}");
            // What the slow path does with a frame that is cut: it keeps the rest, without the last byte here.
            let mut out = whole[..written].to_vec();
            let mut after = ids.clone();
            taken.positions.iter().for_each(|position| after.set(*position));
            let mut rest = taken.frame_bytes;
            if !is_edge {
                let end = *edges.iter().find(|&&edge| edge > rest).expect("the last one");
                out.extend_from_slice(&all[rest..end - usize::from(taken.is_cut)]);
                rest = end;
            }
            if taken.is_cut {
                after.write(&mut out);
            }
            out.extend_from_slice(&taken.rest);
            out.extend(after.label(std::iter::once(&all[rest..])).vectors().concat());
            assert_eq!(String::from_utf8_lossy(&out), expected, "cut at {written}");
        }
    }

    /// So they do in a gzip stream, of which each record is a piece.
    #[test]
    fn every_cut_of_a_gzip_stream_is_made_up_for() {
        let stored = |records: &[&str]| {
            let mut out = Vec::new();
            records.iter().for_each(|record| gzip::write_stored(&mut out, record.as_bytes()));
            out
        };
        let all = stored(&["id: 9-2\ndata: a\n\n", "data: none\n\n", "id: 7-1\ndata: b\n\n"]);
        let ids = EventIds { positions: vec![Position { epoch: 9, offset: 1 }] };
        let labelled = ids.label_gzip(std::iter::once(&all[..]));
        let whole = labelled.vectors().concat();
        let expected = ["id: 9-2\ndata: a\nid: 9-2\n\n", "data: none\n\n", "id: 7-1\ndata: b\nid: 9-2,7-1\n\n"];
        assert_eq!(whole, stored(&expected));
        for written in 0..=whole.len() {
            let taken = labelled.taken(written);
            assert!(!taken.is_cut, "a length stands before each");
            let mut after = ids.clone();
            taken.positions.iter().for_each(|position| after.set(*position));
            let mut out = [&whole[..written], &taken.rest].concat();
            let mut rest = taken.frame_bytes;
            let edges = [0, 1, 2, 3].map(|count| pieces(&all).take(count).map(<[u8]>::len).sum::<usize>());
            if !edges.contains(&rest) {
                let end = *edges.iter().find(|&&edge| edge > rest).expect("the last one");
                out.extend_from_slice(&all[rest..end]); // as the slow path does of what has no id
                rest = end;
            }
            out.extend(after.label_gzip(std::iter::once(&all[rest..])).vectors().concat());
            assert_eq!(out, whole, "cut at {written}");
        }
        assert_eq!(ids.record(), stored(&["id: 9-1\n\n"]));
    }

    #[test]
    fn an_id_that_is_too_long_is_left_out_and_the_events_own_remains() {
        let positions = (1..200).map(|offset| Position { epoch: u64::MAX - offset, offset }).collect();
        let labelled = EventIds { positions }.label(std::iter::once(&b"id: 9-2\ndata: a\n\n"[..]));
        assert_eq!(labelled.vectors().concat(), b"id: 9-2\ndata: a\n\n");
    }
}
