//! Request heads (RFC 9110, RFC 9112), grouped by section; at any cut the verdict is that of the whole.
use fanwire_core::http::request::{HEADERS_MAX, TARGET_BYTES_MAX};
use fanwire_core::http::{Body, RequestError, RequestHead, parse_head};
use proptest::prelude::*;

const HEAD_BYTES_MAX: usize = 16 * 1024;

fn head(text: &str) -> RequestHead<'_> {
    let (head, head_bytes) =
        parse_head(text.as_bytes(), HEAD_BYTES_MAX).expect("the head is right").expect("the head is whole");
    assert_eq!(head_bytes, text.len());
    head
}

fn status(text: &str) -> u16 {
    parse_head(text.as_bytes(), HEAD_BYTES_MAX).expect_err("the head is wrong").status()
}

/// The verdict when the bytes come one by one: status, or length of the head, or `None` if it never ends.
fn verdict_byte_by_byte(bytes: &[u8], head_bytes_max: usize) -> Option<Result<usize, u16>> {
    (0..=bytes.len()).find_map(|end| verdict(&bytes[..end], head_bytes_max))
}

fn verdict(bytes: &[u8], head_bytes_max: usize) -> Option<Result<usize, u16>> {
    match parse_head(bytes, head_bytes_max) {
        Ok(parsed) => parsed.map(|(_, head_bytes)| Ok(head_bytes)),
        Err(error) => Some(Err(error.status())),
    }
}

mod rfc9112_section_2_messages {
    use super::*;

    #[test]
    fn a_head_gives_its_parts_and_its_length() {
        let bytes = b"GET /ws?channel=a HTTP/1.1\r\nHost: x\r\nX-A:  b \r\n\r\nrest";
        let (head, head_bytes) = parse_head(bytes, HEAD_BYTES_MAX).unwrap().unwrap();
        assert_eq!(&bytes[head_bytes..], b"rest");
        assert_eq!((head.method, head.path, head.query), ("GET", "/ws", Some("channel=a")));
        assert_eq!((head.target, head.version_minor), ("/ws?channel=a", 1));
        assert_eq!(head.header("x-a"), Some(&b"b"[..]));
        assert_eq!(head.header("x-b"), None);
    }

    #[test]
    fn empty_lines_before_the_request_line_are_skipped() {
        assert_eq!(head("\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n").path, "/");
    }

