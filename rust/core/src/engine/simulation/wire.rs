//! What a client reads in the bytes that its socket took, by its wire format.
use serde_json::Value;

use super::list::{Kind, List};
use crate::position::Position;
use crate::protocol::sse;

/// How a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Raw,
    Envelope,
    Sse,
    Hub,
    /// What the engine writes between messages of a framework.
    Adopted,
}

impl Wire {
    pub(super) const ALL: [Self; 4] = [Self::Raw, Self::Envelope, Self::Sse, Self::Hub];

    /// The head of its request, and what it sends behind it without waiting.
    pub(super) fn opening(
        self,
        channels: &[&str],
        since: &[Position],
        start: Option<&str>,
        filter: Option<&str>,
    ) -> Vec<u8> {
        self.offering("", channels, since, start, filter)
    }

    /// The same, of a WebSocket that offers this of permessage-deflate; an event stream's client then accepts gzip.
    pub(super) fn offering(
        self,
        offer: &str,
        channels: &[&str],
        since: &[Position],
        start: Option<&str>,
        filter: Option<&str>,
    ) -> Vec<u8> {
        let mut query: Vec<String> = channels.iter().map(|name| format!("channel={name}")).collect();
        query.extend(since.iter().map(|position| format!("since={position}")));
        query.extend(start.map(|start| format!("start={start}")));
        let escaped = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
        query.extend(filter.map(|filter| format!("filter={}", escaped(filter))));
        query.extend((self == Self::Envelope).then(|| "envelope=1".to_owned()));
        let path = ["/ws", "/ws", "/events", "/hub", ""][self as usize];
        let query = if self == Self::Hub { String::new() } else { format!("?{}", query.join("&")) };
        let mut head = format!("GET {path}{query} HTTP/1.1\r\nHost: x\r\n");
        if self == Self::Sse && !offer.is_empty() {
            head += "Accept-Encoding: gzip\r\n";
        }
        if self != Self::Sse {
            head += "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n";
            head += "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
            if !offer.is_empty() {
                head += &format!("Sec-WebSocket-Extensions: {offer}\r\n");
            }
        }
        let mut bytes = (head + "\r\n").into_bytes();
        if self == Self::Hub {
            bytes.extend(frame(1, b"{\"protocol\":\"json\",\"version\":1}\x1e"));
        }
        bytes
    }
}

/// A client's frame, masked with zeros.
pub(super) fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match payload.len() {
        short @ 0..126 => bytes.push(0x80 | short as u8),
        long => bytes.extend([0xFE, (long >> 8) as u8, long as u8]),
    }
    bytes.extend([0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

/// Something whole that came.
#[derive(Debug)]
pub(super) enum Item {
    /// A publication: its channel's place among the lists, and its index there.
    Publication(usize, usize),
    /// Where it begins: by channel's name, and whether it was recovered.
    Subscribed(Vec<(String, Position, Option<bool>)>),
    /// What was sent to it alone, by number.
    Private(usize),
    /// What many connections have written in one call, by number.
    Broadcast(usize),
    /// Where an event stream is in its channels.
    Places(Vec<Position>),
    Ping(Vec<u8>),
    Close(u16, String),
    /// Nothing to look at.
    Other,
}

/// Cuts off what is whole at the begin of `bytes`: how many, and what it says, which may be several things.
pub(super) fn read(wire: Wire, is_open: bool, bytes: &[u8], lists: &[List]) -> Option<(usize, Vec<Item>)> {
    if !is_open {
        let end = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&bytes[..end]).expect("a head is text");
        let status = if wire == Wire::Sse { "HTTP/1.1 200 " } else { "HTTP/1.1 101 " };
        assert!(head.starts_with(status), "{head}");
        return Some((end, vec![Item::Other]));
    }
    if wire == Wire::Adopted {
        return read_message(bytes, lists);
    }
    if wire == Wire::Sse {
        let end = memchr::memmem::find(bytes, b"\n\n")? + 2;
        return Some((end, read_event(&bytes[..end], lists)));
    }
    let (count, payload) = cut_frame(bytes)?;
    let items = match bytes[0] {
        0x81 => read_text(wire, std::str::from_utf8(payload).expect("UTF-8"), lists),
        0x88 => {
            let reason = String::from_utf8(payload[2..].to_vec()).expect("UTF-8");
            vec![Item::Close(u16::from_be_bytes([payload[0], payload[1]]), reason)]
        }
        0x89 => vec![Item::Ping(payload.to_vec())],
        0x8A => vec![Item::Other],
        other => panic!("no frame begins with {other:#x}"),
    };
    Some((count, items))
}

/// What inflates the messages of a server, as was agreed.
#[derive(Debug)]
pub(super) struct Inflater {
    stream: flate2::Decompress,
    takes_over: bool,
}

impl Inflater {
    /// By the server's response.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        let head = std::str::from_utf8(head).expect("a head is text");
        let agreed = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: permessage-deflate"))?;
        let bits = agreed.split("server_max_window_bits=").nth(1);
        let bits = bits.map_or(15, |bits| bits.split(';').next().unwrap_or("").trim().parse().expect("a number"));
        let stream = flate2::Decompress::new_with_window_bits(false, bits);
        Some(Self { stream, takes_over: !agreed.contains("server_no_context_takeover") })
    }

    /// A whole message.
    pub(super) fn inflate(&mut self, data: &[u8]) -> Vec<u8> {
        let (mut out, mut input) = (Vec::with_capacity(1 << 16), [data, &[0, 0, 0xff, 0xff]].concat());
        while !input.is_empty() {
            let before = self.stream.total_in();
            let status = self.stream.decompress_vec(&input, &mut out, flate2::FlushDecompress::Sync).expect("DEFLATE");
            assert!(status != flate2::Status::StreamEnd, "a stream never ends");
            input.drain(..(self.stream.total_in() - before) as usize);
        }
        if !self.takes_over {
            self.stream.reset(false);
        }
        out
    }
}

