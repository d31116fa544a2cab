//! A publication in each format: raw frames as RFC 6455 has them, SSE records as a browser reads them.
use fanwire_core::Position;
use fanwire_core::protocol::signalr::HubProtocol;
use fanwire_core::protocol::signalr::negotiate::Transport;
use fanwire_core::protocol::sse::{self, is_valid_event, is_valid_id};
use fanwire_core::protocol::{
    Encoded, Encoding, Format, Formats, Framing, MissingEncoding, Payload, Stamp, frame_bytes_max, write_frame,
};
use proptest::prelude::*;

fn frame(format: Format, payload: Payload<'_>, event: Option<&str>) -> Vec<u8> {
    let mut out = Vec::new();
    write_frame(format, &payload, event, None, &mut out).expect("the encoding is there");
    assert!(out.len() <= frame_bytes_max(format, &payload, event, None));
    out
}

const BOTH: Payload<'_> = Payload::Object(Encoded::alike(Some(b"{}"), Some(b"\x80")));

#[test]
fn formats_have_places_and_bits_of_their_own() {
    for (index, format) in Format::ALL.into_iter().enumerate() {
        assert_eq!(format.index(), index);
        assert_eq!(Formats::from(format).to_bits(), 1 << index);
        assert_eq!(Formats::from(format).only(), Some(format));
    }
    assert_eq!(Formats::from_bits(u16::MAX).iter().collect::<Vec<_>>(), Format::ALL, "other bits are no formats");
}

#[test]
fn a_format_is_an_encoding_a_framing_and_a_transport() {
    let parts = |format: Format| (format.encoding(), format.framing(), format.transport(), format.is_gzip());
    let all: std::collections::HashSet<_> = Format::ALL.into_iter().map(parts).collect();
    assert_eq!(all.len(), Format::COUNT, "no two are made of the same");
    for format in Format::ALL {
        let of_hub = format.hub_protocol().and_then(|protocol| Format::of_hub(protocol, format.transport()));
        assert!(of_hub == Some(format) || format.hub_protocol().is_none());
        let is_of_hub = matches!(format.encoding(), Encoding::HubJson | Encoding::HubMsgpack);
        assert_eq!(is_of_hub, matches!(format.framing(), Framing::Hub(_)), "{format:?}");
    }
    assert_eq!(Format::of_hub(HubProtocol::MessagePack, Transport::ServerSentEvents), None, "events are text");
    let within = Format::ALL.into_iter().filter_map(|format| Some((format, format.within_gzip()?)));
    assert_eq!(within.collect::<Vec<_>>(), [(Format::SseGzip, Format::Sse)]);
}

#[test]
fn a_set_of_formats_has_what_was_put_in() {
    let one = Formats::from(Format::Raw);
    let both: Formats = [Format::Raw, Format::EnvelopeMsgpack].into_iter().collect();
    assert_eq!(one.and(Format::EnvelopeMsgpack.into()), both);
    assert_eq!(
        (both.without(one).only(), both.only(), Formats::default().only()),
        (Some(Format::EnvelopeMsgpack), None, None)
    );
    assert!(both.has(Format::Raw) && !both.has(Format::Sse) && Formats::default().is_empty() && !one.is_empty());
}

#[test]
fn raw_formats_frame_text_binary_and_objects() {
    for format in [Format::Raw, Format::RawMsgpack] {
        assert_eq!(frame(format, Payload::Text("ä"), Some("ignored")), b"\x81\x02\xc3\xa4");
        assert_eq!(frame(format, Payload::Binary(b"\xff"), None), b"\x82\x01\xff");
    }
    assert_eq!(frame(Format::Raw, BOTH, None), b"\x81\x02{}");
    assert_eq!(frame(Format::RawMsgpack, BOTH, None), b"\x82\x01\x80");
}

