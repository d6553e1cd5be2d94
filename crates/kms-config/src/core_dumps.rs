//! Core dumps: a crash must not write the keys in memory to a disk.

use std::io::Result;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Turns core dumps off for this process and its children. Other processes of the same user cannot
/// read its memory any more either.
///
/// # Errors
/// When the operating system refuses.
pub fn turn_core_dumps_off() -> Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // The kernel ignores the limit where it pipes core dumps into a program.
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_cannot_be_dumped() {
        turn_core_dumps_off().unwrap();
        let dumpable = rustix::process::dumpable_behavior().unwrap();
        assert_eq!(dumpable, DumpableBehavior::NotDumpable);
    }
}
