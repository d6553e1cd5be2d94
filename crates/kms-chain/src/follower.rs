//! Finds external deposits: follows the blocks of the chain from a stored cursor, and records the
//! payments to wallets that this system did not send itself, in the native coin and in the
//! configured tokens.
//!
//! Only finalized blocks are read. A deposit that a reorganisation removes may never come again, so
//! it is not reported earlier. The cursor never moves past a block whose deposits are not recorded.
//! Native coin that arrives inside a contract call is not found.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, StreamExt, TryStreamExt};
use kms_core::ports::StoreError;
use kms_types::{AccountId, EthAddress, Timestamp, Token, Units};

use crate::chain::{Block, Chain, ChainError, Endpoint};

pub use crate::chain::{BlockRef, Payment};

/// How many blocks one round reads.
const ROUND: u64 = 32;

/// How many blocks or receipts are requested at once.
const CONCURRENCY: usize = 8;

/// How many blocks are read again if the block at the cursor was removed, unless the confirmations
/// are more. The fork point is unknown, and deposits that were reported before are not repeated.
const STEP_BACK: u64 = 1_024;

/// A payment to an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deposit {
    /// The account that is paid.
    pub account: AccountId,
    /// The payment.
    pub payment: Payment,
}

/// A payment to an account that this system did not send, as it is stored, or the digest of small
/// ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalDeposit {
    /// The chain (EIP-155).
    pub chain_id: u64,
    /// The hash of the transaction; `None` for a digest.
    pub tx_hash: Option<[u8; 32]>,
    /// The sender; `None` for a digest.
    pub from: Option<EthAddress>,
    /// The token; `None` for the native coin.
    pub token: Option<Token>,
    /// The amount, in the asset's smallest unit; of a digest, the sum.
    pub value: Units,
    /// The number of its block; of a digest, that of the newest deposit.
    pub block: u64,
    /// How many deposits a digest sums up; 1 for a single one.
    pub count: u64,
}

/// Stores the cursor and the deposits. Each method is one whole transaction.
#[async_trait]
pub trait DepositStore: Send + Sync {
    /// Returns the last block of the chain that was followed.
    async fn cursor(&self, chain_id: u64) -> Result<Option<BlockRef>, StoreError>;

    /// Sets the first cursor of a chain, unless there is one.
    async fn start_at(&self, chain_id: u64, at: BlockRef) -> Result<(), StoreError>;

    /// Returns the payments to wallets, without those that a transfer of this system makes to its
    /// own recipient: the recipient was notified of these when they were mined.
    async fn external_deposits(&self, payments: Vec<Payment>) -> Result<Vec<Deposit>, StoreError>;

    /// Moves the cursor, if it is still at `from`, and records and reports the deposits that are
    /// new. Returns `false`, and changes nothing, if another server moved the cursor.
    async fn record_deposits(
        &self,
        chain_id: u64,
        from: BlockRef,
        to: BlockRef,
        deposits: Vec<Deposit>,
        now: Timestamp,
    ) -> Result<bool, StoreError>;
}

/// Why a round failed. The next one starts from the same block.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The chain failed.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node has the block of a transaction, but not its receipt.
    #[error("the node has no receipt of a transaction in block {block}")]
    NoReceipt {
        /// The block.
        block: u64,
    },
}

/// Follows one chain. Several servers may: the first that moves the cursor reports the deposits.
pub struct Follower {
    store: Arc<dyn DepositStore>,
    chain: Chain,
    confirmations: u64,
    tokens: Vec<Token>,
}

impl Follower {
    /// Creates a follower for the native coin and these tokens. A block is finalized when
    /// `confirmations` blocks are above it.
    #[must_use]
    pub fn new(
        store: Arc<dyn DepositStore>,
        chain: Chain,
        confirmations: u64,
        tokens: Vec<Token>,
    ) -> Self {
        Self { store, chain, confirmations, tokens }
    }

    /// Reads the next blocks and records their deposits. Returns `true` if more finalized blocks
    /// are left, so that the next round need not wait. Starts a new chain at its newest finalized
    /// block.
    ///
    /// # Errors
    /// When the chain or the store fails. No deposit is lost.
    pub async fn round(&self, now: Timestamp) -> Result<bool, FollowError> {
        let chain_id = self.chain.chain_id();
        // One endpoint for the whole round: another may be on another branch.
        let (endpoint, head) = self.chain.endpoint().await?;
        let newest = head.block.saturating_sub(self.confirmations);
        let Some(cursor) = self.store.cursor(chain_id).await? else {
            if let Some(at) = endpoint.block_ref(newest).await? {
                self.store.start_at(chain_id, at).await?;
            }
            return Ok(false);
        };
        let last = newest.min(cursor.number.saturating_add(ROUND));
        let next = cursor.number.saturating_add(1);
        let blocks: Vec<Option<Block>> = stream::iter(next..=last)
            .map(|number| endpoint.block(number))
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        let Some(Some(first)) = blocks.first() else {
            return Ok(false);
        };
        if first.parent != cursor.hash {
            self.step_back(&endpoint, cursor, now).await?;
            return Ok(false);
        }
        let blocks = connected(cursor, blocks);
        let end = blocks.last().map_or(cursor, |block| block.at);
        let mut payments = self.token_payments(&endpoint, &blocks).await?;
        payments.extend(blocks.into_iter().flat_map(|block| block.payments));
        let deposits = self.store.external_deposits(payments).await?;
        let deposits = successful(&endpoint, deposits).await?;
        let moved = self.store.record_deposits(chain_id, cursor, end, deposits, now).await?;
        Ok(moved && end.number < newest)
    }

