//! A backbone's URL in parts. What it says of users and passwords is never shown.
use std::fmt;

use percent_encoding::percent_decode_str;

use crate::api::Error;

/// One server's address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    /// Without the brackets of IPv6.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// As whom to connect.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) database: i64,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("database", &self.database).finish_non_exhaustive()
    }
}

/// How the server is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It is at the address; a cluster is recognized.
    Plain,
    /// Addresses are those of a cluster's nodes.
    Cluster,
    /// Addresses are those of sentinels, which know where the master is.
    Sentinel {
        /// Its name.
        master: String,
        /// As whom to connect to sentinels.
        login: Login,
    },
}

/// A URL that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) is_tls: bool,
    pub(crate) way: Way,
    /// One at least.
    pub(crate) addresses: Vec<Address>,
    pub(crate) login: Login,
}

impl Target {
    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        let (scheme, rest) = url.split_once("://").ok_or(Error::Url("expected redis://HOST"))?;
        let (base, way) = scheme.split_once('+').unwrap_or((scheme, ""));
        let is_tls = match base.to_ascii_lowercase().as_str() {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(Error::Url("its scheme is none of redis, rediss, valkey and valkeys")),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let mut login = Login { user: text(user)?, password: text(password)?, database: 0 };
        let (way, database) = match way {
            "" => (Way::Plain, path),
            "cluster" => (Way::Cluster, path),
            "sentinel" => {
                let (master, database) = path.split_once('/').unwrap_or((path, ""));
                let master = text(master)?.ok_or(Error::Url("it names no master: redis+sentinel://HOST/NAME"))?;
                (Way::Sentinel { master, login: sentinel_login(query)? }, database)
            }
            _ => return Err(Error::Url("after + comes sentinel or cluster")),
        };
        if !matches!(way, Way::Sentinel { .. }) && !query.is_empty() {
            return Err(Error::Url("only redis+sentinel:// has a query"));
        }
        if !database.is_empty() {
            login.database = database.parse().map_err(|_| Error::Url("its database is no number"))?;
        }
        if way == Way::Cluster && login.database != 0 {
            return Err(Error::Url("a cluster has no database but 0"));
        }
        let default_port = if matches!(way, Way::Sentinel { .. }) { 26_379 } else { 6_379 };
        let addresses = hosts.split(',').map(|host| address(host, default_port)).collect::<Result<Vec<_>, _>>()?;
        if way == Way::Plain && addresses.len() > 1 {
            return Err(Error::Url("several hosts are for redis+sentinel:// and redis+cluster://"));
        }
        Ok(Self { is_tls, way, addresses, login })
    }
}

fn sentinel_login(query: &str) -> Result<Login, Error> {
    let mut login = Login::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sentinel_user", user)) => login.user = text(user)?,
            Some(("sentinel_password", password)) => login.password = text(password)?,
            _ => return Err(Error::Url("its query has something else than sentinel_user and sentinel_password")),
        }
    }
    Ok(login)
}

/// What percent-encoding says; none if it is empty.
pub(crate) fn text(encoded: &str) -> Result<Option<String>, Error> {
    let text = percent_decode_str(encoded).decode_utf8().map_err(|_| Error::Url("it has text that is no UTF-8"))?;
    Ok((!text.is_empty()).then(|| text.into_owned()))
}

/// A host with its port.
pub(crate) fn address(text: &str, default_port: u16) -> Result<Address, Error> {
    let bad = || Error::Url("a host or a port cannot be read");
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(bad)?;
            (host, port.strip_prefix(':'))
        }
        None => text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Some(default_port), |port| port.parse().ok()).filter(|&port| port > 0).ok_or_else(bad)?;
    if host.is_empty() || host.contains(['/', ' ']) {
        return Err(bad());
    }
    Ok(Address { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> Target {
        Target::parse(url).unwrap()
    }

    #[test]
    fn its_parts_are_read() {
        let plain = of("rediss://joe:p%40ss@[::1]:7000/3");
        assert!(plain.is_tls && plain.way == Way::Plain);
        assert_eq!(plain.addresses[0].to_string(), "[::1]:7000");
        assert_eq!(plain.login.user.as_deref(), Some("joe"));
        assert_eq!(plain.login.password.as_deref(), Some("p@ss"));
        assert_eq!(plain.login.database, 3);
        assert!(!format!("{plain:?}").contains("p@ss"));
        assert_eq!(of("valkey://host").addresses[0].to_string(), "host:6379");
        assert_eq!(of("redis://:secret@host").login.user, None);
        let sentinel = of("redis+sentinel://:secret@a,b:7000/mymaster/2?sentinel_password=other");
        assert_eq!(sentinel.addresses[0].to_string(), "a:26379");
        assert_eq!(sentinel.login.database, 2);
        let Way::Sentinel { master, login } = sentinel.way else { panic!("no sentinel") };
        assert_eq!((master.as_str(), login.password.as_deref()), ("mymaster", Some("other")));
        assert_eq!(of("rediss+cluster://a,b,c:1").addresses.len(), 3);
    }

    #[test]
    fn what_cannot_be_is_named_and_not_shown() {
        for url in [
            "host",
            "http://host",
            "redis://",
            "redis://secret@",
            "redis://host:0",
            "redis://host:x",
            "redis://host/x",
            "redis://a,b",
            "redis://host?x=1",
            "redis+sentinel://host",
            "redis+other://host",
            "redis+cluster://host/1",
            "redis+sentinel://host/m?x=secret",
        ] {
            let error = Target::parse(url).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
