//! A publication as bytes, in the stream and in what is published: heads and what follows them. `publish.lua` writes them.
//!
//! A head is `fw`, version 1, a zero, then little-endian: length of what follows the head (4 bytes), epoch, offset of the
//! publication before it, its own offset, milliseconds since 1970 (8 bytes each). A message is one or more of them.
use fanwire_core::Position;

use fanwire_core::node::Record;

/// How long a head is.
pub(crate) const HEAD_BYTES: usize = 40;

/// Reads the records of a message, whole or not at all.
pub(crate) fn read_all(mut bytes: &[u8]) -> Result<Vec<Record>, &'static str> {
    let mut records = Vec::with_capacity(1);
    while !bytes.is_empty() {
        let (record, rest) = read(bytes)?;
        records.push(record);
        bytes = rest;
    }
    if records.is_empty() { Err("it is empty") } else { Ok(records) }
}

fn read(bytes: &[u8]) -> Result<(Record, &[u8]), &'static str> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or("it is shorter than a head")?;
    if head[..2] != *b"fw" {
        return Err("it does not begin with fw");
    }
    if head[2] != 1 || head[3] != 0 {
        return Err("it is of another version than 1");
    }
    let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    let length = u32::from_le_bytes(head[4..8].try_into().expect("four bytes")) as usize;
    let (epoch, previous, offset, published_ms) = (number(8), number(16), number(24), number(32));
    let (bytes, rest) = rest.split_at_checked(length).ok_or("it is shorter than its head says")?;
    if epoch == 0 || offset <= previous {
        return Err("its position cannot be");
    }
    let previous = Position { epoch, offset: previous };
    Ok((Record { previous, position: Position { epoch, offset }, published_ms, bytes: bytes.to_vec() }, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(records: &[(u64, u64, u64, u64, Vec<u8>)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (epoch, previous, offset, at, bytes) in records {
            out.extend_from_slice(b"fw\x01\x00");
            out.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_le_bytes());
            for number in [epoch, previous, offset, at] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            out.extend_from_slice(bytes);
        }
        out
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_no_part_of_it(
            texts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..5),
            cut in any::<proptest::sample::Index>(),
        ) {
            let one = |(index, bytes): (usize, &Vec<u8>)| (7, index as u64, index as u64 + 1, 9, bytes.clone());
            let bytes = written(&texts.iter().enumerate().map(one).collect::<Vec<_>>());
            let read = read_all(&bytes).unwrap();
            prop_assert_eq!(read.iter().map(|record| record.bytes.clone()).collect::<Vec<_>>(), texts.clone());
            let cut = cut.index(bytes.len());
            if let Ok(fewer) = read_all(&bytes[..cut]) {
                prop_assert!(fewer.len() < texts.len());
            }
        }

        #[test]
        fn any_bytes_are_an_error_or_records(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_all(&bytes);
        }
    }

    #[test]
    fn what_is_foreign_is_named() {
        let good = written(&[(7, 1, 2, 9, b"x".to_vec())]);
        assert_eq!(read_all(b""), Err("it is empty"));
        assert_eq!(read_all(b"hello"), Err("it is shorter than a head"));
        assert_eq!(read_all(&[b'x'; 60]), Err("it does not begin with fw"));
        let mut other = good.clone();
        other[2] = 2;
        assert_eq!(read_all(&other), Err("it is of another version than 1"));
        assert_eq!(read_all(&written(&[(7, 2, 2, 9, vec![])])), Err("its position cannot be"));
        assert_eq!(read_all(&good[..40]), Err("it is shorter than its head says"));
    }
}
