//! A node of an EVM chain, by JSON-RPC over HTTP. Must never show the endpoint's URL, nor decide
//! anything by the text of a message.

mod blocks;
mod configured;
mod tokens;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use alloy::consensus::BlockHeader;
use alloy::eips::BlockNumberOrTag;
use alloy::network::{Ethereum, ReceiptResponse, TransactionBuilder};
use alloy::primitives::{Address, B256};
use alloy::providers::{Provider, ProviderBuilder, RootProvider};
use alloy::rpc::types::TransactionRequest;
use alloy::transports::{RpcError, TransportError};
use kms_types::{EthAddress, Token, U256, Units, Wei};

use crate::ports::ChainView;
use crate::transfer::Fees;

pub(crate) use self::blocks::Block;
pub use self::configured::TokenError;
pub(crate) use self::tokens::transfer_call;
pub use self::tokens::{Balances, TokenMove};

/// How long the node may take for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Gas of a transfer to an address without code; no transfer takes less.
pub(crate) const PLAIN_TRANSFER_GAS: u64 = 21_000;

/// JSON-RPC codes by which a node says that a transaction would fail: 3 is that of the Ethereum
/// execution API, the others are those of EIP-1474 and of nodes from before it. Every other code,
/// limits on requests among them, is the endpoint's own trouble.
const WOULD_FAIL: [i64; 4] = [3, -32_000, -32_003, -32_015];

/// How much of a node's or a contract's words is kept.
const MESSAGE_CHARACTERS: usize = 200;

/// One chain, through one endpoint.
pub struct Chain {
    provider: RootProvider<Ethereum>,
    chain_id: u64,
    /// Whether the endpoint said that it is of this chain since its last failure.
    verified: AtomicBool,
    /// Whether Multicall3 was found on it.
    multicall: AtomicBool,
}

/// Why the chain did not do or say it. Never shows the endpoint's URL, which may hold a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The endpoint does not answer, or not in time, or not in JSON-RPC.
    #[error("the chain's endpoint does not answer: {0}")]
    Unavailable(String),
    /// The endpoint is of another chain.
    #[error("the endpoint is of chain {found}, not of chain {expected}")]
    WrongChain {
        /// As configured.
        expected: u64,
        /// As it says.
        found: u64,
    },
    /// The node answered with an error.
    #[error("the node refused: {message} ({code})")]
    Refused {
        /// The JSON-RPC code.
        code: i64,
        /// What it says: at most 200 characters, none of them a control character.
        message: String,
    },
    /// The recipient's or the token's contract would refuse the payment.
    #[error("the payment would be refused: {reason}")]
    Reverted {
        /// What the node and the contract say of it: a stranger's text, cut and cleaned as that
        /// of `Refused`.
        reason: String,
    },
    /// A token's contract does not answer as one.
    #[error("the token's contract does not answer as one")]
    NotAToken,
    /// The chain is one from before EIP-1559.
    #[error("the chain has no base fee (EIP-1559)")]
    NoBaseFee,
    /// The URL can not be used.
    #[error("the endpoint is not an http:// or https:// URL")]
    Url,
    /// The HTTP client can not be built.
    #[error("the HTTP client can not be built")]
    Client,
}

/// The latest block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub block: u64,
    /// Its base fee, in wei per gas, on a chain that has one.
    pub base_fee: Option<u64>,
}

/// What became of a transaction that is in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its block.
    pub block: u64,
    /// What the network took.
    pub fee: Wei,
    /// Whether it did what it should.
    pub success: bool,
    /// The tokens that it moved, as their own logs tell.
    pub moves: Vec<TokenMove>,
}

impl Receipt {
    /// How much of a token it brought from one to the other. Only the token's own log counts.
    #[must_use]
    pub fn arrived(&self, token: &Token, from: EthAddress, to: EthAddress) -> Units {
        let its = |moved: &&TokenMove| {
            moved.token == token.address && moved.from == from && moved.to == to
        };
        let units = self.moves.iter().filter(its).map(|moved| moved.units.0);
        Units(units.fold(U256::ZERO, U256::saturating_add))
    }
}

impl From<TransportError> for ChainError {
    fn from(error: TransportError) -> Self {
        match error {
            RpcError::ErrorResp(payload) => {
                Self::Refused { code: payload.code, message: cleaned(&payload.message) }
            }
            RpcError::Transport(kind) => Self::Unavailable(match kind.as_http_error() {
                Some(http) => format!("HTTP status {}", http.status),
                None => "no connection, or no answer in time".to_owned(),
            }),
            _ => Self::Unavailable("an answer that is not JSON-RPC".to_owned()),
        }
    }
}

