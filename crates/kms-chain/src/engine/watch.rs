//! Follows signed transfers until they are final.
//!
//! Signs nothing: it only broadcasts bytes that were committed before. It relies on the state of
//! the chain, never on a node's answer to a repeated broadcast.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use kms_core::SealError;
use kms_core::ports::StoreError;
use kms_types::{Timestamp, TransferId, Units};

use super::Transfers;
use crate::chain::{ChainError, Endpoint, Head, Receipt};
use crate::ports::{Due, Progress};
use crate::transfer::{TransactionKind, Transfer, TransferState, WaitReason};

/// How many transfers one round claims.
const ROUND: u32 = 200;

/// How many transfers are processed at once, so that one slow answer does not delay a round.
const CONCURRENCY: usize = 16;

/// How long no endpoint answers until senders are notified.
const UNREACHABLE: Duration = Duration::from_secs(60);

/// Why a transfer could not be processed. The next round tries again.
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
/// behind does not know transactions that another one has in a finalized block.
#[derive(Clone, Copy)]
struct Snapshot<'a> {
    endpoint: &'a Endpoint,
    head: Head,
}

/// The nonce of a transfer without a receipt, compared with the mined transactions of its wallet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NonceStatus {
    /// A lower nonce is not mined yet.
    NotYet,
    /// It is the next nonce to be mined.
    Next,
    /// It is mined, but the transaction is not known to be another one, or not in a finalized
    /// block.
    Used,
    /// A finalized block contains another transaction with this nonce, according to one check.
    Superseded,
}

/// The effect of a mined transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Paid {
        /// The amount that reached the recipient, if the token kept a part of it.
        arrived: Option<Units>,
    },
    Reverted,
    /// It succeeded, but the token logged no such payment.
    NothingMoved,
    /// It is the cancellation.
    Cancelled,
}

