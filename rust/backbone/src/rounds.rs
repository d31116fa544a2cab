//! What waits to be published at one server, and the rounds in which it goes there.
//!
//! A round has one call for each channel that waits, with as much of it as a call may have. The next round begins when
//! this one is answered: what has come meanwhile goes in it. So nothing is overtaken, and nothing waits while it is idle.
use std::collections::{HashMap, VecDeque};
use std::mem;

use fanwire_core::Position;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError, Value, cmd, pipe};

use crate::inbox::Publication;
use crate::script::{Call, SCRIPT};

const ROUND_BYTES_MAX: usize = 4 << 20;
const ROUND_MAX: usize = 4_096;
const CALL_BYTES_MAX: usize = 1 << 20;
const CALL_MAX: usize = 512;

/// The publications of one call: of one channel, with one `keep`.
pub(crate) type Batch = Vec<Publication>;

/// What waits for one server.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    waiting: HashMap<Box<str>, VecDeque<Publication>>,
    /// Channels that wait, each once.
    turns: VecDeque<Box<str>>,
    /// The server has lost the script.
    pub(crate) must_load: bool,
}

impl Rounds {
    pub(crate) fn push(&mut self, publication: Publication) {
        if let Some(queue) = self.waiting.get_mut(&publication.channel) {
            queue.push_back(publication);
            return;
        }
        self.turns.push_back(publication.channel.clone());
        self.waiting.insert(publication.channel.clone(), VecDeque::from([publication]));
    }

    /// A call was not done: what it had goes before what has come since.
    pub(crate) fn put_back(&mut self, batch: Batch) {
        let Some(channel) = batch.first().map(|one| one.channel.clone()) else { return };
        let queue = self.waiting.entry(channel.clone()).or_default();
        if queue.is_empty() {
            self.turns.push_back(channel);
        }
        for publication in batch.into_iter().rev() {
            queue.push_front(publication);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// What goes out at once.
    pub(crate) fn next(&mut self) -> Vec<Batch> {
        let mut round = Vec::new();
        let (mut count, mut bytes) = (0, 0);
        for _ in 0..self.turns.len() {
            if count >= ROUND_MAX || bytes >= ROUND_BYTES_MAX {
                break;
            }
            let channel = self.turns.pop_front().expect("so many have their turn");
            let queue = self.waiting.get_mut(&channel).expect("it waits");
            let batch = batch_of(queue);
            count += batch.len();
            bytes += batch.iter().map(Publication::cost).sum::<usize>();
            round.push(batch);
            if queue.is_empty() {
                self.waiting.remove(&channel);
            } else {
                self.turns.push_back(channel);
            }
        }
        round
    }

    /// All that waits, where it will not go out.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Publication> {
        self.turns.clear();
        mem::take(&mut self.waiting).into_values().flatten()
    }
}

fn batch_of(queue: &mut VecDeque<Publication>) -> Batch {
    let mut batch = Vec::new();
    let mut bytes = 0;
    let keep = queue[0].keep;
    while let Some(first) = queue.front()
        && first.keep == keep
        && batch.len() < CALL_MAX
        && (batch.is_empty() || bytes + first.cost() <= CALL_BYTES_MAX)
    {
        bytes += first.cost();
        batch.extend(queue.pop_front());
    }
    batch
}

/// The commands of a round.
pub(crate) fn commands(round: &[Batch], call: &Call<'_>, must_load: bool, seen: impl Fn(&str) -> Position) -> Pipeline {
    let mut commands = pipe();
    if must_load {
        let mut load = cmd("SCRIPT");
        load.arg("LOAD").arg(SCRIPT);
        commands.add_command(load);
    }
    for batch in round {
        commands.add_command(call.command(batch, seen(&batch[0].channel)));
    }
    commands
}

/// Sends them, and waits for the answers, one for each batch.
pub(crate) async fn go(
    mut connection: MultiplexedConnection,
    commands: Pipeline,
    must_load: bool,
) -> Result<Vec<Value>, RedisError> {
    let count = commands.len();
    let mut answers = connection.send_packed_commands(&commands, 0, count).await?;
    if must_load {
        answers.remove(0);
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanwire_core::node::Keep;

    fn one(ticket: u64, channel: &str, messages: u64, bytes: usize) -> Publication {
        let keep = Keep { messages, age_ms: 0 };
        Publication { ticket, channel: channel.into(), bytes: vec![0; bytes], keep, idempotency_key: None }
    }

    fn tickets(round: &[Batch]) -> Vec<Vec<u64>> {
        round.iter().map(|batch| batch.iter().map(|one| one.ticket).collect()).collect()
    }

    #[test]
    fn a_round_has_a_call_for_each_channel_and_the_rest_has_the_next() {
        let mut rounds = Rounds::default();
        for (ticket, channel, messages) in [(1, "a", 5), (2, "b", 5), (3, "a", 5), (4, "a", 6), (5, "b", 5)] {
            rounds.push(one(ticket, channel, messages, 10));
        }
        let round = rounds.next();
        assert_eq!(tickets(&round), [vec![1, 3], vec![2, 5]]);
        rounds.push(one(6, "b", 5, 10));
        for batch in round {
            rounds.put_back(batch);
        }
        assert_eq!(tickets(&rounds.next()), [vec![1, 3], vec![2, 5, 6]]);
        assert_eq!(tickets(&rounds.next()), [vec![4]]);
        assert!(rounds.is_empty() && rounds.next().is_empty());
    }

    #[test]
    fn what_is_large_goes_alone_and_a_flood_in_parts() {
        let mut rounds = Rounds::default();
        rounds.push(one(1, "a", 5, 3 << 20));
        rounds.push(one(2, "a", 5, 10));
        assert_eq!(tickets(&rounds.next()), [vec![1]]);
        for ticket in 3..2_000 {
            rounds.push(one(ticket, "a", 5, 10));
        }
        assert_eq!(rounds.next()[0].len(), CALL_MAX);
        assert_eq!(rounds.drain().count(), 1_998 - CALL_MAX);
        assert!(rounds.is_empty());
    }
}
