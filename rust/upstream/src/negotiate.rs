//! `POST {hub}/negotiate`, and where its redirects lead.
use std::pin::pin;

use bytes::Bytes;
use fanwire_core::protocol::signalr::negotiate::{NegotiateReply, Transport, parse_reply};
use futures_util::future::{Either, select};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, SET_COOKIE};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;

use crate::connect::{ConnectError, Dialer, Progress, header_map, shown};
use crate::roots::Roots;
use crate::target::Target;

/// The most bytes of an answer.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The reference's bound.
const REDIRECTS_MAX: usize = 100;

/// What hyper buffers of a head, which bounds it.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Where the WebSocket is to be opened.
pub(crate) struct Place {
    pub(crate) target: Target,
    pub(crate) headers: Vec<(String, String)>,
    /// What the server calls the connection; a secret.
    pub(crate) token: Option<String>,
    /// Whom to trust, redirects included; the system's where there are none.
    pub(crate) roots: Option<Roots>,
}

/// Negotiates, and again wherever the server says.
pub(crate) async fn negotiate(dialer: &Dialer, place: &mut Place, progress: &mut Progress) -> Result<(), ConnectError> {
    for _ in 0..=REDIRECTS_MAX {
        progress.at(&place.target, "negotiate");
        let (status, answer, lines) = post(dialer, place.roots.as_ref(), &place.target, &place.headers).await?;
        place.keep(pairs_of(&lines));
        if status != 200 {
            return Err(ConnectError::Status { stage: "negotiate", status });
        }
        match parse_reply(&answer).map_err(ConnectError::Answer)? {
            NegotiateReply::Error(error) => return Err(ConnectError::Refused { error: shown(&error) }),
            NegotiateReply::Redirect { url, access_token } => {
                place.redirect(&url, access_token.as_deref())?;
            }
            NegotiateReply::Connect(connect) if !connect.transports.contains(&Transport::WebSockets) => {
                return Err(ConnectError::NoWebSockets);
            }
            NegotiateReply::Connect(connect) => {
                place.token = Some(connect.connection_token.into_owned());
                return Ok(());
            }
        }
    }
    Err(ConnectError::Redirects { redirects_max: REDIRECTS_MAX })
}

/// One request, no redirect followed: status, body, and its `Set-Cookie` lines, decoded as latin-1.
pub(crate) async fn post(
    dialer: &Dialer,
    roots: Option<&Roots>,
    target: &Target,
    headers: &[(String, String)],
) -> Result<(u16, Vec<u8>, Vec<String>), ConnectError> {
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target.negotiate_path().parse().map_err(|_| ConnectError::BadUrl)?;
    let map = request.headers_mut();
    *map = header_map(headers)?;
    map.insert(HOST, HeaderValue::from_str(&target.host_header()).map_err(|_| ConnectError::BadUrl)?);
    map.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));

    let stream = TokioIo::new(dialer.dial(roots, target).await?);
    let failed = |source| ConnectError::Http { source };
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(stream).await.map_err(failed)?;
    let exchange = pin!(async move {
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status().as_u16();
        let lines = cookies_of(response.headers());
        Ok((status, read_body(response.into_body()).await?, lines))
    });
    match select(exchange, pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        // The connection has ended: what it left is with the exchange.
        Either::Right((_, exchange)) => exchange.await,
    }
}

/// The `Set-Cookie` lines of an answer, decoded as latin-1.
pub(crate) fn cookies_of(headers: &HeaderMap) -> Vec<String> {
    let decoded = |value: &HeaderValue| value.as_bytes().iter().map(|&byte| char::from(byte)).collect();
    headers.get_all(SET_COOKIE).iter().map(decoded).collect()
}

/// What `Set-Cookie` lines set, as `name=value`; not what they take back.
fn pairs_of(lines: &[String]) -> Vec<String> {
    let kept =
        lines.iter().filter(|text| !text.split(';').skip(1).any(|part| part.trim().eq_ignore_ascii_case("max-age=0")));
    let pairs = kept.map(|text| text.split(';').next().unwrap_or_default().trim().to_owned());
    pairs.filter(|pair| pair.find('=').is_some_and(|at| at > 0)).collect()
}

async fn read_body(mut body: Incoming) -> Result<Vec<u8>, ConnectError> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(piece) = frame.map_err(|source| ConnectError::Http { source })?.into_data() {
            if bytes.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(ConnectError::AnswerTooBig { bytes_max: ANSWER_BYTES_MAX });
            }
            bytes.extend_from_slice(&piece);
        }
    }
    Ok(bytes)
}

impl Place {
    /// Sends these from now on, in place of those of the same names: a balancer finds the same server by them.
    fn keep(&mut self, cookies: Vec<String>) {
        if cookies.is_empty() {
            return;
        }
        let name_of = |pair: &str| pair.split('=').next().unwrap_or_default().trim().to_owned();
        let is_cookie = |name: &str| name.eq_ignore_ascii_case("cookie");
        let sent = self.headers.iter().filter(|(name, _)| is_cookie(name));
        let mut pairs: Vec<String> = sent
            .flat_map(|(_, value)| value.split(';'))
            .map(|pair| pair.trim().to_owned())
            .filter(|pair| !pair.is_empty())
            .collect();
        for cookie in cookies {
            pairs.retain(|pair| name_of(pair) != name_of(&cookie));
            pairs.push(cookie);
        }
        self.headers.retain(|(name, _)| !is_cookie(name));
        self.headers.push(("Cookie".to_owned(), pairs.join("; ")));
    }

    /// Goes on elsewhere, from now on with this token; cookies stay with their origin.
    fn redirect(&mut self, url: &str, access_token: Option<&str>) -> Result<(), ConnectError> {
        let target = Target::parse(url).ok_or(ConnectError::BadRedirect)?;
        if !target.is_same_origin(&self.target) {
            self.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("cookie"));
        }
        if let Some(token) = access_token {
            self.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
            let value = format!("Bearer {token}").bytes().map(char::from).collect();
            self.headers.push(("Authorization".to_owned(), value));
        }
        self.target = target;
        Ok(())
    }
}
