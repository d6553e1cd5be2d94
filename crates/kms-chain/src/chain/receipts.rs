//! Receipts of mined transactions.

use alloy::primitives::{B256, Bloom, U8};
use alloy::providers::Provider;
use alloy::rpc::types::Log;
use kms_types::{EthAddress, Token, U256, Units, Wei};
use serde::Deserialize;

use super::endpoint::Endpoint;
use super::error::ChainError;
use super::tokens::TokenMove;

const GET_RECEIPT: &str = "eth_getTransactionReceipt";

/// The result of a mined transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The block that contains it.
    pub block: u64,
    /// The hash of that block.
    pub block_hash: [u8; 32],
    /// The fee that the network took.
    pub fee: Wei,
    /// Whether it succeeded; `false` if it reverted.
    pub success: bool,
    /// The token movements that it logged.
    pub moves: Vec<TokenMove>,
}

/// The fields of a receipt that are needed. Others are not parsed, so that the receipts of
/// transaction types of single chains (a rollup's deposits, for instance) can be read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawReceipt {
    block_number: Option<U256>,
    block_hash: Option<B256>,
    #[serde(default, rename = "type")]
    pub(super) kind: U8,
    pub(super) status: Option<U256>,
    /// Instead of the status, before the Byzantium fork.
    pub(super) root: Option<B256>,
    #[serde(default)]
    pub(super) cumulative_gas_used: U256,
    #[serde(default)]
    pub(super) logs_bloom: Bloom,
    gas_used: U256,
    #[serde(default)]
    effective_gas_price: U256,
    /// What an OP-stack chain took for the data on L1. The receipts root covers neither this nor
    /// what follows.
    l1_fee: Option<U256>,
    operator_fee_scalar: Option<U256>,
    operator_fee_constant: Option<U256>,
    /// Since the fork Jovian.
    da_footprint_gas_scalar: Option<U256>,
    #[serde(default)]
    pub(super) logs: Vec<Log>,
    /// Of an OP-stack deposit.
    pub(super) deposit_nonce: Option<U256>,
    pub(super) deposit_receipt_version: Option<U256>,
}

impl Receipt {
    /// Returns how much of a token reached the recipient, if the sender gave any: zero if not. Only
    /// logs of the token itself count. Fee-on-transfer tokens may route the payment through an
    /// intermediary address.
    #[must_use]
    pub fn arrived(&self, token: &Token, from: EthAddress, to: EthAddress) -> Units {
        let moves = || self.moves.iter().filter(|moved| moved.token == token.address);
        if !moves().any(|moved| moved.from == from && moved.units > Units::default()) {
            return Units::default();
        }
        let received = moves().filter(|moved| moved.to == to).map(|moved| moved.units.0);
        Units(received.fold(U256::ZERO, U256::saturating_add))
    }
}

impl Endpoint {
    /// Returns the receipt of a transaction, if it is mined.
    ///
    /// # Errors
    /// When the endpoint fails.
    pub async fn receipt(&self, hash: [u8; 32]) -> Result<Option<Receipt>, ChainError> {
        self.verify().await?;
        let found = self.provider.raw_request(GET_RECEIPT.into(), (B256::from(hash),)).await;
        let found: Option<RawReceipt> = self.record_outcome(found)?;
        Ok(found.and_then(RawReceipt::parse))
    }
}

impl RawReceipt {
    /// What was paid for gas, and on an OP-stack chain for the data on L1 and to the operator.
    fn fee(&self) -> Wei {
        let scaled = self.gas_used.saturating_mul(self.operator_fee_scalar.unwrap_or_default());
        let by_gas = match self.da_footprint_gas_scalar {
            Some(_) => scaled.saturating_mul(U256::from(100)),
            None => scaled / U256::from(1_000_000),
        };
        let gas = self.gas_used.saturating_mul(self.effective_gas_price);
        let others = [self.l1_fee, self.operator_fee_constant, Some(by_gas)];
        Wei(others.into_iter().flatten().fold(gas, U256::saturating_add))
    }

    /// `None` without a valid block number: the transaction is still pending.
    pub(super) fn parse(self) -> Option<Receipt> {
        let moves = self.logs.iter();
        let moves = moves.filter_map(|log| TokenMove::parse(log.address(), &log.inner.data));
        Some(Receipt {
            block: self.block_number?.try_into().ok()?,
            block_hash: self.block_hash?.0,
            fee: self.fee(),
            success: self.status == Some(U256::ONE),
            moves: moves.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payment_may_be_routed_through_an_intermediary() {
        let [us, token, ann, bob, between, other] =
            [1, 2, 3, 4, 5, 6].map(|byte| [byte; 20].into());
        let usdc = Token { symbol: "USDC".parse().unwrap(), address: token, decimals: 6 };
        let moved = |token, from, to, units: u64| TokenMove {
            token,
            from,
            to,
            units: Units(U256::from(units)),
        };
        let arrived = |moves: &[TokenMove]| {
            let (fee, moves) = (Wei::default(), moves.to_vec());
            let receipt = Receipt { block: 1, block_hash: [1; 32], fee, success: true, moves };
            receipt.arrived(&usdc, ann, bob)
        };
        let units = |units: u64| Units(U256::from(units));
        assert_eq!(arrived(&[moved(token, ann, bob, 9), moved(token, ann, between, 1)]), units(9));
        assert_eq!(
            arrived(&[moved(token, ann, between, 10), moved(token, between, bob, 9)]),
            units(9)
        );
        // Kept by the intermediary, paid by another sender, nothing, another token.
        assert_eq!(arrived(&[moved(token, ann, between, 10)]), units(0));
        assert_eq!(arrived(&[moved(token, us, bob, 10)]), units(0));
        assert_eq!(arrived(&[moved(token, ann, bob, 0), moved(token, us, bob, 10)]), units(0));
        assert_eq!(arrived(&[moved(other, ann, bob, 10)]), units(0));
    }
}
