//! Money from outside: follows the chain's blocks from a stored cursor, and finds the payments to
//! wallets, in the native coin and in the configured tokens, that this system did not send itself.
//!
//! Only blocks that stay are read, those with the confirmations that make a transfer final: a
//! stranger's payment that a reorg takes back may never come again, and is not told before.
//! This module must never move the cursor over a block whose payments are not noted. Native
//! money that arrives inside a contract's call is not seen.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, StreamExt, TryStreamExt};
use kms_core::ports::StoreError;
use kms_types::{AccountId, EthAddress, Timestamp, Token, Units};

use crate::chain::{Block, Chain, ChainError, Endpoint};

pub use crate::chain::{BlockRef, Payment};

/// How many blocks one round takes.
const ROUND: u64 = 32;

/// How many of them, or of receipts, are asked for at once.
const AT_ONCE: usize = 8;

/// How many blocks are read again when the cursor's is gone, unless the confirmations are more:
/// where the branches part is not known, and what was told before is not told twice.
const BACK: u64 = 1_024;

/// A payment to an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// The account whose wallet is paid.
    pub account: AccountId,
    /// What pays it.
    pub payment: Payment,
}

/// A payment to an account that this system did not send, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalDeposit {
    /// The chain (EIP-155).
    pub chain_id: u64,
    /// The transaction's hash.
    pub tx_hash: [u8; 32],
    /// Who paid.
    pub from: EthAddress,
    /// The token that was received; `None` for the native coin.
    pub token: Option<Token>,
    /// How much, in the asset's smallest unit.
    pub value: Units,
    /// The block that includes it.
    pub block: u64,
}

/// Where the follower is, and what it found. One method is one whole transaction.
#[async_trait]
pub trait IncomingStore: Send + Sync {
    /// The last block of the chain that was followed.
    async fn followed(&self, chain_id: u64) -> Result<Option<BlockRef>, StoreError>;

    /// Begins to follow a chain after this block, unless somebody did.
    async fn begin(&self, chain_id: u64, at: BlockRef) -> Result<(), StoreError>;

    /// Those that pay a wallet and are no attempt of a transfer of ours to it, which its receiver
    /// is told of already.
    async fn strangers(&self, payments: Vec<Payment>) -> Result<Vec<Incoming>, StoreError>;

    /// Moves the cursor, if it still is at `from`, notes the payments, and tells of those that
    /// were not noted before. `false`, and nothing, if somebody else moved it.
    async fn follow(
        &self,
        chain_id: u64,
        from: BlockRef,
        to: BlockRef,
        incoming: Vec<Incoming>,
        now: Timestamp,
    ) -> Result<bool, StoreError>;
}

/// Why a round was not done. The next one tries again from the same block.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The chain does not answer, or not to the point.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node has a transaction's block, but not its receipt.
    #[error("the node has no receipt of a transaction in block {block}")]
    NoReceipt {
        /// The block.
        block: u64,
    },
}

/// Follows one chain. Several servers may: the one that moves the cursor first has told.
pub struct Follower {
    store: Arc<dyn IncomingStore>,
    chain: Chain,
    confirmations: u64,
    tokens: Vec<Token>,
}

impl Follower {
    /// Follows the blocks of `chain` that have this many above them, for the native coin and these
    /// tokens.
    #[must_use]
    pub fn new(
        store: Arc<dyn IncomingStore>,
        chain: Chain,
        confirmations: u64,
        tokens: Vec<Token>,
    ) -> Self {
        Self { store, chain, confirmations, tokens }
    }

    /// Reads the next blocks, and tells whose money they brought. `true` if there are more: the
    /// next round need not wait. A chain that was never followed begins at its newest block that
    /// stays, and tells nothing of what was before.
    ///
    /// # Errors
    /// When the chain or the store does not answer. Nothing is lost then.
    pub async fn round(&self, now: Timestamp) -> Result<bool, FollowError> {
        let chain_id = self.chain.chain_id();
        // One endpoint for a whole round: another may stand on another branch.
        let (node, head) = self.chain.endpoint().await?;
        let newest = head.block.saturating_sub(self.confirmations);
        let Some(cursor) = self.store.followed(chain_id).await? else {
            if let Some(at) = node.block_ref(newest).await? {
                self.store.begin(chain_id, at).await?;
            }
            return Ok(false);
        };
        let last = newest.min(cursor.number.saturating_add(ROUND));
        let next = cursor.number.saturating_add(1);
        let blocks: Vec<Option<Block>> = stream::iter(next..=last)
            .map(|number| node.block(number))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let Some(Some(first)) = blocks.first() else {
            return Ok(false);
        };
        if first.parent != cursor.hash {
            self.step_back(&node, cursor, now).await?;
            return Ok(false);
        }
        let blocks = in_a_row(cursor, blocks);
        let end = blocks.last().map_or(cursor, |block| block.at);
        let mut payments = self.in_tokens(&node, &blocks).await?;
        payments.extend(blocks.into_iter().flat_map(|block| block.payments));
        let incoming = successful(&node, self.store.strangers(payments).await?).await?;
        let moved = self.store.follow(chain_id, cursor, end, incoming, now).await?;
        Ok(moved && end.number < newest)
    }

