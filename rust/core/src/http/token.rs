//! What a name may be made of (RFC 9110 §5.6.2).

/// Whether `text` is a token (RFC 9110 §5.6.2): the grammar of methods, header names and subprotocols.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is_token_byte(byte))
}

/// Whether `byte` may stand in a token (RFC 9110 §5.6.2, `tchar`).
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
