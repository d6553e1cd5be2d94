//! Runs several seeds at once, each on servers and a chain that no other run uses.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::thread;

use actix_web::rt::System;
use futures::FutureExt;

use crate::fault::Fault;
use crate::scenario::{Run, Scenario};

/// How many runs use the same servers and chain: a chain becomes slower as it grows.
const RUNS_OF_A_SCENARIO: u32 = 20;

/// The results of all seeds.
#[derive(Default)]
pub(crate) struct Ended {
    pub(crate) runs: Vec<Run>,
    pub(crate) failed: Vec<u64>,
}

/// Runs these seeds. A failed one is reported and does not end the others.
pub(crate) fn run(seeds: VecDeque<(u64, Fault)>, lanes: u64) -> Ended {
    let (seeds, ended) = (Mutex::new(seeds), Mutex::default());
    thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| System::new().block_on(lane(&seeds, &ended)));
        }
    });
    ended.into_inner().unwrap()
}

async fn lane(seeds: &Mutex<VecDeque<(u64, Fault)>>, ended: &Mutex<Ended>) {
    let mut current: Option<(Scenario, u32)> = None;
    loop {
        // A new one takes the seed that waits longest, of either kind.
        current.take_if(|(_, runs)| *runs == RUNS_OF_A_SCENARIO);
        let has_two = current.as_ref().map(|(scenario, _)| scenario.has_two_endpoints());
        let Some((seed, fault)) = next(&mut seeds.lock().unwrap(), has_two) else { return };
        let fits = |(scenario, _): &(Scenario, u32)| {
            scenario.has_two_endpoints() == fault.has_two_endpoints()
        };
        let (mut scenario, runs) = match current.take().filter(fits) {
            Some(kept) => kept,
            None => (Scenario::start(fault.has_two_endpoints()).await, 0),
        };
        match AssertUnwindSafe(scenario.run(seed, fault)).catch_unwind().await {
            Ok(run) => {
                println!("FAULT_SEED={seed} FAULT_RUNS=1: {run}");
                ended.lock().unwrap().runs.push(run);
                current = Some((scenario, runs + 1));
            }
            // The panic was printed. The scenario may be in any state.
            Err(_panic) => {
                println!("FAULT_SEED={seed} FAULT_RUNS=1: {fault} failed");
                ended.lock().unwrap().failed.push(seed);
            }
        }
    }
}

/// Takes the first seed, rather one for a scenario with so many endpoints.
fn next(seeds: &mut VecDeque<(u64, Fault)>, has_two: Option<bool>) -> Option<(u64, Fault)> {
    let fits = |(_, fault): &(u64, Fault)| Some(fault.has_two_endpoints()) == has_two;
    let index = seeds.iter().position(fits).unwrap_or_default();
    seeds.remove(index)
}
