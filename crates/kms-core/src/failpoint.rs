//! Places where a test may kill the process, to see what a crash there leaves behind.
//!
//! Without the feature `failpoints` a place is nothing at all.

#[cfg(feature = "failpoints")]
use std::sync::atomic::{AtomicU32, Ordering};

/// How often the armed place was reached.
#[cfg(feature = "failpoints")]
static REACHED: AtomicU32 = AtomicU32::new(0);

/// Aborts the process here if the environment's `KMS_FAILPOINT` names this place: at once, or with
/// `@` and a number when it is reached that often.
#[inline]
pub fn reach(place: &str) {
    #[cfg(feature = "failpoints")]
    #[expect(clippy::disallowed_methods, reason = "tests arm a place in a process of its own")]
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
