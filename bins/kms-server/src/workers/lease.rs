//! A lease on periodic work that one server of several does.

use std::time::Duration;

use kms_core::ports::StoreError;
use kms_store::{Database, RateLimit};

use super::SOON;

/// Grants one acquisition per period over all servers.
pub(super) struct PeriodicLease {
    database: Database,
    work: &'static str,
    period: Duration,
}

impl PeriodicLease {
    /// A lease on this work.
    pub(super) fn new(database: &Database, work: &'static str, period: Duration) -> Self {
        Self { database: database.clone(), work, period }
    }

    /// Acquires the lease for the current period, or returns how long it stays taken.
    pub(super) async fn acquire(&self) -> Result<Result<(), Duration>, StoreError> {
        let once = RateLimit { burst: 1, period: self.period };
        self.database.take(self.work, once).await
    }

    /// How long to wait before the lease is tried for the first time, and after it was used.
    pub(super) fn delay(&self) -> Duration {
        SOON.min(self.period)
    }
}