#[test]
fn an_object_without_the_encoding_of_the_format_is_refused_and_writes_nothing() {
    let only_json = Payload::Object(Encoded::alike(Some(b"{}"), None));
    let mut out = Vec::new();
    let error = write_frame(Format::RawMsgpack, &only_json, None, None, &mut out).unwrap_err();
    assert_eq!(error, MissingEncoding { format: Format::RawMsgpack, encoding: Encoding::Msgpack });
    assert_eq!(error.to_string(), "format RawMsgpack needs the object as Msgpack, which was not given");
    let none = Payload::Object(Encoded::default());
    assert!(write_frame(Format::Sse, &none, None, None, &mut out).is_err());
    assert_eq!(frame_bytes_max(Format::Sse, &none, None, None), 0);
    assert!(out.is_empty());
}

#[test]
fn an_sse_record_has_a_data_line_for_each_line() {
    let record = frame(Format::Sse, Payload::Text("a\r\n\rb\n c"), Some("goal"));
    assert_eq!(record, b"event: goal\ndata: a\ndata: \ndata: b\ndata:  c\n\n");
    assert_eq!(frame(Format::Sse, Payload::Text(""), None), b"data: \n\n");
    assert_eq!(frame(Format::Sse, BOTH, None), b"data: {}\n\n");
    assert_eq!(frame(Format::Sse, Payload::Binary(b"\xff\xfe"), None), b"data: //4=\n\n");
}

#[test]
fn an_sse_record_may_have_an_id() {
    let mut out = Vec::new();
    sse::write_text(&mut out, Some("1-2"), Some("goal"), b"a");
    assert_eq!(out, b"id: 1-2\nevent: goal\ndata: a\n\n");
}

#[test]
fn what_is_no_event_name_or_id_forges_no_field() {
    assert!(!is_valid_event("a\nb") && !is_valid_event("a\r") && is_valid_event("tor: 1"));
    assert!(!is_valid_id("a\0") && !is_valid_id("\n") && is_valid_id("1-2"));
    assert_eq!(frame(Format::Sse, Payload::Text("a"), Some("x\ndata: evil")), b"data: a\n\n");
}

/// One event as a browser dispatches it.
#[derive(Debug, PartialEq, Eq)]
struct Event {
    name: String,
    data: String,
    last_id: String,
}

/// Reads a stream as WHATWG HTML §9.2.6 says, simply.
fn read_stream(stream: &str) -> Vec<Event> {
    let (mut name, mut data, mut last_id, mut events) = (String::new(), String::new(), String::new(), vec![]);
    for line in stream.replace("\r\n", "\n").replace('\r', "\n").split_terminator('\n') {
        if line.is_empty() {
            if data.pop().is_some() {
                let name = std::mem::take(&mut name);
                events.push(Event { name, data: std::mem::take(&mut data), last_id: last_id.clone() });
            }
            name.clear();
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => name = value.to_owned(),
            "data" => data += &format!("{value}\n"),
            "id" if !value.contains('\0') => last_id = value.to_owned(),
            _ => {}
        }
    }
    events
}

#[test]
fn a_hub_s_formats_carry_invocations_in_whole_records() {
    let json = b"{\"type\":1,\"target\":\"odds\",\"arguments\":[{}]}\x1e";
    let msgpack = b"\x0c\x96\x01\x80\xc0\xa4odds\x91\x80\x90";
    let in_frame = |opcode, payload: &[u8]| [&[opcode, payload.len() as u8], payload].concat();
    let event = Some("odds");
    assert_eq!(frame(Format::HubJson, BOTH, event), in_frame(0x81, json));
    assert_eq!(frame(Format::HubMsgpack, BOTH, event), in_frame(0x82, &msgpack[..]));
    assert_eq!(frame(Format::HubSse, BOTH, event), [b"data: ", &json[..], b"\r\n\r\n"].concat());
    assert_eq!(frame(Format::HubPollJson, BOTH, event), json);
    assert_eq!(frame(Format::HubPollMsgpack, BOTH, event), msgpack);
}

