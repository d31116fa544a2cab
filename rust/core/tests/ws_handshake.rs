//! The opening handshake (RFC 6455 §4.2): each reason to refuse has its status and headers.
use fanwire_core::http::{RequestHead, parse_head};
use fanwire_core::ws::{UpgradeError, is_upgrade, offered_subprotocols, read_upgrade, write_accept};

const RIGHT: &str = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

fn head(text: &str) -> RequestHead<'_> {
    parse_head(text.as_bytes(), 16 * 1024).unwrap().unwrap().0
}

/// Refuses the handshake of RFC 6455 §1.2 with `from` changed to `to`.
fn refusal(from: &str, to: &str) -> UpgradeError {
    let changed = RIGHT.replace(from, to);
    assert_ne!(changed, RIGHT);
    read_upgrade(&head(&changed)).expect_err("the handshake is wrong")
}

mod section_4_2_1_reading {
    use super::*;

    #[test]
    fn the_handshake_of_the_rfc_is_accepted() {
        let upgrade = read_upgrade(&head(RIGHT)).unwrap();
        assert_eq!(&upgrade.accept, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn what_browsers_send_is_accepted() {
        let text = RIGHT
            .replace("Connection: Upgrade", "connection: keep-alive, Upgrade")
            .replace("Upgrade: websocket", "upgrade: WebSocket");
        assert!(read_upgrade(&head(&text)).is_ok());
    }

    #[test]
    fn without_upgrade_it_is_426_and_names_websocket() {
        let error = refusal("Upgrade: websocket", "Upgrade: h2c");
        assert_eq!((error.clone(), error.status()), (UpgradeError::NotAsked, 426));
        assert!(error.headers().contains(&("Upgrade", "websocket")));
        assert!(!is_upgrade(&head("GET / HTTP/1.1\r\nHost: x\r\n\r\n")));
        assert!(is_upgrade(&head(RIGHT)));
    }

    #[test]
    fn another_method_is_405_and_allows_get() {
        let error = refusal("GET", "POST");
        assert_eq!((error.status(), error.headers()), (405, &[("Allow", "GET")][..]));
    }

    #[test]
    fn http_1_0_is_400() {
        let error = refusal("HTTP/1.1", "HTTP/1.0");
        assert_eq!(error, UpgradeError::VersionTooOld { version_minor: 0 });
        assert_eq!(error.status(), 400);
    }

    #[test]
    fn without_connection_upgrade_it_is_400() {
        let error = refusal("Connection: Upgrade", "Connection: close");
        assert_eq!((error.clone(), error.status()), (UpgradeError::ConnectionNotUpgrade, 400));
    }

    #[test]
    fn another_version_is_426_and_names_13() {
        let line = "Sec-WebSocket-Version: 13\r\n";
        let twice = line.repeat(2);
        for other in ["Sec-WebSocket-Version: 8\r\n", "Sec-WebSocket-Version: 013\r\n", "", &twice] {
            let error = refusal(line, other);
            assert_eq!((error.clone(), error.status()), (UpgradeError::UnsupportedVersion, 426));
            assert!(error.headers().contains(&("Sec-WebSocket-Version", "13")));
            assert!(error.headers().contains(&("Upgrade", "websocket")));
        }
    }

    #[test]
    fn a_key_is_there_once_and_has_16_bytes() {
        let line = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        assert_eq!(refusal(line, ""), UpgradeError::KeyCount { count: 0 });
        assert_eq!(refusal(line, &line.repeat(2)), UpgradeError::KeyCount { count: 2 });
        for key in [
            "",
            "dGhlIHNhbXBsZSBub25j",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZW4=",
            "dGhlIHNhbXBsZSBub25jZW5j",
            "dGhlIHNhbXBsZSBub25j!Q==",
        ] {
            let error = refusal("dGhlIHNhbXBsZSBub25jZQ==", key);
            assert_eq!((error.clone(), error.status()), (UpgradeError::BadKey, 400), "{key}");
        }
    }

    #[test]
    fn a_key_with_bits_left_over_is_accepted() {
        let text = RIGHT.replace("ZQ==", "ZR==");
        assert!(read_upgrade(&head(&text)).is_ok());
    }

    #[test]
    fn a_body_is_400_because_it_would_be_taken_for_frames() {
        assert_eq!(refusal("Host:", "Content-Length: 5\r\nHost:"), UpgradeError::HasBody);
        assert_eq!(refusal("Host:", "Transfer-Encoding: chunked\r\nHost:").status(), 400);
        let text = RIGHT.replace("Host:", "Content-Length: 0\r\nHost:");
        assert!(read_upgrade(&head(&text)).is_ok());
    }

    #[test]
    fn subprotocols_come_in_order_from_repeated_lists() {
        let text = RIGHT.replace(
            "Host:",
            "Sec-WebSocket-Protocol: chat, ,b c\r\nSec-WebSocket-Protocol: \u{e4},super.chat\r\nHost:",
        );
        let head = head(&text);
        assert_eq!(offered_subprotocols(&head).collect::<Vec<_>>(), ["chat", "super.chat"]);
    }
}

mod section_4_2_2_answering {
    use super::*;

    fn answer(subprotocol: Option<&str>) -> String {
        let mut out = Vec::new();
        write_accept::<&str>(&mut out, &read_upgrade(&head(RIGHT)).unwrap(), subprotocol, &[]);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_answer_is_that_of_the_rfc() {
        assert_eq!(
            answer(None),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }

    #[test]
    fn the_chosen_subprotocol_is_named() {
        assert!(answer(Some("chat")).ends_with("\r\nSec-WebSocket-Protocol: chat\r\n\r\n"));
    }
}
