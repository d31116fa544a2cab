//! What is asked of JetStream, and what it answers: JSON and a few headers. No socket.
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fanwire_core::Position;
use serde::Deserialize;
use serde_json::json;

use super::names::{Class, Names};
use super::target::Target;
use super::wire::{Message, milliseconds};

/// What stands before each publication of ours.
pub(crate) const MAGIC: &[u8; 4] = b"fw\x01\x00";
/// On how many servers of a cluster a stream is, where nobody says.
const REPLICAS: u64 = 3;
const DAY_NS: u64 = 24 * 60 * 60 * 1_000_000_000;

/// No stream has that subject, or no message.
pub(crate) const NO_STREAM: u64 = 10_059;
pub(crate) const NO_MESSAGE: u64 = 10_037;
/// Another has made it meanwhile.
pub(crate) const TAKEN: [u64; 2] = [10_065, 10_058];
/// Something newer stands on that subject.
pub(crate) const OVERTAKEN: u64 = 10_071;
/// Nobody leads it, for the moment.
const NOT_YET: u64 = 10_008;
/// There is no room left: resources, storage, memory.
pub(crate) const FULL: [u64; 4] = [10_023, 10_047, 10_028, 10_077];

/// What JetStream says in the place of an answer.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(crate) struct Fault {
    pub(crate) err_code: u64,
    pub(crate) description: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Failed {
    error: Option<Fault>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Streams {
    streams: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Placed {
    stream: String,
    seq: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Got {
    message: Stored,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Seen {
    config: Config,
    state: State,
    cluster: Cluster,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Stored {
    seq: u64,
    data: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    name: String,
    num_replicas: u64,
    max_msgs_per_subject: i64,
    allow_direct: bool,
    republish: Republish,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Republish {
    dest: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct State {
    last_seq: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Cluster {
    leader: String,
}

/// An answer, or what is said in its place: several answers have fields of one name and other kinds.
fn read<T: for<'a> Deserialize<'a>>(payload: &[u8]) -> Result<T, Fault> {
    let unread =
        |error: serde_json::Error| Fault { err_code: 0, description: format!("an answer that is none: {error}") };
    let failed: Failed = serde_json::from_slice(payload).map_err(unread)?;
    failed.error.map_or_else(|| serde_json::from_slice(payload).map_err(unread), Err)
}

/// A stream of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) name: String,
    pub(crate) epoch: u64,
    /// The newest sequence that is known.
    pub(crate) last: u64,
    pub(crate) replicas: u64,
    /// Which server of a cluster leads it.
    pub(crate) leader: String,
}

impl Life {
    /// A position of it is known.
    pub(crate) fn learn(&mut self, position: Position) {
        if position.epoch == self.epoch {
            self.last = self.last.max(position.offset);
        }
    }
}

/// The request for the stream that says of each class which stream takes it. It is made by whoever comes, again and again.
pub(crate) fn lives(names: &Names, target: &Target, is_cluster: bool) -> String {
    json!({
        "name": names.lives(),
        "description": "fanwire: which stream takes what hubs publish",
        "subjects": [names.all_lives()],
        "storage": storage(target),
        "num_replicas": replicas(target, is_cluster),
        "max_msgs_per_subject": 1,
    })
    .to_string()
}

/// What it says of a class.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    /// Where; 0 if nothing was ever said.
    pub(crate) at: u64,
    /// The epoch of that stream.
    pub(crate) epoch: u64,
    /// It was made: where it is not there, it was deleted.
    pub(crate) is_made: bool,
}

const MADE: &str = " made";

/// What says that a stream is to take a class; or does.
pub(crate) fn naming(stream: &str, is_made: bool) -> String {
    format!("{stream}{}", if is_made { MADE } else { "" })
}

/// Reads that.
pub(crate) fn named(payload: &[u8], names: &Names) -> Result<Named, Fault> {
    let Stored { seq, data } = match read::<Got>(payload) {
        Ok(answer) => answer.message,
        Err(fault) if fault.err_code == NO_MESSAGE => return Ok(Named::default()),
        Err(fault) => return Err(fault),
    };
    let said = STANDARD.decode(data).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    let (stream, is_made) = said.strip_suffix(MADE).map_or((said.as_str(), false), |stream| (stream, true));
    Ok(Named { at: seq, epoch: names.epoch_of(stream).unwrap_or(0), is_made })
}

fn storage(target: &Target) -> &'static str {
    if target.is_in_memory { "memory" } else { "file" }
}

fn replicas(target: &Target, is_cluster: bool) -> u64 {
    target.replicas.unwrap_or(if is_cluster { REPLICAS } else { 1 })
}

/// The request for a new stream.
pub(crate) fn config(
    names: &Names,
    class: Class,
    epoch: u64,
    target: &Target,
    is_cluster: bool,
    again_ms: u64,
) -> String {
    json!({
        "name": names.stream(class, epoch),
        "description": "fanwire: what hubs on several machines publish",
        "subjects": [names.all_taken(class)],
        "retention": "limits",
        "discard": "old",
        "storage": storage(target),
        "num_replicas": replicas(target, is_cluster),
        "max_msgs_per_subject": class.messages.saturating_add(1).min(1 << 53),
        "max_age": class.days.saturating_mul(DAY_NS).min(1 << 62),
        "duplicate_window": again_ms.saturating_mul(1_000_000),
        "allow_direct": true,
        "republish": {"src": names.all_taken(class), "dest": names.again(class)},
    })
    .to_string()
}

/// Which streams have a subject.
pub(crate) fn streams_of(payload: &[u8]) -> Result<Vec<String>, Fault> {
    Ok(read::<Streams>(payload)?.streams.unwrap_or_default())
}

/// What a stream is. The outer error is one of ours: somebody has made it otherwise.
pub(crate) fn life_of(payload: &[u8], names: &Names, class: Class) -> Result<Result<Life, Fault>, String> {
    let Seen { config, state, cluster } = match read(payload) {
        Ok(answer) => answer,
        Err(fault) => return Ok(Err(fault)),
    };
    let Some(epoch) = names.epoch_of(&config.name) else {
        return Err(foreign_stream(&config.name, names, class));
    };
    let keeps = u64::try_from(config.max_msgs_per_subject).unwrap_or(u64::MAX);
    if !config.allow_direct || config.republish.dest != names.again(class) || keeps <= class.messages {
        let must = format!(
            "allow_direct, republish to {} and max_msgs_per_subject above {}",
            names.again(class),
            class.messages
        );
        return Err(format!("the stream {} is not as fanwire makes it: it must have {must}", config.name));
    }
    let (name, last, replicas) = (config.name, state.last_seq, config.num_replicas);
    Ok(Ok(Life { name, epoch, last, replicas, leader: cluster.leader }))
}

/// A stream that is not ours has what we publish.
pub(crate) fn foreign_stream(name: &str, names: &Names, class: Class) -> String {
    format!("the stream {name} takes {}, and is none of fanwire's", names.all_taken(class))
}

/// The sequence of a subject's newest message.
pub(crate) fn top_of(payload: &[u8]) -> Result<u64, Fault> {
    match read::<Got>(payload) {
        Ok(answer) => Ok(answer.message.seq),
        Err(fault) if fault.err_code == NO_MESSAGE => Ok(0),
        Err(fault) => Err(fault),
    }
}

/// Where a publication stands: the stream, and its sequence there.
pub(crate) fn placed(payload: &[u8]) -> Result<(String, u64), Fault> {
    let placed: Placed = read(payload)?;
    Ok((placed.stream, placed.seq))
}

/// Why there is no answer yet, in the server's words, if it is so.
pub(crate) fn not_yet(payload: &[u8]) -> Option<String> {
    let fault = read::<Failed>(payload).ok()?.error?;
    (fault.err_code == NOT_YET).then_some(fault.description)
}

/// Whether JetStream is there for us, or a stream whose answer says nothing more.
pub(crate) fn is_enabled(payload: &[u8]) -> Result<(), Fault> {
    read::<Failed>(payload).map(drop)
}

/// What a stream has published again, or gives when it is asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) position: Position,
    /// The sequence of the one before it, in what is published again.
    pub(crate) previous: u64,
    /// How many more there are, in an answer.
    pub(crate) pending: u64,
    pub(crate) published_ms: u64,
    /// What was published; or why it is none of ours.
    pub(crate) bytes: Result<&'a [u8], &'static str>,
}

/// Reads one.
///
/// # Errors
/// It does not come from a stream of ours.
pub(crate) fn entry<'a>(message: &Message<'a>, names: &Names) -> Result<Entry<'a>, &'static str> {
    let foreign = "it comes from no stream of fanwire's";
    let epoch = message.header("Nats-Stream").and_then(|stream| names.epoch_of(stream)).ok_or(foreign)?;
    let offset = message.number("Nats-Sequence").filter(|&offset| offset > 0).ok_or(foreign)?;
    let published_ms = message.header("Nats-Time-Stamp").and_then(milliseconds).ok_or(foreign)?;
    let previous = message.number("Nats-Last-Sequence").unwrap_or(0);
    let pending = message.number("Nats-Num-Pending").unwrap_or(0);
    let bytes = message.payload.strip_prefix(MAGIC).ok_or("it does not begin with fw, version 1");
    if previous >= offset {
        return Err(foreign);
    }
    Ok(Entry { position: Position { epoch, offset }, previous, pending, published_ms, bytes })
}

#[cfg(test)]
mod tests {
    use fanwire_core::node::Keep;

    use super::*;
    use crate::api::Options;

    #[test]
    fn a_stream_is_asked_for_and_known_again() {
        let names = Names::new(&Options::default()).unwrap();
        let class = Class::of(Keep { messages: 100, age_ms: 300_000 });
        let target = Target::parse("nats://host").unwrap();
        let config = config(&names, class, 0xabc, &target, false, 1);
        let answer = format!("{{\"config\":{config},\"state\":{{\"last_seq\":7}},\"cluster\":{{\"leader\":\"a\"}}}}");
        let life = life_of(answer.as_bytes(), &names, class).unwrap().unwrap();
        assert_eq!((life.name.as_str(), life.epoch, life.last), ("fanwire-100-abc", 0xabc, 7));
        assert_eq!((life.replicas, life.leader.as_str()), (1, "a"));
        let other = Class { messages: 200, ..class };
        let why = life_of(answer.as_bytes(), &names, other).unwrap_err();
        assert!(why.contains("max_msgs_per_subject above 200"), "{why}");
        let why = life_of(b"{\"config\":{\"name\":\"ORDERS\"}}", &names, class).unwrap_err();
        assert!(why.contains("ORDERS") && why.contains("fanwire.in.100.*"), "{why}");
    }

    #[test]
    fn what_is_to_take_a_class_is_said_and_read() {
        let names = Names::new(&Options::default()).unwrap();
        let answer = |said: &str| format!("{{\"message\":{{\"seq\":3,\"data\":\"{}\"}}}}", STANDARD.encode(said));
        let stream = names.stream(Class::of(Keep { messages: 100, age_ms: 0 }), 0xabc);
        for is_made in [false, true] {
            let said = answer(&naming(&stream, is_made));
            assert_eq!(named(said.as_bytes(), &names), Ok(Named { at: 3, epoch: 0xabc, is_made }));
        }
        assert_eq!(named(answer("ORDERS").as_bytes(), &names), Ok(Named { at: 3, epoch: 0, is_made: false }));
        assert_eq!(named(b"{\"error\":{\"err_code\":10037}}", &names), Ok(Named::default()));
    }

    #[test]
    fn answers_and_faults_are_told_apart() {
        let fault = b"{\"error\":{\"code\":404,\"err_code\":10037,\"description\":\"no message found\"}}";
        assert_eq!(top_of(fault), Ok(0));
        assert_eq!(placed(fault).unwrap_err().description, "no message found");
        assert_eq!(top_of(b"{\"message\":{\"subject\":\"a\",\"seq\":5,\"data\":\"eA==\"}}"), Ok(5));
        assert_eq!(placed(b"{\"stream\":\"s\",\"seq\":9}"), Ok(("s".into(), 9)));
        assert_eq!(streams_of(b"{\"streams\":null}"), Ok(vec![]));
        assert!(streams_of(b"x").is_err());
    }
}