    async fn token_payments(
        &self,
        endpoint: &Endpoint,
        blocks: &[Block],
    ) -> Result<Vec<Payment>, FollowError> {
        if self.tokens.is_empty() {
            return Ok(Vec::new());
        }
        let at: Vec<_> = blocks.iter().map(|block| block.at).collect();
        let paid = stream::iter(at).map(|at| endpoint.token_payments(at, &self.tokens));
        let paid: Vec<_> = paid.buffered(CONCURRENCY).try_collect().await?;
        Ok(paid.into_iter().flatten().collect())
    }

    /// Moves the cursor back after its block was removed although it was finalized. The blocks are
    /// read again; deposits that were reported before are not repeated.
    async fn step_back(
        &self,
        endpoint: &Endpoint,
        cursor: BlockRef,
        now: Timestamp,
    ) -> Result<(), FollowError> {
        let number = cursor.number.saturating_sub(self.confirmations.max(STEP_BACK));
        tracing::error!(
            event = "finalized_block_removed",
            block = cursor.number,
            continued_after = number,
            "finalized block removed from the chain"
        );
        if let Some(at) = endpoint.block_ref(number).await? {
            let chain_id = self.chain.chain_id();
            self.store.record_deposits(chain_id, cursor, at, Vec::new(), now).await?;
        }
        Ok(())
    }
}

/// Removes the deposits whose transaction reverted.
async fn successful(
    endpoint: &Endpoint,
    deposits: Vec<Deposit>,
) -> Result<Vec<Deposit>, FollowError> {
    let checked = stream::iter(deposits).map(|deposit| async move {
        let Payment { tx_hash, block, .. } = deposit.payment;
        // A reverted transaction has no logs, so a token deposit succeeded.
        if deposit.payment.token.is_some() {
            return Ok(Some(deposit));
        }
        let receipt = endpoint.receipt(tx_hash).await?;
        match receipt.filter(|receipt| receipt.block == block) {
            Some(receipt) => Ok(receipt.success.then_some(deposit)),
            None => Err(FollowError::NoReceipt { block }),
        }
    });
    let checked: Vec<_> = checked.buffered(CONCURRENCY).try_collect().await?;
    Ok(checked.into_iter().flatten().collect())
}

/// Returns the blocks after the cursor as long as each is the child of the one before it: a node
/// may have switched branches between two answers.
fn connected(cursor: BlockRef, blocks: Vec<Option<Block>>) -> Vec<Block> {
    let mut end = cursor.hash;
    let mut is_child = |block: &Block| {
        let is_child = block.parent == end;
        end = block.at.hash;
        is_child
    };
    blocks.into_iter().map_while(|block| block.filter(&mut is_child)).collect()
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("chain", &self.chain).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(number: u64, hash: u8, parent: u8) -> Option<Block> {
        let at = BlockRef { number, hash: [hash; 32] };
        let address = EthAddress::from([1; 20]);
        let payment = Payment {
            tx_hash: [hash; 32],
            from: address,
            to: address,
            token: None,
            value: Units::default(),
            block: number,
        };
        Some(Block { at, parent: [parent; 32], payments: vec![payment] })
    }

    #[test]
    fn blocks_are_used_until_one_does_not_extend_the_chain() {
        let cursor = BlockRef { number: 4, hash: [4; 32] };
        let end_of = |blocks| {
            let blocks = connected(cursor, blocks);
            (blocks.last().map_or(cursor, |block| block.at).number, blocks.len())
        };
        assert_eq!(end_of(vec![block(5, 5, 4), block(6, 6, 5)]), (6, 2));
        assert_eq!(end_of(vec![block(5, 5, 4), block(6, 6, 9)]), (5, 1));
        assert_eq!(end_of(vec![block(5, 5, 4), None, block(7, 7, 6)]), (5, 1));
        assert_eq!(end_of(vec![block(5, 5, 9), block(6, 6, 5)]), (4, 0));
        assert_eq!(end_of(Vec::new()), (4, 0));
    }

    /// Servers run this future on its own task.
    #[expect(dead_code, reason = "checked by the compiler")]
    fn futures_are_send(follower: &Follower) {
        fn assert_send<T: Send>(_: T) {}
        assert_send(follower.round(Timestamp(0)));
    }
}
