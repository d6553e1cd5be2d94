//! Deletes quotes that were not signed, old events, and transactions that did not get into a block.

use std::time::Duration;

use kms_core::ports::StoreError;
use kms_process::{Next, Worker};
use kms_store::Database;

use super::lease::PeriodicLease;
use super::{PAGE_PAUSE, SOON};
use crate::clock;
use crate::config::UpkeepSettings;

/// Rows per statement.
const BATCH: u32 = 1_000;

/// Every quote is a row, every change of a transfer an event, and every step of a ladder another
/// row.
pub(crate) struct CleanTransfers {
    database: Database,
    lease: PeriodicLease,
    quotes: Duration,
    events: Option<Duration>,
    attempts: Option<Duration>,
    /// Whether this server holds the lease and has not deleted all rows yet.
    is_cleaning: bool,
}

impl CleanTransfers {
    /// Cleans up once per period.
    pub(crate) fn new(database: &Database, settings: UpkeepSettings) -> Self {
        Self {
            database: database.clone(),
            lease: PeriodicLease::new(database, "upkeep:transfers", settings.check_interval),
            quotes: settings.quote_retention,
            events: settings.event_retention,
            attempts: settings.attempt_retention,
            is_cleaning: false,
        }
    }

    async fn delete(&self) -> Result<usize, StoreError> {
        let now = clock::now();
        let quotes = self.database.delete_unsigned_quotes(now.minus(self.quotes), BATCH).await?;
        let events = match self.events {
            Some(kept) => self.database.delete_events(now.minus(kept), BATCH).await?,
            None => 0,
        };
        let attempts = match self.attempts {
            Some(kept) => self.database.delete_old_attempts(now.minus(kept), BATCH).await?,
            None => 0,
        };
        Ok(quotes + events + attempts)
    }
}

impl Worker for CleanTransfers {
    const NAME: &'static str = "clean_transfers";
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
        self.is_cleaning = self.delete().await? > 0;
        Ok(if self.is_cleaning { Next::After(PAGE_PAUSE) } else { Next::AfterInterval })
    }
}
