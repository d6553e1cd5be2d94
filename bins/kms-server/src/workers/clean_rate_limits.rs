//! Deletes rate-limit rows whose bucket has refilled.

use std::time::Duration;

use kms_core::ports::StoreError;
use kms_process::{Next, Worker};
use kms_store::Database;

use super::lease::PeriodicLease;
use super::{PAGE_PAUSE, SOON};

/// Rows per statement.
const BATCH: u32 = 1_000;

/// Every payment and every recovery leaves rows behind; a refilled one carries no state.
pub(crate) struct CleanRateLimits {
    database: Database,
    lease: PeriodicLease,
    /// Whether this server holds the lease and has not deleted all rows yet.
    is_cleaning: bool,
}

impl CleanRateLimits {
    /// Cleans up once per period.
    pub(crate) fn new(database: &Database, period: Duration) -> Self {
        let lease = PeriodicLease::new(database, "upkeep:limits", period);
        Self { database: database.clone(), lease, is_cleaning: false }
    }
}

impl Worker for CleanRateLimits {
    const NAME: &'static str = "clean_rate_limits";
    type Error = StoreError;

    fn interval(&self) -> Duration {
        self.lease.delay()
    }

    fn retry_interval(&self) -> Duration {
        SOON
    }

    fn initial_delay(&self) -> Duration {
        self.lease.delay()
    }

    async fn round(&mut self) -> Result<Next, StoreError> {
        if !self.is_cleaning
            && let Err(wait) = self.lease.acquire().await?
        {
            return Ok(Next::After(wait));
        }
        // After a failure the rest waits for the next period.
        self.is_cleaning = false;
        self.is_cleaning = self.database.delete_refilled_rate_limits(BATCH).await? > 0;
        Ok(if self.is_cleaning { Next::After(PAGE_PAUSE) } else { Next::AfterInterval })
    }
}
