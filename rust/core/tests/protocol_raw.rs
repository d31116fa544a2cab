//! Requests on the raw WebSocket: what is one, what is wrong with it, what is answered.
use std::borrow::Cow;

use fanwire_core::protocol::raw::Since;
use fanwire_core::protocol::{Request, parse_request, write_reply_error, write_reply_result};
use proptest::prelude::*;
use serde_json::{Value, json};

fn channels(names: &[&'static str]) -> Vec<Cow<'static, str>> {
    names.iter().map(|&name| Cow::Borrowed(name)).collect()
}

fn error(text: &str) -> String {
    parse_request(text).expect_err("the request is wrong").to_string()
}

#[test]
fn the_requests_of_the_documentation_are_read() {
    assert_eq!(
        parse_request(r#"{"subscribe":["a"]}"#),
        Ok(Request::Subscribe { channels: channels(&["a"]), since: None, start: None, filter: None, id: None })
    );
    assert_eq!(
        parse_request(r#"{"unsubscribe":["a","b"],"id":"x"}"#),
        Ok(Request::Unsubscribe { channels: channels(&["a", "b"]), id: Some(r#""x""#) })
    );
    assert_eq!(
        parse_request(r#"{"subscribe":["a"],"since":{"a":[18446744073709551615, 3]},"start":"live","filter":{"x":1}}"#),
        Ok(Request::Subscribe {
            channels: channels(&["a"]),
            since: Some(vec![Since { channel: "a".into(), epoch: u64::MAX, offset: 3 }]),
            start: Some("live".into()),
            filter: Some(r#"{"x":1}"#),
            id: None,
        })
    );
    assert_eq!(
        parse_request(r#" {"call":"PlaceBet","args":[1, {"a":[]}],"id":1.5e3} "#),
        Ok(Request::Call { target: "PlaceBet".into(), arguments: r#"[1, {"a":[]}]"#, id: Some("1.5e3") })
    );
}

#[test]
fn names_without_escapes_are_borrowed_and_others_decoded() {
    let Ok(Request::Subscribe { channels, .. }) = parse_request(r#"{"sub\u0073cribe":["a","\u00e4\n"]}"#) else {
        panic!("it is a request");
    };
    assert!(matches!(channels[0], Cow::Borrowed("a")));
    assert_eq!(channels[1], "ä\n");
}

#[test]
fn args_and_id_may_be_absent_or_null() {
    let expected = Ok(Request::Call { target: "f".into(), arguments: "[]", id: None });
    assert_eq!(parse_request(r#"{"call":"f"}"#), expected);
    assert_eq!(parse_request(r#"{"call":"f","args":null,"id":null}"#), expected);
}

#[test]
fn of_a_key_that_stands_twice_the_last_counts() {
    assert_eq!(
        parse_request(r#"{"subscribe":5,"id":1,"subscribe":["b"],"id":2}"#),
        Ok(Request::Subscribe { channels: channels(&["b"]), since: None, start: None, filter: None, id: Some("2") })
    );
}

#[test]
fn all_else_is_the_applications() {
    for text in [
        "",
        " ",
        "hello",
        "[1]",
        "\"subscribe\"",
        "{",
        "{}",
        r#"{"subscribe":["a"]"#,
        r#"{"subscribe":["a"]} x"#,
        r#"{"subscribe":['a']}"#,
        r#"{"id":1,"args":{}}"#,
        r#"{"Subscribe":["a"]}"#,
        r#"{"a":{"subscribe":["a"]}}"#,
        "\u{feff}{\"subscribe\":[]}",
    ] {
        assert_eq!(parse_request(text), Ok(Request::Other), "{text}");
    }
}

#[test]
fn an_error_says_what_was_expected_and_what_came() {
    for (text, expected) in [
        (r#"{"subscribe":5}"#, "subscribe: expected an array of strings, got a number"),
        (r#"{"unsubscribe":"a"}"#, "unsubscribe: expected an array of strings, got a string"),
        (r#"{"subscribe":null}"#, "subscribe: expected an array of strings, got null"),
        (r#"{"subscribe":["a",[]]}"#, "subscribe[1]: expected a string, got an array"),
        (r#"{"subscribe":["\ud800"]}"#, "subscribe[0]: expected a string, got a string with half a surrogate pair"),
        (r#"{"subscribe":[],"id":true}"#, "id: expected a string or a number, got a boolean"),
        (r#"{"call":["f"]}"#, "call: expected a string, got an array"),
        (r#"{"call":"f","args":{}}"#, "args: expected an array, got an object"),
        (r#"{"subscribe":[],"since":[]}"#, "since: expected an object of [epoch, offset], got an array"),
        (
            r#"{"subscribe":[],"since":{"a":[1,-2]}}"#,
            r#"since["a"]: expected [epoch, offset] as two whole numbers, got an array"#,
        ),
        (
            r#"{"subscribe":[],"since":{"a":[1,2],"b":7}}"#,
            r#"since["b"]: expected [epoch, offset] as two whole numbers, got a number"#,
        ),
        (
            r#"{"call":"f","subscribe":[]}"#,
            "a request has one of subscribe, unsubscribe and call, got subscribe and call",
        ),
    ] {
        assert_eq!(error(text), expected, "{text}");
    }
}

#[test]
fn an_error_knows_the_id_to_answer() {
    let id = |text| parse_request(text).unwrap_err().id;
    assert_eq!(id(r#"{"subscribe":5,"id":"x"}"#).as_deref(), Some("\"x\""));
    assert_eq!(id(r#"{"subscribe":[],"id":[]}"#), None);
}

#[test]
fn no_depth_exhausts_the_stack() {
    let deep = "[".repeat(1_000_000);
    assert_eq!(parse_request(&format!("{{\"subscribe\":{deep}")), Ok(Request::Other));
    let closed = format!("{deep}{}", "]".repeat(1_000_000));
    let text = format!("{{\"subscribe\":{closed}}}");
    assert_eq!(error(&text), "subscribe[0]: expected a string, got an array");
    let text = format!("{{\"call\":\"f\",\"args\":{closed},\"x\":{closed}}}");
    assert!(matches!(parse_request(&text), Ok(Request::Call { .. })));
}

#[test]
fn replies_are_json_with_the_id_as_it_came() {
    let mut out = Vec::new();
    write_reply_error(&mut out, Some("\"x\""), "a \"b\"\n\u{1}ä");
    let text = std::str::from_utf8(&out).unwrap();
    assert_eq!(text, r#"{"id":"x","error":"a \"b\"\n\u0001ä"}"#);
    out.clear();
    write_reply_error(&mut out, None, "e");
    write_reply_result(&mut out, Some("1"), "[2]");
    assert_eq!(out, br#"{"error":"e"}{"id":1,"result":[2]}"#);
}

proptest! {
    #[test]
    fn any_request_is_read_as_serde_json_reads_it(
        names in prop::collection::vec(any::<String>(), 0..5),
        target: String,
        id in prop::option::of(prop_oneof![any::<String>().prop_map(Value::from), any::<i64>().prop_map(Value::from)]),
        epoch: u64,
    ) {
        let since: serde_json::Map<_, _> =
            names.iter().map(|name| (name.clone(), json!([epoch, 7]))).collect();
        let mut subscribe = json!({"subscribe": names, "since": since});
        let mut call = json!({"call": target, "args": names});
        if let Some(id) = &id {
            subscribe["id"] = id.clone();
            call["id"] = id.clone();
        }
        let id_text = id.map(|id| id.to_string());

        let text = subscribe.to_string();
        let Ok(Request::Subscribe { channels, since: Some(read), id, start: None, filter: None }) = parse_request(&text) else {
            panic!("{text} is a request");
        };
        prop_assert_eq!(channels, names.clone());
        prop_assert_eq!(read.len(), since.len());
        prop_assert!(read.iter().all(|since| (since.epoch, since.offset) == (epoch, 7)));
        prop_assert_eq!(id, id_text.as_deref());

        let text = call.to_string();
        let Ok(Request::Call { target: read, arguments, id }) = parse_request(&text) else {
            panic!("{text} is a request");
        };
        prop_assert_eq!(read, target);
        prop_assert_eq!(serde_json::from_str::<Vec<String>>(arguments).unwrap(), names);
        prop_assert_eq!(id, id_text.as_deref());
    }

    #[test]
    fn any_error_text_makes_a_json_reply(error: String) {
        let mut out = Vec::new();
        write_reply_error(&mut out, Some("7"), &error);
        let reply: Value = serde_json::from_slice(&out).unwrap();
        prop_assert_eq!(reply, json!({"id": 7, "error": error}));
    }
}
