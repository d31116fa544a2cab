//! A body that is one gzip stream without an end (RFC 1952): a header, then blocks of DEFLATE (RFC 1951 §3.2).
//!
//! Each piece ends with an empty block: readers that hold back a block's bytes until the next one give them out then (Go's
//! does so), and whatever follows begins with a byte. There is never a last block, and never a footer: a body may end
//! without, while Chromium takes what stands behind a footer for nothing.
use super::request::{RequestHead, list_members};

/// What a stream begins with: no name, no time, any system (RFC 1952 §2.3).
pub const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// An empty block behind a flush, without the three bits before it: what a piece of a compressor's ends with.
pub const EMPTY_BLOCK: [u8; 4] = [0, 0, 0xff, 0xff];

/// What a stored block may have.
const BLOCK_BYTES_MAX: usize = 0xffff;

/// Kind, length, and its complement (RFC 1951 §3.2.4).
const BLOCK_HEADER_BYTES: usize = 5;

/// How long a piece of so many stored bytes is.
pub const fn stored_bytes(bytes: usize) -> usize {
    bytes + (bytes.div_ceil(BLOCK_BYTES_MAX) + 1) * BLOCK_HEADER_BYTES
}

/// Appends a piece that stands for `bytes`, as they are.
pub fn write_stored(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(stored_bytes(bytes.len()));
    for block in bytes.chunks(BLOCK_BYTES_MAX) {
        write_block_header(out, block.len());
        out.extend_from_slice(block);
    }
    write_block_header(out, 0);
}

fn write_block_header(out: &mut Vec<u8>, bytes: usize) {
    let length = u16::try_from(bytes).expect("a block has no more than it may");
    out.push(0);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
}

/// The first piece of those that were [stored](write_stored) one behind the other, and the rest; `None` behind the last.
pub fn split_piece(pieces: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut end = 0;
    while let Some((block, rest)) = split_block(&pieces[end..]) {
        end = pieces.len() - rest.len();
        if block.is_empty() {
            return Some(pieces.split_at(end));
        }
    }
    None
}

/// What the blocks of stored pieces have.
pub fn contents(mut pieces: &[u8]) -> impl Iterator<Item = &[u8]> {
    let blocks = std::iter::from_fn(move || {
        let (block, rest) = split_block(pieces)?;
        pieces = rest;
        Some(block)
    });
    blocks.filter(|block| !block.is_empty())
}

fn split_block(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<BLOCK_HEADER_BYTES>()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes([header[1], header[2]])))
}

/// Whether the client wants its answer as gzip at least as much as uncompressed (RFC 9110 §12.5.3).
///
/// Who says nothing of it, or what cannot be read, gets it uncompressed.
pub fn accepts_gzip(head: &RequestHead<'_>) -> bool {
    let (mut gzip, mut any, mut identity) = (None, None, None);
    for member in head.headers_named("accept-encoding").flat_map(list_members) {
        let mut parts = member.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let coding = parts.next().unwrap_or_default();
        let weight = weight_of(parts);
        let found = match coding {
            b"*" => &mut any,
            name if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") => &mut gzip,
            name if name.eq_ignore_ascii_case(b"identity") => &mut identity,
            _ => continue,
        };
        *found = Some(found.unwrap_or(0).max(weight));
    }
    let gzip = gzip.or(any).unwrap_or(0);
    gzip > 0 && gzip >= identity.unwrap_or(0)
}

/// A coding's weight in thousandths (RFC 9110 §12.4.2): all of it where none is said, none where it cannot be read.
fn weight_of<'a>(mut parameters: impl Iterator<Item = &'a [u8]>) -> u16 {
    let Some(first) = parameters.next() else { return 1_000 };
    let value = first.strip_prefix(b"q=").or(first.strip_prefix(b"Q="));
    let (Some(value), None) = (value, parameters.next()) else { return 0 };
    let (whole, thousandths) = match value {
        [whole] => (whole, &[][..]),
        [whole, b'.', rest @ ..] if rest.len() <= 3 => (whole, rest),
        _ => return 0,
    };
    if !thousandths.iter().all(u8::is_ascii_digit) || !matches!(whole, b'0' | b'1') {
        return 0;
    }
    let digit = |at: usize| thousandths.get(at).map_or(0, |digit| u16::from(digit - b'0'));
    (u16::from(whole - b'0') * 1_000 + digit(0) * 100 + digit(1) * 10 + digit(2)).min(1_000)
}
