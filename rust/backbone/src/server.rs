//! One server that orders and keeps: its two connections, and whether it is one that can.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value, cmd};

use crate::channels::Heard;
use crate::connection::{Connection, Dialer, Pushed, told};
use crate::names::Names;
use crate::script::SCRIPT;
use crate::url::{Address, Login};

/// A server that is connected. Dropping it closes both.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: Address,
    commands: Connection,
    listening: Connection,
    /// What the script is called.
    pub(crate) sha: String,
    /// Which run of which server this is.
    pub(crate) run_id: String,
    heard_at: Arc<Mutex<Instant>>,
}

impl Server {
    /// Connects twice, and asks what it is.
    pub(crate) async fn connect(
        dialer: &Dialer,
        address: &Address,
        login: &Login,
        names: &Names,
        heard: &Arc<Heard>,
    ) -> Result<Self, String> {
        let commands = dialer.connect(address, login, "commands", None).await?;
        let info = info(&commands, address).await?;
        check(&info, address)?;
        let run_id = info.get("run_id").cloned().unwrap_or_default();
        let sha = match answer(&commands, cmd("SCRIPT").arg("LOAD").arg(SCRIPT), address).await? {
            Value::BulkString(sha) => String::from_utf8_lossy(&sha).into_owned(),
            other => return Err(format!("{address}: SCRIPT LOAD was answered with {other:?}")),
        };
        let heard_at = Arc::new(Mutex::new(Instant::now()));
        let pushed = pushed(names.clone(), Arc::clone(heard), dialer, Arc::clone(&heard_at), address);
        let what = "publications (its end, CLIENT KILL, or client-output-buffer-limit pubsub)";
        let listening = dialer.connect(address, login, what, Some(pushed)).await?;
        let other = self::info(&listening, address).await?;
        if other.get("run_id") != Some(&run_id) {
            return Err(format!("{address}: two connections came to two servers"));
        }
        Ok(Self { address: address.clone(), commands, listening, sha, run_id, heard_at })
    }

    pub(crate) fn commands(&self) -> MultiplexedConnection {
        self.commands.commands.clone()
    }

    pub(crate) fn listening(&self) -> MultiplexedConnection {
        self.listening.commands.clone()
    }

    /// When it last published something.
    pub(crate) fn heard_at(&self) -> Instant {
        *self.heard_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pushed(
    names: Names,
    heard: Arc<Heard>,
    dialer: &Dialer,
    heard_at: Arc<Mutex<Instant>>,
    address: &Address,
) -> Pushed {
    let (ended, address) = (dialer.ended.clone(), address.clone());
    Arc::new(move |PushInfo { kind, data }| {
        *heard_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        match (kind, data.as_slice()) {
            (PushKind::Message | PushKind::SMessage, [Value::BulkString(published), Value::BulkString(bytes)]) => {
                heard.message(&names, published, bytes);
            }
            (PushKind::PMessage, [_, Value::BulkString(published), Value::BulkString(bytes)]) => {
                heard.message(&names, published, bytes);
            }
            (PushKind::Unsubscribe | PushKind::SUnsubscribe, [Value::BulkString(published), ..]) => {
                let is_asked_for = heard.left(&names, published);
                if !is_asked_for {
                    let why = format!("{MOVED} {address} has a channel no longer: slots of the cluster move");
                    let _ = ended.try_send(why); // where there is no room, another has told as much
                }
            }
            _ => {}
        }
    })
}

/// Begins a reason after which it is tried anew at once, and what waits goes on waiting.
pub(crate) const MOVED: &str = "MOVED";

/// One command and its answer, or why there is none.
pub(crate) async fn answer(connection: &Connection, command: &redis::Cmd, address: &Address) -> Result<Value, String> {
    let mut commands = connection.commands.clone();
    let answer = tokio::time::timeout(connection.within, commands.send_packed_command(command)).await;
    let answer = answer.map_err(|_| format!("{address}: no answer within {:?}", connection.within))?;
    answer.and_then(Value::extract_error).map_err(|error| format!("{address}: {}", told(&error)))
}

/// What a server says of itself.
pub(crate) async fn info(connection: &Connection, address: &Address) -> Result<HashMap<String, String>, String> {
    let text = match answer(connection, &cmd("INFO"), address).await? {
        Value::BulkString(text) => String::from_utf8_lossy(&text).into_owned(),
        Value::VerbatimString { text, .. } => text,
        other => return Err(format!("{address}: INFO was answered with {other:?}")),
    };
    let pair = |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(text.lines().filter_map(pair).collect())
}

/// Whether it can do what is needed.
fn check(info: &HashMap<String, String>, address: &Address) -> Result<(), String> {
    let field = |name| info.get(name).map_or("", String::as_str);
    if field("loading") == "1" {
        return Err(format!("{address}: LOADING, the server reads its data"));
    }
    if field("role") != "master" {
        return Err(format!("{address}: the server's role is {:?}: only a master can be published at", field("role")));
    }
    if field("run_id").is_empty() {
        return Err(format!("{address}: INFO has no run_id, so publications lost in a failover could not be told"));
    }
    let version = field("redis_version");
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let number = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let is_cluster = field("cluster_enabled") == "1";
    if number < (6, 2) {
        return Err(format!("{address}: the server is Redis {version}: XTRIM MINID needs 6.2 or later"));
    }
    if is_cluster && number < (7, 0) {
        return Err(format!("{address}: the server is Redis {version}: SPUBLISH in a cluster needs 7.0 or later"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_cannot_is_told_what_it_lacks() {
        let address = Address { host: "host".to_owned(), port: 1 };
        let good = [("role", "master"), ("run_id", "x"), ("redis_version", "7.0.15"), ("cluster_enabled", "1")];
        let with = |name: &str, value: &str| {
            let mut info: HashMap<_, _> = good.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
            info.insert(name.to_owned(), value.to_owned());
            check(&info, &address)
        };
        assert_eq!(with("role", "master"), Ok(()));
        for (name, value, said) in [
            ("role", "slave", "only a master"),
            ("loading", "1", "LOADING"),
            ("run_id", "", "run_id"),
            ("redis_version", "6.0.9", "MINID needs 6.2"),
            ("redis_version", "6.2.1", "SPUBLISH in a cluster needs 7.0"),
            ("redis_version", "", "MINID"),
        ] {
            let error = with(name, value).unwrap_err();
            assert!(error.starts_with("host:1: ") && error.contains(said), "{error}");
        }
    }
}
