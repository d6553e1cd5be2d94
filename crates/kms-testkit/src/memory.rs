//! The memory of another process, to search it for secrets.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// Reads the writable memory of a process: a child of this one that may be traced.
///
/// # Errors
/// When the process has ended, or its memory may not be read.
pub fn writable_memory(process: u32) -> std::io::Result<Vec<u8>> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps"))?;
    let memory = File::open(format!("/proc/{process}/mem"))?;
    let mut found = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let address = |text| u64::from_str_radix(text, 16).ok();
        let Some((from, to)) = range.and_then(|(from, to)| address(from).zip(address(to))) else {
            continue;
        };
        let mut part = vec![0; usize::try_from(to - from).unwrap_or_default()];
        // Some kinds of pages cannot be read.
        if memory.read_exact_at(&mut part, from).is_ok() {
            found.extend(part);
        }
    }
    Ok(found)
}
