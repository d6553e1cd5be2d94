//! ERC-20 tokens.
//!
//! The contract of a token is untrusted code: what it reports is believed of itself only, and none
//! of its texts is shown as if it were ours.

use std::collections::BTreeMap;

use alloy::eips::BlockId;
use alloy::network::TransactionBuilder;
use alloy::primitives::{Address, B256, Bytes, LogData, TxKind};
use alloy::providers::Provider;
use alloy::rpc::types::{Filter, Log, TransactionRequest};
use alloy::sol_types::{SolCall, SolEvent, SolValue};
use kms_types::{EthAddress, Token, U256, Units};

use super::blocks::{BlockRef, Payment};
use super::endpoint::Endpoint;
use super::error::ChainError;
use super::requests::with_margin;

alloy::sol! {
    interface Erc20 {
        function balanceOf(address owner) external view returns (uint256 balance);
        function transfer(address to, uint256 value) external returns (bool done);
        function decimals() external view returns (uint8 decimals);
        function symbol() external view returns (string symbol);
        event Transfer(address indexed from, address indexed to, uint256 value);
    }
}

/// The lowest gas limit of a token transfer, whatever a node estimates.
const MIN_GAS: u64 = 30_000;

/// The least margin over a node's estimate. If the recipient's balance becomes zero before the
/// payment is mined, the payment has to write a new storage slot.
const MIN_MARGIN: u64 = 25_000;

/// A movement of a token, as the token's own log reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenMove {
    /// The contract that logged it.
    pub token: EthAddress,
    /// The sender.
    pub from: EthAddress,
    /// The recipient.
    pub to: EthAddress,
    /// The amount.
    pub units: Units,
}

/// What the contract of a token reports; `None` where it does not follow the standard.
#[derive(Clone, Debug)]
pub(super) struct TokenMetadata {
    pub(super) decimals: Option<u8>,
    pub(super) symbol: Option<String>,
}

impl TokenMove {
    /// `None` for every other log, such as the one of an ERC-721 token.
    pub(super) fn parse(token: Address, log: &LogData) -> Option<Self> {
        let log = Erc20::Transfer::decode_log_data_validate(log).ok()?;
        let (from, to) = (log.from.into(), log.to.into());
        Some(Self { token: token.into(), from, to, units: Units(log.value) })
    }
}

/// The input of a call to a token's contract that pays the recipient.
pub(crate) fn transfer_call(to: EthAddress, units: Units) -> Bytes {
    Erc20::transferCall { to: to.into(), value: units.0 }.abi_encode().into()
}

impl Endpoint {
    /// Returns the balance of a token.
    ///
    /// # Errors
    /// `NotAToken` when the contract does not return one, or when the endpoint fails.
    pub async fn token_balance(
        &self,
        token: EthAddress,
        owner: EthAddress,
    ) -> Result<Units, ChainError> {
        self.token_balance_at(token, owner, BlockId::latest()).await
    }

    /// Like [`Endpoint::token_balance`], at a block.
    pub(super) async fn token_balance_at(
        &self,
        token: EthAddress,
        owner: EthAddress,
        at: BlockId,
    ) -> Result<Units, ChainError> {
        let balance = Erc20::balanceOfCall { owner: owner.into() }.abi_encode();
        self.call_token(token, balance, at)
            .await?
            .and_then(|answer| parse_word(&answer))
            .map(Units)
            .ok_or(ChainError::NotAToken)
    }

    pub(super) async fn token_metadata(
        &self,
        token: EthAddress,
    ) -> Result<TokenMetadata, ChainError> {
        let (decimals, symbol) = tokio::try_join!(
            self.call_token(token, Erc20::decimalsCall {}.abi_encode(), BlockId::latest()),
            self.call_token(token, Erc20::symbolCall {}.abi_encode(), BlockId::latest()),
        )?;
        let decimals = decimals.and_then(|answer| parse_word(&answer));
        Ok(TokenMetadata {
            decimals: decimals.and_then(|decimals| decimals.try_into().ok()),
            symbol: symbol.and_then(|answer| String::abi_decode(&answer).ok()),
        })
    }

