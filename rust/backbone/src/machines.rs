//! What machines tell one another at the server, and the patterns that one listens to.
use std::collections::VecDeque;

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError, cmd, pipe};

use crate::asking::error_of;
use crate::connection::told;
use crate::inbox::{Inbox, Telling};
use crate::names::Names;

/// What goes out at once.
const AT_ONCE_MAX: usize = 1_024;
const AT_ONCE_BYTES_MAX: usize = 4 << 20;

/// What waits to be told, and which patterns are to be listened to. One call of each kind is under way at most, so that
/// nothing is overtaken.
#[derive(Debug, Default)]
pub(crate) struct Machines {
    tellings: VecDeque<Telling>,
    is_telling: bool,
    patterns: VecDeque<(Box<str>, bool)>,
    is_listening: bool,
}

impl Machines {
    pub(crate) fn push(&mut self, tellings: Vec<Telling>, patterns: impl IntoIterator<Item = (Box<str>, bool)>) {
        self.tellings.extend(tellings);
        self.patterns.extend(patterns);
    }

    /// What is to be told now.
    pub(crate) fn next_told(&mut self) -> Option<Vec<Telling>> {
        if self.is_telling || self.tellings.is_empty() {
            return None;
        }
        self.is_telling = true;
        let mut bytes = 0;
        let fits = |one: &&Telling| {
            bytes += one.cost();
            bytes <= AT_ONCE_BYTES_MAX
        };
        let count = self.tellings.iter().take(AT_ONCE_MAX).take_while(fits).count().max(1);
        Some(self.tellings.drain(..count).collect())
    }

    /// Which patterns are to be said now.
    pub(crate) fn next_listened(&mut self) -> Option<Vec<(Box<str>, bool)>> {
        if self.is_listening || self.patterns.is_empty() {
            return None;
        }
        self.is_listening = true;
        let count = self.patterns.len().min(AT_ONCE_MAX);
        Some(self.patterns.drain(..count).collect())
    }

    pub(crate) fn told(&mut self) {
        self.is_telling = false;
    }

    pub(crate) fn listened(&mut self) {
        self.is_listening = false;
    }

    /// Nothing of it is told any more.
    pub(crate) fn give_up(&mut self, inbox: &Inbox) {
        inbox.told(&Vec::from(std::mem::take(&mut self.tellings)));
    }
}

/// What tells all of this.
fn publishing(names: &Names, tellings: &[Telling], is_sharded: bool) -> Pipeline {
    let mut commands = pipe();
    for telling in tellings {
        let name = if is_sharded { "SPUBLISH" } else { "PUBLISH" };
        commands.cmd(name).arg(names.told(telling.to)).arg(&telling.bytes);
    }
    commands
}

/// Tells it; an error for each that is refused.
pub(crate) async fn tell(
    mut connection: MultiplexedConnection,
    names: &Names,
    tellings: &[Telling],
    is_sharded: bool,
) -> Result<Vec<String>, RedisError> {
    let commands = publishing(names, tellings, is_sharded);
    let answers = connection.send_packed_commands(&commands, 0, tellings.len()).await?;
    Ok(answers.iter().filter_map(error_of).collect())
}

/// Begins or ends to listen to patterns; an error for each that is refused.
pub(crate) async fn listen(
    mut connection: MultiplexedConnection,
    names: &Names,
    patterns: &[(Box<str>, bool)],
) -> Result<Vec<Option<String>>, RedisError> {
    let mut commands = pipe();
    for (pattern, is_begun) in patterns {
        commands.cmd(if *is_begun { "PSUBSCRIBE" } else { "PUNSUBSCRIBE" }).arg(names.pattern(pattern));
    }
    let answers = connection.send_packed_commands(&commands, 0, patterns.len()).await?;
    Ok(answers.iter().map(error_of).collect())
}

/// Has what is told to this machine, or to all, come from now on.
///
/// # Errors
/// Why it does not.
pub(crate) async fn attend(
    mut connection: MultiplexedConnection,
    names: &Names,
    machine: u64,
    is_sharded: bool,
) -> Result<(), String> {
    for whom in [None, Some(machine)] {
        let mut command = cmd(if is_sharded { "SSUBSCRIBE" } else { "SUBSCRIBE" });
        let answer = connection.send_packed_command(command.arg(names.told(whom))).await;
        let answer = answer.map_err(|error| told(&error))?;
        if let Some(error) = error_of(&answer) {
            return Err(format!("what machines tell one another cannot be heard at {:?}: {error}", names.told(whom)));
        }
    }
    Ok(())
}
