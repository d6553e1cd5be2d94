//! One endpoint of a chain. Never used before it said which chain it is of and how new its newest
//! block is, nor after a failure, or after a while, before it said so again.

use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use alloy::consensus::BlockHeader;
use alloy::eips::BlockNumberOrTag;
use alloy::network::{Ethereum, TransactionBuilder};
use alloy::primitives::{Address, B256};
use alloy::providers::{Provider, ProviderBuilder, RootProvider};
use alloy::rpc::types::{Log, TransactionRequest};
use alloy::transports::{RpcError, TransportError};
use kms_core::failpoint;
use kms_types::{EthAddress, Timestamp, Token, U256, Units, Wei};
use serde::Deserialize;

use super::{ChainError, Head, MOST_GAS, PLAIN_TRANSFER_GAS, Receipt, TokenMove};
use crate::ports::ChainView;
use crate::transfer::Fees;

/// After a failure the others are asked first, for this long.
const REST: Duration = Duration::from_secs(10);

/// For this long it is believed that an endpoint is of this chain and follows it, unless it counts
/// as stalled sooner.
pub(super) const LOOK: Duration = Duration::from_secs(30);

/// An endpoint whose newest block is this much older than that of another one is behind. More than
/// the time from one look to the next and some blocks.
const BEHIND: Duration = Duration::from_secs(120);

/// What an endpoint said of itself.
#[derive(Clone, Copy)]
struct Look {
    at: Instant,
    /// When its newest block was made, if that is asked.
    newest: Option<Timestamp>,
}

/// One endpoint.
pub(crate) struct Node {
    pub(super) provider: RootProvider<Ethereum>,
    chain_id: u64,
    /// Its place in the configuration, counted from 1: its URL may hold a key.
    number: usize,
    /// A newest block that is older than this is not that of the chain.
    stalled_after: Option<Duration>,
    /// What it said of itself since its last failure.
    looked: Mutex<Option<Look>>,
    /// When it failed last, if nothing worked since.
    failed: Mutex<Option<Instant>>,
    /// Whether Multicall3 was found on it.
    pub(super) multicall: AtomicBool,
}

