//! Places where a test may kill the process, to see what a crash there leaves behind.
//!
//! Without the feature `failpoints` a place is nothing at all.

/// Aborts the process here if the environment's `KMS_FAILPOINT` names this place.
#[inline]
pub fn reach(place: &str) {
    #[cfg(feature = "failpoints")]
    #[expect(clippy::disallowed_methods, reason = "tests arm a place in a process of its own")]
    if std::env::var("KMS_FAILPOINT").is_ok_and(|armed| armed == place) {
        std::process::abort();
    }
    #[cfg(not(feature = "failpoints"))]
    let _ = place;
}
