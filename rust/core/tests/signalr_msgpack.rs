//! MessagePack hub messages: what ASP.NET Core 10 wrote is read and written byte by byte, its quirks are ours.
use std::borrow::Cow;

use fanwire_core::protocol::signalr::{
    CLOSE_ERROR, HubMessage, HubProtocol, MSGPACK_DEPTH_MAX, MessageError, Outcome, parse_message, write_message,
};
use proptest::prelude::*;

fn parse(body: &[u8]) -> Result<HubMessage<'_>, MessageError> {
    parse_message(HubProtocol::MessagePack, body)
}

fn error(body: &[u8]) -> String {
    parse(body).expect_err("the message is wrong").to_string()
}

fn write(message: &HubMessage<'_>) -> Vec<u8> {
    let mut out = b"before".to_vec();
    write_message(HubProtocol::MessagePack, message, &mut out);
    out.strip_prefix(b"before").unwrap().to_vec()
}

fn invocation<'a>(id: Option<&'a str>, target: &'a str, arguments: &'a [u8]) -> HubMessage<'a> {
    HubMessage::Invocation { id: id.map(Cow::Borrowed), target: target.into(), arguments, stream_ids: vec![] }
}

fn completion<'a>(id: &'a str, outcome: Outcome<'a>) -> HubMessage<'a> {
    HubMessage::Completion { id: id.into(), outcome }
}

/// What a hub of ASP.NET Core 10.0.12 sent, captured from its WebSocket.
fn captured() -> Vec<(&'static [u8], HubMessage<'static>)> {
    let failed = "An unexpected error occurred invoking 'Fail' on the server. HubException: x";
    vec![
        (b"\x07\x95\x03\x80\xa11\x03\xc0", completion("1", Outcome::Result(b"\xc0"))),
        (b"\n\x95\x03\x80\xa12\x03\xa3a\xc3\xa4", completion("2", Outcome::Result(b"\xa3a\xc3\xa4"))),
        (
            b"S\x95\x03\x80\xa13\x01\xd9KAn unexpected error occurred invoking 'Fail' on the server. HubException: x",
            completion("3", Outcome::Error(failed.into())),
        ),
        (b"\x06\x94\x02\x80\xa14\x00", HubMessage::StreamItem { id: "4".into(), item: b"\0" }),
        (b"\x14\x96\x01\x80\xa2s2\xa8Question\x91\xa2q?\x90", invocation(Some("s2"), "Question", b"\x91\xa2q?")),
        (b"\x16\x96\x01\x80\xc0\xacAnnouncement\x91\xa2hi\x90", invocation(None, "Announcement", b"\x91\xa2hi")),
        (b"\x06\x94\x03\x80\xa14\x02", completion("4", Outcome::Void)),
        (b"\x03\x92\x08\x06", HubMessage::Ack { sequence_id: 6 }),
        (b"\x03\x92\x09\x01", HubMessage::Sequence { sequence_id: 1 }),
        (b"\x02\x91\x06", HubMessage::Ping),
        (b"\x04\x93\x07\xc0\xc2", HubMessage::Close { error: None, allow_reconnect: false }),
        (
            b"%\x93\x07\xd9 Connection closed with an error.\xc3",
            HubMessage::Close { error: Some(CLOSE_ERROR.into()), allow_reconnect: true },
        ),
    ]
}

/// What Microsoft.AspNetCore.SignalR.Client 10 sent, captured from its WebSocket.
fn captured_from_client() -> Vec<(&'static [u8], HubMessage<'static>)> {
    vec![
        (
            b"\x16\x96\x01\x80\xa11\xa8EchoText\x91\xa5\xc3\xa4+<>\x90",
            invocation(Some("1"), "EchoText", b"\x91\xa5\xc3\xa4+<>"),
        ),
        (b"\x0e\x96\x01\x80\xc0\xa7Nothing\x90\x90", invocation(None, "Nothing", b"\x90")),
        (
            b"\x0d\x96\x01\x80\xa12\xa3Sum\x90\x91\xa11",
            HubMessage::Invocation {
                id: Some("2".into()),
                target: "Sum".into(),
                arguments: b"\x90",
                stream_ids: vec!["1".into()],
            },
        ),
        (b"\x06\x94\x02\x80\xa11\x01", HubMessage::StreamItem { id: "1".into(), item: b"\x01" }),
        (b"\x06\x94\x03\x80\xa11\x02", completion("1", Outcome::Void)),
        (
            b"\x11\x96\x04\x80\xa13\xa5Count\x92\xcd\x01\xf4\x14\x90",
            HubMessage::StreamInvocation {
                id: "3".into(),
                target: "Count".into(),
                arguments: b"\x92\xcd\x01\xf4\x14",
                stream_ids: vec![],
            },
        ),
        (b"\x05\x93\x05\x80\xa13", HubMessage::CancelInvocation { id: "3".into() }),
        (b"\x0b\x95\x03\x80\xa2s1\x03\xa3yes", completion("s1", Outcome::Result(b"\xa3yes"))),
    ]
}

