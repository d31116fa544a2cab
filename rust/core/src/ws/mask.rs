//! Masking (RFC 6455 §5.3): an exclusive or with four bytes, over and over.

/// Masks or unmasks `bytes` in place; twice is not at all.
///
/// `offset` is where in the payload `bytes` begins, so that a payload may come in pieces. Works on 32 bytes at a time,
/// which the compiler turns into vector instructions; no `unsafe`, no alignment needed.
pub fn unmask(bytes: &mut [u8], mask: [u8; 4], offset: usize) {
    let phase_mask: [u8; 32] = std::array::from_fn(|index| mask[(offset.wrapping_add(index)) % 4]);
    let (blocks, rest) = bytes.as_chunks_mut::<32>();
    for block in blocks {
        for (byte, key) in block.iter_mut().zip(phase_mask) {
            *byte ^= key;
        }
    }
    for (byte, key) in rest.iter_mut().zip(phase_mask) {
        *byte ^= key;
    }
}
