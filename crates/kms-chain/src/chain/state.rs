//! The state of the newest block, as one endpoint reports it: of a sender, and of everything that a
//! quote depends on.
//!
//! All of it is the state of one block, by its hash (EIP-1898): behind one URL may be several nodes
//! at different blocks, and a node that does not have this block refuses to answer.

use std::sync::atomic::Ordering;

use alloy::eips::{BlockId, BlockNumberOrTag, RpcBlockHash};
use alloy::primitives::{Address, Bytes, U64, U128};
use alloy::providers::Provider;
use alloy::rpc::types::FeeHistory;
use kms_types::{EthAddress, Token, U256, Units, Wei};
use serde_json::json;

use super::batch::{Answers, Calls, Place};
use super::data_fee::DataFeeCalls;
use super::endpoint::{Endpoint, no_latest_block};
use super::error::{ChainError, INVALID_PARAMETERS};
use super::gas::{GasCalls, PlannedPayment};
use super::requests::{Code, Head, MARKET_BLOCKS};
use super::tokens::{TokenCalls, TokenMetadata};
use crate::ports::ChainView;
use crate::prices::{self, Market};

/// How often the state of the newest block is requested: behind one URL may be nodes of which one
/// does not have the newest block of another one.
const BLOCK_ATTEMPTS: u32 = 3;

/// The percentiles of the tips in a block that the steps of a ladder start from.
const PERCENTILES: [f64; 3] = [50.0, 75.0, 90.0];

/// What is asked for a quote.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) from: EthAddress,
    pub(crate) to: EthAddress,
    /// The token; `None` for the native coin.
    pub(crate) token: Option<&'a Token>,
    /// The amount, if it is known before the balance is.
    pub(crate) value: Option<Units>,
}

/// What a quote depends on.
#[derive(Debug)]
pub(crate) struct Survey {
    /// The block that all of it is the state of.
    pub(crate) at: BlockId,
    /// The sender's balance of the native coin.
    pub(crate) balance: Wei,
    /// The sender's count of mined transactions.
    pub(crate) mined: u64,
    /// The token's contract and the sender's balance of it.
    pub(crate) token: Option<(TokenMetadata, Units)>,
    pub(crate) code: Code,
    pub(crate) market: Market,
    /// What the chain takes in addition to gas, at most, at current prices.
    pub(crate) data_fee: Wei,
    /// The gas limit, or why the node estimates none; `None` if the amount is not known yet.
    pub(crate) gas_limit: Option<Result<u64, ChainError>>,
}

/// The calls for what transactions in the latest blocks paid.
enum PriceCalls {
    Dynamic { base_fee: u64, history: Place<FeeHistory> },
    Legacy(Place<U128>),
}

impl Question<'_> {
    /// The payment of this amount.
    pub(crate) fn payment(&self, value: Units) -> PlannedPayment {
        let token = self.token.map(|token| token.address);
        PlannedPayment { from: self.from, to: self.to, token, value }
    }
}

impl PriceCalls {
    fn add(calls: &mut Calls, head: Head) -> Self {
        let Some(base_fee) = head.base_fee else {
            return Self::Legacy(calls.add("eth_gasPrice", json!([])));
        };
        let (blocks, newest) = (U64::from(MARKET_BLOCKS), BlockNumberOrTag::Number(head.block));
        let history = calls.add("eth_feeHistory", json!([blocks, newest, PERCENTILES]));
        Self::Dynamic { base_fee, history }
    }

    fn market(self, of: &Endpoint, answers: &mut Answers) -> Result<Market, ChainError> {
        let (base_fee, history) = match self {
            Self::Legacy(price) => {
                let price: u128 = of.record_outcome(answers.take(price))?.to();
                return Ok(Market::Legacy { price });
            }
            Self::Dynamic { base_fee, history } => {
                (base_fee.into(), of.record_outcome(answers.take(history))?)
            }
        };
        let rewards = history.reward.unwrap_or_default();
        let included: Vec<_> = (rewards.iter().zip(&history.gas_used_ratio))
            .filter_map(|(rewards, used)| (*used > 0.0).then_some(rewards))
            .collect();
        let tip = |index: usize| {
            let tips = included.iter().filter_map(|rewards| rewards.get(index).copied()).collect();
            prices::middle(tips).unwrap_or_default()
        };
        Ok(Market::Dynamic { base_fee, tips: [tip(0), tip(1), tip(2)] })
    }
}

impl Endpoint {
    /// Returns the state of a sender by this endpoint alone; see
    /// [`Chain::view`](crate::Chain::view).
    ///
    /// The pending transaction count is requested twice, apart, and the lower answer is used: a
    /// nonce that is too low is refused by the chain or by the wallet's other transfers, one that
    /// is too high would wait forever.
    pub(crate) async fn view(
        &self,
        owner: EthAddress,
        token: Option<&Token>,
    ) -> Result<ChainView, ChainError> {
        self.at_newest(|head, at| self.view_at(owner, token, head.block, at)).await
    }

    /// Returns everything that a quote depends on, in one batch, by this endpoint alone.
    pub(crate) async fn survey(&self, question: &Question<'_>) -> Result<Survey, ChainError> {
        self.at_newest(|head, at| self.survey_at(question, head, at)).await
    }

