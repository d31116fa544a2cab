//! Which servers there are, and which of them has which partition: asked of a server, of sentinels, of a cluster.
use std::fmt::Write as _;

use redis::{Value, cmd};

use crate::connection::Dialer;
use crate::names::slot_of;
use crate::server::{answer, info};
use crate::url::{Address, Login, Target, Way};

/// Who is to be connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topology {
    pub(crate) servers: Vec<Address>,
    /// By partition, an index of `servers`; one where there is no cluster.
    pub(crate) owners: Vec<usize>,
    pub(crate) is_cluster: bool,
}

impl Topology {
    fn of(server: Address) -> Self {
        Self { servers: vec![server], owners: vec![0], is_cluster: false }
    }
}

/// Asks the first that answers.
pub(crate) async fn discover(dialer: &Dialer, target: &Target, partitions: u16) -> Result<Topology, String> {
    let mut failures = String::new();
    for address in &target.addresses {
        let found = match &target.way {
            Way::Sentinel { master, login } => ask_sentinel(dialer, address, master, login).await,
            Way::Plain | Way::Cluster => ask_server(dialer, address, target, partitions).await,
        };
        match found {
            Ok(topology) => return Ok(topology),
            Err(error) => {
                let separator = if failures.is_empty() { "" } else { "; " };
                let _ = write!(failures, "{separator}{error}"); // a String takes all
            }
        }
    }
    Err(failures)
}

async fn ask_sentinel(dialer: &Dialer, sentinel: &Address, master: &str, login: &Login) -> Result<Topology, String> {
    let connection = dialer.connect(sentinel, login, "a sentinel", None).await?;
    let mut question = cmd("SENTINEL");
    question.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    let found = match answer(&connection, &question, sentinel).await? {
        Value::Array(parts) => address_of(&parts, sentinel),
        _ => None,
    };
    found.map(Topology::of).ok_or_else(|| format!("{sentinel}: this sentinel knows no master {master:?}"))
}

async fn ask_server(dialer: &Dialer, server: &Address, target: &Target, partitions: u16) -> Result<Topology, String> {
    let connection = dialer.connect(server, &target.login, "its topology", None).await?;
    let is_cluster = info(&connection, server).await?.get("cluster_enabled").is_some_and(|value| value == "1");
    match (is_cluster, &target.way) {
        (false, Way::Cluster) => return Err(format!("{server}: the server is no node of a cluster")),
        (false, _) => return Ok(Topology::of(server.clone())),
        (true, _) => {}
    }
    let Value::Array(ranges) = answer(&connection, cmd("CLUSTER").arg("SLOTS"), server).await? else {
        return Err(format!("{server}: CLUSTER SLOTS was answered with something else"));
    };
    spread(&ranges, server, partitions)
}

/// Partitions over the owners of their slots.
fn spread(ranges: &[Value], asked: &Address, partitions: u16) -> Result<Topology, String> {
    let mut topology = Topology { servers: Vec::new(), owners: Vec::new(), is_cluster: true };
    for partition in 0..partitions {
        let slot = i64::from(slot_of(partition));
        let has = |range: &&Value| {
            matches!(range, Value::Array(parts) if matches!(parts.as_slice(), [Value::Int(first), Value::Int(last), ..]
                if (*first..=*last).contains(&slot)))
        };
        let owner = ranges.iter().find(has).and_then(|range| match range {
            Value::Array(parts) => match parts.get(2) {
                Some(Value::Array(node)) => address_of(node, asked),
                _ => None,
            },
            _ => None,
        });
        let owner = owner.ok_or_else(|| format!("{asked}: CLUSTERDOWN, nobody has slot {slot} of the cluster"))?;
        let index = topology.servers.iter().position(|server| *server == owner).unwrap_or_else(|| {
            topology.servers.push(owner);
            topology.servers.len() - 1
        });
        topology.owners.push(index);
    }
    Ok(topology)
}

/// Host and port as servers say them; one that does not know its host is the one that was asked.
fn address_of(parts: &[Value], asked: &Address) -> Option<Address> {
    let text = |value: &Value| match value {
        Value::BulkString(text) => String::from_utf8(text.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        _ => None,
    };
    let host = text(parts.first()?).filter(|host| !host.is_empty() && host != "?").unwrap_or(asked.host.clone());
    Some(Address { host, port: text(parts.get(1)?)?.parse().ok()? })
}
