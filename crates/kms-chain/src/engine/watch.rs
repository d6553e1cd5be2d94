//! Looks after signed transfers until they are final. Signs nothing: it only ever sends bytes
//! that were committed before, and believes the chain, not what a node says of a repeat.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};

use futures::StreamExt;
use futures::stream;
use kms_core::ports::StoreError;
use kms_core::{SealError, failpoint};
use kms_types::{Timestamp, TransferId, Units};

use super::Transfers;
use crate::chain::{ChainError, Endpoint, Head, Receipt};
use crate::ports::{Attempt, Due, Progress};
use crate::signing;
use crate::transfer::{Transfer, TransferState};

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
    #[error("it is on its way without a nonce")]
    NoNonce,
    #[error("the sealed bytes are not those of the attempt")]
    OtherBytes,
}

/// The chain as one endpoint shows it. Two of them must not be mixed: a node that is behind knows
/// nothing of a transaction that another one has in a block that stays.
#[derive(Clone, Copy)]
struct Sight<'a> {
    endpoint: &'a Endpoint,
    head: Head,
}

/// Where the chain stands before the nonce of a transfer that it has no receipt of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// A lower nonce comes first.
    Later,
    /// The next transaction of the wallet is this one.
    Now,
    /// A block has another transaction with this nonce, or the node contradicts itself.
    Over,
    /// A block that stays has another transaction with this nonce, as far as one look tells.
    Lost,
}

