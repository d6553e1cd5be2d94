//! ERC-20 tokens by JSON-RPC. A token's contract is a stranger's program: nothing that it says is
//! believed of another address, and none of its texts is shown as ours.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use alloy::network::TransactionBuilder;
use alloy::primitives::{Address, B256, Bytes, LogData, TxKind, address};
use alloy::providers::Provider;
use alloy::rpc::client::BatchRequest;
use alloy::rpc::types::{Filter, TransactionRequest};
use alloy::sol_types::{SolCall, SolEvent, SolValue};
use kms_types::{EthAddress, Token, U256, Units, Wei};

use super::ChainError;
use super::node::{Node, with_margin, within_reason};
use crate::follower::{BlockRef, Payment};

alloy::sol! {
    interface Erc20 {
        function balanceOf(address owner) external view returns (uint256 balance);
        function transfer(address to, uint256 value) external returns (bool done);
        function decimals() external view returns (uint8 decimals);
        function symbol() external view returns (string symbol);
        event Transfer(address indexed from, address indexed to, uint256 value);
    }

    interface Multicall3 {
        struct Call3 { address target; bool allowFailure; bytes callData; }
        struct Result { bool success; bytes returnData; }
        function aggregate3(Call3[] calls) external payable returns (Result[] results);
        function getEthBalance(address owner) external view returns (uint256 balance);
    }
}

/// Where Multicall3 is on the chains that have it.
const MULTICALL3: Address = address!("0xcA11bde05977b3631167028862bE2a173976CA11");

/// A token's transfer takes no less, whatever a node says.
const LEAST_GAS: u64 = 30_000;

/// Beside its fifth: a recipient whose balance becomes zero meanwhile makes the payment dearer by
/// the price of a new slot of storage.
const MARGIN: u64 = 25_000;

/// A movement of a token, as the token's own log tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenMove {
    /// The contract that logged it.
    pub token: EthAddress,
    /// Who paid.
    pub from: EthAddress,
    /// Who was paid.
    pub to: EthAddress,
    /// How much.
    pub units: Units,
}

impl TokenMove {
    /// `None` for every other log, those of tokens that are no ERC-20 among them.
    pub(super) fn of(token: Address, log: &LogData) -> Option<Self> {
        let log = Erc20::Transfer::decode_log_data_validate(log).ok()?;
        let (from, to) = (log.from.into(), log.to.into());
        Some(Self { token: token.into(), from, to, units: Units(log.value) })
    }
}

/// What the contract is called with to pay somebody.
pub(crate) fn transfer_call(to: EthAddress, units: Units) -> Bytes {
    Erc20::transferCall { to: to.into(), value: units.0 }.abi_encode().into()
}

/// What a wallet has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balances {
    /// A block that is not newer than the balances.
    pub block: u64,
    /// The native coin.
    pub wei: Wei,
    /// The tokens, in the order in which they were asked for; `None` where a contract does not
    /// answer as a token.
    pub tokens: Vec<Option<Units>>,
}

impl Node {
    /// The native coin and all of these tokens, in one request: through Multicall3 where it is,
    /// else in a batch.
    ///
    /// # Errors
    /// When the endpoint does not answer, or is of another chain.
    pub(crate) async fn balances(
        &self,
        owner: EthAddress,
        tokens: &[Token],
    ) -> Result<Balances, ChainError> {
        let block = self.block_number().await?;
        if tokens.is_empty() {
            let wei = Wei(self.told(self.provider.get_balance(owner.into()).await)?);
            return Ok(Balances { block, wei, tokens: Vec::new() });
        }
        if self.has_multicall().await?
            && let Some((wei, tokens)) = self.aggregated(owner, tokens).await?
        {
            return Ok(Balances { block, wei, tokens });
        }
        let (wei, tokens) = self.batched(owner, tokens).await?;
        Ok(Balances { block, wei, tokens })
    }

    async fn has_multicall(&self) -> Result<bool, ChainError> {
        if !self.multicall.load(Ordering::Relaxed) {
            let code = self.told(self.provider.get_code_at(MULTICALL3).await)?;
            self.multicall.store(!code.is_empty(), Ordering::Relaxed);
        }
        Ok(self.multicall.load(Ordering::Relaxed))
    }

