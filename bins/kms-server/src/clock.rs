//! The one place where the server reads the time; below it, time is a parameter.

use std::time::{Duration, SystemTime};

use kms_core::failpoint;
use kms_core::ports::StoreError;
use kms_store::Database;
use kms_types::Timestamp;

/// How far the clocks of the server and the database may differ. Beyond it nothing is begun or
/// completed that waits by the clock.
pub(crate) const MAX_SKEW: Duration = Duration::from_secs(5);

/// How far they may differ for everything else that the clock decides: limits of a day, locks, and
/// when something is due.
pub(crate) const FAR: Duration = Duration::from_secs(60);

/// The times of this machine and of the database.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    /// The earlier one, by which waits end.
    pub(crate) earlier: Timestamp,
    /// The later one, by which waits begin.
    pub(crate) later: Timestamp,
    /// How far they differ.
    pub(crate) skew: Duration,
}

/// Compares the clocks. A database whose time lies between the times before and after the question
/// has no skew.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn compare(database: &Database) -> Result<Clocks, StoreError> {
    let before = now();
    let theirs = database.now().await?;
    let after = now();
    let skew = before.since(theirs).max(theirs.since(after));
    Ok(Clocks { earlier: after.min(theirs), later: after.max(theirs), skew })
}

/// Returns the current time of the machine's clock.
pub(crate) fn now() -> Timestamp {
    let now: Timestamp = system_time().into();
    Timestamp(now.0.saturating_add(failpoint::clock_ahead()))
}

/// Returns the same, as other crates want it.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) fn system_time() -> SystemTime {
    SystemTime::now()
}