    /// Returns the gas limit for paying this much of a token: the node's estimate plus a fifth, but
    /// at least 25,000 more than the estimate.
    ///
    /// # Errors
    /// `Reverted` when the contract would revert the payment or returns `false`; or when the
    /// endpoint fails.
    pub async fn token_gas_limit(
        &self,
        token: EthAddress,
        from: EthAddress,
        to: EthAddress,
        units: Units,
    ) -> Result<u64, ChainError> {
        self.verify().await?;
        let request = call(token.into(), transfer_call(to, units)).with_from(from.into());
        let (answer, gas) = tokio::join!(
            self.provider.call(request.clone()).latest().into_future(),
            self.provider.estimate_gas(request).latest().into_future(),
        );
        let gas = self.record_call_outcome(gas)?;
        let gas = with_margin(gas).max(gas.saturating_add(MIN_MARGIN)).max(MIN_GAS);
        let answer = self.record_call_outcome(answer)?;
        // Some tokens return nothing at all.
        if !answer.is_empty() && parse_word(&answer).is_none_or(|done| done == U256::ZERO) {
            let reason = "the token's contract returned false".to_owned();
            return Err(ChainError::Reverted { reason });
        }
        Ok(gas)
    }

    /// Returns what was paid in these tokens in this very block, to any address. The logs of one
    /// transaction for one token and one recipient are one payment.
    pub(crate) async fn token_payments(
        &self,
        block: BlockRef,
        tokens: &[Token],
    ) -> Result<Vec<Payment>, ChainError> {
        self.verify().await?;
        let filter = Filter::new()
            // By hash: a node that does not have this block returns an error instead of no logs.
            .at_block_hash(B256::from(block.hash))
            .address(tokens.iter().map(|token| Address::from(token.address)).collect::<Vec<_>>())
            .event_signature(Erc20::Transfer::SIGNATURE_HASH);
        let logs = self.record_outcome(self.provider.get_logs(&filter).await)?;
        let mut payments = BTreeMap::new();
        for found in logs.iter().filter_map(|log| payment(log, block, tokens)) {
            let key = (found.tx_hash, found.token.as_ref().map(|token| token.address), found.to);
            payments
                .entry(key)
                .and_modify(|sum: &mut Payment| {
                    sum.value = Units(sum.value.0.saturating_add(found.value.0));
                })
                .or_insert(found);
        }
        Ok(payments.into_values().collect())
    }

    /// Calls a contract. Returns `None` if it reverts, or if the address has no code.
    async fn call_token(
        &self,
        token: EthAddress,
        input: Vec<u8>,
        at: BlockId,
    ) -> Result<Option<Bytes>, ChainError> {
        self.verify().await?;
        let answer = self.provider.call(call(token.into(), input)).block(at).await;
        match self.record_call_outcome(answer) {
            Ok(answer) => Ok(Some(answer).filter(|answer| !answer.is_empty())),
            Err(ChainError::Reverted { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The payment that a log reports. `None` for logs that were not requested, which an endpoint could
/// return all the same, and for those of nothing and to oneself.
fn payment(log: &Log, block: BlockRef, tokens: &[Token]) -> Option<Payment> {
    if log.removed || log.block_hash != Some(B256::from(block.hash)) {
        return None;
    }
    let token = tokens.iter().find(|token| Address::from(token.address) == log.address())?;
    let TokenMove { from, to, units, .. } = TokenMove::parse(log.address(), &log.inner.data)?;
    if units == Units::default() || from == to {
        return None;
    }
    Some(Payment {
        tx_hash: log.transaction_hash?.0,
        from,
        to,
        token: Some(token.clone()),
        value: units,
        block: block.number,
    })
}

pub(super) fn call(to: Address, input: impl Into<Bytes>) -> TransactionRequest {
    TransactionRequest::default().with_kind(TxKind::Call(to)).with_input(input)
}

/// Parses an answer that is one number.
pub(super) fn parse_word(answer: &[u8]) -> Option<U256> {
    U256::abi_decode(answer).ok()
}