    /// Returns what transactions in the latest blocks paid.
    ///
    /// # Errors
    /// When the endpoint fails.
    pub async fn market(&self) -> Result<Market, ChainError> {
        let market_at = |head, _at| async move {
            let mut calls = Calls::default();
            let prices = PriceCalls::add(&mut calls, head);
            prices.market(self, &mut self.send(calls).await?)
        };
        self.at_newest(market_at).await
    }

    /// Asks for the state of the newest block, and again for a newer one if the node that answers
    /// does not have that.
    async fn at_newest<T, Answer>(
        &self,
        ask: impl Fn(Head, BlockId) -> Answer,
    ) -> Result<T, ChainError>
    where
        Answer: Future<Output = Result<T, ChainError>>,
    {
        let mut lagging = None;
        for _ in 0..BLOCK_ATTEMPTS {
            match self.at_head(&ask).await {
                Err(error @ ChainError::NoBlock { .. }) => lagging = Some(error),
                answer => return answer,
            }
        }
        Err(lagging.unwrap_or_else(no_latest_block))
    }

    async fn at_head<T, Answer>(
        &self,
        ask: &impl Fn(Head, BlockId) -> Answer,
    ) -> Result<T, ChainError>
    where
        Answer: Future<Output = Result<T, ChainError>>,
    {
        let head = self.head().await?;
        if !self.lacks_block_hashes.load(Ordering::Relaxed) {
            let by_hash = RpcBlockHash::from_hash(head.hash.into(), Some(true));
            match ask(head, by_hash.into()).await {
                Err(ChainError::Refused { code: INVALID_PARAMETERS, .. }) => {}
                answer => return answer,
            }
        }
        // The endpoint does not implement EIP-1898. The block with this number must then be the
        // same one afterwards.
        let answer = ask(head, BlockId::number(head.block)).await?;
        if self.header(head.block).await?.is_none_or(|header| header.hash.0 != head.hash) {
            let message = "the block was removed while it was read".to_owned();
            return Err(ChainError::NoBlock { code: 0, message });
        }
        self.lacks_block_hashes.store(true, Ordering::Relaxed);
        Ok(answer)
    }

    async fn view_at(
        &self,
        owner: EthAddress,
        token: Option<&Token>,
        block: u64,
        at: BlockId,
    ) -> Result<ChainView, ChainError> {
        let address = Address::from(owner);
        let mut calls = Calls::default();
        let balance: Place<U256> = calls.add("eth_getBalance", json!([address, at]));
        let mined: Place<U64> = calls.add("eth_getTransactionCount", json!([address, at]));
        let pending: Place<U64> = calls.add("eth_getTransactionCount", json!([address, "pending"]));
        let token = token.map(|token| TokenCalls::balance(&mut calls, token, owner, at));
        let again = self.provider.get_transaction_count(address).pending().into_future();
        let (answers, again) = tokio::join!(self.send(calls), again);
        let mut answers = answers?;
        let balance = Wei(self.record_outcome(answers.take(balance))?);
        let mined: u64 = self.record_outcome(answers.take(mined))?.to();
        let pending: u64 = self.record_outcome(answers.take(pending))?.to();
        let nonce = pending.min(self.record_outcome(again)?);
        let token = token.map(|balance| self.token_units(&mut answers, balance)).transpose()?;
        // A count that is too low makes more transfers count against the balance.
        let (mined, token) = (mined.min(nonce), token.unwrap_or_default());
        Ok(ChainView { block, balance, token, nonce, mined })
    }

    async fn survey_at(
        &self,
        question: &Question<'_>,
        head: Head,
        at: BlockId,
    ) -> Result<Survey, ChainError> {
        let Question { from, to, token, value } = *question;
        let (address, mut calls) = (Address::from(from), Calls::default());
        let balance: Place<U256> = calls.add("eth_getBalance", json!([address, at]));
        let mined: Place<U64> = calls.add("eth_getTransactionCount", json!([address, at]));
        let code: Place<Bytes> = calls.add("eth_getCode", json!([Address::from(to), at]));
        let token = token.map(|token| TokenCalls::add(&mut calls, token, from, at));
        let prices = PriceCalls::add(&mut calls, head);
        let data_fee = DataFeeCalls::add(&mut calls, at);
        let gas = value.map(|value| GasCalls::add(&mut calls, &question.payment(value), at));
        let answers = &mut self.send(calls).await?;
        let balance = Wei(self.record_outcome(answers.take(balance))?);
        let mined: u64 = self.record_outcome(answers.take(mined))?.to();
        let code = Code::of(&self.record_outcome(answers.take(code))?);
        let token = token.map(|token| token.state(self, answers)).transpose()?;
        let market = prices.market(self, answers)?;
        let data_fee = data_fee.fee(self, answers)?;
        let gas_limit = match gas.map(|gas| gas.limit(self, answers)) {
            Some(Err(
                error @ (ChainError::NoBlock { .. }
                | ChainError::Refused { code: INVALID_PARAMETERS, .. }),
            )) => return Err(error),
            gas_limit => gas_limit,
        };
        Ok(Survey { at, balance, mined, token, code, market, data_fee, gas_limit })
    }
}
