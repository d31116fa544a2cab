//! The URL of NATS in parts. What it says of users and passwords is never shown.
use std::fmt;
use std::path::PathBuf;

use crate::api::Error;
use crate::url::{Address, address, text};

const PORT: u16 = 4_222;

/// As whom to connect.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    /// A file of credentials.
    pub(crate) credentials: Option<PathBuf>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

/// A URL that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) is_tls: bool,
    /// One at least.
    pub(crate) addresses: Vec<Address>,
    pub(crate) login: Login,
    /// On how many servers a stream is; none is three in a cluster and else one.
    pub(crate) replicas: Option<u64>,
    pub(crate) is_in_memory: bool,
}

impl Target {
    /// Whether a URL is one of NATS.
    pub(crate) fn is_meant(url: &str) -> bool {
        url.split_once("://").is_some_and(|(scheme, _)| matches!(scheme, "nats" | "tls"))
    }

    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        let (scheme, rest) = url.split_once("://").ok_or(Error::Url("expected nats://HOST"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !path.is_empty() {
            return Err(Error::Url("nats:// has no path"));
        }
        let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let login = Login { user: text(user)?, password: text(password)?, credentials: None };
        let addresses = hosts.split(',').map(|host| address(host, PORT)).collect::<Result<_, _>>()?;
        let mut target = Self { is_tls: scheme == "tls", addresses, login, replicas: None, is_in_memory: false };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("credentials", file)) => target.login.credentials = text(file)?.map(PathBuf::from),
                Some(("replicas", count)) => {
                    let count = count.parse().ok().filter(|count| (1..=5).contains(count));
                    target.replicas = Some(count.ok_or(Error::Url("replicas must be 1 to 5"))?);
                }
                Some(("storage", "file")) => target.is_in_memory = false,
                Some(("storage", "memory")) => target.is_in_memory = true,
                Some(("storage", _)) => return Err(Error::Url("storage must be file or memory")),
                _ => return Err(Error::Url("its query has something else than credentials, replicas and storage")),
            }
        }
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_parts_are_read() {
        let target = Target::parse("tls://joe:p%40ss@a,[::1]:7000?replicas=1&storage=memory").unwrap();
        assert!(target.is_tls && target.is_in_memory && target.replicas == Some(1));
        assert_eq!(target.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a:4222", "[::1]:7000"]);
        assert_eq!(target.login.password.as_deref(), Some("p@ss"));
        assert!(!format!("{target:?}").contains("p@ss"));
        let other = Target::parse("nats://token@host?credentials=%2Fetc%2Fnats.creds").unwrap();
        assert_eq!((other.login.user.as_deref(), other.login.password), (Some("token"), None));
        assert_eq!(other.login.credentials, Some(PathBuf::from("/etc/nats.creds")));
        assert!(Target::is_meant("nats://h") && Target::is_meant("tls://h") && !Target::is_meant("redis://h"));
    }

    #[test]
    fn what_cannot_be_is_named_and_not_shown() {
        for url in [
            "nats://",
            "nats://secret@",
            "nats://host:x",
            "nats://host/secret",
            "nats://host?replicas=9",
            "nats://host?storage=secret",
            "nats://host?secret=1",
        ] {
            let error = Target::parse(url).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
