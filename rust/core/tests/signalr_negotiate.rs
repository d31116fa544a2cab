//! Negotiations: queries, replies in the reference's member order, redirects, ids.
use fanwire_core::protocol::signalr::MessageError;
use fanwire_core::protocol::signalr::negotiate::{
    Connect, NegotiateError, NegotiateReply, NegotiateRequest, Transport, decode_id, encode_id, parse_query,
    parse_reply, write_error, write_reply,
};
use proptest::prelude::*;

fn request(version: i32, wants_stateful_reconnect: bool) -> NegotiateRequest {
    NegotiateRequest { version, wants_stateful_reconnect }
}

fn connect(
    version: i32,
    has_stateful_reconnect: bool,
    id: &'static str,
    token: &'static str,
) -> NegotiateReply<'static> {
    NegotiateReply::Connect(Connect {
        version,
        has_stateful_reconnect,
        connection_id: id.into(),
        connection_token: token.into(),
        transports: Transport::ALL.to_vec(),
    })
}

fn write(reply: &NegotiateReply<'_>) -> String {
    let mut out = Vec::new();
    write_reply(&mut out, reply);
    String::from_utf8(out).unwrap()
}

fn error(body: &str) -> String {
    parse_reply(body.as_bytes()).expect_err(body).to_string()
}

/// Each was asked of a hub of ASP.NET Core 10.0.12.
#[test]
fn queries_are_read_as_the_reference_reads_them() {
    for (query, expected) in [
        ("", request(0, false)),
        ("negotiateVersion=1", request(1, false)),
        ("NegotiateVERSION=1&USEstatefulRECONNECT=True", request(1, true)),
        ("negotiateVersion=2", request(1, false)),
        ("negotiateVersion=%201%20", request(1, false)),
        ("negotiateVersion=%2B1", request(1, false)),
        ("negotiateVersion=+1", request(1, false)),
        ("negotiateVersion=%31", request(1, false)),
        ("negotiate%56ersion=01", request(1, false)),
        ("useStatefulReconnect=true", request(0, true)),
        ("negotiateVersion=1&useStatefulReconnect=1", request(1, false)),
        ("negotiateVersion=1&useStatefulReconnect=%20true%20&access_token=x", request(1, true)),
        ("useStatefulReconnect=true&useStatefulReconnect=true", request(0, false)),
    ] {
        assert_eq!(parse_query(query), Ok(expected), "{query}");
    }
}

#[test]
fn a_version_that_is_none_is_refused_in_the_references_words() {
    let not_integer = "{\"error\":\"The client requested a non-integer protocol version.\"}";
    for (query, expected) in [
        ("negotiateVersion=x", not_integer),
        ("negotiateVersion=", not_integer),
        ("negotiateVersion=1.0", not_integer),
        ("negotiateVersion=99999999999", not_integer),
        ("negotiateVersion=1&NegotiateVersion=1", not_integer),
        (
            "negotiateVersion=-1",
            "{\"error\":\"The client requested version '-1', but the server does not support this version.\"}",
        ),
    ] {
        let error = parse_query(query).expect_err(query);
        assert_eq!(error.status(), 200);
        let mut out = Vec::new();
        write_error(&mut out, &error.to_string());
        assert_eq!(String::from_utf8(out).unwrap(), expected, "{query}");
    }
    let error = parse_query("negotiateVersion=%ff").unwrap_err();
    assert!(matches!(error, NegotiateError::Target(_)));
    assert_eq!(error.status(), 400);
}

/// Captured from a hub of ASP.NET Core 10.0.12.
#[test]
fn replies_are_written_byte_by_byte_as_the_reference_does_and_read() {
    let transports = r#""availableTransports":[{"transport":"WebSockets","transferFormats":["Text","Binary"]},{"transport":"ServerSentEvents","transferFormats":["Text"]},{"transport":"LongPolling","transferFormats":["Text","Binary"]}]}"#;
    for (start, reply) in [
        (
            r#"{"negotiateVersion":0,"connectionId":"aWQBSsgBvGJwezd6v3BPmQ","#,
            connect(0, false, "aWQBSsgBvGJwezd6v3BPmQ", "aWQBSsgBvGJwezd6v3BPmQ"),
        ),
        (
            r#"{"negotiateVersion":1,"connectionId":"th6c7_lC6By3TqlaLRy7fQ","connectionToken":"G6YQ5vKkfHPJs0kIIhGZDA","#,
            connect(1, false, "th6c7_lC6By3TqlaLRy7fQ", "G6YQ5vKkfHPJs0kIIhGZDA"),
        ),
        (
            r#"{"useStatefulReconnect":true,"negotiateVersion":1,"connectionId":"znkUABQkN3p3xSsml9Fn0A","connectionToken":"moe6tp0yrYrVFlxjA0-xTQ","#,
            connect(1, true, "znkUABQkN3p3xSsml9Fn0A", "moe6tp0yrYrVFlxjA0-xTQ"),
        ),
    ] {
        let body = format!("{start}{transports}");
        assert_eq!(write(&reply), body);
        assert_eq!(parse_reply(body.as_bytes()), Ok(reply));
    }
}

