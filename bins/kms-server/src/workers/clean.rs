//! Deletes what is not needed any longer, in batches.

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

/// One kind of rows, which one server deletes once per period.
pub(crate) trait Rows: Send + Sync + 'static {
    /// Names the worker.
    const WORKER: &'static str;

    /// Names the lease.
    const LEASE: &'static str;

    /// Deletes at most [`BATCH`] rows, and returns how many they were.
    fn delete(&self, database: &Database)
    -> impl Future<Output = Result<usize, StoreError>> + Send;
}

/// Deletes these rows.
pub(crate) struct Clean<R> {
    rows: R,
    database: Database,
    lease: PeriodicLease,
    /// Whether this server holds the lease and has not deleted all rows yet.
    is_cleaning: bool,
}

impl<R: Rows> Clean<R> {
    /// Cleans up once per period.
    pub(crate) fn new(rows: R, database: &Database, period: Duration) -> Self {
        let lease = PeriodicLease::new(database, R::LEASE, period);
        Self { rows, database: database.clone(), lease, is_cleaning: false }
    }
}

impl<R: Rows> Worker for Clean<R> {
    const NAME: &'static str = R::WORKER;
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
        self.is_cleaning = self.rows.delete(&self.database).await? > 0;
        Ok(if self.is_cleaning { Next::After(PAGE_PAUSE) } else { Next::AfterInterval })
    }
}

/// Rate limits whose bucket has refilled. Every payment and every recovery leaves some behind.
pub(crate) struct RefilledRateLimits;

impl Rows for RefilledRateLimits {
    const WORKER: &'static str = "clean_rate_limits";
    const LEASE: &'static str = "upkeep:limits";

    async fn delete(&self, database: &Database) -> Result<usize, StoreError> {
        database.delete_refilled_rate_limits(BATCH).await
    }
}

/// How long amounts that count towards the daily limits are kept: much longer than the day,
/// whatever the clocks, and until the fee that was paid is known.
const SPEND_RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Quotes that were not signed, old events and amounts that were spent, and transactions that did
/// not get into a block. Every quote is a row, every change of a transfer an event, and every step
/// of a ladder another row.
pub(crate) struct UnusedRows(pub(crate) UpkeepSettings);

impl Rows for UnusedRows {
    const WORKER: &'static str = "clean_transfers";
    const LEASE: &'static str = "upkeep:transfers";

    async fn delete(&self, database: &Database) -> Result<usize, StoreError> {
        let (now, UpkeepSettings { quote_retention, event_retention, attempt_retention, .. }) =
            (clock::now(), self.0);
        let quotes = database.delete_unsigned_quotes(now.minus(quote_retention), BATCH).await?;
        let events = match event_retention {
            Some(kept) => database.delete_events(now.minus(kept), BATCH).await?,
            None => 0,
        };
        let attempts = match attempt_retention {
            Some(kept) => database.delete_old_attempts(now.minus(kept), BATCH).await?,
            None => 0,
        };
        let spends = database.delete_old_spends(now.minus(SPEND_RETENTION), BATCH).await?;
        Ok(quotes + events + attempts + spends)
    }
}

/// Signed bytes of transfers that were settled a while ago. They are kept until then because a
/// chain may contradict itself: then they are broadcast again.
pub(crate) struct OldSignedBytes;

impl Rows for OldSignedBytes {
    const WORKER: &'static str = "erase_signed_bytes";
    const LEASE: &'static str = "upkeep:signed_bytes";

    async fn delete(&self, database: &Database) -> Result<usize, StoreError> {
        database.erase_old_signed_bytes(clock::now(), BATCH).await
    }
}

/// Openings of the page that are no proofs. They are kept for a day, so that none can be opened
/// again under another key, whatever the clocks.
pub(crate) struct OldLaunches;

const LAUNCH_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

impl Rows for OldLaunches {
    const WORKER: &'static str = "clean_launches";
    const LEASE: &'static str = "upkeep:launches";

    async fn delete(&self, database: &Database) -> Result<usize, StoreError> {
        database.delete_old_launches(clock::now().minus(LAUNCH_RETENTION), BATCH).await
    }
}
