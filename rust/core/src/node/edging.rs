//! What comes to an edge of the hub that it passes on: its frames as records of an engine outside.
use super::backbone::Record;
use crate::bytes::Reader;
use crate::channel::PUBLICATION;
use crate::position::Position;

/// What an edge asks for in its handshake, as a subprotocol: publications with objects as JSON, or as MessagePack, too.
/// Another way to write them has another number.
pub const EDGE_SUBPROTOCOLS: [&str; 2] = ["fanwire.edge.1", "fanwire.edge.1.msgpack"];

/// The number of whose publications these are: of no machine. Who is excluded from one is a connection elsewhere.
const NOBODY: [u8; 8] = [0; 8];

/// Reads the payload of a binary frame for edges: the channel, and the publication there. A snapshot, which is for newcomers
/// alone, has the position of the publication before it.
#[must_use]
pub fn read_for_edges(bytes: &[u8]) -> Option<(&str, Record)> {
    let mut reader = Reader(bytes);
    if reader.u8()? != PUBLICATION {
        return None;
    }
    let channel = reader.text()?;
    let (epoch, previous, offset, published_ms) = (reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?);
    let (previous, position) = (Position { epoch, offset: previous }, Position { epoch, offset });
    let bytes = [&NOBODY, reader.rest()].concat();
    let is_sound = epoch != 0 && previous.offset <= offset;
    is_sound.then_some((channel, Record { previous, position, published_ms, bytes }))
}
