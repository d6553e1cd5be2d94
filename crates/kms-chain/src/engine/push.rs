//! What is sent for a transfer that is not mined: the same bytes again, the next step of its
//! ladder, or its cancellation. And why it waits.
//!
//! A step is spent by blocks, never by the clock: a chain that stands still spends nothing. The
//! words of an endpoint that refuses bytes are recorded for the sender and for alarms; no decision
//! follows from them.

use kms_core::failpoint;
use kms_types::Timestamp;

use super::Transfers;
use super::watch::WatchError;
use crate::chain::{ChainError, Endpoint, Head, MARKET_BLOCKS};
use crate::follower::UsedNonce;
use crate::ports::{Due, Progress, SignedTx};
use crate::signing;
use crate::transfer::{TransactionKind, Transfer, TransferState, Wait, WaitReason};

/// What follows the current transaction of a transfer.
enum NextStep<'a> {
    /// This one is due.
    Due(&'a SignedTx),
    /// Nothing, as long as the current one is not spent.
    NotYet,
    /// Nothing: it is the top.
    Top,
    /// Steps are left, but the node does not say that a higher price would help.
    Unknown,
}

impl Transfers {
    /// Sends what is due for a transfer without a mined transaction. `is_next`: no lower nonce of
    /// its wallet is pending.
    pub(super) async fn push(
        &self,
        due: &Due,
        is_next: bool,
        endpoint: &Endpoint,
        head: Head,
        now: Timestamp,
    ) -> Result<(), WatchError> {
        let transfer = &due.transfer;
        if transfer.cancel_requested_at.is_none() && due.sender_frozen {
            self.store.advance(transfer.id, Progress::CancellationRequested, now).await?;
        }
        let is_cancelled = transfer.cancel_requested_at.is_some() || due.sender_frozen;
        let current = due.current();
        let cancellation = due.unsent(TransactionKind::Cancellation).last();
        let next = match is_cancelled {
            true => cancellation.map_or(NextStep::Top, NextStep::Due),
            false if is_next => self.next_step(due, endpoint, head).await?,
            false => NextStep::NotYet,
        };
        if let NextStep::Due(next) = next {
            return self.replace(due, next, head, now).await;
        }
        let is_overdue = is_overdue(current, head, self.config.replace_after);
        // A step that is left is broadcast before there is something to report, unless the node
        // does not say what the market asks.
        let is_left = matches!(next, NextStep::NotYet);
        let reason = match is_next {
            true if !is_left && (is_priced_out(current, head) || is_overdue) => {
                Some(WaitReason::Fee)
            }
            false if is_overdue => Some(WaitReason::EarlierTransfer),
            true | false => None,
        };
        // A frozen account's payment is not sent again.
        let may_send = !is_cancelled || current.kind == TransactionKind::Cancellation;
        if may_send && !endpoint.has_transaction(current.tx_hash).await? {
            match self.broadcast(transfer, current).await {
                Ok(()) => {
                    let chain_id = self.chain.chain_id();
                    let transfer = transfer.id;
                    tracing::info!(chain_id, %transfer, "transaction broadcast again");
                }
                Err(WatchError::Chain(error)) if error.is_known_transaction() => {
                    return self.record_wait(transfer, reason, now).await;
                }
                Err(WatchError::Chain(error)) => {
                    let Some(refused) = error.wait_reason() else { return Err(error.into()) };
                    self.report_refusal(transfer, &error, refused);
                    // First of all it waits for the earlier one, and until then it may be refused
                    // for its nonce alone.
                    let reason = reason.filter(|it| *it == WaitReason::EarlierTransfer);
                    return self.record_wait(transfer, reason.or(Some(refused)), now).await;
                }
                Err(error) => return Err(error),
            }
        }
        if transfer.state == TransferState::Signed {
            self.store.advance(transfer.id, self.broadcast_at(now), now).await?;
        }
        self.record_wait(transfer, reason, now).await
    }

    /// Records why a transfer waits, or that it no longer does.
    pub(super) async fn record_wait(
        &self,
        transfer: &Transfer,
        reason: Option<WaitReason>,
        now: Timestamp,
    ) -> Result<(), WatchError> {
        let recorded = transfer.wait.map(|Wait { reason, .. }| reason);
        let progress = match reason {
            _ if reason == recorded => return Ok(()),
            Some(reason) => Progress::Waiting(reason),
            None => Progress::Resumed,
        };
        self.store.advance(transfer.id, progress, now).await?;
        Ok(())
    }

    fn report_refusal(&self, transfer: &Transfer, error: &ChainError, reason: WaitReason) {
        let event = "transfer_refused";
        let chain_id = self.chain.chain_id();
        let reason = reason.as_str();
        tracing::warn!(
            event, chain_id, transfer = %transfer.id, reason, %error,
            "transaction refused"
        );
    }

