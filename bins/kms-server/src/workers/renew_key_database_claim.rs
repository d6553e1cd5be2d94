//! Renews the claim on the key database, so that a server of an older copy of the account database
//! is refused even if this one runs for months.

use std::sync::Arc;
use std::time::Duration;

use kms_core::{AlarmContext, integrity_alarm};
use kms_process::{Next, Worker};
use kms_store::{ClaimError, Database, KeyDatabase};

use super::SOON;

const PERIOD: Duration = Duration::from_secs(60 * 60);

/// Renews the claim every hour; each start of a server renews it as well.
pub(crate) struct RenewKeyDatabaseClaim {
    pub(crate) database: Database,
    pub(crate) key_database: Arc<dyn KeyDatabase>,
}

impl Worker for RenewKeyDatabaseClaim {
    const NAME: &'static str = "renew_key_database_claim";
    type Error = ClaimError;

    fn interval(&self) -> Duration {
        PERIOD
    }

    fn initial_delay(&self) -> Duration {
        PERIOD
    }

    fn retry_interval(&self) -> Duration {
        SOON
    }

    async fn round(&mut self) -> Result<Next, ClaimError> {
        let renewed = self.database.claim_key_database(&*self.key_database).await;
        match &renewed {
            Ok(()) | Err(ClaimError::Store(_)) => {}
            Err(ClaimError::Foreign { .. } | ClaimError::New | ClaimError::Copy) => {
                integrity_alarm("the key database has another owner", AlarmContext::default());
            }
        }
        renewed.map(|()| Next::AfterInterval)
    }
}
