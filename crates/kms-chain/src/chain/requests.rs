//! Requests for accounts, prices and transactions.

use std::sync::atomic::Ordering;

use alloy::consensus::BlockHeader;
use alloy::eips::{BlockId, BlockNumberOrTag, RpcBlockHash};
use alloy::network::TransactionBuilder;
use alloy::primitives::{Address, B256};
use alloy::providers::Provider;
use alloy::rpc::types::TransactionRequest;
use alloy::transports::{RpcError, TransportError};
use kms_types::{EthAddress, Token, Units, Wei};

use super::endpoint::{Endpoint, no_latest_block};
use super::error::ChainError;
use crate::ports::ChainView;
use crate::prices::{self, Market};

/// Gas of a transfer to an address without code; no transfer takes less.
pub(crate) const PLAIN_TRANSFER_GAS: u64 = 21_000;

/// The JSON-RPC code for parameters that a method does not take.
const INVALID_PARAMETERS: i64 = -32_602;

/// How often the state of the newest block is requested: behind one URL may be nodes of which one
/// does not have the newest block of another one.
const BLOCK_ATTEMPTS: u32 = 3;

/// How many blocks say what the market asks.
pub(crate) const MARKET_BLOCKS: u64 = 10;

/// The percentiles of the tips in a block that the steps of a ladder start from.
const PERCENTILES: [f64; 3] = [50.0, 75.0, 90.0];

/// The percentile of a low tip that is no outlier.
const LOW_PERCENTILE: f64 = 10.0;

