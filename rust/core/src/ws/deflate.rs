//! permessage-deflate (RFC 7692), the server's side: what is agreed, and messages inflated and deflated.
//!
//! No connection has a compressor of its own, which would be 300 KB. What is written to one alone takes no context over, by a
//! compressor of the thread. What a log's readers all get may take its context over, by one compressor for all of them
//! ([`SharedDeflater`]). A client may take its own over only where its connection keeps an inflater, in a window of 4 KiB if
//! it can.
use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::message::ReceiveError;
// It ends a message's data on the way into an inflater, and is cut off on the way out (RFC 7692 §7.2.1, §7.2.2).
use crate::http::gzip::EMPTY_BLOCK;
use crate::http::request::list_members;

/// The window that a client which lets the server choose is told, as an exponent: what its inflater costs per connection.
const CLIENT_WINDOW_BITS: u8 = 12;

/// The largest window (RFC 7692 §7.1.2).
const WINDOW_BITS_MAX: u8 = 15;

/// The smallest window that the compressor knows. An offer that asks for 8 is declined.
const WINDOW_BITS_MIN: u8 = 9;

/// How much room an inflater begins with, in bytes.
const ROOM_BYTES: usize = 4 * 1024;

/// What client and server have agreed on for one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeflateAgreement {
    /// The client's window outlives its messages.
    client_takes_over: bool,
    /// So does the server's, as the client's inflater has it.
    server_takes_over: bool,
    /// How far back the client's messages refer, as an exponent; `None` where it did not let the server choose.
    client_window_bits: Option<u8>,
    /// How far back the server's messages may refer, as an exponent; `None` where the client did not say.
    server_window_bits: Option<u8>,
}

impl DeflateAgreement {
    /// Takes the first acceptable offer of the `Sec-WebSocket-Extensions` headers (RFC 7692 §5, §7.1).
    ///
    /// An offer with a parameter that is unknown, repeated or out of range is declined (§7).
    pub fn negotiate<'a>(extensions: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let agreed = extensions.flat_map(list_members).find_map(Self::accept)?;
        Some(Self { server_takes_over: false, ..agreed })
    }

    /// The same, where the connection keeps no inflater, and its messages may come of a [`SharedDeflater`].
    pub fn negotiate_shared<'a>(extensions: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let agreed = extensions.flat_map(list_members).find_map(Self::accept)?;
        Some(Self { client_takes_over: false, client_window_bits: None, ..agreed })
    }

    fn accept(offer: &[u8]) -> Option<Self> {
        let mut parts = offer.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        if !parts.next()?.eq_ignore_ascii_case(b"permessage-deflate") {
            return None;
        }
        let mut agreed = Self {
            client_takes_over: true,
            server_takes_over: true,
            client_window_bits: None,
            server_window_bits: None,
        };
        for part in parts {
            let mut halves = part.splitn(2, |&byte| byte == b'=').map(<[u8]>::trim_ascii);
            match (halves.next()?, halves.next()) {
                (b"server_no_context_takeover", None) if agreed.server_takes_over => agreed.server_takes_over = false,
                (b"client_no_context_takeover", None) if agreed.client_takes_over => agreed.client_takes_over = false,
                (b"server_max_window_bits", Some(bits)) if agreed.server_window_bits.is_none() => {
                    agreed.server_window_bits = Some(window_bits(bits).filter(|&bits| bits >= WINDOW_BITS_MIN)?);
                }
                (b"client_max_window_bits", bits) if agreed.client_window_bits.is_none() => {
                    let bits_max = bits.map_or(Some(WINDOW_BITS_MAX), window_bits)?;
                    agreed.client_window_bits = Some(bits_max.min(CLIENT_WINDOW_BITS));
                }
                _ => return None,
            }
        }
        Some(agreed)
    }

    /// The value of the answer's `Sec-WebSocket-Extensions`.
    pub fn answer(&self) -> String {
        let mut answer = "permessage-deflate".to_owned();
        if !self.server_takes_over {
            answer += "; server_no_context_takeover";
        }
        if !self.client_takes_over {
            answer += "; client_no_context_takeover";
        }
        if let Some(bits) = self.server_window_bits {
            answer += &format!("; server_max_window_bits={bits}");
        }
        if let Some(bits) = self.client_window_bits {
            answer += &format!("; client_max_window_bits={bits}");
        }
        answer
    }

    /// What the server's messages have to be deflated with.
    pub fn server_window_bits(&self) -> u8 {
        self.server_window_bits.unwrap_or(WINDOW_BITS_MAX)
    }

    /// Whether the server's messages may refer to those before them.
    pub fn server_takes_over(&self) -> bool {
        self.server_takes_over
    }

    /// What inflates the client's messages.
    pub fn inflater(&self) -> Inflater {
        let bits = self.client_window_bits.unwrap_or(WINDOW_BITS_MAX);
        Inflater { window_bits: bits.max(WINDOW_BITS_MIN), takes_over: self.client_takes_over, stream: None }
    }
}

