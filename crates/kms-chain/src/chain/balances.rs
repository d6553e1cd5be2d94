//! Balances of a wallet, all in one request: through the Multicall3 contract on chains that have
//! it, else in a JSON-RPC batch.

use std::sync::atomic::Ordering;

use alloy::eips::{BlockId, RpcBlockHash};
use alloy::primitives::{Address, Bytes, U256, address};
use alloy::providers::Provider;
use alloy::rpc::client::BatchRequest;
use alloy::sol_types::SolCall;
use kms_types::{EthAddress, Token, Units, Wei};
use serde_json::json;

use super::batch::Calls;
use super::blocks::BlockRef;
use super::endpoint::Endpoint;
use super::error::{ChainError, INVALID_PARAMETERS};
use super::tokens::{Erc20, call, parse_word};

alloy::sol! {
    interface Multicall3 {
        struct Call3 { address target; bool allowFailure; bytes callData; }
        struct Result { bool success; bytes returnData; }
        function aggregate3(Call3[] calls) external payable returns (Result[] results);
        function getEthBalance(address owner) external view returns (uint256 balance);
    }
}

/// The address of Multicall3 on every chain that has it.
const MULTICALL3: Address = address!("0xcA11bde05977b3631167028862bE2a173976CA11");

/// How many requests one batch has: providers allow a hundred and more.
const BATCH: usize = 100;

/// The balances of a wallet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balances {
    /// A block that is not newer than the balances.
    pub block: u64,
    /// The balance of the native coin.
    pub wei: Wei,
    /// The balances of the tokens, in the order of the request; `None` where the contract does not
    /// answer as an ERC-20 token.
    pub tokens: Vec<Option<Units>>,
}

impl Endpoint {
    /// Returns the balances of the native coin and of these tokens.
    ///
    /// # Errors
    /// When the endpoint fails.
    pub async fn balances(
        &self,
        owner: EthAddress,
        tokens: &[Token],
    ) -> Result<Balances, ChainError> {
        let block = self.block_number().await?;
        if tokens.is_empty() {
            let wei = self.provider.get_balance(owner.into()).await;
            return Ok(Balances { block, wei: Wei(self.record_outcome(wei)?), tokens: Vec::new() });
        }
        if self.has_multicall().await?
            && let Some((wei, tokens)) = self.balances_by_multicall(owner, tokens).await?
        {
            return Ok(Balances { block, wei, tokens });
        }
        let (wei, tokens) = self.balances_by_batch(owner, tokens).await?;
        Ok(Balances { block, wei, tokens })
    }

    /// Returns the native balances of these wallets at a block: by its hash, or, where the endpoint
    /// does not implement EIP-1898, by its number, if it is the same block afterwards.
    ///
    /// # Errors
    /// When the endpoint fails, does not have the block, or has pruned the state at it.
    pub(crate) async fn balances_at(
        &self,
        owners: &[EthAddress],
        at: BlockRef,
    ) -> Result<Vec<Wei>, ChainError> {
        if owners.is_empty() {
            return Ok(Vec::new());
        }
        self.verify().await?;
        if !self.lacks_block_hashes.load(Ordering::Relaxed) {
            let by_hash = RpcBlockHash::from_hash(at.hash.into(), Some(true));
            match self.native_balances(owners, by_hash.into()).await {
                Err(ChainError::Refused { code: INVALID_PARAMETERS, .. }) => {}
                answer => return answer,
            }
        }
        let balances = self.native_balances(owners, BlockId::number(at.number)).await?;
        match self.header(at.number).await? {
            Some(header) if header.hash.0 == at.hash => Ok(balances),
            _ => Err(ChainError::Unconfirmed { block: at.number }),
        }
    }

    async fn native_balances(
        &self,
        owners: &[EthAddress],
        at: BlockId,
    ) -> Result<Vec<Wei>, ChainError> {
        if self.has_multicall().await?
            && let Some(balances) = self.native_by_multicall(owners, at).await?
        {
            return Ok(balances);
        }
        let mut balances = Vec::with_capacity(owners.len());
        for owners in owners.chunks(BATCH) {
            let mut calls = Calls::default();
            let call = |owner: &EthAddress| {
                calls.add::<U256>("eth_getBalance", json!([Address::from(*owner), at]))
            };
            let places: Vec<_> = owners.iter().map(call).collect();
            let mut answers = self.send(calls).await?;
            for place in places {
                balances.push(Wei(self.record_call_outcome(answers.take(place))?));
            }
        }
        Ok(balances)
    }

