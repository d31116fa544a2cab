//! A publication as bytes, on its way from the process that publishes to those whose clients get it.
use super::stored;
use super::{Publication, Tags};
use crate::bytes::{Reader, put_bytes, put_u64};
use crate::connection_id::ConnectionId;

const KEY: u8 = 1;
const TTL: u8 = 2;
const KEYFRAME: u8 = 4;
/// Of the flags, which come first: it is for newcomers alone.
pub(crate) const SNAPSHOT: u8 = 8;
const REMOVAL: u8 = 16;
const EXCLUDED: u8 = 32;
const TAGS: u8 = 64;

/// Appends all of a publication, in each encoding that it has.
pub fn write_publication(publication: &Publication<'_>, out: &mut Vec<u8>) {
    let Publication { payload, event, key, ttl_ns, is_keyframe, is_snapshot, is_removal, excluded, tags } =
        *publication;
    let flag = |bit, is_set| if is_set { bit } else { 0 };
    out.push(
        flag(KEY, key.is_some())
            | flag(TTL, ttl_ns.is_some())
            | flag(KEYFRAME, is_keyframe)
            | flag(SNAPSHOT, is_snapshot)
            | flag(REMOVAL, is_removal)
            | flag(EXCLUDED, !excluded.is_empty())
            | flag(TAGS, !tags.is_empty()),
    );
    if let Some(key) = key {
        put_bytes(out, key.as_bytes());
    }
    if let Some(ttl_ns) = ttl_ns {
        put_u64(out, ttl_ns);
    }
    if !excluded.is_empty() {
        write_ids(excluded, out);
    }
    if !tags.is_empty() {
        put_bytes(out, tags.bytes());
    }
    stored::write(&payload, event, out);
}

/// What [`write_publication`] wrote, handed to `act`; `None` if these bytes are no publication.
pub fn read_publication<R>(bytes: &[u8], act: impl FnOnce(&Publication<'_>) -> R) -> Option<R> {
    let mut reader = Reader(bytes);
    let flags = reader.u8()?;
    let has = |bit| flags & bit != 0;
    let key = if has(KEY) { Some(reader.text()?) } else { None };
    let ttl_ns = if has(TTL) { Some(reader.u64()?) } else { None };
    let excluded = if has(EXCLUDED) { read_ids(&mut reader)? } else { Vec::new() };
    let tags = if has(TAGS) { Tags::read(reader.bytes()?)? } else { Tags::default() };
    let (payload, event, rest) = stored::read_foreign(reader.0)?;
    let (is_keyframe, is_snapshot, is_removal) = (has(KEYFRAME), has(SNAPSHOT), has(REMOVAL));
    let excluded = &excluded;
    let publication = Publication { payload, event, key, ttl_ns, is_keyframe, is_snapshot, is_removal, excluded, tags };
    rest.is_empty().then(|| act(&publication))
}

/// Appends ids behind their number.
pub(super) fn write_ids(ids: &[ConnectionId], out: &mut Vec<u8>) {
    crate::bytes::put_u32(out, ids.len() as u32);
    ids.iter().for_each(|id| put_u64(out, id.to_bits()));
}

/// Reads what [`write_ids`] wrote.
pub(super) fn read_ids(reader: &mut Reader<'_>) -> Option<Vec<ConnectionId>> {
    let count = reader.count(8)?;
    (0..count).map(|_| reader.u64().map(ConnectionId::from_bits)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Encoded, Payload};

    #[test]
    fn every_publication_comes_back_and_no_part_of_one_is_one() {
        let tagged = super::super::tags::tests::tags(r#"{"league":"seriea","odds":1.5,"live":true}"#);
        let ids = [ConnectionId::from_bits(7), ConnectionId::from_bits(u64::MAX)];
        let object = Payload::Object(Encoded { json: Some(b"1"), hub_json: Some(b"\"1\""), ..Encoded::default() });
        for (payload, event) in [(Payload::Text("t"), Some("e")), (Payload::Binary(b""), None), (object, None)] {
            for bits in 0..128_u8 {
                let publication = Publication {
                    payload,
                    event,
                    key: (bits & 1 != 0).then_some("k"),
                    ttl_ns: (bits & 2 != 0).then_some(5),
                    is_keyframe: bits & 4 != 0,
                    is_snapshot: bits & 8 != 0,
                    is_removal: bits & 16 != 0,
                    excluded: if bits & 32 != 0 { &ids } else { &[] },
                    tags: if bits & 64 != 0 { Tags::read(&tagged).expect("tags") } else { Tags::default() },
                };
                let mut bytes = Vec::new();
                write_publication(&publication, &mut bytes);
                let same = read_publication(&bytes, |read| assert_eq!(format!("{read:?}"), format!("{publication:?}")));
                assert_eq!(same, Some(()));
                for end in 0..bytes.len() {
                    let cut = read_publication(&bytes[..end], |_| ());
                    assert!(cut.is_none(), "{end} of {} bytes", bytes.len());
                }
                bytes.push(0);
                assert_eq!(read_publication(&bytes, |_| ()), None, "and nothing stands behind it");
            }
        }
    }
}
