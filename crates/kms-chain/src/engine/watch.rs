//! Checks signed transfers that are in no block.
//!
//! Only transfers that wait are checked, ever more rarely: what a block contains is found by the
//! [`Follower`](crate::follower::Follower). Signs nothing: it only broadcasts bytes that were
//! committed before. It relies on the state of the chain, never on a node's answer to a repeated
//! broadcast.

use std::cmp::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use kms_core::SealError;
use kms_core::ports::StoreError;
use kms_types::Timestamp;

use super::Transfers;
use crate::chain::{ChainError, Endpoint, Head};
use crate::follower::UsedNonce;
use crate::ports::Due;
use crate::transfer::WaitReason;

/// How many transfers are processed at once, so that one slow answer does not delay a round.
const CONCURRENCY: usize = 16;

/// How long no endpoint answers until senders are notified.
const UNREACHABLE: Duration = Duration::from_secs(60);

/// Why a transfer could not be processed. The next check tries again.
#[derive(Debug, thiserror::Error)]
pub(super) enum WatchError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("a pending transfer has no nonce")]
    NoNonce,
    #[error("the sealed bytes do not have the stored hash")]
    WrongBytes,
}

/// The chain as one endpoint reports it. Answers of two endpoints must not be mixed: a node that is
/// behind does not know transactions that another one has in a block.
#[derive(Clone, Copy)]
struct Snapshot<'a> {
    endpoint: &'a Endpoint,
    head: Head,
}

impl Transfers {
    /// How many transfers one [`Transfers::tick`] claims at most.
    pub const ROUND: u32 = 200;

    /// Processes the transfers whose check is due, and returns how many were claimed. A failure of
    /// one transfer is logged, does not affect the others, and is retried at its next check.
    /// Several processes may call this at once.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn tick(&self, now: Timestamp) -> Result<usize, StoreError> {
        // A server without an endpoint claims no checks that another one could do.
        let was_cut_off = self.no_endpoint_since().is_some();
        if was_cut_off && self.chain.endpoint().await.is_ok() {
            *self.no_endpoint_since() = None;
        } else if was_cut_off && !self.is_chain_stalled(now).await? {
            return Ok(0);
        }
        let due = self.store.claim_due(self.chain.chain_id(), now, Self::ROUND).await?;
        let claimed = due.len();
        if claimed == 0 {
            return Ok(0);
        }
        // One endpoint for the whole round.
        let (endpoint, head) = match self.chain.endpoint().await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(
                    %error,
                    event = "no_chain_endpoint",
                    chain_id = self.chain.chain_id(),
                    "transfer round skipped, no endpoint available"
                );
                self.no_endpoint_since().get_or_insert(now);
                if self.is_chain_stalled(now).await? {
                    self.record_stalled(&due, now).await;
                }
                return Ok(0);
            }
        };
        *self.no_endpoint_since() = None;
        self.used_nonces().clear();
        let snapshot = Snapshot { endpoint: &endpoint, head };
        stream::iter(due)
            .for_each_concurrent(CONCURRENCY, async |due| {
                let id = due.transfer.id;
                if let Err(error) = self.process(due, snapshot, now).await {
                    tracing::warn!(
                        chain_id = self.chain.chain_id(),
                        transfer = %id,
                        %error,
                        event = "transfer_delayed",
                        "transfer processing failed"
                    );
                }
            })
            .await;
        Ok(claimed)
    }

    /// Whether the chain cannot be read: this server has had no endpoint for a while, and the one
    /// that follows the chain has not read its head either. One server that is cut off says nothing
    /// about the chain.
    async fn is_chain_stalled(&self, now: Timestamp) -> Result<bool, StoreError> {
        let is_long = |since: Timestamp| now.since(since) >= UNREACHABLE;
        if !self.no_endpoint_since().is_some_and(is_long) {
            return Ok(false);
        }
        Ok(self.store.chain_read_at(self.chain.chain_id()).await?.is_none_or(is_long))
    }

    /// Records that these transfers wait for the chain.
    async fn record_stalled(&self, due: &[Due], now: Timestamp) {
        for Due { transfer, .. } in due {
            let stalled = Some(WaitReason::ChainStalled);
            if let Err(error) = self.record_wait(transfer, stalled, now).await {
                let event = "transfer_delayed";
                let chain_id = self.chain.chain_id();
                tracing::warn!(
                    event, chain_id, transfer = %transfer.id, %error,
                    "wait not recorded"
                );
            }
        }
    }

    async fn process(
        &self,
        due: Due,
        Snapshot { endpoint, head }: Snapshot<'_>,
        now: Timestamp,
    ) -> Result<(), WatchError> {
        let transfer = &due.transfer;
        let nonce = transfer.nonce.ok_or(WatchError::NoNonce)?;
        let mined = endpoint.mined_count(transfer.from.address).await?;
        match mined.cmp(&nonce) {
            Ordering::Less => self.push(&due, false, endpoint, head, now).await,
            Ordering::Equal => self.push(&due, true, endpoint, head, now).await,
            // A count alone settles nothing: the follower reads the block that used the nonce.
            Ordering::Greater => {
                self.used_nonces().push(due.used_nonce(nonce));
                Ok(())
            }
        }
    }

    /// Returns the pending transfers whose nonces the last round found used, for
    /// [`Follower::settle_missed`](crate::follower::Follower::settle_missed), once.
    pub fn take_used_nonces(&self) -> Vec<UsedNonce> {
        std::mem::take(&mut *self.used_nonces())
    }

    fn used_nonces(&self) -> MutexGuard<'_, Vec<UsedNonce>> {
        self.used_nonces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn no_endpoint_since(&self) -> MutexGuard<'_, Option<Timestamp>> {
        self.no_endpoint_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
