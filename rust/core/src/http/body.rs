//! The body of a request, taken apart as its bytes come (RFC 9112 §6, §7.1): by its length, or chunk by chunk.
//!
//! It says which bytes are content and which only frame it. So nothing in a body is ever read as a head, and nothing is
//! copied. Extensions of chunks and trailers are dropped; both are bounded.
use super::error::RequestError;

/// Bytes of one chunk's size line, its extensions included.
const SIZE_LINE_BYTES_MAX: u32 = 1024;
/// Bytes of all trailers together.
const TRAILER_BYTES_MAX: u32 = 8 * 1024;

/// What has not come of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// So many bytes; 0 is none, or no more.
    Length(u64),
    /// Chunks.
    Chunked(Chunked),
}

/// Where in a chunked body the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunked {
    state: State,
    /// Bytes of this size line, or of the trailers.
    line_bytes: u32,
    /// Of the chunk: its size so far, then what has not come of it.
    left: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The first digit of a size.
    SizeStart,
    Size,
    /// White space behind the size: extensions, or the line's end. Two numbers are none.
    Padding,
    /// Extensions.
    Extension,
    SizeLineFeed,
    Content,
    ContentReturn,
    ContentLineFeed,
    /// The first byte of a trailer, or of the empty line that ends the body.
    TrailerStart,
    Trailer,
    TrailerLineFeed,
    LastLineFeed,
    Done,
}

/// The front of some bytes of a body: first what frames it, then content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Bytes to drop.
    pub framing: usize,
    /// Bytes of content behind them.
    pub content: usize,
}

impl Body {
    /// A chunked body of which nothing has come.
    pub const CHUNKED: Self = Self::Chunked(Chunked { state: State::SizeStart, line_bytes: 0, left: 0 });
    /// No body.
    pub const NONE: Self = Self::Length(0);

    /// Whether all of it has come.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunked { state: State::Done, .. }))
    }

    /// Looks at the front of `bytes`, which follow what was taken before. Framing counts as taken by this; of the content
    /// [`take`](Self::take) says how much was.
    ///
    /// A piece without content is all of `bytes`, or the end of the body.
    ///
    /// # Errors
    /// [`RequestError::BadChunk`] 400: no size, a line end that is none, a size over 64 bits, or a line over its bound.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Piece, RequestError> {
        let at_most = |left: u64, room: usize| usize::try_from(left).unwrap_or(usize::MAX).min(room);
        match self {
            Self::Length(left) => Ok(Piece { framing: 0, content: at_most(*left, bytes.len()) }),
            Self::Chunked(chunked) => {
                let mut framing = 0;
                while framing < bytes.len() && !matches!(chunked.state, State::Content | State::Done) {
                    chunked.step(bytes[framing])?;
                    framing += 1;
                }
                let is_content = matches!(chunked.state, State::Content);
                let content = if is_content { at_most(chunked.left, bytes.len() - framing) } else { 0 };
                Ok(Piece { framing, content })
            }
        }
    }

    /// So many bytes of the content were taken: at most what the last [`next`](Self::next) gave.
    pub fn take(&mut self, content: usize) {
        match self {
            Self::Length(left) => *left -= content as u64,
            Self::Chunked(chunked) => {
                chunked.left -= content as u64;
                if chunked.left == 0 && matches!(chunked.state, State::Content) {
                    chunked.state = State::ContentReturn;
                }
            }
        }
    }
}

impl Chunked {
    /// Takes one byte of framing.
    fn step(&mut self, byte: u8) -> Result<(), RequestError> {
        let refuse = |what| Err(RequestError::BadChunk { what });
        let bound = match self.state {
            State::TrailerStart | State::Trailer | State::TrailerLineFeed | State::LastLineFeed => TRAILER_BYTES_MAX,
            _ => SIZE_LINE_BYTES_MAX,
        };
        self.line_bytes += 1;
        if self.line_bytes > bound {
            return refuse("a size line or trailers over their bound");
        }
        self.state = match (self.state, byte) {
            (State::SizeStart | State::Size, byte) if byte.is_ascii_hexdigit() => {
                if self.left >> 60 != 0 {
                    return refuse("a size over 64 bits");
                }
                let digit = char::from(byte).to_digit(16).expect("it was looked at");
                self.left = self.left << 4 | u64::from(digit);
                State::Size
            }
            (State::Size | State::Padding, b' ' | b'\t') => State::Padding,
            (State::Size | State::Padding, b';') => State::Extension,
            (State::Size | State::Padding | State::Extension, b'\r') => State::SizeLineFeed,
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => State::Extension,
            (State::SizeLineFeed, b'\n') => {
                self.line_bytes = 0;
                if self.left == 0 { State::TrailerStart } else { State::Content }
            }
            (State::ContentReturn, b'\r') => State::ContentLineFeed,
            (State::ContentLineFeed, b'\n') => {
                self.line_bytes = 0;
                State::SizeStart
            }
            (State::TrailerStart, b'\r') => State::LastLineFeed,
            (State::LastLineFeed, b'\n') => State::Done,
            (State::Trailer, b'\r') => State::TrailerLineFeed,
            (State::TrailerLineFeed, b'\n') => State::TrailerStart,
            (State::TrailerStart | State::Trailer, b'\t' | b' '..=b'~' | 0x80..) => State::Trailer,
            (State::SizeStart, _) => return refuse("no size where a chunk begins"),
            (State::ContentReturn | State::ContentLineFeed, _) => return refuse("no line end behind a chunk"),
            _ => return refuse("a line end or control character where none may be"),
        };
        Ok(())
    }
}
