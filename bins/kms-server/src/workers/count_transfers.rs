//! Counts the transfers in flight, for alerts.

use std::collections::BTreeSet;
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

/// Counts the transfers of each chain in each state and by the reasons why they wait. Every server
/// reports the same numbers, also those that are zero. Raises an alarm for transfers on a chain
/// that is not configured: no server follows them.
pub(crate) struct CountTransfers {
    database: Database,
    /// The configured chains.
    served: BTreeSet<u64>,
    /// The others that had transfers in flight.
    not_served: BTreeSet<u64>,
}

impl CountTransfers {
    /// Counts on a server of these chains.
    pub(crate) fn new(database: Database, served: BTreeSet<u64>) -> Self {
        Self { database, served, not_served: BTreeSet::new() }
    }
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
        let waits = self.database.waits_by_reason().await?;
        for chain_id in found.iter().map(|it| it.chain_id) {
            if !self.served.contains(&chain_id) && self.not_served.insert(chain_id) {
                let event = "chain_not_configured";
                tracing::error!(event, chain_id, "transfers in flight on a chain without settings");
            }
        }
        for chain_id in self.served.union(&self.not_served) {
            let chain = chain_id.to_string();
            for state in STATES {
                let in_state =
                    found.iter().find(|it| (it.chain_id, it.state) == (*chain_id, state));
                let count = in_state.map_or(0, |it| it.count);
                let age = in_state.map(|it| now.since(it.oldest)).unwrap_or_default();
                let labels = [("chain", chain.clone()), ("state", state.as_str().to_owned())];
                gauge!("kms_transfers", &labels).set(count as f64);
                gauge!("kms_transfer_oldest_seconds", &labels).set(age.as_secs_f64());
            }
            for reason in WaitReason::ALL {
                let in_wait =
                    waits.iter().find(|it| (it.chain_id, it.reason) == (*chain_id, *reason));
                let labels = [("chain", chain.clone()), ("reason", reason.as_str().to_owned())];
                let count = in_wait.map_or(0, |it| it.count);
                gauge!("kms_transfer_waits", &labels).set(count as f64);
            }
        }
        Ok(Next::AfterInterval)
    }
}
