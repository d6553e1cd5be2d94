//! CPU time and resident memory of processes, from `/proc`.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

/// The unit of CPU time in `/proc`, on every machine.
const TICK: Duration = Duration::from_millis(10);

struct Stat {
    name: String,
    parent: u32,
    /// CPU time of the process itself, and of its children that have ended.
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

/// CPU time of a process in user and system mode, in milliseconds.
pub(crate) fn cpu(pid: u32) -> f64 {
    milliseconds(stat(pid).unwrap().ticks[0])
}

/// CPU time of this thread, in milliseconds.
pub(crate) fn own_cpu() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds: u64 = text.split(' ').next().unwrap().parse().unwrap();
    Duration::from_nanos(nanoseconds).as_secs_f64() * 1_000.0
}

fn milliseconds(ticks: u64) -> f64 {
    ticks as f64 * TICK.as_secs_f64() * 1_000.0
}

/// CPU time of a process and of all that it started, in milliseconds.
pub(crate) fn cpu_of_all(pid: u32) -> f64 {
    let all = processes();
    let theirs = all.iter().filter(|(each, _)| descends(&all, **each, pid));
    milliseconds(theirs.map(|(_, stat)| stat.ticks[0]).sum())
}

/// CPU time of the PostgreSQL that this process started, in milliseconds.
pub(crate) fn postgres_cpu() -> f64 {
    let all = processes();
    let servers = all
        .iter()
        .filter(|(pid, stat)| stat.name == "postgres" && descends(&all, **pid, std::process::id()));
    let ticks = servers.map(|(_, stat)| {
        let is_backend = all.get(&stat.parent).is_some_and(|parent| parent.name == "postgres");
        // The time of ended backends is accounted to their parent.
        stat.ticks[0] + if is_backend { 0 } else { stat.ticks[1] }
    });
    milliseconds(ticks.sum())
}

fn processes() -> HashMap<u32, Stat> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, stat(pid)?))).collect()
}

/// Whether a process is this one or was started by it, or by one that it started.
fn descends(all: &HashMap<u32, Stat>, mut pid: u32, from: u32) -> bool {
    loop {
        match all.get(&pid) {
            _ if pid == from => return true,
            Some(stat) => pid = stat.parent,
            None => return false,
        }
    }
}

/// The memory of a process and of all that it started in MiB, shared pages counted once.
pub(crate) fn memory_of_all(pid: u32) -> f64 {
    let all = processes();
    let theirs = all.keys().filter(|each| descends(&all, **each, pid));
    let shares = theirs.filter_map(|pid| {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = rollup.lines().find(|line| line.starts_with("Pss:"))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok()
    });
    shares.sum::<f64>() / 1_024.0
}

/// Resident memory in MiB.
pub(crate) fn resident(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1_024.0
}

/// The 99th percentile.
pub(crate) fn p99(latencies: &mut [f64]) -> f64 {
    latencies.sort_by(f64::total_cmp);
    latencies[latencies.len() * 99 / 100]
}

/// The time since then, in milliseconds.
pub(crate) fn since(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1_000.0
}
