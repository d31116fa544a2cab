//! What machines of one prefix tell one another, as bytes: who tells it and in which life, and what.
use crate::bytes::{Reader, put_bytes, put_u64};

/// What begins each of them, and the version of what follows.
const HEAD: &[u8; 3] = b"fwm";
const VERSION: u8 = 2;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Letter<'a> {
    /// Whose it is.
    pub(super) own: u64,
    /// In which life.
    pub(super) since: u64,
    pub(super) said: Said<'a>,
}

/// That a machine is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Here<'a> {
    /// What its channels promise, and its bounds.
    pub(super) digest: u64,
    pub(super) release: &'a str,
    pub(super) name: &'a str,
    /// Numbers of its members.
    pub(super) members: &'a [u8],
    /// What it signs tokens of SignalR with: whoever reads what machines tell can sign them, too.
    pub(super) secret: &'a [u8],
    /// It is there for so long that whoever comes now is behind it.
    pub(super) is_settled: bool,
}

/// A member tells members of the machine in that life, or with none all; with life 0 it is for all machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told<'a> {
    pub(super) life: u64,
    pub(super) from: u8,
    pub(super) to: &'a [u8],
    pub(super) kind: u8,
    /// Which piece of the message it is, and whether that is the last: they come one behind the other.
    pub(super) part: u16,
    pub(super) is_last: bool,
    pub(super) message: &'a [u8],
}

/// What is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    Here(Here<'a>),
    Told(Told<'a>),
    /// That life of yours was taken to be over: begin another.
    Anew {
        life: u64,
    },
}

impl<'a> Letter<'a> {
    /// Appends it.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(HEAD);
        out.push(VERSION);
        put_u64(out, self.own);
        put_u64(out, self.since);
        match self.said {
            Said::Here(Here { digest, release, name, members, secret, is_settled }) => {
                out.push(0);
                put_u64(out, digest);
                put_bytes(out, release.as_bytes());
                put_bytes(out, name.as_bytes());
                put_bytes(out, members);
                put_bytes(out, secret);
                out.push(u8::from(is_settled));
            }
            Said::Told(Told { life, from, to, kind, part, is_last, message }) => {
                out.push(1);
                put_u64(out, life);
                put_bytes(out, to);
                let [low, high] = part.to_le_bytes();
                out.extend_from_slice(&[from, kind, low, high, u8::from(is_last)]);
                out.extend_from_slice(message);
            }
            Said::Anew { life } => {
                out.push(2);
                put_u64(out, life);
            }
        }
    }

    /// Reads one.
    ///
    /// # Errors
    /// Why it is none, in words.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let none = || format!("{} bytes that no machine tells", bytes.len());
        let rest = bytes.strip_prefix(HEAD.as_slice()).ok_or_else(none)?;
        let (&version, rest) = rest.split_first().ok_or_else(none)?;
        if version != VERSION {
            return Err(format!("a machine speaks version {version} of what machines tell, and this one {VERSION}"));
        }
        Self::read_rest(Reader(rest)).ok_or_else(none)
    }

    fn read_rest(mut reader: Reader<'a>) -> Option<Self> {
        let (own, since) = (reader.u64()?, reader.u64()?);
        let said = match reader.u8()? {
            0 => Said::Here(Here {
                digest: reader.u64()?,
                release: short(reader.text()?)?,
                name: short(reader.text()?)?,
                members: reader.bytes().filter(|members| members.len() <= 256)?,
                secret: reader.bytes().filter(|secret| secret.len() <= 256)?,
                is_settled: reader.bool()?,
            }),
            1 => {
                let (life, to) = (reader.u64()?, reader.bytes().filter(|to| to.len() <= 256)?);
                let (from, kind, part) = (reader.u8()?, reader.u8()?, [reader.u8()?, reader.u8()?]);
                let (part, is_last) = (u16::from_le_bytes(part), reader.bool()?);
                Said::Told(Told { life, from, to, kind, part, is_last, message: reader.rest() })
            }
            2 => Said::Anew { life: reader.u64()? },
            _ => return None,
        };
        reader.end().map(|()| Self { own, since, said })
    }
}

/// What stands in a log.
fn short(text: &str) -> Option<&str> {
    (text.len() <= 255 && !text.contains(char::is_control)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_comes_back_and_what_is_none_is_told() {
        let here =
            Here { digest: 7, release: "1", name: "web-1", members: &[0, 255], secret: b"key", is_settled: true };
        let told = Told { life: 0, from: 3, to: &[], kind: 0, part: 0, is_last: true, message: b"all" };
        for said in [
            Said::Here(here),
            Said::Told(told),
            Said::Told(Told { life: 9, to: &[4, 255], kind: 1, part: 258, is_last: false, message: b"", ..told }),
            Said::Anew { life: 9 },
        ] {
            let letter = Letter { own: u64::MAX, since: 1, said };
            let mut bytes = Vec::new();
            letter.write(&mut bytes);
            assert_eq!(Letter::read(&bytes), Ok(letter));
            for end in 0..20 {
                assert!(Letter::read(&bytes[..end]).is_err(), "{end}");
            }
            bytes[3] = 9;
            let why = Letter::read(&bytes).unwrap_err();
            assert_eq!(why, "a machine speaks version 9 of what machines tell, and this one 2");
        }
        let mut bytes = Vec::new();
        let said = Said::Here(Here { name: "two\nlines", ..here });
        Letter { own: 1, since: 1, said }.write(&mut bytes);
        assert!(Letter::read(&bytes).is_err());
        assert_eq!(Letter::read(b"hello").unwrap_err(), "5 bytes that no machine tells");
    }
}