    /// `None` if the contract does not answer for all of them, for instance at a block before it
    /// was made.
    async fn native_by_multicall(
        &self,
        owners: &[EthAddress],
        at: BlockId,
    ) -> Result<Option<Vec<Wei>>, ChainError> {
        let calls = owners.iter().map(|owner| native_call((*owner).into())).collect();
        let calls = Multicall3::aggregate3Call { calls }.abi_encode();
        let answer = self.provider.call(call(MULTICALL3, calls)).block(at).await;
        let answer = match self.record_call_outcome(answer) {
            Ok(answer) => answer,
            Err(ChainError::Reverted { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let results = Multicall3::aggregate3Call::abi_decode_returns(&answer).unwrap_or_default();
        let found = results.into_iter().map(|result| {
            result.success.then(|| parse_word(&result.returnData)).flatten().map(Wei)
        });
        let found: Option<Vec<_>> = found.collect();
        Ok(found.filter(|found| found.len() == owners.len()))
    }

    async fn has_multicall(&self) -> Result<bool, ChainError> {
        if !self.has_multicall.load(Ordering::Relaxed) {
            let code = self.record_outcome(self.provider.get_code_at(MULTICALL3).await)?;
            self.has_multicall.store(!code.is_empty(), Ordering::Relaxed);
        }
        Ok(self.has_multicall.load(Ordering::Relaxed))
    }

    /// `None` if the call as a whole fails: a token that uses up all gas leaves none to the others.
    async fn balances_by_multicall(
        &self,
        owner: EthAddress,
        tokens: &[Token],
    ) -> Result<Option<(Wei, Vec<Option<Units>>)>, ChainError> {
        let calls = multicall(owner.into(), tokens).abi_encode();
        let answer = self.provider.call(call(MULTICALL3, calls)).latest().await;
        let answer = match self.record_outcome(answer) {
            Ok(answer) => answer,
            Err(ChainError::Reverted { .. } | ChainError::Refused { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Ok(results) = Multicall3::aggregate3Call::abi_decode_returns(&answer) else {
            return Ok(None);
        };
        let mut results = results
            .into_iter()
            .map(|result| result.success.then(|| parse_word(&result.returnData)).flatten());
        let Some(Some(wei)) = results.next() else { return Ok(None) };
        let found: Vec<_> = results.map(|units| units.map(Units)).collect();
        Ok((found.len() == tokens.len()).then_some((Wei(wei), found)))
    }

    async fn balances_by_batch(
        &self,
        owner: EthAddress,
        tokens: &[Token],
    ) -> Result<(Wei, Vec<Option<Units>>), ChainError> {
        let owner = Address::from(owner);
        let mut batch = BatchRequest::new(self.provider.client());
        let native = batch.add_call::<_, U256>("eth_getBalance", &(owner, "latest"));
        let native = self.record_outcome(native)?;
        let mut waiting = Vec::with_capacity(tokens.len());
        for token in tokens {
            let balance = Erc20::balanceOfCall { owner }.abi_encode();
            let params = (call(token.address.into(), balance), "latest");
            waiting.push(self.record_outcome(batch.add_call::<_, Bytes>("eth_call", &params))?);
        }
        self.record_outcome(batch.send().await)?;
        let wei = Wei(self.record_outcome(native.await)?);
        let mut found = Vec::with_capacity(tokens.len());
        for answer in waiting {
            found.push(match self.record_outcome(answer.await) {
                Ok(answer) => parse_word(&answer).map(Units),
                // The token's contract failed, not the endpoint.
                Err(ChainError::Reverted { .. }) => None,
                Err(error) => return Err(error),
            });
        }
        Ok((wei, found))
    }
}

/// One call for the native balance, then one for each token; each of them may fail on its own.
fn multicall(owner: Address, tokens: &[Token]) -> Multicall3::aggregate3Call {
    let balance = Erc20::balanceOfCall { owner }.abi_encode();
    let tokens = tokens.iter().map(|token| sub_call(token.address.into(), balance.clone()));
    Multicall3::aggregate3Call {
        calls: std::iter::once(native_call(owner)).chain(tokens).collect(),
    }
}

fn native_call(owner: Address) -> Multicall3::Call3 {
    sub_call(MULTICALL3, Multicall3::getEthBalanceCall { owner }.abi_encode())
}

fn sub_call(target: Address, data: Vec<u8>) -> Multicall3::Call3 {
    Multicall3::Call3 { target, allowFailure: true, callData: data.into() }
}
