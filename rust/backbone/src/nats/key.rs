//! Keys of users, as NATS writes them: a seed in base32, which signs what the server asks.
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use crate::names::crc16;

/// The kind of key that a user has, in the upper five bits.
const USER: u8 = 20 << 3;
const SEED: u8 = 18 << 3;
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// What a file of credentials has.
pub(crate) struct Credentials {
    /// Who the user is, signed by an account; none where the server knows the key itself.
    pub(crate) jwt: Option<String>,
    pair: Ed25519KeyPair,
}

impl Credentials {
    /// Reads what `nsc` and `nk` write.
    ///
    /// # Errors
    /// What is wrong with it, without a word of it.
    pub(crate) fn read(text: &str) -> Result<Self, &'static str> {
        let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
        let jwt = lines().skip_while(|line| !line.contains("BEGIN NATS USER JWT")).nth(1).map(str::to_owned);
        let seed = lines().find(|line| line.starts_with("SU")).ok_or("it has no user's seed, which begins with SU")?;
        let bytes = decode(seed).ok_or("its seed is no base32")?;
        let (seed, check) = bytes.split_last_chunk::<2>().ok_or("its seed is too short")?;
        if crc16(seed) != u16::from_le_bytes(*check) || seed.len() != 34 {
            return Err("its seed is damaged");
        }
        let kind = (seed[0] & 7) << 5 | (seed[1] & 0xf8) >> 3;
        if seed[0] & 0xf8 != SEED || kind != USER {
            return Err("its seed is none of a user");
        }
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed[2..]).map_err(|_| "its seed is no key")?;
        Ok(Self { jwt, pair })
    }

    /// Its public half.
    pub(crate) fn public(&self) -> String {
        let mut bytes = vec![USER];
        bytes.extend_from_slice(self.pair.public_key().as_ref());
        bytes.extend_from_slice(&crc16(&bytes).to_le_bytes());
        encode(&bytes)
    }

    /// Signs what the server has asked.
    pub(crate) fn sign(&self, nonce: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.pair.sign(nonce.as_bytes()))
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for byte in text.bytes() {
        let value = ALPHABET.iter().position(|&letter| letter == byte)?;
        bits = bits << 5 | u32::try_from(value).ok()?;
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

fn encode(bytes: &[u8]) -> String {
    let (mut text, mut bits, mut count) = (String::new(), 0_u32, 0);
    for &byte in bytes {
        bits = bits << 8 | u32::from(byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            text.push(char::from(ALPHABET[(bits >> count) as usize & 31]));
        }
        bits &= (1 << count) - 1;
    }
    if count > 0 {
        text.push(char::from(ALPHABET[(bits << (5 - count)) as usize & 31]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `nk -gen user` writes one.
    fn seed() -> String {
        let mut bytes = vec![SEED | USER >> 5, (USER & 31) << 3];
        bytes.extend_from_slice(&[7; 32]);
        bytes.extend_from_slice(&crc16(&bytes).to_le_bytes());
        encode(&bytes)
    }

    #[test]
    fn credentials_are_read_and_sign() {
        let seed = seed();
        assert!(seed.starts_with("SU"), "{seed}");
        let text = format!(
            "-----BEGIN NATS USER JWT-----\nabc.def.ghi\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        let credentials = Credentials::read(&text).ok().unwrap();
        assert_eq!(credentials.jwt.as_deref(), Some("abc.def.ghi"));
        assert!(credentials.public().starts_with('U') && credentials.public().len() == 56);
        assert_eq!(credentials.sign("nonce").len(), 86);
        assert!(Credentials::read(&seed).ok().unwrap().jwt.is_none());
    }

    #[test]
    fn what_is_none_is_named_and_not_shown() {
        let damaged = seed().replacen('A', "B", 1);
        for text in ["", "SU!", "SUAA", damaged.as_str()] {
            assert!(Credentials::read(text).is_err(), "{text}");
        }
    }
}
