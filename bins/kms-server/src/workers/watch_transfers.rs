//! Broadcasts, replaces and finalizes transfers.

use std::sync::Arc;
use std::time::Duration;

use kms_chain::Transfers;
use kms_chain::follower::Follower;
use kms_core::ports::StoreError;
use kms_process::{Next, Worker};

use crate::clock;

/// Advances the transfers that are due.
pub(crate) struct WatchTransfers {
    pub(crate) transfers: Arc<Transfers>,
    pub(crate) follower: Arc<Follower>,
    pub(crate) poll: Duration,
}

impl Worker for WatchTransfers {
    const NAME: &'static str = "watch_transfers";
    type Error = StoreError;

    fn interval(&self) -> Duration {
        self.poll
    }

    async fn round(&mut self) -> Result<Next, StoreError> {
        self.transfers.tick(clock::now()).await?;
        for used in self.transfers.take_used_nonces() {
            if let Err(error) = self.follower.settle_missed(&used, clock::now()).await {
                let (event, transfer) = ("transfer_delayed", used.transfer);
                tracing::warn!(event, %transfer, %error, "search for a missed block failed");
            }
        }
        Ok(Next::AfterInterval)
    }
}