#[test]
fn a_hub_s_arguments_are_text_bytes_an_object_or_several() {
    let json = |payload| String::from_utf8(frame(Format::HubPollJson, payload, None)).expect("JSON is text");
    let invocation = |arguments| format!("{{\"type\":1,\"target\":\"message\",\"arguments\":{arguments}}}\u{1e}");
    assert_eq!(json(Payload::Text("a \"b\"")), invocation(r#"["a \"b\""]"#));
    assert_eq!(json(Payload::Binary(b"\x00\xff")), invocation(r#"["AP8="]"#));
    let several = Payload::Arguments(Encoded::alike(Some(b"[1,2]"), Some(b"\x92\x01\x02")));
    assert_eq!(json(several), invocation("[1,2]"));
    assert_eq!(frame(Format::Raw, several, None), b"\x81\x05[1,2]");
    let msgpack = |payload| frame(Format::HubPollMsgpack, payload, Some("x"));
    assert_eq!(msgpack(Payload::Binary(b"\x00\xff")), b"\x0c\x96\x01\x80\xc0\xa1x\x91\xc4\x02\x00\xff\x90");
    assert_eq!(msgpack(several), b"\x0a\x96\x01\x80\xc0\xa1x\x92\x01\x02\x90");
}

proptest! {
    #[test]
    fn a_browser_reads_each_record_as_one_event(
        texts in prop::collection::vec(prop_oneof![any::<String>(), "[a\r\n: ]{0,12}"], 0..5),
        event in prop::option::of("[^\r\n]{0,9}"),
        id in "[^\r\n\0]{0,9}",
    ) {
        let mut out = Vec::new();
        for text in &texts {
            let start = out.len();
            sse::write_text(&mut out, Some(&id), event.as_deref(), text.as_bytes());
            let bytes_max = sse::text_bytes_max(Some(&id), event.as_deref(), text.as_bytes());
            prop_assert!(out.len() - start <= bytes_max);
            out.extend_from_slice(sse::KEEPALIVE);
        }
        let events = read_stream(std::str::from_utf8(&out).unwrap());
        let expected: Vec<_> = texts
            .iter()
            .map(|text| Event {
                name: event.clone().unwrap_or_default(),
                data: text.replace("\r\n", "\n").replace('\r', "\n"),
                last_id: id.clone(),
            })
            .collect();
        prop_assert_eq!(events, expected);
    }

    #[test]
    fn the_room_to_reserve_is_enough_for_what_is_escaped(
        text in "[\\x00-\\x1f\"\\\\a]{0,400}",
        event in prop::option::of("[\\x01-\\x09\"\\\\a]{0,100}"),
    ) {
        let position = Position { epoch: u64::MAX, offset: u64::MAX };
        let stamp = Some(Stamp { channel: &text, position, is_keyframe: true, has_id: true });
        for format in [Format::Envelope, Format::EnvelopeMsgpack] {
            for payload in [Payload::Text(&text), Payload::Binary(text.as_bytes())] {
                let mut out = Vec::new();
                write_frame(format, &payload, event.as_deref(), stamp, &mut out).expect("no object");
                prop_assert!(out.len() <= frame_bytes_max(format, &payload, event.as_deref(), stamp));
            }
        }
    }

    #[test]
    fn the_room_to_reserve_is_enough(
        text: String,
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        event in prop::option::of(any::<String>()),
    ) {
        for format in Format::ALL {
            frame(format, Payload::Text(&text), event.as_deref());
            let record = frame(format, Payload::Binary(&bytes), event.as_deref());
            let bytes_max = frame_bytes_max(format, &Payload::Binary(&bytes), event.as_deref(), None);
            let is_exact = matches!(format, Format::Raw | Format::RawMsgpack | Format::Sse | Format::SseGzip);
            prop_assert!(record.len() == bytes_max || !is_exact && record.len() < bytes_max);
        }
    }
}
