//! Blocks with their transactions.

use alloy::eips::BlockNumberOrTag;
use alloy::primitives::{Address, B256, U64};
use alloy::providers::Provider;
use kms_types::{EthAddress, Token, U256, Units};
use serde::Deserialize;

use super::endpoint::Endpoint;
use super::error::ChainError;

pub(super) const GET_BLOCK: &str = "eth_getBlockByNumber";

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

/// The header of a block, as far as endpoints are compared by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Header {
    pub(crate) hash: B256,
    pub(crate) parent_hash: B256,
    pub(crate) receipts_root: B256,
    pub(crate) transactions_root: B256,
}

/// A block with its transactions.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) number: u64,
    pub(crate) header: Header,
    pub(crate) transactions: Vec<BlockTransaction>,
}

/// A transaction in a block. The fields are those that all types of transactions of all chains
/// have: a rollup's deposits, for instance, must not make a block unreadable.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct BlockTransaction {
    pub(crate) hash: B256,
    from: Address,
    to: Option<Address>,
    #[serde(default)]
    value: U256,
    nonce: Option<U64>,
}

#[derive(Debug, Deserialize)]
struct FullBlock {
    #[serde(flatten)]
    header: Header,
    transactions: Vec<BlockTransaction>,
}

impl Endpoint {
    /// Returns the header of the block with this number; `None` if there is none yet.
    pub(crate) async fn header(&self, number: u64) -> Result<Option<Header>, ChainError> {
        self.verify().await?;
        let params = (BlockNumberOrTag::Number(number), false);
        let block = self.provider.raw_request(GET_BLOCK.into(), params).await;
        self.record_outcome(block)
    }

    /// Returns the block with this number; `None` if there is none yet.
    pub(crate) async fn block(&self, number: u64) -> Result<Option<Block>, ChainError> {
        self.verify().await?;
        let params = (BlockNumberOrTag::Number(number), true);
        let block = self.provider.raw_request(GET_BLOCK.into(), params).await;
        let block: Option<FullBlock> = self.record_outcome(block)?;
        Ok(block.map(|FullBlock { header, transactions }| Block { number, header, transactions }))
    }

    /// Whether it has the block, with these transactions in it. An endpoint that fails does not.
    ///
    /// The roots of the header are compared too, because a false answer may well have the true
    /// hash.
    pub(super) async fn has_block(
        &self,
        number: u64,
        header: &Header,
        transactions: &[BlockTransaction],
    ) -> bool {
        let found = match transactions {
            [] => self.header(number).await.map(|header| header.map(|it| (it, Vec::new()))),
            _ => self.block(number).await.map(|it| it.map(|it| (it.header, it.transactions))),
        };
        let Ok(Some((found, in_block))) = found else { return false };
        found == *header && transactions.iter().all(|transaction| in_block.contains(transaction))
    }
}

impl Header {
    pub(crate) fn at(&self, number: u64) -> BlockRef {
        BlockRef { number, hash: self.hash.0 }
    }
}

impl Block {
    pub(crate) fn at(&self) -> BlockRef {
        self.header.at(self.number)
    }

    /// The transactions that offer native coin to an address. Only their receipts show whether they
    /// succeeded.
    pub(crate) fn payments(&self) -> impl Iterator<Item = Payment> {
        self.transactions.iter().filter_map(|transaction| transaction.payment(self.number))
    }
}

impl BlockTransaction {
    pub(crate) fn from(&self) -> EthAddress {
        self.from.into()
    }

    pub(crate) fn nonce(&self) -> Option<u64> {
        self.nonce.map(|nonce| nonce.to())
    }

    fn payment(&self, block: u64) -> Option<Payment> {
        let to = EthAddress::from(self.to?);
        (self.value > U256::ZERO).then_some(Payment {
            tx_hash: self.hash.0,
            from: self.from.into(),
            to,
            token: None,
            value: Units(self.value),
            block,
        })
    }
}