#[test]
fn what_both_ends_of_the_reference_sent_is_read_and_written_byte_by_byte() {
    for (record, message) in captured().into_iter().chain(captured_from_client()) {
        assert_eq!(parse(&record[1..]).as_ref(), Ok(&message), "{record:02x?}");
        assert_eq!(write(&message), record);
    }
    assert_eq!(write(&HubMessage::Ping), HubProtocol::MessagePack.ping());
}

#[test]
fn streams_and_cancellations_are_written_in_the_references_order() {
    let call = HubMessage::StreamInvocation {
        id: "1".into(),
        target: "Upper".into(),
        arguments: b"\x90",
        stream_ids: vec!["2".into(), "3".into()],
    };
    assert_eq!(write(&call), b"\x11\x96\x04\x80\xa11\xa5Upper\x90\x92\xa12\xa13");
    let cancel = HubMessage::CancelInvocation { id: "1".into() };
    assert_eq!(write(&cancel), b"\x05\x93\x05\x80\xa11");
}

#[test]
fn sizes_and_numbers_take_the_fewest_bytes() {
    let prefix = |error: usize| {
        let error = "e".repeat(error);
        let close = HubMessage::Close { error: Some(error.clone().into()), allow_reconnect: false };
        let record = write(&close);
        let body_at = record.windows(2).position(|pair| pair == b"\x93\x07").unwrap();
        assert_eq!(parse(&record[body_at..]), Ok(close));
        (record[..body_at].to_vec(), record[body_at + 2..record.len() - error.len() - 1].to_vec())
    };
    assert_eq!(prefix(0), (vec![4], vec![0xa0]));
    assert_eq!(prefix(31), (vec![35], vec![0xbf]));
    assert_eq!(prefix(32), (vec![37], vec![0xd9, 32]));
    assert_eq!(prefix(122), (vec![0x7f], vec![0xd9, 122]));
    assert_eq!(prefix(123), (vec![0x80, 1], vec![0xd9, 123]));
    assert_eq!(prefix(255), (vec![0x84, 2], vec![0xd9, 255]));
    assert_eq!(prefix(256), (vec![0x86, 2], vec![0xda, 1, 0]));
    assert_eq!(prefix(0xffff), (vec![0x85, 0x80, 4], vec![0xda, 0xff, 0xff]));
    assert_eq!(prefix(0x1_0000), (vec![0x88, 0x80, 4], vec![0xdb, 0, 1, 0, 0]));

    for (number, expected) in [
        (0, &b"\x00"[..]),
        (0x7f, b"\x7f"),
        (0x80, b"\xcc\x80"),
        (0xff, b"\xcc\xff"),
        (0x100, b"\xcd\x01\x00"),
        (0xffff, b"\xcd\xff\xff"),
        (0x1_0000, b"\xce\x00\x01\x00\x00"),
        (0xffff_ffff, b"\xce\xff\xff\xff\xff"),
        (0x1_0000_0000, b"\xcf\x00\x00\x00\x01\x00\x00\x00\x00"),
        (i64::MAX, b"\xcf\x7f\xff\xff\xff\xff\xff\xff\xff"),
        (-1, b"\xff"),
        (-0x20, b"\xe0"),
        (-0x21, b"\xd0\xdf"),
        (-0x80, b"\xd0\x80"),
        (-0x81, b"\xd1\xff\x7f"),
        (-0x8000, b"\xd1\x80\x00"),
        (-0x8001, b"\xd2\xff\xff\x7f\xff"),
        (-0x8000_0000, b"\xd2\x80\x00\x00\x00"),
        (-0x8000_0001, b"\xd3\xff\xff\xff\xff\x7f\xff\xff\xff"),
        (i64::MIN, b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00"),
    ] {
        let record = write(&HubMessage::Ack { sequence_id: number });
        assert_eq!(&record[3..], expected, "{number}");
        assert_eq!(parse(&record[1..]), Ok(HubMessage::Ack { sequence_id: number }));
    }
}

#[test]
fn an_invocation_of_five_elements_has_no_streams() {
    assert_eq!(parse(b"\x95\x01\x80\xa17\xa1T\x91\xa1x"), Ok(invocation(Some("7"), "T", b"\x91\xa1x")));
}

#[test]
fn an_invocation_with_nil_or_an_empty_id_wants_no_completion() {
    assert_eq!(parse(b"\x96\x01\x80\xc0\xa1T\x90\x90"), Ok(invocation(None, "T", b"\x90")));
    assert_eq!(parse(b"\x96\x01\x80\xa0\xa1T\x90\x90"), Ok(invocation(None, "T", b"\x90")));
}

#[test]
fn a_number_may_take_more_bytes_than_it_needs() {
    assert_eq!(parse(b"\x91\xd2\0\0\0\x06"), Ok(HubMessage::Ping));
    assert_eq!(parse(b"\x91\xcf\0\0\0\0\0\0\0\x06"), Ok(HubMessage::Ping));
    assert_eq!(parse(b"\xdd\0\0\0\x01\x06"), Ok(HubMessage::Ping));
}

#[test]
fn elements_of_newer_versions_are_skipped() {
    assert_eq!(parse(b"\x92\x06\xc0"), Ok(HubMessage::Ping));
    assert_eq!(
        parse(b"\x97\x01\x80\xa17\xa1T\x90\x90\x92\x81\x01\xc4\x01\xff\xc0"),
        Ok(invocation(Some("7"), "T", b"\x90"))
    );
    assert_eq!(parse(b"\x93\x63\xc1\xc1"), Ok(HubMessage::Unknown { message_type: 99 }));
    assert_eq!(parse(b"\x91\xff"), Ok(HubMessage::Unknown { message_type: -1 }));
}

#[test]
fn headers_hold_something_and_are_dropped() {
    assert_eq!(
        parse(b"\x93\x05\x82\xa1a\xa1b\xa1c\xd9\x01d\xa11"),
        Ok(HubMessage::CancelInvocation { id: "1".into() })
    );
    assert_eq!(parse(b"\x93\x05\xde\0\x01\xa1a\xa1b\xa11"), Ok(HubMessage::CancelInvocation { id: "1".into() }));
    assert_eq!(error(b"\x93\x05\xc0\xa11"), "headers: expected a map, got nil");
    assert_eq!(error(b"\x93\x05\x81\xa1a\xa0\xa11"), "headers is empty");
    assert_eq!(error(b"\x93\x05\x81\xa1a\x01\xa11"), "headers: expected a string, got a number");
    assert_eq!(error(b"\x93\x05\xdf\xff\xff\xff\xff\xa1a"), "message ends inside headers");
}

#[test]
fn a_close_may_leave_out_whether_to_reconnect() {
    assert_eq!(parse(b"\x92\x07\xc0"), Ok(HubMessage::Close { error: None, allow_reconnect: false }));
    assert_eq!(error(b"\x91\x07"), "error is missing");
}

#[test]
fn an_error_of_nil_is_none() {
    assert_eq!(parse(b"\x95\x03\x80\xa11\x01\xc0"), Ok(completion("1", Outcome::Void)));
    assert_eq!(parse(b"\x95\x03\x80\xa11\x01\xa0"), Ok(completion("1", Outcome::Error("".into()))));
}

#[test]
fn what_the_reference_refuses_is_refused_with_a_reason() {
    for (body, expected) in [
        (&b""[..], "message ends inside message"),
        (b"\x06", "message: expected an array, got a number"),
        (b"\x90", "type is missing"),
        (b"\x91\xc0", "type: expected a whole number of 64 bits, got nil"),
        (b"\x91\xca\x3f\x80\0\0", "type: expected a whole number of 64 bits, got a number"),
        (b"\x91\xce\xff\xff\xff\xff", "type: expected a whole number of 32 bits, got a number above them"),
        (b"\x96\x01\x80\x07\xa1T\x90\x90", "invocationId: expected a string, got a number"),
        (b"\x96\x01\x80\xc4\x017\xa1T\x90\x90", "invocationId: expected a string, got bytes"),
        (b"\x96\x01\x80\xa17\xc0\x90\x90", "target: expected a string, got nil"),
        (b"\x96\x01\x80\xa17\xa0\x90\x90", "target is empty"),
        (b"\x96\x04\x80\xc0\xa1T\x90\x90", "invocationId: expected a string, got nil"),
        (b"\x96\x04\x80\xa0\xa1T\x90\x90", "invocationId is empty"),
        (b"\x96\x01\x80\xa17\xa1T\x90\xc0", "streamIds: expected an array, got nil"),
        (b"\x96\x01\x80\xa17\xa1T\x90\x91\xc0", "streamIds: expected a string, got nil"),
        (b"\x96\x01\x80\xa17\xa1T\x90\x91\xa0", "streamIds is empty"),
        (b"\x94\x03\x80\xa11\x00", "result kind is 0, expected 1, 2 or 3"),
        (b"\x94\x03\x80\xa11\x04", "result kind is 4, expected 1, 2 or 3"),
        (b"\x94\x03\x80\xa11\x01", "error is missing"),
        (b"\x93\x07\xc0\x01", "allowReconnect: expected a boolean, got a number"),
        (b"\x92\x08\xca\0\0\0\0", "sequenceId: expected a whole number of 64 bits, got a number"),
        (b"\x92\x08\xcf\x80\0\0\0\0\0\0\0", "sequenceId: expected a whole number of 64 bits, got a number above them"),
        (b"\x91\x08", "sequenceId is missing"),
    ] {
        assert_eq!(error(body), expected, "{body:02x?}");
    }
}

#[test]
fn we_refuse_more_than_the_reference() {
    for (body, expected) in [
        (&b"\x91\x06\xc0"[..], "1 bytes follow the message, expected none"),
        (b"\x94\x01\x80\xa17\xa1T\x90", "arguments is missing"),
        (b"\x96\x01\x80\xa1\xff\xa1T\x90\x90", "invocationId is not UTF-8"),
        (b"\x96\x01\x80\xa17\xa1T\xc0\x90", "arguments: expected an array, got nil"),
        (
            b"\x96\x01\x80\xa17\xa1T\x91\xc1\x90",
            "arguments: expected MessagePack, got the byte 0xc1, which is never used",
        ),
        (b"\x92\x06\xc1", "an unknown element: expected MessagePack, got the byte 0xc1, which is never used"),
    ] {
        assert_eq!(error(body), expected, "{body:02x?}");
    }
}

#[test]
fn an_announced_size_costs_nothing() {
    for size in [
        &b"\xdd\xff\xff\xff\xff"[..],
        b"\x91\xdd\xff\xff\xff\xff",
        b"\x91\xdf\xff\xff\xff\xff",
        b"\x91\xdb\xff\xff\xff\xff",
        b"\x91\xc9\xff\xff\xff\xff",
        b"\x91\xc6\xff\xff\xff\xff",
        b"\xdc\xff\xff",
    ] {
        let body = [b"\x96\x01\x80\xa17\xa1T", size, b"\x90"].concat();
        assert_eq!(error(&body), "message ends inside arguments", "{size:02x?}");
    }
    assert_eq!(error(b"\xdd\xff\xff\xff\xff\x06"), "message ends inside message");
    assert_eq!(error(b"\x96\x01\x80\xa17\xa1T\x90\xdd\xff\xff\xff\xff"), "message ends inside streamIds");
}

#[test]
fn every_kind_of_value_is_walked_over() {
    let item = b"\xdc\x00\x1f\x00\xff\xc0\xc2\xc3\xc4\x01a\xc5\x00\x01a\xc6\x00\x00\x00\x01a\xc7\x01\x05a\xc8\x00\x01\x05a\
        \xc9\x00\x00\x00\x01\x05a\xca1234\xcb12345678\xcc1\xcd12\xce1234\xcf12345678\xd01\xd112\xd21234\xd312345678\xd4ta\
        \xd5tab\xd6tabcd\xd7tabcdefgh\xd8tabcdefghijklmnop\xd9\x01a\xda\x00\x01a\xdb\x00\x00\x00\x01a\xa2ab\x81a\x92\xdd\
        \x00\x00\x00\x01\xde\x00\x01aa\xdf\x00\x00\x00\x01aa";
    let body = [&b"\x94\x02\x80\xa11"[..], item].concat();
    assert_eq!(parse(&body), Ok(HubMessage::StreamItem { id: "1".into(), item }));
    for end in 0..body.len() {
        assert!(parse(&body[..end]).is_err(), "{end} bytes are a part");
    }
}

#[test]
fn depth_is_bounded_without_recursion() {
    let nested = |depth: usize| [&b"\x96\x01\x80\xa17\xa1T"[..], &vec![0x91; depth - 1], b"\x90\x90"].concat();
    assert!(parse(&nested(MSGPACK_DEPTH_MAX)).is_ok());
    assert!(parse(&nested(MSGPACK_DEPTH_MAX + 1)).is_ok(), "an empty array opens nothing");
    assert_eq!(parse(&nested(MSGPACK_DEPTH_MAX + 2)), Err(MessageError::TooDeep { depth_max: 500 }));
    assert_eq!(parse(&nested(1_000_000)), Err(MessageError::TooDeep { depth_max: 500 }));
    let wide = [&b"\x94\x02\x80\xa11\xdc\xff\xff"[..], &[0x90; 0xffff]].concat();
    assert!(parse(&wide).is_ok());
}

/// A well-formed value.
fn any_value() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        Just(vec![0xc0]),
        (0x00..0x80_u8).prop_map(|number| vec![number]),
        any::<u32>().prop_map(|number| [&[0xce], &number.to_be_bytes()[..]].concat()),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| [&[0xc4, bytes.len() as u8], &bytes[..]].concat()),
        "[a-zä]{0,10}".prop_map(|text| [&[0xd9, text.len() as u8], text.as_bytes()].concat()),
    ];
    leaf.prop_recursive(6, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|members| array_of(0x90, members.len(), &members)),
            prop::collection::vec(inner, 0..3).prop_map(|members| array_of(
                0x80,
                members.len(),
                &[members.clone(), members].concat()
            )),
        ]
    })
}