impl Node {
    pub(super) fn new(
        url: &str,
        number: usize,
        chain_id: u64,
        timeout: Duration,
        stalled_after: Option<Duration>,
    ) -> Result<Self, ChainError> {
        let url: reqwest::Url = url.parse().map_err(|_secret| ChainError::Url)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(ChainError::Url);
        }
        // Fails only if one is installed, and then there is nothing to do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(timeout)
            .connect_timeout(timeout)
            // Signed bytes go to the endpoint that was configured, and to no other.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|_cause| ChainError::Client)?;
        let provider = ProviderBuilder::<_, _, Ethereum>::default().connect_reqwest(client, url);
        Ok(Self {
            provider,
            chain_id,
            number,
            stalled_after,
            looked: Mutex::default(),
            failed: Mutex::default(),
            multicall: AtomicBool::new(false),
        })
    }

    /// The number of the latest block.
    ///
    /// # Errors
    /// When the endpoint does not answer, or is of another chain.
    pub(crate) async fn block_number(&self) -> Result<u64, ChainError> {
        self.verify().await?;
        self.told(self.provider.get_block_number().await)
    }

    /// The latest block's number and base fee.
    ///
    /// # Errors
    /// When the endpoint does not answer, or is of another chain.
    pub(crate) async fn head(&self) -> Result<Head, ChainError> {
        self.verify().await?;
        let latest = self.provider.get_block_by_number(BlockNumberOrTag::Latest).await;
        let header = self.told(latest)?.ok_or_else(no_block)?.header;
        Ok(Head { block: header.number(), base_fee: header.base_fee_per_gas() })
    }

    /// How many transactions of the address are in blocks.
    ///
    /// # Errors
    /// When the endpoint does not answer, or is of another chain.
    pub(crate) async fn mined(&self, address: EthAddress) -> Result<u64, ChainError> {
        self.verify().await?;
        self.told(self.provider.get_transaction_count(address.into()).latest().await)
    }

    /// How many were, when this block was the latest.
    ///
    /// # Errors
    /// When the endpoint does not answer, does not know any more, or is of another chain.
    pub(crate) async fn mined_at(
        &self,
        address: EthAddress,
        block: u64,
    ) -> Result<u64, ChainError> {
        self.verify().await?;
        self.told(self.provider.get_transaction_count(address.into()).number(block).await)
    }

    /// Balance, transaction count (pending ones included), and a block not newer than they are; of
    /// a token too, if one is asked for.
    ///
    /// The count is asked for twice, and the lower is taken: a nonce that is too low is refused by
    /// the chain or by the wallet's other transfers, and one that is too high would wait for ever.
    ///
    /// # Errors
    /// `NotAToken` when the token's contract does not say; else when the endpoint does not answer,
    /// or is of another chain.
    pub(crate) async fn view(
        &self,
        owner: EthAddress,
        token: Option<&Token>,
    ) -> Result<ChainView, ChainError> {
        let address = Address::from(owner);
        // Before and after the balance: what is in a block at both times is in it in between.
        let (block, before) = tokio::try_join!(self.block_number(), self.mined(owner))?;
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
        let nonce = self.told(nonce)?.min(self.told(again)?);
        let (balance, token) = (Wei(self.told(balance)?), token?);
        let mined = before.min(self.mined(owner).await?);
        Ok(ChainView { block, balance, token, nonce, mined })
    }

    /// Prices that stay sufficient while the base fee doubles.
    ///
    /// # Errors
    /// `NoBaseFee` on a chain without EIP-1559; else when the endpoint does not answer, or is of
    /// another chain.
    pub(crate) async fn fees(&self) -> Result<Fees, ChainError> {
        self.verify().await?;
        let (latest, tip) = tokio::join!(
            self.provider.get_block_by_number(BlockNumberOrTag::Latest).into_future(),
            self.provider.get_max_priority_fee_per_gas(),
        );
        let base = self
            .told(latest)?
            .and_then(|block| block.header.base_fee_per_gas())
            .ok_or(ChainError::NoBaseFee)?;
        let tip = self.told(tip)?;
        let max_fee_per_gas = u128::from(base).saturating_mul(2).saturating_add(tip);
        Ok(Fees { max_fee_per_gas, max_priority_fee_per_gas: tip })
    }

    /// Whether the address has code.
    ///
    /// # Errors
    /// When the endpoint does not answer, or is of another chain.
    pub(crate) async fn is_contract(&self, address: EthAddress) -> Result<bool, ChainError> {
        self.verify().await?;
        Ok(!self.told(self.provider.get_code_at(address.into()).await)?.is_empty())
    }

    /// Gas for sending `value`: exact for an address without code, else the node's estimate and a
    /// fifth more, and never less than the chain takes.
    ///
    /// # Errors
    /// `Reverted` when the recipient's contract would refuse it, or takes more gas than an honest
    /// one; else when the endpoint does not
    /// answer, or is of another chain.
    pub(crate) async fn gas(
        &self,
        from: EthAddress,
        to: EthAddress,
        value: Wei,
        contract: bool,
    ) -> Result<u64, ChainError> {
        if !contract {
            return Ok(PLAIN_TRANSFER_GAS);
        }
        self.verify().await?;
        let request = TransactionRequest::default()
            .with_from(from.into())
            .with_to(to.into())
            .with_value(value.0);
        let estimate = self.told_of_code(self.provider.estimate_gas(request).await)?;
        within_reason(with_margin(estimate).max(PLAIN_TRANSFER_GAS))
    }

    /// Sends signed bytes.
    ///
    /// # Errors
    /// `Refused` also when the node has the transaction, or a later nonce, already: what became
    /// of it is found by looking for its hash, not in the node's words.
    pub(crate) async fn broadcast(&self, signed: &[u8]) -> Result<(), ChainError> {
        self.verify().await?;
        let sent = self.provider.send_raw_transaction(signed).await;
        // That it refuses these bytes says nothing of the node.
        sent.map(drop).map_err(|error| match error {
            RpcError::ErrorResp(payload) => ChainError::refused(&payload),
            error => self.failed_with(error.into()),
        })
    }

    /// Whether the node knows the transaction, in a block or not.
    ///
    /// # Errors
    /// When the endpoint does not answer, or is of another chain.
    pub(crate) async fn knows(&self, hash: [u8; 32]) -> Result<bool, ChainError> {
        self.verify().await?;
        let found = self.provider.get_transaction_by_hash(B256::from(hash)).await;
        Ok(self.told(found)?.is_some())
    }

    /// What became of the transaction, if it is in a block.
    ///
    /// # Errors
    /// When the endpoint does not answer, or is of another chain.
    pub(crate) async fn receipt(&self, hash: [u8; 32]) -> Result<Option<Receipt>, ChainError> {
        self.verify().await?;
        let found = self.provider.raw_request(RECEIPT.into(), (B256::from(hash),)).await;
        let found: Option<RawReceipt> = self.told(found)?;
        Ok(found.and_then(|receipt| {
            let fee = receipt.gas_used.saturating_mul(receipt.effective_gas_price);
            let block = receipt.block_number?.try_into().ok()?;
            let success = receipt.status == Some(U256::ONE);
            let logs = receipt.logs.iter();
            let moves = logs.filter_map(|log| TokenMove::of(log.address(), &log.inner.data));
            Some(Receipt { block, fee: Wei(fee), success, moves: moves.collect() })
        }))
    }

    pub(super) async fn verify(&self) -> Result<(), ChainError> {
        failpoint::reach("rpc-before");
        let believed = self.stalled_after.map_or(LOOK, |bound| bound.min(LOOK));
        if self.last_look().is_some_and(|look| look.at.elapsed() < believed) {
            return Ok(());
        }
        self.look().await
    }

    /// Asks which chain it is of, and how new its newest block is.
    pub(super) async fn look(&self) -> Result<(), ChainError> {
        let at = Instant::now();
        let (found, newest) =
            tokio::join!(self.provider.get_chain_id().into_future(), self.ask_newest());
        let found = self.told(found)?;
        if found != self.chain_id {
            let wrong = ChainError::WrongChain { expected: self.chain_id, found };
            return Err(self.failed_with(wrong));
        }
        *self.last_look() = Some(Look { at, newest: newest? });
        if self.failure().take().is_some() {
            tracing::info!(endpoint = self.number, "an endpoint of the chain is back");
        }
        Ok(())
    }

    /// When its newest block was made, which is not in the future whatever it says.
    async fn ask_newest(&self) -> Result<Option<Timestamp>, ChainError> {
        let Some(bound) = self.stalled_after else { return Ok(None) };
        let latest = self.provider.get_block_by_number(BlockNumberOrTag::Latest).await;
        let made = self.told(latest)?.ok_or_else(no_block)?.header.timestamp();
        let (now, made) = (now(), Timestamp(0).plus(Duration::from_secs(made)));
        let age = now.since(made);
        if age > bound {
            return Err(self.failed_with(ChainError::Stalled { seconds: age.as_secs() }));
        }
        Ok(Some(made.min(now)))
    }

    /// When its newest block was made, as far as is known.
    pub(super) fn newest(&self) -> Option<Timestamp> {
        self.last_look().and_then(|look| look.newest)
    }

    /// Whether its newest block is much older than this.
    pub(super) fn is_behind(&self, newest: Option<Timestamp>) -> bool {
        let both = self.newest().zip(newest);
        both.is_some_and(|(own, newest)| own.plus(BEHIND) < newest)
    }

    /// Whether another one should be asked first.
    pub(super) fn rests(&self) -> bool {
        self.failure().is_some_and(|failed| failed.elapsed() < REST)
    }

    /// After a failure another node may stand behind the URL.
    pub(super) fn told<T>(&self, answer: Result<T, TransportError>) -> Result<T, ChainError> {
        failpoint::reach("rpc-after");
        answer.map_err(|error| {
            let error = ChainError::from(error);
            if error.is_of_the_endpoint() { self.failed_with(error) } else { error }
        })
    }

    /// The same of a call that runs a contract's code: an error that the node answers with may be the
    /// contract's doing, so the next endpoint is asked, and this one goes on being used.
    pub(super) fn told_of_code<T>(
        &self,
        answer: Result<T, TransportError>,
    ) -> Result<T, ChainError> {
        match answer {
            Err(error @ RpcError::ErrorResp(_)) => {
                failpoint::reach("rpc-after");
                Err(error.into())
            }
            answer => self.told(answer),
        }
    }

    fn failed_with(&self, error: ChainError) -> ChainError {
        self.fails(&error);
        error
    }

    fn fails(&self, error: &ChainError) {
        *self.last_look() = None;
        if self.failure().replace(Instant::now()).is_none() {
            let endpoint = self.number;
            tracing::error!(endpoint, %error, "an endpoint of the chain can not be used");
        }
    }

    fn failure(&self) -> MutexGuard<'_, Option<Instant>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last_look(&self) -> MutexGuard<'_, Option<Look>> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A receipt as far as it is needed, so that those of kinds that only some chains have (deposits of
/// a rollup, for instance) can be read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawReceipt {
    block_number: Option<U256>,
    status: Option<U256>,
    gas_used: U256,
    #[serde(default)]
    effective_gas_price: U256,
    #[serde(default)]
    logs: Vec<Log>,
}

const RECEIPT: &str = "eth_getTransactionReceipt";

/// A payment's gas, if it is not more than an honest contract takes.
pub(super) fn within_reason(gas: u64) -> Result<u64, ChainError> {
    if gas <= MOST_GAS {
        return Ok(gas);
    }
    Err(ChainError::Reverted { reason: format!("the contract would use {gas} gas") })
}

/// What is needed may be a little more when the payment is mined.
pub(super) fn with_margin(gas: u64) -> u64 {
    gas.saturating_add(gas / 5)
}

/// By the machine's clock, which the server keeps right.
#[expect(clippy::disallowed_methods, reason = "the age of a block is known by no other clock")]
fn now() -> Timestamp {
    SystemTime::now().into()
}

fn no_block() -> ChainError {
    ChainError::Unavailable("no latest block".to_owned())
}