    /// The step that follows the current one if that is spent: the base fee is above its ceiling,
    /// or blocks with other transactions passed. Of the unsent steps it is the lowest one that
    /// these blocks would have included, else the top.
    async fn next_step<'a>(
        &self,
        due: &'a Due,
        endpoint: &Endpoint,
        head: Head,
    ) -> Result<NextStep<'a>, WatchError> {
        let current = due.current();
        let Some(top) = due.unsent(TransactionKind::Payment).last() else {
            return Ok(NextStep::Top);
        };
        let is_priced_out = is_priced_out(current, head);
        let mut market_tip = None;
        if !is_priced_out {
            if !is_overdue(current, head, self.config.replace_after) {
                return Ok(NextStep::NotYet);
            }
            let passed = head.block.saturating_sub(sent_block(current, head));
            if passed > 0 && head.base_fee.is_some() {
                let Some(included) = endpoint.included_tips(passed).await? else {
                    return Ok(NextStep::Unknown);
                };
                let wanted = self.config.replace_after.min(MARKET_BLOCKS);
                let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
                if included.len() < wanted {
                    return Ok(NextStep::NotYet);
                }
                market_tip = included.into_iter().min();
            } else if passed > 0 {
                // Without a base fee there is no history of tips, and the price is paid in full.
                let price = endpoint.gas_price().await?;
                if current.fees.tip() >= price {
                    return Ok(NextStep::Unknown);
                }
                market_tip = Some(price);
            }
        }
        let would_be_included = |step: &&SignedTx| {
            let base = head.base_fee.map(u128::from).unwrap_or_default();
            let tip = market_tip.unwrap_or_default();
            step.fees.tip() >= tip && step.fees.ceiling() >= base.saturating_add(tip)
        };
        let next = due.unsent(TransactionKind::Payment).find(would_be_included);
        Ok(NextStep::Due(next.unwrap_or(top)))
    }

    /// Broadcasts a transaction in place of the current one.
    async fn replace(
        &self,
        due: &Due,
        next: &SignedTx,
        head: Head,
        now: Timestamp,
    ) -> Result<(), WatchError> {
        let (transfer, step) = (&due.transfer, next.step);
        // Recorded before the broadcast, so that every hash that a node may have is looked for.
        let recorded = Progress::Replaced { tx_hash: next.tx_hash, block: head.block };
        if !self.store.advance(transfer.id, recorded, now).await? {
            return Ok(());
        }
        failpoint::reach("transfer-before-replacement");
        match self.broadcast(transfer, next).await {
            Ok(()) => {}
            Err(WatchError::Chain(error)) if error.is_known_transaction() => return Ok(()),
            Err(WatchError::Chain(error)) => {
                let Some(refused) = error.wait_reason() else { return Err(error.into()) };
                self.report_refusal(transfer, &error, refused);
                self.store.advance(transfer.id, Progress::Waiting(refused), now).await?;
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        failpoint::reach("transfer-after-replacement");
        let kind = next.kind.as_str();
        let chain_id = self.chain.chain_id();
        tracing::info!(
            chain_id, transfer = %transfer.id, step, kind,
            "replacement transaction broadcast"
        );
        if transfer.state == TransferState::Signed {
            self.store.advance(transfer.id, self.broadcast_at(now), now).await?;
        }
        Ok(())
    }

    async fn broadcast(&self, transfer: &Transfer, signed: &SignedTx) -> Result<(), WatchError> {
        let kind = signed.kind.as_str();
        let bytes = self.sealer.open_transaction(transfer.id, kind, &signed.sealed)?;
        if !signing::is_hash_of(signed.tx_hash, &bytes) {
            return Err(WatchError::WrongBytes);
        }
        Ok(self.chain.broadcast(&bytes).await?)
    }
}

impl Due {
    /// The transactions that a node may have, highest step first.
    fn sent(&self) -> impl Iterator<Item = &SignedTx> {
        let replacements = self.replacements.iter().rev();
        replacements.filter(|signed| signed.sent.is_some()).chain([&self.first])
    }

    /// The transfer, whose nonce the chain counts as used.
    pub(super) fn used_nonce(&self, nonce: u64) -> UsedNonce {
        let hashes = self.sent().map(|signed| signed.tx_hash).collect();
        UsedNonce { transfer: self.transfer.id, from: self.transfer.from.address, nonce, hashes }
    }

    /// The transaction that was broadcast last; the first one if none was.
    fn current(&self) -> &SignedTx {
        self.sent().next().unwrap_or(&self.first)
    }

    /// The transactions of this kind that were not sent and can replace the current one, lowest
    /// step first.
    fn unsent(&self, kind: TransactionKind) -> impl Iterator<Item = &SignedTx> {
        let current = self.current().step;
        self.replacements.iter().filter(move |signed| signed.kind == kind && signed.step > current)
    }
}

/// The latest block when a transaction was sent.
fn sent_block(signed: &SignedTx, head: Head) -> u64 {
    signed.sent.map_or(head.block, |sent| sent.block)
}

/// Whether so many blocks passed since the transaction was sent that it could have been included.
fn is_overdue(signed: &SignedTx, head: Head, replace_after: u64) -> bool {
    head.block.saturating_sub(sent_block(signed, head)) >= replace_after
}

/// Whether the base fee is above the price of the transaction, so that no block includes it.
fn is_priced_out(signed: &SignedTx, head: Head) -> bool {
    head.base_fee.is_some_and(|base| u128::from(base) > signed.fees.ceiling())
}
