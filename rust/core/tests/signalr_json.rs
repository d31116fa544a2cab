//! JSON hub messages: what ASP.NET Core 10 wrote is read and written byte by byte, its quirks are ours.
use std::borrow::Cow;

use fanwire_core::protocol::signalr::{
    CLOSE_ERROR, HubMessage, HubProtocol, JSON_DEPTH_MAX, MessageError, Outcome, parse_message, write_message,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn parse(text: &str) -> Result<HubMessage<'_>, MessageError> {
    parse_message(HubProtocol::Json, text.as_bytes())
}

fn error(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

fn write(message: &HubMessage<'_>) -> String {
    let mut out = b"before".to_vec();
    write_message(HubProtocol::Json, message, &mut out);
    String::from_utf8(out).unwrap().strip_prefix("before").unwrap().to_owned()
}

fn invocation<'a>(id: Option<&'a str>, target: &'a str, arguments: &'a str) -> HubMessage<'a> {
    HubMessage::Invocation {
        id: id.map(Cow::Borrowed),
        target: target.into(),
        arguments: arguments.as_bytes(),
        stream_ids: vec![],
    }
}

fn completion<'a>(id: &'a str, outcome: Outcome<'a>) -> HubMessage<'a> {
    HubMessage::Completion { id: id.into(), outcome }
}

