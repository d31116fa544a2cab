//! The script that publishes: what it is called with, and what it answers.
use fanwire_core::Position;
use redis::{Cmd, Value, cmd};

use crate::inbox::Publication;
use crate::names::Names;

/// Read by whoever publishes in another language, too.
pub const SCRIPT: &str = include_str!("publish.lua");

/// What a call says beside its publications.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) names: &'a Names,
    /// What `SCRIPT LOAD` has answered.
    pub(crate) sha: &'a str,
    pub(crate) run_id: &'a str,
    pub(crate) is_sharded: bool,
    pub(crate) unused_ms: u64,
    pub(crate) idempotency_ms: u64,
}

impl Call<'_> {
    /// The command for publications of one channel with the same `keep`; one at least.
    pub(crate) fn command(&self, publications: &[Publication], seen: Position) -> Cmd {
        let (channel, keep) = (&*publications[0].channel, publications[0].keep);
        let keys = publications.iter().filter_map(|one| one.idempotency_key.as_deref());
        let mut command = cmd("EVALSHA");
        command.arg(self.sha).arg(2 + keys.clone().count());
        command.arg(self.names.meta(channel)).arg(self.names.stream(channel));
        for key in keys {
            command.arg(self.names.first(channel, key));
        }
        // What is kept longer than an unused channel's position would be of no use.
        let unused_ms = self.unused_ms.max(keep.age_ms.saturating_mul(2)).min(1 << 50);
        command.arg(self.names.published(channel)).arg(if self.is_sharded { "SPUBLISH" } else { "PUBLISH" });
        command.arg(self.run_id).arg(seen.epoch).arg(seen.offset);
        command.arg(keep.messages.min(1 << 50)).arg(keep.age_ms.min(1 << 49)).arg(unused_ms).arg(self.idempotency_ms);
        for publication in publications {
            command.arg(if publication.idempotency_key.is_some() { "1" } else { "0" }).arg(&publication.bytes[..]);
        }
        command
    }
}

/// The positions that a call was answered with.
pub(crate) fn positions(answer: &Value, count: usize) -> Option<Vec<Position>> {
    let Value::Array(numbers) = answer else { return None };
    let number = |value: &Value| match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    };
    let (pairs, rest) = numbers.as_chunks::<2>();
    let of = |[epoch, offset]: &[Value; 2]| Some(Position { epoch: number(epoch)?, offset: number(offset)? });
    (pairs.len() == count && rest.is_empty()).then(|| pairs.iter().map(of).collect())?
}
