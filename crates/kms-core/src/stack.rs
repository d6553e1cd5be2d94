//! Copies of keys that functions leave on the stack when they return: a value that is moved stays
//! where it was, and no destructor reaches it.

use zeroize::Zeroize;

/// More than the deepest of this crate's calls takes.
const DEPTH: usize = 64 * 1024;

/// Does the work, and overwrites the stack that it used.
pub(crate) fn wiped_after<T>(work: impl FnOnce() -> T) -> T {
    let done = apart(work);
    wipe();
    done
}

/// With a frame of its own, below the caller's.
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn wipe() {
    let mut below = [0_u8; DEPTH];
    // Not optimised away: its writes are volatile.
    below.zeroize();
    std::hint::black_box(&below);
}
