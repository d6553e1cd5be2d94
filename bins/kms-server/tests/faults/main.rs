//! Real servers in processes of their own die and lose answers while money moves, as a seed says;
//! afterwards the chain is asked whether each acknowledged payment was made, once, and nothing else.
//!
//! `FAULT_SEED` is the first seed and `FAULT_RUNS` how many follow. A seed says where a process
//! dies, what becomes of each request to the chain, what is sent over which server, and what the
//! chain forgets; how threads meet it can not say.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and print their seeds"
)]

mod proxy;
mod random;
mod stage;

use std::time::Instant;

use crate::random::Random;
use crate::stage::Stage;

const SEED: u64 = 1;
const RUNS: u64 = 24;

#[expect(clippy::disallowed_methods, reason = "whoever looks for a rare fault says where")]
fn variable(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number")),
        Err(_) => otherwise,
    }
}

#[actix_web::test]
async fn money_moves_once_whatever_breaks() {
    let (first, runs) = (variable("FAULT_SEED", SEED), variable("FAULT_RUNS", RUNS));
    let begun = Instant::now();
    let mut stage = Stage::set().await;
    let (mut paid, mut died) = (0, 0);
    for seed in first..first + runs {
        let run = stage.run(seed).await;
        println!("FAULT_SEED={seed} FAULT_RUNS=1: {run}");
        paid += run.paid;
        died += u64::from(run.died);
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{runs} runs, {paid} payments, {died} processes died, {seconds:.1} s");
    // Faults that hit nothing would prove nothing.
    assert!(paid > runs, "{paid} payments in {runs} runs");
    assert!(runs < 20 || died * 5 > runs, "{died} processes died in {runs} runs");
}

#[actix_web::test]
async fn fifty_sends_from_one_wallet_over_four_processes_have_fifty_nonces() {
    let mut stage = Stage::set().await;
    stage.fifty(&mut Random::from_seed(7)).await;
}