/// A window's exponent as a parameter has it, plain or quoted, without leading zeros (RFC 7692 §7.1.2).
fn window_bits(value: &[u8]) -> Option<u8> {
    let quoted = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    match *quoted.unwrap_or(value) {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

/// The messages of one client, inflated.
#[derive(Debug)]
pub struct Inflater {
    window_bits: u8,
    takes_over: bool,
    /// The client's window: 12 to 40 KB, from its first compressed message on.
    stream: Option<Decompress>,
}

impl Inflater {
    /// Appends what `deflated`, the data of one message, stands for: `bytes_max` bytes at most.
    ///
    /// Never has more than twice that; what a message announces costs nothing until it is there.
    ///
    /// # Errors
    /// [`ReceiveError::MessageTooBig`] 1009, [`ReceiveError::NotDeflated`] 1002. The inflater must not be used after it.
    pub fn inflate(&mut self, deflated: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<(), ReceiveError> {
        let bits = self.window_bits;
        let stream = self.stream.get_or_insert_with(|| Decompress::new_with_window_bits(false, bits));
        for input in [deflated, &EMPTY_BLOCK] {
            inflate_piece(stream, input, bytes_max, out)?;
        }
        if !self.takes_over {
            self.stream = None;
        }
        Ok(())
    }
}

thread_local! {
    /// What inflates messages that refer to none before them, of whichever connection.
    static INFLATER: RefCell<Option<Decompress>> = const { RefCell::new(None) };
}

/// Appends what `deflated` stands for, the data of one message that refers to none before it: `bytes_max` bytes at most.
///
/// # Errors
/// As [`Inflater::inflate`].
pub fn inflate_alone(deflated: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<(), ReceiveError> {
    INFLATER.with_borrow_mut(|stream| {
        let stream = stream.get_or_insert_with(|| Decompress::new_with_window_bits(false, WINDOW_BITS_MAX));
        let inflated =
            [deflated, &EMPTY_BLOCK].iter().try_for_each(|input| inflate_piece(stream, input, bytes_max, out));
        stream.reset(false);
        inflated
    })
}

fn inflate_piece(
    stream: &mut Decompress,
    mut input: &[u8],
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> Result<(), ReceiveError> {
    loop {
        if out.len() == out.capacity() {
            // One byte more than may come tells whether too many do.
            let room = out.capacity().clamp(ROOM_BYTES, bytes_max.saturating_add(1).max(ROOM_BYTES));
            out.reserve_exact(room.min(bytes_max.saturating_add(1) - out.len()));
        }
        let taken_before = stream.total_in();
        let status = stream.decompress_vec(input, out, FlushDecompress::Sync).map_err(|_| ReceiveError::NotDeflated)?;
        let taken = stream.total_in() - taken_before;
        input = &input[taken as usize..];
        if out.len() > bytes_max {
            return Err(ReceiveError::MessageTooBig { message_bytes: out.len() as u64, bytes_max });
        }
        match status {
            // A block that says it is the last (RFC 7692 §7.2.3.4): what follows begins anew.
            Status::StreamEnd => stream.reset(false),
            Status::Ok | Status::BufError if out.len() == out.capacity() => {}
            Status::Ok if !input.is_empty() && taken > 0 => {}
            Status::Ok | Status::BufError if input.is_empty() => return Ok(()),
            Status::Ok | Status::BufError => return Err(ReceiveError::NotDeflated),
        }
    }
}

/// Deflates messages of many connections, one after the other.
#[derive(Debug, Default)]
pub struct Deflater {
    /// By the exponent of their windows, the smallest first; made when first needed. Few clients ask for a small one.
    streams: [Option<Compress>; (WINDOW_BITS_MAX - WINDOW_BITS_MIN + 1) as usize],
}

impl Deflater {
    /// Appends the data of one compressed message that stands for `payload` and refers to none before it.
    ///
    /// `window_bits` as [`DeflateAgreement::server_window_bits`] says.
    pub fn deflate(&mut self, window_bits: u8, payload: &[u8], out: &mut Vec<u8>) {
        let bits = window_bits.clamp(WINDOW_BITS_MIN, WINDOW_BITS_MAX);
        let stream = self.streams[usize::from(bits - WINDOW_BITS_MIN)]
            .get_or_insert_with(|| Compress::new_with_window_bits(Compression::default(), false, bits));
        deflate_message(stream, payload, out);
        stream.reset();
    }
}

/// Deflates the messages of one stream, each of which may refer to those before it: for whoever gets every one.
#[derive(Debug)]
pub struct SharedDeflater {
    stream: Compress,
}

impl SharedDeflater {
    /// For inflaters with a window of this exponent, 9 to 15, or a larger one.
    pub fn new(window_bits: u8) -> Self {
        let bits = window_bits.clamp(WINDOW_BITS_MIN, WINDOW_BITS_MAX);
        Self { stream: Compress::new_with_window_bits(Compression::default(), false, bits) }
    }

    /// What comes next refers to nothing that came before.
    pub fn forget(&mut self) {
        if self.stream.total_in() > 0 {
            self.stream.reset();
        }
    }

    /// Appends the data of the next compressed message. What has gone in here has to go out so.
    pub fn deflate(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        deflate_message(&mut self.stream, payload, out);
    }
}

/// Never ends the stream: a block that says it is the last one poisons some inflaters.
fn deflate_message(stream: &mut Compress, payload: &[u8], out: &mut Vec<u8>) {
    let mut input = payload;
    loop {
        if out.len() == out.capacity() {
            out.reserve(input.len() / 2 + 64);
        }
        let taken_before = stream.total_in();
        stream.compress_vec(input, out, FlushCompress::Sync).expect("raw deflate without a dictionary has no error");
        input = &input[(stream.total_in() - taken_before) as usize..];
        if input.is_empty() && out.len() < out.capacity() {
            break;
        }
    }
    debug_assert!(out.ends_with(&EMPTY_BLOCK));
    out.truncate(out.len() - EMPTY_BLOCK.len());
}
