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
use alloy::transports::RpcError;
use kms_types::{EthAddress, Token, U256, Units};
use serde_json::json;

use super::batch::{Answers, Calls, Place};
use super::blocks::{BlockRef, Payment};
use super::endpoint::Endpoint;
use super::error::ChainError;

alloy::sol! {
    interface Erc20 {
        function balanceOf(address owner) external view returns (uint256 balance);
        function transfer(address to, uint256 value) external returns (bool done);
        function decimals() external view returns (uint8 decimals);
        function symbol() external view returns (string symbol);
        function paused() external view returns (bool is_paused);
        event Transfer(address indexed from, address indexed to, uint256 value);
    }
}

/// How many of the newest blocks are searched for a transfer of a token, one after the other: a
/// token in wide use logs hundreds in each, and providers allow 10,000 blocks at once.
const SEARCHED_BLOCKS: [u64; 3] = [2, 200, 9_999];

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
pub(crate) struct TokenMetadata {
    pub(super) decimals: Option<u8>,
    pub(super) symbol: Option<String>,
}

/// The calls for what the contract of a token reports of itself.
struct MetadataCalls {
    decimals: Place<Bytes>,
    symbol: Place<Bytes>,
}

/// The calls for everything about a token that a quote depends on.
pub(super) struct TokenCalls {
    metadata: MetadataCalls,
    balance: Place<Bytes>,
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

impl TokenCalls {
    /// Adds the call for the balance of a token.
    pub(super) fn balance(
        calls: &mut Calls,
        token: &Token,
        owner: EthAddress,
        at: BlockId,
    ) -> Place<Bytes> {
        let balance = Erc20::balanceOfCall { owner: owner.into() }.abi_encode();
        calls.add("eth_call", json!([call(token.address.into(), balance), at]))
    }

    /// Adds the calls for everything about a token that a quote depends on.
    pub(super) fn add(calls: &mut Calls, token: &Token, owner: EthAddress, at: BlockId) -> Self {
        let metadata = MetadataCalls::add(calls, token.address, at);
        Self { metadata, balance: Self::balance(calls, token, owner, at) }
    }

    /// What the contract reports of itself, and the balance: zero of what is not a token.
    pub(super) fn state(
        self,
        of: &Endpoint,
        answers: &mut Answers,
    ) -> Result<(TokenMetadata, Units), ChainError> {
        let metadata = self.metadata.parse(of, answers)?;
        let balance = match metadata.decimals {
            Some(_) => of.token_units(answers, self.balance)?,
            None => Units::default(),
        };
        Ok((metadata, balance))
    }
}

impl MetadataCalls {
    fn add(calls: &mut Calls, token: EthAddress, at: BlockId) -> Self {
        let mut ask =
            |input: Vec<u8>| calls.add("eth_call", json!([call(token.into(), input), at]));
        let decimals = ask(Erc20::decimalsCall {}.abi_encode());
        Self { decimals, symbol: ask(Erc20::symbolCall {}.abi_encode()) }
    }

    fn parse(self, of: &Endpoint, answers: &mut Answers) -> Result<TokenMetadata, ChainError> {
        let decimals = of.contract_answer(answers, self.decimals)?;
        let decimals = decimals.and_then(|answer| parse_word(&answer));
        let symbol = of.contract_answer(answers, self.symbol)?;
        Ok(TokenMetadata {
            decimals: decimals.and_then(|decimals| decimals.try_into().ok()),
            symbol: symbol.and_then(|answer| String::abi_decode(&answer).ok()),
        })
    }
}

impl Endpoint {
    /// Parses the balance of a token.
    ///
    /// # Errors
    /// `NotAToken` when the contract does not return one, or when the endpoint fails.
    pub(super) fn token_units(
        &self,
        answers: &mut Answers,
        balance: Place<Bytes>,
    ) -> Result<Units, ChainError> {
        let balance = self.contract_answer(answers, balance)?;
        let units = balance.and_then(|answer| parse_word(&answer));
        units.map(Units).ok_or(ChainError::NotAToken)
    }

    /// What a contract returned. `None` if it reverted, or if the address has no code.
    pub(super) fn contract_answer(
        &self,
        answers: &mut Answers,
        place: Place<Bytes>,
    ) -> Result<Option<Bytes>, ChainError> {
        match self.record_call_outcome(answers.take(place)) {
            Ok(answer) => Ok(Some(answer).filter(|answer| !answer.is_empty())),
            Err(ChainError::Reverted { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What a token's contract reports of itself, and whether it says that it is paused. Not every
    /// token can be paused.
    pub(super) async fn token_status(
        &self,
        token: EthAddress,
    ) -> Result<(TokenMetadata, bool), ChainError> {
        self.verify().await?;
        let (mut calls, at) = (Calls::default(), BlockId::latest());
        let metadata = MetadataCalls::add(&mut calls, token, at);
        let paused = call(token.into(), Erc20::pausedCall {}.abi_encode());
        let paused = calls.add("eth_call", json!([paused, at]));
        let mut answers = self.send(calls).await?;
        let metadata = metadata.parse(self, &mut answers)?;
        let paused = self.contract_answer(&mut answers, paused)?;
        let is_paused = paused.and_then(|answer| parse_word(&answer)) == Some(U256::ONE);
        Ok((metadata, is_paused))
    }

    /// Whether a transfer in the newest logs of a token can be decoded; `None` if there is none in
    /// the blocks that the endpoint searches at once.
    pub(super) async fn decodes_logs(&self, token: EthAddress) -> Result<Option<bool>, ChainError> {
        let (head, token) = (self.block_number().await?, Address::from(token));
        for blocks in SEARCHED_BLOCKS {
            let filter = Filter::new()
                .from_block(head.saturating_sub(blocks))
                .to_block(head)
                .address(token)
                .event_signature(Erc20::Transfer::SIGNATURE_HASH);
            let logs = match self.provider.get_logs(&filter).await {
                // Too many blocks or logs for this endpoint.
                Err(RpcError::ErrorResp(_)) => return Ok(None),
                logs => self.record_outcome(logs)?,
            };
            let mut logs = logs.iter().filter(|log| log.address() == token).peekable();
            if logs.peek().is_some() {
                return Ok(Some(
                    logs.any(|log| TokenMove::parse(token, &log.inner.data).is_some()),
                ));
            }
        }
        Ok(None)
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