/// What a transaction in a block did for its transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Paid {
        /// How much came, if the token kept a part of it.
        arrived: Option<Units>,
    },
    Reverted,
    /// Whatever the token's contract says, its log has no such payment.
    NothingMoved,
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
        // One endpoint for a whole round: what it says is read with its own eyes.
        let (endpoint, head) = match self.chain.endpoint().await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the chain can not be watched");
                return Ok(0);
            }
        };
        let sight = Sight { endpoint: &endpoint, head };
        stream::iter(due)
            .for_each_concurrent(AT_ONCE, async |due| {
                let id = due.transfer.id;
                if let Err(error) = self.look_after(due, sight, now).await {
                    tracing::warn!(transfer = %id, %error, "a transfer could not be moved on");
                }
            })
            .await;
        Ok(looked_at)
    }

    async fn look_after(
        &self,
        due: Due,
        sight: Sight<'_>,
        now: Timestamp,
    ) -> Result<(), WatchError> {
        let head = sight.head;
        let id = due.transfer.id;
        let suspected = self.suspected().remove(&id);
        let mined = due.transfer.tx_hash.filter(|_| due.transfer.state == TransferState::Mined);
        let sent = due.sent().map(|attempt| attempt.tx_hash).filter(|hash| Some(*hash) != mined);
        // Of a mined transfer that one is asked for first, and nothing else once it is found.
        if self.settle(&due, mined.into_iter().chain(sent), sight, now).await? {
            return Ok(());
        }
        if is_gone(&due.transfer, head) {
            self.store.advance(id, Progress::Reorged, now).await?;
        }
        match self.turn(&due, sight).await? {
            // What it frees can be spent again, so one moment of one node does not decide it.
            Turn::Lost if suspected.is_none_or(|since| since >= head.block) => {
                self.suspected().insert(id, suspected.unwrap_or(head.block));
                Ok(())
            }
            Turn::Lost => {
                tracing::warn!(transfer = %id, "its nonce was used elsewhere");
                self.store.advance(id, Progress::NonceTaken, now).await?;
                Ok(())
            }
            Turn::Over => {
                // A step may have been sent without a note of it, by a server that is gone.
                let all = due.attempts().map(|attempt| attempt.tx_hash);
                self.settle(&due, all, sight, now).await.map(drop)
            }
            turn => self.push(&due, turn, sight, now).await,
        }
    }

    fn suspected(&self) -> MutexGuard<'_, HashMap<TransferId, u64>> {
        self.suspected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks for a block that has one of these, and records what its receipt means.
    async fn settle(
        &self,
        due: &Due,
        hashes: impl Iterator<Item = [u8; 32]>,
        Sight { endpoint, head }: Sight<'_>,
        now: Timestamp,
    ) -> Result<bool, WatchError> {
        for hash in hashes {
            if let Some(receipt) = endpoint.receipt(hash).await? {
                if let Some(progress) = self.step(&due.transfer, hash, &receipt, head) {
                    self.store.advance(due.transfer.id, progress, now).await?;
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What a receipt means for the transfer.
    fn step(
        &self,
        transfer: &Transfer,
        tx_hash: [u8; 32],
        receipt: &Receipt,
        head: Head,
    ) -> Option<Progress> {
        let &Receipt { block, fee, .. } = receipt;
        let outcome = outcome(transfer, receipt);
        let deep = head.block.saturating_sub(block) >= self.config.confirmations;
        let noted = transfer.block == Some(block) && transfer.tx_hash == Some(tx_hash);
        match (transfer.state == TransferState::Mined, outcome) {
            (false, Outcome::Paid { arrived }) => {
                Some(Progress::Mined { tx_hash, block, fee, arrived })
            }
            // A failure is told when it can not be undone any more.
            (false, Outcome::Reverted) => {
                deep.then_some(Progress::Reverted { tx_hash, block, fee })
            }
            (false, Outcome::NothingMoved) => {
                deep.then_some(Progress::NothingMoved { tx_hash, block, fee })
            }
            (true, Outcome::Paid { arrived }) if noted && arrived == transfer.arrived => {
                deep.then_some(Progress::Final)
            }
            // Another block has it now, or another attempt; the next round tells which.
            (true, _) => Some(Progress::Reorged),
        }
    }

    /// Whose turn it is. That another transaction has the nonce is believed only of a block that
    /// stays, and if no endpoint knows any of the attempts.
    async fn turn(
        &self,
        due: &Due,
        Sight { endpoint, head }: Sight<'_>,
    ) -> Result<Turn, WatchError> {
        let nonce = due.transfer.nonce.ok_or(WatchError::NoNonce)?;
        let address = due.transfer.from.address;
        let mined = endpoint.mined_count(address).await?;
        if mined <= nonce {
            return Ok(if mined == nonce { Turn::Now } else { Turn::Later });
        }
        let Some(deep) = head.block.checked_sub(self.config.confirmations) else {
            return Ok(Turn::Over);
        };
        if endpoint.mined_count_at(address, deep).await? <= nonce {
            return Ok(Turn::Over);
        }
        for attempt in due.attempts() {
            if !self.chain.is_unknown_everywhere(attempt.tx_hash).await {
                return Ok(Turn::Over);
            }
        }
        Ok(Turn::Lost)
    }

    /// Sends the next step if the current one waits too long or is too cheap; else sees to it that
    /// the node has the current one.
    async fn push(
        &self,
        due: &Due,
        turn: Turn,
        Sight { endpoint, head }: Sight<'_>,
        now: Timestamp,
    ) -> Result<(), WatchError> {
        let (id, current) = (due.transfer.id, due.current());
        let waited = since(&due.transfer, current)
            .is_some_and(|since| since.plus(self.config.replace) <= now);
        let raise = turn == Turn::Now && (waited || is_too_cheap(&due.transfer, current, head));
        let moving = due.transfer.state != TransferState::Mined;
        match due.next() {
            Some(next) if moving && raise => return self.raise(due, next, now).await,
            None if moving && waited && !due.told => {
                self.store.advance(id, Progress::Waiting, now).await?;
            }
            _ => {}
        }
        if !endpoint.has_transaction(current.tx_hash).await? {
            let sent = self.send_attempt(&due.transfer, current).await;
            // Noted as sent although the node refuses it: it may be too cheap for this node, and
            // then the next step comes in time.
            let refused = matches!(sent, Err(WatchError::Chain(ChainError::Refused { .. })));
            if refused && due.transfer.state == TransferState::Signed {
                self.store.advance(id, Progress::Broadcast, now).await?;
            }
            sent?;
            tracing::info!(transfer = %id, "the same bytes were sent again");
        }
        if due.transfer.state == TransferState::Signed {
            self.store.advance(id, Progress::Broadcast, now).await?;
        }
        Ok(())
    }

    async fn raise(&self, due: &Due, next: &Attempt, now: Timestamp) -> Result<(), WatchError> {
        let (id, step) = (due.transfer.id, next.step);
        // Noted first: a hash that a node may have is always looked for.
        if !self.store.advance(id, Progress::Raised { step }, now).await? {
            return Ok(());
        }
        failpoint::reach("transfer-before-raise");
        self.send_attempt(&due.transfer, next).await?;
        failpoint::reach("transfer-after-raise");
        tracing::info!(transfer = %id, step, "the next step of the fee ladder was sent");
        if due.transfer.state == TransferState::Signed {
            self.store.advance(id, Progress::Broadcast, now).await?;
        }
        Ok(())
    }

    async fn send_attempt(&self, transfer: &Transfer, attempt: &Attempt) -> Result<(), WatchError> {
        let bytes = self.sealer.open_transaction(transfer.id, &attempt.sealed)?;
        if !signing::is_hash_of(attempt.tx_hash, &bytes) {
            return Err(WatchError::OtherBytes);
        }
        Ok(self.chain.broadcast(&bytes).await?)
    }
}

impl Due {
    /// Every attempt, sent or not, lowest step first.
    fn attempts(&self) -> impl Iterator<Item = &Attempt> {
        std::iter::once(&self.first).chain(&self.replacements)
    }

    /// Those that a node may have, the last one first.
    fn sent(&self) -> impl Iterator<Item = &Attempt> {
        let replacements = self.replacements.iter().rev();
        replacements.filter(|attempt| attempt.sent_at.is_some()).chain([&self.first])
    }

    /// The one that was sent last; the first, if none was.
    fn current(&self) -> &Attempt {
        self.sent().next().unwrap_or(&self.first)
    }

    /// The one above it.
    fn next(&self) -> Option<&Attempt> {
        let current = self.current().step;
        self.replacements.iter().find(|attempt| attempt.step > current)
    }
}

fn outcome(transfer: &Transfer, receipt: &Receipt) -> Outcome {
    let Some(token) = transfer.token.as_ref().filter(|_| receipt.success) else {
        return match receipt.success {
            true => Outcome::Paid { arrived: None },
            false => Outcome::Reverted,
        };
    };
    let arrived = receipt.arrived(token, transfer.from.address, transfer.to.address);
    match arrived {
        arrived if arrived == Units::default() => Outcome::NothingMoved,
        // A log of more than was sent is no more believed than one of as much.
        arrived => Outcome::Paid { arrived: (arrived < transfer.value).then_some(arrived) },
    }
}

/// Since when it waits at this fee. A server that knew no ladders noted no time.
fn since(transfer: &Transfer, attempt: &Attempt) -> Option<Timestamp> {
    let taken = transfer.state == TransferState::Broadcast;
    attempt.sent_at.or_else(|| taken.then_some(transfer.created_at))
}

/// Whether no block would take it now.
fn is_too_cheap(transfer: &Transfer, attempt: &Attempt, head: Head) -> bool {
    let fees = transfer.ladder.step(attempt.step);
    let both = fees.zip(head.base_fee);
    both.is_some_and(|(fees, base)| u128::from(base) > fees.max_fee_per_gas)
}

/// Whether a transfer without a receipt lost the block it was in. A node that has not come to
/// that block yet can not tell.
fn is_gone(transfer: &Transfer, head: Head) -> bool {
    transfer.state == TransferState::Mined && transfer.block.is_none_or(|block| block <= head.block)
}
