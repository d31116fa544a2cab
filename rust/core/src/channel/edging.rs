//! A publication as a frame for edges: hubs that pass on what this one has, at the same positions.
//!
//! A binary frame: a byte that says what it is, the channel behind its length, epoch, offset of the publication before it,
//! its own, milliseconds since 1970, and the publication as `crossing` has it. Little-endian. `node::edging` reads it.
use super::mark::{FrameKind, FrameMark};
use super::{Channel, Inner, Publication, Tags, write_publication};
use crate::bytes::{put_bytes, put_u64};
use crate::clock::unix_ms_of;
use crate::protocol::{Encoded, Encoding, Format, Framing, Payload, json_to_msgpack, raw};

/// What a frame begins with.
pub(crate) const PUBLICATION: u8 = 1;

impl Channel {
    /// Makes a publication a frame for edges. False where it is none: nobody outside knows the channel.
    pub(super) fn write_for_edges(
        &self,
        format: Format,
        inner: &Inner,
        (payload, event, key): (&Payload<'_>, Option<&str>, Option<&str>),
        (mark, tags): (&FrameMark, Tags<'_>),
        frame: &mut Vec<u8>,
    ) -> bool {
        if format.framing() != Framing::Edge || !self.is_listed {
            return false;
        }
        // It was kept before anybody spoke MessagePack; the edge has clients that may.
        let mut msgpack = Vec::new();
        let mut payload = *payload;
        if format.encoding() == Encoding::Msgpack
            && let Payload::Object(encoded) | Payload::Arguments(encoded) = &mut payload
            && let Encoded { json: Some(json), msgpack: None, .. } = *encoded
        {
            let written = str::from_utf8(json).is_ok_and(|json| json_to_msgpack(json, &mut msgpack).is_ok());
            encoded.msgpack = written.then_some(&msgpack);
            encoded.hub_msgpack = encoded.hub_msgpack.or(encoded.msgpack);
        }
        let life = self.life(inner);
        let publication = Publication {
            event,
            key,
            ttl_ns: (mark.expires_ns != u64::MAX).then(|| mark.expires_ns - mark.published_ns),
            is_keyframe: mark.kind == FrameKind::Keyframe,
            is_snapshot: mark.kind == FrameKind::Snapshot,
            is_removal: mark.kind == FrameKind::Removal,
            tags,
            ..Publication::new(payload)
        };
        let (previous, position) = (life.previous_of(mark.offset), life.position_of(mark.offset));
        let mut bytes = vec![PUBLICATION];
        put_bytes(&mut bytes, self.name.as_bytes());
        for number in [position.epoch, previous.offset, position.offset, unix_ms_of(mark.published_ns)] {
            put_u64(&mut bytes, number);
        }
        write_publication(&publication, &mut bytes);
        raw::write_binary(frame, &bytes);
        true
    }
}
