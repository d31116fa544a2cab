//! The URL of an origin in parts. What it says of users, tokens and queries is never shown.
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::api::Error;
use crate::url::{Address, address, text};

/// That of `fanwire serve`.
const PORT: u16 = 8_000;
const PORT_TLS: u16 = 443;
const PATH: &str = "/ws";

/// A URL that was read.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) is_tls: bool,
    /// One at least.
    pub(crate) addresses: Vec<Address>,
    /// The path with its query.
    pub(crate) path: String,
    /// The value of `Authorization`.
    pub(crate) authorization: Option<String>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Target {
    /// Whether a URL is one of an origin.
    pub(crate) fn is_meant(url: &str) -> bool {
        url.split_once("://").is_some_and(|(scheme, _)| matches!(scheme, "fanwire" | "fanwires"))
    }

    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        let (scheme, rest) = url.split_once("://").ok_or(Error::Url("expected fanwire://HOST"))?;
        let is_tls = scheme == "fanwires";
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        if rest.contains('#') {
            return Err(Error::Url("it has a #, and nothing behind that is ever sent"));
        }
        let (path, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
        let path = if path.is_empty() || path == "/" { PATH } else { path };
        let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let authorization = match login.split_once(':') {
            Some((user, password)) => {
                let (user, password) = (text(user)?.unwrap_or_default(), text(password)?.unwrap_or_default());
                Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
            }
            None => text(login)?.map(|token| format!("Bearer {token}")),
        };
        let port = if is_tls { PORT_TLS } else { PORT };
        let addresses = hosts.split(',').map(|host| address(host, port)).collect::<Result<_, _>>()?;
        Ok(Self { is_tls, addresses, path: format!("{path}{query}"), authorization })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_parts_are_read() {
        let target = Target::parse("fanwires://joe:p%40ss@a,[::1]:7000/live?token=secret").unwrap();
        assert!(target.is_tls);
        assert_eq!(target.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a:443", "[::1]:7000"]);
        assert_eq!(target.path, "/live?token=secret");
        assert_eq!(target.authorization.as_deref(), Some("Basic am9lOnBAc3M="));
        assert!(!format!("{target:?}").contains("secret"));
        let plain = Target::parse("fanwire://t0ken@host").unwrap();
        assert_eq!((plain.path.as_str(), plain.addresses[0].to_string().as_str()), ("/ws", "host:8000"));
        assert_eq!(plain.authorization.as_deref(), Some("Bearer t0ken"));
        assert_eq!(Target::parse("fanwire://host?token=x").unwrap().path, "/ws?token=x");
        assert!(Target::is_meant("fanwire://h") && Target::is_meant("fanwires://h") && !Target::is_meant("redis://h"));
    }

    #[test]
    fn what_cannot_be_is_named_and_not_shown() {
        for url in ["fanwire://", "fanwire://secret@", "fanwire://host:x", "fanwire://host/ws#secret"] {
            let error = Target::parse(url).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
