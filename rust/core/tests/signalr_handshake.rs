//! Handshakes: what is asked, what is answered, and the texts that clients may match on.
use fanwire_core::protocol::signalr::handshake::{
    AGREED, HandshakeError, HandshakeRequest, ReplyError, parse_reply, parse_request, write_refusal, write_request,
};
use fanwire_core::protocol::signalr::{HubProtocol, RECORD_BYTES_MAX, RecordReceiver};
use proptest::prelude::*;

const BOTH: &[HubProtocol] = &[HubProtocol::Json, HubProtocol::MessagePack];

fn parse(text: &str) -> Result<HandshakeRequest, HandshakeError> {
    parse_request(text.as_bytes(), BOTH)
}

fn refusal(error: &HandshakeError) -> String {
    let mut out = Vec::new();
    write_refusal(&mut out, error, false);
    String::from_utf8(out).unwrap()
}

fn request(protocol: HubProtocol, version: i32) -> HandshakeRequest {
    HandshakeRequest { protocol, version }
}

#[test]
fn a_request_is_written_as_stock_clients_do_and_read() {
    for (protocol, version, expected) in [
        (HubProtocol::Json, 1, "{\"protocol\":\"json\",\"version\":1}\x1e"),
        (HubProtocol::MessagePack, 2, "{\"protocol\":\"messagepack\",\"version\":2}\x1e"),
    ] {
        let mut out = Vec::new();
        write_request(&mut out, request(protocol, version));
        assert_eq!(out, expected.as_bytes());
        assert_eq!(parse(expected.strip_suffix('\x1e').unwrap()), Ok(request(protocol, version)));
    }
    assert!(request(HubProtocol::Json, 2).has_stateful_reconnect());
    assert!(!request(HubProtocol::Json, 1).has_stateful_reconnect());
}

#[test]
fn what_the_reference_agrees_to_is_agreed_to() {
    for (text, protocol, version) in [
        (r#"{"protocol":"JSON","version":1}"#, HubProtocol::Json, 1),
        (r#"{"protocol":"MessagePack","version":1}"#, HubProtocol::MessagePack, 1),
        (r#"{"protocol":"json","version":0}"#, HubProtocol::Json, 0),
        (r#"{"protocol":"json","version":-1}"#, HubProtocol::Json, -1),
        (r#" {"version":1,"x":[{}],"protocol":"json"} "#, HubProtocol::Json, 1),
        (r#"{"protocol":"json","protocol":"messagepack","version":1}"#, HubProtocol::MessagePack, 1),
    ] {
        assert_eq!(parse(text), Ok(request(protocol, version)), "{text}");
    }
}

/// Each reply was captured from a hub of ASP.NET Core 10.0.12.
#[test]
fn what_the_reference_refuses_is_refused_in_its_words() {
    let unexpected = "{\"error\":\"An unexpected error occurred during connection handshake.\"}\x1e";
    for (text, expected) in [
        (r#"{"protocol":"x","version":1}"#, "{\"error\":\"The protocol 'x' is not supported.\"}\x1e"),
        (r#"{"protocol":"","version":1}"#, "{\"error\":\"The protocol '' is not supported.\"}\x1e"),
        (
            r#"{"protocol":"a\"<+\u00e4\u0001'","version":1}"#,
            "{\"error\":\"The protocol 'a\\\"<+ä\\u0001'' is not supported.\"}\x1e",
        ),
        (
            r#"{"protocol":"Json","version":3}"#,
            "{\"error\":\"The server does not support version 3 of the 'Json' protocol.\"}\x1e",
        ),
        (r#"{"protocol":"json","version":"1"}"#, unexpected),
        (r#"{"protocol":"json","version":1.0}"#, unexpected),
        (r#"{"protocol":"json","version":null}"#, unexpected),
        (r#"{"protocol":"json","version":99999999999}"#, unexpected),
        (r#"{"protocol":"json"}"#, unexpected),
        (r#"{"version":1}"#, unexpected),
        (r#"{"protocol":5,"version":1}"#, unexpected),
        (r#"{"type":6}"#, unexpected),
        ("[]", unexpected),
        ("", unexpected),
    ] {
        assert_eq!(refusal(&parse(text).expect_err(text)), expected, "{text}");
    }
}

#[test]
fn a_protocol_that_is_not_offered_is_not_supported() {
    let error = parse_request(br#"{"protocol":"messagepack","version":1}"#, &[HubProtocol::Json]).unwrap_err();
    assert_eq!(error.to_string(), "The protocol 'messagepack' is not supported.");
}

#[test]
fn messagepack_on_server_sent_events_has_its_own_words() {
    assert_eq!(
        HandshakeError::UnsupportedFormat.to_string(),
        "Cannot use the 'messagepack' protocol on the current transport. The transport does not support 'Binary' \
         transfer format."
    );
}

#[test]
fn a_handshake_above_the_bound_is_canceled() {
    let mut receiver = RecordReceiver::new(HubProtocol::Json);
    let text = format!("{{\"protocol\":\"json\",\"version\":1,\"x\":\"{}", "a".repeat(RECORD_BYTES_MAX));
    let error = receiver.receive(text.as_bytes(), RECORD_BYTES_MAX).unwrap_err();
    assert_eq!(refusal(&error.into()), "{\"error\":\"Handshake was canceled.\"}\x1e");
}

#[test]
fn a_client_tells_agreement_from_refusal_and_other_messages() {
    assert_eq!(parse_reply(AGREED.strip_suffix(b"\x1e").unwrap()), Ok(()));
    assert_eq!(parse_reply(br#"{"minorVersion":0,"error":""}"#), Ok(()));
    assert_eq!(parse_reply(br#"{"error":"no"}"#), Err(ReplyError::Refused { error: "no".into() }));
    assert_eq!(parse_reply(br#"{"type":6}"#), Err(ReplyError::NoReply));
    let error = |body| parse_reply(body).unwrap_err().to_string();
    assert_eq!(error(br#"{"error":5}"#), "reply to the handshake: error: expected a string, got a number");
    assert_eq!(error(br#"{"error":null}"#), "reply to the handshake: error: expected a string, got null");
    assert!(matches!(parse_reply(b"{"), Err(ReplyError::Malformed(_))));
}

proptest! {
    #[test]
    fn a_client_reads_any_refusal(protocol: String, version in 3..i32::MAX) {
        let errors = [
            HandshakeError::UnsupportedProtocol { protocol: protocol.as_str().into() },
            HandshakeError::UnsupportedVersion { version, protocol: protocol.into() },
        ];
        for error in errors {
            let text = refusal(&error);
            let expected = ReplyError::Refused { error: error.to_string().into() };
            prop_assert_eq!(parse_reply(text.strip_suffix('\x1e').unwrap().as_bytes()), Err(expected));
        }
    }

    #[test]
    fn any_text_is_refused_or_read_without_a_panic(text: String) {
        let _ = parse(&text);
        let _ = parse_reply(text.as_bytes());
    }
}
