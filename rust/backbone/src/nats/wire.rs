//! The bytes of NATS's core protocol. No socket.
use std::time::{SystemTime, UNIX_EPOCH};

/// A line of control is no longer: the server's own INFO names all servers of a cluster.
const LINE_BYTES_MAX: usize = 1 << 20;
/// What a message has at most: the server's own bound is 64 MiB, and an answer has that in base64.
const MESSAGE_BYTES_MAX: usize = 96 << 20;

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said<'a> {
    Info(&'a [u8]),
    Message(Message<'a>),
    Ping,
    Pong,
    Fine,
    /// Its words.
    Error(&'a str),
}

/// A message as it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) subject: &'a str,
    /// Of which subscription.
    pub(crate) sid: u64,
    headers: &'a [u8],
    pub(crate) payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// What the server says in the place of an answer, as 503 where nobody answers.
    pub(crate) fn status(&self) -> Option<u16> {
        let line = self.headers.strip_prefix(b"NATS/1.0 ")?;
        std::str::from_utf8(line.get(..3)?).ok()?.parse().ok()
    }

    /// A header's value, and the last one where a publisher has written such a header, too.
    pub(crate) fn header(&self, name: &str) -> Option<&'a str> {
        let text = std::str::from_utf8(self.headers).ok()?;
        let of = |line: &'a str| line.split_once(':').filter(|(its, _)| *its == name).map(|(_, value)| value.trim());
        text.lines().filter_map(of).next_back()
    }

    /// The same of a number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.header(name)?.parse().ok()
    }
}

/// Reads what stands at the front, and how long it is; `None` while it is not whole.
///
/// # Errors
/// It is not NATS's protocol; in words.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<(Said<'_>, usize)>, String> {
    let Some(end) = bytes.iter().take(LINE_BYTES_MAX).position(|&byte| byte == b'\n') else {
        return if bytes.len() < LINE_BYTES_MAX { Ok(None) } else { Err("a line of it has no end".to_owned()) };
    };
    let line = std::str::from_utf8(&bytes[..end]).map_err(|_| "a line of it is no text".to_owned())?.trim_end();
    let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let after = end + 1;
    let said = match word.to_ascii_uppercase().as_str() {
        "INFO" => Said::Info(rest.trim().as_bytes()),
        "MSG" | "HMSG" => return message(bytes, line, word.len() == 4, after),
        "PING" => Said::Ping,
        "PONG" => Said::Pong,
        "+OK" => Said::Fine,
        "-ERR" => Said::Error(rest.trim().trim_matches('\'')),
        _ => return Err(format!("it says {:?}", line.chars().take(60).collect::<String>())),
    };
    Ok(Some((said, after)))
}

fn message<'a>(
    bytes: &'a [u8],
    line: &'a str,
    has_headers: bool,
    after: usize,
) -> Result<Option<(Said<'a>, usize)>, String> {
    let bad = || format!("it says {:?}", line.chars().take(60).collect::<String>());
    let mut parts = line.split_ascii_whitespace().skip(1);
    let (subject, sid) = (parts.next().ok_or_else(bad)?, parts.next().ok_or_else(bad)?);
    let mut numbers: Vec<&str> = parts.collect(); // perhaps a subject for answers before them
    let mut number = || numbers.pop().and_then(|text| text.parse::<usize>().ok()).ok_or_else(bad);
    let total = number()?;
    let headers = if has_headers { number()? } else { 0 };
    if total > MESSAGE_BYTES_MAX || headers > total {
        return Err(bad());
    }
    let Some(whole) = bytes.get(after..after + total + 2) else { return Ok(None) };
    let (headers, payload) = whole[..total].split_at(headers);
    let sid = sid.parse().map_err(|_| bad())?;
    Ok(Some((Said::Message(Message { subject, sid, headers, payload }), after + total + 2)))
}

/// Writes a publication, in these parts.
pub(crate) fn publish(out: &mut Vec<u8>, subject: &str, reply: &str, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.extend_from_slice(format!("PUB {subject} {reply} {length}\r\n").as_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.extend_from_slice(b"\r\n");
}

/// Milliseconds since 1970 of `2026-11-29T21:49:53.123456789Z`, as the server writes times.
pub(crate) fn milliseconds(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let fraction = text.get(19..)?.strip_suffix('Z')?;
    let digits = fraction.strip_prefix('.').unwrap_or("");
    let thousandths: u64 = format!("{digits:0<3}").get(..3)?.parse().ok()?;
    if year < 1970 || !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    // The year begins in March, so that a leap day is its last.
    let (from, months) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = from * 365 + from / 4 - from / 100 + from / 400 + (153 * months + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000 + thousandths)
}

/// Now, in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_server_says_is_read_whole_or_not_yet() {
        let bytes = b"HMSG a.b 7 _INBOX.x 38 41\r\nNATS/1.0 204 EOB\r\nNats-Sequence: 5\r\n\r\nabc\r\nPING\r\n";
        for cut in 0..bytes.len() - 6 {
            assert_eq!(read(&bytes[..cut]), Ok(None), "{cut}");
        }
        let (said, length) = read(bytes).unwrap().unwrap();
        let Said::Message(message) = said else { panic!("{said:?}") };
        assert_eq!((message.subject, message.sid, message.payload), ("a.b", 7, &b"abc"[..]));
        assert_eq!((message.status(), message.number("Nats-Sequence")), (Some(204), Some(5)));
        assert_eq!(read(&bytes[length..]), Ok(Some((Said::Ping, 6))));
        let (said, _) = read(b"MSG x 1 2\r\nhi\r\n").unwrap().unwrap();
        assert!(matches!(said, Said::Message(Message { payload: b"hi", .. })));
        assert_eq!(read(b"-ERR 'No way'\r\n"), Ok(Some((Said::Error("No way"), 15))));
        for bad in [&b"HTTP/1.1 400\r\n"[..], b"MSG x\r\n", b"MSG x 1 99999999999\r\n", b"HMSG x 1 9 2\r\nhi\r\n"] {
            assert!(read(bad).is_err());
        }
    }

    #[test]
    fn times_are_read() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00.5Z", 951_825_600_500),
            ("2026-11-29T21:49:53.123456789Z", 1_795_988_993_123),
        ] {
            assert_eq!(milliseconds(text), Some(ms), "{text}");
        }
        for text in ["", "x", "2026-11-29", "2026-11-29T21:49:53+01:00"] {
            assert_eq!(milliseconds(text), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_error_or_something(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }

        #[test]
        fn any_text_is_a_time_or_none(text in ".{0,40}") {
            let _ = milliseconds(&text);
        }
    }
}