fn array_of(marker: u8, count: usize, members: &[Vec<u8>]) -> Vec<u8> {
    [vec![marker | count as u8], members.concat()].concat()
}

proptest! {
    #[test]
    fn what_is_written_is_read_the_same(
        values in prop::collection::vec(any_value(), 0..10),
        id in ".{1,300}",
        target in ".{1,20}",
        stream_ids in prop::collection::vec(".{1,3}", 0..20),
        wants_completion: bool,
    ) {
        let arguments = array_of(0x90, values.len(), &values);
        let ids: Vec<_> = stream_ids.iter().map(|id| Cow::Borrowed(id.as_str())).collect();
        let mut messages = vec![
            HubMessage::Invocation {
                id: wants_completion.then(|| id.as_str().into()),
                target: target.as_str().into(),
                arguments: &arguments,
                stream_ids: ids.clone(),
            },
            HubMessage::StreamInvocation {
                id: id.as_str().into(),
                target: target.as_str().into(),
                arguments: &arguments,
                stream_ids: ids,
            },
            completion(&id, Outcome::Error(target.as_str().into())),
            completion(&id, Outcome::Void),
            HubMessage::CancelInvocation { id: id.as_str().into() },
            HubMessage::Unknown { message_type: 300 },
        ];
        messages.extend(values.iter().map(|item| HubMessage::StreamItem { id: id.as_str().into(), item }));
        messages.extend(values.iter().map(|result| completion(&id, Outcome::Result(result))));
        for message in messages {
            let record = write(&message);
            let prefix_bytes = record.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
            prop_assert_eq!(parse(&record[prefix_bytes..]), Ok(message));
        }
    }

    #[test]
    fn any_bytes_are_refused_or_read_without_a_panic(bytes: Vec<u8>) {
        let _ = parse(&bytes);
        let _ = parse(&[b"\x96\x01\x80\xa17\xa1T", &bytes[..]].concat());
    }
}
