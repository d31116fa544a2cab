//! A backend with TLS: trusted through the system's roots, refused without them.
mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use fanwire_core::protocol::signalr::HubProtocol;
use fanwire_upstream::UpstreamEvent;
use support::{Heard, PATIENCE, Relay, lane, publication, request};
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned, crypto};
use tokio_tungstenite::tungstenite::{Message, accept};

const JSON: HubProtocol = HubProtocol::Json;

/// What the parent hands to its child: an address, and what the end is to be.
const ADDRESS: &str = "FANWIRE_TLS_TEST";

fn server_config() -> (Arc<ServerConfig>, String) {
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    (Arc::new(config), signed.cert.pem())
}

/// Runs this test in a process of its own, in which `SSL_CERT_FILE` names the roots.
fn in_child(address: &str, roots: &std::path::Path) -> std::process::Child {
    std::process::Command::new(std::env::current_exe().unwrap())
        .args(["a_backend_with_tls_is_trusted_through_the_roots_and_else_refused", "--exact"])
        .env(ADDRESS, address)
        .env("SSL_CERT_FILE", roots)
        .env_remove("SSL_CERT_DIR")
        .spawn()
        .unwrap()
}

fn relay_side(address: &str) {
    let (host, port) = address.split_once(':').unwrap();
    let relay = Relay::start();
    let mut open = request(&format!("wss://{host}:{port}/live?access_token=s3cr3t"), JSON, lane());
    open.negotiates = true;
    relay.upstreams.open(1, open);
    if host != "localhost" {
        let error = relay.closed().error;
        assert!(error.starts_with(&format!("https://{address}/live: TLS: invalid peer certificate")), "{error}");
        return;
    }
    relay.expect_opened(0);
    assert_eq!(relay.event(), UpstreamEvent::Came { target: "Odds".into() });
    assert_eq!(relay.next(), Heard::Append("m1".into(), JSON, vec![publication(JSON, "Odds")], vec![]));
    relay.upstreams.close(1, None);
    assert!(relay.closed().error.ends_with("closed from here"));
}

#[test]
fn a_backend_with_tls_is_trusted_through_the_roots_and_else_refused() {
    if let Ok(address) = std::env::var(ADDRESS) {
        return relay_side(&address);
    }
    let (config, certificate) = server_config();
    let roots = std::env::temp_dir().join(format!("fanwire-roots-{}.pem", std::process::id()));
    std::fs::write(&roots, certificate).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let accept_tls = || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream)
    };

    let mut child = in_child(&format!("localhost:{port}"), &roots);
    let mut stream = accept_tls();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let reply = r#"{"connectionId":"c","availableTransports":[{"transport":"WebSockets"}]}"#;
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{reply}", reply.len()).unwrap();
    stream.flush().unwrap();
    let mut socket = accept(accept_tls()).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text("{\"protocol\":\"json\",\"version\":1}\u{1e}"));
    let odds = String::from_utf8(publication(JSON, "Odds")).unwrap();
    socket.send(Message::text(format!("{{}}\u{1e}{odds}"))).unwrap();
    while socket.read().is_ok() {}
    drop(socket);
    assert!(child.wait().unwrap().success());

    // The certificate is not of this name.
    let mut child = in_child(&format!("127.0.0.1:{port}"), &roots);
    assert!(accept_tls().read(&mut byte).is_err());
    assert!(child.wait().unwrap().success());
    std::fs::remove_file(&roots).unwrap();
}
