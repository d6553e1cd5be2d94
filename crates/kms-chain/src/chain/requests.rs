//! Requests for accounts, prices and transactions.

use std::time::Duration;

use alloy::consensus::BlockHeader;
use alloy::eips::BlockNumberOrTag;
use alloy::primitives::B256;
use alloy::providers::Provider;
use alloy::transports::RpcError;
use kms_types::{EthAddress, Timestamp};

use super::endpoint::{Endpoint, no_latest_block};
use super::error::ChainError;

/// How many blocks say what the market asks.
pub(crate) const MARKET_BLOCKS: u64 = 10;

/// The percentile of a low tip that is no outlier.
const LOW_PERCENTILE: f64 = 10.0;

/// The latest block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub block: u64,
    /// Its hash.
    pub hash: [u8; 32],
    /// When it was made.
    pub made_at: Timestamp,
    /// Its base fee, in wei per gas, on a chain that has one.
    pub base_fee: Option<u64>,
}

/// A chain with fewer blocks may have no finalized one yet.
const NEW_CHAIN: u64 = 1_024;

/// The code of an account that delegates to a contract begins with this (EIP-7702).
const DELEGATION: [u8; 3] = [0xef, 0x01, 0x00];

/// What kind of code an address has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// None: the address belongs to a key, or is unused.
    None,
    /// A delegation (EIP-7702): the address belongs to a key, and runs the code of a contract.
    Delegation,
    /// A contract.
    Contract,
}

fn made_at(header: &impl BlockHeader) -> Timestamp {
    Timestamp(0).plus(Duration::from_secs(header.timestamp()))
}

impl Head {
    /// Whether the chain has so few blocks that none may be finalized.
    pub(crate) fn is_of_a_new_chain(&self) -> bool {
        self.block < NEW_CHAIN
    }
}

impl Code {
    pub(super) fn of(code: &[u8]) -> Self {
        let delegates = code.strip_prefix(&DELEGATION).is_some_and(|to| to.len() == 20);
        match code.is_empty() {
            true => Self::None,
            false if delegates => Self::Delegation,
            false => Self::Contract,
        }
    }
}

impl Endpoint {
    /// Returns the number of the latest block.
    ///
    /// # Errors
    /// When the endpoint fails.
    pub async fn block_number(&self) -> Result<u64, ChainError> {
        self.verify().await?;
        self.record_outcome(self.provider.get_block_number().await)
    }

    /// Returns the latest block's number and base fee.
    ///
    /// # Errors
    /// When the endpoint fails.
    pub async fn head(&self) -> Result<Head, ChainError> {
        self.verify().await?;
        let latest = self.provider.get_block_by_number(BlockNumberOrTag::Latest).await;
        let header = self.record_outcome(latest)?.ok_or_else(no_latest_block)?.header;
        Ok(Head {
            block: header.number(),
            hash: header.hash.0,
            made_at: made_at(&header),
            base_fee: header.base_fee_per_gas(),
        })
    }

    /// Returns when a block was made; `None` if the endpoint does not have it.
    ///
    /// # Errors
    /// When the endpoint fails.
    pub async fn block_time(&self, number: u64) -> Result<Option<Timestamp>, ChainError> {
        self.verify().await?;
        let block = self.provider.get_block_by_number(number.into()).await;
        Ok(self.record_outcome(block)?.map(|block| made_at(&block.header)))
    }

    /// Counts the mined transactions of the address.
    ///
    /// # Errors
    /// When the endpoint fails.
    pub async fn mined_count(&self, address: EthAddress) -> Result<u64, ChainError> {
        self.verify().await?;
        let count = self.provider.get_transaction_count(address.into()).latest().await;
        self.record_outcome(count)
    }

    /// Counts the transactions of the address that were mined up to this block.
    ///
    /// # Errors
    /// When the endpoint fails, or has pruned the state at this block.
    pub async fn mined_count_at(&self, address: EthAddress, block: u64) -> Result<u64, ChainError> {
        self.verify().await?;
        let count = self.provider.get_transaction_count(address.into()).number(block).await;
        // A node that pruned the state has not failed.
        self.record_call_outcome(count)
    }

    /// Returns a low tip that was included in each of the latest blocks with transactions, of at
    /// most so many blocks and [`MARKET_BLOCKS`]. `None` if the node refuses to report it, which is
    /// no failure: the method is optional. Only for chains with a base fee.
    pub(crate) async fn included_tips(&self, blocks: u64) -> Result<Option<Vec<u128>>, ChainError> {
        self.verify().await?;
        let (blocks, newest) = (blocks.min(MARKET_BLOCKS), BlockNumberOrTag::Latest);
        let history = self.provider.get_fee_history(blocks, newest, &[LOW_PERCENTILE]).await;
        if let Err(RpcError::ErrorResp(payload)) = &history {
            let error = ChainError::refused(payload);
            tracing::debug!(endpoint = self.number, %error, "fee history refused");
            return Ok(None);
        }
        let history = self.record_outcome(history)?;
        let rewards = history.reward.unwrap_or_default();
        let included = rewards.iter().zip(&history.gas_used_ratio).filter(|(_, used)| **used > 0.0);
        Ok(Some(included.filter_map(|(rewards, _)| rewards.first().copied()).collect()))
    }

    /// Returns the gas price that the node proposes.
    pub(crate) async fn gas_price(&self) -> Result<u128, ChainError> {
        self.verify().await?;
        self.record_outcome(self.provider.get_gas_price().await)
    }

    /// Returns what kind of code the address has.
    ///
    /// # Errors
    /// When the endpoint fails.
    pub async fn code(&self, address: EthAddress) -> Result<Code, ChainError> {
        self.verify().await?;
        let code = self.provider.get_code_at(address.into()).await;
        Ok(Code::of(&self.record_outcome(code)?))
    }

    /// Sends signed bytes to this endpoint alone; see
    /// [`Chain::broadcast`](crate::Chain::broadcast).
    pub(super) async fn broadcast(&self, signed: &[u8]) -> Result<(), ChainError> {
        self.verify().await?;
        self.record_broadcast(self.provider.send_raw_transaction(signed).await)
    }

    /// Whether the node has the transaction, mined or pending.
    ///
    /// # Errors
    /// When the endpoint fails.
    pub async fn has_transaction(&self, hash: [u8; 32]) -> Result<bool, ChainError> {
        self.verify().await?;
        let found = self.provider.get_transaction_by_hash(B256::from(hash)).await;
        Ok(self.record_outcome(found)?.is_some())
    }
}