/// The latest block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub block: u64,
    /// Its hash.
    pub hash: [u8; 32],
    /// Its base fee, in wei per gas, on a chain that has one.
    pub base_fee: Option<u64>,
}

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
            base_fee: header.base_fee_per_gas(),
        })
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
        self.record_outcome(count)
    }

    /// Returns the state of a sender by this endpoint alone; see
    /// [`Chain::view`](crate::Chain::view). Balances and the count of mined transactions are those
    /// of one block, by its hash: behind one URL may be several nodes at different blocks, and a
    /// node that does not have this block refuses to answer.
    ///
    /// The pending transaction count is requested twice, and the lower answer is used: a nonce
    /// that is too low is refused by the chain or by the wallet's other transfers, one that is too
    /// high would wait forever.
    pub(crate) async fn view(
        &self,
        owner: EthAddress,
        token: Option<&Token>,
    ) -> Result<ChainView, ChainError> {
        let mut lagging = None;
        for _ in 0..BLOCK_ATTEMPTS {
            match self.view_latest(owner, token).await {
                Err(error @ ChainError::NoBlock { .. }) => lagging = Some(error),
                answer => return answer,
            }
        }
        Err(lagging.unwrap_or_else(no_latest_block))
    }

    async fn view_latest(
        &self,
        owner: EthAddress,
        token: Option<&Token>,
    ) -> Result<ChainView, ChainError> {
        self.verify().await?;
        let latest = self.provider.get_block_by_number(BlockNumberOrTag::Latest).await;
        let header = self.record_outcome(latest)?.ok_or_else(no_latest_block)?.header;
        let (block, hash) = (header.number(), header.hash);
        if !self.lacks_block_hashes.load(Ordering::Relaxed) {
            let by_hash = RpcBlockHash::from_hash(hash, Some(true));
            match self.view_at(owner, token, block, by_hash.into()).await {
                Err(ChainError::Refused { code: INVALID_PARAMETERS, .. }) => {}
                answer => return answer,
            }
        }
        // The endpoint does not implement EIP-1898. The block with this number must then be the
        // same one afterwards.
        let view = self.view_at(owner, token, block, BlockId::number(block)).await?;
        let again = self.provider.get_block_by_number(block.into()).await;
        if self.record_outcome(again)?.is_none_or(|block| block.header.hash != hash) {
            let message = "the block was removed while it was read".to_owned();
            return Err(ChainError::NoBlock { code: 0, message });
        }
        self.lacks_block_hashes.store(true, Ordering::Relaxed);
        Ok(view)
    }

    async fn view_at(
        &self,
        owner: EthAddress,
        token: Option<&Token>,
        block: u64,
        at: BlockId,
    ) -> Result<ChainView, ChainError> {
        let address = Address::from(owner);
        let token = async {
            match token {
                Some(token) => self.token_balance_at(token.address, owner, at).await,
                None => Ok(Units::default()),
            }
        };
        let (balance, mined, nonce, again, token) = tokio::join!(
            self.provider.get_balance(address).block_id(at).into_future(),
            self.provider.get_transaction_count(address).block_id(at).into_future(),
            self.provider.get_transaction_count(address).pending().into_future(),
            self.provider.get_transaction_count(address).pending().into_future(),
            token,
        );
        // Not a failure of the endpoint if it does not know how to read a block by its hash.
        let is_unknown = |error: &TransportError| {
            error.as_error_resp().is_some_and(|payload| payload.code == INVALID_PARAMETERS)
        };
        let balance = match balance {
            Err(error) if is_unknown(&error) => return Err(error.into()),
            balance => self.record_outcome(balance)?,
        };
        let (mined, token) = (self.record_outcome(mined)?, token?);
        let nonce = self.record_outcome(nonce)?.min(self.record_outcome(again)?);
        // A count that is too low makes more transfers count against the balance.
        Ok(ChainView { block, balance: Wei(balance), token, nonce, mined: mined.min(nonce) })
    }

    /// Returns what transactions in the latest blocks paid.
    ///
    /// # Errors
    /// When the endpoint fails.
    pub async fn market(&self) -> Result<Market, ChainError> {
        self.verify().await?;
        let Head { base_fee, .. } = self.head().await?;
        let Some(base_fee) = base_fee else {
            return Ok(Market::Legacy { price: self.gas_price().await? });
        };
        let newest = BlockNumberOrTag::Latest;
        let history = self.provider.get_fee_history(MARKET_BLOCKS, newest, &PERCENTILES).await;
        let history = self.record_outcome(history)?;
        let rewards = history.reward.unwrap_or_default();
        let included: Vec<_> = (rewards.iter().zip(&history.gas_used_ratio))
            .filter_map(|(rewards, used)| (*used > 0.0).then_some(rewards))
            .collect();
        let tip = |index: usize| {
            let tips = included.iter().filter_map(|rewards| rewards.get(index).copied()).collect();
            prices::middle(tips).unwrap_or_default()
        };
        Ok(Market::Dynamic { base_fee: base_fee.into(), tips: [tip(0), tip(1), tip(2)] })
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
        let code = self.record_outcome(code)?;
        let delegates = code.strip_prefix(&DELEGATION).is_some_and(|to| to.len() == 20);
        Ok(match code.is_empty() {
            true => Code::None,
            false if delegates => Code::Delegation,
            false => Code::Contract,
        })
    }

    /// Returns the gas limit for sending `value`, by the node's estimate of this very payment:
    /// exactly 21,000 where it says so, else the estimate plus a fifth. A payment to an address
    /// without code takes more on some chains.
    ///
    /// # Errors
    /// `Reverted` when the recipient's contract would revert the payment, or when the endpoint
    /// fails.
    pub async fn gas_limit(
        &self,
        from: EthAddress,
        to: EthAddress,
        value: Wei,
    ) -> Result<u64, ChainError> {
        self.verify().await?;
        let request = TransactionRequest::default()
            .with_from(from.into())
            .with_to(to.into())
            .with_value(value.0);
        let estimate = self.record_call_outcome(self.provider.estimate_gas(request).await)?;
        Ok(match estimate {
            PLAIN_TRANSFER_GAS => PLAIN_TRANSFER_GAS,
            estimate => with_margin(estimate).max(PLAIN_TRANSFER_GAS),
        })
    }

    /// Sends signed bytes to this endpoint alone; see
    /// [`Chain::broadcast`](crate::Chain::broadcast).
    pub(super) async fn broadcast(&self, signed: &[u8]) -> Result<(), ChainError> {
        self.verify().await?;
        let sent = self.provider.send_raw_transaction(signed).await;
        sent.map(drop).map_err(|error| match error {
            // A node that refuses these bytes has not failed.
            RpcError::ErrorResp(payload) => ChainError::refused(&payload),
            error => self.mark_failed(error.into()),
        })
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

/// Adds a fifth to an estimate, for the execution may cost more when the payment is mined.
pub(super) fn with_margin(gas: u64) -> u64 {
    gas.saturating_add(gas / 5)
}
