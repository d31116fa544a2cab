//! Several dirty logs in one write a connection: who takes part in which.
use super::io::Member;

/// Reused memory of joined writes: for each connection a chain of the turns that it takes part in.
#[derive(Debug, Default)]
pub(crate) struct Joiner {
    /// By slot: first link of its chain and which fan-out that was made in.
    heads: Vec<(u32, u32)>,
    links: Vec<(u32, u32)>,
    /// Slots with a chain, in order of appearance, with their descriptors.
    pub(crate) touched: Vec<Member>,
    generation: u32,
}

const NO_LINK: u32 = u32::MAX;

impl Joiner {
    /// Chains every member of every turn.
    pub(crate) fn gather<'a>(&mut self, slots: usize, turns: impl Iterator<Item = (u32, &'a [Member])>) {
        self.generation = self.generation.wrapping_add(1);
        self.links.clear();
        self.touched.clear();
        if self.heads.len() < slots {
            self.heads.resize(slots, (NO_LINK, self.generation.wrapping_sub(1)));
        }
        for (turn, members) in turns {
            for member in members {
                let head = &mut self.heads[member.slot as usize];
                if head.1 != self.generation {
                    *head = (NO_LINK, self.generation);
                    self.touched.push(*member);
                }
                self.links.push((turn, head.0));
                head.0 = (self.links.len() - 1) as u32;
            }
        }
    }

    /// The turns that a touched slot takes part in, last first.
    pub(crate) fn chain(&self, slot: u32) -> impl Iterator<Item = u32> {
        let first = self.heads[slot as usize].0;
        let link_at = |at: u32| (at != NO_LINK).then(|| self.links[at as usize]);
        std::iter::successors(link_at(first), move |link| link_at(link.1)).map(|link| link.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_has_one_chain_of_its_turns_and_nothing_of_the_last_fan_out() {
        let member = |slot| Member { fd: -1, slot, subscription: 0 };
        let mut joiner = Joiner::default();
        for _ in 0..2 {
            let turns = [(1, vec![member(0), member(2)]), (0, vec![member(2), member(1)])];
            joiner.gather(3, turns.iter().map(|(turn, members)| (*turn, members.as_slice())));
            let chains = [0, 1, 2].map(|slot| joiner.chain(slot).collect::<Vec<_>>());
            assert_eq!(chains, [vec![1], vec![0], vec![0, 1]]);
            assert_eq!(joiner.touched.iter().map(|one| one.slot).collect::<Vec<_>>(), [0, 2, 1]);
        }
    }
}
