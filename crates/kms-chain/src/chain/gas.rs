//! The gas limit of a payment, by a node's estimate of this very payment.

use alloy::eips::BlockId;
use alloy::network::TransactionBuilder;
use alloy::primitives::{Address, Bytes, U64};
use alloy::rpc::types::TransactionRequest;
use kms_types::{EthAddress, U256, Units};
use serde_json::json;

use super::batch::{Answers, Calls, Place};
use super::endpoint::Endpoint;
use super::error::ChainError;
use super::tokens::{call, parse_word, transfer_call};

/// Gas of a transfer to an address without code; no transfer takes less.
pub(crate) const PLAIN_TRANSFER_GAS: u64 = 21_000;

/// The lowest gas limit of a token transfer, whatever a node estimates.
const MIN_TOKEN_GAS: u64 = 30_000;

/// The least margin over a node's estimate of a token transfer. If the recipient's balance becomes
/// zero before the payment is mined, the payment has to write a new storage slot.
const MIN_TOKEN_MARGIN: u64 = 25_000;

/// A payment that is about to be quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedPayment {
    /// The sender.
    pub from: EthAddress,
    /// The recipient.
    pub to: EthAddress,
    /// The token's contract; `None` for the native coin.
    pub token: Option<EthAddress>,
    /// The amount, in the asset's smallest unit.
    pub value: Units,
}

/// The calls that the gas limit of a payment follows from.
pub(super) struct GasCalls {
    is_token: bool,
    estimate: Place<U64>,
    /// What the token's contract returns.
    returned: Option<Place<Bytes>>,
}

impl PlannedPayment {
    fn request(&self) -> TransactionRequest {
        let request = match self.token {
            None => TransactionRequest::default()
                .with_to(Address::from(self.to))
                .with_value(self.value.0),
            Some(token) => call(token.into(), transfer_call(self.to, self.value)),
        };
        request.with_from(self.from.into())
    }
}

impl GasCalls {
    /// Adds the calls for a payment at a block.
    pub(super) fn add(calls: &mut Calls, payment: &PlannedPayment, at: BlockId) -> Self {
        let (request, is_token) = (payment.request(), payment.token.is_some());
        let returned = is_token.then(|| calls.add("eth_call", json!([request, at])));
        let estimate = calls.add("eth_estimateGas", json!([request, at]));
        Self { is_token, estimate, returned }
    }

    /// Returns the limit: of a payment in the native coin exactly 21,000 where the node says so,
    /// else the estimate plus a fifth; of a token, at least 25,000 more than the estimate. A
    /// payment to an address without code takes more on some chains.
    ///
    /// # Errors
    /// `Reverted` when a contract would revert the payment or returns `false`, or when the endpoint
    /// refuses.
    pub(super) fn limit(self, of: &Endpoint, answers: &mut Answers) -> Result<u64, ChainError> {
        let estimate: u64 = of.record_call_outcome(answers.take(self.estimate))?.to();
        if let Some(returned) = self.returned {
            check_returned(&of.record_call_outcome(answers.take(returned))?)?;
        }
        let limit = estimate.saturating_add(estimate / 5);
        Ok(match estimate {
            _ if self.is_token => {
                limit.max(estimate.saturating_add(MIN_TOKEN_MARGIN)).max(MIN_TOKEN_GAS)
            }
            PLAIN_TRANSFER_GAS => PLAIN_TRANSFER_GAS,
            _ => limit.max(PLAIN_TRANSFER_GAS),
        })
    }
}

/// Some tokens return nothing at all.
fn check_returned(returned: &Bytes) -> Result<(), ChainError> {
    if !returned.is_empty() && parse_word(returned).is_none_or(|done| done == U256::ZERO) {
        let reason = "the token's contract returned false".to_owned();
        return Err(ChainError::Reverted { reason });
    }
    Ok(())
}

impl Endpoint {
    /// Returns the gas limit of a payment at the latest block.
    ///
    /// # Errors
    /// `Reverted` when a contract would revert the payment, or when the endpoint fails. What a
    /// contract makes the node answer is not held against the endpoint.
    pub async fn gas_limit(&self, payment: &PlannedPayment) -> Result<u64, ChainError> {
        self.gas_limit_at(payment, BlockId::latest()).await
    }

    /// Like [`Endpoint::gas_limit`], at a block.
    pub(super) async fn gas_limit_at(
        &self,
        payment: &PlannedPayment,
        at: BlockId,
    ) -> Result<u64, ChainError> {
        self.verify().await?;
        let mut calls = Calls::default();
        let gas = GasCalls::add(&mut calls, payment, at);
        gas.limit(self, &mut self.send(calls).await?)
    }
}
