//! Seeded faults: real server processes crash, lose requests and answers, and meet a chain that
//! misbehaves, while transfers are sent. Afterwards the chain must show that every acknowledged
//! transfer was made exactly once, and nothing else; every wallet can still pay; and what people
//! were last notified of is what the chain has.
//!
//! `FAULT_SEED` is the first seed, `FAULT_RUNS` the number of seeds, `FAULT` the name of a fault
//! that every seed has, and `FAULT_LANES` how many runs proceed at once. A seed determines the
//! fault, where a process crashes, what happens to each request to the chain, which transfers are
//! sent through which server, and which transactions and blocks the chain drops. It does not
//! determine the scheduling of threads.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and print their seeds"
)]

mod chain;
mod check;
mod fault;
mod lanes;
mod notices;
mod proxy;
mod races;
mod random;
mod scenario;
mod sender;
mod settle;

use std::time::Instant;

use crate::fault::Fault;
use crate::random::Random;
use crate::scenario::Scenario;

const SEED: u64 = 1;
const RUNS: u64 = 60;
/// Runs mostly wait: for blocks, for time to pass, for a process to start.
const LANES: u64 = 4;

#[expect(clippy::disallowed_methods, reason = "chooses the seeds of a run")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn number(name: &str, otherwise: u64) -> u64 {
    let text = variable(name);
    text.map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}: not a number")))
}

#[test]
fn every_acknowledged_transfer_is_made_once_under_faults() {
    let (first, runs) = (number("FAULT_SEED", SEED), number("FAULT_RUNS", RUNS));
    let named = variable("FAULT");
    let begun = Instant::now();
    let seeds = (first..first + runs).map(|seed| (seed, Fault::of(seed, named.as_deref())));
    let ended = lanes::run(seeds.collect(), number("FAULT_LANES", LANES));
    let (paid, crashed): (u64, u64) = ended
        .runs
        .iter()
        .fold((0, 0), |(paid, crashed), run| (paid + run.paid, crashed + u64::from(run.crashed)));
    let seconds = begun.elapsed().as_secs_f64();
    println!("{runs} runs, {paid} transfers, {crashed} crashes, {seconds:.1} s");
    assert!(ended.failed.is_empty(), "failed seeds: {:?}", ended.failed);
    // Guards against faults that never happen.
    assert!(paid >= runs, "{paid} transfers in {runs} runs");
    assert!(runs < 20 || crashed * 5 > runs, "{crashed} crashes in {runs} runs");
}

#[actix_web::test]
async fn fifty_transfers_from_one_wallet_over_four_processes_have_fifty_nonces() {
    let mut scenario = Scenario::start(false).await;
    scenario.fifty_transfers(&mut Random::from_seed(7)).await;
}