    /// `None` if it does not work out: one token that takes all gas takes it from all.
    async fn aggregated(
        &self,
        owner: EthAddress,
        tokens: &[Token],
    ) -> Result<Option<(Wei, Vec<Option<Units>>)>, ChainError> {
        let owner = Address::from(owner);
        let coin = Multicall3::getEthBalanceCall { owner }.abi_encode();
        let mut calls = vec![Multicall3::Call3 {
            target: MULTICALL3,
            allowFailure: true,
            callData: coin.into(),
        }];
        calls.extend(tokens.iter().map(|token| Multicall3::Call3 {
            target: token.address.into(),
            allowFailure: true,
            callData: Erc20::balanceOfCall { owner }.abi_encode().into(),
        }));
        let request = call(MULTICALL3, Multicall3::aggregate3Call { calls }.abi_encode());
        let answer = match self.told(self.provider.call(request).latest().await) {
            Ok(answer) => answer,
            Err(ChainError::Reverted { .. } | ChainError::Refused { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Ok(results) = Multicall3::aggregate3Call::abi_decode_returns(&answer) else {
            return Ok(None);
        };
        let mut results = results
            .into_iter()
            .map(|result| result.success.then(|| word(&result.returnData)).flatten());
        let Some(Some(wei)) = results.next() else { return Ok(None) };
        let found: Vec<_> = results.map(|units| units.map(Units)).collect();
        Ok((found.len() == tokens.len()).then_some((Wei(wei), found)))
    }

    async fn batched(
        &self,
        owner: EthAddress,
        tokens: &[Token],
    ) -> Result<(Wei, Vec<Option<Units>>), ChainError> {
        let owner = Address::from(owner);
        let mut batch = BatchRequest::new(self.provider.client());
        let coin = self.told(batch.add_call::<_, U256>("eth_getBalance", &(owner, "latest")))?;
        let mut asked = Vec::with_capacity(tokens.len());
        for token in tokens {
            let balance = Erc20::balanceOfCall { owner }.abi_encode();
            let params = (call(token.address.into(), balance), "latest");
            asked.push(self.told(batch.add_call::<_, Bytes>("eth_call", &params))?);
        }
        self.told(batch.send().await)?;
        let wei = Wei(self.told(coin.await)?);
        let mut found = Vec::with_capacity(tokens.len());
        for answer in asked {
            found.push(match self.told(answer.await) {
                Ok(answer) => word(&answer).map(Units),
                // The token's own trouble.
                Err(ChainError::Reverted { .. }) => None,
                Err(error) => return Err(error),
            });
        }
        Ok((wei, found))
    }

    /// How much of a token somebody has.
    ///
    /// # Errors
    /// `NotAToken` when the contract does not say; else when the endpoint does not answer, or is
    /// of another chain.
    pub(crate) async fn token_balance(
        &self,
        token: EthAddress,
        owner: EthAddress,
    ) -> Result<Units, ChainError> {
        let balance = Erc20::balanceOfCall { owner: owner.into() }.abi_encode();
        self.ask_token(token, balance)
            .await?
            .and_then(|answer| word(&answer))
            .map(Units)
            .ok_or(ChainError::NotAToken)
    }

    /// Into how many decimals the contract says that it divides its token, and what it calls it;
    /// `None` for what it does not say as the standard wants it.
    pub(crate) async fn token_words(
        &self,
        token: EthAddress,
    ) -> Result<(Option<u8>, Option<String>), ChainError> {
        let (decimals, symbol) = tokio::try_join!(
            self.ask_token(token, Erc20::decimalsCall {}.abi_encode()),
            self.ask_token(token, Erc20::symbolCall {}.abi_encode()),
        )?;
        let decimals = decimals.and_then(|answer| word(&answer)).and_then(|it| it.try_into().ok());
        Ok((decimals, symbol.and_then(|answer| String::abi_decode(&answer).ok())))
    }

    /// Gas for sending this much of a token: the node's estimate and a fifth more, or 25,000.
    ///
    /// # Errors
    /// `Reverted` when the contract would refuse it, says `false` instead, or takes more gas than
    /// an honest one; else when the endpoint does not answer, or is of another chain.
    pub(crate) async fn token_gas(
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
        let gas = self.told_of_code(gas)?;
        let gas = with_margin(gas).max(gas.saturating_add(MARGIN)).max(LEAST_GAS);
        let answer = self.told_of_code(answer)?;
        // Some tokens answer nothing at all.
        if !answer.is_empty() && word(&answer).is_none_or(|done| done == U256::ZERO) {
            let reason = "the token's contract says no".to_owned();
            return Err(ChainError::Reverted { reason });
        }
        within_reason(gas)
    }

    /// What was paid in these tokens in this very block, to whomever. What one transaction pays
    /// somebody in one token is one payment, whatever the number of its logs.
    pub(crate) async fn token_payments(
        &self,
        block: BlockRef,
        tokens: &[Token],
    ) -> Result<Vec<Payment>, ChainError> {
        self.verify().await?;
        let filter = Filter::new()
            // By its hash: a node that does not have this block says so, instead of nothing.
            .at_block_hash(B256::from(block.hash))
            .address(tokens.iter().map(|token| Address::from(token.address)).collect::<Vec<_>>())
            .event_signature(Erc20::Transfer::SIGNATURE_HASH);
        let mut payments = BTreeMap::new();
        for log in self.told(self.provider.get_logs(&filter).await)? {
            // The endpoint is asked for these, and could answer with others.
            let of_this_block = !log.removed && log.block_hash == Some(B256::from(block.hash));
            let token = tokens.iter().find(|token| Address::from(token.address) == log.address());
            let moved = TokenMove::of(log.address(), &log.inner.data);
            let (Some(token), Some(moved), Some(hash), true) =
                (token, moved, log.transaction_hash, of_this_block)
            else {
                continue;
            };
            let TokenMove { from, to, units, .. } = moved;
            if units == Units::default() || from == to {
                continue;
            }
            let payment = payments.entry((hash, token.address, to)).or_insert_with(|| {
                let (tx_hash, token, value) = (hash.0, Some(token.clone()), Units::default());
                Payment { tx_hash, from, to, token, value, block: block.number }
            });
            payment.value = Units(payment.value.0.saturating_add(units.0));
        }
        Ok(payments.into_values().collect())
    }

    /// What a contract answers; `None` if it refuses, or is none.
    async fn ask_token(
        &self,
        token: EthAddress,
        data: Vec<u8>,
    ) -> Result<Option<Bytes>, ChainError> {
        self.verify().await?;
        let answer = self.provider.call(call(token.into(), data)).latest().await;
        match self.told_of_code(answer) {
            Ok(answer) => Ok(Some(answer).filter(|answer| !answer.is_empty())),
            Err(ChainError::Reverted { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn call(to: Address, data: impl Into<Bytes>) -> TransactionRequest {
    TransactionRequest::default().with_kind(TxKind::Call(to)).with_input(data)
}

/// The one number that an answer is.
fn word(answer: &[u8]) -> Option<U256> {
    U256::abi_decode(answer).ok()
}