    /// What was paid in tokens.
    async fn in_tokens(
        &self,
        node: &Endpoint,
        blocks: &[Block],
    ) -> Result<Vec<Payment>, FollowError> {
        if self.tokens.is_empty() {
            return Ok(Vec::new());
        }
        let at: Vec<_> = blocks.iter().map(|block| block.at).collect();
        let paid = stream::iter(at).map(|at| node.token_payments(at, &self.tokens));
        let paid: Vec<_> = paid.buffered(AT_ONCE).try_collect().await?;
        Ok(paid.into_iter().flatten().collect())
    }

    /// The cursor's block is not in the chain any more, although it had its confirmations. Many
    /// blocks are read again; what was told of them is not told twice.
    async fn step_back(
        &self,
        node: &Endpoint,
        cursor: BlockRef,
        now: Timestamp,
    ) -> Result<(), FollowError> {
        let number = cursor.number.saturating_sub(self.confirmations.max(BACK));
        tracing::error!(
            block = cursor.number,
            again_after = number,
            "a block that was taken for final is not in the chain any more"
        );
        if let Some(at) = node.block_ref(number).await? {
            let chain_id = self.chain.chain_id();
            self.store.follow(chain_id, cursor, at, Vec::new(), now).await?;
        }
        Ok(())
    }
}

/// The payments that were not reverted.
async fn successful(
    node: &Endpoint,
    incoming: Vec<Incoming>,
) -> Result<Vec<Incoming>, FollowError> {
    let checked = stream::iter(incoming).map(|incoming| async move {
        let Payment { tx_hash, block, .. } = incoming.payment;
        // What is reverted leaves no log.
        if incoming.payment.token.is_some() {
            return Ok(Some(incoming));
        }
        let receipt = node.receipt(tx_hash).await?;
        match receipt.filter(|receipt| receipt.block == block) {
            Some(receipt) => Ok(receipt.success.then_some(incoming)),
            None => Err(FollowError::NoReceipt { block }),
        }
    });
    let checked: Vec<_> = checked.buffered(AT_ONCE).try_collect().await?;
    Ok(checked.into_iter().flatten().collect())
}

/// The blocks that follow the cursor, each the one before it: a node may have changed its mind
/// between two answers.
fn in_a_row(cursor: BlockRef, blocks: Vec<Option<Block>>) -> Vec<Block> {
    let mut end = cursor.hash;
    let mut follows = |block: &Block| {
        let follows = block.parent == end;
        end = block.at.hash;
        follows
    };
    blocks.into_iter().map_while(|block| block.filter(&mut follows)).collect()
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("chain", &self.chain).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use kms_types::{EthAddress, Units};

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
    fn blocks_count_up_to_the_first_that_does_not_follow() {
        let cursor = BlockRef { number: 4, hash: [4; 32] };
        let end_of = |blocks| {
            let blocks = in_a_row(cursor, blocks);
            (blocks.last().map_or(cursor, |block| block.at).number, blocks.len())
        };
        assert_eq!(end_of(vec![block(5, 5, 4), block(6, 6, 5)]), (6, 2));
        assert_eq!(end_of(vec![block(5, 5, 4), block(6, 6, 9)]), (5, 1));
        assert_eq!(end_of(vec![block(5, 5, 4), None, block(7, 7, 6)]), (5, 1));
        assert_eq!(end_of(vec![block(5, 5, 9), block(6, 6, 5)]), (4, 0));
        assert_eq!(end_of(Vec::new()), (4, 0));
    }

    /// Servers run it on a task of its own.
    #[expect(dead_code, reason = "it is enough that it compiles")]
    fn futures_may_move_between_threads(follower: &Follower) {
        fn assert_send<T: Send>(_: T) {}
        assert_send(follower.round(Timestamp(0)));
    }
}
