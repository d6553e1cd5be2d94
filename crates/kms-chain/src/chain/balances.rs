//! Balances of a wallet, all in one request: through the Multicall3 contract on chains that have
//! it, else in a JSON-RPC batch.

use std::sync::atomic::Ordering;

use alloy::primitives::{Address, Bytes, U256, address};
use alloy::providers::Provider;
use alloy::rpc::client::BatchRequest;
use alloy::sol_types::SolCall;
use kms_types::{EthAddress, Token, Units, Wei};

use super::endpoint::Endpoint;
use super::error::ChainError;
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
    let call = |target, data: Vec<u8>| Multicall3::Call3 {
        target,
        allowFailure: true,
        callData: data.into(),
    };
    let native = call(MULTICALL3, Multicall3::getEthBalanceCall { owner }.abi_encode());
    let tokens = tokens
        .iter()
        .map(|token| call(token.address.into(), Erc20::balanceOfCall { owner }.abi_encode()));
    Multicall3::aggregate3Call { calls: std::iter::once(native).chain(tokens).collect() }
}
