//! Blocks with their transactions, and finality.

use std::fmt;
use std::str::FromStr;

use alloy::eips::BlockNumberOrTag;
use alloy::primitives::{Address, B256, U64};
use alloy::providers::Provider;
use kms_types::{EthAddress, Token, U256, Units};
use serde::Deserialize;

use super::Chain;
use super::endpoint::Endpoint;
use super::error::ChainError;
use super::requests::Head;

const GET_BLOCK: &str = "eth_getBlockByNumber";

/// The block tag.
const FINALIZED: &str = "finalized";

/// A block. Until it is finalized, its number alone does not identify it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRef {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

/// When a block is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finality {
    /// When the chain itself says so: at the block tag `finalized`.
    Tag,
    /// When this many blocks are above it, on a chain without the tag.
    Blocks(u64),
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

#[derive(Debug, Deserialize)]
struct Number {
    number: Option<U64>,
}

impl fmt::Display for Finality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag => f.write_str(FINALIZED),
            Self::Blocks(above) => write!(f, "{above}"),
        }
    }
}

/// The text is neither the tag nor a number of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `finalized` or a number of blocks")]
pub struct FinalityError;

impl FromStr for Finality {
    type Err = FinalityError;

    fn from_str(text: &str) -> Result<Self, FinalityError> {
        if text == FINALIZED {
            return Ok(Self::Tag);
        }
        text.parse().map(Self::Blocks).map_err(|_not_a_number| FinalityError)
    }
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

    /// Returns the number of the newest final block; `None` on a chain that has none yet.
    pub(crate) async fn final_block(
        &self,
        head: Head,
        finality: Finality,
    ) -> Result<Option<u64>, ChainError> {
        match finality {
            Finality::Blocks(above) => Ok(Some(head.block.saturating_sub(above))),
            Finality::Tag => {
                self.verify().await?;
                let params = (BlockNumberOrTag::Finalized, false);
                let block = self.provider.raw_request(GET_BLOCK.into(), params).await;
                let block: Option<Number> = match self.record_call_outcome(block) {
                    // It has no final block yet, or does not know the tag.
                    Err(ChainError::Refused { .. } | ChainError::NoBlock { .. }) => None,
                    block => block?,
                };
                Ok(block.and_then(|block| block.number).map(|number| number.to()))
            }
        }
    }
}

impl Chain {
    /// Compares with the chain when a block is final. A chain that is down or new is not an error.
    ///
    /// # Errors
    /// `NoFinality` when the chain does not have the block tag that decides.
    pub async fn check_finality(&self, finality: Finality) -> Result<(), ChainError> {
        let Ok((endpoint, head)) = self.endpoint().await else { return Ok(()) };
        match endpoint.final_block(head, finality).await {
            Ok(None) if !head.is_of_a_new_chain() => Err(ChainError::NoFinality),
            Ok(_) | Err(_) => Ok(()),
        }
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