    #[test]
    fn other_versions_are_answered_with_505() {
        assert_eq!(status("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505);
        assert_eq!(status("GET / HTTP/2\r\n\r\n"), 505);
        assert_eq!(status("GET / HTTP/0.9\r\n\r\n"), 505);
    }

    #[test]
    fn what_is_no_http_is_answered_with_400() {
        assert_eq!(status("\x16\x03\x01\x02\0\x01"), 400);
        assert_eq!(status("GET / HTTPS/1.1\r\n\r\n"), 400);
        assert_eq!(status("GET /\r\n\r\n"), 400);
        assert_eq!(status("GET / HTTP/1.1\r\nHost : x\r\n\r\n"), 400);
        assert_eq!(status("GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n"), 400);
        assert_eq!(status("GET / HTTP/1.1\r\nHost: x\rY: z\r\n\r\n"), 400);
    }
}

mod rfc9112_section_3_target_and_host {
    use super::*;

    fn split(target: &str) -> Option<(String, Option<String>)> {
        let text = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        let (head, _) = parse_head(text.as_bytes(), HEAD_BYTES_MAX).ok()??;
        Some((head.path.to_owned(), head.query.map(str::to_owned)))
    }

    #[test]
    fn origin_form_and_absolute_form_give_the_same_path() {
        let expected = Some(("/a/b".to_owned(), Some("c=d?e".to_owned())));
        assert_eq!(split("/a/b?c=d?e"), expected);
        assert_eq!(split("http://example.org:80/a/b?c=d?e"), expected);
        assert_eq!(split("WSS://example.org/a/b?c=d?e"), expected);
    }

    #[test]
    fn an_absolute_form_without_a_path_has_the_path_of_the_root() {
        assert_eq!(split("http://example.org"), Some(("/".to_owned(), None)));
        assert_eq!(split("http://example.org?a"), Some(("/".to_owned(), Some("a".to_owned()))));
    }

    #[test]
    fn asterisk_is_for_options_and_authority_for_connect() {
        assert_eq!(head("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n").path, "*");
        assert_eq!(head("CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n").path, "x:1");
        assert_eq!(split("*"), None);
        assert_eq!(split("x:1"), None);
    }

    #[test]
    fn other_targets_are_answered_with_400() {
        for target in ["a", "ftp://x/", "http:///a", "/a#b", "x?/"] {
            assert_eq!(split(target), None, "{target}");
        }
    }

    #[test]
    fn http_1_1_has_exactly_one_host() {
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n"), 400);
        assert_eq!(head("GET / HTTP/1.0\r\n\r\n").version_minor, 0);
    }
}

mod bounds {
    use super::*;

    #[test]
    fn a_head_of_the_bound_is_taken_and_one_above_is_refused_before_it_ends() {
        let text = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        assert!(parse_head(text.as_bytes(), text.len()).unwrap().is_some());
        let bytes_max = text.len() - 1;
        assert_eq!(parse_head(&text.as_bytes()[..bytes_max], bytes_max), Ok(None));
        let error = parse_head(text.as_bytes(), bytes_max).unwrap_err();
        assert_eq!(error, RequestError::HeadTooLong { bytes_max });
        assert_eq!(error.status(), 431);
        assert_eq!(error.to_string(), format!("request head is longer than {bytes_max} bytes"));
    }

    #[test]
    fn a_target_above_8_kib_is_answered_with_414_before_it_ends() {
        let longest = format!("/{}", "a".repeat(TARGET_BYTES_MAX - 1));
        assert_eq!(head(&format!("GET {longest} HTTP/1.1\r\nHost: x\r\n\r\n")).target, longest);
        assert_eq!(status(&format!("GET {longest}a")), 414);
        assert_eq!(status(&format!("GET {longest}a HTTP/1.1\r\nHost: x\r\n\r\n")), 414);
    }

    #[test]
    fn more_headers_than_the_bound_are_answered_with_431() {
        let lines = |count| "X: y\r\n".repeat(count);
        let most = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", lines(HEADERS_MAX - 1));
        assert_eq!(head(&most).headers.len(), HEADERS_MAX);
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", lines(HEADERS_MAX))), 431);
    }
}

mod rfc9110_section_5_fields {
    use super::*;

    #[test]
    fn tokens_are_found_in_any_case_over_repeated_lists() {
        let head = head("GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive,\r\nconnection: foo , UpGrade\r\n\r\n");
        assert!(head.header_has_token("Connection", "upgrade"));
        assert!(head.header_has_token("CONNECTION", "Keep-Alive"));
        assert!(!head.header_has_token("connection", "grade"));
        assert!(!head.header_has_token("upgrade", "upgrade"));
    }

    #[test]
    fn values_may_be_any_bytes_above_ascii() {
        let bytes = b"GET / HTTP/1.1\r\nHost: x\r\nX: \xff\xfe\r\n\r\n";
        let (head, _) = parse_head(bytes, HEAD_BYTES_MAX).unwrap().unwrap();
        assert_eq!(head.header("X"), Some(&b"\xff\xfe"[..]));
    }
}

mod rfc9112_section_6_body {
    use super::*;

    fn body(headers: &str) -> Result<Body, u16> {
        let text = format!("POST / HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        match parse_head(text.as_bytes(), HEAD_BYTES_MAX) {
            Ok(head) => Ok(head.expect("whole").0.body),
            Err(error) => Err(error.status()),
        }
    }

    fn body_bytes(headers: &str) -> Result<u64, u16> {
        body(headers).map(|body| match body {
            Body::Length(length) => length,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn content_length_is_the_length_and_none_is_0() {
        assert_eq!(body_bytes(""), Ok(0));
        assert_eq!(body_bytes("Content-Length: 012\r\n"), Ok(12));
        assert_eq!(body_bytes("Content-Length: 18446744073709551615\r\n"), Ok(u64::MAX));
    }

    #[test]
    fn equal_lengths_count_as_one_and_unequal_are_refused() {
        assert_eq!(body_bytes("Content-Length: 5, 5\r\nContent-Length: 5\r\n"), Ok(5));
        assert_eq!(body_bytes("Content-Length: 5\r\nContent-Length: 6\r\n"), Err(400));
    }

    #[test]
    fn what_is_no_decimal_number_is_refused() {
        for value in ["", "+5", "-1", "0x10", "5 5", "5,", "1e3", "\u{665}"] {
            assert_eq!(body_bytes(&format!("Content-Length: {value}\r\n")), Err(400), "{value}");
        }
        assert_eq!(body_bytes("Content-Length: 18446744073709551616\r\n"), Err(413));
    }

    #[test]
    fn chunked_alone_is_read_and_all_else_is_refused() {
        assert_eq!(body("Transfer-Encoding: chunked\r\n"), Ok(Body::CHUNKED));
        assert_eq!(body("transfer-encoding: Chunked\r\n"), Ok(Body::CHUNKED));
        for other in ["gzip, chunked", "chunked, chunked", "chunked, identity", "identity", "", "xchunked"] {
            assert_eq!(body(&format!("Transfer-Encoding: {other}\r\n")), Err(501), "{other}");
        }
        assert_eq!(body("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), Err(501));
        assert_eq!(body("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), Err(400));
        let old = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(parse_head(old, HEAD_BYTES_MAX).unwrap_err().status(), 400);
    }

    #[test]
    fn only_100_continue_is_expected_and_only_with_a_body() {
        let expects = |headers: &str| head(&format!("POST / HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).expects_continue();
        assert!(expects("Expect: 100-continue\r\nContent-Length: 5\r\n"));
        assert!(expects("Expect: 100-Continue\r\nTransfer-Encoding: chunked\r\n"));
        assert!(!expects("Expect: 100-continue\r\nContent-Length: 0\r\n"));
        assert!(!expects("Content-Length: 5\r\n"));
        assert_eq!(body("Expect: the-unexpected\r\n"), Err(417));
    }

    #[test]
    fn a_body_that_nobody_reads_ends_the_connection() {
        let keeps = |headers: &str| head(&format!("POST / HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).keeps_alive();
        assert!(keeps("") && keeps("Content-Length: 0\r\n"));
        assert!(!keeps("Content-Length: 1\r\n") && !keeps("Transfer-Encoding: chunked\r\n"));
    }
}

mod rfc9112_section_9_connection {
    use super::*;

    #[test]
    fn version_1_1_lives_on_unless_closed_and_1_0_closes_unless_kept() {
        let keeps = |version: &str, connection: &str| {
            head(&format!("GET / HTTP/{version}\r\nHost: x\r\nConnection: {connection}\r\n\r\n")).keeps_alive()
        };
        assert!(keeps("1.1", "upgrade"));
        assert!(!keeps("1.1", "Close"));
        assert!(!keeps("1.0", "upgrade"));
        assert!(keeps("1.0", "Keep-Alive"));
        assert!(!keeps("1.0", "keep-alive, close"));
    }
}

/// Bytes that are a head, nearly one, or far from it.
fn near_heads() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        "GET |POST |PRI |\r\n|\n|\r| ",
        "/[a-z?#&=%/]{0,12} ?|\\* ?|http://[a-z]{0,3}[/?]{0,2} ",
        "HTTP/[0-3.]{1,3}\r\n|HTTP/1.1\r\n",
        "Host: [a-z]{1,4}\r\n|[A-Za-z -]{1,6}: ?[a-z, ]{0,8}\r?\n",
        "\\PC{0,6}",
    ];
    let right = "GET /[a-z]{0,9} HTTP/1\\.[01]\r\nHost: [a-z]{1,5}\r\n([A-Z]{1,5}: [a-z]{0,9}\r\n){0,4}\r\n";
    let wild = prop::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat());
    prop_oneof![wild, right, ("[ -~]{0,20}", right).prop_map(|(junk, right)| junk + &right)]
        .prop_map(String::into_bytes)
}

proptest! {
    #[test]
    fn the_verdict_does_not_depend_on_how_a_head_is_cut(
        bytes in near_heads(),
        head_bytes_max in prop_oneof![Just(HEAD_BYTES_MAX), 0usize..120],
    ) {
        prop_assert_eq!(
            verdict_byte_by_byte(&bytes, head_bytes_max),
            verdict(&bytes, head_bytes_max)
        );
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_head(&bytes, 200);
    }

    #[test]
    fn headers_come_back_as_they_were_sent(
        headers in prop::collection::vec(("[A-Za-z0-9-]{1,12}", "[!-~]([ -~]{0,20}[!-~])?"), 0..40),
    ) {
        let mut text = String::from("GET / HTTP/1.0\r\n");
        let headers: Vec<_> =
            headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")).collect();
        for (name, value) in &headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        let head = head(&text);
        prop_assert_eq!(head.headers.len(), headers.len());
        for (&(name, value), (sent_name, sent_value)) in head.headers.iter().zip(&headers) {
            prop_assert_eq!(name, sent_name);
            prop_assert_eq!(value, sent_value.as_bytes());
        }
    }
}
