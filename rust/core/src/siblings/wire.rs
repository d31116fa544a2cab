//! What workers say to each other: a length, a kind, and what belongs to it. Both ends are of the same version.
use crate::bytes::{Reader, put_bytes, put_u32, put_u64};
use crate::tokens::Token;

/// Said first by who connects; another version of these messages is another word.
const HELLO: &[u8] = b"fanwire workers 2";
/// Bytes of one message. What may be longer is said in several.
pub(super) const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// So much of an answer is said in one message.
pub(super) const ANSWER_BYTES_MAX: usize = 256 << 10;
const LENGTH_BYTES: usize = 4;
const TOKEN_BYTES: usize = size_of::<Token>();

/// One message. A request is numbered by who passes it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// This worker is at the other end.
    Hello(u8),
    /// Whose is this token, which you have issued? If it is nobody's, it is the asker's from now on.
    Ask(Token),
    /// Whose is this token, whose issuer is gone? Whether the asker is about to take it, if it is nobody's.
    Seek(Token, bool),
    /// Either is answered by this.
    Answer(Token, Whose),
    /// The token that you have given away, or lent, is over.
    Gone(Token),
    /// A request for the connection of this token: where its client is, and its bytes, head and perhaps some of the body.
    Request(u64, Token, Box<str>, Vec<u8>),
    /// More of its body.
    More(u64, Vec<u8>),
    /// All that has come of the body was taken.
    Taken(u64),
    /// A poll should not wait any longer.
    Hurry(u64),
    /// Nobody waits for the answer any more.
    Abandon(u64),
    /// Bytes of the response.
    Response(u64, Vec<u8>, End),
    /// A socket comes with this: its client asks for the connection of this token; as `Request`.
    Socket(Token, Box<str>, Vec<u8>),
}

/// Whose a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Nobody's that the answerer knows of.
    Nobodys,
    /// The asker's.
    Yours,
    /// Of this worker.
    Of(u8),
    /// The answerer is about to take it, if it is nobody's.
    Wanted,
}

/// Whether a response goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    More,
    /// It is whole, and the client's connection may carry another request.
    KeepsAlive,
    /// It is whole, and the client's connection ends.
    Closes,
    /// There is none: the request's connection was dropped.
    Lost,
}

const ENDS: [End; 4] = [End::More, End::KeepsAlive, End::Closes, End::Lost];

impl Message {
    /// Appends it.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let start = begin(out);
        match self {
            Self::Hello(worker) => {
                out.extend_from_slice(&[0, *worker]);
                out.extend_from_slice(HELLO);
            }
            Self::Ask(token) => write_token(out, 1, token),
            Self::Seek(token, is_wanted) => {
                write_token(out, 2, token);
                out.push(u8::from(*is_wanted));
            }
            Self::Answer(token, whose) => {
                write_token(out, 3, token);
                out.extend_from_slice(&match whose {
                    Whose::Nobodys => [0, 0],
                    Whose::Yours => [1, 0],
                    Whose::Of(worker) => [2, *worker],
                    Whose::Wanted => [3, 0],
                });
            }
            Self::Gone(token) => write_token(out, 4, token),
            Self::Request(number, token, client, bytes) => {
                write_number(out, 5, *number);
                out.extend_from_slice(token);
                put_bytes(out, client.as_bytes());
                out.extend_from_slice(bytes);
            }
            Self::More(number, bytes) => {
                write_number(out, 6, *number);
                out.extend_from_slice(bytes);
            }
            Self::Taken(number) => write_number(out, 7, *number),
            Self::Hurry(number) => write_number(out, 8, *number),
            Self::Abandon(number) => write_number(out, 9, *number),
            Self::Response(number, bytes, end) => put_response(out, *number, bytes, *end),
            Self::Socket(token, client, bytes) => {
                write_token(out, 11, token);
                put_bytes(out, client.as_bytes());
                out.extend_from_slice(bytes);
            }
        }
        end(out, start);
    }

    /// Reads the first one of `bytes`, and how many bytes it has; `None` while it has not come whole.
    ///
    /// # Errors
    /// It is none, or too long: the other end is no worker of this version.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, NoMessage> {
        let mut reader = Reader(bytes);
        let Some(length) = reader.u32().map(|length| length as usize) else { return Ok(None) };
        if length > MESSAGE_BYTES_MAX {
            return Err(NoMessage);
        }
        let Some(body) = reader.take(length) else { return Ok(None) };
        let message = Self::parse(body).ok_or(NoMessage)?;
        Ok(Some((message, LENGTH_BYTES + length)))
    }

    fn parse(body: &[u8]) -> Option<Self> {
        let mut rest = Reader(body);
        let message = match rest.u8()? {
            0 => {
                let worker = rest.u8()?;
                return (rest.rest() == HELLO).then_some(Self::Hello(worker));
            }
            1 => Self::Ask(token(&mut rest)?),
            2 => Self::Seek(token(&mut rest)?, rest.bool()?),
            3 => {
                let token = token(&mut rest)?;
                let whose = match (rest.u8()?, rest.u8()?) {
                    (0, _) => Whose::Nobodys,
                    (1, _) => Whose::Yours,
                    (2, worker) => Whose::Of(worker),
                    (3, _) => Whose::Wanted,
                    _ => return None,
                };
                Self::Answer(token, whose)
            }
            4 => Self::Gone(token(&mut rest)?),
            5 => Self::Request(rest.u64()?, token(&mut rest)?, rest.text()?.into(), rest.rest().into()),
            6 => Self::More(rest.u64()?, rest.rest().into()),
            7 => Self::Taken(rest.u64()?),
            8 => Self::Hurry(rest.u64()?),
            9 => Self::Abandon(rest.u64()?),
            10 => {
                let (number, end) = (rest.u64()?, *ENDS.get(usize::from(rest.u8()?))?);
                Self::Response(number, rest.rest().into(), end)
            }
            11 => Self::Socket(token(&mut rest)?, rest.text()?.into(), rest.rest().into()),
            _ => return None,
        };
        rest.end().map(|()| message)
    }
}

