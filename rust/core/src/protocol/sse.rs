//! Server-Sent Events (WHATWG HTML §9.2): a publication is one record, which `EventSource` makes one event.
//!
//! Two things an event stream cannot carry: bytes, which go as base64 (RFC 4648 §4), and the difference between line
//! ends, which all arrive as `\n` (§9.2.6). JSON has no line ends inside strings and loses nothing.
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A comment, to be sent while nothing else is: proxies then keep the connection (WHATWG HTML §9.2.7).
pub const KEEPALIVE: &[u8] = b":\n\n";

/// Whether `event` may name an event: it has no line end (WHATWG HTML §9.2.5).
pub fn is_valid_event(event: &str) -> bool {
    memchr::memchr2(b'\r', b'\n', event.as_bytes()).is_none()
}

/// Whether `id` may be an id, which comes back as `Last-Event-ID`: no line end and no NUL (WHATWG HTML §9.2.6).
pub fn is_valid_id(id: &str) -> bool {
    memchr::memchr3(b'\r', b'\n', 0, id.as_bytes()).is_none()
}

/// How many bytes [`write_text`] appends at most.
pub fn text_bytes_max(id: Option<&str>, event: Option<&str>, text: &[u8]) -> usize {
    let line_end_count = memchr::memchr2_iter(b'\r', b'\n', text).count();
    fields_bytes(id, event) + text.len() + (line_end_count + 1) * "data: \n".len() + 1
}

/// How many bytes [`write_binary`] appends.
pub fn binary_bytes(id: Option<&str>, event: Option<&str>, bytes: &[u8]) -> usize {
    fields_bytes(id, event) + "data: \n\n".len() + base64_bytes(bytes)
}

/// Appends one record: `id` and `event` where given, then a `data` line for each line of `text`, then an empty line.
///
/// Lines end with `\r\n`, `\n` or `\r` (WHATWG HTML §9.2.5); the client joins them with `\n`. `text` must be UTF-8.
/// An `id` or `event` that is not valid is left out, so that no text can forge a field.
pub fn write_text(out: &mut Vec<u8>, id: Option<&str>, event: Option<&str>, text: &[u8]) {
    write_fields(out, id, event);
    let mut rest = text;
    while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
        write_line(out, "data: ", &rest[..at]);
        let line_end_bytes = if rest[at..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = &rest[at + line_end_bytes..];
    }
    write_line(out, "data: ", rest);
    out.push(b'\n');
}

/// Appends what ends a record in place of its empty line: an `id` line that counts instead of an earlier one (WHATWG HTML
/// §9.2.6: the last does), then the empty line. An `id` that is not valid is left out.
pub fn write_ending(out: &mut Vec<u8>, id: Option<&str>) {
    write_fields(out, id, None);
    out.push(b'\n');
}

/// The records that were written one behind the other, each with its empty line; what is cut off at the end is one, too.
pub fn records(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let end = memchr::memmem::find(rest, b"\n\n").map_or(rest.len(), |at| at + 2);
        let (record, behind) = rest.split_at(end);
        rest = behind;
        (!record.is_empty()).then_some(record)
    })
}

/// The id of a record as it is written here: its first field.
pub fn id_of(record: &[u8]) -> Option<&str> {
    let line = record.strip_prefix(b"id: ")?;
    let end = memchr::memchr(b'\n', line)?;
    std::str::from_utf8(&line[..end]).ok()
}

/// Appends one record whose data is `bytes` in base64 (RFC 4648 §4), with `id` and `event` as in [`write_text`].
pub fn write_binary(out: &mut Vec<u8>, id: Option<&str>, event: Option<&str>, bytes: &[u8]) {
    write_fields(out, id, event);
    out.extend_from_slice(b"data: ");
    let start = out.len();
    out.resize(start + base64_bytes(bytes), 0);
    STANDARD.encode_slice(bytes, &mut out[start..]).expect("the room is as long as base64 with padding makes it");
    out.extend_from_slice(b"\n\n");
}

fn write_fields(out: &mut Vec<u8>, id: Option<&str>, event: Option<&str>) {
    if let Some(id) = id.filter(|id| is_valid_id(id)) {
        write_line(out, "id: ", id.as_bytes());
    }
    if let Some(event) = event.filter(|event| is_valid_event(event)) {
        write_line(out, "event: ", event.as_bytes());
    }
}

fn write_line(out: &mut Vec<u8>, field: &str, value: &[u8]) {
    out.extend_from_slice(field.as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn fields_bytes(id: Option<&str>, event: Option<&str>) -> usize {
    let id_bytes = id.filter(|id| is_valid_id(id)).map_or(0, |id| "id: \n".len() + id.len());
    let event = event.filter(|event| is_valid_event(event));
    id_bytes + event.map_or(0, |event| "event: \n".len() + event.len())
}

const fn base64_bytes(bytes: &[u8]) -> usize {
    bytes.len().div_ceil(3) * 4
}
