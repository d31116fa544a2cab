//! Where a hub is: a URL in parts, and how much of it may be shown.
use std::fmt;

use hyper::Uri;

/// A path longer than this is cut where it is shown: a redirect's comes from the server.
const SHOWN_PATH_CHARS_MAX: usize = 200;

/// A hub's URL. Printed without query, user and fragment.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) is_tls: bool,
    /// Without the brackets of IPv6.
    pub(crate) host: String,
    pub(crate) port: u16,
    path: String,
    /// Without `?`; never shown.
    query: Option<String>,
}

impl Target {
    /// Reads a URL of http, https, ws or wss; `None` of any other text, which is not to be shown.
    pub(crate) fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let is_tls = match uri.scheme_str()?.to_ascii_lowercase().as_str() {
            "http" | "ws" => false,
            "https" | "wss" => true,
            _ => return None,
        };
        let host = uri.host()?;
        let authority = uri.authority()?.as_str();
        let port = match authority.rsplit('@').next()?.strip_prefix(host)?.strip_prefix(':') {
            Some(port) => port.parse().ok()?,
            None => default_port(is_tls),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Some(Self {
            is_tls,
            host: (!host.is_empty()).then(|| host.to_owned())?,
            port,
            path: uri.path().to_owned(),
            query: uri.query().map(str::to_owned),
        })
    }

    /// What a `Host` header says.
    pub(crate) fn host_header(&self) -> String {
        if self.port == default_port(self.is_tls) {
            self.bracketed_host()
        } else {
            format!("{}:{}", self.bracketed_host(), self.port)
        }
    }

    /// Path and query of a negotiation.
    pub(crate) fn negotiate_path(&self) -> String {
        let path = self.path.strip_suffix('/').unwrap_or(&self.path);
        let query = self.query.as_deref().unwrap_or_default();
        let names_version = query.split('&').any(|pair| {
            let name = pair.split_once('=').map_or(pair, |(name, _)| name);
            name.eq_ignore_ascii_case("negotiateVersion")
        });
        let version = if names_version { "" } else { "negotiateVersion=1" };
        format!("{path}/negotiate?{query}{}{version}", separator(query, version))
    }

    /// Path and query of the WebSocket; a token needs no escapes.
    pub(crate) fn socket_path(&self, token: Option<&str>) -> String {
        let query = self.query.as_deref().unwrap_or_default();
        match token {
            Some(token) => format!("{}?{query}{}id={token}", self.path, separator(query, token)),
            None if query.is_empty() => self.path.clone(),
            None => format!("{}?{query}", self.path),
        }
    }

    /// Whether cookies of one are for the other.
    pub(crate) fn is_same_origin(&self, other: &Self) -> bool {
        (self.is_tls, &self.host, self.port) == (other.is_tls, &other.host, other.port)
    }

    fn bracketed_host(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

const fn default_port(is_tls: bool) -> u16 {
    if is_tls { 443 } else { 80 }
}

fn separator(query: &str, more: &str) -> &'static str {
    if query.is_empty() || more.is_empty() { "" } else { "&" }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(formatter, "{scheme}://{}:{}", self.bracketed_host(), self.port)?;
        match self.path.char_indices().nth(SHOWN_PATH_CHARS_MAX) {
            Some((end, _)) => write!(formatter, "{}…", &self.path[..end]),
            None => formatter.write_str(&self.path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_user_query_and_fragment() {
        let target = Target::parse("WSS://user:secret@[::1]:8443/live/hub?access_token=secret#secret").unwrap();
        assert_eq!(target.to_string(), "https://[::1]:8443/live/hub");
        assert_eq!(target.host_header(), "[::1]:8443");
        assert_eq!((target.host.as_str(), target.is_tls), ("::1", true));
        let long = Target::parse(&format!("http://h/{}", "a".repeat(300))).unwrap();
        assert_eq!(long.to_string().len(), "http://h:80".len() + SHOWN_PATH_CHARS_MAX + "…".len());
    }

    #[test]
    fn paths_keep_the_query_and_add_to_it() {
        let cases = [
            ("http://h", "/negotiate?negotiateVersion=1", "/?id=t"),
            ("http://h/live/", "/live/negotiate?negotiateVersion=1", "/live/?id=t"),
            ("http://h/live?a=1", "/live/negotiate?a=1&negotiateVersion=1", "/live?a=1&id=t"),
            (
                "http://h/c/?hub=x&NegotiateVersion=0",
                "/c/negotiate?hub=x&NegotiateVersion=0",
                "/c/?hub=x&NegotiateVersion=0&id=t",
            ),
        ];
        for (url, negotiate, socket) in cases {
            let target = Target::parse(url).unwrap();
            assert_eq!(target.negotiate_path(), negotiate, "{url}");
            assert_eq!(target.socket_path(Some("t")), socket, "{url}");
        }
        assert_eq!(Target::parse("http://h/live?a=1").unwrap().socket_path(None), "/live?a=1");
        assert_eq!(Target::parse("http://h/live").unwrap().socket_path(None), "/live");
    }

    #[test]
    fn what_is_no_url_of_a_hub_is_none() {
        for url in ["", "/live", "h:80/live", "ftp://h/", "http://", "http://:80/", "http://h:x/", "http://h:70000/"] {
            assert!(Target::parse(url).is_none(), "{url}");
        }
    }
}
