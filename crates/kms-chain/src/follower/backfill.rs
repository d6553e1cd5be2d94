//! Searches for the final block that used the nonce of a transfer and was not settled: the follower
//! began above it, or stepped back less far than a fork was deep.
//!
//! The block is the proof, as in [`Follower::round`]: it is read and compared with a second
//! endpoint, and its receipts are proved. A count alone decides nothing.

use kms_types::{EthAddress, Timestamp, TransferId};

use super::found::{Found, nonce_uses};
use super::{BlockRef, FollowError, Follower, KEEP_BYTES};
use crate::chain::{Block, Endpoint};

/// A pending transfer whose nonce the chain counts as used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedNonce {
    /// The transfer.
    pub transfer: TransferId,
    /// The sender.
    pub from: EthAddress,
    /// Its nonce.
    pub nonce: u64,
    /// The hashes of the transactions that a node may have.
    pub hashes: Vec<[u8; 32]>,
}

impl Follower {
    /// Settles a transfer by the final block that used its nonce, if the follower is past that
    /// block. Returns whether it was found. What is not final yet, the follower reads.
    ///
    /// # Errors
    /// When the chain or the store fails.
    pub async fn settle_missed(
        &self,
        used: &UsedNonce,
        now: Timestamp,
    ) -> Result<bool, FollowError> {
        let chain_id = self.chain.chain_id();
        let Some(cursor) = self.deposits.cursor(chain_id).await? else { return Ok(false) };
        let (endpoint, _) = self.chain.endpoint().await?;
        let Some(block) = missed_block(&endpoint, used, cursor, chain_id).await? else {
            return Ok(false);
        };
        let uses = nonce_uses(&block).filter(|it| it.from == used.from && it.nonce == used.nonce);
        let matches = self.settlements.match_nonces(chain_id, uses.collect()).await?;
        let found = Found::in_block(&block, &[], &matches);
        let concerned = found.transactions(&block);
        let (number, header) = (block.number, block.header);
        if concerned.is_empty()
            || !self.chain.is_confirmed(&endpoint, number, &header, &concerned).await
        {
            return Ok(false);
        }
        let (block, receipts) = self.receipts(&endpoint, block, found.hashes()).await?;
        let settled = found.settlements(&block, &receipts)?;
        let keep_until = now.plus(KEEP_BYTES);
        self.settlements.settle_final(chain_id, block.at(), settled, now, keep_until).await?;
        let transfer = used.transfer;
        let event = "missed_block_settled";
        tracing::warn!(
            event, chain_id, %transfer, block = number,
            "transfer settled by a missed block"
        );
        Ok(true)
    }
}

/// The block at or below the cursor that used the nonce: by the hashes of the transfer, else by the
/// counts of the sender, for which a node has to have old states.
async fn missed_block(
    endpoint: &Endpoint,
    used: &UsedNonce,
    cursor: BlockRef,
    chain_id: u64,
) -> Result<Option<Block>, FollowError> {
    for hash in &used.hashes {
        if let Some(receipt) = endpoint.receipt(*hash).await?
            && receipt.block <= cursor.number
        {
            return Ok(endpoint.block(receipt.block).await?);
        }
    }
    let is_used_at = async |number| {
        endpoint.mined_count_at(used.from, number).await.map(|count| count > used.nonce)
    };
    let (mut below, mut at) = (0, cursor.number);
    match is_used_at(at).await {
        Ok(true) => {}
        Ok(false) => return Ok(None),
        Err(error) => {
            let transfer = used.transfer;
            let event = "missed_block_not_found";
            tracing::warn!(
                event, chain_id, %transfer, %error,
                "block that used the nonce not found"
            );
            return Ok(None);
        }
    }
    // Used at `at`; the first block that it is used at is above `below`, or is `below`.
    while below < at {
        let middle = below + (at - below) / 2;
        if is_used_at(middle).await? {
            at = middle;
        } else {
            below = middle.saturating_add(1);
        }
    }
    Ok(endpoint.block(at).await?)
}
