//! Tokens that every worker of one supervisor accepts, and nobody else makes: a stamp, chance, and a signature.
//!
//! A signed token has 32 bytes: the worker that issued it, whether its client may reconnect statefully, and until when a
//! transport may claim it; ten random bytes; then 16 bytes of HMAC-SHA-1 (RFC 2104) over those 16 and the hub's path. The
//! supervisor makes the key, so workers that are started later have the same. What is secret is the signature: the
//! 16 bytes before it are the token as this process knows it. Machines of one backbone tell one another their keys: a token
//! of another machine is known here with a mark, since no worker of this one has issued it.
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha1::{Digest, Sha1};

use crate::tokens::{Stamp, Token};

const SIGNATURE_BYTES: usize = 16;
const SIGNED_BYTES: usize = 16 + SIGNATURE_BYTES;
/// 32 bytes as base64url.
const TEXT_BYTES: usize = 43;
/// Of SHA-1.
const BLOCK_BYTES: usize = 64;
/// What marks a token, in its second byte.
const ELSEWHERE: u8 = 2;

/// The key of all workers of one supervisor.
#[derive(Clone)]
pub(crate) struct Key {
    /// Each has taken in the key's block.
    inner: Sha1,
    outer: Sha1,
}

/// It is a secret: it is not shown.
impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Key").finish_non_exhaustive()
    }
}

impl Key {
    pub(crate) fn new(key: &[u8]) -> Self {
        let mut block = [0; BLOCK_BYTES];
        if key.len() > BLOCK_BYTES {
            block[..20].copy_from_slice(&Sha1::digest(key));
        } else {
            block[..key.len()].copy_from_slice(key);
        }
        let begun = |pad: u8| Sha1::new_with_prefix(block.map(|byte| byte ^ pad));
        Self { inner: begun(0x36), outer: begun(0x5c) }
    }

    fn sign(&self, parts: [&[u8]; 2]) -> [u8; SIGNATURE_BYTES] {
        let (mut inner, mut outer) = (self.inner.clone(), self.outer.clone());
        parts.iter().for_each(|part| inner.update(part));
        outer.update(inner.finalize());
        outer.finalize()[..SIGNATURE_BYTES].try_into().expect("SHA-1 gives 20 bytes")
    }

    /// The token as the client of a hub gets it.
    pub(crate) fn text_of(&self, token: &Token, path: &str) -> String {
        let mut signed = [0; SIGNED_BYTES];
        signed[..16].copy_from_slice(token);
        signed[16..].copy_from_slice(&self.sign([token, path.as_bytes()]));
        BASE64_URL_SAFE_NO_PAD.encode(signed)
    }

    /// The token that a client of a hub has sent, if it was signed with this key and for this path.
    pub(crate) fn read(&self, text: &str, path: &str) -> Option<Token> {
        let mut signed = [0; SIGNED_BYTES];
        let text = Some(text).filter(|text| text.len() == TEXT_BYTES)?;
        let length = BASE64_URL_SAFE_NO_PAD.decode_slice_unchecked(text, &mut signed).ok()?;
        let token: Token = signed[..16].try_into().expect("16 bytes");
        let expected = self.sign([&token, path.as_bytes()]);
        // However many bytes are right, it takes as long.
        let differs = expected.iter().zip(&signed[16..]).fold(0, |differs, (one, other)| differs | (one ^ other));
        (length == SIGNED_BYTES && differs == 0).then_some(token)
    }
}

/// What a token says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamped {
    /// Who issued it; nobody on this machine, where another has.
    pub(crate) home: Option<u8>,
    /// Its client may reconnect statefully.
    pub(crate) is_stateful: bool,
    /// Until when a transport may claim it, in seconds of the wall clock.
    pub(crate) until: u32,
}

impl Stamped {
    pub(crate) fn write(self) -> Stamp {
        let [a, b, c, d] = self.until.to_be_bytes();
        [self.home.unwrap_or(0), u8::from(self.is_stateful), a, b, c, d]
    }

    pub(crate) fn of(token: &Token) -> Self {
        let until = u32::from_be_bytes([token[2], token[3], token[4], token[5]]);
        let home = (token[1] & ELSEWHERE == 0).then_some(token[0]);
        Self { home, is_stateful: token[1] & 1 == 1, until }
    }
}

/// A token that another machine has issued, as this one knows it.
pub(crate) fn marked(mut token: Token) -> Token {
    token[1] |= ELSEWHERE;
    token
}

/// Whether another machine has issued it.
pub(crate) fn is_marked(token: &Token) -> bool {
    token[1] & ELSEWHERE != 0
}

/// The token as it was issued.
pub(crate) fn unmarked(mut token: Token) -> Token {
    token[1] &= !ELSEWHERE;
    token
}

/// Seconds of the wall clock, which all processes have in common.
pub(crate) fn wall_seconds() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u32::try_from(since.as_secs()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn it_signs_as_rfc_2202_has_it() {
        let short = Key::new(&[0x0b; 20]).sign([b"Hi ", b"There"]);
        assert_eq!(hex(&short), "b617318655057264e28bc0b6fb378c8e"); // case 1
        let long = Key::new(&[0xaa; 80]).sign([b"Test Using Larger Than Block-Size Key - Hash Key First", b""]);
        assert_eq!(hex(&long), "aa4ae5e15272d00e95705637ce8a3b55"); // case 6
    }

    #[test]
    fn a_token_is_taken_for_its_path_and_key_alone_and_whole() {
        let (key, other) = (Key::new(&[1; 32]), Key::new(&[2; 32]));
        let mut token = [9; 16];
        let stamped = Stamped { home: Some(200), is_stateful: true, until: 4_000_000_000 };
        token[..6].copy_from_slice(&stamped.write());
        assert_eq!(Stamped::of(&token), stamped);
        assert_eq!(Stamped::of(&marked(token)), Stamped { home: None, ..stamped });
        assert_eq!(unmarked(marked(token)), token);
        let text = key.text_of(&token, "/hub");
        assert_eq!(text.len(), TEXT_BYTES);
        assert_eq!(key.read(&text, "/hub"), Some(token));
        assert_eq!((key.read(&text, "/hub2"), other.read(&text, "/hub")), (None, None));
        for at in 0..text.len() {
            let mut forged = text.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'Q' } else { b'A' };
            let forged = String::from_utf8(forged).expect("ASCII");
            assert_eq!(key.read(&forged, "/hub"), None, "{at}");
        }
        for wrong in ["", "AAAA", &text[1..], &format!("{text}A"), &"ä".repeat(22), &"!".repeat(43)] {
            assert_eq!(key.read(wrong, "/hub"), None);
        }
    }
}