/// What came is no message of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoMessage;

/// Appends a [`Message::Response`], from where its bytes are.
pub(super) fn write_response(out: &mut Vec<u8>, number: u64, bytes: &[u8], ends: End) {
    let start = begin(out);
    put_response(out, number, bytes, ends);
    end(out, start);
}

fn put_response(out: &mut Vec<u8>, number: u64, bytes: &[u8], ends: End) {
    write_number(out, 10, number);
    out.push(ends as u8);
    out.extend_from_slice(bytes);
}

/// Leaves room for a message's length; gives where.
fn begin(out: &mut Vec<u8>) -> usize {
    put_u32(out, 0);
    out.len()
}

/// The message that begins there is whole.
fn end(out: &mut [u8], start: usize) {
    let length = (out.len() - start) as u32;
    out[start - LENGTH_BYTES..start].copy_from_slice(&length.to_le_bytes());
}

fn write_token(out: &mut Vec<u8>, kind: u8, token: &Token) {
    out.push(kind);
    out.extend_from_slice(token);
}

fn write_number(out: &mut Vec<u8>, kind: u8, number: u64) {
    out.push(kind);
    put_u64(out, number);
}

fn token(rest: &mut Reader<'_>) -> Option<Token> {
    rest.take(TOKEN_BYTES)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Message> {
        let token = [7; 16];
        let mut all = vec![Message::Hello(255), Message::Ask(token), Message::Seek(token, true), Message::Gone(token)];
        let whose = [Whose::Nobodys, Whose::Yours, Whose::Of(9), Whose::Wanted];
        all.extend(whose.map(|whose| Message::Answer(token, whose)));
        all.extend(ENDS.map(|end| Message::Response(u64::MAX, b"HTTP/1.1 200 OK\r\n".to_vec(), end)));
        all.extend([Message::Taken(1), Message::Hurry(2), Message::Abandon(3), Message::More(4, vec![0; 70_000])]);
        let (client, bytes): (Box<str>, _) = ("[::1]:80".into(), b"GET / HTTP/1.1\r\n\r\n".to_vec());
        all.extend([Message::Request(5, token, client.clone(), bytes.clone()), Message::Socket(token, client, bytes)]);
        all
    }

    #[test]
    fn what_is_written_is_read_and_no_part_of_it() {
        let mut bytes = Vec::new();
        all().iter().for_each(|message| message.write(&mut bytes));
        let mut at = 0;
        for message in all() {
            let (read, length) = Message::read(&bytes[at..]).expect("a message").expect("all of it");
            assert_eq!(read, message);
            for part in [0, 1, 3, 4, length / 2, length - 1] {
                assert_eq!(Message::read(&bytes[at..at + part]), Ok(None));
            }
            at += length;
        }
        assert_eq!(at, bytes.len());
    }

    #[test]
    fn anything_else_is_an_error_and_never_a_panic() {
        let framed = |body: &[u8]| [&(body.len() as u32).to_le_bytes()[..], body].concat();
        for body in [&b""[..], b"\x63", b"\x00\x01fanwire workers 1", b"\x01short", b"\x0a\0\0\0\0\0\0\0\0\x09"] {
            assert_eq!(Message::read(&framed(body)), Err(NoMessage), "{body:?}");
        }
        for message in all() {
            let mut bytes = Vec::new();
            message.write(&mut bytes);
            for at in 4..bytes.len().min(60) {
                let mut spoilt = bytes.clone();
                spoilt[at] ^= 0xFF;
                let _ = Message::read(&spoilt);
                let _ = Message::read(&framed(&bytes[4..at]));
            }
        }
        assert_eq!(Message::read(&[255; 8]), Err(NoMessage));
    }
}