#[test]
fn a_redirect_is_read_with_whatever_stands_beside_it() {
    let expected = NegotiateReply::Redirect { url: "https://a/b?c".into(), access_token: Some("t".into()) };
    for body in [
        r#"{"url":"https://a/b?c","accessToken":"t"}"#,
        r#"{"negotiateVersion":0,"url":"https://a/b?c","accessToken":"t","availableTransports":[]}"#,
        r#"{"accessToken":"t","connectionId":"x","url":"https:\/\/a/b?c"}"#,
    ] {
        assert_eq!(parse_reply(body.as_bytes()), Ok(expected.clone()));
    }
    assert_eq!(
        write(&expected),
        r#"{"negotiateVersion":0,"url":"https://a/b?c","accessToken":"t","availableTransports":[]}"#
    );
    let without = NegotiateReply::Redirect { url: "u".into(), access_token: None };
    assert_eq!(write(&without), r#"{"negotiateVersion":0,"url":"u","availableTransports":[]}"#);
}

#[test]
fn an_error_counts_before_all_else() {
    let body = r#"{"url":"u","error":"this hub is closed for the day","connectionId":5}"#;
    let expected = NegotiateReply::Error("this hub is closed for the day".into());
    assert_eq!(parse_reply(body.as_bytes()), Ok(expected.clone()));
    assert_eq!(write(&expected), r#"{"error":"this hub is closed for the day"}"#);
}

#[test]
fn unknown_transports_and_members_are_skipped() {
    let body = r#"{"connectionId":"i","tokenLifetimeSeconds":5,
        "availableTransports":[{"transport":"WebTransport"},{"x":1,"transport":"LongPolling"}]}"#;
    let Ok(NegotiateReply::Connect(connect)) = parse_reply(body.as_bytes()) else { panic!("it is a reply") };
    assert_eq!(connect.transports, [Transport::LongPolling]);
    assert_eq!((connect.version, &*connect.connection_token), (0, "i"));
}

#[test]
fn what_is_no_reply_is_refused_with_a_reason() {
    for (body, expected) in [
        ("{}", "connectionId is missing"),
        (r#"{"connectionId":"i"}"#, "availableTransports is missing"),
        (r#"{"connectionId":"","availableTransports":[]}"#, "connectionId is empty"),
        (r#"{"connectionId":"i","negotiateVersion":1,"availableTransports":[]}"#, "connectionToken is missing"),
        (r#"{"connectionId":"i","availableTransports":[{}]}"#, "transport is missing"),
        (r#"{"connectionId":"i","availableTransports":[5]}"#, "message: expected an object, got another value"),
        (r#"{"error":null}"#, "error: expected a string, got null"),
        (r#"{"url":5}"#, "url: expected a string, got a number"),
        (
            r#"{"ProtocolVersion":"1.5"}"#,
            "message: expected a reply of ASP.NET Core SignalR, got one of the older ASP.NET SignalR",
        ),
    ] {
        assert_eq!(error(body), expected, "{body}");
    }
    assert!(matches!(parse_reply(b"<html>"), Err(MessageError::NotJson { .. })));
}

#[test]
fn secrets_are_not_shown() {
    let redirect = NegotiateReply::Redirect { url: "u".into(), access_token: Some("a secret".into()) };
    assert!(!format!("{redirect:?}{:?}", connect(1, false, "id", "a secret")).contains("secret"));
}

#[test]
fn ids_are_22_characters_that_need_no_escape() {
    assert_eq!(encode_id(&[0xff; 16]), "_____________________w");
    assert_eq!(encode_id(&[0; 16]), "AAAAAAAAAAAAAAAAAAAAAA");
    for wrong in [
        "",
        "AAAAAAAAAAAAAAAAAAAAA",
        "AAAAAAAAAAAAAAAAAAAAAAA",
        "AAAAAAAAAAAAAAAAAAAAA+",
        "AAAAAAAAAAAAAAAAAAAAAB",
        "ääääääääääääääääääääää",
        "äääääääääää",
    ] {
        assert_eq!(decode_id(wrong), None, "{wrong}");
    }
}

proptest! {
    #[test]
    fn an_id_is_read_back(random: [u8; 16]) {
        let id = encode_id(&random);
        prop_assert_eq!(id.len(), 22);
        prop_assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        prop_assert_eq!(decode_id(&id), Some(random));
    }

    #[test]
    fn any_redirect_is_read_back(url: String, token: Option<String>) {
        let reply = NegotiateReply::Redirect { url: url.into(), access_token: token.map(Into::into) };
        let body = write(&reply);
        prop_assert_eq!(parse_reply(body.as_bytes()), Ok(reply));
    }

    #[test]
    fn any_text_is_refused_or_read_without_a_panic(text: String) {
        let _ = parse_query(&text);
        let _ = parse_reply(text.as_bytes());
        let _ = decode_id(&text);
    }
}
