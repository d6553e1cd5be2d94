//! Seeded faults: real server processes crash, and lose requests and answers, while transfers are
//! sent. Afterwards the chain must show that every acknowledged transfer was made exactly once, and
//! nothing else.
//!
//! `FAULT_SEED` is the first seed, `FAULT_RUNS` the number of seeds. A seed determines where a
//! process crashes, what happens to each request to the chain, which transfers are sent through
//! which server, and which transactions and blocks the chain drops. It does not determine the
//! scheduling of threads.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and print their seeds"
)]

mod proxy;
mod random;
mod scenario;

use std::time::Instant;

use crate::random::Random;
use crate::scenario::Scenario;

const SEED: u64 = 1;
const RUNS: u64 = 24;

#[expect(clippy::disallowed_methods, reason = "chooses the seeds of a run")]
fn variable(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} must be a number")),
        Err(_) => otherwise,
    }
}

#[actix_web::test]
async fn every_acknowledged_transfer_is_made_once_under_faults() {
    let (first, runs) = (variable("FAULT_SEED", SEED), variable("FAULT_RUNS", RUNS));
    let begun = Instant::now();
    let mut scenario = Scenario::start().await;
    let (mut paid, mut crashed) = (0, 0);
    for seed in first..first + runs {
        let run = scenario.run(seed).await;
        println!("FAULT_SEED={seed} FAULT_RUNS=1: {run}");
        paid += run.paid;
        crashed += u64::from(run.crashed);
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{runs} runs, {paid} transfers, {crashed} crashes, {seconds:.1} s");
    // Guards against faults that never happen.
    assert!(paid > runs, "{paid} transfers in {runs} runs");
    assert!(runs < 20 || crashed * 5 > runs, "{crashed} crashes in {runs} runs");
}

#[actix_web::test]
async fn fifty_transfers_from_one_wallet_over_four_processes_have_fifty_nonces() {
    let mut scenario = Scenario::start().await;
    scenario.fifty_transfers(&mut Random::from_seed(7)).await;
}
