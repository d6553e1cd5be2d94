//! Requests for accounts, prices and transactions.

use alloy::consensus::BlockHeader;
use alloy::eips::BlockNumberOrTag;
use alloy::network::TransactionBuilder;
use alloy::primitives::{Address, B256};
use alloy::providers::Provider;
use alloy::rpc::types::TransactionRequest;
use alloy::transports::RpcError;
use kms_types::{EthAddress, Token, Units, Wei};

use super::endpoint::{Endpoint, no_latest_block};
use super::error::ChainError;
use crate::ports::ChainView;
use crate::transfer::Fees;

/// Gas of a transfer to an address without code; no transfer takes less.
pub(crate) const PLAIN_TRANSFER_GAS: u64 = 21_000;

/// The highest gas limit of a payment: no honest contract needs a tenth of it.
const MAX_GAS: u64 = 1_000_000;

/// The latest block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub block: u64,
    /// Its base fee, in wei per gas, on a chain that has one.
    pub base_fee: Option<u64>,
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
        Ok(Head { block: header.number(), base_fee: header.base_fee_per_gas() })
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
    /// [`Chain::view`](crate::Chain::view).
    ///
    /// The pending transaction count is requested twice, and the lower answer is used: a nonce that
    /// is too low is refused by the chain or by the wallet's other transfers, one that is too high
    /// would wait forever.
    pub(crate) async fn view(
        &self,
        owner: EthAddress,
        token: Option<&Token>,
    ) -> Result<ChainView, ChainError> {
        let address = Address::from(owner);
        // Before and after the balance: a transaction that is mined at both times is mined between.
        let (block, before) = tokio::try_join!(self.block_number(), self.mined_count(owner))?;
        let token = async {
            match token {
                Some(token) => self.token_balance(token.address, owner).await,
                None => Ok(Units::default()),
            }
        };
        let (balance, nonce, again, token) = tokio::join!(
            self.provider.get_balance(address).into_future(),
            self.provider.get_transaction_count(address).pending().into_future(),
            self.provider.get_transaction_count(address).pending().into_future(),
            token,
        );
        let nonce = self.record_outcome(nonce)?.min(self.record_outcome(again)?);
        let (balance, token) = (Wei(self.record_outcome(balance)?), token?);
        let mined = before.min(self.mined_count(owner).await?);
        Ok(ChainView { block, balance, token, nonce, mined })
    }

    /// Returns prices that stay sufficient while the base fee doubles.
    ///
    /// # Errors
    /// `NoBaseFee` on a chain without EIP-1559, or when the endpoint fails.
    pub async fn fees(&self) -> Result<Fees, ChainError> {
        self.verify().await?;
        let (latest, tip) = tokio::join!(
            self.provider.get_block_by_number(BlockNumberOrTag::Latest).into_future(),
            self.provider.get_max_priority_fee_per_gas(),
        );
        let base = self
            .record_outcome(latest)?
            .and_then(|block| block.header.base_fee_per_gas())
            .ok_or(ChainError::NoBaseFee)?;
        let tip = self.record_outcome(tip)?;
        let max_fee_per_gas = u128::from(base).saturating_mul(2).saturating_add(tip);
        Ok(Fees { max_fee_per_gas, max_priority_fee_per_gas: tip })
    }

    /// Whether the address has code.
    ///
    /// # Errors
    /// When the endpoint fails.
    pub async fn is_contract(&self, address: EthAddress) -> Result<bool, ChainError> {
        self.verify().await?;
        let code = self.provider.get_code_at(address.into()).await;
        Ok(!self.record_outcome(code)?.is_empty())
    }

    /// Returns the gas limit for sending `value`: exactly 21,000 to an address without code, else
    /// the node's estimate plus a fifth, and at least 21,000.
    ///
    /// # Errors
    /// `Reverted` when the recipient's contract would revert the payment or needs more gas than an
    /// honest one, or when the endpoint fails.
    pub async fn gas_limit(
        &self,
        from: EthAddress,
        to: EthAddress,
        value: Wei,
        is_contract: bool,
    ) -> Result<u64, ChainError> {
        if !is_contract {
            return Ok(PLAIN_TRANSFER_GAS);
        }
        self.verify().await?;
        let request = TransactionRequest::default()
            .with_from(from.into())
            .with_to(to.into())
            .with_value(value.0);
        let estimate = self.record_call_outcome(self.provider.estimate_gas(request).await)?;
        check_gas_limit(with_margin(estimate).max(PLAIN_TRANSFER_GAS))
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

/// Refuses a gas limit that no honest contract needs.
pub(super) fn check_gas_limit(gas: u64) -> Result<u64, ChainError> {
    if gas <= MAX_GAS {
        return Ok(gas);
    }
    Err(ChainError::Reverted { reason: format!("the contract would use {gas} gas") })
}

/// Adds a fifth to an estimate, for the execution may cost more when the payment is mined.
pub(super) fn with_margin(gas: u64) -> u64 {
    gas.saturating_add(gas / 5)
}
