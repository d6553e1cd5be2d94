//! Overwrites the copies of keys that functions leave on the stack when they return: a moved value
//! remains where it was, and no destructor reaches it.

use zeroize::Zeroize;

/// More than the deepest call of this crate and its key providers needs.
const DEPTH: usize = 64 * 1024;

/// Runs `work` and then overwrites the part of the stack that it used.
pub fn with_wiped_stack<T>(work: impl FnOnce() -> T) -> T {
    let done = in_own_frame(work);
    wipe();
    done
}

#[inline(never)]
fn in_own_frame<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn wipe() {
    let mut below = [0_u8; DEPTH];
    // `zeroize` writes volatile, so this is not optimized away.
    below.zeroize();
    std::hint::black_box(&below);
}
