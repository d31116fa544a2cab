//! Responses (RFC 9112 §4 to §6) and the query of a target.
use fanwire_core::http::{decode_component, query_pairs, write_response, write_response_head, write_stream_head};
use proptest::prelude::*;

fn response(status: u16, headers: &[(&str, &str)], body: &str, keep_alive: bool) -> String {
    let mut out = Vec::new();
    write_response(&mut out, status, headers, "text/plain", body.as_bytes(), keep_alive);
    String::from_utf8(out).unwrap()
}

mod rfc9112_section_4_to_6_responses {
    use super::*;

    #[test]
    fn a_response_is_whole() {
        assert_eq!(
            response(404, &[("X-A", "b")], "none", true),
            "HTTP/1.1 404 Not Found\r\nX-A: b\r\nContent-Type: text/plain\r\n\
             Content-Length: 4\r\nConnection: keep-alive\r\n\r\nnone"
        );
    }

    #[test]
    fn a_response_to_head_announces_the_body_that_it_leaves_out() {
        let mut out = Vec::new();
        write_response_head(&mut out, 200, &[], "", 7, false);
        assert_eq!(out, b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\n");
    }

    #[test]
    fn statuses_without_a_body_have_none() {
        assert_eq!(response(204, &[], "none", false), "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
    }

    #[test]
    fn no_value_forges_a_header() {
        let text = response(400, &[("X-A", "b\r\nEvil: 1"), ("Evil:", "2"), ("", "3")], "", false);
        assert!(text.contains("X-A: b  Evil: 1\r\n"));
        assert_eq!(text.matches("\r\n").count(), 6, "{text}");
    }

    #[test]
    fn a_stream_head_has_no_length_and_closes() {
        let mut out = Vec::new();
        write_stream_head(&mut out, &[("Access-Control-Allow-Origin", "*")], "text/event-stream", false);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\n\
             Content-Type: text/event-stream\r\nCache-Control: no-cache,no-store\r\n\
             X-Accel-Buffering: no\r\nConnection: close\r\n\r\n"
        );
    }

    proptest! {
        #[test]
        fn every_response_is_read_back_by_httparse(
            status in 200u16..600,
            headers in prop::collection::vec(("[A-Za-z-]{1,9}", "[ -~]{0,20}"), 0..8),
            body in "[ -~]{0,50}",
        ) {
            let headers: Vec<_> =
                headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let text = response(status, &headers, &body, true);
            let mut room = [httparse::EMPTY_HEADER; 16];
            let mut read = httparse::Response::new(&mut room);
            let head_bytes = read.parse(text.as_bytes()).unwrap().unwrap();
            prop_assert_eq!(read.code, Some(status));
            for ((name, value), header) in headers.iter().zip(read.headers) {
                prop_assert_eq!(*name, header.name);
                prop_assert_eq!(value.trim().as_bytes(), header.value);
            }
            if status != 204 && status != 304 {
                prop_assert_eq!(&text[head_bytes..], body);
            }
        }
    }
}

mod query {
    use super::*;

    fn pairs(query: &str) -> Vec<(String, String)> {
        query_pairs(query)
            .map(|pair| pair.map(|(name, value)| (name.into_owned(), value.into_owned())))
            .collect::<Result<_, _>>()
            .unwrap()
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn pairs_come_in_order_and_repeat() {
        assert_eq!(pairs("channel=a&channel=b&x"), owned(&[("channel", "a"), ("channel", "b"), ("x", "")]));
        assert_eq!(pairs("&&a=b=c&=&"), owned(&[("a", "b=c"), ("", "")]));
        assert_eq!(pairs(""), owned(&[]));
    }

    #[test]
    fn percents_and_plus_are_decoded_once() {
        assert_eq!(pairs("a%3Db=c+d%2B%c3%a4%2525"), owned(&[("a=b", "c d+ä%25")]));
        assert_eq!(pairs("a=%zz%4&b=%"), owned(&[("a", "%zz%4"), ("b", "%")]));
    }

    #[test]
    fn what_is_no_utf_8_is_an_error_of_its_own_pair() {
        let results: Vec<_> = query_pairs("a=%ff&%c0%80=b&c=d").collect();
        assert_eq!(results[0].as_ref().unwrap_err().status(), 400);
        assert_eq!(
            results[1].as_ref().unwrap_err().to_string(),
            "query name \"%c0%80\" in the request target is not UTF-8 once percent-decoded"
        );
        assert!(results[2].is_ok());
    }

    #[test]
    fn in_a_path_plus_is_a_plus() {
        assert_eq!(decode_component("a+b%20c").unwrap(), "a+b c");
        assert!(decode_component("%80").is_err());
    }

    proptest! {
        #[test]
        fn any_pairs_come_back_from_their_encoding(
            sent in prop::collection::vec((any::<String>(), any::<String>()), 0..6),
        ) {
            let encode = |text: &String| {
                percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
                    .to_string()
                    .replace("%20", "+")
            };
            let query: Vec<_> = sent
                .iter()
                .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
                .collect();
            prop_assert_eq!(pairs(&query.join("&")), sent);
        }
    }
}

/// RFC 9110 §5.1, §5.5, §7.6.1: an application's header forges nothing and frames nothing.
#[test]
fn an_application_may_not_set_what_frames_the_message_or_forges_a_header() {
    use fanwire_core::http::header_fault;
    for (name, value) in [("Set-Cookie", "a=b; Path=/"), ("WWW-Authenticate", "Basic realm=\"x\""), ("X-Empty", "")] {
        assert_eq!(header_fault(name, value), None);
    }
    for (name, value) in [
        ("", "x"),
        ("a b", "x"),
        ("X:", "x"),
        ("X-A", "a\r\nSet-Cookie: b"),
        ("X-A", "a\nb"),
        ("X-A", "a\0b"),
        ("X-A", "ä"),
        ("content-length", "3"),
        ("Transfer-Encoding", "chunked"),
        ("UPGRADE", "x"),
        ("Sec-WebSocket-Accept", "x"),
    ] {
        assert!(header_fault(name, value).is_some(), "{name}: {value:?}");
    }
}

/// What is left out takes nothing from what comes behind it.
#[test]
fn headers_of_one_answer_are_counted_where_they_are_taken() {
    use fanwire_core::http::{HeaderBytes, headers_fault};
    let (long, half) = ("x".repeat(16 * 1024), "x".repeat(8 * 1024 - 5));
    let mut taken = HeaderBytes::default();
    let too_many =
        |bytes: usize| Err(format!("is one too many: together they are {bytes} bytes, over the bound of 16384").into());
    assert_eq!(taken.add("A", &long), too_many(16_389));
    assert_eq!(taken.add("A", "ä"), Err("has a value with bytes that are not visible ASCII".into()));
    assert_eq!((taken.add("A", &half), taken.add("A", &half)), (Ok(()), Ok(())));
    assert_eq!(taken.add("A", ""), too_many(16_389));
    let all = [("A", &*half), ("B", &*half), ("C", "")];
    assert_eq!(headers_fault(all.into_iter()).map(|(name, _)| name), Some("C"));
}
