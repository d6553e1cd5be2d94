//! Places where a test can abort the process, to check what a crash there leaves behind, and a
//! clock that a test can set.
//!
//! Without the feature `failpoints` they compile to nothing.

#[cfg(feature = "failpoints")]
use std::sync::atomic::{AtomicU32, Ordering};

/// How often the armed failpoint was reached.
#[cfg(feature = "failpoints")]
static REACHED: AtomicU32 = AtomicU32::new(0);

/// Aborts the process if the environment variable `KMS_FAILPOINT` names this failpoint; with `@`
/// and a number, only when it is reached for that time.
#[inline]
pub fn reach(place: &str) {
    #[cfg(feature = "failpoints")]
    #[expect(clippy::disallowed_methods, reason = "tests arm failpoints of child processes")]
    if let Ok(armed) = std::env::var("KMS_FAILPOINT") {
        let (name, times) = armed.split_once('@').unwrap_or((&armed, "1"));
        if name == place
            && Ok(REACHED.fetch_add(1, Ordering::SeqCst).saturating_add(1)) == times.parse()
        {
            std::process::abort();
        }
    }
    #[cfg(not(feature = "failpoints"))]
    let _ = place;
}

/// By how many milliseconds the clock of this process is ahead: those of the environment variable
/// `KMS_CLOCK_AHEAD`.
#[must_use]
pub fn clock_ahead() -> i64 {
    #[cfg(feature = "failpoints")]
    #[expect(clippy::disallowed_methods, reason = "tests set clocks of child processes")]
    let ahead = std::env::var("KMS_CLOCK_AHEAD").ok().and_then(|ahead| ahead.parse().ok());
    #[cfg(not(feature = "failpoints"))]
    let ahead = None;
    ahead.unwrap_or_default()
}
