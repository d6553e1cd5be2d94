//! What the operating system says of processes: CPU time and resident memory.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

/// Linux counts CPU time in these, whatever the machine.
const TICK: Duration = Duration::from_millis(10);

struct Stat {
    name: String,
    parent: u32,
    /// Its own, and that of children which have ended.
    ticks: [u64; 2],
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (before, after) = text.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let fields: Vec<_> = after.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        name: name.to_owned(),
        parent: u32::try_from(number(1)?).ok()?,
        ticks: [number(11)? + number(12)?, number(13)? + number(14)?],
    })
}

/// Milliseconds of CPU that a process took, in user and system mode.
pub(crate) fn cpu(pid: u32) -> f64 {
    milliseconds(stat(pid).unwrap().ticks[0])
}

/// Milliseconds of CPU that this thread took.
pub(crate) fn own_cpu() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds: u64 = text.split(' ').next().unwrap().parse().unwrap();
    Duration::from_nanos(nanoseconds).as_secs_f64() * 1_000.0
}

fn milliseconds(ticks: u64) -> f64 {
    ticks as f64 * TICK.as_secs_f64() * 1_000.0
}

/// Milliseconds of CPU that the PostgreSQL which this process started took.
pub(crate) fn postgres_cpu() -> f64 {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let all: HashMap<_, _> = pids.filter_map(|pid| Some((pid, stat(pid)?))).collect();
    let ours = |mut pid: u32| loop {
        match all.get(&pid) {
            _ if pid == std::process::id() => return true,
            Some(stat) => pid = stat.parent,
            None => return false,
        }
    };
    let servers = all.iter().filter(|(pid, stat)| stat.name == "postgres" && ours(**pid));
    let ticks = servers.map(|(_, stat)| {
        let is_backend = all.get(&stat.parent).is_some_and(|parent| parent.name == "postgres");
        // What ended backends took is counted with the process that began them.
        stat.ticks[0] + if is_backend { 0 } else { stat.ticks[1] }
    });
    milliseconds(ticks.sum())
}

/// Resident memory in MiB.
pub(crate) fn resident(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1_024.0
}

/// The latency below which 99 of 100 are, in milliseconds.
pub(crate) fn p99(latencies: &mut [f64]) -> f64 {
    latencies.sort_by(f64::total_cmp);
    latencies[latencies.len() * 99 / 100]
}

/// Milliseconds since then.
pub(crate) fn since(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1_000.0
}
