//! Erases the signed bytes of transfers that were settled a week ago.

use std::time::Duration;

use kms_core::ports::StoreError;
use kms_process::{Next, Worker};
use kms_store::Database;

use super::lease::PeriodicLease;
use super::{PAGE_PAUSE, SOON};
use crate::clock;

/// Transfers per round.
const BATCH: u32 = 1_000;

/// The bytes are kept for a while after finality, because a chain may contradict itself: then they
/// are broadcast again.
pub(crate) struct EraseSignedBytes {
    database: Database,
    lease: PeriodicLease,
    /// Whether this server holds the lease and has not erased everything yet.
    is_erasing: bool,
}

impl EraseSignedBytes {
    /// Erases once per period.
    pub(crate) fn new(database: &Database, period: Duration) -> Self {
        let lease = PeriodicLease::new(database, "upkeep:signed_bytes", period);
        Self { database: database.clone(), lease, is_erasing: false }
    }
}

impl Worker for EraseSignedBytes {
    const NAME: &'static str = "erase_signed_bytes";
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
        if !self.is_erasing
            && let Err(wait) = self.lease.acquire().await?
        {
            return Ok(Next::After(wait));
        }
        // After a failure the rest waits for the next period.
        self.is_erasing = false;
        self.is_erasing = self.database.erase_old_signed_bytes(clock::now(), BATCH).await? > 0;
        Ok(if self.is_erasing { Next::After(PAGE_PAUSE) } else { Next::AfterInterval })
    }
}