/// What reads an event stream that is a gzip stream.
#[derive(Debug)]
pub(super) struct Gunzip {
    stream: flate2::Decompress,
    /// Of the header.
    left: usize,
    /// So much of what has come and is no whole record was read, and stands for this.
    taken: usize,
    plain: Vec<u8>,
}

impl Gunzip {
    /// By the server's response.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        let found = memchr::memmem::find(head, b"\r\nContent-Encoding: gzip\r\n");
        let stream = flate2::Decompress::new(false);
        found.map(|_| Self { stream, left: 10, taken: 0, plain: Vec::new() })
    }

    /// How much of `bytes`, whose begin may have been read, a record takes; and the record.
    pub(super) fn cut(&mut self, bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
        while self.taken < bytes.len() {
            let byte = bytes[self.taken];
            self.taken += 1;
            if self.left > 0 {
                let known = [0x1f, 0x8b, 8, 0].get(10 - self.left);
                assert!(known.is_none_or(|&known| known == byte), "no header of gzip");
                self.left -= 1;
                continue;
            }
            self.plain.reserve(1 << 10); // more than one byte can stand for
            let status = self.stream.decompress_vec(&[byte], &mut self.plain, flate2::FlushDecompress::Sync);
            assert!(status.expect("DEFLATE") == flate2::Status::Ok, "a stream never ends");
            if self.plain.ends_with(b"\n\n") && bytes[..self.taken].ends_with(&[0, 0, 0xff, 0xff]) {
                return Some((std::mem::take(&mut self.taken), std::mem::take(&mut self.plain)));
            }
        }
        None
    }
}

/// The length in a server's header.
pub(super) fn write_length(header: &mut Vec<u8>, length: usize) {
    match length {
        short @ 0..126 => header.push(short as u8),
        long => header.extend([126, (long >> 8) as u8, long as u8]),
    }
}

/// A server's frame at the begin of `bytes`, if it is whole: how long it is, and its payload.
pub(super) fn cut_frame(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (head, length) = match *bytes.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
        127 => panic!("nothing is so long"),
        short => (2, usize::from(short)),
    };
    assert!(bytes[1] < 128, "a server masks nothing");
    Some((head + length, bytes.get(head..head + length)?))
}

/// A message of any number of frames, with the control frames in it; one that a Close frame ends has none.
fn read_message(bytes: &[u8], lists: &[List]) -> Option<(usize, Vec<Item>)> {
    let (mut at, mut items, mut message) = (0, Vec::new(), None::<Vec<u8>>);
    loop {
        let first = *bytes.get(at)?;
        let (count, payload) = cut_frame(&bytes[at..])?;
        at += count;
        let text = || std::str::from_utf8(payload).expect("UTF-8");
        match first {
            0x01 | 0x81 => assert!(message.replace(payload.to_vec()).is_none(), "a message in another"),
            0x00 | 0x80 => message.as_mut().expect("it goes on, and has not begun").extend_from_slice(payload),
            0x88 => {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                let reason = std::str::from_utf8(&payload[2..]).expect("UTF-8");
                items.push(Item::Close(code, reason.to_owned()));
                return Some((at, items));
            }
            0x89 if payload.is_empty() => items.push(Item::Ping(Vec::new())),
            0x89 => items.push(read_payload(text(), lists)),
            other => panic!("no frame begins with {other:#x}"),
        }
        if first & 0x80 != 0
            && let Some(message) = message.take_if(|_| first != 0x89)
        {
            items.push(read_payload(std::str::from_utf8(&message).expect("UTF-8"), lists));
            return Some((at, items));
        }
        if message.is_none() {
            return Some((at, items));
        }
    }
}

