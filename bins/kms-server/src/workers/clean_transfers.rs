//! Deletes quotes that were not signed, and old events.

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

/// Every quote is a row, and every change of a transfer an event.
pub(crate) struct CleanTransfers {
    database: Database,
    lease: PeriodicLease,
    quotes: Duration,
    events: Option<Duration>,
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
        Ok(quotes + events)
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