impl Chain {
    /// Uses an endpoint, without asking yet whether it answers: a server starts while its chain
    /// is down. The chain id is compared before the first call and after every failure.
    ///
    /// # Errors
    /// When the URL can not be used.
    pub fn new(url: &str, chain_id: u64) -> Result<Self, ChainError> {
        let url: reqwest::Url = url.parse().map_err(|_secret| ChainError::Url)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(ChainError::Url);
        }
        // Fails only if one is installed, and then there is nothing to do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .connect_timeout(TIMEOUT)
            // Signed bytes go to the endpoint that was configured, and to no other.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|_cause| ChainError::Client)?;
        let provider = ProviderBuilder::<_, _, Ethereum>::default().connect_reqwest(client, url);
        Ok(Self {
            provider,
            chain_id,
            verified: AtomicBool::new(false),
            multicall: AtomicBool::new(false),
        })
    }

    /// EIP-155.
    #[must_use]
    pub fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// The number of the latest block.
    ///
    /// # Errors
    /// When the endpoint does not answer, or is of another chain.
    pub async fn block_number(&self) -> Result<u64, ChainError> {
        self.verify().await?;
        self.told(self.provider.get_block_number().await)
    }

    /// The latest block's number and base fee.
    ///
    /// # Errors
    /// When the endpoint does not answer, or is of another chain.
    pub async fn head(&self) -> Result<Head, ChainError> {
        self.verify().await?;
        let latest = self.provider.get_block_by_number(BlockNumberOrTag::Latest).await;
        let header = self.told(latest)?.ok_or_else(no_block)?.header;
        Ok(Head { block: header.number(), base_fee: header.base_fee_per_gas() })
    }

    /// How many transactions of the address are in blocks.
    ///
    /// # Errors
    /// When the endpoint does not answer, or is of another chain.
    pub async fn mined(&self, address: EthAddress) -> Result<u64, ChainError> {
        self.verify().await?;
        self.told(self.provider.get_transaction_count(address.into()).latest().await)
    }

    /// How many were, when this block was the latest.
    ///
    /// # Errors
    /// When the endpoint does not answer, does not know any more, or is of another chain.
    pub async fn mined_at(&self, address: EthAddress, block: u64) -> Result<u64, ChainError> {
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
    pub async fn view(
        &self,
        owner: EthAddress,
        token: Option<&Token>,
    ) -> Result<ChainView, ChainError> {
        let block = self.block_number().await?;
        let address = Address::from(owner);
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
        Ok(ChainView { block, balance: Wei(self.told(balance)?), token: token?, nonce })
    }

    /// Prices that stay sufficient while the base fee doubles.
    ///
    /// # Errors
    /// `NoBaseFee` on a chain without EIP-1559; else when the endpoint does not answer, or is of
    /// another chain.
    pub async fn fees(&self) -> Result<Fees, ChainError> {
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
    pub async fn is_contract(&self, address: EthAddress) -> Result<bool, ChainError> {
        self.verify().await?;
        Ok(!self.told(self.provider.get_code_at(address.into()).await)?.is_empty())
    }

    /// Gas for sending `value`: exact for an address without code, else the node's estimate and a
    /// fifth more.
    ///
    /// # Errors
    /// `Reverted` when the recipient's contract would refuse it; else when the endpoint does not
    /// answer, or is of another chain.
    pub async fn gas(
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
        let estimate = self.told(self.provider.estimate_gas(request).await);
        let estimate = estimate.map_err(|error| match error {
            ChainError::Refused { code, message } if WOULD_FAIL.contains(&code) => {
                ChainError::Reverted { reason: message }
            }
            error => error,
        })?;
        Ok(with_margin(estimate))
    }

    /// Sends signed bytes.
    ///
    /// # Errors
    /// `Refused` also when the node has the transaction, or a later nonce, already: what became
    /// of it is found by looking for its hash, not in the node's words.
    pub async fn broadcast(&self, signed: &[u8]) -> Result<(), ChainError> {
        self.verify().await?;
        self.told(self.provider.send_raw_transaction(signed).await).map(drop)
    }

    /// Whether the node knows the transaction, in a block or not.
    ///
    /// # Errors
    /// When the endpoint does not answer, or is of another chain.
    pub async fn knows(&self, hash: [u8; 32]) -> Result<bool, ChainError> {
        self.verify().await?;
        let found = self.provider.get_transaction_by_hash(B256::from(hash)).await;
        Ok(self.told(found)?.is_some())
    }

    /// What became of the transaction, if it is in a block.
    ///
    /// # Errors
    /// When the endpoint does not answer, or is of another chain.
    pub async fn receipt(&self, hash: [u8; 32]) -> Result<Option<Receipt>, ChainError> {
        self.verify().await?;
        let found = self.provider.get_transaction_receipt(B256::from(hash)).await;
        Ok(self.told(found)?.and_then(|receipt| {
            let gas = U256::from(receipt.gas_used());
            let fee = Wei(gas.saturating_mul(U256::from(receipt.effective_gas_price())));
            let block = receipt.block_number()?;
            let success = receipt.status();
            let logs = receipt.inner.logs().iter();
            let moves = logs.filter_map(|log| TokenMove::of(log.address(), &log.inner.data));
            Some(Receipt { block, fee, success, moves: moves.collect() })
        }))
    }

    async fn verify(&self) -> Result<(), ChainError> {
        if self.verified.load(Ordering::Relaxed) {
            return Ok(());
        }
        let found = self.provider.get_chain_id().await?;
        if found != self.chain_id {
            return Err(ChainError::WrongChain { expected: self.chain_id, found });
        }
        self.verified.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// After a failure another node may stand behind the URL.
    fn told<T>(&self, answer: Result<T, TransportError>) -> Result<T, ChainError> {
        answer.map_err(|error| {
            let error = ChainError::from(error);
            if matches!(error, ChainError::Unavailable(_)) {
                self.verified.store(false, Ordering::Relaxed);
            }
            error
        })
    }
}

/// What is needed may be a little more when the payment is mined.
fn with_margin(gas: u64) -> u64 {
    gas.saturating_add(gas / 5)
}

fn no_block() -> ChainError {
    ChainError::Unavailable("no latest block".to_owned())
}

/// Foreign text that is fit for a log line and for a person's screen.
fn cleaned(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(MESSAGE_CHARACTERS).collect()
}

/// By hand: the provider's own text shows the URL.
impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain").field("chain_id", &self.chain_id).finish_non_exhaustive()
    }
}
