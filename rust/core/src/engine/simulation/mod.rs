//! The main test of the promises: the real engine and its real shards over a simulated kernel, one seed after another.
//!
//! A seed makes the channels' settings, the pollers, and then step after step: what is published, who connects, asks, leaves,
//! reads a part, breaks; which shard has its turn, and what the kernel answers it ([`crate::shard::simulated`]). What each
//! socket took is read as a client reads it (`wire`, `client`) and compared with a plain `list`: `sieve` has what clients filter by, `seating` says where a
//! subscription begins, `promise` what it gets. `frameworks` have sockets that are
//! adopted, and `adopted` says in which order what they write comes among publications. `carried` has SignalR by polls and on one socket after another,
//! `offered` clients of a relay's lane that are answered by their shard,
//! `workers` several engines that one sequencer makes one, with what is for users and whole hubs (`audiences`); `workers_faults`
//! is what was found there. `faults` has what was found so, step by step.
//!
//! A failing seed is printed; `PROPTEST_RNG_SEED=17 PROPTEST_CASES=1 cargo test -p fanwire-core simulation` runs it again.
mod account;
mod adopted;
mod adopted_faults;
mod audiences;
mod carried;
mod client;
mod faults;
mod framework;
mod frameworks;
mod hold;
mod list;
mod offered;
mod press;
mod promise;
mod seating;
mod sieve;
mod steps;
mod turn;
mod wire;
mod workers;
mod workers_faults;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use proptest::test_runner::{Config, RngSeed};

/// What `cargo test` has for it, on one core; and so many seeds at most, so that each run of it looks at the same ones.
const TIME: Duration = Duration::from_secs(30);
const SEEDS: u64 = 6_000;
/// The same for SignalR that has no socket for life.
const CARRIED_SEEDS: u64 = 300;
/// The same for clients that join what is offered.
const OFFERED_SEEDS: u64 = 1_000;
/// The same for several workers.
const WORKERS_SEEDS: u64 = 500;

/// Runs seeds, from the one that the environment names or `first` on, as many as there is time for.
fn run(one: fn(u64), (first, seeds): (u64, u64), time: Duration) {
    let config = Config::default(); // PROPTEST_RNG_SEED and PROPTEST_CASES
    let (first, count_max) = match config.rng_seed {
        RngSeed::Fixed(seed) => (seed, u64::from(config.cases)),
        RngSeed::Random => (first, seeds),
    };
    let begin = Instant::now();
    let mut count = 0;
    while count < count_max && begin.elapsed() < time {
        let seed = first + count;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| one(seed))) {
            eprintln!("again: PROPTEST_RNG_SEED={seed} PROPTEST_CASES=1 cargo test -p fanwire-core simulation");
            resume_unwind(panic);
        }
        count += 1;
    }
    println!("{count} seeds");
}

#[test]
fn every_subscriber_gets_what_its_policy_promises() {
    run(steps::run, (0, SEEDS), TIME);
}

#[test]
fn signalr_clients_get_all_in_order_whatever_carries_it() {
    run(carried::run, (0, CARRIED_SEEDS), TIME);
}

#[test]
fn who_joins_a_lane_by_its_first_call_gets_what_others_get() {
    run(offered::run, (0, OFFERED_SEEDS), TIME);
}

#[test]
fn workers_are_one_whatever_comes_late() {
    run(workers::run, (0, WORKERS_SEEDS), TIME);
}

/// For `make soak`: each time other seeds.
#[test]
#[ignore = "ten minutes"]
fn every_subscriber_gets_what_its_policy_promises_for_long() {
    let since = std::time::UNIX_EPOCH.elapsed().expect("a date of today");
    let seeds = (since.as_secs() << 20, u64::MAX);
    run(carried::run, seeds, Duration::from_secs(60));
    run(offered::run, seeds, Duration::from_secs(60));
    run(workers::run, seeds, Duration::from_secs(60));
    run(steps::run, seeds, Duration::from_secs(600));
}