impl Transfers {
    /// Processes the transfers that are due, and returns how many were claimed. A failure of one
    /// transfer is logged, does not affect the others, and is retried after
    /// [`TransferConfig::poll`](super::TransferConfig::poll). Several processes may call this at
    /// once.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn tick(&self, now: Timestamp) -> Result<usize, StoreError> {
        let (chain, lease_until) = (self.chain.chain_id(), now.plus(self.config.poll));
        let due = self.store.claim_due(chain, now, lease_until, ROUND).await?;
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
                    "transfer round skipped, no endpoint available"
                );
                // One failed request of one server says nothing about the chain.
                let is_stalled = matches!(error, ChainError::Stalled { .. });
                let since = *self.no_endpoint_since().get_or_insert(now);
                if is_stalled || now.since(since) >= UNREACHABLE {
                    self.record_stalled(&due, now).await;
                }
                return Ok(0);
            }
        };
        *self.no_endpoint_since() = None;
        let snapshot = Snapshot { endpoint: &endpoint, head };
        stream::iter(due)
            .for_each_concurrent(CONCURRENCY, async |due| {
                let id = due.transfer.id;
                if let Err(error) = self.process(due, snapshot, now).await {
                    tracing::warn!(
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

    /// Records that these transfers wait for the chain.
    async fn record_stalled(&self, due: &[Due], now: Timestamp) {
        for Due { transfer, .. } in due.iter().filter(|due| is_pending(&due.transfer)) {
            let stalled = Some(WaitReason::ChainStalled);
            if let Err(error) = self.record_wait(transfer, stalled, now).await {
                let event = "transfer_delayed";
                tracing::warn!(event, transfer = %transfer.id, %error, "wait not recorded");
            }
        }
    }

    async fn process(
        &self,
        due: Due,
        snapshot: Snapshot<'_>,
        now: Timestamp,
    ) -> Result<(), WatchError> {
        let transfer = &due.transfer;
        let superseded_since = self.seemingly_superseded().remove(&transfer.id);
        // The recorded transaction of a mined transfer is requested first; if it is found, the
        // others are not requested.
        let mined = transfer.tx_hash.filter(|_| transfer.state == TransferState::Mined);
        let sent = due.sent().map(|signed| signed.tx_hash).filter(|hash| Some(*hash) != mined);
        if self.record_receipt(&due, mined.into_iter().chain(sent), snapshot, now).await? {
            return Ok(());
        }
        if is_reorged(transfer, snapshot.head) {
            self.store.advance(transfer.id, Progress::Reorged, now).await?;
        }
        match self.nonce_status(&due, snapshot).await? {
            NonceStatus::Superseded => {
                self.supersede(transfer.id, superseded_since, snapshot.head, now).await
            }
            NonceStatus::Used => {
                // A server that crashed may have broadcast a step without recording it.
                let all = due.all().map(|signed| signed.tx_hash);
                self.record_receipt(&due, all, snapshot, now).await.map(drop)
            }
            status @ (NonceStatus::NotYet | NonceStatus::Next) => {
                let is_next = status == NonceStatus::Next;
                self.push(&due, is_next, snapshot.endpoint, snapshot.head, now).await
            }
        }
    }

    /// Looks for the receipt of one of these transactions, and records what it means. Returns
    /// whether there is one.
    async fn record_receipt(
        &self,
        due: &Due,
        hashes: impl Iterator<Item = [u8; 32]>,
        Snapshot { endpoint, head }: Snapshot<'_>,
        now: Timestamp,
    ) -> Result<bool, WatchError> {
        for hash in hashes {
            if let Some(receipt) = endpoint.receipt(hash).await? {
                let kind = due.kind(hash);
                if let Some(progress) = self.progress(&due.transfer, kind, hash, &receipt, head) {
                    self.store.advance(due.transfer.id, progress, now).await?;
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What a receipt means for a transfer.
    fn progress(
        &self,
        transfer: &Transfer,
        kind: TransactionKind,
        tx_hash: [u8; 32],
        receipt: &Receipt,
        head: Head,
    ) -> Option<Progress> {
        let &Receipt { block, fee, .. } = receipt;
        let is_final = head.block.saturating_sub(block) >= self.config.confirmations;
        let is_recorded = transfer.block == Some(block) && transfer.tx_hash == Some(tx_hash);
        match (transfer.state == TransferState::Mined, outcome(transfer, kind, receipt)) {
            (false, Outcome::Cancelled) => {
                is_final.then_some(Progress::Cancelled { tx_hash, block, fee })
            }
            (false, Outcome::Paid { arrived }) => {
                Some(Progress::Mined { tx_hash, block, fee, arrived })
            }
            // A failure is reported only when no reorganisation can undo it.
            (false, Outcome::Reverted) => {
                is_final.then_some(Progress::Reverted { tx_hash, block, fee })
            }
            (false, Outcome::NothingMoved) => {
                is_final.then_some(Progress::NothingMoved { tx_hash, block, fee })
            }
            (true, Outcome::Paid { arrived }) if is_recorded && arrived == transfer.arrived => {
                is_final.then_some(Progress::Final)
            }
            // Another block or another step than recorded; the next round records which.
            (
                true,
                Outcome::Paid { .. }
                | Outcome::Reverted
                | Outcome::NothingMoved
                | Outcome::Cancelled,
            ) => Some(Progress::Reorged),
        }
    }

    /// Compares the nonce of a transfer without a receipt with the chain. `Superseded` requires a
    /// finalized block, and that no endpoint has any of the signed transactions.
    async fn nonce_status(
        &self,
        due: &Due,
        Snapshot { endpoint, head }: Snapshot<'_>,
    ) -> Result<NonceStatus, WatchError> {
        let nonce = due.transfer.nonce.ok_or(WatchError::NoNonce)?;
        let address = due.transfer.from.address;
        let mined = endpoint.mined_count(address).await?;
        if mined <= nonce {
            return Ok(if mined == nonce { NonceStatus::Next } else { NonceStatus::NotYet });
        }
        let Some(finalized) = head.block.checked_sub(self.config.confirmations) else {
            return Ok(NonceStatus::Used);
        };
        if endpoint.mined_count_at(address, finalized).await? <= nonce {
            return Ok(NonceStatus::Used);
        }
        for signed in due.all() {
            if !self.chain.is_unknown_everywhere(signed.tx_hash).await {
                return Ok(NonceStatus::Used);
            }
        }
        Ok(NonceStatus::Superseded)
    }

    /// Ends a transfer that was superseded in two checks at different blocks. This releases money
    /// for other transfers, so one answer of one node does not suffice.
    async fn supersede(
        &self,
        id: TransferId,
        since: Option<u64>,
        head: Head,
        now: Timestamp,
    ) -> Result<(), WatchError> {
        if since.is_none_or(|since| since >= head.block) {
            self.seemingly_superseded().insert(id, since.unwrap_or(head.block));
            return Ok(());
        }
        let event = "transfer_superseded";
        tracing::warn!(event, transfer = %id, "nonce used by an external transaction");
        self.store.advance(id, Progress::Superseded, now).await?;
        Ok(())
    }

    fn no_endpoint_since(&self) -> MutexGuard<'_, Option<Timestamp>> {
        self.no_endpoint_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seemingly_superseded(&self) -> MutexGuard<'_, HashMap<TransferId, u64>> {
        self.seemingly_superseded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn outcome(transfer: &Transfer, kind: TransactionKind, receipt: &Receipt) -> Outcome {
    if kind == TransactionKind::Cancellation {
        return Outcome::Cancelled;
    }
    if !receipt.success {
        return Outcome::Reverted;
    }
    let Some(token) = &transfer.token else {
        return Outcome::Paid { arrived: None };
    };
    let arrived = receipt.arrived(token, transfer.from.address, transfer.to.address);
    if arrived == Units::default() {
        return Outcome::NothingMoved;
    }
    // A logged amount above the amount that was sent counts as the full amount.
    Outcome::Paid { arrived: (arrived < transfer.value).then_some(arrived) }
}

/// Whether a mined transfer without a receipt was removed by a reorganisation. A node that has not
/// reached its block yet proves nothing.
fn is_reorged(transfer: &Transfer, head: Head) -> bool {
    transfer.state == TransferState::Mined && transfer.block.is_none_or(|block| block <= head.block)
}

/// Whether it is signed and not mined.
fn is_pending(transfer: &Transfer) -> bool {
    matches!(transfer.state, TransferState::Signed | TransferState::Broadcast)
}

impl Due {
    /// What the transaction with this hash does.
    fn kind(&self, tx_hash: [u8; 32]) -> TransactionKind {
        let found = self.all().find(|signed| signed.tx_hash == tx_hash);
        found.map_or(TransactionKind::Payment, |signed| signed.kind)
    }
}
