//! Notifies owners of the small deposits of a day, in one message for each asset.

use std::time::Duration;

use kms_core::ports::StoreError;
use kms_process::{Next, Worker};
use kms_store::Database;

use super::{PAGE, PAGE_PAUSE};

/// How often it is checked whether a day is over.
const INTERVAL: Duration = Duration::from_secs(60);

/// Notifies the digests that are due.
pub(crate) struct NotifyDigests {
    pub(crate) database: Database,
}

impl Worker for NotifyDigests {
    const NAME: &'static str = "notify_digests";
    type Error = StoreError;

    fn interval(&self) -> Duration {
        INTERVAL
    }

    async fn round(&mut self) -> Result<Next, StoreError> {
        let notified = self.database.notify_digests(self.database.now().await?, PAGE).await?;
        Ok(if notified > 0 { Next::After(PAGE_PAUSE) } else { Next::AfterInterval })
    }
}
