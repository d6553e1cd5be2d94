//! Blocks with their payments.
//!
//! Of a block only what is needed is read, so that transactions of kinds that only some chains
//! have (deposits of a rollup, for instance) do not make it unreadable.

use alloy::eips::BlockNumberOrTag;
use alloy::primitives::{Address, B256};
use alloy::providers::Provider;
use kms_types::{EthAddress, U256, Units};
use serde::Deserialize;

use super::ChainError;
use super::node::Node;
use crate::follower::{BlockRef, Payment};

const BLOCK: &str = "eth_getBlockByNumber";

/// A block as the follower needs it.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) at: BlockRef,
    pub(crate) parent: [u8; 32],
    /// Transactions that offer more than nothing to an address. Whether they succeeded, only
    /// their receipts tell.
    pub(crate) payments: Vec<Payment>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    hash: B256,
    parent_hash: B256,
}

#[derive(Debug, Deserialize)]
struct Full {
    #[serde(flatten)]
    header: Header,
    transactions: Vec<Transaction>,
}

#[derive(Debug, Deserialize)]
struct Transaction {
    hash: B256,
    from: Address,
    to: Option<Address>,
    #[serde(default)]
    value: U256,
}

impl Node {
    /// The block of this number without what is in it; `None` if the node has none.
    pub(crate) async fn block_ref(&self, number: u64) -> Result<Option<BlockRef>, ChainError> {
        self.verify().await?;
        let params = (BlockNumberOrTag::Number(number), false);
        let block = self.provider.raw_request(BLOCK.into(), params).await;
        let block: Option<Header> = self.told(block)?;
        Ok(block.map(|header| BlockRef { number, hash: header.hash.0 }))
    }

    /// The block of this number; `None` if the node has none.
    pub(crate) async fn block(&self, number: u64) -> Result<Option<Block>, ChainError> {
        self.verify().await?;
        let params = (BlockNumberOrTag::Number(number), true);
        let block = self.provider.raw_request(BLOCK.into(), params).await;
        let block: Option<Full> = self.told(block)?;
        Ok(block.map(|Full { header, transactions }| Block {
            at: BlockRef { number, hash: header.hash.0 },
            parent: header.parent_hash.0,
            payments: transactions.into_iter().filter_map(|tx| tx.payment(number)).collect(),
        }))
    }
}

impl Transaction {
    fn payment(self, block: u64) -> Option<Payment> {
        let to = EthAddress::from(self.to?);
        let from = EthAddress::from(self.from);
        let (tx_hash, value) = (self.hash.0, Units(self.value));
        (value > Units::default()).then_some(Payment {
            tx_hash,
            from,
            to,
            token: None,
            value,
            block,
        })
    }
}
