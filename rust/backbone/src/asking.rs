//! What is asked of a server beside publishing: subscriptions, newest positions, and what a channel keeps.
use fanwire_core::Position;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value, pipe};

use crate::names::Names;
use crate::record::read_all;
use fanwire_core::node::Record;

/// How many channels are subscribed in one write.
pub(crate) const SUBSCRIBE_MAX: usize = 512;
/// How many records one answer has at most.
const SINCE_MAX: usize = 1_024;

/// Subscribes to channels, or leaves them; an error for each that is refused.
pub(crate) async fn subscribe(
    mut connection: MultiplexedConnection,
    names: &Names,
    changes: &[(Box<str>, bool)],
    is_sharded: bool,
) -> Result<Vec<Option<String>>, RedisError> {
    let mut commands = pipe();
    for (channel, is_wanted) in changes {
        let name = match (is_wanted, is_sharded) {
            (true, false) => "SUBSCRIBE",
            (false, false) => "UNSUBSCRIBE",
            (true, true) => "SSUBSCRIBE",
            (false, true) => "SUNSUBSCRIBE",
        };
        commands.cmd(name).arg(names.published(channel));
    }
    let answers = connection.send_packed_commands(&commands, 0, changes.len()).await?;
    Ok(answers.into_iter().map(|answer| error_of(&answer)).collect())
}

/// What a server says instead of an answer.
pub(crate) fn error_of(answer: &Value) -> Option<String> {
    match answer {
        Value::ServerError(error) => Some(match error.details() {
            Some(details) => format!("{} {details}", error.code()),
            None => error.code().to_owned(),
        }),
        _ => None,
    }
}

/// The newest positions of channels; epoch 0 where nothing was published.
pub(crate) async fn tops<'a>(
    mut connection: MultiplexedConnection,
    names: &Names,
    channels: impl Iterator<Item = &'a str>,
) -> Result<Vec<Result<Position, String>>, RedisError> {
    let mut commands = pipe();
    for channel in channels {
        commands.cmd("HMGET").arg(names.meta(channel)).arg("e").arg("o");
    }
    let count = commands.len();
    let answers = connection.send_packed_commands(&commands, 0, count).await?;
    Ok(answers.iter().map(|answer| error_of(answer).map_or_else(|| Ok(top_of(answer)), Err)).collect())
}

fn top_of(answer: &Value) -> Position {
    let number = |value: &Value| match value {
        Value::BulkString(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    };
    let of = |parts: &[Value]| match parts {
        [epoch, offset] => Some(Position { epoch: number(epoch)?, offset: number(offset)? }),
        _ => None,
    };
    match answer {
        Value::Array(parts) => of(parts).unwrap_or(Position { epoch: 0, offset: 0 }),
        _ => Position { epoch: 0, offset: 0 },
    }
}

/// What a channel keeps after a position.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) records: Vec<Record>,
    pub(crate) top: Position,
    pub(crate) is_whole: bool,
    /// Some entries are not ours.
    pub(crate) foreign: Option<&'static str>,
}

/// Asks for it; a server's refusal is the inner error.
pub(crate) async fn since(
    mut connection: MultiplexedConnection,
    names: &Names,
    channel: &str,
    after: Position,
    limit: usize,
) -> Result<Result<Kept, String>, RedisError> {
    let limit = limit.clamp(1, SINCE_MAX);
    let mut from = after.offset.saturating_add(1);
    loop {
        let mut commands = pipe();
        commands.cmd("HMGET").arg(names.meta(channel)).arg("e").arg("o");
        commands.cmd("XRANGE").arg(names.stream(channel)).arg(from).arg("+").arg("COUNT").arg(limit);
        let answers = connection.send_packed_commands(&commands, 0, 2).await?;
        let [meta, entries] = answers.as_slice() else { return Ok(Err("the answer has no two parts".to_owned())) };
        if let Some(error) = error_of(meta).or_else(|| error_of(entries)) {
            return Ok(Err(error));
        }
        let kept = kept(top_of(meta), entries, after);
        // Of another life there is everything to tell. The first question was where that one stood.
        if kept.top.epoch != after.epoch && from > 1 {
            from = 1;
            continue;
        }
        return Ok(Ok(kept));
    }
}

fn kept(top: Position, entries: &Value, after: Position) -> Kept {
    let mut kept = Kept { records: Vec::new(), top, is_whole: false, foreign: None };
    let entries = match entries {
        Value::Array(entries) => entries.as_slice(),
        _ => &[],
    };
    for entry in entries {
        match record_of(entry) {
            Ok(record) => kept.records.push(record),
            Err(reason) => kept.foreign = Some(reason),
        }
    }
    // Something may have been published between the two answers.
    kept.top = kept.records.last().map_or(top, |last| last.position.max(top));
    // A stream that has outlived its hash is of a life that is over.
    kept.records.retain(|record| record.position.epoch == kept.top.epoch);
    kept.is_whole = kept.top.epoch == after.epoch
        && kept.records.first().map_or(kept.top == after, |first| first.previous == after);
    kept
}

fn record_of(entry: &Value) -> Result<Record, &'static str> {
    let foreign = "an entry of its stream is not ours";
    let Value::Array(parts) = entry else { return Err(foreign) };
    let [_, Value::Array(fields)] = parts.as_slice() else { return Err(foreign) };
    let [Value::BulkString(name), Value::BulkString(bytes)] = fields.as_slice() else { return Err(foreign) };
    match read_all(bytes) {
        Ok(mut records) if records.len() == 1 && name == b"r" => Ok(records.remove(0)),
        _ => Err(foreign),
    }
}
