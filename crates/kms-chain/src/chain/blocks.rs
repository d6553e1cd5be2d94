//! Blocks and the payments in native coin that they contain.

use alloy::eips::BlockNumberOrTag;
use alloy::primitives::{Address, B256};
use alloy::providers::Provider;
use kms_types::{EthAddress, Token, U256, Units};
use serde::Deserialize;

use super::endpoint::Endpoint;
use super::error::ChainError;

const GET_BLOCK: &str = "eth_getBlockByNumber";

/// A block. Until it is finalized, its number alone does not identify it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRef {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

/// A transaction that offers native coin to an address, or the token movement that it logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// The hash of the transaction.
    pub tx_hash: [u8; 32],
    /// The sender.
    pub from: EthAddress,
    /// The recipient.
    pub to: EthAddress,
    /// The token; `None` for the native coin.
    pub token: Option<Token>,
    /// The amount, in the asset's smallest unit; never zero.
    pub value: Units,
    /// The number of its block.
    pub block: u64,
}

/// A block with its payments.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) at: BlockRef,
    pub(crate) parent: [u8; 32],
    /// Transactions that offer native coin to an address. Only their receipts show whether they
    /// succeeded.
    pub(crate) payments: Vec<Payment>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    hash: B256,
    parent_hash: B256,
}

/// The fields of a block that are needed. Others are not parsed, so that transaction types of
/// single chains (a rollup's deposits, for instance) do not make it unreadable.
#[derive(Debug, Deserialize)]
struct FullBlock {
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

impl Endpoint {
    /// Returns the block with this number without its transactions; `None` if there is none yet.
    pub(crate) async fn block_ref(&self, number: u64) -> Result<Option<BlockRef>, ChainError> {
        self.verify().await?;
        let params = (BlockNumberOrTag::Number(number), false);
        let block = self.provider.raw_request(GET_BLOCK.into(), params).await;
        let block: Option<Header> = self.record_outcome(block)?;
        Ok(block.map(|header| BlockRef { number, hash: header.hash.0 }))
    }

    /// Returns the block with this number; `None` if there is none yet.
    pub(crate) async fn block(&self, number: u64) -> Result<Option<Block>, ChainError> {
        self.verify().await?;
        let params = (BlockNumberOrTag::Number(number), true);
        let block = self.provider.raw_request(GET_BLOCK.into(), params).await;
        let block: Option<FullBlock> = self.record_outcome(block)?;
        Ok(block.map(|FullBlock { header, transactions }| Block {
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