/// What a hub of ASP.NET Core 10.0.12 sent, captured from its WebSocket.
fn captured() -> Vec<(&'static str, HubMessage<'static>)> {
    let failed = "An unexpected error occurred invoking 'Fail' on the server. HubException: why <not>";
    let odds = r#"{"match":"m1","s":0,"t":0,"home":1.5,"draw":3.5,"away":6.5,"pad":null}"#;
    vec![
        ("{\"type\":3,\"invocationId\":\"1\",\"result\":null}\x1e", completion("1", Outcome::Result(b"null"))),
        (
            "{\"type\":3,\"invocationId\":\"2\",\"result\":\"ä+<>&'\\\"\\\\\\u0001\"}\x1e",
            completion("2", Outcome::Result("\"ä+<>&'\\\"\\\\\\u0001\"".as_bytes())),
        ),
        (
            "{\"type\":3,\"invocationId\":\"3\",\"error\":\"An unexpected error occurred invoking 'Fail' on the \
             server. HubException: why <not>\"}\x1e",
            completion("3", Outcome::Error(failed.into())),
        ),
        ("{\"type\":3,\"invocationId\":\"4\"}\x1e", completion("4", Outcome::Void)),
        ("{\"type\":2,\"invocationId\":\"4\",\"item\":0}\x1e", HubMessage::StreamItem { id: "4".into(), item: b"0" }),
        (
            "{\"type\":1,\"invocationId\":\"s1\",\"target\":\"Question\",\"arguments\":[\"q?\"]}\x1e",
            invocation(Some("s1"), "Question", r#"["q?"]"#),
        ),
        (
            "{\"type\":1,\"target\":\"Announcement\",\"arguments\":[\"hi\"]}\x1e",
            invocation(None, "Announcement", r#"["hi"]"#),
        ),
        (
            "{\"type\":3,\"invocationId\":\"6\",\"result\":{\"match\":\"m1\",\"s\":0,\"t\":0,\"home\":1.5,\
             \"draw\":3.5,\"away\":6.5,\"pad\":null}}\x1e",
            completion("6", Outcome::Result(odds.as_bytes())),
        ),
        ("{\"type\":6}\x1e", HubMessage::Ping),
        ("{\"type\":7}\x1e", HubMessage::Close { error: None, allow_reconnect: false }),
        (
            "{\"type\":7,\"error\":\"Connection closed with an error.\",\"allowReconnect\":true}\x1e",
            HubMessage::Close { error: Some(CLOSE_ERROR.into()), allow_reconnect: true },
        ),
        ("{\"type\":8,\"sequenceId\":3}\x1e", HubMessage::Ack { sequence_id: 3 }),
        ("{\"type\":9,\"sequenceId\":3}\x1e", HubMessage::Sequence { sequence_id: 3 }),
    ]
}

/// What Microsoft.AspNetCore.SignalR.Client 10 sent, captured from its WebSocket.
fn captured_from_client() -> Vec<(&'static str, HubMessage<'static>)> {
    vec![
        (
            "{\"type\":1,\"invocationId\":\"1\",\"target\":\"EchoText\",\"arguments\":[\"ä+<>\"]}\x1e",
            invocation(Some("1"), "EchoText", "[\"ä+<>\"]"),
        ),
        ("{\"type\":1,\"target\":\"Nothing\",\"arguments\":[]}\x1e", invocation(None, "Nothing", "[]")),
        (
            "{\"type\":1,\"invocationId\":\"2\",\"target\":\"Sum\",\"arguments\":[],\"streamIds\":[\"1\"]}\x1e",
            HubMessage::Invocation {
                id: Some("2".into()),
                target: "Sum".into(),
                arguments: b"[]",
                stream_ids: vec!["1".into()],
            },
        ),
        ("{\"type\":2,\"invocationId\":\"1\",\"item\":1}\x1e", HubMessage::StreamItem { id: "1".into(), item: b"1" }),
        ("{\"type\":3,\"invocationId\":\"1\"}\x1e", completion("1", Outcome::Void)),
        (
            "{\"type\":4,\"invocationId\":\"3\",\"target\":\"Count\",\"arguments\":[500,20]}\x1e",
            HubMessage::StreamInvocation {
                id: "3".into(),
                target: "Count".into(),
                arguments: b"[500,20]",
                stream_ids: vec![],
            },
        ),
        ("{\"type\":5,\"invocationId\":\"3\"}\x1e", HubMessage::CancelInvocation { id: "3".into() }),
        ("{\"type\":3,\"invocationId\":\"s1\",\"result\":\"yes\"}\x1e", completion("s1", Outcome::Result(b"\"yes\""))),
    ]
}

#[test]
fn what_both_ends_of_the_reference_sent_is_read_and_written_byte_by_byte() {
    for (record, message) in captured().into_iter().chain(captured_from_client()) {
        assert_eq!(parse(record.strip_suffix('\x1e').unwrap()).as_ref(), Ok(&message), "{record}");
        assert_eq!(write(&message), record);
    }
    assert_eq!(write(&HubMessage::Ping).as_bytes(), HubProtocol::Json.ping());
}

#[test]
fn streams_and_cancellations_are_written_in_the_references_order() {
    let call = HubMessage::StreamInvocation {
        id: "1".into(),
        target: "Upper".into(),
        arguments: b"[]",
        stream_ids: vec!["2".into(), "3".into()],
    };
    assert_eq!(
        write(&call),
        "{\"type\":4,\"invocationId\":\"1\",\"target\":\"Upper\",\"arguments\":[],\"streamIds\":[\"2\",\"3\"]}\x1e"
    );
    let cancel = HubMessage::CancelInvocation { id: "1".into() };
    assert_eq!(write(&cancel), "{\"type\":5,\"invocationId\":\"1\"}\x1e");
}

#[test]
fn text_is_escaped_as_the_relaxed_encoder_does() {
    let target = "\0\u{8}\t\n\u{b}\u{c}\r\u{1f} \"\\/'+<>&\u{7f}\u{9f}\u{a0}¡ä€\u{fffd}😀";
    assert_eq!(
        write(&invocation(None, target, "[]")),
        "{\"type\":1,\"target\":\"\\u0000\\b\\t\\n\\u000B\\f\\r\\u001F \\\"\\\\/'+<>&\\u007F\\u009F\\u00A0¡ä€\u{fffd}😀\",\
         \"arguments\":[]}\x1e"
    );
}

#[test]
fn arguments_stay_as_they_stand_and_text_is_borrowed() {
    let text = r#" { "arguments" : [ 1.0, {"a": "\ud800"} ] , "target":"T", "x":[{}], "invocationId":"", "type":1 } "#;
    let message = parse(text).unwrap();
    assert_eq!(message, invocation(None, "T", r#"[ 1.0, {"a": "\ud800"} ]"#));
    let HubMessage::Invocation { target: Cow::Borrowed(_), arguments, .. } = message else {
        panic!("text without escapes is borrowed");
    };
    assert!(text.as_bytes().as_ptr_range().contains(&arguments.as_ptr()));
    assert_eq!(parse(r#"{"type":1,"target":"\u0054","arguments":[]}"#), Ok(invocation(None, "T", "[]")));
}

#[test]
fn of_a_member_that_stands_twice_the_last_counts() {
    assert_eq!(parse(r#"{"type":7,"\u0074ype":6}"#), Ok(HubMessage::Ping));
    assert_eq!(
        parse(r#"{"type":1,"target":"T","arguments":["a"],"arguments":["b"]}"#),
        Ok(invocation(None, "T", r#"["b"]"#))
    );
}

#[test]
fn headers_are_strings_and_dropped() {
    assert_eq!(parse(r#"{"type":6,"headers":{"a":"b","c":"\n"}}"#), Ok(HubMessage::Ping));
    assert_eq!(
        error(r#"{"type":6,"headers":{"a":1}}"#),
        "headers: expected an object of strings, got an object of other values"
    );
    assert_eq!(error(r#"{"type":6,"headers":null}"#), "headers: expected an object of strings, got null");
}

#[test]
fn an_unknown_type_is_said_and_not_read() {
    for message_type in [0, 10, 99, -1, i32::MIN, i32::MAX] {
        let text = format!(r#"{{"type":{message_type},"payload":[1,{{}}]}}"#);
        assert_eq!(parse(&text), Ok(HubMessage::Unknown { message_type }));
    }
}

#[test]
fn an_empty_target_is_the_applications_to_refuse() {
    assert_eq!(parse(r#"{"type":1,"target":"","arguments":[]}"#), Ok(invocation(None, "", "[]")));
}

#[test]
fn an_ack_may_be_any_whole_number() {
    let ack = |sequence_id| Ok(HubMessage::Ack { sequence_id });
    assert_eq!(parse(r#"{"type":8,"sequenceId":-5}"#), ack(-5));
    assert_eq!(parse(r#"{"type":8,"sequenceId":9223372036854775807}"#), ack(i64::MAX));
}

#[test]
fn what_the_reference_refuses_is_refused_with_a_reason() {
    for (text, expected) in [
        ("[]", "message: expected an object, got another value"),
        ("\"a secret\"", "message: expected an object, got another value"),
        ("{}", "type is missing"),
        (r#"{"type":null}"#, "type: expected a whole number of 32 bits, got null"),
        (r#"{"type":"6"}"#, "type: expected a whole number of 32 bits, got a string"),
        (r#"{"type":6.0}"#, "type: expected a whole number of 32 bits, got a number"),
        (r#"{"type":2147483648}"#, "type: expected a whole number of 32 bits, got a number"),
        (r#"{"type":1,"target":"T"}"#, "arguments is missing"),
        (r#"{"type":1,"arguments":[]}"#, "target is missing"),
        (r#"{"type":4,"target":"T","arguments":[]}"#, "invocationId is missing"),
        (r#"{"type":4,"target":"T","arguments":[],"invocationId":""}"#, "invocationId is missing"),
        (r#"{"type":1,"target":"T","arguments":null}"#, "arguments: expected an array, got null"),
        (r#"{"type":6,"arguments":{}}"#, "arguments: expected an array, got an object"),
        (r#"{"type":6,"invocationId":null}"#, "invocationId: expected a string, got null"),
        (r#"{"type":6,"invocationId":7}"#, "invocationId: expected a string, got a number"),
        (
            r#"{"type":6,"invocationId":"\ud800"}"#,
            "invocationId: expected a string, got a string with half a surrogate pair",
        ),
        (r#"{"type":6,"target":5}"#, "target: expected a string, got a number"),
        (r#"{"type":6,"error":null}"#, "error: expected a string, got null"),
        (r#"{"type":6,"streamIds":null}"#, "streamIds: expected an array, got null"),
        (r#"{"type":6,"streamIds":["1",null]}"#, "streamIds: expected a string, got null"),
        (r#"{"type":6,"allowReconnect":1}"#, "allowReconnect: expected a boolean, got a number"),
        (r#"{"type":6,"sequenceId":"a"}"#, "sequenceId: expected a whole number of 64 bits, got a string"),
        (r#"{"type":2,"invocationId":"1"}"#, "item is missing"),
        (r#"{"type":3}"#, "invocationId is missing"),
        (r#"{"type":3,"invocationId":"1","result":null,"error":"e"}"#, "a completion has error or result, got both"),
        (r#"{"type":5}"#, "invocationId is missing"),
        (r#"{"type":8}"#, "sequenceId is missing"),
        (r#"{"type":9}"#, "sequenceId is missing"),
    ] {
        assert_eq!(error(text), expected, "{text}");
    }
    assert_eq!(
        parse_message(HubProtocol::Json, b"{\"type\":6,\"x\":\"\xff\"}"),
        Err(MessageError::NotUtf8 { field: "message" })
    );
}

#[test]
fn what_is_no_json_or_has_something_behind_it_is_refused() {
    for text in [
        "",
        " ",
        "{",
        r#"{"type":6"#,
        r#"{"type":6,}"#,
        r#"{"type":6}}"#,
        r#"{"type":6} {"type":6}"#,
        "\u{feff}{}",
        "{'type':6}",
        "{\"type\":6,\"x\":\"\n\"}",
    ] {
        assert!(matches!(parse(text), Err(MessageError::NotJson { .. })), "{text}");
    }
}

#[test]
fn an_error_quotes_nothing_of_the_message() {
    for text in
        [r#"{"type":"a secret"}"#, r#"{"type":6,"secret":tru}"#, r#"{"secret"}"#, "\"secret\"", r#"{"type":6} secret"#]
    {
        assert!(!error(text).contains("secret"), "{text}");
    }
}

#[test]
fn depth_is_bounded_with_the_message_itself() {
    let nested =
        |depth: usize| format!("{{\"type\":6,\"x\":\"[[\\\"[\",\"y\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(parse(&nested(JSON_DEPTH_MAX - 1)), Ok(HubMessage::Ping));
    assert_eq!(parse(&nested(JSON_DEPTH_MAX)), Err(MessageError::TooDeep { depth_max: 64 }));
    assert_eq!(parse(&nested(1_000_000)), Err(MessageError::TooDeep { depth_max: 64 }));
    let wide = format!("{{\"type\":6,\"x\":[{}0]}}", "[],{},".repeat(1_000));
    assert_eq!(parse(&wide), Ok(HubMessage::Ping));
}

#[test]
fn only_what_changes_an_application_counts_in_a_sequence() {
    for (record, message) in captured() {
        let message_type = record.as_bytes()[8] - b'0';
        assert_eq!(message.message_type(), i32::from(message_type));
        assert_eq!(message.is_trackable(), message_type <= 5);
    }
}

/// Any message, its raw parts as JSON.
fn any_message(raw: &'static str, array: &'static str) -> impl Strategy<Value = HubMessage<'static>> {
    let text = || any::<String>().prop_map(Cow::<'static, str>::Owned);
    let id = || {
        any::<String>().prop_filter("an id holds something", |id| !id.is_empty()).prop_map(Cow::<'static, str>::Owned)
    };
    let ids = || prop::collection::vec(id(), 0..20);
    prop_oneof![
        (prop::option::of(id()), text(), ids()).prop_map(move |(id, target, stream_ids)| {
            HubMessage::Invocation { id, target, arguments: array.as_bytes(), stream_ids }
        }),
        (id(), text(), ids()).prop_map(move |(id, target, stream_ids)| {
            HubMessage::StreamInvocation { id, target, arguments: array.as_bytes(), stream_ids }
        }),
        id().prop_map(move |id| HubMessage::StreamItem { id, item: raw.as_bytes() }),
        (id(), text()).prop_map(|(id, error)| HubMessage::Completion { id, outcome: Outcome::Error(error) }),
        id().prop_map(|id| HubMessage::Completion { id, outcome: Outcome::Void }),
        id().prop_map(move |id| HubMessage::Completion { id, outcome: Outcome::Result(raw.as_bytes()) }),
        id().prop_map(|id| HubMessage::CancelInvocation { id }),
        (prop::option::of(text()), any::<bool>())
            .prop_map(|(error, allow_reconnect)| HubMessage::Close { error, allow_reconnect }),
        any::<i64>().prop_map(|sequence_id| HubMessage::Ack { sequence_id }),
        any::<i64>().prop_map(|sequence_id| HubMessage::Sequence { sequence_id }),
        (10..i32::MAX).prop_map(|message_type| HubMessage::Unknown { message_type }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_the_same(message in any_message(r#"{"a":[1,"\u001e"]}"#, r#"[[],null,"x"]"#)) {
        let record = write(&message);
        let body = record.strip_suffix('\x1e').unwrap();
        prop_assert!(!body.contains('\x1e'));
        prop_assert_eq!(parse(body), Ok(message));
    }

    #[test]
    fn any_invocation_is_read_as_serde_json_reads_it(target: String, id: String, ids: Vec<String>, argument: String) {
        let message = json!({"type": 1, "target": target, "invocationId": id, "streamIds": ids, "arguments": [argument]});
        let text = message.to_string();
        let Ok(HubMessage::Invocation { id: read_id, target: read_target, arguments, stream_ids }) = parse(&text) else {
            panic!("{text} is an invocation");
        };
        prop_assert_eq!(read_target, target);
        prop_assert_eq!(read_id.unwrap_or_default(), id);
        prop_assert_eq!(stream_ids, ids);
        prop_assert_eq!(serde_json::from_slice::<Value>(arguments).unwrap(), json!([argument]));
    }

    #[test]
    fn any_text_is_refused_or_read_without_a_panic(text: String) {
        let _ = parse(&text);
        let _ = parse(&format!("{{\"type\":1,\"target\":{text}}}"));
    }
}
