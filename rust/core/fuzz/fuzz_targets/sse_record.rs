//! Invariant: any text and event name make exactly one record, which a browser reads back, within the room promised.
//!
//! The text up to the first `|` is the event's name.
#![no_main]
use fanwire_core::protocol::sse::is_valid_event;
use fanwire_core::protocol::{Format, Payload, frame_bytes_max, write_frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let (event, text) = input.split_once('|').map_or((None, input), |(event, text)| (Some(event), text));
    let payload = Payload::Text(text);
    let mut out = Vec::new();
    write_frame(Format::Sse, &payload, event, None, &mut out).expect("text needs no encoding");
    assert!(out.len() <= frame_bytes_max(Format::Sse, &payload, event, None));

    let record = std::str::from_utf8(&out).expect("text stays text");
    let fields = record.strip_suffix("\n\n").expect("a record ends with an empty line");
    let (mut name, mut data) = (None, Vec::new());
    for line in fields.split('\n') {
        assert!(!line.contains('\r'));
        match line.split_once(": ").expect("each line has a field") {
            ("event", value) => name = Some(value),
            ("data", value) => data.push(value),
            (field, _) => panic!("nobody wrote {field}"),
        }
    }
    assert_eq!(name, event.filter(|event| is_valid_event(event)));
    assert_eq!(data.join("\n"), text.replace("\r\n", "\n").replace('\r', "\n"));

    let binary = Payload::Binary(input.as_bytes());
    for format in Format::ALL {
        out.clear();
        write_frame(format, &binary, event, None, &mut out).expect("bytes need no encoding");
        assert!(out.len() <= frame_bytes_max(format, &binary, event, None));
    }
});
