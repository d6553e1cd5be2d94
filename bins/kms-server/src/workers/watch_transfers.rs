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
        let claimed = self.transfers.tick(clock::now()).await?;
        for used in self.transfers.take_used_nonces() {
            if let Err(error) = self.follower.settle_missed(&used, clock::now()).await {
                let event = "transfer_delayed";
                let transfer = used.transfer;
                let chain_id = self.transfers.chain().chain_id();
                tracing::warn!(
                    event, chain_id, %transfer, %error,
                    "search for a missed block failed"
                );
            }
        }
        Ok(after(claimed))
    }
}

/// When the next round follows: at once if this one claimed as much as it may, because more may be
/// due.
fn after(claimed: usize) -> Next {
    let is_full = u32::try_from(claimed).is_ok_and(|claimed| claimed >= Transfers::ROUND);
    if is_full { Next::AtOnce } else { Next::AfterInterval }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_round_is_followed_by_another_one_at_once() {
        let round = usize::try_from(Transfers::ROUND).unwrap();
        assert_eq!(after(round), Next::AtOnce);
        assert_eq!(after(round - 1), Next::AfterInterval);
        assert_eq!(after(0), Next::AfterInterval);
    }
}
