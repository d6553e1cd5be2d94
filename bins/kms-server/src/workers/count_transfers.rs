//! Counts the transfers in flight, for alerts.

use std::time::Duration;

use kms_chain::transfer::{TransferState, WaitReason};
use kms_core::ports::StoreError;
use kms_process::{Next, Worker};
use kms_store::Database;
use metrics::gauge;

/// How old the numbers are at most.
const INTERVAL: Duration = Duration::from_secs(5);

/// The states of a transfer that is signed and not final.
const STATES: [TransferState; 3] =
    [TransferState::Signed, TransferState::Broadcast, TransferState::Mined];

/// Counts the transfers in each state and by the reasons why they wait. Every server reports the
/// same numbers, also those that are zero.
pub(crate) struct CountTransfers {
    pub(crate) database: Database,
}

impl Worker for CountTransfers {
    const NAME: &'static str = "count_transfers";
    type Error = StoreError;

    fn interval(&self) -> Duration {
        INTERVAL
    }

    #[expect(clippy::cast_precision_loss, reason = "a metric")]
    async fn round(&mut self) -> Result<Next, StoreError> {
        let now = self.database.now().await?;
        let found = self.database.transfers_in_flight().await?;
        for state in STATES {
            let in_state = found.iter().find(|it| it.state == state);
            let count = in_state.map_or(0, |it| it.count);
            let age = in_state.map(|it| now.since(it.oldest)).unwrap_or_default();
            gauge!("kms_transfers", "state" => state.as_str()).set(count as f64);
            gauge!("kms_transfer_oldest_seconds", "state" => state.as_str()).set(age.as_secs_f64());
        }
        let waits = self.database.waits_by_reason().await?;
        for reason in WaitReason::ALL {
            let count = waits.iter().find(|(it, _)| it == reason).map_or(0, |(_, count)| *count);
            gauge!("kms_transfer_waits", "reason" => reason.as_str()).set(count as f64);
        }
        Ok(Next::AfterInterval)
    }
}
