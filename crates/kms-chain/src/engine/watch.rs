//! Looks after signed transfers until they are final. Signs nothing: it only ever sends bytes
//! that were committed before, and believes the chain, not what a node says of a repeat.

use futures::StreamExt;
use futures::stream;
use kms_core::SealError;
use kms_core::ports::StoreError;
use kms_types::Timestamp;
use kms_types::wire::TransferState;

use super::Transfers;
use crate::chain::{ChainError, Receipt};
use crate::ports::{Due, Progress};
use crate::transfer::Transfer;

/// How many transfers one round takes.
const ROUND: u32 = 200;

/// How many of them ask the chain at once, so that one slow answer does not hold up a round.
const AT_ONCE: usize = 16;

/// Why a transfer could not be moved on. The next round tries again.
#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("it is on its way without a hash")]
    NoHash,
}

impl Transfers {
    /// Looks after the transfers that are on their way, and gives how many it looked at. What
    /// fails for one of them is logged, does not stop the others, and is tried again after
    /// [`TransferConfig::poll`](super::TransferConfig::poll). Safe beside other processes that do
    /// the same.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn tick(&self, now: Timestamp) -> Result<usize, StoreError> {
        let (chain, lease_until) = (self.chain.chain_id(), now.plus(self.config.poll));
        let due = self.store.claim_due(chain, now, lease_until, ROUND).await?;
        let looked_at = due.len();
        if looked_at == 0 {
            return Ok(0);
        }
        let head = match self.chain.block_number().await {
            Ok(head) => head,
            Err(error) => {
                tracing::warn!(%error, "the chain can not be watched");
                return Ok(0);
            }
        };
        stream::iter(due)
            .for_each_concurrent(AT_ONCE, async |due| {
                let id = due.transfer.id;
                if let Err(error) = self.look_after(due, head, now).await {
                    tracing::warn!(transfer = %id, %error, "a transfer could not be moved on");
                }
            })
            .await;
        Ok(looked_at)
    }

    async fn look_after(&self, due: Due, head: u64, now: Timestamp) -> Result<(), WatchError> {
        let hash = due.transfer.tx_hash.ok_or(WatchError::NoHash)?;
        let receipt = self.chain.receipt(hash).await?;
        let progress = match &receipt {
            Some(receipt) => self.step(&due.transfer, receipt, head),
            None => is_gone(&due.transfer, head).then_some(Progress::Reorged),
        };
        if let Some(progress) = progress {
            self.store.advance(due.transfer.id, progress, now).await?;
        }
        if receipt.is_none() {
            self.send_again(&due, hash, now).await?;
        }
        Ok(())
    }

    /// What a receipt means for the transfer.
    fn step(&self, transfer: &Transfer, receipt: &Receipt, head: u64) -> Option<Progress> {
        let &Receipt { block, fee, success } = receipt;
        let deep = head.saturating_sub(block) >= self.config.confirmations;
        match (transfer.state == TransferState::Mined, success) {
            (false, true) => Some(Progress::Mined { block, fee }),
            // A revert is told when it can not be undone any more.
            (false, false) => deep.then_some(Progress::Failed { block, fee }),
            (true, true) if transfer.block == Some(block) => deep.then_some(Progress::Final),
            // Another block has it now; the next round tells which.
            (true, _) => Some(Progress::Reorged),
        }
    }

    /// The same bytes, if the node does not have them.
    async fn send_again(
        &self,
        due: &Due,
        hash: [u8; 32],
        now: Timestamp,
    ) -> Result<(), WatchError> {
        let id = due.transfer.id;
        if !self.chain.knows(hash).await? {
            let bytes = self.sealer.open_transaction(id, &due.sealed)?;
            self.chain.broadcast(&bytes).await?;
            tracing::info!(transfer = %id, "the same bytes were sent again");
        }
        if due.transfer.state == TransferState::Signed {
            self.store.advance(id, Progress::Broadcast, now).await?;
        }
        Ok(())
    }
}

/// Whether a transfer without a receipt lost the block it was in. A node that has not come to
/// that block yet can not tell.
fn is_gone(transfer: &Transfer, head: u64) -> bool {
    transfer.state == TransferState::Mined && transfer.block.is_none_or(|block| block <= head)
}