fn read_text(wire: Wire, text: &str, lists: &[List]) -> Vec<Item> {
    if wire == Wire::Hub {
        let records = text.strip_suffix('\x1e').expect("whole records").split('\x1e');
        return records.map(|record| read_record(&parse(record), lists)).collect();
    }
    if wire == Wire::Raw && !text.starts_with('{') {
        return vec![read_payload(text, lists)];
    }
    let object = parse(text);
    if let Some(error) = object.get("error") {
        assert!(error.as_str().is_some_and(|error| error.contains("no keyframe")), "{error}");
        return vec![Item::Other];
    }
    if let Some(result) = object.get("result") {
        return vec![read_result(result)];
    }
    assert_eq!(wire, Wire::Envelope, "{text}");
    let item = read_payload(object["data"].as_str().expect("text"), lists);
    if let Item::Publication(channel, index) = item {
        let (list, one) = (&lists[channel], &lists[channel].all[index]);
        assert_eq!(object["channel"], list.name.as_str());
        assert_eq!(object["position"], serde_json::json!([one.position.epoch, one.position.offset]));
        assert_eq!(object["keyframe"].as_bool(), (one.kind != Kind::Plain).then_some(true));
    } else {
        assert!(object.get("channel").is_none() && object.get("position").is_none(), "{text}");
    }
    vec![item]
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text:?} is no JSON: {error}"))
}

fn read_record(record: &Value, lists: &[List]) -> Item {
    match record["type"].as_u64() {
        Some(1) => read_payload(record["arguments"][0].as_str().expect("text"), lists),
        Some(7) => Item::Close(0, record["error"].as_str().unwrap_or("").to_owned()),
        _ => Item::Other, // the answer to the handshake, a ping
    }
}

fn read_result(result: &Value) -> Item {
    let Some(positions) = result.get("positions").and_then(Value::as_object) else { return Item::Other };
    let position = |one: &Value| Position {
        epoch: one[0].as_u64().expect("a number"),
        offset: one[1].as_u64().expect("a number"),
    };
    let recovered = |name: &str| result["recovered"].get(name).and_then(Value::as_bool);
    let all = positions.iter().map(|(name, one)| (name.clone(), position(one), recovered(name)));
    Item::Subscribed(all.collect())
}

/// `channel|index|filling`, or `p|number|filling`.
fn read_payload(text: &str, lists: &[List]) -> Item {
    let mut parts = text.split('|');
    let (name, number, filling) = (parts.next(), parts.next(), parts.next());
    let number: usize = number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("as published: {text}"));
    assert!(filling.is_some_and(|filling| filling.bytes().all(|byte| byte == b'x')), "it is torn: {text:?}");
    if name == Some("p") {
        return Item::Private(number);
    }
    if name == Some("b") {
        return Item::Broadcast(number);
    }
    let channel = lists.iter().position(|list| Some(list.name.as_str()) == name).expect("a channel's");
    assert!(number < lists[channel].all.len(), "{text} was never published");
    Item::Publication(channel, number)
}

fn read_event(event: &[u8], lists: &[List]) -> Vec<Item> {
    if event == sse::KEEPALIVE {
        return vec![Item::Other];
    }
    let text = std::str::from_utf8(event).expect("UTF-8").strip_suffix("\n\n").expect("a whole event");
    let (mut ids, mut name, mut data) = (Vec::new(), None, None);
    for line in text.split('\n') {
        match line.split_once(": ").expect("a field") {
            ("id", id) => ids.push(id),
            ("event", event) => assert_eq!(name.replace(event), None),
            ("data", line) => assert_eq!(data.replace(line), None, "two lines of data: two events were mixed"),
            other => panic!("{other:?}"),
        }
    }
    if data.is_none() && name.is_none() && ids.len() == 1 {
        return vec![Item::Places(ids[0].split(',').map(|one| one.parse().expect("a position")).collect())];
    }
    let data = data.expect("data");
    if name == Some("subscribed") {
        let result = parse(data);
        return vec![if result.get("error").is_some() { Item::Other } else { read_result(&result) }];
    }
    let mut items = vec![read_payload(data, lists)];
    if let Item::Publication(channel, index) = items[0] {
        let list = &lists[channel];
        let position = list.all[index].position;
        if list.settings.history_frames > 0 {
            assert!(!ids.is_empty() && ids.remove(0) == position.to_string());
        }
    }
    if let Some(last) = ids.pop() {
        items.push(Item::Places(last.split(',').map(|one| one.parse().expect("a position")).collect()));
    }
    assert!(ids.is_empty());
    items
}
